//! How the daemon is, as one value: [`StatusReport`].
//!
//! The pipeline builds a report several times a second and publishes it through a [`Board`]. `tidemark status`, the
//! status page, `/readyz` and every gauge of `/metrics` are rendered from that same value, so that they cannot say
//! different things (P11). A report holds counts, names of tables and entities, and positions; never a row value or a
//! key (P8).

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// Version of the JSON form. Fields may be added within a version; a field that changes its meaning raises it.
pub const SCHEMA: u32 = 1;

/// The pipeline's loop turns at least this often, whatever the source and the CRM do.
pub const LIVE_WINDOW: Duration = Duration::from_secs(30);

/// Work that makes no progress for longer than this is not "ready".
pub const READY_WINDOW: Duration = Duration::from_secs(60);

/// A moment by the wall clock, in microseconds since 1970; RFC 3339 in JSON.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Moment(pub i64);

impl Moment {
    /// The present.
    pub fn now() -> Self {
        let micros = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
        Self(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    /// Seconds since 1970.
    pub fn as_seconds(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// Time that has passed since then; zero for a moment in the future.
    pub fn elapsed(self) -> Duration {
        Duration::from_micros(u64::try_from(Self::now().0.saturating_sub(self.0)).unwrap_or(0))
    }
}

/// RFC 3339 in UTC, to the millisecond.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(at) => write!(f, "{at:.3}"),
            Err(_) => f.write_str("?"),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        let at: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(at.as_microsecond()))
    }
}

/// What the daemon is doing as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Opening the store, checking both sides.
    #[default]
    Starting,
    /// At least one table is being read from its beginning; the tail runs beside it.
    Snapshot,
    /// Changes are followed as they happen.
    Live,
    /// Paused by an operator: nothing is sent.
    Paused,
    /// The source cannot be reached; tried again with backoff.
    WaitingForSource,
    /// The CRM cannot be reached or asks us to wait; tried again with backoff.
    WaitingForCrm,
    /// At least one table has stopped until somebody decides or fixes something; the others go on.
    NeedsAttention,
    /// Draining what is in flight before the exit.
    Stopping,
    /// Stopped by an error that only a person can remove.
    Failed,
    /// No daemon runs. Only the command line says so, from what the store holds.
    Stopped,
}

impl State {
    /// Every state that a running daemon can be in, in the order of the metrics page.
    pub const ALL: [State; 9] = [
        State::Starting,
        State::Snapshot,
        State::Live,
        State::Paused,
        State::WaitingForSource,
        State::WaitingForCrm,
        State::NeedsAttention,
        State::Stopping,
        State::Failed,
    ];

    /// The word in JSON, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Snapshot => "snapshot",
            State::Live => "live",
            State::Paused => "paused",
            State::WaitingForSource => "waiting_for_source",
            State::WaitingForCrm => "waiting_for_crm",
            State::NeedsAttention => "needs_attention",
            State::Stopping => "stopping",
            State::Failed => "failed",
            State::Stopped => "stopped",
        }
    }
}

/// For people: words with blanks.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.as_str().replace('_', " "))
    }
}

/// What one table is doing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TablePhase {
    /// Its snapshot has not begun.
    #[default]
    Waiting,
    /// Being read by key, the tail running beside it.
    Snapshot,
    /// Read to its end; the tail has still to reach the last chunk's barrier.
    CatchingUp,
    /// Followed by the tail alone.
    Live,
    /// Stopped until somebody decides or fixes something ([`TableStatus::attention`] says what).
    NeedsAttention,
}

impl TablePhase {
    /// The word in JSON and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            TablePhase::Waiting => "waiting",
            TablePhase::Snapshot => "snapshot",
            TablePhase::CatchingUp => "catching_up",
            TablePhase::Live => "live",
            TablePhase::NeedsAttention => "needs_attention",
        }
    }

    /// Whether the table's snapshot is not finished.
    pub fn is_snapshot(self) -> bool {
        matches!(self, TablePhase::Waiting | TablePhase::Snapshot | TablePhase::CatchingUp)
    }
}

/// For people: words with blanks.
impl fmt::Display for TablePhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.as_str().replace('_', " "))
    }
}

