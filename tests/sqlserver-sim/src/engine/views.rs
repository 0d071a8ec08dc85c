//! The catalogue views and management views that a client of change data capture reads.
//!
//! Each is named after its page: "sys.tables (Transact-SQL)" and so on. A view lists the columns that the page lists and
//! that mean something here; asking for another one is error 207, as for any unknown column.

use super::session::Session;
use super::{core_views, server_views};
use crate::error::{Result, SqlError};
use crate::types::SqlType;
use rusqlite::types::Value;

/// A view as the binder takes it.
pub struct View {
    /// Name and type of each column.
    pub columns: Vec<(String, SqlType)>,
    /// SQLite text whose columns are `v1`, `v2`, …
    pub sql: String,
}

/// Finds a view of the system by schema and name, in the current database or in `database`.
pub fn find(session: &Session, database: Option<&str>, schema: &str, name: &str) -> Result<Option<View>> {
    let full = format!("{}.{}", schema.to_ascii_lowercase(), name.to_ascii_lowercase());
    if database.is_some_and(|d| d.eq_ignore_ascii_case("msdb")) {
        return match full.as_str() {
            "dbo.cdc_jobs" if session.admin || session.db_owner() => Ok(Some(server_views::jobs(session)?)),
            "dbo.cdc_jobs" => Err(SqlError::denied("SELECT", "cdc_jobs", "msdb", "dbo")),
            "dbo.sysjobs" => Ok(Some(server_views::agent_jobs(session)?)),
            _ => Ok(None),
        };
    }
    if let Some((columns, from)) = core_views::catalogue(&full) {
        return from_core(session, columns, from).map(Some);
    }
    server_views::server_view(session, &full)
}

/// One view over the core tables: lines of `name type expression`, and what follows FROM.
fn from_core(session: &Session, columns: &str, from: &str) -> Result<View> {
    let mut out = View { columns: Vec::new(), sql: "SELECT ".into() };
    for (i, line) in columns.lines().map(str::trim).filter(|l| !l.is_empty()).enumerate() {
        let mut words = line.splitn(3, ' ');
        let (name, ty, expr) = (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next().unwrap_or("NULL"));
        out.columns.push((name.into(), spec_type(ty)?));
        let comma = if i == 0 { "" } else { ", " };
        out.sql.push_str(&format!("{comma}{expr} AS v{}", i + 1));
    }
    out.sql.push_str(" FROM ");
    out.sql.push_str(from);
    out.sql = out.sql.replace("{visible}", &visible(session)?).replace("{db}", &quote(&session.db.name));
    Ok(out)
}

pub(crate) fn spec_type(ty: &str) -> Result<SqlType> {
    let (name, args) = ty.split_once('(').unwrap_or((ty, ""));
    let args: Vec<String> = args.trim_end_matches(')').split(',').filter(|a| !a.is_empty()).map(Into::into).collect();
    SqlType::declared(name, &args, false)
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// "Metadata visibility configuration": an object is seen by those who have some permission on it.
fn visible(session: &Session) -> Result<String> {
    if session.admin || session.db_owner() {
        return Ok("1".into());
    }
    let list = session.principals()?.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    Ok(format!(
        "EXISTS (SELECT 1 FROM core_permissions p WHERE p.grantee IN ({list}) AND p.state = 'G' AND (p.class = 0 AND p.permission IN \
         ('select', 'control', 'view definition', 'insert', 'update', 'delete') OR p.class = 3 AND p.major = o.schema_id OR p.class = 1 AND p.major = o.object_id))"
    ))
}

/// SQLite text that gives the given rows.
pub(crate) fn from_rows(spec: &str, rows: &[Vec<Value>]) -> Result<View> {
    let mut columns = Vec::new();
    for line in spec.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let (name, ty) = line.split_once(' ').unwrap_or((line, "int"));
        columns.push((name.to_owned(), spec_type(ty)?));
    }
    let list = |f: &dyn Fn(usize) -> String| (1..=columns.len()).map(f).collect::<Vec<_>>().join(", ");
    let sql = if rows.is_empty() {
        format!("SELECT {} WHERE 0", list(&|i| format!("NULL AS v{i}")))
    } else {
        let rows: Vec<String> =
            rows.iter().map(|r| format!("({})", r.iter().map(literal).collect::<Vec<_>>().join(", "))).collect();
        format!("SELECT {} FROM (VALUES {})", list(&|i| format!("column{i} AS v{i}")), rows.join(", "))
    };
    Ok(View { columns, sql })
}

/// A stored value as SQLite text.
pub fn literal(v: &Value) -> String {
    match v {
        Value::Null => "NULL".into(),
        Value::Integer(i64::MIN) => "(-9223372036854775807 - 1)".into(),
        Value::Integer(i) => i.to_string(),
        Value::Real(r) => format!("{r:?}"),
        Value::Text(t) => quote(t),
        Value::Blob(b) => format!("x'{}'", crate::types::format::hex(b)),
    }
}

pub(crate) fn int(i: i64) -> Value {
    Value::Integer(i)
}

pub(crate) fn text(t: &str) -> Value {
    Value::Text(t.into())
}
