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
mod page;
mod pages;
#[cfg(test)]
mod tests;
mod value;

use super::db::{Database, MAX_VALUE, Writes};
use super::error::{Result, StoreError};
use super::frame;
use arena::{Arena, Change, Effect, Space, hash};
use filter::Filter;
use pages::{Loaded, SUMMARY, Summary};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::Duration;
use tidemark_contract::RowKey;

/// The format this version writes, and the newest it reads.
const FORMAT: u32 = 1;
/// sled's cache for the ledger. (It takes about twice as much.)
const CACHE: u64 = 8 << 20;
/// A log of this size is brought into the pages.
const LOG_BYTES: usize = 3 << 20;
/// Writers wait for the pages when the log has grown to so many times its size.
const LOG_BACKLOG: usize = 4;
/// How writers slow down from twice the log's size on: to 2.5 MB, some 50,000 entries, a second.
const SLOWED_PER_BYTE: Duration = Duration::from_nanos(400);
/// Pages kept at hand.
const HOT_PAGES: usize = 8;
/// Recent answers to "does it exist".
const SEEN: usize = 1 << 15;

const FORMAT_KEY: &[u8] = b"v";
const NAMES: &[u8] = b"n";
const LOG_STATE: &[u8] = b"s";
const LOG_PART: u8 = b'w';

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

struct Inner {
    path: PathBuf,
    log_bytes: usize,
    db: RwLock<Database>,
    front: Mutex<Front>,
    log: Mutex<LogState>,
    summary: Mutex<Summary>,
    signal: Mutex<Signal>,
    wake: Condvar,
    sequence: AtomicU64,
    /// What went wrong in the merging thread; told by the next flush.
    trouble: Mutex<Option<StoreError>>,
}

/// What answers questions.
struct Front {
    rules: BTreeMap<String, u16>,
    /// Entries in the pages.
    counts: BTreeMap<u16, u64>,
    active: Arena,
    /// On its way into the pages.
    frozen: Option<Arc<Arena>>,
    /// An empty one to write into next: memory of this size is not given back and asked for again.
    spare: Option<Arena>,
    /// External ids that are or were there.
    filter: Filter,
    hot: Vec<Loaded>,
    /// A key's hash, the lowest bit saying whether it exists.
    seen: Vec<u64>,
}

/// The log on disk.
#[derive(Clone, Default, Serialize, Deserialize)]
struct LogState {
    /// Number of flushes that wrote something.
    sequence: u64,
    next_part: u64,
    /// Parts before this belong to the frozen log (while there is one).
    #[serde(skip)]
    frozen_end: u64,
    /// Bytes of the frozen log that are on disk.
    #[serde(skip)]
    frozen_flushed: usize,
}

