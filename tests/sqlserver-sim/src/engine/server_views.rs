//! Views whose rows come from the state of the server: databases, jobs, scans, sessions.

use super::database::{locked, state};
use super::session::Session;
use super::views::{View, from_rows, int, text};
use crate::error::Result;
use crate::log::lsn_text;
use crate::types::collation::Collation;
use crate::types::{Kind, SqlType, datetime, system_types};
use rusqlite::types::Value;

/// Views whose rows are made from the server's state.
pub(crate) fn server_view(session: &Session, full: &str) -> Result<Option<View>> {
    Ok(Some(match full {
        "sys.databases" | "master.sys.databases" => databases(session)?,
        "sys.types" => types()?,
        "sys.change_tracking_databases" => tracked_databases(session)?,
        "sys.database_recovery_status" => recovery_status(session)?,
        "sys.dm_cdc_log_scan_sessions" => {
            session.demand_state("VIEW DATABASE STATE")?;
            scan_sessions(session)?
        }
        "sys.dm_cdc_errors" => {
            session.demand_state("VIEW DATABASE STATE")?;
            cdc_errors(session)?
        }
        "sys.dm_server_services" => {
            session.demand_state("VIEW SERVER STATE")?;
            services(session)?
        }
        "sys.dm_exec_sessions" => sessions(session)?,
        "sys.dm_hadr_database_replica_states" => {
            session.demand_state("VIEW SERVER STATE")?;
            from_rows("database_id int\nis_local bit\nis_primary_replica bit", &[])?
        }
        "sys.fn_helpcollations" => return Ok(None),
        _ => return Ok(None),
    }))
}

fn databases(session: &Session) -> Result<View> {
    let mut rows = Vec::new();
    for db in session.server.databases() {
        let c = db.borrow()?;
        let identity = locked(&db.identity).clone();
        rows.push(vec![
            text(&db.name),
            int(db.id),
            Value::Null,
            Value::Blob(vec![1]),
            int(identity.create_date),
            int(160),
            text(db.collation.name()),
            int(0),
            text("MULTI_USER"),
            int(0),
            int(0),
            text("ONLINE"),
            int(state(&c, "snapshot_isolation")?),
            text(if state(&c, "snapshot_isolation")? == 1 { "ON" } else { "OFF" }),
            int(state(&c, "rcsi")?),
            int(1),
            text("FULL"),
            int(if state(&c, "cdc")? == 1 && session.server.agent.paused(db.id) { 6 } else { 0 }),
            text(if state(&c, "cdc")? == 1 && session.server.agent.paused(db.id) { "REPLICATION" } else { "NOTHING" }),
            int(state(&c, "cdc")?),
            Value::Null,
            Value::Null,
        ]);
    }
    from_rows(
        "name sysname
        database_id int
        source_database_id int
        owner_sid varbinary(85)
        create_date datetime
        compatibility_level tinyint
        collation_name sysname
        user_access tinyint
        user_access_desc nvarchar(60)
        is_read_only bit
        state tinyint
        state_desc nvarchar(60)
        snapshot_isolation_state tinyint
        snapshot_isolation_state_desc nvarchar(60)
        is_read_committed_snapshot_on bit
        recovery_model tinyint
        recovery_model_desc nvarchar(60)
        log_reuse_wait tinyint
        log_reuse_wait_desc nvarchar(60)
        is_cdc_enabled bit
        replica_id uniqueidentifier
        group_database_id uniqueidentifier",
        &rows,
    )
}

