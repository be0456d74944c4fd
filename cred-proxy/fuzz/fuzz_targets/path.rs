//! A normal path has one reading.
#![no_main]

use cred_proxy::path::{normalise, unmasked_lower};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let lower = unmasked_lower(text.as_bytes());
    assert!(lower.len() <= text.len());
    let Ok(normal) = normalise(text) else { return };
    assert_eq!(normalise(&normal).as_deref(), Ok(normal.as_str()));
    assert!(normal.starts_with('/') && normal.is_ascii());
    let decoded = unmasked_lower(normal.as_bytes());
    for segment in decoded[1..].split(|byte| *byte == b'/') {
        assert!(segment != b"." && segment != b"..", "{normal}");
    }
    assert!(!normal.contains("//") && !normal.contains('\\') && !normal.contains(';'), "{normal}");
    assert!(!normal.to_ascii_lowercase().contains("%5c"), "{normal}");
    assert!(decoded.iter().all(|byte| *byte >= b' ' && *byte != 0x7f), "{normal}");
});
