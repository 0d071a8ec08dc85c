//! Every metric: its name, labels, unit and buckets.
//!
//! Counters and the histogram are counted here by the stations, per batch. Gauges are not set by anybody: they are
//! taken from the same [`StatusReport`] that the status page and `tidemark status` show, at the moment of the scrape
//! ([`Metrics::render`]). The report's own counts come from these counters ([`Metrics::entity`], [`Metrics::table`]).
//!
//! Labels are names of tables, entities, operations and codes; never a key or a value (P8). A gauge whose value is not
//! known is absent, not zero. The tenant is not a label here: one process is one tenant, and the scrape configuration
//! names it (see the operator's guide).

use crate::status::{EntityStatus, State, StatusReport};
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, Encoder, GaugeVec, Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::time::{Duration, SystemTime};

/// What became of a record, as the label `outcome` says it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RecordOutcome {
    /// The CRM accepted it.
    Delivered,
    /// It changed nothing in the record: no request was made (P10).
    Suppressed,
    /// A later change of the same record took its place before it was sent (P10).
    Coalesced,
    /// The mapping or the CRM refused it.
    Rejected,
}

impl RecordOutcome {
    const ALL: [RecordOutcome; 4] =
        [RecordOutcome::Delivered, RecordOutcome::Suppressed, RecordOutcome::Coalesced, RecordOutcome::Rejected];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            RecordOutcome::Delivered => "delivered",
            RecordOutcome::Suppressed => "suppressed",
            RecordOutcome::Coalesced => "coalesced",
            RecordOutcome::Rejected => "rejected",
        }
    }
}

/// What was to be done with a record, as the label `op` of `tidemark_records_total` says it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RecordOp {
    /// Create or update.
    Upsert,
    /// Remove.
    Delete,
}

impl RecordOp {
    const ALL: [RecordOp; 2] = [RecordOp::Upsert, RecordOp::Delete];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            RecordOp::Upsert => "upsert",
            RecordOp::Delete => "delete",
        }
    }
}

const CHANGE_OPS: [&str; 4] = ["insert", "update", "delete", "truncate"];

/// All metrics of one daemon, in a registry of their own. Share it in an `Arc`.
pub struct Metrics {
    registry: Registry,
    changes: IntCounterVec,
    snapshot_rows: IntCounterVec,
    records: IntCounterVec,
    requests: IntCounterVec,
    request_seconds: Histogram,
    throttled_seconds: Counter,
    dead_letters_total: IntCounterVec,
    source_errors: IntCounterVec,
    gauges: Gauges,
    /// One scrape at a time: the gauges are emptied and filled again.
    scraping: std::sync::Mutex<()>,
}

/// Set from the report at the moment of the scrape. One without labels is still a vector: emptied, it is absent.
struct Gauges {
    state: IntGaugeVec,
    lag_seconds: GaugeVec,
    pending_bytes: GaugeVec,
    pending_changes: GaugeVec,
    retention_seconds: GaugeVec,
    retention_bytes_left: GaugeVec,
    slot_retained_bytes: GaugeVec,
    checkpoint_timestamp: GaugeVec,
    snapshot_active: GaugeVec,
    snapshot_progress: GaugeVec,
    snapshot_rows_expected: GaugeVec,
    dead_letters: GaugeVec,
    parked: GaugeVec,
    ledger: GaugeVec,
    rereads: GaugeVec,
    backpressure: GaugeVec,
    schema_drift: GaugeVec,
}

