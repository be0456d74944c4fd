//! What the agent's git is told of the remotes: every spelling of an upstream's address becomes git-gate's, so that nothing
//! else of git needs to change. Pure.

use crate::manifest::{Git, Remote, RemoteUpstream};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// The lines of a configuration file of git; none where there is nothing to say.
pub fn text(git: &Git) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    if let Some(user) = &git.user {
        let _ = writeln!(text, "[user]\n\tname = \"{}\"\n\temail = \"{}\"", user.name, user.email);
    }
    if !git.remotes.is_empty() {
        let _ = writeln!(text, "[safe]\n\tdirectory = {}", super::agent::WORKSPACE);
    }
    for remote in &git.remotes {
        let _ = writeln!(text, "[url \"{}\"]", address(&remote.name));
        for spelling in spellings(remote) {
            let _ = writeln!(text, "\tinsteadOf = \"{spelling}\"");
        }
    }
    text
}

/// Where the agent reaches a remote.
pub fn address(name: &str) -> String {
    format!("git://{}/{name}.git", git_gate::NAME)
}

/// The ways to write an upstream's address that git knows, with and without `.git`. They are prefixes, of which the
/// longest that fits wins: what only begins like a remote's becomes a name that git-gate does not have, and refuses.
fn spellings(remote: &Remote) -> BTreeSet<String> {
    let upstream = &remote.upstream;
    let (host, path) = (upstream.host(), upstream.url_path());
    let path = path.trim_end_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let mut starts: Vec<String> = ["https", "http", "git", "ssh", "git+ssh", "ssh+git"]
        .iter()
        .map(|scheme| format!("{scheme}://{host}{path}"))
        .chain([("https", 443), ("ssh", 22)].iter().map(|(scheme, port)| format!("{scheme}://{host}:{port}{path}")))
        .collect();
    let short = path.trim_start_matches('/');
    starts.extend([format!("{host}:{short}"), format!("{host}:{path}")]);
    let mut users = BTreeSet::from(["git"]);
    match upstream {
        RemoteUpstream::Ssh { user, port, .. } => {
            users.insert(user);
            starts.push(format!("ssh://{host}:{port}{path}"));
        }
        RemoteUpstream::Https { port, .. } => starts.push(format!("https://{host}:{port}{path}")),
    }
    let with_user: Vec<String> = starts
        .iter()
        .flat_map(|start| {
            users.iter().filter_map(move |user| match start.split_once("://") {
                Some((scheme, rest)) => scheme.contains("ssh").then(|| format!("{scheme}://{user}@{rest}")),
                None => Some(format!("{user}@{start}")),
            })
        })
        .collect();
    starts.extend(with_user);
    starts.iter().flat_map(|start| [start.clone(), format!("{start}.git")]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{GitUser, RemoteCredential};

    fn remote(name: &str, upstream: &str) -> Remote {
        Remote {
            name: name.to_owned(),
            upstream: RemoteUpstream::parse(upstream).unwrap(),
            credential: RemoteCredential::None,
            push: git_gate::config::Push::default(),
            exceptions: Vec::new(),
            line: 1,
        }
    }

    /// What git itself makes of an address.
    fn asked(config: &str, address: &str) -> String {
        git(config, &["ls-remote", "--get-url", address])
    }

    fn git(config: &str, args: &[&str]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, config).unwrap();
        let output = std::process::Command::new("git")
            .args(args)
            .env("GIT_CONFIG_GLOBAL", &file)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .current_dir(dir.path())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn git_asks_the_gate_whatever_the_spelling() {
        let all = Git {
            user: Some(GitUser { name: "Ada L".to_owned(), email: "ada@example.org".to_owned() }),
            remotes: vec![
                remote("app", "ssh://git@git.example.org:2222/team/app.git"),
                remote("app-two", "https://git.example.org/team/app-two"),
                remote("mine", "ssh://ada@home.example.org/~/mine"),
                remote("odd", "https://odd.example.org:8443/a/b.git"),
            ],
        };
        let config = text(&all);
        for (address, name) in [
            ("ssh://git@git.example.org:2222/team/app.git", "app.git"),
            ("ssh://git@git.example.org/team/app.git", "app.git"),
            ("ssh://git.example.org/team/app", "app.git"),
            ("git@git.example.org:team/app.git", "app.git"),
            ("git@git.example.org:/team/app.git", "app.git"),
            ("git.example.org:team/app", "app.git"),
            ("https://git.example.org/team/app.git", "app.git"),
            ("https://git.example.org:443/team/app", "app.git"),
            ("http://git.example.org/team/app.git", "app.git"),
            ("git://git.example.org/team/app.git", "app.git"),
            ("git+ssh://git@git.example.org/team/app.git", "app.git"),
            ("https://git.example.org/team/app/", "app.git/"),
            ("https://git.example.org/team/app-two.git", "app-two.git"),
            ("git@git.example.org:team/app-two", "app-two.git"),
            ("ada@home.example.org:~/mine", "mine.git"),
            ("https://odd.example.org:8443/a/b", "odd.git"),
            // Names that the gate does not have.
            ("https://git.example.org/team/app-three.git", "app.git-three.git"),
            ("git@git.example.org:team/app.gitx", "app.gitx"),
        ] {
            assert_eq!(asked(&config, address), format!("git://git-gate/{name}"), "{address}");
        }
        for address in ["https://git.example.org/other/app.git", "https://git.example.org.evil.example/team/app.git"] {
            assert_eq!(asked(&config, address), address);
        }
        assert_eq!(git(&config, &["config", "user.name"]), "Ada L");
        assert_eq!(git(&config, &["config", "safe.directory"]), "/workspace");
        assert_eq!(text(&Git::default()), "");
    }
}
