//! How fast rows and changes go through, beside what the database's own tools make of the same data in the same run.
//!
//! `cargo bench --bench throughput -- --help`; `make bench` installs what is missing first. What the numbers mean, and
//! those of a real run, are in `docs/benchmarks.md`.

mod daemon;
mod process;
mod source;
mod table;

use clap::Parser;
use daemon::{DevCrm, Target, Tenant, is_live, settled};
use source::{Backlog, Server, Source};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use table::{Report, Run, grouped};
use tidemark::status::StatusReport;

type Failure = Box<dyn std::error::Error>;

/// How fast rows and changes go through, beside what the database's own tools make of the same data.
#[derive(Parser)]
struct Options {
    /// The server.
    #[arg(long, value_enum, default_value = "postgres")]
    source: Server,
    /// Rows of the table; the changes of the tail are half as many.
    #[arg(long, env = "TIDEMARK_BENCH_ROWS", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    rows: u64,
    /// Changes of the tail's backlog, in place of half the rows.
    #[arg(long, env = "TIDEMARK_BENCH_CHANGES")]
    changes: Option<u64>,
    /// Transactions of the tail's backlog.
    #[arg(long, default_value_t = 700, value_parser = clap::value_parser!(u64).range(1..))]
    transactions: u64,
    /// Which parts are run. Without `null` and `loopback` only the database's own tools are.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "null,loopback,tail,giant,unchanged,restart")]
    parts: Vec<Part>,
    /// The table as Markdown.
    #[arg(long)]
    markdown: bool,
    /// Record each run of the daemon with `perf record` into this directory.
    #[arg(long, value_name = "DIR")]
    profile: Option<PathBuf>,
    /// Given by `cargo bench`; nothing is measured without it.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The daemon with a CRM that takes everything and keeps nothing.
    Null,
    /// The daemon with the reference CRM in memory, over loopback HTTP.
    Loopback,
    /// A backlog of many transactions.
    Tail,
    /// One transaction that updates every row.
    Giant,
    /// A start and a resync with nothing changed.
    Unchanged,
    /// Killed in the middle of a snapshot.
    Restart,
}

impl Options {
    fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    // `cargo test --all-targets` starts benchmarks too, to see that they build.
    if !options.bench {
        say("this is a benchmark: cargo bench --bench throughput");
        return ExitCode::SUCCESS;
    }
    let mut report = Report::default();
    let result = run(&options, &mut report);
    print!("{}", report.render(options.markdown));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    eprintln!("{text}");
}

fn run(options: &Options, report: &mut Report) -> Result<(), Failure> {
    let machine = process::machine();
    let dir = tempfile::tempdir()?;
    if let Some(profiles) = &options.profile {
        std::fs::create_dir_all(profiles)?;
    }
    say(&format!("a server with {} rows", grouped(options.rows)));
    let source = Source::start(options.source, options.rows)?;
    report.note(format!(
        "{machine}; {}; {} rows of {}.",
        source.version()?,
        grouped(options.rows),
        source.row_bytes(options.rows)?
    ));
    let crm = if options.has(Part::Loopback) { Some(DevCrm::start(dir.path())?) } else { None };
    let null = options.has(Part::Null).then_some(("null", Target::Null));
    let loopback = crm.as_ref().map(|crm| ("loopback", Target::Loopback(crm)));
    let tenants: Vec<Tenant<'_>> = null
        .into_iter()
        .chain(loopback)
        .map(|(name, target)| Tenant::new(dir.path(), name, &source, target, options.profile.clone()))
        .collect::<Result<_, _>>()?;

    snapshot(report, &source, &tenants)?;
    if options.has(Part::Tail) {
        tail(options, report, &source, &tenants)?;
    }
    if options.has(Part::Unchanged)
        && let Some(tenant) = tenants.last()
    {
        unchanged(report, &source, tenant)?;
    }
    for tenant in tenants.iter().skip(1) {
        source.forget(&tenant.name)?;
    }
    if options.has(Part::Giant) {
        giant(report, &source, tenants.first())?;
    }
    if options.has(Part::Restart) {
        restart(options, report, &source, dir.path())?;
    }
    Ok(())
}

