//! Hosts with their ports, read once. PURE.

/// A host (name, IPv4, or IPv6 without brackets) and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    /// In lower case.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Authority {
    /// `host`, `host:port`, `[v6]` or `[v6]:port`; no user information, and no host that a program could take for an option.
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

    /// As it stands in a Host header (RFC 9110, section 7.2): without the port where that is the scheme's own.
    pub fn host_header(&self, port_of_scheme: u16) -> String {
        if self.port == port_of_scheme { self.bracketed_host() } else { self.to_string() }
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
    fn authorities_and_their_refused_neighbours() {
        for (text, wanted) in [
            ("a.example", Some("a.example:443")),
            ("A.Example:8443", Some("a.example:8443")),
            ("10.0.0.1:3000", Some("10.0.0.1:3000")),
            ("[::1]", Some("[::1]:443")),
            ("[::1]:8443", Some("[::1]:8443")),
            ("", None),
            (":443", None),
            ("a.example:", None),
            ("a.example:0", None),
            ("a.example:+1", None),
            ("a.example:70000", None),
            ("me@a.example", None),
            ("-oProxyCommand=x", None),
            ("-a.example", None),
            ("a example", None),
            ("[::1", None),
            ("[::1]8443", None),
            ("[a.example]", None),
            ("::1", None),
        ] {
            let seen = Authority::parse(text, 443).map(|authority| authority.to_string());
            assert_eq!(seen.as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn a_proxy_is_reached_in_the_clear() {
        for (url, wanted) in [
            ("http://proxy:3128", Some("proxy:3128")),
            ("http://proxy/", Some("proxy:80")),
            ("https://proxy:3128", None),
            ("http://proxy/path", None),
            ("proxy:3128", None),
        ] {
            let seen = Authority::of_proxy(url).map(|authority| authority.to_string());
            assert_eq!(seen.as_deref(), wanted, "{url}");
        }
    }

    #[test]
    fn a_schemes_own_port_is_not_said() {
        let of = |text| Authority::parse(text, 443).unwrap();
        assert_eq!(of("a.example").host_header(443), "a.example");
        assert_eq!(of("a.example").host_header(80), "a.example:443");
        assert_eq!(of("[::1]:443").host_header(443), "[::1]");
    }
}
