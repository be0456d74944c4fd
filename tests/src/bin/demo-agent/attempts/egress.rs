//! Ways out through pipelock: only the allowlisted host may be reached, by its own name, with nothing secret.

use crate::attempts::Attempt;
use crate::http::{Answer, Trust, ask, connect, request, through_tunnel};
use crate::judge::{self, Decision};
use crate::known::Known;

/// The attempts of this theme.
pub const ATTEMPTS: &[Attempt] = &[
    Attempt {
        slug: "allowed-host",
        tried: "HTTPS to the allowlisted host through pipelock",
        expected: "works (control)",
        run: allowed_host,
    },
    Attempt {
        slug: "other-host-connect",
        tried: "a tunnel to a host that is not on the allowlist",
        expected: "refused by pipelock",
        run: |known| judge::refused(&tunnel(known, &format!("{}:443", known.attacker))),
    },
    Attempt {
        slug: "other-host-http",
        tried: "plain http to a host that is not on the allowlist",
        expected: "refused by pipelock",
        run: |known| judge::refused(&plain(known, &known.attacker)),
    },
    Attempt {
        slug: "address-literal",
        tried: "the attacker, the host, the neighbour by address",
        expected: "refused by pipelock",
        run: address_literal,
    },
    Attempt {
        slug: "host-header-spoof",
        tried: "another Host header inside the allowed tunnel",
        expected: "refused, the host never sees it",
        run: host_header_spoof,
    },
    Attempt {
        slug: "sni-spoof",
        tried: "another SNI inside the allowed tunnel",
        expected: "the spoofed name never arrives",
        run: sni_spoof,
    },
    Attempt {
        slug: "secret-in-body",
        tried: "a token-shaped secret posted to the allowed host",
        expected: "refused by pipelock",
        run: secret_in_body,
    },
    Attempt {
        slug: "secret-in-header",
        tried: "an access key in a header to the allowed host",
        expected: "refused by pipelock",
        run: secret_in_header,
    },
    Attempt {
        slug: "secret-in-url",
        tried: "a token-shaped secret in a URL of the allowed host",
        expected: "refused by pipelock",
        run: secret_in_url,
    },
];

fn allowed_host(known: &Known) -> Decision {
    let get = request("GET", "/public/hello", &known.allowed, &[], "");
    judge::works(&allowed(known, &get), "api")
}

fn address_literal(known: &Known) -> Decision {
    let mut addresses = vec![known.attacker_ip, known.neighbour_ip, known.metadata_ip];
    addresses.extend(known.host_ips.iter().take(2));
    let literals = addresses.iter().map(ToString::to_string);
    Decision::worst(
        literals
            .flat_map(|literal| {
                let tunnel = judge::refused(&tunnel(known, &format!("{literal}:443")));
                [tunnel, judge::refused(&plain(known, &literal))]
            })
            .collect(),
    )
}

fn host_header_spoof(known: &Known) -> Decision {
    let get = request("GET", "/public/hello", &known.attacker, &[], "");
    judge::refused(&allowed(known, &get))
}

fn sni_spoof(known: &Known) -> Decision {
    let by_name = |host: &str| {
        let get = request("GET", "/public/hello", host, &[], "");
        through_tunnel(known, &known.allowed_tls(), &known.attacker, Trust::Anybody, &get)
    };
    Decision::worst(vec![
        judge::refused(&by_name(&known.attacker)),
        judge::spoofed_sni(&by_name(&known.allowed), &known.attacker),
    ])
}

fn secret_in_body(known: &Known) -> Decision {
    let kind = [("Content-Type", "application/json")];
    let body = format!("{{\"notes\":\"deploy with {}\"}}", token());
    judge::refused(&allowed(known, &request("POST", "/public/notes", &known.allowed, &kind, &body)))
}

fn secret_in_header(known: &Known) -> Decision {
    let value = format!("Bearer {}", token());
    let get = request("GET", "/public/hello", &known.allowed, &[("Authorization", &value)], "");
    judge::refused(&allowed(known, &get))
}

fn secret_in_url(known: &Known) -> Decision {
    let get = request("GET", &format!("/public/{}", token()), &known.allowed, &[], "");
    judge::refused(&allowed(known, &get))
}

fn allowed(known: &Known, request: &str) -> Answer {
    through_tunnel(known, &known.allowed_tls(), &known.allowed, Trust::Bottle, request)
}

fn tunnel(known: &Known, target: &str) -> Answer {
    connect(&known.proxy, target).map(|(reply, _)| reply)
}

fn plain(known: &Known, host: &str) -> Answer {
    ask(&known.proxy, &request("GET", &format!("http://{host}/"), host, &[], ""))
}

/// Of the shape that scanners know, put together here so that this file is not one of their findings. It opens nothing.
fn token() -> String {
    ["gh", "p_", "A1b2C3d4E5f6G7h8I9", "j0K1l2M3n4O5p6Q7r8"].concat()
}
