//! What cred-proxy, git-gate and supervise have in common, and nothing that decides anything.
//!
//! A sidecar is told what to do on its standard input ([`commands`]) or, deployed alone, by a file that its command line names
//! ([`cli`]). What opens an upstream is a [`Secret`]; where an upstream is, is an [`authority`]; the way there is a [`tunnel`].

pub mod authority;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
pub mod commands;
mod secret;
#[cfg(feature = "server")]
pub mod tunnel;

pub use authority::Authority;
pub use secret::Secret;

/// The longest line of a sidecar's standard input, in bytes; a longer one is refused whole.
pub const LINE_BYTES_MAX: usize = 4 << 20;

/// An error and its sources as one sentence.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut sentence = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let text = error.to_string();
        // Some libraries repeat their source in their own text.
        if !sentence.ends_with(&text) {
            sentence.push_str(": ");
            sentence.push_str(&text);
        }
        source = error.source();
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Link(&'static str, #[source] Option<Box<Link>>);

    #[test]
    fn a_source_is_said_once() {
        let of = |words: &[&'static str]| {
            let mut links = words.iter().rev();
            let last = Link(links.next().unwrap(), None);
            chain(&links.fold(last, |inner, word| Link(word, Some(Box::new(inner)))))
        };
        for (words, wanted) in [
            (&["no route"][..], "no route"),
            (&["no route", "the host is down"], "no route: the host is down"),
            (&["no route: down", "down"], "no route: down"),
            (&["a", "b", "c"], "a: b: c"),
        ] {
            assert_eq!(of(words), wanted);
        }
    }
}
