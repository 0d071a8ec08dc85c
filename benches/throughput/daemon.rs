//! The daemon and the reference CRM, as processes of their own.

use crate::Failure;
use crate::process::{cpu, peak_memory};
use crate::source::{DATABASE, Source, USER};
use crate::table::Run;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tidemark::admin::Client;
use tidemark::status::{State, StatusReport, TablePhase};

/// The program that is measured: another one than the one just built if this variable names it.
const PROGRAM_VARIABLE: &str = "TIDEMARK_BENCH_PROGRAM";

fn program() -> Command {
    let program = std::env::var_os(PROGRAM_VARIABLE).unwrap_or_else(|| env!("CARGO_BIN_EXE_tidemark").into());
    Command::new(program)
}

/// Nothing here takes longer, or it has failed.
const LIMIT: Duration = Duration::from_secs(1800);

/// The mapping: 12 fields of 14 columns, with a `case`, a nested object, a JSON column and texts put together.
const PACK: &str = r#"tidemark = 1
[pack]
name = "throughput"
version = "1.0.0"
[record.customer]
from = "customers as c"
external_id = "c.id"
on_delete = "delete"
[record.customer.fields]
name = "concat(c.first_name, ' ', c.last_name)"
company = "trim(c.company)"
email = "lower(c.email)"
phone = "c.phone"
address = { object = { street = "c.street", city = "c.city", country = "c.country" } }
credit_limit = "c.credit_limit"
tier = "case when c.credit_limit >= 50000 then 'gold' when c.credit_limit >= 10000 then 'silver' else 'standard' end"
active = "cast(c.active as boolean)"
created_at = "c.created_at"
updated_at = "c.updated_at"
attributes = "c.attributes"
note = "c.note"
"#;

/// The model that the reference CRM publishes and checks records against.
const MODEL: &str = r#"{"customer": {"type": "object", "required": ["name"], "properties": {
    "name": {"type": "string"}, "company": {"type": ["string", "null"]}, "email": {"type": ["string", "null"]},
    "phone": {"type": ["string", "null"]},
    "address": {"type": ["object", "null"], "properties": {"street": {"type": ["string", "null"]},
        "city": {"type": ["string", "null"]}, "country": {"type": ["string", "null"]}}},
    "credit_limit": {"type": ["number", "null"]},
    "tier": {"type": ["string", "null"], "enum": ["gold", "silver", "standard", null]},
    "active": {"type": "boolean"}, "created_at": {"type": "string", "format": "date-time"},
    "updated_at": {"type": "string", "format": "date-time"},
    "attributes": {"type": ["object", "null"], "additionalProperties": true}, "note": {"type": ["string", "null"]}}}}"#;

/// The reference CRM in memory, without histories.
pub struct DevCrm {
    child: Child,
    url: String,
}

impl DevCrm {
    pub fn start(dir: &Path) -> Result<Self, Failure> {
        let model = dir.join("model.json");
        std::fs::write(&model, MODEL)?;
        let mut command = program();
        command.args(["dev-crm", "--listen", "127.0.0.1:0", "--history", "0", "--schema"]).arg(model);
        let log = File::create(dir.join("crm.log"))?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let mut url = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut url)?;
        }
        Ok(Self { child, url: url.trim().to_owned() })
    }

    fn cpu(&self) -> Duration {
        cpu(self.child.id())
    }
}

impl Drop for DevCrm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a tenant's records go.
#[derive(Clone, Copy)]
pub enum Target<'a> {
    Null,
    Loopback(&'a DevCrm),
}

/// A tenant: its file and its state directory.
pub struct Tenant<'a> {
    pub name: String,
    dir: PathBuf,
    source: &'a Source,
    target: Target<'a>,
    client: Client,
    runtime: tokio::runtime::Runtime,
    /// Where `perf record` leaves what it sees.
    profile: Option<PathBuf>,
}

impl<'a> Tenant<'a> {
    pub fn new(
        dir: &Path,
        name: &str,
        source: &'a Source,
        target: Target<'a>,
        profile: Option<PathBuf>,
    ) -> Result<Self, Failure> {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir)?;
        // SQL Server keeps JSON as text.
        let json = if source.has_json() { "c.attributes" } else { "cast(c.attributes as json)" };
        std::fs::write(dir.join("mapping.toml"), PACK.replace("c.attributes", json))?;
        let crm = match target {
            Target::Null => "profile = \"null\"".to_owned(),
            Target::Loopback(crm) => {
                format!("profile = \"rest\"\nbase_url = \"{}\"\nauth = {{ type = \"none\" }}", crm.url)
            }
        };
        let text = format!(
            "tidemark = 1\ntenant = \"{name}\"\n\
             [source]\nhost = \"127.0.0.1\"\ndatabase = \"{DATABASE}\"\nuser = \"{USER}\"\n\
             tls = {{ mode = \"disable\" }}\ntime_zone = \"UTC\"\n{}\n\
             [mapping]\npack = \"./mapping.toml\"\n[crm]\n{crm}\n[state]\ndir = \"./state\"\n",
            source.engine(name),
        );
        std::fs::write(dir.join("tenant.toml"), text)?;
        let client = Client::new(&dir.join("state").join("admin.sock"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { name: name.to_owned(), dir, source, target, client, runtime, profile })
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = program();
        command.args(words).arg("--config").arg(self.dir.join("tenant.toml")).stdin(Stdio::null());
        command.env_remove("TIDEMARK_LOG").env("NO_COLOR", "1");
        command
    }

