//! An OpenAPI document to [`CrmSchema`]: `components.schemas.<entity>` is the JSON Schema of the entity's fields.
//!
//! What is understood: OpenAPI 3.0 (`nullable`) and 3.1 (type lists with `null`), `$ref` inside the document, `allOf`,
//! `anyOf` / `oneOf` of one kind and null, `enum`, `const`, `maxLength`, `format`, `readOnly`, `required`, nested
//! objects, lists, and `x-ref`. What is not understood becomes [`FieldKind::Any`], which nothing is checked against:
//! the CRM still checks what it is sent. An entity takes unnamed fields only if it says so (`additionalProperties`), or
//! if it names none: silence, which JSON Schema reads as "yes", is how a misspelt field would go unnoticed.

use super::{CrmSchema, EntitySchema, FieldKind, FieldSchema};
use serde_json::{Map, Value};
use std::cell::Cell;
use std::collections::BTreeMap;

/// Nesting followed, references included: schemas may refer to themselves.
const DEPTH: usize = 8;
/// Schemas looked at for one entity: ten fields that each refer back to their entity are 10^8 of them at that depth.
const LOOKS: usize = 10_000;

/// Reads an OpenAPI document, or says what is wrong with it.
pub fn parse(document: &[u8]) -> Result<CrmSchema, String> {
    let document: Value = serde_json::from_slice(document).map_err(|error| {
        // serde_json's words hold a position and no content, apart from this one kind.
        if error.is_data() { "it is not a JSON object".to_owned() } else { format!("it is not JSON ({error})") }
    })?;
    let open = document.get("x-open-entities") == Some(&Value::Bool(true));
    let schemas = document
        .get("components")
        .and_then(|components| components.get("schemas"))
        .and_then(Value::as_object)
        .ok_or("it has no components.schemas")?;
    let reader = Reader { document: &document, looks: Cell::new(0) };
    let mut entities = BTreeMap::new();
    for (name, schema) in schemas {
        reader.looks.set(0);
        let schema = reader.flatten(schema, 0);
        // Components are shared by everything in a document; an entity is one that has fields.
        if schema.types.iter().any(|kind| kind == "object") || !schema.properties.is_empty() {
            entities.insert(name.as_str().into(), reader.entity(&schema, 0));
        }
    }
    Ok(CrmSchema { entities, open })
}

struct Reader<'a> {
    document: &'a Value,
    looks: Cell<usize>,
}

/// A schema with its references followed and its parts put together.
#[derive(Default)]
struct Flat<'a> {
    types: Vec<String>,
    nullable: bool,
    read_only: bool,
    max_length: Option<u32>,
    format: Option<&'a str>,
    options: Option<Vec<&'a Value>>,
    properties: BTreeMap<&'a str, Vec<&'a Value>>,
    required: Vec<&'a str>,
    additional: Option<&'a Value>,
    items: Option<&'a Value>,
    reference: Option<&'a str>,
    /// Something that only the CRM can judge (`oneOf` of several kinds, `not`, …).
    opaque: bool,
}

