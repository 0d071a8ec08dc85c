//! The running of batches: control of flow, and which errors end what.

use super::session::{Flow, Output, Session};
use crate::error::{Result, SqlError};
use crate::sql::ast::Statement;
use crate::types::{SqlType, datetime};
use rusqlite::types::Value;
use std::time::Duration;

impl Session {
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
    pub(crate) fn failed(&mut self, e: &SqlError, out: &mut dyn Output) {
        self.last_error = e.number;
        let doomed = matches!(e.number, 1205 | 3960 | 3961) || e.class >= 20 || (self.xact_abort && e.class > 10);
        if doomed && self.transaction.is_some() {
            self.rollback_all(out);
        }
    }

    /// Statements of a block, where the first error leaves the block (it is inside TRY, or the batch ends anyway).
    pub(crate) fn block(&mut self, list: &[Statement], out: &mut dyn Output) -> Result<Flow> {
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
    pub(crate) fn simple(&mut self, s: &Statement, out: &mut dyn Output) -> Result<()> {
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
}

/// Errors after which the batch goes on: constraint violations, overflow, RAISERROR … ("XACT_ABORT": statement-terminating).
fn ends_statement_only(e: &SqlError) -> bool {
    matches!(e.number, 220 | 512 | 515 | 547 | 2601 | 2627 | 2628 | 8115 | 8134 | 8152 | 50_000 | 3701 | 2714)
}
