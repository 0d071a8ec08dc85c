//! One connection: the driver behind the [`door`], logged in.

use crate::SqlServerConfig;
use crate::door::{self, Door, Inner};
use crate::error::{of, setting_wrong, unreachable};
use tiberius::error::Error;
use tiberius::{AuthMethod, Client, Config, EncryptionLevel, Row};
use tidemark_contract::Result;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

/// How often a server may send us on to another one before we stop following.
const HOPS: u32 = 5;

/// A connection that is logged in.
pub(crate) struct Connection {
    client: Client<Compat<Inner>>,
    login_only: bool,
}

/// What becomes of a login.
enum LoggedIn {
    Here(Box<Connection>),
    /// The server names another.
    Elsewhere(String, u16),
}

impl Connection {
    /// Connects and logs in, within the configuration's limit.
    pub(crate) async fn open(config: &SqlServerConfig) -> Result<Self> {
        let limit = config.connect_timeout;
        match tokio::time::timeout(limit, Self::establish(config)).await {
            Ok(connected) => connected,
            Err(_) => Err(unreachable(format!("connecting to {} took longer than {limit:?}", config.address()))),
        }
    }

    /// Logs in, here or where the server sends us: a listener to a secondary, a gateway to the database's own server.
    async fn establish(config: &SqlServerConfig) -> Result<Self> {
        let (mut host, mut port) = (config.host.clone(), config.port);
        for _ in 0..=HOPS {
            match Self::log_in(config, &host, port).await? {
                LoggedIn::Here(connection) => return Ok(*connection),
                LoggedIn::Elsewhere(to, at) => (host, port) = (to, at),
            }
        }
        let address = config.address();
        Err(setting_wrong(format!("{address}: servers sent us on {HOPS} times, the last one to {host}:{port}"))
            .hint("name the host and port of the server itself in the tenant file"))
    }

    async fn log_in(config: &SqlServerConfig, host: &str, port: u16) -> Result<LoggedIn> {
        let Door { stream, login_only } = door::open(config, host, port).await?;
        let mut driver = Config::new();
        driver.host(host);
        driver.port(port);
        driver.database(&config.database);
        driver.application_name(&config.application_name);
        driver.authentication(match (&config.token, &config.password) {
            (Some(_), Some(_)) => {
                return Err(setting_wrong("both a password and a token are given").hint("remove one of them"));
            }
            // Read anew at each login: tokens live for an hour or so, and somebody else renews them.
            (Some(token), None) => AuthMethod::aad_token(token.read()?.expose()),
            (None, password) => {
                AuthMethod::sql_server(&config.user, password.as_ref().map_or("", |password| password.expose()))
            }
        });
        driver.readonly(config.read_only);
        driver.encryption(EncryptionLevel::NotSupported);
        driver.lossy_utf16_decoding(true);
        driver.handshake_timeout(Some(config.connect_timeout));
        driver.command_timeout(Some(config.statement_timeout));
        match Client::connect(driver, stream.compat_write()).with_subscriber(NoSubscriber::new()).await {
            Ok(client) => Ok(LoggedIn::Here(Box::new(Self { client, login_only }))),
            // A named instance stands behind the host's name; its port is told.
            Err(Error::Routing { host, port }) => {
                Ok(LoggedIn::Elsewhere(host.split('\\').next().unwrap_or_default().to_owned(), port))
            }
            Err(error) => {
                let with = if config.token.is_some() { " with a token" } else { "" };
                let mut error = of(&format!("logging in to {host}:{port} as {}{with}", config.user), error);
                if config.token.is_some() && error.kind == tidemark_contract::ErrorKind::AuthRefused {
                    error.hint = Some(
                        "check that the token is for the server's resource (https://database.windows.net/), has not \
                         expired, and that its principal is a user of the database"
                            .into(),
                    );
                }
                Err(error)
            }
        }
    }

    /// Whether rows travel unencrypted, though encryption of the login was asked for and given.
    pub(crate) fn login_only(&self) -> bool {
        self.login_only
    }

    /// Runs a batch and gives all its results. A call that is dropped leaves the connection unusable: it must be thrown
    /// away.
    pub(crate) async fn results(&mut self, doing: &str, sql: &str) -> Result<Vec<Vec<Row>>> {
        let client = &mut self.client;
        let work = async { client.simple_query(sql).await?.into_results().await };
        // The driver logs rows as it decodes them (R9): nobody listens.
        work.with_subscriber(NoSubscriber::new()).await.map_err(|e| of(doing, e))
    }

    /// Runs a batch with one result.
    pub(crate) async fn rows(&mut self, doing: &str, sql: &str) -> Result<Vec<Row>> {
        Ok(self.results(doing, sql).await?.into_iter().next().unwrap_or_default())
    }

    /// Runs a batch without a result.
    pub(crate) async fn run(&mut self, doing: &str, sql: &str) -> Result<()> {
        self.results(doing, sql).await.map(drop)
    }
}
