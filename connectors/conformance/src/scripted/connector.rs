//! The scripted connector.

use super::Flaw;
use super::codec::push;
use super::source::{Slot, Source, State};
use super::stream::{ScriptedStream, Session};
use crate::fixture::{Cell, ColumnKind, Op, Step, TableDef};
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;
use tidemark_contract::{
    Capabilities, ChangeStream, Connector, ErrorKind, FetchedRows, Finding, Lag, Position, Result, Row, RowBuilder,
    RowKey, ScanCursor, SnapshotChunk, SourceError, TableId, TableRequest, TableSchema,
};

/// What a chunk may hold.
const CHUNK_BYTES: usize = 4 << 20;
pub(super) const SLOT: &str = "tidemark";

/// A connector to a [`Source`].
pub struct Scripted {
    pub(super) source: Arc<Source>,
    pub(super) flaw: Option<Flaw>,
    /// Damages records that the stream reads.
    pub(super) damage: Option<u64>,
    /// What it logs in with; only this one is right.
    pub(super) password: String,
    /// The right one.
    pub(super) wanted_password: String,
}

/// A place in the scripted log: transactions delivered whole, then changes of the next one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Place {
    pub(super) txns: usize,
    pub(super) changes: u64,
}

impl Place {
    pub(super) fn parse(position: &Position) -> Result<Self> {
        let parts = position.place.split_once('+');
        let parsed = parts.and_then(|(t, c)| Some(Self { txns: t.parse().ok()?, changes: c.parse().ok()? }));
        parsed.ok_or_else(|| {
            SourceError::new(ErrorKind::PositionLost, "the position is not one of this log: two numbers were wanted")
        })
    }

    pub(super) fn position(self, log: &Arc<str>) -> Position {
        Position { log: log.clone(), place: format!("{}+{}", self.txns, self.changes).into() }
    }
}

impl Scripted {
    fn admit(&self) -> Result<()> {
        if self.password == self.wanted_password {
            return Ok(());
        }
        let shown = if self.flaw == Some(Flaw::SecretInError) { self.password.as_str() } else { "********" };
        Err(SourceError::new(ErrorKind::AuthRefused, format!("the server refused password {shown}")))
    }

    fn log_id(&self, slot: u64) -> Arc<str> {
        format!("scripted/{}/{slot}", self.source.server).into()
    }

    fn table<'a>(&self, state: &'a State, table: &TableId) -> Result<(Arc<TableSchema>, &'a crate::ModelTable)> {
        let schema = state.current.get(&*table.name).and_then(|n| state.schemas.get(*n as usize));
        match (schema, state.model.tables.get(&*table.name)) {
            (Some(schema), Some(rows)) => Ok((schema.clone(), rows)),
            _ => Err(SourceError::new(ErrorKind::SettingWrong, format!("there is no table {table}"))),
        }
    }

    fn row(&self, cells: &[Cell], trim: bool) -> Row {
        let mut row = RowBuilder::default();
        for cell in cells {
            match cell.as_text() {
                Some(text) if trim => row.push(tidemark_contract::Value::Text(text.trim())),
                _ => push(&mut row, Some(cell)),
            }
        }
        row.finish()
    }

    /// The log's head now.
    fn head(&self) -> Position {
        let state = self.source.state();
        let place = Place { txns: state.log.len(), changes: 0 };
        // A read needs no slot; its barrier then belongs to the log that the next slot will read.
        place.position(&self.log_id(state.slots.get(SLOT).map_or(0, |slot| slot.id)))
    }

    /// The key's cells, if they fit the table's key.
    fn key_cells(&self, schema: &TableSchema, columns: &[usize], key: &RowKey) -> Result<Vec<Cell>> {
        let refuse = || {
            let shown = if self.flaw == Some(Flaw::ValueInError) {
                String::from_utf8_lossy(key.as_bytes()).into_owned()
            } else {
                format!("{key:?}")
            };
            SourceError::new(ErrorKind::Bug, format!("{shown} does not fit the key of {}", schema.table))
        };
        let values = key.values().ok_or_else(refuse)?;
        if values.len() != columns.len() {
            return Err(refuse());
        }
        let cell = |(&at, (letter, bytes)): (&usize, &(u8, &[u8]))| {
            let text = std::str::from_utf8(bytes).ok()?;
            match (schema.columns[at].logical, *letter) {
                (tidemark_contract::LogicalType::Int, b'i') => Some(Cell::Int(text.parse().ok()?)),
                (tidemark_contract::LogicalType::Text, b't') => Some(Cell::text(text)),
                _ => None,
            }
        };
        columns.iter().zip(&values).map(|pair| cell(pair).ok_or_else(refuse)).collect()
    }
}

fn stored_cursor(key: &[Cell]) -> ScanCursor {
    let parts: Vec<serde_json::Value> = key
        .iter()
        .map(|cell| match cell {
            Cell::Int(n) => serde_json::json!(n),
            cell => serde_json::json!(cell.as_text()),
        })
        .collect();
    ScanCursor(serde_json::Value::Array(parts).to_string().into())
}

