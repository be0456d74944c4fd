//! A model that does what its prompt says: each line `CALL <tool> <JSON>` is one call of a tool, in order; when all have
//! been made it says what the last one gave. It speaks Anthropic's Messages API and OpenAI's Responses API, as one reply
//! or as server-sent events, as far as coding agents need them. It remembers nothing: the conversation has it all.

use crate::reply::{self, Reply, ReplyBody};
use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// What the model does next.
enum Turn {
    Call { tool: String, input: Value },
    Say(String),
}

/// Answers `POST /v1/messages`. `None`: no conversation is in it.
pub fn messages(body: &[u8]) -> Option<Reply> {
    let request: Value = serde_json::from_slice(body).ok()?;
    let messages = request["messages"].as_array()?;
    let blocks = || messages.iter().flat_map(|message| parts(&message["content"]));
    let results: Vec<String> = blocks().filter(|b| b["type"] == "tool_result").map(|b| text(&b["content"])).collect();
    let asked: String = blocks().filter(|b| b["type"] == "text").map(|b| text(&b)).collect::<Vec<_>>().join("\n");
    let tools = names(&request["tools"]);
    let turn = next(&asked, &results, &tools);
    let number = results.len();
    let (block, reason) = match &turn {
        Turn::Call { tool, input } => {
            (json!({"type": "tool_use", "id": format!("toolu_{number}"), "name": tool, "input": input}), "tool_use")
        }
        Turn::Say(text) => (json!({"type": "text", "text": text}), "end_turn"),
    };
    let usage = json!({"input_tokens": 1, "output_tokens": 1});
    let message = |content: Value, reason: Value| {
        json!({"id": format!("msg_{number}"), "type": "message", "role": "assistant", "model": request["model"],
               "content": content, "stop_reason": reason, "stop_sequence": null, "usage": usage})
    };
    if request["stream"] != json!(true) {
        return Some(reply::json(StatusCode::OK, &message(json!([block]), reason.into())));
    }
    let (start, delta) = match &turn {
        Turn::Call { tool, input } => (
            json!({"type": "tool_use", "id": block["id"], "name": tool, "input": {}}),
            json!({"type": "input_json_delta", "partial_json": input.to_string()}),
        ),
        Turn::Say(text) => (json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": text})),
    };
    Some(events(&[
        ("message_start", json!({"message": message(json!([]), Value::Null)})),
        ("content_block_start", json!({"index": 0, "content_block": start})),
        ("content_block_delta", json!({"index": 0, "delta": delta})),
        ("content_block_stop", json!({"index": 0})),
        ("message_delta", json!({"delta": {"stop_reason": reason, "stop_sequence": null}, "usage": usage})),
        ("message_stop", json!({})),
    ]))
}

/// Answers `POST /v1/responses`. `None`: no conversation is in it.
pub fn responses(body: &[u8]) -> Option<Reply> {
    let request: Value = serde_json::from_slice(body).ok()?;
    let input = request["input"].as_array()?;
    let results: Vec<String> =
        input.iter().filter(|i| i["type"] == "function_call_output").map(|i| text(&i["output"])).collect();
    let said = input.iter().filter(|item| item["role"] == "user").flat_map(|item| parts(&item["content"]));
    let asked: String = said.map(|part| text(&part)).collect::<Vec<_>>().join("\n");
    let turn = next(&asked, &results, &names(&request["tools"]));
    let number = results.len();
    let item = match &turn {
        Turn::Call { tool, input } => {
            json!({"type": "function_call", "id": format!("fc_{number}"), "status": "completed",
            "call_id": format!("call_{number}"), "name": tool, "arguments": input.to_string()})
        }
        Turn::Say(text) => json!({"type": "message", "id": format!("msg_{number}"), "role": "assistant",
            "status": "completed", "content": [{"type": "output_text", "text": text, "annotations": []}]}),
    };
    let usage = json!({"input_tokens": 1, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 1,
                       "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 2});
    let response = |status: &str, output: Value| {
        json!({"id": format!("resp_{number}"), "object": "response", "status": status, "model": request["model"],
               "output": output, "usage": usage})
    };
    let whole = response("completed", json!([item]));
    if request["stream"] != json!(true) {
        return Some(reply::json(StatusCode::OK, &whole));
    }
    Some(events(&[
        ("response.created", json!({"response": response("in_progress", json!([]))})),
        ("response.output_item.added", json!({"output_index": 0, "item": item})),
        ("response.output_item.done", json!({"output_index": 0, "item": item})),
        ("response.completed", json!({"response": whole})),
    ]))
}

/// The first call that was not made yet, if it is one of a tool that is there.
fn next(asked: &str, results: &[String], tools: &[String]) -> Turn {
    let calls = asked.lines().filter_map(|line| line.trim().strip_prefix("CALL ")?.split_once(' '));
    let call = calls.into_iter().nth(results.len());
    // Those of MCP servers may be known to the agent and not be listed until they are searched for.
    let known = call.filter(|(tool, _)| tool.starts_with("mcp__") || tools.iter().any(|name| name == tool));
    match known.and_then(|(tool, input)| Some((tool, serde_json::from_str(input).ok()?))) {
        Some((tool, input)) => Turn::Call { tool: tool.to_owned(), input },
        None => Turn::Say(match results.last() {
            Some(last) => format!("DONE: {last}"),
            None => format!("hello; I know {}", tools.join(", ")),
        }),
    }
}

/// A content that is a text, or a list of parts.
fn parts(content: &Value) -> Vec<Value> {
    match content {
        Value::Array(parts) => parts.clone(),
        Value::String(text) => vec![json!({"type": "text", "text": text})],
        _ => Vec::new(),
    }
}

/// All the text in a part, or in a list of them.
fn text(part: &Value) -> String {
    match part {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(text).collect::<Vec<_>>().join("\n"),
        part => part["text"].as_str().unwrap_or_default().to_owned(),
    }
}

fn names(tools: &Value) -> Vec<String> {
    let tools = tools.as_array().into_iter().flatten();
    let name = |tool: &Value| tool["name"].as_str().or_else(|| tool["type"].as_str()).map(str::to_owned);
    tools.filter_map(name).collect()
}

fn events(events: &[(&str, Value)]) -> Reply {
    let mut out = String::new();
    for (number, (name, data)) in events.iter().enumerate() {
        let mut data = data.clone();
        data["type"] = (*name).into();
        data["sequence_number"] = number.into();
        let _ = write!(out, "event: {name}\ndata: {data}\n\n"); // writing to a String cannot fail
    }
    reply::with_type(StatusCode::OK, "text/event-stream", ReplyBody::Whole(Some(Bytes::from(out))))
}
