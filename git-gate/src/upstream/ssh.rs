//! Upstreams over ssh (RFC 4251 to 4254), by russh. The host is who the operator pinned, by a key of the pinned types
//! alone; without a pin there is no connection. The command is the operator's path, quoted; no byte of the agent's is in it.

mod pins;

use self::pins::{Guard, accepted_types, parse_pins};
use super::{Failure, Inbound, Line, Outbound, Session, Upload, Upstream};
use crate::Secret;
use crate::config::Service;
use crate::limits::{Limits, seconds};
use crate::request::Version;
use bottle_sidecar::{Authority, tunnel};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use russh::client::{self, Handle, Msg};
use russh::keys::{HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Preferred, cipher};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// The half of a channel that is written to.
pub type Writer = ChannelWriteHalf<Msg>;

/// How much the upstream may send before it is acknowledged; less makes clones slower.
const WINDOW_BYTES: u32 = 8 << 20;

/// The largest ssh packet (RFC 4253, 6.1, allows more; no server sends it).
const PACKET_BYTES_MAX: u32 = 65_535;

/// Why a remote's key or pin cannot be used. Has no byte of the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No pin.
    #[error("known_host_key is missing: without it nobody knows whom the key is shown to")]
    NoPin,
    /// Not a public key as in a known_hosts file.
    #[error("known_host_key is not a public key such as `ssh-ed25519 AAAA..`")]
    Pin,
    /// A type of key that is not accepted.
    #[error("known_host_key is of a type that is not accepted (ed25519, ecdsa and rsa are)")]
    PinType,
    /// Not a private key, or its passphrase is missing or wrong.
    #[error("the ssh key cannot be read: it is no private key, or its passphrase is missing or wrong")]
    Key,
}

/// One ssh upstream.
pub struct Ssh {
    user: String,
    authority: Authority,
    path: String,
    key: Arc<PrivateKey>,
    pins: Arc<[PublicKey]>,
    config: Arc<client::Config>,
    limits: Limits,
}

impl std::fmt::Debug for Ssh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ssh({}@{})", self.user, self.authority)
    }
}

/// Where an upstream is, and as whom.
#[derive(Debug, Clone)]
pub struct Place {
    /// Who logs in.
    pub user: String,
    /// Host and port.
    pub authority: Authority,
    /// The repository on the host.
    pub path: String,
}

impl Ssh {
    /// Reads key and pins.
    pub fn new(
        place: Place,
        key: &Secret,
        passphrase: Option<&Secret>,
        host_key: Option<&str>,
        limits: Limits,
    ) -> Result<Self, KeyError> {
        let pins = parse_pins(host_key.ok_or(KeyError::NoPin)?)?;
        let key = russh::keys::decode_secret_key(key.expose(), passphrase.map(Secret::expose));
        let key = Arc::new(key.map_err(|_| KeyError::Key)?);
        let mut types = Vec::new();
        for pin in pins.iter() {
            types.extend(accepted_types(pin.algorithm())?);
        }
        let preferred = Preferred {
            key: Cow::Owned(types),
            // The fastest one first; all are safe.
            cipher: Cow::Borrowed(&[
                cipher::AES_256_GCM,
                cipher::CHACHA20_POLY1305,
                cipher::AES_256_CTR,
                cipher::AES_192_CTR,
                cipher::AES_128_CTR,
            ]),
            ..Preferred::DEFAULT
        };
        let config = client::Config {
            window_size: WINDOW_BYTES,
            maximum_packet_size: PACKET_BYTES_MAX,
            nodelay: true,
            inactivity_timeout: None,
            keepalive_interval: Some(seconds(30)),
            keepalive_max: 3,
            preferred,
            ..client::Config::default()
        };
        let Place { user, authority, path } = place;
        Ok(Self { user, authority, path, key, pins: pins.into(), config: Arc::new(config), limits })
    }

    async fn log_in(&self) -> Result<Box<dyn Session>, Failure> {
        let late = |what, within| Failure::Late { upstream: self.authority.clone(), what, within };
        let within = seconds(self.limits.connect_seconds);
        let connecting = tokio::time::timeout(within, tunnel::straight(&self.authority)).await;
        let stream = connecting.map_err(|_| late("connection", within))??;
        let within = seconds(self.limits.handshake_seconds);
        let shaking = tokio::time::timeout(within, self.shake(stream)).await;
        shaking.map_err(|_| late("ssh handshake", within))?
    }

    async fn shake(&self, stream: tokio::net::TcpStream) -> Result<Box<dyn Session>, Failure> {
        let broken = |error| Failure::Ssh(self.authority.clone(), error);
        let wrong_host = Arc::new(AtomicBool::new(false));
        let guard = Guard { pins: self.pins.clone(), wrong_host: wrong_host.clone() };
        let connected = client::connect_stream(self.config.clone(), stream, guard).await;
        let mut handle = connected.map_err(|error| match error {
            _ if wrong_host.load(Ordering::Acquire) => Failure::HostKey(self.authority.clone()),
            // A host that has no key of a pinned type is not the pinned host.
            russh::Error::NoCommonAlgo { kind: russh::AlgorithmKind::Key, .. } => {
                Failure::HostKey(self.authority.clone())
            }
            error => broken(error),
        })?;
        let hash = if self.key.algorithm().is_rsa() {
            // SHA-1 is never used, also with a server that does not say what it takes.
            Some(handle.best_supported_rsa_hash().await.map_err(broken)?.flatten().unwrap_or(HashAlg::Sha512))
        } else {
            None
        };
        let key = PrivateKeyWithHashAlg::new(self.key.clone(), hash);
        let answer = handle.authenticate_publickey(self.user.clone(), key).await.map_err(broken)?;
        if !answer.success() {
            return Err(Failure::Login(self.authority.clone()));
        }
        Ok(Box::new(Login { handle, authority: self.authority.clone(), path: self.path.clone() }))
    }
}

