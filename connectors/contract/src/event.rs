//! What a tail delivers.

use crate::{Position, Row, TableId, TableSchema};
use std::sync::Arc;

/// What happened to a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ChangeOp {
    /// A new row; `row` is complete as far as the log carries it.
    Insert,
    /// A changed row whose key is the same as before (a changed key arrives as delete + insert, R5).
    Update,
    /// The row is gone; `row` carries at least the key, other columns may be unchanged (not known).
    Delete,
    /// All rows of the table are gone at once; `row` is empty.
    Truncate,
}

impl ChangeOp {
    /// The word used in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            ChangeOp::Insert => "insert",
            ChangeOp::Update => "update",
            ChangeOp::Delete => "delete",
            ChangeOp::Truncate => "truncate",
        }
    }
}

/// One change of one row.
#[derive(Clone, Debug)]
pub struct ChangeEvent {
    /// The schema that `row` and `old` were written with (R12).
    pub schema: Arc<TableSchema>,
    /// What happened.
    pub op: ChangeOp,
    /// The row after the change (before it, for a delete).
    pub row: Row,
    /// The whole row before an update, where the log carries it.
    pub old: Option<Row>,
    /// Commit time at the source in microseconds since 1970 (UTC), by the source's clock. Only for lag and display:
    /// order never comes from clocks.
    pub committed_at: i64,
}

/// One message of a change stream.
#[derive(Clone, Debug)]
pub enum SourceMessage {
    /// A row changed.
    Change(ChangeEvent),
    /// A source transaction ended; everything up to here has been delivered, and the stream may be resumed from and
    /// acknowledged at this position.
    Commit(Position),
    /// A place inside a large transaction from which the stream may be resumed (R2). Acknowledging it lets the vendor
    /// forget only what lies before that transaction. A connector that can resume there gives one at least every few
    /// thousand changes and every few MiB: what lies behind the last place cannot be sent yet, and takes memory.
    Resumable(Position),
    /// The table's schema as of here: sent before the first change of each table and after each change of schema. A
    /// requested column that no longer exists is missing from it.
    Schema(Arc<TableSchema>),
    /// From here on rows of this table may hold other values than were told, and the log does not tell which: a statement
    /// changed the columns' stored values in place (another type, a column dropped and added again). The table is read
    /// again from here, and only differences are sent.
    Rewritten(TableId),
    /// Nothing is pending: the log was read up to here and held nothing more for us. Sent first on every stream, then
    /// when the source reports its position, and on [`crate::ChangeStream::request_position`].
    Idle(Position),
}
