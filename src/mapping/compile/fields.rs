//! Expressions, fields, objects and references of a record or of a list's items.

use super::Compiler;
use crate::crm::{FieldKind, FieldSchema};
use crate::diagnostics::Diagnostic;
use crate::mapping::Missing;
use crate::mapping::check::{self, Target};
use crate::mapping::expr::convert::{Checked, Let, Place, Scope, Typed};
use crate::mapping::expr::ir::{Const, Node};
use crate::mapping::expr::parse::Parsed;
use crate::mapping::json::{Output, write_text};
use crate::mapping::pack::{Body, Field};
use crate::mapping::rule::{FieldBody, FieldProgram, Part};
use crate::mapping::toml_reader::SpannedText;

/// Entities that are referred to, and what is done while a parent is missing.
pub(super) type References = Vec<(Box<str>, Missing)>;

/// Where fields go.
#[derive(Clone)]
pub(super) struct Destination<'c> {
    /// What the CRM says of them.
    pub target: Option<Target<'c>>,
    /// For messages: `account.address`.
    pub shown: String,
    /// Within the record, or within the item of a list: `address`.
    pub path: String,
}

impl Destination<'_> {
    /// The paths of a field: for messages, and within.
    fn of(&self, name: &str) -> (String, String) {
        let join = |base: &str| match (base, name) {
            ("", name) => name.to_owned(),
            (base, "") => base.to_owned(),
            (base, name) => format!("{base}.{name}"),
        };
        (join(&self.shown), join(&self.path))
    }
}

/// A field as a JSON key with its colon.
pub(super) fn json_key(name: &str) -> Box<[u8]> {
    let mut key = Vec::new();
    write_text(&mut key, name);
    key.push(b':');
    key.into()
}

