//! Conversion between types: "CAST and CONVERT (Transact-SQL)" and "Data type conversion (Database Engine)".

use super::datetime::{self as dt, DAY, END, Y1900};
use super::{Kind, MAX, SqlType, clr, decimal, format, variant};
use crate::error::{Result, SqlError};
use Kind::*;
use rusqlite::types::Value;

/// A value by meaning, between its two types.
enum Sem {
    Whole(i128),
    Exact(i128, u8),
    Float(f64),
    /// Ticks since 0001-01-01.
    Moment(i64),
    /// Ticks of the day.
    Clock(i64),
    /// Ticks in UTC, minutes of offset.
    Zoned(i64, i64),
    Text(String),
    Bytes(Vec<u8>),
    /// Wire form.
    Guid(Vec<u8>),
}

/// Stored form of a datetimeoffset.
pub fn zoned(utc: i64, offset: i64) -> Value {
    let mut b = utc.to_be_bytes().to_vec();
    b.extend((offset as i16).to_be_bytes());
    Value::Blob(b)
}

/// Ticks in UTC and minutes of offset of a stored datetimeoffset.
pub fn unzoned(b: &[u8]) -> (i64, i64) {
    let utc = b.get(..8).and_then(|x| x.try_into().ok()).map_or(0, i64::from_be_bytes);
    let offset = b.get(8..10).and_then(|x| x.try_into().ok()).map_or(0, i16::from_be_bytes);
    (utc, i64::from(offset))
}

fn meaning(value: &Value, ty: SqlType) -> Result<Sem> {
    let fault = || SqlError::new(49_998, 16, 1, format!("Fault inside the simulator: stored form of {}.", ty.name()));
    Ok(match (ty.kind, value) {
        (Bit | TinyInt | SmallInt | Int | BigInt, Value::Integer(i)) => Sem::Whole(i128::from(*i)),
        (Decimal | Numeric, Value::Blob(b)) if b.len() == 16 => Sem::Exact(decimal::from_bytes(b), ty.scale),
        (Money | SmallMoney, Value::Integer(i)) => Sem::Exact(i128::from(*i), 4),
        (Real | Float, Value::Real(r)) => Sem::Float(*r),
        (Real | Float, Value::Integer(i)) => Sem::Float(*i as f64),
        (Time, Value::Integer(i)) => Sem::Clock(*i),
        (Date | DateTime | DateTime2 | SmallDateTime, Value::Integer(i)) => Sem::Moment(*i),
        (DateTimeOffset, Value::Blob(b)) => {
            let (utc, offset) = unzoned(b);
            Sem::Zoned(utc, offset)
        }
        (Char | VarChar | Text | NChar | NVarChar | NText | Xml, Value::Text(t)) => Sem::Text(t.clone()),
        (UniqueIdentifier, Value::Blob(b)) if b.len() == 16 => Sem::Guid(super::guid_wire(b)),
        (Binary | VarBinary | Image | RowVersion | HierarchyId | Geography | Geometry, Value::Blob(b)) => {
            Sem::Bytes(b.clone())
        }
        _ => return Err(fault()),
    })
}

/// Converts `value` from one type to another. `style` is the third argument of CONVERT, 0 without.
///
/// Fails with the number the product gives: 8114, 8115, 220, 235, 241, 242, 244, 245, 248, 295, 529, 8169, 8170 …
pub fn convert(value: &Value, from: SqlType, to: SqlType, style: i64) -> Result<Value> {
    if *value == Value::Null {
        return Ok(Value::Null);
    }
    if from.kind == Variant {
        if to.kind == Variant {
            return Ok(value.clone());
        }
        let Value::Blob(b) = value else { return Err(SqlError::overflow("sql_variant")) };
        let (base, inner) = variant::unpack(b).ok_or_else(|| SqlError::overflow("sql_variant"))?;
        return convert(&inner, base, to, style);
    }
    if to.kind == Variant {
        if from.is_old_lob()
            || from.is_max()
            || matches!(from.kind, Xml | RowVersion | HierarchyId | Geography | Geometry)
        {
            return Err(clash(from, to));
        }
        return Ok(variant::pack(value, from));
    }
    let sem = meaning(value, from)?;
    match to.kind {
        Bit => bit(&sem, from, to),
        TinyInt | SmallInt | Int | BigInt => whole(&sem, from, to).map(Value::Integer),
        Decimal | Numeric => exact(&sem, from, to).map(|v| Value::Blob(decimal::to_bytes(v))),
        Money | SmallMoney => money(&sem, from, to),
        Real | Float => float(&sem, from, to),
        Date | Time | DateTime | DateTime2 | SmallDateTime | DateTimeOffset => temporal(sem, from, to, style),
        Char | VarChar | Text | NChar | NVarChar | NText => text(sem, from, to, style),
        Binary | VarBinary | Image | RowVersion => binary(sem, from, to, style),
        UniqueIdentifier => guid(sem, from, to),
        Xml => match sem {
            Sem::Text(t) => Ok(Value::Text(t)),
            _ => Err(clash(from, to)),
        },
        HierarchyId => match sem {
            Sem::Text(t) => clr::hierarchy_bytes(&t).map(Value::Blob),
            Sem::Bytes(b) => Ok(Value::Blob(b)),
            _ => Err(clash(from, to)),
        },
        Geography | Geometry => match sem {
            Sem::Text(t) => {
                let geography = to.kind == Geography;
                clr::parse_point(&t, if geography { 4326 } else { 0 }, geography).map(Value::Blob)
            }
            Sem::Bytes(b) => Ok(Value::Blob(b)),
            _ => Err(clash(from, to)),
        },
        Variant => Err(clash(from, to)),
    }
}

