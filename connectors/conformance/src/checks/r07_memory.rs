//! R7: memory is bounded whatever the size of a transaction, a table or a result.
//!
//! Why this proves it: one transaction of some 40 MB of rows is written, and while it is read and every event dropped at
//! once, two things are watched. What one call of `next` appends (the contract allows a few hundred kilobytes beyond a
//! single row), and how far the process's resident memory rises over what it was before: a connector that keeps the
//! transaction in a buffer of its own needs it all. Then a table of about the same size is read with a limit that asks
//! for everything: a chunk must come in pieces.
//!
//! Resident memory belongs to the whole process: heap that an earlier check freed would hide a rise, and another test's
//! work would look like one. The battery therefore runs this check first, and belongs in a process of its own
//! ([`crate::in_own_process`]).

use super::{Outcome, Stop, ensure};
use crate::fixture::{ColumnKind, Fixture, Op, TableDef};
use crate::memory::resident_bytes;
use crate::tail::{Tail, within};
use std::sync::Arc;
use tidemark_contract::{SourceMessage, Value};
use tokio::sync::Mutex;

const ROWS: u32 = 40_000;
const WIDTH: u32 = 1_000;
/// What one call of `next` may append, in bytes of rows.
const BATCH_LIMIT: usize = 1 << 20;
/// How far resident memory may rise: much less than the transaction.
const GROWTH_LIMIT: u64 = 16 << 20;
/// What one chunk may hold.
const CHUNK_LIMIT: usize = 32 << 20;

/// The process's memory can only be watched for one check at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

pub(super) async fn check(fixture: Arc<dyn Fixture>) -> Outcome {
    let _alone = ONE_AT_A_TIME.lock().await;
    let table = TableDef::new("giant", 1, &[("id", ColumnKind::Int), ("body", ColumnKind::Text)]);
    fixture.reset(std::slice::from_ref(&table)).await?;
    let request = fixture.request(&table);
    let mut messages = Vec::new();
    let mut tail =
        Tail::open(&*fixture, fixture.connector(), std::slice::from_ref(&request), None, &mut messages).await?;
    fixture.apply(&[Op::InsertMany { table: "giant".into(), first: 0, count: ROWS, width: WIDTH }]).await?;
    let goal = tail.head().await?;

    let Some(before) = resident_bytes() else {
        return Err(Stop::NotRun("this system does not tell a process's resident memory".into()));
    };
    let (mut rows, mut bytes, mut largest, mut peak) = (0u32, 0usize, 0usize, before);
    let mut reached = false;
    while !reached {
        messages.clear();
        tail.stream.request_position().await?;
        within(fixture.patience(), "the giant transaction", tail.stream.next(&mut messages)).await??;
        peak = peak.max(resident_bytes().unwrap_or(peak));
        let mut batch = 0;
        for message in &messages {
            match message {
                SourceMessage::Change(event) => {
                    rows += 1;
                    batch += event.row.memory();
                    let width = event.schema.position("body").map_or(0, |at| event.row.get(at).len());
                    ensure!(width == WIDTH as usize, "row {rows} holds a text of {width} characters, not {WIDTH}");
                }
                SourceMessage::Commit(p) | SourceMessage::Idle(p) if tail.connector.covers(p, &goal)? => {
                    reached = true;
                }
                _ => {}
            }
        }
        bytes += batch;
        largest = largest.max(batch);
        ensure!(
            largest <= BATCH_LIMIT,
            "one call of next() appended {largest} bytes of rows; at most {BATCH_LIMIT} are right"
        );
        let growth = peak.saturating_sub(before);
        ensure!(
            growth <= GROWTH_LIMIT,
            "resident memory rose by {growth} bytes after {rows} rows of a transaction of {ROWS} rows of {WIDTH} \
             characters; at most {GROWTH_LIMIT} are right"
        );
    }
    ensure!(rows == ROWS, "{ROWS} rows were written, {rows} came");
    let growth = peak.saturating_sub(before);

    let mut read = 0;
    let mut after = None;
    let mut chunks = 0;
    loop {
        let read_chunk = tail.connector.snapshot_chunk(&request, after.as_ref(), 1_000_000);
        let chunk = within(fixture.patience(), "a chunk", read_chunk).await??;
        let held: usize = chunk.rows.iter().map(tidemark_contract::Row::memory).sum();
        ensure!(held <= CHUNK_LIMIT, "one chunk holds {held} bytes; at most {CHUNK_LIMIT} are right");
        let body = chunk.schema.position("body").ok_or_else(|| Stop::failed("the chunk has no column body"))?;
        ensure!(chunk.rows.iter().all(|row| matches!(row.get(body), Value::Text(_))), "a body is not text");
        read += chunk.rows.len();
        chunks += 1;
        after = chunk.next;
        if after.is_none() {
            break;
        }
    }
    ensure!(read == ROWS as usize, "{ROWS} rows in the table, {read} came in {chunks} chunks");
    tail.close().await?;
    Ok(format!("{bytes} bytes in one transaction: at most {largest} per call, +{growth} resident; {chunks} chunks"))
}
