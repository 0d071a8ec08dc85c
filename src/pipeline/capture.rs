//! From source messages and snapshot pages to changes of CRM records.
//!
//! # Tail beats snapshot
//!
//! A table is read page by page while the tail runs beside it. Let `g` be the moment this pass over the table began
//! (its generation became durable; the tail was open before that). Two rules:
//!
//! 1. From `g` on, every key that the tail speaks of gets a *mark*; marks are saved with the checkpoint.
//! 2. A page is *held* until the tail has reached the page's barrier, a place at or after the commit of every
//!    transaction that the page's read could see. Then rows of marked keys are dropped, the others are *released*.
//!
//! Why nothing goes back in time (P2) and nothing is lost (P1), for a key `k` read by a page at time `T` and released at
//! tail position `H`:
//!
//! * *`k` unmarked at `H`*: no transaction that committed after `g` and at or before `H` touched `k`. What the page saw of
//!   `k` is therefore its state at `g`, still valid at `H`, and every later change will come after it through the tail.
//! * *changed before the page was read, after `g`*: marked by the time of `H`, since `H` covers all that the read saw. The
//!   tail has delivered that change or a newer one.
//! * *changed while or after the page was read, at or before `H`*: marked; the tail's change is the newer one.
//! * *changed after `H`*: the released row is older, and is queued before the tail's change in the record's own lane.
//! * *deleted before the read*: not in the page. *Deleted after it*: marked, so the row does not rise again.
//! * *deleted and inserted again*: marked by the first of the two.
//! * *key changed from `k` to `k'`*: the tail delivers delete(`k`) and insert(`k'`) (R5): both are marked, wherever the scan
//!   stands relative to the two keys.
//! * *committed, but not yet visible to the page's read* (a commit is in the log before readers see it): the read shows the
//!   older row, yet the change's place may be before anything we could have asked the server for *before* the read. That
//!   is why marks are kept from `g` on and not from the page's beginning.
//! * *the tail carried only part of the row* (an unchanged large column): see `reread`; the row is read again by key under
//!   the same holding rule, and the tail's columns win over the fetched ones.
//!
//! After a crash the scan goes on from the saved cursor with the saved marks; marks of changes after the saved position
//! come again with the replay, before any page can be released.
//!
//! # What the ledger may not be asked
//!
//! The ledger is written after the CRM's acceptance and flushed a little later, so after a crash an entry may be older
//! than what the CRM holds. Three things keep that from doing harm: changes replayed after a crash, and whatever is sent next
//! of their rows, are sent without asking it (`force`); progress is saved only after the ledger's flush (see `step`); and before a snapshot row or a sweep
//! changes a record that has an entry, the entry is made void, durably, before the request leaves. A snapshot row's record
//! that has no entry gets one first ([`Engine::note`]): after a crash no change of the tail would bring it again, and a row
//! that has gone meanwhile, by a delete or a truncation, would leave its record behind. Such a note is no delivery: no partial
//! document goes out upon it, and while nothing has been sent a removal takes it back ([`Pending::noted`]).

use super::assembly::{Item, Purpose};
use super::engine::Engine;
use super::page::{Bound, PageRow};
use super::table::{Life, OpenChunk, SnapshotRun, Sweep, Table};
use super::tail::{Mapped, Message};
use crate::loader::queue::{LeftOut, Op, Origin, Pending};
use crate::loader::{Ledger as _, Why};
use crate::mapping::{Applied, BoundRule, ExternalId, Rejection, Removal, Rule};
use crate::metrics::RecordOp;
use crate::store::{DeadLetter, Obligation, Reason, RecordRef, WriteOp};
use smallvec::{SmallVec, smallvec};
use std::sync::Arc;
use std::time::Instant;
use tidemark_contract::{ChangeEvent, ChangeOp, Row, RowBuilder, RowKey, SourceMessage, TableId, TableSchema, Value};

