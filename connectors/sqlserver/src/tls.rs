//! TLS: the four modes, and TDS 8.0's strict encryption.

use crate::error::setting_wrong;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tidemark_contract::{Result, SourceError};

/// How a connection is protected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TlsMode {
    /// No TLS: rows and the password are readable on the way.
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
    /// TLS before the first byte of TDS (TDS 8.0, `Encrypt=strict`), for servers that force it.
    pub strict: bool,
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
        let wrong = |e: &dyn std::fmt::Display| setting_wrong(format!("TLS cannot be set up: {e}"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match (self.mode, &self.ca_file) {
            (TlsMode::VerifyFull, _) => {
                let builder = WebPkiServerVerifier::builder_with_provider(self.roots()?, provider.clone());
                builder.build().map_err(|e| wrong(&e))?
            }
            (TlsMode::Require, None) => Arc::new(AnyName { roots: None, provider: provider.clone() }),
            _ => Arc::new(AnyName { roots: Some(self.roots()?), provider: provider.clone() }),
        };
        // Inside PRELOGIN packets the handshake must end with one flight: TLS 1.3 goes on with tickets behind it.
        let versions: &[&rustls::SupportedProtocolVersion] =
            if self.strict { rustls::ALL_VERSIONS } else { &[&rustls::version::TLS12] };
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let builder = builder.map_err(|e| wrong(&e))?.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match (&self.client_cert, &self.client_key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let key = PrivateKeyDer::from_pem_file(key).map_err(|e| unreadable(key, &e))?;
                builder.with_client_auth_cert(certificates(cert)?, key).map_err(|e| wrong(&e))?
            }
            _ => return Err(setting_wrong("client_cert and client_key belong together, but only one is set")),
        };
        if self.strict {
            config.alpn_protocols = vec![b"tds/8.0".to_vec()];
        }
        Ok(Some(Arc::new(config)))
    }

    fn roots(&self) -> Result<Arc<RootCertStore>> {
        let mut roots = RootCertStore::empty();
        match &self.ca_file {
            Some(file) => {
                for certificate in certificates(file)? {
                    roots.add(certificate).map_err(|e| unreadable(file, &e))?;
                }
            }
            None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
        }
        if roots.is_empty() {
            return Err(setting_wrong("the operating system has no trusted certificate authorities")
                .hint("name the authority's certificate in ca_file"));
        }
        Ok(Arc::new(roots))
    }
}

fn unreadable(file: &Path, error: &dyn std::fmt::Display) -> SourceError {
    setting_wrong(format!("{} cannot be used: {error}", file.display()))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let mut list = Vec::new();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| unreadable(file, &e))? {
        list.push(certificate.map_err(|e| unreadable(file, &e))?);
    }
    if list.is_empty() { Err(unreadable(file, &"it holds no certificate")) } else { Ok(list) }
}

/// What to advise when the handshake failed.
pub(crate) fn advice(error: &std::io::Error) -> Option<&'static str> {
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
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
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
