//! The ledger: what the CRM last accepted, per rule and external id.
//!
//! A million entries may be asked for and written at the speed of the river, on little memory, and sled takes tens of
//! microseconds for a small random insert. So:
//!
//! * [`arena`]: new changes go into a log in memory with a hash index. A change is known at once and costs well under a
//!   microsecond, whatever the order of keys. [`Ledger::flush_durable`] writes the log's new end to disk as it is.
//! * [`page`], [`pages`]: when the log has grown, a thread of the ledger's own sorts it and brings it into *pages*:
//!   sled values of up to 3.5 KB with neighbouring entries, front-coded (an entry costs 12 to 50 bytes). Meanwhile changes
//!   go into a second log. Afterwards the first one is dropped, from memory and from disk.
//! * Reading looks into the logs, then into one page; the last few pages are kept at hand, so keys that come in order
//!   (a snapshot's do) cost no look into sled.
//!
//! Memory is bounded by the logs (a few megabytes each) and sled's cache, not by the number of entries.
//!
//! Applying a log to the pages twice gives the same pages, so a crash at any moment loses nothing that was flushed: the
//! log's parts are still there and are applied again. Pages and log are checked on opening as the checkpoint is: sum of
//! checksums, no gap in the log. What is found damaged makes the caller move the whole ledger aside.

mod arena;
mod filter;
mod inner;
mod page;
mod pages;
#[cfg(test)]
mod tests;
mod value;

use super::error::{Result, StoreError};
use arena::{Change, Effect, Space, hash};
use inner::{Front, Inner, NAMES, put_json};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tidemark_contract::RowKey;

/// A log of this size is brought into the pages.
const LOG_BYTES: usize = 3 << 20;
/// Writers wait for the pages when the log has grown to so many times its size.
const LOG_BACKLOG: usize = 4;
/// How writers slow down from twice the log's size on: to 2.5 MB, some 50,000 entries, a second.
const SLOWED_PER_BYTE: Duration = Duration::from_nanos(400);

/// A rule's number within a ledger: given once per rule name, and kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct LedgerRule(u16);

/// What the CRM last accepted of one record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Hash of the document; 0 if it is not known (a partial document was sent): never equal to a new one.
    pub hash: u64,
    /// The pass in which the row was last seen.
    pub generation: u32,
    /// The row this record belongs to; kept (with an index) only for rules that ask for it.
    pub owner: Option<RowKey>,
}

/// A record's entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// CRM-side match key.
    pub external_id: Box<str>,
    /// What is known of it.
    pub entry: Entry,
}

/// Bytes that are not what they should be.
#[derive(Debug)]
struct Damage;

impl From<page::Malformed> for Damage {
    fn from(_: page::Malformed) -> Self {
        Damage
    }
}

