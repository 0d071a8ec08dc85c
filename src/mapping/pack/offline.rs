//! A record compiled without a database: its tables have just the columns that its expressions and the tests need, and
//! related rows are found among those that a test gives.

use super::infer::{infer, same};
use super::testing::{Cell, CellValue, Test, TestTable};
use super::{Pack, Record};
use crate::diagnostics::Diagnostics;
use crate::mapping::compile::{CompileOptions, compile};
use crate::mapping::expr::cast::cast;
use crate::mapping::expr::convert::type_of;
use crate::mapping::expr::eval::compare;
use crate::mapping::expr::ir::{Target, Type};
use crate::mapping::expr::value::{Fault, Val};
use crate::mapping::names::{Found, Name};
use crate::mapping::{Applied, BoundRelated, ChildRows, Join, OnPair, RelatedRows, Relations, Slot};
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;
use tidemark_contract::{Column, LogicalType, Row, RowBuilder, TableId, TableSchema, Value};

/// The schema of tables that a pack names without one.
const SCHEMA: &str = "tests";

/// What is wrong with the rows of a test.
pub(in crate::mapping) struct Wrong {
    /// The value at fault, if there is one.
    pub span: Option<Range<usize>>,
    pub message: String,
}

/// One record, ready to be applied to rows of tests.
pub(super) struct Offline {
    /// The record's own table first.
    schemas: Vec<Arc<TableSchema>>,
    bound: BoundRelated,
    relations: Option<Arc<Relations>>,
}

impl Offline {
    /// Compiles a record. `row` and `related` say which columns there are, and of which types.
    pub(super) fn new(
        pack: &Pack,
        record: &Record,
        row: &[Cell],
        related: &[TestTable],
        options: &CompileOptions,
    ) -> Result<Self, Diagnostics> {
        let schemas = schemas(pack, record, row, related);
        let alone = Pack { records: vec![record.clone()], ..pack.clone() };
        let (mapping, _) = compile(&alone, &schemas, SCHEMA, None, options)?;
        let rule = mapping.rules.first().ok_or_else(|| pack.diagnostics.clone())?;
        let mut schema_of = |table: &TableId| schemas.iter().find(|s| s.table == *table).cloned();
        let bound = rule.bind_related(&mut schema_of).map_err(|_| pack.diagnostics.clone())?;
        Ok(Self { relations: rule.relations.clone(), schemas, bound })
    }

    /// What the record makes of a row and of the rows of other tables.
    pub(super) fn apply(&self, row: &[Cell], related: &[TestTable]) -> Result<Applied, Wrong> {
        let own = build_row(&self.schemas[0], row)?;
        let mut tables = Vec::new();
        for (n, schema) in self.schemas.iter().enumerate() {
            let mut rows = Vec::new();
            for cells in
                related.iter().filter(|t| t.name.eq_ignore_ascii_case(&schema.table.name)).flat_map(|t| &t.rows)
            {
                rows.push(build_row(schema, cells)?);
            }
            // A record's own row is one of its table.
            rows.extend((n == 0).then(|| own.clone()));
            tables.push((Arc::clone(schema), rows));
        }
        let rows = match &self.relations {
            Some(relations) => Database { tables: &tables }.related(&self.schemas[0], &own, relations)?,
            None => RelatedRows::default(),
        };
        Ok(self.bound.apply(&own, &rows))
    }
}

/// The rows of a test, as a database.
pub(in crate::mapping) struct Database<'s> {
    pub tables: &'s [(Arc<TableSchema>, Vec<Row>)],
}

impl Database<'_> {
    /// The related rows of a row.
    pub(in crate::mapping) fn related(
        &self,
        schema: &TableSchema,
        own: &Row,
        relations: &Relations,
    ) -> Result<RelatedRows, Wrong> {
        let joins = self.joins(schema, own, &relations.joins)?;
        let mut children = Vec::new();
        for child in &relations.children {
            let found = match at(schema, own, &relations.joins, &joins, self, child.from) {
                Some((from, row)) => self.find(from, row, &child.table, &child.on),
                None => Vec::new(),
            };
            let mut rows = Vec::new();
            for row in found {
                let joins = match self.schema(&child.table) {
                    Some(schema) => self.joins(schema, row, &child.joins)?,
                    None => Vec::new(),
                };
                rows.push(ChildRows { row: row.clone(), joins });
            }
            children.push(rows);
        }
        Ok(RelatedRows { joins, children })
    }

    fn joins(&self, schema: &TableSchema, own: &Row, joins: &[Join]) -> Result<Vec<Option<Row>>, Wrong> {
        let mut done: Vec<Option<Row>> = Vec::new();
        for join in joins {
            let found = match at(schema, own, joins, &done, self, join.from) {
                Some((from, row)) => self.find(from, row, &join.table, &join.on),
                None => Vec::new(),
            };
            if found.len() > 1 {
                let message = format!("{} rows of {} match the join `{}`", found.len(), join.table.name, join.alias);
                return Err(Wrong { span: None, message });
            }
            done.push(found.first().map(|row| (*row).clone()));
        }
        Ok(done)
    }

    fn schema(&self, table: &TableId) -> Option<&TableSchema> {
        self.tables.iter().find(|(schema, _)| schema.table == *table).map(|(schema, _)| &**schema)
    }

    /// Rows of `table` whose right columns equal the left ones of `row`.
    fn find(&self, schema: &TableSchema, row: &Row, table: &TableId, on: &[OnPair]) -> Vec<&Row> {
        let Some((right_schema, rows)) = self.tables.iter().find(|(schema, _)| schema.table == *table) else {
            return Vec::new();
        };
        let equal = |other: &&Row| {
            on.iter().all(|pair| match (value(schema, row, &pair.left), value(right_schema, other, &pair.right)) {
                (Some(left), Some(right)) => compare(&left, &right) == Some(Ordering::Equal),
                _ => false,
            })
        };
        rows.iter().filter(equal).collect()
    }
}

