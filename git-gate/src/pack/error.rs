//! What can be wrong with a pack, in words that the agent may read: numbers and places, never a byte of content.

use std::borrow::Cow;
use std::io;

use gix_hash::ObjectId;

use crate::spool::SpoolError;

/// Why a pack was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The connection gave an error while the pack was arriving.
    #[error("the pack could not be read from the client")]
    Read(#[source] io::Error),
    /// The connection ended before the pack did.
    #[error("the pack ends too early, after {at} bytes")]
    Truncated {
        /// How many bytes had arrived.
        at: u64,
    },
    /// The bytes could not be kept.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The first twelve bytes are not those of a pack that is taken here.
    #[error("this is no pack of version 2: {0}")]
    Header(&'static str),
    /// An entry is broken.
    #[error("pack entry {entry} at offset {offset} is broken: {fault}")]
    Entry {
        /// Its number, from 0.
        entry: u32,
        /// Where in the pack it starts.
        offset: u64,
        /// What is wrong with it.
        fault: EntryFault,
    },
    /// The pack is larger than allowed in one of many directions.
    #[error("the pack is over the git gate's limit {name} ({limit})")]
    Limit {
        /// The limit, as the manifest and the manual call it.
        name: &'static str,
        /// Its value, in the unit that the name tells.
        limit: u64,
    },
    /// The checksum at the end is not that of the bytes before it.
    #[error("the pack's checksum is wrong")]
    Checksum,
    /// Deltas whose base is not in the pack, or that stand on themselves.
    #[error(
        "{count} deltas have no base in the pack, the first is entry {entry} at offset {offset}; \
         push again with a git that sends whole packs when it is asked to (no-thin)"
    )]
    Unresolved {
        /// How many.
        count: u32,
        /// The first of them.
        entry: u32,
        /// Where it starts.
        offset: u64,
    },
    /// The system gave no thread for the work.
    #[error("the git gate could not start its work on the pack")]
    Thread(#[source] io::Error),
    /// The work ended without a reason of its own.
    #[error("the git gate stopped its work on the pack")]
    Stopped,
    /// The sink does not want to see more.
    #[error("{0}")]
    Refused(#[from] Refused),
}

/// What can be wrong with one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    /// Types 0 and 5 are reserved.
    #[error("its type is a reserved one")]
    Type,
    /// The size is longer than 63 bits or not written the shortest way.
    #[error("its size is not a size")]
    Size,
    /// The distance to the base leads out of the pack, or not to the start of an earlier entry.
    #[error("its base offset is not the start of an earlier entry")]
    BaseOffset,
    /// Not a zlib stream.
    #[error("its zlib stream is damaged")]
    Zlib,
    /// More bytes than the header said.
    #[error("it inflates to more bytes than its header says")]
    TooLong,
    /// Fewer bytes than the header said.
    #[error("it inflates to fewer bytes than its header says")]
    TooShort,
    /// The delta's own idea of its base's size is wrong.
    #[error("its delta is for a base of another size")]
    DeltaBaseSize,
    /// The delta gives more or fewer bytes than it said.
    #[error("its delta gives another number of bytes than it says")]
    DeltaResultSize,
    /// A copy from outside of the base.
    #[error("its delta copies from outside of its base")]
    DeltaCopy,
    /// Instruction 0 is reserved.
    #[error("its delta has a reserved instruction")]
    DeltaReserved,
    /// The instructions end in the middle of one, or a size is not a size.
    #[error("its delta ends too early")]
    DeltaTruncated,
    /// The object does not have the form of its type.
    #[error("{0}")]
    Malformed(crate::objects::Malformed),
    /// SHA-1 was attacked.
    #[error("its bytes carry a SHA-1 collision attack")]
    Collision,
}

/// Something that went wrong in an entry, before it is said in which.
pub(super) enum Fault {
    Entry(EntryFault),
    Pack(PackError),
}

impl Fault {
    pub(super) fn at(self, entry: u32, offset: u64) -> PackError {
        match self {
            Self::Entry(fault) => PackError::Entry { entry, offset, fault },
            Self::Pack(error) => error,
        }
    }

    /// The spool gave an error when it was read.
    pub(super) fn spool(error: io::Error) -> Self {
        Self::Pack(SpoolError::System(error).into())
    }
}

impl From<EntryFault> for Fault {
    fn from(fault: EntryFault) -> Self {
        Self::Entry(fault)
    }
}

impl From<PackError> for Fault {
    fn from(error: PackError) -> Self {
        Self::Pack(error)
    }
}

impl From<SpoolError> for Fault {
    fn from(error: SpoolError) -> Self {
        Self::Pack(error.into())
    }
}

impl From<crate::objects::Malformed> for Fault {
    fn from(malformed: crate::objects::Malformed) -> Self {
        Self::Entry(EntryFault::Malformed(malformed))
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        Self::Pack(PackError::Refused(refused))
    }
}

/// The sink's reason to see no more. It is shown to the agent as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub Cow<'static, str>);

/// Why something could not be looked up in a verified pack.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The pack in the spool cannot be read any more.
    #[error("the verified pack could not be read again")]
    Spool(#[source] io::Error),
    /// The walk was longer than allowed.
    #[error("over {limit} {what} would have to be read")]
    TooMany {
        /// What was counted.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// Said of an object that is larger than may be held in memory at once.
    #[error("object {0} is too large for this")]
    TooLarge(ObjectId),
}
