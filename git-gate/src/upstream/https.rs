//! Upstreams over https: git's smart HTTP protocol (gitprotocol-http(5)) with bearer or basic credentials, straight or
//! through the CONNECT proxy. The certificate is always checked; a redirect is never followed.

use super::{Ending, Failure, Inbound, Line, Outbound, Session, Upload, Upstream};
use crate::config::Service;
use crate::limits::{Limits, seconds};
use crate::request::Version;
use bottle_sidecar::{Authority, tunnel};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, mpsc};
use tokio_rustls::TlsConnector;

/// Begins with `git/`, by which some forges tell git from a browser.
const USER_AGENT: &str = concat!("git/2 (git-gate ", env!("CARGO_PKG_VERSION"), ")");

/// Why an https remote cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Not PEM, or no certificate that a root can be made of.
    #[error("cannot read the certificates in `{0}`")]
    Roots(&'static str),
    /// The remote needs them.
    #[error("the certificates in `{0}` are needed, and there are none")]
    NoRoots(&'static str),
    /// The library refused its own defaults.
    #[error("cannot set up tls")]
    Tls(#[source] rustls::Error),
    /// The host is no name that a certificate can have.
    #[error("`{0}` cannot be the name in a certificate")]
    Name(String),
    /// It has characters that a header cannot have.
    #[error("the credential cannot stand in a header")]
    Credential,
}

/// TLS for `authority`, trusting the certificates of `pem`, which the configuration calls `what`.
pub fn tls(authority: &Authority, pem: &str, what: &'static str) -> Result<Tls, SetupError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|_| SetupError::Roots(what))?).map_err(|_| SetupError::Roots(what))?;
    }
    if roots.is_empty() {
        return Err(SetupError::NoRoots(what));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut config = builder.map_err(SetupError::Tls)?.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = ServerName::try_from(authority.host.clone()).map_err(|_| SetupError::Name(authority.host.clone()))?;
    Ok(Tls { connector: TlsConnector::from(Arc::new(config)), name })
}

/// How TLS is spoken with an upstream.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// One https upstream.
#[derive(Clone)]
pub struct Https {
    /// Host and port.
    pub authority: Authority,
    /// The repository's path on the host.
    pub path: String,
    /// Absent for `http://`.
    pub tls: Option<Tls>,
    /// The proxy on the way.
    pub proxy: Option<Authority>,
    /// The Authorization header, marked as sensitive.
    pub credential: Option<HeaderValue>,
    /// Times.
    pub limits: Limits,
}

impl std::fmt::Debug for Https {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Https({})", self.authority)
    }
}

impl Upstream for Https {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, Failure>> {
        Box::pin(async move {
            let mut wire = Wire { upstream: self.clone(), sender: None };
            wire.ready().await?;
            Ok(Box::new(Client(Arc::new(Mutex::new(wire)))) as Box<dyn Session>)
        })
    }
}

/// One connection, made again when the upstream has closed it.
struct Wire {
    upstream: Https,
    sender: Option<SendRequest<Outgoing>>,
}

impl Wire {
    async fn ready(&mut self) -> Result<&mut SendRequest<Outgoing>, Failure> {
        let mut is_good = false;
        if let Some(sender) = &mut self.sender {
            // One that is still busy with an answer that nobody reads any more ends soon, or never.
            let ready = tokio::time::timeout(seconds(1), sender.ready()).await;
            is_good = matches!(ready, Ok(Ok(())));
        }
        if !is_good {
            self.sender = None;
        }
        if self.sender.is_none() {
            let within = seconds(self.upstream.limits.connect_seconds);
            let connecting = tokio::time::timeout(within, self.upstream.dial()).await;
            let late = || Failure::Late { upstream: self.upstream.authority.clone(), what: "connection", within };
            self.sender = Some(connecting.map_err(|_| late())??);
        }
        self.sender.as_mut().ok_or_else(|| Failure::Ended(String::new()))
    }

    async fn send(&mut self, request: Request<Outgoing>) -> Result<Response<Incoming>, Failure> {
        let authority = self.upstream.authority.clone();
        let sender = self.ready().await?;
        match sender.try_send_request(request).await {
            Ok(response) => Ok(response),
            // The upstream had closed a connection that looked good: nobody has seen this request, so it goes again.
            Err(mut error) => match error.take_message() {
                Some(request) => {
                    self.sender = None;
                    let sent = self.ready().await?.send_request(request).await;
                    sent.map_err(|error| Failure::Http(authority, error))
                }
                None => Err(Failure::Http(authority, error.into_error())),
            },
        }
    }
}

impl Https {
    async fn dial(&self) -> Result<SendRequest<Outgoing>, Failure> {
        let stream = match &self.proxy {
            None => tunnel::straight(&self.authority).await?,
            Some(proxy) => tunnel::through(proxy, &self.authority).await?,
        };
        match &self.tls {
            None => self.speak(stream).await,
            Some(tls) => {
                let shaken = tls.connector.connect(tls.name.clone(), stream).await;
                self.speak(shaken.map_err(|error| Failure::Tls(self.authority.clone(), error))?).await
            }
        }
    }

    async fn speak<S>(&self, stream: S) -> Result<SendRequest<Outgoing>, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let spoken = http1::Builder::new().max_buf_size(512 << 10).handshake(TokioIo::new(stream)).await;
        let (sender, connection) = spoken.map_err(|error| Failure::Http(self.authority.clone(), error))?;
        // It ends with its connection, and that with the last sender. Its error is also told to whoever waits for an answer.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    fn request(&self, method: Method, target: &str, version: Version, body: Outgoing) -> Request<Outgoing> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        // A path that was checked when it was configured, with a query of our own.
        *request.uri_mut() = target.parse().unwrap_or_default();
        let headers = request.headers_mut();
        if let Ok(host) = HeaderValue::from_str(&self.authority.host_header(if self.tls.is_some() { 443 } else { 80 }))
        {
            headers.insert(header::HOST, host);
        }
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        if let Some(credential) = &self.credential {
            headers.insert(header::AUTHORIZATION, credential.clone());
        }
        if let Some(parameter) = version.as_parameter() {
            headers.insert("git-protocol", HeaderValue::from_static(parameter));
        }
        request
    }

    fn check(&self, response: &Response<Incoming>, content_type: &str) -> Result<(), Failure> {
        if response.status() != StatusCode::OK {
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let location = location.map(|to| super::printable_line(to.split('?').next().unwrap_or_default()));
            let status = response.status().as_u16();
            return Err(Failure::Status { upstream: self.authority.clone(), status, location });
        }
        let is_git = response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == content_type);
        if is_git { Ok(()) } else { Err(Failure::NotGit(self.authority.clone())) }
    }
}

