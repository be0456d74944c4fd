//! Packs that no git writes, each beside the one that is right.

use git_gate::pack::{ObjectFormat, ObjectId, PackLimits};

use crate::builder::{
    BLOB, COMMIT, OFS, Op, PackBuilder, TAG, TREE, blob_name, commit, deflate, deflate_with, delta, distance, noise,
    sign, tree,
};
use crate::collector::{take, take_sha1, words};
use crate::git::index_pack;

const BASE: &[u8] = b"the base that other things are built on, long enough to copy from";

/// It is refused, and the words say why.
#[track_caller]
fn refused(pack: &[u8], why: &str) {
    let error = words(&take_sha1(pack).unwrap_err());
    assert!(error.contains(why), "\"{error}\" does not say \"{why}\"");
    assert!(!error.contains("the base that"), "content in an error");
}

/// It is taken, and git takes it too and finds the same.
#[track_caller]
fn taken(pack: &[u8]) {
    let (_, objects) = take_sha1(pack).unwrap();
    assert!(objects == index_pack(pack, ObjectFormat::Sha1).unwrap(), "git finds other objects");
}

fn on_base(ops: &[Op<'_>], result: usize) -> PackBuilder {
    PackBuilder::sha1().blob(BASE).on_entry(0, &delta(BASE.len(), result, ops))
}

#[test]
fn headers() {
    let good = PackBuilder::sha1().blob(BASE).finish();
    taken(&good);
    for (place, byte, why) in
        [(0, b'p', "the word PACK"), (7, 3, "its version"), (7, 1, "its version"), (4, 1, "its version")]
    {
        let mut pack = good[..good.len() - 20].to_vec();
        pack[place] = byte;
        sign(&mut pack, ObjectFormat::Sha1);
        refused(&pack, why);
    }
}

#[test]
fn counts_that_lie() {
    let pack = |count| PackBuilder::sha1().blob(BASE).blob(b"other").finish_saying(count);
    taken(&pack(2));
    // One fewer: the second entry is where the trailer should be.
    refused(&pack(1), "checksum is wrong");
    refused(&pack(0), "checksum is wrong");
    // One more: the trailer is where an entry should be. Whatever it is read as, it is none.
    take_sha1(&pack(3)).unwrap_err();
    take_sha1(&pack(1_999_999)).unwrap_err();
    refused(&pack(2_000_001), "objects (2000000)");
    refused(&pack(u32::MAX), "objects (2000000)");
}

#[test]
fn checksums_that_lie() {
    let good = PackBuilder::sha1().blob(BASE).finish();
    for place in good.len() - 20..good.len() {
        let mut pack = good.clone();
        pack[place] ^= 1;
        refused(&pack, "checksum is wrong");
    }
}

#[test]
fn types() {
    let id = blob_name(BASE);
    let tree = tree(&[("100644", b"a", id)]);
    let tree_id = crate::builder::name(ObjectFormat::Sha1, git_gate::pack::ObjectKind::Tree, &tree);
    let tag = format!("object {id}\ntype blob\ntag v1\ntagger A <a@example.org> 1700000000 +0000\n\nwords\n");
    let commit = commit(&tree_id, &[]);
    let pack = PackBuilder::sha1().blob(BASE).whole(TREE, &tree).whole(COMMIT, &commit).whole(TAG, tag.as_bytes());
    taken(&pack.finish());
    for reserved in [0, 5] {
        refused(&PackBuilder::sha1().blob(BASE).whole(reserved, BASE).finish(), "entry 1 at offset ");
        refused(&PackBuilder::sha1().blob(BASE).whole(reserved, BASE).finish(), "its type is a reserved one");
    }
}

#[test]
fn sizes_that_lie() {
    let stream = deflate(BASE);
    let size = BASE.len() as u64;
    taken(&PackBuilder::sha1().raw(BLOB, size, b"", &stream).blob(b"next").finish());
    refused(
        &PackBuilder::sha1().raw(BLOB, size - 1, b"", &stream).blob(b"next").finish(),
        "more bytes than its header",
    );
    refused(
        &PackBuilder::sha1().raw(BLOB, size + 1, b"", &stream).blob(b"next").finish(),
        "fewer bytes than its header",
    );
    refused(&PackBuilder::sha1().raw(BLOB, 0, b"", &stream).blob(b"next").finish(), "more bytes than its header");
    refused(
        &PackBuilder::sha1().raw(BLOB, 1, b"", &deflate(b"")).blob(b"next").finish(),
        "fewer bytes than its header",
    );
    taken(&PackBuilder::sha1().raw(BLOB, 0, b"", &deflate(b"")).blob(b"next").finish());
    // The same for what is too large to be held, and for deltas.
    let large = noise(1, 5 << 20);
    let stream = deflate_with(&large, 1);
    let size = large.len() as u64;
    taken(&PackBuilder::sha1().raw(BLOB, size, b"", &stream).blob(b"next").finish());
    refused(&PackBuilder::sha1().raw(BLOB, size - 1, b"", &stream).finish(), "more bytes than its header");
    refused(&PackBuilder::sha1().raw(BLOB, size + 1, b"", &stream).finish(), "fewer bytes than its header");
    let ops = delta(BASE.len(), 4, &[Op::Copy(0, 4)]);
    for (size, why) in [(ops.len() - 1, "more bytes than its header"), (ops.len() + 1, "fewer bytes than its header")] {
        let between = distance(PackBuilder::sha1().blob(BASE).len() - 12);
        let pack = PackBuilder::sha1().blob(BASE).raw(OFS, size as u64, &between, &deflate(&ops));
        refused(&pack.finish(), why);
    }
    // A size of more than 63 bits, and one that is not written the shortest way.
    for header in [&[0xbf_u8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x08][..], &[0xff; 16], &[0xb0, 0x80, 0]]
    {
        let mut pack = b"PACK\0\0\0\x02\0\0\0\x01".to_vec();
        pack.extend_from_slice(header);
        pack.extend_from_slice(&deflate(b""));
        sign(&mut pack, ObjectFormat::Sha1);
        let error = take_sha1(&pack).unwrap_err().to_string();
        assert!(error.contains("its size is not a size") || error.contains("reserved"), "{error}");
    }
}

#[test]
fn zlib_streams() {
    let size = BASE.len() as u64;
    let stream = deflate(BASE);
    let with = |stream: &[u8]| PackBuilder::sha1().raw(BLOB, size, b"", stream).blob(b"next").finish();
    taken(&with(&stream));
    // Stored blocks, the fastest and the best way are all the same bytes.
    (0..=9).for_each(|level| taken(&with(&deflate_with(BASE, level))));
    let mut wrong_sum = stream.clone();
    *wrong_sum.last_mut().unwrap() ^= 1;
    refused(&with(&wrong_sum), "zlib stream is damaged");
    // Bytes between the streams would be read as an entry by one and skipped by another.
    take_sha1(&with(&[&stream[..], b"x"].concat())).unwrap_err();
    take_sha1(&with(&stream[..stream.len() - 1])).unwrap_err();
    take_sha1(&with(&stream[..stream.len() - 4])).unwrap_err();
    take_sha1(&with(b"")).unwrap_err();
    // A dictionary that nobody has, raw deflate and gzip.
    let mut dictionary = stream.clone();
    dictionary[0] = 0x78;
    dictionary[1] = 0xbb;
    refused(&with(&dictionary), "zlib stream is damaged");
    refused(&with(&stream[2..]), "zlib stream is damaged");
    refused(&with(b"\x1f\x8b\x08\0\0\0\0\0\0\x03"), "zlib stream is damaged");
}

#[test]
fn distances_to_bases() {
    let ops = delta(BASE.len(), 4, &[Op::Copy(0, 4)]);
    let two = || PackBuilder::sha1().blob(BASE).blob(b"between");
    let (first, second, end) = {
        let pack = two();
        (pack.offsets[0], pack.offsets[1], pack.len())
    };
    taken(&two().on_distance(end - first, &ops).finish());
    for (back, what) in [
        (0, "itself"),
        (end - first - 1, "the middle of an entry"),
        (end - first + 1, "the header"),
        (end - 4, "the header's middle"),
        (end, "the pack's first byte"),
        (end + 1, "before the pack"),
        (1 << 40, "far before the pack"),
        (u64::MAX >> 9, "very far before the pack"),
    ] {
        let error = words(&take_sha1(&two().on_distance(back, &ops).finish()).unwrap_err());
        assert!(error.contains("its base offset is not the start of an earlier entry"), "{what}: {error}");
    }
    // Another entry is a base too, but not for these sizes.
    refused(&two().on_distance(end - second, &ops).finish(), "for a base of another size");
    // A distance that does not end.
    refused(&two().raw(OFS, ops.len() as u64, &[0xff; 12], &deflate(&ops)).finish(), "its base offset");
}

#[test]
fn names_of_bases() {
    let ops = delta(BASE.len(), 4, &[Op::Copy(0, 4)]);
    let result = blob_name(&BASE[..4]);
    let good = || PackBuilder::sha1().blob(BASE).on_name(&blob_name(BASE), &ops);
    taken(&good().finish());
    // The base may come later, and may be a delta itself.
    taken(&PackBuilder::sha1().on_name(&blob_name(BASE), &ops).blob(BASE).finish());
    let onward = delta(4, 8, &[Op::Copy(0, 4), Op::Copy(0, 4)]);
    taken(&PackBuilder::sha1().on_name(&result, &onward).on_name(&blob_name(BASE), &ops).blob(BASE).finish());
    // Not there: a thin pack, a delta on itself, a circle, and a chain onto one of these.
    let thin = "deltas have no base in the pack, the first is entry ";
    refused(&good().on_name(&blob_name(b"elsewhere"), &ops).finish(), thin);
    refused(&good().on_name(&blob_name(b"elsewhere"), &ops).finish(), "1 deltas have no base");
    let lonely = delta(BASE.len(), 9, &[Op::Insert(b"by itself")]);
    refused(&PackBuilder::sha1().blob(BASE).on_name(&blob_name(b"by itself"), &lonely).finish(), thin);
    let (a, b) = (delta(1, 1, &[Op::Insert(b"a")]), delta(1, 1, &[Op::Insert(b"b")]));
    let circle = PackBuilder::sha1().on_name(&blob_name(b"b"), &a).on_name(&blob_name(b"a"), &b);
    refused(&circle.on_name(&blob_name(b"b"), &a).finish(), "3 deltas have no base");
    // Two with one name: both are shown, and what stands on the name is built once (git itself would not take that).
    taken(&PackBuilder::sha1().blob(BASE).blob(BASE).finish());
    take_sha1(&PackBuilder::sha1().blob(BASE).blob(BASE).on_name(&blob_name(BASE), &ops).finish()).unwrap();
    let (_, objects) = take_sha1(&good().on_name(&blob_name(BASE), &ops).on_entry(0, &ops).finish()).unwrap();
    assert_eq!(objects.len(), 2);
}

#[test]
fn delta_instructions() {
    let len = BASE.len();
    let end = len as u32;
    taken(&on_base(&[Op::Copy(0, end)], len).finish());
    taken(&on_base(&[Op::Copy(end - 1, 1), Op::Insert(b"text"), Op::Copy(0, 1)], 6).finish());
    taken(&on_base(&[Op::Insert(&noise(3, 127))], 127).finish());
    for (ops, result, why) in [
        (&[Op::Copy(0, end + 1)][..], len + 1, "copies from outside of its base"),
        (&[Op::Copy(end, 1)], 1, "copies from outside of its base"),
        (&[Op::Copy(u32::MAX, 0xff_ffff)], 0xff_ffff, "copies from outside of its base"),
        // A size of nothing means 65,536.
        (&[Op::Raw(&[0x80])], 0x1_0000, "copies from outside of its base"),
        (&[Op::Copy(0, 4), Op::Raw(&[0])], 4, "reserved instruction"),
        (&[Op::Raw(&[0]), Op::Copy(0, 4)], 4, "reserved instruction"),
        (&[Op::Copy(0, 4)], 5, "another number of bytes than it says"),
        (&[Op::Copy(0, 4)], 3, "another number of bytes than it says"),
        (&[Op::Insert(b"four")], 3, "another number of bytes than it says"),
        (&[Op::Insert(b"four"), Op::Insert(b"more")], 4, "another number of bytes than it says"),
        (&[Op::Raw(&[5, b'x'])], 5, "ends too early"),
        (&[Op::Raw(&[0x7f])], 127, "ends too early"),
        (&[Op::Raw(&[0x81])], 4, "ends too early"),
        (&[Op::Raw(&[0xff, 0, 0, 0, 0, 1, 0])], 1, "ends too early"),
        (&[], 1, "another number of bytes than it says"),
    ] {
        refused(&on_base(ops, result).finish(), why);
        // And in the spool, where there is no memory for it.
        let limits = PackLimits { resolver_memory_bytes: 0, ..PackLimits::default() };
        let error = words(&take(&on_base(ops, result).finish(), &limits, ObjectFormat::Sha1).unwrap_err());
        assert!(error.contains(why), "{error}");
        assert!(error.contains("entry 1 at offset "), "{error}");
    }
    for wrong in [len - 1, len + 1, 0, usize::MAX >> 2] {
        let ops = delta(wrong, 4, &[Op::Copy(0, 4)]);
        refused(&PackBuilder::sha1().blob(BASE).on_entry(0, &ops).finish(), "for a base of another size");
    }
    // Too short for its own sizes, and sizes without end.
    for ops in
        [&b""[..], b"\x41", b"\x80", &[0xff; 30], &[0x41, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]]
    {
        refused(&PackBuilder::sha1().blob(BASE).on_entry(0, ops).finish(), "ends too early");
    }
}

#[test]
fn objects_without_the_form_of_their_kind() {
    let id = blob_name(BASE);
    let good = commit(&id, &[]);
    take_sha1(&PackBuilder::sha1().whole(COMMIT, &good).finish()).unwrap();
    for (kind, content, why) in [
        (COMMIT, &b"words"[..], "no well-formed commit: it does not start with its tree"),
        (COMMIT, &good[..40], "no well-formed commit: it does not start with its tree"),
        (TREE, b"100644 name\0short", "no well-formed tree: it ends in an entry"),
        (TREE, b"words", "no well-formed tree: an entry has no mode"),
        (TAG, b"words", "no well-formed tag: it does not start with its object"),
    ] {
        refused(&PackBuilder::sha1().whole(kind, content).finish(), why);
        // Out of a delta too.
        let ops = delta(good.len(), content.len(), &[Op::Insert(content)]);
        if kind == COMMIT {
            refused(&PackBuilder::sha1().whole(kind, &good).on_entry(0, &ops).finish(), why);
        }
    }
    // A blob may hold anything.
    taken(&PackBuilder::sha1().blob(b"100644 name\0short").blob(b"words").finish());
}

/// A small pack with one of everything.
fn small() -> Vec<u8> {
    let id = blob_name(BASE);
    let tree = tree(&[("100644", b"a", id)]);
    let tree_id = crate::builder::name(ObjectFormat::Sha1, git_gate::pack::ObjectKind::Tree, &tree);
    let ops = delta(BASE.len(), 8, &[Op::Copy(3, 4), Op::Insert(b"text")]);
    let pack = PackBuilder::sha1().blob(BASE).whole(TREE, &tree).whole(COMMIT, &commit(&tree_id, &[]));
    pack.on_entry(0, &ops).on_name(&id, &ops).finish()
}

#[test]
fn a_pack_cut_off_anywhere_is_refused() {
    let pack = small();
    taken(&pack);
    for len in 0..pack.len() {
        // Nothing follows: the connection ends here.
        let answer = git_gate::pack::receive(
            &mut &pack[..len],
            crate::collector::spool(),
            &PackLimits::default(),
            ObjectFormat::Sha1,
            &crate::collector::Collector::default(),
        );
        assert_eq!(answer.unwrap_err().to_string(), format!("the pack ends too early, after {len} bytes"));
    }
}

#[test]
fn no_flipped_bit_gives_other_objects_than_git_finds() {
    let pack = small();
    let mut accepted = 0;
    for bit in 0..pack.len() * 8 {
        let mut flipped = pack.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        take_sha1(&flipped).unwrap_err();
        // And with a checksum that is right again.
        flipped.truncate(pack.len() - 20);
        sign(&mut flipped, ObjectFormat::Sha1);
        if bit / 8 < pack.len() - 20
            && let Ok((verified, objects)) = take_sha1(&flipped)
        {
            assert_eq!(verified.bytes(), flipped.len() as u64);
            assert!(objects == index_pack(&flipped, ObjectFormat::Sha1).unwrap(), "bit {bit}: git finds other objects");
            accepted += 1;
        }
    }
    // zlib's header has bits that say nothing; nearly all others say something.
    assert!(accepted < 100, "{accepted} flips were accepted");
}

#[test]
fn sha256_packs_have_longer_names_and_trailers() {
    let format = ObjectFormat::Sha256;
    let ops = delta(BASE.len(), 4, &[Op::Copy(0, 4)]);
    let name = crate::builder::name(format, git_gate::pack::ObjectKind::Blob, BASE);
    let pack = PackBuilder::new(format).blob(BASE).on_name(&name, &ops).on_entry(0, &ops).finish();
    let (_, objects) = take(&pack, &PackLimits::default(), format).unwrap();
    assert!(objects == index_pack(&pack, format).unwrap());
    take_sha1(&pack).unwrap_err();
    let mut cut = pack[..pack.len() - 32].to_vec();
    sign(&mut cut, ObjectFormat::Sha1);
    take(&cut, &PackLimits::default(), format).unwrap_err();
    let short = ObjectId::from_bytes_or_panic(&name.as_slice()[..20]);
    take(&PackBuilder::new(format).blob(BASE).on_name(&short, &ops).finish(), &PackLimits::default(), format)
        .unwrap_err();
}
