//! The ledger as the pipeline sees it: by rule number, with the generation of the running pass.

use crate::loader::{self, Ledger as _, NOTED};
use crate::mapping::{Rule, RuleId};
use crate::store::{Entry, Ledger, LedgerRule, Record, Result, StoreError};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use tidemark_contract::RowKey;

/// After so many writes (or when [`LedgerView::keep_pace`] is called) the ledger may ask for patience.
const STRETCH: usize = 2_000;

#[derive(Debug)]
struct RuleView {
    id: LedgerRule,
    /// Owners are kept for rules whose external id does not come from the row's key.
    keeps_owner: bool,
    /// The newest pass of which this process has noted anything. Whatever an earlier process noted is not newer than
    /// that of any change now: a table's generation never falls.
    newest: Cell<u32>,
}

/// The last question and its answer: the same record is often asked for twice in a row.
#[derive(Debug, Default)]
struct Last {
    rule: Option<RuleId>,
    external_id: String,
    entry: Option<Entry>,
}

/// See the module's documentation. What is written is known at once.
pub struct LedgerView {
    ledger: Arc<Ledger>,
    rules: Vec<RuleView>,
    incomplete: bool,
    /// Writes since the ledger was last asked whether it keeps up.
    written: Cell<usize>,
    last: RefCell<Last>,
    /// The first error, to be picked up by the engine: the loader's questions have no room for one.
    trouble: Cell<Option<StoreError>>,
}

impl LedgerView {
    /// The ledger for these rules.
    pub fn new(ledger: Arc<Ledger>, rules: &[Arc<Rule>], incomplete: bool) -> Result<Self> {
        let rules = rules
            .iter()
            .map(|rule| {
                Ok(RuleView {
                    id: ledger.rule(&rule.name)?,
                    keeps_owner: !rule.external_id_from_key,
                    newest: Cell::new(0),
                })
            })
            .collect::<Result<_>>()?;
        let (written, last) = (Cell::new(0), RefCell::default());
        Ok(Self { ledger, rules, incomplete, written, last, trouble: Cell::new(None) })
    }

    /// The ledger is known to be whole again.
    pub fn set_complete(&mut self) {
        self.incomplete = false;
    }

    /// Makes an entry void: its document is no longer known to be what the CRM holds. Unknown records stay unknown.
    pub fn void(&self, rule: RuleId, external_id: &str) {
        if let Some(entry) = self.get(rule, external_id)
            && entry.hash != NOTED
        {
            self.put(rule, external_id, Some(Entry { hash: 0, ..entry }));
        }
    }

    /// Notes a record that is about to be sent for the first time.
    pub fn note(&self, rule: RuleId, external_id: &str, key: &RowKey, generation: u32) {
        self.accepted(rule, external_id, key, NOTED, generation);
    }

    /// The row that a record belongs to, for rules that keep owners.
    pub fn owner(&self, rule: RuleId, external_id: &str) -> Option<RowKey> {
        self.get(rule, external_id)?.owner
    }

    /// The record that a row is known as, for rules that keep owners.
    pub fn known_as(&self, rule: RuleId, key: &RowKey) -> Option<Box<str>> {
        let view = self.rules.get(usize::from(rule.0)).filter(|view| view.keeps_owner)?;
        self.check(self.ledger.external_id_of(view.id, key)).flatten()
    }

    /// Number of records of a rule.
    pub fn count(&self, rule: RuleId) -> u64 {
        self.rules.get(usize::from(rule.0)).map_or(0, |view| self.ledger.count(view.id))
    }

    /// The rule's number in the database.
    pub fn id(&self, rule: RuleId) -> Option<LedgerRule> {
        self.rules.get(usize::from(rule.0)).map(|view| view.id)
    }

    /// Whether an entry is still as old as a search found it, and nothing newer is known.
    pub fn is_older(&self, rule: RuleId, record: &Record, generation: u32) -> bool {
        self.get(rule, &record.external_id).is_some_and(|entry| entry.generation < generation)
    }

    /// Lets the ledger keep up with what was written: it may take its time.
    pub fn keep_pace(&self) {
        if self.written.replace(0) > 0 {
            self.check(self.ledger.keep_pace());
        }
    }

    /// The first error since the last call.
    pub fn take_trouble(&self) -> Option<StoreError> {
        self.trouble.take()
    }

    fn get(&self, rule: RuleId, external_id: &str) -> Option<Entry> {
        let view = self.rules.get(usize::from(rule.0))?;
        let mut last = self.last.borrow_mut();
        if last.rule != Some(rule) || last.external_id != external_id {
            last.rule = Some(rule);
            last.external_id.clear();
            last.external_id.push_str(external_id);
            last.entry = self.check(self.ledger.get(view.id, external_id)).flatten();
        }
        last.entry.clone()
    }

    fn put(&self, rule: RuleId, external_id: &str, entry: Option<Entry>) {
        let Some(view) = self.rules.get(usize::from(rule.0)) else { return };
        if let Some(entry) = &entry {
            view.newest.set(view.newest.get().max(entry.generation));
        }
        self.last.borrow_mut().rule = None;
        match entry {
            Some(entry) => self.ledger.put(view.id, external_id, &entry),
            None => self.ledger.forget(view.id, external_id),
        }
        self.written.set(self.written.get() + 1);
        if self.written.get() >= STRETCH {
            self.keep_pace();
        }
    }

    fn check<T>(&self, result: Result<T>) -> Option<T> {
        result
            .map_err(|error| {
                let first = self.trouble.take().unwrap_or(error);
                self.trouble.set(Some(first));
            })
            .ok()
    }
}

impl loader::Ledger for LedgerView {
    fn hash(&self, rule: RuleId, external_id: &str) -> Option<u64> {
        self.get(rule, external_id).map(|entry| entry.hash)
    }

    fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    fn accepted(&self, rule: RuleId, external_id: &str, key: &RowKey, hash: u64, generation: u32) {
        let Some(view) = self.rules.get(usize::from(rule.0)) else { return };
        let owner = view.keeps_owner.then(|| key.clone());
        // A later pass may have seen the row while an earlier change of it was on its way.
        let generation = match generation < view.newest.get() {
            true => self.get(rule, external_id).map_or(generation, |entry| entry.generation.max(generation)),
            false => generation,
        };
        self.put(rule, external_id, Some(Entry { hash, generation, owner }));
    }

    fn seen(&self, rule: RuleId, external_id: &str, generation: u32) {
        if let Some(entry) = self.get(rule, external_id)
            && entry.generation < generation
        {
            self.put(rule, external_id, Some(Entry { generation, ..entry }));
        }
    }

    fn removed(&self, rule: RuleId, external_id: &str) {
        self.put(rule, external_id, None);
    }
}
