//! Keeps the credentials of routes fresh: a command is run again before its time is over, a file is read again when it has
//! changed, and either once more when an upstream rejects what it gave. The one that was there before stays in force
//! until there is another.

use super::desk::News;
use super::table::{Source, Table, sources};
use super::tend::Word;
use super::{Charge, Shared};
use crate::credentials::{self, CredentialError};
use crate::engine::Engine;
use crate::error::chain;
use crate::manifest::{Route, TokenRef};
use crate::stop::{Level, Stop};
use cred_proxy::Secret;
use cred_proxy::config::REJECTED_EVERY;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How often a file is looked at.
const FILE_LOOK: Duration = Duration::from_secs(2);
/// A credential is fetched at least so long before its time is over.
const MARGIN: Duration = Duration::from_secs(5);
/// The pause after a failure; it doubles with every further one.
const RETRY_FIRST: Duration = Duration::from_secs(5);
/// The longest pause.
const RETRY_MOST: Duration = Duration::from_secs(300);
/// Rejections that may wait; more say nothing new.
const REJECTED_WAITING_MAX: usize = 16;

/// Whom to tell that an upstream rejects a credential, by the credential's name. Who is taken out of it keeps nothing fresh
/// any more.
pub type Rejected = Arc<Mutex<BTreeMap<String, mpsc::Sender<String>>>>;

/// What keeping credentials fresh needs.
pub struct Means<'a, E: Engine> {
    /// The keeper's.
    pub shared: &'a Arc<Shared<E>>,
    /// What they are put into.
    pub table: &'a Arc<Table>,
    /// How cred-proxy is told.
    pub words: &'a mpsc::Sender<Word>,
    /// Who else is told of another one.
    pub news: &'a mpsc::Sender<News>,
    /// The end.
    pub stop: &'a Stop,
}

/// Begins: a task for each source of these routes, whose credentials are so old.
pub fn begin<E: Engine>(
    tasks: &mut JoinSet<()>,
    means: &Means<'_, E>,
    routes: &[Route],
    age: Duration,
    told: &Rejected,
) {
    for source in sources(routes) {
        if matches!(source.from, TokenRef::Env(_)) {
            continue;
        }
        let (reject, rejected) = mpsc::channel(REJECTED_WAITING_MAX);
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        told.extend(source.names.iter().map(|name| (name.clone(), reject.clone())));
        let fresh = Fresh {
            shared: Arc::clone(means.shared),
            table: Arc::clone(means.table),
            words: means.words.clone(),
            news: means.news.clone(),
            stop: means.stop.clone(),
            stamp: None,
            ran: None,
            failures: 0,
            source,
        };
        tasks.spawn(fresh.keep(rejected, age));
    }
}

/// How old the credentials of a launch are.
pub fn age(charge: &Charge) -> Duration {
    let since = UNIX_EPOCH + Duration::from_secs(charge.credentials_read);
    // A clock that was set back makes nothing older than it is.
    SystemTime::now().duration_since(since).unwrap_or_default()
}

/// One source of a credential.
struct Fresh<E: Engine> {
    shared: Arc<Shared<E>>,
    table: Arc<Table>,
    words: mpsc::Sender<Word>,
    news: mpsc::Sender<News>,
    stop: Stop,
    source: Source,
    /// What told a file from another when it was read last.
    stamp: Option<Stamp>,
    /// When it was read last.
    ran: Option<Instant>,
    /// Failures since it was read last with success.
    failures: u32,
}

/// What tells a file from the one that was there before.
type Stamp = (u64, u64, u64, i64, i64);

impl<E: Engine> Fresh<E> {
    async fn keep(mut self, mut rejected: mpsc::Receiver<String>, age: Duration) {
        let stop = self.stop.clone();
        let mut due = due(&self.source.from, age);
        loop {
            let asked = tokio::select! {
                () = stop.reached(Level::Graceful) => return,
                () = until(due) => None,
                asked = rejected.recv() => match asked {
                    Some(name) => Some(name),
                    // Nobody is left who would be told.
                    None => return,
                },
            };
            let mut renewed = None;
            let run = match asked {
                // The agent causes rejections; it must not make a host run commands as often as it likes.
                Some(_) => self.ran.is_none_or(|ran| ran.elapsed() >= REJECTED_EVERY),
                None => self.has_changed(),
            };
            let changed = if run {
                let read = tokio::select! {
                    () = stop.reached(Level::Graceful) => return,
                    read = self.read() => read,
                };
                due = self.next(read.is_ok());
                renewed = read.as_ref().ok().cloned();
                self.take(read)
            } else {
                if asked.is_none() {
                    due = Some(Instant::now() + FILE_LOOK);
                }
                false
            };
            if let Some(secret) = renewed.filter(|_| changed) {
                tokio::select! {
                    () = stop.reached(Level::Graceful) => return,
                    // Without a desk there is nobody to tell.
                    _ = self.news.send(News::Renewed(secret)) => {}
                }
            }
            let word = match (changed, asked) {
                (true, _) => Word::Table,
                (false, Some(name)) => Word::Unchanged(name),
                (false, None) => continue,
            };
            tokio::select! {
                () = stop.reached(Level::Graceful) => return,
                sent = self.words.send(word) => if sent.is_err() { return },
            }
        }
    }

