//! Tables and columns as a connector describes them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A table's full name in its database.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct TableId {
    /// Schema (PostgreSQL, SQL Server) or database (MySQL).
    pub schema: Box<str>,
    /// Table name, as the vendor stores it (not quoted, not folded).
    pub name: Box<str>,
}

impl TableId {
    /// A table name from its parts.
    pub fn new(schema: impl Into<Box<str>>, name: impl Into<Box<str>>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }
}

/// `schema.name`, unquoted: for people, not for SQL.
impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// What kind of [`crate::Value`] a column yields; what the mapping's checker reasons about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogicalType {
    /// `Value::Bool`.
    Bool,
    /// `Value::Int` or `Value::UInt`.
    Int,
    /// `Value::Float` or `Value::Real`.
    Float,
    /// `Value::Decimal`.
    Decimal,
    /// `Value::Text`.
    Text,
    /// `Value::Bytes`.
    Bytes,
    /// `Value::Date`.
    Date,
    /// `Value::Time`.
    Time,
    /// `Value::Timestamp`.
    Timestamp,
    /// `Value::TimestampTz`.
    TimestampTz,
    /// `Value::Uuid`.
    Uuid,
    /// `Value::Json`.
    Json,
    /// `Value::List`.
    List,
}

impl fmt::Display for LogicalType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogicalType::Bool => "boolean",
            LogicalType::Int => "integer",
            LogicalType::Float => "float",
            LogicalType::Decimal => "decimal",
            LogicalType::Text => "text",
            LogicalType::Bytes => "bytes",
            LogicalType::Date => "date",
            LogicalType::Time => "time",
            LogicalType::Timestamp => "timestamp",
            LogicalType::TimestampTz => "timestamp with time zone",
            LogicalType::Uuid => "uuid",
            LogicalType::Json => "json",
            LogicalType::List => "list",
        })
    }
}

/// One column.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Column {
    /// Name as the vendor stores it.
    pub name: Box<str>,
    /// What its values are.
    pub logical: LogicalType,
    /// The vendor's own type name, for messages (`character varying(40)`).
    pub native: Box<str>,
    /// Whether it may hold null. `true` when unknown.
    pub nullable: bool,
    /// Longest text in characters, where the type limits it.
    pub max_length: Option<u32>,
    /// Whether the log may leave this column out of an update (large values stored out of line, generated columns).
    pub may_be_unchanged: bool,
    /// Whether the log never carries this column, though it may change: a computed column, or one that the vendor does not
    /// capture. That it is unchanged in an event says nothing; who needs it reads the row.
    #[serde(default)]
    pub unlogged: bool,
    /// Labels of an enumeration, in order; empty for other types.
    pub labels: Vec<Box<str>>,
}

/// A table as it is at one place of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableSchema {
    /// Its name. For a partitioned table, the root's.
    pub table: TableId,
    /// The requested columns that exist (all of them if none were requested), key columns always included.
    pub columns: Vec<Column>,
    /// Positions in `columns` of the row key: the primary key, or the unique key that was declared for it.
    pub key: Vec<usize>,
    /// Whether delete and update events carry the whole old row (PostgreSQL: REPLICA IDENTITY FULL).
    pub full_before_image: bool,
}

impl TableSchema {
    /// Position of the column called exactly `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| &*c.name == name)
    }
}
