//! Resource limits, of a bottle or as the user's defaults.

use super::Limits;
use super::reader::{Table, any_text};
use super::report::Report;
use super::tree::Entry;
use super::units::{NotAQuantity, bytes, count, processors, seconds};

/// Reads the table `limits` over the values that hold where it says nothing.
pub(super) fn read(entry: Option<&Entry>, defaults: &Limits, report: &mut Report) -> Limits {
    let mut limits = defaults.clone();
    let Some(mut table) = entry.and_then(|entry| Table::open(&entry.value, "`limits`", entry.at, report)) else {
        return limits;
    };
    set(&mut limits.cpus, table.take("cpus"), report, |text| processors(text, 0.1..=256.0));
    set(&mut limits.memory_bytes, table.take("memory"), report, |text| bytes(text, 64 << 20..=4 << 40));
    set(&mut limits.pids, table.take("pids"), report, |text| count(text, 16..=1 << 16));
    set(&mut limits.disk_bytes, table.take("disk"), report, |text| bytes(text, 64 << 20..=64 << 40));
    set(&mut limits.time_s, table.take("time"), report, |text| seconds(text, 1..=30 * 86_400).map(Some));
    table.finish(report);
    limits
}

/// Sets a value to what is written, where something is and can be read.
pub(super) fn set<T>(
    value: &mut T,
    entry: Option<&Entry>,
    report: &mut Report,
    read: impl Fn(&str) -> Result<T, NotAQuantity>,
) {
    let Some(entry) = entry else { return };
    let Some(text) = any_text(&entry.value, &format!("`{}`", entry.key), report) else { return };
    match read(&text.text) {
        Ok(read) => *value = read,
        Err(error) => report.error_with(text.at, format!("`{}`: {}", entry.key, error.message), error.hint),
    }
}
