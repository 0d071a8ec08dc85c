//! Types: how a column is selected, how its value becomes canonical, and how a key's value becomes SQL.
//!
//! Pages and change tables are read with the same expressions, so that a value has one path (R11). Where the wire form or
//! the driver's reading of it is not exact, the server converts: money comes as decimal(19,4), text in code pages as
//! nvarchar, `datetime` is rounded to the millisecond as the server prints it.

use crate::error::{changed, undecodable};
use crate::sql::{binary, literal};
use std::fmt::Write as _;
use tiberius::{ColumnData, numeric::Numeric, time};
use tidemark_contract::{LogicalType, Result, RowBuilder, Value};

/// What a column's values are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    Bool,
    Int,
    Real,
    Float,
    Decimal,
    Money,
    Date,
    Time,
    /// datetime2
    DateTime2,
    /// datetime and smalldatetime: their literals have at most three places.
    DateTime,
    DateTimeOffset,
    Text,
    /// Text in a code page.
    CodeText,
    Bytes,
    Uuid,
    Json,
    Variant,
    Hierarchy,
    Spatial,
}

/// A column's type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Kind {
    pub(crate) family: Family,
    /// As it is declared: `decimal(10,2)`.
    pub(crate) declared: String,
    pub(crate) collation: Option<String>,
    /// Longest text in characters.
    pub(crate) max_length: Option<u32>,
    /// The log leaves it out of updates that do not touch it: `(max)` and older large types, xml.
    pub(crate) is_large: bool,
}

impl Kind {
    /// The kind of a column of the catalogue; `None` for a type that is not known.
    pub(crate) fn of(base: &str, length: i64, precision: i64, scale: i64, collation: Option<&str>) -> Option<Self> {
        use Family as F;
        let base = base.to_ascii_lowercase();
        let is_max = length == -1;
        let sized = |unit: i64| if is_max { format!("{base}(max)") } else { format!("{base}({})", length / unit) };
        let (family, declared) = match base.as_str() {
            "bit" => (F::Bool, base.clone()),
            "tinyint" | "smallint" | "int" | "bigint" => (F::Int, base.clone()),
            "real" => (F::Real, base.clone()),
            "float" => (F::Float, base.clone()),
            "decimal" | "numeric" => (F::Decimal, format!("{base}({precision},{scale})")),
            "money" | "smallmoney" => (F::Money, base.clone()),
            "date" => (F::Date, base.clone()),
            "time" => (F::Time, format!("time({scale})")),
            "datetime2" => (F::DateTime2, format!("datetime2({scale})")),
            "datetime" | "smalldatetime" => (F::DateTime, base.clone()),
            "datetimeoffset" => (F::DateTimeOffset, format!("datetimeoffset({scale})")),
            "nchar" | "nvarchar" => (F::Text, sized(2)),
            "ntext" => (F::Text, base.clone()),
            "char" | "varchar" => (F::CodeText, sized(1)),
            "text" => (F::CodeText, base.clone()),
            "xml" => (F::Text, base.clone()),
            "binary" | "varbinary" => (F::Bytes, sized(1)),
            "image" => (F::Bytes, base.clone()),
            "timestamp" | "rowversion" => (F::Bytes, "binary(8)".into()),
            "uniqueidentifier" => (F::Uuid, base.clone()),
            "json" => (F::Json, base.clone()),
            "sql_variant" => (F::Variant, base.clone()),
            "hierarchyid" => (F::Hierarchy, base.clone()),
            "geography" | "geometry" => (F::Spatial, base.clone()),
            _ => return None,
        };
        let is_old = matches!(base.as_str(), "text" | "ntext" | "image");
        let is_large = is_old || is_max || matches!(base.as_str(), "xml" | "json" | "geography" | "geometry");
        let max_length = match family {
            F::Text if !is_large => u32::try_from(length / 2).ok(),
            F::CodeText if !is_large => u32::try_from(length).ok(),
            _ => None,
        };
        Some(Self { family, declared, collation: collation.map(str::to_owned), max_length, is_large })
    }

