//! The checkpoint database: what must be atomic, and what proves that nothing of it is missing.
//!
//! Every [`Step`] is one sled batch in one tree, flushed and synced before [`CheckpointDb::commit`] returns. The head
//! record carries the sum of the checksums of all other records (`digest`) and the number of the commit. On opening,
//! everything is read once: each record's checksum, the digest, and the number against the `witness` file. So a byte
//! that changed, a record that vanished, and a log that was cut back to an older state are all [`StoreError::Damaged`],
//! and never "no checkpoint" or, worse, an older one (P1, P4).

use super::changes::{Changes, Collected, decode};
use super::db::{Database, MAX_VALUE, Writes};
use super::error::{Result, StoreError};
use super::frame;
use super::keys;
use super::marks::mark_of;
use super::memory::{Event, Memory};
use super::types::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The format this version writes, and the newest it reads.
pub(super) const FORMAT: u32 = 1;
/// sled's cache for this database; it is small.
const CACHE: u64 = 4 << 20;
/// How far the log file is written ahead of sled.
const AHEAD: u64 = 2 << 20;
const MARKS_PER_RECORD: usize = 4096;
/// So many records of marks that are not full are put together into full ones.
const LOOSE_MARK_RECORDS: usize = 128;
const HISTORY_KEPT: usize = 10;

#[derive(Serialize, Deserialize)]
struct FormatRecord {
    format: u32,
    written_by: String,
}

/// The record that every commit rewrites.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) sequence: u64,
    digest: u64,
    /// Without its tables: those have records of their own.
    checkpoint: Option<Checkpoint>,
    next_id: u64,
    /// The ledger had become durable up to here at the latest.
    #[serde(default)]
    pub(super) ledger_sequence: u64,
    #[serde(default)]
    pub(super) ledger_lost: bool,
}

pub(super) struct CheckpointDb {
    pub(super) db: Database,
    pub(super) head: Head,
    pub(super) checkpoint: Option<Checkpoint>,
    /// Records of marks that are not full, by table.
    loose: LooseMarks,
    /// A write failed: whether it reached the disk is not known, and sled answers nothing more.
    is_broken: bool,
}

type LooseMarks = BTreeMap<String, Vec<u64>>;

/// What reading the whole database gives.
struct Contents {
    head: Head,
    checkpoint: Option<Checkpoint>,
    memory: Memory,
    loose: LooseMarks,
}

impl CheckpointDb {
    /// Opens or creates the database and reads all of it. `expected` is the witness: the number of a commit that is
    /// known to have been durable.
    pub(super) fn open(path: &Path, expected: Option<u64>) -> Result<(Self, Memory)> {
        let db = Database::open(path, CACHE)?;
        let format = match db.get(keys::FORMAT)? {
            Some(stored) => Some(decode::<FormatRecord>(path, keys::FORMAT, &stored)?.format),
            None => None,
        };
        match format {
            Some(found) if found > FORMAT => {
                return Err(StoreError::TooNew { path: path.to_path_buf(), found, supported: FORMAT });
            }
            Some(_) => {}
            None if db.is_empty()? && expected.is_none() => return Self::create(db),
            None => return Err(StoreError::damaged(path, "it is empty, but a checkpoint was saved here before")),
        }
        let Contents { head, checkpoint, memory, loose } = Self::read(&db, expected)?;
        Ok((Self { db, head, checkpoint, loose, is_broken: false }, memory))
    }

    /// After a write that failed, opens the database again and reads all of it: the write is there as a whole or not at
    /// all. `None` if nothing had failed.
    pub(super) fn heal(&mut self) -> Result<Option<Memory>> {
        if !self.is_broken {
            return Ok(None);
        }
        self.db.reopen()?;
        let Contents { head, checkpoint, memory, loose } = Self::read(&self.db, Some(self.head.sequence))?;
        self.head = head;
        self.checkpoint = checkpoint;
        self.loose = loose;
        self.is_broken = false;
        Ok(Some(memory))
    }

