//! The remotes of git-gate, and who commits.

use super::{World, bottle, header, refused, warned};
use crate::manifest::{RemoteCredential, RemoteUpstream, TokenRef};

/// A public key of a host that there is not.
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAID/Tr+GXwLIDHJNhYGRzH02qNatO6UjxFYAxMT5yNT1P";

/// A bottle with these remotes, each the lines of one in braces.
fn remotes(remotes: &[&str]) -> String {
    let list: Vec<String> = remotes.iter().map(|remote| format!("    - {{{remote}}}\n")).collect();
    format!("git:\n  remotes:\n{}", list.concat())
}

/// An ssh remote without a fault.
fn ssh(name: &str, upstream: &str) -> String {
    format!("name: {name}, upstream: \"{upstream}\", identity_file: /k, known_host_key: \"{KEY}\"")
}

fn https(name: &str, upstream: &str) -> String {
    format!("name: {name}, upstream: \"{upstream}\", token_ref: TOKEN")
}

#[test]
fn a_remote_says_where_it_is_and_what_opens_it() {
    let all = bottle(&format!(
        "git:\n  user: {{name: Ada, email: ada@example.org}}\n  remotes:\n    - name: app\n      upstream: \
         ssh://git@git.example.org:22/team/app.git\n      identity_file: ~/.ssh/id\n      known_host_key: {KEY} comment\n      \
         push: {{refs: [\"refs/heads/agent/*\"], max_pack: 2GiB}}\n      exceptions: [{}]\n    - {{{}}}\n    - {{name: pub, \
         upstream: \"https://Pub.example.org/x.git\"}}\n",
        "AB".repeat(32),
        https("lib", "https://lib.example.org:8443/lib"),
    ))
    .git;
    let user = all.user.unwrap();
    assert_eq!((user.name.as_str(), user.email.as_str()), ("Ada", "ada@example.org"));
    let [app, lib, public] = all.remotes.as_slice() else { panic!("{:?}", all.remotes) };
    assert_eq!(app.upstream.to_string(), "ssh://git@git.example.org/team/app.git");
    let RemoteCredential::SshKey { identity_file, host_key } = &app.credential else { panic!("{app:?}") };
    assert!(identity_file.ends_with("home/.ssh/id") && host_key == KEY);
    assert_eq!((app.push.refs.as_slice(), app.push.max_pack), (&["refs/heads/agent/*".to_owned()][..], Some(2 << 30)));
    assert!(!app.push.force && !app.push.delete && app.exceptions == ["ab".repeat(32)]);
    assert_eq!(lib.upstream.to_string(), "https://lib.example.org:8443/lib");
    let password = TokenRef::Env("TOKEN".to_owned());
    assert_eq!(lib.credential, RemoteCredential::Basic { user: Some("git".to_owned()), password });
    assert!(lib.push.refs.is_empty(), "nothing may be pushed unless it is said");
    assert_eq!(
        (public.upstream.to_string().as_str(), &public.credential),
        ("https://pub.example.org/x.git", &RemoteCredential::None)
    );
}

#[test]
fn the_keys_of_the_original_are_understood() {
    let old = bottle(&remotes(&[&format!(
        "Name: app, Upstream: \"git@git.example.org:team/app.git\", IdentityFile: ./key, KnownHostKey: \"{KEY}\""
    )]));
    let remote = &old.git.remotes[0];
    assert_eq!(remote.upstream.to_string(), "ssh://git@git.example.org/team/app.git");
    let home = bottle(&remotes(&[&ssh("app", "ada@h.org:~/app")])).git.remotes[0].upstream.clone();
    assert!(matches!(&home, RemoteUpstream::Ssh { path, .. } if path == "~/app"), "{home:?}");
    refused(&remotes(&[&format!("Name: b, {}", ssh("a", "git@h.org:x"))]), 5, "another spelling of `name`");
}

