//! A session: its settings, its variables, and the running of batches.

use super::bind::{Binder, BoundQuery, Scope};
use super::catalog::{self, Object};
use super::database::{Database, state};
use super::server::{Login, Server};
use super::transaction::{Isolation, Transaction};
use crate::error::{Result, SqlError};
use crate::sql::ast::{Expr, Query, Statement};
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

    /// Member of db_owner, or dbo.
    pub fn db_owner(&self) -> bool {
        self.admin || self.user == "dbo" || self.principals().is_ok_and(|p| p.contains(&16_384))
    }

    /// Ids of the user and its roles.
    pub fn principals(&self) -> Result<Vec<i64>> {
        catalog::principals(&self.c, &self.user)
    }

    /// Fails with 229 unless the caller has a permission on an object.
    pub fn demand(&self, permission: &str, object: &Object) -> Result<()> {
        if self.admin || self.user == "dbo" {
            return Ok(());
        }
        let ids = self.principals()?;
        if ids.contains(&16_384)
            || catalog::allowed(&self.c, &ids, &permission.to_ascii_lowercase(), object.id, object.schema_id)?
        {
            return Ok(());
        }
        Err(SqlError::denied(permission, &object.name, &self.db.name, &object.schema))
    }

    /// Fails with 229 unless the caller may see the state of the server or the database: "VIEW DATABASE STATE".
    pub fn demand_state(&self, permission: &str) -> Result<()> {
        let lower = permission.to_ascii_lowercase();
        if self.admin
            || self.server.server_permissions(&self.login).iter().any(|p| *p == lower || p == "view server state")
        {
            return Ok(());
        }
        if lower == "view database state"
            && (self.db_owner() || catalog::allowed(&self.c, &self.principals()?, &lower, 0, 0)?)
        {
            return Ok(());
        }
        let (number, place) = if lower == "view database state" {
            (262, format!("database '{}'", self.db.name))
        } else {
            (300, "object 'server', database 'master'".into())
        };
        Err(SqlError::new(number, 14, 1, format!("{permission} permission was denied on {place}.")))
    }

    /// Fails unless the caller is db_owner, for procedures that demand it.
    pub fn demand_owner(&self, procedure: &str) -> Result<()> {
        if self.db_owner() {
            return Ok(());
        }
        Err(SqlError::new(
            229,
            14,
            5,
            format!(
                "The EXECUTE permission was denied on the object '{procedure}', database 'mssqlsystemresource', schema 'sys'."
            ),
        ))
    }

    /// SQLite text: may the caller read the capture instance in alias `a` of cdc.change_tables? "cdc.change_tables",
    /// `role_name`: members of the gating role, or everybody without one.
    pub fn instance_visible(&self, a: &str) -> Result<String> {
        if self.db_owner() {
            return Ok("1".into());
        }
        let list = self.principals()?.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        Ok(format!(
            "({a}.c9 IS NULL OR EXISTS (SELECT 1 FROM core_principals q WHERE q.name = {a}.c9 AND q.principal_id IN ({list})))"
        ))
    }

    /// SQLite text: may the caller see change tracking of object `o`?
    pub fn tracking_visible(&self) -> Result<String> {
        let list = self.principals()?.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        Ok(format!(
            "EXISTS (SELECT 1 FROM core_permissions p WHERE p.grantee IN ({list}) AND p.state = 'G' AND p.permission IN ('view change tracking', 'control') \
             AND (p.class = 0 OR p.class = 3 AND p.major = o.schema_id OR p.class = 1 AND p.major = o.object_id))"
        ))
    }

    /// Runs a batch. Errors go to `out`; the answer says whether the whole batch went through.
    pub fn batch(&mut self, text: &str, out: &mut dyn Output) -> bool {
        let run = || -> Result<Vec<Statement>> {
            self.server.note_batch(text)?;
            crate::sql::parse_batch(text)
        };
        match run() {
            Ok(statements) => self.statements(&statements, out).is_ok(),
            Err(e) => {
                self.failed(&e, out);
                out.error(&e);
                out.done(None, false);
                false
            }
        }
    }

    /// Runs statements in turn. An error that ends only its statement is told and the next one runs.
    pub fn statements(&mut self, list: &[Statement], out: &mut dyn Output) -> Result<Flow, ()> {
        for s in list {
            match self.statement(s, out) {
                Ok(Flow::Next) => {}
                Ok(Flow::Return) => return Ok(Flow::Return),
                Err(e) => {
                    self.failed(&e, out);
                    out.error(&e);
                    out.done(None, false);
                    if !ends_statement_only(&e) || self.xact_abort {
                        return Err(());
                    }
                }
            }
        }
        Ok(Flow::Next)
    }

    /// What an error does to the session: `@@ERROR`, and the transaction for those that doom it.
    fn failed(&mut self, e: &SqlError, out: &mut dyn Output) {
        self.last_error = e.number;
        let doomed = matches!(e.number, 1205 | 3960 | 3961) || e.class >= 20 || (self.xact_abort && e.class > 10);
        if doomed && self.transaction.is_some() {
            self.rollback_all(out);
        }
    }

    /// Statements of a block, where the first error leaves the block (it is inside TRY, or the batch ends anyway).
    fn block(&mut self, list: &[Statement], out: &mut dyn Output) -> Result<Flow> {
        for s in list {
            if self.statement(s, out)? == Flow::Return {
                return Ok(Flow::Return);
            }
        }
        Ok(Flow::Next)
    }

    /// Runs one statement.
    pub fn statement(&mut self, s: &Statement, out: &mut dyn Output) -> Result<Flow> {
        self.statement_time = datetime::now();
        match s {
            Statement::If(condition, then, otherwise) => {
                let hit = self.test(condition)?;
                if hit {
                    return self.statement(then, out);
                }
                return otherwise.as_ref().map_or(Ok(Flow::Next), |o| self.statement(o, out));
            }
            Statement::While(condition, body) => {
                let mut rounds = 0;
                while self.test(condition)? {
                    if self.statement(body, out)? == Flow::Return {
                        return Ok(Flow::Return);
                    }
                    rounds += 1;
                    if rounds > 10_000_000 {
                        return Err(SqlError::unmodelled("loops of more than ten million rounds"));
                    }
                }
                return Ok(Flow::Next);
            }
            Statement::Block(list) => return self.block(list, out),
            Statement::Try(body, handler) => {
                return match self.block(body, out) {
                    Ok(flow) => Ok(flow),
                    // Syntax and compilation are not caught, "TRY...CATCH (Transact-SQL)".
                    Err(e) if e.class > 10 && e.class < 20 => {
                        self.last_error = e.number;
                        let before = self.caught.replace(e);
                        let flow = self.block(handler, out);
                        self.caught = before;
                        flow
                    }
                    Err(e) => Err(e),
                };
            }
            Statement::Return(_) => return Ok(Flow::Return),
            _ => {}
        }
        let keep_count = matches!(s, Statement::Declare(_) | Statement::SetVar(..));
        self.simple(s, out)?;
        self.last_error = 0;
        if keep_count {
            self.row_count = 1;
        }
        Ok(Flow::Next)
    }

    /// Statements without statements inside.
    fn simple(&mut self, s: &Statement, out: &mut dyn Output) -> Result<()> {
        match s {
            Statement::Query(q) => self.query(q, out),
            Statement::Insert { .. } | Statement::Update { .. } | Statement::Delete { .. } | Statement::Truncate(_) => {
                self.change(s, out)
            }
            Statement::Declare(list) => {
                for (name, ty, value) in list {
                    let ty = SqlType::declared(&ty.name, &ty.args, false)?.collate(self.db.collation);
                    self.variables.push((name.clone(), ty, Value::Null));
                    if let Some(e) = value {
                        let (from, v) = self.evaluate(e)?;
                        self.assign(name, from, &v)?;
                    }
                }
                Ok(())
            }
            Statement::SetVar(name, e) => {
                let (from, v) = self.evaluate(e)?;
                self.assign(name, from, &v)
            }
            Statement::SetOption(..)
            | Statement::SetValue(..)
            | Statement::SetIsolation(_)
            | Statement::SetIdentityInsert(..)
            | Statement::SetContext(_) => {
                self.set(s)?;
                Ok(())
            }
            Statement::Begin => self.begin(out),
            Statement::Commit => self.commit(out),
            Statement::Rollback(name) => self.rollback(name.as_deref(), out),
            Statement::Save(name) => self.save(name),
            Statement::Exec { result, name, args } => self.execute(result.as_deref(), name, args, out),
            Statement::ExecText(e) => {
                let (_, v) = self.evaluate(e)?;
                let Value::Text(text) = v else { return Ok(()) };
                self.nested(&text, Vec::new(), out)
            }
            Statement::Print(e) => {
                let (ty, v) = self.evaluate(e)?;
                let text = match crate::types::convert::convert(&v, ty, SqlType::max(crate::types::Kind::NVarChar), 0)?
                {
                    Value::Text(t) => t,
                    _ => " ".into(),
                };
                out.info(&SqlError::new(0, 0, 1, text));
                Ok(())
            }
            Statement::RaiseError(args) => self.raise(args, out),
            Statement::Throw(args) => self.throw(args),
            Statement::WaitFor(e) => {
                let (_, v) = self.evaluate(e)?;
                let Value::Text(t) = v else { return Ok(()) };
                let ticks = datetime::parse(&t, false).and_then(|p| p.time).ok_or_else(|| {
                    SqlError::new(148, 15, 1, format!("Incorrect time syntax in time string '{t}' used with WAITFOR."))
                })?;
                std::thread::sleep(Duration::from_nanos(ticks.cast_unsigned() * 100));
                out.done(None, false);
                Ok(())
            }
            Statement::Use(name) => self.use_database(name, out),
            Statement::Checkpoint => Ok(()),
            Statement::Kill(e) => {
                let (_, v) = self.evaluate(e)?;
                let Value::Integer(id) = v else { return Err(SqlError::syntax("KILL")) };
                if self.server.kill(|i, _| i == id) == 0 {
                    return Err(SqlError::new(6106, 16, 2, format!("Process ID {id} is not an active process ID.")));
                }
                Ok(())
            }
            Statement::CreateLogin { .. }
            | Statement::CreateUser { .. }
            | Statement::CreateRole(_)
            | Statement::Membership { .. }
            | Statement::Permission { .. } => {
                self.security(s)?;
                out.done(None, false);
                Ok(())
            }
            _ => {
                self.define(s, out)?;
                out.done(None, false);
                Ok(())
            }
        }
    }

    /// "SET Statements (Transact-SQL)": those that change what is modelled; those that are defaults already; no others.
    fn set(&mut self, s: &Statement) -> Result<()> {
        match s {
            Statement::SetIsolation(level) => {
                let to = Isolation::named(level);
                if to == Isolation::Snapshot
                    && self.isolation != Isolation::Snapshot
                    && self.transaction.as_ref().is_some_and(|t| t.open)
                {
                    let text = "Transaction failed in database because the transaction was not started in snapshot isolation: it cannot be changed to it.";
                    return Err(SqlError::new(3951, 16, 1, text));
                }
                self.isolation = to;
            }
            Statement::SetIdentityInsert(name, on) => {
                let table = catalog::table(self, name)?;
                if *on && self.identity_insert.is_some_and(|t| t != table.id) {
                    return Err(SqlError::new(
                        8107,
                        16,
                        1,
                        format!(
                            "IDENTITY_INSERT is already ON for another table. Cannot perform SET operation for table '{}'.",
                            table.name
                        ),
                    ));
                }
                self.identity_insert = on.then_some(table.id);
            }
            Statement::SetContext(e) => {
                let (_, v) = self.evaluate(e)?;
                self.context = if let Value::Blob(b) = v { Some(b) } else { None };
            }
            Statement::SetOption(names, on) => {
                for name in names.split(',') {
                    match name {
                        "nocount" => self.nocount = *on,
                        "xact_abort" => self.xact_abort = *on,
                        // Defaults of every modern connection; turning them off is another dialect.
                        "ansi_nulls"
                        | "ansi_padding"
                        | "ansi_warnings"
                        | "arithabort"
                        | "concat_null_yields_null"
                        | "quoted_identifier"
                        | "ansi_null_dflt_on"
                        | "ansi_defaults"
                            if *on => {}
                        // Off by default, and staying off.
                        "numeric_roundabort"
                        | "implicit_transactions"
                        | "cursor_close_on_commit"
                        | "fmtonly"
                        | "noexec"
                        | "parseonly"
                        | "showplan_all"
                        | "showplan_text"
                        | "remote_proc_transactions"
                        | "ansi_null_dflt_off"
                        | "statistics"
                            if !*on => {}
                        // Off changes the answer of no statement that is modelled.
                        "arithabort"
                        | "arithignore"
                        | "ansi_null_dflt_on"
                        | "ansi_warnings"
                        | "concat_null_yields_null"
                        | "ansi_nulls"
                        | "ansi_padding"
                        | "quoted_identifier"
                            if self.program.starts_with("TSQL") || self.program.is_empty() => {}
                        other => {
                            return Err(SqlError::unmodelled(format!(
                                "SET {other} {}",
                                if *on { "ON" } else { "OFF" }
                            )));
                        }
                    }
                }
            }
            Statement::SetValue(name, e) => {
                let (_, v) = self.evaluate(e)?;
                match (name.as_str(), &v) {
                    ("lock_timeout", Value::Integer(ms)) => {
                        self.lock_timeout = u64::try_from(*ms).ok().map(Duration::from_millis)
                    }
                    ("language", Value::Text(t))
                        if t.eq_ignore_ascii_case("us_english") || t.eq_ignore_ascii_case("english") => {}
                    ("dateformat", Value::Text(t)) if t.eq_ignore_ascii_case("mdy") => {}
                    ("datefirst", Value::Integer(7))
                    | ("deadlock_priority" | "textsize" | "query_governor_cost_limit", _)
                    | ("rowcount", Value::Integer(0)) => {}
                    _ => return Err(SqlError::unmodelled(format!("SET {name} to this value"))),
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A condition, outside of any query.
    fn test(&mut self, e: &Expr) -> Result<bool> {
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

    fn query(&mut self, q: &Query, out: &mut dyn Output) -> Result<()> {
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
            for i in 0..columns.len() {
                values.push(r.get::<_, Value>(i)?);
            }
            out.row(columns, &values);
            n += 1;
            row = rows.next()?;
        }
        Ok(n)
    }

    fn assign_last(&mut self, bound: &BoundQuery, params: Vec<Value>) -> Result<()> {
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

    /// Runs a batch inside this one: EXEC ('…'), sp_executesql.
    pub fn nested(&mut self, text: &str, variables: Vec<(String, SqlType, Value)>, out: &mut dyn Output) -> Result<()> {
        if self.nesting >= 32 {
            let text = "Maximum stored procedure, function, trigger, or view nesting level exceeded (limit 32).";
            return Err(SqlError::new(217, 16, 1, text));
        }
        let statements = crate::sql::parse_batch(text)?;
        let outer = std::mem::replace(&mut self.variables, variables);
        self.nesting += 1;
        let result = self.block(&statements, out);
        self.nesting -= 1;
        self.variables = outer;
        result.map(drop)
    }

    fn use_database(&mut self, name: &str, out: &mut dyn Output) -> Result<()> {
        let missing = || {
            SqlError::new(
                911,
                16,
                1,
                format!("Database '{name}' does not exist. Make sure that the name is entered correctly."),
            )
        };
        let db = self.server.database(name).ok_or_else(missing)?;
        let user = self.server.user_of(&db, &self.login).ok_or_else(|| {
            let text = format!("The server principal \"{}\" is not able to access the database \"{name}\" under the current security context.", self.login);
            SqlError::new(916, 14, 2, text)
        })?;
        if self.transaction.is_some() {
            return Err(SqlError::unmodelled("USE inside a transaction"));
        }
        out.database(&self.db.name, &db.name);
        self.c = db.open()?;
        self.db = db;
        self.user = user;
        Ok(())
    }

    /// RAISERROR: up to severity 10 it is words, from 11 an error.
    fn raise(&mut self, args: &[Expr], out: &mut dyn Output) -> Result<()> {
        let mut values = Vec::new();
        for a in args {
            let (ty, v) = self.evaluate(a)?;
            values.push(crate::types::convert::convert(&v, ty, SqlType::max(crate::types::Kind::NVarChar), 0)?);
        }
        let text = |i: usize| match values.get(i) {
            Some(Value::Text(t)) => t.clone(),
            _ => String::new(),
        };
        let mut message = text(0);
        for i in 3..values.len() {
            for mark in ["%s", "%d", "%i"] {
                if let Some(at) = message.find(mark) {
                    message.replace_range(at..at + 2, &text(i));
                    break;
                }
            }
        }
        let e = SqlError::new(50_000, text(1).parse().unwrap_or(16), text(2).parse().unwrap_or(1), message);
        if e.class <= 10 {
            out.info(&e);
            return Ok(());
        }
        Err(e)
    }

    fn throw(&mut self, args: &[Expr]) -> Result<()> {
        if args.is_empty() {
            let caught = self.caught.clone();
            return Err(caught.unwrap_or_else(|| {
                SqlError::new(
                    10_704,
                    15,
                    1,
                    "To rethrow an error, a THROW statement must be used inside a CATCH block.",
                )
            }));
        }
        let mut values = Vec::new();
        for a in args {
            values.push(self.evaluate(a)?.1);
        }
        match &values[..] {
            [Value::Integer(n), Value::Text(t), Value::Integer(s)] => {
                Err(SqlError::new(*n as i32, 16, *s as u8, t.clone()))
            }
            _ => Err(SqlError::syntax("THROW")),
        }
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

/// Errors after which the batch goes on: constraint violations, overflow, RAISERROR … ("XACT_ABORT": statement-terminating).
fn ends_statement_only(e: &SqlError) -> bool {
    matches!(e.number, 220 | 512 | 515 | 547 | 2601 | 2627 | 2628 | 8115 | 8134 | 8152 | 50_000 | 3701 | 2714)
}
