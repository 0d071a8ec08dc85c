//! Conversions between types, and the text of values, as PostgreSQL has them.

use super::civil::{self, Date, Timestamp};
use super::decimal::Dec;
use super::ir::Target;
use super::text;
use super::value::{Fault, Val, fault};
use jiff::tz::TimeZone;
use std::borrow::Cow;
use std::fmt::Write as _;

const NOT_FINITE: Fault = Fault { code: "out_of_range", what: "the number does not fit an integer" };
const ZONE_RANGE: Fault = Fault { code: "out_of_range", what: "the timestamp is outside the range of time zones" };
const BUG: Fault = Fault { code: "bug", what: "a conversion that the checker should have refused" };

/// A cast that failed because the text is not one of the type.
fn not_a<T>(what: &'static str) -> Result<T, Fault> {
    fault("cast_failed", what)
}

/// Converts `val`; null stays null.
pub(crate) fn cast<'a>(to: &Target, val: Val<'a>) -> Result<Val<'a>, Fault> {
    if val.is_null() {
        return Ok(Val::Null);
    }
    match to {
        Target::Text(limit) => {
            let s = to_text(val)?;
            Ok(Val::Text(match limit {
                Some(n) => text::left(s, i64::from(*n)),
                None => s,
            }))
        }
        Target::TextInZone(zone) => match val {
            Val::TsTz(t) => Ok(Val::string(timestamptz_text(t, zone)?)),
            other => Ok(Val::Text(to_text(other)?)),
        },
        Target::Bool => to_bool(val),
        Target::Int(bits) => to_int(val, *bits),
        Target::Decimal(shape) => {
            let d = to_decimal(val)?;
            Ok(Val::Dec(match shape {
                Some((precision, scale)) => d.fit(*precision, *scale)?,
                None => d,
            }))
        }
        Target::Float => Ok(Val::Float(to_f64(val)?)),
        Target::Real => to_real(val),
        Target::Date => to_date(val),
        Target::DateInZone(zone) => to_date(local(val, zone)?),
        Target::Time => to_time(val),
        Target::TimeInZone(zone) => to_time(local(val, zone)?),
        Target::Timestamp(digits) => round_timestamp(to_timestamp(val)?, *digits),
        Target::TimestampInZone(digits, zone) => round_timestamp(local(val, zone)?, *digits),
        Target::TimestampTz(digits) => round_timestamp(to_timestamptz(val, None)?, *digits),
        Target::TimestampTzInZone(digits, zone) => round_timestamp(to_timestamptz(val, Some(zone))?, *digits),
        Target::Uuid => to_uuid(val),
        Target::Json => match val {
            Val::Text(s) if is_json(&s) => Ok(Val::Json(s)),
            Val::Text(_) => not_a("the text is not JSON"),
            Val::Json(s) | Val::List(s) => Ok(Val::Json(s)),
            _ => Err(BUG),
        },
    }
}

/// Whether a text is one JSON document.
pub(crate) fn is_json(s: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(s).is_ok()
}