    fn create(db: Database) -> Result<(Self, Memory)> {
        let mut this = Self { db, head: Head::default(), checkpoint: None, loose: LooseMarks::new(), is_broken: false };
        let mut changes = this.changes();
        let record = FormatRecord { format: FORMAT, written_by: env!("CARGO_PKG_VERSION").to_string() };
        changes.put(keys::FORMAT.to_vec(), &record)?;
        let (writes, delta) = changes.finish()?;
        this.write(writes, delta, Head::default())?;
        Ok((this, Memory::default()))
    }

    fn read(db: &Database, expected: Option<u64>) -> Result<Contents> {
        let path = db.path().to_path_buf();
        let mut head: Option<Head> = None;
        let mut tables = BTreeMap::new();
        let mut memory = Memory::default();
        let mut loose = LooseMarks::new();
        let mut digest = 0u64;
        let broken = || StoreError::damaged(&path, "a record's key is malformed");
        db.for_each(b"", |key, stored| {
            let payload = frame::unseal(key, stored).map_err(|what| StoreError::damaged(&path, what))?;
            if key == keys::HEAD {
                head = Some(decode(&path, key, stored)?);
                return Ok(());
            }
            digest = digest.wrapping_add(frame::digest(stored));
            match key.first().copied().unwrap_or_default() {
                keys::TABLE => {
                    let (name, _) = keys::split_name(key).ok_or_else(broken)?;
                    tables.insert(name.to_string(), decode::<TableState>(&path, key, stored)?);
                }
                keys::MARK => {
                    let (table, number) = keys::split_mark(key).ok_or_else(broken)?;
                    memory.load_marks(table, payload);
                    if payload.len() < MARKS_PER_RECORD * 16 {
                        loose.entry(table.to_string()).or_default().push(number);
                    }
                }
                keys::OBLIGATION => memory.add_obligation(key, &decode(&path, key, stored)?),
                keys::LETTER => {
                    let letter: DeadLetter = decode(&path, key, stored)?;
                    memory.add_letter(&keys::record(keys::LETTER_OF, &letter.rule, &letter.key), &letter.entity);
                }
                _ => {}
            }
            Ok(())
        })?;
        let head = head.ok_or_else(|| StoreError::damaged(&path, "the head record is missing"))?;
        if head.digest != digest {
            return Err(StoreError::damaged(&path, "records are missing or older than the head record says"));
        }
        if let Some(expected) = expected.filter(|&expected| expected > head.sequence) {
            return Err(StoreError::damaged(
                &path,
                format!("it ends at commit {}, but commit {expected} was saved", head.sequence),
            ));
        }
        let mut checkpoint = head.checkpoint.clone();
        if let Some(checkpoint) = &mut checkpoint {
            checkpoint.tables = tables;
        }
        Ok(Contents { head, checkpoint, memory, loose })
    }

