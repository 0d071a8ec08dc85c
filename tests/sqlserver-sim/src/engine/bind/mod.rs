//! The binder: syntax trees to SQLite text in which every expression has its T-SQL type.
//!
//! It resolves names, checks permissions, inserts the implicit conversions of "Data type precedence", and settles
//! collations. Names of users do not appear in what it writes, only `t…`, `c…`, `a…` and `v…`.

mod calls;
mod changes;
mod expr;
mod plain_calls;
mod query;
mod session_calls;
mod tables;

use super::session::Session;
use crate::error::{Result, SqlError};
use crate::types::collation::Collation;
use crate::types::{Kind, MAX, SqlType};
use rusqlite::types::Value;

pub use query::BoundQuery;

/// How firmly an expression holds its collation: "Collation precedence (Transact-SQL)".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hold {
    /// Literals and variables.
    Coercible,
    /// Columns.
    Implicit,
    /// `COLLATE`.
    Explicit,
}

/// An expression that can be run.
#[derive(Clone, Debug)]
pub struct Bound {
    /// SQLite text.
    pub sql: String,
    /// Type of the value.
    pub ty: SqlType,
    /// May be NULL.
    pub nullable: bool,
    /// The bare word NULL, which has no type of its own.
    pub untyped: bool,
    /// See [`Hold`].
    pub hold: Hold,
    /// A column that numbers itself, for the flags of COLMETADATA.
    pub identity: bool,
    /// A plain column of a base table (updatable), for the flags of COLMETADATA.
    pub column: bool,
}

impl Bound {
    /// A value that is not NULL.
    pub fn new(sql: impl Into<String>, ty: SqlType) -> Self {
        Self {
            sql: sql.into(),
            ty,
            nullable: true,
            untyped: false,
            hold: Hold::Coercible,
            identity: false,
            column: false,
        }
    }

    /// The same, never NULL.
    pub fn not_null(self) -> Self {
        Self { nullable: false, ..self }
    }

    /// The word NULL.
    pub fn null() -> Self {
        Self { untyped: true, ..Self::new("NULL", SqlType::of(Kind::Int)) }
    }
}

/// A column that a table of FROM offers.
#[derive(Clone, Debug)]
pub struct Offered {
    /// Name.
    pub name: String,
    /// Its expression.
    pub bound: Bound,
}

/// A table of FROM.
#[derive(Clone, Debug)]
pub struct Source {
    /// Alias or name by which it is called.
    pub name: String,
    /// Schema, if it is a table called by its own name.
    pub schema: Option<String>,
    /// Columns.
    pub columns: Vec<Offered>,
    /// Table it is, for UPDATE and DELETE through an alias: (object id, SQLite alias).
    pub table: Option<(i64, String)>,
}

/// What names mean at one place.
#[derive(Debug, Default)]
pub struct Scope<'a> {
    /// Tables of FROM.
    pub sources: Vec<Source>,
    /// The query around this one.
    pub parent: Option<&'a Scope<'a>>,
    /// With GROUP BY or aggregates: texts of the expressions that may stand outside an aggregate.
    pub grouped: Option<Vec<String>>,
}

/// A parameter.
#[derive(Debug)]
enum Slot {
    Variable(String),
    Value(Value),
}

/// The state of one binding.
pub struct Binder<'s> {
    /// The session.
    pub session: &'s Session,
    /// What the parameters of the text stand for; the first is `?1`.
    slots: Vec<Slot>,
    /// Common table expressions in reach, the innermost last.
    ctes: Vec<(String, Vec<String>, crate::sql::ast::Query)>,
    aliases: usize,
    /// Views being expanded, against circles.
    depth: usize,
    /// Parameters are forbidden (text that is kept: triggers).
    pub kept: bool,
    /// Inside a view the owner's permissions count: "Ownership chains".
    pub trusted: bool,
}

impl<'s> Binder<'s> {
    /// A binder for a session.
    pub fn new(session: &'s Session) -> Self {
        Self { session, slots: Vec::new(), ctes: Vec::new(), aliases: 0, depth: 0, kept: false, trusted: false }
    }

    /// Values of the parameters of the text, in order.
    pub fn parameters(&self) -> Vec<Value> {
        let value = |s: &Slot| match s {
            Slot::Variable(name) => self.session.variable(name).map_or(Value::Null, |(_, v)| v.clone()),
            Slot::Value(v) => v.clone(),
        };
        self.slots.iter().map(value).collect()
    }

    /// A parameter for a value.
    pub fn parameter(&mut self, v: Value) -> String {
        self.slots.push(Slot::Value(v));
        format!("?{}", self.slots.len())
    }

    /// A new SQLite alias.
    pub fn alias(&mut self) -> String {
        self.aliases += 1;
        format!("a{}", self.aliases)
    }

