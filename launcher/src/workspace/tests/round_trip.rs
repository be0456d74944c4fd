//! A directory goes in and the agent's work comes back.

use super::{World, names, path, paths, refused, run};
use crate::workspace::{Archive, Baseline, Limits, Owner, Taken, WorkspaceError, pack, save, survey, take};
use std::cell::Cell;
use std::fs::{self, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

fn fill(host: &Path) {
    fs::write(host.join("kept.txt"), "kept\n").unwrap();
    fs::write(host.join("text.txt"), "one\ntwo\nthree\n").unwrap();
    fs::write(host.join("gone.txt"), "gone\n").unwrap();
    fs::write(host.join("script"), "#!/bin/sh\n").unwrap();
    fs::write(host.join("binary"), [0, 159, 146, 150]).unwrap();
    fs::create_dir_all(host.join("a/b")).unwrap();
    fs::write(host.join("a/b/deep"), "deep\n").unwrap();
    symlink("text.txt", host.join("link")).unwrap();
}

#[test]
fn every_kind_of_change_comes_back() {
    let world = World::new(fill);
    fs::write(world.agent("text.txt"), "one\n2\nthree\n").unwrap();
    fs::remove_file(world.agent("gone.txt")).unwrap();
    fs::set_permissions(world.agent("script"), Permissions::from_mode(0o755)).unwrap();
    fs::write(world.agent("binary"), [0, 1]).unwrap();
    fs::remove_dir_all(world.agent("a")).unwrap();
    fs::write(world.agent("a"), "a file now\n").unwrap();
    fs::create_dir_all(world.agent("new/dir/empty")).unwrap();
    fs::write(world.agent("new/dir/file"), "new\n").unwrap();
    fs::hard_link(world.agent("new/dir/file"), world.agent("new/same")).unwrap();
    fs::remove_file(world.agent("link")).unwrap();
    symlink("new/dir/file", world.agent("link")).unwrap();

    let shown = world.diff().to_string();
    for part in [
        "diff --git a/text.txt b/text.txt\n--- a/text.txt\n+++ b/text.txt\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n",
        "deleted file mode 100644\n--- a/gone.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-gone\n",
        "diff --git a/script b/script\nold mode 100644\nnew mode 100755\n",
        "Binary file, 4 bytes -> 2 bytes\n",
        "new file mode 100644\n--- /dev/null\n+++ b/new/same\n",
    ] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
    assert!(!shown.contains("kept.txt"), "{shown}");

    let taken = world.take().unwrap();
    assert_eq!(
        paths(&taken.written),
        ["a", "binary", "link", "new", "new/dir", "new/dir/empty", "new/dir/file", "new/same", "script", "text.txt"]
    );
    assert_eq!(paths(&taken.removed), ["a/b", "a/b/deep", "gone.txt"]);
    assert!(taken.refused.is_empty() && taken.careful.is_empty(), "{taken:?}");
    run(Command::new("diff").arg("-r").arg("--no-dereference").arg(world.host("")).arg(world.agent("")));
    assert_eq!(fs::metadata(world.host("script")).unwrap().mode() & 0o111, 0o111);
    assert_eq!(fs::metadata(world.host("kept.txt")).unwrap().mode() & 0o111, 0);
    world.assert_outside_untouched();

    let again = world.take().unwrap();
    assert!(again.written.is_empty() && again.removed.is_empty(), "{again:?}");
}

#[test]
fn the_work_of_another_life_is_compared_with_what_was_taken_of_the_one_before() {
    let mut world = World::new(fill);
    fs::write(world.agent("text.txt"), "of the first life").unwrap();
    fs::write(world.agent("made"), "made").unwrap();
    fs::remove_file(world.agent("gone.txt")).unwrap();
    symlink("/etc/passwd", world.agent("out")).unwrap();
    let taken = world.take().unwrap();
    assert_eq!(
        (paths(&taken.written), paths(&taken.removed)),
        (vec!["made".into(), "text.txt".into()], vec!["gone.txt".into()])
    );
    assert_eq!(refused(&taken.refused), ["out"]);
    // Compared with what the agent was given, what it goes on with would be the operator's own changes.
    fs::write(world.agent("text.txt"), "of the second life").unwrap();
    fs::write(world.agent("gone.txt"), "back").unwrap();
    fs::remove_file(world.agent("made")).unwrap();
    assert!(matches!(world.take(), Err(WorkspaceError::Conflicts(_))));
    world.packed.baseline = taken.settled;
    fs::write(world.host("kept.txt"), "the operator's").unwrap();
    let taken = world.take().unwrap();
    assert_eq!(
        (paths(&taken.written), paths(&taken.removed)),
        (vec!["gone.txt".into(), "text.txt".into()], vec!["made".into()])
    );
    assert_eq!(refused(&taken.refused), ["out"], "what was refused is refused again");
    assert_eq!(fs::read_to_string(world.host("text.txt")).unwrap(), "of the second life");
    assert_eq!(fs::read_to_string(world.host("kept.txt")).unwrap(), "the operator's");
    // What the operator changed of the taken work is theirs.
    world.packed.baseline = taken.settled;
    fs::write(world.host("text.txt"), "mended by hand").unwrap();
    assert!(world.take().unwrap().written.is_empty());
    fs::write(world.agent("text.txt"), "of the third life").unwrap();
    let Err(WorkspaceError::Conflicts(conflicts)) = world.take() else { panic!("the operator's change is lost") };
    assert_eq!(conflicts.iter().map(|c| c.path.to_string()).collect::<Vec<_>>(), ["text.txt"]);
    world.assert_outside_untouched();
}

#[test]
fn what_cannot_come_along_is_named_and_links_stay_links() {
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let far = "x/".repeat(120);
    let world = World::new(|host| {
        fill(host);
        UnixListener::bind(host.join("socket")).unwrap();
        run(Command::new("mkfifo").arg(host.join("pipe")));
        symlink("../outside", host.join("out")).unwrap();
        symlink("./././text.txt", host.join("untidy")).unwrap();
        symlink(&far, host.join("long-link")).unwrap();
        fs::create_dir(host.join("d".repeat(200))).unwrap();
        fs::write(host.join(&long), "long").unwrap();
        fs::write(host.join("%41 ä"), "odd").unwrap();
        fs::set_permissions(host.join("script"), Permissions::from_mode(0o4755)).unwrap();
    });
    let left: Vec<(&str, &str)> = world.packed.left_out.iter().map(|(p, w)| (p.as_str(), w.as_str())).collect();
    assert_eq!(left, [("pipe", "a pipe"), ("socket", "a socket")]);
    assert_eq!(survey(&world.host("")).unwrap().left_out, world.packed.left_out);
    assert_eq!(fs::read_link(world.agent("out")).unwrap(), Path::new("../outside"));
    assert_eq!(fs::read_link(world.agent("untidy")).unwrap(), Path::new("./././text.txt"));
    assert_eq!(fs::read_link(world.agent("long-link")).unwrap(), Path::new(&far));
    assert_eq!(fs::read_to_string(world.agent(&long)).unwrap(), "long");
    assert_eq!(fs::metadata(world.agent("script")).unwrap().mode() & 0o7777, 0o755);
    let mtime = |path| fs::metadata(path).unwrap().mtime();
    assert_eq!(mtime(world.agent("text.txt")), mtime(world.host("text.txt")));

    assert!(world.diff().is_empty(), "{}", world.diff());
    let json = serde_json::to_string(world.baseline()).unwrap();
    assert_eq!(&serde_json::from_str::<Baseline>(&json).unwrap(), world.baseline());
    let taken = world.take().unwrap();
    assert!(taken.written.is_empty() && taken.removed.is_empty() && taken.refused.is_empty(), "{taken:?}");
}

#[test]
fn everything_belongs_to_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let mut out = Vec::new();
    pack(dir.path(), Owner { uid: 4321, gid: 4322 }, "workspace", &mut out, &|_, _| {}).unwrap();
    let mut archive = tar::Archive::new(&out[..]);
    let mut first = None;
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (4321, 4322));
        first.get_or_insert_with(|| entry.path().unwrap().into_owned());
    }
    assert_eq!(first.unwrap(), Path::new("workspace"));
}

