//! A double, an upstream that speaks TLS and plain HTTP, and curl between them; all on loopback, all gone on drop.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pipelock_config::{AgentPolicy, Policy, RoutePolicy};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use sha2::{Digest, Sha256};
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::Notify;

/// What should happen soon has this long on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A CA, as the launcher will make one.
pub struct Ca {
    pub issuer: CertifiedIssuer<'static, KeyPair>,
    pub cert_pem: String,
    /// SEC1 with the curve's name.
    pub key_pem: String,
}

/// The other end.
pub struct Upstream {
    pub https: u16,
    pub http: u16,
    pub ca: Ca,
    /// Lets the second server-sent event go.
    pub go_on: Arc<Notify>,
    runtime: Option<tokio::runtime::Runtime>,
}

/// A folder such as `/etc/pipelock`.
pub struct Folder {
    pub dir: TempDir,
    pub ca: Ca,
}

/// A double that runs.
pub struct Double {
    pub address: SocketAddr,
    child: Child,
    lines: Arc<(Mutex<Vec<String>>, Condvar)>,
}

/// What curl got.
pub struct Got {
    pub exit: i32,
    pub status: u16,
    /// The status of the CONNECT.
    pub connect: u16,
    pub head: String,
    pub body: String,
}

/// A TLS stream through a tunnel.
pub type Tunnel = StreamOwned<ClientConnection, TcpStream>;

impl Ca {
    pub fn new(name: &str) -> Self {
        Self::with_usages(name, vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign])
    }

    pub fn with_usages(name: &str, usages: Vec<KeyUsagePurpose>) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = usages;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let key_pem = pem("EC PRIVATE KEY", &sec1(&key, true));
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        Self { cert_pem: issuer.pem(), key_pem, issuer }
    }
}

/// The key in SEC1, with or without the curve's name.
pub fn sec1(key: &KeyPair, with_curve: bool) -> Vec<u8> {
    let pkcs8 = key.serialize_der();
    let point = key.public_key_raw();
    let curve: &[u8] = if with_curve { &[0xa0, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7] } else { &[] };
    let length = u8::try_from(0x6b + curve.len()).unwrap();
    [&[0x30, length, 2, 1, 1, 4, 0x20][..], &pkcs8[36..68], curve, &[0xa1, 0x44, 3, 0x42, 0], point].concat()
}

pub fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|c| std::str::from_utf8(c).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A policy for hosts that are all on this machine, as the renderer writes it, with this test's paths and ports.
pub fn yaml(allowlist: &[&str], passthrough: &[&str], allow_private: &[&str]) -> String {
    rendered(Policy::for_agent(agent(allowlist, passthrough, allow_private)).unwrap())
}

/// The same for an agent that may bring credentials of its own.
pub fn yaml_with_credentials(host: &str) -> String {
    let policy = AgentPolicy { agent_credentials: true, ..agent(&[host], &[], &[host]) };
    rendered(Policy::for_agent(policy).unwrap())
}

/// The same for route-pipelock, where our sidecars put credentials into these headers.
pub fn yaml_of_routes(host: &str, credential_headers: &[&str]) -> String {
    let AgentPolicy { listen, allowlist, passthrough, allow_private, .. } = agent(&[host], &[], &[host]);
    let credential_headers = credential_headers.iter().map(|s| (*s).to_owned()).collect();
    let policy = RoutePolicy { listen, allowlist, passthrough, allow_private, credential_headers };
    rendered(Policy::for_routes(policy).unwrap())
}

fn agent(allowlist: &[&str], passthrough: &[&str], allow_private: &[&str]) -> AgentPolicy {
    let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    AgentPolicy {
        // A flag says where: the real one takes no port 0 in two places.
        listen: "127.0.0.1:8888".parse().unwrap(),
        allowlist: own(allowlist),
        passthrough: own(passthrough),
        allow_private: own(allow_private),
        sidecars: Vec::new(),
        agent_credentials: false,
    }
}

fn rendered(policy: Policy) -> String {
    pipelock_config::render(&policy).replace("127.0.0.1:9090", "127.0.0.1:0").replace("/etc/pipelock/", "")
}

/// SHA-256 of a file's text, as the log has it.
pub fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

/// What is tested: the double, or the program of the real image that `BOTTLE_TEST_PIPELOCK` names.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| real_image().map_or_else(|| env!("CARGO_BIN_EXE_pipelock-double").into(), |i| taken_out(&i)))
}

