//! Behind the ledger: logs, pages, and what moves between them.
//!
//! Locks: `summary` (held while merging), then `log` (held while the log is written), then `db` for writing (only to open
//! it again after an error). `front` (held for microseconds) and `db` for reading may be taken in any order, because
//! whoever wants `db` for writing has shut out the two who hold one of them while they wait for the other.

use super::arena::{Arena, Change, Effect, Space, hash};
use super::filter::Filter;
use super::pages::{self, Loaded, SUMMARY, Summary};
use super::{Entry, LedgerRule, ids, lock, owners, page, value};
use crate::store::db::{Database, MAX_VALUE, Writes};
use crate::store::error::{Result, StoreError};
use crate::store::frame;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard};
use tidemark_contract::RowKey;

/// The format this version writes, and the newest it reads.
const FORMAT: u32 = 1;
/// sled's cache for the ledger. (It takes about twice as much.)
const CACHE: u64 = 8 << 20;
/// Pages kept at hand.
const HOT_PAGES: usize = 8;
/// Recent answers to "does it exist".
const SEEN: usize = 1 << 15;
const FORMAT_KEY: &[u8] = b"v";
pub(super) const NAMES: &[u8] = b"n";
const LOG_STATE: &[u8] = b"s";
const LOG_PART: u8 = b'w';

pub(super) struct Inner {
    pub(super) path: PathBuf,
    pub(super) log_bytes: usize,
    pub(super) db: RwLock<Database>,
    pub(super) front: Mutex<Front>,
    pub(super) log: Mutex<LogState>,
    pub(super) summary: Mutex<Summary>,
    pub(super) signal: Mutex<Signal>,
    pub(super) wake: Condvar,
    pub(super) sequence: AtomicU64,
    /// What went wrong in the merging thread; told by the next flush.
    pub(super) trouble: Mutex<Option<StoreError>>,
}

/// What answers questions.
pub(super) struct Front {
    pub(super) rules: BTreeMap<String, u16>,
    /// Entries in the pages.
    pub(super) counts: BTreeMap<u16, u64>,
    pub(super) active: Arena,
    /// On its way into the pages.
    pub(super) frozen: Option<Arc<Arena>>,
    /// An empty one to write into next: memory of this size is not given back and asked for again.
    pub(super) spare: Option<Arena>,
    /// External ids that are or were there.
    pub(super) filter: Filter,
    pub(super) hot: Vec<Loaded>,
    /// A key's hash, the lowest bit saying whether it exists.
    pub(super) seen: Vec<u64>,
    /// Length of the active log when it was last looked at.
    pub(super) paced: usize,
    /// Room for an entry's bytes.
    scratch: Vec<u8>,
}

/// The log on disk.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct LogState {
    /// Number of flushes that wrote something.
    pub(super) sequence: u64,
    pub(super) next_part: u64,
    /// Parts before this belong to the frozen log (while there is one).
    #[serde(skip)]
    pub(super) frozen_end: u64,
    /// Bytes of the frozen log that are on disk.
    #[serde(skip)]
    pub(super) frozen_flushed: usize,
}

#[derive(Default)]
pub(super) struct Signal {
    pub(super) is_full: bool,
    pub(super) stop: bool,
}

