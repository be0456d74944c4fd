//! supervise: what may never be is refused before a person sees it, and a yes opens what was asked for and nothing beside it.
//! Tried where the bottle has a person who answers.

use crate::attempts::Attempt;
use crate::http::{Answer, ask, connect, request};
use crate::judge::{self, Decision};
use crate::known::{Known, Place};

/// The attempts of this theme.
pub const ATTEMPTS: &[Attempt] = &[
    Attempt {
        slug: "ask-metadata",
        tried: "ask the operator for a cloud's metadata service",
        expected: "refused before a person sees it",
        run: metadata,
    },
    Attempt {
        slug: "ask-host",
        tried: "ask the operator for a host, and wait",
        expected: "closed before, open after their yes",
        run: host,
    },
    Attempt {
        slug: "ask-neighbour",
        tried: "the host beside the one that was approved",
        expected: "refused by pipelock",
        run: |known| known.asks.as_ref().map_or_else(nobody, |(_, beside)| judge::refused(&tunnel(known, beside))),
    },
];

fn nobody() -> Decision {
    Decision::broken("there is nobody to ask")
}

fn tunnel(known: &Known, host: &str) -> Answer {
    connect(&known.proxy, &format!("{host}:443")).map(|(reply, _)| reply)
}

/// Asks for a host, and gives the whole answer.
fn asked(host: &str) -> Result<String, Decision> {
    let place = Place { host: "supervise".to_owned(), port: 9100 };
    let body = serde_json::json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "pipelock-block", "arguments": { "hosts": [host], "justification": "the demo needs it" } },
    });
    let headers = [
        ("Content-Type", "application/json"),
        ("Accept", "application/json, text/event-stream"),
        ("MCP-Protocol-Version", "2025-06-18"),
    ];
    let answer = ask(&place, &request("POST", "/mcp", "supervise:9100", &headers, &body.to_string()));
    answer.map(|reply| reply.text()).map_err(|failure| judge::refused(&Err(failure))).and_then(|text| {
        let is_answer = text.contains("\"result\"") || text.contains("\"error\"");
        if is_answer { Ok(text) } else { Err(Decision::broken(format!("no answer: {text}"))) }
    })
}

fn metadata(known: &Known) -> Decision {
    match asked(&known.metadata_ip.to_string()) {
        Ok(text) if text.contains("\"isError\":true") && !text.contains("\"status\":\"pending\"") => {
            Decision::held("refused by supervise, and nobody was asked")
        }
        Ok(text) => Decision::broken(text),
        Err(decision) => Decision::broken(decision.happened),
    }
}

fn host(known: &Known) -> Decision {
    let Some((host, _)) = &known.asks else { return nobody() };
    let before = judge::refused(&tunnel(known, host));
    if !before.held {
        return before;
    }
    match asked(host) {
        Ok(text) if text.contains("\"status\":\"approved\"") => match tunnel(known, host) {
            Ok(reply) if reply.status == 200 => Decision::held("closed, asked for, approved, open"),
            Ok(reply) => Decision::broken(format!("approved, and {} all the same", reply.status)),
            Err(_) => Decision::broken("approved, and not reached all the same"),
        },
        Ok(text) => Decision::broken(text),
        Err(decision) => Decision::broken(decision.happened),
    }
}
