//! What an upstream answers is read the same however its bytes are cut, and a body never has bytes that did not come.
#![no_main]

use bytes::BytesMut;
use cred_proxy::reading::{Garbled, Piece, start};
use libfuzzer_sys::fuzz_target;

/// Status, headers, body, trailers, whether the connection is kept; and what is left over.
type Whole = (u16, Vec<(String, Vec<u8>)>, Vec<u8>, usize, bool);

fn read(text: &[u8], step: usize, to_head: bool) -> Result<(Whole, Vec<u8>), Garbled> {
    let mut pieces = text.chunks(step);
    let (mut bytes, mut seen) = (BytesMut::new(), 0);
    let head = loop {
        match start(&mut bytes, &mut seen, to_head)? {
            Some(head) => break head,
            None => bytes.extend_from_slice(pieces.next().ok_or(Garbled::Ended)?),
        }
    };
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    let (mut rest, mut body, mut trailers) = (head.rest, Vec::new(), 0);
    loop {
        match rest.next(&mut bytes)? {
            Piece::Data(data) => {
                assert!(!data.is_empty());
                body.extend_from_slice(&data);
            }
            Piece::Trailers(came) => trailers = came.len(),
            Piece::End => break,
            Piece::More => match pieces.next() {
                Some(piece) => bytes.extend_from_slice(piece),
                None => rest.closed()?,
            },
        }
    }
    assert!(rest.is_over());
    pieces.for_each(|piece| bytes.extend_from_slice(piece));
    Ok(((head.status.as_u16(), headers, body, trailers, head.keeps), bytes.to_vec()))
}

fuzz_target!(|data: &[u8]| {
    let Some((first, text)) = data.split_first() else { return };
    let (step, to_head) = (usize::from(first >> 1).max(1), first & 1 == 1);
    let whole = read(text, text.len().max(1), to_head);
    assert_eq!(whole, read(text, step, to_head));
    if let Ok(((.., body, _, _), left)) = &whole {
        assert!(body.len() + left.len() <= text.len());
        assert!(text.ends_with(left));
    }
});
