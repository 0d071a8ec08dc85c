//! The layout of the checkpoint database: one tree, one letter per kind of record.
//!
//! | letter | rest of the key | value |
//! |---|---|---|
//! | `v` | | format record |
//! | `c` | | head: commit number, digest, the checkpoint without its tables |
//! | `t` | table | table state |
//! | `m` | table, number | up to 4,096 marks of 16 bytes |
//! | `o` | rule, row key | obligation |
//! | `d` | table, due time, rule, row key | index of obligations by time |
//! | `w` | hash of the awaited parent, rule, row key | index of obligations by parent |
//! | `l` | number | dead letter |
//! | `k` | rule, row key | number of the dead letter |
//! | `h` | number, part | earlier checkpoint |
//!
//! Names are preceded by their length (two bytes), so that no key is the beginning of another one's.

use tidemark_contract::RowKey;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

pub(super) const FORMAT: &[u8] = b"v";
pub(super) const HEAD: &[u8] = b"c";
pub(super) const TABLE: u8 = b't';
pub(super) const MARK: u8 = b'm';
pub(super) const OBLIGATION: u8 = b'o';
pub(super) const DUE: u8 = b'd';
pub(super) const WAITING: u8 = b'w';
pub(super) const LETTER: u8 = b'l';
pub(super) const LETTER_OF: u8 = b'k';
pub(super) const HISTORY: u8 = b'h';

fn name(out: &mut Vec<u8>, name: &str) {
    let len = u16::try_from(name.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&name.as_bytes()[..usize::from(len)]);
}

pub(super) fn named(letter: u8, of: &str) -> Vec<u8> {
    let mut out = vec![letter];
    name(&mut out, of);
    out
}

/// The name in a key made by [`named`] (and whatever follows it), and the rest.
pub(super) fn split_name(key: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = key.get(1..)?.split_first_chunk::<2>()?;
    let len = usize::from(u16::from_be_bytes(*len));
    Some((std::str::from_utf8(rest.get(..len)?).ok()?, rest.get(len..)?))
}

pub(super) fn mark(table: &str, number: u64) -> Vec<u8> {
    let mut out = named(MARK, table);
    out.extend_from_slice(&number.to_be_bytes());
    out
}

/// Table and number from a key made by [`mark`].
pub(super) fn split_mark(key: &[u8]) -> Option<(&str, u64)> {
    let (table, rest) = split_name(key)?;
    Some((table, u64::from_be_bytes(rest.try_into().ok()?)))
}

pub(super) fn record(letter: u8, rule: &str, key: &RowKey) -> Vec<u8> {
    let mut out = named(letter, rule);
    out.extend_from_slice(key.as_bytes());
    out
}

fn time(due: i64) -> [u8; 8] {
    u64::try_from(due).unwrap_or(0).to_be_bytes()
}

pub(super) fn due(table: &str, at: i64, rule: &str, key: &RowKey) -> Vec<u8> {
    let mut out = named(DUE, table);
    out.extend_from_slice(&time(at));
    name(&mut out, rule);
    out.extend_from_slice(key.as_bytes());
    out
}

/// Due time, and the obligation's own key, from a key made by [`due`].
pub(super) fn split_due(key: &[u8]) -> Option<(i64, Vec<u8>)> {
    let (_, rest) = split_name(key)?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let mut obligation = vec![OBLIGATION];
    obligation.extend_from_slice(rest);
    Some((i64::try_from(u64::from_be_bytes(*at)).ok()?, obligation))
}

pub(super) fn parent_hash(entity: &str, external_id: &str) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&(entity.len() as u64).to_le_bytes());
    hash.update(entity.as_bytes());
    hash.update(external_id.as_bytes());
    hash.digest128()
}

pub(super) fn waiting_prefix(parent: u128) -> Vec<u8> {
    let mut out = vec![WAITING];
    out.extend_from_slice(&parent.to_be_bytes());
    out
}

pub(super) fn waiting(parent: u128, rule: &str, key: &RowKey) -> Vec<u8> {
    let mut out = waiting_prefix(parent);
    name(&mut out, rule);
    out.extend_from_slice(key.as_bytes());
    out
}

/// The obligation's own key from a key made by [`waiting`].
pub(super) fn split_waiting(key: &[u8]) -> Option<Vec<u8>> {
    let mut obligation = vec![OBLIGATION];
    obligation.extend_from_slice(key.get(17..)?);
    Some(obligation)
}

pub(super) fn letter(id: u64) -> Vec<u8> {
    let mut out = vec![LETTER];
    out.extend_from_slice(&id.to_be_bytes());
    out
}

pub(super) fn history(id: u64, part: u16) -> Vec<u8> {
    let mut out = vec![HISTORY];
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&part.to_be_bytes());
    out
}

/// A record in memory: the hash of its database key.
pub(super) fn fingerprint(record_key: &[u8]) -> u64 {
    xxh3_64(record_key)
}