fn value<'r>(schema: &TableSchema, row: &'r Row, name: &str) -> Option<Val<'r>> {
    Val::read(row.get(schema.position(name)?)).ok()
}

/// The row in a slot, if there is one.
fn at<'a>(
    schema: &'a TableSchema,
    own: &'a Row,
    joins: &[Join],
    found: &'a [Option<Row>],
    source: &'a Database<'_>,
    slot: Slot,
) -> Option<(&'a TableSchema, &'a Row)> {
    match slot {
        Slot::Root => Some((schema, own)),
        Slot::Join(n) => Some((source.schema(&joins.get(n)?.table)?, found.get(n)?.as_ref()?)),
    }
}

/// How sure a column's type is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Sure {
    Not,
    ByUse,
    ByValue,
    Declared,
}

struct Guess {
    name: Name,
    ty: LogicalType,
    sure: Sure,
}

struct Synthetic {
    id: TableId,
    columns: Vec<Guess>,
}

/// The tables of a record, its own first, with the columns that expressions name, that rows have, and that are declared.
fn schemas(pack: &Pack, record: &Record, row: &[Cell], related: &[TestTable]) -> Vec<Arc<TableSchema>> {
    let inferred = infer(record);
    let mut tables: Vec<Synthetic> = Vec::new();
    // Several uses of one table are one table.
    let mut table_of = Vec::new();
    for uses in &inferred.tables {
        let id = uses.from.table.as_written(SCHEMA);
        let index = tables.iter().position(|t| t.id == id).unwrap_or_else(|| {
            tables.push(Synthetic { id, columns: Vec::new() });
            tables.len() - 1
        });
        table_of.push(index);
        for (name, ty) in &uses.columns {
            tables[index].used(name, *ty);
        }
    }
    let none = Vec::new();
    for (n, table) in tables.iter_mut().enumerate() {
        let declared = pack.columns.get(&table.id.name.to_lowercase()).unwrap_or(&none);
        for (name, ty) in declared {
            table.column(name, *ty, Sure::Declared);
        }
        let id = table.id.clone();
        let given = related.iter().filter(|t| t.name.eq_ignore_ascii_case(&id.name)).flat_map(|t| &t.rows);
        for cell in given.flatten().chain(if n == 0 { row } else { &[] }) {
            let by_use = table.columns.iter().find(|c| c.name.text.eq_ignore_ascii_case(&cell.name));
            let by_use = by_use.filter(|c| c.sure == Sure::ByUse).map(|c| c.ty);
            table.column(&cell.name, cell.value.logical(by_use), Sure::ByValue);
        }
    }
    for table in &mut tables {
        table.by_other_tests(pack);
    }
    for (scope, name, ty) in &inferred.bare {
        let has = |n: &usize| tables[table_of[*n]].columns.iter().any(|c| same(&c.name, name));
        let index = table_of[scope.clone().find(has).unwrap_or(scope.start)];
        tables[index].used(name, *ty);
    }
    // What `on` compares has one type: the surer side tells it.
    for _ in 0..inferred.equal.len() {
        for [(left, left_name), (right, right_name)] in &inferred.equal {
            let (left, right) = (table_of[*left], table_of[*right]);
            let known = |table: usize, name: &Name| {
                tables[table].columns.iter().find(|c| same(&c.name, name)).map(|c| (c.sure, c.ty))
            };
            let (Some(a), Some(b)) = (known(left, left_name), known(right, right_name)) else { continue };
            let (table, name, (sure, ty)) = if a.0 >= b.0 { (right, right_name, a) } else { (left, left_name, b) };
            if let Some(column) = tables[table].columns.iter_mut().find(|c| same(&c.name, name))
                && column.sure < Sure::Declared
            {
                (column.sure, column.ty) = (sure, ty);
            }
        }
    }
    tables.into_iter().map(|t| Arc::new(t.finish())).collect()
}

