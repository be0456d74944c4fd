//! The repositories that are cloned and pushed, and the git that does it: one of this machine, with nothing of this
//! machine's configuration.

use crate::interrupt::{Interrupt, apart};
use crate::repository::Repository;
use crate::tell;
use bottle_tests::harness::Sshd;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The large push: so many files of so many bytes of noise.
const LARGE_FILES: u32 = 10;
const LARGE_FILE_BYTES: usize = 107_374_182;

/// A folder with repositories.
pub struct Ground {
    folder: PathBuf,
    ssh_command: String,
}

impl Ground {
    /// Makes what is not there yet.
    pub fn make(folder: &Path, interrupt: &Interrupt) -> Result<Self, String> {
        std::fs::create_dir_all(folder.join("home")).map_err(|e| format!("{}: {e}", folder.display()))?;
        std::fs::create_dir_all(folder.join("spool")).map_err(|e| format!("{}: {e}", folder.display()))?;
        let folder = folder.canonicalize().map_err(|e| format!("{}: {e}", folder.display()))?;
        let ground = Self { folder, ssh_command: "false".to_owned() };
        // A clean-up that git begins by itself would run into the next measure.
        let config = "[user]\n\tname = Bench\n\temail = bench@example.com\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n\
                      [receive]\n\tautogc = false\n[safe]\n\tdirectory = *\n[init]\n\tdefaultBranch = main\n";
        std::fs::write(ground.folder.join("home/.gitconfig"), config)
            .map_err(|e| format!("no git configuration: {e}"))?;
        if !ground.source().join("made").exists() {
            tell("making the synthetic repository")?;
            ground.make_source()?;
            interrupt.check()?;
            std::fs::write(ground.source().join("made"), "").map_err(|e| e.to_string())?;
        }
        Ok(ground)
    }

    /// The same, whose git logs in at this sshd.
    pub fn with_ssh(self, sshd: &Sshd) -> Self {
        Self { ssh_command: sshd.ssh_command(), ..self }
    }

    fn make_source(&self) -> Result<(), String> {
        let source = self.source();
        self.empty(&source)?;
        let mut import = self.command(&source, &["fast-import", "--quiet", "--done"]);
        let mut child = import.stdin(Stdio::piped()).spawn().map_err(|e| format!("git cannot be run: {e}"))?;
        let input = child.stdin.take().ok_or("git has no input")?;
        let mut input = BufWriter::new(input);
        let fed = Repository::new().fast_import(&mut input).and_then(|()| input.flush());
        drop(input);
        let status = child.wait().map_err(|e| e.to_string())?;
        fed.map_err(|e| format!("git did not take the repository: {e}"))?;
        status.success().then_some(()).ok_or_else(|| format!("git did not take the repository ({status})"))?;
        // As one pack with deltas, which is what a repository that is pushed or cloned looks like.
        self.git_in(&source, &["repack", "-adq"])
    }

    /// Where everything is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The synthetic repository, bare.
    pub fn source(&self) -> PathBuf {
        self.folder.join("source.git")
    }

    /// What it has, in words.
    pub fn words(&self) -> Result<String, String> {
        let counted = self.output(&self.source(), &["count-objects", "-v"])?;
        let of = |name: &str| {
            let line = counted.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim_start_matches(": ").parse::<f64>().unwrap_or_default()
        };
        let version = self.output(&self.source(), &["version"])?;
        Ok(format!("{}, {} objects in {:.0} MB", version.trim(), of("in-pack"), of("size-pack") * 1024.0 / 1e6))
    }

    /// A path where nothing is.
    pub fn fresh(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.folder.join(name);
        self.remove(&path)?;
        Ok(path)
    }

    /// Takes a folder away, if it is there.
    pub fn remove(&self, path: &Path) -> Result<(), String> {
        match std::fs::remove_dir_all(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {e}", path.display())),
            _ => Ok(()),
        }
    }

    /// An empty bare repository in place of what is there.
    pub fn empty(&self, path: &Path) -> Result<(), String> {
        self.remove(path)?;
        self.git(&["init", "--quiet", "--bare", &path.display().to_string()])
    }

    /// A copy of the synthetic repository.
    pub fn copy_source(&self, path: &Path) -> Result<(), String> {
        self.remove(path)?;
        let (from, to) = (self.source().display().to_string(), path.display().to_string());
        self.git(&["clone", "--quiet", "--bare", "--no-hardlinks", &from, &to])
    }

