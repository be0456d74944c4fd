//! The table in force: what [`Config`] and its secrets become when they are read. PURE.
//!
//! A [`Table`] is valid by construction; a configuration that cannot become one changes nothing, and the reason says
//! which route is at fault. No reason ever has a secret in it.

use crate::Secret;
use crate::address::{Upstream, without_userinfo};
use crate::allow::{Allow, AllowError};
use crate::config::{Auth, Config};
use crate::mask::{Forms, MaskError};
use crate::path::normalise;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bottle_sidecar::Authority;
use http::{HeaderName, HeaderValue};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use zeroize::Zeroizing;

const ROUTES_MAX: usize = 256;
const ALLOW_MAX: usize = 256;
const SECRET_BYTES_MAX: usize = 16 << 10;

/// Every route, and how to get out.
#[derive(Debug)]
pub struct Table {
    /// The proxy on the way out.
    pub proxy: Option<Authority>,
    /// The routes, longest path first.
    pub routes: Vec<Arc<Route>>,
    /// Every header that any route injects: the agent's own never passes, on no route.
    pub injected: Vec<HeaderName>,
}

/// A path prefix, where it leads, and with which credential.
#[derive(Debug)]
pub struct Route {
    /// Begins and ends with `/`.
    pub path: String,
    /// Where it leads.
    pub upstream: Upstream,
    /// What is put in.
    pub credential: Option<Credential>,
    /// What may pass.
    pub allow: Vec<Allow>,
}

/// A credential as it goes into a request.
#[derive(Debug)]
pub struct Credential {
    /// The header it stands in.
    pub header: HeaderName,
    /// The header's value; marked as sensitive, so that it prints as such.
    pub value: HeaderValue,
    /// What masks it in the reply.
    pub forms: Arc<Forms>,
    /// The secret's name.
    pub secret: String,
    /// Can the keeper fetch it anew?
    pub refreshable: bool,
}

/// Why a configuration is no table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The proxy's address.
    #[error("the proxy `{0}` is not `http://host:port`")]
    Proxy(String),
    /// More routes than anybody needs.
    #[error("there are more than {ROUTES_MAX} routes")]
    TooManyRoutes,
    /// Two routes with one path.
    #[error("two routes have the path `{0}`")]
    Duplicate(String),
    /// A secret that nobody has given cannot be fetched anew.
    #[error("`refreshable` names the secret `{0}`, which is missing")]
    Refreshable(String),
    /// One route.
    #[error("cannot take the route `{path}`")]
    Route {
        /// Its path.
        path: String,
        /// What is wrong with it.
        source: RouteError,
    },
}

