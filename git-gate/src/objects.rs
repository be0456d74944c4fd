//! What git's objects say: the entries of a tree, the tree and parents of a commit, the target of a tag.
//! Strict where git's readers could differ from one another, silent about what only `git fsck` minds: the upstream has
//! its own opinion on that. These parsers never allocate by what the bytes claim and never panic.

use gix_hash::ObjectId;
use memchr::memchr2;

/// The four kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// Who, when, why, a tree and parents.
    Commit,
    /// Names and what they stand for.
    Tree,
    /// The content of a file, or of a symbolic link.
    Blob,
    /// An annotated tag.
    Tag,
}

impl ObjectKind {
    /// The word that git hashes in front of the content.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
            Self::Tag => "tag",
        }
    }
}

/// An object that does not have the form of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no well-formed {}: {what}", .kind.name())]
pub struct Malformed {
    /// What it should be.
    pub kind: ObjectKind,
    /// What is wrong, in a few words.
    pub what: &'static str,
}

/// One line of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeEntry<'a> {
    /// The mode as git writes it, for example `0o100644`.
    pub mode: u32,
    /// The name; without NUL and slash, not empty, otherwise any bytes.
    pub name: &'a [u8],
    /// What it stands for.
    pub oid: ObjectId,
}

impl TreeEntry<'_> {
    /// Whether it stands for a tree.
    #[must_use]
    pub fn is_tree(&self) -> bool {
        self.mode & 0o170_000 == 0o040_000
    }

    /// Whether it stands for a commit of another repository (a submodule), which is in no pack.
    #[must_use]
    pub fn is_submodule(&self) -> bool {
        self.mode & 0o170_000 == 0o160_000
    }
}

/// Reads a tree from its front to its end, one entry a step; ends at the first error.
#[derive(Debug, Clone)]
pub struct TreeEntries<'a> {
    rest: &'a [u8],
    format: gix_hash::Kind,
}

impl<'a> TreeEntries<'a> {
    /// The entries of a tree's `content`.
    #[must_use]
    pub fn new(content: &'a [u8], format: gix_hash::Kind) -> Self {
        Self { rest: content, format }
    }

    /// What was not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The names alone, which is all that a scan wants.
    pub fn names(mut self) -> impl Iterator<Item = Result<&'a [u8], Malformed>> {
        std::iter::from_fn(move || self.step(|this| Ok(this.parts()?.1)))
    }

    /// Mode, name and object of the next entry, which is then behind.
    fn parts(&mut self) -> Result<(u32, &'a [u8], &'a [u8]), &'static str> {
        let space = self.rest.iter().take(8).position(|byte| *byte == b' ').ok_or("an entry has no mode")?;
        let (mode, rest) = self.rest.split_at(space);
        let mode = mode_of(mode)?;
        let end = memchr2(0, b'/', rest).ok_or("a name has no end")?;
        if rest[end] == b'/' {
            return Err("a name has a slash");
        }
        let name = &rest[1..end];
        if name.is_empty() {
            return Err("a name is empty");
        }
        let (oid, rest) = rest[end + 1..].split_at_checked(self.format.len_in_bytes()).ok_or("it ends in an entry")?;
        self.rest = rest;
        Ok((mode, name, oid))
    }

    fn entry(&mut self) -> Result<TreeEntry<'a>, &'static str> {
        let (mode, name, oid) = self.parts()?;
        let oid = ObjectId::try_from(oid).map_err(|_| "an entry has no object")?;
        Ok(TreeEntry { mode, name, oid })
    }

    fn step<T>(&mut self, one: impl FnOnce(&mut Self) -> Result<T, &'static str>) -> Option<Result<T, Malformed>> {
        if self.rest.is_empty() {
            return None;
        }
        Some(one(self).map_err(|what| {
            self.rest = &[];
            Malformed { kind: ObjectKind::Tree, what }
        }))
    }
}

impl<'a> Iterator for TreeEntries<'a> {
    type Item = Result<TreeEntry<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(Self::entry)
    }
}

/// One to six octal digits that name a tree, a file, a link or a submodule.
fn mode_of(digits: &[u8]) -> Result<u32, &'static str> {
    if !(5..=6).contains(&digits.len()) {
        return Err("a mode has not five or six digits");
    }
    let mode = digits.iter().try_fold(0u32, |mode, digit| match digit {
        b'0'..=b'7' => Ok(mode << 3 | u32::from(digit - b'0')),
        _ => Err("a mode is not octal"),
    })?;
    match mode & 0o170_000 {
        0o040_000 | 0o100_000 | 0o120_000 | 0o160_000 => Ok(mode),
        _ => Err("a mode is of no known type"),
    }
}

