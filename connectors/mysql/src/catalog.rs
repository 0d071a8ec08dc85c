//! Discovery: what the catalogue says about tables, and the shape in which their rows are read.

use crate::MysqlConfig;
use crate::charset::Charset;
use crate::error::setting_wrong;
use crate::position;
use crate::sql::{Sql, ident, literal};
use crate::types::{Kind, ZeroPolicy};
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_contract::{Column, Result, SourceError, TableId, TableRequest, TableSchema};

/// A table as the catalogue describes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    /// Its name as the server stores it.
    pub(crate) schema: Box<str>,
    pub(crate) name: Box<str>,
    /// `BASE TABLE`, `VIEW`, `SYSTEM VERSIONED`, `SEQUENCE`.
    pub(crate) kind: Box<str>,
    pub(crate) engine: Box<str>,
    pub(crate) partitioned: bool,
    pub(crate) rows: Option<u64>,
    /// Bytes of data by the server's estimate.
    pub(crate) bytes: Option<u64>,
    pub(crate) columns: Vec<TableColumn>,
    pub(crate) unique: Vec<UniqueIndex>,
}

/// A column as the catalogue describes it.
#[derive(Clone, Debug)]
pub(crate) struct TableColumn {
    pub(crate) name: Box<str>,
    /// `varchar`.
    pub(crate) data_type: Box<str>,
    /// `varchar(40)`.
    pub(crate) native: Box<str>,
    pub(crate) nullable: bool,
    pub(crate) max_length: Option<u32>,
    pub(crate) octets: Option<u32>,
    pub(crate) charset: Box<str>,
    /// Whether MariaDB holds JSON in it.
    pub(crate) json_text: bool,
}

/// A unique index on whole columns.
#[derive(Clone, Debug, Default)]
pub(crate) struct UniqueIndex {
    name: Box<str>,
    pub(crate) columns: Vec<Box<str>>,
    /// Whether a part of it is an expression or the beginning of a column only.
    odd: bool,
}

/// How rows of a table are read: its schema as the contract wants it, and what only this connector needs.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) schema: Arc<TableSchema>,
    /// How each column's values are read.
    pub(crate) kinds: Vec<Kind>,
    /// Positions of the key columns in the order of the index, by which pages are read.
    pub(crate) index_key: Vec<usize>,
    /// The character set of each text column, as SQL names it.
    pub(crate) charsets: Vec<Box<str>>,
    /// Name in the database.
    pub(crate) sql_name: String,
}

impl Table {
    pub(crate) fn id(&self) -> TableId {
        TableId::new(self.schema.clone(), self.name.clone())
    }

    pub(crate) fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|c| c.name.eq_ignore_ascii_case(name))
    }

    /// A hash of everything that decides how a row is cut into columns.
    pub(crate) fn shape_hash(&self) -> u32 {
        let parts = self.columns.iter().flat_map(|c| [c.name.as_bytes(), &[0], c.native.as_bytes(), &[1]]);
        position::hash(parts.flatten().copied())
    }

    /// Why rows of this relation cannot be replicated, if they cannot.
    pub(crate) fn unsuitable(&self) -> Option<&'static str> {
        match &*self.kind {
            "BASE TABLE" => {}
            "VIEW" | "SYSTEM VIEW" => return Some("it is a view, and views are not in the log"),
            "SYSTEM VERSIONED" => {
                return Some("it is system-versioned: the log mixes old versions of rows with new ones");
            }
            _ => return Some("it is not a table"),
        }
        match &*self.engine.to_ascii_uppercase() {
            "MEMORY" => Some("its rows vanish with the server's restart, which the log does not tell"),
            "BLACKHOLE" | "FEDERATED" | "CONNECT" | "SPIDER" | "PERFORMANCE_SCHEMA" => {
                Some("its engine keeps the rows elsewhere")
            }
            _ => None,
        }
    }

    /// The columns of the row key in the order of their index, or why there is no usable one.
    pub(crate) fn key(&self, declared: Option<&[Box<str>]>) -> Result<Vec<&TableColumn>, String> {
        let index = match declared {
            None => {
                let primary = self.unique.iter().find(|i| &*i.name == "PRIMARY");
                primary.ok_or("it has no primary key; declare a unique key of columns that are not null")?
            }
            Some(declared) => {
                let is_in = |name: &str| declared.iter().any(|d| d.eq_ignore_ascii_case(name));
                let wanted = |i: &&UniqueIndex| i.columns.len() == declared.len() && i.columns.iter().all(|c| is_in(c));
                let found = self.unique.iter().find(wanted);
                found.ok_or_else(|| format!("it has no unique index on exactly ({})", declared.join(", ")))?
            }
        };
        if index.odd {
            return Err("a part of its key is an expression or the beginning of a column only".into());
        }
        let columns: Option<Vec<&TableColumn>> = index.columns.iter().map(|name| self.column(name)).collect();
        let columns = columns.ok_or("a column of its key is not visible to us")?;
        match columns.iter().find(|c| c.nullable) {
            Some(column) => Err(format!("column {} of the key may be null, and null equals nothing", column.name)),
            None => Ok(columns),
        }
    }

    /// How the requested columns are read.
    pub(crate) fn shape(&self, request: &TableRequest, config: &MysqlConfig, image: Image) -> Result<Shape, String> {
        if let Some(reason) = self.unsuitable() {
            return Err(reason.to_owned());
        }
        let key: Vec<&str> = self.key(request.key.as_deref())?.into_iter().map(|c| &*c.name).collect();
        let mut columns = Vec::new();
        let mut kinds = Vec::new();
        let mut charsets = Vec::new();
        for column in &self.columns {
            if is_wanted(request, &key, &column.name) {
                let is_key = key.contains(&&*column.name);
                let kind = column.kind(config, &request.table)?;
                let kind = if is_key { kind.in_key() } else { kind };
                columns.push(column.described(&kind, image, is_key));
                kinds.push(kind);
                charsets.push(column.charset.clone());
            }
        }
        let position = |name: &&str| columns.iter().position(|c: &Column| *c.name == **name);
        let index_key: Vec<usize> = key.iter().filter_map(position).collect();
        if let Some(at) = index_key.iter().find(|at| matches!(kinds[**at], Kind::Json | Kind::Geometry | Kind::Vector))
        {
            return Err(format!("column {} of the key is of a type that cannot be a key", columns[*at].name));
        }
        let mut key = index_key.clone();
        key.sort_unstable();
        // Under the name it was asked by: the daemon knows it by that.
        let table = request.table.clone();
        let schema = TableSchema { table, columns, key, full_before_image: image == Image::Full };
        let sql_name = format!("{}.{}", ident(&self.schema), ident(&self.name));
        Ok(Shape { schema: Arc::new(schema), kinds, index_key, charsets, sql_name })
    }
}

