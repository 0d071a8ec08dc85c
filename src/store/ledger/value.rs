//! An entry's bytes: `hash (8) | generation (varint) | owner's key`, the latter only for rules that keep owners.

use super::Entry;
use tidemark_contract::RowKey;

pub(super) fn encode(entry: &Entry, out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&entry.hash.to_le_bytes());
    put_generation(entry.generation, out);
    if let Some(owner) = &entry.owner {
        out.extend_from_slice(owner.as_bytes());
    }
}

fn put_generation(mut n: u32, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn split(bytes: &[u8]) -> Option<(&[u8; 8], u32, &[u8])> {
    let (hash, mut rest) = bytes.split_first_chunk::<8>()?;
    let mut generation = 0u32;
    for shift in (0..35).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        rest = tail;
        generation |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((hash, generation, rest));
        }
    }
    None
}

pub(super) fn decode(bytes: &[u8]) -> Option<Entry> {
    let (hash, generation, owner) = split(bytes)?;
    let owner = if owner.is_empty() { None } else { Some(RowKey::from_bytes(owner)?) };
    Some(Entry { hash: u64::from_le_bytes(*hash), generation, owner })
}

/// The generation alone.
pub(super) fn generation(bytes: &[u8]) -> Option<u32> {
    split(bytes).map(|(_, generation, _)| generation)
}

/// The same entry, seen in pass `generation`.
pub(super) fn touched(bytes: &[u8], generation: u32) -> Option<Vec<u8>> {
    let (hash, _, owner) = split(bytes)?;
    let mut out = Vec::with_capacity(bytes.len() + 4);
    out.extend_from_slice(hash);
    put_generation(generation, &mut out);
    out.extend_from_slice(owner);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_contract::{RowBuilder, Value};

    #[test]
    fn entries_come_back_and_can_be_touched() {
        let mut row = RowBuilder::default();
        row.push(Value::Text("k"));
        let key = RowKey::of(&row.finish(), &[0]);
        let mut bytes = Vec::new();
        for generation in [0, 1, 127, 128, 70_000, u32::MAX] {
            for owner in [None, key.clone()] {
                let entry = Entry { hash: u64::MAX - 5, generation, owner };
                encode(&entry, &mut bytes);
                assert_eq!(decode(&bytes), Some(entry.clone()));
                assert_eq!(super::generation(&bytes), Some(generation));
                let later = touched(&bytes, 9).expect("an entry");
                assert_eq!(decode(&later), Some(Entry { generation: 9, ..entry }));
            }
        }
        assert_eq!(decode(&bytes[..8]), None);
        assert_eq!(decode(&[]), None);
    }
}
