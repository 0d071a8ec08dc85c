//! The engine: one loop that owns the river's state. Tasks around it do the waiting (source, CRM, disk) and report back
//! as [`Event`]s; nothing here blocks.

use super::assembly::Assembly;
use super::drift::{Drift, Watch};
use super::ledger::LedgerView;
use super::page::Page;
use super::related::{FanOut, Trigger};
use super::reread::Reread;
use super::step::Steps;
use super::table::{Life, Sweep, Table};
use super::tail::{Bindings, Control, Message, Tail};
use super::{Outlet, Parts, backoff, unix_ms, unix_us};
use crate::command::{AdminCommand, Reply};
use crate::crm::{self, Crm, CrmErrorKind, Outcome, WriteRecord};
use crate::error::{DaemonKind, Error, Kind};
use crate::gather::GatherError;
use crate::loader::queue::{EntityId, Origin};
use crate::loader::{Effect, Fate, Ledger as _, Loader, Now, Request};
use crate::mapping::{Applied, Rule, RuleId};
use crate::metrics::NoAnswer;
use crate::status::{ErrorStatus, Moment};
use crate::store::{DailyUse, DeadLetter, Obligation, Reason, Record, Step, Store, StoreError, WriteOp};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_contract::{
    Connector, ErrorKind, FetchedRows, Lag, Position, RowKey, ScanCursor, SnapshotChunk, SourceError, TableId,
    TableRequest,
};
use tokio::sync::mpsc;

use super::tickets::Tickets;

/// Pages of a table that are read ahead and not settled.
const OPEN_CHUNKS: usize = 6;

/// Those of them that are being mapped or wait for the tail: with two, the next read often had to wait.
const HELD_CHUNKS: usize = 4;

/// Tickets between the watermark and the newest: what a restart may have to replay and fold in memory.
const SPAN_LIMIT: usize = 100_000;

/// The source is asked for its position this often while something waits for it.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// The source is asked for its position this often anyway, so that idleness is known and saved.
const ASK_IDLE: Duration = Duration::from_secs(1);

/// So many records are looked at to find out whether they wait for each other.
const CIRCLE: usize = 100;

/// Reports are published this often.
const REPORT: Duration = Duration::from_millis(250);

/// The source is asked for its lag this often.
const LAG: Duration = Duration::from_secs(5);

/// What a task reports to the engine.
#[derive(Debug)]
pub(super) enum Event {
    /// A page of a table was read, of the pass with this number; the next one begins there. It is being mapped.
    Read { table: usize, pass: u32, result: tidemark_contract::Result<Option<ScanCursor>> },
    /// The page with this number is mapped.
    Mapped { table: usize, pass: u32, number: u32, page: Page },
    /// The CRM's answer.
    Answer { request: Request, result: crm::Result<Vec<Outcome>>, took: Duration },
    /// A durable step ended.
    Stepped(Box<Step>, bool, Result<(), StoreError>),
    /// A ledger flush ended.
    Flushed(Result<(), StoreError>),
    /// Records with their related rows.
    Gathered(Result<Vec<Applied>, GatherError>),
    /// Rows that show a related row.
    FannedOut(tidemark_contract::Result<SnapshotChunk>),
    /// Rows read by key.
    Fetched(tidemark_contract::Result<FetchedRows>),
    /// Ledger entries of a table that its pass did not see, and how many entries it has.
    Swept { table: usize, pass: u32, result: Result<(Vec<(usize, Record)>, u64), StoreError> },
    /// The source's lag.
    Lag(tidemark_contract::Result<Lag>),
    /// How the CRM's model differs from the one that was mapped.
    ModelRead(Option<crm::Result<Drift>>),
}

/// Numbers for metrics, kept here and handed over once per report.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub changes: Vec<[u64; 4]>,
    pub snapshot_rows: Vec<u64>,
    /// By entity: upserts, deletes; so the next two.
    pub suppressed: Vec<[u64; 2]>,
    pub coalesced: Vec<[u64; 2]>,
    pub delivered: Vec<[u64; 2]>,
}

/// Totals for rates.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub changes: u64,
    pub snapshot_rows: u64,
    pub settled: u64,
}

/// Why the engine ended.
#[derive(Debug)]
pub(super) enum End {
    /// As asked.
    Stopped,
    /// The log no longer reaches back to the position (P4); the state is saved.
    PositionLost(SourceError),
    /// Something that only a person can remove.
    Failed(Error),
}

