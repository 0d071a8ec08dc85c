//! Start: nothing begins on a half-checked source, and nothing begins from "now" unless it is the first time.

use super::drift::{Model, Watch};
use super::engine::Engine;
use super::ledger::LedgerView;
use super::page::Bound;
use super::step::{Steps, VERSION_RESERVE};
use super::table::{Life, SnapshotRun, Table};
use super::tail::{Bindings, Tail};
use super::{Parts, backoff, on_gap, unix_us};
use crate::command::PauseMark;
use crate::config::{Config, SnapshotMode};
use crate::error::{DaemonKind, Error, Kind, Reaction};
use crate::loader::Loader;
use crate::mapping::{self, CompileOptions, Mapping, Rule};
use crate::status::{ErrorStatus, Moment, State};
use crate::store::{Checkpoint, DailyUse, Step, TablePhase, TableState};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;
use tidemark_contract::{ErrorKind, Position, SourceMessage, TableRequest, TableSchema};
use tokio::sync::watch;

/// Checks both sides, compiles the mapping, opens the stream and saves where it begins. `None` if told to stop.
pub(super) async fn start(
    parts: &Parts,
    mut gap: bool,
    stop: &mut watch::Receiver<bool>,
) -> Result<Option<Engine>, Error> {
    let identity = parts.config.source.identity();
    let mut attempt = 0;
    let (mapping, schemas, model) = loop {
        match prepare(parts).await {
            Ok(prepared) => break prepared,
            Err(error) if is_passing(&error) => {
                attempt += 1;
                if wait(parts, &error, attempt, stop).await {
                    return Ok(None);
                }
            }
            Err(error) => return Err(error),
        }
    };
    // Whether the tenant file names another address than before. The same data may be there; the connector decides.
    let mut moved = false;
    let mut checkpoint = match parts.store.load() {
        Some(checkpoint) if checkpoint.source != identity => {
            moved = true;
            if checkpoint.position.is_none() || gap || !parts.config.source.may_have_moved_from(&checkpoint.source) {
                return Err(foreign(&checkpoint, &identity));
            }
            checkpoint
        }
        Some(checkpoint) => checkpoint,
        None => {
            Checkpoint { tenant: parts.config.tenant.to_string(), source: identity.clone(), ..Checkpoint::default() }
        }
    };
    let requests = mapping.requests();
    let bindings = Bindings::default();
    let mut attempt = 0;
    let (tail, first) = loop {
        if gap {
            forget_position(&mut checkpoint);
        }
        let position = checkpoint.position.clone();
        let mut tail = Tail::open(parts.connector.clone(), requests.clone(), position, bindings.clone());
        let first = tokio::select! {
            first = tail.messages.recv() => first,
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
            () = beat(parts) => None,
        };
        let error = match first {
            Some(Ok(messages)) => break (tail, messages),
            Some(Err(error)) => error,
            None => return Err(Error::new(DaemonKind::Bug, "the change stream ended before its first message")),
        };
        if error.kind == ErrorKind::PositionLost && moved {
            return Err(foreign(&checkpoint, &identity).caused_by(error));
        }
        if error.kind == ErrorKind::PositionLost {
            on_gap(parts, error)?;
            gap = true;
            continue;
        }
        let error = Error::from(error);
        if !is_passing(&error) {
            return Err(error);
        }
        attempt += 1;
        if wait(parts, &error, attempt, stop).await {
            return Ok(None);
        }
    };
    let Some((SourceMessage::Idle(begins), _)) = first.first() else {
        return Err(Error::new(DaemonKind::Bug, "the change stream did not begin with its position"));
    };
    if moved {
        tracing::warn!(from = checkpoint.source, to = identity, "the source is at another address, with the same data");
        checkpoint.source = identity;
    }
    let is_new_log = checkpoint.position.is_none();
    if is_new_log {
        checkpoint.position = Some(begins.clone());
        tracing::info!(position = %begins, "a new stream begins here; every table is read beside it");
    } else {
        tracing::info!(position = %begins, "the stream goes on");
    }
    checkpoint.next_version =
        checkpoint.next_version.max(u64::try_from(unix_us()).unwrap_or(0)).saturating_add(VERSION_RESERVE);
    let rules = mapping.rules.iter().cloned().map(Arc::new).collect::<Vec<_>>();
    let mut tables = tables(parts, &mapping, &schemas, &mut checkpoint, is_new_log)?;
    for table in &mut tables {
        bindings.set(&table.request.table, &table.bound);
        table.estimate = parts.connector.estimate_rows(&table.request.table).await.unwrap_or(None);
    }
    let folding = folding(parts, &checkpoint, begins).await;
    let view = LedgerView::new(parts.store.ledger().clone(), &rules, parts.store.ledger_lost())?;
    let mut loader = Loader::new(entities(&rules), parts.config.delivery.clone(), view, Instant::now());
    loader.pacing_mut().set_used(DailyUse::of(parts.store.dir()).read());
    loader.set_paused(PauseMark::of(parts.store.dir()).is_set());
    let names: Vec<&str> = tables.iter().map(|t| t.name.as_str()).collect();
    parts.outlet.metrics.prepare(names, loader.entity_names());
    // A pass that begins anew must not be silent about keys of which an earlier tail or mapping spoke.
    let again = tables.iter().filter(|t| t.generation == checkpoint.generation && t.awaits_rows());
    let again = again.filter(|t| matches!(t.life, Life::Pending { .. })).map(|t| t.name.clone()).collect();
    let saved = save_start(parts, checkpoint, again).await?;
    let steps = Steps::new(saved);
    let watch = Watch::new(model, &mapping, parts.config.crm.schema_check);
    let mut engine = Engine::new(parts, rules.clone(), tables, loader, steps, folding, (tail, bindings), watch);
    engine.triggers = super::related::triggers(&mapping, &rules, &engine.table_of);
    engine.steps.wanted = true;
    engine.take_messages(first, Instant::now());
    Ok(Some(engine))
}

