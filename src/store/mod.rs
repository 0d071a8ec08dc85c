//! What the daemon remembers: the one place that names sled.
//!
//! Two databases in the tenant's state directory, because they fail differently:
//!
//! * `checkpoint/` holds what correctness needs: positions, table states, marks, obligations, dead letters. It changes
//!   only by [`Store::commit`], one atomic and durable [`Step`] at a time. Losing any of it would be losing data, so
//!   damage is an error ([`StoreError::Damaged`]), never an empty beginning.
//! * `ledger/` holds what saves requests and finds deletes ([`Ledger`]). Losing it costs requests, so damage only moves it
//!   aside (`ledger.corrupt-<unix time>`), and [`Store::ledger_lost`] says so until a full pass has filled it again.
//!
//! Beside them: `lock` (one daemon per directory, P9), `checkpoint.json` and `checkpoint.json.1` (the side copy, from
//! which [`Store::recover_from_copy`] can begin again without losing the position), and `witness`.
//!
//! # What is durable when
//!
//! [`Store::commit`] returns after the batch is in sled's log, flushed, and the log file synced. [`Ledger`] writes may
//! lag: they are durable after [`Ledger::flush_durable`]. One order matters: a snapshot's cursor must not become durable
//! before the generations of the rows behind it ([`Ledger::touch`]), or a crash would make the sweep take living rows for
//! gone ones. So call `flush_durable` before the commit that moves a cursor.
//!
//! All calls block (disk); call them from a thread that may.

mod changes;
mod checkpoint;
mod copy;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod damage;
mod db;
mod error;
mod frame;
mod keys;
mod ledger;
mod lock;
mod marks;
mod memory;
mod quota;
#[cfg(test)]
mod tests;
mod transfer;
mod types;

pub use error::{IoTrouble, Result, StoreError};
pub use ledger::{Entry, Ledger, LedgerRule, Record};
pub use quota::DailyUse;
pub use transfer::{Moved, head as transfer_head};
pub use types::{
    Checkpoint, DeadLetter, HistoryEntry, Obligation, ObligationRef, Reason, RecordRef, ResetScope, Step, TablePhase,
    TableState, WriteOp,
};

use checkpoint::{CheckpointDb, now_micros};
use copy::{SideCopy, Witness};
use lock::{Holder, Lock};
use marks::mark_of;
use memory::Memory;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::Duration;
use tidemark_contract::RowKey;

/// Least time between two side copies.
const COPY_INTERVAL: Duration = Duration::from_secs(1);

/// An open state directory.
pub struct Store {
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
    copier: Option<JoinHandle<()>>,
    // Dropped last.
    _lock: Lock,
}

struct Shared {
    dir: PathBuf,
    writer: Mutex<Writer>,
    memory: RwLock<Memory>,
    copy: Mutex<CopyState>,
    wake: Condvar,
}

struct Writer {
    checkpoint: CheckpointDb,
    witness: Witness,
}

