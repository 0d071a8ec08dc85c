//! The reference CRM: the contract of `docs/crm-api.yaml`, implemented to be looked at and to be broken on purpose.
//!
//! Records are kept in memory or in a SQLite file. `/` is a page that shows them arriving; `/admin/…` serves that page
//! and takes fault switches. What it promises to a sender: a batch is applied as one step; a lower version never
//! replaces a higher one, also not after a delete; a repeated `Idempotency-Key` is answered as the first time.
//!
//! | file | what |
//! |---|---|
//! | `model` | the entities, and the OpenAPI document that publishes them |
//! | `validate`, `record` | is a record what the model says; what does a write make of it. Pure |
//! | `engine` | batches to results |
//! | `store` | memory or SQLite |
//! | `faults` | what goes wrong on purpose, and when |
//! | `watch` | counters, events, histories |
//! | `contract`, `wire` | the contract over HTTP, over connections that can be cut |
//! | `admin`, `page/` | fault switches; the page and what it asks for |

mod admin;
mod contract;
mod engine;
mod faults;
mod model;
mod record;
mod store;
mod validate;
mod watch;
mod wire;

pub use faults::{Dose, Faults, Reject, Throttle};
pub use model::SchemaSource;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use engine::Engine;
use model::Model;
use std::future::{Future, IntoFuture};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};
use store::{Memory, Sqlite, Store};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use watch::History;
use wire::{Peer, Wire};

/// How long a stopping server waits for calls under way.
const GRACE: Duration = Duration::from_secs(3);

/// Why the server cannot run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DevCrmError(pub String);

/// What to serve.
#[derive(Clone)]
pub struct DevCrmOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// SQLite file that keeps the records; memory if there is none.
    pub db: Option<PathBuf>,
    /// The model.
    pub schema: SchemaSource,
    /// Bearer token that calls must carry; none if absent.
    pub token: Option<String>,
    /// Writes kept for looking at, over all records; 0 keeps none.
    pub history: usize,
    /// Largest request body, also after decompression, in bytes.
    pub max_body_bytes: usize,
    /// Most records in one request.
    pub max_records: usize,
    /// Fault switches that are on from the start.
    pub faults: Faults,
}

impl Default for DevCrmOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            db: None,
            schema: SchemaSource::default(),
            token: None,
            history: 100_000,
            max_body_bytes: 16 * 1024 * 1024,
            max_records: 5_000,
            faults: Faults::default(),
        }
    }
}

/// A running server.
pub struct Handle {
    /// Where it listens.
    pub addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Handle {
    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Waits until it has stopped.
    pub async fn stopped(self) {
        // The task ends in no other way than by the shutdown it was given.
        let _ = self.task.await;
    }
}

/// What the handlers share.
struct Server {
    engine: Engine,
    token: Option<String>,
    max_body_bytes: usize,
    in_flight: AtomicU64,
    max_in_flight: AtomicU64,
    started: Instant,
    /// Pages that are being told what is new, and the end of that.
    watchers: AtomicU64,
    stopping: tokio::sync::watch::Receiver<bool>,
}

/// Serves until `shutdown` is ready. Returns once it listens.
pub async fn serve(
    options: DevCrmOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<Handle, DevCrmError> {
    let model = Model::load(&options.schema)?;
    let store: Box<dyn Store> = match &options.db {
        None => Box::new(Memory::default()),
        Some(path) => Box::new(Sqlite::open(path).map_err(DevCrmError)?),
    };
    let history = History::new(options.history, 64 * 1024 * 1024);
    let engine = Engine::new(model, store, options.max_records, history)
        .map_err(|error| DevCrmError(format!("the CRM's records cannot be read: {error}")))?;
    engine.state().switches.set(options.faults);
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let server = Arc::new(Server {
        engine,
        token: options.token,
        max_body_bytes: options.max_body_bytes,
        in_flight: AtomicU64::new(0),
        max_in_flight: AtomicU64::new(0),
        started: Instant::now(),
        watchers: AtomicU64::new(0),
        stopping: stopping.clone(),
    });
    let cannot = |error: std::io::Error| DevCrmError(format!("cannot listen on {}: {error}", options.listen));
    let listener = TcpListener::bind(options.listen).await.map_err(cannot)?;
    let addr = listener.local_addr().map_err(cannot)?;
    let mut stopped = stopping;
    let app = router(server).into_make_service_with_connect_info::<Peer>();
    let serving = axum::serve(Wire(listener), app).with_graceful_shutdown(async move {
        // An error means that the sender is gone, which is a stop as well.
        let _ = stopped.wait_for(|stop| *stop).await;
    });
    let task = tokio::spawn(async move {
        let mut serving = std::pin::pin!(serving.into_future());
        tokio::select! {
            _ = &mut serving => return,
            () = shutdown => {}
        }
        stop.send_replace(true);
        // Calls that hang (a latency switch, a client that does not read) do not hold up the end.
        let _ = tokio::time::timeout(GRACE, serving).await;
    });
    Ok(Handle { addr, task })
}

fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/health", get(contract::health))
        .route("/openapi.json", get(contract::openapi))
        .route("/v1/{entity}", get(contract::list))
        .route("/v1/{entity}/upsert", post(contract::upsert))
        .route("/v1/{entity}/delete", post(contract::delete))
        .merge(admin::page())
        .merge(admin::router(server.clone()))
        .with_state(server)
}

fn respond(status: u16, content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
