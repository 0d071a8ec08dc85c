//! How a value is kept: `version (1 byte) | checksum (8 bytes) | payload`.
//!
//! The checksum covers the key as well, so that a value which sits under another key is noticed too. The sum of all
//! records' checksums is kept in the head record: a record that vanished, or that went back to an older content, is
//! noticed when the database is opened ([`super::checkpoint`]).

use xxhash_rust::xxh3::Xxh3;

/// Version of the frame itself.
const FRAME: u8 = 1;
const HEADER: usize = 9;

fn checksum(key: &[u8], payload: &[u8]) -> u64 {
    let mut hash = Xxh3::with_seed(u64::from(FRAME));
    hash.update(&(key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(payload);
    hash.digest()
}

/// `payload` as it is stored under `key`.
pub(super) fn seal(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + payload.len());
    out.push(FRAME);
    out.extend_from_slice(&checksum(key, payload).to_le_bytes());
    out.extend_from_slice(payload);
    out
}

/// The payload of what is stored under `key`, or what is wrong with it.
pub(super) fn unseal<'a>(key: &[u8], stored: &'a [u8]) -> Result<&'a [u8], &'static str> {
    let (version, rest) = stored.split_first().ok_or("a record is empty")?;
    if *version != FRAME {
        return Err("a record has an unknown version");
    }
    let (sum, payload) = rest.split_first_chunk::<8>().ok_or("a record is cut short")?;
    if u64::from_le_bytes(*sum) != checksum(key, payload) {
        return Err("a record's checksum does not match");
    }
    Ok(payload)
}

/// The payload of a record whose checksum was found right.
pub(super) fn payload(stored: &[u8]) -> &[u8] {
    stored.get(HEADER..).unwrap_or_default()
}

/// A stored record's share of the database's digest.
pub(super) fn digest(stored: &[u8]) -> u64 {
    match stored.get(1..HEADER).and_then(|b| b.first_chunk::<8>()) {
        Some(sum) => u64::from_le_bytes(*sum),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_other_key_is_noticed() {
        let sealed = seal(b"key", b"payload");
        assert_eq!(unseal(b"key", &sealed), Ok(&b"payload"[..]));
        assert!(unseal(b"kez", &sealed).is_err());
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(b"key", &bad).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(unseal(b"key", &sealed[..len]).is_err(), "cut to {len}");
        }
    }
}
