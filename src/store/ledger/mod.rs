//! The ledger: what the CRM last accepted, per rule and external id.

use super::db::{Database, Pair, Writes};
use super::error::{Result, StoreError};
use super::frame;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tidemark_contract::RowKey;

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

struct State {
    rules: BTreeMap<String, u16>,
    counts: BTreeMap<u16, u64>,
    sequence: u64,
}

/// The ledger of one tenant. All calls block; they may come from several threads.
pub struct Ledger {
    db: Database,
    state: Mutex<State>,
}

const ENTRY: u8 = b'e';
const OWNER: u8 = b'r';
const NAMES: &[u8] = b"n";
const SEQUENCE: &[u8] = b"s";

fn key(letter: u8, rule: LedgerRule, rest: &[u8]) -> Vec<u8> {
    let mut out = vec![letter];
    out.extend_from_slice(&rule.0.to_be_bytes());
    out.extend_from_slice(rest);
    out
}

fn encode(entry: &Entry) -> Vec<u8> {
    let mut out = entry.hash.to_le_bytes().to_vec();
    out.extend_from_slice(&entry.generation.to_le_bytes());
    if let Some(owner) = &entry.owner {
        out.push(1);
        out.extend_from_slice(owner.as_bytes());
    }
    out
}

fn decode(bytes: &[u8]) -> Option<Entry> {
    let (hash, rest) = bytes.split_first_chunk::<8>()?;
    let (generation, rest) = rest.split_first_chunk::<4>()?;
    let owner = match rest.split_first() {
        Some((_, key)) => Some(RowKey::from_bytes(key)?),
        None => None,
    };
    Some(Entry { hash: u64::from_le_bytes(*hash), generation: u32::from_le_bytes(*generation), owner })
}