struct Client(Arc<Mutex<Wire>>);

fn program(service: Service) -> &'static str {
    match service {
        Service::Fetch => "git-upload-pack",
        Service::Push | Service::Unknown => "git-receive-pack",
    }
}

impl Session for Client {
    fn open(&mut self, service: Service, version: Version) -> BoxFuture<'_, Result<Box<dyn Line>, Failure>> {
        Box::pin(async move {
            let mut wire = self.0.lock().await;
            let program = program(service);
            let target = format!("{}/info/refs?service={program}", wire.upstream.path);
            let request = wire.upstream.request(Method::GET, &target, version, Outgoing::default());
            let within = seconds(wire.upstream.limits.advert_seconds);
            let sent = tokio::time::timeout(within, wire.send(request)).await;
            let late = || Failure::Late { upstream: wire.upstream.authority.clone(), what: "answer", within };
            let response = sent.map_err(|_| late())??;
            wire.upstream.check(&response, &format!("application/x-{program}-advertisement"))?;
            let inbound = read_body(response.into_body());
            Ok(Box::new(Exchange { wire: self.0.clone(), service, version, inbound }) as Box<dyn Line>)
        })
    }
}

struct Exchange {
    wire: Arc<Mutex<Wire>>,
    service: Service,
    version: Version,
    inbound: Inbound,
}

impl Line for Exchange {
    fn inbound(&mut self) -> &mut Inbound {
        &mut self.inbound
    }

    fn exchange(&mut self, upload: Upload) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let mut wire = self.wire.lock().await;
            let program = program(self.service);
            let target = format!("{}/{program}", wire.upstream.path);
            let mut request = wire.upstream.request(Method::POST, &target, self.version, Outgoing::from(upload));
            let typed = |what| HeaderValue::from_str(&format!("application/x-{program}-{what}"));
            if let (Ok(content), Ok(accept)) = (typed("request"), typed("result")) {
                request.headers_mut().insert(header::CONTENT_TYPE, content);
                request.headers_mut().insert(header::ACCEPT, accept);
            }
            let response = wire.send(request).await?;
            wire.upstream.check(&response, &format!("application/x-{program}-result"))?;
            self.inbound = read_body(response.into_body());
            Ok(())
        })
    }

    fn outbound(&mut self) -> Option<Outbound> {
        None
    }
}

fn read_body(body: Incoming) -> Inbound {
    let (chunks, inbound) = Inbound::pair();
    tokio::spawn(pump(body, chunks, inbound.ending.clone()));
    inbound
}

async fn pump(mut body: Incoming, chunks: mpsc::Sender<Bytes>, ending: Ending) {
    loop {
        let frame = tokio::select! {
            () = chunks.closed() => return,
            frame = body.frame() => frame,
        };
        match frame {
            None => return,
            Some(Err(error)) => return ending.failed(format!("the answer broke off: {error}")),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data()
                    && chunks.send(data).await.is_err()
                {
                    return;
                }
            }
        }
    }
}

/// A request's body.
#[derive(Debug, Default)]
struct Outgoing {
    head: Bytes,
    rest: Option<(u64, mpsc::Receiver<io::Result<Bytes>>)>,
}

impl From<Upload> for Outgoing {
    fn from(Upload { head, rest }: Upload) -> Self {
        Self { head, rest }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if !self.head.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.head)))));
        }
        let Some((left, chunks)) = &mut self.rest else { return Poll::Ready(None) };
        let polled = chunks.poll_recv(cx);
        if let Poll::Ready(Some(Ok(chunk))) = &polled {
            *left = left.saturating_sub(chunk.len() as u64);
        }
        polled.map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.head.is_empty() && self.rest.as_ref().is_none_or(|(left, _)| *left == 0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.head.len() as u64 + self.rest.as_ref().map_or(0, |(left, _)| *left))
    }
}
