//! Roles with real clients in a real bottle: what the agent's tools were told is enough for them, without a flag, and
//! what the route does not permit is refused in their own words. What arrived is judged by the other side.

#![allow(clippy::unwrap_used)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bottle_tests::harness::{Bottle, Site, World};
use bottle_tests::world::{Evidence, NPM};

/// Runs a script as the agent; it has to succeed.
#[track_caller]
fn ok(bottle: &Bottle<'_>, script: &str) -> String {
    bottle.sh(&format!("set -e; {script}")).ok().stdout
}

/// Method, path and credential of what a host of the world was asked.
fn asked(world: &World<'_>, role: &str, host: &str) -> Vec<(String, String, Option<String>)> {
    let seen = world.seen(role).into_iter();
    seen.filter_map(|evidence| match evidence {
        Evidence::Request { host: to, method, path, authorization, .. } if to == host => {
            Some((method, path, authorization))
        }
        _ => None,
    })
    .collect()
}

#[test]
fn git_clones_and_fetches_by_its_route_and_pushes_nowhere() {
    let Some(site) = Site::new() else { return };
    let mut world = World::start(&site);
    world.start_git();
    site.bottle("dev", &format!("{}{}", world.bottle_yaml(&site.clients()), world.git_yaml()));
    site.agent("roles-git", "dev");
    let bottle = site.run("roles-git").args(&["--no-workspace"]).detached(&["sleep", "600"]);

    let head = "git -C whole log -1 --format=%s main && git -C whole branch -r | wc -l && cat whole/README";
    let whole = ok(&bottle, &format!("cd /tmp; git clone -q https://git.world.example/team/app.git whole; {head}"));
    assert_eq!(whole, "commit 3\n62\nversion 3 of the small world\n");
    for (n, spelling) in
        ["git@git.world.example:team/app.git", "ssh://git@git.world.example/team/app.git"].iter().enumerate()
    {
        let shallow =
            format!("cd /tmp; git clone -q --depth 1 {spelling} shallow-{n}; git -C shallow-{n} log --format=%s");
        assert_eq!(ok(&bottle, &shallow), "commit 3\n", "{spelling}");
    }
    let fetch = "cd /tmp/shallow-0; git fetch -q --unshallow; git fetch -q origin topic-7; \
                 git log --format=%s main; git log -1 --format=%s FETCH_HEAD";
    assert_eq!(ok(&bottle, fetch), "commit 3\ncommit 2\ncommit 1\nbranch 7\n");

    // Its own settings go into its own file, and the rules stay.
    let own = "git config --global user.name Ada; git config --global user.email ada@example.org; \
               stat -c %U ~/.config/git/config; cd /tmp/whole; git commit -q --allow-empty -m more";
    assert_eq!(ok(&bottle, own), "agent\n");
    let push = bottle.sh("cd /tmp/whole; git push origin main");
    assert!(push.status != 0 && push.stderr.contains("403"), "{push:#?}");
    // No rule leads anywhere else: another host is what it was, and not on the list.
    let other = bottle.sh("git ls-remote https://attacker.world.example/team/app.git");
    assert_ne!(other.status, 0, "{other:#?}");

    let expected = format!("Basic {}", STANDARD.encode(world.git_credential()));
    let asked = asked(&world, "git", "git.world.example");
    assert!(asked.iter().any(|(method, path, _)| method == "POST" && path == "/team/app.git/git-upload-pack"));
    for (method, path, authorization) in &asked {
        assert_eq!(authorization.as_deref(), Some(expected.as_str()), "{method} {path}");
        assert!(!path.contains("receive-pack"), "{method} {path}");
    }
    assert!(world.seen("attacker").is_empty());
    bottle.stop();
    site.assert_nothing_left();
}

#[test]
fn npm_installs_by_its_route_and_publishes_nowhere() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    site.bottle("dev", &format!("{}{}", world.bottle_yaml(&site.clients_with_npm()), world.npm_yaml()));
    site.agent("roles-npm", "dev");
    let bottle = site.run("roles-npm").args(&["--no-workspace"]).detached(&["sleep", "600"]);

    let require = "node -p \"require('world-tree')\"";
    let install =
        format!("mkdir /tmp/app; cd /tmp/app; npm init -y >/dev/null; npm install world-tree >/dev/null; {require}");
    assert_eq!(ok(&bottle, &install), "a tree with a leaf of the small world\n");
    // The same from the list of what was installed, with nothing kept.
    let again = format!("cd /tmp/app; rm -rf node_modules ~/.npm; npm ci >/dev/null; {require}");
    assert_eq!(ok(&bottle, &again), "a tree with a leaf of the small world\n");
    // What it wrote down names the registry, not the bottle: it is good outside as well.
    let lock = ok(&bottle, "cat /tmp/app/package-lock.json");
    assert!(lock.contains(&format!("https://{NPM}/world-tree/-/world-tree-1.0.0.tgz")), "{lock}");

    let publish = "cd /tmp/app; npm pkg set name=mine; npm publish --//cred-proxy:9099/npm/:_authToken=own-key";
    let publish = bottle.sh(publish);
    assert!(publish.status != 0 && publish.stderr.contains("403"), "{publish:#?}");
    // Beside the tarballs nothing answers outside the route's own path.
    let beside = bottle.sh("curl -sS -o /dev/null -w '%{http_code}' http://cred-proxy:9099/world-tree");
    assert_eq!(beside.stdout, "403", "{beside:#?}");

    let expected = format!("Bearer {}", world.canary());
    let asked = asked(&world, "api", NPM);
    let tarballs = asked.iter().filter(|(_, path, _)| path.ends_with(".tgz")).count();
    assert_eq!(tarballs, 4, "{asked:#?}");
    for (method, path, authorization) in &asked {
        assert_eq!((method.as_str(), authorization.as_deref()), ("GET", Some(expected.as_str())), "{path}");
    }
    bottle.stop();
    site.assert_nothing_left();
}
