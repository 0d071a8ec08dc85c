//! Keys, and what a delete's log tells.

use super::{Compiler, Key, replica_identity};
use crate::diagnostics::{Diagnostic, Diagnostics, did_you_mean};
use crate::mapping::expr::convert::{Origin, Scope};
use crate::mapping::names::{Found, Name};
use crate::mapping::pack::{Pack, Record, Removal};
use crate::mapping::rule::{FieldProgram, Part, Rule};
use std::ops::Range;
use tidemark_contract::TableSchema;

impl Compiler<'_> {
    /// The declared key, with its columns found in the table; or the table's own.
    pub(super) fn key(
        &self,
        diagnostics: &mut Diagnostics,
        schema: &TableSchema,
        file: usize,
        declared: Option<&[(Name, Range<usize>)]>,
    ) -> Key {
        let Some(declared) = declared else { return Key { declared: None, columns: schema.key.clone() } };
        let mut columns = Vec::new();
        for (name, span) in declared {
            let names = schema.columns.iter().map(|c| &*c.name);
            match name.find(names.clone()) {
                Found::One(index) => columns.push(index),
                _ => {
                    let near = did_you_mean(&name.text, names).map(|n| format!("did you mean `{n}`?"));
                    let message = format!("column `{name}` does not exist in {}", schema.table);
                    diagnostics.push(Diagnostic::error("unknown_column", file, span.clone(), message).maybe_help(near));
                }
            }
        }
        let names = columns.iter().map(|c| schema.columns[*c].name.clone()).collect();
        Key { declared: Some(names), columns }
    }

    /// Whether deletes tell the external id, with warnings where they do not.
    pub(super) fn deletes(
        &self,
        scope: &mut Scope<'_>,
        record: &Record,
        key: &Key,
        external_id: &Part,
        archive: &[FieldProgram],
    ) -> bool {
        let schema = scope.tables[0].schema;
        let origins = scope.columns.clone();
        let in_key = |columns: &[u16]| {
            columns.iter().all(|c| match origins.get(usize::from(*c)) {
                Some(Origin::Column { table: 0, index }) => key.columns.contains(index),
                _ => false,
            })
        };
        let from_key = in_key(&external_id.columns);
        if key.columns.is_empty() || schema.full_before_image {
            return from_key;
        }
        let fix = replica_identity(&schema.table);
        let key_names = key.columns.iter().map(|c| &*schema.columns[*c].name).collect::<Vec<_>>().join(", ");
        if !from_key {
            let message = "the external id is made from columns outside the table's key";
            let text = &record.external_id;
            scope.diagnostics.push(
                Diagnostic::warning("external_id_not_from_key", text.file, text.inner(), message)
                    .label(format!("the key is {key_names}"))
                    .help(format!("make it from the key, or let the log carry whole old rows: {fix}"))
                    .note("the log of a delete carries the key only; the record is then found by what the ledger remembers"),
            );
        }
        if record.on_delete == Removal::Archive {
            for (program, field) in archive.iter().zip(&record.archive).filter(|(p, _)| !in_key(&p.columns)) {
                let message = format!("`{}` reads columns that the log of a delete does not carry", program.name);
                scope.diagnostics.push(
                    Diagnostic::warning("archive_not_from_key", field.file, field.span.clone(), message)
                        .label("left out when a row is deleted")
                        .help(format!("use constants and key columns, or let the log carry whole old rows: {fix}")),
                );
            }
        }
        from_key
    }
}

/// Several rules may read one table, but a table has one key.
pub(super) fn keys(pack: &Pack, rules: &[Rule], diagnostics: &mut Diagnostics) {
    for (n, rule) in rules.iter().enumerate() {
        let other = rules[..n]
            .iter()
            .find(|r| r.table == rule.table && r.key.is_some() && rule.key.is_some() && r.key != rule.key);
        let record = pack.records.iter().find(|r| *r.name == *rule.name);
        if let (Some(other), Some(record)) = (other, record) {
            let span =
                record.key.as_ref().and_then(|k| k.first()).map_or(record.span.clone(), |(_, span)| span.clone());
            let message = format!("record `{}` declares another key for {}", other.name, rule.table);
            diagnostics.push(Diagnostic::error("different_keys", record.file, span, message));
        }
    }
}
