//! The other side: what the Python original does, `docker` commands one after another. For each container `create`, `cp`,
//! `network connect`, `start`, and then `docker logs` every 50 ms until it says that it is ready; the agent as an `exec`.
//!
//! What makes it fair, leaning to its favour where the two differ:
//! - The same three networks and subnet sizes, the same images and the same programs in the four containers that do the
//!   work: pipelock, route-pipelock, cred-proxy, git-gate, supervise, agent. Our wall, the comparison with the engine, labels, limits, seccomp
//!   profiles, read-only roots and tmpfs are on our side alone.
//! - The pipelocks run the pinned image itself on files that were copied in (`cp` needs a writable root), so there is no
//!   `bottle-init` in between, and "ready" is pipelock's own first log line, which comes before its health check would pass.
//! - cred-proxy, git-gate and supervise take their configuration on standard input and know no file: `docker start
//!   --interactive` hands it over in the same command that starts each, which spares this side a `cp` for each of them.
//! - The agent gets one `cp` with its certificates; provider files, prompts and git configuration are not copied.
//! - Configurations, certificates and the folders to copy are made before the clock starts.

use crate::figures::Round;
use crate::interrupt::{Interrupt, apart};
use crate::ours::{AGENT, ALLOWED, Ground, REMOTE, ROUTED, TOKEN, first_byte};
use bottle_tests::harness::Site;
use cred_proxy::Secret;
use cred_proxy::config::{self as proxy, Auth};
use launcher::ca::{Authority, public_roots_pem};
use launcher::engine::{Engine, Subnet};
use pipelock_config::{AgentPolicy, Policy, RoutePolicy};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Between two looks at a log, as in the original.
const POLL: Duration = Duration::from_millis(50);
/// How long a container may take.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Where this side's subnets come from: beside the launcher's own pool.
const POOL: Subnet = Subnet { base: Ipv4Addr::new(10, 214, 0, 0), prefix: 16 };
const SUBNET_PREFIX: u8 = 28;
/// Where git-gate keeps a push while it is scanned.
const SPOOL: &str = launcher::plan::sidecar::SPOOL;

/// One launch and its teardown.
pub fn round(site: &Site, ground: &Ground, round: u32, interrupt: &Interrupt) -> Result<Round, String> {
    let mut script = Script::prepare(site, ground, round)?;
    let began = Instant::now();
    script.launch(interrupt)?;
    let launch = began.elapsed();
    interrupt.check()?;
    let began = Instant::now();
    script.teardown()?;
    Ok(Round { launch, teardown: began.elapsed() })
}

/// The script's state; what it made goes with it.
struct Script {
    prefix: String,
    pipelock: String,
    /// The image of each that is told what it has to know on its standard input, and what it is told.
    fed: BTreeMap<&'static str, Fed>,
    agent: String,
    internal: Subnet,
    egress: Subnet,
    routes: Subnet,
    files: tempfile::TempDir,
    containers: Vec<String>,
    networks: Vec<String>,
    children: Vec<Child>,
}

struct Fed {
    image: String,
    line: Vec<u8>,
}

