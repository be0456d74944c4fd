//! Is the framing of every request on a connection beyond doubt? PURE.
//!
//! Two readers that disagree about where a request ends are how one is smuggled past a permission. The HTTP library
//! repairs some doubtful shapes silently; [`Framing`] reads the same bytes beforehand and is strict: lines end with CR LF, no
//! folded lines, one way of giving a length. It must never change what passes, and it has a limit on everything.

#[cfg(test)]
mod tests;

/// The longest trailer section of a request.
const TRAILER_BYTES_MAX: usize = 8 << 10;

/// What is wrong with the framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// LF without CR before it, or CR without LF after it.
    #[error("a line does not end with CR LF")]
    LineEnd,
    /// The first line is not `METHOD target HTTP/1.x`.
    #[error("the first line is not a request line")]
    RequestLine,
    /// The target has a fragment, which is no part of it (RFC 9112, 3.2) and would be dropped silently.
    #[error("the target has a fragment")]
    Fragment,
    /// A line that continues the one before.
    #[error("a header line is folded")]
    Folded,
    /// A line without a name and a colon.
    #[error("a header line has no name")]
    HeaderName,
    /// Content-Length beside Transfer-Encoding.
    #[error("both Content-Length and Transfer-Encoding are given")]
    TwoFramings,
    /// More than one Content-Length, equal or not.
    #[error("more than one Content-Length is given")]
    TwoLengths,
    /// A Content-Length that is not a number.
    #[error("Content-Length is not a number")]
    Length,
    /// A Transfer-Encoding other than `chunked`, more than one, or one in HTTP/1.0.
    #[error("Transfer-Encoding is not `chunked`")]
    TransferEncoding,
    /// A chunk whose size line or end is malformed.
    #[error("a chunk is malformed")]
    Chunk,
    /// The head is longer than the limit.
    #[error("the head is too long")]
    HeadTooLong,
}

impl Doubt {
    /// Was it found in a body, after the head had been handed over?
    pub fn is_in_body(self) -> bool {
        self == Self::Chunk
    }
}

/// The state of reading one connection.
#[derive(Debug)]
pub struct Framing {
    head_bytes_max: usize,
    state: State,
    line: Vec<u8>,
    head: Head,
    /// The head that has just ended asks for an upgrade, and no body follows it.
    upgrade: bool,
}

#[derive(Debug, Default)]
enum State {
    /// In a head: before the request line or behind it.
    #[default]
    Head,
    /// So many bytes of a body are left.
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    /// CR LF after a chunk's data.
    ChunkEnd,
    Trailer,
}

#[derive(Debug, Default)]
struct Head {
    bytes: usize,
    request_line: Option<Version>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Http10,
    Http11,
}

impl Framing {
    /// For a new connection; no head may be longer than `head_bytes_max`.
    pub fn new(head_bytes_max: usize) -> Self {
        Self { head_bytes_max, state: State::Head, line: Vec::new(), head: Head::default(), upgrade: false }
    }

    /// Reads on, to the end of `bytes` or of a head that asks for an upgrade (see [`Framing::take_upgrade`]); says how far.
    /// On doubt, the index in `bytes` of the first byte that must not be handed over.
    pub fn read(&mut self, bytes: &[u8]) -> Result<usize, (usize, Doubt)> {
        let mut at = 0;
        while at < bytes.len() && !self.upgrade {
            match &mut self.state {
                State::Body(left) | State::ChunkData(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    *left -= taken as u64;
                    at += taken;
                    if *left == 0 {
                        self.state = match self.state {
                            State::ChunkData(_) => State::ChunkEnd,
                            _ => State::Head,
                        };
                    }
                }
                State::Head | State::ChunkSize | State::ChunkEnd | State::Trailer => {
                    at += self.take_plain(&bytes[at..]);
                    if let Some(byte) = bytes.get(at) {
                        self.take(*byte).map_err(|doubt| (at, doubt))?;
                        at += 1;
                    }
                }
            }
        }
        Ok(at)
    }

    /// Does the head that has just ended ask for an upgrade? Then what follows is read only when this has been called.
    pub fn take_upgrade(&mut self) -> bool {
        std::mem::take(&mut self.upgrade)
    }

    /// What of `bytes` belongs to the line, up to its end or the limit; says how much. [`Framing::take`] does the rest.
    fn take_plain(&mut self, bytes: &[u8]) -> usize {
        if self.line.last() == Some(&b'\r') {
            return 0;
        }
        let most = if matches!(self.state, State::Head) { self.head_bytes_max } else { TRAILER_BYTES_MAX };
        let bytes = &bytes[..bytes.len().min(most.saturating_sub(self.head.bytes))];
        let plain = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
        self.line.extend_from_slice(&bytes[..plain]);
        self.head.bytes += plain;
        plain
    }

