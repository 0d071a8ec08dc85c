//! The log: what a commit leaves in it, and how the log reader turns it into change rows.
//!
//! "How change data capture works": a job reads the log behind the commits and fills the change tables. All rows of a
//! transaction share `__$start_lsn`, its commit LSN; `__$seqval` is the LSN of the change; an update is a row 3 and a row 4;
//! an update of a unique key is a delete and an insert ("deferred update").

use super::catalog;
use super::database::{Database, set_state, state};
use super::session::Session;
use super::tracking;
use super::transaction::Transaction;
use crate::error::Result;
use crate::log::{lsn, next_block, unpack};
use crate::options::Quirks;
use crate::types::{Kind, SqlType, datetime};
use rusqlite::types::Value;
use rusqlite::{Connection, params};
use std::collections::HashMap;
use std::time::Duration;

/// Draws log records: the first of a new block, with room for `rows` changes and the commit.
pub fn allocate(c: &Connection, rows: i64) -> Result<(i64, i64)> {
    let first = next_block(state(c, "record")?);
    let commit = first + rows + 1;
    set_state(c, "record", commit)?;
    Ok((first, commit))
}

/// Gives a transaction its place in the log, just before SQLite commits it.
pub fn commit(session: &mut Session, t: &Transaction) -> Result<()> {
    let rows: i64 =
        session.c.prepare_cached("SELECT count(*) FROM core_log WHERE tx = ?1")?.query_row([t.id], |r| r.get(0))?;
    let (first, last) = allocate(&session.c, rows)?;
    if rows == 0 {
        return Ok(());
    }
    session
        .c
        .prepare_cached(
            "INSERT INTO core_tx(tx, first_record, lsn, begun, ended, kind) VALUES(?1, ?2, ?3, ?4, ?5, 'data')",
        )?
        .execute(params![t.id, first, lsn(last), t.begun, datetime::now()])?;
    tracking::commit(session, t)
}

/// Limits of one scan.
pub struct Limits {
    /// Transactions at most.
    pub transactions: i64,
    /// Younger ones wait.
    pub lag: Duration,
    /// Idle time after which an empty row is written.
    pub heartbeat: Duration,
    /// When something was last written into cdc.lsn_time_mapping.
    pub last_mapped: Option<i64>,
    /// See [`Quirks`].
    pub quirks: Quirks,
}

/// What a scan did.
#[derive(Debug, Default)]
pub struct Done {
    /// Transactions with change rows.
    pub transactions: i64,
    /// Changes.
    pub commands: i64,
    /// First commit LSN.
    pub first: Option<Vec<u8>>,
    /// Last commit LSN.
    pub last: Option<Vec<u8>>,
    /// Time of the last commit.
    pub last_time: Option<i64>,
    /// cdc.lsn_time_mapping has a new row.
    pub mapped: bool,
}

/// A capture instance as the log reader sees it.
struct Instance {
    start: Option<Vec<u8>>,
    /// (column id of the source, computed, type)
    columns: Vec<(i64, bool, SqlType)>,
    insert: String,
}

/// A row of core_tx: number, transaction, first record, commit LSN, begin and end in ticks, kind.
type Committed = (i64, i64, i64, Vec<u8>, i64, i64, String);

/// One scan of a database.
pub fn scan(db: &Database, limits: &Limits) -> Result<Done> {
    let me = -db.id;
    db.lock(me, Duration::from_millis(200))?;
    let result = (|| {
        let c = db.borrow()?;
        c.execute_batch("BEGIN IMMEDIATE")?;
        let done = scan_in(&c, limits)?;
        c.execute_batch("COMMIT")?;
        Ok(done)
    })();
    db.unlock(me);
    result
}

