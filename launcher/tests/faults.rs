//! A fault at every call of a bottle's life, on the engine in memory: an error before the effect, an error after it (the
//! answer is lost), a panic, a stop of each level, and the death of the keeper. After each, nothing is left; after a
//! death, nothing is left once the next command has swept.

#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

mod trial;

use launcher::commands::cleanup;
use launcher::engine::fake::{Fake, Fault, How};
use launcher::exit::Exit;
use launcher::stop::{Level, Stopper};
use std::sync::{Arc, Mutex};
use trial::{ID, Trial};

/// The calls of a life without faults, by name.
async fn calls() -> Vec<&'static str> {
    let trial = Trial::new();
    let ending = trial.keep(|_, _| {}).await;
    assert_eq!(ending.exit, Exit::Agent(3), "{ending:?}");
    assert_eq!(ending.leftovers, Vec::<String>::new());
    trial.assert_clean("a life without faults");
    trial.engine.log()
}

#[tokio::test]
async fn a_life_has_calls_to_break() {
    let calls = calls().await;
    assert!(calls.len() > 30, "{calls:?}");
}

#[tokio::test]
async fn a_lost_call_or_answer_leaves_nothing_wherever_it_is() {
    for at in 0..calls().await.len() {
        for how in [How::ErrorBefore, How::ErrorAfter] {
            let trial = Trial::new();
            let what = format!("{how:?} at call {at}");
            let ending = trial.keep(|engine, _| engine.fault(Fault { at, how })).await;
            assert_eq!(ending.leftovers, Vec::<String>::new(), "{what}: {ending:?}");
            trial.assert_clean(&what);
        }
    }
}

#[tokio::test]
async fn a_panic_leaves_nothing_wherever_it_is() {
    for at in 0..calls().await.len() {
        let trial = Trial::new();
        let what = format!("panic at call {at}");
        let ending = trial.keep(|engine, _| engine.fault(Fault { at, how: How::Panic })).await;
        assert_eq!(ending.leftovers, Vec::<String>::new(), "{what}: {ending:?}");
        trial.assert_clean(&what);
    }
}

#[tokio::test]
async fn a_stop_leaves_nothing_wherever_it_comes() {
    for at in 0..calls().await.len() {
        for level in [Level::Graceful, Level::Now] {
            let trial = Trial::new();
            let what = format!("{level:?} at call {at}");
            let raise = |engine: &Fake, stopper: Stopper| {
                engine.on_call(move |n, _| {
                    if n == at {
                        stopper.raise(level);
                    }
                });
            };
            let ending = trial.keep(raise).await;
            assert_eq!(ending.leftovers, Vec::<String>::new(), "{what}: {ending:?}");
            trial.assert_clean(&what);
        }
    }
}

#[tokio::test]
async fn the_death_of_a_keeper_leaves_nothing_once_the_next_command_has_swept() {
    for at in 0..calls().await.len() {
        let trial = Arc::new(Trial::new());
        let what = format!("death at call {at}");
        let (died, dead) = tokio::sync::oneshot::channel();
        let died = Mutex::new(Some(died));
        let kept = tokio::spawn({
            let trial = Arc::clone(&trial);
            async move {
                let die = move |n: usize, _: &'static str| {
                    if n == at
                        && let Some(died) = died.lock().unwrap().take()
                    {
                        let _ = died.send(());
                    }
                };
                trial.keep(|engine, _| engine.on_call(die)).await
            }
        });
        // The call itself takes effect; whatever would have come after it does not.
        if dead.await.is_ok() {
            kept.abort();
        }
        let _ = kept.await;
        trial.engine.on_call(|_, _| {});
        cleanup::sweep_all(&trial.here(), &trial.engine, "the engine in memory").await.unwrap();
        trial.assert_clean(&what);
    }
}

#[tokio::test]
async fn no_credential_is_in_what_the_engine_keeps() {
    let trial = Trial::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let look = Arc::clone(&seen);
    let engine = trial.engine.clone();
    let ending = trial
        .keep(|fake, _| {
            fake.on_call(move |_, name| {
                if name == "exec" {
                    for role in ["agent", "pipelock", "route-pipelock", "cred-proxy", "git-gate", "supervise", "wall"] {
                        let container = format!("bottle-{ID}-{role}");
                        let spec = engine.spec(&container).map(|s| serde_json::to_string(&s).unwrap());
                        let input = String::from_utf8_lossy(&engine.input(&container)).into_owned();
                        look.lock().unwrap().push((role, spec, input, engine.archives(&container)));
                    }
                }
            });
        })
        .await;
    assert_eq!(ending.exit, Exit::Agent(3));
    let seen = seen.lock().unwrap();
    assert!(!seen.is_empty());
    for (role, spec, input, archives) in seen.iter() {
        let spec = spec.as_ref().unwrap_or_else(|| panic!("no container for {role}"));
        assert!(!spec.contains("a-canary-credential"), "{role}: {spec}");
        // git-gate is told of it as well: it must not be in a push.
        let told = matches!(*role, "cred-proxy" | "git-gate");
        assert_eq!(input.contains("a-canary-credential"), told, "{role}");
        assert!(!spec.contains("a-canary-of"), "{role}: {spec}");
        assert_eq!(
            input.contains("a-canary-of-app") && input.contains("a-canary-of-lib"),
            *role == "git-gate",
            "{role}"
        );
        for (_, bytes) in archives {
            assert!(!bytes.windows(9).any(|w| w == b"a-canary-"), "{role}");
        }
    }
}
