//! Checked expressions and the conversions between their types.

use super::cast::cast;
use super::ir::{Const, Node, Target, Type};
use super::narrow::NotNull;
use crate::config::Secret;
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::mapping::lookup::LookupTable;
use crate::mapping::names::Name;
use crate::mapping::related::Aggregate;
use jiff::tz::TimeZone;
use std::ops::Range;
use std::sync::Arc;
use tidemark_contract::{LogicalType, TableSchema};

/// A place in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub file: usize,
    pub span: Range<usize>,
}

/// Why an expression can be null: the first cause and its place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Why {
    pub place: Place,
    /// Words for the label (`the column allows null`).
    pub text: String,
    /// Through what the null passes on its way (`let cc`), outermost first.
    pub through: Vec<String>,
}

/// A checked expression, and what is known of its values.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    pub node: Node,
    pub ty: Type,
    pub place: Place,
    /// Why it can be null, if it can.
    pub null: Option<Why>,
    /// Every text it can be, if that is known.
    pub values: Option<Vec<Box<str>>>,
    /// Most characters it can have, if that is known.
    pub max_length: Option<u32>,
    /// Columns it reads (numbers among the rule's columns), sorted.
    pub columns: Vec<u16>,
    /// A text literal, which takes the type of what it stands beside.
    pub literal: bool,
}

impl Typed {
    /// An expression that is never null and of whose values nothing is known.
    pub(crate) fn new(node: Node, ty: Type, place: Place) -> Self {
        Self { node, ty, place, null: None, values: None, max_length: None, columns: Vec::new(), literal: false }
    }

    /// The constant this is, if it is one.
    pub(crate) fn constant(&self) -> Option<&Const> {
        match &self.node {
            Node::Const(c) => Some(c),
            _ => None,
        }
    }

    /// The constant text this is, if it is one.
    pub(crate) fn constant_text(&self) -> Option<&str> {
        match self.constant() {
            Some(Const::Text(s)) => Some(s),
            _ => None,
        }
    }

    /// Adds what `parts` read.
    pub(crate) fn reads<'t>(mut self, parts: impl IntoIterator<Item = &'t Typed>) -> Self {
        for part in parts {
            self.columns.extend(&part.columns);
        }
        self.columns.sort_unstable();
        self.columns.dedup();
        self
    }

    /// Null if any of `parts` is, which is the rule for most functions.
    pub(crate) fn null_with<'t>(mut self, parts: impl IntoIterator<Item = &'t Typed>) -> Self {
        self.null = parts.into_iter().find_map(|p| p.null.clone());
        self
    }
}

/// An error that has been reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reported;

pub(crate) type Checked<T = Typed> = Result<T, Reported>;

/// A variable of the pack with its value.
#[derive(Clone)]
pub(crate) struct Variable {
    pub name: String,
    pub ty: Type,
    pub value: Const,
    /// Of a secret, which has no other value.
    pub secret: Option<Secret>,
}

/// Prints no value: it may be a secret (P8).
impl std::fmt::Debug for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Variable({}: {})", self.name, self.ty.name())
    }
}

/// A `let` that later expressions of the rule may use. `typed` is `None` if it did not compile.
pub(crate) struct Let {
    pub name: String,
    pub typed: Option<Typed>,
}

/// A table whose columns an expression may name.
#[derive(Clone)]
pub(crate) struct ScopeTable<'s> {
    pub alias: Name,
    pub schema: &'s TableSchema,
    /// Whether there may be no such row, so that every column can be null.
    pub optional: bool,
}

/// Where a numbered column of a rule comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// A column of one of the scope's tables, by its position in the table's schema.
    Column { table: usize, index: usize },
    /// An aggregate, by its number.
    Aggregate(usize),
}

/// A child list, as aggregates see it.
#[derive(Clone)]
pub(crate) struct List {
    pub name: String,
    /// Name of its row, which only its own expressions see.
    pub alias: Name,
    /// What can be aggregated: fields and `let`s. `None` did not compile.
    pub members: Vec<(String, Option<Typed>)>,
}

/// Everything an expression of one rule may refer to, and what compiling collects.
pub(crate) struct Scope<'s> {
    pub diagnostics: &'s mut Diagnostics,
    /// The table that expressions are about comes first, then those of joins.
    pub tables: Vec<ScopeTable<'s>>,
    /// Aliases about which an error has been reported already.
    pub broken_aliases: Vec<String>,
    /// Aliases of the record around a list, which the list's expressions do not see.
    pub outer_aliases: Vec<String>,
    /// Child lists of the rule.
    pub lists: Vec<List>,
    /// Aggregates in use, each with the name of what it is over, by which it is found again.
    pub aggregates: Vec<(Aggregate, String)>,
    /// What is being compiled, if it may read nothing but the first table.
    pub own_row_only: Option<&'static str>,
    pub variables: &'s [Variable],
    pub lookups: &'s [Arc<LookupTable>],
    /// Zone of timestamps without one.
    pub zone: Option<&'s TimeZone>,
    /// The columns used so far; a column's number is its place here.
    pub columns: Vec<Origin>,
    pub lets: Vec<Let>,
    /// Places that failing nodes refer to; number 0 is "somewhere in the expression".
    pub places: Vec<(Place, String)>,
    /// What is known not to be null at this point.
    pub not_null: Vec<NotNull>,
    /// How deep the part being compiled is nested.
    pub depth: usize,
    /// Names of variables and lookups in use, for the rule's fingerprint.
    pub used: std::collections::BTreeSet<String>,
}

