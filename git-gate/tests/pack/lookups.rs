//! What can be asked of a verified pack: paths, parents, descent.

use git_gate::pack::{Descent, Found, Lookup, ObjectFormat, ObjectId, ObjectKind, PackLimits, Verified};

use crate::builder::{COMMIT, PackBuilder, TREE, blob_name, commit, name, tree};
use crate::collector::{take, take_sha1};
use crate::git::Repository;

fn found(pack: &Verified, oid: &ObjectId) -> Option<(String, ObjectId)> {
    let answer = pack.path_of(oid).unwrap();
    answer.map(|Found { path, commit }| (String::from_utf8(path).unwrap(), commit))
}

#[test]
fn paths_and_history_are_those_that_git_has() {
    for format in [ObjectFormat::Sha1, ObjectFormat::Sha256] {
        let repository = Repository::new(format);
        repository.write("old.txt", b"old\n");
        let before = repository.commit("before the push");
        repository.write("a/b/c/deep.txt", b"deep\n");
        repository.write("a/secret.env", b"password\n");
        let first = repository.commit("first");
        std::fs::remove_file(repository.path().join("a/secret.env")).unwrap();
        repository.write("a/b/other.txt", b"other\n");
        let second = repository.commit("second");
        repository.git(&["tag", "-a", "-m", "tag", "v1"]);
        repository.git(&["checkout", "-q", "-b", "side", &before.to_string()]);
        repository.write("side.txt", b"side\n");
        let side = repository.commit("side");
        repository.git(&["merge", "-q", "-m", "merge", "main"]);
        let merge = repository.oid("HEAD");
        let pack = repository.pack(&["--delta-base-offset"], &format!("side\nmain\nv1\n^{before}\n"));
        let (pack, objects) = take(&pack, &PackLimits::default(), format).unwrap();

        let secret = repository.oid(&format!("{first}:a/secret.env"));
        assert_eq!(found(&pack, &secret), Some(("a/secret.env".into(), first)));
        assert_eq!(found(&pack, &repository.oid(&format!("{first}:a/b/c"))), Some(("a/b/c".into(), first)));
        assert_eq!(found(&pack, &repository.oid("main:a/b/other.txt")), Some(("a/b/other.txt".into(), second)));
        assert_eq!(found(&pack, &repository.oid("side:side.txt")), Some(("side.txt".into(), side)));
        for none in [first, repository.oid("v1"), repository.oid("main^{tree}"), repository.oid("main:old.txt")] {
            assert_eq!(found(&pack, &none), None);
        }
        let asked = [first, secret, repository.oid("main:a/b/other.txt"), secret];
        let paths: Vec<_> =
            pack.paths_of(&asked).unwrap().into_iter().map(|found| found.map(|found| found.path)).collect();
        assert_eq!(
            paths,
            [None, Some(b"a/secret.env".to_vec()), Some(b"a/b/other.txt".to_vec()), Some(b"a/secret.env".to_vec())]
        );

        // Removed again, but still in the history.
        assert_eq!(pack.lookup(&first, b"a/secret.env").unwrap(), Lookup::Object(secret));
        assert_eq!(pack.lookup(&second, b"a/secret.env").unwrap(), Lookup::Absent);
        assert_eq!(
            pack.lookup(&second, b"a/b/c/deep.txt").unwrap(),
            Lookup::Object(repository.oid("main:a/b/c/deep.txt"))
        );
        assert_eq!(pack.lookup(&second, b"a/b/other.txt/below").unwrap(), Lookup::Absent);
        assert_eq!(pack.lookup(&before, b"old.txt").unwrap(), Lookup::NotInPack(before));

        assert_eq!(pack.parents_of(&merge).unwrap(), Some(vec![side, second]));
        assert_eq!(pack.parents_of(&first).unwrap(), Some(vec![before]));
        assert_eq!(pack.parents_of(&before).unwrap(), None);
        assert_eq!(pack.parents_of(&secret).unwrap(), None);
        assert_eq!(pack.boundary(16).unwrap(), [before]);
        assert!(pack.boundary(0).unwrap().is_empty());
        let mut commits: Vec<_> = pack.commits().collect();
        commits.sort();
        let mut expected = vec![first, second, side, merge];
        expected.sort();
        assert_eq!(commits, expected);

        for (new, old) in [(merge, first), (merge, before), (second, before), (second, second), (before, before)] {
            assert_eq!(pack.descends(&new, &old, 100).unwrap(), Descent::Proven, "{new} after {old}");
        }
        assert_eq!(pack.descends(&second, &side, 100).unwrap(), Descent::GoesOnAt(vec![before]));
        let elsewhere = ObjectId::null(format);
        assert_eq!(pack.descends(&elsewhere, &first, 100).unwrap(), Descent::GoesOnAt(vec![elsewhere]));
        let error = pack.descends(&merge, &elsewhere, 3).unwrap_err().to_string();
        assert_eq!(error, "over 3 commits would have to be read");
        pack.descends(&merge, &elsewhere, 4).unwrap();

        for (oid, (kind, content)) in &objects {
            assert_eq!(pack.kind_of(oid), Some(*kind));
            assert_eq!(pack.read(oid, 1 << 20).unwrap(), Some((*kind, content.clone())));
        }
        assert_eq!(pack.read(&secret, 9).unwrap().unwrap().1, b"password\n");
        assert_eq!(pack.read(&secret, 8).unwrap_err().to_string(), format!("object {secret} is too large for this"));
        assert_eq!(pack.read(&before, 1 << 20).unwrap(), None);
        assert_eq!(pack.kind_of(&before), None);
    }
}

