//! cred-proxy's table with its credentials as they are now: what a sidecar is told when it starts, and whenever one of
//! them is another.

use crate::manifest::{Route, TokenRef};
use cred_proxy::Secret;
use cred_proxy::config::{Config, configure_line};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

/// A table and its credentials.
#[derive(Debug)]
pub struct Table {
    config: Mutex<Config>,
    secrets: Mutex<BTreeMap<String, Secret>>,
}

/// Where a credential comes from, and the names it has in the table: routes that name the same source share it, so that
/// no command runs twice for one credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What is read or run.
    pub from: TokenRef,
    /// Names of secrets.
    pub names: Vec<String>,
}

/// The sources of these routes, each once.
pub fn sources(routes: &[Route]) -> Vec<Source> {
    let mut sources: Vec<Source> = Vec::new();
    for route in routes {
        let Some(from) = &route.token_ref else { continue };
        match sources.iter_mut().find(|source| source.from == *from) {
            Some(source) => source.names.push(route.path.clone()),
            None => sources.push(Source { from: from.clone(), names: vec![route.path.clone()] }),
        }
    }
    sources
}

impl Table {
    /// The table of a launch.
    pub fn new(config: Config, credentials: &BTreeMap<String, String>) -> Self {
        let secrets = credentials.iter().map(|(name, value)| (name.clone(), Secret::new(value.clone()))).collect();
        Self { config: Mutex::new(config), secrets: Mutex::new(secrets) }
    }

    /// The line that tells a cred-proxy all of it.
    pub fn line(&self) -> serde_json::Result<Zeroizing<Vec<u8>>> {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        configure_line(&config, &self.secrets.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The same for a cred-proxy that begins again: what was for one request is not in it any more, since nobody knows
    /// whether it was used.
    pub fn line_again(&self) -> serde_json::Result<Zeroizing<Vec<u8>>> {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let once = std::mem::take(&mut config.once);
        config.routes.retain(|route| !once.contains(&route.path));
        drop(config);
        self.line()
    }

    /// Puts a credential in. Is it another one than before?
    pub fn put(&self, names: &[String], secret: &Secret) -> bool {
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = false;
        for name in names {
            changed |= secrets.insert(name.clone(), secret.clone()).as_ref() != Some(secret);
        }
        changed
    }

    /// Takes the routes of another table over, and by which proxy they go out; certificates and the rest stay. With the
    /// credential of one of them, where it has one.
    pub fn take_over(&self, other: Config, secret: Option<(String, Secret)>) {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let Config { routes, proxy, refreshable, once, .. } = other;
        (config.routes, config.proxy, config.refreshable, config.once) = (routes, proxy, refreshable, once);
        secrets.extend(secret);
    }

    /// Forgets the credential of a route that is gone.
    pub fn forget(&self, name: &str) {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// A text without the credentials that are in force: a command may quote the one that it had before.
    pub fn redacted(&self, text: &str) -> String {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.values().fold(text.to_owned(), |text, secret| text.replace(secret.expose(), "[redacted]"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_put_in_under_all_its_names_and_shown_in_none() {
        let config = Config::closed("127.0.0.1:1".parse().unwrap());
        let before = BTreeMap::from([("/a/", "one"), ("/b/", "one"), ("/c/", "other")]);
        let table = Table::new(config, &before.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
        let names = ["/a/".to_owned(), "/b/".to_owned()];
        assert!(!table.put(&names, &Secret::new("one".to_owned())));
        assert!(table.put(&names, &Secret::new("two".to_owned())));
        assert!(!table.put(&names, &Secret::new("two".to_owned())));
        let line: serde_json::Value = serde_json::from_slice(&table.line().unwrap()).unwrap();
        assert_eq!(line["secrets"], serde_json::json!({ "/a/": "two", "/b/": "two", "/c/": "other" }));
        assert!(!format!("{table:?}").contains("two"));
        assert_eq!(table.redacted("two and other"), "[redacted] and [redacted]");
    }
}
