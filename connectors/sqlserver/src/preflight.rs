//! Findings: every prerequisite at once, each with the statement that fixes it.

use crate::catalog::{self, Table};
use crate::error::server_code;
use crate::plan::enable;
use crate::session::{LOG_END, Session};
use crate::sql::{Cells, ident, literal, table_name};
use crate::types::unix_micros;
use crate::wire::Connection;
use crate::{Encryption, SqlServerConfig};
use std::collections::BTreeMap;
use tiberius::Row;
use tidemark_contract::{Finding, Result, TableId, TableRequest};
use tidemark_login::Session as _;

/// How old the end of the last scan may be before the log reader is taken for stopped, in seconds.
const STALE: i64 = 120;
/// The least retention without a warning, in minutes: a weekend.
const RETENTION: i64 = 4320;

/// Looks at everything.
pub(crate) async fn run(config: &SqlServerConfig, tables: &[TableRequest]) -> Result<Vec<Finding>> {
    let mut session = Session::open(config).await?;
    let database = session.database.clone();
    let in_clear = session.connection.login_only();
    let connection = &mut session.connection;
    let mut out = Vec::new();
    let sql = "SELECT CAST(SERVERPROPERTY('ProductVersion') AS nvarchar(128)), CAST(SERVERPROPERTY('Edition') AS nvarchar(128))";
    let rows = connection.rows("asking for the version", sql).await?;
    let text = |at| rows.first().and_then(|row| row.text(at)).unwrap_or("unknown").to_owned();
    out.push(Finding::ok("source.server", format!("SQL Server {}, {}", text(0), text(1))));
    if config.encryption == Encryption::LoginOnly {
        out.push(match in_clear {
            true => Finding::warning(
                "source.encryption",
                "only the login is encrypted: rows can be read, and changed, by whoever is on the way",
                "TLS for everything",
                Some("encryption = \"standard\" in [source.sqlserver]".into()),
            ),
            false => Finding::ok("source.encryption", "the server insists on TLS for everything"),
        });
    }
    out.push(match database.has_snapshots {
        true => Finding::ok("source.snapshot_isolation", "ALLOW_SNAPSHOT_ISOLATION is on"),
        false => Finding::warning(
            "source.snapshot_isolation",
            "ALLOW_SNAPSHOT_ISOLATION is off: the first load takes shared locks",
            "snapshot isolation, so that reading never waits for writers nor they for it",
            Some("ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON".into()),
        ),
    });
    if database.tracking {
        tracked(connection, config, tables, &mut out).await?;
        return Ok(out);
    }
    match database.has_cdc {
        true => {
            out.push(Finding::ok("source.cdc", "change data capture is enabled in the database"));
            rights(connection, config, &mut out).await?;
            let read_only = replica(connection, config, &mut out).await?;
            if !read_only {
                log_reader(connection, &mut out).await?;
                jobs(connection, &mut out).await?;
            }
        }
        false => out.push(Finding::error(
            "source.cdc",
            format!("change data capture is not enabled in database {}", config.database),
            "change data capture (needs sysadmin to enable)",
            Some("EXEC sys.sp_cdc_enable_db".into()),
        )),
    }
    let names: Vec<TableId> = tables.iter().map(|t| t.table.clone()).collect();
    if !names.is_empty() {
        let found = catalog::describe(connection, &names).await?;
        for request in tables {
            table(connection, config, request, &found, database.has_cdc, &mut out).await?;
        }
    }
    Ok(out)
}

/// Whether this is a replica that can only be read, where the log reader and its jobs cannot be looked at.
async fn replica(connection: &mut Connection, config: &SqlServerConfig, out: &mut Vec<Finding>) -> Result<bool> {
    let sql = "SELECT CAST(DATABASEPROPERTYEX(DB_NAME(), 'Updateability') AS nvarchar(60))";
    let rows = connection.rows("asking whether the database can be written", sql).await?;
    let read_only = rows.first().and_then(|row| row.text(0)) == Some("READ_ONLY");
    match (config.read_only, read_only) {
        (true, true) => out.push(Finding::ok(
            "source.replica",
            "a read-only secondary: the log reader and its jobs are the primary's and are not looked at here",
        )),
        (true, false) => out.push(Finding::warning(
            "source.replica",
            "read-only intent is declared, and a database answers that can be written: the primary",
            "a listener with a read-only routing list, or the secondary's own address",
            Some("application_intent = \"read-write\" in [source.sqlserver], if the primary is meant".into()),
        )),
        (false, true) => out.push(Finding::error(
            "source.replica",
            "the database can only be read: the log reader's scans, which are the primary's, cannot be seen here",
            "the primary, or read-only intent",
            Some("application_intent = \"read-only\" in [source.sqlserver]".into()),
        )),
        (false, false) => {}
    }
    Ok(read_only)
}

