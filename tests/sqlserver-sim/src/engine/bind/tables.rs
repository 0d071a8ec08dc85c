//! Binding of what stands in FROM.

use super::query::exposed;
use super::{Binder, Bound, Hold, Offered, Scope, Source};
use crate::engine::catalog::{self, Object};
use crate::engine::{cdc, tracking, views};
use crate::error::{Result, SqlError};
use crate::sql::ast::{Expr, JoinKind, Name, TableRef};
use crate::types::{Kind, SqlType};
use rusqlite::types::Value;

type Bindings = (String, Vec<Source>);

impl Binder<'_> {
    /// Binds a table with its joins: SQLite text and the tables it brings.
    pub fn table_ref(&mut self, t: &TableRef, parent: Option<&Scope<'_>>) -> Result<Bindings> {
        match t {
            TableRef::Named { name, alias, hints: _ } => self.named(name, alias.as_deref()),
            TableRef::Derived { query, alias, columns } => {
                let bound = self.query(query, parent)?;
                let a = self.alias();
                let mut offered = Vec::new();
                for (i, c) in bound.columns.iter().enumerate() {
                    let name = columns.get(i).cloned().unwrap_or_else(|| c.name.clone());
                    if name.is_empty() {
                        let text = format!("No column name was specified for column {} of '{alias}'.", i + 1);
                        return Err(SqlError::new(8155, 16, 2, text));
                    }
                    offered.push(Offered { name, bound: exposed(c, &a, i + 1) });
                }
                if !columns.is_empty() && columns.len() != bound.columns.len() {
                    let text = format!(
                        "'{alias}' has {} columns than were specified in the column list.",
                        if columns.len() < bound.columns.len() { "more" } else { "fewer" }
                    );
                    return Err(SqlError::new(8158, 16, 1, text));
                }
                Ok((
                    format!("({}) AS {a}", bound.sql),
                    vec![Source { name: alias.clone(), schema: None, columns: offered, table: None }],
                ))
            }
            TableRef::Join { left, right, kind, on } => {
                let (l, mut sources) = self.table_ref(left, parent)?;
                let (r, mut more) = self.table_ref(right, parent)?;
                if matches!(kind, JoinKind::Left | JoinKind::Full) {
                    optional(&mut more);
                }
                if matches!(kind, JoinKind::Right | JoinKind::Full) {
                    optional(&mut sources);
                }
                sources.extend(more);
                let word = match kind {
                    JoinKind::Inner => "INNER JOIN",
                    JoinKind::Left => "LEFT JOIN",
                    JoinKind::Right => "RIGHT JOIN",
                    JoinKind::Full => "FULL JOIN",
                    JoinKind::Cross => "CROSS JOIN",
                };
                let right_text = if matches!(**right, TableRef::Join { .. }) { format!("({r})") } else { r };
                let mut sql = format!("{l} {word} {right_text}");
                if let Some(on) = on {
                    let scope = Scope { sources, parent, grouped: None };
                    sql.push_str(&format!(" ON {}", self.condition(on, &scope)?));
                    sources = scope.sources;
                }
                Ok((sql, sources))
            }
            TableRef::Function { name, args, alias } => self.function(name, args, alias.as_deref(), parent),
            TableRef::Changes { table, version, alias } => {
                let version = self.constant(version, SqlType::of(Kind::BigInt), parent)?;
                let made = tracking::changes(self.session, table, &version)?;
                Ok(self.made(made, alias, None))
            }
            TableRef::Version { table, columns, values, alias } => {
                let mut keys = Vec::new();
                for v in values {
                    let scope = Scope { sources: Vec::new(), parent, grouped: None };
                    keys.push(self.value(v, &scope)?);
                }
                let made = tracking::version(self, table, columns, keys)?;
                Ok(self.made(made, alias, None))
            }
        }
    }

    /// A view made by the engine.
    fn made(&mut self, view: views::View, name: &str, schema: Option<String>) -> Bindings {
        let a = self.alias();
        let columns = view
            .columns
            .into_iter()
            .enumerate()
            .map(|(i, (name, ty))| Offered {
                name,
                bound: Bound { hold: Hold::Implicit, ..Bound::new(format!("{a}.v{}", i + 1), ty) },
            })
            .collect();
        (format!("({}) AS {a}", view.sql), vec![Source { name: name.into(), schema, columns, table: None }])
    }

    /// Evaluates an argument of a table-valued function before the query runs.
    pub fn constant(&mut self, e: &Expr, ty: SqlType, parent: Option<&Scope<'_>>) -> Result<Value> {
        if parent.is_some_and(|p| !p.sources.is_empty()) && matches!(e, Expr::Column(_)) {
            return Err(SqlError::unmodelled("a table-valued function of a column"));
        }
        let mut inner = Binder::new(self.session);
        let b = inner.value(e, &Scope::default())?;
        let b = inner.implicit(b, ty)?;
        let params = inner.parameters();
        let mut st = self.session.c.prepare_cached(&format!("SELECT {}", b.sql))?;
        Ok(st.query_row(rusqlite::params_from_iter(params), |r| r.get(0))?)
    }

    fn named(&mut self, name: &Name, alias: Option<&str>) -> Result<Bindings> {
        if let [one] = &name[..] {
            if let Some((reach, columns, query)) = self.find_cte(one) {
                let t = TableRef::Derived { query: Box::new(query), alias: alias.unwrap_or(one).into(), columns };
                return self.with_ctes(reach, |b| b.table_ref(&t, None));
            }
            if one.starts_with('#') {
                return Err(SqlError::unmodelled("temporary tables"));
            }
            if one.eq_ignore_ascii_case("sysobjects") {
                return self.named(&vec!["sys".into(), "sysobjects".into()], alias.or(Some("sysobjects")));
            }
        }
        let r = catalog::resolve(self.session, name)?;
        let called = alias.unwrap_or(&r.object).to_owned();
        let schema = if alias.is_none() { Some(r.schema.clone()) } else { None };
        let system = r.schema.eq_ignore_ascii_case("sys") || r.schema.eq_ignore_ascii_case("INFORMATION_SCHEMA");
        if system || r.database.is_some() {
            let master = r.database.as_deref().is_some_and(|d| d.eq_ignore_ascii_case("master"));
            let msdb = r.database.as_deref().is_some_and(|d| d.eq_ignore_ascii_case("msdb"));
            if r.database.is_some() && !master && !msdb {
                let known = self.session.server.databases().iter().any(|d| Some(&d.name) == r.database.as_ref());
                return Err(if known {
                    SqlError::unmodelled("queries into another database")
                } else {
                    SqlError::object(&name.join("."))
                });
            }
            let database = r.database.as_deref().filter(|_| msdb);
            let view = views::find(self.session, database, &r.schema, &r.object)?
                .ok_or_else(|| SqlError::object(&name.join(".")))?;
            return Ok(self.made(view, &called, schema));
        }
        let Some(object) = catalog::find(&self.session.c, &r.schema, &r.object)? else {
            return Err(SqlError::object(&name.join(".")));
        };
        if !self.trusted {
            self.session.demand("SELECT", &object)?;
        }
        match object.kind.as_str() {
            "U" => self.base_table(&object, &called, schema),
            "V" => {
                let text = object.definition.clone().unwrap_or_default();
                let query = crate::sql::parse_query_text(&text)?;
                let bound = self.view(&query)?;
                let names = catalog::columns(&self.session.c, object.id)?;
                let a = self.alias();
                let columns = bound
                    .columns
                    .iter()
                    .enumerate()
                    .map(|(i, c)| Offered {
                        name: names.get(i).map_or_else(|| c.name.clone(), |n| n.name.clone()),
                        bound: exposed(c, &a, i + 1),
                    })
                    .collect();
                Ok((format!("({}) AS {a}", bound.sql), vec![Source { name: called, schema, columns, table: None }]))
            }
            _ => Err(SqlError::object(&name.join("."))),
        }
    }

    /// A table of the current database.
    pub fn base_table(&mut self, object: &Object, called: &str, schema: Option<String>) -> Result<Bindings> {
        self.session.check_snapshot()?;
        let a = self.alias();
        let columns = self.offered(object, &a)?;
        let source = Source { name: called.into(), schema, columns, table: Some((object.id, a.clone())) };
        Ok((format!("{} AS {a}", object.physical()), vec![source]))
    }

    /// The columns of a table behind a prefix (an alias, `new`, `old`).
    pub fn offered(&mut self, object: &Object, prefix: &str) -> Result<Vec<Offered>> {
        let all = catalog::columns(&self.session.c, object.id)?;
        let mut out: Vec<Offered> = Vec::new();
        for c in all.iter().filter(|c| c.computed.is_none()) {
            let bound = Bound {
                nullable: c.nullable,
                hold: Hold::Implicit,
                identity: c.identity.is_some(),
                column: true,
                ..Bound::new(format!("{prefix}.{}", c.physical()), c.ty)
            };
            out.push(Offered { name: c.name.clone(), bound });
        }
        // Computed columns are their expression over the others.
        let scope = Scope {
            sources: vec![Source { name: object.name.clone(), schema: None, columns: out.clone(), table: None }],
            parent: None,
            grouped: None,
        };
        let mut result = Vec::new();
        for c in &all {
            if let Some(text) = &c.computed {
                let e = crate::sql::parse_expr_text(text)?;
                let kept = std::mem::replace(&mut self.kept, true);
                let bound = self.value(&e, &scope);
                self.kept = kept;
                let bound = Bound { column: false, identity: false, hold: Hold::Implicit, ..bound? };
                result.push(Offered { name: c.name.clone(), bound });
            } else if let Some(o) = out.iter().find(|o| o.name == c.name) {
                result.push(o.clone());
            }
        }
        Ok(result)
    }

    /// Functions that return tables.
    fn function(
        &mut self,
        name: &Name,
        args: &[Expr],
        alias: Option<&str>,
        parent: Option<&Scope<'_>>,
    ) -> Result<Bindings> {
        let full = name.join(".").to_ascii_lowercase();
        let called = alias.unwrap_or_else(|| name.last().map_or("", String::as_str)).to_owned();
        let lsn = SqlType::sized(Kind::Binary, 10);
        if let Some(rest) = full.strip_prefix("cdc.fn_cdc_get_") {
            let (all, instance) = match (rest.strip_prefix("all_changes_"), rest.strip_prefix("net_changes_")) {
                (Some(i), _) => (true, i.to_owned()),
                (_, Some(i)) => (false, i.to_owned()),
                _ => return Err(SqlError::object(&name.join("."))),
            };
            let [from, to, filter] = args else {
                return Err(cdc::arguments_error(&full));
            };
            let from = self.constant(from, lsn, parent)?;
            let to = self.constant(to, lsn, parent)?;
            let filter = self.constant(filter, SqlType::sized(Kind::NVarChar, 30), parent)?;
            let made = cdc::changes(self.session, &instance, all, &from, &to, &filter, &name.join("."))?;
            return Ok(self.made(made, &called, None));
        }
        if full == "sys.dm_db_log_stats" {
            let made = cdc::log_stats(self.session)?;
            return Ok(self.made(made, &called, None));
        }
        if full == "string_split" {
            let [text, separator] = args else { return Err(SqlError::unmodelled("STRING_SPLIT with an ordinal")) };
            let ty = SqlType::max(Kind::NVarChar);
            let (text, separator) = (self.constant(text, ty, parent)?, self.constant(separator, ty, parent)?);
            let rows: Vec<String> = match (&text, &separator) {
                (Value::Text(t), Value::Text(s)) if !s.is_empty() => {
                    t.split(s.as_str()).map(|p| format!("({})", views::literal(&Value::Text(p.into())))).collect()
                }
                _ => Vec::new(),
            };
            let sql = if rows.is_empty() {
                "SELECT NULL AS v1 WHERE 0".into()
            } else {
                format!("SELECT column1 AS v1 FROM (VALUES {})", rows.join(", "))
            };
            return Ok(self.made(views::View { columns: vec![("value".into(), ty)], sql }, &called, None));
        }
        Err(if name.len() > 1 {
            SqlError::object(&name.join("."))
        } else {
            SqlError::unmodelled(format!("the rowset function {full}"))
        })
    }
}

/// Columns on the outer side of a join may be NULL.
fn optional(sources: &mut [Source]) {
    for s in sources {
        for c in &mut s.columns {
            c.bound.nullable = true;
        }
    }
}
