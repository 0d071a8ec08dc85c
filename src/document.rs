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
        let hash = xxhash_rust::xxh3::xxh3_64(&json);
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

    /// The same document with `field` (top level) set to null; `None` if it has no such field.
    #[must_use]
    pub fn with_null(&self, field: &str) -> Option<Document> {
        let mut fields: indexmap::IndexMap<String, &serde_json::value::RawValue> =
            serde_json::from_slice(&self.json).ok()?;
        *fields.get_mut(field)? = serde_json::value::RawValue::NULL;
        Some(Document::new(serde_json::to_vec(&fields).ok()?.into_boxed_slice(), self.partial))
    }

    /// Bytes held on the heap.
    pub fn memory(&self) -> usize {
        self.json.len()
    }
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
    fn a_full_document_replaces_an_older_one() {
        assert_eq!(doc(r#"{"a":2}"#, false).over(&doc(r#"{"b":1}"#, false)).json(), br#"{"a":2}"#);
    }
}
