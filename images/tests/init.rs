//! `bottle-init` as its keeper drives it: a process, frames into a pipe, events out of another.
//!
//! The child it runs is this test program itself ([`the_child`]), so nothing but a shell need be installed.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

use bottle_images::init::{Event, Frame};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// How long anything may take before a test gives up; nothing is expected to come near it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells the test program to be the child, and where.
const CHILD: &str = "BOTTLE_TEST_CHILD";

/// Not a test of its own: with [`CHILD`] set it answers `/health` with 200, ends with status 7 when asked for `/end`, and
/// refuses every CONNECT but one. Without it there is nothing to do.
#[test]
fn the_child() {
    let Ok(address) = std::env::var(CHILD) else { return };
    let listener = TcpListener::bind(address).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let answer: &[u8] = match line.split(' ').take(2).collect::<Vec<_>>().as_slice() {
            ["GET", "/health"] => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            ["GET", "/end"] => std::process::exit(7),
            ["CONNECT", "open.example:443"] => b"HTTP/1.1 200 Connection Established\r\n\r\n",
            ["CONNECT", "silent.example:443"] => b"",
            _ => b"HTTP/1.1 403 Forbidden\r\n\r\nCONNECT blocked: \x1b[1mno\nmore\n",
        };
        stream.write_all(answer).unwrap();
    }
}

struct Init {
    process: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    health: SocketAddr,
}

impl Init {
    fn start(arguments: &[&str], health: SocketAddr) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_bottle-init"))
            .args(arguments)
            .env(CHILD, health.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { input: process.stdin.take(), process, lines, health }
    }

    fn agent() -> Self {
        Self::start(&["agent"], free_address())
    }

    /// `bottle-init child` with this program behind it, started by way of a shell that runs `before`.
    fn child(before: &str) -> Self {
        let health = free_address();
        let this = std::env::current_exe().unwrap();
        let script = format!("{before}; exec \"$0\" the_child --exact --nocapture");
        let text = health.to_string();
        Self::start(&["child", "--health", &text, "--", "/bin/sh", "-c", &script, this.to_str().unwrap()], health)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    fn order(&mut self, frame: &Frame) {
        self.send(&frame.encode());
    }

    /// The next event; lines of the child in between are passed over.
    fn event(&self) -> Event {
        loop {
            if let Some(event) = Event::parse(&self.lines.recv_timeout(PATIENCE).unwrap()) {
                return event;
            }
        }
    }

    fn ask(&self, path: &str) -> String {
        let mut stream = std::net::TcpStream::connect(self.health).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn is_up(&self) -> bool {
        std::net::TcpStream::connect(self.health).is_ok()
    }

    /// Its status, once it has ended; nothing may be said that was not read.
    fn status(mut self) -> i32 {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => assert_eq!(Event::parse(&line), None, "{line}"),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it has not ended"),
            }
        }
        self.process.wait().unwrap().code().unwrap()
    }

