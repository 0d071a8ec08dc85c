//! Patterns that are read once, when a pack is compiled: parts of dates, `to_char` templates, regular expressions.

use super::civil::{self, Date, Timestamp, push_digits};
use super::decimal::Dec;
use super::text::MAX_TEXT;
use super::value::{Fault, Val, fault};
use regex::Regex;
use std::fmt::Write as _;

/// A field of `extract` and `date_part`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(crate) enum DatePart {
    Year,
    IsoYear,
    Quarter,
    Month,
    Week,
    Day,
    Doy,
    Dow,
    IsoDow,
    Hour,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    Epoch,
    Decade,
    Century,
}

/// Names of [`DatePart`]s, as in PostgreSQL.
pub(crate) const DATE_PARTS: &[(&str, DatePart)] = &[
    ("year", DatePart::Year),
    ("isoyear", DatePart::IsoYear),
    ("quarter", DatePart::Quarter),
    ("month", DatePart::Month),
    ("week", DatePart::Week),
    ("day", DatePart::Day),
    ("doy", DatePart::Doy),
    ("dow", DatePart::Dow),
    ("isodow", DatePart::IsoDow),
    ("hour", DatePart::Hour),
    ("minute", DatePart::Minute),
    ("second", DatePart::Second),
    ("milliseconds", DatePart::Millisecond),
    ("microseconds", DatePart::Microsecond),
    ("epoch", DatePart::Epoch),
    ("decade", DatePart::Decade),
    ("century", DatePart::Century),
];

/// Looks a name up in a table of units; a plural or singular of it is as good.
pub(crate) fn unit<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    let name = name.to_lowercase();
    let same = |unit: &str| unit.trim_end_matches('s') == name.trim_end_matches('s');
    table.iter().find(|(unit, _)| same(unit)).map(|(_, value)| *value)
}

impl DatePart {
    /// Whether the result has digits after the point.
    pub(crate) fn is_fractional(self) -> bool {
        matches!(self, DatePart::Second | DatePart::Millisecond | DatePart::Epoch)
    }

    /// Whether it needs a date (a time of day has none).
    pub(crate) fn needs_date(self) -> bool {
        !self.needs_time() && self != DatePart::Epoch
    }

    /// Whether it needs a time of day (a date has none).
    pub(crate) fn needs_time(self) -> bool {
        use DatePart::{Hour, Microsecond, Millisecond, Minute, Second};
        matches!(self, Hour | Minute | Second | Millisecond | Microsecond)
    }

    /// The part of a date.
    pub(crate) fn of_date(self, date: Date) -> Result<Val<'static>, Fault> {
        if !date.is_finite() {
            return self.of_infinity(date == Date::NEG_INFINITY);
        }
        match self {
            DatePart::Epoch => Ok(Val::Dec(Dec::from_int(i128::from(date.0) * 86_400))),
            _ => self.of_timestamp(date.at_midnight()),
        }
    }

    /// The part of a timestamp (of a local time, or of one in UTC).
    pub(crate) fn of_timestamp(self, ts: Timestamp) -> Result<Val<'static>, Fault> {
        if !ts.is_finite() {
            return self.of_infinity(ts == Timestamp::NEG_INFINITY);
        }
        let date = ts.date();
        let ymd = date.ymd();
        // PostgreSQL counts 1 BC as -1 in years, and has no year 0.
        let shown = |year: i64| if year <= 0 { year - 1 } else { year };
        let n = match self {
            DatePart::Year => shown(ymd.year),
            DatePart::IsoYear => shown(date.iso_week().0),
            DatePart::Quarter => i64::from((ymd.month - 1) / 3 + 1),
            DatePart::Month => i64::from(ymd.month),
            DatePart::Week => date.iso_week().1,
            DatePart::Day => i64::from(ymd.day),
            DatePart::Doy => date.day_of_year(),
            DatePart::Dow => date.weekday(),
            DatePart::IsoDow => (date.weekday() + 6) % 7 + 1,
            DatePart::Decade => ymd.year.div_euclid(10),
            DatePart::Century if ymd.year > 0 => (ymd.year + 99) / 100,
            DatePart::Century => -((99 - (ymd.year - 1)) / 100),
            DatePart::Epoch => return Ok(Val::Dec(scaled(ts.0, 6))),
            _ => return self.of_time(ts.time_of_day()),
        };
        Ok(Val::Int(n))
    }

    /// The part of a time of day in microseconds.
    pub(crate) fn of_time(self, us: i64) -> Result<Val<'static>, Fault> {
        Ok(match self {
            DatePart::Hour => Val::Int(us / 3_600_000_000),
            DatePart::Minute => Val::Int(us / 60_000_000 % 60),
            DatePart::Second => Val::Dec(scaled(us % 60_000_000, 6)),
            DatePart::Millisecond => Val::Dec(scaled(us % 60_000_000, 3)),
            DatePart::Microsecond => Val::Int(us % 60_000_000),
            DatePart::Epoch => Val::Dec(scaled(us, 6)),
            _ => return fault("out_of_range", "a time of day has no such part"),
        })
    }

    /// PostgreSQL: what grows with time is infinite, what turns round is null.
    fn of_infinity(self, negative: bool) -> Result<Val<'static>, Fault> {
        match self {
            DatePart::Epoch => Ok(Val::Dec(Dec::Infinity { negative })),
            DatePart::Year | DatePart::IsoYear | DatePart::Decade | DatePart::Century => {
                fault("out_of_range", "an infinite date has no year")
            }
            _ => Ok(Val::Null),
        }
    }
}

