//! Questions to the upstream, asked only when a push gives reason: does it have this object already, did this path hold
//! the same secret before, does this ref move forward? Each is a small fetch of version 2, and all of a push's share one
//! budget. What cannot be answered is answered with no.

use crate::advert::{AGENT, v2_capability};
use crate::config::Service;
use crate::fetch::first_packet;
use crate::limits::{Limits, seconds};
use crate::objects::{Commit, ObjectKind, TreeEntries};
use crate::pack::{self, Content, Object, Sink};
use crate::pktline::{self, Packet, Packets, text};
use crate::push::receive::pack_limits;
use crate::request::Version;
use crate::spool::{Spool, SpoolBudget};
use crate::upstream::{Line, Session, Upload};
use gix_hash::{Kind, ObjectId};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// An object as the upstream has it.
pub type Known = Arc<(ObjectKind, Vec<u8>)>;

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The upstream says that it does not have it.
    #[error("the upstream does not have it")]
    Absent,
    /// The upstream cannot be asked so.
    #[error("the upstream cannot be asked")]
    Unsupported,
    /// The budget is used up.
    #[error("the look-ups are over the limit {0}")]
    Limit(&'static str),
    /// It broke off, or answered something else.
    #[error("the upstream did not answer: {0}")]
    Failed(String),
}

/// Asks.
pub struct Lookups<'a> {
    session: &'a mut dyn Session,
    line: Option<Box<dyn Line>>,
    filters: bool,
    format: Kind,
    limits: Limits,
    requests_left: u64,
    bytes_left: u64,
    until: Instant,
    spool: PathBuf,
    budget: SpoolBudget,
    have: HashMap<ObjectId, Known>,
    absent: Vec<ObjectId>,
}

/// One question.
#[derive(Debug, Default)]
struct Question<'a> {
    wants: &'a [ObjectId],
    have: Option<ObjectId>,
    /// Commits and trees that are named, and not what they lead to.
    shallowest: bool,
    /// One commit and not its history.
    single: bool,
}

impl<'a> Lookups<'a> {
    /// For a repository of this `format`, at the upstream of `session`.
    pub fn new(
        session: &'a mut dyn Session,
        format: Kind,
        limits: Limits,
        spool: PathBuf,
        budget: SpoolBudget,
    ) -> Self {
        Self {
            session,
            line: None,
            filters: false,
            format,
            limits,
            requests_left: limits.lookup_requests,
            bytes_left: limits.lookup_bytes,
            until: Instant::now() + seconds(limits.lookup_seconds),
            spool,
            budget,
            have: HashMap::new(),
            absent: Vec::new(),
        }
    }

    /// The object of this name and kind, if the upstream has it.
    pub async fn object(&mut self, id: ObjectId, kind: ObjectKind) -> Result<Known, Unanswered> {
        if let Some(known) = self.have.get(&id) {
            return Ok(known.clone());
        }
        if self.absent.contains(&id) {
            return Err(Unanswered::Absent);
        }
        let single = kind == ObjectKind::Commit || kind == ObjectKind::Tag;
        let shallowest = kind != ObjectKind::Blob;
        match self.ask(&Question { wants: &[id], have: None, shallowest, single }).await {
            Ok(objects) => self.have.extend(objects),
            Err(Unanswered::Absent) => {
                self.absent.push(id);
                return Err(Unanswered::Absent);
            }
            Err(error) => return Err(error),
        }
        self.have.get(&id).cloned().ok_or_else(|| Unanswered::Failed("another object than the one asked for".into()))
    }

