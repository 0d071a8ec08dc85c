//! PostgreSQL's text output → [`Value`]: pure, and the only decoder. Snapshot and tail both read text produced under the
//! same session settings, so the same row gives the same values from both (R11).
//!
//! What a type becomes:
//!
//! | native type | value |
//! |---|---|
//! | boolean | `Bool` |
//! | smallint, integer, bigint, oid, xid, cid, xid8 | `Int` (`UInt` above `i64::MAX`) |
//! | real / double precision | `Real` / `Float`; NaN and infinities included |
//! | numeric | `Decimal`, any number of digits, `NaN`, `Infinity` |
//! | text, varchar, char(n) (padded, as the server prints it), name, "char", enums, citext, xml | `Text` |
//! | interval (ISO 8601), money (as the database's `lc_monetary` prints it), bit strings, ranges, network and geometric types, anything unknown | `Text`, as printed |
//! | bytea | `Bytes` |
//! | date, time, timetz, timestamp, timestamptz | `Date`, `Time`, `Time` with offset, `Timestamp`, `TimestampTz` |
//! | uuid | `Uuid` |
//! | json, jsonb | `Json`, as printed |
//! | hstore, composite types | `Json`: an object |
//! | arrays of any dimension | `List`; lower bounds other than 1 are not kept |
//! | a domain | as its base type |
//!
//! Text that is not UTF-8 can only come from a database in encoding `SQL_ASCII`, where the server checks nothing. Such a
//! value is passed on as `Bytes`: nothing is lost or guessed, and the mapping sets the record aside.

use crate::nested::{self, NestedError};
use std::sync::Arc;
use tidemark_contract::{LogicalType, RowBuilder, Value};

/// How the text of a type is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Bool,
    Int,
    Float4,
    Float8,
    Numeric,
    Text,
    Bytea,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Uuid,
    Json,
    Hstore,
    Array(Arc<ArrayKind>),
    Composite(Arc<CompositeKind>),
}

/// An array type.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct ArrayKind {
    /// What its elements are.
    pub(crate) element: Kind,
    /// What stands between them: a comma, for all built-in types but `box`.
    pub(crate) delimiter: u8,
}

/// A composite type.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct CompositeKind {
    /// Its name, for messages.
    pub(crate) name: Box<str>,
    /// Its attributes, in order.
    pub(crate) attributes: Vec<(Box<str>, Kind)>,
}

impl Kind {
    /// What the mapping's checker sees.
    pub(crate) fn logical(&self) -> LogicalType {
        match self {
            Kind::Bool => LogicalType::Bool,
            Kind::Int => LogicalType::Int,
            Kind::Float4 | Kind::Float8 => LogicalType::Float,
            Kind::Numeric => LogicalType::Decimal,
            Kind::Text => LogicalType::Text,
            Kind::Bytea => LogicalType::Bytes,
            Kind::Date => LogicalType::Date,
            Kind::Time | Kind::TimeTz => LogicalType::Time,
            Kind::Timestamp => LogicalType::Timestamp,
            Kind::TimestampTz => LogicalType::TimestampTz,
            Kind::Uuid => LogicalType::Uuid,
            Kind::Json | Kind::Hstore | Kind::Composite(_) => LogicalType::Json,
            Kind::Array(_) => LogicalType::List,
        }
    }

    /// Bytes that a value of `length` bytes of text takes in a row's buffer; exact for all but nested and rare values,
    /// where it only costs a reallocation.
    #[inline]
    pub(crate) fn payload(&self, length: usize) -> usize {
        match self {
            Kind::Bool | Kind::Int | Kind::Float4 | Kind::Float8 => 0,
            Kind::Bytea => length.saturating_sub(2) / 2,
            Kind::TimestampTz => length.saturating_sub(2),
            _ => length,
        }
    }
}

/// Why a value cannot be decoded. Says nothing about the value itself (R9).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum DecodeError {
    /// The text is not what the type prints.
    Malformed(&'static str),
    /// A composite value has another number of attributes than its type has now: the type was altered.
    CompositeChanged(Box<str>),
}

impl From<NestedError> for DecodeError {
    fn from(error: NestedError) -> Self {
        match error {
            NestedError::Malformed(what) => DecodeError::Malformed(what),
            NestedError::CompositeChanged(name) => DecodeError::CompositeChanged(name),
        }
    }
}

