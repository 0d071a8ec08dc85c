//! The table of functions: what the checker accepts, what the evaluator runs, and what the reference page says.
//!
//! Plain functions are entries with signatures; adding one means adding an entry. Those whose arguments have a grammar
//! or a meaning of their own (`case`, `cast`, `coalesce`, `lookup`, …) are compiled by name and stand here for their
//! documentation ([`Kind::Special`]).

use crate::mapping::expr::cast::{hex, to_text};
use crate::mapping::expr::decimal::Dec;
use crate::mapping::expr::ir::{EvalFn, Type};
use crate::mapping::expr::text::{self, Ends, take};
use crate::mapping::expr::value::{Fault, Val, fault};
use std::fmt::Write as _;

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

const TEXT: Arg = Arg::Of(Type::Text);
const INT: Arg = Arg::Of(Type::Int);
const DECIMAL: Arg = Arg::Of(Type::Decimal);
const FLOAT: Arg = Arg::Of(Type::Float);

const fn strict(args: &'static [Arg], returns: Type, eval: EvalFn) -> Signature {
    Signature { args, optional: 0, rest: None, returns, strict: true, eval }
}

const fn optional(args: &'static [Arg], optional: usize, returns: Type, eval: EvalFn) -> Signature {
    Signature { args, optional, rest: None, returns, strict: true, eval }
}

/// The function of that name, in lower case.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|f| f.name == name || f.aliases.contains(&name))
}

/// All names, for suggestions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().flat_map(|f| std::iter::once(f.name).chain(f.aliases.iter().copied()))
}

/// The reference of all functions, as a chapter of `docs/mapping.md`.
pub fn reference() -> String {
    let mut out = String::new();
    for group in Group::ALL {
        let _ = writeln!(out, "### {}\n\n| written | meaning | example |\n|---|---|---|", group.title());
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

fn bug<'a>() -> Result<Val<'a>, Fault> {
    fault("bug", "an argument of another type was expected")
}

fn int(args: &[Val<'_>], n: usize) -> Result<i64, Fault> {
    match args.get(n) {
        Some(Val::Int(n)) => Ok(*n),
        Some(Val::UInt(_)) => Ok(i64::MAX),
        _ => fault("bug", "an integer argument was expected"),
    }
}

fn dec<'v>(args: &'v [Val<'_>], n: usize) -> Result<&'v Dec, Fault> {
    match args.get(n) {
        Some(Val::Dec(d)) => Ok(d),
        _ => fault("bug", "a decimal argument was expected"),
    }
}

fn trim_ends<'a>(args: &mut [Val<'a>], ends: Ends) -> Result<Val<'a>, Fault> {
    let s = take(args, 0)?;
    match args.len() {
        1 => Ok(Val::Text(text::trim(s, " ", ends))),
        _ => {
            let chars = take(args, 1)?;
            Ok(Val::Text(text::trim(s, &chars, ends)))
        }
    }
}

fn pad<'a>(args: &mut [Val<'a>], at_left: bool) -> Result<Val<'a>, Fault> {
    let (s, n) = (take(args, 0)?, int(args, 1)?);
    let fill = if args.len() > 2 { take(args, 2)? } else { " ".into() };
    text::pad(s, n, &fill, at_left).map(Val::Text)
}

/// The text that `concat` shows: booleans as `t` and `f`, everything else as a cast does.
fn shown<'a>(val: Val<'a>, out: &mut String) -> Result<(), Fault> {
    match val {
        Val::Null => {}
        Val::Bool(b) => out.push(if b { 't' } else { 'f' }),
        Val::Text(s) => out.push_str(&s),
        other => out.push_str(&to_text(other)?),
    }
    Ok(())
}

fn concat_ws<'a>(args: &mut [Val<'a>]) -> Result<Val<'a>, Fault> {
    if args.first().is_none_or(Val::is_null) {
        return Ok(Val::Null);
    }
    let separator = take(args, 0)?;
    let mut out = String::new();
    let mut first = true;
    for val in args.iter_mut().skip(1).map(|v| std::mem::replace(v, Val::Null)).filter(|v| !v.is_null()) {
        if !std::mem::take(&mut first) {
            out.push_str(&separator);
        }
        shown(val, &mut out)?;
    }
    Ok(Val::string(out))
}

