//! What containers say for themselves, by role: just enough of the wire of `bottle-init`, cred-proxy and git-gate for a keeper to
//! be started, told things and stopped.

/// What a container says when it starts.
pub(super) fn at_start(role: &str) -> &'static str {
    match role {
        "agent" => "bottle-init: ready\n",
        _ => "",
    }
}

/// Does it end by itself at once?
pub(super) fn is_one_shot(role: &str) -> bool {
    role == "wall"
}

/// Takes what is whole off the front of the input and gives the answers.
pub(super) fn answers(role: &str, unread: &mut Vec<u8>, spoken: &mut bool, policy: &mut Option<Vec<u8>>) -> String {
    match role {
        "cred-proxy" | "git-gate" | "supervise" => whole_lines(unread)
            .iter()
            .map(|_| match std::mem::replace(spoken, true) {
                false => "{\"event\":\"ready\"}\n",
                true => "{\"event\":\"configured\"}\n",
            })
            .collect(),
        "agent" => frames(unread, &mut None),
        "pipelock" | "route-pipelock" => frames(unread, policy),
        _ => String::new(),
    }
}

fn whole_lines(unread: &mut Vec<u8>) -> Vec<String> {
    let end = unread.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let whole: Vec<u8> = unread.drain(..end).collect();
    String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect()
}

/// A pipelock reads its policy when it is run or run again, and says which one and how strict it is.
fn frames(unread: &mut Vec<u8>, policy: &mut Option<Vec<u8>>) -> String {
    let mut said = String::new();
    while let Some(end) = unread.iter().position(|b| *b == b'\n') {
        let line = String::from_utf8_lossy(&unread[..end]).into_owned();
        let mut words = line.splitn(4, ' ');
        let mut bytes = 0;
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("file"), Some(_mode), Some(size), Some(path)) => {
                bytes = size.parse().unwrap_or(0);
                if unread.len() < end + 1 + bytes {
                    return said;
                }
                if path.ends_with(".yaml") {
                    *policy = Some(unread[end + 1..end + 1 + bytes].to_vec());
                }
                said.push_str(&format!("bottle-init: wrote {path}\n"));
            }
            (Some("run" | "restart"), ..) => {
                said.push_str(&policy.as_deref().map(started).unwrap_or_default());
                said.push_str("bottle-init: ready\n");
            }
            (Some("probe"), Some(target), ..) => said.push_str(&format!("bottle-init: probed {target} 200 \n")),
            _ => {}
        }
        unread.drain(..end + 1 + bytes);
    }
    said
}

/// As pipelock itself says it; what does not ask for strict mode runs in the other.
fn started(policy: &[u8]) -> String {
    let strict = String::from_utf8_lossy(policy).lines().any(|line| matches!(line, "mode: strict" | "mode: 'strict'"));
    let mode = if strict { "strict" } else { "balanced" };
    let hash = super::digest(policy).trim_start_matches("sha256:").to_owned();
    format!(
        "{{\"event\":\"startup\",\"listen\":\"\",\"mode\":\"{mode}\",\"version\":\"2.3.0\",\"config_hash\":\"{hash}\"}}\n"
    )
}
