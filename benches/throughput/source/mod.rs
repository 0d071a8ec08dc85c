//! The vendor's database, and the tools that show how fast it can give its rows away.

mod mysql;
mod postgres;
mod sqlserver;

use crate::Failure;
use crate::process::{ended_children_cpu, peak_memory};
use crate::table::Run;
use std::process::Command;
use std::time::{Duration, Instant};
use tidemark_throwaway::MysqlFlavour;

pub const DATABASE: &str = "shop";
pub const USER: &str = "tidemark";

/// The servers that the benchmark runs on.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Server {
    Postgres,
    Mysql,
    Mariadb,
    /// The simulator of the tests.
    Sqlserver,
}

/// A backlog in the log.
pub struct Backlog {
    pub changes: u64,
    pub transactions: u64,
    /// The log's head behind it.
    pub end: String,
}

/// What the servers differ in. The table is `customers`: 15 columns of the kinds that such a table has, about 450 bytes a
/// row as text.
pub trait Vendor {
    /// Name and version.
    fn version(&self) -> Result<String, Failure>;

    /// The lines of a tenant's `[source]` that are the vendor's own, and the engine's table.
    fn engine(&self, tenant: &str) -> String;

    /// Whether the table's JSON column has a type of its own.
    fn has_json(&self) -> bool {
        true
    }

    /// Runs SQL as administrator.
    fn sql(&self, sql: &str) -> Result<String, Failure>;

    /// CPU of the server, all its processes.
    fn cpu(&self) -> Duration;

    /// Bytes of a row as the vendor's tool writes it, on average, in words.
    fn row_bytes(&self, rows: u64) -> Result<String, Failure>;

    /// The vendor's tool that reads the whole table, where there is one.
    fn whole_table(&self) -> Option<(&'static str, Command)>;

    /// From here on the log is kept for the vendor's reader of the log.
    fn keep_log(&self) -> Result<(), Failure>;

    /// The vendor's tool that reads the log, where there is one.
    fn log_reader(&self, backlog: &Backlog) -> Result<Option<(&'static str, Command)>, Failure>;

    /// The log need not be kept for it any more.
    fn log_was_read(&self) -> Result<(), Failure>;

    /// Writes changes of many transactions: 60 % inserts, 36 % updates, 4 % deletes, each of another row.
    fn write_backlog(&self, rows: u64, changes: u64, transactions: u64) -> Result<Backlog, Failure>;

    /// Updates every row in one transaction.
    fn write_giant(&self) -> Result<Backlog, Failure>;

    /// Whether the server knows that a tenant needs nothing before this place any more.
    fn is_confirmed(&self, tenant: &str, place: &str) -> Result<bool, Failure>;

    /// A tenant will not come back: what the server keeps for it goes.
    fn forget(&self, tenant: &str) -> Result<(), Failure>;
}

/// The database with its table.
pub struct Source {
    vendor: Box<dyn Vendor>,
    pub rows: u64,
}

impl std::ops::Deref for Source {
    type Target = dyn Vendor;

    fn deref(&self) -> &Self::Target {
        &*self.vendor
    }
}

impl Source {
    pub fn start(server: Server, rows: u64) -> Result<Self, Failure> {
        let vendor: Box<dyn Vendor> = match server {
            Server::Postgres => Box::new(postgres::Postgres::start(rows)?),
            Server::Mysql => Box::new(mysql::Mysql::start(MysqlFlavour::MySql, rows)?),
            Server::Mariadb => Box::new(mysql::Mysql::start(MysqlFlavour::MariaDb, rows)?),
            Server::Sqlserver => Box::new(sqlserver::SqlServer::start(rows)?),
        };
        Ok(Self { vendor, rows })
    }

    /// Number of a query's single answer.
    pub fn number(&self, sql: &str) -> Result<u64, Failure> {
        Ok(self.sql(sql)?.parse()?)
    }

    /// Runs a tool to its end and accounts for it.
    fn limit(&self, name: &str, rows: u64, mut command: Command) -> Result<Run, Failure> {
        let (children, server, begun) = (ended_children_cpu(), self.cpu(), Instant::now());
        let mut child = command.spawn()?;
        let mut memory = 0;
        let (status, wall) = loop {
            memory = memory.max(peak_memory(child.id()));
            match child.try_wait()? {
                Some(status) => break (status, begun.elapsed()),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        if !status.success() {
            return Err(format!("{name}: {status}").into());
        }
        let client = ended_children_cpu() - children;
        // The session's own process leaves a moment later.
        std::thread::sleep(Duration::from_millis(100));
        Ok(Run { name: name.into(), rows, wall, client, server: self.cpu() - server, crm: None, memory })
    }

    /// The whole table by the vendor's tool: the best of `times`, after one that warms the caches.
    pub fn copy(&self, times: usize) -> Result<Option<Run>, Failure> {
        let mut best: Option<Run> = None;
        for turn in 0..=times {
            let Some((name, command)) = self.whole_table() else { return Ok(None) };
            let run = self.limit(name, self.rows, command)?;
            if turn > 0 && best.as_ref().is_none_or(|best| run.wall < best.wall) {
                best = Some(run);
            }
        }
        Ok(best)
    }

    /// The backlog by the vendor's tool.
    pub fn receive(&self, backlog: &Backlog) -> Result<Option<Run>, Failure> {
        let Some((name, command)) = self.log_reader(backlog)? else { return Ok(None) };
        let run = self.limit(name, backlog.changes, command)?;
        self.log_was_read()?;
        Ok(Some(run))
    }
}
