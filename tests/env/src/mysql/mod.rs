//! A throwaway MariaDB or MySQL server.

mod data;
mod programs;
mod replica;

use crate::home::{Account, Home, Watcher, signal};
use crate::{Certificates, Error, Result, doing, free_port, run, tail_of};
use programs::Programs;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The two servers that speak MySQL's protocol and have grown apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MysqlFlavour {
    /// MariaDB.
    MariaDb,
    /// Oracle's MySQL.
    MySql,
}

impl MysqlFlavour {
    /// Both, for tests that run on each.
    pub const BOTH: [Self; 2] = [Self::MariaDb, Self::MySql];

    /// `mariadb` or `mysql`.
    pub fn name(self) -> &'static str {
        match self {
            Self::MariaDb => "mariadb",
            Self::MySql => "mysql",
        }
    }
}

/// What kind of server to start. The default suits tests of replication: row events with full images and metadata, global
/// transaction ids, UTC, and no fsync.
#[derive(Clone, Debug)]
pub struct MysqlOptions {
    /// Which server.
    pub flavour: MysqlFlavour,
    /// `server_id`; servers that replicate from each other need different ones. Default 1.
    pub server_id: u32,
    /// Whether transactions have global ids (MySQL: `gtid_mode`). MariaDB always gives them some.
    pub gtid: bool,
    /// Whether to serve TLS, with certificates of a throwaway authority ([`MysqlCluster::certificates`]). Without it the
    /// server offers none at all, MySQL's self-made certificates included.
    pub tls: bool,
    /// Whether written data is forced to the disk. Off by default: such a server survives any crash of its own, but not
    /// one of the machine.
    pub fsync: bool,
    /// Further settings as `(name, value)`, after and above the ones chosen here; an empty value gives `--name` alone.
    pub settings: Vec<(String, String)>,
    /// How long to wait for the server to become ready.
    pub start_timeout: Duration,
}

impl MysqlOptions {
    /// The default options of a server.
    pub fn new(flavour: MysqlFlavour) -> Self {
        Self {
            flavour,
            server_id: 1,
            gtid: true,
            tls: false,
            fsync: false,
            settings: Vec::new(),
            start_timeout: Duration::from_secs(90),
        }
    }

    /// Adds a setting, as on the server's command line without the dashes.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running server of our own; stopped and removed when dropped.
///
/// The administrator `root` comes in through the unix socket alone; accounts for clients on TCP are made by SQL.
#[derive(Debug)]
pub struct MysqlCluster {
    options: MysqlOptions,
    programs: Programs,
    account: Account,
    port: u16,
    server: Option<Child>,
    certificates: Option<Certificates>,
    // Declared after `server`, dropped in this order: first nobody watches any more, then the directory goes.
    _watcher: Watcher,
    home: Home,
}

impl MysqlCluster {
    /// Creates a server and starts it. Takes a second or two; the first time on a machine some more, because the empty
    /// data directory is made then, and kept for later ones.
    ///
    /// MariaDB's programs are looked for in `TIDEMARK_MARIADB_BIN` and where its packages put them; MySQL's in
    /// `TIDEMARK_MYSQL_BIN`, in the tree that `scripts/mysql-server` makes, and where its packages put them. Root steps
    /// down to the account `mysql`, unless that account cannot reach the programs.
    pub fn start(options: MysqlOptions) -> Result<Self> {
        let programs = Programs::find(options.flavour)?;
        let account =
            if programs.reachable_by_others() { Account::choose(&["mysql", "nobody"])? } else { Account::Own };
        let home = Home::create(options.flavour.name(), &account, |dir| {
            let _ = Command::new("sh").args(["-c", KILL, "sh"]).arg(dir).output();
        })?;
        let watcher = Watcher::start(&home, KILL)?;
        let mut cluster =
            Self { options, programs, account, port: 0, server: None, certificates: None, _watcher: watcher, home };
        data::prepare(&cluster.programs, &cluster.account, &cluster.data_dir(), cluster.home.path())?;
        if cluster.options.tls {
            let certificates = Certificates::create(cluster.home.path(), "client")?;
            certificates.give_to(&cluster.account)?;
            cluster.certificates = Some(certificates);
        }
        cluster.start_again()?;
        Ok(cluster)
    }

    /// Which server this is.
    pub fn flavour(&self) -> MysqlFlavour {
        self.options.flavour
    }