#[test]
fn ten_thousand_files_go_and_come_with_progress() {
    let dir = tempfile::tempdir().unwrap();
    for d in 0..100 {
        fs::create_dir(dir.path().join(d.to_string())).unwrap();
        for f in 0..100 {
            fs::write(dir.path().join(format!("{d}/{f}")), "x").unwrap();
        }
    }
    let (last, calls) = (Cell::new((0, 0)), Cell::new(0));
    let mut tar = Vec::new();
    let packed = pack(dir.path(), Owner { uid: 1, gid: 1 }, "workspace", &mut tar, &|files, bytes| {
        assert!(files >= last.get().0 && bytes >= last.get().1);
        last.set((files, bytes));
        calls.set(calls.get() + 1);
    })
    .unwrap();
    assert_eq!((packed.files, packed.bytes, last.get()), (10_000, 10_000, (10_000, 10_000)));
    assert_eq!(calls.get(), 10_100);
    let to = tempfile::tempdir().unwrap();
    let file = to.path().join("w.tar.zst");
    let saved = save(&tar[..], &file, Limits::default()).unwrap();
    assert_eq!(saved.bytes, tar.len() as u64);
    let taken =
        take(&Archive::open(&file, Limits::default()), &packed.baseline, dir.path(), "x", Default::default()).unwrap();
    // Compared without a word of what it is: ten thousand lines.
    assert!(taken.settled == packed.baseline);
    assert_eq!(Taken { settled: Baseline::default(), ..taken }, Taken::default());
    let few = Limits { entries_max: 10_000, ..Limits::default() };
    let error = take(&Archive::open(&file, few), &packed.baseline, dir.path(), "x", Default::default()).unwrap_err();
    assert!(matches!(error, WorkspaceError::TooManyEntries { .. }), "{error}");
}