fn abs<'a>(args: &mut [Val<'a>]) -> Result<Val<'a>, Fault> {
    match &args[0] {
        Val::Int(n) => Val::int(i128::from(*n).abs()),
        Val::UInt(n) => Ok(Val::UInt(*n)),
        Val::Dec(d) => Ok(Val::Dec(d.abs())),
        Val::Float(x) => Ok(Val::Float(x.abs())),
        Val::Real(x) => Ok(Val::Real(x.abs())),
        _ => bug(),
    }
}

fn sign<'a>(args: &mut [Val<'a>]) -> Result<Val<'a>, Fault> {
    let zero = Dec::from_int(0);
    let d = dec(args, 0)?;
    Ok(if matches!(d, Dec::NaN) { Val::Dec(Dec::NaN) } else { Val::Dec(Dec::from_int(d.cmp(&zero) as i128)) })
}

/// Applies one function to doubles, another to singles widened.
fn on_float<'a>(args: &mut [Val<'a>], f: fn(f64) -> f64) -> Result<Val<'a>, Fault> {
    match &args[0] {
        Val::Float(x) => Ok(Val::Float(f(*x))),
        Val::Real(x) => Ok(Val::Float(f(f64::from(*x)))),
        _ => bug(),
    }
}

fn same<'a>(args: &mut [Val<'a>]) -> Result<Val<'a>, Fault> {
    Ok(std::mem::replace(&mut args[0], Val::Null))
}

fn sha256<'a>(args: &mut [Val<'a>]) -> Result<Val<'a>, Fault> {
    let digest = match &args[0] {
        Val::Text(s) => ring::digest::digest(&ring::digest::SHA256, s.as_bytes()),
        Val::Bytes(b) => ring::digest::digest(&ring::digest::SHA256, b),
        _ => return bug(),
    };
    let mut out = String::with_capacity(64);
    hex(digest.as_ref(), &mut out);
    Ok(Val::string(out))
}

macro_rules! function {
    ($group:ident, $name:literal, [$($alias:literal),*], $usage:literal, $doc:literal, $example:literal => $result:literal, $kind:expr) => {
        Function {
            name: $name,
            aliases: &[$($alias),*],
            group: Group::$group,
            usage: $usage,
            doc: $doc,
            example: ($example, $result),
            kind: $kind,
        }
    };
}

