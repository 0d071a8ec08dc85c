//! Functions: each arm names its page by the function's own name, "ABS (Transact-SQL)" and so on.

use super::{Binder, Bound, Scope};
use crate::error::{Result, SqlError};
use crate::sql::ast::{Call, Expr};
use crate::types::{Kind, MAX, SqlType};

/// Canonical name of a date part: "DATEADD (Transact-SQL)".
fn date_part(e: &Expr) -> Result<&'static str> {
    let Expr::Column(parts) = e else {
        return Err(SqlError::new(1023, 15, 1, "Invalid parameter 1 specified for datepart."));
    };
    let word = parts.join(".").to_ascii_lowercase();
    Ok(match word.as_str() {
        "year" | "yy" | "yyyy" => "year",
        "quarter" | "qq" | "q" => "quarter",
        "month" | "mm" | "m" => "month",
        "dayofyear" | "dy" | "y" => "dayofyear",
        "day" | "dd" | "d" => "day",
        "week" | "wk" | "ww" => "week",
        "weekday" | "dw" | "w" => "weekday",
        "hour" | "hh" => "hour",
        "minute" | "mi" | "n" => "minute",
        "second" | "ss" | "s" => "second",
        "millisecond" | "ms" => "millisecond",
        "microsecond" | "mcs" => "microsecond",
        "nanosecond" | "ns" => "nanosecond",
        "tzoffset" | "tz" => "tzoffset",
        other => return Err(SqlError::new(155, 15, 1, format!("'{other}' is not a recognized datepart option."))),
    })
}

fn int() -> SqlType {
    SqlType::of(Kind::Int)
}

