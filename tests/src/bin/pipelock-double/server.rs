//! The listener on the port that the agent knows: tunnels, forwarded requests, and pipelock's own endpoints.

use crate::answer::{self, Body};
use crate::state::Shared;
use crate::{connect, forward};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// A client has this long to send the head of a request.
pub const HEAD_WITHIN: Duration = Duration::from_secs(30);

/// The version whose contract is kept.
pub const VERSION: &str = "2.3.0";

/// Serves the proxy's port for good.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    accept(listener, move |stream, peer| connection(stream, peer, shared.clone())).await;
}

/// Serves the numbers for good.
pub async fn serve_metrics(listener: TcpListener, shared: Arc<Shared>) {
    accept(listener, move |stream, _| {
        let shared = shared.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let response = metrics(&shared, request.uri().path());
            async move { Ok::<_, Infallible>(answer::dated(response)) }
        });
        async move {
            let io = TokioIo::new(stream);
            // The reader of numbers that goes away early is nobody's concern.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
        }
    })
    .await;
}

async fn accept<F>(listener: TcpListener, mut each: impl FnMut(TcpStream, IpAddr) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Small writes must not wait for one another; without the option they are only slower.
                let _ = stream.set_nodelay(true);
                tokio::spawn(each(stream, peer.ip()));
            }
            // Out of descriptors, most likely: others have to end first.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn connection(stream: TcpStream, peer: IpAddr, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(route(&shared, peer, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .title_case_headers(true)
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    // A client that breaks off has chosen to; what it asked for is in the log already.
    let _ = served.await;
}

async fn route(shared: &Arc<Shared>, peer: IpAddr, request: Request<Incoming>) -> Response<Body> {
    let proxied = request.method() == Method::CONNECT || request.uri().scheme().is_some();
    if shared.is_killed() && (proxied || !matches!(request.uri().path(), "/health" | "/metrics")) {
        let fields = json!({"transport": "http", "endpoint": request.uri().path(), "client_ip": peer.to_string()});
        crate::log::event(crate::log::Level::Info, "kill_switch_deny", "kill switch denied request", fields);
        return answer::dated(answer::killed());
    }
    let enabled = shared.live().config.forward_proxy.enabled;
    if request.method() == Method::CONNECT {
        if !enabled {
            return answer::dated(answer::text(StatusCode::METHOD_NOT_ALLOWED, "CONNECT not supported"));
        }
        let response = connect::handle(shared, peer, request).await;
        // The answer that opens a tunnel has no headers at all.
        return if response.status() == StatusCode::OK { response } else { answer::dated(response) };
    }
    answer::dated(match request.uri().scheme() {
        Some(_) if !enabled => answer::text(StatusCode::METHOD_NOT_ALLOWED, "forward proxy not enabled"),
        Some(_) => forward::handle(shared, peer, request).await,
        None => own(shared, peer, request).await,
    })
}

async fn own(shared: &Arc<Shared>, peer: IpAddr, request: Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/health" => health(shared),
        "/fetch" => forward::fetch(shared, peer, request).await,
        "/ws" => answer::text(StatusCode::NOT_FOUND, "WebSocket proxy not enabled"),
        path @ ("/metrics" | "/stats") if shared.live().config.metrics_listen.is_empty() => metrics(shared, path),
        "/api/v1/killswitch" if request.method() != Method::POST => {
            answer::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
        }
        "/api/v1/killswitch" | "/api/v1/killswitch/status" => {
            answer::text(StatusCode::SERVICE_UNAVAILABLE, "kill switch API not configured (no api_token)")
        }
        _ => answer::text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}

fn health(shared: &Shared) -> Response<Body> {
    let live = shared.live();
    let config = &live.config;
    let value = json!({
        "status": "healthy",
        "version": VERSION,
        "mode": config.mode.name(),
        "uptime_seconds": shared.started.elapsed().as_secs_f64(),
        "dlp_patterns": live.dlp.len(),
        "response_scan_enabled": config.response_scanning.enabled,
        "git_protection_enabled": false,
        "rate_limit_enabled": config.fetch_proxy.monitoring.max_requests_per_minute > 0,
        "forward_proxy_enabled": config.forward_proxy.enabled,
        "websocket_proxy_enabled": config.websocket_proxy.enabled,
        "request_body_scan_enabled": config.request_body_scanning.enabled,
        "tls_interception_enabled": config.tls_interception.enabled,
        "kill_switch_active": shared.is_killed(),
    });
    answer::json(StatusCode::OK, &value)
}

fn metrics(shared: &Shared, path: &str) -> Response<Body> {
    let open = crate::state::TUNNELS_MAX - shared.tunnels.available_permits();
    match path {
        "/metrics" => Response::new(answer::full(format!("pipelock_active_tunnels {open}\n"))),
        "/stats" => answer::json(StatusCode::OK, &json!({"active_tunnels": open})),
        _ => answer::text(StatusCode::NOT_FOUND, "404 page not found"),
    }
}