#[test]
fn what_is_no_remote() {
    let with = |more: &str| format!("name: app, upstream: \"ssh://git@h.org/a\", {more}");
    let key = format!("known_host_key: \"{KEY}\"");
    for (remote, part) in [
        (with(&key), "`identity_file` is missing"),
        (with("identity_file: /k"), "nothing is trusted on first use"),
        (with("identity_file: /k, known_host_key: \"\""), "is empty"),
        (with("identity_file: /k, known_host_key: ssh-ed25519"), "not a whole public key"),
        (with("identity_file: /k, known_host_key: ssh-ed25519 AAAA"), "not a whole public key"),
        (with("identity_file: /k, known_host_key: ssh-dss AAAA"), "not a type of host keys"),
        (with(&format!("identity_file: /k, known_host_key: \"h.org {KEY}\"")), "leave the host's name in front out"),
        (with(&format!("identity_file: /k, {key}, token_ref: T")), "no place in an ssh remote"),
        (with(&format!("identity_file: \"~eve/k\", {key}")), "another user's home"),
        (with(&format!("identity_file: /k, {key}, pish: {{}}")), "did you mean `push`?"),
        ("name: app, upstream: \"https://h.org/a\", identity_file: /k".to_owned(), "no place in an https remote"),
        ("name: app, upstream: \"https://h.org/a\", auth: bearer".to_owned(), "there is none"),
        (format!("{}, auth: digest", https("a", "https://h.org/a")), "there is no `auth` `digest`"),
        (https("a", "http://h.org/a"), "in the clear"),
        (https("a", "https://u:p@h.org/a"), "without a password"),
        (https("a", "https://h.org/a?b"), "without a password"),
        (https("a", "git://h.org/a"), "write ssh://"),
        (https("a", "/srv/a.git"), "write ssh://"),
        (https("a", "https://git-gate/a"), "inside the bottle"),
        (https("App", "https://h.org/a"), "lower-case letter"),
        (https("a/b", "https://h.org/a"), "only lower-case letters"),
        ("upstream: \"https://h.org/a\"".to_owned(), "`name` is missing"),
        ("name: app".to_owned(), "`upstream` is missing"),
        (format!("{}, push: {{refs: [main]}}", https("a", "https://h.org/a")), "not a full name of a ref"),
        (format!("{}, push: {{refs: refs/heads/x}}", https("a", "https://h.org/a")), "must be a list"),
        (format!("{}, push: {{force: maybe}}", https("a", "https://h.org/a")), "true or false"),
        (format!("{}, push: {{max_pack: 2GB}}", https("a", "https://h.org/a")), "did you mean `2GiB`?"),
        (format!("{}, exceptions: [abc]", https("a", "https://h.org/a")), "not a fingerprint"),
    ] {
        refused(&remotes(&[&remote]), 5, part);
    }
    refused("git: {user: {name: Ada}}\n", 3, "`email` is missing");
    refused("git: {user: {name: \"A <b>\", email: a@b.org}}\n", 3, "no name in a commit");
    refused("git: {remote: []}\n", 3, "did you mean `remotes`?");
    warned(
        &remotes(&["name: a, upstream: \"https://h.org/a\", token_ref: {command: [pass], ttl: 30m}"]),
        "fetched once",
    );
    bottle("git: {user: {name: Ada, email: a@b.org}}\n");
}

#[test]
fn a_name_and_an_upstream_stand_once() {
    let a = https("a", "https://h.org/team/x.git");
    refused(&remotes(&[&a, &https("a", "https://h.org/other")]), 6, "two remotes have the name `a`");
    for again in ["https://H.org/team/x", "https://h.org:8443/team/x.git/"] {
        refused(&remotes(&[&a, &https("b", again)]), 6, "leads to the repository of `a`");
    }
    refused(&remotes(&[&a, &ssh("b", "git@h.org:team/x")]), 6, "leads to the repository of `a`");
    bottle(&remotes(&[&a, &https("b", "https://h.org/team/x-two.git"), &ssh("c", "git@h.org:team/y")]));
}

#[test]
fn a_remotes_host_is_reached_by_the_gate_alone() {
    let one = remotes(&[&https("a", "https://git.h.org/x")]);
    for (egress, part) in [
        ("egress: {allowlist: [git.h.org]}\n", "around git-gate"),
        ("egress: {allowlist: [\"*.h.org\"]}\n", "around git-gate"),
        ("egress: {allowlist: [git.h.org], also_direct: [h.org]}\n", "also_direct: [git.h.org]"),
    ] {
        refused(&format!("{egress}{one}"), 3, part);
    }
    bottle(&format!("egress: {{allowlist: [h.org]}}\n{one}"));
    let meant = bottle(&format!("egress: {{allowlist: [git.h.org], also_direct: [git.h.org]}}\n{one}"));
    assert_eq!(meant.egress.also_direct.len(), 1);
    // One whose host is private needs a word as well.
    let world = World::with_bottle(&header(&format!("egress: {{allow_private: [git.h.org]}}\n{one}")));
    assert_eq!(world.load().unwrap().warnings, [""; 0]);
}

#[test]
fn a_route_of_the_same_host_is_another_way_in() {
    let route = |more: &str| {
        format!(
            "cred_proxy:\n  routes:\n    - {{path: /a/, upstream: \"https://git.h.org\", auth_scheme: none{more}}}\n{}",
            remotes(&[&https("a", "https://git.h.org/x")])
        )
    };
    refused(&route(", role: git-insteadof"), 8, "reached by remotes or by that route");
    refused(&route(", inspect: true"), 5, "cannot be inspected");
    warned(&route(", role: tea-login"), "`/a/` is not inspected, as git.h.org is the host of the remote `a` too");
    assert!(!bottle(&route(", role: tea-login")).routes[0].inspect);
}
