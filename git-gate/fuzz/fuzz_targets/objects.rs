//! Trees, commits and tags.
#![no_main]

use git_gate::objects::{Commit, ObjectKind, Tag, TreeEntries, check};
use gix_hash::Kind;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    for format in [Kind::Sha1, Kind::Sha256] {
        let mut entries = TreeEntries::new(input, format);
        let mut whole = true;
        let mut before = input.len();
        while let Some(entry) = entries.next() {
            let rest = entries.rest().len();
            assert!(rest < before, "no progress");
            match entry {
                Ok(entry) => {
                    let line = &input[input.len() - before..input.len() - rest];
                    assert!(line.ends_with(entry.oid.as_slice()));
                    assert!(!entry.name.is_empty() && !entry.name.contains(&b'/') && !entry.name.contains(&0));
                    let head = [entry.name, b"\0"].concat();
                    assert!(line[..line.len() - entry.oid.as_slice().len()].ends_with(&head));
                    let mode = std::str::from_utf8(&line[..line.len() - entry.oid.as_slice().len() - head.len() - 1]);
                    assert_eq!(u32::from_str_radix(mode.expect("digits"), 8), Ok(entry.mode));
                }
                Err(_) => whole = false,
            }
            before = rest;
        }
        assert_eq!(check(ObjectKind::Tree, input, format).is_ok(), whole);
        if let Ok(commit) = Commit::parse(input, format) {
            let mut head = format!("tree {}\n", commit.tree);
            commit.parents.iter().for_each(|parent| head.push_str(&format!("parent {parent}\n")));
            assert!(input.starts_with(head.as_bytes()));
            assert!(!input[head.len()..].starts_with(b"parent "));
        }
        if let Ok(tag) = Tag::parse(input, format) {
            let head = format!("object {}\ntype {}\n", tag.object, tag.kind.name());
            assert!(input.starts_with(head.as_bytes()));
        }
    }
});
