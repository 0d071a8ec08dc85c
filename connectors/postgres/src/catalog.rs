//! Discovery: what the catalogue says about tables, and the shape in which their rows are read.

use crate::decode::Kind;
use crate::error::undecodable;
use crate::sql::{Queries, Sql};
use crate::types::{Types, max_length};
use crate::wire::literal;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_contract::{Column, ErrorKind, Result, SourceError, TableId, TableRequest, TableSchema};

/// A table as the catalogue describes it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Table {
    pub(crate) schema: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) oid: u32,
    /// `relkind`: r table, p partitioned, v view, m materialised view, f foreign.
    pub(crate) kind: char,
    /// `relpersistence`: p permanent, u unlogged, t temporary.
    pub(crate) persistence: char,
    /// Whether it is a partition of another table.
    pub(crate) is_partition: bool,
    /// Whether other tables inherit from it.
    pub(crate) has_children: bool,
    /// Whether a row-level security policy applies to us.
    pub(crate) is_secured: bool,
    /// Whether we may select from it.
    pub(crate) may_select: bool,
    /// Whether we may use its schema.
    #[serde(default)]
    pub(crate) may_use_schema: bool,
    /// Whether we own it, which publishing it needs.
    #[serde(default)]
    pub(crate) is_owned: bool,
    /// The replica identities of the table, or of the leaves of a partitioned one.
    #[serde(default)]
    pub(crate) identities: Option<Vec<Identity>>,
    #[serde(default)]
    columns: Option<Vec<TableColumn>>,
    #[serde(default)]
    unique: Option<Vec<UniqueIndex>>,
}

/// What the log identifies the old version of a row by.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Identity {
    /// `relreplident`: d primary key, i an index, f the whole row, n nothing.
    pub(crate) kind: char,
    /// Columns of the primary key or the index.
    #[serde(default)]
    columns: Option<Vec<Box<str>>>,
}

impl Identity {
    /// Whether the log identifies rows at least by `key`.
    pub(crate) fn covers(&self, key: &[&str]) -> bool {
        self.kind == 'f' || key.iter().all(|k| self.columns.iter().flatten().any(|c| **c == **k))
    }
}

/// A column as the catalogue describes it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct TableColumn {
    pub(crate) name: Box<str>,
    pub(crate) type_oid: u32,
    pub(crate) modifier: i32,
    native: Box<str>,
    not_null: bool,
    pub(crate) generated: bool,
    /// Whether large values may be stored out of line.
    toastable: bool,
}

/// A unique index on plain columns, without a condition.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct UniqueIndex {
    primary: bool,
    columns: Vec<Box<str>>,
}

/// How rows of a table are read: its schema as the contract wants it, and what only this connector needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) schema: Arc<TableSchema>,
    /// How each column's text is read.
    pub(crate) kinds: Vec<Kind>,
    /// Positions of the key columns in the order of the index, by which pages are read. The schema's key holds the same
    /// positions in column order: the order that the log knows too.
    pub(crate) index_key: Vec<usize>,
}

impl Table {
    pub(crate) fn id(&self) -> TableId {
        TableId::new(self.schema.clone(), self.name.clone())
    }

    /// Columns in table order.
    pub(crate) fn columns(&self) -> &[TableColumn] {
        self.columns.as_deref().unwrap_or_default()
    }

