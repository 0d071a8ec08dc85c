//! INSERT, UPDATE, DELETE, TRUNCATE: "INSERT (Transact-SQL)" and its siblings.

use super::bind::Binder;
use super::catalog::{self, Column, Object};
use super::database::locked;
use super::session::{Meta, Output, Session};
use crate::error::{Result, SqlError};
use crate::sql::ast::{Item, Name, Source as Values, Statement, TableRef};
use crate::types::Kind;
use rusqlite::types::Value;

/// A change that is ready to run.
pub struct Change {
    /// SQLite text.
    pub sql: String,
    /// Its parameters.
    pub params: Vec<Value>,
    /// Columns of OUTPUT.
    pub returning: Vec<Meta>,
}

impl Session {
    /// Runs a statement that changes rows.
    pub fn change(&mut self, s: &Statement, out: &mut dyn Output) -> Result<()> {
        let n = match s {
            Statement::Insert { table, columns, output, source } => self.insert(table, columns, output, source, out)?,
            Statement::Update { top, target, sets, output, from, filter } => self.changing(
                target,
                from,
                output,
                out,
                |b, object| b.update(object, target, top.as_ref(), sets, output, from, filter.as_ref()),
                "UPDATE",
            )?,
            Statement::Delete { top, target, output, from, filter } => self.changing(
                target,
                from,
                output,
                out,
                |b, object| b.delete(object, target, top.as_ref(), output, from, filter.as_ref()),
                "DELETE",
            )?,
            Statement::Truncate(name) => self.truncate(name)?,
            _ => 0,
        };
        self.row_count = n as i64;
        out.done(if self.nocount { None } else { Some(n) }, false);
        Ok(())
    }

