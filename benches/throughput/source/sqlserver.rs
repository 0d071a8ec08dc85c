//! The simulated SQL Server of the tests, for our own CPU and memory: how fast it gives its rows away says nothing about the
//! product, and there is no tool to compare with.

use super::{Backlog, DATABASE, USER, Vendor};
use crate::Failure;
use crate::process::cpu;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// Names the simulator's program, where it is not beside the one that is measured.
const PROGRAM: &str = "TIDEMARK_SQLSERVER_SIM";

const CREATE: [&str; 2] = [
    "CREATE TABLE customers (id bigint NOT NULL PRIMARY KEY, first_name nvarchar(60), last_name nvarchar(60), company nvarchar(120), \
     email nvarchar(120), phone nvarchar(40), street nvarchar(120), city nvarchar(60), country nchar(2), credit_limit decimal(12,2), \
     active bit NOT NULL, created_at datetimeoffset(0) NOT NULL, updated_at datetime2(0) NOT NULL, attributes nvarchar(400), \
     note nvarchar(200))",
    "CREATE TABLE numbers (n int NOT NULL PRIMARY KEY)",
];

/// New rows with the numbers from `first` on; at most [`PIECE`].
fn make(first: u64, count: u64) -> String {
    format!(
        "INSERT INTO customers SELECT n, CASE n % 4 WHEN 0 THEN N'Anna' WHEN 1 THEN N'Bernd' WHEN 2 THEN N'Chloé' ELSE N'Dmitri' END, \
         CONCAT(N'M', LEFT(h, 10)), CONCAT(N'Q', LEFT(h, 13), N' & Sons Trading GmbH'), \
         CONCAT(N'Contact.', n, N'@', LEFT(h, 12), N'.example'), CONCAT(N'+49 30 ', n % 90000000), \
         CONCAT(N'Z', LEFT(h, 15), N'strasse ', n % 200), \
         CASE n % 4 WHEN 0 THEN N'Berlin' WHEN 1 THEN N'Łódź' WHEN 2 THEN N'Besançon' ELSE N'Zürich' END, \
         CASE n % 4 WHEN 0 THEN N'DE' WHEN 1 THEN N'PL' WHEN 2 THEN N'FR' ELSE N'CH' END, \
         CASE WHEN n % 50 = 0 THEN NULL ELSE (n * 31 % 9000000) / 100.0 END, CASE WHEN n % 10 = 0 THEN 0 ELSE 1 END, \
         DATEADD(second, n * 31, CAST('2015-01-01 00:00:00 +00:00' AS datetimeoffset(0))), \
         DATEADD(second, n * 17, CAST('2024-01-01' AS datetime2(0))), \
         CONCAT(N'{{\"segment\": ', n % 5, N', \"newsletter\": ', n % 3, N', \"source\": \"import\", \"campaign\": \"spring ', 2015 + n % 10, N'\"}}'), \
         CONCAT(h, N' ', h, N' ', h) \
         FROM (SELECT CAST({first} + n AS bigint) AS n, CONVERT(nvarchar(36), NEWID()) AS h FROM numbers WHERE n < {count}) k"
    )
}

/// Rows of the table of numbers.
const PIECE: u64 = 10_000;

/// The server with its table.
pub struct SqlServer {
    process: Child,
    port: u16,
    console: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Drop for SqlServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl SqlServer {
    pub fn start(rows: u64) -> Result<Self, Failure> {
        let beside = PathBuf::from(env!("CARGO_BIN_EXE_tidemark")).with_file_name("sqlserver-sim");
        let program = std::env::var_os(PROGRAM).map_or(beside, PathBuf::from);
        let mut process = Command::new(&program)
            .args(["--port", "0", "--database", DATABASE, "--snapshot-isolation", "--console"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| {
                format!("{}: {e}; `cargo build --release -p tidemark-sqlserver-sim` makes it", program.display())
            })?;
        let (input, output) = process.stdin.take().zip(process.stdout.take()).ok_or("a child without its pipes")?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok()).ok_or("no port")?;
        let server = Self { process, port, console: Mutex::new((input, output)) };
        for sql in CREATE {
            server.sql(sql)?;
        }
        let digit = "(SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 \
                     UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
        server.sql(&format!(
            "INSERT INTO numbers SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d \
             FROM {digit} a CROSS JOIN {digit} b CROSS JOIN {digit} c CROSS JOIN {digit} e"
        ))?;
        for piece in 0..rows.div_ceil(PIECE) {
            server.sql(&make(1 + piece * PIECE, PIECE.min(rows - piece * PIECE)))?;
        }
        for sql in [
            "EXEC sys.sp_cdc_enable_db".to_owned(),
            "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'customers', @role_name = NULL"
                .into(),
            format!("CREATE LOGIN {USER} WITH PASSWORD = N'', CHECK_POLICY = OFF"),
            format!("CREATE USER {USER} FOR LOGIN {USER}"),
            format!(
                "GRANT SELECT ON SCHEMA::dbo TO {USER}; GRANT SELECT ON SCHEMA::cdc TO {USER}; GRANT VIEW DATABASE STATE TO {USER}"
            ),
        ] {
            server.sql(&sql)?;
        }
        Ok(server)
    }
}

impl Vendor for SqlServer {
    fn version(&self) -> Result<String, Failure> {
        Ok("SQL Server as SIMULATED by tests/sqlserver-sim".into())
    }

