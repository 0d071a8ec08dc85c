//! Values, rows and keys.
//!
//! A [`Row`] keeps all its bytes in one buffer and one 16-byte cell per column, so that a row costs two allocations
//! whatever its width, and reading a value ([`Row::get`]) costs none. Values are typed but kept in a *canonical text*
//! wherever text is the exact form (decimals, dates, JSON): connectors normalise once, everything downstream copies.

use std::fmt;

/// One value of a row, borrowed from it.
///
/// Canonical forms (R11: a connector yields the same form from snapshot and from tail):
///
/// | variant | form |
/// |---|---|
/// | `Decimal` | plain decimal digits with the scale kept (`-12.50`), or `NaN`, `Infinity`, `-Infinity` |
/// | `Date` | `YYYY-MM-DD`, or `infinity`, `-infinity`; years BC as signed ISO 8601 years (`-0043-03-15`, where year 0 is 1 BC) |
/// | `Time` | `HH:MM:SS[.ffffff]` without trailing zeros in the fraction; with an offset `+HH:MM[:SS]` if the type has one |
/// | `Timestamp` | `YYYY-MM-DDTHH:MM:SS[.ffffff]` (same year rules as `Date`), no zone |
/// | `TimestampTz` | as `Timestamp`, in UTC, with the suffix `Z` (`infinity` has none) |
/// | `Uuid` | lower-case, hyphenated |
/// | `Json` | the document's text as the source has it |
/// | `List` | a JSON array text whose elements follow the rules of the type table |
/// | `Text` | UTF-8 |
#[derive(Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// The log did not carry this column; what the source holds is unknown here. Never the same as null (R4).
    Unchanged,
    /// Boolean.
    Bool(bool),
    /// Signed integer.
    Int(i64),
    /// Unsigned integer above `i64::MAX` (smaller ones come as `Int`).
    UInt(u64),
    /// Double precision; may be NaN or infinite.
    Float(f64),
    /// Single precision, kept apart because its shortest text differs from the widened double's.
    Real(f32),
    /// Exact decimal, canonical text.
    Decimal(&'a str),
    /// Character data.
    Text(&'a str),
    /// Binary data.
    Bytes(&'a [u8]),
    /// Calendar date.
    Date(&'a str),
    /// Time of day.
    Time(&'a str),
    /// Timestamp without zone.
    Timestamp(&'a str),
    /// Timestamp with zone, in UTC.
    TimestampTz(&'a str),
    /// UUID.
    Uuid(&'a str),
    /// JSON document text.
    Json(&'a str),
    /// List of values as a JSON array text.
    List(&'a str),
}

impl Value<'_> {
    /// Whether this is SQL NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// Whether the log left this column out.
    pub fn is_unchanged(&self) -> bool {
        matches!(self, Value::Unchanged)
    }

    /// Bytes of payload, used in `Debug` output and in memory accounting.
    pub fn len(&self) -> usize {
        match self {
            Value::Null | Value::Unchanged => 0,
            Value::Bool(_) => 1,
            Value::Real(_) => 4,
            Value::Int(_) | Value::UInt(_) | Value::Float(_) => 8,
            Value::Bytes(b) => b.len(),
            Value::Decimal(s)
            | Value::Text(s)
            | Value::Date(s)
            | Value::Time(s)
            | Value::Timestamp(s)
            | Value::TimestampTz(s)
            | Value::Uuid(s)
            | Value::Json(s)
            | Value::List(s) => s.len(),
        }
    }

    /// Whether there is no payload.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The variant's name, for messages that must not show the value (R9).
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Unchanged => "unchanged",
            Value::Bool(_) => "boolean",
            Value::Int(_) => "integer",
            Value::UInt(_) => "unsigned integer",
            Value::Float(_) => "double",
            Value::Real(_) => "real",
            Value::Decimal(_) => "decimal",
            Value::Text(_) => "text",
            Value::Bytes(_) => "bytes",
            Value::Date(_) => "date",
            Value::Time(_) => "time",
            Value::Timestamp(_) => "timestamp",
            Value::TimestampTz(_) => "timestamp with time zone",
            Value::Uuid(_) => "uuid",
            Value::Json(_) => "json",
            Value::List(_) => "list",
        }
    }
}

/// Prints the kind and the length, never the value (R9, P8).
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null | Value::Unchanged => f.write_str(self.kind()),
            _ => write!(f, "{}({} B)", self.kind(), self.len()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Tag {
    Null,
    Unchanged,
    Bool,
    Int,
    UInt,
    Float,
    Real,
    Decimal,
    Text,
    Bytes,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Uuid,
    Json,
    List,
}

/// Scalars keep their bits in `bits`; everything else keeps `offset << 32 | length` into the row's buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Cell {
    bits: u64,
    tag: Tag,
}

/// One row: cells in the order of its [`crate::TableSchema`]'s columns.
#[derive(Clone, PartialEq, Eq)]
pub struct Row {
    cells: Box<[Cell]>,
    data: Box<[u8]>,
}

impl Row {
    /// Number of columns.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether the row has no columns.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The value in column `index`; a column beyond the row's width is [`Value::Unchanged`] (the log did not carry it).
    #[inline]
    pub fn get(&self, index: usize) -> Value<'_> {
        match self.cells.get(index) {
            Some(cell) => self.read(*cell),
            None => Value::Unchanged,
        }
    }

    /// All values in column order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'_>> {
        self.cells.iter().map(|cell| self.read(*cell))
    }

    /// Whether any column is [`Value::Unchanged`].
    pub fn is_partial(&self) -> bool {
        self.cells.iter().any(|c| c.tag == Tag::Unchanged)
    }

    /// Bytes this row holds on the heap.
    pub fn memory(&self) -> usize {
        self.data.len() + self.cells.len() * size_of::<Cell>()
    }

    /// The row that has `self`'s values, and `base`'s where `self` has none (unchanged).
    pub fn filled_from(&self, base: &Row) -> Row {
        let mut out = RowBuilder::with_capacity(self.len(), self.data.len() + 64);
        for (index, value) in self.iter().enumerate() {
            out.push(if value.is_unchanged() { base.get(index) } else { value });
        }
        out.finish()
    }

    #[inline]
    fn read(&self, cell: Cell) -> Value<'_> {
        let bytes = || {
            let start = (cell.bits >> 32) as usize;
            let len = (cell.bits & 0xffff_ffff) as usize;
            self.data.get(start..start + len).unwrap_or_default()
        };
        // Text was checked when it was pushed; the check is repeated because this crate has no unsafe code, and costs
        // a few nanoseconds per value (measured in `make bench`).
        let text = || std::str::from_utf8(bytes()).unwrap_or_default();
        match cell.tag {
            Tag::Null => Value::Null,
            Tag::Unchanged => Value::Unchanged,
            Tag::Bool => Value::Bool(cell.bits != 0),
            Tag::Int => Value::Int(i64::from_ne_bytes(cell.bits.to_ne_bytes())),
            Tag::UInt => Value::UInt(cell.bits),
            Tag::Float => Value::Float(f64::from_bits(cell.bits)),
            Tag::Real => Value::Real(f32::from_bits(cell.bits as u32)),
            Tag::Decimal => Value::Decimal(text()),
            Tag::Text => Value::Text(text()),
            Tag::Bytes => Value::Bytes(bytes()),
            Tag::Date => Value::Date(text()),
            Tag::Time => Value::Time(text()),
            Tag::Timestamp => Value::Timestamp(text()),
            Tag::TimestampTz => Value::TimestampTz(text()),
            Tag::Uuid => Value::Uuid(text()),
            Tag::Json => Value::Json(text()),
            Tag::List => Value::List(text()),
        }
    }
}

/// Prints columns by position with kinds and lengths, never values (R9, P8).
impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Builds a [`Row`] column by column.
#[derive(Default)]
pub struct RowBuilder {
    cells: Vec<Cell>,
    data: Vec<u8>,
}

impl RowBuilder {
    /// A builder with room for `columns` cells and `bytes` of payload.
    pub fn with_capacity(columns: usize, bytes: usize) -> Self {
        Self { cells: Vec::with_capacity(columns), data: Vec::with_capacity(bytes) }
    }

    /// Appends one value.
    #[inline]
    pub fn push(&mut self, value: Value<'_>) {
        let cell = match value {
            Value::Null => Cell { tag: Tag::Null, bits: 0 },
            Value::Unchanged => Cell { tag: Tag::Unchanged, bits: 0 },
            Value::Bool(b) => Cell { tag: Tag::Bool, bits: u64::from(b) },
            Value::Int(i) => Cell { tag: Tag::Int, bits: u64::from_ne_bytes(i.to_ne_bytes()) },
            // One number has one form, so that equal values are equal rows.
            Value::UInt(u) => match i64::try_from(u) {
                Ok(i) => return self.push(Value::Int(i)),
                Err(_) => Cell { tag: Tag::UInt, bits: u },
            },
            Value::Float(x) => Cell { tag: Tag::Float, bits: x.to_bits() },
            Value::Real(x) => Cell { tag: Tag::Real, bits: u64::from(x.to_bits()) },
            Value::Decimal(s) => self.bytes(Tag::Decimal, s.as_bytes()),
            Value::Text(s) => self.bytes(Tag::Text, s.as_bytes()),
            Value::Bytes(b) => self.bytes(Tag::Bytes, b),
            Value::Date(s) => self.bytes(Tag::Date, s.as_bytes()),
            Value::Time(s) => self.bytes(Tag::Time, s.as_bytes()),
            Value::Timestamp(s) => self.bytes(Tag::Timestamp, s.as_bytes()),
            Value::TimestampTz(s) => self.bytes(Tag::TimestampTz, s.as_bytes()),
            Value::Uuid(s) => self.bytes(Tag::Uuid, s.as_bytes()),
            Value::Json(s) => self.bytes(Tag::Json, s.as_bytes()),
            Value::List(s) => self.bytes(Tag::List, s.as_bytes()),
        };
        self.cells.push(cell);
    }

    /// Number of values pushed so far.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether nothing was pushed yet.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The finished row.
    pub fn finish(self) -> Row {
        Row { cells: self.cells.into_boxed_slice(), data: self.data.into_boxed_slice() }
    }

    #[inline]
    fn bytes(&mut self, tag: Tag, bytes: &[u8]) -> Cell {
        let start = self.data.len() as u64;
        self.data.extend_from_slice(bytes);
        Cell { tag, bits: start << 32 | bytes.len() as u64 }
    }
}

/// The key of a source row, in one canonical byte form: equal keys have equal bytes.
///
/// Each key column contributes one letter for its type, its length (4 bytes, big endian) and its canonical text.
/// The bytes are stable across releases (they are stored), ordered arbitrarily, and reversible ([`RowKey::values`]).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey(Box<[u8]>);

impl RowKey {
    /// The key of `row`, whose key columns are at `columns`; `None` if one of them is unchanged.
    pub fn of(row: &Row, columns: &[usize]) -> Option<Self> {
        let mut out = Vec::with_capacity(columns.len() * 16);
        for &index in columns {
            let mut part = |letter: u8, bytes: &[u8]| {
                out.push(letter);
                out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
                out.extend_from_slice(bytes);
            };
            match row.get(index) {
                Value::Unchanged => return None,
                Value::Null => part(b'0', b""),
                Value::Bool(b) => part(b'?', if b { b"true" } else { b"false" }),
                Value::Int(i) => part(b'i', i.to_string().as_bytes()),
                Value::UInt(u) => part(b'i', u.to_string().as_bytes()),
                Value::Float(x) => part(b'f', x.to_string().as_bytes()),
                Value::Real(x) => part(b'f', x.to_string().as_bytes()),
                Value::Decimal(s) => part(b'n', s.as_bytes()),
                Value::Text(s) => part(b't', s.as_bytes()),
                Value::Bytes(b) => part(b'b', b),
                Value::Date(s) => part(b'd', s.as_bytes()),
                Value::Time(s) => part(b'h', s.as_bytes()),
                Value::Timestamp(s) => part(b's', s.as_bytes()),
                Value::TimestampTz(s) => part(b'z', s.as_bytes()),
                Value::Uuid(s) => part(b'u', s.as_bytes()),
                Value::Json(s) => part(b'j', s.as_bytes()),
                Value::List(s) => part(b'l', s.as_bytes()),
            }
        }
        Some(Self(out.into_boxed_slice()))
    }

    /// A key from its stored bytes; `None` if they are not one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let key = Self(bytes.into());
        key.values().is_some().then_some(key)
    }

    /// The stored form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The canonical value of each key column as `(type letter, bytes)`; text for every letter but `b` (binary).
    /// Null has the letter `0`. `None` if the bytes are malformed.
    pub fn values(&self) -> Option<Vec<(u8, &[u8])>> {
        let mut rest = &self.0[..];
        let mut out = Vec::new();
        while let Some((&letter, tail)) = rest.split_first() {
            let (len, tail) = tail.split_first_chunk::<4>()?;
            let len = u32::from_be_bytes(*len) as usize;
            out.push((letter, tail.get(..len)?));
            rest = tail.get(len..)?;
        }
        Some(out)
    }
}

/// Prints the length only: keys are row values (R9, P8).
impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowKey({} B)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[Value<'_>]) -> Row {
        let mut b = RowBuilder::default();
        for v in values {
            b.push(*v);
        }
        b.finish()
    }

    #[test]
    fn values_come_back_as_they_went_in() {
        let values = [
            Value::Null,
            Value::Unchanged,
            Value::Bool(true),
            Value::Int(-7),
            Value::UInt(u64::MAX),
            Value::Float(0.1),
            Value::Real(0.1),
            Value::Decimal("1.50"),
            Value::Text("ü"),
            Value::Bytes(&[0, 255]),
            Value::Json("{}"),
        ];
        let row = row(&values);
        assert!(row.iter().eq(values));
        assert_eq!(row.get(99), Value::Unchanged);
    }

    #[test]
    fn a_small_unsigned_number_is_the_same_value_as_a_signed_one() {
        assert_eq!(row(&[Value::UInt(5)]), row(&[Value::Int(5)]));
    }

    #[test]
    fn debug_shows_no_values() {
        let text = format!("{:?}", row(&[Value::Text("secret"), Value::Int(42)]));
        assert_eq!(text, "[text(6 B), integer(8 B)]");
        let key = RowKey::of(&row(&[Value::Text("secret")]), &[0]).expect("complete");
        assert!(!format!("{key:?}").contains("secret"));
    }

    #[test]
    fn keys_are_reversible_and_do_not_run_into_each_other() {
        let a = RowKey::of(&row(&[Value::Text("ab"), Value::Text("c")]), &[0, 1]).expect("complete");
        let b = RowKey::of(&row(&[Value::Text("a"), Value::Text("bc")]), &[0, 1]).expect("complete");
        assert_ne!(a, b);
        assert_eq!(a.values().expect("well formed"), [(b't', &b"ab"[..]), (b't', &b"c"[..])]);
        assert_eq!(RowKey::from_bytes(a.as_bytes()), Some(a.clone()));
        assert_eq!(RowKey::from_bytes(&a.as_bytes()[..3]), None);
        assert_eq!(RowKey::of(&row(&[Value::Unchanged]), &[0]), None);
    }

    #[test]
    fn filling_keeps_what_the_log_carried() {
        let tail = row(&[Value::Int(1), Value::Unchanged, Value::Null]);
        let base = row(&[Value::Int(0), Value::Text("kept"), Value::Text("old")]);
        assert_eq!(tail.filled_from(&base), row(&[Value::Int(1), Value::Text("kept"), Value::Null]));
    }
}
