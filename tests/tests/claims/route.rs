//! Routes: the host behind one is reached by the route alone, the credential is brought on the way and taken off the
//! reply, and the agent's own key never rides along.

use super::ground::{ALLOWED, ATTACKER, Lease, ROUTED, answers, tag};
use bottle_tests::world::Evidence;

const ROUTE: &str = "http://cred-proxy:9099/api";

fn authorizations(seen: &[Evidence]) -> Vec<Option<String>> {
    let of = |e: &Evidence| match e {
        Evidence::Request { authorization, .. } => Some(authorization.clone()),
        _ => None,
    };
    seen.iter().filter_map(of).collect()
}

#[test]
fn a_routes_host_is_reached_by_its_route_alone() {
    let Some(ground) = Lease::take() else { return };
    let path = tag("direct");
    for url in [format!("https://{ROUTED}/v1/echo?{path}"), format!("http://{ROUTED}/v1/echo?{path}")] {
        answers(&ground.a, &["-H", "Authorization: Bearer of-the-attacker", &url], "403");
    }
    assert!(ground.seen_with("api", &path).is_empty(), "it was reached around the route");
    answers(&ground.a, &[&format!("{ROUTE}/v1/echo?{path}")], "200");
    let seen = authorizations(&ground.seen_with("api", &path));
    assert_eq!(seen, [Some(format!("Bearer {}", ground.canary()))]);
    // And the credential goes nowhere but there.
    let elsewhere = |e: &Evidence| !matches!(e, Evidence::Request { host, .. } if host == ROUTED);
    let leaked: Vec<_> = ground.seen_with("api", ground.canary()).into_iter().filter(elsewhere).collect();
    assert!(leaked.is_empty(), "{leaked:#?}");
}

#[test]
fn the_agents_own_key_does_not_ride_along() {
    let Some(ground) = Lease::take() else { return };
    let own = tag("own");
    let path = tag("ride");
    for header in ["Authorization: Bearer ", "X-Api-Key: ", "Proxy-Authorization: Basic ", "Cookie: session="] {
        answers(&ground.a, &["-H", &format!("{header}{own}"), &format!("{ROUTE}/v1/echo?{path}")], "200");
    }
    answers(&ground.a, &["-u", &format!("agent:{own}"), &format!("{ROUTE}/v1/echo?{path}")], "200");
    let seen = ground.seen_with("api", &path);
    assert_eq!(seen.len(), 5, "{seen:#?}");
    assert!(seen.iter().all(|e| !e.contains(&own)), "{seen:#?}");
    let credential = Some(format!("Bearer {}", ground.canary()));
    assert!(authorizations(&seen).iter().all(|a| *a == credential), "{seen:#?}");
    answers(&ground.a, &["-H", "X-Harmless: yes", &format!("{ROUTE}/v1/echo?{path}-harmless")], "200");
    assert!(ground.seen_with("api", &format!("{path}-harmless")).iter().any(|e| e.contains("x-harmless")));
}

#[test]
fn a_reply_that_echoes_the_credential_is_masked() {
    let Some(ground) = Lease::take() else { return };
    for path in ["echo", "leak"] {
        let got = answers(&ground.a, &["-i", &format!("{ROUTE}/v1/{path}")], "200");
        for (form, text) in super::credentials::forms(ground.canary()) {
            assert!(!got.stdout.contains(&text), "{path} gives it as {form}: {}", got.stdout);
        }
    }
    // What is no credential comes back as it was sent.
    let harmless = tag("harmless");
    let got = answers(&ground.a, &["-d", &harmless, &format!("{ROUTE}/v1/echo")], "200");
    assert!(got.stdout.contains(&harmless), "{got:#?}");
}

#[test]
fn a_route_is_a_door_to_nothing_else() {
    let Some(ground) = Lease::take() else { return };
    let path = tag("door");
    let as_it_stands = ["--path-as-is"];
    for (args, url) in [
        (&as_it_stands[..], format!("{ROUTE}/../v1/echo?{path}")),
        (&as_it_stands, format!("{ROUTE}/%2e%2e/v1/echo?{path}")),
        (&as_it_stands, format!("{ROUTE}/v1/..%2f..%2fv1%2fecho?{path}")),
        (&["-X", "TRACE"], format!("{ROUTE}/v1/echo?{path}")),
        (&["-X", "DELETE"], format!("{ROUTE}/v1/echo?{path}")),
        (&[], format!("{ROUTE}/public/{path}")),
        (&[], format!("http://cred-proxy:9099/other/v1/echo?{path}")),
        (&[], format!("{ROUTE}/v1/x.git/info/refs?service=git-receive-pack&{path}")),
        (&["--noproxy", "", "-x", "http://cred-proxy:9099"], format!("http://{ATTACKER}/{path}")),
        (&["--noproxy", "", "-x", "http://cred-proxy:9099"], format!("https://{ALLOWED}/public/{path}")),
    ] {
        let mut all = args.to_vec();
        all.push(&url);
        let (code, output) = super::ground::curl(&ground.a, &all);
        assert!(code.starts_with('4') || code.starts_with("50"), "{all:?} gave {code}: {output:#?}");
    }
    assert!(ground.seen_with("api", &path).is_empty(), "{:#?}", ground.seen_with("api", &path));
    answers(&ground.a, &[&format!("{ROUTE}/v1/echo?{path}")], "200");
    assert_eq!(ground.seen_with("api", &path).len(), 1);
    ground.assert_attacker_is_alone();
}
