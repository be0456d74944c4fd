//! Takes the credential out of what comes back over a WebSocket. PURE, streaming.
//!
//! An upstream's frames are not masked in the sense of RFC 6455 and their extensions were not offered, so that a payload is
//! what it says, and a fill of equal length leaves every frame as long as its head says. A form is found across the
//! frames of one message; what of a payload could be the beginning of one is held back until the message goes on, with
//! whatever comes behind it. What is no frame that could be read ends the connection: it could not be masked.

use crate::mask::{Forms, Mask};
use bytes::{Buf as _, Bytes, BytesMut};
use std::collections::VecDeque;
use std::sync::Arc;

/// How much may wait behind a payload that is held back.
const WAITING_BYTES_MAX: usize = 256 << 10;

/// Why a stream of frames cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A server's frame is never masked (RFC 6455, 5.1).
    #[error("a frame of the upstream is masked")]
    Masked,
    /// No extension was offered that could give these bits a meaning.
    #[error("a frame uses an extension that was not offered")]
    Extension,
    /// An operation that RFC 6455 does not have, or not there.
    #[error("a frame has an operation that is none, or not there")]
    Operation,
    /// A control frame that is longer than 125 bytes or in parts, or a length that is none.
    #[error("a frame has a length that it cannot have")]
    Length,
    /// More waits than may.
    #[error("too many frames wait for the rest of a message")]
    Waiting,
}

/// The state of reading one direction of a connection.
#[derive(Debug)]
pub struct Frames {
    forms: Arc<Forms>,
    mask: Mask,
    state: State,
    /// A message has begun and not ended.
    in_message: bool,
    /// In the order in which it goes out.
    waiting: VecDeque<Piece>,
    waiting_bytes: usize,
    /// Payload that may go out.
    clear: BytesMut,
}

#[derive(Debug)]
enum State {
    Head(Vec<u8>),
    Data { left: u64, is_last: bool },
    Control { frame: Vec<u8>, left: usize },
}

#[derive(Debug)]
enum Piece {
    /// Goes out as it is.
    Whole(Vec<u8>),
    /// So much payload.
    Payload(u64),
}

impl Frames {
    /// For a new connection.
    pub fn new(forms: Arc<Forms>) -> Self {
        Self {
            mask: Mask::new(forms.clone()),
            forms,
            state: State::Head(Vec::new()),
            in_message: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            clear: BytesMut::new(),
        }
    }

