//! Exact decimals with PostgreSQL's `numeric` arithmetic: the scale is kept, division carries at least 16 significant
//! digits, rounding is half away from zero, NaN equals itself and is larger than everything.
//!
//! Nearly all decimals of business data fit 18 digits and are computed in machine words; the rest goes through
//! `bigdecimal`. Both ways give the same digits (tested).

use super::value::{Fault, fault};
use bigdecimal::num_bigint::{BigInt, Sign};
use bigdecimal::{BigDecimal, RoundingMode, Signed, ToPrimitive, Zero};
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Digits before and after the point that PostgreSQL's `numeric` can hold.
const MAX_WEIGHT: i64 = 131_072;
const MAX_SCALE: i64 = 16_383;

/// A decimal of any size, or one of `numeric`'s special values.
#[derive(Clone)]
pub(crate) enum Dec {
    /// `mantissa` · 10^-`scale`, with at most 18 digits after the point.
    Small {
        mantissa: i64,
        scale: u8,
    },
    /// Anything else that is finite.
    Big(Box<BigDecimal>),
    NaN,
    /// Positive or negative infinity.
    Infinity {
        negative: bool,
    },
}

const POW10: [i64; 19] = {
    let mut table = [1_i64; 19];
    let mut n = 1;
    while n < 19 {
        table[n] = table[n - 1] * 10;
        n += 1;
    }
    table
};

fn pow10(n: u8) -> i64 {
    POW10.get(usize::from(n)).copied().unwrap_or(1)
}

impl Dec {
    pub(crate) fn from_int(n: i128) -> Dec {
        match i64::try_from(n) {
            Ok(mantissa) => Dec::Small { mantissa, scale: 0 },
            Err(_) => Dec::Big(Box::new(BigDecimal::from(n))),
        }
    }

    /// Digits with an optional sign, point and exponent; `NaN` and the infinities in any case.
    pub(crate) fn parse(s: &str) -> Option<Dec> {
        let digits = s.strip_prefix(['-', '+']).unwrap_or(s);
        if s.len() <= 19
            && let Some(small) = Self::parse_small(s.starts_with('-'), digits)
        {
            return Some(small);
        }
        match digits.to_ascii_lowercase().as_str() {
            "nan" if digits.len() == s.len() => return Some(Dec::NaN),
            "infinity" | "inf" => return Some(Dec::Infinity { negative: s.starts_with('-') }),
            _ => {}
        }
        let valid = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && digits.contains(|c: char| c.is_ascii_digit())
            && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
        // A large exponent would make a huge number out of a short text.
        let exponent_fits = match digits.split_once(['e', 'E']) {
            Some((_, e)) => e.parse::<i64>().is_ok_and(|e| e.abs() <= MAX_WEIGHT),
            None => true,
        };
        if !valid || !exponent_fits {
            return None;
        }
        let big = BigDecimal::from_str(s).ok()?;
        Self::from_big(big).ok()
    }

    fn parse_small(negative: bool, digits: &str) -> Option<Dec> {
        let mut mantissa: i64 = 0;
        let mut scale = 0;
        let mut seen_point = false;
        let mut seen_digit = false;
        for b in digits.bytes() {
            match b {
                b'0'..=b'9' => {
                    mantissa = mantissa.checked_mul(10)?.checked_add(i64::from(b - b'0'))?;
                    scale += u8::from(seen_point);
                    seen_digit = true;
                }
                b'.' if !seen_point => seen_point = true,
                _ => return None,
            }
        }
        (seen_digit && scale <= 18)
            .then_some(Dec::Small { mantissa: if negative { -mantissa } else { mantissa }, scale })
    }

    /// A finite result in the narrowest form; beyond `numeric`'s range it is an overflow. A negative scale is removed.
    fn from_big(big: BigDecimal) -> Result<Dec, Fault> {
        let (mantissa, scale) = big.as_bigint_and_exponent();
        let big = if scale < 0 { big.with_scale(0) } else { big };
        if scale > MAX_SCALE || (scale < 0 && -scale > MAX_WEIGHT) || mantissa.bits() > 500_000 {
            return fault("out_of_range", "the result does not fit a decimal");
        }
        let (mantissa, scale) = big.as_bigint_and_exponent();
        match (mantissa.to_i64(), u8::try_from(scale)) {
            (Some(mantissa), Ok(scale)) if scale <= 18 => Ok(Dec::Small { mantissa, scale }),
            _ => Ok(Dec::Big(Box::new(big))),
        }
    }

