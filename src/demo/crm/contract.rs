//! The calls of the contract over HTTP.

use super::engine::{Engine, Op, Reply};
use super::faults::{After, Before};
use super::wire::Peer;
use super::{Server, respond};
use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most records in one listing.
const PAGE: usize = 1_000;
/// A body that is too large is read to its end before it is refused, up to here: a client that is still sending when
/// the connection closes never sees the refusal.
const DRAIN: usize = 256 * 1024 * 1024;
const LOGIN: &str = "<!doctype html><title>Sign in</title><h1>Sign in</h1><p>Your session has ended.</p>";

pub(super) async fn health() -> Response {
    respond(200, "application/json", "{\"status\":\"ok\"}")
}

pub(super) async fn openapi(State(server): State<Arc<Server>>, headers: HeaderMap) -> Response {
    if !server.token_is_right(&headers) {
        return reply(unauthorized());
    }
    respond(200, "application/json", server.engine.model.document.clone())
}

pub(super) async fn upsert(
    State(server): State<Arc<Server>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(entity): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    write(server, peer, Op::Upsert, entity, headers, body).await
}

pub(super) async fn delete(
    State(server): State<Arc<Server>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(entity): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    write(server, peer, Op::Delete, entity, headers, body).await
}

#[derive(Deserialize)]
pub(super) struct Listing {
    after: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(server): State<Arc<Server>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(entity): Path<String>,
    query: Result<Query<Listing>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let call = Call::begin(&server, &peer);
    if !server.token_is_right(&headers) {
        return call.end(unauthorized());
    }
    let plan = server.engine.state().switches.plan();
    if !plan.latency.is_zero() {
        tokio::time::sleep(plan.latency).await;
    }
    if let Some(before) = plan.before {
        return call.fail(before);
    }
    let Ok(Query(Listing { after, limit })) = query else {
        return call.end(Reply::problem(400, "malformed", "after is text and limit a whole number"));
    };
    let limit = limit.unwrap_or(PAGE).clamp(1, PAGE);
    let listed = server.clone().run(move |engine| engine.list(&entity, after.as_deref(), limit)).await;
    call.end_with(listed, plan.after)
}

async fn write(server: Arc<Server>, peer: Peer, op: Op, entity: String, headers: HeaderMap, body: Body) -> Response {
    let call = Call::begin(&server, &peer);
    if !server.token_is_right(&headers) {
        return call.end(unauthorized());
    }
    let plan = server.engine.state().switches.plan();
    let body = match read(&headers, body, server.max_body_bytes).await {
        Ok(body) => body,
        Err(refusal) => return call.end(refusal),
    };
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
    let few = plan.after == Some(After::TooFew);
    let apply = {
        let (server, before, latency) = (server.clone(), plan.before.clone(), plan.latency);
        async move {
            if !latency.is_zero() {
                tokio::time::sleep(latency).await;
            }
            match before {
                Some(before) => Err(before),
                None => Ok(server.run(move |engine| engine.write(op, &entity, key.as_deref(), &body, few)).await),
            }
        }
    };
    let applied = if plan.latency.is_zero() {
        apply.await
    } else {
        // A slow CRM goes on with what it was asked for when the client has gone: that is the point of a late answer.
        match tokio::spawn(apply).await {
            Ok(applied) => applied,
            Err(_) => Ok(Reply::problem(500, "bug", "the write did not come to its end")),
        }
    };
    match applied {
        Err(before) => call.fail(before),
        Ok(reply) => call.end_with(reply, plan.after),
    }
}

