//! Who may be reached: names, addresses and the shape of a URL. Pure; every refusal is in the real one's words.

use crate::config::{Config, Mode};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A refusal, before it becomes an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct No {
    pub scanner: &'static str,
    pub reason: String,
}

/// An IPv4 or IPv6 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// What the real one calls internal.
const INTERNAL: [&str; 12] = [
    "0.0.0.0/8",
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "224.0.0.0/4",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
];

impl Network {
    /// Reads a CIDR that has no host bits and is not everything.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("ssrf.ip_allowlist CIDR {text:?} {why}");
        let (address, bits) = text.split_once('/').ok_or_else(|| bad("has no length"))?;
        let address: IpAddr = address.parse().map_err(|_| bad("has no address"))?;
        let bits: u8 = bits.parse().map_err(|_| bad("has no length"))?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        if bits == 0 {
            return Err(bad("is a catch-all (/0) and would disable SSRF protection"));
        }
        if bits > width {
            return Err(bad("is too long"));
        }
        let network = Self { address, bits };
        if bits < width && number(address).0 << (128 - width + bits) != 0 {
            return Err(bad("has host bits set"));
        }
        Ok(network)
    }

    /// Is the address in it?
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ours, width) = number(self.address);
        let (theirs, their_width) = number(address);
        width == their_width && (ours ^ theirs) >> (width - self.bits) == 0
    }
}

/// The URL's shape, then its name: what is checked before any look-up.
pub fn url(config: &Config, url: &str, host: &str) -> Result<(), No> {
    let lower = url.split('#').next().unwrap_or_default().to_ascii_lowercase();
    if ["%0d", "%0a", "%250d", "%250a"].iter().any(|e| lower.contains(e)) {
        return Err(No { scanner: "crlf_injection", reason: "CRLF injection sequence in URL".into() });
    }
    let path = lower.split('?').next().unwrap_or_default().replace("%2e", ".").replace("%2f", "/");
    if path.contains("/../") || path.ends_with("/..") {
        return Err(No { scanner: "path_traversal", reason: "path traversal sequence in URL".into() });
    }
    if config.mode == Mode::Strict && !listed(&config.api_allowlist, host) {
        return Err(No { scanner: "allowlist", reason: format!("domain not in allowlist: {host}") });
    }
    if let Some(pattern) = config.fetch_proxy.monitoring.blocklist.iter().find(|p| covers(p, host)) {
        return Err(No { scanner: "blocklist", reason: format!("domain blocked: {host} matches {pattern}") });
    }
    Ok(())
}

/// Is the URL too long? The last check of all.
pub fn length(config: &Config, url: &str) -> Result<(), No> {
    let max = config.fetch_proxy.monitoring.max_url_length;
    if max > 0 && url.len() > max {
        return Err(No { scanner: "length", reason: format!("URL length {} exceeds maximum {max}", url.len()) });
    }
    Ok(())
}

/// Where a name leads: every address must be outside, unless the name or the address is exempt.
pub fn addresses(config: &Config, host: &str, addresses: &[IpAddr]) -> Result<(), No> {
    let trusted = host.parse::<IpAddr>().is_err() && listed(&config.trusted_domains, host);
    for address in addresses {
        if is_internal(*address) && !trusted && !exempt(config, *address) {
            return Err(No {
                scanner: "ssrf",
                reason: format!("SSRF blocked: {host} resolves to internal IP {address}"),
            });
        }
    }
    Ok(())
}

/// Does a list for names cover this one? `*.d` covers `d` too.
pub fn listed(patterns: &[String], host: &str) -> bool {
    patterns.iter().any(|pattern| covers(pattern, host))
}

/// Is the host's TLS left closed? Here `*.d` does not cover `d`.
pub fn passes_through(config: &Config, host: &str) -> bool {
    config.tls_interception.passthrough_domains.iter().any(|pattern| {
        let pattern = pattern.to_ascii_lowercase();
        pattern == host || pattern.strip_prefix('*').is_some_and(|tail| tail.starts_with('.') && host.ends_with(tail))
    })
}

/// Is the address one that only the operator may open?
pub fn is_internal(address: IpAddr) -> bool {
    let address = address.to_canonical();
    INTERNAL.iter().filter_map(|text| Network::parse(text).ok()).any(|network| network.contains(address))
}

