//! `bench git`: git-gate as a process on loopback between a real git and a real sshd, and what the same git needs without
//! it. Both sides run in turn, in one run, on the same repository (about 100 MB, 40,000 objects):
//!
//! ```text
//! apt-get install openssh-server
//! python3 -m venv /tmp/scanners && /tmp/scanners/bin/pip install kingfisher-bin
//! cargo run --release -p bottle-tests --bin bench -- git --peers /tmp/scanners/bin
//! cargo run --release -p bottle-tests --bin bench -- git clone commit --ground /tmp/ground
//! ```
//!
//! | measure | of the two sides |
//! |---|---|
//! | clone | `git clone --bare` of everything: from the sshd, and through the gate, which goes to the same sshd |
//! | push | `git push` of everything into an empty repository, in the same two ways; and to a mirror: a real `git daemon` whose `pre-receive` has kingfisher scan the push, and then pushes it on to the same sshd |
//! | commit | `git push` of one more commit |
//! | memory | the gate's VmRSS before any work, and at most while a pack of 1 GiB of noise is pushed |
//!
//! The mirror ends where the gate does: the commits are upstream. kingfisher's cache of compiled rules is warm, and it
//! reads the quarantined objects itself; its findings refuse nothing here, so that the push goes on. What the gate finds in
//! the synthetic repository (random text has values like passwords) is excepted, as an operator would do it.

mod ground;
mod report;
mod sides;

use crate::interrupt::Interrupt;
use crate::tell;
use bottle_tests::harness::Sshd;
use clap::Parser;
use ground::Ground;
use report::Numbers;
use sides::{Gate, Mirror};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Rounds that count, of the measures that take seconds.
const ROUNDS: u32 = 5;
/// As many rounds of the small push as of the others, times this.
const SMALL_TIMES: u32 = 4;

/// Measures git-gate beside git without it.
#[derive(Parser)]
#[command(name = "bench git")]
struct Args {
    /// What to measure; everything when nothing is named.
    #[arg(value_enum)]
    what: Vec<What>,
    /// The folder with the program `kingfisher`, for the mirror.
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Measures pushes without the mirror.
    #[arg(long, conflicts_with = "peers")]
    without_peers: bool,
    /// How often each side runs.
    #[arg(long, default_value_t = ROUNDS, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Keeps the repositories here, and finds them here the next time.
    #[arg(long, value_name = "FOLDER")]
    ground: Option<PathBuf>,
    /// Measures this git-gate instead of the one that is built for the image.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// A full clone.
    Clone,
    /// A full push, beside direct and beside the mirror.
    Push,
    /// A push of one commit.
    Commit,
    /// Memory, at rest and with a pack of 1 GiB.
    Memory,
}

/// Everything, in the order in which it runs.
const EVERYTHING: [What; 4] = [What::Memory, What::Clone, What::Commit, What::Push];

/// Runs the bench.
pub fn main(args: &[std::ffi::OsString]) -> Result<(), String> {
    let name = std::ffi::OsString::from("bench git");
    let args = match Args::try_parse_from(std::iter::once(&name).chain(args)) {
        Ok(args) => args,
        Err(e) if !e.use_stderr() => return tell(&e.to_string()),
        Err(e) => return Err(e.to_string()),
    };
    let interrupt = Interrupt::watch()?;
    let wants = |what| args.what.is_empty() || args.what.contains(&what);
    let kingfisher =
        if wants(What::Push) && !args.without_peers { Some(kingfisher(args.peers.as_deref())?) } else { None };
    let program = args.binary.clone().map_or_else(program, Ok)?;
    let temporary = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let ground = Ground::make(args.ground.as_deref().unwrap_or(temporary.path()), &interrupt)?;
    // A socket's folder and keys, which no later run finds.
    let sshd = Sshd::start(&temporary.path().join("sshd"), IpAddr::from(Ipv4Addr::LOCALHOST));
    let ground = ground.with_ssh(&sshd);
    tell(&format!("{}; {}; {} rounds", program.display(), ground.words()?, args.rounds))?;

    let bench = Bench { ground, sshd, program, kingfisher, rounds: args.rounds, interrupt };
    let mut numbers = Numbers { image_mb: Some(megabytes(&bench.program)?), ..Numbers::default() };
    for what in EVERYTHING.into_iter().filter(|what| wants(*what)) {
        match what {
            What::Memory => bench.memory(&mut numbers)?,
            What::Clone => bench.clone(&mut numbers)?,
            What::Commit => bench.commit(&mut numbers)?,
            What::Push => bench.push(&mut numbers)?,
        }
    }
    let lines = numbers.lines();
    tell(&crate::bars::table(&lines))?;
    tell(&crate::bars::json(&lines))
}

