//! Rows that are read again by key: the obligations.
//!
//! One batch at a time: due obligations of one table are fetched in one round trip, then *held*, like a snapshot page,
//! until the tail has reached the read's barrier; so what is sent is never newer than what the tail has already told and
//! never overtakes it. What the tail says of a held key meanwhile is remembered and wins: a delete or a complete row
//! makes the fetched one pointless (the tail's own change is queued already), a partial row is laid over the fetched one
//! (its columns are as new or newer; a column it does not carry did not change since the obligation was taken on, or an
//! event in between would have carried it).

use super::assembly::{Item, Purpose};
use super::capture::{Trouble, removal, unknown_row};
use super::engine::{Engine, Event};
use crate::document::Document;
use crate::loader::queue::{LeftOut, Op, Origin};
use crate::loader::{Ledger as _, NOTED};
use crate::mapping::{Applied, BoundRule, Missing, Removal, Rule};
use crate::store::{Obligation, ObligationRef, Reason};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_contract::{ChangeEvent, ChangeOp, FetchedRows, Result, Row, RowKey};

/// Rows fetched at once.
const BATCH: usize = 500;

/// The store is asked for due obligations this often when there were none.
const POLL: Duration = Duration::from_millis(250);

/// What the tail has said of a key while its row was being fetched or held.
#[derive(Debug)]
enum Touch {
    /// Everything there is to know.
    Whole,
    /// Part of the row.
    Part(Row),
}

#[derive(Debug)]
struct Batch {
    table: usize,
    obligations: Vec<Obligation>,
    keys: Vec<RowKey>,
    fetched: Option<FetchedRows>,
    touched: HashMap<RowKey, Touch>,
}

/// An obligation whose record is on its way.
#[derive(Debug)]
struct Underway {
    obligation: ObligationRef,
    remaining: usize,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Reread {
    batch: Option<Batch>,
    underway: HashMap<u64, Underway>,
    /// Rules and keys of what is underway.
    underway_keys: HashSet<(String, RowKey)>,
    next: u64,
    turn: usize,
    poll_at: Option<Instant>,
    /// When a failed fetch is tried again.
    retry_at: Option<Instant>,
    /// The store had due obligations when it was last asked.
    found: bool,
}

impl Reread {
    /// Look for due obligations at once.
    pub fn hurry(&mut self) {
        self.poll_at = None;
    }

    /// Whether obligations are due.
    pub fn has_due(&self) -> bool {
        self.found || !self.underway.is_empty()
    }

    /// An obligation is taken up: so many changes of records have to be settled.
    fn take_up(&mut self, number: u64, obligation: ObligationRef, remaining: usize) {
        self.underway_keys.insert((obligation.rule.clone(), obligation.key.clone()));
        self.underway.insert(number, Underway { obligation, remaining });
    }

    /// An obligation that was taken up stays due.
    pub fn forget(&mut self, number: u64) -> Option<ObligationRef> {
        let Underway { obligation, .. } = self.underway.remove(&number)?;
        self.underway_keys.remove(&(obligation.rule.clone(), obligation.key.clone()));
        Some(obligation)
    }

    /// Whether rows are held until the tail has reached their barrier.
    pub fn is_holding(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| batch.fetched.is_some())
    }

    /// Whether it is being served.
    pub fn is_underway(&self, obligation: &Obligation) -> bool {
        !self.underway.is_empty() && self.underway_keys.contains(&(obligation.rule.clone(), obligation.key.clone()))
    }
}

impl Engine {
    /// Remembers what the tail says of a key that is being read again.
    pub(super) fn touch(&mut self, table: usize, key: &RowKey, event: &ChangeEvent) {
        let Some(batch) = self.reread.batch.as_mut().filter(|batch| batch.table == table) else { return };
        if !batch.keys.contains(key) {
            return;
        }
        let touch = if event.op == ChangeOp::Delete || !event.row.is_partial() {
            Touch::Whole
        } else {
            match batch.touched.remove(key) {
                // An insert after a delete is whole; parts add up.
                Some(Touch::Whole) => Touch::Whole,
                Some(Touch::Part(before)) => Touch::Part(event.row.filled_from(&before)),
                None => Touch::Part(event.row.clone()),
            }
        };
        batch.touched.insert(key.clone(), touch);
    }

    /// Begins to fetch due obligations, if none are being fetched.
    pub(super) fn maybe_reread(&mut self, now: Instant) {
        if self.reread.batch.is_some()
            || self.folding.is_some()
            || self.stopping
            || self.tail.is_none()
            || self.reread.poll_at.is_some_and(|at| now < at)
            || self.reread.retry_at.is_some_and(|at| now < at)
            || self.window_is_full()
            || self.assembly.is_full()
        {
            return;
        }
        let now_ms = i64::try_from(super::unix_ms()).unwrap_or(i64::MAX);
        for step in 0..self.tables.len() {
            let index = (self.reread.turn + step) % self.tables.len();
            let table = &self.tables[index];
            if matches!(table.life, super::table::Life::NeedsAttention { .. }) {
                continue;
            }
            let due = match self.store.due_obligations(&table.name, now_ms, BATCH + self.reread.underway.len()) {
                Ok(due) => due,
                Err(error) => return self.store_trouble(error),
            };
            let obligations: Vec<_> =
                due.into_iter().filter(|o| !self.reread.is_underway(o) && !self.steps.is_met(o)).take(BATCH).collect();
            if obligations.is_empty() {
                continue;
            }
            self.reread.found = true;
            self.reread.turn = index + 1;
            return self.fetch(index, obligations);
        }
        self.reread.found = false;
        self.reread.poll_at = Some(now + POLL);
    }

