//! SQL sessions: a few connections kept open for reading, and what is known of the server behind them.

use crate::MysqlConfig;
use crate::error::undecodable;
use crate::position::{Flavor, GtidSet, Head, Server};
use crate::sql::Sql;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_contract::Result;

/// An SQL connection and the server at its other end.
pub(crate) struct Session {
    pub(crate) connection: Sql,
    pub(crate) server: Arc<Server>,
}

/// Settings of every SQL session. Text comes in the column's own character set, as it is in the log, so that one decoder
/// reads both; times are in UTC; nothing can be written.
const SETTINGS: &str = "SET character_set_client = utf8mb4, character_set_connection = utf8mb4, \
     character_set_results = NULL, time_zone = '+00:00', sql_mode = '', autocommit = 1, group_concat_max_len = 1048576";

impl tidemark_login::Session for Session {
    type Config = MysqlConfig;

    async fn open(config: &MysqlConfig) -> Result<Self> {
        let mut connection = Sql::open(config).await?;
        let doing = "setting up a session";
        connection.run(doing, SETTINGS).await?;
        connection.run(doing, "SET SESSION TRANSACTION READ ONLY").await?;
        let server = Arc::new(identify(&mut connection).await?);
        Ok(Self { connection, server })
    }

    /// Whether the connection is still good; looked at only if it has been idle `since` a while ago.
    async fn still_answers(&mut self, since: Instant) -> bool {
        if since.elapsed() < Duration::from_secs(1) {
            return true;
        }
        let probe = self.connection.run("probing an idle connection", "SELECT 1");
        matches!(tokio::time::timeout(Duration::from_secs(5), probe).await, Ok(Ok(())))
    }
}

impl Session {
    /// Where the log's head is now: every transaction that an earlier read of this session saw is at or before it. The
    /// file's offset is behind everything that was written to the log, and a transaction is in the log before anybody
    /// can see it; MySQL's own set of executed GTIDs may lag behind that by a moment.
    pub(crate) async fn head(&mut self) -> Result<Head> {
        let newer = !self.connection.is_mariadb && self.server.version >= (8, 2);
        let sql = if newer { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
        let doing = "asking for the head of the log";
        let rows = self.connection.rows(doing, sql).await?;
        let Some(row) = rows.into_iter().next() else {
            return Err(
                crate::error::setting_wrong("the server writes no binary log").hint("start the server with log_bin")
            );
        };
        let mut row = row.into_iter();
        let (Some(Some(file)), Some(Some(offset))) = (row.next(), row.next()) else {
            return Err(undecodable("the server did not tell the head of its log"));
        };
        let offset = offset.parse().map_err(|_| undecodable("the server did not tell the head of its log"))?;
        let gtids = match self.server.flavor {
            Flavor::MySql if self.server.gtid_mode => {
                let text = row.nth(2).flatten().unwrap_or_default();
                Some(GtidSet::parse_mysql(&text)?)
            }
            Flavor::MySql => None,
            Flavor::MariaDb => {
                let rows = self.connection.rows(doing, "SELECT @@global.gtid_binlog_pos").await?;
                let text = rows.into_iter().next().and_then(|r| r.into_iter().next().flatten()).unwrap_or_default();
                Some(GtidSet::parse_mariadb(&text)?)
            }
        };
        Ok(Head { file: file.into(), offset, gtids })
    }
}

async fn identify(connection: &mut Sql) -> Result<Server> {
    let doing = "asking who the server is";
    let version = version(&connection.version);
    if connection.is_mariadb {
        let rows = connection.rows(doing, "SELECT @@global.server_id").await?;
        let id = rows.into_iter().next().and_then(|r| r.into_iter().next().flatten());
        let id = id.ok_or_else(|| undecodable("the server did not tell its server_id"))?;
        return Ok(Server { flavor: Flavor::MariaDb, id: id.into(), version, gtid_mode: true });
    }
    let rows = connection.rows(doing, "SELECT @@global.server_uuid, @@global.gtid_mode").await?;
    match rows.into_iter().next().as_deref() {
        Some([Some(uuid), mode]) => Ok(Server {
            flavor: Flavor::MySql,
            id: uuid.to_ascii_lowercase().into(),
            version,
            gtid_mode: mode.as_deref().is_some_and(|m| m.eq_ignore_ascii_case("ON")),
        }),
        _ => Err(undecodable("the server did not tell its server_uuid")),
    }
}

/// Major and minor version.
fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The sessions of a connector.
pub(crate) type Pool = tidemark_login::Pool<Session>;

/// A session taken from the pool.
pub(crate) type Lease<'a> = tidemark_login::Lease<'a, Session>;

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_read() {
        assert_eq!(super::version("10.11.6-MariaDB-log"), (10, 11));
        assert_eq!(super::version("9.7.0"), (9, 7));
        assert_eq!(super::version("x"), (0, 0));
    }
}
