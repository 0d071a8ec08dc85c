//! Dates and timestamps: day and microsecond counts on the proleptic Gregorian calendar, with both infinities, over
//! PostgreSQL's whole range. Time zones are jiff's.
//!
//! A calendar crate would be one more range limit (most end at year 9999 and know no infinity), and all that is needed
//! is a conversion between day numbers and civil dates.

use jiff::tz::TimeZone;
use std::fmt::{self, Write as _};

const DAY: i64 = 86_400_000_000;

/// Days since 1970-01-01; the extremes are the infinities.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Date(pub i32);

/// Microseconds since 1970-01-01T00:00; the extremes are the infinities.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Timestamp(pub i64);

/// A civil date in parts; year 0 is 1 BC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ymd {
    pub year: i64,
    pub month: u32,
    pub day: u32,
}

/// Day number of a civil date (Howard Hinnant's algorithm, valid over the whole range).
fn days_from_civil(date: Ymd) -> i64 {
    let y = date.year - i64::from(date.month <= 2);
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let month = i64::from((date.month + 9) % 12);
    let day_of_year = (153 * month + 2) / 5 + i64::from(date.day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Civil date of a day number.
fn civil_from_days(days: i64) -> Ymd {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * mp + 2) / 5 + 1) as u32;
    let month = (if mp < 10 { mp + 3 } else { mp - 9 }) as u32;
    Ymd { year: year_of_era + era * 400 + i64::from(month <= 2), month, day }
}

