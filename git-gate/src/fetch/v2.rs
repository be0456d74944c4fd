//! Requests of protocol version 2 (gitprotocol-v2(5)), read by an allow-list: what an agent can say to an upstream in a
//! fetch is which refs and objects it wants and has, and nothing else. PURE.

use crate::advert::AGENT;
use crate::pktline::{self, Packet, text};
use crate::policy::RefName;
use gix_hash::{Kind, ObjectId};

/// Why a request is refused; the words go to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Not a command that is relayed.
    #[error("this command of git's protocol is not offered")]
    Command,
    /// A line that the command does not have.
    #[error("the request has a line that is not offered")]
    Line,
    /// Packets in an order that no request has.
    #[error("the request cannot be read")]
    Malformed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    LsRefs,
    Fetch,
    ObjectInfo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Start,
    Capabilities(Command),
    Arguments(Command),
}

/// Reads one request and writes it anew.
#[derive(Debug)]
pub struct Reader {
    format: Kind,
    ref_bytes_max: u64,
    section: Section,
    out: Vec<u8>,
}

/// What a packet was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// More is to come.
    More,
    /// A whole request, as the upstream is to get it.
    Request(Vec<u8>),
    /// A flush by itself: the client is done.
    Goodbye,
}

impl Reader {
    /// For a repository of this `format`.
    pub fn new(format: Kind, ref_bytes_max: u64) -> Self {
        Self { format, ref_bytes_max, section: Section::Start, out: Vec::new() }
    }

    /// Takes the next packet.
    pub fn packet(&mut self, packet: &Packet) -> Result<Step, RequestError> {
        match (packet, self.section) {
            (Packet::Flush, Section::Start) => return Ok(Step::Goodbye),
            (Packet::Flush, Section::Capabilities(_) | Section::Arguments(_)) => {
                self.out.extend_from_slice(pktline::FLUSH);
                self.section = Section::Start;
                return Ok(Step::Request(std::mem::take(&mut self.out)));
            }
            (Packet::Delim, Section::Capabilities(command)) => {
                self.out.extend_from_slice(pktline::DELIM);
                self.section = Section::Arguments(command);
            }
            (Packet::Data(data), Section::Start) => {
                let command = match text(data) {
                    b"command=ls-refs" => Command::LsRefs,
                    b"command=fetch" => Command::Fetch,
                    b"command=object-info" => Command::ObjectInfo,
                    _ => return Err(RequestError::Command),
                };
                pktline::put(&mut self.out, text(data));
                pktline::put(&mut self.out, format!("agent={AGENT}").as_bytes());
                self.section = Section::Capabilities(command);
            }
            (Packet::Data(data), Section::Capabilities(_)) => self.capability(text(data))?,
            (Packet::Data(data), Section::Arguments(command)) => {
                let line = text(data);
                if !self.is_argument(command, line) {
                    return Err(RequestError::Line);
                }
                pktline::put(&mut self.out, data);
            }
            (Packet::Delim | Packet::ResponseEnd, _) => return Err(RequestError::Malformed),
        }
        Ok(Step::More)
    }

    fn capability(&mut self, line: &[u8]) -> Result<(), RequestError> {
        let name = line.split(|byte| *byte == b'=').next().unwrap_or_default();
        match name {
            // Ours stands there already.
            b"agent" => Ok(()),
            // They say nothing about objects: an upstream does not need them, and an agent could say much by them.
            b"session-id" | b"server-option" => Ok(()),
            b"object-format" if line == format!("object-format={}", self.format).as_bytes() => {
                pktline::put(&mut self.out, line);
                Ok(())
            }
            _ => Err(RequestError::Line),
        }
    }

    fn is_argument(&self, command: Command, line: &[u8]) -> bool {
        let (name, value) = match line.iter().position(|byte| *byte == b' ') {
            Some(space) => (&line[..space], Some(&line[space + 1..])),
            None => (line, None),
        };
        match (command, name, value) {
            (Command::LsRefs, b"peel" | b"symrefs" | b"unborn", None) => true,
            (Command::LsRefs, b"ref-prefix", Some(prefix)) => self.is_prefix(prefix),
            (
                Command::Fetch,
                b"done" | b"thin-pack" | b"no-progress" | b"include-tag" | b"ofs-delta" | b"deepen-relative"
                | b"sideband-all" | b"wait-for-done",
                None,
            ) => true,
            (Command::Fetch, b"want" | b"have" | b"shallow", Some(oid)) => self.is_oid(oid),
            (Command::Fetch, b"want-ref", Some(name)) => self.is_ref(name),
            (Command::Fetch, b"deepen" | b"deepen-since", Some(number)) => is_number(number),
            (Command::Fetch, b"deepen-not", Some(name)) => self.is_prefix(name),
            (Command::Fetch, b"filter", Some(filter)) => is_filter(filter),
            (Command::ObjectInfo, b"size", None) => true,
            (Command::ObjectInfo, b"oid", Some(oid)) => self.is_oid(oid),
            _ => false,
        }
    }

    fn is_oid(&self, hex: &[u8]) -> bool {
        is_oid(hex, self.format)
    }

    fn is_ref(&self, name: &[u8]) -> bool {
        name == b"HEAD" || RefName::parse(name, self.ref_bytes_max).is_some()
    }

