//! Objects that do not fit into memory: they are streams to the sink, and deltas on them are built on disk.

use git_gate::pack::{ObjectFormat, PackLimits};

use crate::builder::{Op, PackBuilder, blob_name, delta, noise};
use crate::collector::{Collector, spool};
use crate::git::{Repository, index_pack};

#[test]
fn a_file_of_100_mib_from_git() {
    let repository = Repository::new(ObjectFormat::Sha1);
    repository.git(&["config", "core.compression", "1"]);
    let large = noise(5, 100 << 20);
    repository.write("large.bin", &large);
    repository.write("small.txt", b"small\n");
    repository.commit("large");
    let pack = repository.pack(&["--all", "--window=0"], "");
    let sink = Collector::default();
    let limits = PackLimits::default();
    let format = ObjectFormat::Sha1;
    let verified = git_gate::pack::receive(&mut pack.as_slice(), spool(), &limits, format, &sink).unwrap();
    let oid = repository.oid("HEAD:large.bin");
    assert!(sink.objects.lock().unwrap()[&oid].1 == large, "other bytes");
    assert_eq!(*sink.streams.lock().unwrap(), 1);
    assert_eq!(verified.path_of(&oid).unwrap().unwrap().path, b"large.bin");
    assert_eq!(sink.objects.into_inner().unwrap().len(), 4);
}

#[test]
fn deltas_on_and_to_large_blobs_are_built_on_disk() {
    let large = noise(6, 24 << 20);
    let len = large.len() as u32;
    // Larger than memory on larger than memory, small on large, large again on small.
    let (front, rest) = (len / 3, len - len / 3);
    let turned = [&large[front as usize..], &large[..front as usize], b"end"].concat();
    let small = large[1000..60_000].to_vec();
    let mut turn = copies(front, rest);
    turn.extend(copies(0, front));
    turn.push(Op::Insert(b"end"));
    let many: Vec<Op<'_>> = (0..400).map(|_| Op::Copy(0, 59_000)).collect();
    let pack = PackBuilder::sha1()
        .blob(&large)
        .on_entry(0, &delta(large.len(), turned.len(), &turn))
        .on_entry(1, &delta(turned.len(), small.len(), &[Op::Copy(rest + 1000, 59_000)]))
        .on_entry(2, &delta(small.len(), 3, &[Op::Copy(0, 3)]))
        .on_name(&blob_name(&small), &delta(small.len(), 59_000 * 400, &many))
        .finish();
    let sink = Collector::default();
    git_gate::pack::receive(&mut pack.as_slice(), spool(), &PackLimits::default(), ObjectFormat::Sha1, &sink).unwrap();
    assert!(*sink.streams.lock().unwrap() >= 3);
    let objects = sink.objects.into_inner().unwrap();
    assert!(objects == index_pack(&pack, ObjectFormat::Sha1).unwrap(), "git finds other objects");
}

/// So many bytes from there, in as many instructions as it takes.
fn copies(from: u32, len: u32) -> Vec<Op<'static>> {
    const MOST: u32 = 0xff_ffff;
    (0..len.div_ceil(MOST)).map(|n| Op::Copy(from + n * MOST, MOST.min(len - n * MOST))).collect()
}
