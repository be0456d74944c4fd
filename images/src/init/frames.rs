//! Reads the keeper's frames from a stream, however it is cut into pieces. It must never guess where a frame ends: what
//! cannot be told apart is [`Broken`], and the container ends.

use super::{FILE_BYTES_MAX, Frame, LINE_BYTES_MAX, PATH_BYTES_MAX, clean};
use std::io::{self, BufRead, BufReader, Read};

/// Names in DNS are no longer than this.
const HOST_BYTES_MAX: usize = 253;

/// One frame, read to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Order {
    /// Carry it out.
    Do(Frame),
    /// It was well formed and asks for what is not done; the next frame begins where it should.
    Refused(String),
}

/// Why nothing more can be read from the stream.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken(pub String);

/// The frames of a stream.
pub struct Frames<R> {
    input: BufReader<R>,
}

impl<R: Read> Frames<R> {
    /// Nothing is read yet.
    pub fn of(input: R) -> Self {
        Self { input: BufReader::new(input) }
    }

    /// Waits for the next frame; `None` at the end of input, in the middle of a frame too: whoever sent it is gone, and
    /// half a frame is none.
    pub fn read(&mut self) -> Result<Option<Order>, Broken> {
        let Some(line) = self.line()? else { return Ok(None) };
        match line.split_once(' ') {
            None if line == "run" => Ok(Some(Order::Do(Frame::Run))),
            None if line == "restart" => Ok(Some(Order::Do(Frame::Restart))),
            None if line == "drain" => Ok(Some(Order::Do(Frame::Drain))),
            Some(("probe", target)) => Ok(Some(probe(target))),
            Some(("file", rest)) => self.file(rest),
            // It may be followed by bytes that look like frames.
            _ => Err(Broken(format!("there is no such order: {:?}", clean(&line)))),
        }
    }

    fn line(&mut self) -> Result<Option<String>, Broken> {
        let mut line = Vec::new();
        let mut input = (&mut self.input).take(LINE_BYTES_MAX as u64);
        match input.read_until(b'\n', &mut line) {
            Err(_) => return Ok(None), // a stream that cannot be read has ended
            Ok(_) if line.last() == Some(&b'\n') => line.pop(),
            Ok(count) if count == LINE_BYTES_MAX => {
                return Err(Broken(format!("a line is longer than {LINE_BYTES_MAX} bytes")));
            }
            Ok(_) => return Ok(None),
        };
        String::from_utf8(line).map(Some).map_err(|_| Broken("a line is not UTF-8".into()))
    }

    fn file(&mut self, rest: &str) -> Result<Option<Order>, Broken> {
        let mut words = rest.splitn(3, ' ');
        let (mode, length, path) = (words.next(), words.next(), words.next());
        let length: u64 =
            length.and_then(|length| length.parse().ok()).ok_or_else(|| Broken("a file's length is missing".into()))?;
        let checked = check_file(mode.unwrap_or_default(), length, path.unwrap_or_default());
        let mut body = (&mut self.input).take(length);
        match checked {
            Ok((mode, path)) => {
                let mut bytes = Vec::new();
                match body.read_to_end(&mut bytes) {
                    Ok(count) if count as u64 == length => Ok(Some(Order::Do(Frame::File { path, mode, bytes }))),
                    Ok(_) | Err(_) => Ok(None),
                }
            }
            Err(reason) => match io::copy(&mut body, &mut io::sink()) {
                Ok(count) if count == length => Ok(Some(Order::Refused(reason))),
                Ok(_) | Err(_) => Ok(None),
            },
        }
    }
}

fn check_file(mode: &str, length: u64, path: &str) -> Result<(u32, String), String> {
    let mode = u32::from_str_radix(mode, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("{:?} is not a file's mode", clean(mode)))?;
    if length > FILE_BYTES_MAX as u64 {
        return Err(format!("a file of {length} bytes is larger than {FILE_BYTES_MAX}"));
    }
    let plain = path.len() <= PATH_BYTES_MAX
        && clean(path).chars().eq(path.chars().take(super::TEXT_CHARS_MAX))
        && !path.chars().any(char::is_control)
        && path.strip_prefix('/').is_some_and(|p| p.split('/').all(|part| !matches!(part, "" | "." | "..")));
    if plain { Ok((mode, path.to_owned())) } else { Err(format!("{:?} is not a plain absolute path", clean(path))) }
}

