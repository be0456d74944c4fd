//! The sidecar deployed alone: a file, secrets in files and variables, signals.

mod world;

use cred_proxy::config::Event;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;
use world::{PATIENCE, Upstream, free_address, read_head, read_line, read_message, says, status};

/// A folder that goes with the test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        // As Kubernetes does it: the new file takes the old one's place whole.
        std::fs::write(self.path("new"), text).unwrap();
        std::fs::rename(self.path("new"), self.path(name)).unwrap();
        self.path(name)
    }

    /// A deployment with a secret from a file and one from a variable.
    fn config(&self, listen: SocketAddr, upstream: &Upstream) -> PathBuf {
        let route = |path: &str, secret: &str| {
            format!(
                r#"{{"path":"{path}","upstream":"{}","auth":"bearer","secret":"{secret}","allow":["* /**"]}}"#,
                upstream.url()
            )
        };
        self.write("token", "token-of-the-file\n");
        self.write(
            "config.json",
            &format!(
                r#"{{"listen":"{listen}","routes":[{},{}],"secrets":{{"one":{{"file":"token"}},"two":{{"env":"TOKEN"}}}}}}"#,
                route("/file/", "one"),
                route("/env/", "two")
            ),
        )
    }
}

fn command(args: &[&str], file: Option<&Path>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cred-proxy"));
    command.args(args).env("TOKEN", "token-of-the-variable").stdin(Stdio::null());
    if let Some(file) = file {
        command.arg("--config").arg(file);
    }
    command
}

fn run(args: &[&str], file: Option<&Path>) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command(args, file).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

struct Running {
    child: Child,
    events: Receiver<Event>,
}

