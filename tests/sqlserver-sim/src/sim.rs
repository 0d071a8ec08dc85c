//! The control handle: a server in this process, and what a test does to it behind the client's back.

use crate::engine::agent::Agent;
use crate::engine::database::{Database, Identity, locked, state};
use crate::engine::server::{Fault, Server};
use crate::engine::session::{Meta, Output, Session};
use crate::engine::{capture, tracking};
use crate::error::{Result, SqlError};
use crate::options::Options;
use crate::tds::connection::serve;
use crate::types::{Kind, SqlType, datetime};
use rusqlite::types::Value;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A running simulated server. It ends when the handle is dropped.
pub struct Sim {
    server: Arc<Server>,
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

/// A copy of a database, with its place in the log.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    database: String,
    jobs: bool,
}

fn fault(e: impl std::fmt::Display) -> SqlError {
    SqlError::new(49_998, 16, 1, format!("Fault inside the simulator: {e}"))
}

async fn accept(server: Arc<Server>, listener: tokio::net::TcpListener, secondary: bool) {
    while let Ok((socket, _)) = listener.accept().await {
        let server = server.clone();
        tokio::spawn(async move {
            // A client that breaks off is no fault of the server; its connection simply ends.
            let _ = serve(server, socket, secondary).await;
        });
    }
}

