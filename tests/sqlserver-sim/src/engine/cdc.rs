//! Change data capture as its procedures and functions show it: "sys.sp_cdc_enable_db", "sys.sp_cdc_enable_table",
//! "cdc.fn_cdc_get_all_changes_<capture_instance>" and the tables of schema `cdc`.

use super::capture::{self, Limits, allocate};
use super::catalog::{self, Column, Object};
use super::database::{remember_type, set_state, state};
use super::session::Session;
use super::tables::declaration;
use super::views::{View, literal};
use crate::error::{Result, SqlError};
use crate::log::{lsn, lsn_text};
use crate::sql::ast::AlterTable;
use crate::types::{Kind, SqlType, datetime};
use rusqlite::types::Value;
use rusqlite::{OptionalExtension, params};
use std::time::Duration;

/// Name in SQLite of a table of schema `cdc`; 208 before the database is enabled.
pub fn table(session: &Session, name: &str) -> Result<String> {
    Ok(catalog::find(&session.c, "cdc", name)?.ok_or_else(|| SqlError::object(&format!("cdc.{name}")))?.physical())
}

/// The tables of schema `cdc`: (name, columns, key).
const TABLES: [(&str, &str, &str); 5] = [
    (
        "change_tables",
        "object_id int,version int,source_object_id int,capture_instance nvarchar(128),start_lsn binary(10),end_lsn binary(10),\
         supports_net_changes bit,has_drop_pending bit,role_name nvarchar(128),index_name nvarchar(128),filegroup_name nvarchar(128),\
         create_date datetime,partition_switch bit",
        "c1",
    ),
    (
        "captured_columns",
        "object_id int,column_name nvarchar(128),column_id int,column_type nvarchar(128),column_ordinal int,is_computed bit",
        "c1, c5",
    ),
    ("index_columns", "object_id int,column_name nvarchar(128),index_ordinal tinyint,column_id int", "c1, c3"),
    (
        "ddl_history",
        "source_object_id int,object_id int,required_column_update bit,ddl_command nvarchar(max),ddl_lsn binary(10),ddl_time datetime",
        "c2, c5",
    ),
    (
        "lsn_time_mapping",
        "start_lsn binary(10),tran_begin_time datetime,tran_end_time datetime,tran_id varbinary(10),tran_begin_lsn binary(10)",
        "c1",
    ),
];

fn spec(text: &str) -> Result<Vec<(String, SqlType)>> {
    let mut out = Vec::new();
    for part in text.split(',') {
        let (name, ty) = part.trim().split_once(' ').unwrap_or((part, "int"));
        let (ty, args) = ty.split_once('(').unwrap_or((ty, ""));
        let args: Vec<String> =
            args.trim_end_matches(')').split(',').filter(|a| !a.is_empty()).map(Into::into).collect();
        out.push((name.to_owned(), SqlType::declared(ty, &args, false)?));
    }
    Ok(out)
}

/// Makes a table of the system with the given columns.
fn system_table(
    session: &mut Session,
    name: &str,
    columns: &[(String, SqlType)],
    key: &str,
    unique: bool,
) -> Result<Object> {
    let object = session.new_object(&["cdc".into(), name.into()], "U", 0, None, true)?;
    let mut list = Vec::new();
    for (i, (name, ty)) in columns.iter().enumerate() {
        let column = Column {
            id: i as i64 + 1,
            name: name.clone(),
            ty: *ty,
            nullable: true,
            identity: None,
            computed: None,
            default: None,
        };
        session.c.execute(
            "INSERT INTO core_columns VALUES(?1, ?2, ?3, ?4, 1, NULL, NULL, NULL, 0, NULL, NULL)",
            params![object.id, column.id, name, ty.code()],
        )?;
        remember_type(&session.c, *ty)?;
        list.push(declaration(&column));
    }
    session.c.execute_batch(&format!("CREATE TABLE {} ({})", object.physical(), list.join(", ")))?;
    let unique = if unique { "UNIQUE " } else { "" };
    session.c.execute_batch(&format!("CREATE {unique}INDEX i{}_1 ON {}({key})", object.id, object.physical()))?;
    Ok(object)
}

