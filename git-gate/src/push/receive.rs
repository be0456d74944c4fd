//! Steps 5 and 6 of a push: the pack goes from the agent into the spool, is verified, and every object of it is scanned
//! on the way. The parser and the scan block, so they have threads of their own; this feeds them.

use super::answer::KEEPALIVE;
use crate::agent::Agent;
use crate::limits::{Limits, seconds};
use crate::objects::{ObjectKind, TreeEntries};
use crate::pack::{self, Content, Object, PackError, PackLimits, Sink, Verified};
use crate::scan::{self, Clean, Findings, Scan, Source, Unclean};
use crate::spool::{Spool, SpoolBudget, SpoolError};
use bytes::{Buf as _, Bytes};
use gix_hash::Kind;
use std::borrow::Cow;
use std::io::{self, BufRead, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Chunks between the connection and the parser.
const CHUNKS_WAITING: usize = 32;

/// How long a pack may be slow before it is refused.
const PACE: Duration = Duration::from_secs(120);

/// A commit that says this asks a forge to skip its own scan.
const SKIPS: [&[u8]; 2] = [b"[skip secret push protection]", b"[skip secret detection]"];

/// What is needed for one pack.
#[derive(Debug)]
pub struct Order {
    /// Where it stays.
    pub spool: PathBuf,
    /// What all pushes share.
    pub budget: SpoolBudget,
    /// The limits of all.
    pub limits: Limits,
    /// This remote's largest pack.
    pub pack_bytes_max: u64,
    /// The repository's hash function.
    pub format: Kind,
    /// Ref names and options are in it already.
    pub scan: Scan,
    /// When the push must be at its end.
    pub deadline: Instant,
}

/// A pack that is sound, and what the scan says of it.
#[derive(Debug)]
pub struct Received {
    /// The proof that it is sound.
    pub pack: Verified,
    /// What the scan says.
    pub scanned: Result<Clean, Findings>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The pack is not accepted.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// It cannot be kept.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The scan cannot say anything.
    #[error(transparent)]
    Scan(#[from] scan::Refused),
    /// Something comes behind the pack.
    #[error("the client sends more than the pack")]
    Trailing,
    /// It is not at its end when the push should be.
    #[error("the push took longer than push_seconds ({0})")]
    Long(u64),
    /// Nothing came in time.
    #[error("the pack did not go on for {0} seconds")]
    Late(u64),
    /// Too little came in time.
    #[error("the pack came with less than {0} bytes a second (pack_bytes_per_second)")]
    Slow(u64),
    /// The agent went away.
    #[error("the agent went away")]
    Gone,
    /// A part of the gate failed; the push with it.
    #[error("the pack could not be checked")]
    Broken,
}

/// Receives, verifies and scans the pack that the agent now sends.
pub async fn receive(agent: &mut Agent, order: Order, side_band: bool) -> Result<Received, ReceiveError> {
    let limits = order.limits;
    let deadline = order.deadline;
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
    let cancelled = Arc::new(AtomicBool::new(false));
    let stop = cancelled.clone();
    let mut work = tokio::task::spawn_blocking(move || parse(order, Feed::new(receiver), cancelled));
    let mut feeder =
        Feeder { sender: Some(sender), limits: &limits, since: Instant::now(), counted: 0, begun: false, until: None };
    let mut quiet = tokio::time::interval(seconds(limits.keepalive_seconds));
    quiet.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    quiet.reset();
    loop {
        tokio::select! {
            done = &mut work => return done.unwrap_or(Err(ReceiveError::Broken)),
            () = tokio::time::sleep_until(deadline.into()), if feeder.sender.is_some() => {
                stop.store(true, Ordering::Release);
                feeder.sender = None;
                // The result does not matter: it is too late.
                let _ = (&mut work).await;
                return Err(ReceiveError::Long(limits.push_seconds));
            }
            fed = feeder.feed(&mut agent.reader), if feeder.sender.is_some() => match fed {
                Ok(()) => quiet.reset(),
                Err(error) => {
                    // The parser hears of it as an end of the pack, and gives its threads back.
                    stop.store(true, Ordering::Release);
                    feeder.sender = None;
                    let ended = (&mut work).await;
                    // Whatever the parser makes of the end, unless the pack was whole before it.
                    return match ended { Ok(Ok(received)) => Ok(received), _ => Err(error) };
                }
            },
            _ = quiet.tick() => {
                if side_band && agent.writer.send(KEEPALIVE).await.is_err() {
                    stop.store(true, Ordering::Release);
                    feeder.sender = None;
                    // The result does not matter to anyone any more.
                    let _ = (&mut work).await;
                    return Err(ReceiveError::Gone);
                }
            }
        }
    }
}

/// Brings what the agent sends to the parser, and minds the time.
struct Feeder<'a> {
    sender: Option<mpsc::Sender<Bytes>>,
    limits: &'a Limits,
    since: Instant,
    counted: u64,
    begun: bool,
    until: Option<Instant>,
}

impl Feeder<'_> {
    /// One read. Safe to drop at any point: what was read is handed over at once or not taken at all.
    async fn feed(&mut self, reader: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Result<(), ReceiveError> {
        use tokio::io::AsyncBufReadExt as _;
        let Some(sender) = &self.sender else { return Ok(()) };
        // A place first: the time in which the parser is busy is not the agent's.
        let Ok(place) = sender.reserve().await else {
            // The parser has all it wants, or no use for more.
            self.sender = None;
            return Ok(());
        };
        let wait = if self.begun { self.limits.idle_seconds } else { self.limits.pack_wait_seconds };
        // Kept over calls: one that was dropped for a sign of life does not begin the time anew.
        let until = *self.until.get_or_insert_with(|| Instant::now() + seconds(wait));
        let reading = tokio::select! {
            () = sender.closed() => None,
            read = tokio::time::timeout_at(until.into(), reader.fill_buf()) => Some(read),
        };
        let bytes = match reading {
            None => {
                drop(place);
                self.sender = None;
                return Ok(());
            }
            Some(Err(_)) => return Err(ReceiveError::Late(wait)),
            Some(Ok(Err(_) | Ok([]))) => return Err(ReceiveError::Gone),
            Some(Ok(Ok(bytes))) => Bytes::copy_from_slice(bytes),
        };
        let length = bytes.len();
        place.send(bytes);
        reader.consume(length);
        self.until = None;
        self.pace(length, Instant::now())
    }

    /// Counts what came, and says whether it comes too slowly: looked at every so often, and then for all that time.
    fn pace(&mut self, bytes: usize, now: Instant) -> Result<(), ReceiveError> {
        if !self.begun {
            self.begun = true;
            self.since = now;
        }
        self.counted += bytes as u64;
        let passed = now.duration_since(self.since);
        if passed >= PACE {
            if self.counted < self.limits.pack_bytes_per_second.saturating_mul(passed.as_secs()) {
                return Err(ReceiveError::Slow(self.limits.pack_bytes_per_second));
            }
            self.since = now;
            self.counted = 0;
        }
        Ok(())
    }
}

/// The parser's end.
struct Feed {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Feed {
    fn new(chunks: mpsc::Receiver<Bytes>) -> Self {
        Self { chunks, current: Bytes::new() }
    }

    /// Is there something behind what was read?
    fn has_more(&mut self) -> bool {
        !self.current.is_empty() || self.chunks.try_recv().is_ok_and(|chunk| !chunk.is_empty())
    }
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.is_empty()
            && let Some(chunk) = self.chunks.blocking_recv()
        {
            self.current = chunk;
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount.min(self.current.len()));
    }
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let take = available.len().min(buffer.len());
        buffer[..take].copy_from_slice(&available[..take]);
        self.consume(take);
        Ok(take)
    }
}

