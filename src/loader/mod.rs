//! The loader: which request leaves next, and what its answer means for each record.
//!
//! A state machine without I/O: [`Loader::next_request`] says what to send, [`Loader::answered`] takes the answer, and
//! [`Loader::effects`] hands out what follows for others (settled changes, dead letters, obligations). The pipeline
//! owns the sockets, the clock and the store.
//!
//! * One lane per record, three stages before sending: see [`queue`].
//! * A request that failed as a whole is repeated *as it was* (same records, same versions, same idempotency key)
//!   before anything newer of these records leaves: whether it was applied is unknown (P2).
//! * A request that is refused as a whole, or keeps failing while others succeed, is halved until the record at fault
//!   stands alone; the rest goes on.
//! * A record that keeps failing, or whose parent does not come, is handed over as an *obligation*: durable, cheap, and
//!   no longer in the way of the position.

pub mod pacing;
pub mod queue;

use crate::config::Delivery;
use crate::crm::{self, CrmError, CrmErrorKind, CrmRejection, Done, Outcome};
use crate::document::Document;
use crate::mapping::{Missing, Reference, RuleId};
use pacing::{Pacing, Wait};
use queue::{EntityId, LeftOut, Op, Origin, Pending, Queue, Replaced, SlotId};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tidemark_contract::RowKey;

/// The code with which a CRM says that a referenced record does not exist.
pub const MISSING_REFERENCE: &str = "missing_reference";

/// Requests are cut at this many bytes of documents, whatever the number of records.
pub(crate) const BATCH_BYTES: usize = 4 << 20;

/// How long a record waits in memory for its parent before it becomes an obligation.
const PARK_IN_MEMORY: Duration = Duration::from_secs(3);

/// Unclear answers about one record before it becomes an obligation.
const UNCLEAR_LIMIT: u16 = 4;

/// What the ledger knows, as far as the loader asks.
pub trait Ledger {
    /// Hash of the last accepted document (0 if it is not known, [`NOTED`] if nothing of it may have arrived), or `None` if
    /// the record was never delivered.
    fn hash(&self, rule: RuleId, external_id: &str) -> Option<u64>;
    /// Whether "never delivered" may be wrong because the ledger was lost.
    fn is_incomplete(&self) -> bool;
    /// The CRM holds this document (`hash` 0: some of its fields are older than this document).
    fn accepted(&self, rule: RuleId, external_id: &str, key: &RowKey, hash: u64, generation: u32);
    /// The record is as it was, and the source had it in this pass.
    fn seen(&self, rule: RuleId, external_id: &str, generation: u32);
    /// The CRM no longer holds the record.
    fn removed(&self, rule: RuleId, external_id: &str);
}

/// In place of a document's hash: the record is about to be sent for the first time, and whether anything of it arrived is
/// not known (yet, or because the process that sent it was killed).
pub const NOTED: u64 = 1;

/// The moment of a call: both clocks are read once, outside.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For waiting.
    pub instant: Instant,
    /// For remembering (ms since 1970).
    pub unix_ms: u64,
}

/// One record of a request.
#[derive(Debug)]
pub struct Item {
    slot: SlotId,
    /// CRM-side match key.
    pub external_id: Box<str>,
    /// The change.
    pub change: Pending,
}

impl Item {
    /// The document of an upsert.
    pub fn document(&self) -> Option<&Document> {
        self.change.op.document()
    }
}

/// A request to the CRM: one entity, one kind of write, each record once.
#[derive(Debug)]
pub struct Request {
    /// The entity's number.
    pub entity: EntityId,
    /// Whether the records are removed (upserted otherwise).
    pub is_delete: bool,
    /// The records.
    pub items: Vec<Item>,
    attempt: u32,
}

/// What became of a change, for counting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The CRM took it.
    Delivered,
    /// Nothing would have changed: no request was made.
    Suppressed,
    /// The CRM holds a newer version.
    Stale,
}

