//! The MySQL and MariaDB connector: tables in pages by key, and the tail from the binary log.
//!
//! ```text
//! lib.rs        configuration, factory, trait glue      stream.rs    the tail: a task that owns the connection
//! catalog.rs    tables and keys from the catalogue      reader.rs    events in their order → messages
//! types.rs      kinds of columns, texts → values        assemble.rs  rows of events → changes
//! preflight.rs  findings                                capture.rs   table maps → plans for reading rows
//! snapshot.rs   pages and rows by key                   decode.rs    bytes of the log → values
//! session.rs    SQL sessions kept open                  event.rs     the log's events (metadata.rs, payload.rs)
//! sql.rs        one session, by mysql_async (relay.rs)
//! position.rs   places in the log (gtid.rs)             ddl.rs       which tables a statement touches
//! wire.rs       one connection (auth.rs)                resume.rs    where a stream begins (xa.rs)
//! ```
//!
//! `visibility` makes reads see what the stream has told. `charset`, `decimal`, `json`, `geometry` and `temporal` turn one kind of value each into its canonical form.
//!
//! Results and the log give text in the column's own character set, times in UTC, and everything else so that no digit is
//! lost; what is different on the two ways is brought to one form here. That is why a row looks the same from both sides.

mod assemble;
mod auth;
mod capture;
mod catalog;
mod charset;
mod cursor;
mod ddl;
mod decimal;
mod decode;
mod error;
mod event;
mod geometry;
mod gtid;
mod json;
mod metadata;
mod payload;
mod position;
mod preflight;
mod reader;
mod relay;
mod resume;
mod session;
mod snapshot;
mod sql;
mod stream;
mod temporal;
mod types;
mod visibility;
mod wire;
mod xa;

pub use tidemark_login::{Password, TlsConfig, TlsMode};
pub use types::{ZeroDateCounts, ZeroDates};

use async_trait::async_trait;
use catalog::{missing_table, refused};
use position::numbered;
use session::{Pool, Session};
use snapshot::PageSizes;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidemark_contract::{
    Capabilities, ChangeStream, Connector, FetchedRows, Finding, Lag, Position, Result, RowKey, ScanCursor,
    SnapshotChunk, TableId, TableRequest, TableSchema,
};
use tidemark_login::Session as _;

/// How to reach a server.
#[derive(Clone, Debug)]
pub struct MysqlConfig {
    /// Host name, address, or the path of a unix socket (absolute).
    pub host: String,
    /// Port.
    pub port: u16,
    /// Database.
    pub database: String,
    /// Account; needs `REPLICATION SLAVE`, `REPLICATION CLIENT` and `SELECT` on the tables.
    pub user: String,
    /// Its password, if it has one.
    pub password: Option<Password>,
    /// TLS settings for TCP connections.
    pub tls: TlsConfig,
    /// The id under which the log is read: no server and no other reader of this log may have it.
    pub server_id: u32,
    /// What becomes of dates that no calendar has.
    pub zero_dates: ZeroDates,
    /// The same for single columns, named `table.column` or `database.table.column`.
    pub zero_dates_by_column: Vec<(Box<str>, ZeroDates)>,
    /// How many of them were met; keep a clone to read it.
    pub zero_dates_met: ZeroDateCounts,
    /// How the connections call themselves in `performance_schema.session_connect_attrs`.
    pub application_name: String,
    /// Limit for connecting, TLS and authentication together. Default 15 s.
    pub connect_timeout: Duration,
    /// How long a statement may be silent before its connection is given up. Default 10 min.
    pub statement_timeout: Duration,
    /// SQL connections open at a time, beside those of the stream. Default 4.
    pub sql_connections: usize,
}

