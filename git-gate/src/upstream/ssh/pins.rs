//! Who an ssh host may be: the keys that the operator pinned, and what is asked of a host that shows one.

use super::KeyError;
use russh::Channel;
use russh::client::{self, Msg};
use russh::keys::{Algorithm, HashAlg, PublicKey, PublicKeyOrCertificate};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The public keys that a configuration names, one a line.
pub(super) fn parse_pins(text: &str) -> Result<Vec<PublicKey>, KeyError> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pins: Vec<PublicKey> = lines.map(parse_pin).collect::<Result<_, _>>()?;
    if pins.is_empty() { Err(KeyError::NoPin) } else { Ok(pins) }
}

/// `type base64`, with or without the host in front of it and a comment behind it.
fn parse_pin(line: &str) -> Result<PublicKey, KeyError> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let pair = words.windows(2).take(2).find(|pair| pair[0].starts_with("ssh-") || pair[0].starts_with("ecdsa-"));
    let pair = pair.ok_or(KeyError::Pin)?;
    let key = PublicKey::from_openssh(&pair.join(" ")).map_err(|_| KeyError::Pin)?;
    accepted_types(key.algorithm())?;
    Ok(key)
}

/// What a server may sign with when this type is pinned.
pub(super) fn accepted_types(pinned: Algorithm) -> Result<Vec<Algorithm>, KeyError> {
    match pinned {
        Algorithm::Ed25519 | Algorithm::Ecdsa { .. } => Ok(vec![pinned]),
        Algorithm::Rsa { .. } => {
            Ok(vec![Algorithm::Rsa { hash: Some(HashAlg::Sha512) }, Algorithm::Rsa { hash: Some(HashAlg::Sha256) }])
        }
        _ => Err(KeyError::PinType),
    }
}

/// Lets the pinned host pass and nobody else, and takes nothing that a server offers by itself.
pub(super) struct Guard {
    /// Who may be there.
    pub(super) pins: Arc<[PublicKey]>,
    /// Whether somebody else was.
    pub(super) wrong_host: Arc<AtomicBool>,
}

impl client::Handler for Guard {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
        let is_pinned = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => {
                self.pins.iter().any(|pin| pin.key_data() == key.key_data())
            }
            PublicKeyOrCertificate::Certificate(_) => false,
        };
        self.wrong_host.store(!is_pinned, Ordering::Release);
        Ok(is_pinned)
    }

    // A server may not open a channel to the gate: an answer that goes unsaid is a refusal.

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        refused: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        drop(refused);
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        refused: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        drop(refused);
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        refused: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        drop(refused);
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        refused: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        drop(refused);
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        refused: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        drop(refused);
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        refused: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        drop(refused);
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        refused: client::ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Self::Error> {
        drop(refused);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";

    #[test]
    fn pins_and_their_refused_neighbours() {
        let data = PIN.split(' ').nth(1).unwrap();
        for (text, wanted) in [
            (PIN.to_owned(), Ok(1)),
            (format!("git.example {PIN} comment\n\n# x\n{PIN}\n"), Ok(2)),
            (String::new(), Err(KeyError::NoPin)),
            ("# only a comment".into(), Err(KeyError::NoPin)),
            (data.to_owned(), Err(KeyError::Pin)),
            (format!("ssh-rsa {data}"), Err(KeyError::Pin)),
            (format!("{PIN}x"), Err(KeyError::Pin)),
            (format!("|1|hash|hash {PIN}\n{}", "ssh-ed25519"), Err(KeyError::Pin)),
        ] {
            assert_eq!(parse_pins(&text).map(|pins| pins.len()), wanted, "{text}");
        }
    }
}
