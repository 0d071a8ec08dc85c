//! The one place that names the connectors.

use crate::config::{Engine, Source, SqlServerMode, TlsMode};
use crate::error::Result;
use std::sync::Arc;
use tidemark_contract::Connector;
use tidemark_mysql as mysql;
use tidemark_postgres as postgres;
use tidemark_sqlserver as sqlserver;

/// The connector for a source, not yet connected. Reads the source's password.
///
/// # Errors
/// If the password cannot be read.
pub fn connector(source: &Source) -> Result<Arc<dyn Connector>> {
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
            Ok(Arc::new(postgres::Postgres::new(config)))
        }
        Engine::Mysql { server_id } => {
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
                ..mysql::MysqlConfig::new(&source.host, source.port, &source.database, &source.user)
            };
            Ok(Arc::new(mysql::Mysql::new(config)))
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
            Ok(Arc::new(sqlserver::SqlServer::new(config)))
        }
    }
}
