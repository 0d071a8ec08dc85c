//! Pack + catalogue + CRM schema → [`Mapping`], or everything that is wrong, at once.

use super::RuleId;
use super::check::{self, Target};
use super::expr::convert::{Checked, Let, Place, Scope, Typed};
use super::expr::ir::Node;
use super::expr::narrow;
use super::expr::parse::Parsed;
use super::json::{Output, write_text};
use super::names::{Found, Name};
use super::pack::{Body, Field, Pack, Record, Removal};
use super::rule::{FieldBody, FieldProgram, Mapping, Part, Program, Rule};
use super::toml_reader::SpannedText;
use crate::crm::{CrmSchema, FieldKind, FieldSchema};
use crate::diagnostics::{Diagnostic, Diagnostics, did_you_mean, line_and_column};
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use tidemark_contract::{TableId, TableSchema};

/// Raised whenever the evaluator gives another result for the same pack and row.
const EVALUATOR: u32 = 1;

/// What a tenant decides about the meaning of a pack.
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    /// Zone of timestamps without one (`source.time_zone`).
    pub time_zone: Option<TimeZone>,
}

/// Checks a pack against the source's catalogue and (if it is at hand) the CRM's schema, and compiles it. The
/// diagnostics of a success are warnings.
pub fn compile(
    pack: &Pack,
    catalogue: &[Arc<TableSchema>],
    default_schema: &str,
    crm: Option<&CrmSchema>,
    options: &CompileOptions,
) -> Result<(Mapping, Diagnostics), Diagnostics> {
    let mut diagnostics = pack.diagnostics.clone();
    let mut rules = Vec::new();
    for record in &pack.records {
        let compiler = Compiler { pack, crm, options, catalogue, default_schema };
        let id = RuleId(u16::try_from(rules.len()).unwrap_or(u16::MAX));
        rules.extend(compiler.record(&mut diagnostics, record, id));
    }
    parents(pack, &mut diagnostics);
    keys(pack, &rules, &mut diagnostics);
    diagnostics.sort();
    if diagnostics.has_errors() { Err(diagnostics) } else { Ok((Mapping { rules }, diagnostics)) }
}

struct Compiler<'c> {
    pack: &'c Pack,
    crm: Option<&'c CrmSchema>,
    options: &'c CompileOptions,
    catalogue: &'c [Arc<TableSchema>],
    default_schema: &'c str,
}

impl<'c> Compiler<'c> {
    fn record(&self, diagnostics: &mut Diagnostics, record: &Record, id: RuleId) -> Option<Rule> {
        let schema = self.table(diagnostics, record)?;
        let mut scope = Scope {
            diagnostics,
            schema,
            alias: record.from.alias.clone().unwrap_or_else(|| record.from.table.name.clone()),
            other_aliases: &record.other_aliases,
            variables: &self.pack.variables,
            lookups: &self.pack.lookups,
            zone: self.options.time_zone.as_ref(),
            columns: Vec::new(),
            lets: Vec::new(),
            places: vec![(Place { file: record.file, span: record.span.clone() }, String::new())],
            not_null: Vec::new(),
            depth: 0,
            used: BTreeSet::new(),
        };
        let errors_before = scope.diagnostics.counts().0;
        let rule = self.rule(&mut scope, record, id);
        // A part may have been reported while the rest compiled.
        rule.ok().filter(|_| scope.diagnostics.counts().0 == errors_before)
    }

