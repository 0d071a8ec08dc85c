//! The CRM's model while the daemon runs: whether it is still the one that was mapped.
//!
//! The model is read again every `[crm] schema_check`, and soon after the CRM has refused a record, because a field that is
//! gone or newly required shows in refusals first. An entity that changed and still fits is shown as drift. One that the
//! mapping no longer fits stops the tables that feed it, before every one of their records becomes a dead letter; the
//! other tables go on. When the CRM's model fits again, those tables are read again, and only differences are sent.

use super::engine::{Engine, Event};
use super::table::Life;
use crate::crm::{self, CrmSchema};
use crate::diagnostics::Severity;
use crate::mapping::{self, CompileOptions, Mapping, Pack};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_contract::TableSchema;

/// After a refusal, and while tables stand still because of the CRM's model, it is read again this soon.
const SOON: Duration = Duration::from_secs(5);

/// What was mapped, and what it takes to see whether the mapping fits another model.
#[derive(Debug)]
pub(super) struct Model {
    pub pack: Arc<Pack>,
    pub catalogue: Vec<Arc<TableSchema>>,
    pub default_schema: String,
    pub options: CompileOptions,
    pub crm: CrmSchema,
}

/// What differs: by entity, why the mapping no longer fits it, or `None` if it does.
pub(super) type Drift = BTreeMap<Box<str>, Option<String>>;

impl Model {
    /// Compares the entities that `mapping` feeds with those of `now`. An entity's fit is judged with the others as they
    /// were, so that each is to blame for itself alone.
    fn drift(&self, entities: &BTreeSet<Box<str>>, now: &CrmSchema) -> Drift {
        let changed = entities.iter().filter(|name| self.crm.entity(name) != now.entity(name));
        changed.map(|name| (name.clone(), self.misfit(name, now))).collect()
    }

    fn misfit(&self, entity: &str, now: &CrmSchema) -> Option<String> {
        let mut crm = self.crm.clone();
        match now.entity(entity) {
            Some(schema) => crm.entities.insert(entity.into(), schema.clone()),
            None => crm.entities.remove(entity),
        };
        let compiled = mapping::compile(&self.pack, &self.catalogue, &self.default_schema, Some(&crm), &self.options);
        let errors = compiled.err()?;
        let mut errors = errors.items().iter().filter(|found| found.severity == Severity::Error);
        let first = errors.next()?;
        let more = match errors.count() {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        Some(format!("{}{more}", first.message))
    }
}

/// When the model is looked at, and what was found.
#[derive(Debug)]
pub(super) struct Watch {
    model: Arc<Model>,
    entities: Arc<BTreeSet<Box<str>>>,
    every: Duration,
    looked_at: Instant,
    is_looking: bool,
    was_refused: bool,
    pub(super) drift: Drift,
    /// Tables that stand still because of it.
    stopped: BTreeSet<usize>,
}

impl Watch {
    pub(super) fn new(model: Model, mapping: &Mapping, every: Duration) -> Self {
        Self {
            entities: Arc::new(mapping.rules.iter().map(|rule| rule.entity.clone()).collect()),
            model: Arc::new(model),
            every,
            looked_at: Instant::now(),
            is_looking: false,
            was_refused: false,
            drift: Drift::new(),
            stopped: BTreeSet::new(),
        }
    }

    /// The CRM refused a record: perhaps because its model changed.
    pub(super) fn refused(&mut self) {
        self.was_refused = true;
    }

    /// When to look again; never if the tenant file says so.
    fn due(&self) -> Option<Instant> {
        let soon = self.was_refused || !self.stopped.is_empty();
        let pause = if soon { self.every.min(SOON) } else { self.every };
        (!self.is_looking && !self.every.is_zero()).then(|| self.looked_at + pause)
    }
}

impl Engine {
    /// Reads the CRM's model if it is time.
    pub(super) fn look_at_model(&mut self, now: Instant) {
        if self.stopping || self.watch.due().is_none_or(|due| now < due) {
            return;
        }
        self.watch.is_looking = true;
        self.watch.was_refused = false;
        let (crm, events) = (self.crm.clone(), self.events.clone());
        let (model, entities) = (self.watch.model.clone(), self.watch.entities.clone());
        tokio::spawn(async move {
            let result = match crm.discover().await {
                // Compiling takes a moment for a large pack.
                Ok(found) => tokio::task::spawn_blocking(move || model.drift(&entities, &found)).await.ok().map(Ok),
                Err(error) => Some(Err(error)),
            };
            let _ = events.send(Event::ModelRead(result));
        });
    }

    /// `None` if comparing broke off.
    pub(super) fn model_read(&mut self, result: Option<crm::Result<Drift>>, now: Instant) {
        self.watch.is_looking = false;
        self.watch.looked_at = now;
        match result {
            Some(Ok(drift)) => self.take_drift(drift),
            // Whether the CRM can be reached shows in the requests that matter.
            Some(Err(error)) => tracing::debug!("the CRM's model could not be read again: {error}"),
            None => tracing::error!("comparing the CRM's model with the mapped one broke off"),
        }
    }

    fn take_drift(&mut self, drift: Drift) {
        if drift == self.watch.drift {
            return;
        }
        for (entity, misfit) in &drift {
            if misfit.is_none() && self.watch.drift.get(entity) != Some(&None) {
                tracing::info!(entity, "the CRM changed this entity; the mapping still fits");
            }
        }
        for index in 0..self.tables.len() {
            let bad = self.tables[index]
                .bound
                .iter()
                .find_map(|(rule, _)| Some((rule.entity.clone(), drift.get(&rule.entity)?.clone()?)));
            match bad {
                Some((entity, misfit)) => {
                    if matches!(self.tables[index].life, Life::NeedsAttention { .. }) {
                        continue;
                    }
                    self.watch.stopped.insert(index);
                    self.tables[index].end_pass();
                    let reason = format!(
                        "the CRM changed {entity}, and the mapping no longer fits it: {misfit}; the table's changes are not \
                         applied. Change it back in the CRM, or adapt the mapping and restart: the table is then read \
                         again, and only differences are sent"
                    );
                    self.needs_attention(index, reason);
                }
                None if self.watch.stopped.remove(&index) && self.is_bound(index) => {
                    let table = &mut self.tables[index];
                    tracing::info!(table = table.name, "the mapping fits the CRM again; the table is read again");
                    table.life = Life::Live;
                    self.read_again(index, false);
                }
                None => {}
            }
        }
        self.watch.drift = drift;
    }
}
