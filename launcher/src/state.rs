//! The state directory: one folder a bottle, and the lock that says that its keeper lives. Directories are 0700, files
//! 0600. A folder outlives its bottle: it holds the saved workspace and the log.

use crate::plan::{Plan, Undo};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The log of one bottle is cut here.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// The list of what an agent was given is never larger: two million paths of a workspace.
const BASELINE_BYTES_MAX: u64 = 2 << 30;
/// Our own small files are never larger.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The state directory of one operator: `$XDG_STATE_HOME/bottle`.
#[derive(Debug, Clone)]
pub struct StateRoot {
    path: PathBuf,
}

/// The folder of one bottle.
#[derive(Debug, Clone)]
pub struct BottleDir {
    path: PathBuf,
    id: String,
}

/// A folder and the hold on it: whoever has it is the bottle's keeper, or sweeps up after one.
#[derive(Debug)]
pub struct Session {
    /// The folder.
    pub dir: BottleDir,
    // Unlocked by the kernel the moment its holder dies.
    _lock: File,
}

/// What is known of a bottle, living or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The bottle's id.
    pub id: String,
    /// The agent's name.
    pub agent: String,
    /// The manifest of the bottle.
    pub bottle: String,
    /// The directory that was copied in.
    pub workspace: Option<PathBuf>,
    /// The agent's image.
    pub image: String,
    /// The engine, as DOCKER_HOST says it; `None`: the default.
    pub engine: Option<String>,
    /// When it was launched (RFC 3339).
    pub started: String,
    /// When it ended (RFC 3339).
    pub ended: Option<String>,
    /// How it ended: the agent's status, or a word.
    pub outcome: Option<String>,
}

/// What a keeper wrote down before its first step: a sweep removes nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Whose objects they are.
    pub owner: crate::engine::Owner,
    /// What takes everything back, stage by stage in the order of the plan.
    pub undos: Vec<Vec<Undo>>,
}

impl StateRoot {
    /// Finds it from the environment, and makes it.
    pub fn open(env: &BTreeMap<String, String>) -> io::Result<Self> {
        let base = match (env.get("XDG_STATE_HOME").filter(|p| p.starts_with('/')), env.get("HOME")) {
            (Some(state), _) => PathBuf::from(state),
            (None, Some(home)) => Path::new(home).join(".local/state"),
            (None, None) => return Err(io::Error::other("neither XDG_STATE_HOME nor HOME is set")),
        };
        let path = base.join("bottle");
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(named)?;
        Ok(Self { path: path.canonicalize().map_err(named)? })
    }

    /// What the labels of this directory's objects say.
    pub fn hash(&self) -> String {
        short_hash(self.path.as_os_str().as_encoded_bytes())
    }

    /// Ids of all bottles that have a folder, living and ended, in order.
    pub fn ids(&self) -> io::Result<Vec<String>> {
        let mut ids = Vec::new();
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", self.path.display()));
        for entry in std::fs::read_dir(&self.path).map_err(named)? {
            let name = entry?.file_name();
            ids.extend(name.to_str().filter(|n| is_id(n)).map(str::to_owned));
        }
        ids.sort();
        Ok(ids)
    }

    /// The folder of a bottle, whether it exists or not.
    pub fn dir(&self, id: &str) -> BottleDir {
        BottleDir { path: self.path.join(id), id: id.to_owned() }
    }

    /// Makes a new bottle's folder and takes its lock. `None`: the id is taken.
    pub fn claim(&self, id: &str) -> io::Result<Option<Session>> {
        let dir = self.dir(id);
        match DirBuilder::new().mode(0o700).create(&dir.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(error),
        }
        dir.lock()
    }
}

impl BottleDir {
    /// The bottle's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keeper's socket.
    pub fn socket(&self) -> PathBuf {
        self.path.join("keeper.sock")
    }

    /// The merged log.
    pub fn log(&self) -> PathBuf {
        self.path.join("log.jsonl")
    }

    /// The saved workspace.
    pub fn workspace(&self) -> PathBuf {
        self.path.join("workspace.tar.zst")
    }

    /// What the agent was given.
    pub fn baseline(&self) -> PathBuf {
        self.path.join("baseline.json")
    }

