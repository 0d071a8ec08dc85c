//! What the CRM keeps of a record, and how a write changes it. Pure.

use indexmap::IndexMap;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// A decimal number of any length, compared as a number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Version {
    Small(u64),
    /// Without leading zeros, more than 19 digits.
    Large(Box<str>),
}

impl Version {
    /// Reads decimal digits; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > 10_000 || !text.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        let digits = text.trim_start_matches('0');
        Some(match digits {
            "" => Version::Small(0),
            digits => digits.parse().map_or_else(|_| Version::Large(digits.into()), Version::Small),
        })
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Version::Small(a), Version::Small(b)) => a.cmp(b),
            (Version::Small(_), Version::Large(_)) => Ordering::Less,
            (Version::Large(_), Version::Small(_)) => Ordering::Greater,
            (Version::Large(a), Version::Large(b)) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
        }
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Version::Small(number) => number.fmt(f),
            Version::Large(digits) => f.write_str(digits),
        }
    }
}

/// A record as it is kept. A deleted one stays as a tombstone: its version must still fence off what comes late.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    /// The CRM's own id.
    pub id: u64,
    pub version: Version,
    pub deleted: bool,
    /// A JSON object without nulls at its top.
    pub fields: Box<[u8]>,
}

/// A JSON object's members, in order, borrowed from its text.
pub(super) struct Fields<'a>(pub IndexMap<Cow<'a, str>, &'a RawValue>);

/// Text borrowed where it holds no escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = IndexMap::with_capacity(16);
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    if fields.insert(name, value).is_some() {
                        return Err(A::Error::custom("a field is given twice"));
                    }
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// What a write made of a record.
pub(super) struct Patched {
    /// The record's fields from now on; `None` if they are as they were.
    pub fields: Option<Box<[u8]>>,
    /// `{"field":{"from":…,"to":…}}`, a missing side being left out; empty if nobody wants to know.
    pub changes: Box<[u8]>,
}

/// Puts `patch` over `before`: a field that is absent stays, null clears, anything else replaces the field as a whole.
pub(super) fn patch(before: &[u8], patch: &Fields<'_>, want_changes: bool) -> Patched {
    // What is kept was written by this function; should the file have been changed by hand, it counts as empty.
    let Fields(mut fields) = serde_json::from_slice(before).unwrap_or(Fields(IndexMap::new()));
    let mut changed = false;
    let mut removed = false;
    let mut changes = Vec::new();
    for (name, value) in &patch.0 {
        let old = if value.get() == "null" {
            // Not swap_remove: the order of fields is part of what is kept.
            let old = fields.get(name).copied();
            if old.is_none() {
                continue;
            }
            fields.insert(name.clone(), value);
            removed = true;
            old
        } else {
            let old = fields.insert(name.clone(), value);
            if old.is_some_and(|old| same(old, value)) {
                continue;
            }
            old
        };
        changed = true;
        if want_changes {
            changes.push(if changes.is_empty() { b'{' } else { b',' });
            push_text(&mut changes, name);
            changes.extend_from_slice(b":{");
            if let Some(old) = old {
                changes.extend_from_slice(b"\"from\":");
                changes.extend_from_slice(old.get().as_bytes());
            }
            if value.get() != "null" {
                changes.extend_from_slice(if old.is_some() { b",\"to\":" } else { b"\"to\":" });
                changes.extend_from_slice(value.get().as_bytes());
            }
            changes.push(b'}');
        }
    }
    if !changed {
        return Patched { fields: None, changes: Box::default() };
    }
    if want_changes {
        changes.push(b'}');
    }
    if removed {
        fields.retain(|_, value| value.get() != "null");
    }
    Patched { fields: Some(write(&fields)), changes: changes.into() }
}

fn same(a: &RawValue, b: &RawValue) -> bool {
    if a.get() == b.get() {
        return true;
    }
    // The same list or object may be written in another order or spacing; texts with other escapes.
    let compound = |raw: &RawValue| raw.get().starts_with(['{', '[', '"']);
    compound(a) && compound(b) && {
        let value = |raw: &RawValue| serde_json::from_str::<serde_json::Value>(raw.get()).ok();
        matches!((value(a), value(b)), (Some(a), Some(b)) if a == b)
    }
}

