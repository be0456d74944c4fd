//! Carries a push out, step by step. It decides nothing: what may follow from what is [`super::step`]'s.

use super::command::{CommandError, Update, check_option};
use super::conversation::{Push, Taken};
use super::judge::Judge;
use super::receive::{Order, Received, receive};
use super::step::{Asked, Forwardness, Offered};
use crate::advert::FirstLine;
use crate::agent::Agent;
use crate::audit::Entry;
use crate::config::{Outcome, Service};
use crate::exceptions::Exceptions;
use crate::fetch::{first_packet, format_of, torn};
use crate::known::Lookups;
use crate::limits::{Limits, seconds};
use crate::pack::{Descent, Verified};
use crate::pktline::{self, Packet, PacketError, Packets};
use crate::report::rejection;
use crate::request::Version;
use crate::scan::{Budget, Unclean};
use crate::spool::SpoolBudget;
use crate::stop::Stop;
use crate::table::{Remote, Table};
use crate::upstream::{Failure, Line, Session};
use gix_hash::ObjectId;
use std::collections::HashMap;
use std::time::Instant;

/// What a push is served with.
#[derive(Debug, Clone, Copy)]
pub struct Means<'a> {
    /// The configuration that was in force when it began.
    pub table: &'a Table,
    /// Where it goes.
    pub remote: &'a Remote,
    /// What the operator said since.
    pub exceptions: &'a Exceptions,
    /// What all pushes share.
    pub spool: &'a SpoolBudget,
}

/// An upstream's advertisement of a push.
#[derive(Debug)]
pub struct Advert {
    /// Its first line.
    pub first: FirstLine,
    /// The other lines, as packets, flush included.
    pub rest: Vec<u8>,
}

/// Reads an advertisement to its end.
pub async fn read_advert(line: &mut dyn Line, limits: &Limits) -> Result<Advert, Stop> {
    let mut packets = Packets::new(limits.advert_bytes, seconds(limits.advert_seconds));
    let reading = async {
        let first = first_packet(line.inbound(), &mut packets).await?;
        let not_git = || Stop::Upstream(Failure::Ended("it does not speak git's protocol".into()));
        let first = first.as_deref().and_then(FirstLine::parse).ok_or_else(not_git)?;
        let mut rest = Vec::new();
        loop {
            match packets.next(line.inbound()).await {
                Ok(Packet::Data(data)) => pktline::put(&mut rest, &data),
                Ok(Packet::Flush) => break,
                Ok(Packet::Delim | Packet::ResponseEnd) => return Err(not_git()),
                Err(error) => return Err(torn(&error, line.inbound())),
            }
        }
        rest.extend_from_slice(pktline::FLUSH);
        Ok(Advert { first, rest })
    };
    let read = tokio::time::timeout(seconds(limits.advert_seconds), reading).await;
    read.unwrap_or_else(|_| Err(Stop::Upstream(Failure::Ended("its advertisement took too long".into()))))
}