fn part_key(number: u64) -> Vec<u8> {
    let mut key = vec![LOG_PART];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

impl Front {
    pub(super) fn waiting(&self, space: Space, key: &[u8], hash: u64) -> Option<Change<'_>> {
        self.active.get(space, key, hash).or_else(|| self.frozen.as_ref()?.get(space, key, hash))
    }

    /// Notes an answer to "does it exist". Whatever exists is in the filter already.
    pub(super) fn note_seen(&mut self, hash: u64, exists: bool) {
        if let Some(slot) = self.seen.get_mut(hash as usize % SEEN) {
            *slot = hash & !1 | u64::from(exists);
        }
    }

    pub(super) fn was_seen(&self, hash: u64) -> Option<bool> {
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

pub(super) fn put_json<T: Serialize>(key: &[u8], value: &T) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
    let json = serde_json::to_vec(value).map_err(|e| StoreError::Bug(e.to_string()))?;
    Ok((key.to_vec(), Some(frame::seal(key, &json))))
}

pub(super) fn get_json<T: for<'de> Deserialize<'de>>(db: &Database, key: &[u8]) -> Result<Option<T>> {
    let Some(stored) = db.get(key)? else { return Ok(None) };
    let payload = frame::unseal(key, &stored).map_err(|what| StoreError::damaged(db.path(), what))?;
    serde_json::from_slice(payload).map(Some).map_err(|e| StoreError::damaged(db.path(), e.to_string()))
}

impl Inner {
    pub(super) fn open(path: &Path, log_bytes: usize) -> Result<Self> {
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
            paced: 0,
            scratch: Vec::new(),
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

    pub(super) fn db(&self) -> RwLockReadGuard<'_, Database> {
        self.db.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn damaged(&self) -> StoreError {
        StoreError::damaged(&self.path, "an entry cannot be read")
    }

    pub(super) fn wake_merger(&self) {
        lock(&self.signal).is_full = true;
        self.wake.notify_one();
    }

    /// The value of a key in the pages.
    pub(super) fn in_pages(&self, front: &mut Front, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>> {
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

    pub(super) fn get(&self, front: &mut Front, rule: LedgerRule, external_id: &str) -> Result<Option<Entry>> {
        let (space, key) = (ids(rule), external_id.as_bytes());
        let hash = hash(space, key);
        // What was ever put is in the filter, whether it waits in a log or is in the pages.
        if !front.filter.may_contain(hash) {
            return Ok(None);
        }
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

    /// Whether an entry that may be there is.
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

    /// Notes what the CRM accepted of one record.
    pub(super) fn put(&self, front: &mut Front, rule: LedgerRule, external_id: &str, entry: &Entry) {
        let (space, key) = (ids(rule), external_id.as_bytes());
        let hash_ = hash(space, key);
        let mut bytes = std::mem::take(&mut front.scratch);
        value::encode(entry, &mut bytes);
        // Only for the count, which the pages put right: no reason to refuse an entry.
        let existed = match front.filter.may_contain(hash_) {
            true => self.exists(front, space, key, hash_).unwrap_or(true),
            false => {
                front.filter.insert(hash_);
                false
            }
        };
        let effect = if existed { Effect::Same } else { Effect::OneMore };
        front.active.push(space, key, hash_, Change::Put(&bytes), effect);
        front.scratch = bytes;
        front.note_seen(hash_, true);
        if let Some(owner) = &entry.owner {
            let (space, owner) = (owners(rule), owner.as_bytes());
            front.active.push(space, owner, hash(space, owner), Change::Put(key), Effect::Same);
        }
    }

    /// Forgets one record.
    pub(super) fn remove(&self, front: &mut Front, rule: LedgerRule, external_id: &str) {
        let (space, key) = (ids(rule), external_id.as_bytes());
        // If the database cannot be asked, the record goes all the same; what stays in the index of owners is recognised
        // when it is read, because no record answers to it.
        let entry = match self.get(front, rule, external_id) {
            Ok(None) => return,
            Ok(entry) => entry,
            Err(_) => None,
        };
        let hash_ = hash(space, key);
        front.active.push(space, key, hash_, Change::Remove, Effect::OneLess);
        front.note_seen(hash_, false);
        // The row may be known under another id by now.
        if let Some(owner) = entry.and_then(|entry| entry.owner)
            && let Ok(Some(known_as)) = self.owned(front, rule, &owner)
            && *known_as == *key
        {
            let (space, owner) = (owners(rule), owner.as_bytes());
            front.active.push(space, owner, hash(space, owner), Change::Remove, Effect::Same);
        }
    }

    /// The external id under which a row is indexed.
    pub(super) fn owned(&self, front: &mut Front, rule: LedgerRule, owner: &RowKey) -> Result<Option<Vec<u8>>> {
        let (space, key) = (owners(rule), owner.as_bytes());
        match front.waiting(space, key, hash(space, key)) {
            Some(Change::Put(id)) => Ok(Some(id.to_vec())),
            Some(Change::Remove) => Ok(None),
            Some(Change::Touch(_)) | None => self.in_pages(front, space, key),
        }
    }

    /// Writes what the logs hold and the disk does not.
    pub(super) fn flush(&self) -> Result<()> {
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
    pub(super) fn freeze(&self) {
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
    pub(super) fn merge(&self) -> Result<()> {
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
    pub(super) fn settle(&self) -> Result<()> {
        // What is frozen now, then what was active now.
        self.merge()?;
        self.freeze();
        self.merge()
    }

    pub(super) fn merge_loop(&self) {
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
    pub(super) fn heal(&self, error: &StoreError) -> Result<()> {
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
