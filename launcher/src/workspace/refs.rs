//! Branches and tags of a repository, read from its files by strict rules. It never asks git, and a name that git's own
//! rules refuse is refused here.

use crate::workspace::tree_path::TreePath;
use std::collections::BTreeMap;

/// Bytes of `packed-refs` that are read.
pub const PACKED_BYTES_MAX: u64 = 16 << 20;
/// Bytes of any other file of refs that are read.
pub const LOOSE_BYTES_MAX: u64 = 1 << 10;
/// Bytes a ref's name may have.
pub const NAME_BYTES_MAX: usize = 400;
/// Branches and tags a repository may have.
pub const REFS_MAX: usize = 100_000;

/// Branches and tags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refs {
    /// Full name (`refs/heads/…`, `refs/tags/…`) -> object id in hexadecimal digits.
    pub ids: BTreeMap<String, String>,
    /// The commit that HEAD holds when no branch is checked out.
    pub detached: Option<String>,
    /// What could not be read, and why.
    pub bad: Vec<(String, String)>,
    /// Why commits of this repository cannot be read at all.
    pub unreadable: Option<&'static str>,
}

/// Does this file of a workspace say where its repository's branches and tags are?
pub fn is_ref_file(path: &TreePath) -> bool {
    let bytes = path.as_bytes();
    matches!(bytes, b".git/HEAD" | b".git/packed-refs")
        || bytes.starts_with(b".git/refs/heads/")
        || bytes.starts_with(b".git/refs/tags/")
}

/// Bytes of a file of refs that are read, one more than is taken.
pub fn bytes_max(path: &TreePath) -> u64 {
    1 + if path.as_bytes() == b".git/packed-refs" { PACKED_BYTES_MAX } else { LOOSE_BYTES_MAX }
}

impl Refs {
    /// Reads the files for which [`is_ref_file`] holds. A loose ref wins over a packed one, as in git.
    pub fn parse(files: &BTreeMap<TreePath, Vec<u8>>) -> Self {
        let mut refs = Self::default();
        for (path, content) in files {
            match path.as_bytes() {
                b".git/packed-refs" => refs.packed(content),
                b".git/HEAD" => refs.detached = parse_id(content.trim_ascii_end()).ok(),
                _ => {}
            }
        }
        for (path, content) in files {
            if let Some(name) = path.as_bytes().strip_prefix(b".git/")
                && name.starts_with(b"refs/")
            {
                refs.add(name, content.trim_ascii_end());
            }
        }
        refs
    }

    fn packed(&mut self, content: &[u8]) {
        if content.len() as u64 > PACKED_BYTES_MAX {
            self.unreadable = Some("its packed-refs is too large");
            return;
        }
        for line in content.split(|b| *b == b'\n') {
            if line.is_empty() || line.starts_with(b"#") || line.starts_with(b"^") {
                continue;
            }
            let mut parts = line.splitn(2, |b| *b == b' ');
            if let (Some(id), Some(name)) = (parts.next(), parts.next())
                && (name.starts_with(b"refs/heads/") || name.starts_with(b"refs/tags/"))
            {
                self.add(name, id);
            }
        }
    }

    fn add(&mut self, name: &[u8], id: &[u8]) {
        if self.ids.len() + self.bad.len() >= REFS_MAX {
            self.unreadable = Some("it has too many branches and tags");
            return;
        }
        // Symbolic refs among branches are names of other branches.
        if id.starts_with(b"ref: ") {
            return;
        }
        let shown = crate::workspace::printable::line(&name[..name.len().min(NAME_BYTES_MAX)]);
        match (parse_name(name), parse_id(id)) {
            (Ok(name), Ok(id)) => {
                self.ids.insert(name, id);
            }
            (Err(why), _) => self.bad.push((shown, why)),
            (_, Err(Bad::Sha256)) => self.unreadable = Some("it names objects by SHA-256"),
            (_, Err(Bad::NoId)) => self.bad.push((shown, "it does not hold an object id".to_owned())),
        }
    }
}

enum Bad {
    Sha256,
    NoId,
}

