//! A CRM of the tests' own: the contract of profile `rest`, written from its description alone, with a full history.
//!
//! It shares no code with the product. Records live in memory; every write that arrives is kept with its order of
//! arrival, so that what happened on the way can be judged, not only what is there at the end. Faults are chosen per
//! request by a rule that a test sets.

use super::http::{self, Answer, Request};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub const TOKEN: &str = "crm-t0ken/with+odd%signs";

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status with this body, nothing applied.
    Status(u16, String),
    /// 429 with this `Retry-After`, nothing applied.
    Throttle(Option<String>),
    /// The connection is closed before anything is applied.
    CutBefore,
    /// Everything is applied, then the connection is closed without an answer.
    CutAfter,
    /// Everything is applied; the answer stops in the middle.
    CutAnswer,
    /// Everything is applied; the last results are missing from the answer.
    TooFew,
    /// Everything is applied; 200 with this type and body.
    Instead(&'static str, String),
    /// Everything is applied; this status without a body.
    Empty(u16),
    /// Nothing is applied and no answer ever comes.
    Hang,
    /// Everything goes well, after this long.
    Slow(Duration),
}

/// A request as a fault rule sees it.
pub struct Seen {
    /// Number among all write requests, from 0.
    pub number: u64,
    pub entity: String,
    pub delete: bool,
    pub records: usize,
    pub ids: Vec<String>,
}

type FaultRule = Box<dyn FnMut(&Seen) -> Option<Fault> + Send>;
/// Entity, external id, fields: the error to reject the record with.
type RejectRule = Box<dyn FnMut(&str, &str, &Map<String, Value>) -> Option<Value> + Send>;

/// One record of one write as it arrived.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub request: u64,
    pub entity: String,
    pub external_id: String,
    /// `None` in a delete.
    pub fields: Option<Map<String, Value>>,
    pub version: u64,
    /// `created`, `updated`, `unchanged`, `stale`, `rejected`, `deleted`, `not_found`; `fault` if nothing was looked at.
    pub status: &'static str,
}

#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub version: u64,
    /// `None` once deleted: the version stays, as a fence.
    pub fields: Option<Map<String, Value>>,
    pub id: u64,
}

/// A request's entry in the log.
#[derive(Clone, Debug)]
pub struct Logged {
    pub at: Instant,
    pub path: String,
    pub write: bool,
    /// 0: no answer was given.
    pub status: u16,
    pub records: usize,
}

#[derive(Default)]
struct State {
    openapi: Value,
    records: BTreeMap<String, BTreeMap<String, Stored>>,
    history: Vec<Arrival>,
    log: Vec<Logged>,
    violations: Vec<String>,
    faults: Option<FaultRule>,
    rejects: Option<RejectRule>,
    /// Record → the write that has not been answered yet.
    in_flight: HashMap<(String, String), u64>,
    /// Idempotency key → what was sent with it.
    bodies: HashMap<String, u64>,
    writes: u64,
    last_id: u64,
    keep_history: bool,
}

/// A running CRM. Stops when dropped.
pub struct Crm {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    accept: JoinHandle<()>,
}

impl Drop for Crm {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Crm {
    /// A CRM with this model (`components.schemas` of its OpenAPI document).
    pub async fn start(schemas: Value) -> Self {
        let openapi = json!({"openapi": "3.1.0", "info": {"title": "test CRM", "version": "1"}, "paths": {},
            "components": {"schemas": schemas}});
        let state = Arc::new(Mutex::new(State { openapi, keep_history: true, ..State::default() }));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let accept = tokio::spawn({
            let state = state.clone();
            async move {
                while let Ok((socket, _)) = listener.accept().await {
                    let state = state.clone();
                    tokio::spawn(http::serve(socket, move |request| answer(state.clone(), request)));
                }
            }
        });
        Self { addr, state, accept }
    }

    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// Sets what goes wrong from now on.
    pub fn faults(&self, rule: impl FnMut(&Seen) -> Option<Fault> + Send + 'static) {
        self.state().faults = Some(Box::new(rule));
    }

    /// Sets which records are rejected from now on.
    pub fn rejects(&self, rule: impl FnMut(&str, &str, &Map<String, Value>) -> Option<Value> + Send + 'static) {
        self.state().rejects = Some(Box::new(rule));
    }

