//! Measures: receives the pack on standard input (or in a file) and says how long it took and how much memory.
//! `cargo run --release -p git-gate --example receive -- [FILE [LOOKUPS]]`

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement, not the product")]

use std::io::{BufReader, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use git_gate::pack::{Content, Object, ObjectFormat, PackLimits, Refused, Sink, receive};
use git_gate::spool::{Spool, SpoolBudget};

/// Reads every byte and looks at none.
#[derive(Default)]
struct Count {
    objects: AtomicU64,
    bytes: AtomicU64,
}

impl Sink for Count {
    fn object(&self, object: Object<'_>) -> Result<(), Refused> {
        self.objects.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(object.size, Ordering::Relaxed);
        if let Content::Stream(stream) = object.content {
            std::io::copy(stream, &mut std::io::sink()).map_err(|error| Refused(error.to_string().into()))?;
        }
        Ok(())
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let input: Box<dyn Read> = match args.next() {
        Some(file) => Box::new(std::fs::File::open(file).unwrap()),
        None => Box::new(std::io::stdin().lock()),
    };
    let mut reader = BufReader::with_capacity(128 << 10, input);
    let folder = std::env::temp_dir();
    let spool = Spool::create(&folder, &SpoolBudget::new(8 << 30)).unwrap();
    let count = Count::default();
    let start = Instant::now();
    let limits = PackLimits { pack_bytes_max: 8 << 30, ..PackLimits::default() };
    let verified = receive(&mut reader, spool, &limits, ObjectFormat::Sha1, &count).unwrap();
    let took = start.elapsed().as_secs_f64();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (objects, inflated) = (count.objects.into_inner(), count.bytes.into_inner());
    println!("{objects} objects, pack {:.1} MiB, inflated {:.1} MiB", mib(verified.bytes()), mib(inflated));
    println!("{took:.3} s, {:.1} MiB/s of pack", mib(verified.bytes()) / took);
    let start = Instant::now();
    let commits: Vec<_> = verified.commits().collect();
    println!("{} commits, {} boundary parents", commits.len(), verified.boundary(usize::MAX).unwrap().len());
    println!("{:.3} s for all commits", start.elapsed().as_secs_f64());
    println!("{}", status("VmHWM:"));
}

fn status(key: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned()
}
