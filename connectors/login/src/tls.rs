//! TLS: the four modes.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemark_contract::error::setting_wrong;
use tidemark_contract::{Result, SourceError};

/// How a TCP connection is protected. A unix socket never leaves the machine and needs none of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TlsMode {
    /// No TLS: rows, and a password that the protocol sends in clear, are readable on the way.
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

    /// The TLS library's configuration for these versions of the protocol; `None` for [`TlsMode::Disable`]. The crypto
    /// provider is passed explicitly: this crate installs nothing process-wide.
    ///
    /// # Errors
    /// A file that cannot be read or holds nothing usable, no trusted authority, half a client certificate.
    pub fn client_config(&self, versions: &[&'static SupportedProtocolVersion]) -> Result<Option<ClientConfig>> {
        if self.mode == TlsMode::Disable {
            return Ok(None);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let wrong = |e: rustls::Error| setting_wrong(format!("TLS cannot be set up: {e}"));
        let builder =
            ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions).map_err(wrong)?;
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
        Ok(Some(config))
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

/// What to advise when the handshake failed, if the server's certificate was the reason.
pub fn advice(error: &std::io::Error) -> Option<&'static str> {
    use rustls::CertificateError as C;
    let rustls::Error::InvalidCertificate(reason) = error.get_ref()?.downcast_ref::<rustls::Error>()? else {
        return None;
    };
    Some(match reason {
        C::UnknownIssuer | C::BadSignature => {
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

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_contract::ErrorKind;

    fn refused(config: &TlsConfig) -> SourceError {
        config.client_config(rustls::ALL_VERSIONS).unwrap_err()
    }

    #[test]
    fn half_a_client_certificate_is_refused() {
        let config = TlsConfig { client_cert: Some("x".into()), ..TlsConfig::new(TlsMode::Require) };
        assert_eq!(refused(&config).kind, ErrorKind::SettingWrong);
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let config = TlsConfig { ca_file: Some(file.clone()), ..TlsConfig::default() };
        let wanted = format!("{} cannot be used: it holds no certificate", file.display());
        assert_eq!(refused(&config).message, wanted);
    }

    #[test]
    fn without_tls_nothing_is_set_up() {
        let config = TlsConfig { ca_file: Some("/nowhere".into()), ..TlsConfig::new(TlsMode::Disable) };
        assert!(config.client_config(rustls::ALL_VERSIONS).unwrap().is_none());
    }
}
