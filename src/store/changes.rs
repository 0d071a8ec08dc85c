//! Writes being collected for one commit.

use super::db::{Database, MAX_VALUE, Writes};
use super::error::{Result, StoreError};
use super::frame;
use super::keys;
use super::memory::Event;
use super::types::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;

/// The writes themselves.
pub(super) type Collected = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Writes being collected, with a view on the database as it will be.
pub(super) struct Changes<'a> {
    db: &'a Database,
    writes: Collected,
}

/// The value of a JSON record stored under `key`.
pub(super) fn decode<T: DeserializeOwned>(path: &Path, key: &[u8], stored: &[u8]) -> Result<T> {
    let payload = frame::unseal(key, stored).map_err(|what| StoreError::damaged(path, what))?;
    serde_json::from_slice(payload).map_err(|e| StoreError::damaged(path, format!("a record cannot be read: {e}")))
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| StoreError::Bug(e.to_string()))
}

impl<'a> Changes<'a> {
    pub(super) fn new(db: &'a Database) -> Self {
        Self::with(db, Collected::new())
    }

    pub(super) fn with(db: &'a Database, writes: Collected) -> Self {
        Self { db, writes }
    }

    pub(super) fn into_parts(self) -> Collected {
        self.writes
    }

    pub(super) fn get<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>> {
        match self.writes.get(key) {
            Some(None) => Ok(None),
            Some(Some(stored)) => decode(self.db.path(), key, stored).map(Some),
            None => match self.db.get(key)? {
                Some(stored) => decode(self.db.path(), key, &stored).map(Some),
                None => Ok(None),
            },
        }
    }

    pub(super) fn set(&mut self, key: Vec<u8>, payload: &[u8]) {
        let stored = frame::seal(&key, payload);
        self.writes.insert(key, Some(stored));
    }

    pub(super) fn put<T: Serialize>(&mut self, key: Vec<u8>, value: &T) -> Result<()> {
        let payload = encode(value)?;
        if payload.len() > MAX_VALUE {
            return Err(StoreError::Bug(format!("a record of {} bytes does not fit", payload.len())));
        }
        self.set(key, &payload);
        Ok(())
    }

    pub(super) fn remove(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }

    /// The writes, and by how much they change the digest.
    pub(super) fn finish(self) -> Result<(Writes, u64)> {
        let mut delta = 0u64;
        for (key, new) in &self.writes {
            if let Some(old) = self.db.get(key)? {
                delta = delta.wrapping_sub(frame::digest(&old));
            }
            if let Some(new) = new {
                delta = delta.wrapping_add(frame::digest(new));
            }
        }
        Ok((self.writes.into_iter().collect(), delta))
    }

    /// Writes the tables that differ between two checkpoints.
    pub(super) fn put_tables(&mut self, old: Option<&Checkpoint>, new: &Checkpoint) -> Result<()> {
        let empty = BTreeMap::new();
        let old = old.map_or(&empty, |c| &c.tables);
        for (name, table) in &new.tables {
            if old.get(name) != Some(table) {
                self.put(keys::named(keys::TABLE, name), table)?;
            }
        }
        for name in old.keys().filter(|name| !new.tables.contains_key(*name)) {
            self.remove(keys::named(keys::TABLE, name));
        }
        Ok(())
    }

    /// Removes a record of marks and returns what it held.
    pub(super) fn take_marks(&mut self, key: Vec<u8>) -> Result<Vec<u8>> {
        let stored = self.db.get(&key)?;
        let damaged = |what: &str| StoreError::damaged(self.db.path(), what);
        let stored = stored.ok_or_else(|| damaged("a record of marks is missing"))?;
        let payload = frame::unseal(&key, &stored).map_err(damaged)?.to_vec();
        self.remove(key);
        Ok(payload)
    }