    /// Reads it on a thread of its own, since a command may take its time.
    async fn read(&mut self) -> Result<Secret, CredentialError> {
        self.ran = Some(Instant::now());
        let (from, shared) = (self.source.from.clone(), Arc::clone(&self.shared));
        let read = tokio::task::spawn_blocking(move || credentials::read_unattended(&from, &shared.env));
        read.await.unwrap_or_else(|_| {
            Err(CredentialError::Unusable { from: self.source.from.to_string(), why: "reading it panicked" })
        })
    }

    /// Puts what was read into the table, and tells of failures: the first one whoever looks on, all of them the log.
    fn take(&mut self, read: Result<Secret, CredentialError>) -> bool {
        let routes = self.source.names.join(", ");
        match read {
            Ok(secret) => {
                if std::mem::take(&mut self.failures) > 0 {
                    self.tell(&format!("the credential of {routes} can be had again"));
                }
                let changed = self.table.put(&self.source.names, &secret);
                if changed {
                    self.shared.log.line("keeper", "out", &format!("the credential of {routes} is another one now"));
                }
                changed
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let text = self.table.redacted(&chain(&error));
                let text = format!("the credential of {routes} cannot be had again, the one before stays: {text}");
                if self.failures == 1 {
                    self.tell(&text);
                } else {
                    self.shared.log.line("keeper", "err", &text);
                }
                false
            }
        }
    }

    /// When it is looked at next.
    fn next(&self, read: bool) -> Option<Instant> {
        match &self.source.from {
            TokenRef::File(_) => Some(Instant::now() + FILE_LOOK),
            // Without a time it is run for a rejection alone.
            TokenRef::Command { ttl_s: None, .. } | TokenRef::Env(_) => None,
            TokenRef::Command { ttl_s: Some(_), .. } if read => due(&self.source.from, Duration::ZERO),
            TokenRef::Command { ttl_s: Some(_), .. } => Some(Instant::now() + retry(self.failures)),
        }
    }

    /// Is a file another one than that which was read last? What cannot be told is: reading it says why. What a command
    /// will say is known when it has.
    fn has_changed(&mut self) -> bool {
        let TokenRef::File(path) = &self.source.from else { return true };
        let now = std::fs::metadata(path).ok().map(|m| (m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec()));
        let changed = now.is_none() || now != self.stamp;
        self.stamp = now;
        changed
    }

    fn tell(&self, text: &str) {
        self.shared.log.line("keeper", "out", text);
        self.shared.console.notice_now(&crate::ui::clean(text));
    }
}

/// When a credential of this age is fetched for the first time.
fn due(from: &TokenRef, age: Duration) -> Option<Instant> {
    match from {
        TokenRef::Env(_) | TokenRef::Command { ttl_s: None, .. } => None,
        TokenRef::File(_) => Some(Instant::now() + FILE_LOOK),
        TokenRef::Command { ttl_s: Some(ttl), .. } => {
            Some(Instant::now() + fresh_for(Duration::from_secs(*ttl)).saturating_sub(age))
        }
    }
}

/// How long a credential that lives for `ttl` is used: four fifths of it, and never to its last seconds.
fn fresh_for(ttl: Duration) -> Duration {
    (ttl * 4 / 5).min(ttl.saturating_sub(MARGIN)).max(Duration::from_secs(1))
}

/// The pause after so many failures.
fn retry(failures: u32) -> Duration {
    let doubled = RETRY_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(RETRY_MOST)
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_fetched_before_its_time_is_over() {
        for (ttl, used) in [(10, 5), (20, 15), (25, 20), (30, 24), (1800, 1440)] {
            assert_eq!(fresh_for(Duration::from_secs(ttl)), Duration::from_secs(used), "{ttl}");
        }
        assert_eq!(fresh_for(Duration::from_secs(2)), Duration::from_secs(1));
    }

    #[test]
    fn failures_make_the_pauses_longer_and_not_endless() {
        let pauses: Vec<u64> = (1..=8).map(|n| retry(n).as_secs()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(retry(u32::MAX), RETRY_MOST);
    }
}
