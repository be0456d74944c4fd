//! Golden pages: what a person is shown, and what a program reads.

use super::*;
use crate::engine::{EngineFacts, ImageFacts, Owner, Subnet};
use crate::manifest::{Places, load::load};
use crate::plan::{Facts, Order, plan};
use crate::workspace::TreePath;
use std::collections::BTreeMap;

const PLAIN: &str = "agent:\n  provider: shell\n  image: example/agent:1\negress:\n  allowlist: [crates.example.org]\n";

const ROUTED: &str = "agent:\n  provider: shell\n  image: example/agent:1\n  user: dev\nenv:\n  LEVEL: info\n  \
    CI_TOKEN: ${CI_TOKEN}\n  PASS: \"?Passphrase\"\negress:\n  allowlist: [a.example.org, b.example.org, c.example.org, \
    d.example.org, e.example.org]\n  passthrough: [a.example.org]\ncred_proxy:\n  routes:\n    - path: /api/\n      \
    upstream: https://api.example.org\n      auth_scheme: Bearer\n      token_ref: API_TOKEN\n      allow: [\"GET /v1/**\"]\n\
    workspace: none\n";

fn order(yaml: &str, workspace: bool) -> Order {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["agents", "bottles"] {
        std::fs::create_dir(dir.path().join(folder)).unwrap();
    }
    std::fs::write(dir.path().join("bottles/dev.md"), format!("---\n{yaml}---\n")).unwrap();
    std::fs::write(dir.path().join("agents/coder.md"), "---\ndescription: writes code\nbottle: dev\n---\n").unwrap();
    let places = Places { config: dir.path().to_owned(), repository: None, home: None };
    let loaded = load(&places, "coder", None).unwrap_or_else(|errors| panic!("{errors}"));
    let word = |word: &str| word.to_owned();
    Order {
        owner: Owner { id: word("coder"), host: word("host"), state: word("state"), agent: word("coder") },
        agent: loaded.agent,
        bottle: loaded.bottle,
        command: Vec::new(),
        prompt: None,
        workspace: workspace.then(|| "/home/ada/app".into()),
        subnet_pool: Subnet::parse("10.213.0.0/16").unwrap(),
        images: crate::images::references(),
        attempt: 0,
        resumed: None,
    }
}

fn facts() -> Facts {
    let engine = EngineFacts {
        kernel: "6.1.0".to_owned(),
        networks: BTreeMap::from([("corp".to_owned(), Vec::new())]),
        ..EngineFacts::default()
    };
    let image = ImageFacts {
        id: format!("sha256:{}", "ab".repeat(32)),
        entrypoint: vec!["/entry".to_owned()],
        command: vec!["serve".to_owned(), "\u{1b}[31m".to_owned()],
        workdir: "/srv".to_owned(),
        ..ImageFacts::default()
    };
    Facts { engine: Some(engine), agent_image: Some(image) }
}

fn printed(yaml: &str, workspace: bool, facts: &Facts) -> String {
    text(&plan(&order(yaml, workspace), facts).unwrap())
}

