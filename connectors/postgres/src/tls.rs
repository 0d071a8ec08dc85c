//! The certificate hash that SCRAM binds itself to.

/// The `tls-server-end-point` channel binding (RFC 5929): the certificate's hash, by the hash function of its own
/// signature, SHA-256 in place of weaker ones. `None` for signatures that name no hash (Ed25519, RSA-PSS).
pub(crate) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    // Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OBJECT IDENTIFIER, … }, … }
    let (_, certificate_body, _) = element(certificate)?;
    let (_, _, after_tbs) = element(certificate_body)?;
    let (_, algorithm, _) = element(after_tbs)?;
    let (tag, oid, _) = element(algorithm)?;
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
    let hash = match (tag, oid.split_last()) {
        (6, Some((4 | 5 | 11, RSA)) | Some((2, ECDSA))) => &ring::digest::SHA256,
        (6, Some((12, RSA)) | Some((3, ECDSA))) => &ring::digest::SHA384,
        (6, Some((13, RSA)) | Some((4, ECDSA))) => &ring::digest::SHA512,
        _ => return None,
    };
    Some(ring::digest::digest(hash, certificate).as_ref().to_vec())
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
    fn the_hash_of_a_certificate_follows_its_signature() {
        // A skeleton: SEQUENCE { SEQUENCE {}, SEQUENCE { OID ecdsa-with-SHA384 } }
        let ecdsa384 = [0x30, 14, 0x30, 0, 0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 3];
        assert_eq!(end_point(&ecdsa384).map(|h| h.len()), Some(48));
        let ed25519 = [0x30, 9, 0x30, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70];
        assert_eq!(end_point(&ed25519), None);
        for cut in 0..ecdsa384.len() {
            assert_eq!(end_point(&ecdsa384[..cut]), None);
        }
    }
}
