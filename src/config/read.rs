//! Reading a TOML tree with everything that is wrong in it: each getter notes what it finds and goes on with the default.

use super::secret::SecretRef;
use super::values;
use crate::diagnostics::{Diagnostic, Diagnostics, did_you_mean};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What all tables of one file share.
pub(super) struct Context<'a> {
    pub(super) file: usize,
    /// Relative paths are relative to this.
    pub(super) dir: &'a Path,
    pub(super) found: RefCell<Diagnostics>,
}

/// Words in a key's name that make its value a secret, whatever the key turns out to be.
const SECRETIVE: [&str; 7] = ["pass", "secret", "token", "credential", "api_key", "apikey", "auth"];

pub(super) fn is_secretive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRETIVE.iter().any(|word| name.contains(word))
}

impl Context<'_> {
    pub(super) fn push(&self, diagnostic: Diagnostic) {
        self.found.borrow_mut().push(diagnostic);
    }

    pub(super) fn error(&self, code: &'static str, span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, self.file, span, message)
    }

    pub(super) fn hide(&self, span: Range<usize>) {
        self.found.borrow_mut().hide(self.file, span);
    }
}

/// A table being read. Every key that is asked for is known from then on; [`Table::finish`] reports the others.
pub(super) struct Table<'a> {
    context: &'a Context<'a>,
    path: String,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    known: RefCell<Vec<&'static str>>,
}

/// A value with its place.
pub(super) struct Found<'a> {
    pub(super) value: &'a DeValue<'a>,
    pub(super) span: Range<usize>,
    path: String,
}

impl<'a> Table<'a> {
    pub(super) fn root(context: &'a Context<'a>, table: &'a Spanned<DeTable<'a>>) -> Self {
        // The root has no text of its own: what is missing from it is reported at the file's beginning.
        Self::new(context, String::new(), table.get_ref(), 0..0)
    }

    fn new(context: &'a Context<'a>, path: String, table: &'a DeTable<'a>, span: Range<usize>) -> Self {
        Self { context, path, table, span, known: RefCell::default() }
    }

