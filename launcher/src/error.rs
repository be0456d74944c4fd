//! Errors as people read them: one sentence made of a chain of causes, and a hint where a fix is known.

use std::fmt::Write as _;

/// An error that ends a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit status it leads to.
    pub exit: crate::exit::Exit,
    /// What failed and why, in one sentence without a full stop, or several lines of a report.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// A mistake of usage or in a manifest.
    pub fn usage(message: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        Self { exit: crate::exit::Exit::Usage, message: message.into(), hint: hint.into() }
    }

    /// The engine or the launch failed.
    pub fn launch(message: impl Into<String>, hint: impl Into<Option<String>>) -> Self {
        Self { exit: crate::exit::Exit::Launch, message: message.into(), hint: hint.into() }
    }
}

impl From<crate::engine::EngineError> for Failure {
    fn from(error: crate::engine::EngineError) -> Self {
        let hint = match error.kind {
            crate::engine::Kind::Unreachable => {
                Some("start Docker, or set DOCKER_HOST to an engine that answers".to_owned())
            }
            crate::engine::Kind::TooOld => {
                Some("update Docker to 20.10 or later, or set DOCKER_HOST to a newer engine".to_owned())
            }
            crate::engine::Kind::Conflict => Some("say it again: the next free name is chosen".to_owned()),
            crate::engine::Kind::NotFound
            | crate::engine::Kind::Overlap
            | crate::engine::Kind::NoProgram
            | crate::engine::Kind::Timeout
            | crate::engine::Kind::Other => None,
        };
        Self::launch(chain(&error), hint)
    }
}

impl From<crate::manifest::LoadErrors> for Failure {
    /// Every frame as it prints. Each begins with `error: `; the printer of a failure says that word for the first.
    fn from(errors: crate::manifest::LoadErrors) -> Self {
        let frames = errors.to_string();
        Self::usage(frames.strip_prefix(ERROR).unwrap_or(&frames), None)
    }
}

/// What a printed error begins with.
pub const ERROR: &str = "error: ";

/// An error and its causes as one sentence: `what: why: why`. A cause that only repeats the one before is left out.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut sentence = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !sentence.contains(&text) {
            // Writing to a string cannot fail.
            let _ = write!(sentence, ": {text}");
        }
        source = cause.source();
    }
    sentence
}
