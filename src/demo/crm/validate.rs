//! Whether a record's fields are what the model says. Pure, but for references: those are returned to be looked up.

use super::record::{Fields, Text};
use crate::crm::{EntitySchema, FieldKind};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Why a record is refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub code: Cow<'static, str>,
    pub field: Option<String>,
    pub message: String,
}

impl Refusal {
    pub fn new(code: &'static str, field: Option<&str>, message: impl Into<String>) -> Self {
        Self { code: code.into(), field: field.map(str::to_owned), message: message.into() }
    }
}

/// A reference that must be there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted<'a> {
    pub field: String,
    pub entity: &'a str,
    pub external_id: String,
}

/// Checks `fields` against `schema`, apart from what a new record must have.
pub(super) fn fields<'a>(schema: &'a EntitySchema, fields: &Fields<'_>) -> Result<Vec<Wanted<'a>>, Refusal> {
    let mut check = Check { wanted: Vec::new(), path: String::new() };
    check.members(schema, fields)?;
    Ok(check.wanted)
}

/// Checks that a new record has what it must have.
pub(super) fn complete(schema: &EntitySchema, fields: &Fields<'_>) -> Result<(), Refusal> {
    match missing(schema, fields) {
        Some(name) => Err(Refusal::new("required", Some(name), format!("{name} is required for a new record"))),
        None => Ok(()),
    }
}

fn missing<'a>(schema: &'a EntitySchema, fields: &Fields<'_>) -> Option<&'a str> {
    let absent = |name: &str| fields.0.get(name).is_none_or(|value| value.get() == "null");
    schema.fields.iter().find(|(name, field)| field.required && absent(name)).map(|(name, _)| &**name)
}

struct Check<'a> {
    wanted: Vec<Wanted<'a>>,
    path: String,
}

impl<'a> Check<'a> {
    fn members(&mut self, schema: &'a EntitySchema, fields: &Fields<'_>) -> Result<(), Refusal> {
        let outer = self.path.len();
        for (name, value) in &fields.0 {
            if outer > 0 {
                self.path.push('.');
            }
            self.path.push_str(name);
            match schema.fields.get(&**name) {
                None if schema.open => {}
                None => return Err(self.refuse("unknown_field", "there is no such field")),
                Some(field) if field.read_only => return Err(self.refuse("read_only", "the field is read-only")),
                Some(field) if value.get() == "null" => {
                    if !field.nullable {
                        let code = if field.required { "required" } else { "invalid_value" };
                        return Err(self.refuse(code, "the field cannot be null"));
                    }
                }
                Some(field) => self.value(&field.kind, value)?,
            }
            self.path.truncate(outer);
        }
        Ok(())
    }