    /// A work tree of it, at its newest commit.
    pub fn work(&self) -> Result<PathBuf, String> {
        let work = self.fresh("work")?;
        self.git(&["clone", "--quiet", &self.source().display().to_string(), &work.display().to_string()])?;
        Ok(work)
    }

    /// Changes a file of a work tree and commits it.
    pub fn one_more_commit(&self, work: &Path) -> Result<(), String> {
        let notes = work.join("notes.md");
        let file = std::fs::File::options().create(true).append(true).open(&notes);
        let written = file.and_then(|mut file| file.write_all(b"One more line about what was found out today.\n"));
        written.map_err(|e| format!("{}: {e}", notes.display()))?;
        self.git_in(work, &["add", "notes.md"])?;
        self.git_in(work, &["commit", "--quiet", "-m", "notes"])
    }

    /// Is this repository's `main` the commit that was sent?
    pub fn same(&self, from: &Path, name: &str, repository: &Path) -> Result<(), String> {
        let (sent, there) =
            (self.output(from, &["rev-parse", name])?, self.output(repository, &["rev-parse", "main"])?);
        if sent == there { Ok(()) } else { Err(format!("{} has not got what was sent", repository.display())) }
    }

    /// A bare repository with 1 GiB of noise, which no git makes smaller.
    pub fn large(&self, interrupt: &Interrupt) -> Result<PathBuf, String> {
        let large = self.folder.join("large.git");
        if large.join("made").exists() {
            return Ok(large);
        }
        tell("making a repository of 1 GiB")?;
        self.empty(&large)?;
        // Packed as it is: searching noise for deltas takes minutes and finds none.
        self.git_in(&large, &["config", "core.compression", "0"])?;
        self.git_in(&large, &["config", "pack.window", "0"])?;
        let mut import = self.command(&large, &["fast-import", "--quiet", "--done"]);
        let mut child = import.stdin(Stdio::piped()).spawn().map_err(|e| format!("git cannot be run: {e}"))?;
        let mut input = child.stdin.take().ok_or("git has no input")?;
        let mut feed = || {
            write!(
                input,
                "commit refs/heads/main\ncommitter Bench <bench@example.com> 1700000000 +0000\ndata 5\nnoise\n"
            )?;
            let mut state = 0x5eed_u64;
            for file in 0..LARGE_FILES {
                let mut noise = Vec::with_capacity(LARGE_FILE_BYTES + 8);
                while noise.len() < LARGE_FILE_BYTES {
                    // splitmix64
                    state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    let mut word = state;
                    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                    noise.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
                }
                noise.truncate(LARGE_FILE_BYTES);
                write!(input, "M 100644 inline noise-{file}\ndata {LARGE_FILE_BYTES}\n")?;
                input.write_all(&noise)?;
                writeln!(input)?;
            }
            writeln!(input, "done")
        };
        let fed: std::io::Result<()> = feed();
        drop(input);
        let status = child.wait().map_err(|e| e.to_string())?;
        fed.map_err(|e| format!("git did not take the noise: {e}"))?;
        status.success().then_some(()).ok_or_else(|| format!("git did not take the noise ({status})"))?;
        interrupt.check()?;
        std::fs::write(large.join("made"), "").map_err(|e| e.to_string())?;
        Ok(large)
    }

    /// Runs git; an error has its words.
    pub fn git(&self, args: &[&str]) -> Result<(), String> {
        self.git_in(&self.folder, args)
    }

    /// Runs git in a folder.
    pub fn git_in(&self, folder: &Path, args: &[&str]) -> Result<(), String> {
        self.output(folder, args).map(drop)
    }

    fn output(&self, folder: &Path, args: &[&str]) -> Result<String, String> {
        let output = self.command(folder, args).stdin(Stdio::null()).output();
        let output = output.map_err(|e| format!("git cannot be run: {e}"))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("git {} ended with {}: {}", args.join(" "), output.status, words.trim()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Where git has its programs.
    pub fn exec_path(&self) -> Result<PathBuf, String> {
        self.output(&self.folder, &["--exec-path"]).map(|path| PathBuf::from(path.trim()))
    }

    /// A command in a folder, with git's clean environment.
    fn command(&self, folder: &Path, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.args(args);
        self.clean(&mut command);
        apart(command.current_dir(folder));
        command
    }

    /// Gives a command the environment in which git finds nothing of this machine.
    pub fn clean(&self, command: &mut Command) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).env("HOME", self.folder.join("home")).env("LC_ALL", "C.UTF-8");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
        command.env("GIT_SSH_COMMAND", &self.ssh_command);
    }
}