/// The real image, where these tests run on it.
pub fn real_image() -> Option<String> {
    std::env::var("BOTTLE_TEST_PIPELOCK").ok().filter(|image| !image.is_empty())
}

/// The program of an image as a file: it is static, and on loopback it needs no container around it.
fn taken_out(image: &str) -> PathBuf {
    let docker = |arguments: &[&str]| {
        let output = Command::new("docker").args(arguments).output().unwrap();
        assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pipelock-{}", std::process::id()));
    let container = docker(&["create", image]);
    let copied =
        std::panic::catch_unwind(|| docker(&["cp", &format!("{container}:/pipelock"), file.to_str().unwrap()]));
    docker(&["rm", &container]);
    copied.unwrap();
    file
}

/// Runs the double with these arguments until it ends by itself.
pub fn run_to_end(arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(program());
    let mut child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let until = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > until {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{arguments:?} did not end by itself");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (status.code().unwrap(), said)
}

impl Folder {
    pub fn new(yaml: &str) -> Self {
        let folder = Self { dir: tempfile::tempdir().unwrap(), ca: Ca::new("bottle test CA") };
        folder.put("ca.pem", &folder.ca.cert_pem, 0o644);
        folder.put("ca-key.pem", &folder.ca.key_pem, 0o600);
        folder.put("pipelock.yaml", yaml, 0o644);
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self) -> String {
        self.path("pipelock.yaml").display().to_string()
    }

    /// Beside it first, then renamed over it.
    pub fn put(&self, name: &str, text: &str, mode: u32) {
        let beside = self.path(&format!(".{name}.new"));
        let _ = std::fs::remove_file(&beside);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(mode)).unwrap();
        std::fs::rename(&beside, self.path(name)).unwrap();
    }
}

impl Double {
    /// Starts it and waits until it says where it listens.
    pub fn start(folder: &Folder, upstream: &Upstream) -> Self {
        folder.put("upstream-roots.pem", &upstream.ca.cert_pem, 0o644);
        let mut command = Command::new(program());
        let mut listen: SocketAddr = "127.0.0.1:0".parse().unwrap();
        if real_image().is_some() {
            // It does not say which port it was given.
            listen = TcpListener::bind(listen).unwrap().local_addr().unwrap();
        }
        command.args(["run", "--config", &folder.config(), "--listen", &listen.to_string()]);
        let mut child = command
            .env("SSL_CERT_FILE", folder.path("upstream-roots.pem"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        collect(child.stdout.take().unwrap(), lines.clone());
        collect(child.stderr.take().unwrap(), lines.clone());
        let mut double = Self { address: "127.0.0.1:0".parse().unwrap(), child, lines };
        let startup = double.wait_for("startup", |line| line.contains(r#""event":"startup""#));
        let startup: serde_json::Value = serde_json::from_str(&startup).unwrap();
        double.address = startup["listen"].as_str().unwrap().parse().unwrap();
        // The real one says so before it listens.
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(double.address).is_err() {
            assert!(Instant::now() < until, "it does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        double
    }

    /// Waits for a line of its output.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        self.wait(what, |lines| lines.iter().find(|line| wanted(line)).cloned())
    }

    /// Waits until this many lines have the text.
    pub fn wait_for_count(&self, text: &str, count: usize) {
        let enough = |lines: &[String]| lines.iter().filter(|line| line.contains(text)).count() >= count;
        self.wait(text, |lines| enough(lines).then_some(()));
    }

    fn wait<T>(&self, what: &str, seen: impl Fn(&[String]) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let (lines, more) = &*self.lines;
        let mut guard = lines.lock().unwrap();
        loop {
            if let Some(seen) = seen(&guard) {
                return seen;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(guard);
                panic!("no {what} in what the double said");
            }
            guard = more.wait_timeout(guard, left).unwrap().0;
        }
    }

    /// Waits for an event in whose line all of these stand.
    pub fn wait_for_event(&self, event: &str, parts: &[&str]) -> serde_json::Value {
        let event = format!("\"event\":\"{event}\"");
        let all = |line: &str| line.contains(&event) && parts.iter().all(|part| line.contains(part));
        serde_json::from_str(&self.wait_for(&format!("{event} {parts:?}"), all)).unwrap()
    }

    /// Everything it has said so far.
    pub fn said(&self) -> String {
        self.lines.0.lock().unwrap().join("\n")
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// curl through this proxy, trusting one CA.
    pub fn curl(&self, ca: &Ca, arguments: &[&str]) -> Got {
        let dir = tempfile::tempdir().unwrap();
        let (roots, head, body) = (dir.path().join("ca.pem"), dir.path().join("head"), dir.path().join("body"));
        std::fs::write(&roots, &ca.cert_pem).unwrap();
        let output = Command::new("curl")
            .args(["--silent", "--noproxy", "", "--max-time", "60", "--suppress-connect-headers"])
            .args(["--write-out", "%{http_code} %{http_connect}", "--proxy", &format!("http://{}", self.address)])
            .arg("--cacert")
            .arg(&roots)
            .arg("--dump-header")
            .arg(&head)
            .arg("--output")
            .arg(&body)
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .output()
            .unwrap();
        let codes = String::from_utf8(output.stdout).unwrap();
        let (status, connect) = codes.split_once(' ').unwrap();
        let read = |file: &Path| std::fs::read_to_string(file).unwrap_or_default();
        Got {
            exit: output.status.code().unwrap(),
            status: status.parse().unwrap(),
            connect: connect.parse().unwrap(),
            head: read(&head).to_lowercase(),
            body: read(&body),
        }
    }

    /// Writes bytes and reads the head of what comes back.
    pub fn raw(&self, bytes: &str) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes.as_bytes()).unwrap();
        let head = read_head(&mut stream);
        (stream, head)
    }

    /// Opens a tunnel and speaks TLS in it.
    pub fn tunnel(&self, ca: &Ca, host: &str, port: u16) -> Tunnel {
        let (stream, head) = self.raw(&format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"));
        assert_eq!(head, "HTTP/1.1 200 Connection Established\r\n\r\n");
        let mut roots = RootCertStore::empty();
        roots.add(ca.issuer.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
    }
}

/// One request on a stream that is kept; the status.
pub fn request(stream: &mut (impl Read + Write), head: &str) -> u16 {
    stream.write_all(head.as_bytes()).unwrap();
    let head = read_head(stream).to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    let mut body = vec![0; length.trim().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

impl Drop for Double {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the double said:\n{}", self.said());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(stream: impl Read + Send + 'static, lines: Arc<(Mutex<Vec<String>>, Condvar)>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            lines.0.lock().unwrap().push(line);
            lines.1.notify_all();
        }
    });
}

impl Upstream {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let ca = Ca::new("upstream test CA");
        let go_on = Arc::new(Notify::new());
        let names = ["localhost", "127.0.0.1", "127.0.0.2"].map(str::to_owned).to_vec();
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(names).unwrap().signed_by(&key, &ca.issuer).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(cert.der().to_vec())], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let bind = || runtime.block_on(tokio::net::TcpListener::bind("0.0.0.0:0")).unwrap();
        let (tls, plain) = (bind(), bind());
        let port = |listener: &tokio::net::TcpListener| listener.local_addr().unwrap().port();
        let (https, http) = (port(&tls), port(&plain));
        let notify = go_on.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = tls.accept().await {
                let (acceptor, notify) = (acceptor.clone(), notify.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, notify).await;
                    }
                });
            }
        });
        let notify = go_on.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = plain.accept().await {
                tokio::spawn(serve(stream, notify.clone()));
            }
        });
        Self { https, http, ca, go_on, runtime: Some(runtime) }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    notify: Arc<Notify>,
) {
    let service = service_fn(move |request| answer(request, notify.clone()));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

async fn answer(request: Request<Incoming>, notify: Arc<Notify>) -> Result<Response<Body>, Infallible> {
    let full = |text: String| Response::new(Full::new(Bytes::from(text)).boxed_unsync());
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    Ok(match path.as_str() {
        "/echo" => {
            let head: Vec<String> =
                request.headers().iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
            let method = request.method().clone();
            let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
            full(format!("{method}\n{}\n\n{}", head.join("\n"), String::from_utf8_lossy(&body)))
        }
        "/events" => {
            let first = Frame::data(Bytes::from_static(b"data: one\n\n"));
            let second = async move {
                notify.notified().await;
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"data: two\n\n")))
            };
            use futures_util::StreamExt;
            let stream = futures_util::stream::iter([Ok(first)]).chain(futures_util::stream::once(second));
            let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
            response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
            response
        }
        "/compressed" => {
            let mut response = full("x".into());
            response.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
            response
        }
        "/bytes" => full("x".repeat(query.parse().unwrap())),
        "/to" => {
            let mut response = full(String::new());
            *response.status_mut() = http::StatusCode::FOUND;
            response.headers_mut().insert("location", query.parse().unwrap());
            response
        }
        _ => full("hello".into()),
    })
}
