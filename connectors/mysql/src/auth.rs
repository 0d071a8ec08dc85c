//! Answers to the server's authentication plugins. Pure: no I/O.
//!
//! Without TLS, caching_sha2_password hands the password over encrypted with the server's RSA key (OAEP, SHA-1), which a
//! stranger in the middle could replace by his own: only TLS that verifies the server prevents that. Plugins that want
//! the password in the clear get it through TLS or a unix socket only.

use crate::error::{setting_wrong, undecodable};
use base64::Engine as _;
use curve25519_dalek::{EdwardsPoint, Scalar};
use num_bigint::BigUint;
use ring::digest::{Algorithm, Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512};
use ring::rand::SecureRandom;
use tidemark_contract::Result;

fn hash(algorithm: &'static Algorithm, parts: &[&[u8]]) -> Vec<u8> {
    let mut context = Context::new(algorithm);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().to_vec()
}

fn xor(a: &mut [u8], b: &[u8]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
}

/// The first answer to `plugin`, whose challenge is `nonce`. `private` says that nobody can listen on the connection.
pub(crate) fn answer(plugin: &str, password: &[u8], nonce: &[u8], private: bool) -> Result<Vec<u8>> {
    if password.is_empty() && plugin != "client_ed25519" {
        return Ok(if matches!(plugin, "mysql_clear_password" | "sha256_password") { vec![0] } else { Vec::new() });
    }
    match plugin {
        "mysql_native_password" => {
            let mut once = hash(&SHA1_FOR_LEGACY_USE_ONLY, &[password]);
            let twice = hash(&SHA1_FOR_LEGACY_USE_ONLY, &[&once]);
            xor(&mut once, &hash(&SHA1_FOR_LEGACY_USE_ONLY, &[challenge(nonce), &twice]));
            Ok(once)
        }
        "caching_sha2_password" => {
            let mut once = hash(&SHA256, &[password]);
            let twice = hash(&SHA256, &[&once]);
            xor(&mut once, &hash(&SHA256, &[&twice, challenge(nonce)]));
            Ok(once)
        }
        // Ask for the RSA key, or send the password where nobody listens.
        "sha256_password" if !private => Ok(vec![1]),
        "sha256_password" | "mysql_clear_password" if private => Ok([password, &[0]].concat()),
        "client_ed25519" => Ok(ed25519(password, nonce)),
        "mysql_clear_password" => {
            Err(setting_wrong("the server asks for the password in the clear, on a connection that is not encrypted")
                .hint("set tls mode \"verify-full\""))
        }
        other => {
            let name: String = other.chars().filter(|c| c.is_ascii_graphic()).take(60).collect();
            Err(setting_wrong(format!("the account uses the authentication plugin {name}, which is not supported"))
                .hint("make the account use caching_sha2_password, mysql_native_password or ed25519"))
        }
    }
}

/// The 20 bytes of a challenge, without the NUL that follows them.
fn challenge(nonce: &[u8]) -> &[u8] {
    nonce.get(..20).unwrap_or(nonce)
}

/// MariaDB's ed25519: a signature of the challenge by the key that the password's hash is (RFC 8032 with the password,
/// of any length, in place of the seed).
fn ed25519(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    let wide = |bytes: Vec<u8>| Scalar::from_bytes_mod_order_wide(&<[u8; 64]>::try_from(bytes).unwrap_or([0; 64]));
    let secret = hash(&SHA512, &[password]);
    let mut low: [u8; 32] = secret[..32].try_into().unwrap_or([0; 32]);
    low[0] &= 248;
    low[31] = (low[31] & 63) | 64;
    let key = Scalar::from_bytes_mod_order(low);
    let public = EdwardsPoint::mul_base(&key).compress();
    let message = nonce.get(..32).unwrap_or(nonce);
    let r = wide(hash(&SHA512, &[&secret[32..], message]));
    let point = EdwardsPoint::mul_base(&r).compress();
    let k = wide(hash(&SHA512, &[point.as_bytes(), public.as_bytes(), message]));
    let s = k * key + r;
    [point.as_bytes().as_slice(), s.as_bytes()].concat()
}

