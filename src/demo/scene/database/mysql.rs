//! Northwind in a throwaway MariaDB or MySQL. The application speaks through the server's own SQL client: the program
//! needs no second driver for the sake of its demo.

use super::{CUSTOMERS, DATABASE, FIRST_ORDER, ORDERS, PASSWORD, USER};
use crate::demo::scene::SceneError;
use std::process::Stdio;
use tidemark_throwaway::{MysqlCluster, MysqlFlavour, MysqlOptions};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};

const NORTHWIND: &str = include_str!("../../../../packs/northwind/data/mysql-northwind.sql");

/// A running server.
pub struct Mysql {
    cluster: MysqlCluster,
}

/// The application's connection: an SQL client that is told one statement after the other.
pub struct Owner {
    client: Child,
    statements: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Mysql {
    /// Starts an empty server. Blocks for a second or two.
    ///
    /// # Errors
    /// If it is not installed or does not start.
    pub fn start(flavour: MysqlFlavour) -> Result<Self, SceneError> {
        Ok(Self { cluster: MysqlCluster::start(MysqlOptions::new(flavour))? })
    }

    /// The port on loopback.
    pub fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// A connection of the application that owns the data.
    ///
    /// # Errors
    /// If the client cannot be started.
    pub fn connect(&self) -> Result<Owner, SceneError> {
        let mut command = tokio::process::Command::from(self.cluster.client(None));
        command.arg("--unbuffered").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |e| SceneError::io("start the application's SQL client", e);
        let mut client = command.kill_on_drop(true).spawn().map_err(failed)?;
        match (client.stdin.take(), client.stdout.take()) {
            (Some(statements), Some(answers)) => Ok(Owner { client, statements, answers: BufReader::new(answers) }),
            _ => Err(SceneError::Bug("a child without its pipes".into())),
        }
    }
}

impl Owner {
    /// Loads the sample data, grows it, and makes the daemon's account.
    ///
    /// # Errors
    /// If a statement fails.
    pub async fn fill(&mut self) -> Result<(), SceneError> {
        self.execute(NORTHWIND.trim_end().trim_end_matches(';')).await?;
        self.execute("SET sql_mode = concat(@@sql_mode, ',ANSI_QUOTES')").await?;
        for sql in grow().into_iter().chain(grants()) {
            self.execute(&sql).await?;
        }
        Ok(())
    }

    /// Runs statements; how many rows the last of them changed.
    ///
    /// # Errors
    /// If one fails; the connection is of no more use then.
    pub async fn execute(&mut self, sql: &str) -> Result<u64, SceneError> {
        let mut answer = String::new();
        let told = async {
            self.statements.write_all(sql.as_bytes()).await?;
            self.statements.write_all(b";\nSELECT greatest(row_count(), 0);\n").await?;
            self.statements.flush().await?;
            self.answers.read_line(&mut answer).await
        };
        // After an error the client ends, and what was wrong is on its other stream.
        if let (Ok(_), Ok(count)) = (told.await, answer.trim().parse()) {
            return Ok(count);
        }
        let mut words = String::new();
        if let Some(errors) = &mut self.client.stderr {
            let _ = errors.read_to_string(&mut words).await;
        }
        Err(SceneError::Statement(words.trim().to_owned()))
    }
}

/// A table of numbers from 0 on; at least `ORDERS` of them.
fn numbers() -> String {
    let digits = (0..10).map(|d| format!("select {d} as d")).collect::<Vec<_>>().join(" union all ");
    let sum = (0..5).map(|p| format!("t{p}.d * {}", 10_u32.pow(p))).collect::<Vec<_>>().join(" + ");
    let tables = (0..5).map(|p| format!("({digits}) t{p}")).collect::<Vec<_>>().join(", ");
    format!("(select {sum} as n from {tables})")
}

fn grow() -> [String; 2] {
    let numbers = numbers();
    [
        format!(
            r#"insert into "Customers" ("CustomerID", "CompanyName", "ContactName", "ContactTitle", "Address", "City", "Country", "Phone")
            select concat('Z', lpad(hex(n), 4, '0')),
                   concat(elt(1 + n % 6, 'North', 'Blue', 'Grand', 'Old', 'Silver', 'Green'), ' ',
                          elt(1 + n % 5, 'Traders', 'Foods', 'Delikatessen', 'Mercado', 'Supplies'), ' ', n),
                   concat('Contact ', n), 'Buyer', concat(n, ' Harbour Street'),
                   elt(1 + n % 6, 'London', 'Berlin', 'Madrid', 'Paris', 'Lisboa', 'Bern'),
                   elt(1 + n % 6, 'UK', 'Germany', 'Spain', 'France', 'Portugal', 'Switzerland'), concat('+00 ', 1000000 + n)
              from {numbers} s where n between 1 and {CUSTOMERS}"#
        ),
        format!(
            r#"insert into "Orders" ("OrderID", "CustomerID", "EmployeeID", "OrderDate", "RequiredDate", "ShipVia", "Freight", "ShipName", "ShipCity", "ShipCountry")
            select {FIRST_ORDER} + n, c."CustomerID", 1 + n % 9, timestamp '2026-01-01 00:00:00' + interval n minute,
                   timestamp '2026-02-01 00:00:00' + interval n minute, 1 + n % 3, (n % 9973) / 100.0, c."CompanyName", c."City", c."Country"
              from {numbers} s
              join (select x.*, row_number() over (order by "CustomerID") - 1 as i from "Customers" x) c
                on c.i = n % (select count(*) from "Customers")
             where n < {ORDERS}"#
        ),
    ]
}

fn grants() -> [String; 3] {
    [
        format!("create user {USER}@'%' identified by '{PASSWORD}'"),
        format!("grant select on {DATABASE}.* to {USER}@'%'"),
        format!("grant replication slave, replication client on *.* to {USER}@'%'"),
    ]
}
