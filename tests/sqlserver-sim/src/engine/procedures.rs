//! System procedures: `sp_executesql`, those of change data capture, a few that clients call by themselves.

use super::cdc::{self, Enable};
use super::session::{Output, Session};
use super::{capture, catalog};
use crate::error::{Result, SqlError};
use crate::sql::ast::{Argument, Expr};
use crate::types::convert::convert;
use crate::types::{Kind, SqlType};
use rusqlite::types::Value;

/// Arguments of a call, evaluated.
pub struct Arguments(Vec<(Option<String>, SqlType, Value)>);

impl Arguments {
    /// Takes values that came in a request.
    pub fn new(list: Vec<(Option<String>, SqlType, Value)>) -> Self {
        Self(list)
    }

    fn get(&self, name: &str, position: usize) -> Option<&(Option<String>, SqlType, Value)> {
        let named = self
            .0
            .iter()
            .find(|(n, ..)| n.as_ref().is_some_and(|n| n.trim_start_matches('@').eq_ignore_ascii_case(name)));
        named.or_else(|| self.0.get(position).filter(|(n, ..)| n.is_none()))
    }

    fn text(&self, name: &str, position: usize) -> Result<Option<String>> {
        let Some((_, ty, v)) = self.get(name, position) else { return Ok(None) };
        Ok(match convert(v, *ty, SqlType::max(Kind::NVarChar), 0)? {
            Value::Text(t) => Some(t),
            _ => None,
        })
    }

    fn int(&self, name: &str, position: usize) -> Result<Option<i64>> {
        let Some((_, ty, v)) = self.get(name, position) else { return Ok(None) };
        Ok(match convert(v, *ty, SqlType::of(Kind::BigInt), 0)? {
            Value::Integer(i) => Some(i),
            _ => None,
        })
    }

    fn required(&self, procedure: &str, name: &str, position: usize) -> Result<String> {
        self.text(name, position)?.ok_or_else(|| {
            let text =
                format!("Procedure or function '{procedure}' expects parameter '@{name}', which was not supplied.");
            SqlError::new(201, 16, 4, text)
        })
    }
}

impl Session {
    /// EXEC
    pub fn execute(
        &mut self,
        result: Option<&str>,
        name: &[String],
        args: &[Argument],
        out: &mut dyn Output,
    ) -> Result<()> {
        let procedure = name.last().map(|n| n.to_ascii_lowercase()).unwrap_or_default();
        let mut list = Vec::new();
        for a in args {
            let (ty, v) =
                if a.value == Expr::Default { (SqlType::of(Kind::Int), Value::Null) } else { self.evaluate(&a.value)? };
            list.push((a.name.clone(), ty, v));
        }
        if procedure == "sp_executesql" {
            // Output parameters go back into the variables they came from.
            let outputs: Vec<(String, String)> = args
                .iter()
                .filter(|a| a.output)
                .filter_map(|a| match (&a.name, &a.value) {
                    (Some(inner), Expr::Var(outer)) => Some((inner.clone(), outer.clone())),
                    _ => None,
                })
                .collect();
            let after = self.execute_sql(Arguments(list), out)?;
            for (inner, outer) in outputs {
                if let Some((_, ty, v)) = after.iter().find(|(n, ..)| n.eq_ignore_ascii_case(&inner)) {
                    self.assign(&outer, *ty, v)?;
                }
            }
        } else {
            self.procedure(&procedure, name, Arguments(list), out)?;
        }
        if let Some(variable) = result {
            self.assign(variable, SqlType::of(Kind::Int), &Value::Integer(0))?;
        }
        Ok(())
    }

