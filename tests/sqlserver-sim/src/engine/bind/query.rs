//! Binding of queries.

use super::expr::contains_aggregate;
use super::{Binder, Bound, Hold, Offered, Scope, Source};
use crate::error::{Result, SqlError};
use crate::sql::ast::{Expr, Item, Name, OrderItem, Query, Select, SetExpr};
use crate::types::{Kind, SqlType};

/// A query that can be run. Its columns are called `v1`, `v2`, … in SQLite.
#[derive(Debug)]
pub struct BoundQuery {
    /// SQLite text.
    pub sql: String,
    /// What comes out.
    pub columns: Vec<Offered>,
    /// One row by nature: an aggregate without GROUP BY, a SELECT without FROM.
    pub single_row: bool,
    /// Ends in LIMIT.
    pub limited: bool,
    /// Variables that the last row is assigned to.
    pub assign: Vec<String>,
    /// `SELECT … INTO`.
    pub into: Option<Name>,
}

impl Binder<'_> {
    /// Binds a query inside `parent`.
    pub fn query(&mut self, q: &Query, parent: Option<&Scope<'_>>) -> Result<BoundQuery> {
        let mark = self.ctes.len();
        for (name, columns, query) in &q.ctes {
            self.ctes.push((name.clone(), columns.clone(), query.clone()));
        }
        let out = self.query_body(q, parent);
        self.ctes.truncate(mark);
        out
    }

    /// A common table expression by name, with those it may itself use.
    pub(super) fn find_cte(&self, name: &str) -> Option<(usize, Vec<String>, Query)> {
        self.ctes
            .iter()
            .enumerate()
            .rev()
            .find(|(_, c)| c.0.eq_ignore_ascii_case(name))
            .map(|(i, c)| (i, c.1.clone(), c.2.clone()))
    }

    /// Binds `query` with only the first `reach` common table expressions in sight.
    pub(super) fn with_ctes<T>(&mut self, reach: usize, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let hidden = self.ctes.split_off(reach);
        let out = f(self);
        self.ctes.truncate(reach);
        self.ctes.extend(hidden);
        out
    }

    /// Binds a query as text of a view: no variables, the owner's permissions.
    pub(super) fn view(&mut self, q: &Query) -> Result<BoundQuery> {
        if self.depth > 30 {
            return Err(SqlError::unmodelled("views nested more than 30 deep"));
        }
        self.depth += 1;
        let (kept, trusted) = (self.kept, self.trusted);
        (self.kept, self.trusted) = (true, true);
        let out = self.with_ctes(0, |b| b.query(q, None));
        (self.kept, self.trusted) = (kept, trusted);
        self.depth -= 1;
        out
    }

    fn query_body(&mut self, q: &Query, parent: Option<&Scope<'_>>) -> Result<BoundQuery> {
        if let SetExpr::Select(s) = &q.body {
            return self.select(s, q, parent);
        }
        let mut out = self.set(&q.body, parent)?;
        if !q.order.is_empty() {
            let keys = q.order.iter().map(|o| self.output_key(o, &out)).collect::<Result<Vec<_>>>()?;
            out.sql = format!("SELECT * FROM ({}) ORDER BY {}", out.sql, keys.join(", "));
        }
        self.limit(&mut out, None, q, parent)?;
        Ok(out)
    }

    /// A column of the output named in ORDER BY, by number or name.
    fn output_column<'q>(&self, o: &OrderItem, out: &'q BoundQuery) -> Result<Option<(usize, &'q Offered)>> {
        match &o.expr {
            Expr::Int(n) => {
                let at: usize = n.parse().unwrap_or(0);
                let column = at.checked_sub(1).and_then(|i| out.columns.get(i));
                let text = format!(
                    "The ORDER BY position number {n} is out of range of the number of items in the select list."
                );
                Ok(Some((at, column.ok_or_else(|| SqlError::new(108, 15, 1, text))?)))
            }
            Expr::Column(parts) if parts.len() == 1 => Ok(out
                .columns
                .iter()
                .enumerate()
                .find(|(_, c)| c.name.eq_ignore_ascii_case(&parts[0]))
                .map(|(i, c)| (i + 1, c))),
            _ => Ok(None),
        }
    }

    fn output_key(&self, o: &OrderItem, out: &BoundQuery) -> Result<String> {
        let (at, column) = self.output_column(o, out)?.ok_or_else(|| {
            SqlError::new(104, 16, 1, "ORDER BY items must appear in the select list if the statement contains a UNION, INTERSECT or EXCEPT operator.")
        })?;
        let key = self.order_key(&Bound { sql: format!("v{at}"), ..column.bound.clone() })?;
        Ok(format!("{key}{}", if o.descending { " DESC" } else { "" }))
    }

    fn order_key(&self, b: &Bound) -> Result<String> {
        if b.ty.is_old_lob() || matches!(b.ty.kind, Kind::Xml | Kind::Geography | Kind::Geometry) {
            return Err(SqlError::new(
                306,
                16,
                2,
                "The text, ntext, and image data types cannot be compared or sorted, except when using IS NULL or LIKE operator.",
            ));
        }
        if b.ty.kind == Kind::Variant {
            return Err(SqlError::unmodelled("ordering by sql_variant"));
        }
        Ok(self.key(b))
    }

    fn set(&mut self, body: &SetExpr, parent: Option<&Scope<'_>>) -> Result<BoundQuery> {
        match body {
            SetExpr::Select(s) => {
                let empty = Query {
                    ctes: Vec::new(),
                    body: SetExpr::Values(Vec::new()),
                    order: Vec::new(),
                    offset: None,
                    fetch: None,
                };
                self.select(s, &empty, parent)
            }
            SetExpr::Nested(q) => self.query(q, parent),
            SetExpr::Values(rows) => self.values(rows, parent),
            SetExpr::Op(_, "UNION ALL", _) => self.union_all(body, parent),
            SetExpr::Op(l, op, r) => {
                let (left, right) = (self.set(l, parent)?, self.set(r, parent)?);
                if left.columns.len() != right.columns.len() {
                    return Err(unequal());
                }
                let mut columns = Vec::new();
                let (mut lefts, mut rights) = (Vec::new(), Vec::new());
                for (i, (a, b)) in left.columns.iter().zip(&right.columns).enumerate() {
                    let at = |side: &Offered| Bound { sql: format!("v{}", i + 1), ..side.bound.clone() };
                    let ty = self.common(&a.bound, &b.bound, "UNION")?;
                    let (x, y) = (self.implicit(at(a), ty)?, self.implicit(at(b), ty)?);
                    let text = |v: &Bound| if v.ty.is_char() { self.key(v) } else { v.sql.clone() };
                    lefts.push(format!("{} AS v{}", text(&x), i + 1));
                    rights.push(format!("{} AS v{}", text(&y), i + 1));
                    let nullable = a.bound.nullable || b.bound.nullable;
                    let bound = Bound {
                        nullable,
                        hold: a.bound.hold.max(b.bound.hold),
                        ..Bound::new(format!("v{}", i + 1), ty)
                    };
                    columns.push(Offered { name: a.name.clone(), bound });
                }
                let sql = format!(
                    "SELECT {} FROM ({}) {op} SELECT {} FROM ({})",
                    lefts.join(", "),
                    left.sql,
                    rights.join(", "),
                    right.sql
                );
                Ok(BoundQuery { sql, columns, single_row: false, limited: false, assign: Vec::new(), into: None })
            }
        }
    }

    /// `a UNION ALL b UNION ALL c …`: a reader of a thousand tables asks for all of them in one such chain.
    fn union_all(&mut self, body: &SetExpr, parent: Option<&Scope<'_>>) -> Result<BoundQuery> {
        let mut parts = Vec::new();
        let mut at = body;
        while let SetExpr::Op(l, "UNION ALL", r) = at {
            parts.push(&**r);
            at = l;
        }
        parts.push(at);
        let mut bound = Vec::new();
        for part in parts.into_iter().rev() {
            bound.push(self.set(part, parent)?);
        }
        let width = bound[0].columns.len();
        if bound.iter().any(|b| b.columns.len() != width) {
            return Err(unequal());
        }
        let mut columns = Vec::new();
        for i in 0..width {
            let mut all = bound[0].columns[i].bound.clone();
            for b in &bound[1..] {
                let next = &b.columns[i].bound;
                let ty = self.common(&all, next, "UNION ALL")?;
                let untyped = all.untyped && next.untyped;
                all = Bound {
                    ty,
                    untyped,
                    nullable: all.nullable || next.nullable,
                    hold: all.hold.max(next.hold),
                    ..all
                };
            }
            let result = Bound { nullable: all.nullable, hold: all.hold, ..Bound::new(format!("v{}", i + 1), all.ty) };
            columns.push(Offered { name: bound[0].columns[i].name.clone(), bound: result });
        }
        let mut texts = Vec::new();
        for b in &bound {
            let mut items = Vec::new();
            for (i, (c, to)) in b.columns.iter().zip(&columns).enumerate() {
                let v = self.implicit(Bound { sql: format!("v{}", i + 1), ..c.bound.clone() }, to.bound.ty)?;
                items.push(format!("{} AS v{}", v.sql, i + 1));
            }
            texts.push(format!("SELECT {} FROM ({})", items.join(", "), b.sql));
        }
        // SQLite joins at most 500 queries at one level.
        while texts.len() > 1 {
            texts = texts.chunks(400).map(|part| format!("SELECT * FROM ({})", part.join(" UNION ALL "))).collect();
        }
        let sql = texts.pop().unwrap_or_default();
        Ok(BoundQuery { sql, columns, single_row: false, limited: false, assign: Vec::new(), into: None })
    }

    /// "Table value constructor": columns take the type of the highest precedence.
    fn values(&mut self, rows: &[Vec<Expr>], parent: Option<&Scope<'_>>) -> Result<BoundQuery> {
        let scope = Scope { sources: Vec::new(), parent, grouped: None };
        let width = rows.first().map_or(0, Vec::len);
        if rows.iter().any(|r| r.len() != width) {
            return Err(SqlError::new(
                10709,
                16,
                1,
                "The number of columns for each row in a table value constructor must be the same.",
            ));
        }
        let mut table = Vec::new();
        for row in rows {
            table.push(row.iter().map(|e| self.value(e, &scope)).collect::<Result<Vec<_>>>()?);
        }
        let mut columns = Vec::new();
        for i in 0..width {
            let (values, ty, hold) = self.same_type(table.iter().map(|r| r[i].clone()).collect())?;
            let nullable = values.iter().any(|v| v.nullable);
            for (row, v) in table.iter_mut().zip(values) {
                row[i] = v;
            }
            let bound = Bound { nullable, hold, ..Bound::new(format!("v{}", i + 1), ty) };
            columns.push(Offered { name: String::new(), bound });
        }
        let text: Vec<String> = table
            .iter()
            .map(|r| format!("({})", r.iter().map(|b| b.sql.as_str()).collect::<Vec<_>>().join(", ")))
            .collect();
        let names: Vec<String> = (1..=width).map(|i| format!("column{i} AS v{i}")).collect();
        let sql = format!("SELECT {} FROM (VALUES {})", names.join(", "), text.join(", "));
        Ok(BoundQuery { sql, columns, single_row: false, limited: false, assign: Vec::new(), into: None })
    }

    fn select(&mut self, s: &Select, q: &Query, parent: Option<&Scope<'_>>) -> Result<BoundQuery> {
        let mut scope = Scope { sources: Vec::new(), parent, grouped: None };
        let mut from = Vec::new();
        for t in &s.from {
            let (sql, sources) = self.table_ref(t, parent)?;
            for source in &sources {
                if scope.sources.iter().any(|o| o.name.eq_ignore_ascii_case(&source.name) && o.schema == source.schema)
                {
                    let text = format!(
                        "The objects \"{0}\" and \"{0}\" in the FROM clause have the same exposed names. Use correlation names to distinguish them.",
                        source.name
                    );
                    return Err(SqlError::new(1013, 16, 1, text));
                }
            }
            from.push(sql);
            scope.sources.extend(sources);
        }
        let filter = s.filter.as_ref().map(|f| self.condition(f, &scope)).transpose()?;
        let aggregates =
            s.items.iter().any(|i| matches!(i, Item::Expr(e, _) | Item::Assign(_, e) if contains_aggregate(e)))
                || s.having.is_some()
                || q.order.iter().any(|o| contains_aggregate(&o.expr));
        let mut group = Vec::new();
        if !s.group.is_empty() || aggregates {
            let mut texts = Vec::new();
            for e in &s.group {
                let b = self.value(e, &scope)?;
                group.push(self.order_key(&b)?);
                texts.push(b.sql);
            }
            scope.grouped = Some(texts);
        }
        let mut columns = Vec::new();
        let mut assign = Vec::new();
        for item in &s.items {
            match item {
                Item::Star(table) => self.star(table.as_deref(), &scope, &mut columns)?,
                Item::Expr(e, alias) => {
                    let bound = self.value(e, &scope)?;
                    let name = alias.clone().or_else(|| match e {
                        Expr::Column(parts) => parts.last().map(|name| stored_name(&scope, name)),
                        _ => None,
                    });
                    columns.push(Offered { name: name.unwrap_or_default(), bound });
                }
                Item::Assign(variable, e) => {
                    let Some((ty, _)) = self.session.variable(variable) else {
                        return Err(SqlError::new(
                            137,
                            15,
                            1,
                            format!("Must declare the scalar variable \"{variable}\"."),
                        ));
                    };
                    let ty = *ty;
                    let bound = self.value(e, &scope)?;
                    columns.push(Offered { name: String::new(), bound: self.implicit(bound, ty)? });
                    assign.push(variable.clone());
                }
            }
        }
        if !assign.is_empty() && assign.len() != columns.len() {
            let text = "A SELECT statement that assigns a value to a variable must not be combined with data-retrieval operations.";
            return Err(SqlError::new(141, 15, 1, text));
        }
        let having = s.having.as_ref().map(|h| self.condition(h, &scope)).transpose()?;
        if s.distinct {
            for c in &columns {
                if c.bound.ty.is_old_lob() || matches!(c.bound.ty.kind, Kind::Xml | Kind::Geography | Kind::Geometry) {
                    let text = format!(
                        "The {} data type cannot be selected as DISTINCT because it is not comparable.",
                        c.bound.ty.name()
                    );
                    return Err(SqlError::new(421, 16, 1, text));
                }
            }
        }
        let items: Vec<String> = columns
            .iter()
            .enumerate()
            .map(|(i, c)| {
                format!(
                    "{} AS v{}",
                    if s.distinct && c.bound.ty.is_char() { self.key(&c.bound) } else { c.bound.sql.clone() },
                    i + 1
                )
            })
            .collect();
        let mut sql = format!("SELECT {}{}", if s.distinct { "DISTINCT " } else { "" }, items.join(", "));
        if !from.is_empty() {
            sql.push_str(&format!(" FROM {}", from.join(", ")));
        }
        if let Some(f) = filter {
            sql.push_str(&format!(" WHERE {f}"));
        }
        let single_row = (aggregates && group.is_empty()) || s.from.is_empty();
        if !group.is_empty() {
            sql.push_str(&format!(" GROUP BY {}", group.join(", ")));
        }
        if let Some(h) = having {
            sql.push_str(&format!(" HAVING {h}"));
        }
        let mut out = BoundQuery { sql, columns, single_row, limited: false, assign, into: s.into.clone() };
        if !q.order.is_empty() {
            let mut keys = Vec::new();
            for o in &q.order {
                let bound = match self.output_column(o, &out)? {
                    Some((_, column)) => column.bound.clone(),
                    None => self.value(&o.expr, &scope)?,
                };
                if s.distinct && !out.columns.iter().any(|c| c.bound.sql == bound.sql) {
                    return Err(SqlError::new(
                        145,
                        15,
                        1,
                        "ORDER BY items must appear in the select list if SELECT DISTINCT is specified.",
                    ));
                }
                keys.push(format!("{}{}", self.order_key(&bound)?, if o.descending { " DESC" } else { "" }));
            }
            out.sql.push_str(&format!(" ORDER BY {}", keys.join(", ")));
        }
        self.limit(&mut out, s.top.as_ref(), q, parent)?;
        Ok(out)
    }

    fn limit(&mut self, out: &mut BoundQuery, top: Option<&Expr>, q: &Query, parent: Option<&Scope<'_>>) -> Result<()> {
        let scope = Scope { sources: Vec::new(), parent, grouped: None };
        let rows = |b: &mut Self, e: &Expr| -> Result<String> {
            let v = b.value(e, &scope)?;
            let v = b.cast(v, SqlType::of(Kind::BigInt), None, false);
            Ok(format!("t_top({})", v.sql))
        };
        if let Some(top) = top {
            if q.offset.is_some() {
                return Err(SqlError::new(
                    10741,
                    15,
                    2,
                    "A TOP can not be used in the same query or sub-query as a OFFSET.",
                ));
            }
            let n = rows(self, top)?;
            out.sql.push_str(&format!(" LIMIT {n}"));
            out.limited = true;
        }
        if let Some(offset) = &q.offset {
            let skip = rows(self, offset)?;
            let n = q.fetch.as_ref().map_or(Ok("-1".into()), |f| rows(self, f))?;
            out.sql.push_str(&format!(" LIMIT {n} OFFSET {skip}"));
            out.limited = true;
        }
        Ok(())
    }

    /// `*` and `t.*`
    pub fn star(&self, table: Option<&str>, scope: &Scope<'_>, out: &mut Vec<Offered>) -> Result<()> {
        let mut hit = false;
        for source in &scope.sources {
            if table.is_none_or(|t| source.name.eq_ignore_ascii_case(t)) {
                hit = true;
                for c in &source.columns {
                    if let Some(groups) = &scope.grouped
                        && !groups.contains(&c.bound.sql)
                    {
                        let text = format!(
                            "Column '{}.{}' is invalid in the select list because it is not contained in either an aggregate function or the GROUP BY clause.",
                            source.name, c.name
                        );
                        return Err(SqlError::new(8120, 16, 1, text));
                    }
                    out.push(c.clone());
                }
            }
        }
        match table {
            Some(t) if !hit => Err(SqlError::new(
                107,
                15,
                1,
                format!("The column prefix '{t}' does not match with a table name or alias name used in the query."),
            )),
            None if !hit => Err(SqlError::new(263, 16, 1, "Must specify table to select from.")),
            _ => Ok(()),
        }
    }
}

fn unequal() -> SqlError {
    let text = "All queries combined using a UNION, INTERSECT or EXCEPT operator must have an equal number of expressions in their target lists.";
    SqlError::new(205, 16, 1, text)
}

/// A column comes out under the name it was made with, not as the query wrote it.
fn stored_name(scope: &Scope<'_>, written: &str) -> String {
    scope
        .sources
        .iter()
        .flat_map(|s: &Source| &s.columns)
        .find(|c| c.name.eq_ignore_ascii_case(written))
        .map_or_else(|| written.to_owned(), |c| c.name.clone())
}

/// A column of a subquery as its outer query sees it.
pub fn exposed(column: &Offered, alias: &str, at: usize) -> Bound {
    Bound {
        sql: format!("{alias}.v{at}"),
        untyped: false,
        identity: false,
        column: false,
        hold: if column.bound.hold == Hold::Coercible { Hold::Implicit } else { column.bound.hold },
        ..column.bound.clone()
    }
}
