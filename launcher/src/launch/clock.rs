//! Where the time of a launch and a teardown goes: one line of the bottle's log a stage, for operators with a slow engine.
//! It only ever looks at the clock; nothing is decided by it.

use crate::control::Sidecar;
use crate::plan::Action;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The clock of one stage.
#[derive(Debug)]
pub struct Clock {
    stage: String,
    began: Instant,
    notes: Mutex<Vec<String>>,
}

impl Clock {
    /// Starts it.
    pub fn start(stage: &str) -> Self {
        Self { stage: stage.to_owned(), began: Instant::now(), notes: Mutex::default() }
    }

    /// Notes what an action took.
    pub fn note(&self, action: &Action, took: Duration) {
        let what = match action {
            Action::Network(spec) => format!("create {}", spec.role),
            Action::Container(spec) => format!("create {}", spec.role),
            Action::Connect { network, .. } => format!("connect to {}", network.rsplit('-').next().unwrap_or(network)),
            Action::Provision { .. } => "provision".to_owned(),
            Action::Prepare { .. } => "prepare".to_owned(),
            Action::Workspace { .. } | Action::Restore { .. } => "workspace".to_owned(),
            Action::Compare => "compare".to_owned(),
            Action::Bring { role, .. } => role.clone(),
            Action::Once { .. } => "wall".to_owned(),
        };
        self.write(format!("{what} {}", seconds(took)));
    }

    /// Notes what a container took.
    pub fn brought(&self, sidecar: &Sidecar) {
        let (started, ready) = sidecar.took;
        self.write(format!("{} started {} ready {}", sidecar.role, seconds(started), seconds(ready)));
    }

    fn write(&self, note: String) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    /// The line for the log.
    pub fn line(&self) -> String {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner).join(", ");
        let took = seconds(self.began.elapsed());
        if notes.is_empty() {
            format!("stage {} {took}", self.stage)
        } else {
            format!("stage {} {took}: {notes}", self.stage)
        }
    }
}

/// Hundredths tell enough.
fn seconds(took: Duration) -> String {
    format!("{:.2} s", took.as_secs_f64())
}