/// The type of a column's values.
pub(crate) fn type_of(logical: LogicalType) -> Type {
    match logical {
        LogicalType::Bool => Type::Bool,
        LogicalType::Int => Type::Int,
        LogicalType::Float => Type::Float,
        LogicalType::Decimal => Type::Decimal,
        LogicalType::Text => Type::Text,
        LogicalType::Bytes => Type::Bytes,
        LogicalType::Date => Type::Date,
        LogicalType::Time => Type::Time,
        LogicalType::Timestamp => Type::Timestamp,
        LogicalType::TimestampTz => Type::TimestampTz,
        LogicalType::Uuid => Type::Uuid,
        LogicalType::Json => Type::Json,
        LogicalType::List => Type::List,
    }
}

/// The type that values of both types can take without loss and without being asked.
pub(crate) fn common(a: Type, b: Type) -> Option<Type> {
    use Type::{Date, Decimal, Float, Int, Null, Timestamp, TimestampTz};
    Some(match (a, b) {
        _ if a == b => a,
        (Null, other) | (other, Null) => other,
        (Int | Decimal, Decimal) | (Decimal, Int) => Decimal,
        (Int | Decimal | Float, Float) | (Float, Int | Decimal) => Float,
        (Date, Timestamp) | (Timestamp, Date) => Timestamp,
        (Date | Timestamp, TimestampTz) | (TimestampTz, Date | Timestamp) => TimestampTz,
        _ => return None,
    })
}

