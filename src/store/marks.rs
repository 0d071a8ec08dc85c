//! Which keys the tail has spoken of, in memory: 16 bytes each.
//!
//! A mark is the 128-bit hash of a row key. Two keys that share a hash would make the snapshot silent about a row of
//! which the tail never spoke; with ten million marks and a hundred million rows the odds of that are about 1 in 10^23.

use std::collections::HashSet;
use tidemark_contract::RowKey;
use xxhash_rust::xxh3::xxh3_128;

/// The mark of a row key.
pub(super) fn mark_of(key: &RowKey) -> u128 {
    xxh3_128(key.as_bytes())
}

/// A set of marks: a sorted list, and the newest ones in a hash set until there are enough to be merged.
#[derive(Default)]
pub(super) struct MarkSet {
    sorted: Vec<u128>,
    recent: HashSet<u128>,
}

impl MarkSet {
    pub(super) fn contains(&self, mark: u128) -> bool {
        self.recent.contains(&mark) || self.sorted.binary_search(&mark).is_ok()
    }

    /// Adds a mark; `false` if it was there.
    pub(super) fn insert(&mut self, mark: u128) -> bool {
        if self.contains(mark) {
            return false;
        }
        self.recent.insert(mark);
        if self.recent.len() >= 4096.max(self.sorted.len() / 8) {
            self.sorted.reserve_exact(self.recent.len());
            self.sorted.extend(self.recent.drain());
            self.sorted.sort_unstable();
        }
        true
    }

    /// All of them, in no order.
    pub(super) fn to_vec(&self) -> Vec<u128> {
        self.sorted.iter().chain(&self.recent).copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len() + self.recent.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_marks_is_a_set() {
        let mut set = MarkSet::default();
        for round in 0..2 {
            for i in 0..20_000u64 {
                assert_eq!(set.insert(xxh3_128(&i.to_le_bytes())), round == 0);
            }
        }
        assert_eq!(set.len(), 20_000);
        assert!(set.contains(xxh3_128(&7u64.to_le_bytes())));
        assert!(!set.contains(xxh3_128(&20_000u64.to_le_bytes())));
    }
}