/// Everything there is to say about a running tenant.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The program's version.
    pub version: String,
    /// The tenant's name.
    pub tenant: String,
    /// What the daemon is doing.
    pub state: State,
    /// Since when it has been in this state.
    pub since: Option<Moment>,
    /// When this report was made.
    pub reported_at: Option<Moment>,
    /// Seconds since the process began its work.
    pub uptime_seconds: f64,
    /// Process id of the daemon.
    pub pid: u32,
    /// Where the changes come from.
    pub source: SourceStatus,
    /// The last saved checkpoint.
    pub checkpoint: CheckpointStatus,
    /// How far the CRM is behind.
    pub lag: LagStatus,
    /// How long the source keeps its log for us.
    pub retention: RetentionStatus,
    /// The delivery side.
    pub delivery: DeliveryStatus,
    /// By table, in the mapping's order.
    pub tables: Vec<TableStatus>,
    /// By entity, in the mapping's order.
    pub entities: Vec<EntityStatus>,
    /// The last error, if there was one since the start. A recovered one stays, with `recovered` set.
    pub last_error: Option<ErrorStatus>,
}

/// Where the changes come from.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceStatus {
    /// The connector's name (`postgres`).
    pub engine: String,
    /// Place in the log up to which changes were received, as text of the connector.
    pub received: Option<String>,
    /// Changes received per second, over the last seconds.
    pub changes_per_second: f64,
    /// Snapshot rows read per second, over the last seconds.
    pub snapshot_rows_per_second: f64,
}

/// The last saved checkpoint.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CheckpointStatus {
    /// When anything was last saved (position, cursor of a snapshot, states of tables).
    pub saved_at: Option<Moment>,
    /// When the saved position last moved, or a snapshot's cursor did.
    pub moved_at: Option<Moment>,
    /// Everything at or before this place is settled, as text of the connector.
    pub position: Option<String>,
    /// Changes up to this place may have been sent already, as text of the connector.
    pub dispatched: Option<String>,
}

/// How far the CRM is behind the source. Unknown parts are `None`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LagStatus {
    /// Age of the oldest change that is not settled yet, by the source's commit time; 0 when nothing is pending.
    pub seconds: Option<f64>,
    /// Bytes of the source's log after the saved position.
    pub pending_bytes: Option<u64>,
    /// Changes taken in and not settled yet.
    pub pending_changes: u64,
}

/// How long the source keeps its log for us. Unknown parts are `None`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RetentionStatus {
    /// Seconds until the log no longer reaches back to the saved position.
    pub seconds: Option<f64>,
    /// Bytes that the source keeps because of us.
    pub retained_bytes: Option<u64>,
    /// Bytes that may still be kept before the source drops our log.
    pub bytes_left: Option<u64>,
}

/// The delivery side.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeliveryStatus {
    /// Records settled per second, over the last seconds.
    pub records_per_second: f64,
    /// Requests on their way.
    pub requests_in_flight: u64,
    /// Records in those requests.
    pub records_in_flight: u64,
    /// Share of the window of changes held in memory that is full, 0 to 1. At 1 the source is not read.
    pub backpressure: f64,
    /// Until when the CRM asked us to wait, if it did.
    pub throttled_until: Option<Moment>,
    /// Records that have to be read again by key.
    pub rereads: u64,
}

/// One table.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TableStatus {
    /// `schema.name`.
    pub name: String,
    /// What it is doing.
    pub phase: TablePhase,
    /// Rows read in the present (or last) snapshot.
    pub rows_done: u64,
    /// Rows the source believes the table has.
    pub rows_estimate: Option<u64>,
    /// Rows read per second in this snapshot.
    pub rows_per_second: f64,
    /// Seconds until the snapshot's end, by the rate so far.
    pub eta_seconds: Option<f64>,
    /// Changes received from the tail since the start.
    pub changes: u64,
    /// Why it needs attention, and what to do.
    pub attention: Option<String>,
    /// Whether the source's schema differs from the one that was mapped.
    pub schema_drift: bool,
}

impl TableStatus {
    /// Share of the snapshot that is done, 0 to 1; `None` while the size is unknown. Never 1 before the end.
    pub fn ratio(&self) -> Option<f64> {
        match self.phase {
            TablePhase::Live => Some(1.0),
            TablePhase::NeedsAttention if self.rows_done == 0 => None,
            _ => match self.rows_estimate {
                Some(estimate) if estimate > 0 => Some((self.rows_done as f64 / estimate as f64).min(0.999)),
                _ if self.phase == TablePhase::CatchingUp => Some(0.999),
                Some(_) => Some(0.0),
                None => None,
            },
        }
    }
}

/// One entity of the CRM. Counts are since the start, except the three that say what there is now.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EntityStatus {
    /// Name of the entity.
    pub name: String,
    /// Records that the CRM accepted.
    pub delivered: u64,
    /// Changes that changed nothing in the record: no request was made.
    pub suppressed: u64,
    /// Changes that were folded into a later one of the same record.
    pub coalesced: u64,
    /// Records that the mapping or the CRM refused.
    pub rejected: u64,
    /// Dead letters now.
    pub dead_letters: u64,
    /// Records now waiting for their parent.
    pub parked: u64,
    /// Records known to be in the CRM now.
    pub ledger: u64,
    /// Whether the CRM's schema differs from the one that was checked.
    pub schema_drift: bool,
}