impl Engine {
    /// Takes a batch of messages from the tail.
    pub(super) fn take_messages(&mut self, messages: Vec<Message>, now: Instant) {
        let mut received = 0;
        for (message, mapped) in messages {
            match message {
                SourceMessage::Change(event) => {
                    received += 1;
                    self.commit_time = Some(event.committed_at);
                    self.take_change(event, mapped, now);
                }
                SourceMessage::Schema(schema) => self.take_schema(schema),
                SourceMessage::Rewritten(table) => self.take_rewritten(&table),
                SourceMessage::Commit(position) | SourceMessage::Resumable(position) => {
                    let committed_at = self.commit_time.take();
                    self.tickets.reached(position, committed_at);
                    self.after_position(now);
                }
                SourceMessage::Idle(position) => {
                    self.tickets.reached(position, None);
                    self.idle_at = Some(now);
                    self.asked_position = None;
                    self.after_position(now);
                }
            }
        }
        self.rates.changes += received;
    }

    /// Everything taken so far is at or before the tail's position.
    fn after_position(&mut self, now: Instant) {
        if let (Some(goal), Some(head)) = (&self.folding, self.tickets.head()) {
            match self.connector.covers(head, goal) {
                Ok(false) => return,
                Ok(true) => {
                    tracing::info!(position = %head, "the tail has caught up with what was sent before the restart")
                }
                // Another log: the gap was noticed and dealt with when the stream was opened.
                Err(_) => {}
            }
            self.folding = None;
        }
        self.maybe_step(now);
    }

    fn take_schema(&mut self, schema: Arc<TableSchema>) {
        let Some(&index) = self.table_of.get(&schema.table) else { return };
        if *self.tables[index].schema == *schema {
            return;
        }
        let table = &mut self.tables[index];
        let bound: Result<Arc<Bound>, _> =
            table.bound.iter().map(|(rule, _)| Ok((rule.clone(), rule.bind(&schema)?))).collect();
        table.drift = true;
        table.schema = schema;
        match bound {
            Ok(bound) => {
                tracing::info!(table = table.name, "the table's schema changed; the mapping still fits");
                self.bindings.set(&table.request.table, &bound);
                table.bound = bound;
                self.check_related(index);
            }
            Err::<_, crate::mapping::BindError>(error) => {
                let reason = format!(
                    "{error}; the table's changes are no longer applied. Adapt the mapping and restart: the table is then \
                     read again, and only differences are sent"
                );
                self.needs_attention(index, reason);
            }
        }
    }

    /// A statement changed values of this table's rows without telling which.
    fn take_rewritten(&mut self, table: &TableId) {
        let Some(&index) = self.table_of.get(table) else { return };
        tracing::warn!(
            table = self.tables[index].name,
            "a statement altered columns that the mapping uses, and the log does not tell what became of the values; the \
             table is read again, and only differences are sent"
        );
        self.related_truncated(index);
        if !self.tables[index].bound.is_empty() {
            self.read_again(index, false);
        }
    }

    /// Stops applying a table's changes until somebody has fixed something; the other tables go on.
    pub(super) fn needs_attention(&mut self, index: usize, reason: String) {
        let table = &mut self.tables[index];
        tracing::error!(table = table.name, reason, "the table needs attention");
        table.life = Life::NeedsAttention { reason };
        self.steps.wanted = true;
    }

    fn take_change(&mut self, event: ChangeEvent, mapped: Option<Mapped>, now: Instant) {
        let Some(&index) = self.table_of.get(&event.schema.table) else { return };
        let table = &mut self.tables[index];
        table.changes += 1;
        self.counts.changes[index][event.op as usize] += 1;
        if matches!(table.life, Life::NeedsAttention { .. }) {
            return;
        }
        if event.op == ChangeOp::Truncate {
            // All rows are gone at once: a pass over the (now nearly empty) table and a sweep of what it did not see.
            tracing::warn!(table = table.name, "the table was truncated at the source; its records are swept");
            self.related_truncated(index);
            if !self.tables[index].bound.is_empty() {
                self.read_again(index, true);
            }
            return;
        }
        // What was made of the row beforehand counts if it was made by the rules as they are bound now.
        let bound = table.bound.clone();
        let (key, applied) = match mapped {
            Some(Mapped { key, bound: Some(by), applied }) if Arc::ptr_eq(&by, &bound) => (key, applied),
            Some(Mapped { key, .. }) => (key, SmallVec::new()),
            None => (RowKey::of(&event.row, &event.schema.key), SmallVec::new()),
        };
        let Some(key) = key else {
            let reason =
                "the log carried a change without the row's key; set a replica identity that includes it".into();
            return self.needs_attention(index, reason);
        };
        if table.needs_marks() {
            // In memory at once, durable with the next step.
            if self.store.mark(&table.name, &key) {
                self.steps.marks.push((table.name.clone(), key.clone()));
            }
        }
        if self.folding.is_some() {
            let rules = self.tables[index].bound.iter().map(|(rule, _)| (rule.id, key.clone()));
            self.folded.extend(rules);
        }
        self.touch(index, &key, &event);
        self.assembly.overtake(index, &key);
        let mut applied = applied.into_iter();
        for (rule, program) in bound.iter() {
            let applied = applied.next();
            match event.op {
                ChangeOp::Insert | ChangeOp::Update => {
                    let applied = applied.unwrap_or_else(|| program.apply(&event.row));
                    self.upsert_from_tail(rule, program, &key, &event, applied, now);
                }
                ChangeOp::Delete | ChangeOp::Truncate => {
                    self.remove_from_tail(rule, program, &key, &event.row, rule.on_delete, now);
                }
            }
        }
        self.related_change(index, &event);
    }

