//! Change tables read over one window of the log and merged in commit order.
//!
//! A window is everything behind `from` up to and including `to`. Each table that moved is read in pages in the log's order;
//! the page's last mark is where the next one begins. With each page the low end of the instance is asked for *behind* the
//! rows: if the clean-up has passed the page's beginning, the rows may be incomplete, and the position is lost.
//!
//! A change table is stored in the order of commit, statement, log record and operation, and SQL Server has no comparison of
//! such a list: "behind this row" is a chain of alternatives, of which it can use the first column alone to find where to
//! begin. Within a transaction of millions of rows each page would then read all that came before it. So a page that lies
//! wholly in one transaction, or one statement, is followed by a question about just that ([`After`]).

use crate::error::{lost, undecodable};
use crate::pair::{ChangeRow, decode};
use crate::plan::Plan;
use crate::position::{Lsn, Mark, NO_COMMAND};
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

/// Where a page begins, and where it ends at the latest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum After {
    /// Behind a row, to the window's end.
    Row(Mark),
    /// Behind a row, to the end of its transaction.
    InTransaction(Mark),
    /// Behind a row, to the end of its statement.
    InStatement(Mark),
    /// Behind a statement, to the end of its transaction.
    Statement(Lsn, i64),
    /// Behind a transaction, to the window's end.
    Transaction(Lsn),
}

impl After {
    /// The first commit of which the page may have rows.
    fn first(self) -> Lsn {
        match self {
            Self::Row(mark) | Self::InTransaction(mark) | Self::InStatement(mark) => mark.commit,
            Self::Statement(commit, _) => commit,
            Self::Transaction(commit) => commit.next(),
        }
    }

    /// Behind a full page with these first and last rows.
    fn full(first: Mark, last: Mark) -> Self {
        if first.commit != last.commit {
            Self::Row(last)
        } else if first.command != last.command {
            Self::InTransaction(last)
        } else {
            Self::InStatement(last)
        }
    }

    /// Behind a page that was not full; `None` at the window's end.
    fn exhausted(self) -> Option<Self> {
        match self {
            Self::InStatement(mark) => Some(Self::Statement(mark.commit, mark.command)),
            Self::InTransaction(mark) => Some(Self::Transaction(mark.commit)),
            Self::Statement(commit, _) => Some(Self::Transaction(commit)),
            Self::Row(_) | Self::Transaction(_) => None,
        }
    }

    fn condition(self) -> String {
        let (commit, command) = ("c.[__$start_lsn]", "c.[__$command_id]");
        // Null is a value too, before all others.
        let beyond = |n: i64| match n {
            NO_COMMAND => format!("{command} IS NOT NULL"),
            n => format!("{command} > {n}"),
        };
        let same = |n: i64| match n {
            NO_COMMAND => format!("{command} IS NULL"),
            n => format!("{command} = {n}"),
        };
        let record = |mark: Mark| {
            let record = mark.record.literal();
            format!(
                "(c.[__$seqval] > {record} OR (c.[__$seqval] = {record} AND c.[__$operation] > {}))",
                mark.operation
            )
        };
        let within =
            |mark: Mark| format!("({} OR ({} AND {}))", beyond(mark.command), same(mark.command), record(mark));
        match self {
            Self::Row(mark) => {
                let at = mark.commit.literal();
                format!("{commit} >= {at} AND ({commit} > {at} OR {})", within(mark))
            }
            Self::InTransaction(mark) => format!("{commit} = {} AND {}", mark.commit.literal(), within(mark)),
            Self::InStatement(mark) => format!(
                "{commit} = {} AND {} AND c.[__$seqval] >= {} AND {}",
                mark.commit.literal(),
                same(mark.command),
                mark.record.literal(),
                record(mark)
            ),
            Self::Statement(at, n) => format!("{commit} = {} AND {}", at.literal(), beyond(n)),
            Self::Transaction(at) => format!("{commit} > {}", at.literal()),
        }
    }
}

