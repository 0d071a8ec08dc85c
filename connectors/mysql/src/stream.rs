//! The tail: a task that owns the connection, and the handle that the daemon polls.
//!
//! The task decodes and hands over batches through a channel that holds two of them. When the daemon does not keep up, the
//! channel is full and the task stops reading, so that the server waits in its own buffers. Memory is two batches, one in
//! the making, the read buffer and one event of the log, whatever a transaction's size (R7).
//!
//! The server keeps its log by time, not for us: an acknowledgement has no effect.
//!
//! # When an Idle message is true
//!
//! All events of the log come here, those for nobody too, so between two transactions the offset behind the last event is
//! how far the log has been read. When the daemon asks for a position, the log's head is read by SQL first, and the answer
//! waits until that place has been reached. A server that has nothing to say sends a heartbeat each second; one that is
//! silent for longer is taken for dead.

use crate::MysqlConfig;
use crate::assemble::Batch;
use crate::error::unreachable;
use crate::position::{self, Head, Log, Place, Server};
use crate::reader::{BATCH, LogReader};
use crate::resume::{self, HEARTBEAT};
use crate::visibility::Teller;
use crate::wire::Connection;
use bytes::Buf as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemark_contract::{ChangeStream, Position, Result, SourceMessage};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

/// How often an Idle message is sent unasked, at most.
const IDLE_EVERY: Duration = Duration::from_secs(1);
/// How long the server may be silent.
const SILENCE: Duration = HEARTBEAT.saturating_mul(15);

/// What the handle tells the task.
#[derive(Default)]
struct Shared {
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
    told: Teller,
}

impl Drop for Tail {
    /// Closes the socket; the server notices with its next heartbeat.
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
        self.told.clear();
    }
}

#[async_trait::async_trait]
impl ChangeStream for Tail {
    async fn next(&mut self, out: &mut Vec<SourceMessage>) -> Result<()> {
        let batch = self.batches.recv().await.unwrap_or_else(|| Err(unreachable("the stream has ended")))?;
        out.extend(batch);
        Ok(())
    }

    async fn acknowledge(&mut self, position: &Position) -> Result<()> {
        // The server keeps its log by time, not for us: there is nobody to tell. The position may be one of an earlier
        // stream, ahead of what this one has delivered again.
        position::parse(position).map(drop)
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
    pub(crate) config: Arc<MysqlConfig>,
    pub(crate) server: Arc<Server>,
    pub(crate) captures: crate::capture::Captures,
    pub(crate) from: Place,
    pub(crate) told: Teller,
}

impl Tail {
    /// Asks for the log and starts the task that reads it.
    pub(crate) async fn start(opening: Opening) -> Result<Self> {
        let Opening { config, server, captures, from, told } = opening;
        told.clear();
        let mut connection = Connection::open(&config).await?;
        resume::start(&mut connection, &config, &server, &from).await?;
        let shared = Arc::new(Shared::default());
        let (sender, batches) = mpsc::channel(2);
        let now = Instant::now();
        let reader = LogReader::new(captures, Log::of(&server), from);
        let mut task = Task {
            reader,
            connection,
            shared: shared.clone(),
            told: told.clone(),
            sender,
            batch: Batch::default(),
            heard_at: now,
            idle_at: now,
            ask: None,
        };
        task.reader.idle(&mut task.batch, true);
        let task = tokio::spawn(task.run());
        Ok(Self { batches, shared, task: Some(task), told })
    }
}

/// A position that was asked for and not yet answered.
struct Ask {
    /// The head of the log at the time; unknown if it could not be read.
    goal: Option<Head>,
    next: Instant,
}

struct Task {
    reader: LogReader,
    connection: Connection,
    shared: Arc<Shared>,
    told: Teller,
    sender: mpsc::Sender<Result<Vec<SourceMessage>>>,
    batch: Batch,
    /// When the server was last heard.
    heard_at: Instant,
    idle_at: Instant,
    ask: Option<Ask>,
}

impl Task {
    async fn run(mut self) {
        let Err(error) = self.pump().await else {
            let id = self.connection.id;
            // The server would otherwise notice only when it has something to send.
            let kill = timeout(Duration::from_secs(3), self.reader.captures.kill(id)).await;
            if let Ok(Err(error)) = kill {
                tracing::debug!(%error, "the stream's connection could not be ended");
            }
            return;
        };
        // What was read before the failure is good.
        if !self.batch.messages.is_empty() {
            self.told.set(self.reader.told());
            let _ = self.sender.send(Ok(std::mem::take(&mut self.batch).messages)).await;
        }
        let _ = self.sender.send(Err(error)).await;
    }

