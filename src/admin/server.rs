//! Both listeners.

use crate::command::{
    AdminCommand, AdminError, AdminReply, CheckpointView, DeadLetterSelection, LedgerPage, Repair, Reply, ResyncRequest,
};
use crate::error::{DaemonKind, Error};
use crate::metrics::Metrics;
use crate::status::{Board, Heartbeat, LIVE_WINDOW, Moment};
use crate::store::Store;
use axum::extract::{Query, Request, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY};
use axum::http::header::{X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// What the listeners need of the daemon.
#[derive(Clone)]
pub struct AdminState {
    /// Where the pipeline publishes.
    pub board: Board,
    /// Its counters.
    pub metrics: Arc<Metrics>,
    /// Its pulse.
    pub heartbeat: Arc<Heartbeat>,
    /// What it remembers, for reading beside it.
    pub store: Arc<Store>,
    /// Its ear.
    pub commands: mpsc::Sender<AdminCommand>,
}

/// A listener that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The TCP address.
    #[error("cannot listen on {address} ({source}); set [observe] listen to a free address")]
    Tcp {
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The admin socket.
    #[error("cannot create the admin socket {} ({source}); set [observe] socket to a writable path of at most 100 bytes", path.display())]
    Socket {
        /// As configured.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl From<BindError> for Error {
    fn from(error: BindError) -> Self {
        Error::new(DaemonKind::Listener, error.to_string())
    }
}

/// Binds the admin socket now and answers on it until `stop` ends.
///
/// The caller holds the tenant's lock (P9), so that a socket found at `path` is a dead daemon's and is replaced. The
/// socket gets its mode before it gets its name: nobody can connect in between.
///
/// # Errors
/// If the socket cannot be created.
pub fn serve_socket(
    path: &Path,
    state: AdminState,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<impl Future<Output = ()> + Send + 'static, BindError> {
    let failed = |source| BindError::Socket { path: path.into(), source };
    let mut staging = path.as_os_str().to_owned();
    staging.push(".new");
    let staging = PathBuf::from(staging);
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    match std::fs::remove_file(&staging) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = tokio::net::UnixListener::bind(&staging).map_err(failed)?;
    std::fs::set_permissions(&staging, std::fs::Permissions::from_mode(0o660)).map_err(failed)?;
    std::fs::rename(&staging, path).map_err(failed)?;
    let path = path.to_owned();
    let app = admin_router(state);
    Ok(async move {
        if let Err(e) = axum::serve(listener, app).with_graceful_shutdown(stop).await {
            tracing::warn!(error = %e, "the admin socket stopped");
        }
        let _ = std::fs::remove_file(&path);
    })
}

/// Binds the TCP listener now (metrics, probes, the status page) and answers on it until `stop` ends. The second value
/// is the address it got (for port 0).
///
/// # Errors
/// If the address cannot be bound.
pub async fn serve_http(
    address: SocketAddr,
    state: AdminState,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(impl Future<Output = ()> + Send + 'static, SocketAddr), BindError> {
    let failed = |source| BindError::Tcp { address, source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let app = public_router(state);
    let serving = async move {
        if let Err(e) = axum::serve(listener, app).with_graceful_shutdown(stop).await {
            tracing::warn!(error = %e, "the HTTP listener stopped");
        }
    };
    Ok((serving, bound))
}

fn admin_router(state: AdminState) -> Router {
    Router::new()
        .route("/v1/pause", post(pause))
        .route("/v1/resume", post(resume))
        .route("/v1/resync", post(resync))
        .route("/v1/checkpoint", get(checkpoint))
        .route("/v1/ledger", get(ledger))
        .route("/v1/dead-letters", get(dead_letters))
        .route("/v1/dead-letters/{id}", get(dead_letter))
        .route("/v1/dead-letters/retry", post(retry_dead_letters))
        .route("/v1/dead-letters/drop", post(drop_dead_letters))
        .route("/v1/repairs", post(repairs))
        .route("/v1/stop", post(stop))
        .route("/v1/status", get(status))
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .fallback(not_found)
        .with_state(state)
}

fn public_router(state: AdminState) -> Router {
    // A page of another origin must not read the tenant's status by pointing its own name at this address, so that the
    // page answers only to names that nobody else can own. Metrics and probes hold nothing worth that, and scrapers use
    // names.
    let page = Router::new()
        .route("/", get(page_html))
        .route("/status.js", get(page_js))
        .route("/status.css", get(page_css))
        .route("/status.json", get(status))
        .layer(middleware::from_fn(own_host_only));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .merge(page)
        .fallback(not_found)
        .layer(middleware::from_fn(only_reads))
        .with_state(state)
}

async fn only_reads(request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        next.run(request).await
    } else {
        let text = "this address only shows; commands go to the admin socket\n";
        (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET, HEAD")], text).into_response()
    }
}

async fn own_host_only(request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    if !names_this_host(host) {
        let text = "this page answers only when it is asked for by IP address or as localhost\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                  base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An IP address or `localhost`, with or without a port: what DNS rebinding cannot forge.
fn names_this_host(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}

async fn not_found() -> Response {
    failure(&AdminError::new("not_found", "there is nothing at this path")).into_response()
}

async fn page_html() -> Response {
    ([(CONTENT_TYPE, "text/html; charset=utf-8")], include_str!("page/status.html")).into_response()
}

async fn page_js() -> Response {
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("page/status.js")).into_response()
}

async fn page_css() -> Response {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("page/status.css")).into_response()
}

async fn status(State(state): State<AdminState>) -> Response {
    Json(state.board.latest()).into_response()
}

async fn metrics(State(state): State<AdminState>) -> Response {
    match state.metrics.render(&state.board.latest()) {
        Ok(page) => ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

/// 200 while the pipeline's own loop turns. A restart helps only where this fails: not with a CRM that is down.
async fn livez(State(state): State<AdminState>) -> Response {
    let age = state.heartbeat.age();
    let text = format!("last turn {:.1} s ago\n", age.as_secs_f64());
    let code = if age < LIVE_WINDOW { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, text).into_response()
}

/// 200 while changes flow end to end, or the source is quiet.
async fn readyz(State(state): State<AdminState>) -> Response {
    let mut reasons = state.board.latest().not_ready(Moment::now());
    if state.heartbeat.age() >= LIVE_WINDOW {
        reasons.push("the pipeline's loop does not turn".into());
    }
    if reasons.is_empty() {
        (StatusCode::OK, "ready\n".to_owned()).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response()
    }
}

async fn pause(State(state): State<AdminState>) -> Response {
    ask(&state, AdminCommand::Pause).await
}

async fn resume(State(state): State<AdminState>) -> Response {
    ask(&state, AdminCommand::Resume).await
}

async fn stop(State(state): State<AdminState>) -> Response {
    ask(&state, AdminCommand::Stop).await
}

async fn resync(State(state): State<AdminState>, Json(request): Json<ResyncRequest>) -> Response {
    ask(&state, |reply| AdminCommand::Resync(request, reply)).await
}

async fn retry_dead_letters(State(state): State<AdminState>, Json(which): Json<DeadLetterSelection>) -> Response {
    ask(&state, |reply| AdminCommand::RetryDeadLetters(which, reply)).await
}

async fn drop_dead_letters(State(state): State<AdminState>, Json(which): Json<DeadLetterSelection>) -> Response {
    ask(&state, |reply| AdminCommand::DropDeadLetters(which, reply)).await
}

async fn repairs(State(state): State<AdminState>, Json(repairs): Json<Vec<Repair>>) -> Response {
    ask(&state, |reply| AdminCommand::QueueRepairs(repairs, reply)).await
}

/// A page of dead letters.
#[derive(serde::Deserialize)]
struct DeadLetterQuery {
    entity: Option<String>,
    after: Option<u64>,
    limit: Option<usize>,
}

async fn dead_letters(State(state): State<AdminState>, Query(query): Query<DeadLetterQuery>) -> Response {
    let limit = query.limit.unwrap_or(1000).min(10_000);
    read(&state, move |store| store.dead_letters(query.entity.as_deref(), query.after, limit)).await
}

async fn dead_letter(State(state): State<AdminState>, axum::extract::Path(id): axum::extract::Path<u64>) -> Response {
    read(&state, move |store| store.dead_letter(id)).await
}

/// A page of the ledger, by rule and then by external id.
#[derive(serde::Deserialize)]
struct LedgerQuery {
    rule: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

async fn ledger(State(state): State<AdminState>, Query(query): Query<LedgerQuery>) -> Response {
    let limit = query.limit.unwrap_or(1000).min(20_000);
    read(&state, move |store| LedgerPage::of(store, query.rule.as_deref(), query.after.as_deref(), limit)).await
}

async fn checkpoint(State(state): State<AdminState>) -> Response {
    read(&state, CheckpointView::of).await
}

/// Reads from the store, off the runtime's threads.
async fn read<T: Serialize + Send + 'static>(
    state: &AdminState,
    f: impl FnOnce(&Store) -> crate::store::Result<T> + Send + 'static,
) -> Response {
    let store = state.store.clone();
    match tokio::task::spawn_blocking(move || f(&store)).await {
        Ok(Ok(value)) => Json(value).into_response(),
        Ok(Err(error)) => {
            let hint = error.hint();
            let error = AdminError { hint, ..AdminError::new("store", error.to_string()) };
            failure(&error).into_response()
        }
        Err(_) => failure(&AdminError::new("store", "reading the store failed")).into_response(),
    }
}

async fn ask<T: Serialize>(state: &AdminState, command: impl FnOnce(Reply<T>) -> AdminCommand) -> Response {
    let (reply, answer) = oneshot::channel();
    let stopping = || AdminError::new("stopping", "the daemon is stopping and takes no more commands");
    let answer: AdminReply<T> = match state.commands.send(command(reply)).await {
        Ok(()) => answer.await.unwrap_or_else(|_| Err(stopping())),
        Err(_) => Err(stopping()),
    };
    match answer {
        Ok(value) => Json(value).into_response(),
        Err(error) => failure(&error).into_response(),
    }
}

fn failure(error: &AdminError) -> (StatusCode, Json<&AdminError>) {
    let code = match error.code.as_str() {
        "not_found" => StatusCode::NOT_FOUND,
        "stopping" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CONFLICT,
    };
    (code, Json(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{Client, ClientError, ResyncPlan, ResyncScope};
    use crate::status::StatusReport;
    use crate::store::{DeadLetter, Step, WriteOp};
    use tidemark_contract::RowKey;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn state(dir: &tempfile::TempDir) -> (AdminState, mpsc::Receiver<AdminCommand>) {
        let (commands, received) = mpsc::channel(4);
        let store = Store::open(dir.path()).expect("a new store");
        let state = AdminState {
            board: Board::new(StatusReport::starting("acme", "postgres")),
            metrics: Arc::new(Metrics::new().expect("names are well formed")),
            heartbeat: Arc::default(),
            store: Arc::new(store),
            commands,
        };
        (state, received)
    }

    async fn raw(address: SocketAddr, request: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("listens");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read");
        answer
    }

    async fn http(state: AdminState) -> SocketAddr {
        let listen = "127.0.0.1:0".parse().expect("an address");
        let (serving, address) = serve_http(listen, state, std::future::pending()).await.expect("a free port");
        tokio::spawn(serving);
        address
    }

    #[test]
    fn only_names_that_nobody_else_can_own_are_ours() {
        for host in ["127.0.0.1:9464", "localhost", "LOCALHOST:80", "[::1]:9464", "[::1]", "10.1.2.3"] {
            assert!(names_this_host(host), "{host}");
        }
        for host in ["", "evil.example", "evil.example:9464", "127.0.0.1.evil.example:80", "localhost.evil.example"] {
            assert!(!names_this_host(host), "{host}");
        }
    }

    #[tokio::test]
    async fn the_page_refuses_foreign_names_and_sets_its_policy() {
        let dir = tempfile::tempdir().expect("a directory");
        let address = http(state(&dir).0).await;
        let get = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let page = raw(address, &get("127.0.0.1")).await;
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        assert!(page.contains("content-security-policy: default-src 'none'"), "{page}");
        assert!(raw(address, &get("evil.example")).await.starts_with("HTTP/1.1 403"));
        let metrics = "GET /metrics HTTP/1.1\r\nHost: scraped.example\r\nConnection: close\r\n\r\n";
        let metrics = raw(address, metrics).await;
        assert!(metrics.starts_with("HTTP/1.1 200") && metrics.contains("tidemark_state{state=\"starting\"} 1"));
    }

    #[tokio::test]
    async fn the_tcp_side_changes_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let (state, mut received) = state(&dir);
        let address = http(state).await;
        let post = "POST /v1/pause HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        assert!(raw(address, post).await.starts_with("HTTP/1.1 405"));
        let get = "GET /v1/pause HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        assert!(raw(address, get).await.starts_with("HTTP/1.1 404"));
        assert!(received.try_recv().is_err());
    }

    #[tokio::test]
    async fn probes_tell_a_stuck_loop_and_a_paused_tenant_apart() {
        let dir = tempfile::tempdir().expect("a directory");
        let (state, _received) = state(&dir);
        state.heartbeat.beat();
        state.board.update(|r| r.state = crate::status::State::Paused);
        let address = http(state.clone()).await;
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        assert!(raw(address, &get("/livez")).await.starts_with("HTTP/1.1 200"));
        let ready = raw(address, &get("/readyz")).await;
        assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("the state is paused"), "{ready}");
        state.board.update(|r| r.state = crate::status::State::Live);
        assert!(raw(address, &get("/readyz")).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn commands_reach_the_pipeline_and_its_answers_come_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        std::fs::write(&path, "left by a dead daemon").expect("written");
        let (state, mut received) = state(&dir);
        tokio::spawn(serve_socket(&path, state, std::future::pending()).expect("bound"));
        let mode = std::fs::metadata(&path).expect("exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        tokio::spawn(async move {
            while let Some(command) = received.recv().await {
                match command {
                    AdminCommand::Pause(reply) => reply.send(Ok(())).expect("waited for"),
                    AdminCommand::Resync(request, reply) => {
                        assert_eq!(request.scope, ResyncScope::Table("orders".into()));
                        let refusal = AdminError::new("unknown_table", "no table orders").hint("try public.orders");
                        reply.send(Err(refusal)).expect("waited for");
                    }
                    other => drop(other),
                }
            }
        });
        let client = Client::new(&path);
        assert_eq!(client.status().await.expect("answers").tenant, "acme");
        client.pause().await.expect("paused");
        let request = ResyncRequest { scope: ResyncScope::Table("orders".into()), force: false, dry_run: true };
        let refused: Result<ResyncPlan, ClientError> = client.resync(&request).await;
        let Err(ClientError::Refused(error)) = refused else { panic!("{refused:?}") };
        assert_eq!((error.code.as_str(), error.hint.as_deref()), ("unknown_table", Some("try public.orders")));
        let stopping = client.resume().await;
        assert!(matches!(&stopping, Err(ClientError::Refused(e)) if e.code == "stopping"), "{stopping:?}");
    }

    #[tokio::test]
    async fn dead_letters_and_the_checkpoint_are_read_beside_the_pipeline() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("admin.sock");
        let (state, _busy_elsewhere) = state(&dir);
        let mut row = tidemark_contract::RowBuilder::default();
        row.push(tidemark_contract::Value::Int(1));
        let letter = DeadLetter {
            id: 0,
            at: 1,
            rule: "order".into(),
            entity: "order & more".into(),
            table: "public.orders".into(),
            external_id: Some("1".into()),
            key: RowKey::of(&row.finish(), &[0]).expect("complete"),
            op: WriteOp::Upsert,
            code: "invalid_value".into(),
            field: None,
            message: "no".into(),
            attempts: 1,
        };
        let step = Step { put_dead_letters: vec![letter], ..Step::default() };
        state.store.commit(&step).expect("saved");
        tokio::spawn(serve_socket(&path, state, std::future::pending()).expect("bound"));
        let client = Client::new(&path);
        let letters = client.dead_letters(Some("order & more"), None, 10).await.expect("listed");
        assert_eq!(letters.len(), 1);
        assert_eq!(client.dead_letter(letters[0].id).await.expect("read").as_ref(), letters.first());
        assert_eq!(client.dead_letter(99).await.expect("read"), None);
        assert!(client.dead_letters(Some("order"), None, 10).await.expect("listed").is_empty());
        let view = client.checkpoint().await.expect("read");
        assert_eq!(view.dead_letters.get("order & more"), Some(&1));
        assert!(view.checkpoint.is_some());
    }

    #[tokio::test]
    async fn no_daemon_is_told_apart_from_a_failing_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let answer = Client::new(&dir.path().join("admin.sock")).status().await;
        assert!(matches!(answer, Err(ClientError::NotRunning)), "{answer:?}");
    }
}