/// Appends the value whose text is `text` to `row`. `scratch` is room for rewritten text, kept by the caller so that no
/// value costs an allocation.
#[inline]
pub(crate) fn push(kind: &Kind, text: &[u8], row: &mut RowBuilder, scratch: &mut Vec<u8>) -> Result<(), DecodeError> {
    let value = match kind {
        Kind::Bool => Value::Bool(boolean(text).ok_or(DecodeError::Malformed("boolean"))?),
        Kind::Int => integer(text).ok_or(DecodeError::Malformed("integer"))?,
        Kind::Text => match str::from_utf8(text) {
            Ok(text) => Value::Text(text),
            Err(_) => Value::Bytes(text),
        },
        Kind::Json => match str::from_utf8(text) {
            Ok(text) => Value::Json(text),
            Err(_) => Value::Bytes(text),
        },
        Kind::Uuid => Value::Uuid(uuid(text).ok_or(DecodeError::Malformed("uuid"))?),
        Kind::Numeric => Value::Decimal(numeric(text).ok_or(DecodeError::Malformed("numeric"))?),
        Kind::Float8 => Value::Float(float(text).ok_or(DecodeError::Malformed("double precision"))?),
        Kind::Float4 => Value::Real(float(text).ok_or(DecodeError::Malformed("real"))?),
        Kind::Bytea => {
            scratch.clear();
            unhex(text, scratch).ok_or(DecodeError::Malformed("bytea"))?;
            Value::Bytes(scratch)
        }
        Kind::Date | Kind::Time | Kind::TimeTz | Kind::Timestamp | Kind::TimestampTz => {
            scratch.clear();
            canonical_time(kind, text, scratch).ok_or(DecodeError::Malformed("date or time"))?;
            let text = str::from_utf8(scratch).map_err(|_| DecodeError::Malformed("date or time"))?;
            match kind {
                Kind::Date => Value::Date(text),
                Kind::Time | Kind::TimeTz => Value::Time(text),
                Kind::Timestamp => Value::Timestamp(text),
                _ => Value::TimestampTz(text),
            }
        }
        Kind::Hstore | Kind::Composite(_) | Kind::Array(_) => {
            if str::from_utf8(text).is_err() {
                row.push(Value::Bytes(text));
                return Ok(());
            }
            scratch.clear();
            nested::write_json(kind, text, scratch, 0)?;
            let json = str::from_utf8(scratch).map_err(|_| DecodeError::Malformed("nested value"))?;
            if matches!(kind, Kind::Array(_)) { Value::List(json) } else { Value::Json(json) }
        }
    };
    row.push(value);
    Ok(())
}

pub(crate) fn boolean(text: &[u8]) -> Option<bool> {
    match text {
        b"t" => Some(true),
        b"f" => Some(false),
        _ => None,
    }
}

#[inline]
fn integer(text: &[u8]) -> Option<Value<'static>> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    let mut number: u64 = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    if negative { 0_i64.checked_sub_unsigned(number).map(Value::Int) } else { Some(Value::UInt(number)) }
}

/// Rust reads what PostgreSQL prints: shortest digits, `NaN`, `Infinity`, `-Infinity`.
fn float<F: std::str::FromStr>(text: &[u8]) -> Option<F> {
    str::from_utf8(text).ok()?.parse().ok()
}

pub(crate) fn numeric(text: &[u8]) -> Option<&str> {
    // Without early exits: such loops become a few wide instructions.
    let plain = text.iter().fold(true, |ok, b| ok & (b.is_ascii_digit() | (*b == b'-') | (*b == b'.')));
    if (plain && text.last().is_some_and(u8::is_ascii_digit)) || matches!(text, b"NaN" | b"Infinity" | b"-Infinity") {
        return str::from_utf8(text).ok();
    }
    None
}

pub(crate) fn uuid(text: &[u8]) -> Option<&str> {
    let fits = text.len() == 36
        && text.iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
        });
    if fits { str::from_utf8(text).ok() } else { None }
}

/// `\x00ff` → bytes.
pub(crate) fn unhex(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let digits = text.strip_prefix(b"\\x")?;
    if digits.len() % 2 != 0 {
        return None;
    }
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    out.reserve(digits.len() / 2);
    for pair in digits.chunks_exact(2) {
        out.push(digit(pair[0])? << 4 | digit(pair[1])?);
    }
    Some(())
}

