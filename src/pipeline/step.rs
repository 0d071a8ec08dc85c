//! Durable steps: what becomes durable together, in which order, and what may happen only afterwards.
//!
//! Two clocks tick here.
//!
//! * A **step** writes one checkpoint (with marks, obligations, dead letters) atomically and flushes it. It is short and
//!   runs whenever changes wait to be sent: it records how far changes *may have been sent* (`dispatched`), and only
//!   then are they sent. Dead letters and obligations settle their tickets only after their step.
//! * A **ledger flush** runs beside it, about twice a second. Progress (the low watermark, scan cursors, obligations
//!   that were met) is noted when a flush *begins* and becomes part of a step only after that flush is durable: so the
//!   ledger is never behind the saved position, and what a sweep finds in it is complete.
//!
//! Only after a step does the source hear that it may forget (save, flush, then acknowledge).

use super::engine::{Engine, Event};
use super::table::Life;
use super::tail::Control;
use crate::command::{RepairReceipt, Reply};
use crate::loader::queue::Origin;
use crate::store::{Checkpoint, DeadLetter, Obligation, ObligationRef, RecordRef, Step, TablePhase, TableState};
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};
use tidemark_contract::{Position, RowKey};

/// Steps do not follow each other faster than this: each costs a disk flush.
const STEP_INTERVAL: Duration = Duration::from_millis(8);

/// The ledger is flushed at most this often.
const FLUSH_INTERVAL: Duration = Duration::from_millis(500);

/// A position that moved although nothing of ours did (other tables were written) is saved this often.
const IDLE_INTERVAL: Duration = Duration::from_secs(5);

/// A step or flush that failed (disk full) is tried again after this.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Versions reserved ahead of use, and renewed when half are used.
pub(super) const VERSION_RESERVE: u64 = 10_000_000;

/// Progress that is safe to save once the ledger is flushed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Progress {
    pub position: Option<Position>,
    pub tables: BTreeMap<String, TableState>,
}

/// What waits for the next step.
#[derive(Debug)]
pub(super) struct Steps {
    /// Keys of which the tail has spoken since the last step began.
    pub marks: Vec<(String, RowKey)>,
    pub put_obligations: Vec<Obligation>,
    pub remove_obligations: Vec<ObligationRef>,
    pub put_dead_letters: Vec<DeadLetter>,
    pub remove_dead_letters: Vec<RecordRef>,
    /// Settled once the step that is being collected is durable.
    pub settle_after: Vec<Origin>,
    /// Answers that promise durability: sent after the step that is being collected, and after the running one.
    pub answer_after: Vec<(Reply<RepairReceipt>, RepairReceipt)>,
    answering: Vec<(Reply<RepairReceipt>, RepairReceipt)>,
    /// Settled once the running step is durable.
    settling: Vec<Origin>,
    /// Records whose dead letters are in the running step.
    letters_in_step: Vec<RecordRef>,
    /// A step is wanted for its own sake.
    pub wanted: bool,
    /// The next step has to flush the ledger first: entries were made void whose old content must not come back.
    pub flush_first: bool,
    running: bool,
    begun: Instant,
    /// Obligations put since the last step began because of related rows: one is enough.
    related: HashSet<(String, RowKey)>,
    /// Obligations that are met, until the store has forgotten them.
    forgetting: HashSet<(String, RowKey, u64)>,
    /// Obligations met since the last flush began, and those that the running flush covers.
    pub met: Vec<ObligationRef>,
    met_flushing: Vec<ObligationRef>,
    flushing: Option<Progress>,
    flushed: Instant,
    /// Progress as of the last finished flush.
    pub safe: Progress,
    /// The last durable checkpoint.
    pub saved: Checkpoint,
    /// When the saved position or a cursor last moved (µs since 1970).
    pub moved_at: Option<i64>,
    not_before: Option<Instant>,
}

impl Steps {
    /// Nothing waits; `saved` is what the store holds.
    pub fn new(saved: Checkpoint) -> Self {
        let now = Instant::now();
        Self {
            marks: Vec::new(),
            put_obligations: Vec::new(),
            remove_obligations: Vec::new(),
            put_dead_letters: Vec::new(),
            remove_dead_letters: Vec::new(),
            settle_after: Vec::new(),
            answer_after: Vec::new(),
            answering: Vec::new(),
            settling: Vec::new(),
            letters_in_step: Vec::new(),
            wanted: false,
            flush_first: false,
            running: false,
            begun: now,
            related: HashSet::new(),
            forgetting: HashSet::new(),
            met: Vec::new(),
            met_flushing: Vec::new(),
            flushing: None,
            flushed: now,
            safe: Progress { position: saved.position.clone(), tables: saved.tables.clone() },
            saved,
            moved_at: None,
            not_before: None,
        }
    }

    /// Notes that an obligation is met.
    pub fn meet(&mut self, met: ObligationRef) {
        if let Some(stamp) = met.stamp {
            self.forgetting.insert((met.rule.clone(), met.key.clone(), stamp));
        }
        self.met.push(met);
    }