/// Days in a month.
fn month_length(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.rem_euclid(4) == 0 && (year.rem_euclid(100) != 0 || year.rem_euclid(400) == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

impl Date {
    pub(crate) const INFINITY: Date = Date(i32::MAX);
    pub(crate) const NEG_INFINITY: Date = Date(i32::MIN);

    pub(crate) fn is_finite(self) -> bool {
        self != Self::INFINITY && self != Self::NEG_INFINITY
    }

    /// From parts; `None` if there is no such day.
    pub(crate) fn from_ymd(year: i64, month: u32, day: u32) -> Option<Date> {
        let fits =
            (1..=12).contains(&month) && (1..=month_length(year, month)).contains(&day) && year.abs() < 6_000_000;
        let days = fits.then(|| days_from_civil(Ymd { year, month, day }))?;
        i32::try_from(days).ok().map(Date)
    }

    pub(crate) fn ymd(self) -> Ymd {
        civil_from_days(i64::from(self.0))
    }

    /// The connector's canonical form.
    pub(crate) fn parse_canonical(s: &str) -> Option<Date> {
        match s {
            "infinity" => Some(Self::INFINITY),
            "-infinity" => Some(Self::NEG_INFINITY),
            _ => {
                let (date, rest) = parse_date(s)?;
                rest.is_empty().then_some(date)
            }
        }
    }

    /// What PostgreSQL accepts, as far as it is ISO 8601: a date, with a time that is ignored, and `BC`.
    pub(crate) fn parse_lenient(s: &str) -> Option<Date> {
        Timestamp::parse_lenient(s).map(|(ts, _)| ts.date())
    }

    pub(crate) fn at_midnight(self) -> Timestamp {
        match self {
            Self::INFINITY => Timestamp::INFINITY,
            Self::NEG_INFINITY => Timestamp::NEG_INFINITY,
            Date(days) => Timestamp(i64::from(days).saturating_mul(DAY)),
        }
    }

    /// Day of the week, 0 is Sunday.
    pub(crate) fn weekday(self) -> i64 {
        (i64::from(self.0) + 4).rem_euclid(7)
    }

    /// Day of the year from 1.
    pub(crate) fn day_of_year(self) -> i64 {
        let start = days_from_civil(Ymd { year: self.ymd().year, month: 1, day: 1 });
        i64::from(self.0) - start + 1
    }

    /// ISO 8601 week-numbering year and week.
    pub(crate) fn iso_week(self) -> (i64, i64) {
        // The week belongs to the year that its Thursday lies in.
        let monday_based = (self.weekday() + 6) % 7;
        let thursday = i64::from(self.0) - monday_based + 3;
        let year = civil_from_days(thursday).year;
        let start = days_from_civil(Ymd { year, month: 1, day: 1 });
        (year, (thursday - start) / 7 + 1)
    }

    /// Appends the canonical form.
    pub(crate) fn write(self, out: &mut String) {
        match self {
            Self::INFINITY => out.push_str("infinity"),
            Self::NEG_INFINITY => out.push_str("-infinity"),
            _ => write_year_first(self.ymd(), self.ymd().year, out),
        }
    }

    /// Appends PostgreSQL's text.
    pub(crate) fn write_sql(self, out: &mut String) {
        let ymd = self.ymd();
        if !self.is_finite() || ymd.year > 0 {
            return self.write(out);
        }
        write_year_first(ymd, 1 - ymd.year, out);
        out.push_str(" BC");
    }
}

fn write_year_first(ymd: Ymd, year: i64, out: &mut String) {
    if (0..=9999).contains(&year) {
        push_digits(out, year as u64, 4);
    } else {
        let sign = if year < 0 { "-" } else { "" };
        let _ = write!(out, "{sign}{:04}", year.unsigned_abs());
    }
    out.push('-');
    push_digits(out, u64::from(ymd.month), 2);
    out.push('-');
    push_digits(out, u64::from(ymd.day), 2);
}

/// Appends `n` with at least `width` digits (at most 20).
pub(crate) fn push_digits(out: &mut String, n: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    let mut rest = n;
    while rest > 0 {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let from = at.min(digits.len() - width.min(digits.len()));
    out.extend(digits[from..].iter().map(|d| char::from(*d)));
}

impl Timestamp {
    pub(crate) const INFINITY: Timestamp = Timestamp(i64::MAX);
    pub(crate) const NEG_INFINITY: Timestamp = Timestamp(i64::MIN);

    pub(crate) fn is_finite(self) -> bool {
        self != Self::INFINITY && self != Self::NEG_INFINITY
    }

    /// The date part.
    pub(crate) fn date(self) -> Date {
        match self {
            Self::INFINITY => Date::INFINITY,
            Self::NEG_INFINITY => Date::NEG_INFINITY,
            Timestamp(us) => Date(i32::try_from(us.div_euclid(DAY)).unwrap_or(i32::MAX)),
        }
    }

    /// Microseconds since midnight.
    pub(crate) fn time_of_day(self) -> i64 {
        self.0.rem_euclid(DAY)
    }

    /// The connector's canonical form, with or without `Z`.
    pub(crate) fn parse_canonical(s: &str) -> Option<Timestamp> {
        match s {
            "infinity" => return Some(Self::INFINITY),
            "-infinity" => return Some(Self::NEG_INFINITY),
            _ => {}
        }
        let (date, rest) = parse_date(s)?;
        let rest = rest.strip_prefix('T')?;
        let rest = rest.strip_suffix('Z').unwrap_or(rest);
        let (time, rest) = parse_time(rest)?;
        if !rest.is_empty() {
            return None;
        }
        i64::from(date.0).checked_mul(DAY)?.checked_add(time).map(Timestamp)
    }

    /// What PostgreSQL accepts, as far as it is ISO 8601: date, optional time, optional offset (returned in seconds),
    /// optional `BC`. The result is the local time as written.
    pub(crate) fn parse_lenient(s: &str) -> Option<(Timestamp, Option<i32>)> {
        let s = s.trim_matches(|c: char| c.is_ascii_whitespace());
        match s.to_ascii_lowercase().as_str() {
            "infinity" => return Some((Self::INFINITY, None)),
            "-infinity" => return Some((Self::NEG_INFINITY, None)),
            "epoch" => return Some((Timestamp(0), Some(0))),
            _ => {}
        }
        let (s, bc) = match s.len().checked_sub(2).and_then(|n| s.split_at_checked(n)) {
            Some((rest, suffix)) if suffix.eq_ignore_ascii_case("bc") => (rest.trim_end(), true),
            _ => (s, false),
        };
        let (date, rest) = parse_date(s)?;
        let date = match bc {
            false if s.starts_with("0000") => return None,
            false => date,
            true => {
                let ymd = date.ymd();
                Date::from_ymd(1 - ymd.year, ymd.month, ymd.day)?
            }
        };
        let rest = rest.strip_prefix(['T', 't']).unwrap_or(rest).trim_start();
        let (time, rest) = if rest.is_empty() { (0, "") } else { parse_time(rest)? };
        let offset = match rest.trim() {
            "" => None,
            "Z" | "z" | "UTC" | "utc" | "GMT" => Some(0),
            zone => Some(parse_offset(zone)?),
        };
        let local = i64::from(date.0).checked_mul(DAY)?.checked_add(time)?;
        Some((Timestamp(local), offset))
    }

    /// Appends the canonical form without `Z`.
    pub(crate) fn write(self, out: &mut String) {
        self.date().write(out);
        if self.is_finite() {
            out.push('T');
            write_time(self.time_of_day(), out);
        }
    }

    /// Appends PostgreSQL's text; `offset` in seconds is shown after it if there is one.
    pub(crate) fn write_sql(self, offset: Option<i32>, out: &mut String) {
        let date = self.date();
        if !self.is_finite() {
            return date.write(out);
        }
        let ymd = date.ymd();
        let bc = ymd.year <= 0;
        write_year_first(ymd, if bc { 1 - ymd.year } else { ymd.year }, out);
        out.push(' ');
        write_time(self.time_of_day(), out);
        if let Some(offset) = offset {
            let (hours, rest) = (offset.unsigned_abs() / 3600, offset.unsigned_abs() % 3600);
            let _ = write!(out, "{}{hours:02}", if offset < 0 { '-' } else { '+' });
            if rest != 0 {
                let _ = write!(out, ":{:02}", rest / 60);
            }
            if rest % 60 != 0 {
                let _ = write!(out, ":{:02}", rest % 60);
            }
        }
        if bc {
            out.push_str(" BC");
        }
    }

    /// This local time's instant in `zone`. As in PostgreSQL, a time that the clock skipped is read with the offset
    /// before the jump, one that came twice with the offset after it. `None` outside jiff's range.
    pub(crate) fn local_to_utc(self, zone: &TimeZone) -> Option<Timestamp> {
        if !self.is_finite() {
            return Some(self);
        }
        let ymd = self.date().ymd();
        let us = self.time_of_day();
        let time = jiff::civil::Time::new(
            (us / 3_600_000_000) as i8,
            (us / 60_000_000 % 60) as i8,
            (us / 1_000_000 % 60) as i8,
            0,
        )
        .ok()?;
        let date = jiff::civil::Date::new(i16::try_from(ymd.year).ok()?, ymd.month as i8, ymd.day as i8).ok()?;
        let offset = match zone.to_ambiguous_timestamp(date.to_datetime(time)).offset() {
            jiff::tz::AmbiguousOffset::Unambiguous { offset } => offset,
            jiff::tz::AmbiguousOffset::Gap { before, .. } => before,
            jiff::tz::AmbiguousOffset::Fold { after, .. } => after,
        };
        self.0.checked_sub(i64::from(offset.seconds()) * 1_000_000).map(Timestamp)
    }

    /// This instant's offset in `zone`, in seconds. `None` outside jiff's range.
    pub(crate) fn offset_in(self, zone: &TimeZone) -> Option<i32> {
        let instant = jiff::Timestamp::from_microsecond(self.0).ok()?;
        Some(zone.to_offset(instant).seconds())
    }

    /// This instant's local time in `zone`. `None` outside jiff's range.
    pub(crate) fn utc_to_local(self, zone: &TimeZone) -> Option<Timestamp> {
        if !self.is_finite() {
            return Some(self);
        }
        self.0.checked_add(i64::from(self.offset_in(zone)?) * 1_000_000).map(Timestamp)
    }
}

/// Appends `HH:MM:SS[.ffffff]` without trailing zeros.
pub(crate) fn write_time(us: i64, out: &mut String) {
    let us = us.unsigned_abs();
    push_digits(out, us / 3_600_000_000, 2);
    out.push(':');
    push_digits(out, us / 60_000_000 % 60, 2);
    out.push(':');
    push_digits(out, us / 1_000_000 % 60, 2);
    let fraction = us % 1_000_000;
    if fraction != 0 {
        out.push('.');
        push_digits(out, fraction, 6);
        out.truncate(out.trim_end_matches('0').len());
    }
}

/// Takes digits off the front of `s`.
fn digits(s: &str, min: usize, max: usize) -> Option<(u64, &str)> {
    let n = s.bytes().take(max).take_while(u8::is_ascii_digit).count();
    if n < min {
        return None;
    }
    Some((s[..n].parse().ok()?, &s[n..]))
}

/// `[-]YYYY…-M-D` off the front of `s`; a negative year is ISO 8601's (year 0 is 1 BC).
fn parse_date(s: &str) -> Option<(Date, &str)> {
    let (negative, rest) = match s.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, s),
    };
    let (year, rest) = digits(rest, 4, 7)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 1, 2)?;
    let (day, rest) = digits(rest.strip_prefix('-')?, 1, 2)?;
    let year = i64::try_from(year).ok()?;
    let date = Date::from_ymd(if negative { -year } else { year }, month as u32, day as u32)?;
    Some((date, rest))
}