#[derive(Default)]
struct Signal {
    is_full: bool,
    stop: bool,
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

fn part_key(number: u64) -> Vec<u8> {
    let mut key = vec![LOG_PART];
    key.extend_from_slice(&number.to_be_bytes());
    key
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
        let mut bytes = Vec::with_capacity(32);
        self.write(|inner, front| {
            for (id, entry) in entries {
                value::encode(entry, &mut bytes);
                let (space, key) = (ids(rule), id.as_bytes());
                let hash_ = hash(space, key);
                // Only for the count, which the pages put right: no reason to refuse an entry.
                let existed = inner.exists(front, space, key, hash_).unwrap_or(true);
                let effect = if existed { Effect::Same } else { Effect::OneMore };
                front.active.push(space, key, hash_, Change::Put(&bytes), effect);
                front.note_seen(hash_, true);
                if let Some(owner) = &entry.owner {
                    let (space, owner) = (owners(rule), owner.as_bytes());
                    front.active.push(space, owner, hash(space, owner), Change::Put(key), Effect::Same);
                }
            }
        })
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
        let space = ids(rule);
        self.write(|inner, front| {
            for id in external_ids {
                let hash_ = hash(space, id.as_bytes());
                // If the database cannot be asked, the record goes all the same; what stays in the index of owners is
                // recognised when it is read, because no record answers to it.
                let entry = match inner.get(front, rule, id) {
                    Ok(None) => continue,
                    Ok(entry) => entry,
                    Err(_) => None,
                };
                front.active.push(space, id.as_bytes(), hash_, Change::Remove, Effect::OneLess);
                front.note_seen(hash_, false);
                // The row may be known under another id by now.
                if let Some(owner) = entry.and_then(|entry| entry.owner)
                    && let Ok(Some(known_as)) = inner.owned(front, rule, &owner)
                    && *known_as == *id.as_bytes()
                {
                    let (space, owner) = (owners(rule), owner.as_bytes());
                    front.active.push(space, owner, hash(space, owner), Change::Remove, Effect::Same);
                }
            }
        })
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

    /// Lets `f` add to the log. Fails only if the log is so long that it has to wait for the pages, and they fail; what
    /// was added is noted even then.
    fn write(&self, f: impl FnOnce(&Inner, &mut Front)) -> Result<()> {
        let mut front = lock(&self.inner.front);
        let before = front.active.len();
        f(&self.inner, &mut front);
        let len = front.active.len();
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

impl Front {
    fn waiting(&self, space: Space, key: &[u8], hash: u64) -> Option<Change<'_>> {
        self.active.get(space, key, hash).or_else(|| self.frozen.as_ref()?.get(space, key, hash))
    }

    fn note_seen(&mut self, hash: u64, exists: bool) {
        if exists && !self.filter.may_contain(hash) {
            self.filter.insert(hash);
        }
        if let Some(slot) = self.seen.get_mut(hash as usize % SEEN) {
            *slot = hash & !1 | u64::from(exists);
        }
    }

    fn was_seen(&self, hash: u64) -> Option<bool> {
        if !self.filter.may_contain(hash) {
            return Some(false);
        }
        let slot = self.seen.get(hash as usize % SEEN)?;
        (slot & !1 == hash & !1).then_some(slot & 1 == 1)
    }
}

/// Counts what a log that was read again does to the number of entries. The pages decide, not what was counted when the
/// changes were made: a crash may have left some of them in the pages already.
fn count_effects(db: &Database, log: &mut Arena) -> Result<()> {
    let mut effects = Vec::new();
    let mut page: Option<Loaded> = None;
    for place in log.sorted() {
        let Some((space, key, change)) = log.at(place) else { continue };
        if space.is_owner || matches!(change, Change::Touch(_)) {
            continue;
        }
        let page = match page.take().filter(|page| page.covers(space, key)) {
            Some(same) => page.insert(same),
            None => page.insert(pages::load(db, space, key)?),
        };
        let found = page.page().and_then(|page| Ok(page.get(key)?));
        let existed = found.map_err(|_| StoreError::damaged(db.path(), "an entry cannot be read"))?.is_some();
        match (existed, change) {
            (false, Change::Put(_)) => effects.push((space, Effect::OneMore)),
            (true, Change::Remove) => effects.push((space, Effect::OneLess)),
            _ => {}
        }
    }
    for (space, effect) in effects {
        log.count(space, effect);
    }
    Ok(())
}

fn put_json<T: Serialize>(key: &[u8], value: &T) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
    let json = serde_json::to_vec(value).map_err(|e| StoreError::Bug(e.to_string()))?;
    Ok((key.to_vec(), Some(frame::seal(key, &json))))
}

fn get_json<T: for<'de> Deserialize<'de>>(db: &Database, key: &[u8]) -> Result<Option<T>> {
    let Some(stored) = db.get(key)? else { return Ok(None) };
    let payload = frame::unseal(key, &stored).map_err(|what| StoreError::damaged(db.path(), what))?;
    serde_json::from_slice(payload).map(Some).map_err(|e| StoreError::damaged(db.path(), e.to_string()))
}

impl Inner {
    fn open(path: &Path, log_bytes: usize) -> Result<Self> {
        let db = Database::open(path, CACHE)?;
        let damaged = |what: &str| StoreError::damaged(path, what);
        match get_json::<u32>(&db, FORMAT_KEY)? {
            Some(found) if found > FORMAT => {
                return Err(StoreError::TooNew { path: path.to_path_buf(), found, supported: FORMAT });
            }
            Some(_) => {}
            None if db.is_empty()? => {
                db.apply(vec![
                    put_json(FORMAT_KEY, &FORMAT)?,
                    put_json(LOG_STATE, &LogState::default())?,
                    Summary::default().write()?,
                ])?;
                db.flush_durable()?;
            }
            None => return Err(damaged("the format record is missing")),
        }
        let log: LogState = get_json(&db, LOG_STATE)?.ok_or_else(|| damaged("the log's record is missing"))?;
        let summary: Summary = get_json(&db, SUMMARY)?.ok_or_else(|| damaged("the pages' record is missing"))?;
        let rules = get_json(&db, NAMES)?.unwrap_or_default();
        let mut digest = 0u64;
        let known: u64 = summary.counts.values().sum();
        let mut filter = Filter::new(usize::try_from(known + known / 4).unwrap_or(usize::MAX));
        db.for_each(&[pages::PAGE], |key, stored| {
            let payload = frame::unseal(key, stored).map_err(damaged)?;
            digest = digest.wrapping_add(frame::digest(stored));
            let space = Space::from_page_key(key).filter(|space| !space.is_owner);
            let page = page::Page::read(payload);
            match (space, page) {
                (Some(space), Ok(page)) => page.for_each(|key, _| filter.insert(hash(space, key))),
                (None, page) => page.map(drop),
                (_, Err(e)) => Err(e),
            }
            .map_err(|_| damaged("a page cannot be read"))
        })?;
        if digest != summary.digest {
            return Err(damaged("pages are missing or older than they should be"));
        }
        let mut bytes = Vec::new();
        let mut next = summary.first_part;
        db.for_each(&[LOG_PART], |key, stored| {
            if key != part_key(next) {
                return Err(damaged("a part of the log is missing"));
            }
            bytes.extend_from_slice(frame::unseal(key, stored).map_err(damaged)?);
            next += 1;
            Ok(())
        })?;
        if next != log.next_part {
            return Err(damaged("the end of the log is missing"));
        }
        let mut active = Arena::replay(bytes).ok_or_else(|| damaged("the log cannot be read"))?;
        count_effects(&db, &mut active)?;
        for place in active.sorted() {
            if let Some((space, key, _)) = active.at(place).filter(|(space, ..)| !space.is_owner) {
                filter.insert(hash(space, key));
            }
        }
        let front = Front {
            rules,
            counts: summary.counts.clone(),
            active,
            frozen: None,
            spare: None,
            filter,
            hot: Vec::with_capacity(HOT_PAGES),
            seen: vec![0; SEEN],
        };
        Ok(Self {
            path: path.to_path_buf(),
            log_bytes,
            db: RwLock::new(db),
            front: Mutex::new(front),
            sequence: AtomicU64::new(log.sequence),
            log: Mutex::new(log),
            summary: Mutex::new(summary),
            signal: Mutex::default(),
            wake: Condvar::new(),
            trouble: Mutex::default(),
        })
    }

