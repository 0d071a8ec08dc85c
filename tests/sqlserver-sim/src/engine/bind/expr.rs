//! Binding of values and conditions.

use super::{Binder, Bound, Hold, Scope, Slot, as_numeric};
use crate::engine::views::literal;
use crate::error::{Result, SqlError};
use crate::sql::ast::{Expr, Query};
use crate::types::collation::Collation;
use crate::types::convert::convert;
use crate::types::{Kind, MAX, SqlType, decimal};
use rusqlite::types::Value;

impl Binder<'_> {
    /// Binds a value.
    pub fn value(&mut self, e: &Expr, scope: &Scope<'_>) -> Result<Bound> {
        // In a grouped query, an expression of GROUP BY stands for itself; below an aggregate everything goes.
        if let Some(groups) = &scope.grouped
            && !matches!(e, Expr::Int(_) | Expr::Str(..) | Expr::Var(_) | Expr::Null)
        {
            let free = Scope { sources: scope.sources.clone(), parent: scope.parent, grouped: None };
            if !contains_aggregate(e) && !matches!(e, Expr::Scalar(_)) {
                let b = self.value(e, &free)?;
                if groups.contains(&b.sql) {
                    return Ok(b);
                }
            }
        }
        match e {
            Expr::Null => Ok(Bound::null()),
            Expr::Default => Err(SqlError::syntax("DEFAULT")),
            Expr::Int(n) => Ok(integer(n)?.not_null()),
            Expr::Exact(n) => {
                let (v, scale) = decimal::parse(n).ok_or_else(|| {
                    SqlError::new(
                        1007,
                        15,
                        1,
                        format!(
                            "The number '{n}' is out of the range for numeric representation (maximum precision 38)."
                        ),
                    )
                })?;
                let whole = n.split('.').next().unwrap_or("").trim_start_matches('0').len() as u8;
                Ok(Bound::new(
                    literal(&Value::Blob(decimal::to_bytes(v))),
                    SqlType::numeric((whole + scale).max(1), scale),
                )
                .not_null())
            }
            Expr::Float(n) => {
                let v: f64 = n.parse().map_err(|_| SqlError::syntax(n))?;
                Ok(Bound::new(literal(&Value::Real(v)), SqlType::of(Kind::Float)).not_null())
            }
            Expr::Str(s, national) => {
                let collation = self.session.db.collation;
                let kind = if *national { Kind::NVarChar } else { Kind::VarChar };
                let text = if *national { s.clone() } else { collation.through_page(s) };
                let length = if *national { text.encode_utf16().count() } else { collation.encode(&text).len() };
                let ty = SqlType::sized(kind, length).collate(collation);
                // Text with NUL bytes cannot be a literal of SQLite.
                let sql = if text.contains('\0') {
                    format!("CAST(x'{}' AS TEXT)", crate::types::format::hex(text.as_bytes()))
                } else {
                    literal(&Value::Text(text))
                };
                Ok(Bound::new(sql, ty).not_null())
            }
            Expr::Hex(b) => {
                Ok(Bound::new(literal(&Value::Blob(b.clone())), SqlType::sized(Kind::VarBinary, b.len())).not_null())
            }
            Expr::Var(name) => self.variable(name),
            Expr::Global(name) => self.global(name),
            Expr::Column(parts) => self.column(parts, scope),
            Expr::Call(call) => self.call(call, scope),
            Expr::Method(target, name, args) => self.method(target, name, args, scope),
            Expr::Static(ty, name, args) => self.static_method(ty, name, args, scope),
            Expr::Cast { expr, ty, style, lenient } => {
                let ty = SqlType::declared(&ty.name, &ty.args, true)?;
                let b = self.value(expr, scope)?;
                let ty = ty.collate(if b.ty.has_collation() { b.ty.collation } else { self.session.db.collation });
                let style = style.as_ref().map(|s| self.value(s, scope)).transpose()?;
                Ok(self.cast(b, ty, style, *lenient))
            }
            Expr::Negative(e) => {
                if let Expr::Int(n) = &**e {
                    return Ok(integer(&format!("-{n}"))?.not_null());
                }
                let b = self.value(e, scope)?;
                let zero = self.implicit(
                    Bound::new("0", SqlType::of(Kind::TinyInt)).not_null(),
                    if b.ty.is_number() { b.ty } else { SqlType::of(Kind::Int) },
                )?;
                self.arith("-", zero, b)
            }
            Expr::BitNot(e) => {
                let b = self.value(e, scope)?;
                if !b.ty.is_integer() {
                    return Err(SqlError::incompatible(b.ty.name(), b.ty.name(), "'~'"));
                }
                let sql = if b.ty.kind == Kind::Bit { format!("(1 - {})", b.sql) } else { format!("(~{})", b.sql) };
                Ok(Bound { sql, column: false, identity: false, ..b })
            }
            Expr::Arith(op, l, r) => {
                let (l, r) = (self.value(l, scope)?, self.value(r, scope)?);
                self.arith(op, l, r)
            }
            Expr::Case { operand, whens, otherwise } => {
                self.case(operand.as_deref(), whens, otherwise.as_deref(), scope)
            }
            Expr::Scalar(q) => self.scalar(q, scope),
            Expr::Collate(e, name) => {
                let b = self.value(e, scope)?;
                let collation = if name.eq_ignore_ascii_case("database_default") {
                    Some(self.session.db.collation)
                } else {
                    Collation::named(name)
                };
                let collation =
                    collation.ok_or_else(|| SqlError::new(448, 16, 3, format!("Invalid collation '{name}'.")))?;
                if !b.ty.has_collation() {
                    return Err(SqlError::new(
                        447,
                        16,
                        2,
                        format!("Expression type {} is invalid for COLLATE clause.", b.ty.name()),
                    ));
                }
                let ty = b.ty.collate(collation);
                Ok(Bound { hold: Hold::Explicit, ..self.cast(b, ty, None, false) })
            }
            Expr::Compare(..)
            | Expr::And(..)
            | Expr::Or(..)
            | Expr::Not(_)
            | Expr::IsNull(..)
            | Expr::Between(..)
            | Expr::InList(..)
            | Expr::InQuery(..)
            | Expr::Like { .. }
            | Expr::Exists(_) => {
                Err(SqlError::new(102, 15, 1, "Incorrect syntax: a condition stands where a value is expected."))
            }
        }
    }

    fn variable(&mut self, name: &str) -> Result<Bound> {
        if self.kept {
            return Err(SqlError::new(137, 15, 2, format!("Must declare the scalar variable \"{name}\".")));
        }
        let Some((ty, _)) = self.session.variable(name) else {
            return Err(SqlError::new(137, 15, 2, format!("Must declare the scalar variable \"{name}\".")));
        };
        let known = |s: &Slot| matches!(s, Slot::Variable(n) if n.eq_ignore_ascii_case(name));
        let at = match self.slots.iter().position(known) {
            Some(at) => at,
            None => {
                self.slots.push(Slot::Variable(name.into()));
                self.slots.len() - 1
            }
        };
        Ok(Bound::new(format!("?{}", at + 1), *ty))
    }

    /// The value of a literal, if that is all an expression is.
    pub fn literal_value(&self, e: &Expr) -> Option<Value> {
        Some(match e {
            Expr::Int(n) => Value::Integer(n.parse::<i32>().ok()?.into()),
            Expr::Negative(e) => match &**e {
                Expr::Int(n) => Value::Integer((-n.parse::<i64>().ok()?).try_into().map(|v: i32| v.into()).ok()?),
                _ => return None,
            },
            Expr::Exact(n) => Value::Blob(decimal::to_bytes(decimal::parse(n)?.0)),
            Expr::Float(n) => Value::Real(n.parse().ok()?),
            Expr::Str(s, true) => Value::Text(s.clone()),
            Expr::Str(s, false) => Value::Text(self.session.db.collation.through_page(s)),
            Expr::Hex(b) => Value::Blob(b.clone()),
            _ => return None,
        })
    }

    /// Finds a column: 207, 209 (ambiguous), 4104 (unknown prefix), 8120 (not grouped).
    pub fn column(&mut self, parts: &[String], scope: &Scope<'_>) -> Result<Bound> {
        let (prefix, name) = match parts {
            [n] => (None, n),
            [t, n] => (Some((None, t)), n),
            [s, t, n] => (Some((Some(s), t)), n),
            [_, s, t, n] => (Some((Some(s), t)), n),
            _ => return Err(SqlError::column(&parts.join("."))),
        };
        let mut at = Some(scope);
        let mut known_prefix = false;
        while let Some(s) = at {
            let mut hits = Vec::new();
            for source in &s.sources {
                if let Some((schema, table)) = &prefix {
                    let fits = source.name.eq_ignore_ascii_case(table)
                        && schema.is_none_or(|x| {
                            x.is_empty() || source.schema.as_ref().is_some_and(|y| y.eq_ignore_ascii_case(x))
                        });
                    if !fits {
                        continue;
                    }
                    known_prefix = true;
                }
                hits.extend(source.columns.iter().filter(|c| c.name.eq_ignore_ascii_case(name)));
            }
            match hits[..] {
                [] => {}
                [one] => {
                    if let Some(groups) = &s.grouped
                        && !groups.contains(&one.bound.sql)
                    {
                        let text = format!(
                            "Column '{}' is invalid in the select list because it is not contained in either an aggregate function or the GROUP BY clause.",
                            parts.join(".")
                        );
                        return Err(SqlError::new(8120, 16, 1, text));
                    }
                    return Ok(one.bound.clone());
                }
                _ => return Err(SqlError::new(209, 16, 1, format!("Ambiguous column name '{name}'."))),
            }
            if known_prefix {
                return Err(SqlError::column(name));
            }
            at = s.parent;
        }
        Err(match prefix {
            Some(_) => SqlError::new(
                4104,
                16,
                1,
                format!("The multi-part identifier \"{}\" could not be bound.", parts.join(".")),
            ),
            None => SqlError::column(name),
        })
    }

    /// `+ - * / % & | ^`: "Arithmetic operators", "String concatenation", "Precision, scale, and length".
    pub fn arith(&self, op: &str, l: Bound, r: Bound) -> Result<Bound> {
        use Kind::{DateTime, Decimal, Float, Money, Numeric, Real, SmallDateTime, SmallMoney};
        let incompatible = || {
            let word = match op {
                "+" => "add",
                "-" => "subtract",
                "*" => "multiply",
                "/" => "divide",
                "%" => "modulo",
                other => other,
            };
            SqlError::incompatible(l.ty.name(), r.ty.name(), word)
        };
        let nullable = l.nullable || r.nullable;
        let finish = |sql: String, ty: SqlType| Ok(Bound { nullable, ..Bound::new(sql, ty) });
        let (l, r) = match (l.untyped, r.untyped) {
            (true, _) => (Bound { ty: r.ty, ..l.clone() }, r.clone()),
            (_, true) => (l.clone(), Bound { ty: l.ty, ..r.clone() }),
            _ => (l.clone(), r.clone()),
        };
        if op == "+" && (l.ty.is_char() && r.ty.is_char()) {
            let mut ty = self.common(&l, &r, "add")?;
            let wide = matches!(ty.kind, Kind::NChar | Kind::NVarChar);
            ty.kind = if wide { Kind::NVarChar } else { Kind::VarChar };
            let limit = if wide { 4000 } else { 8000 };
            ty.len = if l.ty.len == MAX || r.ty.len == MAX { MAX } else { (l.ty.len + r.ty.len).min(limit) };
            let hold = l.hold.max(r.hold);
            return Ok(Bound { hold, nullable, ..Bound::new(format!("({} || {})", l.sql, r.sql), ty) });
        }
        if op == "+" && l.ty.is_binary() && r.ty.is_binary() {
            let len = usize::from(l.ty.len) + usize::from(r.ty.len);
            return finish(format!("t_catb({}, {})", l.sql, r.sql), SqlType::sized(Kind::VarBinary, len));
        }
        let dated = |b: &Bound| matches!(b.ty.kind, DateTime | SmallDateTime);
        if (dated(&l) || dated(&r)) && matches!(op, "+" | "-") {
            let ty = SqlType::of(if l.ty.kind == DateTime || r.ty.kind == DateTime { DateTime } else { SmallDateTime });
            let (l, r) = (self.implicit(l, ty)?, self.implicit(r, ty)?);
            return finish(format!("t_dtarith('{op}', {}, {})", l.sql, r.sql), ty);
        }
        let bits = matches!(op, "&" | "|" | "^") && (l.ty.is_integer() || r.ty.is_integer());
        let counts = |b: &Bound| b.ty.is_number() || b.ty.is_char();
        if !bits && (!counts(&l) || !counts(&r)) {
            return Err(incompatible());
        }
        if !bits && !l.ty.is_number() && !r.ty.is_number() {
            return Err(incompatible());
        }
        // Text next to a number is converted to the number.
        let (l, r) = if l.ty.is_char() {
            let l = self.implicit(l, r.ty)?;
            (l, r)
        } else if r.ty.is_char() {
            let r = self.implicit(r, l.ty)?;
            (l, r)
        } else {
            (l, r)
        };
        if matches!(op, "&" | "|" | "^") {
            // One side may be binary; it is taken as a number of the other side's type.
            let (l, r) = match (l.ty.is_integer(), r.ty.is_integer()) {
                (true, false) if r.ty.is_binary() => (l.clone(), self.implicit(r, l.ty)?),
                (false, true) if l.ty.is_binary() => (self.implicit(l, r.ty)?, r),
                _ => (l, r),
            };
            if !l.ty.is_integer() || !r.ty.is_integer() {
                return Err(incompatible());
            }
            let ty = if l.ty.precedence() >= r.ty.precedence() { l.ty } else { r.ty };
            let (a, b) = (&l.sql, &r.sql);
            let sql = if op == "^" { format!("(({a} | {b}) - ({a} & {b}))") } else { format!("({a} {op} {b})") };
            return finish(sql, ty);
        }
        let high = if l.ty.precedence() >= r.ty.precedence() { l.ty } else { r.ty };
        match high.kind {
            Float | Real if op == "%" => Err(incompatible()),
            Float | Real | Money | SmallMoney => {
                let (l, r) = (self.implicit(l, high)?, self.implicit(r, high)?);
                finish(format!("t_arith('{op}', {}, {}, {})", l.sql, r.sql, high.code()), high)
            }
            Decimal | Numeric => {
                let (lt, rt) = (digits(&l), digits(&r));
                let (l, r) = (self.implicit(l, lt)?, self.implicit(r, rt)?);
                let ty = SqlType { kind: high.kind, ..decimal_result(op, lt, rt) };
                finish(format!("t_dec('{op}', {}, {}, {}, {}, {})", l.sql, r.sql, lt.code(), rt.code(), ty.code()), ty)
            }
            _ => {
                // bit counts as int.
                let ty = if high.kind == Kind::Bit { SqlType::of(Kind::Int) } else { high };
                finish(format!("t_arith('{op}', {}, {}, {})", l.sql, r.sql, ty.code()), ty)
            }
        }
    }

    fn case(
        &mut self,
        operand: Option<&Expr>,
        whens: &[(Expr, Expr)],
        otherwise: Option<&Expr>,
        scope: &Scope<'_>,
    ) -> Result<Bound> {
        let mut conditions = Vec::new();
        let mut values = Vec::new();
        for (when, then) in whens {
            conditions.push(match operand {
                Some(o) => self.condition(&Expr::Compare("=", Box::new(o.clone()), Box::new(when.clone())), scope)?,
                None => self.condition(when, scope)?,
            });
            values.push(self.value(then, scope)?);
        }
        let has_else = otherwise.is_some();
        values.push(otherwise.map_or(Ok(Bound::null()), |e| self.value(e, scope))?);
        let (values, ty, hold) = self.same_type(values)?;
        let mut sql = String::from("CASE");
        for (c, v) in conditions.iter().zip(&values) {
            sql.push_str(&format!(" WHEN {c} THEN {}", v.sql));
        }
        sql.push_str(&format!(" ELSE {} END", values[values.len() - 1].sql));
        let nullable = !has_else || values.iter().any(|v| v.nullable);
        Ok(Bound { nullable, hold, ..Bound::new(format!("({sql})"), ty) })
    }

    /// Brings several values to the type of the highest precedence.
    pub fn same_type(&self, values: Vec<Bound>) -> Result<(Vec<Bound>, SqlType, Hold)> {
        let mut result: Option<Bound> = None;
        for v in &values {
            result = Some(match result {
                None => v.clone(),
                Some(r) => {
                    let ty = self.common(&r, v, "CASE")?;
                    Bound { untyped: r.untyped && v.untyped, hold: r.hold.max(v.hold), ty, ..r }
                }
            });
        }
        let Some(result) = result else { return Ok((values, SqlType::of(Kind::Int), Hold::Coercible)) };
        let values = values.into_iter().map(|v| self.implicit(v, result.ty)).collect::<Result<_>>()?;
        Ok((values, result.ty, result.hold))
    }

    /// A query that stands for one value; 116 if it has more columns, 512 if it has more rows.
    fn scalar(&mut self, q: &Query, scope: &Scope<'_>) -> Result<Bound> {
        let bound = self.query(q, Some(scope))?;
        let [column] = &bound.columns[..] else {
            return Err(SqlError::new(
                116,
                16,
                1,
                "Only one expression can be specified in the select list when the subquery is not introduced with EXISTS.",
            ));
        };
        let ty = column.bound.ty;
        let many = "t_fail(512, 16, 1, 'Subquery returned more than 1 value. This is not permitted when the subquery follows =, !=, <, <= , >, >= or when the subquery is used as an expression.')";
        // An aggregate has one row by nature; everything else is counted as it is read.
        let sql = if bound.single_row {
            format!("({})", bound.sql)
        } else {
            format!(
                "(SELECT CASE WHEN count(*) > 1 THEN {many} ELSE max(v1) END FROM ({} LIMIT 2))",
                strip_limit(&bound.sql, bound.limited)
            )
        };
        Ok(Bound { hold: Hold::Implicit, ..Bound::new(sql, ty) })
    }

    /// Binds a condition.
    pub fn condition(&mut self, e: &Expr, scope: &Scope<'_>) -> Result<String> {
        let not = |negated: bool| if negated { "NOT " } else { "" };
        Ok(match e {
            Expr::And(l, r) => format!("({} AND {})", self.condition(l, scope)?, self.condition(r, scope)?),
            Expr::Or(l, r) => format!("({} OR {})", self.condition(l, scope)?, self.condition(r, scope)?),
            Expr::Not(e) => format!("(NOT {})", self.condition(e, scope)?),
            Expr::IsNull(e, negated) => {
                let b = self.value(e, scope)?;
                format!("({} IS {}NULL)", b.sql, not(*negated))
            }
            Expr::Compare(op, l, r) => {
                let (l, r) = (self.value(l, scope)?, self.value(r, scope)?);
                self.compare(op, l, r)?
            }
            Expr::Between(v, low, high, negated) => {
                let v = self.value(v, scope)?;
                let (low, high) = (self.value(low, scope)?, self.value(high, scope)?);
                format!(
                    "({}({} AND {}))",
                    not(*negated),
                    self.compare(">=", v.clone(), low)?,
                    self.compare("<=", v, high)?
                )
            }
            Expr::InList(v, list, negated) => {
                let v = self.value(v, scope)?;
                let mut parts = Vec::new();
                for e in list {
                    let e = self.value(e, scope)?;
                    parts.push(self.compare("=", v.clone(), e)?);
                }
                format!("({}({}))", not(*negated), parts.join(" OR "))
            }
            Expr::InQuery(v, q, negated) => {
                let v = self.value(v, scope)?;
                let q = self.query(q, Some(scope))?;
                let [column] = &q.columns[..] else {
                    return Err(SqlError::new(
                        116,
                        16,
                        1,
                        "Only one expression can be specified in the select list when the subquery is not introduced with EXISTS.",
                    ));
                };
                let inner = Bound { sql: "v1".into(), ..column.bound.clone() };
                let (l, r) = self.unify(v, inner, "equal to")?;
                format!("({} {}IN (SELECT {} FROM ({})))", self.key(&l), not(*negated), self.key(&r), q.sql)
            }
            Expr::Exists(q) => format!("EXISTS ({})", self.query(q, Some(scope))?.sql),
            Expr::Like { value, pattern, escape, negated } => {
                let value = self.value(value, scope)?;
                let pattern = self.value(pattern, scope)?;
                let escape = match escape {
                    Some(e) => self.value(e, scope)?.sql,
                    None => "''".into(),
                };
                let text = |b: Bound| {
                    if b.ty.has_collation() { Ok(b) } else { self.implicit(b, SqlType::max(Kind::NVarChar)) }
                };
                let (value, pattern) = (text(value)?, text(pattern)?);
                let collation = self.collation(&value, &pattern, "like")?;
                let code = SqlType::of(Kind::VarChar).collate(collation).code();
                format!("({}t_like({}, {}, {escape}, {code}))", not(*negated), value.sql, pattern.sql)
            }
            _ => {
                let text = "An expression of non-boolean type specified in a context where a condition is expected.";
                return Err(SqlError::new(4145, 15, 1, text));
            }
        })
    }

    /// A comparison: 306 for the old large types, 402 for types that cannot be compared.
    pub fn compare(&self, op: &str, l: Bound, r: Bound) -> Result<String> {
        let word = match op {
            "=" => "equal to",
            "<>" => "not equal to",
            "<" => "less than",
            ">" => "greater than",
            "<=" => "less than or equal to",
            _ => "greater than or equal to",
        };
        if l.ty.is_old_lob() || r.ty.is_old_lob() {
            let text = "The text, ntext, and image data types cannot be compared or sorted, except when using IS NULL or LIKE operator.";
            return Err(SqlError::new(306, 16, 2, text));
        }
        for b in [&l, &r] {
            if matches!(b.ty.kind, Kind::Xml | Kind::Geography | Kind::Geometry) && !b.untyped {
                return Err(SqlError::incompatible(l.ty.name(), r.ty.name(), word));
            }
            if b.ty.kind == Kind::Variant {
                return Err(SqlError::unmodelled("comparing sql_variant values"));
            }
        }
        // Trailing zero bytes do not count between binary values ("binary and varbinary", remarks). A side of a fixed length
        // is left alone, so that its index can be used; the other is brought to that length.
        if l.ty.is_binary() && r.ty.is_binary() && !l.untyped && !r.untyped {
            let fixed = |b: &Bound| matches!(b.ty.kind, Kind::Binary | Kind::RowVersion).then_some(b.ty.len);
            let (a, b) = match (fixed(&l), fixed(&r)) {
                (Some(x), Some(y)) if x == y => (l.sql, r.sql),
                (Some(n), _) => (l.sql, format!("t_binpad({}, {n})", r.sql)),
                (_, Some(n)) => (format!("t_binpad({}, {n})", l.sql), r.sql),
                _ => (format!("t_binpad({}, 0)", l.sql), format!("t_binpad({}, 0)", r.sql)),
            };
            return Ok(format!("({a} {op} {b})"));
        }
        let (l, r) = self.unify(l, r, word)?;
        Ok(format!("({} {op} {})", self.key(&l), self.key(&r)))
    }
}