fn parse(order: Order, mut feed: Feed, cancelled: Arc<AtomicBool>) -> Result<Received, ReceiveError> {
    let Order { spool, budget, limits, pack_bytes_max, format, scan, deadline } = order;
    let spool = Spool::create(&spool, &budget)?;
    let sink = Scanning { scan, format, deadline, cancelled };
    let received = pack::receive(&mut feed, spool, &pack_limits(&limits, pack_bytes_max), format, &sink);
    let pack = received?;
    if feed.has_more() {
        return Err(ReceiveError::Trailing);
    }
    let scanned = match sink.scan.finish() {
        Ok(clean) => Ok(clean),
        Err(Unclean::Findings(findings)) => Err(findings),
        Err(Unclean::Refused(refused)) => return Err(refused.into()),
    };
    Ok(Received { pack, scanned })
}

/// The parser's limits, of the gate's.
pub fn pack_limits(limits: &Limits, pack_bytes_max: u64) -> PackLimits {
    PackLimits {
        pack_bytes_max,
        object_bytes_max: limits.object_bytes,
        inflated_bytes_max: limits.inflated_bytes,
        inflated_ratio_max: limits.inflated_ratio,
        objects_max: u32::try_from(limits.objects).unwrap_or(u32::MAX),
        delta_depth_max: u32::try_from(limits.delta_depth).unwrap_or(u32::MAX),
        resolver_memory_bytes: limits.resolver_bytes,
        ..PackLimits::default()
    }
}

