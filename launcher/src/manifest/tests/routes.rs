//! The routes of cred-proxy.

use super::{World, bottle, header, refused, warned};
use crate::manifest::{Role, Route, TokenRef};
use cred_proxy::config::{Auth, Limits};
use std::path::PathBuf;

/// Routes, each a line: the first is on line 5.
fn routes(lines: &[&str]) -> String {
    format!("cred_proxy:\n  routes:\n{}", lines.iter().map(|line| format!("    - {{{line}}}\n")).collect::<String>())
}

/// A route that is right, and then some.
fn route(more: &str) -> String {
    format!("path: /a/, upstream: \"https://a.example.org\", {more}")
}

fn read(line: &str) -> Route {
    bottle(&routes(&[line])).routes.remove(0)
}

#[test]
fn a_route_is_a_path_an_upstream_and_a_credential() {
    let route = read(&route("auth_scheme: Bearer, token_ref: TOKEN"));
    assert_eq!((route.path.as_str(), route.line, route.inspect), ("/a/", 5, true));
    assert_eq!((route.upstream.host.as_str(), route.upstream.port, route.upstream.https), ("a.example.org", 443, true));
    assert_eq!(route.token_ref, Some(TokenRef::Env("TOKEN".to_owned())));
    assert_eq!(route.allow, ["GET /**", "HEAD /**"]);
    assert_eq!(route.credential().as_deref(), Some("variable TOKEN"));

    assert_eq!(refused(&routes(&["role: tea-login"]), 5, "`path` is missing"), 3);
    refused(&routes(&[&self::route("auth_scheme: none, tokn_ref: X")]), 5, "did you mean `token_ref`?");
    refused("cred_proxy:\n  routes:\n    /a/: x\n", 5, "must be a list");
    refused("cred_proxy: {route: []}\n", 3, "did you mean `routes`?");
}

#[test]
fn older_spellings_are_taken_alone() {
    let route = read("Path: /a/, Upstream: \"https://a.example.org\", auth_scheme: none, role: tea-login");
    assert_eq!((route.path.as_str(), route.roles.as_slice()), ("/a/", &[Role::TeaLogin][..]));
    refused(&routes(&[&format!("{}, Path: /b/", self::route("auth_scheme: none"))]), 5, "another spelling of `path`");
}

#[test]
fn schemes_and_credentials_go_together() {
    for (text, auth) in [
        ("Bearer", Auth::Bearer),
        ("token", Auth::Token),
        ("Basic", Auth::Basic),
        ("\"header:X-Api-Key\"", Auth::Header("X-Api-Key".to_owned())),
        ("\"header:Authorization\"", Auth::Header("Authorization".to_owned())),
    ] {
        assert_eq!(read(&route(&format!("auth_scheme: {text}, token_ref: T"))).auth, auth);
        refused(&routes(&[&route(&format!("auth_scheme: {text}"))]), 5, "`token_ref` is missing");
    }
    assert_eq!(read(&route("auth_scheme: none")).auth, Auth::None);
    refused(&routes(&[&route("auth_scheme: none, token_ref: T")]), 5, "takes no credential");
    for (text, part) in [
        ("bearer", "did you mean `Bearer`?"),
        ("digest", "write one of"),
        ("\"header:\"", "not a header's name"),
        ("\"header:X Y\"", "not a header's name"),
        ("\"header:X\\nY\"", "not a header's name"),
        ("\"header:Host\"", "frames the request"),
        ("\"header:content-length\"", "frames the request"),
        ("\"header:Transfer-Encoding\"", "frames the request"),
        ("\"header:Connection\"", "frames the request"),
        ("\"header:Proxy-Authorization\"", "frames the request"),
    ] {
        refused(&routes(&[&route(&format!("auth_scheme: {text}, token_ref: T"))]), 5, part);
    }
}

