//! Change tracking: "About change tracking", "CHANGETABLE (Transact-SQL)", "CHANGE_TRACKING_MIN_VALID_VERSION".
//!
//! It is synchronous: the commit of a transaction that changed tracked rows draws the next version. What is kept is the
//! key, the kind of change and, if asked for, the columns; `CHANGETABLE` gives the net change of each key.

use super::bind::{Binder, Bound};
use super::catalog::{self, Column, Object};
use super::database::{Database, bump, set_state, state};
use super::session::Session;
use super::transaction::Transaction;
use super::views::View;
use crate::error::{Result, SqlError};
use crate::log::{pack, unpack};
use crate::sql::ast::Name;
use crate::types::{Kind, SqlType, datetime};
use rusqlite::params;
use rusqlite::types::Value;
use std::collections::BTreeMap;

/// `ALTER DATABASE … SET CHANGE_TRACKING`: 22115 to switch it off while tables are tracked.
pub fn switch_database(db: &Database, on: bool) -> Result<()> {
    if on {
        return Ok(());
    }
    let tracked: i64 = db.borrow()?.query_row("SELECT count(*) FROM core_objects WHERE ct", [], |r| r.get(0))?;
    if tracked > 0 {
        let text = format!(
            "Change tracking is enabled for one or more tables in database '{}'. Disable change tracking on each table before disabling it for the database.",
            db.name
        );
        return Err(SqlError::new(22_115, 16, 1, text));
    }
    Ok(())
}

/// `ALTER TABLE … ENABLE CHANGE_TRACKING`: 5088 database, 4997 no primary key, 4996 already on; 4998 off.
pub fn switch(s: &mut Session, object: &Object, on: bool, columns: bool) -> Result<()> {
    if !on {
        if !object.ct {
            return Err(SqlError::new(
                4998,
                16,
                1,
                format!("Change tracking is not enabled on table '{}'.", object.name),
            ));
        }
        s.c.execute("UPDATE core_objects SET ct = 0 WHERE object_id = ?1", [object.id])?;
        s.c.execute("DELETE FROM core_ct WHERE object_id = ?1", [object.id])?;
        return Ok(());
    }
    if state(&s.c, "ct")? == 0 {
        return Err(SqlError::new(
            5088,
            16,
            1,
            format!(
                "Change tracking must be enabled on database '{}' before it can be enabled on table '{}'.",
                s.db.name, object.name
            ),
        ));
    }
    if object.ct {
        return Err(SqlError::new(
            4996,
            16,
            1,
            format!("Change tracking is already enabled for table '{}'.", object.name),
        ));
    }
    if catalog::primary_key(&s.c, object.id)?.is_empty() {
        let text = format!(
            "Cannot enable change tracking on table '{}'. Change tracking requires a primary key on the table. Create a primary key on the table before enabling change tracking.",
            object.name
        );
        return Err(SqlError::new(4997, 16, 1, text));
    }
    let version = state(&s.c, "ct_version")?;
    s.c.execute(
        "UPDATE core_objects SET ct = 1, ct_columns = ?2, ct_begin = ?3, ct_min = ?3 WHERE object_id = ?1",
        params![object.id, columns, version],
    )?;
    Ok(())
}

/// TRUNCATE of a tracked table: versions before it are no longer valid.
pub fn truncated(s: &mut Session, object: &Object) -> Result<()> {
    if !object.ct {
        return Ok(());
    }
    let version = bump(&s.c, "ct_version")?;
    s.c.execute("DELETE FROM core_ct WHERE object_id = ?1", [object.id])?;
    s.c.execute("UPDATE core_objects SET ct_min = ?2 WHERE object_id = ?1", params![object.id, version])?;
    s.c.execute("INSERT INTO core_ct_times VALUES(?1, ?2)", params![version, datetime::now()])?;
    Ok(())
}

fn key_of(row: &[(i64, Value)], key: &[i64]) -> Vec<u8> {
    let mut out = Vec::new();
    for id in key {
        let value = row.iter().find(|(c, _)| c == id).map_or(&Value::Null, |(_, v)| v);
        pack(&mut out, *id, value);
    }
    out
}

/// A row of core_log: table, kind, row before, row after.
type Logged = (i64, String, Option<Vec<u8>>, Option<Vec<u8>>);