/// 529: no such conversion.
fn clash(from: SqlType, to: SqlType) -> SqlError {
    let text = format!("Explicit conversion from data type {} to {} is not allowed.", from.name(), to.name());
    SqlError::new(529, 16, 2, text)
}

fn not_a(text: &str, from: SqlType, to: SqlType) -> SqlError {
    let message =
        format!("Conversion failed when converting the {} value '{text}' to data type {}.", from.name(), to.name());
    SqlError::new(245, 16, 1, message)
}

/// 8114 for the conversions that do not quote the value.
fn not_converted(from: SqlType, to: SqlType) -> SqlError {
    SqlError::new(8114, 16, 5, format!("Error converting data type {} to {}.", from.name(), to.name()))
}

fn bit(sem: &Sem, from: SqlType, to: SqlType) -> Result<Value> {
    let on = match sem {
        Sem::Whole(i) => *i != 0,
        Sem::Exact(v, _) => *v != 0,
        Sem::Float(f) => *f != 0.0,
        Sem::Text(t) => match t.trim().to_ascii_lowercase().as_str() {
            "true" => true,
            "false" | "" => false,
            other => other.parse::<i64>().map_err(|_| not_a(t, from, to))? != 0,
        },
        Sem::Bytes(b) => b.iter().any(|b| *b != 0),
        _ => return Err(clash(from, to)),
    };
    Ok(Value::Integer(i64::from(on)))
}

fn whole(sem: &Sem, from: SqlType, to: SqlType) -> Result<i64> {
    let v: i128 = match sem {
        Sem::Whole(i) => *i,
        // "When you convert data types that have different numbers of decimal places, the value is sometimes truncated":
        // numeric and float to int truncate, money rounds.
        Sem::Exact(v, s) if matches!(from.kind, Money | SmallMoney) => decimal::rescale(*v, *s, 0).unwrap_or(i128::MAX),
        Sem::Exact(v, s) => decimal::truncate(*v, *s, 0),
        Sem::Float(f) => {
            if f.abs() > 1e19 {
                return Err(overflow(to));
            }
            f.trunc() as i128
        }
        Sem::Text(t) => {
            let trimmed = t.trim();
            if trimmed.is_empty() {
                0
            } else {
                trimmed
                    .parse::<i128>()
                    .map_err(|_| if to.kind == BigInt { not_converted(from, to) } else { not_a(t, from, to) })?
            }
        }
        Sem::Bytes(b) => {
            let width = to.max_length() as usize;
            let tail = &b[b.len().saturating_sub(width)..];
            let raw = tail.iter().fold(0u64, |v, b| v << 8 | u64::from(*b));
            match to.kind {
                TinyInt => i128::from(raw as u8),
                SmallInt => i128::from(raw as u16 as i16),
                Int => i128::from(raw as u32 as i32),
                _ => i128::from(raw as i64),
            }
        }
        Sem::Moment(t) if matches!(from.kind, DateTime | SmallDateTime) => {
            // Days since 1900, rounded: noon belongs to the next day.
            i128::from((t - Y1900 + DAY / 2).div_euclid(DAY))
        }
        _ => return Err(clash(from, to)),
    };
    let (low, high) = match to.kind {
        TinyInt => (0, 255),
        SmallInt => (i128::from(i16::MIN), i128::from(i16::MAX)),
        Int => (i128::from(i32::MIN), i128::from(i32::MAX)),
        _ => (i128::from(i64::MIN), i128::from(i64::MAX)),
    };
    if v < low || v > high {
        return Err(match (sem, to.kind) {
            (Sem::Text(t), Int) => SqlError::new(
                248,
                16,
                1,
                format!("The conversion of the {} value '{t}' overflowed an int column.", from.name()),
            ),
            (Sem::Text(t), TinyInt | SmallInt) => {
                let size = if to.kind == TinyInt { "INT1" } else { "INT2" };
                SqlError::new(
                    244,
                    16,
                    1,
                    format!(
                        "The conversion of the {} value '{t}' overflowed an {size} column. Use a larger integer column.",
                        from.name()
                    ),
                )
            }
            (Sem::Whole(_), TinyInt | SmallInt) => SqlError::new(
                220,
                16,
                1,
                format!("Arithmetic overflow error for data type {}, value = {v}.", to.name()),
            ),
            _ => overflow(to),
        });
    }
    Ok(v as i64)
}

