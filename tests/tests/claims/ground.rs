//! Two bottles and a world that many claims share, and what such claims ask again and again.
//!
//! Bottle `a` is the plain one: one allowlisted host, one route, nothing else. Bottle `b` is what an operator may open:
//! wildcard, passthrough, private hosts, the agent's own credentials. Both stay up while any claim holds a [`Lease`].

use super::docker::{Plain, addresses};
use super::lease::{Held, Shared};
use bottle_tests::harness::{Bottle, Output, Site, World, wait_until};
use bottle_tests::world::Evidence;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The host on both allowlists.
pub const ALLOWED: &str = "files.world.example";
/// The host of the route.
pub const ROUTED: &str = "api.world.example";
/// The host on no list but `b`'s, which passes it through.
pub const ATTACKER: &str = "attacker.world.example";
/// On `b`'s allowlist, and resolves to a private address.
pub const REBINDING: &str = "rebinding.private.example";
/// The same, and allowed to.
pub const TRUSTED: &str = "trusted.private.example";
/// The value of a literal variable of `a`.
pub const LITERAL: &str = "literal-value-5b1e";

/// The two bottles and their world.
pub struct Ground {
    /// The operator's machine.
    pub site: &'static Site,
    /// The agent of the plain bottle.
    pub agent_a: String,
    /// The plain bottle.
    pub a: Bottle<'static>,
    /// The opened one.
    pub b: Bottle<'static>,
    /// The value that the operator forwards into `a`.
    pub forwarded: String,
    /// A container on the world's network that is in no bottle: what it can do shows that the world works.
    pub control: Plain,
    control_ip: Ipv4Addr,
    attacker_ip: Ipv4Addr,
    resolver_ip: Ipv4Addr,
    canary: String,
    b_outside: Vec<Ipv4Addr>,
    world: Mutex<World<'static>>,
    _home: Folder,
}

/// The site is never dropped, since others borrow from it; its folder goes all the same.
pub struct Folder(pub PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // a folder of the temporary directory, at worst it stays
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for bottle in [&self.a, &self.b] {
            let stopped = self.site.launcher(&["stop", bottle.id()]);
            if stopped.status != 0 {
                eprintln!("{} could not be stopped: {stopped:#?}", bottle.id());
            }
        }
        let left = self.site.left();
        if !left.is_empty() {
            eprintln!("left on the engine: {left:?}: {:?}", self.site.launcher(&["cleanup"]));
        }
    }
}

impl Ground {
    fn start() -> Option<Self> {
        let site: &'static Site = Box::leak(Box::new(Site::new()?));
        let world = World::start(site);
        // Names of their own: the ground before this one may still be going.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let (agent_a, agent_b) = (format!("claims-a-{number}"), format!("claims-b-{number}"));
        let image = site.clients();
        let yaml = world.bottle_yaml(&image);
        site.bottle("a", &format!("{yaml}env:\n  FORWARDED: ${{FORWARDED}}\n  LITERAL: {LITERAL}\n"));
        site.agent(&agent_a, "a");
        let opened = yaml.replace(
            &format!("allowlist: [{ALLOWED}]"),
            &format!(
                "allowlist: [{ALLOWED}, {ATTACKER}, \"*.wild.example\", {REBINDING}, {TRUSTED}]\n  \
                 passthrough: [{ATTACKER}]\n  allow_private: [{TRUSTED}]\n  agent_credentials: true"
            ),
        );
        site.bottle("b", &opened);
        site.agent(&agent_b, "b");
        let forwarded = tag("forwarded");
        let a = site.run(&agent_a).env("FORWARDED", &forwarded).detached(&["sleep", "3600"]);
        let b = site.run(&agent_b).detached(&["sleep", "3600"]);
        let [x, y, z, _] = world.attacker_ip().octets();
        let control_ip = Ipv4Addr::from([x, y, z, 200]);
        let place = control_ip.to_string();
        let resolver = world.resolver_ip().to_string();
        let network = world.network();
        let options = ["--network", &network, "--ip", &place, "--dns", &resolver, &image, "sleep", "3600"];
        let control = Plain::start(&options);
        Some(Self {
            site,
            agent_a,
            forwarded,
            control,
            control_ip,
            attacker_ip: world.attacker_ip(),
            resolver_ip: world.resolver_ip(),
            canary: world.canary().to_owned(),
            b_outside: addresses(&b.container("pipelock")),
            a,
            b,
            world: Mutex::new(world),
            _home: Folder(site.path("")),
        })
    }

