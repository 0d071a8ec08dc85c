//! The report that everybody reads, built by the engine a few times a second, and the counters that go with it.

use super::engine::Engine;
use super::table::{Life, Table};
use super::unix_us;
use crate::loader::pacing::Wait;
use crate::metrics::{RecordOp, RecordOutcome};
use crate::status::{
    CheckpointStatus, DeliveryStatus, EntityStatus, LagStatus, Meter, Moment, RetentionStatus, SourceStatus, State,
    StatusReport, TablePhase, TableStatus,
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tidemark_contract::ChangeOp;

/// An idle answer younger than this says that the source has nothing more.
const IDLE_FRESH: Duration = Duration::from_secs(5);

/// What the reports are made of besides the engine's own state.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    changes: Meter,
    rows: Meter,
    settled: Meter,
    state: Option<(State, Moment)>,
    begun: Option<Instant>,
    /// Dead letters in the store, of all entities.
    pub dead_letters: u64,
}

impl Engine {
    /// Hands the counts over to the metrics and publishes a report.
    pub(super) fn report(&mut self, now: Instant, last: bool) {
        self.reported_at = Some(now);
        self.count();
        let (day, used) = self.loader.pacing_mut().used_today();
        if let Some(Err(error)) = self.daily_use.as_mut().map(|file| file.write(day, used)) {
            tracing::warn!(%error, "the requests of the day could not be noted");
        }
        let letters = self.store.dead_letter_counts();
        self.reporter.dead_letters = letters.values().sum();
        let state = self.state(now, last);
        let since = match self.reporter.state {
            Some((old, since)) if old == state => since,
            _ => {
                let since = Moment(unix_us());
                self.reporter.state = Some((state, since));
                tracing::info!(state = state.as_str(), "state");
                since
            }
        };
        let begun = *self.reporter.begun.get_or_insert(now);
        let previous = self.outlet.board.latest();
        let rates = (self.rates.changes, self.rates.snapshot_rows, self.rates.settled);
        let report = StatusReport {
            state,
            since: Some(since),
            reported_at: Some(Moment(unix_us())),
            uptime_seconds: now.duration_since(begun).as_secs_f64(),
            source: SourceStatus {
                engine: self.connector.name().into(),
                received: self.tickets.head().map(ToString::to_string),
                changes_per_second: self.reporter.changes.rate(rates.0, now),
                snapshot_rows_per_second: self.reporter.rows.rate(rates.1, now),
            },
            checkpoint: CheckpointStatus {
                saved_at: Some(Moment(self.steps.saved.saved_at)),
                moved_at: self.steps.moved_at.map(Moment),
                position: self.steps.saved.position.as_ref().map(ToString::to_string),
                dispatched: self.steps.saved.dispatched.as_ref().map(ToString::to_string),
            },
            lag: self.lag_status(now),
            retention: RetentionStatus {
                seconds: self.lag.retention.map(|r| r.as_secs_f64()),
                retained_bytes: self.lag.retained_bytes,
                bytes_left: self.lag.retention_bytes_left,
            },
            delivery: DeliveryStatus {
                records_per_second: self.reporter.settled.rate(rates.2, now),
                requests_in_flight: self.loader.in_flight() as u64,
                records_in_flight: self.loader.records_in_flight() as u64,
                backpressure: self.backpressure().min(1.0),
                throttled_until: match self.loader.waiting() {
                    Some(Wait::Until(until)) if self.loader.failures() > 0 => {
                        let wait = until.saturating_duration_since(now);
                        Some(Moment(unix_us().saturating_add(i64::try_from(wait.as_micros()).unwrap_or(0))))
                    }
                    _ => None,
                },
                rereads: self.store.owed(),
            },
            tables: self.tables.iter().map(|table| table_status(table, now)).collect(),
            entities: self.entity_statuses(&letters),
            last_error: self.last_error.clone(),
            ..previous
        };
        self.outlet.board.publish(report);
    }

