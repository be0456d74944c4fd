//! What stands around the sidecar in its tests: an upstream, a CONNECT proxy, an agent, and the keeper's end of its
//! standard input and output. All on loopback, all blocking; a guard ends the process when a test panics too.

#![allow(clippy::unwrap_used, reason = "a helper of tests: what fails here fails the test")]
#![allow(dead_code, reason = "shared by several test programs, none of which uses all of it")]

use cred_proxy::Secret;
use cred_proxy::config::{Auth, Config, Event, Route, configure_line};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long anything that must happen may take to happen.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The credential of every route here.
pub const SECRET: &str = "s3cret-t0ken/of+the=route";

/// A request as an upstream or a proxy saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
    /// Lines behind the last chunk.
    pub trailers: Vec<String>,
}

impl Seen {
    /// The values of a header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }
}

pub trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

type Answer = dyn Fn(&Seen, &mut dyn Wire) -> std::io::Result<()> + Send + Sync;

/// An HTTP server that records what it sees and answers as it is told.
pub struct Upstream {
    pub address: SocketAddr,
    /// Of the CA that signed its certificate.
    pub ca_pem: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    pub fn plain(answer: impl Fn(&Seen, &mut dyn Wire) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        Self::start(None, String::new(), Arc::new(answer))
    }

    /// With a certificate for `name`.
    pub fn tls(
        name: &str,
        answer: impl Fn(&Seen, &mut dyn Wire) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let (config, ca_pem) = tls_config(name);
        Self::start(Some(Arc::new(config)), ca_pem, Arc::new(answer))
    }

    fn start(tls: Option<Arc<rustls::ServerConfig>>, ca_pem: String, answer: Arc<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_nodelay(true).unwrap();
                let (tls, answer, record) = (tls.clone(), answer.clone(), record.clone());
                std::thread::spawn(move || match tls {
                    None => serve(stream, &*answer, &record),
                    Some(config) => {
                        let connection = rustls::ServerConnection::new(config).unwrap();
                        serve(rustls::StreamOwned::new(connection, stream), &*answer, &record);
                    }
                });
            }
        });
        Self { address, ca_pem, seen }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn last(&self) -> Seen {
        self.seen().pop().expect("nothing arrived")
    }
}

/// A certificate for `name`, and the CA that signed it as PEM.
pub fn tls_config(name: &str) -> (rustls::ServerConfig, String) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))
        .unwrap();
    (config, ca.pem())
}

/// Requests one after another until the other side or the answer ends the connection.
fn serve(mut wire: impl Wire, answer: &Answer, record: &Mutex<Vec<Seen>>) {
    while let Some(seen) = read_message(&mut wire, false) {
        record.lock().unwrap().push(seen.clone());
        if answer(&seen, &mut wire).and_then(|()| wire.flush()).is_err() {
            return;
        }
    }
}

/// One whole message: a request, or a reply (whose body may also end with the connection).
pub fn read_message(wire: &mut dyn Wire, is_reply: bool) -> Option<Seen> {
    let head = read_head(wire)?;
    let mut seen = Seen { head, body: Vec::new(), trailers: Vec::new() };
    if seen.header("transfer-encoding").contains(&"chunked") {
        loop {
            let size = usize::from_str_radix(read_line(wire)?.trim(), 16).ok()?;
            if size == 0 {
                loop {
                    match read_line(wire)?.trim_end() {
                        "" => return Some(seen),
                        line => seen.trailers.push(line.to_owned()),
                    }
                }
            }
            let mut chunk = vec![0; size + 2];
            wire.read_exact(&mut chunk).ok()?;
            seen.body.extend_from_slice(&chunk[..size]);
        }
    }
    match seen.header("content-length").first().map(|length| length.parse::<usize>().unwrap()) {
        Some(length) => {
            seen.body.resize(length, 0);
            wire.read_exact(&mut seen.body).ok()?;
        }
        None if is_reply => drop(wire.read_to_end(&mut seen.body).ok()?),
        None => {}
    }
    Some(seen)
}

/// Up to and with the empty line.
pub fn read_head(wire: &mut dyn Wire) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        wire.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    String::from_utf8(head).ok()
}

pub fn read_line(wire: &mut dyn Wire) -> Option<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        wire.read_exact(&mut byte).ok()?;
        line.push(byte[0]);
    }
    String::from_utf8(line).ok()
}

