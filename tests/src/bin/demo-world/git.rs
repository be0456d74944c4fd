//! A git host over smart HTTP: the real `git http-backend` as CGI (RFC 3875), behind HTTPS and HTTP. It makes its one
//! repository when it starts and takes pushes from whoever shows the credential, so that one that gets through shows.
//!
//! It needs git where it runs: on this machine, or in the image of real clients.

use crate::api::HANDSHAKE_MAX;
use crate::listen::{Listening, serve};
use crate::reply::{self, MARK, Reply, ReplyBody};
use crate::start::StartError;
use crate::witness::Witness;
use bottle_tests::world::role::{Expected, GitConfig};
use bottle_tests::world::{Evidence, evidence};
use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;

/// Larger requests are answered 413.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Branches of the repository: so many that a client compresses its list of what it wants.
const BRANCHES: u32 = 60;
/// Pieces of a reply that wait for the client.
const PIECES_MAX: usize = 8;

/// Makes the repository, binds both ports, says ready and serves.
pub async fn start(config: GitConfig, witness: &Witness) -> Result<(), StartError> {
    let tls = TlsAcceptor::from(config.identity.server_config()?);
    seed(&config.root.join(format!("{}.git", config.repository))).await.map_err(StartError::Repository)?;
    let mut listening = Listening::default();
    let https = listening.tcp("https", config.listen, config.https_port).await?;
    let http = listening.tcp("http", config.listen, config.http_port).await?;
    listening.ready(witness);

    let host = Host { root: config.root.into(), expected: config.expected.map(Arc::new), witness: *witness };
    let plain = host.clone();
    serve(http, move |stream, peer| plain.clone().talk(stream, peer, None));
    serve(https, move |stream, peer| {
        let (host, tls) = (host.clone(), tls.clone());
        async move {
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
                let sni = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
                host.talk(stream, peer, Some(sni)).await;
            }
        }
    });
    Ok(())
}

#[derive(Debug, Clone)]
struct Host {
    root: Arc<Path>,
    expected: Option<Arc<Expected>>,
    witness: Witness,
}

