//! The task that owns the change stream: it hands messages to the engine and passes acknowledgements back.
//!
//! What the rules make of a row depends on the row and the rules alone, so it is worked out here, beside the engine
//! ([`Bindings`]). A table's rules are bound anew when its schema changes, which the engine learns only when it comes to
//! the message that says so: what was made of rows with other rules than the engine would use itself is thrown away there,
//! and made again.
//!
//! The channel to the engine is short, so a slow CRM fills it and the stream stops being read (backpressure, P7), while
//! acknowledgements and requests for a position still reach the source.

use super::page::Bound;
use crate::mapping::Applied;
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidemark_contract::{
    ChangeEvent, ChangeOp, ChangeStream, Connector, Position, Result, RowKey, SourceError, SourceMessage, TableId,
    TableRequest, TableSchema,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Batches of messages between the stream and the engine.
const DEPTH: usize = 2;

/// Changes mapped in one go; then other tasks get their turn.
const STRETCH: usize = 256;

type ByTable = HashMap<TableId, Arc<Bound>>;

/// The tables' rules as the engine has bound them.
#[derive(Clone, Debug, Default)]
pub(super) struct Bindings(Arc<Mutex<Arc<ByTable>>>);

impl Bindings {
    /// The rules of a table are bound to this from here on.
    pub(super) fn set(&self, table: &TableId, bound: &Arc<Bound>) {
        Arc::make_mut(&mut *self.lock()).insert(table.clone(), bound.clone());
    }

    fn lock(&self) -> MutexGuard<'_, Arc<ByTable>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was made of a change beside the engine.
#[derive(Debug)]
pub(super) struct Mapped {
    /// The row's key.
    pub key: Option<RowKey>,
    /// The rules by which `applied` was made.
    pub bound: Option<Arc<Bound>>,
    /// What each of them makes of the row, in their order; empty for a removal.
    pub applied: SmallVec<[Applied; 1]>,
}

/// A message of the stream, and what was made of a change.
pub(super) type Message = (SourceMessage, Option<Mapped>);

/// Maps the changes among `messages`.
async fn map(messages: &mut Vec<SourceMessage>, bindings: &Bindings) -> Vec<Message> {
    let bindings = bindings.lock().clone();
    let mut last: Option<(Arc<TableSchema>, Option<Arc<Bound>>)> = None;
    let mut out = Vec::with_capacity(messages.len());
    for (n, message) in messages.drain(..).enumerate() {
        if n % STRETCH == STRETCH - 1 {
            tokio::task::yield_now().await;
        }
        let mapped = match &message {
            SourceMessage::Change(event) => {
                let is_same = last.as_ref().is_some_and(|(schema, _)| Arc::ptr_eq(schema, &event.schema));
                if !is_same {
                    last = Some((event.schema.clone(), bindings.get(&event.schema.table).cloned()));
                }
                Some(map_change(event, last.as_ref().and_then(|(_, bound)| bound.as_ref())))
            }
            _ => None,
        };
        out.push((message, mapped));
    }
    out
}

fn map_change(event: &ChangeEvent, bound: Option<&Arc<Bound>>) -> Mapped {
    let key = RowKey::of(&event.row, &event.schema.key);
    let applied = match (bound, event.op) {
        (Some(bound), ChangeOp::Insert | ChangeOp::Update) if key.is_some() => {
            bound.iter().map(|(_, program)| program.apply(&event.row)).collect()
        }
        _ => SmallVec::new(),
    };
    Mapped { key, bound: bound.cloned(), applied }
}

/// What the engine asks of the stream.
#[derive(Debug)]
pub enum Control {
    /// Everything up to here is durable.
    Acknowledge(Position),
    /// Report the position as soon as nothing more is pending.
    RequestPosition,
    /// End in order.
    Close,
}

/// A running tail.
#[derive(Debug)]
pub struct Tail {
    /// Messages; `None` after an error or the end.
    pub(super) messages: mpsc::Receiver<Result<Vec<Message>>>,
    control: mpsc::UnboundedSender<Control>,
    task: JoinHandle<()>,
}

impl Tail {
    /// Opens the stream in a task of its own; failing to open is the first (and last) message.
    pub(super) fn open(
        connector: Arc<dyn Connector>,
        tables: Vec<TableRequest>,
        from: Option<Position>,
        bindings: Bindings,
    ) -> Self {
        let (sender, messages) = mpsc::channel(DEPTH);
        let (control, controls) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            match connector.open_stream(&tables, from.as_ref()).await {
                Ok(stream) => {
                    if let Err(error) = pass_on(stream, &sender, controls, &bindings).await {
                        let _ = sender.send(Err(error)).await;
                    }
                }
                Err(error) => {
                    let _ = sender.send(Err(error)).await;
                }
            }
        });
        Self { messages, control, task }
    }

    /// Passes a wish to the stream; without effect if it has ended.
    pub fn control(&self, wish: Control) {
        let _ = self.control.send(wish);
    }

    /// Ends the stream in order and waits for it.
    pub async fn close(mut self) {
        self.control(Control::Close);
        // What is still in the channel will be delivered again by the next stream.
        self.messages.close();
        while self.messages.recv().await.is_some() {}
        let _ = (&mut self.task).await;
    }
}

/// A dropped tail leaves nothing running.
impl Drop for Tail {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(
    mut stream: Box<dyn ChangeStream>,
    sender: &mpsc::Sender<Result<Vec<Message>>>,
    mut controls: mpsc::UnboundedReceiver<Control>,
    bindings: &Bindings,
) -> Result<(), SourceError> {
    let (mut read, mut batch) = (Vec::new(), Vec::new());
    loop {
        let is_full = !batch.is_empty();
        tokio::select! {
            biased;
            control = controls.recv() => match control {
                Some(Control::Acknowledge(position)) => stream.acknowledge(&position).await?,
                Some(Control::RequestPosition) => stream.request_position().await?,
                Some(Control::Close) | None => return stream.close().await,
            },
            permit = sender.reserve(), if is_full => match permit {
                Ok(permit) => permit.send(Ok(std::mem::take(&mut batch))),
                Err(_) => return stream.close().await,
            },
            result = stream.next(&mut read), if !is_full => {
                result?;
                batch = map(&mut read, bindings).await;
            }
        }
    }
}