    pub(crate) fn logical(&self) -> LogicalType {
        match self.family {
            Family::Bool => LogicalType::Bool,
            Family::Int => LogicalType::Int,
            Family::Real | Family::Float => LogicalType::Float,
            Family::Decimal | Family::Money => LogicalType::Decimal,
            Family::Date => LogicalType::Date,
            Family::Time => LogicalType::Time,
            Family::DateTime2 | Family::DateTime => LogicalType::Timestamp,
            Family::DateTimeOffset => LogicalType::TimestampTz,
            Family::Bytes => LogicalType::Bytes,
            Family::Uuid => LogicalType::Uuid,
            Family::Json => LogicalType::Json,
            Family::Text | Family::CodeText | Family::Variant | Family::Hierarchy | Family::Spatial => {
                LogicalType::Text
            }
        }
    }

    /// Whether rows can be paged by it.
    pub(crate) fn can_be_key(&self) -> bool {
        !self.is_large && !matches!(self.family, Family::Variant | Family::Hierarchy)
    }

    /// The expression that reads `column`, a quoted name.
    pub(crate) fn select(&self, column: &str) -> String {
        match self.family {
            Family::Money => format!("CAST({column} AS decimal(19,4))"),
            Family::CodeText | Family::Json => format!("CAST({column} AS nvarchar(max))"),
            Family::Text if matches!(self.declared.as_str(), "ntext" | "xml") => {
                format!("CAST({column} AS nvarchar(max))")
            }
            Family::Bytes if self.declared == "image" => format!("CAST({column} AS varbinary(max))"),
            Family::Variant => format!("CAST({column} AS nvarchar(4000))"),
            Family::Hierarchy => format!("{column}.ToString()"),
            Family::Spatial => format!("{column}.STAsText()"),
            _ => column.to_owned(),
        }
    }

    /// A value of this type as SQL, from its canonical form: the type's letter in a key and the bytes.
    pub(crate) fn literal(&self, letter: u8, bytes: &[u8]) -> Result<Option<String>> {
        use Family as F;
        let strange = || changed("a key was asked for whose values have other types than the table's key columns");
        let fits = match self.family {
            F::Bool => letter == b'?',
            F::Int => letter == b'i',
            F::Real | F::Float => letter == b'f',
            F::Decimal | F::Money => letter == b'n',
            F::Date => letter == b'd',
            F::Time => letter == b'h',
            F::DateTime2 | F::DateTime => letter == b's',
            F::DateTimeOffset => letter == b'z',
            F::Bytes => letter == b'b',
            F::Uuid => letter == b'u',
            _ => letter == b't',
        };
        if letter == b'0' {
            return Ok(None);
        }
        if !fits {
            return Err(strange());
        }
        if self.family == F::Bytes {
            return Ok(Some(format!("CAST({} AS {})", binary(bytes), self.declared)));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| strange())?;
        Ok(Some(self.cast("CAST", text)))
    }

    /// A value of another table's column for a column of this type, as the server converts it; what does not convert is
    /// null, which equals nothing.
    pub(crate) fn related_literal(&self, letter: u8, bytes: &[u8]) -> Result<Option<String>> {
        if let Ok(own) = self.literal(letter, bytes)
            && !matches!(self.family, Family::Decimal | Family::Money | Family::Int)
        {
            return Ok(own);
        }
        if letter == b'0' {
            return Ok(None);
        }
        if letter == b'b' {
            return Ok(Some(format!("TRY_CAST({} AS {})", binary(bytes), self.declared)));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| undecodable("a key that should be text is none"))?;
        Ok(Some(self.cast("TRY_CAST", text)))
    }

    fn cast(&self, cast: &str, text: &str) -> String {
        let quoted = literal(match (self.family, text) {
            (Family::Bool, "true") => "1",
            (Family::Bool, "false") => "0",
            _ => text,
        });
        match (self.family, &self.collation) {
            (Family::Text, _) => quoted,
            (Family::CodeText, Some(collation)) => format!("{cast}({quoted} COLLATE {collation} AS {})", self.declared),
            _ => format!("{cast}({quoted} AS {})", self.declared),
        }
    }

    /// What makes a comparison with a derived column use this column's collation.
    pub(crate) fn collate(&self) -> String {
        self.collation.as_ref().map_or(String::new(), |collation| format!(" COLLATE {collation}"))
    }

