//! zlib streams, inflated step by step into room of a fixed size, so that no stream decides how much memory it takes.

use std::io::{self, Read};

use zlib_rs::{InflateFlush, Status};

use super::EntryFault;
use crate::spool::SpoolView;

/// The window of a zlib stream, as a power of two; git writes no other.
const WINDOW_BITS: u8 = 15;
const CHUNK: usize = 64 << 10;

/// One stream after the other.
pub(super) struct Inflater(zlib_rs::Inflate);

/// What one step did.
pub(super) struct Step {
    /// Bytes of the input that belong to the stream and are done with.
    pub(super) used: usize,
    /// Bytes that were put into the output.
    pub(super) made: usize,
    /// The stream is at its end, and its checksum was right.
    pub(super) done: bool,
}

impl Inflater {
    pub(super) fn new() -> Self {
        Self(zlib_rs::Inflate::new(true, WINDOW_BITS))
    }

    /// Before every stream but the first.
    pub(super) fn reset(&mut self) {
        self.0.reset(true);
    }

    /// Inflates from `input` into `output`, neither of them empty. The input is never used beyond the stream's end.
    pub(super) fn step(&mut self, input: &[u8], output: &mut [u8]) -> Result<Step, EntryFault> {
        let (used, made) = (self.0.total_in(), self.0.total_out());
        // With `Finish`, a stream that ends in this step need not be remembered as a window for the next.
        let status = self.0.decompress(input, output, InflateFlush::Finish).map_err(|_| EntryFault::Zlib)?;
        let used = usize::try_from(self.0.total_in() - used).map_err(|_| EntryFault::Zlib)?;
        let made = usize::try_from(self.0.total_out() - made).map_err(|_| EntryFault::Zlib)?;
        let done = status == Status::StreamEnd;
        if used == 0 && made == 0 && !done {
            return Err(EntryFault::Zlib);
        }
        Ok(Step { used, made, done })
    }

    /// Inflates the stream at the start of `input` into exactly `size` bytes. `out` is overwritten.
    pub(super) fn whole(&mut self, mut input: &[u8], size: usize, out: &mut Vec<u8>) -> Result<(), EntryFault> {
        self.reset();
        // One byte more than is right, so that a longer stream shows itself.
        out.clear();
        out.resize(size + 1, 0);
        let mut filled = 0;
        loop {
            if input.is_empty() {
                return Err(EntryFault::Zlib);
            }
            let step = self.step(input, &mut out[filled..])?;
            filled += step.made;
            input = &input[step.used..];
            if filled > size {
                return Err(EntryFault::TooLong);
            }
            if step.done {
                break;
            }
        }
        out.truncate(size);
        if filled < size { Err(EntryFault::TooShort) } else { Ok(()) }
    }
}

/// The content of one entry, inflated again from the spool, from its start to its end.
pub(super) struct EntryReader {
    spool: SpoolView,
    at: u64,
    end: u64,
    input: Vec<u8>,
    start: usize,
    inflater: Inflater,
    left: u64,
}

impl EntryReader {
    /// The stream lies in `spool` from `at` on, before `end`, and gives `size` bytes.
    pub(super) fn new(spool: SpoolView, at: u64, end: u64, size: u64) -> Self {
        Self { spool, at, end, input: Vec::new(), start: 0, inflater: Inflater::new(), left: size }
    }

    fn refill(&mut self) -> io::Result<()> {
        let room = usize::try_from(self.end - self.at).unwrap_or(CHUNK).min(CHUNK);
        self.input.resize(room, 0);
        let n = self.spool.read_at(&mut self.input, self.at)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.input.truncate(n);
        self.at += n as u64;
        self.start = 0;
        Ok(())
    }
}

impl Read for EntryReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        loop {
            if self.start == self.input.len() {
                self.refill()?;
            }
            let step = self.inflater.step(&self.input[self.start..], &mut buffer[..room]);
            // It was inflated before, on its way in: only a spool that changed can be the reason.
            let step = step.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            self.start += step.used;
            self.left -= step.made as u64;
            if step.made > 0 {
                return Ok(step.made);
            }
            if step.done {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
