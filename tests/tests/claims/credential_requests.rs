//! Requests as no client would write them: nothing of the agent's own credentials goes upstream, and a route is a door to
//! what it permits however a request is spelled.

use super::doors::{Lease, PROXY, ROUTES, get, passes, post, python, refused, send, status};
use super::ground::tag;
use bottle_tests::world::{Evidence, GIT, WIRE};

fn authorization(evidence: &Evidence) -> Option<&str> {
    let Evidence::Request { authorization, .. } = evidence else { return None };
    authorization.as_deref()
}

#[test]
fn no_credential_header_of_the_agent_goes_upstream_however_it_is_spelled() {
    let Some(doors) = Lease::take() else { return };
    let (own, path) = (tag("own"), tag("stripped"));
    let names = [
        "Authorization",
        "authorization",
        "AUTHORIZATION",
        "aUtHoRiZaTiOn",
        "Proxy-Authorization",
        "Cookie",
        "cookie",
        "Cookie2",
        "X-Api-Key",
        "x-api-key",
        "X_Api_Key",
        "x_api_key",
        "Api-Key",
        "apikey",
        "X-Goog-Api-Key",
        "X-Auth-Token",
        "PRIVATE-TOKEN",
        "Private_Token",
        "Job-Token",
        "Deploy-Token",
        "X-Access-Token",
        "X-Vault-Token",
        "X-Amz-Security-Token",
        "X-Authorization",
        "X-Forwarded-Authorization",
        "X_Authorization",
        "Authentication",
        "X-Client-Secret",
        "X-Password",
        "DPoP",
        "X-Csrf-Token",
        "Ocp-Apim-Subscription-Key",
        "X-Auth-Key",
        "X-Auth-User",
        "X-Auth-Email",
        "X-Functions-Key",
        "OpenAI-Api-Key",
        "Anthropic-Api-Key",
        "X-GitHub-Token",
        "X-Gitlab-Token",
        "X-Original-Authorization",
        "X-Forwarded-Access-Token",
    ];
    let target = format!("/wire/v1/echo?form=json&tag={path}");
    let mut requests: Vec<String> =
        names.iter().map(|name| get(&target, &format!("{name}: Bearer {own}\r\n"))).collect();
    requests.push(get(
        &target,
        &format!("Authorization: Bearer {own}\r\nAuthorization: Basic {own}\r\nauthorization:{own}\r\n"),
    ));
    requests.push(get(&target, &format!("Cookie: a={own}\r\nCookie: b={own}\r\nX-Api-Key:\t{own}\t\r\n")));
    requests.push(get(&target, &format!("X-Hop: {own}\r\nConnection: x-hop, close\r\n")));
    let seen = passes(&doors, &path, &requests);
    for evidence in &seen {
        assert!(!evidence.contains(&own), "{evidence:#?}");
        assert_eq!(authorization(evidence), Some(doors.authorization("wire").as_str()), "{evidence:#?}");
    }
    // On the other routes, whatever they put in themselves.
    for route in ROUTES {
        let path = tag("others");
        let target = format!("/{route}/v1/echo?form=json&tag={path}");
        let seen = passes(&doors, &path, &[get(&target, &format!("Authorization: {own}\r\nX-Api-Key: {own}\r\n"))]);
        assert!(!seen[0].contains(&own), "{seen:#?}");
    }
    // What is no credential passes.
    let kept = tag("kept");
    let seen = passes(&doors, &kept, &[get(&format!("/wire/v1/echo?form=json&tag={kept}"), "X-Harmless: yes\r\n")]);
    assert!(seen[0].contains("x-harmless"), "{seen:#?}");
}

#[test]
fn the_agent_cannot_have_the_credential_taken_out_again() {
    let Some(doors) = Lease::take() else { return };
    let path = tag("taken-out");
    let target = format!("/wire/v1/echo?form=json&tag={path}");
    let ask =
        |more: &str| format!("GET {target} HTTP/1.1\r\nHost: cred-proxy:9099\r\nConnection: close, {more}\r\n\r\n");
    let requests = ["authorization", "Authorization, host", "x-api-key", "content-length", "te"].map(ask);
    for evidence in passes(&doors, &path, &requests) {
        assert_eq!(authorization(&evidence), Some(doors.authorization("wire").as_str()));
        assert!(matches!(&evidence, Evidence::Request { host, .. } if host == WIRE), "{evidence:?}");
    }
}

