//! The world's git host, in a container of the image of real clients, since it needs git: what it is told and what it saw
//! go over its standard input and output, as with every role.

use super::output::{Output, wait_until};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// A running git host; it goes when this does.
pub struct GitHost {
    container: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl GitHost {
    /// Starts it on a network of the engine, by the name and the address given. `program` is the static `demo-world`.
    #[track_caller]
    pub fn start(image: &str, program: &Path, network: &str, (name, address): (&str, &str), config: &str) -> Self {
        let container = format!("{network}-git");
        let options = ["create", "--interactive", "--name", &container, "--label", "dev.bottle.test=world"];
        let place = ["--network", network, "--network-alias", name, "--ip", address, image, "/demo-world", "git"];
        docker(&[&options[..], &place].concat());
        let to = format!("{container}:/demo-world");
        docker(&["cp", &program.display().to_string(), &to]);
        let mut command = Command::new("docker");
        command.args(["start", "--attach", "--interactive", &container]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("docker can be run");
        let mut input = child.stdin.take().expect("its input is a pipe");
        input.write_all(config.as_bytes()).and_then(|()| input.flush()).expect("it takes its configuration");
        child.stdin = Some(input);
        let output = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let host = Self { container, child, lines };
        wait_until("the git host listens", || host.lines().first().cloned());
        host
    }

    /// What it said so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for GitHost {
    fn drop(&mut self) {
        // At worst the world's network cannot be removed, which then fails the test.
        let _ = Command::new("docker").args(["rm", "-f", "-v", &self.container]).output();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn docker(args: &[&str]) {
    let output: Output = Command::new("docker").args(args).output().expect("docker can be run").into();
    output.ok();
}
