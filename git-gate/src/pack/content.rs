//! The content of an object that others are built on: in memory while there is room for it, else on disk.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};

use gix_hash::{Hasher, Kind, ObjectId};

use super::delta::Base;
use super::{EntryFault, ObjectKind, PackError};
use crate::spool::Piece;

/// No single content takes more than this part of the memory.
const SHARE: u64 = 4;
const WRITE: usize = 128 << 10;

/// How much memory all contents together may take.
#[derive(Debug)]
pub(super) struct Memory {
    bytes_max: u64,
    used: AtomicU64,
}

impl Memory {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, used: AtomicU64::new(0) }
    }

    /// Room for `bytes`, if there is some.
    pub(super) fn take(&self, bytes: u64) -> Option<Room<'_>> {
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        if bytes > self.bytes_max / SHARE || self.used.try_update(Ordering::AcqRel, Ordering::Acquire, fits).is_err() {
            return None;
        }
        Some(Room { memory: self, bytes })
    }
}

/// Memory that is given back with this value.
#[derive(Debug)]
pub(super) struct Room<'a> {
    memory: &'a Memory,
    bytes: u64,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// All bytes of one object.
pub(super) enum Content<'a> {
    Memory { bytes: Vec<u8>, _room: Room<'a> },
    Disk(Piece),
}

/// The hash that git gives to an object of this kind and size, before its content.
pub(super) fn hasher(format: Kind, kind: ObjectKind, size: u64) -> Hasher {
    let mut hasher = gix_hash::hasher(format);
    hasher.update(kind.name().as_bytes());
    hasher.update(format!(" {size}\0").as_bytes());
    hasher
}

/// The name that comes out of it, unless the bytes carry an attack on the hash.
pub(super) fn finish(hasher: Hasher) -> Result<ObjectId, EntryFault> {
    hasher.try_finalize().map_err(|_| EntryFault::Collision)
}

/// Writes an object's content to the disk and names it on the way.
pub(super) struct Writer {
    piece: Piece,
    hasher: Hasher,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn new(piece: Piece, hasher: Hasher) -> Self {
        Self { piece, hasher, buffer: Vec::with_capacity(WRITE) }
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), PackError> {
        if self.buffer.len() + bytes.len() > WRITE {
            self.flush()?;
        }
        if bytes.len() >= WRITE {
            self.hasher.update(bytes);
            self.piece.append(bytes)?;
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), PackError> {
        self.hasher.update(&self.buffer);
        self.piece.append(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(Piece, Result<ObjectId, EntryFault>), PackError> {
        self.flush()?;
        Ok((self.piece, finish(self.hasher)))
    }
}

/// Reads a content from its start to its end.
pub(super) struct DiskReader<'a> {
    piece: &'a Piece,
    at: u64,
}

impl<'a> DiskReader<'a> {
    pub(super) fn new(piece: &'a Piece) -> Self {
        Self { piece, at: 0 }
    }
}

impl Read for DiskReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.piece.len() - self.at).unwrap_or(usize::MAX).min(buffer.len());
        self.piece.read_exact_at(&mut buffer[..room], self.at)?;
        self.at += room as u64;
        Ok(room)
    }
}

/// A content in memory, as a delta's base.
pub(super) struct MemoryBase<'a>(pub(super) &'a [u8]);

impl Base for MemoryBase<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let piece = usize::try_from(at).ok().and_then(|at| self.0.get(at..)?.get(..buffer.len()));
        buffer.copy_from_slice(piece.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

const BLOCK: usize = 16 << 10;
const BLOCKS: usize = 64;

/// A content on disk, as a delta's base. Recent blocks stay in memory: a delta of a million tiny copies should not be
/// a million calls to the system.
pub(super) struct DiskBase<'a> {
    piece: &'a Piece,
    blocks: &'a mut Blocks,
}

/// Room for recent blocks, for one base after the other.
pub(super) struct Blocks {
    /// The number of the block in each place.
    held: [u64; BLOCKS],
    bytes: Vec<u8>,
}

impl Blocks {
    pub(super) fn new() -> Self {
        Self { held: [u64::MAX; BLOCKS], bytes: Vec::new() }
    }
}

impl<'a> DiskBase<'a> {
    pub(super) fn new(piece: &'a Piece, blocks: &'a mut Blocks) -> Self {
        blocks.held = [u64::MAX; BLOCKS];
        blocks.bytes.resize(BLOCK * BLOCKS, 0);
        Self { piece, blocks }
    }

    /// The bytes from `at` to the end of the block it is in.
    fn block(&mut self, at: u64) -> io::Result<&[u8]> {
        let number = at / BLOCK as u64;
        let start = number * BLOCK as u64;
        let len = usize::try_from(self.piece.len() - start).unwrap_or(BLOCK).min(BLOCK);
        let place = usize::try_from(number % BLOCKS as u64).unwrap_or(0);
        let block = &mut self.blocks.bytes[place * BLOCK..][..len];
        if self.blocks.held[place] != number {
            self.blocks.held[place] = u64::MAX;
            self.piece.read_exact_at(block, start)?;
            self.blocks.held[place] = number;
        }
        Ok(&block[usize::try_from(at - start).unwrap_or(0)..])
    }
}

impl Base for DiskBase<'_> {
    fn len(&self) -> u64 {
        self.piece.len()
    }

    fn read_exact_at(&mut self, mut buffer: &mut [u8], mut at: u64) -> io::Result<()> {
        if buffer.len() >= BLOCK {
            return self.piece.read_exact_at(buffer, at);
        }
        while !buffer.is_empty() {
            let block = self.block(at)?;
            let n = block.len().min(buffer.len());
            buffer[..n].copy_from_slice(&block[..n]);
            at += n as u64;
            buffer = &mut buffer[n..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of the two messages of "SHA-1 is a Shambles" (Leurent and Peyrin, 2020), as they published it.
    fn attack() -> Vec<u8> {
        let hex: String = include_str!("../../tests/data/sha-mbles-1.hex").split_whitespace().collect();
        hex.as_bytes().chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    #[test]
    fn an_attack_on_sha_1_gives_no_name() {
        let name = |bytes: &[u8]| {
            let mut hasher = gix_hash::hasher(Kind::Sha1);
            hasher.update(bytes);
            finish(hasher)
        };
        let mut bytes = attack();
        assert_eq!(name(&bytes), Err(EntryFault::Collision));
        bytes[639] ^= 1;
        bytes[300] ^= 1;
        name(&bytes).unwrap();
    }

    #[test]
    fn memory_is_given_in_shares_and_given_back() {
        let memory = Memory::new(100);
        assert!(memory.take(26).is_none(), "more than a quarter");
        let rooms: Vec<_> = (0..4).map_while(|_| memory.take(25)).collect();
        assert_eq!(rooms.len(), 4);
        assert!(memory.take(1).is_none() && memory.take(0).is_some());
        drop(rooms);
        assert!(memory.take(25).is_some());
    }
}
