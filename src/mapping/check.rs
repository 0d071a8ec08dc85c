//! Fields against the CRM's own schema. Nothing of that schema is ever copied into a pack.

use super::expr::convert::{Checked, Place, Scope, Typed};
use super::expr::ir::Type;
use super::json::Output;
use crate::crm::{CrmSchema, EntitySchema, FieldKind, FieldSchema};
use crate::diagnostics::{Diagnostic, did_you_mean};
use std::ops::Range;

/// What the CRM says of an entity, or of an object nested in it.
#[derive(Clone, Copy)]
pub(super) struct Target<'c> {
    pub crm: &'c CrmSchema,
    /// Name for messages: `account`, or `account.address`.
    pub name: &'c str,
    pub schema: &'c EntitySchema,
}

/// The entity's schema; an error if the CRM has none of that name.
pub(super) fn entity<'c>(
    scope: &mut Scope<'_>,
    crm: &'c CrmSchema,
    name: &'c str,
    place: &Place,
) -> Checked<Target<'c>> {
    match crm.entity(name) {
        Some(schema) => Ok(Target { crm, name, schema }),
        None => {
            let near = did_you_mean(name, crm.entities.keys().map(|k| &**k)).map(|n| format!("did you mean `{n}`?"));
            let all = || crm.entities.keys().map(|k| &**k).collect::<Vec<_>>().join(", ");
            let help = near.unwrap_or_else(|| format!("entities of the CRM: {}", all()));
            let message = format!("the CRM has no entity `{name}`");
            scope.fail(Diagnostic::error("unknown_entity", place.file, place.span.clone(), message).help(help))
        }
    }
}

