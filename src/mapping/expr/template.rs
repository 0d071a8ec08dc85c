//! Templates of `to_char` for dates and timestamps, read once.

use super::civil::{Date, Timestamp, push_digits};
use std::fmt::Write as _;

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
}
