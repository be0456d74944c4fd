//! What may be pushed: ref names as git allows them, the operator's globs, force, delete and size. PURE.

use crate::config::Push;

/// A full ref name that git would accept (git-check-ref-format(1)), below `refs/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RefName(String);

impl RefName {
    /// Reads a ref's name; stricter than git in that it must be UTF-8, so that every message can show it.
    pub fn parse(bytes: &[u8], bytes_max: u64) -> Option<Self> {
        let name = std::str::from_utf8(bytes).ok()?;
        let rest = name.strip_prefix("refs/")?;
        let is_bad = |char: char| char.is_control() || matches!(char, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
        let whole = name.len() as u64 <= bytes_max
            && !name.chars().any(is_bad)
            && !name.contains("..")
            && !name.contains("@{")
            && !name.ends_with('.');
        let segment = |segment: &str| !segment.is_empty() && !segment.starts_with('.') && !segment.ends_with(".lock");
        (whole && rest.split('/').all(segment)).then(|| Self(name.to_owned()))
    }

    /// As it goes over the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Must it be forced to change at all, as git's own client has it?
    pub fn is_tag(&self) -> bool {
        self.0.starts_with("refs/tags/")
    }
}

impl std::fmt::Display for RefName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a push wants of a ref, as far as policy must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Create,
    /// It moves. Whether forward is known only when the pack is there.
    Update,
    /// It goes.
    Delete,
}

/// Why a ref may not be pushed; the words go to the agent, behind the ref's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No glob matches.
    #[error("ref not allowed by git-gate")]
    Ref,
    /// Deletes are not allowed.
    #[error("delete not allowed by git-gate")]
    Delete,
    /// A tag moves, and force is not allowed.
    #[error("moving a tag is not allowed by git-gate")]
    Tag,
    /// Not a fast-forward, and force is not allowed.
    #[error("non-fast-forward not allowed by git-gate")]
    NotForward,
    /// Nobody could tell whether it is a fast-forward.
    #[error("git-gate cannot tell whether this is a fast-forward")]
    ForwardUnknown,
}

/// What may be pushed to one remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    refs: Vec<String>,
    force: bool,
    delete: bool,
    /// The largest pack in bytes.
    pub pack_bytes_max: u64,
}

/// Why a policy cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// It could never match.
    #[error("`{0}` is no full ref name with `*` in it, such as `refs/heads/agent/*`")]
    Glob(String),
    /// Not even the empty pack.
    #[error("max_pack is less than 32 bytes, which even an empty pack has")]
    MaxPack,
}

impl Policy {
    /// Reads a remote's `push`.
    pub fn parse(push: &Push, pack_bytes_max: u64) -> Result<Self, PolicyError> {
        for glob in &push.refs {
            // With a letter for each star it must be a name.
            if RefName::parse(glob.replace('*', "x").as_bytes(), 1024).is_none() {
                return Err(PolicyError::Glob(glob.clone()));
            }
        }
        let pack_bytes_max = push.max_pack.map_or(pack_bytes_max, |max| max.min(pack_bytes_max));
        if pack_bytes_max < 32 {
            return Err(PolicyError::MaxPack);
        }
        Ok(Self { refs: push.refs.clone(), force: push.force, delete: push.delete, pack_bytes_max })
    }

    /// May deletes be offered at all?
    pub fn deletes(&self) -> bool {
        self.delete
    }

    /// May this ref change so, as far as its name and the kind of change tell?
    pub fn check(&self, name: &RefName, change: Change) -> Result<(), Denied> {
        if !self.refs.iter().any(|glob| matches(glob.as_bytes(), name.0.as_bytes())) {
            return Err(Denied::Ref);
        }
        match change {
            Change::Delete if !self.delete => Err(Denied::Delete),
            Change::Update if !self.force && name.is_tag() => Err(Denied::Tag),
            Change::Create | Change::Update | Change::Delete => Ok(()),
        }
    }

    /// Must this change be shown to be a fast-forward?
    pub fn wants_forward(&self, change: Change) -> bool {
        !self.force && change == Change::Update
    }
}

