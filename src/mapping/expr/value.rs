//! Values at evaluation time, and the ways an evaluation can fail.

use super::civil;
use super::decimal::Dec;
use std::borrow::Cow;
use std::fmt;
use tidemark_contract::{RowBuilder, Value};

/// One value while an expression is evaluated: borrowed from the row or the program where possible.
#[derive(Clone)]
pub(crate) enum Val<'a> {
    /// SQL NULL.
    Null,
    Bool(bool),
    Int(i64),
    /// Above `i64::MAX`.
    UInt(u64),
    Float(f64),
    /// Single precision: its text is shorter than the widened double's.
    Real(f32),
    Dec(Dec),
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
    Date(civil::Date),
    /// Time of day in the connector's canonical text (it may carry an offset).
    Time(Cow<'a, str>),
    Ts(civil::Timestamp),
    /// In UTC.
    TsTz(civil::Timestamp),
    Uuid(Cow<'a, str>),
    Json(Cow<'a, str>),
    List(Cow<'a, str>),
}

/// Prints the kind, never the value (P8).
impl fmt::Debug for Val<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Val::Null => "null",
            Val::Bool(_) => "boolean",
            Val::Int(_) | Val::UInt(_) => "integer",
            Val::Float(_) | Val::Real(_) => "float",
            Val::Dec(_) => "decimal",
            Val::Text(_) => "text",
            Val::Bytes(_) => "bytes",
            Val::Date(_) => "date",
            Val::Time(_) => "time",
            Val::Ts(_) => "timestamp",
            Val::TsTz(_) => "timestamp with time zone",
            Val::Uuid(_) => "uuid",
            Val::Json(_) => "json",
            Val::List(_) => "list",
        })
    }
}

/// Why a function or conversion failed: a stable word and a sentence, neither with values in it (P8). The node that
/// called it knows the place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fault {
    pub code: &'static str,
    pub what: &'static str,
}

/// A shorthand for failing functions.
pub(crate) fn fault<T>(code: &'static str, what: &'static str) -> Result<T, Fault> {
    Err(Fault { code, what })
}

/// A failed evaluation: what, and where in the pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fail {
    pub fault: Fault,
    /// Index into the program's places.
    pub place: u32,
}

impl<'a> Val<'a> {
    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Val::Null)
    }

    /// Text without copying.
    pub(crate) fn text(s: &'a str) -> Self {
        Val::Text(Cow::Borrowed(s))
    }

    /// Owned text.
    pub(crate) fn string(s: String) -> Self {
        Val::Text(Cow::Owned(s))
    }

    /// A whole number in the narrowest variant; beyond 64 bits it is an overflow.
    pub(crate) fn int(n: i128) -> Result<Self, Fault> {
        if let Ok(n) = i64::try_from(n) {
            Ok(Val::Int(n))
        } else if let Ok(n) = u64::try_from(n) {
            Ok(Val::UInt(n))
        } else {
            fault("out_of_range", "the result does not fit a 64-bit integer")
        }
    }

    /// The value of a row's column. Dates and timestamps are parsed; text is borrowed.
    pub(crate) fn read(value: Value<'a>) -> Result<Self, Fault> {
        Ok(match value {
            Value::Null => Val::Null,
            Value::Unchanged => return fault("unchanged", "the log did not carry a column that is needed"),
            Value::Bool(b) => Val::Bool(b),
            Value::Int(i) => Val::Int(i),
            Value::UInt(u) => Val::UInt(u),
            Value::Float(x) => Val::Float(x),
            Value::Real(x) => Val::Real(x),
            Value::Decimal(s) => Val::Dec(Dec::parse(s).ok_or(BAD_DECIMAL)?),
            Value::Text(s) => Val::text(s),
            Value::Bytes(b) => Val::Bytes(b),
            Value::Date(s) => Val::Date(civil::Date::parse_canonical(s).ok_or(BAD_DATE)?),
            Value::Time(s) => Val::Time(Cow::Borrowed(s)),
            Value::Timestamp(s) => Val::Ts(civil::Timestamp::parse_canonical(s).ok_or(BAD_DATE)?),
            Value::TimestampTz(s) => Val::TsTz(civil::Timestamp::parse_canonical(s).ok_or(BAD_DATE)?),
            Value::Uuid(s) => Val::Uuid(Cow::Borrowed(s)),
            Value::Json(s) => Val::Json(Cow::Borrowed(s)),
            Value::List(s) => Val::List(Cow::Borrowed(s)),
        })
    }

    /// Appends the value to a row, in the connectors' canonical form.
    pub(crate) fn push_into(&self, out: &mut RowBuilder) {
        match self {
            Val::Null => out.push(Value::Null),
            Val::Bool(b) => out.push(Value::Bool(*b)),
            Val::Int(n) => out.push(Value::Int(*n)),
            Val::UInt(n) => out.push(Value::UInt(*n)),
            Val::Float(x) => out.push(Value::Float(*x)),
            Val::Real(x) => out.push(Value::Real(*x)),
            Val::Dec(d) => out.push(Value::Decimal(&d.to_string())),
            Val::Text(s) => out.push(Value::Text(s)),
            Val::Bytes(b) => out.push(Value::Bytes(b)),
            Val::Date(d) => {
                let mut s = String::new();
                d.write(&mut s);
                out.push(Value::Date(&s));
            }
            Val::Time(s) => out.push(Value::Time(s)),
            Val::Ts(t) => out.push(Value::Timestamp(&t.to_string())),
            Val::TsTz(t) => {
                let zone = if t.is_finite() { "Z" } else { "" };
                out.push(Value::TimestampTz(&format!("{t}{zone}")));
            }
            Val::Uuid(s) => out.push(Value::Uuid(s)),
            Val::Json(s) => out.push(Value::Json(s)),
            Val::List(s) => out.push(Value::List(s)),
        }
    }
}

/// The value of a column that holds no bytes: a connector hands a text that is not UTF-8, or a date that no calendar has and
/// that is to be refused, over as bytes, and they must pass neither for base64 nor for nothing.
#[inline]
pub(crate) fn readable(value: Value<'_>) -> Result<Value<'_>, Fault> {
    match value {
        Value::Bytes(_) => fault("not_utf8", "the source's text is not valid UTF-8, or its date is in no calendar"),
        value => Ok(value),
    }
}

const BAD_DECIMAL: Fault = Fault { code: "bad_value", what: "the source's decimal cannot be read" };
const BAD_DATE: Fault =
    Fault { code: "bad_value", what: "the source's date or timestamp is outside the range known here" };
