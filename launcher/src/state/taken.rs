//! What a saved workspace is compared with. At first that is what the agent was given; once an operator has taken the work of
//! one life, the next life begins with what both sides have since.

use super::{BottleDir, write_private};
use crate::workspace::Baseline;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The list of what an agent was given is never larger: two million paths of a workspace.
const BASELINE_BYTES_MAX: u64 = 2 << 30;

/// The file that says what was taken.
const TAKEN: &str = "taken.json";

impl BottleDir {
    /// What the saved work is compared with: what the agent was given, or had made of it when an operator took it in a life
    /// before. Of the life whose work was taken last it stays the same, so that it can be taken again.
    pub fn read_baseline(&self) -> io::Result<Baseline> {
        match self.taken()? {
            Some(taken) if taken.work != Work::of(&self.workspace())? => Ok(taken.settled),
            Some(_) | None => read_large(&self.baseline()),
        }
    }

    /// Notes that the saved work, compared with `baseline`, was taken, and what the next life's is compared with. Only for who
    /// holds the bottle's lock.
    pub fn write_taken(&self, baseline: &Baseline, settled: Baseline) -> io::Result<()> {
        let work = Work::of(&self.workspace())?;
        if self.taken()?.is_some_and(|taken| taken.work != work) {
            // What this life is compared with must not go with the note of the one before.
            write_private(&self.baseline(), &serde_json::to_vec(baseline)?)?;
        }
        write_private(&self.path.join(TAKEN), &serde_json::to_vec(&Settled { work, settled })?)
    }

    fn taken(&self) -> io::Result<Option<Settled>> {
        match read_large(&self.path.join(TAKEN)) {
            Ok(taken) => Ok(Some(taken)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What was taken, and of which saved work.
#[derive(Debug, Serialize, Deserialize)]
struct Settled {
    work: Work,
    settled: Baseline,
}

/// Which file the saved work is: another one lies there when a further life of the bottle has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Work {
    inode: u64,
    bytes: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Work {
    fn of(saved: &Path) -> io::Result<Self> {
        let about = std::fs::metadata(saved)?;
        let (seconds, nanoseconds) = (about.mtime(), about.mtime_nsec());
        Ok(Self { inode: about.ino(), bytes: about.size(), seconds, nanoseconds })
    }
}

fn read_large<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let file = File::open(path)?;
    Ok(serde_json::from_reader(io::BufReader::new(file.take(BASELINE_BYTES_MAX)))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::StateRoot;
    use crate::workspace::TreePath;
    use std::collections::BTreeMap;

    fn baseline(name: &str) -> Baseline {
        let mut baseline = Baseline::default();
        let path = TreePath::parse(name.as_bytes()).unwrap();
        baseline.entries.insert(path, crate::workspace::baseline::Node::Directory { mode: 0o755 });
        baseline
    }

    #[test]
    fn a_life_is_compared_with_what_was_taken_in_those_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let env = BTreeMap::from([("XDG_STATE_HOME".to_owned(), folder.path().to_str().unwrap().to_owned())]);
        let session = StateRoot::open(&env).unwrap().claim("coder").unwrap().unwrap();
        let dir = &session.dir;
        let saves = |text: &str| write_private(&dir.workspace(), text.as_bytes()).unwrap();
        let names = || {
            let read = dir.read_baseline().unwrap();
            read.entries.keys().map(ToString::to_string).collect::<Vec<_>>()
        };
        write_private(&dir.baseline(), &serde_json::to_vec(&baseline("given")).unwrap()).unwrap();
        saves("the first life");
        assert_eq!(names(), ["given"]);
        // It can be taken again.
        for _ in 0..2 {
            dir.write_taken(&dir.read_baseline().unwrap(), baseline("first")).unwrap();
            assert_eq!(names(), ["given"]);
        }
        saves("the second one");
        assert_eq!(names(), ["first"]);
        // Its work is not taken, and it has a third life.
        saves("the third one");
        assert_eq!(names(), ["first"]);
        for _ in 0..2 {
            dir.write_taken(&dir.read_baseline().unwrap(), baseline("third")).unwrap();
            assert_eq!(names(), ["first"]);
        }
        saves("the fourth one");
        assert_eq!(names(), ["third"]);
        // A note that cannot be read hides nothing.
        std::fs::write(dir.path().join(TAKEN), "{").unwrap();
        assert!(dir.read_baseline().is_err());
    }
}