    /// Starts the daemon; `scene` names the profile, if there is one.
    pub fn start(&self, scene: &str) -> Result<Daemon<'_>, Failure> {
        let log = File::options().create(true).append(true).open(self.log_file())?;
        let server = self.source.cpu();
        let crm = self.crm_cpu();
        let begun = Instant::now();
        let child = self.command(&["run"]).stdout(log.try_clone()?).stderr(log).spawn()?;
        let perf = self.profile.as_ref().map(|dir| {
            let mut perf = Command::new("perf");
            perf.args(["record", "-q", "-F", "997", "-g", "-p", &child.id().to_string(), "-o"]);
            perf.arg(dir.join(format!("{}-{scene}.data", self.name))).stdin(Stdio::null()).stderr(Stdio::null()).spawn()
        });
        let perf = perf.transpose()?;
        Ok(Daemon { tenant: self, child, perf, begun, server, crm, client: Duration::ZERO })
    }

    /// A status of the running daemon; an empty one as long as it does not answer.
    pub fn status(&self) -> StatusReport {
        self.runtime.block_on(self.client.status()).unwrap_or_default()
    }

    fn crm_cpu(&self) -> Option<Duration> {
        match self.target {
            Target::Null => None,
            Target::Loopback(crm) => Some(crm.cpu()),
        }
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("daemon.log")
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}

/// Records of the one entity that have come to an end, whichever.
pub fn settled(report: &StatusReport) -> u64 {
    report.entities.iter().map(|e| e.delivered + e.suppressed + e.coalesced + e.rejected).sum()
}

/// Whether the snapshot is complete and nothing is under way.
pub fn is_live(report: &StatusReport) -> bool {
    report.state == State::Live
        && !report.tables.is_empty()
        && report.tables.iter().all(|table| table.phase == TablePhase::Live)
        && report.lag.pending_changes == 0
        && report.delivery.records_in_flight == 0
}

/// A running daemon, and what was used when it began.
pub struct Daemon<'a> {
    tenant: &'a Tenant<'a>,
    child: Child,
    perf: Option<Child>,
    begun: Instant,
    server: Duration,
    crm: Option<Duration>,
    client: Duration,
}

impl Daemon<'_> {
    /// Waits for a report of which this is true.
    pub fn until(&mut self, what: &str, is: impl Fn(&StatusReport) -> bool) -> Result<StatusReport, Failure> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let report = self.tenant.status();
            if is(&report) {
                return Ok(report);
            }
            let dead = report.entities.iter().map(|e| e.dead_letters + e.rejected).sum::<u64>();
            let problem = match self.child.try_wait()? {
                Some(status) => format!("the daemon ended ({status})"),
                None if dead > 0 => format!("{dead} records were set aside"),
                None if report.state == State::NeedsAttention => "a table needs attention".to_owned(),
                None if Instant::now() > deadline => format!("still waiting after {} s", LIMIT.as_secs()),
                None => {
                    std::thread::sleep(Duration::from_millis(50));
                    continue;
                }
            };
            let tenant = &self.tenant.name;
            return Err(format!("{tenant}: {what}: {problem}\n{}", self.tenant.last_words()).into());
        }
    }

    /// From here on is measured: for a daemon that has been running.
    pub fn begin(&mut self) {
        self.server = self.tenant.source.cpu();
        self.crm = self.tenant.crm_cpu();
        self.client = cpu(self.child.id());
        self.begun = Instant::now();
    }

    /// What was used since the beginning.
    pub fn measured(&self, name: &str, rows: u64) -> Run {
        let pid = self.child.id();
        let wall = self.begun.elapsed();
        let crm = self.tenant.crm_cpu().zip(self.crm).map(|(now, then)| now - then);
        Run {
            name: name.to_owned(),
            rows,
            wall,
            client: cpu(pid) - self.client,
            server: self.tenant.source.cpu() - self.server,
            crm,
            memory: peak_memory(pid),
        }
    }

    /// Waits until the server was told that it may forget everything before `place`.
    pub fn confirmed(&mut self, place: &str) -> Result<(), Failure> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !self.tenant.source.is_confirmed(&self.tenant.name, place)? {
            if Instant::now() > deadline {
                let words = self.tenant.last_words();
                return Err(format!("{}: the server does not know of {place}\n{words}", self.tenant.name).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Requests that wrote to the CRM, by the daemon's own account.
    pub fn write_requests(&self) -> Result<u64, Failure> {
        use std::io::{Read as _, Write as _};
        let socket = self.tenant.dir.join("state").join("admin.sock");
        let mut stream = std::os::unix::net::UnixStream::connect(socket)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        if !page.contains("tidemark_build_info") {
            return Err("the daemon gives no metrics".into());
        }
        let requests = page.lines().filter(|line| line.starts_with("tidemark_crm_requests_total{"));
        let numbers = requests.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(numbers.sum::<f64>() as u64)
    }

    /// SIGTERM, and the end in order.
    pub fn stop(mut self) -> Result<(), Failure> {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        if !status.success() {
            return Err("the daemon was gone already".into());
        }
        let status = self.child.wait()?;
        self.end_profile();
        if status.success() {
            Ok(())
        } else {
            Err(format!("the daemon ended with {status}\n{}", self.tenant.last_words()).into())
        }
    }

    /// SIGKILL.
    pub fn kill(mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        self.end_profile();
        Ok(())
    }

    fn end_profile(&mut self) {
        // It ends by itself when the process that it looks at has ended.
        if let Some(mut perf) = self.perf.take() {
            let _ = perf.wait();
        }
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.end_profile();
    }
}
