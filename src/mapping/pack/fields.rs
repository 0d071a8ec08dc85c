//! `fields`, `archive` and nested objects.

use super::{Body, Field};
use crate::diagnostics::Diagnostic;
use crate::mapping::Missing;
use crate::mapping::toml_reader::{Reader, Table};
use toml::Spanned;
use toml::de::DeValue;

/// Deepest nesting of objects.
const MAX_DEPTH: usize = 8;

const MISSING: &[(&str, Missing)] = &[("wait", Missing::Wait), ("null", Missing::Null), ("reject", Missing::Reject)];

/// Reads a table of fields.
pub(super) fn read(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<Field> {
    read_nested(reader, table, 0)
}

/// Reads a single right-hand side, whose field has no name in the CRM.
pub(super) fn read_value(reader: &mut Reader<'_>, name: &str, value: &Spanned<DeValue<'_>>) -> Option<Field> {
    let body = body(reader, name, value, 0)?;
    Some(Field { name: String::new(), file: reader.file, span: value.span(), body })
}

fn read_nested(reader: &mut Reader<'_>, table: &Table<'_>, depth: usize) -> Vec<Field> {
    let mut fields = Vec::new();
    for (key, value) in table.entries() {
        if let Some(body) = body(reader, key.get_ref(), value, depth) {
            fields.push(Field { name: key.get_ref().to_string(), file: reader.file, span: key.span(), body });
        }
    }
    fields
}

fn body(reader: &mut Reader<'_>, name: &str, value: &Spanned<DeValue<'_>>, depth: usize) -> Option<Body> {
    if matches!(value.get_ref(), DeValue::String(_)) {
        return reader.text(name, value).map(Body::Expr);
    }
    let DeValue::Table(_) = value.get_ref() else {
        let literal = match value.get_ref() {
            DeValue::Integer(n) => Some(n.to_string()),
            DeValue::Float(n) => Some(n.as_str().to_owned()),
            DeValue::Boolean(b) => Some(b.to_string()),
            _ => None,
        };
        let help = literal.map_or_else(
            || "write an SQL expression in quotes".to_owned(),
            |l| format!("a constant is an expression too: {name} = \"{l}\""),
        );
        reader.push(
            Diagnostic::error(
                "wrong_type",
                reader.file,
                value.span(),
                format!("the field `{name}` must be an expression"),
            )
            .label(format!("this is {}", value.get_ref().type_str()))
            .help(help),
        );
        return None;
    };
    let mut table = reader.table(&format!("the field `{name}`"), value.span(), value)?;
    let body = if let Some((_, object)) = table.take("object") {
        if depth == MAX_DEPTH {
            reader.error("too_deep", value.span(), format!("objects nest at most {MAX_DEPTH} levels deep"));
            return None;
        }
        let inner = reader.table("object", object.span(), object)?;
        Some(Body::Object(read_nested(reader, &inner, depth + 1)))
    } else if let Some((_, entity)) = table.take("ref") {
        let entity = reader.text("ref", entity);
        let external_id = table
            .require(reader, "external_id", "an expression that gives the other record's external id")
            .and_then(|(_, v)| reader.text("external_id", v));
        let missing = table.take_word(reader, "missing", MISSING).unwrap_or(Missing::Wait);
        let (entity, external_id) = (entity?, external_id?);
        Some(Body::Ref { entity_span: entity.inner(), entity: entity.text, external_id, missing })
    } else {
        reader.push(
            Diagnostic::error(
                "wrong_type",
                reader.file,
                value.span(),
                format!("the field `{name}` is neither an expression, an object nor a reference"),
            )
            .help("write \"expression\", { object = { ... } } or { ref = \"entity\", external_id = \"expression\" }"),
        );
        return None;
    };
    table.finish(reader);
    body
}