#[test]
fn where_both_changed_a_file_nothing_is_applied_unless_forced() {
    let world = World::new(fill);
    fs::write(world.agent("text.txt"), "agent\n").unwrap();
    fs::write(world.agent("kept.txt"), "agent\n").unwrap();
    fs::write(world.agent("new"), "agent\n").unwrap();
    fs::remove_file(world.agent("gone.txt")).unwrap();
    fs::write(world.host("text.txt"), "host\n").unwrap();
    fs::write(world.host("gone.txt"), "host\n").unwrap();
    fs::write(world.host("unrelated"), "host\n").unwrap();
    let Err(WorkspaceError::Conflicts(conflicts)) = world.take() else { panic!("there is a conflict") };
    let named: Vec<String> = conflicts.iter().map(|c| c.path.to_string()).collect();
    assert_eq!(named, ["gone.txt", "text.txt"]);
    assert_eq!(fs::read_to_string(world.host("kept.txt")).unwrap(), "kept\n");
    assert!(!world.host("new").exists());
    assert!(world.diff().to_string().contains("changed on the host as well"));
    world.assert_outside_untouched();

    let taken = world.take_of(&world.save(), true).unwrap();
    assert_eq!(paths(&taken.overwritten), ["gone.txt", "text.txt"]);
    assert_eq!(fs::read_to_string(world.host("text.txt")).unwrap(), "agent\n");
    assert_eq!(fs::read_to_string(world.host("unrelated")).unwrap(), "host\n");
    assert!(!world.host("gone.txt").exists());
}

#[test]
fn the_same_change_on_both_sides_is_no_conflict() {
    let world = World::new(fill);
    for side in [world.agent("text.txt"), world.host("text.txt")] {
        fs::write(side, "same\n").unwrap();
    }
    let taken = world.take().unwrap();
    assert_eq!(paths(&taken.already), ["text.txt"]);
    assert!(taken.written.is_empty());
}

#[test]
fn a_directory_with_more_of_the_operators_is_not_replaced_even_by_force() {
    let world = World::new(fill);
    fs::write(world.host("a/b/mine"), "host\n").unwrap();
    fs::remove_dir_all(world.agent("a")).unwrap();
    fs::write(world.agent("a"), "a file now\n").unwrap();
    assert!(matches!(world.take(), Err(WorkspaceError::Conflicts(_))));
    let taken = world.take_of(&world.save(), true).unwrap();
    assert_eq!(refused(&taken.refused), ["a"]);
    assert_eq!(fs::read_to_string(world.host("a/b/mine")).unwrap(), "host\n");
}

#[test]
fn a_socket_of_the_operators_stays_and_force_takes_the_rest() {
    let world = World::new(fill);
    fs::create_dir_all(world.agent("run/deep")).unwrap();
    fs::write(world.agent("run/deep/file"), "agent").unwrap();
    fs::write(world.agent("text.txt"), "agent").unwrap();
    let _socket = UnixListener::bind(world.host("run")).unwrap();
    assert!(matches!(world.take(), Err(WorkspaceError::Conflicts(_))));
    let taken = world.take_of(&world.save(), true).unwrap();
    assert_eq!(refused(&taken.refused), ["run", "run/deep", "run/deep/file"]);
    assert_eq!(paths(&taken.written), ["text.txt"]);
}

