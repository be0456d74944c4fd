//! How long `launcher take` needs for the work of an agent that changed all of ten thousand files and committed it: files
//! into the operator's directory, objects into the repository. Beside it git itself, which fetches the same commit from
//! the agent's repository, checks its objects, and moves the branch and the files to it:
//!
//! ```text
//! cargo run --release -p bottle-tests --bin bench -- take
//! ```
//!
//! Ours also reads an archive that the agent wrote, compares three sides and hashes every file: what git is spared.

use crate::bars::{self, Bar, Line};
use crate::tell;
use clap::Parser;
use launcher::workspace::{Archive, Limits, Owner, TakeOptions, archive, pack, save, take};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const FILES: u32 = 10_000;
const FOLDERS: u32 = 100;
const ROUNDS: u32 = 7;

/// Measures how long it takes to bring an agent's work into the operator's directory, beside git itself.
#[derive(Parser)]
#[command(name = "bench take")]
struct Args {
    /// How many files the agent changed.
    #[arg(long, default_value_t = FILES)]
    files: u32,
    /// How often each side runs.
    #[arg(long, default_value_t = ROUNDS, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// Runs the bench.
pub fn main(args: &[std::ffi::OsString]) -> Result<(), String> {
    let name = std::ffi::OsString::from("bench take");
    let args = match Args::try_parse_from(std::iter::once(&name).chain(args)) {
        Ok(args) => args,
        Err(e) if !e.use_stderr() => return tell(&e.to_string()),
        Err(e) => return Err(e.to_string()),
    };
    let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let at = |name: &str| folder.path().join(name);
    let (given, agent, saved) = (at("given"), at("agent/workspace"), at("workspace.tar.zst"));
    write(&given, args.files, "as it was")?;
    shell(&given, "git init -q -b main && git add . && git commit -qm given && git gc -q")?;
    let mut tar = Vec::new();
    let packed = pack(&given, Owner { uid: 1000, gid: 1000 }, archive::PREFIX, &mut tar, &|_, _| {});
    let packed = packed.map_err(|e| e.to_string())?;
    shell(folder.path(), "mkdir agent && cp -a given agent/workspace")?;
    write(&agent, args.files, "as the agent has it")?;
    shell(&agent, "git add . && git commit -qm changed")?;
    shell(folder.path(), "tar --format=pax -C agent -cf agent.tar workspace")?;
    let tar = std::fs::File::open(at("agent.tar")).map_err(|e| e.to_string())?;
    save(tar, &saved, Limits::default()).map_err(|e| e.to_string())?;

    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // One round more warms caches and does not count.
    for round in 0..=args.rounds {
        shell(folder.path(), "rm -rf ours theirs && cp -a given ours && cp -a given theirs && sync -f .")?;
        let began = Instant::now();
        let archive = Archive::open(&saved, Limits::default());
        let taken = take(&archive, &packed.baseline, &at("ours"), "bench", TakeOptions::default());
        let taken = taken.map_err(|e| e.to_string())?;
        let our = began.elapsed();
        let files = usize::try_from(args.files).unwrap_or(usize::MAX);
        if taken.written.len() != files || taken.commits.objects <= files || taken.commits.refs.len() != 1 {
            let (written, objects) = (taken.written.len(), taken.commits.objects);
            return Err(format!("only {written} files and {objects} objects were taken"));
        }
        let began = Instant::now();
        let fetch =
            "git -c fetch.fsckObjects=true fetch -q ../agent/workspace main && git merge -q --ff-only FETCH_HEAD";
        shell(&at("theirs"), fetch)?;
        let their = began.elapsed();
        if round > 0 {
            tell(&format!("round {round}: ours {:.2} s, git {:.2} s", our.as_secs_f64(), their.as_secs_f64()))?;
            ours.push(our);
            theirs.push(their);
        }
    }
    shell(&at("ours"), "git fsck --strict --full && test -z \"$(git diff refs/bottle/bench/heads/main)\"")?;
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    let detail = format!("{:.2} s and {:.2} s", ours.as_secs_f64(), theirs.as_secs_f64());
    let lines = [
        Line { name: "take_s", value: ours.as_secs_f64(), bar: Some(Bar::Most(3.0)), detail: String::new() },
        Line { name: "take_vs_git", value: ours.as_secs_f64() / theirs.as_secs_f64(), bar: None, detail },
    ];
    tell(&bars::table(&lines))?;
    tell(&bars::json(&lines))
}

/// Files of some 2 KB, no two alike.
fn write(folder: &Path, files: u32, what: &str) -> Result<(), String> {
    for number in 0..files {
        let inner = folder.join(format!("d{}", number % FOLDERS));
        std::fs::create_dir_all(&inner).map_err(|e| e.to_string())?;
        let text = format!("line of file {number}, {what}\n").repeat(50);
        std::fs::write(inner.join(format!("f{number}")), text).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn shell(folder: &Path, script: &str) -> Result<(), String> {
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null");
    // Git would gather objects into packs by itself, in the background.
    command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "gc.auto").env("GIT_CONFIG_VALUE_0", "0");
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "Bench").env(format!("GIT_{who}_EMAIL"), "bench@example.com");
    }
    let output = command.output().map_err(|e| format!("sh cannot be run: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or_else(|| format!("{script}: {}: {said}", output.status))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
