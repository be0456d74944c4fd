//! Each refusal stands beside its allowed neighbour.

use super::*;

fn read(text: &str) -> Result<String, HostFault> {
    match host(text) {
        Ok(host) => Ok(host),
        Err(Unfit::Host { fault, .. }) => Err(fault),
        Err(other) => panic!("{text:?}: {other}"),
    }
}

#[test]
fn hosts_have_one_spelling() {
    for (text, wanted) in [
        ("crates.io", "crates.io"),
        ("Crates.IO", "crates.io"),
        ("crates.io.", "crates.io"),
        ("*.Example.ORG.", "*.example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("ＣＲＡＴＥＳ．io", "crates.io"),
        ("crates。io", "crates.io"),
        ("r3---sn-4g5e6nez.googlevideo.com", "r3---sn-4g5e6nez.googlevideo.com"),
        ("1.example.org", "1.example.org"),
        ("0xample.org", "0xample.org"),
        ("mylocalhost.org", "mylocalhost.org"),
        ("internal.example.org", "internal.example.org"),
        ("metadata.example.org", "metadata.example.org"),
        ("s3.amazonaws.com", "s3.amazonaws.com"),
        ("world.example", "world.example"),
        ("git-gate.example.org", "git-gate.example.org"),
        ("nip.io.example.org", "nip.io.example.org"),
    ] {
        assert_eq!(read(text).as_deref(), Ok(wanted), "{text}");
        assert_eq!(read(wanted).as_deref(), Ok(wanted), "{wanted} is not its own spelling");
    }
}

#[test]
fn addresses_are_refused_however_they_are_written() {
    for text in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "10.0.0.7.",
        "169.254.169.254",
        "[::1]",
        "::1",
        "fe80::1",
        "[::ffff:127.0.0.1]:443",
        "1.2.3.4.5",
        "１２７．０．０．１",
        "127。0。0。1",
        "*.0.0.1",
        "0X7F.1",
        "1.2.3.0x",
        "224.0.0.1",
        "100.100.100.200",
    ] {
        assert_eq!(read(text), Err(HostFault::Address), "{text}");
    }
}

#[test]
fn what_leads_nowhere_outside_is_refused() {
    for (text, wanted) in [
        ("localhost", HostFault::Internal("localhost")),
        ("LOCALHOST.", HostFault::Internal("localhost")),
        ("a.localhost", HostFault::Internal("localhost")),
        ("printer.local", HostFault::Internal("local")),
        ("db.corp", HostFault::Internal("corp")),
        ("router.home.arpa", HostFault::Internal("home.arpa")),
        ("1.0.0.127.in-addr.arpa", HostFault::Internal("arpa")),
        ("abc.onion", HostFault::Internal("onion")),
        ("host.docker.internal", HostFault::Internal("internal")),
        ("a.test", HostFault::Internal("test")),
        ("*.internal", HostFault::Internal("internal")),
        ("*.lan", HostFault::Internal("lan")),
        ("metadata", HostFault::Metadata),
        ("metadata.google.internal", HostFault::Metadata),
        ("Metadata.Google.Internal.", HostFault::Metadata),
        ("instance-data", HostFault::Metadata),
        ("metadata.tencentyun.com", HostFault::Metadata),
        ("*.tencentyun.com", HostFault::Metadata),
        ("10.0.0.1.nip.io", HostFault::SpellsAddress("nip.io")),
        ("*.sslip.io", HostFault::SpellsAddress("sslip.io")),
        ("intranet-wiki", HostFault::SingleLabel),
        ("pipelock", HostFault::Own),
        ("supervise.", HostFault::Own),
        ("Git-Gate", HostFault::Own),
        ("*", HostFault::Star),
        ("a.*.org", HostFault::Star),
        ("*a.org", HostFault::Star),
        ("*.*.org", HostFault::Star),
        ("*.", HostFault::NotAName),
        ("*.com", HostFault::PublicSuffix("com".into())),
        ("*.co.uk", HostFault::PublicSuffix("co.uk".into())),
        ("co.uk", HostFault::PublicSuffix("co.uk".into())),
        ("*.github.io", HostFault::PublicSuffix("github.io".into())),
        ("*.s3.amazonaws.com", HostFault::PublicSuffix("s3.amazonaws.com".into())),
        ("https://crates.io", HostFault::Scheme),
        ("crates.io/api", HostFault::Path),
        ("crates.io\\api", HostFault::Path),
        ("a@crates.io", HostFault::User),
        ("crates.io:443", HostFault::Port),
        ("", HostFault::NotAName),
        (".", HostFault::NotAName),
        ("a..org", HostFault::NotAName),
        ("crates.io..", HostFault::NotAName),
        ("-a.org", HostFault::NotAName),
        ("a_b.org", HostFault::NotAName),
        ("a b.org", HostFault::NotAName),
        ("a.org\n", HostFault::NotAName),
        ("a.org\0", HostFault::NotAName),
        ("a\u{202e}.org", HostFault::NotAName),
        ("xn--a.org", HostFault::NotAName),
    ] {
        assert_eq!(read(text), Err(wanted), "{text}");
    }
    assert_eq!(read(&format!("{}.org", "a".repeat(63))).map(|host| host.len()), Ok(67));
    assert_eq!(read(&format!("{}.org", "a".repeat(64))), Err(HostFault::NotAName));
    assert_eq!(read(&"a.".repeat(200)), Err(HostFault::NotAName));
    assert_eq!(read(&"ü".repeat(100_000)), Err(HostFault::NotAName));
    for allowed in
        ["*.bbc.co.uk", "*.octocat.github.io", "octocat.github.io", "tencentyun.com", "*.mirrors.tencentyun.com"]
    {
        assert_eq!(read(allowed).as_deref(), Ok(allowed));
    }
}

