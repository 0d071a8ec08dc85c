//! Binding of INSERT, UPDATE and DELETE.

use super::{Binder, Bound, Offered, Scope, Source};
use crate::engine::catalog::{self, Column, Object};
use crate::engine::dml::Change;
use crate::engine::session::{Meta, metas};
use crate::engine::views::literal;
use crate::error::{Result, SqlError};
use crate::sql::ast::{Assignment, Expr, Item, Name, Source as Values, TableRef};
use crate::types::{Kind, SqlType};
use rusqlite::types::Value;

impl Binder<'_> {
    /// A value on its way into a column.
    pub fn assigned(&self, object: &Object, column: &Column, b: Bound) -> Result<String> {
        let from = if b.untyped { column.ty } else { b.ty };
        if !b.untyped {
            // Checks that the conversion is allowed without CAST.
            self.implicit(b.clone(), column.ty)?;
        }
        Ok(self.assignment(object, column, &b.sql, &from.code().to_string()))
    }

    /// SQLite text that checks and converts a value of the type `from` (text of a type code) for a column.
    pub(crate) fn assignment(&self, object: &Object, column: &Column, value: &str, from: &str) -> String {
        let full = literal(&Value::Text(format!("{}.{}.{}", self.session.db.name, object.schema, object.name)));
        let name = literal(&Value::Text(column.name.clone()));
        format!("t_set({value}, {from}, {}, {}, {full}, {name})", column.ty.code(), i64::from(column.nullable))
    }

    pub(crate) fn default_of(&mut self, object: &Object, column: &Column) -> Result<String> {
        if column.ty.kind == Kind::RowVersion {
            return Ok("t_rowversion()".into());
        }
        let bound = match &column.default {
            Some(text) => {
                let e = crate::sql::parse_expr_text(text)?;
                self.value(&e, &Scope::default())?
            }
            None => Bound::null(),
        };
        self.assigned(object, column, bound)
    }

    pub(crate) fn insert(
        &mut self,
        object: &Object,
        all: &[Column],
        targets: &[Column],
        identity: Option<&Column>,
        source: &Values,
        output: &[Item],
    ) -> Result<(Vec<Change>, Option<i64>)> {
        let rest: Vec<&Column> = all
            .iter()
            .filter(|c| c.computed.is_none() && c.identity.is_none() && !targets.iter().any(|t| t.id == c.id))
            .collect();
        let mut names: Vec<String> = targets.iter().map(Column::physical).collect();
        names.extend(rest.iter().map(|c| c.physical()));
        names.extend(identity.map(Column::physical));
        let mut defaults = Vec::new();
        for c in &rest {
            defaults.push(self.default_of(object, c)?);
        }
        let mut drawn = None;
        let body = match source {
            Values::Values(rows) if output.is_empty() => {
                // Row by row: SQLite takes long over one statement with thousands of constants, and no time at all over one
                // it has seen before.
                let mut changes = Vec::new();
                for row in rows {
                    let mut b = Binder::new(self.session);
                    let (values, next) = b.row(object, targets, &defaults, identity, row)?;
                    drawn = next.or(drawn);
                    let sql = format!(
                        "INSERT INTO {}({}) VALUES ({})",
                        object.physical(),
                        names.join(", "),
                        values.join(", ")
                    );
                    changes.push(Change { sql, params: b.parameters(), returning: Vec::new() });
                }
                return Ok((changes, drawn));
            }
            Values::Values(rows) => {
                let mut lines = Vec::new();
                for row in rows {
                    let (values, next) = self.row(object, targets, &defaults, identity, row)?;
                    drawn = next.or(drawn);
                    lines.push(format!("({})", values.join(", ")));
                }
                format!("VALUES {}", lines.join(", "))
            }
            Values::Default => {
                let mut values = Vec::new();
                for c in targets {
                    values.push(self.default_of(object, c)?);
                }
                values.extend(defaults);
                if let Some(c) = identity {
                    let next = catalog::next_identity(self.session, object.id, c)?;
                    drawn = Some(next);
                    values.push(identity_literal(c.ty, next)?);
                }
                format!("VALUES ({})", values.join(", "))
            }
            Values::Query(q) => {
                let bound = self.query(q, None)?;
                if bound.columns.len() != targets.len() {
                    let (number, word) =
                        if bound.columns.len() > targets.len() { (121, "more") } else { (120, "fewer") };
                    let text = format!(
                        "The select list for the INSERT statement contains {word} items than the insert list. The number of SELECT values must match the number of INSERT columns."
                    );
                    return Err(SqlError::new(number, 15, 1, text));
                }
                let mut values = Vec::new();
                for (i, (c, column)) in bound.columns.iter().zip(targets).enumerate() {
                    let b = Bound { sql: format!("q.v{}", i + 1), ..c.bound.clone() };
                    values.push(self.assigned(object, column, b)?);
                }
                values.extend(defaults);
                if let Some(c) = identity {
                    let first = catalog::next_identity(self.session, object.id, c)?;
                    let (_, increment) = c.identity.unwrap_or((1, 1));
                    if !c.ty.is_integer() {
                        return Err(SqlError::unmodelled("INSERT … SELECT into an identity column that is no integer"));
                    }
                    values.push(format!("({first} + (row_number() OVER () - 1) * {increment})"));
                }
                // The rows are read before the first is written, so that a table can be copied into itself.
                format!("SELECT {} FROM (SELECT * FROM ({}) LIMIT -1) AS q", values.join(", "), bound.sql)
            }
            Values::Exec(_) => return Err(SqlError::unmodelled("INSERT … EXEC")),
        };
        let (returning, clause) = self.returning(object, output, "inserted")?;
        let sql = format!("INSERT INTO {}({}) {body}{clause}", object.physical(), names.join(", "));
        Ok((vec![Change { sql, params: self.parameters(), returning }], drawn))
    }

    /// The values of one row of VALUES, and the number drawn for its identity column: 109 and 110 for too few and too many.
    pub(crate) fn row(
        &mut self,
        object: &Object,
        targets: &[Column],
        defaults: &[String],
        identity: Option<&Column>,
        row: &[Expr],
    ) -> Result<(Vec<String>, Option<i64>)> {
        if row.len() != targets.len() {
            let (number, word) = if row.len() > targets.len() { (110, "fewer") } else { (109, "more") };
            let text = format!(
                "There are {word} columns in the INSERT statement than values specified in the VALUES clause. The number of \
                 values in the VALUES clause must match the number of columns specified in the INSERT statement."
            );
            return Err(SqlError::new(number, 15, 1, text));
        }
        let mut values = Vec::new();
        for (e, column) in row.iter().zip(targets) {
            if *e == Expr::Default {
                values.push(self.default_of(object, column)?);
                continue;
            }
            let b = self.value(e, &Scope::default())?;
            values.push(match self.literal_value(e) {
                Some(v) => {
                    self.implicit(b.clone(), column.ty)?;
                    let (v, from) = (self.parameter(v), self.parameter(Value::Integer(b.ty.code())));
                    self.assignment(object, column, &v, &from)
                }
                None => self.assigned(object, column, b)?,
            });
        }
        values.extend(defaults.iter().cloned());
        let mut drawn = None;
        if let Some(c) = identity {
            let next = catalog::next_identity(self.session, object.id, c)?;
            drawn = Some(next);
            let v = crate::types::convert::convert(&Value::Integer(next), SqlType::of(Kind::BigInt), c.ty, 0)?;
            values.push(self.parameter(v));
        }
        if values.is_empty() {
            return Err(SqlError::unmodelled("INSERT without any column"));
        }
        Ok((values, drawn))
    }

    /// OUTPUT: of the new rows for INSERT and UPDATE, of the old ones for DELETE.
    pub(crate) fn returning(&mut self, object: &Object, output: &[Item], which: &str) -> Result<(Vec<Meta>, String)> {
        if output.is_empty() {
            return Ok((Vec::new(), String::new()));
        }
        let offered = self.offered(object, &object.physical())?;
        let scope = Scope {
            sources: vec![Source { name: which.into(), schema: None, columns: offered, table: None }],
            parent: None,
            grouped: None,
        };
        let mut columns: Vec<Offered> = Vec::new();
        for item in output {
            match item {
                Item::Star(t) => self.star(t.as_deref(), &scope, &mut columns)?,
                Item::Expr(e, alias) => {
                    if let Expr::Column(parts) = e
                        && parts.len() == 2
                        && !parts[0].eq_ignore_ascii_case(which)
                    {
                        return Err(SqlError::unmodelled(format!(
                            "OUTPUT {}.* in this statement",
                            parts[0].to_ascii_lowercase()
                        )));
                    }
                    let bound = self.value(e, &scope)?;
                    let name = match (alias, e) {
                        (Some(a), _) => a.clone(),
                        (None, Expr::Column(parts)) => parts.last().cloned().unwrap_or_default(),
                        _ => String::new(),
                    };
                    columns.push(Offered { name, bound });
                }
                Item::Assign(..) => return Err(SqlError::syntax("OUTPUT")),
            }
        }
        let list: Vec<_> = columns.iter().map(|c| c.bound.sql.clone()).collect();
        Ok((metas(&columns), format!(" RETURNING {}", list.join(", "))))
    }

    /// The rows a change is about: `SELECT rowid AS r, values … FROM … WHERE …`.
    pub(crate) fn affected(
        &mut self,
        object: &Object,
        target: &Name,
        top: Option<&Expr>,
        sets: &[(Column, &Expr)],
        from: &[TableRef],
        filter: Option<&Expr>,
    ) -> Result<String> {
        let mut texts = Vec::new();
        let mut scope = Scope::default();
        if from.is_empty() {
            let called = target.last().cloned().unwrap_or_default();
            let (sql, sources) = self.base_table(object, &called, Some(object.schema.clone()))?;
            texts.push(sql);
            scope.sources = sources;
        } else {
            for t in from {
                let (sql, sources) = self.table_ref(t, None)?;
                texts.push(sql);
                scope.sources.extend(sources);
            }
            let named = |s: &Source| s.table.as_ref().is_some_and(|(id, _)| *id == object.id);
            if !scope.sources.iter().any(named) {
                let (sql, sources) = self.base_table(object, &object.name, Some(object.schema.clone()))?;
                texts.push(sql);
                scope.sources.extend(sources);
            }
        }
        // By alias if the target is one, else the table itself.
        let by_alias = target.len() == 1;
        let alias = scope
            .sources
            .iter()
            .filter_map(|s| s.table.as_ref().filter(|(id, _)| *id == object.id).map(|(_, a)| (s, a)))
            .max_by_key(|(s, _)| by_alias && s.name.eq_ignore_ascii_case(&target[0]))
            .map(|(_, a)| a.clone())
            .ok_or_else(|| SqlError::object(&target.join(".")))?;
        let mut list = vec![format!("{alias}.rowid AS r")];
        for (i, (column, e)) in sets.iter().enumerate() {
            let value = if **e == Expr::Default {
                self.default_of(object, column)?
            } else {
                let b = self.value(e, &scope)?;
                self.assigned(object, column, b)?
            };
            list.push(format!("{value} AS x{i}"));
        }
        let mut sql = format!("SELECT {} FROM {}", list.join(", "), texts.join(", "));
        if let Some(f) = filter {
            sql.push_str(&format!(" WHERE {}", self.condition(f, &scope)?));
        }
        if let Some(top) = top {
            let n = self.value(top, &Scope::default())?;
            let n = self.cast(n, SqlType::of(Kind::BigInt), None, false);
            sql.push_str(&format!(" LIMIT t_top({})", n.sql));
        }
        Ok(sql)
    }

    #[allow(clippy::too_many_arguments)]
    pub(crate) fn update(
        &mut self,
        object: &Object,
        target: &Name,
        top: Option<&Expr>,
        sets: &[Assignment],
        output: &[Item],
        from: &[TableRef],
        filter: Option<&Expr>,
    ) -> Result<Change> {
        if object.shipped {
            return Err(SqlError::unmodelled("writing to tables of the system"));
        }
        let all = catalog::columns(&self.session.c, object.id)?;
        let mut list = Vec::new();
        for s in sets {
            let name = s.column.last().cloned().unwrap_or_default();
            let column =
                all.iter().find(|c| c.name.eq_ignore_ascii_case(&name)).ok_or_else(|| SqlError::column(&name))?;
            if column.identity.is_some() {
                return Err(SqlError::new(8102, 16, 1, format!("Cannot update identity column '{name}'.")));
            }
            if column.computed.is_some() {
                return Err(SqlError::new(
                    271,
                    16,
                    1,
                    format!(
                        "The column \"{name}\" cannot be modified because it is either a computed column or is the result of a UNION operator."
                    ),
                ));
            }
            if column.ty.kind == Kind::RowVersion {
                return Err(SqlError::new(272, 16, 1, "Cannot update a timestamp column."));
            }
            list.push((column.clone(), &s.value));
        }
        let affected = self.affected(object, target, top, &list, from, filter)?;
        let mut assignments: Vec<String> =
            list.iter().enumerate().map(|(i, (c, _))| format!("{} = src.x{i}", c.physical())).collect();
        if let Some(version) = all.iter().find(|c| c.ty.kind == Kind::RowVersion) {
            assignments.push(format!("{} = t_rowversion()", version.physical()));
        }
        let (returning, clause) = self.returning(object, output, "inserted")?;
        let t = object.physical();
        let sql = format!(
            "WITH src AS MATERIALIZED ({affected}) UPDATE {t} SET {} FROM src WHERE {t}.rowid = src.r{clause}",
            assignments.join(", ")
        );
        Ok(Change { sql, params: self.parameters(), returning })
    }

    pub(crate) fn delete(
        &mut self,
        object: &Object,
        target: &Name,
        top: Option<&Expr>,
        output: &[Item],
        from: &[TableRef],
        filter: Option<&Expr>,
    ) -> Result<Change> {
        if object.shipped && !self.session.db_owner() {
            return Err(SqlError::unmodelled("writing to tables of the system"));
        }
        let affected = self.affected(object, target, top, &[], from, filter)?;
        let (returning, clause) = self.returning(object, output, "deleted")?;
        let sql = format!("DELETE FROM {} WHERE rowid IN (SELECT r FROM ({affected})){clause}", object.physical());
        Ok(Change { sql, params: self.parameters(), returning })
    }
}

fn identity_literal(ty: SqlType, value: i64) -> Result<String> {
    let v = crate::types::convert::convert(&Value::Integer(value), SqlType::of(Kind::BigInt), ty, 0)?;
    Ok(literal(&v))
}
