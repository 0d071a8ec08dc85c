//! A table's life: waiting, being read, live, or in need of somebody.

use super::page::{Bound, Page};
use crate::store::TablePhase;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tidemark_contract::{ScanCursor, TableRequest, TableSchema};

/// What a table is doing. The tail feeds it in every state but `NeedsAttention`.
#[derive(Debug)]
pub enum Life {
    /// Its snapshot waits: for its generation to be durable, for parents, or for a free reader.
    Pending {
        /// Whether every record is sent and swept without guard.
        force: bool,
    },
    /// It is being read.
    Snapshot(Box<SnapshotRun>),
    /// Only the tail feeds it.
    Live,
    /// Its changes are not applied; after the fix it is read again.
    NeedsAttention {
        /// What is wrong and what to do.
        reason: String,
    },
}

/// One pass over a table.
#[derive(Debug)]
pub struct SnapshotRun {
    /// Everything before this key is settled.
    pub cursor: Option<ScanCursor>,
    /// Where the next read begins, `None` at the beginning.
    pub read_from: Option<ScanCursor>,
    /// A read is under way.
    pub is_reading: bool,
    /// The last page has been read.
    pub is_read: bool,
    /// Pages that wait for the tail to reach their barrier; `None` for one that is still being mapped.
    pub held: VecDeque<Option<Page>>,
    /// Number of the first page held, counted from this process's first read of the pass.
    pub held_from: u32,
    /// Pages whose records are on their way, oldest first.
    pub open: VecDeque<OpenChunk>,
    /// Number of the next page to be opened.
    pub next_chunk: u32,
    /// Rows settled.
    pub rows_done: u64,
    /// Rows released to the loader.
    pub rows_released: u64,
    /// Unix milliseconds.
    pub started_at: i64,
    /// For the rate.
    pub begun: Instant,
    /// Rows settled before this process began.
    pub rows_before: u64,
    /// Send also what the ledger says is in place, and sweep without guard.
    pub force: bool,
    /// What happens after the last page.
    pub sweep: Sweep,
}

/// A page whose records are on their way.
#[derive(Debug)]
pub struct OpenChunk {
    /// Its number.
    pub number: u32,
    /// Records not settled yet.
    pub remaining: usize,
    /// Rows it had.
    pub rows: u64,
    /// Where the next page begins.
    pub next: Option<ScanCursor>,
}

/// Finding what is gone, after a full pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sweep {
    /// Pages are still being read or settled.
    NotYet,
    /// Everything is settled but the tail's changes up to this ticket, which may concern records that the pass did not see.
    WaitFor(u64),
    /// The ledger is being searched.
    Searching,
    /// This many removals are on their way.
    Removing(usize),
}

impl SnapshotRun {
    /// A pass that begins (or goes on) at `cursor`.
    pub fn new(cursor: Option<ScanCursor>, rows_done: u64, started_at: i64, force: bool) -> Self {
        Self {
            read_from: cursor.clone(),
            cursor,
            is_reading: false,
            is_read: false,
            held: VecDeque::new(),
            held_from: 0,
            open: VecDeque::new(),
            next_chunk: 0,
            rows_done,
            rows_released: rows_done,
            started_at,
            begun: Instant::now(),
            rows_before: rows_done,
            force,
            sweep: Sweep::NotYet,
        }
    }

    /// The number of the page that is read next, in the counting of `held_from`.
    pub fn next_read(&self) -> u32 {
        self.held_from + self.held.len() as u32
    }

    /// A page that was read is mapped: it takes the place that was kept for it. Pages are mapped side by side, and released
    /// in the order of their keys.
    pub fn hold(&mut self, number: u32, page: Page) {
        if let Some(place) = number.checked_sub(self.held_from).and_then(|n| self.held.get_mut(n as usize)) {
            *place = Some(page);
        }
    }

    /// The next page in order, if it is mapped.
    pub fn front(&self) -> Option<&Page> {
        self.held.front()?.as_ref()
    }

