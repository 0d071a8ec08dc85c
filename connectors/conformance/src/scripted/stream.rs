//! The scripted tail.

use super::Flaw;
use super::codec::{Decoded, decode, push};
use super::connector::{Place, SLOT};
use super::source::{Record, Source, State};
use crate::fixture::Cell;
use crate::model::many_cell;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tidemark_contract::{
    ChangeEvent, ChangeOp, ChangeStream, ErrorKind, Position, Result, RowBuilder, SourceError, SourceMessage,
    TableSchema,
};
use tokio::sync::watch;

/// Changes between two places inside a transaction from which the stream can go on.
const RESUMABLE_EVERY: u64 = 1_000;
/// What one call hands over.
const BATCH_BYTES: usize = 128 << 10;

/// The server's side of a stream; ends when dropped.
pub(super) struct Session {
    pub(super) source: Arc<Source>,
    pub(super) id: u64,
    /// The flaw that it does not end when dropped.
    pub(super) keep: bool,
}

impl Session {
    fn end(&self) {
        self.source.state().sessions.remove(&self.id);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.keep {
            self.end();
        }
    }
}

pub(super) struct ScriptedStream {
    session: Session,
    changed: watch::Receiver<u64>,
    log: Arc<str>,
    tables: BTreeSet<String>,
    flaw: Option<Flaw>,
    damage: Option<u64>,
    /// What was delivered.
    place: Place,
    announced: BTreeMap<String, u32>,
    begun: bool,
    asked: bool,
    lose_next: bool,
    /// Only the flaw that buffers uses it.
    buffer: VecDeque<SourceMessage>,
}

impl ScriptedStream {
    pub(super) fn new(
        session: Session,
        log: Arc<str>,
        place: Place,
        tables: BTreeSet<String>,
        flaw: Option<Flaw>,
        damage: Option<u64>,
    ) -> Self {
        let changed = session.source.changed.subscribe();
        Self {
            session,
            changed,
            log,
            tables,
            flaw,
            damage,
            place,
            announced: BTreeMap::new(),
            begun: false,
            asked: false,
            lose_next: false,
            buffer: VecDeque::new(),
        }
    }

    /// Tells the flaws about resuming that this stream goes on from an earlier one's position.
    pub(super) fn resumed(&mut self) {
        self.lose_next = self.flaw == Some(Flaw::LosesFirstAfterResume);
        if self.flaw == Some(Flaw::SkipsRestOfTransaction) && self.place.changes > 0 {
            self.place = Place { txns: self.place.txns + 1, changes: 0 };
        }
    }

    /// The transaction that is delivered as number `at`.
    fn txn_index(&self, state: &State, at: usize) -> usize {
        if self.flaw != Some(Flaw::OrderOfBeginning) {
            return at;
        }
        let mut order: Vec<usize> = (0..state.log.len()).collect();
        order.sort_by_key(|&index| state.log[index].began);
        order[at]
    }

