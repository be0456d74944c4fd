//! What containers say for themselves, by role: just enough of the wire of `bottle-init` and cred-proxy for a keeper to
//! be started, told things and stopped.

/// What a container says when it starts.
pub(super) fn at_start(role: &str) -> &'static str {
    match role {
        "agent" | "pipelock" | "route-pipelock" => "bottle-init: ready\n",
        _ => "",
    }
}

/// Does it end by itself at once?
pub(super) fn is_one_shot(role: &str) -> bool {
    role == "wall"
}

/// Takes what is whole off the front of the input and gives the answers.
pub(super) fn answers(role: &str, unread: &mut Vec<u8>, spoken: &mut bool) -> String {
    match role {
        "cred-proxy" => whole_lines(unread)
            .iter()
            .map(|_| match std::mem::replace(spoken, true) {
                false => "{\"event\":\"ready\"}\n",
                true => "{\"event\":\"configured\"}\n",
            })
            .collect(),
        "agent" | "pipelock" | "route-pipelock" => frames(unread),
        _ => String::new(),
    }
}

fn whole_lines(unread: &mut Vec<u8>) -> Vec<String> {
    let end = unread.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let whole: Vec<u8> = unread.drain(..end).collect();
    String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect()
}

fn frames(unread: &mut Vec<u8>) -> String {
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
            }
            (Some("restart"), ..) => said.push_str("bottle-init: ready\n"),
            (Some("probe"), Some(target), ..) => said.push_str(&format!("bottle-init: probed {target} 200 \n")),
            _ => {}
        }
        unread.drain(..end + 1 + bytes);
    }
    said
}