/// Rows of a question that may be refused: the server's own error is an answer here.
async fn ask(connection: &mut Connection, sql: &str) -> Result<Result<Vec<Row>, u32>> {
    match connection.rows("looking at prerequisites", sql).await {
        Ok(rows) => Ok(Ok(rows)),
        Err(error) => match server_code(&error) {
            Some(code) => Ok(Err(code)),
            None => Err(error),
        },
    }
}

async fn rights(connection: &mut Connection, config: &SqlServerConfig, out: &mut Vec<Finding>) -> Result<()> {
    let user = ident(&config.user);
    out.push(match ask(connection, LOG_END).await? {
        Ok(_) => Finding::ok("source.view_database_state", "the end of the log can be read"),
        Err(code) => Finding::error(
            "source.view_database_state",
            format!("the end of the log and the log reader's progress cannot be read (error {code})"),
            "VIEW DATABASE STATE, to know when the change tables are complete",
            Some(format!("GRANT VIEW DATABASE STATE TO {user}")),
        )
        .permission(),
    });
    out.push(match ask(connection, "SELECT TOP (1) start_lsn FROM cdc.lsn_time_mapping").await? {
        Ok(_) => Finding::ok("source.cdc_schema", "the change tables' schema can be read"),
        Err(code) => Finding::error(
            "source.cdc_schema",
            format!("the schema cdc cannot be read (error {code})"),
            "SELECT on the schema that holds the change tables",
            Some(format!("GRANT SELECT ON SCHEMA::cdc TO {user}")),
        )
        .permission(),
    });
    Ok(())
}

async fn log_reader(connection: &mut Connection, out: &mut Vec<Finding>) -> Result<()> {
    let service = "SELECT status_desc FROM sys.dm_server_services WHERE servicename LIKE N'SQL Server Agent%'";
    if let Ok(rows) = ask(connection, service).await?
        && let Some(state) = rows.first().and_then(|row| row.text(0))
    {
        out.push(match state.eq_ignore_ascii_case("Running") {
            true => Finding::ok("source.agent", "SQL Server Agent is running"),
            false => Finding::error(
                "source.agent",
                format!("SQL Server Agent is {}: nothing fills the change tables", state.to_lowercase()),
                "a running Agent, started with the server",
                Some("start the service SQL Server Agent (in containers: MSSQL_AGENT_ENABLED=true)".into()),
            ),
        });
    }
    let scans = "SELECT TOP (1) end_time, GETDATE() FROM sys.dm_cdc_log_scan_sessions \
                 WHERE session_id > 0 ORDER BY session_id DESC";
    let start = "EXEC sys.sp_cdc_start_job @job_type = N'capture'";
    // Without the right, the finding about the right says what to do.
    if let Ok(rows) = ask(connection, scans).await? {
        let time = |at| rows.first().and_then(|row| row.get_column_data(at).ok()).and_then(unix_micros);
        out.push(match time(0).zip(time(1)) {
            Some((end, now)) if (now - end) / 1_000_000 <= STALE => {
                Finding::ok("source.log_reader", format!("the last log scan ended {} s ago", (now - end) / 1_000_000))
            }
            Some((end, now)) => Finding::error(
                "source.log_reader",
                format!("the last log scan ended {} s ago: the capture job does not run", (now - end) / 1_000_000),
                format!("a scan every few seconds; {STALE} s at most"),
                Some(start.into()),
            ),
            None => Finding::error(
                "source.log_reader",
                "the log was never scanned since the server started: the capture job does not run",
                "a scan every few seconds",
                Some(start.into()),
            ),
        });
    }
    let errors = "SELECT TOP (1) error_number, entry_time, GETDATE() FROM sys.dm_cdc_errors ORDER BY entry_time DESC";
    if let Ok(rows) = ask(connection, errors).await? {
        let last = rows.first().map(|row| {
            let time = |at| row.get_column_data(at).ok().and_then(unix_micros).unwrap_or(0);
            ((time(2) - time(1)) / 1_000_000, row.int(0).unwrap_or(0))
        });
        out.push(match last {
            Some((ago, number)) if ago < 3600 => Finding::warning(
                "source.log_reader_errors",
                format!("the log reader failed with error {number} {ago} s ago"),
                "no errors in sys.dm_cdc_errors",
                Some("SELECT * FROM sys.dm_cdc_errors ORDER BY entry_time DESC".into()),
            ),
            _ => Finding::ok("source.log_reader_errors", "the log reader noted no error within an hour"),
        });
    }
    Ok(())
}