/// Rewrites a date or time from PostgreSQL's ISO style into the canonical form: `T` between date and time, a signed ISO
/// year instead of `BC`, offsets as `+HH:MM`, and `Z` for UTC.
pub(crate) fn canonical_time(kind: &Kind, text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    if matches!(text, b"infinity" | b"-infinity") && !matches!(kind, Kind::Time | Kind::TimeTz) {
        out.extend_from_slice(text);
        return Some(());
    }
    let clock_chars = |t: &[u8]| t.iter().fold(true, |ok, b| ok & (b.is_ascii_digit() | (*b == b':') | (*b == b'.')));
    match kind {
        Kind::Time => {
            if text.len() < 8 || !clock_chars(text) {
                return None;
            }
            out.extend_from_slice(text);
        }
        Kind::TimeTz => {
            let at = text.iter().rposition(|b| matches!(b, b'+' | b'-'))?;
            let (clock, offset) = text.split_at(at);
            if clock.len() < 8 || !clock_chars(clock) || offset.len() < 3 || !clock_chars(&offset[1..]) {
                return None;
            }
            out.extend_from_slice(text);
            if offset.len() == 3 {
                out.extend_from_slice(b":00");
            }
        }
        Kind::Date | Kind::Timestamp | Kind::TimestampTz => {
            let (text, before_christ) = match text.strip_suffix(b" BC") {
                Some(rest) => (rest, true),
                None => (text, false),
            };
            let space = if text.get(10) == Some(&b' ') { Some(10) } else { memchr::memchr(b' ', text) };
            let (date, clock) = match space {
                Some(at) if !matches!(kind, Kind::Date) => (&text[..at], Some(&text[at + 1..])),
                None if matches!(kind, Kind::Date) => (text, None),
                _ => return None,
            };
            canonical_date(date, before_christ, out)?;
            if let Some(clock) = clock {
                out.push(b'T');
                let clock = if matches!(kind, Kind::TimestampTz) { clock.strip_suffix(b"+00")? } else { clock };
                if clock.len() < 8 || !clock_chars(clock) {
                    return None;
                }
                out.extend_from_slice(clock);
                if matches!(kind, Kind::TimestampTz) {
                    out.push(b'Z');
                }
            }
        }
        _ => return None,
    }
    Some(())
}