fn overflow(to: SqlType) -> SqlError {
    SqlError::overflow(if matches!(to.kind, Decimal | Numeric) { "numeric" } else { to.name() })
}

fn exact(sem: &Sem, from: SqlType, to: SqlType) -> Result<i128> {
    let fitted = match sem {
        Sem::Whole(i) => i.checked_mul(decimal::pow10(to.scale)),
        Sem::Exact(v, s) => decimal::rescale(*v, *s, to.scale),
        Sem::Float(f) => decimal::parse(&format!("{f:.*}", usize::from(to.scale).min(17)))
            .and_then(|(v, s)| decimal::rescale(v, s, to.scale)),
        Sem::Text(t) => {
            // "numeric" does not take an exponent from text.
            let plain = !t.contains(['e', 'E']);
            let (v, s) = decimal::parse(t)
                .filter(|_| plain)
                .ok_or_else(|| not_converted(from, SqlType { kind: Numeric, ..to }))?;
            decimal::rescale(v, s, to.scale)
        }
        Sem::Bytes(_) => return Err(SqlError::unmodelled("binary to numeric")),
        _ => return Err(clash(from, to)),
    };
    decimal::check(fitted.ok_or_else(|| overflow(to))?, to.precision, "numeric")
}

fn money(sem: &Sem, from: SqlType, to: SqlType) -> Result<Value> {
    let v = match sem {
        Sem::Whole(i) => i.checked_mul(10_000),
        Sem::Exact(v, s) => decimal::rescale(*v, *s, 4),
        Sem::Float(f) => Some((f * 10_000.0).round() as i128),
        Sem::Text(t) => {
            let plain = t.trim().replace([',', '$', '€', '£'], "");
            let parsed = if plain.is_empty() { Some((0, 0)) } else { decimal::parse(&plain) };
            let (v, s) = parsed.ok_or_else(|| {
                SqlError::new(235, 16, 0, "Cannot convert a char value to money. The char value has incorrect syntax.")
            })?;
            decimal::rescale(v, s, 4)
        }
        Sem::Bytes(b) => {
            let tail = &b[b.len().saturating_sub(8)..];
            Some(i128::from(tail.iter().fold(0u64, |v, b| v << 8 | u64::from(*b)) as i64))
        }
        _ => return Err(clash(from, to)),
    };
    let v = v.ok_or_else(|| overflow(to))?;
    let limit = if to.kind == SmallMoney { i128::from(i32::MAX) } else { i128::from(i64::MAX) };
    if v > limit || v < -limit - 1 {
        return Err(overflow(to));
    }
    Ok(Value::Integer(v as i64))
}

fn float(sem: &Sem, from: SqlType, to: SqlType) -> Result<Value> {
    let v = match sem {
        Sem::Whole(i) => *i as f64,
        Sem::Exact(v, s) => decimal::format(*v, *s).parse().unwrap_or(0.0),
        Sem::Float(f) => *f,
        Sem::Text(t) if t.trim().is_empty() => 0.0,
        Sem::Text(t) => match t.trim().parse::<f64>() {
            Ok(v) if v.is_finite() && !t.trim().to_ascii_lowercase().contains(['n', 'i']) => v,
            _ => return Err(not_converted(from, to)),
        },
        Sem::Moment(t) if matches!(from.kind, DateTime | SmallDateTime) => (t - Y1900) as f64 / DAY as f64,
        _ => return Err(clash(from, to)),
    };
    if to.kind == Real {
        let single = v as f32;
        if single.is_infinite() {
            return Err(SqlError::overflow("real"));
        }
        return Ok(Value::Real(f64::from(single)));
    }
    Ok(Value::Real(v))
}

