//! The scan of any bytes: as a text and as a stream, which must find the same as long as no limit ends it.
#![no_main]

use std::sync::LazyLock;

use git_gate::scan::{Budget, Rules, Scanner, Secret, Source, Unclean};
use gix_hash::{Kind, ObjectId};
use libfuzzer_sys::fuzz_target;

static SCANNER: LazyLock<Scanner> = LazyLock::new(|| {
    let known = vec![Secret::new(b"the-known-secret-of-this-bottle".to_vec())];
    Scanner::new(Rules::built_in().expect("our rules"), known).expect("our scanner")
});

fn found(bytes: &[u8], stream: bool) -> Option<Vec<(String, u64)>> {
    let scan = SCANNER.start(Budget { decoded_bytes_per_object_max: 1 << 20, decoded_bytes_max: 4 << 20, ..Budget::default() });
    let source = Source::Blob(ObjectId::null(Kind::Sha1));
    let scanned = if stream { scan.stream(source, &mut &*bytes) } else { scan.text(source, bytes) };
    if scanned.is_err() {
        assert!(scan.finish().is_err(), "clean after an error");
        return None;
    }
    match scan.finish() {
        Ok(_) => Some(Vec::new()),
        Err(Unclean::Refused(_)) => None,
        Err(Unclean::Findings(findings)) => {
            let mut found: Vec<_> = findings.iter().map(|finding| (finding.rule.clone(), finding.offset)).collect();
            for finding in findings.iter() {
                let _ = (finding.preview(), finding.fingerprint(Some(b"path")));
            }
            found.sort();
            Some(found)
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (text, stream) = (found(bytes, false), found(bytes, true));
    if let (Some(text), Some(stream)) = (text, stream) {
        assert_eq!(text, stream, "a text and a stream of the same bytes");
    }
});
