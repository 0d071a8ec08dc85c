//! R2: after `Commit(p)` or `Resumable(p)`, a stream opened from p misses nothing.
//!
//! Why this proves it, in four parts:
//! * *Everywhere*: one stream is read to its end; then streams are opened from positions it gave (commits, idle places,
//!   places inside a giant transaction), and what they deliver must be exactly an end of the first stream's sequence that
//!   begins at or before the position. One missing, doubled or changed event breaks the equality.
//! * *Acknowledged in the middle*: acknowledging a place inside a transaction must not give the rest of it away.
//! * *Cancellation*: `next` is dropped at random moments, again and again; the sequence must still be whole.
//! * *Barrier*: while writers run, chunks are read; when the tail covers a chunk's barrier it must have delivered every
//!   state that the chunk's read saw. Each row carries a counter, so a chunk that saw further than the tail shows.

use super::{Outcome, Stop, ensure};
use crate::fixture::{Cell, ColumnKind, Fixture, Op, TableDef};
use crate::rng::Rng;
use crate::tail::{Seen, Tail, changes, show, within};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use tidemark_contract::{ChangeOp, Position, SourceMessage, TableRequest, Value};

/// Large enough that a connector which offers places inside a transaction must offer some.
const GIANT_ROWS: u32 = 30_000;

/// Changes between two places at most: the daemon sends nothing of a change before a place behind it is known.
const FURTHEST: usize = 10_000;

fn tables() -> [TableDef; 2] {
    let columns = [("id", ColumnKind::Int), ("rev", ColumnKind::Int), ("note", ColumnKind::Text)];
    [TableDef::new("resume_a", 1, &columns), TableDef::new("resume_b", 1, &columns)]
}

pub(super) async fn check(fixture: Arc<dyn Fixture>) -> Outcome {
    let places = everywhere(&*fixture).await?;
    if fixture.connector().capabilities().resume_inside_transaction {
        acknowledged_inside(&*fixture).await?;
    }
    cancellation(&*fixture).await?;
    let chunks = barrier(fixture.clone()).await?;
    Ok(format!("{places} places resumed from, one acknowledged inside a transaction, cancellations, {chunks} barriers"))
}

/// Random small transactions over both tables, valid one after the other.
fn workload(rng: &mut Rng, transactions: usize) -> Vec<Vec<Op>> {
    let mut alive: Vec<(&str, i64)> = Vec::new();
    let mut number = 0;
    let mut all = Vec::new();
    for _ in 0..transactions {
        let mut ops = Vec::new();
        for _ in 0..=rng.index(4) {
            number += 1;
            let note = Cell::text(&format!("note {number}"));
            let some = rng.index(alive.len());
            match rng.below(4) {
                0 if alive.len() > 5 => {
                    let (table, id) = alive.swap_remove(some);
                    ops.push(Op::delete(table, &[Cell::Int(id)]));
                }
                1 if !alive.is_empty() => {
                    let (table, id) = alive[some];
                    alive[some].1 = 1_000_000 + number;
                    let set = [("id", Cell::Int(1_000_000 + number)), ("rev", Cell::Int(number))];
                    ops.push(Op::update(table, &[Cell::Int(id)], &set));
                }
                2 if !alive.is_empty() => {
                    let (table, id) = alive[some];
                    ops.push(Op::update(table, &[Cell::Int(id)], &[("rev", Cell::Int(number)), ("note", note)]));
                }
                _ => {
                    let table = if rng.one_in(2) { "resume_a" } else { "resume_b" };
                    alive.push((table, number));
                    ops.push(Op::insert(table, &[Cell::Int(number), Cell::Int(number), note]));
                }
            }
        }
        all.push(ops);
    }
    all
}

