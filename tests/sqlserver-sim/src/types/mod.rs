//! The data types of "Data types (Transact-SQL)": their names, sizes, precedence and how a value of each is kept.
//!
//! Every expression has a [`SqlType`] before it runs, so that a result always has the wire type the real product gives.
//! The stored form of a type is chosen so that SQLite's own comparison orders values as SQL Server does:
//!
//! | type | SQLite value |
//! |---|---|
//! | integers, bit | INTEGER |
//! | decimal, numeric | BLOB, see [`decimal`] |
//! | money, smallmoney | INTEGER, ten-thousandths |
//! | real, float | REAL |
//! | date and time types | INTEGER, ticks, see [`datetime`] |
//! | datetimeoffset | BLOB: ticks in UTC (8 bytes, big-endian), then the offset in minutes (2 bytes) |
//! | character types, xml | TEXT; comparison by a collation of the connection, see [`collation`] |
//! | binary types, rowversion, CLR types | BLOB |
//! | uniqueidentifier | BLOB, bytes in the order in which the product compares them |
//! | sql_variant | BLOB, see [`variant`] |

pub mod clr;
pub mod collation;
pub mod convert;
pub mod datetime;
pub mod decimal;
pub mod format;
pub mod variant;

use crate::error::{Result, SqlError};
use collation::Collation;

/// The families of types.
#[allow(missing_docs)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Kind {
    Bit = 1,
    TinyInt,
    SmallInt,
    Int,
    BigInt,
    Decimal,
    Numeric,
    Money,
    SmallMoney,
    Real,
    Float,
    Date,
    Time,
    DateTime,
    DateTime2,
    SmallDateTime,
    DateTimeOffset,
    Char,
    VarChar,
    Text,
    NChar,
    NVarChar,
    NText,
    Binary,
    VarBinary,
    Image,
    UniqueIdentifier,
    Xml,
    Variant,
    RowVersion,
    HierarchyId,
    Geography,
    Geometry,
}

use Kind::*;

/// Length of the `(max)` types.
pub const MAX: u16 = u16::MAX;

/// A data type with its facets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct SqlType {
    /// The family.
    pub kind: Kind,
    /// Declared length in characters or bytes; [`MAX`] for `(max)`; 0 where it means nothing.
    pub len: u16,
    /// Precision of decimals.
    pub precision: u8,
    /// Scale of decimals; fractional digits of a second.
    pub scale: u8,
    /// Collation of character types.
    pub collation: Collation,
}

const ALL: [(&str, Kind, u8); 33] = [
    // name, kind, system_type_id of "sys.types (Transact-SQL)"
    ("image", Image, 34),
    ("text", Text, 35),
    ("uniqueidentifier", UniqueIdentifier, 36),
    ("date", Date, 40),
    ("time", Time, 41),
    ("datetime2", DateTime2, 42),
    ("datetimeoffset", DateTimeOffset, 43),
    ("tinyint", TinyInt, 48),
    ("smallint", SmallInt, 52),
    ("int", Int, 56),
    ("smalldatetime", SmallDateTime, 58),
    ("real", Real, 59),
    ("money", Money, 60),
    ("datetime", DateTime, 61),
    ("float", Float, 62),
    ("sql_variant", Variant, 98),
    ("ntext", NText, 99),
    ("bit", Bit, 104),
    ("decimal", Decimal, 106),
    ("numeric", Numeric, 108),
    ("smallmoney", SmallMoney, 122),
    ("bigint", BigInt, 127),
    ("hierarchyid", HierarchyId, 240),
    ("geometry", Geometry, 240),
    ("geography", Geography, 240),
    ("varbinary", VarBinary, 165),
    ("varchar", VarChar, 167),
    ("binary", Binary, 173),
    ("char", Char, 175),
    ("timestamp", RowVersion, 189),
    ("nvarchar", NVarChar, 231),
    ("nchar", NChar, 239),
    ("xml", Xml, 241),
];

/// All system types as (name, kind, system type id, user type id), for `sys.types`.
pub fn system_types() -> impl Iterator<Item = (&'static str, Kind, u8, i32)> {
    ALL.iter().map(|(name, kind, id)| {
        let user = match kind {
            HierarchyId => 128,
            Geometry => 129,
            Geography => 130,
            _ => i32::from(*id),
        };
        (*name, *kind, *id, user)
    })
}