    pub(super) fn context(&self) -> &'a Context<'a> {
        self.context
    }

    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The key's full name.
    pub(super) fn name(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_string() } else { format!("{}.{key}", self.path) }
    }

    /// A key's value. Marks the key as known.
    pub(super) fn get(&self, key: &'static str) -> Option<Found<'a>> {
        self.known.borrow_mut().push(key);
        let value = self.table.get(key)?;
        Some(Found { value: value.get_ref(), span: value.span(), path: self.name(key) })
    }

    /// The span of a key's name.
    pub(super) fn key_span(&self, key: &str) -> Range<usize> {
        self.table.get_key_value(key).map_or(self.span(), |(name, _)| name.span())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn wrong_type(&self, found: &Found<'_>, wanted: &str) {
        if is_secretive(&found.path) {
            self.context.hide(found.span.clone());
        }
        let message = format!("`{}` must be {wanted}, not {}", found.path, article(found.value.type_str()));
        self.context.push(self.context.error("wrong_type", found.span.clone(), message));
    }

    pub(super) fn bad_value(&self, found: &Found<'_>, message: impl Display, help: impl Into<String>) {
        let message = format!("`{}` {message}", found.path);
        self.context.push(self.context.error("bad_value", found.span.clone(), message).help(help));
    }

    pub(super) fn missing(&self, key: &str, help: impl Into<String>) {
        let message = format!("`{}` is missing", self.name(key));
        self.context.push(self.context.error("missing_key", self.span(), message).help(help));
    }

    pub(super) fn text(&self, key: &'static str) -> Option<(String, Found<'a>)> {
        self.text_as(key, "a string")
    }

    fn text_as(&self, key: &'static str, wanted: &str) -> Option<(String, Found<'a>)> {
        let found = self.get(key)?;
        match found.value {
            DeValue::String(text) => Some((text.to_string(), found)),
            _ => {
                self.wrong_type(&found, wanted);
                None
            }
        }
    }

    pub(super) fn required_text(&self, key: &'static str, help: &str) -> String {
        if !self.has(key) {
            self.known.borrow_mut().push(key);
            self.missing(key, help);
            return String::new();
        }
        match self.text(key) {
            Some((text, found)) if text.is_empty() => {
                self.bad_value(&found, "is empty", help);
                String::new()
            }
            Some((text, _)) => text,
            None => String::new(),
        }
    }

    pub(super) fn integer(&self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some(found) = self.get(key) else { return default };
        let DeValue::Integer(number) = found.value else {
            self.wrong_type(&found, "a whole number");
            return default;
        };
        match i128::from_str_radix(&number.as_str().replace('_', ""), number.radix()) {
            Ok(n) if n >= i128::from(*range.start()) && n <= i128::from(*range.end()) => {
                u64::try_from(n).unwrap_or(default)
            }
            _ => {
                let hint = format!("allowed is {} to {}; the default is {default}", range.start(), range.end());
                self.bad_value(&found, "is out of range", hint);
                default
            }
        }
    }

    /// A number between 0 and 1.
    pub(super) fn share(&self, key: &'static str, default: f64) -> f64 {
        let Some(found) = self.get(key) else { return default };
        let number = match found.value {
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
            _ => {
                self.wrong_type(&found, "a number");
                return default;
            }
        };
        match number {
            Some(n) if (0.0..=1.0).contains(&n) => n,
            _ => {
                self.bad_value(&found, "must lie between 0 and 1", format!("it is a share; the default is {default}"));
                default
            }
        }
    }

    pub(super) fn boolean(&self, key: &'static str, default: bool) -> bool {
        let Some(found) = self.get(key) else { return default };
        match found.value {
            DeValue::Boolean(b) => *b,
            _ => {
                self.wrong_type(&found, "true or false");
                default
            }
        }
    }

    pub(super) fn duration(&self, key: &'static str, default: Duration, range: RangeInclusive<Duration>) -> Duration {
        let Some((text, found)) = self.text_as(key, "a duration such as \"200ms\"") else { return default };
        match values::duration(&text) {
            Some(d) if range.contains(&d) => d,
            Some(_) => {
                let [low, high, usual] = [*range.start(), *range.end(), default].map(values::show_duration);
                self.bad_value(
                    &found,
                    "is out of range",
                    format!("allowed is {low} to {high}; the default is {usual}"),
                );
                default
            }
            None => {
                let help = "write a number with its unit: \"200ms\", \"30s\", \"5m\", \"24h\", \"7d\"";
                self.bad_value(&found, "is not a duration", help);
                default
            }
        }
    }

    pub(super) fn size(&self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        let Some((text, found)) = self.text_as(key, "a size such as \"160MiB\"") else { return default };
        match values::size(&text) {
            Some(n) if range.contains(&n) => n,
            Some(_) => {
                let [low, high, usual] = [*range.start(), *range.end(), default].map(values::show_size);
                self.bad_value(
                    &found,
                    "is out of range",
                    format!("allowed is {low} to {high}; the default is {usual}"),
                );
                default
            }
            None => {
                self.bad_value(&found, "is not a size", "write a number with its unit: \"160MiB\", \"2GiB\"");
                default
            }
        }
    }

    pub(super) fn choice<T: Copy>(&self, key: &'static str, default: T, options: &[(&str, T)]) -> T {
        let Some((text, found)) = self.text(key) else { return default };
        match options.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => *value,
            None => {
                let names: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
                let help = match did_you_mean(&text, names.iter().copied()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("allowed is {}", list(&names)),
                };
                self.bad_value(&found, format_args!("cannot be \"{}\"", shorten(&text)), help);
                default
            }
        }
    }

    /// A path, made absolute or relative to the working directory by the file's own directory.
    pub(super) fn path(&self, key: &'static str) -> Option<PathBuf> {
        let (text, found) = self.text(key)?;
        if text.is_empty() {
            self.bad_value(&found, "is empty", "name a path");
            return None;
        }
        Some(self.context.dir.join(text))
    }

    /// All entries, whose names are not known here, as texts.
    pub(super) fn texts(&self) -> Vec<(String, String, Found<'a>)> {
        let mut texts = Vec::new();
        for (name, value) in self.table {
            let path = self.name(name.get_ref());
            let found = Found { value: value.get_ref(), span: value.span(), path };
            match found.value {
                DeValue::String(text) => texts.push((name.get_ref().to_string(), text.to_string(), found)),
                _ => self.wrong_type(&found, "a string"),
            }
        }
        texts
    }

    pub(super) fn secret(&self, key: &'static str) -> Option<SecretRef> {
        let found = self.get(key)?;
        self.secret_at(found)
    }

    /// Where secrets are that stand under names which are not known here: every entry that is a table.
    pub(super) fn secrets(&self) -> BTreeMap<String, SecretRef> {
        let mut secrets = BTreeMap::new();
        for (name, value) in self.table.iter().filter(|(_, value)| value.get_ref().is_table()) {
            let path = self.name(name.get_ref());
            let found = Found { value: value.get_ref(), span: value.span(), path };
            secrets.extend(self.secret_at(found).map(|secret| (name.get_ref().to_string(), secret)));
        }
        secrets
    }

    fn secret_at(&self, found: Found<'a>) -> Option<SecretRef> {
        const FORMS: &str = "write { credential = \"NAME\" } for a systemd credential, { file = \"PATH\" } for a file of \
                             mode 0600, or { env = \"NAME\" } for an environment variable";
        let DeValue::Table(table) = found.value else {
            self.context.hide(found.span.clone());
            let message = format!("`{}` is a secret and must not stand in the file", found.path);
            let label = "the value is hidden here; treat it as known to whoever could read this file";
            self.context.push(self.context.error("bare_secret", found.span.clone(), message).label(label).help(FORMS));
            return None;
        };
        let table = Table::new(self.context, found.path.clone(), table, found.span.clone());
        let credential = table.text("credential");
        let file = table.path("file");
        let env = table.text("env");
        let unknown = table.finish();
        match (credential, file, env) {
            (Some((name, at)), None, None) => {
                if name.is_empty() || name.contains('/') || name.starts_with('.') {
                    table.bad_value(&at, "is no credential's name", "it is a file name without a directory");
                    return None;
                }
                Some(SecretRef::Credential(name))
            }
            (None, Some(path), None) => Some(SecretRef::File(path)),
            (None, None, Some((name, at))) => {
                if name.is_empty() || name.contains(['=', '\0']) {
                    table.bad_value(&at, "is no variable's name", FORMS);
                    return None;
                }
                Some(SecretRef::Env(name))
            }
            (None, None, None) => {
                if !unknown && table.table.is_empty() {
                    let message = format!("`{}` does not say where the secret is", found.path);
                    self.context.push(self.context.error("bad_value", found.span, message).help(FORMS));
                }
                None
            }
            _ => {
                let message = format!("`{}` names more than one place for the secret", found.path);
                self.context.push(self.context.error("bad_value", found.span, message).help("keep one of them"));
                None
            }
        }
    }

    pub(super) fn required_secret(&self, key: &'static str) -> SecretRef {
        if !self.has(key) {
            self.known.borrow_mut().push(key);
            self.missing(key, format!("for example: {key} = {{ credential = \"NAME\" }}"));
        }
        self.secret(key).unwrap_or_else(|| SecretRef::Env(String::new()))
    }

    /// A table below this one; an empty one if it is not there.
    pub(super) fn table(&self, key: &'static str) -> Table<'a> {
        self.optional_table(key).unwrap_or_else(|| {
            static EMPTY: std::sync::LazyLock<DeTable<'static>> = std::sync::LazyLock::new(DeTable::default);
            Table::new(self.context, self.name(key), &EMPTY, self.span())
        })
    }

    pub(super) fn optional_table(&self, key: &'static str) -> Option<Table<'a>> {
        let found = self.get(key)?;
        match found.value {
            DeValue::Table(table) => Some(Table::new(self.context, found.path, table, found.span)),
            _ => {
                self.wrong_type(&found, "a table");
                None
            }
        }
    }

    /// Reports keys that nobody asked for; whether there were any.
    pub(super) fn finish(&self) -> bool {
        let known = self.known.borrow();
        let mut any = false;
        for (key, value) in self.table {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            any = true;
            // A misspelt `password` still holds a password.
            let full = self.name(name);
            let guarded = full.starts_with("source.") || full.starts_with("crm.");
            hide_texts(self.context, value, guarded || is_secretive(&full));
            let message = format!("unknown key `{}`", self.name(name));
            let help = match did_you_mean(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if known.is_empty() => "nothing is expected here".to_string(),
                None => {
                    let mut names = known.clone();
                    names.sort_unstable();
                    names.dedup();
                    format!("known here: {}", names.join(", "))
                }
            };
            self.context.push(self.context.error("unknown_key", key.span(), message).help(help));
        }
        any
    }
}

/// Hides what is in `value` if it is secretive; of a table, at least what is under secretive names.
fn hide_texts(context: &Context<'_>, value: &Spanned<DeValue<'_>>, secretive: bool) {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (key, value) in table {
                hide_texts(context, value, secretive || is_secretive(key.get_ref()));
            }
        }
        DeValue::Array(items) => {
            for item in items.iter() {
                hide_texts(context, item, secretive);
            }
        }
        _ if secretive => context.hide(value.span()),
        _ => {}
    }
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

fn article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {kind}")
}

/// At most forty characters of a text for a message.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_string(),
    }
}