fn probe(target: &str) -> Order {
    let host = |host: &str| {
        !host.is_empty()
            && host.len() <= HOST_BYTES_MAX
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    match target.rsplit_once(':') {
        Some((name, port)) if host(name) && port.parse::<u16>().is_ok_and(|port| port != 0) => {
            Order::Do(Frame::Probe(target.to_owned()))
        }
        _ => Order::Refused(format!("{:?} is not host:port", clean(target))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte at a time, as a slow pipe may.
    struct Drip<'a>(&'a [u8]);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.0.len().min(buffer.len()).min(1);
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn file(path: &str, bytes: &[u8]) -> Frame {
        Frame::File { path: path.into(), mode: 0o600, bytes: bytes.into() }
    }

    #[test]
    fn frames_survive_the_wire_in_any_pieces() {
        let sent = [
            file("/etc/pipelock/pipelock.yaml", b"a: 1\nrun\n\0\xff"),
            file("/etc/pipelock/a name", b""),
            Frame::Run,
            Frame::Probe("crates.example.org:443".into()),
            Frame::Restart,
            Frame::Drain,
        ];
        let bytes: Vec<u8> = sent.iter().flat_map(Frame::encode).collect();
        let read = |input: &mut dyn Read| {
            let mut frames = Frames::of(input);
            let mut got = Vec::new();
            while let Some(order) = frames.read().unwrap() {
                got.push(order);
            }
            got
        };
        let expected: Vec<_> = sent.into_iter().map(Order::Do).collect();
        assert_eq!(read(&mut &bytes[..]), expected);
        assert_eq!(read(&mut Drip(&bytes)), expected);
    }

    #[test]
    fn refused_frames_leave_the_stream_in_step() {
        let large = FILE_BYTES_MAX + 1;
        let long = format!("/{}", "x".repeat(PATH_BYTES_MAX));
        for (line, body) in [
            ("file 600 4 relative", 4),
            ("file 600 4 /a/../b", 4),
            ("file 600 4 /a/", 4),
            ("file 600 4 /", 4),
            ("file 600 4 //a", 4),
            ("file 600 4 /a\u{1b}b", 4),
            ("file 600 4", 4),
            ("file 4755 4 /a", 4),
            ("file 9 4 /a", 4),
            (&format!("file 600 4 {long}"), 4),
            (&format!("file 600 {large} /a"), large),
            ("probe no-port", 0),
            ("probe a b:443", 0),
            ("probe host:0", 0),
            ("probe :443", 0),
            ("probe host:443\r", 0),
        ] {
            let mut bytes = format!("{line}\n").into_bytes();
            bytes.resize(bytes.len() + body, b'\n');
            bytes.extend_from_slice(b"run\n");
            let mut frames = Frames::of(&bytes[..]);
            assert!(matches!(frames.read(), Ok(Some(Order::Refused(_)))), "{line:?}");
            assert_eq!(frames.read(), Ok(Some(Order::Do(Frame::Run))), "after {line:?}");
        }
    }

    #[test]
    fn what_cannot_be_told_apart_breaks_the_stream() {
        let long = "x".repeat(LINE_BYTES_MAX);
        for line in ["sing", "", "run now", "restart ", "file", "file 600", "file 600 many /a", "file 600 -1 /a", &long]
        {
            let bytes = format!("{line}\nrun\n");
            assert!(Frames::of(bytes.as_bytes()).read().is_err(), "{line:?}");
        }
        assert!(Frames::of(&b"\xff\xfe\n"[..]).read().is_err());
        let fits = format!("probe {}\n", "x".repeat(LINE_BYTES_MAX - 7));
        assert!(matches!(Frames::of(fits.as_bytes()).read(), Ok(Some(Order::Refused(_)))));
    }

    #[test]
    fn half_a_frame_is_the_end() {
        for bytes in ["", "ru", "run", "file 600 5 /a\nfour", "file 600 5 relative\nfour", "file 600 5 /a"] {
            assert_eq!(Frames::of(bytes.as_bytes()).read(), Ok(None), "{bytes:?}");
        }
    }
}
