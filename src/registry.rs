//! The one place that names the connectors.

use crate::config::{Engine, Source, SqlServerMode, TlsMode, ZeroDates};
use crate::error::Result;
use std::sync::Arc;
use tidemark_contract::Connector;
use tidemark_mysql as mysql;
use tidemark_postgres as postgres;
use tidemark_sqlserver as sqlserver;

/// How many dates that no calendar has were met: table, column, number.
pub type ReadZeroDates = Box<dyn Fn() -> Vec<(String, String, u64)> + Send + Sync>;

/// The connector for a source, not yet connected. Reads the source's password.
///
/// # Errors
/// If the password cannot be read.
pub fn connector(source: &Source) -> Result<Arc<dyn Connector>> {
    counting(source).map(|(connector, _)| connector)
}

/// As [`connector`], with what it counts beside the contract, where the vendor has such a thing.
///
/// # Errors
/// If the password cannot be read.
pub fn counting(source: &Source) -> Result<(Arc<dyn Connector>, Option<ReadZeroDates>)> {
    let password = source.password.as_ref().map(|secret| secret.read()).transpose()?;
    match &source.engine {
        Engine::Postgres { slot, publication } => {
            let tls = postgres::TlsConfig {
                mode: match source.tls.mode {
                    TlsMode::Disable => postgres::TlsMode::Disable,
                    TlsMode::Require => postgres::TlsMode::Require,
                    TlsMode::VerifyCa => postgres::TlsMode::VerifyCa,
                    TlsMode::VerifyFull => postgres::TlsMode::VerifyFull,
                },
                ca_file: source.tls.ca_file.clone(),
                client_cert: source.tls.client.as_ref().map(|client| client.cert.clone()),
                client_key: source.tls.client.as_ref().map(|client| client.key.clone()),
            };
            let config = postgres::PostgresConfig {
                password: password.map(|secret| postgres::Password::new(secret.expose())),
                tls,
                slot: slot.clone(),
                publication: publication.clone(),
                ..postgres::PostgresConfig::new(&source.host, source.port, &source.database, &source.user)
            };
            Ok((Arc::new(postgres::Postgres::new(config)), None))
        }
        Engine::Mysql { server_id, zero_dates, zero_dates_by_column } => {
            let tls = mysql::TlsConfig {
                mode: match source.tls.mode {
                    TlsMode::Disable => mysql::TlsMode::Disable,
                    TlsMode::Require => mysql::TlsMode::Require,
                    TlsMode::VerifyCa => mysql::TlsMode::VerifyCa,
                    TlsMode::VerifyFull => mysql::TlsMode::VerifyFull,
                },
                ca_file: source.tls.ca_file.clone(),
                client_cert: source.tls.client.as_ref().map(|client| client.cert.clone()),
                client_key: source.tls.client.as_ref().map(|client| client.key.clone()),
            };
            let config = mysql::MysqlConfig {
                password: password.map(|secret| mysql::Password::new(secret.expose())),
                tls,
                server_id: *server_id,
                zero_dates: policy(zero_dates),
                zero_dates_by_column: zero_dates_by_column
                    .iter()
                    .map(|(name, p)| (name.as_str().into(), policy(p)))
                    .collect(),
                ..mysql::MysqlConfig::new(&source.host, source.port, &source.database, &source.user)
            };
            let met = config.zero_dates_met.clone();
            Ok((Arc::new(mysql::Mysql::new(config)), Some(Box::new(move || met.all()))))
        }
        Engine::SqlServer(settings) => {
            let tls = sqlserver::TlsConfig {
                mode: match source.tls.mode {
                    TlsMode::Disable => sqlserver::TlsMode::Disable,
                    TlsMode::Require => sqlserver::TlsMode::Require,
                    TlsMode::VerifyCa => sqlserver::TlsMode::VerifyCa,
                    TlsMode::VerifyFull => sqlserver::TlsMode::VerifyFull,
                },
                strict: settings.strict,
                ca_file: source.tls.ca_file.clone(),
                client_cert: source.tls.client.as_ref().map(|client| client.cert.clone()),
                client_key: source.tls.client.as_ref().map(|client| client.key.clone()),
            };
            let config = sqlserver::SqlServerConfig {
                password: password.map(|secret| sqlserver::Password::new(secret.expose())),
                tls,
                mode: match settings.mode {
                    SqlServerMode::Auto => sqlserver::Mode::Auto,
                    SqlServerMode::Cdc => sqlserver::Mode::Cdc,
                    SqlServerMode::ChangeTracking => sqlserver::Mode::ChangeTracking,
                },
                poll_interval: settings.poll_interval,
                capture_timeout: settings.capture_timeout,
                read_only: settings.read_only,
                ..sqlserver::SqlServerConfig::new(&source.host, source.port, &source.database, &source.user)
            };
            Ok((Arc::new(sqlserver::SqlServer::new(config)), None))
        }
    }
}

fn policy(policy: &ZeroDates) -> mysql::ZeroDates {
    match policy {
        ZeroDates::Null => mysql::ZeroDates::Null,
        ZeroDates::Reject => mysql::ZeroDates::Reject,
        ZeroDates::Fixed(date) => mysql::ZeroDates::Fixed(date.as_str().into()),
    }
}