    fn db(&self) -> RwLockReadGuard<'_, Database> {
        self.db.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn damaged(&self) -> StoreError {
        StoreError::damaged(&self.path, "an entry cannot be read")
    }

    fn wake_merger(&self) {
        lock(&self.signal).is_full = true;
        self.wake.notify_one();
    }

    /// The value of a key in the pages.
    fn in_pages(&self, front: &mut Front, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let at = match front.hot.iter().rposition(|page| page.covers(space, key)) {
            Some(at) => at,
            None => {
                let page = pages::load(&self.db(), space, key)?;
                if front.hot.len() == HOT_PAGES {
                    front.hot.remove(0);
                }
                front.hot.push(page);
                front.hot.len() - 1
            }
        };
        let Some(page) = front.hot.get(at) else { return Ok(None) };
        let found = page.page().and_then(|page| Ok(page.get(key)?));
        Ok(found.map_err(|_| self.damaged())?.map(<[u8]>::to_vec))
    }

    fn get(&self, front: &mut Front, rule: LedgerRule, external_id: &str) -> Result<Option<Entry>> {
        let (space, key) = (ids(rule), external_id.as_bytes());
        let hash = hash(space, key);
        let mut touched = None;
        match front.waiting(space, key, hash) {
            Some(Change::Put(bytes)) => return Ok(Some(value::decode(bytes).ok_or_else(|| self.damaged())?)),
            Some(Change::Remove) => return Ok(None),
            Some(Change::Touch(generation)) => touched = Some(generation),
            None if front.was_seen(hash) == Some(false) => return Ok(None),
            None => {}
        }
        let found = self.in_pages(front, space, key)?;
        front.note_seen(hash, found.is_some());
        let Some(bytes) = found else { return Ok(None) };
        let entry = value::decode(&bytes).ok_or_else(|| self.damaged())?;
        Ok(Some(Entry { generation: touched.unwrap_or(entry.generation), ..entry }))
    }

    fn exists(&self, front: &mut Front, space: Space, key: &[u8], hash: u64) -> Result<bool> {
        match front.waiting(space, key, hash) {
            Some(Change::Put(_)) => return Ok(true),
            Some(Change::Remove) => return Ok(false),
            Some(Change::Touch(_)) | None => {}
        }
        match front.was_seen(hash) {
            Some(exists) => Ok(exists),
            None => Ok(self.in_pages(front, space, key)?.is_some()),
        }
    }

    /// The external id under which a row is indexed.
    fn owned(&self, front: &mut Front, rule: LedgerRule, owner: &RowKey) -> Result<Option<Vec<u8>>> {
        let (space, key) = (owners(rule), owner.as_bytes());
        match front.waiting(space, key, hash(space, key)) {
            Some(Change::Put(id)) => Ok(Some(id.to_vec())),
            Some(Change::Remove) => Ok(None),
            Some(Change::Touch(_)) | None => self.in_pages(front, space, key),
        }
    }

