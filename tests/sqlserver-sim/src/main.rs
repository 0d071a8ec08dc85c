//! `sqlserver-sim`: the simulated server as a program, for the demo and for looking at it with any client.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use tidemark_sqlserver_sim::{Options, Sim};

const USAGE: &str = "\
usage: sqlserver-sim [--port N] [--database NAME] [--load FILE.sql] [--cdc] [--snapshot-isolation] [--console]

A simulated SQL Server on 127.0.0.1. It is a test tool: it knows a part of T-SQL and keeps nothing.
  --port N              port (14330)
  --database NAME       database to make (vendor)
  --load FILE.sql       script to run in it, batches separated by GO
  --cdc                 enable change data capture for the database and all its tables that have a primary key
  --snapshot-isolation  ALLOW_SNAPSHOT_ISOLATION ON
  --console             run batches from the standard input as sa, each ended by a line GO; answer each with a line `ok N`
                        (rows changed) and the first cell, if there is one, or `error` and its words; end with the input

Log in as sa with the password in SQLSERVER_SIM_PASSWORD, or Passw0rd! without it.";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("sqlserver-sim: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let mut options = Options { port: 14_330, ..Options::default() };
    let (mut database, mut load, mut cdc): (String, Option<PathBuf>, bool) = ("vendor".into(), None, false);
    let mut console = false;
    let mut args = std::env::args().skip(1);
    while let Some(a) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{a} needs a value\n\n{USAGE}"));
        match a.as_str() {
            "--port" => options.port = value()?.parse().map_err(|_| "the port is a number up to 65535".to_owned())?,
            "--database" => database = value()?,
            "--load" => load = Some(value()?.into()),
            "--cdc" => cdc = true,
            "--console" => console = true,
            "--snapshot-isolation" => options.snapshot_isolation = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            other => return Err(format!("unknown argument {other}\n\n{USAGE}")),
        }
    }
    if let Ok(password) = std::env::var("SQLSERVER_SIM_PASSWORD") {
        options.sa_password = password;
    }
    options.databases = vec![database.clone()];
    let sim = Sim::start(options).map_err(|e| e.to_string())?;
    if let Some(path) = load {
        let script = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        sim.run_script(&database, &script).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    if cdc {
        sim.execute(&database, "EXEC sys.sp_cdc_enable_db").map_err(|e| e.to_string())?;
        let tables = "SELECT s.name, t.name FROM sys.tables t JOIN sys.schemas s ON s.schema_id = t.schema_id \
             JOIN sys.indexes i ON i.object_id = t.object_id AND i.is_primary_key = 1 WHERE t.is_ms_shipped = 0";
        for row in sim.execute(&database, tables).map_err(|e| e.to_string())? {
            if let [Some(schema), Some(table)] = &row[..] {
                let quote = |t: &str| t.replace('\'', "''");
                let sql = format!(
                    "EXEC sys.sp_cdc_enable_table @source_schema = N'{}', @source_name = N'{}', @role_name = NULL",
                    quote(schema),
                    quote(table)
                );
                sim.execute(&database, &sql).map_err(|e| e.to_string())?;
            }
        }
    }
    println!("listening on {}", sim.address());
    if console {
        return serve_console(&sim, &database).map_err(|e| e.to_string());
    }
    loop {
        std::thread::park();
    }
}

/// Batches from the standard input, until it ends.
fn serve_console(sim: &Sim, database: &str) -> std::io::Result<()> {
    let mut session = sim.console(database).map_err(std::io::Error::other)?;
    let mut batch = String::new();
    for line in std::io::stdin().lines() {
        let line = line?;
        if !line.trim().eq_ignore_ascii_case("go") {
            batch.push_str(&line);
            batch.push('\n');
            continue;
        }
        match session.run(&batch) {
            Ok((rows, None)) => println!("ok {rows}"),
            Ok((rows, Some(cell))) => println!("ok {rows} {}", cell.replace('\n', " ")),
            Err(e) => println!("error {}", e.to_string().replace('\n', " ")),
        }
        std::io::stdout().flush()?;
        batch.clear();
    }
    Ok(())
}
