//! Lanes and stages: what waits to be sent, at most one change per record and stage.
//!
//! # One lane per record
//!
//! A record (entity, external id) has one slot. While a request for it is under way the slot is *in flight*, and
//! nothing newer of it leaves (P2). What arrives meanwhile is folded: the last change wins and carries the origins
//! (tickets) of those it replaced, so that they are settled with it (P1, P10).
//!
//! # Three stages before a record may be sent
//!
//! A change from the tail may only be sent once a durable record says that changes up to its place may have been sent
//! (`Checkpoint::dispatched`); otherwise a crash could replay an older change after it. So a change is first *fresh*;
//! when a checkpoint step begins, all fresh changes become *frozen* (the step names a place at or after them); when the
//! step is durable they become *open*. Freezing instead of comparing numbers keeps a record that changes all the time
//! from being postponed for ever: what is frozen is not replaced by what comes later.
//!
//! Changes that no replay can contradict (snapshot rows of keys the tail has not spoken about) are open at once.

use crate::document::Document;
use crate::mapping::{Reference, RuleId};
use hashbrown::HashTable;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::time::Instant;
use tidemark_contract::RowKey;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A change whose place a later one of the same record took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replaced {
    /// Whether it was a removal.
    pub is_delete: bool,
}

/// Number of an entity within the mapping: dense.
pub type EntityId = u16;

/// Where a change came from, and so what has to happen when it is settled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Origin {
    /// The tail, with its ticket.
    Ticket(u64),
    /// A snapshot chunk of a table.
    Chunk {
        /// The table's number.
        table: u16,
        /// The chunk's number within the table.
        chunk: u32,
    },
    /// A row that was read again for an obligation, with the number of that read.
    Reread(u64),
    /// A record swept after a full pass over a table.
    Sweep {
        /// The table's number.
        table: u16,
    },
    /// Nothing waits for it.
    None,
}

/// What to do with a record.
#[derive(Debug)]
pub enum Op {
    /// Create or update it.
    Upsert(Document, Vec<Reference>),
    /// Write these fields to a record whose row is gone; unknown records are left alone, and it is forgotten after.
    Archive(Document),
    /// Remove it.
    Delete,
}

impl Op {
    /// Whether the record's row is gone.
    pub fn is_removal(&self) -> bool {
        matches!(self, Op::Delete | Op::Archive(_))
    }

    /// What is written.
    pub fn document(&self) -> Option<&Document> {
        match self {
            Op::Upsert(document, _) | Op::Archive(document) => Some(document),
            Op::Delete => None,
        }
    }

    /// The word used in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Op::Upsert(..) | Op::Archive(_) => "upsert",
            Op::Delete => "delete",
        }
    }

    fn memory(&self) -> usize {
        match self {
            Op::Upsert(document, references) => {
                document.memory()
                    + references.iter().map(|r| size_of::<Reference>() + r.external_id.len()).sum::<usize>()
            }
            Op::Archive(document) => document.memory(),
            Op::Delete => 0,
        }
    }
}

/// References that a record was sent without.
#[derive(Clone, Debug, Default)]
pub struct LeftOut {
    /// Entity and external id of each parent.
    pub parents: Vec<(Box<str>, Box<str>)>,
    /// How often it was read again for them, in vain.
    pub attempts: u32,
}

/// One change of one record that was not accepted yet.
#[derive(Debug)]
pub struct Pending {
    /// The rule that made it.
    pub rule: RuleId,
    /// The source row's key.
    pub key: RowKey,
    /// What to do.
    pub op: Op,
    /// Fencing number.
    pub version: u64,
    /// The table's pass in which the row was seen: what a sweep of a later pass may take for gone.
    pub generation: u32,
    /// What is settled with it.
    pub origins: SmallVec<[Origin; 1]>,
    /// Send even if the ledger says that nothing would change: what the ledger says may be older than what a request
    /// before a crash has done.
    pub force: bool,
    /// It lacks a reference to open a circle: once it is accepted, the record is read and sent again.
    pub again: bool,
    /// References that were left out because the CRM lacks their parents: when one lands, the record is read and sent again.
    pub left_out: Option<Box<LeftOut>>,
    /// The ledger did not know the record when this was queued, and nothing of the record has been sent since, or only what
    /// the CRM has clearly refused: all that the ledger has is the note that it is about to be ([`super::NOTED`]).
    pub noted: bool,
    /// Times it was sent without a clear answer about this record.
    pub attempts: u16,
    /// When it was queued, for the batch's waiting time.
    pub queued: Instant,
    /// When this record's trouble began (ms since 1970), for giving up; when it was queued if there is none.
    pub since_ms: u64,
}