    /// The beginning of a ref's name, which is not always a name: git asks for `refs/tags/` and for `main` too.
    fn is_prefix(&self, prefix: &[u8]) -> bool {
        let text = std::str::from_utf8(prefix).is_ok_and(|text| !text.chars().any(char::is_control));
        text && prefix.len() as u64 <= self.ref_bytes_max
    }
}

/// An object's whole name?
pub(super) fn is_oid(hex: &[u8], format: Kind) -> bool {
    ObjectId::from_hex(hex).is_ok_and(|oid| oid.kind() == format)
}

/// A number of at most 19 digits, with a sign in front at most.
pub(super) fn is_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    (1..=19).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
}

/// A filter (git-rev-list(1), `--filter`): words, numbers and object names.
pub(super) fn is_filter(text: &[u8]) -> bool {
    let is_char = |byte: &u8| byte.is_ascii_alphanumeric() || b":=-_+,./%@".contains(byte);
    let known = [&b"blob:"[..], b"tree:", b"object:type=", b"sparse:oid=", b"combine:"];
    text.len() <= 1024 && text.iter().all(is_char) && known.iter().any(|prefix| text.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OID: &str = "1111111111111111111111111111111111111111";

    fn data(line: &str) -> Packet {
        Packet::Data(line.as_bytes().to_vec())
    }

    fn read(packets: &[Packet]) -> Result<Step, RequestError> {
        let mut reader = Reader::new(Kind::Sha1, 1024);
        let mut last = Step::More;
        for packet in packets {
            last = reader.packet(packet)?;
        }
        Ok(last)
    }

    #[test]
    fn a_request_is_written_anew() {
        let packets = [
            data("command=fetch\n"),
            data("agent=git/2 exfiltrated\n"),
            data("session-id=exfiltrated"),
            data("server-option=exfiltrated"),
            data("object-format=sha1\n"),
            Packet::Delim,
            data("ofs-delta\n"),
            data(&format!("want {OID}\n")),
            data("done\n"),
            Packet::Flush,
        ];
        let Ok(Step::Request(bytes)) = read(&packets) else { panic!("refused") };
        let mut wanted = Vec::new();
        for line in ["command=fetch", &format!("agent={AGENT}"), "object-format=sha1"] {
            pktline::put(&mut wanted, line.as_bytes());
        }
        wanted.extend_from_slice(b"0001");
        for line in ["ofs-delta\n", &format!("want {OID}\n"), "done\n"] {
            pktline::put(&mut wanted, line.as_bytes());
        }
        wanted.extend_from_slice(b"0000");
        assert_eq!(String::from_utf8_lossy(&bytes), String::from_utf8_lossy(&wanted));
        assert_eq!(read(&[Packet::Flush]), Ok(Step::Goodbye));
    }

    #[test]
    fn arguments_and_their_refused_neighbours() {
        let long = "x".repeat(1025);
        for (command, line, passes) in [
            ("ls-refs", "peel", true),
            ("ls-refs", "symrefs", true),
            ("ls-refs", "unborn", true),
            ("ls-refs", "ref-prefix refs/heads/", true),
            ("ls-refs", "ref-prefix main", true),
            ("ls-refs", "ref-prefix a\x1bb", false),
            ("ls-refs", &format!("ref-prefix {long}"), false),
            ("ls-refs", "peel x", false),
            ("ls-refs", &format!("want {OID}"), false),
            ("fetch", &format!("have {OID}"), true),
            ("fetch", &format!("have {OID} x"), false),
            ("fetch", "have 1234", false),
            ("fetch", &format!("want {}", "1".repeat(64)), false),
            ("fetch", "want-ref refs/heads/main", true),
            ("fetch", "want-ref ../x", false),
            ("fetch", &format!("shallow {OID}"), true),
            ("fetch", "deepen 1", true),
            ("fetch", "deepen 0x1", false),
            ("fetch", "deepen-since 1700000000", true),
            ("fetch", "deepen-not refs/heads/main", true),
            ("fetch", "deepen-relative", true),
            ("fetch", "filter blob:none", true),
            ("fetch", "filter combine:tree:0+blob:limit=1k", true),
            ("fetch", "filter x:none", false),
            ("fetch", "filter blob:none exfiltrated", false),
            ("fetch", "sideband-all", true),
            ("fetch", "wait-for-done", true),
            ("fetch", "packfile-uris https", false),
            ("fetch", "thin-pack", true),
            ("fetch", "unknown", false),
            ("object-info", "size", true),
            ("object-info", &format!("oid {OID}"), true),
            ("object-info", "oid x", false),
        ] {
            let packets = [data(&format!("command={command}")), Packet::Delim, data(line), Packet::Flush];
            assert_eq!(read(&packets).is_ok(), passes, "{command}: {line:?}");
        }
    }

    #[test]
    fn commands_capabilities_and_order() {
        for (packets, wanted) in [
            (vec![data("command=bundle-uri")], RequestError::Command),
            (vec![data("want x")], RequestError::Command),
            (vec![Packet::Delim], RequestError::Malformed),
            (vec![Packet::ResponseEnd], RequestError::Malformed),
            (vec![data("command=fetch"), data("object-format=sha256")], RequestError::Line),
            (vec![data("command=fetch"), data("x")], RequestError::Line),
            (vec![data("command=fetch"), Packet::Delim, Packet::Delim], RequestError::Malformed),
        ] {
            assert_eq!(read(&packets), Err(wanted), "{packets:?}");
        }
    }
}
