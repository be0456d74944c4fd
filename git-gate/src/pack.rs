//! Takes a pack from the agent: keeps it in the spool, checks every byte of it, shows every object of it to the sink,
//! and only then gives a [`Verified`], the one thing that may be forwarded. Nothing here knows git's protocol, refs, or
//! what a secret is. It must never give a `Verified` for a pack that git would read differently.
//!
//! The format is gitformat-pack(5), version 2.

mod arrive;
mod content;
mod delta;
mod entry;
mod error;
mod incoming;
mod index;
mod inflate;
mod limits;
mod links;
mod queue;
mod resolve;
mod show;
mod stored;
mod verified;
mod walk;

use std::io::{BufRead, Read};

pub use error::{EntryFault, LookupError, PackError, Refused};
pub use gix_hash::{Kind as ObjectFormat, ObjectId};
pub use limits::PackLimits;
pub use verified::{Descent, Found, Lookup, PackReader, Verified};

pub use crate::objects::ObjectKind;
use crate::spool::Spool;

/// Where every object of a pack goes, called from several threads at once and in no order.
pub trait Sink: Sync {
    /// Looks at one object. A content that is a stream must be read as far as the sink wants; it need not be to its end.
    ///
    /// # Errors
    /// Whatever ends the push at once. Findings that should be told together are the sink's to collect.
    fn object(&self, object: Object<'_>) -> Result<(), Refused>;

    /// Asked again and again during long work (about every megabyte): may it go on? Here a deadline belongs.
    ///
    /// # Errors
    /// Whatever ends the push at once.
    fn go_on(&self) -> Result<(), Refused> {
        Ok(())
    }
}

/// One object of the pack, its deltas resolved. An object that is in the pack twice is shown twice.
#[derive(Debug)]
pub struct Object<'a> {
    /// Its name, computed here from its bytes.
    pub id: ObjectId,
    /// What it is.
    pub kind: ObjectKind,
    /// How long its content is, in bytes.
    pub size: u64,
    /// Its content.
    pub content: Content<'a>,
}

/// An object's bytes. Commits, trees and tags are always `Bytes`.
pub enum Content<'a> {
    /// All of it.
    Bytes(&'a [u8]),
    /// Too large to be in memory at once: exactly `size` bytes come out of it.
    Stream(&'a mut dyn Read),
}

impl std::fmt::Debug for Content<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bytes(_) => "Bytes(..)",
            Self::Stream(_) => "Stream(..)",
        })
    }
}

/// Receives one pack from `reader` into `spool`, blocking. Reads to the last byte of the trailer and not one further:
/// what the client sent after it is still in `reader`.
///
/// # Errors
/// Anything that is wrong with the pack, over a limit, refused by the sink, or that the system could not do.
pub fn receive(
    reader: &mut dyn BufRead,
    spool: Spool,
    limits: &PackLimits,
    format: ObjectFormat,
    sink: &dyn Sink,
) -> Result<Verified, PackError> {
    let show = show::Show { sink, format };
    let incoming = incoming::Incoming::new(reader, spool, format, limits.pack_bytes_max);
    let arrived = arrive::arrive(incoming, limits, show, WORKERS)?;
    let resolved = resolve::resolve(arrived, limits, show, WORKERS)?;
    Ok(Verified::new(resolved, format))
}

/// Threads that look at objects; while the pack arrives, they are beside the one that reads it.
const WORKERS: usize = 2;

/// The sink is asked whether to go on after so many bytes of work.
const ASK_BYTES: u64 = 1 << 20;

/// Commits, trees and tags have a limit of their own, because they are parsed as a whole.
fn check_structured(kind: ObjectKind, size: u64, limits: &PackLimits) -> Result<(), PackError> {
    if kind != ObjectKind::Blob && size > limits.structured_bytes_max {
        return Err(PackError::Limit { name: "structured_bytes", limit: limits.structured_bytes_max });
    }
    Ok(())
}