    /// The port on 127.0.0.1. The same after [`MysqlCluster::start_again`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The unix socket; root and the server's account may reach it.
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("socket")
    }

    /// The server's log of errors.
    pub fn log_file(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// The data directory; binary logs are `binlog.000001` and so on.
    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// The certificates, if the server serves TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// Process number of the server, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// The server's own word for its version, e.g. `10.11.6-MariaDB-0+deb12u1-log`.
    pub fn version(&self) -> Result<String> {
        self.sql("SELECT version()")
    }

    /// The options, for the next [`MysqlCluster::start_again`].
    pub fn options_mut(&mut self) -> &mut MysqlOptions {
        &mut self.options
    }

    /// Runs SQL statements as `root` and gives back what they print: one line a row, columns divided by tabs, control
    /// characters escaped.
    pub fn sql(&self, sql: &str) -> Result<String> {
        self.statements(None, sql)
    }

    /// Runs SQL statements in `database`; each commits on its own unless the text says otherwise.
    pub fn sql_in(&self, database: &str, sql: &str) -> Result<String> {
        self.statements(Some(database), sql)
    }

    fn statements(&self, database: Option<&str>, sql: &str) -> Result<String> {
        let mut command = self.client(database);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = doing("starting the SQL client", command.spawn())?;
        let mut stdin = child.stdin.take();
        // Written by another thread: the client may answer more than a pipe holds before it has read everything.
        let output = std::thread::scope(|scope| {
            scope.spawn(move || stdin.as_mut().map(|pipe| pipe.write_all(sql.as_bytes())));
            child.wait_with_output()
        });
        let output = doing("running the SQL client", output)?;
        if !output.status.success() {
            let details = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::Failed { what: "an SQL statement".into(), details });
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
    }

    /// Runs an SQL file (`DELIMITER` included) in `database`, or in the one that the file chooses.
    pub fn sql_file(&self, database: Option<&str>, file: &Path) -> Result<()> {
        let input = doing(format!("opening {}", file.display()), File::open(file))?;
        run(&format!("running {}", file.display()), self.client(database).stdin(input)).map(drop)
    }

    /// A command that runs the SQL client as `root` on what it reads, as [`MysqlCluster::sql`] does.
    pub fn client(&self, database: Option<&str>) -> Command {
        let mut command = self.tool("client");
        command.args(["-u", "root", "--batch", "--skip-column-names", "--default-character-set=utf8mb4"]);
        command.arg("-S").arg(self.socket()).args(database);
        command
    }

    /// A command for one of the server's programs (`client`, `dump`, `binlog`), without its arguments; options files of
    /// the machine are left out.
    pub fn tool(&self, name: &str) -> Command {
        let mut command = self.programs.command(&Account::Own, name);
        command.arg("--no-defaults").current_dir("/").env_remove("MYSQL_PWD").env_remove("MYSQL_HOST");
        command
    }

    /// Creates an empty database.
    pub fn create_database(&self, name: &str) -> Result<()> {
        self.sql(&format!("CREATE DATABASE `{}`", name.replace('`', "``"))).map(drop)
    }

    /// Stops the server in order.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        signal(server.id(), "TERM")?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while doing("waiting for the server", server.try_wait())?.is_none() {
            if Instant::now() > deadline {
                return doing("killing the server", server.kill().and_then(|()| server.wait())).map(drop);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Kills the server with SIGKILL: the next start recovers.
    pub fn kill(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        doing("killing the server", server.kill().and_then(|()| server.wait())).map(drop)
    }

    /// Starts the server (again), on the same port and with the same data, and waits until it takes connections.
    pub fn start_again(&mut self) -> Result<()> {
        if self.server.is_some() {
            return Ok(());
        }
        let fixed = self.port != 0;
        let deadline = Instant::now() + self.options.start_timeout;
        loop {
            if !fixed {
                self.port = free_port()?;
            }
            match self.try_start(deadline) {
                Ok(()) => return Ok(()),
                // Another process may have taken the port in between.
                Err(_) if Instant::now() < deadline && tail_of(&self.log_file(), 12).contains("already in use") => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn try_start(&mut self, deadline: Instant) -> Result<()> {
        let log = doing("opening the log", File::options().append(true).create(true).open(self.log_file()))?;
        let errors = doing("opening the log", log.try_clone())?;
        let from = doing("reading the log", log.metadata())?.len();
        let mut command = self.programs.command(&self.account, "server");
        command.args(self.arguments()).stdout(log).stderr(errors);
        let mut child = doing("starting the server", command.spawn())?;
        loop {
            if let Some(status) = doing("waiting for the server", child.try_wait())? {
                return Err(self.not_started(status));
            }
            // The server's own word; earlier starts have left theirs before `from`.
            if self.log_from(from).contains("ready for connections") {
                self.server = Some(child);
                return Ok(());
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Error::NotReady {
                    what: format!("the {} server", self.options.flavour.name()),
                    seconds: self.options.start_timeout.as_secs(),
                    log: tail_of(&self.log_file(), 20),
                });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn not_started(&self, status: ExitStatus) -> Error {
        let details = format!("{status}; its log ends with:\n{}", tail_of(&self.log_file(), 12));
        Error::Failed { what: format!("starting the {} server", self.options.flavour.name()), details }
    }

    fn log_from(&self, offset: u64) -> String {
        let mut text = Vec::new();
        if let Ok(mut file) = File::open(self.log_file())
            && file.seek(SeekFrom::Start(offset)).is_ok()
        {
            let _ = file.read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    fn arguments(&self) -> Vec<OsString> {
        let path = |name: &str, path: PathBuf| {
            let mut argument = OsString::from(format!("--{name}="));
            argument.push(path);
            argument
        };
        let home = self.home.path();
        let mut all: Vec<OsString> = vec!["--no-defaults".into()];
        all.extend(self.programs.server_arguments(&self.account));
        all.extend([
            path("datadir", self.data_dir()),
            path("socket", self.socket()),
            path("pid-file", home.join("pid")),
            // A server that starts removes what another one of its kind has put into a directory that they share.
            path("tmpdir", home.to_path_buf()),
        ]);
        let mut settings: Vec<(&str, String)> = vec![
            ("bind-address", "127.0.0.1".into()),
            ("port", self.port.to_string()),
            ("server-id", self.options.server_id.to_string()),
            ("log-bin", "binlog".into()),
            ("binlog-format", "ROW".into()),
            ("binlog-row-image", "FULL".into()),
            ("binlog-row-metadata", "FULL".into()),
            ("default-time-zone", "+00:00".into()),
            ("character-set-server", "utf8mb4".into()),
            ("skip-name-resolve", String::new()),
            ("innodb-buffer-pool-size", "64M".into()),
        ];
        if !self.options.fsync {
            // The log is written at each commit, and reaches the disk when the system likes.
            settings.extend([("sync-binlog", "0".into()), ("innodb-flush-log-at-trx-commit", "2".into())]);
        }
        match self.options.flavour {
            // A replica logs what it applies, as MySQL does by default.
            MysqlFlavour::MariaDb => {
                settings.extend([("innodb-log-file-size", "48M".into()), ("log-slave-updates", "ON".into())])
            }
            MysqlFlavour::MySql => {
                settings.extend([("mysqlx", "OFF".into()), ("secure-file-priv", "NULL".into())]);
                settings.push(("innodb-redo-log-capacity", "64M".into()));
                if self.options.gtid {
                    settings.extend([("gtid-mode", "ON".into()), ("enforce-gtid-consistency", "ON".into())]);
                } else {
                    settings.push(("gtid-mode", "OFF".into()));
                }
                if !self.options.tls {
                    settings.push(("auto-generate-certs", "OFF".into()));
                }
            }
        }
        if let Some(certificates) = &self.certificates {
            all.push(path("ssl-ca", certificates.ca.clone()));
            all.push(path("ssl-cert", certificates.server_cert.clone()));
            all.push(path("ssl-key", certificates.server_key.clone()));
        }
        let further = self.options.settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
        for (name, value) in settings.into_iter().chain(further) {
            all.push(if value.is_empty() { format!("--{name}") } else { format!("--{name}={value}") }.into());
        }
        all
    }
}

impl Drop for MysqlCluster {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// What stops a server whose directory is `$1`. A number in a file may be that of another process by now, so the process
/// has to name the directory itself.
const KILL: &str = r#"p=$(cat "$1/pid" 2>/dev/null) && grep -qF -- "$1/" "/proc/$p/cmdline" && kill -KILL "$p""#;

/// Removes a file that need not be there.
fn remove_if_there(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            doing(format!("removing {}", file.display()), Err(error))
        }
        _ => Ok(()),
    }
}
