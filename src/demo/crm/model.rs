//! The CRM's model and the OpenAPI document that publishes it.

use super::DevCrmError;
use crate::crm::{CrmSchema, EntitySchema, parse_openapi};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Where the CRM's model comes from.
#[derive(Clone, Debug, Default)]
pub enum SchemaSource {
    /// The built-in model of a trading company (account, contact, employee, product, order, …).
    #[default]
    Northwind,
    /// A JSON file: an OpenAPI document, or just `{"<entity>": <JSON Schema>, …}`.
    File(PathBuf),
    /// The same as text.
    Text(String),
    /// Any entity with any fields. Nothing is checked, references included.
    Open,
}

const NORTHWIND: &str = include_str!("northwind.json");

/// The routes of the contract, as the router and the published document have them: method, path, what it is.
pub(super) const ROUTES: [(&str, &str, &str); 5] = [
    ("get", "/health", "Whether the CRM is up"),
    ("get", "/openapi.json", "This document"),
    ("get", "/v1/{entity}", "Lists records in the byte order of their external ids"),
    ("post", "/v1/{entity}/upsert", "Creates or updates records"),
    ("post", "/v1/{entity}/delete", "Deletes records"),
];

/// A model, ready to check records against.
pub(super) struct Model {
    schema: CrmSchema,
    /// The published document.
    pub document: String,
}

impl Model {
    pub fn load(source: &SchemaSource) -> Result<Self, DevCrmError> {
        let (text, name) = match source {
            SchemaSource::Northwind => (NORTHWIND.to_owned(), "the built-in model".to_owned()),
            SchemaSource::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| DevCrmError(format!("the model {} cannot be read: {error}", path.display())))?;
                (text, path.display().to_string())
            }
            SchemaSource::Text(text) => (text.clone(), "the model".to_owned()),
            SchemaSource::Open => return Self::build(Map::new(), true, "the open model"),
        };
        let value: Value =
            serde_json::from_str(&text).map_err(|error| DevCrmError(format!("{name} is not JSON: {error}")))?;
        let schemas = value.pointer("/components/schemas").unwrap_or(&value);
        let Some(schemas) = schemas.as_object().filter(|schemas| schemas.values().all(Value::is_object)) else {
            return Err(DevCrmError(format!(
                "{name} is neither an OpenAPI document with components.schemas nor an object of JSON Schemas by entity"
            )));
        };
        let open = value.get("x-open-entities") == Some(&Value::Bool(true));
        Self::build(schemas.clone(), open, &name)
    }

    fn build(schemas: Map<String, Value>, open: bool, name: &str) -> Result<Self, DevCrmError> {
        let document = document(schemas, open).to_string();
        let schema = parse_openapi(document.as_bytes()).map_err(|error| DevCrmError(format!("{name}: {error}")))?;
        if schema.entities.is_empty() && !open {
            return Err(DevCrmError(format!("{name} describes no entity (an object with properties)")));
        }
        Ok(Self { schema, document })
    }

    pub fn entity(&self, entity: &str) -> Option<&EntitySchema> {
        self.schema.entity(entity)
    }

    /// Names of the entities that the model describes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.schema.entities.keys().map(|name| &**name)
    }
}

fn document(schemas: Map<String, Value>, open: bool) -> Value {
    let entity = json!({"name": "entity", "in": "path", "required": true, "schema": {"type": "string"}});
    let problem = |description: &str| json!({"description": description, "content": {"application/json": {"schema": problem_schema()}}});
    let mut paths = Map::new();
    for (method, path, summary) in ROUTES {
        let mut operation = json!({"summary": summary, "responses": {"200": {"description": "Done"}}});
        if path.starts_with("/v1/") {
            operation["parameters"] = json!([entity]);
            operation["responses"]["401"] = problem("The token is missing or wrong");
            operation["responses"]["404"] = problem("There is no such entity");
            operation["responses"]["429"] = problem("Slow down; see Retry-After");
        }
        if path == "/health" {
            operation["security"] = json!([]);
        }
        match path {
            "/v1/{entity}" => {
                operation["parameters"] = json!([entity,
                    {"name": "after", "in": "query", "schema": {"type": "string"}},
                    {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1000}}]);
                operation["responses"]["200"]["content"] = json!({"application/json": {"schema": listing_schema()}});
            }
            "/v1/{entity}/upsert" | "/v1/{entity}/delete" => {
                let upsert = path.ends_with("upsert");
                operation["parameters"] =
                    json!([entity, {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}}]);
                operation["requestBody"] =
                    json!({"required": true, "content": {"application/json": {"schema": records_schema(upsert)}}});
                operation["responses"]["200"]["content"] =
                    json!({"application/json": {"schema": results_schema(upsert)}});
                operation["responses"]["400"] = problem("The body is not the JSON of the contract");
                operation["responses"]["413"] = problem("Too many records or bytes");
                operation["responses"]["415"] = problem("The body is neither JSON nor gzipped JSON");
            }
            _ => {}
        }
        if let Some(operations) = paths.entry(path).or_insert_with(|| json!({})).as_object_mut() {
            operations.insert(method.to_owned(), operation);
        }
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {"title": "Reference CRM", "version": env!("CARGO_PKG_VERSION")},
        "security": [{"token": []}],
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}, "schemas": schemas},
    });
    if open {
        document["x-open-entities"] = Value::Bool(true);
    }
    document
}

