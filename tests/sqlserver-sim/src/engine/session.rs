//! A session: its settings, its variables, and the running of batches.

use super::bind::{Binder, BoundQuery, Scope};
use super::database::{Database, state};
use super::server::{Login, Server};
use super::transaction::{Isolation, Transaction};
use crate::error::{Result, SqlError};
use crate::sql::ast::{Expr, Query};
use crate::types::{SqlType, datetime};
use rusqlite::Connection;
use rusqlite::types::Value;
use std::sync::Arc;
use std::time::Duration;

/// A column of a result, for COLMETADATA.
#[derive(Clone, Debug)]
pub struct Meta {
    /// Name.
    pub name: String,
    /// Type.
    pub ty: SqlType,
    /// May be NULL.
    pub nullable: bool,
    /// Numbers itself.
    pub identity: bool,
    /// A plain column of a table.
    pub column: bool,
}

/// What a statement says to the client.
pub trait Output {
    /// A result begins.
    fn columns(&mut self, columns: &[Meta]);
    /// One row of it.
    fn row(&mut self, columns: &[Meta], row: &[Value]);
    /// A statement is done; the rows it returned or changed. `select` for queries.
    fn done(&mut self, rows: Option<u64>, select: bool);
    /// Words that are no error.
    fn info(&mut self, message: &SqlError);
    /// An error; the batch may go on.
    fn error(&mut self, error: &SqlError);
    /// A transaction began (`Some(true)`), was committed (`Some(false)`) or rolled back (`None`).
    fn transaction(&mut self, id: i64, begun: Option<bool>);
    /// The current database changed.
    fn database(&mut self, old: &str, new: &str);
    /// An output parameter.
    fn return_value(&mut self, name: &str, ty: SqlType, value: &Value);
    /// The return status of a procedure.
    fn return_status(&mut self, status: i32);
}

/// How a batch goes on after a statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// With the next statement.
    Next,
    /// Not at all: RETURN.
    Return,
}

/// One connection's state.
pub struct Session {
    /// The server.
    pub server: Arc<Server>,
    /// Current database.
    pub db: Arc<Database>,
    /// Connection to its file.
    pub c: Connection,
    /// `@@SPID`
    pub id: i64,
    /// Login.
    pub login: String,
    /// User in the current database.
    pub user: String,
    /// sysadmin.
    pub admin: bool,
    /// It is a session of a secondary replica.
    pub secondary: bool,
    /// Everything of it is encrypted on the way.
    pub encrypted: bool,
    /// Program name of the client.
    pub program: String,
    /// Host name of the client.
    pub host: String,
    /// Variables of the batch.
    pub variables: Vec<(String, SqlType, Value)>,
    /// SET TRANSACTION ISOLATION LEVEL.
    pub isolation: Isolation,
    /// The open transaction.
    pub transaction: Option<Transaction>,
    /// SET LOCK_TIMEOUT.
    pub lock_timeout: Option<Duration>,
    /// `@@ROWCOUNT`
    pub row_count: i64,
    /// `@@ERROR`
    pub last_error: i32,
    /// `SCOPE_IDENTITY()`
    pub last_identity: Option<i64>,
    /// One time for a whole statement.
    pub statement_time: i64,
    /// The error being handled by CATCH.
    pub caught: Option<SqlError>,
    /// Table with IDENTITY_INSERT ON.
    pub identity_insert: Option<i64>,
    /// SET NOCOUNT.
    pub nocount: bool,
    /// SET XACT_ABORT.
    pub xact_abort: bool,
    /// SET CONTEXT_INFO / WITH CHANGE_TRACKING_CONTEXT.
    pub context: Option<Vec<u8>>,
    /// Depth of procedure calls.
    pub nesting: usize,
}

impl Session {
    /// Opens a session for a login in a database; 4060 if it may not enter it.
    pub fn open(server: &Arc<Server>, login: &Login, database: &str) -> Result<Self> {
        let name = if database.is_empty() { "master" } else { database };
        let closed = || {
            SqlError::new(
                4060,
                11,
                1,
                format!("Cannot open database \"{name}\" requested by the login. The login failed."),
            )
        };
        let db = server.database(name).ok_or_else(closed)?;
        let user = server.user_of(&db, &login.name).ok_or_else(closed)?;
        let c = db.open()?;
        Ok(Self {
            server: server.clone(),
            db,
            c,
            id: server.new_session_id(),
            login: login.name.clone(),
            user,
            admin: login.admin,
            secondary: false,
            encrypted: false,
            program: String::new(),
            host: String::new(),
            variables: Vec::new(),
            isolation: Isolation::ReadCommitted,
            transaction: None,
            lock_timeout: None,
            row_count: 0,
            last_error: 0,
            last_identity: None,
            statement_time: datetime::now(),
            caught: None,
            identity_insert: None,
            nocount: false,
            xact_abort: false,
            context: None,
            nesting: 0,
        })
    }

    /// A variable with its type.
    pub fn variable(&self, name: &str) -> Option<(&SqlType, &Value)> {
        self.variables.iter().rev().find(|(n, ..)| n.eq_ignore_ascii_case(name)).map(|(_, t, v)| (t, v))
    }

