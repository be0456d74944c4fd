//! Bytes as entries of a pack, with a header and a checksum that are right (else nothing would get past them).
#![no_main]

use git_gate::pack::ObjectFormat;
use git_gate_fuzz::{pack_of, take};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (head, entries) = input;
    let format = if head & 0x80 == 0 { ObjectFormat::Sha1 } else { ObjectFormat::Sha256 };
    let pack = pack_of(u32::from(head & 0x3f), entries, format);
    let pack = if head & 0x40 == 0 { &pack[..] } else { entries };
    if let Ok((verified, shown)) = take(pack, format) {
        for (oid, (kind, content, _)) in &shown {
            assert_eq!(verified.kind_of(oid), Some(*kind));
            assert_eq!(verified.read(oid, 1 << 20).expect("it was small"), Some((*kind, content.clone())));
            let _ = verified.path_of(oid);
        }
        let _ = (verified.boundary(16), verified.commits().count());
    }
});