#[test]
fn credentials_are_named_and_never_written() {
    let token = |text: &str| route(&format!("auth_scheme: Bearer, token_ref: {text}"));
    let world = World::with_bottle(&header(&routes(&[
        &token("{file: ./token}"),
        &token("{file: ~/token}").replace("/a/", "/b/"),
    ])));
    let read_routes = world.load().unwrap().bottle.routes;
    assert_eq!(read_routes[0].token_ref, Some(TokenRef::File(world.path("config/bottles/token"))));
    assert_eq!(read_routes[1].token_ref, Some(TokenRef::File(world.path("home/token"))));
    assert_eq!(read(&token("{env: T}")).token_ref, Some(TokenRef::Env("T".to_owned())));
    assert_eq!(read(&token("{file: /run/t}")).token_ref, Some(TokenRef::File(PathBuf::from("/run/t"))));
    for (text, ttl_s) in [("{command: [pass, show, x], ttl: 30m}", Some(1800)), ("{command: [pass, show, x]}", None)] {
        let argv = ["pass", "show", "x"].map(str::to_owned).to_vec();
        assert_eq!(read(&token(text)).token_ref, Some(TokenRef::Command { argv, ttl_s }));
    }
    for (text, part) in [
        ("{}", "names no source"),
        ("", "names no source"),
        ("[T]", "must be a table"),
        ("{env: T, file: /t}", "more than one source"),
        ("{env: T, ttl: 30m}", "there is no `command`"),
        ("{command: []}", "needs a program"),
        ("{command: pass}", "must be a list"),
        ("{command: [./pass]}", "relative path"),
        ("{command: [pass], ttl: 1s}", "from 10s to 30d"),
        ("{variable: T}", "names no source"),
        ("{env: \"T-X\"}", "does not name a variable"),
        ("{file: ~eve/t}", "another user's home"),
    ] {
        refused(&routes(&[&token(text)]), 5, part);
    }
    let world = World::with_bottle(&header(&routes(&[&token("sk-ant-CANARY")])));
    let errors = world.load().unwrap_err();
    assert!(!errors.to_string().contains("CANARY") && !format!("{errors:?}").contains("CANARY"), "{errors}");
    let world =
        World::with_bottle(&header(&routes(&["path: /a/, upstream: \"https://u:CANARY@h\", auth_scheme: none"])));
    let errors = world.load().unwrap_err();
    assert!(!errors.to_string().contains("CANARY") && !format!("{errors:?}").contains("CANARY"), "{errors}");
}

#[test]
fn upstreams_and_paths_are_strict() {
    for (line, part) in [
        ("path: a, upstream: \"https://h.org\", auth_scheme: none", "write `/a/`"),
        ("path: /a/../b/, upstream: \"https://h.org\", auth_scheme: none", "dot segment"),
        ("path: //, upstream: \"https://h.org\", auth_scheme: none", "empty segment"),
        ("path: /a/, upstream: h.org, auth_scheme: none", "begin with https://"),
        ("path: /a/, upstream: \"https://h.org/?q\", auth_scheme: none", "query"),
        ("path: /a/, upstream: \"http://git-gate/\", auth_scheme: none", "inside the bottle"),
    ] {
        refused(&routes(&[line]), 5, part);
    }
    warned(
        &routes(&["path: /a/, upstream: \"http://h.org\", auth_scheme: Bearer, token_ref: T"]),
        "in the clear, over http",
    );
}

#[test]
fn a_path_leads_to_one_upstream() {
    let two = |a: &str, b: &str| {
        routes(&[
            &format!("path: {a}, upstream: \"https://a.org\", auth_scheme: none"),
            &format!("path: {b}, upstream: \"https://b.org\", auth_scheme: none"),
        ])
    };
    for (a, b) in [("/a/", "/b/"), ("/a/", "/a/b/"), ("/", "/a/"), ("/a/", "/A/")] {
        assert_eq!(bottle(&two(a, b)).routes.len(), 2);
    }
    refused(&two("/a/", "/a/"), 6, "the first is in line 5 of dev.md");
}