impl Binder<'_> {
    /// Binds a function call.
    pub fn call(&mut self, call: &Call, scope: &Scope<'_>) -> Result<Bound> {
        let full = call.name.iter().map(|p| p.to_ascii_lowercase()).collect::<Vec<_>>().join(".");
        if let Some(b) = self.aggregate(&full, call, scope)? {
            return Ok(b);
        }
        if call.star || call.distinct || call.over.is_some() {
            return Err(SqlError::unmodelled(format!("the function {full} in this form")));
        }
        if let Some(cdc) = full.strip_prefix("sys.") {
            return self.system_call(cdc, &call.args, scope);
        }
        if let Some(b) = self.special(&full, &call.args, scope)? {
            return Ok(b);
        }
        let args: Vec<Bound> = call.args.iter().map(|a| self.value(a, scope)).collect::<Result<_>>()?;
        if let Some(b) = self.session_call(&full, &args)? {
            return Ok(b);
        }
        self.plain_call(&full, args)
    }

    pub(crate) fn text_arg(&self, b: Bound) -> Result<Bound> {
        if b.ty.is_char() {
            return Ok(b);
        }
        let kind = if b.ty.kind == Kind::NText { Kind::NVarChar } else { Kind::VarChar };
        let ty = if b.ty.is_old_lob() { SqlType::max(kind) } else { SqlType::sized(kind, 8000) };
        self.implicit(b, ty.collate(self.session.db.collation))
    }

    fn aggregate(&mut self, name: &str, call: &Call, scope: &Scope<'_>) -> Result<Option<Bound>> {
        let over = match &call.over {
            None => String::new(),
            Some(o) => {
                let mut parts = Vec::new();
                if !o.partition.is_empty() {
                    let keys: Vec<_> = o
                        .partition
                        .iter()
                        .map(|e| self.value(e, scope).map(|b| self.key(&b)))
                        .collect::<Result<_>>()?;
                    parts.push(format!("PARTITION BY {}", keys.join(", ")));
                }
                if !o.order.is_empty() {
                    let mut keys = Vec::new();
                    for item in &o.order {
                        // `ORDER BY (SELECT NULL)` is how one says that any order will do.
                        let b = self.value(&item.expr, scope)?;
                        keys.push(format!("{}{}", self.key(&b), if item.descending { " DESC" } else { "" }));
                    }
                    parts.push(format!("ORDER BY {}", keys.join(", ")));
                }
                format!(" OVER ({})", parts.join(" "))
            }
        };
        if ["row_number", "rank", "dense_rank"].contains(&name) {
            if call.over.is_none() {
                return Err(SqlError::new(
                    10753,
                    15,
                    1,
                    format!("The function '{}' must have an OVER clause.", name.to_ascii_uppercase()),
                ));
            }
            return Ok(Some(Bound::new(format!("{name}(){over}"), SqlType::of(Kind::BigInt)).not_null()));
        }
        if !["count", "count_big", "sum", "avg", "min", "max", "string_agg"].contains(&name) {
            return Ok(None);
        }
        let inner = Scope { sources: scope.sources.clone(), parent: scope.parent, grouped: None };
        let distinct = if call.distinct { "DISTINCT " } else { "" };
        let big = SqlType::of(Kind::BigInt);
        if call.star {
            if name != "count" && name != "count_big" {
                return Err(SqlError::syntax("*"));
            }
            let ty = if name == "count" { int() } else { big };
            return Ok(Some(Bound::new(format!("count(*){over}"), ty)));
        }
        let first = call.args.first().ok_or_else(|| SqlError::syntax(")"))?;
        let b = self.value(first, &inner)?;
        let key = self.key(&b);
        let sql = match name {
            "count" | "count_big" => {
                let ty = if name == "count" { int() } else { big };
                return Ok(Some(Bound::new(format!("count({distinct}{key}){over}"), ty)));
            }
            "min" | "max" => {
                if b.ty.is_old_lob()
                    || matches!(b.ty.kind, Kind::Bit | Kind::Xml | Kind::DateTimeOffset | Kind::Variant)
                {
                    if matches!(b.ty.kind, Kind::DateTimeOffset | Kind::Variant) {
                        return Err(SqlError::unmodelled(format!("{name} of {}", b.ty.name())));
                    }
                    let text = format!("Operand data type {} is invalid for {name} operator.", b.ty.name());
                    return Err(SqlError::new(8117, 16, 1, text));
                }
                return Ok(Some(Bound { hold: b.hold, ..Bound::new(format!("{name}({distinct}{key}){over}"), b.ty) }));
            }
            "string_agg" => {
                let separator = call.args.get(1).ok_or_else(|| SqlError::syntax(")"))?;
                let separator = self.value(separator, &inner)?;
                let b = self.text_arg(b)?;
                let ty = SqlType { len: if b.ty.len == MAX { MAX } else { 4000 }, ..b.ty };
                return Ok(Some(Bound::new(format!("group_concat({}, {}){over}", b.sql, separator.sql), ty)));
            }
            other => other,
        };
        // SUM and AVG widen: int for the small ones, numeric(38, s), money, float.
        let (kind, ty) = match b.ty.kind {
            Kind::TinyInt | Kind::SmallInt | Kind::Int => (Kind::Int, int()),
            Kind::BigInt => (Kind::BigInt, big),
            Kind::Money | Kind::SmallMoney => (Kind::Money, SqlType::of(Kind::Money)),
            Kind::Real | Kind::Float => (Kind::Float, SqlType::of(Kind::Float)),
            Kind::Decimal | Kind::Numeric => (Kind::Numeric, SqlType { precision: 38, ..b.ty }),
            _ => {
                let text = format!("Operand data type {} is invalid for {sql} operator.", b.ty.name());
                return Err(SqlError::new(8117, 16, 1, text));
            }
        };
        if sql == "sum" {
            return Ok(Some(match kind {
                Kind::Numeric => Bound::new(format!("t_sumdec({distinct}{}){over}", b.sql), ty),
                Kind::Int => Bound::new(format!("t_arith('+', sum({distinct}{}){over}, 0, {})", b.sql, ty.code()), ty),
                _ => Bound::new(format!("sum({distinct}{}){over}", b.sql), ty),
            }));
        }
        Ok(Some(match kind {
            Kind::Float => Bound::new(format!("avg({distinct}{}){over}", b.sql), ty),
            Kind::Numeric => {
                let result = SqlType::numeric(38, b.ty.scale.max(6));
                let count = format!(
                    "t_cv(count({distinct}{}){over}, {}, {}, 0)",
                    b.sql,
                    big.code(),
                    SqlType::numeric(19, 0).code()
                );
                let sum = format!("t_sumdec({distinct}{}){over}", b.sql);
                let sql = format!(
                    "CASE WHEN count({}){over} > 0 THEN t_dec('/', {sum}, {count}, {}, {}, {}) END",
                    b.sql,
                    ty.code(),
                    SqlType::numeric(19, 0).code(),
                    result.code()
                );
                Bound::new(sql, result)
            }
            _ => Bound::new(format!("(sum({distinct}{0}){over} / count({distinct}{0}){over})", b.sql), ty),
        }))
    }

    /// Functions whose arguments are not plain values.
    fn special(&mut self, name: &str, args: &[Expr], scope: &Scope<'_>) -> Result<Option<Bound>> {
        Ok(Some(match (name, args) {
            ("iif", [condition, a, b]) => {
                let condition = self.condition(condition, scope)?;
                let values = vec![self.value(a, scope)?, self.value(b, scope)?];
                let (values, ty, hold) = self.same_type(values)?;
                let sql = format!("(CASE WHEN {condition} THEN {} ELSE {} END)", values[0].sql, values[1].sql);
                Bound { hold, nullable: values.iter().any(|v| v.nullable), ..Bound::new(sql, ty) }
            }
            ("dateadd", [part, n, value]) => {
                let part = date_part(part)?;
                let n = self.value(n, scope)?;
                let n = self.cast(n, SqlType::of(Kind::BigInt), None, false);
                let value = self.temporal(value, scope)?;
                Bound::new(format!("t_dateadd('{part}', {}, {}, {})", n.sql, value.sql, value.ty.code()), value.ty)
            }
            ("datediff" | "datediff_big", [part, a, b]) => {
                let part = date_part(part)?;
                let (a, b) = (self.temporal(a, scope)?, self.temporal(b, scope)?);
                let big = Bound::new(format!("t_datediff('{part}', {}, {})", a.sql, b.sql), SqlType::of(Kind::BigInt));
                if name == "datediff" {
                    Bound::new(format!("t_arith('+', {}, 0, {})", big.sql, int().code()), int())
                } else {
                    big
                }
            }
            ("datepart", [part, value]) => {
                let part = date_part(part)?;
                let value = self.temporal(value, scope)?;
                Bound::new(format!("t_datepart('{part}', {})", value.sql), int())
            }
            ("datename", [part, value]) => {
                let part = date_part(part)?;
                let value = self.temporal(value, scope)?;
                let ty = SqlType::sized(Kind::NVarChar, 30);
                if matches!(part, "month" | "weekday") {
                    Bound::new(format!("t_datename('{part}', {})", value.sql), ty)
                } else {
                    self.cast(Bound::new(format!("t_datepart('{part}', {})", value.sql), int()), ty, None, false)
                }
            }
            ("year" | "month" | "day", [value]) => {
                let value = self.temporal(value, scope)?;
                Bound::new(format!("t_datepart('{name}', {})", value.sql), int())
            }
            ("coalesce", _) if !args.is_empty() => {
                let values: Vec<Bound> = args.iter().map(|a| self.value(a, scope)).collect::<Result<_>>()?;
                let (values, ty, hold) = self.same_type(values)?;
                let nullable = values.iter().all(|v| v.nullable);
                let list: Vec<_> = values.iter().map(|v| v.sql.as_str()).collect();
                Bound { hold, nullable, ..Bound::new(format!("coalesce({}, NULL)", list.join(", ")), ty) }
            }
            ("nullif", [a, b]) => {
                let (a, b) = (self.value(a, scope)?, self.value(b, scope)?);
                let equal = self.compare("=", a.clone(), b)?;
                Bound { hold: a.hold, ..Bound::new(format!("(CASE WHEN {equal} THEN NULL ELSE {} END)", a.sql), a.ty) }
            }
            ("isnull", [a, b]) => {
                let (a, b) = (self.value(a, scope)?, self.value(b, scope)?);
                let ty = if a.untyped { b.ty } else { a.ty };
                let b = self.implicit(b, ty)?;
                Bound { hold: a.hold, nullable: b.nullable, ..Bound::new(format!("ifnull({}, {})", a.sql, b.sql), ty) }
            }
            _ => return Ok(None),
        }))
    }

    /// A date or time; text becomes datetime2, a number datetime.
    pub(crate) fn temporal(&mut self, e: &Expr, scope: &Scope<'_>) -> Result<Bound> {
        let b = self.value(e, scope)?;
        if b.ty.is_temporal() && !b.untyped {
            return Ok(b);
        }
        let ty = if b.ty.is_number() { SqlType::of(Kind::DateTime) } else { SqlType::of(Kind::DateTime2) };
        self.implicit(b, ty)
    }
}
