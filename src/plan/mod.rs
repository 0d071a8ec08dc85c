//! What would be sent now, and nothing of it sent: the source read whole and mapped, held against what the CRM last
//! accepted (the ledger) and against what it holds.
//!
//! The daemon decides by the ledger alone: a record whose document is the one that was accepted last costs no request.
//! The plan decides the same way, and asks the CRM only to tell what a request would do there: make a record, change
//! these fields of it, or nothing. What somebody changed in the CRM is therefore told apart (`drifted`): no request would
//! mend it, `verify --repair` would.
//!
//! Both sides are sorted on disk by external id and merged, so that memory stays bounded (P7).

mod known;
mod merge;

pub use known::{Accepted, Known, Spool};

use crate::config::SweepGuard;
use crate::error::Result;
use crate::exact::Json;
use crate::mapping::Mapping;
use crate::store::Checkpoint;
use crate::verify::{Progress, Side, entities, expected};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::time::Instant;

/// What to plan, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only these entities; empty is all.
    pub entities: Vec<String>,
    /// Records of each kind and entity to describe.
    pub samples: usize,
    /// Whether samples show field values.
    pub show_values: bool,
    /// Whether to read the CRM's records; without them a known record counts as changed, an unknown one as new.
    pub ask_crm: bool,
    /// Records of one request.
    pub batch_records: usize,
    /// Bytes of one request.
    pub batch_bytes: usize,
    /// Above what a sweep is held back.
    pub guard: SweepGuard,
    /// Where temporary files go. They have no names and are gone with the process.
    pub dir: PathBuf,
    /// About how many bytes to hold in memory.
    pub memory: usize,
}

/// What the tenant remembers, besides the ledger.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The checkpoint; none before the first start.
    pub checkpoint: Option<Checkpoint>,
    /// Records that were set aside: rule and external id.
    pub set_aside: HashSet<(String, String)>,
}

/// What would be sent. Version 1 of the JSON form.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Version of the JSON form.
    pub schema: u32,
    /// Whether the tenant has never run: everything is read and sent.
    pub first_start: bool,
    /// Rules that are not what they were when the daemon last started.
    pub rules: Vec<RuleChange>,
    /// Tables that the next start reads again because of them.
    pub tables_read_again: Vec<String>,
    /// Tables whose rows seem gone in such number that the sweep would be held back.
    pub held_back: Vec<HeldBack>,
    /// Records that rules which the mapping no longer has have left in the CRM, by rule.
    pub orphaned: BTreeMap<String, u64>,
    /// Requests that all of it would take.
    pub requests: u64,
    /// By entity.
    pub entities: Vec<EntityPlan>,
    /// How long it took.
    pub seconds: f64,
}

/// A rule that changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RuleChange {
    /// Its name.
    pub rule: String,
    /// The table it reads, or read.
    pub table: String,
    /// How.
    pub change: Changed,
}

/// How a rule changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Changed {
    /// It is new.
    New,
    /// It makes something else of its rows.
    Edited,
    /// The mapping no longer has it.
    Gone,
}

/// A table whose sweep would be held back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct HeldBack {
    /// `schema.name`.
    pub table: String,
    /// Records whose rows are gone.
    pub deletes: u64,
    /// Records that are known to be in the CRM.
    pub of: u64,
}

/// One entity.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct EntityPlan {
    /// Its name.
    pub entity: String,
    /// Records that the source makes.
    pub records: u64,
    /// Records that would be new in the CRM.
    pub create: u64,
    /// Records that would change in the CRM.
    pub update: u64,
    /// Records that would be sent although the CRM holds them as they are: the ledger does not know that it does.
    pub unchanged: u64,
    /// Records that would be deleted.
    pub delete: u64,
    /// Records that would be archived.
    pub archive: u64,
    /// Rows that cannot be mapped: they would be set aside.
    pub reject: u64,
    /// Records that differ and are set aside already: not sent until they are retried or their rows change.
    pub set_aside: u64,
    /// Records that are as they should be: nothing would be sent.
    pub in_place: u64,
    /// Records that the CRM accepted and does not hold so any more: nothing would be sent, `verify --repair` mends them.
    pub drifted: u64,
    /// Records of the CRM that are not ours: left alone.
    pub foreign: u64,
    /// Records whose rows are gone and which the mapping leaves in place.
    pub left_in_place: u64,
    /// Upsert requests.
    pub upsert_requests: u64,
    /// Delete requests.
    pub delete_requests: u64,
    /// Bytes of documents to send.
    pub bytes: u64,
    /// Some of the records.
    pub samples: Vec<Sample>,
}