    /// From now on everything goes well.
    pub fn heal(&self) {
        let mut state = self.state();
        state.faults = None;
        state.rejects = None;
    }

    /// Keeps no history from now on (for millions of records).
    pub fn forget_history(&self) {
        self.state().keep_history = false;
    }

    /// A daemon was started: requests of an earlier one that are still open are no longer its business.
    pub fn new_run(&self) {
        self.state().in_flight.clear();
    }

    /// What is there: entity → external id → fields, nulls left out.
    pub fn content(&self) -> Content {
        let state = self.state();
        let mut all = Content::new();
        for (entity, records) in &state.records {
            for (id, stored) in records {
                if let Some(fields) = &stored.fields {
                    let fields = fields.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone()));
                    all.entry(entity.clone()).or_default().insert(id.clone(), fields.collect());
                }
            }
        }
        all
    }

    /// How many records an entity has.
    pub fn count(&self, entity: &str) -> usize {
        self.state().records.get(entity).map_or(0, |r| r.values().filter(|s| s.fields.is_some()).count())
    }

    /// Another model from now on (`components.schemas`).
    pub fn remodel(&self, schemas: Value) {
        self.state().openapi["components"]["schemas"] = schemas;
    }

    /// Changes a record behind the daemon's back.
    pub fn meddle(&self, entity: &str, external_id: &str, change: impl FnOnce(&mut Option<Map<String, Value>>)) {
        let mut state = self.state();
        let stored = state.records.entry(entity.into()).or_default().entry(external_id.into()).or_default();
        change(&mut stored.fields);
    }

    /// Write requests so far, answered or not.
    pub fn writes(&self) -> u64 {
        self.state().writes
    }

    /// Every write that arrived, in order.
    pub fn history(&self) -> Vec<Arrival> {
        self.state().history.clone()
    }

    /// Every request, in order.
    pub fn log(&self) -> Vec<Logged> {
        self.state().log.clone()
    }

    /// Breaches of the contract by the client.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }
}

/// Entity → external id → fields.
pub type Content = BTreeMap<String, BTreeMap<String, BTreeMap<String, Value>>>;

async fn answer(state: Arc<Mutex<State>>, request: Request) -> Option<Answer> {
    let at = Instant::now();
    let write = request.method == "POST";
    let routed = route(&mut state.lock().expect("not poisoned"), &request);
    let answer = match routed.fault {
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Slow(time)) => {
            tokio::time::sleep(time).await;
            routed.answer
        }
        _ => routed.answer,
    };
    let mut state = state.lock().expect("not poisoned");
    if write {
        state.in_flight.retain(|_, number| *number != routed.number);
    }
    let status = answer.as_ref().map_or(0, |a| a.status);
    state.log.push(Logged { at, path: request.path, write, status, records: routed.records });
    answer
}

struct Routed {
    answer: Option<Answer>,
    fault: Option<Fault>,
    number: u64,
    records: usize,
}

fn route(state: &mut State, request: &Request) -> Routed {
    let plain = |answer: Answer| Routed { answer: Some(answer), fault: None, number: u64::MAX, records: 0 };
    let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
    match (request.method.as_str(), &parts[..]) {
        ("GET", ["openapi.json"]) => return plain(Answer::json(200, &state.openapi)),
        ("GET", ["health"]) => return plain(Answer::json(200, &json!({"status": "ok"}))),
        _ => {}
    }
    if request.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
        return plain(Answer::json(401, &json!({"error": "who are you?"})));
    }
    match (request.method.as_str(), &parts[..]) {
        ("GET", ["v1", entity]) => plain(list(state, entity, request)),
        ("POST", ["v1", entity, operation @ ("upsert" | "delete")]) => {
            write(state, entity, *operation == "delete", request)
        }
        _ => plain(Answer::json(404, &json!({"error": "no such place"}))),
    }
}

fn list(state: &State, entity: &str, request: &Request) -> Answer {
    let after = request.query("after");
    let limit = request.query("limit").and_then(|l| l.parse().ok()).unwrap_or(1000).min(1000);
    let empty = BTreeMap::new();
    let records = state.records.get(entity).unwrap_or(&empty);
    let mut page: Vec<_> = (records.iter())
        .filter(|(id, stored)| stored.fields.is_some() && after.as_ref().is_none_or(|after| *id > after))
        .take(limit + 1)
        .collect();
    let more = page.len() > limit;
    page.truncate(limit);
    let next = if more { page.last().map(|(id, _)| (*id).clone()) } else { None };
    let records: Vec<Value> = (page.iter())
        .map(|(id, s)| json!({"external_id": id, "id": s.id.to_string(), "version": s.version.to_string(), "fields": s.fields}))
        .collect();
    Answer::json(200, &json!({"records": records, "next": next}))
}

