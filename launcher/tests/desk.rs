//! An agent asks and a person answers, on the engine in memory: what is approved is what was shown, it is written down
//! before it is done, seen to be so before the agent is told, and given up where it cannot be.

#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

mod trial;

use launcher::audit::{Event, verify};
use launcher::engine::fake::{End, Fault, How, Script};
use launcher::exit::Exit;
use launcher::keeper::desk::Visit;
use launcher::keeper_socket::Ending;
use launcher::stop::Level;
use launcher::verdict::{Listing, Reply, Request, Review, Subject, Terms};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use supervise::wire::{Change, Status};
use trial::{ID, Trial};

fn container(role: &str) -> String {
    format!("bottle-{ID}-{role}")
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not so after a long time: {what}");
}

/// A bottle whose agent works until it is stopped.
struct Bottle {
    trial: Arc<Trial>,
    calls: Mutex<u64>,
}

impl Bottle {
    /// An agent asks. Gives what supervise is told.
    async fn asks(&self, change: &Change, why: &str) -> String {
        let call = {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            *calls
        };
        let ask = serde_json::json!({ "event": "ask", "call": call, "change": change, "justification": why });
        self.trial.engine.say(&container("supervise"), &format!("{ask}\n"));
        let mine = format!("\"call\":{call},");
        let told = || self.told("supervise").lines().find(|l| l.contains(&mine)).map(str::to_owned);
        until("supervise is answered", || told().is_some()).await;
        told().unwrap()
    }

    async fn visits(&self, request: Request) -> Reply {
        let door = self.trial.shared.get().unwrap().desk.get().unwrap().clone();
        let (reply, answer) = tokio::sync::oneshot::channel();
        door.visits.send(Visit { request, by: "uid 0".to_owned(), reply }).await.ok().unwrap();
        answer.await.unwrap()
    }

    async fn listing(&self) -> Listing {
        match self.visits(Request::List { watch: false }).await {
            Reply::Listing(listing) => *listing,
            other => panic!("{other:?}"),
        }
    }

    async fn reviews(&self, subject: &Subject, terms: &Terms) -> Review {
        match self.visits(Request::Review { subject: subject.clone(), terms: terms.clone() }).await {
            Reply::Review(review) => *review,
            other => panic!("{other:?}"),
        }
    }

    async fn decides(&self, subject: &Subject, terms: &Terms) -> Reply {
        let digest = self.reviews(subject, terms).await.digest;
        self.visits(Request::Decide { subject: subject.clone(), terms: terms.clone(), digest }).await
    }

    async fn status(&self, id: &str) -> Status {
        let listing = self.listing().await;
        listing.proposals.iter().find(|p| p.proposal.id == id).unwrap().answer.status
    }

    /// Everything that a container was told.
    fn told(&self, role: &str) -> String {
        String::from_utf8_lossy(&self.trial.engine.input(&container(role))).into_owned()
    }

    fn events(&self) -> Vec<Event> {
        let entries = verify(&self.trial.root().dir(ID).audit()).unwrap();
        entries.into_iter().map(|entry| entry.event).collect()
    }
}

async fn during<F: Future<Output = ()> + Send>(
    what: impl FnOnce(Arc<Bottle>) -> F + Send + 'static,
) -> (Arc<Bottle>, Ending) {
    during_of(Trial::new(), what).await
}

