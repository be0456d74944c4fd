//! Fetches: what the upstream has now, relayed. Nothing is kept, so nothing is ever stale; what the agent says on the way
//! is read by allow-list ([`v2`], [`v0`]).

pub mod v0;
pub mod v2;

use crate::advert::{Capabilities, FirstLine, fetch_first_line, object_format, v2_capability};
use crate::agent::Agent;
use crate::config::Service;
use crate::limits::{Limits, seconds};
use crate::pktline::{self, Follower, Packet, PacketError, Packets, text};
use crate::request::Version;
use crate::stop::Stop;
use crate::upstream::{Failure, Inbound, Line, Outbound, Session, Upload};
use gix_hash::Kind;

/// Serves one fetch from `session`.
pub async fn serve(
    agent: &mut Agent,
    session: &mut dyn Session,
    version: Version,
    limits: &Limits,
) -> Result<(), Stop> {
    let mut line = session.open(Service::Fetch, version).await?;
    let mut packets = Packets::new(limits.advert_bytes, seconds(limits.advert_seconds));
    let Some(mut first) = first_packet(line.inbound(), &mut packets).await? else {
        return nothing(agent).await;
    };
    if text(&first) == b"version 2" {
        let format = relay_capabilities(agent, line.inbound(), &mut packets).await?;
        return requests(agent, &mut *line, format, limits).await;
    }
    // The upstream may know older versions alone; the client does as well.
    if text(&first) == b"version 1" {
        agent.writer.send(&pktline::packet(&first)).await?;
        let Some(second) = data(packets.next(line.inbound()).await, line.inbound())? else {
            return nothing(agent).await;
        };
        first = second;
    }
    let outbound = line.outbound();
    let parsed =
        FirstLine::parse(&first).ok_or(Stop::Upstream(Failure::Ended("it does not speak git's protocol".into())));
    let parsed = parsed?;
    let format = format_of(&parsed.capabilities)?;
    agent.writer.send(&pktline::packet(&fetch_first_line(&parsed, outbound.is_none()))).await?;
    match outbound {
        Some(outbound) => both_ways(agent, &mut *line, &outbound, format, limits).await,
        None => one_by_one(agent, &mut *line, format, limits).await,
    }
}

/// Before git 2.41 an upload-pack of versions 0 and 1 has nothing to say of an empty repository, not even what it can do.
async fn nothing(agent: &mut Agent) -> Result<(), Stop> {
    agent.writer.send(pktline::FLUSH).await?;
    Ok(())
}

/// The first packet of an advertisement, past the line by which HTTP upstreams name the service; `None` is a flush.
pub async fn first_packet(inbound: &mut Inbound, packets: &mut Packets) -> Result<Option<Vec<u8>>, Stop> {
    let mut first = data(packets.next(inbound).await, inbound)?;
    if first.as_ref().is_some_and(|first| first.starts_with(b"# service=")) {
        if !matches!(packets.next(inbound).await, Ok(Packet::Flush)) {
            return Err(not_git());
        }
        first = data(packets.next(inbound).await, inbound)?;
    }
    if let Some(words) = first.as_ref().and_then(|first| first.strip_prefix(b"ERR ")) {
        let words = crate::upstream::printable_line(&String::from_utf8_lossy(words));
        return Err(Stop::Upstream(Failure::Ended(words)));
    }
    Ok(first)
}

fn data(packet: Result<Packet, PacketError>, inbound: &Inbound) -> Result<Option<Vec<u8>>, Stop> {
    match packet {
        Ok(Packet::Data(data)) => Ok(Some(data)),
        Ok(Packet::Flush) => Ok(None),
        Ok(Packet::Delim | Packet::ResponseEnd) => Err(not_git()),
        Err(error) => Err(torn(&error, inbound)),
    }
}

fn not_git() -> Stop {
    Stop::Upstream(Failure::Ended("it does not speak git's protocol".into()))
}

/// An upstream that ended says why on the side, if it says it at all.
pub fn torn(error: &PacketError, inbound: &Inbound) -> Stop {
    match (error, inbound.ending().words()) {
        (PacketError::Closed | PacketError::Torn, words) => Stop::Upstream(Failure::Ended(words)),
        (PacketError::TooLong(limit), _) => {
            Stop::Refused(format!("the upstream's advert is over advert_bytes ({limit})"))
        }
        (error, _) => Stop::Upstream(Failure::Ended(error.to_string())),
    }
}

/// The hash function that capabilities name.
pub fn format_of(capabilities: &Capabilities) -> Result<Kind, Stop> {
    object_format(capabilities)
        .ok_or_else(|| Stop::Refused("the repository has an object format that is unknown".into()))
}

