//! The world's other upstreams as plain processes, with real clients: replies written byte by byte, the npm registry, and
//! the git host.

use super::super::{Api, LOOPBACK, Role, text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bottle_tests::world::{Evidence, Expected, FORGE, GIT, GitConfig, NPM, Names, WIRE, World, canary};
use std::io::{Read as _, Write as _};
use std::process::Command;

#[test]
fn the_wire_gives_a_credential_back_in_every_form_and_place() {
    let api = Api::start("unused");
    let key = "k3y/of+the\"world";
    let header = format!("X-Api-Key: {key}");
    let ask = |path: &str, more: &[&str]| text(&api.curl(WIRE, path, &[&["-H", header.as_str()], more].concat()));

    assert!(text(&api.curl(WIRE, "/v1/echo", &[])).starts_with("HTTP/1.1 401"));
    let all = ask("/v1/echo", &[]);
    for form in [
        format!("plain={key}"),
        format!("base64={}", STANDARD.encode(format!("{key}:"))),
        format!("base64-2={}", STANDARD.encode(format!("u:{key}:"))),
        "percent=%6B%33%79%2F".to_owned(),
        "urlencoded=k3y%2Fof%2Bthe%22world".to_owned(),
        "hex=6b33792f".to_owned(),
        "json=k3y/of+the\\\"world".to_owned(),
        "json-slashes=k3y\\/of".to_owned(),
    ] {
        assert!(all.contains(&form), "{form}: {all}");
    }
    for encoding in ["gzip", "br", "deflate"] {
        let path = format!("/v1/echo?form=plain&encoding={encoding}");
        assert!(!ask(&path, &["--output", "-"]).contains(key), "it is encoded");
    }
    // Debian's curl reads br as well; where it does not, gzip stands for both.
    assert!(ask("/v1/echo?form=plain&encoding=gzip", &["--compressed"]).contains(key));
    assert!(
        ask("/v1/echo?where=location&form=hex", &[]).contains("Location: https://wire.world.example/v1/next?key=6b")
    );
    assert!(ask("/v1/echo?where=early&form=plain", &[]).starts_with("HTTP/1.1 103"));
    assert!(ask("/v1/echo?where=status&form=plain&code=500", &[]).contains(&format!("500 {key}")));
    for (more, end) in [("&piece=1", "after\n"), ("&framing=length", "after\n"), ("&framing=close", "after\n")] {
        assert!(ask(&format!("/v1/echo?form=plain{more}"), &[]).ends_with(end), "{more}");
    }
    assert!(ask("/v1/echo?where=trailer&form=plain", &["--raw"]).contains(&format!("X-Echo-Trailer: {key}")));
    assert_eq!(ask("/v1/sse?n=3&ms=1", &[]).matches("data: ").count(), 3);
    assert!(ask("/v1/upload", &["--data", "twelve bytes"]).ends_with("12\n"));
    assert!(ask("/v1/upload", &["-H", "Transfer-Encoding: chunked", "--data", "twelve bytes"]).ends_with("12\n"));
}

#[test]
fn the_wire_breaks_off_as_it_is_asked_to() {
    let mut api = Api::start("unused");
    for (path, code) in [("short", 18), ("broken?how=bad-chunk", 56), ("broken?how=no-http", 1), ("half", 0)] {
        let got = api.curl(WIRE, &format!("/v1/{path}"), &["-H", "Authorization: Bearer k", "--max-time", "3"]);
        assert_eq!(got.status.code(), Some(code), "{path}: {got:?}");
    }
    let reset = api.curl(WIRE, "/v1/reset", &["-H", "Authorization: Bearer k"]);
    assert!(!reset.status.success(), "{reset:?}");
    // Who goes first is told.
    let stalled = api.curl(WIRE, "/v1/stall", &["-H", "Authorization: Bearer k", "--max-time", "1"]);
    assert_eq!(stalled.status.code(), Some(28), "{stalled:?}");
    let told = std::iter::from_fn(|| Some(api.role.next()))
        .any(|e| matches!(e, Evidence::Abandoned { path, .. } if path == "/v1/stall"));
    assert!(told);
}

#[test]
fn the_registry_is_read_by_npm_itself() {
    let mut api = Api::start("s3cret-of-npm");
    let folder = tempfile::tempdir().unwrap();
    // npm's own way to a host that no resolver knows: it would need one, so the tarballs are fetched as npm would.
    let document = text(&api.curl(NPM, "/world-tree", &["--no-include"]));
    let document: serde_json::Value = serde_json::from_str(&document).unwrap();
    let dist = &document["versions"]["1.0.0"]["dist"];
    assert_eq!(dist["tarball"], format!("https://{NPM}/world-tree/-/world-tree-1.0.0.tgz"));
    let tarball = folder.path().join("tree.tgz");
    text(&api.curl(NPM, "/world-tree/-/world-tree-1.0.0.tgz", &["--no-include", "-o", tarball.to_str().unwrap()]));
    let listed = Command::new("tar").arg("-tzf").arg(&tarball).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "package/package.json\npackage/index.js\n");
    assert_eq!(dist["integrity"], integrity(&tarball));

    for path in ["/@world/leaf", "/@world%2fleaf", "/@world%2Fleaf"] {
        assert!(text(&api.curl(NPM, path, &[])).contains("leaf-1.0.0.tgz"), "{path}");
    }
    assert!(text(&api.curl(NPM, "/unheard-of", &[])).starts_with("HTTP/1.1 404"));
    let shown = |key: &str| text(&api.curl(NPM, "/world-tree", &["-H", &format!("Authorization: Bearer {key}")]));
    assert!(shown("s3cret-of-npm").starts_with("HTTP/1.1 200"));
    assert!(shown("another").starts_with("HTTP/1.1 401"), "a wrong credential shows");
    assert!(text(&api.curl(NPM, "/world-tree", &["-X", "PUT"])).starts_with("HTTP/1.1 405"));
    assert!(matches!(api.role.next(), Evidence::Request { host, .. } if host == NPM));
}

