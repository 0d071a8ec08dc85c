//! Functions that tell about the session, the server and the catalogue, and those of schema `sys`.

use super::{Binder, Bound, Scope};
use crate::engine::database::state;
use crate::engine::views::literal;
use crate::error::{Result, SqlError};
use crate::sql::ast::Expr;
use crate::types::{Kind, SqlType, datetime};
use rusqlite::types::Value;

fn int() -> SqlType {
    SqlType::of(Kind::Int)
}

impl Binder<'_> {
    /// Functions of the session, most of which are constants for one statement.
    pub(crate) fn session_call(&mut self, name: &str, args: &[Bound]) -> Result<Option<Bound>> {
        let session = self.session;
        let sysname = SqlType::sysname();
        let constant =
            |v: Value, ty: SqlType| Ok(Some(Bound { nullable: v == Value::Null, ..Bound::new(literal(&v), ty) }));
        let word = |t: &str| constant(Value::Text(t.into()), sysname);
        let number = |i: i64, ty: SqlType| constant(Value::Integer(i), ty);
        let now = session.statement_time;
        match (name, args) {
            // In text that is kept (views, checks, computed columns) the time is that of the reading.
            ("getdate" | "current_timestamp" | "getutcdate", []) if self.kept => {
                Ok(Some(Bound::new("t_now(1)", SqlType::of(Kind::DateTime))))
            }
            ("sysdatetime" | "sysutcdatetime", []) if self.kept => {
                Ok(Some(Bound::new("t_now(0)", SqlType::of(Kind::DateTime2))))
            }
            ("getdate" | "current_timestamp" | "getutcdate", []) => {
                number(datetime::round_datetime(now), SqlType::of(Kind::DateTime))
            }
            ("sysdatetime" | "sysutcdatetime", []) => number(now, SqlType::of(Kind::DateTime2)),
            ("sysdatetimeoffset", []) => {
                constant(crate::types::convert::zoned(now, 0), SqlType::of(Kind::DateTimeOffset))
            }
            ("db_name", []) => word(&session.db.name),
            ("db_id", []) => number(session.db.id, SqlType::of(Kind::SmallInt)),
            ("db_name" | "db_id", [a]) => {
                let rows: Vec<String> = session
                    .server
                    .databases()
                    .iter()
                    .map(|d| format!("({}, {})", literal(&Value::Text(d.name.clone())), d.id))
                    .collect();
                let (what, key, ty) = if name == "db_id" {
                    ("column2", "column1 COLLATE NOCASE", SqlType::of(Kind::SmallInt))
                } else {
                    ("column1", "column2", sysname)
                };
                Ok(Some(Bound::new(
                    format!("(SELECT {what} FROM (VALUES {}) WHERE {key} = {})", rows.join(", "), a.sql),
                    ty,
                )))
            }
            ("suser_sname" | "suser_name" | "original_login" | "system_user", []) => word(&session.login),
            ("user_name" | "current_user" | "session_user" | "user", []) => word(&session.user),
            ("app_name", []) => word(&session.program),
            ("host_name", []) => word(&session.host),
            ("schema_name", []) => word("dbo"),
            ("schema_name", [a]) => {
                Ok(Some(Bound::new(format!("(SELECT name FROM core_schemas WHERE schema_id = {})", a.sql), sysname)))
            }
            ("schema_id", [a]) => {
                Ok(Some(Bound::new(format!("(SELECT schema_id FROM core_schemas WHERE name = {})", a.sql), int())))
            }
            ("object_id", [a]) => Ok(Some(self.object_id(a))),
            ("object_id", [a, kind]) => {
                let b = self.object_id(a);
                let sql = format!(
                    "(SELECT object_id FROM core_objects WHERE object_id = {} AND type = trim({}))",
                    b.sql, kind.sql
                );
                Ok(Some(Bound::new(sql, int())))
            }
            ("object_name", [a]) => {
                Ok(Some(Bound::new(format!("(SELECT name FROM core_objects WHERE object_id = {})", a.sql), sysname)))
            }
            ("object_schema_name", [a]) => Ok(Some(Bound::new(
                format!(
                    "(SELECT s.name FROM core_objects o JOIN core_schemas s ON s.schema_id = o.schema_id WHERE o.object_id = {})",
                    a.sql
                ),
                sysname,
            ))),
            ("col_name", [t, c]) => Ok(Some(Bound::new(
                format!("(SELECT name FROM core_columns WHERE object_id = {} AND column_id = {})", t.sql, c.sql),
                sysname,
            ))),
            ("type_name", [a]) => {
                let rows: Vec<String> =
                    crate::types::system_types().map(|(n, _, _, user)| format!("('{n}', {user})")).collect();
                Ok(Some(Bound::new(
                    format!(
                        "(SELECT column1 FROM (VALUES {}, ('sysname', 256)) WHERE column2 = {})",
                        rows.join(", "),
                        a.sql
                    ),
                    sysname,
                )))
            }
            ("serverproperty", [a]) => Ok(Some(self.server_property(a)?)),
            ("databasepropertyex", [_, a]) => Ok(Some(self.database_property(a)?)),
            ("is_srvrolemember", [a]) => {
                let roles = literal(&Value::Text("sysadmin".into()));
                Ok(Some(Bound::new(
                    format!(
                        "(CASE WHEN {} COLLATE NOCASE = {roles} THEN {} ELSE 0 END)",
                        a.sql,
                        i64::from(session.admin)
                    ),
                    int(),
                )))
            }
            ("is_member" | "is_rolemember", [a]) => {
                let ids = session.principals()?;
                let list = ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                let owner = i64::from(session.admin || session.user == "dbo");
                let sql = format!(
                    "(SELECT CASE WHEN principal_id IN ({list}) OR ({owner} AND principal_id = 16384) THEN 1 ELSE 0 END FROM core_principals WHERE type = 'R' AND name = {})",
                    a.sql
                );
                Ok(Some(Bound::new(sql, int())))
            }
            ("has_dbaccess", [a]) => {
                let rows: Vec<String> = session
                    .server
                    .databases()
                    .iter()
                    .map(|d| {
                        format!(
                            "({}, {})",
                            literal(&Value::Text(d.name.clone())),
                            i64::from(session.server.may_enter(d, &session.login))
                        )
                    })
                    .collect();
                Ok(Some(Bound::new(
                    format!(
                        "(SELECT column2 FROM (VALUES {}) WHERE column1 COLLATE NOCASE = {})",
                        rows.join(", "),
                        a.sql
                    ),
                    int(),
                )))
            }
            ("has_perms_by_name", [securable, class, permission]) => {
                Ok(Some(self.has_perms(securable, class, permission)?))
            }
            ("scope_identity", []) => match session.last_identity {
                Some(i) => constant(
                    crate::types::convert::convert(
                        &Value::Integer(i),
                        SqlType::of(Kind::BigInt),
                        SqlType::numeric(38, 0),
                        0,
                    )?,
                    SqlType::numeric(38, 0),
                ),
                None => constant(Value::Null, SqlType::numeric(38, 0)),
            },
            ("xact_state", []) => number(i64::from(session.depth() > 0), SqlType::of(Kind::SmallInt)),
            ("error_number" | "error_severity" | "error_state" | "error_line", []) => match &session.caught {
                Some(e) => number(
                    match name {
                        "error_number" => i64::from(e.number),
                        "error_severity" => i64::from(e.class),
                        "error_state" => i64::from(e.state),
                        _ => 1,
                    },
                    int(),
                ),
                None => constant(Value::Null, int()),
            },
            ("error_message", []) => constant(
                session.caught.as_ref().map_or(Value::Null, |e| Value::Text(e.message.clone())),
                SqlType::sized(Kind::NVarChar, 4000),
            ),
            ("change_tracking_current_version", []) => {
                if state(&session.c, "ct")? == 0 {
                    return constant(Value::Null, SqlType::of(Kind::BigInt));
                }
                Ok(Some(Bound::new(
                    "ifnull((SELECT value FROM core_state WHERE key = 'ct_version'), 0)",
                    SqlType::of(Kind::BigInt),
                )))
            }
            ("change_tracking_min_valid_version", [a]) => {
                let visible =
                    if session.admin || session.db_owner() { "1".to_owned() } else { session.tracking_visible()? };
                let sql =
                    format!("(SELECT ct_min FROM core_objects o WHERE o.object_id = {} AND o.ct AND {visible})", a.sql);
                Ok(Some(Bound::new(sql, SqlType::of(Kind::BigInt))))
            }
            ("change_tracking_is_column_in_mask", [column, mask]) => {
                let sql = format!("(CASE WHEN {1} IS NULL THEN 1 ELSE t_ctmask({0}, {1}) END)", column.sql, mask.sql);
                Ok(Some(Bound::new(sql, SqlType::of(Kind::Bit))))
            }
            ("columnproperty", [table, column, property]) => {
                let sql = format!(
                    "(SELECT CASE lower({2}) WHEN 'columnid' THEN column_id WHEN 'isidentity' THEN seed IS NOT NULL WHEN 'iscomputed' THEN computed IS NOT NULL \
                     WHEN 'allowsnull' THEN nullable END FROM core_columns WHERE object_id = {0} AND name = {1})",
                    table.sql, column.sql, property.sql
                );
                Ok(Some(Bound::new(sql, int())))
            }
            _ => Ok(None),
        }
    }

    pub(crate) fn object_id(&self, name: &Bound) -> Bound {
        let sql = format!(
            "(SELECT o.object_id FROM core_objects o JOIN core_schemas s ON s.schema_id = o.schema_id WHERE o.name = t_namepart({0}, 1) \
             AND s.name = ifnull(t_namepart({0}, 2), 'dbo') AND ifnull(t_namepart({0}, 3), {1}) = {1} COLLATE NOCASE)",
            name.sql,
            literal(&Value::Text(self.session.db.name.clone()))
        );
        Bound::new(sql, int())
    }

    pub(crate) fn server_property(&self, a: &Bound) -> Result<Bound> {
        let options = &self.session.server.options;
        let variant = |v: Value, ty: SqlType| crate::types::variant::pack(&v, ty);
        let text = |t: &str| variant(Value::Text(t.into()), SqlType::sysname());
        let number = |i: i64| variant(Value::Integer(i), int());
        let major = options.version.split('.').next().unwrap_or("16").to_owned();
        let list = [
            ("productversion", text(&options.version)),
            ("productmajorversion", text(&major)),
            ("productlevel", text("RTM")),
            ("edition", text(&options.edition)),
            ("engineedition", number(options.engine_edition)),
            ("servername", text(&options.server_name)),
            ("machinename", text(&options.server_name)),
            ("instancename", Value::Null),
            ("collation", text("SQL_Latin1_General_CP1_CI_AS")),
            ("ishadrenabled", number(0)),
            ("isintegratedsecurityonly", number(0)),
            ("isclustered", number(0)),
        ];
        let rows: Vec<String> = list.iter().map(|(k, v)| format!("('{k}', {})", literal(v))).collect();
        let sql = format!("(SELECT column2 FROM (VALUES {}) WHERE column1 = lower({}))", rows.join(", "), a.sql);
        Ok(Bound::new(sql, SqlType::of(Kind::Variant)))
    }

    pub(crate) fn database_property(&self, a: &Bound) -> Result<Bound> {
        let text = |t: &str| crate::types::variant::pack(&Value::Text(t.into()), SqlType::sysname());
        let list = [
            ("collation", text(self.session.db.collation.name())),
            ("status", text("ONLINE")),
            ("updateability", text(if self.session.secondary { "READ_ONLY" } else { "READ_WRITE" })),
            ("recovery", text("FULL")),
        ];
        let rows: Vec<String> = list.iter().map(|(k, v)| format!("('{k}', {})", literal(v))).collect();
        Ok(Bound::new(
            format!("(SELECT column2 FROM (VALUES {}) WHERE column1 = lower({}))", rows.join(", "), a.sql),
            SqlType::of(Kind::Variant),
        ))
    }

    /// HAS_PERMS_BY_NAME: objects, the database, the server.
    pub(crate) fn has_perms(&mut self, securable: &Bound, class: &Bound, permission: &Bound) -> Result<Bound> {
        let session = self.session;
        if session.admin || session.db_owner() {
            return Ok(Bound::new("1", int()).not_null());
        }
        let list = session.principals()?.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let object = self.object_id(securable);
        let server: Vec<String> = session
            .server
            .server_permissions(&session.login)
            .iter()
            .map(|p| literal(&Value::Text(p.clone())))
            .collect();
        let server = if server.is_empty() { "''".to_owned() } else { server.join(", ") };
        let sql = format!(
            "(CASE WHEN {0} IS NULL OR lower({0}) = 'server' THEN lower({1}) IN ({server}) ELSE EXISTS (SELECT 1 FROM core_permissions p \
             WHERE p.grantee IN ({list}) AND p.state = 'G' AND p.permission IN (lower({1}), 'control') AND (p.class = 0 \
             OR p.class = 1 AND p.major = {2} OR p.class = 3 AND p.major = (SELECT schema_id FROM core_objects WHERE object_id = {2}))) END)",
            class.sql, permission.sql, object.sql
        );
        Ok(Bound::new(sql, int()))
    }

    /// Scalar functions in schema `sys`, those of change data capture above all.
    pub(crate) fn system_call(&mut self, name: &str, args: &[Expr], scope: &Scope<'_>) -> Result<Bound> {
        let args: Vec<Bound> = args.iter().map(|a| self.value(a, scope)).collect::<Result<_>>()?;
        let lsn = SqlType::sized(Kind::Binary, 10);
        let enabled = state(&self.session.c, "cdc")? == 1;
        let need = |b: Bound| if enabled { b } else { Bound { sql: "NULL".into(), ..b } };
        let instances = || crate::engine::cdc::table(self.session, "change_tables");
        let mapping = || crate::engine::cdc::table(self.session, "lsn_time_mapping");
        Ok(match (name, &args[..]) {
            // The largest start_lsn of cdc.lsn_time_mapping; NULL without rows.
            ("fn_cdc_get_max_lsn", []) if enabled => Bound::new(format!("(SELECT max(c1) FROM {})", mapping()?), lsn),
            // start_lsn of the instance; ten zero bytes if there is none or the caller may not see it.
            ("fn_cdc_get_min_lsn", [i]) if enabled => {
                let visible = self.session.instance_visible("x")?;
                Bound::new(
                    format!(
                        "ifnull((SELECT x.c5 FROM {} x WHERE x.c4 = {} AND {visible}), x'00000000000000000000')",
                        instances()?,
                        i.sql
                    ),
                    lsn,
                )
            }
            ("fn_cdc_get_max_lsn", []) | ("fn_cdc_get_min_lsn", [_]) => need(Bound::new("NULL", lsn)),
            ("fn_cdc_increment_lsn", [l]) => {
                Bound::new(format!("t_lsnadd({}, 1)", self.implicit(l.clone(), lsn)?.sql), lsn)
            }
            ("fn_cdc_decrement_lsn", [l]) => {
                Bound::new(format!("t_lsnadd({}, -1)", self.implicit(l.clone(), lsn)?.sql), lsn)
            }
            ("fn_cdc_map_lsn_to_time", [l]) if enabled => {
                Bound::new(format!("(SELECT c3 FROM {} WHERE c1 = {})", mapping()?, l.sql), SqlType::of(Kind::DateTime))
            }
            ("fn_cdc_map_time_to_lsn", [op, t]) if enabled => {
                let t = self.implicit(t.clone(), SqlType::of(Kind::DateTime))?;
                let m = mapping()?;
                let sql = format!(
                    "(CASE lower({0}) WHEN 'largest less than' THEN (SELECT max(c1) FROM {m} WHERE c3 < {1}) \
                     WHEN 'largest less than or equal' THEN (SELECT max(c1) FROM {m} WHERE c3 <= {1}) \
                     WHEN 'smallest greater than' THEN (SELECT min(c1) FROM {m} WHERE c3 > {1}) \
                     WHEN 'smallest greater than or equal' THEN (SELECT min(c1) FROM {m} WHERE c3 >= {1}) END)",
                    op.sql, t.sql
                );
                Bound::new(sql, lsn)
            }
            ("fn_cdc_is_bit_set", [at, mask]) => {
                Bound::new(format!("t_bitset({}, {})", at.sql, mask.sql), SqlType::of(Kind::Bit))
            }
            ("fn_cdc_get_column_ordinal", [i, column]) if enabled => {
                let columns = crate::engine::cdc::table(self.session, "captured_columns")?;
                let sql = format!(
                    "(SELECT k.c5 FROM {columns} k JOIN {} x ON x.c1 = k.c1 WHERE x.c4 = {} AND k.c2 = {})",
                    instances()?,
                    i.sql,
                    column.sql
                );
                Bound::new(sql, int())
            }
            ("fn_cdc_has_column_changed", [i, column, mask]) if enabled => {
                let columns = crate::engine::cdc::table(self.session, "captured_columns")?;
                let at = format!(
                    "(SELECT k.c5 FROM {columns} k JOIN {} x ON x.c1 = k.c1 WHERE x.c4 = {} AND k.c2 = {})",
                    instances()?,
                    i.sql,
                    column.sql
                );
                Bound::new(format!("t_bitset({at}, {})", mask.sql), SqlType::of(Kind::Bit))
            }
            _ => return Err(SqlError::object(&format!("sys.{name}"))),
        })
    }

    /// `@@TRANCOUNT` and its like: "System functions".
    pub fn global(&mut self, name: &str) -> Result<Bound> {
        let session = self.session;
        let number = |i: i64, ty: SqlType| Ok(Bound::new(i.to_string(), ty).not_null());
        match name.to_ascii_lowercase().as_str() {
            "@@trancount" => number(session.depth(), int()),
            "@@rowcount" => number(session.row_count, int()),
            "@@error" => number(i64::from(session.last_error), int()),
            "@@spid" => number(session.id, SqlType::of(Kind::SmallInt)),
            "@@identity" => match session.last_identity {
                Some(i) => {
                    let v = crate::types::convert::convert(
                        &Value::Integer(i),
                        SqlType::of(Kind::BigInt),
                        SqlType::numeric(38, 0),
                        0,
                    )?;
                    Ok(Bound::new(literal(&v), SqlType::numeric(38, 0)))
                }
                None => Ok(Bound::new("NULL", SqlType::numeric(38, 0))),
            },
            "@@dbts" => {
                let v = session.db.counters.rowversion.load(std::sync::atomic::Ordering::SeqCst);
                Ok(Bound::new(literal(&Value::Blob(v.to_be_bytes().to_vec())), SqlType::sized(Kind::VarBinary, 8))
                    .not_null())
            }
            "@@version" => Ok(Bound::new(
                literal(&Value::Text(session.server.options.banner())),
                SqlType::sized(Kind::NVarChar, 300),
            )
            .not_null()),
            "@@servername" => {
                Ok(Bound::new(literal(&Value::Text(session.server.options.server_name.clone())), SqlType::sysname())
                    .not_null())
            }
            "@@lock_timeout" => number(session.lock_timeout.map_or(-1, |d| d.as_millis() as i64), int()),
            "@@datefirst" => number(7, SqlType::of(Kind::TinyInt)),
            "@@language" => Ok(Bound::new("'us_english'", SqlType::sysname()).not_null()),
            "@@max_precision" => number(38, SqlType::of(Kind::TinyInt)),
            "@@options" => number(5496, int()),
            "@@microsoftversion" => number(0x1000_0000, int()),
            _ => Err(SqlError::new(137, 15, 2, format!("Must declare the scalar variable \"{name}\"."))),
        }
    }
}
