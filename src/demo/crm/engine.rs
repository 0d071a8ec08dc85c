//! The CRM itself: batches in, results out, in the words of the contract.
//!
//! A batch is parsed and checked before the lock is taken, and applied under it as one transaction of the store; its
//! `Idempotency-Key` is looked up and remembered under the same lock, so that two tries of one write that arrive at the
//! same time are one write.

use super::faults::Switches;
use super::model::Model;
use super::record::{Fields, Status, Stored, Version, patch, push_text};
use super::store::{Result as StoreResult, Store};
use super::validate::{self, Refusal, Wanted};
use super::watch::{Counters, Event, Feed, History, Past, Results, now_ms};
use crate::crm::EntitySchema;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use xxhash_rust::xxh3::Xxh3;

/// Longest external id, in bytes.
const EXTERNAL_ID: usize = 2_000;
/// Answers remembered by their `Idempotency-Key`: number and bytes.
const ANSWERS: usize = 10_000;
const ANSWER_BYTES: usize = 32 * 1024 * 1024;
/// A listing ends early at this size.
const LISTING_BYTES: usize = 8 * 1024 * 1024;

/// The two writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    Upsert,
    Delete,
}

/// An answer to a call of the contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub status: u16,
    pub body: Bytes,
}

impl Reply {
    pub fn problem(status: u16, code: &str, message: &str) -> Self {
        let mut body = b"{\"error\":{\"code\":".to_vec();
        push_text(&mut body, code);
        body.extend_from_slice(b",\"message\":");
        push_text(&mut body, message);
        body.extend_from_slice(b"}}");
        Self { status, body: body.into() }
    }
}

/// The CRM.
pub(super) struct Engine {
    pub model: Model,
    max_records: usize,
    slow: bool,
    state: Mutex<State>,
}

/// What is behind the lock.
pub(super) struct State {
    store: Box<dyn Store>,
    next_id: u64,
    pub counts: BTreeMap<Box<str>, u64>,
    answers: Answers,
    pub history: History,
    pub feed: Feed,
    pub counters: Counters,
    pub switches: Switches,
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    records: Vec<RecordIn<'a>>,
}

#[derive(Deserialize)]
struct RecordIn<'a> {
    #[serde(borrow)]
    external_id: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Option<&'a RawValue>,
    #[serde(borrow, default)]
    fields: Option<&'a RawValue>,
}

/// A record of a request, checked as far as that can be done without looking at others.
struct Prepared<'a, 'm> {
    external_id: Cow<'a, str>,
    version: Version,
    fields: Fields<'a>,
    checked: Result<Vec<Wanted<'m>>, Refusal>,
}

/// What a write did, to be told once it is committed.
struct Note {
    /// What happened.
    done: Status,
    /// What is answered.
    said: Status,
    changes: Box<[u8]>,
    refusal: Option<Refusal>,
    id: Option<u64>,
    /// The version is lower than the stored one, or the same.
    lower: bool,
    repeated: bool,
}

impl Note {
    fn refused(refusal: Option<Refusal>) -> Self {
        let changes = Box::default();
        Self {
            done: Status::Rejected,
            said: Status::Rejected,
            changes,
            refusal,
            id: None,
            lower: false,
            repeated: false,
        }
    }

    fn is(mut self, status: Status) -> Self {
        self.done = status;
        self.said = status;
        self
    }
}

impl Engine {
    pub fn new(model: Model, mut store: Box<dyn Store>, max_records: usize, history: History) -> StoreResult<Self> {
        let counts = store.counts()?;
        let next_id = store.last_id()? + 1;
        let slow = store.is_slow();
        let state = State {
            store,
            next_id,
            counts,
            answers: Answers::default(),
            history,
            feed: Feed::default(),
            counters: Counters::default(),
            switches: Switches::default(),
        };
        Ok(Self { model, max_records, slow, state: Mutex::new(state) })
    }

