//! What stands between git and the sshd, as processes: the gate, as in its container, and the mirror. They go when these go.

use super::ground::Ground;
use crate::interrupt::apart;
use bottle_tests::harness::Sshd;
use git_gate::Secret;
use git_gate::config::{Config, Credential, Event, Push, Remote, configure_line};
use git_gate::limits::Limits;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a side may take to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);

/// A process that is ended when this goes.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// git-gate with one remote.
pub struct Gate {
    running: Running,
    // Its end is the gate's.
    _input: ChildStdin,
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Gate {
    /// Starts it and waits until it is ready.
    pub fn start(
        program: &Path,
        sshd: &Sshd,
        (repository, exceptions): (&Path, Vec<String>),
        spool: &Path,
    ) -> Result<Self, String> {
        let address = free_address()?;
        let remote = Remote {
            name: "app".to_owned(),
            upstream: sshd.url(repository),
            credential: Credential::SshKey { secret: "key".to_owned(), passphrase: None },
            host_key: Some(sshd.host_key()),
            inspected: false,
            push: Push { refs: vec!["refs/heads/*".to_owned()], ..Push::default() },
            exceptions,
        };
        let config = Config {
            listen: address,
            remotes: vec![remote],
            proxy: None,
            inspected_ca: None,
            upstream_roots: String::new(),
            known: Vec::new(),
            spool: spool.to_owned(),
            limits: Limits::default(),
        };
        let key = std::fs::read_to_string(sshd.client_key()).map_err(|e| format!("no key for the gate: {e}"))?;
        let line = configure_line(&config, &BTreeMap::from([("key".to_owned(), Secret::new(key))]));
        let line = line.map_err(|e| format!("no configuration for the gate: {e}"))?;
        let mut command = Command::new(program);
        apart(command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()));
        let child = command.spawn().map_err(|e| format!("{} cannot be run: {e}", program.display()))?;
        let mut running = Running(child);
        let mut input = running.0.stdin.take().ok_or("the gate has no input")?;
        input.write_all(&line).map_err(|e| format!("the gate does not take its configuration: {e}"))?;
        let mut output = BufReader::new(running.0.stdout.take().ok_or("the gate has no output")?);
        let mut first = String::new();
        output.read_line(&mut first).map_err(|e| format!("the gate cannot be read: {e}"))?;
        if !first.contains("\"ready\"") {
            return Err(format!("the gate is not ready: {}", first.trim()));
        }
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        // Read to its end elsewhere, so that its log never waits.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Ok(Self { running, _input: input, address, log })
    }

    /// The fingerprints of everything that it has found so far. The line of an operation comes when its client has gone,
    /// so it is waited for.
    pub fn found(&self) -> Vec<String> {
        let began = Instant::now();
        loop {
            let lines = self.log.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let findings = lines.iter().filter_map(|line| match serde_json::from_str(line) {
                Ok(Event::Operation(operation)) => Some(operation.findings),
                _ => None,
            });
            let found: Vec<String> = findings.flatten().map(|finding| finding.fingerprint).collect();
            if !found.is_empty() || began.elapsed() > LISTENS_WITHIN {
                return found;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The address of its remote.
    pub fn url(&self) -> String {
        format!("git://{}/app.git", self.address)
    }

    /// A line of the process's status (`VmRSS`, `VmHWM`), in megabytes of 10^6 bytes.
    pub fn memory_mb(&self, of: &str) -> Result<f64, String> {
        let path = format!("/proc/{}/status", self.running.0.id());
        let status = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(of)).ok_or_else(|| format!("no {of}"))?;
        let kilobytes = line.trim_start_matches(':').trim().trim_end_matches(" kB");
        let kilobytes: f64 = kilobytes.parse().map_err(|_| format!("no number: {line}"))?;
        Ok(kilobytes * 1024.0 / 1e6)
    }
}

/// A mirror: `git daemon` with a repository whose `pre-receive` scans what came and pushes it on.
pub struct Mirror {
    _daemon: Running,
    address: SocketAddr,
    repository: PathBuf,
    hook: String,
}

impl Mirror {
    /// Starts it; `upstream` is where pushes go on to.
    pub fn start(ground: &Ground, kingfisher: &Path, upstream: &str) -> Result<Self, String> {
        let base = ground.folder().join("mirror");
        std::fs::create_dir_all(&base).map_err(|e| format!("{}: {e}", base.display()))?;
        let address = free_address()?;
        let (listen, port) = (format!("--listen={}", address.ip()), format!("--port={}", address.port()));
        // By its own path: `git daemon` would be its parent, and the daemon would outlive it.
        let mut command = Command::new(ground.exec_path()?.join("git-daemon"));
        ground.clean(&mut command);
        command.args(["--reuseaddr", "--export-all", "--enable=receive-pack", &listen, &port]);
        command.arg(format!("--base-path={}", base.display()));
        apart(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
        let child = command.spawn().map_err(|e| format!("git daemon cannot be run: {e}"))?;
        let daemon = Running(child);
        listens(address)?;
        let hook = hook(kingfisher, upstream);
        // Its rules are compiled once and kept in the home folder of the ground.
        let mut warm = Command::new(kingfisher);
        ground.clean(&mut warm);
        warm.args(SCAN).arg(ground.folder().join("home/.gitconfig"));
        let status = warm.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.map_err(|e| format!("kingfisher cannot be run: {e}"))?;
        Ok(Self { _daemon: daemon, address, repository: base.join("app.git"), hook })
    }

    /// Empties its repository.
    pub fn empty(&self, ground: &Ground) -> Result<(), String> {
        ground.empty(&self.repository)?;
        let path = self.repository.join("hooks/pre-receive");
        std::fs::create_dir_all(self.repository.join("hooks"))
            .and_then(|()| std::fs::write(&path, &self.hook))
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)))
            .map_err(|e| format!("{}: {e}", path.display()))
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("git://{}/app.git", self.address)
    }
}

/// How kingfisher scans without going to the network.
const SCAN: [&str; 3] = ["scan", "--no-validate", "--no-update-check"];

/// Shows the quarantined objects to kingfisher as a repository, which it reads by itself, history included; then they go
/// on. Its status of 200 is a finding, which a real hook would refuse; the synthetic repository may give it some.
fn hook(kingfisher: &Path, upstream: &str) -> String {
    format!(
        "#!/bin/sh\nset -eu\nread -r old new ref\nscratch=$(mktemp -d)\ntrap 'rm -rf \"$scratch\"' EXIT\n\
         (unset $(git rev-parse --local-env-vars) GIT_QUARANTINE_PATH\n git init -q --bare \"$scratch\")\n\
         echo \"$GIT_OBJECT_DIRECTORY\" > \"$scratch/objects/info/alternates\"\n\
         mkdir -p \"$scratch/refs/heads\"\necho \"$new\" > \"$scratch/refs/heads/pushed\"\n\
         (unset $(git rev-parse --local-env-vars) GIT_QUARANTINE_PATH\n\
         status=0\n'{}' {} \"$scratch\" > /dev/null 2>&1 < /dev/null || status=$?\n\
         [ $status = 0 ] || [ $status = 200 ])\n\
         git push --quiet '{upstream}' \"$new:$ref\"\n",
        kingfisher.display(),
        SCAN.join(" "),
    )
}

/// An address that nobody listens on now.
fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
    listener.map_err(|e| format!("no free port: {e}"))
}

fn listens(address: SocketAddr) -> Result<(), String> {
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        if began.elapsed() > LISTENS_WITHIN {
            return Err(format!("git daemon does not listen on {address}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
