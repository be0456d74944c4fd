//! The way out: looking names up, dialling the first address, and one request on a connection of its own.

use crate::answer::BoxError;
use crate::guard::{self, No};
use crate::state::Shared;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A look-up takes no longer.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);

/// Dialling and the handshake take no longer.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);

/// Looks a name up and checks where it leads.
pub async fn check(config: &crate::config::Config, host: &str) -> Result<(), No> {
    let addresses = resolve(host).await.map_err(|error| No {
        scanner: "ssrf",
        reason: format!("SSRF check failed: DNS resolution error for {host}: {error}"),
    })?;
    guard::addresses(config, host, &addresses)
}

/// Dials the first address of a name, looked up and checked once more: an answer may have changed since.
pub async fn dial(shared: &Shared, host: &str, port: u16) -> io::Result<TcpStream> {
    let addresses = resolve(host).await?;
    guard::addresses(&shared.live().config, host, &addresses).map_err(|no| io::Error::other(no.reason))?;
    let first = addresses.first().ok_or_else(|| io::Error::other("no address"))?;
    let stream = within(CONNECT_WITHIN, TcpStream::connect(SocketAddr::new(*first, port))).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends one request to `host` and returns the head of the answer; the body follows as it comes.
pub async fn send(
    shared: &Shared,
    tls: bool,
    host: &str,
    port: u16,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, BoxError> {
    let stream = dial(shared, host, port).await?;
    if !tls {
        return exchange(stream, request).await;
    }
    let name = ServerName::try_from(host.to_owned())?;
    let connector = TlsConnector::from(shared.upstream_tls.clone());
    let stream = within(CONNECT_WITHIN, connector.connect(name, stream)).await?;
    exchange(stream, request).await
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::Builder::new().title_case_headers(true).handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // How it ends shows in the answer, or in its body.
        let _ = connection.await;
    });
    Ok(sender.send_request(request).await?)
}

async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    let found = within(RESOLVE_WITHIN, tokio::net::lookup_host((host, 0))).await?;
    let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    // As where there is no IPv6 route: version 4 first, in the resolver's order.
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.dedup();
    Ok(addresses)
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "i/o timeout")),
    }
}
