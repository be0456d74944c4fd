//! What containers say for themselves, by role: just enough of the wire of `bottle-init`, cred-proxy and git-gate for a keeper to
//! be started, told things and stopped.

/// What a container says when it starts.
pub(super) fn at_start(role: &str) -> &'static str {
    match role {
        "agent" | "build" => "bottle-init: ready\n",
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
        "agent" => frames(unread, &mut false, &mut None),
        role if crate::control::is_pipelock(role) => frames(unread, spoken, policy),
        _ => String::new(),
    }
}

fn whole_lines(unread: &mut Vec<u8>) -> Vec<String> {
    let end = unread.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let whole: Vec<u8> = unread.drain(..end).collect();
    String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect()
}

/// A pipelock reads its policy when it is run or run again, and says which one and how strict it is; while it runs it
/// takes another one, unless that is marked as one that it refuses.
fn frames(unread: &mut Vec<u8>, runs: &mut bool, policy: &mut Option<Vec<u8>>) -> String {
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
                said.push_str(&format!("bottle-init: wrote {path}\n"));
                if path.ends_with(".yaml") {
                    let new = unread[end + 1..end + 1 + bytes].to_vec();
                    match *runs {
                        true if String::from_utf8_lossy(&new).contains(REFUSED) => said.push_str(NOT_TAKEN),
                        true => {
                            said.push_str(&reloaded(&new));
                            *policy = Some(new);
                        }
                        false => *policy = Some(new),
                    }
                }
            }
            (Some("restart"), ..) if policy.as_deref().is_some_and(|policy| lists(policy, NEVER_BACK)) => *runs = false,
            (Some("run" | "restart"), ..) => {
                *runs = true;
                said.push_str(&policy.as_deref().map(started).unwrap_or_default());
                said.push_str("bottle-init: ready\n");
            }
            (Some("probe"), Some(target), ..) => {
                let host = target.split(':').next().unwrap_or_default();
                let answer = match policy.as_deref().is_some_and(|policy| lets_through(policy, host)) {
                    true => "200 ".to_owned(),
                    false => format!("403 CONNECT blocked: domain not in allowlist: {host}"),
                };
                said.push_str(&format!("bottle-init: probed {target} {answer}\n"));
            }
            _ => {}
        }
        unread.drain(..end + 1 + bytes);
    }
    said
}

/// A host that a pipelock here does not take into its policy, one that it takes and keeps closed all the same, and one with
/// which it does not come back when it is started again.
const REFUSED: &str = "refused-by-pipelock.example";
const NEVER_BACK: &str = "never-back.example";
const KEPT_CLOSED: &str = "kept-closed.example";

/// What it says then.
const NOT_TAKEN: &str =
    "{\"event\":\"error\",\"method\":\"CONFIG_RELOAD\",\"error\":\"rejected: security downgrade from strict mode\"}\n";

fn reloaded(policy: &[u8]) -> String {
    let hash = super::digest(policy).trim_start_matches("sha256:").to_owned();
    format!("{{\"event\":\"config_reload\",\"status\":\"success\",\"config_hash\":\"{hash}\"}}\n")
}

fn lets_through(policy: &[u8], host: &str) -> bool {
    host != KEPT_CLOSED && lists(policy, host)
}

/// Is a host on the list of a policy?
fn lists(policy: &[u8], host: &str) -> bool {
    let text = String::from_utf8_lossy(policy).into_owned();
    let list = text.lines().skip_while(|line| *line != "api_allowlist:").skip(1);
    let mut list =
        list.map_while(|line| line.trim_start().strip_prefix("- ")).map(|entry| entry.trim_matches(['"', '\'']));
    list.any(|entry| match entry.strip_prefix("*.") {
        Some(below) => host == below || host.ends_with(&format!(".{below}")),
        None => host == entry,
    })
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
