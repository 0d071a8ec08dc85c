//! Looking things up in the catalogue of a database.

use super::database::locked;
use super::session::Session;
use crate::error::{Result, SqlError};
use crate::types::{Kind, SqlType};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// A column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    /// `column_id`.
    pub id: i64,
    /// Name.
    pub name: String,
    /// Type.
    pub ty: SqlType,
    /// NULL allowed.
    pub nullable: bool,
    /// Seed and increment.
    pub identity: Option<(i64, i64)>,
    /// Text of a computed column.
    pub computed: Option<String>,
    /// Text of the default.
    pub default: Option<String>,
}

impl Column {
    /// Name of the column in SQLite.
    pub fn physical(&self) -> String {
        format!("c{}", self.id)
    }
}

/// An object: table, view, procedure.
#[derive(Clone, Debug)]
pub struct Object {
    /// `object_id`.
    pub id: i64,
    /// `schema_id`.
    pub schema_id: i64,
    /// Name of the schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// `U`, `V`, `P`, …
    pub kind: String,
    /// Captured by change data capture.
    pub cdc: bool,
    /// Tracked by change tracking.
    pub ct: bool,
    /// Made by the system.
    pub shipped: bool,
    /// Text of a view.
    pub definition: Option<String>,
}

impl Object {
    /// Name of a table in SQLite.
    pub fn physical(&self) -> String {
        format!("t{}", self.id)
    }
}

/// An index with its key columns.
#[derive(Clone, Debug)]
pub struct Index {
    /// `index_id`.
    pub id: i64,
    /// Name.
    pub name: String,
    /// Unique.
    pub unique: bool,
    /// Of the primary key.
    pub primary: bool,
    /// Of any constraint.
    pub constraint: bool,
    /// Column ids in order.
    pub columns: Vec<i64>,
}

const OBJECT: &str = "SELECT o.object_id, o.schema_id, s.name, o.name, o.type, o.cdc, o.ct, o.shipped, o.definition \
     FROM core_objects o JOIN core_schemas s ON s.schema_id = o.schema_id";

fn object(r: &Row<'_>) -> rusqlite::Result<Object> {
    Ok(Object {
        id: r.get(0)?,
        schema_id: r.get(1)?,
        schema: r.get(2)?,
        name: r.get(3)?,
        kind: r.get(4)?,
        cdc: r.get(5)?,
        ct: r.get(6)?,
        shipped: r.get(7)?,
        definition: r.get(8)?,
    })
}

/// Finds an object by schema and name.
pub fn find(c: &Connection, schema: &str, name: &str) -> Result<Option<Object>> {
    let mut st = c.prepare_cached(&format!("{OBJECT} WHERE s.name = ?1 AND o.name = ?2"))?;
    Ok(st.query_row([schema, name], object).optional()?)
}

/// Finds an object by id.
pub fn by_id(c: &Connection, id: i64) -> Result<Option<Object>> {
    let mut st = c.prepare_cached(&format!("{OBJECT} WHERE o.object_id = ?1"))?;
    Ok(st.query_row([id], object).optional()?)
}

