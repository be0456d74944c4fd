use super::*;
use crate::check::Known;
use crate::wire::Status;
use proptest::prelude::*;

const WHY: &str = "the build needs it";

fn hosts(name: &str) -> Checked {
    checked(Change::Hosts { hosts: vec![name.into()] })
}

fn finding(n: usize) -> Checked {
    checked(Change::Finding { fingerprint: format!("{n:012x}") })
}

fn checked(change: Change) -> Checked {
    check::change(change, &Known { image: "a".to_owned(), ..Known::default() }).unwrap()
}

fn base() -> Digest {
    Digest::of(b"the bottle as it is")
}

fn new(queue: &mut Queue, change: &Checked, now: u64) -> String {
    let Ok(Asked::New(record)) = queue.ask(change, WHY, now) else { panic!("it is known or refused") };
    let id = record.id().to_owned();
    queue.apply(record).unwrap();
    id
}

fn approve(queue: &Queue, id: &str, change: &Checked, term: Term) -> Result<Record, VerdictRefusal> {
    let displayed = queue.displayed(id, change, &base()).unwrap();
    let seen = Seen { displayed, base: base() };
    queue.approve(id, &Approval { change, term, seen, by: "ada" }, &base(), 100)
}

/// Approves and carries out.
fn in_force(queue: &mut Queue, id: &str, change: &Checked, term: Term) {
    queue.apply(approve(queue, id, change, term).unwrap()).unwrap();
    queue.apply(queue.applied(id, "", 101).unwrap()).unwrap();
}

fn status(queue: &Queue, id: &str) -> Status {
    queue.answer(id).unwrap().status
}

#[test]
fn a_proposal_from_its_ask_to_its_end() {
    let mut queue = Queue::default();
    let change = hosts("a.example.org");
    let id = new(&mut queue, &change, 100);
    assert_eq!((id.as_str(), status(&queue, &id)), ("p1", Status::Pending));
    assert_eq!(queue.open().len(), 1);
    queue.apply(approve(&queue, &id, &change, Term::Until { at: 200 }).unwrap()).unwrap();
    assert_eq!(status(&queue, &id), Status::Pending, "the agent is not told before it holds");
    assert!(queue.open().is_empty() && queue.next_due().is_none());
    queue.apply(queue.applied(&id, "open", 101).unwrap()).unwrap();
    let answer = queue.answer(&id).unwrap();
    assert_eq!((answer.status, answer.until, answer.notes.as_str()), (Status::Approved, Some(200), "open"));
    assert_eq!(answer.applied.as_ref(), Some(change.change()));
    assert_eq!((queue.due(199), queue.due(200), queue.next_due()), (vec![], vec![id.clone()], Some(200)));
    queue.apply(queue.end(&id, Cause::TimeOver, 200).unwrap()).unwrap();
    assert_eq!((status(&queue, &id), queue.next_due()), (Status::Ended, None));
    assert_eq!(new(&mut queue, &change, 300), "p2", "what ended can be asked for again");
}

