use super::*;

type Whole = (StatusCode, HeaderMap, Vec<u8>, HeaderMap, bool);

/// The reply in `text`, which comes in pieces of `step` bytes, then the connection's end; and what is left over.
fn read(text: &[u8], step: usize, to_head: bool) -> Result<(Whole, Vec<u8>), Garbled> {
    let mut pieces = text.chunks(step);
    let (mut bytes, mut seen) = (BytesMut::new(), 0);
    let head = loop {
        match start(&mut bytes, &mut seen, to_head)? {
            Some(head) => break head,
            None => bytes.extend_from_slice(pieces.next().ok_or(Garbled::Ended)?),
        }
    };
    let (mut rest, mut body, mut trailers) = (head.rest, Vec::new(), HeaderMap::new());
    loop {
        match rest.next(&mut bytes)? {
            Piece::Data(data) => body.extend_from_slice(&data),
            Piece::Trailers(came) => trailers = came,
            Piece::End => break,
            Piece::More => match pieces.next() {
                Some(piece) => bytes.extend_from_slice(piece),
                None => rest.closed()?,
            },
        }
    }
    pieces.for_each(|piece| bytes.extend_from_slice(piece));
    Ok(((head.status, head.headers, body, trailers, head.keeps), bytes.to_vec()))
}

#[test]
fn replies_that_can_be_read_and_their_neighbours() {
    type Read<'a> = (u16, &'a str, bool, &'a str);
    let table: &[(&str, Result<Read<'_>, Garbled>)] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", Ok((200, "abc", true, ""))),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1", Ok((200, "abc", true, "HTTP/1.1"))),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Ok((200, "", true, ""))),
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Ok((200, "", true, ""))),
        ("HTTP/1.1 204 No\r\n\r\nabc", Ok((204, "", true, "abc"))),
        ("HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", Ok((304, "", true, ""))),
        ("HTTP/1.1 200 OK\r\n\r\nabc", Ok((200, "abc", false, ""))),
        ("HTTP/1.0 200 OK\r\n\r\nabc", Ok((200, "abc", false, ""))),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na", Ok((200, "a", false, ""))),
        ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 1\r\n\r\na", Ok((200, "a", false, ""))),
        ("HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 H\r\nA: b\r\n\r\nHTTP/1.1 204 N\r\n\r\n", Ok((204, "", true, ""))),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", Ok((200, "ab", true, ""))),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=\"b\"\r\nab\r\n1  \r\nc\r\n0\r\nA: b\r\n\r\nd",
            Ok((200, "abc", true, "d")),
        ),
        // These are refused with the headers they came with, and never followed by another.
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc", Ok((200, "abc", false, ""))),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nabc", Ok((200, "abc", false, ""))),
        ("HTTP/1.1 101 Go\r\nUpgrade: x\r\n\r\n", Err(Garbled::Switch)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", Err(Garbled::Ended)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3", Err(Garbled::Ended)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", Err(Garbled::Length)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc", Err(Garbled::Length)),
        ("HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc", Err(Garbled::Length)),
        ("HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nabc", Err(Garbled::Length)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabc", Err(Garbled::Length)),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Err(Garbled::Length)),
        ("HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc", Err(Garbled::Head)),
        ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", Err(Garbled::Head)),
        ("HTTP/1.1 200 OK\nContent-Length: 3\r\n\r\nabc", Err(Garbled::LineEnd)),
        ("HTTP/1.1 200 OK\r\nA: b\n\r\n", Err(Garbled::LineEnd)),
        ("HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n", Err(Garbled::Head)),
        ("HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", Err(Garbled::Head)),
        ("HTTP/1.1 099 OK\r\n\r\n", Err(Garbled::Head)),
        ("HTTP/2.0 200 OK\r\n\r\n", Err(Garbled::Head)),
        ("SSH-2.0-x\r\n\r\n", Err(Garbled::Head)),
        ("\r\n\r\n", Err(Garbled::Head)),
    ];
    for (text, wanted) in table {
        for step in [1, 2, 7, text.len()] {
            let got = read(text.as_bytes(), step, false);
            let got = got.map(|((status, _, body, _, keeps), left)| {
                (status.as_u16(), String::from_utf8(body).unwrap(), keeps, String::from_utf8(left).unwrap())
            });
            let wanted = wanted.map(|(status, body, keeps, left)| (status, body.into(), keeps, left.into()));
            assert_eq!(got, wanted, "{text:?} by {step}");
        }
    }
    let ((.., body, _, keeps), left) = read(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", 9, true).unwrap();
    assert_eq!((body, keeps, left), (vec![], true, vec![]));
}