    /// "sp_executesql (Transact-SQL)": the statement, the declarations, the values. Answers the variables at the end.
    pub fn execute_sql(&mut self, args: Arguments, out: &mut dyn Output) -> Result<Vec<(String, SqlType, Value)>> {
        let text = args.required("sp_executesql", "stmt", 0)?;
        let declared = args.text("params", 1)?.unwrap_or_default();
        let mut variables = declarations(&declared)?;
        for v in &mut variables {
            v.1 = v.1.collate(self.db.collation);
        }
        let unnamed: Vec<_> =
            args.0.iter().skip(2).filter(|a| a.0.as_ref().is_none_or(String::is_empty)).cloned().collect();
        let mut unnamed = unnamed.into_iter();
        let named: Vec<_> =
            args.0.iter().skip(2).filter(|a| a.0.as_ref().is_some_and(|n| !n.is_empty())).cloned().collect();
        for (name, ty, value) in &mut variables {
            let given = named
                .iter()
                .find(|(n, ..)| n.as_ref().is_some_and(|n| n.eq_ignore_ascii_case(name)))
                .cloned()
                .or_else(|| unnamed.next());
            let Some((_, from, v)) = given else {
                let text = format!(
                    "The parameterized query '({declared}){text}' expects the parameter '{name}', which was not supplied."
                );
                return Err(SqlError::new(8178, 16, 1, text));
            };
            *value = convert(&v, from, *ty, 0)?;
        }
        if self.nesting >= 32 {
            return Err(SqlError::new(
                217,
                16,
                1,
                "Maximum stored procedure, function, trigger, or view nesting level exceeded (limit 32).",
            ));
        }
        let statements = crate::sql::parse_batch(&text)?;
        let outer = std::mem::replace(&mut self.variables, variables);
        self.nesting += 1;
        let mut result = Ok(());
        for s in &statements {
            match self.statement(s, out) {
                Ok(super::session::Flow::Next) => {}
                Ok(super::session::Flow::Return) => break,
                Err(e) => {
                    result = Err(e);
                    break;
                }
            }
        }
        self.nesting -= 1;
        let after = std::mem::replace(&mut self.variables, outer);
        result.map(|()| after)
    }

    /// A procedure by name.
    pub fn procedure(&mut self, procedure: &str, name: &[String], a: Arguments, out: &mut dyn Output) -> Result<()> {
        match procedure {
            "sp_cdc_enable_db" => cdc::enable_database(self)?,
            "sp_cdc_disable_db" => cdc::disable_database(self)?,
            "sp_cdc_enable_table" => {
                let enable = Enable {
                    schema: a.required(procedure, "source_schema", 0)?,
                    name: a.required(procedure, "source_name", 1)?,
                    instance: a.text("capture_instance", 2)?,
                    net_changes: a.int("supports_net_changes", 3)?.map(|v| v != 0),
                    role: a.text("role_name", 4)?,
                    index: a.text("index_name", 5)?,
                    columns: a.text("captured_column_list", 6)?,
                };
                cdc::enable_table(self, &enable)?;
            }
            "sp_cdc_disable_table" => {
                let (schema, table, instance) = (
                    a.required(procedure, "source_schema", 0)?,
                    a.required(procedure, "source_name", 1)?,
                    a.required(procedure, "capture_instance", 2)?,
                );
                cdc::disable_table(self, &schema, &table, &instance)?;
            }
            "sp_cdc_scan" => {
                self.demand_owner(procedure)?;
                let quirks = self.server.options.quirks;
                self.server.agent.scan(&self.db.clone(), quirks)?;
            }
            "sp_cdc_cleanup_change_table" => self.cleanup_change_table(&a)?,
            "sp_cdc_help_change_data_capture" => self.help_instances(&a, out)?,
            "sp_cdc_help_jobs" => self.help_jobs(out)?,
            "sp_cdc_add_job" => {
                self.demand_owner(procedure)?;
                self.server.agent.add_jobs(self.db.id);
            }
            "sp_cdc_drop_job" => {
                self.demand_owner(procedure)?;
                let kind = a.required(procedure, "job_type", 0)?;
                self.server.agent.remove_job(self.db.id, &kind);
            }
            "sp_cdc_start_job" | "sp_cdc_stop_job" => {
                self.demand_owner(procedure)?;
                let kind = a.text("job_type", 0)?.unwrap_or_else(|| "capture".into());
                if !self.server.agent.jobs().iter().any(|j| j.database == self.db.id && j.kind == kind) {
                    let text = format!("Could not find the {kind} job of database '{}'.", self.db.name);
                    return Err(SqlError::new(22_831, 16, 1, text));
                }
                if kind == "capture" {
                    self.server.agent.run_capture(self.db.id, procedure == "sp_cdc_start_job");
                }
            }
            "sp_cdc_change_job" => self.change_job(&a)?,
            "sp_rename" => self.rename(&a)?,
            "sp_reset_connection" | "sp_set_session_context" => {}
            "sp_addrolemember" => {
                let (role, member) = (a.required(procedure, "rolename", 0)?, a.required(procedure, "membername", 1)?);
                self.security(&crate::sql::ast::Statement::Membership { role, member, add: true, server: false })?;
            }
            "sp_prepare" | "sp_execute" | "sp_prepexec" | "sp_unprepare" | "sp_cursoropen" | "sp_cursorfetch"
            | "sp_cursorclose" | "sp_tables" | "sp_columns" | "sp_help" | "sp_helptext" | "sp_datatype_info"
            | "sp_pkeys" => {
                return Err(SqlError::unmodelled(format!("the procedure {procedure}")));
            }
            _ => {
                let r = catalog::resolve(self, name)?;
                if catalog::find(&self.c, &r.schema, &r.object)?.is_some_and(|o| o.kind == "P") {
                    return Err(SqlError::unmodelled("running procedures of users"));
                }
                return Err(SqlError::new(
                    2812,
                    16,
                    62,
                    format!("Could not find stored procedure '{}'.", name.join(".")),
                ));
            }
        }
        out.return_status(0);
        Ok(())
    }

