//! What opens the remotes of a bottle: keys and tokens, read once when it is launched. A key that has a passphrase is
//! asked for it; nothing is asked for what opens nothing.

use super::Here;
use crate::credentials;
use crate::error::{Failure, chain};
use crate::manifest::{Remote, RemoteCredential, TokenRef};
use crate::plan::Order;
use crate::plan::sidecar::{credential_name, passphrase_name};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;
use std::path::Path;
use zeroize::Zeroizing;

/// The magic words of a private key in OpenSSH's own format (its PROTOCOL.key).
const OPENSSH: &[u8] = b"openssh-key-v1\0";

/// Keys, tokens and passphrases by the names that git-gate has for them.
pub fn credentials(here: &Here, order: &Order) -> Result<BTreeMap<String, String>, Failure> {
    let mut found = BTreeMap::new();
    // Two remotes may be opened by one key or by one token: it is asked for, or fetched, once.
    let mut tokens: Vec<(&TokenRef, String)> = Vec::new();
    let mut passphrases: BTreeMap<&Path, String> = BTreeMap::new();
    for remote in &order.bottle.git.remotes {
        let failed = |why: String, hint: String| {
            let place = format!("{}:{}", order.bottle.file.display(), remote.line);
            Failure::usage(format!("the remote {} cannot be opened ({place}): {why}", remote.name), hint)
        };
        let value = match &remote.credential {
            RemoteCredential::None => continue,
            RemoteCredential::SshKey { identity_file, .. } => {
                let hint = || format!("change `identity_file` of the remote; it is {}", identity_file.display());
                let key = credentials::read_key(identity_file).map_err(|error| failed(chain(&error), hint()))?;
                if is_encrypted(&key) {
                    let passphrase = match passphrases.get(identity_file.as_path()) {
                        Some(passphrase) => passphrase.clone(),
                        None => ask(here, remote, identity_file).ok_or_else(|| {
                            let hint = "answer on a terminal, or use a key without one: a deploy key that opens this \
                                        repository alone";
                            failed("its key has a passphrase, and there is no answer".to_owned(), hint.to_owned())
                        })?,
                    };
                    passphrases.insert(identity_file, passphrase.clone());
                    found.insert(passphrase_name(&remote.name), passphrase);
                }
                key.to_string()
            }
            RemoteCredential::Bearer(from) | RemoteCredential::Basic { password: from, .. } => {
                let token = match tokens.iter().find(|(other, _)| *other == from) {
                    Some((_, token)) => token.clone(),
                    None => {
                        let hint = || format!("set it, or change `token_ref` of the remote; it is {from}");
                        let read = credentials::read(from, &here.env);
                        let token = read.map_err(|error| failed(chain(&error), hint()))?.expose().to_owned();
                        tokens.push((from, token.clone()));
                        token
                    }
                };
                match &remote.credential {
                    RemoteCredential::Basic { user: Some(user), .. } => format!("{user}:{token}"),
                    RemoteCredential::Basic { user: None, .. } if !token.contains(':') => {
                        let hint = "write `auth: basic <user>`, or put `user:password` there";
                        return Err(failed("`auth: basic` wants `user:password`".to_owned(), hint.to_owned()));
                    }
                    _ => token,
                }
            }
        };
        found.insert(credential_name(&remote.name), value);
    }
    Ok(found)
}

fn ask(here: &Here, remote: &Remote, file: &Path) -> Option<String> {
    let question = format!("Passphrase of {} (remote {})", file.display(), remote.name);
    here.ui.ask_secret(&question).map(|answer| answer.expose().to_owned())
}

/// Does a private key need a passphrase? What cannot be told does not: git-gate says what is wrong with it.
fn is_encrypted(key: &str) -> bool {
    if key.contains("BEGIN ENCRYPTED PRIVATE KEY") || key.contains("Proc-Type: 4,ENCRYPTED") {
        return true;
    }
    let body: String = key.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let bytes = Zeroizing::new(STANDARD.decode(Zeroizing::new(body).as_str()).unwrap_or_default());
    // The name of the cipher comes first, with its length in front.
    bytes.strip_prefix(OPENSSH).is_some_and(|rest| rest.get(4..8) != Some(b"none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_whether_it_needs_a_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        for (name, words) in [("open", ""), ("closed", "open sesame")] {
            let file = dir.path().join(name);
            let args = ["-q", "-t", "ed25519", "-N", words, "-f"];
            let made = std::process::Command::new("ssh-keygen").args(args).arg(&file).status().unwrap();
            assert!(made.success());
            assert_eq!(is_encrypted(&credentials::read_key(&file).unwrap()), !words.is_empty(), "{name}");
        }
        assert!(is_encrypted("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n"));
        assert!(!is_encrypted("-----BEGIN PRIVATE KEY-----\nAAAA\n") && !is_encrypted("no key"));
        let public = credentials::read_key(&dir.path().join("open.pub")).unwrap_err();
        assert!(public.to_string().contains("no private key"), "{public}");
    }
}
