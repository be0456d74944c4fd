//! What is shipped: an archive from which the launcher works where no checkout is, and images that are the same wherever they
//! are made.

#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use bottle_tests::dist::{Parts, pack};
use bottle_tests::harness::Site;
use launcher::commands::demo::of_a_release;
use launcher::sidecars::binaries;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// An archive as a release has it, but for how its binaries are optimised.
fn archive() -> Vec<u8> {
    let inside = binaries(&of_a_release(), &|_| {}).unwrap();
    let launcher = PathBuf::from(env!("CARGO_BIN_EXE_it-launcher"));
    pack(&Parts { name: "bottle-test".to_owned(), launcher, inside, checkout: checkout() }).unwrap()
}

#[test]
fn the_launcher_of_an_archive_launches_where_there_is_no_checkout() {
    let Some(site) = Site::new() else { return };
    let archive = archive();
    assert!(archive == self::archive(), "the same parts give another archive");
    let file = site.path("bottle.tar.gz");
    std::fs::write(&file, &archive).unwrap();
    // The tools of a person, not ours.
    assert!(Command::new("tar").arg("xzf").arg(&file).current_dir(site.path("")).status().unwrap().success());
    let unpacked = site.path("bottle-test");
    let sums = Command::new("sha256sum").args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&unpacked).status();
    assert!(sums.unwrap().success());
    for there in [
        "LICENSE",
        "LICENSES-OF-OTHERS.txt",
        "README.md",
        "completions/_launcher",
        "docs/schema/bottle.json",
        "images/README.md",
        "images/compose/git-gate.yaml",
        "man/man1/launcher.1",
        "man/man1/launcher-run.1",
    ] {
        assert!(unpacked.join(there).metadata().unwrap().len() > 100, "{there}");
    }
    let of_others = std::fs::read_to_string(unpacked.join("LICENSES-OF-OTHERS.txt")).unwrap();
    for part in ["rustls ", "tokio ", "Permission is hereby granted", "Apache License"] {
        assert!(of_others.contains(part), "{part:?}");
    }
    assert_eq!(unpacked.join("launcher").metadata().unwrap().permissions().mode() & 0o777, 0o755);

    site.bottle("dev", &format!("agent: {{image: '{}'}}\n", site.clients()));
    let agent = format!("ds{}", std::process::id());
    site.agent(&agent, "dev");
    // The same operator, with the launcher of the archive, and no cargo to build anything with.
    let launcher = |args: &[&str]| {
        let mut command = Command::new(unpacked.join("launcher"));
        let theirs = site.command();
        command.env_clear().envs(theirs.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
            .env("PATH", "/usr/bin:/bin")
            .env("CARGO", "/no/cargo")
            .current_dir(site.work())
            .args(args)
            .output()
            .unwrap()
    };
    let doctor = launcher(&["doctor"]);
    let rows = String::from_utf8(doctor.stdout).unwrap();
    assert!(doctor.status.success() && rows.contains(&unpacked.join("bottle").display().to_string()), "{rows}");
    let ran = launcher(&["run", &agent, "--yes", "--", "sh", "-c", "echo made inside > made; echo from inside"]);
    assert!(ran.status.success(), "{ran:?}");
    assert!(String::from_utf8_lossy(&ran.stdout).contains("from inside"), "{ran:?}");
    assert!(launcher(&["take", &agent]).status.success());
    assert_eq!(std::fs::read_to_string(site.work().join("made")).unwrap(), "made inside\n");
    site.assert_nothing_left();
}

#[test]
fn an_engine_takes_the_images_that_are_exported() {
    let Some(site) = Site::new() else { return };
    let exported =
        |folder: &str| site.launcher(&["images", "export", &site.path(folder).display().to_string()]).ok().stdout;
    let (first, second) = (exported("first"), exported("second"));
    assert_eq!(first.replace("/first/", "/second/"), second);
    let mut names = Vec::new();
    for line in first.lines() {
        let [file, tag, id] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
        let loaded = Command::new("docker").args(["load", "--quiet", "--input", file]).output().unwrap();
        assert!(loaded.status.success(), "{loaded:?}");
        let seen = Command::new("docker").args(["image", "inspect", "--format", "{{.Id}}", tag]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&seen.stdout).trim(), id, "{tag}");
        names.push(Path::new(file).file_name().unwrap().to_string_lossy().into_owned());
    }
    assert_eq!(names, ["cred-proxy.tar", "git-gate.tar", "supervise.tar", "bottle-wall.tar"]);
}

#[test]
fn the_same_source_elsewhere_gives_the_same_binaries() {
    // The two that run in every bottle: of the others the same flags are used, and building them takes minutes.
    let elsewhere = tempfile::tempdir().unwrap();
    let copy = elsewhere.path().join("another/place");
    std::fs::create_dir_all(&copy).unwrap();
    for part in [
        "Cargo.toml",
        "Cargo.lock",
        "launcher",
        "cred-proxy",
        "git-gate",
        "supervise",
        "pipelock-config",
        "images",
        "tests",
    ] {
        assert!(Command::new("cp").arg("-r").arg(checkout().join(part)).arg(&copy).status().unwrap().success());
    }
    let here =
        launcher::sidecars::static_build(&checkout(), &elsewhere.path().join("one"), &["bottle-init", "bottle-wall"]);
    let there = launcher::sidecars::static_build(&copy, &elsewhere.path().join("two"), &["bottle-init", "bottle-wall"]);
    for (one, other) in here.unwrap().into_iter().zip(there.unwrap()) {
        let [a, b] = [&one, &other].map(|path| std::fs::read(path).unwrap());
        assert!(a == b, "{} and {} differ", one.display(), other.display());
        let ours = checkout().display().to_string();
        assert!(!a.windows(ours.len()).any(|w| w == ours.as_bytes()), "{} names this machine's folder", one.display());
    }
}