    fn value(&mut self, kind: &'a FieldKind, value: &RawValue) -> Result<(), Refusal> {
        let raw = value.get();
        let is_number = raw.starts_with(|c: char| c == '-' || c.is_ascii_digit());
        match kind {
            FieldKind::Any => Ok(()),
            FieldKind::Boolean if matches!(raw, "true" | "false") => Ok(()),
            FieldKind::Number if is_number => Ok(()),
            FieldKind::Integer if is_number && !raw.contains(['.', 'e', 'E']) => Ok(()),
            FieldKind::Text { max_length, format, options } if raw.starts_with('"') => {
                self.text(raw, *max_length, format.as_deref(), options)
            }
            FieldKind::Object(schema) => {
                let Ok(fields) = serde_json::from_str::<Fields<'_>>(raw) else { return Err(self.wrong("an object")) };
                if let Some(name) = missing(schema, &fields) {
                    return Err(self.refuse("required", &format!("{name} is required in it")));
                }
                self.members(schema, &fields)
            }
            FieldKind::List(kind) => {
                let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(raw) else { return Err(self.wrong("a list")) };
                let outer = self.path.len();
                for (index, item) in items.into_iter().enumerate() {
                    self.path.push_str(&format!("[{index}]"));
                    self.value(kind, item)?;
                    self.path.truncate(outer);
                }
                Ok(())
            }
            FieldKind::Reference(entity) => {
                let reference = serde_json::from_str::<Fields<'_>>(raw).ok().filter(|fields| fields.0.len() == 1);
                let target = reference
                    .as_ref()
                    .and_then(|fields| serde_json::from_str::<Text<'_>>(fields.0.get("external_id")?.get()).ok());
                let Some(Text(external_id)) = target.filter(|target| !target.0.is_empty()) else {
                    return Err(self.wrong("a reference such as {\"external_id\":\"…\"}"));
                };
                let external_id = external_id.into_owned();
                self.wanted.push(Wanted { field: self.path.clone(), entity, external_id });
                Ok(())
            }
            FieldKind::Boolean => Err(self.wrong("true or false")),
            FieldKind::Number => Err(self.wrong("a number")),
            FieldKind::Integer => Err(self.wrong("a whole number")),
            FieldKind::Text { .. } => Err(self.wrong("text")),
        }
    }

    fn text(
        &self,
        raw: &str,
        max_length: Option<u32>,
        format: Option<&str>,
        options: &[Box<str>],
    ) -> Result<(), Refusal> {
        // Bytes of JSON are never fewer than characters of text: most texts need not be looked into.
        let may_be_long = max_length.filter(|longest| raw.len() - 2 > *longest as usize);
        if may_be_long.is_none() && format.is_none() && options.is_empty() {
            return Ok(());
        }
        let Ok(Text(text)) = serde_json::from_str::<Text<'_>>(raw) else { return Err(self.wrong("text")) };
        if let Some(longest) = may_be_long {
            let length = text.chars().count();
            if length > longest as usize {
                return Err(self.refuse("too_long", &format!("{length} characters; the field holds {longest}")));
            }
        }
        if !options.is_empty() && !options.iter().any(|option| **option == *text) {
            let options = options.iter().take(20).map(|option| format!("\"{option}\"")).collect::<Vec<_>>().join(", ");
            return Err(self.refuse("invalid_value", &format!("not one of {options}")));
        }
        match format {
            Some(format) if !has_format(&text, format) => {
                Err(self.refuse("invalid_value", &format!("not of the format {format}")))
            }
            _ => Ok(()),
        }
    }

    fn wrong(&self, wanted: &str) -> Refusal {
        self.refuse("invalid_value", &format!("must be {wanted}"))
    }

    fn refuse(&self, code: &'static str, why: &str) -> Refusal {
        Refusal::new(code, Some(&self.path), format!("{}: {why}", self.path))
    }
}

/// Formats that are not known are not checked.
fn has_format(text: &str, format: &str) -> bool {
    match format {
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "date-time" => text.len() >= 20 && text.as_bytes()[10] == b'T' && text.parse::<jiff::Timestamp>().is_ok(),
        "time" => text.len() >= 8 && text.parse::<jiff::civil::Time>().is_ok(),
        "email" => {
            let mut parts = text.split('@');
            let (name, host, rest) = (parts.next(), parts.next(), parts.next());
            let filled = |part: Option<&str>| part.is_some_and(|p| !p.is_empty() && !p.contains(char::is_whitespace));
            filled(name) && filled(host) && rest.is_none()
        }
        "uuid" => {
            text.len() == 36
                && text.bytes().enumerate().all(|(index, b)| match index {
                    8 | 13 | 18 | 23 => b == b'-',
                    _ => b.is_ascii_hexdigit(),
                })
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> EntitySchema {
        let document = json!({"components": {"schemas": {"e": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "maxLength": 5}, "tier": {"type": ["string", "null"], "enum": ["gold", "standard"]},
            "born": {"type": ["string", "null"], "format": "date"}, "seen": {"type": "string", "format": "date-time"},
            "mail": {"type": "string", "format": "email"}, "uid": {"type": "string", "format": "uuid"},
            "n": {"type": "number"}, "i": {"type": "integer"}, "b": {"type": "boolean"},
            "account": {"type": ["object", "null"], "x-ref": "account"}, "made": {"type": "string", "readOnly": true},
            "address": {"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}, "zip": {"type": ["string", "null"]}}},
            "items": {"type": "array", "items": {"type": "object", "properties": {"qty": {"type": "integer"}, "product": {"type": "object", "x-ref": "product"}}}},
            "any": {},
        }}}}});
        crate::crm::parse_openapi(document.to_string().as_bytes()).unwrap().entities.remove("e").unwrap()
    }

    fn code(text: &str) -> String {
        let schema = schema();
        match fields(&schema, &serde_json::from_str(text).unwrap()) {
            Ok(_) => "ok".to_owned(),
            Err(refusal) => format!("{} {}", refusal.code, refusal.field.unwrap()),
        }
    }

    #[test]
    fn values_are_checked_against_the_model() {
        for (text, wanted) in [
            (
                r#"{"name":"abcde","tier":"gold","born":"2024-02-29","n":-1.5e3,"i":-7,"b":true,"any":[{"x":null}]}"#,
                "ok",
            ),
            (r#"{"tier":null,"born":null,"account":null}"#, "ok"),
            (r#"{"seen":"2024-01-01T10:00:00.5Z","mail":"a@b.c","uid":"123e4567-e89b-12d3-a456-426614174000"}"#, "ok"),
            (r#"{"name":"äöüßé"}"#, "ok"),
            (r#"{"name":"\u00e4\u00e4\u00e4\u00e4\u00e4"}"#, "ok"),
            (r#"{"name":"äöüßéx"}"#, "too_long name"),
            (r#"{"name":null}"#, "required name"),
            (r#"{"name":5}"#, "invalid_value name"),
            (r#"{"n":null}"#, "invalid_value n"),
            (r#"{"n":"1"}"#, "invalid_value n"),
            (r#"{"i":1.0}"#, "invalid_value i"),
            (r#"{"i":1e3}"#, "invalid_value i"),
            (r#"{"b":"true"}"#, "invalid_value b"),
            (r#"{"tier":"Gold"}"#, "invalid_value tier"),
            (r#"{"tier":""}"#, "invalid_value tier"),
            (r#"{"born":"2023-02-29"}"#, "invalid_value born"),
            (r#"{"born":"2023-02-01T00:00:00"}"#, "invalid_value born"),
            (r#"{"seen":"2024-01-01"}"#, "invalid_value seen"),
            (r#"{"seen":"2024-01-01T10:00:00.000000"}"#, "invalid_value seen"),
            (r#"{"mail":"a b@c"}"#, "invalid_value mail"),
            (r#"{"uid":"123"}"#, "invalid_value uid"),
            (r#"{"made":"x"}"#, "read_only made"),
            (r#"{"other":1}"#, "unknown_field other"),
            (r#"{"address":{"city":"Ulm","zip":null}}"#, "ok"),
            (r#"{"address":{"zip":"89073"}}"#, "required address"),
            (r#"{"address":{"city":1}}"#, "invalid_value address.city"),
            (r#"{"address":{"city":"Ulm","street":"x"}}"#, "unknown_field address.street"),
            (r#"{"address":"Ulm"}"#, "invalid_value address"),
            (r#"{"items":[{"qty":1},{"qty":"2"}]}"#, "invalid_value items[1].qty"),
            (r#"{"items":{}}"#, "invalid_value items"),
            (r#"{"account":"a"}"#, "invalid_value account"),
            (r#"{"account":{"external_id":""}}"#, "invalid_value account"),
            (r#"{"account":{"external_id":"a","x":1}}"#, "invalid_value account"),
        ] {
            assert_eq!(code(text), wanted, "{text}");
        }
    }

    #[test]
    fn references_are_returned_to_be_looked_up() {
        let schema = schema();
        let text = r#"{"account":{"external_id":"a\"1"},"items":[{"product":{"external_id":"p"}}]}"#;
        let wanted = fields(&schema, &serde_json::from_str(text).unwrap()).unwrap();
        let wanted: Vec<_> = wanted.iter().map(|w| (w.field.as_str(), w.entity, w.external_id.as_str())).collect();
        assert_eq!(wanted, [("account", "account", "a\"1"), ("items[0].product", "product", "p")]);
    }

    #[test]
    fn a_new_record_must_be_complete() {
        let schema = schema();
        let check = |text: &str| complete(&schema, &serde_json::from_str(text).unwrap());
        assert!(check(r#"{"name":"x"}"#).is_ok());
        assert_eq!(check("{}").unwrap_err().field.as_deref(), Some("name"));
        assert_eq!(check(r#"{"name":null}"#).unwrap_err().code, "required");
    }
}
