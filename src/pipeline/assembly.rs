//! Records that show related rows are put together here.
//!
//! A row that makes such a record waits in one queue, whatever brought it: a page of a snapshot once it is released, or
//! an obligation once its row was read. Batches are taken from the front, the related rows are gathered
//! ([`crate::gather`]), and the records go to the loader in the queue's order, one batch after the other. So of two
//! readings of one record the later one also began later, and cannot be overtaken (P2).
//!
//! The record may still be put together from two moments: the related rows are read after the row, each table by its own
//! statement. Every change of one of them comes through the tail, puts an obligation on the record (see `related`), and
//! the reading that serves it begins after the tail has told of the change, which a read by key then sees (the
//! contract's promise). So the last reading of a record is later than the last change of what it shows (P3).
//!
//! When the tail speaks of the row itself while it waits here or is being put together, what was read is dropped: a
//! removal is queued already, and must not be followed by an older record; any other change has put an obligation.

use super::engine::{Engine, Event};
use crate::gather::{GatherError, Gatherer};
use crate::loader::queue::Origin;
use crate::mapping::{Applied, BoundRule, Rule};
use crate::store::{Obligation, ObligationRef};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_contract::{ErrorKind, Row, RowKey, TableSchema};

/// Records put together at once.
const BATCH: usize = 500;

/// So many rows may wait; more are not taken from pages and obligations.
const WAITING: usize = 4_000;

/// What a row is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// A page of a snapshot; whether it is sent even if the ledger says that nothing changed.
    Page { force: bool },
    /// An obligation.
    Obligation { obligation: Box<Obligation>, met: ObligationRef, number: u64 },
}

/// A row that makes a record.
#[derive(Debug)]
pub(super) struct Item {
    pub table: usize,
    pub rule: Arc<Rule>,
    pub program: BoundRule,
    pub schema: Arc<TableSchema>,
    pub key: RowKey,
    pub row: Row,
    pub origin: Origin,
    pub purpose: Purpose,
    /// The tail has spoken of the row since.
    pub overtaken: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Assembly {
    queue: VecDeque<Item>,
    running: Vec<Item>,
    /// Keys that wait or are being put together, by table.
    keys: HashSet<(usize, RowKey)>,
    retry_at: Option<Instant>,
}

impl Assembly {
    /// Whether no more rows should be brought.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= WAITING
    }

    /// Adds a row.
    pub fn push(&mut self, item: Item) {
        self.keys.insert((item.table, item.key.clone()));
        self.queue.push_back(item);
    }

    /// The tail has spoken of a row.
    pub fn overtake(&mut self, table: usize, key: &RowKey) {
        if self.keys.is_empty() || !self.keys.contains(&(table, key.clone())) {
            return;
        }
        for item in self.queue.iter_mut().chain(&mut self.running) {
            item.overtaken |= item.table == table && item.key == *key;
        }
    }
}

impl Engine {
    /// Begins to gather for the next rows, if none are being gathered for.
    pub(super) fn assemble(&mut self, now: Instant) {
        let waits = self.assembly.retry_at.is_some_and(|at| now < at);
        if !self.assembly.running.is_empty() || waits || self.stopping || self.window_is_full() {
            return;
        }
        let Some(first) = self.assembly.queue.front() else {
            self.assembly.keys.clear();
            return;
        };
        let (rule, schema) = (first.rule.clone(), first.schema.clone());
        let alike = self.assembly.queue.iter().take(BATCH);
        let alike = alike.take_while(|i| Arc::ptr_eq(&i.rule, &rule) && *i.schema == *schema).count();
        self.assembly.running = self.assembly.queue.drain(..alike).collect();
        let rows: Vec<Row> = self.assembly.running.iter().map(|item| item.row.clone()).collect();
        let (connector, requests, events) = (self.connector.clone(), self.requests.clone(), self.events.clone());
        tokio::spawn(async move {
            let gatherer = Gatherer::new(&*connector, &requests);
            let _ = events.send(Event::Gathered(gatherer.records(&rule, &schema, &rows).await));
        });
    }

    /// The records of the running batch are there.
    pub(super) fn gathered(&mut self, result: Result<Vec<Applied>, GatherError>, now: Instant) {
        let items = std::mem::take(&mut self.assembly.running);
        let records = match result {
            Ok(records) => {
                self.recovered("source_read");
                records
            }
            Err(error) => return self.not_gathered(items, error, now),
        };
        for (item, record) in items.into_iter().zip(records) {
            self.assembly.keys.remove(&(item.table, item.key.clone()));
            if item.overtaken {
                self.put_down(item);
                continue;
            }
            let Item { rule, program, key, row, origin, purpose, schema, .. } = item;
            match purpose {
                Purpose::Page { force } => {
                    if !self.snapshot_row(&rule, &program, &key, record, Some(&row), origin, force, now) {
                        self.settle(origin);
                    }
                }
                Purpose::Obligation { obligation, met, number } => {
                    let width = schema.columns.len();
                    self.resend(&rule, &program, *obligation, met, Some((&row, record)), width, number, now);
                }
            }
        }
        // Another row with the same key may still wait.
        let waiting = &self.assembly.queue;
        self.assembly.keys.extend(waiting.iter().map(|item| (item.table, item.key.clone())));
        self.reread.hurry();
    }

    fn not_gathered(&mut self, items: Vec<Item>, error: GatherError, now: Instant) {
        let table = items.first().map(|item| item.table);
        match error {
            GatherError::Source(error) => match error.kind {
                ErrorKind::Unreachable | ErrorKind::Cancelled => {
                    self.source_trouble("source_read", error);
                    self.assembly.retry_at = Some(now + Duration::from_secs(1));
                    items.into_iter().rev().for_each(|item| self.assembly.queue.push_front(item));
                    return;
                }
                ErrorKind::PositionLost => self.position_lost = Some(error),
                ErrorKind::AuthRefused | ErrorKind::Bug => self.fail(error.into()),
                _ => {
                    if let Some(table) = table {
                        self.needs_attention(table, format!("its related rows cannot be read: {error}"));
                    }
                }
            },
            GatherError::Bind(error) => {
                if let Some(table) = table {
                    self.needs_attention(table, format!("related rows: {error}; adapt the mapping and restart"));
                }
            }
        }
        for item in items {
            self.assembly.keys.remove(&(item.table, item.key.clone()));
            match item.purpose {
                // The pass has ended with its table.
                Purpose::Page { .. } => self.settle(item.origin),
                // It stays due.
                Purpose::Obligation { number, .. } => drop(self.reread.forget(number)),
            }
        }
    }

    /// A row whose record will come of what the tail has told since.
    fn put_down(&mut self, item: Item) {
        match item.purpose {
            Purpose::Page { .. } => self.settle(item.origin),
            Purpose::Obligation { number, .. } => self.reread_settled(number),
        }
    }
}
