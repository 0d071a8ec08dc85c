//! The PostgreSQL connector: tables in chunks by key, and the tail by logical replication (pgoutput).
//!
//! ```text
//! lib.rs        configuration, factory, trait glue      slot.rs      slot and publication: made, checked, removed
//! catalog.rs    tables and keys from the catalogue      stream.rs    the tail: a task that owns the socket
//! types.rs      type OIDs → kinds                       assemble.rs  log messages → changes
//! preflight.rs  findings                                pgoutput.rs  the log's messages, parsed
//! snapshot.rs   chunks and rows by key                  decode.rs    text → values (nested.rs: arrays, composites)
//! session.rs    SQL sessions kept open (sql.rs)         position.rs  places in the log
//! wire.rs       the replication connection; auth.rs, tls.rs, socket.rs and error.rs serve it and sql.rs
//! ```
//!
//! Everything is read as text, under the same session settings for SQL and for replication, and decoded by one decoder:
//! that is why a row looks the same from both sides.

mod assemble;
mod auth;
mod capture;
mod catalog;
mod decode;
mod error;
mod nested;
mod pgoutput;
mod position;
mod preflight;
mod session;
mod slot;
mod snapshot;
mod socket;
mod sql;
mod stream;
mod tls;
mod types;
mod visible;
mod wire;

pub use tidemark_login::{Password, TlsConfig, TlsMode};

use async_trait::async_trait;
use catalog::{missing_table, refused};
use error::undecodable;
use position::{History, Log, Lsn, Place, Tables};
use session::Pool;
use snapshot::PageSizes;
use sql::Queries;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidemark_contract::{
    Capabilities, ChangeStream, Connector, FetchedRows, Finding, Lag, Position, Result, RowKey, ScanCursor,
    SnapshotChunk, TableId, TableRequest, TableSchema,
};
use types::Types;
use visible::Delivered;
use wire::Connection;

/// How to reach a database, and the names of what is created in it.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// Host name, address, or the directory of a unix socket (an absolute path).
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database.
    pub database: String,
    /// Role; needs `LOGIN` and `REPLICATION`, and `SELECT` on the tables.
    pub user: String,
    /// Its password, if the server asks for one.
    pub password: Option<Password>,
    /// TLS settings for TCP connections.
    pub tls: TlsConfig,
    /// Name of the replication slot.
    pub slot: String,
    /// Name of the publication.
    pub publication: String,
    /// How the connections call themselves in `pg_stat_activity`.
    pub application_name: String,
    /// Limit for connecting, TLS and authentication together. Default 15 s.
    pub connect_timeout: Duration,
    /// How long to wait for a slot that another connection holds: right after a crash the server needs a while to notice
    /// that the old one is dead. Default 60 s.
    pub slot_wait: Duration,
    /// How long creating a slot may take: it waits for the transactions running at that moment. Default 10 min.
    pub slot_creation_timeout: Duration,
    /// How often a running stream looks whether its tables are still published: a table that is taken out of the
    /// publication takes its changes along without an error from the server. Default 30 s.
    pub publication_check: Duration,
    /// SQL connections open at a time, beside the one of the stream. Default 4.
    pub sql_connections: usize,
}

