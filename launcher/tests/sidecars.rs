//! What a keeper does for its sidecars while the agent works, on the engine in memory: one that dies is started again
//! and told everything, whatever goes wrong on the way; a stop at any moment of it leaves nothing; and a credential that
//! is another one reaches cred-proxy.

#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

mod trial;

use launcher::engine::fake::{End, Fault, How, Script};
use launcher::engine::{Engine, Owner, Undo};
use launcher::exit::Exit;
use launcher::keeper_socket::Ending;
use launcher::log::LogLine;
use launcher::manifest::TokenRef;
use launcher::state::host_hash;
use launcher::stop::{Level, Stopper};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use trial::{ID, Trial};

fn container(role: &str) -> String {
    format!("bottle-{ID}-{role}")
}

/// Keeps a bottle whose agent works until it is stopped, and does something to it meanwhile.
async fn during<F: Future<Output = ()> + Send>(
    trial: Trial,
    what: impl FnOnce(Arc<Trial>, Stopper) -> F + Send + 'static,
) -> (Arc<Trial>, Ending) {
    trial.engine.exec_script(|spec| match spec.argv.first().map(String::as_str) {
        Some("work") => Script { output: bytes::Bytes::new(), end: End::Never },
        _ => Script { output: bytes::Bytes::new(), end: End::Code(0) },
    });
    let (runs, running) = tokio::sync::oneshot::channel();
    let (runs, stopper) = (Mutex::new(Some(runs)), Arc::new(Mutex::new(None)));
    let trial = Arc::new(trial);
    trial.engine.on_call(move |_, name| {
        if name == "exec"
            && let Some(runs) = runs.lock().unwrap().take()
        {
            let _ = runs.send(());
        }
    });
    let (kept, raise) = (Arc::clone(&trial), Arc::clone(&stopper));
    let kept = tokio::spawn(async move { kept.keep(|_, stopper| *raise.lock().unwrap() = Some(stopper)).await });
    running.await.expect("the agent begins");
    let stopper = stopper.lock().unwrap().clone().unwrap();
    // The wall's helper is taken away once the agent runs: no call of the keeper's own comes between what follows.
    until("the helper is gone", || !trial.engine.left().iter().any(|name| name.contains("wall"))).await;
    what(Arc::clone(&trial), stopper.clone()).await;
    stopper.raise(Level::Now);
    let ending = kept.await.unwrap();
    (trial, ending)
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

fn log(trial: &Trial) -> String {
    let text = std::fs::read_to_string(trial.root().dir(ID).log()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<LogLine>(line).unwrap());
    lines.filter(|line| line.role == "keeper").map(|line| line.line + "\n").collect()
}

/// How often something was written to a container's input.
fn times(trial: &Trial, role: &str, what: &str) -> usize {
    String::from_utf8_lossy(&trial.engine.input(&container(role))).matches(what).count()
}

/// What each of them is told once when it starts.
const TOLD: [(&str, &str); 4] = [
    ("cred-proxy", "\"command\":\"configure\""),
    ("git-gate", "\"command\":\"configure\""),
    ("pipelock", "/pipelock.yaml\n"),
    ("route-pipelock", "/pipelock.yaml\n"),
];

fn assert_clean(trial: &Trial, ending: &Ending, what: &str) {
    assert_eq!((ending.exit, &ending.leftovers), (Exit::Interrupted, &Vec::new()), "{what}: {ending:?}");
    trial.assert_clean(what);
}

#[tokio::test]
async fn a_sidecar_that_dies_is_started_again_and_told_everything() {
    for (role, told) in TOLD {
        let (trial, ending) = during(Trial::new(), move |trial, _| async move {
            assert_eq!(times(&trial, role, told), 1, "{role}");
            let first = trial.engine.input(&container(role));
            trial.engine.end(&container(role), 137);
            until("it is told everything again", || times(&trial, role, told) == 2).await;
            until("it runs again", || log(&trial).contains(&format!("{role} runs again"))).await;
            assert_eq!(trial.engine.input(&container(role)), [first.clone(), first].concat(), "{role}");
            for (other, told) in TOLD.into_iter().filter(|(other, _)| *other != role) {
                assert_eq!(times(&trial, other, told), 1, "{other} is untouched");
            }
        })
        .await;
        assert!(log(&trial).contains(&format!("{role} has ended")), "{}", log(&trial));
        assert_clean(&trial, &ending, role);
    }
}

#[tokio::test]
async fn a_start_that_fails_is_tried_again() {
    let trials = [0, 1, 2].into_iter().flat_map(|nth| [How::ErrorBefore, How::ErrorAfter].map(|how| (nth, how)));
    let trials = trials.map(|(nth, how)| async move {
        let (trial, ending) = during(Trial::new(), move |trial, _| async move {
            let at = trial.engine.calls() + nth;
            trial.engine.fault(Fault { at, how });
            trial.engine.end(&container("cred-proxy"), 137);
            until("it runs again", || log(&trial).contains("cred-proxy runs again")).await;
            assert!(log(&trial).contains("cannot be started again"), "{how:?} at {nth}: {}", log(&trial));
        })
        .await;
        assert_clean(&trial, &ending, &format!("{how:?} at call {nth} of a restart"));
    });
    futures_util::future::join_all(trials).await;
}

#[tokio::test]
async fn a_start_that_panics_or_hangs_does_not_keep_the_bottle() {
    let trials = [How::Panic, How::Hang].map(|how| async move {
        let (trial, ending) = during(Trial::new(), move |trial, _| async move {
            let at = trial.engine.calls() + 2;
            trial.engine.fault(Fault { at, how });
            trial.engine.end(&container("cred-proxy"), 137);
            until("it was started", || trial.engine.calls() > at).await;
        })
        .await;
        assert!(!log(&trial).contains("cred-proxy runs again"), "{how:?}: {}", log(&trial));
        assert_clean(&trial, &ending, &format!("{how:?}"));
    });
    futures_util::future::join_all(trials).await;
}

#[tokio::test]
async fn a_stop_at_any_moment_of_a_restart_leaves_nothing() {
    let trials = (0..4).flat_map(|nth| [Level::Graceful, Level::Now].map(|level| (nth, level)));
    let trials = trials.map(|(nth, level)| async move {
        let (trial, ending) = during(Trial::new(), move |trial, stopper| async move {
            let at = trial.engine.calls() + nth;
            let raise = stopper.clone();
            trial.engine.on_call(move |number, _| {
                if number == at {
                    raise.raise(level);
                }
            });
            trial.engine.end(&container("route-pipelock"), 137);
            if nth == 3 {
                // After the restart there is no further call: the stop comes when it runs again.
                until("it runs again", || log(&trial).contains("route-pipelock runs again")).await;
                stopper.raise(level);
            } else {
                until("the call is made", || trial.engine.calls() > at).await;
            }
        })
        .await;
        assert_clean(&trial, &ending, &format!("{level:?} at call {nth} of a restart"));
    });
    futures_util::future::join_all(trials).await;
}

#[tokio::test]
async fn a_sidecar_whose_container_is_gone_stays_away() {
    let (trial, ending) = during(Trial::new(), |trial, _| async move {
        let owner = Owner { id: ID.to_owned(), host: host_hash(), state: trial.root().hash(), agent: ID.to_owned() };
        trial.engine.undo(&Undo::RemoveContainer { name: container("pipelock"), owner }).await.unwrap();
        until("it is given up", || log(&trial).contains("pipelock is not started again")).await;
    })
    .await;
    assert_clean(&trial, &ending, "a container that is gone");
}

#[tokio::test]
async fn a_file_that_changes_is_the_credential_from_then_on() {
    let mut trial = Trial::new();
    let file = trial.dir.path().join("token");
    std::fs::write(&file, "a-canary-credential\n").unwrap();
    trial.token_ref = TokenRef::File(file.clone());
    let (trial, ending) = during(trial, |trial, _| async move {
        std::fs::write(&file, "another-credential\n").unwrap();
        until("the new one is told", || times(&trial, "cred-proxy", "another-credential") == 1).await;
        std::fs::write(&file, "bad\u{1b}credential\n").unwrap();
        until("the bad one is told of", || log(&trial).contains("cannot be had again")).await;
        // What is started again is told what holds now.
        trial.engine.end(&container("cred-proxy"), 137);
        until("the new one is told again", || times(&trial, "cred-proxy", "another-credential") == 2).await;
        assert_eq!(times(&trial, "cred-proxy", "a-canary-credential"), 1);
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, "a-third-credential\n").unwrap();
        until("the third one is told", || times(&trial, "cred-proxy", "a-third-credential") == 1).await;
    })
    .await;
    assert!(log(&trial).contains("can be had again") && !log(&trial).contains("bad"), "{}", log(&trial));
    assert_clean(&trial, &ending, "a file that changes");
}