/// Seconds: from a CRM on loopback to one that takes a minute over a batch.
const REQUEST_BUCKETS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// Only if two metrics have one name, or a name is malformed: a mistake in this file, found by its tests.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        let build = gauge(r, "tidemark_build_info", "Always 1; the label says the version.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        r.register(Box::new(Process::new()?))?;
        let request_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "tidemark_crm_request_duration_seconds",
                "Time from sending a CRM request to its answer.",
            )
            .buckets(REQUEST_BUCKETS.to_vec()),
        )?;
        r.register(Box::new(request_seconds.clone()))?;
        let throttled_seconds = Counter::new(
            "tidemark_crm_throttled_seconds_total",
            "Time spent waiting because the CRM asked for it (429, Retry-After) or a quota was used up.",
        )?;
        r.register(Box::new(throttled_seconds.clone()))?;
        Ok(Self {
            changes: counter(r, "tidemark_changes_total", "Changes received from the source's log.", &["table", "op"])?,
            snapshot_rows: counter(r, "tidemark_snapshot_rows_total", "Rows read by snapshots.", &["table"])?,
            records: counter(
                r,
                "tidemark_records_total",
                "Changes of CRM records by what became of them.",
                &["entity", "op", "outcome"],
            )?,
            requests: counter(
                r,
                "tidemark_crm_requests_total",
                "CRM requests by HTTP status, or `timeout` or `error` where there was no answer.",
                &["entity", "code"],
            )?,
            dead_letters_total: counter(
                r,
                "tidemark_dead_letters_total",
                "Records that were set aside, by the reason's code.",
                &["entity", "reason"],
            )?,
            source_errors: counter(r, "tidemark_source_errors_total", "Errors of the source by kind.", &["kind"])?,
            request_seconds,
            throttled_seconds,
            gauges: Gauges::new(r)?,
            scraping: std::sync::Mutex::new(()),
            registry,
        })
    }

    /// Makes the counters of these tables and entities exist at zero, so that their first increase is seen as one.
    pub fn prepare<'a>(&self, tables: impl IntoIterator<Item = &'a str>, entities: impl IntoIterator<Item = &'a str>) {
        for table in tables {
            for op in CHANGE_OPS {
                self.changes.with_label_values(&[table, op]);
            }
            self.snapshot_rows.with_label_values(&[table]);
        }
        for entity in entities {
            for op in RecordOp::ALL {
                for outcome in RecordOutcome::ALL {
                    self.records.with_label_values(&[entity, op.as_str(), outcome.as_str()]);
                }
            }
        }
    }

    /// `n` changes of `table` (`schema.name`) came from the log; `op` is [`tidemark_contract::ChangeOp::as_str`].
    pub fn changes(&self, table: &str, op: &'static str, n: u64) {
        self.changes.with_label_values(&[table, op]).inc_by(n);
    }

    /// A snapshot read `n` rows of `table`.
    pub fn snapshot_rows(&self, table: &str, n: u64) {
        self.snapshot_rows.with_label_values(&[table]).inc_by(n);
    }

    /// `n` changes of records of `entity` ended as `outcome`.
    pub fn records(&self, entity: &str, op: RecordOp, outcome: RecordOutcome, n: u64) {
        self.records.with_label_values(&[entity, op.as_str(), outcome.as_str()]).inc_by(n);
    }

    /// One CRM request was answered with `status` (`None`: no answer, because of a timeout or a broken connection)
    /// after `took`.
    pub fn crm_request(&self, entity: &str, status: Result<u16, NoAnswer>, took: Duration) {
        let mut digits = itoa::Buffer::new();
        let code = match status {
            Ok(status) => digits.format(status),
            Err(NoAnswer::Timeout) => "timeout",
            Err(NoAnswer::Broken) => "error",
        };
        self.requests.with_label_values(&[entity, code]).inc();
        self.request_seconds.observe(took.as_secs_f64());
    }

    /// Delivery waited because the CRM asked for it.
    pub fn throttled(&self, waited: Duration) {
        self.throttled_seconds.inc_by(waited.as_secs_f64());
    }

    /// `n` records of `entity` were set aside with this reason's code. The CRM chooses its own codes, so that one
    /// which is not a short plain word counts as `other` (labels stay few and free of values).
    pub fn dead_letters(&self, entity: &str, reason: &str, n: u64) {
        let plain = !reason.is_empty()
            && reason.len() <= 40
            && reason.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            && self.dead_letters_total.collect().first().map_or(0, |f| f.get_metric().len()) < 200;
        let reason = if plain { reason } else { "other" };
        self.dead_letters_total.with_label_values(&[entity, reason]).inc_by(n);
    }

    /// The source failed with an error of this kind.
    pub fn source_error(&self, kind: &'static str) {
        self.source_errors.with_label_values(&[kind]).inc();
    }

    /// Tells from now on how many dates that no calendar has were met, as `read` gives it: table, column, number.
    ///
    /// # Errors
    /// If it is called twice.
    pub fn watch_zero_dates(
        &self,
        read: impl Fn() -> Vec<(String, String, u64)> + Send + Sync + 'static,
    ) -> prometheus::Result<()> {
        let opts = Opts::new("tidemark_source_zero_dates_total", "Dates that no calendar has, by what they stand in.");
        let met = IntCounterVec::new(opts, &["table", "column"])?;
        self.registry.register(Box::new(ZeroDates { met, read: Box::new(read) }))
    }

    /// The counts of `entity` since the start, for the report; what there is *now* is left at zero.
    pub fn entity(&self, entity: &str) -> EntityStatus {
        let sum = |outcome: RecordOutcome| {
            RecordOp::ALL
                .iter()
                .map(|op| self.records.with_label_values(&[entity, op.as_str(), outcome.as_str()]).get())
                .sum()
        };
        EntityStatus {
            name: entity.into(),
            delivered: sum(RecordOutcome::Delivered),
            suppressed: sum(RecordOutcome::Suppressed),
            coalesced: sum(RecordOutcome::Coalesced),
            rejected: sum(RecordOutcome::Rejected),
            ..EntityStatus::default()
        }
    }

    /// Changes of `table` since the start, for the report.
    pub fn table(&self, table: &str) -> u64 {
        CHANGE_OPS.iter().map(|op| self.changes.with_label_values(&[table, *op]).get()).sum()
    }

    /// The whole page in Prometheus' text format, gauges as `report` says.
    ///
    /// # Errors
    /// Never in practice: writing to memory.
    pub fn render(&self, report: &StatusReport) -> prometheus::Result<String> {
        let _one = self.scraping.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.gauges.set(report);
        let mut out = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }
}

