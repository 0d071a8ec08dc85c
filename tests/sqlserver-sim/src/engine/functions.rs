//! What SQLite lacks: conversions, exact arithmetic, the string and date functions of T-SQL, as functions of the connection.
//!
//! Names begin with `t_`. They take stored values (see [`crate::types`]) and type codes, and answer NULL when one of the
//! leading value arguments is NULL, as T-SQL functions do.

use crate::error::{Result, SqlError};
use crate::types::collation::Collation;
use crate::types::convert::{convert, unzoned, zoned};
use crate::types::datetime::{self as dt, DAY, MINUTE, SECOND};
use crate::types::{Kind, SqlType, clr, decimal, variant};
use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Arguments of a call.
struct Args<'a, 'c>(&'a Context<'c>);

impl Args<'_, '_> {
    fn value(&self, i: usize) -> Value {
        Value::try_from(self.0.get_raw(i)).unwrap_or(Value::Null)
    }

    fn int(&self, i: usize) -> i64 {
        match self.0.get_raw(i) {
            ValueRef::Integer(v) => v,
            ValueRef::Real(v) => v as i64,
            _ => 0,
        }
    }

    fn text(&self, i: usize) -> String {
        match self.0.get_raw(i) {
            ValueRef::Text(t) => String::from_utf8_lossy(t).into_owned(),
            _ => String::new(),
        }
    }

    fn blob(&self, i: usize) -> Vec<u8> {
        match self.0.get_raw(i) {
            ValueRef::Blob(b) => b.to_vec(),
            _ => Vec::new(),
        }
    }

    fn ty(&self, i: usize) -> SqlType {
        SqlType::from_code(self.int(i))
    }

    fn collation(&self, i: usize) -> Collation {
        self.ty(i).collation
    }
}

/// Registers a function of `n` arguments, the first `strict` of which answer NULL by being NULL.
fn add(
    c: &Connection,
    name: &str,
    n: i32,
    strict: usize,
    f: impl Fn(&Args<'_, '_>) -> Result<Value> + Send + 'static,
) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    add_flagged(c, name, n, strict, flags, f)
}

fn add_flagged(
    c: &Connection,
    name: &str,
    n: i32,
    strict: usize,
    flags: FunctionFlags,
    f: impl Fn(&Args<'_, '_>) -> Result<Value> + Send + 'static,
) -> rusqlite::Result<()> {
    c.create_scalar_function(name, n, flags, move |ctx| {
        if (0..strict).any(|i| matches!(ctx.get_raw(i), ValueRef::Null)) {
            return Ok(Value::Null);
        }
        f(&Args(ctx)).map_err(|e| rusqlite::Error::UserFunctionError(e.packed().into()))
    })
}

/// Counters that functions draw from.
#[derive(Debug, Default)]
pub struct Counters {
    /// `@@DBTS`: the last rowversion of the database.
    pub rowversion: AtomicI64,
}

/// Registers everything on a connection.
pub fn register(c: &Connection, counters: &Arc<Counters>) -> rusqlite::Result<()> {
    for collation in Collation::all() {
        c.create_collation(collation.name(), move |a: &str, b: &str| collation.compare(a, b))?;
    }
    conversions(c)?;
    arithmetic(c)?;
    strings(c)?;
    dates(c)?;
    misc(c, counters)
}

fn conversions(c: &Connection) -> rusqlite::Result<()> {
    add(c, "t_cv", 4, 1, |a| convert(&a.value(0), a.ty(1), a.ty(2), a.int(3)))?;
    add(c, "t_try", 4, 1, |a| Ok(convert(&a.value(0), a.ty(1), a.ty(2), a.int(3)).unwrap_or(Value::Null)))?;
    // Assignment to a column: value, from, to, nullable, table, column.
    add(c, "t_set", 6, 0, |a| {
        let value = a.value(0);
        let (from, to) = (a.ty(1), a.ty(2));
        let (table, column) = (a.text(4), a.text(5));
        if value == Value::Null {
            if a.int(3) == 0 {
                let text = format!(
                    "Cannot insert the value NULL into column '{column}', table '{table}'; column does not allow nulls. The statement fails."
                );
                return Err(SqlError::new(515, 16, 2, text));
            }
            return Ok(value);
        }
        let out = convert(&value, from, to, 0)?;
        if truncated(&value, from, &out, to) {
            let text = format!("String or binary data would be truncated in table '{table}', column '{column}'.");
            return Err(SqlError::new(2628, 16, 1, text));
        }
        Ok(out)
    })?;
    add(c, "t_fail", 4, 0, |a| Err(SqlError::new(a.int(0) as i32, a.int(1) as u8, a.int(2) as u8, a.text(3))))?;
    add(c, "t_top", 1, 0, |a| match a.value(0) {
        Value::Integer(n) if n >= 0 => Ok(Value::Integer(n)),
        Value::Null => Err(SqlError::new(
            1060,
            15,
            1,
            "The number of rows provided for a TOP or FETCH clauses row count parameter must be an integer.",
        )),
        _ => Err(SqlError::new(127, 15, 1, "A TOP N or FETCH rowcount value may not be negative.")),
    })
}

