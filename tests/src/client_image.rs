//! Images of real clients (curl, git, python3, nc, ip; a larger one has npm) for the claims, made without any image registry: one
//! debootstrap root from the Debian mirror that this machine's own apt uses, imported into the engine.
//!
//! It needs root, `debootstrap`, `docker` and `tar`, and is made once: the tag follows from the release and the list of
//! packages, and an image that is there is not made again. It never names a mirror itself.

use crate::world::sha256_hex;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fs, io};

pub mod apt;

/// The Debian release it is made of.
pub const RELEASE: &str = "bookworm";

/// What is in it beyond Debian's minimal base.
pub const PACKAGES: [&str; 7] = ["ca-certificates", "curl", "git", "iproute2", "netcat-openbsd", "procps", "python3"];

/// What the larger image has besides: Debian splits npm into hundreds of packages, so only those who need it pay.
pub const NPM_PACKAGES: [&str; 2] = ["nodejs", "npm"];

/// What the archive leaves out: caches, texts for people, and what debootstrap copied of this machine.
const LEFT_OUT: [&str; 10] = [
    "./dev/*",
    "./etc/hostname",
    "./etc/hosts",
    "./etc/resolv.conf",
    "./usr/share/doc/*",
    "./usr/share/locale/*",
    "./usr/share/man/*",
    "./var/cache/apt/*",
    "./var/lib/apt/lists/*",
    "./var/log/*",
];

/// The image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientImageError {
    /// A program is missing or failed.
    #[error("could not run `{command}`: {reason}")]
    Command {
        /// What was run.
        command: String,
        /// Its status and the end of what it said.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("could not use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// This machine's apt has no mirror that debootstrap could use.
    #[error("could not find a mirror of Debian {RELEASE} in this machine's apt sources")]
    NoMirror,
}

/// The tag of the image of these packages: it changes when its content would.
fn tag(packages: &[&str]) -> String {
    let content = format!("{RELEASE} {} without {}", packages.join(","), LEFT_OUT.join(","));
    format!("bottle-test/clients:{}", &sha256_hex(&content)[..12])
}

/// Makes the image unless the engine has it, and gives its tag. Two callers at once make it once.
pub fn ensure() -> Result<String, ClientImageError> {
    ensure_of(&PACKAGES)
}

/// The same with npm.
pub fn ensure_with_npm() -> Result<String, ClientImageError> {
    ensure_of(&[&PACKAGES[..], &NPM_PACKAGES].concat())
}

fn ensure_of(packages: &[&str]) -> Result<String, ClientImageError> {
    let tag = tag(packages);
    if present(&tag)? {
        return Ok(tag);
    }
    let path = std::env::temp_dir().join("bottle-test-clients.lock");
    let file = |source| ClientImageError::File { path: path.clone(), source };
    let lock = fs::File::create(&path).map_err(file)?;
    lock.lock().map_err(file)?;
    if !present(&tag)? {
        make(&tag, packages)?;
    }
    Ok(tag)
}

fn present(tag: &str) -> Result<bool, ClientImageError> {
    // Listed, not inspected: a failing inspect could as well be an engine that is down.
    let listed = run(Command::new("docker").args(["image", "ls", "--quiet", tag]))?;
    Ok(!listed.trim().is_empty())
}

fn make(tag: &str, packages: &[&str]) -> Result<(), ClientImageError> {
    let settings = apt::Settings::parse(&run(Command::new("apt-config").arg("dump"))?);
    let mirror = apt::mirror(&read_sources()?, RELEASE).ok_or(ClientImageError::NoMirror)?;
    let scratch = tempfile::Builder::new()
        .prefix("bottle-test-clients-")
        .tempdir()
        .map_err(|source| ClientImageError::File { path: std::env::temp_dir(), source })?;
    let root = scratch.path().join("root");
    // debootstrap takes the first of alternative dependencies, whatever fits; apt knows.
    let all = if packages.contains(&"npm") { closure(packages)? } else { Vec::new() };
    let packages: Vec<&str> = packages.iter().copied().chain(all.iter().map(String::as_str)).collect();
    run(&mut debootstrap(&root, &packages, &mirror, &settings))?;
    import(&root, tag)
}

/// Everything that these packages need on an empty system, by this machine's apt.
fn closure(packages: &[&str]) -> Result<Vec<String>, ClientImageError> {
    let mut apt = Command::new("apt-get");
    apt.env("LC_ALL", "C").args(["--simulate", "--quiet=2", "--option", "Dir::State::status=/dev/null"]);
    apt.args(["--option", "APT::Install-Recommends=0", "install"]).args(packages);
    let said = run(&mut apt)?;
    let name = |line: &str| Some(line.strip_prefix("Inst ")?.split_whitespace().next()?.to_owned());
    Ok(said.lines().filter_map(name).collect())
}