/// Why a CRM request has no status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoAnswer {
    /// None came in time.
    Timeout,
    /// The connection could not be made, or broke.
    Broken,
}

impl Gauges {
    fn new(r: &Registry) -> prometheus::Result<Self> {
        let state = IntGaugeVec::new(Opts::new("tidemark_state", "1 for the state the daemon is in."), &["state"])?;
        r.register(Box::new(state.clone()))?;
        Ok(Self {
            state,
            lag_seconds: gauge(
                r,
                "tidemark_replication_lag_seconds",
                "Age of the oldest change that is not settled in the CRM; 0 when nothing is pending.",
                &[],
            )?,
            pending_bytes: gauge(r, "tidemark_source_pending_bytes", "Log of the source after our checkpoint.", &[])?,
            pending_changes: gauge(r, "tidemark_pending_changes", "Changes taken in and not settled yet.", &[])?,
            retention_seconds: gauge(
                r,
                "tidemark_source_retention_seconds",
                "Time until the source's log no longer reaches back to our checkpoint.",
                &[],
            )?,
            retention_bytes_left: gauge(
                r,
                "tidemark_source_retention_left_bytes",
                "Log that the source may still keep for us before it drops our place.",
                &[],
            )?,
            slot_retained_bytes: gauge(
                r,
                "tidemark_source_slot_retained_bytes",
                "Log that the source keeps because of us.",
                &[],
            )?,
            checkpoint_timestamp: gauge(
                r,
                "tidemark_checkpoint_timestamp_seconds",
                "When the checkpoint was last saved, in seconds since 1970.",
                &[],
            )?,
            snapshot_active: gauge(r, "tidemark_snapshot_active", "1 while a snapshot is running or waiting.", &[])?,
            snapshot_progress: gauge(
                r,
                "tidemark_snapshot_progress_ratio",
                "Share of the table's snapshot that is done, by the source's estimate of its rows.",
                &["table"],
            )?,
            snapshot_rows_expected: gauge(
                r,
                "tidemark_snapshot_rows_expected",
                "Rows that the source believes the table has.",
                &["table"],
            )?,
            dead_letters: gauge(r, "tidemark_dead_letters", "Records that are set aside now.", &["entity"])?,
            parked: gauge(r, "tidemark_parked_records", "Records that wait for their parent now.", &["entity"])?,
            ledger: gauge(r, "tidemark_ledger_entries", "Records known to be in the CRM.", &["entity"])?,
            rereads: gauge(r, "tidemark_rereads_pending", "Records that have to be read again by key.", &[])?,
            backpressure: gauge(
                r,
                "tidemark_backpressure_ratio",
                "Share of the window of changes in memory that is full; at 1 the source is not read.",
                &[],
            )?,
            schema_drift: gauge(
                r,
                "tidemark_schema_drift",
                "1 if the schema differs from the one that was mapped; side is `source` or `crm`.",
                &["side", "table"],
            )?,
        })
    }