/// One scan inside an open transaction.
pub fn scan_in(c: &Connection, limits: &Limits) -> Result<Done> {
    let mut done = Done::default();
    let Some(mapping) = catalog::find(c, "cdc", "lsn_time_mapping")? else { return Ok(done) };
    let Some(tables) = catalog::find(c, "cdc", "change_tables")? else { return Ok(done) };
    let map = format!("INSERT OR IGNORE INTO {} VALUES(?1, ?2, ?3, ?4, ?5)", mapping.physical());
    let until = datetime::now() - i64::try_from(limits.lag.as_nanos() / 100).unwrap_or(0);
    let list: Vec<Committed> = {
        let mut st = c.prepare("SELECT seq, tx, first_record, lsn, begun, ended, kind FROM core_tx WHERE seq > ?1 AND ended <= ?2 ORDER BY seq LIMIT ?3")?;
        st.query_map(params![state(c, "scanned")?, until, limits.transactions], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?, r.get(6)?))
        })?
        .collect::<rusqlite::Result<_>>()?
    };
    let mut instances = None;
    for (seq, tx, first, commit, begun, ended, kind) in &list {
        let mut has_rows = false;
        if kind == "enable" {
            // The marker of sp_cdc_enable_table establishes the low end point: "cdc.change_tables", start_lsn.
            c.execute(
                &format!("UPDATE {} SET c5 = ?1 WHERE c1 = ?2 AND c5 IS NULL", tables.physical()),
                params![commit, tx],
            )?;
            instances = None;
            has_rows = limits.quirks.enabling_is_mapped;
        } else {
            if instances.is_none() {
                instances = Some(load(c, &tables.physical())?);
            }
            if let Some(by_table) = &instances {
                let commands = capture_one(c, *tx, *first, commit, by_table, &limits.quirks)?;
                done.commands += commands;
                has_rows = commands > 0;
            }
        }
        if has_rows {
            let time = |t: i64| datetime::round_datetime(t);
            c.prepare_cached(&map)?.execute(params![
                commit,
                time(*begun),
                time(*ended),
                tx.to_be_bytes()[2..].to_vec(),
                lsn(*first)
            ])?;
            done.mapped = true;
            done.transactions += 1;
            done.first.get_or_insert_with(|| commit.clone());
            done.last = Some(commit.clone());
            done.last_time = Some(*ended);
        }
        c.prepare_cached("DELETE FROM core_log WHERE tx = ?1 AND ?2 = 'data'")?.execute(params![tx, kind])?;
        set_state(c, "scanned", *seq)?;
    }
    c.execute("DELETE FROM core_tx WHERE seq <= ?1 AND seq < (SELECT max(seq) FROM core_tx)", [state(c, "scanned")?])?;
    let idle = limits
        .last_mapped
        .is_some_and(|t| datetime::now() - t > i64::try_from(limits.heartbeat.as_nanos() / 100).unwrap_or(i64::MAX));
    if list.is_empty() && idle {
        heartbeat(c)?;
        done.mapped = true;
    }
    Ok(done)
}

/// Writes the empty row of an idle log reader: `tran_id` is 0x00.
pub fn heartbeat(c: &Connection) -> Result<()> {
    let Some(mapping) = catalog::find(c, "cdc", "lsn_time_mapping")? else { return Ok(()) };
    let (_, record) = allocate(c, 0)?;
    let now = datetime::round_datetime(datetime::now());
    c.execute(
        &format!("INSERT INTO {} VALUES(?1, ?2, ?2, ?3, ?4)", mapping.physical()),
        params![lsn(record), now, vec![0u8], vec![0u8; 10]],
    )?;
    Ok(())
}

