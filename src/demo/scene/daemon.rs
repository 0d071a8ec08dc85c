//! The daemon of the scene: this same program as a child, so that it can be killed like any other process.

use super::SceneError;
use super::database::{DATABASE, PASSWORD, Server, USER};
use crate::admin::Client;
use crate::status::StatusReport;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tokio::process::Child;

/// A tenant's files, and its daemon while it runs.
pub struct Daemon {
    dir: PathBuf,
    running: Option<Running>,
}

struct Running {
    child: Child,
    /// Ends the daemon and removes the scene's directory if this process dies: it waits on a pipe that we hold.
    watcher: std::process::Child,
}

impl Daemon {
    /// Writes the tenant's file into `dir`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn new(dir: &Path, server: Server, database_port: u16, crm_url: &str, listen: u16) -> Result<Self, SceneError> {
        let (engine, own) = match server {
            Server::Postgres => {
                ("postgres", format!("[source.postgres]\nslot        = \"tidemark\"\npublication = \"{USER}\""))
            }
            Server::Mysql(_) => ("mysql", "[source.mysql]\nserver_id = 7001".to_owned()),
            Server::SqlServer => ("sqlserver", "[source.sqlserver]\npoll_interval = \"200ms\"".to_owned()),
        };
        let text = format!(
            r#"# The tenant of `tidemark demo`.
tidemark = 1
tenant   = "northwind"

[source]
engine   = "{engine}"
host     = "127.0.0.1"
port     = {database_port}
database = "{DATABASE}"
user     = "{USER}"
password = {{ env = "SOURCE_PASSWORD" }}
tls      = {{ mode = "disable" }}

{own}

[mapping]
pack = "northwind"

[crm]
profile  = "rest"
base_url = "{crm_url}"
auth     = {{ type = "none" }}                  # so that its page can be looked at

[state]
dir = "state"

[observe]
listen = "127.0.0.1:{listen}"
log    = {{ level = "info", format = "text" }}
"#
        );
        std::fs::write(dir.join("northwind.toml"), text).map_err(|e| SceneError::io("write the tenant's file", e))?;
        Ok(Self { dir: dir.into(), running: None })
    }

    /// The tenant's file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("northwind.toml")
    }

    /// The daemon's log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    /// This program with `args` for the scene's tenant, secrets in its environment.
    ///
    /// # Errors
    /// If this program's own file is gone.
    pub fn command(&self, args: &[&str]) -> Result<Command, SceneError> {
        let program = std::env::current_exe().map_err(|e| SceneError::io("find this program", e))?;
        let mut command = Command::new(program);
        command.args(args).arg("--config").arg(self.config());
        command.env("SOURCE_PASSWORD", PASSWORD);
        // Ctrl-C in the terminal is for the scene, which ends its daemon in order.
        command.process_group(0).stdin(Stdio::null());
        Ok(command)
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(&mut self) -> Result<u32, SceneError> {
        let log = OpenOptions::new().create(true).append(true).open(self.log());
        let log = log.map_err(|e| SceneError::io("open the daemon's log", e))?;
        let mut command = self.command(&["run"])?;
        command.env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM").stdout(Stdio::null()).stderr(log);
        let mut command = tokio::process::Command::from(command);
        let child = command.kill_on_drop(true).spawn().map_err(|e| SceneError::io("start the daemon", e))?;
        let pid = child.id().unwrap_or_default();
        let watcher = Command::new("sh")
            .args(["-c", "read _ || { kill -9 \"$1\" && rm -rf -- \"$2\"; }", "tidemark-demo", &pid.to_string()])
            .arg(&self.dir)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| SceneError::io("start a watcher", e))?;
        self.running = Some(Running { child, watcher });
        Ok(pid)
    }

    /// The latest report; `None` while the daemon does not answer.
    pub async fn status(&self) -> Option<StatusReport> {
        Client::new(&self.dir.join("state").join("admin.sock")).status().await.ok()
    }

    /// The exit status and the end of the log, if the daemon has ended by itself.
    ///
    /// # Errors
    /// [`SceneError::DaemonEnded`] if it has.
    pub fn check_alive(&mut self) -> Result<(), SceneError> {
        let Some(running) = &mut self.running else { return Ok(()) };
        match running.child.try_wait() {
            Ok(Some(status)) => Err(SceneError::DaemonEnded { status, log: last_lines(&self.log(), 15) }),
            _ => Ok(()),
        }
    }

    /// Kills the daemon with SIGKILL: no handler runs, nothing is flushed.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub async fn kill(&mut self) -> Result<(), SceneError> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        running.dismiss_watcher();
        running.child.kill().await.map_err(|e| SceneError::io("kill the daemon", e))
    }

    /// Stops the daemon in order; the time it took, and whether it said that all was well (P12).
    ///
    /// # Errors
    /// If it cannot be signalled.
    pub async fn stop(&mut self) -> Result<Option<(Duration, bool)>, SceneError> {
        let Some(mut running) = self.running.take() else { return Ok(None) };
        let begun = Instant::now();
        let Some(pid) = running.child.id().map(|pid| pid.to_string()) else { return Ok(None) };
        let sent = Command::new("sh").args(["-c", "kill -TERM \"$1\"", "sh", &pid]).status();
        sent.map_err(|e| SceneError::io("signal the daemon", e))?;
        let ended = tokio::time::timeout(Duration::from_secs(30), running.child.wait()).await;
        running.dismiss_watcher();
        Ok(match ended {
            Ok(Ok(status)) => Some((begun.elapsed(), status.success())),
            _ => Some((begun.elapsed(), false)),
        })
    }
}

impl Running {
    fn dismiss_watcher(&mut self) {
        if let Some(mut pipe) = self.watcher.stdin.take() {
            let _ = std::io::Write::write_all(&mut pipe, b"\n");
        }
        let _ = self.watcher.wait();
    }
}

/// The last `count` lines of a file, reading at most its last 16 KiB.
pub fn last_lines(path: &Path, count: usize) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(16 * 1024);
        file.seek(std::io::SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = read().unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
