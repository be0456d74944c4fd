//! `cargo run --release -p bottle-tests --bin dist [FOLDER]`: builds a release and puts it into one archive.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a command of developers")]

use bottle_tests::dist::{Parts, pack, sum};
use launcher::commands::demo::of_a_release;
use launcher::sidecars::{Profile, binaries_of};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let out = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("target/archive"), PathBuf::from);
    match dist(&out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dist(out: &Path) -> Result<(), Box<dyn Error>> {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let version = env!("CARGO_PKG_VERSION");
    let inside =
        binaries_of(Profile::Dist, &of_a_release(), &|text| eprintln!("{text}")).map_err(|failure| failure.message)?;
    eprintln!("building the launcher");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The launcher waits for an engine most of the time, and to optimise it as a whole takes far longer to build.
    build.args(["build", "--release", "--locked", "-p", "launcher"]).current_dir(&checkout);
    build.env("BOTTLE_BUILD", format!("{version} ({})", commit(&checkout)));
    if !build.status()?.success() {
        return Err("cargo could not build the launcher".into());
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| checkout.join("target"), PathBuf::from);
    let name = format!("bottle-{version}-{}-linux", std::env::consts::ARCH);
    let launcher = target.join("release/launcher");
    let archive = pack(&Parts { name: name.clone(), launcher, inside, checkout })?;
    std::fs::create_dir_all(out)?;
    let file = out.join(format!("{name}.tar.gz"));
    std::fs::write(&file, &archive)?;
    std::fs::write(out.join(format!("{name}.tar.gz.sha256")), format!("{}  {name}.tar.gz\n", sum(&archive)))?;
    println!("{}  {} bytes", file.display(), archive.len());
    Ok(())
}

/// What the checkout is at, and whether it was changed since.
fn commit(checkout: &Path) -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(checkout).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match (git(&["rev-parse", "--short=12", "HEAD"]), git(&["status", "--porcelain"])) {
        (Some(commit), Some(changes)) if changes.is_empty() => commit,
        (Some(commit), _) => format!("{commit}, changed"),
        (None, _) => "no commit".to_owned(),
    }
}
