//! `vars`: declared by the pack, given by the tenant.

use crate::config::Secret;
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::mapping::expr::cast::cast;
use crate::mapping::expr::convert::Variable;
use crate::mapping::expr::ir::{Const, Target, Type};
use crate::mapping::expr::value::Val;
use crate::mapping::toml_reader::{Reader, Table};
use std::ops::Range;
use toml::de::DeValue;

/// A declaration, with the value it has so far.
pub(crate) struct Declared {
    pub name: String,
    pub ty: Type,
    pub file: usize,
    pub span: Range<usize>,
    pub value: Option<Const>,
    /// What a secret is, once its place was looked at.
    pub secret: Option<Secret>,
    /// A value was given, and was wrong: that has been told.
    pub failed: bool,
}

const TYPES: &[(&str, Type)] = &[
    ("text", Type::Text),
    ("integer", Type::Int),
    ("decimal", Type::Decimal),
    ("boolean", Type::Bool),
    ("date", Type::Date),
    ("timestamp", Type::Timestamp),
    // A secret has no type in expressions: it is a key, and nothing else.
    ("secret", Type::Bytes),
];

/// Stands in for secrets where there is no tenant: in tests of packs.
const STAND_IN: &str = "secret";

/// Reads the declarations.
pub(super) fn declared(reader: &mut Reader<'_>, vars: &Table<'_>) -> Vec<Declared> {
    let mut all = Vec::new();
    for (key, value) in vars.entries() {
        let name = key.get_ref().to_string();
        let Some(mut table) = reader.table(&format!("variable `{name}`"), key.span(), value) else { continue };
        let ty = table
            .require(reader, "type", "vars = { region = { type = \"text\", default = \"eu\" } }")
            .and_then(|(_, v)| reader.word("type", v, TYPES));
        let default = table.take("default");
        table.finish(reader);
        let Some(ty) = ty else { continue };
        let mut declared =
            Declared { name, ty, file: reader.file, span: key.span(), value: None, secret: None, failed: false };
        if let Some((_, default)) = default {
            let file = reader.file;
            declared.give(reader.diagnostics, file, default.span(), default.get_ref());
        }
        all.push(declared);
    }
    all
}

impl Declared {
    /// Whether it is a key that must not be shown.
    pub(crate) fn is_secret(&self) -> bool {
        self.ty == Type::Bytes
    }

    /// Takes a value for the variable, or tells why it cannot be one.
    pub(crate) fn give(&mut self, diagnostics: &mut Diagnostics, file: usize, span: Range<usize>, value: &DeValue<'_>) {
        if self.is_secret() {
            self.failed = true;
            diagnostics.hide(file, span.clone());
            let message = format!("`{}` is a secret and must not stand in a file", self.name);
            diagnostics.push(
                Diagnostic::error("bare_secret", file, span, message)
                    .help("say in the tenant file where it is: [mapping.vars] NAME = { env = \"NAME\" }, { file = \"PATH\" } or { credential = \"NAME\" }"),
            );
            return;
        }
        match constant(self.ty, value) {
            Some(constant) => self.value = Some(constant),
            None => {
                self.failed = true;
                let message = format!("variable `{}` takes {}", self.name, self.ty.name());
                diagnostics.push(
                    Diagnostic::error("wrong_type", file, span, message).label(format!("this is {}", value.type_str())),
                );
            }
        }
    }
}

/// A TOML value as a constant of a type.
pub(crate) fn constant(ty: Type, value: &DeValue<'_>) -> Option<Const> {
    let text = match value {
        DeValue::String(s) => s.to_string(),
        DeValue::Integer(n) if matches!(ty, Type::Int | Type::Decimal) => n.to_string(),
        DeValue::Float(n) if ty == Type::Decimal => n.as_str().to_owned(),
        DeValue::Boolean(b) if ty == Type::Bool => return Some(Const::Bool(*b)),
        DeValue::Datetime(d) if matches!(ty, Type::Date | Type::Timestamp) && d.offset.is_none() => d.to_string(),
        _ => return None,
    };
    if matches!((ty, value), (Type::Bool | Type::Int, DeValue::String(_))) {
        return None;
    }
    let target = match ty {
        Type::Text => return Some(Const::Text(text.into())),
        Type::Int => Target::Int(64),
        Type::Decimal => Target::Decimal(None),
        Type::Date => Target::Date,
        Type::Timestamp => Target::Timestamp(6),
        _ => return None,
    };
    cast(&target, Val::string(text)).ok().as_ref().and_then(Const::of)
}

/// The variables with their values; one without is an error.
///
/// Where there is no tenant, a text stands in for secrets.
pub(super) fn resolve(diagnostics: &mut Diagnostics, declared: Vec<Declared>, has_tenant: bool) -> Vec<Variable> {
    let mut variables = Vec::new();
    for d in declared {
        if d.is_secret() && !d.failed {
            let secret = d.secret.clone().or_else(|| (!has_tenant).then(|| Secret::new(STAND_IN)));
            if secret.is_some() {
                variables.push(Variable { name: d.name, ty: d.ty, value: Const::Null, secret });
                continue;
            }
        }
        match d.value {
            Some(value) => variables.push(Variable { name: d.name, ty: d.ty, value, secret: None }),
            None if d.failed => {}
            None => {
                let how = if d.is_secret() { "= { env = \"NAME\" }" } else { "= ..., or give it a default" };
                diagnostics.push(
                    Diagnostic::error(
                        "missing_variable",
                        d.file,
                        d.span,
                        format!("variable `{}` has no value", d.name),
                    )
                    .help(format!("set it in the tenant file: [mapping.vars] {} {how}", d.name)),
                );
            }
        }
    }
    variables
}
