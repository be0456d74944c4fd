//! The headers of manifests as JSON Schema (draft 2020-12), for editors. What a schema cannot say (whether two doors
//! overlap, whether a file is there) `launcher check` says. A test holds every table against the reader of manifests.

use super::{Role, Runtime, WorkspaceMode};
use serde_json::{Map, Value, json};

/// The header of a bottle.
pub fn bottle() -> Value {
    let agent = table(
        "Where the agent's container comes from: a provider, and an image or a Dockerfile where the provider has none.",
        &[],
        &[
            ("provider", text("claude, codex, shell, or a file of providers/; absent: shell.")),
            ("image", text("An image that the engine has or can pull.")),
            ("dockerfile", text("A Dockerfile to build the image from, relative to this file.")),
            (
                "user",
                text(
                    "auto (the image's user, or uid 1000 `agent` where that is root), root, a user of the image, or uid:gid; absent: auto.",
                ),
            ),
        ],
    );
    let env = json!({
        "description": "Variables of the agent: a value, \"${NAME}\" for one of the operator's environment, or \"?QUESTION\" \
                        to be asked at the launch.",
        "type": "object",
        "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]{0,127}$"},
        "additionalProperties": {"type": ["string", "number", "boolean"]},
    });
    header(
        "A bottle: what an agent in it may reach and hold",
        &["agent"],
        &[
            ("extends", text("The bottle whose header this one adds to: lists append, other keys win here.")),
            ("agent", agent),
            ("env", env),
            ("egress", egress()),
            ("cred_proxy", cred_proxy()),
            ("git", git()),
            ("supervise", truth("May the agent ask for more while it runs?")),
            ("limits", limits()),
            ("runtime", words("What runs the agent's container.", &Runtime::WORDS.map(|(word, _)| word))),
            (
                "workspace",
                words("What of the current directory comes along.", &WorkspaceMode::WORDS.map(|(word, _)| word)),
            ),
            ("skills", skills()),
        ],
    )
}

/// The header of an agent.
pub fn agent() -> Value {
    let kept = "Read by other tools; without effect here.";
    header(
        "An agent: who works in a bottle. The text below the header is its system prompt",
        &[],
        &[
            ("name", text("What the file calls its agent; the file's own name is what counts.")),
            ("description", text("One line for people.")),
            ("bottle", text("The bottle it works in; ignored in a repository's file.")),
            ("skills", skills()),
            ("model", text(kept)),
            ("color", text(kept)),
            ("memory", text(kept)),
            ("tools", json!({"description": kept, "anyOf": [{"type": "string"}, texts("")]})),
        ],
    )
}

fn egress() -> Value {
    table(
        "What the agent's pipelock lets through.",
        &[],
        &[
            ("allowlist", texts("Hosts that the agent may reach: names, or `*.` and a name for all below it.")),
            ("passthrough", texts("Hosts of the allowlist whose TLS is not opened, and so not read.")),
            ("allow_private", texts("Hosts that may resolve to private addresses.")),
            ("also_direct", texts("Hosts of remotes that may be on the allowlist as well.")),
            ("upstream_roots", text("A PEM file of further roots that upstreams are checked against.")),
            ("agent_credentials", truth("May the agent's own Authorization and X-Api-Key headers leave?")),
            ("network", text("An existing network of the engine to go out by.")),
        ],
    )
}