async fn jobs(connection: &mut Connection, out: &mut Vec<Finding>) -> Result<()> {
    let sql = "SELECT CAST(job_type AS nvarchar(20)), CAST(retention AS bigint) FROM msdb.dbo.cdc_jobs WHERE database_id = DB_ID()";
    let Ok(rows) = ask(connection, sql).await? else {
        out.push(Finding::warning(
            "source.jobs",
            "the capture and clean-up jobs cannot be seen: retention is not known",
            "SELECT on msdb.dbo.cdc_jobs, so that the time left before changes are removed can be told",
            Some("USE msdb; GRANT SELECT ON dbo.cdc_jobs TO … (after CREATE USER … FOR LOGIN …)".into()),
        ));
        return Ok(());
    };
    let job = |kind: &str| rows.iter().find(|row| row.text(0).is_some_and(|t| t.trim_end().eq_ignore_ascii_case(kind)));
    out.push(match job("capture") {
        Some(_) => Finding::ok("source.capture_job", "the capture job exists"),
        None => Finding::error(
            "source.capture_job",
            "the database has no capture job (after a restore or failover the jobs do not come along)",
            "a capture job",
            Some("EXEC sys.sp_cdc_add_job @job_type = N'capture'".into()),
        ),
    });
    let retention = job("cleanup").and_then(|row| row.int(1));
    out.push(match retention {
        Some(minutes) if minutes >= RETENTION => {
            Finding::ok("source.retention", format!("changes are kept for {minutes} minutes"))
        }
        Some(minutes) => Finding::warning(
            "source.retention",
            format!("changes are kept for {minutes} minutes: a longer stop needs a new first load"),
            format!("at least {RETENTION} minutes"),
            Some(format!("EXEC sys.sp_cdc_change_job @job_type = N'cleanup', @retention = {RETENTION}")),
        ),
        None => Finding::warning(
            "source.retention",
            "the database has no clean-up job: the change tables grow for ever",
            "a clean-up job",
            Some("EXEC sys.sp_cdc_add_job @job_type = N'cleanup'".into()),
        ),
    });
    Ok(())
}

/// Findings where changes come from change tracking.
async fn tracked(
    connection: &mut Connection,
    config: &SqlServerConfig,
    tables: &[TableRequest],
    out: &mut Vec<Finding>,
) -> Result<()> {
    let sql = "SELECT CAST(retention_period AS bigint), retention_period_units_desc, CAST(is_auto_cleanup_on AS int) \
               FROM sys.change_tracking_databases WHERE database_id = DB_ID()";
    let rows = connection.rows("looking at change tracking", sql).await?;
    let Some(row) = rows.first() else {
        out.push(Finding::error(
            "source.change_tracking",
            format!("change tracking is not enabled in database {}", config.database),
            "change tracking (needs ALTER on the database)",
            Some(crate::tracking::ENABLE.into()),
        ));
        return Ok(());
    };
    let unit = match row.text(1) {
        Some("MINUTES") => 1,
        Some("HOURS") => 60,
        _ => 1440,
    };
    let minutes = row.int(0).unwrap_or(0) * unit;
    out.push(if minutes >= RETENTION || row.int(2) == Some(0) {
        Finding::ok("source.change_tracking", format!("change tracking keeps changes for {minutes} minutes"))
    } else {
        Finding::warning(
            "source.change_tracking",
            format!("change tracking keeps changes for {minutes} minutes: a longer stop needs a new first load"),
            format!("at least {RETENTION} minutes"),
            Some("ALTER DATABASE CURRENT SET CHANGE_TRACKING (CHANGE_RETENTION = 3 DAYS)".into()),
        )
    });
    let names: Vec<TableId> = tables.iter().map(|t| t.table.clone()).collect();
    if names.is_empty() {
        return Ok(());
    }
    let found = catalog::describe(connection, &names).await?;
    let sql = "SELECT CAST(object_id AS bigint) FROM sys.change_tracking_tables";
    let on = connection.rows("looking at tracked tables", sql).await?;
    for request in tables {
        let before = out.len();
        table(connection, config, request, &found, false, out).await?;
        let (id, Some(of)) = (&request.table, found.get(&request.table)) else { continue };
        if out.len() > before {
            continue;
        }
        if let Err(reason) = of.tracked_shape(request) {
            let fix = format!("ALTER TABLE {} ADD PRIMARY KEY (…)", table_name(id));
            out.push(
                Finding::error("source.key", reason, "a primary key, by which rows are named", Some(fix)).about(id),
            );
            continue;
        }
        if !on.iter().any(|row| row.int(0) == Some(of.object)) {
            let wanted = "change tracking for the table (needs ALTER on it)";
            let fix = Some(crate::tracking::enable(id));
            out.push(Finding::error("source.tracked_table", "the table is not tracked", wanted, fix).about(id));
            continue;
        }
        let ask_for = format!("SELECT TOP (0) SYS_CHANGE_VERSION FROM CHANGETABLE(CHANGES {}, 0) AS c", table_name(id));
        let finding = match ask(connection, &ask_for).await? {
            Ok(_) => Finding::ok("source.tracked_table", "the table is tracked"),
            Err(code) => {
                let observed = format!("the table's changes cannot be read (error {code})");
                let fix = format!("GRANT VIEW CHANGE TRACKING ON {} TO {}", table_name(id), ident(&config.user));
                Finding::error("source.tracked_table", observed, "VIEW CHANGE TRACKING on the table", Some(fix))
                    .permission()
            }
        };
        out.push(finding.about(id));
    }
    Ok(())
}

