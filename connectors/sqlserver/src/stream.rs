//! The tail: a task that polls the change tables, and the handle that the daemon holds.
//!
//! Each round asks once how far the log reader has come and which of the change tables moved, reads those that did, and
//! hands over what they hold in commit order. A position is given at the end of each transaction, and inside those that are
//! larger than a batch. Batches go through a channel that holds two of them; when the daemon does not keep up, the task
//! waits (R7).
//!
//! What a row of a change table means can depend on those before it in the same statement (see [`crate::pair`]). So a stream
//! that goes on from inside a transaction reads that transaction from its beginning, and hands over what is behind its place.
//!
//! On a quiet database the log reader's own idle rows move the place along, so that it never falls out of retention.

use crate::error::{bug, lost, server_code, setting_wrong, undecodable, unreachable};
use crate::fence::{Fence, Stalled, most_transactions};
use crate::pair::Pairs;
use crate::plan::{self, FINGERPRINT, Fingerprint, Plan};
use crate::position::{self, Lsn, Place, TRACKING, database_of, log_name, used_of};
use crate::session::Session;
use crate::sql::Cells;
use crate::window::{Window, cleaned_up};
use crate::{SqlServerConfig, tracking};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemark_contract::{ChangeStream, ErrorKind, Position, Result, SourceMessage, TableRequest};
use tidemark_login::Session as _;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// A batch is handed over when its rows take this many bytes.
pub(crate) const BATCH: usize = 128 << 10;

/// What the handle tells the task.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) asked: AtomicBool,
    pub(crate) closing: AtomicBool,
    pub(crate) wake: Notify,
}

/// The handle of a running tail.
pub(crate) struct Tail {
    batches: mpsc::Receiver<Result<Vec<SourceMessage>>>,
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
    /// The last position handed out, beyond which nothing can be acknowledged.
    received: Option<Position>,
    /// Changes come from change tracking.
    pub(crate) is_tracking: bool,
}

impl Drop for Tail {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

#[async_trait::async_trait]
impl ChangeStream for Tail {
    async fn next(&mut self, out: &mut Vec<SourceMessage>) -> Result<()> {
        let batch = self.batches.recv().await.unwrap_or_else(|| Err(unreachable("the stream has ended")))?;
        let place = |message: &SourceMessage| match message {
            SourceMessage::Commit(p) | SourceMessage::Resumable(p) | SourceMessage::Idle(p) => Some(p.clone()),
            _ => None,
        };
        if let Some(position) = batch.iter().rev().find_map(place) {
            self.received = Some(position);
        }
        out.extend(batch);
        Ok(())
    }

    async fn acknowledge(&mut self, position: &Position) -> Result<()> {
        match &self.received {
            // Changes are kept by time, not for us.
            Some(received) if position::was_received(received, position)? => Ok(()),
            _ => Err(bug(format!("position {position} is acknowledged, but was not received"))),
        }
    }

    async fn request_position(&mut self) -> Result<()> {
        self.shared.asked.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        self.batches.close();
        if let Some(mut task) = self.task.take()
            && timeout(Duration::from_secs(5), &mut task).await.is_err()
        {
            task.abort();
        }
        Ok(())
    }
}

impl Tail {
    /// The handle of a task that runs.
    pub(crate) fn new(
        batches: mpsc::Receiver<Result<Vec<SourceMessage>>>,
        shared: Arc<Shared>,
        task: JoinHandle<()>,
        is_tracking: bool,
    ) -> Self {
        Self { batches, shared, task: Some(task), received: None, is_tracking }
    }

