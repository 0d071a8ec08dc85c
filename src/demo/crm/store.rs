//! Where records are kept: in memory, or in a SQLite file. One caller at a time.

use super::record::{Stored, Version};
use rusqlite::{Connection, OptionalExtension, params};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::Path;
use std::time::Duration;

pub(super) type Result<T, E = rusqlite::Error> = std::result::Result<T, E>;

/// Records by entity and external id, tombstones included.
pub(super) trait Store: Send {
    /// Everything until `commit` happens together.
    fn begin(&mut self) -> Result<()>;
    /// Makes it last.
    fn commit(&mut self) -> Result<()>;
    /// Forgets everything since `begin`.
    fn rollback(&mut self);
    /// The record, tombstone or not.
    fn get(&mut self, entity: &str, external_id: &str) -> Result<Option<Cow<'_, Stored>>>;
    /// Writes the record.
    fn put(&mut self, entity: &str, external_id: &str, record: Stored) -> Result<()>;
    /// Live records after `after` in the byte order of their external ids, until `take` has had enough.
    fn scan(&mut self, entity: &str, after: Option<&str>, take: &mut dyn FnMut(&str, &Stored) -> bool) -> Result<()>;
    /// Live records of each entity.
    fn counts(&mut self) -> Result<BTreeMap<Box<str>, u64>>;
    /// The largest CRM id given out.
    fn last_id(&mut self) -> Result<u64>;
    /// Whether calls may wait for a disk.
    fn is_slow(&self) -> bool;
}

/// Keeps records in memory. Nothing in it can fail, so nothing needs to be rolled back.
#[derive(Default)]
pub(super) struct Memory {
    entities: HashMap<Box<str>, BTreeMap<Box<str>, Stored>>,
}

impl Store for Memory {
    fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        Ok(())
    }

    fn rollback(&mut self) {}

    fn get(&mut self, entity: &str, external_id: &str) -> Result<Option<Cow<'_, Stored>>> {
        Ok(self.entities.get(entity).and_then(|records| records.get(external_id)).map(Cow::Borrowed))
    }

    fn put(&mut self, entity: &str, external_id: &str, record: Stored) -> Result<()> {
        if !self.entities.contains_key(entity) {
            self.entities.insert(entity.into(), BTreeMap::new());
        }
        if let Some(records) = self.entities.get_mut(entity) {
            match records.get_mut(external_id) {
                Some(place) => *place = record,
                None => {
                    records.insert(external_id.into(), record);
                }
            }
        }
        Ok(())
    }

    fn scan(&mut self, entity: &str, after: Option<&str>, take: &mut dyn FnMut(&str, &Stored) -> bool) -> Result<()> {
        let Some(records) = self.entities.get(entity) else { return Ok(()) };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for (external_id, record) in records.range::<str, _>((from, Bound::Unbounded)) {
            if !record.deleted && !take(external_id, record) {
                break;
            }
        }
        Ok(())
    }

    fn counts(&mut self) -> Result<BTreeMap<Box<str>, u64>> {
        let live = |records: &BTreeMap<Box<str>, Stored>| records.values().filter(|r| !r.deleted).count() as u64;
        Ok(self.entities.iter().map(|(entity, records)| (entity.clone(), live(records))).collect())
    }

    fn last_id(&mut self) -> Result<u64> {
        Ok(self.entities.values().flat_map(|records| records.values()).map(|record| record.id).max().unwrap_or(0))
    }

    fn is_slow(&self) -> bool {
        false
    }
}

/// Keeps records in a SQLite file.
pub(super) struct Sqlite {
    db: Connection,
}

/// Format of the file (`PRAGMA user_version`).
const FORMAT: i64 = 1;

impl Sqlite {
    pub fn open(path: &Path) -> Result<Self, String> {
        let named =
            |error: &dyn std::fmt::Display| format!("the CRM's file {} cannot be opened: {error}", path.display());
        let db = Connection::open(path).map_err(|error| named(&error))?;
        let prepare = || -> Result<i64> {
            db.busy_timeout(Duration::from_secs(5))?;
            db.pragma_update(None, "journal_mode", "wal")?;
            db.pragma_update(None, "synchronous", "normal")?;
            let tables: i64 = db.query_row("select count(*) from sqlite_schema", [], |row| row.get(0))?;
            if tables == 0 {
                db.execute_batch(
                    "create table record (entity text not null, external_id text not null, id integer not null, \
                     version text not null, deleted integer not null, fields blob not null, \
                     primary key (entity, external_id)) without rowid;",
                )?;
                db.pragma_update(None, "user_version", FORMAT)?;
            }
            db.query_row("pragma user_version", [], |row| row.get(0))
        };
        match prepare().map_err(|error| named(&error))? {
            FORMAT => Ok(Self { db }),
            other => Err(named(&format!("it is not a CRM file of this program (format {other}, wanted {FORMAT})"))),
        }
    }
}

fn stored(row: &rusqlite::Row<'_>) -> Result<Stored> {
    let version: String = row.get("version")?;
    Ok(Stored {
        id: u64::try_from(row.get::<_, i64>("id")?).unwrap_or(0),
        version: Version::parse(&version).unwrap_or(Version::Small(0)),
        deleted: row.get("deleted")?,
        fields: row.get::<_, Vec<u8>>("fields")?.into(),
    })
}

impl Store for Sqlite {
    fn begin(&mut self) -> Result<()> {
        self.db.prepare_cached("begin immediate")?.execute([]).map(|_| ())
    }

