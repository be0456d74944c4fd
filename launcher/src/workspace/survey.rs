//! What of a directory would come along, for the preflight. It reads names and sizes, never content.

use crate::workspace::WorkspaceError;
use crate::workspace::tree_path::TreePath;
use crate::workspace::walk::{ENTRIES_MAX, Kind, walk};
use std::path::Path;

/// What of a directory would come along.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Files and links.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What would be left out, and why.
    pub left_out: Vec<(String, String)>,
    /// What the agent would hold that people keep credentials in.
    pub sensitive: Vec<TreePath>,
}

/// Looks at `directory` without following links.
pub fn survey(directory: &Path) -> Result<Survey, WorkspaceError> {
    survey_within(directory, ENTRIES_MAX)
}

pub(crate) fn survey_within(directory: &Path, entries_max: u64) -> Result<Survey, WorkspaceError> {
    let found = walk(directory, entries_max)?;
    let mut survey = Survey { left_out: found.left_out, ..Survey::default() };
    for entry in found.entries {
        match entry.kind {
            Kind::Directory => continue,
            Kind::Link(_) => {}
            Kind::File => survey.bytes += entry.metadata.len(),
        }
        survey.files += 1;
        if entry.path.git_part().is_none() && is_sensitive(&entry.path) {
            survey.sensitive.push(entry.path);
        }
    }
    Ok(survey)
}

/// Is this a place where people keep credentials?
pub fn is_sensitive(path: &TreePath) -> bool {
    let name = String::from_utf8_lossy(path.name()).to_ascii_lowercase();
    let template = [".example", ".sample", ".template", ".dist"].iter().any(|end| name.ends_with(end));
    let whole = [
        ".npmrc",
        ".pypirc",
        ".netrc",
        "_netrc",
        ".git-credentials",
        ".htpasswd",
        ".pgpass",
        ".my.cnf",
        ".envrc",
        ".dockercfg",
        ".boto",
        ".s3cfg",
        "secrets.yml",
        "secrets.yaml",
        "secrets.json",
        "kubeconfig",
        "service-account.json",
    ];
    let begins = ["credentials", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"];
    let ends = [".pem", ".key", ".p12", ".pfx", ".jks", ".keystore", ".kdbx", ".tfstate", ".ppk"];
    let below = [&b".aws"[..], b".ssh", b".gnupg", b".kube", b".docker"];
    whole.contains(&name.as_str())
        || (name == ".env" || name.starts_with(".env.")) && !template
        || begins.iter().any(|begin| name.starts_with(begin)) && !name.ends_with(".pub")
        || ends.iter().any(|end| name.ends_with(end))
        || path.parent().is_some_and(|p| p.components().any(|c| below.contains(&c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_credentials_are_named_and_their_neighbours_are_not() {
        let path = |p: &str| TreePath::parse(p.as_bytes()).unwrap();
        for name in [
            ".env",
            "a/.env.local",
            ".npmrc",
            "x/.netrc",
            "tls/server.KEY",
            "id_ed25519",
            "credentials.json",
            ".git-credentials",
            ".aws/config",
            "ca.pem",
        ] {
            assert!(is_sensitive(&path(name)), "{name}");
        }
        for name in
            [".environment", ".env.example", "id_ed25519.pub", "keys.rs", "monkey", "src/id_map.rs", "aws/config"]
        {
            assert!(!is_sensitive(&path(name)), "{name}");
        }
    }

    #[test]
    fn more_entries_than_the_limit_are_an_error_that_says_so() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..3 {
            std::fs::write(dir.path().join(n.to_string()), "x").unwrap();
        }
        assert_eq!(survey_within(dir.path(), 3).unwrap().files, 3);
        let error = survey_within(dir.path(), 2).unwrap_err();
        assert!(error.to_string().contains("more than 2 files"), "{error}");
    }
}
