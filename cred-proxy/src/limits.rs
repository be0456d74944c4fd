//! The limits in force: [`config::Limits`](crate::config::Limits), checked and in the units that the code uses. PURE.

use std::time::Duration;

/// How much at one time, how long, how quiet. There is no limit on a whole request: a stream may be long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// The agent's connections at one time.
    pub connections: usize,
    /// Requests at one time.
    pub requests: usize,
    /// Bytes of a request's body.
    pub body_bytes: u64,
    /// For the head of the agent's request, and between two of its requests.
    pub agent_head: Duration,
    /// Between two chunks of a body.
    pub idle: Duration,
    /// Name, connection, CONNECT and TLS together.
    pub connect: Duration,
    /// From the last byte of the request to the reply's head.
    pub reply: Duration,
    /// How long a connection to an upstream is kept unused; less than proxies and upstreams keep theirs.
    pub kept: Duration,
}

/// A limit that cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`limits.{name}` is {given}; it must be from {least} to {most}")]
pub struct LimitError {
    name: &'static str,
    given: u64,
    least: u64,
    most: u64,
}

const DAY_SECONDS: u64 = 86_400;

impl Limits {
    /// Checks each.
    pub fn parse(config: &crate::config::Limits) -> Result<Self, LimitError> {
        let within = |name, given: u32, least, most| {
            let given = u64::from(given);
            if (least..=most).contains(&given) { Ok(given) } else { Err(LimitError { name, given, least, most }) }
        };
        let count = |name, given, least, most| {
            within(name, given, least, most).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
        };
        let seconds = |name, given, most| within(name, given, 1, most).map(Duration::from_secs);
        Ok(Self {
            head_bytes: count("head_bytes", config.head_bytes, 1 << 10, 1 << 20)?,
            connections: count("connections", config.connections, 1, 1 << 16)?,
            requests: count("requests", config.requests, 1, 1 << 16)?,
            body_bytes: config.body_bytes.unwrap_or(u64::MAX),
            agent_head: seconds("head_seconds", config.head_seconds, DAY_SECONDS)?,
            idle: seconds("idle_seconds", config.idle_seconds, DAY_SECONDS)?,
            connect: seconds("connect_seconds", config.connect_seconds, 600)?,
            reply: seconds("reply_seconds", config.reply_seconds, DAY_SECONDS)?,
            kept: Duration::from_secs(50),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn limits_and_their_refused_neighbours() {
        assert!(Limits::parse(&config::Limits::default()).is_ok());
        type Edit = fn(&mut config::Limits, u32);
        let table: &[(&str, Edit, u32, u32)] = &[
            ("head_bytes", |limits, to| limits.head_bytes = to, 1024, 1 << 20),
            ("connections", |limits, to| limits.connections = to, 1, 65_536),
            ("requests", |limits, to| limits.requests = to, 1, 65_536),
            ("head_seconds", |limits, to| limits.head_seconds = to, 1, 86_400),
            ("idle_seconds", |limits, to| limits.idle_seconds = to, 1, 86_400),
            ("connect_seconds", |limits, to| limits.connect_seconds = to, 1, 600),
            ("reply_seconds", |limits, to| limits.reply_seconds = to, 1, 86_400),
        ];
        for (name, edit, least, most) in table {
            for (value, fits) in [(*least, true), (*most, true), (least - 1, false), (most + 1, false)] {
                let mut limits = config::Limits::default();
                edit(&mut limits, value);
                let wanted = format!("`limits.{name}` is {value}; it must be from {least} to {most}");
                let refused = Limits::parse(&limits).err().map(|error| error.to_string());
                assert_eq!(refused, (!fits).then_some(wanted));
            }
        }
    }
}