    fn set(&self, report: &StatusReport) {
        for state in State::ALL {
            self.state.with_label_values(&[state.as_str()]).set(i64::from(state == report.state));
        }
        single(&self.lag_seconds, report.lag.seconds);
        single(&self.pending_bytes, report.lag.pending_bytes.map(|b| b as f64));
        single(&self.pending_changes, Some(report.lag.pending_changes as f64));
        single(&self.retention_seconds, report.retention.seconds);
        single(&self.retention_bytes_left, report.retention.bytes_left.map(|b| b as f64));
        single(&self.slot_retained_bytes, report.retention.retained_bytes.map(|b| b as f64));
        single(&self.checkpoint_timestamp, report.checkpoint.saved_at.map(|at| at.as_seconds()));
        single(&self.snapshot_active, Some(f64::from(u8::from(report.snapshot_active()))));
        single(&self.rereads, Some(report.delivery.rereads as f64));
        single(&self.backpressure, Some(report.delivery.backpressure));
        let tables = || report.tables.iter().map(|t| (t, [t.name.as_str()]));
        labelled(&self.snapshot_progress, tables().filter_map(|(t, l)| Some((l, t.ratio()?))));
        labelled(&self.snapshot_rows_expected, tables().filter_map(|(t, l)| Some((l, t.rows_estimate? as f64))));
        let entities = || report.entities.iter().map(|e| (e, [e.name.as_str()]));
        labelled(&self.dead_letters, entities().map(|(e, l)| (l, e.dead_letters as f64)));
        labelled(&self.parked, entities().map(|(e, l)| (l, e.parked as f64)));
        labelled(&self.ledger, entities().map(|(e, l)| (l, e.ledger as f64)));
        let flag = |on: bool| f64::from(u8::from(on));
        let source = report.tables.iter().map(|t| (["source", t.name.as_str()], flag(t.schema_drift)));
        let crm = report.entities.iter().map(|e| (["crm", e.name.as_str()], flag(e.schema_drift)));
        labelled(&self.schema_drift, source.chain(crm));
    }
}

fn counter(r: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(r: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
    let metric = GaugeVec::new(Opts::new(name, help), labels)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn single(metric: &GaugeVec, value: Option<f64>) {
    match value {
        Some(value) => metric.with_label_values::<&str>(&[]).set(value),
        None => metric.reset(),
    }
}

fn labelled<'a, const N: usize>(metric: &GaugeVec, values: impl Iterator<Item = ([&'a str; N], f64)>) {
    metric.reset();
    for (labels, value) in values {
        metric.with_label_values(&labels).set(value);
    }
}

