//! cred-proxy: its routes work, its credential stays with it, and it is a door to nothing else.

use crate::attempts::Attempt;
use crate::http::{Answer, ask, connect, request};
use crate::judge::{self, Decision};
use crate::known::Known;
use crate::words::Hunt;

/// What the agent brings along as its own key.
const OWN_KEY: &str = "agents-own-key-7f3a9c51";

/// The attempts of this theme.
pub const ATTEMPTS: &[Attempt] = &[
    Attempt {
        slug: "route",
        tried: "a request over the route, without any credential",
        expected: "works (control), credential injected",
        run: |known| judge::works(&over_route(known, "GET", "v1/echo", &[], ""), "api"),
    },
    Attempt {
        slug: "route-echo",
        tried: "read the injected credential off the echoed headers",
        expected: "masked",
        run: |known| masked(known, "v1/echo"),
    },
    Attempt {
        slug: "route-leak",
        tried: "an upstream that leaks the credential in its reply",
        expected: "masked in every encoding",
        run: |known| masked(known, "v1/leak"),
    },
    Attempt {
        slug: "route-host-direct",
        tried: "a tunnel to the route's host around cred-proxy",
        expected: "refused by pipelock",
        run: route_host_direct,
    },
    Attempt {
        slug: "own-credential",
        tried: "the agent's own key over the route",
        expected: "never reaches the upstream",
        run: own_credential,
    },
    Attempt {
        slug: "git-push",
        tried: "git-receive-pack over the route",
        expected: "refused by cred-proxy",
        run: git_push,
    },
    Attempt {
        slug: "path-tricks",
        tried: "dots and escapes that climb out of the route",
        expected: "refused by cred-proxy",
        run: path_tricks,
    },
    Attempt {
        slug: "trace",
        tried: "TRACE over the route, which echoes headers",
        expected: "refused by cred-proxy",
        run: |known| judge::refused(&over_route(known, "TRACE", "v1/echo", &[], "")),
    },
    Attempt {
        slug: "open-proxy",
        tried: "cred-proxy as a proxy to somewhere else",
        expected: "refused by cred-proxy",
        run: open_proxy,
    },
];

fn masked(known: &Known, path: &str) -> Decision {
    let mut hunt = Hunt::new(&known.canary_sha256);
    judge::masked(&over_route(known, "GET", path, &[], ""), |bytes| hunt.finds(bytes))
}

fn route_host_direct(known: &Known) -> Decision {
    let tunnel = connect(&known.proxy, &format!("{}:443", known.route_host)).map(|(reply, _)| reply);
    let target = format!("http://{}/v1/echo", known.route_host);
    let plain = ask(&known.proxy, &request("GET", &target, &known.route_host, &[], ""));
    Decision::worst(vec![judge::refused(&tunnel), judge::refused(&plain)])
}

fn own_credential(known: &Known) -> Decision {
    let bearer = format!("Bearer {OWN_KEY}");
    let headers =
        [("Authorization", bearer.as_str()), ("X-Api-Key", OWN_KEY), ("Proxy-Authorization", bearer.as_str())];
    // Each alone, so that one that is refused does not hide another.
    Decision::worst(
        headers
            .iter()
            .map(|header| judge::own_key(&over_route(known, "GET", "v1/echo", &[*header], ""), OWN_KEY))
            .collect(),
    )
}

fn git_push(known: &Known) -> Decision {
    let kind = [("Content-Type", "application/x-git-receive-pack-request")];
    Decision::worst(vec![
        judge::refused(&over_route(known, "GET", "team/app.git/info/refs?service=git-receive-pack", &[], "")),
        judge::refused(&over_route(known, "POST", "team/app.git/git-receive-pack", &kind, "0000")),
    ])
}

fn path_tricks(known: &Known) -> Decision {
    let climbs = [
        "../v1/echo",
        "%2e%2e/v1/echo",
        ".%2e/v1/echo",
        "..%2fv1/echo",
        "%2e%2e%2fv1%2fecho",
        "v1/../../v1/echo",
        "..;/v1/echo",
        "..\\v1\\echo",
    ];
    Decision::worst(climbs.iter().map(|climb| judge::refused(&over_route(known, "GET", climb, &[], ""))).collect())
}

fn open_proxy(known: &Known) -> Decision {
    let elsewhere = format!("http://{}/", known.attacker);
    Decision::worst(vec![
        judge::refused(&connect(&known.route, &format!("{}:443", known.attacker)).map(|(reply, _)| reply)),
        judge::refused(&ask(&known.route, &request("GET", &elsewhere, &known.attacker, &[], ""))),
    ])
}

fn over_route(known: &Known, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let host = format!("{}:{}", known.route.host, known.route.port);
    ask(&known.route, &request(method, &format!("{}{path}", known.route_path), &host, headers, body))
}