    /// UPDATE and DELETE: the target may be an alias of FROM.
    fn changing(
        &mut self,
        target: &Name,
        from: &[TableRef],
        output: &[Item],
        out: &mut dyn Output,
        bind: impl Fn(&mut Binder<'_>, &Object) -> Result<Change>,
        permission: &str,
    ) -> Result<u64> {
        let name = aliased(target, from).unwrap_or_else(|| target.clone());
        let object = catalog::table(self, &name)?;
        self.demand(permission, &object)?;
        let returning = !output.is_empty();
        self.write(|s| {
            let change = bind(&mut Binder::new(s), &object)?;
            s.run_change(&object, change, returning, out)
        })
    }

    fn run_change(&mut self, object: &Object, change: Change, returning: bool, out: &mut dyn Output) -> Result<u64> {
        let explain = |s: &Self, e: SqlError| s.explain(object, e);
        if returning {
            return self.emit(&change.sql, &change.returning, change.params, out).map_err(|e| explain(self, e));
        }
        let result =
            self.c.prepare_cached(&change.sql).and_then(|mut st| st.execute(rusqlite::params_from_iter(change.params)));
        match result {
            Ok(n) => Ok(n as u64),
            Err(e) => Err(explain(self, e.into())),
        }
    }

    /// Turns SQLite's words about a unique index into 2627 or 2601.
    fn explain(&self, object: &Object, e: SqlError) -> SqlError {
        let Some(list) = e.message.split("UNIQUE constraint failed: ").nth(1) else { return e };
        let mut ids: Vec<i64> =
            list.split(", ").filter_map(|c| c.split(".c").nth(1)?.trim_end_matches('.').parse().ok()).collect();
        ids.sort_unstable();
        // The failing table may be another one, through a cascade.
        let table = list.split('.').next().and_then(|t| t.strip_prefix('t')?.parse().ok()).unwrap_or(object.id);
        let (Ok(indexes), Ok(Some(object))) = (catalog::indexes(&self.c, table), catalog::by_id(&self.c, table)) else {
            return e;
        };
        let index = indexes.into_iter().find(|i| {
            let mut columns = i.columns.clone();
            columns.sort_unstable();
            i.unique && columns == ids
        });
        let full = format!("{}.{}", object.schema, object.name);
        match index {
            Some(i) if i.constraint => {
                let kind = if i.primary { "PRIMARY KEY" } else { "UNIQUE KEY" };
                let text = format!(
                    "Violation of {kind} constraint '{}'. Cannot insert duplicate key in object '{full}'.",
                    i.name
                );
                SqlError::new(2627, 14, 1, text)
            }
            Some(i) => {
                let text =
                    format!("Cannot insert duplicate key row in object '{full}' with unique index '{}'.", i.name);
                SqlError::new(2601, 14, 1, text)
            }
            None => e,
        }
    }

    fn insert(
        &mut self,
        table: &Name,
        names: &[String],
        output: &[Item],
        source: &Values,
        out: &mut dyn Output,
    ) -> Result<u64> {
        let object = catalog::table(self, table)?;
        self.demand("INSERT", &object)?;
        if object.shipped {
            return Err(SqlError::unmodelled("writing to tables of the system"));
        }
        let all = catalog::columns(&self.c, object.id)?;
        let identity_insert = self.identity_insert == Some(object.id);
        let targets = insert_targets(&object, &all, names, identity_insert)?;
        let identity = all.iter().find(|c| c.identity.is_some() && !targets.iter().any(|t| t.id == c.id)).cloned();
        let explicit_identity = targets.iter().position(|c| c.identity.is_some());
        self.write(|s| {
            let (changes, drawn) = {
                let mut b = Binder::new(s);
                b.insert(&object, &all, &targets, identity.as_ref(), source, output)?
            };
            let mut n = 0;
            for change in changes {
                n += s.run_change(&object, change, !output.is_empty(), out)?;
            }
            if let (Some(column), true) = (&identity, n > 0) {
                let (_, increment) = column.identity.unwrap_or((1, 1));
                let last = match drawn {
                    Some(last) => last,
                    // INSERT … SELECT numbered its rows from here.
                    None => {
                        let mut ids = locked(&s.db.identities);
                        let before = ids.get(&object.id).copied().unwrap_or(0);
                        let last = before + increment * (n as i64 - 1);
                        ids.insert(object.id, last);
                        last
                    }
                };
                s.last_identity = Some(last);
            } else if let Some(at) = explicit_identity {
                let column = &targets[at];
                let max: Option<i64> =
                    s.c.query_row(&format!("SELECT max({}) FROM {}", column.physical(), object.physical()), [], |r| {
                        r.get(0)
                    })?;
                if let Some(max) = max {
                    locked(&s.db.identities).entry(object.id).and_modify(|v| *v = (*v).max(max)).or_insert(max);
                    s.last_identity = Some(max);
                }
            }
            Ok(n)
        })
    }

    /// TRUNCATE TABLE: 4711 while captured, 4712 while referenced; change tracking starts anew.
    fn truncate(&mut self, name: &Name) -> Result<u64> {
        let object = catalog::table(self, name)?;
        self.demand("ALTER", &object)?;
        if object.cdc {
            let text = format!(
                "Cannot truncate table '{}' because it is published for replication or enabled for Change Data Capture.",
                object.name
            );
            return Err(SqlError::new(4711, 16, 1, text));
        }
        let referenced: i64 =
            self.c.query_row("SELECT count(*) FROM core_fks WHERE referenced = ?1", [object.id], |r| r.get(0))?;
        if referenced > 0 {
            let text = format!(
                "Cannot truncate table '{}' because it is being referenced by a FOREIGN KEY constraint.",
                object.name
            );
            return Err(SqlError::new(4712, 16, 1, text));
        }
        self.write(|s| {
            s.drop_triggers(object.id)?;
            s.c.execute(&format!("DELETE FROM {}", object.physical()), [])?;
            s.build_triggers(&object)?;
            locked(&s.db.identities).remove(&object.id);
            super::tracking::truncated(s, &object)?;
            Ok(0)
        })
    }
}

/// The table behind an alias of FROM.
fn aliased(target: &Name, from: &[TableRef]) -> Option<Name> {
    let [alias] = &target[..] else { return None };
    fn search(t: &TableRef, alias: &str) -> Option<Name> {
        match t {
            TableRef::Named { name, alias: Some(a), .. } if a.eq_ignore_ascii_case(alias) => Some(name.clone()),
            TableRef::Named { name, alias: None, .. } if name.last().is_some_and(|n| n.eq_ignore_ascii_case(alias)) => {
                Some(name.clone())
            }
            TableRef::Join { left, right, .. } => search(left, alias).or_else(|| search(right, alias)),
            _ => None,
        }
    }
    from.iter().find_map(|t| search(t, alias))
}

/// Columns an INSERT gives values to: 264 twice, 207 unknown, 271 computed, 273 rowversion, 544 identity.
fn insert_targets(object: &Object, all: &[Column], names: &[String], identity_insert: bool) -> Result<Vec<Column>> {
    if names.is_empty() {
        let free = |c: &&Column| c.computed.is_none() && c.ty.kind != Kind::RowVersion && c.identity.is_none();
        if identity_insert && all.iter().any(|c| c.identity.is_some()) {
            let text = format!(
                "An explicit value for the identity column in table '{}' can only be specified when a column list is used and IDENTITY_INSERT is ON.",
                object.name
            );
            return Err(SqlError::new(8101, 16, 1, text));
        }
        return Ok(all.iter().filter(free).cloned().collect());
    }
    let mut out: Vec<Column> = Vec::new();
    for name in names {
        let column = all.iter().find(|c| c.name.eq_ignore_ascii_case(name)).ok_or_else(|| SqlError::column(name))?;
        if out.iter().any(|c| c.id == column.id) {
            return Err(SqlError::new(
                264,
                16,
                1,
                format!(
                    "The column name '{name}' is specified more than once in the SET clause or column list of an INSERT."
                ),
            ));
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
            return Err(SqlError::new(
                273,
                16,
                1,
                "Cannot insert an explicit value into a timestamp column. Use INSERT with a column list to exclude the timestamp column, or insert a DEFAULT into the timestamp column.",
            ));
        }
        if column.identity.is_some() && !identity_insert {
            return Err(SqlError::new(
                544,
                16,
                1,
                format!(
                    "Cannot insert explicit value for identity column in table '{}' when IDENTITY_INSERT is set to OFF.",
                    object.name
                ),
            ));
        }
        out.push(column.clone());
    }
    if identity_insert && all.iter().any(|c| c.identity.is_some()) && !out.iter().any(|c| c.identity.is_some()) {
        return Err(SqlError::new(
            545,
            16,
            1,
            format!(
                "Explicit value must be specified for identity column in table '{}' either when IDENTITY_INSERT is set to ON.",
                object.name
            ),
        ));
    }
    Ok(out)
}
