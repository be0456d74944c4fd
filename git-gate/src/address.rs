//! Where upstreams and the proxy are: URLs read once, into what connections need. PURE.
//!
//! Stricter than a URL may be: no password, no query, no percent sign, one spelling of everything.

/// An upstream's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// `ssh://[user@]host[:port]/path`.
    Ssh {
        /// Who logs in.
        user: String,
        /// Host and port.
        authority: Authority,
        /// With its `/` in front; without it when it begins with `~`.
        path: String,
    },
    /// `https://host[:port]/path`, or `http://`.
    Http {
        /// Over TLS?
        tls: bool,
        /// Host and port.
        authority: Authority,
        /// With its `/` in front, without one at the end.
        path: String,
    },
}

/// A host (name, IPv4, or IPv6 without brackets) and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    /// In lower case.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Upstream {
    /// Reads a remote's `upstream`; `None` if it is anything else.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let (authority, path) = rest.find('/').map(|slash| rest.split_at(slash))?;
        let is_path = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'?' | b'#' | b'"' | b'\\');
        let dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
        if path.len() < 2 || path.contains("//") || dots || !path.bytes().all(is_path) {
            return None;
        }
        match scheme {
            "ssh" => {
                let (user, host) = authority.split_once('@').unwrap_or(("git", authority));
                let is_user = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
                if user.is_empty() || user.starts_with('-') || !user.bytes().all(is_user) {
                    return None;
                }
                // git itself takes `/~user/x` for a path below that user's home.
                let path = if path.starts_with("/~") { &path[1..] } else { path };
                Some(Self::Ssh { user: user.into(), authority: Authority::parse(host, 22)?, path: path.into() })
            }
            "https" | "http" => {
                let tls = scheme == "https";
                let authority = Authority::parse(authority, if tls { 443 } else { 80 })?;
                Some(Self::Http { tls, authority, path: path.strip_suffix('/').unwrap_or(path).into() })
            }
            _ => None,
        }
    }

    /// Host and port.
    pub fn authority(&self) -> &Authority {
        match self {
            Self::Ssh { authority, .. } | Self::Http { authority, .. } => authority,
        }
    }
}

impl Authority {
    /// `host`, `host:port`, `[v6]` or `[v6]:port`; no user information.
    pub fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let is_v6 = text.starts_with('[');
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if host.is_empty() || host.len() > 253 || host.starts_with('-') || !(is_v6 || host.bytes().all(is_name)) {
            return None;
        }
        let port = match port {
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse().ok().filter(|port| *port != 0)?
            }
            Some(_) => return None,
            None => default_port,
        };
        Some(Self { host: host.to_ascii_lowercase(), port })
    }

    /// The proxy of `http://host[:port]`.
    pub fn of_proxy(url: &str) -> Option<Self> {
        let authority = url.strip_prefix("http://")?;
        Self::parse(authority.strip_suffix('/').unwrap_or(authority), 80)
    }

    /// As it stands in a Host header: without the port where it is the scheme's own.
    pub fn host_header(&self, tls: bool) -> String {
        if self.port == if tls { 443 } else { 80 } { self.bracketed_host() } else { self.to_string() }
    }

    fn bracketed_host(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

impl std::fmt::Display for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.bracketed_host(), self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_and_their_refused_neighbours() {
        for (url, wanted) in [
            ("ssh://git@git.example/team/app.git", Some("git git.example:22 /team/app.git")),
            ("ssh://GIT.example:2222/app", Some("git git.example:2222 /app")),
            ("ssh://me@[::1]:22/~me/app", Some("me [::1]:22 ~me/app")),
            ("https://git.example/team/app.git", Some("tls git.example:443 /team/app.git")),
            ("https://git.example:8443/app/", Some("tls git.example:8443 /app")),
            ("http://10.0.0.1:3000/a", Some("plain 10.0.0.1:3000 /a")),
            ("ssh://git@git.example", None),
            ("ssh://git@git.example/", None),
            ("ssh://git:pw@git.example/a", None),
            ("ssh://-oProxyCommand=x@git.example/a", None),
            ("ssh://-oProxyCommand=x/a", None),
            ("ssh://git@git.example/a b", None),
            ("ssh://git@git.example/a\n", None),
            ("ssh://git@git.example/../a", None),
            ("ssh://git@git.example//a", None),
            ("https://user:pw@git.example/a", None),
            ("https://git.example/a?b", None),
            ("https://git.example/a#b", None),
            ("https://git.example/a%2fb", None),
            ("https://git.example:0/a", None),
            ("git@git.example:app.git", None),
            ("file:///etc", None),
            ("git://git.example/a", None),
        ] {
            let seen = Upstream::parse(url).map(|upstream| match upstream {
                Upstream::Ssh { user, authority, path } => format!("{user} {authority} {path}"),
                Upstream::Http { tls, authority, path } => {
                    format!("{} {authority} {path}", if tls { "tls" } else { "plain" })
                }
            });
            assert_eq!(seen.as_deref(), wanted, "{url}");
        }
    }
}