/// The body as text: size, type and compression checked.
async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Reply> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = text(CONTENT_TYPE).split(';').next().unwrap_or("").trim();
    let gzip = match text(CONTENT_ENCODING).trim() {
        "" | "identity" => false,
        encoding if encoding.eq_ignore_ascii_case("gzip") => true,
        _ => return Err(Reply::problem(415, "unsupported_encoding", "the body must be plain or gzip")),
    };
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(Reply::problem(415, "unsupported_type", "the body must be application/json"));
    }
    let too_large = || Reply::problem(413, "too_large", &format!("the body is larger than {limit} bytes"));
    let expected = text(CONTENT_LENGTH).parse().unwrap_or(0);
    let mut whole = Vec::with_capacity(expected.min(limit));
    let mut read = 0;
    let mut stream = body.into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Reply::problem(400, "malformed", "the body broke off"))?;
        read += chunk.len();
        if read > DRAIN {
            return Err(too_large());
        }
        if read <= limit {
            whole.extend_from_slice(&chunk);
        }
    }
    if read > limit {
        return Err(too_large());
    }
    if !gzip {
        return Ok(whole.into());
    }
    let mut plain = Vec::with_capacity(whole.len() * 4);
    let mut decoder = flate2::read::MultiGzDecoder::new(&whole[..]).take(limit as u64 + 1);
    match decoder.read_to_end(&mut plain) {
        Ok(_) if plain.len() > limit => Err(too_large()),
        Ok(_) => Ok(plain.into()),
        Err(_) => Err(Reply::problem(400, "malformed", "the body is not gzip")),
    }
}

fn unauthorized() -> Reply {
    Reply::problem(401, "unauthorized", "the token is missing or wrong")
}

fn reply(reply: Reply) -> Response {
    respond(reply.status, "application/json", reply.body)
}

/// A call from its first byte to its answer, counted.
struct Call<'a> {
    engine: &'a Engine,
    in_flight: &'a AtomicU64,
    peer: &'a Peer,
}

impl<'a> Call<'a> {
    fn begin(server: &'a Server, peer: &'a Peer) -> Self {
        let now = server.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        server.max_in_flight.fetch_max(now, Ordering::Relaxed);
        Self { engine: &server.engine, in_flight: &server.in_flight, peer }
    }

    fn count(&self, status: u16, fault: bool) {
        let mut state = self.engine.state();
        *state.counters.requests.entry(status).or_default() += 1;
        state.counters.faults += u64::from(fault);
    }

    fn end(self, answer: Reply) -> Response {
        self.count(answer.status, false);
        reply(answer)
    }

    fn end_with(self, mut answer: Reply, after: Option<After>) -> Response {
        let after = after.filter(|_| answer.status == 200);
        match after {
            Some(After::Drop) => {
                self.count(0, true);
                self.peer.cut_after(0);
            }
            Some(After::Cut) => {
                self.count(0, true);
                // Past the headers, which take about 130 bytes, and into the body.
                self.peer.cut_after(150 + answer.body.len() / 2);
            }
            Some(After::Truncate) => {
                self.count(200, true);
                answer.body.truncate(answer.body.len() / 2);
            }
            Some(After::TooFew) => self.count(200, true),
            None => self.count(200, false),
        }
        reply(answer)
    }

    fn fail(self, before: Before) -> Response {
        match before {
            Before::Drop => {
                self.count(0, true);
                self.peer.cut_after(0);
                reply(Reply::problem(500, "dropped", ""))
            }
            Before::Login => {
                self.count(200, true);
                respond(200, "text/html; charset=utf-8", LOGIN)
            }
            Before::Status { status, retry_after } => {
                self.count(status, true);
                let mut response = reply(Reply::problem(status, "fault_switch", "a fault switch says so"));
                if let Some(value) = retry_after.and_then(|text| HeaderValue::from_str(&text).ok()) {
                    response.headers_mut().insert(RETRY_AFTER, value);
                }
                response
            }
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    /// Whether a request carries the token, if there is one.
    pub(super) fn token_is_right(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("");
        let given = given.strip_prefix("Bearer ").unwrap_or("").trim();
        // Every byte is looked at, however early the first difference: time must not tell where it is.
        given.len() == token.len() && given.bytes().zip(token.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }

    /// Runs `work` on the engine, off the async threads if it may wait for a disk.
    pub(super) async fn run(self: Arc<Self>, work: impl FnOnce(&Engine) -> Reply + Send + 'static) -> Reply {
        if !self.engine.is_slow() {
            return work(&self.engine);
        }
        match tokio::task::spawn_blocking(move || work(&self.engine)).await {
            Ok(reply) => reply,
            Err(_) => Reply::problem(500, "bug", "the call did not come to its end"),
        }
    }
}
