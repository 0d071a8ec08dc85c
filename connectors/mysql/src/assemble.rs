//! Row events → changes: how the rows of a captured table are cut and decoded.

use crate::cursor::{Cursor, bit, cut_short};
use crate::decode;
use crate::error::undecodable;
use crate::event::{LogColumn, Rows, code, kind};
use crate::json;
use crate::types::{Kind, Scratch};
use std::sync::Arc;
use tidemark_contract::{
    ChangeEvent, ChangeOp, ErrorKind, Result, Row, SourceError, SourceMessage, TableSchema, Value,
};

/// Changes to hand over, and roughly the memory they take.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<SourceMessage>,
    pub(crate) bytes: usize,
}

impl Batch {
    pub(crate) fn push(&mut self, message: SourceMessage) {
        self.bytes += size_of::<SourceMessage>();
        if let SourceMessage::Change(event) = &message {
            self.bytes += event.row.memory() + event.old.as_ref().map_or(0, Row::memory);
        }
        self.messages.push(message);
    }
}

/// One column of the log's rows.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) column: LogColumn,
    /// How to read it; `None` if nobody asked for it.
    pub(crate) kind: Option<Kind>,
}

/// How rows of a captured table are read from here on.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) schema: Arc<TableSchema>,
    pub(crate) steps: Vec<Step>,
    /// Whether the columns' names came with the log.
    pub(crate) named: bool,
}

/// A row of a plan's table, and whether the log carried all its columns.
struct Image {
    row: Row,
    whole: bool,
}

/// Reads the rows of one event after the other.
pub(crate) struct RowReader<'a> {
    plan: &'a Plan,
    of: u8,
    present: &'a [u8],
    present_after: Option<&'a [u8]>,
    at: i64,
}

impl<'a> RowReader<'a> {
    pub(crate) fn new(plan: &'a Plan, of: u8, rows: &Rows<'a>, at: i64) -> Result<Self> {
        if rows.columns != plan.steps.len() {
            return Err(undecodable(format!("a row of table {} does not fit its description", plan.schema.table)));
        }
        Ok(Self { plan, of, present: rows.present, present_after: rows.present_after, at })
    }

    /// Takes the next row off `rest` and appends what it means.
    pub(crate) fn next(&self, rest: &mut Cursor<'_>, scratch: &mut Scratch, batch: &mut Batch) -> Result<()> {
        let result = match self.of {
            kind::WRITE | kind::WRITE_V1 => self.insert(rest, scratch, batch),
            kind::DELETE | kind::DELETE_V1 => self.delete(rest, scratch, batch),
            _ => self.update(rest, scratch, batch),
        };
        result.map_err(|error| {
            let table = &self.plan.schema.table;
            let message = format!("a row of table {table}: {error}");
            SourceError { message, hint: error.hint, kind: error.kind, source: error.source }
        })
    }

    fn event(&self, op: ChangeOp, row: Row, old: Option<Row>) -> SourceMessage {
        SourceMessage::Change(ChangeEvent { schema: self.plan.schema.clone(), op, row, old, committed_at: self.at })
    }

    fn insert(&self, rest: &mut Cursor<'_>, scratch: &mut Scratch, batch: &mut Batch) -> Result<()> {
        let image = self.image(self.present, rest, None, &[], scratch)?;
        self.require_key(&image.row)?;
        batch.push(self.event(ChangeOp::Insert, image.row, None));
        Ok(())
    }

    fn delete(&self, rest: &mut Cursor<'_>, scratch: &mut Scratch, batch: &mut Batch) -> Result<()> {
        let image = self.image(self.present, rest, None, &[], scratch)?;
        self.require_key(&image.row)?;
        batch.push(self.event(ChangeOp::Delete, image.row, None));
        Ok(())
    }

