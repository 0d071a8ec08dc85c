//! The compiled form of an expression: a small typed tree that is evaluated once per row. Everything that can be
//! decided from the pack and the schemas alone (types, names, patterns, time zones, constants) has been decided here.

use super::civil;
use super::decimal::Dec;
use super::parts::{DatePart, TruncUnit};
use super::prepared::Prepared;
use super::regexp::RegexReplace;
use super::template::DateTemplate;
use super::value::{Fault, Val};
use crate::mapping::lookup::LookupTable;
use jiff::tz::TimeZone;
use std::sync::Arc;

/// Static type of an expression.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Type {
    /// A bare NULL: takes any type.
    Null,
    Bool,
    Int,
    Float,
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

impl Type {
    /// The word used in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Type::Null => "null",
            Type::Bool => "boolean",
            Type::Int => "integer",
            Type::Float => "float",
            Type::Decimal => "decimal",
            Type::Text => "text",
            Type::Bytes => "bytes",
            Type::Date => "date",
            Type::Time => "time",
            Type::Timestamp => "timestamp",
            Type::TimestampTz => "timestamp with time zone",
            Type::Uuid => "uuid",
            Type::Json => "json",
            Type::List => "list",
        }
    }

    pub(crate) fn is_number(self) -> bool {
        matches!(self, Type::Int | Type::Float | Type::Decimal)
    }
}

/// A constant.
#[derive(Clone, Debug)]
pub(crate) enum Const {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(f64),
    Dec(Dec),
    Text(Box<str>),
    Date(civil::Date),
    Time(Box<str>),
    Ts(civil::Timestamp),
    TsTz(civil::Timestamp),
    Uuid(Box<str>),
    Json(Box<str>),
}

impl Const {
    /// The constant as a value that borrows from it.
    pub(crate) fn val(&self) -> Val<'_> {
        match self {
            Const::Null => Val::Null,
            Const::Bool(b) => Val::Bool(*b),
            Const::Int(i) => Val::Int(*i),
            Const::UInt(u) => Val::UInt(*u),
            Const::Float(x) => Val::Float(*x),
            Const::Dec(d) => Val::Dec(d.clone()),
            Const::Text(s) => Val::text(s),
            Const::Date(d) => Val::Date(*d),
            Const::Time(s) => Val::Time(s.as_ref().into()),
            Const::Ts(t) => Val::Ts(*t),
            Const::TsTz(t) => Val::TsTz(*t),
            Const::Uuid(s) => Val::Uuid(s.as_ref().into()),
            Const::Json(s) => Val::Json(s.as_ref().into()),
        }
    }

    /// The other way round, for values computed while compiling. Bytes and lists have no constants.
    pub(crate) fn of(val: &Val<'_>) -> Option<Const> {
        Some(match val {
            Val::Null => Const::Null,
            Val::Bool(b) => Const::Bool(*b),
            Val::Int(i) => Const::Int(*i),
            Val::UInt(u) => Const::UInt(*u),
            Val::Float(x) => Const::Float(*x),
            Val::Real(_) | Val::Bytes(_) | Val::List(_) => return None,
            Val::Dec(d) => Const::Dec(d.clone()),
            Val::Text(s) => Const::Text(s.as_ref().into()),
            Val::Date(d) => Const::Date(*d),
            Val::Time(s) => Const::Time(s.as_ref().into()),
            Val::Ts(t) => Const::Ts(*t),
            Val::TsTz(t) => Const::TsTz(*t),
            Val::Uuid(s) => Const::Uuid(s.as_ref().into()),
            Val::Json(s) => Const::Json(s.as_ref().into()),
        })
    }
}

