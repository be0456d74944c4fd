//! Deltas: a list of instructions that build an object from pieces of its base and from bytes of its own.
//! One decoder serves both ways of carrying them out, in memory and through the spool, so that they cannot differ.

use std::io::{self, Read};

use super::EntryFault;
use super::entry::{byte_of, varint};
use super::error::Fault;

/// The longest instruction: a copy with four bytes of offset and three of size.
const COPY_BYTES_MAX: usize = 8;
/// An insert has up to 127 bytes behind it.
const STEP_BYTES_MAX: usize = 128;
const CHUNK: usize = 64 << 10;

/// The sizes that a delta starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) base: u64,
    pub(super) result: u64,
}

/// The most bytes that the two sizes can take.
pub(super) const SIZES_BYTES_MAX: usize = 18;

/// Takes the two sizes off the front of `delta`.
pub(super) fn sizes(delta: &mut &[u8]) -> Result<Sizes, EntryFault> {
    let mut one = || {
        varint(|| byte_of(delta, EntryFault::DeltaTruncated)).map_err(|fault| match fault {
            EntryFault::Size => EntryFault::DeltaTruncated,
            other => other,
        })
    };
    Ok(Sizes { base: one()?, result: one()? })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// So many bytes from there in the base.
    Copy { from: u64, len: usize },
    /// So many bytes that follow the instruction.
    Insert { len: usize },
}

/// Takes one instruction off the front of `delta`; of an insert, only its first byte.
fn step(delta: &mut &[u8]) -> Result<Step, EntryFault> {
    let op = byte_of(delta, EntryFault::DeltaTruncated)?;
    if op == 0 {
        return Err(EntryFault::DeltaReserved);
    }
    if op & 0x80 == 0 {
        return Ok(Step::Insert { len: usize::from(op) });
    }
    let mut fields = [0u8; 7];
    for (bit, field) in fields.iter_mut().enumerate() {
        if op & 1 << bit != 0 {
            *field = byte_of(delta, EntryFault::DeltaTruncated)?;
        }
    }
    let [o0, o1, o2, o3, s0, s1, s2] = fields;
    let len = u32::from_le_bytes([s0, s1, s2, 0]) as usize;
    Ok(Step::Copy { from: u64::from(u32::from_le_bytes([o0, o1, o2, o3])), len: if len == 0 { 0x1_0000 } else { len } })
}

/// Builds the result of `delta`, sizes and all, on `base`. `out` is overwritten; it gets no more than the delta
/// announces, which the caller has compared with its limits.
pub(super) fn apply(base: &[u8], mut delta: &[u8], out: &mut Vec<u8>) -> Result<(), EntryFault> {
    let sizes = sizes(&mut delta)?;
    if sizes.base != base.len() as u64 {
        return Err(EntryFault::DeltaBaseSize);
    }
    let result = usize::try_from(sizes.result).map_err(|_| EntryFault::DeltaResultSize)?;
    out.clear();
    out.reserve_exact(result);
    while !delta.is_empty() {
        let piece = match step(&mut delta)? {
            Step::Copy { from, len } => {
                let from = usize::try_from(from).map_err(|_| EntryFault::DeltaCopy)?;
                let to = from.checked_add(len).ok_or(EntryFault::DeltaCopy)?;
                base.get(from..to).ok_or(EntryFault::DeltaCopy)?
            }
            Step::Insert { len } => {
                let (piece, rest) = delta.split_at_checked(len).ok_or(EntryFault::DeltaTruncated)?;
                delta = rest;
                piece
            }
        };
        if piece.len() > result - out.len() {
            return Err(EntryFault::DeltaResultSize);
        }
        out.extend_from_slice(piece);
    }
    if out.len() < result { Err(EntryFault::DeltaResultSize) } else { Ok(()) }
}

/// A base that can be read anywhere.
pub(super) trait Base {
    fn len(&self) -> u64;
    /// Fills `buffer` from `at` on; the range lies within the base.
    fn read_exact_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<()>;
}

/// [`apply`] for what does not fit in memory: the instructions come out of `delta`, the result goes to `out` in pieces.
/// `out` is called at least once for every [`CHUNK`] of instructions, if need be with nothing: there the caller looks at
/// its clock.
pub(super) fn apply_streamed(
    base: &mut dyn Base,
    delta: &mut dyn Read,
    out: &mut dyn FnMut(&[u8]) -> Result<(), Fault>,
) -> Result<u64, Fault> {
    let mut window = Window { bytes: vec![0; CHUNK], start: 0, end: 0, over: false };
    window.refill(delta)?;
    let mut rest = window.rest();
    let before = rest.len();
    let sizes = sizes(&mut rest)?;
    window.start += before - rest.len();
    if sizes.base != base.len() {
        return Err(EntryFault::DeltaBaseSize.into());
    }
    let mut left = sizes.result;
    let mut piece = vec![0; CHUNK];
    loop {
        if window.rest().len() < STEP_BYTES_MAX.max(COPY_BYTES_MAX) && !window.over {
            window.refill(delta)?;
            out(&[])?;
        }
        let mut rest = window.rest();
        if rest.is_empty() {
            break;
        }
        let before = rest.len();
        match step(&mut rest)? {
            Step::Copy { from, len } => {
                window.start += before - rest.len();
                copy(base, from, len as u64, &mut left, &mut piece, out)?;
            }
            Step::Insert { len } => {
                let bytes = rest.get(..len).ok_or(EntryFault::DeltaTruncated)?;
                left = left.checked_sub(len as u64).ok_or(EntryFault::DeltaResultSize)?;
                out(bytes)?;
                window.start += 1 + len;
            }
        }
    }
    if left > 0 { Err(EntryFault::DeltaResultSize.into()) } else { Ok(sizes.result) }
}

fn copy(
    base: &mut dyn Base,
    from: u64,
    len: u64,
    left: &mut u64,
    piece: &mut [u8],
    out: &mut dyn FnMut(&[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let to = from.checked_add(len).filter(|to| *to <= base.len()).ok_or(EntryFault::DeltaCopy)?;
    *left = left.checked_sub(len).ok_or(EntryFault::DeltaResultSize)?;
    let mut at = from;
    while at < to {
        let room = piece.len().min(usize::try_from(to - at).unwrap_or(usize::MAX));
        base.read_exact_at(&mut piece[..room], at).map_err(Fault::spool)?;
        out(&piece[..room])?;
        at += room as u64;
    }
    Ok(())
}

/// The part of the instructions that is in memory.
struct Window {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Nothing comes after it.
    over: bool,
}

impl Window {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn refill(&mut self, from: &mut dyn Read) -> Result<(), Fault> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        while self.end < self.bytes.len() {
            match from.read(&mut self.bytes[self.end..]).map_err(Fault::spool)? {
                0 => {
                    self.over = true;
                    break;
                }
                n => self.end += n,
            }
        }
        Ok(())
    }
}
