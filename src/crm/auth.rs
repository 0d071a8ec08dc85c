//! Credentials: where they come from, how they are renewed, and how they stay out of messages.
//!
//! Renewal is single flight: a 401 names the generation of the credential that was refused; whoever comes first renews
//! it, everybody else finds a newer generation and uses that.

use super::answer;
use super::http::{Http, is_loopback};
use super::{CrmError, CrmErrorKind, Result, SetupError};
use base64::Engine;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderName, HeaderValue, RETRY_AFTER};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Mutex;

/// Where a secret is read from. Asked again whenever the CRM refuses the value it gave last, so a token in a file can
/// be replaced while the daemon runs. Has no `Debug`: there is nothing about it to print.
#[derive(Clone)]
pub struct SecretSource(Arc<dyn Fn() -> io::Result<String> + Send + Sync>);

impl SecretSource {
    /// Asks `read` for the secret. Line breaks at its end are not part of it.
    pub fn new(read: impl Fn() -> io::Result<String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// Always `secret`.
    pub fn fixed(secret: impl Into<String>) -> Self {
        let secret = secret.into();
        Self::new(move || Ok(secret.clone()))
    }

    fn read(&self, what: &str) -> Result<String> {
        let refuse = |why: String| CrmError::new(CrmErrorKind::Unauthorized, format!("the CRM's {what} {why}"));
        let secret = (self.0)().map_err(|error| refuse(format!("cannot be read: {error}")))?;
        let secret = secret.trim_end_matches(['\n', '\r']);
        if secret.is_empty() { Err(refuse("is empty".to_owned())) } else { Ok(secret.to_owned()) }
    }
}

/// How a client proves itself at a token endpoint (RFC 6749, 2.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuth {
    /// HTTP Basic: what every server has to accept.
    #[default]
    Basic,
    /// `client_id` and `client_secret` in the form.
    Form,
}

/// How requests prove themselves. Has no `Debug`.
#[derive(Clone)]
pub enum Auth {
    /// Not at all.
    None,
    /// `Authorization: Bearer …`.
    Bearer {
        /// The token.
        token: SecretSource,
    },
    /// A header of its own, such as `X-Api-Key`.
    Header {
        /// Header name.
        name: String,
        /// Its whole value.
        value: SecretSource,
    },
    /// HTTP Basic.
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: SecretSource,
    },
    /// OAuth 2 client credentials.
    OAuth2ClientCredentials {
        /// Token endpoint.
        token_url: String,
        /// Client.
        client_id: String,
        /// Its secret.
        client_secret: SecretSource,
        /// Scope, if the CRM wants one.
        scope: Option<String>,
        /// How the client proves itself.
        client_auth: ClientAuth,
    },
    /// OAuth 2 refresh token.
    OAuth2RefreshToken {
        /// Token endpoint.
        token_url: String,
        /// Client.
        client_id: String,
        /// Its secret; public clients have none.
        client_secret: Option<SecretSource>,
        /// The refresh token.
        refresh_token: SecretSource,
        /// Scope, if the CRM wants one.
        scope: Option<String>,
        /// How the client proves itself.
        client_auth: ClientAuth,
        /// Where a refresh token that the CRM hands out in place of ours is kept (mode 0600). Without it, such a token
        /// is lost when the daemon stops.
        keep: Option<PathBuf>,
    },
}

