//! R6: malformed bytes from the server are an error, never a panic.
//!
//! Why this proves it: for many seeds the connector talks to a server (or through a proxy) that damages its answers in
//! a different way each time: flipped bits, cut and repeated pieces, lengths that lie. Every call of the contract is
//! made, each in a task of its own. A panic is caught and named; a call that neither returns nor fails is a hang; and
//! where the damage cannot be mistaken for good data, the absence of an error is a failure too.

use super::{Outcome, Stop, ensure};
use crate::fixture::{Cell, ColumnKind, Fixture, Op, TableDef};
use crate::guard::{Ended, guarded};
use std::sync::Arc;
use std::time::Duration;
use tidemark_contract::{Connector, SourceError, TableRequest};

pub(super) async fn check(fixture: Arc<dyn Fixture>) -> Outcome {
    let table = TableDef::new(
        "malformed",
        1,
        &[("id", ColumnKind::Int), ("note", ColumnKind::Text), ("large", ColumnKind::Big)],
    );
    let mut errors = 0;
    let seeds = fixture.hostile_seeds();
    for seed in 0..seeds {
        fixture.reset(std::slice::from_ref(&table)).await?;
        let row =
            |id| Op::insert("malformed", &[Cell::Int(id), Cell::text("some text"), Cell::Filler { seed: 1, len: 500 }]);
        fixture.apply(&(0..20).map(row).collect::<Vec<_>>()).await?;
        let Some(hostile) = fixture.hostile(seed).await? else {
            return Err(Stop::NotRun("the fixture has no hostile server".into()));
        };
        let request = fixture.request(&table);
        let work = exercise(fixture.clone(), hostile.connector, request);
        match guarded(fixture.patience(), work).await {
            Ended::Returned(Ok(failures)) => {
                errors += failures;
                ensure!(failures > 0 || !hostile.must_fail, "seed {seed}: malformed bytes were taken without an error");
            }
            Ended::Returned(Err(stop)) => return Err(stop),
            Ended::Panicked(text) => return Err(Stop::failed(format!("seed {seed}: panicked: {text}"))),
            Ended::Hung => {
                return Err(Stop::failed(format!("seed {seed}: still waiting after {:?}", fixture.patience())));
            }
        }
    }
    ensure!(errors > 0, "{seeds} seeds and not one error: the damage never reached the connector");
    Ok(format!("{seeds} seeds, {errors} errors, no panic"))
}

/// Makes every call once and counts the errors. What a call returns when it does not fail is not looked at: damage may
/// be invisible (a flipped letter inside a text is another text).
async fn exercise(
    fixture: Arc<dyn Fixture>,
    connector: Arc<dyn Connector>,
    request: TableRequest,
) -> Result<u64, Stop> {
    let mut errors = 0;
    let mut count = |error: Option<SourceError>| errors += u64::from(error.is_some());
    let tables = std::slice::from_ref(&request);
    count(connector.preflight(tables).await.err());
    count(connector.discover(tables).await.err());
    count(connector.estimate_rows(&request.table).await.err());
    count(connector.snapshot_chunk(&request, None, 7).await.err());
    count(connector.lag(None).await.err());
    match connector.open_stream(tables, None).await {
        Err(error) => count(Some(error)),
        Ok(mut stream) => {
            for id in 100..120 {
                let row = [Cell::Int(id), Cell::text("later text"), Cell::Filler { seed: 2, len: 500 }];
                fixture.apply(&[Op::insert("malformed", &row)]).await?;
            }
            let mut out = Vec::new();
            let read = async {
                for _ in 0..200 {
                    stream.request_position().await?;
                    stream.next(&mut out).await?;
                    tokio::task::yield_now().await;
                }
                Ok(())
            };
            // Damage may also have cost the connector the end of the data; waiting for more is then right.
            if let Ok(ended) = tokio::time::timeout(Duration::from_millis(700), read).await {
                count(ended.err());
            }
            count(stream.close().await.err());
        }
    }
    count(connector.release().await.err());
    Ok(errors)
}