/// "sys.sp_cdc_enable_db": 22902 for those who are not sysadmin.
pub fn enable_database(session: &mut Session) -> Result<()> {
    if !session.admin {
        return Err(SqlError::new(
            22_902,
            16,
            1,
            "Caller is not authorized to initiate the requested action. Sysadmin privileges are required.",
        ));
    }
    if session.db.id <= 4 {
        return Err(SqlError::new(22_922, 16, 1, "Change data capture cannot be enabled on this system database."));
    }
    if state(&session.c, "cdc")? == 1 {
        // Enabling twice is no error.
        return Ok(());
    }
    session.write(|s| {
        if catalog::schema_id(&s.c, "cdc")?.is_some() {
            let text = format!("The database '{}' cannot be enabled for Change Data Capture because a database user named 'cdc' or a schema named 'cdc' already exists in the current database.", s.db.name);
            return Err(SqlError::new(22_906, 16, 1, text));
        }
        s.c.execute("INSERT INTO core_schemas(name) VALUES('cdc')", [])?;
        s.c.execute("INSERT INTO core_principals SELECT 1 + max(principal_id), 'cdc', 'S', NULL FROM core_principals WHERE principal_id < 16384", [])?;
        for (name, columns, key) in TABLES {
            system_table(s, name, &spec(columns)?, key, name != "ddl_history")?;
        }
        set_state(&s.c, "cdc", 1)?;
        let last: i64 = s.c.query_row("SELECT ifnull(max(seq), 0) FROM core_tx", [], |r| r.get(0))?;
        set_state(&s.c, "scanned", last)
    })
}