/// Notes the changes of a transaction that is about to commit.
pub fn commit(s: &mut Session, t: &Transaction) -> Result<()> {
    let rows: Vec<Logged> = {
        let mut st = s.c.prepare_cached(
            "SELECT l.object_id, l.op, l.old, l.new FROM core_log l JOIN core_objects o ON o.object_id = l.object_id WHERE l.tx = ?1 AND o.ct ORDER BY l.n",
        )?;
        st.query_map([t.id], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?)))?.collect::<rusqlite::Result<_>>()?
    };
    if rows.is_empty() {
        return Ok(());
    }
    let version = bump(&s.c, "ct_version")?;
    s.c.execute("INSERT INTO core_ct_times VALUES(?1, ?2)", params![version, datetime::now()])?;
    let mut keys: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (table, op, old, new) in rows {
        if let std::collections::btree_map::Entry::Vacant(e) = keys.entry(table) {
            e.insert(catalog::primary_key(&s.c, table)?);
        }
        let key = &keys[&table];
        let (old, new) = (old.map(|b| unpack(&b)), new.map(|b| unpack(&b)));
        let note = |op: &str, row: &[(i64, Value)], columns: Option<Vec<u8>>| -> Result<()> {
            s.c.prepare_cached("INSERT INTO core_ct(object_id, version, op, key, columns, context, at) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
                .execute(params![table, version, op, key_of(row, key), columns, s.context, datetime::now()])?;
            Ok(())
        };
        match (op.as_str(), &old, &new) {
            ("U", Some(old), Some(new)) if key_of(old, key) == key_of(new, key) => {
                // Column numbers that changed, four bytes each.
                let changed = new.iter().filter(|(id, v)| old.iter().any(|(o, w)| o == id && w != v));
                note("U", new, Some(changed.flat_map(|(id, _)| (*id as u32).to_le_bytes()).collect()))?;
            }
            ("U", Some(old), Some(new)) => {
                note("D", old, None)?;
                note("I", new, None)?;
            }
            ("I", _, Some(new)) => note("I", new, None)?,
            (_, Some(old), _) => note("D", old, None)?,
            _ => {}
        }
    }
    // Tables that are tracked but not captured need no log row any more.
    if state(&s.c, "cdc")? == 0 {
        s.c.execute("DELETE FROM core_log WHERE tx = ?1", [t.id])?;
    }
    Ok(())
}

/// The clean-up of change tracking: changes committed before `before` (ticks) go, and the oldest valid version rises.
pub fn clean(db: &Database, before: i64) -> Result<()> {
    let c = db.borrow()?;
    let version: i64 =
        c.query_row("SELECT ifnull(max(version), 0) FROM core_ct_times WHERE at < ?1", [before], |r| r.get(0))?;
    c.execute("DELETE FROM core_ct WHERE version <= ?1", [version])?;
    c.execute("DELETE FROM core_ct_times WHERE version <= ?1", [version])?;
    c.execute("UPDATE core_objects SET ct_min = ?1 WHERE ct AND ct_min < ?1", [version])?;
    set_state(&c, "ct_cleaned", version)
}

fn tracked(session: &Session, name: &Name) -> Result<(Object, Vec<Column>)> {
    let r = catalog::resolve(session, name)?;
    let object = catalog::find(&session.c, &r.schema, &r.object)?.ok_or_else(|| SqlError::object(&name.join(".")))?;
    if !object.ct {
        return Err(SqlError::new(
            22_105,
            16,
            1,
            format!("Change tracking is not enabled on table '{}'.", name.join(".")),
        ));
    }
    session.demand("VIEW CHANGE TRACKING", &object)?;
    let key = catalog::primary_key(&session.c, object.id)?;
    let all = catalog::columns(&session.c, object.id)?;
    let columns = key.iter().filter_map(|id| all.iter().find(|c| c.id == *id)).cloned().collect();
    Ok((object, columns))
}

/// A change of one key, folded over all its versions.
#[derive(Clone)]
struct Net {
    first: String,
    last: String,
    version: i64,
    created: Option<i64>,
    columns: Option<Vec<u8>>,
    context: Option<Vec<u8>>,
}