    /// Assigns a variable, converting to its type.
    pub fn assign(&mut self, name: &str, from: SqlType, value: &Value) -> Result<()> {
        let Some(slot) = self.variables.iter_mut().rev().find(|(n, ..)| n.eq_ignore_ascii_case(name)) else {
            return Err(SqlError::new(137, 15, 1, format!("Must declare the scalar variable \"{name}\".")));
        };
        slot.2 = crate::types::convert::convert(value, from, slot.1, 0)?;
        Ok(())
    }

    /// `@@TRANCOUNT`
    pub fn depth(&self) -> i64 {
        self.transaction.as_ref().map_or(0, |t| t.depth)
    }

    /// A condition, outside of any query.
    pub(crate) fn test(&mut self, e: &Expr) -> Result<bool> {
        let mut b = Binder::new(self);
        let sql = b.condition(e, &Scope::default())?;
        let params = b.parameters();
        self.read()?;
        let v: Option<i64> = self
            .c
            .prepare_cached(&format!("SELECT {sql}"))?
            .query_row(rusqlite::params_from_iter(params), |r| r.get(0))?;
        Ok(v == Some(1))
    }

    /// A value, outside of any query.
    pub fn evaluate(&mut self, e: &Expr) -> Result<(SqlType, Value)> {
        let mut b = Binder::new(self);
        let bound = b.value(e, &Scope::default())?;
        let params = b.parameters();
        self.read()?;
        let v = self
            .c
            .prepare_cached(&format!("SELECT {}", bound.sql))?
            .query_row(rusqlite::params_from_iter(params), |r| r.get(0))?;
        Ok((bound.ty, v))
    }

    pub(crate) fn query(&mut self, q: &Query, out: &mut dyn Output) -> Result<()> {
        self.read()?;
        let (bound, params) = {
            let mut b = Binder::new(self);
            let bound = b.query(q, None)?;
            let params = b.parameters();
            (bound, params)
        };
        if let Some(into) = &bound.into {
            let n = self.select_into(into, &bound, params)?;
            out.done(Some(n), false);
            return Ok(());
        }
        if !bound.assign.is_empty() {
            return self.assign_last(&bound, params);
        }
        let n = self.emit(&bound.sql, &metas(&bound.columns), params, out)?;
        self.row_count = n as i64;
        out.done(Some(n), true);
        Ok(())
    }

    /// Runs SQLite text and sends its rows.
    pub fn emit(&mut self, sql: &str, columns: &[Meta], params: Vec<Value>, out: &mut dyn Output) -> Result<u64> {
        let mut st = self.c.prepare_cached(sql)?;
        let mut rows = st.query(rusqlite::params_from_iter(params))?;
        // The first row is fetched before anything is sent, so that an error at once has no half result before it.
        let mut row = rows.next()?;
        out.columns(columns);
        let mut n = 0;
        let mut values = Vec::with_capacity(columns.len());
        while let Some(r) = row {
            values.clear();
            for (i, c) in columns.iter().enumerate() {
                let v: Value = r.get(i)?;
                // A column announced as NOT NULL has no way to say NULL on the wire.
                if v == Value::Null && !c.nullable {
                    let text = format!(
                        "Fault inside the simulator: NULL in column {} of a result, which cannot be NULL.",
                        i + 1
                    );
                    return Err(SqlError::new(49_998, 16, 1, text));
                }
                values.push(v);
            }
            out.row(columns, &values);
            n += 1;
            row = rows.next()?;
        }
        Ok(n)
    }

    pub(crate) fn assign_last(&mut self, bound: &BoundQuery, params: Vec<Value>) -> Result<()> {
        let mut last: Option<Vec<Value>> = None;
        let mut n = 0;
        {
            let mut st = self.c.prepare_cached(&bound.sql)?;
            let mut rows = st.query(rusqlite::params_from_iter(params))?;
            while let Some(r) = rows.next()? {
                last = Some((0..bound.columns.len()).map(|i| r.get(i)).collect::<rusqlite::Result<_>>()?);
                n += 1;
            }
        }
        self.row_count = n;
        if let Some(values) = last {
            for ((name, column), v) in bound.assign.iter().zip(&bound.columns).zip(&values) {
                self.assign(name, column.bound.ty, v)?;
            }
        }
        Ok(())
    }

    /// 3952: snapshot isolation is used and the database does not allow it.
    pub fn check_snapshot(&self) -> Result<()> {
        if self.isolation == Isolation::Snapshot && state(&self.c, "snapshot_isolation")? == 0 {
            let text = format!(
                "Snapshot isolation transaction failed accessing database '{}' because snapshot isolation is not allowed in this database. Use ALTER DATABASE to allow snapshot isolation.",
                self.db.name
            );
            return Err(SqlError::new(3952, 16, 1, text));
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SQLite rolls back by itself; the turn to write must be given back.
        self.db.unlock(self.id);
    }
}

/// COLMETADATA of a bound query.
pub fn metas(columns: &[super::bind::Offered]) -> Vec<Meta> {
    columns
        .iter()
        .map(|c| Meta {
            name: c.name.clone(),
            ty: c.bound.ty,
            nullable: c.bound.nullable,
            identity: c.bound.identity,
            column: c.bound.column,
        })
        .collect()
}
