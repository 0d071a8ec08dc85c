//! Definitions: tables, indexes, views, schemas, databases.

use super::bind::Binder;
use super::catalog::{self, Column, Object};
use super::database::{remember_type, set_state};
use super::session::{Output, Session};
use super::tables::{IndexFlags, declaration};
use super::{cdc, tracking};
use crate::error::{Result, SqlError};
use crate::sql::ast::{DatabaseOption, Name, Statement};
use crate::types::{SqlType, datetime};
use rusqlite::params;

impl Session {
    /// Runs a definition.
    pub fn define(&mut self, s: &Statement, out: &mut dyn Output) -> Result<()> {
        match s {
            Statement::CreateTable { name, columns, constraints } => self.create_table(name, columns, constraints),
            Statement::AlterTable(name, action) => self.alter_table(name, action),
            Statement::CreateIndex { name, table, unique, clustered, columns, included } => {
                let object = catalog::table(self, table)?;
                self.demand("ALTER", &object)?;
                let flags = IndexFlags { unique: *unique, clustered: Some(*clustered), ..IndexFlags::default() };
                self.write(|s| s.add_index(&object, name, columns, included, flags).map(drop))
            }
            Statement::DropIndex { name, table } => {
                let object = catalog::table(self, table)?;
                self.demand("ALTER", &object)?;
                self.write(|s| s.drop_index(&object, name))
            }
            Statement::CreateView { name, columns, text } => self.create_view(name, columns, text),
            Statement::CreateProcedure { name } => self.write(|s| s.new_object(name, "P", 0, None, false).map(drop)),
            Statement::CreateSchema(name) => self.write(|s| {
                s.demand_owner("CREATE SCHEMA")?;
                if catalog::schema_id(&s.c, name)?.is_some() {
                    return Err(SqlError::new(
                        2714,
                        16,
                        6,
                        format!("There is already an object named '{name}' in the database."),
                    ));
                }
                s.c.execute("INSERT INTO core_schemas(name) VALUES(?1)", [name])?;
                Ok(())
            }),
            Statement::CreateDatabase { name, collation } => {
                if !self.admin {
                    return Err(SqlError::new(262, 14, 1, "CREATE DATABASE permission denied in database 'master'."));
                }
                self.server.create_database(name, collation.as_deref()).map(drop)
            }
            Statement::AlterDatabase { name, options } => self.alter_database(name.as_deref(), options),
            Statement::Drop { what, if_exists, names } => {
                for name in names {
                    self.drop_one(what, *if_exists, name)?;
                }
                Ok(())
            }
            _ => {
                let _ = out;
                Err(SqlError::unmodelled("this statement"))
            }
        }
    }

    /// Enters an object into the catalogue.
    pub fn new_object(
        &mut self,
        name: &[String],
        kind: &str,
        parent: i64,
        definition: Option<&str>,
        shipped: bool,
    ) -> Result<Object> {
        let r = catalog::resolve(self, name)?;
        if r.database.is_some() {
            return Err(SqlError::unmodelled("creating objects in another database"));
        }
        if r.object.starts_with('#') {
            return Err(SqlError::unmodelled("temporary tables"));
        }
        if !shipped {
            self.demand_owner("CREATE")?;
        }
        let schema = catalog::schema_id(&self.c, &r.schema)?.ok_or_else(|| {
            let text = format!(
                "The specified schema name \"{}\" either does not exist or you do not have permission to use it.",
                r.schema
            );
            SqlError::new(2760, 16, 1, text)
        })?;
        if catalog::find(&self.c, &r.schema, &r.object)?.is_some() {
            return Err(SqlError::new(
                2714,
                16,
                6,
                format!("There is already an object named '{}' in the database.", r.object),
            ));
        }
        let id = catalog::new_object_id(&self.c)?;
        let now = datetime::round_datetime(datetime::now());
        self.c.execute(
            "INSERT INTO core_objects(object_id, schema_id, name, type, parent, created, modified, shipped, definition) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?6, ?7, ?8)",
            params![id, schema, r.object, kind, parent, now, shipped, definition],
        )?;
        catalog::by_id(&self.c, id)?.ok_or_else(|| SqlError::object(&r.object))
    }