/// All functions, in the order of the reference page.
pub(crate) const FUNCTIONS: &[Function] = &[
    function!(Text, "||", [], "a || b", "Joins texts; null if either is null. One side must be text.",
        "'NW-' || 10248" => "NW-10248", Kind::Special),
    function!(Text, "concat", [], "concat(a, b, ...)", "Joins values of any type as text; nulls count as nothing.",
        "concat('cust-', null, 7)" => "cust-7",
        Kind::Plain(&[Signature { args: &[], optional: 0, rest: Some(Arg::Any), returns: Type::Text, strict: false,
            eval: |args| {
                let mut out = String::with_capacity(32);
                for arg in args {
                    shown(std::mem::replace(arg, Val::Null), &mut out)?;
                }
                Ok(Val::string(out))
            } }])),
    function!(Text, "concat_ws", [], "concat_ws(separator, a, b, ...)",
        "Joins values with a separator between them; nulls are passed over. Null if the separator is null.",
        "concat_ws(', ', 'Berlin', null, 'DE')" => "Berlin, DE",
        Kind::Plain(&[Signature { args: &[TEXT], optional: 0, rest: Some(Arg::Any), returns: Type::Text, strict: false,
            eval: concat_ws }])),
    function!(Text, "trim", ["btrim"], "trim([both | leading | trailing] [chars from] x)",
        "Takes spaces (or any of `chars`) off both ends, or one end.", "trim(both 'x' from 'xxabx')" => "ab",
        Kind::Plain(&[optional(&[TEXT, TEXT], 1, Type::Text, |args| trim_ends(args, Ends { left: true, right: true }))])),
    function!(Text, "ltrim", [], "ltrim(x [, chars])", "Takes spaces (or any of `chars`) off the start.",
        "ltrim('  ab')" => "ab",
        Kind::Plain(&[optional(&[TEXT, TEXT], 1, Type::Text, |args| trim_ends(args, Ends { left: true, right: false }))])),
    function!(Text, "rtrim", [], "rtrim(x [, chars])", "Takes spaces (or any of `chars`) off the end.",
        "rtrim('ab--', '-')" => "ab",
        Kind::Plain(&[optional(&[TEXT, TEXT], 1, Type::Text, |args| trim_ends(args, Ends { left: false, right: true }))])),
    function!(Text, "lower", [], "lower(x)", "Lower case.", "lower('ÄB')" => "äb",
        Kind::Plain(&[strict(&[TEXT], Type::Text, |args| Ok(Val::Text(text::lower(take(args, 0)?))))])),
    function!(Text, "upper", [], "upper(x)", "Upper case.", "upper('äb')" => "ÄB",
        Kind::Plain(&[strict(&[TEXT], Type::Text, |args| Ok(Val::Text(text::upper(take(args, 0)?))))])),
    function!(Text, "initcap", [], "initcap(x)", "The first letter of each word in upper case, the rest in lower case.",
        "initcap('new YORK')" => "New York",
        Kind::Plain(&[strict(&[TEXT], Type::Text, |args| Ok(Val::string(text::initcap(&take(args, 0)?))))])),
    function!(Text, "replace", [], "replace(x, from, to)", "Every `from` in `x` becomes `to`.",
    "replace('030-00', '-', '')" => "03000",
    Kind::Plain(&[strict(&[TEXT, TEXT, TEXT], Type::Text, |args| {
        let (s, from, to) = (take(args, 0)?, take(args, 1)?, take(args, 2)?);
        text::replace(s, &from, &to).map(Val::Text)
    })])),
    function!(Text, "translate", [], "translate(x, from, to)",
    "Each character of `from` becomes the one at its place in `to`, or nothing.",
    "translate('1.234,50', '.,', ',.')" => "1,234.50",
    Kind::Plain(&[strict(&[TEXT, TEXT, TEXT], Type::Text, |args| {
        let (s, from, to) = (take(args, 0)?, take(args, 1)?, take(args, 2)?);
        Ok(Val::string(text::translate(&s, &from, &to)))
    })])),
    function!(Text, "regexp_replace", [], "regexp_replace(x, pattern, replacement [, flags])",
        "Replaces the first match of a regular expression, all with flag `g`; `i` ignores case. `\\1` in the replacement \
         is the first group. The pattern is a constant, is matched in linear time, and has neither look-around nor \
         back-references.",
        "regexp_replace('(0)30-74', '[^0-9]', '', 'g')" => "03074", Kind::Special),
    function!(Text, "split_part", [], "split_part(x, separator, n)",
    "Part number `n` (from the end, if negative) of `x`, split at the separator; empty if there is none.",
    "split_part('Maria Anders', ' ', 2)" => "Anders",
    Kind::Plain(&[strict(&[TEXT, TEXT, INT], Type::Text, |args| {
        let (s, separator, n) = (take(args, 0)?, take(args, 1)?, int(args, 2)?);
        text::split_part(s, &separator, n).map(Val::Text)
    })])),
    function!(Text, "substring", ["substr"], "substring(x from start [for count]), substring(x, start [, count])",
    "Characters from `start` on, counted from 1.", "substring('Northwind' from 6 for 4)" => "wind",
    Kind::Plain(&[optional(&[TEXT, INT, INT], 1, Type::Text, |args| {
        let (s, start) = (take(args, 0)?, int(args, 1)?);
        let count = if args.len() > 2 { Some(int(args, 2)?) } else { None };
        text::substring(s, start, count).map(Val::Text)
    })])),
    function!(Text, "left", [], "left(x, n)", "The first `n` characters; all but the last `-n` if `n` is negative.",
        "left('Berlin', 3)" => "Ber",
        Kind::Plain(&[strict(&[TEXT, INT], Type::Text, |args| Ok(Val::Text(text::left(take(args, 0)?, int(args, 1)?))))])),
    function!(Text, "right", [], "right(x, n)", "The last `n` characters; all but the first `-n` if `n` is negative.",
        "right('Berlin', 3)" => "lin",
        Kind::Plain(&[strict(&[TEXT, INT], Type::Text, |args| Ok(Val::Text(text::right(take(args, 0)?, int(args, 1)?))))])),
    function!(Text, "lpad", [], "lpad(x, n [, fill])", "Filled at the start to `n` characters, or cut to them.",
        "lpad('42', 6, '0')" => "000042",
        Kind::Plain(&[optional(&[TEXT, INT, TEXT], 1, Type::Text, |args| pad(args, true))])),
    function!(Text, "rpad", [], "rpad(x, n [, fill])", "Filled at the end to `n` characters, or cut to them.",
        "rpad('ab', 4, '.')" => "ab..",
        Kind::Plain(&[optional(&[TEXT, INT, TEXT], 1, Type::Text, |args| pad(args, false))])),
    function!(Text, "repeat", [], "repeat(x, n)", "`x` written `n` times.", "repeat('ab', 2)" => "abab",
    Kind::Plain(&[strict(&[TEXT, INT], Type::Text, |args| {
        text::repeat(&take(args, 0)?, int(args, 1)?).map(Val::string)
    })])),
    function!(Text, "reverse", [], "reverse(x)", "The characters in reverse order.", "reverse('abc')" => "cba",
        Kind::Plain(&[strict(&[TEXT], Type::Text, |args| Ok(Val::string(take(args, 0)?.chars().rev().collect())))])),
    function!(Text, "length", ["char_length", "character_length"], "length(x)", "Number of characters.",
        "length('äb')" => "2",
        Kind::Plain(&[strict(&[TEXT], Type::Int, |args| Ok(Val::Int(text::length(&take(args, 0)?))))])),
    function!(Text, "position", [], "position(part in x)", "Where `part` begins in `x`, counted from 1; 0 if it does not.",
        "position('@' in 'a@b')" => "2", Kind::Special),
    function!(Text, "strpos", [], "strpos(x, part)", "As `position(part in x)`.", "strpos('a@b', '@')" => "2",
    Kind::Plain(&[strict(&[TEXT, TEXT], Type::Int, |args| {
        let (s, part) = (take(args, 0)?, take(args, 1)?);
        Ok(Val::Int(text::position(&s, &part)))
    })])),
    function!(Text, "starts_with", [], "starts_with(x, prefix)", "Whether `x` begins with `prefix`.",
    "starts_with('Northwind', 'North')" => "true",
    Kind::Plain(&[strict(&[TEXT, TEXT], Type::Bool, |args| {
        let (s, prefix) = (take(args, 0)?, take(args, 1)?);
        Ok(Val::Bool(s.starts_with(&*prefix)))
    })])),
    function!(Text, "like", ["ilike"], "x [not] like pattern [escape c], x [not] ilike pattern",
        "`%` stands for any text, `_` for one character; `ilike` ignores case. A backslash takes the meaning away.",
        "'Berlin' like 'B%n'" => "true", Kind::Special),
    function!(Numbers, "+ - * / %", [], "a + b, a - b, a * b, a / b, a % b, -a",
        "Integers stay integers (division truncates), decimals are exact, floats stay floats. A date plus or minus an \
         integer is a date, a date minus a date a number of days.",
        "7 / 2" => "3", Kind::Special),
    function!(Numbers, "round", [], "round(x [, digits])",
    "Rounded to `digits` after the point, half away from zero; floats (without `digits`) half to even.",
    "round(2.345, 2)" => "2.35",
    Kind::Plain(&[
        strict(&[INT], Type::Int, same),
        strict(&[DECIMAL], Type::Decimal, |args| dec(args, 0)?.round(0).map(Val::Dec)),
        strict(&[FLOAT], Type::Float, |args| on_float(args, f64::round_ties_even)),
        strict(&[DECIMAL, INT], Type::Decimal, |args| dec(args, 0)?.round(int(args, 1)?).map(Val::Dec)),
    ])),
    function!(Numbers, "trunc", [], "trunc(x [, digits])", "Cut off towards zero.", "trunc(2.349, 2)" => "2.34",
    Kind::Plain(&[
        strict(&[INT], Type::Int, same),
        strict(&[DECIMAL], Type::Decimal, |args| dec(args, 0)?.trunc(0).map(Val::Dec)),
        strict(&[FLOAT], Type::Float, |args| on_float(args, f64::trunc)),
        strict(&[DECIMAL, INT], Type::Decimal, |args| dec(args, 0)?.trunc(int(args, 1)?).map(Val::Dec)),
    ])),
    function!(Numbers, "ceil", ["ceiling"], "ceil(x)", "The next whole number upwards.", "ceil(-1.5)" => "-1",
    Kind::Plain(&[
        strict(&[INT], Type::Int, same),
        strict(&[DECIMAL], Type::Decimal, |args| dec(args, 0)?.ceil().map(Val::Dec)),
        strict(&[FLOAT], Type::Float, |args| on_float(args, f64::ceil)),
    ])),
    function!(Numbers, "floor", [], "floor(x)", "The next whole number downwards.", "floor(-1.5)" => "-2",
    Kind::Plain(&[
        strict(&[INT], Type::Int, same),
        strict(&[DECIMAL], Type::Decimal, |args| dec(args, 0)?.floor().map(Val::Dec)),
        strict(&[FLOAT], Type::Float, |args| on_float(args, f64::floor)),
    ])),
    function!(Numbers, "abs", [], "abs(x)", "Without its sign.", "abs(-7)" => "7",
    Kind::Plain(&[
        strict(&[INT], Type::Int, abs),
        strict(&[DECIMAL], Type::Decimal, abs),
        strict(&[FLOAT], Type::Float, abs),
    ])),
    function!(Numbers, "sign", [], "sign(x)", "-1, 0 or 1.", "sign(-7.5)" => "-1",
        Kind::Plain(&[strict(&[DECIMAL], Type::Decimal, sign)])),
    function!(Dates, "extract", ["date_part"], "extract(part from x), date_part('part', x)",
        "A part of a date, time or timestamp: year, quarter, month, week, day, hour, minute, second, dow, isodow, doy, \
         isoyear, decade, century, milliseconds, microseconds, epoch. Whole parts are integers; second, milliseconds and \
         epoch are decimals.",
        "extract(year from date '1996-07-04')" => "1996", Kind::Special),
    function!(Dates, "date_trunc", [], "date_trunc('unit', x [, 'zone'])",
        "The start of the year, quarter, month, week, day, hour, ... that `x` lies in.",
        "date_trunc('month', timestamp '1996-07-04 10:00:00')" => "1996-07-01T00:00:00", Kind::Special),
    function!(Dates, "at time zone", [], "x at time zone 'Europe/Berlin'",
        "A timestamp without zone becomes the instant it is in that zone; one with zone becomes the local time there.",
        "timestamp '2024-07-01 12:00:00' at time zone 'Europe/Berlin'" => "2024-07-01T10:00:00Z", Kind::Special),
    function!(Dates, "to_char", [], "to_char(x, 'YYYY-MM-DD')",
        "A date or timestamp as text: YYYY YYY YY, MM, DD, HH24, HH12, MI, SS, MS, US, AM, Mon, Month, Dy, Day, D, DDD, Q, \
         IYYY, IW, ID; the case of names is as written, `FM` leaves out padding, text in double quotes is copied.",
        "to_char(date '1996-07-04', 'FMDD Mon YYYY')" => "4 Jul 1996", Kind::Special),
    function!(Choice, "case", [], "case when condition then a ... else b end, case x when v then a ... end",
        "The first branch whose condition is true; null without `else`.",
        "case when 2 > 1 then 'yes' else 'no' end" => "yes", Kind::Special),
    function!(Choice, "coalesce", [], "coalesce(a, b, ...)", "The first value that is not null.",
        "coalesce(null, 'n/a')" => "n/a", Kind::Special),
    function!(Choice, "nullif", [], "nullif(a, b)", "Null if both are equal, else `a`.", "nullif('', '')" => "null",
        Kind::Special),
    function!(Choice, "greatest", [], "greatest(a, b, ...)", "The largest value; nulls are passed over.",
        "greatest(1, null, 3)" => "3", Kind::Special),
    function!(Choice, "least", [], "least(a, b, ...)", "The smallest value; nulls are passed over.",
        "least(1, null, 3)" => "1", Kind::Special),
    function!(Choice, "comparison", [], "= <> < <= > >=, [not] between a and b, [not] in (a, b), is [not] null, \
        is [not] true, is [not] false, is [not] distinct from, and, or, not",
        "With SQL's three values: null compared with anything is null, and only true counts as true.",
        "7 in (5, 7)" => "true", Kind::Special),
    function!(Other, "cast", [], "cast(x as type), x::type",
        "Converts to text, varchar(n), smallint, integer, bigint, decimal, decimal(p,s), real, double precision, boolean, \
         date, time, timestamp, timestamptz, uuid or json. A value that does not convert sets the row aside.",
        "cast('1996-07-04' as date)" => "1996-07-04", Kind::Special),
    function!(Other, "lookup", [], "lookup('table', x)",
        "Translates through a `[lookup.table]` of the pack; what happens to values it does not list stands there.",
        "lookup('country', 'Germany')" => "DE", Kind::Special),
    function!(Other, "sha256", [], "sha256(x)", "The SHA-256 hash of a text or of bytes, in lower-case hexadecimal.",
    "left(sha256('abc'), 8)" => "ba7816bf",
    Kind::Plain(&[
        strict(&[TEXT], Type::Text, sha256),
        strict(&[Arg::Of(Type::Bytes)], Type::Text, sha256),
    ])),
];
