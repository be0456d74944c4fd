//! Takes credentials out of a git configuration file before the agent gets a copy. What it takes out is named without
//! the secret. It edits text and never runs git; what it does not understand it keeps, less the userinfo of addresses.

/// Takes the credentials out of a configuration file. Gives the new text and what was taken out.
pub fn strip(config: &[u8]) -> (Vec<u8>, Vec<String>) {
    // Git's files are bytes; one character a byte keeps those that are not UTF-8.
    let text: String = config.iter().map(|b| char::from(*b)).collect();
    let mut out = String::with_capacity(text.len());
    let mut stripped = Vec::new();
    let mut section = Section::default();
    for line in logical_lines(&text) {
        let (header, entry) = split_header(line);
        if let Some(header) = header {
            section = Section::parse(header);
            match section.without_credentials() {
                Some(clean) => {
                    stripped.push(format!("userinfo of [{}]", section.name));
                    out.push_str(&clean);
                }
                None => out.push_str(header),
            }
        }
        match kept(&section, entry) {
            Kept::Whole => out.push_str(entry),
            Kept::Edited(text, what) => {
                stripped.push(what);
                out.push_str(&text);
            }
            Kept::Not(what) => {
                stripped.push(what);
                if header.is_some() {
                    out.push('\n');
                }
            }
        }
    }
    stripped.dedup();
    let bytes = out.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect();
    (bytes, stripped)
}

/// Takes userinfo out of the addresses in other files of git's (`FETCH_HEAD`, `logs`, `remotes`).
pub fn strip_addresses(bytes: &[u8]) -> Option<Vec<u8>> {
    let text: String = bytes.iter().map(|b| char::from(*b)).collect();
    let clean = without_userinfo(&text)?;
    Some(clean.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect())
}

/// All values of `section.key` (no subsection), lower-cased name, unquoted.
pub fn values(config: &[u8], section: &str, key: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(config);
    let mut current = Section::default();
    let mut values = Vec::new();
    for line in logical_lines(&text) {
        let (header, entry) = split_header(line);
        if let Some(header) = header {
            current = Section::parse(header);
        }
        let Some((name, value)) = entry.trim().split_once('=') else { continue };
        if current.name == section && name.trim().eq_ignore_ascii_case(key) {
            let value = value.trim();
            // A comment may follow a value that is not quoted.
            let value = match value.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next().unwrap_or_default(),
                None => value.split(['#', ';']).next().unwrap_or_default().trim(),
            };
            values.push(value.to_owned());
        }
    }
    values
}

#[derive(Debug, Default)]
struct Section {
    name: String,
    header: String,
}

enum Kept {
    Whole,
    Edited(String, String),
    Not(String),
}

impl Section {
    fn parse(header: &str) -> Self {
        let inner = header.trim().trim_start_matches('[').trim_end_matches(']');
        let end = inner.find([' ', '\t', '"', '.']).unwrap_or(inner.len());
        Self { name: inner[..end].to_ascii_lowercase(), header: header.to_owned() }
    }

    fn without_credentials(&self) -> Option<String> {
        without_userinfo(&self.header)
    }
}

fn kept(section: &Section, entry: &str) -> Kept {
    let trimmed = entry.trim_start();
    if trimmed.is_empty() {
        return Kept::Whole;
    }
    let comment = trimmed.starts_with(['#', ';']);
    let key = trimmed.split(['=', ' ', '\t', '\n', '\r']).next().unwrap_or_default().to_ascii_lowercase();
    let what = format!("{}.{key}", section.name);
    if !comment {
        let secret = ["pass", "password", "passwd", "token", "secret", "apikey", "api_key", "extraheader"];
        if section.name == "credential" || secret.iter().any(|end| key.ends_with(end)) {
            return Kept::Not(what);
        }
        // An address that git would write the credential into is of no use without it.
        if key.ends_with("insteadof") && section.without_credentials().is_some() {
            return Kept::Not(what);
        }
    }
    match without_userinfo(entry) {
        // Quotes or escapes inside the userinfo: what is left would not parse.
        Some(clean) if clean.matches('"').count() != entry.matches('"').count() => Kept::Not(what),
        Some(clean) => Kept::Edited(
            clean,
            if comment { "userinfo in a comment".to_owned() } else { format!("userinfo of {what}") },
        ),
        None => Kept::Whole,
    }
}

/// The text with the userinfo of its addresses taken out: all of it, or, for ssh, the password alone (there the user
/// is part of the address). `None` when there is none.
fn without_userinfo(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    let mut found = false;
    while let Some(at) = rest.find("://") {
        let (head, tail) = rest.split_at(at + 3);
        out.push_str(head);
        let scheme =
            head[..at].rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '+' && c != '-').next().unwrap_or("");
        let end = tail.find(|c: char| c.is_ascii_whitespace() || "/?#>'".contains(c)).unwrap_or(tail.len());
        let authority = &tail[..end];
        rest = tail;
        if let Some(host) = authority.rfind('@') {
            let user = authority[..host].split(':').next().unwrap_or_default();
            let ssh = scheme.to_ascii_lowercase().contains("ssh");
            if !ssh {
                found = true;
                rest = &tail[host + 1..];
            } else if user.len() < host {
                found = true;
                out.push_str(user);
                rest = &tail[host..];
            }
        }
    }
    out.push_str(rest);
    found.then_some(out)
}