fn cred_proxy() -> Value {
    let route = table(
        "A path of cred-proxy that leads to one upstream with a credential that the agent never holds.",
        &["path", "upstream", "auth_scheme"],
        &[
            (
                "path",
                json!({"description": "What the agent asks for, such as /api/.", "type": "string", "pattern": "^/"}),
            ),
            ("upstream", json!({"description": "Where it leads.", "type": "string", "pattern": "^https?://"})),
            (
                "auth_scheme",
                json!({
                    "description": "How the credential is put in: Bearer, token, Basic, header:<Name>, none.",
                    "type": "string",
                    "pattern": "^(Bearer|token|Basic|none|header:.+)$",
                }),
            ),
            ("token_ref", token_ref()),
            ("role", roles()),
            ("inspect", truth("Does pipelock open its TLS? Absent: by role.")),
            ("allow", texts("What may pass: a method and a path pattern, such as \"GET /v1/**\". Absent: by role.")),
        ],
    );
    let count = |what: &str| json!({"description": what, "type": "integer", "minimum": 1, "maximum": 65536});
    let limits = table(
        "What an agent may use up at cred-proxy.",
        &[],
        &[
            ("head", quantity("Bytes of a request's head.")),
            ("body", quantity("Bytes of a request's body; absent: no limit.")),
            ("connections", count("Connections at one time.")),
            ("requests", count("Requests at one time.")),
            ("head_time", quantity("For a head, and between two requests.")),
            ("idle_time", quantity("Without a byte.")),
            ("connect_time", quantity("For the connection to the upstream.")),
            ("reply_time", quantity("Until the upstream begins to answer.")),
        ],
    );
    table("Routes with credentials.", &[], &[("routes", json!({"type": "array", "items": route})), ("limits", limits)])
}

fn token_ref() -> Value {
    let sources = table(
        "",
        &[],
        &[
            ("env", text("A variable of the operator's environment.")),
            ("file", text("A file on this machine.")),
            ("command", texts("A program with its arguments that prints the credential.")),
            ("ttl", quantity("How long what the command printed is good.")),
        ],
    );
    json!({
        "description": "Where the credential comes from: the name of a variable, or one of env, file, command.",
        "anyOf": [{"type": "string"}, sources],
    })
}

fn roles() -> Value {
    let role = words("", &Role::ALL.map(Role::name));
    json!({
        "description": "What the agent's tools are told about the route.",
        "anyOf": [role, {"type": "array", "items": role}],
    })
}

fn git() -> Value {
    let user = table("Who the agent's commits are by.", &["name", "email"], &[("name", text("")), ("email", text(""))]);
    let push = table(
        "What may be pushed; absent: nothing.",
        &[],
        &[
            ("refs", texts("Full ref names with `*` in them, such as refs/heads/agent/*.")),
            ("force", truth("May history be replaced?")),
            ("delete", truth("May refs be deleted?")),
            ("max_pack", quantity("Bytes of one push.")),
        ],
    );
    let remote = table(
        "A git upstream that the agent reaches through git-gate alone.",
        &["name", "upstream"],
        &[
            ("name", text("What people call it.")),
            ("upstream", text("ssh://[user@]host[:port]/path, user@host:path, or https://host[:port]/path.")),
            ("identity_file", text("The private key for an ssh remote.")),
            ("known_host_key", text("The host key of an ssh remote: the type and the key.")),
            ("token_ref", token_ref()),
            ("auth", text("How the token is sent to an https remote: bearer, basic, or basic USER.")),
            ("push", push),
            ("exceptions", texts("Fingerprints of findings that were judged false.")),
        ],
    );
    table("What git is told.", &[], &[("user", user), ("remotes", json!({"type": "array", "items": remote}))])
}

fn limits() -> Value {
    table(
        "What the agent's container may use up.",
        &[],
        &[
            ("cpus", json!({"description": "Processors.", "type": "number", "minimum": 0.1, "maximum": 256})),
            ("memory", quantity("Bytes, such as 4GiB.")),
            ("pids", json!({"description": "Processes.", "type": "integer", "minimum": 16, "maximum": 65536})),
            ("disk", quantity("Bytes that it may write, such as 20GiB.")),
            ("time", quantity("How long it may run, such as 8h.")),
        ],
    )
}

fn skills() -> Value {
    texts("Skills that come along: folders of skills/ in the configuration directory, or of ~/.claude/skills/.")
}

fn header(title: &str, required: &[&str], properties: &[(&str, Value)]) -> Value {
    let mut schema = table("", required, properties);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = title.into();
    schema
}

/// A table with these keys and no others.
fn table(what: &str, required: &[&str], properties: &[(&str, Value)]) -> Value {
    let keys: Map<String, Value> = properties.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    let mut table = described(what, json!({"type": "object", "properties": keys, "additionalProperties": false}));
    if !required.is_empty() {
        table["required"] = required.into();
    }
    table
}