/// What follows from an answer, for the pipeline to carry out.
#[derive(Debug)]
pub enum Effect {
    /// A change is settled.
    Settled {
        /// Entity it was for.
        entity: EntityId,
        /// Rule that made it.
        rule: RuleId,
        /// The source row's key.
        key: RowKey,
        /// CRM-side match key.
        external_id: Box<str>,
        /// Whether it was a removal.
        is_delete: bool,
        /// What became of it.
        fate: Fate,
        /// What is settled with it.
        origins: SmallVec<[Origin; 1]>,
    },
    /// A record is set aside.
    DeadLetter {
        /// Entity it was for.
        entity: EntityId,
        /// Rule that made it.
        rule: RuleId,
        /// The source row's key.
        key: RowKey,
        /// CRM-side match key.
        external_id: Box<str>,
        /// Whether it was a removal.
        is_delete: bool,
        /// Why, in the CRM's words.
        reason: CrmRejection,
        /// Times it was tried.
        attempts: u32,
        /// What is settled once the dead letter is durable.
        origins: SmallVec<[Origin; 1]>,
    },
    /// A record is in the CRM without references to parents that the CRM lacks. Its settlement follows.
    LeftOut {
        /// The rule that made it.
        rule: RuleId,
        /// The source row's key.
        key: RowKey,
        /// CRM-side match key.
        external_id: Box<str>,
        /// What is missing.
        left_out: Box<LeftOut>,
    },
    /// A record has to be read again and sent later.
    Obligation {
        /// Rule that made it.
        rule: RuleId,
        /// The source row's key.
        key: RowKey,
        /// CRM-side match key.
        external_id: Box<str>,
        /// Why.
        reason: Why,
        /// When the trouble began (ms since 1970).
        since_ms: u64,
        /// Times it was tried.
        attempts: u32,
        /// Whether the record was delivered all the same, without a reference.
        is_delivered: bool,
        /// What is settled once the obligation is durable.
        origins: SmallVec<[Origin; 1]>,
    },
    /// The tenant cannot go on.
    Fatal(CrmError),
}

/// Why a record has to be read again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// The log carried only part of the row, and the CRM does not hold the rest.
    Partial,
    /// The CRM does not give a clear answer about this record.
    Unclear,
    /// Its parent is not in the CRM.
    Parent {
        /// The parent's entity.
        entity: Box<str>,
        /// The parent's external id.
        external_id: Box<str>,
    },
}

#[derive(Debug)]
struct Parked {
    slot: SlotId,
    at: Instant,
    entity: Box<str>,
    external_id: Box<str>,
}

/// See the module's documentation.
pub struct Loader<L> {
    entities: Vec<Box<str>>,
    by_name: HashMap<Box<str>, EntityId>,
    options: Delivery,
    /// The size of a batch, which shrinks when the CRM says that a request is too large.
    batch_records: usize,
    /// The queue of changes.
    pub queue: Queue,
    pacing: Pacing,
    ledger: L,
    in_flight: usize,
    records_in_flight: usize,
    retries: Vec<(Instant, Request)>,
    /// Children that wait for a record that is queued or under way.
    behind: HashMap<SlotId, Vec<SlotId>>,
    /// Children whose parent the CRM does not know.
    parked: Vec<Parked>,
    /// Records with a time before which they are not sent again.
    resting: Vec<(Instant, SlotId)>,
    effects: Vec<Effect>,
    turn: usize,
    wait: Option<Wait>,
    paused: bool,
    hurry: bool,
    throttled: Duration,
}

impl<L: Ledger> Loader<L> {
    /// A loader for these entities (parents before children).
    pub fn new(entities: Vec<Box<str>>, options: Delivery, ledger: L, now: Instant) -> Self {
        Self {
            by_name: entities.iter().enumerate().map(|(n, name)| (name.clone(), n as EntityId)).collect(),
            batch_records: options.batch_records.max(1),
            queue: Queue::new(entities.len()),
            pacing: Pacing::new(&options, now),
            entities,
            options,
            ledger,
            in_flight: 0,
            records_in_flight: 0,
            retries: Vec::new(),
            behind: HashMap::new(),
            parked: Vec::new(),
            resting: Vec::new(),
            effects: Vec::new(),
            turn: 0,
            wait: None,
            paused: false,
            hurry: false,
            throttled: Duration::ZERO,
        }
    }

    /// The number of an entity.
    pub fn entity(&self, name: &str) -> Option<EntityId> {
        self.by_name.get(name).copied()
    }

    /// The name of an entity.
    pub fn entity_name(&self, entity: EntityId) -> &str {
        self.entities.get(usize::from(entity)).map_or("", |name| name)
    }

