//! Tables as SQLite has them: columns, indexes, and the triggers that check constraints and write the log.

use super::bind::{Binder, Scope, Source};
use super::catalog::{self, Column, Object};
use super::session::Session;
use super::views::literal;
use crate::error::{Result, SqlError};
use rusqlite::params;
use rusqlite::types::Value;

/// Columns that go into one call of `t_pack`; SQLite limits the arguments of a function.
const PACK: usize = 40;

/// SQLite text that packs a row: `prefix` is `old` or `new`.
fn packed(columns: &[Column], prefix: &str) -> String {
    let parts: Vec<String> = columns
        .chunks(PACK)
        .map(|chunk| {
            let list: Vec<String> = chunk.iter().map(|c| format!("{}, {prefix}.{}", c.id, c.physical())).collect();
            format!("t_pack({})", list.join(", "))
        })
        .collect();
    if parts.len() == 1 { parts[0].clone() } else { format!("t_join({})", parts.join(", ")) }
}

/// SQLite declaration of a column: no affinity, the collation of its type.
pub fn declaration(c: &Column) -> String {
    let collation = if c.ty.is_char() { format!(" COLLATE \"{}\"", c.ty.collation.name()) } else { String::new() };
    format!("{} BLOB{collation}", c.physical())
}

struct ForeignKey {
    name: String,
    other: i64,
    /// (column of the child, column of the parent)
    pairs: Vec<(i64, i64)>,
    on_delete: String,
    on_update: String,
}