    fn big(&self) -> Option<BigDecimal> {
        match self {
            Dec::Small { mantissa, scale } => Some(BigDecimal::new(BigInt::from(*mantissa), i64::from(*scale))),
            Dec::Big(b) => Some((**b).clone()),
            Dec::NaN | Dec::Infinity { .. } => None,
        }
    }

    /// Digits after the point.
    fn scale(&self) -> i64 {
        match self {
            Dec::Small { scale, .. } => i64::from(*scale),
            Dec::Big(b) => b.fractional_digit_count(),
            Dec::NaN | Dec::Infinity { .. } => 0,
        }
    }

    /// -1, 0 or 1; NaN is 1.
    fn signum(&self) -> i32 {
        match self {
            Dec::Small { mantissa, .. } => mantissa.signum() as i32,
            Dec::Big(b) => match b.sign() {
                Sign::Minus => -1,
                Sign::NoSign => 0,
                Sign::Plus => 1,
            },
            Dec::NaN => 1,
            Dec::Infinity { negative } => 1 - 2 * i32::from(*negative),
        }
    }

    pub(crate) fn is_finite(&self) -> bool {
        matches!(self, Dec::Small { .. } | Dec::Big(_))
    }

    fn is_nan(&self) -> bool {
        matches!(self, Dec::NaN)
    }

    pub(crate) fn neg(&self) -> Dec {
        match self {
            Dec::Small { mantissa, scale } if *mantissa != i64::MIN => {
                Dec::Small { mantissa: -mantissa, scale: *scale }
            }
            Dec::Infinity { negative } => Dec::Infinity { negative: !negative },
            Dec::NaN => Dec::NaN,
            _ => self.big().map_or(Dec::NaN, |b| Dec::Big(Box::new(-b))),
        }
    }

    pub(crate) fn abs(&self) -> Dec {
        if self.signum() < 0 { self.neg() } else { self.clone() }
    }

    pub(crate) fn add(&self, other: &Dec) -> Result<Dec, Fault> {
        if let (Dec::Small { mantissa: a, scale: s }, Dec::Small { mantissa: b, scale: t }) = (self, other) {
            let scale = *s.max(t);
            let a = a.checked_mul(pow10(scale - s));
            let b = b.checked_mul(pow10(scale - t));
            if let Some(mantissa) = a.zip(b).and_then(|(a, b)| a.checked_add(b)) {
                return Ok(Dec::Small { mantissa, scale });
            }
        }
        match (self.big(), other.big()) {
            (Some(a), Some(b)) => Self::from_big(a + b),
            _ if self.is_nan() || other.is_nan() => Ok(Dec::NaN),
            _ if !self.is_finite() && !other.is_finite() && self.signum() != other.signum() => Ok(Dec::NaN),
            _ => Ok(if self.is_finite() { other.clone() } else { self.clone() }),
        }
    }

    pub(crate) fn sub(&self, other: &Dec) -> Result<Dec, Fault> {
        self.add(&other.neg())
    }

    pub(crate) fn mul(&self, other: &Dec) -> Result<Dec, Fault> {
        if let (Dec::Small { mantissa: a, scale: s }, Dec::Small { mantissa: b, scale: t }) = (self, other)
            && let (Some(mantissa), true) = (a.checked_mul(*b), s + t <= 18)
        {
            return Ok(Dec::Small { mantissa, scale: s + t });
        }
        match (self.big(), other.big()) {
            (Some(a), Some(b)) => {
                let scale = self.scale() + other.scale();
                let product = a * b;
                // As in PostgreSQL, digits beyond the largest scale are rounded away.
                Self::from_big(if scale > MAX_SCALE {
                    product.with_scale_round(MAX_SCALE, RoundingMode::HalfUp)
                } else {
                    product.with_scale(scale)
                })
            }
            _ if self.is_nan() || other.is_nan() || self.signum() == 0 || other.signum() == 0 => Ok(Dec::NaN),
            _ => Ok(Dec::Infinity { negative: self.signum() != other.signum() }),
        }
    }

