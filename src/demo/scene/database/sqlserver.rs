//! Northwind in the simulated SQL Server of the tests. It is a program of its own, built beside this one, and no part of
//! this one: the application speaks to it over pipes, the daemon over the network as to any server.

use super::{CUSTOMERS, DATABASE, FIRST_ORDER, ORDERS, PASSWORD, USER};
use crate::demo::scene::SceneError;
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout};

const NORTHWIND: &str = include_str!("../../../../packs/northwind/data/sqlserver-northwind.sql");
/// Names the simulator's program, where it is not beside this one.
const PROGRAM: &str = "TIDEMARK_SQLSERVER_SIM";

/// A running simulator. It ends with its standard input, and so with us.
pub struct SqlServer {
    process: Child,
    port: u16,
    pipes: Option<(std::process::ChildStdin, std::process::ChildStdout)>,
    /// The application goes before the daemon does: its end of the pipe is not the last one.
    _input: OwnedFd,
}

/// The application's connection: the simulator's console, which is told one batch after the other.
pub struct Owner {
    batches: ChildStdin,
    answers: tokio::io::BufReader<ChildStdout>,
}

impl Drop for SqlServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program() -> Result<PathBuf, SceneError> {
    if let Some(named) = std::env::var_os(PROGRAM) {
        return Ok(named.into());
    }
    let own = std::env::current_exe().map_err(|e| SceneError::io("find this program", e))?;
    let beside = own.with_file_name("sqlserver-sim");
    if beside.is_file() {
        return Ok(beside);
    }
    Err(SceneError::Statement(format!(
        "the simulated SQL Server is not at {}; in the repository, `make demo SOURCE=sqlserver` builds it \
         (elsewhere, {PROGRAM} names it)",
        beside.display()
    )))
}

impl SqlServer {
    /// Starts a simulator with an empty database. Blocks for a moment.
    ///
    /// # Errors
    /// If its program is not there or does not start.
    pub fn start() -> Result<Self, SceneError> {
        let mut command = Command::new(program()?);
        command.args(["--port", "0", "--database", DATABASE, "--snapshot-isolation", "--console"]);
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| SceneError::io("start the simulated SQL Server", e))?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(SceneError::Bug("a child without its pipes".into()));
        };
        let mut line = String::new();
        let mut output = BufReader::new(output);
        output.read_line(&mut line).map_err(|e| SceneError::io("listen to the simulated SQL Server", e))?;
        let kept = input.as_fd().try_clone_to_owned().map_err(|e| SceneError::io("keep a pipe open", e))?;
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        // It says nothing more before it is asked: the buffer is empty.
        let pipes = Some((input, output.into_inner()));
        let server = Self { process, port: port.unwrap_or(0), pipes, _input: kept };
        match server.port {
            0 => Err(SceneError::Statement("the simulated SQL Server did not tell its port".into())),
            _ => Ok(server),
        }
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The connection of the application that owns the data; there is one.
    ///
    /// # Errors
    /// If it was taken before.
    pub fn connect(&mut self) -> Result<Owner, SceneError> {
        let failed = |e| SceneError::io("talk to the simulated SQL Server", e);
        let taken = || SceneError::Bug("the simulator has one console, and it is taken".into());
        let (batches, answers) = self.pipes.take().ok_or_else(taken)?;
        Ok(Owner {
            batches: ChildStdin::from_std(batches).map_err(failed)?,
            answers: tokio::io::BufReader::new(ChildStdout::from_std(answers).map_err(failed)?),
        })
    }
}

impl Owner {
    /// Loads the sample data, grows it, makes the daemon's login, and enables change data capture.
    ///
    /// # Errors
    /// If a batch fails.
    pub async fn fill(&mut self) -> Result<(), SceneError> {
        let mut batch = String::new();
        for line in NORTHWIND.lines().chain(["go"]) {
            if line.trim().eq_ignore_ascii_case("go") {
                if !batch.trim().is_empty() {
                    self.execute(&batch).await?;
                }
                batch.clear();
            } else {
                batch.push_str(line);
                batch.push('\n');
            }
        }
        for sql in grow().into_iter().chain(grants()).chain(capture()) {
            self.execute(&sql).await?;
        }
        // The script turns off what the application counts by.
        self.execute("SET NOCOUNT OFF").await?;
        // New orders have numbers of the application's own.
        self.execute("SET IDENTITY_INSERT \"Orders\" ON").await?;
        Ok(())
    }