    /// Appends the value that [`Kind::select`] gave.
    pub(crate) fn push(&self, cell: &ColumnData<'_>, row: &mut RowBuilder, text: &mut String) -> Result<()> {
        use ColumnData as C;
        use Family as F;
        text.clear();
        match (self.family, cell) {
            (F::Bool, C::Bit(Some(v))) => row.push(Value::Bool(*v)),
            (F::Int, C::U8(Some(v))) => row.push(Value::Int(i64::from(*v))),
            (F::Int, C::I16(Some(v))) => row.push(Value::Int(i64::from(*v))),
            (F::Int, C::I32(Some(v))) => row.push(Value::Int(i64::from(*v))),
            (F::Int, C::I64(Some(v))) => row.push(Value::Int(*v)),
            (F::Real, C::F32(Some(v))) => row.push(Value::Real(*v)),
            (F::Float, C::F64(Some(v))) => row.push(Value::Float(*v)),
            (F::Decimal | F::Money, C::Numeric(Some(v))) => {
                decimal(*v, text);
                row.push(Value::Decimal(text));
            }
            (F::Date, C::Date(Some(v))) => {
                date(i64::from(v.days()), text);
                row.push(Value::Date(text));
            }
            (F::Time, C::Time(Some(v))) => {
                clock(*v, text);
                row.push(Value::Time(text));
            }
            (F::DateTime2, C::DateTime2(Some(v))) => {
                stamp(*v, text);
                row.push(Value::Timestamp(text));
            }
            (F::DateTimeOffset, C::DateTimeOffset(Some(v))) => {
                // On the wire the time is in UTC already; the offset only says how to show it.
                stamp(v.datetime2(), text);
                text.push('Z');
                row.push(Value::TimestampTz(text));
            }
            (F::DateTime, C::DateTime(Some(v))) => {
                date(i64::from(v.days()) + DAYS_TO_1900, text);
                text.push('T');
                // Three-hundredths of a second, shown as the server shows them: to the millisecond.
                let millis = (u64::from(v.seconds_fragments()) * 10 + 1) / 3;
                clock_of(millis * 10_000, text);
                row.push(Value::Timestamp(text));
            }
            (F::DateTime, C::SmallDateTime(Some(v))) => {
                date(i64::from(v.days()) + DAYS_TO_1900, text);
                text.push('T');
                clock_of(u64::from(v.seconds_fragments()) * 60 * TICKS, text);
                row.push(Value::Timestamp(text));
            }
            (F::Text | F::CodeText | F::Variant | F::Hierarchy | F::Spatial, C::String(Some(v))) => {
                row.push(Value::Text(v));
            }
            (F::Json, C::String(Some(v))) => row.push(Value::Json(v)),
            (F::Bytes, C::Binary(Some(v))) => row.push(Value::Bytes(v)),
            (F::Uuid, C::Guid(Some(v))) => {
                let _ = write!(text, "{v}");
                row.push(Value::Uuid(text));
            }
            (_, cell) if is_null(cell) => row.push(Value::Null),
            _ => return Err(changed(format!("a value of another type came where {} was expected", self.declared))),
        }
        Ok(())
    }
}

/// Whether a cell is NULL.
pub(crate) fn is_null(cell: &ColumnData<'_>) -> bool {
    use ColumnData as C;
    matches!(
        cell,
        C::U8(None)
            | C::I16(None)
            | C::I32(None)
            | C::I64(None)
            | C::F32(None)
            | C::F64(None)
            | C::Bit(None)
            | C::String(None)
            | C::Guid(None)
            | C::Binary(None)
            | C::Numeric(None)
            | C::Xml(None)
            | C::DateTime(None)
            | C::SmallDateTime(None)
            | C::Time(None)
            | C::Date(None)
            | C::DateTime2(None)
            | C::DateTimeOffset(None)
    )
}

/// Ticks of 100 ns in a second.
const TICKS: u64 = 10_000_000;
/// Days from 0001-01-01 to 1900-01-01.
const DAYS_TO_1900: i64 = 693_595;
/// Days from 0001-01-01 to 1970-01-01.
const DAYS_TO_1970: i64 = 719_162;

/// A `datetime` as microseconds since 1970.
pub(crate) fn unix_micros(cell: &ColumnData<'_>) -> Option<i64> {
    let ColumnData::DateTime(Some(v)) = cell else { return None };
    let days = i64::from(v.days()) + DAYS_TO_1900 - DAYS_TO_1970;
    Some(days * 86_400_000_000 + i64::from(v.seconds_fragments()) * 10_000 / 3)
}

