//! Two bottles for the claims about cred-proxy. Bottle `one` has a route for every way of putting a credential in, most of
//! them to the host whose replies are written byte by byte; bottle `two` has one of these routes with another credential.
//! Requests are sent as bytes, by Python in the agent's container, and judged by what the other side saw.

use super::ground::{Folder, tag};
use super::lease::{Held, Shared};
use bottle_tests::harness::{Bottle, Output, Site, World, wait_until};
use bottle_tests::world::{Evidence, WIRE};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// cred-proxy, as the agent reaches it.
pub const PROXY: &str = "http://cred-proxy:9099";
/// The routes of bottle `one` that put a credential in, all to one host.
pub const ROUTES: [&str; 4] = ["wire", "key", "basic", "token"];

/// The two bottles and their world.
pub struct Doors {
    /// The operator's machine.
    pub site: &'static Site,
    /// A route for every way.
    pub one: Bottle<'static>,
    /// Another bottle, with another credential.
    pub two: Bottle<'static>,
    secrets: Vec<(&'static str, String)>,
    world: Mutex<World<'static>>,
    _home: Folder,
}

/// A claim's part of them.
pub type Lease = super::lease::Lease<Doors>;

impl Shared for Doors {
    fn make() -> Option<Self> {
        let site: &'static Site = Box::leak(Box::new(Site::new()?));
        let mut world = World::start(site);
        world.start_git();
        // Names of their own: those before may still be going.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let secrets = vec![
            ("wire", tag("wire")),
            // With everything in it that an encoding writes in another way.
            ("key", format!("{}/+\"<&>'=~\\", tag("key"))),
            ("basic", format!("agent:{}", tag("basic"))),
            ("token", tag("token")),
            ("two", tag("two")),
        ];
        let secret = |name: &str| secrets.iter().find(|(n, _)| *n == name).map(|(_, s)| s.as_str()).unwrap_or_default();
        let to = format!("https://{WIRE}");
        let open = ["inspect: false", "allow: [\"* /v1/**\"]"];
        let narrow = ["inspect: false", "allow: [\"GET /v1/echo\"]"];
        let base = world.bottle_yaml(&site.clients());
        let yaml = [
            base.clone(),
            world.route_yaml("/wire/", &to, ("Bearer", secret("wire")), &open),
            world.route_yaml("/key/", &to, ("header:X-Api-Key", secret("key")), &open),
            world.route_yaml("/basic/", &to, ("Basic", secret("basic")), &open),
            world.route_yaml("/token/", &to, ("token", secret("token")), &open),
            world.route_yaml("/none/", &to, ("none", ""), &open),
            world.route_yaml("/narrow/", &to, ("Bearer", secret("wire")), &narrow),
            world.git_yaml(),
            world.npm_yaml(),
        ];
        let (agent_one, agent_two) = (format!("doors-one-{number}"), format!("doors-two-{number}"));
        site.bottle("one", &yaml.concat());
        site.agent(&agent_one, "one");
        site.bottle("two", &[base, world.route_yaml("/wire/", &to, ("Bearer", secret("two")), &open)].concat());
        site.agent(&agent_two, "two");
        let one = site.run(&agent_one).detached(&["sleep", "3600"]);
        let two = site.run(&agent_two).detached(&["sleep", "3600"]);
        Some(Self { site, one, two, secrets, world: Mutex::new(world), _home: Folder(site.path("")) })
    }

    fn held() -> &'static Held<Self> {
        static HELD: Held<Doors> = Held::new();
        &HELD
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        for bottle in [&self.one, &self.two] {
            let stopped = self.site.launcher(&["stop", bottle.id()]);
            if stopped.status != 0 {
                eprintln!("{} could not be stopped: {stopped:#?}", bottle.id());
            }
        }
        let left = self.site.left();
        if !left.is_empty() {
            eprintln!("left on the engine: {left:?}: {:?}", self.site.launcher(&["cleanup"]));
        }
    }
}