/// Serves one push from the advertisement on.
pub async fn serve(
    agent: &mut Agent,
    session: &mut Box<dyn Session>,
    version: Version,
    means: Means<'_>,
    entry: &mut Entry,
) -> Result<(), Stop> {
    let limits = &means.table.limits;
    let deadline = Instant::now() + seconds(limits.push_seconds);
    let late = || Stop::Refused(format!("the push took longer than push_seconds ({})", limits.push_seconds));
    // Nothing is changed by asking, so it may be given up at any point.
    let asking = tokio::time::timeout_at(deadline.into(), ask(agent, &mut **session, version, means)).await;
    let Some((asked, options)) = asking.map_err(|_| late())?? else {
        entry.ended(Outcome::Done);
        return Ok(());
    };
    let side_band = asked.commands().agreed("side-band-64k");
    let mut push = Push { agent, side_band, entry, limits };
    push.log_refs(&asked, &means.table.scanner);
    if let Err(refused) = options {
        return push.reject(&asked, &refused).await;
    }
    if let Some(denied) = asked.denied_early(&means.remote.policy) {
        return push.deny(&asked, &denied).await;
    }
    let scan = means.table.scanner.start(budget(limits));
    let scanned = asked.texts().try_for_each(|(source, text)| scan.text(source, text));
    if let Err(refused) = scanned {
        return push.reject(&asked, &refused.to_string()).await;
    }
    let (pack, scanned) = if asked.commands().has_pack() {
        let order = Order {
            spool: means.table.spool.clone(),
            budget: means.spool.clone(),
            limits: *limits,
            pack_bytes_max: means.remote.policy.pack_bytes_max,
            format: asked.commands().format(),
            scan,
            deadline,
        };
        match receive(push.agent, order, side_band).await {
            Ok(Received { pack, scanned }) => (Some(pack), scanned),
            Err(error) => return push.not_received(&asked, error).await,
        }
    } else {
        match scan.finish() {
            Ok(clean) => (None, Ok(clean)),
            Err(Unclean::Findings(findings)) => (None, Err(findings)),
            Err(Unclean::Refused(refused)) => return push.reject(&asked, &refused.to_string()).await,
        }
    };
    push.entry.moved(pack.as_ref().map_or(0, Verified::bytes));
    let format = asked.commands().format();
    let mut lookups = Lookups::new(&mut **session, format, *limits, means.table.spool.clone(), means.spool.clone());
    let (clean, used) = match scanned {
        Ok(clean) => (clean, Vec::new()),
        Err(findings) => {
            let judge = Judge {
                remote: means.remote,
                exceptions: means.exceptions,
                scanner: &means.table.scanner,
                budget: budget(limits),
                commands: asked.commands(),
                pack: pack.as_ref(),
            };
            let judged = push.alive(deadline, judge.judge(findings, &mut lookups)).await?;
            push.entry.found(judged.findings.into_iter());
            if let Some(why) = judged.unanswered {
                push.entry.because(&format!("a finding could not be compared with the upstream: {why}"));
            }
            match judged.clean {
                Some(clean) => clean,
                None => return push.findings(&asked, &rejection(&judged.told)).await,
            }
        }
    };
    let shown = push.alive(deadline, show_forward(&asked, means, pack.as_ref(), &mut lookups)).await?;
    drop(lookups);
    let permitted = asked.permit(&means.remote.policy, |update| {
        shown.get(update.name.as_str()).copied().unwrap_or(Forwardness::Unknown)
    });
    let permitted = match permitted {
        Ok(permitted) => permitted,
        Err(denied) => return push.deny(&asked, &denied).await,
    };
    if Instant::now() >= deadline {
        return push.reject(&asked, &format!("the push took longer than push_seconds ({})", limits.push_seconds)).await;
    }
    let Some(spent) = means.exceptions.spend(means.remote, &used) else {
        return push.reject(&asked, "an exception was used up by another push or taken back; push again").await;
    };
    if push.forward(asked, permitted, clean, pack, session, means).await? == Taken::No {
        means.exceptions.give_back(spent);
    }
    Ok(())
}

