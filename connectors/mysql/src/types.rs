//! Column types, and values as the text protocol gives them.

use crate::MysqlConfig;
use crate::charset::Charset;
use crate::error::undecodable;
use crate::geometry;
use crate::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tidemark_contract::{LogicalType, Result, Row, RowBuilder, TableId, Value};

/// What becomes of dates that no calendar has (`0000-00-00`, `2024-00-00`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum ZeroDates {
    /// They become null, and are counted.
    #[default]
    Null,
    /// They come as bytes, as text does that is none: no mapping takes that for a date, and the record is set aside.
    Reject,
    /// They become this date (`YYYY-MM-DD`), at midnight where there is a time.
    Fixed(Box<str>),
}

/// How many dates that no calendar has were met, by column. Clones share the counts.
#[derive(Clone, Debug, Default)]
pub struct ZeroDateCounts(Arc<Mutex<MetByColumn>>);

type MetByColumn = BTreeMap<(Box<str>, Box<str>), Arc<AtomicU64>>;

impl ZeroDateCounts {
    /// Table (`database.table`), column, and the number, for each column that has met one.
    pub fn all(&self) -> Vec<(String, String, u64)> {
        let counts = crate::locked(&self.0);
        let all = counts
            .iter()
            .map(|((table, column), met)| (table.to_string(), column.to_string(), met.load(Ordering::Relaxed)));
        all.filter(|(_, _, met)| *met > 0).collect()
    }

    fn of(&self, table: &TableId, column: &str) -> Arc<AtomicU64> {
        crate::locked(&self.0).entry((table.to_string().into(), column.into())).or_default().clone()
    }
}

/// The policy of one column, and how many zero dates it has met.
#[derive(Debug, Default)]
pub(crate) struct ZeroPolicy {
    pub(crate) policy: ZeroDates,
    /// The column is one of a key.
    in_key: bool,
    column: Box<str>,
    met: Arc<AtomicU64>,
}

impl ZeroPolicy {
    /// What the configuration says about a column.
    pub(crate) fn of(config: &MysqlConfig, table: &TableId, column: &str) -> Self {
        let policy = config.zero_dates_of(table, column).clone();
        let met = config.zero_dates_met.of(table, column);
        Self { policy, in_key: false, column: format!("{table}.{column}").into(), met }
    }

    fn count(&self) {
        let met = self.met.fetch_add(1, Ordering::Relaxed) + 1;
        // Told when the number gets a digit more, so that a full table of them does not fill the log.
        if met == 10_u64.pow(met.ilog10()) {
            tracing::warn!(column = &*self.column, met, policy = ?self.policy, "a date that no calendar has");
        }
    }

    /// Appends what a zero date becomes; `native` is the server's text for it.
    pub(crate) fn push(&self, native: &str, with_time: Option<&str>, row: &mut RowBuilder) {
        self.count();
        match (&self.policy, with_time) {
            _ if self.in_key => row.push(Value::Text(native)),
            (ZeroDates::Null, _) => row.push(Value::Null),
            (ZeroDates::Reject, _) => row.push(Value::Bytes(native.as_bytes())),
            (ZeroDates::Fixed(date), None) => row.push(Value::Date(date)),
            (ZeroDates::Fixed(date), Some("Z")) => row.push(Value::TimestampTz(&format!("{date}T00:00:00Z"))),
            (ZeroDates::Fixed(date), Some(_)) => row.push(Value::Timestamp(&format!("{date}T00:00:00"))),
        }
    }
}

/// What a column's values are, whichever way they come.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Int {
        unsigned: bool,
    },
    Float,
    Double,
    Decimal,
    Year,
    /// A bit string of this many bits; one bit is a boolean.
    Bit(u32),
    Date(Arc<ZeroPolicy>),
    Time,
    DateTime(Arc<ZeroPolicy>),
    Timestamp(Arc<ZeroPolicy>),
    /// Text, or bytes if the character set is `binary`. The number is the width to which a BINARY is filled up with zeros.
    Text(Charset, Option<u32>),
    /// The labels, and the character set in which results show them.
    Enum(Arc<[Box<str>]>, Charset),
    Set(Arc<[Box<str>]>, Charset),
    /// MySQL's JSON, binary in the log.
    Json,
    /// MariaDB's JSON: a text.
    JsonText(Charset),
    Geometry,
    Uuid,
    Inet4,
    Inet6,
    /// Single-precision numbers.
    Vector,
}

impl Kind {
    /// Whether there are values of it that no calendar has.
    pub(crate) fn has_zero_dates(&self) -> bool {
        matches!(self, Kind::Date(_) | Kind::DateTime(_) | Kind::Timestamp(_))
    }

