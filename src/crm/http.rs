//! One try of one HTTP request, and the question that matters when it fails: may the CRM have applied it?
//!
//! No answer to that is guessed. Only a failure to connect (name, TCP, TLS) is "not sent"; everything after that is
//! "unknown", also when the connection was closed before a byte came back.

use super::answer;
use super::{CrmError, CrmErrorKind, Result, SetupError};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{RequestBuilder, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::error::Error;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Of a failed request's answer, no more than this is read: enough for the CRM's words.
const FAILURE_BYTES: usize = 64 * 1024;
/// Idle connections are closed after this, sooner than servers and load balancers do (5 s and more): a request sent
/// into a connection that the server is just closing has an unknown outcome.
const IDLE: Duration = Duration::from_secs(4);

/// Settings of the client.
pub(super) struct Settings<'a> {
    pub timeout: Duration,
    pub connect_timeout: Duration,
    pub max_response_bytes: usize,
    pub ca_file: Option<&'a PathBuf>,
    /// The places it will talk to.
    pub urls: Vec<&'a Url>,
}

/// The client.
pub(super) struct Http {
    pub client: reqwest::Client,
    max_response_bytes: usize,
}

/// A complete answer.
pub(super) struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: reqwest::header::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// What the body is, for a message: never its content.
    pub fn describe(&self) -> String {
        let kind = self.header(CONTENT_TYPE).split(';').next().unwrap_or("").trim();
        let kind = if kind.is_empty() { "no content type".to_owned() } else { answer::clean(kind, 100) };
        format!("{}, {kind}, {} bytes", self.status, self.body.len())
    }
}

impl Http {
    pub fn new(settings: &Settings<'_>) -> Result<Self, SetupError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("tidemark/", env!("CARGO_PKG_VERSION")))
            // A redirect would carry the token, or the record, to a place nobody named.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(settings.connect_timeout)
            .timeout(settings.timeout)
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30));
        if settings.urls.iter().all(|url| is_loopback(url)) {
            builder = builder.no_proxy();
        }
        let tls = tls(settings.ca_file.map(PathBuf::as_path), settings.urls.iter().any(|url| url.scheme() == "https"))?;
        let client = builder.tls_backend_preconfigured(tls).build().map_err(|error| {
            SetupError(format!("the HTTP client for the CRM could not be made: {}", chain(&error.without_url())))
        })?;
        Ok(Self { client, max_response_bytes: settings.max_response_bytes })
    }

    /// Sends `request` once and reads the whole answer. `what` names the request in messages.
    pub async fn send(&self, request: RequestBuilder, what: &str) -> Result<Answer> {
        let mut response = request.send().await.map_err(|error| failed(error, what))?;
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let success = (200..300).contains(&status);
        let limit = if success { self.max_response_bytes } else { FAILURE_BYTES };
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= limit => body.extend_from_slice(&chunk),
                Ok(Some(_)) if success => {
                    return Err(unknown(
                        status,
                        format!(
                            "the answer to {what} is larger than {limit} bytes; the write may or may not have been applied"
                        ),
                    ));
                }
                Ok(Some(chunk)) => {
                    body.extend_from_slice(&chunk[..limit - body.len()]);
                    break;
                }
                Ok(None) => break,
                Err(error) if success => {
                    return Err(unknown(
                        status,
                        format!(
                            "the answer to {what} broke off after {} bytes ({}); what it asked for may or may not have been done",
                            body.len(),
                            chain(&error.without_url())
                        ),
                    ));
                }
                // The status has said it already.
                Err(_) => break,
            }
        }
        Ok(Answer { status, headers, body })
    }
}

fn unknown(status: u16, message: String) -> CrmError {
    CrmError { status: Some(status), ..CrmError::new(CrmErrorKind::Unknown, message) }
}

fn failed(error: reqwest::Error, what: &str) -> CrmError {
    let (connecting, timeout, builder) = (error.is_connect(), error.is_timeout(), error.is_builder());
    let cause = chain(&error.without_url());
    if builder {
        CrmError::new(CrmErrorKind::Contract, format!("{what} could not be made into a request: {cause}"))
    } else if connecting {
        CrmError::new(CrmErrorKind::Unavailable, format!("no connection to the CRM: {cause}"))
    } else if timeout {
        CrmError::new(
            CrmErrorKind::Unknown,
            format!("no answer to {what} in time; what it asked for may or may not have been done"),
        )
    } else {
        CrmError::new(
            CrmErrorKind::Unknown,
            format!("{what} was sent and not answered ({cause}); what it asked for may or may not have been done"),
        )
    }
}

/// An error and its causes, each said once.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    answer::clean(&text, 500)
}

/// Whether `url` stays on this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or("");
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// TLS with the ring provider, named here so that no other crate's choice can change it.
fn tls(ca_file: Option<&Path>, needed: bool) -> Result<rustls::ClientConfig, SetupError> {
    let mut roots = rustls::RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let unreadable = |error: &dyn std::fmt::Display| {
                SetupError(format!("the CA file {} cannot be used: {error}", path.display()))
            };
            let pem = std::fs::read(path).map_err(|error| unreadable(&error))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| unreadable(&error))?;
                roots.add(certificate).map_err(|error| unreadable(&error))?;
            }
            if roots.is_empty() {
                return Err(unreadable(&"it holds no certificate in PEM form"));
            }
        }
        None if needed => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err(SetupError(
                    "this machine has no CA certificates, so no https CRM can be verified; install ca-certificates or set ca_file"
                        .to_owned(),
                ));
            }
        }
        None => {}
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
