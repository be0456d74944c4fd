//! The bytes of the pack on their way in: from the client's connection into the spool and into the pack's checksum,
//! each byte once, and none beyond the last.

use std::io::{self, BufRead};

use gix_hash::{Hasher, Kind};

use super::PackError;
use crate::spool::{Spool, SpoolView};

const WRITE: usize = 128 << 10;

pub(super) struct Incoming<'a> {
    reader: &'a mut dyn BufRead,
    spool: Spool,
    hasher: Hasher,
    /// Taken from the reader, not yet in the spool.
    pending: Vec<u8>,
    at: u64,
    bytes_max: u64,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(reader: &'a mut dyn BufRead, spool: Spool, format: Kind, bytes_max: u64) -> Self {
        let pending = Vec::with_capacity(WRITE);
        Self { reader, spool, hasher: gix_hash::hasher(format), pending, at: 0, bytes_max }
    }

    /// How many bytes of the pack were taken.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// What is there, at least one byte; waits for it.
    pub(super) fn fill(&mut self) -> Result<&[u8], PackError> {
        loop {
            match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(PackError::Read(error)),
                Ok([]) => break,
                // Asked again, because the borrow of the first answer cannot leave a loop. It is in memory.
                Ok(_) => return self.reader.fill_buf().map_err(PackError::Read),
            }
        }
        Err(PackError::Truncated { at: self.at })
    }

    /// Takes the first `n` bytes of what [`Self::fill`] gave.
    pub(super) fn take(&mut self, n: usize) -> Result<(), PackError> {
        if n == 0 {
            return Ok(());
        }
        let at = self.at + n as u64;
        if at > self.bytes_max {
            return Err(PackError::Limit { name: "pack_bytes", limit: self.bytes_max });
        }
        if self.pending.len() + n > WRITE {
            self.flush()?;
        }
        let bytes = self.reader.fill_buf().map_err(PackError::Read)?;
        let bytes = bytes.get(..n).ok_or(PackError::Truncated { at: self.at })?;
        self.pending.extend_from_slice(bytes);
        self.reader.consume(n);
        self.at = at;
        Ok(())
    }

    pub(super) fn byte(&mut self) -> Result<u8, PackError> {
        let byte = self.fill()?.first().copied().ok_or(PackError::Truncated { at: self.at })?;
        self.take(1)?;
        Ok(byte)
    }

    /// Takes exactly as many bytes as `buffer` has room for.
    pub(super) fn bytes(&mut self, buffer: &mut [u8]) -> Result<(), PackError> {
        buffer.iter_mut().try_for_each(|byte| self.byte().map(|next| *byte = next))
    }

    /// A view of the spool that has everything taken so far.
    pub(super) fn view(&mut self) -> Result<SpoolView, PackError> {
        self.flush()?;
        Ok(self.spool.view())
    }

    fn flush(&mut self) -> Result<(), PackError> {
        self.hasher.update(&self.pending);
        self.keep()
    }

    fn keep(&mut self) -> Result<(), PackError> {
        self.spool.append(&self.pending)?;
        self.pending.clear();
        Ok(())
    }

    /// Takes the trailer and compares it with the checksum of everything before it. The spool then ends with it.
    pub(super) fn finish(mut self, format: Kind) -> Result<Spool, PackError> {
        self.flush()?;
        let mut trailer = vec![0; format.len_in_bytes()];
        self.bytes(&mut trailer)?;
        self.keep()?;
        // A collision attack on the pack's own checksum deserves no other words: it is not right.
        let sum = self.hasher.try_finalize().map_err(|_| PackError::Checksum)?;
        if sum.as_slice() == trailer { Ok(self.spool) } else { Err(PackError::Checksum) }
    }
}
