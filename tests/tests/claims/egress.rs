//! What pipelock lets out: hosts on the bottle's allowlist alone, by their own names, with nothing secret in them.

use super::docker::{Net, Plain, docker};
use super::ground::{ALLOWED, ATTACKER, Lease, REBINDING, TRUSTED, answers, curl, python, tag};
use bottle_tests::world::Evidence;

/// Of the shape that scanners know, put together here so that this file is not one of their findings. It opens nothing.
fn token() -> String {
    ["gh", "p_", "Z9y8X7w6V5u4T3s2R1", "q0P1o2N3m4L5k6J7i8"].concat()
}

/// Sends raw bytes to pipelock and prints the first line of what comes back.
const RAW: &str = r#"
import socket, sys
for target in sys.argv[1:]:
    s = socket.create_connection(("pipelock", 8888), 10); s.settimeout(10)
    s.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    try: print(s.recv(4096).split(b"\r\n")[0].decode() or "closed")
    except OSError as e: print("closed", e)
"#;

#[test]
fn only_the_allowlist_is_reachable() {
    let Some(ground) = Lease::take() else { return };
    let path = tag("listed");
    answers(&ground.a, &[&format!("https://{ALLOWED}/public/{path}")], "200");
    answers(&ground.a, &[&format!("http://{ALLOWED}/public/{path}")], "200");
    assert_eq!(ground.seen_with("api", &path).len(), 2, "both arrived");
    let refused = [
        format!("https://{ATTACKER}/"),
        format!("http://{ATTACKER}/"),
        format!("https://sub.{ALLOWED}/"),
        format!("https://{ALLOWED}.{ATTACKER}/"),
        format!("https://{}/", ground.attacker_ip()),
        format!("http://{}/", ground.attacker_ip()),
        format!("https://{}/", ground.api_ip()),
        format!("http://{}/", ground.neighbour_ip()),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://127.0.0.1:8888/".to_owned(),
    ];
    for url in &refused {
        // NO_PROXY names this container itself; here the proxy is asked all the same.
        answers(&ground.a, &["--noproxy", "", "-k", url], "403");
    }
    let log = ground.a.log("pipelock");
    assert!(log.contains(&format!("domain not in allowlist: {ATTACKER}")), "{log}");
    ground.assert_attacker_is_alone();
}

#[test]
fn tricks_with_names_and_ports_open_no_other_host() {
    let Some(ground) = Lease::take() else { return };
    let ip = ground.attacker_ip();
    let tricks = [
        format!("{ATTACKER}:443#{ALLOWED}"),
        format!("{ALLOWED}@{ATTACKER}:443"),
        format!("{ALLOWED}:443@{ATTACKER}:443"),
        format!("{ATTACKER}.:443"),
        format!("{}:443", ATTACKER.to_uppercase()),
        format!("{ATTACKER}:80"),
        format!("{ATTACKER}:22"),
        format!("[::ffff:{ip}]:443"),
        format!("{}:443", u32::from(ip)),
        format!("0x{:x}:443", u32::from(ip)),
        format!("{ATTACKER}%00.{ALLOWED}:443"),
        format!("{ATTACKER}%2f{ALLOWED}:443"),
    ];
    let tricks: Vec<&str> = tricks.iter().map(String::as_str).collect();
    let said = python(&ground.a, RAW, &tricks).ok().stdout;
    assert_eq!(said.lines().count(), tricks.len(), "{said}");
    assert!(said.lines().all(|line| !line.contains(" 200 ")), "{said}");
    // What stands before the @ is no host: this may lead to the allowed one, or nowhere.
    python(&ground.a, RAW, &[&format!("{ATTACKER}:443@{ALLOWED}"), &format!("{ATTACKER}:443@{ALLOWED}:443")]).ok();
    let said = python(&ground.a, RAW, &[&format!("{ALLOWED}:443")]).ok().stdout;
    assert!(said.contains(" 200 "), "{said}");
    ground.assert_attacker_is_alone();
}

#[test]
fn a_wildcard_covers_names_below_it_alone() {
    let Some(ground) = Lease::take() else { return };
    // Whether a name is on the list is decided before it is looked up: these exist nowhere, and the log says which of the
    // two was the reason.
    for (name, listed) in [
        ("a.wild.example", true),
        ("a.b.wild.example", true),
        ("evil-wild.example", false),
        ("wild.example.attacker.example", false),
    ] {
        let (_, output) = curl(&ground.b, &[&format!("https://{name}/")]);
        assert_ne!(output.status, 0, "{name}: {output:#?}");
        let reason = format!("domain not in allowlist: {name}");
        assert_eq!(!ground.b.log("pipelock").contains(&reason), listed, "{name}: {}", ground.b.log("pipelock"));
    }
}

#[test]
fn a_redirect_leads_nowhere_else() {
    let Some(ground) = Lease::take() else { return };
    let path = tag("redirected");
    for scheme in ["http", "https"] {
        let off = format!("{scheme}://{ALLOWED}/redirect?to={scheme}://{ATTACKER}/{path}");
        let (code, output) = curl(&ground.a, &["-L", &off]);
        assert!(code == "403" || output.status == 56, "{output:#?}");
        let on = format!("{scheme}://{ALLOWED}/redirect?to={scheme}://{ALLOWED}/public/{path}");
        answers(&ground.a, &["-L", &on], "200");
    }
    ground.assert_attacker_is_alone();
}