    fn end_of_input(mut self) -> i32 {
        self.input = None;
        self.status()
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        // A test that fails may leave it running; then its end of input, which closes here, has to do.
        self.input = None;
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn failed(event: &Event) -> bool {
    matches!(event, Event::Failed(_))
}

#[test]
fn the_agents_init_ends_with_its_input_and_obeys_nothing() {
    let mut init = Init::agent();
    assert_eq!(init.event(), Event::Ready);
    init.send(b"run\nfile 600 4 /tmp\nnonsense \xff\xfe");
    assert_eq!(init.end_of_input(), 0);
}

#[test]
fn it_cannot_be_looked_into() {
    let init = Init::agent();
    assert_eq!(init.event(), Event::Ready);
    // What the kernel lets its own user see belongs to root once a process is not dumpable.
    let owner = std::os::unix::fs::MetadataExt::uid(
        &std::fs::metadata(format!("/proc/{}/environ", init.process.id())).unwrap(),
    );
    assert_eq!(owner, 0);
    assert_eq!(init.end_of_input(), 0);
}

#[test]
fn files_then_run_then_restart_then_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipelock.yaml").to_str().unwrap().to_owned();
    let mut init = Init::child(":");
    for content in ["mode: strict\n", "mode: other\nrun\n"] {
        init.order(&Frame::File { path: path.clone(), mode: 0o640, bytes: content.into() });
        assert_eq!(init.event(), Event::Wrote(path.clone()));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    }
    assert!(!init.is_up(), "a file's content is not an order");
    init.order(&Frame::Run);
    assert_eq!(init.event(), Event::Ready);
    assert!(init.ask("/health").contains("200"));
    init.order(&Frame::Run);
    assert!(failed(&init.event()), "it runs already");
    for _ in 0..3 {
        init.order(&Frame::Restart);
        assert_eq!(init.event(), Event::Ready);
    }
    let address = init.health;
    assert_eq!(init.end_of_input(), 0);
    assert!(TcpListener::bind(address).is_ok(), "the child is gone");
}

#[test]
fn a_child_that_ignores_term_is_killed() {
    let mut init = Init::child("trap '' TERM");
    init.order(&Frame::Run);
    assert_eq!(init.event(), Event::Ready);
    init.order(&Frame::Restart);
    assert_eq!(init.event(), Event::Ready);
    let address = init.health;
    assert_eq!(init.end_of_input(), 0);
    assert!(TcpListener::bind(address).is_ok(), "the child is gone");
}

#[test]
fn a_child_that_ends_by_itself_ends_everything() {
    let mut init = Init::child(":");
    init.order(&Frame::Run);
    assert_eq!(init.event(), Event::Ready);
    init.ask("/end");
    assert_eq!(init.event(), Event::Exited(7));
    assert_eq!(init.status(), 7);

    for (before, code) in [("exit 3", 3), ("kill -9 $$", 137), ("exit 0", 0)] {
        let mut init = Init::child(before);
        init.order(&Frame::Run);
        assert_eq!(init.event(), Event::Exited(code), "{before}");
        assert_eq!(init.status(), code, "{before}");
    }
}

#[test]
fn the_end_of_input_is_heard_while_the_child_starts() {
    let mut init = Init::child("exec sleep 1000");
    init.order(&Frame::Run);
    init.order(&Frame::Restart);
    assert_eq!(init.end_of_input(), 0);
    let init = Init::child(":");
    assert_eq!(init.end_of_input(), 0, "before there is a child, too");
}

#[test]
fn a_program_that_is_not_there_is_said() {
    let health = free_address();
    let mut init = Init::start(&["child", "--health", &health.to_string(), "--", "/nonexistent"], health);
    init.order(&Frame::Run);
    assert!(failed(&init.event()));
    init.order(&Frame::Run);
    assert!(failed(&init.event()));
    assert_eq!(init.end_of_input(), 0);
}

#[test]
fn probes_tell_open_from_closed() {
    let mut init = Init::child(":");
    init.order(&Frame::Run);
    assert_eq!(init.event(), Event::Ready);
    for (target, status, text) in [
        ("open.example:443", 200, ""),
        ("closed.example:443", 403, "CONNECT blocked: ?[1mno"),
        ("silent.example:443", 0, "no answer"),
    ] {
        init.order(&Frame::Probe(target.into()));
        assert_eq!(init.event(), Event::Probed { target: target.into(), status, text: text.into() });
    }
    init.send(b"probe not a target\n");
    assert!(failed(&init.event()));
    assert_eq!(init.end_of_input(), 0);
}

#[test]
fn bad_frames_fail_and_only_hopeless_ones_end_it() {
    let mut init = Init::child(":");
    init.send(b"file 600 4 relative\nrun\n");
    assert!(failed(&init.event()));
    init.order(&Frame::File { path: "/nonexistent/directory/file".into(), mode: 0o600, bytes: vec![1] });
    assert!(failed(&init.event()));
    init.order(&Frame::Run);
    assert_eq!(init.event(), Event::Ready);
    init.send(b"frobnicate\n");
    assert!(failed(&init.event()));
    let address = init.health;
    assert_eq!(init.status(), 1);
    assert!(TcpListener::bind(address).is_ok(), "the child is gone");

    let mut init = Init::child(":");
    init.send(&[b'x'; 5000]);
    assert!(failed(&init.event()));
    assert_eq!(init.status(), 1);
}

#[test]
fn half_a_frame_is_never_carried_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let mut init = Init::child(":");
    init.send(format!("file 600 10 {}\nhalf", path.display()).as_bytes());
    assert_eq!(init.end_of_input(), 0);
    assert!(!path.exists());
}

#[test]
fn a_keeper_that_no_longer_reads_does_not_keep_it() {
    let health = free_address();
    let mut process = Command::new(env!("CARGO_BIN_EXE_bottle-init"))
        .args(["child", "--health", &health.to_string(), "--", "/bin/true"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = process.stdin.take().unwrap();
    // More than a pipe holds, and nobody reads it.
    let order = format!("probe {}\n", "x".repeat(190));
    for _ in 0..2000 {
        input.write_all(order.as_bytes()).unwrap();
    }
    drop(input);
    assert_eq!(process.wait().unwrap().code(), Some(0));

    let mut init = Init::agent();
    init.lines = channel().1;
    assert_eq!(init.end_of_input(), 0);
}

#[test]
fn usage_is_said_and_is_2() {
    let run = |arguments: &[&str]| -> Output {
        Command::new(env!("CARGO_BIN_EXE_bottle-init")).args(arguments).stdin(Stdio::null()).output().unwrap()
    };
    for arguments in [&[][..], &["agent", "x"], &["signal", "STOP"], &["child", "--health", "x", "--", "/bin/true"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("usage: "));
        assert!(output.stdout.is_empty());
    }
    let output = run(&["version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("bottle-init {}\n", env!("CARGO_PKG_VERSION")));
}