impl Ledger {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let db = Database::open(path, 32 << 20)?;
        let damaged = |what: &str| StoreError::damaged(path, what);
        let rules = match db.get(NAMES)? {
            Some(v) => serde_json::from_slice(frame::unseal(NAMES, &v).map_err(damaged)?)
                .map_err(|e| damaged(&e.to_string()))?,
            None => BTreeMap::new(),
        };
        let sequence = match db.get(SEQUENCE)? {
            Some(v) => {
                frame::unseal(SEQUENCE, &v).map_err(damaged)?.first_chunk().map_or(0, |b| u64::from_le_bytes(*b))
            }
            None => 0,
        };
        let mut counts = BTreeMap::new();
        db.for_each(&[ENTRY], |key, _| {
            if let Some(rule) = key.get(1..3).and_then(|b| b.first_chunk()) {
                *counts.entry(u16::from_be_bytes(*rule)).or_default() += 1;
            }
            Ok(())
        })?;
        Ok(Self { db, state: Mutex::new(State { rules, counts, sequence }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the rule called `name`; given on first use.
    pub fn rule(&self, name: &str) -> Result<LedgerRule> {
        let mut state = self.state();
        if let Some(id) = state.rules.get(name) {
            return Ok(LedgerRule(*id));
        }
        let id = state.rules.values().max().map_or(0, |id| id + 1);
        let mut rules = state.rules.clone();
        rules.insert(name.to_string(), id);
        let json = serde_json::to_vec(&rules).map_err(|e| StoreError::Bug(e.to_string()))?;
        self.db.apply(vec![(NAMES.to_vec(), Some(frame::seal(NAMES, &json)))])?;
        state.rules = rules;
        Ok(LedgerRule(id))
    }

    fn read(&self, (key, value): &Pair) -> Result<Record> {
        let damaged = || StoreError::damaged(self.db.path(), "an entry cannot be read");
        let payload = frame::unseal(key, value).map_err(|_| damaged())?;
        let external_id = key.get(3..).and_then(|b| std::str::from_utf8(b).ok()).ok_or_else(damaged)?.into();
        Ok(Record { external_id, entry: decode(payload).ok_or_else(damaged)? })
    }

    /// What is known of one record.
    pub fn get(&self, rule: LedgerRule, external_id: &str) -> Result<Option<Entry>> {
        let key = key(ENTRY, rule, external_id.as_bytes());
        match self.db.get(&key)? {
            Some(value) => Ok(Some(self.read(&(key.into(), value))?.entry)),
            None => Ok(None),
        }
    }

    /// What is known of several records of one rule, in their order. Cheaper than one by one.
    pub fn get_batch(&self, rule: LedgerRule, external_ids: &[&str]) -> Result<Vec<Option<Entry>>> {
        external_ids.iter().map(|id| self.get(rule, id)).collect()
    }

    /// Notes what the CRM accepted. Durable after [`Ledger::flush_durable`].
    pub fn put_batch(&self, rule: LedgerRule, entries: &[(&str, Entry)]) -> Result<()> {
        let mut state = self.state();
        let mut writes = Writes::new();
        let mut fresh = std::collections::BTreeSet::new();
        for (id, entry) in entries {
            let key_ = key(ENTRY, rule, id.as_bytes());
            match self.db.get(&key_)? {
                None => drop(fresh.insert(*id)),
                Some(old) => {
                    let old = self.read(&(key_.clone().into(), old))?.entry;
                    if let Some(owner) = old.owner.filter(|o| entry.owner.as_ref() != Some(o)) {
                        writes.push((key(OWNER, rule, owner.as_bytes()), None));
                    }
                }
            }
            if let Some(owner) = &entry.owner {
                let k = key(OWNER, rule, owner.as_bytes());
                let v = frame::seal(&k, id.as_bytes());
                writes.push((k, Some(v)));
            }
            let value = frame::seal(&key_, &encode(entry));
            writes.push((key_, Some(value)));
        }
        self.db.apply(writes)?;
        *state.counts.entry(rule.0).or_default() += fresh.len() as u64;
        Ok(())
    }

    /// Notes that the rows of these records were seen in pass `generation`; unknown records are left out.
    pub fn touch(&self, rule: LedgerRule, external_ids: &[&str], generation: u32) -> Result<()> {
        let mut known = Vec::new();
        for id in external_ids {
            if let Some(entry) = self.get(rule, id)? {
                known.push((*id, Entry { generation, ..entry }));
            }
        }
        self.put_batch(rule, &known)
    }

    /// Forgets records (they are gone from the CRM).
    pub fn remove(&self, rule: LedgerRule, external_ids: &[&str]) -> Result<()> {
        let mut state = self.state();
        for id in external_ids {
            let Some(old) = self.get(rule, id)? else { continue };
            let mut writes = vec![(key(ENTRY, rule, id.as_bytes()), None)];
            if let Some(owner) = old.owner {
                let k = key(OWNER, rule, owner.as_bytes());
                if let Some(v) = self.db.get(&k)?
                    && frame::unseal(&k, &v).is_ok_and(|v| v == id.as_bytes())
                {
                    writes.push((k, None));
                }
            }
            self.db.apply(writes)?;
            if let Some(count) = state.counts.get_mut(&rule.0) {
                *count -= 1;
            }
        }
        Ok(())
    }

    /// The record that belongs to a source row, for rules that keep owners.
    pub fn external_id_of(&self, rule: LedgerRule, owner: &RowKey) -> Result<Option<Box<str>>> {
        let k = key(OWNER, rule, owner.as_bytes());
        let Some(v) = self.db.get(&k)? else { return Ok(None) };
        let id = frame::unseal(&k, &v).ok().and_then(|b| std::str::from_utf8(b).ok());
        let Some(id) = id else { return Err(StoreError::damaged(self.db.path(), "an entry cannot be read")) };
        Ok(self.get(rule, id)?.filter(|e| e.owner.as_ref() == Some(owner)).map(|_| id.into()))
    }

    /// Up to `limit` records of a rule after `after`, in the order of their external ids (bytes).
    pub fn records(&self, rule: LedgerRule, after: Option<&str>, limit: usize) -> Result<Vec<Record>> {
        let from = match after {
            Some(id) => [id.as_bytes(), b"\0"].concat(),
            None => Vec::new(),
        };
        let pairs = self.db.scan(&key(ENTRY, rule, b""), &key(ENTRY, rule, &from), limit)?;
        pairs.iter().map(|pair| self.read(pair)).collect()
    }

    /// Up to `limit` records of a rule after `after` whose rows were last seen before pass `generation`.
    pub fn older_than(
        &self,
        rule: LedgerRule,
        generation: u32,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        let mut out = Vec::new();
        let mut after: Option<Box<str>> = after.map(Into::into);
        while out.len() < limit {
            let page = self.records(rule, after.as_deref(), 1000)?;
            let Some(last) = page.last() else { break };
            after = Some(last.external_id.clone());
            out.extend(page.into_iter().filter(|r| r.entry.generation < generation));
        }
        out.truncate(limit);
        Ok(out)
    }

    /// Number of records of a rule.
    pub fn count(&self, rule: LedgerRule) -> u64 {
        self.state().counts.get(&rule.0).copied().unwrap_or(0)
    }

    /// Returns when everything noted so far is on the disk.
    pub fn flush_durable(&self) -> Result<()> {
        let mut state = self.state();
        let next = state.sequence + 1;
        self.db.apply(vec![(SEQUENCE.to_vec(), Some(frame::seal(SEQUENCE, &next.to_le_bytes())))])?;
        self.db.flush_durable()?;
        state.sequence = next;
        Ok(())
    }

    pub(super) fn size_on_disk(&self) -> Result<u64> {
        self.db.size_on_disk()
    }

    pub(super) fn sequence(&self) -> u64 {
        self.state().sequence
    }
}