async fn everywhere(fixture: &dyn Fixture) -> Result<usize, Stop> {
    fixture.reset(&tables()).await?;
    let requests: Vec<_> = tables().iter().map(|t| fixture.request(t)).collect();
    let mut messages = Vec::new();
    let mut tail = Tail::open(fixture, fixture.connector(), &requests, None, &mut messages).await?;
    let mut rng = Rng::new(2);
    let mut work = workload(&mut rng, 40);
    let claims_inside = tail.connector.capabilities().resume_inside_transaction;
    let giant = Op::InsertMany { table: "resume_b".into(), first: 9_000_000, count: GIANT_ROWS, width: 300 };
    work.insert(30, vec![giant]);
    for (number, ops) in work.iter().enumerate() {
        fixture.apply(ops).await?;
        if number == 10 || number == 20 {
            tail.drain_into(&mut messages).await?;
        }
    }
    tail.drain_into(&mut messages).await?;
    let start = tail.start.clone();
    tail.close().await?;

    let all = changes(&messages);
    whole(&work, &all)?;

    // (position, how many changes came before it)
    let mut places = vec![(start, 0)];
    let mut inside = Vec::new();
    let mut before = 0;
    for message in &messages {
        match message {
            SourceMessage::Change(_) => before += 1,
            SourceMessage::Commit(p) | SourceMessage::Idle(p) => places.push((p.clone(), before)),
            SourceMessage::Resumable(p) => inside.push((p.clone(), before)),
            SourceMessage::Schema(_) | SourceMessage::Rewritten(_) => {}
        }
    }
    ensure!(
        inside.is_empty() != claims_inside,
        "resume_inside_transaction is {claims_inside}, but {} places inside a transaction of {GIANT_ROWS} rows came",
        inside.len()
    );
    let mut at: Vec<usize> = places.iter().chain(&inside).map(|(_, before)| *before).collect();
    at.sort_unstable();
    let furthest = at.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0);
    ensure!(
        !claims_inside || furthest <= FURTHEST,
        "resume_inside_transaction is claimed, but {furthest} changes came without a place between them; at most {FURTHEST} may"
    );
    let commits = places.len() + inside.len();
    let mut chosen = vec![places[0].clone(), places[places.len() - 1].clone()];
    chosen.extend((0..6).filter_map(|_| rng.pick(&places).cloned()));
    chosen.extend([0, inside.len() / 2, inside.len().saturating_sub(1)].iter().filter_map(|&i| inside.get(i).cloned()));
    for (position, before) in &chosen {
        let resumed = resume(fixture, &requests, position).await?;
        let from = all.len().checked_sub(resumed.len());
        ensure!(
            from.is_some_and(|from| from <= *before && resumed[..] == all[from..]),
            "resumed at {position}, after {before} of {} changes: {}",
            all.len(),
            difference(&all[*before..], &resumed)
        );
    }
    ensure!(commits > 20, "only {commits} positions came with {} transactions", work.len());
    Ok(chosen.len())
}

/// Whether every write came. Counts upserts: how many events a key update makes is R5's business.
fn whole(work: &[Vec<Op>], seen: &[Seen]) -> Result<(), Stop> {
    let writes = |op: &Op| match op {
        Op::InsertMany { count, .. } => *count as usize,
        Op::Delete { .. } => 0,
        _ => 1,
    };
    let wanted: usize = work.iter().flatten().map(writes).sum();
    let got = seen.iter().filter(|seen| seen.op != ChangeOp::Delete).count();
    ensure!(got == wanted, "{wanted} rows were written after the stream began, {got} came");
    Ok(())
}

async fn resume(fixture: &dyn Fixture, requests: &[TableRequest], from: &Position) -> Result<Vec<Seen>, Stop> {
    let mut messages = Vec::new();
    let mut tail = Tail::open(fixture, fixture.connector(), requests, Some(from), &mut messages).await?;
    tail.drain_into(&mut messages).await?;
    tail.close().await?;
    Ok(changes(&messages))
}

/// Where a resumed sequence leaves the one that was wanted at least.
fn difference(wanted: &[Seen], got: &[Seen]) -> String {
    let offset = got.len().saturating_sub(wanted.len());
    let at = wanted.iter().zip(&got[offset..]).position(|(w, g)| w != g);
    let word = |seen: Option<&Seen>| seen.map_or("nothing".to_owned(), Seen::words);
    format!(
        "at least {} changes were wanted, {} came; first difference: wanted {}, got {}",
        wanted.len(),
        got.len(),
        word(wanted.get(at.unwrap_or(0))),
        word(got.get(offset + at.unwrap_or(0)))
    )
}

async fn acknowledged_inside(fixture: &dyn Fixture) -> Result<(), Stop> {
    fixture.reset(&tables()).await?;
    let requests: Vec<_> = tables().iter().map(|t| fixture.request(t)).collect();
    let mut messages = Vec::new();
    let mut tail = Tail::open(fixture, fixture.connector(), &requests, None, &mut messages).await?;
    let giant = Op::InsertMany { table: "resume_a".into(), first: 0, count: GIANT_ROWS, width: 300 };
    fixture.apply(&[giant]).await?;
    let mut before = 0;
    let place = loop {
        messages.clear();
        within(fixture.patience(), "a place inside a giant transaction", tail.stream.next(&mut messages)).await??;
        let inside = messages.iter().position(|m| matches!(m, SourceMessage::Resumable(_)));
        before += changes(&messages[..inside.unwrap_or(messages.len())]).len();
        if let Some(SourceMessage::Resumable(place)) = inside.map(|at| &messages[at]) {
            break place.clone();
        }
        let ended = messages.iter().any(|m| matches!(m, SourceMessage::Commit(_)));
        ensure!(
            !ended,
            "resume_inside_transaction is claimed, but a transaction of {GIANT_ROWS} rows had no such place"
        );
    };
    tail.stream.acknowledge(&place).await?;
    tail.close().await?;
    let rest = resume(fixture, &requests, &place).await?;
    ensure!(
        rest.len() + before >= GIANT_ROWS as usize,
        "a place after {before} rows of a transaction of {GIANT_ROWS} was acknowledged; resumed there, {} rows came",
        rest.len()
    );
    Ok(())
}

