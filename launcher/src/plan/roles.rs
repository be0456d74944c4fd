//! What the agent's tools are told of the routes, by role, and of the remotes: variables of its program, files in its
//! home. Nothing here is a secret: where a client insists on a key it is given a placeholder, which cred-proxy strips. Pure.

use super::git_config;
use crate::manifest::{Git, Role, Route};
use cred_proxy::config::{NAME, PORT};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What stands where a client insists on a key.
pub const PLACEHOLDER: &str = "placeholder-held-by-cred-proxy";

/// What passes the twin of an npm route whose own list lets everything be read: tarballs, by the registry's own layout.
const TARBALLS: [&str; 4] = ["GET /*/-/*", "HEAD /*/-/*", "GET /*/*/-/*", "HEAD /*/*/-/*"];

/// A file below the agent's home, owned by its user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeFile {
    /// Its path, relative to the home.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// Where the agent reaches a path of cred-proxy.
pub fn url(path: &str) -> String {
    format!("http://{NAME}:{PORT}{path}")
}

/// The variables by which programs find the routes.
pub fn environment(routes: &[Route]) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: String| env.insert(name.to_owned(), value);
    for (route, role) in by_role(routes) {
        let here = url(&route.path);
        match role {
            Role::AnthropicBaseUrl => {
                set("ANTHROPIC_BASE_URL", here.trim_end_matches('/').to_owned());
                set("ANTHROPIC_API_KEY", PLACEHOLDER.to_owned());
            }
            Role::OpenaiBaseUrl => {
                set("OPENAI_BASE_URL", format!("{here}v1"));
                set("OPENAI_API_KEY", PLACEHOLDER.to_owned());
            }
            Role::NpmRegistry => {
                set("npm_config_registry", url(&registry_path(route)));
                // A package's description names its tarball at the upstream's own host, where the agent cannot go.
                set("npm_config_replace_registry_host", "always".to_owned());
            }
            Role::GitInsteadof | Role::TeaLogin => {}
        }
    }
    env
}

/// The files by which programs find the routes that no variable can name, and git the remotes.
pub fn files(routes: &[Route], git: &Git) -> Vec<HomeFile> {
    let (mut git, mut tea) = (git_config::text(git), Vec::new());
    let mut files = Vec::new();
    for (route, role) in by_role(routes) {
        match role {
            Role::OpenaiBaseUrl => files.push(HomeFile { path: ".codex/config.toml".to_owned(), text: codex(route) }),
            Role::GitInsteadof => git.push_str(&instead_of(route)),
            Role::TeaLogin => tea.push(route),
            Role::AnthropicBaseUrl | Role::NpmRegistry => {}
        }
    }
    if !git.is_empty() {
        // Read by git and by libraries alike, beside a ~/.gitconfig that an image or the agent may have.
        files.push(HomeFile { path: ".config/git/config".to_owned(), text: git });
    }
    if !tea.is_empty() {
        files.push(HomeFile { path: ".config/tea/config.yml".to_owned(), text: logins(&tea) });
    }
    files
}

fn by_role(routes: &[Route]) -> impl Iterator<Item = (&Route, Role)> {
    routes.iter().flat_map(|route| route.roles.iter().map(move |role| (route, *role)))
}

/// Codex reads no variable for its base URL.
fn codex(route: &Route) -> String {
    format!(
        "model_provider = \"cred-proxy\"\n\n[model_providers.cred-proxy]\nname = \"OpenAI by cred-proxy\"\n\
         base_url = \"{}v1\"\nenv_key = \"OPENAI_API_KEY\"\nwire_api = \"responses\"\n",
        url(&route.path)
    )
}

/// Every spelling of the upstream becomes the route. The longest one that fits wins in git as in cred-proxy.
fn instead_of(route: &Route) -> String {
    let upstream = &route.upstream;
    let (host, base) = (&upstream.host, &upstream.base);
    let mut hosts = vec![host.to_string()];
    let own = if upstream.https { 443 } else { 80 };
    // Another port is another server, also for those who leave the port out.
    let with_port = format!("{host}:{}", upstream.port);
    if upstream.port == own {
        hosts.push(with_port);
    } else {
        hosts = vec![with_port];
    }
    let mut spellings = Vec::new();
    for host in &hosts {
        spellings.extend(["https", "http"].map(|scheme| format!("{scheme}://{host}{base}")));
    }
    if upstream.port == own {
        let (path, host) = (base.trim_start_matches('/'), &hosts[0]);
        spellings.extend(["ssh://git@", "ssh://", "git://"].map(|before| format!("{before}{host}{base}")));
        spellings.extend(["git@", ""].map(|user| format!("{user}{host}:{path}")));
    }
    let mut text = String::new();
    let mut section = |to: &str, end: &str| {
        let _ = writeln!(text, "[url \"{to}\"]"); // writing to a String cannot fail
        for from in &spellings {
            // `host:` ends where a path begins already.
            let end = if from.ends_with(':') { "" } else { end };
            let _ = writeln!(text, "\tinsteadOf = \"{from}{end}\"");
        }
    };
    let here = url(&route.path);
    // A route that is one repository is asked for without a slash at its end.
    if !base.is_empty() {
        section(here.trim_end_matches('/'), "");
    }
    section(&here, "/");
    text
}