/// `HH:MM[:SS[.ffffff]]` off the front of `s`, in microseconds; 24:00:00 is the end of the day.
pub(crate) fn parse_time(s: &str) -> Option<(i64, &str)> {
    let (hour, rest) = digits(s, 1, 2)?;
    let (minute, mut rest) = digits(rest.strip_prefix(':')?, 2, 2)?;
    let mut us = (hour * 60 + minute) * 60_000_000;
    let mut second = 0;
    if let Some(r) = rest.strip_prefix(':') {
        (second, rest) = digits(r, 2, 2)?;
        us += second * 1_000_000;
        if let Some(r) = rest.strip_prefix('.') {
            let n = r.bytes().take_while(u8::is_ascii_digit).count();
            us += fraction(&r[..n])?;
            rest = &r[n..];
        }
    }
    let whole_day = DAY.unsigned_abs();
    (minute < 60 && second <= 60 && us <= whole_day).then_some((i64::try_from(us).ok()?, rest))
}

/// Microseconds of a decimal fraction's digits, rounded.
fn fraction(digits: &str) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let mut us = 0;
    for n in 0..6 {
        us = us * 10 + digits.as_bytes().get(n).map_or(0, |d| u64::from(d - b'0'));
    }
    Some(us + u64::from(digits.as_bytes().get(6).is_some_and(|d| *d >= b'5')))
}