    fn engine(&self, _: &str) -> String {
        format!("engine = \"sqlserver\"\nport = {}\n[source.sqlserver]\npoll_interval = \"50ms\"", self.port)
    }

    fn has_json(&self) -> bool {
        false
    }

    fn sql(&self, sql: &str) -> Result<String, Failure> {
        let mut console = self.console.lock().map_err(|_| "a lock")?;
        console.0.write_all(sql.as_bytes())?;
        console.0.write_all(b"\nGO\n")?;
        console.0.flush()?;
        let mut line = String::new();
        console.1.read_line(&mut line)?;
        let answer = line.trim().strip_prefix("ok ").ok_or_else(|| line.trim().to_owned())?;
        Ok(answer.split_once(' ').map_or("", |(_, cell)| cell).to_owned())
    }

    fn cpu(&self) -> Duration {
        cpu(self.process.id())
    }

    fn row_bytes(&self, _: u64) -> Result<String, Failure> {
        let texts = ["first_name", "last_name", "company", "email", "phone", "street", "city", "attributes", "note"];
        let sum: Vec<String> = texts.iter().map(|name| format!("LEN({name})")).collect();
        let sum =
            self.sql(&format!("SELECT CAST(AVG({}) AS bigint) FROM customers WHERE id <= 1000", sum.join(" + ")))?;
        Ok(format!("{sum} characters of text and six other columns"))
    }

    fn whole_table(&self) -> Option<(&'static str, Command)> {
        None
    }

    fn keep_log(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn log_reader(&self, _: &Backlog) -> Result<Option<(&'static str, Command)>, Failure> {
        Ok(None)
    }

    fn log_was_read(&self) -> Result<(), Failure> {
        Ok(())
    }

    fn write_backlog(&self, rows: u64, changes: u64, transactions: u64) -> Result<Backlog, Failure> {
        let (inserts, updates, deletes) =
            (changes * 6 / 10 / transactions, changes * 36 / 100 / transactions, changes * 4 / 100 / transactions);
        if inserts > PIECE {
            return Err(format!("at most {PIECE} new rows in a transaction: ask for more transactions").into());
        }
        // 7919 is a prime that divides no round number: the rows are scattered, and none comes twice.
        let scattered = |from: u64, count: u64| {
            (from..from + count).map(|k| (1 + k * 7919 % rows).to_string()).collect::<Vec<_>>().join(",")
        };
        for t in 0..transactions {
            self.sql(&format!(
                "BEGIN TRAN; {}; UPDATE customers SET credit_limit = COALESCE(credit_limit, 0) + 0.5, \
                 phone = CONCAT(N'+49 40 ', id), updated_at = DATEADD(hour, 1, updated_at) WHERE id IN ({}); \
                 DELETE FROM customers WHERE id IN ({}); COMMIT",
                make(rows + t * inserts + 1, inserts),
                scattered(t * updates, updates),
                scattered(transactions * updates + t * deletes, deletes),
            ))?;
        }
        Ok(Backlog { changes: (inserts + updates + deletes) * transactions, transactions, end: String::new() })
    }

    fn write_giant(&self) -> Result<Backlog, Failure> {
        self.sql(
            "UPDATE customers SET credit_limit = COALESCE(credit_limit, 0) + 0.25, updated_at = DATEADD(day, 1, updated_at)",
        )?;
        let changes = self.sql("SELECT COUNT(*) FROM customers")?.parse()?;
        Ok(Backlog { changes, transactions: 1, end: String::new() })
    }

    fn is_confirmed(&self, _: &str, _: &str) -> Result<bool, Failure> {
        // The server keeps its log by time, not for us.
        Ok(true)
    }

    fn forget(&self, _: &str) -> Result<(), Failure> {
        Ok(())
    }
}
