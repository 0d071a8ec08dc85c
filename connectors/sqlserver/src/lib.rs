//! The SQL Server connector: tables in pages by key, and the tail from change data capture, or from change
//! tracking where that cannot be had.
//!
//! ```text
//! lib.rs        configuration, factory, trait glue      stream.rs    the tail: a task that polls, and its handle
//!                                                       tracking.rs  the tail from change tracking
//! catalog.rs    tables, keys, capture instances         plan.rs      which change tables are read, and how
//! types.rs      columns and values both ways            window.rs    change tables merged in commit order
//! preflight.rs  findings                                pair.rs      change rows → changes
//! snapshot.rs   pages and rows by key                   fence.rs     when the log reader has seen everything
//! session.rs    sessions kept open (sql.rs)             position.rs  places in the log
//! wire.rs       one connection (error.rs)              door.rs      before it: PRELOGIN, TLS
//! ```
//!
//! Rows are selected with the same expressions from the tables and from their change tables, so that a value has one path.

mod catalog;
mod door;
mod error;
mod fence;
mod pair;
mod plan;
mod position;
mod preflight;
mod session;
mod snapshot;
mod sql;
mod stream;
mod tracking;
mod types;
mod window;
mod wire;

pub use tidemark_login::{Password, TlsConfig, TlsMode};

use async_trait::async_trait;
use catalog::{missing_table, refused};
use session::Pool;
use sql::Cells;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidemark_contract::{
    Capabilities, ChangeStream, Connector, FetchedRows, Finding, Lag, Position, Result, RowKey, ScanCursor,
    SnapshotChunk, TableId, TableRequest, TableSchema,
};

/// Where changes come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Change data capture where the database has it, else change tracking.
    #[default]
    Auto,
    /// Change data capture: every change, in commit order.
    Cdc,
    /// Change tracking: which rows changed, and their present state.
    ChangeTracking,
}

/// How much of a connection TLS covers, and when it begins. [`TlsMode::Disable`] goes with [`Encryption::Standard`] only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Encryption {
    /// Everything from the login on; TLS 1.2 inside PRELOGIN packets, as TDS 7.4 has it.
    #[default]
    Standard,
    /// The login alone, where the server does not insist on more: rows travel in the clear.
    LoginOnly,
    /// TLS before the first byte of TDS (TDS 8.0, `Encrypt=strict`).
    Strict,
}

impl Encryption {
    /// As in the tenant file.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Encryption::Standard => "standard",
            Encryption::LoginOnly => "login-only",
            Encryption::Strict => "strict",
        }
    }
}

/// Where a token of Microsoft Entra ID is read, at each login anew. Does not show itself.
#[derive(Clone)]
pub struct Token(Arc<dyn Fn() -> std::result::Result<Password, String> + Send + Sync>);

impl Token {
    /// A token that `read` gives, or why it cannot be had (without the token itself in the words).
    pub fn new(read: impl Fn() -> std::result::Result<Password, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Reads it.
    ///
    /// # Errors
    /// If it cannot be read now.
    pub(crate) fn read(&self) -> Result<Password> {
        (self.0)().map_err(|why| error::setting_wrong(format!("the token cannot be read: {why}")))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// How to reach a server.
#[derive(Clone, Debug)]
pub struct SqlServerConfig {
    /// Host name or address.
    pub host: String,
    /// Port; a named instance has its own.
    pub port: u16,
    /// Database.
    pub database: String,
    /// SQL login, or the database's name for the principal of the token.
    pub user: String,
    /// The login's password.
    pub password: Option<Password>,
    /// A token in place of the password. Default `None`.
    pub token: Option<Token>,
    /// TLS settings.
    pub tls: TlsConfig,
    /// How much TLS covers. Default [`Encryption::Standard`].
    pub encryption: Encryption,
    /// Where changes come from. Default [`Mode::Auto`].
    pub mode: Mode,
    /// Asks an availability group for a secondary that may only be read. Default `false`.
    pub read_only: bool,
    /// Pause between two looks for changes. Default 500 ms.
    pub poll_interval: Duration,
    /// How long the log reader may finish no scan before the stream says so and fails. Default 2 min: a job that reads a long
    /// log for the first time is silent for a while.
    pub capture_timeout: Duration,
    /// How the connections call themselves in `sys.dm_exec_sessions`.
    pub application_name: String,
    /// Limit for connecting, TLS and login together. Default 15 s.
    pub connect_timeout: Duration,
    /// How long a statement may be silent before its connection is given up. Default 10 min.
    pub statement_timeout: Duration,
    /// Connections open at a time, beside that of the stream. Default 4.
    pub sql_connections: usize,
}

impl SqlServerConfig {
    /// A configuration with TLS verified in full and the default limits.
    pub fn new(host: impl Into<String>, port: u16, database: impl Into<String>, user: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port,
            database: database.into(),
            user: user.into(),
            password: None,
            tls: TlsConfig::default(),
            encryption: Encryption::Standard,
            token: None,
            mode: Mode::Auto,
            read_only: false,
            poll_interval: Duration::from_millis(500),
            capture_timeout: Duration::from_secs(120),
            application_name: "tidemark".into(),
            connect_timeout: Duration::from_secs(15),
            statement_timeout: Duration::from_secs(600),
            sql_connections: 4,
        }
    }

    /// Host and port, for messages.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// The connector: see the crate's documentation.
pub struct SqlServer {
    config: Arc<SqlServerConfig>,
    pool: Pool,
    memory: snapshot::Memory,
    stalled: Arc<fence::Stalled>,
    /// The last stream was one of change tracking.
    tracking: AtomicBool,
}

impl fmt::Debug for SqlServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlServer").field("config", &self.config).finish_non_exhaustive()
    }
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SqlServer {
    /// A connector for this configuration. Connects to nothing yet.
    pub fn new(config: SqlServerConfig) -> Self {
        let config = Arc::new(config);
        Self {
            pool: Pool::new(config.clone(), config.sql_connections),
            config,
            memory: snapshot::Memory::default(),
            stalled: Arc::default(),
            tracking: AtomicBool::new(false),
        }
    }
}

#[async_trait]
impl Connector for SqlServer {
    fn name(&self) -> &'static str {
        "sqlserver"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            resume_inside_transaction: true,
            // Rows of change tracking are the table's own, and whole.
            partial_updates: self.config.mode != Mode::ChangeTracking,
            truncate: false,
            net_changes: self.config.mode == Mode::ChangeTracking || self.tracking.load(Ordering::Acquire),
            acknowledgement_holds_log: false,
        }
    }

