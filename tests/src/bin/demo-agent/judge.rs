//! From what was seen to what it means. Pure. The rule of every refusal: it held when no answer of the world came and
//! whoever answered instead said no; an answer that only says "it did not work" means that somebody tried.

use crate::http::{Answer, Failure, Reply};
use crate::probe::Touch;
use std::net::SocketAddr;

/// `happened` is cut here.
pub const HAPPENED_CHARS_MAX: usize = 60;

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// One short sentence for people.
    pub happened: String,
    /// Was the promise kept?
    pub held: bool,
}

impl Decision {
    /// The promise was kept.
    pub fn held(happened: impl AsRef<str>) -> Self {
        Self { happened: tidy(happened.as_ref()), held: true }
    }

    /// The promise was broken, or could not be tried.
    pub fn broken(happened: impl AsRef<str>) -> Self {
        Self { happened: tidy(happened.as_ref()), held: false }
    }

    /// The first that is broken speaks for all of them; without one, the last.
    pub fn worst(all: Vec<Self>) -> Self {
        let fallback = all.last().cloned().unwrap_or_else(|| Self::broken("nothing was tried"));
        all.into_iter().find(|decision| !decision.held).unwrap_or(fallback)
    }
}

/// A control: the world's `host` answers with success.
pub fn works(answer: &Answer, host: &str) -> Decision {
    match answer {
        Ok(reply) if reply.world() == Some(host) && reply.status / 100 == 2 => {
            Decision::held(format!("{} from {host}", reply.status))
        }
        Ok(reply) => Decision::broken(said(reply)),
        Err(failure) => Decision::broken(why(failure)),
    }
}

/// Nothing of the world may answer, and what answers must say no.
pub fn refused(answer: &Answer) -> Decision {
    match answer {
        Ok(reply) if reply.world().is_some() => Decision::broken(format!("it arrived: {}", said(reply))),
        Ok(reply) if reply.status / 100 == 4 => Decision::held(said(reply)),
        Ok(reply) => Decision::broken(said(reply)),
        Err(failure) => Decision::held(why(failure)),
    }
}

/// A spoofed SNI may bring an answer of the allowed host, as long as the spoofed name did not arrive there.
pub fn spoofed_sni(answer: &Answer, spoofed: &str) -> Decision {
    match answer {
        Ok(reply) if reply.world() == Some("api") && reply.header("x-world-sni") != Some(spoofed) => {
            Decision::held("the allowed host answered, by its own name")
        }
        other => refused(other),
    }
}

/// Does the agent's own key stand in what the upstream got?
pub fn own_key(answer: &Answer, key: &str) -> Decision {
    match answer {
        Ok(reply) if reply.text().contains(key) => Decision::broken("the agent's own key reached the upstream"),
        Ok(reply) if reply.world().is_some() && reply.status / 100 == 2 => {
            Decision::held(format!("{}, the upstream saw none of it", reply.status))
        }
        other => refused(other),
    }
}

/// A reply that echoes the credential must come, and come masked.
pub fn masked(answer: &Answer, mut finds: impl FnMut(&[u8]) -> bool) -> Decision {
    match answer {
        Ok(reply) if finds(reply.text().as_bytes()) => Decision::broken("the credential stands in the reply"),
        answer => match works(answer, "api") {
            Decision { held: true, .. } => Decision::held("200, the credential is masked"),
            Decision { happened, .. } => Decision::broken(format!("not tried: {happened}")),
        },
    }
}

/// No address may answer a connect, not even with a refusal.
pub fn unanswered(touched: &[(SocketAddr, Touch)]) -> Decision {
    let answer = touched.iter().find_map(|(address, touch)| match touch {
        Touch::Open => Some(format!("{address} accepted")),
        Touch::Refused => Some(format!("{address} answered with a refusal")),
        Touch::Silent | Touch::NoWay(_) => None,
    });
    match (answer, touched.last()) {
        (Some(answer), _) => Decision::broken(answer),
        (None, None) => Decision::broken("nothing was tried"),
        (None, Some((_, Touch::NoWay(error)))) => {
            Decision::held(format!("{}: {}", tries(touched.len()), lower(&error.to_string())))
        }
        (None, Some(_)) => Decision::held(format!("{}: no answer", tries(touched.len()))),
    }
}

/// Of a sidecar's ports only the documented ones may be open.
pub fn documented(touched: &[(SocketAddr, Touch)], documented: &[u16]) -> Decision {
    let open = |touch: &Touch| *touch == Touch::Open;
    match touched.iter().find(|(address, touch)| open(touch) && !documented.contains(&address.port())) {
        Some((address, _)) => Decision::broken(format!("{address} is open")),
        None if touched.is_empty() => Decision::broken("not tried: no sidecar was found"),
        None => {
            let found = touched.iter().filter(|(_, touch)| open(touch)).count();
            Decision::held(format!("{} ports, {found} open, all documented", touched.len()))
        }
    }
}