    /// Whether calls may wait for a disk.
    pub fn is_slow(&self) -> bool {
        self.slow
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a batch. `few` leaves results out of the answer.
    pub fn write(&self, op: Op, entity: &str, key: Option<&str>, body: &[u8], few: bool) -> Reply {
        let Some(schema) = self.model.entity(entity) else { return no_entity(entity) };
        let request: Request<'_> = match serde_json::from_slice(body) {
            Ok(request) => request,
            Err(error) => {
                return Reply::problem(400, "malformed", &format!("the body is not the JSON of the contract: {error}"));
            }
        };
        if request.records.len() > self.max_records {
            let message = format!("{} records in one request; at most {}", request.records.len(), self.max_records);
            return Reply::problem(413, "too_large", &message);
        }
        let prepared: Vec<_> = request.records.into_iter().map(|record| prepare(op, schema, record)).collect();
        let key = key.map(|key| (key, content(op, entity, body)));

        let mut state = self.state();
        if let Some((key, content)) = key
            && let Some(remembered) = state.answers.get(key)
        {
            if remembered.0 != content {
                return Reply::problem(
                    422,
                    "idempotency_key_reused",
                    "this Idempotency-Key came with another content before",
                );
            }
            let reply = remembered.1.clone();
            state.counters.replays += 1;
            return reply;
        }
        let notes = match state.apply(op, entity, schema, &prepared) {
            Ok(notes) => notes,
            Err(error) => {
                state.store.rollback();
                return Reply::problem(500, "storage", &format!("nothing was written: {error}"));
            }
        };
        let keep = prepared.len() - if few { prepared.len().div_ceil(3) } else { 0 };
        let mut results = Results::with_capacity(prepared.len());
        for (record, note) in prepared.iter().zip(&notes).take(keep) {
            let refusal = note.refusal.as_ref().map(|r| (&*r.code, r.field.as_deref(), r.message.as_str()));
            results.push(&record.external_id, note.said, note.id, refusal);
        }
        let (entity, at) = (Arc::<str>::from(entity), now_ms());
        for (record, note) in prepared.iter().zip(notes) {
            state.tell(&entity, at, record, note);
        }
        let reply = Reply { status: 200, body: results.finish().into() };
        if let Some((key, content)) = key
            && !few
        {
            state.answers.remember(key, content, reply.clone());
        }
        reply
    }

    /// A page of records.
    pub fn list(&self, entity: &str, after: Option<&str>, limit: usize) -> Reply {
        self.search(entity, after, limit, "", usize::MAX)
    }

    /// A page of records that hold `text` (letters' case does not matter), looking at no more than `looks` of them.
    pub fn search(&self, entity: &str, after: Option<&str>, limit: usize, text: &str, looks: usize) -> Reply {
        if self.model.entity(entity).is_none() {
            return no_entity(entity);
        }
        let text = text.to_lowercase();
        let mut out = b"{\"records\":[".to_vec();
        let mut last = String::new();
        let (mut taken, mut looked, mut more) = (0, 0, false);
        let scanned = self.state().store.scan(entity, after, &mut |external_id, record| {
            if taken == limit || looked == looks || out.len() > LISTING_BYTES {
                more = true;
                return false;
            }
            looked += 1;
            last.clear();
            last.push_str(external_id);
            let holds = |hay: &str| hay.to_lowercase().contains(&text);
            if text.is_empty() || holds(external_id) || holds(&String::from_utf8_lossy(&record.fields)) {
                if taken > 0 {
                    out.push(b',');
                }
                taken += 1;
                push_record(&mut out, external_id, record);
            }
            true
        });
        if let Err(error) = scanned {
            return Reply::problem(500, "storage", &error.to_string());
        }
        out.extend_from_slice(b"],\"next\":");
        if more {
            push_text(&mut out, &last);
        } else {
            out.extend_from_slice(b"null");
        }
        out.push(b'}');
        Reply { status: 200, body: out.into() }
    }

    /// One record (deleted ones too) and its history, newest first; `None` if nothing is known of it.
    pub fn record(&self, entity: &str, external_id: &str) -> StoreResult<Option<String>> {
        let mut state = self.state();
        let past = state.history.of(entity, external_id);
        let recorded = state.history.is_on();
        let record = state.store.get(entity, external_id)?.map(Cow::into_owned);
        drop(state);
        if record.is_none() && past.is_empty() {
            return Ok(None);
        }
        let mut out = b"{\"record\":".to_vec();
        match record.filter(|record| !record.deleted) {
            Some(record) => push_record(&mut out, external_id, &record),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(format!(",\"recorded\":{recorded},\"history\":").as_bytes());
        out.extend_from_slice(&serde_json::to_vec(&past).unwrap_or_else(|_| b"[]".to_vec()));
        out.push(b'}');
        Ok(String::from_utf8(out).ok())
    }
}

impl State {
    fn apply(
        &mut self,
        op: Op,
        entity: &str,
        schema: &EntitySchema,
        records: &[Prepared<'_, '_>],
    ) -> StoreResult<Vec<Note>> {
        self.store.begin()?;
        let next_id = self.next_id;
        let mut notes = Vec::with_capacity(records.len());
        for record in records {
            match self.apply_one(op, entity, schema, record) {
                Ok(note) => notes.push(note),
                Err(error) => {
                    self.next_id = next_id;
                    return Err(error);
                }
            }
        }
        self.store.commit()?;
        Ok(notes)
    }