impl Scope<'_> {
    /// The number of a column, given when it is first used.
    pub(crate) fn number(&mut self, origin: Origin) -> u16 {
        let position = self.columns.iter().position(|c| *c == origin).unwrap_or_else(|| {
            self.columns.push(origin);
            self.columns.len() - 1
        });
        u16::try_from(position).unwrap_or(u16::MAX)
    }

    /// Whether a numbered column is one of the first table.
    pub(crate) fn is_own(&self, number: u16) -> bool {
        matches!(self.columns.get(usize::from(number)), Some(Origin::Column { table: 0, .. }))
    }

    /// Refuses what reads related rows where only the record's own row counts.
    pub(crate) fn own_row_only<T>(&mut self, place: &Place, label: &str) -> Checked<T> {
        let what = self.own_row_only.unwrap_or("this");
        self.fail(
            Diagnostic::error("own_row_only", place.file, place.span.clone(), format!("{what} reads the record's own row alone"))
                .label(label.to_owned())
                .help("a change of another table's row cannot decide whether a record is there, or which: use columns of the record's own table"),
        )
    }

    /// Reports an error.
    pub(crate) fn fail<T>(&mut self, diagnostic: Diagnostic) -> Checked<T> {
        self.diagnostics.push(diagnostic);
        Err(Reported)
    }

    /// Reports an error about a place.
    pub(crate) fn error<T>(&mut self, code: &'static str, place: &Place, message: impl Into<String>) -> Checked<T> {
        self.fail(Diagnostic::error(code, place.file, place.span.clone(), message))
    }

    /// Notes a place for errors at run time.
    pub(crate) fn mark(&mut self, place: &Place, text: &str) -> u32 {
        self.places.push((place.clone(), shorten(text)));
        u32::try_from(self.places.len() - 1).unwrap_or(0)
    }

    /// The zone of timestamps without one, or an error that says how to give it.
    pub(crate) fn need_zone(&mut self, place: &Place, why: &str) -> Checked<TimeZone> {
        match self.zone {
            Some(zone) => {
                self.used.insert("time zone".into());
                Ok(zone.clone())
            }
            None => self.fail(
                Diagnostic::error(
                    "needs_time_zone",
                    place.file,
                    place.span.clone(),
                    format!("{why} needs a time zone"),
                )
                .help("name it: `x at time zone 'Europe/Berlin'`, or set `time_zone` in the tenant's [source]"),
            ),
        }
    }

    /// Whether `from` becomes `to` without being asked.
    pub(crate) fn converts(&self, from: &Typed, to: Type) -> bool {
        from.ty == to || from.ty == Type::Null || from.literal || common(from.ty, to) == Some(to)
    }

    /// Converts to a type that [`Scope::converts`] allows. Literals are read now.
    pub(crate) fn convert(&mut self, from: Typed, to: Type) -> Checked {
        if from.ty == to || to == Type::Null {
            return Ok(Typed { literal: from.literal && to == Type::Text, ..from });
        }
        if from.ty == Type::Null {
            return Ok(Typed { ty: to, ..from });
        }
        let target = match to {
            Type::TimestampTz if from.literal => Target::TimestampTz(6),
            Type::TimestampTz => {
                let why = format!("a {} compared with a timestamp with time zone", from.ty.name());
                Target::TimestampTzInZone(6, self.need_zone(&from.place, &why)?)
            }
            Type::Bool => Target::Bool,
            Type::Int => Target::Int(64),
            Type::Decimal => Target::Decimal(None),
            Type::Float => Target::Float,
            Type::Date => Target::Date,
            Type::Time => Target::Time,
            Type::Timestamp => Target::Timestamp(6),
            Type::Uuid => Target::Uuid,
            Type::Json => Target::Json,
            Type::Text | Type::Bytes | Type::List | Type::Null => {
                let message = format!("{} does not convert to {}", from.ty.name(), to.name());
                return self.error("wrong_type", &from.place.clone(), message);
            }
        };
        if let (true, Some(text)) = (from.literal, from.constant_text()) {
            let target = match (target, self.zone) {
                (Target::TimestampTz(digits), Some(zone)) => Target::TimestampTzInZone(digits, zone.clone()),
                (target, _) => target,
            };
            let read = cast(&target, super::value::Val::text(text)).ok().and_then(|v| Const::of(&v));
            return match read {
                Some(constant) => Ok(Typed::new(Node::Const(constant), to, from.place)),
                None => {
                    let message = format!("'{text}' is not a {}", to.name());
                    self.error("bad_literal", &from.place.clone(), message)
                }
            };
        }
        Ok(self.cast_node(from, to, target))
    }

    /// A cast; of a constant, its result.
    pub(crate) fn cast_node(&mut self, from: Typed, to: Type, target: Target) -> Typed {
        if let Some(constant) = from.constant()
            && let Some(done) = cast(&target, constant.val()).ok().as_ref().and_then(Const::of)
        {
            let null = from.null.clone();
            return Typed { null, ..Typed::new(Node::Const(done), to, from.place) };
        }
        let place = self.mark(&from.place.clone(), "");
        let (values, max_length) = if to == Type::Text { (from.values.clone(), from.max_length) } else { (None, None) };
        let typed = Typed::new(Node::Const(Const::Null), to, from.place.clone()).reads([&from]).null_with([&from]);
        let node = Node::Cast { to: Box::new(target), arg: Box::new(from.node), place };
        Typed { node, values, max_length, ..typed }
    }

    /// Converts all to the type they have in common, for `case`, `coalesce` and the like.
    pub(crate) fn unify(&mut self, what: &str, parts: Vec<Typed>) -> Checked<(Type, Vec<Typed>)> {
        let mut ty = Type::Null;
        let mut first: Option<Place> = None;
        for part in parts.iter().filter(|p| !p.literal) {
            match common(ty, part.ty) {
                Some(found) => ty = found,
                None => {
                    let message = format!("{what} have different types: {} and {}", ty.name(), part.ty.name());
                    let mut diagnostic =
                        Diagnostic::error("type_mismatch", part.place.file, part.place.span.clone(), message)
                            .label(format!("this is {}", part.ty.name()));
                    if let Some((line, column)) = first.and_then(|p| self.diagnostics.place(p.file, p.span.start)) {
                        diagnostic = diagnostic.note(format!("the {} is at {line}:{column}", ty.name()));
                    }
                    return self.fail(diagnostic.help("convert one of them: cast(... as text)"));
                }
            }
            if part.ty != Type::Null && first.is_none() {
                first = Some(part.place.clone());
            }
        }
        if ty == Type::Null && parts.iter().any(|p| p.literal) {
            ty = Type::Text;
        }
        let converted = parts.into_iter().map(|p| self.convert(p, ty)).collect::<Vec<_>>();
        Ok((ty, converted.into_iter().collect::<Checked<Vec<_>>>()?))
    }

    /// Requires a condition.
    pub(crate) fn condition(&mut self, typed: Typed) -> Checked {
        if typed.ty == Type::Bool || typed.ty == Type::Null || typed.literal {
            return self.convert(typed, Type::Bool);
        }
        let help = match typed.ty {
            Type::Int => Some("compare it: x <> 0"),
            _ => None,
        };
        let place = typed.place;
        self.fail(
            Diagnostic::error("wrong_type", place.file, place.span, "a condition is needed here")
                .label(format!("this is {}", typed.ty.name()))
                .maybe_help(help),
        )
    }
}

/// The text of an expression for messages, on one line and not too long.
fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= 60 {
        return line;
    }
    line.chars().take(57).chain("...".chars()).collect()
}
