//! Speed of a bottle's launch and teardown on a real engine, measured against a script of `docker` commands that makes
//! the same containers and networks one after another; and of cred-proxy, measured against nginx. Both sides take turns
//! in one run; what counts is the medians' ratio. Run it on a quiet machine:
//!
//! ```text
//! cargo run --release -p bottle-tests --bin bench -- launch
//! cargo run --release -p bottle-tests --bin bench -- teardown --rounds 11
//! cargo run --release -p bottle-tests --bin bench -- cred-proxy
//! ```
//!
//! And what needs no engine: `bench -- scan`, the speed of the scan of a push (see [`scan`]), `bench -- git`, clones and
//! pushes through git-gate beside direct ones and beside a mirror (see [`git`]), and `bench -- take`, an agent's work on
//! its way back (see [`take`]). With an engine, `bench -- approve`: from an ask
//! to its effect (see [`approve`]).
//!
//! A table for people goes to standard output, and as its last line one JSON object of plain numbers. Everything that is
//! made is taken back, also after a signal or a panic.

mod approve;
mod bars;
mod figures;
mod git;
mod interrupt;
mod ours;
mod peer;
mod proxy;
mod repository;
mod scan;
mod take;

use bottle_tests::harness::Site;
use clap::Parser;
use figures::{Bar, Figure, Measure};
use interrupt::Interrupt;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// Both sides in turn, this often at least: below, a median says little.
const ROUNDS_MIN: u32 = 7;

/// What needs no engine has arguments of its own.
const OTHERS: &str = "\
Others, with a help of their own (bench NAME --help):
  git   clones and pushes through git-gate, beside direct ones and beside a mirror
  scan  the scan of a push, beside known scanners
  take  an agent's work back into the operator's directory, beside git";

/// Measures a bottle's launch and teardown against the same as a script of `docker` commands, and cred-proxy against nginx.
#[derive(Parser)]
#[command(name = "bench", after_help = OTHERS)]
struct Args {
    /// What to measure; launch and teardown are measured in the same rounds.
    #[arg(value_enum, required = true)]
    what: Vec<What>,
    /// How often each side runs, 7 at least.
    #[arg(long, default_value_t = ROUNDS_MIN, value_parser = clap::value_parser!(u32).range(i64::from(ROUNDS_MIN)..))]
    rounds: u32,
    /// Also show where the time of our launches went, as the keeper's log has it.
    #[arg(long)]
    profile: bool,
    /// Measure this cred-proxy instead of the one that is built for the image.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// From the command to the first byte of the agent.
    Launch,
    /// From the command to nothing left on the engine.
    Teardown,
    /// cred-proxy alone: requests a second, latency, streams, memory.
    CredProxy,
}

impl What {
    fn of_bottle(self) -> Option<Measure> {
        match self {
            Self::Launch => Some(Measure::Launch),
            Self::Teardown => Some(Measure::Teardown),
            Self::CredProxy => None,
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    let outcome = match args.split_first() {
        Some((first, rest)) if first == "scan" => optimised().and_then(|()| scan::main(rest)),
        Some((first, _)) if first == "approve" => asks(),
        Some((first, rest)) if first == "take" => optimised().and_then(|()| take::main(rest)),
        Some((first, rest)) if first == "git" => optimised().and_then(|()| git::main(rest)),
        _ => bench(&Args::parse()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            // Without a standard error there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "bench: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn optimised() -> Result<(), String> {
    if cfg!(debug_assertions) {
        return Err("a debug build measures nothing of interest: add --release".to_owned());
    }
    Ok(())
}

/// From an ask to its effect: see [`approve`].
fn asks() -> Result<(), String> {
    optimised()?;
    let interrupt = Interrupt::watch()?;
    build()?;
    approve::bench(&interrupt, &tell)
}

fn bench(args: &Args) -> Result<(), String> {
    optimised()?;
    let interrupt = Interrupt::watch()?;
    let measures: Vec<Measure> = args.what.iter().filter_map(|what| what.of_bottle()).collect();
    if !measures.is_empty() {
        bottles(args, &measures, &interrupt)?;
    }
    if args.what.contains(&What::CredProxy) {
        proxy::bench(args.binary.clone(), args.rounds, &interrupt, &tell)?;
    }
    Ok(())
}

fn bottles(args: &Args, measures: &[Measure], interrupt: &Interrupt) -> Result<(), String> {
    build()?;
    let site = Site::new().ok_or("no engine answers")?;
    let ground = ours::Ground::prepare(&site);
    tell(&format!("pipelock: {}; agent: {}; {} rounds", site.pipelock(), ground.image, args.rounds))?;

    let (mut mine, mut theirs, mut profiles) = (Vec::new(), Vec::new(), Vec::new());
    // One round of each to warm the engine's and the kernel's caches: it does not count.
    for round in 0..=args.rounds {
        interrupt.check()?;
        let (our, profile) = ours::round(&site, round, interrupt)?;
        interrupt.check()?;
        let their = peer::round(&site, &ground, round, interrupt)?;
        if round > 0 {
            tell(&figures::round_line(round, &our, &their))?;
            mine.push(our);
            theirs.push(their);
            profiles.push(profile);
        }
    }
    if args.profile {
        tell(&format!("\nthe last of our launches, from the keeper's log:\n{}", profiles.pop().unwrap_or_default()))?;
    }
    let figures: Vec<Figure> = measures.iter().map(|m| Figure::of(*m, &mine, &theirs, Bar::of(*m))).collect();
    tell(&figures::table(&figures))?;
    tell(&figures::json(&figures))
}

fn tell(text: &str) -> Result<(), String> {
    writeln!(std::io::stdout(), "{text}").map_err(|e| format!("nobody reads: {e}"))
}

/// Builds the launcher that is measured, beside this program; the launcher itself builds what runs inside.
fn build() -> Result<(), String> {
    let own = std::env::current_exe().map_err(|e| format!("this program cannot be found: {e}"))?;
    let target: PathBuf = own.ancestors().nth(2).ok_or("this program is in no target folder")?.to_path_buf();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--release", "--locked", "-p", "bottle-tests", "--bin", "it-launcher"])
        .arg("--target-dir")
        .arg(target)
        .status()
        .map_err(|e| format!("cargo cannot be run: {e}"))?;
    status.success().then_some(()).ok_or_else(|| format!("the launcher cannot be built ({status})"))
}
