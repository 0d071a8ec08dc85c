//! Tables, their columns and keys, and their capture instances, from the catalogue.

use crate::error::{changed, setting_wrong};
use crate::position::Lsn;
use crate::sql::{Cells, literal, table_name};
use crate::types::Kind;
use crate::wire::Connection;
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_contract::{Column, ErrorKind, Result, SourceError, TableId, TableRequest, TableSchema};

/// A column of a table, or of a change table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Field {
    pub(crate) id: i64,
    pub(crate) name: Box<str>,
    /// `None` for a type that is not known.
    pub(crate) kind: Option<Kind>,
    native: Box<str>,
    nullable: bool,
    pub(crate) computed: bool,
}

/// A table as the catalogue describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Table {
    pub(crate) id: TableId,
    pub(crate) object: i64,
    pub(crate) fields: Vec<Field>,
    /// Unique indexes: whether it is the primary key, and the columns' ids.
    indexes: Vec<(bool, Vec<i64>)>,
    /// Capture instances, the oldest first.
    pub(crate) instances: Vec<Instance>,
}

/// A capture instance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Instance {
    /// The change table's object.
    pub(crate) object: i64,
    pub(crate) name: Box<str>,
    /// From where on it holds changes; `None` until the log reader has passed the statement that made it.
    pub(crate) start: Option<Lsn>,
    pub(crate) role: Option<Box<str>>,
    /// Ids of the table's columns that it holds, by their ordinal, and whether they are computed.
    pub(crate) captured: Vec<Captured>,
}

/// A captured column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Captured {
    pub(crate) column: i64,
    pub(crate) name: Box<str>,
    pub(crate) ordinal: i64,
    pub(crate) computed: bool,
    /// The type it has in the change table.
    pub(crate) kind: Option<Kind>,
}

/// How a table is read for a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shape {
    pub(crate) schema: Arc<TableSchema>,
    /// Kinds of the schema's columns.
    pub(crate) kinds: Vec<Kind>,
    /// Ids of the schema's columns.
    pub(crate) ids: Vec<i64>,
    pub(crate) object: i64,
    pub(crate) sql_name: String,
}

/// The error for a table that is not there.
pub(crate) fn missing_table(table: &TableId) -> SourceError {
    setting_wrong(format!("table {table} does not exist, or the user has no rights on it"))
        .hint(format!("check the name, and GRANT SELECT ON {} to the user", table_name(table)))
}

/// The error for a table that cannot be read.
pub(crate) fn refused(table: &TableId, reason: &str) -> SourceError {
    setting_wrong(format!("table {table} cannot be read: {reason}"))
}

/// Describes `tables`, or all user tables if there are none.
pub(crate) async fn describe(connection: &mut Connection, tables: &[TableId]) -> Result<BTreeMap<TableId, Table>> {
    let doing = "looking up tables";
    let names: Vec<String> =
        tables.iter().map(|t| format!("(s.name = {} AND t.name = {})", literal(&t.schema), literal(&t.name))).collect();
    let which = if names.is_empty() { String::new() } else { format!(" AND ({})", names.join(" OR ")) };
    let sql = format!(
        "SELECT s.name, t.name, t.object_id FROM sys.tables t JOIN sys.schemas s ON s.schema_id = t.schema_id \
         WHERE t.is_ms_shipped = 0 AND s.name <> N'cdc' AND s.name <> N'sys'{which} ORDER BY s.name, t.name"
    );
    let mut found = BTreeMap::new();
    for row in connection.rows(doing, &sql).await? {
        if let (Some(schema), Some(name), Some(object)) = (row.text(0), row.text(1), row.int(2)) {
            let id = TableId::new(schema, name);
            if tables.is_empty() || tables.contains(&id) {
                let table =
                    Table { id: id.clone(), object, fields: Vec::new(), indexes: Vec::new(), instances: Vec::new() };
                found.insert(id, table);
            }
        }
    }
    if found.is_empty() {
        return Ok(found);
    }
    let objects: Vec<i64> = found.values().map(|t| t.object).collect();
    let mut fields = fields(connection, &objects).await?;
    let mut indexes = indexes(connection, &objects).await?;
    let mut instances = match instances(connection, &objects).await {
        Ok(instances) => instances,
        // No change data capture, or no right to see it: preflight and the stream say so.
        Err(error) if matches!(error.kind, ErrorKind::PermissionMissing | ErrorKind::SchemaChanged) => BTreeMap::new(),
        Err(error) => return Err(error),
    };
    for table in found.values_mut() {
        table.fields = fields.remove(&table.object).unwrap_or_default();
        table.indexes = indexes.remove(&table.object).unwrap_or_default();
        table.instances = instances.remove(&table.object).unwrap_or_default();
    }
    Ok(found)
}