    /// "sys.sp_cdc_cleanup_change_table": removes rows below the low water mark of one instance.
    fn cleanup_change_table(&mut self, a: &Arguments) -> Result<()> {
        self.demand_owner("sp_cdc_cleanup_change_table")?;
        let instance = a.required("sp_cdc_cleanup_change_table", "capture_instance", 0)?;
        let tables = cdc::table(self, "change_tables")?;
        let id: Option<i64> =
            self.c.query_row(&format!("SELECT max(c1) FROM {tables} WHERE c4 = ?1"), [&instance], |r| r.get(0))?;
        let Some(id) = id else {
            let text = format!("The specified capture instance '{instance}' does not exist in the current database.");
            return Err(SqlError::new(22_964, 16, 1, text));
        };
        let low = match a.get("low_water_mark", 1) {
            Some((_, ty, v)) => convert(v, *ty, SqlType::sized(Kind::Binary, 10), 0)?,
            None => Value::Null,
        };
        if let Value::Blob(low) = low {
            let mapping = cdc::table(self, "lsn_time_mapping")?;
            let known: bool =
                self.c.query_row(&format!("SELECT count(*) > 0 FROM {mapping} WHERE c1 = ?1"), [&low], |r| r.get(0))?;
            if !known {
                let text = "The low water mark is not a start_lsn of the cdc.lsn_time_mapping table.";
                return Err(SqlError::new(22_957, 16, 1, text));
            }
            self.write(|s| capture::clean_instance(&s.c, id, &low).map(drop))?;
        }
        Ok(())
    }

