//! Parts of dates and times (`extract`) and units that they are cut to (`date_trunc`).

use super::civil::{self, Date, Timestamp};
use super::decimal::Dec;
use super::value::{Fault, Val, fault};

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
