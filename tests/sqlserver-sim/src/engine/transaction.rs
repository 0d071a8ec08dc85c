//! Transactions: "BEGIN TRANSACTION", "SAVE TRANSACTION", "SET TRANSACTION ISOLATION LEVEL".
//!
//! READ COMMITTED reads the last committed state at each statement and never waits for writers (as with
//! READ_COMMITTED_SNAPSHOT; without it the product would wait for row locks). SNAPSHOT pins the state at the first access.
//! REPEATABLE READ and SERIALIZABLE take the database's one write turn at the first access, a coarser lock than the
//! product's. A writer holds that turn until its transaction ends.

use super::capture;
use super::session::{Output, Session};
use crate::error::{Result, SqlError};
use crate::types::datetime;
use std::time::Duration;

/// Isolation levels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isolation {
    /// The default, and READ UNCOMMITTED, which sees no uncommitted rows here.
    ReadCommitted,
    /// REPEATABLE READ and SERIALIZABLE.
    Locking,
    /// SNAPSHOT.
    Snapshot,
}

impl Isolation {
    /// From the words of SET.
    pub fn named(words: &str) -> Self {
        match words {
            "snapshot" => Self::Snapshot,
            "repeatable read" | "serializable" => Self::Locking,
            _ => Self::ReadCommitted,
        }
    }
}

/// An open transaction.
#[derive(Debug)]
pub struct Transaction {
    /// Number in the log.
    pub id: i64,
    /// `@@TRANCOUNT`
    pub depth: i64,
    /// Ticks at BEGIN.
    pub begun: i64,
    /// SQLite has a transaction open.
    pub open: bool,
    /// Something was written.
    pub wrote: bool,
}

/// How long a writer waits for its turn without SET LOCK_TIMEOUT. The product waits for ever; a test wants to know.
const PATIENCE: Duration = Duration::from_secs(60);

impl Session {
    /// Makes sure that reads see what the isolation level says.
    pub fn read(&mut self) -> Result<()> {
        let (isolation, id) = (self.isolation, self.id);
        let timeout = self.lock_timeout.unwrap_or(PATIENCE);
        let Some(t) = &mut self.transaction else { return Ok(()) };
        if t.open {
            return Ok(());
        }
        match isolation {
            Isolation::ReadCommitted => {}
            Isolation::Snapshot => {
                self.c.execute_batch("BEGIN")?;
                t.open = true;
            }
            Isolation::Locking => {
                self.db.lock(id, timeout)?;
                self.c.execute_batch("BEGIN IMMEDIATE")?;
                (t.open, t.wrote) = (true, true);
            }
        }
        Ok(())
    }

