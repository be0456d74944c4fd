//! Our side: `launcher run` to the agent's first byte, and `launcher stop` to its return, which means that nothing is
//! left; that is looked at afterwards. One route, one remote, every sidecar that exists, no workspace, all images present.

use crate::figures::Round;
use crate::interrupt::{Interrupt, apart};
use bottle_tests::harness::Site;
use std::io::Read;
use std::process::{Child, Stdio};
use std::time::Instant;

/// What both sides run in the agent's container: the first byte is the end of the launch.
pub const AGENT: [&str; 3] = ["sh", "-c", "echo up; exec sleep 600"];
/// The allowlisted host.
pub const ALLOWED: &str = "files.example.org";
/// The route's host.
pub const ROUTED: &str = "api.example.org";
/// The git remote's host. Nothing is ever sent to any of the three.
pub const REMOTE: &str = "git.example.org";
/// What opens the route and the remote.
pub const TOKEN: &str = "bench-token-that-opens-nothing";

/// What both sides use.
pub struct Ground {
    /// The agent's image.
    pub image: String,
}

impl Ground {
    /// Writes the manifests and makes every image.
    pub fn prepare(site: &Site) -> Self {
        let image = site.clients();
        let token = site.path("config/token");
        std::fs::write(&token, TOKEN).expect("the token can be written");
        site.bottle(
            "bench",
            &format!(
                "agent:\n  provider: shell\n  image: {image}\negress:\n  allowlist: [{ALLOWED}]\n\
                 cred_proxy:\n  routes:\n    - path: /api/\n      upstream: https://{ROUTED}\n      \
                 auth_scheme: Bearer\n      token_ref: {{file: {}}}\n      inspect: true\n      allow: [\"GET /v1/**\"]\n\
                 git:\n  user: {{name: Ada, email: ada@example.org}}\n  remotes:\n    - name: app\n      \
                 upstream: https://{REMOTE}/team/app.git\n      token_ref: {{file: {}}}\n\
                 supervise: true\nworkspace: none\n",
                token.display(),
                token.display()
            ),
        );
        site.agent("bench", "bench");
        Self { image }
    }
}

/// A client that is still running when this goes is ended, and its bottle with it.
struct Client<'a> {
    site: &'a Site,
    id: String,
    child: Child,
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let mut stop = self.site.command();
        // The site itself takes back what this does not.
        let _ = apart(stop.args(["stop", "--now", &self.id])).output();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One launch and its teardown, and the keeper's words on where the time went.
pub fn round(site: &Site, round: u32, interrupt: &Interrupt) -> Result<(Round, String), String> {
    let id = format!("bench-{round}");
    let mut run = site.run("bench").args(&["--name", &id]).into_command(&AGENT);
    apart(run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let began = Instant::now();
    let child = run.spawn().map_err(|e| format!("the launcher cannot be run: {e}"))?;
    let mut client = Client { site, id, child };
    first_byte(&mut client.child, "the agent")?;
    let launch = began.elapsed();
    interrupt.check()?;

    let mut stop = site.command();
    let began = Instant::now();
    let stopped = apart(stop.args(["stop", &client.id])).output();
    let teardown = began.elapsed();
    let stopped = stopped.map_err(|e| format!("the launcher cannot be run: {e}"))?;
    if !stopped.status.success() {
        return Err(format!("the bottle did not stop: {}", String::from_utf8_lossy(&stopped.stderr)));
    }
    let left = site.left();
    if !left.is_empty() {
        return Err(format!("left on the engine after the stop: {left:?}"));
    }
    client.child.wait().map_err(|e| format!("the client cannot be waited for: {e}"))?;
    let log = site.launcher(&["logs", &client.id]).stdout;
    let profile = log.lines().filter(|l| l.contains(" keeper ")).collect::<Vec<_>>().join("\n");
    site.launcher(&["cleanup", "--forget", &client.id]);
    Ok((Round { launch, teardown }, profile))
}

/// Waits for the first byte of a child's output.
pub fn first_byte(child: &mut Child, what: &str) -> Result<(), String> {
    let mut byte = [0];
    let mut output = child.stdout.take().ok_or("the child has no output")?;
    let read = output.read(&mut byte).map_err(|e| format!("{what} cannot be read: {e}"))?;
    if read == 1 {
        // Read to its end elsewhere, so that the child never meets a closed pipe.
        std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        return Ok(());
    }
    let mut words = String::new();
    if let Some(mut errors) = child.stderr.take() {
        // Its words are for the error alone.
        let _ = errors.read_to_string(&mut words);
    }
    Err(format!("{what} did not run: {}", words.trim()))
}