#[derive(Default)]
struct CopyState {
    newest: Option<SideCopy>,
    stop: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// The database, opened again if a write had failed.
    fn writer(&self) -> Result<MutexGuard<'_, Writer>> {
        let mut writer = lock(&self.writer);
        if let Some(memory) = writer.checkpoint.heal()? {
            self.memory_mut().replace(memory);
        }
        Ok(writer)
    }

    fn memory(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory_mut(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a durable commit: the witness, and the side copy's turn.
    fn committed(&self, writer: &Writer) {
        writer.witness.note(writer.checkpoint.head.sequence);
        let copy =
            SideCopy { sequence: writer.checkpoint.head.sequence, checkpoint: writer.checkpoint.checkpoint.clone() };
        lock(&self.copy).newest = Some(copy);
        self.wake.notify_one();
    }

    /// Writes side copies until told to stop, at most one per [`COPY_INTERVAL`], and the last one at the end.
    fn copy_loop(&self) {
        loop {
            let mut state = lock(&self.copy);
            while state.newest.is_none() && !state.stop {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let (copy, stop) = (state.newest.take(), state.stop);
            drop(state);
            if let Some(Err(e)) = copy.map(|copy| copy.write(&self.dir)) {
                tracing::warn!(error = %e, "the side copy of the checkpoint could not be written");
            }
            if stop {
                return;
            }
            let state = lock(&self.copy);
            drop(self.wake.wait_timeout_while(state, COPY_INTERVAL, |state| !state.stop));
        }
    }
}

impl Store {
    /// Opens the state directory, creating it if it is not there.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it, [`StoreError::Damaged`] if the checkpoint database is not as it
    /// was written, [`StoreError::TooNew`] if a newer version wrote it, [`StoreError::Io`] if the system refuses.
    pub fn open(dir: &Path) -> Result<Self> {
        db::create_dir(dir)?;
        let lock = Lock::take(dir, Holder::Daemon)?;
        Self::open_locked(dir, lock)
    }

    /// As [`Store::open`], for a command of moments: a daemon that starts meanwhile waits for its end.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_briefly(dir: &Path) -> Result<Self> {
        db::create_dir(dir)?;
        let lock = Lock::take(dir, Holder::Command)?;
        Self::open_locked(dir, lock)
    }

    fn open_locked(dir: &Path, lock: Lock) -> Result<Self> {
        let (witness, seen) = Witness::open(dir)?;
        let copy = SideCopy::read(dir);
        let expected = seen.max(copy.as_ref().map(|copy| copy.sequence));
        let (mut checkpoint, memory) = CheckpointDb::open(&dir.join("checkpoint"), expected).map_err(|e| match e {
            StoreError::Damaged { path, detail, .. } => {
                StoreError::Damaged { path, detail, recoverable: copy.is_some() }
            }
            other => other,
        })?;
        witness.note(checkpoint.head.sequence);
        let ledger = Arc::new(open_ledger(dir, &mut checkpoint)?);
        let shared = Arc::new(Shared {
            dir: dir.to_path_buf(),
            writer: Mutex::new(Writer { checkpoint, witness }),
            memory: RwLock::new(memory),
            copy: Mutex::default(),
            wake: Condvar::new(),
        });
        let copier = std::thread::Builder::new()
            .name("checkpoint-copy".into())
            .spawn({
                let shared = shared.clone();
                move || shared.copy_loop()
            })
            .map_err(StoreError::io("start a thread for", dir))?;
        Ok(Self { shared, ledger, copier: Some(copier), _lock: lock })
    }

    /// The state directory.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// The ledger.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The checkpoint as last committed; `None` before the first commit.
    pub fn load(&self) -> Option<Checkpoint> {
        lock(&self.shared.writer).checkpoint.checkpoint.clone()
    }

    /// Saves a step. Returns when all of it is durable. After an error nothing of it counts as saved; the same step may
    /// be committed again.
    pub fn commit(&self, step: &Step) -> Result<()> {
        let mut writer = self.shared.writer()?;
        let events = writer.checkpoint.commit(step, BTreeMap::new(), self.ledger.sequence())?;
        self.shared.memory_mut().apply(events);
        self.shared.committed(&writer);
        Ok(())
    }

    /// Notes that the tail has spoken of `key` of `table`: [`Store::is_marked`] knows it at once; it becomes durable when
    /// it is among [`Step::add_marks`] of a commit. Returns whether it is new.
    pub fn mark(&self, table: &str, key: &RowKey) -> bool {
        !self.shared.memory_mut().add_marks(table, [mark_of(key)]).is_empty()
    }

    /// For each key, whether the tail has spoken of it since the table's marks were last cleared.
    pub fn marked(&self, table: &str, keys: &[RowKey]) -> Vec<bool> {
        let memory = self.shared.memory();
        keys.iter().map(|key| memory.has_mark(table, mark_of(key))).collect()
    }

    /// Whether the tail has spoken of `key` since the table's marks were last cleared.
    pub fn is_marked(&self, table: &str, key: &RowKey) -> bool {
        self.shared.memory().has_mark(table, mark_of(key))
    }

    /// Number of marks of a table.
    pub fn mark_count(&self, table: &str) -> usize {
        self.shared.memory().mark_count(table)
    }

    /// Up to `limit` obligations of `table` that are due at `now` (milliseconds since 1970), the longest overdue first.
    pub fn due_obligations(&self, table: &str, now: i64, limit: usize) -> Result<Vec<Obligation>> {
        let writer = self.shared.writer()?;
        let db = &writer.checkpoint.db;
        let prefix = keys::named(keys::DUE, table);
        let mut out = Vec::new();
        for (key, _) in db.scan(&prefix, &prefix, limit)? {
            match keys::split_due(&key) {
                Some((at, obligation)) if at <= now => out.extend(writer.obligation(&obligation)?),
                Some(_) => break,
                None => return Err(StoreError::damaged(db.path(), "an index key is malformed")),
            }
        }
        Ok(out)
    }

    /// When the next obligation of `table` is due (milliseconds since 1970).
    pub fn next_due(&self, table: &str) -> Result<Option<i64>> {
        let writer = self.shared.writer()?;
        let prefix = keys::named(keys::DUE, table);
        let first = writer.checkpoint.db.scan(&prefix, &prefix, 1)?;
        Ok(first.first().and_then(|(key, _)| keys::split_due(key)).map(|(at, _)| at))
    }

    /// The obligation of one record.
    pub fn obligation(&self, rule: &str, key: &RowKey) -> Result<Option<Obligation>> {
        let key = keys::record(keys::OBLIGATION, rule, key);
        if !self.shared.memory().may_have_obligation(&key) {
            return Ok(None);
        }
        self.shared.writer()?.obligation(&key)
    }

    /// Whether any record waits for this parent. Cheap; may say yes when none does.
    pub fn may_await(&self, entity: &str, external_id: &str) -> bool {
        let memory = self.shared.memory();
        memory.awaits_any() && memory.may_await(keys::parent_hash(entity, external_id))
    }

    /// Up to `limit` obligations that wait for this parent.
    pub fn waiting_for(&self, entity: &str, external_id: &str, limit: usize) -> Result<Vec<Obligation>> {
        let parent = keys::parent_hash(entity, external_id);
        if !self.shared.memory().may_await(parent) {
            return Ok(Vec::new());
        }
        let writer = self.shared.writer()?;
        let prefix = keys::waiting_prefix(parent);
        let mut out = Vec::new();
        for (key, _) in writer.checkpoint.db.scan(&prefix, &prefix, limit)? {
            if let Some(key) = keys::split_waiting(&key) {
                out.extend(writer.obligation(&key)?);
            }
        }
        Ok(out)
    }

    /// Number of rows that have to be read again: all obligations but those that owe nothing until a parent lands.
    pub fn owed(&self) -> u64 {
        let memory = self.shared.memory();
        let counts = memory.obligation_counts().iter().filter(|((_, reason), _)| *reason != Reason::LEFT_OUT);
        counts.map(|(_, n)| n).sum()
    }

    /// Number of obligations by rule and reason ([`Reason::as_str`]).
    pub fn obligation_counts(&self) -> BTreeMap<(String, &'static str), u64> {
        self.shared.memory().obligation_counts().clone()
    }

    /// Whether this record was set aside. Cheap; may say yes when it was not.
    pub fn may_have_dead_letter(&self, rule: &str, key: &RowKey) -> bool {
        let memory = self.shared.memory();
        memory.has_letters() && memory.may_have_letter(&keys::record(keys::LETTER_OF, rule, key))
    }

    /// Up to `limit` dead letters with numbers above `after`, in their order, of one entity or of all.
    pub fn dead_letters(&self, entity: Option<&str>, after: Option<u64>, limit: usize) -> Result<Vec<DeadLetter>> {
        let writer = self.shared.writer()?;
        let db = &writer.checkpoint.db;
        let mut from = keys::letter(after.map_or(0, |id| id.saturating_add(1)));
        let mut out = Vec::new();
        while out.len() < limit {
            let page = db.scan(&[keys::LETTER], &from, 500)?;
            let Some((last, _)) = page.last() else { break };
            from = last.to_vec();
            from.push(0);
            for (key, stored) in &page {
                let letter: DeadLetter = changes::decode(db.path(), key, stored)?;
                if entity.is_none_or(|entity| entity == letter.entity) {
                    out.push(letter);
                }
            }
        }
        out.truncate(limit);
        Ok(out)
    }

    /// One dead letter by its number.
    pub fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>> {
        let writer = self.shared.writer()?;
        let db = &writer.checkpoint.db;
        let key = keys::letter(id);
        db.get(&key)?.map(|stored| changes::decode(db.path(), &key, &stored)).transpose()
    }

    /// Number of dead letters by entity.
    pub fn dead_letter_counts(&self) -> BTreeMap<String, u64> {
        self.shared.memory().letter_counts().clone()
    }

    /// Whether the ledger lost entries (it was damaged or removed) and no full pass over all rules has ended since:
    /// deletes of rows that vanished meanwhile cannot be found by a sweep, only by `verify`.
    pub fn ledger_lost(&self) -> bool {
        lock(&self.shared.writer).checkpoint.head.ledger_lost
    }

    /// Notes that a full pass over all rules has ended.
    pub fn set_ledger_whole(&self) -> Result<()> {
        self.ledger.flush_durable()?;
        let mut writer = self.shared.writer()?;
        if writer.checkpoint.head.ledger_lost {
            writer.checkpoint.set_ledger_lost(false, self.ledger.sequence())?;
            self.shared.committed(&writer);
        }
        Ok(())
    }

    /// Forgets what `scope` says; the checkpoint as it was is kept for [`Store::undo_reset`] (the last ten are). Marks
    /// of the tables concerned go; obligations, dead letters and the ledger stay.
    pub fn reset(&self, scope: &ResetScope) -> Result<()> {
        self.replace(|db| db.reset(scope))
    }

    /// Earlier checkpoints, oldest first.
    pub fn history(&self) -> Result<Vec<HistoryEntry>> {
        self.shared.writer()?.checkpoint.history()
    }

    /// Goes back to the checkpoint of a history entry and removes the entry. Tables that were in their snapshot begin it
    /// again; versions and generations never go back.
    pub fn undo_reset(&self, id: u64) -> Result<()> {
        self.replace(|db| db.undo(id))
    }

    fn replace(&self, f: impl FnOnce(&mut CheckpointDb) -> Result<Vec<memory::Event>>) -> Result<()> {
        let mut writer = self.shared.writer()?;
        let events = f(&mut writer.checkpoint)?;
        self.shared.memory_mut().apply(events);
        self.shared.committed(&writer);
        Ok(())
    }

    /// Begins a new checkpoint database from the side copy, moving the damaged one to `checkpoint.damaged-<unix time>`.
    ///
    /// What the copy holds: position, table states, versions. What it does not hold: marks, obligations, dead letters.
    /// So every table is read again (a resync: only differences are sent), which also meets whatever was owed; the
    /// version ceiling is raised above anything that may have been used; and since changes after the copied `dispatched`
    /// may have been sent, [`Checkpoint::dispatched_unknown`] is set.
    pub fn recover_from_copy(dir: &Path) -> Result<Checkpoint> {
        let lock = Lock::take(dir, Holder::Command)?;
        let Some(SideCopy { checkpoint: Some(mut checkpoint), sequence }) = SideCopy::read(dir) else {
            return Err(StoreError::Refused {
                message: format!("{} holds no side copy of a checkpoint that is whole", dir.display()),
                hint: Some("restore the directory from a backup, or move it away to begin with a full snapshot".into()),
            });
        };
        let database = dir.join("checkpoint");
        if database.exists() {
            set_aside(&database, "damaged")?;
        }
        match fs::remove_file(dir.join("witness")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", &dir.join("witness"))(e));
            }
            _ => {}
        }
        db::sync_dir(dir)?;
        // A pass of its own, newer than any that the copy does not know of: it is at most seconds old.
        checkpoint.generation += 16;
        for table in checkpoint.tables.values_mut() {
            table.generation = checkpoint.generation;
            if !matches!(table.phase, TablePhase::NeedsAttention { .. }) {
                table.phase = TablePhase::PENDING;
            }
        }
        let ahead = u64::try_from(now_micros()).unwrap_or(0).max(checkpoint.next_version);
        checkpoint.next_version = ahead.saturating_add(3_600_000_000);
        checkpoint.dispatched_unknown = true;
        let (mut new, _) = CheckpointDb::open(&database, None)?;
        new.install(checkpoint.clone(), sequence)?;
        SideCopy { sequence: new.head.sequence, checkpoint: Some(checkpoint.clone()) }.write(dir)?;
        drop(lock);
        Ok(checkpoint)
    }

    /// Bytes on disk of the checkpoint database and of the ledger.
    pub fn size_on_disk(&self) -> Result<(u64, u64)> {
        Ok((self.shared.writer()?.checkpoint.db.size_on_disk()?, self.ledger.size_on_disk()?))
    }
}

