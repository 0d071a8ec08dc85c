//! Which table feeds which entity, and with which fields.

use super::fields::{self, HIGH, LOW, quoted, whole_name};
use super::links::{Link, guess};
use super::render;
use super::words::{alike, words};
use super::{Entity, Findings, Proposal, Source};
use crate::crm::{CrmSchema, FieldKind, FieldSchema};
use crate::mapping::{CompileOptions, Pack, compile};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_contract::{LogicalType, TableSchema};

/// A record proposed.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RecordProposal {
    /// Name of the rule.
    pub rule: String,
    /// The entity it feeds.
    pub entity: String,
    /// `schema.name` of its table.
    pub table: String,
    /// Rows the source believes the table has.
    pub rows: Option<u64>,
    /// How surely the table is the entity: 0 to 1.
    pub confidence: f64,
    /// The external id's expression.
    pub external_id: String,
    /// What its table is called in the pack.
    #[serde(skip)]
    pub from: String,
    /// Its fields, the ones left to do included.
    pub fields: Vec<FieldProposal>,
    /// Fields of the CRM for which nothing was found.
    pub not_found: Vec<String>,
    /// Tables whose rows point here: what a list could be made of.
    pub pointed_to_by: Vec<String>,
    /// Why all of it is commented out, if it is.
    pub problem: Option<String>,
}

/// One field.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FieldProposal {
    /// The CRM's field.
    pub field: String,
    /// The right-hand side, as TOML.
    pub value: String,
    /// 0 to 1.
    pub confidence: f64,
    /// Why.
    pub reason: String,
    /// Whether it is commented out for somebody to look at.
    pub todo: bool,
}

/// Proposes records for what was found.
pub fn propose(sources: Vec<Source>, model: CrmSchema, default_schema: &str, options: &CompileOptions) -> Findings {
    let links = guess(&sources);
    let entities: Vec<Entity<'_>> =
        model.entities.iter().map(|(name, schema)| Entity { name, words: words(name), schema }).collect();
    let mut chosen: Vec<(usize, usize, f64)> = Vec::new();
    let mut unmapped = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        let table = source.schema.table.to_string();
        if let Some(problem) = &source.problem {
            unmapped.push((table, problem.clone()));
            continue;
        }
        let best =
            entities.iter().enumerate().map(|(n, e)| (n, likeness(source, e))).max_by(|a, b| a.1.total_cmp(&b.1));
        match best.filter(|(_, score)| *score >= 0.5) {
            Some((entity, score)) => chosen.push((at, entity, score)),
            None => unmapped.push((table, "no entity of the CRM is like it".into())),
        }
    }
    let feeding = |entity: usize| chosen.iter().filter(|(_, e, _)| *e == entity).count();
    let rules: HashMap<usize, (usize, Option<String>)> = chosen
        .iter()
        .map(|(at, entity, _)| {
            let prefix = (feeding(*entity) > 1).then(|| words(&sources[*at].schema.table.name).join("-"));
            (*at, (*entity, prefix))
        })
        .collect();
    let mut records = Vec::new();
    for (at, entity, score) in &chosen {
        let make = Make { sources: &sources, links: &links, rules: &rules, entities: &entities, at: *at };
        let mut record = make.record(*entity, *score, default_schema);
        settle(&mut record, &sources, &model, default_schema, options);
        records.push(record);
    }
    // Two tables of one name in two schemas.
    for n in 1..records.len() {
        if records[..n].iter().any(|r| r.rule == records[n].rule) {
            records[n].rule = words(&records[n].table).join("_");
        }
    }
    let order = parents_first(&records, &model);
    let records: Vec<RecordProposal> = order.into_iter().map(|n| records[n].clone()).collect();
    let fed = |name: &str| records.iter().any(|r| r.entity == name && r.problem.is_none());
    let unfed = model.entities.keys().filter(|name| !fed(name)).map(ToString::to_string).collect();
    Findings { records, unmapped, unfed, sources, model }
}