/// `binlog_row_image`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Image {
    Full,
    NoBlob,
    Minimal,
}

impl TableColumn {
    /// What its values are.
    pub(crate) fn kind(&self, config: &MysqlConfig, table: &TableId) -> Result<Kind, String> {
        let unsigned = self.native.contains("unsigned") || self.native.contains("zerofill");
        let zero = || Arc::new(ZeroPolicy::of(config, table, &self.name));
        let charset = Charset::named(&self.charset);
        Ok(match &*self.data_type {
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => Kind::Int { unsigned },
            "float" => Kind::Float,
            "double" => Kind::Double,
            "decimal" => Kind::Decimal,
            "year" => Kind::Year,
            "bit" => Kind::Bit(parameter(&self.native).unwrap_or(1)),
            "date" => Kind::Date(zero()),
            "time" => Kind::Time,
            "datetime" => Kind::DateTime(zero()),
            "timestamp" => Kind::Timestamp(zero()),
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" if self.json_text => {
                Kind::JsonText(charset)
            }
            "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => Kind::Text(charset, None),
            "binary" => Kind::Text(Charset::Binary, self.octets),
            "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Kind::Text(Charset::Binary, None),
            "enum" => Kind::Enum(labels(&self.native).into(), charset),
            "set" => Kind::Set(labels(&self.native).into(), charset),
            "json" => Kind::Json,
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
            | "geometrycollection" | "geomcollection" => Kind::Geometry,
            "uuid" => Kind::Uuid,
            "inet4" => Kind::Inet4,
            "inet6" => Kind::Inet6,
            "vector" => Kind::Vector,
            other => return Err(format!("column {} is of type {other}, which is not known here", self.name)),
        })
    }

    /// Whether the log may leave the column out of an update.
    fn may_be_left_out(&self, image: Image, is_key: bool) -> bool {
        let is_blob = ["blob", "text", "json", "geometry", "vector"].iter().any(|t| self.data_type.ends_with(t));
        match image {
            Image::Full => false,
            Image::NoBlob => is_blob && !is_key,
            Image::Minimal => !is_key,
        }
    }

    /// The contract's description.
    pub(crate) fn described(&self, kind: &Kind, image: Image, is_key: bool) -> Column {
        let labels = match kind {
            Kind::Enum(labels, _) | Kind::Set(labels, _) => labels.to_vec(),
            _ => Vec::new(),
        };
        Column {
            name: self.name.clone(),
            logical: kind.logical(),
            native: self.native.clone(),
            nullable: self.nullable,
            max_length: self.max_length.filter(|_| matches!(kind, Kind::Text(c, _) if *c != Charset::Binary)),
            may_be_unchanged: self.may_be_left_out(image, is_key),
            unlogged: false,
            labels,
        }
    }
}