impl<'c> Target<'c> {
    /// The CRM's word on a field; `None` if it takes fields that it does not name.
    pub(super) fn field(&self, scope: &mut Scope<'_>, name: &str, place: &Place) -> Checked<Option<&'c FieldSchema>> {
        if let Some(field) = self.schema.fields.get(name) {
            if field.read_only {
                let message = format!("`{}.{name}` is read-only in the CRM", self.name);
                return scope.error("read_only_field", place, message);
            }
            return Ok(Some(field));
        }
        let near = did_you_mean(name, self.schema.fields.keys().map(|k| &**k)).map(|n| format!("did you mean `{n}`?"));
        let message = format!("CRM entity `{}` has no field `{name}`", self.name);
        if !self.schema.open {
            let all = self.schema.fields.iter().filter(|(_, f)| !f.read_only).map(|(n, _)| &**n).collect::<Vec<_>>();
            let near = near.or_else(|| (all.len() <= 20).then(|| format!("fields of the CRM: {}", all.join(", "))));
            return scope.fail(
                Diagnostic::error("unknown_field", place.file, place.span.clone(), message)
                    .label("unknown CRM field")
                    .maybe_help(near),
            );
        }
        // The entity takes any field; a name close to a known one is probably a slip.
        if near.is_some() {
            let warning = Diagnostic::warning("unknown_field", place.file, place.span.clone(), message);
            scope.diagnostics.push(warning.maybe_help(near).note("the CRM takes fields that its schema does not name"));
        }
        Ok(None)
    }

    /// Reports required fields that are not among `mapped`.
    pub(super) fn required(&self, scope: &mut Scope<'_>, mapped: &[&str], place: &Place) {
        for (name, field) in &self.schema.fields {
            // The external id travels beside the fields.
            let given = mapped.contains(&&**name) || &**name == "external_id";
            if field.required && !field.read_only && !given {
                let message = format!("`{}.{name}` is required by the CRM and never mapped", self.name);
                scope.diagnostics.push(
                    Diagnostic::error("missing_field", place.file, place.span.clone(), message)
                        .label("these fields lack it")
                        .help(format!("add {name} = \"...\"")),
                );
            }
        }
    }
}

/// Checks a value against its field, and tells how it is written.
pub(super) fn value(scope: &mut Scope<'_>, path: &str, typed: Typed, field: &FieldSchema) -> Checked<(Typed, Output)> {
    null(scope, path, &typed, field);
    let typed = if typed.literal { literal(scope, typed, &field.kind)? } else { typed };
    let output = kind(scope, path, &typed, &field.kind)?;
    Ok((typed, output))
}

/// A text literal takes the type of the field it is written into.
fn literal(scope: &mut Scope<'_>, typed: Typed, kind: &FieldKind) -> Checked {
    match kind {
        FieldKind::Integer => scope.convert(typed, Type::Int),
        FieldKind::Number => scope.convert(typed, Type::Decimal),
        FieldKind::Boolean => scope.convert(typed, Type::Bool),
        _ => Ok(typed),
    }
}

/// Null where the CRM takes none.
pub(super) fn null(scope: &mut Scope<'_>, path: &str, typed: &Typed, field: &FieldSchema) {
    let (Some(why), false) = (&typed.null, field.nullable) else { return };
    let place = &why.place;
    let mut diagnostic = if field.required {
        let message = format!("`{path}` is required by the CRM, but this can be null");
        Diagnostic::error("nullable", place.file, place.span.clone(), message)
            .help("give a value for null: coalesce(..., '...'), or leave such rows out: where = \"... is not null\"")
    } else {
        let message = format!("the CRM's schema does not list null for `{path}`, but this can be null");
        Diagnostic::warning("nullable", place.file, place.span.clone(), message)
            .help("null clears the field; if the CRM refuses that, give a value: coalesce(..., '')")
    };
    diagnostic = diagnostic.label(why.text.clone());
    for through in &why.through {
        diagnostic = diagnostic.note(format!("by way of {through}"));
    }
    let line = |p: &Place| scope.diagnostics.place(p.file, p.span.start).map(|(line, _)| (p.file, line));
    if let (true, Some((_, line))) = (line(place) != line(&typed.place), line(&typed.place)) {
        diagnostic = diagnostic.note(format!("`{path}` is given in line {line}"));
    }
    scope.diagnostics.push(diagnostic);
}

fn kind(scope: &mut Scope<'_>, path: &str, typed: &Typed, kind: &FieldKind) -> Checked<Output> {
    use Type::{Bool, Bytes, Date, Decimal, Float, Int, Json, List, Null, Text, Time, Timestamp, TimestampTz, Uuid};
    match (kind, typed.ty) {
        (_, Null) | (FieldKind::Any, _) | (FieldKind::Boolean, Bool) => Ok(Output::ByType),
        (
            FieldKind::Text { max_length, format, options },
            Text | Uuid | Date | Time | Timestamp | TimestampTz | Decimal | Bytes,
        ) => {
            text(scope, path, typed, (*max_length, format.as_deref(), options))?;
            Ok(Output::ByType)
        }
        (FieldKind::Number, Int | Decimal | Float) => Ok(Output::Number),
        (FieldKind::Integer, Int) => Ok(Output::Integer),
        (FieldKind::Integer, Decimal | Float) => {
            let message = format!("`{path}` takes whole numbers, this is {}", typed.ty.name());
            scope.diagnostics.push(
                Diagnostic::warning("may_not_be_whole", typed.place.file, typed.place.span.clone(), message)
                    .help("a row whose value is not whole is set aside; round it: round(...)"),
            );
            Ok(Output::Integer)
        }
        (FieldKind::List(_), List | Json) | (FieldKind::Object(_), Json) => Ok(Output::ByType),
        (FieldKind::Reference(entity), _) => mismatch(
            scope,
            typed,
            format!("`{path}` is a reference to `{entity}`"),
            &format!("write {{ ref = \"{entity}\", external_id = \"...\" }}"),
        ),
        (FieldKind::Object(_), _) => mismatch(
            scope,
            typed,
            format!("`{path}` takes an object, this is {}", typed.ty.name()),
            "write { object = { ... } }",
        ),
        _ => {
            let wanted = match kind {
                FieldKind::Text { .. } => "text",
                FieldKind::Integer => "a whole number",
                FieldKind::Number => "a number",
                FieldKind::Boolean => "a boolean",
                _ => "a list",
            };
            let help = match (kind, typed.ty) {
                (FieldKind::Text { .. }, _) => "convert it: cast(... as text)",
                (FieldKind::Integer, Text) => "convert it: cast(... as bigint)",
                (FieldKind::Number, Text) => "convert it: cast(... as decimal)",
                (FieldKind::Boolean, Int) => "compare it: ... <> 0",
                (FieldKind::Boolean, _) => "compare it: ... = '...'",
                (FieldKind::Number | FieldKind::Integer, Bool) => "write case when ... then 1 else 0 end",
                _ => "map a column of that type",
            };
            mismatch(scope, typed, format!("`{path}` takes {wanted}, this is {}", typed.ty.name()), help)
        }
    }
}

fn mismatch<T>(scope: &mut Scope<'_>, typed: &Typed, message: String, help: &str) -> Checked<T> {
    scope.fail(
        Diagnostic::error("field_type", typed.place.file, typed.place.span.clone(), message)
            .label(format!("this is {}", typed.ty.name()))
            .help(help),
    )
}

fn text(
    scope: &mut Scope<'_>,
    path: &str,
    typed: &Typed,
    (max_length, format, options): (Option<u32>, Option<&str>, &[Box<str>]),
) -> Checked<()> {
    let place = &typed.place;
    if let (Some(values), false) = (&typed.values, options.is_empty()) {
        let bad: Vec<&str> = values.iter().map(|v| &**v).filter(|v| options.iter().all(|o| &**o != *v)).collect();
        if !bad.is_empty() {
            let listed = bad.iter().map(|v| format!("'{v}'")).collect::<Vec<_>>().join(", ");
            let near = bad.iter().find_map(|b| did_you_mean(b, options.iter().map(|o| &**o)));
            let near = near.map(|n| format!("did you mean '{n}'? "));
            let all = options.iter().map(|o| &**o).collect::<Vec<_>>().join(", ");
            let plural = if bad.len() == 1 { "is not an option" } else { "are not options" };
            return scope.fail(
                Diagnostic::error(
                    "bad_option",
                    place.file,
                    place.span.clone(),
                    format!("{listed} {plural} of `{path}`"),
                )
                .label("can be this")
                .help(format!("{}options in the CRM: {all}", near.unwrap_or_default())),
            );
        }
    }
    let temporal = match (format, typed.ty) {
        (Some("date"), Type::Timestamp | Type::TimestampTz) => Some(("a date", "convert it: cast(... as date)")),
        (Some("date-time"), Type::Date) => Some(("a timestamp", "convert it: cast(... as timestamp)")),
        (Some("date" | "date-time"), Type::Time) | (Some("time"), Type::Date | Type::Timestamp | Type::TimestampTz) => {
            Some(("another part of time", "convert it: cast(... as date), cast(... as time)"))
        }
        (Some("date" | "date-time" | "time"), Type::Decimal | Type::Uuid | Type::Bytes) => {
            Some(("a date or time", "map a column of that type"))
        }
        _ => None,
    };
    if let Some((wanted, help)) = temporal {
        return mismatch(scope, typed, format!("`{path}` takes {wanted}, this is {}", typed.ty.name()), help);
    }
    if format == Some("date-time") && typed.ty == Type::Timestamp && scope.zone.is_none() {
        let message = format!("`{path}` is an instant, but this timestamp has no time zone");
        scope.diagnostics.push(
            Diagnostic::warning("no_time_zone", place.file, place.span.clone(), message)
                .label("sent as it is, without a zone")
                .help("set `time_zone` in the tenant's [source], or write `... at time zone 'Europe/Berlin'`"),
        );
    }
    if let (Some(max), Some(longest)) = (max_length, typed.max_length)
        && longest > max
    {
        let message = format!("`{path}` takes {max} characters, this can have {longest}");
        scope.diagnostics.push(
            Diagnostic::warning("may_be_too_long", place.file, place.span.clone(), message)
                .help(format!("cut it: left(..., {max})")),
        );
    }
    Ok(())
}

/// Checks a reference against its field.
pub(super) fn reference(
    scope: &mut Scope<'_>,
    target: Target<'_>,
    path: &str,
    field: Option<&FieldSchema>,
    (entity, span): (&str, &Range<usize>),
    file: usize,
) -> Checked<()> {
    let place = Place { file, span: span.clone() };
    if target.crm.entity(entity).is_none() {
        return self::entity(scope, target.crm, entity, &place).map(|_| ());
    }
    match field.map(|f| &f.kind) {
        None | Some(FieldKind::Any) => Ok(()),
        Some(FieldKind::Reference(wanted)) if **wanted == *entity => Ok(()),
        Some(FieldKind::Reference(wanted)) => scope.fail(
            Diagnostic::error(
                "reference_mismatch",
                file,
                span.clone(),
                format!("`{path}` refers to `{wanted}` in the CRM"),
            )
            .label(format!("not to `{entity}`")),
        ),
        Some(_) => {
            let message = format!("`{path}` is no reference in the CRM");
            scope.fail(
                Diagnostic::error("reference_mismatch", file, span.clone(), message).help("map it with an expression"),
            )
        }
    }
}

/// The type of an external id must have one plain text.
pub(super) fn external_id(scope: &mut Scope<'_>, what: &str, typed: &Typed) -> Checked<()> {
    if matches!(typed.ty, Type::Float | Type::Json | Type::List | Type::Bytes | Type::Bool | Type::Null) {
        return scope.fail(
            Diagnostic::error(
                "wrong_type",
                typed.place.file,
                typed.place.span.clone(),
                format!("{what} cannot be {}", typed.ty.name()),
            )
            .help("use text, an integer, a decimal, a date or a uuid"),
        );
    }
    Ok(())
}