/// The ledger of one tenant. Calls may come from several threads; reads and writes of single entries take microseconds,
/// searches and flushes block longer.
pub struct Ledger {
    inner: Arc<Inner>,
    merger: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ids(rule: LedgerRule) -> Space {
    Space { rule: rule.0, is_owner: false }
}

fn owners(rule: LedgerRule) -> Space {
    Space { rule: rule.0, is_owner: true }
}

impl Ledger {
    pub(super) fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, LOG_BYTES)
    }

    /// `log_bytes`: a log of this size is brought into the pages.
    fn open_with(path: &Path, log_bytes: usize) -> Result<Self> {
        let inner = Arc::new(Inner::open(path, log_bytes)?);
        let merger = std::thread::Builder::new()
            .name("ledger".into())
            .spawn({
                let inner = inner.clone();
                move || inner.merge_loop()
            })
            .map_err(StoreError::io("start a thread for", path))?;
        Ok(Self { inner, merger: Some(merger) })
    }

    /// The number of the rule called `name`; given on first use.
    pub fn rule(&self, name: &str) -> Result<LedgerRule> {
        let mut front = lock(&self.inner.front);
        if let Some(id) = front.rules.get(name) {
            return Ok(LedgerRule(*id));
        }
        let id = front.rules.values().max().map_or(0, |id| id + 1);
        let mut rules = front.rules.clone();
        rules.insert(name.to_string(), id);
        let db = self.inner.db();
        db.apply(vec![put_json(NAMES, &rules)?])?;
        db.flush_durable()?;
        front.rules = rules;
        Ok(LedgerRule(id))
    }

    /// Every rule that ever had a number.
    pub fn rules(&self) -> Vec<(String, LedgerRule)> {
        lock(&self.inner.front).rules.iter().map(|(name, id)| (name.clone(), LedgerRule(*id))).collect()
    }

    /// What is known of one record.
    pub fn get(&self, rule: LedgerRule, external_id: &str) -> Result<Option<Entry>> {
        let mut front = lock(&self.inner.front);
        self.inner.get(&mut front, rule, external_id)
    }

    /// What is known of several records of one rule, in their order.
    pub fn get_batch(&self, rule: LedgerRule, external_ids: &[&str]) -> Result<Vec<Option<Entry>>> {
        let mut front = lock(&self.inner.front);
        external_ids.iter().map(|id| self.inner.get(&mut front, rule, id)).collect()
    }

    /// Notes what the CRM accepted. Known at once, durable after [`Ledger::flush_durable`]. An error (here, and of the
    /// other writing calls) says that the disk is in trouble; what was to be noted is noted all the same.
    pub fn put_batch(&self, rule: LedgerRule, entries: &[(&str, Entry)]) -> Result<()> {
        self.write(|inner, front| entries.iter().for_each(|(id, entry)| inner.put(front, rule, id, entry)))
    }

    /// Notes one entry as [`Ledger::put_batch`] does, and never waits: whoever notes many calls [`Ledger::keep_pace`] now
    /// and then.
    pub fn put(&self, rule: LedgerRule, external_id: &str, entry: &Entry) {
        self.inner.put(&mut lock(&self.inner.front), rule, external_id, entry);
    }

    /// Notes that the rows of these records were seen in pass `generation`; without effect on unknown records.
    pub fn touch(&self, rule: LedgerRule, external_ids: &[&str], generation: u32) -> Result<()> {
        let space = ids(rule);
        self.write(|_, front| {
            for id in external_ids {
                let hash = hash(space, id.as_bytes());
                // A value that waits in a log is repeated with the new generation: a bare `Touch` would hide it.
                let value = match front.waiting(space, id.as_bytes(), hash) {
                    None | Some(Change::Touch(_)) => None,
                    Some(Change::Remove) => continue,
                    Some(Change::Put(value)) => value::touched(value, generation),
                };
                let change = value.as_deref().map_or(Change::Touch(generation), Change::Put);
                front.active.push(space, id.as_bytes(), hash, change, Effect::Same);
            }
        })
    }

    /// Forgets records (they are gone from the CRM).
    pub fn remove(&self, rule: LedgerRule, external_ids: &[&str]) -> Result<()> {
        self.write(|inner, front| external_ids.iter().for_each(|id| inner.remove(front, rule, id)))
    }

    /// Forgets one record as [`Ledger::remove`] does, and never waits for the pages (see [`Ledger::put`]).
    pub fn forget(&self, rule: LedgerRule, external_id: &str) {
        self.inner.remove(&mut lock(&self.inner.front), rule, external_id);
    }

    /// The record that belongs to a source row, for rules that keep owners. A row whose record was taken over by
    /// another row has none.
    pub fn external_id_of(&self, rule: LedgerRule, owner: &RowKey) -> Result<Option<Box<str>>> {
        let mut front = lock(&self.inner.front);
        let Some(id) = self.inner.owned(&mut front, rule, owner)? else { return Ok(None) };
        let id = std::str::from_utf8(&id).map_err(|_| self.inner.damaged())?;
        let entry = self.inner.get(&mut front, rule, id)?;
        Ok(entry.filter(|entry| entry.owner.as_ref() == Some(owner)).map(|_| id.into()))
    }

    /// Up to `limit` records of a rule after `after`, in the order of their external ids (bytes). Pages that follow
    /// each other need not show what was written between the calls.
    pub fn records(&self, rule: LedgerRule, after: Option<&str>, limit: usize) -> Result<Vec<Record>> {
        self.search(rule, after, limit, |_| true)
    }

    /// Up to `limit` records of a rule after `after` whose rows were last seen before pass `generation`.
    pub fn older_than(
        &self,
        rule: LedgerRule,
        generation: u32,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        self.search(rule, after, limit, |g| g < generation)
    }

    fn search(
        &self,
        rule: LedgerRule,
        after: Option<&str>,
        limit: usize,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<Vec<Record>> {
        let inner = &self.inner;
        if after.is_none() {
            inner.settle()?;
        }
        let space = ids(rule);
        let mut from = match after {
            Some(id) => [id.as_bytes(), b"\0"].concat(),
            None => Vec::new(),
        };
        let mut out = Vec::new();
        let mut found: Vec<Vec<u8>> = Vec::new();
        loop {
            let page = pages::load(&inner.db(), space, &from)?;
            let mut broken = false;
            let read = page.page().and_then(|p| {
                Ok(p.for_each(|key, value| match value::generation(value) {
                    Some(generation) if *key >= *from && wanted(generation) => found.push(key.to_vec()),
                    Some(_) => {}
                    None => broken = true,
                })?)
            });
            if broken || read.is_err() {
                return Err(inner.damaged());
            }
            // What waits in the logs is newer than the page.
            let mut front = lock(&inner.front);
            for key in found.drain(..) {
                let id = std::str::from_utf8(&key).map_err(|_| inner.damaged())?;
                if let Some(entry) = inner.get(&mut front, rule, id)?
                    && wanted(entry.generation)
                {
                    out.push(Record { external_id: id.into(), entry });
                    if out.len() == limit {
                        return Ok(out);
                    }
                }
            }
            match page.upper() {
                Some(upper) => from = upper.to_vec(),
                None => return Ok(out),
            }
        }
    }

    /// Number of records of a rule.
    pub fn count(&self, rule: LedgerRule) -> u64 {
        let front = lock(&self.inner.front);
        let frozen = front.frozen.as_ref().map_or(0, |frozen| frozen.delta(rule.0));
        front.counts.get(&rule.0).copied().unwrap_or(0).saturating_add_signed(front.active.delta(rule.0) + frozen)
    }

    /// Returns when everything noted before the call is on the disk.
    ///
    /// # Errors
    /// If it cannot be written. Nothing is forgotten: the next call tries again.
    pub fn flush_durable(&self) -> Result<()> {
        if let Some(trouble) = lock(&self.inner.trouble).take() {
            self.inner.heal(&trouble)?;
            self.inner.wake_merger();
            return Err(trouble);
        }
        let result = self.inner.flush();
        if let Err(e) = &result {
            self.inner.heal(e)?;
        }
        result
    }

    /// Brings everything into the pages.
    #[cfg(test)]
    pub(super) fn settle_for_tests(&self) {
        self.inner.settle().expect("settles");
    }

    pub(super) fn sequence(&self) -> u64 {
        self.inner.sequence.load(Ordering::Acquire)
    }

    pub(super) fn size_on_disk(&self) -> Result<u64> {
        self.inner.db().size_on_disk()
    }

    /// Lets `f` add to the log.
    fn write(&self, f: impl FnOnce(&Inner, &mut Front)) -> Result<()> {
        f(&self.inner, &mut lock(&self.inner.front));
        self.keep_pace()
    }

    /// Has the log brought into the pages when it is long, and waits if they cannot keep up with what was added since the
    /// last call.
    ///
    /// # Errors
    /// If the log is so long that it has to wait for the pages, and they fail; what was added is noted even then.
    pub fn keep_pace(&self) -> Result<()> {
        let mut front = lock(&self.inner.front);
        let len = front.active.len();
        let before = std::mem::replace(&mut front.paced, len);
        // A shorter log is another one.
        let before = if before > len { 0 } else { before };
        drop(front);
        let full = self.inner.log_bytes;
        if len >= full {
            self.inner.wake_merger();
        }
        if len >= full * LOG_BACKLOG {
            self.inner.settle()?;
        } else if len >= full * 2 {
            // The pages do not keep up: slow down to a pace that they can keep, before it comes to waiting.
            std::thread::sleep(SLOWED_PER_BYTE * u32::try_from(len - before).unwrap_or(u32::MAX));
        }
        Ok(())
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        lock(&self.inner.signal).stop = true;
        self.inner.wake.notify_all();
        if let Some(merger) = self.merger.take()
            && merger.join().is_err()
        {
            tracing::warn!("the ledger's thread panicked");
        }
    }
}
