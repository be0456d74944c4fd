//! What lies outside a bottle, in miniature: an API, an attacker's host, a resolver and a neighbour on a network of
//! their own, and what they saw.

use super::Site;
use super::git_host::GitHost;
use super::output::wait_until;
use crate::world::{Evidence, GIT, GIT_USER, NPM, WIRE};
use launcher::commands::demo::world::{self as outside, Minted};
use std::net::Ipv4Addr;

use outside::{ALLOWED, ROUTED};

/// The git host's place in the world's subnet.
const GIT_PLACE: u32 = 14;

/// The hosts outside.
pub struct World<'a> {
    site: &'a Site,
    minted: Minted,
    world: Option<outside::World>,
    git: Option<GitHost>,
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
        Self { site, minted, world: Some(made.unwrap_or_else(|f| panic!("no world: {f:?}"))), git: None }
    }

    /// Starts the git host as well: `https://git.world.example/team/app.git`, which wants [`Self::git_credential`].
    #[track_caller]
    pub fn start_git(&mut self) {
        let config = self.minted.roles.get("git").expect("every world has one");
        let (network, address) = (self.network(), self.git_ip().to_string());
        let (image, line) = (self.site.clients(), format!("{config}\n"));
        self.git = Some(GitHost::start(&image, &self.site.mint(), &network, (GIT, &address), &line));
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

    /// The git host's address.
    pub fn git_ip(&self) -> Ipv4Addr {
        self.world().address(GIT_PLACE)
    }

    /// What the git host wants, as `user:password`.
    pub fn git_credential(&self) -> String {
        format!("{GIT_USER}:{}", self.canary())
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

    /// A further route for [`Self::bottle_yaml`], to be appended directly behind it: where it leads, and the bytes of its
    /// credential, which are written to a file of the site's configuration. `more` are further lines of the route.
    pub fn route_yaml(&self, path: &str, upstream: &str, (scheme, credential): (&str, &str), more: &[&str]) -> String {
        let mut yaml = format!("    - path: {path}\n      upstream: {upstream}\n      auth_scheme: {scheme}\n");
        if scheme != "none" {
            // Two bottles of a site may have a route of one path, with different credentials.
            static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
            let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let token = self.site.path(&format!("config/token-{number}"));
            std::fs::write(&token, credential).expect("the token can be written");
            yaml.push_str(&format!("      token_ref: {{file: {}}}\n", token.display()));
        }
        for line in more {
            yaml.push_str(&format!("      {line}\n"));
        }
        yaml
    }

    /// A route to the host whose replies are written byte by byte, not inspected: `/wire/`.
    pub fn wire_yaml(&self, scheme: &str, credential: &str) -> String {
        let more = ["inspect: false", "allow: [\"* /v1/**\"]"];
        self.route_yaml("/wire/", &format!("https://{WIRE}"), (scheme, credential), &more)
    }

    /// A route to the npm registry by its role: `/npm/`, with the API's credential.
    pub fn npm_yaml(&self) -> String {
        self.route_yaml("/npm/", &format!("https://{NPM}"), ("Bearer", self.canary()), &["role: [npm-registry]"])
    }

    /// A route to the git host by its role: `/git/`. The git host has to be started.
    pub fn git_yaml(&self) -> String {
        let credential = self.git_credential();
        self.route_yaml("/git/", &format!("https://{GIT}"), ("Basic", &credential), &["role: [git-insteadof]"])
    }

    /// What its hosts saw so far: role (`api`, `attacker`, `resolver`, `neighbour`, `git`) and evidence.
    pub fn evidence(&self) -> Vec<(String, Evidence)> {
        let git = self.git.iter().flat_map(GitHost::lines).map(|line| ("git".to_owned(), line));
        let lines = self.world().evidence().into_iter().chain(git);
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
        // It is on the world's network, which could not go before it.
        self.git = None;
        if let Some(mut world) = self.world.take() {
            let left = self.site.wait(world.take_back(self.site.engine()));
            if !left.is_empty() && !std::thread::panicking() {
                panic!("a world left something on the engine: {left:?}");
            }
        }
    }
}