impl Pending {
    fn memory(&self) -> usize {
        size_of::<Self>() + self.key.as_bytes().len() + self.op.memory()
    }

    /// `self` after `older`, when neither was sent: the newer change with the older one's origins. A partial document
    /// keeps what the older one said of the fields it lacks.
    fn over(mut self, older: Pending) -> Pending {
        self.op = match (self.op, older.op) {
            (Op::Upsert(new, references), Op::Upsert(old, old_references)) if new.is_partial() => {
                // References of fields that the newer document does not carry are still what the older one said.
                let mut references = references;
                for reference in old_references {
                    if !references.iter().any(|r| r.field == reference.field) {
                        references.push(reference);
                    }
                }
                self.again |= older.again;
                if let Some(left_out) = older.left_out {
                    self.left_out.get_or_insert_default().parents.extend(left_out.parents);
                }
                Op::Upsert(new.over(&old), references)
            }
            (op, _) => op,
        };
        self.origins.extend(older.origins);
        self.force |= older.force;
        self.noted |= older.noted;
        self.queued = older.queued;
        self
    }
}

/// Number of a slot.
pub type SlotId = u32;

#[derive(Debug)]
struct Slot {
    entity: EntityId,
    /// Of the external id.
    hash: u64,
    external_id: Box<str>,
    open: Option<Box<Pending>>,
    frozen: Option<Box<Pending>>,
    fresh: Option<Box<Pending>>,
    in_flight: bool,
    /// Held back: waits for a parent or for its own retry time.
    held: bool,
    /// In the entity's ready list.
    listed: bool,
    /// Was withdrawn: its number may still stand in a list.
    withdrawn: bool,
}

impl Slot {
    fn is_idle(&self) -> bool {
        !self.in_flight && self.open.is_none() && self.frozen.is_none() && self.fresh.is_none()
    }
}

/// Whether a slot is that of a record with this external id.
fn named(slots: &[Option<Slot>], id: SlotId, external_id: &str) -> bool {
    slots.get(id as usize).and_then(Option::as_ref).is_some_and(|slot| *slot.external_id == *external_id)
}

#[derive(Debug, Default)]
struct Lane {
    /// By external id, which only the slots hold.
    by_id: HashTable<SlotId>,
    ready: VecDeque<SlotId>,
}

/// All changes that are not accepted yet.
#[derive(Debug, Default)]
pub struct Queue {
    /// Another one in each process: nobody can choose external ids whose hashes collide.
    seed: u64,
    lanes: Vec<Lane>,
    slots: Vec<Option<Slot>>,
    free: Vec<SlotId>,
    fresh: Vec<SlotId>,
    frozen: Vec<SlotId>,
    bytes: usize,
    records: usize,
}

impl Queue {
    /// An empty queue for `entities` entities.
    pub fn new(entities: usize) -> Self {
        Self { seed: rand::random(), lanes: (0..entities).map(|_| Lane::default()).collect(), ..Self::default() }
    }

    /// Bytes held by changes that are not under way.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records with something queued or under way.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Whether nothing is queued or under way.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Whether changes wait for a step to begin.
    pub fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Whether all that is queued or under way waits for a step to begin.
    pub fn is_all_fresh(&self) -> bool {
        self.fresh.len() >= self.records
    }

    /// The slot of a record, if something of it is queued or under way.
    pub fn find(&self, entity: EntityId, external_id: &str) -> Option<SlotId> {
        let lane = self.lanes.get(usize::from(entity))?;
        lane.by_id.find(self.hash(external_id), |&id| named(&self.slots, id, external_id)).copied()
    }

    fn hash(&self, external_id: &str) -> u64 {
        xxh3_64_with_seed(external_id.as_bytes(), self.seed)
    }

