//! MySQL and MariaDB, beside `mysqldump --quick` and `mysqlbinlog --read-from-remote-server --raw`.

use super::{Backlog, DATABASE, USER, Vendor};
use crate::Failure;
use crate::process::server_cpu;
use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use tidemark_throwaway::{MysqlCluster, MysqlFlavour, MysqlOptions};

const CREATE: &str = "
CREATE TABLE customers (
    id bigint PRIMARY KEY, first_name varchar(60), last_name varchar(60), company varchar(120), email varchar(120),
    phone varchar(40), street varchar(120), city varchar(60), country char(2), credit_limit decimal(12,2),
    active boolean NOT NULL, created_at timestamp NOT NULL, updated_at datetime NOT NULL, attributes json, note text);
CREATE DATABASE numbers; CREATE TABLE numbers.n (n int PRIMARY KEY);
INSERT INTO numbers.n WITH d AS (SELECT 0 d UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5
    UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9)
  SELECT a.d + 10 * b.d + 100 * c.d + 1000 * e.d FROM d a, d b, d c, d e;";

/// Rows of [`CREATE`]'s table of numbers.
const PIECE: u64 = 10_000;

/// New rows with the numbers from `first` on; at most [`PIECE`].
fn make(first: u64, count: u64) -> String {
    format!(
        "INSERT INTO customers SELECT n, elt(1 + n % 8, 'Anna', 'Bernd', 'Chloé', 'Dmitri', 'Eva', 'Farid', 'Grace', 'Hugo'),
           concat('M', substr(h, 1, 10)), concat('Q', substr(h, 12, 13), ' & Sons Trading GmbH'),
           concat('Contact.', n, '@', substr(h, 1, 12), '.example'), concat('+49 30 ', lpad(n * 7919 % 100000000, 8, '0')),
           concat('Z', substr(h, 30, 15), 'strasse ', n % 200),
           elt(1 + n DIV 8 % 8, 'Berlin', 'Łódź', 'Besançon', 'Köln', 'San Sebastián', 'Reykjavík', 'Praha', 'Zürich'),
           elt(1 + n DIV 8 % 8, 'DE', 'PL', 'FR', 'DE', 'ES', 'IS', 'CZ', 'CH'),
           if(n % 50 = 0, NULL, n * 31 % 9000000 / 100), n % 10 <> 0,
           timestamp '2015-01-01 00:00:00' + interval (n * 311) second,
           timestamp '2024-01-01 00:00:00' + interval (n * 17) second,
           json_object('segment', n % 5, 'newsletter', n % 3, 'tags', json_array(concat('t', n % 17), concat('t', n % 23)),
                       'source', 'import', 'campaign', concat('spring ', 2015 + n % 10)),
           left(concat(h, ' ', sha2(n + 2, 256)), 128)
         FROM (SELECT {first} + n AS n, sha2({first} + n, 256) AS h FROM numbers.n WHERE n < {count}) k"
    )
}

/// The server with its table.
pub struct Mysql {
    cluster: MysqlCluster,
    /// Where the reader of the log leaves its copies.
    copies: Mutex<Option<TempDir>>,
    /// The first file of the log that is kept for it.
    kept: Mutex<String>,
}

impl Mysql {
    pub fn start(flavour: MysqlFlavour, rows: u64) -> Result<Self, Failure> {
        let mut options = MysqlOptions::new(flavour).setting("innodb-buffer-pool-size", "1G");
        options = match flavour {
            MysqlFlavour::MariaDb => options.setting("innodb-log-file-size", "2G"),
            MysqlFlavour::MySql => options.setting("innodb-redo-log-capacity", "2G"),
        };
        let cluster = MysqlCluster::start(options)?;
        cluster.sql(&format!(
            "CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4; CREATE USER {USER}@'%';
             GRANT SELECT ON {DATABASE}.* TO {USER}@'%'; GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {USER}@'%'"
        ))?;
        cluster.sql_in(DATABASE, CREATE)?;
        let pieces = (0..rows.div_ceil(PIECE)).map(|piece| make(1 + piece * PIECE, PIECE.min(rows - piece * PIECE)));
        cluster.sql_in(DATABASE, &pieces.collect::<Vec<_>>().join(";\n"))?;
        cluster.sql_in(DATABASE, "ANALYZE TABLE customers")?;
        // MariaDB finds a GTID by reading the file that it is in: the rows of years ago would not be in the newest.
        cluster.sql("FLUSH BINARY LOGS")?;
        Ok(Self { cluster, copies: Mutex::default(), kept: Mutex::default() })
    }

