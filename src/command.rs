//! What an operator can ask of a running daemon: the words between [`crate::admin`], which hears them, and the
//! pipeline, which obeys.

use serde::{Deserialize, Serialize};
use std::fmt;
use tokio::sync::oneshot;

/// Where the pipeline answers a command.
pub type Reply<T> = oneshot::Sender<AdminReply<T>>;

/// The pipeline's answer to a command.
pub type AdminReply<T> = Result<T, AdminError>;

/// A command for the pipeline. Dropping a reply unanswered tells the caller that the daemon is stopping.
#[derive(Debug)]
pub enum AdminCommand {
    /// Send nothing more until [`AdminCommand::Resume`]; what is in flight is finished. The state survives a restart.
    /// Answered when nothing is in flight. Pausing a paused tenant is no error.
    Pause(Reply<()>),
    /// Go on. Resuming a running tenant is no error.
    Resume(Reply<()>),
    /// Read again; only differences are sent unless forced.
    Resync(ResyncRequest, Reply<ResyncPlan>),
    /// Try dead letters again: each becomes a read of the *present* row. Answers how many.
    RetryDeadLetters(DeadLetterSelection, Reply<u64>),
    /// Forget dead letters; the CRM stays without those changes. Answers how many.
    DropDeadLetters(DeadLetterSelection, Reply<u64>),
    /// Bring these records in order, durably: the answer comes after the obligations are saved.
    QueueRepairs(Vec<Repair>, Reply<RepairReceipt>),
    /// Drain, save and exit as on SIGTERM. Answered at once.
    Stop(Reply<()>),
}

/// A command that was refused or failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AdminError {
    /// Stable word (`unknown_table`, `stopping` …).
    pub code: String,
    /// What was observed, and what was wanted.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
}

impl AdminError {
    /// An error with no hint.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), hint: None }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for AdminError {}

/// What to read again, and how.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResyncRequest {
    /// What to read.
    pub scope: ResyncScope,
    /// Send every record, also those whose document is the one that the CRM accepted last; and sweep beyond the guard.
    #[serde(default)]
    pub force: bool,
    /// Only say what would be read.
    #[serde(default)]
    pub dry_run: bool,
}

/// Part of the source to read again.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResyncScope {
    /// Every mapped table.
    All,
    /// One table, by name or `schema.name`.
    Table(String),
    /// Every table that feeds this entity.
    Entity(String),
    /// One record: entity and external id.
    Record {
        /// The entity's name.
        entity: String,
        /// The record's external id.
        external_id: String,
    },
}

/// Prints no external id: keys are row values (P8).
impl fmt::Debug for ResyncScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResyncScope::All => f.write_str("All"),
            ResyncScope::Table(name) => write!(f, "Table({name})"),
            ResyncScope::Entity(name) => write!(f, "Entity({name})"),
            ResyncScope::Record { entity, .. } => write!(f, "Record({entity})"),
        }
    }
}

/// What a resync reads.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ResyncPlan {
    /// Tables that are (or would be) read from their beginning.
    pub tables: Vec<ResyncTable>,
    /// Records that are read by key instead.
    pub records: u64,
    /// Whether it has begun (not with `dry_run`).
    pub started: bool,
}

/// One table of a [`ResyncPlan`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ResyncTable {
    /// `schema.name`.
    pub name: String,
    /// Rows the source believes it has.
    pub rows_estimate: Option<u64>,
}

/// Which dead letters.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadLetterSelection {
    /// Only of this entity.
    pub entity: Option<String>,
    /// Only with this reason's code.
    pub code: Option<String>,
    /// Only these, by number as `dead-letters list` shows it; empty is all.
    pub ids: Vec<String>,
}

/// Counts the ids: they may hold keys (P8).
impl fmt::Debug for DeadLetterSelection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeadLetterSelection({:?}, {:?}, {} ids)", self.entity, self.code, self.ids.len())
    }
}

/// One record to bring in order.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// Read the row with this key again and send what the rule makes of it, even if the ledger says that the CRM has it.
    Reread {
        /// The rule's name.
        rule: String,
        /// [`tidemark_contract::RowKey::as_bytes`], base64.
        key: String,
    },
    /// The CRM has a record that no row makes: delete it if the ledger knows it as ours (by reading its row again and
    /// finding none), else leave it and count it as unknown.
    Extra {
        /// The entity's name.
        entity: String,
        /// The record's external id.
        external_id: String,
    },
}

/// Prints neither key nor external id (P8).
impl fmt::Debug for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Repair::Reread { rule, .. } => write!(f, "Reread({rule})"),
            Repair::Extra { entity, .. } => write!(f, "Extra({entity})"),
        }
    }
}

/// What became of repairs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RepairReceipt {
    /// Saved; they are carried out as soon as possible.
    pub queued: u64,
    /// Extra records that the ledger does not know as ours: left alone.
    pub unknown: u64,
}
