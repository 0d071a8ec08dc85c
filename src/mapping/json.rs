//! Values as JSON text. A plain column is copied, escaped where it must be, without becoming anything in between.

use super::expr::cast::{float_text, is_json, real_text};
use super::expr::civil::Timestamp;
use super::expr::decimal::Dec;
use super::expr::value::{Fault, Val, fault};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::tz::TimeZone;
use tidemark_contract::Value;

/// Integers beyond this are not exact in many readers of JSON, and go as text.
const MAX_EXACT: u64 = 1 << 53;

/// What the CRM takes for a field, as far as it changes how a value is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Output {
    /// By the value's own type: decimals as text, floats that are not finite as text.
    ByType,
    /// Decimals as numbers; numbers that are not finite are refused.
    Number,
    /// As `Number`; numbers that are not whole are refused.
    Integer,
}

/// Appends `s` as a JSON string.
#[inline]
pub(crate) fn write_text(out: &mut Vec<u8>, s: &str) {
    out.push(b'"');
    let bytes = s.as_bytes();
    let mut from = 0;
    while let Some(at) = next_escape(bytes, from) {
        let byte = bytes[at];
        let escape = ESCAPES[usize::from(byte)];
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        out.push(b'\\');
        out.push(escape);
        if escape == b'u' {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            let [high, low] = [byte >> 4, byte & 15].map(|n| HEX[usize::from(n)]);
            out.extend_from_slice(&[b'0', b'0', high, low]);
        }
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

/// The next byte from `from` on that a JSON string may not hold as it is. Looks at eight bytes at a time.
#[inline]
fn next_escape(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = &bytes[from..];
    let (words, _) = rest.as_chunks::<8>();
    let clean = words.iter().take_while(|word| !may_need_escape(u64::from_ne_bytes(**word))).count() * 8;
    rest[clean..].iter().position(|byte| ESCAPES[usize::from(*byte)] != 0).map(|at| from + clean + at)
}

/// Whether one of eight bytes may be a control character, a quote or a backslash: certain if not.
#[inline]
fn may_need_escape(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // The high bit of a byte is set if the byte was below `n` (up to 0x80), or if a lower byte was and borrowed.
    let below = |x: u64, n: u64| x.wrapping_sub(ONES * n) & !x;
    let quote = word ^ (ONES * u64::from(b'"'));
    let backslash = word ^ (ONES * u64::from(b'\\'));
    (below(word, 0x20) | below(quote, 1) | below(backslash, 1)) & HIGH != 0
}

/// The letter after the backslash for each byte that needs one; 0 for the others.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut n = 0;
    while n < 0x20 {
        table[n] = b'u';
        n += 1;
    }
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'\t' as usize] = b't';
    table[8] = b'b';
    table[12] = b'f';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table
};

fn write_bool(out: &mut Vec<u8>, b: bool) {
    out.extend_from_slice(if b { b"true" } else { b"false" });
}

fn write_int(out: &mut Vec<u8>, n: i64) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(n);
    if n.unsigned_abs() <= MAX_EXACT {
        out.extend_from_slice(digits.as_bytes());
    } else {
        write_text(out, digits);
    }
}

fn write_uint(out: &mut Vec<u8>, n: u64) {
    write_text(out, itoa::Buffer::new().format(n));
}

const NOT_FINITE: Fault = Fault { code: "not_finite", what: "NaN and infinity are no JSON numbers" };
const NOT_WHOLE: Fault = Fault { code: "not_whole", what: "the CRM takes whole numbers here" };

/// A float that is not finite has no number in JSON: its text where any value may stand, else refused.
fn check_float(out: &mut Vec<u8>, x: f64, text: &str, output: Output) -> Result<bool, Fault> {
    match (x.is_finite(), output) {
        (true, Output::Integer) if x.fract() != 0.0 => Err(NOT_WHOLE),
        (true, Output::Integer) => {
            // `1` rather than `1.0`: the field is declared to be whole.
            if x.abs() < 9.0e15 {
                write_int(out, x as i64);
                return Ok(false);
            }
            Ok(true)
        }
        (true, _) => Ok(true),
        (false, Output::ByType) => {
            write_text(out, text);
            Ok(false)
        }
        (false, _) => Err(NOT_FINITE),
    }
}

fn write_f64(out: &mut Vec<u8>, x: f64, output: Output) -> Result<(), Fault> {
    let special = if x.is_finite() { String::new() } else { float_text(x) };
    if check_float(out, x, &special, output)? {
        out.extend_from_slice(ryu::Buffer::new().format_finite(x).as_bytes());
    }
    Ok(())
}