/// The header lines of a commit that name other objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its root tree.
    pub tree: ObjectId,
    /// Its parents, in order.
    pub parents: Vec<ObjectId>,
}

impl Commit {
    /// Reads the `tree` line and the `parent` lines that follow it directly; later ones are text to git, and here.
    ///
    /// # Errors
    /// When the commit does not start so, or an `author` and a `committer` line do not follow.
    pub fn parse(content: &[u8], format: gix_hash::Kind) -> Result<Self, Malformed> {
        let bad = |what| Malformed { kind: ObjectKind::Commit, what };
        let (tree, mut rest) = oid_line(content, b"tree ", format).ok_or(bad("it does not start with its tree"))?;
        let mut parents = Vec::new();
        while rest.starts_with(b"parent ") {
            let (parent, after) = oid_line(rest, b"parent ", format).ok_or(bad("a parent is not an object name"))?;
            parents.push(parent);
            rest = after;
        }
        let rest = text_line(rest, b"author ").ok_or(bad("its author does not follow its parents"))?;
        text_line(rest, b"committer ").ok_or(bad("its committer does not follow its author"))?;
        Ok(Self { tree, parents })
    }
}

/// What an annotated tag is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag {
    /// The object.
    pub object: ObjectId,
    /// Its kind, as the tag says.
    pub kind: ObjectKind,
}

impl Tag {
    /// Reads the `object` and `type` lines.
    ///
    /// # Errors
    /// When the tag does not start so, or its `tag` line does not follow.
    pub fn parse(content: &[u8], format: gix_hash::Kind) -> Result<Self, Malformed> {
        let bad = |what| Malformed { kind: ObjectKind::Tag, what };
        let (object, rest) = oid_line(content, b"object ", format).ok_or(bad("it does not start with its object"))?;
        let rest = rest.strip_prefix(b"type ").ok_or(bad("its type does not follow its object"))?;
        let end = rest.iter().take(8).position(|byte| *byte == b'\n').ok_or(bad("its type is none"))?;
        let kind = match &rest[..end] {
            b"commit" => ObjectKind::Commit,
            b"tree" => ObjectKind::Tree,
            b"blob" => ObjectKind::Blob,
            b"tag" => ObjectKind::Tag,
            _ => return Err(bad("its type is none")),
        };
        text_line(&rest[end + 1..], b"tag ").ok_or(bad("its name does not follow its type"))?;
        Ok(Self { object, kind })
    }
}

/// Whether `content` has the form of its kind. Blobs have none.
///
/// # Errors
/// What is wrong.
pub fn check(kind: ObjectKind, content: &[u8], format: gix_hash::Kind) -> Result<(), Malformed> {
    match kind {
        ObjectKind::Blob => Ok(()),
        ObjectKind::Tree => TreeEntries::new(content, format).names().try_for_each(|name| name.map(drop)),
        ObjectKind::Commit => Commit::parse(content, format).map(drop),
        ObjectKind::Tag => Tag::parse(content, format).map(drop),
    }
}

/// `key`, an object name in lower-case hex, a line feed; and what follows.
fn oid_line<'a>(content: &'a [u8], key: &[u8], format: gix_hash::Kind) -> Option<(ObjectId, &'a [u8])> {
    let (hex, rest) = content.strip_prefix(key)?.split_at_checked(format.len_in_hex())?;
    if !hex.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    Some((ObjectId::from_hex(hex).ok()?, rest.strip_prefix(b"\n")?))
}