    pub(crate) fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns().iter().find(|c| &*c.name == name)
    }

    /// Whether every old row is in the log whole.
    pub(crate) fn is_full_identity(&self) -> bool {
        let mut identities = self.identities.iter().flatten().peekable();
        identities.peek().is_some() && identities.all(|i| i.kind == 'f')
    }

    /// `ONLY` before an ordinary table: rows of tables that inherit from it are not its rows, and their changes come under
    /// their own names. A partitioned table is its partitions.
    pub(crate) fn only(&self) -> &'static str {
        if self.kind == 'p' { "" } else { "ONLY " }
    }

    /// The table's name as SQL.
    pub(crate) fn sql(&self) -> String {
        sql_name(&self.id())
    }

    /// Why rows of this relation cannot be replicated, if they cannot.
    pub(crate) fn unsuitable(&self) -> Option<&'static str> {
        match (self.kind, self.persistence) {
            ('v', _) => Some("it is a view, and views are not in the log"),
            ('m', _) => Some("it is a materialised view, and those are not in the log"),
            ('f', _) => Some("it is a foreign table, whose changes are not in this server's log"),
            (_, 'u') => Some("it is unlogged, so its changes are not in the log"),
            (_, 't') => Some("it is temporary"),
            ('r' | 'p', _) => None,
            _ => Some("it is not a table"),
        }
    }

    /// The columns of the row key in the order of their index, or why there is no usable one.
    pub(crate) fn key(&self, declared: Option<&[Box<str>]>) -> Result<Vec<&str>, String> {
        let mut unique = self.unique.iter().flatten();
        let columns = match declared {
            None => {
                let primary = unique.find(|index| index.primary).map(|index| &index.columns);
                primary.ok_or("it has no primary key; declare a unique key of columns that are not null")?
            }
            Some(declared) => {
                let wanted = |index: &&UniqueIndex| {
                    index.columns.len() == declared.len() && declared.iter().all(|c| index.columns.contains(c))
                };
                let found = unique.find(wanted).map(|index| &index.columns);
                found.ok_or_else(|| format!("it has no unique index on exactly ({})", declared.join(", ")))?
            }
        };
        let nullable = |name: &&str| self.column(name).is_none_or(|c| !c.not_null);
        if let Some(name) = columns.iter().map(|c| &**c).find(nullable) {
            return Err(format!("column {name} of the key may be null, and null equals nothing"));
        }
        Ok(columns.iter().map(|c| &**c).collect())
    }

    /// How the requested columns are read; `types` must know all types of the table.
    pub(crate) fn shape(&self, request: &TableRequest, types: &Types) -> Result<Shape, String> {
        if let Some(reason) = self.unsuitable() {
            return Err(reason.to_owned());
        }
        let key = self.key(request.key.as_deref())?;
        let full = self.is_full_identity();
        let mut columns = Vec::new();
        let mut kinds = Vec::new();
        for column in self.columns() {
            if !is_wanted(request, &key, &column.name) {
                continue;
            }
            let info = types.get(column.type_oid);
            columns.push(column.described(types, full, !column.generated));
            kinds.push(info.kind);
        }
        let position = |name: &&str| columns.iter().position(|c| *c.name == **name);
        let index_key: Vec<usize> = key.iter().filter_map(position).collect();
        for &at in &index_key {
            if let Some(reason) = unusable_key(&kinds[at]) {
                return Err(format!("column {} of the key {reason}", columns[at].name));
            }
        }
        let mut key = index_key.clone();
        key.sort_unstable();
        let schema = TableSchema { table: self.id(), columns, key, full_before_image: full };
        Ok(Shape { schema: Arc::new(schema), kinds, index_key })
    }
}

impl TableColumn {
    /// The contract's description. `full` says that old rows are in the log whole, so that an unchanged large value is
    /// found there; `logged`, that the log carries the column at all.
    pub(crate) fn described(&self, types: &Types, full: bool, logged: bool) -> Column {
        let info = types.get(self.type_oid);
        Column {
            name: self.name.clone(),
            logical: info.kind.logical(),
            native: self.native.clone(),
            nullable: !(self.not_null || info.not_null),
            max_length: max_length(&info, self.modifier),
            may_be_unchanged: !logged || (self.toastable && !full),
            unlogged: !logged,
            labels: info.labels,
        }
    }
}

/// Whether a column belongs to a request: key columns always do.
pub(crate) fn is_wanted(request: &TableRequest, key: &[&str], name: &str) -> bool {
    match &request.columns {
        None => true,
        Some(list) => list.iter().any(|c| **c == *name) || key.contains(&name),
    }
}

fn unusable_key(kind: &Kind) -> Option<&'static str> {
    match kind {
        Kind::Array(_) => Some("is an array, which is not supported as a key"),
        Kind::Composite(_) | Kind::Hstore | Kind::Json => {
            Some("is of a composite, hstore or JSON type, which is not supported as a key")
        }
        _ => None,
    }
}

/// `"schema"."name"`.
pub(crate) fn sql_name(id: &TableId) -> String {
    format!("{}.{}", crate::wire::ident(&id.schema), crate::wire::ident(&id.name))
}

/// A table that cannot be read as requested.
pub(crate) fn refused(table: &TableId, reason: &str) -> SourceError {
    SourceError::new(ErrorKind::SettingWrong, format!("table {table} cannot be read: {reason}"))
}

pub(crate) fn missing_table(table: &TableId) -> SourceError {
    refused(table, "it does not exist in this database").hint("names are matched exactly, letter case included")
}

