//! `SELECT`: "SELECT (Transact-SQL)", "FROM clause plus JOIN, APPLY, PIVOT", "TOP", "ORDER BY clause", "Table hints",
//! "CHANGETABLE (Transact-SQL)".

use super::ast::{Expr, Item, JoinKind, Name, Query, Select, SetExpr, TableRef};
use super::lexer::Kind;
use super::parser::Parser;
use crate::error::{Result, SqlError};

impl Parser<'_> {
    /// A query with everything that may stand before and behind it.
    pub fn query(&mut self) -> Result<Query> {
        self.deeper(|p| {
            let mut ctes = Vec::new();
            if p.word("with") {
                ctes = p.list(|p| {
                    let name = p.ident()?;
                    let columns = if p.is_op("(") { p.ident_list()? } else { Vec::new() };
                    p.expect_word("as")?;
                    p.expect("(")?;
                    let q = p.query()?;
                    p.expect(")")?;
                    Ok((name, columns, q))
                })?;
            }
            let body = p.set_expr()?;
            let mut out = Query { ctes, body, order: Vec::new(), offset: None, fetch: None };
            if p.words(&["order", "by"]) {
                out.order = p.list(Self::order_item)?;
                if p.word("offset") {
                    out.offset = Some(p.expr()?);
                    p.rows_word()?;
                    if p.word("fetch") {
                        if !p.word("next") {
                            p.expect_word("first")?;
                        }
                        out.fetch = Some(p.expr()?);
                        p.rows_word()?;
                        p.expect_word("only")?;
                    }
                }
            }
            if p.is("for") && !p.is_at(1, "update") {
                return Err(SqlError::unmodelled("FOR XML, FOR JSON and FOR BROWSE"));
            }
            if p.word("option") {
                p.query_options()?;
            }
            Ok(out)
        })
    }

    fn rows_word(&mut self) -> Result<()> {
        if self.word("rows") || self.word("row") { Ok(()) } else { Err(self.unexpected()) }
    }

    /// "Query hints": those that change no result are read and dropped.
    fn query_options(&mut self) -> Result<()> {
        self.expect("(")?;
        self.list(|p| {
            if p.word("recompile") {
                return Ok(());
            }
            if p.word("maxdop") || p.word("fast") {
                return p.integer().map(drop);
            }
            if p.words(&["force", "order"]) || p.words(&["optimize", "for", "unknown"]) || p.words(&["loop", "join"]) {
                return Ok(());
            }
            Err(SqlError::unmodelled("this query hint"))
        })?;
        self.expect(")")
    }

    fn set_expr(&mut self) -> Result<SetExpr> {
        let mut left = self.set_term()?;
        loop {
            let op = if self.word("union") {
                if self.word("all") { "UNION ALL" } else { "UNION" }
            } else if self.word("except") {
                "EXCEPT"
            } else {
                return Ok(left);
            };
            left = SetExpr::Op(Box::new(left), op, Box::new(self.set_term()?));
        }
    }

    /// INTERSECT binds more tightly than UNION and EXCEPT.
    fn set_term(&mut self) -> Result<SetExpr> {
        let mut left = self.set_primary()?;
        while self.word("intersect") {
            left = SetExpr::Op(Box::new(left), "INTERSECT", Box::new(self.set_primary()?));
        }
        Ok(left)
    }

    fn set_primary(&mut self) -> Result<SetExpr> {
        if self.op("(") {
            let q = self.query()?;
            self.expect(")")?;
            return Ok(SetExpr::Nested(Box::new(q)));
        }
        if self.word("values") {
            return Ok(SetExpr::Values(self.rows()?));
        }
        self.expect_word("select")?;
        self.select().map(|s| SetExpr::Select(Box::new(s)))
    }

    /// `(a, b), (c, d)`
    pub fn rows(&mut self) -> Result<Vec<Vec<Expr>>> {
        self.list(|p| {
            p.expect("(")?;
            let row = p.list(Self::expr)?;
            p.expect(")")?;
            Ok(row)
        })
    }

    /// `TOP n` or `TOP (n)`
    pub fn top(&mut self) -> Result<Option<Expr>> {
        if !self.word("top") {
            return Ok(None);
        }
        let top = if self.op("(") {
            let e = self.expr()?;
            self.expect(")")?;
            e
        } else {
            Expr::Int(self.integer()?.to_string())
        };
        if self.is("percent") {
            return Err(SqlError::unmodelled("TOP … PERCENT"));
        }
        if self.is("with") && self.is_at(1, "ties") {
            return Err(SqlError::unmodelled("TOP … WITH TIES"));
        }
        Ok(Some(top))
    }

    fn select(&mut self) -> Result<Select> {
        let mut s = Select::default();
        if self.word("distinct") {
            s.distinct = true;
        } else {
            self.word("all");
        }
        s.top = self.top()?;
        s.items = self.list(Self::item)?;
        if self.word("into") {
            s.into = Some(self.name()?);
        }
        if self.word("from") {
            s.from = self.list(Self::table_ref)?;
        }
        if self.word("where") {
            s.filter = Some(self.condition()?);
        }
        if self.words(&["group", "by"]) {
            s.group = self.list(Self::expr)?;
            if self.is("with") {
                return Err(SqlError::unmodelled("GROUP BY … WITH CUBE or ROLLUP"));
            }
        }
        if self.word("having") {
            s.having = Some(self.condition()?);
        }
        Ok(s)
    }

    /// One column of a select list or of an OUTPUT clause.
    pub fn item(&mut self) -> Result<Item> {
        if self.op("*") {
            return Ok(Item::Star(None));
        }
        // `t.*`
        if matches!(self.peek(), Kind::Word(_) | Kind::Quoted(_)) && *self.peek_at(1) == Kind::Op(".") {
            let mark = self.mark();
            let mut parts = vec![self.ident()?];
            while self.op(".") {
                if self.op("*") {
                    return Ok(Item::Star(parts.pop()));
                }
                match self.next() {
                    Kind::Word(w) | Kind::Quoted(w) => parts.push(w),
                    _ => break,
                }
            }
            self.reset(mark);
        }
        // `@x = expr` and `alias = expr`
        if *self.peek_at(1) == Kind::Op("=") {
            let mark = self.mark();
            if let Some(v) = self.variable() {
                self.next();
                return Ok(Item::Assign(v, self.expr()?));
            }
            if let Ok(alias) = self.ident() {
                self.next();
                return Ok(Item::Expr(self.expr()?, Some(alias)));
            }
            self.reset(mark);
        }
        let e = self.expr()?;
        let alias = match self.peek().clone() {
            Kind::Str(s, _) => {
                self.next();
                Some(s)
            }
            _ => self.alias()?,
        };
        Ok(Item::Expr(e, alias))
    }

    /// A table with its joins.
    pub fn table_ref(&mut self) -> Result<TableRef> {
        self.deeper(|p| {
            let mut left = p.table_primary()?;
            loop {
                let kind = if p.words(&["cross", "join"]) {
                    JoinKind::Cross
                } else if p.is("cross") || (p.is("outer") && p.is_at(1, "apply")) {
                    return Err(SqlError::unmodelled("CROSS APPLY and OUTER APPLY"));
                } else if p.word("join") || p.words(&["inner", "join"]) {
                    JoinKind::Inner
                } else if p.words(&["left", "join"]) || p.words(&["left", "outer", "join"]) {
                    JoinKind::Left
                } else if p.words(&["right", "join"]) || p.words(&["right", "outer", "join"]) {
                    JoinKind::Right
                } else if p.words(&["full", "join"]) || p.words(&["full", "outer", "join"]) {
                    JoinKind::Full
                } else {
                    return Ok(left);
                };
                // Joins nest: `a JOIN b JOIN c ON … ON …`.
                let mut right = p.table_primary()?;
                if kind != JoinKind::Cross && !p.is("on") {
                    right = p.join_tail(right)?;
                }
                let on = if kind == JoinKind::Cross {
                    None
                } else {
                    p.expect_word("on")?;
                    Some(p.condition()?)
                };
                left = TableRef::Join { left: Box::new(left), right: Box::new(right), kind, on };
            }
        })
    }

    fn join_tail(&mut self, left: TableRef) -> Result<TableRef> {
        let kind = if self.word("join") || self.words(&["inner", "join"]) {
            JoinKind::Inner
        } else if self.words(&["left", "join"]) || self.words(&["left", "outer", "join"]) {
            JoinKind::Left
        } else {
            return Err(self.unexpected());
        };
        let right = self.table_primary()?;
        self.expect_word("on")?;
        let on = Some(self.condition()?);
        Ok(TableRef::Join { left: Box::new(left), right: Box::new(right), kind, on })
    }

    fn table_primary(&mut self) -> Result<TableRef> {
        if self.op("(") {
            if self.is("select") || self.is("with") || self.is("values") {
                let query = Box::new(self.query()?);
                self.expect(")")?;
                let alias = self.alias()?.ok_or_else(|| self.unexpected())?;
                let columns = if self.is_op("(") { self.ident_list()? } else { Vec::new() };
                return Ok(TableRef::Derived { query, alias, columns });
            }
            let inner = self.table_ref()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.is("changetable") && *self.peek_at(1) == Kind::Op("(") {
            return self.change_table();
        }
        if matches!(self.peek(), Kind::Word(w) if w.starts_with('@')) {
            return Err(SqlError::unmodelled("table variables"));
        }
        let name = self.name()?;
        if self.is_op("(") {
            self.expect("(")?;
            let args = if self.is_op(")") { Vec::new() } else { self.list(Self::expr)? };
            self.expect(")")?;
            if self.is("with") {
                return Err(SqlError::unmodelled("a rowset function with a schema"));
            }
            return Ok(TableRef::Function { name, args, alias: self.alias()? });
        }
        let alias = self.alias()?;
        Ok(TableRef::Named { name, alias, hints: self.hints()? })
    }

    /// `WITH (NOLOCK, …)`
    pub fn hints(&mut self) -> Result<Vec<String>> {
        let with = self.is("with") && *self.peek_at(1) == Kind::Op("(");
        let bare = self.is_op("(") && matches!(self.peek_at(1), Kind::Word(w) if w.eq_ignore_ascii_case("nolock"));
        if !with && !bare {
            return Ok(Vec::new());
        }
        self.word("with");
        self.expect("(")?;
        let hints = self.list(|p| match p.next() {
            Kind::Word(w) => Ok(w.to_ascii_lowercase()),
            _ => Err(p.unexpected()),
        })?;
        self.expect(")")?;
        const KNOWN: [&str; 13] = [
            "nolock",
            "readuncommitted",
            "readcommitted",
            "holdlock",
            "serializable",
            "repeatableread",
            "updlock",
            "rowlock",
            "tablock",
            "tablockx",
            "xlock",
            "paglock",
            "readcommittedlock",
        ];
        match hints.iter().find(|h| !KNOWN.contains(&h.as_str())) {
            Some(h) => Err(SqlError::unmodelled(format!("the table hint {h}"))),
            None => Ok(hints),
        }
    }

    fn change_table(&mut self) -> Result<TableRef> {
        self.next();
        self.expect("(")?;
        if self.word("changes") {
            let table = self.name()?;
            self.expect(",")?;
            let version = self.expr()?;
            self.expect(")")?;
            let alias = self.alias()?.ok_or_else(|| self.unexpected())?;
            return Ok(TableRef::Changes { table, version, alias });
        }
        self.expect_word("version")?;
        let table: Name = self.name()?;
        self.expect(",")?;
        let columns = self.ident_list()?;
        self.expect(",")?;
        self.expect("(")?;
        let values = self.list(Self::expr)?;
        self.expect(")")?;
        self.expect(")")?;
        let alias = self.alias()?.ok_or_else(|| self.unexpected())?;
        Ok(TableRef::Version { table, columns, values, alias })
    }
}
