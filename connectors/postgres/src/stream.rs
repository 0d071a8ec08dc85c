//! The tail: a task that owns the replication connection, and the handle that the daemon polls.
//!
//! The task decodes and hands over batches through a channel that holds two of them. When the daemon does not keep up, the
//! channel is full and the task stops *reading*, so that the server waits in its own buffers; but it never stops *reporting*:
//! status updates go out on time however slow the daemon is, or the server would cut the connection
//! (`wal_sender_timeout`). Memory is two batches, one in the making, and the read buffer, whatever a transaction's size (R7).
//!
//! A status update carries one place only: the acknowledged one. The server keeps everything after it.
//!
//! # When an Idle message is true
//!
//! The server reports how far it has read the log with each keepalive. Outside a transaction everything up to there has
//! been sent (messages and keepalives travel in order on one connection), so the place can be handed out, acknowledged, and
//! lets a quiet table's slot move on. When the daemon asks for a position, the log's head is read by SQL first, and the
//! answer waits until the server has read that far; the server is asked again and again, with growing pauses.

use crate::PostgresConfig;
use crate::assemble::{Assembler, Batch};
use crate::capture::Captures;
use crate::error::{bug, sqlstate, undecodable, unreachable};
use crate::pgoutput::{EPOCH, Frame, Message};
use crate::position::{self, History, Log, Lsn, Place, lost};
use crate::sql::Queries;
use crate::visible::Delivered;
use crate::wire::{Connection, ident};
use bytes::{BufMut, BytesMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidemark_contract::{ChangeStream, ErrorKind, Position, Result, SourceError, SourceMessage};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

/// Size of a batch handed to the daemon, in bytes of rows.
const BATCH: usize = 256 << 10;
/// How often an Idle message is sent unasked, at most.
const IDLE_EVERY: Duration = Duration::from_secs(1);
/// How often acknowledgements are passed on to the server, at most.
const ACKNOWLEDGE_EVERY: Duration = Duration::from_millis(250);

/// What the handle tells the task.
#[derive(Default)]
struct Shared {
    /// The acknowledged place.
    acknowledged: AtomicU64,
    /// A position was asked for.
    asked: AtomicBool,
    /// The stream is to end in order.
    closing: AtomicBool,
    wake: Notify,
}

/// The handle of a running tail.
pub(crate) struct Tail {
    batches: mpsc::Receiver<Result<Vec<SourceMessage>>>,
    shared: Arc<Shared>,
    task: Option<JoinHandle<()>>,
    log: Log,
    history: Arc<Mutex<History>>,
    /// The greatest place handed out, up to which acknowledgements make sense.
    received: Place,
}

impl Drop for Tail {
    /// Closes the socket, by which the server releases the slot.
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
        for message in batch.iter().rev() {
            if let SourceMessage::Commit(p) | SourceMessage::Resumable(p) | SourceMessage::Idle(p) = message {
                self.received = self.received.max(p.place.parse().unwrap_or(self.received));
                break;
            }
        }
        out.extend(batch);
        Ok(())
    }

    async fn acknowledge(&mut self, position: &Position) -> Result<()> {
        let (log, place) = position::parse(position)?;
        {
            let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
            self.log.accept(&log, place, &history)?;
        }
        if place > self.received {
            return Err(bug(format!("position {place} is acknowledged, but only {} was received", self.received)));
        }
        self.shared.acknowledged.fetch_max(place.lsn.0, Ordering::AcqRel);
        self.shared.wake.notify_one();
        Ok(())
    }

    async fn request_position(&mut self) -> Result<()> {
        self.shared.asked.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        Ok(())
    }

    async fn close(mut self: Box<Self>) -> Result<()> {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        // Nobody takes batches any more, so the task must not wait for room.
        self.batches.close();
        if let Some(mut task) = self.task.take()
            && timeout(Duration::from_secs(5), &mut task).await.is_err()
        {
            task.abort();
        }
        Ok(())
    }
}

/// What a stream is opened with.
pub(crate) struct Opening {
    pub(crate) connection: Connection,
    pub(crate) config: Arc<PostgresConfig>,
    pub(crate) captures: Captures,
    pub(crate) log: Log,
    pub(crate) history: Arc<Mutex<History>>,
    /// Everything up to here is already delivered.
    pub(crate) from: Place,
    pub(crate) handed_over: Arc<Delivered>,
}

