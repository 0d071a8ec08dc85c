//! What the source must hold after some operations: the checks' own, independent account.

use crate::fixture::{Cell, ColumnKind, Op, TableDef};
use std::collections::BTreeMap;

/// One table's present shape and rows.
#[derive(Clone, Debug)]
pub struct ModelTable {
    /// Columns in order.
    pub columns: Vec<(String, ColumnKind)>,
    /// How many leading columns are the key. Key columns are never dropped.
    pub key: usize,
    /// Rows by key.
    pub rows: BTreeMap<Vec<Cell>, Vec<Cell>>,
}

impl ModelTable {
    /// Position of a column.
    pub fn position(&self, column: &str) -> Option<usize> {
        self.columns.iter().position(|(name, _)| name == column)
    }
}

/// Tables by name.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The tables.
    pub tables: BTreeMap<String, ModelTable>,
}

impl Model {
    /// A model with these tables, empty.
    pub fn new(tables: &[TableDef]) -> Self {
        let mut model = Self::default();
        tables.iter().for_each(|table| model.create(table));
        model
    }

    /// Adds an empty table, replacing one of the same name.
    pub fn create(&mut self, def: &TableDef) {
        let table = ModelTable { columns: def.columns.clone(), key: def.key, rows: BTreeMap::new() };
        self.tables.insert(def.name.clone(), table);
    }

    /// Applies one committed operation. `Err` names what does not fit: a mistake in a check.
    pub fn apply(&mut self, op: &Op) -> Result<(), String> {
        let table = op.table();
        let state = self.tables.get_mut(table).ok_or_else(|| format!("no table {table}"))?;
        match op {
            Op::Insert { row, .. } => {
                if row.len() != state.columns.len() {
                    return Err(format!("{} values for {} columns of {table}", row.len(), state.columns.len()));
                }
                if state.rows.insert(row[..state.key].to_vec(), row.clone()).is_some() {
                    return Err(format!("duplicate key in {table}"));
                }
            }
            Op::Update { key, set, .. } => {
                let mut row = state.rows.remove(key).ok_or_else(|| format!("update of a missing row in {table}"))?;
                for (column, cell) in set {
                    let at = state.position(column).ok_or_else(|| format!("no column {column} in {table}"))?;
                    row[at] = cell.clone();
                }
                if state.rows.insert(row[..state.key].to_vec(), row).is_some() {
                    return Err(format!("key update onto an existing key in {table}"));
                }
            }
            Op::Delete { key, .. } => {
                state.rows.remove(key).ok_or_else(|| format!("delete of a missing row in {table}"))?;
            }
            Op::Truncate { .. } => state.rows.clear(),
            Op::InsertMany { first, count, width, .. } => {
                for number in *first..*first + i64::from(*count) {
                    let row: Vec<Cell> =
                        state.columns.iter().map(|(_, kind)| many_cell(*kind, number, *width)).collect();
                    state.rows.insert(row[..state.key].to_vec(), row);
                }
            }
            Op::AddColumn { column, kind, .. } => {
                state.columns.push((column.clone(), *kind));
                state.rows.values_mut().for_each(|row| row.push(Cell::Null));
            }
            Op::DropColumn { column, .. } => {
                let at = state.position(column).ok_or_else(|| format!("no column {column} in {table}"))?;
                state.columns.remove(at);
                state.rows.values_mut().for_each(|row| drop(row.remove(at)));
            }
            Op::IntToText { column, .. } => {
                let at = state.position(column).ok_or_else(|| format!("no column {column} in {table}"))?;
                state.columns[at].1 = ColumnKind::Text;
                for row in state.rows.values_mut() {
                    if let Cell::Int(number) = row[at] {
                        row[at] = Cell::Text(number.to_string());
                    }
                }
            }
        }
        Ok(())
    }
}

/// The cell [`Op::InsertMany`] puts into row `number` (texts of another source may differ in their characters).
pub(crate) fn many_cell(kind: ColumnKind, number: i64, width: u32) -> Cell {
    match kind {
        ColumnKind::Int => Cell::Int(number),
        ColumnKind::Text | ColumnKind::Big => Cell::Filler { seed: number.unsigned_abs(), len: width },
    }
}

impl Op {
    /// The table an operation is about.
    pub fn table(&self) -> &str {
        match self {
            Op::Insert { table, .. }
            | Op::Update { table, .. }
            | Op::Delete { table, .. }
            | Op::Truncate { table }
            | Op::InsertMany { table, .. }
            | Op::AddColumn { table, .. }
            | Op::DropColumn { table, .. }
            | Op::IntToText { table, .. } => table,
        }
    }

    /// Insert of one row.
    pub fn insert(table: &str, row: &[Cell]) -> Self {
        Op::Insert { table: table.into(), row: row.to_vec() }
    }

    /// Update of one row.
    pub fn update(table: &str, key: &[Cell], set: &[(&str, Cell)]) -> Self {
        let set = set.iter().map(|(column, cell)| ((*column).to_owned(), cell.clone())).collect();
        Op::Update { table: table.into(), key: key.to_vec(), set }
    }

    /// Delete of one row.
    pub fn delete(table: &str, key: &[Cell]) -> Self {
        Op::Delete { table: table.into(), key: key.to_vec() }
    }
}
