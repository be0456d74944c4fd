//! Archives that no honest agent makes: nothing outside the workspace is read or written, and the error says why.

use super::{World, paths, refused};
use crate::workspace::{Archive, Limits, WorkspaceError, diff};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

/// One member, as its writer pleases.
fn member(kind: u8, name: &[u8], link: &[u8], mode: u32, size: u64, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(mode);
    header.set_size(size);
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn dir(name: &str) -> Vec<u8> {
    member(b'5', name.as_bytes(), b"", 0o755, 0, b"")
}

fn file(name: &str) -> Vec<u8> {
    member(b'0', name.as_bytes(), b"", 0o644, 4, b"evil")
}

fn link(name: &str, target: &str) -> Vec<u8> {
    member(b'2', name.as_bytes(), target.as_bytes(), 0o777, 0, b"")
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut content = Vec::new();
    for (key, value) in records {
        let rest = format!(" {key}={value}\n");
        let length =
            (1..).map(|digits| rest.len() + digits).find(|len| len.to_string().len() + rest.len() == *len).unwrap();
        content.extend_from_slice(format!("{length}{rest}").as_bytes());
    }
    member(b'x', b"pax", b"", 0o644, content.len() as u64, &content)
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    [dir("workspace/"), members.concat(), vec![0; 1024]].concat()
}

#[test]
fn archives_that_no_engine_writes_are_refused_whole() {
    let mut broken = file("workspace/a");
    broken[0] ^= 1;
    for (what, members, expected) in [
        ("absolute", vec![file("/etc/passwd")], "not below"),
        ("absolute by pax", vec![pax(&[("path", "/etc/passwd")]), file("workspace/a")], "not below"),
        ("dots", vec![file("workspace/../outside/x")], "\"..\""),
        ("dots by pax", vec![pax(&[("path", "workspace/a/../../x")]), file("workspace/a")], "\"..\""),
        ("NUL by pax", vec![pax(&[("path", "workspace/a\0b")]), file("workspace/a")], "NUL"),
        ("another prefix", vec![file("workspaces/a")], "not below"),
        ("a second top", vec![dir("workspace")], "one directory"),
        ("file through a link", vec![link("workspace/a", "/etc"), file("workspace/a/passwd")], "not a directory"),
        ("file in a file", vec![file("workspace/a"), file("workspace/a/b")], "not a directory"),
        ("file in nothing", vec![file("workspace/a/b")], "not a directory"),
        ("twice", vec![file("workspace/a"), file("workspace/a")], "twice"),
        ("link, then file of its name", vec![link("workspace/a", "/etc/passwd"), file("workspace/a")], "twice"),
        ("hard link out", vec![member(b'1', b"workspace/a", b"/etc/passwd", 0o644, 0, b"")], "not below"),
        ("hard link to nothing", vec![member(b'1', b"workspace/a", b"workspace/b", 0o644, 0, b"")], "no file"),
        ("hard link through dots", vec![member(b'1', b"workspace/a", b"workspace/../x", 0o644, 0, b"")], "\"..\""),
        ("sparse", vec![member(b'S', b"workspace/a", b"", 0o644, 4, b"evil")], "no engine writes"),
        ("sparse by pax", vec![pax(&[("GNU.sparse.major", "1")]), file("workspace/a")], "sparse"),
        ("global header", vec![member(b'g', b"x", b"", 0o644, 0, b"")], "no engine writes"),
        ("claim of size", vec![member(b'0', b"workspace/a", b"", 0o644, 1 << 60, b"evil")], "more than"),
        ("claim of size by pax", vec![pax(&[("size", "9223372036854775807")]), file("workspace/a")], "more than"),
        ("long extension", vec![member(b'x', b"x", b"", 0o644, 64 << 20, b"")], "too large"),
        ("bad pax", vec![member(b'x', b"x", b"", 0o644, 9, b"999 a=b\n\0")], "malformed"),
        ("cut short", vec![member(b'0', b"workspace/a", b"", 0o644, 1 << 20, b"evil")], "too early"),
        ("checksum", vec![broken], "checksum"),
        ("empty link", vec![link("workspace/a", "")], "no file system"),
    ] {
        let world = World::new(|host| fs::write(host.join("kept"), "kept").unwrap());
        let archive = world.save_bytes(&archive(&members));
        for force in [false, true] {
            let error = world.take_of(&archive, force).unwrap_err();
            assert!(error.to_string().contains(expected), "{what}: {error}");
        }
        assert!(diff(&archive, world.baseline(), &world.host("")).is_err(), "{what}");
        assert_eq!(fs::read_to_string(world.host("kept")).unwrap(), "kept");
        world.assert_outside_untouched();
    }
}

#[test]
fn their_honest_neighbours_are_taken() {
    let long = format!("workspace/{}", "n".repeat(200));
    let world = World::new(|_| {});
    let archive = world.save_bytes(&archive(&[
        dir("workspace/a/"),
        file("workspace/a/b"),
        link("workspace/l", "a/b"),
        member(b'1', b"workspace/h", b"workspace/a/b", 0o644, 0, b""),
        pax(&[("path", &long), ("mtime", "1.5"), ("SCHILY.xattr.user.x", "y")]),
        file("workspace/short"),
        file("workspace/..a"),
    ]));
    let taken = world.take_of(&archive, false).unwrap();
    assert_eq!(paths(&taken.written), ["..a", "a", "a/b", "h", "l", &"n".repeat(200)]);
    assert_eq!(fs::read_to_string(world.host("h")).unwrap(), "evil");
}

#[test]
fn what_is_never_written_is_named_and_the_rest_is_taken() {
    let world = World::new(|host| {
        fs::create_dir(host.join("sub")).unwrap();
        fs::write(host.join("sub/.git"), "gitdir: ../.git/modules/sub\n").unwrap();
        fs::write(host.join("was"), "a file").unwrap();
    });
    let archive = world.save_bytes(&archive(&[
        dir("workspace/.git/"),
        dir("workspace/.git/hooks/"),
        file("workspace/.git/hooks/post-checkout"),
        dir("workspace/.GIT/"),
        file("workspace/.GIT/config"),
        dir("workspace/git~1/"),
        file("workspace/git~1/config"),
        dir("workspace/sub/"),
        file("workspace/sub/.git"),
        file("workspace/.gitignore"),
        member(b'3', b"workspace/dev", b"", 0o666, 0, b""),
        member(b'6', b"workspace/was", b"", 0o666, 0, b""),
        member(b'0', b"workspace/suid", b"", 0o6755, 4, b"evil"),
        dir(&format!("workspace/.bottle-take-{}", std::process::id())),
        file(&format!("workspace/.bottle-take-{}/0", std::process::id())),
        link("workspace/out", "/etc/passwd"),
        link("workspace/up", "../outside/secret"),
        link("workspace/in", "suid"),
        dir("workspace/bare/"),
        file("workspace/bare/HEAD"),
        file("workspace/bare/config"),
        dir("workspace/bare/objects/"),
        dir("workspace/bare/refs/"),
        file("workspace/bare/readme"),
    ]));
    let taken = world.take_of(&archive, false).unwrap();
    let staging = format!(".bottle-take-{}", std::process::id());
    assert_eq!(
        refused(&taken.refused),
        [
            ".GIT",
            &staging,
            &format!("{staging}/0"),
            "bare/HEAD",
            "bare/config",
            "dev",
            "git~1",
            "out",
            "sub/.git",
            "up",
            "was"
        ]
    );
    assert_eq!(paths(&taken.written), [".gitignore", "bare", "bare/objects", "bare/readme", "bare/refs", "in", "suid"]);
    assert!(!world.host(".git").exists() && !world.host("bare/HEAD").exists());
    assert_eq!(fs::read_to_string(world.host("was")).unwrap(), "a file");
    assert_eq!(fs::read_to_string(world.host("sub/.git")).unwrap(), "gitdir: ../.git/modules/sub\n");
    let mode = fs::metadata(world.host("suid")).unwrap().mode();
    assert_eq!(mode & 0o7000, 0);
    assert_eq!(mode & 0o100, 0o100);
    world.assert_outside_untouched();
}

#[test]
fn links_of_the_host_are_never_followed() {
    let fill = |host: &std::path::Path| {
        fs::create_dir(host.join("d")).unwrap();
        fs::write(host.join("d/secret"), "given").unwrap();
        fs::write(host.join("f"), "given").unwrap();
    };
    let world = World::new(fill);
    for name in ["d/secret", "d/new", "f"] {
        fs::write(world.agent(name), "evil").unwrap();
    }
    let archive = world.save();
    fs::remove_dir_all(world.host("d")).unwrap();
    symlink("../outside", world.host("d")).unwrap();
    fs::remove_file(world.host("f")).unwrap();
    symlink("../outside/secret", world.host("f")).unwrap();
    let Err(WorkspaceError::Conflicts(conflicts)) = world.take_of(&archive, false) else { panic!("it conflicts") };
    let named: Vec<String> = conflicts.iter().map(|c| c.path.to_string()).collect();
    assert_eq!(named, ["d/new", "d/secret", "f"]);
    world.assert_outside_untouched();

    let taken = world.take_of(&archive, true).unwrap();
    assert_eq!(refused(&taken.refused), ["d/new", "d/secret"]);
    assert_eq!(paths(&taken.written), ["f"]);
    assert!(fs::symlink_metadata(world.host("f")).unwrap().is_file());
    world.assert_outside_untouched();

    // The neighbour: without the links the same work is taken.
    let world = World::new(fill);
    fs::write(world.agent("d/secret"), "work").unwrap();
    assert_eq!(paths(&world.take().unwrap().written), ["d/secret"]);
}

#[test]
fn limits_hold_when_an_archive_is_read() {
    let world = World::new(|_| {});
    world.save_bytes(&archive(&[file("workspace/a"), file("workspace/b")]));
    for (limits, fits) in [
        (Limits { bytes_max: 3 * 512 + 8, entries_max: 3 }, true),
        (Limits { bytes_max: 3 * 512 + 7, entries_max: 3 }, false),
        (Limits { bytes_max: 3 * 512 + 8, entries_max: 2 }, false),
    ] {
        let archive = Archive::open(&world.state(), limits);
        assert_eq!(diff(&archive, world.baseline(), &world.host("")).is_ok(), fits, "{limits:?}");
    }
}