impl Tail {
    /// Starts replication and the task that reads it.
    pub(crate) async fn start(opening: Opening) -> Result<Self> {
        let Opening { mut connection, config, captures, log, history, from, handed_over } = opening;
        let limit = connection.value("asking for wal_sender_timeout", SENDER_TIMEOUT).await?;
        let limit = match limit.and_then(|ms| ms.parse().ok()) {
            None | Some(0) => Duration::from_secs(60),
            Some(ms) => Duration::from_millis(ms),
        };
        start_replication(&mut connection, &config, from).await?;
        let shared = Arc::new(Shared::default());
        let (sender, batches) = mpsc::channel(2);
        let now = Instant::now();
        let mut task = Task {
            assembler: Assembler::new(&log, from, handed_over),
            connection,
            config,
            captures,
            shared: shared.clone(),
            sender,
            batch: Batch::default(),
            sender_timeout: limit,
            reported: 0,
            reported_at: now,
            heard_at: now,
            idle_at: now,
            publication_at: now,
            check_publication: false,
            answer_wanted: false,
            probed_at: now,
            ask: None,
        };
        task.assembler.idle(&mut task.batch, true);
        let task = tokio::spawn(task.run());
        Ok(Self { batches, shared, task: Some(task), log, history, received: from })
    }
}

const SENDER_TIMEOUT: &str = "SELECT setting FROM pg_settings WHERE name = 'wal_sender_timeout'";

/// Enters replication. The place given is where the server starts reading out transactions: those whose commit record lies
/// at or after it.
async fn start_replication(connection: &mut Connection, config: &PostgresConfig, from: Place) -> Result<()> {
    let publication = ident(&config.publication).replace('\'', "''");
    let command = format!(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names '{publication}')",
        ident(&config.slot),
        from.lsn
    );
    let deadline = Instant::now() + config.slot_wait;
    loop {
        match connection.copy_both("starting replication", &command).await {
            // Somebody was quicker than the check before: wait as that check does.
            Err(error) if sqlstate(&error) == Some("55006") && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            result => return result.map_err(|error| explain(error, config)),
        }
    }
}

/// Errors that mean something else in a replication stream than elsewhere.
fn explain(error: SourceError, config: &PostgresConfig) -> SourceError {
    match sqlstate(&error) {
        // Undefined object: the publication (or the slot) is not there at this place of the log.
        Some("42704") => SourceError { kind: ErrorKind::PositionLost, ..error }.hint(format!(
            "publication {} or slot {} was dropped: changes made meanwhile are not in the stream",
            config.publication, config.slot
        )),
        // "can no longer get changes from replication slot": invalidated.
        Some("55000") => SourceError { kind: ErrorKind::PositionLost, ..error },
        _ => error,
    }
}

/// A position that was asked for and not yet answered.
struct Ask {
    /// The head of the log at the time; unknown if it could not be read.
    goal: Option<Lsn>,
    /// When to ask the server again, and how long to wait after that.
    next: Instant,
    pause: Duration,
}

struct Task {
    connection: Connection,
    assembler: Assembler,
    config: Arc<PostgresConfig>,
    captures: Captures,
    shared: Arc<Shared>,
    sender: mpsc::Sender<Result<Vec<SourceMessage>>>,
    batch: Batch,
    sender_timeout: Duration,
    /// The place in the last status update, and when it was sent.
    reported: u64,
    reported_at: Instant,
    /// When the server was last heard.
    heard_at: Instant,
    idle_at: Instant,
    publication_at: Instant,
    /// A table has another name than before.
    check_publication: bool,
    /// The server wants a status update now.
    answer_wanted: bool,
    /// When it was last looked at whether the server is shutting down.
    probed_at: Instant,
    ask: Option<Ask>,
}

impl Task {
    async fn run(mut self) {
        let Err(error) = self.pump().await else { return };
        let error = explain(error, &self.config);
        // What was read before the failure is good.
        if !self.batch.messages.is_empty() {
            let _ = self.sender.send(Ok(std::mem::take(&mut self.batch).messages)).await;
        }
        let _ = self.sender.send(Err(error)).await;
    }

