//! supervise dies, the keeper dies, the disk is full: no verdict is lost, nothing is applied twice, and nothing is opened that
//! cannot be written down.

use super::scene::{ASKED, approve, ask_hosts, asking, call, listing, reaches, status, wait_for_pending};
use bottle_tests::harness::{Site, World, signal, wait_until};
use rustix::process::Signal;
use serde_json::json;

#[test]
fn a_supervise_that_is_killed_forgets_nothing() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = asking(&site, &world, "");
    let lost = ask_hosts(&site, &bottle, &[ASKED]);
    wait_for_pending(&site, &bottle, "p1");
    bottle.kill_container("supervise");
    drop(lost);
    wait_until("supervise runs again", || bottle.log("keeper").contains("supervise runs again").then_some(()));
    let check = |seconds: u64| call(&site, &bottle, "check-proposal", &json!({ "id": "p1", "wait_seconds": seconds }));
    assert_eq!(check(0).answer()["status"], "pending");
    let waiting = check(40);
    approve(&site, &bottle, "p1", &[]).ok();
    assert_eq!(waiting.answer()["status"], "approved");
    assert!(reaches(&bottle, ASKED));
    // Killed once more: the verdict is told again, and the next ask is numbered on.
    bottle.kill_container("supervise");
    let twice = || (bottle.log("keeper").matches("supervise runs again").count() == 2).then_some(());
    wait_until("supervise runs again", twice);
    assert_eq!(check(0).answer()["status"], "approved");
    let next = ask_hosts(&site, &bottle, &["npm.world.example"]);
    wait_for_pending(&site, &bottle, "p2");
    site.launcher(&["reject", bottle.id(), "p2"]).ok();
    assert_eq!(next.answer()["status"], "rejected");
    bottle.stop();
    site.assert_nothing_left();
}

#[test]
fn a_keeper_that_is_killed_leaves_a_log_that_says_what_happened() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let bottle = asking(&site, &world, "");
    let _first = ask_hosts(&site, &bottle, &[ASKED]);
    wait_for_pending(&site, &bottle, "p1");
    let _second = ask_hosts(&site, &bottle, &["npm.world.example"]);
    wait_for_pending(&site, &bottle, "p2");
    // Killed while it carries a verdict out: wherever that was, the journal knows.
    let mut approving = site.command();
    approving.args(["approve", bottle.id(), "p1", "--yes"]);
    let mut approving =
        approving.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let journal = bottle.dir().proposals();
    wait_until("the verdict is written down", || {
        std::fs::read_to_string(&journal).ok().filter(|text| text.contains(r#""record":"approved""#))
    });
    signal(bottle.keeper(), Signal::KILL);
    approving.wait().unwrap();
    site.launcher(&["cleanup"]).ok();
    let after = listing(&site, &bottle);
    let of = |n: usize| after["proposals"][n]["answer"]["status"].as_str().unwrap().to_owned();
    assert!(["approved", "failed"].contains(&of(0).as_str()), "{after}");
    assert_eq!(of(1), "pending", "{after}");
    assert_eq!(after["grants"], json!([]), "nothing is in force in a bottle that has ended");
    let text = std::fs::read_to_string(&journal).unwrap();
    assert_eq!(text.matches(r#""record":"approved""#).count(), 1, "{text}");
    site.launcher(&["audit", "verify", bottle.id()]).ok();
    let log = site.launcher(&["audit", bottle.id()]).ok().stdout;
    assert!(log.contains("approved by uid"), "{log}");
    wait_until("its containers are gone", || site.left().is_empty().then_some(()));
}

#[test]
fn what_cannot_be_written_down_is_not_opened_and_what_narrows_is_done_all_the_same() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let disk = Disk::mount(&site.path("state"));
    let bottle = asking(&site, &world, "");
    site.launcher(&["allow", bottle.id(), ASKED, "--yes"]).ok();
    disk.fill();
    // The last page of the log may have room for a line or two yet.
    let full =
        || (0..40).map(|n| format!("h{n}.example.org")).map(|h| site.launcher(&["allow", bottle.id(), &h, "--yes"]));
    assert!(full().any(|output| output.status != 0), "the disk is full");
    let refused = site.launcher(&["allow", bottle.id(), "npm.world.example", "--yes"]);
    assert_ne!(refused.status, 0, "{refused:#?}");
    assert!(refused.stderr.contains("cannot be written"), "{refused:#?}");
    assert!(!reaches(&bottle, "npm.world.example") && reaches(&bottle, ASKED));
    site.launcher(&["revoke", bottle.id(), ASKED, "--yes"]).ok();
    assert!(!reaches(&bottle, ASKED), "taking back needs no disk");
    disk.free();
    site.launcher(&["allow", bottle.id(), "npm.world.example", "--yes"]).ok();
    assert!(reaches(&bottle, "npm.world.example"));
    assert_eq!(status(&site, &bottle, "p1"), None);
    bottle.stop();
    site.launcher(&["audit", "verify", bottle.id()]).ok();
    drop(disk);
}

/// A small disk for the state directory.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(path: &std::path::Path) -> Self {
        use rustix::mount::{MountFlags, mount};
        mount("tmpfs", path, "tmpfs", MountFlags::empty(), Some(c"size=16m")).expect("a test of root's may mount");
        Self(path.to_owned())
    }

    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        let piece = vec![0; 64 << 10];
        while std::io::Write::write_all(&mut file, &piece).is_ok() {}
        // What is left of the last page.
        while std::io::Write::write_all(&mut file, b"x").is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The folder below is what the site removes.
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}