/// Columns of an object, by `column_id`.
pub fn columns(c: &Connection, id: i64) -> Result<Vec<Column>> {
    let mut st = c.prepare_cached(
        "SELECT column_id, name, type, nullable, seed, increment, computed, default_text FROM core_columns \
         WHERE object_id = ?1 ORDER BY column_id",
    )?;
    let rows = st.query_map([id], |r| {
        let seed: Option<i64> = r.get(4)?;
        let increment: Option<i64> = r.get(5)?;
        Ok(Column {
            id: r.get(0)?,
            name: r.get(1)?,
            ty: SqlType::from_code(r.get(2)?),
            nullable: r.get(3)?,
            identity: seed.zip(increment),
            computed: r.get(6)?,
            default: r.get(7)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Indexes of a table, by `index_id`.
pub fn indexes(c: &Connection, id: i64) -> Result<Vec<Index>> {
    let mut st = c.prepare_cached(
        "SELECT index_id, name, is_unique, is_primary, is_constraint FROM core_indexes WHERE object_id = ?1 ORDER BY index_id",
    )?;
    let mut out: Vec<Index> = st
        .query_map([id], |r| {
            Ok(Index {
                id: r.get(0)?,
                name: r.get(1)?,
                unique: r.get(2)?,
                primary: r.get(3)?,
                constraint: r.get(4)?,
                columns: Vec::new(),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    for index in &mut out {
        let mut st = c.prepare_cached(
            "SELECT column_id FROM core_index_columns WHERE object_id = ?1 AND index_id = ?2 AND NOT included ORDER BY position",
        )?;
        index.columns = st.query_map(params![id, index.id], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?;
    }
    Ok(out)
}

/// Column ids of the primary key, in key order; empty without one.
pub fn primary_key(c: &Connection, id: i64) -> Result<Vec<i64>> {
    Ok(indexes(c, id)?.into_iter().find(|i| i.primary).map(|i| i.columns).unwrap_or_default())
}

/// `schema_id` of a name.
pub fn schema_id(c: &Connection, name: &str) -> Result<Option<i64>> {
    let mut st = c.prepare_cached("SELECT schema_id FROM core_schemas WHERE name = ?1")?;
    Ok(st.query_row([name], |r| r.get(0)).optional()?)
}

/// Draws an object id. They look as random as the product's.
pub fn new_object_id(c: &Connection) -> Result<i64> {
    let n = super::database::bump(c, "next_object")?;
    Ok(245_575_913 + n * 16_000_057 % 1_800_000_011)
}

/// A name as [schema, object], with the database it names checked.
pub struct Resolved {
    /// Database, if one was named that is not the current one.
    pub database: Option<String>,
    /// Schema; `dbo` if left out.
    pub schema: String,
    /// Object.
    pub object: String,
}

/// Splits a name of one to three parts.
pub fn resolve(session: &Session, name: &[String]) -> Result<Resolved> {
    let (database, schema, object) = match name {
        [o] => (None, "", o),
        [s, o] => (None, s.as_str(), o),
        [d, s, o] => (Some(d), s.as_str(), o),
        _ => return Err(SqlError::unmodelled("linked servers")),
    };
    let database = database.filter(|d| !d.is_empty() && !d.eq_ignore_ascii_case(&session.db.name)).cloned();
    let schema = if schema.is_empty() { "dbo" } else { schema }.to_owned();
    Ok(Resolved { database, schema, object: object.clone() })
}

/// Finds a table of the current database that may be changed; 208 otherwise.
pub fn table(session: &Session, name: &[String]) -> Result<Object> {
    let r = resolve(session, name)?;
    if r.database.is_some() {
        return Err(SqlError::unmodelled("changing another database than the current one"));
    }
    match find(&session.c, &r.schema, &r.object)? {
        Some(o) if o.kind == "U" => Ok(o),
        Some(_) => Err(SqlError::unmodelled("changing a view")),
        None => Err(SqlError::object(&name.join("."))),
    }
}

/// Next identity value of a table.
pub fn next_identity(session: &Session, table: i64, column: &Column) -> Result<i64> {
    let (seed, increment) = column.identity.unwrap_or((1, 1));
    let mut all = locked(&session.db.identities);
    let next = match all.get(&table) {
        Some(last) => last + increment,
        None => {
            let max: Option<i64> = session
                .c
                .query_row(&format!("SELECT max({}) FROM t{table}", column.physical()), [], |r| r.get(0))
                .unwrap_or(None);
            max.map_or(seed, |m| m + increment)
        }
    };
    all.insert(table, next);
    Ok(next)
}

/// Whether one of the principals has a permission on an object: "Permissions (Database Engine)". A DENY anywhere wins.
pub fn allowed(c: &Connection, principals: &[i64], permission: &str, object: i64, schema: i64) -> Result<bool> {
    let list = principals.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let sql = format!(
        "SELECT total(state = 'D'), total(state = 'G') FROM core_permissions WHERE grantee IN ({list}) \
         AND (permission = ?1 OR permission = 'control') \
         AND (class = 0 OR (class = 3 AND major = ?2) OR (class = 1 AND major = ?3))"
    );
    let (denied, granted): (f64, f64) =
        c.query_row(&sql, params![permission, schema, object], |r| Ok((r.get(0)?, r.get(1)?)))?;
    Ok(denied == 0.0 && granted > 0.0)
}

/// Ids of a user and everything it is a member of, `public` too.
pub fn principals(c: &Connection, user: &str) -> Result<Vec<i64>> {
    let mut st = c.prepare_cached(
        "WITH RECURSIVE p(id) AS (SELECT principal_id FROM core_principals WHERE name = ?1 UNION SELECT m.role_id FROM core_members m \
         JOIN p ON p.id = m.member_id) SELECT id FROM p UNION SELECT 0",
    )?;
    Ok(st.query_map([user], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// Whether a type can be part of a key of an index.
pub fn can_be_key(ty: SqlType) -> bool {
    !ty.is_old_lob() && !ty.is_max() && !matches!(ty.kind, Kind::Xml | Kind::Geography | Kind::Geometry)
}
