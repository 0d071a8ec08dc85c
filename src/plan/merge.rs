//! One entity: what the source makes, what the ledger knows and what the CRM holds, side by side.

use super::known::{Accepted, KnownRecords};
use super::{EntityPlan, FieldChange, Kind, Memory, Options, Sample};
use crate::crm::StoredRecord;
use crate::document;
use crate::error::Result;
use crate::exact::{Fields, Json};
use crate::mapping::{Removal, Rule};
use crate::verify::compare::changes;
use crate::verify::expected::{Expected, Source, What, WithoutId};
use crate::verify::{Listing, Progress, Side, fields_of};
use std::collections::{BTreeMap, BTreeSet};

/// What a record's envelope adds to its document, about.
const ENVELOPE: usize = 60;

/// What merging needs.
pub(super) struct Merge<'a> {
    pub side: &'a Side<'a>,
    pub options: &'a Options,
    pub memory: &'a Memory,
    pub read_again: &'a BTreeSet<String>,
    /// Records whose rows are gone, by table.
    pub gone_by_table: &'a mut BTreeMap<String, u64>,
    pub progress: &'a dyn Progress,
}

/// Counts the requests that records are put into.
#[derive(Default)]
struct Requests {
    full: u64,
    records: usize,
    bytes: usize,
}

impl Requests {
    fn add(&mut self, bytes: usize, options: &Options) {
        let is_full = self.records >= options.batch_records.max(1) || self.bytes + bytes > options.batch_bytes;
        if is_full && self.records > 0 {
            self.full += 1;
            (self.records, self.bytes) = (0, 0);
        }
        self.records += 1;
        self.bytes += bytes;
    }

    fn count(&self) -> u64 {
        self.full + u64::from(self.records > 0)
    }
}

/// Everything that is known of one record.
struct Whole<'r> {
    id: &'r str,
    rows: Vec<Expected>,
    known: Vec<Accepted>,
    record: Option<StoredRecord>,
}

