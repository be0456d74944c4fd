//! The tools: their names, what they take, and what an agent reads about them.

use crate::check::{ALLOW_MAX, DOCKERFILE_BYTES_MAX, HOSTS_MAX, JUSTIFICATION_BYTES_MAX};
use crate::wire::{Answer, Change, Route};
use rmcp::handler::server::common::{schema_for_input, schema_for_output};
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use schemars::JsonSchema;
use serde::Deserialize;
use std::any::Any;

/// What an agent is told of this server before anything else.
pub const INSTRUCTIONS: &str = "\
You run inside a bottle: a container that reaches only what its operator has allowed. This server is how you ask that \
person for more. Nothing here opens anything by itself; a person reads your justification and decides.\n\
When something is refused, look first: bottle://denials says what was refused and which tool asks for it, \
bottle://allowlist, bottle://routes and bottle://git say what is open; the files in /.bottle/current-config say the same. A refusal is not a fault to work around.\n\
Ask for the least that does the job, say what for, and go on with other work meanwhile. \
A host that answers 403 at the proxy: pipelock-block. An API that needs a credential, which only the operator has: \
cred-proxy-block. A push that was rejected for something that is no secret: git-gate-block. A program that is missing in \
the container: capability-block.\n\
Each call waits a little for the answer. `pending` with an id means that no person has answered yet: call check-proposal \
with the id later; asking the same again changes nothing. `rejected` is final: do not ask again in other words.";

/// Arguments of `pipelock-block`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostsAsk {
    /// Host names without scheme, port or path, as `crates.io`. `*.example.org` is example.org and everything below it; ask
    /// for a wildcard only where single hosts will not do. Addresses and internal names are never granted.
    #[schemars(length(min = 1, max = HOSTS_MAX))]
    pub hosts: Vec<String>,
    /// For the person who decides: what you are doing, and what you need these hosts for.
    #[schemars(length(min = 1, max = JUSTIFICATION_BYTES_MAX))]
    pub justification: String,
}

/// Arguments of `cred-proxy-block`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteAsk {
    /// Where you will reach it at http://cred-proxy:9099, with a slash at both ends, as `/forge/`.
    #[schemars(length(min = 3, max = 256))]
    pub path: String,
    /// Where it leads: `https://host[:port][/path]`.
    pub upstream: String,
    /// How the operator's credential would be put in: `Bearer`, `token`, `Basic`, `header:<Name>`, or `none`. You cannot name
    /// or bring a credential; the operator chooses one, or none.
    pub scheme: String,
    /// What shall pass, as method and path below the route: `GET /v1/models/**`. `*` is one path segment, `**` any number.
    /// Nothing else passes.
    #[schemars(length(min = 1, max = ALLOW_MAX))]
    pub allow: Vec<String>,
    /// For the person who decides: what you are doing, and what you need this API for.
    #[schemars(length(min = 1, max = JUSTIFICATION_BYTES_MAX))]
    pub justification: String,
}

/// Arguments of `git-gate-block`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FindingAsk {
    /// The fingerprint from git-gate's rejection: 12 to 64 hexadecimal digits.
    #[schemars(length(min = 12, max = 64))]
    pub fingerprint: String,
    /// For the person who decides: why this is no secret (a test's made-up key, a public identifier).
    #[schemars(length(min = 1, max = JUSTIFICATION_BYTES_MAX))]
    pub justification: String,
}

/// Arguments of `capability-block`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DockerfileAsk {
    /// The whole Dockerfile that you want: FROM and the image that bottle://dockerfile has as `from`, then RUN (a line of the
    /// shell), ENV, WORKDIR and USER, with what an earlier one of yours had.
    #[schemars(length(min = 1, max = DOCKERFILE_BYTES_MAX))]
    pub dockerfile: String,
    /// For the person who decides: which program is missing, and what you need it for.
    #[schemars(length(min = 1, max = JUSTIFICATION_BYTES_MAX))]
    pub justification: String,
}

