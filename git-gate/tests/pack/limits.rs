//! Every limit: what is just under it is taken, what is over it is refused with its name and value.

use git_gate::pack::{ObjectFormat, PackLimits, Refused, Sink};
use git_gate::spool::{Spool, SpoolBudget};

use crate::builder::{BLOB, Op, PackBuilder, REF, TREE, blob_name, deflate, delta, noise, tree};
use crate::collector::{Collector, take, take_sha1};
use crate::git::index_pack;

const MIB: usize = 1 << 20;

#[track_caller]
fn over(pack: &[u8], limits: &PackLimits, name: &str, value: u64) {
    let error = take(pack, limits, ObjectFormat::Sha1).unwrap_err().to_string();
    assert_eq!(error, format!("the pack is over the git gate's limit {name} ({value})"));
}

#[track_caller]
fn within(pack: &[u8], limits: &PackLimits) {
    take(pack, limits, ObjectFormat::Sha1).unwrap();
}

#[test]
fn the_packs_own_size() {
    let pack = PackBuilder::sha1().blob(&noise(1, 10_000)).finish();
    let len = pack.len() as u64;
    within(&pack, &PackLimits { pack_bytes_max: len, ..PackLimits::default() });
    for short in [1, 20, 21, 5_000, len - 1, len] {
        over(&pack, &PackLimits { pack_bytes_max: len - short, ..PackLimits::default() }, "pack_bytes", len - short);
    }
}

#[test]
fn the_size_of_an_object_and_of_a_deltas_result() {
    let limits = PackLimits { object_bytes_max: 1000, ..PackLimits::default() };
    let with = |size: usize| PackBuilder::sha1().blob(b"x").blob(&noise(1, size)).finish();
    within(&with(1000), &limits);
    over(&with(1001), &limits, "object_bytes", 1000);
    let grown = |size: usize| {
        let base = noise(1, 500);
        let ops = [Op::Copy(0, 500), Op::Copy(0, (size - 500) as u32)];
        PackBuilder::sha1().blob(&base).on_entry(0, &delta(500, size, &ops)).finish()
    };
    within(&grown(1000), &PackLimits { object_bytes_max: 1000, ..PackLimits::default() });
    over(&grown(1000), &PackLimits { object_bytes_max: 999, ..PackLimits::default() }, "object_bytes", 999);
    // What is only announced counts: nothing is inflated for it.
    let announced = PackBuilder::sha1().raw(BLOB, 1 << 40, b"", b"").finish();
    over(&announced, &PackLimits::default(), "object_bytes", 512 << 20);
    let announced = PackBuilder::sha1().blob(b"base").on_entry(0, &delta(4, 1 << 40, &[Op::Copy(0, 4)])).finish();
    over(&announced, &PackLimits::default(), "object_bytes", 512 << 20);
}

#[test]
fn trees_are_smaller_than_blobs_also_out_of_a_delta() {
    let line = tree(&[("100644", b"name", blob_name(b"x"))]);
    let limits = PackLimits { structured_bytes_max: line.len() as u64 * 2, ..PackLimits::default() };
    let two = line.repeat(2);
    let ops = delta(line.len(), two.len(), &[Op::Copy(0, line.len() as u32), Op::Copy(0, line.len() as u32)]);
    within(&PackBuilder::sha1().whole(TREE, &two).whole(TREE, &line).on_entry(1, &ops).finish(), &limits);
    let value = limits.structured_bytes_max;
    over(&PackBuilder::sha1().whole(TREE, &line.repeat(3)).finish(), &limits, "structured_bytes", value);
    let ops = delta(two.len(), two.len() * 2, &[Op::Copy(0, two.len() as u32), Op::Copy(0, two.len() as u32)]);
    over(&PackBuilder::sha1().whole(TREE, &two).on_entry(0, &ops).finish(), &limits, "structured_bytes", value);
    within(&PackBuilder::sha1().blob(&two).on_entry(0, &ops).finish(), &limits);
}