fn parse_id(text: &[u8]) -> Result<String, Bad> {
    let hex = text.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match (hex, text.len(), std::str::from_utf8(text)) {
        (true, 40, Ok(id)) if id.bytes().any(|b| b != b'0') => Ok(id.to_owned()),
        (true, 64, _) => Err(Bad::Sha256),
        _ => Err(Bad::NoId),
    }
}

/// Reads a full ref name by git's rules, and ours: text, and not too long.
pub fn parse_name(name: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(name).map_err(|_| "its name is not UTF-8".to_owned())?;
    if text.len() > NAME_BYTES_MAX {
        return Err("its name is too long".to_owned());
    }
    // What a file system may fold into another name, and what a terminal may act on, has no place in a ref.
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    if text.chars().any(odd) {
        return Err("its name has characters that do not show".to_owned());
    }
    let component = |c: &str| {
        c.is_empty()
            || c.starts_with(['.', '-'])
            || c.ends_with('.')
            || c.to_ascii_lowercase().ends_with(".lock")
            || c.len() > 200
    };
    if text.split('/').any(component) {
        return Err("its name is not one that git takes".to_owned());
    }
    gix_ref::FullName::try_from(text).map_err(|e| crate::workspace::printable::line(e.to_string().as_bytes()))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef01234567";

    fn parsed(files: &[(&str, &str)]) -> Refs {
        let files =
            files.iter().map(|(p, c)| (TreePath::parse(p.as_bytes()).unwrap(), c.as_bytes().to_vec())).collect();
        Refs::parse(&files)
    }

    #[test]
    fn loose_refs_win_over_packed_ones() {
        let other = ID.replace('0', "9");
        let packed = format!(
            "# pack-refs with: peeled\n{other} refs/heads/main\n{ID} refs/tags/v1\n^{other}\n{ID} refs/remotes/o/x\n"
        );
        let refs = parsed(&[
            (".git/HEAD", "ref: refs/heads/main\n"),
            (".git/packed-refs", &packed),
            (".git/refs/heads/main", &format!("{ID}\n")),
        ]);
        let ids: Vec<_> = refs.ids.iter().map(|(n, i)| (n.as_str(), i.as_str())).collect();
        assert_eq!(ids, [("refs/heads/main", ID), ("refs/tags/v1", ID)]);
        assert_eq!((refs.detached, refs.bad, refs.unreadable), (None, vec![], None));
    }

    #[test]
    fn names_are_taken_or_refused_by_gits_rules() {
        for name in ["refs/heads/main", "refs/heads/agent/fix-1", "refs/tags/v1.0", "refs/heads/ä"] {
            assert!(parse_name(name.as_bytes()).is_ok(), "{name}");
        }
        for name in [
            "refs/heads/../../hooks/x",
            "refs/heads/a..b",
            "refs/heads/.a",
            "refs/heads/a.lock",
            "refs/heads/a.LOCK/b",
            "refs/heads/a b",
            "refs/heads/a~1",
            "refs/heads//a",
            "refs/heads/",
            "refs/heads/-x",
            "refs/heads/a\u{7}",
            "refs/heads/a@{1}",
            "refs/heads/a\\b",
            "refs/heads/a\u{202e}b",
            "refs/heads/a.",
        ] {
            assert!(parse_name(name.as_bytes()).is_err(), "{name}");
        }
        assert!(parse_name(b"refs/heads/\xff").is_err());
    }

    #[test]
    fn what_is_no_id_is_named_and_a_sha256_repository_is_said() {
        let refs = parsed(&[(".git/refs/heads/a", "../../x"), (".git/refs/heads/b", ID)]);
        assert_eq!(refs.bad.len(), 1);
        assert_eq!(refs.ids.len(), 1);
        let refs = parsed(&[(".git/refs/heads/a", &"ab".repeat(32))]);
        assert!(refs.unreadable.unwrap().contains("SHA-256"));
        assert_eq!(parsed(&[(".git/HEAD", ID)]).detached.as_deref(), Some(ID));
    }
}