/// tea keeps its logins in YAML; JSON is YAML, and needs no rules of quoting of our own.
fn logins(routes: &[&Route]) -> String {
    let login = |(at, route): (usize, &&Route)| {
        serde_json::json!({
            "name": route.path.trim_matches('/').replace('/', "-"),
            "url": url(&route.path).trim_end_matches('/'),
            "token": PLACEHOLDER,
            "default": at == 0,
            "ssh_host": route.upstream.host.as_str(),
            "ssh_key": "",
            "insecure": false,
            "ssh_agent": false,
            "version_check": true,
            "user": "",
            "created": 0,
        })
    };
    let logins: Vec<_> = routes.iter().enumerate().map(login).collect();
    format!("{:#}\n", serde_json::json!({ "logins": logins }))
}

/// Where npm is told that its registry is. An upstream that is not at the top of its host is told by its own path:
/// npm keeps the path of a tarball, and that one is the upstream's.
fn registry_path(route: &Route) -> String {
    if route.upstream.base.is_empty() { route.path.clone() } else { format!("{}/", route.upstream.base) }
}

/// npm replaces the host of a tarball's address by the registry's, and, in its versions before 11, the whole path before
/// it. So such a route has a twin at the path that its upstream has for itself, which lets no more through.
pub fn twin(route: &Route, all: &[Route]) -> Option<cred_proxy::config::Route> {
    let path = format!("{}/", route.upstream.base);
    if !route.roles.contains(&Role::NpmRegistry) || all.iter().any(|other| other.path == path) {
        return None;
    }
    let everything = route.allow.iter().any(|line| line == "GET /**");
    let allow = if everything && route.upstream.base.is_empty() {
        TARBALLS.map(str::to_owned).to_vec()
    } else {
        route.allow.clone()
    };
    Some(cred_proxy::config::Route { path, allow, ..super::sidecar::cred_proxy_route(route) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Upstream;
    use crate::manifest::host::Host;
    use cred_proxy::config::Auth;

    fn route(path: &str, upstream: (&str, u16, &str), role: Role) -> Route {
        let (host, port, base) = upstream;
        Route {
            path: path.to_owned(),
            upstream: Upstream { https: true, host: Host::parse(host).unwrap(), port, base: base.to_owned() },
            auth: Auth::None,
            token_ref: None,
            inspect: false,
            roles: vec![role],
            allow: vec!["GET /**".to_owned(), "HEAD /**".to_owned()],
            line: 1,
        }
    }

    const FORGE: (&str, u16, &str) = ("git.example.org", 443, "");

    #[test]
    fn variables_name_the_route_and_hold_no_key() {
        let routes = [
            route("/a/", ("api.anthropic.com", 443, ""), Role::AnthropicBaseUrl),
            route("/o/", ("api.openai.com", 443, ""), Role::OpenaiBaseUrl),
            route("/npm/", ("registry.npmjs.org", 443, ""), Role::NpmRegistry),
            route("/git/", FORGE, Role::GitInsteadof),
        ];
        let env = environment(&routes);
        for (name, value) in [
            ("ANTHROPIC_BASE_URL", "http://cred-proxy:9099/a"),
            ("ANTHROPIC_API_KEY", PLACEHOLDER),
            ("OPENAI_BASE_URL", "http://cred-proxy:9099/o/v1"),
            ("OPENAI_API_KEY", PLACEHOLDER),
            ("npm_config_registry", "http://cred-proxy:9099/npm/"),
            ("npm_config_replace_registry_host", "always"),
        ] {
            assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
        }
        // What a role sets is what a manifest may not set.
        let reserved: Vec<&str> = Role::ALL.iter().flat_map(|role| role.variables()).copied().collect();
        assert!(env.len() == reserved.len() && env.keys().all(|name| reserved.contains(&name.as_str())), "{env:?}");
        assert!(environment(&[]).is_empty() && files(&[], &Git::default()).is_empty());
    }

    #[test]
    fn codex_and_tea_are_told_by_files() {
        let both = [
            route("/o/", ("api.openai.com", 443, ""), Role::OpenaiBaseUrl),
            route("/forge/a/", FORGE, Role::TeaLogin),
            route("/b/", ("b.example.org", 443, ""), Role::TeaLogin),
        ];
        let files = files(&both, &Git::default());
        let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, [".codex/config.toml", ".config/tea/config.yml"]);
        let codex: toml::Table = toml::from_str(&files[0].text).unwrap();
        let name = codex["model_provider"].as_str().unwrap();
        let provider = &codex["model_providers"][name];
        assert_eq!(provider["base_url"].as_str(), Some("http://cred-proxy:9099/o/v1"));
        assert_eq!(provider["wire_api"].as_str(), Some("responses"));
        let tea: serde_json::Value = serde_json::from_str(&files[1].text).unwrap();
        assert_eq!(tea["logins"][0]["name"], "forge-a");
        assert_eq!(tea["logins"][0]["url"], "http://cred-proxy:9099/forge/a");
        assert_eq!(tea["logins"][0]["token"], PLACEHOLDER);
        assert_eq!((&tea["logins"][0]["default"], &tea["logins"][1]["default"]), (&true.into(), &false.into()));
    }

    /// What git itself makes of an address.
    fn asked(config: &str, address: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, config).unwrap();
        let output = std::process::Command::new("git")
            .args(["ls-remote", "--get-url", address])
            .env("GIT_CONFIG_GLOBAL", &file)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .current_dir(dir.path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn git_asks_the_route_whatever_the_spelling() {
        let whole = instead_of(&route("/git/", FORGE, Role::GitInsteadof));
        for address in [
            "https://git.example.org/team/app.git",
            "https://git.example.org:443/team/app.git",
            "http://git.example.org/team/app.git",
            "ssh://git@git.example.org/team/app.git",
            "ssh://git.example.org/team/app.git",
            "git://git.example.org/team/app.git",
            "git@git.example.org:team/app.git",
            "git.example.org:team/app.git",
        ] {
            assert_eq!(asked(&whole, address), "http://cred-proxy:9099/git/team/app.git", "{address}");
        }
        for address in ["https://git.example.org.evil.example/x.git", "https://git.example.org:8443/x.git"] {
            assert_eq!(asked(&whole, address), address);
        }
        let other_port = instead_of(&route("/git/", ("git.example.org", 8443, ""), Role::GitInsteadof));
        let address = "https://git.example.org:8443/x.git";
        assert_eq!(asked(&other_port, address), "http://cred-proxy:9099/git/x.git");
        assert_eq!(asked(&other_port, "https://git.example.org/x.git"), "https://git.example.org/x.git");
    }

    #[test]
    fn of_two_routes_the_longer_address_wins() {
        let mut text = instead_of(&route("/git/", FORGE, Role::GitInsteadof));
        text += &instead_of(&route("/team/", ("git.example.org", 443, "/team"), Role::GitInsteadof));
        text += &instead_of(&route("/app/", ("git.example.org", 443, "/team/app.git"), Role::GitInsteadof));
        for (address, at) in [
            ("https://git.example.org/other/app.git", "git/other/app.git"),
            ("https://git.example.org/team/lib.git", "team/lib.git"),
            ("git@git.example.org:team/lib.git", "team/lib.git"),
            ("https://git.example.org/team/app.git", "app"),
            ("https://git.example.org/team/app.git/", "app/"),
        ] {
            assert_eq!(asked(&text, address), format!("http://cred-proxy:9099/{at}"), "{address}");
        }
    }

    #[test]
    fn a_registry_has_a_twin_where_its_tarballs_are_asked_for() {
        let npm = route("/npm/", ("registry.npmjs.org", 443, ""), Role::NpmRegistry);
        let twin_of = |route: &Route| twin(route, std::slice::from_ref(route));
        let top = twin_of(&npm).unwrap();
        assert_eq!((top.path.as_str(), top.upstream.as_str()), ("/", "https://registry.npmjs.org"));
        assert_eq!(top.allow, TARBALLS);
        // A list that a person wrote is not widened.
        let narrow = Route { allow: vec!["GET /left-pad".to_owned()], ..npm.clone() };
        assert_eq!(twin_of(&narrow).unwrap().allow, ["GET /left-pad"]);
        let below = route("/npm/", ("nexus.example.org", 443, "/repository/npm"), Role::NpmRegistry);
        let twin = twin_of(&below).unwrap();
        assert_eq!((twin.path.as_str(), twin.allow.as_slice()), ("/repository/npm/", below.allow.as_slice()));
        assert_eq!(environment(&[below])["npm_config_registry"], "http://cred-proxy:9099/repository/npm/");
        for none in [
            Route { roles: Vec::new(), ..npm.clone() },
            Route { path: "/".to_owned(), ..npm.clone() },
            route("/repository/npm/", ("nexus.example.org", 443, "/repository/npm"), Role::NpmRegistry),
        ] {
            assert_eq!(twin_of(&none), None);
        }
        let elsewhere = route("/", ("b.example.org", 443, ""), Role::TeaLogin);
        assert_eq!(super::twin(&npm, &[npm.clone(), elsewhere]), None, "another route has the place");
    }
}