    pub(crate) fn div(&self, other: &Dec) -> Result<Dec, Fault> {
        if self.is_nan() || other.is_nan() {
            return Ok(Dec::NaN);
        }
        if other.signum() == 0 {
            return DIVISION_BY_ZERO;
        }
        match (self.big(), other.big()) {
            (Some(a), Some(b)) => {
                let scale = division_scale(self, other);
                Self::from_big(divide(&a, &b, scale))
            }
            (None, None) => Ok(Dec::NaN),
            (None, Some(_)) => Ok(Dec::Infinity { negative: self.signum() != other.signum() }),
            (Some(_), None) => Ok(Dec::Small { mantissa: 0, scale: 0 }),
        }
    }

    /// The remainder of a division that truncates towards zero.
    pub(crate) fn rem(&self, other: &Dec) -> Result<Dec, Fault> {
        if self.is_nan() || other.is_nan() {
            return Ok(Dec::NaN);
        }
        if other.signum() == 0 {
            return DIVISION_BY_ZERO;
        }
        match (self.big(), other.big()) {
            (Some(a), Some(b)) => {
                let scale = self.scale().max(other.scale());
                Self::from_big((a % b).with_scale(scale))
            }
            (None, _) => Ok(Dec::NaN),
            (Some(_), None) => Ok(self.clone()),
        }
    }

    /// Rounded half away from zero to `scale` digits after the point (before it, if negative).
    pub(crate) fn round(&self, scale: i64) -> Result<Dec, Fault> {
        self.with_scale(scale, RoundingMode::HalfUp)
    }

    pub(crate) fn ceil(&self) -> Result<Dec, Fault> {
        self.with_scale(0, RoundingMode::Ceiling)
    }

    pub(crate) fn floor(&self) -> Result<Dec, Fault> {
        self.with_scale(0, RoundingMode::Floor)
    }

    pub(crate) fn trunc(&self, scale: i64) -> Result<Dec, Fault> {
        self.with_scale(scale, RoundingMode::Down)
    }

    fn with_scale(&self, scale: i64, mode: RoundingMode) -> Result<Dec, Fault> {
        let scale = scale.clamp(-MAX_WEIGHT, MAX_SCALE);
        match self.big() {
            // bigdecimal's `HalfUp` is half away from zero.
            Some(b) => Self::from_big(b.with_scale_round(scale, mode).with_scale(scale.max(0))),
            None => Ok(self.clone()),
        }
    }

    /// Rounded to `decimal(precision, scale)`.
    pub(crate) fn fit(&self, precision: u64, scale: i64) -> Result<Dec, Fault> {
        let rounded = self.round(scale)?;
        let fits = match rounded.big() {
            Some(b) => {
                let limit = i64::try_from(precision).unwrap_or(i64::MAX).saturating_sub(scale);
                b.is_zero() || i64::try_from(b.digits()).unwrap_or(i64::MAX) - rounded.scale() <= limit
            }
            None => rounded.is_nan(),
        };
        if fits { Ok(rounded) } else { fault("out_of_range", "the number has more digits than the type allows") }
    }

    /// Rounded half away from zero to a whole number.
    pub(crate) fn to_int(&self) -> Result<i128, Fault> {
        let wanted = match self.round(0)? {
            Dec::Small { mantissa, .. } => Some(i128::from(mantissa)),
            Dec::Big(b) => b.to_i128(),
            Dec::NaN | Dec::Infinity { .. } => None,
        };
        wanted.map_or_else(|| fault("out_of_range", "the number does not fit an integer"), Ok)
    }

    pub(crate) fn to_f64(&self) -> f64 {
        match self {
            Dec::NaN => f64::NAN,
            Dec::Infinity { negative: false } => f64::INFINITY,
            Dec::Infinity { negative: true } => f64::NEG_INFINITY,
            // Through the text: correctly rounded, which arithmetic on the parts is not.
            _ => self.to_string().parse().unwrap_or(f64::NAN),
        }
    }

