//! An upstream that rejects a credential: the keeper is asked for another, once, and the request goes out once more.

mod world;

use cred_proxy::Secret;
use cred_proxy::config::{Config, Event, unchanged_line};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;
use world::{SECRET, Seen, Sidecar, Upstream, Wire, config, read_message, route, status};

/// Takes one credential and answers 401 to others.
fn only(good: &'static str) -> impl Fn(&Seen, &mut dyn Wire) -> std::io::Result<()> + Send + Sync + 'static {
    move |seen, wire| {
        let is_good = seen.header("authorization") == [format!("Bearer {good}")];
        let line = if is_good { "200 OK" } else { "401 Unauthorized" };
        write!(wire, "HTTP/1.1 {line}\r\nContent-Length: 2\r\n\r\nab")
    }
}

fn refreshable(upstream: &Upstream) -> Config {
    Config { refreshable: ["key".to_owned()].into(), ..config(vec![route(&upstream.url())]) }
}

fn renewed() -> BTreeMap<String, Secret> {
    BTreeMap::from([("key".into(), Secret::new("another-secret".into()))])
}

fn post(sidecar: &Sidecar, body: &str) -> TcpStream {
    let mut stream = sidecar.connect();
    write!(stream, "POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    stream
}

fn rejected() -> Event {
    Event::Rejected { secret: "key".into(), route: "/api/".into() }
}

#[test]
fn a_request_with_an_old_credential_is_sent_once_more_with_the_new_one() {
    let upstream = Upstream::plain(only("another-secret"));
    let mut sidecar = Sidecar::start(&refreshable(&upstream));
    let mut stream = post(&sidecar, "hello");
    assert_eq!(sidecar.event(), rejected());
    assert_eq!(sidecar.configure_with(&refreshable(&upstream), &renewed()), Event::Configured);
    assert_eq!(status(&read_message(&mut stream, true).unwrap()), 200);
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    for (seen, credential) in seen.iter().zip([SECRET, "another-secret"]) {
        assert_eq!(seen.header("authorization"), [format!("Bearer {credential}")]);
        assert_eq!(seen.body, b"hello");
    }
    assert_eq!(sidecar.logged().2, 200);
    // The next one has it from the start.
    assert_eq!(status(&sidecar.get("/api/x")), 200);
    assert_eq!(upstream.seen().len(), 3);
}

#[test]
fn a_new_credential_that_is_rejected_as_well_is_not_tried_again() {
    let upstream = Upstream::plain(only("nothing"));
    let mut sidecar = Sidecar::start(&refreshable(&upstream));
    let mut stream = post(&sidecar, "hello");
    assert_eq!(sidecar.event(), rejected());
    assert_eq!(sidecar.configure_with(&refreshable(&upstream), &renewed()), Event::Configured);
    assert_eq!(status(&read_message(&mut stream, true).unwrap()), 401);
    assert_eq!(upstream.seen().len(), 2);
}

#[test]
fn many_rejections_are_one_question_and_no_other_secret_passes_them_on() {
    let upstream = Upstream::plain(only("nothing"));
    let mut sidecar = Sidecar::start(&refreshable(&upstream));
    let mut streams: Vec<TcpStream> = (0..8).map(|_| post(&sidecar, "hello")).collect();
    assert_eq!(sidecar.event(), rejected());
    while upstream.seen().len() < 8 {
        std::thread::yield_now();
    }
    // Another table with the same secret is no answer.
    assert_eq!(sidecar.configure(&refreshable(&upstream)), Event::Configured);
    sidecar.send(&unchanged_line("key").unwrap());
    for stream in &mut streams {
        assert_eq!(status(&read_message(stream, true).unwrap()), 401);
        assert_eq!(sidecar.logged().2, 401);
    }
    assert_eq!(upstream.seen().len(), 8);
    // Too soon for another question.
    assert_eq!(status(&sidecar.get("/api/x")), 401);
    assert_eq!(sidecar.logged().2, 401);
}

#[test]
fn what_cannot_be_sent_again_is_passed_on_at_once_and_the_question_asked_all_the_same() {
    let upstream = Upstream::plain(only("nothing"));
    let sidecar = Sidecar::start(&refreshable(&upstream));
    let mut stream = post(&sidecar, &"a".repeat(65 << 10));
    assert_eq!(status(&read_message(&mut stream, true).unwrap()), 401);
    assert_eq!(sidecar.event(), rejected());
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn a_credential_that_cannot_be_fetched_anew_is_not_asked_for() {
    let upstream = Upstream::plain(only("nothing"));
    let mut sidecar = Sidecar::start(&config(vec![route(&upstream.url())]));
    let mut stream = post(&sidecar, "hello");
    assert_eq!(status(&read_message(&mut stream, true).unwrap()), 401);
    assert_eq!(sidecar.logged().2, 401);
    // An answer that nobody asked for is none.
    sidecar.send(&unchanged_line("key").unwrap());
    assert_eq!(sidecar.configure(&config(vec![route(&upstream.url())])), Event::Configured);
}

#[test]
fn a_route_that_is_taken_away_meanwhile_is_gone() {
    let upstream = Upstream::plain(only("nothing"));
    let mut sidecar = Sidecar::start(&refreshable(&upstream));
    let mut stream = post(&sidecar, "hello");
    assert_eq!(sidecar.event(), rejected());
    assert_eq!(sidecar.configure(&config(vec![])), Event::Configured);
    assert_eq!(status(&read_message(&mut stream, true).unwrap()), 404);
}