fn write_f32(out: &mut Vec<u8>, x: f32, output: Output) -> Result<(), Fault> {
    let special = if x.is_finite() { String::new() } else { real_text(x) };
    if check_float(out, f64::from(x), &special, output)? {
        out.extend_from_slice(ryu::Buffer::new().format_finite(x).as_bytes());
    }
    Ok(())
}

fn write_decimal(out: &mut Vec<u8>, digits: &str, output: Output) -> Result<(), Fault> {
    if output == Output::ByType {
        write_text(out, digits);
        return Ok(());
    }
    if !is_number(digits) {
        return Err(NOT_FINITE);
    }
    if output == Output::Integer {
        match digits.split_once('.') {
            Some((_, fraction)) if fraction.bytes().any(|b| b != b'0') => return Err(NOT_WHOLE),
            Some((whole, _)) => return write_decimal(out, whole, Output::Number),
            None => {}
        }
    }
    out.extend_from_slice(digits.as_bytes());
    Ok(())
}

/// Whether plain digits are a JSON number: no leading zeros, digits on both sides of a point.
fn is_number(s: &str) -> bool {
    let s = s.strip_prefix('-').unwrap_or(s);
    let (whole, fraction) = s.split_once('.').unwrap_or((s, "0"));
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    digits(whole) && digits(fraction) && (whole.len() == 1 || !whole.starts_with('0'))
}

fn write_json(out: &mut Vec<u8>, text: &str) -> Result<(), Fault> {
    // A text that is no JSON would spoil the whole request, not only this record.
    if !is_json(text) {
        return fault("bad_value", "the source's JSON cannot be read");
    }
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    let room = base64::encoded_len(bytes.len(), true).unwrap_or_default();
    out.resize(start + room, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]).unwrap_or_default();
    out.truncate(start + written);
    out.push(b'"');
}

/// A local time as the instant it is in `zone`.
fn write_in_zone(out: &mut Vec<u8>, local: Timestamp, zone: &TimeZone) -> Result<(), Fault> {
    match local.local_to_utc(zone) {
        Some(utc) => write_instant(out, utc, true),
        None => return fault("out_of_range", "the timestamp is outside the range of time zones"),
    }
    Ok(())
}

fn write_instant(out: &mut Vec<u8>, t: Timestamp, utc: bool) {
    let mut text = String::with_capacity(32);
    t.write(&mut text);
    if utc && t.is_finite() {
        text.push('Z');
    }
    write_text(out, &text);
}

/// Appends a column's value as it is. `zone` is the zone of timestamps without one.
#[inline]
pub(crate) fn write_value(
    out: &mut Vec<u8>,
    value: Value<'_>,
    output: Output,
    zone: Option<&TimeZone>,
) -> Result<(), Fault> {
    match value {
        Value::Text(s) | Value::Date(s) | Value::Time(s) | Value::TimestampTz(s) | Value::Uuid(s) => write_text(out, s),
        Value::Null => out.extend_from_slice(b"null"),
        Value::Int(n) => write_int(out, n),
        Value::UInt(n) => write_uint(out, n),
        Value::Bool(b) => write_bool(out, b),
        Value::Float(x) => write_f64(out, x, output)?,
        Value::Real(x) => write_f32(out, x, output)?,
        Value::Decimal(s) => write_decimal(out, s, output)?,
        Value::Timestamp(s) => match zone {
            None => write_text(out, s),
            Some(_) if s.ends_with("infinity") => write_text(out, s),
            Some(zone) if *zone == TimeZone::UTC => {
                write_text(out, s);
                out.pop();
                out.extend_from_slice(b"Z\"");
            }
            Some(zone) => match Timestamp::parse_canonical(s) {
                Some(local) => write_in_zone(out, local, zone)?,
                None => return fault("bad_value", "the source's timestamp is outside the range known here"),
            },
        },
        Value::Bytes(b) => write_bytes(out, b),
        Value::Json(s) | Value::List(s) => write_json(out, s)?,
        Value::Unchanged => return fault("unchanged", "the log did not carry a column that is needed"),
    }
    Ok(())
}