/// An error, in the words of the log.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorStatus {
    /// When it happened.
    pub at: Option<Moment>,
    /// Its kind (`unreachable`, `crm_unavailable` …).
    pub kind: String,
    /// What was observed.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
    /// Whether the daemon has got over it.
    pub recovered: bool,
}

impl StatusReport {
    /// Whether the daemon lives and has nothing left to do: no change pending, none known in the log for longer than a
    /// second, no record on its way or to be read again.
    pub fn has_caught_up(&self) -> bool {
        let delivery = &self.delivery;
        self.state == State::Live
            && self.lag.pending_changes == 0
            && self.lag.seconds.is_none_or(|seconds| seconds <= 1.0)
            && delivery.records_in_flight == 0
            && delivery.rereads == 0
    }

    /// A first report of a daemon that is starting.
    pub fn starting(tenant: &str, engine: &str) -> Self {
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            tenant: tenant.into(),
            since: Some(Moment::now()),
            reported_at: Some(Moment::now()),
            pid: std::process::id(),
            source: SourceStatus { engine: engine.into(), ..SourceStatus::default() },
            ..Self::default()
        }
    }

    /// Whether a snapshot is running or waiting to run.
    pub fn snapshot_active(&self) -> bool {
        self.tables.iter().any(|t| t.phase.is_snapshot())
    }

    /// Dead letters of all entities.
    pub fn dead_letters(&self) -> u64 {
        self.entities.iter().map(|e| e.dead_letters).sum()
    }

    /// Why the tenant is not ready, one sentence per reason; empty when changes flow end to end or the source is quiet.
    pub fn not_ready(&self, now: Moment) -> Vec<String> {
        let mut reasons = Vec::new();
        if !matches!(self.state, State::Live | State::Snapshot) {
            reasons.push(format!("the state is {}", self.state));
        }
        for table in self.tables.iter().filter(|t| t.phase == TablePhase::NeedsAttention) {
            let why = table.attention.as_deref().unwrap_or("no reason given");
            reasons.push(format!("table {} needs attention: {why}", table.name));
        }
        let waiting = self.snapshot_active()
            || self.lag.pending_changes > 0
            || self.lag.pending_bytes.is_some_and(|bytes| bytes > 0);
        let window = i64::try_from(READY_WINDOW.as_micros()).unwrap_or(i64::MAX);
        // Before the first move the process's own start counts.
        let moved = self
            .checkpoint
            .moved_at
            .map_or_else(|| now.0.saturating_sub((self.uptime_seconds * 1e6) as i64), |moved| moved.0);
        if waiting && now.0.saturating_sub(moved) > window {
            reasons.push(format!(
                "changes are waiting and the checkpoint has not moved for {} s",
                now.0.saturating_sub(moved) / 1_000_000
            ));
        }
        reasons
    }
}

/// Where the pipeline publishes its reports and everybody reads the latest. Cloning shares the board.
#[derive(Clone, Debug)]
pub struct Board(watch::Sender<StatusReport>);

impl Board {
    /// A board that shows `first`.
    pub fn new(first: StatusReport) -> Self {
        Self(watch::Sender::new(first))
    }

    /// Replaces the report. Never waits.
    pub fn publish(&self, report: StatusReport) {
        self.0.send_replace(report);
    }

    /// Changes the report in place, for the rare event between two full reports (stopping, failed).
    pub fn update(&self, change: impl FnOnce(&mut StatusReport)) {
        self.0.send_modify(change);
    }

    /// The latest report.
    pub fn latest(&self) -> StatusReport {
        self.0.borrow().clone()
    }

    /// For readers that want to wait for the next report.
    pub fn subscribe(&self) -> watch::Receiver<StatusReport> {
        self.0.subscribe()
    }
}

/// The pipeline's pulse: bumped by its own loop each time it turns, read by `/livez` and the systemd watchdog. Nothing
/// else may bump it: a timer of its own would prove nothing.
#[derive(Debug)]
pub struct Heartbeat {
    start: Instant,
    last_ms: AtomicU64,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self { start: Instant::now(), last_ms: AtomicU64::new(0) }
    }
}