    /// Connects, finds the capture instances, checks the position, and starts to poll.
    pub(crate) async fn start(
        config: Arc<SqlServerConfig>,
        requests: &[TableRequest],
        from: Option<&Position>,
        stalled: Arc<Stalled>,
    ) -> Result<Self> {
        let mut session = Session::open(&config).await?;
        if session.database.tracking {
            return tracking::start(&config, session, requests, from).await;
        }
        if from.is_some_and(|from| from.log.starts_with(TRACKING)) {
            return Err(lost("the stored position is one of change tracking, and changes now come from data capture"));
        }
        if !session.database.has_cdc {
            let message = format!("change data capture is not enabled in database {}", config.database);
            return Err(match from {
                Some(_) => lost(format!("{message}, but was at the stored position")),
                None => setting_wrong(message),
            }
            .hint(
                "EXEC sys.sp_cdc_enable_db, then sys.sp_cdc_enable_table for each table; \
                 where that cannot be had, change tracking will do (docs/sqlserver.md)",
            ));
        }
        let database = session.database.log.clone();
        let place = from.map(Place::parse).transpose()?;
        if let Some(from) = from
            && database_of(&from.log) != database
        {
            return Err(lost(format!(
                "the database is not the one of the stored position: it was restored or made again (`{}` then, `{database}` now)",
                database_of(&from.log)
            )));
        }
        stalled.check(&mut session.connection, config.capture_timeout).await?;
        let stored = from.map(|from| used_of(&from.log)).unwrap_or_default();
        let connection = &mut session.connection;
        // Before the plans: what happens in between shows as a change, and is looked at again.
        let fingerprint = connection.rows("looking at definitions", FINGERPRINT).await?;
        let plans = plan::load(connection, requests, &stored, place.map(|p| p.read)).await?;
        let doing = "asking how far the log reader has come";
        let sql = "SELECT sys.fn_cdc_get_max_lsn(), DATEDIFF(minute, GETUTCDATE(), GETDATE())";
        let rows = connection.rows(doing, sql).await?;
        let row = rows.first();
        let head = row.and_then(|row| row.bytes(0)).and_then(Lsn::of).unwrap_or_default();
        let starts = plans.iter().filter_map(|p| p.instance.start).max().unwrap_or_default();
        let most = most_transactions(connection).await?;
        let place = place.unwrap_or_else(|| Place::at(head.max(starts)));
        let (sender, batches) = mpsc::channel(2);
        let shared = Arc::new(Shared::default());
        let mut task = Task {
            log: Arc::from(""),
            database,
            requests: requests.to_vec(),
            sizes: vec![0; plans.len()],
            pairs: plans.iter().map(|_| Pairs::default()).collect(),
            plans,
            session,
            place,
            offset: row.and_then(|row| row.int(1)).unwrap_or(0),
            fingerprint: Fingerprint::of(&fingerprint),
            most,
            fence: None,
            shared: shared.clone(),
            sender,
            batch: Vec::new(),
            bytes: 0,
            pause: config.poll_interval,
            patience: config.capture_timeout,
            sees_scans: !config.read_only,
            stalled,
        };
        task.rename_log();
        // A position that is lost is told at once.
        task.look().await?;
        task.batch.push(SourceMessage::Idle(task.place.position(&task.log)));
        let task = tokio::spawn(task.run());
        Ok(Self::new(batches, shared, task, false))
    }
}

struct Task {
    session: Session,
    database: String,
    requests: Vec<TableRequest>,
    plans: Vec<Plan>,
    pairs: Vec<Pairs>,
    /// Average bytes of each plan's rows.
    sizes: Vec<usize>,
    log: Arc<str>,
    place: Place,
    /// Minutes that the server's clock is ahead of UTC.
    offset: i64,
    fingerprint: Fingerprint,
    most: i64,
    fence: Option<Fence>,
    shared: Arc<Shared>,
    sender: mpsc::Sender<Result<Vec<SourceMessage>>>,
    batch: Vec<SourceMessage>,
    bytes: usize,
    pause: Duration,
    /// How long the log reader may be silent.
    patience: Duration,
    /// Not on a replica.
    sees_scans: bool,
    stalled: Arc<Stalled>,
}

/// What one look at the server gave.
struct Look {
    /// How far the log reader has come.
    head: Lsn,
    fingerprint: Fingerprint,
    /// Plans whose change tables have rows behind the place.
    moved: Vec<usize>,
}

impl Task {
    async fn run(mut self) {
        if let Err(error) = self.pump().await {
            // What was read before the failure is good.
            self.hand_over().await;
            let _ = self.sender.send(Err(error)).await;
        }
    }

    fn rename_log(&mut self) {
        let used: Vec<_> = self.plans.iter().map(Plan::used).collect();
        self.log = log_name(&self.database, &used);
    }

    async fn pump(&mut self) -> Result<()> {
        while !self.shared.closing.load(Ordering::Acquire) {
            let busy = self.round().await?;
            self.hand_over().await;
            if !busy {
                let pause = if self.fence.is_some() { self.pause.min(Duration::from_millis(100)) } else { self.pause };
                let _ = timeout(pause, self.shared.wake.notified()).await;
            }
        }
        Ok(())
    }