    /// Whether an obligation is met already, and only not forgotten by the store yet.
    pub fn is_met(&self, obligation: &Obligation) -> bool {
        !self.forgetting.is_empty()
            && self.forgetting.contains(&(obligation.rule.clone(), obligation.key.clone(), obligation.stamp))
    }

    /// Whether the step that is being collected has no such obligation yet; from now on it does.
    pub fn is_new_related(&mut self, name: &str, key: &RowKey) -> bool {
        self.related.insert((name.to_owned(), key.clone()))
    }

    /// Whether neither a step nor a flush is under way.
    pub fn is_quiet(&self) -> bool {
        !self.running && self.flushing.is_none()
    }

    /// Whether a dead letter of this record waits to be saved.
    pub fn has_letter(&self, rule: &str, key: &RowKey) -> bool {
        self.put_dead_letters.iter().any(|l| l.rule == rule && l.key == *key)
            || self.letters_in_step.iter().any(|l| l.rule == rule && l.key == *key)
    }

    fn has_content(&self) -> bool {
        self.wanted
            || !self.put_obligations.is_empty()
            || !self.remove_obligations.is_empty()
            || !self.put_dead_letters.is_empty()
            || !self.remove_dead_letters.is_empty()
            || self.safe.position != self.saved.position
            || self.safe.tables != self.saved.tables
    }
}

impl Engine {
    /// The states of the tables as they would be saved now.
    pub(super) fn progress(&self) -> Progress {
        let tables = self
            .tables
            .iter()
            .map(|table| {
                let rules = table.bound.iter().map(|(rule, _)| (rule.name.to_string(), rule.fingerprint)).collect();
                let state = TableState {
                    phase: table.phase(),
                    generation: table.generation,
                    rows: table.rows,
                    rules,
                    completed_at: table.completed_at,
                };
                (table.name.clone(), state)
            })
            .collect();
        Progress { position: self.tickets.low().cloned(), tables }
    }

    /// Begins a ledger flush if there is progress to save.
    pub(super) fn maybe_flush(&mut self, now: Instant) {
        let interval = if self.stopping { Duration::ZERO } else { FLUSH_INTERVAL };
        if self.steps.flushing.is_some()
            || now < self.steps.flushed + interval
            || self.steps.not_before.is_some_and(|at| now < at)
        {
            return;
        }
        let progress = self.progress();
        if progress == self.steps.safe && self.steps.met.is_empty() {
            return;
        }
        let only_idle = progress.tables == self.steps.safe.tables && self.settled_since_flush == 0;
        if only_idle && self.steps.met.is_empty() && now < self.steps.flushed + IDLE_INTERVAL && !self.stopping {
            return;
        }
        self.settled_since_flush = 0;
        self.steps.flushed = now;
        self.steps.flushing = Some(progress);
        self.steps.met_flushing = std::mem::take(&mut self.steps.met);
        let (store, events) = (self.store.clone(), self.events.clone());
        tokio::task::spawn_blocking(move || {
            let _ = events.send(Event::Flushed(store.ledger().flush_durable()));
        });
    }

    /// A ledger flush ended.
    pub(super) fn flushed(&mut self, result: Result<(), crate::store::StoreError>, now: Instant) {
        let progress = self.steps.flushing.take();
        let met = std::mem::take(&mut self.steps.met_flushing);
        match result {
            Ok(()) => {
                self.steps.safe = progress.unwrap_or_default();
                self.steps.remove_obligations.extend(met);
            }
            Err(error) => {
                self.steps.met.extend(met);
                self.settled_since_flush += 1;
                self.steps.not_before = Some(now + RETRY_INTERVAL);
                self.store_trouble(error);
            }
        }
    }

    /// Begins a step if something waits for one. Only between the source's transactions: everything taken so far is
    /// then at or before the tail's position.
    pub(super) fn maybe_step(&mut self, now: Instant) {
        if self.steps.running || self.steps.not_before.is_some_and(|at| now < at) {
            return;
        }
        let gate = !self.holds_back() && self.loader.queue.has_fresh();
        let low_on_versions = self.ceiling.saturating_sub(self.version) < VERSION_RESERVE / 2;
        if !(gate || low_on_versions || self.steps.has_content()) || now < self.steps.begun + STEP_INTERVAL {
            return;
        }
        if self.tickets.covered() != self.tickets.last() {
            return;
        }
        let is_gate_open = !self.holds_back();
        if is_gate_open {
            self.loader.queue.freeze();
        }
        let step = self.next_step(is_gate_open);
        self.steps.letters_in_step =
            step.put_dead_letters.iter().map(|l| RecordRef { rule: l.rule.clone(), key: l.key.clone() }).collect();
        self.steps.running = true;
        self.steps.begun = now;
        self.steps.wanted = false;
        self.steps.not_before = None;
        self.steps.settling.append(&mut self.steps.settle_after);
        self.steps.answering.append(&mut self.steps.answer_after);
        let flush_first = std::mem::take(&mut self.steps.flush_first);
        self.commit(step, flush_first);
    }