/// What sending a datagram came to. To have sent is no breach by itself: the listener's side tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datagram {
    /// The kernel took it.
    Left,
    /// Something came back.
    Answered(SocketAddr),
    /// The kernel did not take it.
    Failed(String),
}

/// Datagrams: an answer is a breach.
pub fn datagrams(sent: &[Datagram]) -> Decision {
    if let Some(peer) = sent.iter().find_map(|one| if let Datagram::Answered(peer) = one { Some(peer) } else { None }) {
        return Decision::broken(format!("{peer} answered"));
    }
    let passed = sent.iter().filter(|one| **one == Datagram::Left).count();
    match sent.iter().find_map(|one| if let Datagram::Failed(reason) = one { Some(reason) } else { None }) {
        None if sent.is_empty() => Decision::broken("nothing was tried"),
        Some(reason) if passed == 0 => Decision::held(format!("{}: {}", tries(sent.len()), lower(reason))),
        Some(_) | None => Decision::held(format!("{passed} of {} sent, see listener", sent.len())),
    }
}

/// Datagrams that must not even leave.
pub fn unsent(sent: &[Datagram]) -> Decision {
    match sent.iter().find(|one| !matches!(one, Datagram::Failed(_))) {
        Some(Datagram::Left) => Decision::broken("it was sent"),
        _ => datagrams(sent),
    }
}

/// What the kernel must refuse.
pub fn denied<T, E: std::fmt::Display>(outcome: &Result<T, E>) -> Decision {
    match outcome {
        Ok(_) => Decision::broken("it worked"),
        Err(error) => Decision::held(lower(&error.to_string())),
    }
}

/// Where nothing may be found.
pub fn not_found(found: Option<&str>, searched: &str) -> Decision {
    match found {
        Some(place) => Decision::broken(format!("found in {place}")),
        None => Decision::held(format!("not found in {searched}")),
    }
}

/// The lines `CapEff`, `NoNewPrivs` and `Seccomp` of `/proc/self/status`.
pub fn privileges(status: &str) -> Decision {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map_or("absent", str::trim)
    };
    let (caps, new, filter) = (field("CapEff"), field("NoNewPrivs"), field("Seccomp"));
    let words = format!("capabilities {caps}, no-new-privs {new}, seccomp {filter}");
    let none = !caps.is_empty() && caps.bytes().all(|digit| digit == b'0');
    if none && new == "1" && filter == "2" { Decision::held(words) } else { Decision::broken(words) }
}

fn tries(count: usize) -> String {
    if count == 1 { "1 try".to_owned() } else { format!("{count} tries") }
}

fn said(reply: &Reply) -> String {
    let text = String::from_utf8_lossy(&reply.body);
    let line = text.lines().next().unwrap_or_default();
    format!("{} {line}", reply.status)
}

fn why(failure: &Failure) -> String {
    match failure {
        Failure::Connect(reason) => format!("no connection: {}", lower(reason)),
        Failure::Tls(reason) => format!("no TLS: {}", lower(reason)),
        Failure::Silent(reason) => format!("no answer: {}", lower(reason)),
    }
}

