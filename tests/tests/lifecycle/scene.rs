//! What the tests share: a site with one agent in the plainest of bottles, and what must be true after each end.

use bottle_tests::harness::{Bottle, Site, wait_until};
use std::sync::atomic::{AtomicU32, Ordering};

/// An agent that writes a last file when it is asked to end.
pub const POLITE: &str = "trap 'echo last > last.txt; exit 0' TERM; echo > ready.txt; while :; do sleep 0.2; done";

/// An agent that does not hear when it is asked to end. What it starts inherits that.
pub const DEAF: &str = "trap '' TERM HUP INT; echo > ready.txt; while :; do sleep 0.2; done";

/// A site, and the name of an agent whose bottle has pipelock alone. The name is this test's own: others may run bottles
/// on the same engine.
pub fn plain() -> Option<(Site, String)> {
    plain_with("")
}

/// The same with more keys in the bottle's manifest.
pub fn plain_with(yaml: &str) -> Option<(Site, String)> {
    let site = Site::new()?;
    site.bottle("dev", &format!("agent:\n  provider: shell\n  image: {}\n{yaml}", site.clients()));
    let name = fresh("coder");
    site.agent(&name, "dev");
    std::fs::write(site.work().join("given.txt"), "given\n").unwrap();
    Some((site, name))
}

/// A name that no other test has.
pub fn fresh(word: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{word}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// What must be true of a bottle that has ended after its agent began: the keeper has gone, the engine holds nothing, and
/// the work is at home, with `file` in it.
#[track_caller]
pub fn assert_ended(site: &Site, bottle: &Bottle<'_>, file: &str) {
    bottle.wait_for_end();
    assert_taken_back(site, bottle, file);
}

/// The same of one whose keeper may have been killed.
#[track_caller]
pub fn assert_taken_back(site: &Site, bottle: &Bottle<'_>, file: &str) {
    site.assert_nothing_left();
    assert!(bottle.dir().recorded().is_none(), "the record of the plan is still there");
    let metadata = bottle.dir().metadata().expect("the folder of a bottle that began stays");
    assert!(metadata.ended.is_some(), "{metadata:?}");
    let diff = site.launcher(&["diff", bottle.id()]).ok();
    assert!(diff.stdout.contains(file), "{file} is not in {diff:#?}");
}

/// What must be true of a bottle that ended before its agent began: there is no trace of it.
#[track_caller]
pub fn assert_never_was(site: &Site) {
    wait_until("the folder goes", || site.state().ids().unwrap().is_empty().then_some(()));
    site.assert_nothing_left();
}