/// Answers everything with this text.
pub fn says(text: &'static str) -> impl Fn(&Seen, &mut dyn Wire) -> std::io::Result<()> + Send + Sync + 'static {
    move |_, wire| write!(wire, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
}

/// A CONNECT proxy that leads every host to one address, or answers every CONNECT with one text.
pub struct ConnectProxy {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    pub fn to(target: SocketAddr) -> Self {
        Self::start(move |_, mut agent| {
            let mut upstream = TcpStream::connect(target)?;
            agent.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n")?;
            let (mut from_agent, mut to_upstream) = (agent.try_clone()?, upstream.try_clone()?);
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_agent, &mut to_upstream);
                let _ = to_upstream.shutdown(std::net::Shutdown::Both);
            });
            std::io::copy(&mut upstream, &mut agent)?;
            agent.shutdown(std::net::Shutdown::Both)
        })
    }

    pub fn answering(answer: &'static str) -> Self {
        Self::start(move |_, mut agent| agent.write_all(answer.as_bytes()))
    }

    fn start(then: impl Fn(&str, TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (record, then) = (seen.clone(), Arc::new(then));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (record, then) = (record.clone(), then.clone());
                std::thread::spawn(move || {
                    if let Some(head) = read_head(&mut stream) {
                        record.lock().unwrap().push(head.clone());
                        let _ = then(&head, stream);
                    }
                });
            }
        });
        Self { address, seen }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The heads of all requests to it.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// A route at `/api/` with the test's credential, open for everything.
pub fn route(upstream: &str) -> Route {
    Route {
        path: "/api/".into(),
        upstream: upstream.into(),
        auth: Auth::Bearer,
        secret: Some("key".into()),
        inspected: false,
        allow: vec!["* /**".into()],
    }
}

pub fn config(routes: Vec<Route>) -> Config {
    Config { routes, ..Config::closed(([127, 0, 0, 1], 0).into()) }
}

pub fn secrets() -> BTreeMap<String, Secret> {
    BTreeMap::from([("key".into(), Secret::new(SECRET.into()))])
}

/// The real binary, with the keeper's end of its pipes.
pub struct Sidecar {
    child: Child,
    input: Option<ChildStdin>,
    events: Receiver<Event>,
    /// Requests that were logged before the answer to a command, and that nobody has asked for.
    earlier: Mutex<VecDeque<Event>>,
    pub listen: SocketAddr,
    /// All it has written.
    pub output: Arc<Mutex<String>>,
}

impl Sidecar {
    /// Started and not configured.
    pub fn bare() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cred-proxy"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary has been built");
        let (tell, events) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let output = Arc::new(Mutex::new(String::new()));
        let all = output.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                all.lock().unwrap().push_str(&format!("{line}\n"));
                let event = serde_json::from_str(&line).expect("every line is an event");
                if tell.send(event).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        Self { child, input, events, earlier: Mutex::default(), listen: free_address(), output }
    }

    /// Configured and listening.
    pub fn start(config: &Config) -> Self {
        // Somebody else may take the address before the sidecar does: then another one.
        for _ in 0..20 {
            let mut sidecar = Self::bare();
            match sidecar.configure(config) {
                Event::Ready => return sidecar,
                Event::Refused { reason } if reason.contains("in use") => {}
                other => panic!("not ready: {other:?}"),
            }
        }
        panic!("no free address");
    }

    /// Sends a table (its `listen` is set here) and gives the answer.
    pub fn configure(&mut self, config: &Config) -> Event {
        self.configure_with(config, &secrets())
    }

    pub fn configure_with(&mut self, config: &Config, secrets: &BTreeMap<String, Secret>) -> Event {
        let config = Config { listen: self.listen, ..config.clone() };
        self.send(&configure_line(&config, secrets).unwrap());
        loop {
            match self.event() {
                request @ Event::Request { .. } => self.earlier.lock().unwrap().push_back(request),
                answer => return answer,
            }
        }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    pub fn event(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("no event came")
    }

    /// The next request's log line: route, path, status, bytes, credential, reason.
    pub fn logged(&self) -> (String, String, u16, u64, bool, Option<String>) {
        let earlier = self.earlier.lock().unwrap().pop_front();
        let event = earlier.unwrap_or_else(|| self.event());
        match event {
            Event::Request { route, path, status, bytes, credential, reason, .. } => {
                (route, path, status, bytes, credential, reason)
            }
            other => panic!("not a request: {other:?}"),
        }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.listen).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends these bytes on a connection of their own and reads one reply.
    pub fn ask(&self, request: &str) -> Seen {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        read_message(&mut stream, true).unwrap_or_else(|| panic!("no whole reply to {request:?}"))
    }

    pub fn get(&self, path: &str) -> Seen {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: cred-proxy:9099\r\n\r\n"))
    }

    /// Ends its input.
    pub fn close(&mut self) {
        self.input = None;
    }

    pub fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn status(reply: &Seen) -> u16 {
    reply.head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a reply has a status")
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
