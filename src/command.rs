//! What an operator can ask of a running daemon: the words between [`crate::admin`], which hears them, and the
//! pipeline, which obeys.

use crate::store::{Checkpoint, DeadLetter, HistoryEntry, Store};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use tidemark_contract::RowKey;
use tokio::sync::oneshot;

/// Where the pipeline answers a command.
pub type Reply<T> = oneshot::Sender<AdminReply<T>>;

/// The pipeline's answer to a command.
pub type AdminReply<T> = Result<T, AdminError>;

/// A command for the pipeline. Dropping a reply unanswered tells the caller that the daemon is stopping.
#[derive(Debug)]
pub enum AdminCommand {
    /// Send nothing more until [`AdminCommand::Resume`]; what is in flight is finished. Outlasts a restart
    /// ([`PauseMark`]). Answered when nothing is in flight. Pausing a paused tenant is no error.
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
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeadLetterSelection {
    /// Only of this entity.
    pub entity: Option<String>,
    /// Only with this reason's code.
    pub code: Option<String>,
    /// Only these, by number ([`crate::store::DeadLetter::id`]); empty is all.
    pub ids: Vec<u64>,
}

impl DeadLetterSelection {
    /// Whether `letter` is one of them.
    pub fn contains(&self, letter: &DeadLetter) -> bool {
        self.entity.as_ref().is_none_or(|e| *e == letter.entity)
            && self.code.as_ref().is_none_or(|c| *c == letter.code)
            && (self.ids.is_empty() || self.ids.contains(&letter.id))
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
        /// The row's key ([`Repair::row_key`] reads it): base64 of its bytes.
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

impl Repair {
    /// A reread of the row with this key.
    pub fn reread(rule: &str, key: &RowKey) -> Self {
        Self::Reread { rule: rule.into(), key: STANDARD.encode(key.as_bytes()) }
    }

    /// The row's key of a reread; `None` if it is malformed, or for an extra record.
    pub fn row_key(&self) -> Option<RowKey> {
        let Repair::Reread { key, .. } = self else { return None };
        RowKey::from_bytes(&STANDARD.decode(key).ok()?)
    }
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

/// The pause of a tenant: a file in its state directory, so that it outlasts restarts, can be set while no daemon runs,
/// and is seen by whoever looks there.
#[derive(Clone, Debug)]
pub struct PauseMark(PathBuf);

impl PauseMark {
    /// The mark of the tenant whose state directory this is.
    pub fn of(state_dir: &Path) -> Self {
        Self(state_dir.join("paused"))
    }

    /// Whether the tenant is paused.
    pub fn is_set(&self) -> bool {
        self.0.exists()
    }

    /// Pauses. Durable on return.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set(&self) -> std::io::Result<()> {
        std::fs::File::create(&self.0)?.sync_all()?;
        self.sync_directory()
    }

    /// Ends the pause. Durable on return; not an error if there was none.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn clear(&self) -> std::io::Result<()> {
        match std::fs::remove_file(&self.0) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
            _ => self.sync_directory(),
        }
    }

    fn sync_directory(&self) -> std::io::Result<()> {
        self.0.parent().map_or(Ok(()), |dir| std::fs::File::open(dir)?.sync_all())
    }
}

/// The checkpoint and what belongs to it, for people and scripts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CheckpointView {
    /// As last saved; `None` before the first one.
    pub checkpoint: Option<Checkpoint>,
    /// Earlier ones that were reset, oldest first.
    pub history: Vec<HistoryEntry>,
    /// Records that must be read again, by reason.
    pub obligations: BTreeMap<String, u64>,
    /// Dead letters by entity.
    pub dead_letters: BTreeMap<String, u64>,
    /// Bytes on disk of the checkpoint database.
    pub checkpoint_bytes: u64,
    /// Bytes on disk of the ledger.
    pub ledger_bytes: u64,
    /// Whether the ledger lost entries and no full pass has ended since.
    pub ledger_lost: bool,
}

/// A page of the ledger.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LedgerPage {
    /// The rule whose records these are; none if there are no more.
    pub rule: Option<String>,
    /// External id, and hash of the last accepted document.
    pub records: Vec<(String, u64)>,
    /// The rule to ask for next, after [`LedgerPage::after`].
    pub next: Option<String>,
    /// See `next`; none is its beginning.
    pub after: Option<String>,
}

impl LedgerPage {
    /// Up to `limit` records of `rule` (of the first one that has any) after `after`. Blocks.
    ///
    /// # Errors
    /// As the store's own calls.
    pub fn of(store: &Store, rule: Option<&str>, after: Option<&str>, limit: usize) -> crate::store::Result<Self> {
        let mut rules = store.ledger().rules();
        rules.sort();
        let at = rule.map_or(0, |rule| rules.partition_point(|(name, _)| **name < *rule));
        let Some((name, number)) = rules.get(at) else { return Ok(Self::default()) };
        let after = after.filter(|_| rule == Some(name));
        let page = store.ledger().records(*number, after, limit)?;
        let is_whole = page.len() < limit;
        let last = page.last().map(|record| record.external_id.to_string());
        Ok(Self {
            rule: Some(name.clone()),
            records: page.into_iter().map(|record| (record.external_id.into(), record.entry.hash)).collect(),
            next: if is_whole { rules.get(at + 1).map(|(name, _)| name.clone()) } else { Some(name.clone()) },
            after: if is_whole { None } else { last },
        })
    }
}

/// Prints no external ids (P8).
impl fmt::Debug for LedgerPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LedgerPage({:?}, {} records)", self.rule, self.records.len())
    }
}

impl CheckpointView {
    /// What `store` holds now. Blocks.
    ///
    /// # Errors
    /// As the store's own calls.
    pub fn of(store: &Store) -> crate::store::Result<Self> {
        let (checkpoint_bytes, ledger_bytes) = store.size_on_disk()?;
        let mut obligations = BTreeMap::new();
        for ((_, reason), n) in store.obligation_counts() {
            *obligations.entry(reason.to_owned()).or_default() += n;
        }
        Ok(Self {
            checkpoint: store.load(),
            history: store.history()?,
            obligations,
            dead_letters: store.dead_letter_counts(),
            checkpoint_bytes,
            ledger_bytes,
            ledger_lost: store.ledger_lost(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_contract::{RowBuilder, Value};

    #[test]
    fn a_repair_carries_its_key_through_json_and_hides_it_in_debug() {
        let mut row = RowBuilder::default();
        row.push(Value::Text("ALFKI"));
        let key = RowKey::of(&row.finish(), &[0]).expect("complete");
        let repair = Repair::reread("customer_account", &key);
        let json = serde_json::to_string(&repair).expect("plain data");
        let back: Repair = serde_json::from_str(&json).expect("our own");
        assert_eq!(back.row_key(), Some(key));
        assert_eq!(format!("{back:?}"), "Reread(customer_account)");
        assert_eq!(Repair::Reread { rule: "r".into(), key: "%".into() }.row_key(), None);
    }

    #[test]
    fn a_pause_outlasts_everything_but_resume() {
        let dir = tempfile::tempdir().expect("a directory");
        let mark = PauseMark::of(dir.path());
        mark.clear().expect("nothing to clear is fine");
        mark.set().expect("set");
        mark.set().expect("twice is fine");
        assert!(PauseMark::of(dir.path()).is_set());
        mark.clear().expect("cleared");
        assert!(!mark.is_set());
    }
}
