//! The static binaries that run inside: beside the installed launcher, or built from the checkout it was built from.

use crate::error::Failure;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// A binary that runs inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sidecar {
    /// The binary.
    pub name: &'static str,
    /// The package that it comes from.
    pub package: &'static str,
    /// With which features.
    pub features: Features,
}

/// Features to build with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Features {
    /// The one that its binaries need, which the package's default names.
    Only(&'static str),
    /// None: the small core of a package that is much larger otherwise.
    None,
}

impl Sidecar {
    /// Its feature, as Cargo is told of it for several packages at once.
    fn feature(&self) -> Option<String> {
        match self.features {
            Features::Only(feature) => Some(format!("{}/{feature}", self.package)),
            Features::None => None,
        }
    }
}

/// What every bottle needs.
pub const SIDECARS: [Sidecar; 5] = [
    Sidecar { name: "bottle-init", package: "bottle-images", features: Features::Only("bins") },
    Sidecar { name: "bottle-wall", package: "bottle-images", features: Features::Only("bins") },
    Sidecar { name: "cred-proxy", package: "cred-proxy", features: Features::Only("server") },
    Sidecar { name: "git-gate", package: "git-gate", features: Features::Only("server") },
    Sidecar { name: "supervise", package: "supervise", features: Features::Only("server") },
];

/// The checkout that this launcher was built from. It may be gone, or never have been on this machine.
const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Builds a checkout's binaries in one go where they are missing or old: one call compiles each dependency once, several
/// would do so for every set of features. Where the launcher is installed there is nothing to build.
pub fn prepare(wanted: &[Sidecar], progress: &dyn Fn(&str)) -> Result<(), Failure> {
    if installed(&SIDECARS).is_some() {
        return Ok(());
    }
    binaries(wanted, progress).map(|_| ())
}

/// How a checkout's binaries are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Quickly, for bottles that a checkout launches.
    Release,
    /// As a release ships them: optimised as a whole, which takes longer and makes them faster.
    Dist,
}

impl Profile {
    /// Cargo's name for it, and for the folder.
    fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dist => "dist",
        }
    }
}

/// Finds binaries, building those of a checkout that are missing or older than their sources. Gives name -> path.
pub fn binaries(wanted: &[Sidecar], progress: &dyn Fn(&str)) -> Result<BTreeMap<String, PathBuf>, Failure> {
    binaries_of(Profile::Release, wanted, progress)
}

/// The same, built in another way where they have to be built.
pub fn binaries_of(
    profile: Profile,
    wanted: &[Sidecar],
    progress: &dyn Fn(&str),
) -> Result<BTreeMap<String, PathBuf>, Failure> {
    if let Some(found) = installed(wanted) {
        return Ok(found);
    }
    let checkout = Path::new(CHECKOUT);
    if !checkout.join("Cargo.lock").exists() {
        let names: Vec<_> = wanted.iter().map(|w| w.name).collect();
        return Err(Failure::launch(
            format!("the sidecars' binaries are missing: {}", names.join(", ")),
            "install the whole release: they belong into the folder `bottle` beside the launcher".to_owned(),
        ));
    }
    let found = built(checkout, profile, wanted);
    let old = |sidecar: &Sidecar| {
        let newest = newest_source(checkout, sidecar.package);
        let made = found.get(sidecar.name).and_then(|path| modified(path));
        made.is_none_or(|made| newest.is_some_and(|source| source > made))
    };
    if wanted.iter().any(old) {
        progress("building the sidecars (the first time takes a minute or two)");
        build(checkout, &target_dir(checkout), profile, wanted)?;
        // Cargo leaves a binary alone that comes out the same; from now on it counts as new.
        for path in found.values() {
            if let Ok(file) = std::fs::File::options().append(true).open(path) {
                let _ = file.set_modified(SystemTime::now());
            }
        }
    }
    Ok(found)
}

/// Where the binaries come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// They are in this folder beside the launcher.
    Installed(PathBuf),
    /// They are built from this checkout.
    Checkout(PathBuf),
    /// There is neither.
    Missing,
}

/// Where the binaries come from, without building any.
pub fn origin() -> Origin {
    let beside = installed(&SIDECARS).and_then(|found| found.values().next()?.parent().map(Path::to_owned));
    let checkout = Path::new(CHECKOUT);
    match beside {
        Some(folder) => Origin::Installed(folder),
        None if checkout.join("Cargo.lock").exists() => {
            Origin::Checkout(checkout.canonicalize().unwrap_or_else(|_| checkout.to_owned()))
        }
        None => Origin::Missing,
    }
}