    fn next_step(&mut self, covers_head: bool) -> Step {
        self.steps.related.clear();
        let safe = &self.steps.safe;
        let saved = &self.steps.saved;
        let clear_marks = self
            .tables
            .iter()
            .filter(|table| match &table.life {
                // A pass begins only after the step that saves its generation: the marks of the one before would make it
                // silent about rows that it has to see, and the sweep would take them for gone.
                Life::Pending { .. } => {
                    let has = |tables: &BTreeMap<String, TableState>| {
                        tables.get(&table.name).is_some_and(|state| state.generation == table.generation)
                    };
                    has(&safe.tables) && !has(&saved.tables)
                }
                Life::Snapshot(_) => false,
                Life::Live | Life::NeedsAttention { .. } => {
                    let live = |tables: &BTreeMap<String, TableState>| {
                        tables.get(&table.name).is_some_and(|state| state.phase == TablePhase::Live)
                    };
                    live(&safe.tables) && !live(&saved.tables)
                }
            })
            .map(|table| table.name.clone())
            .collect();
        let dispatched = if covers_head { self.tickets.head().cloned() } else { self.steps.saved.dispatched.clone() };
        Step {
            checkpoint: Checkpoint {
                position: safe.position.clone(),
                dispatched,
                dispatched_unknown: self.steps.saved.dispatched_unknown && !covers_head,
                next_version: self.version + VERSION_RESERVE,
                generation: self.generation,
                tables: safe.tables.clone(),
                ..self.steps.saved.clone()
            },
            clear_marks,
            add_marks: std::mem::take(&mut self.steps.marks),
            put_obligations: std::mem::take(&mut self.steps.put_obligations),
            remove_obligations: std::mem::take(&mut self.steps.remove_obligations),
            put_dead_letters: std::mem::take(&mut self.steps.put_dead_letters),
            remove_dead_letters: std::mem::take(&mut self.steps.remove_dead_letters),
        }
    }

    fn commit(&mut self, step: Step, flush_first: bool) {
        let (store, events) = (self.store.clone(), self.events.clone());
        tokio::task::spawn_blocking(move || {
            let flushed = if flush_first { store.ledger().flush_durable() } else { Ok(()) };
            let result = flushed.and_then(|()| store.commit(&step));
            let _ = events.send(Event::Stepped(Box::new(step), flush_first, result));
        });
    }

    /// A step ended: what waited for it happens now.
    pub(super) fn stepped(&mut self, step: Step, flush_first: bool, result: Result<(), crate::store::StoreError>) {
        if let Err(error) = result {
            // Nothing has moved. The same step is written again: what it carries must not be lost.
            self.store_trouble(error);
            if self.failed.is_none() {
                let (store, events) = (self.store.clone(), self.events.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(RETRY_INTERVAL).await;
                    let again = tokio::task::spawn_blocking(move || {
                        let flushed = if flush_first { store.ledger().flush_durable() } else { Ok(()) };
                        let result = flushed.and_then(|()| store.commit(&step));
                        let _ = events.send(Event::Stepped(Box::new(step), flush_first, result));
                    });
                    let _ = again.await;
                });
            }
            return;
        }
        self.recovered("store");
        for gone in &step.remove_obligations {
            if let Some(stamp) = gone.stamp {
                self.steps.forgetting.remove(&(gone.rule.clone(), gone.key.clone(), stamp));
            }
        }
        if step.put_obligations.iter().any(|o| o.reason == crate::store::Reason::Related) {
            self.reread.hurry();
            self.fan_out.hurry();
        }
        let now_us = super::unix_us();
        let moved =
            step.checkpoint.position != self.steps.saved.position || step.checkpoint.tables != self.steps.saved.tables;
        if moved {
            self.steps.moved_at = Some(now_us);
        }
        if step.checkpoint.position != self.steps.saved.position
            && let (Some(tail), Some(position)) = (&self.tail, &step.checkpoint.position)
        {
            tail.control(Control::Acknowledge(position.clone()));
        }
        self.ceiling = step.checkpoint.next_version;
        self.steps.saved = Checkpoint { saved_at: now_us, ..step.checkpoint };
        self.steps.running = false;
        self.steps.letters_in_step.clear();
        for (entity, replaced) in self.loader.queue.thaw() {
            self.counts.coalesced[usize::from(entity)][usize::from(replaced.is_delete)] += 1;
        }
        for (reply, receipt) in std::mem::take(&mut self.steps.answering) {
            let _ = reply.send(Ok(receipt));
        }
        for origin in std::mem::take(&mut self.steps.settling) {
            self.settle(origin);
        }
    }

    /// Nothing waits for a step or a flush any more (when stopping).
    pub(super) fn is_saved(&self) -> bool {
        self.steps.is_quiet()
            && !self.steps.has_content()
            && self.steps.met.is_empty()
            && self.steps.settle_after.is_empty()
            && self.progress() == self.steps.safe
    }
}
