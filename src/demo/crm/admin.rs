//! What the page asks for, and the fault switches. No GET changes anything.
//!
//! With a token, every call here carries it. Without one, these calls are for this machine alone: the peer's address
//! must be loopback, the `Host` must be a name of this machine (a page elsewhere that makes its own name point here
//! still sends its own name), and a change must not come from another page (`Origin`).

use super::faults::Faults;
use super::record::Status;
use super::watch::now_ms;
use super::wire::Peer;
use super::{Server, respond};
use crate::demo::crm::engine::Reply;
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN, REFERRER_POLICY};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often those who look are told what is new, and of how many events at most.
const TICK: Duration = Duration::from_millis(250);
const EVENTS: usize = 40;
/// Those who look at the same time.
const WATCHERS: u64 = 64;
/// Records looked at in one search.
const LOOKS: usize = 200_000;

const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

/// The page itself: files without data, open to anybody.
pub(super) fn page() -> Router<Arc<Server>> {
    let file = |kind: &'static str, text: &'static str| {
        get(move || async move {
            let mut response = respond(200, kind, text);
            response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
            response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
            response
        })
    };
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("page/index.html")))
        .route("/app.js", file("text/javascript; charset=utf-8", include_str!("page/app.js")))
        .route("/style.css", file("text/css; charset=utf-8", include_str!("page/style.css")))
        .route("/icon.svg", file("image/svg+xml", include_str!("page/icon.svg")))
}

pub(super) fn router(server: Arc<Server>) -> Router<Arc<Server>> {
    Router::new()
        .route("/admin/stats", get(stats))
        .route("/admin/faults", get(show).post(set).delete(clear))
        .route("/admin/records", get(records))
        .route("/admin/record", get(record))
        .route("/admin/events", get(events))
        .layer(from_fn_with_state(server, guard))
}