fn hosts(names: &[&str]) -> Change {
    Change::Hosts { hosts: names.iter().map(ToString::to_string).collect() }
}

#[test]
fn an_ask_of_hosts_is_sorted_and_says_nothing_twice() {
    assert_eq!(form(hosts(&["b.org", "A.org", "b.org."])), Ok(hosts(&["a.org", "b.org"])));
    assert_eq!(form(hosts(&["x.b.org", "*.b.org", "b.org", "c.org"])), Ok(hosts(&["*.b.org", "c.org"])));
    assert_eq!(form(hosts(&["a.org", "*.a.b.org", "*.b.org"])), Ok(hosts(&["*.b.org", "a.org"])));
    assert_eq!(form(hosts(&[])), Err(Unfit::NoHosts));
    let names: Vec<String> = (0..=HOSTS_MAX).map(|n| format!("h{n}.example.org")).collect();
    assert!(form(Change::Hosts { hosts: names[1..].to_vec() }).is_ok());
    assert_eq!(form(Change::Hosts { hosts: names }), Err(Unfit::ManyHosts(17)));
    assert!(form(hosts(&["a.org", "127.1"])).is_err(), "one bad host refuses the ask");
}

fn known() -> Known {
    let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    Known {
        own_names: list(&["pipelock", "agent.bottle.example"]),
        route_hosts: list(&["api.model.example"]),
        remote_hosts: list(&["Git.forge.example"]),
        allowlist: list(&["open.example", "*.cdn.example"]),
        routes: vec![route("/model/", "https://api.model.example", "Bearer", &["POST /v1/messages"])],
        image: "b".into(),
        dockerfile: Some("FROM b\nRUN y\n".into()),
    }
}

fn route(path: &str, upstream: &str, scheme: &str, allow: &[&str]) -> Route {
    let allow = allow.iter().map(ToString::to_string).collect();
    Route { path: path.into(), upstream: upstream.into(), scheme: scheme.into(), allow }
}

fn ask(names: &[&str]) -> Result<Change, String> {
    change(hosts(names), &known()).map(Checked::into_change).map_err(|unfit| unfit.to_string())
}

