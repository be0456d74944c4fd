//! `bench cred-proxy`: cred-proxy deployed alone against nginx, on one upstream, in turns. No container is involved: the
//! binary is the static one that a release has in its image.
//!
//! ```text
//! cargo run --release -p bottle-tests --bin bench -- cred-proxy
//! ```

mod load;
mod report;
mod sides;
mod upstream;

use crate::bars::median;
use crate::interrupt::Interrupt;
use launcher::sidecars::Profile;
use load::Target;
use report::Numbers;
use sides::{CredProxy, Nginx};
use std::path::PathBuf;
use std::time::Duration;
use upstream::Upstream;

/// Kept-alive connections of the measure of requests a second.
const CONNECTIONS: usize = 64;
/// How long one round of it takes on each side.
const ROUND: Duration = Duration::from_millis(1500);
/// Requests of one round of the measure of latency, on each side.
const REQUESTS: usize = 2000;
/// Bytes of the long reply.
const LONG_BYTES: u64 = 1 << 30;
/// Bytes of the replies that show what masking costs.
const MASKED_BYTES: u64 = 64 << 20;
/// Rounds of the long reply: it takes long, and varies little.
const LONG_ROUNDS: u32 = 5;
/// Events of one round, on each side.
const EVENTS: usize = 60;
/// Streams that are open at once.
const STREAMS: usize = 1000;
/// How often a start is measured.
const STARTS: u32 = 9;
/// Descriptors for all of it.
const DESCRIPTORS: u64 = 8192;

/// Measures, and tells the table and the line of JSON.
pub fn bench(
    binary: Option<PathBuf>,
    rounds: u32,
    interrupt: &Interrupt,
    tell: &dyn Fn(&str) -> Result<(), String>,
) -> Result<(), String> {
    raise_descriptors()?;
    let program = binary.map_or_else(program, Ok)?;
    let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
    let upstream = Upstream::start()?;
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let client = client.map_err(|e| format!("no runtime for the client: {e}"))?;
    let nginx = Nginx::start(upstream.address, folder.path())?;
    let mut numbers = Numbers { image_mb: megabytes(&program)?, ..Numbers::default() };
    for _ in 0..STARTS {
        let started = CredProxy::start(&program, upstream.address, folder.path())?;
        numbers.start_to_ready_ms.push(started.ready.as_secs_f64() * 1e3);
    }
    let ours = CredProxy::start(&program, upstream.address, folder.path())?;
    numbers.rss_idle_mb = ours.rss_mb()?;
    let direct = Target { address: upstream.address, prefix: "" };
    tell(&format!("{}; {rounds} rounds", program.display()))?;

    for round in 0..=rounds {
        interrupt.check()?;
        // The side that goes first changes, and the first round warms up: it does not count.
        let mut sides =
            [(&ours.masked, &mut numbers.ours), (&nginx.buffered, &mut numbers.nginx), (&direct, &mut numbers.direct)];
        sides.rotate_left(round as usize % 3);
        for (target, figures) in sides {
            let rps = client.block_on(load::requests_per_second(target, CONNECTIONS, ROUND))?;
            let ms = client.block_on(load::median_ms(target, REQUESTS))?;
            if round > 0 {
                figures.rps.push(rps);
                figures.p50_ms.push(ms);
            }
        }
        if round > 0 {
            tell(&numbers.round_line(round))?;
        }
    }
    for round in 0..LONG_ROUNDS {
        interrupt.check()?;
        let mut sides = [(&ours.masked, &mut numbers.ours), (&nginx.streaming, &mut numbers.nginx)];
        sides.rotate_left(round as usize % 2);
        for (target, figures) in sides {
            figures.bytes.push(client.block_on(load::bytes_per_second(target, LONG_BYTES))?);
        }
    }
    for round in 0..2 * LONG_ROUNDS {
        interrupt.check()?;
        let mut sides = [(&ours.masked, &mut numbers.masked), (&ours.bare, &mut numbers.bare)];
        sides.rotate_left(round as usize % 2);
        for (target, bytes) in sides {
            bytes.push(client.block_on(load::bytes_per_second(target, MASKED_BYTES))?);
        }
    }
    for round in 0..LONG_ROUNDS {
        interrupt.check()?;
        let mut sides =
            [(&ours.masked, &mut numbers.ours), (&nginx.streaming, &mut numbers.nginx), (&direct, &mut numbers.direct)];
        sides.rotate_left(round as usize % 3);
        for (target, figures) in sides {
            figures.event_ms.push(client.block_on(load::event_delay_ms(target, EVENTS, upstream.epoch))?);
        }
    }
    interrupt.check()?;
    // A process of its own: what the rounds before left in the allocator says nothing about streams.
    drop(ours);
    let ours = CredProxy::start(&program, upstream.address, folder.path())?;
    let open = client.block_on(load::open_streams(&ours.masked, STREAMS))?;
    let mut seen = Vec::new();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        seen.push(ours.rss_mb()?);
    }
    drop(open);
    numbers.rss_1000_streams_mb = median(&seen);
    tell(&numbers.table())?;
    tell(&numbers.json())
}

/// The static binary of a release's image, built where it is old.
fn program() -> Result<PathBuf, String> {
    let wanted = launcher::sidecars::SIDECARS.into_iter().filter(|sidecar| sidecar.name == "cred-proxy");
    let found = launcher::sidecars::binaries_of(Profile::Dist, &wanted.collect::<Vec<_>>(), &|_| {});
    let found = found.map_err(|failure| format!("{}: {}", failure.message, failure.hint.unwrap_or_default()))?;
    found.get("cred-proxy").cloned().ok_or_else(|| "there is no cred-proxy".to_owned())
}

/// An image of one static binary is as large as the binary, but for a few hundred bytes.
fn megabytes(program: &std::path::Path) -> Result<f64, String> {
    let facts = std::fs::metadata(program).map_err(|e| format!("{}: {e}", program.display()))?;
    Ok(facts.len() as f64 / 1e6)
}

/// The client, the upstream and a thousand streams of either side need more than a shell gives; children inherit it.
fn raise_descriptors() -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let enough = now.current.is_none_or(|current| current >= DESCRIPTORS);
    if enough {
        return Ok(());
    }
    if now.maximum.is_some_and(|maximum| maximum < DESCRIPTORS) {
        return Err(format!("{DESCRIPTORS} file descriptors are needed (ulimit -Hn)"));
    }
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum: now.maximum });
    raised.map_err(|e| format!("no more file descriptors: {e}"))
}
