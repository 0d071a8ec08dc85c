//! `[lookup.NAME]`: a translation table, inline or from a CSV file.

use super::ReadBeside;
use crate::diagnostics::{Diagnostic, did_you_mean};
use crate::mapping::lookup::{LookupTable, Unknown, parse_csv};
use crate::mapping::toml_reader::{Reader, SpannedText, Table};
use toml::Spanned;
use toml::de::DeValue;

/// Reads one lookup. Without `unknown`, a value that is not listed sets its row aside: nothing is skipped in silence (P5).
pub(super) fn read<'t>(
    reader: &mut Reader<'_>,
    key: &Spanned<std::borrow::Cow<'t, str>>,
    value: &'t Spanned<DeValue<'t>>,
    files: ReadBeside<'_>,
) -> Option<LookupTable> {
    let name = key.get_ref().to_string();
    let mut table = reader.table(&format!("lookup `{name}`"), key.span(), value)?;
    let ignore_case = table.take_bool(reader, "ignore_case").unwrap_or(false);
    let unknown = unknown(reader, &mut table);
    let mut lookup = LookupTable::new(&name, ignore_case, unknown.unwrap_or(Unknown::Reject));
    let values = table.take_table(reader, "values");
    let file = table.take_text(reader, "file");
    let columns = (table.take_text(reader, "key"), table.take_text(reader, "value"));
    match (values, file) {
        (Some(values), None) => inline(reader, &mut lookup, &values),
        (None, Some(file)) => from_file(reader, &mut lookup, &file, columns, files),
        (None, None) => reader.push(
            Diagnostic::error("missing_key", reader.file, key.span(), format!("lookup `{name}` has no values"))
                .help("give `values = { \"from\" = \"to\" }` or `file = \"table.csv\"`"),
        ),
        (Some(_), Some(file)) => reader.error("wrong_type", file.span, "a lookup has either `values` or a `file`"),
    }
    table.finish(reader);
    Some(lookup)
}

fn unknown(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Option<Unknown> {
    let (key, value) = table.take("unknown")?;
    if let DeValue::Table(_) = value.get_ref() {
        let mut inner = reader.table("unknown", key.span(), value)?;
        let text =
            inner.require(reader, "value", "unknown = { value = \"...\" }").and_then(|(_, v)| reader.text("value", v));
        inner.finish(reader);
        return text.map(|t| Unknown::Value(t.text.into()));
    }
    let word = reader.word("unknown", value, &[("null", 0), ("keep", 1), ("reject", 2)])?;
    Some(match word {
        0 => Unknown::Null,
        1 => Unknown::Keep,
        _ => Unknown::Reject,
    })
}

fn inline(reader: &mut Reader<'_>, lookup: &mut LookupTable, values: &Table<'_>) {
    for (key, value) in values.entries() {
        let Some(text) = reader.text(key.get_ref(), value) else { continue };
        if !lookup.insert(key.get_ref(), &text.text) {
            let message = format!("`{}` has two values, as case is ignored", key.get_ref());
            reader.error("duplicate", key.span(), message);
        }
    }
}

fn from_file(
    reader: &mut Reader<'_>,
    lookup: &mut LookupTable,
    file: &SpannedText,
    (key, value): (Option<SpannedText>, Option<SpannedText>),
    files: ReadBeside<'_>,
) {
    let (path, text) = match files(&file.text) {
        Ok(read) => read,
        Err(why) => return reader.error("lookup_file", file.inner(), why),
    };
    let csv = reader.diagnostics.add_file(path, text.clone());
    let records = match parse_csv(&text) {
        Ok(records) => records,
        Err(at) => return reader.push(Diagnostic::error("lookup_file", csv, at..at + 1, "this quote is not closed")),
    };
    let Some(((_, header), rows)) = records.split_first() else {
        return reader.push(
            Diagnostic::error("lookup_file", csv, 0..0, "the file is empty").help("the first line names the columns"),
        );
    };
    let mut column = |wanted: Option<SpannedText>, default: usize| match wanted {
        None => Some(default),
        Some(name) => {
            let found = header.iter().position(|h| h.trim() == name.text);
            if found.is_none() {
                let near =
                    did_you_mean(&name.text, header.iter().map(String::as_str)).map(|n| format!("did you mean `{n}`?"));
                let message = format!("the file has no column `{}`", name.text);
                reader.push(Diagnostic::error("lookup_file", name.file, name.inner(), message).maybe_help(near));
            }
            found
        }
    };
    let (Some(key), Some(value)) = (column(key, 0), column(value, 1)) else { return };
    for (at, fields) in rows {
        match (fields.get(key), fields.get(value)) {
            (Some(k), Some(v)) if lookup.insert(k, v) => {}
            (Some(k), Some(_)) => {
                let message = format!("`{k}` has two values");
                reader.push(Diagnostic::error("duplicate", csv, *at..*at + 1, message));
            }
            _ => reader.push(Diagnostic::error("lookup_file", csv, *at..*at + 1, "this line has too few columns")),
        }
    }
}