fn decimal(v: Numeric, out: &mut String) {
    let (value, scale) = (v.value(), usize::from(v.scale()));
    let digits = value.unsigned_abs().to_string();
    if value < 0 {
        out.push('-');
    }
    if scale == 0 {
        out.push_str(&digits);
        return;
    }
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = padded.split_at(padded.len() - scale);
    out.push_str(whole);
    out.push('.');
    out.push_str(fraction);
}

/// A day counted from 0001-01-01.
fn date(days: i64, out: &mut String) {
    // Years that begin with March: the leap day is the last one.
    let days = days + 306;
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let of_month = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let _ = write!(out, "{:04}-{month:02}-{of_month:02}", era * 400 + year + carry);
}

fn clock(v: time::Time, out: &mut String) {
    clock_of(v.increments().saturating_mul(10_u64.pow(7_u32.saturating_sub(u32::from(v.scale())))), out);
}

/// A time of day in ticks.
fn clock_of(ticks: u64, out: &mut String) {
    let (seconds, fraction) = (ticks / TICKS, ticks % TICKS);
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction > 0 {
        let _ = write!(out, ".{fraction:07}");
        out.truncate(out.trim_end_matches('0').len());
    }
}

fn stamp(v: time::DateTime2, out: &mut String) {
    date(i64::from(v.date().days()), out);
    out.push('T');
    clock(v.time(), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(base: &str, cell: &ColumnData<'_>) -> String {
        let kind = Kind::of(base, 8, 38, 10, None).unwrap();
        let mut row = RowBuilder::default();
        kind.push(cell, &mut row, &mut String::new()).unwrap();
        match row.finish().get(0) {
            Value::Decimal(s) | Value::Date(s) | Value::Time(s) | Value::Timestamp(s) | Value::TimestampTz(s) => {
                s.into()
            }
            other => other.kind().into(),
        }
    }

    #[test]
    fn numbers_keep_their_places() {
        for (value, scale, wanted) in [
            (-1i128, 4u8, "-0.0001"),
            (150, 2, "1.50"),
            (0, 3, "0.000"),
            (7, 0, "7"),
            (10_i128.pow(37), 37, "1.0000000000000000000000000000000000000"),
        ] {
            assert_eq!(shown("decimal", &ColumnData::Numeric(Some(Numeric::new_with_scale(value, scale)))), wanted);
        }
    }

    #[test]
    fn days_become_dates() {
        for (days, wanted) in
            [(0, "0001-01-01"), (3_652_058, "9999-12-31"), (738_944, "2024-02-29"), (DAYS_TO_1970, "1970-01-01")]
        {
            let mut out = String::new();
            date(days, &mut out);
            assert_eq!(out, wanted);
        }
    }

    #[test]
    fn datetime_is_shown_to_the_millisecond() {
        for (fragments, wanted) in [(0, ""), (1, ".003"), (2, ".007"), (3, ".01"), (299, ".997")] {
            let cell = ColumnData::DateTime(Some(time::DateTime::new(0, fragments)));
            assert_eq!(shown("datetime", &cell), format!("1900-01-01T00:00:00{wanted}"));
        }
        let micros = unix_micros(&ColumnData::DateTime(Some(time::DateTime::new(25_567, 300))));
        assert_eq!(micros, Some(1_000_000));
    }

    #[test]
    fn keys_become_literals_of_the_columns_type() {
        let int = Kind::of("int", 4, 10, 0, None).unwrap();
        assert_eq!(int.literal(b'i', b"-5").unwrap().unwrap(), "CAST(N'-5' AS int)");
        assert_eq!(int.related_literal(b't', b"x").unwrap().unwrap(), "TRY_CAST(N'x' AS int)");
        assert!(int.literal(b't', b"x").is_err());
        assert_eq!(int.literal(b'0', b"").unwrap(), None);
        let code = Kind::of("varchar", 10, 0, 0, Some("Latin1_General_BIN")).unwrap();
        let wanted = "CAST(N'it''s' COLLATE Latin1_General_BIN AS varchar(10))";
        assert_eq!(code.literal(b't', b"it's").unwrap().unwrap(), wanted);
        assert!(Kind::of("cursor", 0, 0, 0, None).is_none());
    }
}