#[test]
fn hosts_with_another_door_are_refused_and_open_ones_left_out() {
    for (names, wanted) in [
        (&["new.example"][..], Ok(&["new.example"][..])),
        (&["open.example", "new.example"], Ok(&["new.example"])),
        (&["*.open.example"], Ok(&["*.open.example"])),
        (&["cdn2.example"], Ok(&["cdn2.example"])),
        (&["other.model.example"], Ok(&["other.model.example"])),
        (&["x.api.model.example"], Ok(&["x.api.model.example"])),
        (&["open.example"], Err("already reachable: open.example")),
        (&["a.cdn.example", "*.b.cdn.example", "cdn.example"], Err("already reachable")),
        (&["api.model.example"], Err("by that route alone")),
        (&["*.model.example"], Err("by that route alone")),
        (&["*.api.model.example"], Err("by that route alone")),
        (&["new.example", "git.forge.example"], Err("through git-gate alone")),
        (&["*.forge.example"], Err("through git-gate alone")),
        (&["agent.bottle.example"], Err("inside the bottle")),
        (&["*.bottle.example"], Err("inside the bottle")),
    ] {
        match (ask(names), wanted) {
            (Ok(got), Ok(wanted)) => assert_eq!(got, hosts(wanted), "{names:?}"),
            (Err(got), Err(wanted)) => assert!(got.contains(wanted), "{names:?}: {got}"),
            (got, _) => panic!("{names:?}: {got:?}"),
        }
    }
}

#[test]
fn routes_are_read_or_refused_with_the_reason() {
    let good = route("/forge/", "https://api.forge.example", "token", &["GET /repos/**"]);
    assert_eq!(form(Change::Route(good.clone())), Ok(Change::Route(good.clone())));
    let written = Route { upstream: "https://API.forge.example:443/".into(), ..good.clone() };
    assert_eq!(form(Change::Route(written)), Ok(Change::Route(good.clone())));
    let reason = |route: Route| form(Change::Route(route)).map_err(|unfit| unfit.to_string());
    for (path, wanted) in [
        ("/a/b-1.2/", None),
        ("/@scope/", None),
        ("forge/", Some("begin and end")),
        ("/forge", Some("begin and end")),
        ("", Some("begin and end")),
        ("/", Some("a name between")),
        ("//", Some("empty segment")),
        ("/a//b/", Some("empty segment")),
        ("/../", Some("dot segment")),
        ("/a/./", Some("dot segment")),
        ("/%2e%2e/", Some("only letters")),
        ("/a b/", Some("only letters")),
        ("/a;b/", Some("only letters")),
        ("/a\\b/", Some("only letters")),
        ("/a\n/", Some("only letters")),
        ("/*/", Some("whole segment")),
        ("/ü/", Some("only letters")),
    ] {
        held(path, reason(Route { path: path.into(), ..good.clone() }), wanted);
    }
    held("long", reason(Route { path: format!("/{}/", "a".repeat(255)), ..good.clone() }), None);
    held("longer", reason(Route { path: format!("/{}/", "a".repeat(256)), ..good.clone() }), Some("256 bytes"));
    for (upstream, wanted) in [
        ("https://api.forge.example:8443/base/v1", None),
        ("http://api.forge.example", Some("https://")),
        ("HTTPS://api.forge.example", Some("https://")),
        ("api.forge.example", Some("https://")),
        ("https://u:p@api.forge.example", Some("a person names the credential")),
        ("https://api.forge.example?key=1", Some("query")),
        ("https://api.forge.example/#x", Some("query")),
        ("https://*.forge.example", Some("one host")),
        ("https://api.forge.example:0", Some("65535")),
        ("https://api.forge.example:65536", Some("65535")),
        ("https://api.forge.example:+1", Some("65535")),
        ("https://api.forge.example:", Some("65535")),
        ("https://", Some("not a host name")),
        ("https://[::1]/", Some("an address is never")),
        ("https://127.1/", Some("an address is never")),
        ("https://169.254.169.254/latest", Some("an address is never")),
        ("https://metadata.google.internal", Some("metadata")),
        ("https://localhost:8080", Some("internal")),
        ("https://cred-proxy", Some("inside the bottle")),
        ("https://a.example/x//y", Some("empty segment")),
        ("https://a.example//", Some("empty segment")),
        ("https://a.example/..", Some("dot segment")),
        ("https://a.example\\@b.example", Some("cannot hold a user")),
        ("https://a.example\\b", Some("without a path")),
        ("https://a.example/%2e", Some("only letters")),
    ] {
        held(upstream, reason(Route { upstream: upstream.into(), ..good.clone() }), wanted);
    }
    for (scheme, wanted) in [
        ("Bearer", None),
        ("Basic", None),
        ("none", None),
        ("header:X-Api-Key", None),
        ("bearer", Some("none of Bearer")),
        ("Bearer s3cret", Some("none of Bearer")),
        ("", Some("none of Bearer")),
        ("header:", Some("cannot carry")),
        ("header:X Key", Some("cannot carry")),
        ("header:Host", Some("cannot carry")),
        ("header:Transfer-Encoding", Some("cannot carry")),
        ("header:X\r\nY", Some("cannot carry")),
    ] {
        held(scheme, reason(Route { scheme: scheme.into(), ..good.clone() }), wanted);
    }
    for (allow, wanted) in [
        ("* /**", None),
        ("GET /", None),
        ("GET **/info/refs?service=git-upload-pack", None),
        ("GET /a/*/b/", None),
        ("get /a", Some("method")),
        ("TRACE /a", Some("method")),
        ("CONNECT /a", Some("method")),
        (" /a", Some("method")),
        ("GET", Some("is not a method, a space")),
        ("GET a", Some("is not a method, a space")),
        ("GET  /a", Some("is not a method, a space")),
        ("GET /a*", Some("whole segment")),
        ("GET //", Some("empty segment")),
        ("GET /a//b", Some("empty segment")),
        ("GET /../a", Some("dot segment")),
        ("GET /a\nGET /b", Some("only letters")),
        ("GET /a?b c", Some("only letters")),
    ] {
        held(allow, reason(Route { allow: vec![allow.into()], ..good.clone() }), wanted);
    }
    held("no allow", reason(Route { allow: Vec::new(), ..good.clone() }), Some("allow is empty"));
    let many = |n: usize| Route { allow: (0..n).map(|n| format!("GET /{n}")).collect(), ..good.clone() };
    held("32", reason(many(32)), None);
    held("33", reason(many(33)), Some("33 patterns"));
    let twice = route("/forge/", "https://api.forge.example", "token", &["POST /b", "GET /a", "GET /a"]);
    let Ok(Change::Route(once)) = form(Change::Route(twice)) else { panic!() };
    assert_eq!(once.allow, ["GET /a", "POST /b"]);
}