/// The host as it is compared: lower case, no trailing dot, no brackets.
pub fn canonical(host: &str) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    host.strip_suffix('.').map(str::to_owned).unwrap_or(host)
}

fn covers(pattern: &str, host: &str) -> bool {
    let pattern = pattern.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(host);
    match pattern.strip_prefix("*.") {
        Some(apex) => host == apex || host.strip_suffix(apex).is_some_and(|head| head.ends_with('.')),
        None => pattern == host,
    }
}

fn exempt(config: &Config, address: IpAddr) -> bool {
    let address = address.to_canonical();
    config.ssrf.ip_allowlist.iter().filter_map(|text| Network::parse(text).ok()).any(|n| n.contains(address))
}

fn number(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(v4) => (u128::from(Ipv4Addr::to_bits(v4)), 32),
        IpAddr::V6(v6) => (Ipv6Addr::to_bits(v6), 128),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict(yaml: &str) -> Config {
        serde_saphyr::from_str(&format!("mode: strict\n{yaml}")).unwrap()
    }

    #[test]
    fn internal_addresses_are_known() {
        for (address, internal) in [
            ("10.1.2.3", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("192.168.1.1", true),
            ("169.254.169.254", true),
            ("100.64.0.1", true),
            ("127.0.0.1", true),
            ("0.0.0.0", true),
            ("224.0.0.1", true),
            ("198.18.0.1", false),
            ("8.8.8.8", false),
            ("::1", true),
            ("::ffff:10.0.0.1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_internal(address.parse().unwrap()), internal, "{address}");
        }
    }

    #[test]
    fn networks_are_read_or_refused() {
        for (text, good) in [
            ("10.0.0.5/32", true),
            ("10.0.0.0/24", true),
            ("fd00::/8", true),
            ("10.0.0.5/24", false),
            ("0.0.0.0/0", false),
            ("10.0.0.5", false),
            ("x/8", false),
            ("10.0.0.0/33", false),
        ] {
            assert_eq!(Network::parse(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn names_are_refused_before_they_are_looked_up() {
        let config = strict(
            "api_allowlist: ['*.d.example', e.example, 10.0.0.1, 10.0.0.2]\nssrf: {ip_allowlist: ['10.0.0.2/32']}",
        );
        for (asked, host, scanner) in [
            ("https://d.example/", "d.example", None),
            ("https://a.b.d.example/", "a.b.d.example", None),
            ("https://e.example/", "e.example", None),
            ("https://a.e.example/", "a.e.example", Some("allowlist")),
            ("https://xd.example/", "xd.example", Some("allowlist")),
            ("https://10.0.0.1/", "10.0.0.1", None),
            ("https://10.0.0.2/", "10.0.0.2", None),
            ("https://e.example/a/../b", "e.example", Some("path_traversal")),
            ("https://e.example/a%0d%0ab", "e.example", Some("crlf_injection")),
            ("https://e.example/a..b?x=/../", "e.example", None),
        ] {
            assert_eq!(url(&config, asked, host).err().map(|no| no.scanner), scanner, "{asked}");
        }
    }

    #[test]
    fn a_star_in_the_passthrough_list_leaves_the_apex_out() {
        let config = strict("tls_interception: {passthrough_domains: ['*.d.example', e.example]}");
        for (host, through) in [("a.d.example", true), ("d.example", false), ("e.example", true), ("xd.example", false)]
        {
            assert_eq!(passes_through(&config, host), through, "{host}");
        }
    }

    #[test]
    fn one_internal_address_is_enough_to_refuse() {
        let config = strict("trusted_domains: [in.example]\nssrf: {ip_allowlist: ['10.0.0.2/32']}");
        let at = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<IpAddr>>();
        assert!(addresses(&config, "x.example", &at(&["198.18.0.1"])).is_ok());
        assert!(addresses(&config, "x.example", &at(&["198.18.0.1", "10.0.0.1"])).is_err());
        assert!(addresses(&config, "x.example", &at(&["10.0.0.2"])).is_ok());
        assert!(addresses(&config, "in.example", &at(&["10.0.0.1"])).is_ok());
    }
}