/// What a cast makes. Casts that depend on a time zone carry it.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Optionally cut to a number of characters.
    Text(Option<u32>),
    /// A timestamp with time zone has no text without a zone to show it in.
    TextInZone(TimeZone),
    Bool,
    /// Bits: 16, 32 or 64.
    Int(u8),
    /// Precision and scale.
    Decimal(Option<(u64, i64)>),
    Float,
    Real,
    Date,
    DateInZone(TimeZone),
    Time,
    TimeInZone(TimeZone),
    /// Digits of the fraction.
    Timestamp(u8),
    TimestampInZone(u8, TimeZone),
    TimestampTz(u8),
    TimestampTzInZone(u8, TimeZone),
    Uuid,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ArithOp {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum CmpOp {
    Eq,
    NotEq,
    Less,
    LessEq,
    Greater,
    GreaterEq,
}

/// A function that is called with evaluated arguments. Strict ones never see a null.
pub(crate) type EvalFn = for<'a> fn(&mut [Val<'a>]) -> Result<Val<'a>, Fault>;

/// One node of a compiled expression. `place` is an index into the program's places.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Const(Const),
    /// A column of the rule's row, by its number among the columns the rule uses.
    Column(u16),
    /// The same, of a column that holds bytes.
    Binary(u16),
    /// A named intermediate value of the rule.
    Let(u16),
    Cast {
        to: Box<Target>,
        arg: Box<Node>,
        place: u32,
    },
    /// `||`: null if any part is null.
    Concat(Box<[Node]>),
    Arith {
        op: ArithOp,
        left: Box<Node>,
        right: Box<Node>,
        place: u32,
    },
    Neg {
        arg: Box<Node>,
        place: u32,
    },
    Cmp {
        op: CmpOp,
        left: Box<Node>,
        right: Box<Node>,
    },
    /// `is [not] distinct from`.
    Distinct {
        negated: bool,
        left: Box<Node>,
        right: Box<Node>,
    },
    And(Box<[Node]>),
    Or(Box<[Node]>),
    Not(Box<Node>),
    IsNull {
        negated: bool,
        arg: Box<Node>,
    },
    /// `is [not] true` and `is [not] false`.
    IsBool {
        wanted: bool,
        negated: bool,
        arg: Box<Node>,
    },
    In {
        negated: bool,
        arg: Box<Node>,
        list: Box<[Node]>,
    },
    Between {
        negated: bool,
        arg: Box<Node>,
        low: Box<Node>,
        high: Box<Node>,
    },
    Like {
        negated: bool,
        ignore_case: bool,
        escape: Option<char>,
        arg: Box<Node>,
        pattern: Box<Node>,
        place: u32,
    },
    /// Without an operand, arms are conditions; with one, they are compared with it.
    Case {
        operand: Option<Box<Node>>,
        arms: Box<[(Node, Node)]>,
        otherwise: Box<Node>,
    },
    Coalesce(Box<[Node]>),
    NullIf(Box<Node>, Box<Node>),
    /// `greatest` and `least`: nulls are passed over.
    Extreme {
        greatest: bool,
        args: Box<[Node]>,
    },
    Lookup {
        table: Arc<LookupTable>,
        arg: Box<Node>,
        place: u32,
    },
    Call {
        eval: EvalFn,
        strict: bool,
        args: Box<[Node]>,
        place: u32,
    },
    Extract {
        part: DatePart,
        arg: Box<Node>,
        place: u32,
    },
    Trunc {
        unit: TruncUnit,
        zone: Option<Box<TimeZone>>,
        arg: Box<Node>,
        place: u32,
    },
    /// Timestamp to timestamp with time zone, or back, whichever the argument is not.
    AtZone {
        zone: Box<TimeZone>,
        arg: Box<Node>,
        place: u32,
    },
    ToChar {
        template: Arc<DateTemplate>,
        zone: Option<Box<TimeZone>>,
        arg: Box<Node>,
    },
    /// Null if the argument is.
    Prepared {
        with: Arc<Prepared>,
        arg: Box<Node>,
        place: u32,
    },
    RegexReplace {
        with: Arc<RegexReplace>,
        arg: Box<Node>,
        place: u32,
    },
}
