//! Pack + catalogue + CRM schema → [`Mapping`], or everything that is wrong, at once.

mod children;
mod deletes;
mod fields;
mod fingerprint;
mod joins;
mod relations;

use super::RuleId;
use super::check;
use super::expr::convert::{Checked, Place, Reported, Scope, ScopeTable};
use super::expr::narrow;
use super::names::{Found, Name, TableName};
use super::pack::{Body, Field, Pack, Record};
use super::related::{RelatedProgram, Relations};
use super::rule::{Mapping, Part, Program, Rule};
use crate::crm::CrmSchema;
use crate::diagnostics::{Diagnostic, Diagnostics, did_you_mean, line_and_column};
use fields::{Destination, References, let_nodes};
use jiff::tz::TimeZone;
use joins::Around;
use relations::Columns;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use tidemark_contract::{TableId, TableSchema};

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
    deletes::keys(pack, &rules, &mut diagnostics);
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

/// A table's row key.
#[derive(Clone)]
struct Key {
    /// Names, if the pack declares the key.
    declared: Option<Vec<Box<str>>>,
    /// Positions in the table's columns.
    columns: Vec<usize>,
}

impl<'c> Compiler<'c> {
    fn record(&self, diagnostics: &mut Diagnostics, record: &Record, id: RuleId) -> Option<Rule> {
        let errors_before = diagnostics.counts().0;
        let schema = self.table(diagnostics, record.file, &record.from_span, &record.from.table)?;
        let alias = record.from.alias.clone().unwrap_or_else(|| record.from.table.name.clone());
        let (joins, broken) = self.joins(diagnostics, (&alias, schema), &record.joins);
        let mut tables = vec![ScopeTable { alias: alias.clone(), schema, optional: false }];
        tables.extend(joins.iter().map(|j| ScopeTable { alias: j.alias.clone(), schema: j.schema, optional: true }));
        let mut scope = self.scope(diagnostics, tables, broken.clone());
        scope.places.push((Place { file: record.file, span: record.span.clone() }, String::new()));
        let around = Around { root: (&alias, schema), joins: &joins, broken: &broken };
        let rule = self.rule(&mut scope, record, id, &around);
        // A part may have been reported while the rest compiled.
        rule.ok().filter(|_| scope.diagnostics.counts().0 == errors_before)
    }

