//! The command line of the contract: `run`, `check`, `healthcheck`, `version`. Every error ends with 1.

use crate::config::{self, Loaded, Mode};
use crate::log::{self, Level};
use crate::reload::{Look, Reloader};
use crate::server;
use crate::state::{Live, Shared};
use clap::{Parser, Subcommand, ValueEnum};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A health check takes no longer.
const HEALTH_WITHIN: Duration = Duration::from_secs(2);

/// The stand-in.
#[derive(Debug, Parser)]
#[command(name = "pipelock", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve.
    Run {
        #[arg(short, long)]
        config: PathBuf,
        #[arg(short, long)]
        mode: Option<ModeArgument>,
        #[arg(short, long)]
        listen: Option<String>,
    },
    /// Would the file be taken? (The CA is not loaded.)
    Check {
        #[arg(short, long)]
        config: PathBuf,
        #[arg(long)]
        url: Option<String>,
    },
    /// Does a running one answer?
    Healthcheck {
        #[arg(long, default_value = "127.0.0.1:8888")]
        addr: String,
    },
    /// Which version's contract is kept.
    Version,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ModeArgument {
    Strict,
    Balanced,
    Audit,
}

/// Runs the command; the error is the line for standard error.
pub fn run(arguments: impl Iterator<Item = std::ffi::OsString>) -> Result<(), String> {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => return Err(error.to_string()),
        Err(help) => {
            log::tell(&help.to_string());
            return Ok(());
        }
    };
    match arguments.verb {
        Verb::Run { config, mode, listen } => serve(&config, mode, listen),
        Verb::Check { config, url } => check(&config, url.as_deref()),
        Verb::Healthcheck { addr } => healthcheck(&addr),
        Verb::Version => {
            log::tell(&format!("pipelock version {} (a double for tests)", server::VERSION));
            Ok(())
        }
    }
}

fn serve(file: &std::path::Path, mode: Option<ModeArgument>, listen: Option<String>) -> Result<(), String> {
    let seen = Look::at(file);
    let Loaded { mut config, hash } = config::load(file).map_err(|e| e.to_string())?;
    if let Some(mode) = mode {
        config.mode = match mode {
            ModeArgument::Strict => Mode::Strict,
            ModeArgument::Balanced => Mode::Balanced,
            ModeArgument::Audit => Mode::Audit,
        };
    }
    if let Some(listen) = listen {
        config.fetch_proxy.listen = listen;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|e| format!("could not start: {e}"))?;
    let served = runtime.block_on(serve_until_signal(file, seen, Loaded { config, hash }));
    // Tunnels that are open do not keep it: the real one leaves them as well.
    runtime.shutdown_timeout(Duration::from_millis(100));
    served
}

async fn serve_until_signal(file: &std::path::Path, seen: Look, loaded: Loaded) -> Result<(), String> {
    let mode = loaded.config.mode.name();
    let live = Live::new(loaded)?;
    let shared = Arc::new(Shared::new(live)?);
    let live = shared.live();
    let unable = |what: &str, error: std::io::Error| format!("{what}: {error}");
    let listener = TcpListener::bind(&live.config.fetch_proxy.listen);
    let listener = listener.await.map_err(|e| unable(&format!("listen {}", live.config.fetch_proxy.listen), e))?;
    let address = listener.local_addr().map_err(|e| unable("listen", e))?;
    if !live.config.metrics_listen.is_empty() {
        let metrics = TcpListener::bind(&live.config.metrics_listen);
        let metrics = metrics.await.map_err(|e| unable(&format!("listen {}", live.config.metrics_listen), e))?;
        tokio::spawn(server::serve_metrics(metrics, shared.clone()));
    }
    let caught = |kind| signal(kind).map_err(|e| unable("signals", e));
    let (mut term, mut int) = (caught(SignalKind::terminate())?, caught(SignalKind::interrupt())?);
    let (hangup, mut user) = (caught(SignalKind::hangup())?, caught(SignalKind::user_defined1())?);
    log::tell(&format!("pipelock double {} listening on {address} ({mode}): for tests alone", server::VERSION));
    let fields = json!({
        "listen": address.to_string(), "mode": mode, "version": server::VERSION, "config_hash": live.hash,
    });
    drop(live);
    log::event(Level::Info, "startup", "pipelock started", fields);
    tokio::spawn(server::serve(listener, shared.clone()));
    tokio::spawn(Reloader::new(file, seen, shared.clone()).run(hangup));
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = user.recv() => shared.toggle_kill(),
        }
    }
    log::event(Level::Info, "shutdown", "pipelock stopping", json!({"reason": "signal"}));
    Ok(())
}

fn check(file: &std::path::Path, url: Option<&str>) -> Result<(), String> {
    let Loaded { config, .. } = config::load(file).map_err(|e| e.to_string())?;
    if let Some(url) = url {
        let uri: http::Uri = url.parse().map_err(|e| format!("invalid URL: {e}"))?;
        let host = crate::guard::canonical(uri.host().unwrap_or_default());
        crate::guard::url(&config, url, &host).map_err(|no| format!("BLOCKED: {}", no.reason))?;
    }
    log::tell("Config validation: OK");
    Ok(())
}

fn healthcheck(address: &str) -> Result<(), String> {
    let unable = |error: std::io::Error| format!("health check failed: {error}");
    let address: SocketAddr =
        address.to_socket_addrs().map_err(unable)?.next().ok_or("health check failed: no address")?;
    let mut stream = TcpStream::connect_timeout(&address, HEALTH_WITHIN).map_err(unable)?;
    stream.set_read_timeout(Some(HEALTH_WITHIN)).map_err(unable)?;
    write!(stream, "GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").map_err(unable)?;
    let mut answer = String::new();
    stream.take(64 << 10).read_to_string(&mut answer).map_err(unable)?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err("health check failed: not healthy".into()) }
}
