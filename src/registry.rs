//! The one place that names the connectors.

use crate::config::{Engine, Source, SqlServerEncryption, SqlServerMode, Tls, TlsMode, ZeroDates};
use crate::error::Result;
use std::sync::Arc;
use tidemark_contract::Connector;
use tidemark_login::{Password, TlsConfig};
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
    let password = password.map(|secret| Password::new(secret.expose()));
    let tls = tls(&source.tls);
    match &source.engine {
        Engine::Postgres { slot, publication } => {
            let config = postgres::PostgresConfig {
                password,
                tls,
                slot: slot.clone(),
                publication: publication.clone(),
                ..postgres::PostgresConfig::new(&source.host, source.port, &source.database, &source.user)
            };
            Ok((Arc::new(postgres::Postgres::new(config)), None))
        }
        Engine::Mysql { server_id, zero_dates, zero_dates_by_column } => {
            let config = mysql::MysqlConfig {
                password,
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
            let config = sqlserver::SqlServerConfig {
                password,
                tls,
                mode: match settings.mode {
                    SqlServerMode::Auto => sqlserver::Mode::Auto,
                    SqlServerMode::Cdc => sqlserver::Mode::Cdc,
                    SqlServerMode::ChangeTracking => sqlserver::Mode::ChangeTracking,
                },
                poll_interval: settings.poll_interval,
                encryption: match settings.encryption {
                    SqlServerEncryption::Standard => sqlserver::Encryption::Standard,
                    SqlServerEncryption::LoginOnly => sqlserver::Encryption::LoginOnly,
                    SqlServerEncryption::Strict => sqlserver::Encryption::Strict,
                },
                token: settings.token.clone().map(|secret| {
                    sqlserver::Token::new(move || match secret.read() {
                        Ok(token) => Ok(Password::new(token.expose())),
                        Err(why) => Err(why.to_string()),
                    })
                }),
                capture_timeout: settings.capture_timeout,
                read_only: settings.read_only,
                ..sqlserver::SqlServerConfig::new(&source.host, source.port, &source.database, &source.user)
            };
            Ok((Arc::new(sqlserver::SqlServer::new(config)), None))
        }
    }
}

fn tls(tls: &Tls) -> TlsConfig {
    TlsConfig {
        mode: match tls.mode {
            TlsMode::Disable => tidemark_login::TlsMode::Disable,
            TlsMode::Require => tidemark_login::TlsMode::Require,
            TlsMode::VerifyCa => tidemark_login::TlsMode::VerifyCa,
            TlsMode::VerifyFull => tidemark_login::TlsMode::VerifyFull,
        },
        ca_file: tls.ca_file.clone(),
        client_cert: tls.client.as_ref().map(|client| client.cert.clone()),
        client_key: tls.client.as_ref().map(|client| client.key.clone()),
    }
}

fn policy(policy: &ZeroDates) -> mysql::ZeroDates {
    match policy {
        ZeroDates::Null => mysql::ZeroDates::Null,
        ZeroDates::Reject => mysql::ZeroDates::Reject,
        ZeroDates::Fixed(date) => mysql::ZeroDates::Fixed(date.as_str().into()),
    }
}
