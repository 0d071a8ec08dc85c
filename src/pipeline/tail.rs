//! The task that owns the change stream: it hands messages to the engine and passes acknowledgements back.
//!
//! The channel to the engine is short, so a slow CRM fills it and the stream stops being read (backpressure, P7), while
//! acknowledgements and requests for a position still reach the source.

use std::sync::Arc;
use tidemark_contract::{ChangeStream, Connector, Position, Result, SourceError, SourceMessage, TableRequest};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Batches of messages between the stream and the engine.
const DEPTH: usize = 2;

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
    pub messages: mpsc::Receiver<Result<Vec<SourceMessage>>>,
    control: mpsc::UnboundedSender<Control>,
    task: JoinHandle<()>,
}

impl Tail {
    /// Opens the stream in a task of its own; failing to open is the first (and last) message.
    pub fn open(connector: Arc<dyn Connector>, tables: Vec<TableRequest>, from: Option<Position>) -> Self {
        let (sender, messages) = mpsc::channel(DEPTH);
        let (control, controls) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            match connector.open_stream(&tables, from.as_ref()).await {
                Ok(stream) => {
                    if let Err(error) = pass_on(stream, &sender, controls).await {
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
    sender: &mpsc::Sender<Result<Vec<SourceMessage>>>,
    mut controls: mpsc::UnboundedReceiver<Control>,
) -> Result<(), SourceError> {
    let mut batch = Vec::new();
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
            read = stream.next(&mut batch), if !is_full => read?,
        }
    }
}
