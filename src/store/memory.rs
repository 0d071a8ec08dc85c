//! What the store knows without asking the database: small summaries that answer "nothing there" at once.

use super::keys;
use super::marks::MarkSet;
use super::types::Obligation;
use std::collections::{BTreeMap, HashMap};

/// What a commit changes here, applied once it is durable.
pub(super) enum Event {
    MarksCleared(String),
    MarksAdded(String, Vec<u128>),
    ObligationAdded(Vec<u8>, Obligation),
    ObligationRemoved(Vec<u8>, Obligation),
    LetterAdded(Vec<u8>, String),
    LetterRemoved(Vec<u8>, String),
}

/// A multiset of hashes: "no" is certain, "yes" has to be looked up.
#[derive(Default)]
struct Hints(HashMap<u64, u32>);

impl Hints {
    fn add(&mut self, hash: u64) {
        *self.0.entry(hash).or_default() += 1;
    }

    fn remove(&mut self, hash: u64) {
        if let Some(count) = self.0.get_mut(&hash) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&hash);
            }
        }
    }

    fn may_contain(&self, hash: u64) -> bool {
        self.0.contains_key(&hash)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Default)]
pub(super) struct Memory {
    marks: HashMap<String, MarkSet>,
    obligations: Hints,
    awaited: Hints,
    letters: Hints,
    obligation_counts: BTreeMap<(String, &'static str), u64>,
    letter_counts: BTreeMap<String, u64>,
}

impl Memory {
    /// Takes over what was read from the database. Marks that were noted but not saved yet stay: one too many only makes
    /// the snapshot leave a row to the tail, which has spoken of it.
    pub(super) fn replace(&mut self, read: Memory) {
        let marks = std::mem::take(&mut self.marks);
        *self = Memory { marks, ..read };
    }

    /// Adds the marks of one stored record.
    pub(super) fn load_marks(&mut self, table: &str, payload: &[u8]) {
        let set = self.marks.entry(table.to_string()).or_default();
        for mark in payload.as_chunks::<16>().0 {
            set.insert(u128::from_be_bytes(*mark));
        }
    }

    /// Adds marks, and returns those that are new.
    pub(super) fn add_marks(&mut self, table: &str, marks: impl IntoIterator<Item = u128>) -> Vec<u128> {
        if !self.marks.contains_key(table) {
            self.marks.insert(table.to_string(), MarkSet::default());
        }
        match self.marks.get_mut(table) {
            Some(set) => marks.into_iter().filter(|mark| set.insert(*mark)).collect(),
            None => Vec::new(),
        }
    }

    pub(super) fn has_mark(&self, table: &str, mark: u128) -> bool {
        self.marks.get(table).is_some_and(|set| set.contains(mark))
    }

    pub(super) fn all_marks(&self) -> BTreeMap<String, Vec<u128>> {
        self.marks.iter().map(|(table, set)| (table.clone(), set.to_vec())).collect()
    }

    pub(super) fn mark_count(&self, table: &str) -> usize {
        self.marks.get(table).map_or(0, MarkSet::len)
    }

    pub(super) fn add_obligation(&mut self, key: &[u8], obligation: &Obligation) {
        self.obligations.add(keys::fingerprint(key));
        for parent in parents_of(obligation) {
            self.awaited.add(parent);
        }
        *self.obligation_counts.entry(count_key(obligation)).or_default() += 1;
    }

    fn remove_obligation(&mut self, key: &[u8], obligation: &Obligation) {
        self.obligations.remove(keys::fingerprint(key));
        for parent in parents_of(obligation) {
            self.awaited.remove(parent);
        }
        let name = count_key(obligation);
        if let Some(count) = self.obligation_counts.get_mut(&name) {
            *count -= 1;
            if *count == 0 {
                self.obligation_counts.remove(&name);
            }
        }
    }

    pub(super) fn add_letter(&mut self, key: &[u8], entity: &str) {
        self.letters.add(keys::fingerprint(key));
        *self.letter_counts.entry(entity.to_string()).or_default() += 1;
    }

    fn remove_letter(&mut self, key: &[u8], entity: &str) {
        self.letters.remove(keys::fingerprint(key));
        if let Some(count) = self.letter_counts.get_mut(entity) {
            *count -= 1;
            if *count == 0 {
                self.letter_counts.remove(entity);
            }
        }
    }

    pub(super) fn apply(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::MarksCleared(table) => {
                    self.marks.remove(&table);
                }
                Event::MarksAdded(table, marks) => {
                    self.add_marks(&table, marks);
                }
                Event::ObligationAdded(key, o) => self.add_obligation(&key, &o),
                Event::ObligationRemoved(key, o) => self.remove_obligation(&key, &o),
                Event::LetterAdded(key, entity) => self.add_letter(&key, &entity),
                Event::LetterRemoved(key, entity) => self.remove_letter(&key, &entity),
            }
        }
    }

    pub(super) fn may_have_obligation(&self, key: &[u8]) -> bool {
        self.obligations.may_contain(keys::fingerprint(key))
    }

    /// Whether anything waits for a parent.
    pub(super) fn awaits_any(&self) -> bool {
        !self.awaited.is_empty()
    }

    pub(super) fn may_await(&self, parent: u128) -> bool {
        self.awaited.may_contain(low_bits(parent))
    }

    /// Whether there is any dead letter.
    pub(super) fn has_letters(&self) -> bool {
        !self.letters.is_empty()
    }

    pub(super) fn may_have_letter(&self, key: &[u8]) -> bool {
        self.letters.may_contain(keys::fingerprint(key))
    }

    pub(super) fn obligation_counts(&self) -> &BTreeMap<(String, &'static str), u64> {
        &self.obligation_counts
    }

    pub(super) fn letter_counts(&self) -> &BTreeMap<String, u64> {
        &self.letter_counts
    }
}

fn count_key(o: &Obligation) -> (String, &'static str) {
    (o.rule.clone(), o.reason.as_str())
}

fn parents_of(o: &Obligation) -> impl Iterator<Item = u64> {
    o.reason.parents().map(|(entity, external_id)| low_bits(keys::parent_hash(entity, external_id)))
}

#[allow(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
fn low_bits(hash: u128) -> u64 {
    hash as u64
}
