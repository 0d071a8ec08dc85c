//! The entries of the table.

use super::normalise::{country, email, phone_e164};
use super::plain::{
    abs, age_in_days, age_in_years, concat_ws, dec, int, on_float, pad, remainder, same, sha256, shown, sign,
    trim_ends, uuid_v5,
};
use super::{Arg, Function, Group, Kind, Signature};
use crate::mapping::expr::ir::{EvalFn, Type};
use crate::mapping::expr::text::{self, Ends, take};
use crate::mapping::expr::value::Val;

const TEXT: Arg = Arg::Of(Type::Text);
const INT: Arg = Arg::Of(Type::Int);
const DECIMAL: Arg = Arg::Of(Type::Decimal);
const FLOAT: Arg = Arg::Of(Type::Float);

const fn strict(args: &'static [Arg], returns: Type, eval: EvalFn) -> Signature {
    Signature { args, optional: 0, rest: None, returns, strict: true, eval, gives_null: None }
}

const fn optional(args: &'static [Arg], optional: usize, returns: Type, eval: EvalFn) -> Signature {
    Signature { args, optional, rest: None, returns, strict: true, eval, gives_null: None }
}

/// A strict function that can be null though no argument is.
const fn nullable(args: &'static [Arg], optional: usize, returns: Type, why: &'static str, eval: EvalFn) -> Signature {
    Signature { args, optional, rest: None, returns, strict: true, eval, gives_null: Some(why) }
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
        Kind::Plain(&[Signature { args: &[], optional: 0, rest: Some(Arg::Any), returns: Type::Text, strict: false, gives_null: None,
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
        Kind::Plain(&[Signature { args: &[TEXT], optional: 0, rest: Some(Arg::Any), returns: Type::Text, strict: false, gives_null: None,
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
    function!(Text, "~", ["~*", "!~", "!~*"], "x ~ 'pattern', x ~* 'pattern', x !~ 'pattern', x !~* 'pattern'",
        "Whether a regular expression matches somewhere in `x`; `*` ignores case, `!` negates. The pattern is a constant.",
        "'DE-12209' ~ '^[A-Z]{2}-[0-9]+$'" => "true", Kind::Special),
    function!(Text, "regexp_substr", [], "regexp_substr(x, pattern [, flags])",
        "The first part of `x` that the regular expression matches; null if there is none. `i` ignores case.",
        "regexp_substr('Suite 42, 2nd floor', '[0-9]+')" => "42", Kind::Special),
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
    function!(Numbers, "mod", [], "mod(a, b)", "The remainder of a division, as `a % b`.", "mod(-7, 3)" => "-1",
    Kind::Plain(&[
        strict(&[INT, INT], Type::Int, remainder),
        strict(&[DECIMAL, DECIMAL], Type::Decimal, remainder),
    ])),
    function!(Dates, "age_in_days", [], "age_in_days(later, earlier)",
    "Whole days from `earlier` to `later`; negative if they are the other way round.",
    "age_in_days(date '2024-03-01', date '2024-02-01')" => "29",
    Kind::Plain(&[
        strict(&[Arg::Of(Type::Date), Arg::Of(Type::Date)], Type::Int, age_in_days),
        strict(&[Arg::Of(Type::Timestamp), Arg::Of(Type::Timestamp)], Type::Int, age_in_days),
        strict(&[Arg::Of(Type::TimestampTz), Arg::Of(Type::TimestampTz)], Type::Int, age_in_days),
    ])),
    function!(Dates, "age_in_years", [], "age_in_years(later, earlier)",
    "Birthdays passed between two dates, as `extract(year from age(later, earlier))` in PostgreSQL.",
    "age_in_years(date '2024-02-28', date '1970-03-01')" => "53",
    Kind::Plain(&[strict(&[Arg::Of(Type::Date), Arg::Of(Type::Date)], Type::Int, age_in_years)])),
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
    function!(Other, "hmac_sha256", [], "hmac_sha256(x, $key)",
        "The keyed SHA-256 hash of a text or of bytes, in lower-case hexadecimal. The key is a variable of type `secret`, \
         whose place the tenant file names.",
        "left(hmac_sha256('abc', $key), 8)" => "9946dad4", Kind::Special),
    function!(Other, "uuid_v5", [], "uuid_v5(namespace, x)",
    "The UUID of version 5 that a text has in a namespace (another UUID): the same text always gives the same one.",
    "uuid_v5('6ba7b811-9dad-11d1-80b4-00c04fd430c8', 'https://example.com')" => "4fd35a71-71ef-5a55-a9d9-aa75c889a6d0",
    Kind::Plain(&[strict(&[Arg::Of(Type::Uuid), TEXT], Type::Uuid, uuid_v5)])),
    function!(Other, "->", ["->>", "#>", "#>>"], "x -> 'key', x -> 0, x ->> 'key', x #>> '{a,0}'",
        "A part of a JSON document: a field, an element (from the end, if negative), or what a path leads to. `->>` and \
         `#>>` give its text, the others JSON. Null if there is none. Names, numbers and paths are constants.",
        "cast('{\"a\": [\"x\"]}' as json) -> 'a' ->> 0" => "x", Kind::Special),
    function!(Other, "phone_e164", [], "phone_e164(x [, region])",
    "A telephone number in E.164. `region` is the country (two letters) of numbers that do not say theirs; an \
     extension is left out. Null if it is no valid number.",
    "phone_e164('030-0074321', 'DE')" => "+49300074321",
    Kind::Plain(&[nullable(&[TEXT, TEXT], 1, Type::Text, "null if it is no valid telephone number", phone_e164)])),
    function!(Other, "email_address", [], "email_address(x)",
    "An e-mail address in lower case, without spaces around it. Null if it is none.",
    "email_address(' Maria.Anders@Example.com ')" => "maria.anders@example.com",
    Kind::Plain(&[nullable(&[TEXT], 0, Type::Text, "null if it is no e-mail address", email)])),
    function!(Other, "country_code", [], "country_code(x)",
    "The two letters of a country (ISO 3166) from its code or English name. Null if it is none.",
    "country_code('Germany')" => "DE",
    Kind::Plain(&[nullable(&[TEXT], 0, Type::Text, "null if it is no country", country)])),
];