impl Running {
    fn start(file: &Path) -> Self {
        let mut child = command(&[], Some(file)).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tell, events) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if tell.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { child, events }
    }

    /// The next event that is not a request's.
    fn event(&self) -> Event {
        loop {
            match self.events.recv_timeout(PATIENCE).expect("no event came") {
                Event::Request { .. } => {}
                event => return event,
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    fn ended(&mut self) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(listen: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(listen).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn get(listen: SocketAddr, path: &str) -> u16 {
    let mut stream = connect(listen);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    status(&read_message(&mut stream, true).unwrap())
}

#[test]
fn it_serves_with_secrets_of_files_and_variables_and_takes_new_ones() {
    let (folder, upstream, listen) = (Folder::new(), Upstream::plain(says("hello")), free_address());
    let file = folder.config(listen, &upstream);
    assert_eq!(run(&["health"], Some(&file)).0, Some(1), "nobody listens yet");
    let running = Running::start(&file);
    assert_eq!(running.event(), Event::Ready);
    assert_eq!(run(&["health"], Some(&file)), (Some(0), String::new(), String::new()));
    for (path, token) in [("/file/x", "token-of-the-file"), ("/env/x", "token-of-the-variable")] {
        assert_eq!(get(listen, path), 200);
        assert_eq!(upstream.last().header("authorization"), [format!("Bearer {token}")]);
    }
    // A secret's file that changes is seen by itself.
    folder.write("token", "another-token\n");
    assert_eq!(running.event(), Event::Configured);
    assert_eq!(get(listen, "/file/x"), 200);
    assert_eq!(upstream.last().header("authorization"), ["Bearer another-token"]);
    // One that is none changes nothing, and is not quoted.
    folder.write("token", "bad\u{1}token");
    let Event::Refused { reason } = running.event() else { panic!("a bad token was taken") };
    assert!(reason.contains("the secret `one`") && !reason.contains("bad"), "{reason}");
    assert_eq!(get(listen, "/file/x"), 200);
    assert_eq!(upstream.last().header("authorization"), ["Bearer another-token"]);
    // The file is read at a hangup: a bad one changes nothing, a good one is taken whole.
    folder.write("token", "third-token");
    assert_eq!(running.event(), Event::Configured);
    let text = std::fs::read_to_string(&file).unwrap();
    folder.write("config.json", &text.replace("bearer", "nonsense"));
    running.signal("HUP");
    assert!(matches!(running.event(), Event::Refused { .. }));
    assert_eq!(get(listen, "/file/x"), 200);
    folder.write("config.json", &text.replace("/file/", "/moved/"));
    running.signal("HUP");
    assert_eq!(running.event(), Event::Configured);
    assert_eq!((get(listen, "/file/x"), get(listen, "/moved/x")), (404, 200));
    assert_eq!(upstream.last().header("authorization"), ["Bearer third-token"]);
}

#[test]
fn a_request_in_flight_ends_before_the_process_does() {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let upstream = Upstream::plain(move |_, wire| {
        write!(wire, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")?;
        wire.flush()?;
        gone.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        write!(wire, "1\r\nb\r\n0\r\n\r\n")
    });
    let (folder, listen) = (Folder::new(), free_address());
    let mut running = Running::start(&folder.config(listen, &upstream));
    assert_eq!(running.event(), Event::Ready);
    let mut idle = connect(listen);
    let mut stream = connect(listen);
    stream.write_all(b"GET /file/x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_head(&mut stream).unwrap();
    running.signal("TERM");
    assert_eq!(idle.read(&mut [0]).unwrap(), 0, "an idle connection is closed");
    while TcpStream::connect(listen).is_ok() {
        std::thread::yield_now();
    }
    go.send(()).unwrap();
    for line in ["1\r\n", "a\r\n", "1\r\n", "b\r\n", "0\r\n", "\r\n"] {
        assert_eq!(read_line(&mut stream).unwrap(), line);
    }
    assert_eq!(running.ended(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let upstream = Upstream::plain(|_, wire| {
        write!(wire, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")?;
        wire.flush()?;
        wire.read(&mut [0]).map(drop)
    });
    let (folder, listen) = (Folder::new(), free_address());
    let mut running = Running::start(&folder.config(listen, &upstream));
    assert_eq!(running.event(), Event::Ready);
    let mut stream = connect(listen);
    stream.write_all(b"GET /file/x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    read_head(&mut stream).unwrap();
    running.signal("TERM");
    while TcpStream::connect(listen).is_ok() {
        std::thread::yield_now();
    }
    running.signal("INT");
    assert_eq!(running.ended(), Some(0));
}

#[test]
fn check_says_what_is_wrong() {
    let (folder, upstream) = (Folder::new(), Upstream::plain(says("hello")));
    let file = folder.config(free_address(), &upstream);
    let (code, out, _) = run(&["check"], Some(&file));
    assert_eq!((code, out.contains("2 routes")), (Some(0), true), "{out}");
    let good = std::fs::read_to_string(&file).unwrap();
    for (from, to, wanted) in [
        ("\"token\"", "\"nowhere\"", "nowhere"),
        ("\"TOKEN\"", "\"TOKEN_THAT_IS_NOT\"", "is not in the environment as `TOKEN_THAT_IS_NOT`"),
        ("{\"env\":\"TOKEN\"}", "\"s3cret-itself\"", "never the secret itself"),
        ("{\"env\":\"TOKEN\"}", "{\"value\":\"s3cret-itself\"}", "never the secret itself"),
        ("{\"env\":\"TOKEN\"}", "{\"env\":\"TOKEN\",\"file\":\"s3cret-itself\"}", "never the secret itself"),
        (
            "\"routes\"",
            "\"limits\":{\"idle_seconds\":0},\"routes\"",
            "`limits.idle_seconds` is 0; it must be from 1 to",
        ),
        ("\"routes\"", "\"rutes\"", "unknown field `rutes`"),
        ("/file/", "/file", "cannot take the route `/file`"),
        ("http://127", "https:/127", "cannot take the route `/file/`"),
    ] {
        folder.write("config.json", &good.replace(from, to));
        let (code, _, told) = run(&["check"], Some(&file));
        assert!(code == Some(2) && told.contains(wanted) && !told.contains("s3cret"), "{to}: {code:?} {told}");
        let mut running = Running::start(&file);
        assert!(matches!(running.event(), Event::Refused { .. }), "{to}");
        assert_eq!(running.ended(), Some(2), "{to}");
    }
    // An upstream over TLS needs no roots of one's own.
    folder.write("config.json", &good.replace("http://127.0.0.1", "https://127.0.0.1"));
    assert_eq!(run(&["check"], Some(&file)).0, Some(0));
    folder.write("config.json", &good.replace("\"routes\"", "\"upstream_roots_file\":\"token\",\"routes\""));
    assert_eq!(run(&["check"], Some(&file)).0, Some(0), "nobody needs them");
}

#[test]
fn an_address_that_is_taken_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (folder, upstream) = (Folder::new(), Upstream::plain(says("hello")));
    let mut running = Running::start(&folder.config(taken.local_addr().unwrap(), &upstream));
    let Event::Refused { reason } = running.event() else { panic!("it listens") };
    assert!(reason.starts_with("cannot listen on 127.0.0.1:"), "{reason}");
    assert_eq!(running.ended(), Some(1));
}

#[test]
fn words_on_the_command_line() {
    let (code, out, _) = run(&["--help"], None);
    assert!(code == Some(0) && out.contains("check --config FILE"), "{out}");
    let version = format!("cred-proxy {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(run(&["--version"], None), (Some(0), version, String::new()));
    let (code, out, told) = run(&["serve"], None);
    assert!((code, out.as_str()) == (Some(2), "") && told.contains("`serve` was not expected"), "{told}");
}