fn types() -> Result<View> {
    let row = |name: &str, ty: SqlType, system: u8, user: i32| {
        vec![
            text(name),
            int(i64::from(system)),
            int(i64::from(user)),
            int(4),
            int(i64::from(ty.max_length())),
            int(i64::from(ty.column_precision())),
            int(i64::from(ty.column_scale())),
            if ty.has_collation() { text(Collation::DEFAULT.name()) } else { Value::Null },
            int(i64::from(!matches!(name, "timestamp" | "sysname"))),
            int(0),
            int(i64::from(system == 240)),
            int(0),
        ]
    };
    let mut rows: Vec<_> = system_types()
        .map(|(name, kind, system, user)| {
            // sys.types shows the longest form of each.
            let mut ty = SqlType::of(kind);
            ty.len = match kind {
                Kind::NChar | Kind::NVarChar => 4000,
                Kind::Char | Kind::VarChar | Kind::Binary | Kind::VarBinary => 8000,
                _ => ty.len,
            };
            if matches!(kind, Kind::Decimal | Kind::Numeric) {
                (ty.precision, ty.scale) = (38, 38);
            }
            row(name, ty, system, user)
        })
        .collect();
    rows.push(row("sysname", SqlType::sysname(), 231, 256));
    from_rows(
        "name sysname
        system_type_id tinyint
        user_type_id int
        schema_id int
        max_length smallint
        precision tinyint
        scale tinyint
        collation_name sysname
        is_nullable bit
        is_user_defined bit
        is_assembly_type bit
        is_table_type bit",
        &rows,
    )
}

fn tracked_databases(session: &Session) -> Result<View> {
    let mut rows = Vec::new();
    for db in session.server.databases() {
        let c = db.borrow()?;
        if state(&c, "ct")? == 1 {
            let minutes = state(&c, "ct_retention")?;
            let (n, unit, word) = if minutes % 1440 == 0 {
                (minutes / 1440, 3, "DAYS")
            } else if minutes % 60 == 0 {
                (minutes / 60, 2, "HOURS")
            } else {
                (minutes, 1, "MINUTES")
            };
            rows.push(vec![int(db.id), int(state(&c, "ct_cleanup")?), int(n), int(unit), text(word), Value::Null]);
        }
    }
    from_rows(
        "database_id int
        is_auto_cleanup_on bit
        retention_period int
        retention_period_units tinyint
        retention_period_units_desc nvarchar(60)
        max_cleanup_version bigint",
        &rows,
    )
}

fn recovery_status(session: &Session) -> Result<View> {
    let rows: Vec<_> = session
        .server
        .databases()
        .iter()
        .map(|db| {
            let id = locked(&db.identity).clone();
            vec![int(db.id), Value::Blob(id.guid.clone()), Value::Blob(id.guid), Value::Blob(id.fork)]
        })
        .collect();
    from_rows(
        "database_id int\ndatabase_guid uniqueidentifier\nfamily_guid uniqueidentifier\nrecovery_fork_guid uniqueidentifier",
        &rows,
    )
}

/// "sys.dm_cdc_log_scan_sessions": one row for each scan of this database, the newest 32.
fn scan_sessions(session: &Session) -> Result<View> {
    // "Change data capture and Always On": the log reader works on the primary, and so do its views.
    let scans = if session.secondary { Vec::new() } else { session.server.agent.scans(session.db.id) };
    let rows: Vec<_> = scans
        .iter()
        .map(|s| {
            let zero = lsn_text(&[0; 10]);
            let of = |b: &Option<Vec<u8>>| text(&b.as_ref().map_or(zero.clone(), |b| lsn_text(b)));
            vec![
                int(s.id),
                int(datetime::round_datetime(s.started)),
                int(datetime::round_datetime(s.ended)),
                int((s.ended - s.started) / datetime::SECOND),
                text("Done"),
                int(s.errors),
                of(&s.first),
                of(&s.last),
                of(&s.last),
                int(s.transactions),
                of(&s.last),
                s.last_time.map_or(Value::Null, |t| int(datetime::round_datetime(t))),
                int(s.commands),
                int(0),
                int(s.commands),
                of(&s.first),
                of(&s.last),
                s.last_time.map_or(Value::Null, |t| int(datetime::round_datetime(t))),
                int(s.latency),
                int(s.empty),
                int(s.failed),
            ]
        })
        .collect();
    from_rows(
        "session_id int
        start_time datetime
        end_time datetime
        duration bigint
        scan_phase nvarchar(200)
        error_count int
        start_lsn nvarchar(23)
        current_lsn nvarchar(23)
        end_lsn nvarchar(23)
        tran_count bigint
        last_commit_lsn nvarchar(23)
        last_commit_time datetime
        log_record_count bigint
        schema_change_count int
        command_count bigint
        first_begin_cdc_lsn nvarchar(23)
        last_commit_cdc_lsn nvarchar(23)
        last_commit_cdc_time datetime
        latency int
        empty_scan_count int
        failed_sessions_count int",
        &rows,
    )
}

