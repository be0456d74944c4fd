//! Entries of a pack that is in the spool already: read again, after they were checked on their way in.

use std::io;

use gix_hash::Kind;

use super::entry::{self, Packed};
use super::index::Index;
use super::inflate::{EntryReader, Inflater};
use super::{EntryFault, LookupError};
use crate::spool::SpoolView;

/// The longest header: ten bytes of type and size, ten of a distance or thirty-two of a name.
const HEADER_BYTES_MAX: u64 = 64;

/// The entries of one pack.
pub(super) struct Stored<'a> {
    pub(super) spool: SpoolView,
    pub(super) index: &'a Index,
    pub(super) format: Kind,
}

/// What one reader needs again and again.
pub(super) struct Buffers {
    input: Vec<u8>,
    inflater: Inflater,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self { input: Vec::new(), inflater: Inflater::new() }
    }
}

impl Stored<'_> {
    /// How long the content of `entry` is (of a delta: its instructions).
    pub(super) fn size(&self, entry: u32) -> io::Result<u64> {
        Ok(self.header(entry)?.0)
    }

    /// The content of `entry` in `out`, unless it is over `bytes_max` or so badly packed that it is no shorter inflated.
    pub(super) fn read(
        &self,
        entry: u32,
        bytes_max: u64,
        buffers: &mut Buffers,
        out: &mut Vec<u8>,
    ) -> io::Result<Option<()>> {
        let start = self.index.offset(entry);
        let span = self.index.end_of(entry) - start;
        // What inflates to little is hardly longer than that in the pack, but for streams made to be.
        if span > bytes_max.saturating_add(bytes_max / 64).saturating_add(HEADER_BYTES_MAX * 4) {
            return Ok(None);
        }
        buffers.input.resize(usize::try_from(span).map_err(|_| changed())?, 0);
        self.spool.read_exact_at(&mut buffers.input, start)?;
        let mut rest = buffers.input.as_slice();
        let size = skip_header(&mut rest, self.format).map_err(|_| changed())?;
        if size > bytes_max {
            return Ok(None);
        }
        let size = usize::try_from(size).map_err(|_| changed())?;
        buffers.inflater.whole(rest, size, out).map_err(|_| changed())?;
        Ok(Some(()))
    }

    /// The content of `entry` as a stream.
    pub(super) fn stream(&self, entry: u32) -> io::Result<EntryReader> {
        let (size, at) = self.header(entry)?;
        Ok(EntryReader::new(self.spool.clone(), at, self.index.end_of(entry), size))
    }

    /// The size of the content, and where its zlib stream starts.
    fn header(&self, entry: u32) -> io::Result<(u64, u64)> {
        let start = self.index.offset(entry);
        let span = self.index.end_of(entry) - start;
        let mut header = [0; HEADER_BYTES_MAX as usize];
        let header = &mut header[..usize::try_from(span.min(HEADER_BYTES_MAX)).map_err(|_| changed())?];
        self.spool.read_exact_at(header, start)?;
        let mut rest = &*header;
        let size = skip_header(&mut rest, self.format).map_err(|_| changed())?;
        Ok((size, start + (header.len() - rest.len()) as u64))
    }
}

/// The spool does not hold any more what was checked.
fn changed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// Takes an entry's header off the front of `bytes`; gives the size of what follows, inflated.
fn skip_header(bytes: &mut &[u8], format: Kind) -> Result<u64, EntryFault> {
    let (packed, size) = entry::header(|| entry::byte_of(bytes, EntryFault::Size))?;
    match packed {
        Packed::Whole(_) => {}
        Packed::OffsetDelta => drop(entry::distance(|| entry::byte_of(bytes, EntryFault::BaseOffset))?),
        Packed::NameDelta => *bytes = bytes.get(format.len_in_bytes()..).ok_or(EntryFault::BaseOffset)?,
    }
    Ok(size)
}

impl From<io::Error> for LookupError {
    fn from(error: io::Error) -> Self {
        Self::Spool(error)
    }
}
