//! What lies outside a bottle, in miniature: an API, an attacker's host, a resolver and a neighbour on a network of
//! their own, and what they saw.

use super::Site;
use super::output::wait_until;
use crate::world::Evidence;
use launcher::commands::demo::world::{self as outside, Minted};
use std::net::Ipv4Addr;

use outside::{ALLOWED, ROUTED};

/// The hosts outside.
pub struct World<'a> {
    site: &'a Site,
    minted: Minted,
    world: Option<outside::World>,
}

impl<'a> World<'a> {
    /// Starts them.
    #[track_caller]
    pub fn start(site: &'a Site) -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let id = format!("w{}-{number}", std::process::id());
        let minted = outside::mint(site.mint()).unwrap_or_else(|f| panic!("no world: {f:?}"));
        let made = site.wait(outside::World::make(&site.state(), site.engine(), &id, &minted));
        Self { site, minted, world: Some(made.unwrap_or_else(|f| panic!("no world: {f:?}"))) }
    }

    fn world(&self) -> &outside::World {
        self.world.as_ref().expect("it is taken only when the world goes")
    }

    /// The engine network they are on: a bottle's `egress.network`.
    pub fn network(&self) -> String {
        self.world().network().to_owned()
    }

    /// The attacker's address.
    pub fn attacker_ip(&self) -> Ipv4Addr {
        self.world().address(outside::ATTACKER_PLACE)
    }

    /// The API's address.
    pub fn api_ip(&self) -> Ipv4Addr {
        self.world().address(outside::API_PLACE)
    }

    /// The resolver's address.
    pub fn resolver_ip(&self) -> Ipv4Addr {
        self.world().address(outside::RESOLVER_PLACE)
    }

    /// The neighbour's address.
    pub fn neighbour_ip(&self) -> Ipv4Addr {
        self.world().address(outside::NEIGHBOUR_PLACE)
    }

    /// The credential of the API: a canary that opens nothing else.
    pub fn canary(&self) -> &str {
        &self.minted.canary
    }

    /// PEM of the CA that signed the world's certificates.
    pub fn ca_pem(&self) -> &str {
        &self.minted.ca_pem
    }

    /// A bottle's frontmatter: the allowlisted host, and one inspected route `/api/` whose credential is in the file
    /// `token` of the site's configuration, both of which are written here. More keys can be appended to it.
    pub fn bottle_yaml(&self, image: &str) -> String {
        let token = self.site.path("config/token");
        std::fs::write(&token, self.canary()).expect("the token can be written");
        let roots = self.site.path("config/world.pem");
        std::fs::write(&roots, self.ca_pem()).expect("the world's certificate can be written");
        format!(
            "agent:\n  provider: shell\n  image: {image}\n\
             egress:\n  allowlist: [{ALLOWED}]\n  upstream_roots: {roots}\n  network: {network}\n\
             cred_proxy:\n  routes:\n    - path: /api/\n      upstream: https://{ROUTED}\n      auth_scheme: Bearer\n      \
             token_ref: {{file: {token}}}\n      inspect: true\n      allow: [\"GET /v1/**\", \"POST /v1/**\"]\n",
            roots = roots.display(),
            token = token.display(),
            network = self.network(),
        )
    }

    /// What its hosts saw so far: role (`api`, `attacker`, `resolver`, `neighbour`) and evidence.
    pub fn evidence(&self) -> Vec<(String, Evidence)> {
        let lines = self.world().evidence().into_iter();
        lines.filter_map(|(role, line)| Some((role, Evidence::parse(&line)?))).collect()
    }

    /// What one of its hosts saw, without its own "ready".
    pub fn seen(&self, role: &str) -> Vec<Evidence> {
        let of_role = self.evidence().into_iter().filter(|(r, e)| r == role && !matches!(e, Evidence::Ready { .. }));
        of_role.map(|(_, e)| e).collect()
    }

    /// Waits until one of its hosts has seen something.
    #[track_caller]
    pub fn wait_for(&self, role: &str, what: &str, mut is_it: impl FnMut(&Evidence) -> bool) -> Evidence {
        wait_until(&format!("{role} sees {what}"), || self.seen(role).into_iter().find(&mut is_it))
    }
}

impl Drop for World<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (role, evidence) in self.evidence() {
                eprintln!("{role} saw {evidence:?}");
            }
        }
        if let Some(mut world) = self.world.take() {
            let left = self.site.wait(world.take_back(self.site.engine()));
            if !left.is_empty() && !std::thread::panicking() {
                panic!("a world left something on the engine: {left:?}");
            }
        }
    }
}