fn held(what: &str, got: Result<Change, String>, wanted: Option<&str>) {
    match (got, wanted) {
        (Ok(_), None) => {}
        (Err(got), Some(wanted)) => assert!(got.contains(wanted), "{what:?}: {got}"),
        (got, _) => panic!("{what:?}: {got:?}"),
    }
}

#[test]
fn routes_stand_apart_from_what_the_bottle_has() {
    for (route, wanted) in [
        (route("/new/", "https://new.example", "none", &["GET /a"]), None),
        (route("/models/", "https://api.model.example", "Bearer", &["GET /a"]), None),
        (route("/model/", "https://api.model.example", "Bearer", &["GET /v1/models"]), None),
        (route("/model/", "https://api.model.example", "Bearer", &["POST /v1/messages"]), Some("leads there already")),
        (route("/model/", "https://new.example", "Bearer", &["GET /a"]), Some("overlaps")),
        (route("/model/v1/", "https://new.example", "Bearer", &["GET /a"]), Some("overlaps")),
        (route("/x/", "https://open.example", "none", &["GET /a"]), Some("directly, by open.example")),
        (route("/x/", "https://a.cdn.example", "none", &["GET /a"]), Some("directly, by *.cdn.example")),
        (route("/x/", "https://git.forge.example", "none", &["GET /a"]), Some("through git-gate alone")),
        (route("/x/", "https://agent.bottle.example", "none", &["GET /a"]), Some("inside the bottle")),
    ] {
        let what = format!("{} {}", route.path, route.upstream);
        let got = change(Change::Route(route), &known()).map(Checked::into_change);
        held(&what, got.map_err(|unfit| unfit.to_string()), wanted);
    }
}

