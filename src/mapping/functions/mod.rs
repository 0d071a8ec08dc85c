//! The table of functions: what the checker accepts, what the evaluator runs, and what the reference page says.
//!
//! Plain functions are entries with signatures; adding one means adding an entry. Those whose arguments have a grammar
//! or a meaning of their own (`case`, `cast`, `coalesce`, `lookup`, …) are compiled by name and stand here for their
//! documentation ([`Kind::Special`]).

mod normalise;
mod plain;
mod table;

use crate::mapping::expr::ir::{EvalFn, Type};
use std::fmt::Write as _;
pub(crate) use table::FUNCTIONS;

/// One function.
pub(crate) struct Function {
    /// As it is called.
    pub name: &'static str,
    /// Other names for the same.
    pub aliases: &'static [&'static str],
    /// Where it stands on the reference page.
    pub group: Group,
    /// How it is written.
    pub usage: &'static str,
    /// What it does, in one or two sentences.
    pub doc: &'static str,
    /// An expression and its result.
    pub example: (&'static str, &'static str),
    pub kind: Kind,
}

/// Chapters of the reference page, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Group {
    Text,
    Numbers,
    Dates,
    Choice,
    Other,
}

impl Group {
    pub(crate) const ALL: [Group; 5] = [Group::Text, Group::Numbers, Group::Dates, Group::Choice, Group::Other];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Group::Text => "Text",
            Group::Numbers => "Numbers",
            Group::Dates => "Dates and times",
            Group::Choice => "Choice and null",
            Group::Other => "Conversion, translation, hashing",
        }
    }
}

pub(crate) enum Kind {
    /// Compiled by name.
    Special,
    /// The first signature that fits is called.
    Plain(&'static [Signature]),
}

/// Types of arguments, and what is called with them.
pub(crate) struct Signature {
    /// Fixed arguments.
    pub args: &'static [Arg],
    /// How many of `args` may be left out at the end.
    pub optional: usize,
    /// Type of any number of further arguments.
    pub rest: Option<Arg>,
    pub returns: Type,
    /// Whether a null argument makes the result null without a call.
    pub strict: bool,
    /// Why the result can be null though no argument is, if it can.
    pub gives_null: Option<&'static str>,
    pub eval: EvalFn,
}

/// What an argument may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arg {
    /// This type, or one that converts to it without loss.
    Of(Type),
    /// Any type that has a text.
    Any,
}

/// The function of that name, in lower case.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|f| f.name == name || f.aliases.contains(&name))
}

/// All names, for suggestions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().flat_map(|f| std::iter::once(f.name).chain(f.aliases.iter().copied()))
}

/// The reference of all functions: `docs/functions.md`.
pub fn reference() -> String {
    let mut out = String::from(
        "# Functions of mapping packs\n\n\
         Everything that an expression of a pack ([mapping.md](mapping.md)) can call. This page is generated from the code; each\n\
         example is evaluated by a test, and what PostgreSQL has too is compared with it.\n\n\
         Null in, null out, unless it is said otherwise. The same row always gives the same result: nothing here reads a clock.\n\n",
    );
    for group in Group::ALL {
        let _ = writeln!(out, "## {}\n\n| written | meaning | example |\n|---|---|---|", group.title());
        for f in FUNCTIONS.iter().filter(|f| f.group == group) {
            let cell = |s: &str| s.replace('|', "\\|");
            let (expression, result) = f.example;
            let other = match f.aliases {
                [] => String::new(),
                aliases => format!(" Also `{}`.", aliases.join("`, `")),
            };
            let _ = writeln!(
                out,
                "| `{}` | {}{other} | `{}` → `{}` |",
                cell(f.usage),
                cell(f.doc),
                cell(expression),
                cell(result)
            );
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// Functions of other systems, and what to write instead.
pub(crate) const FOREIGN: &[(&str, &str)] = &[
    ("isnull", "use `coalesce(x, y)`"),
    ("ifnull", "use `coalesce(x, y)`"),
    ("nvl", "use `coalesce(x, y)`"),
    ("nvl2", "use `case when x is not null then a else b end`"),
    ("if", "use `case when condition then a else b end`"),
    ("iif", "use `case when condition then a else b end`"),
    ("decode", "use `case x when a then b else c end`"),
    ("ucase", "use `upper(x)`"),
    ("lcase", "use `lower(x)`"),
    ("len", "use `length(x)`"),
    ("char_len", "use `length(x)`"),
    ("substr_index", "use `split_part(x, separator, n)`"),
    ("substring_index", "use `split_part(x, separator, n)`"),
    ("mid", "use `substring(x, start, count)`"),
    ("instr", "use `position(part in x)`"),
    ("locate", "use `position(part in x)`"),
    ("charindex", "use `position(part in x)`"),
    ("date_format", "use `to_char(x, 'YYYY-MM-DD')`"),
    ("format", "use `to_char`, `||` or `round`"),
    ("str_to_date", "use `cast(x as date)` for ISO dates"),
    ("to_date", "use `cast(x as date)` for ISO dates"),
    ("to_timestamp", "use `cast(x as timestamp)` for ISO timestamps"),
    ("convert", "use `cast(x as type)`"),
    ("try_cast", "use `cast(x as type)`; a row that does not convert is set aside"),
    ("try_convert", "use `cast(x as type)`; a row that does not convert is set aside"),
    ("to_number", "use `cast(x as decimal)`"),
    ("year", "use `extract(year from x)`"),
    ("month", "use `extract(month from x)`"),
    ("day", "use `extract(day from x)`"),
    ("datepart", "use `extract(part from x)`"),
    ("dateadd", "add days to a date: `d + 7`"),
    ("datediff", "subtract dates: `a - b` is a number of days"),
    ("stuff", "use `left`, `right` and `||`"),
    ("sha2", "use `sha256(x)`"),
    ("hashbytes", "use `sha256(x)`"),
    ("truncate", "use `trunc(x, digits)`"),
    ("pow", "not available: only + - * / % on numbers"),
    ("now", "not available: the result would depend on when a row is read"),
    ("getdate", "not available: the result would depend on when a row is read"),
    ("current_timestamp", "not available: the result would depend on when a row is read"),
    ("current_date", "not available: the result would depend on when a row is read"),
    ("random", "not available: the same row must always give the same record"),
    ("uuid", "not available: the same row must always give the same record"),
    ("newid", "not available: the same row must always give the same record"),
    ("gen_random_uuid", "not available: the same row must always give the same record"),
];

/// Aggregates: known, and answered with their own message.
pub(crate) const AGGREGATES: &[&str] = &["sum", "count", "min", "max", "avg", "string_agg", "array_agg"];