/// What Prometheus' client libraries usually tell of their process, read from `/proc/self` at the moment of the scrape.
struct Process {
    memory: prometheus::Gauge,
    memory_peak: prometheus::Gauge,
    cpu: Counter,
    files: prometheus::Gauge,
    threads: prometheus::Gauge,
    start: prometheus::Gauge,
}

impl Process {
    fn new() -> prometheus::Result<Self> {
        let start = prometheus::Gauge::new("process_start_time_seconds", "Start of the process, seconds since 1970.")?;
        start.set(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        Ok(Self {
            memory: prometheus::Gauge::new("process_resident_memory_bytes", "Resident memory.")?,
            memory_peak: prometheus::Gauge::new("tidemark_resident_memory_peak_bytes", "Highest resident memory.")?,
            cpu: Counter::new("process_cpu_seconds_total", "User and system CPU time.")?,
            files: prometheus::Gauge::new("process_open_fds", "Open file descriptors.")?,
            threads: prometheus::Gauge::new("process_threads", "Threads.")?,
            start,
        })
    }

    fn read(&self) {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| -> Option<f64> {
            status.lines().find_map(|l| l.strip_prefix(name))?.split_ascii_whitespace().next()?.parse().ok()
        };
        self.memory.set(field("VmRSS:").unwrap_or(0.0) * 1024.0);
        self.memory_peak.set(field("VmHWM:").unwrap_or(0.0) * 1024.0);
        self.threads.set(field("Threads:").unwrap_or(0.0));
        self.files.set(std::fs::read_dir("/proc/self/fd").map_or(0.0, |d| d.count() as f64));
        // User and system time in ticks: the 14th and 15th field, the 12th and 13th after the name in brackets. The tick
        // that /proc counts in is 1/100 s on every platform Rust knows of.
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: f64 =
            after_name.split_ascii_whitespace().skip(11).take(2).filter_map(|f| f.parse::<f64>().ok()).sum();
        self.cpu.inc_by((ticks / 100.0 - self.cpu.get()).max(0.0));
    }

    fn all(&self) -> [&dyn Collector; 6] {
        [&self.memory, &self.memory_peak, &self.cpu, &self.files, &self.threads, &self.start]
    }
}

impl Collector for Process {
    fn desc(&self) -> Vec<&Desc> {
        self.all().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.all().into_iter().flat_map(Collector::collect).collect()
    }
}

/// Dates of the source that no calendar has, read from the connector's own counts at the moment of the scrape.
struct ZeroDates {
    met: IntCounterVec,
    read: Box<dyn Fn() -> Vec<(String, String, u64)> + Send + Sync>,
}

impl Collector for ZeroDates {
    fn desc(&self) -> Vec<&Desc> {
        self.met.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (table, column, met) in (self.read)() {
            let counter = self.met.with_label_values(&[table, column]);
            counter.inc_by(met.saturating_sub(counter.get()));
        }
        self.met.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Moment, TablePhase, TableStatus};

    fn report() -> StatusReport {
        let mut report = StatusReport::starting("acme", "postgres");
        report.state = State::Live;
        report.lag.seconds = Some(1.5);
        report.checkpoint.saved_at = Some(Moment(1_764_000_000_500_000));
        report.tables.push(TableStatus {
            name: "public.orders".into(),
            phase: TablePhase::Snapshot,
            rows_done: 50,
            rows_estimate: Some(100),
            ..TableStatus::default()
        });
        report.entities.push(EntityStatus { name: "order".into(), dead_letters: 3, ..EntityStatus::default() });
        report
    }