async fn during_of<F: Future<Output = ()> + Send>(
    trial: Trial,
    what: impl FnOnce(Arc<Bottle>) -> F + Send + 'static,
) -> (Arc<Bottle>, Ending) {
    trial.engine.exec_script(|spec| match spec.argv.first().map(String::as_str) {
        Some("work") => Script { output: bytes::Bytes::new(), end: End::Never },
        _ => Script { output: bytes::Bytes::new(), end: End::Code(0) },
    });
    let bottle = Arc::new(Bottle { trial: Arc::new(trial), calls: Mutex::new(0) });
    let stopper = Arc::new(Mutex::new(None));
    let (kept, raise) = (Arc::clone(&bottle), Arc::clone(&stopper));
    let kept = tokio::spawn(async move { kept.trial.keep(|_, stopper| *raise.lock().unwrap() = Some(stopper)).await });
    let opened = || bottle.trial.shared.get().is_some_and(|shared| shared.agent.get().is_some());
    until("the agent runs", opened).await;
    // No call of the keeper's own comes between what follows.
    until("the helper is gone", || !bottle.trial.engine.left().iter().any(|name| name.contains("wall"))).await;
    what(Arc::clone(&bottle)).await;
    stopper.lock().unwrap().clone().unwrap().raise(Level::Now);
    let ending = kept.await.unwrap();
    assert_eq!((ending.exit, &ending.leftovers), (Exit::Interrupted, &Vec::new()), "{ending:?}");
    bottle.trial.assert_clean("a bottle with proposals");
    (bottle, ending)
}

fn hosts(hosts: &[&str]) -> Change {
    Change::Hosts { hosts: hosts.iter().map(|h| (*h).to_owned()).collect() }
}

fn proposal(id: &str) -> Subject {
    Subject::Proposal(id.to_owned())
}

/// The last policy that a pipelock was told.
fn policy(bottle: &Bottle) -> String {
    bottle.told("pipelock").rsplit("/pipelock.yaml\n").next().unwrap().to_owned()
}