    async fn pump(&mut self) -> Result<()> {
        loop {
            self.take_frames().await?;
            self.look_after().await?;
            if self.shared.closing.load(Ordering::Acquire) {
                return self.finish().await;
            }
            let full = self.batch.bytes >= BATCH;
            if full {
                // We are not listening, so the server cannot be heard.
                self.heard_at = Instant::now();
            }
            let wake_at = self.wake_at();
            tokio::select! {
                biased;
                () = self.shared.wake.notified() => {}
                room = self.sender.reserve(), if !self.batch.messages.is_empty() => match room {
                    Ok(room) => room.send(Ok(std::mem::take(&mut self.batch).messages)),
                    // The handle is gone or closing.
                    Err(_) => self.shared.closing.store(true, Ordering::Release),
                },
                read = self.connection.read(), if !full => {
                    read?;
                    self.heard_at = Instant::now();
                }
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Decodes the frames that have arrived, until the batch is full.
    async fn take_frames(&mut self) -> Result<()> {
        while self.batch.bytes < BATCH {
            let Some((tag, range)) = self.connection.frames.take()? else { return Ok(()) };
            let body = self.connection.frames.body(range);
            match tag {
                b'd' => match Frame::parse(body)? {
                    Frame::Data(data) => {
                        if let Some(relation) = self.assembler.feed(Message::parse(data)?, &mut self.batch)? {
                            let limit = self.side_timeout();
                            let captured = timeout(limit, self.captures.resolve(&relation))
                                .await
                                .map_err(|_| unreachable(format!("the catalogue did not answer within {limit:?}")))??;
                            let renamed = self.assembler.define(relation.oid, captured);
                            self.check_publication |= renamed;
                        }
                    }
                    Frame::Keepalive { end, reply } => {
                        self.answer_wanted |= reply;
                        self.assembler.keepalive(end)?;
                    }
                },
                b'c' => return Err(unreachable("the server ended the stream")),
                b'E' => return Err(crate::error::ServerError::parse(body).into_source_error("reading the log")),
                b'N' | b'S' | b'A' => {}
                other => return Err(crate::wire::unexpected(other)),
            }
        }
        Ok(())
    }

    /// Everything that goes by the clock or by the daemon's wishes.
    async fn look_after(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.shared.asked.swap(false, Ordering::AcqRel) && self.ask.is_none() {
            self.ask = Some(Ask { goal: None, next: now, pause: Duration::from_millis(2) });
        }
        let asks_for_head = self.ask.as_ref().is_some_and(|ask| ask.goal.is_none() && now >= ask.next);
        if asks_for_head {
            let head = timeout(self.side_timeout(), self.captures.head()).await;
            if let Some(ask) = &mut self.ask {
                match head {
                    Ok(Ok(head)) => ask.goal = Some(head.lsn),
                    // Without knowing the head there is no true answer: try again later.
                    failed => {
                        let error = failed.ok().and_then(Result::err);
                        tracing::debug!(?error, "the head of the log could not be read");
                        ask.next = now + Duration::from_secs(1);
                    }
                }
            }
        }
        self.idle(now);
        let server_waits =
            self.answer_wanted && self.shared.acknowledged.load(Ordering::Acquire) < self.assembler.progress.0;
        self.report(now).await?;
        if server_waits && now.duration_since(self.probed_at) >= IDLE_EVERY {
            self.probed_at = now;
            self.check_shutdown().await?;
        }
        if now.duration_since(self.heard_at) > self.sender_timeout * 2 {
            return Err(unreachable(format!(
                "nothing was heard from the server for {:?}, although it was asked to answer",
                self.sender_timeout * 2
            )));
        }
        if self.check_publication || now.duration_since(self.publication_at) >= self.config.publication_check {
            (self.check_publication, self.publication_at) = (false, now);
            self.look_at_publication().await?;
        }
        Ok(())
    }

    /// Hands out the place up to which the log held nothing more, when it was asked for or is due.
    fn idle(&mut self, now: Instant) {
        if !self.assembler.is_between_transactions() {
            return;
        }
        let progress = self.assembler.progress;
        let answered = self.ask.as_ref().is_some_and(|ask| ask.goal.is_some_and(|goal| progress >= goal));
        if answered {
            self.ask = None;
        }
        if answered || now.duration_since(self.idle_at) >= IDLE_EVERY {
            self.idle_at = now;
            self.assembler.idle(&mut self.batch, answered);
        }
    }

    /// Sends a status update if one is due: on the server's demand, by the clock, for a new acknowledgement, or to ask how
    /// far the server has come.
    async fn report(&mut self, now: Instant) -> Result<()> {
        let place = self.shared.acknowledged.load(Ordering::Acquire);
        let since = now.duration_since(self.reported_at);
        let mut ping = false;
        if let Some(ask) = &mut self.ask
            && now >= ask.next
        {
            ping = true;
            ask.pause = (ask.pause * 2).min(Duration::from_millis(200));
            ask.next = now + ask.pause;
        }
        let due = self.answer_wanted
            || since >= self.report_every()
            || (place != self.reported && since >= ACKNOWLEDGE_EVERY);
        if !due && !ping {
            return Ok(());
        }
        // A server that was silent for half its own timeout is asked for a sign of life.
        let reply = ping || now.duration_since(self.heard_at) >= self.sender_timeout / 2;
        let update = status(place, reply);
        timeout(self.sender_timeout, self.connection.send(|out| put_copy_data(&update, out)))
            .await
            .map_err(|_| unreachable("the server takes no status update"))??;
        (self.reported, self.reported_at, self.answer_wanted) = (place, now, false);
        Ok(())
    }

    fn report_every(&self) -> Duration {
        (self.sender_timeout / 3).min(Duration::from_secs(10))
    }

    /// How long a look into the catalogue may keep the stream from reporting.
    fn side_timeout(&self) -> Duration {
        (self.sender_timeout / 2).min(Duration::from_secs(30))
    }

    fn wake_at(&self) -> Instant {
        let mut at = self.reported_at + self.report_every();
        if self.shared.acknowledged.load(Ordering::Acquire) != self.reported {
            at = at.min(self.reported_at + ACKNOWLEDGE_EVERY);
        }
        if let Some(ask) = &self.ask {
            at = at.min(ask.next);
        }
        if self.assembler.has_news() {
            at = at.min(self.idle_at + IDLE_EVERY);
        }
        at.min(self.publication_at + self.config.publication_check)
    }

    /// A server that is to shut down waits until its log is acknowledged, and asks for that over and over; it takes no new
    /// connections then. We let go: a vendor's server must not be held up by a slow CRM.
    async fn check_shutdown(&mut self) -> Result<()> {
        // The first try may only find out that the old session was ended.
        for _ in 0..2 {
            match timeout(self.side_timeout(), self.captures.head()).await {
                Ok(Err(error)) if sqlstate(&error) == Some("57P03") => {
                    return Err(unreachable("the server is shutting down").caused_by(error));
                }
                Ok(Err(_)) => {}
                _ => break,
            }
        }
        Ok(())
    }

    /// A table that leaves the publication takes its changes along, without an error from the server.
    async fn look_at_publication(&mut self) -> Result<()> {
        match timeout(self.side_timeout(), self.captures.unpublished()).await {
            Ok(Ok(missing)) if missing.is_empty() => Ok(()),
            Ok(Ok(missing)) => {
                let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
                Err(lost(format!(
                    "publication {} no longer publishes {}: changes since then are not in the stream",
                    self.config.publication,
                    names.join(", ")
                )))
            }
            // The connection of the stream itself will tell if the server is gone.
            Ok(Err(error)) => {
                tracing::warn!(%error, "the publication could not be checked");
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    /// Ends the stream in order: the last acknowledgement, then the end of the copy, then whatever the server still sends.
    async fn finish(&mut self) -> Result<()> {
        let update = status(self.shared.acknowledged.load(Ordering::Acquire), false);
        let leave = async {
            self.connection.send(|out| put_copy_data(&update, out)).await?;
            self.connection.send_all(postgres_protocol::message::frontend::copy_done).await?;
            loop {
                match self.connection.message().await?.0 {
                    b'c' | b'Z' => return Ok::<(), SourceError>(()),
                    _ => {}
                }
            }
        };
        let _ = timeout(Duration::from_secs(1), leave).await;
        Ok(())
    }
}

fn put_copy_data(data: &[u8], out: &mut BytesMut) -> std::io::Result<()> {
    let length = i32::try_from(data.len() + 4).map_err(std::io::Error::other)?;
    out.put_u8(b'd');
    out.put_i32(length);
    out.put_slice(data);
    Ok(())
}

/// A standby status update: written, flushed and applied up to `place`.
fn status(place: u64, reply: bool) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(0));
    let mut out = Vec::with_capacity(34);
    out.push(b'r');
    for _ in 0..3 {
        out.extend_from_slice(&place.to_be_bytes());
    }
    out.extend_from_slice(&(now - EPOCH).to_be_bytes());
    out.push(u8::from(reply));
    out
}

/// Reads the history of the server's timelines by a replication connection.
pub(crate) async fn history(connection: &mut Connection, timeline: u32) -> Result<History> {
    if timeline <= 1 {
        return Ok(History::default());
    }
    let command = format!("TIMELINE_HISTORY {timeline}");
    let rows = connection.rows("reading the timeline history", &command).await?;
    let content = rows.into_iter().next().and_then(|row| row.into_iter().nth(1).flatten());
    let content = content.ok_or_else(|| undecodable("the server gave no timeline history"))?;
    // The column is bytea, but sent as it is, not in hex.
    Ok(History::parse(&content))
}
