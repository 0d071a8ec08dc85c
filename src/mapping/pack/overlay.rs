//! What a tenant changes in a pack: variables and single fields. Its places point into the tenant's file.

use super::variables::Declared;
use super::{Record, fields};
use crate::config::Secret;
use crate::diagnostics::{Diagnostic, Diagnostics, did_you_mean};
use crate::mapping::toml_reader::{Reader, Table};
use std::collections::BTreeMap;
use std::fmt;

/// A tenant file, of which only `[mapping.vars]` and `[mapping.override]` are read here; everything else in it belongs
/// to the configuration.
#[derive(Clone)]
pub struct Overlay {
    /// The file's name for messages.
    pub path: String,
    /// The whole text of the tenant file, with secrets hidden.
    pub text: String,
    /// Secrets of `[mapping.vars]`, by the name of the variable.
    pub secrets: BTreeMap<String, Secret>,
}

/// Prints the name only: a tenant file may hold secrets (P8).
impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Overlay({:?})", self.path)
    }
}

impl Overlay {
    /// Merges the tenant's changes.
    pub(super) fn apply(&self, diagnostics: &mut Diagnostics, records: &mut [Record], declared: &mut [Declared]) {
        let file = diagnostics.add_file(self.path.clone(), self.text.clone());
        let mut reader = Reader::new(diagnostics, file);
        let Some(parsed) = reader.parse(&self.text) else { return };
        let mut root = Table::root(&parsed);
        let Some(mut mapping) = root.take_table(&mut reader, "mapping") else { return };
        if let Some(vars) = mapping.take_table(&mut reader, "vars") {
            self.variables(&mut reader, &vars, declared);
        }
        if let Some(overrides) = mapping.take_table(&mut reader, "override") {
            Self::overrides(&mut reader, &overrides, records);
        }
    }

    fn variables(&self, reader: &mut Reader<'_>, vars: &Table<'_>, declared: &mut [Declared]) {
        for (key, value) in vars.entries() {
            let name = key.get_ref();
            match declared.iter_mut().find(|d| d.name == name.as_ref()) {
                Some(variable) if variable.is_secret() && self.secrets.contains_key(name.as_ref()) => {
                    variable.secret = self.secrets.get(name.as_ref()).cloned();
                }
                Some(variable) => {
                    let file = reader.file;
                    variable.give(reader.diagnostics, file, value.span(), value.get_ref());
                }
                None => {
                    let near = did_you_mean(name, declared.iter().map(|d| d.name.as_str()))
                        .map(|n| format!("did you mean `{n}`?"));
                    let message = format!("the pack has no variable `{name}`");
                    reader
                        .push(Diagnostic::error("unknown_variable", reader.file, key.span(), message).maybe_help(near));
                }
            }
        }
    }

    fn overrides(reader: &mut Reader<'_>, overrides: &Table<'_>, records: &mut [Record]) {
        for (key, value) in overrides.entries() {
            let name = key.get_ref();
            let Some(mut table) = reader.table(&format!("override of `{name}`"), key.span(), value) else { continue };
            let Some(record) = records.iter_mut().find(|r| r.name == name.as_ref()) else {
                let near =
                    did_you_mean(name, records.iter().map(|r| r.name.as_str())).map(|n| format!("did you mean `{n}`?"));
                let message = format!("the pack has no record `{name}`");
                reader.push(Diagnostic::error("unknown_record", reader.file, key.span(), message).maybe_help(near));
                continue;
            };
            if let Some(table) = table.take_table(reader, "fields") {
                for field in fields::read(reader, &table) {
                    match record.fields.iter_mut().find(|f| f.name == field.name) {
                        Some(old) => *old = field,
                        None => record.fields.push(field),
                    }
                }
            }
            table.finish(reader);
        }
    }
}
