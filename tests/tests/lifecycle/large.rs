//! A workspace of a hundred thousand files: no error, only longer.

use crate::scene::{assert_never_was, plain};
use bottle_tests::harness::{Bottle, finish, signal, wait_until};
use rustix::process::Signal;
use std::path::Path;
use std::process::Stdio;

const FOLDERS: usize = 1000;
const FILES: usize = 100;

fn fill(folder: &Path) {
    for n in 0..FOLDERS {
        let folder = folder.join(format!("d{n}"));
        std::fs::create_dir(&folder).unwrap();
        for m in 0..FILES {
            std::fs::write(folder.join(format!("f{m}.txt")), format!("file {n} {m}\n")).unwrap();
        }
    }
}

#[test]
fn a_hundred_thousand_files_go_in_and_come_back_and_a_stop_breaks_the_copy_off() {
    let Some((site, name)) = plain() else { return };
    fill(&site.work());

    let mut command = site.run(&name).args(&["--name", &name]).into_command(&["true"]);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let bottle = Bottle::named(&site, &name);
    let made = ["inspect", &bottle.container("agent")];
    wait_until("the agent's container is made", || {
        let looked = std::process::Command::new("docker").args(made).output().unwrap();
        looked.status.success().then_some(())
    });
    signal(child.id(), Signal::INT);
    let output = finish(child);
    assert_eq!(output.status, 130, "{output:#?}");
    assert_never_was(&site);

    let script = "find . -type f -name 'f*.txt' | wc -l; echo changed > d5/f5.txt; echo new > new.txt; rm d6/f6.txt";
    let output = site.run(&name).args(&["--name", &name]).to_end(&["sh", "-c", script]).ok();
    assert_eq!(output.stdout.trim(), (FOLDERS * FILES).to_string(), "{output:#?}");
    site.assert_nothing_left();
    let diff = site.launcher(&["diff", &name]).ok().stdout;
    for wanted in ["d5/f5.txt", "d6/f6.txt", "new.txt"] {
        assert!(diff.contains(wanted), "{diff}");
    }
    site.launcher(&["take", &name]).ok();
    assert_eq!(std::fs::read_to_string(site.work().join("d5/f5.txt")).unwrap(), "changed\n");
    assert_eq!(std::fs::read_to_string(site.work().join("new.txt")).unwrap(), "new\n");
    assert!(!site.work().join("d6/f6.txt").exists());
    assert_eq!(
        std::fs::read_to_string(site.work().join("d999/f99.txt")).unwrap(),
        "file 999 99\n",
        "the rest is as it was"
    );
}