/// Arguments of `check-proposal`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// The id that an earlier call answered with, as `p3`.
    #[schemars(length(min = 2, max = 20))]
    pub id: String,
    /// How many seconds to wait for the answer: 0 to look and go on at once, 45 at most (also if left out).
    #[serde(default)]
    #[schemars(range(max = 45))]
    pub wait_seconds: Option<u64>,
}

/// A call with its arguments read.
#[derive(Debug)]
pub enum Call {
    /// A change is asked for.
    Ask {
        /// As it was written.
        change: Change,
        /// Why.
        justification: String,
    },
    /// A proposal is looked at.
    Check(Check),
}

/// Why a call is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadCall {
    /// There is no such tool.
    NoTool,
    /// Its arguments cannot be read, in words for the agent.
    Arguments(String),
}

/// The longest sentence about arguments that cannot be read; the library's words may quote all of them.
const BAD_ARGUMENTS_CHARS_MAX: usize = 300;

impl Call {
    /// Reads the arguments of a tool.
    pub fn read(name: &str, arguments: Option<JsonObject>) -> Result<Self, BadCall> {
        let arguments = arguments.unwrap_or_default();
        Ok(match name {
            "pipelock-block" => {
                let HostsAsk { hosts, justification } = read(arguments)?;
                Self::Ask { change: Change::Hosts { hosts }, justification }
            }
            "cred-proxy-block" => {
                let RouteAsk { path, upstream, scheme, allow, justification } = read(arguments)?;
                Self::Ask { change: Change::Route(Route { path, upstream, scheme, allow }), justification }
            }
            "git-gate-block" => {
                let FindingAsk { fingerprint, justification } = read(arguments)?;
                Self::Ask { change: Change::Finding { fingerprint }, justification }
            }
            "capability-block" => {
                let DockerfileAsk { dockerfile, justification } = read(arguments)?;
                Self::Ask { change: Change::Dockerfile { text: dockerfile }, justification }
            }
            "check-proposal" => Self::Check(read(arguments)?),
            _ => return Err(BadCall::NoTool),
        })
    }
}

fn read<T: for<'de> Deserialize<'de>>(arguments: JsonObject) -> Result<T, BadCall> {
    serde_json::from_value(arguments.into()).map_err(|error| {
        let words: String = error.to_string().chars().take(BAD_ARGUMENTS_CHARS_MAX).collect();
        BadCall::Arguments(format!("the arguments do not fit the tool: {}", words.escape_debug()))
    })
}

/// All tools, in the order in which an agent should think of them.
pub fn all() -> Vec<Tool> {
    vec![
        tool::<HostsAsk>(
            "pipelock-block",
            "Ask for hosts",
            "Ask the operator to open hosts that you cannot reach: the proxy answered 403, or bottle://denials lists them. \
             Answers with the proposal's id and status. Hosts of routes (bottle://routes) and of git remotes (bottle://git) \
             are never opened this way: use their own doors.",
        ),
        tool::<RouteAsk>(
            "cred-proxy-block",
            "Ask for an API that needs a credential",
            "Ask the operator for a route of cred-proxy to an API. You reach it at http://cred-proxy:9099<path>, and the \
             operator's credential, which you never see, is put in on the way.",
        ),
        tool::<FindingAsk>(
            "git-gate-block",
            "Claim that a finding is no secret",
            "After git-gate has rejected a push: ask the operator to let one finding pass, named by its fingerprint in the \
             rejection. If it is a secret, remove it from all commits of the push instead.",
        ),
        tool::<DockerfileAsk>(
            "capability-block",
            "Ask for another container",
            "Ask the operator for a changed Dockerfile, where a program that you need is not in your container. It holds from \
             when the bottle is resumed. FROM must be the image that bottle://dockerfile has as `from`; RUN, ENV, WORKDIR and \
             USER may follow. RUN reaches what you reach through the proxy, and nothing else.",
        ),
        tool::<Check>(
            "check-proposal",
            "Look at a proposal",
            "Where a proposal is that was answered with `pending` before: approved, modified (what is in force is in \
             `applied`), rejected, failed, ended, or still pending.",
        )
        .annotate(ToolAnnotations::new().read_only(true).idempotent(true).open_world(false)),
    ]
}