/// The password for a server that sent its RSA key (PEM).
pub(crate) fn encrypted(password: &[u8], nonce: &[u8], pem: &[u8]) -> Result<Vec<u8>> {
    let malformed = || undecodable("the server's RSA key cannot be read");
    let (n, e) = public_key(pem).ok_or_else(malformed)?;
    let mut message = [password, &[0]].concat();
    let pad = challenge(nonce);
    if pad.is_empty() {
        return Err(malformed());
    }
    message.iter_mut().enumerate().for_each(|(i, byte)| *byte ^= pad[i % pad.len()]);
    let length = n.len();
    // OAEP: 0 ‖ masked seed ‖ masked (hash of the empty label ‖ zeros ‖ 1 ‖ message).
    let room = length.checked_sub(2 * 20 + 2).filter(|room| message.len() <= *room).ok_or_else(malformed)?;
    let mut block = hash(&SHA1_FOR_LEGACY_USE_ONLY, &[]);
    block.resize(20 + room - message.len(), 0);
    block.push(1);
    block.extend_from_slice(&message);
    let mut seed = [0; 20];
    let random = ring::rand::SystemRandom::new();
    random.fill(&mut seed).map_err(|_| crate::error::bug("the operating system gives no random numbers"))?;
    xor(&mut block, &mask(&seed, length - 21));
    xor(&mut seed, &mask(&block, 20));
    let padded = [&seed[..], &block].concat();
    let number = BigUint::from_bytes_be(&padded);
    let cipher = number.modpow(&BigUint::from_bytes_be(&e), &BigUint::from_bytes_be(&n)).to_bytes_be();
    Ok([vec![0; length.saturating_sub(cipher.len())], cipher].concat())
}

/// MGF1 with SHA-1.
fn mask(seed: &[u8], length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + 20);
    let mut counter = 0_u32;
    while out.len() < length {
        out.extend(hash(&SHA1_FOR_LEGACY_USE_ONLY, &[seed, &counter.to_be_bytes()]));
        counter += 1;
    }
    out.truncate(length);
    out
}

/// Modulus (without leading zeros) and exponent of a `SubjectPublicKeyInfo` in PEM; moduli of 512 to 16384 bits.
fn public_key(pem: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let text = std::str::from_utf8(pem).ok()?;
    let body: String = text.lines().filter(|line| !line.starts_with('-')).map(str::trim).collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body.trim_end_matches('\0')).ok()?;
    let (0x30, info, _) = element(&der)? else { return None };
    let (0x30, _, rest) = element(info)? else { return None };
    let (0x03, bits, _) = element(rest)? else { return None };
    let (0x30, key, _) = element(bits.get(1..)?)? else { return None };
    let (0x02, n, rest) = element(key)? else { return None };
    let (0x02, e, _) = element(rest)? else { return None };
    let n = &n[n.iter().position(|b| *b != 0)?..];
    let odd = n.last().is_some_and(|b| b & 1 == 1);
    ((64..=2048).contains(&n.len()) && odd && e.len() <= 8).then(|| (n.to_vec(), e.to_vec()))
}

/// One DER element: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f)).filter(|(b, _)| b.len() <= 4)?;
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_none_are_refused() {
        for pem in ["", "x", "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----"] {
            assert!(encrypted(b"p", &[1; 20], pem.as_bytes()).is_err(), "{pem}");
        }
        assert!(element(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]).is_none());
    }

    #[test]
    fn clear_passwords_need_a_private_connection() {
        assert!(answer("mysql_clear_password", b"p", &[], false).is_err());
        assert_eq!(answer("mysql_clear_password", b"p", &[], true).unwrap(), b"p\0");
        assert!(answer("dialog", b"p", &[], true).is_err());
        assert_eq!(answer("mysql_native_password", b"", &[1; 20], false).unwrap(), b"");
    }

    #[test]
    fn a_known_native_scramble() {
        // SHA1(p) ^ SHA1(nonce . SHA1(SHA1(p))), checked by undoing it: what the server does.
        let nonce = [7_u8; 20];
        let mut got = answer("mysql_native_password", b"secret", &nonce, false).unwrap();
        let stored = hash(&SHA1_FOR_LEGACY_USE_ONLY, &[&hash(&SHA1_FOR_LEGACY_USE_ONLY, &[b"secret"])]);
        xor(&mut got, &hash(&SHA1_FOR_LEGACY_USE_ONLY, &[&nonce, &stored]));
        assert_eq!(hash(&SHA1_FOR_LEGACY_USE_ONLY, &[&got]), stored);
    }
}
