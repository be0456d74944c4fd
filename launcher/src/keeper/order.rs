//! What a running sidecar is ordered to do while its bottle runs, and what comes of it. One task holds each sidecar
//! ([`super::tend`]) and carries orders out one after another; whoever gives one awaits its answer.
//!
//! Every order ends: its parts have limits, and one that meets a sidecar that does not run is refused at once, so that
//! nothing that was answered with "failed" happens later. One that is under way when the bottle is to end at once is given
//! up with its sidecar.

use crate::control::{Probed, Said, Sidecar, Startup, Status};
use bottle_images::init::Frame;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use zeroize::Zeroizing;

/// How long a sidecar may take to read what it is told, and to answer a command.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a pipelock may take to notice a changed file.
const RELOAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a pipelock may take to end and start again.
const RESTART_WITHIN: Duration = Duration::from_secs(30);

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Setback {
    /// Nothing has changed.
    #[error("{0}")]
    Refused(String),
    /// The sidecar may be in any state: it is let go, and started again with what holds.
    #[error("{0}; it is started again")]
    Broken(String),
}

/// Where the answer to an order goes.
pub type Reply<T> = oneshot::Sender<Result<T, Setback>>;

/// One order.
pub enum Order {
    /// A pipelock: this policy from now on, without a restart.
    Reload {
        /// The file.
        yaml: String,
        /// When it is in force.
        reply: Reply<()>,
    },
    /// A pipelock: this policy from now on, by a restart, so that no open tunnel keeps what it had. Whatever comes of it, no
    /// other policy is started any more.
    Restart {
        /// The file.
        yaml: String,
        /// When it is in force.
        reply: Reply<()>,
    },
    /// A pipelock: is this open?
    Probe {
        /// `host:port`.
        target: String,
        /// What its own proxy says.
        reply: Reply<Probed>,
    },
    /// A sidecar of ours: a command that it obeys or refuses.
    Command {
        /// The line, newline included.
        line: Zeroizing<Vec<u8>>,
        /// When it is obeyed.
        reply: Reply<()>,
    },
    /// A pipelock: serve whoever is connected to the end, and be gone then; at the latest after this time.
    Retire {
        /// How long that may take.
        within: Duration,
    },
    /// A sidecar of ours: something to know; what it says to that is not awaited.
    Tell {
        /// The line, newline included.
        line: Vec<u8>,
    },
}

impl Order {
    /// Answers an order that nobody will carry out.
    pub fn refuse(self, why: &str) {
        let setback = Setback::Refused(why.to_owned());
        // Whoever asked may have gone.
        match self {
            Self::Reload { reply, .. } | Self::Restart { reply, .. } | Self::Command { reply, .. } => {
                let _ = reply.send(Err(setback));
            }
            Self::Probe { reply, .. } => {
                let _ = reply.send(Err(setback));
            }
            // It is told everything when it starts again; one that has ended serves nobody.
            Self::Tell { .. } | Self::Retire { .. } => {}
        }
    }
}

/// A sidecar while orders are carried out on it.
pub struct Hand<'a> {
    /// The sidecar.
    pub sidecar: &'a mut Sidecar,
    /// Commands that it was sent and will answer, since it started.
    pub sent: &'a mut u64,
}