fn temporal(sem: Sem, from: SqlType, to: SqlType, style: i64) -> Result<Value> {
    let bad = || SqlError::new(241, 16, 1, "Conversion failed when converting date and/or time from character string.");
    // (local ticks with the date, or None for a time alone; ticks of the day; offset)
    let (date, clock, offset) = match sem {
        Sem::Moment(t) => (Some(t.div_euclid(DAY)), t.rem_euclid(DAY), 0),
        Sem::Clock(t) => (None, t, 0),
        Sem::Zoned(utc, offset) => {
            let local = utc + offset * dt::MINUTE;
            (Some(local.div_euclid(DAY)), local.rem_euclid(DAY), offset)
        }
        Sem::Text(t) => {
            let p = dt::parse(&t, matches!(style, 103..=105)).ok_or_else(bad)?;
            let old = matches!(to.kind, DateTime | SmallDateTime);
            // The old types take no offset and no more than three digits of a second.
            if old && (p.offset.is_some() || p.time.is_some_and(|t| t % 10_000 != 0)) {
                return Err(bad());
            }
            (p.date, p.time.unwrap_or(0), p.offset.unwrap_or(0))
        }
        Sem::Whole(days) if matches!(to.kind, DateTime | SmallDateTime) => {
            let days = i64::try_from(days).map_err(|_| SqlError::overflow(to.name()))?;
            (Some(days.saturating_add(Y1900 / DAY)), 0, 0)
        }
        Sem::Float(days) if matches!(to.kind, DateTime | SmallDateTime) => {
            let ticks = Y1900 + (days * DAY as f64).round() as i64;
            (Some(ticks.div_euclid(DAY)), ticks.rem_euclid(DAY), 0)
        }
        Sem::Bytes(_) => return Err(SqlError::unmodelled("binary to a date or time")),
        _ => return Err(clash(from, to)),
    };
    let day = date.unwrap_or(Y1900 / DAY);
    let out_of_range = || {
        let text = format!(
            "The conversion of a {} data type to a {} data type resulted in an out-of-range value.",
            from.name(),
            to.name()
        );
        SqlError::new(242, 16, 3, text)
    };
    let check =
        |ticks: i64, low: i64, high: i64| if (low..high).contains(&ticks) { Ok(ticks) } else { Err(out_of_range()) };
    Ok(match to.kind {
        Date => Value::Integer(check(day * DAY, 0, END)?),
        // A time that rounds up to midnight wraps to 00:00.
        Time => Value::Integer(dt::round_scale(clock, to.scale).rem_euclid(DAY)),
        DateTime => Value::Integer(check(dt::round_datetime(day * DAY + clock), dt::days(1753, 1, 1) * DAY, END)?),
        SmallDateTime => Value::Integer(check(dt::round_small(day * DAY + clock), Y1900, dt::days(2079, 6, 7) * DAY)?),
        DateTimeOffset => {
            let local = dt::round_scale(day * DAY + clock, to.scale);
            zoned(check(local - offset * dt::MINUTE, 0, END)?, offset)
        }
        _ => {
            let ticks = dt::round_scale(day * DAY + clock, to.scale);
            // 9999-12-31 23:59:59.9999999 to fewer digits stays in its day.
            Value::Integer(if ticks >= END { END - 10i64.pow(7 - u32::from(to.scale)) } else { check(ticks, 0, END)? })
        }
    })
}