    fn upsert_from_tail(
        &mut self,
        rule: &Arc<Rule>,
        program: &BoundRule,
        key: &RowKey,
        event: &ChangeEvent,
        applied: Applied,
        now: Instant,
    ) {
        match applied {
            Applied::Upsert { external_id, document, references } => {
                self.remove_former_id(rule, program, key, event.old.as_ref(), &external_id, now);
                let origin = self.ticket();
                self.queue_tail(rule, key, external_id, Op::Upsert(document, references), origin, now);
            }
            Applied::Outside { .. } => {
                // The row left the rule's condition; under which id it was known says the row before, or the ledger.
                let row = event.old.as_ref().unwrap_or(&event.row);
                self.remove_from_tail(rule, program, key, row, rule.on_leave, now);
            }
            Applied::NeedsRow => self.oblige_row(rule, program, key, event, now),
            Applied::Rejected(rejection) => {
                let origin = self.ticket();
                self.reject_row(rule, key, rejection, origin);
            }
        }
    }

    /// A record's external id that does not come from the key may have changed: the record under the former id goes.
    fn remove_former_id(
        &mut self,
        rule: &Arc<Rule>,
        program: &BoundRule,
        key: &RowKey,
        old: Option<&Row>,
        external_id: &str,
        now: Instant,
    ) {
        if rule.external_id_from_key {
            return;
        }
        let former = match old.map(|row| program.external_id(row)) {
            Some(ExternalId::Known(id)) => Some(id),
            _ => self.known_as(rule, key),
        };
        if let Some(former) = former
            && *former != *external_id
        {
            let origin = self.ticket();
            self.queue_tail(rule, key, former, Op::Delete, origin, now);
        }
    }

    fn remove_from_tail(
        &mut self,
        rule: &Arc<Rule>,
        program: &BoundRule,
        key: &RowKey,
        row: &Row,
        action: Removal,
        now: Instant,
    ) {
        if action == Removal::Ignore {
            return;
        }
        let external_id = match program.external_id(row) {
            ExternalId::Known(id) => Some(id),
            ExternalId::Unknown => self.known_as(rule, key),
            ExternalId::Null | ExternalId::Rejected(_) => None,
        };
        let Some(external_id) = external_id else {
            if self.loader.ledger().is_incomplete() {
                let origin = self.ticket();
                let rejection = Rejection {
                    external_id: None,
                    field: None,
                    code: "unknown_record",
                    message: "a row was removed, and neither the log nor the ledger says under which external id its \
                              record is; run `tidemark verify --repair`, and consider REPLICA IDENTITY FULL"
                        .into(),
                };
                self.reject_row(rule, key, rejection, origin);
            }
            return;
        };
        // Another row may have taken this id over: then the record is that row's.
        if !rule.external_id_from_key && self.ledger_owner(rule, &external_id).is_some_and(|owner| owner != *key) {
            return;
        }
        let origin = self.ticket();
        match removal(action, program, row) {
            Ok(op) => self.queue_tail(rule, key, external_id, op.unwrap_or(Op::Delete), origin, now),
            Err(rejection) => self.reject_row(rule, key, rejection, origin),
        }
    }