/// The whole table into each CRM, beside the vendor's tool.
fn snapshot(report: &mut Report, source: &Source, tenants: &[Tenant<'_>]) -> Result<(), Failure> {
    say("snapshot");
    let limit = source.copy(3)?;
    match &limit {
        Some(limit) => report.add(limit, None),
        None => {
            report.note("There is no tool of the vendor's to compare with: the CPU columns are what this run is for.")
        }
    }
    for tenant in tenants {
        let mut daemon = tenant.start("snapshot")?;
        let end = daemon.until("snapshot", is_live)?;
        let run = daemon.measured(&format!("tidemark snapshot → {}", tenant.name), source.rows);
        expect(&format!("{}: records delivered", tenant.name), end.entities[0].delivered, source.rows)?;
        daemon.stop()?;
        report.add(&run, limit.as_ref());
    }
    Ok(())
}

/// A backlog of many transactions into each CRM, beside the vendor's reader of the log.
fn tail(options: &Options, report: &mut Report, source: &Source, tenants: &[Tenant<'_>]) -> Result<(), Failure> {
    say("tail");
    source.keep_log()?;
    let backlog =
        source.write_backlog(source.rows, options.changes.unwrap_or(options.rows / 2), options.transactions)?;
    report.note(format!(
        "The tail's backlog: {} changes (60 % inserts, 36 % updates, 4 % deletes) in {} transactions.",
        grouped(backlog.changes),
        backlog.transactions
    ));
    let limit = source.receive(&backlog)?;
    if let Some(limit) = &limit {
        report.add(limit, None);
    }
    for tenant in tenants {
        let run = drain(tenant, &backlog, "tail", &format!("tidemark tail → {}", tenant.name))?;
        report.add(&run, limit.as_ref());
    }
    Ok(())
}

/// Drains a backlog and sees to it that the server knows.
fn drain(tenant: &Tenant<'_>, backlog: &Backlog, scene: &str, name: &str) -> Result<Run, Failure> {
    let is_drained = |report: &StatusReport| {
        is_live(report) && report.tables[0].changes >= backlog.changes && settled(report) >= backlog.changes
    };
    let mut daemon = tenant.start(scene)?;
    let end = daemon.until(scene, is_drained)?;
    let run = daemon.measured(name, backlog.changes);
    expect("changes received", end.tables[0].changes, backlog.changes)?;
    daemon.confirmed(&backlog.end)?;
    daemon.stop()?;
    Ok(run)
}

/// A start with nothing new, then the whole table read again: no request is made.
fn unchanged(report: &mut Report, source: &Source, tenant: &Tenant<'_>) -> Result<(), Failure> {
    say("nothing has changed");
    let mut daemon = tenant.start("unchanged")?;
    daemon.until("a start with nothing new", is_live)?;
    let started = daemon.measured("", 1).wall;
    std::thread::sleep(Duration::from_secs(2));
    let requests = daemon.write_requests()?;
    report.note(format!(
        "A second start with nothing changed ({}): live after {:.2} s, {requests} write requests.",
        tenant.name,
        started.as_secs_f64()
    ));
    expect("write requests of a start with nothing new", requests, 0)?;

    let rows = source.number("SELECT count(*) FROM customers")?;
    daemon.begin();
    let answer = tenant.command(&["resync", "--all"]).output()?;
    if !answer.status.success() {
        return Err(format!("resync: {}", String::from_utf8_lossy(&answer.stderr)).into());
    }
    daemon.until("the resync", |report| is_live(report) && settled(report) >= rows)?;
    let run = daemon.measured(&format!("tidemark resync, unchanged → {}", tenant.name), rows);
    let requests = daemon.write_requests()?;
    report.add(&run, None);
    report.note(format!("The whole table read again with nothing changed: {requests} write requests."));
    expect("write requests of a resync with nothing changed", requests, 0)?;
    daemon.stop()
}

/// One transaction that updates every row.
fn giant(report: &mut Report, source: &Source, tenant: Option<&Tenant<'_>>) -> Result<(), Failure> {
    say("one giant transaction");
    source.keep_log()?;
    let backlog = source.write_giant()?;
    let limit = source.receive(&backlog)?;
    let limit = limit.map(|limit| Run { name: format!("{}, one transaction", limit.name), ..limit });
    if let Some(limit) = &limit {
        report.add(limit, None);
    }
    if let Some(tenant) = tenant {
        let run = drain(tenant, &backlog, "giant", &format!("tidemark tail → {}, one transaction", tenant.name))?;
        report.add(&run, limit.as_ref());
    }
    Ok(())
}

/// Killed in the middle of a snapshot: it goes on inside the table.
fn restart(options: &Options, report: &mut Report, source: &Source, dir: &Path) -> Result<(), Failure> {
    say("killed in the middle of a snapshot");
    let rows = source.number("SELECT count(*) FROM customers")?;
    let tenant = Tenant::new(dir, "killed", source, Target::Null, options.profile.clone())?;
    let mut daemon = tenant.start("before")?;
    let read = |report: &StatusReport| report.tables.first().map_or(0, |table| table.rows_done);
    let before = daemon.until("half the table", |report| read(report) >= rows / 2)?;
    daemon.kill()?;
    let begun = Instant::now();
    let mut daemon = tenant.start("after")?;
    let first = daemon.until("the snapshot goes on", |report| read(report) > 0)?;
    let end = daemon.until("the snapshot's end", is_live)?;
    let (killed_at, goes_on_at, again) = (read(&before), read(&first), settled(&end));
    report.note(format!(
        "Killed (SIGKILL) at about {} of {} rows, the next start went on inside the table: {} rows were sent after it, the \
         snapshot ended {:.2} s after the restart.",
        grouped(killed_at),
        grouped(rows),
        grouped(again),
        begun.elapsed().as_secs_f64()
    ));
    if goes_on_at == 0 || again > rows - rows / 4 {
        return Err(format!("the snapshot began again: {again} rows were sent after the restart").into());
    }
    daemon.stop()
}

fn expect(what: &str, observed: u64, wanted: u64) -> Result<(), Failure> {
    if observed == wanted {
        return Ok(());
    }
    Err(format!("{what}: {observed}, wanted {wanted}").into())
}