    /// Runs `f` as one atomic statement that may write: inside the open transaction, or in one of its own.
    pub fn write<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let own = self.transaction.is_none();
        if own {
            self.transaction = Some(Transaction {
                id: self.db.next_transaction(),
                depth: 1,
                begun: datetime::now(),
                open: false,
                wrote: false,
            });
        }
        let result = self.begin_write().and_then(|()| {
            self.c.execute_batch("SAVEPOINT statement")?;
            match f(self) {
                Ok(v) => {
                    self.c.execute_batch("RELEASE statement")?;
                    Ok(v)
                }
                // A cancelled statement takes its whole transaction with it in SQLite.
                Err(e) if self.c.is_autocommit() => {
                    self.transaction = None;
                    self.db.unlock(self.id);
                    Err(e)
                }
                Err(e) => {
                    // A statement that fails leaves nothing behind.
                    self.c.execute_batch("ROLLBACK TO statement; RELEASE statement")?;
                    Err(e)
                }
            }
        });
        if own {
            return match result {
                Ok(v) => self.finish().map(|()| v),
                Err(e) => {
                    self.abandon();
                    Err(e)
                }
            };
        }
        result
    }

    fn begin_write(&mut self) -> Result<()> {
        if self.secondary && self.db.id > 4 {
            let text = format!("Failed to update database \"{}\" because the database is read-only.", self.db.name);
            return Err(SqlError::new(3906, 16, 1, text));
        }
        let id = self.id;
        let timeout = self.lock_timeout.unwrap_or(PATIENCE);
        let Some(t) = &mut self.transaction else { return Ok(()) };
        if !t.wrote {
            self.db.lock(id, timeout)?;
            if !t.open
                && let Err(e) = self.c.execute_batch("BEGIN IMMEDIATE")
            {
                self.db.unlock(id);
                return Err(e.into());
            }
            t.open = true;
        }
        let number = t.id;
        let first = !t.wrote;
        t.wrote = true;
        let sql = if first {
            "UPDATE core_current SET tx = ?1, command = 1"
        } else {
            "UPDATE core_current SET tx = ?1, command = command + 1"
        };
        // A snapshot that is older than the last commit cannot write: 3960 (the caller rolls back).
        self.c.prepare_cached(sql)?.execute([number])?;
        Ok(())
    }

    /// Commits what is open in SQLite, giving the transaction its place in the log.
    fn finish(&mut self) -> Result<()> {
        let Some(t) = self.transaction.take() else { return Ok(()) };
        let result = if t.wrote { capture::commit(self, &t) } else { Ok(()) };
        if t.open {
            let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
            self.c.execute_batch(end)?;
        }
        self.db.unlock(self.id);
        if t.wrote {
            self.server.agent.wake();
        }
        result
    }

    fn abandon(&mut self) {
        if let Some(t) = self.transaction.take()
            && t.open
            && let Err(e) = self.c.execute_batch("ROLLBACK")
        {
            // Some errors have rolled back already; then there is nothing to do.
            let _ = e;
        }
        self.db.unlock(self.id);
    }

    /// BEGIN TRANSACTION
    pub fn begin(&mut self, out: &mut dyn Output) -> Result<()> {
        match &mut self.transaction {
            Some(t) => t.depth += 1,
            None => {
                let id = self.db.next_transaction();
                self.transaction =
                    Some(Transaction { id, depth: 1, begun: datetime::now(), open: false, wrote: false });
                out.transaction(id, Some(true));
            }
        }
        Ok(())
    }

    /// COMMIT: the outermost one commits.
    pub fn commit(&mut self, out: &mut dyn Output) -> Result<()> {
        let Some(t) = &mut self.transaction else {
            return Err(SqlError::new(
                3902,
                16,
                1,
                "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION.",
            ));
        };
        if t.depth > 1 {
            t.depth -= 1;
            return Ok(());
        }
        let id = t.id;
        self.finish()?;
        out.transaction(id, Some(false));
        Ok(())
    }

    /// ROLLBACK: all of it, or to a savepoint.
    pub fn rollback(&mut self, name: Option<&str>, out: &mut dyn Output) -> Result<()> {
        if self.transaction.is_none() {
            return Err(SqlError::new(
                3903,
                16,
                1,
                "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION.",
            ));
        }
        if let Some(name) = name {
            let point = savepoint(name);
            return match self.c.execute_batch(&format!("ROLLBACK TO {point}")) {
                Ok(()) => Ok(()),
                Err(_) => Err(SqlError::new(
                    6401,
                    16,
                    1,
                    format!("Cannot roll back {name}. No transaction or savepoint of that name was found."),
                )),
            };
        }
        self.rollback_all(out);
        Ok(())
    }

    /// Rolls back and tells the client.
    pub fn rollback_all(&mut self, out: &mut dyn Output) {
        let id = self.transaction.as_ref().map_or(0, |t| t.id);
        self.abandon();
        out.transaction(id, None);
    }

    /// SAVE TRANSACTION
    pub fn save(&mut self, name: &str) -> Result<()> {
        if self.transaction.is_none() {
            return Err(SqlError::new(
                628,
                16,
                0,
                "Cannot issue SAVE TRANSACTION when there is no active transaction.",
            ));
        }
        self.begin_write()?;
        self.c.execute_batch(&format!("SAVEPOINT {}", savepoint(name)))?;
        Ok(())
    }
}

fn savepoint(name: &str) -> String {
    format!("\"s_{}\"", name.to_ascii_lowercase().replace('"', ""))
}