/// Shows every object to the scan.
struct Scanning {
    scan: Scan,
    format: Kind,
    deadline: Instant,
    cancelled: Arc<AtomicBool>,
}

impl Sink for Scanning {
    fn object(&self, object: Object<'_>) -> Result<(), pack::Refused> {
        self.go_on()?;
        let scanned = match (object.kind, object.content) {
            (ObjectKind::Blob, Content::Bytes(bytes)) => self.scan.text(Source::Blob(object.id), bytes),
            (ObjectKind::Blob, Content::Stream(reader)) => self.scan.stream(Source::Blob(object.id), reader),
            (ObjectKind::Commit, Content::Bytes(bytes)) => {
                if SKIPS.iter().any(|skip| holds(bytes, skip)) {
                    let why = "a commit message that switches a forge's secret scan off is not allowed";
                    return Err(pack::Refused(Cow::Borrowed(why)));
                }
                self.scan.text(Source::Commit(object.id), bytes)
            }
            (ObjectKind::Tag, Content::Bytes(bytes)) => self.scan.text(Source::Tag(object.id), bytes),
            (ObjectKind::Tree, Content::Bytes(bytes)) => {
                self.scan.text(Source::TreeName(object.id), &tree_names(bytes, self.format)?)
            }
            (ObjectKind::Commit | ObjectKind::Tag | ObjectKind::Tree, Content::Stream(_)) => {
                return Err(pack::Refused(Cow::Borrowed("a commit, tag or tree is too large to be looked at")));
            }
        };
        scanned.map_err(|refused| pack::Refused(Cow::Owned(refused.to_string())))
    }

    fn go_on(&self) -> Result<(), pack::Refused> {
        if self.cancelled.load(Ordering::Acquire) {
            return Err(pack::Refused(Cow::Borrowed("the push was given up")));
        }
        if Instant::now() >= self.deadline {
            return Err(pack::Refused(Cow::Borrowed("the push took longer than push_seconds")));
        }
        Ok(())
    }
}

/// A tree's names, one a line.
pub fn tree_names(content: &[u8], format: Kind) -> Result<Vec<u8>, pack::Refused> {
    let mut names = Vec::with_capacity(content.len());
    for name in TreeEntries::new(content, format).names() {
        let name = name.map_err(|malformed| pack::Refused(Cow::Owned(malformed.to_string())))?;
        names.extend_from_slice(name);
        names.push(b'\n');
    }
    Ok(names)
}

fn holds(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pack_that_trickles_is_refused_and_a_slow_one_is_not() {
        let limits = Limits { pack_bytes_per_second: 1000, ..Limits::default() };
        // So many bytes every ten seconds, for six minutes.
        let told = |bytes: usize| {
            let began = Instant::now();
            let mut feeder =
                Feeder { sender: None, limits: &limits, since: began, counted: 0, begun: false, until: None };
            (0..36).try_for_each(|n| feeder.pace(bytes, began + n * Duration::from_secs(10)))
        };
        assert_eq!(told(10_000).map_err(|error| error.to_string()), Ok(()));
        let slow = told(9_000).map_err(|error| error.to_string());
        assert_eq!(slow, Err("the pack came with less than 1000 bytes a second (pack_bytes_per_second)".to_owned()));
        // One that begins fast does not earn the right to trickle.
        let began = Instant::now();
        let mut feeder = Feeder { sender: None, limits: &limits, since: began, counted: 0, begun: false, until: None };
        assert!(feeder.pace(10_000_000, began).is_ok());
        assert!(feeder.pace(1, began + Duration::from_secs(120)).is_ok());
        assert!(feeder.pace(1, began + Duration::from_secs(240)).is_err());
    }
}