impl Host {
    async fn talk(self, stream: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr, sni: Option<String>) {
        let service = hyper::service::service_fn(move |request| {
            let (host, sni) = (self.clone(), sni.clone());
            async move { Ok::<_, Infallible>(host.answer(request, peer, sni).await) }
        });
        // A client that goes away in the middle is not our failure.
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }

    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr, sni: Option<String>) -> Reply {
        let (head, body) = request.into_parts();
        let read = Limited::new(body, BODY_BYTES_MAX).collect().await.map(http_body_util::Collected::to_bytes);
        let request = Request::from_parts(head, read.as_ref().map(Clone::clone).unwrap_or_default());
        let headers = reply::headers(&request);
        self.witness.saw(&Evidence::Request {
            peer,
            sni,
            host: headers.get("host").cloned().unwrap_or_default(),
            method: request.method().to_string(),
            path: request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned(),
            authorization: headers.get("authorization").cloned(),
            body_prefix: evidence::prefix(request.body()),
            body_bytes: request.body().len() as u64,
            headers,
        });
        let mut answer = if read.is_err() {
            reply::text(StatusCode::PAYLOAD_TOO_LARGE, "body too large\n")
        } else if self.shows_credential(&request) {
            match self.backend(&request).await {
                Ok(answer) => answer,
                Err(error) => reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("git http-backend: {error}\n")),
            }
        } else {
            let mut refused = reply::text(StatusCode::UNAUTHORIZED, "credential required\n");
            reply::header(&mut refused, "www-authenticate", "Basic realm=\"world\"");
            refused
        };
        reply::header(&mut answer, MARK, "git");
        answer
    }

    fn shows_credential(&self, request: &Request<Bytes>) -> bool {
        let Some(expected) = &self.expected else { return true };
        let shown = request.headers().get(expected.header.as_str());
        shown.is_some_and(|value| value.as_bytes() == expected.value.as_bytes())
    }

    /// Runs `git http-backend` for one request and passes on what it says while it says it.
    async fn backend(&self, request: &Request<Bytes>) -> io::Result<Reply> {
        let text =
            |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let mut child = Command::new("git")
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", &*self.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REMOTE_USER", "world")
            .env("REQUEST_METHOD", request.method().as_str())
            .env("PATH_INFO", request.uri().path())
            .env("QUERY_STRING", request.uri().query().unwrap_or_default())
            .env("CONTENT_TYPE", text("content-type"))
            .env("CONTENT_LENGTH", request.body().len().to_string())
            .env("HTTP_CONTENT_ENCODING", text("content-encoding"))
            .env("GIT_PROTOCOL", text("git-protocol"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut output = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let body = request.body().clone();
        // Beside the reading: it may answer before it has read all. What it does not read is its affair.
        tokio::spawn(async move { input.write_all(&body).await });
        let (mut status, mut headers) = (StatusCode::OK, Vec::new());
        loop {
            let mut line = String::new();
            if output.read_line(&mut line).await? == 0 {
                return Err(io::Error::other("it ended without a head"));
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            if name.eq_ignore_ascii_case("status") {
                let code = value.split(' ').next().unwrap_or_default();
                status = StatusCode::from_bytes(code.as_bytes()).map_err(io::Error::other)?;
            } else {
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
                headers.push((name, HeaderValue::from_str(value).map_err(io::Error::other)?));
            }
        }
        let (send, pieces) = tokio::sync::mpsc::channel(PIECES_MAX);
        tokio::spawn(async move {
            let mut buffer = vec![0_u8; 32 << 10];
            while let Ok(n) = output.read(&mut buffer).await {
                if n == 0 || send.send(Bytes::copy_from_slice(&buffer[..n])).await.is_err() {
                    break;
                }
            }
            let _ = child.wait().await; // what it said is all there is to know
        });
        let mut answer = Reply::new(ReplyBody::Pieces(pieces));
        *answer.status_mut() = status;
        answer.headers_mut().extend(headers);
        Ok(answer)
    }
}

/// A repository with a few commits, a tag and many branches.
async fn seed(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let path: PathBuf = path.to_owned();
    git(&["init", "--quiet", "--bare", "--initial-branch=main", &path.to_string_lossy()], &[]).await?;
    let at = format!("--git-dir={}", path.display());
    git(&[&at, "config", "http.receivepack", "true"], &[]).await?;
    git(&[&at, "fast-import", "--quiet"], history().as_bytes()).await
}

/// What `git fast-import` makes the history of.
fn history() -> String {
    let mut stream = String::new();
    for n in 1..=3 {
        let text = format!("version {n} of the small world\n");
        let message = format!("commit {n}");
        // Writing to a String cannot fail.
        let _ = write!(
            stream,
            "commit refs/heads/main\nmark :{n}\ncommitter World <world@world.example> {} +0000\ndata {}\n{message}\n\
             M 100644 inline README\ndata {}\n{text}\n",
            1_700_000_000 + n,
            message.len(),
            text.len()
        );
    }
    for n in 1..=BRANCHES {
        let text = format!("branch {n}\n");
        let _ = write!(
            stream,
            "commit refs/heads/topic-{n}\ncommitter World <world@world.example> {} +0000\ndata {}\n{text}from :3\n\
             M 100644 inline topic\ndata {}\n{text}\n",
            1_700_001_000 + n,
            text.len(),
            text.len()
        );
    }
    stream.push_str("reset refs/tags/v1\nfrom :3\n\ndone\n");
    stream
}

async fn git(args: &[&str], input: &[u8]) -> io::Result<()> {
    let mut child = Command::new("git").args(args).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).await?;
    }
    let status = child.wait().await?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("git {}: {status}", args.join(" ")))) }
}
