//! The workspace end to end: what goes in, what the agent made of it, and what comes home. The agent is hostile.

#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use bottle_tests::harness::{Bottle, Output, Site, wait_until};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// An agent's name that no other test on the engine has.
fn coder() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    thread_local!(static OWN: u32 = NEXT.fetch_add(1, Ordering::Relaxed));
    format!("rv{}-{}", std::process::id(), OWN.with(|own| *own))
}

/// A site whose agent has real clients.
fn site() -> Option<Site> {
    let site = Site::new()?;
    site.agent(&coder(), "dev");
    site.bottle("dev", &format!("agent:\n  provider: shell\n  image: {}\n", site.clients()));
    Some(site)
}

/// Runs git on the host, with nobody's configuration.
#[track_caller]
fn git(directory: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "init.defaultBranch=main", "-c", "safe.directory=*"]).args(args).current_dir(directory);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for (who, name) in [("AUTHOR", "Ada"), ("COMMITTER", "Ada")] {
        command.env(format!("GIT_{who}_NAME"), name).env(format!("GIT_{who}_EMAIL"), "ada@example.org");
    }
    Output::from(command.output().unwrap()).ok().stdout.trim().to_owned()
}

/// A repository with one commit.
fn repository(work: &Path) {
    git(work, &["init", "-q"]);
    std::fs::write(work.join("kept"), "kept\n").unwrap();
    std::fs::write(work.join("edited"), "before\n").unwrap();
    std::fs::write(work.join("removed"), "removed\n").unwrap();
    git(work, &["add", "."]);
    git(work, &["commit", "-qm", "first"]);
}

const COMMIT: &str = "git -c user.name=Agent -c user.email=agent@example.org commit -qm work";

