//! Functions of one argument that are made ready when a pack is compiled: patterns, JSON paths, keyed hashes.

use super::cast::hex;
use super::value::{Fault, Val, fault};
use regex::Regex;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Applied to one value that is not null. Keys do not show in `Debug` (ring prints the algorithm alone).
#[derive(Clone, Debug)]
pub(crate) enum Prepared {
    /// `x ~ 'pattern'`
    Matches { regex: Regex, negated: bool },
    /// `regexp_substr(x, 'pattern')`
    Substring(Regex),
    /// `x -> 'a' ->> 0`
    Json { steps: Box<[Step]>, as_text: bool },
    /// `hmac_sha256(x, $key)`
    Hmac(ring::hmac::Key),
}

/// One step into a JSON document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// A field of an object.
    Key(String),
    /// An element of a list, counted from the end if negative.
    Index(i64),
    /// Either, whichever the document has there.
    Either(String),
}

impl Prepared {
    pub(super) fn apply<'a>(&'a self, val: Val<'a>) -> Result<Val<'a>, Fault> {
        match (self, val) {
            (_, Val::Null) => Ok(Val::Null),
            (Prepared::Matches { regex, negated }, Val::Text(s)) => Ok(Val::Bool(regex.is_match(&s) != *negated)),
            (Prepared::Substring(regex), Val::Text(s)) => {
                Ok(regex.find(&s).map_or(Val::Null, |found| Val::string(found.as_str().to_owned())))
            }
            (Prepared::Json { steps, as_text }, Val::Json(document) | Val::List(document)) => {
                match step_into(&document, steps) {
                    Ok(found) => found.map_or(Ok(Val::Null), |found| shown(found, *as_text)),
                    Err(_) => fault("bad_value", "the source's JSON cannot be read"),
                }
            }
            (Prepared::Hmac(key), val) => {
                let tag = match &val {
                    Val::Text(s) => ring::hmac::sign(key, s.as_bytes()),
                    Val::Bytes(b) => ring::hmac::sign(key, b),
                    _ => return fault("bug", "a text was expected"),
                };
                let mut out = String::with_capacity(64);
                hex(tag.as_ref(), &mut out);
                Ok(Val::string(out))
            }
            _ => fault("bug", "another type was expected"),
        }
    }
}

/// The part of the document that the steps lead to, as it is written there.
fn step_into<'d>(document: &'d str, steps: &[Step]) -> serde_json::Result<Option<&'d str>> {
    let mut at = document.trim();
    for step in steps {
        let mut reader = serde_json::Deserializer::from_str(at);
        let found = match (at.as_bytes().first(), step) {
            (Some(b'{'), Step::Key(key) | Step::Either(key)) => Field(key).deserialize(&mut reader)?,
            (Some(b'['), Step::Index(index)) => element(at, *index)?,
            (Some(b'['), Step::Either(text)) => match text.trim().parse() {
                Ok(index) => element(at, index)?,
                Err(_) => None,
            },
            _ => None,
        };
        match found {
            Some(raw) => at = raw.get(),
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

fn element(list: &str, index: i64) -> serde_json::Result<Option<&RawValue>> {
    let from_end = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
    let position = if index < 0 {
        let length = serde_json::from_str::<Vec<IgnoredAny>>(list)?.len();
        match length.checked_sub(from_end) {
            Some(position) => position,
            None => return Ok(None),
        }
    } else {
        from_end
    };
    Element(position).deserialize(&mut serde_json::Deserializer::from_str(list))
}

/// As the operator shows it: a text without its quotes, null as SQL's null.
fn shown<'a>(raw: &str, as_text: bool) -> Result<Val<'a>, Fault> {
    match (as_text, raw.as_bytes().first()) {
        (false, _) => Ok(Val::Json(Cow::Owned(raw.to_owned()))),
        (true, Some(b'n')) => Ok(Val::Null),
        (true, Some(b'"')) => match serde_json::from_str::<String>(raw) {
            Ok(text) => Ok(Val::string(text)),
            Err(_) => fault("bad_value", "the source's JSON cannot be read"),
        },
        (true, _) => Ok(Val::string(raw.to_owned())),
    }
}

/// One field of an object; of several with one name, the last.
struct Field<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value::<&RawValue>()?;
            if key == self.0 {
                found = Some(value);
            }
        }
        Ok(found)
    }
}

/// One element of a list.
struct Element(usize);

impl<'de> DeserializeSeed<'de> for Element {
    type Value = Option<&'de RawValue>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Element {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let mut position = 0;
        while let Some(value) = seq.next_element::<&RawValue>()? {
            if position == self.0 {
                found = Some(value);
            }
            position += 1;
        }
        Ok(found)
    }
}

/// The steps of a path as PostgreSQL writes arrays: `{a,0,"b c"}`.
pub(super) fn parse_path(text: &str) -> Option<Vec<Step>> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut steps = Vec::new();
    let mut chars = inner.chars().peekable();
    if inner.trim().is_empty() {
        return Some(steps);
    }
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut step = String::new();
        if chars.next_if_eq(&'"').is_some() {
            loop {
                match chars.next()? {
                    '"' => break,
                    '\\' => step.push(chars.next()?),
                    c => step.push(c),
                }
            }
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                step.push(c);
            }
            step.truncate(step.trim_end().len());
            if step.is_empty() || step.contains(['{', '}', '"']) {
                return None;
            }
        }
        steps.push(Step::Either(step));
        match chars.next() {
            None => return Some(steps),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_into_documents() {
        let document = r#" {"a": {"b": [1, {"c": "x\ny"}, null]}, "a.b": true, "": 0, "a": {"b": [2]}} "#;
        let at = |path: &str| step_into(document, &parse_path(path).expect("a path")).expect("JSON");
        assert_eq!(at("{a,b,0}"), Some("2"), "the last of equal names");
        assert_eq!(at("{a,b,-1}"), Some("2"));
        assert_eq!(at("{a,b,-2}"), None);
        assert_eq!(at("{a,b,x}"), None);
        assert_eq!(at("{\"a.b\"}"), Some("true"));
        assert_eq!(at("{\"\"}"), Some("0"));
        assert_eq!(at("{}"), Some(document.trim()));
        assert_eq!(parse_path("{a, \"b \\\"c\" ,1}").map(|steps| steps.len()), Some(3));
        for bad in ["a", "{a", "{a,}", "{\"a}", "{a\"b}", "{\"a\"b}"] {
            assert_eq!(parse_path(bad), None, "{bad}");
        }
    }
}
