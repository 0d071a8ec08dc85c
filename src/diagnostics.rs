//! Errors and warnings about text that people write (mapping packs, tenant files), each with its place in the file.
//!
//! A reader of such files collects everything it finds into one [`Diagnostics`] and goes on: the person who wrote the
//! file sees all of it at once. Rendering follows rustc; [`Diagnostics::to_json`] says the same to programs. Secrets
//! that were found in a file are overwritten with [`Diagnostics::hide`] before anything is shown.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::fmt;
use std::ops::Range;

/// How many diagnostics [`Diagnostics::render`] prints before it only counts the rest.
pub const MAX_RENDERED: usize = 20;

/// How much a diagnostic weighs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// Works, but has a cost or a risk that is worth knowing.
    Warning,
    /// What was asked for cannot be done as written.
    Error,
}

impl Severity {
    /// The word used in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// One file that diagnostics point into.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Name for people; not necessarily a path that exists (embedded packs).
    pub path: String,
    /// The whole text, with hidden parts overwritten.
    pub text: String,
}

/// Prints name and length: the text may hold secrets that were not hidden yet (P8).
impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceFile({:?}, {} B)", self.path, self.text.len())
    }
}

/// One error or warning.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// How much it weighs.
    pub severity: Severity,
    /// Stable word for the kind of problem (`unknown_column`), for scripts and the documentation.
    pub code: &'static str,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Index of the file, as returned by [`Diagnostics::add_file`].
    pub file: usize,
    /// Bytes of the file's text that this is about.
    pub span: Range<usize>,
    /// A few words to stand beside the marked text; may be empty.
    pub label: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Further facts, such as the chain of reasons.
    pub notes: Vec<String>,
}

impl Diagnostic {
    /// An error about `span` of file number `file`.
    pub fn error(code: &'static str, file: usize, span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            file,
            span,
            label: String::new(),
            help: None,
            notes: Vec::new(),
        }
    }

    /// A warning about `span` of file number `file`.
    pub fn warning(code: &'static str, file: usize, span: Range<usize>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, file, span, message) }
    }

    /// Adds words to stand beside the marked text.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds what to do, if there is something to say.
    #[must_use]
    pub fn maybe_help(mut self, help: Option<impl Into<String>>) -> Self {
        if let Some(help) = help {
            self.help = Some(help.into());
        }
        self
    }

    /// Adds a further fact.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// Files, and what was found in them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Diagnostics {
    files: Vec<SourceFile>,
    items: Vec<Diagnostic>,
}

impl Diagnostics {
    /// No files, nothing found.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file and returns its index. The same file (path and text) added again has the same index.
    pub fn add_file(&mut self, path: impl Into<String>, text: impl Into<String>) -> usize {
        let file = SourceFile { path: path.into(), text: text.into() };
        self.files.iter().position(|f| *f == file).unwrap_or_else(|| {
            self.files.push(file);
            self.files.len() - 1
        })
    }

    /// Adds one diagnostic.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        // One mistake is told once, though several readers may stumble over it.
        if !self.items.contains(&diagnostic) {
            self.items.push(diagnostic);
        }
    }

    /// Overwrites a secret in a file's text for good. Spans stay valid: every byte but line breaks becomes `*`.
    pub fn hide(&mut self, file: usize, span: Range<usize>) {
        let Some(file) = self.files.get_mut(file) else { return };
        file.text = file
            .text
            .char_indices()
            .flat_map(|(at, c)| {
                let hidden = span.contains(&at) && c != '\n' && c != '\r';
                let (c, times) = if hidden { ('*', c.len_utf8()) } else { (c, 1) };
                std::iter::repeat_n(c, times)
            })
            .collect();
    }

    /// The files.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// What was found, in the order it was found.
    pub fn items(&self) -> &[Diagnostic] {
        &self.items
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether any error was found.
    pub fn has_errors(&self) -> bool {
        self.items.iter().any(|d| d.severity == Severity::Error)
    }

    /// Number of errors and of warnings.
    pub fn counts(&self) -> (usize, usize) {
        let errors = self.items.iter().filter(|d| d.severity == Severity::Error).count();
        (errors, self.items.len() - errors)
    }

    /// Takes over everything that `other` found.
    pub fn append(&mut self, other: Diagnostics) {
        let files: Vec<usize> = other.files.into_iter().map(|f| self.add_file(f.path, f.text)).collect();
        for mut item in other.items {
            item.file = files.get(item.file).copied().unwrap_or(item.file);
            self.push(item);
        }
    }

    /// Errors first, each in the order of its file's text.
    pub fn sort(&mut self) {
        self.items.sort_by_key(|d| (std::cmp::Reverse(d.severity), d.file, d.span.start, d.span.end));
    }

    /// Line and column (both from 1, columns in characters) of a byte of a file; `None` if there is no such file.
    pub fn place(&self, file: usize, at: usize) -> Option<(usize, usize)> {
        self.files.get(file).map(|f| line_and_column(&f.text, at))
    }

    /// Text for people, in the manner of rustc.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut out = String::new();
        for item in self.items.iter().take(MAX_RENDERED) {
            out.push_str(&renderer.render(&[self.group(item)]));
            out.push_str("\n\n");
        }
        if let Some(rest) = self.items.len().checked_sub(MAX_RENDERED).filter(|n| *n > 0) {
            out.push_str(&format!("... and {rest} more\n\n"));
        }
        out.truncate(out.trim_end().len());
        out
    }

    fn group<'a>(&'a self, item: &'a Diagnostic) -> Group<'a> {
        let level = match item.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(&item.message).id(item.code));
        if let Some(file) = self.files.get(item.file) {
            let label = (!item.label.is_empty()).then_some(item.label.as_str());
            let span = clamp(&file.text, &item.span);
            group = group.element(
                Snippet::source(&file.text)
                    .path(&file.path)
                    .annotation(AnnotationKind::Primary.span(span).label(label)),
            );
        }
        if let Some(help) = &item.help {
            group = group.element(Level::HELP.message(annotate_snippets::normalize_untrusted_str(help)));
        }
        for note in &item.notes {
            group = group.element(Level::NOTE.message(annotate_snippets::normalize_untrusted_str(note)));
        }
        group
    }

    /// The same for programs: a list of objects with `severity`, `code`, `message`, `file`, `line`, `column`, `label`,
    /// `help` and `notes`. Holds no text of the files.
    pub fn to_json(&self) -> serde_json::Value {
        let item = |d: &Diagnostic| {
            let place = self.place(d.file, d.span.start);
            serde_json::json!({
                "severity": d.severity.as_str(),
                "code": d.code,
                "message": d.message,
                "file": self.files.get(d.file).map(|f| f.path.as_str()),
                "line": place.map(|p| p.0),
                "column": place.map(|p| p.1),
                "label": (!d.label.is_empty()).then_some(&d.label),
                "help": d.help,
                "notes": d.notes,
            })
        };
        self.items.iter().map(item).collect()
    }
}