#[test]
fn everything_inflated_together() {
    let blob = noise(1, 1000);
    let ops = delta(1000, 2000, &[Op::Copy(0, 1000), Op::Copy(0, 1000)]);
    let sum = 1000 + 2000 + ops.len() as u64;
    let pack = PackBuilder::sha1().blob(&blob).on_entry(0, &ops).finish();
    within(&pack, &PackLimits { inflated_bytes_max: sum, ..PackLimits::default() });
    over(&pack, &PackLimits { inflated_bytes_max: sum - 1, ..PackLimits::default() }, "inflated_bytes", sum - 1);
}

#[test]
fn zlib_bombs() {
    let zeros = |size: usize| PackBuilder::sha1().blob(&vec![0; size]).finish();
    // One compressible file is no bomb.
    within(&zeros(64 * MIB), &PackLimits::default());
    over(&zeros(100 * MIB), &PackLimits::default(), "inflated_ratio", 200);
    // With as much beside it as makes the ratio, it is none either.
    let beside = PackBuilder::sha1().blob(&vec![0; 100 * MIB]).blob(&noise(1, MIB)).finish();
    within(&beside, &PackLimits::default());
    // Twenty of them are found before the end of the pack.
    let stream = deflate(&vec![0; 100 * MIB]);
    let many = (0..20).fold(PackBuilder::sha1(), |pack, _| pack.raw(BLOB, 100 << 20, b"", &stream)).finish();
    over(&many[..many.len() / 2 + 600_000], &PackLimits::default(), "inflated_ratio", 200);
}

#[test]
fn delta_bombs() {
    // Each of the deltas makes 16 MiB out of 64 KiB with eight bytes an instruction.
    let base = noise(1, 64 << 10);
    let times = |count: usize| {
        let ops: Vec<Op<'_>> = (0..256).map(|_| Op::Copy(0, 64 << 10)).collect();
        let ops = delta(base.len(), 16 * MIB, &ops);
        (0..count).fold(PackBuilder::sha1().blob(&base), |pack, _| pack.on_entry(0, &ops)).finish()
    };
    within(&times(3), &PackLimits::default());
    over(&times(6), &PackLimits::default(), "inflated_ratio", 200);
}

#[test]
fn how_many_objects() {
    let limits = PackLimits { objects_max: 3, ..PackLimits::default() };
    let with = |count: u8| (0..count).fold(PackBuilder::sha1(), |pack, n| pack.blob(&[n])).finish();
    within(&with(3), &limits);
    over(&with(4), &limits, "objects", 3);
}

/// A blob and so many deltas, each on the one before; all are the same few bytes but for a number.
fn chain(len: u32, by_name: bool) -> Vec<u8> {
    let mut content = format!("{:08}", 0).into_bytes();
    let mut pack = PackBuilder::sha1().blob(&content);
    for number in 1..=len {
        let next = format!("{number:08}").into_bytes();
        let ops = delta(8, 8, &[Op::Insert(&next)]);
        let last = pack.offsets.len() - 1;
        pack = if by_name { pack.on_name(&blob_name(&content), &ops) } else { pack.on_entry(last, &ops) };
        content = next;
    }
    pack.finish()
}

#[test]
fn how_long_a_chain_of_deltas_is() {
    for by_name in [false, true] {
        let (_, objects) = take_sha1(&chain(4095, by_name)).unwrap();
        assert_eq!(objects.len(), 4096);
        over(&chain(4096, by_name), &PackLimits::default(), "delta_depth", 4095);
        let limits = PackLimits { resolver_memory_bytes: 0, ..PackLimits::default() };
        within(&chain(4095, by_name), &limits);
        over(&chain(4096, by_name), &limits, "delta_depth", 4095);
    }
    assert!(take_sha1(&chain(50, false)).unwrap().1 == index_pack(&chain(50, false), ObjectFormat::Sha1).unwrap());
}