    /// The names of all entities, by number.
    pub fn entity_names(&self) -> impl Iterator<Item = &str> {
        self.entities.iter().map(|name| &**name)
    }

    /// The ledger.
    pub fn ledger(&self) -> &L {
        &self.ledger
    }

    /// The ledger, to be changed.
    pub fn ledger_mut(&mut self) -> &mut L {
        &mut self.ledger
    }

    /// Queues a change; returns the one it replaced.
    pub fn push(&mut self, entity: EntityId, external_id: Box<str>, change: Pending) -> Option<Replaced> {
        self.queue.push(entity, external_id, change)
    }

    /// Takes back everything queued for a record that is not under way: its changes are replaced by an obligation.
    pub fn withdraw(&mut self, entity: EntityId, external_id: &str) -> Option<Pending> {
        let slot = self.queue.find(entity, external_id)?;
        self.parked.retain(|p| p.slot != slot);
        self.resting.retain(|(_, s)| *s != slot);
        let is_in_flight = self.queue.is_in_flight(slot);
        let change = self.queue.withdraw(slot);
        if !is_in_flight && let Some(children) = self.behind.remove(&slot) {
            for child in children {
                self.queue.release(child);
            }
        }
        change
    }

    /// Stops or resumes sending.
    pub fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Whether sending is stopped by an operator.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Sends what there is without waiting for full batches (when the daemon stops).
    pub fn set_hurry(&mut self, hurry: bool) {
        self.hurry = hurry;
    }

    /// Requests under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Requests that wait to be repeated.
    pub fn retrying(&self) -> usize {
        self.retries.len()
    }

    /// Records in those requests.
    pub fn records_in_flight(&self) -> usize {
        self.records_in_flight
    }

    /// Records of an entity that wait in memory for a parent.
    pub fn parked_of(&self, entity: &str) -> u64 {
        let Some(entity) = self.entity(entity) else { return 0 };
        let slots = self.parked.iter().map(|p| p.slot);
        slots.filter(|slot| self.queue.name(*slot).is_some_and(|(e, _)| e == entity)).count() as u64
    }

    /// Failures of whole requests in a row.
    pub fn failures(&self) -> u32 {
        self.pacing.failures()
    }

    /// Pacing, to be asked and told about the daily quota.
    pub fn pacing_mut(&mut self) -> &mut Pacing {
        &mut self.pacing
    }

    /// Why nothing was sent at the last call of [`Loader::next_request`].
    pub fn waiting(&self) -> Option<Wait> {
        self.wait
    }

    /// Time that the CRM asked us to pause since the last call.
    pub fn take_throttled(&mut self) -> Duration {
        std::mem::take(&mut self.throttled)
    }

    /// What followed from the calls so far.
    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// The next request that may leave now. Call again until it gives `None`.
    pub fn next_request(&mut self, now: Now) -> Option<Request> {
        self.wait = None;
        if self.paused {
            return None;
        }
        self.wake(now);
        if let Some(index) = self.retries.iter().position(|(due, _)| *due <= now.instant) {
            return match self.pacing.acquire(now.instant, now.unix_ms, self.in_flight) {
                Ok(()) => {
                    let request = self.retries.swap_remove(index).1;
                    self.in_flight += 1;
                    self.records_in_flight += request.items.len();
                    Some(request)
                }
                Err(wait) => self.not_now(wait),
            };
        }
        let entity = self.pick_entity(now)?;
        if let Err(wait) = self.pacing.acquire(now.instant, now.unix_ms, self.in_flight) {
            return self.not_now(wait);
        }
        let request = self.assemble(entity)?;
        self.in_flight += 1;
        self.records_in_flight += request.items.len();
        Some(request)
    }

    /// When [`Loader::next_request`] should be called again although nothing happened.
    pub fn wake_at(&self) -> Option<Instant> {
        // Nothing but an answer, an operator or the next day can help; the regular look around is often enough.
        if self.paused || matches!(self.wait, Some(Wait::InFlight | Wait::Quota)) {
            return None;
        }
        let batches = (0..self.entities.len())
            .filter_map(|e| self.queue.oldest_ready(e as EntityId))
            .map(|t| t + self.options.batch_wait);
        let retries = self.retries.iter().map(|(due, _)| *due);
        let resting = self.resting.iter().map(|(due, _)| *due);
        let parked = self.parked.iter().map(|p| p.at + PARK_IN_MEMORY);
        let pause = match self.wait {
            Some(Wait::Until(until)) => Some(until),
            _ => None,
        };
        batches.chain(retries).chain(resting).chain(parked).min().max(pause)
    }