impl Writer {
    fn obligation(&self, key: &[u8]) -> Result<Option<Obligation>> {
        let db = &self.checkpoint.db;
        db.get(key)?.map(|stored| changes::decode(db.path(), key, &stored)).transpose()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(e) = self.ledger.flush_durable() {
            tracing::warn!(error = %e, "the ledger could not be flushed");
        }
        lock(&self.shared.copy).stop = true;
        self.shared.wake.notify_all();
        if let Some(copier) = self.copier.take()
            && copier.join().is_err()
        {
            tracing::warn!("the thread that writes the side copy panicked");
        }
    }
}

/// Opens the ledger; a damaged one, or one that lost its end, is moved aside and an empty one begun.
fn open_ledger(dir: &Path, checkpoint: &mut CheckpointDb) -> Result<Ledger> {
    let path = dir.join("ledger");
    let expected = checkpoint.head.ledger_sequence;
    let trouble = match Ledger::open(&path) {
        Ok(ledger) if ledger.sequence() >= expected => return Ok(ledger),
        Ok(ledger) => format!("it ends at {}, but {expected} was saved", ledger.sequence()),
        Err(StoreError::Damaged { detail, .. }) => detail,
        Err(other) => return Err(other),
    };
    let aside = set_aside(&path, "corrupt")?;
    tracing::warn!(reason = trouble, aside = %aside.display(), "the ledger is damaged and begins empty");
    let ledger = Ledger::open(&path)?;
    checkpoint.set_ledger_lost(true, 0)?;
    Ok(ledger)
}

/// Renames a database's directory to `<name>.<why>-<unix time>`.
fn set_aside(path: &Path, why: &str) -> Result<PathBuf> {
    let seconds = now_micros() / 1_000_000;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names = std::iter::once(String::new()).chain((2..).map(|n| format!("-{n}")));
    let mut free = names.map(|n| path.with_file_name(format!("{name}.{why}-{seconds}{n}"))).skip_while(|p| p.exists());
    let aside = free.next().unwrap_or_default();
    fs::rename(path, &aside).map_err(StoreError::io("rename", path))?;
    Ok(aside)
}