    fn table(&self, diagnostics: &mut Diagnostics, record: &Record) -> Option<&'c Arc<TableSchema>> {
        let tables: Vec<&TableId> = self.catalogue.iter().map(|t| &t.table).collect();
        let name = &record.from.table;
        let error = |code, message: String| Diagnostic::error(code, record.file, record.from_span.clone(), message);
        match name.find(&tables, self.default_schema) {
            Found::One(index) => self.catalogue.get(index),
            Found::Ambiguous => {
                diagnostics.push(
                    error("ambiguous_table", format!("`{name}` names several tables, which differ in case only"))
                        .help("write the one you mean in double quotes, exactly"),
                );
                None
            }
            Found::None => {
                let near = did_you_mean(&name.name.text, tables.iter().map(|t| &*t.name)).and_then(|near| {
                    let table = tables.iter().find(|t| &*t.name == near)?;
                    Some(format!("did you mean `{table}`?"))
                });
                let schema = name.schema.as_ref().map_or(self.default_schema, |s| &s.text);
                diagnostics.push(
                    error("unknown_table", format!("table `{name}` does not exist"))
                        .label(format!("looked for in `{schema}`"))
                        .maybe_help(near),
                );
                None
            }
        }
    }

    fn rule(&self, scope: &mut Scope<'_>, record: &Record, id: RuleId) -> Checked<Rule> {
        let key = self.key(scope, record);
        self.lets(scope, record);
        let condition = record.condition.as_ref().map(|text| self.condition(scope, text)).transpose();
        if let Ok(Some(part)) = &condition {
            scope.not_null = narrow::if_true(&part.node);
        }
        let external_id = self.external_id(scope, record);
        let target = match self.crm {
            Some(crm) => {
                let place = Place { file: record.file, span: record.entity_span.clone() };
                // Without the entity the fields are still worth checking against the source.
                check::entity(scope, crm, &record.entity, &place).ok()
            }
            None => None,
        };
        let mut references = Vec::new();
        let fields = self.fields(scope, &record.fields, target, &record.entity, &mut references);
        if let Some(target) = target {
            let mapped: Vec<&str> = record.fields.iter().map(|f| f.name.as_str()).collect();
            target.required(scope, &mapped, &Place { file: record.file, span: record.fields_span.clone() });
        }
        // An archived row may be outside the condition, or gone.
        scope.not_null.clear();
        let archive = self.fields(scope, &record.archive, target, &record.entity, &mut Vec::new());
        let (condition, external_id, fields, archive) = (condition?, external_id?, fields?, archive?);
        let external_id_from_key = self.deletes(scope, record, &key, &external_id, &archive);
        let lets: Box<[Node]> = scope
            .lets
            .iter()
            .map(|l| l.typed.as_ref().map_or(Node::Const(super::expr::ir::Const::Null), |t| t.node.clone()))
            .collect();
        let places = places(scope);
        let columns: Vec<_> = scope
            .columns
            .iter()
            .map(|index| {
                let column = &scope.schema.columns[*index];
                (column.name.clone(), column.logical)
            })
            .collect();
        let program =
            Program { lets, condition, external_id, fields, archive, places, zone: self.options.time_zone.clone() };
        Ok(Rule {
            id,
            name: record.name.as_str().into(),
            entity: record.entity.as_str().into(),
            table: scope.schema.table.clone(),
            on_delete: record.on_delete,
            on_leave: record.on_leave,
            fingerprint: self.fingerprint(scope, record, &program, &columns),
            external_id_from_key,
            references,
            columns,
            key: key.declared,
            fields: program.fields.iter().map(|f| f.name.clone()).collect(),
            relations: None,
            program: Arc::new(program),
        })
    }

    fn parse(&self, scope: &mut Scope<'_>, text: &SpannedText) -> Checked<Parsed> {
        Parsed::new(text.clone()).or_else(|e| {
            let span = text.place(e.range);
            scope.fail(
                Diagnostic::error("syntax", text.file, span, e.message)
                    .help("see docs/mapping.md for what expressions can say"),
            )
        })
    }

    fn expression(&self, scope: &mut Scope<'_>, text: &SpannedText) -> Checked {
        let parsed = self.parse(scope, text)?;
        scope.compile(&parsed)
    }

    fn part(&self, scope: &mut Scope<'_>, text: &SpannedText, typed: Typed) -> Part {
        let place = scope.mark(&Place { file: text.file, span: text.inner() }, &text.text);
        Part { node: typed.node, columns: typed.columns.into(), place }
    }

    fn lets(&self, scope: &mut Scope<'_>, record: &Record) {
        for (name, text) in &record.lets {
            let typed = self.expression(scope, text).ok();
            scope.lets.push(Let { name: name.clone(), typed });
        }
    }

    fn condition(&self, scope: &mut Scope<'_>, text: &SpannedText) -> Checked<Part> {
        let typed = self.expression(scope, text)?;
        let typed = scope.condition(typed)?;
        Ok(self.part(scope, text, typed))
    }

    fn external_id(&self, scope: &mut Scope<'_>, record: &Record) -> Checked<Part> {
        let text = &record.external_id;
        let typed = self.expression(scope, text)?;
        check::external_id(scope, "an external id", &typed)?;
        if let Some(why) = &typed.null {
            let mut diagnostic = Diagnostic::error(
                "nullable_external_id",
                why.place.file,
                why.place.span.clone(),
                "the external id can be null",
            )
            .label(why.text.clone())
            .help("use columns that are never null, coalesce(..., '...'), or where = \"... is not null\"");
            for through in &why.through {
                diagnostic = diagnostic.note(format!("by way of {through}"));
            }
            return scope.fail(diagnostic);
        }
        if typed.columns.is_empty() {
            let place = Place { file: text.file, span: text.inner() };
            return scope.fail(
                Diagnostic::error(
                    "constant_external_id",
                    place.file,
                    place.span,
                    "the external id is the same for every row",
                )
                .help("make it from the key: external_id = \"c.id\""),
            );
        }
        let typed = scope.shown(typed);
        Ok(self.part(scope, text, typed))
    }

    fn fields(
        &self,
        scope: &mut Scope<'_>,
        fields: &[Field],
        target: Option<Target<'_>>,
        path: &str,
        references: &mut Vec<(Box<str>, super::Missing)>,
    ) -> Checked<Box<[FieldProgram]>> {
        let compiled: Vec<_> = fields.iter().map(|f| self.field(scope, f, target, path, references)).collect();
        compiled.into_iter().collect()
    }

    fn field(
        &self,
        scope: &mut Scope<'_>,
        field: &Field,
        target: Option<Target<'_>>,
        path: &str,
        references: &mut Vec<(Box<str>, super::Missing)>,
    ) -> Checked<FieldProgram> {
        let place = Place { file: field.file, span: field.span.clone() };
        let schema = match target {
            Some(target) => target.field(scope, &field.name, &place),
            None => Ok(None),
        };
        let path = format!("{path}.{}", field.name);
        let (body, columns) = match &field.body {
            Body::Expr(text) => self.value(scope, text, &path, schema)?,
            Body::Object(inner) => self.object(scope, inner, target, (&path, schema, &place), references)?,
            Body::Ref { entity, entity_span, external_id, missing } => {
                let known = schema;
                let typed = self.expression(scope, external_id);
                if let (Some(target), Ok(field_schema)) = (target, &known) {
                    check::reference(scope, target, &path, *field_schema, (entity, entity_span), field.file)?;
                }
                let typed = typed?;
                check::external_id(scope, "the external id of a reference", &typed)?;
                if let Some(schema) = known? {
                    check::null(scope, &path, &typed, schema);
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
        let mut json_key = Vec::new();
        write_text(&mut json_key, &field.name);
        json_key.push(b':');
        let inner = path.split_once('.').map_or("", |(_, inner)| inner);
        Ok(FieldProgram {
            name: field.name.as_str().into(),
            path: inner.into(),
            json_key: json_key.into(),
            columns: columns.into(),
            body,
        })
    }

    fn value(
        &self,
        scope: &mut Scope<'_>,
        text: &SpannedText,
        path: &str,
        schema: Checked<Option<&FieldSchema>>,
    ) -> Checked<(FieldBody, Vec<u16>)> {
        let typed = self.expression(scope, text)?;
        let (typed, output) = match schema? {
            Some(schema) => check::value(scope, path, typed, schema)?,
            None => (typed, Output::ByType),
        };
        let columns = typed.columns.clone();
        let part = self.part(scope, text, typed);
        Ok((FieldBody::Value { part, output }, columns))
    }

    fn object(
        &self,
        scope: &mut Scope<'_>,
        inner: &[Field],
        target: Option<Target<'_>>,
        (path, schema, place): (&str, Checked<Option<&FieldSchema>>, &Place),
        references: &mut Vec<(Box<str>, super::Missing)>,
    ) -> Checked<(FieldBody, Vec<u16>)> {
        let inner_target = match (target, &schema) {
            (Some(target), Ok(Some(FieldSchema { kind: FieldKind::Object(entity), .. }))) => {
                Some(Target { crm: target.crm, name: path, schema: entity })
            }
            (Some(_), Ok(Some(FieldSchema { kind, .. }))) if *kind != FieldKind::Any => {
                let message = format!("`{path}` is no object in the CRM");
                return scope.error("field_type", place, message);
            }
            _ => None,
        };
        let fields = self.fields(scope, inner, inner_target, path, references)?;
        schema?;
        if let Some(target) = inner_target {
            let mapped: Vec<&str> = inner.iter().map(|f| f.name.as_str()).collect();
            target.required(scope, &mapped, place);
        }
        let mut columns: Vec<u16> = fields.iter().flat_map(|f| f.columns.iter().copied()).collect();
        columns.sort_unstable();
        columns.dedup();
        Ok((FieldBody::Object(fields), columns))
    }

    /// The declared key, with its columns found in the table.
    fn key(&self, scope: &mut Scope<'_>, record: &Record) -> Key {
        let schema = scope.schema;
        let Some(declared) = &record.key else { return Key { declared: None, columns: schema.key.clone() } };
        let mut columns = Vec::new();
        for (name, span) in declared {
            let names = schema.columns.iter().map(|c| &*c.name);
            match name.find(names.clone()) {
                Found::One(index) => columns.push(index),
                _ => {
                    let near = did_you_mean(&name.text, names).map(|n| format!("did you mean `{n}`?"));
                    let message = format!("column `{name}` does not exist in {}", schema.table);
                    scope
                        .diagnostics
                        .push(Diagnostic::error("unknown_column", record.file, span.clone(), message).maybe_help(near));
                }
            }
        }
        let names = columns.iter().map(|c| schema.columns[*c].name.clone()).collect();
        Key { declared: Some(names), columns }
    }

    /// Whether deletes tell the external id, with warnings where they do not.
    fn deletes(
        &self,
        scope: &mut Scope<'_>,
        record: &Record,
        key: &Key,
        external_id: &Part,
        archive: &[FieldProgram],
    ) -> bool {
        let in_key = |columns: &[u16]| {
            columns.iter().all(|c| scope.columns.get(usize::from(*c)).is_some_and(|index| key.columns.contains(index)))
        };
        let from_key = in_key(&external_id.columns);
        if key.columns.is_empty() || scope.schema.full_before_image {
            return from_key;
        }
        let quoted = |n: &str| Name { text: n.to_owned(), quoted: true };
        let table = &scope.schema.table;
        let fix = format!("ALTER TABLE {}.{} REPLICA IDENTITY FULL", quoted(&table.schema), quoted(&table.name));
        let key_names = key.columns.iter().map(|c| &*scope.schema.columns[*c].name).collect::<Vec<_>>().join(", ");
        if !from_key {
            let message = "the external id is made from columns outside the table's key";
            let text = &record.external_id;
            scope.diagnostics.push(
                Diagnostic::warning("external_id_not_from_key", text.file, text.inner(), message)
                    .label(format!("the key is {key_names}"))
                    .help(format!("make it from the key, or let the log carry whole old rows: {fix}"))
                    .note("the log of a delete carries the key only; the record is then found by what the ledger remembers"),
            );
        }
        if record.on_delete == Removal::Archive {
            for (program, field) in archive.iter().zip(&record.archive).filter(|(p, _)| !in_key(&p.columns)) {
                let message = format!("`{}` reads columns that the log of a delete does not carry", program.name);
                scope.diagnostics.push(
                    Diagnostic::warning("archive_not_from_key", field.file, field.span.clone(), message)
                        .label("left out when a row is deleted")
                        .help(format!("use constants and key columns, or let the log carry whole old rows: {fix}")),
                );
            }
        }
        from_key
    }

    /// Hash of everything that changes what the rule makes of a row.
    fn fingerprint(
        &self,
        scope: &Scope<'_>,
        record: &Record,
        program: &Program,
        columns: &[(Box<str>, tidemark_contract::LogicalType)],
    ) -> u64 {
        let mut text = format!("{EVALUATOR}\0{}\0{}\0", record.entity, scope.schema.table);
        let _ = write!(text, "{:?}\0{:?}\0", record.on_delete, record.on_leave);
        for (name, expression) in &record.lets {
            let _ = write!(text, "let {name}\0{}\0", expression.text);
        }
        let condition = record.condition.as_ref().map(|c| &c.text);
        let _ = write!(text, "{condition:?}\0{}\0{columns:?}\0", record.external_id.text);
        describe(&record.fields, &program.fields, &mut text);
        describe(&record.archive, &program.archive, &mut text);
        for variable in self.pack.variables.iter().filter(|v| scope.used.contains(&format!("var {}", v.name))) {
            // Constants print their value, unlike rows: a variable is part of the mapping.
            let _ = write!(text, "${}\0{:?}\0", variable.name, shown(&variable.value));
        }
        for lookup in self.pack.lookups.iter().filter(|l| scope.used.contains(&format!("lookup {}", l.name))) {
            let _ =
                write!(text, "{}\0{}\0{:?}\0{:?}\0", lookup.name, lookup.ignore_case, lookup.unknown, lookup.pairs());
        }
        // Timestamps without zone are written in the zone wherever they stand.
        if let Some(zone) = &self.options.time_zone {
            let _ = write!(text, "{:?}\0", zone.iana_name());
        }
        xxhash_rust::xxh3::xxh3_64(text.as_bytes())
    }
}

struct Key {
    /// Names, if the pack declares the key.
    declared: Option<Vec<Box<str>>>,
    /// Positions in the table's columns.
    columns: Vec<usize>,
}

fn shown(constant: &super::expr::ir::Const) -> String {
    match constant.val() {
        super::expr::value::Val::Null => String::new(),
        val => super::expr::cast::to_text(val).map(std::borrow::Cow::into_owned).unwrap_or_default(),
    }
}

fn describe(fields: &[Field], programs: &[FieldProgram], text: &mut String) {
    for (field, program) in fields.iter().zip(programs) {
        let _ = write!(text, "{}\0", field.name);
        match (&field.body, &program.body) {
            (Body::Expr(expression), FieldBody::Value { output, .. }) => {
                let _ = write!(text, "{}\0{output:?}\0", expression.text);
            }
            (Body::Object(inner), FieldBody::Object(programs)) => {
                text.push('{');
                describe(inner, programs, text);
                text.push('}');
            }
            (Body::Ref { entity, external_id, missing, .. }, _) => {
                let _ = write!(text, "ref {entity}\0{}\0{missing:?}\0", external_id.text);
            }
            _ => {}
        }
    }
}

/// Places as texts: `packs/northwind/mapping.toml:14:9: trim(c.name)`.
fn places(scope: &Scope<'_>) -> Box<[Box<str>]> {
    let text = |(place, expression): &(Place, String)| {
        let Some(file) = scope.diagnostics.files().get(place.file) else { return Box::from(expression.as_str()) };
        let (line, column) = line_and_column(&file.text, place.span.start);
        let colon = if expression.is_empty() { "" } else { ": " };
        format!("{}:{line}:{column}{colon}{expression}", file.path).into_boxed_str()
    };
    scope.places.iter().map(text).collect()
}

/// References to entities that no record of the pack makes.
fn parents(pack: &Pack, diagnostics: &mut Diagnostics) {
    fn walk(fields: &[Field], made: &[&str], diagnostics: &mut Diagnostics) {
        for field in fields {
            match &field.body {
                Body::Object(inner) => walk(inner, made, diagnostics),
                Body::Ref { entity, entity_span, .. } if !made.contains(&entity.as_str()) => {
                    let near = did_you_mean(entity, made.iter().copied()).map(|n| format!("did you mean `{n}`?"));
                    let message = format!("no record of this pack makes `{entity}`");
                    diagnostics.push(
                        Diagnostic::warning("parent_not_mapped", field.file, entity_span.clone(), message)
                            .label("such records must come from elsewhere")
                            .maybe_help(near),
                    );
                }
                _ => {}
            }
        }
    }
    let made = pack.entity_names();
    for record in &pack.records {
        walk(&record.fields, &made, diagnostics);
    }
}

/// Several rules may read one table, but a table has one key.
fn keys(pack: &Pack, rules: &[Rule], diagnostics: &mut Diagnostics) {
    for (n, rule) in rules.iter().enumerate() {
        let other = rules[..n]
            .iter()
            .find(|r| r.table == rule.table && r.key.is_some() && rule.key.is_some() && r.key != rule.key);
        let record = pack.records.iter().find(|r| *r.name == *rule.name);
        if let (Some(other), Some(record)) = (other, record) {
            let span =
                record.key.as_ref().and_then(|k| k.first()).map_or(record.span.clone(), |(_, span)| span.clone());
            let message = format!("record `{}` declares another key for {}", other.name, rule.table);
            diagnostics.push(Diagnostic::error("different_keys", record.file, span, message));
        }
    }
}
