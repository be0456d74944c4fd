//! CONNECT: is the host allowed, and then a tunnel, left closed or opened.

use crate::answer::{self, Body, Refusal};
use crate::guard::{self, No};
use crate::log::{self, Level};
use crate::state::{Asked, Live, Place, Shared};
use crate::tunnel::{self, Rewound};
use crate::{inspect, intercept, upstream};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

/// A tunnel that may be.
pub struct Tunnel {
    pub host: String,
    pub port: u16,
    pub live: Arc<Live>,
    pub asked: Asked,
    pub opened: Instant,
}

/// Answers CONNECT; the tunnel goes on by itself.
pub async fn handle(shared: &Arc<Shared>, peer: IpAddr, mut request: Request<Incoming>) -> Response<Body> {
    let Some(authority) = request.uri().authority().filter(|a| !a.host().is_empty()) else {
        return answer::text(StatusCode::BAD_REQUEST, "missing target host");
    };
    let host = guard::canonical(authority.host());
    let port = authority.port_u16().unwrap_or(443);
    let asked =
        Asked { peer, id: shared.request_id(), method: "CONNECT".into(), place: Place::Target(join(&host, port)) };
    let tunnel = Tunnel { host, port, live: shared.live(), asked, opened: Instant::now() };
    match open(shared, &tunnel, &request).await {
        Err(refusal) => refusal.answer(&tunnel.asked),
        Ok((permit, server)) => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(carry(shared.clone(), tunnel, permit, server, upgrade));
            let mut response = Response::new(answer::full(""));
            response.extensions_mut().insert(hyper::ext::ReasonPhrase::from_static(b"Connection Established"));
            response
        }
    }
}

/// `host:port`, with brackets where the host has colons.
pub fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn open(
    shared: &Arc<Shared>,
    tunnel: &Tunnel,
    request: &Request<Incoming>,
) -> Result<(OwnedSemaphorePermit, TcpStream), Refusal> {
    let live = &tunnel.live;
    let no = |no: No| Refusal::blocked("CONNECT blocked", no);
    let bracketed = if tunnel.host.contains(':') { format!("[{}]", tunnel.host) } else { tunnel.host.clone() };
    let url = format!("https://{bracketed}/");
    let allowed = inspect::url(live, &tunnel.asked, "connect", &url, &tunnel.host).map_err(no);
    let allowed = match allowed {
        Ok(()) => upstream::check(&live.config, &tunnel.host).await.map_err(no),
        Err(refusal) => Err(refusal),
    };
    if let Err(found) = inspect::headers(live, &tunnel.asked, "connect", request.headers()) {
        let refusal = found.outside("CONNECT blocked");
        return Err(Refusal { text: "CONNECT blocked: header DLP match".to_owned(), ..refusal });
    }
    if live.config.enforce {
        allowed?;
    }
    let full = |_| Refusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        text: "too many active tunnels".into(),
        logged: answer::Logged::Nothing,
    };
    let permit = shared.tunnels.clone().try_acquire_owned().map_err(full)?;
    let server = upstream::dial(shared, &tunnel.host, tunnel.port).await;
    Ok((permit, server.map_err(|error| Refusal::failed("tunnel dial failed", error))?))
}

/// The tunnel, from the answer to its end: its time is up, everything is denied, or both sides are done.
async fn carry(
    shared: Arc<Shared>,
    tunnel: Tunnel,
    permit: OwnedSemaphorePermit,
    server: TcpStream,
    upgrade: OnUpgrade,
) {
    let Ok(upgraded) = upgrade.await else { return };
    let limit = Duration::from_secs(tunnel.live.config.forward_proxy.max_tunnel_seconds);
    let mut client = Rewound::new(TokioIo::new(upgraded));
    if tunnel.live.config.forward_proxy.sni_verification
        && let Err((category, name)) = tunnel::verify_sni(&mut client, &tunnel.host).await
    {
        let fields = json!({
            "connect_host": tunnel.host, "sni_host": name, "category": category,
            "client_ip": tunnel.asked.peer.to_string(), "request_id": tunnel.asked.id,
        });
        return log::event(Level::Warn, "sni_mismatch", "SNI verification failed", fields);
    }
    let config = &tunnel.live.config;
    if config.tls_interception.enabled && !guard::passes_through(config, &tunnel.host) {
        // Requests dial for themselves; this connection has only shown that somebody is there.
        drop(server);
        let mut fields = tunnel.asked.fields(false);
        fields["scanner"] = json!("tls_intercept");
        fields["reason"] = json!("TLS MITM interception active");
        fields["score"] = json!(0);
        log::event(Level::Warn, "anomaly", "anomaly detected", fields);
        intercept::run(shared, Arc::new(tunnel), client, limit).await;
    } else {
        pass(&shared, &tunnel, client, server, limit).await;
    }
    drop(permit);
}

async fn pass(
    shared: &Shared,
    tunnel: &Tunnel,
    client: Rewound<TokioIo<hyper::upgrade::Upgraded>>,
    server: TcpStream,
    limit: Duration,
) {
    log::event(Level::Info, "tunnel_open", "tunnel opened", tunnel.asked.fields(false));
    let idle = Duration::from_secs(tunnel.live.config.forward_proxy.idle_timeout_seconds);
    let bytes = AtomicU64::new(0);
    tokio::select! {
        () = tunnel::relay(client, server, idle, &bytes) => {}
        () = tokio::time::sleep(limit) => {}
        () = shared.killed() => {}
    }
    let mut fields = tunnel.asked.fields(false);
    fields["total_bytes"] = json!(bytes.load(Ordering::Relaxed));
    fields["duration_ms"] = json!(tunnel.opened.elapsed().as_secs_f64() * 1000.0);
    log::event(Level::Info, "tunnel_close", "tunnel closed", fields);
}