    fn fetch(&mut self, table: usize, obligations: Vec<Obligation>) {
        let mut keys: Vec<RowKey> = obligations.iter().map(|o| o.key.clone()).collect();
        keys.sort();
        keys.dedup();
        let request = self.tables[table].request.clone();
        self.reread.batch =
            Some(Batch { table, obligations, keys: keys.clone(), fetched: None, touched: HashMap::new() });
        let (connector, events) = (self.connector.clone(), self.events.clone());
        tokio::spawn(async move {
            let _ = events.send(Event::Fetched(connector.fetch_rows(&request, &keys).await));
        });
    }

    /// A fetch ended.
    pub(super) fn fetched(&mut self, result: Result<FetchedRows>, now: Instant) {
        match result {
            Ok(rows) => {
                self.recovered("source_read");
                if let Some(batch) = &mut self.reread.batch {
                    batch.fetched = Some(rows);
                }
            }
            Err(error) => {
                self.reread.batch = None;
                self.reread.retry_at = Some(now + Duration::from_secs(1));
                self.source_trouble("source_read", error);
            }
        }
    }

    /// Sends what was fetched once the tail has reached the read's barrier.
    pub(super) fn release_reread(&mut self, now: Instant) {
        if self.folding.is_some() || self.tickets.covered() != self.tickets.last() {
            return;
        }
        let (Some(head), Some(batch)) = (self.tickets.head().cloned(), &self.reread.batch) else { return };
        let Some(fetched) = &batch.fetched else { return };
        if !matches!(self.connector.covers(&head, &fetched.barrier), Ok(true)) {
            return;
        }
        let Some(mut batch) = self.reread.batch.take() else { return };
        let Some(fetched) = batch.fetched.take() else { return };
        let rows: HashMap<&RowKey, &Option<Row>> = batch.keys.iter().zip(&fetched.rows).collect();
        let Some(bound) = self.bound_to(batch.table, &fetched.schema) else { return };
        let is_same_schema = *fetched.schema == *self.tables[batch.table].schema;
        for obligation in batch.obligations {
            let met = ObligationRef {
                rule: obligation.rule.clone(),
                key: obligation.key.clone(),
                stamp: Some(obligation.stamp),
            };
            let program = bound.iter().find(|(rule, _)| *rule.name == *obligation.rule);
            let touch = batch.touched.get(&obligation.key);
            if matches!(touch, Some(Touch::Part(_))) && !is_same_schema {
                // The two rows have different columns: it stays due, and is read again.
                continue;
            }
            let (Some((rule, program)), false) = (program, matches!(touch, Some(Touch::Whole))) else {
                // The rule is gone from the mapping, or the tail has told everything since: its change is queued.
                self.steps.meet(met);
                continue;
            };
            let fetched_row = rows.get(&obligation.key).and_then(|row| row.as_ref());
            let row = match (fetched_row, touch) {
                (Some(row), Some(Touch::Part(part))) => Some(part.filled_from(row)),
                (Some(row), _) => Some(row.clone()),
                (None, _) => None,
            };
            let number = self.reread.next;
            self.reread.next += 1;
            self.reread.take_up(number, met.clone(), 1);
            let record = row.map(|row| (program.apply(&row), row));
            if let (Some((Applied::NeedsRow, row)), true) = (&record, rule.relations.is_some()) {
                self.assembly.push(Item {
                    table: batch.table,
                    rule: rule.clone(),
                    program: program.clone(),
                    schema: fetched.schema.clone(),
                    key: obligation.key.clone(),
                    row: row.clone(),
                    origin: Origin::Reread(number),
                    purpose: Purpose::Obligation { obligation: Box::new(obligation), met, number },
                    overtaken: false,
                });
                continue;
            }
            let (record, row) = record.unzip();
            let record = row.as_ref().zip(record);
            self.resend(rule, program, obligation, met, record, fetched.schema.columns.len(), number, now);
        }
        self.reread.hurry();
    }

