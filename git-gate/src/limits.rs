//! Every limit of the gate, with its default. What is over one is refused with the limit's name and value.

use serde::{Deserialize, Serialize};
use std::time::Duration;

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $default:expr,)*) => {
        /// All limits. Sizes are in bytes, times in seconds; every name says which.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Limits {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Limits {
            /// Every limit's name and value.
            pub fn entries(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

limits! {
    /// One push's pack.
    pack_bytes: 2 * GIB,
    /// One object, inflated.
    object_bytes: 512 * MIB,
    /// All objects of a push, inflated.
    inflated_bytes: 16 * GIB,
    /// All objects of a push, inflated, as a multiple of the pack's bytes (64 MiB more are free).
    inflated_ratio: 200,
    /// Objects in a pack.
    objects: 2_000_000,
    /// Deltas on deltas.
    delta_depth: 4095,
    /// Memory for delta bases; larger ones are built in the spool.
    resolver_bytes: 64 * MIB,
    /// Disk for all pushes at once.
    spool_bytes: 8 * GIB,
    /// Ref updates in one push.
    commands: 1000,
    /// All ref updates of a push.
    command_bytes: 4 * MIB,
    /// One ref's name.
    ref_bytes: KIB,
    /// Options of one push.
    push_options: 16,
    /// One option of a push.
    push_option_bytes: KIB,
    /// All requests of one fetch together.
    fetch_request_bytes: 64 * MIB,
    /// What an upstream says first.
    advert_bytes: 256 * MIB,
    /// Encodings within encodings that the scan opens.
    decode_depth: 3,
    /// What the scan decodes of one blob.
    decode_blob_bytes: 64 * MIB,
    /// What the scan decodes of one push.
    decode_push_bytes: GIB,
    /// Entries of one archive that the scan opens.
    archive_entries: 10_000,
    /// The scan's processor time for one push.
    scan_seconds: 120,
    /// One more second of processor time for so many scanned bytes.
    scan_bytes_per_second: 4 * MIB,
    /// Questions to the upstream about the findings of one push, and about what a ref stood at.
    lookup_requests: 64,
    /// The upstream's answers to them.
    lookup_bytes: 64 * MIB,
    /// The time for them.
    lookup_seconds: 30,
    /// Commits looked at to tell a fast-forward.
    forward_commits: 50_000,
    /// A connection to an upstream.
    connect_seconds: 10,
    /// Its handshake and login.
    handshake_seconds: 15,
    /// What an upstream says first, in all.
    advert_seconds: 60,
    /// The agent's first packet.
    first_packet_seconds: 10,
    /// A push's ref updates, and a request of a fetch.
    commands_seconds: 60,
    /// From the ref updates to the pack: git may search for deltas for long, in silence.
    pack_wait_seconds: 1800,
    /// Silence inside a pack, or of an agent that does not read.
    idle_seconds: 120,
    /// The slowest pack, in bytes per second over 120 seconds.
    pack_bytes_per_second: KIB,
    /// Silence of an upstream in a fetch.
    upstream_idle_seconds: 600,
    /// The upstream's report on a push.
    report_seconds: 600,
    /// A whole push.
    push_seconds: 3600,
    /// After a refusal, for the rest of what the agent sends.
    drain_seconds: 30,
    /// Between two signs of life to an agent that waits.
    keepalive_seconds: 5,
    /// Connections of the agent at one time.
    connections: 64,
    /// Pushes at work at one time.
    pushes: 4,
    /// Sessions with upstreams at one time.
    sessions: 8,
    /// How long the others wait for their turn.
    turn_seconds: 60,
}

impl Limits {
    /// The name of a limit that cannot be lived with, which is one of zero.
    pub fn impossible(&self) -> Option<&'static str> {
        self.entries().into_iter().find(|(_, value)| *value == 0).map(|(name, _)| name)
    }
}

/// A limit in seconds as a duration.
pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