fn id_of(site: &Site) -> String {
    let ids = site.state().ids().unwrap();
    assert_eq!(ids.len(), 1, "{ids:?}");
    ids.into_iter().next().unwrap()
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

#[test]
fn work_goes_in_and_comes_home() {
    let Some(site) = site() else { return };
    let work = site.work();
    repository(&work);
    git(&work, &["remote", "add", "origin", "https://ada:canary-in-a-url@git.example.org/app.git"]);
    git(&work, &["config", "http.extraHeader", "Authorization: Basic canary-in-a-header"]);
    symlink("/etc/hostname", work.join("link-out")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(work.join("app.sock")).unwrap();
    let script = format!(
        "set -e; git status --porcelain; stat -c %U . kept .git; readlink link-out; test ! -e app.sock; cat .git/config; \
         echo after > edited; rm removed; mkdir -p new/deep; echo made > new/deep/file; git add -A; {COMMIT}"
    );
    let ran = site.run(&coder()).to_end(&["sh", "-c", &script]).ok();
    assert!(ran.stdout.starts_with("?? link-out\nagent\nagent\nagent\n/etc/hostname\n"), "{ran:#?}");
    assert!(!ran.stdout.contains("canary-in-a"), "{ran:#?}");
    for said in ["left out: app.sock (a socket)", "taken out of .git/config", "launcher diff", "launcher take"] {
        assert!(ran.stderr.contains(said), "{said:?}: {ran:#?}");
    }
    site.assert_nothing_left();

    let id = id_of(&site);
    let shown = site.launcher(&["diff", &id]).ok();
    for said in ["-before\n+after", "deleted file mode", "b/new/deep/file", "+made", "commits: refs/heads/main"] {
        assert!(shown.stdout.contains(said), "{said:?}: {shown:#?}");
    }
    assert!(!shown.stdout.contains("a/kept"), "{shown:#?}");

    let head = git(&work, &["rev-parse", "HEAD"]);
    let taken = site.launcher(&["take", &id]).ok();
    assert_eq!(read(work.join("edited")), "after\n");
    assert_eq!(read(work.join("new/deep/file")), "made\n");
    assert!(!work.join("removed").exists() && work.join("app.sock").exists());
    assert!(taken.stderr.contains(&format!("refs/bottle/{id}/heads/main")), "{taken:#?}");
    assert_eq!(git(&work, &["rev-parse", "HEAD"]), head, "the operator's branch is where it was");
    let theirs = format!("refs/bottle/{id}/heads/main");
    assert_eq!(git(&work, &["rev-parse", &format!("{theirs}^")]), head);
    git(&work, &["fsck", "--strict", &theirs]);
    assert!(
        git(&work, &["config", "--list"]).contains("canary-in-a-url"),
        "the operator's own configuration is theirs"
    );
    site.launcher(&["take", &id]).ok();
}

#[test]
fn what_both_changed_is_refused_whole_unless_forced() {
    let Some(site) = site() else { return };
    let work = site.work();
    repository(&work);
    site.run(&coder()).to_end(&["sh", "-c", "echo agent > edited; echo agent > other"]).ok();
    std::fs::write(work.join("edited"), "operator\n").unwrap();
    let id = id_of(&site);
    let refused = site.launcher(&["take", &id]);
    assert_eq!(refused.status, 2, "{refused:?}");
    for said in ["edited changed on the host as well", "nothing was applied", "--force", "launcher diff"] {
        assert!(refused.stderr.contains(said), "{said:?}: {refused:?}");
    }
    assert_eq!(read(work.join("edited")), "operator\n");
    assert!(!work.join("other").exists());
    let forced = site.launcher(&["take", &id, "--force"]).ok();
    assert!(forced.stderr.contains("overwritten: edited"), "{forced:?}");
    assert_eq!((read(work.join("edited")), read(work.join("other"))), ("agent\n".to_owned(), "agent\n".to_owned()));
}

#[test]
fn nothing_dangerous_comes_home() {
    let Some(site) = site() else { return };
    let work = site.work();
    repository(&work);
    std::fs::create_dir(work.join("folder")).unwrap();
    std::fs::write(work.join("folder/inside"), "inside\n").unwrap();
    let outside = site.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("inside"), "untouched\n").unwrap();
    let script = format!(
        r#"mkdir -p .git/hooks
        printf '#!/bin/sh\ntouch {out}/ran\n' > .git/hooks/post-checkout; chmod +x .git/hooks/post-checkout
        git config core.fsmonitor 'touch {out}/ran'; git config core.pager 'touch {out}/ran'
        rm -r folder; ln -s {out} folder
        ln -s {out}/inside link; ln -s ../../../../etc up
        cp /bin/true setuid; chmod 6755 setuid
        touch "$(printf 'name\033]52;c;aGk=\007')"; printf 'text\033[2J\n' > text
        mkfifo pipe; echo '[x]' > .gitattributes; mkdir sub; cd sub; git init -q; cd ..; true"#,
        out = outside.display()
    );
    site.run(&coder()).to_end(&["sh", "-c", &script]).ok();
    let id = id_of(&site);
    let shown = site.launcher(&["diff", &id]).ok();
    let taken = site.launcher(&["take", &id]).ok();
    for text in [&shown.stdout, &shown.stderr, &taken.stderr] {
        assert!(!text.contains('\u{1b}') && !text.contains('\u{7}'), "{text}");
    }
    assert!(shown.stdout.contains("careful: .gitattributes"), "{}", shown.stdout);
    git(&work, &["status"]);
    git(&work, &["checkout", "-q", "HEAD", "--", "kept"]);
    assert!(!work.join(".git/hooks/post-checkout").exists() && !work.join("sub/.git").exists());
    assert!(!git(&work, &["config", "--list"]).contains("touch"));
    assert!(!outside.join("ran").exists());
    assert_eq!(read(outside.join("inside")), "untouched\n");
    let setuid = std::fs::metadata(work.join("setuid")).unwrap().permissions().mode();
    assert_eq!(setuid & 0o7000, 0, "{setuid:o}");
    assert!(!work.join("pipe").exists());
}

#[test]
fn a_running_bottle_has_no_work_yet_and_a_dead_keepers_work_is_saved() {
    let Some(site) = site() else { return };
    repository(&site.work());
    let bottle = site.run(&coder()).detached(&["sh", "-c", "echo after > edited; sleep 600"]);
    for command in ["diff", "take"] {
        let refused = site.launcher(&[command, bottle.id()]);
        assert_eq!(refused.status, 2, "{refused:?}");
        assert!(refused.stderr.contains("is running") && refused.stderr.contains("launcher stop"), "{refused:?}");
    }
    let refused = site.launcher(&["cleanup", "--forget", bottle.id()]);
    assert!(refused.status == 2 && refused.stderr.contains("is running"), "{refused:?}");
    wait_until("the agent has written", || (bottle.sh("cat edited").stdout == "after\n").then_some(()));
    kill(&bottle);
    let shown = site.launcher(&["diff", bottle.id()]).ok();
    assert!(shown.stdout.contains("+after"), "{shown:?}");
    site.assert_nothing_left();
    site.launcher(&["take", bottle.id()]).ok();
    assert_eq!(read(site.work().join("edited")), "after\n");
    assert!(site.launcher(&["ps", "--all"]).ok().stdout.contains("keeper died"));
    site.launcher(&["cleanup", "--forget", bottle.id()]).ok();
    assert!(!bottle.dir().path().exists());
    let gone = site.launcher(&["diff", bottle.id()]);
    assert!(gone.status == 2 && gone.stderr.contains("no bottle called"), "{gone:?}");
}

fn kill(bottle: &Bottle<'_>) {
    let keeper = bottle.keeper();
    Output::from(Command::new("kill").args(["-9", &keeper.to_string()]).output().unwrap()).ok();
    wait_until("the keeper is dead", || (!bottle.dir().is_living()).then_some(()));
}

#[test]
fn what_a_killed_take_left_is_swept() {
    let Some(site) = site() else { return };
    let work = site.work();
    repository(&work);
    site.run(&coder()).to_end(&["sh", "-c", "echo after > edited"]).ok();
    let id = id_of(&site);
    let state = site.state().dir(&id);
    let leave = || {
        std::fs::create_dir(work.join(".bottle-take-99")).unwrap();
        std::fs::write(work.join(".bottle-take-99/0"), "half").unwrap();
        std::fs::create_dir(work.join(".bottle-take-mine")).unwrap();
        std::fs::create_dir_all(state.path().join("objects.99.tmp/pack")).unwrap();
    };
    let gone = |what: &str| {
        assert!(!work.join(".bottle-take-99").exists(), "{what}");
        assert!(!state.path().join("objects.99.tmp").exists(), "{what}");
        std::fs::remove_dir(work.join(".bottle-take-mine")).expect("it is not ours");
    };
    leave();
    let cleaned = site.launcher(&["cleanup"]).ok();
    assert!(cleaned.stderr.contains("removed what a killed `launcher take` had left"), "{cleaned:?}");
    gone("cleanup");
    leave();
    site.launcher(&["take", &id]).ok();
    gone("take");
    assert_eq!(read(work.join("edited")), "after\n");
}

#[test]
fn without_a_workspace_nothing_comes_along() {
    let Some(site) = site() else { return };
    repository(&site.work());
    let ran =
        site.run(&coder()).args(&["--no-workspace"]).to_end(&["sh", "-c", "ls /workspace 2>&1 | wc -l; pwd"]).ok();
    assert!(!ran.stdout.contains("/workspace\n"), "{ran:?}");
    assert!(!ran.stderr.contains("launcher diff"), "{ran:?}");
    let refused = site.launcher(&["diff", &id_of(&site)]);
    assert!(refused.status == 2 && refused.stderr.contains("it was run without one"), "{refused:?}");
}
