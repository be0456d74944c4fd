//! Steps 8 and 9 of a push: what was cleared is sent, and what the upstream answers is what the client gets.
//!
//! From the first byte on, only the upstream knows what became of it. An answer that does not come whole is "unknown",
//! never "ok", and never "nothing happened".

use super::answer::{KEEPALIVE, Part, Reader, Report, band, framed, own_report};
use super::serve::read_advert;
use super::step::Cleared;
use crate::agent::Agent;
use crate::config::Service;
use crate::limits::{Limits, seconds};
use crate::pack::Verified;
use crate::pktline;
use crate::request::Version;
use crate::stop::Stop;
use crate::upstream::{Failure, Line, Session, Upload, Upstream, printable_line};
use bytes::Bytes;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

/// What is read of the spool at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Chunks between the spool and the connection.
const CHUNKS_WAITING: usize = 16;

/// How a forward ended.
#[derive(Debug)]
pub enum Forwarded {
    /// The upstream reported on every ref.
    Reported(Report),
    /// Nothing was sent, or the upstream said that it did not take it.
    Not(Stop),
    /// It was sent, and nobody knows.
    Unknown(String),
}

/// Sends a cleared push and relays the answer. Everything that the client is to hear has been said when this returns.
pub async fn forward(
    agent: &mut Agent,
    session: &mut Box<dyn Session>,
    upstream: &dyn Upstream,
    cleared: Cleared,
    limits: &Limits,
) -> Forwarded {
    let mut line = match open(session, upstream).await {
        Ok(line) => line,
        Err(failure) => return Forwarded::Not(failure.into()),
    };
    let advert = match read_advert(&mut *line, limits).await {
        Ok(advert) => advert,
        Err(stop) => return Forwarded::Not(stop),
    };
    let forward = match cleared.forward(&advert.first.capabilities) {
        Ok(forward) => forward,
        Err(changed) => return Forwarded::Not(Stop::Refused(changed.to_string())),
    };
    drop(advert);
    let side_band = forward.asked.commands().agreed("side-band-64k");
    let names: Vec<String> =
        forward.asked.commands().updates().iter().map(|update| update.name.as_str().to_owned()).collect();
    let progress = Arc::new(AtomicU64::new(0));
    let upload = Upload {
        head: forward.head.into(),
        rest: forward.pack.map(|pack| (pack.bytes(), read_pack(pack, progress.clone()))),
    };
    let mut relay = Relay { agent, side_band, is_gone: false };
    let forwarded = match relay.send(&mut *line, upload, limits, &progress).await {
        Ok(()) => relay.answer(&mut *line, limits, &progress).await,
        Err(forwarded) => forwarded,
    };
    if let Forwarded::Unknown(_) = &forwarded {
        relay
            .tell(
                "git-gate: the push was forwarded, and the connection to the upstream was lost before it reported.\n\
             git-gate: run git fetch to see what became of it.\n",
            )
            .await;
        let reason = "outcome unknown, run git fetch".to_owned();
        let refs = names.into_iter().map(|name| (name, reason.clone()));
        relay.end(&own_report("git-gate: upstream connection lost", refs)).await;
    }
    forwarded
}

/// Another conversation over the same login, or a new login where the upstream has closed it meanwhile.
async fn open(session: &mut Box<dyn Session>, upstream: &dyn Upstream) -> Result<Box<dyn Line>, Failure> {
    match session.open(Service::Push, Version::V0).await {
        Ok(line) => Ok(line),
        Err(Failure::Ssh(..) | Failure::Http(..)) => {
            *session = upstream.connect().await?;
            session.open(Service::Push, Version::V0).await
        }
        Err(failure) => Err(failure),
    }
}

/// Reads the verified bytes on a thread of their own, as fast as they are taken.
fn read_pack(pack: Verified, progress: Arc<AtomicU64>) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
    tokio::task::spawn_blocking(move || {
        let mut reader = pack.reader();
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let chunk = match reader.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => Ok(Bytes::copy_from_slice(&buffer[..length])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let is_last = chunk.is_err();
            if sender.blocking_send(chunk).is_err() || is_last {
                return;
            }
            progress.fetch_add(1, Ordering::Relaxed);
        }
    });
    receiver
}

/// What the client gets meanwhile. One that has gone away changes nothing any more: the answer is still read for the log.
struct Relay<'a> {
    agent: &'a mut Agent,
    side_band: bool,
    is_gone: bool,
}

