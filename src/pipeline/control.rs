//! What an operator asks of the running engine.

use super::engine::Engine;
use super::table::Life;
use crate::command::{
    AdminCommand, AdminError, AdminReply, DeadLetterSelection, PauseMark, Repair, RepairReceipt, ResyncPlan,
    ResyncRequest, ResyncScope, ResyncTable,
};
use crate::loader::Ledger as _;
use crate::store::{DeadLetter, Reason, RecordRef};
use std::collections::BTreeSet;
use std::time::Instant;

impl Engine {
    /// Carries out a command.
    pub(super) fn take_command(&mut self, command: AdminCommand) {
        // A caller that hung up needs no answer: what it asked for has been done or refused all the same.
        match command {
            AdminCommand::Pause(reply) => match PauseMark::of(self.store.dir()).set() {
                Ok(()) => {
                    self.loader.set_paused(true);
                    tracing::info!("paused by an operator");
                    // Answered when nothing is under way any more.
                    self.pausing.push(reply);
                }
                Err(error) => {
                    let _ = reply.send(Err(AdminError::new("store", format!("the pause cannot be noted: {error}"))));
                }
            },
            AdminCommand::Resume(reply) => {
                let cleared = PauseMark::of(self.store.dir()).clear();
                self.loader.set_paused(false);
                self.report(Instant::now(), false);
                tracing::info!("resumed by an operator");
                let _ = reply
                    .send(cleared.map_err(|e| {
                        AdminError::new("store", format!("resumed, but the mark cannot be removed: {e}"))
                    }));
            }
            AdminCommand::Resync(request, reply) => {
                let _ = reply.send(self.resync(request));
            }
            AdminCommand::RetryDeadLetters(selection, reply) => {
                let _ = reply.send(self.retry_letters(&selection));
            }
            AdminCommand::DropDeadLetters(selection, reply) => {
                let _ = reply.send(self.drop_letters(&selection));
            }
            AdminCommand::QueueRepairs(repairs, reply) => match self.repair(repairs) {
                Ok(receipt) => {
                    self.steps.wanted = true;
                    self.steps.answer_after.push((reply, receipt));
                }
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            },
            AdminCommand::Stop(reply) => {
                let _ = reply.send(Ok(()));
                if !self.stopping {
                    self.begin_stop(Instant::now());
                }
            }
        }
    }

    fn resync(&mut self, request: ResyncRequest) -> AdminReply<ResyncPlan> {
        if let ResyncScope::Record { entity, external_id } = &request.scope {
            return self.resync_record(entity, external_id, request.dry_run);
        }
        let indexes: BTreeSet<usize> = match &request.scope {
            ResyncScope::All => (0..self.tables.len()).collect(),
            ResyncScope::Table(name) => {
                let found = self.tables.iter().position(|t| t.name == *name || *t.request.table.name == **name);
                let known = || self.tables.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(", ");
                BTreeSet::from([found.ok_or_else(|| {
                    AdminError::new("unknown_table", format!("the mapping reads no table {name}"))
                        .hint(format!("it reads: {}", known()))
                })?])
            }
            ResyncScope::Entity(entity) => self.tables_of(entity)?,
            ResyncScope::Record { .. } => BTreeSet::new(),
        };
        let tables = indexes
            .iter()
            .map(|&n| ResyncTable { name: self.tables[n].name.clone(), rows_estimate: self.tables[n].estimate })
            .collect();
        if !request.dry_run {
            for index in indexes {
                // A table that needs attention because a sweep was held back is read again when asked for.
                if matches!(self.tables[index].life, Life::NeedsAttention { .. }) && self.is_bound(index) {
                    self.tables[index].life = Life::Live;
                }
                self.read_again(index, request.force);
            }
        }
        Ok(ResyncPlan { tables, records: 0, started: !request.dry_run })
    }

    /// Whether the mapping fits the table as it is now.
    pub(super) fn is_bound(&self, index: usize) -> bool {
        let table = &self.tables[index];
        table.bound.iter().all(|(rule, _)| rule.bind(&table.schema).is_ok())
    }

    fn tables_of(&self, entity: &str) -> AdminReply<BTreeSet<usize>> {
        let found: BTreeSet<usize> = (0..self.tables.len())
            .filter(|&n| self.tables[n].bound.iter().any(|(rule, _)| *rule.entity == *entity))
            .collect();
        if found.is_empty() {
            let known = self.loader.entity_names().collect::<Vec<_>>().join(", ");
            return Err(AdminError::new("unknown_entity", format!("the mapping feeds no entity {entity}"))
                .hint(format!("it feeds: {known}")));
        }
        Ok(found)
    }

