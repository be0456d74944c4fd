//! The agent's side: takes connections, reads heads, and hands requests over to [`crate::exchange`].
//!
//! Every request is answered, with a reply that has passed [`crate::reply`] and [`crate::mask`] or with a fixed sentence.

use crate::alarm::Alarm;
use crate::connection::{Checked, Gate};
use crate::cut::Knife;
use crate::exchange::answer;
use crate::framing::Framing;
use crate::gathered::Gathered;
use crate::limits::Limits;
use crate::live::Live;
use crate::log::{Entry, Log};
use crate::refresh::Refresh;
use crate::seat::Seat;
use crate::workers::Workers;
use bottle_sidecar::chain;
use http::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// How often connections to upstreams are looked through for those that nobody has used for too long.
const SWEEP_EVERY: Duration = Duration::from_secs(20);

/// What all connections share.
#[derive(Debug)]
pub struct Server {
    live: RwLock<Arc<Live>>,
    /// How often another table was put in force.
    turn: AtomicU64,
    /// Requests in flight.
    requests: AtomicUsize,
    /// Tells that no more requests are taken.
    end: Knife,
    pub(crate) refresh: Refresh,
    pub(crate) log: Log,
}

impl Server {
    /// With its first table.
    pub fn new(live: Live, log: Log) -> Self {
        Self {
            live: RwLock::new(Arc::new(live)),
            turn: AtomicU64::default(),
            requests: AtomicUsize::default(),
            end: Knife::default(),
            refresh: Refresh::default(),
            log,
        }
    }

