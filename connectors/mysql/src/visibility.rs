//! Reads that see what the stream has told.
//!
//! A server sends a transaction to its readers of the log before it commits it in the engine: for a moment other sessions
//! do not see rows that the tail has already spoken of. A row that is read *because* the tail spoke of it must not be the
//! row from before, so such a read waits until the engine is as far as the stream:
//!
//! * MySQL with GTIDs: `WAIT_FOR_EXECUTED_GTID_SET`. A GTID becomes executed after its transaction is visible.
//! * MariaDB: a transaction `WITH CONSISTENT SNAPSHOT` knows the place in the log up to which its view reaches
//!   (`binlog_snapshot_file`, `binlog_snapshot_position`); it is begun again and again until that is far enough.
//! * Without GTIDs there is nothing to ask: the read takes the rows' locks in shared mode, which the committing
//!   transaction still holds, for as long as its one statement runs.

use crate::error::unreachable;
use crate::position::{FilePlace, Flavor, GtidSet};
use crate::session::Session;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidemark_contract::Result;
use tokio::time::Instant;

/// Longest wait for the engine to catch up with the log.
const PATIENCE: Duration = Duration::from_secs(30);

/// How far the stream has handed over the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Told {
    pub(crate) file: Option<FilePlace>,
    pub(crate) gtids: Option<GtidSet>,
}

/// What the stream and the readers share.
#[derive(Clone, Default)]
pub(crate) struct Teller(Arc<Mutex<Option<Arc<Told>>>>);

impl Teller {
    pub(crate) fn set(&self, told: Told) {
        *crate::locked(&self.0) = Some(Arc::new(told));
    }

    pub(crate) fn clear(&self) {
        *crate::locked(&self.0) = None;
    }

    pub(crate) fn get(&self) -> Option<Arc<Told>> {
        crate::locked(&self.0).clone()
    }
}

/// Waits until reads of this session see what was told; gives what to put behind a SELECT.
pub(crate) async fn wait(session: &mut Session, told: &Told) -> Result<&'static str> {
    let doing = "waiting for the engine to be as far as the log";
    match (session.server.flavor, &told.gtids) {
        (Flavor::MySql, Some(gtids)) if session.server.gtid_mode => {
            if gtids.is_empty() {
                return Ok("");
            }
            let sql = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{gtids}', {})", PATIENCE.as_secs());
            let rows = session.connection.rows(doing, &sql).await?;
            match rows.into_iter().next().and_then(|r| r.into_iter().next().flatten()).as_deref() {
                Some("0") => Ok(""),
                _ => Err(late()),
            }
        }
        (Flavor::MySql, _) => Ok(" LOCK IN SHARE MODE"),
        (Flavor::MariaDb, _) => {
            let Some(goal) = &told.file else { return Ok("") };
            let deadline = Instant::now() + PATIENCE;
            let mut pause = Duration::from_millis(1);
            while !sees(session, doing, goal).await? {
                if Instant::now() > deadline {
                    return Err(late());
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Ok("")
        }
    }
}

fn late() -> tidemark_contract::SourceError {
    unreachable(format!("the server's engine did not catch up with its log within {PATIENCE:?}"))
}

/// Whether a view of the engine's data, taken now, reaches up to `goal`.
async fn sees(session: &mut Session, doing: &str, goal: &FilePlace) -> Result<bool> {
    session.connection.run(doing, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
    let sql = "SHOW STATUS WHERE Variable_name IN ('binlog_snapshot_file', 'binlog_snapshot_position')";
    let rows = session.connection.rows(doing, sql).await;
    session.connection.run(doing, "COMMIT").await?;
    let mut seen = FilePlace { name: "".into(), offset: 0, created: 0 };
    for row in rows? {
        if let [Some(name), Some(value)] = &row[..] {
            match name.to_ascii_lowercase().as_str() {
                "binlog_snapshot_file" => seen.name = value.as_str().into(),
                _ => seen.offset = value.parse().unwrap_or(0),
            }
        }
    }
    // Another sequence of files: the log was reset, which the stream itself will tell.
    Ok(seen.reaches(goal).unwrap_or(true))
}
