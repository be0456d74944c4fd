//! What the engine's client says went wrong -> [`EngineError`], with the kind that somebody acts on. The engine's own words
//! are kept as the source.

use crate::engine::{EngineError, Kind};
use bollard::errors::Error;
use std::io::ErrorKind;

/// The engine's words, without the client's wrapping.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Words(pub String);

/// An error of the client.
pub fn failed(what: impl Into<String>, error: Error) -> EngineError {
    match error {
        Error::DockerResponseServerError { status_code, message } => answered(what, status_code, message),
        Error::DockerStreamError { error } => said(what, Kind::Other, error),
        other => {
            let kind = kind_of(&other);
            EngineError::new(what, kind, Some(Box::new(other) as _))
        }
    }
}

/// An answer with a status that is no success.
pub fn answered(what: impl Into<String>, status: u16, message: String) -> EngineError {
    said(what, kind_of_answer(status, &message), message)
}

/// An error with words of the engine.
pub fn said(what: impl Into<String>, kind: Kind, words: String) -> EngineError {
    EngineError::new(what, kind, Some(Box::new(Words(words)) as _))
}

/// It took longer than it may.
pub fn late(what: impl Into<String>, within: std::time::Duration) -> EngineError {
    said(what, Kind::Timeout, format!("no answer within {} s", within.as_secs()))
}

/// An error of a stream or socket to the engine.
pub fn broken(what: impl Into<String>, error: std::io::Error) -> EngineError {
    let kind = if is_connection(error.kind()) { Kind::Unreachable } else { Kind::Other };
    EngineError::new(what, kind, Some(Box::new(error) as _))
}

fn kind_of_answer(status: u16, message: &str) -> Kind {
    let lower = message.to_ascii_lowercase();
    if lower.contains("overlap") {
        return Kind::Overlap;
    }
    // Engine 20.10 answers 400 to the start of a container whose program is missing or cannot be run.
    let program = ["no such file or directory", "executable file not found", "permission denied"];
    if lower.contains("exec: \"") && program.iter().any(|words| lower.contains(words)) {
        return Kind::NoProgram;
    }
    match status {
        404 => Kind::NotFound,
        409 => Kind::Conflict,
        _ => Kind::Other,
    }
}

fn kind_of(error: &Error) -> Kind {
    match error {
        Error::SocketNotFoundError(_) => return Kind::Unreachable,
        // Transparent: it is not among its own sources.
        Error::IOError { err } if is_connection(err.kind()) => return Kind::Unreachable,
        Error::RequestTimeoutError => return Kind::Timeout,
        Error::HyperLegacyError { err } if err.is_connect() => return Kind::Unreachable,
        _ => {}
    }
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if cause.downcast_ref::<std::io::Error>().is_some_and(|e| is_connection(e.kind())) {
            return Kind::Unreachable;
        }
        // The client's own type for it cannot be named here.
        if cause.to_string().contains("connection closed before message completed") {
            return Kind::Unreachable;
        }
        source = cause.source();
    }
    Kind::Other
}

fn is_connection(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::PermissionDenied
            | ErrorKind::BrokenPipe
            | ErrorKind::UnexpectedEof
            | ErrorKind::NotConnected
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_kinds() {
        for (status, message, wanted) in [
            (403, "Pool overlaps with other one on this address space", Kind::Overlap),
            (400, "invalid pool request: Pool overlaps with other one on this address space", Kind::Overlap),
            (409, "Conflict. The container name \"/x\" is already in use by container \"y\".", Kind::Conflict),
            (404, "No such container: x", Kind::NotFound),
            (
                400,
                "runc create failed: unable to start container process: exec: \"/x\": stat /x: no such file or directory: unknown",
                Kind::NoProgram,
            ),
            (400, "runc create failed: exec: \"x\": executable file not found in $PATH: unknown", Kind::NoProgram),
            (400, "Unknown runtime specified runsc", Kind::Other),
            (500, "open /x: no such file or directory", Kind::Other),
        ] {
            assert_eq!(answered("could not", status, message.to_owned()).kind, wanted, "{message}");
        }
    }

    #[test]
    fn a_socket_that_is_not_there_is_unreachable() {
        assert_eq!(failed("x", Error::SocketNotFoundError("/x".to_owned())).kind, Kind::Unreachable);
        let refused = std::io::Error::from(ErrorKind::ConnectionRefused);
        assert_eq!(failed("x", Error::IOError { err: refused }).kind, Kind::Unreachable);
        let other = std::io::Error::other("disk full");
        assert_eq!(failed("x", Error::IOError { err: other }).kind, Kind::Other);
    }
}