    /// Takes bytes, gives what can be sent on.
    pub fn push(&mut self, mut bytes: Bytes) -> Result<Bytes, FrameError> {
        while bytes.has_remaining() {
            match &mut self.state {
                State::Head(head) => {
                    head.push(bytes.get_u8());
                    if let Some(length) = payload_length(head)? {
                        let head = std::mem::take(head);
                        self.begin(head, length)?;
                    }
                }
                State::Data { left, is_last } => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= taken as u64;
                    let (ended, is_last) = (*left == 0, *is_last);
                    self.clear.extend_from_slice(&self.mask.push(bytes.split_to(taken)));
                    if ended {
                        self.end_data(is_last);
                    }
                }
                State::Control { frame, left } => {
                    let taken = (*left).min(bytes.len());
                    *left -= taken;
                    frame.extend_from_slice(&bytes.split_to(taken));
                    if *left == 0 {
                        let mut frame = std::mem::take(frame);
                        let masked = self.forms.masked(&frame[2..]);
                        frame.truncate(2);
                        frame.extend_from_slice(&masked);
                        self.wait(frame)?;
                        self.state = State::Head(Vec::new());
                    }
                }
            }
        }
        Ok(self.go_out())
    }

    /// A head is whole.
    fn begin(&mut self, head: Vec<u8>, length: u64) -> Result<(), FrameError> {
        let (operation, is_last) = (head[0] & 0x0f, head[0] & 0x80 != 0);
        match operation {
            0x8..=0xa if !is_last || length > 125 => return Err(FrameError::Length),
            0x8..=0xa if length > 0 => {
                self.state = State::Control { frame: head, left: usize::try_from(length).unwrap_or(0) };
                return Ok(());
            }
            0x8..=0xa => {
                self.state = State::Head(Vec::new());
                return self.wait(head);
            }
            0x0 if self.in_message => {}
            0x1 | 0x2 if !self.in_message => {}
            _ => return Err(FrameError::Operation),
        }
        self.in_message = !is_last;
        self.wait(head)?;
        if length == 0 {
            self.end_data(is_last);
        } else {
            self.waiting.push_back(Piece::Payload(length));
            self.state = State::Data { left: length, is_last };
        }
        Ok(())
    }

    fn end_data(&mut self, is_last: bool) {
        if is_last {
            self.clear.extend_from_slice(&self.mask.finish());
        }
        self.state = State::Head(Vec::new());
    }

    fn wait(&mut self, bytes: Vec<u8>) -> Result<(), FrameError> {
        self.waiting_bytes += bytes.len();
        match self.waiting.back_mut() {
            Some(Piece::Whole(whole)) => whole.extend_from_slice(&bytes),
            _ => self.waiting.push_back(Piece::Whole(bytes)),
        }
        if self.waiting_bytes > WAITING_BYTES_MAX && self.mask.held_bytes() > 0 {
            return Err(FrameError::Waiting);
        }
        Ok(())
    }

    fn go_out(&mut self) -> Bytes {
        let mut out = BytesMut::new();
        while let Some(piece) = self.waiting.front_mut() {
            match piece {
                Piece::Whole(whole) => {
                    self.waiting_bytes -= whole.len();
                    out.extend_from_slice(whole);
                }
                Piece::Payload(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(self.clear.len());
                    out.extend_from_slice(&self.clear.split_to(taken));
                    *left -= taken as u64;
                    if *left > 0 {
                        break;
                    }
                }
            }
            self.waiting.pop_front();
        }
        out.freeze()
    }
}

