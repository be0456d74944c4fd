//! Packs of real git: the same objects with the same content come out as git itself finds in them.

use git_gate::pack::{ObjectFormat, PackLimits};

use crate::builder::noise;
use crate::collector::{Collector, spool, take};
use crate::git::{Repository, index_pack};

/// A history with everything: changed and unchanged files, folders, a merge, tags, a submodule, a symbolic link.
fn history(format: ObjectFormat) -> Repository {
    let repository = Repository::new(format);
    let mut text: Vec<String> =
        (0..2000).map(|line| format!("line {line} of a file that changes now and then\n")).collect();
    for round in 0..60 {
        text[round * 31] = format!("round {round} was here\n");
        repository.write("src/changes.txt", text.concat().as_bytes());
        repository
            .write(&format!("src/deep/er/{round}/new.txt"), format!("new in round {round}\n").repeat(round).as_bytes());
        if round % 7 == 0 {
            repository.write("binary.bin", &noise(round as u64, 30_000 + round));
            repository.write("empty", b"");
        }
        repository.commit(&format!("round {round}"));
    }
    std::os::unix::fs::symlink("src/changes.txt", repository.path().join("link")).unwrap();
    let commit = repository.commit("a link");
    repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},module")]);
    repository.git(&["commit", "-qm", "a submodule"]);
    repository.git(&["checkout", "-qb", "side", "HEAD~20"]);
    repository.write("side.txt", b"side\n");
    repository.commit("side");
    repository.git(&["merge", "-q", "-m", "merge", "main"]);
    repository.git(&["tag", "-a", "-m", "a tag", "v1"]);
    repository.git(&["tag", "-a", "-m", "a tag on a tag", "v2", "v1"]);
    repository.git(&["tag", "-a", "-m", "a tag on a blob", "v3", "HEAD:side.txt"]);
    repository
}

#[test]
fn every_sort_of_pack_gives_the_objects_that_git_finds() {
    for format in [ObjectFormat::Sha1, ObjectFormat::Sha256] {
        let repository = history(format);
        for options in [
            &["--delta-base-offset"][..],
            &[],
            &["--depth=0"],
            &["--depth=250", "--window=100", "--delta-base-offset"],
            &["--depth=4095", "--window=50"],
            &["--compression=0", "--delta-base-offset"],
            &["--compression=9"],
            &["--window-memory=1k", "--delta-base-offset"],
            &["--no-reuse-delta", "--threads=1", "--delta-base-offset"],
        ] {
            let pack = repository.pack(&[&["--all"], options].concat(), "");
            let (verified, objects) = take(&pack, &PackLimits::default(), format).unwrap();
            assert!(objects.len() > 300, "{} objects", objects.len());
            assert_eq!(verified.objects() as usize, objects.len());
            assert_eq!(verified.bytes(), pack.len() as u64);
            assert!(objects == index_pack(&pack, format).unwrap(), "{format:?} {options:?}: other objects");
        }
    }
}

#[test]
fn deltas_resolve_the_same_without_memory() {
    for format in [ObjectFormat::Sha1, ObjectFormat::Sha256] {
        let repository = history(format);
        for options in [&["--depth=250", "--window=100", "--delta-base-offset"][..], &["--depth=250", "--window=100"]] {
            let pack = repository.pack(&[&["--all"], options].concat(), "");
            let limits = PackLimits { resolver_memory_bytes: 0, ..PackLimits::default() };
            let (_, objects) = take(&pack, &limits, format).unwrap();
            assert!(objects == index_pack(&pack, format).unwrap(), "{format:?} {options:?}: other objects");
        }
    }
}

#[test]
fn an_empty_pack_is_a_pack() {
    for (format, len) in [(ObjectFormat::Sha1, 32), (ObjectFormat::Sha256, 44)] {
        let pack = Repository::new(format).pack(&[], "");
        assert_eq!(pack.len(), len);
        let (verified, objects) = take(&pack, &PackLimits::default(), format).unwrap();
        assert_eq!((verified.objects(), verified.bytes(), objects.len()), (0, len as u64, 0));
        // The wrong hash makes it too long or too short.
        let other = if format == ObjectFormat::Sha1 { ObjectFormat::Sha256 } else { ObjectFormat::Sha1 };
        take(&pack, &PackLimits::default(), other).unwrap_err();
    }
}

#[test]
fn a_thin_pack_is_refused_and_the_whole_one_is_taken() {
    let repository = Repository::new(ObjectFormat::Sha1);
    let text: Vec<String> = (0..3000).map(|line| format!("line {line}\n")).collect();
    repository.write("a.txt", text.concat().as_bytes());
    repository.commit("first");
    repository.write("a.txt", format!("{}one more\n", text.concat()).as_bytes());
    repository.commit("second");
    for offsets in [&["--delta-base-offset"][..], &[]] {
        let thin = repository.pack(&[&["--thin"], offsets].concat(), "main\n^main~1\n");
        let whole = repository.pack(offsets, "main\n^main~1\n");
        assert!(thin.len() < whole.len());
        let error = take(&thin, &PackLimits::default(), ObjectFormat::Sha1).unwrap_err().to_string();
        assert!(error.starts_with("1 deltas have no base in the pack, the first is entry "), "{error}");
        assert!(error.contains("no-thin"), "{error}");
        take(&whole, &PackLimits::default(), ObjectFormat::Sha1).unwrap();
    }
}

#[test]
fn the_sink_ends_it_and_the_next_pack_is_taken() {
    let repository = history(ObjectFormat::Sha1);
    let pack = repository.pack(&["--all", "--delta-base-offset"], "");
    for word in [&b"round 7 was here"[..], b"round 0\n", b"a tag on a tag"] {
        let sink = Collector { refuses: Some(word), ..Collector::default() };
        let limits = PackLimits::default();
        let answer = git_gate::pack::receive(&mut pack.as_slice(), spool(), &limits, ObjectFormat::Sha1, &sink);
        assert_eq!(answer.unwrap_err().to_string(), "the sink has seen enough");
        take(&pack, &limits, ObjectFormat::Sha1).unwrap();
    }
}
