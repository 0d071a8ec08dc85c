//! The sections of a tenant file.

use super::SecretRef;
use crate::crm;
use crate::diagnostics::SourceFile;
use crate::logging::LogFormat;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::de::{DeTable, DeValue};

/// The vendor's database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// Which vendor, with what only that one has.
    pub engine: Engine,
    /// Host name or address; for PostgreSQL also the directory of a unix socket, for MySQL the socket (begins with `/`).
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Database name.
    pub database: String,
    /// User name.
    pub user: String,
    /// Where the password is; `None` where the server asks for none.
    pub password: Option<SecretRef>,
    /// How the connection is protected.
    pub tls: Tls,
    /// Zone of timestamps that have none of their own.
    pub time_zone: Option<TimeZone>,
}

impl Source {
    /// The source as it is known to the checkpoint: a checkpoint made from one source is refused for another.
    pub fn identity(&self) -> String {
        format!("{}://{}:{}/{}", self.engine.name(), self.host, self.port, self.database)
    }

    /// Whether this may be the source of a checkpoint, by its [`Source::identity`] there, at another address: a replica that
    /// has taken over. The same database of a vendor whose positions say which data they belong to; whether they do, only
    /// the connector can tell.
    pub fn may_have_moved_from(&self, identity: &str) -> bool {
        let tells = matches!(self.engine, Engine::Mysql { .. } | Engine::Postgres { .. });
        let parts = identity.split_once("://").and_then(|(engine, rest)| Some((engine, rest.rsplit_once('/')?.1)));
        tells && parts == Some((self.engine.name(), self.database.as_str()))
    }
}

/// Settings of a SQL Server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SqlServer {
    /// Where changes come from.
    pub mode: SqlServerMode,
    /// Time between two looks for changes.
    pub poll_interval: Duration,
    /// How long the log reader may finish no scan before the stream says so.
    pub capture_timeout: Duration,
    /// How much of a connection is encrypted.
    pub encryption: SqlServerEncryption,
    /// Where a token of Microsoft Entra ID is, in place of a password.
    pub token: Option<SecretRef>,
    /// Asks an availability group for a read-only secondary.
    pub read_only: bool,
}

/// How much of a connection to a SQL Server is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SqlServerEncryption {
    /// Everything, unless TLS is disabled.
    Standard,
    /// The login, and the rest only where the server insists.
    LoginOnly,
    /// Everything, before the first byte of the protocol (TDS 8.0).
    Strict,
}

/// Where the changes of a SQL Server come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SqlServerMode {
    /// Change data capture where the database has it, else change tracking.
    Auto,
    /// Change data capture.
    Cdc,
    /// Change tracking.
    ChangeTracking,
}

/// A vendor and its own settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Engine {
    /// MySQL and MariaDB.
    Mysql {
        /// Number under which the daemon appears as a replica; unique among the server's replicas.
        server_id: u32,
        /// What becomes of dates that no calendar has.
        zero_dates: ZeroDates,
        /// The same for single columns, by `table.column` or `database.table.column`.
        zero_dates_by_column: BTreeMap<String, ZeroDates>,
    },
    /// PostgreSQL.
    Postgres {
        /// Replication slot.
        slot: String,
        /// Publication.
        publication: String,
    },
    /// Microsoft SQL Server.
    SqlServer(SqlServer),
}

/// What becomes of a date that no calendar has (`0000-00-00`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ZeroDates {
    /// Null.
    #[default]
    Null,
    /// The record is set aside.
    Reject,
    /// This date (`YYYY-MM-DD`), at midnight.
    Fixed(String),
}

impl Engine {
    /// The name in the tenant file.
    pub fn name(&self) -> &'static str {
        match self {
            Engine::Mysql { .. } => "mysql",
            Engine::Postgres { .. } => "postgres",
            Engine::SqlServer(_) => "sqlserver",
        }
    }
}

/// How a connection is protected.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tls {
    /// How much is verified.
    pub mode: TlsMode,
    /// Certificates of the trusted authorities (PEM); the operating system's if none is named.
    pub ca_file: Option<PathBuf>,
    /// Certificate chain shown to the server (PEM) with its key.
    pub client: Option<ClientCertificate>,
}

/// A certificate shown to the server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientCertificate {
    /// The chain (PEM).
    pub cert: PathBuf,
    /// The private key (PEM).
    pub key: PathBuf,
}