impl Upstream for Ssh {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Session>, Failure>> {
        Box::pin(self.log_in())
    }
}

struct Login {
    handle: Handle<Guard>,
    authority: Authority,
    path: String,
}

impl Session for Login {
    fn open(&mut self, service: Service, version: Version) -> BoxFuture<'_, Result<Box<dyn Line>, Failure>> {
        Box::pin(async move {
            let broken = |error| Failure::Ssh(self.authority.clone(), error);
            let channel = self.handle.channel_open_session().await.map_err(broken)?;
            if let Some(parameter) = version.as_parameter() {
                // Without an answer: a server that does not take it speaks version 0, as it does with git's own client.
                channel.set_env(false, "GIT_PROTOCOL", parameter).await.map_err(broken)?;
            }
            channel.exec(true, command(service, &self.path)).await.map_err(broken)?;
            Ok(Box::new(Talk::new(channel, self.authority.clone())) as Box<dyn Line>)
        })
    }
}

fn command(service: Service, path: &str) -> String {
    let program = match service {
        Service::Fetch => "git-upload-pack",
        // Unknown services never get here; a push that nobody asked for changes nothing.
        Service::Push | Service::Unknown => "git-receive-pack",
    };
    format!("{program} {}", quoted(path))
}

/// In single quotes, as git's own client does it.
fn quoted(path: &str) -> String {
    let mut out = String::from("'");
    for char in path.chars() {
        match char {
            '\'' | '!' => {
                out.push_str("'\\");
                out.push(char);
                out.push('\'');
            }
            _ => out.push(char),
        }
    }
    out.push('\'');
    out
}

struct Talk {
    inbound: Inbound,
    writer: Arc<Writer>,
    authority: Authority,
}

impl Talk {
    fn new(channel: Channel<Msg>, authority: Authority) -> Self {
        let (reader, writer) = channel.split();
        let writer = Arc::new(writer);
        let (chunks, inbound) = Inbound::pair();
        tokio::spawn(pump(reader, writer.clone(), chunks, inbound.ending.clone()));
        Self { inbound, writer, authority }
    }
}

impl Line for Talk {
    fn inbound(&mut self) -> &mut Inbound {
        &mut self.inbound
    }

    fn exchange(&mut self, upload: Upload) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let Upload { head, rest } = upload;
            let Some((_, mut rest)) = rest else {
                let sent = self.writer.data_bytes(head).await;
                return sent.map_err(|error| Failure::Ssh(self.authority.clone(), error));
            };
            let writer = self.writer.clone();
            let ending = self.inbound.ending.clone();
            // Beside the answer, which may begin before all is sent.
            tokio::spawn(async move {
                let mut sent = writer.data_bytes(head).await;
                while let (Ok(()), Some(chunk)) = (&sent, rest.recv().await) {
                    match chunk {
                        Ok(chunk) => sent = writer.data_bytes(chunk).await,
                        Err(error) => {
                            ending.failed(format!("the spool cannot be read: {error}"));
                            // What was sent is no whole pack: the upstream takes none of it.
                            let _ = writer.close().await;
                            return;
                        }
                    }
                }
                if let Err(error) = sent {
                    ending.failed(error.to_string());
                }
            });
            Ok(())
        })
    }

    fn outbound(&mut self) -> Option<Outbound> {
        Some(Outbound(self.writer.clone()))
    }
}

/// Hands on what the channel brings, until either side has gone; closes the channel then.
async fn pump(mut reader: ChannelReadHalf, writer: Arc<Writer>, chunks: mpsc::Sender<Bytes>, ending: super::Ending) {
    loop {
        let message = tokio::select! {
            () = chunks.closed() => break,
            message = reader.wait() => message,
        };
        match message {
            Some(ChannelMsg::Data { data }) => {
                if chunks.send(data).await.is_err() {
                    break;
                }
            }
            Some(ChannelMsg::ExtendedData { data, .. }) => ending.hear(&data),
            Some(ChannelMsg::Failure) => {
                ending.failed("the upstream does not run the command".into());
                break;
            }
            Some(ChannelMsg::ExitStatus { exit_status }) if exit_status != 0 => {
                ending.failed(format!("exit status {exit_status}"));
            }
            Some(ChannelMsg::ExitSignal { .. }) => ending.failed("ended by a signal".into()),
            Some(ChannelMsg::Close) => break,
            None => {
                ending.failed("the ssh connection broke".into());
                break;
            }
            // Eof too: what came on the side may still follow.
            Some(_) => {}
        }
    }
    // The other side may be gone already.
    let _ = writer.close().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_as_git_does() {
        for (path, wanted) in [
            ("/team/app.git", "git-upload-pack '/team/app.git'"),
            ("/a;rm -rf /", "git-upload-pack '/a;rm -rf /'"),
            ("/it's", "git-upload-pack '/it'\\''s'"),
            ("/a!b", "git-upload-pack '/a'\\!'b'"),
            ("/$(id)`id`", "git-upload-pack '/$(id)`id`'"),
        ] {
            assert_eq!(command(Service::Fetch, path), wanted);
        }
    }
}