    #[test]
    fn every_name_of_the_interface_is_there() {
        let metrics = Metrics::new().expect("names are well formed");
        metrics.prepare(["public.orders"], ["order"]);
        metrics.crm_request("order", Ok(200), Duration::from_millis(3));
        metrics.dead_letters("order", "invalid_value", 1);
        let mut report = report();
        report.lag.pending_bytes = Some(0);
        report.retention =
            crate::status::RetentionStatus { seconds: Some(1.0), retained_bytes: Some(1), bytes_left: Some(1) };
        let page = metrics.render(&report).expect("renders");
        for line in [
            concat!("tidemark_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "tidemark_state{state=\"live\"} 1",
            "tidemark_state{state=\"paused\"} 0",
            "tidemark_replication_lag_seconds 1.5",
            "tidemark_source_pending_bytes 0",
            "tidemark_source_retention_seconds 1",
            "tidemark_source_slot_retained_bytes 1",
            "tidemark_checkpoint_timestamp_seconds 1764000000.5",
            "tidemark_changes_total{op=\"insert\",table=\"public.orders\"} 0",
            "tidemark_snapshot_rows_total{table=\"public.orders\"} 0",
            "tidemark_snapshot_progress_ratio{table=\"public.orders\"} 0.5",
            "tidemark_snapshot_active 1",
            "tidemark_records_total{entity=\"order\",op=\"upsert\",outcome=\"delivered\"} 0",
            "tidemark_crm_requests_total{code=\"200\",entity=\"order\"} 1",
            "tidemark_crm_request_duration_seconds_bucket{le=\"0.005\"} 1",
            "tidemark_crm_throttled_seconds_total 0",
            "tidemark_dead_letters{entity=\"order\"} 3",
            "tidemark_dead_letters_total{entity=\"order\",reason=\"invalid_value\"} 1",
            "tidemark_parked_records{entity=\"order\"} 0",
            "tidemark_ledger_entries{entity=\"order\"} 0",
            "tidemark_backpressure_ratio 0",
            "tidemark_schema_drift{side=\"source\",table=\"public.orders\"} 0",
            "tidemark_schema_drift{side=\"crm\",table=\"order\"} 0",
        ] {
            assert!(page.lines().any(|l| l == line), "no line `{line}` in:\n{page}");
        }
        assert!(page.contains("process_resident_memory_bytes "), "{page}");
    }

    #[test]
    fn what_is_not_known_is_absent() {
        let metrics = Metrics::new().expect("names are well formed");
        assert!(metrics.render(&report()).expect("renders").contains("tidemark_replication_lag_seconds 1.5"));
        let mut unknown = report();
        unknown.lag.seconds = None;
        unknown.tables.clear();
        let page = metrics.render(&unknown).expect("renders");
        assert!(!page.contains("tidemark_replication_lag_seconds "), "{page}");
        assert!(!page.contains("public.orders"), "a table that is gone leaves no stale gauge:\n{page}");
    }

    #[test]
    fn counts_of_the_report_are_those_of_the_page() {
        let metrics = Metrics::new().expect("names are well formed");
        metrics.records("order", RecordOp::Upsert, RecordOutcome::Delivered, 7);
        metrics.records("order", RecordOp::Delete, RecordOutcome::Delivered, 2);
        metrics.records("order", RecordOp::Upsert, RecordOutcome::Suppressed, 5);
        metrics.changes("public.orders", "update", 4);
        let order = metrics.entity("order");
        assert_eq!((order.delivered, order.suppressed, order.coalesced), (9, 5, 0));
        assert_eq!(metrics.table("public.orders"), 4);
    }

    #[test]
    fn a_reason_that_is_no_plain_word_never_becomes_a_label() {
        let metrics = Metrics::new().expect("names are well formed");
        metrics.dead_letters("order", "value 'Alfreds' is wrong", 1);
        let page = metrics.render(&report()).expect("renders");
        assert!(!page.contains("Alfreds"));
        assert!(page.contains("tidemark_dead_letters_total{entity=\"order\",reason=\"other\"} 1"), "{page}");
    }
}