impl MysqlConfig {
    /// A configuration with server id 7001, TLS verified in full, and the default limits.
    pub fn new(host: impl Into<String>, port: u16, database: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port,
            database: database.into(),
            user: user.into(),
            password: None,
            tls: TlsConfig::default(),
            server_id: 7001,
            zero_dates: ZeroDates::Null,
            zero_dates_by_column: Vec::new(),
            zero_dates_met: ZeroDateCounts::default(),
            application_name: "tidemark".into(),
            connect_timeout: Duration::from_secs(15),
            statement_timeout: Duration::from_secs(600),
            sql_connections: 4,
        }
    }

    pub(crate) fn is_unix(&self) -> bool {
        self.host.starts_with('/')
    }

    /// Host and port, for messages.
    pub(crate) fn address(&self) -> String {
        if self.is_unix() { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    pub(crate) fn zero_dates_of(&self, table: &TableId, column: &str) -> &ZeroDates {
        let own = self.zero_dates_by_column.iter().find(|(name, _)| is_column(name, table, column));
        own.map_or(&self.zero_dates, |(_, policy)| policy)
    }
}

/// Whether `name`, `table.column` or `database.table.column`, means that column.
pub(crate) fn is_column(name: &str, table: &TableId, column: &str) -> bool {
    let short = format!("{}.{column}", table.name);
    name.eq_ignore_ascii_case(&short) || name.eq_ignore_ascii_case(&format!("{}.{short}", table.schema))
}

/// The connector: see the crate's documentation.
pub struct Mysql {
    config: Arc<MysqlConfig>,
    pool: Pool,
    page_sizes: PageSizes,
    shapes: snapshot::Shapes,
    /// What the open stream has handed over.
    told: visibility::Teller,
}

impl fmt::Debug for Mysql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mysql").field("config", &self.config).finish_non_exhaustive()
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mysql {
    /// A connector for this configuration. Connects to nothing yet.
    pub fn new(config: MysqlConfig) -> Self {
        let config = Arc::new(config);
        Self {
            pool: Pool::new(config.clone(), config.sql_connections),
            config,
            page_sizes: PageSizes::default(),
            shapes: snapshot::Shapes::default(),
            told: visibility::Teller::default(),
        }
    }

    fn source<'a>(&'a self, told: Option<&'a visibility::Told>) -> snapshot::Source<'a> {
        snapshot::Source { pool: &self.pool, config: &self.config, told, shapes: &self.shapes }
    }
}

#[async_trait]
impl Connector for Mysql {
    fn name(&self) -> &'static str {
        "mysql"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            resume_inside_transaction: true,
            partial_updates: true,
            truncate: true,
            net_changes: false,
            acknowledgement_holds_log: false,
        }
    }

    async fn preflight(&self, tables: &[TableRequest]) -> Result<Vec<Finding>> {
        preflight::run(&self.config, tables).await
    }

    async fn discover(&self, tables: &[TableRequest]) -> Result<Vec<Arc<TableSchema>>> {
        let mut lease = self.pool.lease().await?;
        let connection = &mut lease.session.connection;
        let settings = catalog::settings(connection).await?;
        let mut schemas = Vec::new();
        if tables.is_empty() {
            for table in catalog::describe_all(connection, &self.config.database).await? {
                let request = TableRequest { table: table.id(), columns: None, key: None };
                match table.shape(&request, &self.config, settings.image) {
                    Ok(shape) => schemas.push(shape.schema),
                    Err(reason) => tracing::info!(table = %request.table, reason, "left out: it cannot be read"),
                }
            }
        } else {
            let names: Vec<TableId> = tables.iter().map(|t| t.table.clone()).collect();
            let found = catalog::describe(connection, &names, settings.fold).await?;
            for request in tables {
                let table = found.get(&request.table).ok_or_else(|| missing_table(&request.table))?;
                let shape = table.shape(request, &self.config, settings.image);
                schemas.push(shape.map_err(|reason| refused(&request.table, &reason))?.schema);
            }
        }
        lease.give_back();
        Ok(schemas)
    }

    async fn estimate_rows(&self, table: &TableId) -> Result<Option<u64>> {
        let mut lease = self.pool.lease().await?;
        let connection = &mut lease.session.connection;
        let settings = catalog::settings(connection).await?;
        let found = catalog::describe(connection, std::slice::from_ref(table), settings.fold).await?;
        lease.give_back();
        Ok(found.get(table).and_then(|t| t.rows))
    }

    async fn open_stream(&self, tables: &[TableRequest], from: Option<&Position>) -> Result<Box<dyn ChangeStream>> {
        let mut session = Session::open(&self.config).await?;
        let server = session.server.clone();
        let (from, stored) = match from {
            Some(position) => {
                let (log, place) = position::parse(position)?;
                let mut place = resume::accept(&self.config, &mut session, &log, place).await?;
                if tables.iter().any(|request| log.shapes.get(&request.table).is_none()) {
                    xa::with_new_tables(&mut session, &mut place).await?;
                }
                (place, Some(log.shapes))
            }
            None => (xa::beginning(&mut session).await?, None),
        };
        let captures = capture::Captures::open(self.config.clone(), tables, session, stored.as_ref()).await?;
        let opening = stream::Opening { config: self.config.clone(), server, captures, from, told: self.told.clone() };
        Ok(Box::new(stream::Tail::start(opening).await?))
    }

    fn covers(&self, reached: &Position, goal: &Position) -> Result<bool> {
        position::covers(reached, goal)
    }

    async fn snapshot_chunk(
        &self,
        table: &TableRequest,
        after: Option<&ScanCursor>,
        limit: usize,
    ) -> Result<SnapshotChunk> {
        let limit = self.page_sizes.limit(&table.table, limit);
        let read = snapshot::page(self.source(None), table, None, after, limit).await?;
        self.page_sizes.learn(&table.table, read.rows.len(), read.bytes);
        Ok(SnapshotChunk { schema: read.shape.schema.clone(), rows: read.rows, next: read.next, barrier: read.barrier })
    }

    async fn fetch_rows(&self, table: &TableRequest, keys: &[RowKey]) -> Result<FetchedRows> {
        let told = self.told.get();
        let (read, rows) = snapshot::rows_by_key(self.source(told.as_deref()), table, keys).await?;
        Ok(FetchedRows { schema: read.shape.schema.clone(), rows, barrier: read.barrier })
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
        let told = self.told.get();
        let wanted = snapshot::Wanted { columns, keys };
        let read = snapshot::page(self.source(told.as_deref()), table, Some(wanted), after, limit).await?;
        self.page_sizes.learn(&table.table, read.rows.len(), read.bytes);
        Ok(SnapshotChunk { schema: read.shape.schema.clone(), rows: read.rows, next: read.next, barrier: read.barrier })
    }

    async fn lag(&self, from: Option<&Position>) -> Result<Lag> {
        let mut lease = self.pool.lease().await?;
        let lag = lag(&mut lease.session, from).await?;
        lease.give_back();
        Ok(lag)
    }

    async fn release(&self) -> Result<Vec<String>> {
        // Nothing is made on the server.
        for session in self.pool.drain() {
            session.connection.quit().await;
        }
        Ok(Vec::new())
    }
}

async fn lag(session: &mut Session, from: Option<&Position>) -> Result<Lag> {
    let Some(from) = from else { return Ok(Lag::default()) };
    let (log, place) = position::parse(from)?;
    let here = position::Log::of(&session.server);
    let Some(file) = place.file.filter(|_| here.is_same_server(&log)) else { return Ok(Lag::default()) };
    let rows = session.connection.rows("listing the files of the log", "SHOW BINARY LOGS").await?;
    let wanted = numbered(&file.name);
    let mut pending = 0_u64;
    for row in rows {
        if let [Some(name), Some(size), ..] = &row[..]
            && let (Some((_, number)), Some((_, ours))) = (numbered(name), wanted)
            && number >= ours
        {
            let size: u64 = size.parse().unwrap_or(0);
            pending += if number == ours { size.saturating_sub(file.offset) } else { size };
        }
    }
    let retention = preflight::retention(&mut session.connection).await?;
    Ok(Lag { pending_bytes: Some(pending), retention, retained_bytes: None, retention_bytes_left: None })
}
