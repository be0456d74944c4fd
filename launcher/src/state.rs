//! The state directory: one folder a bottle, and the lock that says that its keeper lives. Directories are 0700, files
//! 0600. A folder outlives its bottle: it holds the saved workspace and the log.

mod taken;

use crate::plan::{Plan, Undo};
use crate::report::Report;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Our own small files are never larger.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The file that says that an agent ran in a life before.
const LIVED: &str = "lived";
/// The file whose lock says that a keeper lives.
const LOCK: &str = "lock";
/// What a folder's name begins with before it has its own; no id begins like that.
const CLAIM: &str = ".claim-";
/// What a folder's name begins with while it is removed.
const GONE: &str = ".gone-";

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
    /// The engine it is on, as DOCKER_HOST would say it; `None`: not known.
    pub engine: Option<String>,
    /// When it was launched (RFC 3339).
    pub started: String,
    /// When it ended (RFC 3339).
    pub ended: Option<String>,
    /// How it ended: the agent's status, or a word.
    pub outcome: Option<String>,
}

/// An image that was made for one bottle, and goes with its folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptImage {
    /// Repository and tag.
    pub reference: String,
    /// What its label says that it is made of.
    pub content: String,
    /// Whose it is.
    pub owner: crate::engine::Owner,
    /// Users, groups and roots of the image that it began with: those of its own are the agent's work.
    pub base: crate::plan::provision::ImageFiles,
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

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
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
    ///
    /// The folder appears under its name with its lock held: a sweep or a look at the same moment never sees one that
    /// nobody holds.
    pub fn claim(&self, id: &str) -> io::Result<Option<Session>> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let hidden = self.path.join(format!("{CLAIM}{}-{number}", std::process::id()));
        // What a process of the same number left when it was killed on these lines: it holds nothing.
        let _ = std::fs::remove_dir_all(&hidden);
        DirBuilder::new().mode(0o700).create(&hidden)?;
        match Self::claim_as(&hidden, &self.path.join(id)) {
            Ok(lock) => Ok(Some(Session { dir: self.dir(id), _lock: lock })),
            Err(error) => {
                // Empty but for the lock; what cannot be removed now is removed by a later claim.
                let _ = std::fs::remove_dir_all(&hidden);
                let taken = matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists);
                if taken { Ok(None) } else { Err(error) }
            }
        }
    }

    fn claim_as(hidden: &Path, named: &Path) -> io::Result<File> {
        let lock = private().create_new(true).open(hidden.join(LOCK))?;
        lock.try_lock().map_err(io::Error::from)?;
        // Over a folder with anything in it a rename fails, and every bottle's folder has its lock in it.
        std::fs::rename(hidden, named)?;
        Ok(lock)
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

    /// What the agent asked for and what came of it.
    pub fn proposals(&self) -> PathBuf {
        self.path.join("proposals.jsonl")
    }

    /// The audit log.
    pub fn audit(&self) -> PathBuf {
        self.path.join("audit.jsonl")
    }

    /// The Dockerfile that a verdict wrote.
    pub fn dockerfile(&self) -> PathBuf {
        self.path.join("Dockerfile")
    }

    /// The saved workspace.
    pub fn workspace(&self) -> PathBuf {
        self.path.join("workspace.tar.zst")
    }

    /// What the saved work of this life or an earlier one is compared with; see [`Self::read_baseline`].
    pub fn baseline(&self) -> PathBuf {
        self.path.join("baseline.json")
    }

    /// Takes the lock. `None`: a keeper lives, or somebody sweeps, or the folder has just gone.
    pub fn lock(&self) -> io::Result<Option<Session>> {
        let path = self.path.join(LOCK);
        let file = match private().create(true).truncate(false).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            // The folder may have been swept away between the two lines above, and even be another bottle's by now; a
            // lock on a file that nobody sees holds nothing.
            Ok(()) if is_still(&file, &path) => Ok(Some(Session { dir: self.clone(), _lock: file })),
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
        matches!(self.lock(), Ok(None)) && self.path.join(LOCK).exists()
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

    /// Begins another life of a bottle that has ended: its agent has not run yet in this one, and what the folder holds is
    /// kept whatever comes of it.
    pub fn begin_again(&self) -> io::Result<()> {
        match std::fs::rename(self.path.join("started"), self.path.join(LIVED)) {
            // A second try: the one before came no further than this.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Did an agent run in a life before this one? Then the folder holds what is not to be thrown away.
    pub fn has_lived(&self) -> bool {
        self.path.join(LIVED).exists()
    }

    /// The image that was made for this bottle, where one was.
    pub fn image(&self) -> Option<KeptImage> {
        serde_json::from_slice(&read_limited(&self.path.join("image.json")).ok()?).ok()
    }

    /// Writes down which image was made for this bottle.
    pub fn write_image(&self, image: &KeptImage) -> io::Result<()> {
        write_private(&self.path.join("image.json"), &serde_json::to_vec(image)?)
    }

    /// Forgets the image: it is gone.
    pub fn forget_image(&self) -> io::Result<()> {
        remove_if_there(&self.path.join("image.json"))
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

    /// Writes what happened.
    pub fn write_report(&self, report: &Report) -> io::Result<()> {
        write_private(&self.path.join("report.json"), &serde_json::to_vec_pretty(report)?)
    }

    /// Reads what happened; `None` while the bottle lives, and when its keeper did not live to write it.
    pub fn report(&self) -> Option<Report> {
        serde_json::from_slice(&read_limited(&self.path.join("report.json")).ok()?).ok()
    }

    /// Writes down what a plan will make.
    pub fn record(&self, plan: &Plan) -> io::Result<()> {
        self.record_undos(&plan.owner, &plan.undos())
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
        remove_if_there(&self.path.join("plan.json"))
    }

    /// Removes the keeper's socket: nobody listens any more. Not between two tries of a launch, where somebody does.
    pub fn forget_socket(&self) -> io::Result<()> {
        remove_if_there(&self.socket())
    }

    /// Removes the folder and what is in it. Only for a bottle that holds no work, and for who holds its lock: it goes
    /// from its name at once, so that nobody meets half of it.
    pub fn remove(&self) -> io::Result<()> {
        let hidden = self.path.with_file_name(format!("{GONE}{}-{}", self.id, std::process::id()));
        std::fs::rename(&self.path, &hidden)?;
        std::fs::remove_dir_all(&hidden)
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

/// Is this open file the one that the path names?
fn is_still(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => (open.dev(), open.ino()) == (named.dev(), named.ino()),
        (Ok(_) | Err(_), _) => false,
    }
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

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
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
        for name in ["objects.123.tmp/pack/x", "workspace.tar.zst.77.new", "metadata.new", "workspace.tar.zst", "news"]
        {
            std::fs::write(path.join(name), "x").unwrap();
        }
        session.sweep_stale().unwrap();
        let mut left: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["lock", "news", "objects.x.tmp", "workspace.tar.zst"]);
    }

    #[test]
    fn a_claim_and_a_sweep_at_the_same_moment_never_meet_half_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let root = root(dir.path());
        let rounds = 200;
        std::thread::scope(|scope| {
            let sweeping = scope.spawn(|| {
                let mut swept = 0;
                while swept < rounds {
                    if let Some(dead) = root.dir("coder").lock().unwrap() {
                        dead.dir.remove().unwrap();
                        swept += 1;
                    }
                }
            });
            while !sweeping.is_finished() {
                // Dropped at once: a keeper that died as soon as it had its name.
                if let Some(claimed) = root.claim("coder").unwrap() {
                    assert!(root.dir("coder").is_living());
                    drop(claimed);
                }
            }
        });
        let left: Vec<_> = std::fs::read_dir(&root.path).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.len() <= 1, "{left:?}");
    }

    #[test]
    fn a_lock_on_a_file_that_was_swept_away_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = root(dir.path());
        drop(root.claim("coder").unwrap().expect("it is free"));
        let old = private().open(root.dir("coder").path().join(LOCK)).unwrap();
        root.dir("coder").lock().unwrap().expect("nobody holds it").dir.remove().unwrap();
        let path = root.dir("coder").path().join(LOCK);
        assert!(!is_still(&old, &path));
        let _another = root.claim("coder").unwrap().expect("the name is free again");
        assert!(!is_still(&old, &path), "it is another bottle's by now");
    }

    #[test]
    fn ids_have_a_form() {
        for (text, good) in [("coder", true), ("a-2", true), ("", false), ("-a", false), ("A", false), ("../x", false)]
        {
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
        let log = crate::log::LogFile::open(&session.dir.log()).unwrap();
        log.line("keeper", "out", "a\u{1b}]52;b");
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(session.dir.path()), 0o700);
        for name in ["lock", "started", "log.jsonl"] {
            assert_eq!(mode(&session.dir.path().join(name)), 0o600, "{name}");
        }
    }
}