#[test]
fn a_verdict_is_taken_once_and_only_for_what_was_seen() {
    let mut queue = Queue::default();
    let (change, other) = (hosts("a.example.org"), hosts("b.example.org"));
    let id = new(&mut queue, &change, 100);
    let seen = |change: &Checked, base: &Digest| Seen {
        displayed: queue.displayed(&id, change, base).unwrap(),
        base: base.clone(),
    };
    let try_with = |change: &Checked, seen: Seen, now: &Digest| {
        queue.approve(&id, &Approval { change, term: Term::Lasting, seen, by: "ada" }, now, 100).map(drop)
    };
    let later = Digest::of(b"another state");
    assert_eq!(try_with(&change, seen(&change, &base()), &base()), Ok(()));
    assert_eq!(try_with(&other, seen(&other, &base()), &base()), Ok(()), "a person may change it");
    assert_eq!(try_with(&other, seen(&change, &base()), &base()), Err(VerdictRefusal::Stale));
    assert_eq!(try_with(&change, seen(&change, &base()), &later), Err(VerdictRefusal::Stale));
    let mixed = Seen { displayed: queue.displayed(&id, &change, &later).unwrap(), base: base() };
    assert_eq!(try_with(&change, mixed, &base()), Err(VerdictRefusal::Stale));
    assert_eq!(try_with(&finding(1), seen(&finding(1), &base()), &base()), Err(VerdictRefusal::OtherKind));

    let yes = approve(&queue, &id, &change, Term::Lasting).unwrap();
    queue.apply(yes.clone()).unwrap();
    assert!(matches!(approve(&queue, &id, &change, Term::Lasting), Err(VerdictRefusal::NotPending { .. })));
    assert!(matches!(queue.reject(&id, "", "ada", 100), Err(VerdictRefusal::NotPending { .. })));
    let before = queue.clone();
    assert!(queue.apply(yes).is_err() && queue == before, "a record that does not follow changes nothing");
    queue.apply(queue.applied(&id, "", 101).unwrap()).unwrap();
    assert_eq!(queue.applied(&id, "", 101), Err(VerdictRefusal::NotApplying(id.clone())));
    assert_eq!(queue.failed(&id, "", 101), Err(VerdictRefusal::NotApplying(id.clone())));
    assert_eq!(queue.reject("p7", "", "ada", 1), Err(VerdictRefusal::Unknown("p7".into())));
}

#[test]
fn repeats_do_not_make_a_verdict_stale() {
    let mut queue = Queue::default();
    let change = hosts("a.example.org");
    let id = new(&mut queue, &change, 100);
    let seen = Seen { displayed: queue.displayed(&id, &change, &base()).unwrap(), base: base() };
    let Ok(Asked::Known { record: Some(record), .. }) = queue.ask(&change, "again!", 101) else { panic!() };
    queue.apply(record).unwrap();
    assert_eq!(queue.proposal(&id).map(|proposal| (proposal.times, proposal.justification.as_str())), Some((2, WHY)));
    let approval = Approval { change: &change, term: Term::Lasting, seen, by: "ada" };
    assert!(queue.approve(&id, &approval, &base(), 102).is_ok());
}

#[test]
fn what_a_person_changed_is_modified() {
    let mut queue = Queue::default();
    let asked = checked(Change::Hosts { hosts: vec!["*.example.org".into()] });
    let id = new(&mut queue, &asked, 100);
    let smaller = hosts("a.example.org");
    in_force(&mut queue, &id, &smaller, Term::Lasting);
    let answer = queue.answer(&id).unwrap();
    assert_eq!((answer.status, answer.applied.as_ref()), (Status::Modified, Some(smaller.change())));
    assert!(matches!(queue.ask(&asked, WHY, 110), Ok(Asked::Known { record: None, .. })));
}

#[test]
fn what_was_cut_short_fails_and_is_not_applied() {
    let mut queue = Queue::default();
    let change = hosts("a.example.org");
    let id = new(&mut queue, &change, 100);
    queue.apply(approve(&queue, &id, &change, Term::Lasting).unwrap()).unwrap();
    queue.apply(queue.grant(&finding(1), Term::Once, "ada", 100).unwrap()).unwrap();
    let records = queue.interrupted(500);
    assert_eq!(records.iter().map(Record::id).collect::<Vec<_>>(), ["p1", "g1"]);
    records.into_iter().for_each(|record| queue.apply(record).unwrap());
    assert_eq!(status(&queue, &id), Status::Failed);
    assert!(queue.answer(&id).unwrap().notes.starts_with("interrupted"));
    assert!(queue.interrupted(501).is_empty());
    assert_eq!(queue.applied(&id, "", 502), Err(VerdictRefusal::NotApplying(id)));
}

#[test]
fn a_rejection_stands_for_a_while_unless_there_is_a_new_reason() {
    let mut queue = Queue::default();
    let change = hosts("a.example.org");
    let id = new(&mut queue, &change, 100);
    queue.apply(queue.reject(&id, "use the mirror", "ada", 110).unwrap()).unwrap();
    let again = |why: &str, now| match queue.ask(&change, why, now).unwrap() {
        Asked::New(_) => None,
        Asked::Known { answer, record } => Some((answer.notes, record.is_some())),
    };
    assert_eq!(again(WHY, 111), Some(("use the mirror".into(), false)));
    assert_eq!(again(WHY, 709), Some(("use the mirror".into(), false)));
    assert_eq!(again(WHY, 710), None);
    assert_eq!(again("the mirror has not got it", 111), None);
}