fn read_cursor(cursor: &ScanCursor, width: usize) -> Result<Vec<Cell>> {
    let parts: Option<Vec<serde_json::Value>> = serde_json::from_str(&cursor.0).ok();
    let cell = |part: &serde_json::Value| match part {
        serde_json::Value::Number(n) => n.as_i64().map(Cell::Int),
        serde_json::Value::String(text) => Some(Cell::text(text)),
        _ => None,
    };
    let cells: Option<Vec<Cell>> = parts.and_then(|parts| parts.iter().map(cell).collect());
    cells.filter(|cells| cells.len() == width).ok_or_else(|| {
        SourceError::new(ErrorKind::Bug, format!("a scan cursor of {} bytes cannot be read", cursor.0.len()))
    })
}

#[async_trait]
impl Connector for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            resume_inside_transaction: true,
            partial_updates: self.flaw != Some(Flaw::NullForUnchanged),
            truncate: true,
            net_changes: false,
            acknowledgement_holds_log: true,
        }
    }

    async fn preflight(&self, tables: &[TableRequest]) -> Result<Vec<Finding>> {
        self.admit()?;
        let state = self.source.state();
        let finding = |request: &TableRequest| match self.table(&state, &request.table) {
            Ok(_) => Finding::ok("source.table", "the table is there").about(&request.table),
            Err(error) => Finding::error("source.table", error.message, "the table", None).about(&request.table),
        };
        Ok(tables.iter().map(finding).collect())
    }

    async fn discover(&self, tables: &[TableRequest]) -> Result<Vec<Arc<TableSchema>>> {
        self.admit()?;
        let state = self.source.state();
        if tables.is_empty() {
            return Ok(state.current.values().filter_map(|n| state.schemas.get(*n as usize).cloned()).collect());
        }
        tables.iter().map(|request| Ok(self.table(&state, &request.table)?.0)).collect()
    }

    async fn estimate_rows(&self, table: &TableId) -> Result<Option<u64>> {
        self.admit()?;
        Ok(Some(self.table(&self.source.state(), table)?.1.rows.len() as u64))
    }

    async fn open_stream(&self, tables: &[TableRequest], from: Option<&Position>) -> Result<Box<dyn ChangeStream>> {
        self.admit()?;
        let lost = |why: &str| SourceError::new(ErrorKind::PositionLost, why).hint("read the tables again");
        let mut state = self.source.state();
        for request in tables {
            self.table(&state, &request.table)?;
        }
        let head = Place { txns: state.log.len(), changes: 0 };
        let known = state.slots.contains_key(SLOT);
        if from.is_some() && !known && self.flaw != Some(Flaw::StartsFromNow) {
            return Err(lost("the slot is gone"));
        }
        let begin_anew = from.is_none() || (!known && self.flaw == Some(Flaw::StartsFromNow));
        if !known || from.is_none() {
            let id = state.number();
            state.slots.insert(SLOT.into(), Slot { id, confirmed: head.txns });
            if self.flaw == Some(Flaw::LeavesSlot) {
                let spare = Slot { id, confirmed: head.txns };
                state.slots.insert("tidemark_spare".into(), spare);
            }
        }
        let Some((slot, confirmed)) = state.slots.get(SLOT).map(|slot| (slot.id, slot.confirmed)) else {
            return Err(lost("the slot is gone"));
        };
        let log = self.log_id(slot);
        let place = match from {
            Some(position) if !begin_anew => {
                if position.log != log && !matches!(self.flaw, Some(Flaw::TakesAnyLog)) {
                    return Err(lost(
                        "the position belongs to another log: the slot was made again, or this is another server",
                    ));
                }
                let place = Place::parse(position)?;
                let skips = match self.flaw {
                    Some(Flaw::SkipsAcknowledged) => true,
                    Some(Flaw::AcknowledgesTooMuch) => place.changes > 0,
                    _ => false,
                };
                if skips && place.txns < confirmed {
                    Place { txns: confirmed, changes: 0 }
                } else if place.txns < confirmed || place.txns > head.txns {
                    if self.flaw != Some(Flaw::TakesAnyLog) {
                        return Err(lost("the log no longer reaches back to the position"));
                    }
                    head
                } else {
                    place
                }
            }
            _ => head,
        };
        let session = state.number();
        state.sessions.insert(session);
        drop(state);
        let names = tables.iter().map(|request| request.table.name.to_string()).collect();
        let session =
            Session { source: self.source.clone(), id: session, keep: self.flaw == Some(Flaw::LeavesSessionOnDrop) };
        let mut stream = ScriptedStream::new(session, log, place, names, self.flaw, self.damage);
        if !begin_anew && from.is_some() {
            stream.resumed();
        }
        Ok(Box::new(stream))
    }

    fn covers(&self, reached: &Position, goal: &Position) -> Result<bool> {
        if reached.log != goal.log && self.flaw != Some(Flaw::TakesAnyLog) {
            return Err(SourceError::new(ErrorKind::PositionLost, "the positions belong to different logs"));
        }
        Ok(Place::parse(reached)? >= Place::parse(goal)?)
    }

    async fn snapshot_chunk(
        &self,
        table: &TableRequest,
        after: Option<&ScanCursor>,
        limit: usize,
    ) -> Result<SnapshotChunk> {
        self.admit()?;
        let early = self.head();
        if self.flaw == Some(Flaw::EarlyBarrier) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if self.flaw == Some(Flaw::WritesWatermarks) {
            self.source.create(&TableDef::new("tidemark_signals", 1, &[("low", ColumnKind::Int)]));
            for step in
                [Step::Begin(99), Step::Run(99, Op::insert("tidemark_signals", &[Cell::Int(1)])), Step::Commit(99)]
            {
                self.source.step(&step).map_err(|e| SourceError::new(ErrorKind::Bug, e))?;
            }
        }
        let (schema, rows, next) = {
            let state = self.source.state();
            let (schema, model) = self.table(&state, &table.table)?;
            let after = after.map(|cursor| read_cursor(cursor, model.key)).transpose()?;
            let from = after.clone().map_or(Bound::Unbounded, Bound::Excluded);
            let (mut rows, mut bytes, mut last) = (Vec::new(), 0, None);
            let mut more = false;
            for (key, cells) in model.rows.range((from, Bound::Unbounded)) {
                let skipped = self.flaw == Some(Flaw::PagesByFirstKeyColumn)
                    && after.as_ref().is_some_and(|after| after[0] == key[0]);
                if skipped {
                    continue;
                }
                let full = bytes > CHUNK_BYTES && self.flaw != Some(Flaw::UnboundedChunk);
                if rows.len() == limit || full {
                    more = true;
                    break;
                }
                let row = self.row(cells, self.flaw == Some(Flaw::SnapshotTrims));
                bytes += row.memory();
                rows.push(row);
                last = Some(key);
            }
            (schema, rows, last.filter(|_| more).map(|key| stored_cursor(key)))
        };
        tracing::debug!(table = %table.table, rows = rows.len(), "chunk read");
        let barrier = if self.flaw == Some(Flaw::EarlyBarrier) { early } else { self.head() };
        Ok(SnapshotChunk { schema, rows, next, barrier })
    }

    async fn fetch_rows(&self, table: &TableRequest, keys: &[RowKey]) -> Result<FetchedRows> {
        self.admit()?;
        let (schema, rows) = {
            let state = self.source.state();
            let (schema, model) = self.table(&state, &table.table)?;
            let mut wanted: Vec<Vec<Cell>> =
                keys.iter().map(|key| self.key_cells(&schema, &schema.key, key)).collect::<Result<_>>()?;
            if self.flaw == Some(Flaw::FetchesInTableOrder) {
                wanted.sort();
            }
            let rows = wanted.iter().map(|key| model.rows.get(key).map(|cells| self.row(cells, false))).collect();
            (schema, rows)
        };
        Ok(FetchedRows { schema, rows, barrier: self.head() })
    }

    async fn find_rows(
        &self,
        table: &TableRequest,
        columns: &[Box<str>],
        keys: &[RowKey],
        after: Option<&ScanCursor>,
        limit: usize,
    ) -> Result<SnapshotChunk> {
        self.admit()?;
        let (schema, rows, next) = {
            let state = self.source.state();
            let (schema, model) = self.table(&state, &table.table)?;
            let at: Vec<usize> = columns.iter().filter_map(|name| schema.position(name)).collect();
            let wanted: BTreeSet<Vec<Cell>> =
                keys.iter().map(|key| self.key_cells(&schema, &at, key)).collect::<Result<_>>()?;
            let after = after.map(|cursor| read_cursor(cursor, model.key)).transpose()?;
            let from = after.map_or(Bound::Unbounded, Bound::Excluded);
            let matches =
                |cells: &Vec<Cell>| wanted.contains(&at.iter().map(|n| cells[*n].clone()).collect::<Vec<_>>());
            let mut found = model.rows.range((from, Bound::Unbounded)).filter(|(_, cells)| matches(cells)).peekable();
            let (mut rows, mut last) = (Vec::new(), None);
            while let Some((key, cells)) = found.next_if(|_| rows.len() < limit) {
                rows.push(self.row(cells, false));
                last = Some(key);
            }
            let more = found.peek().is_some() && self.flaw != Some(Flaw::FindsOnePage);
            (schema, rows, last.filter(|_| more).map(|key| stored_cursor(key)))
        };
        Ok(SnapshotChunk { schema, rows, next, barrier: self.head() })
    }

    async fn lag(&self, _from: Option<&Position>) -> Result<Lag> {
        self.admit()?;
        Ok(Lag::default())
    }

    async fn release(&self) -> Result<Vec<String>> {
        self.admit()?;
        let removed = self.source.state().slots.remove(SLOT);
        Ok(removed.map(|_| format!("slot {SLOT}")).into_iter().collect())
    }
}
