//! Change tables read over one window of the log and merged in commit order.
//!
//! A window is everything behind `from` up to and including `to`. Each table that moved is read in pages in the log's order;
//! the page's last mark is where the next one begins. With each page the low end of the instance is asked for *behind* the
//! rows: if the clean-up has passed the page's beginning, the rows may be incomplete, and the position is lost.

use crate::error::{lost, undecodable};
use crate::pair::{ChangeRow, Mark, decode};
use crate::plan::Plan;
use crate::position::Lsn;
use crate::sql::{Cells, ident};
use crate::types::unix_micros;
use crate::wire::Connection;
use std::collections::VecDeque;
use tidemark_contract::{Result, SourceError};

/// Bytes of rows that all buffers together hold, about.
const BUFFERS: usize = 2 << 20;

/// The error for changes that were cleaned up before they were read.
pub(crate) fn cleaned_up(plan: &Plan) -> SourceError {
    lost(format!(
        "changes of table {} were removed from capture instance {} before they were read",
        plan.shape.schema.table, plan.instance.name
    ))
    .hint("raise the retention of the clean-up job: EXEC sys.sp_cdc_change_job @job_type = N'cleanup', @retention = …")
}

/// One table's place in a window.
struct Lane {
    /// Index of the plan.
    plan: usize,
    /// The last row read, once there is one.
    after: Option<Mark>,
    rows: VecDeque<ChangeRow>,
    done: bool,
}

/// See the module.
pub(crate) struct Window {
    from: Lsn,
    pub(crate) to: Lsn,
    lanes: Vec<Lane>,
    /// Minutes that the server's clock is ahead of UTC.
    offset: i64,
}

impl Window {
    /// A window over the plans at `moved`.
    pub(crate) fn new(from: Lsn, to: Lsn, moved: &[usize], offset: i64) -> Self {
        let lane = |plan: &usize| Lane { plan: *plan, after: None, rows: VecDeque::new(), done: false };
        Self { from, to, lanes: moved.iter().map(lane).collect(), offset }
    }

    /// The next row of all tables, with the index of its plan.
    pub(crate) async fn next(
        &mut self,
        connection: &mut Connection,
        plans: &[Plan],
        sizes: &mut [usize],
    ) -> Result<Option<(usize, ChangeRow)>> {
        let share = BUFFERS / self.lanes.len().max(1);
        for at in 0..self.lanes.len() {
            if self.lanes[at].rows.is_empty() && !self.lanes[at].done {
                self.fill(at, connection, plans, sizes, share).await?;
            }
        }
        let first = self.lanes.iter_mut().filter(|l| !l.rows.is_empty()).min_by_key(|l| l.rows.front().map(|r| r.mark));
        Ok(first.and_then(|lane| Some((lane.plan, lane.rows.pop_front()?))))
    }

    async fn fill(
        &mut self,
        at: usize,
        connection: &mut Connection,
        plans: &[Plan],
        sizes: &mut [usize],
        share: usize,
    ) -> Result<()> {
        let lane = &mut self.lanes[at];
        let plan = &plans[lane.plan];
        let size = sizes.get(lane.plan).copied().unwrap_or(0);
        // A table that was never read begins with a page that is small whatever its rows are.
        let limit = share.checked_div(size).map_or(50, |rows| rows.clamp(1, 5000));
        let sql = select(plan, self.from, self.to, lane.after, limit);
        let doing = format!("reading changes of table {}", plan.shape.schema.table);
        let results = connection.results(&doing, &sql).await?;
        let low = results.get(1).and_then(|rows| rows.first()).and_then(|row| row.bytes(0)).and_then(Lsn::of);
        let needed = lane.after.map_or(self.from.next(), |mark| mark.commit).max(plan.floor);
        if low.is_some_and(|low| low > needed) {
            return Err(cleaned_up(plan));
        }
        let rows = results.into_iter().next().unwrap_or_default();
        lane.done = rows.len() < limit;
        let mut text = String::new();
        let mut bytes = 0;
        for row in &rows {
            let strange = || undecodable(format!("{doing}: a row without its place in the log"));
            let lsn = |at| row.bytes(at).and_then(Lsn::of).ok_or_else(strange);
            let mark = Mark {
                commit: lsn(0)?,
                command: row.int(1).unwrap_or(0),
                record: lsn(2)?,
                operation: row.int(3).ok_or_else(strange)?,
            };
            let mut cells = row.cells().map(|(_, cell)| cell).skip(4);
            let committed_at = cells.next().and_then(unix_micros).unwrap_or(0) - self.offset * 60_000_000;
            let row = decode(plan, mark.operation, cells, &mut text)?;
            bytes += row.memory();
            lane.after = Some(mark);
            lane.rows.push_back(ChangeRow { mark, committed_at, row });
        }
        if let (Some(size), Some(average)) = (sizes.get_mut(lane.plan), bytes.checked_div(rows.len())) {
            *size = average.max(64);
        }
        Ok(())
    }
}

/// The statement for one page, and the one for the instance's low end behind it.
fn select(plan: &Plan, from: Lsn, to: Lsn, after: Option<Mark>, limit: usize) -> String {
    let mut columns = String::new();
    for captured in plan.held.iter().flatten() {
        let Some(kind) = &captured.kind else { continue };
        if kind.is_large {
            columns.push_str(&format!(", sys.fn_cdc_is_bit_set({}, c.[__$update_mask])", captured.ordinal));
        }
        columns.push_str(", ");
        columns.push_str(&kind.select(&format!("c.{}", ident(&captured.name))));
    }
    let behind = match after {
        None => format!("c.[__$start_lsn] > {}", from.literal()),
        Some(mark) => {
            let (commit, command, record) = (mark.commit.literal(), mark.command, mark.record.literal());
            format!(
                "c.[__$start_lsn] >= {commit} AND (c.[__$start_lsn] > {commit} OR c.[__$command_id] > {command} \
                 OR (c.[__$command_id] = {command} AND (c.[__$seqval] > {record} \
                 OR (c.[__$seqval] = {record} AND c.[__$operation] > {}))))",
                mark.operation
            )
        }
    };
    format!(
        "SELECT TOP ({limit}) c.[__$start_lsn], c.[__$command_id], c.[__$seqval], c.[__$operation], m.tran_end_time{columns} \
         FROM {} c LEFT JOIN cdc.lsn_time_mapping m ON m.start_lsn = c.[__$start_lsn] \
         WHERE c.[__$start_lsn] <= {} AND {behind} \
         ORDER BY c.[__$start_lsn], c.[__$command_id], c.[__$seqval], c.[__$operation]; SELECT {}",
        plan.change_table(),
        to.literal(),
        plan.low_end()
    )
}