/// `±HH[[:]MM[:SS]]` in seconds.
pub(crate) fn parse_offset(s: &str) -> Option<i32> {
    let (sign, rest) = match s.as_bytes().first()? {
        b'+' => (1, &s[1..]),
        b'-' => (-1, &s[1..]),
        _ => return None,
    };
    let (hours, mut rest) = digits(rest, 1, 2)?;
    let (mut minutes, mut seconds) = (0, 0);
    if !rest.is_empty() {
        (minutes, rest) = digits(rest.strip_prefix(':').unwrap_or(rest), 2, 2)?;
    }
    if !rest.is_empty() {
        (seconds, rest) = digits(rest.strip_prefix(':')?, 2, 2)?;
    }
    let total = i32::try_from(hours * 3600 + minutes * 60 + seconds).ok()?;
    (rest.is_empty() && hours < 16 && minutes < 60 && seconds < 60).then_some(sign * total)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        self.write(&mut out);
        f.write_str(&out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(s: &str) -> String {
        Timestamp::parse_canonical(s).map(|t| t.to_string()).unwrap_or_default()
    }

    #[test]
    fn canonical_text_comes_back_as_it_was() {
        for s in [
            "1970-01-01T00:00:00",
            "2024-02-29T23:59:59.999999",
            "0001-01-01T00:00:00",
            "-0043-03-15T12:00:00.5",
            "0000-12-31T00:00:00",
            "12024-01-01T00:00:00",
            "infinity",
            "-infinity",
        ] {
            assert_eq!(canonical(s), s);
        }
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for s in ["2023-02-29", "2024-13-01", "2024-00-10", "2024-1-32", "24-01-01", "2024-01-01x", ""] {
            assert_eq!(Date::parse_canonical(s), None, "{s}");
        }
    }

    #[test]
    fn every_day_has_one_number() {
        let mut expected = Date::from_ymd(-401, 1, 1).expect("a day").0;
        for year in -401..=401 {
            for month in 1..=12 {
                for day in 1..=month_length(year, month) {
                    let date = Date::from_ymd(year, month, day).expect("a day");
                    assert_eq!(date.0, expected);
                    assert_eq!(date.ymd(), Ymd { year, month, day });
                    expected += 1;
                }
            }
        }
    }

    #[test]
    fn weeks_follow_iso_8601() {
        let week = |s| Date::parse_canonical(s).expect("a day").iso_week();
        assert_eq!(week("2021-01-03"), (2020, 53));
        assert_eq!(week("2021-01-04"), (2021, 1));
        assert_eq!(week("2024-12-30"), (2025, 1));
        assert_eq!(Date::parse_canonical("2024-01-07").expect("a day").weekday(), 0);
    }

    #[test]
    fn local_times_that_never_were_or_were_twice_are_read_as_postgresql_does() {
        let zone = TimeZone::get("Europe/Berlin").expect("zone data");
        let utc = |s| Timestamp::parse_canonical(s).and_then(|t| t.local_to_utc(&zone)).map(|t| t.to_string());
        assert_eq!(utc("2024-03-31T02:30:00").as_deref(), Some("2024-03-31T01:30:00"));
        assert_eq!(utc("2024-10-27T02:30:00").as_deref(), Some("2024-10-27T01:30:00"));
        assert_eq!(utc("2024-07-01T12:00:00.25").as_deref(), Some("2024-07-01T10:00:00.25"));
    }

    #[test]
    fn offsets_and_eras_are_understood() {
        let parse = |s| Timestamp::parse_lenient(s).map(|(t, o)| (t.to_string(), o));
        assert_eq!(parse("2024-01-02"), Some(("2024-01-02T00:00:00".into(), None)));
        assert_eq!(
            parse("2024-01-02 3:04:05.1234567+05:30"),
            Some(("2024-01-02T03:04:05.123457".into(), Some(19_800)))
        );
        assert_eq!(parse("0044-03-15 BC"), Some(("-0043-03-15T00:00:00".into(), None)));
        assert_eq!(parse("tomorrow"), None);
        assert_eq!(parse("0000-01-01"), None);
    }
}