/// `*` is any bytes; linear in both, however many stars there are.
fn matches(glob: &[u8], name: &[u8]) -> bool {
    let (mut g, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match glob.get(g) {
            Some(b'*') => {
                star = Some((g, n));
                g += 1;
            }
            Some(byte) if *byte == name[n] => {
                g += 1;
                n += 1;
            }
            _ => {
                // The last star takes one byte more.
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                g = at + 1;
                n = taken + 1;
            }
        }
    }
    glob[g..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ref_names_and_their_refused_neighbours() {
        for good in [
            "refs/heads/main",
            "refs/heads/a/b.c-d_e",
            "refs/tags/v1.0",
            "refs/notes/commits",
            "refs/heads/\u{e4}",
            "refs/heads/a@b",
            "refs/for/main%topic=x",
            "refs/x",
        ] {
            assert!(RefName::parse(good.as_bytes(), 1024).is_some(), "{good}");
        }
        for bad in [
            "HEAD",
            "heads/main",
            "refs/",
            "refs",
            "refs//a",
            "refs/heads/",
            "refs/heads/../../x",
            "refs/heads/a..b",
            "refs/heads/.a",
            "refs/heads/a.lock",
            "refs/heads/a.lock/b",
            "refs/heads/a.",
            "refs/heads/a@{1}",
            "refs/heads/a b",
            "refs/heads/a~1",
            "refs/heads/a^",
            "refs/heads/a:b",
            "refs/heads/a?",
            "refs/heads/*",
            "refs/heads/[a]",
            "refs/heads/a\\b",
            "refs/heads/a\nb",
            "refs/heads/a\x1b[2J",
            "refs/heads/a\x7f",
            "refs/heads/a\0b",
            "",
        ] {
            assert!(RefName::parse(bad.as_bytes(), 1024).is_none(), "{bad:?}");
        }
        assert!(RefName::parse(b"refs/heads/\xff", 1024).is_none());
        let long = format!("refs/heads/{}", "a".repeat(1013));
        assert!(RefName::parse(long.as_bytes(), 1024).is_some());
        assert!(RefName::parse(format!("{long}a").as_bytes(), 1024).is_none());
    }

    fn policy(refs: &[&str], force: bool, delete: bool) -> Policy {
        let refs = refs.iter().map(|glob| (*glob).to_owned()).collect();
        Policy::parse(&Push { refs, force, delete, max_pack: None }, 1000).unwrap()
    }

    #[test]
    fn globs_force_and_delete() {
        use Change::{Create, Delete, Update};
        let agent: &[&str] = &["refs/heads/agent/*", "refs/tags/*-rc"];
        for (refs, force, delete, name, change, wanted) in [
            (agent, false, false, "refs/heads/agent/a", Create, Ok(())),
            (agent, false, false, "refs/heads/agent/a/b", Create, Ok(())),
            (agent, false, false, "refs/heads/agent/a", Update, Ok(())),
            (agent, false, false, "refs/heads/agent/a", Delete, Err(Denied::Delete)),
            (agent, false, true, "refs/heads/agent/a", Delete, Ok(())),
            (agent, false, true, "refs/heads/main", Delete, Err(Denied::Ref)),
            (agent, true, true, "refs/heads/main", Update, Err(Denied::Ref)),
            (agent, true, true, "refs/heads/agents/a", Create, Err(Denied::Ref)),
            (agent, true, true, "refs/heads/agent", Create, Err(Denied::Ref)),
            (agent, false, false, "refs/tags/v1-rc", Create, Ok(())),
            (agent, false, false, "refs/tags/v1-rc", Update, Err(Denied::Tag)),
            (agent, true, false, "refs/tags/v1-rc", Update, Ok(())),
            (agent, true, false, "refs/tags/v1", Create, Err(Denied::Ref)),
            (&[], true, true, "refs/heads/a", Create, Err(Denied::Ref)),
        ] {
            let name = RefName::parse(name.as_bytes(), 1024).unwrap();
            assert_eq!(policy(refs, force, delete).check(&name, change), wanted, "{name} {change:?}");
        }
        assert!(policy(&[], false, false).wants_forward(Update));
        assert!(!policy(&[], false, false).wants_forward(Create));
        assert!(!policy(&[], true, false).wants_forward(Update));
    }

    #[test]
    fn globs_match_as_in_a_refspec() {
        for (glob, name, wanted) in [
            ("refs/heads/main", "refs/heads/main", true),
            ("refs/heads/main", "refs/heads/main2", false),
            ("refs/*", "refs/heads/a/b", true),
            ("refs/*/x", "refs/a/b/x", true),
            ("refs/*/x", "refs/x", false),
            ("refs/*a*b*c", "refs/aXbXbXc", true),
            ("refs/*a*b*c", "refs/aXbXbX", false),
        ] {
            assert_eq!(matches(glob.as_bytes(), name.as_bytes()), wanted, "{glob} {name}");
        }
    }

    #[test]
    fn what_is_no_policy() {
        for glob in ["main", "heads/*", "refs/heads/", "refs/../*", "*", "refs/heads/a b"] {
            let push = Push { refs: vec![glob.into()], ..Push::default() };
            assert_eq!(Policy::parse(&push, 1000), Err(PolicyError::Glob(glob.into())), "{glob}");
        }
        let push = Push { max_pack: Some(10), ..Push::default() };
        assert_eq!(Policy::parse(&push, 1000), Err(PolicyError::MaxPack));
        let push = Push { max_pack: Some(5000), ..Push::default() };
        assert_eq!(Policy::parse(&push, 1000).unwrap().pack_bytes_max, 1000);
    }
}