    /// The same in a table's key: what no calendar has stays its text, so that the row keeps its key.
    pub(crate) fn in_key(self) -> Self {
        let keep = |zero: Arc<ZeroPolicy>| {
            let (column, met) = (zero.column.clone(), zero.met.clone());
            Arc::new(ZeroPolicy { policy: zero.policy.clone(), in_key: true, column, met })
        };
        match self {
            Kind::Date(zero) => Kind::Date(keep(zero)),
            Kind::DateTime(zero) => Kind::DateTime(keep(zero)),
            Kind::Timestamp(zero) => Kind::Timestamp(keep(zero)),
            other => other,
        }
    }

    pub(crate) fn logical(&self) -> LogicalType {
        match self {
            Kind::Int { .. } | Kind::Year => LogicalType::Int,
            Kind::Float | Kind::Double => LogicalType::Float,
            Kind::Decimal => LogicalType::Decimal,
            Kind::Bit(1) => LogicalType::Bool,
            Kind::Bit(_) => LogicalType::Int,
            Kind::Date(_) => LogicalType::Date,
            Kind::Time => LogicalType::Time,
            Kind::DateTime(_) => LogicalType::Timestamp,
            Kind::Timestamp(_) => LogicalType::TimestampTz,
            Kind::Text(Charset::Binary, _) => LogicalType::Bytes,
            Kind::Text(..) | Kind::Enum(..) | Kind::Inet4 | Kind::Inet6 => LogicalType::Text,
            Kind::Set(..) | Kind::Vector => LogicalType::List,
            Kind::Json | Kind::JsonText(_) | Kind::Geometry => LogicalType::Json,
            Kind::Uuid => LogicalType::Uuid,
        }
    }

    /// The expression that reads a column without losing anything: single-precision numbers are widened, because they are
    /// shown with six digits only.
    pub(crate) fn select(&self, column: &str) -> String {
        match self {
            Kind::Float | Kind::Double => format!("{column} + 0e0"),
            _ => column.to_owned(),
        }
    }
}

/// Buffers kept from value to value.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) text: String,
    pub(crate) text2: String,
    /// Bytes of values in the row before, which the next one will have too, more or less.
    room: usize,
}

impl Scratch {
    /// A builder for a row of so many columns.
    pub(crate) fn row(&self, columns: usize) -> RowBuilder {
        RowBuilder::with_capacity(columns, self.room)
    }

    /// Takes the size of a row for the next one's.
    pub(crate) fn learn(&mut self, row: &Row) {
        // A single large row must not make every later one ask for as much.
        self.room = row.memory().saturating_sub(row.len() * CELL).min(16 << 10);
    }
}

/// What a row takes for each of its columns beside the values' own bytes.
const CELL: usize = 16;

fn malformed() -> tidemark_contract::SourceError {
    undecodable("a value of a result is not of its column's type")
}

fn ascii(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| malformed())
}

fn integer(text: &str) -> Result<Value<'static>> {
    if let Ok(i) = text.parse::<i64>() {
        return Ok(Value::Int(i));
    }
    text.parse::<u64>().map(Value::UInt).map_err(|_| malformed())
}

/// Appends a value of the text protocol.
pub(crate) fn push_text(kind: &Kind, bytes: Option<&[u8]>, row: &mut RowBuilder, scratch: &mut Scratch) -> Result<()> {
    let Some(bytes) = bytes else {
        row.push(Value::Null);
        return Ok(());
    };
    match kind {
        Kind::Int { .. } | Kind::Year => row.push(integer(ascii(bytes)?)?),
        // Widened on the server: the conversion back is exact.
        Kind::Float => row.push(Value::Real(ascii(bytes)?.parse::<f64>().map_err(|_| malformed())? as f32 + 0.0)),
        Kind::Double => row.push(Value::Float(ascii(bytes)?.parse::<f64>().map_err(|_| malformed())? + 0.0)),
        Kind::Decimal => push_decimal(ascii(bytes)?, row, scratch),
        Kind::Bit(bits) => push_bits(*bits, bytes, row)?,
        Kind::Date(zero) => push_date(ascii(bytes)?, zero, row),
        Kind::Time => row.push(Value::Time(without_zeros(ascii(bytes)?))),
        Kind::DateTime(zero) => push_datetime(ascii(bytes)?, zero, "", row, scratch),
        Kind::Timestamp(zero) => push_datetime(ascii(bytes)?, zero, "Z", row, scratch),
        Kind::Text(Charset::Binary, _) => row.push(Value::Bytes(bytes)),
        Kind::Text(charset, _) => charset.push(bytes, row, &mut scratch.text),
        Kind::Enum(_, charset) => row.push(Value::Text(&charset.text(bytes))),
        Kind::Set(_, charset) => {
            let text = charset.text(bytes);
            push_labels(text.split(',').filter(|_| !text.is_empty()), row, scratch);
        }
        Kind::Json => row.push(Value::Json(ascii(bytes)?)),
        Kind::JsonText(charset) => push_json_text(*charset, bytes, row, scratch),
        Kind::Geometry => geometry::push(bytes, row, scratch)?,
        Kind::Uuid => row.push(Value::Uuid(ascii(bytes)?)),
        Kind::Inet4 | Kind::Inet6 => row.push(Value::Text(ascii(bytes)?)),
        Kind::Vector => push_vector(bytes, row, scratch)?,
    }
    Ok(())
}