    async fn preflight(&self, tables: &[TableRequest]) -> Result<Vec<Finding>> {
        preflight::run(&self.config, tables).await
    }

    async fn discover(&self, tables: &[TableRequest]) -> Result<Vec<Arc<TableSchema>>> {
        let mut lease = self.pool.lease().await?;
        let names: Vec<TableId> = tables.iter().map(|t| t.table.clone()).collect();
        let found = catalog::describe(&mut lease.session.connection, &names).await?;
        let tracking = lease.session.database.tracking;
        lease.give_back();
        let mut schemas = Vec::new();
        if tables.is_empty() {
            for table in found.values() {
                let request = TableRequest { table: table.id.clone(), columns: None, key: None };
                match table.read_shape(&request, tracking) {
                    Ok(shape) => schemas.push(shape.schema),
                    Err(reason) => tracing::info!(table = %table.id, reason, "left out: it cannot be read"),
                }
            }
        }
        for request in tables {
            let table = found.get(&request.table).ok_or_else(|| missing_table(&request.table))?;
            let shape = table.read_shape(request, tracking);
            schemas.push(shape.map_err(|reason| refused(&request.table, &reason))?.schema);
        }
        Ok(schemas)
    }

    async fn estimate_rows(&self, table: &TableId) -> Result<Option<u64>> {
        let mut lease = self.pool.lease().await?;
        let sql = format!(
            "SELECT SUM(p.rows) FROM sys.partitions p WHERE p.object_id = OBJECT_ID({}) AND p.index_id IN (0, 1)",
            sql::literal(&sql::table_name(table))
        );
        let rows = lease.session.connection.rows("estimating rows", &sql).await?;
        lease.give_back();
        Ok(rows.first().and_then(|row| row.int(0)).and_then(|rows| u64::try_from(rows).ok()))
    }

    async fn open_stream(&self, tables: &[TableRequest], from: Option<&Position>) -> Result<Box<dyn ChangeStream>> {
        let tail = stream::Tail::start(self.config.clone(), tables, from, self.stalled.clone()).await?;
        self.tracking.store(tail.is_tracking, Ordering::Release);
        Ok(Box::new(tail))
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
        let read = snapshot::page(&self.pool, &self.memory, table, None, after, limit).await?;
        Ok(SnapshotChunk { schema: read.shape.schema.clone(), rows: read.rows, next: read.next, barrier: read.barrier })
    }

    async fn fetch_rows(&self, table: &TableRequest, keys: &[RowKey]) -> Result<FetchedRows> {
        let (read, rows) = snapshot::rows_by_key(&self.pool, &self.memory, table, keys).await?;
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
        let wanted = snapshot::Wanted { columns, keys };
        let read = snapshot::page(&self.pool, &self.memory, table, Some(wanted), after, limit).await?;
        Ok(SnapshotChunk { schema: read.shape.schema.clone(), rows: read.rows, next: read.next, barrier: read.barrier })
    }

    async fn lag(&self, from: Option<&Position>) -> Result<Lag> {
        let mut lease = self.pool.lease().await?;
        let lag = match from {
            Some(from) if lease.session.database.tracking => {
                Lag { retention: tracking::retention(&mut lease.session, from).await?, ..Lag::default() }
            }
            from => plan::lag(&mut lease.session.connection, from).await?,
        };
        lease.give_back();
        Ok(lag)
    }

    async fn release(&self) -> Result<Vec<String>> {
        // Nothing is made on the server: capture instances are the administrator's.
        drop(self.pool.drain());
        Ok(Vec::new())
    }
}
