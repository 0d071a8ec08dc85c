//! The real program as a child process, with a tenant file of the test's making.

use super::Vendor;
use super::crm::{Crm, TOKEN};
use super::source::PASSWORD;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A tenant: its file, its state directory, and what the daemon wrote.
pub struct Tenant {
    dir: TempDir,
    port: u16,
    /// The line of the engine, and the engine's own table.
    pub engine: String,
    pub source_port: u16,
    pub database: String,
    pub pack: PathBuf,
    pub crm_url: String,
    pub source_user: String,
    pub source_password: String,
    pub on_gap: &'static str,
    /// Rows of a snapshot's page.
    pub chunk_rows: u32,
    pub batch_records: u32,
    /// Further lines of `[crm]`.
    pub crm: String,
    /// Further lines of `[delivery]`.
    pub delivery: String,
    /// Further tables, as TOML.
    pub extra: String,
    pub log_level: &'static str,
    /// Further environment variables.
    pub environment: Vec<(&'static str, &'static str)>,
}

impl Tenant {
    pub fn new(source: &impl Vendor, crm: &Crm, pack: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
        Self {
            dir: tempfile::tempdir().expect("a directory"),
            port,
            engine: source.engine(),
            source_port: source.port(),
            database: source.database().into(),
            pack: super::source::repository(pack),
            crm_url: crm.base_url(),
            source_user: "tidemark".into(),
            source_password: PASSWORD.into(),
            on_gap: "resync",
            chunk_rows: 50,
            batch_records: 50,
            crm: String::new(),
            delivery: String::new(),
            extra: String::new(),
            log_level: "debug",
            environment: Vec::new(),
        }
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn file(&self) -> PathBuf {
        self.dir.path().join("e2e.toml")
    }

    pub fn log_file(&self) -> PathBuf {
        self.dir.path().join("daemon.log")
    }

    pub fn admin_port(&self) -> u16 {
        self.port
    }

    fn write(&self) {
        let text = format!(
            r#"tidemark = 1
tenant = "e2e"
[source]
host = "127.0.0.1"
port = {source_port}
database = "{database}"
user = "{source_user}"
password = {{ env = "SOURCE_PASSWORD" }}
tls = {{ mode = "disable" }}
{engine}
[mapping]
pack = "{pack}"
[crm]
profile = "rest"
base_url = "{crm_url}"
auth = {{ type = "bearer", token = {{ env = "CRM_TOKEN" }} }}
{crm}
[delivery]
batch_records = {batch_records}
batch_wait = "20ms"
{delivery}
[delivery.retry]
initial = "50ms"
max = "1s"
[snapshot]
chunk_rows = {chunk_rows}
[state]
dir = "{state}"
on_gap = "{on_gap}"
sweep_guard = {{ max_share = 1.0, max_records = 1000000 }}
[observe]
listen = "127.0.0.1:{port}"
log = {{ level = "{level}", format = "json" }}
{extra}
"#,
            engine = self.engine,
            source_port = self.source_port,
            source_user = self.source_user,
            database = self.database,
            pack = self.pack.display(),
            crm_url = self.crm_url,
            crm = self.crm,
            delivery = self.delivery,
            chunk_rows = self.chunk_rows,
            batch_records = self.batch_records,
            state = self.state_dir().display(),
            on_gap = self.on_gap,
            port = self.port,
            level = self.log_level,
            extra = self.extra,
        );
        // Whoever reads it meanwhile finds the old one or the new one, and no half of one.
        let unfinished = self.file().with_extension("unfinished");
        std::fs::write(&unfinished, text)
            .and_then(|()| std::fs::rename(unfinished, self.file()))
            .expect("the tenant file");
    }

    /// A command of the program about this tenant.
    pub fn command(&self, words: &[&str]) -> Command {
        self.write();
        // Another build of the program may be tried, say the one that is shipped.
        let program =
            std::env::var_os("TIDEMARK_TEST_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_tidemark").into());
        let mut command = Command::new(program);
        command.args(words).arg("--config").arg(self.file());
        command.env("SOURCE_PASSWORD", &self.source_password).env("CRM_TOKEN", TOKEN).env("NO_COLOR", "1");
        command.envs(self.environment.iter().copied()).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, words: &[&str]) -> Output {
        let mut command = self.command(words);
        tokio::task::spawn_blocking(move || command.output()).await.expect("no panic").expect("the program runs")
    }

    /// Runs a command that must succeed, and gives back what it prints.
    pub async fn done(&self, words: &[&str]) -> String {
        let output = self.run(words).await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "tidemark {words:?}: {}\n{out}\n{err}", output.status);
        out.into_owned()
    }

    /// `status --json` of the running daemon; null if it does not answer.
    pub async fn status(&self) -> Value {
        let output = self.run(&["status", "--once", "--json"]).await;
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// A page of the admin listener: status and body; 0 if nobody listens.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let (port, path) = (self.port, path.to_owned());
        let ask = move || -> std::io::Result<String> {
            let mut socket = std::net::TcpStream::connect(("127.0.0.1", port))?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
            std::io::Write::write_all(&mut socket, request.as_bytes())?;
            let mut text = String::new();
            socket.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = tokio::task::spawn_blocking(ask).await.expect("no panic").unwrap_or_default();
        let status = text.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        (status, text.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
    }

    /// A number from `/metrics`: the sum of the samples whose lines start so; `None` if there are none.
    pub async fn metric(&self, start: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics").await;
        let lines = text.lines().filter(|line| line.starts_with(start));
        let samples: Vec<f64> = lines.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        (!samples.is_empty()).then(|| samples.iter().sum())
    }

    /// Starts the daemon; its output is added to the log file.
    pub fn start(&self, crm: &Crm) -> Daemon {
        crm.new_run();
        let log = OpenOptions::new().create(true).append(true).open(self.log_file()).expect("the log file");
        let child = self
            .command(&["run"])
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .spawn()
            .expect("the program starts");
        Daemon { child, started: Instant::now() }
    }

    /// Everything the daemon wrote.
    pub fn log(&self) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(self.log_file()) {
            let _ = file.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The last lines of it, debug lines left out where there are others.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        let loud: Vec<&str> =
            all.iter().copied().filter(|l| !l.contains("\"debug\"") && !l.contains("DEBUG")).collect();
        let end = |lines: &[&str], n: usize| lines[lines.len().saturating_sub(n)..].join("\n");
        format!("--- the daemon's last warnings and news\n{}\n--- its last lines\n{}", end(&loud, 12), end(&all, 12))
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    pub started: Instant,
}

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().expect("can be killed");
        self.child.wait().expect("ends");
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success(), "the daemon is gone already");
    }

    /// Waits for the end.
    pub async fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait().expect("can be asked") {
                Some(status) => return Some(status),
                None if Instant::now() > deadline => return None,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// SIGTERM, and the end within the limit with exit code 0.
    pub async fn stop(mut self, limit: Duration) {
        let asked = Instant::now();
        self.terminate();
        let status = self.wait(limit).await;
        println!("stopped in {:?}", asked.elapsed());
        let status = status.unwrap_or_else(|| panic!("still running {limit:?} after SIGTERM"));
        assert!(status.success(), "after SIGTERM: {status}");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("can be asked").is_none()
    }

    /// Resident memory now and at its peak, in bytes.
    pub fn memory(&self) -> (u64, u64) {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let field = |name: &str| -> u64 {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) * 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// CPU time used so far, in clock ticks (a hundredth of a second).
    pub fn cpu_ticks(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<&str> = text.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
        [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