    fn tool(&self, program: &str) -> Command {
        let mut command = self.cluster.tool(program);
        command.args(["--host=127.0.0.1", "--protocol=tcp", &format!("--user={USER}")]);
        command.arg(format!("--port={}", self.cluster.port())).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn head(&self) -> Result<String, Failure> {
        let logs = self.sql("SHOW BINARY LOGS")?;
        let last = logs.lines().last().and_then(|line| line.split('\t').next());
        Ok(last.ok_or("the server has no binary log")?.to_owned())
    }
}

impl Vendor for Mysql {
    fn version(&self) -> Result<String, Failure> {
        let version = self.cluster.version()?;
        Ok(if version.contains("MariaDB") { version } else { format!("MySQL {version}") })
    }

    fn engine(&self, tenant: &str) -> String {
        let id = 7_000 + tenant.bytes().map(u32::from).sum::<u32>();
        format!("engine = \"mysql\"\nport = {}\n[source.mysql]\nserver_id = {id}", self.cluster.port())
    }

    fn sql(&self, sql: &str) -> Result<String, Failure> {
        Ok(self.cluster.sql_in(DATABASE, sql)?)
    }

    fn cpu(&self) -> Duration {
        self.cluster.pid().map_or(Duration::ZERO, server_cpu)
    }

    fn row_bytes(&self, rows: u64) -> Result<String, Failure> {
        let rows = rows.min(10_000);
        let (_, mut command) = self.whole_table().ok_or("no tool")?;
        command.arg(format!("--where=id <= {rows}"));
        let bytes = command.stdout(Stdio::piped()).output()?.stdout.len() as u64;
        Ok(format!("{} B (mysqldump)", bytes / rows))
    }

    fn whole_table(&self) -> Option<(&'static str, Command)> {
        let mut command = self.tool("dump");
        command.args(["--quick", "--single-transaction", "--no-create-info", "--no-tablespaces"]);
        let name = match self.cluster.flavour() {
            MysqlFlavour::MariaDb => "mariadb-dump --quick > /dev/null",
            MysqlFlavour::MySql => {
                command.arg("--set-gtid-purged=OFF");
                "mysqldump --quick > /dev/null"
            }
        };
        command.args([DATABASE, "customers"]);
        Some((name, command))
    }

    fn keep_log(&self) -> Result<(), Failure> {
        self.sql("FLUSH BINARY LOGS")?;
        *self.kept.lock().map_err(|_| "a lock")? = self.head()?;
        Ok(())
    }

    fn log_reader(&self, _: &Backlog) -> Result<Option<(&'static str, Command)>, Failure> {
        let copies = tempfile::tempdir()?;
        let mut command = self.tool("binlog");
        command.args(["--read-from-remote-server", "--raw", "--to-last-log"]);
        let mut target = std::ffi::OsString::from("--result-file=");
        target.push(copies.path().join("copy-"));
        command.arg(target).arg(&*self.kept.lock().map_err(|_| "a lock")?);
        *self.copies.lock().map_err(|_| "a lock")? = Some(copies);
        Ok(Some((
            match self.cluster.flavour() {
                MysqlFlavour::MariaDb => "mariadb-binlog --read-from-remote-server --raw",
                MysqlFlavour::MySql => "mysqlbinlog --read-from-remote-server --raw",
            },
            command,
        )))
    }

    fn log_was_read(&self) -> Result<(), Failure> {
        *self.copies.lock().map_err(|_| "a lock")? = None;
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
        let mut sql = String::new();
        for t in 0..transactions {
            writeln!(
                sql,
                "BEGIN; {}; UPDATE customers SET credit_limit = coalesce(credit_limit, 0) + 0.5, phone = concat('+49 40 ', id),
                 updated_at = updated_at + interval 1 hour WHERE id IN ({}); DELETE FROM customers WHERE id IN ({}); COMMIT;",
                make(rows + t * inserts + 1, inserts),
                scattered(t * updates, updates),
                scattered(transactions * updates + t * deletes, deletes),
            )?;
        }
        self.sql(&sql)?;
        Ok(Backlog { changes: (inserts + updates + deletes) * transactions, transactions, end: self.head()? })
    }

    fn write_giant(&self) -> Result<Backlog, Failure> {
        self.sql(
            "UPDATE customers SET credit_limit = coalesce(credit_limit, 0) + 0.25, updated_at = updated_at + interval 1 day",
        )?;
        let changes = self.sql("SELECT count(*) FROM customers")?.parse()?;
        Ok(Backlog { changes, transactions: 1, end: self.head()? })
    }

    fn is_confirmed(&self, _: &str, _: &str) -> Result<bool, Failure> {
        // The server keeps its log by time, not for us.
        Ok(true)
    }

    fn forget(&self, _: &str) -> Result<(), Failure> {
        Ok(())
    }
}