    async fn hand_over(&mut self) {
        self.bytes = 0;
        if !self.batch.is_empty() && self.sender.send(Ok(std::mem::take(&mut self.batch))).await.is_err() {
            self.shared.closing.store(true, Ordering::Release);
        }
    }

    /// Looks once and reads what there is; whether there is more at once.
    async fn round(&mut self) -> Result<bool> {
        let mut passed = false;
        if self.shared.asked.swap(false, Ordering::AcqRel) && self.fence.is_none() {
            self.fence = Some(Fence::ask(&mut self.session.connection, self.sees_scans).await?);
        } else if let Some(fence) = self.fence.as_mut().filter(|_| self.sees_scans) {
            passed = fence.is_passed(&mut self.session.connection, self.most).await?;
            if let Some(error) = fence.stands_still(&mut self.session.connection, self.patience).await {
                self.stalled.note(fence.last);
                return Err(error);
            }
        }
        let look = match self.look().await {
            // An instance that cannot be seen may be gone: making the plans anew tells which.
            Err(error)
                if matches!(server_code(&error), Some(207 | 208))
                    || (error.kind == ErrorKind::PermissionMissing && server_code(&error).is_none()) =>
            {
                self.reload().await?;
                self.look().await?
            }
            other => other?,
        };
        passed |= self.fence.as_ref().is_some_and(|fence| look.head >= fence.end);
        let mut to = look.head;
        let changed = look.fingerprint != self.fingerprint;
        if changed {
            // Before anything is read: the old instance must not be read past the beginning of a younger one, which may hold
            // changes that the old one does not.
            plan::find_switches(&mut self.session.connection, &mut self.plans, self.place.read).await?;
        }
        let before = self.fingerprint.altered;
        let bounds =
            self.plans.iter().filter_map(|p| p.switch_at).chain(look.fingerprint.altered.filter(|a| Some(*a) > before));
        // An alteration lies between transactions: what is before it is read as it was.
        let bound = bounds.filter(|b| *b > self.place.read).min();
        if let Some(bound) = bound {
            to = to.min(bound);
        }
        let moved_on = to > self.place.read;
        if moved_on && !self.read(to, &look.moved).await? {
            return Ok(false);
        }
        let limited = to < look.head;
        if (changed || self.plans.iter().any(|p| p.switch_at.is_some_and(|at| at <= self.place.read)))
            && (limited || bound.is_none_or(|b| b <= self.place.read))
        {
            self.reload().await?;
            self.fingerprint = look.fingerprint;
        }
        if passed
            && !limited
            && let Some(fence) = self.fence.take()
        {
            self.place.seen = self.place.seen.max(fence.end);
            self.batch.push(SourceMessage::Idle(self.place.position(&self.log)));
        } else if moved_on && !matches!(self.batch.last(), Some(SourceMessage::Commit(_))) {
            self.batch.push(SourceMessage::Idle(self.place.position(&self.log)));
        }
        Ok(limited)
    }

    /// One question: how far the log reader has come, whether definitions changed, and for each table how far its changes go
    /// and how far back they reach.
    async fn look(&mut self) -> Result<Look> {
        let tables: Vec<String> = self
            .plans
            .iter()
            .enumerate()
            .map(|(at, p)| format!("SELECT {at}, MAX(c.[__$start_lsn]), {} FROM {} c", p.low_end(), p.change_table()))
            .collect();
        let sql = format!("SELECT sys.fn_cdc_get_max_lsn(); {FINGERPRINT}; {}", tables.join(" UNION ALL "));
        let doing = "asking how far the log reader has come";
        let results = self.session.connection.results(doing, &sql).await?;
        let head = results.first().and_then(|rows| rows.first()).and_then(|row| row.bytes(0)).and_then(Lsn::of);
        let starts = self.plans.iter().filter_map(|p| p.instance.start).max().unwrap_or_default();
        // No head at all: the clean-up has emptied the list of transactions, which says nothing about us.
        if head.is_some_and(|head| !head.is_zero() && head.max(starts) < self.place.read) {
            return Err(lost(
                "the log reader is behind the stored position: the database was restored, or change data \
                             capture was disabled and enabled again",
            ));
        }
        let mut moved = Vec::new();
        for row in results.get(2).into_iter().flatten() {
            let at = row.int(0).and_then(|at| usize::try_from(at).ok()).filter(|at| *at < self.plans.len());
            let at = at.ok_or_else(|| undecodable(format!("{doing}: an answer about no table")))?;
            let plan = &self.plans[at];
            if row.bytes(1).and_then(Lsn::of).is_some_and(|last| last > self.place.read) {
                moved.push(at);
            }
            let low = row.bytes(2).and_then(Lsn::of).unwrap_or_default();
            if low.is_zero() {
                let message = format!("capture instance {} cannot be seen", plan.instance.name);
                let role = plan.instance.role.as_deref().unwrap_or("the instance's gating role");
                return Err(tidemark_contract::SourceError::new(ErrorKind::PermissionMissing, message)
                    .hint(format!("ALTER ROLE {role} ADD MEMBER … and GRANT SELECT ON the table")));
            }
            if low > self.place.read.next().max(plan.floor) {
                return Err(cleaned_up(plan));
            }
        }
        let fingerprint = results.get(1).map(|rows| Fingerprint::of(rows)).unwrap_or_default();
        Ok(Look { head: head.unwrap_or(self.place.read), fingerprint, moved })
    }

