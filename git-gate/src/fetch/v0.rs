//! Requests of protocol versions 0 and 1 (gitprotocol-pack(5), "Packfile Negotiation"), line by line, and what makes of
//! one conversation the single requests of a stateless upstream. PURE.

use super::v2::{is_filter, is_number, is_oid};
use crate::advert::{AGENT, Capabilities};
use crate::pktline::{self, Packet, text};
use gix_hash::{Kind, ObjectId};
use std::collections::HashSet;

/// What a client may ask of an upload-pack; the rest of what it says is left out or refused.
const CAPABILITIES: [&str; 14] = [
    "multi_ack",
    "multi_ack_detailed",
    "no-done",
    "thin-pack",
    "side-band",
    "side-band-64k",
    "ofs-delta",
    "no-progress",
    "include-tag",
    "filter",
    "deepen-since",
    "deepen-not",
    "deepen-relative",
    "shallow",
];

/// A line that is no part of a negotiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request has a line that is not offered")]
pub struct LineError;

/// Where a conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Wants,
    Haves,
    Done,
}

/// Reads a client's packets.
#[derive(Debug)]
pub struct Reader {
    format: Kind,
    section: Section,
    wants: usize,
}

/// What a packet was; its bytes are for the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A want, shallow, deepen or filter line.
    Want {
        /// The packet.
        bytes: Vec<u8>,
        /// Does it ask for a shallow repository, so that the upstream answers before the haves?
        deepens: bool,
    },
    /// The flush behind the wants.
    WantsEnd,
    /// A have line.
    Have(Vec<u8>),
    /// The flush behind some haves.
    HavesEnd,
    /// `done`: the pack is to come.
    Done,
    /// A flush without a want: the client is done.
    Goodbye,
}

impl Reader {
    /// For a repository of this `format`.
    pub fn new(format: Kind) -> Self {
        Self { format, section: Section::Wants, wants: 0 }
    }

    /// Takes the next packet.
    pub fn packet(&mut self, packet: &Packet) -> Result<Step, LineError> {
        let data = match (packet, self.section) {
            (Packet::Data(data), _) => data,
            (Packet::Flush, Section::Wants) if self.wants == 0 => return Ok(Step::Goodbye),
            (Packet::Flush, Section::Wants) => {
                self.section = Section::Haves;
                return Ok(Step::WantsEnd);
            }
            (Packet::Flush, Section::Haves) => return Ok(Step::HavesEnd),
            (Packet::Flush | Packet::Delim | Packet::ResponseEnd, _) => return Err(LineError),
        };
        let line = text(data);
        let (name, value) = match line.iter().position(|byte| *byte == b' ') {
            Some(space) => (&line[..space], &line[space + 1..]),
            None => (line, &[][..]),
        };
        match (self.section, name) {
            (Section::Wants, b"want") => self.want(value),
            (Section::Wants, b"shallow") if is_oid(value, self.format) => Ok(keep(line, false)),
            (Section::Wants, b"deepen" | b"deepen-since") if is_number(value) => Ok(keep(line, true)),
            (Section::Wants, b"deepen-not") if is_name(value) => Ok(keep(line, true)),
            (Section::Wants, b"filter") if is_filter(value) => Ok(keep(line, false)),
            (Section::Haves, b"have") if is_oid(value, self.format) => {
                Ok(Step::Have(pktline::packet(&[line, b"\n"].concat())))
            }
            (Section::Haves, b"done") if value.is_empty() => {
                self.section = Section::Done;
                Ok(Step::Done)
            }
            _ => Err(LineError),
        }
    }

