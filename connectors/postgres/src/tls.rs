//! TLS: the four modes, and the certificate hash that SCRAM binds itself to.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemark_contract::{ErrorKind, Result, SourceError};

/// How a TCP connection is protected. A unix socket never leaves the machine and needs none of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TlsMode {
    /// No TLS: passwords (except SCRAM's) and rows are readable on the way.
    Disable,
    /// TLS, to whoever answers. With `ca_file` set, as [`TlsMode::VerifyCa`].
    Require,
    /// TLS, with a certificate that a trusted authority signed, for any name.
    VerifyCa,
    /// TLS, with a certificate that a trusted authority signed for this host.
    #[default]
    VerifyFull,
}

/// TLS settings.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsConfig {
    /// How the connection is protected.
    pub mode: TlsMode,
    /// Certificates of the trusted authorities (PEM); the operating system's if none is named.
    pub ca_file: Option<PathBuf>,
    /// Certificate chain to show to the server (PEM).
    pub client_cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub client_key: Option<PathBuf>,
}

impl TlsConfig {
    /// TLS in `mode`, with the operating system's authorities and no client certificate.
    pub fn new(mode: TlsMode) -> Self {
        Self { mode, ..Self::default() }
    }

    /// The TLS library's configuration; `None` for [`TlsMode::Disable`]. The crypto provider is passed explicitly: this
    /// crate installs nothing process-wide.
    pub(crate) fn client_config(&self) -> Result<Option<Arc<ClientConfig>>> {
        if self.mode == TlsMode::Disable {
            return Ok(None);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let wrong = |e: rustls::Error| setting_wrong(format!("TLS cannot be set up: {e}"));
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(wrong)?;
        let verifier: Arc<dyn ServerCertVerifier> = match (self.mode, &self.ca_file) {
            (TlsMode::VerifyFull, _) => WebPkiServerVerifier::builder_with_provider(self.roots()?, provider)
                .build()
                .map_err(|e| setting_wrong(format!("TLS cannot be set up: {e}")))?,
            (TlsMode::VerifyCa, _) | (TlsMode::Require, Some(_)) => {
                Arc::new(AnyName { roots: Some(self.roots()?), provider })
            }
            _ => Arc::new(AnyName { roots: None, provider }),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let config = match (&self.client_cert, &self.client_key) {
            (Some(cert), Some(key)) => {
                let key = PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable(key, &e))?;
                builder.with_client_auth_cert(certificates(cert)?, key).map_err(wrong)?
            }
            (None, None) => builder.with_no_client_auth(),
            _ => return Err(setting_wrong("client_cert and client_key belong together, but only one is set")),
        };
        Ok(Some(Arc::new(config)))
    }

    fn roots(&self) -> Result<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        if let Some(file) = &self.ca_file {
            for cert in certificates(file)? {
                roots.add(cert).map_err(|e| unreadable(file, &e))?;
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if roots.is_empty() {
            let from =
                self.ca_file.as_deref().map_or_else(|| "the operating system".into(), |f| f.display().to_string());
            return Err(setting_wrong(format!("no trusted certificate authority was found in {from}"))
                .hint("name the authority's certificate in ca_file"));
        }
        Ok(Arc::new(roots))
    }
}

fn setting_wrong(message: impl Into<String>) -> SourceError {
    SourceError::new(ErrorKind::SettingWrong, message)
}

fn unreadable(file: &Path, error: &dyn std::fmt::Display) -> SourceError {
    setting_wrong(format!("{} cannot be used: {error}", file.display()))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let list = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    match list {
        Ok(list) if list.is_empty() => Err(unreadable(file, &"it holds no certificate")),
        Ok(list) => Ok(list),
        Err(error) => Err(unreadable(file, &error)),
    }
}

/// What to advise when the handshake failed.
pub(crate) fn advice(error: &std::io::Error) -> Option<&'static str> {
    use rustls::CertificateError as C;
    let rustls::Error::InvalidCertificate(reason) = error.get_ref()?.downcast_ref::<rustls::Error>()? else {
        return None;
    };
    Some(match reason {
        C::UnknownIssuer => {
            "the server's certificate is not signed by a trusted authority: name the right one in ca_file"
        }
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            "the certificate is for another host name (only subjectAltName counts): use a name it lists, or mode verify-ca"
        }
        C::Expired | C::ExpiredContext { .. } => "the server's certificate has expired: renew it",
        _ => return None,
    })
}

/// Accepts a certificate for any host name, if it is signed by one of `roots` (when there are any). The signatures of
/// the handshake are checked in any case, so the peer does hold the key it shows.
#[derive(Debug)]
struct AnyName {
    roots: Option<Arc<RootCertStore>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let algorithms = self.provider.signature_verification_algorithms.all;
            let cert = ParsedCertificate::try_from(end_entity)?;
            verify_server_cert_signed_by_trust_anchor(&cert, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

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

    #[test]
    fn half_a_client_certificate_is_refused() {
        let config = TlsConfig { client_cert: Some("x".into()), ..TlsConfig::new(TlsMode::Require) };
        assert_eq!(config.client_config().unwrap_err().kind, ErrorKind::SettingWrong);
    }
}