/// Every link of a long chain has something else built on it too, so that it is needed twice.
#[test]
fn a_chain_with_a_branch_at_every_link_does_not_fill_the_disk() {
    for by_name in [false, true] {
        let mut content = noise(0, 20_000);
        let mut pack = PackBuilder::sha1().blob(&content);
        let mut last = 0;
        for number in 1..=1500_u32 {
            let front = number.to_le_bytes();
            let next = [&front[..], &content[4..]].concat();
            let ops = delta(20_000, 20_000, &[Op::Insert(&front), Op::Copy(4, 19_996)]);
            let other = delta(20_000, 7, &[Op::Insert(b"id "), Op::Insert(&front)]);
            let name = blob_name(&content);
            pack = if by_name { pack.on_name(&name, &ops) } else { pack.on_entry(last, &ops) };
            pack = if by_name { pack.on_name(&name, &other) } else { pack.on_entry(last, &other) };
            last = pack.offsets.len() - 2;
            content = next;
        }
        let pack = pack.finish();
        let limits = PackLimits { resolver_memory_bytes: 0, inflated_ratio_max: u64::MAX, ..PackLimits::default() };
        // Distances tell which branch is the long one; names do not, and all of it may be held.
        let held = if by_name { 40 << 20 } else { 1 << 20 };
        let budget = SpoolBudget::new(pack.len() as u64 + held);
        let spool = Spool::create(&std::env::temp_dir(), &budget).unwrap();
        let sink = Collector::default();
        let verified =
            git_gate::pack::receive(&mut pack.as_slice(), spool, &limits, ObjectFormat::Sha1, &sink).unwrap();
        assert_eq!(*sink.shown.lock().unwrap(), 3001);
        assert_eq!(budget.used(), verified.bytes(), "what was built on the way still counts");
    }
}

/// Whoever asks first gets all deltas on a name; were each of many objects of that name to ask for each of them, the
/// work would be their product.
#[test]
fn many_objects_of_one_name_and_many_deltas_on_it() {
    const MANY: usize = 20_000;
    let base = deflate(b"base");
    let ops = delta(4, 1, &[Op::Copy(0, 1)]);
    let (size, ops) = (ops.len() as u64, deflate(&ops));
    let pack = (0..MANY).fold(PackBuilder::sha1(), |pack, _| pack.raw(BLOB, 4, b"", &base));
    let name = blob_name(b"base");
    let pack = (0..MANY).fold(pack, |pack, _| pack.raw(REF, size, name.as_slice(), &ops)).finish();
    let (verified, objects) = take_sha1(&pack).unwrap();
    assert_eq!((verified.objects() as usize, objects.len()), (2 * MANY, 2));
}

#[test]
fn the_spool_of_all_pushes_together() {
    let pack = PackBuilder::sha1().blob(&noise(1, 300_000)).finish();
    let budget = SpoolBudget::new(pack.len() as u64 + 1000);
    let receive = || {
        let spool = Spool::create(&std::env::temp_dir(), &budget).unwrap();
        let limits = PackLimits::default();
        git_gate::pack::receive(&mut pack.as_slice(), spool, &limits, ObjectFormat::Sha1, &Collector::default())
    };
    let first = receive().unwrap();
    let error = receive().unwrap_err().to_string();
    assert!(error.contains(&format!("spool of all pushes together is full ({} bytes)", pack.len() + 1000)), "{error}");
    drop(first);
    let again = receive().unwrap();
    assert_eq!(budget.used(), again.bytes());
    drop(again);
    assert_eq!(budget.used(), 0);
}

/// Says no after a while.
struct Impatient;

impl Sink for Impatient {
    fn object(&self, _: git_gate::pack::Object<'_>) -> Result<(), Refused> {
        Ok(())
    }

    fn go_on(&self) -> Result<(), Refused> {
        Err(Refused("time is up".into()))
    }
}

#[test]
fn long_work_asks_whether_to_go_on() {
    let few = PackBuilder::sha1().blob(&noise(1, 1000)).finish();
    let many = PackBuilder::sha1().blob(&noise(1, 2 * MIB)).blob(b"x").finish();
    let ops: Vec<Op<'_>> = (0..40).map(|_| Op::Copy(0, 64 << 10)).collect();
    let built = PackBuilder::sha1().blob(&noise(1, 64 << 10)).on_entry(0, &delta(64 << 10, 40 << 16, &ops)).finish();
    let receive = |pack: &[u8]| {
        let (spool, limits) = (crate::collector::spool(), PackLimits::default());
        git_gate::pack::receive(&mut &pack[..], spool, &limits, ObjectFormat::Sha1, &Impatient)
    };
    receive(&few).unwrap();
    assert_eq!(receive(&many).unwrap_err().to_string(), "time is up");
    assert_eq!(receive(&built).unwrap_err().to_string(), "time is up");
}
