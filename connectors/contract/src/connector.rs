//! The two traits a connector implements, and what passes through them.

use crate::{Finding, Position, Result, Row, RowKey, SourceMessage, TableId, TableSchema};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a connector can do. Must be truthful: the conformance battery checks what is claimed, and only that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// Streams can be resumed inside a transaction ([`SourceMessage::Resumable`] is sent).
    pub resume_inside_transaction: bool,
    /// The log may leave columns out of an update ([`crate::Value::Unchanged`]).
    pub partial_updates: bool,
    /// Truncation of a table is reported.
    pub truncate: bool,
    /// Changes are net: a row comes as it is when it is read, never older than anything that was told of it before, in this
    /// stream or in an earlier one. May become true only once a stream is open.
    pub net_changes: bool,
    /// The vendor keeps log for us until we acknowledge ([`crate::ChangeStream::acknowledge`] has an effect).
    pub acknowledgement_holds_log: bool,
}

/// A table the daemon wants to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableRequest {
    /// Its name.
    pub table: TableId,
    /// The columns wanted; `None` is all. Key columns are added by the connector.
    pub columns: Option<Vec<Box<str>>>,
    /// A unique key declared for a table without a primary key.
    pub key: Option<Vec<Box<str>>>,
}

/// How far a snapshot of a table has come: the last key read, in a form only the connector reads.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanCursor(pub Box<str>);

/// Prints the length only: a cursor holds key values (R9, P8).
impl fmt::Debug for ScanCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScanCursor({} B)", self.0.len())
    }
}

/// One page of a table, in key order as the *server* sorts.
#[derive(Debug)]
pub struct SnapshotChunk {
    /// The schema of `rows`.
    pub schema: Arc<TableSchema>,
    /// Complete rows: no value is [`crate::Value::Unchanged`].
    pub rows: Vec<Row>,
    /// Where the next page begins; `None` when the table is at its end.
    pub next: Option<ScanCursor>,
    /// Every transaction this read saw is at or before this place (see the crate's documentation).
    pub barrier: Position,
}

/// Rows read by key.
#[derive(Debug)]
pub struct FetchedRows {
    /// The schema of the rows.
    pub schema: Arc<TableSchema>,
    /// For each key asked for, in that order: the row, or `None` if there is none.
    pub rows: Vec<Option<Row>>,
    /// As in [`SnapshotChunk::barrier`].
    pub barrier: Position,
}

/// How far behind a position is, and how long the log will last. Unknown parts are `None`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Lag {
    /// Bytes of log between the position and the log's head.
    pub pending_bytes: Option<u64>,
    /// How long until the log no longer reaches back to the position, where the vendor keeps it by time.
    pub retention: Option<Duration>,
    /// Bytes of log that the vendor keeps because of us.
    pub retained_bytes: Option<u64>,
    /// Bytes that may still be retained before the vendor drops our log (PostgreSQL: `safe_wal_size`).
    pub retention_bytes_left: Option<u64>,
}

/// One vendor protocol.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Short name of the vendor (`postgres`), as in the tenant file.
    fn name(&self) -> &'static str;

    /// What this connector can do.
    fn capabilities(&self) -> Capabilities;

    /// Looks at every prerequisite (settings, rights, keys, what the log needs) and reports all of them at once, the
    /// good ones included. Creates and changes nothing. Fails only if the server cannot be asked at all.
    async fn preflight(&self, tables: &[TableRequest]) -> Result<Vec<Finding>>;

    /// The schemas of `tables`, in that order; all user tables with all columns if `tables` is empty. A requested
    /// table that does not exist, or has no usable key, is [`crate::ErrorKind::SettingWrong`] with the reason;
    /// a requested column that does not exist is left out.
    async fn discover(&self, tables: &[TableRequest]) -> Result<Vec<Arc<TableSchema>>>;

    /// Rows in `table` by the vendor's own estimate; `None` if it has none. Cheap: never counts.
    async fn estimate_rows(&self, table: &TableId) -> Result<Option<u64>>;

    /// Opens the tail for `tables`. With `from = None` it creates what the log needs and begins now; with a position
    /// it delivers everything after it (R2), or fails with [`crate::ErrorKind::PositionLost`] (R3). At most one stream
    /// of a connector is open at a time.
    async fn open_stream(&self, tables: &[TableRequest], from: Option<&Position>) -> Result<Box<dyn ChangeStream>>;

    /// Whether a tail that has reached `reached` has delivered everything up to `goal`. The one place where positions
    /// are compared; positions of different logs are [`crate::ErrorKind::PositionLost`].
    fn covers(&self, reached: &Position, goal: &Position) -> Result<bool>;

    /// Reads up to `limit` rows (fewer if they are large) after `after` in key order, in one short statement. No
    /// transaction stays open between calls. May be called for several tables at once.
    async fn snapshot_chunk(
        &self,
        table: &TableRequest,
        after: Option<&ScanCursor>,
        limit: usize,
    ) -> Result<SnapshotChunk>;

    /// Reads the rows with these keys, in one round trip. The read sees every transaction that the open stream has handed
    /// over: a commit may be in the log before other sessions see it, and a row that is read *because* the tail spoke of
    /// it must not be the row from before. So does [`Connector::find_rows`].
    async fn fetch_rows(&self, table: &TableRequest, keys: &[RowKey]) -> Result<FetchedRows>;

    /// Reads the rows whose `columns` (which `table` requests) have the values of one of `keys`, each key as
    /// [`RowKey::of`] makes it of those columns, though its values may come from a table that points to this one. Up to
    /// `limit` rows after `after` in the table's key order, in one short statement: how related rows are found. A key
    /// with a null finds nothing, and a row is given once however often its values are asked for. What is equal is the
    /// server's to say (a collation may ignore case).
    async fn find_rows(
        &self,
        table: &TableRequest,
        columns: &[Box<str>],
        keys: &[RowKey],
        after: Option<&ScanCursor>,
        limit: usize,
    ) -> Result<SnapshotChunk>;

    /// How far `from` is behind, and how long the log will last.
    async fn lag(&self, from: Option<&Position>) -> Result<Lag>;

    /// Removes what [`Connector::open_stream`] created on the server (a slot, a publication), and names what it
    /// removed. Not an error if there is nothing.
    async fn release(&self) -> Result<Vec<String>>;
}

/// A running tail.
#[async_trait]
pub trait ChangeStream: Send {
    /// Waits for messages and appends at least one to `out`. Cancel-safe: a dropped call loses nothing. Several
    /// messages are handed over at once because waking up per change costs more than decoding it. Memory is bounded:
    /// one call appends at most a few hundred kilobytes of rows beyond a single row's size (R7).
    async fn next(&mut self, out: &mut Vec<SourceMessage>) -> Result<()>;

    /// Tells the vendor that everything up to `position` is durable here and may be forgotten. Only positions received
    /// from this log, never going back. May be delayed and folded by the connector; keeps being repeated to the vendor
    /// for as long as [`ChangeStream::next`] is being polled or the stream's own timer runs.
    async fn acknowledge(&mut self, position: &Position) -> Result<()>;

    /// Asks for a [`SourceMessage::Idle`] as soon as the source has nothing more to send up to its present head. Cheap;
    /// calling it again before the answer has no effect.
    async fn request_position(&mut self) -> Result<()>;

    /// Ends the stream in order; sends the last acknowledgement first. Dropping instead leaves nothing behind either.
    async fn close(self: Box<Self>) -> Result<()>;
}
