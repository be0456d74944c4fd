//! One request and its reply: does what was decided, step by step, and decides nothing itself.

use crate::alarm::Alarm;
use crate::body::{Exchange, Reply, Stream};
use crate::bridge::{self, Bridge};
use crate::cut::Cut;
use crate::decide::{Decision, Head, decide};
use crate::inject::{announced_trailers, request_headers};
use crate::live::{Live, Use};
use crate::log::Entry;
use crate::pool::{Answer, Origin};
use crate::refuse::Refusal;
use crate::reply::{ReplyHead, reply_head, reply_headers};
use crate::server::Server;
use crate::table::Route;
use crate::upload::{Progress, Upload};
use crate::upstream::Failure;
use crate::websocket::{self, Upgrade};
use bottle_sidecar::chain;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header, request};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Poll, ready};

/// Why there is no reply to pass on.
struct Setback {
    refusal: Refusal,
    /// For the log alone.
    reason: String,
}

impl From<Refusal> for Setback {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, reason: refusal.to_string() }
    }
}

impl From<Failure> for Setback {
    fn from(failure: Failure) -> Self {
        Self { refusal: failure.refusal(), reason: chain(&failure) }
    }
}

/// A request that may pass, on its way.
struct Passage {
    live: Arc<Live>,
    route: Arc<Route>,
    head: request::Parts,
    target: String,
    upgrade: Upgrade,
    on_upgrade: OnUpgrade,
    sent: Arc<Progress>,
    cut: Cut,
    alarm: Alarm,
}

/// Answers one request of the agent; `alarm` is its connection's.
pub async fn answer(server: &Server, alarm: Alarm, request: Request<Incoming>) -> Response<Reply> {
    let mut entry = Entry::new(server.log.clone(), request.method().as_str(), request.uri().path());
    let mut reply = match pass(server, alarm, request, &mut entry).await {
        Ok((passage, answer)) => finish(*passage, *answer, entry),
        Err(setback) => refuse(setback, entry),
    };
    // What is there already goes out together with the head.
    poll_fn(|cx| {
        reply.body_mut().begin(cx);
        Poll::Ready(())
    })
    .await;
    reply
}

/// From the agent's request to the upstream's answer.
async fn pass(
    server: &Server,
    alarm: Alarm,
    mut request: Request<Incoming>,
    entry: &mut Entry,
) -> Result<(Box<Passage>, Box<Answer>), Setback> {
    let live = server.live();
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let seen = Head { method: &head.method, uri: &head.uri, version: head.version, headers: &head.headers };
    let (route, target, upgrade) = match decide(&live.table, seen) {
        Decision::Forward { route, target, upgrade } => (route, target, upgrade),
        Decision::Refuse { refusal, route } => {
            entry.took_route(&route);
            return Err(refusal.into());
        }
    };
    entry.took_route(&route.path);
    entry.holds(server.place(live.limits.requests).ok_or(Refusal::Busy)?);
    if body.size_hint().lower() > live.limits.body_bytes {
        return Err(Failure::TooLong(live.limits.body_bytes).into());
    }
    let mut upload = Upload::new(body, live.limits.idle, live.limits.body_bytes)
        .with_trailers(announced_trailers(&live.table, &head.headers));
    if route.credential.as_ref().is_some_and(|credential| credential.refreshable) {
        upload = upload.keep_copy();
    }
    // The last look: what is refused after this was forwarded, or tried to be.
    match live.take_use(&route) {
        Use::Any => {}
        Use::TheOne => entry.uses_up(),
        Use::Gone => return Err(Refusal::UsedUp.into()),
    }
    if route.credential.is_some() {
        entry.used_credential();
    }
    let (sent, cut) = (upload.progress(), live.cut_of(&route));
    // Boxed: it passes several hands.
    let mut passage = Box::new(Passage { live, route, head, target, upgrade, on_upgrade, sent, cut, alarm });
    let answer = passage.send(upload).await?;
    if answer.response.status() != StatusCode::UNAUTHORIZED {
        return Ok((passage, answer));
    }
    let answer = match Box::pin(passage.renew(server)).await? {
        Some(upload) => {
            drop(answer);
            passage.send(upload).await?
        }
        None => answer,
    };
    Ok((passage, answer))
}

impl Passage {
    async fn send(&mut self, upload: Upload) -> Result<Box<Answer>, Setback> {
        let Some(origin) = self.live.origins.get(&self.route.upstream.origin).cloned() else {
            return Err(Setback { refusal: Refusal::Upstream, reason: "the route has no origin".into() });
        };
        let request = self.request(&origin, upload)?;
        let (sent, limit) = (&*self.sent, self.live.limits.reply);
        // Pinned here, once: each function that takes a future by value has it twice.
        let mut exchange = pin!(async {
            match self.upgrade {
                Upgrade::None => origin.send(request).await,
                Upgrade::WebSocket => Box::pin(origin.send_upgrade(request)).await,
            }
        });
        let (cut, alarm) = (&mut self.cut, &self.alarm);
        let answer = poll_fn(|cx| {
            if cut.is_cut() {
                return Poll::Ready(Err(Failure::Cut));
            }
            if let Poll::Ready(answer) = exchange.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            if cut.poll_cut(cx).is_ready() {
                return Poll::Ready(Err(Failure::Cut));
            }
            // The limit begins anew with every chunk that the agent sends.
            ready!(alarm.poll_at(cx, sent.last() + limit));
            Poll::Ready(Err(Failure::HeadTime(limit)))
        });
        Ok(answer.await?)
    }