/// Why a route is none.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The path prefix.
    #[error("its path is not plain segments between slashes, with one at each end")]
    Path,
    /// The upstream's URL.
    #[error("its upstream `{0}` is not `https://host[:port][/base]`")]
    Upstream(String),
    /// A credential is wanted, but the route names none.
    #[error("it names no secret but has a way to put one in")]
    NoSecretName,
    /// A secret without a way to put it in.
    #[error("it names the secret `{0}` but has no way to put it in")]
    UnusedSecret(String),
    /// The secret did not come along.
    #[error("the secret `{0}` is missing")]
    MissingSecret(String),
    /// The secret cannot stand in a header.
    #[error("the secret `{0}` is empty, too long, or has spaces at an end or control characters")]
    BadSecret(String),
    /// The secret for Basic is not `user:password`.
    #[error("the secret `{0}` is not `user:password`")]
    NotUserAndPassword(String),
    /// The secret cannot be masked.
    #[error("the secret `{0}` cannot be masked")]
    Mask(String, #[source] MaskError),
    /// The header's name.
    #[error("`{0}` is not the name of a header that a credential can stand in")]
    HeaderName(String),
    /// A permission.
    #[error("cannot read `{0}` in its allow list")]
    Allow(String, #[source] AllowError),
    /// More permissions than anybody needs.
    #[error("it has more than {ALLOW_MAX} entries in its allow list")]
    TooManyAllow,
}

impl Table {
    /// Reads a configuration.
    pub fn parse(config: &Config, secrets: &BTreeMap<String, Secret>) -> Result<Self, TableError> {
        let proxy = config
            .proxy
            .as_deref()
            .map(|proxy| Authority::of_proxy(proxy).ok_or_else(|| TableError::Proxy(proxy.into())));
        if config.routes.len() > ROUTES_MAX {
            return Err(TableError::TooManyRoutes);
        }
        if let Some(name) = config.refreshable.iter().find(|name| !secrets.contains_key(*name)) {
            return Err(TableError::Refreshable(name.clone()));
        }
        let mut routes = Vec::new();
        let mut paths = HashSet::new();
        for route in &config.routes {
            if !paths.insert(&route.path) {
                return Err(TableError::Duplicate(route.path.clone()));
            }
            let parsed = Route::parse(route, secrets);
            let mut parsed = parsed.map_err(|source| TableError::Route { path: route.path.clone(), source })?;
            if let Some(credential) = &mut parsed.credential {
                credential.refreshable = config.refreshable.contains(&credential.secret);
            }
            routes.push(Arc::new(parsed));
        }
        routes.sort_by_key(|route| std::cmp::Reverse(route.path.len()));
        let credentials = routes.iter().filter_map(|route| route.credential.as_ref());
        // Few, and most of the names that are looked for are a number to compare: no set is as fast.
        let mut injected: Vec<HeaderName> = Vec::new();
        for credential in credentials {
            if !injected.contains(&credential.header) {
                injected.push(credential.header.clone());
            }
        }
        Ok(Self { proxy: proxy.transpose()?, routes, injected })
    }

    /// The route with the longest path that `path` (normal) begins with.
    pub fn route(&self, path: &str) -> Option<&Arc<Route>> {
        self.index(path).map(|index| &self.routes[index])
    }

    /// Its index in [`Table::routes`].
    pub fn index(&self, path: &str) -> Option<usize> {
        self.routes.iter().position(|route| path.starts_with(&route.path))
    }
}

impl Route {
    fn parse(route: &crate::config::Route, secrets: &BTreeMap<String, Secret>) -> Result<Self, RouteError> {
        if !is_prefix(&route.path) {
            return Err(RouteError::Path);
        }
        let upstream = Upstream::parse(&route.upstream, route.inspected);
        let upstream = upstream.ok_or_else(|| RouteError::Upstream(without_userinfo(&route.upstream)))?;
        if route.allow.len() > ALLOW_MAX {
            return Err(RouteError::TooManyAllow);
        }
        let allow =
            route.allow.iter().map(|text| Allow::parse(text).map_err(|error| RouteError::Allow(text.clone(), error)));
        Ok(Self {
            path: route.path.clone(),
            upstream,
            credential: Credential::parse(&route.auth, route.secret.as_deref(), secrets)?,
            allow: allow.collect::<Result<_, _>>()?,
        })
    }

    /// Do both lead to the same place? Then what is open on one may stay open on the other.
    pub fn leads_where(&self, other: &Self) -> bool {
        self.path == other.path && self.upstream == other.upstream
    }

    /// The credential of `next`, if it is the same secret with other bytes.
    pub fn is_renewed_by(&self, next: &Self) -> bool {
        match (&self.credential, &next.credential) {
            (Some(own), Some(next)) => own.secret == next.secret && own.value != next.value,
            _ => false,
        }
    }
}

impl Credential {
    fn parse(auth: &Auth, name: Option<&str>, secrets: &BTreeMap<String, Secret>) -> Result<Option<Self>, RouteError> {
        let name = match (auth, name) {
            (Auth::None, None) => return Ok(None),
            (Auth::None, Some(name)) => return Err(RouteError::UnusedSecret(name.into())),
            (_, None) => return Err(RouteError::NoSecretName),
            (_, Some(name)) => name,
        };
        let secret = secrets.get(name).ok_or_else(|| RouteError::MissingSecret(name.into()))?;
        let bytes = secret.expose();
        let is_bad = bytes.is_empty()
            || bytes.len() > SECRET_BYTES_MAX
            || bytes.trim() != bytes
            || bytes.chars().any(char::is_control);
        if is_bad {
            return Err(RouteError::BadSecret(name.into()));
        }
        let mut parts = vec![secret.clone()];
        let (header, value) = match auth {
            Auth::Bearer => (http::header::AUTHORIZATION, Zeroizing::new(format!("Bearer {bytes}"))),
            Auth::Token => (http::header::AUTHORIZATION, Zeroizing::new(format!("token {bytes}"))),
            Auth::Basic => {
                let (_, password) = bytes.split_once(':').ok_or_else(|| RouteError::NotUserAndPassword(name.into()))?;
                parts.push(Secret::new(password.into()));
                (http::header::AUTHORIZATION, Zeroizing::new(format!("Basic {}", STANDARD.encode(bytes))))
            }
            Auth::Header(header) => (header_name(header)?, Zeroizing::new(bytes.to_owned())),
            Auth::None => return Ok(None),
        };
        let mut value = HeaderValue::from_str(&value).or_else(|_| HeaderValue::from_bytes(value.as_bytes()));
        if let Ok(value) = &mut value {
            value.set_sensitive(true);
        }
        let value = value.map_err(|_| RouteError::BadSecret(name.into()))?;
        let forms = Forms::new(&parts).map_err(|error| RouteError::Mask(name.into(), error))?;
        Ok(Some(Self { header, value, forms: Arc::new(forms), secret: name.to_owned(), refreshable: false }))
    }
}

fn header_name(text: &str) -> Result<HeaderName, RouteError> {
    let refused = || RouteError::HeaderName(text.into());
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| refused())?;
    // What decides about framing and addressing is not for credentials.
    let is_framing = crate::inject::is_hop_by_hop(&name)
        || ["host", "content-length", "content-type", "content-encoding", "expect", "accept-encoding", "range", "date"]
            .contains(&name.as_str());
    if is_framing { Err(refused()) } else { Ok(name) }
}