impl Auth {
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Auth::None)
    }

    /// The token endpoint, if there is one.
    pub(super) fn token_url(&self) -> Result<Option<Url>, SetupError> {
        let (Auth::OAuth2ClientCredentials { token_url, .. } | Auth::OAuth2RefreshToken { token_url, .. }) = self
        else {
            return Ok(None);
        };
        let url = Url::parse(token_url).map_err(|error| SetupError(format!("token_url is no URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            return Err(SetupError("token_url must be an http(s) URL without a user name in it".to_owned()));
        }
        if url.scheme() == "http" && !is_loopback(&url) {
            return Err(SetupError("token_url must be https: the client's secret goes there".to_owned()));
        }
        Ok(Some(url))
    }
}

/// A credential as requests carry it.
pub(super) struct Credential {
    pub header: (HeaderName, HeaderValue),
    generation: u64,
    /// When to renew it without being told to.
    renew_at: Option<Instant>,
    /// Texts that must not appear in any message.
    secrets: Vec<String>,
}

impl Credential {
    /// `text` without the credential, should the CRM have repeated it.
    pub fn redact(&self, text: String) -> String {
        self.secrets.iter().filter(|secret| secret.len() >= 4).fold(text, |text, secret| {
            if text.contains(secret.as_str()) { text.replace(secret.as_str(), "[secret]") } else { text }
        })
    }
}

/// Hands out the current credential.
pub(super) struct Authenticator {
    auth: Auth,
    token_url: Option<Url>,
    header: HeaderName,
    current: Mutex<State>,
}

#[derive(Default)]
struct State {
    credential: Option<Arc<Credential>>,
    /// A refresh token that came in place of the configured one.
    rotated: Option<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    expires_in: Value,
    refresh_token: Option<String>,
}

impl Authenticator {
    pub fn new(auth: Auth) -> Result<Self, SetupError> {
        let header = match &auth {
            Auth::Header { name, .. } => HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                SetupError("the name of the auth header holds characters that no header name can have".to_owned())
            })?,
            _ => AUTHORIZATION,
        };
        Ok(Self { token_url: auth.token_url()?, header, auth, current: Mutex::default() })
    }

    /// The credential to use now; `None` if none is needed.
    pub async fn current(&self, http: &Http) -> Result<Option<Arc<Credential>>> {
        if self.auth.is_none() {
            return Ok(None);
        }
        let mut state = self.current.lock().await;
        match &state.credential {
            Some(credential) if credential.renew_at.is_none_or(|at| Instant::now() < at) => {
                Ok(Some(credential.clone()))
            }
            _ => self.obtain(&mut state, http).await.map(Some),
        }
    }

    /// A credential other than `refused`, which the CRM answered with 401.
    pub async fn renew(&self, refused: &Credential, http: &Http) -> Result<Arc<Credential>> {
        let mut state = self.current.lock().await;
        match &state.credential {
            Some(credential) if credential.generation != refused.generation => Ok(credential.clone()),
            _ => self.obtain(&mut state, http).await,
        }
    }

    async fn obtain(&self, state: &mut State, http: &Http) -> Result<Arc<Credential>> {
        let mut renew_at = None;
        let (value, secret) = match &self.auth {
            Auth::None => return Err(CrmError::new(CrmErrorKind::Unauthorized, "no credentials are configured")),
            Auth::Bearer { token } => {
                let token = token.read("token")?;
                (format!("Bearer {token}"), token)
            }
            Auth::Header { value, .. } => {
                let value = value.read("auth header's value")?;
                (value.clone(), value)
            }
            Auth::Basic { user, password } => {
                let password = password.read("password")?;
                (basic(user, &password), password)
            }
            Auth::OAuth2ClientCredentials { .. } | Auth::OAuth2RefreshToken { .. } => {
                let token = self.token(state, http).await?;
                renew_at = lifetime(&token.expires_in).map(|lifetime| Instant::now() + lifetime);
                (format!("Bearer {}", token.access_token), token.access_token)
            }
        };
        let mut header = HeaderValue::from_str(&value).map_err(|_| {
            CrmError::new(CrmErrorKind::Unauthorized, "the CRM's credential holds characters that no header can carry")
        })?;
        header.set_sensitive(true);
        let generation = state.credential.as_ref().map_or(0, |credential| credential.generation + 1);
        let secrets = vec![value, secret];
        let credential = Arc::new(Credential { header: (self.header.clone(), header), generation, renew_at, secrets });
        state.credential = Some(credential.clone());
        Ok(credential)
    }

    /// Asks the token endpoint.
    async fn token(&self, state: &mut State, http: &Http) -> Result<TokenAnswer> {
        let mut secrets = Vec::new();
        let mut form = Vec::new();
        let (client_id, client_secret, scope, client_auth) = match &self.auth {
            Auth::OAuth2ClientCredentials { client_id, client_secret, scope, client_auth, .. } => {
                form.push(("grant_type", "client_credentials".to_owned()));
                (client_id, Some(client_secret), scope, *client_auth)
            }
            Auth::OAuth2RefreshToken { client_id, client_secret, refresh_token, scope, client_auth, keep, .. } => {
                let configured = refresh_token.read("refresh token")?;
                let kept = || keep.as_deref().and_then(|path| kept_token(path, &configured));
                let token = state.rotated.clone().or_else(kept).unwrap_or(configured);
                secrets.push(token.clone());
                form.push(("grant_type", "refresh_token".to_owned()));
                form.push(("refresh_token", token));
                (client_id, client_secret.as_ref(), scope, *client_auth)
            }
            _ => return Err(CrmError::new(CrmErrorKind::Unauthorized, "no token endpoint is configured")),
        };
        let Some(url) = &self.token_url else {
            return Err(CrmError::new(CrmErrorKind::Unauthorized, "no token endpoint is configured"));
        };
        if let Some(scope) = scope {
            form.push(("scope", scope.clone()));
        }
        let client_secret = client_secret.map(|secret| secret.read("client secret")).transpose()?;
        let mut request = http.client.post(url.clone());
        match (&client_secret, client_auth) {
            (Some(secret), ClientAuth::Basic) => {
                let mut value = HeaderValue::from_str(&basic(&form_encode(client_id), &form_encode(secret)))
                    .map_err(|_| CrmError::new(CrmErrorKind::Unauthorized, "the client's secret cannot be sent"))?;
                value.set_sensitive(true);
                request = request.header(AUTHORIZATION, value);
            }
            (secret, _) => {
                form.push(("client_id", client_id.clone()));
                form.extend(secret.iter().map(|secret| ("client_secret", secret.clone())));
            }
        }
        secrets.extend(client_secret);
        let body: Vec<_> = form.iter().map(|(name, value)| format!("{name}={}", form_encode(value))).collect();
        let request = request
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header("Accept", "application/json")
            .body(body.join("&"));
        let answer = http.send(request, "the request for a token").await.map_err(|error| {
            // Whatever became of that request: the CRM's records were not touched.
            CrmError { kind: CrmErrorKind::Unavailable, ..error }
        })?;
        if answer.status != 200 {
            let kind = match answer.status {
                400 | 401 | 403 => CrmErrorKind::Unauthorized,
                429 => CrmErrorKind::Throttled,
                300..=499 => CrmErrorKind::Unauthorized,
                _ => CrmErrorKind::Unavailable,
            };
            let words = secrets
                .iter()
                .filter(|secret| secret.len() >= 4)
                .fold(answer::words(answer.header(CONTENT_TYPE), &answer.body), |text, secret| {
                    text.replace(secret, "[secret]")
                });
            let date = Some(answer.header(DATE)).filter(|date| !date.is_empty());
            let wait = Some(answer.header(RETRY_AFTER)).filter(|wait| !wait.is_empty());
            return Err(CrmError {
                kind,
                status: Some(answer.status),
                message: format!("the token endpoint gave no token ({}): {words}", answer.status),
                retry_after: answer::retry_after(wait, date, SystemTime::now()),
            });
        }
        let token: TokenAnswer = serde_json::from_slice(&answer.body).map_err(|_| {
            CrmError::new(
                CrmErrorKind::Unavailable,
                format!("the token endpoint's answer ({}) holds no access_token", answer.describe()),
            )
        })?;
        if let (Auth::OAuth2RefreshToken { refresh_token, keep, .. }, Some(new)) = (&self.auth, &token.refresh_token) {
            if let Some(path) = keep
                && state.rotated.as_ref() != Some(new)
            {
                keep_token(path, &refresh_token.read("refresh token")?, new).map_err(|error| {
                    CrmError::new(
                        CrmErrorKind::Unauthorized,
                        format!("the CRM's new refresh token cannot be kept in {}: {error}", path.display()),
                    )
                })?;
            }
            state.rotated = Some(new.clone());
        }
        Ok(token)
    }
}

