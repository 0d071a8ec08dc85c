//! SQL Server Agent and its two jobs for each database with change data capture: "Administer and monitor change data
//! capture", "sys.sp_cdc_add_job", "sys.dm_cdc_log_scan_sessions".

use super::capture;
use super::database::{Database, locked, state};
use super::server::Server;
use crate::options::Options;
use crate::types::datetime;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

/// A row of msdb.dbo.cdc_jobs.
#[derive(Clone, Debug)]
pub struct Job {
    /// `database_id`
    pub database: i64,
    /// `capture` or `cleanup`
    pub kind: &'static str,
    /// `job_id`, stored form.
    pub id: Vec<u8>,
    /// Transactions of one scan cycle.
    pub maxtrans: i64,
    /// Cycles of one scan.
    pub maxscans: i64,
    /// Seconds between scans.
    pub pollinginterval: i64,
    /// Minutes that change rows are kept.
    pub retention: i64,
    /// Rows deleted by one statement.
    pub threshold: i64,
}

/// One scan of the log.
#[derive(Clone, Debug, Default)]
pub struct Scan {
    /// `session_id`
    pub id: i64,
    /// Ticks.
    pub started: i64,
    /// Ticks.
    pub ended: i64,
    /// First commit LSN.
    pub first: Option<Vec<u8>>,
    /// Last commit LSN.
    pub last: Option<Vec<u8>>,
    /// Commit time of the last transaction.
    pub last_time: Option<i64>,
    /// `tran_count`
    pub transactions: i64,
    /// `command_count`
    pub commands: i64,
    /// Seconds between commit and capture of the last transaction.
    pub latency: i64,
    /// `empty_scan_count`
    pub empty: i64,
    /// `error_count`
    pub errors: i64,
    /// `failed_sessions_count`
    pub failed: i64,
}

/// A row of sys.dm_cdc_errors.
#[derive(Clone, Debug)]
pub struct ScanError {
    /// Scan session.
    pub session: i64,
    /// Ticks.
    pub at: i64,
    /// Error number.
    pub number: i32,
    /// Words.
    pub message: String,
}

#[derive(Debug, Default)]
struct PerDatabase {
    running: bool,
    lag: Duration,
    scans: VecDeque<Scan>,
    errors: VecDeque<ScanError>,
    fault: Option<(i32, String)>,
    last_mapped: Option<i64>,
    next_scan: i64,
}

#[derive(Debug)]
struct State {
    service: bool,
    stop: bool,
    woken: bool,
    jobs: Vec<Job>,
    databases: BTreeMap<i64, PerDatabase>,
}

/// The agent.
#[derive(Debug)]
pub struct Agent {
    state: Mutex<State>,
    bell: Condvar,
    poll: Duration,
    prompt: bool,
    manual: bool,
    heartbeat: Duration,
}

impl Agent {
    /// A running service without jobs.
    pub fn new(options: &Options) -> Self {
        Self {
            state: Mutex::new(State {
                service: true,
                stop: false,
                woken: false,
                jobs: Vec::new(),
                databases: BTreeMap::new(),
            }),
            bell: Condvar::new(),
            poll: options.poll,
            prompt: options.prompt_capture,
            manual: options.manual_capture,
            heartbeat: options.heartbeat,
        }
    }

    /// Makes both jobs of a database and starts the capture job: "sys.sp_cdc_enable_table", remarks.
    pub fn add_jobs(&self, database: i64) {
        let mut s = locked(&self.state);
        for kind in ["capture", "cleanup"] {
            if !s.jobs.iter().any(|j| j.database == database && j.kind == kind) {
                let id = crate::types::guid_store(&super::functions::random_bytes());
                s.jobs.push(Job {
                    database,
                    kind,
                    id,
                    maxtrans: 500,
                    maxscans: 10,
                    pollinginterval: 5,
                    retention: 4320,
                    threshold: 5000,
                });
                if kind == "capture" {
                    s.databases.entry(database).or_default().running = true;
                }
            }
        }
        self.ring(&mut s);
    }

    /// Removes the jobs of a database.
    pub fn remove_jobs(&self, database: i64) {
        let mut s = locked(&self.state);
        s.jobs.retain(|j| j.database != database);
        s.databases.remove(&database);
    }

    /// Removes one job: "sys.sp_cdc_drop_job". Answers whether it was there.
    pub fn remove_job(&self, database: i64, kind: &str) -> bool {
        let mut s = locked(&self.state);
        let before = s.jobs.len();
        s.jobs.retain(|j| j.database != database || j.kind != kind);
        s.jobs.len() < before
    }

    /// All jobs.
    pub fn jobs(&self) -> Vec<Job> {
        locked(&self.state).jobs.clone()
    }

    /// Changes a job.
    pub fn change_job(&self, database: i64, kind: &str, change: impl FnOnce(&mut Job)) -> bool {
        let mut s = locked(&self.state);
        match s.jobs.iter_mut().find(|j| j.database == database && j.kind == kind) {
            Some(j) => {
                change(j);
                true
            }
            None => false,
        }
    }

    /// Starts or stops the capture job of a database.
    pub fn run_capture(&self, database: i64, running: bool) {
        let mut s = locked(&self.state);
        s.databases.entry(database).or_default().running = running;
        self.ring(&mut s);
    }

    /// Starts or stops the whole service.
    pub fn run_service(&self, running: bool) {
        let mut s = locked(&self.state);
        s.service = running;
        self.ring(&mut s);
    }

    /// Whether the service runs.
    pub fn service_running(&self) -> bool {
        locked(&self.state).service
    }

