//! What an agent may use up at cred-proxy: the table `cred_proxy.limits`. Ranges are those that cred-proxy itself takes.

use super::reader::Table;
use super::report::Report;
use super::tree::Entry;
use super::units::{NotAQuantity, bytes, count, seconds};
use cred_proxy::config::Limits;

/// The longest quiet, in seconds.
const DAY_S: u64 = 86_400;

/// Reads the table over cred-proxy's own defaults.
pub(super) fn read(entry: Option<&Entry>, report: &mut Report) -> Limits {
    let mut limits = Limits::default();
    let Some(mut table) = entry.and_then(|entry| Table::open(&entry.value, "`limits`", entry.at, report)) else {
        return limits;
    };
    let mut set = |value: &mut u32, key, read: &dyn Fn(&str) -> Result<u64, NotAQuantity>| {
        // The ranges below all fit.
        let read = |text: &str| read(text).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        super::limits::set(value, table.take(key), report, read);
    };
    set(&mut limits.head_bytes, "head", &|text| bytes(text, 1 << 10..=1 << 20));
    set(&mut limits.connections, "connections", &|text| count(text, 1..=1 << 16));
    set(&mut limits.requests, "requests", &|text| count(text, 1..=1 << 16));
    set(&mut limits.head_seconds, "head_time", &|text| seconds(text, 1..=DAY_S));
    set(&mut limits.idle_seconds, "idle_time", &|text| seconds(text, 1..=DAY_S));
    set(&mut limits.connect_seconds, "connect_time", &|text| seconds(text, 1..=600));
    set(&mut limits.reply_seconds, "reply_time", &|text| seconds(text, 1..=DAY_S));
    let body = |text: &str| bytes(text, 1..=64 << 40).map(Some);
    super::limits::set(&mut limits.body_bytes, table.take("body"), report, body);
    table.finish(report);
    limits
}