    fn create_view(&mut self, name: &Name, columns: &[String], text: &str) -> Result<()> {
        self.write(|s| {
            let query = crate::sql::parse_query_text(text)?;
            let (names, types): (Vec<String>, Vec<(SqlType, bool)>) = {
                let mut b = Binder::new(s);
                b.kept = true;
                let bound = b.query(&query, None)?;
                bound
                    .columns
                    .iter()
                    .enumerate()
                    .map(|(i, c)| {
                        (columns.get(i).cloned().unwrap_or_else(|| c.name.clone()), (c.bound.ty, c.bound.nullable))
                    })
                    .unzip()
            };
            if let Some(at) = names.iter().position(String::is_empty) {
                return Err(SqlError::new(
                    4511,
                    16,
                    1,
                    format!(
                        "Create View or Function failed because no column name was specified for column {}.",
                        at + 1
                    ),
                ));
            }
            let object = s.new_object(name, "V", 0, Some(text), false)?;
            for (i, (name, (ty, nullable))) in names.iter().zip(types).enumerate() {
                s.c.execute(
                    "INSERT INTO core_columns VALUES(?1, ?2, ?3, ?4, ?5, NULL, NULL, NULL, 0, NULL, NULL)",
                    params![object.id, i as i64 + 1, name, ty.code(), nullable],
                )?;
                remember_type(&s.c, ty)?;
            }
            Ok(())
        })
    }

    fn alter_database(&mut self, name: Option<&str>, options: &[DatabaseOption]) -> Result<()> {
        let db = match name {
            None => self.db.clone(),
            Some(n) => self.server.database(n).ok_or_else(|| {
                let text = format!("User does not have permission to alter database '{n}', the database does not exist, or the database is not in a state that allows access checks.");
                SqlError::new(5011, 14, 5, text)
            })?,
        };
        self.demand_owner("ALTER DATABASE")?;
        if self.transaction.is_some() {
            return Err(SqlError::new(
                226,
                16,
                6,
                "ALTER DATABASE statement not allowed within multi-statement transaction.",
            ));
        }
        for o in options {
            let mut settings: Vec<(&str, i64)> = Vec::new();
            match o {
                DatabaseOption::SnapshotIsolation(on) => settings.push(("snapshot_isolation", i64::from(*on))),
                DatabaseOption::ReadCommittedSnapshot(on) => settings.push(("rcsi", i64::from(*on))),
                DatabaseOption::ChangeTracking { on, retention_minutes, auto_cleanup } => {
                    tracking::switch_database(&db, *on)?;
                    settings.push(("ct", i64::from(*on)));
                    settings.extend(retention_minutes.map(|m| ("ct_retention", m)));
                    settings.extend(auto_cleanup.map(|a| ("ct_cleanup", i64::from(a))));
                }
                DatabaseOption::Ignored(_) => {}
            }
            if db.id == self.db.id {
                self.write(|s| settings.iter().try_for_each(|(k, v)| set_state(&s.c, k, *v)))?;
            } else {
                let c = db.borrow()?;
                settings.iter().try_for_each(|(k, v)| set_state(&c, k, *v))?;
            }
        }
        Ok(())
    }

    fn drop_one(&mut self, what: &str, if_exists: bool, name: &Name) -> Result<()> {
        let last = name.last().cloned().unwrap_or_default();
        let missing = |kind: &str| {
            SqlError::new(
                3701,
                11,
                5,
                format!(
                    "Cannot drop the {kind} '{}', because it does not exist or you do not have permission.",
                    name.join(".")
                ),
            )
        };
        match what {
            "table" | "view" | "procedure" => {
                let kind = match what {
                    "table" => "U",
                    "view" => "V",
                    _ => "P",
                };
                let r = catalog::resolve(self, name)?;
                let Some(object) =
                    catalog::find(&self.c, &r.schema, &r.object)?.filter(|o| o.kind == kind && !o.shipped)
                else {
                    return if if_exists { Ok(()) } else { Err(missing(what)) };
                };
                self.demand_owner("DROP")?;
                self.write(|s| s.drop_object(&object))
            }
            "schema" => self.write(|s| {
                let id = catalog::schema_id(&s.c, &last)?;
                let Some(id) = id else { return if if_exists { Ok(()) } else { Err(missing("schema")) } };
                let used: i64 =
                    s.c.query_row("SELECT count(*) FROM core_objects WHERE schema_id = ?1", [id], |r| r.get(0))?;
                if used > 0 {
                    return Err(SqlError::new(
                        3729,
                        16,
                        1,
                        format!("Cannot drop schema '{last}' because it is being referenced by an object."),
                    ));
                }
                s.c.execute("DELETE FROM core_schemas WHERE schema_id = ?1", [id])?;
                Ok(())
            }),
            "database" => match self.server.drop_database(&last) {
                Err(_) if if_exists => Ok(()),
                other => other,
            },
            "login" => {
                self.server.drop_login(&last);
                Ok(())
            }
            _ => self.write(|s| {
                let n = s.c.execute("DELETE FROM core_principals WHERE name = ?1", [&last])?;
                if n == 0 && !if_exists { Err(missing(what)) } else { Ok(()) }
            }),
        }
    }