impl EntityPlan {
    /// Records that would be sent.
    pub fn sent(&self) -> u64 {
        self.create + self.update + self.unchanged + self.delete + self.archive
    }
}

/// What would happen to a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Kind {
    Create,
    Update,
    Delete,
    Archive,
    Reject,
    Drifted,
}

/// One record.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Sample {
    /// What would happen to it.
    pub kind: Kind,
    /// Its external id, if it could be computed.
    pub external_id: Option<String>,
    /// The rule.
    pub rule: Option<String>,
    /// Why, in words without values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The fields that would change.
    pub fields: Vec<FieldChange>,
}

/// One field of a [`Sample`].
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FieldChange {
    /// Its name, with dots for parts of objects.
    pub field: String,
    /// What the CRM holds, if it was asked and values are to be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Json>,
    /// What it would hold, if values are to be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Json>,
}

/// Plans. Reads both sides and `known`; writes nothing.
///
/// # Errors
/// If a side cannot be read, or the CRM does not list its records as the contract says.
pub async fn plan(
    side: &Side<'_>,
    mut known: Known,
    memory: &Memory,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Report> {
    let begun = Instant::now();
    let chosen = entities(side.mapping, &options.entities)?;
    let (rules, tables_read_again) = changed_rules(side.mapping, memory.checkpoint.as_ref());
    let mut sources = expected::read(side, &chosen, &options.dir, options.memory, true, progress).await?;
    let mut gone_by_table: BTreeMap<String, u64> = BTreeMap::new();
    let mut plans = Vec::new();
    for entity in &chosen {
        let (Some(source), Some(known)) = (sources.remove(entity), known.entities.remove(entity)) else { continue };
        let merge = merge::Merge {
            side,
            options,
            memory,
            read_again: &tables_read_again,
            gone_by_table: &mut gone_by_table,
            progress,
        };
        plans.push(merge.run(entity, source, known).await?);
    }
    let total_of = |table: &str| -> u64 {
        let of_table = side.mapping.rules.iter().zip(&known.totals).filter(|(rule, _)| rule.table.to_string() == table);
        of_table.map(|(_, total)| total).sum()
    };
    let held_back = gone_by_table
        .into_iter()
        .map(|(table, deletes)| HeldBack { of: total_of(&table), table, deletes })
        .filter(|held| options.guard.holds_back(held.deletes, held.of))
        .collect();
    Ok(Report {
        schema: 1,
        first_start: memory.checkpoint.is_none(),
        rules,
        tables_read_again: tables_read_again.into_iter().collect(),
        held_back,
        orphaned: known.gone,
        requests: plans.iter().map(|plan| plan.upsert_requests + plan.delete_requests).sum(),
        entities: plans,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// Rules that are not what they were, and the tables that are therefore (or because their snapshot has not ended) read
/// from their beginning.
fn changed_rules(mapping: &Mapping, checkpoint: Option<&Checkpoint>) -> (Vec<RuleChange>, BTreeSet<String>) {
    let mut changes = Vec::new();
    let mut tables = BTreeSet::new();
    let Some(checkpoint) = checkpoint else {
        tables.extend(mapping.rules.iter().map(|rule| rule.table.to_string()));
        return (changes, tables);
    };
    for rule in &mapping.rules {
        let table = rule.table.to_string();
        let before = checkpoint.tables.get(&table);
        let fingerprint = before.and_then(|state| state.rules.iter().find(|(name, _)| **name == *rule.name));
        let change = match fingerprint {
            Some((_, before)) if *before == rule.fingerprint => None,
            Some(_) => Some(Changed::Edited),
            None => Some(Changed::New),
        };
        if change.is_some() || before.is_some_and(|state| state.phase != crate::store::TablePhase::Live) {
            tables.insert(table.clone());
        }
        changes.extend(change.map(|change| RuleChange { rule: rule.name.to_string(), table, change }));
    }
    for (table, state) in &checkpoint.tables {
        for (name, _) in &state.rules {
            if !mapping.rules.iter().any(|rule| *rule.name == **name && rule.table.to_string() == *table) {
                changes.push(RuleChange { rule: name.clone(), table: table.clone(), change: Changed::Gone });
                if mapping.rules.iter().any(|rule| rule.table.to_string() == *table) {
                    tables.insert(table.clone());
                }
            }
        }
    }
    (changes, tables)
}
