//! What the store keeps.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use tidemark_contract::{Position, RowKey, ScanCursor};

/// Where the daemon stands. Saved whole by every [`Step`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The tenant this belongs to.
    pub tenant: String,
    /// Identity of the source as configured (engine, host, port, database): a checkpoint is refused for another one.
    pub source: String,
    /// Everything at or before this place is settled; the tail goes on from here. `None` before the first stream.
    pub position: Option<Position>,
    /// Changes up to this place may have been sent: after a restart, nothing is sent until the tail covers it.
    pub dispatched: Option<Position>,
    /// `dispatched` is not known to be the last one (after [`crate::store::Store::recover_from_copy`]): nothing is sent
    /// until the tail covers the source's head as it is at the start.
    #[serde(default)]
    pub dispatched_unknown: bool,
    /// No version at or above this was ever used: a ceiling, reserved ahead of use.
    pub next_version: u64,
    /// Number of the last pass over the tables that was begun.
    pub generation: u32,
    /// By table name (`schema.table`).
    pub tables: BTreeMap<String, TableState>,
    /// When this was saved: microseconds since 1970, UTC.
    pub saved_at: i64,
}

/// Where one table stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableState {
    /// What it is doing.
    pub phase: TablePhase,
    /// The pass its snapshot belongs to (or belonged to, when live).
    pub generation: u32,
    /// Rows read by the last complete snapshot.
    #[serde(default)]
    pub rows: u64,
    /// The rules fed by this table with a fingerprint of each, to notice a changed mapping.
    #[serde(default)]
    pub rules: Vec<(String, u64)>,
    /// When the last complete snapshot ended: milliseconds since 1970.
    #[serde(default)]
    pub completed_at: Option<i64>,
}

/// What a table is doing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum TablePhase {
    /// Waits for its snapshot.
    Pending {
        /// Whether every record is sent, and swept without guard: the table was truncated, or somebody said so.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// Its snapshot is being read.
    Snapshot {
        /// The last key read; `None` at the beginning.
        cursor: Option<ScanCursor>,
        /// Rows read so far.
        rows_done: u64,
        /// Milliseconds since 1970.
        started_at: i64,
        /// As of [`TablePhase::Pending`].
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// Only the tail feeds it.
    Live,
    /// Somebody has to fix something before its changes are applied again.
    NeedsAttention {
        /// What is wrong and what to do.
        reason: String,
    },
}

impl TablePhase {
    /// Waits for a snapshot that nobody forces.
    pub const PENDING: Self = Self::Pending { force: false };
}

impl TableState {
    /// A table that has never been read.
    pub fn pending(rules: Vec<(String, u64)>) -> Self {
        Self { phase: TablePhase::PENDING, generation: 0, rows: 0, rules, completed_at: None }
    }
}

/// Everything that becomes durable together, or not at all.
///
/// Within a step removals happen before additions: a record that is both removed and put is there afterwards.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// The new checkpoint, whole. `saved_at` is set by the store.
    pub checkpoint: Checkpoint,
    /// Tables whose marks are dropped (the table went live, or its snapshot begins again).
    pub clear_marks: Vec<String>,
    /// Keys of which the tail has spoken, by table.
    pub add_marks: Vec<(String, RowKey)>,
    /// Obligations that were met.
    pub remove_obligations: Vec<ObligationRef>,
    /// Obligations taken on; replaces one of the same rule and row.
    pub put_obligations: Vec<Obligation>,
    /// Dead letters that were cleared.
    pub remove_dead_letters: Vec<RecordRef>,
    /// Records set aside; replaces one of the same rule and row, keeping its number.
    pub put_dead_letters: Vec<DeadLetter>,
}

/// A rule and a source row.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RecordRef {
    /// Name of the rule.
    pub rule: String,
    /// Key of the source row.
    pub key: RowKey,
}

/// An obligation to be removed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObligationRef {
    /// Name of the rule.
    pub rule: String,
    /// Key of the source row.
    pub key: RowKey,
    /// The [`Obligation::stamp`] that was served: if the obligation was put again since, it stays. `None` removes it
    /// whatever its stamp.
    pub stamp: Option<u64>,
}

/// A source row that must be read again by key for a rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Obligation {
    /// Name of the rule.
    pub rule: String,
    /// The row's table.
    pub table: String,
    /// The row's key.
    #[serde(with = "row_key")]
    pub key: RowKey,
    /// CRM-side match key, if it is known.
    pub external_id: Option<String>,
    /// Why.
    pub reason: Reason,
    /// When it was first taken on: milliseconds since 1970.
    pub since: i64,
    /// How often it was tried.
    pub attempts: u32,
    /// Not before: milliseconds since 1970.
    pub due: i64,
    /// Send even if the ledger says that nothing changed.
    pub force: bool,
    /// Given by the store whenever the obligation is put; ignored on input.
    #[serde(default)]
    pub stamp: u64,
}