#[test]
fn a_credential_in_a_query_or_a_trailer_does_not_go_upstream() {
    let Some(doors) = Lease::take() else { return };
    let path = tag("query");
    let names =
        ["access_token", "Access_Token", "access%5ftoken", "private_token", "token", "api_key", "a=b&access_token"];
    let requests = names.map(|name| get(&format!("/wire/v1/echo?form=json&tag={path}&{name}=agents-own"), ""));
    refused(&doors, &path, &requests, &[403]);
    let own = tag("own");
    let path = tag("trailer");
    let chunked = "Connection: close\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization, X-Api-Key\r\n";
    let body = format!("4\r\nbody\r\n0\r\nAuthorization: Bearer {own}\r\nX-Api-Key: {own}\r\nCookie: {own}\r\n\r\n");
    let replies = doors.send(&[post(&format!("/wire/v1/upload?tag={path}"), chunked, &body)]);
    assert!([200, 400, 502].contains(&status(&replies[0])), "{replies:?}");
    assert!(doors.seen_with("api", &own).is_empty(), "a trailer arrived");
    let mark = tag("plain");
    passes(&doors, &mark, &[get(&format!("/wire/v1/echo?form=json&page_token=x&tag={mark}"), "")]);
}

#[test]
fn a_path_has_one_reading_or_none() {
    let Some(doors) = Lease::take() else { return };
    let path = tag("path");
    // `/narrow/` permits `/v1/echo` alone; each of these is another way to say `/v1/upload`, or to leave the route.
    let targets = [
        "/narrow/v1/upload",
        "/narrow/v1/echo/../upload",
        "/narrow/v1/./upload",
        "/narrow/v1/%2e%2e/v1/upload",
        "/narrow/v1/%2E%2e/upload",
        "/narrow/v1/.%2e/upload",
        "/narrow/v1/echo/..%2fupload",
        "/narrow/v1%2fupload",
        "/narrow/v1%2Fupload",
        "/narrow//v1/upload",
        "//narrow/v1/echo",
        "/narrow/v1//echo",
        "/narrow/v1/echo/",
        "/narrow/v1/echo//",
        "/narrow/v1/echo;a=b",
        "/narrow/v1/echo;/../upload",
        "/narrow/v1/ECHO",
        "/NARROW/v1/echo",
        "/narrow/V1/echo",
        "/narrow/v1/%252e%252e/upload",
        "/narrow/v1/%252%65%25%32e/upload",
        "/narrow/v1/echo%00",
        "/narrow/v1/echo%0d%0aX:y",
        "/narrow/v1/echo%20",
        "/narrow/v1\\echo",
        "/narrow/v1/%5c..%5cupload",
        "/narrow/v1/echo%2f",
        "/narrow/v1/%",
        "/narrow/v1/%zz",
        "/narrow/../wire/v1/echo",
        "/narrow/%2e%2e/wire/v1/echo",
        "/wire/../narrow/v1/upload",
        "/narrow",
        "/narrow/",
        "/",
        "/nowhere/v1/echo",
        "/narrowx/v1/echo",
        "/x/narrow/v1/echo",
        "/%2fnarrow/v1/echo",
        "/narrow/v1/echo/x",
        "/narrow/v1/e%63ho/x",
        "/narrow/v1/%c0%ae%c0%ae/upload",
        "/narrow/v1/\u{e9}cho",
        "/narrow/v1/echo|",
        "/narrow/v1/\"echo\"",
    ];
    let requests = targets.map(|target| get(&format!("{target}?form=json&tag={path}"), ""));
    refused(&doors, &path, &requests, &[400, 403, 404]);
    let mark = tag("one-reading");
    let seen = passes(
        &doors,
        &mark,
        &["/narrow/v1/echo", "/narrow/v1/%65cho", "/n%61rrow/v1/echo"]
            .map(|target| get(&format!("{target}?form=json&tag={mark}"), "")),
    );
    assert!(
        seen.iter().all(|e| matches!(e, Evidence::Request { path, .. } if path.starts_with("/v1/echo?"))),
        "{seen:#?}"
    );
}