/// The first number in a type's parentheses.
fn parameter(native: &str) -> Option<u32> {
    let (_, rest) = native.split_once('(')?;
    rest.split([',', ')']).next()?.trim().parse().ok()
}

/// The labels in `enum('a','it''s')`, unescaped as the server escapes them.
fn labels(native: &str) -> Vec<Box<str>> {
    let mut labels = Vec::new();
    let Some((_, list)) = native.split_once('(') else { return labels };
    let mut chars = list.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\'' {
            continue;
        }
        let mut label = String::new();
        loop {
            match chars.next() {
                None => return labels,
                Some('\'') if chars.peek() == Some(&'\'') => {
                    chars.next();
                    label.push('\'');
                }
                Some('\'') => break,
                Some('\\') => match chars.next() {
                    Some('n') => label.push('\n'),
                    Some('r') => label.push('\r'),
                    Some('0') => label.push('\0'),
                    Some(other) => label.push(other),
                    None => return labels,
                },
                Some(c) => label.push(c),
            }
        }
        labels.push(label.into());
    }
    labels
}

/// Whether a column belongs to a request: key columns always do. Column names know no letter case here.
pub(crate) fn is_wanted(request: &TableRequest, key: &[&str], name: &str) -> bool {
    match &request.columns {
        None => true,
        Some(list) => {
            list.iter().any(|c| c.eq_ignore_ascii_case(name)) || key.iter().any(|k| k.eq_ignore_ascii_case(name))
        }
    }
}

/// A table that cannot be read as requested.
pub(crate) fn refused(table: &TableId, reason: &str) -> SourceError {
    setting_wrong(format!("table {table} cannot be read: {reason}"))
}

pub(crate) fn missing_table(table: &TableId) -> SourceError {
    refused(table, "it does not exist, or we may not read it")
        .hint("check the name, letter case included, and GRANT SELECT on it")
}

/// Whether table names are compared without letter case (`lower_case_table_names`).
pub(crate) fn folded(name: &TableId, fold: bool) -> TableId {
    if fold { TableId::new(name.schema.to_lowercase(), name.name.to_lowercase()) } else { name.clone() }
}

/// What the server says about itself that decides how tables are read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) fold: bool,
    pub(crate) image: Image,
}

pub(crate) async fn settings(connection: &mut Sql) -> Result<Settings> {
    let sql = "SELECT @@global.lower_case_table_names, @@global.binlog_row_image";
    let rows = connection.rows("asking for the server's settings", sql).await?;
    let row = rows.into_iter().next().unwrap_or_default();
    let text = |at: usize| row.get(at).cloned().flatten().unwrap_or_default();
    let image = match text(1).to_ascii_uppercase().as_str() {
        "MINIMAL" => Image::Minimal,
        "NOBLOB" => Image::NoBlob,
        _ => Image::Full,
    };
    Ok(Settings { fold: text(0) != "0", image })
}

/// Describes tables, by their names as asked for; those that do not exist are missing in the answer.
pub(crate) async fn describe(connection: &mut Sql, tables: &[TableId], fold: bool) -> Result<HashMap<TableId, Table>> {
    if tables.is_empty() {
        return Ok(HashMap::new());
    }
    let list = |part: fn(&TableId) -> &str| {
        let mut names: Vec<String> = tables.iter().map(|t| literal(part(t))).collect();
        names.sort_unstable();
        names.dedup();
        names.join(", ")
    };
    let condition = format!("TABLE_SCHEMA IN ({}) AND TABLE_NAME IN ({})", list(|t| &t.schema), list(|t| &t.name));
    let found = describe_where(connection, &condition).await?;
    let by_name: HashMap<TableId, Table> = found.into_iter().map(|t| (folded(&t.id(), fold), t)).collect();
    let asked = tables.iter().filter_map(|t| Some((t.clone(), by_name.get(&folded(t, fold))?.clone())));
    Ok(asked.collect())
}

/// Describes all tables of one database.
pub(crate) async fn describe_all(connection: &mut Sql, database: &str) -> Result<Vec<Table>> {
    let condition = format!("TABLE_SCHEMA = {} AND TABLE_NAME <> ''", literal(database));
    let mut tables = describe_where(connection, &condition).await?;
    tables.retain(|t| &*t.kind == "BASE TABLE");
    tables.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tables)
}

