//! Reading TOML with places: every value knows its bytes, every key that is not expected is told with a suggestion, and
//! reading goes on after an error so that all of them are found at once.

use crate::diagnostics::{Diagnostic, Diagnostics, did_you_mean};
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A text from the file: its value, and where each of its bytes stands in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpannedText {
    pub text: String,
    pub file: usize,
    /// The whole TOML value, with its quotes.
    pub span: Range<usize>,
    /// Where in the file each byte of `text` begins and ends; in the end, where the text ends.
    offsets: Vec<(u32, u32)>,
}

impl SpannedText {
    /// The bytes of the file that hold `range` of the text.
    pub(crate) fn place(&self, range: Range<usize>) -> Range<usize> {
        let at = |n: usize| self.offsets.get(n).or(self.offsets.last()).copied().unwrap_or_default();
        let start = at(range.start).0 as usize;
        let end = if range.is_empty() { start } else { at(range.end - 1).1 as usize };
        start..end.max(start)
    }

    /// A part of the text, whose bounds must be those of characters.
    pub(crate) fn slice(&self, range: Range<usize>) -> SpannedText {
        let end = range.end.min(self.text.len());
        let start = range.start.min(end);
        let mut offsets = self.offsets.get(start..end).unwrap_or_default().to_vec();
        let after = self.place(start..end).end;
        offsets.push((u32::try_from(after).unwrap_or(u32::MAX), u32::try_from(after).unwrap_or(u32::MAX)));
        SpannedText { text: self.text[start..end].to_owned(), file: self.file, span: self.place(start..end), offsets }
    }

    /// The text without its quotes.
    pub(crate) fn inner(&self) -> Range<usize> {
        self.place(0..self.text.len())
    }

    /// From a TOML string, whose raw form (quotes, escapes) stands in the file at `span`.
    fn new(file: usize, source: &str, span: Range<usize>, text: &str) -> Self {
        let raw = source.get(span.clone()).unwrap_or_default();
        let offsets = map_offsets(raw, text, span.start);
        Self { text: text.to_owned(), file, span, offsets }
    }
}

/// Walks raw and decoded text side by side. Where they do not match (which would be a mistake here), the rest maps to the
/// end of the raw text.
fn map_offsets(raw: &str, text: &str, base: usize) -> Vec<(u32, u32)> {
    let (quotes, literal) = match raw.as_bytes() {
        [b'"', b'"', b'"', ..] => (3, false),
        [b'\'', b'\'', b'\'', ..] => (3, true),
        [b'"', ..] => (1, false),
        [b'\'', ..] => (1, true),
        _ => (0, true),
    };
    let to_u32 = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut at = quotes;
    if quotes == 3 {
        // A line break right after the opening quotes does not belong to the text.
        let rest = &raw[at..];
        at += if rest.starts_with("\r\n") { 2 } else { usize::from(rest.starts_with('\n')) };
    }
    let mut offsets = Vec::with_capacity(text.len() + 1);
    for c in text.chars() {
        if !literal {
            // A backslash at the end of a line swallows the white space that follows.
            while raw[at..].starts_with('\\') && raw[at + 1..].trim_start_matches([' ', '\t', '\r']).starts_with('\n') {
                let rest = &raw[at + 1..];
                at = raw.len() - rest.trim_start().len();
            }
        }
        let rest = &raw[at.min(raw.len())..];
        let width = if !literal && rest.starts_with('\\') {
            match rest.as_bytes().get(1) {
                Some(b'u') => 6,
                Some(b'U') => 10,
                Some(b'x') => 4,
                _ => 2,
            }
        } else if rest.starts_with("\r\n") && c == '\n' {
            2
        } else {
            rest.chars().next().map_or(0, char::len_utf8)
        };
        let from = at;
        at = (at + width).min(raw.len());
        while !raw.is_char_boundary(at) {
            at += 1;
        }
        offsets.extend(std::iter::repeat_n((to_u32(base + from), to_u32(base + at)), c.len_utf8()));
    }
    offsets.push((to_u32(base + at), to_u32(base + at)));
    offsets
}

/// Where reading reports to.
pub(crate) struct Reader<'d> {
    pub diagnostics: &'d mut Diagnostics,
    pub file: usize,
    source: String,
}