fn debootstrap(root: &Path, packages: &[&str], mirror: &apt::Mirror, settings: &apt::Settings) -> Command {
    let mut command = Command::new("debootstrap");
    command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
    if let Some(proxy) = settings.proxy(&mirror.uri) {
        command.env("http_proxy", proxy).env("https_proxy", proxy);
    }
    command.arg("--variant=minbase").arg(format!("--include={}", packages.join(",")));
    if let Some(ca) = &settings.ca_file {
        command.arg(format!("--ca-certificate={ca}"));
    }
    if let Some(keyring) = &mirror.keyring {
        command.arg(format!("--keyring={keyring}"));
    }
    command.arg(RELEASE).arg(root).arg(&mirror.uri);
    command
}

fn import(root: &Path, tag: &str) -> Result<(), ClientImageError> {
    let mut tar = Command::new("tar");
    tar.arg("--directory").arg(root).args(["--create", "--numeric-owner", "--sort=name"]);
    tar.args(LEFT_OUT.iter().map(|pattern| format!("--exclude={pattern}"))).arg(".");
    let described = describe(&tar);
    let failed = |reason: String| ClientImageError::Command { command: described.clone(), reason };
    let mut tar = tar.stdout(Stdio::piped()).spawn().map_err(|e| failed(e.to_string()))?;
    let archive = tar.stdout.take().ok_or_else(|| failed("it has no output".to_owned()))?;
    let imported = run(Command::new("docker")
        .args(["import", "--change", "CMD [\"/bin/bash\"]", "--change", "LABEL dev.bottle.test=clients", "-", tag])
        .stdin(archive));
    // Waited for even when the import failed, so that no process is left behind.
    let status = tar.wait().map_err(|e| failed(e.to_string()))?;
    imported?;
    if status.success() { Ok(()) } else { Err(failed(status.to_string())) }
}

fn read_sources() -> Result<Vec<apt::Source>, ClientImageError> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(directory) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(directory.flatten().map(|entry| entry.path()));
    }
    files.sort();
    let mut sources = Vec::new();
    for path in files.into_iter().filter(|path| path.is_file()) {
        let text = fs::read_to_string(&path).map_err(|source| ClientImageError::File { path: path.clone(), source })?;
        match path.extension().and_then(|e| e.to_str()) {
            Some("list") => sources.extend(apt::one_line(&text)),
            Some("sources") => sources.extend(apt::stanzas(&text)),
            Some(_) | None => {}
        }
    }
    Ok(sources)
}

fn run(command: &mut Command) -> Result<String, ClientImageError> {
    let described = describe(command);
    let failed = |reason| ClientImageError::Command { command: described.clone(), reason };
    let output = command.output().map_err(|e| failed(e.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    // debootstrap says why on its standard output.
    let all = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
    let end: Vec<&str> = all.lines().rev().take(5).collect();
    Err(failed(format!("{}: {}", output.status, end.into_iter().rev().collect::<Vec<_>>().join("; "))))
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{PACKAGES, apt, debootstrap, tag};
    use std::path::Path;

    #[test]
    fn the_tag_follows_from_the_content() {
        assert_eq!(tag(&PACKAGES), tag(&PACKAGES));
        assert_ne!(tag(&PACKAGES), tag(&PACKAGES[1..]));
        assert!(tag(&PACKAGES).starts_with("bottle-test/clients:"));
    }

    #[test]
    fn debootstrap_goes_the_way_that_apt_goes() {
        let mirror =
            apt::Mirror { uri: "https://mirror.example/debian".to_owned(), keyring: Some("/k.gpg".to_owned()) };
        let settings = apt::Settings::parse(
            "Acquire::https::Proxy \"http://proxy.example:3128\";\nAcquire::https::CAInfo \"/ca.pem\";\n",
        );
        let command = debootstrap(Path::new("/root"), &PACKAGES, &mirror, &settings);
        let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
        assert!(args.contains(&"--ca-certificate=/ca.pem".to_owned()));
        assert!(args.contains(&"--keyring=/k.gpg".to_owned()));
        assert_eq!(args.last().map(String::as_str), Some("https://mirror.example/debian"));
        assert!(
            command
                .get_envs()
                .any(|(name, value)| name == "https_proxy" && value.is_some_and(|v| v == "http://proxy.example:3128"))
        );

        let plain = debootstrap(Path::new("/root"), &PACKAGES, &mirror, &apt::Settings::default());
        assert!(plain.get_envs().all(|(name, _)| name != "https_proxy"), "no proxy is made up");
    }
}
