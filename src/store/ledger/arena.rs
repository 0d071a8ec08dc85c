//! Changes of the ledger that are not in its pages yet: a log in memory with an index over it.
//!
//! The log's bytes are what [`super::Ledger::flush_durable`] writes to disk, as they are; the index finds the newest
//! record of a key. So a change costs an append and a hash table entry, whatever the order of keys.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Which keys these are: a rule's external ids, or its rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Space {
    pub(super) rule: u16,
    pub(super) is_owner: bool,
}

impl Space {
    pub(super) fn to_bytes(self) -> [u8; 3] {
        let [a, b] = self.rule.to_be_bytes();
        [a, b, u8::from(self.is_owner)]
    }

    /// The space of a page's key in sled.
    pub(super) fn from_page_key(key: &[u8]) -> Option<Self> {
        key.get(1..)?.first_chunk::<3>().map(|bytes| Self::from_bytes(*bytes))
    }

    fn from_bytes(bytes: [u8; 3]) -> Self {
        Self { rule: u16::from_be_bytes([bytes[0], bytes[1]]), is_owner: bytes[2] != 0 }
    }
}

/// A change of one key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change<'a> {
    /// It has this value now.
    Put(&'a [u8]),
    /// It was seen in this pass; without effect if it has no value.
    Touch(u32),
    /// It has no value.
    Remove,
}

/// What a change does to the number of entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    Same,
    OneMore,
    OneLess,
}

/// Keys are hashed already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*b);
        }
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

/// The hash of a key.
pub(super) fn hash(space: Space, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, u64::from(space.rule) << 1 | u64::from(space.is_owner))
}

/// See the module's documentation. Records are
/// `kind (1) | space (3) | key length (4) | key | value length or generation (4) | value`.
pub(super) struct Arena {
    log: Vec<u8>,
    /// From a key's hash to its newest record.
    index: HashMap<u64, u32, BuildHasherDefault<Identity>>,
    /// From a record to an older one of *another* key with the same hash. Practically always empty.
    collisions: HashMap<u32, u32>,
    /// Bytes of the log that are on disk.
    pub(super) flushed: usize,
    /// Entries more (or less) than before, by rule.
    deltas: HashMap<u16, i64>,
}

const HEADER: usize = 8;

struct Record<'a> {
    space: Space,
    key: &'a [u8],
    change: Change<'a>,
    len: usize,
}

