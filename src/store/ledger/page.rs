//! A page: a few kilobytes of neighbouring entries, sorted and front-coded, in one sled value.
//!
//! sled pays per key, not per byte: a million random inserts of its own cost tens of microseconds each. Here a sled
//! value holds about a hundred entries, and each entry costs what its key does not share with the one before.
//!
//! Layout: `upper bound (varint length + 1, 0 for none; bytes) | entries`, each entry
//! `shared prefix (varint) | rest length (varint) | rest | value length (varint) | value`. A page holds the keys from its
//! own sled key on up to, not including, its upper bound; so it can be told from one page alone whether a key that is
//! not in it exists at all.

/// A page is split when its entries take more than this. Seventeen pages make a sled leaf, which has to stay below an
/// eighth of sled's segment.
const MAX_BYTES: usize = 3584;
/// How full pages are after a split in the middle of the keys, so that the next inserts do not split them again.
const SPLIT_FILL: usize = MAX_BYTES * 2 / 3;

fn put_varint(out: &mut Vec<u8>, mut n: usize) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut n = 0usize;
    for shift in (0..35).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        n |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(head)
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// A page being read. `None` and `Err` in its methods mean that the bytes are no page.
#[derive(Clone, Copy)]
pub(super) struct Page<'a> {
    upper: Option<&'a [u8]>,
    entries: &'a [u8],
}

/// The bytes are no page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl<'a> Page<'a> {
    pub(super) const EMPTY: Page<'static> = Page { upper: None, entries: &[] };

    pub(super) fn read(mut bytes: &'a [u8]) -> Result<Self, Malformed> {
        let upper = match varint(&mut bytes).ok_or(Malformed)? {
            0 => None,
            len => Some(take(&mut bytes, len - 1).ok_or(Malformed)?),
        };
        Ok(Self { upper, entries: bytes })
    }

    /// The first key that is beyond this page.
    pub(super) fn upper(&self) -> Option<&'a [u8]> {
        self.upper
    }

    /// The value of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<&'a [u8]>, Malformed> {
        let mut rest = self.entries;
        // Bytes that `key` shares with the entry before, which is smaller than `key`.
        let mut matched = 0;
        while !rest.is_empty() {
            let entry = Raw::read(&mut rest)?;
            if entry.shared > matched {
                continue; // as small as the one before
            }
            if entry.shared < matched {
                return Ok(None); // larger than `key`
            }
            let tail = key.get(matched..).ok_or(Malformed)?;
            let more = common_prefix(entry.rest, tail);
            match (entry.rest.get(more), tail.get(more)) {
                (None, None) => return Ok(Some(entry.value)),
                (None, Some(_)) => matched += more,
                (Some(_), None) => return Ok(None),
                (Some(a), Some(b)) if a > b => return Ok(None),
                (Some(_), Some(_)) => matched += more,
            }
        }
        Ok(None)
    }

    /// Calls `f` with every entry in order.
    pub(super) fn for_each(&self, mut f: impl FnMut(&[u8], &'a [u8])) -> Result<(), Malformed> {
        let mut rest = self.entries;
        let mut key = Vec::with_capacity(64);
        while !rest.is_empty() {
            let entry = Raw::read(&mut rest)?;
            if entry.shared > key.len() {
                return Err(Malformed);
            }
            key.truncate(entry.shared);
            key.extend_from_slice(entry.rest);
            f(&key, entry.value);
        }
        Ok(())
    }
}

struct Raw<'a> {
    shared: usize,
    rest: &'a [u8],
    value: &'a [u8],
}

impl<'a> Raw<'a> {
    #[inline]
    fn read(bytes: &mut &'a [u8]) -> Result<Self, Malformed> {
        let read = |bytes: &mut &'a [u8]| {
            let shared = varint(bytes)?;
            let len = varint(bytes)?;
            let rest = take(bytes, len)?;
            let len = varint(bytes)?;
            let value = take(bytes, len)?;
            Some(Self { shared, rest, value })
        };
        read(bytes).ok_or(Malformed)
    }
}

/// Sorted entries in one buffer, on their way into pages.
#[derive(Default)]
pub(super) struct Entries {
    bytes: Vec<u8>,
    /// Start of the key, start of the value, end of the value.
    places: Vec<(u32, u32, u32)>,
}

impl Entries {
    pub(super) fn push(&mut self, key: &[u8], value: &[u8]) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(key);
        let middle = self.bytes.len() as u32;
        self.bytes.extend_from_slice(value);
        self.places.push((start, middle, self.bytes.len() as u32));
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    fn get(&self, index: usize) -> (&[u8], &[u8]) {
        let (start, middle, end) = self.places[index];
        (&self.bytes[start as usize..middle as usize], &self.bytes[middle as usize..end as usize])
    }

