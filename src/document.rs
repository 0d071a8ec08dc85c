//! A CRM record's fields as JSON, ready to be copied into a request.

use std::fmt;

/// The `fields` object of one upsert: UTF-8 JSON, fields in the rule's own order.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    json: Box<[u8]>,
    hash: u64,
    partial: bool,
}

impl Document {
    /// Wraps `json`, a JSON object. `partial` says that some mapped field is missing because the log did not carry it.
    pub fn new(json: Box<[u8]>, partial: bool) -> Self {
        let hash = hash(&json);
        Self { json, hash, partial }
    }

    /// The object's text.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// Hash of the text (xxh3, 64 bits); means something only for documents that are not partial.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Whether a mapped field is missing because the log did not carry it.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// `self`, with the fields it lacks taken from `older`: what must be sent when both were not sent yet.
    #[must_use]
    pub fn over(self, older: &Document) -> Document {
        if !self.partial {
            return self;
        }
        type Fields<'a> = indexmap::IndexMap<String, &'a serde_json::value::RawValue>;
        let (Ok(mut merged), Ok(newer)) =
            (serde_json::from_slice::<Fields<'_>>(&older.json), serde_json::from_slice::<Fields<'_>>(&self.json))
        else {
            return self;
        };
        merged.extend(newer);
        match serde_json::to_vec(&merged) {
            Ok(json) => Document::new(json.into_boxed_slice(), older.partial),
            Err(_) => self,
        }
    }

    /// The same document with `field` set to null; `None` if it has no such field. `field` is a path: names of fields,
    /// places in lists (`items[0].product`).
    #[must_use]
    pub fn with_null(&self, field: &str) -> Option<Document> {
        let json = std::str::from_utf8(&self.json).ok()?;
        Some(Document::new(nulled(json, field)?.into_bytes().into_boxed_slice(), self.partial))
    }

    /// Bytes held on the heap.
    pub fn memory(&self) -> usize {
        self.json.len()
    }
}

/// JSON with the value at `path` set to null. What the path does not touch stays as it is written.
fn nulled(json: &str, path: &str) -> Option<String> {
    use serde_json::value::{RawValue, to_raw_value};
    if path.is_empty() {
        return Some("null".into());
    }
    if let Some(rest) = path.strip_prefix('[') {
        let (place, rest) = rest.split_once(']')?;
        let mut items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
        let item = items.get_mut(place.parse::<usize>().ok()?)?;
        let changed = RawValue::from_string(nulled(item.get(), rest)?).ok()?;
        *item = &changed;
        return Some(to_raw_value(&items).ok()?.get().to_owned());
    }
    let path = path.strip_prefix('.').unwrap_or(path);
    let mut fields: indexmap::IndexMap<String, &RawValue> = serde_json::from_str(json).ok()?;
    // A name may itself hold points or brackets: the longest one that fits is meant.
    let ends = path.char_indices().filter(|(_, c)| matches!(c, '.' | '[')).map(|(n, _)| n).chain([path.len()]);
    let mut names = ends.map(|end| &path[..end]);
    let name = names.rfind(|name| fields.contains_key(*name))?;
    let value = fields.get_mut(name)?;
    let changed = RawValue::from_string(nulled(value.get(), &path[name.len()..])?).ok()?;
    *value = &changed;
    Some(to_raw_value(&fields).ok()?.get().to_owned())
}

/// Hash of a document's text, as the ledger keeps it.
pub fn hash(json: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(json)
}

/// Prints the length, never the fields (P8).
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({} B{})", self.json.len(), if self.partial { ", partial" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doc(json: &str, partial: bool) -> Document {
        Document::new(json.as_bytes().into(), partial)
    }

    #[test]
    fn a_partial_document_keeps_what_an_unsent_older_one_said() {
        let merged = doc(r#"{"a":2}"#, true).over(&doc(r#"{"a":1,"b":"x"}"#, false));
        assert_eq!(merged.json(), br#"{"a":2,"b":"x"}"#);
        assert!(!merged.is_partial());
    }

    #[test]
    fn a_field_is_nulled_wherever_it_stands() {
        let nulled = |path: &str| {
            let document = doc(r#"{"b":1.50,"a":{"x":[],"y":"z"},"items":[{"p":{"q":1}},"v"],"a.b":2}"#, true);
            document.with_null(path).map(|d| String::from_utf8(d.json().to_vec()).expect("UTF-8"))
        };
        let is = |path, json: &str| assert_eq!(nulled(path).as_deref(), Some(json), "{path}");
        is("b", r#"{"b":null,"a":{"x":[],"y":"z"},"items":[{"p":{"q":1}},"v"],"a.b":2}"#);
        is("a.y", r#"{"b":1.50,"a":{"x":[],"y":null},"items":[{"p":{"q":1}},"v"],"a.b":2}"#);
        is("items[0].p", r#"{"b":1.50,"a":{"x":[],"y":"z"},"items":[{"p":null},"v"],"a.b":2}"#);
        is("items[1]", r#"{"b":1.50,"a":{"x":[],"y":"z"},"items":[{"p":{"q":1}},null],"a.b":2}"#);
        is("a.b", r#"{"b":1.50,"a":{"x":[],"y":"z"},"items":[{"p":{"q":1}},"v"],"a.b":null}"#);
        for path in ["c", "a.c", "items[2]", "items[x]", "items[0].p.q.r", "b.c"] {
            assert_eq!(nulled(path), None, "{path}");
        }
    }

    #[test]
    fn a_full_document_replaces_an_older_one() {
        assert_eq!(doc(r#"{"a":2}"#, false).over(&doc(r#"{"b":1}"#, false)).json(), br#"{"a":2}"#);
    }
}
