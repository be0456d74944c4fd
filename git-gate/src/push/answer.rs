//! What an upstream answers to a push, read while it arrives: side bands (gitprotocol-pack(5), "Packfile Data") and the
//! report in them ("Report Status"). PURE.
//!
//! The report is kept back until it is complete. Half a report, passed on, would leave the client to guess.

use crate::pktline::{self, Head, PacketError, parse_head, text};

/// The longest report.
const REPORT_BYTES_MAX: usize = 8 << 20;

/// What is to be done with what just came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text for the person who pushes.
    Text(Vec<u8>),
    /// The upstream lives.
    Keepalive,
    /// The upstream gave up, with these words.
    Fatal(Vec<u8>),
    /// The whole report is there. Text may still follow: hooks that run after a push speak then.
    Report(Report),
    /// Nothing more will come.
    End,
}

/// A complete report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Its packets as they came, flush included.
    pub bytes: Vec<u8>,
    /// `ok`, or why the pack was not unpacked.
    pub unpack: String,
    /// What became of each ref: its name, and why not when it did not.
    pub refs: Vec<(String, Option<String>)>,
}

/// Why an answer cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Not packets.
    #[error(transparent)]
    Packet(#[from] PacketError),
    /// Not a side band that there is.
    #[error("the upstream's answer is none of git's protocol")]
    Malformed,
}

/// Reads an answer.
#[derive(Debug)]
pub struct Reader {
    side_band: bool,
    outer: Vec<u8>,
    inner: Vec<u8>,
    reported: bool,
    done: bool,
}

impl Reader {
    /// For an answer with side bands, or one that is the report alone.
    pub fn new(side_band: bool) -> Self {
        Self { side_band, outer: Vec::new(), inner: Vec::new(), reported: false, done: false }
    }

    /// Takes the next bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Vec<Part>, AnswerError> {
        let mut parts = Vec::new();
        if self.done {
            return Ok(parts);
        }
        if !self.side_band {
            self.inner.extend_from_slice(bytes);
            self.report(&mut parts)?;
            if self.reported {
                self.done = true;
                parts.push(Part::End);
            }
            return Ok(parts);
        }
        self.outer.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((head, length)) = packet_at(&self.outer[at..])? {
            let data = &self.outer[at + 4..at + length];
            match head {
                Head::Flush => {
                    // The end of the side bands; without a report in them there will be none.
                    self.done = true;
                    parts.push(Part::End);
                    return Ok(parts);
                }
                Head::Delim | Head::ResponseEnd => return Err(AnswerError::Malformed),
                Head::Data(_) => match data.split_first() {
                    Some((1, [])) => parts.push(Part::Keepalive),
                    // A second report would be one too many.
                    Some((1, _)) if self.reported => return Err(AnswerError::Malformed),
                    Some((1, rest)) => {
                        self.inner.extend_from_slice(rest);
                        at += length;
                        self.report(&mut parts)?;
                        continue;
                    }
                    Some((2, rest)) => parts.push(Part::Text(rest.to_vec())),
                    Some((3, rest)) => {
                        parts.extend([Part::Fatal(rest.to_vec()), Part::End]);
                        self.done = true;
                        return Ok(parts);
                    }
                    _ => return Err(AnswerError::Malformed),
                },
            }
            at += length;
        }
        self.outer.drain(..at);
        Ok(parts)
    }

    fn report(&mut self, parts: &mut Vec<Part>) -> Result<(), AnswerError> {
        if self.inner.len() > REPORT_BYTES_MAX {
            return Err(AnswerError::Malformed);
        }
        let mut lines: Vec<&[u8]> = Vec::new();
        let mut at = 0;
        loop {
            let Some((head, length)) = packet_at(&self.inner[at..])? else { return Ok(()) };
            match head {
                Head::Data(_) => lines.push(text(&self.inner[at + 4..at + length])),
                Head::Flush => {
                    at += length;
                    break;
                }
                Head::Delim | Head::ResponseEnd => return Err(AnswerError::Malformed),
            }
            at += length;
        }
        let mut lines = lines.into_iter().map(|line| String::from_utf8_lossy(line).into_owned());
        let first = lines.next().ok_or(AnswerError::Malformed)?;
        let unpack = first.strip_prefix("unpack ").ok_or(AnswerError::Malformed)?.to_owned();
        let mut refs = Vec::new();
        for line in lines {
            match line.split_once(' ') {
                Some(("ok", name)) => refs.push((name.to_owned(), None)),
                Some(("ng", rest)) => {
                    let (name, why) = rest.split_once(' ').unwrap_or((rest, "failed"));
                    refs.push((name.to_owned(), Some(why.to_owned())));
                }
                // Of version 2: what the upstream made of the ref above.
                Some(("option", _)) if !refs.is_empty() => {}
                _ => return Err(AnswerError::Malformed),
            }
        }
        self.reported = true;
        parts.push(Part::Report(Report { bytes: self.inner[..at].to_vec(), unpack, refs }));
        Ok(())
    }
}