/// Describes tables; those that do not exist are missing in the answer. Also learns their types.
pub(crate) async fn describe(
    connection: &mut impl Queries,
    types: &mut Types,
    tables: &[TableId],
) -> Result<HashMap<TableId, Table>> {
    let names: Vec<String> = tables.iter().map(|t| format!("({}, {})", literal(&t.schema), literal(&t.name))).collect();
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let condition = format!("(n.nspname, c.relname) IN (VALUES {})", names.join(", "));
    let found = describe_where(connection, types, &condition).await?;
    Ok(found.into_iter().map(|t| (t.id(), t)).collect())
}

/// Describes all user tables, partitions left out.
pub(crate) async fn describe_all(connection: &mut Sql, types: &mut Types) -> Result<Vec<Table>> {
    let condition = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_%'
        AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND NOT c.relispartition";
    describe_where(connection, types, condition).await
}

/// The description of one table, as an SQL expression over `pg_class c` and `pg_namespace n`.
const DESCRIPTION: &str = "pg_catalog.jsonb_build_object(
    'schema', n.nspname, 'name', c.relname, 'oid', c.oid::int8,
    'kind', c.relkind, 'persistence', c.relpersistence, 'is_partition', c.relispartition,
    'has_children', c.relkind = 'r' AND c.relhassubclass,
    'is_secured', row_security_active(c.oid),
    'may_select', has_table_privilege(c.oid, 'SELECT'),
    'may_use_schema', has_schema_privilege(n.oid, 'USAGE'),
    'is_owned', pg_has_role(c.relowner, 'USAGE'),
    'identities', (SELECT jsonb_agg(DISTINCT jsonb_build_object('kind', leaf.relreplident, 'columns',
            (SELECT jsonb_agg(a.attname ORDER BY a.attnum)
                FROM pg_index i JOIN pg_attribute a ON a.attrelid = leaf.oid AND a.attnum = ANY (i.indkey)
                WHERE i.indrelid = leaf.oid AND CASE leaf.relreplident
                    WHEN 'd' THEN i.indisprimary AND i.indimmediate WHEN 'i' THEN i.indisreplident ELSE false END)))
        FROM pg_class leaf
        WHERE leaf.oid = CASE WHEN c.relkind = 'r' THEN c.oid END
           OR leaf.oid IN (SELECT relid FROM pg_partition_tree(CASE WHEN c.relkind = 'p' THEN c.oid::regclass END)
                            WHERE isleaf)),
    'columns', (SELECT jsonb_agg(jsonb_build_object('name', a.attname, 'type_oid', a.atttypid::int8,
            'modifier', a.atttypmod, 'native', format_type(a.atttypid, a.atttypmod), 'not_null', a.attnotnull,
            'generated', a.attgenerated <> '', 'toastable', a.attlen = -1 AND a.attstorage <> 'p') ORDER BY a.attnum)
        FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    'unique', (SELECT jsonb_agg(jsonb_build_object('primary', i.indisprimary, 'columns',
            (SELECT jsonb_agg(a.attname ORDER BY k.at)
                FROM unnest(i.indkey::int2[]) WITH ORDINALITY k (number, at)
                JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
                WHERE k.at <= i.indnkeyatts)) ORDER BY i.indisprimary DESC, i.indexrelid)
        FROM pg_index i
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL))";

/// The statement that describes the tables meeting a condition on `pg_class c` and `pg_namespace n`.
pub(crate) fn description_sql(condition: &str) -> String {
    format!(
        "SELECT {DESCRIPTION} FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND {condition} ORDER BY n.nspname, c.relname"
    )
}

/// Reads one row of [`description_sql`]'s answer.
pub(crate) fn parse_description(row: Vec<Option<String>>) -> Result<Table> {
    let text = row.into_iter().next().flatten().unwrap_or_default();
    serde_json::from_str(&text)
        .map_err(|e| undecodable("the catalogue's description of a table was not understood").caused_by(e))
}

async fn describe_where(connection: &mut impl Queries, types: &mut Types, condition: &str) -> Result<Vec<Table>> {
    let rows = connection.rows("reading tables from the catalogue", &description_sql(condition)).await?;
    let tables = rows.into_iter().map(parse_description).collect::<Result<Vec<_>>>()?;
    let oids: Vec<u32> = tables.iter().flat_map(|t| t.columns().iter().map(|c| c.type_oid)).collect();
    types.learn(connection, &oids).await?;
    Ok(tables)
}