pub(super) struct Engine {
    pub connector: Arc<dyn Connector>,
    pub crm: Arc<dyn Crm>,
    pub store: Arc<Store>,
    pub config: Arc<crate::config::Config>,
    pub outlet: Outlet,
    pub metrics: Arc<crate::metrics::Metrics>,
    pub rules: Vec<Arc<Rule>>,
    pub rule_entity: Vec<EntityId>,
    /// The table of each rule's own rows.
    pub rule_table: Vec<Option<usize>>,
    pub tables: Vec<Table>,
    pub table_of: HashMap<TableId, usize>,
    pub loader: Loader<LedgerView>,
    pub tickets: Tickets,
    pub tail: Option<Tail>,
    /// The rules as they are bound, for the tail.
    pub bindings: Bindings,
    pub tail_is_new: bool,
    reopen_at: Option<Instant>,
    reopen_failures: u32,
    /// Changes up to this place may have been sent before a crash: the ledger is not asked about them, and nothing is sent
    /// until the tail is there ([`Engine::holds_back`]).
    pub folding: Option<Position>,
    /// Rows that the tail spoke of while it was folded: what was sent of them before the crash may be missing from the
    /// ledger, so it is not asked about them until something of them has been delivered.
    pub folded: HashSet<(RuleId, RowKey)>,
    pub version: u64,
    pub ceiling: u64,
    pub generation: u32,
    pub steps: Steps,
    pub reread: Reread,
    pub assembly: Assembly,
    pub fan_out: FanOut,
    /// Records being read again whose parent has landed meanwhile: if the CRM still misses it, they are tried at once.
    woken: HashSet<(String, RowKey)>,
    /// Where changes of related rows lead.
    pub triggers: Vec<Trigger>,
    /// What is read of every table.
    pub requests: Arc<Vec<TableRequest>>,
    /// When this process began: obligations from before may be about records that were sent without a trace here.
    pub started_ms: i64,
    pub settled_since_flush: u64,
    pub commit_time: Option<i64>,
    pub idle_at: Option<Instant>,
    pub asked_position: Option<Instant>,
    pub events: mpsc::UnboundedSender<Event>,
    inbox: mpsc::UnboundedReceiver<Event>,
    pub stopping: bool,
    stop_by: Option<Instant>,
    pub failed: Option<Error>,
    pub position_lost: Option<SourceError>,
    pub counts: Counts,
    pub rates: Totals,
    pub troubles: HashMap<&'static str, ErrorStatus>,
    pub last_error: Option<ErrorStatus>,
    pub lag: Lag,
    lag_at: Option<Instant>,
    pub reported_at: Option<Instant>,
    pub window_bytes: usize,
    pub window_records: usize,
    pub reporter: super::report::Reporter,
    /// Callers that wait until nothing is under way.
    pub pausing: Vec<Reply<()>>,
    /// Where the requests of the day are noted, if there is a quota.
    pub daily_use: Option<DailyUse>,
    /// The CRM's model.
    pub watch: Watch,
}

