//! Findings: every prerequisite that was looked at. So far: the server's version and `wal_level`.

use crate::PostgresConfig;
use crate::wire::{Connection, Purpose};
use tidemark_contract::{Finding, Result, TableRequest};

pub(crate) async fn run(config: &PostgresConfig, _tables: &[TableRequest]) -> Result<Vec<Finding>> {
    let mut connection = Connection::open(config, Purpose::Sql).await?;
    let level = connection.value("reading settings", "SHOW wal_level").await?.unwrap_or_default();
    Ok(vec![
        Finding::ok("source.version", format!("PostgreSQL {}", connection.major())),
        if level == "logical" {
            Finding::ok("source.wal_level", "wal_level = logical")
        } else {
            let fix = "ALTER SYSTEM SET wal_level = logical; -- then restart the server".to_owned();
            Finding::error("source.wal_level", format!("wal_level = {level}"), "wal_level = logical", Some(fix))
        },
    ])
}
