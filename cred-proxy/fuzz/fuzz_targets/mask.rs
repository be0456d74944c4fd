//! No form of the secret passes, however the text is cut.
#![no_main]

use bytes::Bytes;
use cred_proxy::Secret;
use cred_proxy::mask::{Forms, Mask};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

/// The secret's length, the secret, then chunks: a length each, and in place of some the secret itself.
fuzz_target!(|data: &[u8]| {
    let Some((length, rest)) = data.split_first() else { return };
    let Some((secret, mut rest)) = rest.split_at_checked(usize::from(length % 24) + 1) else { return };
    let Ok(secret) = std::str::from_utf8(secret) else { return };
    if secret.trim() != secret || secret.chars().any(char::is_control) {
        return;
    }
    let Ok(forms) = Forms::new(&[Secret::new(secret.to_owned())]) else { return };
    let forms = Arc::new(forms);
    let (mut mask, mut sent, mut out) = (Mask::new(forms.clone()), Vec::new(), Vec::new());
    while let Some((length, behind)) = rest.split_first() {
        let chunk: Vec<u8> = if *length >= 0xf0 {
            rest = behind;
            secret.as_bytes().to_vec()
        } else {
            let (chunk, behind) = behind.split_at(behind.len().min(usize::from(length % 32)));
            rest = behind;
            chunk.to_vec()
        };
        sent.extend_from_slice(&chunk);
        out.extend_from_slice(&mask.push(Bytes::from(chunk)));
        assert_eq!(out.len() + mask.held_bytes(), sent.len());
    }
    out.extend_from_slice(&mask.finish());
    assert_eq!(out.len(), sent.len());
    assert!(!forms.is_in(&out));
    // Without the search that masking relies on.
    assert!(!out.windows(secret.len()).any(|window| window == secret.as_bytes()));
    assert_eq!(out, forms.masked(&sent));
    if !forms.is_in(&sent) {
        assert_eq!(out, sent);
    }
});