    /// One byte of a line.
    fn take(&mut self, byte: u8) -> Result<(), Doubt> {
        let in_body = !matches!(self.state, State::Head);
        let bad_end = if in_body { Doubt::Chunk } else { Doubt::LineEnd };
        self.head.bytes += 1;
        if !in_body && self.head.bytes > self.head_bytes_max {
            return Err(Doubt::HeadTooLong);
        }
        if in_body && self.head.bytes > TRAILER_BYTES_MAX {
            return Err(Doubt::Chunk);
        }
        let after_cr = self.line.last() == Some(&b'\r');
        match (after_cr, byte) {
            (true, b'\n') => {
                self.line.pop();
                let line = std::mem::take(&mut self.line);
                let end = self.end_line(&line);
                self.line = line;
                self.line.clear();
                end
            }
            (true, _) | (false, b'\n') => Err(bad_end),
            (false, _) => {
                self.line.push(byte);
                Ok(())
            }
        }
    }

    fn end_line(&mut self, line: &[u8]) -> Result<(), Doubt> {
        match self.state {
            State::Head => match (self.head.request_line, line) {
                // An empty line before a request is ignored (RFC 9112, 2.2); the head's limit counts it.
                (None, []) => Ok(()),
                (None, _) => {
                    self.head.request_line = Some(version_of(line)?);
                    Ok(())
                }
                (Some(_), []) => self.end_head(),
                (Some(version), _) => self.header(line, version),
            },
            State::ChunkSize => {
                let size = chunk_size(line).ok_or(Doubt::Chunk)?;
                self.head.bytes = 0;
                self.state = if size == 0 { State::Trailer } else { State::ChunkData(size) };
                Ok(())
            }
            State::ChunkEnd if line.is_empty() => {
                self.head.bytes = 0;
                self.state = State::ChunkSize;
                Ok(())
            }
            State::Trailer if line.is_empty() => {
                self.head = Head::default();
                self.state = State::Head;
                Ok(())
            }
            State::Trailer => split_header(line).map(|_| ()).map_err(|_| Doubt::Chunk),
            State::ChunkEnd | State::Body(_) | State::ChunkData(_) => Err(Doubt::Chunk),
        }
    }

    fn header(&mut self, line: &[u8], version: Version) -> Result<(), Doubt> {
        let (name, value) = split_header(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.head.length.is_some() {
                return Err(Doubt::TwoLengths);
            }
            self.head.length = Some(length_of(value).ok_or(Doubt::Length)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let is_plain = value.eq_ignore_ascii_case(b"chunked");
            if self.head.chunked || !is_plain || version == Version::Http10 {
                return Err(Doubt::TransferEncoding);
            }
            self.head.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            self.head.upgrade = true;
        }
        Ok(())
    }

    fn end_head(&mut self) -> Result<(), Doubt> {
        let head = std::mem::take(&mut self.head);
        self.upgrade = head.upgrade && !head.chunked && head.length.is_none_or(|length| length == 0);
        self.state = match (head.length, head.chunked) {
            (Some(_), true) => return Err(Doubt::TwoFramings),
            (Some(0) | None, false) => State::Head,
            (Some(length), false) => State::Body(length),
            (None, true) => State::ChunkSize,
        };
        Ok(())
    }
}

fn version_of(line: &[u8]) -> Result<Version, Doubt> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    let whole = [method, target].iter().all(|part| part.is_some_and(|part| !part.is_empty())) && parts.next().is_none();
    if target.is_some_and(|target| target.contains(&b'#')) {
        return Err(Doubt::Fragment);
    }
    match version {
        Some(b"HTTP/1.1") if whole => Ok(Version::Http11),
        Some(b"HTTP/1.0") if whole => Ok(Version::Http10),
        _ => Err(Doubt::RequestLine),
    }
}

fn split_header(line: &[u8]) -> Result<(&[u8], &[u8]), Doubt> {
    if line.first().is_some_and(|first| matches!(first, b' ' | b'\t')) {
        return Err(Doubt::Folded);
    }
    let colon = line.iter().position(|byte| *byte == b':').ok_or(Doubt::HeaderName)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if name.is_empty() || !name.iter().all(is_token) {
        return Err(Doubt::HeaderName);
    }
    // Spaces and tabs alone: what `trim_ascii` takes besides would be somebody else's reading.
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let from = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let to = value.iter().rposition(|byte| !is_space(byte)).map_or(from, |last| last + 1);
    Ok((name, &value[from..to]))
}

fn length_of(value: &[u8]) -> Option<u64> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(value).ok()?.parse().ok())?
}

/// Hexadecimal digits alone: extensions have no use here, and are a place to hide.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = (1..=16).contains(&line.len()) && line.iter().all(u8::is_ascii_hexdigit);
    digits.then(|| u64::from_str_radix(std::str::from_utf8(line).ok()?, 16).ok())?
}
