//! Translation tables of a pack.

use super::expr::value::{Fault, Val, fault};
use std::borrow::Cow;
use std::collections::HashMap;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

/// What becomes of a value that a table does not list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unknown {
    /// Null.
    Null,
    /// Stays as it is.
    Keep,
    /// The row is set aside.
    Reject,
    /// This text.
    Value(Box<str>),
}

/// A translation table.
#[derive(Clone, Debug)]
pub(crate) struct LookupTable {
    pub name: Box<str>,
    pub ignore_case: bool,
    pub unknown: Unknown,
    values: HashMap<Box<str>, Box<str>, Xxh3DefaultBuilder>,
}

impl LookupTable {
    pub(crate) fn new(name: &str, ignore_case: bool, unknown: Unknown) -> Self {
        Self { name: name.into(), ignore_case, unknown, values: HashMap::default() }
    }

    /// Adds a pair. `false` if the key is there already with another value.
    pub(crate) fn insert(&mut self, key: &str, value: &str) -> bool {
        let old = self.values.insert(fold(key.into(), self.ignore_case).into(), value.into());
        old.is_none_or(|old| &*old == value)
    }

    /// Every text the table can give, sorted, without what `keep` lets through.
    pub(crate) fn results(&self) -> Vec<&str> {
        let mut results: Vec<&str> = self.values.values().map(|v| &**v).collect();
        if let Unknown::Value(v) = &self.unknown {
            results.push(v);
        }
        results.sort_unstable();
        results.dedup();
        results
    }

    /// All pairs in key order.
    pub(crate) fn pairs(&self) -> Vec<(&str, &str)> {
        let mut pairs: Vec<_> = self.values.iter().map(|(k, v)| (&**k, &**v)).collect();
        pairs.sort_unstable();
        pairs
    }

    /// Translates one value.
    pub(crate) fn translate<'a>(&'a self, key: Cow<'a, str>) -> Result<Val<'a>, Fault> {
        let found = if self.ignore_case && needs_folding(&key) {
            self.values.get(&*fold(Cow::Borrowed(&*key), true))
        } else {
            self.values.get(&*key)
        };
        match (found, &self.unknown) {
            (Some(value), _) | (None, Unknown::Value(value)) => Ok(Val::text(value)),
            (None, Unknown::Null) => Ok(Val::Null),
            (None, Unknown::Keep) => Ok(Val::Text(key)),
            (None, Unknown::Reject) => fault("lookup_unknown", "the lookup table does not list this value"),
        }
    }
}

fn needs_folding(s: &str) -> bool {
    s.bytes().any(|b| b.is_ascii_uppercase() || !b.is_ascii())
}

fn fold(s: Cow<'_, str>, ignore_case: bool) -> String {
    if ignore_case { s.to_lowercase() } else { s.into_owned() }
}

/// Reads comma-separated text: fields may be quoted, a quote inside is doubled, lines end with LF or CRLF. Returns each
/// record with the byte at which it begins.
pub(crate) fn parse_csv(text: &str) -> Result<Vec<(usize, Vec<String>)>, usize> {
    let text_start = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut records = Vec::new();
    let mut record = Vec::new();
    let mut field = String::new();
    let mut start = text_start;
    let mut quoted_at = None;
    let mut chars = text[text_start..].char_indices().map(|(n, c)| (n + text_start, c)).peekable();
    while let Some((n, c)) = chars.next() {
        if quoted_at.is_some() {
            match c {
                '"' if chars.peek().is_some_and(|(_, c)| *c == '"') => {
                    chars.next();
                    field.push('"');
                }
                '"' => quoted_at = None,
                _ => field.push(c),
            }
            continue;
        }
        match c {
            '"' if field.is_empty() => quoted_at = Some(n),
            ',' => record.push(std::mem::take(&mut field)),
            '\r' if chars.peek().is_some_and(|(_, c)| *c == '\n') => {}
            '\n' => {
                record.push(std::mem::take(&mut field));
                records.push((start, std::mem::take(&mut record)));
                start = n + 1;
            }
            _ => field.push(c),
        }
    }
    if let Some(at) = quoted_at {
        return Err(at);
    }
    if !field.is_empty() || !record.is_empty() {
        record.push(field);
        records.push((start, record));
    }
    // An empty line is no record.
    records.retain(|(_, fields)| fields.iter().any(|f| !f.is_empty()));
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(ignore_case: bool, unknown: Unknown) -> LookupTable {
        let mut t = LookupTable::new("country", ignore_case, unknown);
        assert!(t.insert("Germany", "DE") && t.insert("ÖSTERREICH", "AT"));
        t
    }

    fn get(t: &LookupTable, key: &str) -> Result<String, &'static str> {
        match t.translate(key.to_owned().into()) {
            Ok(Val::Text(s)) => Ok(s.into_owned()),
            Ok(_) => Ok("null".into()),
            Err(f) => Err(f.code),
        }
    }

    #[test]
    fn unknown_values_follow_the_policy() {
        assert_eq!(get(&table(false, Unknown::Null), "Germany"), Ok("DE".into()));
        assert_eq!(get(&table(false, Unknown::Null), "germany"), Ok("null".into()));
        assert_eq!(get(&table(true, Unknown::Keep), "GERMANY"), Ok("DE".into()));
        assert_eq!(get(&table(true, Unknown::Keep), "Österreich"), Ok("AT".into()));
        assert_eq!(get(&table(true, Unknown::Keep), "Peru"), Ok("Peru".into()));
        assert_eq!(get(&table(true, Unknown::Value("ZZ".into())), "Peru"), Ok("ZZ".into()));
        assert_eq!(get(&table(true, Unknown::Reject), "Peru"), Err("lookup_unknown"));
    }

    #[test]
    fn a_key_with_two_values_is_noticed() {
        let mut t = table(true, Unknown::Null);
        assert!(t.insert("GERMANY", "DE"));
        assert!(!t.insert("germany", "D"));
    }

    #[test]
    fn csv_takes_quotes_and_both_line_ends() {
        let rows = parse_csv("\u{feff}name,iso\r\n\"Korea, South\",KR\n\n\"a \"\"b\"\"\",X").expect("well formed");
        let fields: Vec<_> = rows.iter().map(|(_, f)| f.join("|")).collect();
        assert_eq!(fields, ["name|iso", "Korea, South|KR", "a \"b\"|X"]);
        assert_eq!(parse_csv("a,\"b"), Err(2));
    }
}
