//! Definitions: tables, indexes, views, schemas, databases.

use super::bind::{Binder, Bound, Scope, Source};
use super::catalog::{self, Column, Object};
use super::database::{remember_type, set_state, state};
use super::session::{Output, Session};
use super::tables::{IndexFlags, declaration};
use super::{cdc, tracking};
use crate::error::{Result, SqlError};
use crate::sql::ast::{AlterTable, ColumnDef, Constraint, ConstraintKind, DatabaseOption, Name, Statement};
use crate::types::collation::Collation;
use crate::types::{Kind, SqlType, datetime};
use rusqlite::{OptionalExtension, params};

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

    /// Type, collation and nullability of a column as it is declared.
    fn column_type(&self, def: &ColumnDef) -> Result<SqlType> {
        let Some(ty) = &def.ty else { return Err(SqlError::syntax(&def.name)) };
        let mut ty = SqlType::declared(&ty.name, &ty.args, false)?.collate(self.db.collation);
        if let Some(name) = &def.collation {
            if !ty.has_collation() {
                return Err(SqlError::new(
                    453,
                    16,
                    1,
                    format!("Collation '{name}' cannot be used on a column of this type."),
                ));
            }
            ty.collation = Collation::named(name)
                .ok_or_else(|| SqlError::new(448, 16, 3, format!("Invalid collation '{name}'.")))?;
        }
        Ok(ty)
    }

    fn create_table(&mut self, name: &Name, columns: &[ColumnDef], constraints: &[Constraint]) -> Result<()> {
        let keyed = |column: &str, primary_only: bool| {
            let in_key = |c: &Constraint| match &c.kind {
                ConstraintKind::Key { primary, columns, .. } => {
                    (*primary || !primary_only) && columns.iter().any(|(n, _)| n.eq_ignore_ascii_case(column))
                }
                _ => false,
            };
            constraints.iter().any(in_key) || columns.iter().any(|c| c.constraints.iter().any(in_key))
        };
        self.write(|s| {
            let object = s.new_object(name, "U", 0, None, false)?;
            let mut plain = Vec::new();
            for (i, def) in columns.iter().enumerate() {
                if columns[..i].iter().any(|c| c.name.eq_ignore_ascii_case(&def.name)) {
                    let text = format!("Column names in each table must be unique. Column name '{}' in table '{}' is specified more than once.", def.name, object.name);
                    return Err(SqlError::new(2705, 16, 3, text));
                }
                if def.computed.is_none() {
                    let column = s.enter_column(&object, i as i64 + 1, def, keyed(&def.name, true))?;
                    plain.push(declaration(&column));
                }
            }
            for (i, def) in columns.iter().enumerate().filter(|(_, d)| d.computed.is_some()) {
                s.enter_computed(&object, i as i64 + 1, def)?;
            }
            if plain.is_empty() {
                return Err(SqlError::unmodelled("tables without stored columns"));
            }
            s.c.execute_batch(&format!("CREATE TABLE {} ({})", object.physical(), plain.join(", ")))?;
            for def in columns {
                for c in &def.constraints {
                    s.add_constraint(&object, c)?;
                }
            }
            for c in constraints {
                s.add_constraint(&object, c)?;
            }
            s.build_triggers(&object)
        })
    }

    /// Enters a column that stores something.
    fn enter_column(&mut self, object: &Object, id: i64, def: &ColumnDef, in_primary_key: bool) -> Result<Column> {
        let ty = self.column_type(def)?;
        let required = in_primary_key || def.identity.is_some() || ty.kind == Kind::RowVersion;
        if in_primary_key && def.nullable == Some(true) {
            let text = format!("Cannot define PRIMARY KEY constraint on nullable column in table '{}'.", object.name);
            return Err(SqlError::new(8111, 16, 1, text));
        }
        if def.identity.is_some()
            && !(ty.is_integer() || matches!(ty.kind, Kind::Decimal | Kind::Numeric) && ty.scale == 0)
        {
            let text = format!(
                "Identity column '{}' must be of data type int, bigint, smallint, tinyint, or decimal or numeric with a scale of 0.",
                def.name
            );
            return Err(SqlError::new(2749, 16, 2, text));
        }
        let nullable = !required && def.nullable.unwrap_or(true);
        let (default_name, default) = match &def.default {
            Some((name, text)) => {
                crate::sql::parse_expr_text(text)?;
                (Some(name.clone().unwrap_or_else(|| format!("DF__{}__{}", object.name, def.name))), Some(text.clone()))
            }
            None => (None, None),
        };
        self.c.execute(
            "INSERT INTO core_columns VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, NULL, 0, ?8, ?9)",
            params![
                object.id,
                id,
                def.name,
                ty.code(),
                nullable,
                def.identity.map(|i| i.0),
                def.identity.map(|i| i.1),
                default,
                default_name
            ],
        )?;
        remember_type(&self.c, ty)?;
        Ok(Column { id, name: def.name.clone(), ty, nullable, identity: def.identity, computed: None, default })
    }

    /// Enters a computed column: its type is that of its expression.
    fn enter_computed(&mut self, object: &Object, id: i64, def: &ColumnDef) -> Result<()> {
        let Some((text, persisted)) = &def.computed else { return Ok(()) };
        let e = crate::sql::parse_expr_text(text)?;
        let bound: Bound = {
            let mut b = Binder::new(self);
            b.kept = true;
            let columns = b.offered(object, "x")?;
            let scope = Scope {
                sources: vec![Source { name: object.name.clone(), schema: None, columns, table: None }],
                parent: None,
                grouped: None,
            };
            b.value(&e, &scope)?
        };
        let nullable = bound.nullable && def.nullable != Some(false);
        self.c.execute(
            "INSERT INTO core_columns VALUES(?1, ?2, ?3, ?4, ?5, NULL, NULL, ?6, ?7, NULL, NULL)",
            params![object.id, id, def.name, bound.ty.code(), nullable, text, persisted],
        )?;
        remember_type(&self.c, bound.ty)
    }

    fn add_constraint(&mut self, object: &Object, c: &Constraint) -> Result<()> {
        match &c.kind {
            ConstraintKind::Key { primary, clustered, columns } => {
                let name = c.name.clone().unwrap_or_else(|| {
                    format!("{}__{}__{:08X}", if *primary { "PK" } else { "UQ" }, object.name, object.id)
                });
                if *primary {
                    for (column, _) in columns {
                        let nullable: Option<bool> = self
                            .c
                            .query_row(
                                "SELECT nullable FROM core_columns WHERE object_id = ?1 AND name = ?2",
                                params![object.id, column],
                                |r| r.get(0),
                            )
                            .optional()?;
                        if nullable == Some(true) {
                            let text = format!(
                                "Cannot define PRIMARY KEY constraint on nullable column in table '{}'.",
                                object.name
                            );
                            return Err(SqlError::new(8111, 16, 1, text));
                        }
                    }
                }
                let flags = IndexFlags { unique: true, primary: *primary, constraint: true, clustered: *clustered };
                self.add_index(object, &name, columns, &[], flags).map(drop)
            }
            ConstraintKind::Check(text) => {
                let n = super::database::bump(&self.c, "next_constraint")?;
                let name = c.name.clone().unwrap_or_else(|| format!("CK__{}__{n:08X}", object.name));
                let made = self.new_object(&[object.schema.clone(), name], "C", object.id, None, false)?;
                self.c.execute("INSERT INTO core_checks VALUES(?1, ?2, ?3, 0)", params![made.id, object.id, text])?;
                Ok(())
            }
            ConstraintKind::Foreign { columns, table, target, on_delete, on_update } => {
                self.add_foreign_key(object, c.name.clone(), columns, table, target, on_delete, on_update)
            }
            ConstraintKind::Default(text, column) => {
                crate::sql::parse_expr_text(text)?;
                let name = c.name.clone().unwrap_or_else(|| format!("DF__{}__{column}", object.name));
                let n = self.c.execute(
                    "UPDATE core_columns SET default_text = ?3, default_name = ?4 WHERE object_id = ?1 AND name = ?2",
                    params![object.id, column, text, name],
                )?;
                if n == 0 { Err(SqlError::column(column)) } else { Ok(()) }
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn add_foreign_key(
        &mut self,
        object: &Object,
        name: Option<String>,
        columns: &[String],
        table: &Name,
        target: &[String],
        on_delete: &str,
        on_update: &str,
    ) -> Result<()> {
        let parent = catalog::table(self, table)?;
        let n = super::database::bump(&self.c, "next_constraint")?;
        let name = name.unwrap_or_else(|| format!("FK__{}__{n:08X}", object.name));
        let theirs = catalog::columns(&self.c, parent.id)?;
        let mine = catalog::columns(&self.c, object.id)?;
        let target_ids: Vec<i64> = if target.is_empty() {
            catalog::primary_key(&self.c, parent.id)?
        } else {
            target
                .iter()
                .map(|t| {
                    theirs
                        .iter()
                        .find(|c| c.name.eq_ignore_ascii_case(t))
                        .map(|c| c.id)
                        .ok_or_else(|| SqlError::column(t))
                })
                .collect::<Result<_>>()?
        };
        let index = catalog::indexes(&self.c, parent.id)?.into_iter().find(|i| {
            let (mut a, mut b) = (i.columns.clone(), target_ids.clone());
            a.sort_unstable();
            b.sort_unstable();
            i.unique && a == b
        });
        let Some(index) = index else {
            let text = format!(
                "There are no primary or candidate keys in the referenced table '{}.{}' that match the referencing column list in the foreign key '{name}'.",
                parent.schema, parent.name
            );
            return Err(SqlError::new(1776, 16, 0, text));
        };
        let made = self.new_object(&[object.schema.clone(), name], "F", object.id, None, false)?;
        self.c.execute(
            "INSERT INTO core_fks VALUES(?1, ?2, ?3, ?4, ?5, 0, ?6)",
            params![made.id, object.id, parent.id, on_delete, on_update, index.id],
        )?;
        for (i, (column, target)) in columns.iter().zip(&target_ids).enumerate() {
            let column =
                mine.iter().find(|c| c.name.eq_ignore_ascii_case(column)).ok_or_else(|| SqlError::column(column))?;
            self.c.execute(
                "INSERT INTO core_fk_columns VALUES(?1, ?2, ?3, ?4)",
                params![made.id, i as i64 + 1, column.id, target],
            )?;
        }
        self.build_triggers(&parent)
    }

    fn alter_table(&mut self, name: &Name, action: &AlterTable) -> Result<()> {
        let object = catalog::table(self, name)?;
        self.demand("ALTER", &object)?;
        self.write(|s| {
            let before = catalog::columns(&s.c, object.id)?;
            s.alter(&object, action)?;
            s.c.execute(
                "UPDATE core_objects SET modified = ?2 WHERE object_id = ?1",
                params![object.id, datetime::round_datetime(datetime::now())],
            )?;
            if object.cdc && !matches!(action, AlterTable::ChangeTracking { .. }) {
                cdc::ddl(s, &object, action, &before)?;
            }
            s.build_triggers(&object)
        })
    }

    fn alter(&mut self, object: &Object, action: &AlterTable) -> Result<()> {
        let columns = catalog::columns(&self.c, object.id)?;
        let find = |name: &str| columns.iter().find(|c| c.name.eq_ignore_ascii_case(name)).cloned();
        match action {
            AlterTable::Add(new, constraints) => {
                let mut next: i64 = self.c.query_row(
                    "SELECT ifnull(max(value), 0) FROM core_state WHERE key = ?1",
                    [format!("columns {}", object.id)],
                    |r| r.get(0),
                )?;
                next = next.max(columns.iter().map(|c| c.id).max().unwrap_or(0));
                for def in new {
                    next += 1;
                    if find(&def.name).is_some() {
                        let text = format!(
                            "Column names in each table must be unique. Column name '{}' in table '{}' is specified more than once.",
                            def.name, object.name
                        );
                        return Err(SqlError::new(2705, 16, 4, text));
                    }
                    self.add_column(object, next, def)?;
                }
                set_state(&self.c, &format!("columns {}", object.id), next)?;
                for c in new.iter().flat_map(|d| &d.constraints).chain(constraints) {
                    self.add_constraint(object, c)?;
                    self.check_existing(object, c)?;
                }
                Ok(())
            }
            AlterTable::AlterColumn { name, ty, collation, nullable } => {
                let column = find(name).ok_or_else(|| SqlError::column(name))?;
                let def = ColumnDef {
                    name: name.clone(),
                    ty: Some(ty.clone()),
                    collation: collation.clone(),
                    nullable: *nullable,
                    identity: None,
                    default: None,
                    computed: None,
                    constraints: Vec::new(),
                    sparse: false,
                };
                let to = self.column_type(&def)?;
                let nullable = nullable.unwrap_or(true);
                self.drop_triggers(object.id)?;
                let changed = Column { ty: to, nullable, ..column.clone() };
                let b = Binder::new(self);
                let value =
                    b.assigned(object, &changed, Bound { nullable: true, ..Bound::new(column.physical(), column.ty) })?;
                self.c.execute(&format!("UPDATE {} SET {} = {value}", object.physical(), column.physical()), [])?;
                self.c.execute(
                    "UPDATE core_columns SET type = ?3, nullable = ?4 WHERE object_id = ?1 AND column_id = ?2",
                    params![object.id, column.id, to.code(), nullable],
                )?;
                remember_type(&self.c, to)?;
                self.rebuild_indexes_of(object, column.id)
            }
            AlterTable::DropColumns(names) => {
                for name in names {
                    let column = find(name).ok_or_else(|| {
                        SqlError::new(
                            4924,
                            16,
                            1,
                            format!(
                                "ALTER TABLE DROP COLUMN failed because column '{name}' does not exist in table '{}'.",
                                object.name
                            ),
                        )
                    })?;
                    self.drop_column(object, &column)?;
                }
                set_state(
                    &self.c,
                    &format!("columns {}", object.id),
                    columns
                        .iter()
                        .map(|c| c.id)
                        .max()
                        .unwrap_or(0)
                        .max(state(&self.c, &format!("columns {}", object.id))?),
                )
            }
            AlterTable::DropConstraints(names) => {
                for name in names {
                    self.drop_constraint(object, name)?;
                }
                Ok(())
            }
            AlterTable::Trust(on, names) => {
                for table in ["core_checks", "core_fks"] {
                    if names.is_empty() {
                        self.c.execute(
                            &format!("UPDATE {table} SET disabled = ?2 WHERE parent = ?1"),
                            params![object.id, !on],
                        )?;
                    }
                    for name in names {
                        self.c.execute(
                            &format!("UPDATE {table} SET disabled = ?2 WHERE parent = ?1 AND object_id = (SELECT object_id FROM core_objects WHERE name = ?3 AND parent = ?1)"),
                            params![object.id, !on, name],
                        )?;
                    }
                }
                self.build_parents(object)
            }
            AlterTable::ChangeTracking { on, columns } => tracking::switch(self, object, *on, *columns),
        }
    }

    /// Tables that this one refers to check its rows too.
    fn build_parents(&mut self, object: &Object) -> Result<()> {
        let parents: Vec<i64> = {
            let mut st = self.c.prepare("SELECT DISTINCT referenced FROM core_fks WHERE parent = ?1")?;
            st.query_map([object.id], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?
        };
        for id in parents {
            if let Some(parent) = catalog::by_id(&self.c, id)? {
                self.build_triggers(&parent)?;
            }
        }
        Ok(())
    }

    fn add_column(&mut self, object: &Object, id: i64, def: &ColumnDef) -> Result<()> {
        if def.computed.is_some() {
            return self.enter_computed(object, id, def);
        }
        let column = self.enter_column(object, id, def, false)?;
        self.c.execute_batch(&format!("ALTER TABLE {} ADD COLUMN {}", object.physical(), declaration(&column)))?;
        let rows: i64 = self.c.query_row(&format!("SELECT count(*) FROM {}", object.physical()), [], |r| r.get(0))?;
        if rows == 0 {
            return Ok(());
        }
        self.drop_triggers(object.id)?;
        let t = object.physical();
        if column.ty.kind == Kind::RowVersion {
            self.c.execute(&format!("UPDATE {t} SET {} = t_rowversion()", column.physical()), [])?;
        } else if let Some((seed, increment)) = column.identity {
            self.c.execute(
                &format!(
                    "UPDATE {t} SET {} = {seed} + (SELECT count(*) FROM {t} x WHERE x.rowid < {t}.rowid) * {increment}",
                    column.physical()
                ),
                [],
            )?;
        } else if !column.nullable {
            // Existing rows of a column that cannot be NULL take the default; without one it is 4901.
            let Some(text) = &column.default else {
                let text = format!(
                    "ALTER TABLE only allows columns to be added that can contain nulls, or have a DEFAULT definition specified. Column '{}' cannot be added to non-empty table '{}' because it does not satisfy these conditions.",
                    def.name, object.name
                );
                return Err(SqlError::new(4901, 16, 1, text));
            };
            let e = crate::sql::parse_expr_text(text)?;
            let mut b = Binder::new(self);
            let bound = b.value(&e, &Scope::default())?;
            let value = b.assigned(object, &column, bound)?;
            self.c.execute(&format!("UPDATE {t} SET {} = {value}", column.physical()), [])?;
        }
        Ok(())
    }

    /// WITH CHECK: existing rows must satisfy a new foreign key or check.
    fn check_existing(&mut self, object: &Object, c: &Constraint) -> Result<()> {
        if matches!(c.kind, ConstraintKind::Check(_) | ConstraintKind::Foreign { .. }) {
            // Touching every row makes the triggers look; nothing is logged because the old ones are gone.
            let logged = object.cdc || object.ct;
            if logged {
                self.c.execute("UPDATE core_objects SET cdc = 0, ct = 0 WHERE object_id = ?1", [object.id])?;
            }
            self.build_triggers(object)?;
            let touch = catalog::columns(&self.c, object.id)?.into_iter().find(|c| c.computed.is_none());
            if let Some(column) = touch {
                self.c.execute(&format!("UPDATE {} SET {1} = {1}", object.physical(), column.physical()), [])?;
            }
            if logged {
                self.c.execute(
                    "UPDATE core_objects SET cdc = ?2, ct = ?3 WHERE object_id = ?1",
                    params![object.id, object.cdc, object.ct],
                )?;
            }
        }
        Ok(())
    }

    fn rebuild_indexes_of(&mut self, object: &Object, column: i64) -> Result<()> {
        let columns = catalog::columns(&self.c, object.id)?;
        for index in catalog::indexes(&self.c, object.id)?.into_iter().filter(|i| i.columns.contains(&column)) {
            self.c.execute_batch(&format!("DROP INDEX IF EXISTS i{}_{}", object.id, index.id))?;
            let keys: Vec<(Column, bool)> = index
                .columns
                .iter()
                .filter_map(|id| columns.iter().find(|c| c.id == *id))
                .map(|c| (c.clone(), false))
                .collect();
            self.build_index(object, index.id, index.unique, &keys)?;
        }
        Ok(())
    }

    fn drop_column(&mut self, object: &Object, column: &Column) -> Result<()> {
        let used = catalog::indexes(&self.c, object.id)?.into_iter().find(|i| i.columns.contains(&column.id));
        if let Some(index) = used {
            let text = format!(
                "The object '{}' is dependent on column '{}'.\nALTER TABLE DROP COLUMN {} failed because one or more objects access this column.",
                index.name, column.name, column.name
            );
            return Err(SqlError::new(4922, 16, 9, text));
        }
        if column.default.is_some() {
            let text = format!(
                "ALTER TABLE DROP COLUMN {} failed because one or more objects access this column.",
                column.name
            );
            return Err(SqlError::new(4922, 16, 9, text));
        }
        self.drop_triggers(object.id)?;
        if column.computed.is_none() {
            // The triggers of children mention columns of this table.
            self.c.execute_batch(&format!("ALTER TABLE {} DROP COLUMN {}", object.physical(), column.physical()))?;
        }
        self.c.execute(
            "DELETE FROM core_columns WHERE object_id = ?1 AND column_id = ?2",
            params![object.id, column.id],
        )?;
        Ok(())
    }

    fn drop_constraint(&mut self, object: &Object, name: &str) -> Result<()> {
        if catalog::indexes(&self.c, object.id)?.iter().any(|i| i.name.eq_ignore_ascii_case(name)) {
            return self.drop_index(object, name);
        }
        let n = self.c.execute("UPDATE core_columns SET default_text = NULL, default_name = NULL WHERE object_id = ?1 AND default_name = ?2 COLLATE NOCASE", params![object.id, name])?;
        if n > 0 {
            return Ok(());
        }
        let id: Option<i64> = self
            .c
            .query_row(
                "SELECT object_id FROM core_objects WHERE name = ?1 AND parent = ?2",
                params![name, object.id],
                |r| r.get(0),
            )
            .optional()?;
        let id = id.ok_or_else(|| SqlError::new(3728, 16, 1, format!("'{name}' is not a constraint.")))?;
        self.build_parents(object)?;
        for table in ["core_checks", "core_fks", "core_objects"] {
            self.c.execute(&format!("DELETE FROM {table} WHERE object_id = ?1"), [id])?;
        }
        self.c.execute("DELETE FROM core_fk_columns WHERE fk = ?1", [id])?;
        self.build_parents(object)
    }

    fn drop_index(&mut self, object: &Object, name: &str) -> Result<()> {
        let index = catalog::indexes(&self.c, object.id)?
            .into_iter()
            .find(|i| i.name.eq_ignore_ascii_case(name))
            .ok_or_else(|| {
                let text = format!(
                    "Cannot drop the index '{}.{name}', because it does not exist or you do not have permission.",
                    object.name
                );
                SqlError::new(3701, 11, 7, text)
            })?;
        if index.primary && object.ct {
            let text = format!(
                "Cannot drop the primary key constraint '{name}' because change tracking is enabled on the table '{}'.",
                object.name
            );
            return Err(SqlError::new(4999, 16, 1, text));
        }
        self.c.execute_batch(&format!("DROP INDEX IF EXISTS i{}_{}", object.id, index.id))?;
        self.c.execute(
            "DELETE FROM core_index_columns WHERE object_id = ?1 AND index_id = ?2",
            params![object.id, index.id],
        )?;
        self.c
            .execute("DELETE FROM core_indexes WHERE object_id = ?1 AND index_id = ?2", params![object.id, index.id])?;
        Ok(())
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
                let c = db.open()?;
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