    fn changes(&self) -> Changes<'_> {
        Changes::new(&self.db)
    }

    /// Writes a batch and the head; returns when they are durable.
    fn write(&mut self, mut writes: Writes, delta: u64, mut head: Head) -> Result<()> {
        head.sequence = self.head.sequence + 1;
        head.digest = self.head.digest.wrapping_add(delta);
        let payload = serde_json::to_vec(&head).map_err(|e| StoreError::Bug(e.to_string()))?;
        if payload.len() > MAX_VALUE {
            return Err(StoreError::Bug(format!("the head record has {} bytes", payload.len())));
        }
        writes.push((keys::HEAD.to_vec(), Some(frame::seal(keys::HEAD, &payload))));
        self.is_broken = true;
        self.db.apply(writes)?;
        self.db.flush_durable()?;
        self.is_broken = false;
        self.head = head;
        // The step is saved; that the next one will be slower is no reason to deny it.
        if let Err(e) = self.db.prepare(AHEAD) {
            tracing::debug!(error = %e, "no room could be prepared for the next steps");
        }
        Ok(())
    }

    /// Saves `step`; returns when they are durable, with what changes in memory.
    /// `imported_marks` are saved with those of the step.
    pub(super) fn commit(
        &mut self,
        step: &Step,
        imported_marks: BTreeMap<String, Vec<u128>>,
        ledger_sequence: u64,
    ) -> Result<Vec<Event>> {
        let mut head = self.head.clone();
        let mut events = Vec::new();
        let mut changes = self.changes();
        let mut next_id = || {
            head.next_id += 1;
            head.next_id
        };

        changes.put_tables(self.checkpoint.as_ref(), &step.checkpoint)?;
        for table in &step.clear_marks {
            changes.clear_marks(table)?;
            events.push(Event::MarksCleared(table.clone()));
        }
        let mut loose = self.loose.clone();
        loose.retain(|table, _| !step.clear_marks.contains(table));
        let mut marks = imported_marks;
        for (table, key) in &step.add_marks {
            marks.entry(table.clone()).or_default().push(mark_of(key));
        }
        for (table, marks) in marks {
            let mut payload: Vec<u8> = marks.iter().flat_map(|mark| mark.to_be_bytes()).collect();
            let records = loose.entry(table.clone()).or_default();
            if records.len() >= LOOSE_MARK_RECORDS {
                for number in records.drain(..) {
                    payload.extend(changes.take_marks(keys::mark(&table, number))?);
                }
            }
            for part in payload.chunks(MARKS_PER_RECORD * 16) {
                let number = next_id();
                changes.set(keys::mark(&table, number), part);
                if part.len() < MARKS_PER_RECORD * 16 {
                    records.push(number);
                }
            }
            events.push(Event::MarksAdded(table, marks));
        }
        for gone in &step.remove_obligations {
            let key = keys::record(keys::OBLIGATION, &gone.rule, &gone.key);
            if let Some(old) = changes.get::<Obligation>(&key)?
                && gone.stamp.is_none_or(|stamp| stamp == old.stamp)
            {
                changes.remove_obligation(key, old, &mut events);
            }
        }
        for obligation in &step.put_obligations {
            let key = keys::record(keys::OBLIGATION, &obligation.rule, &obligation.key);
            if let Some(old) = changes.get::<Obligation>(&key)? {
                changes.remove_obligation(key.clone(), old, &mut events);
            }
            let obligation = Obligation { stamp: next_id(), ..obligation.clone() };
            changes.put_obligation(key, obligation, &mut events)?;
        }
        for gone in &step.remove_dead_letters {
            changes.remove_letter(keys::record(keys::LETTER_OF, &gone.rule, &gone.key), &mut events)?;
        }
        for letter in &step.put_dead_letters {
            let key = keys::record(keys::LETTER_OF, &letter.rule, &letter.key);
            let id = changes.remove_letter(key.clone(), &mut events)?.unwrap_or_else(&mut next_id);
            changes.put_letter(key, DeadLetter { id, ..letter.clone() }, &mut events)?;
        }

        let mut checkpoint = step.checkpoint.clone();
        checkpoint.saved_at = now_micros();
        let (writes, delta) = changes.finish()?;
        head.checkpoint = Some(Checkpoint { tables: BTreeMap::new(), ..checkpoint.clone() });
        head.ledger_sequence = ledger_sequence;
        self.write(writes, delta, head)?;
        self.checkpoint = Some(checkpoint);
        self.loose = loose;
        Ok(events)
    }

    /// Saves whether the ledger has lost entries that no full pass has brought back yet.
    pub(super) fn set_ledger_lost(&mut self, lost: bool, ledger_sequence: u64) -> Result<()> {
        let head = Head { ledger_lost: lost, ledger_sequence, ..self.head.clone() };
        self.write(Writes::new(), 0, head)
    }

    /// Forgets what `scope` says, keeping the checkpoint as it was for [`CheckpointDb::undo`].
    pub(super) fn reset(&mut self, scope: &ResetScope) -> Result<Vec<Event>> {
        let Some(before) = self.checkpoint.clone() else {
            return Err(StoreError::Refused { message: "there is no checkpoint yet".into(), hint: None });
        };
        let mut checkpoint = before.clone();
        let mut cleared = Vec::new();
        match scope {
            ResetScope::All => {
                checkpoint.position = None;
                checkpoint.dispatched = None;
                for (name, table) in &mut checkpoint.tables {
                    table.phase = TablePhase::PENDING;
                    cleared.push(name.clone());
                }
            }
            ResetScope::Table(name) => {
                let Some(table) = checkpoint.tables.get_mut(name) else {
                    let known: Vec<_> = before.tables.keys().map(String::as_str).collect();
                    return Err(StoreError::Refused {
                        message: format!("the checkpoint knows no table `{name}`"),
                        hint: Some(format!("it knows: {}", known.join(", "))),
                    });
                };
                // A pass of its own: rows that it does not see have to be older than it.
                checkpoint.generation += 1;
                table.generation = checkpoint.generation;
                table.phase = TablePhase::PENDING;
                cleared.push(name.clone());
            }
        }
        let mut head = self.head.clone();
        head.next_id += 1;
        let entry =
            HistoryEntry { id: head.next_id, at: now_micros() / 1000, scope: scope.clone(), checkpoint: before };
        let mut changes = self.changes();
        changes.add_history(&entry, HISTORY_KEPT)?;
        self.replace(changes.into_parts(), head, checkpoint, cleared)
    }

    /// Goes back to the checkpoint of a history entry. Marks were not kept, so tables that were in their snapshot begin
    /// it again; versions and generations never go back.
    pub(super) fn undo(&mut self, id: u64) -> Result<Vec<Event>> {
        let Some(entry) = self.history()?.into_iter().find(|entry| entry.id == id) else {
            return Err(StoreError::Refused {
                message: format!("there is no earlier checkpoint {id}"),
                hint: Some("`tidemark checkpoint show TENANT` lists them".into()),
            });
        };
        let mut checkpoint = entry.checkpoint;
        if let Some(now) = &self.checkpoint {
            checkpoint.next_version = checkpoint.next_version.max(now.next_version);
            checkpoint.generation = checkpoint.generation.max(now.generation);
            checkpoint.dispatched_unknown = true;
        }
        let mut cleared = Vec::new();
        for (name, table) in &mut checkpoint.tables {
            cleared.push(name.clone());
            if matches!(table.phase, TablePhase::Snapshot { .. }) {
                table.phase = TablePhase::PENDING;
            }
        }
        let mut changes = self.changes();
        changes.remove_history(id)?;
        let head = self.head.clone();
        self.replace(changes.into_parts(), head, checkpoint, cleared)
    }

    fn replace(
        &mut self,
        collected: Collected,
        mut head: Head,
        mut checkpoint: Checkpoint,
        cleared: Vec<String>,
    ) -> Result<Vec<Event>> {
        let mut changes = Changes::with(&self.db, collected);
        changes.put_tables(self.checkpoint.as_ref(), &checkpoint)?;
        let mut events = Vec::new();
        let mut loose = self.loose.clone();
        for table in cleared {
            changes.clear_marks(&table)?;
            loose.remove(&table);
            events.push(Event::MarksCleared(table));
        }
        checkpoint.saved_at = now_micros();
        head.checkpoint = Some(Checkpoint { tables: BTreeMap::new(), ..checkpoint.clone() });
        let (writes, delta) = changes.finish()?;
        self.write(writes, delta, head)?;
        self.checkpoint = Some(checkpoint);
        self.loose = loose;
        Ok(events)
    }

    /// Earlier checkpoints, oldest first.
    pub(super) fn history(&self) -> Result<Vec<HistoryEntry>> {
        Changes::new(&self.db).history()
    }

    /// Puts the checkpoint of a side copy into a new database, whose commits are numbered on from `sequence`: the older
    /// copies and the witness must not look newer than what is written from now on.
    pub(super) fn install(&mut self, checkpoint: Checkpoint, sequence: u64) -> Result<()> {
        self.head.sequence = self.head.sequence.max(sequence);
        let head = self.head.clone();
        self.replace(Collected::default(), head, checkpoint, Vec::new()).map(drop)
    }
}

/// Microseconds since 1970 by this host's clock.
pub(super) fn now_micros() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}