#[test]
fn chunks_and_their_malformed_neighbours() {
    for (body, wanted) in [
        ("3\r\nabc\r\n0\r\n\r\n", Ok("abc")),
        ("000000000000003\r\nabc\r\n00\r\n\r\n", Ok("abc")),
        ("A\r\n0123456789\r\n0\r\n\r\n", Ok("0123456789")),
        ("3\r\nabc\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n", Ok("abc")),
        ("3\r\nabcd\r\n0\r\n\r\n", Err(Garbled::Chunk)),
        ("3\r\nabc0\r\n\r\n", Err(Garbled::Chunk)),
        ("3\nabc\r\n0\r\n\r\n", Err(Garbled::Chunk)),
        ("3\r\nabc\n0\r\n\r\n", Err(Garbled::Chunk)),
        ("0x3\r\nabc\r\n0\r\n\r\n", Err(Garbled::Chunk)),
        ("+3\r\nabc\r\n0\r\n\r\n", Err(Garbled::Chunk)),
        ("-1\r\nabc\r\n0\r\n\r\n", Err(Garbled::Chunk)),
        (" 3\r\nabc\r\n0\r\n\r\n", Err(Garbled::Chunk)),
        ("\r\nabc\r\n0\r\n\r\n", Err(Garbled::Chunk)),
        (";a\r\nabc\r\n0\r\n\r\n", Err(Garbled::Chunk)),
        ("3;a\rb\r\nabc\r\n0\r\n\r\n", Err(Garbled::Chunk)),
        ("10000000000000000\r\nabc\r\n0\r\n\r\n", Err(Garbled::Chunk)),
        ("ffffffffffffffff\r\nabc", Err(Garbled::Ended)),
        ("3\r\nabc\r\n0\r\n", Err(Garbled::Ended)),
        ("3\r\nabc\r\n0\r\nX\r\n\r\n", Err(Garbled::Trailers)),
        ("3\r\nabc\r\n0\r\nX: 1\n\r\n", Err(Garbled::Trailers)),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        for step in [1, 2, 7, text.len()] {
            let got = read(text.as_bytes(), step, false).map(|((.., body, _, _), _)| String::from_utf8(body).unwrap());
            assert_eq!(got, wanted.map(String::from), "{body:?} by {step}");
        }
    }
}

#[test]
fn everything_has_a_limit() {
    let head = |length: usize| format!("HTTP/1.1 204 N\r\nA: {}\r\n\r\n", "b".repeat(length - 23));
    let many = |headers: usize| format!("HTTP/1.1 204 N\r\n{}\r\n", "A: b\r\n".repeat(headers));
    let chunked = |end: String| format!("HTTP/1.1 200 N\r\nTransfer-Encoding: chunked\r\n\r\n{end}");
    let line = |length: usize| chunked(format!("0;{}\r\n\r\n", "b".repeat(length - 4)));
    let trailers = |length: usize| chunked(format!("0\r\nA: {}\r\n\r\n", "b".repeat(length - 7)));
    for (fits, too_long, wanted) in [
        (head(HEAD_BYTES_MAX), head(HEAD_BYTES_MAX + 1), Garbled::HeadTooLong),
        (many(HEADERS_MAX), many(HEADERS_MAX + 1), Garbled::Head),
        (line(SIZE_LINE_BYTES_MAX), line(SIZE_LINE_BYTES_MAX + 1), Garbled::Chunk),
        (trailers(TRAILER_BYTES_MAX), trailers(TRAILER_BYTES_MAX + 1), Garbled::Trailers),
    ] {
        for step in [1000, 1 << 20] {
            assert!(read(fits.as_bytes(), step, false).is_ok(), "{wanted:?} by {step}");
            assert_eq!(read(too_long.as_bytes(), step, false).err(), Some(wanted), "by {step}");
        }
    }
    // One that never ends is not read for ever.
    assert_eq!(read(&vec![b'a'; HEAD_BYTES_MAX + 1], 1 << 12, false).err(), Some(Garbled::HeadTooLong));
}