#[tokio::test]
async fn a_rejected_credential_is_fetched_once_and_not_at_the_agents_pace() {
    let mut trial = Trial::new();
    let runs = trial.dir.path().join("runs");
    // Says another word with every run, and how often it ran.
    let script = format!("echo x >> {0} && echo token-$(wc -l < {0})", runs.display());
    trial.token_ref = TokenRef::Command { argv: ["sh", "-c", &script].map(str::to_owned).to_vec(), ttl_s: None };
    let ran = move || std::fs::read_to_string(&runs).unwrap_or_default().lines().count();
    let (trial, ending) = during(trial, move |trial, _| async move {
        assert_eq!(times(&trial, "cred-proxy", r#""refreshable":["/api/"]"#), 1);
        let rejected = |secret: &str| format!(r#"{{"event":"rejected","secret":"{secret}","route":"/api/"}}"#) + "\n";
        trial.engine.say(&container("cred-proxy"), &rejected("/other/"));
        for _ in 0..5 {
            trial.engine.say(&container("cred-proxy"), &rejected("/api/"));
        }
        until("the new one is told", || times(&trial, "cred-proxy", "token-1") == 1).await;
        let unchanged = r#"{"command":"unchanged","secret":"/api/"}"#;
        until("the others are answered", || times(&trial, "cred-proxy", unchanged) == 4).await;
        assert_eq!(ran(), 1);
        assert_eq!(times(&trial, "cred-proxy", "/other/"), 0);
    })
    .await;
    assert_clean(&trial, &ending, "a rejected credential");
}

#[tokio::test]
async fn a_command_is_run_again_before_its_time_is_over_and_after_it_failed() {
    let mut trial = Trial::new();
    let runs = trial.dir.path().join("runs");
    let script = format!(
        "echo x >> {0}; n=$(wc -l < {0}); test $n != 2 || {{ echo not now, token-1 >&2; exit 1; }}; echo token-$n",
        runs.display()
    );
    let argv = ["sh", "-c", &script].map(str::to_owned).to_vec();
    trial.token_ref = TokenRef::Command { argv, ttl_s: Some(10) };
    let (trial, ending) = during(trial, |trial, _| async move {
        // The one that the launch came with is older than its time.
        until("the first is told", || times(&trial, "cred-proxy", "token-1") == 1).await;
        until("the failure is told of", || log(&trial).contains("cannot be had again")).await;
        until("the third is told", || times(&trial, "cred-proxy", "token-3") == 1).await;
        assert_eq!(times(&trial, "cred-proxy", "\"command\":\"configure\""), 3, "a failure tells it nothing");
    })
    .await;
    let log = log(&trial);
    assert!(log.contains("it said: not now, [redacted]") && log.contains("can be had again"), "{log}");
    assert!(!log.contains("token-"), "{log}");
    assert_clean(&trial, &ending, "a command with a time");
}