/// "sys.sp_cdc_disable_db"
pub fn disable_database(session: &mut Session) -> Result<()> {
    if !session.admin {
        return Err(SqlError::new(
            22_902,
            16,
            1,
            "Caller is not authorized to initiate the requested action. Sysadmin privileges are required.",
        ));
    }
    if state(&session.c, "cdc")? == 0 {
        return Ok(());
    }
    session.write(|s| {
        let tracked: Vec<i64> = {
            let mut st = s.c.prepare("SELECT object_id FROM core_objects WHERE cdc")?;
            st.query_map([], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?
        };
        for id in tracked {
            if let Some(object) = catalog::by_id(&s.c, id)? {
                disable_all(s, &object)?;
            }
        }
        let tables: Vec<i64> = {
            let mut st = s.c.prepare("SELECT object_id FROM core_objects WHERE schema_id = (SELECT schema_id FROM core_schemas WHERE name = 'cdc')")?;
            st.query_map([], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?
        };
        for id in tables {
            if let Some(object) = catalog::by_id(&s.c, id)? {
                s.drop_object(&object)?;
            }
        }
        s.c.execute("DELETE FROM core_schemas WHERE name = 'cdc'", [])?;
        s.c.execute("DELETE FROM core_principals WHERE name = 'cdc'", [])?;
        set_state(&s.c, "cdc", 0)
    })?;
    session.server.agent.remove_jobs(session.db.id);
    Ok(())
}

/// Arguments of "sys.sp_cdc_enable_table".
#[derive(Debug, Default)]
pub struct Enable {
    /// `@source_schema`
    pub schema: String,
    /// `@source_name`
    pub name: String,
    /// `@role_name`
    pub role: Option<String>,
    /// `@capture_instance`
    pub instance: Option<String>,
    /// `@supports_net_changes`
    pub net_changes: Option<bool>,
    /// `@index_name`
    pub index: Option<String>,
    /// `@captured_column_list`
    pub columns: Option<String>,
}

fn not_enabled(session: &Session) -> SqlError {
    let text = format!(
        "The database '{}' is not enabled for Change Data Capture. Ensure that the correct database context is set and retry the operation. To report on the databases enabled for Change Data Capture, query the is_cdc_enabled column in the sys.databases catalog view.",
        session.db.name
    );
    SqlError::new(22_901, 16, 1, text)
}

/// "sys.sp_cdc_enable_table"
pub fn enable_table(session: &mut Session, a: &Enable) -> Result<()> {
    session.demand_owner("sp_cdc_enable_table")?;
    if state(&session.c, "cdc")? == 0 {
        return Err(not_enabled(session));
    }
    let full = format!("{}.{}", a.schema, a.name);
    let missing = || {
        SqlError::new(
            22_931,
            16,
            1,
            format!(
                "Source table '{full}' does not exist in the current database. Ensure that the correct database context is set. Specify a valid schema and table name for the database."
            ),
        )
    };
    let object = catalog::find(&session.c, &a.schema, &a.name)?.filter(|o| o.kind == "U").ok_or_else(missing)?;
    let instance = a.instance.clone().unwrap_or_else(|| format!("{}_{}", object.schema, object.name));
    if instance.chars().count() > 100 {
        let text = format!(
            "The capture instance name '{instance}' exceeds the length limit of 100 characters. Specify a name that satisfies the length constraint."
        );
        return Err(SqlError::new(22_925, 16, 1, text));
    }
    session.write(|s| {
        let tables = table(s, "change_tables")?;
        let taken: bool = s.c.query_row(&format!("SELECT count(*) > 0 FROM {tables} WHERE c4 = ?1"), [&instance], |r| r.get(0))?;
        if taken {
            let text = format!("Could not create a capture instance because the capture instance name '{instance}' already exists in the current database. Specify an explicit unique name for the parameter @capture_instance.");
            return Err(SqlError::new(22_926, 16, 1, text));
        }
        let count: i64 = s.c.query_row(&format!("SELECT count(*) FROM {tables} WHERE c3 = ?1"), [object.id], |r| r.get(0))?;
        if count >= 2 {
            let text = format!("Two capture instances already exist for source table '{full}'. A table can have at most two capture instances. If the current tracking options are not appropriate, disable change tracking for the obsolete instance by using sys.sp_cdc_disable_table and retry the operation.");
            return Err(SqlError::new(22_962, 16, 1, text));
        }
        create_instance(s, &object, &instance, a)
    })?;
    session.server.agent.add_jobs(session.db.id);
    session.server.agent.wake();
    Ok(())
}

fn create_instance(s: &mut Session, object: &Object, instance: &str, a: &Enable) -> Result<()> {
    let all = catalog::columns(&s.c, object.id)?;
    let wanted: Option<Vec<String>> = a
        .columns
        .as_ref()
        .map(|list| list.split(',').map(|c| c.trim().trim_matches(['[', ']']).to_lowercase()).collect());
    if let Some(unknown) = wanted.iter().flatten().find(|w| !all.iter().any(|c| c.name.to_lowercase() == **w)) {
        let text = format!(
            "The captured column list contains the column '{unknown}' that does not exist in the source table."
        );
        return Err(SqlError::new(22_945, 16, 1, text));
    }
    let captured: Vec<&Column> =
        all.iter().filter(|c| wanted.as_ref().is_none_or(|w| w.contains(&c.name.to_lowercase()))).collect();
    let indexes = catalog::indexes(&s.c, object.id)?;
    let index = match &a.index {
        Some(name) => {
            Some(indexes.iter().find(|i| i.unique && i.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
                let text = format!(
                    "The index name '{name}' is not a unique index of the source table. Specify a valid unique index."
                );
                SqlError::new(22_960, 16, 1, text)
            })?)
        }
        None => indexes.iter().find(|i| i.primary),
    };
    let net = a.net_changes.unwrap_or(index.is_some());
    let Some(index) = index.or(indexes.iter().find(|i| i.unique).filter(|_| net)) else {
        if net {
            let text = format!(
                "Could not enable Change Data Capture for table '{}'. The parameter @supports_net_changes was set to 1, but the table has no primary key and no unique index was named.",
                object.name
            );
            return Err(SqlError::new(22_939, 16, 1, text));
        }
        return finish_instance(s, object, instance, a, &captured, None, false);
    };
    let index = index.clone();
    finish_instance(s, object, instance, a, &captured, Some(&index), net)
}

fn finish_instance(
    s: &mut Session,
    object: &Object,
    instance: &str,
    a: &Enable,
    captured: &[&Column],
    index: Option<&catalog::Index>,
    net: bool,
) -> Result<()> {
    let lsn_type = SqlType::sized(Kind::Binary, 10);
    let int = SqlType::of(Kind::Int);
    let mut columns = vec![
        ("__$start_lsn".to_owned(), lsn_type),
        ("__$end_lsn".into(), lsn_type),
        ("__$seqval".into(), lsn_type),
        ("__$operation".into(), int),
        ("__$update_mask".into(), SqlType::sized(Kind::VarBinary, 128)),
    ];
    // rowversion is captured as binary(8).
    let stored = |ty: SqlType| if ty.kind == Kind::RowVersion { SqlType::sized(Kind::Binary, 8) } else { ty };
    columns.extend(captured.iter().map(|c| (c.name.clone(), stored(c.ty))));
    columns.push(("__$command_id".into(), int));
    let key = format!("c1, c{}, c3, c4", columns.len());
    let made = system_table(s, &format!("{instance}_CT"), &columns, &key, true)?;
    let (tables, list, keys) = (table(s, "change_tables")?, table(s, "captured_columns")?, table(s, "index_columns")?);
    let now = datetime::round_datetime(datetime::now());
    if let Some(role) = &a.role {
        // The gating role is made if it does not exist.
        let exists: bool =
            s.c.query_row("SELECT count(*) > 0 FROM core_principals WHERE name = ?1", [role], |r| r.get(0))?;
        if !exists {
            s.c.execute("INSERT INTO core_principals SELECT 1 + max(principal_id), ?1, 'R', NULL FROM core_principals WHERE principal_id < 16384", [role])?;
        }
    }
    s.c.execute(
        &format!("INSERT INTO {tables} VALUES(?1, 0, ?2, ?3, NULL, NULL, ?4, 0, ?5, ?6, NULL, ?7, 1)"),
        params![made.id, object.id, instance, net, a.role, index.map(|i| i.name.clone()), now],
    )?;
    for (i, c) in captured.iter().enumerate() {
        s.c.execute(
            &format!("INSERT INTO {list} VALUES(?1, ?2, ?3, ?4, ?5, ?6)"),
            params![made.id, c.name, c.id, c.ty.name(), i as i64 + 1, c.computed.is_some()],
        )?;
    }
    for (i, id) in index.map(|i| i.columns.clone()).unwrap_or_default().iter().enumerate() {
        if let Some(c) = catalog::columns(&s.c, object.id)?.iter().find(|c| c.id == *id) {
            s.c.execute(
                &format!("INSERT INTO {keys} VALUES(?1, ?2, ?3, ?4)"),
                params![made.id, c.name, i as i64 + 1, id],
            )?;
        }
    }
    s.c.execute("UPDATE core_objects SET cdc = 1 WHERE object_id = ?1", [object.id])?;
    let (first, commit) = allocate(&s.c, 0)?;
    s.c.execute(
        "INSERT INTO core_tx(tx, first_record, lsn, begun, ended, kind) VALUES(?1, ?2, ?3, ?4, ?4, 'enable')",
        params![made.id, first, lsn(commit), datetime::now()],
    )?;
    s.build_triggers(object)
}

/// "sys.sp_cdc_disable_table": one instance, or `all`.
pub fn disable_table(session: &mut Session, schema: &str, name: &str, instance: &str) -> Result<()> {
    session.demand_owner("sp_cdc_disable_table")?;
    if state(&session.c, "cdc")? == 0 {
        return Err(not_enabled(session));
    }
    let object = catalog::find(&session.c, schema, name)?.ok_or_else(|| {
        SqlError::new(22_931, 16, 1, format!("Source table '{schema}.{name}' does not exist in the current database."))
    })?;
    session.write(|s| {
        let tables = table(s, "change_tables")?;
        let ids: Vec<i64> = {
            let all = instance.eq_ignore_ascii_case("all");
            let mut st = s.c.prepare(&format!("SELECT c1 FROM {tables} WHERE c3 = ?1 AND (?2 OR c4 = ?3)"))?;
            st.query_map(params![object.id, all, instance], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?
        };
        if ids.is_empty() {
            let text = format!(
                "The specified capture instance '{instance}' does not exist for source table '{schema}.{name}'."
            );
            return Err(SqlError::new(22_960, 16, 1, text));
        }
        for id in ids {
            drop_instance(s, id)?;
        }
        let left: i64 =
            s.c.query_row(&format!("SELECT count(*) FROM {tables} WHERE c3 = ?1"), [object.id], |r| r.get(0))?;
        s.c.execute("UPDATE core_objects SET cdc = ?2 WHERE object_id = ?1", params![object.id, left > 0])?;
        s.build_triggers(&object)
    })
}

/// Removes all instances of a table.
pub fn disable_all(s: &mut Session, object: &Object) -> Result<()> {
    let tables = table(s, "change_tables")?;
    let ids: Vec<i64> = {
        let mut st = s.c.prepare(&format!("SELECT c1 FROM {tables} WHERE c3 = ?1"))?;
        st.query_map([object.id], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?
    };
    for id in ids {
        drop_instance(s, id)?;
    }
    s.c.execute("UPDATE core_objects SET cdc = 0 WHERE object_id = ?1", [object.id])?;
    s.build_triggers(object)
}

fn drop_instance(s: &mut Session, id: i64) -> Result<()> {
    for name in ["change_tables", "captured_columns", "index_columns"] {
        let t = table(s, name)?;
        s.c.execute(&format!("DELETE FROM {t} WHERE c1 = ?1"), [id])?;
    }
    let history = table(s, "ddl_history")?;
    s.c.execute(&format!("DELETE FROM {history} WHERE c2 = ?1"), [id])?;
    if let Some(object) = catalog::by_id(&s.c, id)? {
        s.drop_object(&object)?;
    }
    Ok(())
}

/// What a definition on a captured table leaves behind: a row of cdc.ddl_history for each instance ("cdc.ddl_history"); a
/// changed type of a captured column changes the change table too.
///
/// In the product the log reader writes this when it passes the definition; here it is written at once, and the changes
/// before the definition are captured first, so that they keep their shape.
pub fn ddl(s: &mut Session, object: &Object, action: &AlterTable, before: &[Column]) -> Result<()> {
    let (word, column_update) = match action {
        AlterTable::Add(columns, _) => (columns.iter().map(|c| c.name.clone()).collect::<Vec<_>>().join(", "), None),
        AlterTable::AlterColumn { name, .. } => (name.clone(), Some(name)),
        AlterTable::DropColumns(names) => (names.join(", "), None),
        _ => return Ok(()),
    };
    let verb = match action {
        AlterTable::Add(..) => "ADD",
        AlterTable::AlterColumn { .. } => "ALTER COLUMN",
        _ => "DROP COLUMN",
    };
    let limits = Limits {
        transactions: i64::MAX,
        lag: Duration::ZERO,
        heartbeat: Duration::MAX,
        last_mapped: None,
        quirks: s.server.options.quirks,
    };
    capture::scan_in(&s.c, &limits)?;
    let (tables, captured, history) =
        (table(s, "change_tables")?, table(s, "captured_columns")?, table(s, "ddl_history")?);
    let ids: Vec<i64> = {
        let mut st = s.c.prepare(&format!("SELECT c1 FROM {tables} WHERE c3 = ?1"))?;
        st.query_map([object.id], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?
    };
    let (_, commit) = allocate(&s.c, 0)?;
    for id in ids {
        let mut required = false;
        if let Some(name) = column_update {
            let after = catalog::columns(&s.c, object.id)?.into_iter().find(|c| c.name.eq_ignore_ascii_case(name));
            let ordinal: Option<i64> = s
                .c
                .query_row(&format!("SELECT c5 FROM {captured} WHERE c1 = ?1 AND c2 = ?2"), params![id, name], |r| {
                    r.get(0)
                })
                .optional()?;
            if let (Some(after), Some(ordinal), Some(old)) =
                (after, ordinal, before.iter().find(|c| c.name.eq_ignore_ascii_case(name)))
            {
                required = true;
                let physical = format!("c{}", ordinal + 5);
                s.c.execute(
                    &format!(
                        "UPDATE t{id} SET {physical} = t_cv({physical}, {}, {}, 0)",
                        old.ty.code(),
                        after.ty.code()
                    ),
                    [],
                )?;
                s.c.execute(
                    "UPDATE core_columns SET type = ?3 WHERE object_id = ?1 AND column_id = ?2",
                    params![id, ordinal + 5, after.ty.code()],
                )?;
                s.c.execute(
                    &format!("UPDATE {captured} SET c4 = ?3 WHERE c1 = ?1 AND c2 = ?2"),
                    params![id, name, after.ty.name()],
                )?;
            }
        }
        let text = format!("ALTER TABLE {}.{} {verb} {word}", object.schema, object.name);
        s.c.execute(
            &format!("INSERT INTO {history} VALUES(?1, ?2, ?3, ?4, ?5, ?6)"),
            params![object.id, id, required, text, lsn(commit), datetime::round_datetime(datetime::now())],
        )?;
    }
    Ok(())
}

/// 313, which the functions raise for every bad argument.
pub fn arguments_error(name: &str) -> SqlError {
    SqlError::new(
        313,
        16,
        3,
        format!("An insufficient number of arguments were supplied for the procedure or function {name} ... ."),
    )
}

/// "cdc.fn_cdc_get_all_changes_<capture_instance>" and "cdc.fn_cdc_get_net_changes_<capture_instance>".
pub fn changes(
    session: &Session,
    instance: &str,
    all: bool,
    from: &Value,
    to: &Value,
    filter: &Value,
    name: &str,
) -> Result<View> {
    let tables = table(session, "change_tables").map_err(|_| SqlError::object(name))?;
    let visible = session.instance_visible("x")?;
    let found: Option<(i64, Option<Vec<u8>>, bool, bool)> = session
        .c
        .query_row(&format!("SELECT x.c1, x.c5, x.c7, {visible} FROM {tables} x WHERE x.c4 = ?1"), [instance], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))
        })
        .optional()?;
    let Some((id, start, net, visible)) = found else { return Err(SqlError::object(name)) };
    if !all && !net {
        return Err(SqlError::object(name));
    }
    if !visible {
        let object = name.rsplit('.').next().unwrap_or(name);
        return Err(SqlError::denied("SELECT", object, &session.db.name, "cdc"));
    }
    let function = if all { "cdc.fn_cdc_get_all_changes_" } else { "cdc.fn_cdc_get_net_changes_" };
    let (Value::Blob(from), Value::Blob(to), Value::Text(filter)) = (from, to, filter) else {
        return Err(arguments_error(function));
    };
    let mapping = table(session, "lsn_time_mapping")?;
    let max: Option<Vec<u8>> = session.c.query_row(&format!("SELECT max(c1) FROM {mapping}"), [], |r| r.get(0))?;
    let in_range = match (&start, &max) {
        (Some(start), Some(max)) => from >= start && to <= max && from <= to,
        _ => false,
    };
    let filter = filter.to_ascii_lowercase();
    let known: &[&str] = if all { &["all", "all update old"] } else { &["all", "all with mask", "all with merge"] };
    if !in_range || !known.contains(&filter.as_str()) {
        return Err(arguments_error(function));
    }
    if !all {
        return Err(SqlError::unmodelled("cdc.fn_cdc_get_net_changes_…"));
    }
    let columns = catalog::columns(&session.c, id)?;
    // No __$end_lsn, no __$command_id.
    let kept: Vec<&Column> = columns.iter().filter(|c| c.name != "__$end_lsn" && c.name != "__$command_id").collect();
    let items: Vec<String> = kept.iter().enumerate().map(|(i, c)| format!("{} AS v{}", c.physical(), i + 1)).collect();
    let old = if filter == "all update old" { "" } else { " AND c4 <> 3" };
    let sql = format!(
        "SELECT {} FROM t{id} WHERE c1 BETWEEN {} AND {}{old}",
        items.join(", "),
        literal(&Value::Blob(from.clone())),
        literal(&Value::Blob(to.clone()))
    );
    Ok(View { columns: kept.iter().map(|c| (c.name.clone(), c.ty)).collect(), sql })
}

/// "sys.dm_db_log_stats"
pub fn log_stats(session: &Session) -> Result<View> {
    session.demand_state("VIEW DATABASE STATE")?;
    let end = lsn_text(&lsn(state(&session.c, "record")?));
    let sysname = SqlType::sized(Kind::NVarChar, 24);
    let columns = vec![
        ("database_id".to_owned(), SqlType::of(Kind::Int)),
        ("recovery_model".into(), SqlType::sized(Kind::NVarChar, 60)),
        ("log_min_lsn".into(), sysname),
        ("log_end_lsn".into(), sysname),
    ];
    let end = literal(&Value::Text(end));
    let sql = format!("SELECT {} AS v1, 'FULL' AS v2, '0000002a:00000000:0001' AS v3, {end} AS v4", session.db.id);
    Ok(View { columns, sql })
}
