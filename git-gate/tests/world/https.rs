//! git's own `http-backend` behind a small HTTP/1.1 server with TLS, which wants Basic credentials.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// What opens it.
pub const CREDENTIAL: &str = "ci:s3cret-http-passw0rd";

pub struct Https {
    pub address: SocketAddr,
    /// Of the CA that signed its certificate.
    pub ca_pem: String,
    root: PathBuf,
}

#[derive(Clone)]
struct Backend {
    root: PathBuf,
    git: PathBuf,
}

impl Https {
    /// Serves every repository below `root` with the git in `git`.
    pub fn start(root: &Path, git: &Path) -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::fs::write(root.join("gitconfig"), "[safe]\n\tdirectory = *\n[http]\n\treceivepack = true\n").unwrap();
        let backend = Backend { root: root.to_owned(), git: git.to_owned() };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, backend) = (config.clone(), backend.clone());
                std::thread::spawn(move || {
                    stream.set_nodelay(true).unwrap();
                    let connection = rustls::ServerConnection::new(config).unwrap();
                    // A client that goes away ends its connection alone.
                    let _ = serve(rustls::StreamOwned::new(connection, stream), &backend);
                });
            }
        });
        Self { address, ca_pem: ca.pem(), root: root.to_owned() }
    }

    pub fn url(&self, repository: &Path) -> String {
        let path = repository.strip_prefix(&self.root).unwrap();
        format!("https://localhost:{}/{}", self.address.port(), path.display())
    }

    /// What git's own client needs to get in, written below `home`.
    pub fn client_config(&self, home: &Path) -> String {
        let ca = home.join("ca.pem");
        std::fs::write(&ca, &self.ca_pem).unwrap();
        let basic = base64::engine::general_purpose::STANDARD.encode(CREDENTIAL);
        format!("[http]\n\tsslCAInfo = {}\n\textraHeader = Authorization: Basic {basic}\n", ca.display())
    }
}

type Tls = rustls::StreamOwned<rustls::ServerConnection, TcpStream>;

fn serve(stream: Tls, backend: &Backend) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(()) };
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        answer(&mut reader, method, target, &headers, backend)?;
    }
}

fn answer(
    reader: &mut BufReader<Tls>,
    method: &str,
    target: &str,
    headers: &BTreeMap<String, String>,
    backend: &Backend,
) -> std::io::Result<()> {
    let header = |name: &str| headers.get(name).map(String::as_str).unwrap_or_default();
    let basic = base64::engine::general_purpose::STANDARD.encode(CREDENTIAL);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut command = Command::new(backend.git.join("git"));
    command.arg("http-backend").env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
    command
        .env("PATH", format!("{}:/usr/bin:/bin", backend.git.display()))
        .env("GIT_PROJECT_ROOT", &backend.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", backend.root.join("gitconfig"))
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("REMOTE_USER", "ci")
        .env("REMOTE_ADDR", "127.0.0.1");
    if !header("git-protocol").is_empty() {
        command.env("GIT_PROTOCOL", header("git-protocol"));
    }
    if let Some(length) = headers.get("content-length") {
        command.env("CONTENT_LENGTH", length);
    }
    if header("authorization") != format!("Basic {basic}") {
        reader.get_mut().write_all(b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        return Err(std::io::ErrorKind::PermissionDenied.into());
    }
    let mut child = command.spawn()?;
    let mut stdin = child.stdin.take().unwrap();
    if header("transfer-encoding").contains("chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            // It may have had enough.
            let _ = stdin.write_all(&chunk[..size]);
        }
    } else if let Some(length) = headers.get("content-length") {
        let mut body = reader.by_ref().take(length.parse().unwrap());
        let _ = std::io::copy(&mut body, &mut stdin);
        let _ = std::io::copy(&mut body, &mut std::io::sink());
    }
    drop(stdin);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut status = "200 OK".to_owned();
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if output.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        match line.strip_prefix("Status: ") {
            Some(text) => status = text.trim().to_owned(),
            None => head.push_str(&format!("{}\r\n", line.trim_end())),
        }
    }
    let wire = reader.get_mut();
    wire.write_all(format!("HTTP/1.1 {status}\r\n{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes())?;
    let mut buffer = vec![0; 32 << 10];
    loop {
        let length = output.read(&mut buffer)?;
        wire.write_all(format!("{length:x}\r\n").as_bytes())?;
        wire.write_all(&buffer[..length])?;
        wire.write_all(b"\r\n")?;
        wire.flush()?;
        if length == 0 {
            break;
        }
    }
    child.wait()?;
    Ok(())
}
