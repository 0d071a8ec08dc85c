//! Exact and approximate arithmetic.

use super::add;
use crate::error::{Result, SqlError};
use crate::types::{Kind, SqlType, decimal};
use rusqlite::Connection;
use rusqlite::functions::{Aggregate, Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};

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

pub(crate) fn register(c: &Connection) -> rusqlite::Result<()> {
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