    /// What stands at `path` in `commit`.
    pub async fn at_path(&mut self, commit: ObjectId, path: &[u8]) -> Result<Option<Known>, Unanswered> {
        let known = self.object(commit, ObjectKind::Commit).await?;
        let format = self.format;
        let Ok(parsed) = Commit::parse(&known.1, format) else { return Ok(None) };
        let mut id = parsed.tree;
        let segments: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|segment| !segment.is_empty()).collect();
        let mut segments = segments.into_iter().peekable();
        if segments.peek().is_none() {
            return self.object(id, ObjectKind::Tree).await.map(Some);
        }
        while let Some(segment) = segments.next() {
            let tree = self.object(id, ObjectKind::Tree).await?;
            let mut entries = TreeEntries::new(&tree.1, format).flatten();
            let Some(entry) = entries.find(|entry| entry.name == segment) else { return Ok(None) };
            if entry.is_submodule() || (segments.peek().is_some() && !entry.is_tree()) {
                return Ok(None);
            }
            let kind = if entry.is_tree() { ObjectKind::Tree } else { ObjectKind::Blob };
            id = entry.oid;
            if segments.peek().is_none() {
                return self.object(id, kind).await.map(Some);
            }
        }
        Ok(None)
    }

    /// Is `old` among the ancestors of `tips`, all of them upstream?
    pub async fn descends(&mut self, tips: &[ObjectId], old: ObjectId) -> Result<bool, Unanswered> {
        if tips.contains(&old) {
            return Ok(true);
        }
        if tips.is_empty() {
            return Ok(false);
        }
        if tips.len() > 256 {
            return Err(Unanswered::Limit("forward_commits"));
        }
        // Their ancestors that are not ancestors of `old`: one of them has `old` as its parent, or none comes after it.
        let question = Question { wants: tips, have: Some(old), shallowest: true, single: false };
        let commits = self.ask(&question).await?;
        if commits.len() as u64 > self.limits.forward_commits {
            return Err(Unanswered::Limit("forward_commits"));
        }
        let format = self.format;
        let mut commits = commits.values().filter(|known| known.0 == ObjectKind::Commit);
        let is_child = |commit: Commit| commit.parents.contains(&old);
        Ok(commits.any(|known| Commit::parse(&known.1, format).is_ok_and(is_child)))
    }

    async fn ask(&mut self, question: &Question<'_>) -> Result<HashMap<ObjectId, Known>, Unanswered> {
        self.requests_left = self.requests_left.checked_sub(1).ok_or(Unanswered::Limit("lookup_requests"))?;
        let until = self.until;
        let asking = tokio::time::timeout_at(until.into(), self.exchange(question)).await;
        let answer = match asking {
            // The silence that ended it may have been noticed in the same moment as the end of the time for all.
            Ok(Err(Unanswered::Failed(_))) if Instant::now() >= until => Err(Unanswered::Limit("lookup_seconds")),
            Ok(answer) => answer,
            Err(_) => Err(Unanswered::Limit("lookup_seconds")),
        };
        let bytes = match answer {
            Ok(bytes) => bytes,
            Err(error) => {
                // After an error a conversation is over.
                self.line = None;
                return Err(error);
            }
        };
        let limits = self.limits;
        let (spool, budget, format, cap) =
            (self.spool.clone(), self.budget.clone(), self.format, self.limits.lookup_bytes);
        let parsed = tokio::task::spawn_blocking(move || parse(&bytes, &spool, &budget, format, &limits, cap)).await;
        parsed.unwrap_or_else(|_| Err(Unanswered::Failed("its answer could not be read".into())))
    }

    async fn exchange(&mut self, question: &Question<'_>) -> Result<Vec<u8>, Unanswered> {
        if self.line.is_none() {
            self.open().await?;
        }
        let filters = self.filters;
        let format = self.format;
        let bytes_left = self.bytes_left;
        let Some(line) = self.line.as_mut() else { return Err(Unanswered::Unsupported) };
        let failed = |error: &dyn std::error::Error| Unanswered::Failed(bottle_sidecar::chain(error));
        line.exchange(Upload::from(question.request(filters, format))).await.map_err(|error| failed(&error))?;
        let mut packets = Packets::new(bytes_left.saturating_add(64 << 10), seconds(self.limits.lookup_seconds));
        let mut bytes = Vec::new();
        let mut in_pack = false;
        loop {
            let data = match packets.next(line.inbound()).await {
                Ok(Packet::Data(data)) => data,
                Ok(Packet::Flush) => break,
                Ok(Packet::Delim | Packet::ResponseEnd) => continue,
                Err(pktline::PacketError::TooLong(_)) => return Err(Unanswered::Limit("lookup_bytes")),
                Err(error) => return Err(failed(&error)),
            };
            if data.starts_with(b"ERR ") {
                let is_absent = data.windows(11).any(|window| window == b"not our ref");
                return Err(if is_absent { Unanswered::Absent } else { Unanswered::Unsupported });
            }
            match (in_pack, data.split_first()) {
                (false, _) => in_pack = text(&data) == b"packfile",
                (true, Some((1, rest))) => bytes.extend_from_slice(rest),
                (true, Some((3, _))) => return Err(Unanswered::Failed("it gave up".into())),
                (true, _) => {}
            }
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes.len() as u64);
        if in_pack { Ok(bytes) } else { Err(Unanswered::Failed("there is no pack in its answer".into())) }
    }

    async fn open(&mut self) -> Result<(), Unanswered> {
        let failed = |error: &dyn std::error::Error| Unanswered::Failed(bottle_sidecar::chain(error));
        let opened = self.session.open(Service::Fetch, Version::V2).await;
        let mut line = opened.map_err(|error| failed(&error))?;
        let mut packets = Packets::new(1 << 20, seconds(self.limits.lookup_seconds));
        let first = first_packet(line.inbound(), &mut packets).await.map_err(|stop| failed(&stop))?;
        if first.as_deref().map(text) != Some(b"version 2") {
            return Err(Unanswered::Unsupported);
        }
        self.filters = false;
        loop {
            match packets.next(line.inbound()).await.map_err(|error| failed(&error))? {
                Packet::Data(data) => {
                    if let Some(features) = v2_capability(&data).as_deref().and_then(|line| line.strip_prefix("fetch="))
                    {
                        self.filters = features.split(' ').any(|feature| feature == "filter");
                    }
                }
                Packet::Flush => break,
                Packet::Delim | Packet::ResponseEnd => return Err(Unanswered::Unsupported),
            }
        }
        self.line = Some(line);
        Ok(())
    }
}