impl Relay<'_> {
    async fn write(&mut self, bytes: &[u8]) {
        if !self.is_gone && self.agent.writer.send(bytes).await.is_err() {
            self.is_gone = true;
        }
    }

    async fn keep_alive(&mut self) {
        if self.side_band {
            self.write(KEEPALIVE).await;
        }
    }

    async fn tell(&mut self, text: &str) {
        if self.side_band {
            let mut out = Vec::new();
            band(&mut out, 2, text.as_bytes());
            self.write(&out).await;
        }
    }

    async fn end(&mut self, report: &[u8]) {
        self.write(&framed(report, self.side_band)).await;
    }

    /// Sends the request. Where the upstream answers only when it has all of it, this takes as long.
    async fn send(
        &mut self,
        line: &mut dyn Line,
        upload: Upload,
        limits: &Limits,
        progress: &AtomicU64,
    ) -> Result<(), Forwarded> {
        let mut patience = Patience::new(limits, progress);
        let mut quiet = tokio::time::interval(seconds(limits.keepalive_seconds));
        quiet.set_missed_tick_behavior(MissedTickBehavior::Delay);
        quiet.reset();
        let mut sending = line.exchange(upload);
        loop {
            tokio::select! {
                sent = &mut sending => return sent.map_err(|failure| match failure {
                    // HTTP's word for a request that was not acted upon.
                    Failure::Status { status: 400..=499, .. } => Forwarded::Not(failure.into()),
                    failure => Forwarded::Unknown(bottle_sidecar::chain(&failure)),
                }),
                _ = quiet.tick() => {
                    self.keep_alive().await;
                    if patience.is_over() {
                        return Err(Forwarded::Unknown(patience.words()));
                    }
                }
            }
        }
    }

    async fn answer(&mut self, line: &mut dyn Line, limits: &Limits, progress: &AtomicU64) -> Forwarded {
        let mut reader = Reader::new(self.side_band);
        let mut patience = Patience::new(limits, progress);
        let mut quiet = tokio::time::interval(seconds(limits.keepalive_seconds));
        quiet.set_missed_tick_behavior(MissedTickBehavior::Delay);
        quiet.reset();
        let mut reported = None;
        let mut words = String::new();
        let unknown = |words: String| if words.is_empty() { "the connection was lost".into() } else { words };
        loop {
            let chunk = tokio::select! {
                chunk = line.inbound().chunk() => chunk,
                _ = quiet.tick() => {
                    self.keep_alive().await;
                    if patience.is_over() {
                        return self.finish(reported, patience.words()).await;
                    }
                    continue;
                }
            };
            patience.renew();
            quiet.reset();
            let Some(chunk) = chunk else {
                let ending = line.inbound().ending().words();
                let words = unknown(if words.is_empty() { ending } else { words });
                return self.finish(reported, words).await;
            };
            let parts = match reader.take(&chunk) {
                Ok(parts) => parts,
                Err(error) => return self.finish(reported, error.to_string()).await,
            };
            for part in parts {
                match part {
                    Part::Text(text) => {
                        let mut out = Vec::new();
                        band(&mut out, 2, &text);
                        self.write(&out).await;
                    }
                    Part::Keepalive => self.keep_alive().await,
                    Part::Fatal(text) => {
                        words = printable_line(&String::from_utf8_lossy(&text));
                        self.tell(&format!("git-gate: the upstream gave up: {words}\n")).await;
                    }
                    Part::Report(report) => {
                        // Whole: the client may have it, whatever comes behind it.
                        if self.side_band {
                            let mut out = Vec::new();
                            band(&mut out, 1, &report.bytes);
                            self.write(&out).await;
                        } else {
                            self.write(&report.bytes).await;
                        }
                        reported = Some(report);
                    }
                    Part::End => return self.finish(reported, unknown(words)).await,
                }
            }
        }
    }

    async fn finish(&mut self, reported: Option<Report>, words: String) -> Forwarded {
        let Some(report) = reported else { return Forwarded::Unknown(words) };
        if self.side_band {
            self.write(pktline::FLUSH).await;
        }
        Forwarded::Reported(report)
    }
}

/// How long an upstream may be silent: as long as the push still moves, the time begins anew.
struct Patience<'a> {
    progress: &'a AtomicU64,
    seen: u64,
    since: tokio::time::Instant,
    report_seconds: u64,
}

impl<'a> Patience<'a> {
    fn new(limits: &Limits, progress: &'a AtomicU64) -> Self {
        Self { progress, seen: 0, since: tokio::time::Instant::now(), report_seconds: limits.report_seconds }
    }

    fn renew(&mut self) {
        self.since = tokio::time::Instant::now();
    }

    fn is_over(&mut self) -> bool {
        let now = self.progress.load(Ordering::Relaxed);
        if now != self.seen {
            self.seen = now;
            self.renew();
        }
        self.since.elapsed() >= seconds(self.report_seconds)
    }

    fn words(&self) -> String {
        format!("no report within {} seconds", self.report_seconds)
    }
}