    pub(super) fn clear_marks(&mut self, table: &str) -> Result<()> {
        let mut gone = Vec::new();
        self.db.for_each(&keys::named(keys::MARK, table), |key, _| {
            gone.push(key.to_vec());
            Ok(())
        })?;
        for key in gone {
            self.remove(key);
        }
        Ok(())
    }

    pub(super) fn put_obligation(&mut self, key: Vec<u8>, o: Obligation, events: &mut Vec<Event>) -> Result<()> {
        self.set(keys::due(&o.table, o.due, &o.rule, &o.key), b"");
        for (entity, external_id) in o.reason.parents() {
            self.set(keys::waiting(keys::parent_hash(entity, external_id), &o.rule, &o.key), b"");
        }
        self.put(key.clone(), &o)?;
        events.push(Event::ObligationAdded(key, o));
        Ok(())
    }

    pub(super) fn remove_obligation(&mut self, key: Vec<u8>, o: Obligation, events: &mut Vec<Event>) {
        self.remove(keys::due(&o.table, o.due, &o.rule, &o.key));
        for (entity, external_id) in o.reason.parents() {
            self.remove(keys::waiting(keys::parent_hash(entity, external_id), &o.rule, &o.key));
        }
        self.remove(key.clone());
        events.push(Event::ObligationRemoved(key, o));
    }

    pub(super) fn put_letter(&mut self, index: Vec<u8>, letter: DeadLetter, events: &mut Vec<Event>) -> Result<()> {
        self.put(keys::letter(letter.id), &letter)?;
        self.put(index.clone(), &letter.id)?;
        events.push(Event::LetterAdded(index, letter.entity));
        Ok(())
    }

    /// Removes the dead letter whose index key is `index`, and returns its number.
    pub(super) fn remove_letter(&mut self, index: Vec<u8>, events: &mut Vec<Event>) -> Result<Option<u64>> {
        let Some(id) = self.get::<u64>(&index)? else { return Ok(None) };
        let key = keys::letter(id);
        if let Some(letter) = self.get::<DeadLetter>(&key)? {
            self.remove(key);
            self.remove(index.clone());
            events.push(Event::LetterRemoved(index, letter.entity));
        }
        Ok(Some(id))
    }

    /// Adds a history entry, in parts that fit, and drops the oldest ones above `kept`.
    pub(super) fn add_history(&mut self, entry: &HistoryEntry, kept: usize) -> Result<()> {
        for (part, bytes) in encode(entry)?.chunks(MAX_VALUE).enumerate() {
            let part = u16::try_from(part).map_err(|_| StoreError::Bug("a checkpoint is too large".into()))?;
            self.set(keys::history(entry.id, part), bytes);
        }
        let ids: Vec<u64> = self.history()?.iter().map(|entry| entry.id).collect();
        for id in ids.iter().take((ids.len() + 1).saturating_sub(kept)) {
            self.remove_history(*id)?;
        }
        Ok(())
    }

    pub(super) fn remove_history(&mut self, id: u64) -> Result<()> {
        let prefix = &keys::history(id, 0)[..9];
        for (key, _) in self.db.scan(prefix, prefix, usize::from(u16::MAX))? {
            self.remove(key.to_vec());
        }
        Ok(())
    }

    /// The entries in the database, oldest first.
    pub(super) fn history(&self) -> Result<Vec<HistoryEntry>> {
        let mut parts: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let path = self.db.path();
        self.db.for_each(&[keys::HISTORY], |key, stored| {
            let payload = frame::unseal(key, stored).map_err(|what| StoreError::damaged(path, what))?;
            parts.entry(key.get(..9).unwrap_or_default().to_vec()).or_default().extend_from_slice(payload);
            Ok(())
        })?;
        parts
            .into_values()
            .map(|json| {
                serde_json::from_slice(&json)
                    .map_err(|e| StoreError::damaged(path, format!("an earlier checkpoint cannot be read: {e}")))
            })
            .collect()
    }
}