#[test]
fn a_plan_without_routes() {
    insta::assert_snapshot!(printed(PLAIN, true, &facts()), @r"
    bottle coder

    stage 1: networks and containers
      - network bottle-coder-internal 10.213.203.208/28 (internal, no address of the
        host)
      - network bottle-coder-egress 10.213.203.224/28 (the way out)
      - container bottle-coder-agent from example/agent:1 at 10.213.203.214 on
        bottle-coder-internal
        write the agent's files into bottle-coder-agent
        copy /home/ada/app into bottle-coder-agent
        container bottle-coder-wall from bottle/wall:0.1.0 in the network of
        bottle-coder-agent
      - container bottle-coder-pipelock from bottle/pipelock:<pinned> on
        bottle-coder-egress
        connect bottle-coder-pipelock to bottle-coder-internal at 10.213.203.210

    stage 2: compare
      - read everything back and compare it with this plan

    stage 3: start
      - start bottle-coder-agent and wait until agent is ready
        run bottle-coder-wall to its end
      - start bottle-coder-pipelock and wait until pipelock is ready

    then: /entry serve \u{1b}[31m
      as agent (1000, added)
      in /workspace

      image          example/agent:1 (sha256:abababababab)
      user           the image's, never root
      hosts          crates.example.org
      workspace      a copy of /home/ada/app
      limits         2 cpus, 4.0 GiB memory, 512 processes, 20.0 GiB disk
      runtime        the engine's default
      pipelock       bottle/pipelock:<pinned>
    ");
}

#[test]
fn a_plan_with_routes() {
    insta::assert_snapshot!(printed(ROUTED, false, &facts()), @r"
    bottle coder

    stage 1: networks and containers
      - network bottle-coder-internal 10.213.203.208/28 (internal, no address of the
        host)
      - network bottle-coder-egress 10.213.203.224/28 (the way out)
      - network bottle-coder-routes 10.213.203.240/28 (internal, no address of the
        host)
      - container bottle-coder-agent from example/agent:1 at 10.213.203.214 on
        bottle-coder-internal
        write the agent's files into bottle-coder-agent
        container bottle-coder-wall from bottle/wall:0.1.0 in the network of
        bottle-coder-agent
      - container bottle-coder-pipelock from bottle/pipelock:<pinned> on
        bottle-coder-egress
        connect bottle-coder-pipelock to bottle-coder-internal at 10.213.203.210
      - container bottle-coder-route-pipelock from bottle/pipelock:<pinned> on
        bottle-coder-egress
        connect bottle-coder-route-pipelock to bottle-coder-routes at 10.213.203.242
      - container bottle-coder-cred-proxy from bottle/cred-proxy:0.1.0 at
        10.213.203.211 on bottle-coder-internal
        connect bottle-coder-cred-proxy to bottle-coder-routes at 10.213.203.243

    stage 2: compare
      - read everything back and compare it with this plan

    stage 3: start
      - start bottle-coder-agent and wait until agent is ready
        run bottle-coder-wall to its end
      - start bottle-coder-pipelock and wait until pipelock is ready
      - start bottle-coder-route-pipelock and wait until route-pipelock is ready
      - start bottle-coder-cred-proxy and wait until cred-proxy is ready

    then: /entry serve \u{1b}[31m
      as dev
      in /srv

      image          example/agent:1 (sha256:abababababab)
      user           dev
      hosts          a.example.org, b.example.org, c.example.org, d.example.org,
                     e.example.org
      not inspected  a.example.org
      route          /api/ -> https://api.example.org (credential: variable
                     API_TOKEN)
                     may GET /v1/**
      inspection     of a route: replies are held back until they are whole, but for
                     event streams; trailers and upgrades are lost; compressed
                     requests are refused
      holds          CI_TOKEN (from this machine's environment)
      holds          LEVEL (written in the manifest)
      holds          PASS (asked for at launch)
      workspace      nothing
      limits         2 cpus, 4.0 GiB memory, 512 processes, 20.0 GiB disk
      runtime        the engine's default
      pipelock       bottle/pipelock:<pinned>
    ");
}

#[test]
fn a_plan_that_goes_out_by_an_existing_network() {
    let yaml = PLAIN.replace("egress:\n", "egress:\n  network: corp\n");
    insta::assert_snapshot!(printed(&yaml, false, &facts()), @r"
    bottle coder

    stage 1: networks and containers
      - network bottle-coder-internal 10.213.203.208/28 (internal, no address of the
        host)
      - container bottle-coder-agent from example/agent:1 at 10.213.203.214 on
        bottle-coder-internal
        write the agent's files into bottle-coder-agent
        container bottle-coder-wall from bottle/wall:0.1.0 in the network of
        bottle-coder-agent
      - container bottle-coder-pipelock from bottle/pipelock:<pinned> on corp
        connect bottle-coder-pipelock to bottle-coder-internal at 10.213.203.210

    stage 2: compare
      - read everything back and compare it with this plan

    stage 3: start
      - start bottle-coder-agent and wait until agent is ready
        run bottle-coder-wall to its end
      - start bottle-coder-pipelock and wait until pipelock is ready

    then: /entry serve \u{1b}[31m
      as agent (1000, added)
      in /srv

      image          example/agent:1 (sha256:abababababab)
      user           the image's, never root
      hosts          crates.example.org
      goes out by    the engine's network corp
      workspace      nothing
      limits         2 cpus, 4.0 GiB memory, 512 processes, 20.0 GiB disk
      runtime        the engine's default
      pipelock       bottle/pipelock:<pinned>
    ");
}

#[test]
fn a_plan_without_an_engine_says_what_is_unknown() {
    insta::assert_snapshot!(printed(PLAIN, true, &Facts::default()), @"
    bottle coder
    no engine answered: subnets are those of an engine without networks, and what
    only it knows is unknown

    stage 1: networks and containers
      - network bottle-coder-internal 10.213.203.208/28 (internal, no address of the
        host)
      - network bottle-coder-egress 10.213.203.224/28 (the way out)
      - container bottle-coder-agent from example/agent:1 at 10.213.203.214 on
        bottle-coder-internal
        write the agent's files into bottle-coder-agent
        copy /home/ada/app into bottle-coder-agent
        container bottle-coder-wall from bottle/wall:0.1.0 in the network of
        bottle-coder-agent
      - container bottle-coder-pipelock from bottle/pipelock:<pinned> on
        bottle-coder-egress
        connect bottle-coder-pipelock to bottle-coder-internal at 10.213.203.210

    stage 2: compare
      - read everything back and compare it with this plan

    stage 3: start
      - start bottle-coder-agent and wait until agent is ready
        run bottle-coder-wall to its end
      - start bottle-coder-pipelock and wait until pipelock is ready

    then: the image's own program
      as unknown until the image is there
      in /workspace

      image          example/agent:1 (unknown without an engine)
      user           the image's, never root
      hosts          crates.example.org
      workspace      a copy of /home/ada/app
      limits         2 cpus, 4.0 GiB memory, 512 processes, 20.0 GiB disk
      runtime        unknown without an engine
      pipelock       bottle/pipelock:<pinned>
    ");
}

#[test]
fn the_preflight_is_a_page() {
    let order = order(ROUTED, true);
    let path = |p: &str| TreePath::parse(p.as_bytes()).unwrap();
    let survey = Survey {
        files: 1234,
        bytes: 5 << 20,
        left_out: vec![("run/app.sock".to_owned(), "a socket".to_owned())],
        sensitive: (0..10).map(|n| path(&format!("deploy/{n}/.env"))).collect(),
    };
    let reach = super::super::reach::reach(&order, &facts());
    insta::assert_snapshot!(preflight(&reach, "coder", Some(&survey)), @"
    The bottle coder gives its agent:
      image          example/agent:1 (sha256:abababababab)
      user           dev
      hosts          a.example.org, b.example.org, c.example.org, d.example.org,
                     e.example.org
      not inspected  a.example.org
      route          /api/ -> https://api.example.org (credential: variable
                     API_TOKEN)
                     may GET /v1/**
      inspection     of a route: replies are held back until they are whole, but for
                     event streams; trailers and upgrades are lost; compressed
                     requests are refused
      holds          CI_TOKEN (from this machine's environment)
      holds          LEVEL (written in the manifest)
      holds          PASS (asked for at launch)
      workspace      a copy of /home/ada/app
      limits         2 cpus, 4.0 GiB memory, 512 processes, 20.0 GiB disk
      runtime        the engine's default
      pipelock       bottle/pipelock:<pinned>
      files          1234, 5 MiB
      with secrets?  deploy/0/.env
                     deploy/1/.env
                     deploy/2/.env
                     deploy/3/.env
                     deploy/4/.env
                     deploy/5/.env
                     deploy/6/.env
                     deploy/7/.env
                     and 2 more
      left out       run/app.sock (a socket)
    ");
}

const EVERYTHING: &str = "agent: {provider: shell, image: example/agent:1}\nenv: {LEVEL: info}\negress:\n  \
    allowlist: [crates.example.org, \"*.files.example.org\"]\n  passthrough: [crates.example.org]\n  allow_private: [crates.example.org]\n  \
    agent_credentials: true\ncred_proxy:\n  routes:\n    - path: /anthropic/\n      \
    upstream: https://api.example.org\n      auth_scheme: Bearer\n      token_ref: {command: [pass, show, model]}\n      role: \
    anthropic-base-url\n    - path: /npm/\n      upstream: https://npm.example.org\n      auth_scheme: none\n      role: npm-registry\n      \
    inspect: true\ngit:\n  user: {name: Ada, email: ada@example.org}\n  remotes:\n    - name: lib\n      upstream: \
    https://lib.example.org/lib.git\n      push: {refs: [\"refs/heads/agent/*\"]}\nsupervise: true\nlimits: {cpus: 2, memory: 4GiB, \
    time: 8h}\n";

#[test]
fn the_preflight_of_a_bottle_with_everything_is_a_page() {
    let order = order(EVERYTHING, true);
    let survey = Survey { files: 3, bytes: 1, left_out: Vec::new(), sensitive: Vec::new() };
    let page = preflight(&super::super::reach::reach(&order, &facts()), "coder", Some(&survey));
    assert!(page.lines().all(|line| line.chars().count() <= COLUMNS), "{page}");
    insta::assert_snapshot!(page, @"
    The bottle coder gives its agent:
      image          example/agent:1 (sha256:abababababab)
      user           the image's, never root
      hosts          crates.example.org, *.files.example.org
      not inspected  crates.example.org
      private        crates.example.org
      credentials    its own Authorization and X-Api-Key headers may leave
      route          /anthropic/ -> https://api.example.org (credential: command
                     pass, not inspected)
                     may POST /v1/messages, POST /v1/messages/count_tokens, GET
                     /v1/models, GET /v1/models/*
                     used as anthropic-base-url
      route          /npm/ -> https://npm.example.org (credential: none)
                     may GET /**, HEAD /**
                     used as npm-registry
                     answers at / too, where npm asks for its tarballs
                     inspected: packages are slow to scan
      inspection     of a route: replies are held back until they are whole, but for
                     event streams; trailers and upgrades are lost; compressed
                     requests are refused
      remote         lib -> https://lib.example.org/lib.git (credential: none)
                     may fetch, and push refs/heads/agent/* (scanned first; forward
                     only, no deletes)
      may ask        for more while it runs; a person answers (launcher proposals)
      commits as     Ada <ada@example.org>
      holds          LEVEL (written in the manifest)
      workspace      a copy of /home/ada/app
      limits         2 cpus, 4.0 GiB memory, 512 processes, 20.0 GiB disk, 8 h
      runtime        the engine's default
      pipelock       bottle/pipelock:<pinned>
      files          3, 1 MiB
    ");
}

#[test]
fn the_report_of_remotes_is_a_page() {
    let mut report = Report { seconds: 4000, agent_status: Some(0), ..Report::default() };
    let count = |fetches, pushes, refused, failed| RemoteCount { fetches, pushes, refused, failed };
    report.remotes.insert("app".to_owned(), count(2, 1, 1, 0));
    report.remotes.insert(String::new(), count(0, 0, 1, 0));
    report.remotes.insert("a-remote-with-a-long-name".to_owned(), count(1, 0, 0, 1));
    let page = super::report(&report, "coder");
    assert!(page.lines().all(|line| line.chars().count() <= COLUMNS), "{page}");
    insta::assert_snapshot!(page, @"
    bottle coder ended after 1 h 6 min, its agent with status 0
      remotes        no remote (1 refused), a-remote-with-a-long-name (1 fetch, 1
                     broken off), app (2 fetches, 1 push, 1 refused)
    ");
}

#[test]
fn the_report_is_a_page() {
    let mut report =
        Report { seconds: 754, agent_status: Some(3), workspace: Some("/x".to_owned()), ..Report::default() };
    insta::assert_snapshot!(super::report(&report, "coder"), @"
    bottle coder ended after 12 min 34 s, its agent with status 3
      the work       launcher diff coder, launcher take coder
    ");
    report.agent_status = None;
    for n in 0..12 {
        report.reached.insert(format!("host-{n}.example.org"), n + 1);
    }
    report.denied.insert("evil\u{1b}[2J.example".to_owned(), (3, "domain not in allowlist".to_owned()));
    let count = |requests, credential_uses, refused, failed| RouteCount {
        requests,
        credential_uses,
        refused,
        failed,
        ..RouteCount::default()
    };
    report.routes.insert(String::new(), count(2, 0, 2, 0));
    report.routes.insert("/api/".to_owned(), count(12, 7, 3, 1));
    insta::assert_snapshot!(super::report(&report, "coder"), @r"
    bottle coder ended after 12 min 34 s
      reached        host-0.example.org (1), host-1.example.org (2),
                     host-10.example.org (11), host-11.example.org (12),
                     host-2.example.org (3), host-3.example.org (4),
                     host-4.example.org (5), host-5.example.org (6), and 4 more
      refused        evil\u{1b}[2J.example (3)
      routes         no route (2 requests, 2 refused), /api/ (12 requests, 7 with
                     the credential, 3 refused, 1 failed)
      the work       launcher diff coder, launcher take coder
    ");
}

#[test]
fn no_line_of_a_page_is_wider_than_a_terminal() {
    for page in [printed(ROUTED, true, &facts()), printed(PLAIN, true, &Facts::default())] {
        for line in page.lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
    }
}

#[test]
fn json_is_stable_parses_and_holds_no_value() {
    let order = order(ROUTED, true);
    let plan = plan(&order, &facts()).unwrap();
    let printed = json(&plan);
    assert_eq!(printed, json(&super::super::plan(&order, &facts()).unwrap()));
    let value: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    insta::assert_snapshot!(keys.join(" "), @"addresses cred_proxy git_gate owner pipelock reach route_pipelock session stages supervise");
    insta::assert_snapshot!(format!("{:#}", value["session"]), @r#"
    {
      "argv": [
        "/entry",
        "serve",
        "\u001b[31m"
      ],
      "container": "bottle-coder-agent",
      "env": {
        "CI_TOKEN": {
          "host": "CI_TOKEN"
        },
        "LEVEL": {
          "literal": "[redacted]"
        },
        "PASS": {
          "ask": "Passphrase"
        }
      },
      "headless": false,
      "user": {
        "of-image": "dev"
      },
      "workdir": "/workspace"
    }
    "#);
    insta::assert_snapshot!(format!("{:#}", value["addresses"]), @r#"
    {
      "agent": "10.213.203.214",
      "cred_proxy": "10.213.203.211",
      "cred_proxy_routes": "10.213.203.243",
      "egress": "10.213.203.224/28",
      "git_gate": "10.213.203.212",
      "git_gate_routes": "10.213.203.244",
      "internal": "10.213.203.208/28",
      "pipelock": "10.213.203.210",
      "route_pipelock": "10.213.203.242",
      "routes": "10.213.203.240/28",
      "supervise": "10.213.203.213"
    }
    "#);
    assert!(!printed.contains("\"info\""), "a literal value is shown");
    // A plan that was not redacted reads back as what it was.
    let mut plain = plan.clone();
    plain.session.env.clear();
    assert_eq!(serde_json::from_str::<Plan>(&json(&plain)).unwrap(), plain);
}

#[test]
fn durations_are_readable() {
    for (seconds, text) in [(0, "0 s"), (61, "1 min 1 s"), (7260, "2 h 1 min")] {
        assert_eq!(duration(seconds), text);
    }
}

const GATED: &str = "agent:\n  provider: shell\n  image: example/agent:1\negress:\n  allowlist: [lib.example.org]\n  \
    also_direct: [lib.example.org]\ngit:\n  user: {name: Ada, email: ada@example.org}\n  remotes:\n    - name: app\n      \
    upstream: ssh://git@git.example.org/team/app.git\n      identity_file: /keys/app\n      known_host_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAID/Tr+GXwLIDHJNhYGRzH02qNatO6UjxFYAxMT5yNT1P\n      \
    push: {refs: [\"refs/heads/agent/*\"], max_pack: 2GiB}\n    - name: lib\n      upstream: \
    https://lib.example.org/lib.git\n      token_ref: LIB_TOKEN\n      auth: bearer\n";

#[test]
fn a_plan_with_remotes() {
    insta::assert_snapshot!(printed(GATED, false, &facts()), @r"
    bottle coder

    stage 1: networks and containers
      - network bottle-coder-internal 10.213.203.208/28 (internal, no address of the
        host)
      - network bottle-coder-egress 10.213.203.224/28 (the way out)
      - network bottle-coder-routes 10.213.203.240/28 (internal, no address of the
        host)
      - container bottle-coder-agent from example/agent:1 at 10.213.203.214 on
        bottle-coder-internal
        write the agent's files into bottle-coder-agent
        container bottle-coder-wall from bottle/wall:0.1.0 in the network of
        bottle-coder-agent
      - container bottle-coder-pipelock from bottle/pipelock:<pinned> on
        bottle-coder-egress
        connect bottle-coder-pipelock to bottle-coder-internal at 10.213.203.210
      - container bottle-coder-route-pipelock from bottle/pipelock:<pinned> on
        bottle-coder-egress
        connect bottle-coder-route-pipelock to bottle-coder-routes at 10.213.203.242
      - container bottle-coder-git-gate from bottle/git-gate:0.1.0 on
        bottle-coder-egress
        connect bottle-coder-git-gate to bottle-coder-routes at 10.213.203.244
        connect bottle-coder-git-gate to bottle-coder-internal at 10.213.203.212

    stage 2: compare
      - read everything back and compare it with this plan

    stage 3: start
      - start bottle-coder-agent and wait until agent is ready
        run bottle-coder-wall to its end
      - start bottle-coder-pipelock and wait until pipelock is ready
      - start bottle-coder-route-pipelock and wait until route-pipelock is ready
      - start bottle-coder-git-gate and wait until git-gate is ready

    then: /entry serve \u{1b}[31m
      as agent (1000, added)
      in /srv

      image          example/agent:1 (sha256:abababababab)
      user           the image's, never root
      hosts          lib.example.org
      remote         app -> ssh://git@git.example.org/team/app.git (credential: key
                     /keys/app)
                     may fetch, and push refs/heads/agent/* (scanned first; forward
                     only, no deletes, at most 2.0 GiB at once)
      remote         lib -> https://lib.example.org/lib.git (credential: variable
                     LIB_TOKEN)
                     may fetch, and push nothing
                     lib.example.org is on the allowlist too: with a key of its own
                     the agent can push there unscanned
      commits as     Ada <ada@example.org>
      workspace      nothing
      limits         2 cpus, 4.0 GiB memory, 512 processes, 20.0 GiB disk
      runtime        the engine's default
      pipelock       bottle/pipelock:<pinned>
    ");
    // With ssh remotes alone there is no route-pipelock, with https ones alone no way out beside it.
    let one = |wanted: usize| {
        let mut order = order(GATED, false);
        order.bottle.git.remotes = vec![order.bottle.git.remotes.remove(wanted)];
        plan(&order, &facts()).unwrap()
    };
    let networks = |plan: &Plan| plan.networks_of("bottle-coder-git-gate").map(str::to_owned).collect::<Vec<_>>();
    let (ssh, https) = (one(0), one(1));
    assert_eq!(networks(&ssh), ["bottle-coder-egress", "bottle-coder-internal"]);
    assert_eq!(networks(&https), ["bottle-coder-internal", "bottle-coder-routes"]);
    assert!(
        ssh.route_pipelock.is_none() && https.route_pipelock.as_ref().is_some_and(|y| y.contains("lib.example.org"))
    );
    assert!(!https.route_pipelock.as_ref().is_some_and(|y| y.contains("git.example.org")));
    let (_, containers) = https.made();
    let gate = containers.iter().find(|c| c.role == "git-gate").unwrap();
    assert!(gate.read_only && !gate.dns && gate.capabilities.is_empty() && gate.volumes == ["/spool"]);
}

#[test]
fn a_bottle_whose_agent_may_ask_has_supervise_on_the_inside_alone() {
    let mut asking = order(PLAIN, false);
    asking.bottle.supervise = true;
    let (with, without) = (plan(&asking, &facts()).unwrap(), plan(&order(PLAIN, false), &facts()).unwrap());
    assert!(preflight(&with.reach, "coder", None).contains("may ask"));
    assert!(!preflight(&without.reach, "coder", None).contains("may ask"));
    let name = "bottle-coder-supervise";
    assert_eq!(with.networks_of(name).collect::<Vec<_>>(), ["bottle-coder-internal"]);
    let (_, containers) = with.made();
    let spec = containers.iter().find(|c| c.name == name).unwrap();
    assert!(spec.read_only && !spec.dns && spec.volumes.is_empty() && spec.capabilities.is_empty(), "{spec:?}");
    let listen = with.supervise.as_ref().unwrap().listen;
    assert_eq!(listen.ip(), std::net::IpAddr::from(with.addresses.supervise));
    assert!(text(&with).contains("start bottle-coder-supervise and wait until supervise is ready"));
    assert!(without.supervise.is_none() && without.made().1.iter().all(|c| c.name != name));
}
