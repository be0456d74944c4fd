//! Connecting, against sockets that behave badly. What a good engine does is in the contract.

use super::*;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

async fn connect(path: &Path) -> Result<Docker, EngineError> {
    Docker::connect_to(Address::Unix(path.to_owned()), |_| String::new()).await
}

/// Answers every request with one body.
fn serve(path: &Path, body: &'static str) {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.windows(4).any(|w| w == b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap() > 0 {}
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
            let answer = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
}

#[tokio::test]
async fn where_nobody_answers_it_is_unreachable() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("engine.sock");
    let error = connect(&path).await.err().unwrap();
    assert_eq!(error.kind, Kind::Unreachable, "no socket: {error:?}");
    drop(UnixListener::bind(&path).unwrap());
    let error = connect(&path).await.err().unwrap();
    assert_eq!(error.kind, Kind::Unreachable, "nobody listens: {error:?}");
    assert!(error.to_string().contains("engine.sock"), "{error}");
}

#[tokio::test]
async fn an_engine_may_not_be_too_old() {
    let directory = tempfile::tempdir().unwrap();
    for (name, body, wanted) in [
        ("old", r#"{"Version":"19.03","ApiVersion":"1.40"}"#, Err("its API is 1.40, and at least 1.41 is needed")),
        ("oldest", r#"{"Version":"20.10.24","ApiVersion":"1.41"}"#, Ok(Api { major: 1, minor: 41 })),
        ("new", r#"{"Version":"99","ApiVersion":"1.48"}"#, Ok(Api { major: 1, minor: 48 })),
    ] {
        let path = directory.path().join(name);
        serve(&path, body);
        let got = connect(&path).await.map(|docker| docker.inner.api).map_err(|e| e.to_string());
        let got = got.map_err(|said| said.split_once(" is too old: ").map_or(said.clone(), |(_, why)| why.to_owned()));
        assert_eq!(got, wanted.map_err(str::to_owned), "{name}");
    }
    let path = directory.path().join("other");
    serve(&path, "not json");
    assert!(connect(&path).await.is_err());
}
