//! The contract over HTTP (`docs/crm-api.yaml`).

use super::answer::{self, kind_of_status};
use super::auth::{Authenticator, Credential};
use super::http::{Answer, Http, Settings, is_loopback};
use super::write::{self, Keys, Op};
use super::{
    Auth, Crm, CrmError, CrmErrorKind, CrmSchema, Outcome, Page, Profile, Result, SetupError, StoredRecord,
    WriteLimits, WriteRecord, openapi,
};
use async_trait::async_trait;
use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, Url};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How to reach a CRM. Has no `Debug`, since `auth` has none.
#[derive(Clone)]
pub struct RestConfig {
    /// Where the CRM is, such as `https://crm.example/api`. Credentials in it are refused.
    pub base_url: String,
    /// How requests prove themselves.
    pub auth: Auth,
    /// Longest time for one try, from connecting to the answer's last byte.
    pub timeout: Duration,
    /// Longest time to connect, TLS included.
    pub connect_timeout: Duration,
    /// Whether to compress request bodies.
    pub gzip: bool,
    /// Largest answer that is read, after decompression.
    pub max_response_bytes: usize,
    /// PEM file of the CAs to trust in place of the machine's.
    pub ca_file: Option<PathBuf>,
    /// Allows credentials to go to another machine unencrypted.
    pub allow_plain_http: bool,
    /// Where the endpoints are.
    pub profile: Profile,
}

impl RestConfig {
    /// The defaults: 30 s per try, 5 s to connect, no compression, answers up to 32 MiB, profile `rest`.
    pub fn new(base_url: impl Into<String>, auth: Auth) -> Self {
        Self {
            base_url: base_url.into(),
            auth,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            gzip: false,
            max_response_bytes: 32 * 1024 * 1024,
            ca_file: None,
            allow_plain_http: false,
            profile: Profile::rest(),
        }
    }
}

/// A CRM that implements the contract of profile `rest`.
pub struct RestCrm {
    http: Http,
    auth: Authenticator,
    /// Without a slash at the end.
    base: String,
    profile: Profile,
    gzip: bool,
    keys: Keys,
}

/// A request, to be built as often as it is tried.
struct Call {
    method: Method,
    /// Below the base URL; shown in messages.
    path: String,
    /// Never shown: holds external ids.
    query: String,
    body: Option<Bytes>,
    gzipped: bool,
    key: Option<String>,
}

