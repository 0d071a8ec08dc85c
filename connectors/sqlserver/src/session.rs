//! Sessions kept open for reading, and what identifies the database behind them.

use crate::error::undecodable;
use crate::position::Lsn;
use crate::sql::Cells;
use crate::wire::Connection;
use crate::{Mode, SqlServerConfig};
use std::time::{Duration, Instant};
use tidemark_contract::{ErrorKind, Result};

/// Settings of every session, whatever the server's defaults: sizes are unlimited, and a
/// statement that waits for a lock gives up.
const SETTINGS: &str = "SET TEXTSIZE 2147483647; SET LOCK_TIMEOUT 60000; \
     SET TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// What is known of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Database {
    /// Names its log: another one after it was restored or made again.
    pub(crate) log: String,
    pub(crate) has_snapshots: bool,
    pub(crate) has_cdc: bool,
    pub(crate) has_tracking: bool,
    /// Whether changes come from change tracking rather than from change data capture.
    pub(crate) tracking: bool,
}

/// A connection and the database at its other end.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) database: Database,
    mode: Mode,
}

impl tidemark_login::Session for Session {
    type Config = SqlServerConfig;

    async fn open(config: &SqlServerConfig) -> Result<Self> {
        let mut connection = Connection::open(config).await?;
        connection.run("setting up a session", SETTINGS).await?;
        let database = identify(&mut connection, config.mode).await?;
        Ok(Self { connection, database, mode: config.mode })
    }

    /// Whether the connection is still good; looked at only if it has been idle `since` a while ago. The database may have
    /// been restored meanwhile, so its identity is read again.
    async fn still_answers(&mut self, since: Instant) -> bool {
        if since.elapsed() < Duration::from_secs(1) {
            return true;
        }
        match tokio::time::timeout(Duration::from_secs(5), identify(&mut self.connection, self.mode)).await {
            Ok(Ok(database)) => {
                self.database = database;
                true
            }
            _ => false,
        }
    }
}

/// Asks for the database's identity: the point from which its log is its own (`recovery_fork_guid` changes with each restore
/// and is the same on all replicas), or its date of creation where the view shows nothing.
pub(crate) async fn identify(connection: &mut Connection, mode: Mode) -> Result<Database> {
    let doing = "asking which database this is";
    let sql = "SELECT CONVERT(nvarchar(30), create_date, 126), CAST(snapshot_isolation_state AS int), \
               CAST(is_cdc_enabled AS int), CAST(database_id AS int), \
               (SELECT COUNT(*) FROM sys.change_tracking_databases WHERE database_id = DB_ID()) \
               FROM sys.databases WHERE name = DB_NAME()";
    let rows = connection.rows(doing, sql).await?;
    let row = rows.first().ok_or_else(|| undecodable("the server does not list the database in sys.databases"))?;
    let (created, id) = (row.text(0).unwrap_or_default(), row.int(3).unwrap_or(0));
    let mut log = format!("{id}@{created}");
    let (has_snapshots, has_cdc) = (row.int(1) == Some(1), row.int(2) == Some(1));
    let has_tracking = row.int(4).is_some_and(|n| n > 0);
    let tracking = match mode {
        Mode::Auto => !has_cdc && has_tracking,
        Mode::Cdc => false,
        Mode::ChangeTracking => true,
    };
    let sql = "SELECT CONVERT(nvarchar(36), database_guid), CONVERT(nvarchar(36), recovery_fork_guid) \
               FROM sys.database_recovery_status WHERE database_id = DB_ID()";
    match connection.rows(doing, sql).await {
        Ok(rows) => {
            if let Some(row) = rows.first()
                && let (Some(guid), Some(fork)) = (row.text(0), row.text(1))
            {
                log = format!("{guid}/{fork}").to_ascii_lowercase();
            }
        }
        Err(error) if error.kind == ErrorKind::PermissionMissing => {}
        Err(error) => return Err(error),
    }
    Ok(Database { log, has_snapshots, has_cdc, has_tracking, tracking })
}

/// The statement that asks for the end of the log.
pub(crate) const LOG_END: &str = "SELECT log_end_lsn FROM sys.dm_db_log_stats(DB_ID())";

/// What [`LOG_END`] gave.
pub(crate) fn log_end(rows: &[tiberius::Row]) -> Result<Lsn> {
    let text = rows.first().and_then(|row| row.text(0));
    text.and_then(Lsn::of_text).ok_or_else(|| undecodable("the server did not tell the end of its log"))
}

/// The sessions of a connector.
pub(crate) type Pool = tidemark_login::Pool<Session>;

/// A session taken from the pool.
pub(crate) type Lease<'a> = tidemark_login::Lease<'a, Session>;
