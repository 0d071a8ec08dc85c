//! JSON whose numbers keep their digits: what a CRM answers is compared as it was written, not as the nearest float.

use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::RawValue;
use std::fmt;

/// Fields of an object, in the order in which they were written.
pub type Fields = IndexMap<Box<str>, Json>;

/// Deeper nesting than this is refused: the text is somebody else's.
const DEPTH: usize = 64;

/// A JSON value.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Json {
    /// null.
    #[default]
    Null,
    /// true or false.
    Bool(bool),
    /// A number, as it was written.
    Number(Box<str>),
    /// A text.
    Text(Box<str>),
    /// A list.
    List(Vec<Json>),
    /// An object.
    Object(Fields),
}

impl Json {
    /// Reads a text; `None` if it is no JSON, or nested too deep.
    pub fn parse(text: &str) -> Option<Self> {
        Self::read(serde_json::from_str(text).ok()?, DEPTH)
    }

    /// Reads an object's fields; `None` if the bytes are no JSON object.
    pub fn fields(bytes: &[u8]) -> Option<Fields> {
        match Self::read(serde_json::from_slice(bytes).ok()?, DEPTH)? {
            Json::Object(fields) => Some(fields),
            _ => None,
        }
    }

    /// Whether this is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Json::Null)
    }

    fn read(raw: &RawValue, depth: usize) -> Option<Self> {
        let (text, depth) = (raw.get(), depth.checked_sub(1)?);
        Some(match text.as_bytes().first()? {
            b'n' => Json::Null,
            b't' => Json::Bool(true),
            b'f' => Json::Bool(false),
            b'"' => Json::Text(serde_json::from_str(text).ok()?),
            b'[' => {
                let parts: Vec<&RawValue> = serde_json::from_str(text).ok()?;
                Json::List(parts.into_iter().map(|part| Self::read(part, depth)).collect::<Option<_>>()?)
            }
            b'{' => {
                let parts: IndexMap<Box<str>, &RawValue> = serde_json::from_str(text).ok()?;
                let fields = parts.into_iter().map(|(name, part)| Some((name, Self::read(part, depth)?)));
                Json::Object(fields.collect::<Option<_>>()?)
            }
            _ => Json::Number(text.into()),
        })
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(from)?;
        Self::read(&raw, DEPTH).ok_or_else(|| D::Error::custom("the value is nested too deep"))
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Json::Null => to.serialize_none(),
            Json::Bool(b) => to.serialize_bool(*b),
            Json::Number(digits) => RawValue::from_string(digits.to_string()).map_err(S::Error::custom)?.serialize(to),
            Json::Text(text) => to.serialize_str(text),
            Json::List(parts) => parts.serialize(to),
            Json::Object(fields) => fields.serialize(to),
        }
    }
}

/// Prints the kind, never the value (P8).
impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(_) => f.write_str("boolean"),
            Json::Number(_) => f.write_str("number"),
            Json::Text(text) => write!(f, "text({} B)", text.len()),
            Json::List(parts) => write!(f, "list({})", parts.len()),
            Json::Object(fields) => f.debug_map().entries(fields).finish(),
        }
    }
}

/// A decimal number as its digits without zeros at either end, and where the point is: equal numbers are equal values,
/// whatever they were written like (`1`, `1.0`, `1e0`).
#[derive(PartialEq, Eq)]
pub struct Decimal {
    is_negative: bool,
    digits: Box<[u8]>,
    /// Power of ten of the last digit.
    exponent: i64,
}

impl Decimal {
    /// Reads a JSON number; `None` if it is none.
    pub fn parse(number: &str) -> Option<Self> {
        let (is_negative, rest) = number.strip_prefix('-').map_or((false, number), |rest| (true, rest));
        let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (rest, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = || whole.bytes().chain(fraction.bytes());
        if whole.is_empty() || !all().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let mut digits: Vec<u8> = all().skip_while(|b| *b == b'0').collect();
        let zeros = digits.iter().rev().take_while(|b| **b == b'0').count();
        digits.truncate(digits.len() - zeros);
        if digits.is_empty() {
            return Some(Self { is_negative: false, digits: Box::default(), exponent: 0 });
        }
        let shift = i64::try_from(zeros).ok()? - i64::try_from(fraction.len()).ok()?;
        Some(Self { is_negative, digits: digits.into(), exponent: exponent.checked_add(shift)? })
    }

    /// Reads a text that is a decimal as this program writes one: no sign but a minus, no exponent, no zeros in front.
    /// `007` and `+1` are texts that look like numbers, and something else than the numbers.
    pub fn parse_text(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let is_padded = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
        let is_plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') && !digits.ends_with('.');
        if is_padded || !is_plain { None } else { Self::parse(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_written_again_digit_by_digit() {
        let text = r#"{"a":0.10,"b":[1e400,-0,12345678901234567890.00],"c":{"d":null,"e":"ü\n","f":true}}"#;
        let json = Json::parse(text).expect("JSON");
        assert_eq!(serde_json::to_string(&json).expect("JSON"), text);
        assert!(!format!("{json:?}").contains('ü'));
    }

    #[test]
    fn a_text_that_nests_without_end_is_refused() {
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Json::parse(&deep).is_none());
        assert!(serde_json::from_str::<Json>(&deep).is_err());
        assert!(Json::parse("{").is_none() && Json::fields(b"[]").is_none());
    }

    #[test]
    fn numbers_are_equal_by_value_and_differ_by_a_digit() {
        let equal = |a: &str, b: &str| Decimal::parse(a) == Decimal::parse(b);
        for (a, b) in
            [("1", "1.0"), ("1", "1e0"), ("100", "1E+2"), ("0.001", "1e-3"), ("-0", "0.00"), ("12.50", "12.5")]
        {
            assert!(equal(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("1", "-1"),
            ("12345678901234567890.01", "12345678901234567890.02"),
            ("9007199254740993", "9007199254740992"),
            ("1e400", "1e401"),
            ("1", "10"),
        ] {
            assert!(!equal(a, b), "{a} {b}");
        }
        assert!(Decimal::parse("NaN").is_none() && Decimal::parse("").is_none());
        for text in ["007", "+1", "1.", ".5", "1e2", "", "-"] {
            assert!(Decimal::parse_text(text).is_none(), "{text}");
        }
        assert!(Decimal::parse_text("-0.50") == Decimal::parse("-0.5"));
    }
}