async fn table(
    connection: &mut Connection,
    config: &SqlServerConfig,
    request: &TableRequest,
    found: &BTreeMap<TableId, Table>,
    has_cdc: bool,
    out: &mut Vec<Finding>,
) -> Result<()> {
    let id = &request.table;
    let grant = Some(format!("GRANT SELECT ON {} TO {}", table_name(id), ident(&config.user)));
    let Some(table) = found.get(id) else {
        let wanted = "a table of this name that the user may read";
        out.push(
            Finding::error("source.table", "it does not exist, or the user may not see it", wanted, grant).about(id),
        );
        return Ok(());
    };
    let sql = format!("SELECT HAS_PERMS_BY_NAME({}, N'OBJECT', N'SELECT')", literal(&table_name(id)));
    let may = ask(connection, &sql).await?.ok().and_then(|rows| rows.first().and_then(|row| row.int(0)));
    if may == Some(0) {
        let finding = Finding::error("source.select", "the user may not read the table", "SELECT on the table", grant);
        out.push(finding.permission().about(id));
        return Ok(());
    }
    if let Err(reason) = table.shape(request, table.newest()) {
        let fix = format!("ALTER TABLE {} ADD PRIMARY KEY (…), or declare a unique key in the mapping", table_name(id));
        out.push(Finding::error("source.key", reason, "a key by which rows are told apart", Some(fix)).about(id));
        return Ok(());
    }
    if !has_cdc {
        return Ok(());
    }
    let Some(instance) = table.newest() else {
        let observed = "the table has no capture instance (or the user may not see it)";
        let wanted = "change data capture for the table (needs db_owner to enable)";
        out.push(Finding::error("source.capture_instance", observed, wanted, Some(enable(id))).about(id));
        return Ok(());
    };
    let wanted = |name: &str| request.columns.as_ref().is_none_or(|l| l.iter().any(|n| n.eq_ignore_ascii_case(name)));
    let missing: Vec<&str> = table
        .fields
        .iter()
        .filter(|f| wanted(&f.name) && f.kind.is_some() && !f.computed && instance.holds(f.id).is_none())
        .map(|f| &*f.name)
        .collect();
    let finding = if missing.is_empty() {
        Finding::ok("source.capture_instance", format!("capture instance {} holds the table's columns", instance.name))
    } else {
        Finding::warning(
            "source.capture_instance",
            format!(
                "capture instance {} does not hold {}: an update of that alone is not seen",
                instance.name,
                missing.join(", ")
            ),
            "an instance made after the columns were added (two may exist at a time)",
            Some(format!("{}, @capture_instance = {}", enable(id), literal(&format!("{}_{}_2", id.schema, id.name)))),
        )
    };
    out.push(finding.about(id));
    Ok(())
}