impl Script {
    fn prepare(site: &Site, ground: &Ground, round: u32) -> Result<Self, String> {
        let [internal, egress, routes] = subnets(site)?;
        let files = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        let own = Authority::mint("bench").map_err(|e| e.to_string())?;
        let other = Authority::mint("bench routes").map_err(|e| e.to_string())?;
        let agent = Policy::for_agent(AgentPolicy {
            listen: SocketAddr::from((internal.address(2), pipelock_config::PORT)),
            allowlist: vec![ALLOWED.to_owned()],
            passthrough: Vec::new(),
            allow_private: Vec::new(),
            sidecars: [(proxy::NAME, 3), (git_gate::config::NAME, 4), (supervise::config::NAME, 5)]
                .map(|(name, n)| pipelock_config::Sidecar { name: name.to_owned(), address: internal.address(n) })
                .to_vec(),
            agent_credentials: false,
        });
        let route = Policy::for_routes(RoutePolicy {
            listen: SocketAddr::from((routes.address(2), pipelock_config::PORT)),
            allowlist: vec![ROUTED.to_owned(), REMOTE.to_owned()],
            passthrough: vec![REMOTE.to_owned()],
            allow_private: Vec::new(),
            credential_headers: vec!["Authorization".to_owned()],
        });
        for (name, policy, ca) in [("pipelock", agent, &own), ("route-pipelock", route, &other)] {
            let yaml = pipelock_config::render(&policy.map_err(|e| e.to_string())?);
            write_files(&files.path().join(name), &yaml, ca).map_err(|e| format!("no files: {e}"))?;
        }
        let bundle = format!("{}{}", public_roots_pem(), own.certificate_pem());
        std::fs::write(files.path().join("ca-bundle.pem"), bundle).map_err(|e| format!("no bundle: {e}"))?;
        let fed = fed(internal, other.certificate_pem()).map_err(|e| e.to_string())?;
        Ok(Self {
            prefix: format!("bottle-bench-{}-{round}", std::process::id()),
            pipelock: site.pipelock(),
            fed,
            agent: ground.image.clone(),
            internal,
            egress,
            routes,
            files,
            containers: Vec::new(),
            networks: Vec::new(),
            children: Vec::new(),
        })
    }

    fn launch(&mut self, interrupt: &Interrupt) -> Result<(), String> {
        self.network("internal", self.internal, &["--internal"])?;
        self.network("egress", self.egress, &["-o", "com.docker.network.bridge.enable_icc=false"])?;
        self.network("routes", self.routes, &["--internal"])?;
        interrupt.check()?;
        for (role, network, address) in
            [("pipelock", "internal", self.internal.address(2)), ("route-pipelock", "routes", self.routes.address(2))]
        {
            self.pipelock(role, network, address)?;
            interrupt.check()?;
        }
        for (role, last, routes) in
            [(proxy::NAME, 3, Some(3)), (git_gate::config::NAME, 4, Some(4)), (supervise::config::NAME, 5, None)]
        {
            self.fed(role, self.internal.address(last), routes.map(|last| self.routes.address(last)))?;
            interrupt.check()?;
        }
        self.agent()
    }

    fn network(&mut self, role: &str, subnet: Subnet, options: &[&str]) -> Result<(), String> {
        let name = self.name(role);
        // Noted first: a lost answer may hide a done deed.
        self.networks.push(name.clone());
        docker(&[&["network", "create", "--subnet", &subnet.to_string()], options, &[&name]].concat())?;
        Ok(())
    }