impl Compiler<'_> {
    fn parse(&self, scope: &mut Scope<'_>, text: &SpannedText) -> Checked<Parsed> {
        Parsed::new(text.clone()).or_else(|e| {
            let span = text.place(e.range);
            scope.fail(
                Diagnostic::error("syntax", text.file, span, e.message)
                    .help("see docs/mapping.md for what expressions can say"),
            )
        })
    }

    pub(super) fn expression(&self, scope: &mut Scope<'_>, text: &SpannedText) -> Checked {
        let parsed = self.parse(scope, text)?;
        scope.compile(&parsed)
    }

    pub(super) fn part(&self, scope: &mut Scope<'_>, text: &SpannedText, typed: Typed) -> Part {
        let place = scope.mark(&Place { file: text.file, span: text.inner() }, &text.text);
        Part { node: typed.node, columns: typed.columns.into(), place }
    }

    pub(super) fn lets(&self, scope: &mut Scope<'_>, lets: &[(String, SpannedText)]) {
        for (name, text) in lets {
            let typed = self.expression(scope, text).ok();
            scope.lets.push(Let { name: name.clone(), typed });
        }
    }

    pub(super) fn condition(&self, scope: &mut Scope<'_>, text: &SpannedText) -> Checked<Part> {
        let typed = self.expression(scope, text)?;
        let typed = scope.condition(typed)?;
        Ok(self.part(scope, text, typed))
    }

    pub(super) fn fields(
        &self,
        scope: &mut Scope<'_>,
        fields: &[Field],
        to: &Destination<'_>,
        references: &mut References,
    ) -> Checked<Box<[FieldProgram]>> {
        let compiled: Vec<_> = fields
            .iter()
            .map(|field| {
                let place = Place { file: field.file, span: field.span.clone() };
                let schema = match to.target {
                    Some(target) => target.field(scope, &field.name, &place),
                    None => Ok(None),
                };
                self.field(scope, field, schema, to, references)
            })
            .collect();
        compiled.into_iter().collect()
    }

    /// One field, or the bare value of a list's item, into what the CRM's `schema` says of it.
    pub(super) fn field(
        &self,
        scope: &mut Scope<'_>,
        field: &Field,
        schema: Checked<Option<&FieldSchema>>,
        to: &Destination<'_>,
        references: &mut References,
    ) -> Checked<FieldProgram> {
        let (shown, path) = to.of(&field.name);
        let (body, columns) = match &field.body {
            Body::Expr(text) => self.value(scope, text, &shown, schema)?,
            Body::Object(inner) => {
                let to = Destination { target: to.target, shown, path: path.clone() };
                self.object(scope, field, inner, schema, &to, references)?
            }
            Body::Ref { entity, entity_span, external_id, missing } => {
                let typed = self.expression(scope, external_id);
                if let (Some(target), Ok(field_schema)) = (to.target, &schema) {
                    check::reference(scope, target, &shown, *field_schema, (entity, entity_span), field.file)?;
                }
                let typed = typed?;
                check::external_id(scope, "the external id of a reference", &typed)?;
                if let Some(schema) = schema? {
                    check::null(scope, &shown, &typed, schema);
                }
                let reference = (entity.as_str().into(), *missing);
                if !references.contains(&reference) {
                    references.push(reference);
                }
                let typed = scope.shown(typed);
                let columns = typed.columns.clone();
                let part = self.part(scope, external_id, typed);
                (FieldBody::Ref { part, entity: entity.as_str().into(), missing: *missing }, columns)
            }
        };
        Ok(FieldProgram {
            name: field.name.as_str().into(),
            path: path.into(),
            json_key: json_key(&field.name),
            columns: columns.into(),
            body,
        })
    }

    fn value(
        &self,
        scope: &mut Scope<'_>,
        text: &SpannedText,
        shown: &str,
        schema: Checked<Option<&FieldSchema>>,
    ) -> Checked<(FieldBody, Vec<u16>)> {
        let typed = self.expression(scope, text)?;
        let (typed, output) = match schema? {
            Some(schema) => check::value(scope, shown, typed, schema)?,
            None => (typed, Output::ByType),
        };
        let columns = typed.columns.clone();
        let part = self.part(scope, text, typed);
        Ok((FieldBody::Value { part, output }, columns))
    }

    /// `to` is the object itself, with the target of what is around it.
    fn object(
        &self,
        scope: &mut Scope<'_>,
        field: &Field,
        inner: &[Field],
        schema: Checked<Option<&FieldSchema>>,
        to: &Destination<'_>,
        references: &mut References,
    ) -> Checked<(FieldBody, Vec<u16>)> {
        let place = Place { file: field.file, span: field.span.clone() };
        let target = match (to.target, &schema) {
            (Some(around), Ok(Some(FieldSchema { kind: FieldKind::Object(entity), .. }))) => {
                Some(Target { crm: around.crm, name: &to.shown, schema: entity })
            }
            (Some(_), Ok(Some(FieldSchema { kind, .. }))) if *kind != FieldKind::Any => {
                let message = format!("`{}` is no object in the CRM", to.shown);
                return scope.error("field_type", &place, message);
            }
            _ => None,
        };
        let within = Destination { target, shown: to.shown.clone(), path: to.path.clone() };
        let fields = self.fields(scope, inner, &within, references)?;
        schema?;
        if let Some(target) = target {
            let mapped: Vec<&str> = inner.iter().map(|f| f.name.as_str()).collect();
            target.required(scope, &mapped, &place);
        }
        let mut columns: Vec<u16> = fields.iter().flat_map(|f| f.columns.iter().copied()).collect();
        columns.sort_unstable();
        columns.dedup();
        Ok((FieldBody::Object(fields), columns))
    }
}

/// The nodes of `let`s; one that did not compile has been reported, and a null stands in.
pub(super) fn let_nodes(scope: &Scope<'_>) -> Box<[Node]> {
    scope.lets.iter().map(|l| l.typed.as_ref().map_or(Node::Const(Const::Null), |t| t.node.clone())).collect()
}