    /// Takes what is there, up to a batch; nothing if the stream is at the head.
    fn take(&mut self, out: &mut Vec<SourceMessage>) -> Result<()> {
        let source = self.session.source.clone();
        let state = source.state();
        let whole = matches!(self.flaw, Some(Flaw::OneGiantBatch | Flaw::BuffersTransaction));
        let mut bytes = 0;
        while self.place.txns < state.log.len() {
            let txn = &state.log[self.txn_index(&state, self.place.txns)];
            let mut passed = 0;
            for record in &txn.records {
                let skip = self.place.changes.saturating_sub(passed).min(record.len());
                passed += record.len();
                for number in skip..record.len() {
                    self.one(&state, record, number, out, &mut bytes)?;
                    self.place.changes += 1;
                    if self.place.changes.is_multiple_of(RESUMABLE_EVERY) {
                        out.push(SourceMessage::Resumable(self.place.position(&self.log)));
                    }
                    if bytes > BATCH_BYTES && !whole {
                        return Ok(());
                    }
                }
            }
            self.place = Place { txns: self.place.txns + 1, changes: 0 };
            out.push(SourceMessage::Commit(self.place.position(&self.log)));
            if bytes > BATCH_BYTES {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Delivers one change of a record, announcing its schema first where that is new.
    fn one(
        &mut self,
        state: &State,
        record: &Record,
        number: u64,
        out: &mut Vec<SourceMessage>,
        bytes: &mut usize,
    ) -> Result<()> {
        let decoded = match record {
            Record::Many { schema, first, width, .. } => {
                let schema_now = schema_at(state, *schema)?;
                let number = first + i64::try_from(number).unwrap_or(0);
                let kinds =
                    state.model.tables.get(&*schema_now.table.name).map(|t| t.columns.clone()).unwrap_or_default();
                let row = kinds.iter().map(|(_, kind)| Some(many_cell(*kind, number, *width))).collect();
                Decoded { op: b'I', schema: *schema, rows: vec![row] }
            }
            Record::Bytes(record) => match self.read(record) {
                Err(_) if self.flaw == Some(Flaw::SkipsMalformed) => return Ok(()),
                decoded => decoded?,
            },
        };
        let written = schema_at(state, decoded.schema)?;
        let table = written.table.name.to_string();
        if !self.tables.contains(&table) {
            return Ok(());
        }
        if std::mem::take(&mut self.lose_next) {
            return Ok(());
        }
        let mut version = decoded.schema;
        let mut schema = written;
        if self.flaw == Some(Flaw::NewestSchema) {
            version = state.current.get(&table).copied().unwrap_or(version);
            schema = schema_at(state, version)?;
        }
        let known = self.announced.get(&table);
        if known != Some(&version) {
            if known.is_none() || self.flaw != Some(Flaw::UnannouncedSchema) {
                out.push(SourceMessage::Schema(schema.clone()));
            }
            self.announced.insert(table.clone(), version);
        }
        let event = |op: ChangeOp, cells: &[Option<Cell>]| {
            let nulls = match op {
                ChangeOp::Delete => self.flaw == Some(Flaw::NullInDeletes),
                _ => self.flaw == Some(Flaw::NullForUnchanged),
            };
            let mut row = RowBuilder::default();
            for cell in cells {
                push(&mut row, if nulls { cell.as_ref().or(Some(&Cell::Null)) } else { cell.as_ref() });
            }
            let row = row.finish();
            SourceMessage::Change(ChangeEvent { schema: schema.clone(), op, row, old: None, committed_at: 0 })
        };
        if self.flaw == Some(Flaw::ValueInLog) {
            tracing::trace!(?decoded, "change");
        } else {
            tracing::trace!(table, op = %char::from(decoded.op), "change");
        }
        let before = out.len();
        match (decoded.op, &decoded.rows[..]) {
            (b'I', [row]) => out.push(event(ChangeOp::Insert, row)),
            (b'U', [row]) => out.push(event(ChangeOp::Update, row)),
            (b'D', [row]) => out.push(event(ChangeOp::Delete, row)),
            (b'K', [_, row]) if self.flaw == Some(Flaw::KeyUpdateAsUpdate) => out.push(event(ChangeOp::Update, row)),
            (b'K', [old, row]) => {
                let mut pair = [event(ChangeOp::Delete, old), event(ChangeOp::Insert, row)];
                if self.flaw == Some(Flaw::UpsertBeforeDelete) {
                    pair.reverse();
                }
                out.extend(pair);
            }
            _ if self.flaw == Some(Flaw::DropsTruncation) => {}
            _ => out.push(event(ChangeOp::Truncate, &[])),
        }
        for message in &out[before..] {
            if let SourceMessage::Change(event) = message {
                *bytes += event.row.memory();
            }
        }
        Ok(())
    }

    /// Decodes a record, damaged first if the server is hostile.
    fn read(&self, record: &[u8]) -> Result<Decoded> {
        let Some(seed) = self.damage else { return decode(record) };
        let mut damaged = record.to_vec();
        let at = usize::try_from(seed).unwrap_or(0) % damaged.len();
        match seed % 3 {
            0 => damaged.truncate(at),
            // A tag or an operation that there is not.
            1 => damaged[0] = 0xff,
            _ => damaged.push(b'n'),
        }
        match decode(&damaged) {
            Err(error) if self.flaw == Some(Flaw::PanicsOnMalformed) => panic_on(&error),
            result => result,
        }
    }
}

/// What the flaw does.
#[allow(clippy::panic)]
fn panic_on(error: &SourceError) -> ! {
    panic!("index out of bounds: {error}")
}

fn schema_at(state: &State, version: u32) -> Result<Arc<TableSchema>> {
    let schema = state.schemas.get(version as usize).cloned();
    schema.ok_or_else(|| SourceError::new(ErrorKind::Undecodable, format!("there is no schema number {version}")))
}

#[async_trait]
impl ChangeStream for ScriptedStream {
    async fn next(&mut self, out: &mut Vec<SourceMessage>) -> Result<()> {
        if !std::mem::replace(&mut self.begun, true) {
            out.push(SourceMessage::Idle(self.place.position(&self.log)));
            return Ok(());
        }
        loop {
            if let Some(message) = self.buffer.pop_front() {
                out.push(message);
                return Ok(());
            }
            self.changed.mark_unchanged();
            let mut taken = Vec::new();
            self.take(&mut taken)?;
            if !taken.is_empty() {
                match self.flaw {
                    Some(Flaw::BuffersTransaction) => {
                        self.buffer.extend(taken);
                        continue;
                    }
                    Some(Flaw::NotCancelSafe) => tokio::time::sleep(Duration::from_millis(1)).await,
                    _ => {}
                }
                out.append(&mut taken);
                return Ok(());
            }
            if std::mem::take(&mut self.asked) {
                out.push(SourceMessage::Idle(self.place.position(&self.log)));
                return Ok(());
            }
            if self.changed.changed().await.is_err() {
                return Err(SourceError::new(ErrorKind::Unreachable, "the server is gone"));
            }
        }
    }

    async fn acknowledge(&mut self, position: &Position) -> Result<()> {
        let place = Place::parse(position)?;
        let whole = self.flaw == Some(Flaw::AcknowledgesTooMuch) && place.changes > 0;
        if let Some(slot) = self.session.source.state().slots.get_mut(SLOT) {
            slot.confirmed = slot.confirmed.max(place.txns + usize::from(whole));
        }
        Ok(())
    }

    async fn request_position(&mut self) -> Result<()> {
        self.asked = true;
        Ok(())
    }

    async fn close(self: Box<Self>) -> Result<()> {
        self.session.end();
        Ok(())
    }
}
