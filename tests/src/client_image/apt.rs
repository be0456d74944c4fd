//! How this machine's apt reaches its mirror: sources in both of their formats, and the proxy and CA settings. Pure:
//! text in, data out.

use std::collections::BTreeMap;

/// One entry of a source file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Source {
    /// Where.
    pub uris: Vec<String>,
    /// Releases.
    pub suites: Vec<String>,
    /// Components.
    pub components: Vec<String>,
    /// Path of the keyring it names, where it names a file.
    pub keyring: Option<String>,
}

/// What debootstrap is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// Where.
    pub uri: String,
    /// Keyring; `None` is debootstrap's own.
    pub keyring: Option<String>,
}

/// What of apt's configuration a download needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    proxies: BTreeMap<String, String>,
    /// CA bundle for https mirrors.
    pub ca_file: Option<String>,
}

impl Settings {
    /// Reads what `apt-config dump` prints.
    pub fn parse(dump: &str) -> Self {
        let mut settings = Self::default();
        for line in dump.lines() {
            let Some((key, value)) = line.split_once(' ') else { continue };
            let value = value.trim_end_matches(';').trim_matches('"').to_owned();
            let key = key.to_ascii_lowercase();
            if value.is_empty() {
                continue;
            }
            if key == "acquire::https::cainfo" {
                settings.ca_file = Some(value);
            } else if let Some(scheme) = key.strip_prefix("acquire::").and_then(|k| k.split_once("::proxy")) {
                // The rest is empty, or `::host` for one host alone.
                settings.proxies.insert(format!("{}{}", scheme.0, scheme.1), value);
            }
        }
        settings
    }

    /// The proxy for a mirror; one set for its host wins, and `DIRECT` is none.
    pub fn proxy(&self, uri: &str) -> Option<&str> {
        let (scheme, rest) = uri.split_once("://")?;
        let host = rest.split(['/', ':']).next().unwrap_or_default().to_ascii_lowercase();
        // apt's https falls back to the proxy of http.
        let keys = [format!("{scheme}::{host}"), scheme.to_owned(), format!("http::{host}"), "http".to_owned()];
        let found = keys.iter().find_map(|key| self.proxies.get(key))?;
        (found != "DIRECT").then_some(found.as_str())
    }
}

/// The first source that has `main` of the release itself, over a scheme that debootstrap speaks.
pub fn mirror(sources: &[Source], release: &str) -> Option<Mirror> {
    let speaks = |uri: &&String| ["http://", "https://", "file:"].iter().any(|scheme| uri.starts_with(scheme));
    sources.iter().filter(|s| s.suites.iter().any(|suite| suite == release)).find_map(|source| {
        source.components.iter().find(|component| *component == "main")?;
        let uri = source.uris.iter().find(speaks)?.clone();
        Some(Mirror { uri, keyring: source.keyring.clone() })
    })
}

/// Reads the format of one entry a line.
pub fn one_line(text: &str) -> Vec<Source> {
    text.lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let mut rest = line.strip_prefix("deb ")?.trim_start();
    let mut keyring = None;
    if let Some(options) = rest.strip_prefix('[') {
        let (inside, after) = options.split_once(']')?;
        keyring = inside.split_whitespace().find_map(|o| o.strip_prefix("signed-by=")).and_then(keyring_path);
        rest = after.trim_start();
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    let (uri, suite) = (words.next()?, words.next()?);
    Some(Source { uris: vec![uri], suites: vec![suite], components: words.collect(), keyring })
}

/// Reads the format of stanzas (deb822).
pub fn stanzas(text: &str) -> Vec<Source> {
    let text: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    text.split(|line| line.trim().is_empty()).filter_map(stanza).collect()
}

fn stanza(lines: &[&str]) -> Option<Source> {
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut last = String::new();
    for line in lines {
        if line.starts_with([' ', '\t']) {
            let field = fields.entry(last.clone()).or_default();
            field.push(' ');
            field.push_str(line.trim());
        } else if let Some((name, value)) = line.split_once(':') {
            last = name.trim().to_ascii_lowercase();
            fields.insert(last.clone(), value.trim().to_owned());
        }
    }
    let words = |name: &str| -> Vec<String> {
        fields.get(name).map(|v| v.split_whitespace().map(str::to_owned).collect()).unwrap_or_default()
    };
    let off = fields.get("enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
    if off || !words("types").iter().any(|kind| kind == "deb") {
        return None;
    }
    Some(Source {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        keyring: fields.get("signed-by").and_then(|value| keyring_path(value)),
    })
}

/// A keyring may also be written out in place, or be a fingerprint: then debootstrap's own is used.
fn keyring_path(value: &str) -> Option<String> {
    (value.starts_with('/') && !value.contains(char::is_whitespace)).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Mirror, Settings, mirror, one_line, stanzas};

    const STANZAS: &str = "\
Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main

# a comment
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/a.gpg

Types: deb deb-src
URIs:
 http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/a.gpg
";

    #[test]
    fn the_mirror_of_the_release_is_found_in_both_formats() {
        let found = mirror(&stanzas(STANZAS), "bookworm");
        let keyring = Some("/usr/share/keyrings/a.gpg".to_owned());
        assert_eq!(found, Some(Mirror { uri: "http://mirror.example/debian".to_owned(), keyring }));
        assert_eq!(mirror(&stanzas(STANZAS), "trixie"), None);

        let lines = "# deb http://no.example/ bookworm main\n\
                     deb http://tools.example/apt tools-bookworm main\n\
                     deb cdrom:[x]/ bookworm main\n\
                     deb [arch=amd64 signed-by=/k.gpg] https://mirror.example/debian bookworm main # ours\n";
        let keyring = Some("/k.gpg".to_owned());
        let uri = "https://mirror.example/debian".to_owned();
        assert_eq!(mirror(&one_line(lines), "bookworm"), Some(Mirror { uri, keyring }));
    }

    #[test]
    fn proxies_are_apts_own() {
        let settings = Settings::parse(
            "Acquire \"\";\nAcquire::http::Proxy \"http://p.example:1/\";\nAcquire::http::Proxy::near.example \"DIRECT\";\n",
        );
        for (uri, proxy) in [
            ("http://far.example/debian", Some("http://p.example:1/")),
            ("https://far.example/debian", Some("http://p.example:1/")),
            ("http://near.example/debian", None),
            ("/no/uri", None),
        ] {
            assert_eq!(settings.proxy(uri), proxy, "{uri}");
        }
        assert_eq!(Settings::parse("").proxy("http://far.example/"), None);
    }
}