async fn cancellation(fixture: &dyn Fixture) -> Result<(), Stop> {
    fixture.reset(&tables()).await?;
    let requests: Vec<_> = tables().iter().map(|t| fixture.request(t)).collect();
    let mut messages = Vec::new();
    let mut tail = Tail::open(fixture, fixture.connector(), &requests, None, &mut messages).await?;
    let mut rng = Rng::new(22);
    let work = workload(&mut rng, 60);
    for ops in &work {
        fixture.apply(ops).await?;
        for _ in 0..3 {
            let patience = Duration::from_micros(rng.below(1_500));
            match tokio::time::timeout(patience, tail.stream.next(&mut messages)).await {
                Ok(result) => result?,
                // Dropped in the middle: this is what must lose nothing.
                Err(_elapsed) => {}
            }
        }
    }
    tail.drain_into(&mut messages).await?;
    tail.close().await?;
    whole(&work, &changes(&messages))
}

async fn barrier(fixture: Arc<dyn Fixture>) -> Result<usize, Stop> {
    const ROWS: i64 = 20;
    let table = tables()[0].clone();
    fixture.reset(std::slice::from_ref(&table)).await?;
    let row = |id| Op::insert(&table.name, &[Cell::Int(id), Cell::Int(0), Cell::Null]);
    fixture.apply(&(0..ROWS).map(row).collect::<Vec<_>>()).await?;
    let request = fixture.request(&table);
    let mut messages = Vec::new();
    let requests = [request.clone()];
    let mut tail = Tail::open(&*fixture, fixture.connector(), &requests, None, &mut messages).await?;

    let done = Arc::new(AtomicBool::new(false));
    let writes = Arc::new(AtomicI64::new(0));
    let writer = {
        let (fixture, done, writes, name) = (fixture.clone(), done.clone(), writes.clone(), table.name.clone());
        tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                let rev = writes.fetch_add(1, Ordering::Relaxed) + 1;
                let set = [("rev", Cell::Int(rev))];
                fixture.apply(&[Op::update(&name, &[Cell::Int(rev % ROWS)], &set)]).await?;
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            Ok::<_, Stop>(())
        })
    };
    let result = watch_barriers(&*fixture, &mut tail, &request, messages, &writes).await;
    done.store(true, Ordering::Relaxed);
    writer.await.map_err(|e| Stop::Broken(e.to_string()))??;
    let chunks = result?;
    tail.close().await?;
    Ok(chunks)
}

async fn watch_barriers(
    fixture: &dyn Fixture,
    tail: &mut Tail,
    request: &TableRequest,
    mut messages: Vec<SourceMessage>,
    writes: &AtomicI64,
) -> Result<usize, Stop> {
    const CHUNKS: usize = 15;
    let mut told: BTreeMap<String, i64> = BTreeMap::new();
    for number in 0..CHUNKS {
        // The writer must be at work, or the race that this is about cannot happen.
        let before = writes.load(Ordering::Relaxed);
        let working = async {
            while writes.load(Ordering::Relaxed) < before + 2 {
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
        };
        tokio::time::timeout(fixture.patience(), working)
            .await
            .map_err(|_| Stop::Broken("the writer stands".into()))?;
        let chunk = within(fixture.patience(), "a chunk", tail.connector.snapshot_chunk(request, None, 1000)).await??;
        // Take messages in order, up to the first position that covers the barrier and no further.
        'reading: loop {
            for (at, message) in messages.iter().enumerate() {
                match message {
                    SourceMessage::Change(event) => {
                        let seen = Seen::of(event);
                        if let Some(Value::Int(rev)) = event.schema.position("rev").map(|at| event.row.get(at)) {
                            told.insert(seen.key, rev);
                        }
                    }
                    SourceMessage::Commit(p) | SourceMessage::Idle(p)
                        if tail.connector.covers(p, &chunk.barrier)? =>
                    {
                        messages.drain(..=at);
                        break 'reading;
                    }
                    _ => {}
                }
            }
            messages.clear();
            tail.stream.request_position().await?;
            within(fixture.patience(), "the barrier to be covered", tail.stream.next(&mut messages)).await??;
        }
        let rev_at = chunk.schema.position("rev").ok_or_else(|| Stop::failed("the chunk has no column rev"))?;
        for row in &chunk.rows {
            let key = crate::tail::key_text(&chunk.schema, row);
            let Value::Int(rev) = row.get(rev_at) else {
                return Err(Stop::failed(format!("rev came as {}", show(row.get(rev_at)))));
            };
            let known = told.get(&key).copied().unwrap_or(0);
            ensure!(
                rev <= known,
                "chunk {number}: the read saw write {rev} of row {key}, but the tail had told of {known} only when it \
                 covered the chunk's barrier {}",
                chunk.barrier
            );
        }
    }
    Ok(CHUNKS)
}
