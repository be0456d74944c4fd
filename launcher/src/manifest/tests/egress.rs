//! The allowlist and the doors beside it.

use super::{World, bottle, refused, warned};
use rcgen::{CertificateParams, KeyPair};

const ROUTE: &str =
    "cred_proxy:\n  routes:\n    - {path: /a/, upstream: \"https://api.example.org\", auth_scheme: none}\n";

fn shown<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn hosts_are_names_or_names_with_a_leading_star() {
    let egress = bottle("egress:\n  allowlist: [Crates.example.org., \"*.githubusercontent.com\", 10.0.0.1]\n").egress;
    assert_eq!(shown(&egress.allowlist), ["crates.example.org", "*.githubusercontent.com", "10.0.0.1"]);
    for (text, part) in [
        ("\"*\"", "leading"),
        ("a.*.org", "leading"),
        ("https://a.org", "without a scheme"),
        ("\"a.org:443\"", "without a port"),
        ("a.org/x", "without a path"),
        ("\"a b\"", "letters"),
        ("127.1", "four decimal"),
        ("cred-proxy", "inside the bottle"),
        ("\"*.pipelock\"", "inside the bottle"),
        ("localhost", "inside the bottle"),
        ("[a.org]", "single value"),
        ("", "has no value"),
    ] {
        refused(&format!("egress:\n  allowlist:\n    - {text}\n"), 5, part);
    }
    refused("egress: {allowlist: a.org}\n", 3, "write [a.org]");
    refused("egress:\n  allowlist:\n    - a.org\n    - A.org\n", 6, "the first is on line 5");
    refused("egress: {alowlist: []}\n", 3, "did you mean `allowlist`?");
    refused("egress: {allow_private: [\"*.corp\"]}\n", 3, "letters");
}

#[test]
fn a_host_of_a_route_is_not_allowed_beside_it() {
    for allowed in ["example.org", "other.example.org", "\"*.other.example.org\"", "xapi.example.org"] {
        bottle(&format!("egress: {{allowlist: [{allowed}]}}\n{ROUTE}"));
    }
    for refused_host in
        ["api.example.org", "API.example.org.", "\"*.example.org\"", "\"*.api.example.org\"", "\"*.org\""]
    {
        let text = format!("egress:\n  allowlist:\n    - ok.example.com\n    - {refused_host}\n{ROUTE}");
        refused(&text, 6, "beside the route `/a/`");
    }
}

#[test]
fn passthrough_allows_nothing_by_itself() {
    let egress = |allow: &str, pass: &str| format!("egress:\n  allowlist: [{allow}]\n  passthrough: [{pass}]\n");
    for (allow, pass) in [("a.org", "a.org"), ("\"*.a.org\"", "a.org, x.a.org, \"*.a.org\", \"*.x.a.org\"")] {
        bottle(&egress(allow, pass));
    }
    for (allow, pass) in [
        ("a.org", "b.org"),
        ("a.org", "x.a.org"),
        ("a.org", "\"*.a.org\""),
        ("", "a.org"),
        ("\"*.x.a.org\"", "\"*.a.org\""),
    ] {
        refused(&egress(allow, pass), 5, "is not on the allowlist");
    }
}

#[test]
fn private_hosts_that_nothing_leads_to_are_said() {
    warned("egress: {allow_private: [git.corp]}\n", "no allowlist entry and no route leads to");
    warned("egress: {also_direct: [git.corp]}\n", "the host of no remote");
    let world = World::with_bottle(&super::header(&format!("egress: {{allow_private: [api.example.org]}}\n{ROUTE}")));
    assert_eq!(world.load().unwrap().warnings, Vec::<String>::new());
}

#[test]
fn the_network_is_one_made_for_it() {
    for good in ["corp", "Corp_1.x-y", "hosts"] {
        assert_eq!(bottle(&format!("egress: {{network: {good}}}\n")).egress.network.as_deref(), Some(good));
    }
    for (bad, part) in [
        ("host", "cannot go out by"),
        ("none", "cannot go out by"),
        ("bridge", "cannot go out by"),
        ("-x", "not a name of a network"),
        ("\"container:abc\"", "not a name of a network"),
        ("a/b", "not a name of a network"),
        ("\"\"", "not a name of a network"),
    ] {
        refused(&format!("egress:\n  network: {bad}\n"), 4, part);
    }
}

#[test]
fn agent_credentials_pass_only_when_said() {
    assert!(!bottle("").egress.agent_credentials);
    assert!(bottle("egress: {agent_credentials: true}\n").egress.agent_credentials);
    refused("egress: {agent_credentials: on}\n", 3, "true or false");
}

#[test]
fn further_roots_are_certificates_and_no_keys() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["corp".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    let world = World::with_bottle(&super::header("egress:\n  upstream_roots: ./corp.pem\n"));
    let problem = |text: &str| {
        world.write("config/bottles/corp.pem", text);
        world.load().map(|loaded| loaded.bottle.egress.upstream_roots).map_err(|errors| errors.to_string())
    };
    let two = format!("# ours\n{certificate}\n{certificate}");
    assert_eq!(problem(&two), Ok(Some(two.clone())));
    for (text, part) in [
        (String::new(), "no PEM certificate"),
        ("no certificate".to_owned(), "no PEM certificate"),
        (format!("{certificate}{}", key.serialize_pem()), "private key"),
        ("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n".to_owned(), "broken"),
        (certificate[..certificate.len() / 2].to_owned(), "broken"),
    ] {
        let error = problem(&text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
    std::fs::remove_file(world.path("config/bottles/corp.pem")).unwrap();
    assert!(world.load().unwrap_err().to_string().contains("there is no such file"));
}
