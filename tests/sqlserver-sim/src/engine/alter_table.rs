//! "ALTER TABLE (Transact-SQL)" and the dropping of columns, constraints and indexes.

use super::bind::{Binder, Bound, Scope};
use super::catalog::{self, Column, Object};
use super::database::{remember_type, set_state, state};
use super::session::Session;
use super::tables::declaration;
use super::{cdc, tracking};
use crate::error::{Result, SqlError};
use crate::sql::ast::{AlterTable, ColumnDef, Constraint, ConstraintKind, Name};
use crate::types::{Kind, datetime};
use rusqlite::{OptionalExtension, params};

impl Session {
    pub(crate) fn alter_table(&mut self, name: &Name, action: &AlterTable) -> Result<()> {
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

    pub(crate) fn alter(&mut self, object: &Object, action: &AlterTable) -> Result<()> {
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
    pub(crate) fn build_parents(&mut self, object: &Object) -> Result<()> {
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

    pub(crate) fn add_column(&mut self, object: &Object, id: i64, def: &ColumnDef) -> Result<()> {
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
    pub(crate) fn check_existing(&mut self, object: &Object, c: &Constraint) -> Result<()> {
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

    pub(crate) fn rebuild_indexes_of(&mut self, object: &Object, column: i64) -> Result<()> {
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

    pub(crate) fn drop_column(&mut self, object: &Object, column: &Column) -> Result<()> {
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

    pub(crate) fn drop_constraint(&mut self, object: &Object, name: &str) -> Result<()> {
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

    pub(crate) fn drop_index(&mut self, object: &Object, name: &str) -> Result<()> {
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
}