    /// The log carried too little of a row: it is read again by key, and what is queued of it is taken back.
    fn oblige_row(&mut self, rule: &Arc<Rule>, program: &BoundRule, key: &RowKey, event: &ChangeEvent, now: Instant) {
        let external_id = match program.external_id(&event.row) {
            ExternalId::Known(id) => {
                self.remove_former_id(rule, program, key, event.old.as_ref(), &id, now);
                Some(id)
            }
            _ => self.known_as(rule, key),
        };
        let ticket = self.ticket();
        let entity = self.entity_of(rule);
        if let Some(id) = &external_id {
            if let Some(withdrawn) = self.loader.withdraw(entity, id) {
                self.steps.settle_after.extend(withdrawn.origins);
            }
            self.loader.ledger().seen(rule.id, id, self.generation_of(rule));
        }
        self.steps.settle_after.push(ticket);
        let reason = if rule.relations.is_some() { Reason::Related } else { Reason::Partial };
        self.put_obligation(rule, key, external_id, reason, 0, super::unix_ms());
    }

    /// Saves that a row has to be read again by key, with the next step.
    pub(super) fn put_obligation(
        &mut self,
        rule: &Rule,
        key: &RowKey,
        external_id: Option<Box<str>>,
        reason: Reason,
        attempts: u32,
        since_ms: u64,
    ) {
        let now_ms = super::unix_ms();
        // A child whose parent may land any moment is looked at soon, a record that keeps failing ever later.
        let wait_ms = match reason {
            Reason::Partial | Reason::Related | Reason::DeadLetterRetry | Reason::Repair if attempts == 0 => 0,
            // Only a look whether the parents' landing was missed.
            Reason::LeftOut { .. } => 2_000u64.saturating_mul(1 << attempts.min(12)).min(3_600_000),
            _ => 2_000u64.saturating_mul(1 << attempts.min(8)).min(300_000),
        };
        let since = i64::try_from(since_ms).unwrap_or(i64::MAX);
        // While the tail folds what may have been sent before a crash, the ledger may be behind the CRM.
        let is_quiet = matches!(reason, Reason::Related | Reason::LeftOut { .. });
        let force = !is_quiet || self.folding.is_some();
        self.steps.put_obligations.push(Obligation {
            rule: rule.name.to_string(),
            table: rule.table.to_string(),
            key: key.clone(),
            external_id: external_id.map(Into::into),
            reason,
            since,
            attempts,
            due: i64::try_from(now_ms + wait_ms).unwrap_or(i64::MAX),
            force,
            stamp: 0,
        });
    }

    /// Whether a record may have been sent before a crash without a trace in the ledger, and nothing of it since. That the
    /// change which told so is still queued is not enough: it may have become an obligation, which a later one replaces and
    /// a removal overtakes.
    pub(super) fn was_folded(&self, rule: &Rule, key: &RowKey) -> bool {
        self.folding.is_some() || !self.folded.is_empty() && self.folded.contains(&(rule.id, key.clone()))
    }

    fn queue_tail(&mut self, rule: &Rule, key: &RowKey, external_id: Box<str>, op: Op, origin: Origin, now: Instant) {
        // A row that had to be read again when a process was killed may have been sent by it.
        let is_owed = || self.store.obligation(&rule.name, key).is_ok_and(|owed| owed.is_some());
        let force = self.was_folded(rule, key) || (op.is_removal() && is_owed());
        self.queue(rule, key.clone(), external_id, op, origin, force, now);
    }

    /// The pass that the table of a rule is in, or was last.
    pub(super) fn generation_of(&self, rule: &Rule) -> u32 {
        self.table_of_rule(rule).map_or(0, |table| table.generation)
    }

    fn table_of_rule(&self, rule: &Rule) -> Option<&Table> {
        let index = *self.rule_table.get(usize::from(rule.id.0))?;
        self.tables.get(index?)
    }