impl SqlType {
    /// A type without facets, or with the default ones of a declaration.
    pub fn of(kind: Kind) -> Self {
        let (len, precision, scale) = match kind {
            Char | VarChar | NChar | NVarChar | Binary | VarBinary => (1, 0, 0),
            Decimal | Numeric => (0, 18, 0),
            Time | DateTime2 | DateTimeOffset => (0, 0, 7),
            RowVersion => (8, 0, 0),
            _ => (0, 0, 0),
        };
        Self { kind, len, precision, scale, collation: Collation::DEFAULT }
    }

    /// A character or binary type of a length.
    pub fn sized(kind: Kind, len: usize) -> Self {
        let limit = if matches!(kind, NChar | NVarChar) { 4000 } else { 8000 };
        let len = if len > limit { MAX } else { u16::try_from(len.max(1)).unwrap_or(MAX) };
        Self { len, ..Self::of(kind) }
    }

    /// `(max)` of a kind.
    pub fn max(kind: Kind) -> Self {
        Self { len: MAX, ..Self::of(kind) }
    }

    /// `numeric(precision, scale)`.
    pub fn numeric(precision: u8, scale: u8) -> Self {
        Self { precision: precision.clamp(1, 38), scale: scale.min(38), ..Self::of(Numeric) }
    }

    /// A time type with a number of fractional digits.
    pub fn scaled(kind: Kind, scale: u8) -> Self {
        Self { scale, ..Self::of(kind) }
    }

    /// `sysname`.
    pub fn sysname() -> Self {
        Self::sized(NVarChar, 128)
    }

    /// The same type with another collation.
    pub fn collate(self, collation: Collation) -> Self {
        Self { collation, ..self }
    }

    /// From a name and its arguments as they stand in a declaration. In a `CAST` the default length of strings is 30,
    /// in a declaration 1: "char and varchar (Transact-SQL)".
    pub fn declared(name: &str, args: &[String], in_cast: bool) -> Result<Self> {
        let lower = name.to_ascii_lowercase();
        let kind = match lower.as_str() {
            "sysname" => return Ok(Self::sysname()),
            "rowversion" => RowVersion,
            "integer" => Int,
            "dec" => Decimal,
            "character" => Char,
            "character varying" => VarChar,
            "double precision" => Float,
            other => match ALL.iter().find(|(n, ..)| *n == other) {
                Some((_, kind, _)) => *kind,
                None => return Err(SqlError::new(2715, 16, 6, format!("Cannot find data type {name}."))),
            },
        };
        let mut ty = Self::of(kind);
        let number = |i: usize| -> Result<Option<u16>> {
            match args.get(i).map(String::as_str) {
                None => Ok(None),
                Some("max") => Ok(Some(MAX)),
                Some(n) => n.parse().map(Some).map_err(|_| SqlError::syntax(n)),
            }
        };
        let first = number(0)?;
        match kind {
            Char | VarChar | NChar | NVarChar | Binary | VarBinary => {
                let limit = if matches!(kind, NChar | NVarChar) { 4000 } else { 8000 };
                let len = first.unwrap_or(if in_cast { 30 } else { 1 });
                if len == 0 || (len > limit && len != MAX) || (len == MAX && matches!(kind, Char | NChar | Binary)) {
                    let text =
                        format!("The size ({len}) given to the type '{name}' exceeds the maximum allowed ({limit}).");
                    return Err(SqlError::new(131, 15, 2, text));
                }
                ty.len = len;
            }
            Decimal | Numeric => {
                let precision = first.unwrap_or(18);
                let scale = number(1)?.unwrap_or(0);
                if precision == 0 || precision > 38 || scale > precision {
                    let text = format!(
                        "Column or parameter: Specified column precision {precision} is greater than the maximum precision of 38."
                    );
                    return Err(SqlError::new(2750, 16, 1, text));
                }
                (ty.precision, ty.scale) = (precision as u8, scale as u8);
            }
            Float if first.is_some_and(|n| n <= 24) => ty.kind = Real,
            Time | DateTime2 | DateTimeOffset => {
                let scale = first.unwrap_or(7);
                if scale > 7 {
                    let text = format!("Specified scale {scale} is invalid.");
                    return Err(SqlError::new(1002, 15, 1, text));
                }
                ty.scale = scale as u8;
            }
            Float | Xml => {}
            _ if first.is_some() => {
                return Err(SqlError::new(
                    2716,
                    16,
                    1,
                    format!("Column, parameter, or variable: Cannot specify a column width on data type {name}."),
                ));
            }
            _ => {}
        }
        Ok(ty)
    }