impl Synthetic {
    fn used(&mut self, name: &Name, ty: Option<LogicalType>) {
        let (ty, sure) = ty.map_or((LogicalType::Text, Sure::Not), |ty| (ty, Sure::ByUse));
        match self.columns.iter_mut().find(|c| same(&c.name, name)) {
            Some(column) if column.sure < sure => (column.ty, column.sure) = (ty, sure),
            Some(_) => {}
            None => self.columns.push(Guess { name: name.clone(), ty, sure }),
        }
    }

    fn column(&mut self, text: &str, ty: LogicalType, sure: Sure) {
        let name = Name { text: text.to_owned(), quoted: true };
        let found = match name.find(self.columns.iter().map(|c| c.name.text.as_str())) {
            Found::One(index) => Some(index),
            _ => None,
        };
        match found.map(|index| &mut self.columns[index]) {
            Some(column) if column.sure < sure => (column.ty, column.sure) = (ty, sure),
            Some(_) => {}
            None => self.columns.push(Guess { name, ty, sure }),
        }
    }

    /// Columns of whose type nothing better is known have the one that their values have in other tests.
    fn by_other_tests(&mut self, pack: &Pack) {
        let is = |name: &str| name.eq_ignore_ascii_case(&self.id.name);
        let own = |test: &Test| pack.records.iter().any(|r| r.name == test.record && is(&r.from.table.name.text));
        let mut cells: Vec<&Cell> = Vec::new();
        for test in &pack.tests {
            cells.extend(test.related.iter().filter(|t| is(&t.name)).flat_map(|t| &t.rows).flatten());
            cells.extend(test.row.iter().filter(|_| own(test)));
        }
        for cell in cells {
            let by_name = |c: &&mut Guess| c.name.text.eq_ignore_ascii_case(&cell.name) && c.sure < Sure::ByValue;
            if let Some(column) = self.columns.iter_mut().find(by_name) {
                let by_use = (column.sure == Sure::ByUse).then_some(column.ty);
                (column.ty, column.sure) = (cell.value.logical(by_use), Sure::ByValue);
            }
        }
    }

    fn finish(self) -> TableSchema {
        let column = |c: Guess| Column {
            name: c.name.text.into(),
            logical: c.ty,
            native: "declared by tests".into(),
            // The pack cannot know what a database forbids; required fields are checked against the real one.
            nullable: false,
            max_length: None,
            may_be_unchanged: false,
            unlogged: false,
            labels: Vec::new(),
        };
        let columns = self.columns.into_iter().map(column).collect();
        TableSchema { table: self.id, columns, key: Vec::new(), full_before_image: true }
    }
}

impl CellValue {
    pub(super) fn logical(&self, by_use: Option<LogicalType>) -> LogicalType {
        match self {
            CellValue::Bool(_) => LogicalType::Bool,
            CellValue::Integer(_) => match by_use {
                Some(ty @ (LogicalType::Float | LogicalType::Decimal)) => ty,
                _ => LogicalType::Int,
            },
            CellValue::Float(_) => by_use.filter(|ty| *ty == LogicalType::Float).unwrap_or(LogicalType::Decimal),
            CellValue::Text(_) => by_use.unwrap_or(LogicalType::Text),
            CellValue::Temporal(_, ty) => *ty,
        }
    }

    fn text(&self) -> String {
        match self {
            CellValue::Bool(b) => b.to_string(),
            CellValue::Integer(s) | CellValue::Float(s) | CellValue::Text(s) | CellValue::Temporal(s, _) => s.clone(),
        }
    }
}

fn build_row(schema: &TableSchema, cells: &[Cell]) -> Result<Row, Wrong> {
    let mut builder = RowBuilder::default();
    for column in &schema.columns {
        let Some(cell) = cells.iter().find(|c| c.name.eq_ignore_ascii_case(&column.name)) else {
            builder.push(Value::Null);
            continue;
        };
        push(&mut builder, column.logical, &cell.value.text()).map_err(|fault| Wrong {
            span: Some(cell.span.clone()),
            message: format!("column `{}`: {}", cell.name, fault.what),
        })?;
    }
    Ok(builder.finish())
}

/// Pushes a text as a value of a type, in the connectors' canonical form.
fn push(builder: &mut RowBuilder, logical: LogicalType, text: &str) -> Result<(), Fault> {
    let target = match type_of(logical) {
        Type::Bool => Target::Bool,
        Type::Int => Target::Int(64),
        Type::Float => Target::Float,
        Type::Decimal => Target::Decimal(None),
        Type::Date => Target::Date,
        Type::Time => Target::Time,
        Type::Timestamp => Target::Timestamp(6),
        Type::TimestampTz => Target::TimestampTz(6),
        Type::Uuid => Target::Uuid,
        Type::Json => Target::Json,
        Type::Text | Type::Bytes | Type::List | Type::Null => Target::Text(None),
    };
    match cast(&target, Val::text(text))? {
        Val::Bytes(_) | Val::List(_) => builder.push(Value::Null),
        val => val.push_into(builder),
    }
    Ok(())
}
