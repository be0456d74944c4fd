//! The commands around a launch, as a person says them: a first pair of manifests, what it gives, whether this machine
//! can hold it, and the pages that a shell and a manual want.

#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

use bottle_tests::harness::Site;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// An agent's name that no other test on the engine has: the names of what a bottle has there come from it.
fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("cm{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

#[test]
fn a_first_pair_is_written_shown_and_never_written_over() {
    let Some(site) = Site::new() else { return };
    let name = unique();
    let written = site.launcher(&["init", &name, "--image", &site.clients()]).ok();
    assert!(written.stderr.contains(&format!("launcher run {name} -- bash")), "{written:?}");
    site.launcher(&["check", &name]).ok();
    let shown = site.launcher(&["show", &name]).ok();
    for part in ["provider       shell", &site.clients(), "hosts          none"] {
        assert!(shown.stdout.contains(part), "{part:?} is not in {shown:?}");
    }
    let json = site.launcher(&["show", "--bottle", &name, "--json"]).ok().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["bottle"], &json["agent"]), (&name.as_str().into(), &serde_json::Value::Null));
    assert_eq!(json["reach"]["hosts"], serde_json::json!([]));
    // What it wrote runs.
    let ran = site.run(&name).to_end(&["true"]);
    assert_eq!(ran.status, 0, "{ran:?}");

    let again = site.launcher(&["init", &name]);
    assert_eq!(again.status, 2, "{again:?}");
    assert!(again.stderr.contains("is there already"), "{again:?}");
    for (args, words) in [
        (&["init", "Dev"][..], "cannot be a name"),
        (&["init", "other", "--provider", "claud"], "did you mean `claude`?"),
        (&["init", "other", "--image=--privileged"], "is not an image"),
    ] {
        let refused = site.launcher(args);
        assert_eq!(refused.status, 2, "{refused:?}");
        assert!(refused.stderr.contains(words), "{words:?} is not in {refused:?}");
    }
    let list = site.launcher(&["list", "--json"]).ok().stdout;
    assert!(!list.contains("other"), "a pair that is wrong stays: {list}");
}

#[test]
fn a_provider_says_what_runs_and_what_it_finds_in_its_home() {
    let Some(site) = Site::new() else { return };
    // A kind of agent of the operator's own: its program, on a terminal and without one, and its files.
    std::fs::create_dir_all(site.path("config/bottle/providers")).unwrap();
    let provider = format!(
        "image = \"{}\"\ncommand = [\"sh\", \"-c\", \"echo on a terminal\"]\nheadless = [\"sh\", \"-c\", \"cat; cat \
         ~/.tool/config.json ~/.tool/prompt.md; echo $TOOL\"]\nprompt = \".tool/prompt.md\"\n[env]\nTOOL = \"from its \
         provider\"\n[[file]]\npath = \".tool/config.json\"\nmerge = \"json\"\ntext = '{{\"works_in\": \
         \"{{workspace}}\"}}'\n",
        site.clients()
    );
    std::fs::write(site.path("config/bottle/providers/tool.toml"), provider).unwrap();
    site.bottle("dev", "agent: {provider: tool}\n");
    let coder = unique();
    site.agent(&coder, "dev");
    let headless = site.launcher(&["run", &coder, "--headless", "--prompt", "the question", "--no-workspace"]).ok();
    for part in ["the question", "\"works_in\": \"/workspace\"", "from its provider"] {
        assert!(headless.stdout.contains(part), "{part:?} is not in {headless:?}");
    }
    let plain = site.launcher(&["run", &coder, "--yes", "--no-workspace"]).ok();
    assert!(plain.stdout.contains("on a terminal"), "{plain:?}");
    // The operator's word is before the provider's.
    let named = site.run(&coder).to_end(&["echo", "as named"]);
    assert!(named.stdout.contains("as named"), "{named:?}");
}

#[test]
fn a_doctor_says_yes_or_no_with_a_reason() {
    let Some(site) = Site::new() else { return };
    let rows = |output: &str| -> Vec<serde_json::Value> { serde_json::from_str(output).unwrap() };
    let verdict = |rows: &[serde_json::Value], what: &str| {
        let row = rows.iter().find(|row| row["what"] == what).unwrap_or_else(|| panic!("{what}: {rows:?}"));
        assert!(!row["why"].as_str().unwrap().is_empty());
        row["verdict"].as_str().unwrap().to_owned()
    };
    let healthy = rows(&site.launcher(&["doctor", "--json"]).ok().stdout);
    for what in ["engine", "state", "sidecars", "subnets", "leftovers"] {
        assert_eq!(verdict(&healthy, what), "yes", "{what}: {healthy:?}");
    }
    assert_eq!(verdict(&healthy, "manifests"), "note", "there are none yet: {healthy:?}");
    site.bottle("dev", "agent: {imge: a}\n");
    let output = site.command().args(["doctor", "--json"]).env("DOCKER_HOST", "unix:///no/such.sock").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let ill = rows(&String::from_utf8(output.stdout).unwrap());
    assert_eq!((verdict(&ill, "engine"), verdict(&ill, "manifests")), ("no".to_owned(), "no".to_owned()), "{ill:?}");
}

#[test]
fn a_manifest_is_edited_and_looked_at_afterwards() {
    let Some(site) = Site::new() else { return };
    site.bottle("dev", &format!("agent: {{image: '{}'}}\n", site.hostile()));
    let editor = |text: &str| {
        let path = site.path("editor");
        std::fs::write(&path, format!("#!/bin/sh\nprintf '%b' '{text}' > \"$2\"\n")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = site.command();
        command.args(["edit", "dev", "--bottle"]).env("EDITOR", format!("{} -x", path.display())).env_remove("VISUAL");
        command.output().unwrap()
    };
    let wrong = editor("---\\nagent: {imge: a}\\n---\\n");
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("did you mean `image`?"), "{wrong:?}");
    let right = editor("---\\nagent: {image: a}\\n---\\n");
    assert!(right.status.success(), "{right:?}");
    assert_eq!(site.launcher(&["edit", "nobody"]).status, 2);
}

#[test]
fn a_shell_and_a_manual_get_their_pages() {
    let Some(site) = Site::new() else { return };
    let bash = site.launcher(&["completions", "bash"]).ok().stdout;
    let script = site.path("completions.bash");
    std::fs::write(&script, bash).unwrap();
    // What bash itself completes.
    let ask = format!(
        "source {}; COMP_WORDS=(launcher cle); COMP_CWORD=1; _launcher launcher cle launcher; echo \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    let completed = Command::new("bash").args(["-c", &ask]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&completed.stdout).trim(), "cleanup", "{completed:?}");
    assert!(site.launcher(&["man"]).ok().stdout.contains(".TH launcher 1"));
    let pages = site.path("man");
    site.launcher(&["man", "--out", pages.to_str().unwrap()]).ok();
    let run = std::fs::read_to_string(pages.join("launcher-run.1")).unwrap();
    assert!(run.contains("headless"), "{run}");
    assert!(!pages.join("launcher-keeper.1").exists());
}