impl Doors {
    /// The credential of a route; `two` is that of the other bottle.
    pub fn secret(&self, name: &str) -> &str {
        self.secrets.iter().find(|(n, _)| *n == name).map(|(_, s)| s.as_str()).unwrap()
    }

    /// What a credential looks like in the header that it is put into.
    pub fn authorization(&self, name: &str) -> String {
        format!("Bearer {}", self.secret(name))
    }

    /// The git host's credential.
    pub fn git_credential(&self) -> String {
        self.world().git_credential()
    }

    fn world(&self) -> MutexGuard<'_, World<'static>> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a host of the world saw until now that holds a text: a good request, which comes last, has to be among it.
    #[track_caller]
    pub fn seen_with(&self, role: &str, text: &str) -> Vec<Evidence> {
        let marker = tag("until-now");
        let got = self.two.exec(&["curl", "-sS", "-m", "20", &format!("{PROXY}/wire/v1/echo?form=json&{marker}=1")]);
        assert_eq!(got.status, 0, "{got:#?}");
        wait_until("the marker is seen", || self.world().seen("api").iter().any(|e| e.contains(&marker)).then_some(()));
        self.world().seen(role).into_iter().filter(|e| e.contains(text)).collect()
    }

    /// Waits until a host of the world has seen something.
    #[track_caller]
    pub fn wait_for(&self, role: &str, what: &str, mut is_it: impl FnMut(&Evidence) -> bool) {
        wait_until(what, || self.world().seen(role).iter().any(&mut is_it).then_some(()));
    }

    /// Sends each of these byte for byte, on a connection of its own from bottle `one`, and after each a good request. Gives
    /// what came back: everything until the other side closed, or was silent for a while.
    #[track_caller]
    pub fn send(&self, requests: &[String]) -> Vec<String> {
        send(&self.one, requests)
    }
}

/// [`Doors::send`] from any bottle with the route `/wire/`.
#[track_caller]
pub fn send(bottle: &Bottle<'_>, requests: &[String]) -> Vec<String> {
    // On a command line a single argument has a limit; `{NxC}` stands for N times the character C.
    let output = bottle.exec(&["python3", "-c", SEND, &json!(requests).to_string()]);
    let replies: Vec<Value> = output.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(replies.len(), requests.len(), "{output:#?}");
    for (request, reply) in requests.iter().zip(&replies) {
        assert_eq!(reply["next"], 200, "the next good request after {request:?} failed: {reply}");
    }
    replies.into_iter().map(|reply| reply["reply"].as_str().unwrap_or_default().to_owned()).collect()
}

/// A request that ends its connection; `more` are further header lines, each with its end.
pub fn get(target: &str, more: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: cred-proxy:9099\r\nConnection: close\r\n{more}\r\n")
}

/// A request with a body as it stands, its framing among the headers.
pub fn post(target: &str, more: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: cred-proxy:9099\r\n{more}\r\n{body}")
}

/// Sends each and panics unless it is refused, as a client sees it, and nothing with `mark` has arrived.
#[track_caller]
pub fn refused(doors: &Lease, mark: &str, requests: &[String], wanted: &[u16]) {
    for (request, reply) in requests.iter().zip(doors.send(requests)) {
        let of = status(&reply);
        assert!(wanted.contains(&of), "{request:?} gave {of}: {reply}");
        assert_eq!(reply.matches("HTTP/1.1 ").count(), 1, "one answer to {request:?}: {reply}");
    }
    let seen = doors.seen_with("api", mark);
    assert!(seen.is_empty(), "arrived: {seen:#?}");
}

/// The allowed neighbour: each is answered 200 and arrives.
#[track_caller]
pub fn passes(doors: &Lease, mark: &str, requests: &[String]) -> Vec<Evidence> {
    for (request, reply) in requests.iter().zip(doors.send(requests)) {
        assert_eq!(status(&reply), 200, "{request:?}: {reply}");
    }
    let seen = doors.seen_with("api", mark);
    assert_eq!(seen.len(), requests.len(), "{seen:#?}");
    seen
}