    /// Converts to a type, as an assignment or an operator does by itself. 257 or 206 where only CAST would.
    pub fn implicit(&self, b: Bound, to: SqlType) -> Result<Bound> {
        if b.untyped || b.ty == to {
            return Ok(Bound { ty: to, untyped: false, ..b });
        }
        if !implicit_allowed(b.ty, to) {
            let (from, to) = (b.ty.name(), to.name());
            let clash = matches!(
                b.ty.kind,
                Kind::Date | Kind::Time | Kind::DateTime2 | Kind::DateTimeOffset | Kind::UniqueIdentifier
            );
            return Err(if clash {
                SqlError::new(206, 16, 2, format!("Operand type clash: {from} is incompatible with {to}"))
            } else {
                let text = format!(
                    "Implicit conversion from data type {from} to {to} is not allowed. Use the CONVERT function to run this query."
                );
                SqlError::new(257, 16, 3, text)
            });
        }
        Ok(self.cast(b, to, None, false))
    }

    /// Converts to a type by force.
    pub fn cast(&self, b: Bound, to: SqlType, style: Option<Bound>, lenient: bool) -> Bound {
        let hold = if to.has_collation() { b.hold } else { Hold::Coercible };
        if b.untyped {
            return Bound { ty: to, untyped: false, hold, ..b };
        }
        if style.is_none() && stored_alike(b.ty, to) {
            return Bound { ty: to, hold, column: false, ..b };
        }
        let function = if lenient { "t_try" } else { "t_cv" };
        let style = style.map_or("0".into(), |s| s.sql);
        let sql = format!("{function}({}, {}, {}, {style})", b.sql, b.ty.code(), to.code());
        Bound { hold, nullable: b.nullable || lenient, ..Bound::new(sql, to) }
    }

    /// Text for comparing or ordering by the expression.
    pub fn key(&self, b: &Bound) -> String {
        match b.ty.kind {
            Kind::DateTimeOffset => format!("t_dtokey({})", b.sql),
            _ if b.ty.is_char() => format!("{} COLLATE \"{}\"", b.sql, b.ty.collation.name()),
            _ => b.sql.clone(),
        }
    }

    /// Brings both sides of an operator to one type.
    pub fn unify(&self, l: Bound, r: Bound, operator: &str) -> Result<(Bound, Bound)> {
        let ty = self.common(&l, &r, operator)?;
        Ok((self.implicit(l, ty)?, self.implicit(r, ty)?))
    }

    /// The type both sides have in common.
    pub fn common(&self, l: &Bound, r: &Bound, operator: &str) -> Result<SqlType> {
        if l.untyped {
            return Ok(r.ty);
        }
        if r.untyped {
            return Ok(l.ty);
        }
        let (high, low) = if l.ty.precedence() >= r.ty.precedence() { (l.ty, r.ty) } else { (r.ty, l.ty) };
        let mut ty = high;
        if high.is_char() && low.is_char() || high.is_binary() && low.is_binary() {
            ty.len = if high.len == MAX || low.len == MAX { MAX } else { high.len.max(low.len) };
        } else if high.is_char() && low.is_binary() {
            ty.len = high.len.max(low.len);
        } else if matches!(high.kind, Kind::Decimal | Kind::Numeric) {
            // Enough digits for both: "Precision, scale, and length (Transact-SQL)", the rule of UNION.
            let other = as_numeric(low);
            let scale = high.scale.max(other.scale);
            let whole = (high.precision - high.scale).max(other.precision - other.scale);
            let precision = (u16::from(whole) + u16::from(scale)).min(38) as u8;
            ty = SqlType { kind: high.kind, ..SqlType::numeric(precision, scale.min(38 - whole.min(38))) };
        } else if high.is_temporal() && low.is_temporal() && high.kind == low.kind {
            ty.scale = high.scale.max(low.scale);
        } else if high.kind == Kind::DateTime2 || high.kind == Kind::DateTimeOffset {
            let scale = match low.kind {
                Kind::DateTime => 3,
                Kind::Time | Kind::DateTime2 => low.scale,
                _ => 0,
            };
            ty.scale = high.scale.max(scale);
            if low.is_char() {
                ty.scale = 7;
            }
        }
        if ty.has_collation() {
            ty.collation = self.collation(l, r, operator)?;
        }
        Ok(ty)
    }

    /// Which collation wins, or 468.
    pub fn collation(&self, l: &Bound, r: &Bound, operator: &str) -> Result<Collation> {
        if !l.ty.has_collation() {
            return Ok(r.ty.collation);
        }
        if !r.ty.has_collation() || l.ty.collation == r.ty.collation || l.hold > r.hold {
            return Ok(l.ty.collation);
        }
        if r.hold > l.hold {
            return Ok(r.ty.collation);
        }
        if l.hold == Hold::Coercible {
            return Ok(self.session.db.collation);
        }
        let (a, b) = (l.ty.collation.name(), r.ty.collation.name());
        let text =
            format!("Cannot resolve the collation conflict between \"{a}\" and \"{b}\" in the {operator} operation.");
        Err(SqlError::new(468, 16, 9, text))
    }
}

