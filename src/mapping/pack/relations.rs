//! `join` and `children` of a record.

use super::record::{from, key_columns, lets, required};
use super::{Field, fields};
use crate::diagnostics::Diagnostic;
use crate::mapping::names::{From, Name};
use crate::mapping::toml_reader::{Reader, SpannedText, Table};
use std::ops::Range;
use toml::Spanned;
use toml::de::DeValue;

/// One `join.ALIAS`.
#[derive(Clone, Debug)]
pub(crate) struct JoinDef {
    /// Name in expressions: the alias in `from`, or else the table's key in the file.
    pub alias: Name,
    pub link: Link,
    /// The pack's word that `on` finds at most one row.
    pub unique: bool,
}

/// What joins and lists have in common.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub file: usize,
    /// The key in the file.
    pub span: Range<usize>,
    pub from: From,
    pub from_span: Range<usize>,
    pub on: SpannedText,
    pub resend: bool,
    /// A unique key declared for a table without a primary key.
    pub key: Option<Vec<(Name, Range<usize>)>>,
}

/// One `children.NAME`.
#[derive(Clone, Debug)]
pub(crate) struct ChildDef {
    pub name: String,
    /// Name of its row in expressions.
    pub alias: Name,
    pub link: Link,
    pub joins: Vec<JoinDef>,
    pub condition: Option<SpannedText>,
    pub order: Vec<OrderDef>,
    pub limit: Option<usize>,
    /// Whether the list is sent; if not, aggregates alone read it.
    pub emit: bool,
    pub lets: Vec<(String, SpannedText)>,
    pub item: ItemDef,
    pub item_span: Range<usize>,
}

/// What each row of a list becomes.
#[derive(Clone, Debug)]
pub(crate) enum ItemDef {
    /// An object of fields.
    Fields(Vec<Field>),
    /// A bare value.
    Value(Box<Field>),
}

impl ItemDef {
    /// Its fields; of a bare value, that one.
    pub(crate) fn fields(&self) -> &[Field] {
        match self {
            ItemDef::Fields(fields) => fields,
            ItemDef::Value(field) => std::slice::from_ref(field),
        }
    }
}

/// One part of `order_by`.
#[derive(Clone, Debug)]
pub(crate) struct OrderDef {
    pub text: SpannedText,
    pub descending: bool,
    pub nulls_first: bool,
}

const ON_CHANGE: &[(&str, bool)] = &[("resend", true), ("ignore", false)];

/// Reads the `join` table of a record or list.
pub(super) fn joins(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Vec<JoinDef> {
    let Some(joins) = table.take_table(reader, "join") else { return Vec::new() };
    let mut all = Vec::new();
    for (key, value) in joins.entries() {
        let name = key.get_ref().to_string();
        let Some(mut table) = reader.table(&format!("join `{name}`"), key.span(), value) else { continue };
        let link = link(reader, &mut table, "sh.shipper_id = o.ship_via");
        let unique = table.take_bool(reader, "unique").unwrap_or(false);
        table.finish(reader);
        if let Some(link) = link {
            let alias = link.from.alias.clone().unwrap_or(Name { text: name, quoted: false });
            all.push(JoinDef { alias, link, unique });
        }
    }
    all
}

/// Reads the `children` table of a record.
pub(super) fn children(reader: &mut Reader<'_>, table: &mut Table<'_>) -> Vec<ChildDef> {
    let Some(children) = table.take_table(reader, "children") else { return Vec::new() };
    children.entries().into_iter().filter_map(|(key, value)| child(reader, key, value)).collect()
}

fn child<'t>(
    reader: &mut Reader<'_>,
    key: &Spanned<std::borrow::Cow<'t, str>>,
    value: &'t Spanned<DeValue<'t>>,
) -> Option<ChildDef> {
    let name = key.get_ref().to_string();
    let mut table = reader.table(&format!("the list `{name}`"), key.span(), value)?;
    let link = link(reader, &mut table, "d.order_id = o.order_id");
    let joins = joins(reader, &mut table);
    let condition = table.take_text(reader, "where");
    let order = table.take("order_by").map(|(_, v)| order_by(reader, v)).unwrap_or_default();
    let limit = table.take("limit").and_then(|(_, v)| limit(reader, v));
    let emit = table.take_bool(reader, "emit").unwrap_or(true);
    let lets = lets(reader, &mut table);
    let listed = table.take_table(reader, "fields").map(|t| (fields::read(reader, &t), t.span.clone()));
    let bare = table.take("value").and_then(|(k, v)| Some((fields::read_value(reader, "value", v)?, k.span())));
    table.finish(reader);
    let (item, item_span) = match (listed, bare) {
        (Some(_), Some((_, span))) => {
            reader.push(
                Diagnostic::error("wrong_type", reader.file, span, format!("the list `{name}` has fields and a value"))
                    .help("items are objects with `fields`, or bare values with `value`: leave one out"),
            );
            return None;
        }
        (Some((fields, span)), None) => (ItemDef::Fields(fields), span),
        (None, Some((field, span))) => (ItemDef::Value(Box::new(field)), span),
        (None, None) if !emit => (ItemDef::Fields(Vec::new()), key.span()),
        (None, None) => {
            reader.push(
                Diagnostic::error("missing_key", reader.file, key.span(), format!("the list `{name}` has no fields")).help(
                    format!("add `fields` with item field = \"expression\", or `value` for a list of bare values; a list that only aggregates read (count({name})) says emit = false"),
                ),
            );
            return None;
        }
    };
    let link = link?;
    let alias = link.from.alias.clone().unwrap_or_else(|| link.from.table.name.clone());
    Some(ChildDef { name, alias, link, joins, condition, order, limit, emit, lets, item, item_span })
}