    /// Name without facets, as `sys.types` has it.
    pub fn name(self) -> &'static str {
        ALL.iter().find(|(_, k, _)| *k == self.kind).map_or("?", |(n, ..)| n)
    }

    /// `system_type_id`.
    pub fn system_id(self) -> u8 {
        ALL.iter().find(|(_, k, _)| *k == self.kind).map_or(0, |(.., id)| *id)
    }

    /// `user_type_id`.
    pub fn user_id(self) -> i32 {
        system_types().find(|(_, k, ..)| *k == self.kind).map_or(0, |(.., id)| id)
    }

    /// `max_length` of "sys.columns (Transact-SQL)": bytes, -1 for `(max)` and xml.
    pub fn max_length(self) -> i32 {
        match self.kind {
            Bit | TinyInt => 1,
            SmallInt => 2,
            Int | Real | SmallMoney | SmallDateTime => 4,
            BigInt | Money | Float | DateTime | RowVersion => 8,
            Decimal | Numeric => match self.precision {
                0..=9 => 5,
                10..=19 => 9,
                20..=28 => 13,
                _ => 17,
            },
            Date => 3,
            Time => time_length(self.scale),
            DateTime2 => time_length(self.scale) + 3,
            DateTimeOffset => time_length(self.scale) + 5,
            UniqueIdentifier | Text | NText | Image => 16,
            Variant => 8016,
            HierarchyId => 892,
            Xml | Geography | Geometry => -1,
            _ if self.len == MAX => -1,
            NChar | NVarChar => i32::from(self.len) * 2,
            _ => i32::from(self.len),
        }
    }

    /// `precision` of `sys.columns`.
    pub fn column_precision(self) -> u8 {
        match self.kind {
            Bit => 1,
            TinyInt => 3,
            SmallInt => 5,
            Int | Date | SmallMoney => 10,
            BigInt | Money => 19,
            Real => 24,
            Float => 53,
            Decimal | Numeric => self.precision,
            DateTime => 23,
            SmallDateTime => 16,
            Time => 8 + if self.scale > 0 { self.scale + 1 } else { 0 },
            DateTime2 => 19 + if self.scale > 0 { self.scale + 1 } else { 0 },
            DateTimeOffset => 26 + if self.scale > 0 { self.scale + 1 } else { 0 },
            _ => 0,
        }
    }

    /// `scale` of `sys.columns`.
    pub fn column_scale(self) -> u8 {
        match self.kind {
            Money | SmallMoney => 4,
            DateTime => 3,
            _ => self.scale,
        }
    }

    /// Rank of "Data type precedence (Transact-SQL)"; the higher wins.
    pub fn precedence(self) -> u8 {
        match self.kind {
            HierarchyId | Geography | Geometry => 40,
            Variant => 39,
            Xml => 38,
            DateTimeOffset => 37,
            DateTime2 => 36,
            DateTime => 35,
            SmallDateTime => 34,
            Date => 33,
            Time => 32,
            Float => 31,
            Real => 30,
            Decimal | Numeric => 29,
            Money => 28,
            SmallMoney => 27,
            BigInt => 26,
            Int => 25,
            SmallInt => 24,
            TinyInt => 23,
            Bit => 22,
            NText => 21,
            Text => 20,
            Image => 19,
            RowVersion => 18,
            UniqueIdentifier => 17,
            NVarChar => 16,
            NChar => 15,
            VarChar => 14,
            Char => 13,
            VarBinary => 12,
            Binary => 11,
        }
    }

    /// Character types that can be compared.
    pub fn is_char(self) -> bool {
        matches!(self.kind, Char | VarChar | NChar | NVarChar)
    }

    /// Types that carry a collation on the wire.
    pub fn has_collation(self) -> bool {
        self.is_char() || matches!(self.kind, Text | NText)
    }

    /// Binary types and rowversion.
    pub fn is_binary(self) -> bool {
        matches!(self.kind, Binary | VarBinary | RowVersion)
    }

    /// bit, integers.
    pub fn is_integer(self) -> bool {
        matches!(self.kind, Bit | TinyInt | SmallInt | Int | BigInt)
    }

    /// Everything that counts.
    pub fn is_number(self) -> bool {
        self.is_integer() || matches!(self.kind, Decimal | Numeric | Money | SmallMoney | Real | Float)
    }

    /// Date and time types.
    pub fn is_temporal(self) -> bool {
        matches!(self.kind, Date | Time | DateTime | DateTime2 | SmallDateTime | DateTimeOffset)
    }

    /// `text`, `ntext`, `image`: cannot be compared (error 306).
    pub fn is_old_lob(self) -> bool {
        matches!(self.kind, Text | NText | Image)
    }

    /// `(max)` types.
    pub fn is_max(self) -> bool {
        self.len == MAX && matches!(self.kind, VarChar | NVarChar | VarBinary)
    }

    /// A number that stands for the type inside SQL text sent to SQLite.
    pub fn code(self) -> i64 {
        (i64::from(self.kind as u8) << 48)
            | (i64::from(self.collation.index()) << 32)
            | (i64::from(self.len) << 16)
            | (i64::from(self.precision) << 8)
            | i64::from(self.scale)
    }

    /// The inverse of [`code`](Self::code).
    pub fn from_code(code: i64) -> Self {
        let kind = ALL.iter().find(|(_, k, _)| i64::from(*k as u8) == code >> 48).map_or(Int, |(_, k, _)| *k);
        Self {
            kind,
            collation: Collation::from_index((code >> 32 & 0xFFFF) as u16),
            len: (code >> 16 & 0xFFFF) as u16,
            precision: (code >> 8 & 0xFF) as u8,
            scale: (code & 0xFF) as u8,
        }
    }
}

