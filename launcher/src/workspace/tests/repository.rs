//! The agent's repository: credentials stay at home, commits come back verified, and nothing of it runs.

use super::{World, git, git_with_input, names};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

fn repository(host: &Path) {
    git(host, &["init", "-q"]);
    fs::write(host.join("file"), "one\n").unwrap();
    git(host, &["add", "."]);
    git(host, &["commit", "-qm", "first"]);
}

/// Everything of the host's repository but objects and refs of bottles.
fn untouchables(host: &Path) -> String {
    let mut all = git(host, &["for-each-ref", "--exclude=refs/bottle/"]);
    for name in ["HEAD", "config", "index"] {
        all.push_str(&format!("{:?}", fs::read(host.join(".git").join(name)).unwrap()));
    }
    all + &format!("{:?}", names(&host.join(".git/hooks")))
}

fn commit(world: &World, text: &str) -> String {
    let agent = world.agent("");
    fs::create_dir_all(agent.join("src/deep")).unwrap();
    fs::write(agent.join("src/deep/new"), text).unwrap();
    git(&agent, &["add", "."]);
    git(&agent, &["commit", "-qm", text]);
    git(&agent, &["rev-parse", "HEAD"])
}

#[test]
fn commits_come_back_as_refs_of_the_bottle() {
    for packed in [false, true] {
        let world = World::new(repository);
        let agent = world.agent("");
        let host = world.host("");
        let before = untouchables(&host);
        commit(&world, "second");
        let main = commit(&world, "third");
        git(&agent, &["tag", "-am", "tagged", "v1"]);
        git(&agent, &["checkout", "-qb", "agent/side"]);
        let side = commit(&world, "side");
        git(&agent, &["checkout", "-q", "--detach"]);
        let detached = commit(&world, "detached");
        if packed {
            git(&agent, &["gc", "-q", "--aggressive"]);
        }
        let shown = world.diff().to_string();
        assert!(shown.contains("commits: refs/heads/agent/side none -> "), "{shown}");
        assert!(!shown.contains(".git/"), "{shown}");

        let taken = world.take().unwrap();
        assert_eq!(taken.commits.skipped, []);
        assert_eq!(taken.commits.none, None);
        let log = |name: &str| git(&host, &["log", "-1", "--format=%H %s", name]);
        assert_eq!(log("refs/bottle/x/heads/main"), format!("{main} third"));
        assert_eq!(log("refs/bottle/x/heads/agent/side"), format!("{side} side"));
        assert_eq!(log("refs/bottle/x/detached"), format!("{detached} detached"));
        assert_eq!(git(&host, &["cat-file", "-t", "refs/bottle/x/tags/v1"]), "tag");
        git(&host, &["fsck", "--full", "--strict"]);
        assert_eq!(git(&host, &["show", "refs/bottle/x/heads/main:src/deep/new"]), "third");
        assert_eq!(untouchables(&host), before);
        world.assert_outside_untouched();

        // Once more is no error and changes nothing.
        let again = world.take().unwrap();
        assert_eq!((again.commits.objects, again.commits.refs.len()), (0, 4));
    }
}

#[test]
fn a_linked_worktree_takes_commits_of_its_own_repository() {
    let main = tempfile::tempdir().unwrap();
    repository(main.path());
    let world = World::new(|host| {
        fs::remove_dir(host).unwrap();
        git(main.path(), &["worktree", "add", "-q", host.to_str().unwrap()]);
    });
    assert!(world.packed.warnings[0].contains("does not come along"), "{:?}", world.packed.warnings);
    let agent = world.agent("");
    fs::remove_file(agent.join(".git")).unwrap();
    git(&agent, &["init", "-q"]);
    let id = commit(&world, "own");
    let taken = world.take().unwrap();
    assert_eq!(taken.commits.refs, [("refs/bottle/x/heads/main".to_owned(), id.clone())]);
    assert_eq!(git(main.path(), &["rev-parse", "refs/bottle/x/heads/main"]), id);
    git(main.path(), &["fsck", "--full"]);
    assert!(world.host(".git").is_file());
}

#[test]
fn where_commits_cannot_go_the_files_come_all_the_same() {
    // The host has no repository.
    let world = World::new(|_| {});
    git(&world.agent(""), &["init", "-q"]);
    commit(&world, "own");
    let taken = world.take().unwrap();
    assert!(taken.commits.none.unwrap().contains("not a git repository"));
    assert!(world.host("src/deep/new").exists() && !world.host(".git").exists());
    // Its repository names objects by SHA-256.
    let world = World::new(|host| {
        git(host, &["init", "-q", "--object-format=sha256"]);
    });
    commit(&world, "own");
    let taken = world.take().unwrap();
    assert!(taken.commits.none.unwrap().contains("SHA-256"));
    assert!(world.host("src/deep/new").exists());
}