    /// A scope in which nothing was used yet.
    fn scope<'s>(
        &'s self,
        diagnostics: &'s mut Diagnostics,
        tables: Vec<ScopeTable<'s>>,
        broken_aliases: Vec<String>,
    ) -> Scope<'s> {
        Scope {
            diagnostics,
            tables,
            broken_aliases,
            outer_aliases: Vec::new(),
            lists: Vec::new(),
            aggregates: Vec::new(),
            own_row_only: None,
            variables: &self.pack.variables,
            lookups: &self.pack.lookups,
            zone: self.options.time_zone.as_ref(),
            columns: Vec::new(),
            lets: Vec::new(),
            places: Vec::new(),
            not_null: Vec::new(),
            depth: 0,
            used: BTreeSet::new(),
        }
    }

    fn table(
        &self,
        diagnostics: &mut Diagnostics,
        file: usize,
        span: &Range<usize>,
        name: &TableName,
    ) -> Option<&'c Arc<TableSchema>> {
        let tables: Vec<&TableId> = self.catalogue.iter().map(|t| &t.table).collect();
        let error = |code, message: String| Diagnostic::error(code, file, span.clone(), message);
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

    fn rule(&self, scope: &mut Scope<'_>, record: &Record, id: RuleId, around: &Around<'_, 'c>) -> Checked<Rule> {
        let schema = around.root.1;
        let key = self.key(scope.diagnostics, schema, record.file, record.key.as_deref());
        let target = self.crm.and_then(|crm| {
            let place = Place { file: record.file, span: record.entity_span.clone() };
            // Without the entity the fields are still worth checking against the source.
            check::entity(scope, crm, &record.entity, &place).ok()
        });
        let mut lists = Vec::new();
        for def in &record.children {
            match self.child(scope, record, def, around, target) {
                Ok(list) => lists.push(list),
                Err(Reported) => scope.broken_aliases.extend([def.name.clone(), def.alias.text.clone()]),
            }
        }
        let all_lists = lists.len() == record.children.len();
        scope.lists = lists.iter().map(|l| l.list.clone()).collect();
        self.lets(scope, &record.lets);
        scope.own_row_only = Some("`where`");
        let condition = record.condition.as_ref().map(|text| self.condition(scope, text)).transpose();
        if let Ok(Some(part)) = &condition {
            scope.not_null = narrow::if_true(&part.node);
        }
        scope.own_row_only = Some("`external_id`");
        let external_id = self.external_id(scope, record);
        scope.own_row_only = None;
        let mut references = References::new();
        for reference in lists.iter().flat_map(|l| &l.references) {
            if !references.contains(reference) {
                references.push(reference.clone());
            }
        }
        let to = Destination { target, shown: record.entity.clone(), path: String::new() };
        let fields = self.fields(scope, &record.fields, &to, &mut references);
        let sent = record.children.iter().filter(|c| c.emit).map(|c| c.name.as_str());
        let mapped: Vec<&str> = record.fields.iter().map(|f| f.name.as_str()).chain(sent).collect();
        if let Some(target) = target {
            target.required(scope, &mapped, &Place { file: record.file, span: record.fields_span.clone() });
        }
        // An archived row may be outside the condition, or gone.
        scope.not_null.clear();
        scope.own_row_only = Some("`archive`");
        let archive = self.fields(scope, &record.archive, &to, &mut Vec::new());
        scope.own_row_only = None;
        let (condition, external_id, fields, archive) = (condition?, external_id?, fields?, archive?);
        if !all_lists || !scope.broken_aliases.is_empty() {
            return Err(Reported);
        }
        let external_id_from_key = self.deletes(scope, record, &key, &external_id, &archive);
        let mut own = Columns::new(schema);
        let relations = self.relations(scope, record, around, lists, &mut own);
        let places = places(scope);
        let zone = self.options.time_zone.clone();
        let program = Program { lets: let_nodes(scope), condition, external_id, fields, archive, places, zone };
        let columns = own.named();
        Ok(Rule {
            id,
            name: record.name.as_str().into(),
            entity: record.entity.as_str().into(),
            table: schema.table.clone(),
            on_delete: record.on_delete,
            on_leave: record.on_leave,
            fingerprint: self.fingerprint(scope, record, &program, &columns, relations.as_deref()),
            external_id_from_key,
            references,
            columns,
            key: key.declared,
            fields: mapped.into_iter().map(Into::into).collect(),
            relations,
            program: Arc::new(program),
        })
    }

    /// Joins and lists with what is read for them; `None` if there are none. `own` collects what is read of the record's
    /// own table.
    fn relations(
        &self,
        scope: &Scope<'_>,
        record: &Record,
        around: &Around<'_, 'c>,
        lists: Vec<children::Compiled<'c>>,
        own: &mut Columns<'_>,
    ) -> Option<Arc<Relations>> {
        let mut others: Vec<Columns<'_>> = around.joins.iter().map(|j| Columns::new(j.schema)).collect();
        let sources = relations::sources(&scope.columns, own, &mut others);
        if record.joins.is_empty() && record.children.is_empty() {
            return None;
        }
        let mut left = relations::add_links(around.joins, own, &mut others);
        for list in &lists {
            left.extend(relations::add_left(&list.linked, own, &mut others));
        }
        left.sort_unstable();
        left.dedup();
        let joins = relations::public(around.joins, others, around.root.1);
        let (children, programs): (Vec<_>, Vec<_>) = lists.into_iter().map(|list| list.public(around)).unzip();
        let aggregates = scope.aggregates.iter().map(|(aggregate, _)| aggregate.clone()).collect();
        let program = RelatedProgram { sources, left: left.into(), children: programs.into(), aggregates };
        Some(Arc::new(Relations { joins, children, program: Arc::new(program) }))
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
}

/// The statement that makes PostgreSQL log whole old rows; other vendors do so by themselves.
fn replica_identity(table: &TableId) -> String {
    let quoted = |n: &str| Name { text: n.to_owned(), quoted: true };
    format!("ALTER TABLE {}.{} REPLICA IDENTITY FULL", quoted(&table.schema), quoted(&table.name))
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
        for list in &record.children {
            walk(list.item.fields(), &made, diagnostics);
        }
    }
}