/// A prefix is compared byte by byte, so nothing in it may have two spellings.
fn is_prefix(path: &str) -> bool {
    path.starts_with('/') && path.ends_with('/') && !path.contains('%') && normalise(path).as_deref() == Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(edit: impl FnOnce(&mut crate::config::Route)) -> Config {
        let mut route = crate::config::Route {
            path: "/api/".into(),
            upstream: "https://api.example.org".into(),
            auth: Auth::Bearer,
            secret: Some("key".into()),
            inspected: false,
            allow: vec!["GET /**".into()],
        };
        edit(&mut route);
        Config { routes: vec![route], ..Config::closed(([127, 0, 0, 1], 0).into()) }
    }

    fn secrets(secret: &str) -> BTreeMap<String, Secret> {
        BTreeMap::from([("key".into(), Secret::new(secret.into()))])
    }

    fn reason(config: &Config, secret: &str) -> String {
        let error = Table::parse(config, &secrets(secret)).expect_err("it should have been refused");
        bottle_sidecar::chain(&error)
    }

    #[test]
    fn a_bad_route_is_refused_with_its_reason() {
        let good = "s3cret-token";
        assert!(Table::parse(&config(|_| ()), &secrets(good)).is_ok());
        type Edit = fn(&mut crate::config::Route);
        let table: &[(Edit, &str)] = &[
            (|route| route.path = "api/".into(), "its path is not plain"),
            (|route| route.path = "/api".into(), "its path is not plain"),
            (|route| route.path = "/a%20b/".into(), "its path is not plain"),
            (|route| route.path = "/a/../".into(), "its path is not plain"),
            (|route| route.path = "/a//".into(), "its path is not plain"),
            (|route| route.upstream = "https://u:pa55word@h".into(), "its upstream `https://..@h` is not"),
            (|route| route.secret = None, "it names no secret"),
            (|route| route.secret = Some("other".into()), "the secret `other` is missing"),
            (|route| route.auth = Auth::None, "it names the secret `key` but has no way"),
            (|route| route.auth = Auth::Basic, "is not `user:password`"),
            (|route| route.auth = Auth::Header("a b".into()), "is not the name of a header"),
            (|route| route.auth = Auth::Header("Host".into()), "is not the name of a header"),
            (|route| route.auth = Auth::Header("Transfer-Encoding".into()), "is not the name of a header"),
            (|route| route.allow.push("get /".into()), "cannot read `get /` in its allow list: `get` is not a method"),
        ];
        for (edit, wanted) in table {
            let reason = reason(&config(edit), good);
            assert!(reason.starts_with("cannot take the route `") && reason.contains(wanted), "{reason}");
            assert!(!reason.contains(good) && !reason.contains("pa55word"), "{reason}");
        }
    }

    #[test]
    fn a_bad_secret_is_refused_and_not_shown() {
        for secret in ["", " lead", "trail\n", "line\nbreak", "nul\0", "*#_~-.xX"] {
            let reason = reason(&config(|_| ()), secret);
            assert!(reason.contains("the secret `key`"), "{reason}");
            assert!(secret.is_empty() || !reason.contains(secret), "{reason}");
        }
    }

    #[test]
    fn the_longest_path_wins() {
        let mut config = config(|route| route.path = "/".into());
        for path in ["/a/b/", "/a/"] {
            let mut route = config.routes[0].clone();
            route.path = path.into();
            config.routes.push(route);
        }
        let table = Table::parse(&config, &secrets("s3cret-token")).unwrap();
        for (path, wanted) in [("/x", "/"), ("/a", "/"), ("/a/", "/a/"), ("/a/bc", "/a/"), ("/a/b/c", "/a/b/")] {
            assert_eq!(table.route(path).unwrap().path, wanted, "{path}");
        }
        config.routes.push(config.routes[1].clone());
        assert_eq!(reason(&config, "s3cret-token"), "two routes have the path `/a/b/`");
    }

    #[test]
    fn what_can_be_fetched_anew_has_to_be_there() {
        let mut config = config(|_| ());
        config.refreshable.insert("key".into());
        let table = Table::parse(&config, &secrets("s3cret-token")).unwrap();
        assert!(table.routes[0].credential.as_ref().unwrap().refreshable);
        config.refreshable.insert("other".into());
        assert_eq!(reason(&config, "s3cret-token"), "`refreshable` names the secret `other`, which is missing");
    }

    #[test]
    fn an_empty_table_leads_nowhere() {
        let mut config = config(|_| ());
        config.routes.clear();
        assert!(Table::parse(&config, &BTreeMap::new()).unwrap().route("/").is_none());
    }

    #[test]
    fn a_proxy_is_an_http_address() {
        for (proxy, fits) in [
            ("http://route-pipelock:8888", true),
            ("http://[::1]:8888/", true),
            ("https://p:1", false),
            ("p:1", false),
            ("http://p:1/x", false),
            ("http://u@p:1", false),
        ] {
            let mut config = config(|_| ());
            config.proxy = Some(proxy.into());
            assert_eq!(Table::parse(&config, &secrets("s3cret-token")).is_ok(), fits, "{proxy}");
        }
    }

    #[test]
    fn debug_shows_no_credential() {
        let table = Table::parse(&config(|_| ()), &secrets("s3cret-token")).unwrap();
        assert!(!format!("{table:?}").contains("s3cret"));
    }
}