async fn guard(
    State(server): State<Arc<Server>>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers();
    let refused = if server.token.is_some() {
        (!server.token_is_right(headers)).then(|| Reply::problem(401, "unauthorized", "the token is missing or wrong"))
    } else if !peer.address.ip().to_canonical().is_loopback() || !is_local(text(headers, HOST.as_str())) {
        let message = "without a token, these calls are for this machine alone; start the server with a token";
        Some(Reply::problem(403, "forbidden", message))
    } else {
        None
    };
    let refused = refused.or_else(|| {
        let foreign = is_foreign(headers) && request.method() != Method::GET;
        foreign.then(|| Reply::problem(403, "foreign_origin", "a page of another origin may not change anything here"))
    });
    match refused {
        Some(refused) => respond(refused.status, "application/json", refused.body),
        None => next.run(request).await,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// Whether a `Host` names this machine.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a browser says that the request comes from a page of another origin.
fn is_foreign(headers: &HeaderMap) -> bool {
    let origin = text(headers, ORIGIN.as_str());
    let same =
        origin.split_once("://").is_some_and(|(_, host)| host.eq_ignore_ascii_case(text(headers, HOST.as_str())));
    !origin.is_empty() && !same
}

fn answer(value: &Value) -> Response {
    respond(200, "application/json", value.to_string())
}

fn reply(reply: Reply) -> Response {
    respond(reply.status, "application/json", reply.body)
}

impl Server {
    fn stats(&self) -> Value {
        let state = self.engine.state();
        let mut entities: BTreeMap<&str, u64> = self.engine.model.names().map(|name| (name, 0)).collect();
        entities.extend(state.counts.iter().map(|(name, count)| (&**name, *count)));
        let records: BTreeMap<&str, u64> = Status::ALL
            .iter()
            .map(|status| (status.name(), state.counters.records.get(status).copied().unwrap_or(0)))
            .collect();
        json!({
            "uptime_ms": u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "now": now_ms(),
            "entities": entities,
            "records": records,
            "requests": state.counters.requests,
            "in_flight": self.in_flight.load(Ordering::Relaxed),
            "max_in_flight": self.max_in_flight.load(Ordering::Relaxed),
            "stale_writes": state.counters.stale_writes,
            "repeated_writes": state.counters.repeated_writes,
            "regressions": state.counters.regressions,
            "replays": state.counters.replays,
            "faults": state.counters.faults,
            "faults_on": !state.switches.faults.are_off(),
            "history": state.history.is_on(),
        })
    }
}

async fn stats(State(server): State<Arc<Server>>) -> Response {
    answer(&server.stats())
}

async fn show(State(server): State<Arc<Server>>) -> Response {
    let faults = server.engine.state().switches.faults.clone();
    answer(&serde_json::to_value(faults).unwrap_or_default())
}

async fn set(State(server): State<Arc<Server>>, headers: HeaderMap, body: Bytes) -> Response {
    // Not a type that a form can send: a browser asks first before it sends this one elsewhere.
    if !text(&headers, CONTENT_TYPE.as_str()).starts_with("application/json") {
        return reply(Reply::problem(415, "unsupported_type", "the switches must come as application/json"));
    }
    match serde_json::from_slice::<Faults>(&body) {
        Ok(faults) => {
            server.engine.state().switches.set(faults);
            show(State(server)).await
        }
        Err(error) => reply(Reply::problem(400, "malformed", &format!("these are no fault switches: {error}"))),
    }
}

async fn clear(State(server): State<Arc<Server>>) -> Response {
    server.engine.state().switches.set(Faults::default());
    show(State(server)).await
}

#[derive(Deserialize)]
struct Find {
    entity: String,
    #[serde(default)]
    q: String,
    after: Option<String>,
    #[serde(default)]
    limit: usize,
}

async fn records(State(server): State<Arc<Server>>, Query(find): Query<Find>) -> Response {
    let limit = if find.limit == 0 { 50 } else { find.limit.min(500) };
    reply(server.run(move |engine| engine.search(&find.entity, find.after.as_deref(), limit, &find.q, LOOKS)).await)
}

#[derive(Deserialize)]
struct One {
    entity: String,
    id: String,
}

async fn record(State(server): State<Arc<Server>>, Query(one): Query<One>) -> Response {
    let found = server.run(move |engine| match engine.record(&one.entity, &one.id) {
        Ok(Some(body)) => Reply { status: 200, body: body.into() },
        Ok(None) => Reply::problem(404, "not_found", "nothing is known of this record"),
        Err(error) => Reply::problem(500, "storage", &error.to_string()),
    });
    reply(found.await)
}

/// Counts itself among the watchers.
struct Watcher {
    server: Arc<Server>,
    seq: u64,
    first: bool,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.server.watchers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Server-sent events: counters and the newest events, four times a second while something happens.
async fn events(State(server): State<Arc<Server>>) -> Response {
    let watcher = Watcher { seq: 0, first: true, server: server.clone() };
    if server.watchers.fetch_add(1, Ordering::Relaxed) >= WATCHERS {
        return reply(Reply::problem(503, "too_many", "too many pages are watching"));
    }
    let stopping = server.stopping.clone();
    let news = stream::unfold((watcher, stopping, 0_u32), |(mut watcher, mut stopping, mut silent)| async move {
        loop {
            if !watcher.first {
                tokio::select! {
                    () = tokio::time::sleep(TICK) => {}
                    // An error means that the server is gone.
                    _ = stopping.wait_for(|stop| *stop) => return None,
                }
            }
            let (seq, events) = {
                let state = watcher.server.engine.state();
                (state.feed.seq, state.feed.since(watcher.seq, EVENTS))
            };
            // A line now and then shows that both ends are still there.
            silent += 1;
            if seq != watcher.seq || watcher.first || silent >= 4 {
                let skipped = (seq - watcher.seq).saturating_sub(events.len() as u64);
                watcher.seq = seq;
                watcher.first = false;
                let news = json!({"stats": watcher.server.stats(), "events": events, "skipped": skipped});
                let line = Bytes::from(format!("data: {news}\n\n"));
                return Some((Ok::<_, std::convert::Infallible>(line), (watcher, stopping, 0)));
            }
        }
    });
    respond(200, "text/event-stream", Body::from_stream(news))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_this_machine_are_told_from_names_that_only_point_here() {
        for host in ["localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8080", "[::1]:8080", "[::1]"]
        {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "10.0.0.1:8080",
            "127.0.0.1.evil.example",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn pages_of_other_origins_are_foreign() {
        let headers = |origin: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("localhost:8080"));
            if !origin.is_empty() {
                headers.insert(ORIGIN, HeaderValue::from_static(origin));
            }
            headers
        };
        assert!(!is_foreign(&headers("")));
        assert!(!is_foreign(&headers("http://localhost:8080")));
        for origin in ["null", "http://evil.example", "http://localhost:8081", "http://localhost:8080.evil.example"] {
            assert!(is_foreign(&headers(origin)), "{origin}");
        }
    }
}
