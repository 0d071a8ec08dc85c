//! When the log reader has seen everything that was committed before a moment.
//!
//! The change tables are filled by a job. That they hold nothing new does not mean that nothing happened, so "there is
//! nothing more" is said only when the job has finished a scan that began after the question: `sys.dm_cdc_log_scan_sessions`
//! names the scans. A scan whose start is later than the question by the server's clock will do; several empty scans in a
//! row may be one row of the view whose end and count move, and then the second move belongs to a scan that began after the
//! question, because scans follow each other. A scan that took as many transactions as it may is not at the log's end.
//!
//! Whoever may not see the scans, as on a replica that can only be read, waits for the log reader to capture something
//! later than the question instead: it goes through the log in its order. On a quiet database that is its idle row, which
//! comes every five minutes.

use crate::error::{undecodable, unreachable};
use crate::position::Lsn;
use crate::session::{LOG_END, log_end};
use crate::sql::Cells;
use crate::types::unix_micros;
use crate::wire::Connection;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tiberius::Row;
use tidemark_contract::{Result, SourceError};

const SCAN: &str = "SELECT TOP (1) CAST(session_id AS bigint), CAST(tran_count AS bigint), CAST(empty_scan_count AS bigint), \
     start_time, end_time FROM sys.dm_cdc_log_scan_sessions WHERE session_id > 0 AND scan_phase = N'Done' \
     ORDER BY session_id DESC";

/// What is known of the last scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Scan {
    id: i64,
    transactions: i64,
    empty: i64,
    started: i64,
    ended: i64,
}

impl Scan {
    fn of(rows: &[Row]) -> Option<Self> {
        let row = rows.first()?;
        let time = |at| row.get_column_data(at).ok().and_then(unix_micros).unwrap_or(0);
        let number = |at| row.int(at).unwrap_or(0);
        Some(Self { id: row.int(0)?, transactions: number(1), empty: number(2), started: time(3), ended: time(4) })
    }
}

/// A question that waits for its answer.
#[derive(Debug)]
pub(crate) struct Fence {
    /// The end of the log when it was asked.
    pub(crate) end: Lsn,
    /// The server's clock then.
    asked_at: i64,
    pub(crate) last: Option<Scan>,
    moves: u32,
    /// When a scan was last seen to end.
    moved_at: Instant,
}

impl Fence {
    /// Asks now; `scans` tells whether the log reader's scans can be seen here.
    pub(crate) async fn ask(connection: &mut Connection, scans: bool) -> Result<Self> {
        let doing = "asking for the end of the log";
        let scan = if scans { SCAN } else { "" };
        let results = connection.results(doing, &format!("{LOG_END}; SELECT GETDATE(); {scan}")).await?;
        let [end, clock, rest @ ..] = &results[..] else { return Err(undecodable(format!("{doing}: no answer"))) };
        let asked_at = clock.first().and_then(|row| row.get_column_data(0).ok()).and_then(unix_micros);
        let asked_at = asked_at.ok_or_else(|| undecodable("the server did not tell its clock"))?;
        Ok(Self {
            end: log_end(end)?,
            asked_at,
            last: rest.first().and_then(|rows| Scan::of(rows)),
            moves: 0,
            moved_at: Instant::now(),
        })
    }

    /// Whether everything that was committed before the question has been captured by now.
    pub(crate) async fn is_passed(&mut self, connection: &mut Connection, most: i64) -> Result<bool> {
        let rows = connection.rows("asking for the log reader's progress", SCAN).await?;
        Ok(self.learn(Scan::of(&rows), most))
    }

    /// The error for a log reader that has not finished a scan for longer than `patience`: the change tables stand still,
    /// and that nothing comes out of them says nothing.
    pub(crate) async fn stands_still(&self, connection: &mut Connection, patience: Duration) -> Option<SourceError> {
        let silent = self.moved_at.elapsed();
        if silent <= patience {
            return None;
        }
        Some(standing_still(connection, silent).await)
    }

