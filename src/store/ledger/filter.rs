//! "Was never there", without a look into the pages: a Bloom filter that grows in layers.
//!
//! A first pass over a source asks for every record before it is written, and each of those questions is about a key
//! that is not there. Ten bits per key answer 99 % of them.

/// Bits per key.
const BITS: usize = 10;
/// Bits set for each key, all in one 64-byte block: one cache miss per layer.
const HASHES: u32 = 6;
const BLOCK_WORDS: usize = 8;
const FIRST_LAYER: usize = 64 * 1024;
/// The filter takes no more memory than this; beyond it, every answer is "perhaps".
const MAX_BYTES: usize = 16 << 20;

struct Layer {
    words: Vec<u64>,
    room: usize,
}

impl Layer {
    fn new(keys: usize) -> Self {
        let blocks = (keys * BITS).div_ceil(64 * BLOCK_WORDS).max(1);
        Self { words: vec![0; blocks * BLOCK_WORDS], room: keys }
    }

    /// The key's block. The upper half of its hash chooses it, the lower half the bits.
    fn block(&self, hash: u64) -> usize {
        let blocks = (self.words.len() / BLOCK_WORDS) as u64;
        (((hash >> 32) * blocks) >> 32) as usize * BLOCK_WORDS
    }

    fn contains(&self, hash: u64, mask: &Mask) -> bool {
        let block = self.block(hash);
        let words = self.words.get(block..block + BLOCK_WORDS);
        words.is_none_or(|words| words.iter().zip(mask).fold(0, |lacking, (w, m)| lacking | (!w & m)) == 0)
    }

    fn insert(&mut self, hash: u64) {
        let block = self.block(hash);
        for (word, mask) in self.words.iter_mut().skip(block).zip(mask(hash)) {
            *word |= mask;
        }
        self.room -= 1;
    }
}

/// A key's bits in its block.
type Mask = [u64; BLOCK_WORDS];

fn mask(hash: u64) -> Mask {
    let mut mask = [0; BLOCK_WORDS];
    let mut bits = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for _ in 0..HASHES {
        let bit = bits >> 55;
        if let Some(word) = mask.get_mut((bit / 64) as usize) {
            *word |= 1 << (bit % 64);
        }
        bits = bits.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
    }
    mask
}

/// See the module's documentation.
pub(super) struct Filter {
    layers: Vec<Layer>,
    is_full: bool,
}

impl Filter {
    /// A filter with room for `keys` before it has to grow.
    pub(super) fn new(keys: usize) -> Self {
        Self { layers: vec![Layer::new(keys.clamp(FIRST_LAYER, MAX_BYTES * 8 / BITS / 2))], is_full: false }
    }

    /// `false` is certain.
    pub(super) fn may_contain(&self, hash: u64) -> bool {
        let mask = mask(hash);
        // The newest layer is the largest one: most keys are there.
        self.is_full || self.layers.iter().rev().any(|layer| layer.contains(hash, &mask))
    }

    pub(super) fn insert(&mut self, hash: u64) {
        if self.is_full {
            return;
        }
        if self.layers.last().is_none_or(|layer| layer.room == 0) {
            let used: usize = self.layers.iter().map(|layer| layer.words.len() * 8).sum();
            if used * 3 > MAX_BYTES {
                self.is_full = true;
                self.layers.clear();
                return;
            }
            // Twice as large as all before together.
            self.layers.push(Layer::new(used * 8 / BITS * 2));
        }
        if let Some(layer) = self.layers.last_mut() {
            layer.insert(hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    #[test]
    fn no_key_is_ever_denied_and_few_others_are_suspected() {
        let mut filter = Filter::new(0);
        let hash = |n: u64| xxh3_64(&n.to_le_bytes());
        let count = 300_000;
        for n in 0..count {
            filter.insert(hash(n));
        }
        assert!((0..count).all(|n| filter.may_contain(hash(n))));
        let suspected = (count..2 * count).filter(|n| filter.may_contain(hash(*n))).count();
        assert!(suspected < 12_000, "{suspected} of {count}");
        let bytes: usize = filter.layers.iter().map(|l| l.words.len() * 8).sum();
        assert!(bytes < 2 << 20, "{bytes} bytes");
    }

    #[test]
    fn memory_is_bounded() {
        let mut filter = Filter::new(usize::MAX);
        let mut n = 0u64;
        while !filter.is_full {
            n += 1;
            filter.insert(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            if n.is_multiple_of(1 << 20) {
                assert!(filter.layers.iter().map(|l| l.words.len() * 8).sum::<usize>() <= MAX_BYTES);
            }
        }
        assert!(n > 5_000_000 && filter.may_contain(7));
    }
}
