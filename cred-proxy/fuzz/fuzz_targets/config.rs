//! No control line and no table panics, and no reason quotes the secret.
#![no_main]

use cred_proxy::Secret;
use cred_proxy::config::{Command, Config, configure_line};
use cred_proxy::live::Live;
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;

const SECRET: &str = "user:example-password";

/// A part of it that no text of ours has.
const PART: &str = "example-pass";

fuzz_target!(|data: &[u8]| {
    if let Ok(Command::Configure { config, secrets }) = serde_json::from_slice(data) {
        let line = configure_line(&config, &secrets).expect("what was read can be written");
        assert!(serde_json::from_slice::<Command>(&line).is_ok());
    }
    // A table that has the secret's bytes in a name may quote that name.
    if data.windows(PART.len()).any(|window| window == PART.as_bytes()) {
        return;
    }
    let Ok(config) = serde_json::from_slice::<Config>(data) else { return };
    // Every secret that a route names is there, so that more than its absence is tested.
    let names = config.routes.iter().filter_map(|route| route.secret.clone());
    let secrets: BTreeMap<String, Secret> = names.map(|name| (name, Secret::new(SECRET.to_owned()))).collect();
    match Live::new(&config, &secrets) {
        Ok(live) => assert!(!format!("{:?}", live.table).contains(PART)),
        Err(error) => assert!(!bottle_sidecar::chain(&error).contains(PART)),
    }
});