    fn request(&self, origin: &Origin, upload: Upload) -> Result<Request<Upload>, Setback> {
        let unwritable = |_| Setback { refusal: Refusal::Upstream, reason: "the target is no url".into() };
        let uri = Uri::builder().path_and_query(&*self.target);
        let uri = if origin.wants_absolute_form() {
            let upstream = &self.route.upstream;
            uri.scheme(upstream.origin.scheme.as_str()).authority(upstream.host_header.as_bytes()).build()
        } else {
            uri.build()
        };
        let mut request = Request::new(upload);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = uri.map_err(unwritable)?;
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = request_headers(&self.live.table, &self.route, &self.head.headers, self.upgrade);
        Ok(request)
    }

    /// The upstream does not take the credential: is there another, and can the request be sent once more? Then it goes by
    /// the table that is in force now.
    async fn renew(&mut self, server: &Server) -> Result<Option<Upload>, Setback> {
        let route = self.route.clone();
        let Some(credential) = route.credential.as_ref().filter(|credential| credential.refreshable) else {
            return Ok(None);
        };
        let again = self.sent.again();
        let mut turns = server.refresh.turns();
        let renewed = || {
            let live = server.live();
            let next = live.table.routes.iter().find(|next| route.leads_where(next))?.clone();
            route.is_renewed_by(&next).then_some((live, next))
        };
        let answered = async {
            loop {
                if turns.changed().await.is_err() {
                    return None;
                }
                let renewed = renewed();
                if renewed.is_some() || !server.refresh.is_open(&credential.secret) {
                    return renewed;
                }
            }
        };
        let found = match renewed() {
            Some(found) => Some(found),
            // Asked even if this request cannot profit: the next one will.
            None if !server.refresh.ask(&server.log, &credential.secret, &route.path) || again.is_none() => None,
            None => tokio::select! {
                biased;
                () = poll_fn(|cx| self.cut.poll_cut(cx)) => return Err(Failure::Cut.into()),
                answered = tokio::time::timeout(server.refresh.within(), answered) => answered.ok().flatten(),
            },
        };
        let (Some((live, next)), Some(upload)) = (found, again) else { return Ok(None) };
        (self.cut, self.sent) = (live.cut_of(&next), upload.progress());
        (self.live, self.route) = (live, next);
        Ok(Some(upload))
    }
}

/// From the upstream's answer to what the agent gets.
fn finish(passage: Passage, answer: Answer, mut entry: Entry) -> Response<Reply> {
    let Passage { live, route, head, upgrade, on_upgrade, sent, cut, .. } = passage;
    let Answer { mut response, lease } = answer;
    let idle = live.limits.idle;
    if upgrade == Upgrade::WebSocket && response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let asked = request_headers(&live.table, &route, &head.headers, upgrade);
        if !websocket::is_answer(&asked, response.headers()) {
            let reason = "the handshake's answer is none".into();
            return refuse(Setback { refusal: Refusal::Upstream, reason }, entry);
        }
        let upstream = hyper::upgrade::on(&mut response);
        let mut headers = reply_headers(&route, response.headers());
        headers.remove(header::CONTENT_LENGTH);
        websocket::reply_headers(&mut headers);
        entry.answered(StatusCode::SWITCHING_PROTOCOLS);
        let forms = route.credential.as_ref().map(|credential| credential.forms.clone());
        tokio::spawn(bridge::run(Bridge { agent: on_upgrade, upstream, forms, idle, cut, entry }));
        let mut reply = Response::new(Reply::Upgraded);
        *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *reply.headers_mut() = headers;
        return reply;
    }
    let (head, body) = response.into_parts();
    let ReplyHead { headers, coding } = match reply_head(&route, head.status, &head.headers) {
        Ok(head) => head,
        Err(refusal) => return refuse(refusal.into(), entry),
    };
    entry.answered(head.status);
    let stream = Stream::new(body, Exchange { route, coding, lease, sent, idle, cut, entry });
    let mut reply = Response::new(Reply::Stream(Box::new(stream)));
    *reply.status_mut() = head.status;
    *reply.headers_mut() = headers;
    reply
}

fn refuse(Setback { refusal, reason }: Setback, mut entry: Entry) -> Response<Reply> {
    entry.answered(refusal.status());
    entry.failed(|| reason);
    let text = Bytes::from_static(refusal.sentence().as_bytes());
    let mut response = Response::new(Reply::Fixed { text: Some(text), entry });
    *response.status_mut() = refusal.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