    fn count(&mut self) {
        for (index, table) in self.tables.iter().enumerate() {
            for op in [ChangeOp::Insert, ChangeOp::Update, ChangeOp::Delete, ChangeOp::Truncate] {
                let n = std::mem::take(&mut self.counts.changes[index][op as usize]);
                if n > 0 {
                    self.metrics.changes(&table.name, op.as_str(), n);
                }
            }
            let rows = std::mem::take(&mut self.counts.snapshot_rows[index]);
            if rows > 0 {
                self.metrics.snapshot_rows(&table.name, rows);
            }
        }
        for entity in 0..self.counts.delivered.len() {
            let name = self.loader.entity_name(entity as u16);
            let outcomes = [
                (RecordOutcome::Delivered, &mut self.counts.delivered[entity]),
                (RecordOutcome::Suppressed, &mut self.counts.suppressed[entity]),
                (RecordOutcome::Coalesced, &mut self.counts.coalesced[entity]),
            ];
            for (outcome, counts) in outcomes {
                for (op, n) in [RecordOp::Upsert, RecordOp::Delete].into_iter().zip(std::mem::take(counts)) {
                    if n > 0 {
                        self.metrics.records(name, op, outcome, n);
                    }
                }
            }
        }
    }

    fn state(&self, _now: Instant, last: bool) -> State {
        if self.failed.is_some() || (last && !self.stopping) {
            State::Failed
        } else if self.stopping {
            State::Stopping
        } else if self.loader.is_paused() {
            State::Paused
        } else if self.tail.is_none() || self.troubles.contains_key("source") {
            State::WaitingForSource
        } else if self.tail_is_new {
            State::Starting
        } else if self.loader.failures() > 0 || self.loader.waiting() == Some(Wait::Quota) {
            State::WaitingForCrm
        } else if self.tables.iter().any(|t| matches!(t.life, Life::NeedsAttention { .. })) {
            State::NeedsAttention
        } else if self.tables.iter().any(Table::awaits_rows) {
            State::Snapshot
        } else {
            State::Live
        }
    }

    /// How far the CRM is behind, by the source's commit times; never negative, whatever the clocks say.
    fn lag_status(&self, now: Instant) -> LagStatus {
        let pending = self.loader.queue.records() as u64 + self.steps.settle_after.len() as u64;
        let seconds = match self.tickets.oldest_commit().or(self.commit_time) {
            Some(committed_at) => Some((unix_us().saturating_sub(committed_at)).max(0) as f64 / 1e6),
            // Nothing is waiting here; whether the source has more is known only from a fresh answer.
            None if self.idle_at.is_some_and(|at| now.duration_since(at) < IDLE_FRESH) && self.folding.is_none() => {
                Some(0.0)
            }
            None => None,
        };
        let pending_bytes = match (seconds, pending) {
            (Some(0.0), 0) => Some(0),
            _ => self.lag.pending_bytes,
        };
        LagStatus { seconds, pending_bytes, pending_changes: pending }
    }

    fn entity_statuses(&self, letters: &BTreeMap<String, u64>) -> Vec<EntityStatus> {
        let waiting = self.store.obligation_counts();
        self.loader
            .entity_names()
            .map(|name| {
                let rules = || self.rules.iter().filter(|rule| *rule.entity == *name);
                EntityStatus {
                    dead_letters: letters.get(name).copied().unwrap_or(0),
                    parked: rules()
                        .map(|rule| waiting.get(&(rule.name.to_string(), "waiting_for_parent")).copied().unwrap_or(0))
                        .sum::<u64>()
                        + self.loader.parked_of(name),
                    ledger: rules().map(|rule| self.loader.ledger().count(rule.id)).sum(),
                    schema_drift: self.watch.drift.contains_key(name),
                    ..self.metrics.entity(name)
                }
            })
            .collect()
    }
}

fn table_status(table: &Table, now: Instant) -> TableStatus {
    let mut status = TableStatus {
        name: table.name.clone(),
        rows_done: table.rows,
        rows_estimate: table.estimate,
        changes: table.changes,
        schema_drift: table.drift,
        ..TableStatus::default()
    };
    match &table.life {
        Life::Pending { .. } => {
            status.phase = TablePhase::Waiting;
            status.rows_done = 0;
        }
        Life::Live => status.phase = TablePhase::Live,
        Life::NeedsAttention { reason } => {
            status.phase = TablePhase::NeedsAttention;
            status.attention = Some(reason.clone());
        }
        Life::Snapshot(run) => {
            status.phase = if run.is_read { TablePhase::CatchingUp } else { TablePhase::Snapshot };
            status.rows_done = run.rows_done;
            let seconds = now.duration_since(run.begun).as_secs_f64();
            let done_here = run.rows_done.saturating_sub(run.rows_before);
            if seconds > 0.5 && done_here > 0 {
                status.rows_per_second = done_here as f64 / seconds;
                status.eta_seconds = table
                    .estimate
                    .map(|estimate| estimate.saturating_sub(run.rows_done) as f64 / status.rows_per_second);
            }
        }
    }
    status
}