#[test]
fn findings_and_dockerfiles() {
    let finding = |text: &str| {
        let change = change(Change::Finding { fingerprint: text.into() }, &known()).map(Checked::into_change);
        change.map_err(|unfit| unfit.to_string())
    };
    assert_eq!(finding("0123456789AB"), Ok(Change::Finding { fingerprint: "0123456789ab".into() }));
    held("64", finding(&"a".repeat(64)), None);
    for text in ["", "0123456789a", &"a".repeat(65), "0123456789ag", "0x23456789ab", "0123456789 ab"] {
        held(text, finding(text), Some("12 to 64 hexadecimal digits"));
    }
    let dockerfile = |text: &str| {
        let change = change(Change::Dockerfile { text: text.into() }, &known()).map(Checked::into_change);
        change.map_err(|unfit| unfit.to_string())
    };
    assert_eq!(dockerfile("FROM b\r\nRUN x\r\n"), Ok(Change::Dockerfile { text: "FROM b\nRUN x\n".into() }));
    held("tab", dockerfile("FROM b\n\tRUN ü\n"), None);
    held("as it is", dockerfile("FROM b\nRUN y\n"), Some("as it is"));
    held("as it is", dockerfile("FROM b\r\nRUN y\r\n"), Some("as it is"));
    held("another image", dockerfile("FROM a\n"), Some("line 1: FROM must be the image of the bottle"));
    held("COPY", dockerfile("FROM b\nCOPY / /\n"), Some("line 2: only FROM, RUN, ENV, WORKDIR and USER"));
    let unknown = change(Change::Dockerfile { text: "FROM b\n".into() }, &Known::default());
    assert!(unknown.is_err(), "nothing is known by default");
    held("empty", dockerfile(" \n\t"), Some("empty"));
    for (text, code) in [
        ("FROM b\nRUN \0", "line 2 has the character U+0000"),
        ("FROM b\rRUN x", "line 1 has the character U+000D"),
        ("FROM b\u{1b}[2J", "U+001B"),
        ("FROM b\u{9b}", "U+009B"),
        ("FROM b # \u{202e}", "U+202E"),
        ("FROM b # \u{200b}", "U+200B"),
        ("FROM b # \u{e0041}", "U+E0041"),
    ] {
        held(text, dockerfile(text), Some(code));
    }
    let long = |bytes: usize| format!("FROM b\n{}", "#".repeat(bytes - 7));
    held("most", dockerfile(&long(DOCKERFILE_BYTES_MAX)), None);
    held("more", dockerfile(&long(DOCKERFILE_BYTES_MAX + 1)), Some("65537 bytes"));
}

#[test]
fn a_justification_is_there_and_short() {
    assert_eq!(justification("the build needs it\nreally"), Ok(()));
    assert_eq!(justification(&"j".repeat(JUSTIFICATION_BYTES_MAX)), Ok(()));
    assert_eq!(justification(&"j".repeat(JUSTIFICATION_BYTES_MAX + 1)), Err(Unfit::LongJustification(2001)));
    assert_eq!(justification(" \n"), Err(Unfit::NoJustification));
}

#[test]
fn what_is_quoted_is_cut_short_and_escaped() {
    let unfit = host(&format!("a\n\u{1b}[2J\u{202e}{}", "x".repeat(900))).unwrap_err().to_string();
    assert!(unfit.len() < 300 && !unfit.contains(['\n', '\u{1b}', '\u{202e}']), "{unfit}");
}

mod properties {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_refused_or_has_one_spelling(text in any::<String>()) {
            if let Ok(name) = host(&text) {
                prop_assert!(name.is_ascii() && name.contains('.'));
                prop_assert_eq!(host(&name), Ok(name.clone()));
                prop_assert!(name.rsplit('.').next().unwrap().parse::<u64>().is_err());
            }
        }

        #[test]
        fn form_has_one_spelling_too(names in proptest::collection::vec("(\\*\\.)?[a-cA-C]{1,2}(\\.[a-cü]{1,2}){0,2}\\.(org|example)\\.?", 1..8)) {
            if let Ok(change) = form(Change::Hosts { hosts: names }) {
                prop_assert_eq!(form(change.clone()), Ok(change));
            }
        }

        #[test]
        fn a_check_never_opens_another_door(name in "(\\*\\.)?([a-b]{1}\\.){0,2}(model|forge|bottle)\\.example") {
            if let Ok(checked) = change(hosts(&[&name]), &known()) {
                let Change::Hosts { hosts: names } = checked.change() else { panic!() };
                for name in names {
                    for other in ["api.model.example", "git.forge.example", "agent.bottle.example"] {
                        prop_assert!(!host::covers(name, other), "{} opens {}", name, other);
                    }
                }
            }
        }
    }
}
