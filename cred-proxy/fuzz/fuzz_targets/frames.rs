//! Frames of an upstream: cuts change nothing, lengths stay, the secret does not pass in a message.
#![no_main]

use bytes::Bytes;
use cred_proxy::Secret;
use cred_proxy::frames::Frames;
use cred_proxy::mask::Forms;
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};

static FORMS: LazyLock<Arc<Forms>> =
    LazyLock::new(|| Arc::new(Forms::new(&[Secret::new("s3cr3t-t0".to_owned())]).expect("it can be masked")));

fuzz_target!(|data: &[u8]| {
    let Some((step, bytes)) = data.split_first() else { return };
    let mut whole = Frames::new(FORMS.clone());
    let at_once = whole.push(Bytes::copy_from_slice(bytes));
    let (mut cut, mut out) = (Frames::new(FORMS.clone()), Vec::new());
    for chunk in bytes.chunks(usize::from(step % 8) + 1) {
        match cut.push(Bytes::copy_from_slice(chunk)) {
            Ok(piece) => out.extend_from_slice(&piece),
            Err(error) => {
                assert_eq!(at_once, Err(error));
                return;
            }
        }
    }
    let at_once = at_once.expect("it passes in pieces");
    assert_eq!(at_once, out);
    assert!(out.len() <= bytes.len());
    for (out, sent) in out.iter().zip(bytes) {
        assert!(out == sent || *out == b'*');
    }
});
