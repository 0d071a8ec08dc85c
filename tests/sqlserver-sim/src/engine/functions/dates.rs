//! "Date and time data types and functions (Transact-SQL)".

use super::add;
use crate::error::{Result, SqlError};
use crate::types::Kind;
use crate::types::convert::{unzoned, zoned};
use crate::types::datetime::{self as dt, DAY, MINUTE, SECOND};
use rusqlite::Connection;
use rusqlite::types::Value;

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

pub(crate) fn register(c: &Connection) -> rusqlite::Result<()> {
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
