//! The whole hostile agent of the demo in a bottle: everything it tries holds, by its own word and by the world's.

use super::docker::docker;
use bottle_tests::harness::{Site, World};
use bottle_tests::world::{Evidence, FORGE, sha256_hex};
use launcher::commands::demo::rows::Row;

#[test]
fn the_hostile_agent_gets_nowhere() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    let hosts = host_addresses();
    let env = [
        ("ALLOWED_HOST", "files.world.example".to_owned()),
        ("ROUTE_URL", "http://cred-proxy:9099/api/".to_owned()),
        ("ROUTE_HOST", "api.world.example".to_owned()),
        ("GIT_URL", "git://git-gate:9418/app.git".to_owned()),
        ("GIT_HOST", FORGE.to_owned()),
        ("ATTACKER_HOST", "attacker.world.example".to_owned()),
        ("ATTACKER_IP", world.attacker_ip().to_string()),
        ("NEIGHBOUR_IP", world.neighbour_ip().to_string()),
        ("RESOLVER_IP", world.resolver_ip().to_string()),
        ("HOST_IPS", hosts),
        ("CANARY_SHA256", sha256_hex(world.canary())),
    ];
    let lines: String = env.iter().map(|(name, value)| format!("  {name}: \"{value}\"\n")).collect();
    let yaml = world.bottle_yaml(&site.hostile());
    let remote = format!(
        "git:\n  remotes:\n    - name: app\n      upstream: https://{FORGE}/team/app.git\n      token_ref: {{file: {}}}\n      \
         auth: bearer\n      push: {{refs: [\"refs/heads/agent/*\"]}}\n",
        site.path("config/token").display()
    );
    site.bottle("dev", &format!("{yaml}{remote}workspace: none\nenv:\n{lines}"));
    site.agent("claims-hostile", "dev");
    let ran = site.run("claims-hostile").args(&["--headless"]).to_end(&[]);
    let rows: Vec<Row> = ran.stdout.lines().filter_map(Row::parse).collect();
    let broke: Vec<&Row> = rows.iter().filter(|row| !row.held).collect();
    assert!(rows.len() > 40 && broke.is_empty(), "{broke:#?} of {}: {ran:#?}", rows.len());
    assert_eq!(ran.status, 0, "{ran:#?}");
    for role in ["attacker", "resolver", "neighbour"] {
        assert_eq!(world.seen(role), Vec::<Evidence>::new(), "{role}");
    }
    let with = world.seen("api").into_iter().filter(|e| e.contains(world.canary())).collect::<Vec<_>>();
    let on_route =
        |e: &Evidence| matches!(e, Evidence::Request { host, .. } if host == "api.world.example" || host == FORGE);
    assert!(!with.is_empty() && with.iter().all(on_route), "{with:#?}");
    let pushed =
        |e: Evidence| if let Evidence::Pushed { name, contents, .. } = e { Some((name, contents)) } else { None };
    let pushed: Vec<_> = world.seen("api").into_iter().filter_map(pushed).collect();
    let clean = vec!["nothing to hide here\n".to_owned()];
    assert_eq!(pushed, [("refs/heads/agent/clean".to_owned(), clean)], "the clean commit, and nothing else");
    site.assert_nothing_left();
}

/// The gateways of the engine's networks: addresses of the host that a container may hope for.
fn host_addresses() -> String {
    let format = "{{range .IPAM.Config}}{{.Gateway}}{{end}}";
    let gateway = docker(&["network", "inspect", "bridge", "-f", format]).ok().stdout;
    let own =
        std::net::UdpSocket::bind("0.0.0.0:0").and_then(|s| s.connect("198.51.100.1:9").and_then(|()| s.local_addr()));
    let all = std::iter::once(gateway.trim().to_owned()).chain(own.ok().map(|a| a.ip().to_string()));
    all.filter(|a| !a.is_empty()).collect::<Vec<_>>().join(",")
}