#[test]
fn an_unknown_path_and_a_method_without_permission_say_how_to_ask() {
    let Some(doors) = Lease::take() else { return };
    let path = tag("ask");
    // At `/`, tarballs of the registry are answered, and nothing else: an unknown path is one without permission there.
    for (target, wanted) in [("/unknown/x", 403), ("/narrow/v1/upload", 403)] {
        let reply = doors.send(&[get(&format!("{target}?tag={path}"), "")]).remove(0);
        assert_eq!(status(&reply), wanted, "{reply}");
        assert!(reply.contains("ask the operator"), "{reply}");
    }
    let methods =
        ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "PROPFIND", "get", "Get", "GETX", "TRACE", "TRACK"];
    let mut requests = Vec::new();
    for method in methods {
        let length = if method == "HEAD" { "" } else { "Content-Length: 0\r\n" };
        requests.push(get(&format!("/narrow/v1/echo?tag={path}"), length).replacen("GET", method, 1));
    }
    let replies = doors.send(&requests);
    for (request, reply) in requests.iter().zip(replies) {
        assert!([400, 403, 405].contains(&status(&reply)), "{request:?}: {reply}");
    }
    for header in [
        "X-HTTP-Method-Override: DELETE",
        "X-HTTP-Method: PUT",
        "X-Original-URL: /v1/upload",
        "X-Rewrite-Url: /v1/upload",
    ] {
        let mark = tag("override");
        let seen =
            passes(&doors, &mark, &[get(&format!("/narrow/v1/echo?form=json&tag={mark}"), &format!("{header}\r\n"))]);
        let name = header.split_once(':').unwrap().0.to_ascii_lowercase();
        assert!(!seen[0].contains(&name), "{seen:#?}");
    }
    assert!(doors.seen_with("api", &path).is_empty());
    assert!(doors.seen_with("api", "_method").is_empty());
}