/// A number of microseconds, or of seconds, as a decimal with its point at `scale`.
fn scaled(mantissa: i64, scale: u8) -> Dec {
    Dec::Small { mantissa, scale }
}

/// A unit of `date_trunc`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(crate) enum TruncUnit {
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
}

/// Names of [`TruncUnit`]s, as in PostgreSQL.
pub(crate) const TRUNC_UNITS: &[(&str, TruncUnit)] = &[
    ("microseconds", TruncUnit::Microsecond),
    ("milliseconds", TruncUnit::Millisecond),
    ("second", TruncUnit::Second),
    ("minute", TruncUnit::Minute),
    ("hour", TruncUnit::Hour),
    ("day", TruncUnit::Day),
    ("week", TruncUnit::Week),
    ("month", TruncUnit::Month),
    ("quarter", TruncUnit::Quarter),
    ("year", TruncUnit::Year),
    ("decade", TruncUnit::Decade),
    ("century", TruncUnit::Century),
];

impl TruncUnit {
    /// The start of the unit that a local time lies in.
    pub(crate) fn start(self, ts: Timestamp) -> Option<Timestamp> {
        if !ts.is_finite() {
            return Some(ts);
        }
        let step = |us: i64| Some(Timestamp(ts.0 - ts.0.rem_euclid(us)));
        let date = ts.date();
        let ymd = date.ymd();
        let day = |year, month| Date::from_ymd(year, month, 1).map(Date::at_midnight);
        match self {
            TruncUnit::Microsecond => Some(ts),
            TruncUnit::Millisecond => step(1000),
            TruncUnit::Second => step(1_000_000),
            TruncUnit::Minute => step(60_000_000),
            TruncUnit::Hour => step(3_600_000_000),
            TruncUnit::Day => Some(date.at_midnight()),
            TruncUnit::Week => {
                let since_monday = (date.weekday() + 6) % 7;
                i32::try_from(i64::from(date.0) - since_monday).ok().map(|d| Date(d).at_midnight())
            }
            TruncUnit::Month => day(ymd.year, ymd.month),
            TruncUnit::Quarter => day(ymd.year, (ymd.month - 1) / 3 * 3 + 1),
            TruncUnit::Year => day(ymd.year, 1),
            TruncUnit::Decade => day(ymd.year.div_euclid(10) * 10, 1),
            TruncUnit::Century => day((ymd.year - 1).div_euclid(100) * 100 + 1, 1),
        }
    }
}

