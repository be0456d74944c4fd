//! Hosts and changes, however they are written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use supervise::check::{self, Known};
use supervise::wire::{Change, Route};

fuzz_target!(|input: (&str, &str, &str)| {
    let (a, b, c) = input;
    let known = Known {
        own_names: vec!["agent.bottle.example".into()],
        route_hosts: vec!["api.model.example".into()],
        remote_hosts: vec!["git.forge.example".into()],
        ..Known::default()
    };
    for text in [a, b, c] {
        let Ok(host) = check::host(text) else { continue };
        assert_eq!(check::host(&host), Ok(host.clone()), "it has two spellings");
        let name = host.strip_prefix("*.").unwrap_or(&host);
        assert!(name.contains('.') && name.len() <= 253 && !name.contains('*'), "{host}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b)), "{host}");
        let last = name.rsplit('.').next().expect("a part");
        let is_hex = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
        assert!(!is_hex && !last.bytes().all(|b| b.is_ascii_digit()), "{host} is an address");
    }
    let hosts = Change::Hosts { hosts: vec![a.into(), b.into(), c.into()] };
    if let Ok(checked) = check::change(hosts, &known) {
        let Change::Hosts { hosts } = checked.change() else { panic!("another kind") };
        for host in hosts {
            let opens = |name: &str| host == name || host.strip_prefix('*').is_some_and(|below| name.ends_with(below));
            for door in ["agent.bottle.example", "api.model.example", "git.forge.example"] {
                assert!(!opens(door), "{host} opens {door}");
            }
        }
    }
    let route = Route { path: a.into(), upstream: b.into(), scheme: c.into(), allow: vec![c.into(), a.into()] };
    let changes =
        [Change::Route(route), Change::Finding { fingerprint: a.into() }, Change::Dockerfile { text: a.into() }];
    for change in changes {
        if let Ok(formed) = check::form(change) {
            assert_eq!(check::form(formed.clone()), Ok(formed), "a form is not its own form");
        }
    }
});