    /// The entries as pages that together reach from `lower` to `upper`: `(lower bound, page)` each, at least one.
    /// `appended` says that they end with new entries at the end of all keys: more of those will come, and never
    /// anything in between, so the pages are filled up.
    pub(super) fn to_pages(&self, lower: &[u8], upper: Option<&[u8]>, appended: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut pages = Vec::new();
        let mut lower = lower.to_vec();
        let mut body = Vec::with_capacity(MAX_BYTES + 256);
        let total: usize = self.places.iter().map(|(start, _, end)| (end - start) as usize + 3).sum();
        let limit = if appended || total <= MAX_BYTES { MAX_BYTES } else { SPLIT_FILL };
        let mut last: &[u8] = &[];
        for index in 0..self.len() {
            let (key, value) = self.get(index);
            if !body.is_empty() && body.len() + key.len() + value.len() + 6 > limit {
                // The shortest text between the two neighbours is enough to tell the pages apart.
                let split = key[..common_prefix(last, key) + 1].to_vec();
                pages.push((std::mem::replace(&mut lower, split.clone()), finish(Some(&split), &body)));
                body.clear();
                last = &[];
            }
            let shared = common_prefix(last, key);
            put_varint(&mut body, shared);
            put_varint(&mut body, key.len() - shared);
            body.extend_from_slice(&key[shared..]);
            put_varint(&mut body, value.len());
            body.extend_from_slice(value);
            last = key;
        }
        pages.push((lower, finish(upper, &body)));
        pages
    }
}

fn finish(upper: Option<&[u8]>, body: &[u8]) -> Vec<u8> {
    let mut page = Vec::with_capacity(body.len() + upper.map_or(1, |u| u.len() + 2));
    match upper {
        Some(upper) => {
            put_varint(&mut page, upper.len() + 1);
            page.extend_from_slice(upper);
        }
        None => page.push(0),
    }
    page.extend_from_slice(body);
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn pages_of(map: &BTreeMap<Vec<u8>, Vec<u8>>, appended: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut entries = Entries::default();
        for (key, value) in map {
            entries.push(key, value);
        }
        entries.to_pages(b"", None, appended)
    }

    proptest! {
        #[test]
        fn pages_hold_what_was_put_and_nothing_else(
            map in proptest::collection::btree_map("[ab]{0,6}[0-9]{0,3}", proptest::collection::vec(any::<u8>(), 0..20), 0..400),
            others in proptest::collection::vec("[abc]{0,6}[0-9]{0,3}", 0..50),
            appended: bool,
        ) {
            let map: BTreeMap<Vec<u8>, Vec<u8>> = map.into_iter().map(|(k, v)| (k.into_bytes(), v)).collect();
            let pages = pages_of(&map, appended);
            let mut seen = BTreeMap::new();
            for (n, (lower, bytes)) in pages.iter().enumerate() {
                let page = Page::read(bytes).expect("a page");
                prop_assert_eq!(page.upper(), pages.get(n + 1).map(|(next, _)| next.as_slice()));
                page.for_each(|k, v| {
                    assert!(k >= lower.as_slice() && page.upper().is_none_or(|u| k < u));
                    seen.insert(k.to_vec(), v.to_vec());
                }).expect("a page");
            }
            prop_assert_eq!(&seen, &map);
            for key in map.keys().cloned().chain(others.into_iter().map(String::into_bytes)) {
                let (_, bytes) = pages.iter().rev().find(|(lower, _)| *lower <= key).expect("a page");
                let page = Page::read(bytes).expect("a page");
                prop_assert_eq!(page.get(&key).expect("a page"), map.get(&key).map(Vec::as_slice));
            }
        }

        #[test]
        fn arbitrary_bytes_are_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), key in "[ab]{0,5}") {
            if let Ok(page) = Page::read(&bytes) {
                let _ = page.get(key.as_bytes());
                let _ = page.for_each(|_, _| {});
            }
        }
    }

    #[test]
    fn pages_are_as_full_as_they_should_be() {
        let map: BTreeMap<_, _> =
            (0..100_000u32).map(|n| (format!("cust-{n:08}").into_bytes(), vec![0u8; 10])).collect();
        let filled = pages_of(&map, true);
        let bytes: usize = filled.iter().map(|(_, page)| page.len()).sum();
        assert!(bytes < 100_000 * 16, "{} bytes per entry", bytes / 100_000);
        assert!(
            filled.iter().rev().skip(1).all(|(_, page)| page.len() > MAX_BYTES - 64 && page.len() <= MAX_BYTES + 64)
        );
        assert!(pages_of(&map, false).len() > filled.len() * 13 / 10);
    }
}
