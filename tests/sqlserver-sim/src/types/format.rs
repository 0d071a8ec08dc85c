//! Values as text: the styles of "CAST and CONVERT (Transact-SQL)".

use super::datetime::{self as dt, DAY, MONTHS};
use super::{Kind, SqlType};
use crate::error::{Result, SqlError};

/// Text of a date or time. `style` 0 is the default of the type.
pub fn temporal(ticks: i64, ty: SqlType, style: i64) -> Result<String> {
    use Kind::{Date, DateTime, SmallDateTime, Time};
    let scale = match ty.kind {
        DateTime => 3,
        SmallDateTime | Date => 0,
        _ => ty.scale,
    };
    // datetime prints milliseconds rounded from its thirds: .000, .003, .007.
    let ticks = if ty.kind == DateTime { (ticks + 5_000).div_euclid(10_000) * 10_000 } else { ticks };
    let (year, month, day) = dt::civil(ticks.div_euclid(DAY));
    let month_name = |m: i64| MONTHS[usize::try_from(m - 1).unwrap_or(0)];
    let of_day = ticks.rem_euclid(DAY);
    let minutes = of_day / dt::MINUTE;
    let (hour, minute) = (minutes / 60, minutes % 60);
    let half = if hour < 12 { "AM" } else { "PM" };
    let hour12 = (hour + 11) % 12 + 1;
    let date_only = ty.kind == Date;
    let time_only = ty.kind == Time;
    let clock = dt::format_time(ticks, scale);
    let iso = dt::format_date(ticks);
    // The old types default to style 0, the new ones to the ISO form.
    let style = if style == 0 && !matches!(ty.kind, DateTime | SmallDateTime) { 121 } else { style };
    let joined = |date: String, time: String, glue: &str| {
        if date_only {
            date
        } else if time_only {
            time
        } else {
            format!("{date}{glue}{time}")
        }
    };
    Ok(match style {
        0 | 100 => joined(
            format!("{} {day:>2} {year:04}", &month_name(month)[..3]),
            format!("{hour12:>2}:{minute:02}{half}"),
            " ",
        ),
        101 => format!("{month:02}/{day:02}/{year:04}"),
        102 => format!("{year:04}.{month:02}.{day:02}"),
        103 => format!("{day:02}/{month:02}/{year:04}"),
        104 => format!("{day:02}.{month:02}.{year:04}"),
        105 => format!("{day:02}-{month:02}-{year:04}"),
        108 | 8 | 24 => dt::format_time(ticks, 0),
        110 => format!("{month:02}-{day:02}-{year:04}"),
        111 => format!("{year:04}/{month:02}/{day:02}"),
        112 => format!("{year:04}{month:02}{day:02}"),
        114 => dt::format_time(ticks, 3).replace('.', ":"),
        23 => iso,
        20 | 120 => joined(iso, dt::format_time(ticks, 0), " "),
        21 | 25 | 121 => joined(iso, clock, " "),
        // 126 leaves the fraction out where it is zero, for the old types.
        126 | 127 => {
            let bare = matches!(ty.kind, DateTime | SmallDateTime) && of_day % dt::SECOND == 0;
            joined(iso, if bare { dt::format_time(ticks, 0) } else { clock }, "T")
        }
        other => return Err(SqlError::unmodelled(format!("date style {other} in CONVERT"))),
    })
}