/// As [`Diagnostics::render`] without colour.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

/// Line and column (both from 1, columns in characters) of byte `at` of `text`.
pub fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let at = boundary(text, at);
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |n| n + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// A span that lies inside the text, on character boundaries.
fn clamp(text: &str, span: &Range<usize>) -> Range<usize> {
    let start = boundary(text, span.start);
    let end = (span.end..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    start..end.max(start)
}

/// The last character boundary at or before `at`.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default()
}

/// The candidate that was probably meant by `name`, if one is close enough.
pub fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Case, underscores and spaces are what people forget first, so they count for nothing.
    let plain = |s: &str| s.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).collect::<String>().to_lowercase();
    let wanted = plain(name);
    let limit = (wanted.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &plain(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a = 1\nname = \"trim(compny)\"\n";

    fn sample() -> Diagnostics {
        let mut d = Diagnostics::new();
        let file = d.add_file("mapping.toml", TEXT);
        d.push(
            Diagnostic::error("unknown_column", file, 19..25, "column `compny` does not exist in public.customers")
                .label("no such column")
                .help("did you mean `company`?"),
        );
        d
    }

    #[test]
    fn a_diagnostic_is_shown_with_its_place() {
        let expected = "\
error[unknown_column]: column `compny` does not exist in public.customers
 --> mapping.toml:2:14
  |
2 | name = \"trim(compny)\"
  |              ^^^^^^ no such column
  |
  = help: did you mean `company`?";
        assert_eq!(sample().to_string(), expected);
    }

    #[test]
    fn json_has_the_same_place_and_no_text_of_the_file() {
        let json = sample().to_json();
        assert_eq!(json[0]["line"], 2);
        assert_eq!(json[0]["column"], 14);
        assert_eq!(json[0]["file"], "mapping.toml");
        assert!(!json.to_string().contains("trim("));
    }

    #[test]
    fn a_hidden_span_never_comes_back() {
        let mut d = Diagnostics::new();
        let file = d.add_file("acme.toml", "password = \"gehéim\"\n");
        d.push(Diagnostic::error("bare_secret", file, 11..20, "a secret stands in the file"));
        d.hide(file, 11..20);
        let text = d.to_string();
        assert!(text.contains("password = *********"), "{text}");
        assert!(!text.contains("geh") && !format!("{d:?}").contains("geh"));
    }

    #[test]
    fn appended_diagnostics_keep_their_files() {
        let mut d = Diagnostics::new();
        d.add_file("other.toml", "x = 1");
        d.append(sample());
        d.append(sample());
        assert_eq!(d.items().len(), 1);
        assert_eq!(d.files()[d.items()[0].file].path, "mapping.toml");
        assert!(d.has_errors());
    }

    #[test]
    fn spans_outside_the_text_do_not_break_rendering() {
        let mut d = Diagnostics::new();
        let file = d.add_file("é.toml", "é");
        d.push(Diagnostic::warning("odd", file, 1..99, "odd"));
        d.push(Diagnostic::warning("odd", 7, 3..9, "no such file"));
        assert!(d.render(true).contains("odd"));
    }

    #[test]
    fn only_the_first_twenty_are_rendered() {
        let mut d = Diagnostics::new();
        for n in 0..25 {
            d.push(Diagnostic::error("x", 0, 0..0, format!("number {n}")));
        }
        assert!(d.to_string().ends_with("... and 5 more"));
    }

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let columns = ["company_name", "contact_name", "CustomerID"];
        assert_eq!(did_you_mean("compny_name", columns), Some("company_name"));
        assert_eq!(did_you_mean("companyname", columns), Some("company_name"));
        assert_eq!(did_you_mean("customer_id", columns), Some("CustomerID"));
        assert_eq!(did_you_mean("zip", columns), None);
        assert_eq!(did_you_mean("", columns), None);
    }
}