#[test]
fn credentials_of_the_configuration_stay_at_home() {
    let world = World::new(|host| {
        repository(host);
        git(host, &["remote", "add", "origin", "https://ada:hunter2@example.org/x.git"]);
        git(host, &["config", "http.https://example.org/.extraheader", "AUTHORIZATION: basic hunter2"]);
        git(host, &["config", "credential.helper", "!echo password=hunter2"]);
        git(host, &["config", "include.path", "../shared.conf"]);
        fs::write(host.join("shared.conf"), "[url \"https://x:hunter2@example.org/\"]\n\tinsteadOf = gh:\n").unwrap();
        fs::write(host.join(".git/FETCH_HEAD"), "abc\t\tbranch 'main' of https://a:hunter2@example.org/x\n").unwrap();
        git(host, &["branch", "config-of-mine"]);
    });
    let output = std::process::Command::new("grep").arg("-rl").arg("hunter2").arg(world.agent("")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert_eq!(git(&world.agent(""), &["remote", "get-url", "origin"]), "https://example.org/x.git");
    let stripped: Vec<String> = world.packed.stripped.iter().map(|(p, what)| format!("{p}: {what}")).collect();
    for named in [
        ".git/FETCH_HEAD: userinfo of an address",
        ".git/config: credential.helper",
        ".git/config: http.extraheader",
        ".git/config: userinfo of remote.url",
        "shared.conf: url.insteadof",
    ] {
        assert!(stripped.iter().any(|s| s == named), "{named} is not in {stripped:?}");
    }
    assert!(!stripped.concat().contains("hunter2"));
    assert!(world.baseline().refs.contains_key("refs/heads/config-of-mine"));
    assert!(world.diff().is_empty(), "{}", world.diff());
}

/// Writes a loose object whose content is `content`, under the name of `id` when that is given.
fn object(agent: &Path, kind: &str, content: &[u8]) -> String {
    git_with_input(agent, &["hash-object", "-t", kind, "-w", "--stdin", "--literally"], content)
}

fn commit_of(agent: &Path, tree: &str) -> String {
    git(agent, &["commit-tree", tree, "-m", "made"])
}

fn raw(id: &str) -> Vec<u8> {
    (0..20).map(|n| u8::from_str_radix(&id[2 * n..2 * n + 2], 16).unwrap()).collect()
}

#[test]
fn objects_that_break_the_rules_are_not_taken_and_sound_ones_beside_them_are() {
    let world = World::new(repository);
    let agent = world.agent("");
    let sound = commit(&world, "sound");
    let blob = object(&agent, "blob", b"evil");
    let entry = |mode: &str, name: &str, id: &str| [format!("{mode} {name}\0").as_bytes(), &raw(id)].concat();
    let inner = object(&agent, "tree", &entry("100644", "config", &blob));
    let missing = "0123456789abcdef0123456789abcdef01234567";
    let mut expected = Vec::new();
    for (name, entries, why) in [
        ("dotgit", entry("40000", ".git", &inner), "its own"),
        ("dotgit-case", entry("40000", ".GiT", &inner), "its own"),
        ("dots", entry("100644", "..", &blob), "named"),
        ("slash", entry("100644", "a/b", &blob), "named"),
        ("kind", entry("40000", "a", &blob), "where a tree must be"),
        ("missing", entry("100644", "a", missing), "missing"),
    ] {
        let tree = object(&agent, "tree", &entries);
        let id = commit_of(&agent, &tree);
        fs::write(agent.join(".git/refs/heads").join(name), id).unwrap();
        expected.push((format!("refs/heads/{name}"), why));
    }
    // An object whose content is another's: a valid file under a name that is not its hash.
    let wrong = object(&agent, "blob", b"said to be this");
    let file = |id: &str| agent.join(".git/objects").join(&id[..2]).join(&id[2..]);
    fs::remove_file(file(&wrong)).unwrap();
    fs::copy(file(&blob), file(&wrong)).unwrap();
    let tree = object(&agent, "tree", &entry("100644", "a", &wrong));
    fs::write(agent.join(".git/refs/heads/hash"), commit_of(&agent, &tree)).unwrap();
    expected.push(("refs/heads/hash".to_owned(), "another hash"));
    // A file that is no object at all.
    let broken = object(&agent, "blob", b"broken");
    fs::remove_file(file(&broken)).unwrap();
    fs::write(file(&broken), "no zlib").unwrap();
    let tree = object(&agent, "tree", &entry("100644", "a", &broken));
    fs::write(agent.join(".git/refs/heads/broken"), commit_of(&agent, &tree)).unwrap();
    expected.push(("refs/heads/broken".to_owned(), "object"));
    fs::write(agent.join(".git/refs/heads/no-commit"), &blob).unwrap();
    expected.push(("refs/heads/no-commit".to_owned(), "where a commit must be"));
    for name in ["a..b", "x.lock"] {
        fs::write(agent.join(".git/refs/heads").join(name), &sound).unwrap();
        expected.push((format!("refs/heads/{name}"), ""));
    }
    fs::write(agent.join(".git/refs/heads/id"), "../../../outside/secret\n").unwrap();
    expected.push(("refs/heads/id".to_owned(), "object id"));

    let taken = world.take().unwrap();
    assert_eq!(taken.commits.refs, [("refs/bottle/x/heads/main".to_owned(), sound)]);
    for (name, why) in &expected {
        let found = taken.commits.skipped.iter().find(|(skipped, _)| skipped == name);
        let (_, found) = found.unwrap_or_else(|| panic!("{name} is not in {:?}", taken.commits.skipped));
        assert!(found.contains(why), "{name}: {found}");
    }
    assert_eq!(taken.commits.skipped.len(), expected.len(), "{:?}", taken.commits.skipped);
    let host = world.host("");
    git(&host, &["fsck", "--full", "--strict"]);
    assert_eq!(git(&host, &["for-each-ref", "--format=%(refname)", "refs/bottle"]), "refs/bottle/x/heads/main");
    world.assert_outside_untouched();
}

#[test]
fn alternates_links_and_hooks_of_the_agents_repository_lead_nowhere() {
    let elsewhere = tempfile::tempdir().unwrap();
    repository(elsewhere.path());
    fs::write(elsewhere.path().join("file"), "the host's secret").unwrap();
    git(elsewhere.path(), &["commit", "-qam", "secret"]);
    let secret = git(elsewhere.path(), &["rev-parse", "HEAD"]);
    let world = World::new(repository);
    let agent = world.agent("");
    let objects = elsewhere.path().join(".git/objects");
    fs::create_dir_all(agent.join(".git/objects/info")).unwrap();
    fs::write(agent.join(".git/objects/info/alternates"), objects.to_str().unwrap()).unwrap();
    let pack = agent.join(".git/objects/pack/pack-0123456789abcdef0123456789abcdef01234567.pack");
    symlink("/etc/passwd", pack).unwrap();
    fs::write(agent.join(".git/refs/heads/stolen"), &secret).unwrap();
    symlink(objects.join(&secret[..2]), agent.join(".git/objects").join(&secret[..2])).unwrap_or_default();
    fs::write(agent.join(".git/hooks/post-checkout"), "#!/bin/sh\ntouch /ran\n").unwrap();
    fs::write(agent.join(".git/config"), "[core]\n\tfsmonitor = touch ran\n").unwrap();
    let before = names(&world.host(".git/hooks"));
    let taken = world.take().unwrap();
    assert!(taken.commits.refs.is_empty(), "{taken:?}");
    assert!(taken.commits.skipped[0].1.contains("missing"), "{taken:?}");
    assert!(taken.written.is_empty());
    assert_eq!(names(&world.host(".git/hooks")), before);
    assert!(!fs::read_to_string(world.host(".git/config")).unwrap().contains("fsmonitor"));
}

#[test]
fn packs_and_indexes_that_lie_end_in_a_refusal() {
    let world = World::new(repository);
    let agent = world.agent("");
    commit(&world, "second");
    let sound = commit(&world, "third");
    git(&agent, &["gc", "-q"]);
    let packs = agent.join(".git/objects/pack");
    for end in [".pack", ".idx"] {
        let name = names(&packs).into_iter().find(|n| n.ends_with(end)).unwrap();
        let file = packs.join(name);
        let honest = fs::read(&file).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        for at in (0..honest.len()).step_by(honest.len() / 12) {
            let mut lying = honest.clone();
            lying[at] ^= 0xff;
            fs::write(&file, &lying).unwrap();
            let taken = world.take().unwrap();
            let commits = taken.commits;
            assert!(
                commits.refs.len() + commits.skipped.len() == 1 || commits.none.is_some(),
                "{end} {at}: {commits:?}"
            );
            git(&world.host(""), &["fsck", "--full", "--strict"]);
        }
        fs::write(&file, &honest[..honest.len() / 2]).unwrap();
        world.take().unwrap();
        fs::write(&file, &honest).unwrap();
    }
    let taken = world.take().unwrap();
    assert_eq!(taken.commits.refs, [("refs/bottle/x/heads/main".to_owned(), sound)]);
    git(&world.host(""), &["fsck", "--full", "--strict"]);
}

#[test]
fn a_branch_below_another_that_the_host_has_packed_is_not_taken() {
    let world = World::new(repository);
    let (agent, host) = (world.agent(""), world.host(""));
    git(&agent, &["checkout", "-qb", "a"]);
    commit(&world, "on a");
    assert_eq!(world.take().unwrap().commits.skipped, []);
    git(&host, &["pack-refs", "--all"]);
    // A name that is no UTF-8, as old repositories have them.
    let (packed, tip) = (host.join(".git/packed-refs"), git(&host, &["rev-parse", "HEAD"]));
    let other = [fs::read(&packed).unwrap(), tip.into_bytes(), b" refs/tags/\xe4\n".to_vec()].concat();
    fs::write(&packed, other).unwrap();
    git(&agent, &["checkout", "-q", "--detach"]);
    git(&agent, &["branch", "-qD", "a"]);
    git(&agent, &["branch", "a/b"]);
    git(&agent, &["branch", "ab"]);
    let commits = world.take().unwrap().commits;
    let (name, why) = &commits.skipped[0];
    assert_eq!((commits.skipped.len(), name.as_str()), (1, "refs/heads/a/b"), "{commits:?}");
    assert!(why.contains("refs/bottle/x/heads/a is there"), "{why}");
    assert!(commits.refs.iter().any(|(name, _)| name == "refs/bottle/x/heads/ab"), "{commits:?}");
    git(&host, &["clone", "-q", "--mirror", ".", "mirror"]);
}

#[test]
fn chains_of_deltas_end_somewhere() {
    for (deltas, taken) in [(400, true), (700, false)] {
        let world = World::new(repository);
        let agent = world.agent("");
        let text: String = (0..200).map(|line| format!("line {line}\n")).collect();
        let mut stream = String::new();
        for version in 0..=deltas {
            let content = format!("{text}version {version}\n");
            stream.push_str(&format!("blob\nmark :{}\ndata {}\n{content}\n", version + 1, content.len()));
        }
        stream.push_str("commit refs/heads/deep\ncommitter Ada <ada@example.org> 1700000000 +0000\ndata 1\nx\n");
        stream.push_str(&format!("M 100644 :{} file\ndone\n", deltas + 1));
        git_with_input(&agent, &["fast-import", "--quiet", "--done", "--depth=4000"], stream.as_bytes());
        let packs = names(&agent.join(".git/objects/pack"));
        assert!(packs.iter().any(|name| name.ends_with(".pack")), "{packs:?}");
        let commits = world.take().unwrap().commits;
        assert_eq!(commits.refs.iter().any(|(name, _)| name == "refs/bottle/x/heads/deep"), taken, "{commits:?}");
        assert_eq!(commits.skipped.iter().any(|(_, why)| why.contains("deltas away")), !taken, "{commits:?}");
    }
}

#[test]
fn a_pack_with_many_names_and_a_broken_loose_file_beside_it_change_nothing() {
    let world = World::new(repository);
    let agent = world.agent("");
    let tip = commit(&world, "second");
    let (fan, rest) = tip.split_at(2);
    let loose = agent.join(".git/objects").join(fan).join(rest);
    let whole = fs::read(&loose).unwrap();
    git(&agent, &["gc", "-q"]);
    fs::create_dir_all(loose.parent().unwrap()).unwrap();
    fs::write(&loose, &whole[..whole.len() / 2]).unwrap();
    let packs = agent.join(".git/objects/pack");
    let pack = names(&packs).into_iter().find(|name| name.ends_with(".pack")).unwrap();
    for number in 0..20 {
        fs::hard_link(packs.join(&pack), packs.join(format!("pack-{number:040}.pack"))).unwrap();
    }
    let commits = world.take().unwrap().commits;
    assert_eq!(commits.refs, [("refs/bottle/x/heads/main".to_owned(), tip)]);
    git(&world.host(""), &["fsck", "--full", "--strict"]);
}
