//! What policies become, byte for byte, and that any policy's file reads back as what was meant.
//!
//! `BOTTLE_BLESS=1` writes the files anew. They are also what the pinned pipelock itself is asked to check.

use pipelock_config::command::Written;
use pipelock_config::policy::{AgentPolicy, Policy, RoutePolicy, Sidecar};
use pipelock_config::schema::{Config, NOBODY, render};
use proptest::prelude::{ProptestConfig, Strategy, any, prop, proptest};
use std::path::Path;

/// Name, and the policy as a person writes it.
const POLICIES: [(&str, &str); 6] = [
    ("agent", "client = 'agent'\nallowlist = ['b.example', '*.a.example', 'B.example']\n"),
    ("agent-closed", "client = 'agent'\n"),
    (
        "agent-full",
        "client = 'agent'\nallowlist = ['registry.example', '*.cdn.example', 'git.corp.example']\n\
         passthrough = ['*.cdn.example', 'registry.example']\nallow_private = ['git.corp.example', '10.9.8.7']\n\
         sidecars = [{ name = 'cred-proxy', address = '172.29.0.4' }, { name = 'supervise', address = '172.29.0.5' }]\n",
    ),
    ("agent-credentials", "client = 'agent'\nallowlist = ['a.example']\nagent_credentials = true\n"),
    (
        "routes",
        "client = 'routes'\nallowlist = ['api.example', 'llm.example']\npassthrough = ['llm.example']\n\
         credential_headers = ['authorization', 'X-Goog-Api-Key']\n",
    ),
    ("routes-closed", "client = 'routes'\n"),
];

#[test]
fn policies_become_these_files() {
    let mut drift = String::new();
    for (name, written) in POLICIES {
        let text = format!("listen = '172.29.0.2:8888'\n{written}");
        let yaml = render(&Written::parse(&text).unwrap().policy().unwrap());
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{name}.yaml"));
        if std::env::var_os("BOTTLE_BLESS").is_some_and(|v| v == "1") {
            std::fs::write(&file, &yaml).unwrap();
        }
        let golden = std::fs::read_to_string(&file).unwrap_or_default();
        if golden != yaml {
            let diff = similar::TextDiff::from_lines(&golden, &yaml);
            drift += &diff.unified_diff().header(&format!("golden/{name}.yaml"), "rendered").to_string();
        }
    }
    assert!(drift.is_empty(), "BOTTLE_BLESS=1 takes this over:\n{drift}");
}

#[test]
fn an_empty_allowlist_lets_nobody_through_and_still_starts() {
    let listen = "10.0.0.2:8888".parse().unwrap();
    let routes = |allowlist| RoutePolicy {
        listen,
        allowlist,
        passthrough: Vec::new(),
        allow_private: Vec::new(),
        credential_headers: Vec::new(),
    };
    let config = |allowlist| Config::of(&Policy::for_routes(routes(allowlist)).unwrap());
    assert_eq!(config(Vec::new()).api_allowlist, [NOBODY]);
    assert!(NOBODY.ends_with(".invalid"));
    assert_eq!(config(vec!["a.example".into()]).api_allowlist, ["a.example"]);
}

#[test]
fn all_headers_are_looked_into_but_those_that_may_carry_a_credential() {
    let listen = "10.0.0.2:8888".parse().unwrap();
    let ignored = |policy: Policy| {
        let section = Config::of(&policy).request_body_scanning;
        assert!(section.scan_headers);
        assert_eq!((section.header_mode.as_str(), section.action.as_str()), ("all", "block"));
        section.ignore_headers
    };
    let agent = |agent_credentials| {
        ignored(
            Policy::for_agent(AgentPolicy {
                listen,
                allowlist: Vec::new(),
                passthrough: Vec::new(),
                allow_private: Vec::new(),
                sidecars: Vec::new(),
                agent_credentials,
            })
            .unwrap(),
        )
    };
    let routes = |headers: &[&str]| {
        ignored(
            Policy::for_routes(RoutePolicy {
                listen,
                allowlist: Vec::new(),
                passthrough: Vec::new(),
                allow_private: Vec::new(),
                credential_headers: headers.iter().map(|h| (*h).to_owned()).collect(),
            })
            .unwrap(),
        )
    };
    let framing = ["Connection", "Content-Length", "Host", "Transfer-Encoding"];
    assert_eq!(agent(false), framing);
    assert_eq!(
        agent(true),
        ["Authorization", "Connection", "Content-Length", "Host", "Transfer-Encoding", "X-Api-Key"]
    );
    assert_eq!(routes(&[]), framing);
    let one = ["Connection", "Content-Length", "Host", "Transfer-Encoding", "X-Goog-Api-Key"];
    assert_eq!(routes(&["x-goog-api-key"]), one);
}

#[test]
fn a_file_that_looks_into_fewer_headers_is_not_taken() {
    let (_, written) = POLICIES[0];
    let text = format!("listen = '172.29.0.2:8888'\n{written}");
    let yaml = render(&Written::parse(&text).unwrap().policy().unwrap());
    assert!(Config::parse(&yaml).is_ok());
    let list = "  ignore_headers:\n  - 'Connection'\n  - 'Content-Length'\n  - 'Host'\n  - 'Transfer-Encoding'\n";
    for (from, to) in [
        ("header_mode: 'all'", "header_mode: 'sensitive'"),
        ("scan_headers: true", "scan_headers: false"),
        (list, "  ignore_headers: []\n"),
        (list, ""),
    ] {
        assert!(yaml.contains(from), "{from}");
        assert!(Config::parse(&yaml.replace(from, to)).is_err(), "{to}");
    }
}

fn host() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec!["null", "true", "no", "on", "y", "yes", "inf", "nan", "off"]);
    proptest::prop_oneof![
        "(\\*\\.)?[a-z]([a-z0-9-]{0,10}[a-z0-9])?(\\.[a-z]([a-z0-9-]{0,10}[a-z0-9])?){1,4}",
        odd.prop_map(str::to_owned),
        any::<std::net::Ipv4Addr>().prop_map(|a| a.to_string()),
        "[0-9][0-9e.]{0,6}\\.[a-z]{2,5}".prop_filter("no empty label", |h| !h.contains("..")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_policys_file_reads_back_as_what_was_meant(
        allowlist in prop::collection::vec(host(), 0..6),
        passthrough in prop::collection::vec(host(), 0..6),
        addresses in prop::collection::btree_set(1u8..=254, 0..4),
        agent_credentials in any::<bool>(),
    ) {
        let sidecars = addresses
            .iter()
            .map(|n| Sidecar { name: format!("sidecar-{n}x"), address: [10, 0, 0, *n].into() })
            .collect();
        let policy = Policy::for_agent(AgentPolicy {
            listen: "10.0.0.2:8888".parse().unwrap(),
            allowlist: allowlist.clone(),
            passthrough,
            allow_private: Vec::new(),
            sidecars,
            agent_credentials,
        })
        .unwrap();
        let yaml = render(&policy);
        assert_eq!(render(&policy), yaml);
        let read = Config::parse(&yaml).unwrap();
        assert_eq!(read, Config::of(&policy));
        for host in &allowlist {
            assert!(read.api_allowlist.contains(host), "{host} in {yaml}");
        }
        let expected: usize = if policy.allowlist().is_empty() { 1 } else { policy.allowlist().len() };
        assert_eq!(read.api_allowlist.len(), expected, "nothing but what the policy names");
        assert_eq!(read.ssrf.ip_allowlist.len(), addresses.len());
        assert!(read.ssrf.ip_allowlist.iter().all(|a| a.ends_with("/32")));
    }
}
