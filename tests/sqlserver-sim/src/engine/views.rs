//! The catalogue views and management views that a client of change data capture reads.
//!
//! Each is named after its page: "sys.tables (Transact-SQL)" and so on. A view lists the columns that the page lists and
//! that mean something here; asking for another one is error 207, as for any unknown column.

use super::database::{locked, state};
use super::session::Session;
use crate::error::{Result, SqlError};
use crate::log::lsn_text;
use crate::types::collation::Collation;
use crate::types::datetime;
use crate::types::{Kind, SqlType, system_types};
use rusqlite::types::Value;

/// A view as the binder takes it.
pub struct View {
    /// Name and type of each column.
    pub columns: Vec<(String, SqlType)>,
    /// SQLite text whose columns are `v1`, `v2`, …
    pub sql: String,
}

/// Finds a view of the system by schema and name, in the current database or in `database`.
pub fn find(session: &Session, database: Option<&str>, schema: &str, name: &str) -> Result<Option<View>> {
    let full = format!("{}.{}", schema.to_ascii_lowercase(), name.to_ascii_lowercase());
    if database.is_some_and(|d| d.eq_ignore_ascii_case("msdb")) {
        return match full.as_str() {
            "dbo.cdc_jobs" if session.admin || session.db_owner() => Ok(Some(jobs(session)?)),
            "dbo.cdc_jobs" => Err(SqlError::denied("SELECT", "cdc_jobs", "msdb", "dbo")),
            "dbo.sysjobs" => Ok(Some(agent_jobs(session)?)),
            _ => Ok(None),
        };
    }
    if let Some((columns, from)) = catalogue(&full) {
        return from_core(session, columns, from).map(Some);
    }
    server_view(session, &full)
}

/// One view over the core tables: lines of `name type expression`, and what follows FROM.
fn from_core(session: &Session, columns: &str, from: &str) -> Result<View> {
    let mut out = View { columns: Vec::new(), sql: "SELECT ".into() };
    for (i, line) in columns.lines().map(str::trim).filter(|l| !l.is_empty()).enumerate() {
        let mut words = line.splitn(3, ' ');
        let (name, ty, expr) = (words.next().unwrap_or(""), words.next().unwrap_or(""), words.next().unwrap_or("NULL"));
        out.columns.push((name.into(), spec_type(ty)?));
        let comma = if i == 0 { "" } else { ", " };
        out.sql.push_str(&format!("{comma}{expr} AS v{}", i + 1));
    }
    out.sql.push_str(" FROM ");
    out.sql.push_str(from);
    out.sql = out.sql.replace("{visible}", &visible(session)?).replace("{db}", &quote(&session.db.name));
    Ok(out)
}