    fn apply_one(
        &mut self,
        op: Op,
        entity: &str,
        schema: &EntitySchema,
        record: &Prepared<'_, '_>,
    ) -> StoreResult<Note> {
        let fencing = !self.switches.faults.no_fencing;
        // A record whose very form is wrong has no version to trust.
        if let Err(refusal) = &record.checked
            && refusal.field.is_none()
        {
            return Ok(Note::refused(Some(refusal.clone())));
        }
        let mut note = Note::refused(None);
        let before = self.store.get(entity, &record.external_id)?;
        let id = before.as_ref().map_or(0, |before| before.id);
        let live = before.as_ref().is_some_and(|before| !before.deleted);
        note.id = (id > 0).then_some(id);
        if let Some(before) = &before {
            note.lower = record.version < before.version;
            note.repeated = record.version == before.version;
            if note.lower && fencing {
                return Ok(note.is(Status::Stale));
            }
        }
        if op == Op::Delete {
            let tombstone = Stored { id, version: record.version.clone(), deleted: true, fields: Box::default() };
            drop(before);
            self.store.put(entity, &record.external_id, tombstone)?;
            return Ok(note.is(if live { Status::Deleted } else { Status::NotFound }));
        }
        let text = before.as_ref().filter(|_| live).map_or(&b"{}"[..], |before| &before.fields);
        note.refusal =
            refused_by_rule(&self.switches.faults.reject, entity, record).or_else(|| match &record.checked {
                Err(refusal) => Some(refusal.clone()),
                Ok(_) if !live => validate::complete(schema, &record.fields).err(),
                Ok(_) => None,
            });
        if note.refusal.is_some() {
            return Ok(note);
        }
        let patched = patch(text, &record.fields, self.history.is_on());
        let status = match (live, &patched.fields) {
            (false, _) => Status::Created,
            (true, Some(_)) => Status::Updated,
            (true, None) => Status::Unchanged,
        };
        let fields = patched.fields.unwrap_or_else(|| text.into());
        drop(before);
        for wanted in record.checked.iter().flatten() {
            let parent = self.store.get(wanted.entity, &wanted.external_id)?;
            if parent.is_none_or(|parent| parent.deleted) {
                let message = format!("{}: there is no {} with this external id", wanted.field, wanted.entity);
                note.refusal = Some(Refusal::new("missing_reference", Some(&wanted.field), message));
                return Ok(note);
            }
        }
        let id = note.id.unwrap_or_else(|| {
            self.next_id += 1;
            self.next_id - 1
        });
        self.store.put(
            entity,
            &record.external_id,
            Stored { id, version: record.version.clone(), deleted: false, fields },
        )?;
        let said = if self.switches.stale() { Status::Stale } else { status };
        Ok(Note { changes: patched.changes, id: Some(id), said, ..note.is(status) })
    }