async fn relay_capabilities(agent: &mut Agent, inbound: &mut Inbound, packets: &mut Packets) -> Result<Kind, Stop> {
    let mut out = pktline::packet(b"version 2\n");
    let mut format = Kind::Sha1;
    loop {
        match packets.next(inbound).await {
            Ok(Packet::Data(data)) => {
                if let Some(name) = text(&data).strip_prefix(b"object-format=") {
                    format = format_of(&Capabilities::parse(&[b"object-format=", name].concat()))?;
                }
                if let Some(line) = v2_capability(&data) {
                    pktline::put(&mut out, format!("{line}\n").as_bytes());
                }
            }
            Ok(Packet::Flush) => break,
            Ok(Packet::Delim | Packet::ResponseEnd) => return Err(not_git()),
            Err(error) => return Err(torn(&error, inbound)),
        }
    }
    out.extend_from_slice(pktline::FLUSH);
    agent.writer.send(&out).await?;
    Ok(format)
}

/// Version 2: requests and answers in turn, until the agent has what it wants.
async fn requests(agent: &mut Agent, line: &mut dyn Line, format: Kind, limits: &Limits) -> Result<(), Stop> {
    let mut reader = v2::Reader::new(format, limits.ref_bytes);
    let mut packets = Packets::new(limits.fetch_request_bytes, seconds(limits.upstream_idle_seconds));
    loop {
        let packet = match agent.packet(&mut packets).await {
            Ok(packet) => packet,
            Err(PacketError::Closed) => return Ok(()),
            Err(PacketError::TooLong(limit)) => {
                return Err(Stop::Refused(format!("the requests are over fetch_request_bytes ({limit})")));
            }
            Err(error) => return Err(Stop::from_agent(error)),
        };
        match reader.packet(&packet).map_err(|error| Stop::Refused(error.to_string()))? {
            // A client may think between two requests, but not within one.
            v2::Step::More => packets.wait(seconds(limits.commands_seconds)),
            v2::Step::Goodbye => return Ok(()),
            v2::Step::Request(bytes) => {
                line.exchange(Upload::from(bytes)).await?;
                relay_answer(agent, line.inbound(), limits).await?;
                packets.wait(seconds(limits.upstream_idle_seconds));
            }
        }
    }
}

/// Relays up to and with the first flush.
async fn relay_answer(agent: &mut Agent, inbound: &mut Inbound, limits: &Limits) -> Result<(), Stop> {
    let mut follower = Follower::default();
    let mut begun = false;
    loop {
        let Some(mut chunk) = next_chunk(inbound, limits).await? else {
            let words = inbound.ending().words();
            return Err(if begun {
                Stop::Cut(format!("the upstream broke off: {words}"))
            } else {
                Stop::Upstream(Failure::Ended(words))
            });
        };
        begun = true;
        let end = follower.follow(&chunk).map_err(|error| Stop::Cut(error.to_string()))?;
        if let Some(end) = end {
            let rest = chunk.split_off(end);
            inbound.unread(rest);
        }
        agent.writer.send(&chunk).await?;
        if end.is_some() {
            return Ok(());
        }
    }
}

async fn next_chunk(inbound: &mut Inbound, limits: &Limits) -> Result<Option<bytes::Bytes>, Stop> {
    let within = seconds(limits.upstream_idle_seconds);
    let chunk = tokio::time::timeout(within, inbound.chunk()).await;
    chunk.map_err(|_| Stop::Cut(format!("nothing came from the upstream for {} seconds", within.as_secs())))
}

/// Versions 0 and 1 with an upstream that keeps state: both directions at once, each until its end.
async fn both_ways(
    agent: &mut Agent,
    line: &mut dyn Line,
    outbound: &Outbound,
    format: Kind,
    limits: &Limits,
) -> Result<(), Stop> {
    let Agent { reader, writer, .. } = agent;
    let mut steps = v0::Reader::new(format);
    let mut packets = Packets::new(limits.fetch_request_bytes, seconds(limits.upstream_idle_seconds));
    let up = async {
        loop {
            let packet = match packets.next(reader).await {
                Ok(packet) => packet,
                Err(PacketError::Closed) => return Ok(()),
                Err(error) => return Err(Stop::Cut(error.to_string())),
            };
            let step = steps.packet(&packet).map_err(|error| Stop::Cut(error.to_string()))?;
            let done = matches!(step, v0::Step::Done | v0::Step::Goodbye);
            let bytes = match step {
                v0::Step::Want { bytes, .. } | v0::Step::Have(bytes) => bytes,
                v0::Step::WantsEnd | v0::Step::HavesEnd | v0::Step::Goodbye => pktline::FLUSH.to_vec(),
                v0::Step::Done => pktline::packet(b"done\n"),
            };
            // An upstream that does not take it has ended, which the other direction sees.
            if outbound.send(bytes.into()).await.is_err() || done {
                return Ok(());
            }
        }
    };
    let down = async {
        while let Some(chunk) = next_chunk(line.inbound(), limits).await? {
            writer.send(&chunk).await?;
        }
        Ok(())
    };
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut down => return ended,
        ended = &mut up => ended?,
    }
    // Half closed: the answer is still to come.
    outbound.end().await;
    down.await
}