/// A table of the file whose keys are taken one by one; what is left over in the end is not expected.
pub(crate) struct Table<'t> {
    table: &'t DeTable<'t>,
    /// The header, or the inline table.
    pub span: Range<usize>,
    /// How the table is called in messages.
    name: String,
    known: Vec<&'static str>,
}

pub(crate) type Item<'t> = (&'t Spanned<std::borrow::Cow<'t, str>>, &'t Spanned<DeValue<'t>>);

impl<'d> Reader<'d> {
    /// A reader of file number `file`, which must have been added to the diagnostics.
    pub(crate) fn new(diagnostics: &'d mut Diagnostics, file: usize) -> Self {
        let source = diagnostics.files().get(file).map(|f| f.text.clone()).unwrap_or_default();
        Self { diagnostics, file, source }
    }

    /// Parses `source`; what is not TOML is reported.
    pub(crate) fn parse<'t>(&mut self, source: &'t str) -> Option<Spanned<DeTable<'t>>> {
        let (table, errors) = DeTable::parse_recoverable(source);
        for e in &errors {
            let span = e.span().unwrap_or(0..0);
            self.error("toml_syntax", span, format!("this is not TOML: {}", e.message()));
        }
        errors.is_empty().then_some(table)
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    pub(crate) fn error(&mut self, code: &'static str, span: Range<usize>, message: impl Into<String>) {
        self.push(Diagnostic::error(code, self.file, span, message));
    }

    fn wrong_type(&mut self, what: &str, wanted: &str, value: &Spanned<DeValue<'_>>) {
        let found = value.get_ref().type_str();
        self.push(
            Diagnostic::error("wrong_type", self.file, value.span(), format!("{what} must be {wanted}"))
                .label(format!("this is {} {found}", if found.starts_with(['a', 'i', 'o']) { "an" } else { "a" })),
        );
    }

    /// `value` as a table; `name` is what it is called in messages.
    pub(crate) fn table<'t>(
        &mut self,
        name: &str,
        span: Range<usize>,
        value: &'t Spanned<DeValue<'t>>,
    ) -> Option<Table<'t>> {
        match value.get_ref() {
            DeValue::Table(table) => Some(Table { table, span, name: name.to_owned(), known: Vec::new() }),
            _ => {
                self.wrong_type(&format!("`{name}`"), "a table", value);
                None
            }
        }
    }

    /// `value` as text.
    pub(crate) fn text(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<SpannedText> {
        match value.get_ref() {
            DeValue::String(s) => Some(SpannedText::new(self.file, &self.source, value.span(), s)),
            _ => {
                self.wrong_type(&format!("`{name}`"), "a text", value);
                None
            }
        }
    }

    /// `value` as a boolean.
    pub(crate) fn boolean(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Option<bool> {
        let b = value.get_ref().as_bool();
        if b.is_none() {
            self.wrong_type(&format!("`{name}`"), "true or false", value);
        }
        b
    }

    /// `value` as one of some words.
    pub(crate) fn word<T: Copy>(
        &mut self,
        name: &str,
        value: &Spanned<DeValue<'_>>,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(name, value)?;
        let found = words.iter().find(|(word, _)| *word == text.text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let list = words.iter().map(|(w, _)| format!("\"{w}\"")).collect::<Vec<_>>().join(", ");
            let near =
                did_you_mean(&text.text, words.iter().map(|(w, _)| *w)).map(|w| format!("did you mean \"{w}\"?"));
            self.push(
                Diagnostic::error("unknown_value", self.file, text.span, format!("`{name}` must be one of {list}"))
                    .maybe_help(near),
            );
        }
        found
    }
}

impl<'t> Table<'t> {
    /// The root of a file.
    pub(crate) fn root(table: &'t Spanned<DeTable<'t>>) -> Self {
        Self { table: table.get_ref(), span: 0..0, name: "the file".into(), known: Vec::new() }
    }

    /// The value of a key, which from now on is known.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Item<'t>> {
        self.known.push(key);
        self.table.get_key_value(key)
    }

    pub(crate) fn take_text(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Option<SpannedText> {
        let (_, value) = self.take(key)?;
        reader.text(key, value)
    }

    pub(crate) fn take_bool(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Option<bool> {
        let (_, value) = self.take(key)?;
        reader.boolean(key, value)
    }

    pub(crate) fn take_word<T: Copy>(
        &mut self,
        reader: &mut Reader<'_>,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let (_, value) = self.take(key)?;
        reader.word(key, value, words)
    }

    /// A table under a key. Its place is the key.
    pub(crate) fn take_table(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Option<Table<'t>> {
        let (name, value) = self.take(key)?;
        reader.table(key, name.span(), value)
    }

    /// The value of a key that must be there.
    pub(crate) fn require(&mut self, reader: &mut Reader<'_>, key: &'static str, help: &str) -> Option<Item<'t>> {
        let item = self.take(key);
        if item.is_none() {
            reader.push(
                Diagnostic::error(
                    "missing_key",
                    reader.file,
                    self.span.clone(),
                    format!("{} needs `{key}`", self.name),
                )
                .help(help),
            );
        }
        item
    }

    /// All entries in the order of the file: for tables whose keys are names.
    pub(crate) fn entries(&self) -> Vec<Item<'t>> {
        let mut items: Vec<Item<'t>> = self.table.iter().collect();
        items.sort_by_key(|(key, _)| key.span().start);
        items
    }

    /// Reports every key that was not asked for.
    pub(crate) fn finish(self, reader: &mut Reader<'_>) {
        for (key, _) in self.entries() {
            if self.known.contains(&key.get_ref().as_ref()) {
                continue;
            }
            let near = did_you_mean(key.get_ref(), self.known.iter().copied()).map(|k| format!("did you mean `{k}`?"));
            let list = || {
                let mut known = self.known.clone();
                known.sort_unstable();
                format!("known keys: {}", known.join(", "))
            };
            reader.push(
                Diagnostic::error(
                    "unknown_key",
                    reader.file,
                    key.span(),
                    format!("{} has no key `{}`", self.name, key.get_ref()),
                )
                .help(near.unwrap_or_else(list)),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of<'s>(source: &'s str, check: impl Fn(&SpannedText, &'s str)) {
        let mut diagnostics = Diagnostics::new();
        let file = diagnostics.add_file("t.toml", source);
        let mut reader = Reader::new(&mut diagnostics, file);
        let parsed = reader.parse(source).expect("TOML");
        let mut root = Table::root(&parsed);
        let text = root.take_text(&mut reader, "a").expect("a text");
        check(&text, source);
    }

    #[test]
    fn every_character_of_a_text_is_found_in_the_file() {
        for source in [
            "a = \"trim(x)\"",
            "a = 'trim(x)'",
            "a = \"\"\"\ntrim(x)\"\"\"",
            "a = '''\ntrim(x)'''",
            "a = \"\\\"q\\\" \\u00e9 trim(x)\"",
            "a = \"\"\"\\\n   é trim(x)\\\n  y\"\"\"",
            "a = \"\"\"\r\nu\r\n trim(x)\"\"\"",
        ] {
            text_of(source, |text, source| {
                let at = text.text.find("trim").expect("there");
                assert_eq!(&source[text.place(at..at + 7)], "trim(x)", "{source}");
            });
        }
    }

    #[test]
    fn escapes_map_to_their_whole_form() {
        text_of("a = \"x\\u00e9y\"", |text, source| {
            assert_eq!(&source[text.place(1..3)], "\\u00e9");
            assert_eq!(&source[text.inner()], "x\\u00e9y");
        });
    }

    #[test]
    fn unknown_keys_are_told_with_what_was_meant() {
        let source = "ignore_caze = true\nzzz = 1";
        let mut diagnostics = Diagnostics::new();
        let file = diagnostics.add_file("t.toml", source);
        let mut reader = Reader::new(&mut diagnostics, file);
        let parsed = reader.parse(source).expect("TOML");
        let mut root = Table::root(&parsed);
        root.take("ignore_case");
        root.finish(&mut reader);
        let help: Vec<_> = diagnostics.items().iter().map(|d| d.help.clone().unwrap_or_default()).collect();
        assert_eq!(help, ["did you mean `ignore_case`?", "known keys: ignore_case"]);
    }
}
