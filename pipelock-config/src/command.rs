//! The small program around the library: renders a policy, checks a file.
//!
//! It reads standard input and writes standard output, so that a person can see what a policy means and a test can hand
//! the result to pipelock itself. It must never be needed to run a bottle.

use crate::policy::{AgentPolicy, BadPolicy, Policy, RoutePolicy};
use crate::schema::{BadConfig, Config, render};
use serde::Deserialize;
use std::io::{self, Read, Write};

/// Input longer than this is refused.
pub const INPUT_BYTES_MAX: u64 = 8 << 20;

/// How the program is used.
pub const USAGE: &str = "usage: pipelock-config render < policy.toml   a policy (TOML, or JSON) as pipelock's YAML
       pipelock-config check < pipelock.yaml  is it a file that we would run?
A policy: client = \"agent\" or \"routes\", listen = \"10.0.0.2:8888\", allowlist = [...], passthrough = [...],
allow_private = [...]; for an agent also sidecars = [{ name, address }] and agent_credentials = false; for routes
also credential_headers = [...].
";

/// Why the program ends with 1.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Arguments.
    #[error("no such use\n{USAGE}")]
    Usage,
    /// Input or output.
    #[error("could not read or write")]
    Io(#[from] io::Error),
    /// Too much.
    #[error("the input is longer than {INPUT_BYTES_MAX} bytes")]
    TooLong,
    /// Not JSON.
    #[error("could not read the policy")]
    Json(#[from] serde_json::Error),
    /// Not TOML.
    #[error("could not read the policy")]
    Toml(#[source] Box<toml::de::Error>),
    /// Not a policy.
    #[error("could not make that a policy")]
    Policy(#[from] BadPolicy),
    /// Not a configuration.
    #[error(transparent)]
    Config(#[from] BadConfig),
}

/// A policy as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "client", rename_all = "kebab-case")]
pub enum Written {
    /// Of the agent's pipelock.
    Agent(AgentPolicy),
    /// Of route-pipelock.
    Routes(RoutePolicy),
}

impl Written {
    /// Reads TOML, or JSON where the text begins with a brace.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if text.trim_start().starts_with('{') {
            return Ok(serde_json::from_str(text)?);
        }
        toml::from_str(text).map_err(|e| Failure::Toml(Box::new(e)))
    }

    /// The policy.
    pub fn policy(self) -> Result<Policy, BadPolicy> {
        match self {
            Self::Agent(policy) => Policy::for_agent(policy),
            Self::Routes(policy) => Policy::for_routes(policy),
        }
    }
}

/// Runs the program.
pub fn run(
    mut arguments: impl Iterator<Item = String>,
    input: impl Read,
    output: &mut impl Write,
) -> Result<(), Failure> {
    let (verb, rest) = (arguments.next(), arguments.next());
    let read = || {
        let mut text = String::new();
        input.take(INPUT_BYTES_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > INPUT_BYTES_MAX { Err(Failure::TooLong) } else { Ok(text) }
    };
    match (verb.as_deref(), rest) {
        (Some("render"), None) => output.write_all(render(&Written::parse(&read()?)?.policy()?).as_bytes())?,
        (Some("check"), None) => {
            Config::parse(&read()?)?;
            output.write_all(b"ok\n")?;
        }
        _ => return Err(Failure::Usage),
    }
    output.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(verb: &str, input: &str) -> Result<String, String> {
        let mut output = Vec::new();
        run([verb.to_owned()].into_iter(), input.as_bytes(), &mut output).map_err(|e| e.to_string())?;
        Ok(String::from_utf8(output).unwrap())
    }

    #[test]
    fn what_is_rendered_checks() {
        let toml = "client = \"agent\"\nlisten = \"10.0.0.2:8888\"\nallowlist = [\"a.example\"]\n";
        let json = r#"{"client": "agent", "listen": "10.0.0.2:8888", "allowlist": ["a.example"]}"#;
        let yaml = ran("render", toml).unwrap();
        assert_eq!(ran("render", json).unwrap(), yaml);
        assert_eq!(ran("check", &yaml).unwrap(), "ok\n");
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let yaml = ran("render", "client = \"routes\"\nlisten = \"10.0.0.2:8888\"\n").unwrap();
        for (verb, input, part) in [
            ("check", yaml.replace("mode: 'strict'", "mode: 'balanced'"), "mode must be strict"),
            ("check", yaml.replace("enforce: true", "enforce: false"), "enforce"),
            ("check", yaml.replace("version: 1", "version: 1\nsurprise: 1"), "could not read"),
            ("check", String::new(), "could not read"),
            ("render", "client = \"nobody\"\n".into(), "could not read"),
            ("render", "client = \"routes\"\nlisten = \"10.0.0.2:8888\"\nallowlist = [\"*\"]\n".into(), "policy"),
            ("render", "client = \"routes\"\nlisten = \"10.0.0.2:8888\"\nsidecars = []\n".into(), "could not read"),
            ("lock", String::new(), "usage"),
        ] {
            let error = ran(verb, &input).unwrap_err();
            assert!(error.contains(part), "{verb} {input}: {error}");
        }
    }
}