#[test]
fn a_mode_of_the_operators_stays_and_only_the_exec_bit_follows() {
    let world = World::new(|host| {
        for name in ["private", "tool"] {
            fs::write(host.join(name), "x").unwrap();
            fs::set_permissions(host.join(name), Permissions::from_mode(0o640)).unwrap();
        }
    });
    fs::write(world.agent("private"), "y").unwrap();
    fs::set_permissions(world.agent("private"), Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(world.agent("tool"), Permissions::from_mode(0o6777)).unwrap();
    world.take().unwrap();
    let mode = |name| fs::metadata(world.host(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode("private"), mode("tool")), (0o640, 0o750));
}

#[test]
fn files_that_run_by_themselves_are_taken_with_a_warning() {
    let world = World::new(|host| {
        fs::write(host.join("package.json"), r#"{"version":"1"}"#).unwrap();
        fs::create_dir(host.join("web")).unwrap();
        fs::write(host.join("web/package.json"), r#"{"version":"1"}"#).unwrap();
    });
    fs::write(world.agent("package.json"), r#"{"version":"2"}"#).unwrap();
    fs::write(world.agent("web/package.json"), r#"{"version":"1","scripts":{"postinstall":"x"}}"#).unwrap();
    fs::write(world.agent(".envrc"), "x").unwrap();
    fs::write(world.agent("Makefile"), "x").unwrap();
    assert_eq!(paths(&world.diff().careful), [".envrc", "web/package.json"]);
    let mut taken = world.take().unwrap();
    taken.careful.sort();
    assert_eq!(paths(&taken.careful), [".envrc", "web/package.json"]);
    assert_eq!(paths(&taken.written), [".envrc", "Makefile", "package.json", "web/package.json"]);
}

#[test]
fn what_the_agent_writes_reaches_the_terminal_escaped() {
    let world = World::new(fill);
    fs::write(world.agent("text.txt"), "one\n\x1b]52;c;aGk=\x07\nthree\n").unwrap();
    fs::write(world.agent("na\nme\x1b[31m"), "x\n").unwrap();
    let shown = world.diff().to_string();
    assert!(shown.contains("+\\u{1b}]52;c;aGk=\\u{7}\n"), "{shown}");
    assert!(shown.contains("b/na\\nme\\u{1b}[31m\n"), "{shown}");
    assert!(!shown.contains('\x1b'));
}

#[test]
fn an_archive_that_cannot_be_saved_whole_leaves_the_one_before() {
    let world = World::new(fill);
    let archive = world.returned();
    world.save_bytes(&archive);
    let before = fs::read(world.state()).unwrap();
    let few = Limits { bytes_max: archive.len() as u64 - 1, ..Limits::default() };
    let enough = Limits { bytes_max: archive.len() as u64, ..Limits::default() };
    assert!(matches!(save(&archive[..], &world.state(), few), Err(WorkspaceError::TooManyBytes { .. })));
    assert!(matches!(save(&archive[..2048], &world.state(), enough), Err(WorkspaceError::CutShort)));
    assert!(matches!(save(&b""[..], &world.state(), enough), Err(WorkspaceError::CutShort)));
    assert_eq!(fs::read(world.state()).unwrap(), before);
    assert_eq!(names(world.state().parent().unwrap()), ["workspace.tar.zst"]);
    save(&archive[..], &world.state(), enough).unwrap();
    assert_eq!(fs::metadata(world.state()).unwrap().mode() & 0o777, 0o600);
    assert!(world.baseline().entries.contains_key(&path("text.txt")));
}

/// Changes a file when its header passes by.
struct Meddler<'a> {
    out: Vec<u8>,
    file: &'a Path,
    content: &'a [u8],
}

impl std::io::Write for Meddler<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.starts_with(b"workspace/big") {
            fs::write(self.file, self.content)?;
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_cut_or_filled_and_named() {
    for (content, expected, changed) in [
        (&b"short"[..], &b"short\0\0\0\0\0"[..], true),
        (b"much longer", b"much longe", true),
        (b"equal size", b"equal size", false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("big");
        fs::write(&file, "0123456789").unwrap();
        fs::write(dir.path().join("next"), "next").unwrap();
        let mut out = Meddler { out: Vec::new(), file: &file, content };
        let packed = pack(dir.path(), Owner { uid: 1, gid: 1 }, "workspace", &mut out, &|_, _| {}).unwrap();
        assert_eq!(paths(&packed.changed), if changed { vec!["big"] } else { vec![] });
        let to = dir.path().join("w.tar.zst");
        save(&out.out[..], &to, Limits::default()).unwrap();
        let mut members = Archive::open(&to, Limits::default()).members().unwrap();
        let mut contents = Vec::new();
        while let Some(member) = members.next_member().unwrap() {
            let mut content = Vec::new();
            members.content().read_to_end(&mut content).unwrap();
            contents.push((member.path.to_string(), content));
        }
        assert_eq!(contents, [("big".to_owned(), expected.to_vec()), ("next".to_owned(), b"next".to_vec())]);
    }
}
