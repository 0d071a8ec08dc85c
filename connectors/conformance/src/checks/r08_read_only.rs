//! R8: nothing is written to the vendor's tables.
//!
//! Why this proves it: the fixture takes checksums and write counters of every table, and the list of tables, before and
//! after every call of the contract was made (reading, tailing, acknowledging, going on, releasing). A watermark row, a
//! heartbeat table, a trigger's counter: each changes the account. Rows written and removed again show in the counters.

use super::{Outcome, ensure};
use crate::fixture::{Cell, ColumnKind, Fixture, Op, TableDef};
use crate::tail::{Tail, last_position, within};
use std::sync::Arc;
use tidemark_contract::RowKey;

pub(super) async fn check(fixture: Arc<dyn Fixture>) -> Outcome {
    let columns = [("id", ColumnKind::Int), ("note", ColumnKind::Text)];
    let tables = [TableDef::new("looked_at", 1, &columns), TableDef::new("not_asked_for", 1, &columns)];
    fixture.reset(&tables).await?;
    for table in &tables {
        let row = |id| Op::insert(&table.name, &[Cell::Int(id), Cell::text("x")]);
        fixture.apply(&(0..50).map(row).collect::<Vec<_>>()).await?;
    }
    let before = fixture.contents().await?;

    let request = fixture.request(&tables[0]);
    let requests = std::slice::from_ref(&request);
    let connector = fixture.connector();
    connector.preflight(requests).await?;
    connector.discover(requests).await?;
    connector.estimate_rows(&request.table).await?;
    let mut messages = Vec::new();
    let mut tail = Tail::open(&*fixture, connector.clone(), requests, None, &mut messages).await?;
    let chunk = within(fixture.patience(), "a chunk", connector.snapshot_chunk(&request, None, 20)).await??;
    connector.snapshot_chunk(&request, chunk.next.as_ref(), 20).await?;
    let keys: Vec<RowKey> = chunk.rows.iter().filter_map(|row| RowKey::of(row, &chunk.schema.key)).collect();
    connector.fetch_rows(&request, &keys).await?;
    tail.drain_into(&mut messages).await?;
    tail.stream.request_position().await?;
    within(fixture.patience(), "a position", tail.stream.next(&mut messages)).await??;
    let position = last_position(&messages).unwrap_or_else(|| tail.start.clone());
    tail.stream.acknowledge(&position).await?;
    connector.lag(Some(&position)).await?;
    tail.close().await?;
    Tail::open(&*fixture, connector.clone(), requests, Some(&position), &mut messages).await?.close().await?;
    connector.release().await?;

    let after = fixture.contents().await?;
    for (name, was) in &before {
        let is = after.get(name);
        ensure!(is == Some(was), "{name} changed from {was} to {}", is.map_or("nothing", String::as_str));
    }
    let new: Vec<_> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    ensure!(new.is_empty(), "there is something that was not there before: {new:?}");
    Ok(format!("{} accounts are as they were after every call", before.len()))
}