/// `openssl` is with every curl.
fn integrity(file: &std::path::Path) -> String {
    let digest = Command::new("openssl").args(["dgst", "-sha512", "-binary"]).arg(file).output().unwrap();
    assert!(digest.status.success(), "{digest:?}");
    format!("sha512-{}", STANDARD.encode(digest.stdout))
}

struct Git {
    role: Role,
    folder: tempfile::TempDir,
    credential: String,
}

impl Git {
    fn start() -> Self {
        let world = World::mint(&Names::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let credential = format!("world:{}", canary());
        let value = format!("Basic {}", STANDARD.encode(&credential));
        let config = GitConfig {
            https_port: 0,
            http_port: 0,
            root: folder.path().join("repositories"),
            ..world.git_config(LOOPBACK, Some(Expected { header: "authorization".to_owned(), value }))
        };
        std::fs::write(folder.path().join("ca.pem"), &world.ca_pem).unwrap();
        Self { role: Role::start("git", &config), folder, credential }
    }

    fn git(&self, args: &[&str]) -> std::process::Output {
        let port = self.role.at("https").port();
        let mut command = Command::new("git");
        command.current_dir(self.folder.path()).env("HOME", self.folder.path()).env("GIT_TERMINAL_PROMPT", "0");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("NO_PROXY", "*").env("no_proxy", "*");
        command.env("GIT_SSL_CAINFO", self.folder.path().join("ca.pem"));
        command.arg("-c").arg(format!("http.curloptResolve={GIT}:{port}:127.0.0.1"));
        command.args(["-c", "user.name=a", "-c", "user.email=a@a.example"]).args(args).output().unwrap()
    }

    fn url(&self, userinfo: &str) -> String {
        format!("https://{userinfo}{GIT}:{}/team/app.git", self.role.at("https").port())
    }
}

#[test]
fn the_git_host_is_cloned_fetched_from_and_pushed_to_with_its_credential_alone() {
    let git = Git::start();
    let with = git.url(&format!("{}@", git.credential));
    let refused = git.git(&["clone", &git.url(""), "none"]);
    assert!(!refused.status.success(), "{refused:?}");
    text(&git.git(&["clone", "--quiet", &with, "one"]));
    assert_eq!(text(&git.git(&["-C", "one", "log", "--format=%s", "main"])), "commit 3\ncommit 2\ncommit 1\n");
    text(&git.git(&["-C", "one", "commit", "--quiet", "--allow-empty", "-m", "pushed"]));
    text(&git.git(&["-C", "one", "push", "--quiet", "origin", "main"]));
    text(&git.git(&["clone", "--quiet", "--depth", "1", &with, "two"]));
    assert_eq!(text(&git.git(&["-C", "two", "log", "--format=%s", "main"])), "pushed\n");
    let (seen, well) = git.role.end();
    assert!(well);
    let asked =
        |service: &str| seen.iter().any(|e| matches!(e, Evidence::Request { path, .. } if path.ends_with(service)));
    assert!(asked("/git-upload-pack") && asked("/git-receive-pack"));
    let compressed =
        |e: &Evidence| matches!(e, Evidence::Request { headers, .. } if headers.contains_key("content-encoding"));
    assert!(seen.iter().any(compressed), "git compresses what it wants: {seen:#?}");
}

#[test]
fn the_forge_is_cloned_from_and_pushed_to_by_git_itself_and_tells_what_came() {
    let api = Api::start("s3cret-of-the-forge");
    let folder = tempfile::tempdir().unwrap();
    let port = api.role.at("https").port();
    let url = format!("https://{FORGE}/team/app.git");
    let git = |credential: &str, args: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(folder.path()).env("HOME", folder.path()).env("GIT_TERMINAL_PROMPT", "0");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("NO_PROXY", "*").env("no_proxy", "*");
        command.env("GIT_SSL_CAINFO", api.ca.path());
        // Its Host has no port, as it has none in a bottle.
        command.arg("-c").arg(format!("http.extraHeader=Authorization: Bearer {credential}"));
        command.arg("-c").arg(format!("http.extraHeader=Host: {FORGE}"));
        command.arg("-c").arg(format!("http.curloptResolve={FORGE}:{port}:127.0.0.1"));
        command.arg("-c").arg(format!("url.https://{FORGE}:{port}/.insteadOf=https://{FORGE}/"));
        command.args(["-c", "user.name=a", "-c", "user.email=a@a.example"]).args(args).output().unwrap()
    };
    assert!(!git("another", &["clone", &url, "none"]).status.success());
    let good = |args: &[&str]| text(&git("s3cret-of-the-forge", args));
    good(&["clone", "--quiet", &url, "one"]);
    assert_eq!(std::fs::read_to_string(folder.path().join("one/README")).unwrap(), "the small world's own file\n");
    std::fs::write(folder.path().join("one/more"), "more of it\n").unwrap();
    good(&["-C", "one", "add", "more"]);
    good(&["-C", "one", "commit", "--quiet", "-m", "more"]);
    good(&["-C", "one", "push", "--quiet", "origin", "HEAD:refs/heads/more"]);
    good(&["clone", "--quiet", "--branch", "more", &url, "two"]);
    assert_eq!(good(&["-C", "one", "rev-parse", "HEAD"]), good(&["-C", "two", "rev-parse", "HEAD"]));
    good(&["-C", "two", "push", "--quiet", "origin", ":refs/heads/more"]);
    assert!(!good(&["ls-remote", &url]).contains("more"));
    let (seen, well) = api.role.end();
    assert!(well);
    let pushed = |e| if let Evidence::Pushed { name, contents, .. } = e { Some((name, contents)) } else { None };
    let pushed: Vec<_> = seen.into_iter().filter_map(pushed).collect();
    let more = || "refs/heads/more".to_owned();
    assert_eq!(pushed, [(more(), vec!["more of it\n".to_owned()]), (more(), Vec::new())]);
}