/// One table's place in a window.
struct Lane {
    /// Index of the plan.
    plan: usize,
    after: After,
    rows: VecDeque<ChangeRow>,
    done: bool,
}

/// See the module.
pub(crate) struct Window {
    pub(crate) to: Lsn,
    lanes: Vec<Lane>,
    /// Minutes that the server's clock is ahead of UTC.
    offset: i64,
}

impl Window {
    /// A window over the plans at `moved`.
    pub(crate) fn new(from: Lsn, to: Lsn, moved: &[usize], offset: i64) -> Self {
        let after = After::Transaction(from);
        let lane = |plan: &usize| Lane { plan: *plan, after, rows: VecDeque::new(), done: false };
        Self { to, lanes: moved.iter().map(lane).collect(), offset }
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
            while self.lanes[at].rows.is_empty() && !self.lanes[at].done {
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
        let sql = select(plan, self.to, lane.after, limit);
        let doing = format!("reading changes of table {}", plan.shape.schema.table);
        let results = connection.results(&doing, &sql).await?;
        let low = results.get(1).and_then(|rows| rows.first()).and_then(|row| row.bytes(0)).and_then(Lsn::of);
        if low.is_some_and(|low| low > lane.after.first().max(plan.floor)) {
            return Err(cleaned_up(plan));
        }
        let rows = results.into_iter().next().unwrap_or_default();
        let mut text = String::new();
        let mut bytes = 0;
        for row in &rows {
            let strange = || undecodable(format!("{doing}: a row without its place in the log"));
            let lsn = |at| row.bytes(at).and_then(Lsn::of).ok_or_else(strange);
            let mark = Mark {
                commit: lsn(0)?,
                command: row.int(1).unwrap_or(NO_COMMAND),
                record: lsn(2)?,
                operation: row.int(3).ok_or_else(strange)?,
            };
            let mut cells = row.cells().map(|(_, cell)| cell).skip(4);
            let committed_at = cells.next().and_then(unix_micros).unwrap_or(0) - self.offset * 60_000_000;
            let row = decode(plan, mark.operation, cells, &mut text)?;
            bytes += row.memory();
            lane.rows.push_back(ChangeRow { mark, committed_at, row });
        }
        match (lane.rows.front(), lane.rows.back()) {
            (Some(first), Some(last)) if rows.len() >= limit => lane.after = After::full(first.mark, last.mark),
            _ => match lane.after.exhausted() {
                Some(after) => lane.after = after,
                None => lane.done = true,
            },
        }
        if let (Some(size), Some(average)) = (sizes.get_mut(lane.plan), bytes.checked_div(rows.len())) {
            *size = average.max(64);
        }
        Ok(())
    }
}

/// The statement for one page, and the one for the instance's low end behind it.
fn select(plan: &Plan, to: Lsn, after: After, limit: usize) -> String {
    let mut columns = String::new();
    for captured in plan.held.iter().flatten() {
        let Some(kind) = &captured.kind else { continue };
        if kind.is_large {
            columns.push_str(&format!(", sys.fn_cdc_is_bit_set({}, c.[__$update_mask])", captured.ordinal));
        }
        columns.push_str(", ");
        columns.push_str(&kind.select(&format!("c.{}", ident(&captured.name))));
    }
    format!(
        "SELECT TOP ({limit}) c.[__$start_lsn], c.[__$command_id], c.[__$seqval], c.[__$operation], m.tran_end_time{columns} \
         FROM {} c LEFT JOIN cdc.lsn_time_mapping m ON m.start_lsn = c.[__$start_lsn] \
         WHERE c.[__$start_lsn] <= {} AND {} \
         ORDER BY c.[__$start_lsn], c.[__$command_id], c.[__$seqval], c.[__$operation]; SELECT {}",
        plan.change_table(),
        to.literal(),
        after.condition(),
        plan.low_end()
    )
}
