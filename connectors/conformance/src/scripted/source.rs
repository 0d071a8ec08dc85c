//! The scripted server: tables, a log, slots, sessions.

use super::codec::encode;
use crate::fixture::{Cell, ColumnKind, Op, Step, TableDef};
use crate::model::{Model, ModelTable};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidemark_contract::{Column, LogicalType, TableId, TableSchema};
use tokio::sync::watch;

/// One record of the log.
pub(super) enum Record {
    /// One change, encoded.
    Bytes(Box<[u8]>),
    /// Many inserts by one statement, described.
    Many { schema: u32, first: i64, count: u32, width: u32 },
}

impl Record {
    /// How many rows it is about.
    pub(super) fn len(&self) -> u64 {
        match self {
            Record::Bytes(_) => 1,
            Record::Many { count, .. } => u64::from(*count),
        }
    }
}

/// One committed transaction.
pub(super) struct Txn {
    /// When it began, among all transactions.
    pub(super) began: u64,
    pub(super) records: Vec<Record>,
}

pub(super) struct Slot {
    /// Tells it from an earlier one of the same name.
    pub(super) id: u64,
    /// Transactions that are settled.
    pub(super) confirmed: usize,
}

pub(super) struct State {
    pub(super) model: Model,
    /// Every schema there ever was, by number.
    pub(super) schemas: Vec<Arc<TableSchema>>,
    /// The newest one of each table.
    pub(super) current: BTreeMap<String, u32>,
    pub(super) log: Vec<Txn>,
    pub(super) slots: BTreeMap<String, Slot>,
    pub(super) sessions: BTreeSet<u64>,
    open: BTreeMap<u8, (u64, Vec<Op>)>,
    next: u64,
}

impl State {
    /// A number never given before.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

/// A scripted server.
pub struct Source {
    pub(super) server: String,
    state: Mutex<State>,
    /// Counts commits; tails wait for it to change.
    pub(super) changed: watch::Sender<u64>,
}

impl Source {
    /// An empty server with this identity.
    pub fn new(server: &str) -> Arc<Self> {
        let state = State {
            model: Model::default(),
            schemas: Vec::new(),
            current: BTreeMap::new(),
            log: Vec::new(),
            slots: BTreeMap::new(),
            sessions: BTreeSet::new(),
            open: BTreeMap::new(),
            next: 0,
        };
        Arc::new(Self { server: server.into(), state: Mutex::new(state), changed: watch::Sender::new(0) })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reset(&self, tables: &[TableDef]) {
        {
            let mut state = self.state();
            *state = State {
                model: Model::new(tables),
                schemas: Vec::new(),
                current: BTreeMap::new(),
                log: Vec::new(),
                slots: BTreeMap::new(),
                sessions: BTreeSet::new(),
                open: BTreeMap::new(),
                next: state.next,
            };
            for table in tables {
                shape(&mut state, &table.name);
            }
        }
        self.changed.send_modify(|n| *n += 1);
    }

    pub(super) fn create(&self, table: &TableDef) {
        let mut state = self.state();
        state.model.create(table);
        shape(&mut state, &table.name);
    }

    /// Runs one step; committed transactions go into tables and log at once.
    pub(super) fn step(&self, step: &Step) -> Result<(), String> {
        let mut state = self.state();
        match step {
            Step::Begin(session) => {
                let began = state.number();
                state.open.insert(*session, (began, Vec::new()));
            }
            Step::Run(session, op) => {
                state.open.get_mut(session).ok_or("no transaction is open")?.1.push(op.clone());
            }
            Step::Rollback(session) => drop(state.open.remove(session)),
            Step::Commit(session) => {
                let (began, ops) = state.open.remove(session).ok_or("no transaction is open")?;
                let mut records = Vec::new();
                for op in &ops {
                    records.extend(record(&mut state, op)?);
                }
                state.log.push(Txn { began, records });
                drop(state);
                self.changed.send_modify(|n| *n += 1);
            }
        }
        Ok(())
    }
}

/// Registers the table's present shape as its newest schema.
fn shape(state: &mut State, table: &str) {
    let Some(now) = state.model.tables.get(table) else { return };
    let schema = Arc::new(schema_of(table, now));
    state.schemas.push(schema);
    let number = (state.schemas.len() - 1) as u32;
    state.current.insert(table.to_owned(), number);
}

fn schema_of(name: &str, table: &ModelTable) -> TableSchema {
    let column = |(at, (name, kind)): (usize, &(String, ColumnKind))| Column {
        name: name.as_str().into(),
        logical: if *kind == ColumnKind::Int { LogicalType::Int } else { LogicalType::Text },
        native: format!("{kind:?}").into(),
        nullable: at >= table.key,
        max_length: None,
        may_be_unchanged: *kind == ColumnKind::Big,
        unlogged: false,
        labels: Vec::new(),
    };
    TableSchema {
        table: TableId::new("script", name),
        columns: table.columns.iter().enumerate().map(column).collect(),
        key: (0..table.key).collect(),
        full_before_image: false,
    }
}

/// Applies an operation and describes it for the log.
fn record(state: &mut State, op: &Op) -> Result<Option<Record>, String> {
    let name = op.table().to_owned();
    let before = state.model.tables.get(&name).cloned();
    state.model.apply(op)?;
    let schema = *state.current.get(&name).ok_or_else(|| format!("no table {name}"))?;
    let (Some(before), Some(after)) = (before, state.model.tables.get(&name)) else { return Ok(None) };
    let key_only = |key: &[Cell]| {
        let rest = after.columns.len() - key.len();
        key.iter().cloned().map(Some).chain((0..rest).map(|_| None)).collect::<Vec<_>>()
    };
    Ok(match op {
        Op::Insert { row, .. } => Some(Record::Bytes(encode(b'I', schema, &[row.iter().cloned().map(Some).collect()]))),
        Op::Update { key, set, .. } => {
            let mut new_key = key.clone();
            for (column, cell) in set {
                if let Some(at) = after.position(column).filter(|at| *at < after.key) {
                    new_key[at] = cell.clone();
                }
            }
            let row = after.rows.get(&new_key).ok_or("the updated row is not there")?;
            // Large values that were not set are left out, null ones excepted.
            let cells = row.iter().zip(&after.columns).map(|(cell, (column, kind))| {
                let left_out = *kind == ColumnKind::Big && *cell != Cell::Null && !set.iter().any(|(c, _)| c == column);
                (!left_out).then(|| cell.clone())
            });
            let cells: Vec<_> = cells.collect();
            Some(Record::Bytes(if new_key == *key {
                encode(b'U', schema, &[cells])
            } else {
                encode(b'K', schema, &[key_only(key), cells])
            }))
        }
        Op::Delete { key, .. } => Some(Record::Bytes(encode(b'D', schema, &[key_only(key)]))),
        Op::Truncate { .. } => Some(Record::Bytes(encode(b'T', schema, &[]))),
        Op::InsertMany { first, count, width, .. } => {
            Some(Record::Many { schema, first: *first, count: *count, width: *width })
        }
        Op::AddColumn { .. } | Op::DropColumn { .. } | Op::IntToText { .. } => {
            if before.columns != after.columns {
                shape(state, &name);
            }
            None
        }
    })
}
