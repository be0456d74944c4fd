//! From the command line to a running role and to the end of input.

use crate::witness::Witness;
use crate::{api, attacker, git, neighbour, resolver};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bottle_tests::world::role::CONFIG_BYTES_MAX;
use bottle_tests::world::{
    Expected, GIT_USER, MintError, Names, NeighbourConfig, ResolverConfig, World, canary, sha256_hex,
};
use serde::de::DeserializeOwned;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// Why a role could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The command line names no role.
    #[error("could not tell the role: usage: demo-world mint|api|attacker|resolver|neighbour|git")]
    Usage,
    /// The first line of input is no configuration.
    #[error("could not read the configuration")]
    Config(#[source] serde_json::Error),
    /// The certificates could not be made.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// Standard output failed.
    #[error("could not write standard output")]
    Output(#[source] std::io::Error),
    /// Standard input failed.
    #[error("could not read standard input")]
    Input(#[source] std::io::Error),
    /// A listener could not be had.
    #[error("could not listen on {address}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The repository could not be made.
    #[error("could not make the repository")]
    Repository(#[source] std::io::Error),
    /// The certificate or key is unusable.
    #[error("could not use the identity")]
    Identity(#[from] bottle_tests::world::role::IdentityError),
}

/// Runs a role until its input ends.
pub fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&error),
    };
    match runtime.block_on(run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
    // Standard input may still be read by a thread of the runtime; the process ends all the same.
}

async fn run() -> Result<(), StartError> {
    let role = std::env::args().nth(1).unwrap_or_default();
    let mut input = BufReader::new(tokio::io::stdin());
    let witness = Witness;
    match role.as_str() {
        "mint" => return mint(),
        "api" => api::start(config(&mut input).await?, &witness).await?,
        "attacker" => attacker::start(config(&mut input).await?, &witness).await?,
        "resolver" => resolver::start(config(&mut input).await?, &witness).await?,
        "git" => git::start(config(&mut input).await?, &witness).await?,
        "neighbour" => neighbour::start(config(&mut input).await?, &witness).await?,
        _ => return Err(StartError::Usage),
    }
    until_end(&mut input).await
}

/// Prints a fresh world for whoever starts it as containers: certificates, a credential, what each role is told.
fn mint() -> Result<(), StartError> {
    let world = World::mint(&Names::default())?;
    let canary = canary();
    let anywhere = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    let expected = Expected { header: "authorization".to_owned(), value: format!("Bearer {canary}") };
    // What `user:password` becomes in a header (RFC 7617).
    let basic = format!("Basic {}", STANDARD.encode(format!("{GIT_USER}:{canary}")));
    let pushes = Expected { header: "authorization".to_owned(), value: basic };
    let minted = serde_json::json!({
        "ca_pem": world.ca_pem,
        "canary_sha256": sha256_hex(&canary),
        "canary": canary,
        "roles": {
            "api": world.api_config(anywhere, Some(expected)),
            "attacker": world.attacker_config(anywhere),
            "resolver": ResolverConfig::new(anywhere, Ipv4Addr::new(198, 18, 0, 1)),
            "git": world.git_config(anywhere, Some(pushes)),
            "neighbour": NeighbourConfig::new(anywhere),
        },
    });
    writeln!(std::io::stdout(), "{minted}").map_err(StartError::Output)
}

async fn config<C: DeserializeOwned>(input: &mut (impl AsyncBufReadExt + Unpin)) -> Result<C, StartError> {
    let mut line = Vec::new();
    input.take(CONFIG_BYTES_MAX).read_until(b'\n', &mut line).await.map_err(StartError::Input)?;
    serde_json::from_slice(&line).map_err(StartError::Config)
}

async fn until_end(input: &mut (impl AsyncRead + Unpin)) -> Result<(), StartError> {
    let mut rest = [0_u8; 1024];
    while input.read(&mut rest).await.map_err(StartError::Input)? > 0 {}
    Ok(())
}

fn complain(error: &dyn std::error::Error) -> ExitCode {
    let mut text = format!("demo-world: {error}");
    let mut cause = error.source();
    while let Some(why) = cause {
        text.push_str(&format!(": {why}"));
        cause = why.source();
    }
    let _ = writeln!(std::io::stderr(), "{text}"); // nobody left to tell
    ExitCode::from(2)
}