#[test]
fn roles_give_what_passes_and_what_is_inspected() {
    let role = |text: &str| read(&route(&format!("auth_scheme: none, role: {text}")));
    let anthropic = role("anthropic-base-url");
    assert_eq!(
        anthropic.allow,
        ["POST /v1/messages", "POST /v1/messages/count_tokens", "GET /v1/models", "GET /v1/models/*"]
    );
    assert!(!anthropic.inspect);
    assert!(role("tea-login").inspect && !role("[git-insteadof, tea-login]").inspect);
    assert!(read(&route("auth_scheme: none")).inspect);
    assert!(read(&route("auth_scheme: none, role: npm-registry, inspect: true")).inspect);
    assert_eq!(role("[npm-registry]").allow, ["GET /**", "HEAD /**"]);
    let written = read(&route("auth_scheme: none, role: npm-registry, allow: [\"PUT /x\"]"));
    assert_eq!(written.allow, ["PUT /x"]);
    for (text, part) in [
        ("role: anthropic_base_url", "did you mean `anthropic-base-url`?"),
        ("role: admin", "write one of"),
        ("role: [tea-login, tea-login]", "stands twice"),
        ("role: {a: b}", "must be a list"),
        ("allow: []", "lets nothing pass"),
        ("allow: [\"get /x\"]", "not a method"),
        ("allow: [\"GET x\"]", "begins with neither"),
        ("allow: [\"GET /x\", \"GET /x\"]", "stands twice"),
        ("allow: \"GET /x\"", "write [GET /x]"),
        ("inspect: maybe", "true or false"),
    ] {
        refused(&routes(&[&route(&format!("auth_scheme: none, {text}"))]), 5, part);
    }
}

#[test]
fn a_role_with_one_place_belongs_to_one_route() {
    let two = |role: &str| {
        routes(&[
            &format!("path: /a/, upstream: \"https://a.org\", auth_scheme: none, role: {role}"),
            &format!("path: /b/, upstream: \"https://b.org\", auth_scheme: none, role: {role}"),
        ])
    };
    for role in ["git-insteadof", "tea-login"] {
        assert_eq!(bottle(&two(role)).routes.len(), 2);
    }
    for role in ["anthropic-base-url", "openai-base-url", "npm-registry"] {
        refused(&two(role), 6, "belongs to the route `/a/` already");
    }
}

#[test]
fn a_variable_is_set_once() {
    let both = |role: &str, name: &str| {
        let route = format!("path: /a/, upstream: \"https://a.org\", auth_scheme: none, role: {role}");
        format!("env: {{{name}: x}}\n{}", routes(&[&route]))
    };
    bottle(&both("tea-login", "ANTHROPIC_BASE_URL"));
    bottle(&both("anthropic-base-url", "OPENAI_BASE_URL"));
    refused(&both("anthropic-base-url", "ANTHROPIC_BASE_URL"), 3, "set by the role of a route");
    refused(&both("anthropic-base-url", "ANTHROPIC_API_KEY"), 3, "set by the role of a route");
    refused(&both("openai-base-url", "OPENAI_BASE_URL"), 3, "set by the role of a route");
    refused(&both("npm-registry", "NPM_CONFIG_REGISTRY"), 3, "set by the role of a route");
    refused(&both("npm-registry", "npm_config_replace_registry_host"), 3, "set by the role of a route");
}

#[test]
fn the_version_stands_once() {
    let route = |role: &str, base: &str| {
        routes(&[&format!("path: /a/, upstream: \"https://a.org{base}\", auth_scheme: none, role: {role}")])
    };
    bottle(&route("openai-base-url", "/api"));
    bottle(&route("tea-login", "/api/v1"));
    refused(&route("openai-base-url", "/api/v1/"), 5, "leave `/v1` out");
    refused(&route("anthropic-base-url", "/v1"), 5, "leave `/v1` out");
}

