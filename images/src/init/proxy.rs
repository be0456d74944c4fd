//! Asks the child over the network, as its clients do: is it healthy, and is a host open? It must never wait longer than
//! it says, and never pass on more than a line of what it hears.

use super::clean;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// One look at `/health`.
const HEALTH_WITHIN: Duration = Duration::from_millis(250);

/// One CONNECT, from dialling to the body's first line.
const PROBE_WITHIN: Duration = Duration::from_secs(3);

/// What is read of an answer at most.
const ANSWER_BYTES_MAX: usize = 8 << 10;

/// Does `http://<address>/health` answer 200?
pub fn healthy(address: SocketAddr) -> bool {
    let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let answer = ask(address, &request, HEALTH_WITHIN, |bytes| status(bytes).is_some());
    answer.is_ok_and(|bytes| status(&bytes) == Some(200))
}

/// Asks the CONNECT proxy at `address` for `target`: its status (0: no answer) and the first line of what it says.
pub fn probe(address: SocketAddr, target: &str) -> (u16, String) {
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    match ask(address, &request, PROBE_WITHIN, said_all) {
        Ok(bytes) => match status(&bytes) {
            Some(status) => (status, first_line(&bytes)),
            None => (0, "the answer is not HTTP".into()),
        },
        Err(error) => (0, clean(&error.to_string())),
    }
}

/// Sends `request` and reads until `enough`, the end, or the limit. An answer that is cut short by time counts as far as
/// it came.
fn ask(address: SocketAddr, request: &str, within: Duration, enough: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + within;
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_write_timeout(Some(within))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while !enough(&answer) && answer.len() < ANSWER_BYTES_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if !answer.is_empty() => break,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
            }
            Err(error) => return Err(error),
        }
    }
    if answer.is_empty() { Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")) } else { Ok(answer) }
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|b| *b == b'\n').next().filter(|line| line.len() < answer.len())?;
    let line = std::str::from_utf8(line).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let code = rest.get(..3)?;
    let plain = version.starts_with("HTTP/1.") && code.bytes().all(|b| b.is_ascii_digit());
    if plain { code.parse().ok() } else { None }
}

/// The body, once the head is complete.
fn body(answer: &[u8]) -> Option<&[u8]> {
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(&answer[at + 4..])
}

/// An open tunnel has no body; what follows comes from the host behind it.
fn said_all(answer: &[u8]) -> bool {
    let open = matches!(status(answer), Some(200..=299));
    body(answer).is_some_and(|body| open || body.contains(&b'\n'))
}

fn first_line(answer: &[u8]) -> String {
    if matches!(status(answer), Some(200..=299)) {
        return String::new();
    }
    let line = body(answer).unwrap_or_default().split(|b| *b == b'\n').next().unwrap_or_default();
    clean(String::from_utf8_lossy(line).trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers one connection with `answer` after it has read a head, then holds it open until the client leaves.
    fn serve(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut seen = Vec::new();
            let mut byte = [0];
            while !seen.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                seen.push(byte[0]);
            }
            for piece in answer.chunks(7) {
                stream.write_all(piece).unwrap();
            }
            let _ = stream.read(&mut byte);
        });
        address
    }

    #[test]
    fn health_is_200_alone() {
        for (answer, is) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..], true),
            (b"HTTP/1.0 200\r\n\r\n", true),
            (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", false),
            (b"HTTP/1.1 2000 OK\r\n\r\n", true), // the three digits count
            (b"SSH-2.0-x 200\r\n", false),
            (b"HTTP/1.1 20x\r\n", false),
            (b"\r\n", false),
        ] {
            assert_eq!(healthy(serve(answer)), is, "{:?}", String::from_utf8_lossy(answer));
        }
    }

    #[test]
    fn a_probe_tells_the_status_and_one_clean_line() {
        let long: &[u8] =
            Box::leak(format!("HTTP/1.1 403 F\r\n\r\n{}\n", "y".repeat(5000)).into_boxed_str()).as_bytes();
        for (answer, status, text) in [
            (&b"HTTP/1.1 200 Connection Established\r\n\r\n"[..], 200, String::new()),
            (b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-secret banner\r\n", 200, String::new()),
            (
                b"HTTP/1.1 403 Forbidden\r\nX: y\r\n\r\nCONNECT blocked: no\r\nsecond\n",
                403,
                "CONNECT blocked: no".into(),
            ),
            (b"HTTP/1.1 502 Bad\r\n\r\n\x1b[31mred\n", 502, "?[31mred".into()),
            (b"HTTP/1.1 403 F\r\n\r\n\xff\xfe\n", 403, "\u{fffd}\u{fffd}".into()),
            (long, 403, "y".repeat(super::super::TEXT_CHARS_MAX)),
            (b"no http\r\n\r\nline\n", 0, "the answer is not HTTP".into()),
        ] {
            assert_eq!(probe(serve(answer), "a.example:443"), (status, text));
        }
    }

    #[test]
    fn nobody_there_is_no_answer() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(!healthy(address));
        let (status, text) = probe(address, "a.example:443");
        assert_eq!(status, 0);
        assert!(!text.is_empty());
    }
}
