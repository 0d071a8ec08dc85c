//! Records to request bytes.
//!
//! A document is JSON already, so a body is made by appending bytes; only external ids are escaped here.

use super::{CrmError, CrmErrorKind, Result, WriteRecord};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh3::Xxh3;

/// The two writes of the contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    Upsert,
    Delete,
}

impl Op {
    fn name(self) -> &'static str {
        match self {
            Op::Upsert => "upsert",
            Op::Delete => "delete",
        }
    }
}

/// `{"records":[…]}` for `records`.
pub(super) fn body(op: Op, records: &[WriteRecord<'_>]) -> Result<Vec<u8>> {
    let size =
        records.iter().map(|r| r.external_id.len() + 64 + r.document.map_or(0, |d| d.json().len())).sum::<usize>();
    let mut out = Vec::with_capacity(size + 16);
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"{\"records\":[");
    for (index, record) in records.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"external_id\":");
        if serde_json::to_writer(&mut out, record.external_id).is_err() {
            return Err(CrmError::new(CrmErrorKind::Contract, "an external id could not be written as JSON"));
        }
        out.extend_from_slice(b",\"version\":\"");
        out.extend_from_slice(digits.format(record.version).as_bytes());
        out.push(b'"');
        match (op, record.document) {
            (Op::Upsert, Some(document)) => {
                out.extend_from_slice(b",\"fields\":");
                out.extend_from_slice(document.json());
            }
            (Op::Delete, _) => {}
            (Op::Upsert, None) => {
                return Err(CrmError::new(
                    CrmErrorKind::Contract,
                    "an upsert without fields was asked for; this is a bug in Tidemark, nothing was sent",
                ));
            }
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// `body` compressed, if that is worth the time; `None` leaves it as it is.
pub(super) fn gzipped(body: &[u8]) -> Option<Bytes> {
    // Below about one network packet there is nothing to win.
    if body.len() < 1_400 {
        return None;
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// Hash of what a write says: entity, operation, and each record's id, version and document.
pub(super) fn content_hash(entity: &str, op: Op, records: &[WriteRecord<'_>]) -> u128 {
    let mut hash = Xxh3::new();
    // Lengths go in before texts: two different batches must not flow together into one stream of bytes.
    let mut text = |text: &[u8]| {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    text(entity.as_bytes());
    text(op.name().as_bytes());
    for record in records {
        text(record.external_id.as_bytes());
        text(&record.version.to_le_bytes());
        text(&record.document.map_or(0, |d| d.hash()).to_le_bytes());
    }
    hash.digest128()
}

/// Chooses the `Idempotency-Key` of a write.
///
/// The same write repeated after a lost answer must carry the same key, so the key is derived from what is written.
/// But a write that *was* answered, and whose answer refused a record, may rightly be sent again with the same content:
/// a child goes out unchanged once its parent is there. With the same key, a CRM that remembers answers would repeat
/// the refusal for ever. So the contents whose answer refused something are remembered (the last [`Keys::CAPACITY`]),
/// and each such answer moves that content on to a new key.
#[derive(Default)]
pub(super) struct Keys {
    refused: Mutex<Refused>,
}

#[derive(Default)]
struct Refused {
    rounds: HashMap<u128, u32>,
    order: VecDeque<u128>,
}

impl Keys {
    /// Contents remembered: a few MB at most.
    const CAPACITY: usize = 50_000;

    /// The key for the next try of the write with this content.
    pub(super) fn key(&self, content: u128) -> String {
        match self.lock().rounds.get(&content) {
            None => format!("{content:032x}"),
            Some(round) => format!("{content:032x}-{round}"),
        }
    }

    /// The write with this content was answered, and some record was refused.
    pub(super) fn refused(&self, content: u128) {
        let mut refused = self.lock();
        if let Some(round) = refused.rounds.get_mut(&content) {
            *round = round.wrapping_add(1);
            return;
        }
        if refused.order.len() >= Self::CAPACITY
            && let Some(oldest) = refused.order.pop_front()
        {
            refused.rounds.remove(&oldest);
        }
        refused.order.push_back(content);
        refused.rounds.insert(content, 1);
    }

    fn lock(&self) -> MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;

    fn doc(json: &str) -> Document {
        Document::new(json.as_bytes().into(), false)
    }

    #[test]
    fn bodies_are_json_whatever_the_external_id_holds() {
        let document = doc(r#"{"name":"Ann"}"#);
        let ids = ["ALFKI", "quote\" back\\slash", "new\nline\u{0}", "läng/ø€", "", "{{x}}"];
        let records: Vec<_> = ids
            .iter()
            .map(|id| WriteRecord { external_id: id, version: u64::MAX, document: Some(&document) })
            .collect();
        let parsed: serde_json::Value = serde_json::from_slice(&body(Op::Upsert, &records).unwrap()).unwrap();
        for (index, id) in ids.iter().enumerate() {
            let record = &parsed["records"][index];
            assert_eq!(record["external_id"], *id);
            assert_eq!(record["version"], "18446744073709551615");
            assert_eq!(record["fields"]["name"], "Ann");
        }
    }

    #[test]
    fn deletes_carry_no_fields_and_an_upsert_without_them_is_refused() {
        let record = WriteRecord { external_id: "a", version: 7, document: None };
        assert_eq!(body(Op::Delete, &[record]).unwrap(), br#"{"records":[{"external_id":"a","version":"7"}]}"#);
        assert_eq!(body(Op::Upsert, &[record]).unwrap_err().kind, CrmErrorKind::Contract);
    }

    #[test]
    fn content_tells_batches_apart() {
        let (one, two) = (doc("{}"), doc(r#"{"a":1}"#));
        let record = |external_id, version, document| WriteRecord { external_id, version, document: Some(document) };
        let base = content_hash("account", Op::Upsert, &[record("ab", 1, &one), record("c", 2, &one)]);
        assert_eq!(base, content_hash("account", Op::Upsert, &[record("ab", 1, &one), record("c", 2, &one)]));
        for other in [
            content_hash("contact", Op::Upsert, &[record("ab", 1, &one), record("c", 2, &one)]),
            content_hash("account", Op::Delete, &[record("ab", 1, &one), record("c", 2, &one)]),
            content_hash("account", Op::Upsert, &[record("a", 1, &one), record("bc", 2, &one)]),
            content_hash("account", Op::Upsert, &[record("ab", 1, &one), record("c", 3, &one)]),
            content_hash("account", Op::Upsert, &[record("ab", 1, &two), record("c", 2, &one)]),
            content_hash("account", Op::Upsert, &[record("c", 2, &one), record("ab", 1, &one)]),
            content_hash("account", Op::Upsert, &[record("ab", 1, &one)]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_refused_content_gets_a_new_key_and_only_that_one() {
        let keys = Keys::default();
        let first = keys.key(1);
        assert_eq!(first, keys.key(1), "a repeated try keeps its key");
        keys.refused(1);
        let second = keys.key(1);
        assert_ne!(first, second);
        assert_eq!(second, keys.key(1));
        keys.refused(1);
        assert!(![&first, &second].contains(&&keys.key(1)));
        assert_eq!(keys.key(2), format!("{:032x}", 2));
    }

    #[test]
    fn what_is_remembered_of_refusals_is_bounded() {
        let keys = Keys::default();
        for content in 0..(Keys::CAPACITY as u128 + 10) {
            keys.refused(content);
        }
        assert_eq!(keys.lock().rounds.len(), Keys::CAPACITY);
        assert_eq!(keys.key(0), format!("{:032x}", 0));
        assert!(keys.key(20).ends_with("-1"));
    }

    #[test]
    fn small_bodies_are_not_compressed_and_large_ones_come_back_whole() {
        assert!(gzipped(b"{}").is_none());
        let body = vec![b'x'; 100_000];
        let packed = gzipped(&body).unwrap();
        assert!(packed.len() < 1_000);
        let mut back = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut back).unwrap();
        assert_eq!(back, body);
    }
}