    /// Reads everything behind the place up to and including `to`; `false` if the stream is closing meanwhile.
    async fn read(&mut self, to: Lsn, moved: &[usize]) -> Result<bool> {
        let mut window = Window::new(self.place.read, to, moved, self.offset);
        let mut commit = None;
        let mut unused = Vec::new();
        loop {
            let next = window.next(&mut self.session.connection, &self.plans, &mut self.sizes).await;
            let next = match next {
                // A change table was altered in place, or dropped, since the plan was made; nothing of the page was used.
                Err(error)
                    if error.kind == ErrorKind::SchemaChanged || matches!(server_code(&error), Some(207 | 208)) =>
                {
                    if commit.is_some() {
                        return Err(unreachable(format!("{error}; the stream must be opened again from its position")));
                    }
                    self.reload().await?;
                    window = Window::new(self.place.read, to, moved, self.offset);
                    window.next(&mut self.session.connection, &self.plans, &mut self.sizes).await?
                }
                other => other?,
            };
            let Some((at, change)) = next else { break };
            if let Some(before) = commit.replace(change.mark.commit)
                && before != change.mark.commit
            {
                self.commit(before);
                if self.bytes >= BATCH {
                    self.hand_over().await;
                }
            }
            if self.place.inside.is_some_and(|inside| change.mark <= inside) {
                self.pairs[at].take(&self.plans[at], change, &mut unused);
                unused.clear();
                continue;
            }
            let mark = change.mark;
            let plan = &mut self.plans[at];
            if !plan.announced {
                plan.announced = true;
                self.batch.push(SourceMessage::Schema(plan.shape.schema.clone()));
            }
            self.bytes += self.pairs[at].take(plan, change, &mut self.batch);
            if self.bytes >= BATCH {
                let place = Place { inside: Some(mark), ..self.place };
                self.batch.push(SourceMessage::Resumable(place.position(&self.log)));
                self.hand_over().await;
                if self.shared.closing.load(Ordering::Acquire) {
                    return Ok(false);
                }
            }
        }
        if let Some(last) = commit {
            self.commit(last);
        }
        // Nothing more up to `to`: a later round goes on from there.
        self.place = Place { read: to, seen: self.place.seen.max(to), inside: None };
        Ok(true)
    }

    fn commit(&mut self, at: Lsn) {
        self.place = Place { read: at, seen: self.place.seen.max(at), inside: None };
        self.batch.push(SourceMessage::Commit(self.place.position(&self.log)));
    }

    /// Makes the plans anew after definitions changed; schemas that differ are sent again.
    async fn reload(&mut self) -> Result<()> {
        let used: Vec<_> = self.plans.iter().map(Plan::used).collect();
        let mut plans = plan::load(&mut self.session.connection, &self.requests, &used, Some(self.place.read)).await?;
        for (new, old) in plans.iter_mut().zip(&self.plans) {
            new.floor = old.floor;
            if new.shape.schema == old.shape.schema {
                new.announced = old.announced;
            } else {
                self.batch.push(SourceMessage::Schema(new.shape.schema.clone()));
                new.announced = true;
            }
        }
        self.plans = plans;
        self.rename_log();
        Ok(())
    }
}