/// Why a row must be read again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The log left out a column that decides more than itself.
    Partial,
    /// The record keeps failing.
    RetryLater,
    /// The record's parent is not in the CRM yet.
    WaitingForParent {
        /// The parent's entity.
        entity: String,
        /// The parent's match key.
        external_id: String,
    },
    /// Records refer to each other in a circle: this one is sent without the reference to that parent first.
    Circle {
        /// The parent's entity.
        entity: String,
        /// The parent's match key.
        external_id: String,
    },
    /// Somebody asked for a dead letter to be tried again.
    DeadLetterRetry,
    /// A comparison found a difference.
    Repair,
    /// The record shows rows of other tables: the row, or one of those, has changed.
    Related,
    /// The record was accepted without references to parents that the CRM did not have (`missing = "null"`): it is read
    /// again when one of them lands. It owes nothing until then.
    LeftOut {
        /// Entity and match key of each.
        parents: Vec<(String, String)>,
    },
}

impl Reason {
    /// The word used in logs, metrics and status.
    pub fn as_str(&self) -> &'static str {
        match self {
            Reason::Partial => "partial",
            Reason::RetryLater => "retry_later",
            Reason::WaitingForParent { .. } => "waiting_for_parent",
            Reason::Circle { .. } => "circle",
            Reason::DeadLetterRetry => "dead_letter_retry",
            Reason::Repair => "repair",
            Reason::Related => "related",
            Reason::LeftOut { .. } => Reason::LEFT_OUT,
        }
    }

    /// The word for [`Reason::LeftOut`], which does not count as something to be done.
    pub const LEFT_OUT: &'static str = "left_out";

    /// Entity and match key of the parents that it waits for.
    pub fn parents(&self) -> impl Iterator<Item = (&str, &str)> {
        let (one, many) = match self {
            Reason::WaitingForParent { entity, external_id } => {
                (Some((entity.as_str(), external_id.as_str())), &[][..])
            }
            Reason::LeftOut { parents } => (None, &parents[..]),
            _ => (None, &[][..]),
        };
        one.into_iter().chain(many.iter().map(|(entity, id)| (entity.as_str(), id.as_str())))
    }
}

/// A record that was set aside. Holds no field values.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Number, given by the store; ignored on input.
    #[serde(default)]
    pub id: u64,
    /// When it was (last) set aside: milliseconds since 1970.
    pub at: i64,
    /// Name of the rule.
    pub rule: String,
    /// CRM entity.
    pub entity: String,
    /// The row's table.
    pub table: String,
    /// CRM-side match key, if it could be computed.
    pub external_id: Option<String>,
    /// The row's key.
    #[serde(with = "row_key")]
    pub key: RowKey,
    /// What was to be done.
    pub op: WriteOp,
    /// Stable word for the reason: the CRM's code, or the mapping's.
    pub code: String,
    /// The field it is about.
    pub field: Option<String>,
    /// The CRM's or the mapping's words.
    pub message: String,
    /// How often it was tried.
    pub attempts: u32,
}

/// What was to be done with a CRM record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum WriteOp {
    Upsert,
    Delete,
}

impl fmt::Display for WriteOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            WriteOp::Upsert => "upsert",
            WriteOp::Delete => "delete",
        })
    }
}

/// An earlier checkpoint, kept when it was reset.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Number, for undo.
    pub id: u64,
    /// When it was reset: milliseconds since 1970.
    pub at: i64,
    /// What was reset.
    pub scope: ResetScope,
    /// The checkpoint before.
    pub checkpoint: Checkpoint,
}

/// What [`crate::store::Store::reset`] forgets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResetScope {
    /// The position and every table: the next start begins a new tail and reads everything again.
    All,
    /// One table is read again; the tail and the other tables keep their places.
    Table(String),
}

/// Row keys as base64 in JSON.
pub(super) mod row_key {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use tidemark_contract::RowKey;

    pub fn serialize<S: Serializer>(key: &RowKey, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD_NO_PAD.encode(key.as_bytes()))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<RowKey, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
        let bytes = STANDARD_NO_PAD.decode(text.as_bytes()).map_err(|_| D::Error::custom("key is not base64"))?;
        RowKey::from_bytes(&bytes).ok_or_else(|| D::Error::custom("key is malformed"))
    }
}
