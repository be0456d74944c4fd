//! One request and its reply: does what was decided, step by step, and decides nothing itself.

use crate::body::{Exchange, Fixed, Reply, Stream};
use crate::bridge::{self, Bridge};
use crate::cut::Cut;
use crate::decide::{Decision, Head, decide};
use crate::inject::{announced_trailers, request_headers};
use crate::live::Use;
use crate::log::Entry;
use crate::outgoing::Outgoing;
use crate::pool::Answer;
use crate::refuse::Refusal;
use crate::reply::{ReplyHead, reply_head, reply_headers};
use crate::seat::{Seat, Taken, View};
use crate::upload::{Progress, Upload};
use crate::upstream::Failure;
use crate::websocket::{self, Upgrade};
use bottle_sidecar::chain;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header, request};
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
    seat: Arc<Seat>,
    view: Arc<View>,
    route: Arc<Taken>,
    head: request::Parts,
    target: String,
    upgrade: Upgrade,
    on_upgrade: OnUpgrade,
    sent: Arc<Progress>,
    cut: Cut,
}

/// Answers one request of the connection that `seat` is of.
pub async fn answer(seat: Arc<Seat>, request: Request<Incoming>) -> Response<Reply> {
    let mut entry = Entry::new(seat.clone(), Some(request.method().clone()), request.uri().path());
    let mut reply = match pass(seat, request, &mut entry).await {
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
    seat: Arc<Seat>,
    mut request: Request<Incoming>,
    entry: &mut Entry,
) -> Result<(Box<Passage>, Box<Answer>), Setback> {
    let view = seat.view();
    let on_upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let seen = Head { method: &head.method, uri: &head.uri, version: head.version, headers: &head.headers };
    let (index, target, upgrade) = match decide(&view.table, seen) {
        Decision::Forward { route, target, upgrade } => (route, target, upgrade),
        Decision::Refuse { refusal, route } => {
            route.into_iter().for_each(|index| entry.took_route(seat.take(&view, index)));
            return Err(refusal.into());
        }
    };
    let route = seat.take(&view, index);
    entry.took_route(route.clone());
    entry.holds(seat.place(view.limits.requests).ok_or(Refusal::Busy)?);
    if body.size_hint().lower() > view.limits.body_bytes {
        return Err(Failure::TooLong(view.limits.body_bytes).into());
    }
    let mut upload = Upload::new(body, view.limits.idle, view.limits.body_bytes)
        .with_trailers(announced_trailers(&view.table, &head.headers));
    if route.credential.as_ref().is_some_and(|credential| credential.refreshable) {
        upload = upload.keep_copy();
    }
    // The last look: what is refused after this was forwarded, or tried to be.
    match view.take_use(&route) {
        Use::Any => {}
        Use::TheOne => entry.uses_up(),
        Use::Gone => return Err(Refusal::UsedUp.into()),
    }
    if route.credential.is_some() {
        entry.used_credential();
    }
    let (sent, cut) = (upload.progress(), route.cut());
    // Boxed: it passes several hands.
    let mut passage = Box::new(Passage { seat, view, route, head, target, upgrade, on_upgrade, sent, cut });
    let answer = passage.send(upload).await?;
    if answer.response.status() != StatusCode::UNAUTHORIZED {
        return Ok((passage, answer));
    }
    let answer = match Box::pin(passage.renew()).await? {
        Some(upload) => {
            drop(answer);
            // Rare, and as large as the first: in a box, it is no part of every request.
            Box::pin(passage.send(upload)).await?
        }
        None => answer,
    };
    Ok((passage, answer))
}

impl Passage {
    async fn send(&mut self, upload: Upload) -> Result<Box<Answer>, Setback> {
        let (origin, sent, limit) = (self.route.origin(), &*self.sent, self.view.limits.reply);
        let head = Outgoing {
            table: &self.view.table,
            route: &self.route,
            method: &self.head.method,
            target: &self.target,
            headers: &self.head.headers,
            upgrade: self.upgrade,
        };
        // Pinned here, once: each function that takes a future by value has it twice.
        let mut exchange = pin!(async {
            match head.upgrade {
                Upgrade::None => origin.send(head, upload).await,
                Upgrade::WebSocket => Box::pin(origin.send_upgrade(head, upload)).await,
            }
        });
        let (cut, alarm) = (&mut self.cut, &self.seat.alarm);
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

    /// The upstream does not take the credential: is there another, and can the request be sent once more? Then it goes by
    /// the table that is in force now.
    async fn renew(&mut self) -> Result<Option<Upload>, Setback> {
        let route = self.route.clone();
        let (seat, server) = (&self.seat, &self.seat.server);
        let Some(credential) = route.credential.as_ref().filter(|credential| credential.refreshable) else {
            return Ok(None);
        };
        let again = self.sent.again();
        let mut turns = server.refresh.turns();
        let renewed = || {
            let view = seat.view();
            let next = view.table.routes.iter().position(|next| route.leads_where(next))?;
            let next = seat.take(&view, next);
            route.is_renewed_by(&next).then_some((view, next))
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
        let (Some((view, next)), Some(upload)) = (found, again) else { return Ok(None) };
        (self.cut, self.sent) = (next.cut(), upload.progress());
        (self.view, self.route) = (view, next);
        Ok(Some(upload))
    }
}

/// From the upstream's answer to what the agent gets.
fn finish(passage: Passage, answer: Answer, mut entry: Entry) -> Response<Reply> {
    let Passage { view, route, head, upgrade, on_upgrade, sent, cut, .. } = passage;
    let Answer { mut response, lease } = answer;
    let idle = view.limits.idle;
    if upgrade == Upgrade::WebSocket && response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let asked = request_headers(&view.table, &route, &head.headers, upgrade);
        if !websocket::is_answer(&asked, response.headers()) {
            let reason = "the handshake's answer is none".into();
            return refuse(Setback { refusal: Refusal::Upstream, reason }, entry);
        }
        let upstream = hyper::upgrade::on(&mut response);
        let mut headers = reply_headers(&route, std::mem::take(response.headers_mut()));
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
    let ReplyHead { headers, coding } = match reply_head(&route, head.status, head.headers) {
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
    let mut response = Response::new(Reply::Fixed(Box::new(Fixed { text: Some(text), entry })));
    *response.status_mut() = refusal.status();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