#[test]
fn no_form_of_a_target_or_a_host_makes_it_an_open_proxy() {
    let Some(doors) = Lease::take() else { return };
    let path = tag("form");
    let echo = format!("/wire/v1/echo?form=json&tag={path}");
    let line = |line: &str, host: &str| format!("{line} HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
    let host = "Host: cred-proxy:9099\r\n";
    let requests = [
        line(&format!("GET http://{WIRE}{echo}"), host),
        line(&format!("GET https://{WIRE}{echo}"), host),
        line(&format!("GET http://cred-proxy:9099{echo}"), host),
        line(&format!("GET {WIRE}:443"), host),
        line(&format!("CONNECT {WIRE}:443"), host),
        line("CONNECT cred-proxy:9099", host),
        line(&format!("CONNECT {echo}"), host),
        line("OPTIONS *", host),
        line(&format!("GET {echo}"), ""),
        line(&format!("GET {echo}"), "Host: a\r\nHost: b\r\n"),
        line(&format!("GET {echo}"), &format!("{host}{host}")),
        line(&format!("GET {echo} x"), host),
        // A fragment is for the client alone (RFC 9110, 7.1).
        line(&format!("GET {echo}#fragment"), host),
        line(&format!("GET  {echo}"), host),
        line(&format!("GET\t{echo}"), host),
        line(&format!(" GET {echo}"), host),
        line(&format!("GET {}", echo.trim_start_matches('/')), host),
        line(&format!("GET @{WIRE}{echo}"), host),
        format!("GET {echo}\r\n\r\n"),
        format!("GET {echo} HTTP/0.9\r\n{host}\r\n"),
        format!("GET {echo} HTTP/2.0\r\n{host}\r\n"),
        format!("GET {echo} HTTP/1.2\r\n{host}\r\n"),
        format!("GET {echo} http/1.1\r\n{host}\r\n"),
    ];
    refused(&doors, &path, &requests, &[0, 400, 404, 405, 505]);
    // Whatever name it is called by, it leads where the route leads.
    let mark = tag("any-name");
    let target = format!("GET /wire/v1/echo?form=json&tag={mark}");
    let requests = [line(&target, "Host: attacker.world.example\r\n"), line(&target, "Host: x:1\r\n")];
    let seen = passes(&doors, &mark, &requests);
    assert!(seen.iter().all(|e| matches!(e, Evidence::Request { host, .. } if host == WIRE)), "{seen:#?}");
}

#[test]
fn a_push_does_not_pass_however_it_is_spelled() {
    let Some(doors) = Lease::take() else { return };
    let path = tag("push");
    let targets = [
        "GET /git/team/app.git/info/refs?service=git-receive-pack",
        "GET /git/team/app.git/info/refs?service=git%2dreceive-pack",
        "GET /git/team/app.git/info/refs?service=%67it-receive-pack",
        "GET /git/team/app.git/info/refs?service=git-upload-pack&service=git-receive-pack",
        "GET /git/team/app.git/info/refs?SERVICE=git-receive-pack",
        "GET /git/team/app.git/info/refs?service=git-upload-pack;service=git-receive-pack",
        "POST /git/team/app.git/git-receive-pack",
        "POST /git/team/app.git/Git-Receive-Pack",
        "POST /git/team/app.git/git%2Dreceive%2dpack",
        "POST /git/team/app.git/git%252dreceive-pack",
        "POST /git/team/app.git/git-receive-pack/",
        "POST /git/team/app.git//git-receive-pack",
        "POST /git/team/app.git/x/../git-receive-pack",
        "POST /wire/v1/git-receive-pack",
        "POST /wire/v1/info/refs?service=git-receive-pack",
    ];
    let ask = |target: &&str| {
        let mark = if target.contains('?') { "&" } else { "?" };
        format!("{target}{mark}tag={path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    };
    let mut requests: Vec<String> = targets.iter().map(ask).collect();
    for kind in ["application/x-git-receive-pack-request", "Application/X-Git-Receive-Pack-Request; a=b"] {
        requests.push(post(
            &format!("/wire/v1/upload?tag={path}"),
            &format!("Content-Type: {kind}\r\nContent-Length: 0\r\nConnection: close\r\n"),
            "",
        ));
    }
    for (request, reply) in requests.iter().zip(doors.send(&requests)) {
        assert!([400, 403, 404].contains(&status(&reply)), "{request:?}: {reply}");
    }
    for role in ["git", "api"] {
        assert!(doors.seen_with(role, &path).is_empty(), "{:#?}", doors.seen_with(role, &path));
    }
}

#[test]
fn a_real_git_fetches_through_its_route_and_does_not_push() {
    let Some(doors) = Lease::take() else { return };
    let folder = format!("/tmp/{}", tag("clone"));
    let git = format!("git -c user.name=a -c user.email=a@a.example -C {folder}");
    let cloned =
        doors.one.sh(&format!("git clone --quiet {PROXY}/git/team/app.git {folder} && {git} log --format=%s main"));
    assert_eq!(cloned.ok().stdout, "commit 3\ncommit 2\ncommit 1\n");
    let fetched = doors
        .one
        .sh(&format!("{git} fetch --quiet origin 'refs/heads/*:refs/remotes/all/*' && {git} branch -r | wc -l"))
        .ok();
    assert!(fetched.stdout.trim().parse::<u32>().is_ok_and(|n| n > 60), "{fetched:#?}");
    let mark = tag("pushed");
    let pushed = doors
        .one
        .sh(&format!("{git} commit --quiet --allow-empty -m {mark} && {git} push origin HEAD:refs/heads/{mark}"));
    assert_ne!(pushed.status, 0, "{pushed:#?}");
    let again = doors.one.sh(&format!("{git} ls-remote origin")).ok();
    assert!(!again.stdout.contains(&mark) && again.stdout.contains("refs/heads/main"), "{again:#?}");
    assert!(!again.stderr.contains(&doors.git_credential()), "{again:#?}");
    let seen = doors.seen_with("git", "git-receive-pack");
    assert!(seen.is_empty(), "{seen:#?}");
    assert!(
        doors
            .seen_with("git", "git-upload-pack")
            .iter()
            .all(|e| matches!(e, Evidence::Request { host, .. } if host == GIT))
    );
}

#[test]
fn two_bottles_at_once_never_use_each_others_credential() {
    let Some(doors) = Lease::take() else { return };
    let (one, two) = (tag("of-one"), tag("of-two"));
    let ask = |mark: &str| vec![get(&format!("/wire/v1/echo?form=json&tag={mark}"), ""); 15];
    std::thread::scope(|scope| {
        let others = scope.spawn(|| send(&doors.two, &ask(&two)));
        let own = send(&doors.one, &ask(&one));
        let others = others.join().unwrap();
        assert!(own.iter().chain(&others).all(|reply| status(reply) == 200), "{own:?} {others:?}");
    });
    for (mark, secret, other) in [(&one, "wire", "two"), (&two, "two", "wire")] {
        let seen = doors.seen_with("api", mark);
        assert_eq!(seen.len(), 15);
        for evidence in &seen {
            assert_eq!(authorization(evidence), Some(doors.authorization(secret).as_str()));
            assert!(!evidence.contains(doors.secret(other)), "{evidence:?}");
        }
    }
    // And one bottle's agent has no way to the other's cred-proxy: its routes are its own.
    let reply = send(&doors.two, &[get(&format!("/token/v1/echo?tag={one}"), "")]).remove(0);
    assert_eq!(status(&reply), 404, "{reply}");
    let asked = python(&doors.two, "import socket; print(socket.gethostbyname('cred-proxy'))", &[]).stdout;
    let owned = python(&doors.one, "import socket; print(socket.gethostbyname('cred-proxy'))", &[]).stdout;
    assert_ne!(asked, owned);
}