/// `0044-03-15` in the year 44 BC → `-0043-03-15`; 1 BC is the year 0.
fn canonical_date(date: &[u8], before_christ: bool, out: &mut Vec<u8>) -> Option<()> {
    let dash = if date.get(4) == Some(&b'-') { 4 } else { memchr::memchr(b'-', date)? };
    let (year, rest) = date.split_at(dash);
    if year.len() < 4 || rest.len() != 6 || rest[3] != b'-' {
        return None;
    }
    let digits = |text: &[u8]| text.iter().fold(true, |ok, b| ok & b.is_ascii_digit());
    if !(digits(year) && digits(&rest[1..3]) && digits(&rest[4..])) {
        return None;
    }
    if before_christ {
        let year: u32 = str::from_utf8(year).ok()?.parse().ok()?;
        let year = year.checked_sub(1)?;
        let text = if year == 0 { "0000".to_owned() } else { format!("-{year:04}") };
        out.extend_from_slice(text.as_bytes());
    } else {
        out.extend_from_slice(year);
    }
    out.extend_from_slice(rest);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(kind: &Kind, text: &str) -> String {
        let mut row = RowBuilder::default();
        match push(kind, text.as_bytes(), &mut row, &mut Vec::new()) {
            Err(e) => format!("{e:?}"),
            Ok(()) => match row.finish().get(0) {
                Value::Bool(b) => b.to_string(),
                Value::Int(i) => i.to_string(),
                Value::UInt(u) => format!("u{u}"),
                Value::Float(x) => x.to_string(),
                Value::Real(x) => x.to_string(),
                Value::Bytes(b) => format!("{b:?}"),
                Value::Decimal(s)
                | Value::Text(s)
                | Value::Date(s)
                | Value::Time(s)
                | Value::Timestamp(s)
                | Value::TimestampTz(s)
                | Value::Uuid(s)
                | Value::Json(s)
                | Value::List(s) => s.to_owned(),
                other => other.kind().to_owned(),
            },
        }
    }

    #[test]
    fn numbers() {
        for (kind, text, wanted) in [
            (Kind::Int, "-9223372036854775808", "-9223372036854775808"),
            (Kind::Int, "9223372036854775807", "9223372036854775807"),
            (Kind::Int, "18446744073709551615", "u18446744073709551615"),
            (Kind::Int, "0", "0"),
            (Kind::Float8, "1e+300", &1e300_f64.to_string()),
            (Kind::Float8, "NaN", "NaN"),
            (Kind::Float4, "-Infinity", "-inf"),
            (Kind::Float4, "0.1", "0.1"),
            (Kind::Numeric, "-0.000100", "-0.000100"),
            (Kind::Numeric, "NaN", "NaN"),
            (Kind::Bool, "t", "true"),
        ] {
            assert_eq!(decode(&kind, text), wanted);
        }
        for (kind, text) in [
            (Kind::Int, ""),
            (Kind::Int, "-"),
            (Kind::Int, "1a"),
            (Kind::Int, "18446744073709551616"),
            (Kind::Int, "-9223372036854775809"),
            (Kind::Numeric, "1e5"),
            (Kind::Numeric, "-"),
            (Kind::Bool, "true"),
            (Kind::Float8, "x"),
        ] {
            assert!(decode(&kind, text).starts_with("Malformed"), "{text}");
        }
    }

    #[test]
    fn dates_and_times() {
        for (kind, text, wanted) in [
            (Kind::Date, "2024-02-29", "2024-02-29"),
            (Kind::Date, "0044-03-15 BC", "-0043-03-15"),
            (Kind::Date, "0001-12-31 BC", "0000-12-31"),
            (Kind::Date, "5874897-12-31", "5874897-12-31"),
            (Kind::Date, "infinity", "infinity"),
            (Kind::Time, "24:00:00", "24:00:00"),
            (Kind::Time, "01:02:03.004", "01:02:03.004"),
            (Kind::TimeTz, "04:05:06.7-08", "04:05:06.7-08:00"),
            (Kind::TimeTz, "04:05:06+05:30", "04:05:06+05:30"),
            (Kind::TimeTz, "04:05:06+15:59:59", "04:05:06+15:59:59"),
            (Kind::Timestamp, "2024-01-02 03:04:05.000006", "2024-01-02T03:04:05.000006"),
            (Kind::Timestamp, "-infinity", "-infinity"),
            (Kind::Timestamp, "4713-01-01 00:00:00 BC", "-4712-01-01T00:00:00"),
            (Kind::TimestampTz, "2024-01-02 03:04:05+00", "2024-01-02T03:04:05Z"),
            (Kind::TimestampTz, "0044-03-15 12:00:00+00 BC", "-0043-03-15T12:00:00Z"),
            (Kind::TimestampTz, "294276-12-31 23:59:59.999999+00", "294276-12-31T23:59:59.999999Z"),
            (Kind::TimestampTz, "infinity", "infinity"),
        ] {
            assert_eq!(decode(&kind, text), wanted);
        }
        for (kind, text) in [
            (Kind::TimestampTz, "2024-01-02 03:04:05+01"),
            (Kind::TimestampTz, "2024-01-02 03:04:05"),
            (Kind::Timestamp, "2024-01-02"),
            (Kind::Date, "2024-01-02 03:04:05"),
            (Kind::Date, "02/01/2024"),
            (Kind::Time, "infinity"),
            (Kind::TimeTz, "04:05:06"),
        ] {
            assert!(decode(&kind, text).starts_with("Malformed"), "{text}");
        }
    }

    #[test]
    fn bytes_and_identifiers() {
        assert_eq!(decode(&Kind::Bytea, "\\x00ff"), "[0, 255]");
        assert_eq!(decode(&Kind::Bytea, "\\x"), "[]");
        assert!(decode(&Kind::Bytea, "\\x0").starts_with("Malformed"));
        assert!(decode(&Kind::Bytea, "abc").starts_with("Malformed"));
        let id = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        assert_eq!(decode(&Kind::Uuid, id), id);
        assert!(decode(&Kind::Uuid, &id.to_uppercase()).starts_with("Malformed"));
    }

    #[test]
    fn text_that_is_not_utf8_is_passed_on_as_bytes() {
        let mut row = RowBuilder::default();
        push(&Kind::Text, &[b'a', 0xff], &mut row, &mut Vec::new()).unwrap();
        assert_eq!(row.finish().get(0), Value::Bytes(&[b'a', 0xff]));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..80)) {
            for kind in crate::nested::tests::all_kinds() {
                let mut row = RowBuilder::default();
                let _ = push(&kind, &text, &mut row, &mut Vec::new());
            }
        }

        #[test]
        fn integers_round_trip(i in any::<i64>()) {
            prop_assert_eq!(decode(&Kind::Int, &i.to_string()), i.to_string());
        }

        #[test]
        fn floats_round_trip(x in any::<f64>()) {
            prop_assert_eq!(decode(&Kind::Float8, &x.to_string()), x.to_string());
        }
    }
}