    /// "sys.sp_cdc_help_change_data_capture": the instances the caller may read.
    fn help_instances(&mut self, a: &Arguments, out: &mut dyn Output) -> Result<()> {
        let tables = cdc::table(self, "change_tables")?;
        let captured = cdc::table(self, "captured_columns")?;
        let keys = cdc::table(self, "index_columns")?;
        let visible = self.instance_visible("x")?;
        let (schema, name) = (a.text("source_schema", 0)?, a.text("source_name", 1)?);
        let filter = match (&schema, &name) {
            (Some(s), Some(n)) => format!(
                " AND s.name = {} AND o.name = {}",
                super::views::literal(&Value::Text(s.clone())),
                super::views::literal(&Value::Text(n.clone()))
            ),
            _ => String::new(),
        };
        let list = |t: &str, order: &str| {
            format!(
                "(SELECT group_concat('[' || column_name || ']', ', ') FROM (SELECT c2 AS column_name FROM {t} WHERE c1 = x.c1 ORDER BY {order}))"
            )
        };
        let sql = format!(
            "SELECT s.name, o.name, x.c4, x.c1, x.c3, x.c5, x.c6, x.c7, x.c8, x.c9, x.c10, x.c11, x.c12, {}, {} FROM {tables} x \
             JOIN core_objects o ON o.object_id = x.c3 JOIN core_schemas s ON s.schema_id = o.schema_id WHERE {visible}{filter} ORDER BY s.name, o.name, x.c4",
            list(&keys, "c3"),
            list(&captured, "c5")
        );
        let sysname = SqlType::sysname();
        let (int, bit, lsn) = (SqlType::of(Kind::Int), SqlType::of(Kind::Bit), SqlType::sized(Kind::Binary, 10));
        let columns = [
            ("source_schema", sysname),
            ("source_table", sysname),
            ("capture_instance", sysname),
            ("object_id", int),
            ("source_object_id", int),
            ("start_lsn", lsn),
            ("end_lsn", lsn),
            ("supports_net_changes", bit),
            ("has_drop_pending", bit),
            ("role_name", sysname),
            ("index_name", sysname),
            ("filegroup_name", sysname),
            ("create_date", SqlType::of(Kind::DateTime)),
            ("index_column_list", SqlType::max(Kind::NVarChar)),
            ("captured_column_list", SqlType::max(Kind::NVarChar)),
        ];
        self.result(&sql, &columns, out)
    }

    /// "sys.sp_cdc_help_jobs"
    fn help_jobs(&mut self, out: &mut dyn Output) -> Result<()> {
        let jobs: Vec<_> = self.server.agent.jobs().into_iter().filter(|j| j.database == self.db.id).collect();
        let rows: Vec<String> = jobs
            .iter()
            .map(|j| {
                let capture = j.kind == "capture";
                let name = super::views::literal(&Value::Text(format!("cdc.{}_{}", self.db.name, j.kind)));
                let on = |v: i64, here: bool| if here { v } else { 0 };
                format!(
                    "(x'{}', '{}', {name}, {}, {}, {}, {}, {}, {})",
                    crate::types::format::hex(&j.id),
                    j.kind,
                    on(j.maxtrans, capture),
                    on(j.maxscans, capture),
                    i64::from(capture),
                    on(j.pollinginterval, capture),
                    on(j.retention, !capture),
                    on(j.threshold, !capture)
                )
            })
            .collect();
        let sql = if rows.is_empty() {
            "SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL WHERE 0".into()
        } else {
            format!("SELECT * FROM (VALUES {})", rows.join(", "))
        };
        let (int, big) = (SqlType::of(Kind::Int), SqlType::of(Kind::BigInt));
        let columns = [
            ("job_id", SqlType::of(Kind::UniqueIdentifier)),
            ("job_type", SqlType::sized(Kind::NVarChar, 20)),
            ("job_name", SqlType::sysname()),
            ("maxtrans", int),
            ("maxscans", int),
            ("continuous", SqlType::of(Kind::Bit)),
            ("pollinginterval", big),
            ("retention", big),
            ("threshold", big),
        ];
        self.result(&sql, &columns, out)
    }

    fn result(&mut self, sql: &str, columns: &[(&str, SqlType)], out: &mut dyn Output) -> Result<()> {
        let metas: Vec<_> = columns
            .iter()
            .map(|(n, t)| super::session::Meta {
                name: (*n).into(),
                ty: *t,
                nullable: true,
                identity: false,
                column: false,
            })
            .collect();
        let n = self.emit(sql, &metas, Vec::new(), out)?;
        out.done(Some(n), true);
        Ok(())
    }