/// Parents before children, as far as references do not run in circles.
fn parents_first(records: &[RecordProposal], model: &CrmSchema) -> Vec<usize> {
    let refers = |from: &str, to: &str| {
        let schema = model.entities.get(from);
        schema.is_some_and(|s| s.fields.values().any(|f| matches!(&f.kind, FieldKind::Reference(e) if **e == *to)))
    };
    let mut out: Vec<usize> = Vec::new();
    while out.len() < records.len() {
        let left: Vec<usize> = (0..records.len()).filter(|n| !out.contains(n)).collect();
        let free = left.iter().find(|n| {
            let mine = &records[**n].entity;
            !left.iter().any(|m| records[*m].entity != *mine && refers(mine, &records[*m].entity))
        });
        match free.or(left.first()) {
            Some(n) => out.push(*n),
            None => break,
        }
    }
    out
}

/// How surely a table's rows are records of an entity.
fn likeness(source: &Source, entity: &Entity<'_>) -> f64 {
    let name = alike(&words(&source.schema.table.name), &entity.words);
    if name < 0.45 {
        return 0.0;
    }
    let writable = || entity.schema.fields.iter().filter(|(_, f)| !f.read_only);
    let found = |name: &str, field: &FieldSchema| {
        let both = [fields::propose(source, entity, name, field, &[]), whole_name(source, name, field)];
        both.into_iter().flatten().any(|proposal| proposal.confidence >= LOW)
    };
    let plain =
        |f: &FieldSchema| !matches!(f.kind, FieldKind::Object(_) | FieldKind::List(_) | FieldKind::Reference(_));
    let all = writable().filter(|(_, f)| plain(f)).count().max(1);
    let covered = writable().filter(|(name, f)| plain(f) && found(name, f)).count();
    let lacks = writable().filter(|(name, f)| f.required && plain(f) && !found(name, f)).count();
    // A table of people is one of an entity for people: a company has no first name.
    let people = if is_of_people(source, entity) { 0.15 } else { 0.0 };
    people + 0.65 * name + 0.35 * (covered as f64 / all.min(8) as f64).min(1.0)
        - if lacks > 0 && name < 0.9 { 0.3 } else { 0.0 }
}

/// Whether both have a first and a last name.
fn is_of_people(source: &Source, entity: &Entity<'_>) -> bool {
    [["first", "name"], ["last", "name"]].iter().all(|part| {
        source.schema.columns.iter().any(|c| words(&c.name) == *part)
            && entity.schema.fields.keys().any(|f| words(f) == *part)
    })
}

struct Make<'a> {
    sources: &'a [Source],
    links: &'a HashMap<usize, Vec<Link>>,
    /// By table: the entity, and the prefix of its external ids.
    rules: &'a HashMap<usize, (usize, Option<String>)>,
    entities: &'a [Entity<'a>],
    at: usize,
}