/// "SET ANSI_WARNINGS": text that loses more than trailing blanks is not assigned.
fn truncated(value: &Value, from: SqlType, out: &Value, to: SqlType) -> bool {
    match (value, out) {
        (Value::Text(before), Value::Text(after)) if to.is_char() => {
            from.has_collation()
                && before.trim_end_matches(' ').chars().count() > after.trim_end_matches(' ').chars().count()
        }
        (Value::Blob(before), Value::Blob(after)) if to.is_binary() && from.is_binary() => before.len() > after.len(),
        _ => false,
    }
}

fn divide_by_zero() -> SqlError {
    SqlError::new(8134, 16, 1, "Divide by zero error encountered.")
}

fn in_range(v: Option<i128>, ty: SqlType) -> Result<Value> {
    let (low, high) = match ty.kind {
        Kind::TinyInt => (0, 255),
        Kind::SmallInt => (i128::from(i16::MIN), i128::from(i16::MAX)),
        Kind::Int | Kind::SmallMoney => (i128::from(i32::MIN), i128::from(i32::MAX)),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    match v {
        Some(v) if (low..=high).contains(&v) => Ok(Value::Integer(v as i64)),
        _ => Err(SqlError::overflow(ty.name())),
    }
}

fn arithmetic(c: &Connection) -> rusqlite::Result<()> {
    // op, left, right, type of both and of the result: integers, money, floats.
    add(c, "t_arith", 4, 0, |a| {
        if a.value(1) == Value::Null || a.value(2) == Value::Null {
            return Ok(Value::Null);
        }
        let (op, ty) = (a.text(0), a.ty(3));
        if matches!(ty.kind, Kind::Real | Kind::Float) {
            let number = |v| match v {
                Value::Real(r) => r,
                Value::Integer(i) => i as f64,
                _ => 0.0,
            };
            let (l, r) = (number(a.value(1)), number(a.value(2)));
            let v = match op.as_str() {
                "+" => l + r,
                "-" => l - r,
                "*" => l * r,
                "/" if r == 0.0 => return Err(divide_by_zero()),
                "/" => l / r,
                _ => return Err(SqlError::incompatible(ty.name(), ty.name(), &op)),
            };
            let v = if ty.kind == Kind::Real { f64::from(v as f32) } else { v };
            return if v.is_finite() { Ok(Value::Real(v)) } else { Err(SqlError::overflow("float")) };
        }
        let (l, r) = (i128::from(a.int(1)), i128::from(a.int(2)));
        let money = matches!(ty.kind, Kind::Money | Kind::SmallMoney);
        let v = match op.as_str() {
            "+" => l + r,
            "-" => l - r,
            "*" if money => l * r / 10_000,
            "*" => l * r,
            "/" | "%" if r == 0 => return Err(divide_by_zero()),
            "/" if money => l * 10_000 / r,
            "/" => l / r,
            _ => l % r,
        };
        in_range(Some(v), ty)
    })?;
    // op, left, right, type of left, type of right, type of the result: decimals.
    add(c, "t_dec", 6, 0, |a| {
        if a.value(1) == Value::Null || a.value(2) == Value::Null {
            return Ok(Value::Null);
        }
        let (lt, rt, to) = (a.ty(3), a.ty(4), a.ty(5));
        let (l, r) = (decimal::from_bytes(&a.blob(1)), decimal::from_bytes(&a.blob(2)));
        let common = lt.scale.max(rt.scale);
        let both = || Some((decimal::rescale(l, lt.scale, common)?, decimal::rescale(r, rt.scale, common)?));
        let v = match a.text(0).as_str() {
            "+" => both().and_then(|(l, r)| decimal::rescale(l.checked_add(r)?, common, to.scale)),
            "-" => both().and_then(|(l, r)| decimal::rescale(l.checked_sub(r)?, common, to.scale)),
            "*" => l.checked_mul(r).and_then(|v| decimal::rescale(v, lt.scale + rt.scale, to.scale)),
            _ if r == 0 => return Err(divide_by_zero()),
            "/" => decimal::divide(l, lt.scale, r, rt.scale, to.scale),
            _ => both().and_then(|(l, r)| decimal::rescale(l % r, common, to.scale)),
        };
        let v = decimal::check(v.ok_or_else(|| SqlError::overflow("numeric"))?, to.precision, "numeric")?;
        Ok(Value::Blob(decimal::to_bytes(v)))
    })?;
    // name, value, second argument, type: ABS, CEILING, FLOOR, ROUND, SIGN, SQRT, POWER.
    add(c, "t_math", 4, 0, |a| {
        let (name, value, ty) = (a.text(0), a.value(1), a.ty(3));
        let n = a.int(2);
        match (value, ty.kind) {
            (Value::Null, _) => Ok(Value::Null),
            (Value::Blob(b), _) => {
                let v = decimal::from_bytes(&b);
                let unit = decimal::pow10(ty.scale);
                let v = match name.as_str() {
                    "abs" => v.abs(),
                    "sign" => v.signum() * unit,
                    "ceiling" => (v.div_euclid(unit) + i128::from(v.rem_euclid(unit) != 0)) * unit,
                    "floor" => v.div_euclid(unit) * unit,
                    _ => {
                        let keep = u8::try_from(n.clamp(0, i64::from(ty.scale))).unwrap_or(0);
                        let rounded = decimal::rescale(v, ty.scale, keep);
                        rounded
                            .and_then(|v| decimal::rescale(v, keep, ty.scale))
                            .ok_or_else(|| SqlError::overflow("numeric"))?
                    }
                };
                Ok(Value::Blob(decimal::to_bytes(v)))
            }
            (Value::Real(v), _) => Ok(Value::Real(match name.as_str() {
                "abs" => v.abs(),
                "sign" => {
                    if v == 0.0 {
                        0.0
                    } else {
                        v.signum()
                    }
                }
                "ceiling" => v.ceil(),
                "floor" => v.floor(),
                "sqrt" if v < 0.0 => {
                    return Err(SqlError::new(3623, 16, 1, "An invalid floating point operation occurred."));
                }
                "sqrt" => v.sqrt(),
                "power" => v.powf(match a.value(2) {
                    Value::Real(r) => r,
                    Value::Integer(i) => i as f64,
                    _ => return Ok(Value::Null),
                }),
                _ => {
                    let unit = 10f64.powi(i32::try_from(n).unwrap_or(0));
                    (v * unit).round() / unit
                }
            })),
            (Value::Integer(v), Kind::Money | Kind::SmallMoney) => {
                let v = i128::from(v);
                let v = match name.as_str() {
                    "abs" => v.abs(),
                    "sign" => v.signum() * 10_000,
                    "ceiling" => (v.div_euclid(10_000) + i128::from(v.rem_euclid(10_000) != 0)) * 10_000,
                    "floor" => v.div_euclid(10_000) * 10_000,
                    _ => {
                        let keep = u8::try_from(n.clamp(0, 4)).unwrap_or(0);
                        decimal::rescale(v, 4, keep).and_then(|v| decimal::rescale(v, keep, 4)).unwrap_or(v)
                    }
                };
                in_range(Some(v), ty)
            }
            (Value::Integer(v), _) => match name.as_str() {
                "abs" => in_range(Some(i128::from(v).abs()), ty),
                "sign" => Ok(Value::Integer(v.signum())),
                "power" => in_range(u32::try_from(n).ok().and_then(|n| i128::from(v).checked_pow(n)), ty),
                "round" if n < 0 => {
                    let unit = decimal::pow10(u8::try_from(-n).unwrap_or(38));
                    let half = unit / 2;
                    let v = i128::from(v);
                    in_range(Some((v + v.signum() * half) / unit * unit), ty)
                }
                _ => Ok(Value::Integer(v)),
            },
            _ => Err(SqlError::new(
                8116,
                16,
                1,
                format!("Argument data type {} is invalid for argument 1 of {name} function.", ty.name()),
            )),
        }
    })?;
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    c.create_aggregate_function("t_sumdec", 1, flags, SumDecimal)
}

struct SumDecimal;

impl Aggregate<Option<i128>, Value> for SumDecimal {
    fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<Option<i128>> {
        Ok(None)
    }

    fn step(&self, ctx: &mut Context<'_>, sum: &mut Option<i128>) -> rusqlite::Result<()> {
        if let ValueRef::Blob(b) = ctx.get_raw(0) {
            let next = sum.unwrap_or(0).checked_add(decimal::from_bytes(b));
            let overflow = || rusqlite::Error::UserFunctionError(SqlError::overflow("numeric").packed().into());
            *sum = Some(next.ok_or_else(overflow)?);
        }
        Ok(())
    }

    fn finalize(&self, _: &mut Context<'_>, sum: Option<Option<i128>>) -> rusqlite::Result<Value> {
        Ok(sum.flatten().map_or(Value::Null, |v| Value::Blob(decimal::to_bytes(v))))
    }
}

/// Length in UTF-16 units, which is how `nvarchar` counts.
fn units(t: &str) -> usize {
    t.encode_utf16().count()
}

/// Slice by UTF-16 units; a surrogate pair that would be cut is left out.
fn slice(t: &str, start: i64, length: i64) -> String {
    let begin = start.max(1) - 1;
    let end = (start - 1 + length).max(begin);
    let mut at = 0i64;
    t.chars()
        .filter(|c| {
            let here = at;
            at += c.len_utf16() as i64;
            here >= begin && at <= end
        })
        .collect()
}

fn strings(c: &Connection) -> rusqlite::Result<()> {
    add(c, "t_len", 1, 1, |a| Ok(Value::Integer(units(a.text(0).trim_end_matches(' ')) as i64)))?;
    add(c, "t_datalength", 2, 1, |a| {
        let ty = a.ty(1);
        let n = match a.value(0) {
            Value::Text(t) if matches!(ty.kind, Kind::NChar | Kind::NVarChar | Kind::NText | Kind::Xml) => {
                units(&t) * 2
            }
            Value::Text(t) => ty.collation.encode(&t).len(),
            Value::Blob(b) if ty.is_binary() || ty.kind == Kind::Image => b.len(),
            Value::Blob(b) if matches!(ty.kind, Kind::HierarchyId | Kind::Geography | Kind::Geometry) => b.len(),
            _ => usize::try_from(ty.max_length()).unwrap_or(0),
        };
        Ok(Value::Integer(n as i64))
    })?;
    add(c, "t_substring", 3, 3, |a| {
        let (start, length) = (a.int(1), a.int(2));
        if length < 0 {
            return Err(SqlError::new(
                537,
                16,
                3,
                "Invalid length parameter passed to the LEFT or SUBSTRING function.",
            ));
        }
        Ok(match a.value(0) {
            Value::Blob(b) => {
                let begin = usize::try_from(start.max(1) - 1).unwrap_or(0).min(b.len());
                let end = usize::try_from((start - 1 + length).max(0)).unwrap_or(0).clamp(begin, b.len());
                Value::Blob(b[begin..end].to_vec())
            }
            _ => Value::Text(slice(&a.text(0), start, length)),
        })
    })?;
    add(c, "t_right", 2, 2, |a| {
        let t = a.text(0);
        let n = a.int(1);
        Ok(Value::Text(slice(&t, units(&t) as i64 - n + 1, n)))
    })?;
    add(c, "t_upper", 1, 1, |a| Ok(Value::Text(a.text(0).to_uppercase())))?;
    add(c, "t_lower", 1, 1, |a| Ok(Value::Text(a.text(0).to_lowercase())))?;
    add(c, "t_reverse", 1, 1, |a| Ok(Value::Text(a.text(0).chars().rev().collect())))?;
    add(c, "t_replicate", 2, 2, |a| {
        let n = usize::try_from(a.int(1)).unwrap_or(0);
        Ok(match a.value(0) {
            Value::Blob(b) => Value::Blob(b.repeat(n)),
            _ => Value::Text(a.text(0).repeat(n)),
        })
    })?;
    add(c, "t_replace", 4, 3, |a| {
        let (text, find, with, collation) = (a.text(0), a.text(1), a.text(2), a.collation(3));
        let find: Vec<char> = find.chars().collect();
        let text: Vec<char> = text.chars().collect();
        let mut out = String::new();
        let mut at = 0;
        while at < text.len() {
            let hit = !find.is_empty()
                && text.len() - at >= find.len()
                && find.iter().zip(&text[at..]).all(|(x, y)| collation.same(*x, *y));
            if hit {
                out.push_str(&with);
                at += find.len();
            } else {
                out.push(text[at]);
                at += 1;
            }
        }
        Ok(Value::Text(out))
    })?;
    add(c, "t_charindex", 4, 2, |a| {
        let (find, text, start, collation) = (a.text(0), a.text(1), a.int(2), a.collation(3));
        let find: Vec<char> = find.chars().collect();
        let text: Vec<char> = text.chars().collect();
        let from = usize::try_from(start.max(1) - 1).unwrap_or(0);
        let hit = |at: usize| {
            text.len() >= at + find.len() && find.iter().zip(&text[at..]).all(|(x, y)| collation.same(*x, *y))
        };
        let at = if find.is_empty() { None } else { (from..text.len()).find(|at| hit(*at)) };
        Ok(Value::Integer(at.map_or(0, |at| at as i64 + 1)))
    })?;
    add(c, "t_stuff", 4, 3, |a| {
        let (text, start, length) = (a.text(0), a.int(1), a.int(2));
        let n = units(&text) as i64;
        if start < 1 || start > n || length < 0 {
            return Ok(Value::Null);
        }
        Ok(Value::Text(format!("{}{}{}", slice(&text, 1, start - 1), a.text(3), slice(&text, start + length, n))))
    })?;
    add(c, "t_quotename", 2, 2, |a| {
        let t = a.text(0);
        Ok(match a.text(1).chars().next() {
            _ if units(&t) > 128 => Value::Null,
            Some('[' | ']') => Value::Text(format!("[{}]", t.replace(']', "]]"))),
            Some(q @ ('\'' | '"')) => Value::Text(format!("{q}{}{q}", t.replace(q, &format!("{q}{q}")))),
            _ => Value::Null,
        })
    })?;
    add(c, "t_unicode", 1, 1, |a| {
        Ok(a.text(0).encode_utf16().next().map_or(Value::Null, |u| Value::Integer(i64::from(u))))
    })?;
    add(c, "t_ascii", 2, 1, |a| {
        Ok(a.collation(1).encode(&a.text(0)).first().map_or(Value::Null, |b| Value::Integer(i64::from(*b))))
    })?;
    add(c, "t_nchar", 1, 1, |a| {
        Ok(u32::try_from(a.int(0)).ok().and_then(char::from_u32).map_or(Value::Null, |c| Value::Text(c.into())))
    })?;
    add(c, "t_char", 2, 1, |a| {
        Ok(u8::try_from(a.int(0)).map_or(Value::Null, |b| Value::Text(a.collation(1).decode(&[b]))))
    })?;
    // value, pattern, escape ('' for none), collation
    add(c, "t_like", 4, 3, |a| {
        let (text, pattern) = (a.text(0), a.text(1));
        let text: Vec<char> = text.chars().collect();
        let pattern: Vec<char> = pattern.chars().collect();
        let escape = a.text(2).chars().next();
        Ok(Value::Integer(i64::from(like(&text, &pattern, escape, a.collation(3)))))
    })?;
    add(c, "t_catb", 2, 2, |a| Ok(Value::Blob([a.blob(0), a.blob(1)].concat())))
}

/// "LIKE (Transact-SQL)": `%`, `_`, `[a-z]`, `[^a]`; blanks at the end of the value are kept.
fn like(text: &[char], pattern: &[char], escape: Option<char>, collation: Collation) -> bool {
    let Some((first, rest)) = pattern.split_first() else { return text.iter().all(|c| *c == ' ') };
    if Some(*first) == escape {
        return match (rest.split_first(), text.split_first()) {
            (Some((p, rest)), Some((t, more))) => collation.same(*p, *t) && like(more, rest, escape, collation),
            _ => false,
        };
    }
    match first {
        '%' => (0..=text.len()).any(|skip| like(&text[skip..], rest, escape, collation)) || rest.is_empty(),
        '_' => text.split_first().is_some_and(|(_, more)| like(more, rest, escape, collation)),
        '[' if rest.contains(&']') => {
            let close = rest.iter().skip(1).position(|c| *c == ']').map_or(0, |i| i + 1);
            let (set, behind) = (&rest[..close], &rest[close + 1..]);
            let Some((t, more)) = text.split_first() else { return false };
            let (negated, set) = if set.first() == Some(&'^') { (true, &set[1..]) } else { (false, set) };
            let mut hit = false;
            let mut i = 0;
            while i < set.len() {
                if i + 2 < set.len() && set[i + 1] == '-' {
                    let at = |c: char| collation.compare(&t.to_string(), &c.to_string());
                    hit |= at(set[i]) != std::cmp::Ordering::Less && at(set[i + 2]) != std::cmp::Ordering::Greater;
                    i += 3;
                } else {
                    hit |= collation.same(set[i], *t);
                    i += 1;
                }
            }
            hit != negated && like(more, behind, escape, collation)
        }
        p => text.split_first().is_some_and(|(t, more)| collation.same(*p, *t) && like(more, rest, escape, collation)),
    }
}

/// Ticks of one unit of a date part, for the parts of a fixed length.
fn fixed_part(part: &str) -> Option<i64> {
    Some(match part {
        "week" => 7 * DAY,
        "day" | "dayofyear" | "weekday" => DAY,
        "hour" => 60 * MINUTE,
        "minute" => MINUTE,
        "second" => SECOND,
        "millisecond" => 10_000,
        "microsecond" => 10,
        _ => return None,
    })
}

fn add_months(ticks: i64, months: i64) -> i64 {
    let (y, m, d) = dt::civil(ticks.div_euclid(DAY));
    let total = y * 12 + m - 1 + months;
    let (y, m) = (total.div_euclid(12), total.rem_euclid(12) + 1);
    dt::days(y, m, d.min(dt::month_length(y, m))) * DAY + ticks.rem_euclid(DAY)
}

/// Local ticks of a stored date or time, and the offset of a datetimeoffset.
fn local(value: &Value) -> (i64, Option<i64>) {
    match value {
        Value::Integer(t) => (*t, None),
        Value::Blob(b) => {
            let (utc, offset) = unzoned(b);
            (utc + offset * MINUTE, Some(offset))
        }
        _ => (0, None),
    }
}

fn dates(c: &Connection) -> rusqlite::Result<()> {
    add(c, "t_dtokey", 1, 1, |a| Ok(Value::Integer(unzoned(&a.blob(0)).0)))?;
    // part, number, value, type
    add(c, "t_dateadd", 4, 3, |a| {
        let (part, n, ty) = (a.text(0), a.int(1), a.ty(3));
        let (ticks, offset) = local(&a.value(2));
        let overflow =
            || SqlError::new(517, 16, 1, format!("Adding a value to a '{}' column caused an overflow.", ty.name()));
        let moved = match part.as_str() {
            "year" => add_months(ticks, n.checked_mul(12).ok_or_else(overflow)?),
            "quarter" => add_months(ticks, n * 3),
            "month" => add_months(ticks, n),
            "nanosecond" => ticks + n / 100,
            part => {
                let unit = fixed_part(part).ok_or_else(|| SqlError::unmodelled(format!("the date part {part}")))?;
                ticks.checked_add(n.checked_mul(unit).ok_or_else(overflow)?).ok_or_else(overflow)?
            }
        };
        if ty.kind == Kind::Time {
            return Ok(Value::Integer(dt::round_scale(moved.rem_euclid(DAY), ty.scale)));
        }
        if !(0..dt::END).contains(&moved) {
            return Err(overflow());
        }
        Ok(match (ty.kind, offset) {
            (_, Some(o)) => zoned(dt::round_scale(moved, ty.scale) - o * MINUTE, o),
            (Kind::DateTime, _) => Value::Integer(dt::round_datetime(moved)),
            (Kind::SmallDateTime, _) => Value::Integer(dt::round_small(moved)),
            (Kind::DateTime2, _) => Value::Integer(dt::round_scale(moved, ty.scale)),
            _ => Value::Integer(moved),
        })
    })?;
    // part, from, to: counts the boundaries crossed.
    add(c, "t_datediff", 3, 3, |a| {
        let part = a.text(0);
        let utc = |v: &Value| match v {
            Value::Blob(b) => unzoned(b).0,
            v => local(v).0,
        };
        let (from, to) = (utc(&a.value(1)), utc(&a.value(2)));
        let month = |t: i64| {
            let (y, m, _) = dt::civil(t.div_euclid(DAY));
            y * 12 + m - 1
        };
        let n = match part.as_str() {
            "year" => month(to).div_euclid(12) - month(from).div_euclid(12),
            "quarter" => month(to).div_euclid(3) - month(from).div_euclid(3),
            "month" => month(to) - month(from),
            "week" => (to / DAY + 1).div_euclid(7) - (from / DAY + 1).div_euclid(7),
            "nanosecond" => (to - from) * 100,
            part => {
                let unit = fixed_part(part).ok_or_else(|| SqlError::unmodelled(format!("the date part {part}")))?;
                to.div_euclid(unit) - from.div_euclid(unit)
            }
        };
        Ok(Value::Integer(n))
    })?;
    add(c, "t_datepart", 2, 2, |a| {
        let part = a.text(0);
        let (ticks, offset) = local(&a.value(1));
        let (y, m, d) = dt::civil(ticks.div_euclid(DAY));
        let of_day = ticks.rem_euclid(DAY);
        let of_year = dt::days(y, m, d) - dt::days(y, 1, 1);
        Ok(Value::Integer(match part.as_str() {
            "year" => y,
            "quarter" => (m + 2) / 3,
            "month" => m,
            "day" => d,
            "dayofyear" => of_year + 1,
            // 0001-01-01 was a Monday; DATEFIRST is 7.
            "weekday" => (ticks.div_euclid(DAY) + 1).rem_euclid(7) + 1,
            "week" => (of_year + (dt::days(y, 1, 1) + 1).rem_euclid(7)) / 7 + 1,
            "hour" => of_day / (60 * MINUTE),
            "minute" => of_day / MINUTE % 60,
            "second" => of_day / SECOND % 60,
            "millisecond" => of_day % SECOND / 10_000,
            "microsecond" => of_day % SECOND / 10,
            "nanosecond" => of_day % SECOND * 100,
            "tzoffset" => offset.unwrap_or(0),
            part => return Err(SqlError::unmodelled(format!("the date part {part}"))),
        }))
    })?;
    add(c, "t_datename", 2, 2, |a| {
        let (ticks, _) = local(&a.value(1));
        let (_, month, _) = dt::civil(ticks.div_euclid(DAY));
        const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
        Ok(Value::Text(match a.text(0).as_str() {
            "month" => dt::MONTHS[usize::try_from(month - 1).unwrap_or(0)].into(),
            "weekday" => DAYS[usize::try_from(ticks.div_euclid(DAY).rem_euclid(7)).unwrap_or(0)].into(),
            part => return Err(SqlError::unmodelled(format!("DATENAME of {part}"))),
        }))
    })?;
    add(c, "t_switchoffset", 2, 2, |a| {
        let minutes = offset_argument(&a.value(1))?;
        Ok(zoned(unzoned(&a.blob(0)).0, minutes))
    })?;
    add(c, "t_todatetimeoffset", 2, 2, |a| {
        let minutes = offset_argument(&a.value(1))?;
        Ok(zoned(a.int(0) - minutes * MINUTE, minutes))
    })?;
    // datetime arithmetic: days since 1900 of both are added or subtracted.
    add(c, "t_dtarith", 3, 0, |a| {
        if a.value(1) == Value::Null || a.value(2) == Value::Null {
            return Ok(Value::Null);
        }
        let (l, r) = (a.int(1) - dt::Y1900, a.int(2) - dt::Y1900);
        let v = if a.text(0) == "+" { l + r } else { l - r } + dt::Y1900;
        Ok(Value::Integer(dt::round_datetime(v)))
    })
}

fn offset_argument(v: &Value) -> Result<i64> {
    let bad = || SqlError::new(9812, 16, 1, "The timezone provided to builtin function is invalid.");
    match v {
        Value::Integer(i) => Ok(*i),
        Value::Text(t) => dt::parse(&format!("00:00:00{t}"), false).and_then(|p| p.offset).ok_or_else(bad),
        _ => Err(bad()),
    }
}

fn misc(c: &Connection, counters: &Arc<Counters>) -> rusqlite::Result<()> {
    let volatile = FunctionFlags::SQLITE_UTF8;
    add_flagged(c, "t_newid", 0, 0, volatile, |_| {
        let mut b = random_bytes();
        b[7] = b[7] & 0x0F | 0x40;
        b[8] = b[8] & 0x3F | 0x80;
        Ok(Value::Blob(crate::types::guid_store(&b)))
    })?;
    let shared = counters.clone();
    add_flagged(c, "t_rowversion", 0, 0, volatile, move |_| {
        let v = shared.rowversion.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Value::Blob(v.to_be_bytes().to_vec()))
    })?;
    add(c, "t_lsnadd", 2, 1, |a| {
        let mut b = a.blob(0);
        let up = a.int(1) > 0;
        for byte in b.iter_mut().rev() {
            (*byte, _) = if up { byte.overflowing_add(1) } else { byte.overflowing_sub(1) };
            if *byte != if up { 0 } else { 0xFF } {
                break;
            }
        }
        Ok(Value::Blob(b))
    })?;
    // "sys.fn_cdc_is_bit_set": ordinal 1 is the lowest bit of the last byte.
    add(c, "t_bitset", 2, 2, |a| {
        let (at, mask) = (a.int(0) - 1, a.blob(1));
        let byte =
            usize::try_from(at / 8).ok().and_then(|i| mask.len().checked_sub(i + 1)).and_then(|i| mask.get(i).copied());
        Ok(Value::Integer(byte.map_or(0, |b| i64::from(b >> (at % 8) & 1))))
    })?;
    // "CHANGE_TRACKING_IS_COLUMN_IN_MASK": column numbers of four bytes each.
    add(c, "t_ctmask", 2, 2, |a| {
        let column = (a.int(0) as u32).to_le_bytes();
        Ok(Value::Integer(i64::from(a.blob(1).chunks(4).any(|c| c == column))))
    })?;
    add_flagged(c, "t_now", 1, 0, volatile, |a| {
        let now = dt::now();
        Ok(Value::Integer(if a.int(0) != 0 { dt::round_datetime(now) } else { now }))
    })?;
    // Rows of the log: pairs of column number and value.
    add(c, "t_pack", -1, 0, |a| {
        let mut out = Vec::new();
        for i in (0..a.0.len()).step_by(2) {
            crate::log::pack(&mut out, a.int(i), &a.value(i + 1));
        }
        Ok(Value::Blob(out))
    })?;
    add(c, "t_join", -1, 0, |a| Ok(Value::Blob((0..a.0.len()).flat_map(|i| a.blob(i)).collect())))?;
    add(c, "t_variant", 2, 1, |a| {
        let Some((ty, _)) = variant::unpack(&a.blob(0)) else { return Ok(Value::Null) };
        let int = SqlType::of(Kind::Int);
        let (v, t) = match a.text(1).to_ascii_lowercase().as_str() {
            "basetype" => (Value::Text(ty.name().into()), SqlType::sysname()),
            "precision" => (Value::Integer(i64::from(ty.column_precision())), int),
            "scale" => (Value::Integer(i64::from(ty.column_scale())), int),
            "maxlength" => (Value::Integer(i64::from(ty.max_length())), int),
            "collation" if ty.has_collation() => (Value::Text(ty.collation.name().into()), SqlType::sysname()),
            _ => return Ok(Value::Null),
        };
        Ok(variant::pack(&v, t))
    })?;
    add(c, "t_tostring", 2, 1, |a| match a.ty(1).kind {
        Kind::HierarchyId => clr::hierarchy_text(&a.blob(0)).map(Value::Text),
        kind => clr::point_text(&a.blob(0), kind == Kind::Geography).map(Value::Text),
    })?;
    add(c, "t_wkb", 2, 1, |a| clr::point_wkb(&a.blob(0), a.ty(1).kind == Kind::Geography).map(Value::Blob))?;
    add(c, "t_point", 4, 3, |a| {
        let number = |v| match v {
            Value::Real(r) => r,
            Value::Integer(i) => i as f64,
            _ => 0.0,
        };
        Ok(Value::Blob(clr::point(a.int(2) as i32, number(a.value(0)), number(a.value(1)), a.int(3) != 0)))
    })?;
    add(c, "t_pointtext", 3, 2, |a| clr::parse_point(&a.text(0), a.int(1) as i32, a.int(2) != 0).map(Value::Blob))?;
    // Part `n` (from the right, 1 is the object) of a name that may be quoted: PARSENAME.
    add(c, "t_namepart", 2, 2, |a| {
        let name = a.text(0);
        let parts = crate::sql::lexer::lex(&name).ok().map(|tokens| {
            use crate::sql::lexer::Kind as T;
            let mut parts = vec![String::new()];
            for t in tokens {
                match t.kind {
                    T::Word(w) | T::Quoted(w) | T::Number(w) => {
                        if let Some(last) = parts.last_mut() {
                            if !last.is_empty() {
                                last.push(' ');
                            }
                            last.push_str(&w);
                        }
                    }
                    T::Op(".") => parts.push(String::new()),
                    _ => {}
                }
            }
            parts
        });
        let n = usize::try_from(a.int(1)).unwrap_or(1);
        Ok(parts
            .and_then(|p| p.len().checked_sub(n).and_then(|i| p.get(i).cloned()))
            .filter(|p| !p.is_empty())
            .map_or(Value::Null, Value::Text))
    })
}

/// Sixteen bytes nobody can foresee.
pub fn random_bytes() -> Vec<u8> {
    use ring::rand::{SecureRandom, SystemRandom};
    let mut b = vec![0; 16];
    if SystemRandom::new().fill(&mut b).is_err() {
        b.copy_from_slice(&dt::now().to_be_bytes().repeat(2));
    }
    b
}