    /// "sys.sp_cdc_change_job"
    fn change_job(&mut self, a: &Arguments) -> Result<()> {
        self.demand_owner("sp_cdc_change_job")?;
        let kind = a.text("job_type", 0)?.unwrap_or_else(|| "capture".into());
        let values = [
            ("maxtrans", a.int("maxtrans", 1)?),
            ("maxscans", a.int("maxscans", 2)?),
            ("pollinginterval", a.int("pollinginterval", 4)?),
            ("retention", a.int("retention", 5)?),
            ("threshold", a.int("threshold", 6)?),
        ];
        self.server.agent.change_job(self.db.id, &kind, |j| {
            for (name, v) in values {
                if let Some(v) = v {
                    match name {
                        "maxtrans" => j.maxtrans = v,
                        "maxscans" => j.maxscans = v,
                        "pollinginterval" => j.pollinginterval = v,
                        "retention" => j.retention = v,
                        _ => j.threshold = v,
                    }
                }
            }
        });
        Ok(())
    }

    /// "sp_rename": columns and tables; columns of captured tables cannot be renamed (4928).
    fn rename(&mut self, a: &Arguments) -> Result<()> {
        let old = a.required("sp_rename", "objname", 0)?;
        let new = a.required("sp_rename", "newname", 1)?;
        let kind = a.text("objtype", 2)?.unwrap_or_default().to_ascii_lowercase();
        let tokens = crate::sql::parse_expr_text(&old)?;
        let Expr::Column(mut parts) = tokens else { return Err(SqlError::syntax(&old)) };
        if kind == "column" {
            let column = parts.pop().unwrap_or_default();
            let object = catalog::table(self, &parts)?;
            self.demand("ALTER", &object)?;
            if object.cdc {
                let text = format!(
                    "Cannot alter column '{column}' because it is 'REPLICATED' or enabled for Change Data Capture."
                );
                return Err(SqlError::new(4928, 16, 1, text));
            }
            return self.write(|s| {
                let n = s.c.execute(
                    "UPDATE core_columns SET name = ?3 WHERE object_id = ?1 AND name = ?2",
                    rusqlite::params![object.id, column, new],
                )?;
                if n == 0 {
                    Err(SqlError::new(
                        15_248,
                        11,
                        1,
                        "Either the parameter @objname is ambiguous or the claimed @objtype (COLUMN) is wrong.",
                    ))
                } else {
                    Ok(())
                }
            });
        }
        if !kind.is_empty() && kind != "object" {
            return Err(SqlError::unmodelled(format!("sp_rename of {kind}")));
        }
        let object = catalog::table(self, &parts)?;
        self.demand("ALTER", &object)?;
        self.write(|s| {
            s.c.execute("UPDATE core_objects SET name = ?2 WHERE object_id = ?1", rusqlite::params![object.id, new])?;
            Ok(())
        })
    }
}

/// `@a int, @b nvarchar(10) OUTPUT`
fn declarations(text: &str) -> Result<Vec<(String, SqlType, Value)>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let statements = crate::sql::parse_batch(&format!("DECLARE {}", strip_output(text)))?;
    match &statements[..] {
        [crate::sql::ast::Statement::Declare(list)] => list
            .iter()
            .map(|(n, ty, _)| Ok((n.clone(), SqlType::declared(&ty.name, &ty.args, false)?, Value::Null)))
            .collect(),
        _ => Err(SqlError::syntax(text)),
    }
}

/// Takes the words OUTPUT and OUT off declarations.
fn strip_output(text: &str) -> String {
    text.split(',')
        .map(|p| {
            let lower = p.trim_end().to_ascii_lowercase();
            let cut = if lower.ends_with(" output") {
                7
            } else if lower.ends_with(" out") {
                4
            } else {
                0
            };
            let p = p.trim_end();
            p[..p.len() - cut].to_owned()
        })
        .collect::<Vec<_>>()
        .join(",")
}