/// Steps 2 to 4: the client gets the advertisement and says what it wants, and whether its push options may be; `None` when it
/// wants nothing.
async fn ask(
    agent: &mut Agent,
    session: &mut dyn Session,
    version: Version,
    means: Means<'_>,
) -> Result<Option<(Asked, Result<(), String>)>, Stop> {
    let limits = &means.table.limits;
    let mut line = session.open(Service::Push, Version::V0).await?;
    let Advert { first, rest } = read_advert(&mut *line, limits).await?;
    // Nothing is asked in this conversation: the forward has one of its own, after the scan.
    drop(line);
    let format = format_of(&first.capabilities)?;
    let offered = Offered::new(first, format, &means.remote.policy);
    let mut out = Vec::new();
    // A client of version 2 pushes with version 0 and expects nothing.
    if version == Version::V1 {
        pktline::put(&mut out, b"version 1\n");
    }
    pktline::put(&mut out, &offered.line());
    out.extend_from_slice(&rest);
    agent.writer.send(&out).await?;
    let mut reader = offered.reader(limits);
    // A hook of the client's may take its time before the first line.
    let mut within = seconds(limits.pack_wait_seconds);
    let mut left = limits.command_bytes;
    loop {
        let mut packets = Packets::new(left, within);
        match agent.packet(&mut packets).await {
            Ok(Packet::Data(data)) => {
                left = left.saturating_sub(data.len() as u64 + 4);
                let read = reader.line(&data);
                agent.side_band = reader.side_band();
                read.map_err(|error: CommandError| Stop::Refused(error.to_string()))?;
            }
            Ok(Packet::Flush) => break,
            Ok(Packet::Delim | Packet::ResponseEnd) => return Err(Stop::Refused("a ref update cannot be read".into())),
            // Also a goodbye: there was nothing to push.
            Err(PacketError::Closed) if within != seconds(limits.commands_seconds) => return Ok(None),
            Err(PacketError::TooLong(_)) => {
                return Err(Stop::Refused(format!(
                    "the ref updates are over the limit command_bytes ({})",
                    limits.command_bytes
                )));
            }
            Err(error) => return Err(Stop::from_agent(error)),
        }
        within = seconds(limits.commands_seconds);
    }
    let Some(commands) = reader.end() else { return Ok(None) };
    let mut options = Vec::new();
    let mut permitted = Ok(());
    if commands.agreed("push-options") {
        let bytes = limits.push_options.saturating_mul(limits.push_option_bytes.saturating_add(5)).saturating_add(64);
        let mut packets = Packets::new(bytes, seconds(limits.commands_seconds));
        // After a refusal the rest is not read as anything: a client that waits for the report sends it to its end.
        while permitted.is_ok() {
            permitted = match agent.packet(&mut packets).await.map_err(Stop::from_agent)? {
                Packet::Data(data) => match check_option(&data, options.len(), limits) {
                    Ok(()) => {
                        options.push(data);
                        Ok(())
                    }
                    Err(refused) => Err(refused.to_string()),
                },
                Packet::Flush => break,
                Packet::Delim | Packet::ResponseEnd => Err("a push option cannot be read".to_owned()),
            }
        }
    }
    Ok(Some((Asked::new(commands, options), permitted)))
}

/// Does every ref that must move forward do so?
async fn show_forward(
    asked: &Asked,
    means: Means<'_>,
    pack: Option<&Verified>,
    lookups: &mut Lookups<'_>,
) -> HashMap<String, Forwardness> {
    let mut shown = HashMap::new();
    let moves: Vec<&Update> = asked.to_show(&means.remote.policy).collect();
    let count = moves.len().max(1) as u64;
    for update in moves {
        // Together they look at a bounded number of commits, however many refs there are.
        let commits_max = (means.table.limits.forward_commits / count).max(1000);
        let in_pack =
            pack.map(|pack| tokio::task::block_in_place(|| pack.descends(&update.new, &update.old, commits_max)));
        let tips: Option<Vec<ObjectId>> = match in_pack {
            Some(Ok(Descent::Proven)) => None,
            Some(Ok(Descent::GoesOnAt(tips))) => Some(tips),
            None => Some(vec![update.new]),
            Some(Err(_)) => {
                shown.insert(update.name.as_str().to_owned(), Forwardness::Unknown);
                continue;
            }
        };
        let answer = match tips {
            None => Forwardness::Forward,
            Some(tips) => match lookups.descends(&tips, update.old).await {
                Ok(true) => Forwardness::Forward,
                Ok(false) => Forwardness::NotForward,
                Err(_) => Forwardness::Unknown,
            },
        };
        shown.insert(update.name.as_str().to_owned(), answer);
    }
    shown
}

/// The scan's limits, of the gate's.
pub fn budget(limits: &Limits) -> Budget {
    Budget {
        time: seconds(limits.scan_seconds),
        bytes_per_extra_second: limits.scan_bytes_per_second,
        depth_max: u32::try_from(limits.decode_depth).unwrap_or(u32::MAX),
        decoded_bytes_per_object_max: limits.decode_blob_bytes,
        decoded_bytes_max: limits.decode_push_bytes,
        archive_entries_max: limits.archive_entries,
        ..Budget::default()
    }
}
