//! One field of a CRM entity, and the column it could be filled from.

use super::samples::Format;
use super::words::{alike, words};
use super::{Entity, Proposal, Source};
use crate::crm::{FieldKind, FieldSchema};
use tidemark_contract::{Column, LogicalType};

/// Below this a column is not proposed for a field.
pub const LOW: f64 = 0.62;
/// From this on there is little doubt.
pub const HIGH: f64 = 0.85;

/// How a column's name is written in an expression.
pub fn quoted(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    const RESERVED: [&str; 20] = [
        "order",
        "user",
        "group",
        "table",
        "from",
        "to",
        "select",
        "where",
        "case",
        "end",
        "column",
        "default",
        "check",
        "primary",
        "references",
        "limit",
        "desc",
        "asc",
        "and",
        "or",
    ];
    if plain && !RESERVED.contains(&name) { name.into() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// An expression that makes a field's value of a column, and how well it fits (0: not at all), with a remark.
fn fit(source: &Source, at: usize, field: &FieldSchema) -> Option<(String, f64, String)> {
    use LogicalType::{Bool, Bytes, Date, Decimal, Float, Int, Text, Timestamp, TimestampTz, Uuid};
    let column = &source.schema.columns[at];
    let look = &source.looks[at];
    let name = format!("t.{}", quoted(&column.name));
    let plain = |fit: f64| Some((name.clone(), fit, String::new()));
    let with = |text: String, fit: f64, remark: &str| Some((text, fit, remark.to_owned()));
    match &field.kind {
        FieldKind::Any => plain(0.9),
        FieldKind::Text { max_length, format, options } => {
            let format = format.as_deref();
            match column.logical {
                _ if !options.is_empty() => None,
                Text if matches!(format, Some("date" | "date-time")) => {
                    let is_date = look.format().is_some_and(|(f, _)| f == Format::Date);
                    let to = if format == Some("date") { "date" } else { "timestamp" };
                    if is_date {
                        with(format!("cast({name} as {to})"), 0.8, "texts that look like dates")
                    } else {
                        None
                    }
                }
                Text => {
                    let mut text =
                        if is_padded(column) || look.padded > 0 { format!("trim({name})") } else { name.clone() };
                    let mut remark = "";
                    if let (Some(most), Some(longest)) = (max_length, column.max_length)
                        && longest > *most
                    {
                        text = format!("left({text}, {most})");
                        remark = "cut to what the CRM takes";
                    }
                    with(text, 1.0, remark)
                }
                Date if format == Some("date-time") => with(format!("cast({name} as timestamp)"), 0.9, ""),
                Date if format.is_none_or(|f| f == "date") => plain(if format.is_some() { 1.0 } else { 0.6 }),
                Timestamp | TimestampTz if format == Some("date") => with(format!("cast({name} as date)"), 0.97, ""),
                Timestamp | TimestampTz if format.is_none_or(|f| f == "date-time") => {
                    plain(if format.is_some() { 1.0 } else { 0.5 })
                }
                Uuid if format.is_none_or(|f| f == "uuid") => plain(1.0),
                Int | Decimal if format.is_none() => with(format!("cast({name} as text)"), 0.75, "a number as text"),
                Bytes if format.is_none() => with(name.clone(), 0.7, "bytes travel as base64"),
                _ => None,
            }
        }
        FieldKind::Integer => match column.logical {
            Int => plain(1.0),
            Decimal => with(format!("round({name})"), 0.8, "the CRM takes whole numbers"),
            _ => None,
        },
        FieldKind::Number => matches!(column.logical, Int | Decimal | Float).then(|| plain(1.0)).flatten(),
        FieldKind::Boolean => match column.logical {
            Bool => plain(1.0),
            Int if look.is_bit() => with(format!("{name} <> 0"), 0.95, "only 0 and 1 were seen"),
            _ => None,
        },
        FieldKind::Object(_) | FieldKind::List(_) | FieldKind::Reference(_) => None,
    }
}

fn is_padded(column: &Column) -> bool {
    let native = column.native.to_lowercase();
    ["character(", "char(", "bpchar", "nchar("].iter().any(|start| native.starts_with(start))
}

/// The best proposal for a field; `context` are the words around it (the object it is part of).
pub fn propose(
    source: &Source,
    entity: &Entity<'_>,
    name: &str,
    field: &FieldSchema,
    context: &[String],
) -> Option<Proposal> {
    let wanted: Vec<String> = context.iter().cloned().chain(words(name)).collect();
    let table = words(&source.schema.table.name);
    let best = (0..source.schema.columns.len())
        .filter_map(|at| {
            let column = &source.schema.columns[at];
            let (expression, fits, mut remark) = fit(source, at, field)?;
            let said = words(&column.name);
            let by_name = name_score(&said, &wanted, &table, &entity.words);
            let seen = source.looks[at].format();
            let by_format = match seen {
                Some((format, word)) if suits(format, field, &wanted) && by_name > 0.3 => {
                    if !remark.is_empty() {
                        remark.push_str("; ");
                    }
                    remark.push_str(&format!("the sample looks like {word}"));
                    0.1
                }
                _ => 0.0,
            };
            let score = (by_name + by_format).min(1.0) * fits;
            Some((at, expression, score, remark))
        })
        .max_by(|a, b| a.2.total_cmp(&b.2))?;
    let (at, expression, confidence, remark) = best;
    (confidence >= 0.45).then(|| {
        let column = &source.schema.columns[at];
        let how = if confidence >= HIGH { "the names match" } else { "the names are alike" };
        let mut reason = format!("{how}: {} ({})", column.name, column.native);
        if !remark.is_empty() {
            reason.push_str(&format!("; {remark}"));
        }
        Proposal {
            columns: vec![at],
            expression,
            confidence,
            reason,
            nullable: column.nullable && !source.schema.key.contains(&at),
        }
    })
}

/// How alike names are: as they are, or without the words that only repeat what the table or the entity is.
fn name_score(said: &[String], wanted: &[String], table: &[String], entity: &[String]) -> f64 {
    let without = |words: &[String], of: &[&[String]]| -> Vec<String> {
        words.iter().filter(|w| !of.iter().any(|of| alike(std::slice::from_ref(w), of) > 0.8)).cloned().collect()
    };
    let whole = alike(said, wanted);
    let (bare_said, bare_wanted) = (without(said, &[table, entity]), without(wanted, &[entity]));
    let bare =
        if bare_said.is_empty() || bare_wanted.is_empty() { 0.0 } else { alike(&bare_said, &bare_wanted) * 0.97 };
    whole.max(bare)
}

/// Whether values of this format belong into the field, by its own format or its name.
fn suits(format: Format, field: &FieldSchema, wanted: &[String]) -> bool {
    let declared = match &field.kind {
        FieldKind::Text { format, .. } => format.as_deref(),
        _ => return false,
    };
    let named = |words: &[&str]| wanted.iter().any(|w| words.contains(&w.as_str()));
    match format {
        Format::Email => declared == Some("email") || named(&["email", "mail"]),
        Format::Url => matches!(declared, Some("uri" | "url")) || named(&["website", "url", "homepage"]),
        Format::Phone => named(&["phone", "fax", "mobile", "telephone"]),
        Format::Date => declared == Some("date"),
        Format::Country => named(&["country"]),
    }
}

/// A person's name of its parts, where a field wants the whole.
pub fn whole_name(source: &Source, name: &str, field: &FieldSchema) -> Option<Proposal> {
    let wanted = words(name);
    if !matches!(&field.kind, FieldKind::Text { format: None, options, .. } if options.is_empty())
        || !(wanted == ["full", "name"] || wanted == ["name"])
    {
        return None;
    }
    let find = |words_of: &[&str]| {
        source.schema.columns.iter().position(|c| c.logical == LogicalType::Text && words(&c.name) == *words_of)
    };
    let (first, last) = (find(&["first", "name"])?, find(&["last", "name"])?);
    let part = |at: usize| format!("t.{}", quoted(&source.schema.columns[at].name));
    let nullable = source.schema.columns[first].nullable && source.schema.columns[last].nullable;
    let expression = format!("concat_ws(' ', {}, {})", part(first), part(last));
    let reason = "first and last name put together".into();
    let _ = nullable;
    Some(Proposal { columns: vec![first, last], expression, confidence: 0.8, reason, nullable: false })
}

/// The confidence in a word.
pub fn word(confidence: f64) -> &'static str {
    match confidence {
        c if c >= HIGH => "high",
        c if c >= 0.72 => "medium",
        _ => "low",
    }
}