/// Text of a float: style 0 gives six digits, 1 eight and 2 sixteen in scientific form, 3 all that are needed to get the
/// same number back.
pub fn float(v: f64, style: i64, single: bool) -> Result<String> {
    let scientific = |digits: usize| {
        let text = format!("{v:.digits$e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        format!("{mantissa}e{}{:03}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
    };
    Ok(match style {
        0 => general(v),
        1 => scientific(7),
        2 => scientific(15),
        3 if single => scientific(8),
        3 => scientific(16),
        other => return Err(SqlError::unmodelled(format!("float style {other} in CONVERT"))),
    })
}

/// C's `%g` with six digits and a three-digit exponent, which style 0 is.
fn general(v: f64) -> String {
    if v == 0.0 {
        return "0".into();
    }
    let text = format!("{v:.5e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim =
        |t: &str| if t.contains('.') { t.trim_end_matches('0').trim_end_matches('.').to_owned() } else { t.to_owned() };
    if (-5..15).contains(&exponent) && exponent < 6 {
        let places = usize::try_from(5 - exponent).unwrap_or(0);
        return trim(&format!("{v:.places$}"));
    }
    format!("{}e{}{:03}", trim(mantissa), if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// Text of ten-thousandths: style 0 two places, 1 with commas, 2 four places.
pub fn money(v: i64, style: i64) -> Result<String> {
    let full = super::decimal::format(i128::from(v), 4);
    let rounded = super::decimal::rescale(i128::from(v), 4, 2).unwrap_or(0);
    Ok(match style {
        0 => super::decimal::format(rounded, 2),
        1 => {
            let text = super::decimal::format(rounded, 2);
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, "00"));
            let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |d| ("-", d));
            let mut grouped = String::new();
            for (i, c) in digits.chars().enumerate() {
                if i > 0 && (digits.len() - i) % 3 == 0 {
                    grouped.push(',');
                }
                grouped.push(c);
            }
            format!("{sign}{grouped}.{fraction}")
        }
        2 | 126 => full,
        other => return Err(SqlError::unmodelled(format!("money style {other} in CONVERT"))),
    })
}

/// Upper-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

/// Bytes from hexadecimal digits; `None` for an odd number of digits or anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

/// `6F9619FF-8B86-D011-B42D-00C04FC964FF` from the wire form.
pub fn guid(wire: &[u8]) -> String {
    let h = |range: &[usize]| range.iter().map(|i| format!("{:02X}", wire[*i])).collect::<String>();
    format!("{}-{}-{}-{}-{}", h(&[3, 2, 1, 0]), h(&[5, 4]), h(&[7, 6]), h(&[8, 9]), h(&[10, 11, 12, 13, 14, 15]))
}

/// The inverse of [`guid`], braces allowed.
pub fn parse_guid(text: &str) -> Option<Vec<u8>> {
    let text = text.trim();
    let text = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
    let text = text.get(..36)?;
    if [8, 13, 18, 23].iter().any(|i| text.as_bytes()[*i] != b'-') {
        return None;
    }
    let b = unhex(&text.replace('-', ""))?;
    if b.len() != 16 {
        return None;
    }
    Some([3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].iter().map(|i| b[*i]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        let p = dt::parse(text, false).unwrap();
        p.date.unwrap() * DAY + p.time.unwrap_or(0)
    }

    #[test]
    fn date_styles() {
        let t = at("2024-02-09T13:05:07.120");
        let old = SqlType::of(Kind::DateTime);
        assert_eq!(temporal(t, old, 0).unwrap(), "Feb  9 2024  1:05PM");
        assert_eq!(temporal(t, old, 121).unwrap(), "2024-02-09 13:05:07.120");
        assert_eq!(temporal(t, old, 126).unwrap(), "2024-02-09T13:05:07.120");
        assert_eq!(temporal(t, SqlType::of(Kind::DateTime2), 0).unwrap(), "2024-02-09 13:05:07.1200000");
        assert_eq!(temporal(t, SqlType::of(Kind::Date), 112).unwrap(), "20240209");
        assert_eq!(
            temporal(dt::round_datetime(at("2024-01-01T00:00:00.006")), old, 121).unwrap(),
            "2024-01-01 00:00:00.007"
        );
        assert!(temporal(t, old, 130).is_err());
    }

    #[test]
    fn numbers() {
        assert_eq!(float(1234567.0, 0, false).unwrap(), "1.23457e+006");
        assert_eq!(float(0.1, 0, false).unwrap(), "0.1");
        assert_eq!(float(0.1, 3, false).unwrap(), "1.0000000000000001e-001");
        assert_eq!(float(123456.0, 0, false).unwrap(), "123456");
        assert_eq!(money(12_345_678_950, 1).unwrap(), "1,234,567.90");
        assert_eq!(money(-5, 2).unwrap(), "-0.0005");
    }

    #[test]
    fn guids() {
        let text = "6F9619FF-8B86-D011-B42D-00C04FC964FF";
        assert_eq!(guid(&parse_guid(text).unwrap()), text);
        assert_eq!(parse_guid("6F9619FF"), None);
    }
}
