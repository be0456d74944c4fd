//! Where upstreams and the proxy are: URLs read once, into what connections need. PURE.
//!
//! Stricter than a URL may be: no password, no query, no percent sign, one spelling of everything.

use bottle_sidecar::Authority;

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
