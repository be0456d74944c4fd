//! The official SDK of MCP for Python, in an environment of its own below the target folder.

use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};

/// What is installed from PyPI.
const SDK: &str = "mcp==2.3.0";

/// An agent with the SDK; what it is told to do it does all at once.
pub struct Agent {
    child: Child,
    input: Option<ChildStdin>,
    said: Receiver<Value>,
    kept: HashMap<u64, Vec<Value>>,
    begun: u64,
}

impl Agent {
    /// An agent at this address. `None`: there is no SDK, which is said on standard error; with `BOTTLE_TEST_MCP=require` that
    /// is a failure.
    pub fn new(url: &str) -> Option<Self> {
        static INTERPRETER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let interpreter = match INTERPRETER.get_or_init(install) {
            Ok(interpreter) => interpreter,
            Err(why) => {
                assert!(std::env::var("BOTTLE_TEST_MCP").as_deref() != Ok("require"), "no SDK: {why}");
                eprintln!("SKIP: no Python SDK of MCP; BOTTLE_TEST_MCP=require to fail ({why})");
                return None;
            }
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/world/client.py");
        let mut command = Command::new(interpreter);
        command.arg(script).arg(url).env("NO_PROXY", "*").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tell, said) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
                if tell.send(value).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        Some(Self { child, input, said, kept: HashMap::new(), begun: 0 })
    }

    /// Begins something; its number.
    pub fn begin(&mut self, task: &Value) -> u64 {
        writeln!(self.input.as_mut().unwrap(), "{task}").unwrap();
        self.begun += 1;
        self.begun
    }

    /// What came of it, or the next that is said of it.
    pub fn outcome(&mut self, number: u64) -> Value {
        loop {
            if let Some(kept) = self.kept.get_mut(&number).filter(|kept| !kept.is_empty()) {
                return kept.remove(0);
            }
            let said = self.said.recv_timeout(super::PATIENCE).expect("the SDK says something");
            self.kept.entry(said["number"].as_u64().unwrap()).or_default().push(said);
        }
    }

    /// Begins something and waits for what comes of it.
    pub fn all_of(&mut self, task: &Value) -> Value {
        let number = self.begin(task);
        self.outcome(number)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.input.take();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The interpreter of the environment, which is made where it is missing.
fn install() -> Result<PathBuf, String> {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{}", SDK.replace("==", "-")));
    let interpreter = place.join("bin/python");
    if interpreter.exists() {
        return Ok(interpreter);
    }
    // Made beside and moved, so that one that was cut short is never used.
    let making = place.with_extension(format!("making-{}", std::process::id()));
    run(Command::new("python3").args(["-m", "venv"]).arg(&making))?;
    run(Command::new(making.join("bin/python")).args(["-m", "pip", "install", "--quiet", SDK]))?;
    if std::fs::rename(&making, &place).is_err() {
        // Another test was quicker, or the next line says that there is nothing.
        let _ = std::fs::remove_dir_all(&making);
    }
    if interpreter.exists() { Ok(interpreter) } else { Err(format!("{} was not made", place.display())) }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