    /// Counts a write that is committed, and shows it to those who look.
    fn tell(&mut self, entity: &Arc<str>, at: u64, record: &Prepared<'_, '_>, note: Note) {
        *self.counters.records.entry(note.said).or_default() += 1;
        self.counters.stale_writes += u64::from(note.lower);
        self.counters.repeated_writes += u64::from(note.repeated);
        let changed = matches!(note.done, Status::Created | Status::Updated | Status::Deleted);
        self.counters.regressions += u64::from(note.lower && changed);
        match note.done {
            Status::Created => match self.counts.get_mut(&**entity) {
                Some(count) => *count += 1,
                None => drop(self.counts.insert((&**entity).into(), 1)),
            },
            Status::Deleted => {
                if let Some(count) = self.counts.get_mut(&**entity) {
                    *count = count.saturating_sub(1);
                }
            }
            _ => {}
        }
        let version: Box<str> = record.version.to_string().into();
        let message: Option<Box<str>> =
            note.refusal.map(|refusal| format!("{}: {}", refusal.code, refusal.message).into());
        if self.history.is_on() && note.done != Status::NotFound {
            let changes = String::from_utf8(note.changes.into()).ok().filter(|changes| !changes.is_empty());
            let changes = changes.and_then(|changes| RawValue::from_string(changes).ok());
            let past = Past { at, version: version.clone(), status: note.done, message: message.clone(), changes };
            self.history.push(entity, &record.external_id, past);
        }
        let external_id = (&*record.external_id).into();
        self.feed.push(Event { seq: 0, at, entity: entity.clone(), external_id, version, status: note.done, message });
    }
}

fn refused_by_rule(rules: &[super::faults::Reject], entity: &str, record: &Prepared<'_, '_>) -> Option<Refusal> {
    let field = |name: &str| serde_json::from_str(record.fields.0.get(name)?.get()).ok();
    let rule = rules.iter().find(|rule| rule.means(entity, &record.external_id, field))?;
    Some(Refusal {
        code: rule.code.clone().unwrap_or_else(|| "refused_by_rule".to_owned()).into(),
        field: rule.field.clone(),
        message: rule.message.clone().unwrap_or_else(|| "a fault switch refuses this record".to_owned()),
    })
}

fn prepare<'a, 'm>(op: Op, schema: &'m EntitySchema, record: RecordIn<'a>) -> Prepared<'a, 'm> {
    let version = record.version.and_then(|raw| Version::parse(raw.get().strip_prefix('"')?.strip_suffix('"')?));
    let fields = match (op, record.fields) {
        (Op::Delete, _) => Ok(Fields(Default::default())),
        (Op::Upsert, None) => Err("fields are missing".to_owned()),
        (Op::Upsert, Some(raw)) => {
            serde_json::from_str::<Fields<'a>>(raw.get()).map_err(|error| format!("fields are no object: {error}"))
        }
    };
    let refuse = |code, why: String| Err(Refusal::new(code, None, why));
    let empty = || Fields(Default::default());
    let (fields, checked) = if record.external_id.is_empty() || record.external_id.len() > EXTERNAL_ID {
        (empty(), refuse("invalid_external_id", format!("an external id has 1 to {EXTERNAL_ID} bytes")))
    } else if version.is_none() {
        (empty(), refuse("invalid_version", "version must be a string of decimal digits".to_owned()))
    } else {
        match fields {
            Err(why) => (empty(), refuse("invalid_fields", why)),
            Ok(fields) => {
                let checked = if op == Op::Upsert { validate::fields(schema, &fields) } else { Ok(Vec::new()) };
                (fields, checked)
            }
        }
    };
    Prepared { external_id: record.external_id, version: version.unwrap_or(Version::Small(0)), fields, checked }
}

fn no_entity(entity: &str) -> Reply {
    let entity: String = entity.chars().take(100).collect();
    Reply::problem(404, "no_such_entity", &format!("there is no entity {entity:?}"))
}

fn push_record(out: &mut Vec<u8>, external_id: &str, record: &Stored) {
    out.extend_from_slice(b"{\"external_id\":");
    push_text(out, external_id);
    out.extend_from_slice(
        format!(",\"id\":\"{}\",\"version\":\"{}\",\"fields\":", record.id, record.version).as_bytes(),
    );
    out.extend_from_slice(&record.fields);
    out.push(b'}');
}

fn content(op: Op, entity: &str, body: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(if op == Op::Upsert { b"u" } else { b"d" });
    hash.update(&(entity.len() as u64).to_le_bytes());
    hash.update(entity.as_bytes());
    hash.update(body);
    hash.digest128()
}

/// What was answered under which `Idempotency-Key`.
#[derive(Default)]
struct Answers {
    by_key: HashMap<Box<str>, (u128, Reply)>,
    order: VecDeque<Box<str>>,
    bytes: usize,
}

impl Answers {
    fn get(&self, key: &str) -> Option<&(u128, Reply)> {
        self.by_key.get(key)
    }

    fn remember(&mut self, key: &str, content: u128, reply: Reply) {
        self.bytes += reply.body.len() + key.len();
        self.order.push_back(key.into());
        self.by_key.insert(key.into(), (content, reply));
        while self.order.len() > ANSWERS || self.bytes > ANSWER_BYTES {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some((_, reply)) = self.by_key.remove(&oldest) {
                self.bytes -= reply.body.len() + oldest.len();
            }
        }
    }
}
