//! The life of a sidecar that is deployed alone: a file in place of a launcher.
//!
//! SIGHUP reads the file and the secrets again; a secret's file that changes is read by itself (Docker and Kubernetes
//! replace them). What cannot be read changes nothing and is told in the log. SIGTERM takes no more requests, lets those in
//! flight end, and ends.

use crate::config::Event;
use crate::deployment::{Deployment, DeploymentError};
use crate::live::Live;
use crate::log::Log;
use crate::sidecar::{Setback, Sidecar};
use bottle_sidecar::chain;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How often the secrets' files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long requests in flight may take to end; less than what engines wait before they kill.
const END_WITHIN: Duration = Duration::from_secs(8);

/// How long the last lines may take to be written when the process ends.
const LAST_LINES_WITHIN: Duration = Duration::from_millis(100);

/// Reads the file and all that it names; the number of routes, or what is wrong.
pub fn check(path: &Path) -> Result<usize, String> {
    let table = || {
        let deployment = Deployment::read(path)?;
        Ok::<_, DeploymentError>((deployment.config()?, deployment.secrets()?))
    };
    let (config, secrets) = table().map_err(|error| chain(&error))?;
    let live = Live::new(&config, &secrets).map_err(|error| chain(&error))?;
    Ok(live.table.routes.len())
}

/// Where the sidecar of this file listens.
pub fn listen(path: &Path) -> Result<SocketAddr, String> {
    Deployment::read(path).map(|deployment| deployment.listen()).map_err(|error| chain(&error))
}

/// Serves as the file says, until a signal.
pub async fn run(path: PathBuf) -> io::Result<ExitCode> {
    let (closed, mut output_closed) = mpsc::channel::<()>(1);
    let log = Log::start(io::stdout(), move || {
        // Whoever would hear it is gone only when the process ends anyway.
        let _ = closed.blocking_send(());
    })?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut sidecar = Sidecar::new(log.clone());
    let first = async {
        let deployment = Deployment::read(&path).map_err(|error| Setback::Refused(chain(&error)))?;
        take(&mut sidecar, &log, &deployment).await.map(|()| deployment)
    };
    let mut deployment = match first.await {
        Ok(deployment) => deployment,
        Err(setback) => {
            let (reason, code) = match setback {
                Setback::Refused(reason) => (reason, 2),
                Setback::CannotListen(reason) => (reason, 1),
            };
            log.event(&Event::Refused { reason });
            log.flush(LAST_LINES_WITHIN);
            return Ok(ExitCode::from(code));
        }
    };
    let mut stamps = deployment.stamps();
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let again = tokio::select! {
            _ = hangup.recv() => Deployment::read(&path).map(Some),
            _ = look.tick() => Ok(None),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            // The sender is dropped unused when the log ends well, which it does not before this loop.
            Some(()) = output_closed.recv() => return Ok(ExitCode::FAILURE),
        };
        // Taken before the files are read: what changes meanwhile is seen the next time.
        let seen = again.as_ref().ok().and_then(Option::as_ref).unwrap_or(&deployment).stamps();
        let outcome = match again {
            Ok(None) if seen == stamps => continue,
            Ok(None) => take(&mut sidecar, &log, &deployment).await,
            Ok(Some(next)) => match take(&mut sidecar, &log, &next).await {
                Ok(()) => {
                    deployment = next;
                    Ok(())
                }
                Err(setback) => {
                    refused(&log, setback);
                    continue;
                }
            },
            Err(error) => Err(Setback::Refused(chain(&error))),
        };
        stamps = seen;
        if let Err(setback) = outcome {
            refused(&log, setback);
        }
    }
    tokio::select! {
        () = sidecar.end(END_WITHIN) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    log.flush(LAST_LINES_WITHIN);
    Ok(ExitCode::SUCCESS)
}

fn refused(log: &Log, (Setback::Refused(reason) | Setback::CannotListen(reason)): Setback) {
    log.event(&Event::Refused { reason });
}

async fn take(sidecar: &mut Sidecar, log: &Log, deployment: &Deployment) -> Result<(), Setback> {
    let refused = |error: DeploymentError| Setback::Refused(chain(&error));
    let config = deployment.config().map_err(refused)?;
    let secrets = deployment.secrets().map_err(refused)?;
    let event = sidecar.configure(&config, &secrets).await?;
    log.event(&event);
    Ok(())
}