/// A side of a measure: its name, what it does once (the seconds that it took), and where they go.
type Side<'a> = (&'a str, &'a mut dyn FnMut() -> Result<f64, String>, &'a mut Vec<f64>);

struct Bench {
    ground: Ground,
    sshd: Sshd,
    program: PathBuf,
    kingfisher: Option<PathBuf>,
    rounds: u32,
    interrupt: Interrupt,
}

impl Bench {
    /// The gate in front of one repository.
    fn gate(&self, repository: &Path, exceptions: Vec<String>) -> Result<Gate, String> {
        Gate::start(&self.program, &self.sshd, (repository, exceptions), &self.ground.folder().join("spool"))
    }

    /// The fingerprints of what is found in the synthetic repository.
    fn found(&self, target: &Path) -> Result<Vec<String>, String> {
        let (ground, gate) = (&self.ground, self.gate(target, Vec::new())?);
        ground.empty(target)?;
        match ground.git_in(&ground.source(), &["push", "--quiet", &gate.url(), "main:refs/heads/main"]) {
            Ok(()) => Ok(Vec::new()),
            Err(refused) => match gate.found() {
                found if found.is_empty() => Err(refused),
                found => Ok(found),
            },
        }
    }

    /// Both (or more) sides once to warm caches, then in turns; the side that goes first changes.
    fn rounds(&self, count: u32, what: &str, sides: &mut [Side<'_>]) -> Result<(), String> {
        let places = sides.len();
        for round in 0..=count {
            let mut words = format!("{what} {round:>2}:");
            for turn in 0..places {
                self.interrupt.check()?;
                let (name, side, times) = &mut sides[(turn + round as usize) % places];
                let seconds = side()?;
                words.push_str(&format!(" {name} {seconds:.2} s"));
                if round > 0 {
                    times.push(seconds);
                }
            }
            tell(&if round == 0 { format!("{words} (not counted)") } else { words })?;
        }
        Ok(())
    }

    fn clone(&self, numbers: &mut Numbers) -> Result<(), String> {
        let ground = &self.ground;
        let gate = self.gate(&ground.source(), Vec::new())?;
        let clone = |url: String| {
            let out = ground.fresh("clone.git")?;
            let began = Instant::now();
            ground.git(&["clone", "--quiet", "--bare", &url, &out.display().to_string()])?;
            let took = began.elapsed().as_secs_f64();
            ground.same(&ground.source(), "main", &out)?;
            Ok(took)
        };
        let mut direct = || clone(self.sshd.url(&ground.source()));
        let mut gated = || clone(gate.url());
        let sides: &mut [Side<'_>] =
            &mut [("direct", &mut direct, &mut numbers.clone_direct), ("gate", &mut gated, &mut numbers.clone_gate)];
        self.rounds(self.rounds, "clone", sides)
    }

    fn push(&self, numbers: &mut Numbers) -> Result<(), String> {
        let ground = &self.ground;
        let target = ground.folder().join("target.git");
        let gate = self.gate(&target, self.found(&target)?)?;
        let mirror = match &self.kingfisher {
            Some(program) => Some(Mirror::start(ground, program, &self.sshd.url(&target))?),
            None => None,
        };
        let push = |url: &str| {
            ground.empty(&target)?;
            let began = Instant::now();
            ground.git_in(&ground.source(), &["push", "--quiet", url, "main:refs/heads/main"])?;
            let took = began.elapsed().as_secs_f64();
            ground.same(&ground.source(), "main", &target)?;
            Ok(took)
        };
        let mut direct = || push(&self.sshd.url(&target));
        let mut gated = || push(&gate.url());
        let mut mirrored = || match &mirror {
            Some(mirror) => {
                mirror.empty(ground)?;
                push(&mirror.url())
            }
            None => Ok(f64::NAN),
        };
        let mut sides: Vec<Side<'_>> =
            vec![("direct", &mut direct, &mut numbers.push_direct), ("gate", &mut gated, &mut numbers.push_gate)];
        if mirror.is_some() {
            sides.push(("mirror", &mut mirrored, &mut numbers.push_mirror));
        }
        self.rounds(self.rounds, "push", &mut sides)
    }

    fn commit(&self, numbers: &mut Numbers) -> Result<(), String> {
        let ground = &self.ground;
        let target = ground.folder().join("small.git");
        ground.copy_source(&target)?;
        let work = ground.work()?;
        let gate = self.gate(&target, Vec::new())?;
        let push = |url: &str| {
            ground.one_more_commit(&work)?;
            let began = Instant::now();
            ground.git_in(&work, &["push", "--quiet", url, "HEAD:refs/heads/main"])?;
            let took = began.elapsed().as_secs_f64();
            ground.same(&work, "HEAD", &target)?;
            Ok(took)
        };
        let mut direct = || push(&self.sshd.url(&target));
        let mut gated = || push(&gate.url());
        let sides: &mut [Side<'_>] =
            &mut [("direct", &mut direct, &mut numbers.commit_direct), ("gate", &mut gated, &mut numbers.commit_gate)];
        self.rounds(self.rounds * SMALL_TIMES, "commit", sides)
    }

    fn memory(&self, numbers: &mut Numbers) -> Result<(), String> {
        let ground = &self.ground;
        let target = ground.folder().join("large-target.git");
        ground.empty(&target)?;
        let large = ground.large(&self.interrupt)?;
        let gate = self.gate(&target, Vec::new())?;
        numbers.rss_idle_mb = Some(gate.memory_mb("VmRSS")?);
        tell("memory: pushing 1 GiB")?;
        let began = Instant::now();
        ground.git_in(&large, &["push", "--quiet", &gate.url(), "main:refs/heads/main"])?;
        let seconds = began.elapsed().as_secs_f64();
        ground.same(&large, "main", &target)?;
        numbers.large_push = Some((gate.memory_mb("VmHWM")?, seconds));
        ground.remove(&target)
    }
}

/// The static binary of the image, built where it is old.
fn program() -> Result<PathBuf, String> {
    let wanted = launcher::sidecars::SIDECARS.into_iter().filter(|sidecar| sidecar.name == "git-gate");
    let found = launcher::sidecars::binaries(&wanted.collect::<Vec<_>>(), &|_| {});
    let found = found.map_err(|failure| format!("{}: {}", failure.message, failure.hint.unwrap_or_default()))?;
    found.get("git-gate").cloned().ok_or_else(|| "there is no git-gate".to_owned())
}

/// An image of one static binary is as large as the binary, but for a few hundred bytes.
fn megabytes(program: &Path) -> Result<f64, String> {
    let facts = std::fs::metadata(program).map_err(|e| format!("{}: {e}", program.display()))?;
    Ok(facts.len() as f64 / 1e6)
}

fn kingfisher(folder: Option<&Path>) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        folder.map_or_else(|| std::env::split_paths(&path).collect(), |one| vec![one.to_owned()]);
    let found = folders.iter().map(|folder| folder.join("kingfisher")).find(|program| program.is_file());
    found.ok_or_else(|| {
        "kingfisher is not installed; `python3 -m venv /tmp/scanners && /tmp/scanners/bin/pip install kingfisher-bin`, \
         then --peers /tmp/scanners/bin; or --without-peers"
            .to_owned()
    })
}