/// What the tenant file names is not what the checkpoint was made from: not even `on_gap` may make it so, since everything
/// that is not there would be taken away from the CRM.
fn foreign(checkpoint: &Checkpoint, identity: &str) -> Error {
    let message = format!(
        "the state directory belongs to the source {}, but the tenant file names {identity}",
        checkpoint.source
    );
    Error::new(DaemonKind::WrongState, message)
}

/// Both sides are asked, the mapping is compiled against both schemas, and the source's prerequisites are looked at.
async fn prepare(parts: &Parts) -> Result<(Mapping, Vec<Arc<TableSchema>>, Model), Error> {
    let catalogue = parts.connector.discover(&[]).await?;
    let crm = parts.crm.discover().await?;
    let (mapping, warnings) =
        mapping::compile(&parts.pack, &catalogue, &default_schema(&parts.config), Some(&crm), &options(&parts.config))
            .map_err(Error::from)?;
    if !warnings.is_empty() {
        tracing::warn!("{warnings}");
    }
    let requests = mapping.requests();
    let findings = parts.connector.preflight(&requests).await?;
    if let Some(error) = Error::from_findings(&findings) {
        return Err(error);
    }
    let schemas = parts.connector.discover(&requests).await?;
    let (pack, default_schema, options) = (parts.pack.clone(), default_schema(&parts.config), options(&parts.config));
    Ok((mapping, schemas, Model { pack, catalogue, default_schema, options, crm }))
}

/// Whether the same may succeed a little later.
fn is_passing(error: &Error) -> bool {
    error.kind().policy().reaction == Reaction::RetryWithBackoff
}

/// The schema that a table without one belongs to.
pub(crate) fn default_schema(config: &Config) -> String {
    match &config.source.engine {
        crate::config::Engine::Postgres { .. } => "public".into(),
        crate::config::Engine::Mysql { .. } => config.source.database.clone(),
        crate::config::Engine::SqlServer { .. } => "dbo".into(),
    }
}

/// What the tenant decides about the meaning of the pack.
pub(crate) fn options(config: &Config) -> CompileOptions {
    CompileOptions { time_zone: config.source.time_zone.as_ref().map(|zone| zone.zone.clone()) }
}