/// How much of the server's certificate is verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TlsMode {
    /// No TLS.
    Disable,
    /// TLS with whoever answers.
    Require,
    /// A certificate that a trusted authority signed, for any name.
    VerifyCa,
    /// A certificate that a trusted authority signed for this host.
    #[default]
    VerifyFull,
}

/// A time zone by its IANA name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimeZone {
    /// Its name.
    pub name: String,
    /// Its rules.
    pub zone: jiff::tz::TimeZone,
}

/// The mapping as the tenant uses it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Name of a pack, or a path.
    pub pack: String,
    /// Where the pack is named, in bytes of [`Mapping::file`].
    pub pack_span: Range<usize>,
    /// The tenant file, for messages.
    pub file: SourceFile,
    /// Variables of the mapping that are secrets, and where these are.
    pub secrets: BTreeMap<String, SecretRef>,
}

impl Mapping {
    /// `[mapping.vars]` and `[mapping.override]` with their places in [`Mapping::file`], for the mapping's own checks.
    /// Parses the file's text again; empty tables if they are not there.
    pub fn tables(&self) -> (DeTable<'_>, DeTable<'_>) {
        let (root, _) = DeTable::parse_recoverable(&self.file.text);
        let table = |key: &str| match root.get_ref().get("mapping")?.get_ref().as_table()?.get(key)?.get_ref() {
            DeValue::Table(table) => Some(table.clone()),
            _ => None,
        };
        (table("vars").unwrap_or_default(), table("override").unwrap_or_default())
    }
}

/// The CRM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CrmConfig {
    /// Built-in profile, or a path to a profile file.
    pub profile: String,
    /// Where the CRM is; without credentials. Empty only with profile `null`.
    pub base_url: String,
    /// How requests prove themselves.
    pub auth: CrmAuth,
    /// Longest time for one try.
    pub timeout: Duration,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Whether request bodies are compressed.
    pub gzip: bool,
    /// Largest answer that is read, in bytes.
    pub max_response: u64,
    /// CAs to trust in place of the machine's.
    pub ca_file: Option<PathBuf>,
    /// How often the CRM's model is compared with the one that was mapped; zero for never.
    pub schema_check: Duration,
    /// Whether credentials may go to another machine unencrypted.
    pub allow_plain_http: bool,
}

/// How requests to the CRM prove themselves.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum CrmAuth {
    None,
    Bearer {
        token: SecretRef,
    },
    Header {
        name: String,
        value: SecretRef,
    },
    Basic {
        user: String,
        password: SecretRef,
    },
    OAuth2ClientCredentials {
        token_url: String,
        client_id: String,
        client_secret: SecretRef,
        scope: Option<String>,
        client_auth: crm::ClientAuth,
    },
    OAuth2RefreshToken {
        token_url: String,
        client_id: String,
        client_secret: Option<SecretRef>,
        refresh_token: SecretRef,
        scope: Option<String>,
        client_auth: crm::ClientAuth,
    },
}

impl CrmConfig {
    /// What the CRM client takes. Secrets are read when they are needed; a renewed refresh token is kept in `state`.
    pub fn client(&self, state: &Path) -> crm::RestConfig {
        let source = |secret: &SecretRef| {
            let secret = secret.clone();
            crm::SecretSource::new(move || secret.read().map(|s| s.expose().to_string()).map_err(std::io::Error::other))
        };
        let auth = match &self.auth {
            CrmAuth::None => crm::Auth::None,
            CrmAuth::Bearer { token } => crm::Auth::Bearer { token: source(token) },
            CrmAuth::Header { name, value } => crm::Auth::Header { name: name.clone(), value: source(value) },
            CrmAuth::Basic { user, password } => crm::Auth::Basic { user: user.clone(), password: source(password) },
            CrmAuth::OAuth2ClientCredentials { token_url, client_id, client_secret, scope, client_auth } => {
                crm::Auth::OAuth2ClientCredentials {
                    token_url: token_url.clone(),
                    client_id: client_id.clone(),
                    client_secret: source(client_secret),
                    scope: scope.clone(),
                    client_auth: *client_auth,
                }
            }
            CrmAuth::OAuth2RefreshToken { token_url, client_id, client_secret, refresh_token, scope, client_auth } => {
                crm::Auth::OAuth2RefreshToken {
                    token_url: token_url.clone(),
                    client_id: client_id.clone(),
                    client_secret: client_secret.as_ref().map(source),
                    refresh_token: source(refresh_token),
                    scope: scope.clone(),
                    client_auth: *client_auth,
                    keep: Some(state.join("refresh-token")),
                }
            }
        };
        crm::RestConfig {
            timeout: self.timeout,
            connect_timeout: self.connect_timeout,
            gzip: self.gzip,
            max_response_bytes: usize::try_from(self.max_response).unwrap_or(usize::MAX),
            ca_file: self.ca_file.clone(),
            allow_plain_http: self.allow_plain_http,
            ..crm::RestConfig::new(&self.base_url, auth)
        }
    }
}