/// How long a token may be used: some time less than the CRM says, so that it does not run out on the way.
fn lifetime(expires_in: &Value) -> Option<Duration> {
    let seconds = match expires_in {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    let seconds = seconds.clamp(0.0, 366.0 * 86_400.0);
    Some(Duration::from_secs_f64((seconds - 60.0).max(seconds * 0.8)))
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
}

/// `application/x-www-form-urlencoded`; stricter than it needs to be, which every server understands.
fn form_encode(text: &str) -> String {
    super::rest::percent_encode(text)
}

/// A refresh token that replaced the configured one. A newly configured one wins: the file says which one it replaced.
#[derive(Serialize, Deserialize)]
struct Kept {
    replaces: String,
    refresh_token: String,
}

fn fingerprint(token: &str) -> String {
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(token.as_bytes()))
}

fn kept_token(path: &Path, configured: &str) -> Option<String> {
    let kept: Kept = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    (kept.replaces == fingerprint(configured)).then_some(kept.refresh_token)
}

fn keep_token(path: &Path, configured: &str, new: &str) -> io::Result<()> {
    use std::io::Write;
    let kept = Kept { replaces: fingerprint(configured), refresh_token: new.to_owned() };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // tempfile makes it with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&serde_json::to_vec(&kept)?)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    std::fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_it_runs_out() {
        let of = |value: Value| lifetime(&value);
        assert_eq!(of(3600.into()), Some(Duration::from_secs(3_540)));
        assert_eq!(of("3600".into()), Some(Duration::from_secs(3_540)));
        assert_eq!(of(100.into()), Some(Duration::from_secs(80)));
        assert_eq!(of(0.into()), Some(Duration::ZERO));
        assert_eq!(of(Value::Null), None);
        assert_eq!(of("soon".into()), None);
        assert!(of(f64::MAX.into()).is_some());
    }

    #[test]
    fn a_kept_refresh_token_gives_way_to_a_newly_configured_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("refresh-token");
        keep_token(&path, "first", "second").unwrap();
        assert_eq!(kept_token(&path, "first").as_deref(), Some("second"));
        assert_eq!(kept_token(&path, "configured anew"), None);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("first"), "the configured secret is not copied");
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn token_endpoints_must_be_safe() {
        let url = |token_url: &str| {
            Auth::OAuth2ClientCredentials {
                token_url: token_url.to_owned(),
                client_id: "id".to_owned(),
                client_secret: SecretSource::fixed("s"),
                scope: None,
                client_auth: ClientAuth::Basic,
            }
            .token_url()
        };
        assert!(url("https://login.example/token").is_ok());
        assert!(url("http://127.0.0.1:1/token").is_ok());
        for bad in ["http://login.example/token", "https://user:pass@login.example/", "ftp://x/", "token"] {
            let error = url(bad).unwrap_err().to_string();
            assert!(!error.contains("pass"), "{error}");
        }
    }
}