    /// Queues a change of a record.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn queue(
        &mut self,
        rule: &Rule,
        key: RowKey,
        external_id: Box<str>,
        op: Op,
        origin: Origin,
        force: bool,
        now: Instant,
    ) {
        self.queue_since(rule, key, external_id, op, origin, force, Trouble::none(), now);
    }

    /// Queues a change of a record that has had trouble.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn queue_since(
        &mut self,
        rule: &Rule,
        key: RowKey,
        external_id: Box<str>,
        op: Op,
        origin: Origin,
        force: bool,
        Trouble { since_ms, attempts, left_out, noted }: Trouble,
        now: Instant,
    ) {
        self.version += 1;
        let change = Pending {
            rule: rule.id,
            key,
            op,
            version: self.version,
            generation: self.generation_of(rule),
            origins: smallvec![origin],
            force,
            again: false,
            left_out,
            noted,
            attempts,
            queued: now,
            since_ms,
        };
        let entity = self.entity_of(rule);
        if let Some(replaced) = self.loader.push(entity, external_id, change) {
            self.counts.coalesced[usize::from(entity)][usize::from(replaced.is_delete)] += 1;
        }
    }

    /// Sets a row aside that cannot be mapped.
    pub(super) fn reject_row(&mut self, rule: &Rule, key: &RowKey, rejection: Rejection, origin: Origin) {
        if let Some(id) = &rejection.external_id {
            self.loader.ledger().seen(rule.id, id, self.generation_of(rule));
        }
        let letter = DeadLetter {
            id: 0,
            at: i64::try_from(super::unix_ms()).unwrap_or(i64::MAX),
            rule: rule.name.to_string(),
            entity: rule.entity.to_string(),
            table: rule.table.to_string(),
            external_id: rejection.external_id.map(Into::into),
            key: key.clone(),
            op: WriteOp::Upsert,
            code: rejection.code.to_string(),
            field: rejection.field.map(Into::into),
            message: rejection.message,
            attempts: 1,
        };
        self.set_aside(letter);
        self.steps.settle_after.push(origin);
    }

    /// Saves a dead letter with the next step.
    pub(super) fn set_aside(&mut self, letter: DeadLetter) {
        let op = match letter.op {
            WriteOp::Upsert => RecordOp::Upsert,
            WriteOp::Delete => RecordOp::Delete,
        };
        self.metrics.records(&letter.entity, op, crate::metrics::RecordOutcome::Rejected, 1);
        self.metrics.dead_letters(&letter.entity, &letter.code, 1);
        tracing::warn!(
            rule = letter.rule,
            entity = letter.entity,
            code = letter.code,
            field = letter.field,
            "a record was set aside; see `tidemark dead-letters list`"
        );
        self.steps.put_dead_letters.push(letter);
    }

    /// A record is as it should be: its dead letter, if there is one, is cleared.
    pub(super) fn clear_dead_letter(&mut self, rule: &Rule, key: &RowKey) {
        // Letters that wait for their step, or are in one that runs, are not in the store yet.
        let waiting = self.steps.has_letter(&rule.name, key);
        if waiting || self.store.may_have_dead_letter(&rule.name, key) {
            self.steps.put_dead_letters.retain(|l| l.key != *key || l.rule != *rule.name);
            self.steps.remove_dead_letters.push(RecordRef { rule: rule.name.to_string(), key: key.clone() });
        }
    }

    /// Pages whose barrier the tail has reached are released to the loader.
    pub(super) fn release_chunks(&mut self, now: Instant) {
        if self.folding.is_some() || self.tickets.covered() != self.tickets.last() {
            return;
        }
        for index in 0..self.tables.len() {
            while !self.window_is_full() && self.release_chunk(index, now) {}
        }
    }

    fn release_chunk(&mut self, index: usize, now: Instant) -> bool {
        let Some(head) = self.tickets.head().cloned() else { return false };
        let connector = self.connector.clone();
        let Some(run) = self.tables[index].run() else { return false };
        let Some(front) = run.front() else { return false };
        if !matches!(connector.covers(&head, &front.barrier), Ok(true)) {
            return false;
        }
        let Some(page) = run.take_front() else { return false };
        let Some(bound) = self.bound_to(index, &page.schema) else { return false };
        let Some(run) = self.tables[index].run() else { return false };
        let (number, force) = (run.next_chunk, run.force);
        run.next_chunk += 1;
        let (rows, next) = (page.count, page.next.clone());
        run.rows_released += rows;
        let name = self.tables[index].name.clone();
        let origin = Origin::Chunk { table: index as u16, chunk: number };
        let mut remaining = 0;
        let schema = page.schema.clone();
        for PageRow { key, applied, row } in page.into_rows(&bound) {
            if self.store.is_marked(&name, &key) {
                continue;
            }
            for ((rule, program), applied) in bound.iter().zip(applied) {
                let row = row.as_ref();
                if let (Applied::NeedsRow, true, Some(row)) = (&applied, rule.relations.is_some(), row) {
                    remaining += 1;
                    self.assembly.push(Item {
                        table: index,
                        rule: rule.clone(),
                        program: program.clone(),
                        schema: schema.clone(),
                        key: key.clone(),
                        row: row.clone(),
                        origin,
                        purpose: Purpose::Page { force },
                        overtaken: false,
                    });
                    continue;
                }
                remaining += usize::from(self.snapshot_row(rule, program, &key, applied, row, origin, force, now));
            }
        }
        let table = &mut self.tables[index];
        table.outstanding += remaining;
        if let Some(run) = table.run() {
            run.open.push_back(OpenChunk { number, remaining, rows, next });
            if run.advance() {
                self.rows_finished(index);
            }
        }
        self.counts.snapshot_rows[index] += rows;
        self.rates.snapshot_rows += rows;
        true
    }

    /// The table's rules bound to the schema that rows were read with, which may be ahead of the tail's or behind it.
    pub(super) fn bound_to(&mut self, index: usize, schema: &TableSchema) -> Option<Arc<Bound>> {
        let table = &self.tables[index];
        if *table.schema == *schema {
            return Some(table.bound.clone());
        }
        let bound: Result<Arc<Bound>, crate::mapping::BindError> =
            table.bound.iter().map(|(rule, _)| Ok((rule.clone(), rule.bind(schema)?))).collect();
        match bound {
            Ok(bound) => Some(bound),
            Err(error) => {
                self.needs_attention(index, format!("{error}; adapt the mapping and restart"));
                None
            }
        }
    }

    /// Queues what a rule makes of a snapshot row. Returns whether something has to be settled.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn snapshot_row(
        &mut self,
        rule: &Arc<Rule>,
        program: &BoundRule,
        key: &RowKey,
        applied: Applied,
        row: Option<&Row>,
        origin: Origin,
        force: bool,
        now: Instant,
    ) -> bool {
        match applied {
            Applied::Upsert { external_id, document, references } => {
                let known = self.loader.ledger().hash(rule.id, &external_id);
                if known == Some(document.hash()) && !force {
                    self.loader.ledger().seen(rule.id, &external_id, self.generation_of(rule));
                    self.clear_dead_letter(rule, key);
                    let entity = usize::from(self.entity_of(rule));
                    self.counts.suppressed[entity][usize::from(false)] += 1;
                    return false;
                }
                if !rule.external_id_from_key
                    && let Some(former) = self.known_as(rule, key)
                    && former != external_id
                {
                    self.void(rule, &former);
                    self.queue(rule, key.clone(), former, Op::Delete, Origin::None, true, now);
                }
                let mut trouble = Trouble::none();
                match known {
                    None => trouble.noted = self.note(rule, &external_id, key),
                    Some(_) => self.void(rule, &external_id),
                }
                let op = Op::Upsert(document, references);
                self.queue_since(rule, key.clone(), external_id, op, origin, force, trouble, now);
                true
            }
            Applied::Outside { external_id } => {
                let external_id = external_id.or_else(|| self.known_as(rule, key));
                let Some(id) = external_id.filter(|id| self.loader.ledger().hash(rule.id, id).is_some()) else {
                    return false;
                };
                let unknown = unknown_row(0);
                match removal(rule.on_leave, program, row.unwrap_or(&unknown)) {
                    Ok(None) => {
                        self.loader.ledger().seen(rule.id, &id, self.generation_of(rule));
                        return false;
                    }
                    Ok(Some(op)) => {
                        self.void(rule, &id);
                        self.queue(rule, key.clone(), id, op, origin, true, now);
                    }
                    Err(rejection) => self.reject_row(rule, key, rejection, origin),
                }
                true
            }
            Applied::NeedsRow => {
                // A snapshot row is complete; a connector that says otherwise is broken.
                let rejection = Rejection {
                    external_id: None,
                    field: None,
                    code: "incomplete_row",
                    message: "the connector delivered an incomplete snapshot row".into(),
                };
                self.reject_row(rule, key, rejection, origin);
                true
            }
            Applied::Rejected(rejection) => {
                self.reject_row(rule, key, rejection, origin);
                true
            }
        }
    }

    /// Makes a ledger entry void before its record is changed by something a crash would not replay.
    pub(super) fn void(&mut self, rule: &Rule, external_id: &str) {
        self.loader.ledger().void(rule.id, external_id);
        self.steps.flush_first = true;
    }

    /// Notes a record that no change of the tail will bring again before it is sent for the first time: after a crash it is
    /// known that it may have been. Returns whether it is certain that it never was.
    fn note(&mut self, rule: &Rule, external_id: &str, key: &RowKey) -> bool {
        let generation = self.generation_of(rule);
        self.loader.ledger().note(rule.id, external_id, key, generation);
        self.steps.flush_first = true;
        !self.loader.ledger().is_incomplete()
    }

    /// All rows of a pass are settled: what it did not see is gone, once the tail's own changes so far are settled too.
    pub(super) fn rows_finished(&mut self, index: usize) {
        let last = self.tickets.last();
        if let Some(run) = self.tables[index].run()
            && run.sweep == Sweep::NotYet
        {
            run.sweep = Sweep::WaitFor(last);
        }
    }

    /// Begins a pass over a table from its beginning.
    pub(super) fn read_again(&mut self, index: usize, force: bool) {
        if matches!(self.tables[index].life, Life::NeedsAttention { .. }) {
            return;
        }
        self.generation += 1;
        let table = &mut self.tables[index];
        table.end_pass();
        table.generation = self.generation;
        table.pass += 1;
        table.life = Life::Pending { force };
        // Marks of the pass before; those that are saved go with the step that saves the generation.
        let name = table.name.clone();
        self.steps.marks.retain(|(table, _)| *table != name);
        self.steps.wanted = true;
    }

    /// A pass that begins now, its generation being durable.
    pub(super) fn begin_pass(&mut self, index: usize, force: bool) {
        let started_at = i64::try_from(super::unix_ms()).unwrap_or(i64::MAX);
        let table = &mut self.tables[index];
        let mut run = SnapshotRun::new(None, 0, started_at, force);
        run.next_chunk = table.next_chunk;
        table.life = Life::Snapshot(Box::new(run));
        tracing::info!(table = table.name, generation = table.generation, "snapshot begins");
    }

    /// A new ticket for a change from the tail.
    pub(super) fn ticket(&mut self) -> Origin {
        Origin::Ticket(self.tickets.issue())
    }
}