fn installed(wanted: &[Sidecar]) -> Option<BTreeMap<String, PathBuf>> {
    let beside = std::env::current_exe().ok()?.parent()?.join("bottle");
    let found: BTreeMap<_, _> =
        wanted.iter().map(|w| (w.name.to_owned(), beside.join(w.name))).filter(|(_, p)| p.exists()).collect();
    (found.len() == wanted.len()).then_some(found)
}

/// The one target: a static binary needs it named, see [`build`].
fn target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

fn target_dir(checkout: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout.join("target"), PathBuf::from)
}

fn built(checkout: &Path, profile: Profile, wanted: &[Sidecar]) -> BTreeMap<String, PathBuf> {
    let dir = target_dir(checkout).join(target()).join(profile.name());
    wanted.iter().map(|w| (w.name.to_owned(), dir.join(w.name))).collect()
}

/// Builds some of the sidecars' binaries from any checkout into a folder of the caller's, as for a launch. Gives their
/// paths in the order of the names.
pub fn static_build(checkout: &Path, target_dir: &Path, names: &[&str]) -> Result<Vec<PathBuf>, Failure> {
    let wanted: Vec<Sidecar> = SIDECARS.into_iter().filter(|sidecar| names.contains(&sidecar.name)).collect();
    build(checkout, target_dir, Profile::Release, &wanted)?;
    let folder = target_dir.join(target()).join(Profile::Release.name());
    Ok(names.iter().map(|name| folder.join(name)).collect())
}

/// Builds static binaries. The flag is set for this target alone: set for all, it would reach procedural macros too.
fn build(checkout: &Path, target_dir: &Path, profile: Profile, wanted: &[Sidecar]) -> Result<(), Failure> {
    let target = target();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(checkout).args(["build", "--profile", profile.name(), "--locked", "--target", &target]);
    command.args(["--config", &flags(checkout, target_dir, &target)]).arg("--target-dir").arg(target_dir);
    for sidecar in wanted {
        command.args(["-p", sidecar.package, "--bin", sidecar.name]);
    }
    command.arg("--no-default-features");
    let mut features: Vec<_> = wanted.iter().filter_map(Sidecar::feature).collect();
    features.sort();
    features.dedup();
    if !features.is_empty() {
        command.args(["--features", &features.join(",")]);
    }
    // Cargo's own words say best what it does; they are for people.
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::launch(format!("cargo could not build the sidecars ({status})"), None)),
        Err(error) => Err(Failure::launch(
            format!("cargo cannot be run to build the sidecars: {error}"),
            "install Rust, or use a release".to_owned(),
        )),
    }
}

/// Static, and without the paths of the machine that builds: the same source gives the same bytes on the next one.
fn flags(checkout: &Path, target_dir: &Path, target: &str) -> String {
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    let checkout = checkout.canonicalize().unwrap_or_else(|_| checkout.to_owned());
    let cargo = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let named = [(Some(target_dir.to_owned()), "/target"), (Some(checkout.clone()), "/bottle"), (cargo, "/cargo")];
    for (from, to) in named.into_iter().filter_map(|(from, to)| Some((from?, to))) {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    format!("target.{target}.rustflags={}", toml::Value::from(flags))
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).ok()?.modified().ok()
}

/// What the binaries of a package are made of. Of the tests' package these are the world's and the double's alone: an
/// edited test must not make every sidecar old.
fn sources(package: &str) -> &'static [&'static str] {
    match package {
        "bottle-tests" => &[
            "tests/src/lib.rs",
            "tests/src/world.rs",
            "tests/src/world",
            "tests/src/bin/demo-agent",
            "tests/src/bin/demo-world",
            "tests/src/bin/pipelock-double",
        ],
        "bottle-images" => &["images/src"],
        // The rules of the scan are built in.
        "git-gate" => &["git-gate/src", "git-gate/rules", "images/bottle-sidecar/src"],
        "supervise" => &["supervise/src", "images/bottle-sidecar/src"],
        _ => &["cred-proxy/src", "images/bottle-sidecar/src"],
    }
}

/// When the newest source of a package's binaries was changed.
fn newest_source(checkout: &Path, package: &str) -> Option<SystemTime> {
    fn walk(path: &Path, newest: &mut Option<SystemTime>) {
        if path.is_file() {
            *newest = (*newest).max(modified(path));
            return;
        }
        let Ok(entries) = std::fs::read_dir(path) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, newest);
            } else if path.extension().is_some_and(|e| e == "rs" || e == "toml") {
                *newest = (*newest).max(modified(&path));
            }
        }
    }
    let mut newest = modified(&checkout.join("Cargo.lock"));
    for source in sources(package) {
        walk(&checkout.join(source), &mut newest);
    }
    newest
}