    /// Queues a change, which may be sent after the next step that begins from now on. Returns the one it replaced.
    pub fn push(&mut self, entity: EntityId, external_id: Box<str>, change: Pending) -> Option<Replaced> {
        let id = self.slot_for(entity, external_id);
        let mut change = Box::new(change);
        let mut folded = None;
        let slot = self.slots.get_mut(id as usize).and_then(Option::as_mut)?;
        if let Some(older) = slot.fresh.take() {
            self.bytes -= older.memory();
            folded = Some(Replaced { is_delete: matches!(older.op, Op::Delete) });
            change = Box::new(change.over(*older));
        }
        self.bytes += change.memory();
        slot.fresh = Some(change);
        if folded.is_none() {
            self.fresh.push(id);
        }
        folded
    }

    /// Puts a change back at the front of its lane's stages after an unclear answer: it is older than everything that
    /// is queued for the record, so what is open already is folded over it.
    pub fn put_back(&mut self, id: SlotId, change: Pending) {
        let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::as_mut) else { return };
        slot.in_flight = false;
        let change = match slot.open.take() {
            Some(newer) => {
                self.bytes -= newer.memory();
                newer.over(change)
            }
            None => change,
        };
        self.bytes += change.memory();
        slot.open = Some(Box::new(change));
        self.list(id);
    }

    /// A step begins: everything fresh is covered by it.
    pub fn freeze(&mut self) {
        debug_assert!(self.frozen.is_empty(), "one step at a time");
        self.frozen = std::mem::take(&mut self.fresh);
        for &id in &self.frozen {
            if let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::as_mut) {
                // A number may stand here twice after a withdrawal; the second must not undo the first.
                if let Some(change) = slot.fresh.take() {
                    slot.frozen = Some(change);
                }
            }
        }
    }

    /// The step is durable: what was frozen may be sent. Returns the entities of changes that were folded.
    pub fn thaw(&mut self) -> Vec<(EntityId, Replaced)> {
        let mut folded = Vec::new();
        for id in std::mem::take(&mut self.frozen) {
            let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::as_mut) else { continue };
            let Some(newer) = slot.frozen.take() else { continue };
            slot.open = Some(match slot.open.take() {
                Some(older) => {
                    self.bytes -= newer.memory() + older.memory();
                    folded.push((slot.entity, Replaced { is_delete: matches!(older.op, Op::Delete) }));
                    let merged = newer.over(*older);
                    self.bytes += merged.memory();
                    Box::new(merged)
                }
                None => newer,
            });
            self.list(id);
        }
        folded
    }

    /// The next sendable record of an entity, in the order in which records became ready. The caller must
    /// [`Queue::take`] it, [`Queue::hold`] it or [`Queue::settle`] it.
    pub fn next_ready(&mut self, entity: EntityId) -> Option<SlotId> {
        loop {
            let id = self.lanes.get_mut(usize::from(entity))?.ready.pop_front()?;
            if let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::as_mut)
                && slot.listed
            {
                slot.listed = false;
                if !slot.in_flight && !slot.held && slot.open.is_some() {
                    return Some(id);
                }
            }
        }
    }

    /// Puts a record that [`Queue::next_ready`] gave back to the front of its list.
    pub fn unread(&mut self, id: SlotId) {
        if let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::as_mut)
            && !slot.listed
        {
            slot.listed = true;
            let entity = usize::from(slot.entity);
            self.lanes[entity].ready.push_front(id);
        }
    }

    /// Records of an entity that look ready (some may have been held since).
    pub fn ready(&self, entity: EntityId) -> usize {
        self.lanes.get(usize::from(entity)).map_or(0, |lane| lane.ready.len())
    }

    /// When the oldest ready change of an entity was queued.
    pub fn oldest_ready(&self, entity: EntityId) -> Option<Instant> {
        let lane = self.lanes.get(usize::from(entity))?;
        let slot = self.slots.get(*lane.ready.front()? as usize)?.as_ref()?;
        slot.open.as_ref().map(|p| p.queued)
    }

    /// The sendable change of a record.
    pub fn open(&self, id: SlotId) -> Option<&Pending> {
        self.slots.get(id as usize)?.as_ref()?.open.as_deref()
    }

    /// Entity and external id of a record.
    pub fn name(&self, id: SlotId) -> Option<(EntityId, &str)> {
        self.slots.get(id as usize)?.as_ref().map(|slot| (slot.entity, &*slot.external_id))
    }

    /// Takes the sendable change out and marks the record as under way.
    pub fn take(&mut self, id: SlotId) -> Option<Pending> {
        let slot = self.slots.get_mut(id as usize)?.as_mut()?;
        let change = slot.open.take()?;
        slot.in_flight = true;
        self.bytes -= change.memory();
        Some(*change)
    }

    /// The change that was taken is done with: the record may go on with what came meanwhile.
    pub fn settle(&mut self, id: SlotId) {
        let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::as_mut) else { return };
        slot.in_flight = false;
        if slot.is_idle() {
            self.drop_slot(id);
        } else {
            self.list(id);
        }
    }

    /// Whether a record waits for something other than its turn.
    pub fn is_held(&self, id: SlotId) -> bool {
        self.slots.get(id as usize).and_then(Option::as_ref).is_some_and(|slot| slot.held)
    }

    /// Whether a request for a record is under way.
    pub fn is_in_flight(&self, id: SlotId) -> bool {
        self.slots.get(id as usize).and_then(Option::as_ref).is_some_and(|slot| slot.in_flight)
    }

    /// Keeps a record from being sent until [`Queue::release`].
    pub fn hold(&mut self, id: SlotId) {
        if let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::as_mut) {
            slot.held = true;
        }
    }

    /// Ends [`Queue::hold`].
    pub fn release(&mut self, id: SlotId) {
        if let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::as_mut) {
            slot.held = false;
            self.list(id);
        }
    }

    /// Takes everything that is queued for a record and not under way (to be replaced by a durable obligation).
    pub fn withdraw(&mut self, id: SlotId) -> Option<Pending> {
        let slot = self.slots.get_mut(id as usize)?.as_mut()?;
        let mut all: Option<Pending> = None;
        // An emptied fresh or frozen stage leaves its number in the lists; freeze and thaw pass over it.
        for stage in [slot.open.take(), slot.frozen.take(), slot.fresh.take()].into_iter().flatten() {
            self.bytes -= stage.memory();
            all = Some(match all {
                Some(older) => stage.over(older),
                None => *stage,
            });
        }
        slot.held = false;
        slot.withdrawn = true;
        if slot.is_idle() {
            self.drop_slot(id);
        }
        all
    }

    fn slot_for(&mut self, entity: EntityId, external_id: Box<str>) -> SlotId {
        let hash = self.hash(&external_id);
        let lane = &mut self.lanes[usize::from(entity)];
        if let Some(&id) = lane.by_id.find(hash, |&id| named(&self.slots, id, &external_id)) {
            return id;
        }
        let slot = Slot {
            entity,
            hash,
            external_id,
            open: None,
            frozen: None,
            fresh: None,
            in_flight: false,
            held: false,
            listed: false,
            withdrawn: false,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.slots[id as usize] = Some(slot);
                id
            }
            None => {
                self.slots.push(Some(slot));
                (self.slots.len() - 1) as SlotId
            }
        };
        let slots = &self.slots;
        lane.by_id.insert_unique(hash, id, |&id| slots.get(id as usize).and_then(Option::as_ref).map_or(0, |s| s.hash));
        self.records += 1;
        id
    }

    fn drop_slot(&mut self, id: SlotId) {
        if let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::take) {
            if let Ok(entry) = self.lanes[usize::from(slot.entity)].by_id.find_entry(slot.hash, |&other| other == id) {
                entry.remove();
            }
            self.records -= 1;
            // A number that still stands in a list must not be given to another record.
            if slot.withdrawn {
                self.lanes[usize::from(slot.entity)].ready.retain(|&other| other != id);
                self.frozen.retain(|&other| other != id);
                self.fresh.retain(|&other| other != id);
            }
            self.free.push(id);
        }
    }

    fn list(&mut self, id: SlotId) {
        if let Some(slot) = self.slots.get_mut(id as usize).and_then(Option::as_mut)
            && slot.open.is_some()
            && !slot.listed
            && !slot.in_flight
            && !slot.held
        {
            slot.listed = true;
            self.lanes[usize::from(slot.entity)].ready.push_back(id);
        }
    }
}