impl Arena {
    /// An empty arena that is expected to grow to `bytes`. (The memory is only used as it fills.)
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            log: Vec::with_capacity(bytes + 4096),
            index: HashMap::default(),
            collisions: HashMap::new(),
            flushed: 0,
            deltas: HashMap::new(),
        }
    }

    /// The same memory with nothing in it, as far as it is not much more than `bytes`.
    pub(super) fn emptied(mut self, bytes: usize) -> Self {
        if self.log.capacity() > bytes * 2 {
            return Self::new(bytes);
        }
        self.log.clear();
        self.index.clear();
        self.collisions.clear();
        self.deltas.clear();
        self.flushed = 0;
        self
    }

    pub(super) fn len(&self) -> usize {
        self.log.len()
    }

    pub(super) fn log(&self) -> &[u8] {
        &self.log
    }

    pub(super) fn delta(&self, rule: u16) -> i64 {
        self.deltas.get(&rule).copied().unwrap_or(0)
    }

    pub(super) fn push(&mut self, space: Space, key: &[u8], hash: u64, change: Change<'_>, effect: Effect) {
        let at = self.log.len();
        let (kind, number, value): (u8, u32, &[u8]) = match change {
            Change::Put(value) => (1, value.len() as u32, value),
            Change::Touch(generation) => (2, generation, &[]),
            Change::Remove => (3, 0, &[]),
        };
        self.log.push(kind);
        self.log.extend_from_slice(&space.to_bytes());
        self.log.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.log.extend_from_slice(key);
        self.log.extend_from_slice(&number.to_le_bytes());
        self.log.extend_from_slice(value);
        self.note(at as u32, space, key, hash);
        self.count(space, effect);
    }

    /// Counts a change's effect.
    pub(super) fn count(&mut self, space: Space, effect: Effect) {
        let delta = match effect {
            Effect::Same => return,
            Effect::OneMore => 1,
            Effect::OneLess => -1,
        };
        *self.deltas.entry(space.rule).or_default() += delta;
    }

    fn note(&mut self, at: u32, space: Space, key: &[u8], hash: u64) {
        if let Some(older) = self.index.insert(hash, at) {
            let is_same = self.record(older).is_some_and(|r| r.space == space && r.key == key);
            let next = if is_same { self.collisions.remove(&older) } else { Some(older) };
            if let Some(next) = next {
                self.collisions.insert(at, next);
            }
        }
    }

    fn record(&self, at: u32) -> Option<Record<'_>> {
        let bytes = self.log.get(at as usize..)?;
        let header = bytes.get(..HEADER)?;
        let key_len = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let key = bytes.get(HEADER..HEADER.checked_add(key_len)?)?;
        let number = u32::from_le_bytes(*bytes.get(HEADER + key_len..)?.first_chunk::<4>()?);
        let body = HEADER + key_len + 4;
        let (change, len) = match header[0] {
            1 => (Change::Put(bytes.get(body..body.checked_add(number as usize)?)?), body + number as usize),
            2 => (Change::Touch(number), body),
            3 => (Change::Remove, body),
            _ => return None,
        };
        Some(Record { space: Space::from_bytes([header[1], header[2], header[3]]), key, change, len })
    }

    /// The newest change of a key.
    pub(super) fn get(&self, space: Space, key: &[u8], hash: u64) -> Option<Change<'_>> {
        let mut at = *self.index.get(&hash)?;
        loop {
            let record = self.record(at)?;
            if record.space == space && record.key == key {
                return Some(record.change);
            }
            at = *self.collisions.get(&at)?;
        }
    }

    /// The newest record of every key, in the order of spaces and keys: to be looked up with [`Arena::at`]. (Places
    /// only: with the records themselves, sorting a full arena would need several times its size.)
    pub(super) fn sorted(&self) -> Vec<u32> {
        let key = |at: &u32| self.record(*at).map(|r| (r.space, r.key));
        let mut places: Vec<u32> = self.index.values().chain(self.collisions.values()).copied().collect();
        // Among records of one key (after a collision) the newest comes first.
        places.sort_unstable_by(|a, b| key(a).cmp(&key(b)).then(b.cmp(a)));
        places.dedup_by(|b, a| key(a) == key(b));
        places
    }

    /// The change recorded at a place.
    pub(super) fn at(&self, place: u32) -> Option<(Space, &[u8], Change<'_>)> {
        self.record(place).map(|r| (r.space, r.key, r.change))
    }

    /// An arena from the log of another one; `None` if it is not one. Effects are not in the log: see [`Arena::count`].
    pub(super) fn replay(log: Vec<u8>) -> Option<Self> {
        let mut this = Self { flushed: log.len(), log, ..Self::new(0) };
        let mut at = 0;
        while at < this.log.len() {
            let record = this.record(at as u32)?;
            let (space, key, len) = (record.space, record.key.to_vec(), record.len);
            this.note(at as u32, space, &key, hash(space, &key));
            at += len;
        }
        Some(this)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const SPACE: Space = Space { rule: 7, is_owner: false };

    #[test]
    fn the_newest_change_counts_also_after_a_replay_and_a_collision() {
        // Three hash values for a hundred keys: every lookup walks through collisions.
        let fake = |key: u32| u64::from(key % 3);
        let mut arena = Arena::new(1000);
        let mut model = BTreeMap::new();
        let mut state = 1u32;
        for n in 0..3000u32 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = (state >> 8) % 100;
            let bytes = key.to_be_bytes();
            let value = n.to_le_bytes();
            let change = match state % 3 {
                0 => Change::Put(&value),
                1 => Change::Touch(n),
                _ => Change::Remove,
            };
            arena.push(SPACE, &bytes, fake(key), change, Effect::Same);
            model.insert(bytes.to_vec(), (state % 3, n));
        }
        let want: Vec<_> = model.iter().map(|(k, v)| (k.clone(), *v)).collect();
        let shown = |change: Change<'_>| match change {
            Change::Put(v) => (0, u32::from_le_bytes(v.try_into().expect("four bytes"))),
            Change::Touch(n) => (1, n),
            Change::Remove => (2, 0),
        };
        let is_equal = |got: (u32, u32), want: (u32, u32)| got.0 == want.0 && (want.0 == 2 || got.1 == want.1);
        for (key, want) in &want {
            let number = u32::from_be_bytes(key.as_slice().try_into().expect("four bytes"));
            assert!(is_equal(shown(arena.get(SPACE, key, fake(number)).expect("is there")), *want));
        }
        let replayed = Arena::replay(arena.log().to_vec()).expect("a log");
        for arena in [&arena, &replayed] {
            let sorted = arena.sorted();
            assert_eq!(sorted.len(), want.len());
            for (place, (want_key, want)) in sorted.into_iter().zip(&want) {
                let (_, key, change) = arena.at(place).expect("a record");
                assert!(key == want_key.as_slice() && is_equal(shown(change), *want));
            }
        }
        assert!(Arena::replay(arena.log()[..arena.len() - 1].to_vec()).is_none());
    }
}
