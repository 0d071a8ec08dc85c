//! Rows of a change table become changes.
//!
//! An update is two rows, the old one (operation 3) and the new one (4), next to each other in the log's order. A change of
//! a unique key is a delete (1) and an insert (2) with one sequence value. One statement touches a row once, so when it
//! moves many keys, a key can be taken (2) before the row that had it is seen to leave (1): that delete is about the old
//! row alone and must not follow the insert. It is left out; the insert says all there is to say.

use crate::plan::Plan;
use crate::position::{Lsn, Mark};
use crate::types::is_null;
use std::collections::HashSet;
use tiberius::ColumnData;
use tidemark_contract::{ChangeEvent, ChangeOp, Result, Row, RowBuilder, RowKey, SourceMessage, Value};

/// A row of a change table.
pub(crate) struct ChangeRow {
    pub(crate) mark: Mark,
    /// Commit time in microseconds since 1970, UTC.
    pub(crate) committed_at: i64,
    pub(crate) row: Row,
}

/// Decodes the cells of a plan's columns: each large column follows a flag that says whether the statement set it.
pub(crate) fn decode<'a>(
    plan: &Plan,
    operation: i64,
    mut cells: impl Iterator<Item = &'a ColumnData<'static>>,
    text: &mut String,
) -> Result<Row> {
    let mut out = RowBuilder::with_capacity(plan.held.len(), 64);
    for captured in &plan.held {
        let Some(kind) = captured.as_ref().and_then(|c| c.kind.as_ref()) else {
            out.push(Value::Unchanged);
            continue;
        };
        let mut was_set = true;
        if kind.is_large {
            let flag = cells.next();
            was_set = matches!(flag, Some(ColumnData::Bit(Some(true)) | ColumnData::I32(Some(1))));
        }
        let cell = cells.next().unwrap_or(&ColumnData::Bit(None));
        let is_old_lob = matches!(kind.declared.as_str(), "text" | "ntext" | "image");
        let left_out = match operation {
            1 => is_old_lob,
            3 => is_old_lob || !was_set,
            4 => !was_set,
            _ => false,
        };
        if kind.is_large && left_out && is_null(cell) {
            out.push(Value::Unchanged);
        } else {
            kind.push(cell, &mut out, text)?;
        }
    }
    Ok(out.finish())
}

/// Pairs the rows of one table.
#[derive(Default)]
pub(crate) struct Pairs {
    /// The old row of an update whose new row comes next.
    old: Option<Row>,
    /// The last delete: an insert of the same log record belongs to it.
    deleted: Option<Mark>,
    /// The statement being read, and the keys that its rows have moved to.
    statement: (Lsn, i64),
    moved: HashSet<RowKey>,
}

impl Pairs {
    /// Takes the next row in the log's order; appends what it means. Gives the bytes of rows appended.
    pub(crate) fn take(&mut self, plan: &Plan, change: ChangeRow, out: &mut Vec<SourceMessage>) -> usize {
        let ChangeRow { mark, committed_at, row } = change;
        if self.statement != (mark.commit, mark.command) {
            self.statement = (mark.commit, mark.command);
            self.moved.clear();
        }
        let schema = &plan.shape.schema;
        let mut bytes = 0;
        let mut send = |op, row: Row, old: Option<Row>| {
            bytes += row.memory() + old.as_ref().map_or(0, Row::memory) + 64;
            let event = ChangeEvent { schema: schema.clone(), op, row, old, committed_at };
            out.push(SourceMessage::Change(event));
        };
        match mark.operation {
            1 => {
                self.deleted = Some(mark);
                let retaken = RowKey::of(&row, &schema.key).is_some_and(|key| self.moved.contains(&key));
                if !retaken {
                    send(ChangeOp::Delete, row, None);
                }
            }
            3 => self.old = Some(row),
            4 => match self.old.take() {
                Some(old) if RowKey::of(&old, &schema.key) != RowKey::of(&row, &schema.key) => {
                    send(ChangeOp::Delete, old, None);
                    send(ChangeOp::Insert, row, None);
                }
                old => send(ChangeOp::Update, row, old.filter(|old| !old.is_partial())),
            },
            _ => {
                if self.deleted.take().is_some_and(|d| (d.commit, d.record) == (mark.commit, mark.record)) {
                    self.moved.extend(RowKey::of(&row, &schema.key));
                }
                send(ChangeOp::Insert, row, None);
            }
        }
        bytes
    }
}
