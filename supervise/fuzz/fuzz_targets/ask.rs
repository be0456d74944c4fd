//! Whatever an agent sends as JSON, and whatever comes on the control channel.
#![no_main]

use libfuzzer_sys::fuzz_target;
use supervise::check;
use supervise::config::{Command, Event};
use supervise::tools::Call;

const TOOLS: [&str; 6] =
    ["pipelock-block", "cred-proxy-block", "git-gate-block", "capability-block", "check-proposal", "approve"];

fuzz_target!(|bytes: &[u8]| {
    // Read or refused; neither panics.
    drop(serde_json::from_slice::<Command>(bytes));
    drop(serde_json::from_slice::<Event>(bytes));
    let Ok(serde_json::Value::Object(arguments)) = serde_json::from_slice(bytes) else { return };
    for tool in TOOLS {
        let Ok(Call::Ask { change, justification }) = Call::read(tool, Some(arguments.clone())) else { continue };
        let Ok(change) = check::form(change) else { continue };
        assert_eq!(check::form(change.clone()), Ok(change.clone()), "a form is not its own form");
        let line = serde_json::to_string(&Event::Ask { call: 1, change, justification }).expect("it can be written");
        assert!(!line.contains(['\n', '\r']), "an agent's words begin a line");
    }
});