/// The decimal a side of an operator is taken for; a constant has as many digits as are written.
fn digits(b: &Bound) -> SqlType {
    let written = b.sql.trim_start_matches('-');
    let constant = b.ty.kind == Kind::Int && !written.is_empty() && written.bytes().all(|c| c.is_ascii_digit());
    if constant { SqlType::numeric(written.len() as u8, 0) } else { as_numeric(b.ty) }
}

/// The result of arithmetic on decimals, cut to 38 digits as the page says.
fn decimal_result(op: &str, l: SqlType, r: SqlType) -> SqlType {
    let (p1, s1, p2, s2) = (i32::from(l.precision), i32::from(l.scale), i32::from(r.precision), i32::from(r.scale));
    let (precision, scale) = match op {
        "+" | "-" => (s1.max(s2) + (p1 - s1).max(p2 - s2) + 1, s1.max(s2)),
        "*" => (p1 + p2 + 1, s1 + s2),
        "/" => (p1 - s1 + s2 + 6.max(s1 + p2 + 1), 6.max(s1 + p2 + 1)),
        _ => ((p1 - s1).min(p2 - s2) + s1.max(s2), s1.max(s2)),
    };
    if precision <= 38 {
        return SqlType::numeric(precision as u8, scale as u8);
    }
    let whole = precision - scale;
    let scale = match op {
        "+" | "-" | "%" => scale.min(38 - whole.min(38)),
        // At least six digits behind the point are kept.
        _ if whole < 32 => scale.min(38 - whole),
        _ => scale.min(6),
    };
    SqlType::numeric(38, scale.max(0) as u8)
}