/// A text that is a JSON document, or plain text if its bytes are not its character set's.
pub(crate) fn push_json_text(charset: Charset, bytes: &[u8], row: &mut RowBuilder, scratch: &mut Scratch) {
    if charset == Charset::Utf8 {
        match std::str::from_utf8(bytes) {
            Ok(text) => row.push(Value::Json(text)),
            Err(_) => row.push(Value::Bytes(bytes)),
        }
    } else {
        row.push(Value::Json(&charset.text(bytes)));
        scratch.text.clear();
    }
}

/// A decimal without the zeros that ZEROFILL puts in front.
fn push_decimal(text: &str, row: &mut RowBuilder, scratch: &mut Scratch) {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text),
    };
    let zeros = digits.bytes().take_while(|b| *b == b'0').count();
    let whole_zero = digits.as_bytes().get(zeros).is_none_or(|b| *b == b'.');
    let from = zeros - usize::from(whole_zero && zeros > 0);
    if from == 0 {
        return row.push(Value::Decimal(text));
    }
    scratch.text.clear();
    scratch.text.push_str(sign);
    scratch.text.push_str(&digits[from..]);
    row.push(Value::Decimal(&scratch.text));
}

/// Bits, high byte first: a boolean if there is one, else a number.
pub(crate) fn push_bits(bits: u32, bytes: &[u8], row: &mut RowBuilder) -> Result<()> {
    if bytes.len() > 8 {
        return Err(malformed());
    }
    let value = bytes.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    row.push(if bits == 1 { Value::Bool(value != 0) } else { Value::UInt(value) });
    Ok(())
}

/// Whether a date (`YYYY-MM-DD…`) has a year-less, month-less or day-less form that no calendar has.
pub(crate) fn is_zero_date(text: &str) -> bool {
    text.starts_with("0000-00-00") || text.get(5..7) == Some("00") || text.get(8..10) == Some("00")
}

/// Appends a date (`YYYY-MM-DD`).
pub(crate) fn push_date(text: &str, zero: &ZeroPolicy, row: &mut RowBuilder) {
    if is_zero_date(text) {
        zero.push(text, None, row);
    } else {
        row.push(Value::Date(text));
    }
}

/// Appends a date and time (`YYYY-MM-DD HH:MM:SS[.f]`); `suffix` is `Z` for points in time.
pub(crate) fn push_datetime(text: &str, zero: &ZeroPolicy, suffix: &str, row: &mut RowBuilder, scratch: &mut Scratch) {
    let text = without_zeros(text);
    if is_zero_date(text) {
        return zero.push(text, Some(suffix), row);
    }
    let out = &mut scratch.text2;
    out.clear();
    out.push_str(text.get(..10).unwrap_or_default());
    out.push('T');
    out.push_str(text.get(11..).unwrap_or_default());
    out.push_str(suffix);
    row.push(if suffix.is_empty() { Value::Timestamp(out) } else { Value::TimestampTz(out) });
}

/// A time without zeros at the end of its fraction.
pub(crate) fn without_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// Appends labels as a JSON list.
pub(crate) fn push_labels<'a>(labels: impl Iterator<Item = &'a str>, row: &mut RowBuilder, scratch: &mut Scratch) {
    let out = &mut scratch.text2;
    out.clear();
    out.push('[');
    for (at, label) in labels.enumerate() {
        if at > 0 {
            out.push(',');
        }
        json::quote(label, out);
    }
    out.push(']');
    row.push(Value::List(out));
}

