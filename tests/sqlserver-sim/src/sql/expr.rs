//! Expressions and conditions: "Expressions (Transact-SQL)", "Search condition (Transact-SQL)", "Operator precedence".

use super::ast::{Call, Expr, OrderItem, Over};
use super::lexer::Kind;
use super::parser::{Parser, reserved};
use crate::error::{Result, SqlError};

impl Parser<'_> {
    /// A value, or a condition where one may stand; the engine tells them apart.
    pub fn condition(&mut self) -> Result<Expr> {
        self.deeper(|p| {
            let mut left = p.conjunction()?;
            while p.word("or") {
                left = Expr::Or(Box::new(left), Box::new(p.conjunction()?));
            }
            Ok(left)
        })
    }

    fn conjunction(&mut self) -> Result<Expr> {
        let mut left = self.negation()?;
        while self.word("and") {
            left = Expr::And(Box::new(left), Box::new(self.negation()?));
        }
        Ok(left)
    }

    fn negation(&mut self) -> Result<Expr> {
        if self.word("not") {
            return self.deeper(|p| Ok(Expr::Not(Box::new(p.negation()?))));
        }
        self.predicate()
    }

    fn predicate(&mut self) -> Result<Expr> {
        if self.is("exists") {
            self.next();
            self.expect("(")?;
            let q = self.query()?;
            self.expect(")")?;
            return Ok(Expr::Exists(Box::new(q)));
        }
        let left = self.expr()?;
        self.predicate_tail(left)
    }

    fn predicate_tail(&mut self, left: Expr) -> Result<Expr> {
        if self.word("is") {
            let negated = self.word("not");
            self.expect_word("null")?;
            return Ok(Expr::IsNull(Box::new(left), negated));
        }
        let negated = self.word("not");
        if self.word("between") {
            let low = self.expr()?;
            self.expect_word("and")?;
            let high = self.expr()?;
            return Ok(Expr::Between(Box::new(left), Box::new(low), Box::new(high), negated));
        }
        if self.word("like") {
            let pattern = Box::new(self.expr()?);
            let escape = if self.word("escape") { Some(Box::new(self.expr()?)) } else { None };
            return Ok(Expr::Like { value: Box::new(left), pattern, escape, negated });
        }
        if self.word("in") {
            self.expect("(")?;
            if self.is("select") || self.is("with") {
                let q = self.query()?;
                self.expect(")")?;
                return Ok(Expr::InQuery(Box::new(left), Box::new(q), negated));
            }
            let list = self.list(Self::expr)?;
            self.expect(")")?;
            return Ok(Expr::InList(Box::new(left), list, negated));
        }
        if negated {
            return Err(self.unexpected());
        }
        for (op, meaning) in [
            ("=", "="),
            ("<>", "<>"),
            ("!=", "<>"),
            ("<=", "<="),
            (">=", ">="),
            ("!<", ">="),
            ("!>", "<="),
            ("<", "<"),
            (">", ">"),
        ] {
            if self.op(op) {
                if self.is("any") || self.is("some") || self.is("all") {
                    return Err(SqlError::unmodelled("ANY, SOME and ALL"));
                }
                return Ok(Expr::Compare(meaning, Box::new(left), Box::new(self.expr()?)));
            }
        }
        Ok(left)
    }

    /// A value: `& | ^ + -`, then `* / %`, then the unary operators.
    pub fn expr(&mut self) -> Result<Expr> {
        self.deeper(|p| {
            let mut left = p.term()?;
            loop {
                let op = ["+", "-", "&", "|", "^"].into_iter().find(|op| p.is_op(op));
                let Some(op) = op else { return Ok(left) };
                p.next();
                left = Expr::Arith(op, Box::new(left), Box::new(p.term()?));
            }
        })
    }

    fn term(&mut self) -> Result<Expr> {
        let mut left = self.unary()?;
        loop {
            let op = ["*", "/", "%"].into_iter().find(|op| self.is_op(op));
            let Some(op) = op else { return Ok(left) };
            self.next();
            left = Expr::Arith(op, Box::new(left), Box::new(self.unary()?));
        }
    }

    fn unary(&mut self) -> Result<Expr> {
        if self.op("-") {
            return self.deeper(|p| Ok(Expr::Negative(Box::new(p.unary()?))));
        }
        if self.op("+") {
            return self.deeper(Self::unary);
        }
        if self.op("~") {
            return self.deeper(|p| Ok(Expr::BitNot(Box::new(p.unary()?))));
        }
        let mut e = self.primary()?;
        loop {
            if self.word("collate") {
                e = Expr::Collate(Box::new(e), self.ident()?);
            } else if self.is_op(".") && !matches!(e, Expr::Column(_)) {
                self.next();
                let name = self.ident()?;
                let args = self.arguments()?;
                e = Expr::Method(Box::new(e), name, args);
            } else {
                return Ok(e);
            }
        }
    }

    fn arguments(&mut self) -> Result<Vec<Expr>> {
        self.expect("(")?;
        if self.op(")") {
            return Ok(Vec::new());
        }
        let args = self.list(Self::expr)?;
        self.expect(")")?;
        Ok(args)
    }

    fn primary(&mut self) -> Result<Expr> {
        match self.peek().clone() {
            Kind::Number(n) => {
                self.next();
                Ok(if n.contains(['e', 'E']) {
                    Expr::Float(n)
                } else if n.contains('.') {
                    Expr::Exact(n)
                } else {
                    Expr::Int(n)
                })
            }
            Kind::Str(s, national) => {
                self.next();
                Ok(Expr::Str(s, national))
            }
            Kind::Hex(b) => {
                self.next();
                Ok(Expr::Hex(b))
            }
            Kind::Op("(") => {
                self.next();
                if self.is("select") || self.is("with") {
                    let q = self.query()?;
                    self.expect(")")?;
                    return Ok(Expr::Scalar(Box::new(q)));
                }
                let e = self.condition()?;
                self.expect(")")?;
                Ok(e)
            }
            Kind::Op("%%") => Err(SqlError::unmodelled("%%physloc%% and the other virtual columns")),
            Kind::Word(w) if w.starts_with("@@") => {
                self.next();
                Ok(Expr::Global(w))
            }
            Kind::Word(w) if w.starts_with('@') => {
                self.next();
                Ok(Expr::Var(w))
            }
            Kind::Word(w) if *self.peek_at(1) == Kind::Op("::") => {
                self.next();
                self.next();
                let name = self.ident()?;
                Ok(Expr::Static(w, name, self.arguments()?))
            }
            Kind::Word(w) => self.word_expr(&w.to_ascii_lowercase()),
            Kind::Quoted(_) => self.column_or_call(),
            _ => Err(self.unexpected()),
        }
    }

    fn word_expr(&mut self, lower: &str) -> Result<Expr> {
        let call_follows = *self.peek_at(1) == Kind::Op("(");
        match lower {
            "null" => {
                self.next();
                Ok(Expr::Null)
            }
            "default" => {
                self.next();
                Ok(Expr::Default)
            }
            "case" => {
                self.next();
                self.case()
            }
            "cast" | "try_cast" if call_follows => {
                self.next();
                self.expect("(")?;
                let expr = Box::new(self.expr()?);
                self.expect_word("as")?;
                let ty = self.type_name()?;
                self.expect(")")?;
                Ok(Expr::Cast { expr, ty, style: None, lenient: lower.starts_with("try") })
            }
            "convert" | "try_convert" if call_follows => {
                self.next();
                self.expect("(")?;
                let ty = self.type_name()?;
                self.expect(",")?;
                let expr = Box::new(self.expr()?);
                let style = if self.op(",") { Some(Box::new(self.expr()?)) } else { None };
                self.expect(")")?;
                Ok(Expr::Cast { expr, ty, style, lenient: lower.starts_with("try") })
            }
            "current_timestamp" | "current_user" | "session_user" | "system_user" | "user" if !call_follows => {
                self.next();
                Ok(Expr::Call(Call {
                    name: vec![lower.into()],
                    args: Vec::new(),
                    star: false,
                    distinct: false,
                    over: None,
                }))
            }
            // LEFT and RIGHT are functions as well as kinds of joins.
            "left" | "right" if call_follows => {
                self.next();
                let args = self.arguments()?;
                Ok(Expr::Call(Call { name: vec![lower.into()], args, star: false, distinct: false, over: None }))
            }
            _ if reserved(lower) => Err(self.unexpected()),
            _ => self.column_or_call(),
        }
    }

    fn column_or_call(&mut self) -> Result<Expr> {
        let mut name = self.name()?;
        if !self.is_op("(") {
            return Ok(Expr::Column(name));
        }
        // `t.col.ToString()`: a method of a column has a name that no function of a schema has.
        let last = name.last().map(|l| l.to_ascii_lowercase()).unwrap_or_default();
        if name.len() > 1 && ["tostring", "stastext", "stasbinary"].contains(&last.as_str()) {
            let method = name.pop().unwrap_or_default();
            let args = self.arguments()?;
            return Ok(Expr::Method(Box::new(Expr::Column(name)), method, args));
        }
        self.expect("(")?;
        let mut call = Call { name, args: Vec::new(), star: false, distinct: false, over: None };
        if self.op("*") {
            call.star = true;
        } else if !self.is_op(")") {
            call.distinct = self.word("distinct");
            let condition_first = call.name.len() == 1 && call.name[0].eq_ignore_ascii_case("iif");
            call.args = self.list(|p| if condition_first { p.condition() } else { p.expr() })?;
        }
        self.expect(")")?;
        if self.is("within") {
            return Err(SqlError::unmodelled("WITHIN GROUP"));
        }
        if self.word("over") {
            self.expect("(")?;
            let partition = if self.words(&["partition", "by"]) { self.list(Self::expr)? } else { Vec::new() };
            let order = if self.words(&["order", "by"]) { self.list(Self::order_item)? } else { Vec::new() };
            if !self.is_op(")") {
                return Err(SqlError::unmodelled("window frames"));
            }
            self.expect(")")?;
            call.over = Some(Over { partition, order });
        }
        Ok(Expr::Call(call))
    }

    fn case(&mut self) -> Result<Expr> {
        let operand = if self.is("when") { None } else { Some(Box::new(self.expr()?)) };
        let mut whens = Vec::new();
        while self.word("when") {
            let when = if operand.is_some() { self.expr()? } else { self.condition()? };
            self.expect_word("then")?;
            whens.push((when, self.expr()?));
        }
        let otherwise = if self.word("else") { Some(Box::new(self.expr()?)) } else { None };
        self.expect_word("end")?;
        Ok(Expr::Case { operand, whens, otherwise })
    }

    /// `expr [ASC|DESC]`
    pub fn order_item(&mut self) -> Result<OrderItem> {
        let expr = self.expr()?;
        let descending = self.word("desc");
        if !descending {
            self.word("asc");
        }
        Ok(OrderItem { expr, descending })
    }
}