/// Bytes of a time of day on the wire and on disk, "time (Transact-SQL)".
pub fn time_length(scale: u8) -> i32 {
    match scale {
        0..=2 => 3,
        3..=4 => 4,
        _ => 5,
    }
}

/// The order in which "Comparing GUID and uniqueidentifier Values" says the bytes of the wire form count.
const GUID_ORDER: [usize; 16] = [10, 11, 12, 13, 14, 15, 8, 9, 6, 7, 4, 5, 0, 1, 2, 3];

/// Stored form of a uniqueidentifier from its wire form.
pub fn guid_store(wire: &[u8]) -> Vec<u8> {
    GUID_ORDER.iter().map(|i| wire[*i]).collect()
}

/// Wire form of a uniqueidentifier from its stored form.
pub fn guid_wire(stored: &[u8]) -> Vec<u8> {
    let mut wire = vec![0; 16];
    for (k, i) in GUID_ORDER.iter().enumerate() {
        wire[*i] = stored[k];
    }
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_holds_the_whole_type() {
        for ty in [
            SqlType::numeric(38, 12),
            SqlType::max(NVarChar).collate(Collation::named("Latin1_General_100_BIN2_UTF8").unwrap()),
            SqlType::scaled(DateTimeOffset, 3),
            SqlType::of(Geometry),
        ] {
            assert_eq!(SqlType::from_code(ty.code()), ty);
        }
    }

    #[test]
    fn lengths_are_those_of_sys_columns() {
        let length = |name: &str, args: &[&str]| {
            let args: Vec<String> = args.iter().map(ToString::to_string).collect();
            SqlType::declared(name, &args, false).unwrap().max_length()
        };
        assert_eq!(length("nvarchar", &["50"]), 100);
        assert_eq!(length("nvarchar", &["max"]), -1);
        assert_eq!(length("decimal", &["38", "4"]), 17);
        assert_eq!(length("time", &["0"]), 3);
        assert_eq!(length("time", &[]), 5);
        assert_eq!(length("datetime2", &["3"]), 7);
        assert_eq!(length("datetimeoffset", &[]), 10);
        assert!(SqlType::declared("nvarchar", &["4001".into()], false).is_err());
        assert!(SqlType::declared("json2", &[], false).is_err());
    }

    #[test]
    fn guids_turn_both_ways() {
        let wire: Vec<u8> = (0..16).collect();
        assert_eq!(guid_wire(&guid_store(&wire)), wire);
    }
}