    /// Takes the answer to a request.
    pub fn answered(&mut self, mut request: Request, answer: crm::Result<Vec<Outcome>>, now: Now) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.records_in_flight = self.records_in_flight.saturating_sub(request.items.len());
        match answer {
            Ok(outcomes) => {
                self.pacing.succeeded();
                let mut outcomes = outcomes.into_iter();
                for item in request.items {
                    // An answer that does not account for every record leaves the rest unknown, never done.
                    self.outcome(request.entity, item, outcomes.next().unwrap_or(Outcome::Unknown), now);
                }
            }
            Err(error) => match error.kind {
                CrmErrorKind::Throttled => {
                    let pause = self.pacing.throttled(now.instant, error.retry_after);
                    self.throttled += pause;
                    self.retries.push((now.instant + pause, request));
                }
                CrmErrorKind::Unavailable | CrmErrorKind::Unknown => self.failed(request, error, now),
                CrmErrorKind::TooLarge if request.items.len() > 1 => {
                    self.batch_records = (request.items.len() / 2).max(1);
                    self.halve(request, now);
                }
                CrmErrorKind::Refused if request.items.len() > 1 => self.halve(request, now),
                CrmErrorKind::TooLarge | CrmErrorKind::Refused => {
                    let code = if error.kind == CrmErrorKind::TooLarge { "too_large" } else { "refused" };
                    let reason = CrmRejection { code: code.into(), field: None, message: error.message.into() };
                    for item in request.items.drain(..) {
                        self.reject(request.entity, item, reason.clone());
                    }
                }
                CrmErrorKind::Unauthorized | CrmErrorKind::Forbidden | CrmErrorKind::Contract => {
                    // Nothing of it is settled: after the fix it is sent again.
                    self.retries.push((now.instant + self.options.retry.max, request));
                    self.effects.push(Effect::Fatal(error));
                }
            },
        }
    }

    fn not_now<T>(&mut self, wait: Wait) -> Option<T> {
        self.wait = Some(wait);
        None
    }

    /// Entities take turns, so that a busy one does not starve the others.
    fn pick_entity(&mut self, now: Now) -> Option<EntityId> {
        let count = self.entities.len();
        for step in 0..count {
            let entity = ((self.turn + step) % count) as EntityId;
            let ready = self.queue.ready(entity);
            let is_due = ready >= self.batch_records
                || (ready > 0 && self.hurry)
                || self
                    .queue
                    .oldest_ready(entity)
                    .is_some_and(|since| now.instant.saturating_duration_since(since) >= self.options.batch_wait);
            if is_due {
                self.turn = (usize::from(entity) + 1) % count;
                return Some(entity);
            }
        }
        None
    }

    fn assemble(&mut self, entity: EntityId) -> Option<Request> {
        let mut items: Vec<Item> = Vec::new();
        let mut is_delete = None;
        let mut bytes = 0;
        let mut other_kind = Vec::new();
        while items.len() < self.batch_records && bytes < BATCH_BYTES && other_kind.len() < self.batch_records {
            let Some(slot) = self.queue.next_ready(entity) else { break };
            let Some(change) = self.queue.open(slot) else { continue };
            let deletes = matches!(change.op, Op::Delete);
            if *is_delete.get_or_insert(deletes) != deletes {
                other_kind.push(slot);
                continue;
            }
            if self.settle_without_sending(entity, slot) || self.wait_for_parent(slot) {
                if items.is_empty() {
                    is_delete = None;
                }
                continue;
            }
            let Some((_, external_id)) = self.queue.name(slot) else { continue };
            let external_id = Box::from(external_id);
            let Some(change) = self.queue.take(slot) else { continue };
            bytes += change.op.document().map_or(0, Document::memory);
            items.push(Item { slot, external_id, change });
        }
        for slot in other_kind.into_iter().rev() {
            self.queue.unread(slot);
        }
        (!items.is_empty()).then(|| Request { entity, is_delete: is_delete.unwrap_or(false), items, attempt: 0 })
    }

    /// What the ledger says needs no request (P10), and a partial document that the CRM has no base for.
    fn settle_without_sending(&mut self, entity: EntityId, slot: SlotId) -> bool {
        let (Some(change), Some((_, external_id))) = (self.queue.open(slot), self.queue.name(slot)) else {
            return true;
        };
        if change.noted && matches!(&change.op, Op::Upsert(document, _) if !document.is_partial()) {
            return false;
        }
        let known = self.ledger.hash(change.rule, external_id);
        let needs_row = match &change.op {
            Op::Upsert(document, _) if document.is_partial() => match known {
                Some(hash) if hash != NOTED => return false,
                _ => true,
            },
            // The CRM has never had it.
            Op::Delete | Op::Archive(_) if change.noted => false,
            Op::Upsert(document, _) if change.force || known != Some(document.hash()) => return false,
            Op::Delete | Op::Archive(_) if change.force || known.is_some() || self.ledger.is_incomplete() => {
                return false;
            }
            Op::Upsert(..) | Op::Delete | Op::Archive(_) => false,
        };
        let external_id: Box<str> = external_id.into();
        let Some(change) = self.queue.take(slot) else { return true };
        if needs_row {
            self.oblige(change, external_id, Why::Partial);
            self.done(slot);
            return true;
        }
        match change.op {
            Op::Upsert(..) => self.ledger.seen(change.rule, &external_id, change.generation),
            _ if change.noted => self.ledger.removed(change.rule, &external_id),
            _ => {}
        }
        self.settled(entity, Item { slot, external_id, change }, Fate::Suppressed);
        true
    }

    /// A child is not sent before a parent that is still queued or under way. Two records that wait for each other
    /// would wait for ever, so nobody waits for one that waits itself: the CRM decides then.
    fn wait_for_parent(&mut self, slot: SlotId) -> bool {
        let Some(Op::Upsert(_, references)) = self.queue.open(slot).map(|c| &c.op) else { return false };
        let parent = references.iter().find_map(|reference| {
            let parent = self.queue.find(*self.by_name.get(&reference.entity)?, &reference.external_id)?;
            (parent != slot && !self.queue.is_held(parent)).then_some(parent)
        });
        let Some(parent) = parent else { return false };
        self.queue.hold(slot);
        self.behind.entry(parent).or_default().push(slot);
        true
    }

    fn outcome(&mut self, entity: EntityId, item: Item, outcome: Outcome, now: Now) {
        match outcome {
            Outcome::Done(done) => self.accept(entity, item, done),
            Outcome::Stale => {
                // Somebody wrote a newer version; what the CRM holds now is not known here.
                let change = &item.change;
                self.ledger.accepted(change.rule, &item.external_id, &change.key, 0, change.generation);
                self.settled(entity, item, Fate::Stale);
            }
            Outcome::Rejected(reason) if &*reason.code == MISSING_REFERENCE => {
                self.without_parent(entity, item, reason, now)
            }
            Outcome::Rejected(reason) => self.reject(entity, item, reason),
            Outcome::Unknown => self.unclear(item, now),
        }
    }

    fn accept(&mut self, entity: EntityId, item: Item, done: Done) {
        match &item.change.op {
            Op::Upsert(..) if item.change.again => return self.accept_first_half(entity, item),
            Op::Upsert(document, _) => {
                let hash = if document.is_partial() { 0 } else { document.hash() };
                let change = &item.change;
                self.ledger.accepted(change.rule, &item.external_id, &change.key, hash, change.generation);
                if matches!(done, Done::Created | Done::Updated | Done::Unchanged) {
                    self.parent_landed(entity, &item.external_id);
                }
            }
            Op::Delete | Op::Archive(_) => self.ledger.removed(item.change.rule, &item.external_id),
        }
        self.settled(entity, item, Fate::Delivered);
    }

    /// A record of a circle is there, without the reference that closes it: the others go on, and it is sent once more.
    fn accept_first_half(&mut self, entity: EntityId, item: Item) {
        let change = item.change;
        self.ledger.accepted(change.rule, &item.external_id, &change.key, 0, change.generation);
        self.parent_landed(entity, &item.external_id);
        self.effects.push(Effect::Obligation {
            rule: change.rule,
            key: change.key,
            external_id: item.external_id,
            reason: Why::Partial,
            since_ms: change.since_ms,
            attempts: 0,
            is_delivered: true,
            origins: change.origins,
        });
        self.done(item.slot);
    }

    fn settled(&mut self, entity: EntityId, item: Item, fate: Fate) {
        if let Some(left_out) = item.change.left_out.filter(|l| !l.parents.is_empty() && !item.change.op.is_removal()) {
            let (rule, key) = (item.change.rule, item.change.key.clone());
            self.effects.push(Effect::LeftOut { rule, key, external_id: item.external_id.clone(), left_out });
        }
        self.effects.push(Effect::Settled {
            entity,
            rule: item.change.rule,
            key: item.change.key,
            external_id: item.external_id,
            is_delete: item.change.op.is_removal(),
            fate,
            origins: item.change.origins,
        });
        self.done(item.slot);
    }

    fn reject(&mut self, entity: EntityId, item: Item, reason: CrmRejection) {
        self.not_accepted(&item.change, &item.external_id);
        self.effects.push(Effect::DeadLetter {
            entity,
            rule: item.change.rule,
            key: item.change.key,
            external_id: item.external_id,
            is_delete: item.change.op.is_removal(),
            reason,
            attempts: u32::from(item.change.attempts) + 1,
            origins: item.change.origins,
        });
        self.done(item.slot);
    }

    /// The CRM does not know a record that this one refers to.
    fn without_parent(&mut self, entity: EntityId, mut item: Item, reason: CrmRejection, now: Now) {
        let gave_up = self.gave_up(&item.change, now);
        let Op::Upsert(document, references) = &mut item.change.op else { return self.reject(entity, item, reason) };
        let at_fault = references
            .iter()
            .position(|r| reason.field.as_deref().is_some_and(|f| f == &*r.field))
            .or((references.len() == 1).then_some(0));
        let Some(index) = at_fault else { return self.reject(entity, item, reason) };
        // A record that refers to itself would wait for itself.
        let itself = &references[index];
        let is_itself = itself.external_id == item.external_id && *itself.entity == *self.entities[usize::from(entity)];
        match references[index].missing {
            Missing::Wait | Missing::Later if is_itself || references[index].missing == Missing::Later => {
                let field = references.remove(index).field;
                match document.with_null(&field) {
                    Some(without) => {
                        *document = without;
                        item.change.again = true;
                        self.queue.put_back(item.slot, item.change);
                    }
                    None => self.reject(entity, item, reason),
                }
            }
            Missing::Reject => self.reject(entity, item, reason),
            Missing::Wait if gave_up => self.reject(entity, item, reason),
            Missing::Wait => {
                let Reference { entity: parent, external_id: parent_id, .. } = references[index].clone();
                item.change.attempts = item.change.attempts.saturating_add(1);
                self.queue.put_back(item.slot, item.change);
                self.queue.hold(item.slot);
                self.parked.push(Parked { slot: item.slot, at: now.instant, entity: parent, external_id: parent_id });
            }
            Missing::Null | Missing::Later => {
                let Reference { field, entity: parent, external_id: parent_id, .. } = references.remove(index);
                item.change.left_out.get_or_insert_default().parents.push((parent, parent_id));
                match document.with_null(&field) {
                    Some(without) => {
                        *document = without;
                        self.queue.put_back(item.slot, item.change);
                    }
                    None => self.reject(entity, item, reason),
                }
            }
        }
    }

    fn unclear(&mut self, mut item: Item, now: Now) {
        item.change.attempts = item.change.attempts.saturating_add(1);
        item.change.noted = false;
        let attempts = item.change.attempts;
        if self.gave_up(&item.change, now) {
            let entity = self.queue.name(item.slot).map_or(0, |(entity, _)| entity);
            let reason = CrmRejection {
                code: "no_answer".into(),
                field: None,
                message: format!("the CRM gave no clear answer about this record in {attempts} tries").into(),
            };
            return self.reject(entity, item, reason);
        }
        if attempts >= UNCLEAR_LIMIT {
            self.oblige(item.change, item.external_id, Why::Unclear);
            return self.done(item.slot);
        }
        // What was sent may have been applied: the ledger's word about this record no longer counts.
        item.change.force = true;
        let rest = self.pacing.backoff(u32::from(attempts));
        self.queue.put_back(item.slot, item.change);
        self.queue.hold(item.slot);
        self.resting.push((now.instant + rest, item.slot));
    }

    /// A request failed as a whole without saying whose fault it is.
    fn failed(&mut self, mut request: Request, error: CrmError, now: Now) {
        request.attempt += 1;
        let pause = self.pacing.failed(now.instant);
        // No clear answer again and again may be the fault of one record in it, or of its size.
        let may_be_a_record = error.kind == CrmErrorKind::Unknown && request.attempt >= 3;
        if may_be_a_record && request.items.len() > 1 {
            request.attempt = 0;
            return self.halve(request, now);
        }
        // Alone, and failing while others get through: out of the way, and tried again from the source later.
        let alone = request.items.len() == 1 && request.attempt > u32::from(UNCLEAR_LIMIT);
        if may_be_a_record && alone && self.pacing.failures() < request.attempt {
            for mut item in request.items {
                item.change.attempts = UNCLEAR_LIMIT;
                item.change.force = true;
                self.unclear(item, now);
            }
            return;
        }
        for item in &mut request.items {
            item.change.force = true;
            item.change.noted = false;
        }
        self.retries.push((now.instant + pause, request));
    }

    fn halve(&mut self, mut request: Request, now: Now) {
        let second = request.items.split_off(request.items.len() / 2);
        let (entity, is_delete, attempt) = (request.entity, request.is_delete, request.attempt);
        for items in [request.items, second] {
            self.retries.push((now.instant, Request { entity, is_delete, items, attempt }));
        }
    }

    fn gave_up(&self, change: &Pending, now: Now) -> bool {
        u128::from(now.unix_ms.saturating_sub(change.since_ms)) >= self.options.retry.give_up_after.as_millis()
    }

    /// The record is not as it should be, but the source still has the row: a sweep must not take it for gone. If a try
    /// before this one was not clearly answered, the CRM may hold the record: a later removal must not be saved.
    fn not_accepted(&self, change: &Pending, external_id: &str) {
        if change.noted {
            self.ledger.removed(change.rule, external_id);
        } else if change.force {
            self.ledger.accepted(change.rule, external_id, &change.key, 0, change.generation);
        } else {
            self.ledger.seen(change.rule, external_id, change.generation);
        }
    }

    fn oblige(&mut self, change: Pending, external_id: Box<str>, reason: Why) {
        self.not_accepted(&change, &external_id);
        self.effects.push(Effect::Obligation {
            rule: change.rule,
            key: change.key,
            external_id,
            reason,
            since_ms: change.since_ms,
            attempts: u32::from(change.attempts) + 1,
            is_delivered: false,
            origins: change.origins,
        });
    }

    /// A record's lane is free again: those that waited behind it go on.
    fn done(&mut self, slot: SlotId) {
        self.queue.settle(slot);
        if !self.behind.is_empty()
            && let Some(children) = self.behind.remove(&slot)
        {
            for child in children {
                self.queue.release(child);
            }
        }
    }

    fn parent_landed(&mut self, entity: EntityId, external_id: &str) {
        if self.parked.is_empty() {
            return;
        }
        let name = self.entities.get(usize::from(entity)).cloned().unwrap_or_default();
        let (landed, still): (Vec<_>, Vec<_>) =
            self.parked.drain(..).partition(|p| p.entity == name && &*p.external_id == external_id);
        self.parked = still;
        for parked in landed {
            self.queue.release(parked.slot);
        }
    }

    /// Records whose waiting time is over.
    fn wake(&mut self, now: Now) {
        let mut index = 0;
        while index < self.resting.len() {
            if self.resting[index].0 <= now.instant {
                let (_, slot) = self.resting.swap_remove(index);
                self.queue.release(slot);
            } else {
                index += 1;
            }
        }
        let mut index = 0;
        while index < self.parked.len() {
            if self.parked[index].at + PARK_IN_MEMORY <= now.instant {
                let Parked { slot, entity, external_id, .. } = self.parked.swap_remove(index);
                let name = self.queue.name(slot).map(|(_, id)| Box::<str>::from(id));
                if let (Some(name), Some(change)) = (name, self.queue.withdraw(slot)) {
                    self.oblige(change, name, Why::Parent { entity, external_id });
                    self.done(slot);
                }
            } else {
                index += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