    fn pipelock(&mut self, role: &str, network: &str, address: Ipv4Addr) -> Result<(), String> {
        let roots =
            format!("{}={}", pipelock_config::ROOTS_VARIABLE, pipelock_config::path(pipelock_config::ROOTS_FILE));
        let [program, command @ ..] = pipelock_config::COMMAND;
        let egress = self.name("egress");
        let image = self.pipelock.clone();
        let options = ["--network", &egress, "--env", &roots, "--entrypoint", program, &image];
        let name = self.create(role, &[&options[..], &command].concat())?;
        let files = format!("{}/.", self.files.path().join(role).display());
        docker(&["cp", &files, &format!("{name}:{}", pipelock_config::DIR)])?;
        docker(&["network", "connect", "--ip", &address.to_string(), &self.name(network), &name])?;
        docker(&["start", &name])?;
        until_logged(&name, r#""event":"startup""#)
    }

    fn fed(&mut self, role: &'static str, inside: Ipv4Addr, routes: Option<Ipv4Addr>) -> Result<(), String> {
        let (internal, inside) = (self.name("internal"), inside.to_string());
        let host = format!("route-pipelock:{}", self.routes.address(2));
        let image = self.fed.get(role).map(|fed| fed.image.clone()).unwrap_or_default();
        // git-gate's spool is a volume on both sides.
        let spool: &[&str] = if role == git_gate::config::NAME { &["--volume", SPOOL] } else { &[] };
        let options = ["--interactive", "--network", &internal, "--ip", &inside, "--add-host", &host];
        let name = self.create(role, &[&options[..], spool, &[&image]].concat())?;
        if let Some(address) = routes {
            docker(&["network", "connect", "--ip", &address.to_string(), &self.name("routes"), &name])?;
        }
        let mut start = Command::new("docker");
        start.args(["start", "--attach", "--interactive", &name]);
        start.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = apart(&mut start).spawn().map_err(|e| format!("docker cannot be run: {e}"))?;
        let line = self.fed.get(role).map(|fed| fed.line.as_slice()).unwrap_or_default();
        let told = child.stdin.as_mut().map(|input| input.write_all(line).and_then(|()| input.flush()));
        self.children.push(child);
        told.transpose().map_err(|e| format!("{role} cannot be told its configuration: {e}"))?;
        until_logged(&name, r#""event":"ready""#)
    }

    fn agent(&mut self) -> Result<(), String> {
        let (internal, image) = (self.name("internal"), self.agent.clone());
        let address = self.internal.address(6).to_string();
        let mut options = vec!["--network".to_owned(), internal, "--ip".to_owned(), address];
        for (name, last) in
            [("pipelock", 2), (proxy::NAME, 3), (git_gate::config::NAME, 4), (supervise::config::NAME, 5)]
        {
            options.extend(["--add-host".to_owned(), format!("{name}:{}", self.internal.address(last))]);
        }
        options.extend([image, "sleep".to_owned(), "600".to_owned()]);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let name = self.create("agent", &options)?;
        let bundle = self.files.path().join("ca-bundle.pem");
        docker(&["cp", &bundle.display().to_string(), &format!("{name}:/etc/bottle-ca.pem")])?;
        docker(&["start", &name])?;
        let mut exec = Command::new("docker");
        exec.args(["exec", "--interactive", &name]).args(AGENT);
        exec.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.children.push(apart(&mut exec).spawn().map_err(|e| format!("docker cannot be run: {e}"))?);
        self.children.last_mut().map_or(Ok(()), |child| first_byte(child, "the agent"))
    }

    fn create(&mut self, role: &str, options: &[&str]) -> Result<String, String> {
        let name = self.name(role);
        self.containers.push(name.clone());
        docker(&[&["create", "--name", &name], options].concat())?;
        Ok(name)
    }

    fn name(&self, role: &str) -> String {
        format!("{}-{role}", self.prefix)
    }

    /// The newest first, as the original does.
    fn teardown(&mut self) -> Result<(), String> {
        while let Some(name) = self.containers.last().cloned() {
            docker(&["rm", "--force", "--volumes", &name])?;
            self.containers.pop();
        }
        while let Some(name) = self.networks.last().cloned() {
            docker(&["network", "rm", &name])?;
            self.networks.pop();
        }
        Ok(())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        for name in self.containers.drain(..).rev() {
            // Some were never made; the networks below tell when one is left.
            let _ = docker(&["rm", "--force", "--volumes", &name]);
        }
        for name in self.networks.drain(..).rev() {
            if let Err(error) = docker(&["network", "rm", &name])
                && !error.contains("No such network")
            {
                // The one thing left to do is to say so.
                let _ = writeln!(std::io::stderr(), "bench: {error}");
            }
        }
        for mut child in self.children.drain(..) {
            // Their containers are gone, and they end by themselves; one that hangs must not hang us.
            drop(child.stdin.take());
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What the three sidecars that are told by standard input run, and what each is told.
fn fed(internal: Subnet, inspected_ca: &str) -> serde_json::Result<BTreeMap<&'static str, Fed>> {
    let images = launcher::images::references();
    let proxy = Some(format!("http://route-pipelock:{}", pipelock_config::PORT));
    let table = proxy::Config {
        proxy: proxy.clone(),
        routes: vec![proxy::Route {
            path: "/api/".to_owned(),
            upstream: format!("https://{ROUTED}"),
            auth: Auth::Bearer,
            secret: Some("/api/".to_owned()),
            inspected: true,
            allow: vec!["GET /v1/**".to_owned()],
        }],
        inspected_ca: Some(inspected_ca.to_owned()),
        upstream_roots: public_roots_pem(),
        ..proxy::Config::closed(SocketAddr::from((internal.address(3), proxy::PORT)))
    };
    let secrets = BTreeMap::from([("/api/".to_owned(), Secret::new(TOKEN.to_owned()))]);
    let remotes = git_gate::config::Config {
        listen: SocketAddr::from((internal.address(4), git_gate::config::PORT)),
        remotes: vec![git_gate::config::Remote {
            name: "app".to_owned(),
            upstream: format!("https://{REMOTE}/team/app.git"),
            credential: git_gate::config::Credential::Bearer { secret: "app".to_owned() },
            host_key: None,
            inspected: false,
            push: git_gate::config::Push::default(),
            exceptions: Vec::new(),
        }],
        proxy,
        inspected_ca: Some(inspected_ca.to_owned()),
        upstream_roots: public_roots_pem(),
        known: vec!["known 0".to_owned()],
        spool: SPOOL.into(),
        limits: git_gate::limits::Limits::default(),
    };
    let credentials = ["app", "known 0"].map(|name| (name.to_owned(), Secret::new(TOKEN.to_owned())));
    let asks = supervise::config::Command::Configure {
        config: supervise::config::Config {
            listen: SocketAddr::from((internal.address(5), supervise::config::PORT)),
            wait_seconds: 45,
        },
        current: Box::default(),
        answers: Vec::new(),
    };
    let mut asks = serde_json::to_vec(&asks)?;
    asks.push(b'\n');
    let fed = |image, line| Fed { image, line };
    Ok(BTreeMap::from([
        (proxy::NAME, fed(images.cred_proxy, proxy::configure_line(&table, &secrets)?.to_vec())),
        (
            git_gate::config::NAME,
            fed(images.git_gate, git_gate::config::configure_line(&remotes, &credentials.into())?.to_vec()),
        ),
        (supervise::config::NAME, fed(images.supervise, asks)),
    ]))
}

/// Three free subnets, side by side.
fn subnets(site: &Site) -> Result<[Subnet; 3], String> {
    let facts = site.wait(site.engine().facts()).map_err(|e| e.to_string())?;
    let taken: Vec<Subnet> = facts.networks.values().flatten().copied().collect();
    let size = 1u32 << (32 - SUBNET_PREFIX);
    let blocks = (1u32 << (32 - POOL.prefix)) / (3 * size);
    let block = |n: u32| [0, 1, 2].map(|i| Subnet { base: POOL.address((n * 3 + i) * size), prefix: SUBNET_PREFIX });
    (0..blocks)
        .map(|n| block((n + std::process::id()) % blocks))
        .find(|nets| nets.iter().all(|net| !taken.iter().any(|t| t.overlaps(*net))))
        .ok_or_else(|| format!("no subnets are free in {POOL}"))
}

/// The files of a pipelock, in a folder that is copied as a whole.
fn write_files(folder: &Path, yaml: &str, ca: &Authority) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir(folder)?;
    let file = |name: &str, text: &str, mode: u32| {
        let path: PathBuf = folder.join(name);
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))
    };
    file(pipelock_config::CONFIG_FILE, yaml, 0o644)?;
    file(pipelock_config::CA_FILE, ca.certificate_pem(), 0o644)?;
    file(pipelock_config::CA_KEY_FILE, ca.key_pem().expose(), pipelock_config::CA_KEY_MODE)?;
    file(pipelock_config::ROOTS_FILE, &public_roots_pem(), 0o644)
}

fn until_logged(container: &str, word: &str) -> Result<(), String> {
    let began = Instant::now();
    loop {
        let said = docker(&["logs", container])?.replace(' ', "");
        if said.contains(word) {
            return Ok(());
        }
        if began.elapsed() > READY_WITHIN {
            return Err(format!("{container} never said {word}; it said {said}"));
        }
        std::thread::sleep(POLL);
    }
}

/// Runs one command to its end. Gives both its outputs: a container's log comes on both.
fn docker(args: &[&str]) -> Result<String, String> {
    let mut command = Command::new("docker");
    let output = apart(command.args(args).stdin(Stdio::null())).output();
    let output = output.map_err(|e| format!("docker cannot be run: {e}"))?;
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.success() { Ok(text) } else { Err(format!("docker {}: {}", args.join(" "), text.trim())) }
}