#[test]
fn another_host_inside_the_tunnel_is_refused() {
    let Some(ground) = Lease::take() else { return };
    let path = tag("spoofed");
    let url = format!("https://{ALLOWED}/public/{path}");
    answers(&ground.a, &["-H", &format!("Host: {ATTACKER}"), &url], "403");
    assert!(ground.seen_with("api", &path).is_empty(), "the spoofed request arrived");
    answers(&ground.a, &["-H", &format!("Host: {ALLOWED}"), &url], "200");
    assert_eq!(ground.seen_with("api", &path).len(), 1);
}

#[test]
fn another_server_name_inside_the_tunnel_never_arrives() {
    let Some(ground) = Lease::take() else { return };
    let path = tag("sni");
    let ask = |name: &str, host: &str| {
        ground.a.sh(&format!(
            "printf 'GET /public/{path} HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n' | timeout 10 \
             openssl s_client -quiet -proxy pipelock:8888 -connect {ALLOWED}:443 -servername {name}"
        ))
    };
    ask(ATTACKER, ATTACKER);
    ask(ATTACKER, ALLOWED);
    let arrived = ground.seen_with("api", &path);
    let spoofed = |e: &Evidence| matches!(e, Evidence::Request { sni, host, .. } if sni.as_deref() == Some(ATTACKER) || host == ATTACKER);
    assert!(!arrived.iter().any(spoofed), "{arrived:#?}");
    let said = ask(ALLOWED, ALLOWED);
    assert!(said.stdout.contains("200 OK"), "{said:#?}");
    assert!(ground.seen_with("api", &path).len() > arrived.len(), "the honest one arrives");
    ground.assert_attacker_is_alone();
}

#[test]
fn a_name_that_leads_inside_is_refused() {
    let Some(ground) = Lease::take() else { return };
    // Both names are on b's allowlist and lead to the same private address; only one may.
    let name = format!("claims-private-{}", std::process::id());
    let net = Net::make(&["--internal"], &name);
    let image = ground.site.clients();
    let word = tag("inside");
    let serve = format!("mkdir /w && echo {word} > /w/index.html && cd /w && exec python3 -m http.server 80");
    let server = Plain::start(&[
        "--network",
        net.id(),
        "--network-alias",
        REBINDING,
        "--network-alias",
        TRUSTED,
        &image,
        "sh",
        "-c",
        &serve,
    ]);
    let pipelock = ground.b.container("pipelock");
    docker(&["network", "connect", net.id(), &pipelock]).ok();
    let up =
        || server.exec(&["curl", "-sS", "--noproxy", "*", "http://127.0.0.1/"]).stdout.contains(&word).then_some(());
    bottle_tests::harness::wait_until("the private server answers", up);
    let refused = answers(&ground.b, &[&format!("http://{REBINDING}/")], "403");
    let allowed = answers(&ground.b, &[&format!("http://{TRUSTED}/")], "200");
    docker(&["network", "disconnect", net.id(), &pipelock]).ok();
    assert!(!refused.stdout.contains(&word), "{refused:#?}");
    assert!(allowed.stdout.contains(&word), "{allowed:#?}");
    assert!(ground.b.log("pipelock").contains("SSRF"), "{}", ground.b.log("pipelock"));
}

#[test]
fn the_agents_own_credentials_leave_only_where_the_operator_said_so() {
    let Some(ground) = Lease::take() else { return };
    for header in [format!("Authorization: Bearer {}", token()), format!("X-Api-Key: {}", token())] {
        let path = tag("own-key");
        let url = format!("https://{ALLOWED}/public/{path}");
        answers(&ground.a, &["-H", &header, &url], "403");
        assert!(ground.seen_with("api", &path).is_empty(), "{header} arrived");
        answers(&ground.a, &["-H", "X-Harmless: yes", &url], "200");
        let path = tag("own-key-allowed");
        answers(&ground.b, &["-H", &header, &format!("https://{ALLOWED}/public/{path}")], "200");
        assert!(ground.seen_with("api", &path).iter().any(|e| e.contains(&token())), "{header} did not arrive");
    }
}

#[test]
fn a_secret_in_a_body_or_an_address_does_not_leave() {
    let Some(ground) = Lease::take() else { return };
    let path = tag("body");
    let url = format!("https://{ALLOWED}/public/{path}");
    let json = "Content-Type: application/json";
    let secret = format!("{{\"notes\":\"deploy with {}\"}}", token());
    answers(&ground.a, &["-H", json, "-d", &secret, &url], "403");
    answers(&ground.a, &[&format!("{url}/{}", token())], "403");
    assert!(ground.seen_with("api", &token()).iter().all(|e| !e.contains(&path)), "the secret arrived");
    answers(&ground.a, &["-H", json, "-d", "{\"notes\":\"deploy at noon\"}", &url], "200");
    assert!(ground.seen_with("api", &path).iter().any(|e| e.contains("deploy at noon")));
}