/// What follows a line that starts with `key`.
fn text_line<'a>(content: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let rest = content.strip_prefix(key)?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    Some(&rest[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use gix_hash::Kind;

    const OID: [u8; 20] = [0xab; 20];
    const HEX: &str = "abababababababababababababababababababab";

    fn tree(content: &[u8]) -> Result<Vec<TreeEntry<'_>>, &'static str> {
        TreeEntries::new(content, Kind::Sha1).map(|entry| entry.map_err(|error| error.what)).collect()
    }

    fn line(head: &[u8]) -> Vec<u8> {
        [head, &OID].concat()
    }

    #[test]
    fn trees() {
        let content =
            [line(b"100644 a b\n\xff\0"), line(b"40000 folder\0"), line(b"160000 module\0"), line(b"040000 old\0")];
        let content = content.concat();
        let entries = tree(&content).unwrap();
        let names: Vec<_> = entries.iter().map(|entry| (entry.name, entry.is_tree(), entry.is_submodule())).collect();
        let folder: &[u8] = b"folder";
        assert_eq!(
            names,
            [(&b"a b\n\xff"[..], false, false), (folder, true, false), (b"module", false, true), (b"old", true, false)]
        );
        assert!(entries.iter().all(|entry| entry.oid.as_slice() == OID));
        assert_eq!(tree(b"").unwrap(), []);
        for (content, what) in [
            (line(b"100644 \0"), "a name is empty"),
            (line(b"100644 a/b\0"), "a name has a slash"),
            (line(b"100644\0"), "an entry has no mode"),
            (line(b"0100644 a\0"), "a mode has not five or six digits"),
            (line(b" a\0"), "a mode has not five or six digits"),
            (line(b"10064 a\0"), "a mode is of no known type"),
            (line(b"100648 a\0"), "a mode is not octal"),
            (line(b"+40000 a\0"), "a mode is not octal"),
            (line(b"020000 a\0"), "a mode is of no known type"),
            (b"100644 endless".to_vec(), "a name has no end"),
            (line(b"100644 a\0")[..28].to_vec(), "it ends in an entry"),
            ([line(b"100644 a\0"), b"1".to_vec()].concat(), "an entry has no mode"),
        ] {
            assert_eq!(tree(&content), Err(what), "{content:?}");
        }
        let mut bad = TreeEntries::new(b"bad", Kind::Sha1);
        assert!(bad.next().unwrap().is_err());
        assert!(bad.next().is_none(), "it goes on after an error");
        assert_eq!(
            TreeEntries::new(&line(b"100644 a\0"), Kind::Sha256).next().unwrap().unwrap_err().what,
            "it ends in an entry"
        );
    }

    #[test]
    fn commits() {
        let who = "A <a@example.org> 1 +0000";
        let commit = |text: &str| Commit::parse(text.as_bytes(), Kind::Sha1).map_err(|error| error.what);
        let one = commit(&format!(
            "tree {HEX}\nparent {HEX}\nparent {HEX}\nauthor {who}\ncommitter {who}\nparent {HEX}\n\nwords\nparent {HEX}\n"
        ));
        assert_eq!(one.unwrap().parents.len(), 2, "only the lines right behind the tree are parents");
        assert!(commit(&format!("tree {HEX}\nauthor {who}\ncommitter {who}\n")).unwrap().parents.is_empty());
        for (text, what) in [
            (String::new(), "it does not start with its tree"),
            (format!("tree {HEX}"), "it does not start with its tree"),
            (format!("tree {}\n", &HEX[1..]), "it does not start with its tree"),
            (format!("tree {}\n", HEX.to_uppercase()), "it does not start with its tree"),
            (format!("tree {HEX}{HEX}\n"), "it does not start with its tree"),
            (format!("tree {HEX}\nparent x\n"), "a parent is not an object name"),
            (format!("tree {HEX}\nparent {HEX} \n"), "a parent is not an object name"),
            (format!("tree {HEX}\ncommitter {who}\n"), "its author does not follow its parents"),
            (format!("tree {HEX}\n\nauthor {who}\n"), "its author does not follow its parents"),
            (format!("tree {HEX}\nauthor {who}"), "its author does not follow its parents"),
            (format!("tree {HEX}\nauthor {who}\n\n"), "its committer does not follow its author"),
        ] {
            assert_eq!(commit(&text), Err(what), "{text}");
        }
    }

    #[test]
    fn tags() {
        let tag = |text: &str| Tag::parse(text.as_bytes(), Kind::Sha1).map_err(|error| error.what);
        for (word, kind) in [
            ("commit", ObjectKind::Commit),
            ("tree", ObjectKind::Tree),
            ("blob", ObjectKind::Blob),
            ("tag", ObjectKind::Tag),
        ] {
            assert_eq!(tag(&format!("object {HEX}\ntype {word}\ntag v1\n\n")).unwrap().kind, kind);
        }
        for (text, what) in [
            (String::new(), "it does not start with its object"),
            (format!("object {HEX}\ntag v1\n"), "its type does not follow its object"),
            (format!("object {HEX}\ntype bolb\ntag v1\n"), "its type is none"),
            (format!("object {HEX}\ntype {HEX}\ntag v1\n"), "its type is none"),
            (format!("object {HEX}\ntype blob"), "its type is none"),
            (format!("object {HEX}\ntype blob\ntagger A\n"), "its name does not follow its type"),
            (format!("object {HEX}\ntype blob\n"), "its name does not follow its type"),
        ] {
            assert_eq!(tag(&text), Err(what), "{text}");
        }
    }
}