    /// `numeric`'s order: infinities at the ends, NaN above all.
    pub(crate) fn cmp(&self, other: &Dec) -> Ordering {
        if let (Dec::Small { mantissa: a, scale: s }, Dec::Small { mantissa: b, scale: t }) = (self, other) {
            let scale = s.max(t);
            let a = i128::from(*a) * i128::from(pow10(scale - s));
            let b = i128::from(*b) * i128::from(pow10(scale - t));
            return a.cmp(&b);
        }
        match (self.big(), other.big()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn rank(&self) -> i8 {
        match self {
            Dec::Infinity { negative: true } => -1,
            Dec::Small { .. } | Dec::Big(_) => 0,
            Dec::Infinity { negative: false } => 1,
            Dec::NaN => 2,
        }
    }
}

const DIVISION_BY_ZERO: Result<Dec, Fault> = Err(Fault { code: "division_by_zero", what: "division by zero" });

/// Half away from zero at `scale` digits.
fn divide(a: &BigDecimal, b: &BigDecimal, scale: i64) -> BigDecimal {
    let (a_digits, a_scale) = a.as_bigint_and_exponent();
    let (b_digits, b_scale) = b.as_bigint_and_exponent();
    // a/b at `scale` digits is (a_digits * 10^shift) / b_digits with shift = scale - a_scale + b_scale.
    let shift = scale - a_scale + b_scale;
    let power = |n: i64| BigInt::from(10).pow(u32::try_from(n).unwrap_or_default());
    let (numerator, denominator) =
        if shift >= 0 { (a_digits * power(shift), b_digits) } else { (a_digits, b_digits * power(-shift)) };
    let negative = (numerator.sign() == Sign::Minus) != (denominator.sign() == Sign::Minus);
    let (n, d) = (numerator.abs(), denominator.abs());
    let quotient: BigInt = (n * 2 + &d) / (d * 2);
    BigDecimal::new(if negative { -quotient } else { quotient }, scale)
}

/// How many digits after the point a quotient carries: PostgreSQL's `select_div_scale`, which reasons in groups of four
/// digits.
fn division_scale(a: &Dec, b: &Dec) -> i64 {
    let ((weight1, first1), (weight2, first2)) = (leading_group(a), leading_group(b));
    let mut weight = weight1 - weight2;
    if first1 <= first2 {
        weight -= 1;
    }
    (16 - weight * 4).max(a.scale()).max(b.scale()).clamp(0, 1000)
}

/// Weight (in groups of four digits, 0 is the units' group) and value of the first group that is not zero.
fn leading_group(d: &Dec) -> (i64, u64) {
    let Some(big) = d.big() else { return (0, 0) };
    let (digits, scale) = big.as_bigint_and_exponent();
    if digits.is_zero() {
        return (0, 0);
    }
    let text = digits.abs().to_string();
    let length = i64::try_from(text.len()).unwrap_or(i64::MAX);
    // Position of the first digit relative to the point: 1 is the units' digit.
    let before_point = length - scale;
    let weight = (before_point - 1).div_euclid(4);
    let in_group = usize::try_from(before_point - weight * 4).unwrap_or(1);
    let mut group: String = text.chars().take(in_group).collect();
    while group.len() < in_group {
        group.push('0');
    }
    (weight, group.parse().unwrap_or(0))
}

/// Plain digits with the scale kept, as the connectors' canonical form.
impl fmt::Display for Dec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dec::Small { mantissa, scale: 0 } => write!(f, "{mantissa}"),
            Dec::Small { mantissa, scale } => {
                let power = pow10(*scale).unsigned_abs();
                let n = mantissa.unsigned_abs();
                let sign = if *mantissa < 0 { "-" } else { "" };
                write!(f, "{sign}{}.{:0width$}", n / power, n % power, width = usize::from(*scale))
            }
            Dec::Big(b) => f.write_str(&b.to_plain_string()),
            Dec::NaN => f.write_str("NaN"),
            Dec::Infinity { negative: false } => f.write_str("Infinity"),
            Dec::Infinity { negative: true } => f.write_str("-Infinity"),
        }
    }
}

