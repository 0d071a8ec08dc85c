//! Binding a rule with relations to tables as they are now.

use super::{Join, Relations, Slot, Source};
use crate::mapping::rule::{BindError, BoundRule, Rule};
use std::sync::Arc;
use tidemark_contract::{LogicalType, Row, RowBuilder, TableId, TableSchema, Value};

/// A rule bound to its own table and to those of its relations. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BoundRelated {
    /// Bound to the rule's own table.
    pub(super) root: BoundRule,
    /// Bound to the composite row.
    pub(super) whole: BoundRule,
    pub(super) relations: Arc<Relations>,
    pub(super) composite: Arc<Composite>,
    pub(super) children: Arc<[BoundChild]>,
    /// Positions in the rule's own row of the columns by which related rows are found.
    pub(super) left: Arc<[u32]>,
}

/// How a composite row is put together.
#[derive(Debug)]
pub(super) struct Composite {
    pub sources: Box<[BoundSource]>,
    /// Bytes to make room for, from the row built last.
    pub room: std::sync::atomic::AtomicUsize,
}

/// Where a value of a composite row is.
#[derive(Clone, Copy, Debug)]
pub(super) enum BoundSource {
    Row(u32),
    Join(u16, u32),
    Aggregate(u16),
}

#[derive(Debug)]
pub(super) struct BoundChild {
    /// `None`: the child's row alone is read, at `positions`.
    pub composite: Option<Composite>,
    pub positions: Box<[u32]>,
    /// Positions of the key in the child's own row.
    pub key: Box<[u32]>,
}

impl Rule {
    /// Binds a rule with relations. `schema_of` knows the tables as they are now; it is asked for the rule's own table
    /// and for each related one. Called again whenever one of them changes. A rule without relations binds too.
    pub fn bind_related(
        &self,
        schema_of: &mut dyn FnMut(&TableId) -> Option<Arc<TableSchema>>,
    ) -> Result<BoundRelated, BindError> {
        let mut found = |table: &TableId| {
            schema_of(table).ok_or_else(|| BindError {
                column: table.to_string().into(),
                reason: "belongs to a table that does not exist".into(),
            })
        };
        let schema = found(&self.table)?;
        let root = self.bind(&schema)?;
        let none = || {
            Arc::new(Relations {
                joins: Vec::new(),
                children: Vec::new(),
                program: Arc::new(super::RelatedProgram::flat(self.columns.len())),
            })
        };
        let relations = self.relations.clone().unwrap_or_else(none);
        let program = &relations.program;
        let rows = positions(&self.columns, &schema)?;
        let joins = join_positions(&relations.joins, &mut found)?;
        let composite = Composite::new(&program.sources, &rows, &joins);
        let width = u32::try_from(composite.sources.len()).unwrap_or(u32::MAX);
        let mut children = Vec::new();
        for (child, program) in relations.children.iter().zip(&program.children) {
            let schema = found(&child.table)?;
            let rows = positions(&child.columns, &schema)?;
            let joins = join_positions(&child.joins, &mut found)?;
            let composite = Composite::new(&program.sources, &rows, &joins);
            let key = program.key.iter().map(|n| at(&rows, *n)).collect();
            let alone: Option<Vec<u32>> = composite
                .sources
                .iter()
                .map(|s| if let BoundSource::Row(position) = s { Some(*position) } else { None })
                .collect();
            children.push(match alone {
                Some(positions) => BoundChild { composite: None, positions: positions.into(), key },
                None => {
                    let width = u32::try_from(composite.sources.len()).unwrap_or(u32::MAX);
                    BoundChild { composite: Some(composite), positions: (0..width).collect(), key }
                }
            });
        }
        let whole = BoundRule { positions: (0..width).collect(), needs_related: false, ..root.clone() };
        let left = program.left.iter().map(|n| at(&rows, *n)).collect();
        Ok(BoundRelated { root, whole, composite: Arc::new(composite), children: children.into(), left, relations })
    }
}

impl super::RelatedProgram {
    /// Of a rule without relations, whose own columns are the whole row.
    fn flat(columns: usize) -> Self {
        let sources = (0..u16::try_from(columns).unwrap_or(u16::MAX)).map(Source::Row).collect();
        Self { sources, ..Self::default() }
    }
}

fn at(positions: &[u32], n: u16) -> u32 {
    positions.get(usize::from(n)).copied().unwrap_or(u32::MAX)
}

fn join_positions(
    joins: &[Join],
    found: &mut impl FnMut(&TableId) -> Result<Arc<TableSchema>, BindError>,
) -> Result<Vec<Box<[u32]>>, BindError> {
    joins.iter().map(|join| positions(&join.columns, &*found(&join.table)?)).collect()
}

/// Positions of columns in a table as it is now.
pub(in crate::mapping) fn positions(
    columns: &[(Box<str>, LogicalType)],
    schema: &TableSchema,
) -> Result<Box<[u32]>, BindError> {
    columns
        .iter()
        .map(|(name, logical)| {
            let error = |reason: String| BindError { column: name.clone(), reason };
            let Some(index) = schema.position(name) else {
                return Err(error(format!("does not exist in {}", schema.table)));
            };
            let found = schema.columns[index].logical;
            if found != *logical {
                let native = &schema.columns[index].native;
                return Err(error(format!("is {found} ({native}) now; the mapping was compiled for {logical}")));
            }
            Ok(u32::try_from(index).unwrap_or(u32::MAX))
        })
        .collect()
}

impl Composite {
    fn new(sources: &[Source], rows: &[u32], joins: &[Box<[u32]>]) -> Self {
        let bound = |source: &Source| match source {
            Source::Row(n) => BoundSource::Row(at(rows, *n)),
            Source::Join { join, column } => {
                BoundSource::Join(*join, joins.get(usize::from(*join)).map_or(u32::MAX, |j| at(j, *column)))
            }
            Source::Aggregate(n) => BoundSource::Aggregate(*n),
        };
        Self { sources: sources.iter().map(bound).collect(), room: std::sync::atomic::AtomicUsize::new(64) }
    }

    /// One row from its parts. `aggregates` writes the aggregate of a number.
    pub(super) fn build(
        &self,
        row: &Row,
        joins: &[Option<Row>],
        mut aggregate: impl FnMut(u16, &mut RowBuilder),
    ) -> Row {
        use std::sync::atomic::Ordering::Relaxed;
        let room = self.room.load(Relaxed);
        let mut out = RowBuilder::with_capacity(self.sources.len(), room);
        for source in &self.sources {
            match source {
                BoundSource::Row(position) => out.push(row.get(*position as usize)),
                BoundSource::Join(join, position) => {
                    let joined = joins.get(usize::from(*join)).and_then(Option::as_ref);
                    out.push(joined.map_or(Value::Null, |j| j.get(*position as usize)));
                }
                BoundSource::Aggregate(n) => aggregate(*n, &mut out),
            }
        }
        let built = out.finish();
        if built.memory() > room {
            self.room.fetch_max(built.memory(), Relaxed);
        }
        built
    }
}

impl Slot {
    /// The join's number.
    pub fn join(self) -> Option<usize> {
        match self {
            Slot::Root => None,
            Slot::Join(n) => Some(n),
        }
    }
}
