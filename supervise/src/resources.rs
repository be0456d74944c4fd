//! The resources: how the bottle is, as JSON.

use crate::desk::Desk;
use rmcp::model::Resource;
use serde_json::{Value, json};

/// Name, title, and what an agent reads about it; the address is `bottle://` and the name.
const ALL: [(&str, &str, &str); 6] = [
    ("allowlist", "Open hosts", "Hosts that you reach through the proxy; of these, `passthrough` are not inspected."),
    ("routes", "Routes of cred-proxy", "APIs at http://cred-proxy:9099<path>, and what may pass on each."),
    ("git", "Git remotes", "Remotes behind git-gate, and the refs that may be pushed to them."),
    (
        "dockerfile",
        "The Dockerfile",
        "What your container was built from, null where it was an image; a Dockerfile that you ask for begins with `FROM` and what \
         stands as `from`.",
    ),
    (
        "denials",
        "What was refused",
        "Refused of late, newest first: by whom, why, how often, and the tool that asks for it.",
    ),
    ("proposals", "Your proposals", "All that was asked for in this bottle, and where it is."),
];

const SCHEME: &str = "bottle://";

/// All resources.
pub fn all() -> Vec<Resource> {
    let resource = |(name, title, description): (&str, &str, &str)| {
        Resource::new(format!("{SCHEME}{name}"), name)
            .with_title(title)
            .with_description(description)
            .with_mime_type("application/json")
    };
    ALL.map(resource).into()
}

/// What is at an address now; `None` where there is nothing.
pub fn read(uri: &str, desk: &Desk) -> Option<Value> {
    let current = desk.current();
    Some(match uri.strip_prefix(SCHEME)? {
        "allowlist" => json!({ "allowlist": current.allowlist, "passthrough": current.passthrough }),
        "routes" => json!({ "routes": current.routes }),
        "git" => json!({ "remotes": current.remotes }),
        "dockerfile" => json!({ "from": current.from, "dockerfile": current.dockerfile }),
        "denials" => json!({ "denials": current.denials }),
        "proposals" => json!({ "proposals": desk.answers() }),
        _ => return None,
    })
}