    async fn pump(&mut self) -> Result<()> {
        loop {
            self.take_events().await?;
            self.look_after().await?;
            if self.shared.closing.load(Ordering::Acquire) {
                return Ok(());
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
                    Ok(room) => {
                        self.told.set(self.reader.told());
                        room.send(Ok(std::mem::take(&mut self.batch).messages));
                    }
                    // The handle is gone or closing.
                    Err(_) => self.shared.closing.store(true, Ordering::Release),
                },
                read = self.connection.fill(), if !full => {
                    read?;
                    self.heard_at = Instant::now();
                }
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Decodes the events that have arrived, until the batch is full.
    async fn take_events(&mut self) -> Result<()> {
        while self.batch.bytes < BATCH {
            if self.reader.has_pending() {
                self.reader.advance(&mut self.batch).await?;
                continue;
            }
            let Some(mut packet) = self.connection.take()? else { return Ok(()) };
            match packet.first() {
                Some(0) => {
                    packet.advance(1);
                    self.reader.feed(packet, &mut self.batch).await?;
                }
                Some(0xff) => return Err(resume::failed(&packet[1..])),
                Some(0xfe) => return Err(unreachable("the server ended the stream")),
                _ => return Err(crate::error::undecodable("the server sends something unknown instead of its log")),
            }
        }
        Ok(())
    }

    /// Everything that goes by the clock or by the daemon's wishes.
    async fn look_after(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.shared.asked.swap(false, Ordering::AcqRel) && self.ask.is_none() {
            self.ask = Some(Ask { goal: None, next: now });
        }
        if let Some(ask) = &mut self.ask
            && ask.goal.is_none()
            && now >= ask.next
        {
            match timeout(Duration::from_secs(20), self.reader.captures.head()).await {
                Ok(Ok(head)) => ask.goal = Some(head),
                // Without knowing the head there is no true answer: try again later.
                failed => {
                    let error = failed.ok().and_then(Result::err);
                    tracing::debug!(?error, "the head of the log could not be read");
                    ask.next = Instant::now() + Duration::from_secs(1);
                }
            }
        }
        if self.reader.is_between_transactions() {
            let answered = self
                .ask
                .as_ref()
                .is_some_and(|ask| ask.goal.as_ref().is_some_and(|goal| self.reader.has_reached(goal)));
            if answered {
                self.ask = None;
            }
            if answered || now.duration_since(self.idle_at) >= IDLE_EVERY {
                self.idle_at = now;
                self.reader.idle(&mut self.batch, answered);
            }
        }
        if now.duration_since(self.heard_at) > SILENCE {
            return Err(unreachable(format!(
                "nothing was heard from the server for {SILENCE:?}, not even a heartbeat"
            )));
        }
        Ok(())
    }

    fn wake_at(&self) -> Instant {
        let mut at = self.heard_at + SILENCE + Duration::from_millis(10);
        if let Some(ask) = &self.ask
            && ask.goal.is_none()
        {
            at = at.min(ask.next);
        }
        if self.reader.has_news() {
            at = at.min(self.idle_at + IDLE_EVERY);
        }
        at
    }
}