/// The kind of number, never its digits (P8).
impl fmt::Debug for Dec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("decimal")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dec(s: &str) -> Dec {
        Dec::parse(s).expect("a decimal")
    }

    #[test]
    fn text_keeps_its_scale() {
        for s in ["0", "-12.50", "0.000", "123456789012345678901234567890.10", "-0.5", "NaN", "Infinity", "-Infinity"] {
            assert_eq!(dec(s).to_string(), s);
        }
        assert_eq!(dec("1e3").to_string(), "1000");
        assert_eq!(dec("1.5e-3").to_string(), "0.0015");
        for s in ["", ".", "-", "1e999999999", "1x", "--1", "1.2.3", "0x10", " 1", "-nan", "1_000"] {
            assert!(Dec::parse(s).is_none(), "{s}");
        }
    }

    #[test]
    fn division_carries_as_many_digits_as_postgresql() {
        // Digits from PostgreSQL 15.
        for (a, b, expected) in [
            ("1", "3", "0.33333333333333333333"),
            ("10", "4", "2.5000000000000000"),
            ("100000", "7", "14285.714285714286"),
            ("1.00", "3.000", "0.33333333333333333333"),
            ("2", "3", "0.66666666666666666667"),
            ("-7", "2", "-3.5000000000000000"),
            ("0.0001", "3", "0.000033333333333333333333"),
            ("12345678.9", "0.001", "12345678900.00000000"),
        ] {
            assert_eq!(dec(a).div(&dec(b)).expect("finite").to_string(), expected, "{a}/{b}");
        }
        assert_eq!(dec("1").div(&dec("0.0")).map_err(|f| f.code).err(), Some("division_by_zero"));
    }

    #[test]
    fn rounding_is_half_away_from_zero() {
        let round = |s: &str, n| dec(s).round(n).expect("finite").to_string();
        assert_eq!(round("2.5", 0), "3");
        assert_eq!(round("-2.5", 0), "-3");
        assert_eq!(round("1.005", 2), "1.01");
        assert_eq!(round("1250", -2), "1300");
        assert_eq!(round("7", 2), "7.00");
        assert_eq!(dec("-1.5").ceil().expect("finite").to_string(), "-1");
        assert_eq!(dec("-1.5").floor().expect("finite").to_string(), "-2");
    }

    #[test]
    fn nan_is_larger_than_everything_and_equal_to_itself() {
        assert_eq!(dec("NaN").cmp(&dec("NaN")), Ordering::Equal);
        assert_eq!(dec("NaN").cmp(&dec("Infinity")), Ordering::Greater);
        assert_eq!(dec("-Infinity").cmp(&dec("-1e100")), Ordering::Less);
    }

    #[test]
    fn a_type_with_precision_rounds_and_refuses() {
        assert_eq!(dec("12.345").fit(4, 2).expect("fits").to_string(), "12.35");
        assert!(dec("123.45").fit(4, 2).is_err());
        assert_eq!(dec("0.001").fit(2, 2).expect("fits").to_string(), "0.00");
    }

    proptest! {
        #[test]
        fn small_and_big_arithmetic_agree(a in -9_999_999_999_i64..9_999_999_999, s in 0_u8..9, b in -99_999_i64..99_999, t in 0_u8..9) {
            let small = (Dec::Small { mantissa: a, scale: s }, Dec::Small { mantissa: b, scale: t });
            let big = |d: &Dec| Dec::Big(Box::new(d.big().expect("finite")));
            let (x, y) = (big(&small.0), big(&small.1));
            prop_assert_eq!(small.0.add(&small.1).map(|d| d.to_string()), x.add(&y).map(|d| d.to_string()));
            prop_assert_eq!(small.0.mul(&small.1).map(|d| d.to_string()), x.mul(&y).map(|d| d.to_string()));
            prop_assert_eq!(small.0.cmp(&small.1), x.cmp(&y));
            prop_assert_eq!(small.0.to_string(), x.to_string());
        }

        #[test]
        fn parsing_never_panics(s in "[-+0-9.eE]{0,30}") {
            if let Some(d) = Dec::parse(&s) {
                prop_assert!(Dec::parse(&d.to_string()).is_some());
            }
        }
    }
}
