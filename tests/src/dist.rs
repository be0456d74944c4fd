//! The archive of a release: the launcher, the static binaries that run inside, manual pages, completions, schemas, licences
//! and checksums. The same parts give the same bytes.

use flate2::{Compression, GzBuilder};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What goes into an archive.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The name of its one folder, such as `bottle-0.1.0-x86_64-linux`.
    pub name: String,
    /// The launcher.
    pub launcher: PathBuf,
    /// The static binaries by their names.
    pub inside: BTreeMap<String, PathBuf>,
    /// The checkout: licence, change log, documentation, and what Cargo knows of the dependencies.
    pub checkout: PathBuf,
}

/// Shells whose completions are in it.
const SHELLS: [(&str, &str); 3] = [("bash", "launcher.bash"), ("zsh", "_launcher"), ("fish", "launcher.fish")];

/// Files of the checkout that are in it.
const PAPERS: [&str; 9] = [
    "LICENSE",
    "README.md",
    "THREATS.md",
    "CHANGELOG.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "images/README.md",
    "images/compose/cred-proxy.yaml",
    "images/compose/git-gate.yaml",
];

/// Puts the parts together. Gives the bytes of a `.tar.gz`: members ordered by name, owned by root, without times.
pub fn pack(parts: &Parts) -> io::Result<Vec<u8>> {
    let mut members: BTreeMap<String, (u32, Vec<u8>)> = BTreeMap::new();
    members.insert("launcher".to_owned(), (0o755, std::fs::read(&parts.launcher)?));
    for (name, path) in &parts.inside {
        members.insert(format!("bottle/{name}"), (0o755, std::fs::read(path)?));
    }
    for paper in PAPERS {
        members.insert(paper.to_owned(), (0o644, std::fs::read(parts.checkout.join(paper))?));
    }
    for file in below(&parts.checkout.join("docs"))? {
        let inside = file.strip_prefix(&parts.checkout).unwrap_or(&file).display().to_string();
        members.insert(inside, (0o644, std::fs::read(&file)?));
    }
    for (shell, file) in SHELLS {
        let text = said(Command::new(&parts.launcher).args(["completions", shell]))?;
        members.insert(format!("completions/{file}"), (0o644, text));
    }
    let pages = tempfile::tempdir()?;
    said(Command::new(&parts.launcher).arg("man").arg("--out").arg(pages.path()))?;
    for page in below(pages.path())? {
        let name = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
        members.insert(format!("man/man1/{name}"), (0o644, std::fs::read(&page)?));
    }
    members.insert("LICENSES-OF-OTHERS.txt".to_owned(), (0o644, licences(&parts.checkout)?.into_bytes()));
    let mut sums = String::new();
    for (name, (_, bytes)) in &members {
        let _ = writeln!(sums, "{}  {name}", sum(bytes)); // writing to a String cannot fail
    }
    members.insert("SHA256SUMS".to_owned(), (0o644, sums.into_bytes()));

    let gz = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let mut tar = tar::Builder::new(gz);
    for (name, (mode, bytes)) in members {
        let mut header = tar::Header::new_ustar();
        header.set_mode(mode);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, format!("{}/{name}", parts.name), bytes.as_slice())?;
    }
    tar.into_inner()?.finish()
}

/// SHA-256 in hexadecimal digits.
pub fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All files below a folder, ordered.
fn below(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(below(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

fn said(command: &mut Command) -> io::Result<Vec<u8>> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))))
}

/// Name, version and licence of every package that is in a binary of a release, and the texts that they come with.
fn licences(checkout: &Path) -> io::Result<String> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = ["metadata", "--format-version", "1", "--locked", "--filter-platform", &target];
    let metadata: Value = serde_json::from_slice(&said(Command::new(cargo).args(args).current_dir(checkout))?)?;
    let packages: BTreeMap<&str, &Value> =
        array(&metadata["packages"]).map(|package| (text(&package["id"]), package)).collect();
    let ours: BTreeSet<&str> = array(&metadata["workspace_members"]).map(text).collect();
    let needs: BTreeMap<&str, Vec<&str>> = array(&metadata["resolve"]["nodes"])
        .map(|node| {
            let built = |dep: &&Value| array(&dep["dep_kinds"]).any(|kind| kind["kind"].is_null());
            (text(&node["id"]), array(&node["deps"]).filter(built).map(|dep| text(&dep["pkg"])).collect())
        })
        .collect();
    let mut found: BTreeSet<&str> = ours.clone();
    let mut queue: VecDeque<&str> = ours.iter().copied().collect();
    while let Some(id) = queue.pop_front() {
        for need in needs.get(id).into_iter().flatten() {
            if found.insert(need) {
                queue.push_back(need);
            }
        }
    }
    let mut list = String::from("The binaries of this release hold these packages.\n\n");
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in found.difference(&ours).filter_map(|id| packages.get(id)) {
        let name = format!("{} {}", text(&package["name"]), text(&package["version"]));
        let licence = package["license"].as_str().unwrap_or("see its text below");
        let _ = writeln!(list, "{name}  {licence}"); // writing to a String cannot fail
        let folder = Path::new(text(&package["manifest_path"])).parent().unwrap_or(Path::new("/"));
        for entry in std::fs::read_dir(folder)?.flatten() {
            let file = entry.file_name().to_string_lossy().to_uppercase();
            let starts = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
            if entry.path().is_file() && starts.iter().any(|start| file.starts_with(start)) {
                let words = String::from_utf8_lossy(&std::fs::read(entry.path())?).trim().to_owned();
                texts.entry(words).or_default().push(name.clone());
            }
        }
    }
    for (words, mut names) in texts {
        names.sort();
        names.dedup();
        let _ = write!(list, "\n{}\n{}\n\n{words}\n", "=".repeat(80), names.join(", ")); // as above
    }
    Ok(list)
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