    fn commit(&mut self) -> Result<()> {
        self.db.prepare_cached("commit")?.execute([]).map(|_| ())
    }

    fn rollback(&mut self) {
        // Fails if SQLite has rolled back by itself, which is what is wanted.
        let _ = self.db.execute_batch("rollback");
    }

    fn get(&mut self, entity: &str, external_id: &str) -> Result<Option<Cow<'_, Stored>>> {
        let sql = "select id, version, deleted, fields from record where entity = ?1 and external_id = ?2";
        let found = self.db.prepare_cached(sql)?.query_row(params![entity, external_id], stored).optional()?;
        Ok(found.map(Cow::Owned))
    }

    fn put(&mut self, entity: &str, external_id: &str, record: Stored) -> Result<()> {
        let sql = "insert or replace into record (entity, external_id, id, version, deleted, fields) \
                   values (?1, ?2, ?3, ?4, ?5, ?6)";
        let id = i64::try_from(record.id).unwrap_or(i64::MAX);
        let version = record.version.to_string();
        let values = params![entity, external_id, id, version, record.deleted, &record.fields[..]];
        self.db.prepare_cached(sql)?.execute(values).map(|_| ())
    }

    fn scan(&mut self, entity: &str, after: Option<&str>, take: &mut dyn FnMut(&str, &Stored) -> bool) -> Result<()> {
        // SQLite compares text by its bytes.
        let sql = "select external_id, id, version, deleted, fields from record \
                   where entity = ?1 and (?2 is null or external_id > ?2) and not deleted order by external_id";
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query(params![entity, after])?;
        while let Some(row) = rows.next()? {
            let external_id = row.get_ref("external_id")?.as_str().unwrap_or("").to_owned();
            if !take(&external_id, &stored(row)?) {
                break;
            }
        }
        Ok(())
    }

    fn counts(&mut self) -> Result<BTreeMap<Box<str>, u64>> {
        let sql = "select entity, count(*) from record where not deleted group by entity";
        let mut statement = self.db.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, String>(0)?.into_boxed_str(), u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0)))
        })?;
        rows.collect()
    }

    fn last_id(&mut self) -> Result<u64> {
        let last: Option<i64> = self.db.query_row("select max(id) from record", [], |row| row.get(0))?;
        Ok(last.and_then(|id| u64::try_from(id).ok()).unwrap_or(0))
    }

    fn is_slow(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64, fields: &str) -> Stored {
        Stored { id, version: Version::Small(id), deleted: false, fields: fields.as_bytes().into() }
    }

    fn ids(store: &mut dyn Store, after: Option<&str>, limit: usize) -> Vec<String> {
        let mut ids = Vec::new();
        store
            .scan("e", after, &mut |external_id, _| {
                ids.push(external_id.to_owned());
                ids.len() < limit
            })
            .unwrap();
        ids
    }

    fn behaves(store: &mut dyn Store) {
        store.begin().unwrap();
        // Bytes, not letters: upper case before lower case, ASCII before the rest, '\u{10000}' after '\u{ffff}'.
        for (index, external_id) in
            ["b", "a", "B", "é", "a\u{0}x", "\u{ffff}", "\u{10000}", "10", "9"].iter().enumerate()
        {
            store.put("e", external_id, record(index as u64 + 1, "{}")).unwrap();
        }
        store.put("other", "z", record(99, "{}")).unwrap();
        let mut gone = record(2, "{}");
        gone.deleted = true;
        store.put("e", "a", gone).unwrap();
        store.commit().unwrap();
        assert_eq!(ids(store, None, 100), ["10", "9", "B", "a\u{0}x", "b", "é", "\u{ffff}", "\u{10000}"]);
        assert_eq!(ids(store, Some("a"), 2), ["a\u{0}x", "b"]);
        assert_eq!(ids(store, Some("zz"), 1), ["é"]);
        assert_eq!(ids(store, Some("\u{10000}"), 1), [""; 0]);
        assert!(store.get("e", "a").unwrap().unwrap().deleted);
        assert!(store.get("e", "A").unwrap().is_none());
        assert_eq!(store.counts().unwrap(), BTreeMap::from([("e".into(), 8), ("other".into(), 1)]));
        assert_eq!(store.last_id().unwrap(), 99);
        let large =
            Stored { version: Version::parse("123456789012345678901234567890").unwrap(), ..record(5, "{\"a\":1}") };
        store.put("e", "b", large.clone()).unwrap();
        let back = store.get("e", "b").unwrap().unwrap();
        assert_eq!((&back.version, &back.fields), (&large.version, &large.fields));
    }

    #[test]
    fn memory_keeps_records() {
        behaves(&mut Memory::default());
    }

    #[test]
    fn a_file_keeps_records_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("crm.db");
        behaves(&mut Sqlite::open(&path).unwrap());
        let mut store = Sqlite::open(&path).unwrap();
        assert_eq!(ids(&mut store, None, 2), ["10", "9"]);
        store.begin().unwrap();
        store.put("e", "0", record(200, "{}")).unwrap();
        store.rollback();
        assert_eq!(ids(&mut store, None, 2), ["10", "9"]);
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.db");
        Connection::open(&path).unwrap().execute_batch("create table t (a)").unwrap();
        assert!(Sqlite::open(&path).err().unwrap().contains("not a CRM file"));
        std::fs::write(dir.path().join("text.db"), "this is no database at all, but it is long enough to look")
            .unwrap();
        assert!(Sqlite::open(&dir.path().join("text.db")).is_err());
    }
}