/// The server's own estimate of a table's rows. Statistics of its leaves are scaled by their present size; where a leaf was
/// never analysed the planner's guess is taken.
pub(crate) async fn estimate_rows(connection: &mut Sql, table: &TableId) -> Result<Option<u64>> {
    let name = sql_name(table);
    let doing = format!("estimating the rows of table {table}");
    let sql = format!(
        "WITH leaves AS (
            SELECT l.reltuples, l.relpages, pg_relation_size(l.oid) AS bytes
            FROM pg_class c, pg_class l
            WHERE c.oid = {0}::regclass AND (l.oid = CASE WHEN c.relkind <> 'p' THEN c.oid END
               OR l.oid IN (SELECT relid FROM pg_partition_tree(CASE WHEN c.relkind = 'p' THEN c.oid::regclass END)
                             WHERE isleaf)))
        SELECT CASE WHEN bool_and(bytes = 0 OR (reltuples >= 0 AND relpages > 0)) OR count(*) = 0 THEN
            coalesce(sum(CASE WHEN bytes = 0 THEN 0 ELSE
                reltuples / nullif(relpages, 0) * (bytes / current_setting('block_size')::float8) END), 0)::int8 END
        FROM leaves",
        literal(&name)
    );
    if let Some(estimate) = connection.value(&doing, &sql).await? {
        return Ok(estimate.parse().ok());
    }
    // Never analysed: the planner knows the size, and guesses the width.
    let plan = connection.value(&doing, &format!("EXPLAIN (FORMAT JSON) SELECT FROM {name}")).await?;
    let plan: serde_json::Value = serde_json::from_str(plan.as_deref().unwrap_or_default()).unwrap_or_default();
    Ok(plan[0]["Plan"]["Plan Rows"].as_u64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let column = |name: &str, not_null: bool| {
            format!(
                r#"{{"name":"{name}","type_oid":23,"modifier":-1,"native":"integer","not_null":{not_null},
                    "generated":false,"toastable":false}}"#
            )
        };
        serde_json::from_str(&format!(
            r#"{{"schema":"s","name":"t","oid":1,"kind":"r","persistence":"p","is_partition":false,"has_children":false,
                "is_secured":false,"may_select":true,"identities":[{{"kind":"d","columns":["a","b"]}}],
                "columns":[{},{},{},{}],
                "unique":[{{"primary":true,"columns":["b","a"]}},{{"primary":false,"columns":["c"]}},
                          {{"primary":false,"columns":["d"]}}]}}"#,
            column("a", true),
            column("b", true),
            column("c", false),
            column("d", true),
        ))
        .unwrap()
    }

    fn request(columns: Option<&[&str]>, key: Option<&[&str]>) -> TableRequest {
        let list = |names: &[&str]| names.iter().map(|n| Box::from(*n)).collect();
        TableRequest { table: TableId::new("s", "t"), columns: columns.map(list), key: key.map(list) }
    }

    #[test]
    fn the_key_is_read_in_index_order_and_kept_in_column_order() {
        let shape = table().shape(&request(Some(&["c"]), None), &Types::default()).unwrap();
        let names: Vec<&str> = shape.schema.columns.iter().map(|c| &*c.name).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!((&shape.schema.key[..], &shape.index_key[..]), (&[0, 1][..], &[1, 0][..]));
    }

    #[test]
    fn declared_keys_must_be_unique_and_never_null() {
        let table = table();
        assert_eq!(table.key(Some(&["d".into()])), Ok(vec!["d"]));
        assert!(table.key(Some(&["c".into()])).unwrap_err().contains("may be null"));
        assert!(table.key(Some(&["a".into()])).unwrap_err().contains("no unique index"));
        let keyless = Table { unique: None, ..table };
        assert!(keyless.key(None).unwrap_err().contains("no primary key"));
    }

    #[test]
    fn identities_cover_keys() {
        let table = table();
        let identity = &table.identities.as_ref().unwrap()[0];
        assert!(identity.covers(&["a", "b"]) && identity.covers(&["b"]) && !identity.covers(&["d"]));
        assert!(Identity { kind: 'f', columns: None }.covers(&["d"]));
        assert!(!Identity { kind: 'n', columns: None }.covers(&["d"]));
    }

    #[test]
    fn what_is_not_in_the_log_is_refused() {
        for (kind, persistence) in [('v', 'p'), ('f', 'p'), ('r', 'u'), ('r', 't'), ('i', 'p')] {
            let table = Table { kind, persistence, ..table() };
            assert!(table.shape(&request(None, None), &Types::default()).is_err());
        }
    }
}