    /// One record: its row is read again if the ledger knows which one it is, its table otherwise.
    fn resync_record(&mut self, entity: &str, external_id: &str, dry_run: bool) -> AdminReply<ResyncPlan> {
        let indexes = self.tables_of(entity)?;
        let rules: Vec<_> = self.rules.iter().filter(|rule| *rule.entity == *entity).cloned().collect();
        for rule in &rules {
            if let Some(key) = self.ledger_owner(rule, external_id) {
                if !dry_run {
                    let since = super::unix_ms();
                    self.put_obligation(rule, &key, Some(external_id.into()), Reason::Repair, 0, since);
                    self.reread.hurry();
                }
                return Ok(ResyncPlan { records: 1, started: !dry_run, ..ResyncPlan::default() });
            }
        }
        if !dry_run {
            for rule in &rules {
                self.void(rule, external_id);
            }
            for &index in &indexes {
                self.read_again(index, false);
            }
        }
        let tables = indexes
            .iter()
            .map(|&n| ResyncTable { name: self.tables[n].name.clone(), rows_estimate: self.tables[n].estimate })
            .collect();
        Ok(ResyncPlan { tables, records: 1, started: !dry_run })
    }

    fn letters(&self, selection: &DeadLetterSelection) -> AdminReply<Vec<DeadLetter>> {
        let all = self
            .store
            .dead_letters(selection.entity.as_deref(), None, usize::MAX)
            .map_err(|error| AdminError::new("store", error.to_string()))?;
        Ok(all.into_iter().filter(|letter| selection.contains(letter)).collect())
    }

    /// Each letter becomes an obligation: the row as it is *now* is read and sent, never what was refused then.
    fn retry_letters(&mut self, selection: &DeadLetterSelection) -> AdminReply<u64> {
        let letters = self.letters(selection)?;
        let mut again = BTreeSet::new();
        for letter in &letters {
            let Some(rule) = self.rules.iter().find(|rule| *rule.name == *letter.rule).cloned() else { continue };
            if super::is_swept_key(&letter.key) {
                // A removal found by a sweep: only another pass can tell whether the row is still gone.
                if let Some(&index) = self.table_of.get(&rule.table) {
                    again.insert(index);
                }
                continue;
            }
            let external_id = letter.external_id.as_deref().map(Into::into);
            self.put_obligation(&rule, &letter.key, external_id, Reason::DeadLetterRetry, 0, super::unix_ms());
        }
        for index in again {
            self.read_again(index, false);
        }
        self.reread.hurry();
        Ok(letters.len() as u64)
    }

    fn drop_letters(&mut self, selection: &DeadLetterSelection) -> AdminReply<u64> {
        let letters = self.letters(selection)?;
        for letter in &letters {
            self.steps.remove_dead_letters.push(RecordRef { rule: letter.rule.clone(), key: letter.key.clone() });
        }
        Ok(letters.len() as u64)
    }

    fn repair(&mut self, repairs: Vec<Repair>) -> AdminReply<RepairReceipt> {
        let mut receipt = RepairReceipt::default();
        let mut again = BTreeSet::new();
        for repair in repairs {
            match repair {
                Repair::Reread { ref rule, .. } => {
                    let rule =
                        self.rules.iter().find(|r| *r.name == **rule).cloned().ok_or_else(|| {
                            AdminError::new("unknown_rule", format!("the mapping has no rule {rule}"))
                        })?;
                    let key = repair.row_key();
                    let key = key.ok_or_else(|| AdminError::new("malformed_key", "a key is not one of ours"))?;
                    self.put_obligation(&rule, &key, None, Reason::Repair, 0, super::unix_ms());
                    receipt.queued += 1;
                }
                Repair::Extra { entity, external_id } => {
                    // Whether its row is gone can only be told by a pass that does not find it, followed by a sweep
                    // under the guard: a single look could be overtaken by the row's return.
                    let ours = self.rules.iter().any(|rule| {
                        *rule.entity == *entity && self.loader.ledger().hash(rule.id, &external_id).is_some()
                    });
                    if ours {
                        again.extend(self.tables_of(&entity)?);
                        receipt.queued += 1;
                    } else {
                        receipt.unknown += 1;
                    }
                }
            }
        }
        for index in again {
            self.read_again(index, false);
        }
        self.reread.hurry();
        Ok(receipt)
    }
}