/// `CHANGETABLE(CHANGES table, version)`: columns SYS_CHANGE_VERSION, SYS_CHANGE_CREATION_VERSION, SYS_CHANGE_OPERATION,
/// SYS_CHANGE_COLUMNS, SYS_CHANGE_CONTEXT and the key. A version older than the valid ones is not refused: the page tells
/// the caller to check.
pub fn changes(session: &Session, name: &Name, version: &Value) -> Result<View> {
    let (object, key) = tracked(session, name)?;
    let since = match version {
        Value::Integer(v) => *v,
        _ => -1,
    };
    let by_column: bool =
        session.c.query_row("SELECT ct_columns FROM core_objects WHERE object_id = ?1", [object.id], |r| r.get(0))?;
    let mut nets: BTreeMap<Vec<u8>, Net> = BTreeMap::new();
    let mut st = session.c.prepare_cached(
        "SELECT version, op, key, columns, context FROM core_ct WHERE object_id = ?1 AND version > ?2 ORDER BY n",
    )?;
    let mut rows = st.query(params![object.id, since])?;
    while let Some(r) = rows.next()? {
        let (version, op): (i64, String) = (r.get(0)?, r.get(1)?);
        let (columns, context): (Option<Vec<u8>>, Option<Vec<u8>>) = (r.get(3)?, r.get(4)?);
        let created = (op == "I").then_some(version);
        match nets.entry(r.get(2)?) {
            std::collections::btree_map::Entry::Vacant(e) => {
                e.insert(Net { first: op.clone(), last: op, version, created, columns, context });
            }
            std::collections::btree_map::Entry::Occupied(mut e) => {
                let n = e.get_mut();
                n.columns = match (n.columns.take(), columns) {
                    (Some(a), Some(b)) => Some(union(&a, &b)),
                    _ => None,
                };
                n.created = created.or(n.created);
                (n.last, n.version, n.context) = (op, version, context);
            }
        }
    }
    let mut columns = vec![
        ("SYS_CHANGE_VERSION".to_owned(), SqlType::of(Kind::BigInt)),
        ("SYS_CHANGE_CREATION_VERSION".into(), SqlType::of(Kind::BigInt)),
        ("SYS_CHANGE_OPERATION".into(), SqlType::sized(Kind::NChar, 1)),
        ("SYS_CHANGE_COLUMNS".into(), SqlType::sized(Kind::VarBinary, 4100)),
        ("SYS_CHANGE_CONTEXT".into(), SqlType::sized(Kind::VarBinary, 128)),
    ];
    columns.extend(key.iter().map(|c| (c.name.clone(), c.ty)));
    let table = temporary(session, columns.len())?;
    let marks: Vec<String> = (1..=columns.len()).map(|i| format!("?{i}")).collect();
    let mut insert = session.c.prepare(&format!("INSERT INTO temp.{table} VALUES({})", marks.join(", ")))?;
    for (packed, n) in nets {
        // Inserted and deleted again since: the row is reported as deleted. Deleted and inserted again: as inserted.
        let op = match (n.first.as_str(), n.last.as_str()) {
            (_, "D") => "D",
            ("I" | "D", _) => "I",
            _ => "U",
        };
        let shown = if op == "U" && by_column { n.columns.map_or(Value::Null, Value::Blob) } else { Value::Null };
        let created = if op == "I" { n.created.map_or(Value::Null, Value::Integer) } else { Value::Null };
        let mut values = vec![
            Value::Integer(n.version),
            created,
            Value::Text(op.into()),
            shown,
            n.context.map_or(Value::Null, Value::Blob),
        ];
        values.extend(unpack(&packed).into_iter().map(|(_, v)| v));
        insert.execute(rusqlite::params_from_iter(values))?;
    }
    let items: Vec<String> = (1..=columns.len()).map(|i| format!("v{i}")).collect();
    Ok(View { columns, sql: format!("SELECT {} FROM temp.{table}", items.join(", ")) })
}

fn union(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut out = a.to_vec();
    for id in b.chunks(4) {
        if !a.chunks(4).any(|x| x == id) {
            out.extend(id);
        }
    }
    out
}

/// A table of this connection alone; the last one is dropped, no statement spans two batches.
fn temporary(session: &Session, columns: usize) -> Result<String> {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let stale: Vec<String> = {
        let mut st = session.c.prepare("SELECT name FROM temp.sqlite_master WHERE type = 'table'")?;
        st.query_map([], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?
    };
    // One statement may use a few of them.
    for old in stale.iter().rev().skip(8) {
        session.c.execute_batch(&format!("DROP TABLE temp.{old}"))?;
    }
    let list: Vec<String> = (1..=columns).map(|i| format!("v{i} BLOB")).collect();
    session.c.execute_batch(&format!("CREATE TEMP TABLE ct{n} ({})", list.join(", ")))?;
    Ok(format!("ct{n}"))
}

/// `CHANGETABLE(VERSION table, (columns), (values))`: the last version of one row.
pub fn version(binder: &mut Binder<'_>, name: &Name, columns: &[String], values: Vec<Bound>) -> Result<View> {
    let (_, key) = tracked(binder.session, name)?;
    if key.len() != columns.len() || columns.len() != values.len() {
        let text = "All primary key columns must be specified in CHANGETABLE(VERSION …).";
        return Err(SqlError::new(22_111, 16, 1, text));
    }
    Err(SqlError::unmodelled("CHANGETABLE(VERSION …)"))
}