fn cdc_errors(session: &Session) -> Result<View> {
    let rows: Vec<_> = session
        .server
        .agent
        .errors(session.db.id)
        .iter()
        .map(|e| {
            vec![
                int(e.session),
                int(1),
                int(datetime::round_datetime(e.at)),
                int(i64::from(e.number)),
                int(16),
                int(1),
                text(&e.message),
                text("00000000:00000000:0000"),
                text("00000000:00000000:0000"),
                text("00000000:00000000:0000"),
            ]
        })
        .collect();
    from_rows(
        "session_id int
        phase_number int
        entry_time datetime
        error_number int
        error_severity int
        error_state int
        error_message nvarchar(1024)
        start_lsn nvarchar(23)
        begin_lsn nvarchar(23)
        sequence_value nvarchar(23)",
        &rows,
    )
}

fn services(session: &Session) -> Result<View> {
    let running = session.server.agent.service_running();
    let row = |name: &str, running: bool| {
        let (state, word) = if running { (4, "Running") } else { (1, "Stopped") };
        vec![text(name), int(2), text("Automatic"), int(state), text(word), if running { int(1) } else { Value::Null }]
    };
    from_rows(
        "servicename nvarchar(256)
        startup_type int
        startup_type_desc nvarchar(256)
        status int
        status_desc nvarchar(256)
        process_id int",
        &[row("SQL Server (MSSQLSERVER)", true), row("SQL Server Agent (MSSQLSERVER)", running)],
    )
}

fn sessions(session: &Session) -> Result<View> {
    let rows: Vec<_> = session
        .server
        .session_list()
        .into_iter()
        .map(|(id, login, program)| vec![int(id), text(&login), text(&program), int(1), text("sleeping")])
        .collect();
    from_rows(
        "session_id smallint\nlogin_name nvarchar(128)\nprogram_name nvarchar(128)\nis_user_process bit\nstatus nvarchar(30)",
        &rows,
    )
}

/// "dbo.cdc_jobs (Transact-SQL)" of msdb.
pub(crate) fn jobs(session: &Session) -> Result<View> {
    let rows: Vec<_> = session
        .server
        .agent
        .jobs()
        .iter()
        .map(|j| {
            let capture = j.kind == "capture";
            let on = |v: i64, here: bool| if here { int(v) } else { int(0) };
            vec![
                int(j.database),
                text(j.kind),
                Value::Blob(j.id.clone()),
                on(j.maxtrans, capture),
                on(j.maxscans, capture),
                on(1, capture),
                on(j.pollinginterval, capture),
                on(j.retention, !capture),
                on(j.threshold, !capture),
            ]
        })
        .collect();
    from_rows(
        "database_id int
        job_type nvarchar(20)
        job_id uniqueidentifier
        maxtrans int
        maxscans int
        continuous bit
        pollinginterval bigint
        retention bigint
        threshold bigint",
        &rows,
    )
}

pub(crate) fn agent_jobs(session: &Session) -> Result<View> {
    let names: Vec<_> = session.server.databases().iter().map(|d| (d.id, d.name.clone())).collect();
    let rows: Vec<_> = session
        .server
        .agent
        .jobs()
        .iter()
        .map(|j| {
            let db = names.iter().find(|(id, _)| *id == j.database).map_or("", |(_, n)| n);
            vec![Value::Blob(j.id.clone()), text(&format!("cdc.{db}_{}", j.kind)), int(1)]
        })
        .collect();
    from_rows("job_id uniqueidentifier\nname sysname\nenabled tinyint", &rows)
}
