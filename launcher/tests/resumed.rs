//! A bottle that is resumed with a Dockerfile, on the engine in memory, with a fault at every call: whatever goes wrong while the
//! Dockerfile is carried out or the bottle launched, nothing is left but what is meant to stay, and the saved work is not lost.

#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

mod trial;

use launcher::engine::fake::{End, Fake, Fault, How, Script};
use launcher::exit::Exit;
use launcher::keeper_socket::Ending;
use launcher::state::Metadata;
use launcher::stop::{Level, Stopper};
use launcher::workspace::{Limits, save};
use trial::{ID, Trial};

const DOCKERFILE: &str = "FROM agent:1\nENV A=1\nRUN one\nWORKDIR /x\nUSER 7\nRUN two\n";

/// A bottle that has lived, with saved work.
fn lived() -> Trial {
    let trial = Trial { dockerfile: Some(DOCKERFILE.to_owned()), ..Trial::new() };
    let session = trial.root().claim(ID).unwrap().unwrap();
    let metadata = Metadata {
        id: ID.to_owned(),
        agent: ID.to_owned(),
        bottle: "dev".to_owned(),
        workspace: Some(trial.dir.path().join("work")),
        image: "agent:1".to_owned(),
        engine: None,
        started: "2026-01-01T00:00:00Z".to_owned(),
        ended: Some("2026-01-01T00:00:00Z".to_owned()),
        outcome: Some("exited 0".to_owned()),
    };
    session.dir.write_metadata(&metadata).unwrap();
    session.dir.mark_started().unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_mode(0o755);
    tar.append_data(&mut header, "workspace/", std::io::empty()).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(4);
    header.set_mode(0o644);
    tar.append_data(&mut header, "workspace/left", &b"left"[..]).unwrap();
    save(tar.into_inner().unwrap().as_slice(), &session.dir.workspace(), Limits::default()).unwrap();
    trial
}

/// What must be true whatever happened.
fn assert_kept(trial: &Trial, ending: &Ending, what: &str) {
    assert_eq!(ending.leftovers, Vec::<String>::new(), "{what}: {ending:?}");
    assert_eq!(trial.engine.left(), Vec::<String>::new(), "{what}");
    let dir = trial.root().dir(ID);
    assert!(dir.recorded().is_none() && !dir.is_living(), "{what}");
    assert!(dir.metadata().is_some() && dir.workspace().exists(), "{what}: the saved work is gone");
    let made: Vec<_> = trial.engine.images().into_iter().filter(|name| name.starts_with("bottle/agent-")).collect();
    let kept: Vec<_> = dir.image().map(|image| image.reference).into_iter().collect();
    assert_eq!(made, kept, "{what}: an image that nobody knows, or one that is not there");
}

#[tokio::test]
async fn the_steps_are_carried_out_once_and_the_bottle_runs_in_what_they_made() {
    let trial = lived();
    let ending = trial.keep(|_, _| {}).await;
    assert_eq!(ending.exit, Exit::Agent(3), "{ending:?}");
    assert_kept(&trial, &ending, "a life without faults");
    let calls = trial.engine.log();
    assert_eq!(calls.iter().filter(|call| **call == "commit").count(), 1);
    let ending = trial.keep(|_, _| {}).await;
    assert_eq!(ending.exit, Exit::Agent(3), "{ending:?}");
    let again = trial.engine.log();
    assert_eq!(again.iter().filter(|call| **call == "commit").count(), 1, "the same again is carried out once");
    // Another Dockerfile takes the image of the one before away.
    let other = Trial { dockerfile: Some(format!("{DOCKERFILE}RUN three\n")), ..trial };
    let before = other.root().dir(ID).image().unwrap();
    let ending = other.keep(|_, _| {}).await;
    assert_kept(&other, &ending, "another Dockerfile");
    assert_ne!(other.root().dir(ID).image().unwrap(), before);
}

#[tokio::test]
async fn a_step_that_fails_ends_the_launch_and_leaves_no_image() {
    let trial = lived();
    trial.engine.exec_script(|spec| match spec.argv.last().map(String::as_str) {
        Some("two") => Script { output: "why it failed\n".into(), end: End::Code(9) },
        _ => Script { output: bytes::Bytes::new(), end: End::Code(0) },
    });
    let ending = trial.keep(|_, _| {}).await;
    assert_eq!(ending.exit, Exit::Launch);
    let said = ending.error.clone().unwrap_or_default();
    assert!(said.contains("line 6, RUN two, ended with status 9") && said.contains("why it failed"), "{said}");
    assert_kept(&trial, &ending, "a failed step");
    assert!(trial.root().dir(ID).image().is_none());
}

#[tokio::test]
async fn a_fault_at_any_call_leaves_nothing_and_loses_no_work() {
    let trial = lived();
    trial.keep(|_, _| {}).await;
    let calls = trial.engine.calls();
    assert!(calls > 50, "{calls}");
    for at in 0..calls {
        for how in [How::ErrorBefore, How::ErrorAfter, How::Panic] {
            let trial = lived();
            let ending = trial.keep(|engine, _| engine.fault(Fault { at, how })).await;
            assert_kept(&trial, &ending, &format!("{how:?} at call {at}"));
        }
        let trial = lived();
        let raise = |engine: &Fake, stopper: Stopper| {
            engine.on_call(move |n, _| {
                if n == at {
                    stopper.raise(Level::Graceful);
                }
            });
        };
        let ending = trial.keep(raise).await;
        assert_kept(&trial, &ending, &format!("a stop at call {at}"));
    }
}
