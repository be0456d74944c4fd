//! The hunt for the credential: everything the agent can read is cut into words, and their hashes are compared with the
//! one it was given.

use crate::attempts::Attempt;
use crate::judge::{self, Decision};
use crate::known::Known;
use crate::words::Hunt;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Of one file, no more is read.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Of all files together.
const ALL_BYTES_MAX: u64 = 24 << 20;
/// The hunt through the files ends here at the latest.
const FILES_MAX: Duration = Duration::from_secs(4);
/// Where to look first; the rest of the root follows.
const LIKELY: [&str; 10] = [".", "/.bottle", "/run", "/tmp", "/home", "/root", "/workspace", "/etc", "/var", "/opt"];
/// Not files of anybody, or hunted on their own.
const SKIPPED: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The attempts of this theme.
pub const ATTEMPTS: &[Attempt] = &[
    Attempt {
        slug: "hunt-environment",
        tried: "the credential in its own environment",
        expected: "not there",
        run: environment,
    },
    Attempt {
        slug: "hunt-processes",
        tried: "the credential in what /proc says of all processes",
        expected: "not there",
        run: processes,
    },
    Attempt {
        slug: "hunt-files",
        tried: "the credential in every file it can read",
        expected: "not there",
        run: files,
    },
];

fn environment(known: &Known) -> Decision {
    let mut hunt = Hunt::new(&known.canary_sha256);
    let found = std::env::vars_os().find(|(_, value)| hunt.finds(value.as_bytes()));
    let place = found.map(|(name, _)| name.to_string_lossy().into_owned());
    judge::not_found(place.as_deref(), &format!("{} words", hunt.words()))
}

fn processes(known: &Known) -> Decision {
    let mut hunt = Hunt::new(&known.canary_sha256);
    let Ok(entries) = fs::read_dir("/proc") else { return Decision::broken("not tried: no /proc") };
    let ids = entries.flatten().filter(|entry| entry.file_name().as_bytes().iter().all(u8::is_ascii_digit));
    let mut read = 0;
    for process in ids {
        for part in ["cmdline", "environ", "comm"] {
            let path = process.path().join(part);
            let Some(bytes) = head(&path) else { continue };
            read += 1;
            if hunt.finds(&bytes) {
                return judge::not_found(path.to_str(), "");
            }
        }
    }
    judge::not_found(None, &format!("{} words of {read} files of /proc", hunt.words()))
}

fn files(known: &Known) -> Decision {
    let mut hunt = Hunt::new(&known.canary_sha256);
    let begun = Instant::now();
    // A stack: the likely places last, so that they come off first.
    let mut left: Vec<PathBuf> = std::iter::once("/").chain(LIKELY.into_iter().rev()).map(PathBuf::from).collect();
    let (mut read, mut bytes_read) = (0_u32, 0_u64);
    while let Some(path) = left.pop() {
        if begun.elapsed() > FILES_MAX || bytes_read > ALL_BYTES_MAX {
            break;
        }
        let Ok(kind) = path.symlink_metadata().map(|found| found.file_type()) else { continue };
        if kind.is_dir() && !SKIPPED.iter().any(|skipped| path == Path::new(skipped)) {
            left.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if kind.is_file()
            && let Some(bytes) = head(&path)
        {
            read += 1;
            bytes_read += bytes.len() as u64;
            if hunt.finds(&bytes) {
                return judge::not_found(path.to_str(), "");
            }
        }
    }
    judge::not_found(None, &format!("{} words of {read} files", hunt.words()))
}

fn head(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