/// Appends a computed value.
pub(crate) fn write_val(
    out: &mut Vec<u8>,
    val: &Val<'_>,
    output: Output,
    zone: Option<&TimeZone>,
) -> Result<(), Fault> {
    match val {
        Val::Null => out.extend_from_slice(b"null"),
        Val::Bool(b) => write_bool(out, *b),
        Val::Int(n) => write_int(out, *n),
        Val::UInt(n) => write_uint(out, *n),
        Val::Float(x) => write_f64(out, *x, output)?,
        Val::Real(x) => write_f32(out, *x, output)?,
        Val::Dec(d) => write_dec(out, d, output)?,
        Val::Text(s) | Val::Time(s) | Val::Uuid(s) => write_text(out, s),
        Val::Bytes(b) => write_bytes(out, b),
        Val::Date(d) => {
            let mut text = String::with_capacity(12);
            d.write(&mut text);
            write_text(out, &text);
        }
        Val::Ts(t) => match zone {
            Some(zone) => write_in_zone(out, *t, zone)?,
            None => write_instant(out, *t, false),
        },
        Val::TsTz(t) => write_instant(out, *t, true),
        Val::Json(s) | Val::List(s) => write_json(out, s)?,
    }
    Ok(())
}

fn write_dec(out: &mut Vec<u8>, d: &Dec, output: Output) -> Result<(), Fault> {
    write_decimal(out, &d.to_string(), output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(value: Value<'_>, output: Output, zone: Option<&TimeZone>) -> Result<String, &'static str> {
        let mut out = Vec::new();
        write_value(&mut out, value, output, zone).map_err(|f| f.code)?;
        Ok(String::from_utf8(out).expect("UTF-8"))
    }

    fn plain(value: Value<'_>) -> String {
        json(value, Output::ByType, None).expect("a value")
    }

    #[test]
    fn values_follow_the_table_of_the_format() {
        assert_eq!(plain(Value::Int(9_007_199_254_740_992)), "9007199254740992");
        assert_eq!(plain(Value::Int(-9_007_199_254_740_993)), "\"-9007199254740993\"");
        assert_eq!(plain(Value::UInt(u64::MAX)), "\"18446744073709551615\"");
        assert_eq!(plain(Value::Decimal("12.50")), "\"12.50\"");
        assert_eq!(plain(Value::Float(0.1)), "0.1");
        assert_eq!(plain(Value::Real(0.1)), "0.1");
        assert_eq!(plain(Value::Float(f64::NAN)), "\"NaN\"");
        assert_eq!(plain(Value::Bytes(&[0, 255, 1])), "\"AP8B\"");
        assert_eq!(plain(Value::Null), "null");
        assert_eq!(plain(Value::Json("{\"a\": [1]}")), "{\"a\": [1]}");
        assert_eq!(plain(Value::Timestamp("2024-07-01T12:00:00.5")), "\"2024-07-01T12:00:00.5\"");
    }

    #[test]
    fn numbers_of_the_crm_are_numbers() {
        assert_eq!(json(Value::Decimal("-12.50"), Output::Number, None), Ok("-12.50".into()));
        assert_eq!(json(Value::Decimal("12.00"), Output::Integer, None), Ok("12".into()));
        assert_eq!(json(Value::Decimal("12.50"), Output::Integer, None), Err("not_whole"));
        assert_eq!(json(Value::Decimal("NaN"), Output::Number, None), Err("not_finite"));
        assert_eq!(json(Value::Float(f64::INFINITY), Output::Number, None), Err("not_finite"));
        assert_eq!(json(Value::Float(3.0), Output::Integer, None), Ok("3".into()));
    }

    #[test]
    fn timestamps_get_their_zone() {
        let berlin = TimeZone::get("Europe/Berlin").expect("zone data");
        let ts = Value::Timestamp("2024-07-01T12:00:00.5");
        assert_eq!(json(ts, Output::ByType, Some(&berlin)), Ok("\"2024-07-01T10:00:00.5Z\"".into()));
        assert_eq!(json(ts, Output::ByType, Some(&TimeZone::UTC)), Ok("\"2024-07-01T12:00:00.5Z\"".into()));
        assert_eq!(json(Value::Timestamp("-infinity"), Output::ByType, Some(&berlin)), Ok("\"-infinity\"".into()));
    }

    #[test]
    fn json_that_is_none_is_refused() {
        assert_eq!(json(Value::Json("{"), Output::ByType, None), Err("bad_value"));
        assert_eq!(json(Value::List("[1,\"a\"]"), Output::ByType, None), Ok("[1,\"a\"]".into()));
    }

    proptest! {
        #[test]
        fn every_text_comes_back(s in any::<String>()) {
            let text = plain(Value::Text(&s));
            prop_assert_eq!(serde_json::from_str::<String>(&text).expect("JSON"), s);
        }

        #[test]
        fn every_float_comes_back(x in any::<f64>()) {
            if x.is_finite() {
                let json = plain(Value::Float(x));
                prop_assert!(serde_json::from_str::<serde_json::Number>(&json).is_ok());
                prop_assert_eq!(json.parse::<f64>().expect("a number"), x);
            }
        }
    }
}