impl Merge<'_> {
    /// Goes through the entity.
    pub(super) async fn run(mut self, entity: &str, mut source: Source, mut known: KnownRecords) -> Result<EntityPlan> {
        let mut plan = EntityPlan { entity: entity.into(), ..EntityPlan::default() };
        if let Some(WithoutId { rows, rule, code, about }) = source.without_id.take() {
            plan.reject = rows;
            let reason = Some(format!("{code}: {about}"));
            let rule = Some(rule.into());
            let sample = Sample { kind: Kind::Reject, external_id: None, rule, reason, fields: Vec::new() };
            self.sample(&mut plan, sample);
        }
        let (mut upserts, mut deletes) = (Requests::default(), Requests::default());
        let mut listing = Listing::new(self.side.crm, entity);
        let mut found = if self.options.ask_crm { listing.next().await? } else { None };
        let mut seen = 0u64;
        loop {
            let ids = [source.records.peek(), known.peek(), found.as_ref().map(|record| &*record.external_id)];
            let Some(id) = ids.into_iter().flatten().min_by_key(|id| id.as_bytes()).map(Box::<str>::from) else {
                break;
            };
            let rows =
                if source.records.peek() == Some(&*id) { source.records.pop()?.map(|(_, rows)| rows) } else { None };
            let entries = if known.peek() == Some(&*id) { known.pop()? } else { Vec::new() };
            let record = found.take_if(|record| record.external_id == id);
            if record.is_some() {
                found = listing.next().await?;
            }
            let whole = Whole { id: &id, rows: rows.unwrap_or_default(), known: entries, record };
            self.judge(&mut plan, whole, &mut upserts, &mut deletes)?;
            seen += 1;
            if seen.is_multiple_of(500) {
                self.progress.comparing(entity, seen);
            }
        }
        self.progress.comparing(entity, seen);
        (plan.upsert_requests, plan.delete_requests) = (upserts.count(), deletes.count());
        Ok(plan)
    }

    fn judge(
        &mut self,
        plan: &mut EntityPlan,
        whole: Whole<'_>,
        upserts: &mut Requests,
        deletes: &mut Requests,
    ) -> Result<()> {
        let rule_of = |number: u16| self.side.mapping.rules.get(usize::from(number));
        let mut fields = Fields::new();
        let (mut send, mut is_set_aside, mut unmappable) = (Vec::new(), false, None);
        let mut documents = 0;
        for row in &whole.rows {
            match &row.what {
                What::Outside => {}
                What::Unmappable { code, about } => unmappable = Some((row.rule, format!("{code}: {about}"))),
                What::Document { json, .. } => {
                    documents += 1;
                    let hash = document::hash(json);
                    if !whole.known.iter().any(|known| known.rule == row.rule && known.hash == hash) {
                        let is_aside = rule_of(row.rule).is_some_and(|rule| self.is_set_aside(rule, whole.id));
                        is_set_aside |= is_aside;
                        if !is_aside {
                            send.push((row.rule, json.len()));
                        }
                    }
                    fields.extend(fields_of(json)?);
                }
            }
        }
        if let Some((rule, reason)) = unmappable {
            plan.reject += 1;
            let rule = rule_of(rule).map(|rule| rule.name.to_string());
            let external_id = Some(whole.id.to_owned());
            let sample = Sample { kind: Kind::Reject, external_id, rule, reason: Some(reason), fields: Vec::new() };
            self.sample(plan, sample);
        }
        plan.records += u64::from(documents > 0);
        for (_, bytes) in &send {
            upserts.add(bytes + whole.id.len() + ENVELOPE, self.options);
            plan.bytes += *bytes as u64;
        }
        if documents > 0 {
            self.count_document(plan, &whole, &fields, send.first().map(|(rule, _)| *rule), is_set_aside);
        }
        self.count_removals(plan, &whole, upserts, deletes);
        if whole.rows.is_empty() && whole.known.is_empty() {
            plan.foreign += 1;
        }
        Ok(())
    }

    /// A record that rows make: sent by `rule`, or left as it is.
    fn count_document(
        &self,
        plan: &mut EntityPlan,
        whole: &Whole<'_>,
        fields: &Fields,
        rule: Option<u16>,
        is_set_aside: bool,
    ) {
        let empty = Fields::new();
        let held = whole.record.as_ref().map(|record| &record.fields);
        let is_new = if self.options.ask_crm { held.is_none() } else { whole.known.is_empty() };
        let differences = changes(fields, held.unwrap_or(&empty));
        let kind = match rule {
            _ if rule.is_none() && is_set_aside => {
                plan.set_aside += 1;
                return;
            }
            Some(_) if is_new => {
                plan.create += 1;
                Kind::Create
            }
            Some(_) if self.options.ask_crm && differences.is_empty() => {
                plan.unchanged += 1;
                return;
            }
            Some(_) => {
                plan.update += 1;
                Kind::Update
            }
            None if self.options.ask_crm && (held.is_none() || !differences.is_empty()) => {
                plan.drifted += 1;
                Kind::Drifted
            }
            None => {
                plan.in_place += 1;
                return;
            }
        };
        let show = |value: &Json| self.options.show_values.then(|| value.clone());
        let fields = differences
            .into_iter()
            .map(|change| FieldChange {
                from: if self.options.ask_crm { show(change.found) } else { None },
                to: show(change.expected),
                field: change.field,
            })
            .collect();
        let rule = rule.or_else(|| whole.rows.first().map(|row| row.rule));
        let rule = rule.and_then(|rule| self.side.mapping.rules.get(usize::from(rule)));
        let reason = (kind == Kind::Drifted && held.is_none()).then(|| "the CRM has lost it".to_owned());
        let sample = Sample {
            kind,
            external_id: Some(whole.id.into()),
            rule: rule.map(|rule| rule.name.to_string()),
            reason,
            fields,
        };
        self.sample(plan, sample);
    }

    /// Records that were accepted and that no row makes any more.
    fn count_removals(
        &mut self,
        plan: &mut EntityPlan,
        whole: &Whole<'_>,
        upserts: &mut Requests,
        deletes: &mut Requests,
    ) {
        for known in &whole.known {
            let row = whole.rows.iter().find(|row| row.rule == known.rule);
            let is_outside = match row.map(|row| &row.what) {
                Some(What::Document { .. } | What::Unmappable { .. }) => continue,
                Some(What::Outside) => true,
                None => false,
            };
            let Some(rule) = self.side.mapping.rules.get(usize::from(known.rule)) else { continue };
            if self.is_set_aside(rule, whole.id) {
                plan.set_aside += 1;
                continue;
            }
            let (action, reason) = match is_outside {
                true => (rule.on_leave, "its row is outside the rule's `where`"),
                false => (rule.on_delete, "its row is gone"),
            };
            if !is_outside {
                *self.gone_by_table.entry(rule.table.to_string()).or_default() += 1;
            }
            let kind = match action {
                Removal::Ignore => {
                    plan.left_in_place += 1;
                    continue;
                }
                Removal::Delete => {
                    plan.delete += 1;
                    deletes.add(whole.id.len() + ENVELOPE, self.options);
                    Kind::Delete
                }
                Removal::Archive => {
                    plan.archive += 1;
                    upserts.add(whole.id.len() + ENVELOPE, self.options);
                    Kind::Archive
                }
            };
            let sample = Sample {
                kind,
                external_id: Some(whole.id.into()),
                rule: Some(rule.name.to_string()),
                reason: Some(reason.into()),
                fields: Vec::new(),
            };
            self.sample(plan, sample);
        }
    }

    /// Whether the record is a dead letter that nothing but a retry or a change of its row would try again.
    fn is_set_aside(&self, rule: &Rule, id: &str) -> bool {
        !self.read_again.contains(&rule.table.to_string())
            && self.memory.set_aside.contains(&(rule.name.to_string(), id.to_owned()))
    }

    fn sample(&self, plan: &mut EntityPlan, sample: Sample) {
        if plan.samples.iter().filter(|s| s.kind == sample.kind).count() < self.options.samples {
            plan.samples.push(sample);
        }
    }
}