#[test]
fn names_may_be_any_bytes() {
    let oid = blob_name(b"x");
    let tree = tree(&[("100644", b"\xff\n\x1b[31m", oid)]);
    let id = name(ObjectFormat::Sha1, ObjectKind::Tree, &tree);
    let pack = PackBuilder::sha1().whole(COMMIT, &commit(&id, &[])).whole(TREE, &tree).blob(b"x").finish();
    let (pack, _) = take_sha1(&pack).unwrap();
    assert_eq!(pack.path_of(&oid).unwrap().unwrap().path, b"\xff\n\x1b[31m");
}

/// Trees that share what is below them have more paths than anyone can count; each is gone through once.
#[test]
fn trees_within_trees_end() {
    let blob = blob_name(b"x");
    let mut pack = PackBuilder::sha1().blob(b"x").blob(b"never in a tree");
    let mut below = tree(&[("100644", b"leaf", blob)]);
    pack = pack.whole(TREE, &below);
    for _ in 0..3000 {
        let id = name(ObjectFormat::Sha1, ObjectKind::Tree, &below);
        let lines: [(&str, &[u8], ObjectId); 4] = [
            ("40000", b"a", id),
            ("40000", b"b", id),
            ("40000", b"c", id),
            ("160000", b"d", blob_name(b"never in a tree")),
        ];
        below = tree(&lines);
        pack = pack.whole(TREE, &below);
    }
    let root = name(ObjectFormat::Sha1, ObjectKind::Tree, &below);
    let (pack, _) = take_sha1(&pack.whole(COMMIT, &commit(&root, &[])).finish()).unwrap();
    // Too deep for a path; and a submodule's commit is no object of this repository.
    assert_eq!(pack.path_of(&blob).unwrap(), None);
    assert_eq!(pack.path_of(&blob_name(b"never in a tree")).unwrap(), None);
    assert!(pack.path_of(&name(ObjectFormat::Sha1, ObjectKind::Tree, &below)).unwrap().is_none());
}

#[test]
fn a_commit_with_very_many_parents_is_over_the_limit() {
    let root = name(ObjectFormat::Sha1, ObjectKind::Tree, b"");
    let parents: Vec<_> = (0..50_000_u32).map(|n| blob_name(&n.to_le_bytes())).collect();
    let last = commit(&root, &parents);
    let id = name(ObjectFormat::Sha1, ObjectKind::Commit, &last);
    let (pack, _) = take_sha1(&PackBuilder::sha1().whole(TREE, b"").whole(COMMIT, &last).finish()).unwrap();
    let nowhere = ObjectId::null(ObjectFormat::Sha1);
    assert_eq!(pack.descends(&id, &nowhere, 1000).unwrap_err().to_string(), "over 1000 commits would have to be read");
    assert!(
        matches!(pack.descends(&id, &nowhere, 50_000).unwrap(), Descent::GoesOnAt(beyond) if beyond.len() == 50_000)
    );
    assert_eq!(pack.descends(&id, &parents[49_999], 1000).unwrap(), Descent::Proven);
    assert_eq!(pack.boundary(16).unwrap().len(), 16);
}