#[test]
fn the_wire_speaks_websocket() {
    let api = Api::start("unused");
    let ca = api.ca.path().to_str().unwrap().to_owned();
    // A first message, then the reply to it: bytes by hand, as no client of this machine speaks it.
    let mut tls = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error", "-CAfile", &ca, "-servername", WIRE, "-connect"])
        .arg(api.role.at("https").to_string())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut input = tls.stdin.take().unwrap();
    let head = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {WIRE}\r\nAuthorization: Bearer k\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    input.write_all(head.as_bytes()).unwrap();
    let mut output = tls.stdout.take().unwrap();
    let mut got = Vec::new();
    let mut until = |wanted: &[u8]| {
        while !got.windows(wanted.len()).any(|window| window == wanted) {
            let mut byte = [0];
            output.read_exact(&mut byte).unwrap();
            got.push(byte[0]);
        }
        got.clone()
    };
    let answer = String::from_utf8_lossy(&until(b"\r\n\r\n")).into_owned();
    // The example of RFC 6455, 1.3.
    assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{answer}");
    // A text message "hi", masked with zeroes (RFC 6455, 5.2).
    input.write_all(&[0x81, 0x82, 0, 0, 0, 0, b'h', b'i']).unwrap();
    until(&[0x81, 0x02, b'h', b'i']);
    tls.kill().unwrap();
    tls.wait().unwrap();
}