/// The system's words in our style: `EPERM: Operation not permitted (os error 1)` -> `operation not permitted`.
fn lower(reason: &str) -> String {
    let reason = reason.split(" (os error").next().unwrap_or_default();
    let code = reason.split_once(": ").filter(|(code, _)| code.starts_with('E') && *code == code.to_ascii_uppercase());
    let reason = code.map_or(reason, |(_, words)| words);
    let mut letters = reason.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// One line, printable, not too long: some of it is foreign text.
fn tidy(text: &str) -> String {
    let printable: String = text.chars().map(|c| if c.is_control() || is_bidi(c) { ' ' } else { c }).collect();
    let words = printable.trim();
    if words.chars().count() <= HAPPENED_CHARS_MAX {
        return words.to_owned();
    }
    words.chars().take(HAPPENED_CHARS_MAX - 1).chain(std::iter::once('…')).collect()
}

fn is_bidi(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::{
        Datagram, Decision, HAPPENED_CHARS_MAX, datagrams, denied, documented, masked, own_key, privileges, refused,
        spoofed_sni, unanswered, unsent, works,
    };
    use crate::http::{Answer, Failure, Reply};
    use crate::probe::Touch;
    use rustix::io::Errno;

    fn reply(status: u16, world: Option<&str>, body: &str) -> Answer {
        let headers = world.map(|host| ("x-world".to_owned(), host.to_owned())).into_iter().collect();
        Ok(Reply { status, headers, body: body.as_bytes().to_vec() })
    }

    fn silent() -> Answer {
        Err(Failure::Silent("closed without an answer".to_owned()))
    }

    #[test]
    fn a_control_needs_the_right_host_and_a_success() {
        assert!(works(&reply(200, Some("api"), ""), "api").held);
        for answer in [reply(200, None, ""), reply(200, Some("attacker"), ""), reply(401, Some("api"), ""), silent()] {
            assert!(!works(&answer, "api").held, "{answer:?}");
        }
    }

    #[test]
    fn a_refusal_is_a_no_from_somebody_else_than_the_world() {
        for answer in [reply(403, None, "domain not in allowlist"), reply(404, None, ""), silent()] {
            assert!(refused(&answer).held, "{answer:?}");
        }
        // 502: somebody tried to get there. 401 of the world: it arrived.
        for answer in [reply(200, None, ""), reply(502, None, ""), reply(302, None, ""), reply(401, Some("api"), "")] {
            assert!(!refused(&answer).held, "{answer:?}");
        }
    }

    #[test]
    fn a_spoofed_name_must_not_arrive() {
        let arrived = |sni: &str| {
            let mut reply = reply(200, Some("api"), "").unwrap();
            reply.headers.push(("x-world-sni".to_owned(), sni.to_owned()));
            Ok(reply)
        };
        assert!(spoofed_sni(&arrived("files.example"), "attacker.example").held);
        assert!(!spoofed_sni(&arrived("attacker.example"), "attacker.example").held);
        assert!(!spoofed_sni(&reply(200, Some("attacker"), ""), "attacker.example").held);
        assert!(spoofed_sni(&silent(), "attacker.example").held);
    }

    #[test]
    fn own_keys_and_masks() {
        assert!(own_key(&reply(200, Some("api"), "{\"authorization\":\"***\"}"), "agent-key").held);
        assert!(own_key(&reply(403, None, ""), "agent-key").held);
        assert!(!own_key(&reply(200, Some("api"), "{\"x-api-key\":\"agent-key\"}"), "agent-key").held);

        let finds = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains("secret");
        assert!(masked(&reply(200, Some("api"), "******"), finds).held);
        assert!(!masked(&reply(200, Some("api"), "a secret"), finds).held);
        assert!(!masked(&reply(502, None, ""), finds).held, "what could not be tried has not held");
        assert!(!masked(&silent(), finds).held);
    }

    #[test]
    fn no_address_may_answer_not_even_with_a_refusal() {
        let at = "10.0.0.1:22".parse().unwrap();
        for (touch, held) in [
            (Touch::Open, false),
            (Touch::Refused, false),
            (Touch::Silent, true),
            (Touch::NoWay(Errno::NETUNREACH), true),
        ] {
            assert_eq!(unanswered(&[(at, touch)]).held, held, "{touch:?}");
        }
        assert!(!unanswered(&[]).held);
        assert!(documented(&[(at, Touch::Open)], &[22]).held);
        assert!(!documented(&[(at, Touch::Open)], &[9099]).held);
        assert!(documented(&[(at, Touch::Refused)], &[9099]).held);
        assert!(!documented(&[], &[22]).held);
    }

    #[test]
    fn sending_is_no_breach_an_answer_is() {
        let failed = Datagram::Failed("Operation not permitted (os error 1)".to_owned());
        let answered = Datagram::Answered("10.0.0.1:53".parse().unwrap());
        assert_eq!(datagrams(&[Datagram::Left, failed.clone()]), Decision::held("1 of 2 sent, see listener"));
        assert_eq!(datagrams(std::slice::from_ref(&failed)), Decision::held("1 try: operation not permitted"));
        assert!(!datagrams(&[Datagram::Left, answered.clone()]).held);
        assert!(!datagrams(&[]).held);
        assert!(unsent(std::slice::from_ref(&failed)).held);
        assert!(!unsent(&[failed, Datagram::Left]).held);
        assert!(!unsent(&[answered]).held);
    }

    #[test]
    fn the_kernel_says_no() {
        let error = std::io::Error::from_raw_os_error(1);
        assert_eq!(denied::<(), _>(&Err(error)), Decision::held("operation not permitted"));
        assert_eq!(denied::<(), _>(&Err(nix::errno::Errno::EPERM)), Decision::held("operation not permitted"));
        assert!(!denied::<_, std::io::Error>(&Ok(())).held);
        let status = "CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        assert!(privileges(status).held);
        for (from, to) in [("0000\n", "0001\n"), ("Privs:\t1", "Privs:\t0"), ("comp:\t2", "comp:\t0"), ("CapEff", "X")]
        {
            assert!(!privileges(&status.replacen(from, to, 1)).held, "{to}");
        }
    }

    #[test]
    fn foreign_text_is_one_short_printable_line() {
        let decision = Decision::broken(format!("403 \u{1b}[31mred\u{202e} {}", "x".repeat(100)));
        assert_eq!(decision.happened.chars().count(), HAPPENED_CHARS_MAX);
        assert!(!decision.happened.contains(['\u{1b}', '\u{202e}', '\n']));
    }

    #[test]
    fn the_worst_speaks() {
        let all = vec![Decision::held("a"), Decision::broken("b"), Decision::held("c")];
        assert_eq!(Decision::worst(all), Decision::broken("b"));
        assert_eq!(Decision::worst(vec![Decision::held("a"), Decision::held("c")]), Decision::held("c"));
        assert!(!Decision::worst(Vec::new()).held);
    }
}