fn write(fields: &IndexMap<Cow<'_, str>, &RawValue>) -> Box<[u8]> {
    let size = fields.iter().map(|(name, value)| name.len() + value.get().len() + 4).sum::<usize>();
    let mut out = Vec::with_capacity(size + 2);
    out.push(b'{');
    for (index, (name, value)) in fields.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push_text(&mut out, name);
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
    }
    out.push(b'}');
    out.into_boxed_slice()
}

/// Appends `text` as a JSON string.
pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else if serde_json::to_writer(&mut *out, text).is_err() {
        // Writing text into memory has no way to fail.
        out.extend_from_slice(b"\"\"");
    }
}

/// What was done to a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, Hash, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    Created,
    Updated,
    Unchanged,
    Deleted,
    NotFound,
    Stale,
    Rejected,
}

impl Status {
    pub const ALL: [Status; 7] = [
        Status::Created,
        Status::Updated,
        Status::Unchanged,
        Status::Deleted,
        Status::NotFound,
        Status::Stale,
        Status::Rejected,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Updated => "updated",
            Status::Unchanged => "unchanged",
            Status::Deleted => "deleted",
            Status::NotFound => "not_found",
            Status::Stale => "stale",
            Status::Rejected => "rejected",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(before: &str, change: &str) -> (Option<String>, String) {
        let change: Fields<'_> = serde_json::from_str(change).unwrap();
        let patched = patch(before.as_bytes(), &change, true);
        let text = |bytes: Box<[u8]>| String::from_utf8(bytes.into()).unwrap();
        (patched.fields.map(text), text(patched.changes))
    }

    #[test]
    fn versions_compare_as_numbers_of_any_length() {
        let of = |text: &str| Version::parse(text).unwrap();
        assert!(of("9") < of("10"));
        assert!(of("0009") < of("10"));
        assert_eq!(of("007"), of("7"));
        assert_eq!(of("000"), of("0"));
        assert!(of("18446744073709551615") < of("18446744073709551616"));
        assert!(of("99999999999999999999") < of("100000000000000000000"));
        assert!(of("100000000000000000001") > of("100000000000000000000"));
        assert_eq!(of("00100000000000000000001").to_string(), "100000000000000000001");
        for bad in ["", "-1", "1.0", "1e3", " 1", "١", "0x1"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_patch_leaves_what_is_absent_and_clears_what_is_null() {
        let (fields, changes) = apply(r#"{"a":1,"b":"x","c":true}"#, r#"{"b":null,"c":false,"d":[1]}"#);
        assert_eq!(fields.unwrap(), r#"{"a":1,"c":false,"d":[1]}"#);
        assert_eq!(changes, r#"{"b":{"from":"x"},"c":{"from":true,"to":false},"d":{"to":[1]}}"#);
    }

    #[test]
    fn what_changes_nothing_is_told_apart() {
        assert_eq!(apply(r#"{"a":1}"#, r#"{"a":1,"b":null}"#), (None, String::new()));
        assert_eq!(apply(r#"{"a":{"x":1,"y":2}}"#, r#"{"a":{"y":2, "x":1}}"#), (None, String::new()));
        assert_eq!(apply(r#"{"a":"é"}"#, r#"{"a":"\u00e9"}"#), (None, String::new()));
        assert_eq!(apply(r#"{"a":1}"#, "{}"), (None, String::new()));
        // A decimal's scale is part of it.
        assert!(apply(r#"{"a":1.0}"#, r#"{"a":1.00}"#).0.is_some());
        assert_eq!(apply(r#"{"a":""}"#, r#"{"a":null}"#).0.unwrap(), "{}");
    }

    #[test]
    fn nested_values_are_replaced_whole_and_odd_names_survive() {
        let (fields, _) = apply(r#"{"a":{"x":1,"y":2}}"#, r#"{"a":{"x":1}}"#);
        assert_eq!(fields.unwrap(), r#"{"a":{"x":1}}"#);
        let (fields, changes) = apply("{}", r#"{"q\"\n":1}"#);
        assert_eq!(fields.unwrap(), r#"{"q\"\n":1}"#);
        assert_eq!(changes, r#"{"q\"\n":{"to":1}}"#);
    }

    #[test]
    fn a_field_given_twice_is_refused() {
        assert!(serde_json::from_str::<Fields<'_>>(r#"{"a":1,"a":2}"#).is_err());
        assert!(serde_json::from_str::<Fields<'_>>("[]").is_err());
    }
}
