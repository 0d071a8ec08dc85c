//! SQL sessions: a few connections kept open for reading, and what is known of the server behind them.

use crate::PostgresConfig;
use crate::error::{sqlstate, undecodable};
use crate::position::{Log, Lsn, Tables};
use crate::sql::{Queries, Sql};
use crate::types::Types;
use crate::wire::Connection;
use std::time::{Duration, Instant};
use tidemark_contract::Result;

/// What is known of a server; does not change while it runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Server {
    /// The cluster's system identifier.
    pub(crate) system: Box<str>,
    page: u64,
    segment: u64,
}

/// An SQL connection and the server at its other end.
pub(crate) struct Session {
    pub(crate) connection: Sql,
    pub(crate) server: Server,
    /// The types met on this connection.
    pub(crate) types: Types,
}

/// The head of the log and the timeline, as an SQL select list. On a standby the head is what was received or replayed:
/// a transaction becomes visible while its commit record is being replayed, which is not yet counted as replayed then.
pub(crate) const HEAD: &str = "CASE WHEN pg_is_in_recovery()
        THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) ELSE pg_current_wal_insert_lsn() END,
    CASE WHEN pg_is_in_recovery() THEN (SELECT timeline_id FROM pg_control_checkpoint())
        ELSE ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END";

/// A place at the head of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) lsn: Lsn,
    pub(crate) timeline: u32,
}

impl tidemark_login::Session for Session {
    type Config = PostgresConfig;

    async fn open(config: &PostgresConfig) -> Result<Self> {
        let mut connection = Sql::open(config).await?;
        let sql = "SELECT system_identifier, current_setting('wal_block_size'),
                pg_size_bytes(current_setting('wal_segment_size')) FROM pg_control_system()";
        let server = match connection.rows("asking for the system identifier", sql).await {
            Ok(rows) => rows,
            // Some services revoke the function; a replication connection tells the identifier to whoever may have one.
            Err(error) if sqlstate(&error) == Some("42501") => {
                let mut walsender = Connection::open(config).await?;
                let mut rows = walsender.rows("identifying the system", "IDENTIFY_SYSTEM").await?;
                walsender.terminate().await;
                let sizes =
                    "SELECT current_setting('wal_block_size'), pg_size_bytes(current_setting('wal_segment_size'))";
                let sizes = connection.rows("asking for the log's page size", sizes).await?;
                rows.iter_mut().for_each(|row| row.truncate(1));
                rows.into_iter().zip(sizes).map(|(row, sizes)| [row, sizes].concat()).collect()
            }
            Err(error) => return Err(error),
        };
        let server = match server.into_iter().next().as_deref() {
            Some([Some(system), Some(page), Some(segment)]) => Server {
                system: system.as_str().into(),
                page: page.parse().unwrap_or(0),
                segment: segment.parse().unwrap_or(0),
            },
            _ => return Err(undecodable("the server did not tell its system identifier")),
        };
        Ok(Self { connection, server, types: Types::default() })
    }

    /// Whether the connection is still good; looked at only if it has been idle `since` a while ago.
    async fn still_answers(&mut self, since: Instant) -> bool {
        if self.connection.is_closed() {
            return false;
        }
        if since.elapsed() < Duration::from_secs(1) {
            return true;
        }
        let probe = self.connection.query("probing an idle connection", "SELECT 1");
        matches!(tokio::time::timeout(Duration::from_secs(5), probe).await, Ok(Ok(_)))
    }
}

impl Session {
    /// Where the log's head is now: every transaction that a snapshot taken before this call sees is at or before it.
    pub(crate) async fn head(&mut self) -> Result<Head> {
        let rows = self.connection.rows("asking for the head of the log", &format!("SELECT {HEAD}")).await?;
        self.parse_head(rows.first().map_or(&[], |row| row))
    }

    /// Reads a row of [`HEAD`].
    pub(crate) fn parse_head(&self, row: &[Option<String>]) -> Result<Head> {
        match row {
            [Some(lsn), Some(timeline), ..] => match (lsn.parse::<Lsn>(), timeline.parse()) {
                (Ok(lsn), Ok(timeline)) => {
                    Ok(Head { lsn: lsn.without_page_header(self.server.page, self.server.segment), timeline })
                }
                _ => Err(undecodable("the server told no usable place for the head of its log")),
            },
            _ => Err(undecodable("the server told no place for the head of its log")),
        }
    }

    /// The identity of this session's log.
    pub(crate) fn log(&self, config: &PostgresConfig, timeline: u32) -> Log {
        Log {
            system: self.server.system.clone(),
            timeline,
            database: config.database.as_str().into(),
            slot: config.slot.as_str().into(),
            created: None,
            tables: Tables::default(),
        }
    }
}

/// The sessions of a connector.
pub(crate) type Pool = tidemark_login::Pool<Session>;

/// A session taken from the pool.
pub(crate) type Lease<'a> = tidemark_login::Lease<'a, Session>;
