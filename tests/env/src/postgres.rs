//! A throwaway PostgreSQL cluster.

use crate::home::{Account, Home, Watcher, signal};
use crate::{Certificates, Error, Result, doing, free_port, on_path, run, tail_of};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How clients from 127.0.0.1 are authenticated. The unix socket always trusts: it lies in a private directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Auth {
    /// Anybody is who they say.
    #[default]
    Trust,
    /// SCRAM-SHA-256 with the role's password.
    Scram,
    /// MD5 with the role's password (roles made while `password_encryption` was `md5`).
    Md5,
    /// The password as it is.
    Password,
    /// A client certificate of the throwaway authority ([`PostgresOptions::ssl`]).
    Certificate,
}

impl Auth {
    fn method(self) -> &'static str {
        match self {
            Auth::Trust => "trust",
            Auth::Scram => "scram-sha-256",
            Auth::Md5 => "md5",
            Auth::Password => "password",
            Auth::Certificate => "cert",
        }
    }
}

/// What kind of cluster to start. The default suits tests of replication: `wal_level = logical`, no fsync.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// How clients from 127.0.0.1 are authenticated.
    pub auth: Auth,
    /// Password of the superuser; needed for anything but [`Auth::Trust`].
    pub password: Option<String>,
    /// Whether to serve TLS, with certificates of a throwaway authority ([`PostgresCluster::certificates`]). Clients
    /// without TLS are then refused on TCP.
    pub ssl: bool,
    /// Whether written data is forced to the disk. Off by default: such a cluster survives any crash of its own, but
    /// not one of the machine.
    pub fsync: bool,
    /// Further settings as `(name, value)`, after and above the ones chosen here.
    pub settings: Vec<(String, String)>,
    /// How long to wait for the server to become ready.
    pub start_timeout: Duration,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            auth: Auth::Trust,
            password: None,
            ssl: false,
            fsync: false,
            settings: Vec::new(),
            start_timeout: Duration::from_secs(60),
        }
    }
}

impl PostgresOptions {
    /// Adds a setting of `postgresql.conf`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running cluster of our own; stopped and removed when dropped.
#[derive(Debug)]
pub struct PostgresCluster {
    options: PostgresOptions,
    bin: PathBuf,
    account: Account,
    port: u16,
    server: Option<Child>,
    certificates: Option<Certificates>,
    // Declared after `server`, dropped in this order: first nobody watches any more, then the directory goes.
    _watcher: Watcher,
    home: Home,
}

impl PostgresCluster {
    /// Creates a cluster and starts it. Takes about a second.
    ///
    /// The programs are looked for in `TIDEMARK_PG_BIN`, in `/usr/lib/postgresql/*/bin` (the newest), and in `PATH`.
    /// Root steps down to the account `postgres`.
    pub fn start(options: PostgresOptions) -> Result<Self> {
        let bin = find_binaries()?;
        let account = Account::choose(&["postgres", "nobody"])?;
        let home = Home::create("postgres", &account, |dir| {
            let data = dir.join("data");
            let _ = account.command(&bin.join("pg_ctl")).args(STOP).arg("-D").arg(data).output();
        })?;
        let stop = format!("{} {} -D \"$1/data\"", shell_quote(&bin.join("pg_ctl")), STOP.join(" "));
        let watcher = Watcher::start(&home, &watcher_command(&account, &stop))?;
        let mut cluster =
            Self { options, bin, account, port: 0, server: None, certificates: None, _watcher: watcher, home };
        cluster.initialise()?;
        cluster.start_again()?;
        Ok(cluster)
    }

    /// The port on 127.0.0.1. The same after [`PostgresCluster::start_again`].
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The superuser's name.
    pub fn user(&self) -> &'static str {
        SUPERUSER
    }

    /// Directory of the unix socket `.s.PGSQL.<port>`; root and the server's account may enter it.
    pub fn socket_dir(&self) -> &Path {
        self.home.path()
    }

    /// The server's log file.
    pub fn log_file(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// The certificates, if the cluster serves TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// Process number of the server's first process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Child::id)
    }