fn load(c: &Connection, tables: &str) -> Result<HashMap<i64, Vec<Instance>>> {
    let mut out: HashMap<i64, Vec<Instance>> = HashMap::new();
    let list: Vec<(i64, i64, Option<Vec<u8>>)> = {
        let mut st = c.prepare(&format!("SELECT c1, c3, c5 FROM {tables} WHERE c5 IS NOT NULL"))?;
        st.query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?.collect::<rusqlite::Result<_>>()?
    };
    let Some(captured) = catalog::find(c, "cdc", "captured_columns")? else { return Ok(out) };
    for (id, source, start) in list {
        let mut st = c.prepare(&format!("SELECT c3, c6 FROM {} WHERE c1 = ?1 ORDER BY c5", captured.physical()))?;
        let ids: Vec<(i64, bool)> =
            st.query_map([id], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        let types = catalog::columns(c, id)?;
        let columns: Vec<_> = ids
            .iter()
            .enumerate()
            .map(|(i, (column, computed))| {
                (*column, *computed, types.get(i + 5).map_or(SqlType::of(Kind::Int), |t| t.ty))
            })
            .collect();
        let marks: Vec<String> = (1..=columns.len() + 6).map(|i| format!("?{i}")).collect();
        let insert = format!("INSERT INTO t{id} VALUES({})", marks.join(", "));
        out.entry(source).or_default().push(Instance { start, columns, insert });
    }
    Ok(out)
}

type Row = HashMap<i64, Value>;

fn row(bytes: Option<Vec<u8>>) -> Option<Row> {
    bytes.map(|b| unpack(&b).into_iter().collect())
}

/// Change rows of one transaction; answers how many changes were captured.
fn capture_one(
    c: &Connection,
    tx: i64,
    first: i64,
    commit: &[u8],
    instances: &HashMap<i64, Vec<Instance>>,
    quirks: &Quirks,
) -> Result<i64> {
    let mut st = c.prepare_cached("SELECT object_id, command, op, old, new FROM core_log WHERE tx = ?1 ORDER BY n")?;
    let mut rows = st.query([tx])?;
    let mut record = first;
    let mut captured = 0;
    let mut unique: HashMap<i64, Vec<i64>> = HashMap::new();
    while let Some(r) = rows.next()? {
        record += 1;
        let (table, command): (i64, i64) = (r.get(0)?, r.get(1)?);
        let op: String = r.get(2)?;
        let Some(list) = instances.get(&table) else { continue };
        let (old, new) = (row(r.get(3)?), row(r.get(4)?));
        let changed: Vec<i64> = match (&old, &new) {
            (Some(old), Some(new)) => new.iter().filter(|(id, v)| old.get(id) != Some(v)).map(|(id, _)| *id).collect(),
            _ => Vec::new(),
        };
        // An update that changes nothing leaves no log record.
        if op == "U" && changed.is_empty() {
            continue;
        }
        if let std::collections::hash_map::Entry::Vacant(slot) = unique.entry(table) {
            slot.insert(catalog::indexes(c, table)?.into_iter().filter(|i| i.unique).flat_map(|i| i.columns).collect());
        }
        let key_changed = changed.iter().any(|id| unique.get(&table).is_some_and(|u| u.contains(id)));
        let mut seen = false;
        for i in list {
            if i.start.as_ref().is_some_and(|s| commit <= s.as_slice()) {
                continue;
            }
            let images: &[(i64, &Option<Row>)] = match op.as_str() {
                "I" => &[(2, &new)],
                "D" => &[(1, &old)],
                _ if key_changed => &[(1, &old), (2, &new)],
                _ => &[(3, &old), (4, &new)],
            };
            let touches = i.columns.iter().any(|(id, ..)| changed.contains(id));
            if op == "U" && quirks.skip_uncaptured_updates && !touches && !key_changed {
                continue;
            }
            let mask = mask(i, if op == "U" && !key_changed { Some(&changed) } else { None }, quirks);
            for (operation, image) in images {
                let Some(image) = image else { continue };
                let mut values = vec![
                    Value::Blob(commit.to_vec()),
                    Value::Null,
                    Value::Blob(lsn(record)),
                    Value::Integer(*operation),
                    Value::Blob(mask.clone()),
                ];
                for (id, computed, ty) in &i.columns {
                    values.push(image_value(image.get(id), *computed, *ty, *operation, changed.contains(id), quirks));
                }
                values.push(Value::Integer(command));
                c.prepare_cached(&i.insert)?.execute(rusqlite::params_from_iter(values))?;
            }
            seen = true;
        }
        captured += i64::from(seen);
    }
    Ok(captured)
}

/// What a change row holds of a column: "cdc.<capture_instance>_CT", remarks on large objects and computed columns.
fn image_value(
    value: Option<&Value>,
    computed: bool,
    ty: SqlType,
    operation: i64,
    changed: bool,
    quirks: &Quirks,
) -> Value {
    let hidden = computed
        // text, ntext, image: NULL in rows 1 and 3, always.
        || (ty.is_old_lob() && (operation == 1 || operation == 3))
        // (max): NULL in rows 3 unless the update changed the column.
        || (large(ty) && operation == 3 && !changed)
        || (large(ty) && operation == 4 && !changed && quirks.unchanged_max_is_null_after);
    if hidden { Value::Null } else { value.cloned().unwrap_or(Value::Null) }
}

fn large(ty: SqlType) -> bool {
    ty.is_max() || ty.kind == Kind::Xml
}

/// `__$update_mask`: a bit for each captured column, all of them for inserts and deletes.
fn mask(i: &Instance, changed: Option<&Vec<i64>>, quirks: &Quirks) -> Vec<u8> {
    let length = i.columns.len().div_ceil(8);
    let mut out = vec![0u8; length];
    for (at, (id, ..)) in i.columns.iter().enumerate() {
        if changed.is_none_or(|c| c.contains(id)) {
            let byte = if quirks.mask_from_the_right { length - 1 - at / 8 } else { at / 8 };
            out[byte] |= 1 << (at % 8);
        }
    }
    out
}

/// The clean-up job for one instance: rows before `low` go, and `start_lsn` rises to it: "sys.sp_cdc_cleanup_change_table".
pub fn clean_instance(c: &Connection, instance: i64, low: &[u8]) -> Result<usize> {
    let Some(tables) = catalog::find(c, "cdc", "change_tables")? else { return Ok(0) };
    let n = c.execute(&format!("DELETE FROM t{instance} WHERE c1 < ?1"), [low])?;
    c.execute(&format!("UPDATE {} SET c5 = ?1 WHERE c1 = ?2 AND c5 < ?1", tables.physical()), params![low, instance])?;
    Ok(n)
}

/// The clean-up job for a database: everything committed before `before` (ticks) goes from all instances; then rows of
/// cdc.lsn_time_mapping that no instance needs.
pub fn clean(db: &Database, before: i64) -> Result<usize> {
    let me = -db.id;
    db.lock(me, Duration::from_secs(10))?;
    let result = (|| {
        let c = db.borrow()?;
        let (Some(tables), Some(mapping)) =
            (catalog::find(&c, "cdc", "change_tables")?, catalog::find(&c, "cdc", "lsn_time_mapping")?)
        else {
            return Ok(0);
        };
        c.execute_batch("BEGIN IMMEDIATE")?;
        // The new low water mark is the first transaction that is young enough, or the newest one there is.
        let low: Option<Vec<u8>> = c.query_row(
            &format!(
                "SELECT coalesce((SELECT min(c1) FROM {0} WHERE c3 >= ?1), (SELECT max(c1) FROM {0}))",
                mapping.physical()
            ),
            [before],
            |r| r.get(0),
        )?;
        let mut n = 0;
        if let Some(low) = low {
            let ids: Vec<i64> = {
                let mut st = c.prepare(&format!("SELECT c1 FROM {}", tables.physical()))?;
                st.query_map([], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?
            };
            for id in ids {
                n += clean_instance(&c, id, &low)?;
            }
            n += c.execute(&format!("DELETE FROM {} WHERE c1 < ?1", mapping.physical()), [&low])?;
        }
        c.execute_batch("COMMIT")?;
        Ok(n)
    })();
    db.unlock(me);
    result
}

#[cfg(test)]
impl Instance {
    fn for_test(columns: usize) -> Self {
        let columns = (1..=columns as i64).map(|i| (i, false, SqlType::of(Kind::Int))).collect();
        Self { start: None, columns, insert: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        let i = Instance::for_test(10);
        let q = Quirks::default();
        assert_eq!(mask(&i, None, &q), [0b11, 0xFF]);
        assert_eq!(mask(&i, Some(&vec![1]), &q), [0, 1]);
        assert_eq!(mask(&i, Some(&vec![9]), &q), [1, 0]);
        let left = Quirks { mask_from_the_right: false, ..q };
        assert_eq!(mask(&i, Some(&vec![1]), &left), [1, 0]);
    }

    #[test]
    fn large_values_are_hidden_where_the_log_has_none() {
        let q = Quirks::default();
        let v = Value::Text("x".into());
        let max = SqlType::max(Kind::NVarChar);
        let old = SqlType::of(Kind::Text);
        assert_eq!(image_value(Some(&v), false, max, 3, false, &q), Value::Null);
        assert_eq!(image_value(Some(&v), false, max, 3, true, &q), v);
        assert_eq!(image_value(Some(&v), false, max, 4, false, &q), v);
        assert_eq!(image_value(Some(&v), false, max, 1, false, &q), v);
        assert_eq!(image_value(Some(&v), false, old, 1, false, &q), Value::Null);
        assert_eq!(image_value(Some(&v), true, SqlType::of(Kind::Int), 2, false, &q), Value::Null);
    }
}