/// How changes are sent to the CRM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivery {
    /// Most records in one request.
    pub batch_records: usize,
    /// How long a change waits for company before it is sent.
    pub batch_wait: Duration,
    /// Most requests under way at once.
    pub max_in_flight: usize,
    /// Most requests per second; 0 is as fast as the CRM allows.
    pub requests_per_second: u32,
    /// Most requests per day (UTC); 0 is no limit.
    pub daily_quota: u64,
    /// How failed requests are repeated.
    pub retry: Retry,
    /// More dead letters than this stop the tenant.
    pub max_dead_letters: u64,
}

/// How failed requests are repeated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Retry {
    /// Wait before the first repetition; doubles from there.
    pub initial: Duration,
    /// Longest wait between two repetitions.
    pub max: Duration,
    /// A record that has failed for so long becomes a dead letter.
    pub give_up_after: Duration,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            batch_records: 200,
            batch_wait: Duration::from_millis(200),
            max_in_flight: 4,
            requests_per_second: 0,
            daily_quota: 0,
            retry: Retry::default(),
            max_dead_letters: 10_000,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(200),
            max: Duration::from_secs(30),
            give_up_after: Duration::from_secs(24 * 3600),
        }
    }
}

/// How tables are read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Whether they are.
    pub mode: SnapshotMode,
    /// Rows in one page.
    pub chunk_rows: usize,
    /// Tables read at the same time.
    pub parallel_tables: usize,
}

/// Whether tables are read before their changes are followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SnapshotMode {
    /// Once, when they are new.
    #[default]
    Initial,
    /// Never: only changes from now on reach the CRM.
    Never,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { mode: SnapshotMode::Initial, chunk_rows: 5000, parallel_tables: 2 }
    }
}

/// What is remembered, and what happens when it no longer fits the source.
#[derive(Clone, PartialEq, Debug)]
pub struct State {
    /// The state directory.
    pub dir: PathBuf,
    /// What happens when the log no longer reaches back to the checkpoint (P4).
    pub on_gap: OnGap,
    /// When a sweep stops and asks.
    pub sweep_guard: SweepGuard,
}

/// What happens when the log no longer reaches back to the checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnGap {
    /// Every table is read again; only differences are sent, and vanished rows are swept.
    #[default]
    Resync,
    /// The daemon stops and says so.
    Halt,
}

/// A sweep that would remove more than either of these stops and asks (a share counts from 21 records on).
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SweepGuard {
    /// Share of a table's records.
    pub max_share: f64,
    /// Number of records.
    pub max_records: u64,
}

impl SweepGuard {
    /// Whether a sweep of so many of so many records is held back. A share says little about a handful of records.
    pub fn holds_back(&self, gone: u64, of: u64) -> bool {
        gone > self.max_records || (gone > 20 && gone as f64 / of.max(1) as f64 > self.max_share)
    }
}

impl Default for SweepGuard {
    fn default() -> Self {
        Self { max_share: 0.2, max_records: 1000 }
    }
}

/// What can be seen from outside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observe {
    /// Where metrics, probes and the status page are; `None` is nowhere.
    pub listen: Option<SocketAddr>,
    /// The admin socket.
    pub socket: PathBuf,
    /// Least level of log lines, or directives.
    pub log_level: String,
    /// Form of log lines.
    pub log_format: LogFormat,
}

/// What the process may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes that rows, documents and caches together may take.
    pub memory: u64,
    /// Most changes taken in and not yet settled.
    pub window_records: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 128 << 20, window_records: 50_000 }
    }
}