    fn learn(&mut self, now: Option<Scan>, most: i64) -> bool {
        let Some(scan) = now else { return false };
        if now != self.last {
            self.last = now;
            self.moves += 1;
            self.moved_at = Instant::now();
        }
        let began_after = scan.started > self.asked_at || self.moves >= 2;
        began_after && scan.transactions < most
    }
}

/// The error for a log reader that has been silent for so long.
async fn standing_still(connection: &mut Connection, silent: Duration) -> SourceError {
    let errors = "SELECT TOP (1) error_number FROM sys.dm_cdc_errors ORDER BY entry_time DESC";
    let failure = connection.rows("asking for the log reader's errors", errors).await.ok();
    let failure = failure.and_then(|rows| rows.first().and_then(|row| row.int(0)));
    let failure = failure.map_or(String::new(), |number| format!("; the last error it noted is {number}"));
    let message = format!(
        "the log reader has finished no scan for {} s: the capture job does not run, and changes do not come{failure}",
        silent.as_secs()
    );
    unreachable(message).hint(
        "start SQL Server Agent and the capture job: EXEC sys.sp_cdc_start_job @job_type = N'capture'; \
         nothing is lost as long as the log is kept",
    )
}

/// What is remembered of a log reader that stood still, from one stream to the next: until it has finished another scan, a
/// new stream knows no better.
#[derive(Default)]
pub(crate) struct Stalled(Mutex<Option<(Option<Scan>, Instant)>>);

impl Stalled {
    /// Notes that nothing came behind this scan.
    pub(crate) fn note(&self, last: Option<Scan>) {
        let mut known = crate::locked(&self.0);
        if known.as_ref().is_none_or(|(before, _)| *before != last) {
            *known = Some((last, Instant::now()));
        }
    }

    /// The error, if it still stands where it stood.
    pub(crate) async fn check(&self, connection: &mut Connection, patience: Duration) -> Result<()> {
        let Some((last, since)) = *crate::locked(&self.0) else { return Ok(()) };
        let rows = connection.rows("asking for the log reader's progress", SCAN).await?;
        if Scan::of(&rows) == last {
            return Err(standing_still(connection, since.elapsed() + patience).await);
        }
        *crate::locked(&self.0) = None;
        Ok(())
    }
}

/// How many transactions one scan takes at most; the product's default if the job's settings may not be seen.
pub(crate) async fn most_transactions(connection: &mut Connection) -> Result<i64> {
    let sql = "SELECT CAST(maxtrans AS bigint) FROM msdb.dbo.cdc_jobs \
               WHERE database_id = DB_ID() AND job_type = N'capture'";
    match connection.rows("asking for the capture job's settings", sql).await {
        Ok(rows) => Ok(rows.first().and_then(|row| row.int(0)).unwrap_or(500)),
        Err(error) if crate::error::server_code(&error).is_some() => Ok(500),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(id: i64, transactions: i64, empty: i64, started: i64, ended: i64) -> Option<Scan> {
        Some(Scan { id, transactions, empty, started, ended })
    }

    fn asked(last: Option<Scan>) -> Fence {
        Fence { end: Lsn::default(), asked_at: 100, last, moves: 0, moved_at: Instant::now() }
    }

    #[test]
    fn a_scan_that_began_later_answers() {
        let mut fence = asked(scan(1, 0, 0, 90, 95));
        assert!(!fence.learn(scan(1, 0, 0, 90, 95), 500));
        assert!(!fence.learn(scan(2, 0, 0, 99, 101), 500));
        assert!(fence.learn(scan(3, 4, 0, 101, 102), 500));
    }

    #[test]
    fn empty_scans_in_one_row_answer_with_the_second_move() {
        let mut fence = asked(scan(1, 0, 5, 90, 95));
        assert!(!fence.learn(scan(1, 0, 6, 90, 101), 500));
        assert!(!asked(None).learn(None, 500));
        assert!(fence.learn(scan(1, 0, 7, 90, 106), 500));
    }

    #[test]
    fn a_full_scan_is_not_the_end() {
        let mut fence = asked(None);
        assert!(!fence.learn(scan(3, 500, 0, 101, 102), 500));
        assert!(fence.learn(scan(4, 20, 0, 103, 104), 500));
    }
}