fn link(reader: &mut Reader<'_>, table: &mut Table<'_>, example: &str) -> Option<Link> {
    let span = table.span.clone();
    let from_text = required(reader, table, "from", "the table whose rows are read: from = \"shippers as sh\"");
    let on = required(reader, table, "on", &format!("the columns that are equal: on = \"{example}\""));
    let resend = table.take_word(reader, "on_change", ON_CHANGE).unwrap_or(true);
    let key = table.take("key").and_then(|(_, v)| key_columns(reader, v));
    let (from_text, on) = (from_text?, on?);
    let from = from(reader, &from_text)?;
    Some(Link { file: reader.file, span, from, from_span: from_text.inner(), on, resend, key })
}

fn limit(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<usize> {
    let found = value.get_ref().as_integer().and_then(|n| n.as_str().parse::<usize>().ok()).filter(|n| *n > 0);
    if found.is_none() {
        reader.error("wrong_type", value.span(), "`limit` must be a whole number above 0");
    }
    found
}

/// `"a, b desc nulls last"`, or a list of such texts.
fn order_by(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Vec<OrderDef> {
    let texts: Vec<SpannedText> = match value.get_ref().as_array() {
        Some(list) => list.iter().filter_map(|item| reader.text("order_by", item)).collect(),
        None => reader.text("order_by", value).into_iter().collect(),
    };
    texts.iter().flat_map(|text| split(&text.text).into_iter().map(|range| order(text, range))).collect()
}

/// The parts between commas that stand outside of brackets and quotes.
fn split(text: &str) -> Vec<Range<usize>> {
    let (mut parts, mut from, mut depth, mut quote) = (Vec::new(), 0, 0_usize, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(q), c) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push(from..at);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(from..text.len());
    parts
}

/// Takes the words after the expression off its end.
fn order(text: &SpannedText, range: Range<usize>) -> OrderDef {
    let part = &text.text[range.clone()];
    let start = range.start + (part.len() - part.trim_start().len());
    let mut end = range.start + part.trim_end().len();
    let mut last_word = |words: &[&str]| {
        let rest = text.text.get(start..end).unwrap_or_default();
        let word = rest.rsplit(|c: char| c.is_whitespace()).next().unwrap_or_default();
        let found = word.len() < rest.len() && words.iter().any(|w| w.eq_ignore_ascii_case(word));
        if found {
            end = start + rest[..rest.len() - word.len()].trim_end().len();
        }
        found.then(|| word.to_ascii_lowercase())
    };
    let nulls = last_word(&["first", "last"]);
    if nulls.is_some() {
        last_word(&["nulls"]);
    }
    let direction = last_word(&["asc", "desc"]);
    let descending = direction.as_deref() == Some("desc");
    // As in PostgreSQL, nulls are larger than everything unless it is said where they go.
    let nulls_first = nulls.map_or(descending, |word| word == "first");
    OrderDef { text: text.slice(start..end.max(start)), descending, nulls_first }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostics::Diagnostics;

    fn orders(text: &str) -> Vec<(String, bool, bool)> {
        let source = format!("a = \"\"\"{text}\"\"\"");
        let mut diagnostics = Diagnostics::new();
        let file = diagnostics.add_file("t.toml", &source);
        let mut reader = Reader::new(&mut diagnostics, file);
        let parsed = reader.parse(&source).expect("TOML");
        let mut root = Table::root(&parsed);
        let (_, value) = root.take("a").expect("there");
        let all = order_by(&mut reader, value);
        for part in &all {
            assert_eq!(source[part.text.inner()], part.text.text, "places follow the text");
        }
        all.into_iter().map(|o| (o.text.text, o.descending, o.nulls_first)).collect()
    }

    #[test]
    fn orders_are_lists_of_expressions_with_words_behind() {
        assert_eq!(
            orders("d.a, coalesce(d.b, ',') DESC , \"x, desc\" asc nulls first,d.c desc nulls last, desc"),
            [
                ("d.a".into(), false, false),
                ("coalesce(d.b, ',')".into(), true, true),
                ("\"x, desc\"".into(), false, true),
                ("d.c".into(), true, false),
                ("desc".into(), false, false),
            ]
        );
    }
}
