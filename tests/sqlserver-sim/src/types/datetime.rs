//! Dates and times as counts of 100 nanoseconds ("ticks") since 0001-01-01, the finest grain the product has.
//!
//! Ranges and roundings are those of "Date and time data types and functions (Transact-SQL)": `datetime` counts 1/300 s,
//! `smalldatetime` minutes, the others 10^-scale s.

/// Ticks of one day.
pub const DAY: i64 = 864_000_000_000;
/// Ticks of one second.
pub const SECOND: i64 = 10_000_000;
/// Ticks of one minute.
pub const MINUTE: i64 = 60 * SECOND;
/// 1900-01-01, where `datetime` and `smalldatetime` begin to count.
pub const Y1900: i64 = 693_595 * DAY;
/// Behind 9999-12-31.
pub const END: i64 = 3_652_059 * DAY;

/// Days from 0001-01-01 to a date of the Gregorian calendar.
pub fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 306
}

/// The inverse of [`days`]: year, month, day.
pub fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 306;
    let era = z.div_euclid(146_097);
    let of_era = z - era * 146_097;
    let yoe = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * of_year + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, of_year - (153 * mp + 2) / 5 + 1)
}

/// Days of a month.
pub fn month_length(year: i64, month: i64) -> i64 {
    match month {
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Rounds to `scale` digits of a second, half up.
pub fn round_scale(ticks: i64, scale: u8) -> i64 {
    let unit = 10i64.pow(7 - u32::from(scale.min(7)));
    (ticks + unit / 2).div_euclid(unit) * unit
}

/// Rounds to 1/300 s, "datetime (Transact-SQL)", section "Rounding of datetime fractional second precision".
pub fn round_datetime(ticks: i64) -> i64 {
    let units = (ticks.rem_euclid(DAY) * 3 + 50_000) / 100_000;
    ticks.div_euclid(DAY) * DAY + (units * 100_000 + 1) / 3
}

/// Rounds to a minute, "smalldatetime (Transact-SQL)": 29.998 seconds go down, 29.999 go up.
pub fn round_small(ticks: i64) -> i64 {
    (ticks + MINUTE / 2 + 10_000).div_euclid(MINUTE) * MINUTE
}

/// A date, a time, an offset in minutes: whatever a text says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Days, if there is a date.
    pub date: Option<i64>,
    /// Ticks of the day, if there is a time.
    pub time: Option<i64>,
    /// Minutes east of Greenwich, if written.
    pub offset: Option<i64>,
}

/// Month names, English, the default language of a login.
pub const MONTHS: [&str; 12] = [
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

/// Reads the text forms of "CAST and CONVERT (Transact-SQL)" and the ISO 8601 forms: `yyyy-mm-dd`, `yyyymmdd`,
/// `m/d/yyyy` (language us_english: mdy), `yyyy/mm/dd`, `dd.mm.yyyy` under style 104, a month name, each with an optional
/// time and offset.
/// `dmy` reads `d/m/yyyy` (styles 103, 104, 105).
pub fn parse(text: &str, dmy: bool) -> Option<Parsed> {
    let text = text.trim();
    let mut out = Parsed::default();
    if text.is_empty() {
        out.date = Some(days(1900, 1, 1));
        out.time = Some(0);
        return Some(out);
    }
    // A time begins at the first colon, back to the blank or the T before it.
    let (date, time) = match text.find(':') {
        Some(colon) => match text[..colon].rfind([' ', 'T', 't']) {
            Some(at) => (text[..at].trim(), text[at + 1..].trim()),
            None => ("", text),
        },
        None => (text, ""),
    };
    if !date.is_empty() {
        out.date = Some(parse_date(date, dmy)?);
    }
    if !time.is_empty() {
        let (clock, offset) = split_offset(time)?;
        out.offset = offset;
        out.time = Some(parse_time(clock)?);
    }
    Some(out)
}

fn split_offset(time: &str) -> Option<(&str, Option<i64>)> {
    if let Some(utc) = time.strip_suffix(['Z', 'z']) {
        return Some((utc.trim(), Some(0)));
    }
    let Some(at) = time.rfind(['+', '-']) else { return Some((time, None)) };
    let (hours, minutes) = time[at + 1..].split_once(':')?;
    let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
    if minutes > 14 * 60 {
        return None;
    }
    Some((time[..at].trim(), Some(if time.as_bytes()[at] == b'-' { -minutes } else { minutes })))
}

fn parse_time(clock: &str) -> Option<i64> {
    let lower = clock.to_ascii_lowercase();
    let (clock, half) = match (lower.strip_suffix("am"), lower.strip_suffix("pm")) {
        (Some(c), _) => (c.trim(), Some(0)),
        (_, Some(c)) => (c.trim(), Some(12)),
        _ => (lower.as_str(), None),
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let parts: Vec<i64> = clock.split(':').map(|p| p.parse().ok()).collect::<Option<_>>()?;
    let (mut hour, minute, second) = match parts[..] {
        [h, m] => (h, m, 0),
        [h, m, s] => (h, m, s),
        _ => return None,
    };
    if let Some(half) = half {
        if !(1..=12).contains(&hour) {
            return None;
        }
        hour = hour % 12 + half;
    }
    if !(0..24).contains(&hour) || !(0..60).contains(&minute) || !(0..60).contains(&second) || fraction.len() > 9 {
        return None;
    }
    let nanos: i64 = if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").parse().ok()? };
    Some(((hour * 60 + minute) * 60 + second) * SECOND + (nanos + 50) / 100)
}

fn parse_date(date: &str, dmy: bool) -> Option<i64> {
    let number = |s: &str| -> Option<i64> { s.parse().ok() };
    // "Configure the two-digit year cutoff server configuration option": 2049. Four digits are taken as they are.
    let year = |s: &str| -> Option<i64> {
        let n = number(s)?;
        Some(match s.len() {
            0..=2 if n < 50 => n + 2000,
            0..=2 => n + 1900,
            _ => n,
        })
    };
    let (year, month, day) = if date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit()) {
        (year(&date[..4])?, number(&date[4..6])?, number(&date[6..])?)
    } else if date.bytes().any(|b| b.is_ascii_alphabetic()) {
        let words: Vec<&str> = date.split([' ', ',', '-']).filter(|w| !w.is_empty()).collect();
        let [a, b, c] = words[..] else { return None };
        let name = |w: &str| {
            let w = w.to_ascii_lowercase();
            MONTHS.iter().position(|m| w.len() >= 3 && m.to_ascii_lowercase().starts_with(&w))
        };
        match (name(a), name(b)) {
            (Some(m), _) => (year(c)?, m as i64 + 1, number(b)?),
            (_, Some(m)) => (year(c)?, m as i64 + 1, number(a)?),
            _ => return None,
        }
    } else {
        let parts: Vec<&str> = date.split(['-', '/', '.']).collect();
        let [a, b, c] = parts[..] else { return None };
        if a.len() == 4 {
            (year(a)?, number(b)?, number(c)?)
        } else if dmy {
            (year(c)?, number(b)?, number(a)?)
        } else {
            (year(c)?, number(a)?, number(b)?)
        }
    };
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=month_length(year, month)).contains(&day) {
        return None;
    }
    Some(days(year, month, day))
}

/// `yyyy-mm-dd`.
pub fn format_date(ticks: i64) -> String {
    let (y, m, d) = civil(ticks.div_euclid(DAY));
    format!("{y:04}-{m:02}-{d:02}")
}

/// `hh:mm:ss[.fffffff]` with `scale` digits.
pub fn format_time(ticks: i64, scale: u8) -> String {
    let t = ticks.rem_euclid(DAY);
    let s = t / SECOND;
    let clock = format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
    if scale == 0 {
        return clock;
    }
    let fraction = format!("{:07}", t % SECOND);
    format!("{clock}.{}", &fraction[..usize::from(scale.min(7))])
}

/// `+hh:mm`.
pub fn format_offset(minutes: i64) -> String {
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

/// Ticks of now, in UTC.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    days(1970, 1, 1) * DAY + i64::try_from(since.as_nanos() / 100).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_turns_both_ways() {
        assert_eq!(days(1, 1, 1), 0);
        assert_eq!(days(1900, 1, 1) * DAY, Y1900);
        assert_eq!(days(9999, 12, 31) * DAY + DAY, END);
        for d in (0..3_652_059).step_by(911) {
            let (y, m, day) = civil(d);
            assert_eq!(days(y, m, day), d);
        }
    }

    #[test]
    fn roundings_are_the_documented_ones() {
        let at = |text: &str| parse(text, false).unwrap().time.unwrap();
        let shown = |text: &str| format_time(round_datetime(at(text)), 7);
        // The table of "datetime (Transact-SQL)": .001 -> .000, .002 -> .003, .005 -> .007, .009 -> .010.
        assert_eq!(shown("00:00:00.001"), "00:00:00.0000000");
        assert_eq!(shown("00:00:00.002"), "00:00:00.0033333");
        assert_eq!(shown("00:00:00.005"), "00:00:00.0066667");
        assert_eq!(shown("00:00:00.009"), "00:00:00.0100000");
        assert_eq!(format_time(round_small(at("10:00:29.998")), 0), "10:00:00");
        assert_eq!(format_time(round_small(at("10:00:29.999")), 0), "10:01:00");
    }

    #[test]
    fn the_forms_of_a_date() {
        let date = |text: &str| parse(text, false).and_then(|p| p.date).map(civil);
        for text in ["2024-02-29", "20240229", "2/29/2024", "2024/02/29", "Feb 29 2024", "29 February 2024"] {
            assert_eq!(date(text), Some((2024, 2, 29)), "{text}");
        }
        assert_eq!(date("2023-02-29"), None);
        assert_eq!(date("nonsense"), None);
        let full = parse("2024-02-29T23:59:59.1234567+05:30", false).unwrap();
        assert_eq!((full.time, full.offset), (Some(863_991_234_567), Some(330)));
        assert_eq!(parse("1:05 PM", false).unwrap().time, Some(13 * 3600 * SECOND + 300 * SECOND));
    }
}