/// The decimal a number type is taken for next to a decimal.
pub fn as_numeric(ty: SqlType) -> SqlType {
    match ty.kind {
        Kind::Bit => SqlType::numeric(1, 0),
        Kind::TinyInt => SqlType::numeric(3, 0),
        Kind::SmallInt => SqlType::numeric(5, 0),
        Kind::Int => SqlType::numeric(10, 0),
        Kind::BigInt => SqlType::numeric(19, 0),
        Kind::SmallMoney => SqlType::numeric(10, 4),
        Kind::Money => SqlType::numeric(19, 4),
        Kind::Decimal | Kind::Numeric => ty,
        _ => SqlType::numeric(38, 0),
    }
}

/// Same stored form, no value changes: nothing to do at run time.
fn stored_alike(from: SqlType, to: SqlType) -> bool {
    use Kind::{
        BigInt, Bit, Date, DateTime, DateTime2, Decimal, Int, NVarChar, Numeric, SmallDateTime, SmallInt, TinyInt,
        VarBinary, VarChar,
    };
    let rank = |k: Kind| match k {
        Bit => Some(0),
        TinyInt => Some(1),
        SmallInt => Some(2),
        Int => Some(3),
        BigInt => Some(4),
        _ => None,
    };
    match (from.kind, to.kind) {
        (a, b) if rank(a).is_some() && rank(b).is_some() => rank(a) <= rank(b) && b != Bit || a == b,
        (Decimal | Numeric, Decimal | Numeric) => from.scale == to.scale && from.precision <= to.precision,
        (VarChar, NVarChar) | (Kind::Char, NVarChar) | (Kind::NChar, NVarChar) => to.len >= from.len,
        (VarChar, VarChar) | (Kind::Char, VarChar) => {
            to.len >= from.len && from.collation.page() == to.collation.page()
        }
        (NVarChar, NVarChar) => to.len >= from.len,
        (Kind::Char, Kind::Char) | (Kind::NChar, Kind::NChar) => {
            to.len == from.len && from.collation.page() == to.collation.page()
        }
        (VarBinary | Kind::Binary, VarBinary) => to.len >= from.len,
        (Date, Date) | (DateTime, DateTime) | (SmallDateTime, SmallDateTime | DateTime) => true,
        (DateTime | SmallDateTime | Date | DateTime2, DateTime2) => {
            to.scale == 7 || (from.kind == DateTime2 && from.scale <= to.scale)
        }
        (Kind::Text, VarChar) | (Kind::NText, NVarChar) => to.len == MAX,
        _ => from == to,
    }
}

/// The chart of "Data type conversion (Database Engine)": conversions that need no CAST.
fn implicit_allowed(from: SqlType, to: SqlType) -> bool {
    use Kind::{
        Binary, Date, DateTime, DateTime2, DateTimeOffset, HierarchyId, Image, RowVersion, SmallDateTime, Text, Time,
        UniqueIdentifier, VarBinary, Variant, Xml,
    };
    let char_like = |t: SqlType| t.is_char() || matches!(t.kind, Text | Kind::NText);
    match (from.kind, to.kind) {
        (a, b) if a == b => true,
        (Variant, _) => false,
        (_, Variant) => !(from.is_old_lob() || from.is_max() || from.kind == Xml),
        _ if char_like(from) && char_like(to) => true,
        _ if from.is_char() => !matches!(to.kind, Binary | VarBinary | RowVersion | Image),
        (Text | Kind::NText, Xml) => true,
        (Text | Kind::NText | Image, _) => matches!(to.kind, Binary | VarBinary) && from.kind == Image,
        (Xml, _) => false,
        _ if char_like(to) => {
            let binary_to_lob = from.is_binary() && matches!(to.kind, Text | Kind::NText);
            !(binary_to_lob || matches!(from.kind, Image | HierarchyId))
        }
        _ if from.is_number() && to.is_number() => true,
        _ if from.is_binary() => {
            to.is_binary()
                || to.is_integer()
                || matches!(
                    to.kind,
                    Kind::Money
                        | Kind::SmallMoney
                        | UniqueIdentifier
                        | Image
                        | Xml
                        | HierarchyId
                        | Kind::Geography
                        | Kind::Geometry
                )
        }
        _ if to.is_binary() => {
            from.is_integer() || matches!(from.kind, Kind::Money | Kind::SmallMoney | UniqueIdentifier | HierarchyId)
        }
        (DateTime | SmallDateTime, _) if to.is_number() => false,
        _ if from.is_number() => matches!(to.kind, DateTime | SmallDateTime),
        (Date, DateTime | SmallDateTime | DateTime2 | DateTimeOffset) => true,
        (Time, DateTime | SmallDateTime | DateTime2 | DateTimeOffset) => true,
        (DateTime | SmallDateTime | DateTime2 | DateTimeOffset, _) => to.is_temporal(),
        _ => false,
    }
}