#[test]
fn floods_end_at_the_limits_and_other_kinds_keep_their_places() {
    let mut queue = Queue::default();
    for n in 0..6 {
        new(&mut queue, &hosts(&format!("h{n}.example.org")), n * 100);
    }
    let full = queue.ask(&hosts("more.example.org"), WHY, 1000);
    assert_eq!(full, Err(Refusal::ManyOpen { open: 6, kind: "hosts" }));
    assert!(matches!(queue.ask(&hosts("h3.example.org"), WHY, 1000), Ok(Asked::Known { .. })));
    new(&mut queue, &finding(1), 1000);
    assert_eq!(queue.open().len(), 7);
    queue.apply(queue.reject("p2", "", "ada", 1001).unwrap()).unwrap();
    new(&mut queue, &hosts("more.example.org"), 1002);
    assert_eq!(Limits::default().open(), 16);
}

#[test]
fn too_many_new_ones_at_once_are_refused() {
    let mut queue = Queue::default();
    for n in 0..8 {
        let id = new(&mut queue, &finding(n), 100);
        queue.apply(queue.reject(&id, "", "ada", 100).unwrap()).unwrap();
    }
    assert_eq!(queue.ask(&finding(9), WHY, 159), Err(Refusal::TooFast { seconds: 60 }));
    assert!(matches!(queue.ask(&finding(9), WHY, 160), Ok(Asked::New(_))));
    let limits = Limits { proposals: 8, ..Limits::default() };
    let mut small = Queue { limits, ..queue };
    assert_eq!(small.ask(&finding(9), WHY, 1000), Err(Refusal::Exhausted { proposals: 8 }));
    small.apply(small.grant(&finding(9), Term::Lasting, "ada", 1000).unwrap()).unwrap();
}

#[test]
fn repeats_are_counted_up_to_a_limit() {
    let mut queue = Queue::default();
    let change = hosts("a.example.org");
    let id = new(&mut queue, &change, 100);
    let mut journalled = 0;
    for _ in 0..1000 {
        let Ok(Asked::Known { record, answer }) = queue.ask(&change, WHY, 101) else { panic!() };
        assert_eq!((answer.id.as_str(), answer.status), (id.as_str(), Status::Pending));
        if let Some(record) = record {
            journalled += 1;
            queue.apply(record).unwrap();
        }
    }
    assert_eq!((journalled, queue.proposal(&id).unwrap().times), (49, 50));
}

#[test]
fn terms_fit_what_they_limit() {
    let queue = Queue::default();
    let route = crate::wire::Route {
        path: "/a/".into(),
        upstream: "https://a.example".into(),
        scheme: "none".into(),
        allow: vec!["GET /".into()],
    };
    let (route, dockerfile) = (checked(Change::Route(route)), checked(Change::Dockerfile { text: "FROM a".into() }));
    let later = Term::Until { at: 101 };
    for (change, term, wanted) in [
        (&hosts("a.example.org"), later, Ok(())),
        (&hosts("a.example.org"), Term::Until { at: 100 }, Err(VerdictRefusal::TermOver)),
        (&hosts("a.example.org"), Term::Once, Err(VerdictRefusal::OnceOfHosts)),
        (&finding(1), Term::Once, Ok(())),
        (&route, Term::Once, Ok(())),
        (&route, later, Ok(())),
        (&dockerfile, Term::Lasting, Ok(())),
        (&dockerfile, later, Err(VerdictRefusal::TermOfDockerfile)),
        (&dockerfile, Term::Once, Err(VerdictRefusal::TermOfDockerfile)),
    ] {
        assert_eq!(queue.grant(change, term, "ada", 100).map(drop), wanted, "{change:?} {term:?}");
    }
}