fn tool<T: JsonSchema + Any>(name: &'static str, title: &str, description: &'static str) -> Tool {
    let input = schema_for_input::<T>().expect("the schema of a struct is an object's");
    let mut tool = Tool::new(name, description, input).with_title(title);
    tool.output_schema = Some(schema_for_output::<Answer>());
    tool.annotate(ToolAnnotations::new().read_only(false).destructive(false).idempotent(true).open_world(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn call(name: &str, arguments: Value) -> Result<Call, BadCall> {
        let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
        Call::read(name, Some(arguments))
    }

    fn examples() -> [(&'static str, Value); 5] {
        [
            ("pipelock-block", json!({"hosts": ["a.example"], "justification": "j"})),
            (
                "cred-proxy-block",
                json!({"path": "/a/", "upstream": "https://a.example", "scheme": "none", "allow": ["GET /"], "justification": "j"}),
            ),
            ("git-gate-block", json!({"fingerprint": "0123456789ab", "justification": "j"})),
            ("capability-block", json!({"dockerfile": "FROM a", "justification": "j"})),
            ("check-proposal", json!({"id": "p1", "wait_seconds": 0})),
        ]
    }

    #[test]
    fn every_tool_takes_what_its_schema_says_and_nothing_else() {
        let tools = all();
        assert_eq!(tools.len(), examples().len());
        for ((name, example), tool) in examples().into_iter().zip(tools) {
            assert_eq!(tool.name, name);
            let schema = Value::Object((*tool.input_schema).clone());
            assert_eq!(schema["additionalProperties"], json!(false), "{name}");
            let described = |field: &str| schema["properties"][field]["description"].is_string();
            for (field, _) in example.as_object().unwrap() {
                assert!(described(field), "{name}.{field} says nothing of itself");
            }
            assert!(call(name, example.clone()).is_ok(), "{name}");
            for required in schema["required"].as_array().unwrap() {
                let mut less = example.clone();
                less.as_object_mut().unwrap().remove(required.as_str().unwrap());
                assert!(matches!(call(name, less), Err(BadCall::Arguments(_))), "{name} without {required}");
            }
            for more in ["token", "token_ref", "credential", "secret", "approved", "status"] {
                let mut more_of_it = example.clone();
                more_of_it[more] = json!("x");
                assert!(matches!(call(name, more_of_it), Err(BadCall::Arguments(_))), "{name} takes {more}");
            }
        }
        assert_eq!(call("approve", json!({"id": "p1"})).unwrap_err(), BadCall::NoTool);
        assert!(call("check-proposal", json!({"id": "p1"})).is_ok());
        for bad in [json!({"id": 1}), json!({"id": "p1", "wait_seconds": -1}), json!({"id": "p1", "wait_seconds": 1.5})]
        {
            assert!(matches!(call("check-proposal", bad), Err(BadCall::Arguments(_))));
        }
    }

    #[test]
    fn what_is_said_of_bad_arguments_is_short_and_harmless() {
        let mut arguments = json!({"hosts": [], "justification": "j"});
        arguments[format!("\u{1b}[2J\n{}", "x".repeat(5000))] = json!(1);
        let Err(BadCall::Arguments(words)) = call("pipelock-block", arguments) else { panic!("it was taken") };
        assert!(words.len() < 500 && !words.contains(['\u{1b}', '\n']), "{words}");
    }

    #[test]
    fn every_tool_is_in_the_instructions() {
        for tool in all() {
            assert!(INSTRUCTIONS.contains(tool.name.as_ref()), "{}", tool.name);
        }
        assert!(INSTRUCTIONS.contains(crate::config::FOLDER));
    }
}
