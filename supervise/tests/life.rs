//! The sidecar's life at its keeper's hands.

#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod world;

use serde_json::json;
use std::net::TcpStream;
use supervise::config::{Command, Config, Event};
use supervise::wire::{Current, Status};
use world::http::{result, still_works, tool};
use world::{Sidecar, answer};

fn reason(sidecar: &Sidecar) -> String {
    match sidecar.next() {
        Event::Refused { reason } => reason,
        event => panic!("{event:?} is no refusal"),
    }
}

#[test]
fn it_listens_when_it_is_told_to_and_ends_with_its_input() {
    let mut sidecar = Sidecar::spawn();
    sidecar.say(&Command::Answer { answer: answer("p1", Status::Pending, "") });
    assert_eq!(reason(&sidecar), "there is no configuration yet");
    assert!(TcpStream::connect(sidecar.address).is_err());
    let config = |wait_seconds| Command::Configure {
        config: Config { listen: sidecar.address, wait_seconds },
        current: Box::new(Current::default()),
        answers: Vec::new(),
    };
    let (too_long, good) = (config(3601), config(3600));
    sidecar.say(&too_long);
    assert!(reason(&sidecar).contains("wait_seconds"));
    sidecar.say(&good);
    assert!(matches!(sidecar.next(), Event::Ready));
    still_works(sidecar.address);
    sidecar.say(&good);
    assert_eq!(reason(&sidecar), "it is configured already");
    sidecar.say_raw(b"{\"command\":\"approve\",\"secret\":\"s3cret\"}\n");
    let refused = reason(&sidecar);
    assert!(refused.contains("no command") && !refused.contains("s3cret"), "{refused}");
    still_works(sidecar.address);
    let address = sidecar.address;
    assert_eq!(sidecar.end(), Some(0));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_keeper_that_says_nothing_is_not_waited_for_and_may_say_it_later() {
    let mut sidecar = Sidecar::start(3600);
    let address = sidecar.address;
    let ask = tool("git-gate-block", json!({ "fingerprint": "0123456789ab", "justification": "a test's own key" }));
    let asked = std::thread::spawn(move || result(address, &ask));
    let call = sidecar.ask().call;
    let refused = asked.join().unwrap();
    let words = refused["content"][0]["text"].as_str().unwrap();
    assert!(refused["isError"] == json!(true) && words.contains("has not answered"), "{refused}");
    sidecar.say(&Command::Asked { call, answer: answer("p1", Status::Pending, "wait") });
    sidecar.obeyed();
    let check = tool("check-proposal", json!({ "id": "p1", "wait_seconds": 0 }));
    assert_eq!(result(address, &check)["structuredContent"]["status"], json!("pending"));
}

#[test]
fn without_a_place_to_listen_it_ends() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sidecar = Sidecar::spawn();
    let config = Config { listen: taken.local_addr().unwrap(), wait_seconds: 1 };
    sidecar.say(&Command::Configure { config, current: Box::new(Current::default()), answers: Vec::new() });
    assert!(reason(&sidecar).starts_with("cannot listen on"));
    assert_eq!(sidecar.end(), Some(1));
}