fn records_schema(upsert: bool) -> Value {
    let mut record = json!({"type": "object", "required": ["external_id", "version"], "properties": {
        "external_id": {"type": "string", "minLength": 1}, "version": {"type": "string", "pattern": "^[0-9]+$"}}});
    if upsert {
        record["required"] = json!(["external_id", "version", "fields"]);
        record["properties"]["fields"] = json!({"type": "object"});
    }
    json!({"type": "object", "required": ["records"], "properties": {"records": {"type": "array", "items": record}}})
}

fn results_schema(upsert: bool) -> Value {
    let words = if upsert {
        json!(["created", "updated", "unchanged", "stale", "rejected"])
    } else {
        json!(["deleted", "not_found", "stale", "rejected"])
    };
    json!({"type": "object", "required": ["results"], "properties": {"results": {"type": "array", "items": {
        "type": "object", "required": ["external_id", "status"], "properties": {
            "external_id": {"type": "string"}, "status": {"type": "string", "enum": words}, "id": {"type": "string"},
            "error": {"type": "object", "required": ["code", "message"], "properties": {
                "code": {"type": "string"}, "field": {"type": "string"}, "message": {"type": "string"}}}}}}}})
}

fn listing_schema() -> Value {
    json!({"type": "object", "required": ["records", "next"], "properties": {
        "records": {"type": "array", "items": {"type": "object", "required": ["external_id", "id", "version", "fields"], "properties": {
            "external_id": {"type": "string"}, "id": {"type": "string"}, "version": {"type": "string"}, "fields": {"type": "object"}}}},
        "next": {"type": ["string", "null"]}}})
}

fn problem_schema() -> Value {
    json!({"type": "object", "properties": {"error": {"type": "object", "properties": {
        "code": {"type": "string"}, "message": {"type": "string"}}}}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crm::FieldKind;

    #[test]
    fn the_built_in_model_is_whole() {
        let model = Model::load(&SchemaSource::Northwind).unwrap();
        let names: Vec<_> = model.names().collect();
        for name in ["account", "contact", "employee", "product", "order"] {
            assert!(names.contains(&name), "{name} in {names:?}");
        }
        // Every reference leads somewhere, and every entity says whether it is open.
        fn references(kind: &FieldKind, out: &mut Vec<String>) {
            match kind {
                FieldKind::Reference(entity) => out.push(entity.to_string()),
                FieldKind::List(kind) => references(kind, out),
                FieldKind::Object(schema) => schema.fields.values().for_each(|field| references(&field.kind, out)),
                _ => {}
            }
        }
        for name in names {
            let entity = model.entity(name).unwrap();
            assert!(!entity.open, "{name}");
            let mut found = Vec::new();
            for (field, schema) in &entity.fields {
                assert!(schema.required != schema.nullable || schema.read_only, "{name}.{field}: required or nullable");
                references(&schema.kind, &mut found);
            }
            for target in found {
                assert!(model.entity(&target).is_some(), "{name} refers to {target}");
            }
        }
        assert!(model.entity("nothing").is_none());
    }

    #[test]
    fn the_shipped_pack_fits_the_built_in_model() {
        let model = Model::load(&SchemaSource::Northwind).unwrap();
        let pack: toml::Table = toml::from_str(include_str!("../../../packs/northwind/mapping.toml")).unwrap();
        for (rule, record) in pack["record"].as_table().unwrap() {
            let name = record.get("entity").map_or(rule.as_str(), |entity| entity.as_str().unwrap());
            let entity = model.entity(name).unwrap_or_else(|| panic!("{name}"));
            let fields = record["fields"].as_table().unwrap();
            for (field, value) in fields {
                let schema = entity.fields.get(field.as_str()).unwrap_or_else(|| panic!("{name}.{field}"));
                if let Some(target) = value.get("ref") {
                    assert_eq!(schema.kind, FieldKind::Reference(target.as_str().unwrap().into()), "{name}.{field}");
                }
                if let Some(parts) = value.get("object") {
                    let FieldKind::Object(inner) = &schema.kind else { panic!("{name}.{field} is no object") };
                    for part in parts.as_table().unwrap().keys() {
                        assert!(inner.fields.contains_key(part.as_str()), "{name}.{field}.{part}");
                    }
                }
            }
            for (field, schema) in &entity.fields {
                assert!(!schema.required || fields.contains_key(&**field), "{rule} does not give {name}.{field}");
            }
        }
    }

    #[test]
    fn models_are_taken_with_and_without_a_document_around_them() {
        let bare = r#"{"thing": {"type": "object", "properties": {"a": {"type": "string"}}}}"#;
        let whole = format!(r#"{{"openapi": "3.1.0", "components": {{"schemas": {bare}}}}}"#);
        for text in [bare, &whole] {
            let model = Model::load(&SchemaSource::Text(text.to_owned())).unwrap();
            assert_eq!(model.names().collect::<Vec<_>>(), ["thing"]);
            assert!(model.document.contains("\"/v1/{entity}/upsert\""));
        }
        for bad in ["", "[]", "{}", r#"{"a": 1}"#, r#"{"a": {"type": "string"}}"#] {
            assert!(Model::load(&SchemaSource::Text(bad.to_owned())).is_err(), "{bad}");
        }
        assert!(Model::load(&SchemaSource::Open).unwrap().entity("anything").unwrap().open);
    }
}
