//! "CREATE TABLE (Transact-SQL)": columns, keys, constraints.

use super::bind::{Binder, Bound, Scope, Source};
use super::catalog::{self, Column, Object};
use super::database::remember_type;
use super::session::Session;
use super::tables::{IndexFlags, declaration};
use crate::error::{Result, SqlError};
use crate::sql::ast::{ColumnDef, Constraint, ConstraintKind, Name};
use crate::types::collation::Collation;
use crate::types::{Kind, SqlType};
use rusqlite::{OptionalExtension, params};

impl Session {
    /// Type, collation and nullability of a column as it is declared.
    pub(crate) fn column_type(&self, def: &ColumnDef) -> Result<SqlType> {
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

    pub(crate) fn create_table(
        &mut self,
        name: &Name,
        columns: &[ColumnDef],
        constraints: &[Constraint],
    ) -> Result<()> {
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
    pub(crate) fn enter_column(
        &mut self,
        object: &Object,
        id: i64,
        def: &ColumnDef,
        in_primary_key: bool,
    ) -> Result<Column> {
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
    pub(crate) fn enter_computed(&mut self, object: &Object, id: i64, def: &ColumnDef) -> Result<()> {
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

    pub(crate) fn add_constraint(&mut self, object: &Object, c: &Constraint) -> Result<()> {
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
    pub(crate) fn add_foreign_key(
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
}