/// Lines, each with its continuations (a backslash before the newline) and its newline.
fn logical_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices('\n') {
        let line = text[start..at].trim_end_matches('\r');
        let comment = line.trim_start().starts_with(['#', ';']);
        let slashes = line.len() - line.trim_end_matches('\\').len();
        if comment || slashes.is_multiple_of(2) {
            lines.push(&text[start..=at]);
            start = at + 1;
        }
    }
    if start < text.len() {
        lines.push(&text[start..]);
    }
    lines
}

/// Splits `[section "sub"] key = value` into its header, if it has one, and the rest.
fn split_header(line: &str) -> (Option<&str>, &str) {
    if !line.trim_start().starts_with('[') {
        return (None, line);
    }
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ']' if !quoted => return (Some(&line[..=at]), &line[at + 1..]),
            _ => {}
        }
    }
    (None, line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_and_everything_else_stays() {
        let config = "\
[core]
\tbare = false
[remote \"origin\"]
\turl = https://ada:hunter2@example.org/x.git
\tpushurl = ssh://git@example.org/x.git
\tfetch = +refs/heads/*:refs/remotes/origin/*
[remote \"ssh\"]
\turl = ssh://git:hunter3@example.org:22/x.git
[remote \"scp\"]
\turl = git@example.org:x.git
[http \"https://example.org/\"]
\textraHeader = AUTHORIZATION: basic \\
hunter4
\tsslVerify = true
[HTTP]
\tproxy = \"http://u:hunter5@proxy:3128\"
[http \"https://tok:hunter6@example.org/\"]
\tsslVerify = true
[credential \"https://example.org\"]
\thelper = \"!f() { echo password=hunter7; }; f\"
[credential]
\thelper = store
[url \"https://hunter8@example.org/\"]
\tinsteadOf = https://example.org/
[url \"ssh://git@example.org/\"]
\tpushInsteadOf = https://example.org/
[github] token = hunter9
# old: https://u:hunter10@example.org/
[user]
\tname = Ada \u{e4}
";
        let bytes: Vec<u8> = config.chars().map(|c| c as u8).collect();
        let (out, stripped) = strip(&bytes);
        let text: String = out.iter().map(|b| char::from(*b)).collect();
        assert!(!text.contains("hunter"), "{text}");
        assert!(!stripped.iter().any(|s| s.contains("hunter")), "{stripped:?}");
        for kept in [
            "\turl = https://example.org/x.git\n",
            "\tpushurl = ssh://git@example.org/x.git\n",
            "\turl = ssh://git@example.org:22/x.git\n",
            "\turl = git@example.org:x.git\n",
            "\tsslVerify = true\n",
            "\tproxy = \"http://proxy:3128\"\n",
            "[http \"https://example.org/\"]\n",
            "\tpushInsteadOf = https://example.org/\n",
            "\tname = Ada \u{e4}\n",
            "\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
        ] {
            assert!(text.contains(kept), "{kept:?} is not in {text}");
        }
        for named in
            ["userinfo of remote.url", "http.extraheader", "credential.helper", "url.insteadof", "github.token"]
        {
            assert!(stripped.iter().any(|s| s == named), "{named} is not in {stripped:?}");
        }
        let (again, nothing) = strip(&out);
        assert_eq!(again, out);
        assert!(nothing.is_empty(), "{nothing:?}");
    }

    #[test]
    fn a_file_without_credentials_stays_as_it_is() {
        let config = b"[core]\r\n\tbare = false\r\n[remote \"o\"]\n\turl = https://example.org/a@b\n\n; x\n[alias]\n\tx = \"!echo ']'\"";
        assert_eq!(strip(config), (config.to_vec(), vec![]));
    }

    #[test]
    fn values_are_found_by_section_and_key() {
        let config = b"[extensions]\n\tObjectFormat = sha256 # x\n[include]\n\tpath = \"a b\"\n[other]\n\tpath = c\n";
        assert_eq!(values(config, "extensions", "objectformat"), ["sha256"]);
        assert_eq!(values(config, "include", "path"), ["a b"]);
        assert!(values(config, "core", "path").is_empty());
    }

    #[test]
    fn addresses_in_other_files_lose_their_userinfo() {
        let head = b"abc\t\tbranch 'main' of https://u:p@example.org/x\n";
        assert_eq!(strip_addresses(head).unwrap(), b"abc\t\tbranch 'main' of https://example.org/x\n");
        assert!(strip_addresses(b"from https://example.org/x by a@b\n").is_none());
    }
}