/// Appends single-precision numbers (little-endian) as a JSON list.
pub(crate) fn push_vector(bytes: &[u8], row: &mut RowBuilder, scratch: &mut Scratch) -> Result<()> {
    if !bytes.len().is_multiple_of(4) {
        return Err(malformed());
    }
    let out = &mut scratch.text2;
    out.clear();
    out.push('[');
    for (at, chunk) in bytes.chunks_exact(4).enumerate() {
        let number = f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        let comma = if at > 0 { "," } else { "" };
        let _ = if number.is_finite() { write!(out, "{comma}{number}") } else { write!(out, "{comma}null") };
    }
    out.push(']');
    row.push(Value::List(out));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: &Kind, text: &str) -> String {
        let mut row = RowBuilder::default();
        push_text(kind, Some(text.as_bytes()), &mut row, &mut Scratch::default()).unwrap();
        match row.finish().get(0) {
            Value::Decimal(s) | Value::Date(s) | Value::Time(s) | Value::Timestamp(s) | Value::TimestampTz(s) => {
                s.into()
            }
            Value::List(s) => s.into(),
            Value::Int(i) => i.to_string(),
            Value::UInt(u) => u.to_string(),
            other => other.kind().into(),
        }
    }

    #[test]
    fn texts_take_their_canonical_form() {
        let zero = || Arc::new(ZeroPolicy::default());
        let labels: Arc<[Box<str>]> = Arc::from(["a".into(), "b".into()]);
        for (kind, text, wanted) in [
            (Kind::Int { unsigned: true }, "18446744073709551615", "18446744073709551615"),
            (Kind::Int { unsigned: true }, "00042", "42"),
            (Kind::Decimal, "-0.50", "-0.50"),
            (Kind::Decimal, "0000012.50", "12.50"),
            (Kind::Decimal, "000.50", "0.50"),
            (Kind::Decimal, "000", "0"),
            (Kind::Time, "-838:59:59.120000", "-838:59:59.12"),
            (Kind::Time, "10:20:00", "10:20:00"),
            (Kind::Date(zero()), "2024-02-29", "2024-02-29"),
            (Kind::Date(zero()), "2024-00-01", "null"),
            (Kind::DateTime(zero()), "2024-02-29 01:02:03.000", "2024-02-29T01:02:03"),
            (Kind::DateTime(zero()), "0000-00-00 00:00:00", "null"),
            (Kind::Timestamp(zero()), "2024-02-29 01:02:03.250000", "2024-02-29T01:02:03.25Z"),
            (Kind::Set(labels.clone(), Charset::Utf8), "a,b", r#"["a","b"]"#),
            (Kind::Set(labels, Charset::Utf8), "", "[]"),
        ] {
            assert_eq!(shown(&kind, text), wanted, "{text}");
        }
    }

    #[test]
    fn zero_dates_follow_the_policy() {
        let fixed = |policy| Arc::new(ZeroPolicy { policy, ..ZeroPolicy::default() });
        assert_eq!(shown(&Kind::Date(fixed(ZeroDates::Reject)), "0000-00-00"), "bytes");
        assert_eq!(shown(&Kind::Date(fixed(ZeroDates::Null)).in_key(), "0000-00-00"), "text");
        let epoch = ZeroDates::Fixed("1970-01-01".into());
        assert_eq!(shown(&Kind::Date(fixed(epoch.clone())), "0000-00-00"), "1970-01-01");
        assert_eq!(shown(&Kind::Timestamp(fixed(epoch)), "0000-00-00 00:00:00"), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_row_has_room_for_what_the_one_before_had() {
        let mut scratch = Scratch::default();
        let mut row = scratch.row(3);
        for value in [Value::Int(1), Value::Text("twelve bytes"), Value::Null] {
            row.push(value);
        }
        scratch.learn(&row.finish());
        assert_eq!(scratch.room, 12);
    }

    #[test]
    fn zero_dates_are_counted_by_column() {
        let config = MysqlConfig::new("h", 1, "d", "u");
        let table = TableId::new("s", "t");
        for column in ["a", "b", "a"] {
            let kind = Kind::Date(Arc::new(ZeroPolicy::of(&config, &table, column)));
            shown(&kind, "2024-01-01");
            if column == "a" {
                shown(&kind, "0000-00-00");
            }
        }
        assert_eq!(config.zero_dates_met.all(), [("s.t".to_owned(), "a".to_owned(), 2)]);
    }

    #[test]
    fn values_of_another_type_are_errors() {
        for (kind, bytes) in
            [(Kind::Int { unsigned: false }, &b"x"[..]), (Kind::Double, b"1.x"), (Kind::Bit(9), &[0; 9])]
        {
            assert!(push_text(&kind, Some(bytes), &mut RowBuilder::default(), &mut Scratch::default()).is_err());
        }
    }
}