impl Hand<'_> {
    /// Sends bytes. `Err`: half of them may have arrived, and nothing that follows would be understood.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Setback> {
        match timeout(PATIENCE, self.sidecar.send(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.broken("does not read what it is told")),
        }
    }

    /// Sends a command, and waits until it is obeyed.
    pub async fn command(&mut self, line: &[u8]) -> Result<(), Setback> {
        let mut said = self.sidecar.said();
        self.send(line).await?;
        *self.sent += 1;
        let number = *self.sent;
        let said =
            self.wait(&mut said, PATIENCE, "did not answer a command", |said| said.acknowledged >= number).await?;
        match said.acknowledgement {
            Some(Err(reason)) => Err(Setback::Refused(format!("{} refuses: {reason}", self.sidecar.role))),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// Has a pipelock take `new` without a restart. What it does not take is taken back to `old` at once.
    pub async fn reload(&mut self, new: &str, old: &str) -> Result<(), Setback> {
        match self.write_and_wait(new).await {
            Ok(()) => Ok(()),
            Err(Setback::Broken(why)) => Err(Setback::Broken(why)),
            Err(Setback::Refused(why)) => match self.write_and_wait(old).await {
                Ok(()) => Err(Setback::Refused(why)),
                // Same bytes within two seconds are not read again: whether they are in force is not known.
                Err(_) => Err(Setback::Broken(why)),
            },
        }
    }

    async fn write_and_wait(&mut self, yaml: &str) -> Result<(), Setback> {
        let mut said = self.sidecar.said();
        let (reloads, failures) = (said.borrow().reloads, said.borrow().failures);
        self.send(&policy_file(yaml)).await?;
        let hash = crate::control::sha256_hex(yaml.as_bytes());
        let is_over = |said: &Said| {
            let took = said.reload.as_ref().is_some_and(|r| r.as_ref().map_or(true, |h| *h == hash));
            said.failures > failures || (said.reloads > reloads && took)
        };
        let said = timeout(RELOAD_WITHIN, said.wait_for(is_over)).await;
        let said = match said {
            Ok(Ok(said)) => said.clone(),
            Ok(Err(_)) => return Err(self.broken("ended")),
            Err(_) => {
                return Err(Setback::Refused(format!("{} did not take the new policy in time", self.sidecar.role)));
            }
        };
        if said.failures > failures {
            return Err(Setback::Refused(said.failure));
        }
        match said.reload {
            Some(Ok(_)) => Ok(()),
            Some(Err(why)) => {
                Err(Setback::Refused(format!("{} does not take the new policy: {why}", self.sidecar.role)))
            }
            None => Err(self.broken("said nothing of its policy")),
        }
    }

    /// Has a pipelock start again with this policy, and makes sure that it runs with it.
    pub async fn restart(&mut self, yaml: &str) -> Result<(), Setback> {
        let mut said = self.sidecar.said();
        let (readies, failures) = (said.borrow().readies, said.borrow().failures);
        self.send(&policy_file(yaml)).await?;
        self.send(&Frame::Restart.encode()).await?;
        let is_over = |said: &Said| said.readies > readies || said.failures > failures;
        let said = self.wait(&mut said, RESTART_WITHIN, "did not start again in time", is_over).await?;
        if said.failures > failures {
            return Err(Setback::Broken(format!("{} could not start again: {}", self.sidecar.role, said.failure)));
        }
        // It says which file it read before it listens, and so before it is ready.
        match Startup::fault(self.sidecar.startup().borrow().as_ref(), yaml) {
            None => Ok(()),
            Some(why) => Err(Setback::Broken(format!("{} runs with another policy: {why}", self.sidecar.role))),
        }
    }

    /// Asks a pipelock's own proxy.
    pub async fn probe(&mut self, target: &str) -> Result<Probed, Setback> {
        let mut said = self.sidecar.said();
        let (probes, failures) = (said.borrow().probes, said.borrow().failures);
        self.send(&Frame::Probe(target.to_owned()).encode()).await?;
        let is_over = |said: &Said| said.probes > probes || said.failures > failures;
        let said = self.wait(&mut said, PATIENCE, "did not answer a probe", is_over).await?;
        match said.probe {
            Some(probed) if said.probes > probes && probed.target == target => Ok(probed),
            _ => Err(Setback::Refused(format!("{} could not ask: {}", self.sidecar.role, said.failure))),
        }
    }

    async fn wait(
        &mut self,
        said: &mut watch::Receiver<Said>,
        within: Duration,
        late: &str,
        is_over: impl FnMut(&Said) -> bool,
    ) -> Result<Said, Setback> {
        let mut status = self.sidecar.status();
        tokio::select! {
            heard = timeout(within, said.wait_for(is_over)) => match heard {
                Ok(Ok(said)) => Ok(said.clone()),
                Ok(Err(_)) => Err(self.broken("ended")),
                Err(_) => Err(self.broken(late)),
            },
            _ = status.wait_for(|s| matches!(s, Status::Ended(_))) => Err(self.broken("ended")),
        }
    }

    fn broken(&self, what: &str) -> Setback {
        Setback::Broken(format!("{} {what}", self.sidecar.role))
    }
}

/// The frame that puts a policy in its place.
pub fn policy_file(yaml: &str) -> Vec<u8> {
    let path = pipelock_config::path(pipelock_config::CONFIG_FILE);
    Frame::File { path, mode: 0o600, bytes: yaml.as_bytes().to_vec() }.encode()
}
