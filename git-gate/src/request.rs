//! The agent's first packet: `git-upload-pack /name.git\0host=..\0\0version=2\0` (gitprotocol-pack(5), "Git Transport"). PURE.
//!
//! What it names is looked up, never built into anything.

use crate::config::Service;

/// The version of the protocol that a client asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// The first one, which has no name on the wire.
    V0,
    /// Like the first, but says so.
    V1,
    /// Commands and capabilities; for fetches alone.
    V2,
}

/// What the agent asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Fetch or push.
    pub service: Service,
    /// The repository as asked: without the `/` in front and without `.git`.
    pub name: String,
    /// The version that the client speaks.
    pub version: Version,
}

/// Why a first packet is refused; the words go to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No service, no path, or characters that no name has.
    #[error("the request is not one of git's protocol")]
    Malformed,
    /// `git archive --remote` or something newer.
    #[error("only fetch and push go through here; git archive --remote and others are not offered")]
    NotOffered,
}

impl Version {
    /// What `GIT_PROTOCOL` and `Git-Protocol` say; nothing for version 0.
    pub fn as_parameter(self) -> Option<&'static str> {
        match self {
            Self::V0 => None,
            Self::V1 => Some("version=1"),
            Self::V2 => Some("version=2"),
        }
    }
}

impl Request {
    /// Reads the data of the first packet.
    pub fn parse(data: &[u8]) -> Result<Self, RequestError> {
        let mut parts = data.split(|byte| *byte == 0);
        let line = parts.next().unwrap_or_default();
        let line =
            std::str::from_utf8(line.strip_suffix(b"\n").unwrap_or(line)).map_err(|_| RequestError::Malformed)?;
        let (service, path) = line.split_once(' ').ok_or(RequestError::Malformed)?;
        let service = match service {
            "git-upload-pack" => Service::Fetch,
            "git-receive-pack" => Service::Push,
            _ if service.starts_with("git-") => return Err(RequestError::NotOffered),
            _ => return Err(RequestError::Malformed),
        };
        if path.chars().any(char::is_control) {
            return Err(RequestError::Malformed);
        }
        let name = path.strip_prefix('/').unwrap_or(path);
        let name = name.strip_suffix('/').unwrap_or(name);
        let name = name.strip_suffix(".git").unwrap_or(name);
        // host= and whatever a later git adds say nothing that the gate needs; of versions the highest known one counts.
        let version = parts
            .filter_map(|part| match part {
                b"version=1" => Some(Version::V1),
                b"version=2" => Some(Version::V2),
                _ => None,
            })
            .max();
        Ok(Self { service, name: name.to_owned(), version: version.unwrap_or(Version::V0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_packets_and_their_refused_neighbours() {
        let ok = |service, name: &str, version| Ok(Request { service, name: name.into(), version });
        use Service::{Fetch, Push};
        for (data, wanted) in [
            ("git-upload-pack /app.git\0host=git-gate\0", ok(Fetch, "app", Version::V0)),
            ("git-upload-pack /app\0host=git-gate\0\0version=2\0", ok(Fetch, "app", Version::V2)),
            ("git-receive-pack /team/app.git\0host=h:9418\0\0version=1\0", ok(Push, "team/app", Version::V1)),
            ("git-receive-pack app/\0", ok(Push, "app", Version::V0)),
            ("git-upload-pack /app.git\n\0host=h\0\0version=2:x=$(id)\0", ok(Fetch, "app", Version::V0)),
            ("git-upload-pack /app.git\0host=h\0\0version=3\0", ok(Fetch, "app", Version::V0)),
            // Not refused here: no table has such names.
            ("git-upload-pack /../../etc\0", ok(Fetch, "../../etc", Version::V0)),
            ("git-upload-pack /--upload-pack=x\0", ok(Fetch, "--upload-pack=x", Version::V0)),
            ("git-upload-archive /app.git\0host=h\0", Err(RequestError::NotOffered)),
            ("git-upload-pack", Err(RequestError::Malformed)),
            ("git-upload-pack /a\nb\0", Err(RequestError::Malformed)),
            ("git-upload-pack /a\x1b[2J\0", Err(RequestError::Malformed)),
            ("upload-pack /a\0", Err(RequestError::Malformed)),
            ("", Err(RequestError::Malformed)),
        ] {
            assert_eq!(Request::parse(data.as_bytes()), wanted, "{data:?}");
        }
        assert_eq!(Request::parse(b"git-upload-pack /\xff\0"), Err(RequestError::Malformed));
    }
}