impl Call {
    fn get(path: String) -> Self {
        Self { method: Method::GET, path, query: String::new(), body: None, gzipped: false, key: None }
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

impl RestCrm {
    /// Prepares the connection; nothing is sent yet.
    pub fn new(config: RestConfig) -> Result<Self, SetupError> {
        let url = base_url(&config)?;
        let token_url = config.auth.token_url()?;
        let http = Http::new(&Settings {
            timeout: config.timeout,
            connect_timeout: config.connect_timeout,
            max_response_bytes: config.max_response_bytes,
            ca_file: config.ca_file.as_ref(),
            urls: [Some(&url), token_url.as_ref()].into_iter().flatten().collect(),
        })?;
        Ok(Self {
            http,
            auth: Authenticator::new(config.auth)?,
            base: url.as_str().trim_end_matches('/').to_owned(),
            profile: config.profile,
            gzip: config.gzip,
            keys: Keys::default(),
        })
    }

    /// Sends `call`; once more with a new credential if the CRM answers 401.
    async fn send(&self, call: &Call) -> Result<(Answer, Option<Arc<Credential>>)> {
        let name = call.name();
        let url = Url::parse(&format!("{}{}{}", self.base, call.path, call.query))
            .map_err(|_| CrmError::new(CrmErrorKind::Contract, format!("{name} does not make a URL")))?;
        let mut credential = self.auth.current(&self.http).await?;
        let mut renewed = false;
        loop {
            let mut request = self.http.client.request(call.method.clone(), url.clone());
            request = request.headers(self.profile.extra.clone()).header(ACCEPT, "application/json");
            if let Some(credential) = &credential {
                request = request.header(credential.header.0.clone(), credential.header.1.clone());
            }
            if let Some(body) = &call.body {
                request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                if call.gzipped {
                    request = request.header(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                }
                request = request.body(body.clone());
            }
            if let Some(key) = &call.key {
                request = request.header(self.profile.idempotency_key.clone(), key);
            }
            let answer = self.http.send(request, &name).await?;
            match &credential {
                Some(refused) if answer.status == 401 && !renewed => {
                    credential = Some(self.auth.renew(refused, &self.http).await?);
                    renewed = true;
                }
                _ => return Ok((answer, credential)),
            }
        }
    }

    /// Sends `call` and takes 200 (or one of `also`) for success.
    async fn expect(&self, call: &Call, also: &[u16]) -> Result<(Answer, Option<Arc<Credential>>)> {
        let (answer, credential) = self.send(call).await?;
        if answer.status == 200 || also.contains(&answer.status) {
            return Ok((answer, credential));
        }
        Err(failure(&call.name(), &answer, credential.as_deref()))
    }

    async fn write(&self, op: Op, entity: &str, records: &[WriteRecord<'_>]) -> Result<Vec<Outcome>> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let limits = self.profile.limits;
        let too_large = |what: String| Err(CrmError::new(CrmErrorKind::TooLarge, what));
        if let Some(limit) = limits.records.filter(|limit| records.len() > *limit) {
            return too_large(format!("{} records in one write; the profile allows {limit}", records.len()));
        }
        let body = write::body(op, records)?;
        if let Some(limit) = limits.bytes.filter(|limit| body.len() > *limit) {
            return too_large(format!("a write of {} bytes; the profile allows {limit}", body.len()));
        }
        let template = match op {
            Op::Upsert => &self.profile.paths.upsert,
            Op::Delete => &self.profile.paths.delete,
        };
        let content = write::content_hash(entity, op, records);
        let packed = if self.gzip { write::gzipped(&body) } else { None };
        let call = Call {
            method: Method::POST,
            path: template.path(&segment(entity)?),
            query: String::new(),
            gzipped: packed.is_some(),
            body: Some(packed.unwrap_or_else(|| body.into())),
            key: Some(self.keys.key(content)),
        };
        let (answer, credential) = self.expect(&call, &[201, 207]).await?;
        let Some(mut outcomes) = answer::outcomes(op, records, &answer.body) else {
            return Err(CrmError {
                kind: CrmErrorKind::Unknown,
                status: Some(answer.status),
                message: format!(
                    "the answer to {} ({}) is not the JSON of the contract; the records may or may not have been applied",
                    call.name(),
                    answer.describe()
                ),
                retry_after: None,
            });
        };
        if outcomes.iter().any(|outcome| matches!(outcome, Outcome::Rejected(_))) {
            self.keys.refused(content);
            for outcome in &mut outcomes {
                if let (Outcome::Rejected(rejection), Some(credential)) = (outcome, &credential) {
                    rejection.message = credential.redact(std::mem::take(&mut rejection.message).into()).into();
                }
            }
        }
        Ok(outcomes)
    }

    async fn openapi(&self) -> Result<CrmSchema> {
        let call = Call::get(self.profile.paths.openapi.path(""));
        let (answer, _) = self.expect(&call, &[]).await?;
        openapi::parse(&answer.body).map_err(|error| CrmError {
            kind: CrmErrorKind::Contract,
            status: Some(answer.status),
            message: format!("the CRM's model cannot be read from {} ({}): {error}", call.name(), answer.describe()),
            retry_after: None,
        })
    }
}

#[derive(Deserialize)]
struct Listing {
    records: Vec<StoredRecord>,
    #[serde(default)]
    next: Option<Box<str>>,
}

#[async_trait]
impl Crm for RestCrm {
    /// Asks `/health`, then for the model, then for one record of the first entity: a CRM may show its model to
    /// anybody, but not its records. A CRM without `/health`, or that does not list that entity, is not refused here.
    async fn check(&self) -> Result<()> {
        self.expect(&Call::get(self.profile.paths.health.path("")), &[201, 202, 204, 404, 405]).await?;
        let schema = self.openapi().await?;
        if let Some(entity) = schema.entities.keys().next() {
            let path = self.profile.paths.list.path(&segment(entity)?);
            let call = Call { query: "?limit=1".to_owned(), ..Call::get(path) };
            self.expect(&call, &[404, 405, 501]).await?;
        }
        Ok(())
    }

    async fn discover(&self) -> Result<CrmSchema> {
        self.openapi().await
    }

    async fn upsert(&self, entity: &str, records: &[WriteRecord<'_>]) -> Result<Vec<Outcome>> {
        self.write(Op::Upsert, entity, records).await
    }

    async fn delete(&self, entity: &str, records: &[WriteRecord<'_>]) -> Result<Vec<Outcome>> {
        self.write(Op::Delete, entity, records).await
    }

    async fn list(&self, entity: &str, after: Option<&str>, limit: usize) -> Result<Page> {
        let mut query = format!("?limit={}", limit.clamp(1, self.profile.page_records));
        if let Some(after) = after {
            query.push_str("&after=");
            query.push_str(&percent_encode(after));
        }
        let call = Call { query, ..Call::get(self.profile.paths.list.path(&segment(entity)?)) };
        let (answer, _) = self.expect(&call, &[]).await?;
        let wrong = |kind, what: &str| CrmError {
            kind,
            status: Some(answer.status),
            message: format!("the answer to {} ({}) {what}", call.name(), answer.describe()),
            retry_after: None,
        };
        let listing: Listing = serde_json::from_slice(&answer.body)
            .map_err(|_| wrong(CrmErrorKind::Unknown, "is not the JSON of the contract"))?;
        // Who compares two ordered lists must be able to trust the order, and who asks for the next page its end.
        let mut last = after;
        for record in &listing.records {
            if last.is_some_and(|last| record.external_id.as_bytes() <= last.as_bytes()) {
                return Err(wrong(CrmErrorKind::Contract, "is not in the order of its external ids' bytes"));
            }
            last = Some(&record.external_id);
        }
        if let Some(next) = listing.next.as_deref()
            && (after.is_some_and(|after| next.as_bytes() <= after.as_bytes())
                || last.is_some_and(|last| next.as_bytes() < last.as_bytes()))
        {
            return Err(wrong(CrmErrorKind::Contract, "names a next page that it has listed already"));
        }
        Ok(Page { records: listing.records, next: listing.next })
    }

    fn limits(&self) -> WriteLimits {
        self.profile.limits
    }
}

/// What an answer that is no success means.
///
/// The CRM's words may quote what it was sent. Only a refusal keeps them, since they are what becomes of the record
/// (its dead letter); every other message, which ends in a log, has no more than the CRM's error code.
fn failure(name: &str, answer: &Answer, credential: Option<&Credential>) -> CrmError {
    let kind = kind_of_status(answer.status);
    let redact = |text: String| credential.map_or_else(|| text.clone(), |credential| credential.redact(text.clone()));
    let words = redact(answer::words(answer.header(CONTENT_TYPE), &answer.body));
    let said = match answer::code(&answer.body).map(redact) {
        Some(code) => format!("{}: {code}", answer.status),
        None => answer.describe(),
    };
    let message = match kind {
        // For a batch that is refused as a whole, the CRM's own words are what becomes of it.
        CrmErrorKind::Refused if !words.is_empty() => words,
        CrmErrorKind::Refused => format!("the CRM refused {name} ({said}) without saying why"),
        CrmErrorKind::Unauthorized if credential.is_none() => format!("the CRM wants credentials for {name} ({said})"),
        CrmErrorKind::Unauthorized => {
            format!("the CRM does not accept our credentials for {name}, also after they were renewed ({said})")
        }
        CrmErrorKind::Forbidden => format!("the CRM forbids {name} ({said})"),
        CrmErrorKind::TooLarge => format!("{name} is too large for the CRM ({said})"),
        CrmErrorKind::Throttled => format!("the CRM asks to slow down ({said})"),
        CrmErrorKind::Contract if (300..400).contains(&answer.status) => {
            let to = Url::parse(answer.header(LOCATION)).ok();
            let to = to.as_ref().and_then(Url::host_str).map(|host| format!(" to {host}")).unwrap_or_default();
            format!(
                "the CRM redirects {name}{to} ({said}); credentials are not sent there, set base_url to where the CRM is"
            )
        }
        CrmErrorKind::Contract if answer.status == 415 => {
            format!("the CRM does not take this form of {name} ({said}); if gzip is on, turn it off")
        }
        CrmErrorKind::Contract => format!("the CRM has no {name} ({said}); check base_url and the entity's name"),
        CrmErrorKind::Unavailable => format!("the CRM is not available for {name} ({said})"),
        CrmErrorKind::Unknown => format!("the CRM failed in {name} ({said}); it may or may not have been done"),
    };
    let header = |name| Some(answer.header(name)).filter(|value| !value.is_empty());
    CrmError {
        kind,
        status: Some(answer.status),
        message,
        retry_after: answer::retry_after(header(RETRY_AFTER), header(DATE), SystemTime::now()),
    }
}

fn base_url(config: &RestConfig) -> Result<Url, SetupError> {
    let refuse = |why: &str| Err(SetupError(format!("base_url {why}")));
    let Ok(url) = Url::parse(&config.base_url) else { return refuse("is not a URL such as https://crm.example") };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return refuse("must begin with https:// or http:// and name a host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("must not hold a user name or password; they belong under auth");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("must end with the path: no ? and no #");
    }
    if url.scheme() == "http" && !is_loopback(&url) && !config.auth.is_none() && !config.allow_plain_http {
        return refuse(
            "is http: credentials and records would cross the network unencrypted; use https, or allow it with allow_plain_http = true",
        );
    }
    Ok(url)
}

/// An entity's name as one path segment.
fn segment(entity: &str) -> Result<String> {
    if entity.is_empty() || entity == "." || entity == ".." {
        return Err(CrmError::new(CrmErrorKind::Contract, "the entity's name is empty or made of dots only"));
    }
    Ok(percent_encode(entity))
}

/// `text` with everything but letters, digits and `-._~` percent-encoded: safe as a path segment and in a query.
pub(crate) fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(b"0123456789ABCDEF"[usize::from(byte >> 4)]));
            out.push(char::from(b"0123456789ABCDEF"[usize::from(byte & 15)]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crm::SecretSource;

    fn setup(base_url: &str, auth: Auth) -> Result<(), String> {
        RestCrm::new(RestConfig::new(base_url, auth)).map(|_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn unsafe_base_urls_are_refused_without_repeating_them() {
        let token = || Auth::Bearer { token: SecretSource::fixed("t0ken") };
        assert!(setup("http://127.0.0.1:8080", token()).is_ok());
        assert!(setup("http://[::1]:8080/", token()).is_ok());
        assert!(setup("http://localhost/api/", token()).is_ok());
        assert!(setup("http://crm.example", Auth::None).is_ok());
        for (url, wanted) in [
            ("http://crm.example", "https"),
            ("https://user:hunter2@crm.example", "auth"),
            ("https://crm.example/?token=hunter2", "?"),
            ("crm.example", "https://"),
            ("ftp://crm.example", "https://"),
            ("", "https://"),
        ] {
            let error = setup(url, token()).unwrap_err();
            assert!(error.contains(wanted), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let mut config = RestConfig::new("http://crm.example", token());
        config.allow_plain_http = true;
        assert!(RestCrm::new(config).is_ok());
    }

    #[test]
    fn a_segment_is_one_segment_whatever_is_in_it() {
        assert_eq!(percent_encode("a/b?c#d%e é"), "a%2Fb%3Fc%23d%25e%20%C3%A9");
        assert!(segment("..").is_err());
        assert!(segment("").is_err());
        assert_eq!(segment("account").unwrap(), "account");
    }

    #[test]
    fn missing_ca_files_are_said_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let mut config = RestConfig::new("https://crm.example", Auth::None);
        config.ca_file = Some(path.clone());
        let error = |config: &RestConfig| RestCrm::new(config.clone()).map(|_| ()).unwrap_err().to_string();
        assert!(error(&config).contains("ca.pem"));
        std::fs::write(&path, "not a certificate").unwrap();
        assert!(error(&config).contains("no certificate"));
    }
}