    /// Whether no capture job works on the database.
    pub fn paused(&self, database: i64) -> bool {
        let s = locked(&self.state);
        let job = s.jobs.iter().any(|j| j.database == database && j.kind == "capture");
        !s.service || !job || !s.databases.get(&database).is_some_and(|d| d.running)
    }

    /// Transactions younger than this are not captured yet.
    pub fn set_lag(&self, database: i64, lag: Duration) {
        locked(&self.state).databases.entry(database).or_default().lag = lag;
    }

    /// Every scan of the database fails with this error, until cleared with `None`.
    pub fn set_fault(&self, database: i64, fault: Option<(i32, String)>) {
        locked(&self.state).databases.entry(database).or_default().fault = fault;
    }

    /// Rows of sys.dm_cdc_log_scan_sessions.
    pub fn scans(&self, database: i64) -> Vec<Scan> {
        locked(&self.state).databases.get(&database).map(|d| d.scans.iter().cloned().collect()).unwrap_or_default()
    }

    /// Rows of sys.dm_cdc_errors.
    pub fn errors(&self, database: i64) -> Vec<ScanError> {
        locked(&self.state).databases.get(&database).map(|d| d.errors.iter().cloned().collect()).unwrap_or_default()
    }

    /// Makes the scans of a database so much older.
    pub fn age_scans(&self, database: i64, by: Duration) {
        let ticks = i64::try_from(by.as_nanos() / 100).unwrap_or(0);
        if let Some(d) = locked(&self.state).databases.get_mut(&database) {
            for scan in &mut d.scans {
                (scan.started, scan.ended) = (scan.started - ticks, scan.ended - ticks);
            }
        }
    }

    fn ring(&self, s: &mut State) {
        s.woken = true;
        self.bell.notify_all();
    }

    /// Tells the job thread that something was committed.
    pub fn wake(&self) {
        if self.prompt {
            self.ring(&mut locked(&self.state));
        }
    }

    /// Ends the job thread.
    pub fn shut_down(&self) {
        let mut s = locked(&self.state);
        s.stop = true;
        self.ring(&mut s);
    }

    /// Starts the thread that is the capture jobs of all databases. It ends with the server.
    pub fn start(server: &Arc<Server>) -> std::io::Result<()> {
        let weak = Arc::downgrade(server);
        std::thread::Builder::new().name("sqlserver-sim-agent".into()).spawn(move || work(&weak)).map(drop)
    }

    /// One scan of a database, whether its job runs or not. The answer counts transactions.
    pub fn scan(&self, db: &Database, quirks: crate::options::Quirks) -> crate::error::Result<i64> {
        let started = datetime::now();
        let (lag, fault, last_mapped) = {
            let mut s = locked(&self.state);
            let d = s.databases.entry(db.id).or_default();
            (d.lag, d.fault.clone(), d.last_mapped)
        };
        if let Some((number, message)) = fault {
            let mut s = locked(&self.state);
            let d = s.databases.entry(db.id).or_default();
            d.next_scan += 1;
            d.errors.push_back(ScanError { session: d.next_scan, at: started, number, message });
            d.scans.push_back(Scan {
                id: d.next_scan,
                started,
                ended: datetime::now(),
                errors: 1,
                failed: 1,
                ..Scan::default()
            });
            trim(d);
            return Ok(0);
        }
        let (maxtrans, maxscans) = locked(&self.state)
            .jobs
            .iter()
            .find(|j| j.database == db.id && j.kind == "capture")
            .map_or((500, 10), |j| (j.maxtrans, j.maxscans));
        let limit =
            capture::Limits { transactions: maxtrans * maxscans, lag, heartbeat: self.heartbeat, last_mapped, quirks };
        let done = capture::scan(db, &limit)?;
        let mut s = locked(&self.state);
        let d = s.databases.entry(db.id).or_default();
        if done.mapped {
            d.last_mapped = Some(datetime::now());
        }
        let empty = done.transactions == 0;
        match d.scans.back_mut() {
            // Empty scans in a row are one row with a count.
            Some(last) if empty && last.transactions == 0 && last.errors == 0 => {
                last.empty += 1;
                last.ended = datetime::now();
            }
            _ => {
                d.next_scan += 1;
                d.scans.push_back(Scan {
                    id: d.next_scan,
                    started,
                    ended: datetime::now(),
                    latency: done.last_time.map_or(0, |t| (datetime::now() - t).max(0) / datetime::SECOND),
                    first: done.first,
                    last: done.last,
                    last_time: done.last_time,
                    transactions: done.transactions,
                    commands: done.commands,
                    empty: i64::from(empty),
                    ..Scan::default()
                });
            }
        }
        trim(d);
        Ok(done.transactions)
    }
}

fn trim(d: &mut PerDatabase) {
    while d.scans.len() > 32 {
        d.scans.pop_front();
    }
    while d.errors.len() > 32 {
        d.errors.pop_front();
    }
}

fn work(server: &Weak<Server>) {
    loop {
        let Some(server) = server.upgrade() else { return };
        let agent = &server.agent;
        {
            let mut s = locked(&agent.state);
            if s.stop {
                return;
            }
            if !s.woken {
                s = agent.bell.wait_timeout(s, agent.poll).unwrap_or_else(std::sync::PoisonError::into_inner).0;
            }
            s.woken = false;
            if s.stop {
                return;
            }
        }
        if !agent.manual {
            for db in server.databases() {
                if agent.paused(db.id) {
                    continue;
                }
                let enabled = db.borrow().and_then(|c| state(&c, "cdc")).unwrap_or(0) == 1;
                // A busy database (an open writing transaction) is scanned later.
                if enabled && agent.scan(&db, server.options.quirks).is_err() {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            // Several commits in a row are scanned together.
            std::thread::sleep(agent.poll.min(Duration::from_millis(10)));
        }
    }
}