/// The text that a cast to `text` gives.
pub(crate) fn to_text(val: Val<'_>) -> Result<Cow<'_, str>, Fault> {
    Ok(match val {
        Val::Text(s) | Val::Time(s) | Val::Uuid(s) | Val::Json(s) | Val::List(s) => s,
        Val::Bool(b) => Cow::Borrowed(if b { "true" } else { "false" }),
        Val::Int(n) => Cow::Owned(itoa::Buffer::new().format(n).to_owned()),
        Val::UInt(n) => Cow::Owned(itoa::Buffer::new().format(n).to_owned()),
        Val::Float(x) => Cow::Owned(float_text(x)),
        Val::Real(x) => Cow::Owned(real_text(x)),
        Val::Dec(d) => Cow::Owned(d.to_string()),
        Val::Bytes(bytes) => {
            let mut out = String::with_capacity(2 + bytes.len() * 2);
            out.push_str("\\x");
            hex(bytes, &mut out);
            Cow::Owned(out)
        }
        Val::Date(d) => written(|out| d.write_sql(out)),
        Val::Ts(t) => written(|out| t.write_sql(None, out)),
        // With no zone set, the zone is UTC.
        Val::TsTz(t) => written(|out| t.write_sql(Some(0), out)),
        Val::Null => return Err(BUG),
    })
}

fn written<'a>(write: impl FnOnce(&mut String)) -> Cow<'a, str> {
    let mut out = String::with_capacity(32);
    write(&mut out);
    Cow::Owned(out)
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8], out: &mut String) {
    for b in bytes {
        for digit in [b >> 4, b & 15] {
            out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
}

fn timestamptz_text(t: Timestamp, zone: &TimeZone) -> Result<String, Fault> {
    let mut out = String::with_capacity(32);
    if !t.is_finite() {
        t.write_sql(None, &mut out);
        return Ok(out);
    }
    let offset = t.offset_in(zone).ok_or(ZONE_RANGE)?;
    t.utc_to_local(zone).ok_or(ZONE_RANGE)?.write_sql(Some(offset), &mut out);
    Ok(out)
}

/// The shortest text that reads back as the same double; an exponent from 1e15 on and below 1e-4.
pub(crate) fn float_text(x: f64) -> String {
    special(x).unwrap_or_else(|| exponent_text(&format!("{x:e}"), 15))
}

/// As [`float_text`] for single precision; an exponent from 1e6 on.
pub(crate) fn real_text(x: f32) -> String {
    special(f64::from(x)).unwrap_or_else(|| exponent_text(&format!("{x:e}"), 6))
}

fn special(x: f64) -> Option<String> {
    match x {
        _ if x.is_nan() => Some("NaN".into()),
        _ if x.is_infinite() => Some(if x > 0.0 { "Infinity".into() } else { "-Infinity".into() }),
        _ if x == 0.0 => Some(if x.is_sign_negative() { "-0".into() } else { "0".into() }),
        _ => None,
    }
}

/// Turns Rust's `d.ddde±x` into C's `%g` manner with the exponent's limit at `precision`.
fn exponent_text(scientific: &str, precision: i32) -> String {
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let mut out = String::with_capacity(24);
    out.push_str(sign);
    if !(-4..precision).contains(&exponent) {
        out.push_str(mantissa);
        let _ = write!(out, "e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
        return out;
    }
    let point = exponent + 1;
    match usize::try_from(point) {
        Err(_) | Ok(0) => {
            out.push_str("0.");
            out.extend(std::iter::repeat_n('0', usize::try_from(-point).unwrap_or_default()));
            out.push_str(&digits);
        }
        Ok(point) if point >= digits.len() => {
            out.push_str(&digits);
            out.extend(std::iter::repeat_n('0', point - digits.len()));
        }
        Ok(point) => {
            out.push_str(&digits[..point]);
            out.push('.');
            out.push_str(&digits[point..]);
        }
    }
    out
}

fn to_bool(val: Val<'_>) -> Result<Val<'_>, Fault> {
    match val {
        Val::Bool(_) => Ok(val),
        Val::Int(n) => Ok(Val::Bool(n != 0)),
        Val::UInt(_) => Ok(Val::Bool(true)),
        Val::Text(s) => match parse_bool(&s) {
            Some(b) => Ok(Val::Bool(b)),
            None => not_a("the text is not a boolean"),
        },
        _ => Err(BUG),
    }
}

/// PostgreSQL takes any unambiguous beginning of these words.
pub(crate) fn parse_bool(s: &str) -> Option<bool> {
    let s = s.trim_matches(|c: char| c.is_ascii_whitespace()).to_ascii_lowercase();
    match s.as_str() {
        "" => None,
        "1" | "on" => Some(true),
        "0" | "of" | "off" => Some(false),
        s if "true".starts_with(s) || "yes".starts_with(s) => Some(true),
        s if "false".starts_with(s) || "no".starts_with(s) => Some(false),
        _ => None,
    }
}

fn to_int(val: Val<'_>, bits: u8) -> Result<Val<'_>, Fault> {
    let n = match val {
        Val::Int(n) => i128::from(n),
        Val::UInt(n) => i128::from(n),
        Val::Bool(b) => i128::from(b),
        Val::Dec(d) => d.to_int()?,
        Val::Float(x) => float_to_int(x)?,
        Val::Real(x) => float_to_int(f64::from(x))?,
        Val::Text(s) => match s.trim_matches(|c: char| c.is_ascii_whitespace()).parse::<i128>() {
            Ok(n) => n,
            Err(_) => return not_a("the text is not an integer"),
        },
        _ => return Err(BUG),
    };
    let fits = match bits {
        16 => i16::try_from(n).is_ok(),
        32 => i32::try_from(n).is_ok(),
        _ => true,
    };
    if fits { Val::int(n) } else { Err(NOT_FINITE) }
}

fn float_to_int(x: f64) -> Result<i128, Fault> {
    // 2^64 bounds both integer variants; the rest is checked by the caller.
    if x.is_finite() && x.abs() < 18_446_744_073_709_551_616.0 {
        Ok(x.round_ties_even() as i128)
    } else {
        Err(NOT_FINITE)
    }
}

/// A number as a decimal. Floats go through 15 (single precision: 6) significant digits, as in PostgreSQL.
pub(crate) fn to_decimal(val: Val<'_>) -> Result<Dec, Fault> {
    let read = |s: &str| Dec::parse(s).ok_or(Fault { code: "cast_failed", what: "the text is not a number" });
    match val {
        Val::Dec(d) => Ok(d),
        Val::Int(n) => Ok(Dec::from_int(i128::from(n))),
        Val::UInt(n) => Ok(Dec::from_int(i128::from(n))),
        Val::Float(x) => read(&significant(x, 15)),
        Val::Real(x) => read(&significant(f64::from(x), 6)),
        Val::Text(s) => read(s.trim_matches(|c: char| c.is_ascii_whitespace())),
        _ => Err(BUG),
    }
}

/// `%.{digits}g` without an exponent's effect on the digits.
fn significant(x: f64, digits: usize) -> String {
    if let Some(s) = special(x) {
        return if s == "-0" { "0".into() } else { s };
    }
    let text = format!("{x:.*e}", digits - 1);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa = if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    format!("{mantissa}e{exponent}")
}

/// A number as a double.
pub(crate) fn to_f64(val: Val<'_>) -> Result<f64, Fault> {
    match val {
        Val::Float(x) => Ok(x),
        Val::Real(x) => Ok(f64::from(x)),
        Val::Int(n) => Ok(n as f64),
        Val::UInt(n) => Ok(n as f64),
        Val::Dec(d) => {
            let x = d.to_f64();
            if x.is_infinite() && d.is_finite() {
                fault("out_of_range", "the number does not fit a float")
            } else {
                Ok(x)
            }
        }
        Val::Text(s) => parse_float(&s),
        _ => Err(BUG),
    }
}

fn parse_float(s: &str) -> Result<f64, Fault> {
    let s = s.trim_matches(|c: char| c.is_ascii_whitespace());
    let word = s.trim_start_matches(['+', '-']);
    // Rust also takes words such as `infinity`; so does PostgreSQL, and nothing else that Rust would refuse or add.
    let is_word = ["nan", "inf", "infinity"].iter().any(|w| word.eq_ignore_ascii_case(w));
    match s.parse::<f64>() {
        Ok(x) if x.is_infinite() && !is_word => fault("out_of_range", "the number does not fit a float"),
        Ok(x) => Ok(x),
        Err(_) => not_a("the text is not a number"),
    }
}

fn to_real(val: Val<'_>) -> Result<Val<'_>, Fault> {
    if matches!(val, Val::Real(_)) {
        return Ok(val);
    }
    let wide = to_f64(val)?;
    let narrow = wide as f32;
    if narrow.is_infinite() && wide.is_finite() {
        return fault("out_of_range", "the number does not fit a real");
    }
    Ok(Val::Real(narrow))
}

/// A timestamp with time zone as the local time of a zone; a date or timestamp stays local.
fn local<'a>(val: Val<'a>, zone: &TimeZone) -> Result<Val<'a>, Fault> {
    match val {
        Val::TsTz(t) => t.utc_to_local(zone).map(Val::Ts).ok_or(ZONE_RANGE),
        other => to_timestamp(other),
    }
}

fn to_date(val: Val<'_>) -> Result<Val<'_>, Fault> {
    match val {
        Val::Date(_) => Ok(val),
        Val::Ts(t) => Ok(Val::Date(t.date())),
        Val::Text(s) => match Date::parse_lenient(&s) {
            Some(d) => Ok(Val::Date(d)),
            None => not_a("the text is not a date (YYYY-MM-DD)"),
        },
        _ => Err(BUG),
    }
}

fn to_time(val: Val<'_>) -> Result<Val<'_>, Fault> {
    match val {
        Val::Time(_) => Ok(val),
        Val::Ts(t) if t.is_finite() => Ok(Val::Time(written(|out| civil::write_time(t.time_of_day(), out)))),
        Val::Ts(_) => Ok(Val::Null),
        Val::Text(s) => match civil::parse_time(s.trim()) {
            Some((us, "")) => Ok(Val::Time(written(|out| civil::write_time(us, out)))),
            _ => not_a("the text is not a time (HH:MM:SS)"),
        },
        _ => Err(BUG),
    }
}

fn to_timestamp(val: Val<'_>) -> Result<Val<'_>, Fault> {
    match val {
        Val::Ts(_) => Ok(val),
        Val::Date(d) => Ok(Val::Ts(d.at_midnight())),
        // An offset in the text is ignored, as in PostgreSQL.
        Val::Text(s) => match Timestamp::parse_lenient(&s) {
            Some((t, _)) => Ok(Val::Ts(t)),
            None => not_a("the text is not a timestamp (YYYY-MM-DD HH:MM:SS)"),
        },
        _ => Err(BUG),
    }
}

fn to_timestamptz<'a>(val: Val<'a>, zone: Option<&TimeZone>) -> Result<Val<'a>, Fault> {
    let in_zone = |t: Timestamp| match zone {
        Some(zone) => t.local_to_utc(zone).map(Val::TsTz).ok_or(ZONE_RANGE),
        None => fault("cast_failed", "the text has no offset, and no time zone is set"),
    };
    match val {
        Val::TsTz(_) => Ok(val),
        Val::Ts(t) => in_zone(t),
        Val::Date(d) => in_zone(d.at_midnight()),
        Val::Text(s) => match Timestamp::parse_lenient(&s) {
            Some((t, _)) if !t.is_finite() => Ok(Val::TsTz(t)),
            Some((t, Some(offset))) => match t.0.checked_sub(i64::from(offset) * 1_000_000) {
                Some(us) => Ok(Val::TsTz(Timestamp(us))),
                None => Err(ZONE_RANGE),
            },
            Some((t, None)) => in_zone(t),
            None => not_a("the text is not a timestamp (YYYY-MM-DD HH:MM:SS+00)"),
        },
        _ => Err(BUG),
    }
}

fn round_timestamp(val: Val<'_>, digits: u8) -> Result<Val<'_>, Fault> {
    let step = 10_i64.pow(u32::from(6 - digits.min(6)));
    let round = |t: Timestamp| {
        if step == 1 || !t.is_finite() {
            return t;
        }
        Timestamp(t.0.saturating_add(step / 2).div_euclid(step).saturating_mul(step))
    };
    Ok(match val {
        Val::Ts(t) => Val::Ts(round(t)),
        Val::TsTz(t) => Val::TsTz(round(t)),
        other => other,
    })
}

fn to_uuid(val: Val<'_>) -> Result<Val<'_>, Fault> {
    match val {
        Val::Uuid(_) => Ok(val),
        Val::Text(s) => match parse_uuid(&s) {
            Some(uuid) => Ok(Val::Uuid(Cow::Owned(uuid))),
            None => not_a("the text is not a UUID"),
        },
        _ => Err(BUG),
    }
}

/// 32 hexadecimal digits, with hyphens after any group of four, optionally in braces.
fn parse_uuid(s: &str) -> Option<String> {
    let s = s.trim();
    let inner = s.strip_prefix('{').map_or(Some(s), |rest| rest.strip_suffix('}'))?;
    let mut digits = String::with_capacity(36);
    let mut count = 0;
    for c in inner.chars() {
        if c == '-' && count > 0 && count % 4 == 0 && count < 32 {
            continue;
        }
        if !c.is_ascii_hexdigit() || count == 32 {
            return None;
        }
        if matches!(count, 8 | 12 | 16 | 20) {
            digits.push('-');
        }
        digits.push(c.to_ascii_lowercase());
        count += 1;
    }
    (count == 32).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_postgresql_writes_them() {
        for (x, expected) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (-2.5e-7, "-2.5e-07"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (123_456_789_012_345.6, "123456789012345.6"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (-0.0, "-0"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(float_text(x), expected);
        }
        assert_eq!(real_text(0.1), "0.1");
        assert_eq!(real_text(1e6), "1e+06");
        assert_eq!(real_text(100_000.0), "100000");
    }

    #[test]
    fn uuids_come_in_several_dresses() {
        let wanted = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        for s in [
            "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
            "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
            "a0eebc999c0b4ef8bb6d6bb9bd380a11",
            "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11",
        ] {
            assert_eq!(parse_uuid(s).as_deref(), Some(wanted), "{s}");
        }
        for s in ["", "a0ee", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1g", "a-0eebc999c0b4ef8bb6d6bb9bd380a11", "{a0ee"] {
            assert_eq!(parse_uuid(s), None, "{s}");
        }
    }

    #[test]
    fn a_decimal_from_a_float_has_fifteen_digits() {
        let dec = |x| to_decimal(Val::Float(x)).expect("finite").to_string();
        assert_eq!(dec(0.1), "0.1");
        assert_eq!(dec(1.0 / 3.0), "0.333333333333333");
        assert_eq!(dec(1e20), "100000000000000000000");
        assert_eq!(to_decimal(Val::Real(0.1)).expect("finite").to_string(), "0.1");
    }
}