    fn want(&mut self, value: &[u8]) -> Result<Step, LineError> {
        let hex = self.format.len_in_hex().min(value.len());
        let (oid, rest) = value.split_at(hex);
        if !is_oid(oid, self.format) || (!rest.is_empty() && (self.wants > 0 || rest[0] != b' ')) {
            return Err(LineError);
        }
        let mut line = [b"want ", oid].concat();
        if self.wants == 0 {
            let asked = Capabilities::parse(rest);
            let format = format!("object-format={}", self.format);
            for word in asked.iter() {
                if CAPABILITIES.contains(&word) || word == format {
                    line.push(b' ');
                    line.extend_from_slice(word.as_bytes());
                } else if !word.starts_with("agent=") && !word.starts_with("session-id=") {
                    return Err(LineError);
                }
            }
            if asked.has("agent") {
                line.extend_from_slice(format!(" agent={AGENT}").as_bytes());
            }
        }
        self.wants += 1;
        Ok(keep(&line, false))
    }
}

fn keep(line: &[u8], deepens: bool) -> Step {
    Step::Want { bytes: pktline::packet(&[line, b"\n"].concat()), deepens }
}

fn is_name(name: &[u8]) -> bool {
    name.len() <= 1024 && std::str::from_utf8(name).is_ok_and(|text| !text.chars().any(char::is_control))
}

/// Keeps what a stateless upstream must be told again with every request.
#[derive(Debug, Default)]
pub struct Stateless {
    wants: Vec<u8>,
    deepens: bool,
    common: Vec<ObjectId>,
    known: HashSet<ObjectId>,
    haves: Vec<u8>,
    shallow_told: bool,
}

/// What is to be asked, and which part of the answer the client gets.
#[derive(Debug, PartialEq, Eq)]
pub struct Ask {
    /// The request.
    pub body: Vec<u8>,
    /// A part of the answer that comes first: the shallow section.
    pub shallow: Shallow,
    /// Does the client get what follows it?
    pub rest: bool,
}

/// Whether an answer begins with a shallow section, and whom it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shallow {
    /// It has none.
    None,
    /// It is for the client.
    Relay,
    /// The client has it already.
    Drop,
}

impl Stateless {
    /// Takes a step of the client's; `Some` when the upstream must be asked now.
    pub fn step(&mut self, step: Step) -> Option<Ask> {
        match step {
            Step::Want { bytes, deepens } => {
                self.wants.extend_from_slice(&bytes);
                self.deepens |= deepens;
                None
            }
            // Such a client reads the shallow section before it goes on; others go on at once.
            Step::WantsEnd if self.deepens => {
                self.shallow_told = true;
                let body = [&self.wants[..], pktline::FLUSH].concat();
                Some(Ask { body, shallow: Shallow::Relay, rest: false })
            }
            Step::WantsEnd | Step::Goodbye => None,
            Step::Have(bytes) => {
                self.haves.extend_from_slice(&bytes);
                None
            }
            Step::HavesEnd => Some(self.ask(pktline::FLUSH)),
            Step::Done => Some(self.ask(&pktline::packet(b"done\n"))),
        }
    }

    fn ask(&mut self, end: &[u8]) -> Ask {
        let mut body = [&self.wants[..], pktline::FLUSH].concat();
        for oid in &self.common {
            pktline::put(&mut body, format!("have {oid}\n").as_bytes());
        }
        body.append(&mut self.haves);
        body.extend_from_slice(end);
        let shallow = if self.shallow_told { Shallow::Drop } else { Shallow::None };
        Ask { body, shallow, rest: true }
    }