impl Engine {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        parts: &Parts,
        rules: Vec<Arc<Rule>>,
        tables: Vec<Table>,
        loader: Loader<LedgerView>,
        steps: Steps,
        folding: Option<Position>,
        (tail, bindings): (Tail, Bindings),
        watch: Watch,
    ) -> Self {
        let (events, inbox) = mpsc::unbounded_channel();
        let requests = tables.iter().map(|table| table.request.clone()).collect();
        let saved = &steps.saved;
        let entities = rules.iter().map(|rule| loader.entity(&rule.entity).unwrap_or(0)).collect::<Vec<_>>();
        let table_of: HashMap<TableId, usize> =
            tables.iter().enumerate().map(|(n, t)| (t.request.table.clone(), n)).collect();
        let rule_table = rules.iter().map(|rule| table_of.get(&rule.table).copied()).collect();
        let counts = Counts {
            changes: vec![[0; 4]; tables.len()],
            snapshot_rows: vec![0; tables.len()],
            suppressed: vec![[0; 2]; rules.len()],
            coalesced: vec![[0; 2]; rules.len()],
            delivered: vec![[0; 2]; rules.len()],
        };
        Self {
            connector: parts.connector.clone(),
            crm: parts.crm.clone(),
            store: parts.store.clone(),
            config: parts.config.clone(),
            outlet: parts.outlet.clone(),
            metrics: parts.outlet.metrics.clone(),
            rule_entity: entities,
            rule_table,
            rules,
            table_of,
            tables,
            loader,
            tickets: Tickets::new(saved.position.clone()),
            tail: Some(tail),
            bindings,
            // Its first message is what the start was made from.
            tail_is_new: false,
            reopen_at: None,
            reopen_failures: 0,
            folding,
            folded: HashSet::new(),
            version: saved.next_version.saturating_sub(super::step::VERSION_RESERVE),
            ceiling: saved.next_version,
            generation: saved.generation,
            steps,
            reread: Reread::default(),
            assembly: Assembly::default(),
            fan_out: FanOut::default(),
            woken: HashSet::new(),
            triggers: Vec::new(),
            requests: Arc::new(requests),
            started_ms: i64::try_from(unix_ms()).unwrap_or(i64::MAX),
            settled_since_flush: 0,
            commit_time: None,
            idle_at: None,
            asked_position: None,
            events,
            inbox,
            stopping: false,
            stop_by: None,
            failed: None,
            position_lost: None,
            counts,
            rates: Totals::default(),
            troubles: HashMap::new(),
            last_error: None,
            lag: Lag::default(),
            lag_at: None,
            reported_at: None,
            window_bytes: usize::try_from(parts.config.limits.memory / 3).unwrap_or(usize::MAX),
            window_records: parts.config.limits.window_records,
            reporter: super::report::Reporter::default(),
            pausing: Vec::new(),
            daily_use: (parts.config.delivery.daily_quota > 0).then(|| DailyUse::of(parts.store.dir())),
            watch,
        }
    }

    /// Runs until it is told to stop or cannot go on.
    pub async fn run(
        mut self,
        commands: &mut mpsc::Receiver<AdminCommand>,
        stop: &mut tokio::sync::watch::Receiver<bool>,
    ) -> End {
        loop {
            let now = Instant::now();
            self.outlet.heartbeat.beat();
            if *stop.borrow() && !self.stopping {
                self.begin_stop(now);
            }
            self.pump(now);
            if let Some(end) = self.end(now) {
                self.report(now, true);
                return self.finish(end).await;
            }
            let wants_messages = self.wants_messages();
            let wake = self.wake_at(now);
            tokio::select! {
                biased;
                _ = stop.changed(), if !self.stopping => {}
                Some(event) = self.inbox.recv() => {
                    self.take_event(event);
                    // What is there already is taken before the next look around.
                    while let Ok(event) = self.inbox.try_recv() {
                        self.take_event(event);
                    }
                }
                Some(command) = commands.recv() => self.take_command(command),
                message = receive(&mut self.tail), if wants_messages => match message {
                    Some(Ok(messages)) => {
                        if self.tail_is_new {
                            self.tail_is_new = false;
                            self.reopen_failures = 0;
                            self.recovered("source");
                        }
                        self.take_messages(messages, Instant::now());
                    }
                    Some(Err(error)) => self.tail_failed(error),
                    None => self.tail_failed(SourceError::new(ErrorKind::Bug, "the change stream ended without an error")),
                },
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
    }

    fn wants_messages(&self) -> bool {
        self.tail.is_some()
            && !self.stopping
            && self.failed.is_none()
            && self.position_lost.is_none()
            // What was sent before a crash must be taken in whole, whatever the window: it fitted into it then.
            && (self.holds_back() || !self.window_is_full() || self.waits_for_a_place())
            && self.ceiling.saturating_sub(self.version) > super::step::VERSION_RESERVE / 10
    }

    /// Whether no more changes may be taken in (P7).
    pub fn window_is_full(&self) -> bool {
        self.backpressure() >= 1.0
    }

    /// Whether the tail is behind what may have been sent before a crash: what it tells may be older than what the CRM holds,
    /// unless the source tells rows as they are now.
    pub fn holds_back(&self) -> bool {
        self.folding.is_some() && !self.connector.capabilities().net_changes
    }

    /// Whether nothing at all can be sent before the source says where it is: then the window's limit would be for ever.
    /// Connectors give places inside a large transaction well before (R2), so this is for one that cannot, and for rows so
    /// large that a few fill the window.
    fn waits_for_a_place(&self) -> bool {
        self.tickets.covered() != self.tickets.last() && self.steps.is_quiet() && self.loader.queue.is_all_fresh()
    }

    /// Share of the window that is full.
    pub fn backpressure(&self) -> f64 {
        let share = |used: usize, limit: usize| used as f64 / limit.max(1) as f64;
        share(self.loader.queue.bytes(), self.window_bytes)
            .max(share(self.loader.queue.records(), self.window_records))
            .max(share(self.tickets.span(), SPAN_LIMIT))
    }

    /// Everything that may happen without waiting for anything.
    fn pump(&mut self, now: Instant) {
        if self.failed.is_none() {
            self.release_chunks(now);
            self.release_reread(now);
            self.start_passes();
            self.read_chunks();
            self.sweep_tables();
            self.maybe_reread(now);
            self.assemble(now);
            self.fan_out(now);
        }
        self.dispatch(now);
        self.effects();
        self.loader.ledger().keep_pace();
        if let Some(error) = self.loader.ledger().take_trouble() {
            self.store_trouble(error);
        }
        if self.loader.in_flight() == 0 {
            // Who asks for the status next is told that it is paused.
            if !self.pausing.is_empty() {
                self.report(now, false);
            }
            for reply in self.pausing.drain(..) {
                let _ = reply.send(Ok(()));
            }
        }
        self.maybe_flush(now);
        self.maybe_step(now);
        self.ask_position(now);
        self.reopen(now);
        self.ask_lag(now);
        self.look_at_model(now);
        if self.reported_at.is_none_or(|at| now >= at + REPORT) {
            self.report(now, false);
        }
    }

    fn wake_at(&self, now: Instant) -> Instant {
        let mut wake = self.reported_at.map_or(now, |at| at + REPORT);
        if let Some(at) = self.loader.wake_at() {
            wake = wake.min(at.max(now + Duration::from_millis(1)));
        }
        if self.waits_for_position() || self.loader.queue.has_fresh() {
            wake = wake.min(now + Duration::from_millis(4));
        }
        wake
    }

    fn take_event(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Read { table, pass, result } => self.chunk_read(table, pass, result),
            Event::Mapped { table, pass, number, page } => self.chunk_mapped(table, pass, number, page, now),
            Event::Answer { request, result, took } => self.answered(request, result, took),
            Event::Stepped(step, flush_first, result) => self.stepped(*step, flush_first, result),
            Event::Flushed(result) => self.flushed(result, now),
            Event::Fetched(result) => self.fetched(result, now),
            Event::Gathered(result) => self.gathered(result, now),
            Event::FannedOut(result) => self.fanned_out(result, now),
            Event::Swept { table, pass, result } => self.swept(table, pass, result, now),
            Event::ModelRead(result) => self.model_read(result, now),
            Event::Lag(result) => match result {
                Ok(lag) => {
                    self.recovered("lag");
                    self.lag = lag;
                }
                Err(error) => {
                    self.lag = Lag::default();
                    if error.kind != ErrorKind::PositionLost {
                        self.source_trouble("lag", error);
                    }
                }
            },
        }
    }

    // ---------------------------------------------------------------- the tail

    fn waits_for_position(&self) -> bool {
        self.folding.is_some()
            || self.reread.is_holding()
            || self.tables.iter().any(|t| matches!(&t.life, Life::Snapshot(run) if run.front().is_some()))
    }

    fn ask_position(&mut self, now: Instant) {
        let Some(tail) = &self.tail else { return };
        let due = match self.asked_position {
            // The answer is still out; a lost wish is repeated after a while.
            Some(at) => now >= at + ASK_IDLE,
            None if self.waits_for_position() => self.idle_at.is_none_or(|at| now >= at + ASK_AGAIN),
            None => self.idle_at.is_none_or(|at| now >= at + ASK_IDLE),
        };
        if due {
            self.asked_position = Some(now);
            tail.control(Control::RequestPosition);
        }
    }

    fn tail_failed(&mut self, error: SourceError) {
        self.tail = None;
        self.asked_position = None;
        self.metrics.source_error(error.kind.as_str());
        match error.kind {
            ErrorKind::PositionLost => self.position_lost = Some(error),
            ErrorKind::Unreachable | ErrorKind::Cancelled => {
                self.reopen_failures += 1;
                let pause = backoff(&self.config.delivery.retry, self.reopen_failures);
                self.reopen_at = Some(Instant::now() + pause);
                self.source_trouble("source", error);
            }
            _ => self.fail(error.into()),
        }
    }

    fn reopen(&mut self, now: Instant) {
        if self.tail.is_some() || self.stopping || self.failed.is_some() || self.reopen_at.is_none_or(|at| now < at) {
            return;
        }
        self.reopen_at = None;
        // Everything up to the tail's last position is here already. What was taken after it is taken again, and was
        // not sent: nothing is sent before a step that covers it.
        let from = self.tickets.head().cloned();
        let requests = self.tables.iter().map(|t| t.request.clone()).collect();
        self.tail = Some(Tail::open(self.connector.clone(), requests, from, self.bindings.clone()));
        self.tail_is_new = true;
    }

    fn ask_lag(&mut self, now: Instant) {
        if self.tail.is_none() || self.tail_is_new || self.lag_at.is_some_and(|at| now < at + LAG) {
            return;
        }
        self.lag_at = Some(now);
        let (connector, events) = (self.connector.clone(), self.events.clone());
        let from = self.tickets.low().cloned();
        tokio::spawn(async move {
            let _ = events.send(Event::Lag(connector.lag(from.as_ref()).await));
        });
    }

    // ---------------------------------------------------------------- snapshots

    /// Tables whose turn it is begin to be read, once their generation is durable and their parents are done.
    fn start_passes(&mut self) {
        if self.folding.is_some() || self.stopping || self.tail_is_new {
            return;
        }
        let running = self.tables.iter().filter(|t| matches!(t.life, Life::Snapshot(_))).count();
        let mut free = self.config.snapshot.parallel_tables.max(1).saturating_sub(running);
        for index in 0..self.tables.len() {
            let table = &self.tables[index];
            let Life::Pending { force } = table.life else { continue };
            let is_saved = self.steps.saved.tables.get(&table.name).is_some_and(|s| s.generation == table.generation);
            let parents_done = table.after.iter().all(|&parent| !self.tables[parent].awaits_rows());
            if free > 0 && is_saved && parents_done {
                self.begin_pass(index, force);
                free -= 1;
            }
        }
    }

    fn read_chunks(&mut self) {
        if self.stopping || self.folding.is_some() || self.window_is_full() {
            return;
        }
        if self.assembly.is_full() {
            return;
        }
        for index in 0..self.tables.len() {
            let Some(run) = self.tables[index].run() else { continue };
            let held = run.held.len();
            if run.is_reading || run.is_read || held + run.open.len() >= OPEN_CHUNKS || held >= HELD_CHUNKS {
                continue;
            }
            run.is_reading = true;
            let (number, after) = (run.next_read(), run.read_from.clone());
            self.read_chunk(index, number, after, Duration::ZERO);
        }
    }

    /// Reads a page of the running pass in a task of its own, which also maps it; meanwhile the next one is read.
    fn read_chunk(&self, index: usize, number: u32, after: Option<ScanCursor>, pause: Duration) {
        let limit = self.config.snapshot.chunk_rows.max(1);
        let table = &self.tables[index];
        let (request, pass) = (table.request.clone(), table.pass);
        let (schema, bound) = (table.schema.clone(), table.bound.clone());
        let (connector, events) = (self.connector.clone(), self.events.clone());
        tokio::spawn(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            match connector.snapshot_chunk(&request, after.as_ref(), limit).await {
                Ok(chunk) => {
                    let _ = events.send(Event::Read { table: index, pass, result: Ok(chunk.next.clone()) });
                    let page = Page::of(chunk, &schema, &bound).await;
                    let _ = events.send(Event::Mapped { table: index, pass, number, page });
                }
                Err(error) => {
                    let _ = events.send(Event::Read { table: index, pass, result: Err(error) });
                }
            }
        });
    }

    fn chunk_read(&mut self, index: usize, pass: u32, result: tidemark_contract::Result<Option<ScanCursor>>) {
        if self.tables[index].pass != pass {
            return;
        }
        let next = match result {
            Ok(next) => {
                self.recovered("source_read");
                next
            }
            Err(error) => return self.chunk_failed(index, pass, error),
        };
        let Some(run) = self.tables[index].run() else { return };
        run.is_reading = false;
        run.is_read = next.is_none();
        run.read_from = next;
        run.held.push_back(None);
    }

    fn chunk_mapped(&mut self, index: usize, pass: u32, number: u32, page: Page, now: Instant) {
        if self.tables[index].pass != pass {
            return;
        }
        let Some(run) = self.tables[index].run() else { return };
        run.hold(number, page);
        self.release_chunks(now);
    }

    fn chunk_failed(&mut self, index: usize, pass: u32, error: SourceError) {
        self.metrics.source_error(error.kind.as_str());
        match error.kind {
            ErrorKind::Unreachable | ErrorKind::Cancelled => {
                self.source_trouble("source_read", error);
                self.chunk_again(index, pass);
            }
            ErrorKind::SchemaChanged
            | ErrorKind::SettingWrong
            | ErrorKind::Undecodable
            | ErrorKind::PermissionMissing => {
                let hint = error.hint.as_deref().map(|hint| format!("; {hint}")).unwrap_or_default();
                let reason = format!("its rows cannot be read: {error}{hint}");
                self.tables[index].end_pass();
                self.needs_attention(index, reason);
            }
            ErrorKind::PositionLost => self.position_lost = Some(error),
            ErrorKind::AuthRefused | ErrorKind::Bug => self.fail(error.into()),
        }
    }

    /// The same page once more, a little later.
    fn chunk_again(&mut self, index: usize, pass: u32) {
        let Some(run) = self.tables[index].run() else { return };
        // `is_reading` stays set: nobody else reads meanwhile.
        let (number, after) = (run.next_read(), run.read_from.clone());
        if self.tables[index].pass == pass {
            self.read_chunk(index, number, after, Duration::from_secs(1));
        }
    }

    // ---------------------------------------------------------------- sweeps

    fn sweep_tables(&mut self) {
        for index in 0..self.tables.len() {
            let settled = self.tickets.settled();
            // Pages of an earlier pass may still be on their way: what they bring must be there to be swept.
            let is_clear = self.tables[index].outstanding == 0;
            let Some(run) = self.tables[index].run() else { continue };
            let is_due = match run.sweep {
                Sweep::WaitFor(ticket) => settled >= ticket && is_clear,
                Sweep::Removing(0) => true,
                _ => false,
            };
            if is_due && !self.stopping {
                self.search_ledger(index);
            }
        }
    }

    /// Looks for records that the pass did not see: their rows are gone from the source.
    fn search_ledger(&mut self, index: usize) {
        let table = &mut self.tables[index];
        let (generation, pass) = (table.generation, table.pass);
        let Life::Snapshot(run) = &mut table.life else { return };
        run.sweep = Sweep::Searching;
        let rules: Vec<_> = table
            .bound
            .iter()
            .enumerate()
            .filter_map(|(n, (rule, _))| Some((n, self.loader.ledger().id(rule.id)?)))
            .collect();
        let (store, events) = (self.store.clone(), self.events.clone());
        let limit = usize::try_from(self.config.state.sweep_guard.max_records)
            .unwrap_or(usize::MAX)
            .saturating_add(1)
            .min(5_000);
        tokio::task::spawn_blocking(move || {
            let search = || {
                let (mut found, mut total) = (Vec::new(), 0);
                for (n, id) in rules {
                    total += store.ledger().count(id);
                    let records = store.ledger().older_than(id, generation, None, limit - found.len().min(limit))?;
                    found.extend(records.into_iter().map(|record| (n, record)));
                }
                Ok((found, total))
            };
            let _ = events.send(Event::Swept { table: index, pass, result: search() });
        });
    }

    fn swept(
        &mut self,
        index: usize,
        pass: u32,
        result: Result<(Vec<(usize, Record)>, u64), StoreError>,
        now: Instant,
    ) {
        if self.tables[index].pass != pass {
            return;
        }
        let (found, total) = match result {
            Ok(found) => found,
            Err(error) => return self.store_trouble(error),
        };
        let generation = self.tables[index].generation;
        let found: Vec<_> = found
            .into_iter()
            .filter(|(n, record)| {
                let (rule, _) = &self.tables[index].bound[*n];
                let entity = self.entity_of(rule);
                // The tail may have spoken of it since the search.
                self.loader.queue.find(entity, &record.external_id).is_none()
                    && self.loader.ledger().is_older(rule.id, record, generation)
            })
            .collect();
        if found.is_empty() {
            return self.pass_finished(index);
        }
        let Life::Snapshot(run) = &self.tables[index].life else { return };
        let guard = &self.config.state.sweep_guard;
        let (count, share) = (found.len() as u64, found.len() as f64 / total.max(1) as f64);
        if guard.holds_back(count, total) && !run.force {
            let name = self.tables[index].name.clone();
            let reason = format!(
                "a full pass did not find {} of {total} records again ({:.0} %), more than [state] sweep_guard lets go at \
                 once; nothing was deleted. If they are really gone: `tidemark resync {} --table {name} --force`",
                if count > guard.max_records { format!("more than {}", guard.max_records) } else { count.to_string() },
                share * 100.0,
                self.config.tenant,
            );
            self.tables[index].end_pass();
            return self.needs_attention(index, reason);
        }
        tracing::info!(table = self.tables[index].name, records = count, "sweeping records whose rows are gone");
        if let Some(run) = self.tables[index].run() {
            run.sweep = Sweep::Removing(found.len());
        }
        let bound = self.tables[index].bound.clone();
        let width = self.tables[index].schema.columns.len();
        for (n, record) in found {
            let (rule, program) = &bound[n];
            self.sweep_record(index, rule, program, &record, width, now);
        }
    }

    fn sweep_record(
        &mut self,
        index: usize,
        rule: &Arc<Rule>,
        program: &crate::mapping::BoundRule,
        record: &Record,
        width: usize,
        now: Instant,
    ) {
        let origin = Origin::Sweep { table: index as u16 };
        let key = record.entry.owner.clone().unwrap_or_else(|| super::swept_key(&record.external_id));
        match super::capture::removal(rule.on_delete, program, &super::capture::unknown_row(width)) {
            Ok(Some(op)) => {
                self.void(rule, &record.external_id);
                self.queue(rule, key, record.external_id.clone(), op, origin, true, now);
            }
            Ok(None) => {
                // It stays in the CRM; it is only not ours any more.
                self.loader.ledger().removed(rule.id, &record.external_id);
                self.settle(origin);
            }
            Err(rejection) => {
                self.loader.ledger().removed(rule.id, &record.external_id);
                self.reject_row(rule, &key, rejection, origin);
            }
        }
    }

    /// A pass has ended: rows, tail and sweep.
    fn pass_finished(&mut self, index: usize) {
        let table = &mut self.tables[index];
        table.end_pass();
        let Life::Snapshot(run) = &table.life else { return };
        table.rows = run.rows_done;
        table.completed_at = i64::try_from(unix_ms()).ok();
        let seconds = run.begun.elapsed().as_secs_f64();
        tracing::info!(table = table.name, rows = table.rows, seconds, "snapshot complete");
        table.life = Life::Live;
        self.steps.wanted = true;
        // Somebody may be waiting for it.
        self.reported_at = None;
        if self.loader.ledger().is_incomplete() && self.tables.iter().all(|t| matches!(t.life, Life::Live)) {
            let store = self.store.clone();
            self.loader.ledger_mut().set_complete();
            tokio::task::spawn_blocking(move || {
                if let Err(error) = store.set_ledger_whole() {
                    tracing::warn!(%error, "could not note that the ledger is whole again; the next full pass will");
                }
            });
        }
    }

    // ---------------------------------------------------------------- delivery

    fn dispatch(&mut self, now: Instant) {
        if self.failed.is_some() {
            return;
        }
        let now = Now { instant: now, unix_ms: unix_ms() };
        while let Some(request) = self.loader.next_request(now) {
            let (crm, events) = (self.crm.clone(), self.events.clone());
            let entity: Box<str> = self.loader.entity_name(request.entity).into();
            tokio::spawn(async move {
                let begun = Instant::now();
                let result = {
                    let records: Vec<WriteRecord<'_>> = request
                        .items
                        .iter()
                        .map(|item| WriteRecord {
                            external_id: &item.external_id,
                            version: item.change.version,
                            document: item.document(),
                        })
                        .collect();
                    if request.is_delete {
                        crm.delete(&entity, &records).await
                    } else {
                        crm.upsert(&entity, &records).await
                    }
                };
                let _ = events.send(Event::Answer { request, result, took: begun.elapsed() });
            });
        }
    }

    fn answered(&mut self, request: Request, result: crm::Result<Vec<Outcome>>, took: Duration) {
        let entity = self.loader.entity_name(request.entity);
        let code = match &result {
            Ok(_) => Ok(200),
            Err(error) => {
                error.status.ok_or(if took >= Duration::from_secs(5) { NoAnswer::Timeout } else { NoAnswer::Broken })
            }
        };
        self.metrics.crm_request(entity, code, took);
        match &result {
            Ok(_) => self.recovered("crm"),
            Err(error) => {
                let policy = Kind::Crm(error.kind).policy();
                let (status, records) = (error.status, request.items.len());
                if error.kind == CrmErrorKind::Refused {
                    // The CRM's own words may quote the record: they go into dead letters, not into logs (P8).
                    tracing::warn!(entity, status, records, "the CRM refused a request as a whole; it is halved");
                } else {
                    tracing::warn!(entity, status, kind = policy.word, records, "{error}");
                    self.trouble("crm", policy.word, error.message.clone(), Some(policy.advice.to_string()));
                }
            }
        }
        self.loader.answered(request, result, Now { instant: Instant::now(), unix_ms: unix_ms() });
        let throttled = self.loader.take_throttled();
        if !throttled.is_zero() {
            self.metrics.throttled(throttled);
        }
    }

    /// Carries out what follows from answers.
    fn effects(&mut self) {
        for effect in self.loader.effects() {
            match effect {
                Effect::Settled { entity, rule, key, external_id, is_delete, fate, origins } => {
                    let rule = self.rules[usize::from(rule.0)].clone();
                    match fate {
                        Fate::Delivered | Fate::Stale => {
                            self.counts.delivered[usize::from(entity)][usize::from(is_delete)] += 1;
                        }
                        Fate::Suppressed => self.counts.suppressed[usize::from(entity)][usize::from(is_delete)] += 1,
                    }
                    if fate == Fate::Delivered && !self.folded.is_empty() {
                        self.folded.remove(&(rule.id, key.clone()));
                    }
                    if fate != Fate::Stale {
                        self.clear_dead_letter(&rule, &key);
                    }
                    if !self.woken.is_empty() {
                        self.woken.remove(&(rule.name.to_string(), key.clone()));
                    }
                    if !is_delete && fate == Fate::Delivered {
                        self.parent_landed(&rule, &external_id);
                    }
                    origins.into_iter().for_each(|origin| self.settle(origin));
                }
                Effect::DeadLetter { rule, key, external_id, is_delete, reason, attempts, origins, .. } => {
                    self.watch.refused();
                    let rule = self.rules[usize::from(rule.0)].clone();
                    self.set_aside(DeadLetter {
                        id: 0,
                        at: i64::try_from(unix_ms()).unwrap_or(i64::MAX),
                        rule: rule.name.to_string(),
                        entity: rule.entity.to_string(),
                        table: rule.table.to_string(),
                        external_id: Some(external_id.into()),
                        key,
                        op: if is_delete { WriteOp::Delete } else { WriteOp::Upsert },
                        code: reason.code.into(),
                        field: reason.field.map(Into::into),
                        message: reason.message.into(),
                        attempts,
                    });
                    self.steps.settle_after.extend(origins);
                }
                Effect::LeftOut { rule, key, external_id, left_out } => {
                    let rule = self.rules[usize::from(rule.0)].clone();
                    let is_woken = !self.woken.is_empty() && self.woken.contains(&(rule.name.to_string(), key.clone()));
                    let parents = left_out.parents.into_iter().map(|(e, id)| (e.into(), id.into())).collect();
                    let (reason, attempts) = (Reason::LeftOut { parents }, left_out.attempts);
                    self.put_obligation(&rule, &key, Some(external_id), reason, attempts, super::unix_ms());
                    if let Some(obligation) = self.steps.put_obligations.last_mut().filter(|_| is_woken) {
                        obligation.due = 0;
                    }
                }
                Effect::Obligation { rule, key, external_id, reason, since_ms, attempts, is_delivered, origins } => {
                    let rule = self.rules[usize::from(rule.0)].clone();
                    if is_delivered {
                        self.parent_landed(&rule, &external_id);
                    }
                    let in_circle = self.is_in_circle(&rule, &external_id, &reason);
                    let is_woken = !self.woken.is_empty() && self.woken.remove(&(rule.name.to_string(), key.clone()));
                    let reason = match super::capture::reason(reason) {
                        Reason::WaitingForParent { entity, external_id } if in_circle => {
                            Reason::Circle { entity, external_id }
                        }
                        reason => reason,
                    };
                    self.put_obligation(&rule, &key, Some(external_id), reason, attempts, since_ms);
                    if let Some(obligation) = self.steps.put_obligations.last_mut().filter(|_| is_woken || in_circle) {
                        obligation.due = 0;
                    }
                    self.steps.settle_after.extend(origins);
                }
                Effect::Fatal(error) => self.fail(error.into()),
            }
        }
        let limit = self.config.delivery.max_dead_letters;
        if self.failed.is_none() && self.reporter.dead_letters > limit {
            self.fail(Error::new(
                DaemonKind::TooManyDeadLetters,
                format!(
                    "{} records were set aside, more than [delivery.dead_letters] max_records = {limit}: going on would \
                     empty the source into the dead letters",
                    self.reporter.dead_letters
                ),
            ));
        }
    }

    /// Whether a record's parent waits for that record, directly or through others: then neither would ever come.
    fn is_in_circle(&mut self, rule: &Rule, external_id: &str, why: &crate::loader::Why) -> bool {
        let crate::loader::Why::Parent { entity, external_id: parent } = why else { return false };
        let mut reached: HashSet<(Box<str>, Box<str>)> = HashSet::new();
        let mut open = vec![(rule.entity.clone(), Box::<str>::from(external_id))];
        while let Some((of, id)) = open.pop() {
            if reached.len() >= CIRCLE || !reached.insert((of.clone(), id.clone())) || !self.store.may_await(&of, &id) {
                continue;
            }
            let waiting = match self.store.waiting_for(&of, &id, CIRCLE) {
                Ok(waiting) => waiting,
                Err(error) => {
                    self.store_trouble(error);
                    return false;
                }
            };
            for waits in waiting {
                let feeds = self.rules.iter().find(|r| *r.name == *waits.rule).map(|r| r.entity.clone());
                if let (Some(feeds), Some(id)) = (feeds, waits.external_id) {
                    if feeds == *entity && *id == **parent {
                        return true;
                    }
                    open.push((feeds, id.into()));
                }
            }
        }
        false
    }

    /// Records that wait for this parent are read again at once.
    fn parent_landed(&mut self, rule: &Rule, external_id: &str) {
        if !self.store.may_await(&rule.entity, external_id) {
            return;
        }
        match self.store.waiting_for(&rule.entity, external_id, 10_000) {
            Ok(waiting) => {
                let now = i64::try_from(unix_ms()).unwrap_or(i64::MAX);
                // One that is being served, or was and is only not forgotten yet, must not be put again: records that
                // refer to each other in a circle would send each other for ever.
                for obligation in waiting {
                    if self.reread.is_underway(&obligation) {
                        // It may be on its way to the CRM since before the parent was there.
                        self.woken.insert((obligation.rule, obligation.key));
                    } else if obligation.due > now && !self.steps.is_met(&obligation) {
                        self.steps.put_obligations.push(Obligation { due: 0, ..obligation });
                    }
                }
                self.reread.hurry();
            }
            Err(error) => self.store_trouble(error),
        }
    }

    /// A change is settled: whatever waited for it moves on.
    pub fn settle(&mut self, origin: Origin) {
        self.settled_since_flush += 1;
        self.rates.settled += 1;
        match origin {
            Origin::Ticket(ticket) => self.tickets.settle(ticket),
            Origin::Chunk { table, chunk } => {
                let index = usize::from(table);
                self.tables[index].outstanding = self.tables[index].outstanding.saturating_sub(1);
                if self.tables[index].run().is_some_and(|run| run.settle(chunk)) {
                    self.rows_finished(index);
                }
            }
            Origin::Reread(number) => self.reread_settled(number),
            Origin::Sweep { table } => {
                if let Some(run) = self.tables[usize::from(table)].run()
                    && let Sweep::Removing(left) = &mut run.sweep
                {
                    *left = left.saturating_sub(1);
                }
            }
            Origin::None => {}
        }
    }

    /// The number of a rule's entity.
    pub fn entity_of(&self, rule: &Rule) -> EntityId {
        self.rule_entity[usize::from(rule.id.0)]
    }

    /// The record that a row is known as, for rules whose external id does not come from the key.
    pub fn known_as(&self, rule: &Rule, key: &RowKey) -> Option<Box<str>> {
        self.loader.ledger().known_as(rule.id, key)
    }

    /// The row that a record belongs to, for rules whose external id does not come from the key.
    pub fn ledger_owner(&self, rule: &Rule, external_id: &str) -> Option<RowKey> {
        self.loader.ledger().owner(rule.id, external_id)
    }

    // ---------------------------------------------------------------- troubles and the end

    pub fn fail(&mut self, error: Error) {
        if self.failed.is_none() {
            let hint = error.hints().join("; ");
            self.trouble("fatal", error.kind().policy().word, error.to_string(), (!hint.is_empty()).then_some(hint));
            self.failed = Some(error);
        }
    }

    pub fn store_trouble(&mut self, error: StoreError) {
        if error.is_transient() {
            tracing::error!(error = %error, "the state could not be saved; nothing moves until it can be");
            self.trouble("store", "store", error.to_string(), error.hint());
        } else {
            self.fail(error.into());
        }
    }

    pub fn source_trouble(&mut self, what: &'static str, error: SourceError) {
        tracing::warn!(kind = error.kind.as_str(), hint = error.hint, "{error}");
        self.trouble(what, error.kind.as_str(), error.to_string(), error.hint);
    }

    fn trouble(&mut self, what: &'static str, kind: &str, message: String, hint: Option<String>) {
        let status = ErrorStatus { at: Some(Moment(unix_us())), kind: kind.into(), message, hint, recovered: false };
        self.troubles.insert(what, status.clone());
        self.last_error = Some(status);
    }

    /// What was wrong works again.
    pub fn recovered(&mut self, what: &'static str) {
        if let Some(was) = self.troubles.remove(what) {
            tracing::info!(what, "works again after: {}", was.message);
            if let Some(last) = &mut self.last_error
                && last.message == was.message
            {
                last.recovered = true;
            }
        }
    }

    /// Drains what is on its way, within the stop timeout.
    pub fn begin_stop(&mut self, now: Instant) {
        self.stopping = true;
        self.loader.set_hurry(true);
        self.stop_by = Some(now + super::STOP_TIMEOUT);
        tracing::info!("stopping: what is on its way is finished and saved");
        self.outlet.stopping();
    }

    fn end(&mut self, now: Instant) -> Option<End> {
        if self.failed.is_some() && self.loader.in_flight() == 0 && self.steps.is_quiet() {
            return self.failed.take().map(End::Failed);
        }
        if self.position_lost.is_some() && self.loader.in_flight() == 0 && self.steps.is_quiet() {
            return self.position_lost.take().map(End::PositionLost);
        }
        if !self.stopping {
            return None;
        }
        let is_late = self.stop_by.is_some_and(|by| now >= by);
        // Only requests that have left are waited for: the rest is taken again at the next start.
        self.loader.set_paused(true);
        let is_done = self.loader.in_flight() == 0 && (self.is_saved() || self.troubles.contains_key("store"));
        (is_done || is_late).then_some(End::Stopped)
    }

    async fn finish(mut self, end: End) -> End {
        if let Some(tail) = self.tail.take() {
            let _ = tokio::time::timeout(Duration::from_secs(3), tail.close()).await;
        }
        end
    }
}

async fn receive(tail: &mut Option<Tail>) -> Option<tidemark_contract::Result<Vec<Message>>> {
    match tail {
        Some(tail) => tail.messages.recv().await,
        None => std::future::pending().await,
    }
}