impl Question<'_> {
    fn request(&self, filters: bool, format: Kind) -> Vec<u8> {
        let mut out = Vec::new();
        let mut line = |text: &str| pktline::put(&mut out, text.as_bytes());
        line("command=fetch");
        line(&format!("agent={AGENT}"));
        line(&format!("object-format={format}"));
        out.extend_from_slice(pktline::DELIM);
        let mut line = |text: &str| pktline::put(&mut out, text.as_bytes());
        line("no-progress\n");
        line("ofs-delta\n");
        for want in self.wants {
            line(&format!("want {want}\n"));
        }
        if let Some(have) = self.have {
            line(&format!("have {have}\n"));
        }
        if self.single {
            line("deepen 1\n");
        }
        // Without filters more comes than is needed, up to the limit of bytes.
        if self.shallowest && filters {
            line("filter tree:0\n");
        }
        line("done\n");
        out.extend_from_slice(pktline::FLUSH);
        out
    }
}

#[derive(Default)]
struct Collecting(Mutex<HashMap<ObjectId, Known>>);

impl Sink for Collecting {
    fn object(&self, object: Object<'_>) -> Result<(), pack::Refused> {
        let bytes = match object.content {
            Content::Bytes(bytes) => bytes.to_vec(),
            Content::Stream(reader) => {
                let mut bytes = Vec::new();
                let read = std::io::Read::read_to_end(reader, &mut bytes);
                read.map_err(|_| pack::Refused("an object could not be read".into()))?;
                bytes
            }
        };
        let mut objects = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        objects.insert(object.id, Arc::new((object.kind, bytes)));
        Ok(())
    }
}

fn parse(
    bytes: &[u8],
    spool: &std::path::Path,
    budget: &SpoolBudget,
    format: Kind,
    limits: &Limits,
    cap: u64,
) -> Result<HashMap<ObjectId, Known>, Unanswered> {
    let failed = |error: &dyn std::error::Error| Unanswered::Failed(bottle_sidecar::chain(error));
    let spool = Spool::create(spool, budget).map_err(|error| failed(&error))?;
    // What an upstream sends is held in memory, so it may not be much more when it is unpacked.
    let mut pack_limits = pack_limits(limits, cap);
    pack_limits.inflated_bytes_max = cap.saturating_mul(4);
    pack_limits.object_bytes_max = pack_limits.object_bytes_max.min(cap);
    let sink = Collecting::default();
    let mut reader = bytes;
    pack::receive(&mut reader, spool, &pack_limits, format, &sink).map_err(|error| failed(&error))?;
    Ok(sink.0.into_inner().unwrap_or_else(PoisonError::into_inner))
}