fn write(state: &mut State, entity: &str, delete: bool, request: &Request) -> Routed {
    let number = state.writes;
    state.writes += 1;
    let Some(records) = check_form(state, number, request) else {
        let answer = Answer::json(400, &json!({"error": "the body cannot be read"}));
        return Routed { answer: Some(answer), fault: None, number, records: 0 };
    };
    let routed = |answer, fault| Routed { answer, fault, number, records: records.len() };
    for record in &records {
        let key = (entity.to_owned(), record["external_id"].as_str().unwrap_or_default().to_owned());
        if let Some(other) = state.in_flight.insert(key.clone(), number)
            && other != number
        {
            state.violations.push(format!("{}/{} is in two unanswered requests ({other}, {number})", key.0, key.1));
        }
    }
    let ids = records.iter().filter_map(|r| r["external_id"].as_str().map(str::to_owned)).collect();
    let seen = Seen { number, entity: entity.into(), delete, records: records.len(), ids };
    let fault = state.faults.as_mut().and_then(|rule| rule(&seen));
    if let Some(Fault::Status(..) | Fault::Throttle(_) | Fault::CutBefore | Fault::Hang) = &fault {
        for record in &records {
            remember(state, number, entity, record, delete, "fault");
        }
    }
    match &fault {
        Some(Fault::Status(status, body)) => {
            return routed(Some(Answer::text(*status, "application/json", body)), fault);
        }
        Some(Fault::Throttle(after)) => {
            let mut answer = Answer::json(429, &json!({"error": "slow down"}));
            answer.headers.extend(after.iter().map(|after| ("Retry-After", after.clone())));
            return routed(Some(answer), fault);
        }
        Some(Fault::CutBefore | Fault::Hang) => return routed(None, fault),
        _ => {}
    }
    let mut results: Vec<Value> = Vec::new();
    for record in &records {
        let (status, result) = apply(state, entity, record, delete);
        remember(state, number, entity, record, delete, status);
        results.push(result);
    }
    let whole = |results: &[Value]| Answer::json(200, &json!({"results": results}));
    let answer = match &fault {
        Some(Fault::CutAfter) => None,
        Some(Fault::CutAnswer) => {
            let mut answer = whole(&results);
            answer.cut = true;
            Some(answer)
        }
        Some(Fault::TooFew) => Some(whole(&results[..results.len() - 1])),
        Some(Fault::Instead(kind, body)) => Some(Answer::text(200, kind, body)),
        Some(Fault::Empty(status)) => Some(Answer::text(*status, "text/plain", "")),
        _ => Some(whole(&results)),
    };
    routed(answer, fault)
}

/// Looks at everything the contract asks of a write; returns its records, or `None` if the body is no JSON to it.
fn check_form(state: &mut State, number: u64, request: &Request) -> Option<Vec<Value>> {
    let mut wrong = Vec::new();
    if !request.header("content-type").is_some_and(|t| t.starts_with("application/json")) {
        wrong.push("Content-Type is not application/json".to_owned());
    }
    match request.header("idempotency-key") {
        None => wrong.push("there is no Idempotency-Key".to_owned()),
        Some(key) => {
            let body = request.body_hash();
            if *state.bodies.entry(key.to_owned()).or_insert(body) != body {
                wrong.push("an Idempotency-Key was used for two different bodies".to_owned());
            }
        }
    }
    let body: Value = serde_json::from_slice(&request.body).ok()?;
    let records = body["records"].as_array().cloned().unwrap_or_default();
    if records.is_empty() {
        wrong.push(format!("no records in a body of {} bytes", request.body.len()));
    }
    let mut ids = BTreeSet::new();
    for record in &records {
        let id = record["external_id"].as_str();
        if id.is_none_or(|id| !ids.insert(id.to_owned())) {
            wrong.push(format!("external id {id:?} is missing or twice in one request"));
        }
        if record["version"].as_str().and_then(|v| v.parse::<u64>().ok()).is_none() {
            wrong.push("version is not a decimal string".to_owned());
        }
    }
    state.violations.extend(wrong.into_iter().map(|text| format!("request {number}: {text}")));
    Some(records)
}

