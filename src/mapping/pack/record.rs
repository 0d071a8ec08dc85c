//! One `[record.NAME]`.

use super::{Field, Record, Removal, fields, relations};
use crate::diagnostics::Diagnostic;
use crate::mapping::names::{self, From};
use crate::mapping::toml_reader::{Reader, SpannedText, Table};
use toml::Spanned;
use toml::de::DeValue;

const REMOVAL: &[(&str, Removal)] =
    &[("delete", Removal::Delete), ("archive", Removal::Archive), ("ignore", Removal::Ignore)];

/// Reads one record; `None` if it lacks what everything else depends on.
pub(super) fn read<'t>(
    reader: &mut Reader<'_>,
    key: &Spanned<std::borrow::Cow<'t, str>>,
    value: &'t Spanned<DeValue<'t>>,
) -> Option<Record> {
    let name = key.get_ref().to_string();
    let mut table = reader.table(&format!("record `{name}`"), key.span(), value)?;
    let entity = table.take_text(reader, "entity");
    let from_text =
        required(reader, &mut table, "from", "the table whose rows become records: from = \"customers as c\"");
    let external_id = required(
        reader,
        &mut table,
        "external_id",
        "an expression that is unique for each record: external_id = \"c.id\"",
    );
    let condition = table.take_text(reader, "where");
    let on_delete = table.take_word(reader, "on_delete", REMOVAL).unwrap_or_default();
    let on_leave = table.take_word(reader, "on_leave", REMOVAL).unwrap_or_default();
    let key_columns = table.take("key").and_then(|(_, v)| key_columns(reader, v));
    let archive = archive(reader, &name, &mut table, (on_delete, on_leave));
    let lets = lets(reader, &mut table);
    let (fields, fields_span) = match table.take_table(reader, "fields") {
        Some(fields_table) => (fields::read(reader, &fields_table), fields_table.span.clone()),
        None => {
            reader.push(
                Diagnostic::error("missing_key", reader.file, key.span(), format!("record `{name}` has no fields"))
                    .help(format!("add [record.{name}.fields] with CRM field = \"expression\"")),
            );
            (Vec::new(), key.span())
        }
    };
    let joins = relations::joins(reader, &mut table);
    let children = relations::children(reader, &mut table);
    table.finish(reader);
    let (from_text, external_id) = (from_text?, external_id?);
    let from = from(reader, &from_text)?;
    let (entity, entity_span) = match entity {
        Some(text) => (text.text.clone(), text.inner()),
        None => (name.clone(), key.span()),
    };
    Some(Record {
        name,
        file: reader.file,
        span: key.span(),
        entity,
        entity_span,
        from,
        from_span: from_text.inner(),
        condition,
        external_id,
        on_delete,
        on_leave,
        archive,
        lets,
        fields,
        fields_span,
        key: key_columns,
        joins,
        children,
    })
}

pub(super) fn required(
    reader: &mut Reader<'_>,
    table: &mut Table<'_>,
    key: &'static str,
    help: &str,
) -> Option<SpannedText> {
    let (_, value) = table.require(reader, key, help)?;
    reader.text(key, value)
}

pub(super) fn from(reader: &mut Reader<'_>, text: &SpannedText) -> Option<From> {
    match From::parse(&text.text) {
        Ok(from) => Some(from),
        Err((wanted, at)) => {
            let help = if text.text.contains(',') || text.text.to_lowercase().contains(" join ") {
                "a record comes from one table; rows it points to come by [record.NAME.join.ALIAS]"
            } else {
                "write `table as alias`, `schema.table as alias`, or names in double quotes"
            };
            reader.push(
                Diagnostic::error(
                    "bad_from",
                    reader.file,
                    text.place(at..text.text.len()),
                    format!("expected {wanted}"),
                )
                .help(help),
            );
            None
        }
    }
}

pub(super) fn key_columns(
    reader: &mut Reader<'_>,
    value: &Spanned<DeValue<'_>>,
) -> Option<Vec<(names::Name, std::ops::Range<usize>)>> {
    let Some(list) = value.get_ref().as_array().filter(|a| !a.is_empty()) else {
        reader.push(
            Diagnostic::error("wrong_type", reader.file, value.span(), "`key` must be a list of column names")
                .help("key = [\"order_id\", \"line_no\"]: columns that are unique together and never null"),
        );
        return None;
    };
    let mut columns = Vec::new();
    for item in list {
        let text = reader.text("key", item)?;
        match names::parse_name(&text.text) {
            Ok(name) => columns.push((name, text.inner())),
            Err((wanted, _)) => reader.error("bad_name", text.inner(), format!("expected {wanted}")),
        }
    }
    Some(columns)
}

pub(super) fn lets(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Vec<(String, SpannedText)> {
    let Some(lets) = table.take_table(reader, "let") else { return Vec::new() };
    lets.entries()
        .into_iter()
        .filter_map(|(key, value)| Some((key.get_ref().to_string(), reader.text(key.get_ref(), value)?)))
        .collect()
}

fn archive(reader: &mut Reader<'_>, name: &str, table: &mut Table<'_>, policies: (Removal, Removal)) -> Vec<Field> {
    let wanted = policies.0 == Removal::Archive || policies.1 == Removal::Archive;
    match table.take_table(reader, "archive") {
        Some(archive) => {
            if !wanted {
                reader.push(
                    Diagnostic::warning("unused", reader.file, archive.span.clone(), "this archive is never written")
                        .help("set on_delete = \"archive\" or on_leave = \"archive\""),
                );
            }
            fields::read(reader, &archive)
        }
        None => {
            if wanted {
                reader.push(
                    Diagnostic::error(
                        "missing_key",
                        reader.file,
                        table.span.clone(),
                        "it is not said what \"archive\" writes",
                    )
                    .help(format!("add [record.{name}.archive] with CRM field = \"expression\"")),
                );
            }
            Vec::new()
        }
    }
}