/// One part of a `to_char` template.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Literal(String),
    /// Digits: what, how many, without leading zeros (`FM`).
    Number(NumberPiece, usize, bool),
    /// Month or day name: which, in what case, how many letters (0 is all), padded to nine.
    Name {
        month: bool,
        case: NameCase,
        short: bool,
        padded: bool,
    },
    /// `AM`/`PM`, upper or lower case, with dots or not.
    Meridiem {
        upper: bool,
        dots: bool,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NumberPiece {
    Year,
    IsoYear,
    Quarter,
    Month,
    Day,
    DayOfYear,
    DayOfWeek,
    IsoDayOfWeek,
    IsoWeek,
    Hour24,
    Hour12,
    Minute,
    Second,
    Millisecond,
    Microsecond,
    SecondsOfDay,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NameCase {
    Upper,
    Title,
    Lower,
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A `to_char` template for dates and timestamps.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DateTemplate(Vec<Piece>);

/// Numeric patterns, longest first so that `HH24` is not read as `HH`.
const NUMBER_PATTERNS: &[(&str, NumberPiece, usize)] = &[
    ("IYYY", NumberPiece::IsoYear, 4),
    ("YYYY", NumberPiece::Year, 4),
    ("SSSSS", NumberPiece::SecondsOfDay, 1),
    ("SSSS", NumberPiece::SecondsOfDay, 1),
    ("HH24", NumberPiece::Hour24, 2),
    ("HH12", NumberPiece::Hour12, 2),
    ("YYY", NumberPiece::Year, 3),
    ("IDD", NumberPiece::IsoDayOfWeek, 1),
    ("DDD", NumberPiece::DayOfYear, 3),
    ("YY", NumberPiece::Year, 2),
    ("HH", NumberPiece::Hour12, 2),
    ("MI", NumberPiece::Minute, 2),
    ("MM", NumberPiece::Month, 2),
    ("MS", NumberPiece::Millisecond, 3),
    ("US", NumberPiece::Microsecond, 6),
    ("SS", NumberPiece::Second, 2),
    ("DD", NumberPiece::Day, 2),
    ("ID", NumberPiece::IsoDayOfWeek, 1),
    ("IW", NumberPiece::IsoWeek, 2),
    ("Q", NumberPiece::Quarter, 1),
    ("D", NumberPiece::DayOfWeek, 1),
];

/// Name patterns: text, is a month, case, short.
const NAME_PATTERNS: &[(&str, bool, NameCase, bool)] = &[
    ("MONTH", true, NameCase::Upper, false),
    ("Month", true, NameCase::Title, false),
    ("month", true, NameCase::Lower, false),
    ("MON", true, NameCase::Upper, true),
    ("Mon", true, NameCase::Title, true),
    ("mon", true, NameCase::Lower, true),
    ("DAY", false, NameCase::Upper, false),
    ("Day", false, NameCase::Title, false),
    ("day", false, NameCase::Lower, false),
    ("DY", false, NameCase::Upper, true),
    ("Dy", false, NameCase::Title, true),
    ("dy", false, NameCase::Lower, true),
];

impl DateTemplate {
    /// Reads a template; the error is the text that is no known pattern.
    pub(crate) fn parse(template: &str) -> Result<DateTemplate, String> {
        let mut pieces: Vec<Piece> = Vec::new();
        let mut rest = template;
        while let Some(c) = rest.chars().next() {
            if let Some(quoted) = rest.strip_prefix('"') {
                let end = quoted.find('"').unwrap_or(quoted.len());
                literal(&mut pieces, &quoted[..end]);
                rest = quoted.get(end + 1..).unwrap_or_default();
                continue;
            }
            let (fill, after) = match strip_prefix_ignore_case(rest, "FM") {
                Some(after) => (true, after),
                None => (false, rest),
            };
            let (piece, after) = if let Some(found) = name_piece(after, fill) {
                found
            } else if let Some(found) = number_piece(after, fill) {
                found
            } else if c.is_ascii_alphabetic() {
                let word: String = rest.chars().take_while(char::is_ascii_alphabetic).collect();
                return Err(word);
            } else {
                literal(&mut pieces, &rest[..c.len_utf8()]);
                rest = &rest[c.len_utf8()..];
                continue;
            };
            pieces.push(piece);
            rest = after;
        }
        Ok(DateTemplate(pieces))
    }

    /// Writes a local time; infinite ones have no text.
    pub(crate) fn write(&self, ts: Timestamp) -> Option<String> {
        if !ts.is_finite() {
            return None;
        }
        let mut out = String::new();
        let date = ts.date();
        let us = ts.time_of_day();
        for piece in &self.0 {
            match piece {
                Piece::Literal(s) => out.push_str(s),
                Piece::Number(what, width, fill) => {
                    let n = number(*what, date, us).unsigned_abs();
                    // A pattern with fewer letters than the year has digits shows the last ones.
                    let n = if *what == NumberPiece::Year && *width < 4 { n % 10_u64.pow(*width as u32) } else { n };
                    push_digits(&mut out, n, if *fill { 1 } else { *width });
                }
                Piece::Name { month, case, short, padded } => {
                    let index = if *month { date.ymd().month as usize - 1 } else { date.weekday() as usize };
                    let name = if *month { MONTHS.get(index) } else { DAYS.get(index) }.copied().unwrap_or_default();
                    let name = if *short { &name[..3] } else { name };
                    let name = match case {
                        NameCase::Upper => name.to_uppercase(),
                        NameCase::Title => name.to_owned(),
                        NameCase::Lower => name.to_lowercase(),
                    };
                    let width = if *padded && !*short { 9 } else { 0 };
                    let _ = write!(out, "{name:width$}");
                }
                Piece::Meridiem { upper, dots } => {
                    let afternoon = us >= 43_200_000_000;
                    out.push_str(match (afternoon, upper, dots) {
                        (false, true, false) => "AM",
                        (true, true, false) => "PM",
                        (false, false, false) => "am",
                        (true, false, false) => "pm",
                        (false, true, true) => "A.M.",
                        (true, true, true) => "P.M.",
                        (false, false, true) => "a.m.",
                        (true, false, true) => "p.m.",
                    });
                }
            }
        }
        Some(out)
    }
}

fn literal(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        Some(Piece::Literal(last)) => last.push_str(text),
        _ => pieces.push(Piece::Literal(text.to_owned())),
    }
}

fn strip_prefix_ignore_case<'a>(s: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = s.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn name_piece(s: &str, fill: bool) -> Option<(Piece, &str)> {
    for (text, upper, dots) in
        [("A.M.", true, true), ("P.M.", true, true), ("a.m.", false, true), ("p.m.", false, true)].into_iter().chain([
            ("AM", true, false),
            ("PM", true, false),
            ("am", false, false),
            ("pm", false, false),
        ])
    {
        if let Some(rest) = s.strip_prefix(text) {
            return Some((Piece::Meridiem { upper, dots }, rest));
        }
    }
    NAME_PATTERNS.iter().find_map(|(text, month, case, short)| {
        let rest = s.strip_prefix(text)?;
        Some((Piece::Name { month: *month, case: *case, short: *short, padded: !fill }, rest))
    })
}

fn number_piece(s: &str, fill: bool) -> Option<(Piece, &str)> {
    NUMBER_PATTERNS.iter().find_map(|(text, what, width)| {
        let rest = strip_prefix_ignore_case(s, text)?;
        Some((Piece::Number(*what, *width, fill), rest))
    })
}

fn number(what: NumberPiece, date: Date, us: i64) -> i64 {
    let ymd = date.ymd();
    match what {
        // PostgreSQL shows 1 BC as year 1.
        NumberPiece::Year => {
            if ymd.year <= 0 {
                1 - ymd.year
            } else {
                ymd.year
            }
        }
        NumberPiece::IsoYear => date.iso_week().0,
        NumberPiece::Quarter => i64::from((ymd.month - 1) / 3 + 1),
        NumberPiece::Month => i64::from(ymd.month),
        NumberPiece::Day => i64::from(ymd.day),
        NumberPiece::DayOfYear => date.day_of_year(),
        NumberPiece::DayOfWeek => date.weekday() + 1,
        NumberPiece::IsoDayOfWeek => (date.weekday() + 6) % 7 + 1,
        NumberPiece::IsoWeek => date.iso_week().1,
        NumberPiece::Hour24 => us / 3_600_000_000,
        NumberPiece::Hour12 => (us / 3_600_000_000 + 11) % 12 + 1,
        NumberPiece::Minute => us / 60_000_000 % 60,
        NumberPiece::Second => us / 1_000_000 % 60,
        NumberPiece::Millisecond => us / 1000 % 1000,
        NumberPiece::Microsecond => us % 1_000_000,
        NumberPiece::SecondsOfDay => us / 1_000_000,
    }
}

/// A compiled `regexp_replace`.
#[derive(Clone, Debug)]
pub(crate) struct RegexReplace {
    regex: Regex,
    /// Literal text and group numbers, in order.
    replacement: Vec<(String, Option<usize>)>,
    global: bool,
}

impl RegexReplace {
    /// Reads a pattern, a replacement with `\1` and `\&`, and the flags `g` and `i`.
    pub(crate) fn parse(pattern: &str, replacement: &str, flags: &str) -> Result<RegexReplace, String> {
        let mut builder = regex::RegexBuilder::new(pattern);
        // Bounds what a pattern may cost; matching itself is linear.
        builder.size_limit(1 << 20).dot_matches_new_line(true);
        let mut global = false;
        for flag in flags.chars() {
            match flag {
                'g' => global = true,
                'i' => {
                    builder.case_insensitive(true);
                }
                _ => return Err(format!("the flag `{flag}` is not supported (supported: g, i)")),
            }
        }
        let regex = builder.build().map_err(|e| match e {
            regex::Error::Syntax(text) => {
                text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
            }
            _ => "the pattern is too large".to_owned(),
        })?;
        let mut parts = vec![(String::new(), None)];
        let mut chars = replacement.chars();
        while let Some(c) = chars.next() {
            let group = match c {
                '\\' => match chars.next() {
                    Some('&') => Some(0),
                    Some(d @ '1'..='9') => Some(d as usize - '0' as usize),
                    Some(other) => {
                        if let Some(last) = parts.last_mut() {
                            last.0.push(other);
                        }
                        continue;
                    }
                    None => None,
                },
                _ => {
                    if let Some(last) = parts.last_mut() {
                        last.0.push(c);
                    }
                    continue;
                }
            };
            if let Some(last) = parts.last_mut() {
                last.1 = group;
            }
            parts.push((String::new(), None));
        }
        Ok(RegexReplace { regex, replacement: parts, global })
    }

    /// The text with matches replaced.
    pub(crate) fn apply(&self, text: &str) -> Result<Option<String>, Fault> {
        let mut out = String::new();
        let mut from = 0;
        for found in self.regex.captures_iter(text).take(if self.global { usize::MAX } else { 1 }) {
            let Some(whole) = found.get(0) else { break };
            out.push_str(&text[from..whole.start()]);
            for (literal, group) in &self.replacement {
                out.push_str(literal);
                out.push_str(group.and_then(|n| found.get(n)).map_or("", |m| m.as_str()));
            }
            from = whole.end();
            if out.len() > MAX_TEXT {
                return fault("text_too_long", "the result is longer than any text may be here");
            }
        }
        if from == 0 && out.is_empty() {
            return Ok(None);
        }
        out.push_str(&text[from..]);
        Ok(Some(out))
    }
}

/// `part` of a value; the type was checked when the pack was compiled.
pub(crate) fn extract<'a>(part: DatePart, value: &Val<'a>) -> Result<Val<'a>, Fault> {
    match value {
        Val::Date(d) => part.of_date(*d),
        Val::Ts(t) | Val::TsTz(t) => part.of_timestamp(*t),
        Val::Time(s) => match civil::parse_time(s) {
            Some((us, _)) => part.of_time(us),
            None => fault("bad_value", "the source's time cannot be read"),
        },
        _ => fault("bug", "a date, time or timestamp was expected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(template: &str, ts: &str) -> String {
        DateTemplate::parse(template)
            .expect("a template")
            .write(Timestamp::parse_canonical(ts).expect("a time"))
            .expect("finite")
    }

    #[test]
    fn templates_write_what_postgresql_writes() {
        let ts = "2024-03-05T14:07:09.045";
        assert_eq!(show("YYYY-MM-DD\"T\"HH24:MI:SS.MS", ts), "2024-03-05T14:07:09.045");
        assert_eq!(show("FMDD.FMMM.YY HH12:MI AM", ts), "5.3.24 02:07 PM");
        assert_eq!(show("Day, DD Month YYYY", ts), "Tuesday  , 05 March     2024");
        assert_eq!(show("FMDay, FMMonth Mon dy", ts), "Tuesday, March Mar tue");
        assert_eq!(show("Q IYYY-IW-ID DDD US", ts), "1 2024-10-2 065 045000");
    }

    #[test]
    fn an_unknown_pattern_is_named() {
        assert_eq!(DateTemplate::parse("YYYY foo"), Err("foo".into()));
    }

    #[test]
    fn replacements_refer_to_groups() {
        let run = |p, r, f, s: &str| {
            RegexReplace::parse(p, r, f).expect("a pattern").apply(s).expect("short").unwrap_or(s.into())
        };
        assert_eq!(run("[^0-9]+", "", "g", "030-00 74"), "0300074");
        assert_eq!(run("(\\w+) (\\w+)", "\\2 \\1", "", "Maria Anders x"), "Anders Maria x");
        assert_eq!(run("b", "<\\&>", "", "abb"), "a<b>b");
        assert_eq!(run("B", "", "i", "abb"), "ab");
        assert!(RegexReplace::parse("(", "", "").is_err());
        assert!(RegexReplace::parse("a", "", "x").is_err());
    }
}
