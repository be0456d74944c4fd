//! The few bytes in front of an entry's zlib stream: its type, its size, and where a delta's base is.

use super::EntryFault;

/// What an entry is, as the pack writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    Whole(crate::objects::ObjectKind),
    /// A delta on an entry that starts so many bytes before this one.
    OffsetDelta,
    /// A delta on an object of a given name.
    NameDelta,
}

/// Reads type and size, byte by byte.
///
/// A size that is not written the shortest way is refused: no git writes one, and readers differ in what they make of it.
pub(super) fn header<E: From<EntryFault>>(mut byte: impl FnMut() -> Result<u8, E>) -> Result<(Packed, u64), E> {
    use crate::objects::ObjectKind::{Blob, Commit, Tag, Tree};
    let first = byte()?;
    let packed = match first >> 4 & 7 {
        1 => Packed::Whole(Commit),
        2 => Packed::Whole(Tree),
        3 => Packed::Whole(Blob),
        4 => Packed::Whole(Tag),
        6 => Packed::OffsetDelta,
        7 => Packed::NameDelta,
        _ => return Err(EntryFault::Type.into()),
    };
    let low = u64::from(first & 15);
    if first & 0x80 == 0 {
        return Ok((packed, low));
    }
    let high = varint(byte)?;
    if high == 0 || high >= 1 << (63 - 4) {
        return Err(EntryFault::Size.into());
    }
    Ok((packed, high << 4 | low))
}

/// Seven bits a byte, the lowest first, at most 63 bits, written the shortest way.
pub(super) fn varint<E: From<EntryFault>>(mut byte: impl FnMut() -> Result<u8, E>) -> Result<u64, E> {
    let mut value = 0u64;
    for shift in (0..63).step_by(7) {
        let next = byte()?;
        value |= u64::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            if next == 0 && shift > 0 {
                break;
            }
            return Ok(value);
        }
    }
    Err(EntryFault::Size.into())
}

/// The distance to an offset delta's base: seven bits a byte, the highest first, each further byte adding one to what
/// came before it, so that every distance has one spelling.
pub(super) fn distance<E: From<EntryFault>>(mut byte: impl FnMut() -> Result<u8, E>) -> Result<u64, E> {
    let mut next = byte()?;
    let mut value = u64::from(next & 0x7f);
    while next & 0x80 != 0 {
        if value >= 1 << 55 {
            return Err(EntryFault::BaseOffset.into());
        }
        next = byte()?;
        value = (value + 1) << 7 | u64::from(next & 0x7f);
    }
    Ok(value)
}

/// The next byte of a slice, as the readers above want it.
pub(super) fn byte_of(bytes: &mut &[u8], end: EntryFault) -> Result<u8, EntryFault> {
    let (first, rest) = bytes.split_first().ok_or(end)?;
    *bytes = rest;
    Ok(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::ObjectKind;

    fn size_of(bytes: &[u8]) -> Result<(Packed, u64), EntryFault> {
        let mut rest = bytes;
        let answer = header(|| byte_of(&mut rest, EntryFault::Size))?;
        assert!(rest.is_empty(), "bytes are left");
        Ok(answer)
    }

    #[test]
    fn sizes_have_63_bits_and_one_spelling() {
        let blob = Packed::Whole(ObjectKind::Blob);
        assert_eq!(size_of(&[0x30]), Ok((blob, 0)));
        assert_eq!(size_of(&[0x3f]), Ok((blob, 15)));
        assert_eq!(size_of(&[0xb0, 0x01]), Ok((blob, 16)));
        assert_eq!(size_of(&[0xb0, 0x00]), Err(EntryFault::Size), "0 in two bytes");
        assert_eq!(size_of(&[0xb0, 0x81, 0x00]), Err(EntryFault::Size), "16 in three bytes");
        let largest = [0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x07];
        assert_eq!(size_of(&largest), Ok((blob, (1 << 63) - 1)));
        assert_eq!(size_of(&largest[..9]), Err(EntryFault::Size), "cut off");
        let larger = [0xbf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x08];
        assert_eq!(size_of(&larger), Err(EntryFault::Size), "64 bits");
        assert_eq!(size_of(&[0xff; 10]), Err(EntryFault::Size), "no end");
    }

    #[test]
    fn reserved_types_are_refused_beside_the_six_good_ones() {
        for (kind, good) in [(0, false), (1, true), (2, true), (3, true), (4, true), (5, false), (6, true), (7, true)] {
            assert_eq!(size_of(&[kind << 4]).is_ok(), good, "type {kind}");
        }
    }

    #[test]
    fn distances_count_on_from_the_shorter_spelling() {
        let of = |bytes: &[u8]| {
            let mut rest = bytes;
            distance(|| byte_of(&mut rest, EntryFault::BaseOffset))
        };
        assert_eq!(of(&[0x7f]), Ok(127));
        assert_eq!(of(&[0x80, 0x00]), Ok(128));
        assert_eq!(of(&[0xff, 0x7f]), Ok(16511));
        assert_eq!(of(&[0x80, 0x80, 0x00]), Ok(16512));
        assert_eq!(of(&[0x80]), Err(EntryFault::BaseOffset));
        assert_eq!(of(&[0xff; 12]), Err(EntryFault::BaseOffset));
    }
}