/// The first packet in `bytes`, if it is there as a whole: its head and its length with the head.
fn packet_at(bytes: &[u8]) -> Result<Option<(Head, usize)>, PacketError> {
    let Some(digits) = bytes.first_chunk::<4>() else { return Ok(None) };
    let head = parse_head(*digits)?;
    let length = match head {
        Head::Data(length) => length + 4,
        Head::Flush | Head::Delim | Head::ResponseEnd => 4,
    };
    Ok((bytes.len() >= length).then_some((head, length)))
}

/// A report of the gate's own: `unpack <unpack>` and the same reason for every ref.
pub fn own_report(unpack: &str, refs: impl Iterator<Item = (String, String)>) -> Vec<u8> {
    let mut out = Vec::new();
    pktline::put(&mut out, format!("unpack {unpack}\n").as_bytes());
    for (name, reason) in refs {
        pktline::put(&mut out, format!("ng {name} {reason}\n").as_bytes());
    }
    out.extend_from_slice(pktline::FLUSH);
    out
}

/// A report as the client gets it: in band 1 and with the flush that ends the bands, or bare.
pub fn framed(report: &[u8], side_band: bool) -> Vec<u8> {
    if !side_band {
        return report.to_vec();
    }
    let mut out = Vec::new();
    band(&mut out, 1, report);
    out.extend_from_slice(pktline::FLUSH);
    out
}

/// Adds `data` to `out` in a side band.
pub fn band(out: &mut Vec<u8>, number: u8, data: &[u8]) {
    for part in data.chunks(pktline::DATA_BYTES_MAX - 1) {
        out.extend_from_slice(format!("{:04x}", part.len() + 5).as_bytes());
        out.push(number);
        out.extend_from_slice(part);
    }
}

/// Band 1 with nothing in it: the gate lives.
pub const KEEPALIVE: &[u8] = b"0005\x01";

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Vec<u8> {
        let mut out = Vec::new();
        for line in ["unpack ok\n", "ok refs/heads/a\n", "option refname refs/x\n", "ng refs/heads/b hook declined\n"] {
            pktline::put(&mut out, line.as_bytes());
        }
        out.extend_from_slice(b"0000");
        out
    }

    fn wanted() -> Part {
        Part::Report(Report {
            bytes: report(),
            unpack: "ok".into(),
            refs: vec![("refs/heads/a".into(), None), ("refs/heads/b".into(), Some("hook declined".into()))],
        })
    }

    #[test]
    fn an_answer_is_read_however_it_arrives() {
        let mut answer = Vec::new();
        band(&mut answer, 2, b"hello\n");
        answer.extend_from_slice(KEEPALIVE);
        let (head, tail) = (&report()[..20], &report()[20..]);
        band(&mut answer, 1, head);
        band(&mut answer, 2, b"bye\n");
        band(&mut answer, 1, tail);
        band(&mut answer, 2, b"hook\n");
        answer.extend_from_slice(b"0000");
        let text = |text: &[u8]| Part::Text(text.into());
        let parts = [text(b"hello\n"), Part::Keepalive, text(b"bye\n"), wanted(), text(b"hook\n"), Part::End];
        for size in 1..answer.len() {
            let mut reader = Reader::new(true);
            let seen: Vec<Part> = answer.chunks(size).flat_map(|chunk| reader.take(chunk).unwrap()).collect();
            assert_eq!(seen, parts, "chunks of {size}");
        }
        let mut bare = Reader::new(false);
        assert_eq!(bare.take(&report()[..30]).unwrap(), []);
        assert_eq!(bare.take(&report()[30..]).unwrap(), [wanted(), Part::End]);
    }

    #[test]
    fn half_a_report_is_none() {
        let whole = report();
        for end in 0..whole.len() {
            let mut answer = Vec::new();
            band(&mut answer, 1, &whole[..end]);
            answer.extend_from_slice(b"0000");
            let parts = Reader::new(true).take(&answer).unwrap();
            assert!(!parts.iter().any(|part| matches!(part, Part::Report(_))), "the first {end} bytes");
        }
    }

    #[test]
    fn a_fatal_band_ends_it() {
        let mut answer = Vec::new();
        band(&mut answer, 3, b"no space");
        band(&mut answer, 1, &report());
        assert_eq!(Reader::new(true).take(&answer).unwrap(), [Part::Fatal(b"no space".into()), Part::End]);
    }

    #[test]
    fn what_is_no_answer() {
        for answer in ["000a\x09hello", "zzzz", "0001", "0004", "0012\x010009ok a\n0000"] {
            assert!(Reader::new(true).take(answer.as_bytes()).is_err(), "{answer:?}");
        }
    }

    #[test]
    fn an_own_report_reads_like_any() {
        let own = own_report("ok", [("refs/heads/a".to_owned(), "no".to_owned())].into_iter());
        let parts = Reader::new(true).take(&framed(&own, true)).unwrap();
        let Some(Part::Report(report)) = parts.first() else { panic!("{parts:?}") };
        assert_eq!(report.refs, [("refs/heads/a".to_owned(), Some("no".to_owned()))]);
    }
}
