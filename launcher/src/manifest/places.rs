//! Where manifests are looked for. The user's configuration directory is trusted; a repository is not.

use super::name::Name;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Where manifests are looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// `$XDG_CONFIG_HOME/bottle`, absolute.
    pub config: PathBuf,
    /// Top of the repository the operator stands in: the nearest folder upwards that has `.git` or `.bottle`.
    pub repository: Option<PathBuf>,
    /// What `~` stands for.
    pub home: Option<PathBuf>,
}

/// Why it is not known where to look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot tell where manifests are: neither XDG_CONFIG_HOME nor HOME is an absolute path")]
pub struct NoPlaces;

impl Places {
    /// The places that an environment and a current directory lead to. As XDG says, a relative `XDG_CONFIG_HOME` is
    /// ignored.
    pub fn from_env(env: &BTreeMap<OsString, OsString>, cwd: &Path) -> Result<Self, NoPlaces> {
        let absolute = |name: &str| env.get(OsStr::new(name)).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = absolute("HOME");
        let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config"))).ok_or(NoPlaces)?;
        let top = |folder: &&Path| folder.join(".git").exists() || folder.join(".bottle").is_dir();
        let repository = cwd.ancestors().find(top).map(Path::to_owned);
        Ok(Self { config: config.join("bottle"), repository, home })
    }

    /// The user's own defaults.
    pub(super) fn user_config(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    /// Where the user's agents are.
    pub(super) fn agents(&self) -> PathBuf {
        self.config.join("agents")
    }

    /// Where bottles are.
    pub(super) fn bottles(&self) -> PathBuf {
        self.config.join("bottles")
    }

    /// Where the user's providers are.
    pub(super) fn providers(&self) -> PathBuf {
        self.config.join("providers")
    }

    /// Where a skill may be, the first one wins: the user's own for bottles, and those of Claude Code.
    pub(super) fn skills(&self, name: &Name) -> Vec<PathBuf> {
        let claude = self.home.as_ref().map(|home| home.join(".claude"));
        [Some(self.config.clone()), claude]
            .into_iter()
            .flatten()
            .map(|at| at.join("skills").join(name.as_str()))
            .collect()
    }

    /// Where the repository's agents are.
    pub(super) fn repository_agents(&self) -> Option<PathBuf> {
        Some(self.repository.as_ref()?.join(".bottle").join("agents"))
    }

    /// A path as a manifest writes it: absolute, in the user's home, or relative to the manifest's folder.
    pub(super) fn resolve(&self, written: &str, manifest: &Path) -> Result<PathBuf, &'static str> {
        let path = match written.strip_prefix("~/") {
            Some(rest) => self.home.as_ref().ok_or("HOME is not set, so `~` stands for nothing")?.join(rest),
            None if written.starts_with('~') => return Err("only `~/` is understood, not another user's home"),
            None => manifest.parent().unwrap_or(Path::new("/")).join(written),
        };
        // Collected anew, so that no `./` is left inside.
        Ok(path.components().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn the_configuration_is_where_xdg_says() {
        let cwd = Path::new("/");
        for (pairs, expected) in [
            (&[("XDG_CONFIG_HOME", "/x"), ("HOME", "/home/ada")][..], Ok("/x/bottle")),
            (&[("HOME", "/home/ada")], Ok("/home/ada/.config/bottle")),
            (&[("XDG_CONFIG_HOME", "x"), ("HOME", "/home/ada")], Ok("/home/ada/.config/bottle")),
            (&[("XDG_CONFIG_HOME", ""), ("HOME", "/home/ada")], Ok("/home/ada/.config/bottle")),
            (&[("HOME", "ada")], Err(NoPlaces)),
            (&[], Err(NoPlaces)),
        ] {
            let config = Places::from_env(&env(pairs), cwd).map(|places| places.config);
            assert_eq!(config, expected.map(PathBuf::from));
        }
    }

    #[test]
    fn the_repository_is_the_nearest_folder_that_looks_like_one() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        let found = || Places::from_env(&env(&[("HOME", "/h")]), &inner).unwrap().repository;
        std::fs::create_dir(dir.path().join(".git")).unwrap();
        assert_eq!(found().as_deref(), Some(dir.path()));
        std::fs::create_dir(dir.path().join("a/.bottle")).unwrap();
        assert_eq!(found().as_deref(), Some(dir.path().join("a").as_path()));
        // A worktree has a file for `.git`.
        std::fs::write(inner.join(".git"), "gitdir: elsewhere").unwrap();
        assert_eq!(found().as_deref(), Some(inner.as_path()));
    }

    #[test]
    fn paths_are_relative_to_the_manifest() {
        let places = Places { config: "/c".into(), repository: None, home: Some("/home/ada".into()) };
        let manifest = Path::new("/c/bottles/dev.md");
        for (written, expected) in [
            ("./Dockerfile", Ok("/c/bottles/Dockerfile")),
            ("../shared/ca.pem", Ok("/c/bottles/../shared/ca.pem")),
            ("/etc/ca.pem", Ok("/etc/ca.pem")),
            ("~/ca.pem", Ok("/home/ada/ca.pem")),
            ("~eve/ca.pem", Err("only `~/` is understood, not another user's home")),
        ] {
            assert_eq!(places.resolve(written, manifest), expected.map(PathBuf::from), "{written}");
        }
    }
}