impl<'a> Reader<'a> {
    fn flatten(&self, schema: &'a Value, depth: usize) -> Flat<'a> {
        let mut flat = Flat::default();
        self.merge(&mut flat, schema, depth);
        flat
    }

    fn merge(&self, flat: &mut Flat<'a>, schema: &'a Value, depth: usize) {
        let Some(object) = schema.as_object() else { return };
        self.looks.set(self.looks.get() + 1);
        if depth > DEPTH || self.looks.get() > LOOKS {
            flat.opaque = true;
            return;
        }
        if let Some(target) = object.get("$ref") {
            match target.as_str().and_then(|path| self.document.pointer(path.strip_prefix('#')?)) {
                Some(target) => self.merge(flat, target, depth + 1),
                None => flat.opaque = true,
            }
        }
        for part in list(object, "allOf") {
            self.merge(flat, part, depth + 1);
        }
        for key in ["anyOf", "oneOf"] {
            let (nulls, kinds): (Vec<&Value>, Vec<&Value>) =
                list(object, key).iter().partition(|part| part.get("type") == Some(&Value::from("null")));
            flat.nullable |= !nulls.is_empty();
            match kinds[..] {
                [] => {}
                [only] => self.merge(flat, only, depth + 1),
                _ => flat.opaque = true,
            }
        }
        self.merge_keywords(flat, object);
    }

    fn merge_keywords(&self, flat: &mut Flat<'a>, object: &'a Map<String, Value>) {
        let text = |key: &str| object.get(key).and_then(Value::as_str);
        let flag = |key: &str| object.get(key) == Some(&Value::Bool(true));
        let types: Vec<&str> = match object.get("type") {
            Some(Value::String(kind)) => vec![kind],
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        flat.nullable |= flag("nullable") || types.contains(&"null");
        let types: Vec<String> = types.into_iter().filter(|kind| *kind != "null").map(str::to_owned).collect();
        if !types.is_empty() {
            flat.types = types;
        }
        flat.read_only |= flag("readOnly");
        if let Some(length) = object.get("maxLength").and_then(Value::as_u64) {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            flat.max_length = Some(flat.max_length.map_or(length, |other| other.min(length)));
        }
        flat.format = text("format").or(flat.format);
        flat.reference = text("x-ref").or(flat.reference);
        let constant = object.get("const").map(|value| vec![value]);
        let options = object.get("enum").and_then(Value::as_array).map(|options| options.iter().collect());
        if let Some(options) = constant.or(options) {
            let options: Vec<&Value> = options;
            flat.nullable |= options.iter().any(|option| option.is_null());
            flat.options = Some(options.into_iter().filter(|option| !option.is_null()).collect());
        }
        if let Some(properties) = object.get("properties").and_then(Value::as_object) {
            for (name, schema) in properties {
                flat.properties.entry(name).or_default().push(schema);
            }
        }
        flat.required.extend(list(object, "required").iter().filter_map(Value::as_str));
        flat.additional = object.get("additionalProperties").or(flat.additional);
        flat.items = object.get("items").or(flat.items);
    }

    fn entity(&self, flat: &Flat<'a>, depth: usize) -> EntitySchema {
        let open = match flat.additional {
            Some(Value::Bool(open)) => *open,
            Some(Value::Object(_)) => true,
            _ => flat.properties.is_empty(),
        };
        let mut fields = BTreeMap::new();
        for (name, schemas) in &flat.properties {
            let mut field = Flat::default();
            for schema in schemas {
                self.merge(&mut field, schema, depth);
            }
            let schema = FieldSchema {
                kind: self.kind(&field, depth + 1),
                required: flat.required.contains(name),
                nullable: field.nullable,
                read_only: field.read_only,
            };
            fields.insert((*name).into(), schema);
        }
        EntitySchema { fields, open }
    }

    fn kind(&self, flat: &Flat<'a>, depth: usize) -> FieldKind {
        if depth > DEPTH {
            return FieldKind::Any;
        }
        if let Some(entity) = flat.reference
            && !flat.types.iter().any(|kind| kind == "array")
        {
            return FieldKind::Reference(entity.into());
        }
        if flat.opaque {
            return FieldKind::Any;
        }
        match flat.types.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["string"] => text(flat),
            ["integer"] => FieldKind::Integer,
            ["number"] | ["integer", "number"] | ["number", "integer"] => FieldKind::Number,
            ["boolean"] => FieldKind::Boolean,
            ["object"] => FieldKind::Object(self.entity(flat, depth)),
            ["array"] => {
                if let Some(entity) = flat.reference {
                    return FieldKind::List(Box::new(FieldKind::Reference(entity.into())));
                }
                let items =
                    flat.items.map_or(FieldKind::Any, |items| self.kind(&self.flatten(items, depth), depth + 1));
                FieldKind::List(Box::new(items))
            }
            [] if !flat.properties.is_empty() => FieldKind::Object(self.entity(flat, depth)),
            [] if flat.options.as_ref().is_some_and(|o| !o.is_empty() && o.iter().all(|o| o.is_string())) => text(flat),
            _ => FieldKind::Any,
        }
    }
}

fn text(flat: &Flat<'_>) -> FieldKind {
    let options = flat.options.iter().flatten().filter_map(|option| option.as_str()).map(Into::into).collect();
    FieldKind::Text { max_length: flat.max_length, format: flat.format.map(Into::into), options }
}

fn list<'a>(object: &'a Map<String, Value>, key: &str) -> &'a [Value] {
    object.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema(schemas: Value) -> CrmSchema {
        parse(json!({"openapi": "3.1.0", "components": {"schemas": schemas}}).to_string().as_bytes()).unwrap()
    }

    fn plain_text() -> FieldKind {
        FieldKind::Text { max_length: None, format: None, options: vec![] }
    }

    #[test]
    fn fields_of_every_kind_are_read() {
        let schema = schema(
            json!({"order": {"type": "object", "additionalProperties": false, "required": ["number", "account"],
            "properties": {
                "number": {"type": "string", "maxLength": 20},
                "status": {"type": ["string", "null"], "enum": ["open", "closed", null]},
                "ordered_on": {"type": "string", "format": "date", "nullable": true},
                "total": {"type": "number"}, "count": {"type": "integer"}, "paid": {"type": "boolean"},
                "account": {"type": "object", "x-ref": "account", "properties": {"external_id": {"type": "string"}}},
                "ship_to": {"type": "object", "properties": {"city": {"type": "string"}}},
                "items": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}}}},
                "tags": {"type": "array", "items": {"type": "string"}},
                "watchers": {"type": "array", "items": {"x-ref": "employee", "type": "object"}},
                "created_at": {"type": "string", "format": "date-time", "readOnly": true},
                "extra": {}, "either": {"oneOf": [{"type": "string"}, {"type": "integer"}]},
                "wide": {"type": ["string", "integer"]},
            }}}),
        );
        let order = &schema.entities["order"];
        assert!(!order.open);
        let field = |name: &str| &order.fields[name];
        assert_eq!(field("number").kind, FieldKind::Text { max_length: Some(20), format: None, options: vec![] });
        assert!(field("number").required && !field("number").nullable);
        assert_eq!(
            field("status").kind,
            FieldKind::Text { max_length: None, format: None, options: vec!["open".into(), "closed".into()] }
        );
        assert!(field("status").nullable && !field("status").required);
        assert!(field("ordered_on").nullable);
        assert_eq!(
            field("ordered_on").kind,
            FieldKind::Text { max_length: None, format: Some("date".into()), options: vec![] }
        );
        assert_eq!(field("total").kind, FieldKind::Number);
        assert_eq!(field("count").kind, FieldKind::Integer);
        assert_eq!(field("paid").kind, FieldKind::Boolean);
        assert_eq!(field("account").kind, FieldKind::Reference("account".into()));
        assert!(field("account").required);
        let FieldKind::Object(ship_to) = &field("ship_to").kind else { panic!() };
        assert_eq!(ship_to.fields["city"].kind, plain_text());
        let FieldKind::List(items) = &field("items").kind else { panic!() };
        let FieldKind::Object(item) = &**items else { panic!() };
        assert_eq!(item.fields["sku"].kind, plain_text());
        assert_eq!(field("tags").kind, FieldKind::List(Box::new(plain_text())));
        assert_eq!(field("watchers").kind, FieldKind::List(Box::new(FieldKind::Reference("employee".into()))));
        assert!(field("created_at").read_only);
        for any in ["extra", "either", "wide"] {
            assert_eq!(field(any).kind, FieldKind::Any, "{any}");
        }
    }

    #[test]
    fn references_and_all_of_are_put_together() {
        let schema = schema(json!({
            "Name": {"type": "string", "maxLength": 40},
            "Party": {"type": "object", "required": ["name"], "properties": {"name": {"$ref": "#/components/schemas/Name"}}},
            "account": {"allOf": [{"$ref": "#/components/schemas/Party"},
                {"type": "object", "required": ["tier"], "additionalProperties": true, "properties": {
                    "tier": {"type": "string"}, "name": {"maxLength": 30},
                    "parent": {"anyOf": [{"$ref": "#/components/schemas/AccountRef"}, {"type": "null"}]}}}]},
            "AccountRef": {"type": "object", "x-ref": "account", "properties": {"external_id": {"type": "string"}}},
        }));
        let account = &schema.entities["account"];
        assert!(account.open);
        assert!(account.fields["name"].required && account.fields["tier"].required);
        assert_eq!(
            account.fields["name"].kind,
            FieldKind::Text { max_length: Some(30), format: None, options: vec![] }
        );
        assert_eq!(account.fields["parent"].kind, FieldKind::Reference("account".into()));
        assert!(account.fields["parent"].nullable);
        assert!(!schema.entities.contains_key("Name"), "a text is no entity");
    }

    #[test]
    fn schemas_that_refer_to_themselves_end() {
        let schema = schema(json!({
            "node": {"type": "object", "properties": {"child": {"$ref": "#/components/schemas/node"}, "kids": {"type": "array", "items": {"$ref": "#/components/schemas/node"}}}},
            "loop": {"$ref": "#/components/schemas/loop"},
            "away": {"type": "object", "properties": {"x": {"$ref": "https://elsewhere.example/x.json"}}},
        }));
        assert!(schema.entities.contains_key("node"));
        assert!(!schema.entities.contains_key("loop"));
        assert_eq!(schema.entities["away"].fields["x"].kind, FieldKind::Any);
    }

    #[test]
    fn a_hostile_document_does_not_cost_more_than_a_moment() {
        let fields: Map<String, Value> =
            (0..50).map(|n| (format!("f{n}"), json!({"$ref": "#/components/schemas/node"}))).collect();
        let started = std::time::Instant::now();
        assert_eq!(schema(json!({"node": {"type": "object", "properties": fields}})).entities["node"].fields.len(), 50);
        assert!(started.elapsed().as_secs() < 5);
    }

    #[test]
    fn silence_about_unnamed_fields_is_no() {
        let schema = schema(json!({
            "closed": {"type": "object", "properties": {"a": {"type": "string"}}},
            "open": {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}},
            "free": {"type": "object"},
        }));
        let open = |name: &str| schema.entities[name].open;
        assert!(!open("closed") && open("open") && open("free"));
        assert!(schema.entity("other").is_none());
    }

    #[test]
    fn what_is_no_openapi_document_is_said() {
        assert!(parse(b"<html>").unwrap_err().contains("not JSON"));
        assert!(parse(b"{}").unwrap_err().contains("components.schemas"));
        assert!(parse(b"[]").unwrap_err().contains("components.schemas"));
        let open = parse(br#"{"x-open-entities":true,"components":{"schemas":{}}}"#).unwrap();
        assert!(open.entity("anything").unwrap().open);
    }
}