impl PostgresConfig {
    /// A configuration with the slot and publication `tidemark`, TLS verified in full, and the default limits.
    pub fn new(host: impl Into<String>, port: u16, database: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port,
            database: database.into(),
            user: user.into(),
            password: None,
            tls: TlsConfig::default(),
            slot: "tidemark".into(),
            publication: "tidemark".into(),
            application_name: "tidemark".into(),
            connect_timeout: Duration::from_secs(15),
            slot_wait: Duration::from_secs(60),
            slot_creation_timeout: Duration::from_secs(600),
            publication_check: Duration::from_secs(30),
            sql_connections: 4,
        }
    }

    pub(crate) fn is_unix(&self) -> bool {
        self.host.starts_with('/')
    }

    /// Host and port, for messages.
    pub(crate) fn address(&self) -> String {
        if self.is_unix() {
            format!("{} (port {})", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The connector: see the crate's documentation.
pub struct Postgres {
    config: Arc<PostgresConfig>,
    pool: Pool,
    /// What reads by key have to see.
    handed_over: Arc<Delivered>,
    page_sizes: PageSizes,
    /// The log of the open (or last) stream.
    log: Mutex<Option<Log>>,
    /// The timelines before the server's present one.
    history: Arc<Mutex<History>>,
}

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres").field("config", &self.config).finish_non_exhaustive()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Postgres {
    /// A connector for this configuration. Connects to nothing yet.
    pub fn new(config: PostgresConfig) -> Self {
        let config = Arc::new(config);
        Self {
            pool: Pool::new(config.clone(), config.sql_connections),
            handed_over: Arc::default(),
            config,
            page_sizes: PageSizes::default(),
            log: Mutex::default(),
            history: Arc::default(),
        }
    }

    fn barrier(&self, read: &snapshot::Read) -> Position {
        let mut log = read.log.clone();
        if let Some(stream) = &*locked(&self.log) {
            log.created = stream.created;
            log.tables = stream.tables.clone();
        }
        log.position(Place::from(read.head.lsn))
    }
}

#[async_trait]
impl Connector for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            resume_inside_transaction: true,
            partial_updates: true,
            truncate: true,
            net_changes: false,
            acknowledgement_holds_log: true,
        }
    }

    async fn preflight(&self, tables: &[TableRequest]) -> Result<Vec<Finding>> {
        preflight::run(&self.config, tables).await
    }

    async fn discover(&self, tables: &[TableRequest]) -> Result<Vec<Arc<TableSchema>>> {
        let mut lease = self.pool.lease().await?;
        let session = &mut lease.session;
        let mut schemas = Vec::new();
        if tables.is_empty() {
            for table in catalog::describe_all(&mut session.connection, &mut session.types).await? {
                let request = TableRequest { table: table.id(), columns: None, key: None };
                match table.shape(&request, &session.types) {
                    Ok(shape) => schemas.push(shape.schema),
                    Err(reason) => tracing::info!(table = %request.table, reason, "left out: it cannot be read"),
                }
            }
        } else {
            let names: Vec<TableId> = tables.iter().map(|t| t.table.clone()).collect();
            let found = catalog::describe(&mut session.connection, &mut session.types, &names).await?;
            for request in tables {
                let table = found.get(&request.table).ok_or_else(|| missing_table(&request.table))?;
                let shape = table.shape(request, &session.types).map_err(|reason| refused(&request.table, &reason))?;
                schemas.push(shape.schema);
            }
        }
        lease.give_back();
        Ok(schemas)
    }

    async fn estimate_rows(&self, table: &TableId) -> Result<Option<u64>> {
        let mut lease = self.pool.lease().await?;
        let rows = catalog::estimate_rows(&mut lease.session.connection, table).await?;
        lease.give_back();
        Ok(rows)
    }

    async fn open_stream(&self, tables: &[TableRequest], from: Option<&Position>) -> Result<Box<dyn ChangeStream>> {
        let config = &self.config;
        let mut connection = Connection::open(config).await?;
        let identity = connection.rows("identifying the system", "IDENTIFY_SYSTEM").await?;
        let (system, timeline, head) = match identity.first().map(|row| &row[..]) {
            Some([Some(system), Some(timeline), Some(head), ..]) => (system, timeline.parse().ok(), head.parse().ok()),
            _ => return Err(undecodable("the server did not identify itself")),
        };
        let (Some(timeline), Some(head)) = (timeline, head) else {
            return Err(undecodable("the server did not identify itself"));
        };
        let mut log = Log {
            system: system.as_str().into(),
            timeline,
            database: config.database.as_str().into(),
            slot: config.slot.as_str().into(),
            created: None,
            tables: Tables::default(),
        };
        let history = stream::history(&mut connection, timeline).await?;
        let mut types = Types::default();
        let names: Vec<TableId> = tables.iter().map(|t| t.table.clone()).collect();
        let found = catalog::describe(&mut connection, &mut types, &names).await?;
        log.tables = Tables::new(found.iter().map(|(name, table)| (name, table.oid)));
        let mut place = None;
        let mut known = Tables::default();
        if let Some(position) = from {
            let (stored, at) = position::parse(position)?;
            log.accept(&stored, at, &history)?;
            let state = slot::wait_until_free(&mut connection, config).await?;
            slot::check(state.as_ref(), config, at, head)?;
            log.created = stored.created;
            known = stored.tables;
            place = Some(at);
        }
        let mut wanted = Vec::new();
        for request in tables {
            let table = found.get(&request.table).ok_or_else(|| missing_table(&request.table))?;
            table.shape(request, &types).map_err(|reason| refused(&request.table, &reason))?;
            wanted.push((table, request));
        }
        slot::ensure_publication(&mut connection, config, &wanted, &known).await?;
        let place = match place {
            Some(place) => place,
            None => {
                let created = slot::create(&mut connection, config).await?;
                log.created = Some(created);
                Place::from(created)
            }
        };
        *locked(&self.log) = Some(log.clone());
        *locked(&self.history) = history;
        let captures = capture::Captures::new(config.clone(), tables, found, types);
        let history = self.history.clone();
        let opening = stream::Opening {
            connection,
            config: config.clone(),
            captures,
            log,
            history,
            from: place,
            handed_over: self.handed_over.clone(),
        };
        Ok(Box::new(stream::Tail::start(opening).await?))
    }

    fn covers(&self, reached: &Position, goal: &Position) -> Result<bool> {
        position::covers(reached, goal, &locked(&self.history))
    }

    async fn snapshot_chunk(
        &self,
        table: &TableRequest,
        after: Option<&ScanCursor>,
        limit: usize,
    ) -> Result<SnapshotChunk> {
        let limit = self.page_sizes.limit(&table.table, limit);
        let read = snapshot::page(&self.pool, &self.handed_over, &self.config, table, None, after, limit).await?;
        self.page_sizes.learn(&table.table, read.rows.len(), read.bytes);
        let barrier = self.barrier(&read);
        Ok(SnapshotChunk { schema: read.shape.schema, rows: read.rows, next: read.next, barrier })
    }

    async fn fetch_rows(&self, table: &TableRequest, keys: &[RowKey]) -> Result<FetchedRows> {
        let (read, rows) = snapshot::rows_by_key(&self.pool, &self.handed_over, &self.config, table, keys).await?;
        let barrier = self.barrier(&read);
        Ok(FetchedRows { schema: read.shape.schema, rows, barrier })
    }

    async fn find_rows(
        &self,
        table: &TableRequest,
        columns: &[Box<str>],
        keys: &[RowKey],
        after: Option<&ScanCursor>,
        limit: usize,
    ) -> Result<SnapshotChunk> {
        let limit = self.page_sizes.limit(&table.table, limit);
        let wanted = snapshot::Wanted { columns, keys };
        let read =
            snapshot::page(&self.pool, &self.handed_over, &self.config, table, Some(wanted), after, limit).await?;
        self.page_sizes.learn(&table.table, read.rows.len(), read.bytes);
        let barrier = self.barrier(&read);
        Ok(SnapshotChunk { schema: read.shape.schema, rows: read.rows, next: read.next, barrier })
    }

    async fn lag(&self, from: Option<&Position>) -> Result<Lag> {
        let mut lease = self.pool.lease().await?;
        let head = lease.session.head().await?;
        let state = slot::state(&mut lease.session.connection, &self.config.slot).await?;
        lease.give_back();
        let state = state.unwrap_or_default();
        let from = match from {
            Some(position) => Some(position::parse(position)?.1.lsn),
            None => state.confirmed(),
        };
        let behind = |lsn: Option<Lsn>| lsn.map(|lsn| head.lsn.0.saturating_sub(lsn.0));
        Ok(Lag {
            pending_bytes: behind(from),
            retention: None,
            retained_bytes: behind(state.restart()),
            retention_bytes_left: state.safe_wal_size.map(|left| u64::try_from(left).unwrap_or(0)),
        })
    }

    async fn release(&self) -> Result<Vec<String>> {
        for session in self.pool.drain() {
            session.connection.terminate().await;
        }
        let mut connection = Connection::open(&self.config).await?;
        let removed = slot::release(&mut connection, &self.config).await;
        connection.terminate().await;
        removed
    }
}
