use super::*;

const HEAD_BYTES_MAX: usize = 64 << 10;

fn read(bytes: &[u8]) -> Result<(), Doubt> {
    Framing::new(HEAD_BYTES_MAX).read(bytes).map(|_| ()).map_err(|(_, doubt)| doubt)
}

#[test]
fn behind_a_head_that_asks_for_an_upgrade_nothing_is_read_yet() {
    for (head, stops) in [
        ("GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nupgrade: h2c\r\nContent-Length: 0\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nX-Upgrade: websocket\r\n\r\n", false),
    ] {
        let bytes = [head, "\x01\x05hello\n"].concat();
        let mut framing = Framing::new(HEAD_BYTES_MAX);
        if !stops {
            assert_eq!(framing.read(bytes.as_bytes()).map_err(|(_, doubt)| doubt), Err(Doubt::LineEnd), "{head:?}");
            continue;
        }
        assert_eq!(framing.read(bytes.as_bytes()), Ok(head.len()), "{head:?}");
        assert_eq!(framing.read(b"\n"), Ok(0), "{head:?}");
        assert!(framing.take_upgrade() && !framing.take_upgrade(), "{head:?}");
        assert_eq!(framing.read(b"\n"), Err((0, Doubt::LineEnd)), "{head:?}");
    }
    let with_body = b"POST / HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nab";
    assert_eq!(Framing::new(HEAD_BYTES_MAX).read(with_body), Ok(with_body.len()));
}

#[test]
fn plain_requests_pass_and_their_doubtful_neighbours_do_not() {
    use Doubt::{
        Chunk, Folded, Fragment, HeaderName, Length, LineEnd, RequestLine, TransferEncoding, TwoFramings, TwoLengths,
    };
    let table: &[(&str, Result<(), Doubt>)] = &[
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(())),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(())),
        ("GET / HTTP/1.0\r\n\r\n", Ok(())),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n", Ok(())),
        ("POST / HTTP/1.1\r\nContent-Length:3 \t\r\n\r\n\n\n\nGET / HTTP/1.1\r\n\r\n", Ok(())),
        ("POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n", Ok(())),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nab\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n", Ok(())),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n0\r\nA: b\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            Ok(()),
        ),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", Err(LineEnd)),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", Err(LineEnd)),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", Err(LineEnd)),
        ("GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", Err(LineEnd)),
        ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", Err(LineEnd)),
        ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Err(Folded)),
        ("GET / HTTP/1.1\r\n\tA: b\r\n\r\n", Err(Folded)),
        ("GET / HTTP/1.1\r\nA b\r\n\r\n", Err(HeaderName)),
        ("GET / HTTP/1.1\r\nContent-Length : 3\r\n\r\n", Err(HeaderName)),
        ("GET / HTTP/1.1\r\n: b\r\n\r\n", Err(HeaderName)),
        ("GET / HTTP/1.1\r\nA\0: b\r\n\r\n", Err(HeaderName)),
        ("GET  / HTTP/1.1\r\n\r\n", Err(RequestLine)),
        ("GET / HTTP/1.1 \r\n\r\n", Err(RequestLine)),
        ("GET / HTTP/2.0\r\n\r\n", Err(RequestLine)),
        ("GET /\r\n\r\n", Err(RequestLine)),
        ("GET /a#b HTTP/1.1\r\n\r\n", Err(Fragment)),
        ("GET /a?b#c HTTP/1.1\r\n\r\n", Err(Fragment)),
        ("GET /a%23b HTTP/1.1\r\nA: #\r\n\r\n", Ok(())),
        ("GET\t/\tHTTP/1.1\r\n\r\n", Err(RequestLine)),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Err(RequestLine)),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", Err(TwoFramings)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", Err(TwoFramings)),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", Err(TwoLengths)),
        ("POST / HTTP/1.1\r\nContent-Length: 3\r\ncontent-length: 4\r\n\r\n", Err(TwoLengths)),
        ("POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n", Err(Length)),
        ("POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n", Err(Length)),
        ("POST / HTTP/1.1\r\nContent-Length: 0x3\r\n\r\n", Err(Length)),
        ("POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", Err(Length)),
        ("POST / HTTP/1.1\r\nContent-Length: \x0b3\r\n\r\n", Err(Length)),
        ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", Err(Length)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Err(TransferEncoding)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", Err(TransferEncoding)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", Err(TransferEncoding)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", Err(TransferEncoding)),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Err(TransferEncoding)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\nab\r\n", Err(Chunk)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n", Err(Chunk)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nab\r\n", Err(Chunk)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nab\r\n", Err(Chunk)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", Err(Chunk)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", Err(Chunk)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000000\r\n", Err(Chunk)),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n", Err(Chunk)),
    ];
    for (text, wanted) in table {
        assert_eq!(read(text.as_bytes()), *wanted, "{text:?}");
        let mut one_by_one = Framing::new(HEAD_BYTES_MAX);
        let outcome =
            text.bytes().try_for_each(|byte| one_by_one.read(&[byte]).map(|_| ()).map_err(|(_, doubt)| doubt));
        assert_eq!(outcome, *wanted, "byte by byte: {text:?}");
    }
}

#[test]
fn a_request_before_the_doubtful_one_is_handed_over_whole() {
    let good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let bytes = [&good[..], b"GET / HTTP/1.1\n"].concat();
    let (at, doubt) = Framing::new(HEAD_BYTES_MAX).read(&bytes).unwrap_err();
    assert_eq!((at, doubt), (bytes.len() - 1, Doubt::LineEnd));
}

#[test]
fn a_head_has_a_limit() {
    let head = |length: usize| format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(length));
    let around = head(0).len();
    assert_eq!(read(head(HEAD_BYTES_MAX - around).as_bytes()), Ok(()));
    assert_eq!(read(head(HEAD_BYTES_MAX - around + 1).as_bytes()), Err(Doubt::HeadTooLong));
    assert_eq!(read(&b"\r\n".repeat(HEAD_BYTES_MAX)), Err(Doubt::HeadTooLong));
}
