//! One simulated database: a SQLite file in write-ahead mode, its settings and its one writer.
//!
//! Readers never wait and see the last committed state, which SQLite gives for nothing and which is what
//! READ_COMMITTED_SNAPSHOT or SNAPSHOT isolation give in the product ("Transaction locking and row versioning guide").
//! Writers take turns by transaction: the product locks rows, the simulator the database.

use super::functions::{self, Counters};
use crate::error::{Result, SqlError};
use crate::types::collation::Collation;
use crate::types::{Kind, SqlType, datetime};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Takes a lock that a panicking test may have poisoned.
pub fn locked<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What tells a database from its restored copy: "sys.databases" (`create_date`), "sys.database_recovery_status".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Ticks.
    pub create_date: i64,
    /// `database_guid`, stored form.
    pub guid: Vec<u8>,
    /// `recovery_fork_guid`, stored form.
    pub fork: Vec<u8>,
}

impl Identity {
    /// A new one.
    pub fn new() -> Self {
        let guid = || crate::types::guid_store(&functions::random_bytes());
        Self { create_date: datetime::round_datetime(datetime::now()), guid: guid(), fork: guid() }
    }
}

/// A database of the server.
#[derive(Debug)]
pub struct Database {
    /// `database_id`.
    pub id: i64,
    /// Name.
    pub name: String,
    /// Collation of columns that name none.
    pub collation: Collation,
    /// The file.
    pub path: PathBuf,
    /// See [`Identity`].
    pub identity: Mutex<Identity>,
    /// rowversion counter.
    pub counters: Arc<Counters>,
    /// Last identity value by table; never rolled back, as in the product.
    pub identities: Mutex<HashMap<i64, i64>>,
    writer: Mutex<Option<i64>>,
    turn: Condvar,
    next_tx: AtomicI64,
    /// Connections of the server's own that nobody uses just now: to open one costs the reading of the whole schema.
    spare: Mutex<Vec<Connection>>,
}

/// A connection of the server's own, for as long as something is looked up.
pub struct Borrowed<'a> {
    connection: Option<Connection>,
    from: &'a Database,
}

impl std::ops::Deref for Borrowed<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        // It is taken out by `drop` alone.
        self.connection.as_ref().unwrap_or_else(|| unreachable!("used after it was given back"))
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take().filter(Connection::is_autocommit) {
            locked(&self.from.spare).push(connection);
        }
    }
}

impl Database {
    /// Makes the file and its core tables.
    pub fn create(id: i64, name: &str, collation: Collation, path: PathBuf) -> Result<Arc<Self>> {
        let db = Arc::new(Self {
            id,
            name: name.into(),
            collation,
            path,
            identity: Mutex::new(Identity::new()),
            counters: Arc::new(Counters { rowversion: AtomicI64::new(2000) }),
            identities: Mutex::default(),
            writer: Mutex::new(None),
            turn: Condvar::new(),
            next_tx: AtomicI64::new(1),
            spare: Mutex::default(),
        });
        let c = db.open()?;
        c.execute_batch("PRAGMA journal_mode = WAL")?;
        c.execute_batch(CORE)?;
        Ok(db)
    }

    /// A connection with all functions.
    pub fn open(&self) -> Result<Connection> {
        let c = Connection::open(&self.path)?;
        c.set_prepared_statement_cache_capacity(256);
        c.execute_batch("PRAGMA synchronous = OFF; PRAGMA recursive_triggers = ON; PRAGMA cache_size = -20000; PRAGMA busy_timeout = 5000")?;
        functions::register(&c, &self.counters)?;
        Ok(c)
    }

