//! R3: replay is allowed, a silent gap is not.
//!
//! Why this proves it: changes are written after a position was saved; then the log is taken away behind the connector's
//! back (expired, recreated under the same name), or the position is shown to another server, or a position older than
//! what was acknowledged is asked for. In each case the connector must answer `PositionLost`, or else deliver every one
//! of the changes. It is asked twice, because a first refusal that quietly makes a new log would turn the second into a
//! silent gap.

use super::{Outcome, Stop, ensure};
use crate::fixture::{Cell, ColumnKind, Disturbance, Fixture, Op, TableDef};
use crate::tail::{Seen, Tail, changes, last_position};
use std::sync::Arc;
use tidemark_contract::{Connector, ErrorKind, Position, SourceError, SourceMessage, TableRequest};

const MISSED: i64 = 10;

fn table() -> TableDef {
    TableDef::new("gaps", 1, &[("id", ColumnKind::Int), ("note", ColumnKind::Text)])
}

fn rows(from: i64) -> Vec<Op> {
    (from..from + MISSED).map(|id| Op::insert("gaps", &[Cell::Int(id), Cell::text("x")])).collect()
}

pub(super) async fn check(fixture: Arc<dyn Fixture>) -> Outcome {
    let mut cases = Vec::new();
    for (how, word) in [(Disturbance::Expire, "expired log"), (Disturbance::Recreate, "recreated log")] {
        let (position, requests) = saved(&*fixture).await?;
        fixture.apply(&rows(100)).await?;
        if fixture.disturb(how).await? {
            fixture.apply(&rows(200)).await?;
            refused_or_complete(&*fixture, fixture.connector(), &requests, &position, word, &[100, 200]).await?;
            cases.push(word);
        }
    }

    let (position, requests) = saved(&*fixture).await?;
    if let Some(foreign) = fixture.foreign(&[table()]).await? {
        // The other server's log exists and is as good as ours, only it is another one.
        let mut out = Vec::new();
        Tail::open(&*fixture, foreign.clone(), &requests, None, &mut out).await?.close().await?;
        refused_or_complete(&*fixture, foreign.clone(), &requests, &position, "another server's log", &[]).await?;
        foreign.release().await?;
        cases.push("another server's log");
    }

    if fixture.connector().capabilities().acknowledgement_holds_log {
        let (position, requests) = saved(&*fixture).await?;
        fixture.apply(&rows(100)).await?;
        let mut out = Vec::new();
        let mut tail = Tail::open(&*fixture, fixture.connector(), &requests, Some(&position), &mut out).await?;
        tail.drain_into(&mut out).await?;
        let newest = last_position(&out).ok_or_else(|| Stop::failed("no position after ten changes"))?;
        tail.stream.acknowledge(&newest).await?;
        tail.close().await?;
        let word = "position older than the acknowledged one";
        refused_or_complete(&*fixture, fixture.connector(), &requests, &position, word, &[100]).await?;
        cases.push(word);
    }
    if cases.is_empty() {
        return Err(Stop::NotRun("the fixture can neither disturb the log nor show another server's".into()));
    }
    Ok(cases.join(", "))
}

/// A position with some changes before it, its stream closed in order.
async fn saved(fixture: &dyn Fixture) -> Result<(Position, Vec<TableRequest>), Stop> {
    fixture.reset(&[table()]).await?;
    let requests = vec![fixture.request(&table())];
    let mut messages = Vec::new();
    let mut tail = Tail::open(fixture, fixture.connector(), &requests, None, &mut messages).await?;
    fixture.apply(&rows(0)).await?;
    tail.drain_into(&mut messages).await?;
    let position = last_position(&messages).ok_or_else(|| Stop::failed("no position after ten changes"))?;
    tail.close().await?;
    Ok((position, requests))
}

async fn refused_or_complete(
    fixture: &dyn Fixture,
    connector: Arc<dyn Connector>,
    requests: &[TableRequest],
    position: &Position,
    case: &str,
    written: &[i64],
) -> Result<(), Stop> {
    for attempt in 1..=2 {
        let mut messages = Vec::new();
        match go_on(fixture, connector.clone(), requests, position, &mut messages).await {
            Ok(()) => {
                let seen = changes(&messages);
                let missing = written
                    .iter()
                    .flat_map(|first| *first..*first + MISSED)
                    .filter(|id| !seen.iter().any(|s: &Seen| s.key == format!("integer {id}")))
                    .count();
                ensure!(
                    missing == 0 && !written.is_empty(),
                    "{case}, attempt {attempt}: the stream opened and left out {missing} changes without a word"
                );
            }
            Err(Refusal::Source(error)) => {
                ensure!(
                    error.kind == ErrorKind::PositionLost,
                    "{case}, attempt {attempt}: wanted position_lost, got {}: {error}",
                    error.kind.as_str()
                );
                ensure!(!error.message.trim().is_empty(), "{case}: position_lost without a word of what was observed");
            }
            Err(Refusal::Other(stop)) => return Err(stop),
        }
    }
    Ok(())
}

enum Refusal {
    Source(SourceError),
    Other(Stop),
}

/// Opens and reads to the head, keeping the connector's own error apart from the check's.
async fn go_on(
    fixture: &dyn Fixture,
    connector: Arc<dyn Connector>,
    requests: &[TableRequest],
    position: &Position,
    out: &mut Vec<SourceMessage>,
) -> Result<(), Refusal> {
    let mut stream = connector.open_stream(requests, Some(position)).await.map_err(Refusal::Source)?;
    let head = connector.snapshot_chunk(&requests[0], None, 1).await.map_err(Refusal::Source)?.barrier;
    loop {
        let begin = out.len();
        stream.request_position().await.map_err(Refusal::Source)?;
        let next = crate::tail::within(fixture.patience(), "the head or an error", stream.next(out));
        next.await.map_err(Refusal::Other)?.map_err(Refusal::Source)?;
        for message in &out[begin..] {
            if let SourceMessage::Commit(p) | SourceMessage::Idle(p) = message
                && connector.covers(p, &head).map_err(Refusal::Source)?
            {
                return stream.close().await.map_err(Refusal::Source);
            }
        }
    }
}