#[test]
fn words_have_a_limit() {
    let mut queue = Queue::default();
    let id = new(&mut queue, &finding(1), 100);
    assert!(queue.reject(&id, &"r".repeat(2000), "ada", 100).is_ok());
    assert_eq!(queue.reject(&id, &"r".repeat(2001), "ada", 100), Err(VerdictRefusal::LongNotes(2001)));
    assert_eq!(queue.ask(&finding(2), " ", 100), Err(Refusal::Unfit(check::Unfit::NoJustification)));
}

#[test]
fn an_operators_grant_is_no_proposal() {
    let mut queue = Queue::default();
    queue.apply(queue.grant(&hosts("a.example.org"), Term::Until { at: 200 }, "ada", 100).unwrap()).unwrap();
    assert!(queue.answers().is_empty() && queue.open().is_empty() && queue.proposal("g1").is_none());
    queue.apply(queue.applied("g1", "", 101).unwrap()).unwrap();
    assert_eq!(queue.due(200), ["g1"]);
    queue.apply(queue.end("g1", Cause::Revoked { by: "ada".into() }, 150).unwrap()).unwrap();
    assert_eq!(queue.end("g1", Cause::TimeOver, 150), Err(VerdictRefusal::NotInForce("g1".into())));
}

#[test]
fn answers_fit_into_a_line_whatever_was_asked() {
    let limits = Limits { new_per_window: usize::MAX, open_dockerfiles: 1000, ..Limits::default() };
    let mut queue = Queue::new(limits);
    for n in 0..200 {
        let text = format!("FROM a\n# {n}\n{}", "#".repeat(60_000));
        let change = checked(Change::Dockerfile { text });
        let id = new(&mut queue, &change, 100);
        in_force(&mut queue, &id, &change, Term::Lasting);
    }
    let answers = queue.answers();
    assert_eq!((answers.len(), answers[0].id.as_str(), answers[127].id.as_str()), (128, "p73", "p200"));
    assert!(serde_json::to_vec(&answers).unwrap().len() < bottle_sidecar::LINE_BYTES_MAX / 2);
}

#[test]
fn ids_have_one_spelling() {
    let mut queue = Queue::default();
    new(&mut queue, &finding(1), 100);
    assert!(queue.entry("p1").is_some());
    for id in ["", "p", "p01", "p+1", "P1", "g1", "p1 ", "p-1", "1", "ü", "p18446744073709551616"] {
        assert!(queue.entry(id).is_none(), "{id}");
    }
}

/// What anybody may do, in any order.
#[derive(Debug, Clone)]
enum Doing {
    Ask(usize, bool),
    Approve(usize, usize),
    Reject(usize),
    Grant(usize),
    Applied(usize, bool),
    Failed(usize, bool),
    End(usize, bool),
    Wait(u64),
    Restart,
}

fn doing() -> impl Strategy<Value = Doing> {
    prop_oneof![
        4 => (0..6usize, any::<bool>()).prop_map(|(change, why)| Doing::Ask(change, why)),
        3 => (1..6usize, 0..6usize).prop_map(|(id, change)| Doing::Approve(id, change)),
        1 => (1..6usize).prop_map(Doing::Reject),
        1 => (0..6usize).prop_map(Doing::Grant),
        3 => (1..6usize, any::<bool>()).prop_map(|(id, grant)| Doing::Applied(id, grant)),
        1 => (1..6usize, any::<bool>()).prop_map(|(id, grant)| Doing::Failed(id, grant)),
        2 => (1..6usize, any::<bool>()).prop_map(|(id, grant)| Doing::End(id, grant)),
        1 => (0..1000u64).prop_map(Doing::Wait),
        1 => Just(Doing::Restart),
    ]
}

fn change(n: usize) -> Checked {
    if n < 3 { hosts(&format!("h{n}.example.org")) } else { finding(n) }
}

fn name(n: usize, grant: bool) -> String {
    if grant { format!("g{n}") } else { format!("p{n}") }
}