    /// Takes the page that [`SnapshotRun::front`] showed.
    pub fn take_front(&mut self) -> Option<Page> {
        self.front()?;
        self.held_from += 1;
        self.held.pop_front()?
    }

    /// One record of a page is settled. Returns whether the pass over the rows has ended with it.
    pub fn settle(&mut self, chunk: u32) -> bool {
        let Some(first) = self.open.front().map(|c| c.number) else { return false };
        // A page of an earlier pass over the same table is no concern of this one.
        let Some(open) = chunk.checked_sub(first).and_then(|n| self.open.get_mut(n as usize)) else { return false };
        open.remaining = open.remaining.saturating_sub(1);
        self.advance()
    }

    /// Moves the cursor over the pages that are settled without a gap. Returns whether the pass has ended.
    pub fn advance(&mut self) -> bool {
        while self.open.front().is_some_and(|c| c.remaining == 0) {
            if let Some(done) = self.open.pop_front() {
                self.rows_done += done.rows;
                if done.next.is_some() {
                    self.cursor = done.next;
                }
            }
        }
        self.is_finished()
    }

    /// Whether all pages are read, released and settled.
    pub fn is_finished(&self) -> bool {
        self.is_read && !self.is_reading && self.held.is_empty() && self.open.is_empty()
    }
}

/// A mapped table.
#[derive(Debug)]
pub struct Table {
    /// `schema.name`, as in the checkpoint.
    pub name: String,
    /// What the connector reads of it.
    pub request: TableRequest,
    /// Its schema as of the last message from the tail.
    pub schema: Arc<TableSchema>,
    /// The rules it feeds, bound to `schema`.
    pub bound: Arc<Bound>,
    /// What it is doing.
    pub life: Life,
    /// The pass its snapshot belongs to.
    pub generation: u32,
    /// Counts the passes begun in this process, so that a late page of an earlier one is recognised.
    pub pass: u32,
    /// Number of the first page of the next pass: page numbers are never used twice.
    pub next_chunk: u32,
    /// Records of snapshot rows on their way, of this pass and of earlier ones.
    pub outstanding: usize,
    /// Rows of the last complete snapshot.
    pub rows: u64,
    /// Unix milliseconds of the end of the last complete snapshot.
    pub completed_at: Option<i64>,
    /// Rows by the source's own estimate.
    pub estimate: Option<u64>,
    /// Changes from the tail since the start.
    pub changes: u64,
    /// Whether the source's schema differs from the one that was mapped.
    pub drift: bool,
    /// Tables whose snapshot comes first, because this one's records refer to theirs.
    pub after: Vec<usize>,
}

impl Table {
    /// Whether its rows are still to be read, or being read.
    pub fn awaits_rows(&self) -> bool {
        matches!(self.life, Life::Pending { .. } | Life::Snapshot(_))
    }

    /// Whether the tail has to leave marks for the snapshot: pages may have been read before what the tail says now. What it
    /// says before the first page is read is in that page.
    pub fn needs_marks(&self) -> bool {
        matches!(self.life, Life::Snapshot(_))
    }

    /// What it is doing, as it is saved.
    pub fn phase(&self) -> TablePhase {
        match &self.life {
            Life::Pending { force } => TablePhase::Pending { force: *force },
            Life::Live => TablePhase::Live,
            Life::NeedsAttention { reason } => TablePhase::NeedsAttention { reason: reason.clone() },
            Life::Snapshot(run) => TablePhase::Snapshot {
                cursor: run.cursor.clone(),
                rows_done: run.rows_done,
                started_at: run.started_at,
                force: run.force,
            },
        }
    }

    /// Ends the running pass, if there is one; what is still on its way no longer counts for it.
    pub fn end_pass(&mut self) {
        if let Life::Snapshot(run) = &self.life {
            self.next_chunk = run.next_chunk;
        }
    }

    /// The running pass.
    pub fn run(&mut self) -> Option<&mut SnapshotRun> {
        match &mut self.life {
            Life::Snapshot(run) => Some(run),
            _ => None,
        }
    }
}
