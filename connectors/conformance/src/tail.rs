//! Reading a change stream in a check.

use crate::checks::Stop;
use crate::fixture::Fixture;
use std::sync::Arc;
use std::time::Duration;
use tidemark_contract::{
    ChangeEvent, ChangeOp, ChangeStream, Connector, Position, Row, SourceMessage, TableRequest, TableSchema, Value,
};

/// A value as text with its kind, for comparing and for messages about test data (never used on real rows).
pub fn show(value: Value<'_>) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Unchanged => "unchanged".into(),
        Value::Bool(v) => format!("boolean {v}"),
        Value::Int(v) => format!("integer {v}"),
        Value::UInt(v) => format!("integer {v}"),
        Value::Float(v) => format!("double {v}"),
        Value::Real(v) => format!("real {v}"),
        Value::Bytes(v) => {
            use base64::Engine;
            format!("bytes {}", base64::engine::general_purpose::STANDARD.encode(v))
        }
        Value::Decimal(v)
        | Value::Text(v)
        | Value::Date(v)
        | Value::Time(v)
        | Value::Timestamp(v)
        | Value::TimestampTz(v)
        | Value::Uuid(v)
        | Value::Json(v)
        | Value::List(v) => format!("{} {v}", value.kind()),
    }
}

/// `show`, shortened for messages.
pub(crate) fn brief(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}… ({} B)", &text[..at], text.len()),
        None => text.to_owned(),
    }
}

/// The key of a row as text: shown values joined by commas.
pub(crate) fn key_text(schema: &TableSchema, row: &Row) -> String {
    schema.key.iter().map(|&at| show(row.get(at))).collect::<Vec<_>>().join(",")
}

/// One change in a form that can be compared: everything but the commit time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Seen {
    pub(crate) table: String,
    pub(crate) op: ChangeOp,
    pub(crate) key: String,
    pub(crate) row: Vec<(String, String)>,
}

impl Seen {
    pub(crate) fn of(event: &ChangeEvent) -> Self {
        let named =
            |(at, column): (usize, &tidemark_contract::Column)| (column.name.to_string(), show(event.row.get(at)));
        Self {
            table: event.schema.table.name.to_string(),
            op: event.op,
            key: if event.op == ChangeOp::Truncate { String::new() } else { key_text(&event.schema, &event.row) },
            row: event.schema.columns.iter().enumerate().map(named).collect(),
        }
    }

    /// The shown value of a column, if the event's schema has it.
    pub(crate) fn get(&self, column: &str) -> Option<&str> {
        self.row.iter().find(|(name, _)| name == column).map(|(_, shown)| shown.as_str())
    }

    /// Operation, table and key, for messages.
    pub(crate) fn words(&self) -> String {
        format!("{} {}[{}]", self.op.as_str(), self.table, brief(&self.key))
    }
}

/// A stream with its connector and what came out of it.
pub(crate) struct Tail {
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) tables: Vec<TableRequest>,
    pub(crate) stream: Box<dyn ChangeStream>,
    /// The position of the first message.
    pub(crate) start: Position,
    patience: Duration,
}

impl Tail {
    /// Opens a stream and reads its first message, which must be [`SourceMessage::Idle`]. Messages that came with it are
    /// appended to `out`.
    pub(crate) async fn open(
        fixture: &dyn Fixture,
        connector: Arc<dyn Connector>,
        tables: &[TableRequest],
        from: Option<&Position>,
        out: &mut Vec<SourceMessage>,
    ) -> Result<Self, Stop> {
        let patience = fixture.patience();
        let mut stream = within(patience, "open_stream", connector.open_stream(tables, from)).await??;
        let mut first = Vec::new();
        within(patience, "the first message", stream.next(&mut first)).await??;
        let mut messages = first.into_iter();
        let start = match messages.next() {
            Some(SourceMessage::Idle(position)) => position,
            Some(_) => return Err(Stop::failed("a stream's first message is not Idle")),
            None => return Err(Stop::failed("next() returned without a message")),
        };
        out.extend(messages);
        Ok(Self { connector, tables: tables.to_vec(), stream, start, patience })
    }

    /// A place that covers everything committed before this call.
    pub(crate) async fn head(&mut self) -> Result<Position, Stop> {
        let table = self.tables.first().ok_or_else(|| Stop::Broken("no tables".into()))?;
        Ok(within(self.patience, "snapshot_chunk", self.connector.snapshot_chunk(table, None, 1)).await??.barrier)
    }

    /// Reads until everything committed before this call has been delivered, appending to `out`.
    pub(crate) async fn drain_into(&mut self, out: &mut Vec<SourceMessage>) -> Result<(), Stop> {
        let goal = self.head().await?;
        self.read_to(&goal, out).await
    }

    /// Reads until a position that covers `goal` has come.
    pub(crate) async fn read_to(&mut self, goal: &Position, out: &mut Vec<SourceMessage>) -> Result<(), Stop> {
        if out.is_empty() && self.connector.covers(&self.start, goal)? {
            // Nothing was committed since the stream began; later positions only confirm it.
            return Ok(());
        }
        loop {
            let begin = out.len();
            self.stream.request_position().await?;
            within(self.patience, "the tail to reach a position it must reach", self.stream.next(out)).await??;
            if out.len() == begin {
                return Err(Stop::failed("next() returned without a message"));
            }
            for message in &out[begin..] {
                if let SourceMessage::Commit(position) | SourceMessage::Idle(position) = message
                    && self.connector.covers(position, goal)?
                {
                    return Ok(());
                }
            }
        }
    }

    /// Ends the stream in order.
    pub(crate) async fn close(self) -> Result<(), Stop> {
        within(self.patience, "close", self.stream.close()).await??;
        Ok(())
    }
}

/// The changes among messages.
pub(crate) fn changes(messages: &[SourceMessage]) -> Vec<Seen> {
    let change = |message: &SourceMessage| match message {
        SourceMessage::Change(event) => Some(Seen::of(event)),
        _ => None,
    };
    messages.iter().filter_map(change).collect()
}

/// The last place from which a stream could go on.
pub(crate) fn last_position(messages: &[SourceMessage]) -> Option<Position> {
    messages.iter().rev().find_map(|message| match message {
        SourceMessage::Commit(p) | SourceMessage::Idle(p) | SourceMessage::Resumable(p) => Some(p.clone()),
        _ => None,
    })
}

/// Waits no longer than `limit`.
pub(crate) async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> Result<T, Stop> {
    tokio::time::timeout(limit, work)
        .await
        .map_err(|_| Stop::failed(format!("waited {} s for {what}, and it did not come", limit.as_secs())))
}