fn described(what: &str, mut schema: Value) -> Value {
    if !what.is_empty() {
        schema["description"] = what.into();
    }
    schema
}

fn text(what: &str) -> Value {
    described(what, json!({"type": "string", "minLength": 1}))
}

fn texts(what: &str) -> Value {
    described(what, json!({"type": "array", "items": {"type": "string", "minLength": 1}}))
}

fn truth(what: &str) -> Value {
    described(what, json!({"type": "boolean"}))
}

fn words(what: &str, words: &[&str]) -> Value {
    described(what, json!({"enum": words}))
}

/// Bytes or a time with their unit.
fn quantity(what: &str) -> Value {
    described(what, json!({"type": ["string", "integer"], "pattern": "^[0-9]+(\\.[0-9]+)? ?[A-Za-z]+$"}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Places;
    use crate::manifest::load::load;
    use std::collections::BTreeSet;

    /// What nobody calls a key.
    const NO_KEY: &str = "qqqqqqqq";

    /// Every table of a schema: how it is reached, and its keys.
    fn tables(schema: &Value, way: &mut Vec<Step>, found: &mut Vec<(Vec<Step>, BTreeSet<String>)>) {
        if let Some(properties) = schema["properties"].as_object() {
            found.push((way.clone(), properties.keys().cloned().collect()));
            for (key, value) in properties {
                way.push(Step::Key(key.clone()));
                tables(value, way, found);
                way.pop();
            }
        }
        if schema["items"].is_object() {
            way.push(Step::Item);
            tables(&schema["items"], way, found);
            way.pop();
        }
        for one in schema["anyOf"].as_array().into_iter().flatten() {
            tables(one, way, found);
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Key(String),
        Item,
    }

    /// A header that has an unknown key at the end of the way. A remote needs an upstream for the rest to be read.
    fn header_with_no_key(way: &[Step]) -> Value {
        way.iter().rev().fold(json!({NO_KEY: 1}), |inner, step| match step {
            Step::Key(key) => json!({key: inner}),
            Step::Item => {
                let mut inner = inner;
                inner["upstream"] = "https://git.example.org/a.git".into();
                json!([inner])
            }
        })
    }

    /// The keys that the reader says it knows there.
    fn known(kind: &str, header: &Value) -> BTreeSet<String> {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(name), text).unwrap();
        };
        write("bottles/dev.md", "---\nagent: {image: a}\n---\n".to_owned());
        write("agents/coder.md", "---\nbottle: dev\n---\n".to_owned());
        let file = if kind == "bottle" { "bottles/dev.md" } else { "agents/coder.md" };
        write(file, format!("---\n{header}\n---\n"));
        let places = Places { config: dir.path().to_owned(), repository: None, home: None };
        let errors = load(&places, "coder", Some("dev")).unwrap_err();
        let said = errors.errors.iter().find(|error| error.message.starts_with(&format!("unknown key `{NO_KEY}`")));
        let said = said.unwrap_or_else(|| panic!("{header}: {errors}"));
        let keys = said.hint.as_deref().and_then(|hint| hint.strip_prefix("known here: "));
        keys.unwrap_or_else(|| panic!("{errors}")).split(", ").map(str::to_owned).collect()
    }

    #[test]
    fn the_reader_knows_the_keys_of_every_table_and_no_others() {
        for (kind, schema, least) in [("bottle", bottle(), 10), ("agent", agent(), 1)] {
            let mut found = Vec::new();
            tables(&schema, &mut Vec::new(), &mut found);
            assert!(found.len() >= least, "{kind}: {found:?}");
            for (way, keys) in found {
                assert_eq!(known(kind, &header_with_no_key(&way)), keys, "{kind}: {way:?}");
            }
        }
    }

    #[test]
    fn what_is_published_is_what_is_made() {
        let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
        for (name, schema) in [("bottle", bottle()), ("agent", agent())] {
            let published = std::fs::read_to_string(docs.join(format!("{name}.json"))).unwrap_or_default();
            let hint = format!("cargo run -p launcher -- schema {name} > docs/schema/{name}.json");
            assert_eq!(published, format!("{schema:#}\n"), "renew it: {hint}");
        }
    }
}