fn remember(state: &mut State, request: u64, entity: &str, record: &Value, delete: bool, status: &'static str) {
    if !state.keep_history {
        return;
    }
    state.history.push(Arrival {
        request,
        entity: entity.into(),
        external_id: record["external_id"].as_str().unwrap_or_default().into(),
        fields: (!delete).then(|| record["fields"].as_object().cloned().unwrap_or_default()),
        version: record["version"].as_str().and_then(|v| v.parse().ok()).unwrap_or(0),
        status,
    });
}

fn apply(state: &mut State, entity: &str, record: &Value, delete: bool) -> (&'static str, Value) {
    let id = record["external_id"].as_str().unwrap_or_default().to_owned();
    let version = record["version"].as_str().and_then(|v| v.parse().ok()).unwrap_or(0);
    let said = |status: &'static str| (status, json!({"external_id": id, "status": status}));
    let known = state.records.get(entity).and_then(|records| records.get(&id)).cloned().unwrap_or_default();
    if version < known.version {
        return said("stale");
    }
    if delete {
        let there = known.fields.is_some();
        let gone = Stored { version, fields: None, id: known.id };
        state.records.entry(entity.into()).or_default().insert(id.clone(), gone);
        return said(if there { "deleted" } else { "not_found" });
    }
    let sent = record["fields"].as_object().cloned().unwrap_or_default();
    if let Some(error) = refuse(state, entity, &id, &sent, known.fields.is_none()) {
        return ("rejected", json!({"external_id": id, "status": "rejected", "error": error}));
    }
    let mut fields = known.fields.clone().unwrap_or_default();
    fields.extend(sent);
    let status = match &known.fields {
        None => "created",
        Some(before) if *before == fields => "unchanged",
        Some(_) => "updated",
    };
    if known.id == 0 {
        state.last_id += 1;
    }
    let number = if known.id == 0 { state.last_id } else { known.id };
    state
        .records
        .entry(entity.into())
        .or_default()
        .insert(id.clone(), Stored { version, fields: Some(fields), id: number });
    (status, json!({"external_id": id, "status": status, "id": number.to_string()}))
}

/// The CRM's own rules: types, lengths, required fields, references; then the test's rule.
fn refuse(state: &mut State, entity: &str, id: &str, sent: &Map<String, Value>, new: bool) -> Option<Value> {
    let error =
        |code: &str, field: &str, message: String| Some(json!({"code": code, "field": field, "message": message}));
    let schema = state.openapi["components"]["schemas"][entity].clone();
    if schema.is_null() {
        return error("unknown_entity", "", format!("there is no entity {entity}"));
    }
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if sent.get(required).map_or(new, Value::is_null) {
            return error("missing_field", required, "this field is required".into());
        }
    }
    for (field, value) in sent {
        let wanted = &schema["properties"][field];
        if wanted.is_null() {
            return error("unknown_field", field, "there is no such field".into());
        }
        if let Some(parent) = wanted["x-ref"].as_str().filter(|_| !value.is_null()) {
            let target = value["external_id"].as_str().unwrap_or_default();
            let there = state.records.get(parent).and_then(|r| r.get(target)).is_some_and(|s| s.fields.is_some());
            if !there {
                return error("missing_reference", field, format!("there is no {parent} {target}"));
            }
        }
        if let Some(limit) = wanted["maxLength"].as_u64()
            && value.as_str().is_some_and(|text| text.chars().count() as u64 > limit)
        {
            return error("too_long", field, format!("at most {limit} characters"));
        }
        let fits = value.is_null() || types(wanted).iter().any(|kind| fits(kind, value));
        if !fits {
            return error("invalid_type", field, format!("wanted {}, got a value of another type", wanted["type"]));
        }
    }
    state.rejects.as_mut().and_then(|rule| rule(entity, id, sent))
}

fn types(schema: &Value) -> Vec<String> {
    match &schema["type"] {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => vec!["any".into()],
    }
}

fn fits(kind: &str, value: &Value) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        _ => true,
    }
}
