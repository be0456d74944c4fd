//! Paths inside a workspace: relative, of plain components, with a limit. A path that exists cannot lead out of the
//! tree by its own text; links on the way are the business of `host_tree`.

use crate::workspace::printable;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// Bytes a path may have.
pub const PATH_BYTES_MAX: usize = 4096;
/// Bytes a component may have.
pub const NAME_BYTES_MAX: usize = 255;

/// A path below the top of a workspace. Its order puts a directory before what is in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TreePath(Vec<u8>);

/// Why bytes are not a path inside a workspace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a path inside the workspace: {reason}", printable::line(path))]
pub struct NotAPath {
    path: Vec<u8>,
    reason: &'static str,
}

impl TreePath {
    /// Reads a relative path. Errors: empty, absolute, too long, a NUL, a component that is empty, `.` or `..`.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAPath> {
        let shown = &bytes[..bytes.len().min(PATH_BYTES_MAX)];
        let bad = |reason| NotAPath { path: shown.to_vec(), reason };
        if bytes.is_empty() {
            return Err(bad("it is empty"));
        }
        if bytes.len() > PATH_BYTES_MAX {
            return Err(bad("it is too long"));
        }
        if bytes.starts_with(b"/") {
            return Err(bad("it is absolute"));
        }
        if bytes.contains(&0) {
            return Err(bad("it has a NUL"));
        }
        for component in bytes.split(|b| *b == b'/') {
            match component {
                b"" | b"." => return Err(bad("it has an empty component")),
                b".." => return Err(bad("it has a \"..\"")),
                long if long.len() > NAME_BYTES_MAX => return Err(bad("a component is too long")),
                _ => {}
            }
        }
        Ok(Self(bytes.to_vec()))
    }

    /// The path's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its components, from the top.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }

    /// Its last component.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or(&self.0)
    }

    /// The directory it is in; `None` at the top.
    pub fn parent(&self) -> Option<Self> {
        let slash = self.0.iter().rposition(|b| *b == b'/')?;
        Some(Self(self.0[..slash].to_vec()))
    }

    /// The directories it is in, the nearest first.
    pub fn ancestors(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(self.parent(), Self::parent)
    }

    /// Is it below `directory`, at any depth?
    pub fn is_below(&self, directory: &Self) -> bool {
        self.0.strip_prefix(directory.as_bytes()).is_some_and(|rest| rest.starts_with(b"/"))
    }

    /// The part of it up to and with the first component that git, on any file system, may take for `.git`.
    pub fn git_part(&self) -> Option<Self> {
        let mut end = 0;
        for component in self.components() {
            end += component.len();
            if is_dot_git(component) {
                return Some(Self(self.0[..end].to_vec()));
            }
            end += 1;
        }
        None
    }

    /// As a relative path of the host.
    pub fn to_path(&self) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        PathBuf::from(std::ffi::OsStr::from_bytes(&self.0))
    }
}

/// May git take a name for `.git`? Case is folded, as are the spellings of NTFS (`git~1`, trailing dots and spaces,
/// streams) and the characters that HFS+ ignores.
pub fn is_dot_git(name: &[u8]) -> bool {
    let text: String = String::from_utf8_lossy(name)
        .chars()
        .filter(
            |c| !matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}'),
        )
        .collect::<String>()
        .to_ascii_lowercase();
    let stem = text.split([':', '\\']).next().unwrap_or_default().trim_end_matches([' ', '.']);
    stem == ".git" || stem.strip_prefix("git~").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable::line(&self.0))
    }
}

impl From<TreePath> for String {
    fn from(path: TreePath) -> Self {
        encode(&path.0)
    }
}

impl TryFrom<String> for TreePath {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&decode(&text)?).map_err(|e| e.to_string())
    }
}

/// Any bytes as text: what is not UTF-8, and `%`, becomes `%XX`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&chunk.valid().replace('%', "%25"));
        for byte in chunk.invalid() {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The inverse of [`encode`].
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, String> {
    let mut parts = text.as_bytes().split(|b| *b == b'%');
    let mut out = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        let hex = part.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte =
            hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()).ok_or("a \"%\" is not followed by two digits")?;
        out.push(byte);
        out.extend_from_slice(&part[2..]);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_or_refused_with_the_reason() {
        for (given, expected) in [
            (&b"a/b c/d"[..], None),
            (b"..a/b..", None),
            (b"\xff/x", None),
            (b"", Some("empty")),
            (b"/etc/passwd", Some("absolute")),
            (b"a/../b", Some("\"..\"")),
            (b"..", Some("\"..\"")),
            (b"a//b", Some("empty component")),
            (b"a/./b", Some("empty component")),
            (b"a/", Some("empty component")),
            (b"a\0b", Some("NUL")),
            (&[b'a'; 300], Some("component is too long")),
            (&b"ab/".repeat(2000), Some("too long")),
        ] {
            match (TreePath::parse(given), expected) {
                (Ok(path), None) => assert_eq!(path.as_bytes(), given),
                (Err(error), Some(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, _) => panic!("{given:?}: {got:?}"),
            }
        }
    }

    #[test]
    fn names_that_git_may_take_for_its_own_are_seen_and_their_neighbours_are_not() {
        for name in
            [".git", ".GIT", ".Git", "git~1", "GIT~2", ".git.", ".git ", ".git::$INDEX_ALLOCATION", ".g\u{200c}it"]
        {
            assert!(is_dot_git(name.as_bytes()), "{name:?}");
        }
        for name in [".github", ".gitignore", ".gitmodules", "git", "dot.git", "git~", "git~x", "..git"] {
            assert!(!is_dot_git(name.as_bytes()), "{name:?}");
        }
        let path = TreePath::parse(b"sub/.GIT/hooks/x").unwrap();
        assert_eq!(path.git_part().unwrap().as_bytes(), b"sub/.GIT");
        assert!(TreePath::parse(b".github/workflows/x").unwrap().git_part().is_none());
    }

    #[test]
    fn any_bytes_survive_being_written_as_json() {
        for bytes in [&b"plain"[..], b"per%cent", b"\xff\xfe/x", "ä/ö".as_bytes()] {
            let path = TreePath::parse(bytes).unwrap();
            let json = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<TreePath>(&json).unwrap(), path, "{json}");
        }
        assert!(serde_json::from_str::<TreePath>("\"../x\"").is_err());
        assert!(serde_json::from_str::<TreePath>("\"a%2\"").is_err());
    }
}