impl Make<'_> {
    fn record(&self, entity: usize, confidence: f64, default_schema: &str) -> RecordProposal {
        let (source, entity) = (&self.sources[self.at], &self.entities[entity]);
        let table = &source.schema.table;
        let mut proposals: Vec<(String, FieldProposal, Vec<usize>)> = Vec::new();
        let (mut not_found, mut wants_list) = (Vec::new(), false);
        for (name, field) in &entity.schema.fields {
            if field.read_only || &**name == "external_id" {
                continue;
            }
            wants_list |= matches!(field.kind, FieldKind::List(_));
            match self.field(entity, name, field) {
                Some((proposal, columns)) => proposals.push((name.to_string(), proposal, columns)),
                None => not_found.push(describe_missing(name, field)),
            }
        }
        // The best first: a column that is taken is not proposed for another plain field without being looked at.
        proposals.sort_by(|a, b| b.1.confidence.total_cmp(&a.1.confidence));
        let mut taken: HashMap<usize, String> = HashMap::new();
        for (name, proposal, columns) in &mut proposals {
            if let [only] = columns[..] {
                match taken.get(&only) {
                    Some(by) if proposal.confidence < 0.95 => {
                        proposal.todo = true;
                        proposal.reason.push_str(&format!("; the column is {by} already"));
                    }
                    Some(_) => {}
                    None if !proposal.todo => {
                        taken.insert(only, name.clone());
                    }
                    None => {}
                }
            }
        }
        let mut fields: Vec<FieldProposal> = proposals.into_iter().map(|(_, proposal, _)| proposal).collect();
        let place = |name: &str| entity.schema.fields.iter().position(|(n, f)| **n == *name && f.required).is_none();
        fields.sort_by_key(|f| (f.todo, place(&f.field), f.field.clone()));
        let pointed_to_by = match wants_list {
            true => self.pointing_here(),
            false => Vec::new(),
        };
        let own_name = quoted(&table.name);
        let from =
            if *table.schema == *default_schema { own_name } else { format!("{}.{own_name}", quoted(&table.schema)) };
        RecordProposal {
            rule: words(&table.name).join("_"),
            entity: entity.name.to_owned(),
            table: table.to_string(),
            rows: source.rows,
            confidence,
            external_id: self.external_id(self.at, None),
            from: format!("{from} as t"),
            fields,
            not_found,
            pointed_to_by,
            problem: None,
        }
    }

    fn pointing_here(&self) -> Vec<String> {
        let mut out = Vec::new();
        for (from, links) in self.links {
            for link in links.iter().filter(|link| link.to == self.at && *from != self.at) {
                let source = &self.sources[*from];
                out.push(format!("{} ({})", source.schema.table, source.schema.columns[link.column].name));
            }
        }
        out.sort();
        out
    }

    /// The external id of a table's records; by way of `pointer`, a column of another table that holds its key.
    fn external_id(&self, of: usize, pointer: Option<(&TableSchema, usize)>) -> String {
        let schema = &self.sources[of].schema;
        let prefix = self.rules.get(&of).and_then(|(_, prefix)| prefix.as_ref());
        let part = |schema: &TableSchema, at: usize| {
            let column = &schema.columns[at];
            let name = format!("t.{}", quoted(&column.name));
            match column.logical {
                LogicalType::Text => format!("trim({name})"),
                LogicalType::Uuid => name,
                _ if prefix.is_some() => name,
                _ => format!("cast({name} as text)"),
            }
        };
        let parts: Vec<String> = match pointer {
            Some((schema, at)) => vec![part(schema, at)],
            None => schema.key.iter().map(|at| part(schema, *at)).collect(),
        };
        let id = parts.join(" || '-' || ");
        match prefix {
            Some(prefix) => format!("'{prefix}-' || {id}"),
            None => id,
        }
    }

    fn field(&self, entity: &Entity<'_>, name: &str, field: &FieldSchema) -> Option<(FieldProposal, Vec<usize>)> {
        let source = &self.sources[self.at];
        match &field.kind {
            FieldKind::Reference(to) => self.reference(entity, name, to),
            FieldKind::Object(inner) => {
                let own = words(name);
                let context: Vec<String> = own.iter().filter(|w| *w != "address" && *w != "street").cloned().collect();
                let mut parts: Vec<(String, Proposal)> = Vec::new();
                for (part, schema) in inner.fields.iter().filter(|(_, f)| !f.read_only) {
                    if let Some(found) = fields::propose(source, entity, part, schema, &context)
                        && found.confidence >= LOW
                        && !parts.iter().any(|(_, p)| p.columns == found.columns)
                        && !(context.is_empty() && **part == *"name")
                    {
                        parts.push((part.to_string(), found));
                    }
                }
                if parts.len() < 2 {
                    return None;
                }
                let confidence = parts.iter().map(|(_, p)| p.confidence).sum::<f64>() / parts.len() as f64;
                let inside: Vec<String> =
                    parts.iter().map(|(name, p)| format!("{name} = {}", render::toml(&p.expression))).collect();
                let columns: Vec<&str> =
                    parts.iter().map(|(_, p)| &*source.schema.columns[p.columns[0]].name).collect();
                let proposal = FieldProposal {
                    field: name.into(),
                    value: format!("{{ object = {{ {} }} }}", inside.join(", ")),
                    confidence,
                    reason: format!("its parts: {}", columns.join(", ")),
                    todo: confidence < LOW,
                };
                Some((proposal, parts.into_iter().flat_map(|(_, p)| p.columns).collect()))
            }
            FieldKind::List(_) => None,
            FieldKind::Text { options, .. } if !options.is_empty() => {
                let table = words(&source.schema.table.name);
                let own = options.iter().find(|option| words(option) == table)?;
                let proposal = FieldProposal {
                    field: name.into(),
                    value: render::toml(&format!("'{own}'")),
                    confidence: 0.75,
                    reason: format!("the table's name is one of its options ({})", options.join(", ")),
                    todo: false,
                };
                Some((proposal, Vec::new()))
            }
            _ => {
                let found = fields::propose(source, entity, name, field, &[]);
                let whole = whole_name(source, name, field);
                let mut best =
                    [found, whole].into_iter().flatten().max_by(|a, b| a.confidence.total_cmp(&b.confidence))?;
                if field.required && !field.nullable && best.nullable {
                    let nothing = if matches!(field.kind, FieldKind::Text { .. }) { "''" } else { "0" };
                    best.expression = format!("coalesce({}, {nothing})", best.expression);
                    best.reason.push_str("; it allows null and the CRM does not: TODO decide what such rows become");
                }
                let proposal = FieldProposal {
                    field: name.into(),
                    value: render::toml(&best.expression),
                    confidence: best.confidence,
                    reason: best.reason,
                    todo: best.confidence < LOW,
                };
                Some((proposal, best.columns))
            }
        }
    }

    fn reference(&self, entity: &Entity<'_>, name: &str, to: &str) -> Option<(FieldProposal, Vec<usize>)> {
        let source = &self.sources[self.at];
        let leads_to = |link: &&Link| self.rules.get(&link.to).is_some_and(|(e, _)| self.entities[*e].name == to);
        let candidates: Vec<&Link> = self.links.get(&self.at)?.iter().filter(leads_to).collect();
        let same = entity.schema.fields.values();
        let is_only_field = same.filter(|f| matches!(&f.kind, FieldKind::Reference(e) if **e == *to)).count() == 1;
        let wanted = words(name);
        let score = |link: &Link| {
            let said: Vec<String> =
                words(&source.schema.columns[link.column].name).into_iter().filter(|w| w != "id").collect();
            let by_name = alike(&said, &wanted);
            let only = candidates.len() == 1 && is_only_field && link.to != self.at;
            if by_name >= 0.5 || only { link.confidence * by_name.max(if only { 0.85 } else { 0.0 }) } else { 0.0 }
        };
        let best = candidates.iter().copied().max_by(|a, b| score(a).total_cmp(&score(b)))?;
        let confidence = score(best).min(1.0);
        if confidence < 0.4 {
            return None;
        }
        let column = &source.schema.columns[best.column];
        let id = self.external_id(best.to, Some((&source.schema, best.column)));
        let proposal = FieldProposal {
            field: name.into(),
            value: format!("{{ ref = \"{to}\", external_id = {}, missing = \"wait\" }}", render::toml(&id)),
            confidence,
            reason: format!(
                "guessed that {} points to {}: {}",
                column.name, self.sources[best.to].schema.table, best.reason
            ),
            todo: confidence < 0.5,
        };
        Some((proposal, vec![best.column]))
    }
}