/// A whole number: `int` if it fits, else `numeric`, never `bigint`: "Constants (Transact-SQL)".
fn integer(n: &str) -> Result<Bound> {
    if let Ok(v) = n.parse::<i32>() {
        return Ok(Bound::new(v.to_string(), SqlType::of(Kind::Int)));
    }
    let (v, _) = decimal::parse(n).ok_or_else(|| {
        SqlError::new(
            1007,
            15,
            1,
            format!("The number '{n}' is out of the range for numeric representation (maximum precision 38)."),
        )
    })?;
    let digits = n.trim_start_matches('-').trim_start_matches('0').len() as u8;
    let ty = SqlType::numeric(digits, 0);
    let stored = convert(&Value::Blob(decimal::to_bytes(v)), SqlType::numeric(38, 0), ty, 0)?;
    Ok(Bound::new(literal(&stored), ty))
}

fn strip_limit(sql: &str, limited: bool) -> String {
    if limited { format!("SELECT * FROM ({sql})") } else { sql.to_owned() }
}

/// Whether an aggregate stands in an expression, outside of queries inside it.
pub fn contains_aggregate(e: &Expr) -> bool {
    let any = |list: &[Expr]| list.iter().any(contains_aggregate);
    match e {
        Expr::Call(c) => {
            let name = c.name.last().map(|n| n.to_ascii_lowercase()).unwrap_or_default();
            (c.over.is_none()
                && ["count", "count_big", "sum", "avg", "min", "max", "string_agg"].contains(&name.as_str()))
                || any(&c.args)
        }
        Expr::Method(t, _, a) => contains_aggregate(t) || any(a),
        Expr::Static(_, _, a) => any(a),
        Expr::Cast { expr, style, .. } => contains_aggregate(expr) || style.as_deref().is_some_and(contains_aggregate),
        Expr::Negative(e) | Expr::BitNot(e) | Expr::Not(e) | Expr::IsNull(e, _) | Expr::Collate(e, _) => {
            contains_aggregate(e)
        }
        Expr::Arith(_, l, r) | Expr::Compare(_, l, r) | Expr::And(l, r) | Expr::Or(l, r) => {
            contains_aggregate(l) || contains_aggregate(r)
        }
        Expr::Between(a, b, c, _) => contains_aggregate(a) || contains_aggregate(b) || contains_aggregate(c),
        Expr::InList(v, l, _) => contains_aggregate(v) || any(l),
        Expr::InQuery(v, ..) => contains_aggregate(v),
        Expr::Like { value, pattern, .. } => contains_aggregate(value) || contains_aggregate(pattern),
        Expr::Case { operand, whens, otherwise } => {
            operand.as_deref().is_some_and(contains_aggregate)
                || whens.iter().any(|(w, t)| contains_aggregate(w) || contains_aggregate(t))
                || otherwise.as_deref().is_some_and(contains_aggregate)
        }
        _ => false,
    }
}
