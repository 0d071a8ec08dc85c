//! SET, USE, RAISERROR, THROW.

use super::catalog;
use super::session::{Output, Session};
use super::transaction::Isolation;
use crate::error::{Result, SqlError};
use crate::sql::ast::{Expr, Statement};
use crate::types::SqlType;
use rusqlite::types::Value;
use std::time::Duration;

impl Session {
    /// "SET Statements (Transact-SQL)": those that change what is modelled; those that are defaults already; no others.
    pub(crate) fn set(&mut self, s: &Statement) -> Result<()> {
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

    pub(crate) fn use_database(&mut self, name: &str, out: &mut dyn Output) -> Result<()> {
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
    pub(crate) fn raise(&mut self, args: &[Expr], out: &mut dyn Output) -> Result<()> {
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

    pub(crate) fn throw(&mut self, args: &[Expr]) -> Result<()> {
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
}