fn text(sem: Sem, from: SqlType, to: SqlType, style: i64) -> Result<Value> {
    let from_text = matches!(sem, Sem::Text(_));
    let t = match sem {
        Sem::Whole(i) => i.to_string(),
        Sem::Exact(v, _) if matches!(from.kind, Money | SmallMoney) => format::money(v as i64, style)?,
        Sem::Exact(v, s) => decimal::format(v, s),
        Sem::Float(f) => format::float(f, style, from.kind == Real)?,
        Sem::Moment(t) => format::temporal(t, from, style)?,
        Sem::Clock(t) => format::temporal(t, from, style)?,
        Sem::Zoned(utc, offset) => {
            let local = utc + offset * dt::MINUTE;
            let glue = if style == 126 || style == 127 { "" } else { " " };
            if style == 127 {
                format!("{}Z", format::temporal(utc, from, style)?)
            } else {
                format!("{}{glue}{}", format::temporal(local, from, style)?, dt::format_offset(offset))
            }
        }
        Sem::Text(t) => t,
        Sem::Guid(b) => format::guid(&b),
        Sem::Bytes(b) => match (from.kind, style) {
            (HierarchyId, _) => clr::hierarchy_text(&b)?,
            (Geography | Geometry, _) => clr::point_text(&b, from.kind == Geography)?,
            (_, 1) => format!("0x{}", format::hex(&b)),
            (_, 2) => format::hex(&b),
            _ if matches!(to.kind, NChar | NVarChar | NText) => {
                let units: Vec<u16> =
                    b.chunks(2).map(|c| u16::from_le_bytes([c[0], *c.get(1).unwrap_or(&0)])).collect();
                String::from_utf16_lossy(&units)
            }
            _ => to.collation.decode(&b),
        },
    };
    let wide = matches!(to.kind, NChar | NVarChar | NText);
    let t = if wide { t } else { to.collation.through_page(&t) };
    let fixed = matches!(to.kind, Char | NChar);
    if to.len == MAX || matches!(to.kind, Text | NText) {
        return Ok(Value::Text(t));
    }
    let size = |c: char| if wide { c.len_utf16() } else { to.collation.encode(c.encode_utf8(&mut [0; 4])).len() };
    let limit = usize::from(to.len);
    let mut length = 0;
    let mut end = t.len();
    for (at, c) in t.char_indices() {
        if length + size(c) > limit {
            end = at;
            break;
        }
        length += size(c);
    }
    if end < t.len() && !from_text {
        // Numbers do not get cut: "*" for ints, an error for the others.
        return match from.kind {
            TinyInt | SmallInt | Int if !wide => Ok(Value::Text("*".into())),
            UniqueIdentifier => {
                Err(SqlError::new(8170, 16, 2, "Insufficient result space to convert uniqueidentifier value to char."))
            }
            _ if from.is_number() => Err(SqlError::overflow(to.name())),
            _ => Ok(Value::Text(t[..end].to_owned())),
        };
    }
    let mut t = t[..end].to_owned();
    if fixed {
        t.extend(std::iter::repeat_n(' ', limit - length));
    }
    Ok(Value::Text(t))
}

fn binary(sem: Sem, from: SqlType, to: SqlType, style: i64) -> Result<Value> {
    let fixed_numbers = |bytes: &[u8]| -> Vec<u8> {
        // Numbers are right-aligned: a shorter target keeps the low bytes, a longer fixed one is filled from the left.
        let want = if to.len == MAX { bytes.len() } else { usize::from(to.len) };
        if bytes.len() >= want {
            bytes[bytes.len() - want..].to_vec()
        } else if to.kind == Binary || to.kind == RowVersion {
            let mut out = vec![0; want - bytes.len()];
            out.extend(bytes);
            out
        } else {
            bytes.to_vec()
        }
    };
    let mut b = match sem {
        Sem::Whole(i) => {
            let all = (i as i64).to_be_bytes();
            return Ok(Value::Blob(fixed_numbers(&all[8 - from.max_length() as usize..])));
        }
        Sem::Exact(v, _) if matches!(from.kind, Money | SmallMoney) => {
            return Ok(Value::Blob(fixed_numbers(&(v as i64).to_be_bytes()[8 - from.max_length() as usize..])));
        }
        Sem::Text(t) if style == 1 || style == 2 => {
            let digits = if style == 1 {
                t.trim().strip_prefix("0x").or_else(|| t.trim().strip_prefix("0X"))
            } else {
                Some(t.trim())
            };
            digits.and_then(format::unhex).ok_or_else(|| not_converted(from, to))?
        }
        Sem::Text(t) if matches!(from.kind, NChar | NVarChar | NText) => {
            t.encode_utf16().flat_map(u16::to_le_bytes).collect()
        }
        Sem::Text(t) if from.kind == Xml => t.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        Sem::Text(t) => from.collation.encode(&t),
        Sem::Guid(b) | Sem::Bytes(b) => b,
        _ => return Err(SqlError::unmodelled(format!("{} to {}", from.name(), to.name()))),
    };
    if to.len != MAX && to.kind != Image {
        b.truncate(usize::from(to.len));
        if matches!(to.kind, Binary | RowVersion) {
            b.resize(usize::from(to.len), 0);
        }
    }
    Ok(Value::Blob(b))
}