    /// Drops a table with everything that hangs on it; 3726 while another table refers to it. Change data capture of the
    /// table goes with it ("sys.sp_cdc_disable_table", remarks: dropping the table removes its capture instances).
    pub fn drop_object(&mut self, object: &Object) -> Result<()> {
        let referenced: i64 = self.c.query_row(
            "SELECT count(*) FROM core_fks WHERE referenced = ?1 AND parent <> ?1",
            [object.id],
            |r| r.get(0),
        )?;
        if referenced > 0 {
            let text = format!(
                "Could not drop object '{}' because it is referenced by a FOREIGN KEY constraint.",
                object.name
            );
            return Err(SqlError::new(3726, 16, 1, text));
        }
        if object.cdc {
            cdc::disable_all(self, object)?;
        }
        self.drop_triggers(object.id)?;
        let parents: Vec<i64> = {
            let mut st = self.c.prepare("SELECT DISTINCT referenced FROM core_fks WHERE parent = ?1")?;
            st.query_map([object.id], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?
        };
        if object.kind == "U" {
            self.c.execute_batch(&format!("DROP TABLE IF EXISTS {}", object.physical()))?;
        }
        self.c.execute(
            "DELETE FROM core_fk_columns WHERE fk IN (SELECT object_id FROM core_fks WHERE parent = ?1)",
            [object.id],
        )?;
        for (table, column) in [
            ("core_fks", "parent"),
            ("core_checks", "parent"),
            ("core_objects", "parent"),
            ("core_objects", "object_id"),
            ("core_columns", "object_id"),
            ("core_indexes", "object_id"),
            ("core_index_columns", "object_id"),
            ("core_ct", "object_id"),
        ] {
            self.c.execute(&format!("DELETE FROM {table} WHERE {column} = ?1"), [object.id])?;
        }
        self.c.execute("DELETE FROM core_permissions WHERE class = 1 AND major = ?1", [object.id])?;
        super::database::locked(&self.db.identities).remove(&object.id);
        for id in parents.into_iter().filter(|p| *p != object.id) {
            if let Some(parent) = catalog::by_id(&self.c, id)? {
                self.build_triggers(&parent)?;
            }
        }
        Ok(())
    }

    /// Runs a bound query into a new table: SELECT … INTO.
    pub fn select_into(
        &mut self,
        name: &Name,
        bound: &super::bind::BoundQuery,
        params_in: Vec<rusqlite::types::Value>,
    ) -> Result<u64> {
        let columns: Vec<Column> = bound
            .columns
            .iter()
            .enumerate()
            .map(|(i, c)| Column {
                id: i as i64 + 1,
                name: c.name.clone(),
                ty: c.bound.ty,
                nullable: c.bound.nullable,
                identity: c.bound.identity.then_some((1, 1)),
                computed: None,
                default: None,
            })
            .collect();
        if columns.iter().any(|c| c.name.is_empty()) {
            return Err(SqlError::new(
                1038,
                15,
                5,
                "An object or column name is missing or empty. For SELECT INTO statements, verify each column has a name.",
            ));
        }
        self.write(|s| {
            let object = s.new_object(name, "U", 0, None, false)?;
            for c in &columns {
                s.c.execute(
                    "INSERT INTO core_columns VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, 0, NULL, NULL)",
                    params![
                        object.id,
                        c.id,
                        c.name,
                        c.ty.code(),
                        c.nullable,
                        c.identity.map(|i| i.0),
                        c.identity.map(|i| i.1)
                    ],
                )?;
                remember_type(&s.c, c.ty)?;
            }
            let list: Vec<String> = columns.iter().map(declaration).collect();
            s.c.execute_batch(&format!("CREATE TABLE {} ({})", object.physical(), list.join(", ")))?;
            let n =
                s.c.prepare(&format!("INSERT INTO {} {}", object.physical(), bound.sql))?
                    .execute(rusqlite::params_from_iter(params_in.clone()))?;
            Ok(n as u64)
        })
    }
}