    /// Queues what a rule makes of a row that was read again; without a row, its record goes.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn resend(
        &mut self,
        rule: &Arc<Rule>,
        program: &BoundRule,
        obligation: Obligation,
        met: ObligationRef,
        record: Option<(&Row, Applied)>,
        width: usize,
        number: u64,
        now: Instant,
    ) {
        let origin = Origin::Reread(number);
        let key = obligation.key.clone();
        // The tail has told everything else about this row: only what was left out is filled in.
        let only_fills = matches!(obligation.reason, Reason::LeftOut { .. });
        if only_fills && !matches!(record, Some((_, Applied::Upsert { .. } | Applied::Rejected(_) | Applied::NeedsRow)))
        {
            self.reread.forget(number);
            self.steps.meet(met);
            return;
        }
        let is_older = obligation.since < self.started_ms && !only_fills;
        let force = obligation.force || is_older || self.was_folded(rule, &key);
        let former: Option<Box<str>> =
            obligation.external_id.as_deref().map(Into::into).or_else(|| self.known_as(rule, &key));
        let mut writes = 0;
        // A record that is no longer this row's goes, unless nobody ever saw it.
        let mut leave = |engine: &mut Engine, id: Box<str>, action: Removal, row: &Row| {
            let known = engine.loader.ledger().hash(rule.id, &id).is_some() || engine.loader.ledger().is_incomplete();
            match removal(action, program, row) {
                Ok(Some(op)) if known || force => {
                    engine.queue(rule, key.clone(), id, op, origin, true, now);
                    writes += 1;
                }
                Ok(_) => {}
                Err(rejection) => {
                    engine.reject_row(rule, &key, rejection, origin);
                    writes += 1;
                }
            }
        };
        match record {
            None => {
                if let Some(id) = former {
                    leave(self, id, rule.on_delete, &unknown_row(width));
                }
                self.clear_dead_letter(rule, &key);
            }
            Some((row, Applied::Outside { external_id })) => {
                if let Some(id) = external_id.or(former) {
                    leave(self, id, rule.on_leave, row);
                }
                self.clear_dead_letter(rule, &key);
            }
            Some((row, Applied::Upsert { external_id, mut document, mut references })) => {
                if let Reason::Circle { entity, external_id } = &obligation.reason {
                    for reference in references.iter_mut().filter(|r| r.missing == Missing::Wait) {
                        if *reference.entity == **entity && *reference.external_id == **external_id {
                            reference.missing = Missing::Later;
                        }
                    }
                }
                let mut trouble = Trouble {
                    since_ms: u64::try_from(obligation.since).unwrap_or(0),
                    attempts: u16::try_from(obligation.attempts).unwrap_or(u16::MAX),
                    left_out: None,
                    noted: false,
                };
                if only_fills {
                    trouble = Trouble::none();
                    trouble.left_out = Some(self.leave_out(&mut document, &mut references, obligation.attempts + 1));
                }
                let former = former.filter(|_| !only_fills);
                let known = self.known_as(rule, &key).filter(|id| former.as_ref() != Some(id) && !only_fills);
                for id in [former, known].into_iter().flatten().filter(|id| *id != external_id) {
                    leave(self, id, Removal::Delete, row);
                }
                let op = Op::Upsert(document, references);
                self.queue_since(rule, key, external_id, op, origin, force, trouble, now);
                writes += 1;
            }
            Some((_, Applied::Rejected(rejection))) => {
                self.reject_row(rule, &key, rejection, origin);
                writes += 1;
            }
            Some((_, Applied::NeedsRow)) => {
                tracing::error!(table = %rule.table, "the connector delivered an incomplete row; it is read again later");
                let external_id = former;
                let since = u64::try_from(obligation.since).unwrap_or(0);
                self.reread.forget(number);
                self.put_obligation(rule, &key, external_id, obligation.reason, obligation.attempts + 1, since);
                return;
            }
        }
        if writes == 0 {
            self.reread.forget(number);
            self.steps.meet(met);
        } else {
            self.reread.take_up(number, met, writes);
        }
    }

    /// Leaves out again the references to parents of ours that have not landed yet: the CRM would refuse them once more.
    fn leave_out(
        &self,
        document: &mut Document,
        references: &mut Vec<crate::mapping::Reference>,
        attempts: u32,
    ) -> Box<LeftOut> {
        let mut left_out = LeftOut { parents: Vec::new(), attempts };
        references.retain(|reference| {
            let mut feeding = self.rules.iter().filter(|rule| rule.entity == reference.entity).peekable();
            let is_ours = feeding.peek().is_some();
            let ledger = self.loader.ledger();
            let has_landed =
                feeding.any(|rule| ledger.hash(rule.id, &reference.external_id).is_some_and(|h| h != NOTED));
            if reference.missing != Missing::Null || !is_ours || has_landed || ledger.is_incomplete() {
                return true;
            }
            let Some(without) = document.with_null(&reference.field) else { return true };
            *document = without;
            left_out.parents.push((reference.entity.clone(), reference.external_id.clone()));
            false
        });
        Box::new(left_out)
    }

    /// A record that was read again is settled.
    pub(super) fn reread_settled(&mut self, number: u64) {
        let Some(underway) = self.reread.underway.get_mut(&number) else { return };
        underway.remaining = underway.remaining.saturating_sub(1);
        if underway.remaining == 0
            && let Some(done) = self.reread.forget(number)
        {
            self.steps.meet(done);
        }
    }
}