    /// Looks at a line of an answer's acknowledgements: does the client get it? What the upstream has in common is told
    /// once, as an upstream with a memory would do.
    pub fn acknowledged(&mut self, data: &[u8]) -> bool {
        let line = text(data);
        let Some(rest) = line.strip_prefix(b"ACK ") else { return true };
        let mut words = rest.split(|byte| *byte == b' ');
        let oid = words.next().and_then(|hex| ObjectId::from_hex(hex).ok());
        match (oid, words.next()) {
            (Some(oid), Some(b"common" | b"continue")) => {
                let is_new = self.known.insert(oid);
                if is_new {
                    self.common.push(oid);
                }
                is_new
            }
            (Some(oid), Some(b"ready")) => {
                if self.known.insert(oid) {
                    self.common.push(oid);
                }
                true
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "1111111111111111111111111111111111111111";
    const B: &str = "2222222222222222222222222222222222222222";

    fn data(line: &str) -> Packet {
        Packet::Data(line.as_bytes().to_vec())
    }

    fn read(packets: &[Packet]) -> Result<Vec<Step>, LineError> {
        let mut reader = Reader::new(Kind::Sha1);
        packets.iter().map(|packet| reader.packet(packet)).collect()
    }

    #[test]
    fn lines_and_their_refused_neighbours() {
        let want = format!("want {A} side-band-64k\n");
        for (packets, passes) in [
            (vec![data(&want), data(&format!("want {B}\n")), Packet::Flush, data("done\n")], true),
            (vec![data(&want), data("deepen 1"), Packet::Flush, data(&format!("have {A}\n")), Packet::Flush], true),
            (vec![data(&want), data("filter blob:none"), data(&format!("shallow {A}"))], true),
            (vec![Packet::Flush], true),
            (vec![data(&format!("want {A} unknown"))], false),
            (vec![data(&want), data(&want)], false),
            (vec![data(&format!("want {A}x"))], false),
            (vec![data("want")], false),
            (vec![data(&format!("have {A}"))], false),
            (vec![data(&want), data("done")], false),
            (vec![data(&want), Packet::Flush, data("done"), data("done")], false),
            (vec![data(&want), Packet::Flush, data("exfiltrated")], false),
            (vec![data(&want), Packet::Flush, data("done exfiltrated")], false),
            (vec![Packet::Delim], false),
        ] {
            assert_eq!(read(&packets).is_ok(), passes, "{packets:?}");
        }
        let steps = read(&[data(&format!("want {A} thin-pack agent=x session-id=y"))]).unwrap();
        let line = format!("want {A} thin-pack agent={AGENT}\n");
        assert_eq!(steps, [Step::Want { bytes: pktline::packet(line.as_bytes()), deepens: false }]);
    }

    #[test]
    fn every_stateless_request_stands_alone() {
        let want = || Step::Want { bytes: b"W".into(), deepens: false };
        let mut stateless = Stateless::default();
        assert_eq!(stateless.step(want()), None);
        assert_eq!(stateless.step(Step::WantsEnd), None);
        assert_eq!(stateless.step(Step::Have(b"H1".into())), None);
        let ask = stateless.step(Step::HavesEnd).unwrap();
        assert_eq!(ask, Ask { body: b"W0000H10000".into(), shallow: Shallow::None, rest: true });
        assert!(stateless.acknowledged(format!("ACK {A} common\n").as_bytes()));
        assert!(stateless.acknowledged(b"NAK\n"));
        stateless.step(Step::Have(b"H2".into()));
        let ask = stateless.step(Step::HavesEnd).unwrap();
        assert_eq!(ask.body, format!("W00000032have {A}\nH20000").as_bytes());
        assert!(!stateless.acknowledged(format!("ACK {A} common\n").as_bytes()), "told once");
        assert!(stateless.acknowledged(format!("ACK {B} ready\n").as_bytes()));
        let ask = stateless.step(Step::Done).unwrap();
        assert_eq!(ask.body, format!("W00000032have {A}\n0032have {B}\n0009done\n").as_bytes());
        assert!(stateless.acknowledged(format!("ACK {A}\n").as_bytes()));
    }

    #[test]
    fn the_shallow_section_is_told_once() {
        let mut stateless = Stateless::default();
        stateless.step(Step::Want { bytes: b"W".into(), deepens: true });
        let ask = stateless.step(Step::WantsEnd).unwrap();
        assert_eq!(ask, Ask { body: b"W0000".into(), shallow: Shallow::Relay, rest: false });
        let ask = stateless.step(Step::Done).unwrap();
        assert_eq!((ask.shallow, ask.rest), (Shallow::Drop, true));
    }
}