fn spec_type(ty: &str) -> Result<SqlType> {
    let (name, args) = ty.split_once('(').unwrap_or((ty, ""));
    let args: Vec<String> = args.trim_end_matches(')').split(',').filter(|a| !a.is_empty()).map(Into::into).collect();
    SqlType::declared(name, &args, false)
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// "Metadata visibility configuration": an object is seen by those who have some permission on it.
fn visible(session: &Session) -> Result<String> {
    if session.admin || session.db_owner() {
        return Ok("1".into());
    }
    let list = session.principals()?.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    Ok(format!(
        "EXISTS (SELECT 1 FROM core_permissions p WHERE p.grantee IN ({list}) AND p.state = 'G' AND (p.class = 0 AND p.permission IN \
         ('select', 'control', 'view definition', 'insert', 'update', 'delete') OR p.class = 3 AND p.major = o.schema_id OR p.class = 1 AND p.major = o.object_id))"
    ))
}

/// SQLite text that gives the given rows.
fn from_rows(spec: &str, rows: &[Vec<Value>]) -> Result<View> {
    let mut columns = Vec::new();
    for line in spec.lines().map(str::trim).filter(|l| !l.is_empty()) {
        let (name, ty) = line.split_once(' ').unwrap_or((line, "int"));
        columns.push((name.to_owned(), spec_type(ty)?));
    }
    let list = |f: &dyn Fn(usize) -> String| (1..=columns.len()).map(f).collect::<Vec<_>>().join(", ");
    let sql = if rows.is_empty() {
        format!("SELECT {} WHERE 0", list(&|i| format!("NULL AS v{i}")))
    } else {
        let rows: Vec<String> =
            rows.iter().map(|r| format!("({})", r.iter().map(literal).collect::<Vec<_>>().join(", "))).collect();
        format!("SELECT {} FROM (VALUES {})", list(&|i| format!("column{i} AS v{i}")), rows.join(", "))
    };
    Ok(View { columns, sql })
}

/// A stored value as SQLite text.
pub fn literal(v: &Value) -> String {
    match v {
        Value::Null => "NULL".into(),
        Value::Integer(i64::MIN) => "(-9223372036854775807 - 1)".into(),
        Value::Integer(i) => i.to_string(),
        Value::Real(r) => format!("{r:?}"),
        Value::Text(t) => quote(t),
        Value::Blob(b) => format!("x'{}'", crate::types::format::hex(b)),
    }
}

fn int(i: i64) -> Value {
    Value::Integer(i)
}

fn text(t: &str) -> Value {
    Value::Text(t.into())
}

/// Views over the core tables: (columns, FROM …).
fn catalogue(name: &str) -> Option<(&'static str, &'static str)> {
    const OBJECT: &str = "name sysname o.name
        object_id int o.object_id
        principal_id int NULL
        schema_id int o.schema_id
        parent_object_id int o.parent
        type char(2) substr(o.type || ' ', 1, 2)
        type_desc nvarchar(60) CASE o.type WHEN 'U' THEN 'USER_TABLE' WHEN 'V' THEN 'VIEW' WHEN 'P' THEN 'SQL_STORED_PROCEDURE' WHEN 'IF' THEN 'SQL_INLINE_TABLE_VALUED_FUNCTION' WHEN 'F' THEN 'FOREIGN_KEY_CONSTRAINT' WHEN 'C' THEN 'CHECK_CONSTRAINT' WHEN 'PK' THEN 'PRIMARY_KEY_CONSTRAINT' ELSE 'UNIQUE_CONSTRAINT' END
        create_date datetime o.created
        modify_date datetime o.modified
        is_ms_shipped bit o.shipped";
    const TABLE: &str = "name sysname o.name
        object_id int o.object_id
        principal_id int NULL
        schema_id int o.schema_id
        parent_object_id int 0
        type char(2) 'U '
        type_desc nvarchar(60) 'USER_TABLE'
        create_date datetime o.created
        modify_date datetime o.modified
        is_ms_shipped bit o.shipped
        is_tracked_by_cdc bit o.cdc
        is_replicated bit 0
        is_memory_optimized bit 0
        is_external bit 0
        is_filetable bit 0
        is_node bit 0
        is_edge bit 0
        temporal_type tinyint 0
        temporal_type_desc nvarchar(60) 'NON_TEMPORAL_TABLE'
        lob_data_space_id int 0
        text_in_row_limit int 0
        large_value_types_out_of_row bit 0
        max_column_id_used int (SELECT max(column_id) FROM core_columns c WHERE c.object_id = o.object_id)
        lock_escalation tinyint 0";
    const COLUMN: &str = "object_id int c.object_id
        name sysname c.name
        column_id int c.column_id
        system_type_id tinyint t.system_type_id
        user_type_id int t.user_type_id
        max_length smallint t.max_length
        precision tinyint t.precision
        scale tinyint t.scale
        collation_name sysname t.collation
        is_nullable bit c.nullable
        is_ansi_padded bit 1
        is_rowguidcol bit 0
        is_identity bit c.seed IS NOT NULL
        is_computed bit c.computed IS NOT NULL
        is_filestream bit 0
        is_replicated bit 0
        is_xml_document bit 0
        is_sparse bit 0
        is_column_set bit 0
        generated_always_type tinyint 0
        is_hidden bit 0
        is_masked bit 0
        encryption_type int NULL
        default_object_id int 0";
    const COLUMN_FROM: &str = "core_columns c JOIN core_objects o ON o.object_id = c.object_id JOIN core_types t ON t.code = c.type WHERE o.type IN ('U', 'V') AND {visible}";
    Some(match name {
        "sys.schemas" => ("name sysname s.name\nschema_id int s.schema_id\nprincipal_id int 1", "core_schemas s"),
        "sys.objects" | "sys.all_objects" => (OBJECT, "core_objects o WHERE {visible}"),
        "sys.tables" => (TABLE, "core_objects o WHERE o.type = 'U' AND {visible}"),
        "sys.views" => (OBJECT, "core_objects o WHERE o.type = 'V' AND {visible}"),
        "sys.procedures" => (OBJECT, "core_objects o WHERE o.type = 'P' AND {visible}"),
        // The compatibility view of "sys.sysobjects": the low four bits of sysstat say what it is.
        "sys.sysobjects" | "dbo.sysobjects" => (
            "name sysname o.name
            id int o.object_id
            xtype char(2) substr(o.type || ' ', 1, 2)
            uid smallint o.schema_id
            parent_obj int o.parent
            crdate datetime o.created
            sysstat smallint CASE o.type WHEN 'U' THEN 3 WHEN 'V' THEN 2 WHEN 'P' THEN 4 ELSE 0 END
            type char(2) substr(o.type || ' ', 1, 2)",
            "core_objects o WHERE {visible}",
        ),
        "sys.columns" | "sys.all_columns" => (COLUMN, COLUMN_FROM),
        "sys.computed_columns" => (
            "object_id int c.object_id
            name sysname c.name
            column_id int c.column_id
            definition nvarchar(max) c.computed
            is_persisted bit c.persisted
            is_nullable bit c.nullable",
            "core_columns c JOIN core_objects o ON o.object_id = c.object_id WHERE c.computed IS NOT NULL AND {visible}",
        ),
        "sys.identity_columns" => (
            "object_id int c.object_id
            name sysname c.name
            column_id int c.column_id
            seed_value sql_variant NULL
            increment_value sql_variant NULL
            is_not_for_replication bit 0",
            "core_columns c JOIN core_objects o ON o.object_id = c.object_id WHERE c.seed IS NOT NULL AND {visible}",
        ),
        "sys.indexes" => (
            "object_id int i.object_id
            name sysname i.name
            index_id int i.index_id
            type tinyint CASE WHEN i.clustered THEN 1 ELSE 2 END
            type_desc nvarchar(60) CASE WHEN i.clustered THEN 'CLUSTERED' ELSE 'NONCLUSTERED' END
            is_unique bit i.is_unique
            data_space_id int 1
            ignore_dup_key bit 0
            is_primary_key bit i.is_primary
            is_unique_constraint bit i.is_constraint AND NOT i.is_primary
            fill_factor tinyint 0
            is_disabled bit 0
            is_hypothetical bit 0
            has_filter bit 0
            filter_definition nvarchar(max) NULL",
            "(SELECT object_id, name, index_id, clustered, is_unique, is_primary, is_constraint FROM core_indexes UNION ALL \
             SELECT object_id, NULL, 0, 0, 0, 0, 0 FROM core_objects WHERE type = 'U' AND object_id NOT IN (SELECT object_id FROM core_indexes WHERE clustered)) i \
             JOIN core_objects o ON o.object_id = i.object_id WHERE {visible}",
        ),
        "sys.index_columns" => (
            "object_id int i.object_id
            index_id int i.index_id
            index_column_id int i.position
            column_id int i.column_id
            key_ordinal tinyint CASE WHEN i.included THEN 0 ELSE i.position END
            partition_ordinal tinyint 0
            is_descending_key bit i.descending
            is_included_column bit i.included",
            "core_index_columns i JOIN core_objects o ON o.object_id = i.object_id WHERE {visible}",
        ),
        "sys.key_constraints" => (
            "name sysname i.name
            object_id int i.object_id + i.index_id
            schema_id int o.schema_id
            parent_object_id int o.object_id
            type char(2) CASE WHEN i.is_primary THEN 'PK' ELSE 'UQ' END
            type_desc nvarchar(60) CASE WHEN i.is_primary THEN 'PRIMARY_KEY_CONSTRAINT' ELSE 'UNIQUE_CONSTRAINT' END
            unique_index_id int i.index_id
            is_enforced bit 1",
            "core_indexes i JOIN core_objects o ON o.object_id = i.object_id WHERE i.is_constraint AND {visible}",
        ),
        "sys.foreign_keys" => (
            "name sysname k.name
            object_id int f.object_id
            schema_id int o.schema_id
            parent_object_id int f.parent
            type char(2) 'F '
            referenced_object_id int f.referenced
            key_index_id int f.key_index
            is_disabled bit f.disabled
            is_not_trusted bit f.disabled
            is_not_for_replication bit 0
            delete_referential_action tinyint CASE f.on_delete WHEN 'CASCADE' THEN 1 WHEN 'SET_NULL' THEN 2 ELSE 0 END
            delete_referential_action_desc nvarchar(60) f.on_delete
            update_referential_action tinyint CASE f.on_update WHEN 'CASCADE' THEN 1 WHEN 'SET_NULL' THEN 2 ELSE 0 END
            update_referential_action_desc nvarchar(60) f.on_update",
            "core_fks f JOIN core_objects o ON o.object_id = f.parent JOIN core_objects k ON k.object_id = f.object_id WHERE {visible}",
        ),
        "sys.foreign_key_columns" => (
            "constraint_object_id int f.object_id
            constraint_column_id int k.position
            parent_object_id int f.parent
            parent_column_id int k.parent_column
            referenced_object_id int f.referenced
            referenced_column_id int k.referenced_column",
            "core_fk_columns k JOIN core_fks f ON f.object_id = k.fk JOIN core_objects o ON o.object_id = f.parent WHERE {visible}",
        ),
        "sys.check_constraints" => (
            "name sysname k.name
            object_id int f.object_id
            schema_id int k.schema_id
            parent_object_id int f.parent
            is_disabled bit f.disabled
            definition nvarchar(max) f.definition",
            "core_checks f JOIN core_objects o ON o.object_id = f.parent JOIN core_objects k ON k.object_id = f.object_id WHERE {visible}",
        ),
        "sys.sql_modules" => (
            "object_id int o.object_id\ndefinition nvarchar(max) o.definition",
            "core_objects o WHERE o.type = 'V' AND {visible}",
        ),
        "sys.partitions" => (
            "partition_id bigint o.object_id
            object_id int o.object_id
            index_id int 1
            partition_number int 1
            rows bigint -1",
            "core_objects o WHERE o.type = 'U' AND 0",
        ),
        "sys.database_principals" => (
            "name sysname p.name
            principal_id int p.principal_id
            type char(1) p.type
            type_desc nvarchar(60) CASE p.type WHEN 'R' THEN 'DATABASE_ROLE' ELSE 'SQL_USER' END
            default_schema_name sysname CASE p.type WHEN 'S' THEN 'dbo' END
            is_fixed_role bit p.principal_id BETWEEN 16384 AND 16393",
            "core_principals p",
        ),
        "sys.database_role_members" => {
            ("role_principal_id int m.role_id\nmember_principal_id int m.member_id", "core_members m")
        }
        "sys.change_tracking_tables" => (
            "object_id int o.object_id
            is_track_columns_updated_on bit o.ct_columns
            min_valid_version bigint o.ct_min
            begin_version bigint o.ct_begin
            cleanup_version bigint o.ct_min",
            "core_objects o WHERE o.ct AND {visible}",
        ),
        "information_schema.tables" => (
            "TABLE_CATALOG nvarchar(128) {db}
            TABLE_SCHEMA nvarchar(128) s.name
            TABLE_NAME sysname o.name
            TABLE_TYPE varchar(10) CASE o.type WHEN 'U' THEN 'BASE TABLE' ELSE 'VIEW' END",
            "core_objects o JOIN core_schemas s ON s.schema_id = o.schema_id WHERE o.type IN ('U', 'V') AND {visible}",
        ),
        "information_schema.columns" => (
            "TABLE_CATALOG nvarchar(128) {db}
            TABLE_SCHEMA nvarchar(128) s.name
            TABLE_NAME sysname o.name
            COLUMN_NAME sysname c.name
            ORDINAL_POSITION int c.column_id
            COLUMN_DEFAULT nvarchar(4000) c.default_text
            IS_NULLABLE varchar(3) CASE WHEN c.nullable THEN 'YES' ELSE 'NO' END
            DATA_TYPE nvarchar(128) t.name
            CHARACTER_MAXIMUM_LENGTH int t.characters
            NUMERIC_PRECISION tinyint CASE WHEN t.numbers THEN t.precision END
            NUMERIC_SCALE int CASE WHEN t.numbers THEN t.scale END
            DATETIME_PRECISION smallint CASE WHEN t.times THEN t.scale END
            COLLATION_NAME sysname t.collation",
            "core_columns c JOIN core_objects o ON o.object_id = c.object_id JOIN core_schemas s ON s.schema_id = o.schema_id \
             JOIN core_types t ON t.code = c.type WHERE o.type IN ('U', 'V') AND {visible}",
        ),
        _ => return None,
    })
}

/// Views whose rows are made from the server's state.
fn server_view(session: &Session, full: &str) -> Result<Option<View>> {
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
        let c = db.open()?;
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
        let c = db.open()?;
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
    let rows: Vec<_> = session
        .server
        .agent
        .scans(session.db.id)
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
fn jobs(session: &Session) -> Result<View> {
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

fn agent_jobs(session: &Session) -> Result<View> {
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