    /// Takes the lock. `None`: a keeper lives, or somebody sweeps, or the folder has just gone.
    pub fn lock(&self) -> io::Result<Option<Session>> {
        let file = private().create(true).truncate(false).open(self.path.join("lock"));
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            // The folder may have been swept away between the two lines above; a lock on a file nobody sees holds nothing.
            Ok(()) if self.path.join("lock").exists() => Ok(Some(Session { dir: self.clone(), _lock: file })),
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Takes the lock, and waits a moment for a keeper that has said its last word and is just ending.
    pub fn lock_soon(&self) -> io::Result<Option<Session>> {
        const LOOKS: u32 = 100;
        for _ in 0..LOOKS {
            // What has something on the engine yet is not just ending.
            if let Some(session) = self.lock()? {
                return Ok(Some(session));
            }
            if self.recorded().is_some() {
                return Ok(None);
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(None)
    }

    /// Does its keeper live?
    pub fn is_living(&self) -> bool {
        matches!(self.lock(), Ok(None)) && self.path.join("lock").exists()
    }

    /// Notes that the agent is about to run: from here on its container holds work.
    pub fn mark_started(&self) -> io::Result<()> {
        write_private(&self.path.join("started"), b"")
    }

    /// Takes [`Self::mark_started`] back: the agent's program could not be run after all.
    pub fn unmark_started(&self) -> io::Result<()> {
        match std::fs::remove_file(self.path.join("started")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Did the agent run?
    pub fn was_started(&self) -> bool {
        self.path.join("started").exists()
    }

    /// Writes the metadata.
    pub fn write_metadata(&self, metadata: &Metadata) -> io::Result<()> {
        write_private(&self.path.join("metadata.json"), &serde_json::to_vec_pretty(metadata)?)
    }

    /// Reads the metadata; `None` when the launch did not get that far.
    pub fn metadata(&self) -> Option<Metadata> {
        serde_json::from_slice(&read_limited(&self.path.join("metadata.json")).ok()?).ok()
    }

    /// What the agent was given.
    pub fn read_baseline(&self) -> io::Result<crate::workspace::Baseline> {
        let file = File::open(self.baseline())?;
        Ok(serde_json::from_reader(io::BufReader::new(file.take(BASELINE_BYTES_MAX)))?)
    }

    /// Writes down what a plan will make.
    pub fn record(&self, plan: &Plan) -> io::Result<()> {
        let stage = |s: &crate::plan::Stage| s.lanes.iter().flatten().filter_map(|a| a.undo(&plan.owner)).collect();
        self.record_undos(&plan.owner, &plan.stages.iter().map(stage).collect::<Vec<_>>())
    }

    /// Writes down what takes everything back, stage by stage.
    pub fn record_undos(&self, owner: &crate::engine::Owner, undos: &[Vec<Undo>]) -> io::Result<()> {
        let recorded = Recorded { owner: owner.clone(), undos: undos.to_vec() };
        write_private(&self.path.join("plan.json"), &serde_json::to_vec(&recorded)?)
    }

    /// What a plan was to make; `None` when nothing was.
    pub fn recorded(&self) -> Option<Recorded> {
        serde_json::from_slice(&read_limited(&self.path.join("plan.json")).ok()?).ok()
    }

    /// Forgets what a plan made: it has all been taken back.
    pub fn forget_recorded(&self) -> io::Result<()> {
        for name in ["plan.json", "keeper.sock"] {
            match std::fs::remove_file(self.path.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Removes the folder and what is in it. Only for a bottle that holds no work.
    pub fn remove(&self) -> io::Result<()> {
        std::fs::remove_dir_all(&self.path)
    }
}

impl Session {
    /// Removes what commands that were killed have left half made in the folder. Whoever makes such a thing holds the
    /// lock, so that all of them are stale here.
    pub fn sweep_stale(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir.path)? {
            let entry = entry?;
            let name = entry.file_name();
            if !name.to_str().is_some_and(is_half_made) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// `objects.<pid>.tmp` of a take, `<file>.<pid>.new` and `<file>.new` of a file that is written whole or not at all.
fn is_half_made(name: &str) -> bool {
    let is_pid = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let objects = name.strip_prefix("objects.").and_then(|n| n.strip_suffix(".tmp"));
    objects.is_some_and(is_pid) || name.ends_with(".new")
}

/// Is this the form of an id? (It becomes a folder's name and part of names on the engine.)
pub fn is_id(text: &str) -> bool {
    text.len() <= 40
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Names to try for a bottle, in order: the agent's, then numbered.
pub fn candidates(agent: &str) -> impl Iterator<Item = String> + '_ {
    std::iter::once(agent.to_owned()).chain((2..=999).map(move |n| format!("{agent}-{n}")))
}

/// What the labels say of this machine: no name of it, but always the same.
pub fn host_hash() -> String {
    let id = std::fs::read("/etc/machine-id").or_else(|_| std::fs::read("/proc/sys/kernel/hostname"));
    short_hash(&id.unwrap_or_default())
}

fn short_hash(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().take(6).map(|b| format!("{b:02x}")).collect()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// Writes a file whole or not at all, for its owner alone.
pub fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = private().create(true).truncate(true).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&beside, path)
}

/// Reads one of our own files.
pub fn read_limited(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The bottle's log: every line that a container of it said, with time, role and stream, as JSON lines.
#[derive(Debug)]
pub struct LogFile {
    file: Mutex<(Option<File>, u64)>,
    report: Mutex<crate::report::Report>,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When (RFC 3339).
    pub time: String,
    /// Who said it: a sidecar's role, or `keeper`.
    pub role: String,
    /// `out` or `err`.
    pub stream: String,
    /// What was said.
    pub line: String,
}

impl LogFile {
    /// Opens a bottle's log to append to.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let length = file.metadata()?.len();
        Ok(Self { file: Mutex::new((Some(file), length)), report: Mutex::default() })
    }

    /// A log that forgets everything.
    pub fn none() -> Self {
        Self { file: Mutex::new((None, 0)), report: Mutex::default() }
    }

    /// Appends a line. A log that is full or cannot be written stops growing, and the bottle goes on.
    pub fn line(&self, role: &str, stream: &str, line: &str) {
        self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner).line(role, line);
        let entry = LogLine {
            time: now(),
            role: role.to_owned(),
            stream: stream.to_owned(),
            line: line.to_owned(),
        };
        let Ok(mut bytes) = serde_json::to_vec(&entry) else { return };
        bytes.push(b'\n');
        let mut guard = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (file, length) = &mut *guard;
        let Some(open) = file else { return };
        if *length + bytes.len() as u64 > LOG_BYTES_MAX || open.write_all(&bytes).is_err() {
            *file = None;
            return;
        }
        *length += bytes.len() as u64;
    }
}

impl LogFile {
    /// What has happened so far, counted from the lines.
    pub fn report(&self) -> crate::report::Report {
        self.report.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// Now, as RFC 3339 with milliseconds.
pub fn now() -> String {
    let now = jiff::Timestamp::now();
    format!("{now:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(dir: &Path) -> StateRoot {
        let env = BTreeMap::from([("XDG_STATE_HOME".to_owned(), dir.to_str().unwrap().to_owned())]);
        StateRoot::open(&env).unwrap()
    }

    #[test]
    fn an_id_is_claimed_once_and_lives_as_long_as_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let root = root(dir.path());
        let session = root.claim("coder").unwrap().expect("the first claim");
        assert!(root.claim("coder").unwrap().is_none());
        assert!(root.dir("coder").is_living());
        drop(session);
        assert!(!root.dir("coder").is_living());
        assert!(root.claim("coder").unwrap().is_none(), "an ended bottle keeps its id");
        assert!(root.dir("coder").lock().unwrap().is_some());
        assert!(!root.dir("never").is_living());
        assert_eq!(root.ids().unwrap(), ["coder"]);
    }

    #[test]
    fn what_a_killed_command_left_half_made_is_swept_and_its_neighbours_stay() {
        let dir = tempfile::tempdir().unwrap();
        let session = root(dir.path()).claim("coder").unwrap().unwrap();
        let path = session.dir.path();
        std::fs::create_dir_all(path.join("objects.123.tmp/pack")).unwrap();
        std::fs::create_dir(path.join("objects.x.tmp")).unwrap();
        for name in ["objects.123.tmp/pack/x", "workspace.tar.zst.77.new", "metadata.new", "workspace.tar.zst", "news"] {
            std::fs::write(path.join(name), "x").unwrap();
        }
        session.sweep_stale().unwrap();
        let mut left: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["lock", "news", "objects.x.tmp", "workspace.tar.zst"]);
    }

    #[test]
    fn ids_have_a_form() {
        for (text, good) in [("coder", true), ("a-2", true), ("", false), ("-a", false), ("A", false), ("../x", false)] {
            assert_eq!(is_id(text), good, "{text}");
        }
        assert_eq!(candidates("a").take(3).collect::<Vec<_>>(), ["a", "a-2", "a-3"]);
    }

    #[test]
    fn the_state_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let session = root(dir.path()).claim("coder").unwrap().unwrap();
        session.dir.mark_started().unwrap();
        let log = LogFile::open(&session.dir.log()).unwrap();
        log.line("keeper", "out", "a\u{1b}]52;b");
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(session.dir.path()), 0o700);
        for name in ["lock", "started", "log.jsonl"] {
            assert_eq!(mode(&session.dir.path().join(name)), 0o600, "{name}");
        }
    }
}
