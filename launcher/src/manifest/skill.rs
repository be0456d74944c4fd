//! Skills: folders of the user's with a `SKILL.md` and what it needs, which an agent finds where its kind looks for them.

use super::error::{path, quoted};
use super::name::Name;
use super::places::Places;
use super::reader::texts;
use super::report::Report;
use super::tree::Entry;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Files of one skill.
const FILES_MAX: usize = 500;

/// Bytes of one skill.
const BYTES_MAX: u64 = 8 << 20;

/// Folders inside one another.
const DEPTH_MAX: usize = 8;

/// The file that makes a folder a skill.
const HEAD: &str = "SKILL.md";

/// A skill, as it was when the manifests were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skill {
    /// Its name, which is also its folder's.
    pub name: String,
    /// Where it was found.
    pub folder: PathBuf,
    /// Its files, ordered by path.
    pub files: Vec<SkillFile>,
}

/// A file of a skill.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkillFile {
    /// Relative to the skill's folder, with slashes.
    pub path: String,
    /// May the agent run it?
    pub executable: bool,
    /// What is in it.
    #[serde(with = "base64_bytes")]
    pub content: Vec<u8>,
}

/// Reads a list of names of skills, and the skills.
pub(super) fn read(entry: Option<&Entry>, places: &Places, report: &mut Report) -> Vec<Skill> {
    let Some(entry) = entry else { return Vec::new() };
    let mut skills: Vec<Skill> = Vec::new();
    for written in texts(&entry.value, "`skills`", report) {
        let name = match Name::parse(&written.text) {
            Ok(name) => name,
            Err(error) => {
                report.error(written.at, error.to_string());
                continue;
            }
        };
        if skills.iter().any(|skill| skill.name == name.as_str()) {
            continue;
        }
        let folders = places.skills(&name);
        let Some(folder) = folders.iter().find(|folder| folder.join(HEAD).exists()) else {
            let looked: Vec<String> = folders.iter().map(|folder| path(&folder.join(HEAD))).collect();
            let message = format!("there is no skill `{}`", quoted(name.as_str()));
            report.error_with(written.at, message, format!("looked for {}", looked.join(" and ")));
            continue;
        };
        match files(folder) {
            Ok(files) => skills.push(Skill { name: name.to_string(), folder: folder.clone(), files }),
            Err(reason) => report.error(written.at, format!("the skill `{name}` cannot be used: {reason}")),
        }
    }
    skills
}

/// All files of a skill. A link inside it is refused: it could bring along any file of this machine.
fn files(folder: &Path) -> Result<Vec<SkillFile>, String> {
    let mut files = Vec::new();
    let mut left = BYTES_MAX;
    walk(folder, "", DEPTH_MAX, &mut left, &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn walk(folder: &Path, below: &str, depth: usize, left: &mut u64, files: &mut Vec<SkillFile>) -> Result<(), String> {
    let unreadable = |at: &Path, error: std::io::Error| format!("{} cannot be read: {error}", path(at));
    for entry in std::fs::read_dir(folder).map_err(|e| unreadable(folder, e))? {
        let at = entry.map_err(|e| unreadable(folder, e))?.path();
        let name = at.file_name().and_then(|name| name.to_str()).filter(|name| !name.contains(['\n', '\\']));
        let Some(name) = name else { return Err(format!("{} has a name that cannot come along", path(&at))) };
        let relative = format!("{below}{name}");
        let about = at.symlink_metadata().map_err(|e| unreadable(&at, e))?;
        if about.is_dir() && depth == 0 {
            return Err(format!("folders lie more than {DEPTH_MAX} deep at {}", path(&at)));
        } else if about.is_dir() {
            // What git keeps of a skill is of no use to an agent.
            if name != ".git" {
                walk(&at, &format!("{relative}/"), depth - 1, left, files)?;
            }
        } else if !about.is_file() {
            return Err(format!("{} is a link or no file; only files and folders come along", path(&at)));
        } else {
            if files.len() == FILES_MAX {
                return Err(format!("it has more than {FILES_MAX} files"));
            }
            let content = content(&at, *left).map_err(|e| unreadable(&at, e))?;
            *left =
                left.checked_sub(content.len() as u64).ok_or(format!("it is larger than {} MiB", BYTES_MAX >> 20))?;
            let executable = about.permissions().mode() & 0o100 != 0;
            files.push(SkillFile { path: relative, executable, content });
        }
    }
    Ok(())
}

/// What is in a file, and no more than a byte over `most` of it: what it says of its size is not what there is to read.
fn content(at: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(at)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

mod base64_bytes {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<u8>, D::Error> {
        BASE64_STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skill(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn a_skill_is_its_files_and_nothing_else() {
        let dir = skill(&[("SKILL.md", "# Review"), ("scripts/run.sh", "#!/bin/sh\n"), (".git/config", "[core]")]);
        let script = dir.path().join("scripts/run.sh");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let found = files(dir.path()).unwrap();
        let seen: Vec<_> = found.iter().map(|file| (file.path.as_str(), file.executable)).collect();
        assert_eq!(seen, [("SKILL.md", false), ("scripts/run.sh", true)]);
        let sent = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Vec<SkillFile>>(&sent).unwrap(), found);
    }

    #[test]
    fn a_file_that_is_more_than_it_says_is_read_to_the_limit_and_no_further() {
        // It says that it is empty, and has no end.
        let endless = Path::new("/dev/zero");
        assert_eq!(endless.metadata().unwrap().len(), 0);
        assert_eq!(content(endless, 1000).unwrap().len(), 1001);
        let dir = skill(&[("SKILL.md", "# Review")]);
        assert_eq!(content(&dir.path().join("SKILL.md"), 8).unwrap(), b"# Review");
        assert_eq!(content(&dir.path().join("SKILL.md"), 3).unwrap(), b"# Re");
    }

    #[test]
    fn what_could_bring_along_more_is_refused() {
        let dir = skill(&[("SKILL.md", "# Review")]);
        assert!(files(dir.path()).is_ok());
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("passwd")).unwrap();
        assert!(files(dir.path()).unwrap_err().contains("is a link or no file"));

        let dir = skill(&[("SKILL.md", "# Review"), ("a/b/c/d/e/f/g/h/i/deep.md", "")]);
        assert!(files(dir.path()).unwrap_err().contains("8 deep"));

        let dir = skill(&[("SKILL.md", "# Review")]);
        let large = std::fs::File::create(dir.path().join("large")).unwrap();
        large.set_len(BYTES_MAX - 8).unwrap();
        assert!(files(dir.path()).is_ok(), "as large as it may be");
        large.set_len(BYTES_MAX).unwrap();
        assert!(files(dir.path()).unwrap_err().contains("larger than 8 MiB"));

        let dir = skill(&[("SKILL.md", "# Review")]);
        for n in 1..=FILES_MAX {
            assert!(files(dir.path()).is_ok());
            std::fs::write(dir.path().join(format!("{n}.md")), "").unwrap();
        }
        assert!(files(dir.path()).unwrap_err().contains("more than 500 files"));
    }
}