#[tokio::test]
async fn a_host_is_asked_for_shown_approved_and_open() {
    let (bottle, _) = during(|bottle| async move {
        let told = bottle.asks(&hosts(&["crates.example.org"]), "to build").await;
        assert!(told.contains(r#""command":"asked""#) && told.contains(r#""status":"pending""#), "{told}");
        assert!(!policy(&bottle).contains("crates.example.org"), "nothing is open yet");
        let review = bottle.reviews(&proposal("p1"), &Terms::default()).await;
        assert_eq!(review.before, ["host files.example"]);
        assert_eq!(review.after, ["host files.example", "host crates.example.org"]);
        let reply = bottle.decides(&proposal("p1"), &Terms::default()).await;
        assert!(matches!(&reply, Reply::Done(done) if done.grant.as_deref() == Some("p1")), "{reply:?}");
        let policy = policy(&bottle);
        assert!(policy.contains("crates.example.org") && policy.contains("files.example"), "{policy}");
        assert!(policy.contains("probe crates.example.org:443"), "it was seen to be open: {policy}");
        until("the agent is told", || bottle.told("supervise").contains(r#""status":"approved""#)).await;
        // What starts again has it too.
        bottle.trial.engine.end(&container("pipelock"), 137);
        let again = || bottle.told("pipelock").matches("\nrun\n").count() == 2;
        until("pipelock runs again", again).await;
        assert!(bottle.told("pipelock").rsplit("/pipelock.yaml\n").next().unwrap().contains("crates.example.org"));
        bottle.trial.engine.end(&container("supervise"), 137);
        let answers = || bottle.told("supervise").matches(r#""command":"configure""#).count() == 2;
        until("supervise is told everything again", answers).await;
        let told = bottle.told("supervise");
        let last = told.lines().rev().find(|l| l.contains(r#""command":"configure""#)).unwrap();
        assert!(
            last.contains(r#""id":"p1","status":"approved""#) && last.contains(r#""crates.example.org""#),
            "{last}"
        );
    })
    .await;
    let kinds: Vec<String> = bottle
        .events()
        .iter()
        .map(|event| serde_json::to_value(event).unwrap()["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["launch", "proposal", "verdict", "applied", "used", "teardown"]);
}

#[tokio::test]
async fn what_may_never_be_approved_is_refused_before_a_person_sees_it() {
    during(|bottle| async move {
        for host in [
            "127.0.0.1",
            "localhost",
            "169.254.169.254",
            "metadata.google.internal",
            "10.0.0.1",
            "pipelock",
            "a.internal",
            // Hosts of the route and of a remote, and a star over one.
            "api.example",
            "*.api.example",
            "git.example",
            "lib.example",
            "*.example",
            // What is open already.
            "files.example",
        ] {
            let told = bottle.asks(&hosts(&[host]), "please").await;
            assert!(told.contains(r#""command":"denied""#), "{host}: {told}");
        }
        assert!(bottle.listing().await.proposals.is_empty());
        let told = bottle.asks(&hosts(&["neighbour.example.org"]), "please").await;
        assert!(told.contains(r#""command":"asked""#), "{told}");
    })
    .await;
}

#[tokio::test]
async fn the_same_asked_twice_is_one_proposal_and_a_no_is_told() {
    during(|bottle| async move {
        bottle.asks(&hosts(&["a.example.org"]), "please").await;
        let told = bottle.asks(&hosts(&["A.example.org."]), "please").await;
        assert!(told.contains(r#""id":"p1""#), "{told}");
        let listing = bottle.listing().await;
        assert_eq!((listing.proposals.len(), listing.proposals[0].proposal.times), (1, 2));
        let no = Request::Reject { proposal: "p1".to_owned(), reason: "use the mirror".to_owned() };
        assert!(matches!(bottle.visits(no.clone()).await, Reply::Done(_)));
        until("the agent is told", || bottle.told("supervise").contains("use the mirror")).await;
        assert_eq!(bottle.status("p1").await, Status::Rejected);
        assert!(matches!(bottle.visits(no).await, Reply::Refused { .. }), "an answer is given once");
        let late = Request::Review { subject: proposal("p1"), terms: Terms::default() };
        assert!(matches!(bottle.visits(late).await, Reply::Refused { .. }));
        assert!(!bottle.told("pipelock").contains("a.example.org"));
    })
    .await;
}

#[tokio::test]
async fn a_verdict_on_what_has_changed_is_shown_anew_and_nothing_is_done() {
    during(|bottle| async move {
        bottle.asks(&hosts(&["a.example.org"]), "please").await;
        bottle.asks(&hosts(&["b.example.org"]), "please").await;
        let shown = bottle.reviews(&proposal("p1"), &Terms::default()).await;
        assert!(matches!(bottle.decides(&proposal("p2"), &Terms::default()).await, Reply::Done(_)));
        let decide = |digest: String| Request::Decide { subject: proposal("p1"), terms: Terms::default(), digest };
        let Reply::Changed(now) = bottle.visits(decide(shown.digest)).await else { panic!("it was done") };
        assert!(now.before.contains(&"host b.example.org".to_owned()), "{now:?}");
        assert!(!policy(&bottle).contains("a.example.org"));
        assert_eq!(bottle.status("p1").await, Status::Pending);
        // On other terms than those that were shown nothing is done either.
        let lasting = now.digest.clone();
        let terms = Terms { seconds: Some(60), ..Terms::default() };
        let other = Request::Decide { subject: proposal("p1"), terms, digest: lasting };
        assert!(matches!(bottle.visits(other).await, Reply::Changed(_)));
        assert!(matches!(bottle.visits(decide(now.digest)).await, Reply::Done(_)));
        assert!(policy(&bottle).contains("a.example.org"));
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_done_leaves_the_bottle_as_it_was() {
    during(|bottle| async move {
        for (host, part) in
            [("refused-by-pipelock.example", "security downgrade"), ("kept-closed.example", "is still closed")]
        {
            let told = bottle.asks(&hosts(&[host]), "please").await;
            assert!(told.contains(r#""command":"asked""#), "{told}");
            let id = bottle.listing().await.proposals.last().unwrap().proposal.id.clone();
            let reply = bottle.decides(&proposal(&id), &Terms::default()).await;
            assert!(matches!(&reply, Reply::Refused { reason, .. } if reason.contains(part)), "{reply:?}");
            assert!(!policy(&bottle).contains(host), "{}", policy(&bottle));
            assert_eq!(bottle.status(&id).await, Status::Failed);
        }
        // The next good one works.
        bottle.asks(&hosts(&["good.example.org"]), "please").await;
        assert!(matches!(bottle.decides(&proposal("p3"), &Terms::default()).await, Reply::Done(_)));
    })
    .await;
}

#[tokio::test]
async fn a_grant_is_taken_back_by_its_time_and_by_a_person() {
    during(|bottle| async move {
        let allow = Subject::Own(hosts(&["timed.example.org"]));
        let terms = Terms { seconds: Some(1), ..Terms::default() };
        assert!(bottle.reviews(&allow, &terms).await.facts.iter().any(|f| f.contains("started again")));
        assert!(matches!(bottle.decides(&allow, &terms).await, Reply::Done(_)));
        assert!(policy(&bottle).contains("timed.example.org"));
        until("it is taken back", || !policy(&bottle).contains("timed.example.org")).await;
        assert!(bottle.told("pipelock").contains("restart\n"), "open tunnels are cut");

        let allow = Subject::Own(hosts(&["lasting.example.org"]));
        assert!(matches!(bottle.decides(&allow, &Terms::default()).await, Reply::Done(_)));
        until("one is in force", || policy(&bottle).contains("lasting.example.org")).await;
        let back = Subject::Back("lasting.example.org".to_owned());
        assert!(matches!(bottle.decides(&back, &Terms::default()).await, Reply::Done(_)));
        assert!(!policy(&bottle).contains("lasting.example.org"));
        // A host of the manifest can be taken back too, and what is not there cannot.
        let back = Subject::Back("files.example".to_owned());
        assert!(matches!(bottle.decides(&back, &Terms::default()).await, Reply::Done(_)));
        assert!(!policy(&bottle).contains("files.example"));
        let none = Request::Review { subject: Subject::Back("files.example".to_owned()), terms: Terms::default() };
        assert!(matches!(bottle.visits(none).await, Reply::Refused { .. }));
        assert!(bottle.listing().await.grants.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_route_of_a_known_kind_is_added_while_the_bottle_runs() {
    during(|bottle| async move {
        let asked = supervise::wire::Route {
            path: "/crates/".to_owned(),
            upstream: "https://crates.example.org".to_owned(),
            scheme: "Bearer".to_owned(),
            allow: vec!["GET /api/**".to_owned()],
        };
        let token = bottle.trial.dir.path().join("crates-token");
        std::fs::write(&token, "a-canary-for-crates\n").unwrap();
        bottle.asks(&Change::Route(asked), "to publish").await;
        let none = bottle.reviews(&proposal("p1"), &Terms::default()).await;
        assert!(matches!(&none.change, Change::Route(route) if route.scheme == "none"), "{none:?}");
        let terms = Terms { token_ref: Some(launcher::manifest::TokenRef::File(token)), ..Terms::default() };
        let reply = bottle.decides(&proposal("p1"), &terms).await;
        assert!(matches!(reply, Reply::Done(_)), "{reply:?}");
        let (told, policy) = (bottle.told("cred-proxy"), bottle.told("route-pipelock"));
        assert!(told.contains("a-canary-for-crates") && told.contains("/crates/"), "{told}");
        assert!(policy.contains("probe crates.example.org:443"), "{policy}");
        assert!(!bottle.told("supervise").contains("a-canary"), "no credential comes near the agent");
        // And back: cred-proxy forgets it, route-pipelock closes the host without a restart.
        let back = Subject::Back("p1".to_owned());
        assert!(matches!(bottle.decides(&back, &Terms::default()).await, Reply::Done(_)));
        assert!(!bottle.told("cred-proxy").lines().last().unwrap().contains("crates"));
        let policy = bottle.told("route-pipelock");
        assert!(!policy.rsplit("/pipelock.yaml\n").next().unwrap().contains("crates.example.org"));
        assert!(!policy.contains("restart\n"), "the streams of other routes go on");
    })
    .await;
}

#[tokio::test]
async fn a_bottle_that_is_to_end_at_once_waits_for_no_pipelock_that_is_being_started_again() {
    let (told, tell) = tokio::sync::oneshot::channel();
    let (bottle, _) = during(|bottle| async move {
        for host in ["never-back.example", "other.example"] {
            let reply = bottle.decides(&Subject::Own(hosts(&[host])), &Terms::default()).await;
            assert!(matches!(&reply, Reply::Done(_)), "{reply:?}");
        }
        let revoking = Arc::clone(&bottle);
        tokio::spawn(async move {
            let back = Subject::Back("other.example".to_owned());
            told.send(revoking.decides(&back, &Terms::default()).await).unwrap();
        });
        until("it is told to start again", || bottle.told("pipelock").ends_with("restart\n")).await;
    })
    .await;
    // It was given up, and not waited for until its time was over; what was taken away is away.
    let reply = tell.await.unwrap();
    assert!(matches!(&reply, Reply::Refused { reason, .. } if reason.contains("has gone")), "{reply:?}");
    let ended = |event: &Event| matches!(event, Event::Ended { change, .. } if *change == hosts(&["other.example"]));
    assert!(bottle.events().iter().any(ended), "{:?}", bottle.events());
}

/// A route whose host's TLS is not to be opened, which no route-pipelock takes while it runs.
fn unopened() -> (Subject, Terms) {
    let Subject::Own(Change::Route(route)) = crates() else { unreachable!("it is a route") };
    (Subject::Own(Change::Route(route)), Terms { no_inspect: true, ..Terms::default() })
}

/// The last line that a sidecar of ours was told.
fn last(bottle: &Bottle, role: &str) -> String {
    bottle.told(role).lines().last().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn another_route_pipelock_takes_over_and_the_one_before_serves_to_its_end() {
    during(|bottle| async move {
        let there = |role: &str| bottle.trial.engine.left().iter().any(|name| name.ends_with(&container(role)));
        let (crates, terms) = unopened();
        let review = bottle.reviews(&crates, &terms).await;
        assert!(review.facts.iter().any(|fact| fact.contains("takes over")), "{review:?}");
        let reply = bottle.decides(&crates, &terms).await;
        assert!(matches!(&reply, Reply::Done(_)), "{reply:?}");
        let policy = bottle.told("route-pipelock-2");
        assert!(policy.contains("crates.example.org") && policy.contains("api.example"), "{policy}");
        for role in ["cred-proxy", "git-gate"] {
            let told = last(&bottle, role);
            assert!(told.contains("http://10.213.") && !told.contains("http://route-pipelock:"), "{role}: {told}");
        }
        assert!(bottle.told("route-pipelock").ends_with("drain\n"), "the streams on it go on");
        assert!(!bottle.told("route-pipelock").contains("crates.example.org") && there("route-pipelock"));
        // Its last stream ends, and its seat is free again; the next changes go to the one in force.
        bottle.trial.engine.end(&container("route-pipelock"), 0);
        until("it is gone", || !there("route-pipelock")).await;
        assert!(!bottle.told("keeper").contains("runs again"));
        let back = Subject::Back("g1".to_owned());
        let reply = bottle.decides(&back, &Terms::default()).await;
        assert!(matches!(&reply, Reply::Done(_)), "{reply:?}");
        let policy = bottle.told("route-pipelock-2");
        assert!(!policy.rsplit("/pipelock.yaml\n").next().unwrap().contains("crates.example.org"), "{policy}");
        // What starts again starts with what is in force.
        bottle.trial.engine.end(&container("git-gate"), 137);
        let twice = || {
            last(&bottle, "git-gate").contains("\"command\":\"configure\"")
                && bottle.told("git-gate").matches("10.213.").count() > 1
        };
        until("git-gate runs again", twice).await;
        // And the seat is taken again.
        let mut reply = bottle.decides(&crates, &terms).await;
        for _ in 0..100 {
            if matches!(reply, Reply::Done(_)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            reply = bottle.decides(&crates, &terms).await;
        }
        assert!(matches!(&reply, Reply::Done(_)), "{reply:?}");
        assert!(there("route-pipelock") && last(&bottle, "cred-proxy").contains("http://route-pipelock:8888"));
    })
    .await;
}

#[tokio::test]
async fn a_takeover_that_fails_leaves_the_bottle_as_it_was() {
    let trials = (0..6).flat_map(|nth| [How::ErrorBefore, How::ErrorAfter].map(|how| (nth, how)));
    let trials = trials.map(|(nth, how)| async move {
        during(move |bottle| async move {
            let before = bottle.trial.engine.left();
            let (crates, terms) = unopened();
            let digest = bottle.reviews(&crates, &terms).await.digest;
            let at = bottle.trial.engine.calls() + nth;
            bottle.trial.engine.fault(Fault { at, how });
            let reply = bottle.visits(Request::Decide { subject: crates.clone(), terms: terms.clone(), digest }).await;
            if matches!(reply, Reply::Refused { .. }) {
                assert_eq!(bottle.trial.engine.left(), before, "{how:?} at call {nth}: {reply:?}");
                assert!(bottle.listing().await.grants.is_empty());
                assert!(!last(&bottle, "cred-proxy").contains("crates.example.org"));
                let again = bottle.decides(&crates, &terms).await;
                assert!(matches!(&again, Reply::Done(_)), "{how:?} at call {nth}: {again:?}");
            }
        })
        .await;
    });
    futures_util::future::join_all(trials).await;
    // One that starts, and is seen not to let the host through.
    during(|bottle| async move {
        let before = bottle.trial.engine.left();
        let closed = Subject::Own(Change::Route(supervise::wire::Route {
            path: "/closed/".to_owned(),
            upstream: "https://kept-closed.example".to_owned(),
            scheme: "none".to_owned(),
            allow: vec!["GET /**".to_owned()],
        }));
        let terms = Terms { no_inspect: true, ..Terms::default() };
        let reply = bottle.decides(&closed, &terms).await;
        assert!(matches!(&reply, Reply::Refused { reason, .. } if reason.contains("is still closed")), "{reply:?}");
        until("what was tried is gone", || bottle.trial.engine.left() == before).await;
        for role in ["cred-proxy", "git-gate"] {
            let told = last(&bottle, role);
            assert!(told.contains("http://route-pipelock:8888") && !told.contains("kept-closed"), "{role}: {told}");
        }
        assert!(!bottle.told("route-pipelock").contains("drain\n"));
    })
    .await;
}

#[tokio::test]
async fn a_route_for_one_request_is_taken_back_after_it_and_is_not_told_again() {
    during(|bottle| async move {
        let terms = Terms { once: true, ..Terms::default() };
        let cred_proxy = container("cred-proxy");
        let granted = |reply: &Reply| matches!(reply, Reply::Done(done) if done.grant.is_some());
        let reply = bottle.decides(&crates(), &terms).await;
        assert!(granted(&reply), "{reply:?}");
        assert!(last(&bottle, "cred-proxy").contains(r#""once":["/crates/"]"#));
        assert!(bottle.listing().await.grants[0].once);
        bottle.trial.engine.say(&cred_proxy, "{\"event\":\"used-up\",\"route\":\"/other/\"}\n");
        bottle.trial.engine.say(&cred_proxy, "{\"event\":\"used-up\",\"route\":\"/crates/\"}\n");
        until("it is taken back", || !last(&bottle, "cred-proxy").contains("crates")).await;
        until("it is over", || {
            bottle.events().iter().any(|e| matches!(e, Event::Ended { why, .. } if why == "it was used"))
        })
        .await;
        assert!(bottle.listing().await.grants.is_empty());
        // A cred-proxy that begins again does not know whether it was used: it is over.
        let reply = bottle.decides(&crates(), &terms).await;
        assert!(granted(&reply), "{reply:?}");
        let before = bottle.told("cred-proxy").len();
        bottle.trial.engine.end(&cred_proxy, 137);
        until("it is told anew", || bottle.told("cred-proxy").len() > before).await;
        assert!(!bottle.told("cred-proxy")[before..].contains("crates"), "it is told of it again");
        let over = |e: &Event| matches!(e, Event::Ended { why, .. } if why.contains("started again"));
        until("it is over", || bottle.events().iter().any(over)).await;
    })
    .await;
}

fn crates() -> Subject {
    Subject::Own(Change::Route(supervise::wire::Route {
        path: "/crates/".to_owned(),
        upstream: "https://crates.example.org".to_owned(),
        scheme: "none".to_owned(),
        allow: vec!["GET /api/**".to_owned()],
    }))
}

fn bare() -> Trial {
    Trial { bare: true, ..Trial::new() }
}

#[tokio::test]
async fn the_first_route_brings_what_it_needs_and_is_kept_like_the_rest() {
    during_of(bare(), |bottle| async move {
        let left = || bottle.trial.engine.left();
        assert!(!left().iter().any(|name| name.contains("route") || name.contains("cred-proxy")), "{:?}", left());
        let reply = bottle.decides(&crates(), &Terms::default()).await;
        assert!(matches!(&reply, Reply::Done(_)), "{reply:?}");
        for name in ["bottle-coder-routes", "bottle-coder-route-pipelock", "bottle-coder-cred-proxy"] {
            assert!(left().iter().any(|n| n.contains(name)), "{name} is not there: {:?}", left());
        }
        bottle.trial.engine.end(&container("cred-proxy"), 137);
        let twice = || bottle.told("cred-proxy").matches(r#""command":"configure""#).count() == 2;
        until("cred-proxy runs again", twice).await;
        // A second one needs no more than a reload.
        let calls = bottle.trial.engine.calls();
        let Subject::Own(Change::Route(first)) = crates() else { unreachable!("it is a route") };
        let second = supervise::wire::Route {
            path: "/docs/".to_owned(),
            upstream: "https://docs.example.org".to_owned(),
            ..first
        };
        until("it takes orders again", || bottle.trial.engine.calls() >= calls).await;
        let mut reply = bottle.decides(&Subject::Own(Change::Route(second.clone())), &Terms::default()).await;
        for _ in 0..100 {
            if matches!(reply, Reply::Done(_)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            reply = bottle.decides(&Subject::Own(Change::Route(second.clone())), &Terms::default()).await;
        }
        assert!(matches!(&reply, Reply::Done(_)), "{reply:?}");
    })
    .await;
}

#[tokio::test]
async fn a_first_route_that_cannot_be_brought_leaves_nothing_and_can_be_tried_again() {
    let trials = (0..9).flat_map(|nth| [How::ErrorBefore, How::ErrorAfter].map(|how| (nth, how)));
    let trials = trials.map(|(nth, how)| async move {
        during_of(bare(), move |bottle| async move {
            let before = bottle.trial.engine.left();
            let at = bottle.trial.engine.calls() + nth;
            bottle.trial.engine.fault(Fault { at, how });
            let reply = bottle.decides(&crates(), &Terms::default()).await;
            if matches!(reply, Reply::Refused { .. }) {
                assert_eq!(bottle.trial.engine.left(), before, "{how:?} at call {nth}: {reply:?}");
                assert!(bottle.listing().await.grants.is_empty());
                let again = bottle.decides(&crates(), &Terms::default()).await;
                assert!(matches!(&again, Reply::Done(_)), "{how:?} at call {nth}: {again:?}");
            }
        })
        .await;
    });
    futures_util::future::join_all(trials).await;
}