fn describe_missing(name: &str, field: &FieldSchema) -> String {
    let required = if field.required { "required; " } else { "" };
    match &field.kind {
        FieldKind::Text { options, .. } if !options.is_empty() => {
            format!("{name} ({required}one of {})", options.join(", "))
        }
        FieldKind::Reference(to) => format!("{name} ({required}a reference to {to})"),
        FieldKind::List(_) => format!("{name} ({required}a list)"),
        _ if field.required => format!("{name} (required)"),
        _ => name.to_owned(),
    }
}

/// Compiles the record against both schemas: a field that does not fit is set aside with the reason; so is the record, if
/// that does not help.
fn settle(record: &mut RecordProposal, sources: &[Source], model: &CrmSchema, schema: &str, options: &CompileOptions) {
    let catalogue: Vec<Arc<TableSchema>> = sources.iter().map(|s| s.schema.clone()).collect();
    let wrong = |record: &RecordProposal, but: &str| -> Option<String> {
        let text = render::minimal(record);
        let diagnostics = match Pack::parse("proposal", &text, None, None) {
            Err(wrong) => wrong,
            Ok(pack) => compile(&pack, &catalogue, schema, Some(model), options).err()?,
        };
        let items = diagnostics.items().iter().filter(|d| d.severity == crate::diagnostics::Severity::Error);
        items.filter(|d| d.code != but).map(|d| d.message.clone()).next()
    };
    if wrong(record, "").is_none() {
        return;
    }
    for at in 0..record.fields.len() {
        if record.fields[at].todo {
            continue;
        }
        let alone = RecordProposal { fields: vec![record.fields[at].clone()], ..record.clone() };
        if let Some(why) = wrong(&alone, "missing_field") {
            record.fields[at].todo = true;
            record.fields[at].reason.push_str(&format!("; does not fit: {why}"));
        }
    }
    record.problem = wrong(record, "");
}

/// What is between high and low, for headings.
pub(super) fn is_high(confidence: f64) -> bool {
    confidence >= HIGH
}
