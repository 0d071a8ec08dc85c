//! Exact decimals: an `i128` of digits and a scale, up to 38 digits.
//!
//! In SQLite they are stored as 16 bytes, big-endian with the sign bit turned, so that byte order is numeric order.

use crate::error::{Result, SqlError};

/// 10 to the power of `n`, for `n` up to 38.
pub fn pow10(n: u8) -> i128 {
    10i128.pow(u32::from(n.min(38)))
}

/// Storage form.
pub fn to_bytes(v: i128) -> Vec<u8> {
    (v.cast_unsigned() ^ (1 << 127)).to_be_bytes().to_vec()
}

/// Back from the storage form.
pub fn from_bytes(b: &[u8]) -> i128 {
    let mut a = [0u8; 16];
    a.copy_from_slice(&b[..16]);
    (u128::from_be_bytes(a) ^ (1 << 127)).cast_signed()
}

/// Changes the scale, rounding half away from zero; `None` if the value no longer fits 128 bits.
pub fn rescale(v: i128, from: u8, to: u8) -> Option<i128> {
    if to >= from {
        return v.checked_mul(pow10(to - from));
    }
    let unit = pow10(from - to);
    let (q, r) = (v / unit, v % unit);
    let up = r.unsigned_abs().checked_mul(2).is_none_or(|d| d >= unit.unsigned_abs());
    Some(if up { q + v.signum() } else { q })
}

/// As [`rescale`], but digits are cut off.
pub fn truncate(v: i128, from: u8, to: u8) -> i128 {
    if to >= from { v.saturating_mul(pow10(to - from)) } else { v / pow10(from - to) }
}

/// Fails with 8115 if `v` has more than `precision` digits.
pub fn check(v: i128, precision: u8, name: &str) -> Result<i128> {
    if v.unsigned_abs() < pow10(precision).unsigned_abs() { Ok(v) } else { Err(SqlError::overflow(name)) }
}

/// Reads `[+-]digits[.digits][e[+-]digits]` into (digits, scale); the scale is what was written.
pub fn parse(text: &str) -> Option<(i128, u8)> {
    let text = text.trim();
    let (body, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, body) = match body.as_bytes().first()? {
        b'-' => (true, &body[1..]),
        b'+' => (false, &body[1..]),
        _ => (false, body),
    };
    let (whole, fraction) = body.split_once('.').unwrap_or((body, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0i128;
    let mut scale = 0i32;
    for (after_point, c) in whole.chars().map(|c| (false, c)).chain(fraction.chars().map(|c| (true, c))) {
        let digit = c.to_digit(10)?;
        let Some(next) = value.checked_mul(10).and_then(|v| v.checked_add(i128::from(digit))) else {
            // Digits beyond 38 behind the point cannot be kept; before the point they do not fit at all.
            if after_point {
                continue;
            }
            return None;
        };
        value = next;
        scale += i32::from(after_point);
    }
    scale -= exponent;
    while scale < 0 {
        value = value.checked_mul(10)?;
        scale += 1;
    }
    while scale > 38 {
        value /= 10;
        scale -= 1;
    }
    Some((if negative { -value } else { value }, u8::try_from(scale).ok()?))
}

/// Writes a value with all digits of its scale.
pub fn format(v: i128, scale: u8) -> String {
    let digits = v.unsigned_abs().to_string();
    let sign = if v < 0 { "-" } else { "" };
    let scale = usize::from(scale);
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

/// Quotient of `a` (scale `sa`) and `b` (scale `sb`) with `scale` digits behind the point, cut off as the server does.
/// `None` if it does not fit; `b` must not be zero.
pub fn divide(a: i128, sa: u8, b: i128, sb: u8, scale: u8) -> Option<i128> {
    // a/10^sa / (b/10^sb) * 10^scale = a * 10^(scale+sb-sa) / b, one digit at a time so that nothing overflows early.
    let shift = i32::from(scale) + i32::from(sb) - i32::from(sa);
    let negative = (a < 0) != (b < 0);
    let (divisor, mut rest) = (b.unsigned_abs(), a.unsigned_abs());
    let mut quotient = rest / divisor;
    rest %= divisor;
    for _ in 0..shift.max(0) {
        rest = rest.checked_mul(10)?;
        quotient = quotient.checked_mul(10)?.checked_add(rest / divisor)?;
        rest %= divisor;
    }
    for _ in shift..0 {
        quotient /= 10;
    }
    let quotient = i128::try_from(quotient).ok()?;
    Some(if negative { -quotient } else { quotient })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        for (text, scale) in [("0.05", 2), ("-12.3456", 4), ("99999999999999999999999999999999999999", 0), ("7", 0)] {
            let (v, s) = parse(text).unwrap();
            assert_eq!((s, format(v, s).as_str()), (scale, text));
        }
        assert_eq!(parse("1.5e3"), Some((1500, 0)));
        assert_eq!(parse("12e-3"), Some((12, 3)));
        assert_eq!(parse("abc"), None);
        assert_eq!(parse("."), None);
    }

    #[test]
    fn bytes_sort_as_numbers() {
        let mut v = [5i128, -5, 0, i128::from(i64::MAX) * 1000, -i128::from(i64::MAX) * 1000];
        let mut b: Vec<_> = v.iter().map(|v| to_bytes(*v)).collect();
        v.sort_unstable();
        b.sort();
        assert_eq!(b.iter().map(|b| from_bytes(b)).collect::<Vec<_>>(), v);
    }

    #[test]
    fn rounding_is_half_away_from_zero() {
        assert_eq!(rescale(125, 2, 1), Some(13));
        assert_eq!(rescale(-125, 2, 1), Some(-13));
        assert_eq!(rescale(124, 2, 1), Some(12));
        assert_eq!(divide(1, 0, 3, 0, 6), Some(333_333));
        assert_eq!(divide(-10, 0, 4, 0, 2), Some(-250));
    }
}