    /// Runs a batch; how many rows its last statement changed.
    ///
    /// # Errors
    /// If it fails.
    pub async fn execute(&mut self, sql: &str) -> Result<u64, SceneError> {
        let mut answer = String::new();
        let failed = |e| SceneError::io("talk to the simulated SQL Server", e);
        self.batches.write_all(sql.as_bytes()).await.map_err(failed)?;
        self.batches.write_all(b"\nGO\n").await.map_err(failed)?;
        self.batches.flush().await.map_err(failed)?;
        self.answers.read_line(&mut answer).await.map_err(failed)?;
        let rows = answer.trim().strip_prefix("ok ").and_then(|rest| rest.split(' ').next()?.parse().ok());
        rows.ok_or_else(|| SceneError::Statement(answer.trim().trim_start_matches("error ").to_owned()))
    }
}

/// A table of numbers from 0 on; at least `ORDERS` of them.
fn numbers() -> String {
    let digits = (0..10).map(|d| format!("select {d} as d")).collect::<Vec<_>>().join(" union all ");
    let sum = (0..5).map(|p| format!("t{p}.d * {}", 10_u32.pow(p))).collect::<Vec<_>>().join(" + ");
    let tables = (0..5).map(|p| format!("({digits}) t{p}")).collect::<Vec<_>>().join(" cross join ");
    format!("(select {sum} as n from {tables})")
}

/// The n-th of some words.
fn pick(n: &str, words: &[&str]) -> String {
    let cases: Vec<String> = words.iter().enumerate().map(|(at, word)| format!("when {at} then N'{word}'")).collect();
    format!("case {n} % {} {} end", words.len(), cases.join(" "))
}

/// The key of the added customer with a number, as SQL.
fn key(n: &str) -> String {
    format!("'Z' + convert(varchar(4), cast({n} as binary(2)), 2)")
}

fn grow() -> [String; 4] {
    let numbers = numbers();
    let first = pick("n", &["North", "Blue", "Grand", "Old", "Silver", "Green"]);
    let second = pick("n", &["Traders", "Foods", "Delikatessen", "Mercado", "Supplies"]);
    let city = pick("n", &["London", "Berlin", "Madrid", "Paris", "Lisboa", "Bern"]);
    let country = pick("n", &["UK", "Germany", "Spain", "France", "Portugal", "Switzerland"]);
    let (own, of_order) = (key("n"), key(&format!("(1 + n % {CUSTOMERS})")));
    [
        format!(
            r#"insert into "Customers" ("CustomerID", "CompanyName", "ContactName", "ContactTitle", "Address", "City", "Country", "Phone")
            select {own}, concat({first}, N' ', {second}, N' ', n), concat(N'Contact ', n), N'Buyer',
                   concat(n, N' Harbour Street'), {city}, {country}, concat(N'+00 ', 1000000 + n)
              from {numbers} s where n between 1 and {CUSTOMERS}"#
        ),
        r#"SET IDENTITY_INSERT "Orders" ON"#.into(),
        format!(
            r#"insert into "Orders" ("OrderID", "CustomerID", "EmployeeID", "OrderDate", "RequiredDate", "ShipVia", "Freight", "ShipName", "ShipCity", "ShipCountry")
            select {FIRST_ORDER} + n, {of_order}, 1 + n % 9, dateadd(minute, n, '2026-01-01'), dateadd(minute, n, '2026-02-01'),
                   1 + n % 3, (n % 9973) / 100.0, N'Somebody', {city}, {country}
              from {numbers} s where n < {ORDERS}"#
        ),
        r#"SET IDENTITY_INSERT "Orders" OFF"#.into(),
    ]
}

fn grants() -> [String; 3] {
    [
        format!("CREATE LOGIN {USER} WITH PASSWORD = N'{PASSWORD}', CHECK_POLICY = OFF"),
        format!("CREATE USER {USER} FOR LOGIN {USER}"),
        format!("GRANT SELECT ON SCHEMA::dbo TO {USER}; GRANT VIEW DATABASE STATE TO {USER}"),
    ]
}

/// Change data capture, for the tables that the pack reads.
fn capture() -> Vec<String> {
    let tables = [
        "Customers",
        "Suppliers",
        "Employees",
        "EmployeeTerritories",
        "Territories",
        "Region",
        "Categories",
        "Products",
        "Shippers",
        "Orders",
        "Order Details",
    ];
    let enable = |table: &str| {
        format!("EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'{table}', @role_name = NULL")
    };
    let mut all = vec!["EXEC sys.sp_cdc_enable_db".to_owned()];
    all.extend(tables.map(enable));
    all.push(format!("GRANT SELECT ON SCHEMA::cdc TO {USER}"));
    all
}