    fn world(&self) -> MutexGuard<'_, World<'static>> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attacker's address.
    pub fn attacker_ip(&self) -> Ipv4Addr {
        self.attacker_ip
    }

    /// The outside resolver's.
    pub fn resolver_ip(&self) -> Ipv4Addr {
        self.resolver_ip
    }

    /// The API's.
    pub fn api_ip(&self) -> Ipv4Addr {
        self.world().api_ip()
    }

    /// The neighbour's.
    pub fn neighbour_ip(&self) -> Ipv4Addr {
        self.world().neighbour_ip()
    }

    /// The route's credential.
    pub fn canary(&self) -> &str {
        &self.canary
    }

    /// What a host of the world saw until now: the control's own request, which comes last, has to be among it.
    #[track_caller]
    pub fn seen(&self, role: &str) -> Vec<Evidence> {
        let marker = tag("until-now");
        let ip = match role {
            "api" => Some(self.api_ip()),
            "attacker" => Some(self.attacker_ip),
            _ => None,
        };
        if let Some(ip) = ip {
            self.control.exec(&["curl", "-sS", "-m", "20", &format!("http://{ip}/{marker}")]);
            wait_until("the control's request is seen", || {
                self.world().seen(role).iter().any(|e| e.contains(&marker)).then_some(())
            });
        }
        self.world().seen(role)
    }

    /// What a host of the world saw that holds a text.
    #[track_caller]
    pub fn seen_with(&self, role: &str, text: &str) -> Vec<Evidence> {
        self.seen(role).into_iter().filter(|e| e.contains(text)).collect()
    }

    /// Panics if anything but the control and `b`'s pipelock, which may, has ever reached the attacker.
    #[track_caller]
    pub fn assert_attacker_is_alone(&self) {
        let strangers: Vec<_> = self.seen("attacker").into_iter().filter(|e| !self.may_reach_attacker(e)).collect();
        assert!(strangers.is_empty(), "reached the attacker: {strangers:#?}");
    }

    fn may_reach_attacker(&self, evidence: &Evidence) -> bool {
        let (Evidence::Opened { peer, .. } | Evidence::Received { peer, .. }) = evidence else { return false };
        let IpAddr::V4(ip) = peer.ip() else { return false };
        ip == self.control_ip || self.b_outside.contains(&ip)
    }
}

impl Shared for Ground {
    fn make() -> Option<Self> {
        Self::start()
    }

    fn held() -> &'static Held<Self> {
        static HELD: Held<Ground> = Held::new();
        &HELD
    }
}

/// A claim's part of the ground.
pub type Lease = super::lease::Lease<Ground>;

/// A word that nothing else on this machine says.
pub fn tag(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut bytes = [0_u8; 8];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut bytes).unwrap();
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    bytes.iter().fold(format!("{what}-{number}-"), |text, byte| format!("{text}{byte:02x}"))
}

/// `curl` in a bottle: the status of the answer, 0 where there was none; of the proxy's where that one refused.
pub fn curl(bottle: &Bottle<'_>, args: &[&str]) -> (String, Output) {
    let fixed = ["curl", "-sS", "-m", "20", "-w", "\n%{http_code} %{http_connect}"];
    let output = bottle.exec(&[&fixed, args].concat());
    let codes = output.stdout.lines().last().unwrap_or_default().to_owned();
    let (code, connect) = codes.split_once(' ').unwrap_or(("000", "000"));
    (if code == "000" { connect.to_owned() } else { code.to_owned() }, output)
}

/// Panics unless `curl` got an answer with this status.
#[track_caller]
pub fn answers(bottle: &Bottle<'_>, args: &[&str], status: &str) -> Output {
    let (code, output) = curl(bottle, args);
    assert_eq!(code, status, "{args:?}: {output:#?}");
    output
}

/// Runs Python in a bottle.
#[track_caller]
pub fn python(bottle: &Bottle<'_>, script: &str, args: &[&str]) -> Output {
    bottle.exec(&[&["python3", "-c", script], args].concat())
}
