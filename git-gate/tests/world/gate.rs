//! The sidecar as a process, and the keeper's end of its standard input and output.

use super::free_port;
use git_gate::Secret;
use git_gate::config::{Config, Credential, Event, Operation, Push, Remote, configure_line};
use git_gate::limits::Limits;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// How long anything that must happen may take to happen.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub struct Gate {
    child: Child,
    input: Option<ChildStdin>,
    events: Receiver<Event>,
    pub address: SocketAddr,
}

/// A configuration with these remotes, listening on a free port.
pub fn config(spool: &Path, remotes: Vec<Remote>) -> Config {
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], free_port())),
        remotes,
        proxy: None,
        inspected_ca: None,
        upstream_roots: String::new(),
        known: Vec::new(),
        spool: spool.to_owned(),
        limits: Limits::default(),
    }
}

/// Everything may be pushed.
pub fn open_policy() -> Push {
    Push { refs: vec!["refs/*".into()], force: true, delete: true, max_pack: None }
}

/// A remote behind an sshd.
pub fn ssh_remote(name: &str, sshd: &super::sshd::Sshd, repository: &Path) -> Remote {
    Remote {
        name: name.into(),
        upstream: sshd.url(repository),
        credential: Credential::SshKey { secret: "key".into(), passphrase: None },
        host_key: Some(sshd.host_key()),
        inspected: false,
        push: open_policy(),
        exceptions: Vec::new(),
    }
}

impl Gate {
    /// Starts it and waits until it is ready.
    pub fn start(config: &Config, secrets: &[(&str, String)]) -> Self {
        let mut gate = Self::spawn(config.listen);
        gate.configure(config, secrets);
        assert_eq!(gate.next(), Event::Ready);
        gate
    }

    /// The same with a spool on a file system of its own with so many bytes, which goes with the process.
    pub fn start_on_tmpfs(config: &Config, secrets: &[(&str, String)], bytes: u64) -> Self {
        let script = format!("mount -t tmpfs -o size={bytes} tmpfs '{}' && exec \"$0\"", config.spool.display());
        let mut command = Command::new("unshare");
        // Whoever is not root is the root of a namespace of users.
        command.args([
            "--user",
            "--map-root-user",
            "--mount",
            "/bin/sh",
            "-c",
            &script,
            env!("CARGO_BIN_EXE_git-gate"),
        ]);
        let mut gate = Self::spawn_by(command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), config.listen);
        gate.configure(config, secrets);
        assert_eq!(gate.next(), Event::Ready);
        gate
    }

    /// Starts it and says nothing yet.
    pub fn spawn(address: SocketAddr) -> Self {
        Self::spawn_by(Command::new(env!("CARGO_BIN_EXE_git-gate")).env_clear(), address)
    }

    fn spawn_by(command: &mut Command, address: SocketAddr) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, events) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if tell.send(event).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        Self { child, input, events, address }
    }

    pub fn configure(&mut self, config: &Config, secrets: &[(&str, String)]) {
        let secrets: BTreeMap<String, Secret> =
            secrets.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(value.clone()))).collect();
        self.say(&configure_line(config, &secrets).unwrap());
    }

    pub fn say(&mut self, line: &[u8]) {
        self.input.as_mut().unwrap().write_all(line).unwrap();
    }

    /// The next event of any kind.
    pub fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    /// The next operation.
    pub fn operation(&self) -> Operation {
        loop {
            if let Event::Operation(operation) = self.next() {
                return operation;
            }
        }
    }

    /// The next answer to what was said; operations may end at any time.
    pub fn answer(&self) -> Event {
        loop {
            match self.next() {
                Event::Operation(_) => {}
                answer => return answer,
            }
        }
    }

    /// Forgets what was told so far.
    pub fn forget(&self) {
        while self.events.try_recv().is_ok() {}
    }

    pub fn url(&self, name: &str) -> String {
        format!("git://{}/{name}.git", self.address)
    }

    /// A raw connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Ends its input; what it exits with.
    pub fn end(mut self) -> Option<i32> {
        drop(self.input.take());
        self.child.wait().unwrap().code()
    }

    /// Kilobytes of memory that it has used at most.
    pub fn peak_kilobytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