    /// Writes what the logs hold and the disk does not.
    fn flush(&self) -> Result<()> {
        let mut log = lock(&self.log);
        let front = lock(&self.front);
        let frozen: Option<Vec<u8>> =
            front.frozen.as_ref().and_then(|f| Some(f.log().get(log.frozen_flushed..)?.to_vec()));
        let active = front.active.log().get(front.active.flushed..).unwrap_or_default().to_vec();
        let flushed = front.active.len();
        drop(front);
        let frozen = frozen.unwrap_or_default();
        if frozen.is_empty() && active.is_empty() {
            return Ok(());
        }
        let mut next = log.clone();
        next.sequence += 1;
        let mut writes = Writes::new();
        let mut put = |bytes: &[u8], next: &mut LogState| {
            for part in bytes.chunks(MAX_VALUE) {
                let key = part_key(next.next_part);
                writes.push((key.clone(), Some(frame::seal(&key, part))));
                next.next_part += 1;
            }
        };
        put(&frozen, &mut next);
        if !frozen.is_empty() {
            next.frozen_end = next.next_part;
            next.frozen_flushed += frozen.len();
        }
        put(&active, &mut next);
        writes.push(put_json(LOG_STATE, &next)?);
        let db = self.db();
        db.apply(writes)?;
        db.flush_durable()?;
        lock(&self.front).active.flushed = flushed;
        self.sequence.store(next.sequence, Ordering::Release);
        *log = next;
        Ok(())
    }

    /// Makes the active log the frozen one, unless one is frozen already.
    fn freeze(&self) {
        let mut log = lock(&self.log);
        let mut front = lock(&self.front);
        if front.frozen.is_none() && front.active.len() > 0 {
            let empty = front.spare.take().unwrap_or_else(|| Arena::new(self.log_bytes));
            let frozen = std::mem::replace(&mut front.active, empty);
            log.frozen_end = log.next_part;
            log.frozen_flushed = frozen.flushed;
            front.frozen = Some(Arc::new(frozen));
        }
    }

    /// Brings the frozen log into the pages and drops it.
    fn merge(&self) -> Result<()> {
        let mut summary = lock(&self.summary);
        let Some(frozen) = lock(&self.front).frozen.clone() else { return Ok(()) };
        let mut new = summary.clone();
        let db = self.db();
        pages::merge(&db, &frozen, &mut new)?;
        let mut log = lock(&self.log);
        let end = log.frozen_end;
        let mut writes: Writes = (new.first_part..end).map(|n| (part_key(n), None)).collect();
        new.first_part = end;
        writes.push(new.write()?);
        db.apply(writes)?;
        // Whatever is not durable has to be in memory still, in case the database has to be opened again.
        db.flush_durable()?;
        log.frozen_flushed = 0;
        let mut front = lock(&self.front);
        drop(frozen);
        front.spare = front.frozen.take().and_then(Arc::into_inner).map(|frozen| frozen.emptied(self.log_bytes));
        front.hot.clear();
        front.counts.clone_from(&new.counts);
        *summary = new;
        Ok(())
    }

    /// Returns when everything noted before the call is in the pages.
    fn settle(&self) -> Result<()> {
        // What is frozen now, then what was active now.
        self.merge()?;
        self.freeze();
        self.merge()
    }

    fn merge_loop(&self) {
        loop {
            let mut signal = lock(&self.signal);
            while !signal.is_full && !signal.stop {
                signal = self.wake.wait(signal).unwrap_or_else(PoisonError::into_inner);
            }
            if signal.stop {
                return;
            }
            signal.is_full = false;
            drop(signal);
            self.freeze();
            if let Err(e) = self.merge() {
                *lock(&self.trouble) = Some(e);
            }
        }
    }

    /// After an input/output error sled refuses everything: the database is opened again. What was not durable is still
    /// in the logs.
    fn heal(&self, error: &StoreError) -> Result<()> {
        if error.trouble().is_none() {
            return Ok(());
        }
        // In this order: nobody who has the database waits for the other two.
        let mut summary = lock(&self.summary);
        let mut log = lock(&self.log);
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        db.reopen()?;
        let stored: LogState = get_json(&db, LOG_STATE)?.ok_or_else(|| self.damaged())?;
        *summary = get_json(&db, SUMMARY)?.ok_or_else(|| self.damaged())?;
        drop(db);
        // A flush that failed may have reached the disk all the same: then its parts are written a second time, behind
        // the first; applying them twice changes nothing.
        log.next_part = log.next_part.max(stored.next_part);
        log.sequence = log.sequence.max(stored.sequence);
        lock(&self.front).hot.clear();
        Ok(())
    }
}