impl Heartbeat {
    /// Says that the loop has turned.
    pub fn beat(&self) {
        self.last_ms.store(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Time since the last beat (since the creation, before the first one).
    pub fn age(&self) -> Duration {
        self.start.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

/// Turns a growing count into a rate over the last seconds.
#[derive(Debug)]
pub struct Meter {
    marks: std::collections::VecDeque<(Instant, u64)>,
    window: Duration,
}

impl Default for Meter {
    fn default() -> Self {
        Self { marks: std::collections::VecDeque::new(), window: Duration::from_secs(5) }
    }
}

impl Meter {
    /// Notes that the count stands at `total` and returns its growth per second over the window.
    pub fn rate(&mut self, total: u64, now: Instant) -> f64 {
        while self.marks.len() > 1 && self.marks.front().is_some_and(|(at, _)| now.duration_since(*at) > self.window) {
            self.marks.pop_front();
        }
        self.marks.push_back((now, total));
        let Some((first_at, first)) = self.marks.front().copied() else { return 0.0 };
        let seconds = now.duration_since(first_at).as_secs_f64();
        if seconds < 0.05 { 0.0 } else { total.saturating_sub(first) as f64 / seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> StatusReport {
        StatusReport { state: State::Live, uptime_seconds: 3600.0, ..StatusReport::starting("acme", "postgres") }
    }

    #[test]
    fn a_quiet_source_is_ready_however_old_the_checkpoint_is() {
        let mut report = live();
        report.checkpoint.moved_at = Some(Moment(0));
        report.lag.pending_bytes = Some(0);
        assert!(report.not_ready(Moment::now()).is_empty());
    }

    #[test]
    fn waiting_changes_with_a_still_checkpoint_are_not_ready() {
        let now = Moment::now();
        let mut report = live();
        report.lag.pending_bytes = Some(10);
        report.checkpoint.moved_at = Some(Moment(now.0 - 59_000_000));
        assert!(report.not_ready(now).is_empty());
        report.checkpoint.moved_at = Some(Moment(now.0 - 75_000_000));
        assert_eq!(report.not_ready(now), ["changes are waiting and the checkpoint has not moved for 75 s"]);
        report.checkpoint.moved_at = None;
        assert_eq!(report.not_ready(now).len(), 1, "an hour without any checkpoint");
        report.uptime_seconds = 5.0;
        assert!(report.not_ready(now).is_empty(), "it has only just begun");
    }

    #[test]
    fn a_paused_tenant_or_a_stopped_table_is_not_ready() {
        let mut report = live();
        report.state = State::Paused;
        report.tables.push(TableStatus {
            name: "public.orders".into(),
            phase: TablePhase::NeedsAttention,
            attention: Some("column gone".into()),
            ..TableStatus::default()
        });
        assert_eq!(
            report.not_ready(Moment::now()),
            ["the state is paused", "table public.orders needs attention: column gone"]
        );
    }

    #[test]
    fn a_snapshot_is_never_shown_as_done_before_its_end() {
        let mut table = TableStatus { rows_done: 200, rows_estimate: Some(100), ..TableStatus::default() };
        table.phase = TablePhase::Snapshot;
        assert_eq!(table.ratio(), Some(0.999));
        table.phase = TablePhase::Live;
        assert_eq!(table.ratio(), Some(1.0));
    }

    #[test]
    fn reports_survive_json_and_unknown_fields() {
        let mut report = live();
        report.checkpoint.saved_at = Some(Moment(1_764_000_000_123_000));
        let json = serde_json::to_string(&report).expect("plain data");
        assert!(json.contains(r#""saved_at":"2025-11-24T16:00:00.123Z""#), "{json}");
        assert_eq!(
            serde_json::from_str::<StatusReport>(&json).expect("our own").checkpoint.saved_at,
            report.checkpoint.saved_at
        );
        let newer: StatusReport = serde_json::from_str(r#"{"schema":1,"a_field_of_tomorrow":1}"#).expect("lenient");
        assert_eq!(newer.schema, 1);
    }

    #[test]
    fn a_meter_forgets_what_is_older_than_its_window() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        assert_eq!(meter.rate(0, start), 0.0);
        assert_eq!(meter.rate(100, start + Duration::from_secs(1)), 100.0);
        for second in 2..20 {
            meter.rate(100, start + Duration::from_secs(second));
        }
        assert_eq!(meter.rate(100, start + Duration::from_secs(20)), 0.0);
    }

    #[test]
    fn a_heartbeat_ages_until_it_beats() {
        let pulse = Heartbeat::default();
        std::thread::sleep(Duration::from_millis(20));
        assert!(pulse.age() >= Duration::from_millis(20));
        pulse.beat();
        assert!(pulse.age() < Duration::from_millis(20));
    }
}