/// The heart beats while the source takes its time (a slot waits for open transactions).
async fn beat(parts: &Parts) {
    loop {
        parts.outlet.heartbeat.beat();
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

/// Waits before the next try. Returns whether it was told to stop.
async fn wait(parts: &Parts, error: &Error, attempt: u32, stop: &mut watch::Receiver<bool>) -> bool {
    let pause = backoff(&parts.config.delivery.retry, attempt);
    let hint = error.hints().join("; ");
    tracing::warn!(attempt, pause_ms = pause.as_millis() as u64, hint, "{error}");
    let state = if matches!(error.kind(), Kind::Crm(_)) { State::WaitingForCrm } else { State::WaitingForSource };
    parts.outlet.board.update(|report| {
        report.state = state;
        report.reported_at = Some(Moment::now());
        report.last_error = Some(ErrorStatus {
            at: Some(Moment::now()),
            kind: error.kind().policy().word.into(),
            message: error.to_string(),
            hint: Some(hint),
            recovered: false,
        });
    });
    tokio::select! {
        () = tokio::time::sleep(pause) => false,
        _ = stop.wait_for(|stop| *stop) => true,
        () = beat(parts) => false,
    }
}

/// After a gap: the position means nothing any more, and every table is read again.
fn forget_position(checkpoint: &mut Checkpoint) {
    checkpoint.position = None;
    checkpoint.dispatched = None;
    checkpoint.dispatched_unknown = false;
}

/// The tables with the states they begin in.
fn tables(
    parts: &Parts,
    mapping: &Mapping,
    schemas: &[Arc<TableSchema>],
    checkpoint: &mut Checkpoint,
    is_new_log: bool,
) -> Result<Vec<Table>, Error> {
    let generation = checkpoint.generation + 1;
    let mut used = false;
    let mut tables = Vec::new();
    let mut states = BTreeMap::new();
    for (request, schema) in mapping.requests().into_iter().zip(schemas) {
        let rules: Vec<Arc<Rule>> = mapping.rules_of(&request.table).cloned().map(Arc::new).collect();
        let bound = rules
            .iter()
            .map(|rule| {
                Ok((rule.clone(), rule.bind(schema).map_err(|e| Error::new(DaemonKind::Configuration, e.to_string()))?))
            })
            .collect::<Result<Arc<Bound>, Error>>()?;
        let name = request.table.to_string();
        let fingerprints: Vec<(String, u64)> = rules.iter().map(|r| (r.name.to_string(), r.fingerprint)).collect();
        let state = checkpoint.tables.get(&name);
        let (life, of, rows, completed_at) = match state {
            Some(state) if !is_new_log && state.rules == fingerprints => match &state.phase {
                TablePhase::Live => (Life::Live, state.generation, state.rows, state.completed_at),
                TablePhase::Snapshot { cursor, rows_done, started_at, force } => {
                    tracing::info!(table = name, rows_done, "the snapshot goes on where it was");
                    let run = SnapshotRun::new(cursor.clone(), *rows_done, *started_at, *force);
                    (Life::Snapshot(Box::new(run)), state.generation, state.rows, state.completed_at)
                }
                TablePhase::Pending { force } => {
                    (Life::Pending { force: *force }, state.generation, state.rows, state.completed_at)
                }
                // It compiles and binds now: whatever was wrong is mended, and what was missed is read again.
                TablePhase::NeedsAttention { .. } => (Life::Pending { force: false }, generation, state.rows, None),
            },
            Some(state) => {
                if !is_new_log {
                    tracing::info!(table = name, "its mapping changed; it is read again, only differences are sent");
                }
                (Life::Pending { force: false }, generation, state.rows, None)
            }
            None if parts.config.snapshot.mode == SnapshotMode::Never => (Life::Live, generation, 0, None),
            None => (Life::Pending { force: false }, generation, 0, None),
        };
        let life = match life {
            Life::Pending { .. } if parts.config.snapshot.mode == SnapshotMode::Never && !is_new_log => Life::Live,
            life => life,
        };
        // Rows of a table without rules are read when records show them.
        let life = if rules.is_empty() { Life::Live } else { life };
        used |= of == generation;
        let table = Table {
            name: name.clone(),
            request,
            schema: schema.clone(),
            bound,
            life,
            generation: of,
            pass: 0,
            next_chunk: 0,
            outstanding: 0,
            rows,
            completed_at,
            estimate: None,
            changes: 0,
            drift: false,
            after: Vec::new(),
        };
        states.insert(name, state_of(&table, fingerprints));
        tables.push(table);
    }
    for name in checkpoint.tables.keys().filter(|name| !states.contains_key(*name)) {
        tracing::warn!(table = name, "the mapping no longer reads this table; its records stay in the CRM as they are");
    }
    checkpoint.tables = states;
    checkpoint.generation += u32::from(used);
    order(&mut tables);
    Ok(tables)
}

fn state_of(table: &Table, rules: Vec<(String, u64)>) -> TableState {
    TableState {
        phase: table.phase(),
        generation: table.generation,
        rows: table.rows,
        rules,
        completed_at: table.completed_at,
    }
}

/// Parents before children: a table's snapshot waits for those of the tables its records refer to. Where references
/// run in a circle, the first table in the mapping does not wait.
fn order(tables: &mut [Table]) {
    let mut feeds: HashMap<Box<str>, Vec<usize>> = HashMap::new();
    for (index, table) in tables.iter().enumerate() {
        for (rule, _) in table.bound.iter() {
            feeds.entry(rule.entity.clone()).or_default().push(index);
        }
    }
    for index in 0..tables.len() {
        let parents: Vec<usize> = tables[index]
            .bound
            .iter()
            .flat_map(|(rule, _)| rule.references.iter())
            .filter_map(|(parent, _)| feeds.get(parent))
            .flatten()
            .copied()
            .filter(|&parent| parent != index && !reaches(tables, parent, index))
            .collect();
        tables[index].after = parents;
        tables[index].after.sort_unstable();
        tables[index].after.dedup();
    }
}

/// Whether `from` waits for `to`, directly or through others.
fn reaches(tables: &[Table], from: usize, to: usize) -> bool {
    let mut seen = vec![false; tables.len()];
    let mut open = vec![from];
    while let Some(index) = open.pop() {
        if index == to {
            return true;
        }
        if !std::mem::replace(&mut seen[index], true) {
            open.extend(&tables[index].after);
        }
    }
    false
}

/// The entities, parents first.
fn entities(rules: &[Arc<Rule>]) -> Vec<Box<str>> {
    let mut names: Vec<Box<str>> = Vec::new();
    for rule in rules {
        if !names.contains(&rule.entity) {
            names.push(rule.entity.clone());
        }
    }
    names
}

/// Up to where changes may have been sent before this start; until the tail is there, it folds them.
async fn folding(parts: &Parts, checkpoint: &Checkpoint, begins: &Position) -> Option<Position> {
    let goal = match &checkpoint.dispatched {
        // After a recovery the last word is not known; the source's head now is certainly not before it.
        _ if checkpoint.dispatched_unknown => {
            let probe = checkpoint.tables.keys().next()?;
            let (schema, name) = probe.split_once('.')?;
            let table = TableRequest {
                table: tidemark_contract::TableId::new(schema, name),
                columns: Some(Vec::new()),
                key: None,
            };
            parts.connector.snapshot_chunk(&table, None, 1).await.ok()?.barrier
        }
        Some(dispatched) => dispatched.clone(),
        None => return None,
    };
    match parts.connector.covers(begins, &goal) {
        Ok(false) => {
            tracing::info!(from = %begins, to = %goal, "changes that may have been sent before are folded first");
            Some(goal)
        }
        _ => None,
    }
}

async fn save_start(parts: &Parts, checkpoint: Checkpoint, clear_marks: Vec<String>) -> Result<Checkpoint, Error> {
    let store = parts.store.clone();
    let step = Step { checkpoint, clear_marks, ..Step::default() };
    tokio::task::spawn_blocking(move || {
        store.commit(&step)?;
        Ok(step.checkpoint)
    })
    .await
    .map_err(|_| Error::new(DaemonKind::Bug, "saving the first checkpoint panicked"))?
}