    /// The table in force.
    pub fn live(&self) -> Arc<Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another table in force. What is open goes on by the old one, unless its route is gone or leads elsewhere.
    pub fn swap(&self, mut next: Live) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        next.keep_open(&live);
        let next = Arc::new(next);
        let old = std::mem::replace(&mut *live, next.clone());
        self.turn.fetch_add(1, Ordering::SeqCst);
        drop(live);
        old.cut_all_but(&next);
        self.refresh.changed(next.renewed_since(&old));
    }

    /// How often another table was put in force.
    pub(crate) fn turn(&self) -> u64 {
        self.turn.load(Ordering::SeqCst)
    }

    /// Both together: whoever puts another table in force counts before anybody sees it.
    pub(crate) fn live_and_turn(&self) -> (Arc<Live>, u64) {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner);
        (live.clone(), self.turn())
    }

    /// One more request is in flight, if these are fewer than `most`.
    pub(crate) fn one_more(&self, most: usize) -> bool {
        let one_more = |now: usize| (now < most).then_some(now + 1);
        self.requests.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
    }

    /// One of them is no more.
    pub(crate) fn one_less(&self) {
        self.requests.fetch_sub(1, Ordering::AcqRel);
    }

    /// Serves until [`Server::end`].
    pub async fn serve(self: Arc<Self>, listener: TcpListener, workers: Workers) {
        let places = Arc::new(Semaphore::new(self.live().limits.connections));
        let mut end = self.end.tells();
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        loop {
            let next = async {
                // The semaphore is never closed, so there is always a place to wait for.
                let place = places.clone().acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                next = next => next,
                _ = sweep.tick() => {
                    self.live().origins.sweep();
                    continue;
                }
                () = poll_fn(|cx| end.poll_cut(cx)) => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let server = self.clone();
                    workers.serve(stream, |stream| async move {
                        server.connection(stream).await;
                        drop(place);
                    });
                }
                // Out of descriptors, or the connection was gone already: the next may do better, but not at once.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Takes no more connections and requests, and waits until those in flight have ended, or the time is over.
    pub async fn end(&self, within: Duration) {
        self.end.cut();
        let ended = async {
            while self.requests.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // Too late is as good as it gets: the process ends.
        let _ = tokio::time::timeout(within, ended).await;
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        // Without it small events wait for the agent's acknowledgement; where it cannot be set they are only slower.
        let _ = stream.set_nodelay(true);
        let Limits { head_bytes, agent_head, idle, .. } = self.live().limits;
        let gate = Arc::new(Gate::default());
        let io = TokioIo::new(Checked::new(Gathered(stream), Framing::new(head_bytes), gate.clone(), idle));
        let alarm = Alarm::default();
        let seat = &Arc::new(Seat::new(self.clone(), alarm.clone()));
        let gate = &gate;
        let service = service_fn(|request| {
            let seat = seat.clone();
            async move {
                let reply = answer(seat, request).await;
                match reply.status() {
                    StatusCode::SWITCHING_PROTOCOLS => gate.upgraded(),
                    _ => gate.answered(),
                }
                Ok::<_, Infallible>(reply)
            }
        });
        let served = http1::Builder::new()
            .timer(alarm)
            .header_read_timeout(agent_head)
            .max_buf_size(head_bytes.max(64 << 10))
            .serve_connection(io, service)
            .with_upgrades();
        let mut served = pin!(served);
        let (mut end, mut replaced) = (self.end.tells(), seat.view().replaced());
        let served = loop {
            tokio::select! {
                biased;
                served = &mut served => break served,
                () = poll_fn(|cx| end.poll_cut(cx)) => {
                    served.as_mut().graceful_shutdown();
                    break served.await;
                }
                // A connection that nobody asks on must not keep an old table with its secrets.
                () = poll_fn(|cx| replaced.poll_cut(cx)) => replaced = seat.view().replaced(),
            }
        };
        let reason = match (gate.doubt(), served) {
            (Some(doubt), _) if !doubt.is_in_body() => doubt.to_string(),
            (_, Err(error)) if error.is_parse() => chain(&error),
            (_, Ok(()) | Err(_)) => return,
        };
        // Such a request never became one; the log has it all the same.
        let mut entry = Entry::new(seat.clone(), None, "");
        entry.answered(StatusCode::BAD_REQUEST);
        entry.failed(|| reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;
    use crate::config::{Auth, Config, Event};
    use std::collections::BTreeMap;
    use std::io::{self, Read as _, Write as _};
    use std::sync::Mutex;

    /// A limit short enough to wait for; whatever it limits here never happens at all, so no clock decides a test.
    const SHORT: Duration = Duration::from_millis(30);

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn limits() -> Limits {
        Limits::parse(&crate::config::Limits::default()).unwrap()
    }

    /// What the agent gets for `request` and the reason in the log, with an upstream that says `says` and then nothing.
    fn exchange(upstream: &str, says: &'static str, limits: Limits, request: &str) -> (String, String) {
        let (reply, events) =
            exchange_with(upstream, says, limits, &Config::closed(([127, 0, 0, 1], 0).into()), request);
        let reason = events.into_iter().find_map(|event| match event {
            Event::Request { reason, .. } => reason,
            _ => None,
        });
        (reply, reason.unwrap_or_default())
    }

    /// The same with all that is logged. What `config` can be asked for anew is put in, and awaited for [`SHORT`].
    fn exchange_with(
        upstream: &str,
        says: &'static str,
        limits: Limits,
        config: &Config,
        request: &str,
    ) -> (String, Vec<Event>) {
        let quiet = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let secret = config.refreshable.first().cloned();
        let config = Config {
            routes: vec![crate::config::Route {
                path: "/".into(),
                upstream: format!("{upstream}://{}", quiet.local_addr().unwrap()),
                auth: if secret.is_some() { Auth::Bearer } else { Auth::None },
                secret,
                inspected: false,
                allow: vec!["* /**".into()],
            }],
            upstream_roots: rcgen::generate_simple_self_signed(vec!["a".into()]).unwrap().cert.pem(),
            ..config.clone()
        };
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = quiet.accept() {
                if !says.is_empty() {
                    // Whoever answers before he is asked speaks no HTTP.
                    stream.read_exact(&mut [0]).unwrap();
                    stream.write_all(says.as_bytes()).unwrap();
                }
                kept.push(stream);
            }
        });
        let out = Shared::default();
        let log = Log::start(out.clone(), || ()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind(config.listen)).unwrap();
        let address = listener.local_addr().unwrap();
        let secrets = config.refreshable.iter().map(|name| (name.clone(), Secret::new("old-secret".into())));
        let live = Live::with_limits(&config, &secrets.collect(), limits).unwrap();
        let mut server = Server::new(live, log.clone());
        server.refresh = Refresh::with_limits(Duration::ZERO, SHORT);
        runtime.spawn(Arc::new(server).serve(listener, Workers::of(vec![runtime.handle().clone()])));
        let mut agent = std::net::TcpStream::connect(address).unwrap();
        agent.write_all(request.as_bytes()).unwrap();
        let mut reply = Vec::new();
        // How the connection ends is not what these tests are about.
        let _ = agent.read_to_end(&mut reply);
        drop(runtime);
        log.flush(Duration::from_secs(10));
        let lines = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        (String::from_utf8(reply).unwrap(), lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

    #[test]
    fn an_upstream_that_is_silent_is_not_waited_for() {
        let limits = Limits { reply: SHORT, ..limits() };
        let (reply, reason) = exchange("http", "", limits, GET);
        assert!(reply.starts_with("HTTP/1.1 504 ") && reply.contains("in time"), "{reply}");
        assert!(reason.starts_with("no reply within"), "{reason}");
    }

    #[test]
    fn a_handshake_that_never_ends_is_not_waited_for() {
        let limits = Limits { connect: SHORT, ..limits() };
        let (reply, reason) = exchange("https", "", limits, GET);
        assert!(reply.starts_with("HTTP/1.1 504 "), "{reply}");
        assert!(reason.starts_with("no connection to 127.0.0.1:"), "{reason}");
    }

    #[test]
    fn a_reply_that_falls_silent_is_cut_and_does_not_look_like_an_end() {
        let limits = Limits { idle: SHORT, ..limits() };
        let says = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n!\r\n";
        let (reply, reason) = exchange("http", says, limits, GET);
        assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("1\r\n!\r\n"), "{reply}");
        assert!(reason.starts_with("nothing came for"), "{reason}");
    }

    #[test]
    fn a_request_that_falls_silent_is_given_up() {
        let limits = Limits { idle: SHORT, ..limits() };
        let begun = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc";
        let (reply, reason) = exchange("http", "", limits, begun);
        assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
        assert_eq!(reason, "the request's body broke off");
    }

    #[test]
    fn a_head_that_never_ends_is_given_up() {
        let limits = Limits { agent_head: SHORT, ..limits() };
        let (reply, _) = exchange("http", "", limits, "GET / HTTP/1.1\r\nHost: a\r\n");
        assert!(!reply.starts_with("HTTP/1.1 2"), "{reply}");
    }

    #[test]
    fn a_keeper_that_does_not_answer_is_not_waited_for() {
        let config = Config { refreshable: ["key".to_owned()].into(), ..Config::closed(([127, 0, 0, 1], 0).into()) };
        let says = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno";
        let (reply, events) = exchange_with("http", says, limits(), &config, GET);
        assert!(reply.starts_with("HTTP/1.1 401 ") && reply.ends_with("\r\n\r\nno"), "{reply}");
        let rejected = Event::Rejected { secret: "key".into(), route: "/".into() };
        assert!(matches!(&events[..], [first, Event::Request { status: 401, .. }] if *first == rejected), "{events:?}");
    }

    #[test]
    fn a_connection_that_nobody_asks_on_does_not_keep_an_old_table() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let closed = Config::closed(([127, 0, 0, 1], 0).into());
        let live = || Live::with_limits(&closed, &BTreeMap::new(), limits()).unwrap();
        let server = Arc::new(Server::new(live(), Log::start(io::sink(), || ()).unwrap()));
        let listener = runtime.block_on(TcpListener::bind(closed.listen)).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(server.clone().serve(listener, Workers::of(vec![runtime.handle().clone()])));
        let mut agent = std::net::TcpStream::connect(address).unwrap();
        let mut ask = || {
            agent.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            let mut reply = [0; 4096];
            let read = agent.read(&mut reply).unwrap();
            assert!(reply[..read].starts_with(b"HTTP/1.1 404 "), "{}", String::from_utf8_lossy(&reply[..read]));
        };
        ask();
        let old = Arc::downgrade(&server.live());
        server.swap(live());
        let began = std::time::Instant::now();
        while old.upgrade().is_some() {
            assert!(began.elapsed() < Duration::from_secs(20), "it is still there");
            std::thread::sleep(Duration::from_millis(2));
        }
        ask();
    }
}