fn list(objects: &[i64]) -> String {
    objects.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

async fn fields(connection: &mut Connection, objects: &[i64]) -> Result<BTreeMap<i64, Vec<Field>>> {
    // The types of the system have one number for both; a type of users has the one it is made of in system_type_id.
    let sql = format!(
        "SELECT c.object_id, c.column_id, c.name, t.name, b.name, c.max_length, c.precision, c.scale, c.is_nullable, \
         c.is_computed, c.collation_name FROM sys.columns c JOIN sys.types t ON t.user_type_id = c.user_type_id \
         LEFT JOIN sys.types b ON b.user_type_id = c.system_type_id \
         WHERE c.object_id IN ({}) ORDER BY c.object_id, c.column_id",
        list(objects)
    );
    let mut out: BTreeMap<i64, Vec<Field>> = BTreeMap::new();
    for row in connection.rows("looking up columns", &sql).await? {
        let number = |at| row.int(at).unwrap_or(0);
        let (Some(object), Some(id), Some(name), Some(own)) = (row.int(0), row.int(1), row.text(2), row.text(3)) else {
            continue;
        };
        let base = row.text(4).unwrap_or(own);
        let kind = Kind::of(base, number(5), number(6), number(7), row.text(10));
        let native = kind.as_ref().map_or(own, |k| k.declared.as_str()).into();
        let (nullable, computed) = (number(8) != 0, number(9) != 0);
        let field = Field { id, name: name.into(), kind, native, nullable, computed };
        out.entry(object).or_default().push(field);
    }
    Ok(out)
}

async fn indexes(connection: &mut Connection, objects: &[i64]) -> Result<BTreeMap<i64, Vec<(bool, Vec<i64>)>>> {
    let sql = format!(
        "SELECT i.object_id, i.index_id, i.is_primary_key, ic.column_id FROM sys.indexes i JOIN sys.index_columns ic \
         ON ic.object_id = i.object_id AND ic.index_id = i.index_id WHERE i.is_unique = 1 AND i.is_disabled = 0 \
         AND i.has_filter = 0 AND ic.key_ordinal > 0 AND i.object_id IN ({}) \
         ORDER BY i.object_id, i.index_id, ic.key_ordinal",
        list(objects)
    );
    let mut out: BTreeMap<i64, Vec<(bool, Vec<i64>)>> = BTreeMap::new();
    let mut last = (0, 0);
    for row in connection.rows("looking up keys", &sql).await? {
        let (Some(object), Some(index), Some(column)) = (row.int(0), row.int(1), row.int(3)) else { continue };
        let of_table = out.entry(object).or_default();
        match of_table.last_mut().filter(|_| last == (object, index)) {
            Some((_, columns)) => columns.push(column),
            None => of_table.push((row.int(2) == Some(1), vec![column])),
        }
        last = (object, index);
    }
    Ok(out)
}

/// The capture instances of tables.
async fn instances(connection: &mut Connection, objects: &[i64]) -> Result<BTreeMap<i64, Vec<Instance>>> {
    let sql = format!(
        "SELECT object_id, source_object_id, capture_instance, start_lsn, role_name FROM cdc.change_tables \
         WHERE source_object_id IN ({}) ORDER BY create_date, object_id",
        list(objects)
    );
    let rows = connection.rows("looking up capture instances", &sql).await?;
    let tables: Vec<i64> = rows.iter().filter_map(|row| row.int(0)).collect();
    if tables.is_empty() {
        return Ok(BTreeMap::new());
    }
    let kinds = fields(connection, &tables).await?;
    let sql = format!(
        "SELECT object_id, column_id, column_name, column_ordinal, is_computed FROM cdc.captured_columns \
         WHERE object_id IN ({}) ORDER BY object_id, column_ordinal",
        list(&tables)
    );
    let mut captured: BTreeMap<i64, Vec<Captured>> = BTreeMap::new();
    for row in connection.rows("looking up captured columns", &sql).await? {
        let (Some(object), Some(column), Some(name), Some(ordinal)) = (row.int(0), row.int(1), row.text(2), row.int(3))
        else {
            continue;
        };
        let field = kinds.get(&object).and_then(|list| list.iter().find(|f| &*f.name == name));
        let kind = field.and_then(|f| f.kind.clone());
        let computed = row.int(4) == Some(1);
        captured.entry(object).or_default().push(Captured { column, name: name.into(), ordinal, computed, kind });
    }
    let mut out: BTreeMap<i64, Vec<Instance>> = BTreeMap::new();
    for row in rows {
        let (Some(object), Some(source), Some(name)) = (row.int(0), row.int(1), row.text(2)) else { continue };
        let start = row.bytes(3).and_then(Lsn::of).filter(|start| !start.is_zero());
        let captured = captured.remove(&object).unwrap_or_default();
        let role = row.text(4).map(Into::into);
        out.entry(source).or_default().push(Instance { object, name: name.into(), start, role, captured });
    }
    Ok(out)
}

impl Instance {
    /// The column of the change table that holds a column of the table; not one that is always null there.
    pub(crate) fn holds(&self, column: i64) -> Option<&Captured> {
        self.captured.iter().find(|c| c.column == column && !c.computed && c.kind.is_some())
    }
}

impl Table {
    /// How the table is read for `request`, when `instance` carries its changes. The error is the reason why not.
    pub(crate) fn shape(&self, request: &TableRequest, instance: Option<&Instance>) -> Result<Shape, String> {
        let key = self.key(request.key.as_deref())?;
        let wanted = |f: &Field| {
            key.contains(&f.id)
                || request.columns.as_ref().is_none_or(|list| list.iter().any(|n| n.eq_ignore_ascii_case(&f.name)))
        };
        let (mut columns, mut kinds, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        let mut whole = instance.is_some();
        for field in self.fields.iter().filter(|f| wanted(f)) {
            let Some(kind) = &field.kind else { continue };
            let held = instance.is_none_or(|i| i.holds(field.id).is_some());
            let may_be_unchanged = field.computed || kind.is_large || !held;
            whole &= !may_be_unchanged;
            columns.push(Column {
                name: field.name.clone(),
                logical: kind.logical(),
                native: field.native.clone(),
                nullable: field.nullable,
                max_length: kind.max_length,
                may_be_unchanged,
                unlogged: field.computed || !held,
                labels: Vec::new(),
            });
            kinds.push(kind.clone());
            ids.push(field.id);
        }
        let key = key.iter().filter_map(|id| ids.iter().position(|have| have == id)).collect();
        let schema = TableSchema { table: self.id.clone(), columns, key, full_before_image: whole };
        let sql_name = table_name(&self.id);
        Ok(Shape { schema: Arc::new(schema), kinds, ids, object: self.object, sql_name })
    }

    /// How the table is read for `request` when change tracking tells what changed: rows come from the table itself, so
    /// nothing is ever left out, and what tells them apart is the primary key.
    pub(crate) fn tracked_shape(&self, request: &TableRequest) -> Result<Shape, String> {
        let mut shape = self.shape(request, None)?;
        let Some((_, primary)) = self.indexes.iter().find(|(is_primary, _)| *is_primary) else {
            return Err("change tracking needs a primary key".into());
        };
        let key: Vec<i64> = shape.schema.key.iter().map(|at| shape.ids[*at]).collect();
        if key.len() != primary.len() || !key.iter().all(|id| primary.contains(id)) {
            return Err("the declared key is not the primary key, by which change tracking names rows".into());
        }
        let schema = Arc::make_mut(&mut shape.schema);
        for column in &mut schema.columns {
            (column.may_be_unchanged, column.unlogged) = (false, false);
        }
        Ok(shape)
    }

    /// How the table is read for `request` by a page, or by key.
    pub(crate) fn read_shape(&self, request: &TableRequest, tracking: bool) -> Result<Shape, String> {
        match tracking {
            true => self.tracked_shape(request),
            false => self.shape(request, self.newest()),
        }
    }

    /// Ids of the key's columns.
    fn key(&self, declared: Option<&[Box<str>]>) -> Result<Vec<i64>, String> {
        let field = |id: &i64| self.fields.iter().find(|f| f.id == *id);
        let key = match declared {
            None => {
                let primary = self.indexes.iter().find(|(is_primary, _)| *is_primary);
                primary
                    .map(|(_, columns)| columns.clone())
                    .ok_or("it has no primary key, and no key is declared for it")?
            }
            Some(names) => {
                let mut ids = Vec::new();
                for name in names {
                    let found = self.fields.iter().find(|f| f.name.eq_ignore_ascii_case(name));
                    ids.push(found.ok_or_else(|| format!("the declared key's column {name} does not exist"))?.id);
                }
                let same = |columns: &[i64]| columns.len() == ids.len() && ids.iter().all(|id| columns.contains(id));
                if !self.indexes.iter().any(|(_, columns)| same(columns)) {
                    return Err(format!("no unique index has exactly the declared key ({})", names.join(", ")));
                }
                ids
            }
        };
        for id in &key {
            let Some(field) = field(id) else { return Err("a key column cannot be seen".into()) };
            if field.nullable {
                return Err(format!("key column {} may be null", field.name));
            }
            if !field.kind.as_ref().is_some_and(Kind::can_be_key) {
                return Err(format!("key column {} is of type {}, which cannot be paged by", field.name, field.native));
            }
        }
        Ok(key)
    }

    /// The instance that stands for the table when nothing else says which: the newest one that has begun.
    pub(crate) fn newest(&self) -> Option<&Instance> {
        self.instances.iter().rev().find(|i| i.start.is_some()).or(self.instances.last())
    }
}

/// The one table of a request.
pub(crate) async fn one(connection: &mut Connection, request: &TableRequest, tracking: bool) -> Result<Shape> {
    let found = describe(connection, std::slice::from_ref(&request.table)).await?;
    let table = found.get(&request.table).ok_or_else(|| missing_table(&request.table))?;
    table.read_shape(request, tracking).map_err(|reason| refused(&request.table, &reason))
}

/// The error for a table that was altered while it was being read.
pub(crate) fn restless(table: &TableId) -> SourceError {
    changed(format!("table {table} was altered again and again while it was being read"))
}