/// The payload's length, when `head` is a whole frame's head (RFC 6455, 5.2).
fn payload_length(head: &[u8]) -> Result<Option<u64>, FrameError> {
    let [first, second, extended @ ..] = head else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(FrameError::Extension);
    }
    if second & 0x80 != 0 {
        return Err(FrameError::Masked);
    }
    let wanted = match second {
        126 => 2,
        127 => 8,
        _ => return Ok(Some(u64::from(*second))),
    };
    if extended.len() < wanted {
        return Ok(None);
    }
    let length = extended.iter().fold(0, |length: u64, byte| length << 8 | u64::from(*byte));
    if length >> 63 != 0 { Err(FrameError::Length) } else { Ok(Some(length)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;
    use proptest::collection::vec;
    use proptest::prelude::{ProptestConfig, any, prop_assert, prop_assert_eq, proptest};

    const SECRET: &str = "s3cr3t-t0ken";

    fn forms() -> Arc<Forms> {
        Arc::new(Forms::new(&[Secret::new(SECRET.into())]).unwrap())
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            length @ ..126 => frame.push(u8::try_from(length).unwrap()),
            length @ 126..65_536 => {
                frame.push(126);
                frame.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                frame.push(127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(payload);
        frame
    }

    fn through(bytes: &[u8], cuts: &[usize]) -> Result<Vec<u8>, FrameError> {
        let mut frames = Frames::new(forms());
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let mut out = Vec::new();
        for pair in cuts.windows(2) {
            out.extend_from_slice(&frames.push(Bytes::copy_from_slice(&bytes[pair[0]..pair[1]]))?);
        }
        Ok(out)
    }

    #[test]
    fn a_credential_is_masked_in_every_kind_of_frame() {
        let stars = "*".repeat(SECRET.len());
        for length in [0, 20, 126, 70_000] {
            let text = format!("{}{SECRET}!", " ".repeat(length));
            let masked = text.replace(SECRET, &stars);
            for first in [0x81, 0x82] {
                assert_eq!(through(&frame(first, text.as_bytes()), &[3, 9]), Ok(frame(first, masked.as_bytes())));
            }
        }
        for first in [0x88, 0x89, 0x8a] {
            assert_eq!(through(&frame(first, SECRET.as_bytes()), &[]), Ok(frame(first, stars.as_bytes())));
        }
        let parts =
            [frame(0x01, b"a s3cr3t"), frame(0x89, b"ping"), frame(0x00, b""), frame(0x80, b"-t0ken b")].concat();
        let masked =
            [frame(0x01, b"a ******"), frame(0x89, b"ping"), frame(0x00, b""), frame(0x80, b"****** b")].concat();
        assert_eq!(through(&parts, &[]), Ok(masked));
    }

    #[test]
    fn nothing_waits_without_need() {
        let mut frames = Frames::new(forms());
        for bytes in [&b"\x81\x05hello"[..], b"\x01\x05hello", b"\x80\x03s3c", b"\x89\0", b"\x81\x03ab", b"c"] {
            assert_eq!(frames.push(Bytes::copy_from_slice(bytes)).unwrap(), bytes);
        }
        assert_eq!(frames.push(Bytes::from_static(b"\x01\x04as3c")).unwrap(), &b"\x01\x04a"[..]);
        assert_eq!(frames.push(Bytes::from_static(b"\x80\x01x")).unwrap(), &b"s3c\x80\x01x"[..]);
    }

    #[test]
    fn what_cannot_be_read_ends_it() {
        for (bytes, wanted) in [
            (&b"\x81\x80\0\0\0\0"[..], FrameError::Masked),
            (b"\xc1\x00", FrameError::Extension),
            (b"\x91\x00", FrameError::Extension),
            (b"\x83\x00", FrameError::Operation),
            (b"\x80\x00", FrameError::Operation),
            (b"\x01\x00\x01\x00", FrameError::Operation),
            (b"\x8b\x00", FrameError::Operation),
            (b"\x09\x00", FrameError::Length),
            (b"\x89\x7e\x00\x7e", FrameError::Length),
            (b"\x82\x7f\x80\0\0\0\0\0\0\0", FrameError::Length),
        ] {
            assert_eq!(through(bytes, &[]), Err(wanted), "{bytes:?}");
        }
        let mut frames = Frames::new(forms());
        frames.push(Bytes::from_static(b"\x01\x03s3c")).unwrap();
        let flood = Bytes::from(b"\x00\x00".repeat(WAITING_BYTES_MAX));
        assert_eq!(frames.push(flood), Err(FrameError::Waiting));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_message_in_parts_is_masked_as_one(
            parts in vec((0..5_usize, any::<bool>()), 1..8), cuts in vec(any::<usize>(), 0..12),
        ) {
            let texts = ["", "s3cr3t-", "t0ken", "s3c", "x"];
            let (mut sent, mut payload) = (Vec::new(), Vec::new());
            for (index, (which, ping)) in parts.iter().enumerate() {
                let last = if index == parts.len() - 1 { 0x80 } else { 0 };
                if *ping {
                    sent.extend(frame(0x89, SECRET.as_bytes()));
                }
                sent.extend(frame(last | u8::from(index == 0), texts[*which].as_bytes()));
                payload.extend_from_slice(texts[*which].as_bytes());
            }
            let out = through(&sent, &cuts).unwrap();
            prop_assert_eq!(out.len(), sent.len());
            let (mut at, mut seen) = (0, Vec::new());
            while at < out.len() {
                let length = usize::from(out[at + 1]);
                if out[at] == 0x89 {
                    prop_assert!(out[at + 2..at + 2 + length].iter().all(|byte| *byte == b'*'));
                } else {
                    seen.extend_from_slice(&out[at + 2..at + 2 + length]);
                }
                at += 2 + length;
            }
            prop_assert_eq!(seen, forms().masked(&payload));
        }
    }
}