    /// The major version, e.g. 15.
    pub fn major_version(&self) -> Result<u32> {
        let output = run("asking for the version", Command::new(self.bin.join("postgres")).arg("--version"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let digits = |s: &str| s.chars().take_while(char::is_ascii_digit).collect::<String>();
        text.split_whitespace()
            .find_map(|word| digits(word).parse().ok())
            .ok_or_else(|| Error::Failed { what: "reading the version".into(), details: text.trim().to_owned() })
    }

    /// Runs SQL statements in database `postgres` and gives back what they print: one line a row, columns divided by `|`.
    pub fn psql(&self, sql: &str) -> Result<String> {
        self.psql_in("postgres", sql)
    }

    /// Runs SQL statements in `database`; each commits on its own unless the text says otherwise.
    pub fn psql_in(&self, database: &str, sql: &str) -> Result<String> {
        let mut command = self.psql_command(database);
        command.args(["-q", "-At", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = doing("starting psql", command.spawn())?;
        let mut stdin = child.stdin.take();
        // Written by another thread: psql may answer more than a pipe holds before it has read everything.
        let output = std::thread::scope(|scope| {
            scope.spawn(move || stdin.as_mut().map(|pipe| pipe.write_all(sql.as_bytes())));
            child.wait_with_output()
        });
        let output = doing("running psql", output)?;
        if !output.status.success() {
            let details = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Error::Failed { what: "an SQL statement".into(), details });
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Runs an SQL file (`COPY … FROM stdin` included) in `database`.
    pub fn psql_file(&self, database: &str, file: &Path) -> Result<()> {
        let input = doing(format!("opening {}", file.display()), File::open(file))?;
        let mut command = self.psql_command(database);
        command.args(["-q", "-f", "-"]).stdin(input);
        run(&format!("running {}", file.display()), &mut command).map(drop)
    }

    /// Creates an empty database.
    pub fn createdb(&self, name: &str) -> Result<()> {
        self.psql(&format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""))).map(drop)
    }

    /// Stops the server in order; clients are disconnected.
    pub fn stop_fast(&mut self) -> Result<()> {
        self.stop("INT")
    }

    /// Stops the server at once, as a crash would: the next start recovers.
    pub fn stop_immediate(&mut self) -> Result<()> {
        self.stop("QUIT")
    }

    /// Kills the server's first process with SIGKILL; its children notice and leave.
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
                // Another process may have taken the port in between, and after a kill the old children may still be
                // leaving: both pass.
                Err(error) if Instant::now() < deadline && self.failure_passes() => {
                    drop(error);
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn failure_passes(&self) -> bool {
        let log = tail_of(&self.log_file(), 12);
        ["Address already in use", "shared memory block", "could not bind", "lock file"].iter().any(|s| log.contains(s))
    }

    fn try_start(&mut self, deadline: Instant) -> Result<()> {
        let log = doing("opening the log", File::options().append(true).create(true).open(self.log_file()))?;
        let errors = doing("opening the log", log.try_clone())?;
        let mut command = self.account.command(&self.bin.join("postgres"));
        command.arg("-D").arg(self.data_dir()).arg("-p").arg(self.port.to_string()).stdout(log).stderr(errors);
        let mut child = doing("starting postgres", command.spawn())?;
        loop {
            if let Some(status) = doing("waiting for postgres", child.try_wait())? {
                return Err(self.not_started(status));
            }
            if self.is_ready(child.id()) {
                self.server = Some(child);
                return Ok(());
            }
            if Instant::now() > deadline {
                let _ = signal(child.id(), "QUIT");
                let _ = child.wait();
                return Err(Error::NotReady {
                    what: "the PostgreSQL server".into(),
                    seconds: self.options.start_timeout.as_secs(),
                    log: tail_of(&self.log_file(), 20),
                });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn not_started(&self, status: ExitStatus) -> Error {
        let details = format!("{status}; its log ends with:\n{}", tail_of(&self.log_file(), 12));
        Error::Failed { what: "starting the PostgreSQL server".into(), details }
    }

    /// The eighth line of `postmaster.pid` is the server's own word on whether it takes connections.
    fn is_ready(&self, pid: u32) -> bool {
        let text = fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap_or_default();
        let mut lines = text.lines();
        lines.next().is_some_and(|l| l.trim() == pid.to_string()) && lines.nth(6).is_some_and(|l| l.trim() == "ready")
    }

    fn stop(&mut self, name: &str) -> Result<()> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        signal(server.id(), name)?;
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if doing("waiting for postgres", server.try_wait())?.is_some() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return doing("killing the server", server.kill().and_then(|()| server.wait())).map(drop);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn psql_command(&self, database: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        command.args(["-X", "-v", "ON_ERROR_STOP=1", "-U", SUPERUSER, "-d", database, "-p", &self.port.to_string()]);
        command.arg("-h").arg(self.socket_dir()).current_dir("/").env("PGOPTIONS", "").env("PGCLIENTENCODING", "UTF8");
        command
    }

    fn initialise(&mut self) -> Result<()> {
        let data = self.data_dir();
        let mut initdb = self.account.command(&self.bin.join("initdb"));
        initdb.arg("-D").arg(&data).args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]);
        initdb.args(["--no-sync", "--no-instructions"]);
        run("initdb", &mut initdb)?;
        if self.options.ssl {
            let certificates = Certificates::create(self.home.path(), SUPERUSER)?;
            certificates.give_to(&self.account)?;
            self.certificates = Some(certificates);
        }
        self.append("postgresql.conf", &self.configuration())?;
        let host = if self.options.ssl { "hostssl" } else { "host" };
        let method = self.options.auth.method();
        let hba = format!("local all all trust\n{host} all all 127.0.0.1/32 {method}\n");
        doing("writing pg_hba.conf", fs::write(data.join("pg_hba.conf"), hba))?;
        if let Some(password) = &self.options.password {
            // In single-user mode, so that no moment exists in which the server listens without the password.
            let sql = format!("ALTER ROLE {SUPERUSER} PASSWORD '{}'\n", password.replace('\'', "''"));
            let mut command = self.account.command(&self.bin.join("postgres"));
            command.arg("--single").arg("-D").arg(&data).arg("postgres").stdin(Stdio::piped()).stdout(Stdio::null());
            let mut child = doing("starting postgres", command.stderr(Stdio::piped()).spawn())?;
            if let Some(mut pipe) = child.stdin.take() {
                doing("setting the password", pipe.write_all(sql.as_bytes()))?;
            }
            let output = doing("setting the password", child.wait_with_output())?;
            if !output.status.success() {
                let details = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(Error::Failed { what: "setting the password".into(), details });
            }
        }
        Ok(())
    }

    fn configuration(&self) -> String {
        let mut text = String::from("\n# Throwaway cluster\nlisten_addresses = '127.0.0.1'\n");
        let socket_dir = self.home.path().display().to_string();
        let mut settings: Vec<(&str, &str)> = vec![
            ("unix_socket_directories", &socket_dir),
            ("wal_level", "logical"),
            ("max_wal_senders", "20"),
            ("max_replication_slots", "20"),
            ("max_connections", "100"),
            ("shared_buffers", "64MB"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("log_line_prefix", "%m [%p] "),
        ];
        if !self.options.fsync {
            settings.extend([("fsync", "off"), ("full_page_writes", "off")]);
        }
        if self.options.auth == Auth::Md5 {
            settings.push(("password_encryption", "md5"));
        }
        let files = self.certificates.as_ref().map(|c| {
            let name = |path: &Path| path.display().to_string();
            [
                ("ssl_cert_file", name(&c.server_cert)),
                ("ssl_key_file", name(&c.server_key)),
                ("ssl_ca_file", name(&c.ca)),
            ]
        });
        if let Some(files) = &files {
            settings.push(("ssl", "on"));
            settings.extend(files.iter().map(|(name, value)| (*name, value.as_str())));
        }
        settings.extend(self.options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        for (name, value) in settings {
            let _ = writeln!(text, "{name} = '{}'", value.replace('\'', "''"));
        }
        text
    }

    fn append(&self, file: &str, text: &str) -> Result<()> {
        let path = self.data_dir().join(file);
        let mut file = doing(format!("opening {}", path.display()), File::options().append(true).open(&path))?;
        doing(format!("writing {}", path.display()), file.write_all(text.as_bytes()))
    }
}

impl Drop for PostgresCluster {
    fn drop(&mut self) {
        let _ = self.stop_immediate();
    }
}

const SUPERUSER: &str = "postgres";
const STOP: [&str; 5] = ["stop", "-s", "-m", "immediate", "-W"];

/// What the watcher runs; pg_ctl refuses to run as root, so root kills by the number in the pid file instead.
fn watcher_command(account: &Account, stop: &str) -> String {
    match account {
        Account::Own => stop.to_owned(),
        Account::Other { .. } => "p=$(head -n 1 \"$1/data/postmaster.pid\") && kill -QUIT \"$p\"".to_owned(),
    }
}

fn shell_quote(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// The directory with `initdb`, `postgres`, `pg_ctl` and `psql`.
fn find_binaries() -> Result<PathBuf> {
    let complete = |dir: &Path| ["initdb", "postgres", "pg_ctl", "psql"].iter().all(|p| dir.join(p).is_file());
    if let Some(dir) = std::env::var_os("TIDEMARK_PG_BIN").map(PathBuf::from) {
        if complete(&dir) {
            return Ok(dir);
        }
        return Err(missing("TIDEMARK_PG_BIN"));
    }
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, dir)| complete(dir))
        .collect();
    versions.sort();
    versions
        .pop()
        .map(|(_, dir)| dir)
        .or_else(|| on_path("initdb").filter(|dir| complete(dir)))
        .ok_or_else(|| missing("TIDEMARK_PG_BIN, /usr/lib/postgresql/*/bin, PATH"))
}

fn missing(looked_in: &str) -> Error {
    Error::Missing {
        program: "initdb, postgres, pg_ctl, psql".into(),
        looked_in: format!("looked in {looked_in}"),
        advice: "install PostgreSQL (Debian, Ubuntu: `apt-get install postgresql`) or set TIDEMARK_PG_BIN".into(),
    }
}
