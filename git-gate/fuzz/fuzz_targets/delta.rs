//! Packs of good zlib streams: any objects, any deltas on any of them, by distance and by name. What comes out is
//! compared with a second way of carrying deltas out that knows nothing of the first.
#![no_main]

use git_gate::pack::{ObjectFormat, ObjectId};
use git_gate_fuzz::{deflate, pack_of, take};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Entry {
    Blob(Vec<u8>),
    /// A delta with any bytes.
    Wild { base: Base, bytes: Vec<u8> },
    /// A delta of instructions; its sizes are right but for what is added to them.
    Made { base: Base, ops: Vec<Op>, base_off: i8, result_off: i8, tail: Vec<u8> },
}

#[derive(Arbitrary, Debug)]
enum Base {
    Distance(u8),
    /// The name of an entry before or after, as far as it is known.
    Name(u8),
}

#[derive(Arbitrary, Debug)]
enum Op {
    Copy(u16, u16),
    Far(u32, u32),
    Insert(Vec<u8>),
}

/// The second way: slow, simple, on whole vectors.
fn apply(base: &[u8], delta: &[u8]) -> Option<Vec<u8>> {
    let mut at = 0;
    let mut next = || {
        let byte = delta.get(at).copied();
        at += 1;
        byte
    };
    let mut size = || {
        let (mut value, mut shift) = (0u128, 0);
        loop {
            let byte = next()?;
            value |= u128::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return (shift <= 63 && (byte != 0 || shift == 7)).then_some(value);
            }
            if shift > 63 {
                return None;
            }
        }
    };
    let (from, to) = (size()?, size()?);
    if from != base.len() as u128 {
        return None;
    }
    let mut out = Vec::new();
    while let Some(op) = next() {
        if op == 0 {
            return None;
        } else if op < 0x80 {
            for _ in 0..op {
                out.push(next()?);
            }
        } else {
            let (mut start, mut len) = (0usize, 0usize);
            for bit in 0..4 {
                if op >> bit & 1 == 1 {
                    start += usize::from(next()?) << (8 * bit);
                }
            }
            for bit in 0..3 {
                if op >> (4 + bit) & 1 == 1 {
                    len += usize::from(next()?) << (8 * bit);
                }
            }
            if len == 0 {
                len = 65536;
            }
            out.extend_from_slice(base.get(start..start + len)?);
        }
        if out.len() as u128 > to {
            return None;
        }
    }
    (out.len() as u128 == to).then_some(out)
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn header(kind: u8, size: usize, out: &mut Vec<u8>) {
    let first = kind << 4 | (size & 15) as u8;
    if size < 16 {
        out.push(first);
    } else {
        out.push(first | 0x80);
        varint(size as u64 >> 4, out);
    }
}

fn name(content: &[u8]) -> ObjectId {
    let mut hasher = gix_hash::hasher(ObjectFormat::Sha1);
    hasher.update(format!("blob {}\0", content.len()).as_bytes());
    hasher.update(content);
    hasher.try_finalize().expect("no attack")
}

fn made(ops: &[Op], base: usize, base_off: i8, result_off: i8, tail: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    let mut result = 0usize;
    for op in ops {
        match op {
            Op::Copy(start, len) => {
                body.extend_from_slice(&[0x80 | 0x33, *start as u8, (*start >> 8) as u8, *len as u8, (*len >> 8) as u8]);
                result += if *len == 0 { 65536 } else { usize::from(*len) };
            }
            Op::Far(start, len) => {
                body.push(0xff);
                body.extend_from_slice(&start.to_le_bytes());
                body.extend_from_slice(&len.to_le_bytes()[..3]);
                result += (*len & 0xff_ffff) as usize;
            }
            Op::Insert(bytes) => {
                for part in bytes.chunks(127) {
                    body.push(part.len() as u8);
                    body.extend_from_slice(part);
                    result += part.len();
                }
            }
        }
    }
    let mut delta = Vec::new();
    varint((base as u64).saturating_add_signed(base_off.into()), &mut delta);
    varint((result as u64).saturating_add_signed(result_off.into()), &mut delta);
    delta.extend(body);
    delta.extend_from_slice(tail);
    delta
}

fuzz_target!(|entries: Vec<Entry>| {
    if entries.len() > 40 {
        return;
    }
    let mut bytes = Vec::new();
    let mut offsets: Vec<usize> = Vec::new();
    // What each entry should come to; `None` when it is wrong, and so is the whole pack.
    let mut contents: Vec<Option<Vec<u8>>> = Vec::new();
    for entry in &entries {
        let offset = bytes.len() + 12;
        let (base, delta) = match entry {
            Entry::Blob(content) => {
                header(3, content.len(), &mut bytes);
                bytes.extend(deflate(content));
                offsets.push(offset);
                contents.push(Some(content.clone()));
                continue;
            }
            Entry::Wild { base, bytes } => (base, Err(bytes)),
            Entry::Made { base, ops, base_off, result_off, tail } => (base, Ok((ops, *base_off, *result_off, tail))),
        };
        let (Base::Distance(number) | Base::Name(number)) = base;
        let number = usize::from(*number).checked_rem(offsets.len());
        let content = number.and_then(|number| contents[number].as_deref());
        let delta = match delta {
            Err(wild) => wild.clone(),
            Ok((ops, base_off, result_off, tail)) => made(ops, content.map_or(0, <[u8]>::len), base_off, result_off, tail),
        };
        let result = content.and_then(|content| apply(content, &delta));
        match (base, number) {
            (Base::Distance(_), Some(number)) => {
                header(6, delta.len(), &mut bytes);
                let mut back = offset - offsets[number];
                let mut distance = vec![(back & 0x7f) as u8];
                while back >> 7 > 0 {
                    back = (back >> 7) - 1;
                    distance.insert(0, (back & 0x7f) as u8 | 0x80);
                }
                bytes.extend(distance);
            }
            (Base::Name(_) | Base::Distance(_), _) => {
                header(7, delta.len(), &mut bytes);
                bytes.extend_from_slice(name(content.unwrap_or(b"no such object")).as_slice());
            }
        }
        bytes.extend(deflate(&delta));
        offsets.push(offset);
        contents.push(result);
    }
    let pack = pack_of(entries.len() as u32, &bytes, ObjectFormat::Sha1);
    match take(&pack, ObjectFormat::Sha1) {
        Ok((_, shown)) => {
            let mut expected: Vec<_> = contents.into_iter().map(|content| content.expect("a wrong delta was accepted")).collect();
            expected.sort();
            expected.dedup();
            let mut got: Vec<_> = shown.into_values().map(|(_, content, _)| content).collect();
            got.sort();
            assert!(got == expected, "other contents");
        }
        Err(error) => {
            let words = error.to_string();
            // Depth, size and ratio are limits of their own.
            assert!(words.contains("limit") || contents.iter().any(Option::is_none), "a good pack was refused: {words}");
        }
    }
});