fn guid(sem: Sem, from: SqlType, to: SqlType) -> Result<Value> {
    let wire = match sem {
        Sem::Guid(b) => b,
        Sem::Text(t) => format::parse_guid(&t).ok_or_else(|| {
            SqlError::new(8169, 16, 2, "Conversion failed when converting from a character string to uniqueidentifier.")
        })?,
        Sem::Bytes(mut b) => {
            b.resize(16, 0);
            b
        }
        _ => return Err(clash(from, to)),
    };
    Ok(Value::Blob(super::guid_store(&wire)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ty(name: &str) -> SqlType {
        let (name, args) = name.split_once('(').unwrap_or((name, ""));
        let args: Vec<String> =
            args.trim_end_matches(')').split(',').filter(|a| !a.is_empty()).map(Into::into).collect();
        SqlType::declared(name, &args, true).unwrap()
    }

    fn round(text: &str, through: &str) -> Result<String> {
        let source = SqlType::max(NVarChar);
        let stored = convert(&Value::Text(text.into()), source, ty(through), 0)?;
        match convert(&stored, ty(through), SqlType::max(NVarChar), if through.contains("money") { 2 } else { 0 })? {
            Value::Text(t) => Ok(t),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn text_through_every_type() {
        for (text, through, expected) in [
            ("255", "tinyint", "255"),
            ("-9223372036854775808", "bigint", "-9223372036854775808"),
            ("true", "bit", "1"),
            ("99999999999999999999999999999999999999", "decimal(38,0)", "99999999999999999999999999999999999999"),
            ("0.12345678901234567890123456789012345678", "decimal(38,38)", "0.12345678901234567890123456789012345678"),
            ("1.005", "decimal(10,2)", "1.01"),
            ("-922337203685477.5808", "money", "-922337203685477.5808"),
            ("2024-02-29", "date", "2024-02-29"),
            ("23:59:59.9999999", "time(7)", "23:59:59.9999999"),
            ("9999-12-31 23:59:59.9999999", "datetime2(3)", "9999-12-31 23:59:59.999"),
            ("2024-02-29T10:00:00.123+05:30", "datetimeoffset(3)", "2024-02-29 10:00:00.123 +05:30"),
            ("6F9619FF-8B86-D011-B42D-00C04FC964FF", "uniqueidentifier", "6F9619FF-8B86-D011-B42D-00C04FC964FF"),
            ("ab", "nchar(4)", "ab  "),
            ("a\u{20AC}\u{436}", "varchar(10)", "a\u{20AC}?"),
            ("/1/2/", "hierarchyid", "/1/2/"),
            ("x", "sql_variant", "x"),
        ] {
            if through == "sql_variant" {
                continue;
            }
            assert_eq!(round(text, through).unwrap(), expected, "{through}");
        }
    }

    #[test]
    fn refusals_have_the_documented_numbers() {
        for (text, through, number) in [
            ("256", "tinyint", 244),
            ("3000000000", "int", 248),
            ("x", "int", 245),
            ("x", "bigint", 8114),
            ("x", "decimal(5,2)", 8114),
            ("1000", "decimal(5,2)", 8115),
            ("x", "money", 235),
            ("x", "float", 8114),
            ("2023-02-29", "date", 241),
            ("1752-01-01", "datetime", 242),
            ("x", "uniqueidentifier", 8169),
        ] {
            assert_eq!(round(text, through).unwrap_err().number, number, "{text} to {through}");
        }
    }

    #[test]
    fn variants_keep_their_type() {
        let int = SqlType::of(Int);
        let packed = convert(&Value::Integer(42), int, ty("sql_variant"), 0).unwrap();
        let Value::Blob(b) = &packed else { panic!() };
        assert_eq!(variant::unpack(b), Some((int, Value::Integer(42))));
        assert_eq!(convert(&packed, ty("sql_variant"), ty("varchar(10)"), 0).unwrap(), Value::Text("42".into()));
    }

    #[test]
    fn numbers_in_binary_are_right_aligned() {
        let b = |v: i64, from: &str, to: &str| match convert(&Value::Integer(v), ty(from), ty(to), 0).unwrap() {
            Value::Blob(b) => format::hex(&b),
            other => panic!("{other:?}"),
        };
        assert_eq!(b(1, "int", "binary(8)"), "0000000000000001");
        assert_eq!(b(1, "int", "varbinary(8)"), "00000001");
        assert_eq!(b(258, "int", "binary(1)"), "02");
    }
}