async fn describe_where(connection: &mut Sql, condition: &str) -> Result<Vec<Table>> {
    let doing = "reading the catalogue";
    let mut tables: HashMap<(String, String), Table> = HashMap::new();
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE, CREATE_OPTIONS, TABLE_ROWS, DATA_LENGTH
         FROM information_schema.TABLES WHERE {condition}"
    );
    for row in connection.rows(doing, &sql).await? {
        let mut row = row.into_iter().map(Option::unwrap_or_default);
        let mut next = || row.next().unwrap_or_default();
        let (schema, name, kind, engine, options) = (next(), next(), next(), next(), next());
        let (rows, bytes) = (next().parse().ok(), next().parse().ok());
        let table = Table {
            schema: schema.as_str().into(),
            name: name.as_str().into(),
            kind: kind.into(),
            engine: engine.into(),
            partitioned: options.contains("partitioned"),
            rows,
            bytes,
            ..Table::default()
        };
        tables.insert((schema, name), table);
    }
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, CHARACTER_MAXIMUM_LENGTH,
            CHARACTER_OCTET_LENGTH, CHARACTER_SET_NAME
         FROM information_schema.COLUMNS c WHERE {condition} ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
    );
    for row in connection.rows(doing, &sql).await? {
        let mut row = row.into_iter().map(Option::unwrap_or_default);
        let mut next = || row.next().unwrap_or_default();
        let Some(table) = tables.get_mut(&(next(), next())) else { continue };
        let (name, data_type, native, nullable) = (next(), next(), next(), next());
        let limit = |text: String| text.parse::<u64>().ok().map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let (max_length, octets, charset) = (limit(next()), limit(next()), next());
        table.columns.push(TableColumn {
            name: name.into(),
            data_type: data_type.to_ascii_lowercase().into(),
            native: native.into(),
            nullable: nullable == "YES",
            max_length,
            octets,
            charset: charset.into(),
            json_text: false,
        });
    }
    if connection.is_mariadb {
        // JSON is a text with a check that it is valid.
        let condition = condition.replace("TABLE_SCHEMA", "CONSTRAINT_SCHEMA");
        let sql = format!(
            "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CHECK_CLAUSE FROM information_schema.CHECK_CONSTRAINTS
             WHERE {condition} AND CHECK_CLAUSE LIKE 'json\\_valid(%'"
        );
        for row in connection.rows(doing, &sql).await? {
            let mut row = row.into_iter().map(Option::unwrap_or_default);
            let mut next = || row.next().unwrap_or_default();
            let Some(table) = tables.get_mut(&(next(), next())) else { continue };
            let clause = next();
            let column = clause.strip_prefix("json_valid(`").and_then(|rest| rest.strip_suffix("`)"));
            let column = column.map(|name| name.replace("``", "`"));
            if let Some(column) = table.columns.iter_mut().find(|c| column.as_deref() == Some(&*c.name)) {
                column.json_text = true;
            }
        }
    }
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS
         WHERE {condition} AND NON_UNIQUE = 0 ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"
    );
    for row in connection.rows(doing, &sql).await? {
        let mut row = row.into_iter();
        let mut next = || row.next().flatten();
        let (Some(schema), Some(table), Some(index)) = (next(), next(), next()) else { continue };
        let Some(table) = tables.get_mut(&(schema, table)) else { continue };
        if table.unique.last().is_none_or(|i| *i.name != *index) {
            table.unique.push(UniqueIndex { name: index.as_str().into(), ..UniqueIndex::default() });
        }
        let (column, part) = (next(), next());
        if let Some(index) = table.unique.last_mut() {
            index.odd |= column.is_none() || part.is_some();
            index.columns.push(column.unwrap_or_default().into());
        }
    }
    Ok(tables.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_parameters_are_read_from_types() {
        let found = labels(r"enum('a','it''s','b\\c','x\ny','','d,e')");
        assert_eq!(found, ["a", "it's", "b\\c", "x\ny", "", "d,e"].map(Box::<str>::from));
        assert!(labels("enum('a").is_empty());
        assert_eq!(parameter("bit(64)"), Some(64));
        assert_eq!(parameter("decimal(10,2) unsigned"), Some(10));
        assert_eq!(parameter("bit"), None);
    }

    #[test]
    fn a_shape_changes_with_names_and_types() {
        let column = |name: &str, native: &str| TableColumn {
            name: name.into(),
            data_type: "int".into(),
            native: native.into(),
            nullable: true,
            max_length: None,
            octets: None,
            charset: "".into(),
            json_text: false,
        };
        let table = |columns: Vec<TableColumn>| Table { columns, ..Table::default() }.shape_hash();
        let one = table(vec![column("a", "int"), column("b", "int")]);
        assert_eq!(one, table(vec![column("a", "int"), column("b", "int")]));
        assert_ne!(one, table(vec![column("b", "int"), column("a", "int")]));
        assert_ne!(one, table(vec![column("a", "int"), column("b", "int unsigned")]));
    }
}