/// Versions 0 and 1 with a stateless upstream: every request says all that was said before.
async fn one_by_one(agent: &mut Agent, line: &mut dyn Line, format: Kind, limits: &Limits) -> Result<(), Stop> {
    // The rest of the advertisement.
    relay_answer(agent, line.inbound(), limits).await?;
    let mut steps = v0::Reader::new(format);
    let mut stateless = v0::Stateless::default();
    let mut packets = Packets::new(limits.fetch_request_bytes, seconds(limits.upstream_idle_seconds));
    loop {
        let packet = match agent.packet(&mut packets).await {
            Ok(packet) => packet,
            Err(PacketError::Closed) => return Ok(()),
            Err(error) => return Err(Stop::Cut(error.to_string())),
        };
        let step = steps.packet(&packet).map_err(|error| Stop::Refused(error.to_string()))?;
        let last = matches!(step, v0::Step::Done);
        if step == v0::Step::Goodbye {
            return Ok(());
        }
        let Some(ask) = stateless.step(step) else { continue };
        line.exchange(Upload::from(ask.body)).await?;
        answer(agent, line.inbound(), &mut stateless, (ask.shallow, ask.rest, last), limits).await?;
        if last {
            return Ok(());
        }
    }
}

/// Relays a stateless upstream's answer as one that keeps state would have given it.
async fn answer(
    agent: &mut Agent,
    inbound: &mut Inbound,
    stateless: &mut v0::Stateless,
    (shallow, rest, last): (v0::Shallow, bool, bool),
    limits: &Limits,
) -> Result<(), Stop> {
    let mut packets = Packets::new(u64::MAX, seconds(limits.upstream_idle_seconds));
    if shallow != v0::Shallow::None {
        shallow_section(agent, inbound, &mut packets, shallow).await?;
    }
    if rest {
        acknowledgements(agent, inbound, &mut packets, stateless, last).await?;
    }
    if last {
        // The pack.
        while let Some(chunk) = next_chunk(inbound, limits).await? {
            agent.writer.send(&chunk).await?;
        }
    }
    Ok(())
}

async fn shallow_section(
    agent: &mut Agent,
    inbound: &mut Inbound,
    packets: &mut Packets,
    shallow: v0::Shallow,
) -> Result<(), Stop> {
    loop {
        let packet = packets.next(inbound).await.map_err(|error| Stop::Cut(error.to_string()))?;
        let bytes = match &packet {
            Packet::Data(data) => pktline::packet(data),
            Packet::Flush => pktline::FLUSH.to_vec(),
            Packet::Delim | Packet::ResponseEnd => return Err(not_git()),
        };
        if shallow == v0::Shallow::Relay {
            agent.writer.send(&bytes).await?;
        }
        if packet == Packet::Flush {
            return Ok(());
        }
    }
}

async fn acknowledgements(
    agent: &mut Agent,
    inbound: &mut Inbound,
    packets: &mut Packets,
    stateless: &mut v0::Stateless,
    last: bool,
) -> Result<(), Stop> {
    loop {
        let data = match packets.next(inbound).await {
            Ok(Packet::Data(data)) => data,
            Err(PacketError::Closed) if !last => return Ok(()),
            Ok(Packet::Flush | Packet::Delim | Packet::ResponseEnd) => return Err(not_git()),
            Err(error) => return Err(Stop::Cut(error.to_string())),
        };
        if stateless.acknowledged(&data) {
            agent.writer.send(&pktline::packet(&data)).await?;
        }
        // The last acknowledgement has one object and no word behind it; what follows is the pack.
        let is_ack = data.starts_with(b"ACK ");
        let words = text(&data).split(|byte| *byte == b' ').count();
        if last && (!is_ack || words == 2) {
            return Ok(());
        }
    }
}