fn records_of(queue: &Queue, doing: &Doing, now: u64) -> Vec<Record> {
    let one = |record: Result<Record, VerdictRefusal>| record.ok().into_iter().collect();
    match doing {
        Doing::Ask(n, why) => match queue.ask(&change(*n), if *why { WHY } else { "please" }, now) {
            Ok(Asked::New(record)) => vec![record],
            Ok(Asked::Known { record, .. }) => record.into_iter().collect(),
            Err(_) => Vec::new(),
        },
        Doing::Approve(id, n) => {
            let id = name(*id, false);
            let Some(displayed) = queue.displayed(&id, &change(*n), &base()) else { return Vec::new() };
            let seen = Seen { displayed, base: base() };
            let approval = Approval { change: &change(*n), term: Term::Until { at: now + 500 }, seen, by: "ada" };
            one(queue.approve(&id, &approval, &base(), now))
        }
        Doing::Reject(id) => one(queue.reject(&name(*id, false), "no", "ada", now)),
        Doing::Grant(n) => one(queue.grant(&change(*n), Term::Lasting, "ada", now)),
        Doing::Applied(id, grant) => one(queue.applied(&name(*id, *grant), "", now)),
        Doing::Failed(id, grant) => one(queue.failed(&name(*id, *grant), "no", now)),
        Doing::End(id, grant) => one(queue.end(&name(*id, *grant), Cause::TimeOver, now)),
        Doing::Wait(_) => Vec::new(),
        Doing::Restart => queue.interrupted(now),
    }
}

proptest! {
    #[test]
    fn the_journal_is_the_queue_wherever_it_is_cut(doings in proptest::collection::vec(doing(), 0..40)) {
        let mut queue = Queue::default();
        let (mut records, mut after) = (Vec::new(), vec![queue.clone()]);
        let mut now = 1000;
        for doing in &doings {
            if let Doing::Wait(seconds) = doing {
                now += seconds;
            }
            let before = queue.clone();
            let made = records_of(&queue, doing, now);
            prop_assert_eq!(&before, &queue);
            for record in made {
                queue.apply(record.clone()).unwrap();
                // As it is read back from a file.
                records.push(serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap());
                after.push(queue.clone());
            }
            prop_assert!(queue.open().len() <= Limits::default().open());
            // No change waits, is carried out or holds twice.
            let mut live: Vec<_> = queue.entries().filter(|entry| entry.origin == Origin::Agent)
                .filter(|entry| matches!(entry.state, State::Pending | State::Applying { .. } | State::InForce { .. }))
                .map(|entry| serde_json::to_string(&entry.proposal.change).unwrap()).collect();
            let count = live.len();
            live.sort();
            live.dedup();
            prop_assert_eq!(live.len(), count);
        }
        for (cut, wanted) in after.iter().enumerate() {
            let replayed = Queue::replay(Limits::default(), records[..cut].to_vec()).unwrap();
            prop_assert_eq!(&replayed, wanted);
        }
        // No yes is carried out twice, and nothing holds without one.
        for entry in queue.entries() {
            let of = |wanted: fn(&Record) -> bool| records.iter().filter(|r| r.id() == entry.proposal.id && wanted(r)).count();
            let yes = of(|r| matches!(r, Record::Approved { .. } | Record::Granted { .. }));
            let done = of(|r| matches!(r, Record::Applied { .. }));
            prop_assert!(done <= yes && yes <= 1);
        }
    }

    #[test]
    fn a_journal_with_a_record_lost_or_moved_is_told_or_harmless(doings in proptest::collection::vec(doing(), 0..30), at in any::<prop::sample::Index>()) {
        let mut queue = Queue::default();
        let mut records = Vec::new();
        for doing in &doings {
            for record in records_of(&queue, doing, 1000) {
                queue.apply(record.clone()).unwrap();
                records.push(record);
            }
        }
        if !records.is_empty() {
            let mut lost = records.clone();
            let gone = lost.remove(at.index(records.len()));
            // Without its record, nothing that needs it is in force.
            if let Ok(queue) = Queue::replay(Limits::default(), lost) {
                let is_in_force = queue.entry(gone.id()).is_some_and(|entry| matches!(entry.state, State::InForce { .. }));
                let is_harmless = matches!(gone, Record::Repeated { .. } | Record::Ended { .. });
                prop_assert!(!is_in_force || is_harmless);
            }
        }
    }
}