    fn update(&self, rest: &mut Cursor<'_>, scratch: &mut Scratch, batch: &mut Batch) -> Result<()> {
        let partial = self.of == kind::PARTIAL_UPDATE;
        let documents = if partial { self.documents(*rest)? } else { Vec::new() };
        let old = self.image(self.present, rest, None, &[], scratch)?;
        self.require_key(&old.row)?;
        let after = self.present_after.ok_or_else(cut_short)?;
        let new = self.image(after, rest, Some((&old.row, partial)), &documents, scratch)?;
        let key = &self.plan.schema.key;
        if key.iter().any(|&at| old.row.get(at) != new.row.get(at)) {
            batch.push(self.event(ChangeOp::Delete, old.row, None));
            batch.push(self.event(ChangeOp::Insert, new.row, None));
        } else {
            batch.push(self.event(ChangeOp::Update, new.row, old.whole.then_some(old.row)));
        }
        Ok(())
    }

    fn require_key(&self, row: &Row) -> Result<()> {
        if self.plan.schema.key.iter().any(|&at| row.get(at).is_unchanged()) {
            return Err(SourceError::new(ErrorKind::SettingWrong, "the log does not carry the row's key")
                .hint("SET GLOBAL binlog_row_image = 'FULL', or use the primary key as the key"));
        }
        Ok(())
    }

    /// The bytes of the JSON documents of an old row, by column.
    fn documents<'r>(&self, mut rest: Cursor<'r>) -> Result<Vec<Option<&'r [u8]>>> {
        let mut out = vec![None; self.plan.steps.len()];
        let held = (0..self.plan.steps.len()).filter(|at| bit(self.present, *at));
        let nulls = rest.take(held.clone().count().div_ceil(8))?;
        for (number, at) in held.enumerate() {
            if !bit(nulls, number) {
                let bytes = decode::skip(&self.plan.steps[at].column, &mut rest)?;
                out[at] = Some(bytes);
            }
        }
        Ok(out)
    }

    /// Decodes one image. `before` is the old row of an update, for the columns that the new one leaves out, and whether
    /// documents may come as changes to those in `documents`.
    fn image(
        &self,
        present: &[u8],
        rest: &mut Cursor<'_>,
        before: Option<(&Row, bool)>,
        documents: &[Option<&[u8]>],
        scratch: &mut Scratch,
    ) -> Result<Image> {
        let steps = &self.plan.steps;
        let mut partial_bits: &[u8] = &[];
        if let Some((_, true)) = before
            && rest.lenenc()? & 1 == 1
        {
            let documents = steps.iter().filter(|s| s.column.code == code::JSON).count();
            partial_bits = rest.take(documents.div_ceil(8))?;
        }
        let held = (0..steps.len()).filter(|at| bit(present, *at)).count();
        let nulls = rest.take(held.div_ceil(8))?;
        let width = self.plan.schema.columns.len();
        let mut row = scratch.row(width);
        let (mut number, mut document) = (0, 0);
        let mut whole = true;
        for (at, step) in steps.iter().enumerate() {
            let is_json = step.column.code == code::JSON;
            let is_partial = is_json && bit(partial_bits, document);
            document += usize::from(is_json);
            if !bit(present, at) {
                if step.kind.is_some() {
                    let base = before.map_or(Value::Unchanged, |(old, _)| old.get(row.len()));
                    whole &= !base.is_unchanged();
                    row.push(base);
                }
                continue;
            }
            let is_null = bit(nulls, number);
            number += 1;
            match &step.kind {
                None if is_null => {}
                None => drop(decode::skip(&step.column, rest)?),
                Some(_) if is_null => row.push(Value::Null),
                Some(_) if is_partial => {
                    let changes = decode::skip(&step.column, rest)?;
                    match documents.get(at).copied().flatten() {
                        Some(document) => {
                            scratch.text.clear();
                            json::write_changed(document, changes, &mut scratch.text)?;
                            row.push(Value::Json(&scratch.text));
                        }
                        // The old document is not in the log: what the new one is cannot be told.
                        None => {
                            whole = false;
                            row.push(Value::Unchanged);
                        }
                    }
                }
                Some(kind) => {
                    let column = &self.plan.schema.columns[row.len()].name;
                    decode::push(kind, &step.column, rest, &mut row, scratch)
                        .map_err(|error| SourceError::new(error.kind, format!("column {column}: {error}")))?;
                }
            }
        }
        let row = row.finish();
        scratch.learn(&row);
        Ok(Image { row, whole })
    }
}

#[cfg(test)]
#[path = "assemble_tests.rs"]
mod tests;