/// The status of a raw reply; 0 where there was none.
pub fn status(reply: &str) -> u16 {
    reply.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or(0)
}

/// Python in a bottle.
#[track_caller]
pub fn python(bottle: &Bottle<'_>, script: &str, args: &[&str]) -> Output {
    bottle.exec(&[&["python3", "-c", script], args].concat()).ok()
}

const SEND: &str = r#"
import json, re, socket, sys
def once(data, quiet):
    s = socket.create_connection(("cred-proxy", 9099), 10)
    s.settimeout(quiet)
    got = b""
    try:
        s.sendall(data)
    except OSError: pass  # it may be closed before it has read all
    try:
        while len(got) < 1 << 20:
            part = s.recv(65536)
            if not part: break
            got += part
    except OSError: pass
    s.close()
    return got
for text in json.loads(sys.argv[1]):
    text = re.sub(r"\{(\d+)x(.)\}", lambda m: m.group(2) * int(m.group(1)), text, flags=re.S)
    reply = once(text.encode("latin-1"), 1.5)
    good = once(b"GET /wire/v1/echo?form=json HTTP/1.1\r\nHost: cred-proxy:9099\r\nConnection: close\r\n\r\n", 15)
    code = good[9:12].decode() if b"before" in good else "0"
    print(json.dumps({"reply": reply.decode("latin-1"), "next": int(code)}), flush=True)
"#;

/// What a client library makes of a reply: chunks undone, nothing decoded.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Its status; 0 where none came.
    pub status: u16,
    /// Its headers, a line each, names in lower case.
    pub headers: String,
    /// Its body, a character a byte.
    pub body: String,
    /// Did the body end as it should?
    pub whole: bool,
}

impl Fetched {
    /// Headers and body, for searching.
    pub fn text(&self) -> String {
        format!("{}\n{}", self.headers, self.body)
    }

    /// The values of a header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        let of_name = |line| str::split_once(line, ": ").filter(|(n, _)| *n == name).map(|(_, value)| value);
        self.headers.lines().filter_map(of_name).collect()
    }
}

/// GETs paths of cred-proxy one after another.
#[track_caller]
pub fn fetch(bottle: &Bottle<'_>, paths: &[String]) -> Vec<Fetched> {
    let output = python(bottle, FETCH, &[&json!(paths).to_string()]);
    let replies: Vec<Value> = output.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(replies.len(), paths.len(), "{output:#?}");
    let text = |reply: &Value, name: &str| reply[name].as_str().unwrap_or_default().to_owned();
    let fetched = |reply: &Value| Fetched {
        status: reply["status"].as_u64().and_then(|status| status.try_into().ok()).unwrap_or(0),
        headers: text(reply, "headers"),
        body: text(reply, "body"),
        whole: reply["whole"] == true,
    };
    replies.iter().map(fetched).collect()
}

const FETCH: &str = r#"
import http.client, json, sys
for path in json.loads(sys.argv[1]):
    c = http.client.HTTPConnection("cred-proxy", 9099, timeout=20)
    told = {"status": 0, "headers": "", "body": "", "whole": False}
    try:
        c.request("GET", path)
        r = c.getresponse()
        told["status"] = r.status
        told["headers"] = "\n".join([r.reason] + [f"{n.lower()}: {v}" for n, v in r.getheaders()])
        body = b""
        try:
            while part := r.read1(65536): body += part
            told["whole"] = r.length in (0, None)
        except (http.client.HTTPException, OSError) as e: body += getattr(e, "partial", b"")
        told["body"] = body.decode("latin-1")
    except (http.client.HTTPException, OSError) as e: told["body"] = repr(e)
    print(json.dumps(told), flush=True)
    c.close()
"#;