    /// A connection for a moment, which holds no state of a session.
    pub fn borrow(&self) -> Result<Borrowed<'_>> {
        let spare = locked(&self.spare).pop();
        let connection = Some(spare.map_or_else(|| self.open(), Ok)?);
        Ok(Borrowed { connection, from: self })
    }

    /// A transaction number.
    pub fn next_transaction(&self) -> i64 {
        self.next_tx.fetch_add(1, Ordering::SeqCst)
    }

    /// Waits for the turn to write; 1222 when `timeout` is over.
    pub fn lock(&self, session: i64, timeout: Duration) -> Result<()> {
        let until = Instant::now() + timeout;
        let mut writer = locked(&self.writer);
        loop {
            match *writer {
                None => {
                    *writer = Some(session);
                    return Ok(());
                }
                Some(owner) if owner == session => return Ok(()),
                Some(_) => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(SqlError::new(1222, 16, 51, "Lock request time out period exceeded."));
            }
            writer = self.turn.wait_timeout(writer, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// Gives the turn back.
    pub fn unlock(&self, session: i64) {
        let mut writer = locked(&self.writer);
        if *writer == Some(session) {
            *writer = None;
            self.turn.notify_one();
        }
    }
}

/// A number kept with the database.
pub fn state(c: &Connection, key: &str) -> Result<i64> {
    let mut st = c.prepare_cached("SELECT value FROM core_state WHERE key = ?1")?;
    Ok(st.query_row([key], |r| r.get(0)).optional()?.unwrap_or(0))
}

/// Sets a number kept with the database.
pub fn set_state(c: &Connection, key: &str, value: i64) -> Result<()> {
    let mut st = c.prepare_cached(
        "INSERT INTO core_state VALUES(?1, ?2) ON CONFLICT(key) DO UPDATE SET value = excluded.value",
    )?;
    st.execute(params![key, value])?;
    Ok(())
}

/// Raises a number kept with the database by one and answers it.
pub fn bump(c: &Connection, key: &str) -> Result<i64> {
    let v = state(c, key)? + 1;
    set_state(c, key, v)?;
    Ok(v)
}

/// Notes what the catalogue views say about a type that some column has.
pub fn remember_type(c: &Connection, ty: SqlType) -> Result<()> {
    let characters =
        if ty.is_char() { Some(if ty.len == crate::types::MAX { -1 } else { i64::from(ty.len) }) } else { None };
    let collation = ty.has_collation().then(|| ty.collation.name());
    let mut st =
        c.prepare_cached("INSERT OR IGNORE INTO core_types VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?;
    st.execute(params![
        ty.code(),
        ty.name(),
        ty.system_id(),
        ty.user_id(),
        ty.max_length(),
        ty.column_precision(),
        ty.column_scale(),
        collation,
        characters,
        ty.is_number() && ty.kind != Kind::Bit,
        ty.is_temporal(),
    ])?;
    Ok(())
}

/// The catalogue and the log. Tables of users are `t<object id>` with columns `c<column id>`, so that no name of a user
/// ever reaches SQLite's own name space, and renaming touches the catalogue alone.
const CORE: &str = "
CREATE TABLE core_state(key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO core_state VALUES('next_object', 0), ('snapshot_isolation', 0), ('ct_retention', 2880), ('ct_cleanup', 1);
CREATE TABLE core_schemas(schema_id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE UNIQUE NOT NULL);
INSERT INTO core_schemas VALUES(1, 'dbo'), (2, 'guest'), (3, 'INFORMATION_SCHEMA'), (4, 'sys');
CREATE TABLE core_objects(object_id INTEGER PRIMARY KEY, schema_id INTEGER NOT NULL, name TEXT COLLATE NOCASE NOT NULL,
    type TEXT NOT NULL, parent INTEGER NOT NULL DEFAULT 0, created INTEGER NOT NULL, modified INTEGER NOT NULL,
    shipped INTEGER NOT NULL DEFAULT 0, cdc INTEGER NOT NULL DEFAULT 0, ct INTEGER NOT NULL DEFAULT 0,
    ct_columns INTEGER NOT NULL DEFAULT 0, ct_begin INTEGER NOT NULL DEFAULT 0, ct_min INTEGER NOT NULL DEFAULT 0,
    definition TEXT, UNIQUE(schema_id, name));
CREATE TABLE core_columns(object_id INTEGER, column_id INTEGER, name TEXT COLLATE NOCASE NOT NULL, type INTEGER NOT NULL,
    nullable INTEGER NOT NULL, seed INTEGER, increment INTEGER, computed TEXT, persisted INTEGER NOT NULL DEFAULT 0,
    default_text TEXT, default_name TEXT, PRIMARY KEY(object_id, column_id)) WITHOUT ROWID;
CREATE TABLE core_indexes(object_id INTEGER, index_id INTEGER, name TEXT COLLATE NOCASE NOT NULL, clustered INTEGER NOT NULL,
    is_unique INTEGER NOT NULL, is_primary INTEGER NOT NULL, is_constraint INTEGER NOT NULL,
    PRIMARY KEY(object_id, index_id)) WITHOUT ROWID;
CREATE TABLE core_index_columns(object_id INTEGER, index_id INTEGER, position INTEGER, column_id INTEGER NOT NULL,
    descending INTEGER NOT NULL, included INTEGER NOT NULL, PRIMARY KEY(object_id, index_id, position)) WITHOUT ROWID;
CREATE TABLE core_checks(object_id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, definition TEXT NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0);
CREATE TABLE core_fks(object_id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, referenced INTEGER NOT NULL,
    on_delete TEXT NOT NULL, on_update TEXT NOT NULL, disabled INTEGER NOT NULL DEFAULT 0, key_index INTEGER NOT NULL);
CREATE TABLE core_fk_columns(fk INTEGER, position INTEGER, parent_column INTEGER NOT NULL, referenced_column INTEGER NOT NULL,
    PRIMARY KEY(fk, position)) WITHOUT ROWID;
CREATE TABLE core_principals(principal_id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE UNIQUE NOT NULL, type TEXT NOT NULL,
    login TEXT COLLATE NOCASE);
INSERT INTO core_principals VALUES(0, 'public', 'R', NULL), (1, 'dbo', 'S', 'sa'), (2, 'guest', 'S', NULL),
    (16384, 'db_owner', 'R', NULL), (16385, 'db_accessadmin', 'R', NULL), (16386, 'db_securityadmin', 'R', NULL),
    (16387, 'db_ddladmin', 'R', NULL), (16389, 'db_backupoperator', 'R', NULL), (16390, 'db_datareader', 'R', NULL),
    (16391, 'db_datawriter', 'R', NULL), (16392, 'db_denydatareader', 'R', NULL), (16393, 'db_denydatawriter', 'R', NULL);
CREATE TABLE core_members(role_id INTEGER, member_id INTEGER, PRIMARY KEY(role_id, member_id)) WITHOUT ROWID;
CREATE TABLE core_permissions(grantee INTEGER, class INTEGER, major INTEGER, permission TEXT, state TEXT NOT NULL,
    PRIMARY KEY(grantee, class, major, permission)) WITHOUT ROWID;
INSERT INTO core_permissions VALUES(16384, 0, 0, 'control', 'G'), (16390, 0, 0, 'select', 'G'), (16391, 0, 0, 'insert', 'G'),
    (16391, 0, 0, 'update', 'G'), (16391, 0, 0, 'delete', 'G'), (16392, 0, 0, 'select', 'D');
CREATE TABLE core_log(n INTEGER PRIMARY KEY AUTOINCREMENT, tx INTEGER NOT NULL, object_id INTEGER NOT NULL,
    command INTEGER NOT NULL, op TEXT NOT NULL, old BLOB, new BLOB);
CREATE INDEX core_log_tx ON core_log(tx, n);
CREATE TABLE core_tx(seq INTEGER PRIMARY KEY AUTOINCREMENT, tx INTEGER NOT NULL, first_record INTEGER NOT NULL, lsn BLOB NOT NULL,
    begun INTEGER NOT NULL, ended INTEGER NOT NULL, kind TEXT NOT NULL);
CREATE TABLE core_current(one INTEGER PRIMARY KEY CHECK (one = 1), tx INTEGER, command INTEGER);
INSERT INTO core_current VALUES(1, 0, 0);
CREATE TABLE core_ct(object_id INTEGER, version INTEGER, op TEXT NOT NULL, key BLOB NOT NULL, columns BLOB, context BLOB, at INTEGER,
    n INTEGER PRIMARY KEY AUTOINCREMENT);
CREATE INDEX core_ct_version ON core_ct(object_id, version);
CREATE TABLE core_types(code INTEGER PRIMARY KEY, name TEXT, system_type_id INTEGER, user_type_id INTEGER, max_length INTEGER,
    precision INTEGER, scale INTEGER, collation TEXT, characters INTEGER, numbers INTEGER, times INTEGER);
CREATE TABLE core_ct_times(version INTEGER PRIMARY KEY, at INTEGER NOT NULL);
";