impl Session {
    /// Foreign keys of `table`, or to it if `referenced`.
    fn foreign_keys(&self, table: i64, referenced: bool) -> Result<Vec<ForeignKey>> {
        let (mine, other) = if referenced { ("referenced", "parent") } else { ("parent", "referenced") };
        let mut st = self.c.prepare(&format!(
            "SELECT f.object_id, o.name, f.{other}, f.on_delete, f.on_update FROM core_fks f JOIN core_objects o ON o.object_id = f.object_id \
             WHERE f.{mine} = ?1 AND NOT f.disabled ORDER BY f.object_id"
        ))?;
        let list: Vec<(i64, ForeignKey)> = st
            .query_map([table], |r| {
                Ok((
                    r.get(0)?,
                    ForeignKey {
                        name: r.get(1)?,
                        other: r.get(2)?,
                        pairs: Vec::new(),
                        on_delete: r.get(3)?,
                        on_update: r.get(4)?,
                    },
                ))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let mut out = Vec::new();
        for (id, mut key) in list {
            let mut st = self.c.prepare(
                "SELECT parent_column, referenced_column FROM core_fk_columns WHERE fk = ?1 ORDER BY position",
            )?;
            key.pairs = st.query_map([id], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
            out.push(key);
        }
        Ok(out)
    }

    /// Drops the triggers of a table.
    pub fn drop_triggers(&self, table: i64) -> Result<()> {
        for event in ["i", "u", "d"] {
            self.c.execute_batch(&format!("DROP TRIGGER IF EXISTS g{table}_{event}"))?;
        }
        Ok(())
    }

    /// Makes the triggers of a table anew: the log of tracked tables, CHECK, FOREIGN KEY from both sides.
    pub fn build_triggers(&self, object: &Object) -> Result<()> {
        self.drop_triggers(object.id)?;
        let Some(object) = catalog::by_id(&self.c, object.id)? else { return Ok(()) };
        let columns = catalog::columns(&self.c, object.id)?;
        let stored: Vec<Column> = columns.iter().filter(|c| c.computed.is_none()).cloned().collect();
        let (mut insert, mut update, mut delete) = (Vec::new(), Vec::new(), Vec::new());
        if object.cdc || object.ct {
            let log = |op: &str, old: &str, new: &str| {
                format!(
                    "INSERT INTO core_log(tx, object_id, command, op, old, new) SELECT tx, {}, command, '{op}', {old}, {new} FROM core_current;",
                    object.id
                )
            };
            insert.push(log("I", "NULL", &packed(&stored, "new")));
            update.push(log("U", &packed(&stored, "old"), &packed(&stored, "new")));
            delete.push(log("D", &packed(&stored, "old"), "NULL"));
        }
        for check in self.checks(&object)? {
            insert.push(check.clone());
            update.push(check);
        }
        for key in self.foreign_keys(object.id, false)? {
            let text = self.child_check(&object, &key)?;
            insert.push(text.clone());
            update.push(text);
        }
        for key in self.foreign_keys(object.id, true)? {
            let (on_delete, on_update) = self.parent_actions(&object, &key)?;
            delete.push(on_delete);
            update.push(on_update);
        }
        let t = object.physical();
        for (name, event, body) in [("i", "INSERT", insert), ("u", "UPDATE", update), ("d", "DELETE", delete)] {
            if !body.is_empty() {
                self.c.execute_batch(&format!(
                    "CREATE TRIGGER g{}_{name} AFTER {event} ON {t} BEGIN {} END",
                    object.id,
                    body.join(" ")
                ))?;
            }
        }
        Ok(())
    }

    fn violation(&self, verb: &str, kind: &str, name: &str, table: &str) -> String {
        let text = format!(
            "The {verb} statement conflicted with the {kind} constraint \"{name}\". The conflict occurred in database \"{}\", table \"{table}\".",
            self.db.name
        );
        format!("t_fail(547, 16, 0, {})", literal(&Value::Text(text)))
    }

    fn checks(&self, object: &Object) -> Result<Vec<String>> {
        let mut st = self.c.prepare(
            "SELECT o.name, k.definition FROM core_checks k JOIN core_objects o ON o.object_id = k.object_id WHERE k.parent = ?1 AND NOT k.disabled",
        )?;
        let list: Vec<(String, String)> =
            st.query_map([object.id], |r| Ok((r.get(0)?, r.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        let mut out = Vec::new();
        for (name, text) in list {
            let mut b = Binder::new(self);
            b.kept = true;
            let columns = b.offered(object, "new")?;
            let scope = Scope {
                sources: vec![Source { name: object.name.clone(), schema: None, columns, table: None }],
                parent: None,
                grouped: None,
            };
            let condition = b.condition(&crate::sql::parse_condition_text(&text)?, &scope)?;
            let fail =
                self.violation("INSERT or UPDATE", "CHECK", &name, &format!("{}.{}", object.schema, object.name));
            out.push(format!("SELECT CASE WHEN NOT {condition} THEN {fail} END;"));
        }
        Ok(out)
    }

    fn child_check(&self, object: &Object, key: &ForeignKey) -> Result<String> {
        let parent = catalog::by_id(&self.c, key.other)?.ok_or_else(|| SqlError::object(&key.name))?;
        let full: Vec<String> = key.pairs.iter().map(|(child, _)| format!("new.c{child} IS NOT NULL")).collect();
        let same: Vec<String> = key.pairs.iter().map(|(child, parent)| format!("p.c{parent} = new.c{child}")).collect();
        let fail =
            self.violation("INSERT or UPDATE", "FOREIGN KEY", &key.name, &format!("{}.{}", parent.schema, parent.name));
        let _ = object;
        Ok(format!(
            "SELECT CASE WHEN {} AND NOT EXISTS (SELECT 1 FROM {} p WHERE {}) THEN {fail} END;",
            full.join(" AND "),
            parent.physical(),
            same.join(" AND ")
        ))
    }

    /// What happens to children when a parent row goes or its key changes.
    fn parent_actions(&self, object: &Object, key: &ForeignKey) -> Result<(String, String)> {
        let child = catalog::by_id(&self.c, key.other)?.ok_or_else(|| SqlError::object(&key.name))?;
        let t = child.physical();
        let of_old: Vec<String> = key.pairs.iter().map(|(c, p)| format!("{t}.c{c} = old.c{p}")).collect();
        let of_old = of_old.join(" AND ");
        let changed: Vec<String> = key.pairs.iter().map(|(_, p)| format!("old.c{p} IS NOT new.c{p}")).collect();
        let changed = changed.join(" OR ");
        let table = format!("{}.{}", child.schema, child.name);
        let version =
            catalog::columns(&self.c, child.id)?.into_iter().find(|c| c.ty.kind == crate::types::Kind::RowVersion);
        let version = version.map_or(String::new(), |c| format!(", {} = t_rowversion()", c.physical()));
        let set = |value: &dyn Fn(i64) -> String| {
            let list: Vec<String> = key.pairs.iter().map(|(c, p)| format!("c{c} = {}", value(*p))).collect();
            format!("UPDATE {t} SET {}{version} WHERE {of_old}", list.join(", "))
        };
        let refuse = |verb: &str| {
            let fail = self.violation(verb, "REFERENCE", &key.name, &table);
            format!("SELECT CASE WHEN EXISTS (SELECT 1 FROM {t} WHERE {of_old}) THEN {fail} END;")
        };
        let on_delete = match key.on_delete.as_str() {
            "CASCADE" => format!("DELETE FROM {t} WHERE {of_old};"),
            "SET_NULL" => format!("{};", set(&|_| "NULL".into())),
            _ => refuse("DELETE"),
        };
        let on_update = match key.on_update.as_str() {
            "CASCADE" => format!("{} AND ({changed});", set(&|p| format!("new.c{p}"))),
            "SET_NULL" => format!("{} AND ({changed});", set(&|_| "NULL".into())),
            _ => {
                let fail = self.violation("UPDATE", "REFERENCE", &key.name, &table);
                format!("SELECT CASE WHEN ({changed}) AND EXISTS (SELECT 1 FROM {t} WHERE {of_old}) THEN {fail} END;")
            }
        };
        let _ = object;
        Ok((on_delete, on_update))
    }

    /// Makes an index in SQLite. Existing duplicates are 1505.
    pub fn build_index(&self, object: &Object, index: i64, unique: bool, columns: &[(Column, bool)]) -> Result<()> {
        let list: Vec<String> = columns
            .iter()
            .map(|(c, descending)| {
                let collation =
                    if c.ty.is_char() { format!(" COLLATE \"{}\"", c.ty.collation.name()) } else { String::new() };
                format!("{}{collation}{}", c.physical(), if *descending { " DESC" } else { "" })
            })
            .collect();
        let sql = format!(
            "CREATE {}INDEX i{}_{index} ON {}({})",
            if unique { "UNIQUE " } else { "" },
            object.id,
            object.physical(),
            list.join(", ")
        );
        self.c.execute_batch(&sql).map_err(|e| {
            if e.to_string().contains("UNIQUE") {
                let text = format!("The CREATE UNIQUE INDEX statement terminated because a duplicate key was found for the object name '{}.{}'.", object.schema, object.name);
                SqlError::new(1505, 16, 1, text)
            } else {
                e.into()
            }
        })
    }

    /// Enters an index into the catalogue and makes it.
    pub fn add_index(
        &self,
        object: &Object,
        name: &str,
        columns: &[(String, bool)],
        included: &[String],
        flags: IndexFlags,
    ) -> Result<i64> {
        let all = catalog::columns(&self.c, object.id)?;
        let existing = catalog::indexes(&self.c, object.id)?;
        if existing.iter().any(|i| i.name.eq_ignore_ascii_case(name)) {
            let text = format!(
                "The operation failed because an index or statistics with name '{name}' already exists on table '{}'.",
                object.name
            );
            return Err(SqlError::new(1913, 16, 1, text));
        }
        if flags.primary && existing.iter().any(|i| i.primary) {
            return Err(SqlError::new(
                1779,
                16,
                0,
                format!("Table '{}' already has a primary key defined on it.", object.name),
            ));
        }
        let clustered_exists: bool = self.c.query_row(
            "SELECT count(*) > 0 FROM core_indexes WHERE object_id = ?1 AND clustered",
            [object.id],
            |r| r.get(0),
        )?;
        let clustered = flags.clustered.unwrap_or(flags.primary && !clustered_exists);
        if clustered && clustered_exists {
            return Err(SqlError::new(
                1902,
                16,
                3,
                format!("Cannot create more than one clustered index on table '{}'.", object.name),
            ));
        }
        let id = if clustered { 1 } else { existing.iter().map(|i| i.id).max().unwrap_or(1).max(1) + 1 };
        self.c.execute(
            "INSERT INTO core_indexes VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![object.id, id, name, clustered, flags.unique, flags.primary, flags.constraint],
        )?;
        let mut keys = Vec::new();
        for (position, (name, descending, included)) in
            columns.iter().map(|(n, d)| (n, *d, false)).chain(included.iter().map(|n| (n, false, true))).enumerate()
        {
            let column = all.iter().find(|c| c.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
                SqlError::new(1911, 16, 1, format!("Column name '{name}' does not exist in the target table or view."))
            })?;
            if !included && !catalog::can_be_key(column.ty) {
                let text = format!(
                    "Column '{name}' in table '{}' is of a type that is invalid for use as a key column in an index.",
                    object.name
                );
                return Err(SqlError::new(1919, 16, 1, text));
            }
            self.c.execute(
                "INSERT INTO core_index_columns VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
                params![object.id, id, position as i64 + 1, column.id, descending, included],
            )?;
            if !included && column.computed.is_none() {
                keys.push((column.clone(), descending));
            } else if column.computed.is_some() && flags.unique {
                return Err(SqlError::unmodelled("unique indexes on computed columns"));
            }
        }
        if !keys.is_empty() {
            self.build_index(object, id, flags.unique, &keys)?;
        }
        Ok(id)
    }
}

/// What an index is.
#[derive(Clone, Copy, Debug, Default)]
pub struct IndexFlags {
    /// Unique.
    pub unique: bool,
    /// Of the primary key.
    pub primary: bool,
    /// Of a constraint.
    pub constraint: bool,
    /// Clustered, as written.
    pub clustered: Option<bool>,
}