impl Sim {
    /// Starts a server on 127.0.0.1 with threads of its own.
    ///
    /// Fails if the port is taken, or if TLS is on and the certificate cannot be read.
    pub fn start(options: Options) -> Result<Self> {
        let port = options.port;
        if let Some(certificate) = &options.certificate {
            crate::tds::tls::acceptor(certificate, false).map_err(fault)?;
        }
        let server = Server::new(options)?;
        Agent::start(&server).map_err(fault)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(256)
            .thread_name("sqlserver-sim")
            .enable_all()
            .build()
            .map_err(fault)?;
        // Bound without the runtime, so that a server can be started from within another one.
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).map_err(fault)?;
        listener.set_nonblocking(true).map_err(fault)?;
        let listener = {
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(fault)?
        };
        let address = listener.local_addr().map_err(fault)?;
        runtime.spawn(accept(server.clone(), listener, false));
        Ok(Self { server, address, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes the server the primary of an availability group with one secondary, which takes connections with read-only
    /// intent alone, and answers the secondary's port. Its data are the primary's at every moment: what a replica has not
    /// got yet cannot be played. Who comes to the primary with read-only intent is led to the secondary, as by a listener
    /// with a routing list: "Connect to an Always On availability group listener".
    pub fn secondary(&self) -> Result<u16> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(fault)?;
        listener.set_nonblocking(true).map_err(fault)?;
        let port = listener.local_addr().map_err(fault)?.port();
        let runtime = self.runtime.as_ref().ok_or_else(|| fault("no runtime"))?;
        let _context = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(fault)?;
        runtime.spawn(accept(self.server.clone(), listener, true));
        self.server.set_secondary(port);
        Ok(port)
    }

    /// Makes the server take this token of Microsoft Entra ID for a login, for so long. Nothing in it is read: whether it was
    /// signed, and for whom, is a matter between the product and Entra.
    pub fn issue_token(&self, token: &str, login: &str, valid: Duration) {
        self.server.issue_token(token, login, valid);
    }

    /// (login, whether everything is encrypted) of all connections.
    pub fn encrypted(&self) -> Vec<(String, bool)> {
        self.server.encryption_list()
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Runs T-SQL as `sa` in a database, without the network; answers the rows of all results as text, NULL as `None`.
    ///
    /// Fails with the first error.
    pub fn execute(&self, database: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let login = self.server.login("sa").ok_or_else(|| fault("no sa"))?;
        let mut session = Session::open(&self.server, &login, database)?;
        let mut rows = Rows::default();
        session.batch(sql, &mut rows);
        match rows.error {
            Some(e) => Err(e),
            None => Ok(rows.rows),
        }
    }

    /// Runs a script with `GO` separators as `sa`, as `sqlcmd` does. The first failing batch ends it; the error names the
    /// line of the script where that batch begins.
    pub fn run_script(&self, database: &str, script: &str) -> Result<()> {
        let login = self.server.login("sa").ok_or_else(|| fault("no sa"))?;
        let mut session = Session::open(&self.server, &login, database)?;
        for (line, batch) in batches(script) {
            let mut rows = Rows::default();
            session.variables.clear();
            session.batch(&batch, &mut rows);
            if let Some(mut e) = rows.error {
                e.message = format!("in the batch at line {line}: {}", e.message);
                return Err(e);
            }
        }
        Ok(())
    }

    /// A session of `sa` that stays: settings and transactions last from one call to the next.
    pub fn console(&self, database: &str) -> Result<Console> {
        let login = self.server.login("sa").ok_or_else(|| fault("no sa"))?;
        Ok(Console { session: Session::open(&self.server, &login, database)? })
    }

    fn database(&self, name: &str) -> Result<Arc<Database>> {
        self.server
            .database(name)
            .ok_or_else(|| SqlError::new(911, 16, 1, format!("Database '{name}' does not exist.")))
    }

    /// Stops the capture job of a database: the change tables stand still.
    pub fn stop_capture(&self, database: &str) -> Result<()> {
        self.server.agent.run_capture(self.database(database)?.id, false);
        Ok(())
    }

    /// Starts the capture job again.
    pub fn start_capture(&self, database: &str) -> Result<()> {
        self.server.agent.run_capture(self.database(database)?.id, true);
        Ok(())
    }

    /// Stops SQL Server Agent with all its jobs.
    pub fn stop_agent(&self) {
        self.server.agent.run_service(false);
    }

    /// Starts SQL Server Agent.
    pub fn start_agent(&self) {
        self.server.agent.run_service(true);
    }

    /// Removes the jobs of a database, as after a failover to a server on which they were never made.
    pub fn drop_jobs(&self, database: &str) -> Result<()> {
        let id = self.database(database)?.id;
        self.server.agent.remove_job(id, "capture");
        self.server.agent.remove_job(id, "cleanup");
        Ok(())
    }

    /// The log reader leaves transactions younger than `lag` alone. Its scans are shown as done all the same, which the
    /// product does not do: whoever trusts them must be tested with a long [`crate::Options::poll`] instead.
    pub fn set_lag(&self, database: &str, lag: Duration) -> Result<()> {
        self.server.agent.set_lag(self.database(database)?.id, lag);
        Ok(())
    }

    /// Makes the scans in `sys.dm_cdc_log_scan_sessions` so much older, as if the job had stood still since.
    pub fn age_scans(&self, database: &str, by: Duration) -> Result<()> {
        self.server.agent.age_scans(self.database(database)?.id, by);
        Ok(())
    }

    /// Makes every log scan fail with an error, which `sys.dm_cdc_errors` then shows; `None` heals it.
    pub fn break_log_scan(&self, database: &str, error: Option<(i32, &str)>) -> Result<()> {
        let id = self.database(database)?.id;
        self.server.agent.set_fault(id, error.map(|(n, t)| (n, t.to_owned())));
        Ok(())
    }

    /// One log scan, now. Answers the number of transactions that came into the change tables.
    pub fn scan(&self, database: &str) -> Result<i64> {
        self.server.agent.scan(&*self.database(database)?, self.server.options.quirks)
    }

    /// Waits until everything committed so far is in the change tables.
    ///
    /// Fails when `timeout` is over.
    pub fn wait_captured(&self, database: &str, timeout: Duration) -> Result<()> {
        let db = self.database(database)?;
        let c = db.borrow()?;
        let last: i64 = c.query_row("SELECT ifnull(max(seq), 0) FROM core_tx", [], |r| r.get(0))?;
        let until = std::time::Instant::now() + timeout;
        while state(&c, "scanned")? < last {
            if std::time::Instant::now() > until {
                return Err(fault("the change tables did not catch up in time"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// An idle log reader writes its empty row into `cdc.lsn_time_mapping`, now.
    pub fn heartbeat(&self, database: &str) -> Result<()> {
        let db = self.database(database)?;
        db.lock(-db.id, Duration::from_secs(10))?;
        let result = db.borrow().and_then(|c| capture::heartbeat(&c));
        db.unlock(-db.id);
        result
    }

    /// The clean-up job: change rows committed more than `retention` ago go, and so do versions of change tracking.
    /// Answers the number of change rows and time mappings that went.
    pub fn run_cleanup(&self, database: &str, retention: Duration) -> Result<usize> {
        let db = self.database(database)?;
        let before = datetime::now() - i64::try_from(retention.as_nanos() / 100).unwrap_or(0);
        tracking::clean(&db, before)?;
        // `datetime` is rounded to 1/300 s; what was committed just now counts as old for a retention of nothing.
        capture::clean(&db, before + if retention.is_zero() { datetime::SECOND } else { 0 })
    }

    /// Copies a database aside.
    pub fn backup(&self, database: &str) -> Result<Backup> {
        let db = self.database(database)?;
        let n = self.server.batches.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let path = self.server.directory().join(format!("backup-{}-{n}.db", db.id));
        let c = db.open()?;
        c.execute("VACUUM INTO ?1", [path.display().to_string()])?;
        let jobs = self.server.agent.jobs().iter().any(|j| j.database == db.id);
        Ok(Backup { path, database: db.name.clone(), jobs })
    }

    /// Puts a copy back: RESTORE … WITH REPLACE, KEEP_CDC. All connections to the database end; the log goes on from where
    /// the copy was made, so that LSNs are given out a second time; the database has a new create date and recovery fork.
    pub fn restore(&self, backup: &Backup) -> Result<()> {
        let db = self.database(&backup.database)?;
        self.server.kill(|_, _| true);
        db.lock(-db.id, Duration::from_secs(10))?;
        let result = (|| {
            let from = rusqlite::Connection::open(&backup.path)?;
            let mut to = db.open()?;
            let copy = rusqlite::backup::Backup::new(&from, &mut to)?;
            copy.run_to_completion(1000, Duration::ZERO, None)?;
            Ok(())
        })();
        db.unlock(-db.id);
        let new = Identity::new();
        {
            let mut identity = locked(&db.identity);
            let guid = identity.guid.clone();
            *identity = Identity { guid, ..new };
        }
        locked(&db.identities).clear();
        if backup.jobs {
            self.server.agent.add_jobs(db.id);
        }
        result
    }

    /// Ends all client connections; answers how many there were.
    pub fn kill_connections(&self) -> usize {
        self.server.kill(|_, _| true)
    }

    /// Ends the connections of one program (the application name of the connection string).
    pub fn kill_program(&self, program: &str) -> usize {
        self.server.kill(|_, e| e.program == program)
    }

    /// Number of client connections.
    pub fn connections(&self) -> usize {
        self.server.session_list().len()
    }

    /// Texts of the batches and parameterised statements received so far.
    pub fn statements(&self) -> Vec<String> {
        self.server.statements()
    }

    /// How many of them contain a text, any case.
    pub fn count_statements(&self, part: &str) -> usize {
        let part = part.to_lowercase();
        self.server.statements().iter().filter(|s| s.to_lowercase().contains(&part)).count()
    }

    /// Forgets the texts.
    pub fn clear_statements(&self) {
        self.server.clear_statements();
    }

    /// Answers the next `times` statements that contain `part`, after `skip` of them, with an error instead of running them
    /// (1205 deadlock, 40613 unavailable, 9002 log full …). 1205 and its like also roll the transaction back.
    pub fn fail(&self, part: &str, error: SqlError, skip: u32, times: u32) {
        self.server.plan(Fault { matching: part.into(), error, skip, times });
    }

    /// Drops all planned errors.
    pub fn clear_failures(&self) {
        self.server.clear_faults();
    }

    /// Bytes of the commit LSN that the next transaction of a database will at least have; for assertions.
    pub fn log_end(&self, database: &str) -> Result<Vec<u8>> {
        let db = self.database(database)?;
        let c = db.borrow()?;
        Ok(crate::log::lsn(state(&c, "record")?))
    }
}

/// See [`Sim::console`].
pub struct Console {
    session: Session,
}

impl Console {
    /// Runs a batch; answers how many rows its last statement changed or gave, and the first cell of all results.
    ///
    /// Fails with the first error.
    pub fn run(&mut self, sql: &str) -> Result<(u64, Option<String>)> {
        let mut rows = Rows::default();
        self.session.variables.clear();
        self.session.batch(sql, &mut rows);
        match rows.error {
            Some(e) => Err(e),
            None => Ok((rows.count, rows.rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten())),
        }
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.server.agent.shut_down();
        self.server.kill(|_, _| true);
        if let Some(r) = self.runtime.take() {
            // Statements that still run are not waited for.
            r.shutdown_background();
        }
    }
}

/// Collects results as text.
#[derive(Default)]
struct Rows {
    rows: Vec<Vec<Option<String>>>,
    /// Of the last statement that had one.
    count: u64,
    error: Option<SqlError>,
}

impl Output for Rows {
    fn columns(&mut self, _: &[Meta]) {}

    fn row(&mut self, columns: &[Meta], row: &[Value]) {
        let text = |(c, v): (&Meta, &Value)| {
            let style = match c.ty.kind {
                Kind::Float | Kind::Real => 3,
                Kind::Money | Kind::SmallMoney => 2,
                Kind::Binary | Kind::VarBinary | Kind::Image | Kind::RowVersion => 1,
                Kind::DateTime | Kind::SmallDateTime => 121,
                _ => 0,
            };
            match crate::types::convert::convert(v, c.ty, SqlType::max(Kind::NVarChar), style) {
                Ok(Value::Text(t)) => Some(t),
                _ => None,
            }
        };
        self.rows.push(columns.iter().zip(row).map(text).collect());
    }

    fn done(&mut self, count: Option<u64>, _: bool) {
        self.count = count.unwrap_or(self.count);
    }

    fn info(&mut self, _: &SqlError) {}

    fn error(&mut self, error: &SqlError) {
        self.error.get_or_insert_with(|| error.clone());
    }

    fn transaction(&mut self, _: i64, _: Option<bool>) {}

    fn database(&mut self, _: &str, _: &str) {}

    fn return_value(&mut self, _: &str, _: SqlType, _: &Value) {}

    fn return_status(&mut self, _: i32) {}
}

/// Batches of a script with the line each begins at: lines that are `GO` and nothing else separate them.
fn batches(script: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let (mut text, mut start) = (String::new(), 1);
    for (i, line) in script.lines().enumerate() {
        if line.trim().eq_ignore_ascii_case("go") {
            out.push((start, std::mem::take(&mut text)));
            start = i + 2;
        } else {
            text.push_str(line);
            text.push('\n');
        }
    }
    out.push((start, text));
    out.retain(|(_, t)| !t.trim().is_empty());
    out
}