/// What is done with a record whose row is gone or out of scope; `None` is nothing.
pub(super) fn removal(action: Removal, program: &BoundRule, row: &Row) -> Result<Option<Op>, Rejection> {
    Ok(match action {
        Removal::Ignore => None,
        Removal::Archive => Some(Op::Archive(program.archive(row)?)),
        Removal::Delete => Some(Op::Delete),
    })
}

/// What a record has been through.
#[derive(Debug)]
pub(super) struct Trouble {
    /// When it began (ms since 1970).
    pub since_ms: u64,
    /// Times it was sent without a clear answer.
    pub attempts: u16,
    /// What it was read again for.
    pub left_out: Option<Box<LeftOut>>,
    /// As [`Pending::noted`].
    pub noted: bool,
}

impl Trouble {
    pub(super) fn none() -> Self {
        Self { since_ms: super::unix_ms(), attempts: 0, left_out: None, noted: false }
    }
}

/// A row of `columns` columns of which nothing is known.
pub(super) fn unknown_row(columns: usize) -> Row {
    let mut row = RowBuilder::with_capacity(columns, 0);
    for _ in 0..columns {
        row.push(Value::Unchanged);
    }
    row.finish()
}

/// The store's word for why a record is read again.
pub(super) fn reason(why: Why) -> Reason {
    match why {
        Why::Partial => Reason::Partial,
        Why::Unclear => Reason::RetryLater,
        Why::Parent { entity, external_id } => {
            Reason::WaitingForParent { entity: entity.into(), external_id: external_id.into() }
        }
    }
}