#[test]
fn inspection_holds_for_a_host() {
    let two = |a: &str, b: &str| {
        routes(&[
            &format!("path: /a/, upstream: \"https://h.org\", auth_scheme: none, {a}"),
            &format!("path: /b/, upstream: \"https://h.org:8443/x\", auth_scheme: none, {b}"),
        ])
    };
    for (a, b, expected) in [
        ("inspect: true", "inspect: true", true),
        ("inspect: false", "inspect: false", false),
        ("role: tea-login", "role: tea-login", true),
        ("role: tea-login", "role: git-insteadof", false),
        ("role: git-insteadof", "role: tea-login", false),
        ("role: git-insteadof", "inspect: true", true),
        ("inspect: false", "role: tea-login", false),
    ] {
        let routes = bottle(&two(a, b)).routes;
        assert_eq!(routes.iter().map(|r| r.inspect).collect::<Vec<_>>(), [expected; 2], "{a} / {b}");
    }
    refused(&two("inspect: true", "inspect: false"), 6, "differs from that of `/a/`");
    warned(&two("role: tea-login", "role: git-insteadof"), "`/a/` is not inspected, as another route to h.org");
    let apart = routes(&[
        "path: /a/, upstream: \"https://a.org\", auth_scheme: none, inspect: true",
        "path: /b/, upstream: \"https://b.org\", auth_scheme: none, inspect: false",
    ]);
    assert_eq!(bottle(&apart).routes.iter().map(|r| r.inspect).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn a_place_of_tarballs_that_is_taken_is_told() {
    let npm = "path: /npm/, upstream: \"https://registry.example.org\", auth_scheme: none, role: npm-registry";
    let top = "path: /, upstream: \"https://b.org\", auth_scheme: none";
    warned(&routes(&[npm, top]), "asks for the tarballs of `/npm/` at `/`, which is another route");
    let world = World::with_bottle(&header(&routes(&[npm])));
    assert_eq!(world.load().unwrap().warnings, Vec::<String>::new());
}

#[test]
fn limits_of_cred_proxy_have_units_and_the_ranges_that_it_takes() {
    let none = "cred_proxy: {routes: []}\n";
    assert_eq!(bottle(none).proxy_limits, Limits::default());
    let all = "cred_proxy:\n  limits: {head: 32KiB, connections: 100, requests: 200, body: 1GiB, head_time: 10s,\n    \
               idle_time: 10m, connect_time: 5s, reply_time: 20m}\n";
    let expected = Limits {
        head_bytes: 32 << 10,
        connections: 100,
        requests: 200,
        body_bytes: Some(1 << 30),
        head_seconds: 10,
        idle_seconds: 600,
        connect_seconds: 5,
        reply_seconds: 1200,
    };
    assert_eq!(bottle(all).proxy_limits, expected);
    for (text, part) in [
        ("head: 1B", "from 1KiB to 1MiB"),
        ("head: 64KB", "did you mean `64KiB`?"),
        ("head: 2MiB", "from 1KiB to 1MiB"),
        ("connections: 0", "from 1 to 65536"),
        ("requests: 65537", "from 1 to 65536"),
        ("body: 0B", "from 1B to 64TiB"),
        ("head_time: 10", "write a whole number and a unit"),
        ("idle_time: 2d", "from 1s to 1d"),
        ("connect_time: 11m", "from 1s to 10m"),
        ("reply_time: 0s", "from 1s to 1d"),
        ("heads: 1KiB", "did you mean `head`?"),
        ("requests: [1]", "single value"),
    ] {
        refused(&format!("cred_proxy:\n  limits:\n    {text}\n"), 5, part);
    }
    refused("cred_proxy: {limits: 5}\n", 3, "must be a table");
    refused("cred_proxy: {limit: {}}\n", 3, "did you mean `limits`?");
}
