//! The contract every Tidemark connector obeys.
//!
//! A connector knows one vendor protocol. It reads tables in chunks ([`Connector::snapshot_chunk`]), reads single
//! rows by key ([`Connector::fetch_rows`]), finds the rows that others point to or that point to others
//! ([`Connector::find_rows`]) and tails the vendor's log ([`Connector::open_stream`]). It knows no CRM,
//! no mapping, no store and no metric; this crate in turn names no vendor, and depends on no driver and no runtime.
//!
//! # The order of calls
//!
//! 1. [`Connector::preflight`]: every unmet prerequisite at once, each with the statement that fixes it.
//! 2. [`Connector::discover`]: the schemas of the requested tables.
//! 3. [`Connector::open_stream`]: with no position, create what the log needs (a replication slot) and begin *now*;
//!    with a position, go on from it or fail with [`ErrorKind::PositionLost`]. The first message is always
//!    [`SourceMessage::Idle`] with the place from which the stream runs.
//! 4. [`Connector::snapshot_chunk`] for each table while the tail runs beside it; [`Connector::fetch_rows`] and
//!    [`Connector::find_rows`] at any time.
//! 5. [`ChangeStream::acknowledge`] after the daemon's own flush, never before.
//! 6. [`ChangeStream::close`].
//!
//! # The promises
//!
//! Each has a number, and a check of that number in the conformance crate.
//!
//! | # | promise |
//! |---|---|
//! | R1 | The order of events of one table is the source's commit order. |
//! | R2 | After [`SourceMessage::Commit`]`(p)` or [`SourceMessage::Resumable`]`(p)`, a stream opened from `p` misses nothing that was not delivered before `p`. |
//! | R3 | Replay is allowed, a silent gap is not: an expired, recreated or foreign log is [`ErrorKind::PositionLost`]. |
//! | R4 | A column that the log left out is [`Value::Unchanged`], never null. |
//! | R5 | An update of a key arrives as a delete of the old key followed by an upsert of the new one. |
//! | R6 | Malformed bytes from the server are an error, never a panic. |
//! | R7 | Memory is bounded whatever the size of a transaction, a table or a result. |
//! | R8 | Nothing is written to the vendor's tables. |
//! | R9 | Neither row values nor secrets appear in errors, `Debug` output or logs. |
//! | R10 | `close` and drop leave nothing behind on the server unless it is named ([`Connector::release`] removes those). |
//! | R11 | The same row gives the same values from snapshot and from tail, for every type. |
//! | R12 | A schema change between two events never decodes one of them with the other's schema. |
//!
//! # Watermarks: how a snapshot and a tail make one history
//!
//! A [`SnapshotChunk`] carries a `barrier`: a position such that every transaction *visible to the chunk's read* has
//! its commit at or before it. A connector obtains it by asking for the log's head **after** the read finished. Once
//! the tail has reached the barrier ([`Connector::covers`]) it has delivered everything the chunk could have seen.
//! Nothing is claimed about the head *before* the read: a commit can be in the log before it is visible to readers,
//! so "the log was at L before I read" does not prove "the read saw everything up to L".

mod connector;
pub mod error;
mod event;
mod finding;
mod position;
mod schema;
mod value;

pub use connector::{Capabilities, ChangeStream, Connector, FetchedRows, Lag, ScanCursor, SnapshotChunk, TableRequest};
pub use error::{ErrorKind, Result, SourceError};
pub use event::{ChangeEvent, ChangeOp, SourceMessage};
pub use finding::{Finding, Severity};
pub use position::Position;
pub use schema::{Column, LogicalType, TableId, TableSchema};
pub use value::{Row, RowBuilder, RowKey, Value};
