//! A server for the tests: the simulator in a process of its own, or a real SQL Server that somebody lends.
//!
//! `TIDEMARK_TEST_SQLSERVER=host:port,user,password-file` names a real one, on which the user is a member of `sysadmin`
//! (docs/sqlserver.md says how). Everything here but the start of the simulator is SQL, and so the same for both.

use futures_util::TryStreamExt;
use std::io::{BufRead, BufReader, Lines, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tiberius::{AuthMethod, Client, ColumnData, Config, EncryptionLevel};
use tidemark_sqlserver_sim::{Options, Quirks, Sim};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

/// Set in the process that is to be a simulated server.
const VARIABLE: &str = "TIDEMARK_TEST_SIMULATOR";
/// The pause of its log reader in milliseconds; without it, commits ring the log reader.
const PAUSE: &str = "TIDEMARK_TEST_SIMULATOR_PAUSE";
/// Full name of the test that becomes one.
const PROCESS: &str = "sqlserver::server::simulator_process";

/// A server that can be logged in to as an administrator.
pub struct Server {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    simulated: bool,
    /// The simulator's process, which ends when its input is closed, or when it writes to an output that nobody has open.
    process: Option<(Child, ChildStdin, Lines<BufReader<ChildStdout>>)>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some((mut child, input, _)) = self.process.take() {
            drop(input);
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Server {
    /// The server that was lent, or a simulated one.
    pub fn start() -> Result<Self, String> {
        match std::env::var("TIDEMARK_TEST_SQLSERVER") {
            Ok(lent) => Self::lent(&lent),
            Err(_) => Self::simulated(None),
        }
    }

    fn lent(text: &str) -> Result<Self, String> {
        let wanted = || format!("TIDEMARK_TEST_SQLSERVER={text}: wanted host:port,user,password-file");
        let mut parts = text.split(',');
        let (address, user, file) =
            (parts.next().ok_or_else(wanted)?, parts.next().ok_or_else(wanted)?, parts.next().ok_or_else(wanted)?);
        let (host, port) = address.rsplit_once(':').ok_or_else(wanted)?;
        let password = std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
        Ok(Self {
            host: host.into(),
            port: port.parse().map_err(|_| wanted())?,
            user: user.into(),
            password: password.trim_end_matches(['\r', '\n']).into(),
            simulated: false,
            process: None,
        })
    }

    /// A simulated server in a process of its own: its memory is not ours. Its log reader comes
    /// with this pause between scans, or at once after each commit.
    pub fn simulated(pause: Option<Duration>) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut child = Command::new(program)
            .args(["--exact", PROCESS, "--nocapture", "--include-ignored"])
            .env(VARIABLE, "1")
            .env(PAUSE, pause.map_or_else(String::new, |pause| pause.as_millis().to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start the simulator: {e}"))?;
        let (input, output) = (child.stdin.take().ok_or("no input")?, child.stdout.take().ok_or("no output")?);
        let mut lines = BufReader::new(output).lines();
        let mut said = lines.by_ref().map_while(Result::ok);
        let port = said.find_map(|line| line.split("simulator on port ").nth(1)?.parse().ok());
        Ok(Self {
            host: "127.0.0.1".into(),
            port: port.ok_or("the simulator did not tell its port")?,
            user: "sa".into(),
            password: Options::default().sa_password,
            simulated: true,
            process: Some((child, input, lines)),
        })
    }

    pub fn is_simulated(&self) -> bool {
        self.simulated
    }

    /// A simulator in this process.
    pub fn of(sim: &Sim) -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: sim.port(),
            user: "sa".into(),
            password: Options::default().sa_password,
            simulated: true,
            process: None,
        }
    }

    /// A session of the administrator.
    pub async fn connect(&self, database: &str) -> Result<Session, String> {
        let mut config = Config::new();
        config.host(&self.host);
        config.port(self.port);
        config.database(database);
        config.application_name("tests");
        config.authentication(AuthMethod::sql_server(&self.user, &self.password));
        config.encryption(EncryptionLevel::NotSupported);
        config.command_timeout(Some(Duration::from_secs(120)));
        let failed = |e: &dyn std::fmt::Display| format!("{}:{}: {e}", self.host, self.port);
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|e| failed(&e))?;
        let _ = tcp.set_nodelay(true);
        let client = Client::connect(config, tcp.compat_write()).await.map_err(|e| failed(&e))?;
        let mut session = Session(client);
        // What goes wrong ends the transaction, as with the other vendors.
        session.run("SET XACT_ABORT ON; SET LOCK_TIMEOUT 60000").await?;
        Ok(session)
    }

    /// Makes a database with snapshot isolation, and with change data capture and the table that [`Session::captured`] uses,
    /// or else with change tracking.
    pub async fn create_database(&self, name: &str, captured: bool) -> Result<(), String> {
        let mut session = self.connect("master").await?;
        session.run(&format!("CREATE DATABASE [{name}]")).await?;
        session.run(&format!("ALTER DATABASE [{name}] SET ALLOW_SNAPSHOT_ISOLATION ON")).await?;
        let mut session = self.connect(name).await?;
        if !captured {
            let sql = "ALTER DATABASE CURRENT SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 3 DAYS, AUTO_CLEANUP = ON)";
            return session.run(sql).await;
        }
        session.run("CREATE TABLE dbo.fence (n int NOT NULL PRIMARY KEY)").await?;
        enable_cdc(&mut session, self.is_simulated()).await
    }

    /// Removes what [`Server::create_database`] made; the simulator keeps nothing anyway.
    pub async fn drop_database(&self, name: &str) -> Result<(), String> {
        if self.is_simulated() {
            return Ok(());
        }
        let mut session = self.connect("master").await?;
        session.run(&format!("ALTER DATABASE [{name}] SET SINGLE_USER WITH ROLLBACK IMMEDIATE")).await?;
        session.run(&format!("DROP DATABASE [{name}]")).await
    }

    /// A name for a database that no other run uses on a server that was lent.
    pub fn database_name(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("tidemark_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Enables change data capture, for the fence too. A real capture job looks every five seconds unless it is told to.
pub async fn enable_cdc(session: &mut Session, simulated: bool) -> Result<(), String> {
    session.run("EXEC sys.sp_cdc_enable_db").await?;
    session.run(&enable("fence", "dbo_fence")).await?;
    if !simulated {
        session.run("EXEC sys.sp_cdc_change_job @job_type = N'capture', @pollinginterval = 1").await?;
        session.run("EXEC sys.sp_cdc_stop_job @job_type = N'capture'").await?;
        session.run("EXEC sys.sp_cdc_start_job @job_type = N'capture'").await?;
    }
    Ok(())
}

/// The statement that makes a capture instance for a table of `dbo`.
pub fn enable(table: &str, instance: &str) -> String {
    let quote = |text: &str| text.replace('\'', "''");
    let (table, instance) = (quote(table), quote(instance));
    format!(
        "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'{table}', \
         @capture_instance = N'{instance}', @role_name = NULL"
    )
}

/// A connection of the tests.
pub struct Session(Client<Compat<TcpStream>>);

impl Session {
    /// Runs a batch.
    pub async fn run(&mut self, sql: &str) -> Result<(), String> {
        self.attempt(sql).await.map(drop).map_err(|(_, text)| text)
    }

    /// Rows of a batch's first result, as text.
    pub async fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        self.attempt(sql).await.map_err(|(_, text)| text)
    }

    /// Rows of a batch's first result, each cell with its column's name.
    pub async fn named(&mut self, sql: &str) -> Result<Vec<Vec<(String, Option<String>)>>, String> {
        let work = async {
            let results = self.0.simple_query(sql).await?.into_results().await?;
            let of = |row: &tiberius::Row| row.cells().map(|(c, cell)| (c.name().to_owned(), text(cell))).collect();
            Ok(results.first().map(|rows| rows.iter().map(of).collect()).unwrap_or_default())
        };
        let failed = |e: tiberius::error::Error| format!("{e} in: {sql}");
        work.with_subscriber(NoSubscriber::new()).await.map_err(failed)
    }

    /// As [`Session::rows`]; a refusal of the server comes with its number.
    pub async fn attempt(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, (u32, String)> {
        // The driver logs rows, and the battery listens for them.
        self.answer(sql).with_subscriber(NoSubscriber::new()).await
    }

    async fn answer(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>, (u32, String)> {
        let failed = |e: tiberius::error::Error| {
            (e.code().unwrap_or(0), format!("{e} in: {}", sql.chars().take(300).collect::<String>()))
        };
        let mut stream = self.0.simple_query(sql).await.map_err(failed)?;
        let mut rows = Vec::new();
        while let Some(item) = stream.try_next().await.map_err(failed)? {
            if let tiberius::QueryItem::Row(row) = item
                && row.result_index() == 0
            {
                rows.push(row.cells().map(|(_, cell)| text(cell)).collect());
            }
        }
        Ok(rows)
    }

    /// The first cell as a number.
    pub async fn number(&mut self, sql: &str) -> Result<i64, String> {
        let rows = self.rows(sql).await?;
        let cell = rows.first().and_then(|row| row.first()).cloned().flatten();
        cell.and_then(|text| text.parse().ok()).ok_or_else(|| format!("no number came for: {sql}"))
    }

    /// Waits until everything that was committed so far is in the change tables: a row of the table `dbo.fence`, which is
    /// captured, has come through. The log reader goes through the log in the order of the commits, so whoever sees the row
    /// sees everything that was committed before it. A scan in `sys.dm_cdc_log_scan_sessions` does not say so much by itself:
    /// it may have begun before the commit, and may have ended at `maxtrans`, short of it.
    pub async fn captured(&mut self) -> Result<(), String> {
        self.run("INSERT dbo.fence (n) SELECT ISNULL(MAX(n), 0) + 1 FROM dbo.fence").await?;
        let n = self.number("SELECT CAST(MAX(n) AS bigint) FROM dbo.fence").await?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.number(&format!("SELECT CAST(COUNT(*) AS bigint) FROM cdc.dbo_fence_CT WHERE n = {n}")).await? == 0 {
            if Instant::now() > deadline {
                return Err(format!(
                    "row {n} of dbo.fence, committed a minute ago, is not in cdc.dbo_fence_CT: the capture job does not run, \
                     or is behind"
                ));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

/// What the tests read: numbers, texts and bytes.
fn text(cell: &ColumnData<'_>) -> Option<String> {
    use ColumnData as C;
    match cell {
        C::U8(v) => v.map(|v| v.to_string()),
        C::I16(v) => v.map(|v| v.to_string()),
        C::I32(v) => v.map(|v| v.to_string()),
        C::I64(v) => v.map(|v| v.to_string()),
        C::Bit(v) => v.map(|v| u8::from(v).to_string()),
        C::String(v) => v.as_ref().map(ToString::to_string),
        C::Binary(v) => v.as_ref().map(|v| v.iter().map(|b| format!("{b:02x}")).collect()),
        C::Guid(v) => v.map(|v| v.to_string()),
        C::Numeric(v) => v.map(|v| v.to_string()),
        other => panic!("the tests read no {other:?}: cast it to nvarchar"),
    }
}

/// A simulated server, for as long as the caller's end of the standard input is open.
#[test]
#[ignore = "becomes a server process when a test starts it as one"]
fn simulator_process() {
    if std::env::var(VARIABLE).is_err() {
        return;
    }
    // The harder of two ways in which the product may behave.
    let quirks = Quirks { unchanged_max_is_null_after: true, ..Quirks::default() };
    let pause: Option<u64> = std::env::var(PAUSE).ok().and_then(|millis| millis.parse().ok());
    let prompt_capture = pause.is_none();
    let poll = Duration::from_millis(pause.unwrap_or(15));
    let options = Options { databases: Vec::new(), poll, prompt_capture, quirks, ..Options::default() };
    let sim = Sim::start(options).unwrap();
    // In front of it stands what the test runner says about this test.
    println!("simulator on port {}", sim.port());
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}
