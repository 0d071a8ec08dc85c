//! R11: the same row gives the same values from snapshot and from tail, for every type.
//!
//! Why this proves it: the fixture's corpus holds every type of the vendor with its odd values, and a table per kind of
//! key. The rows are inserted under an open stream, so the tail delivers them; then they are read by chunks of several
//! sizes (each page by a fresh connector, the cursor having gone through its stored form) and by key. All ways must give
//! the same rows, cell by cell, each exactly once; cells whose canonical form the fixture knows must have it; and after
//! an update of another column the tail must repeat every value that it does not leave out.

use super::{Outcome, Stop, ensure};
use crate::fixture::{Corpus, Fixture};
use crate::tail::{Seen, Tail, brief, changes, key_text, show, within};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_contract::{ChangeOp, RowKey, ScanCursor};

/// Rows as shown values by shown key.
type Rows = BTreeMap<String, Vec<(String, String)>>;

pub(super) async fn check(fixture: Arc<dyn Fixture>) -> Outcome {
    fixture.reset(&[]).await?;
    let corpora = fixture.create_corpora().await?;
    ensure!(!corpora.is_empty(), "the fixture has no corpus");
    let (mut rows, mut cells, mut known) = (0, 0, 0);
    for corpus in &corpora {
        let (r, c) = one(&fixture, corpus).await.map_err(|stop| match stop {
            Stop::Failed(text) => Stop::Failed(format!("{}: {text}", corpus.label)),
            other => other,
        })?;
        rows += r;
        cells += c;
        known += corpus.expected.len();
    }
    Ok(format!("{} tables, {rows} rows, {cells} cells alike, {known} of known form", corpora.len()))
}

async fn one(fixture: &Arc<dyn Fixture>, corpus: &Corpus) -> Result<(usize, usize), Stop> {
    let connector = fixture.connector();
    let requests = std::slice::from_ref(&corpus.request);
    let mut messages = Vec::new();
    let mut tail = Tail::open(&**fixture, connector.clone(), requests, None, &mut messages).await?;
    fixture.load_corpus(corpus).await?;
    tail.drain_into(&mut messages).await?;
    let mut from_tail = Rows::new();
    for seen in changes(&messages) {
        ensure!(seen.op == ChangeOp::Insert, "an insert came as {}", seen.words());
        ensure!(!seen.row.iter().any(|(_, v)| v == "unchanged"), "{}: an insert leaves out a column", seen.words());
        let words = seen.words();
        ensure!(from_tail.insert(seen.key, seen.row).is_none(), "{words} came twice");
    }
    ensure!(!from_tail.is_empty(), "the tail delivered no row");
    for expected in &corpus.expected {
        let shown = from_tail.get(&expected.key).and_then(|row| row.iter().find(|(c, _)| *c == expected.column));
        ensure!(
            shown.is_some_and(|(_, shown)| *shown == expected.shown),
            "row {}, column {}: the canonical form is {:?}, the tail gives {:?}",
            brief(&expected.key),
            expected.column,
            expected.shown,
            shown.map(|(_, shown)| shown)
        );
    }
    let mut keys = Vec::new();
    for limit in [1_000, 7, 2, 1] {
        let read = by_pages(fixture, corpus, limit, &mut keys).await?;
        same(&from_tail, &read, &format!("snapshot in pages of {limit}"))?;
    }
    same(&from_tail, &by_key(fixture, corpus, &keys).await?, "fetched by key")?;
    same(&from_tail, &found(fixture, corpus, &keys).await?, "found by the key's columns")?;
    if let Some(counter) = &corpus.counter {
        messages.clear();
        fixture.touch_corpus(corpus).await?;
        tail.drain_into(&mut messages).await?;
        let read = by_pages(fixture, corpus, 1_000, &mut Vec::new()).await?;
        let updates = changes(&messages);
        ensure!(updates.len() == read.len(), "{} rows were updated, {} changes came", read.len(), updates.len());
        for update in &updates {
            repeated(update, &read, counter)?;
        }
    }
    tail.close().await?;
    connector.release().await?;
    Ok((from_tail.len(), from_tail.values().map(Vec::len).sum()))
}

/// Reads the table page by page, each with a connector that has seen nothing before.
async fn by_pages(
    fixture: &Arc<dyn Fixture>,
    corpus: &Corpus,
    limit: usize,
    keys: &mut Vec<(String, RowKey)>,
) -> Result<Rows, Stop> {
    let mut rows = Rows::new();
    let mut after: Option<ScanCursor> = None;
    let mut connector = fixture.connector();
    keys.clear();
    loop {
        let read = connector.snapshot_chunk(&corpus.request, after.as_ref(), limit);
        let chunk = within(fixture.patience(), "a chunk", read).await??;
        ensure!(chunk.rows.len() <= limit, "a page of {limit} holds {} rows", chunk.rows.len());
        ensure!(!chunk.rows.is_empty() || chunk.next.is_none(), "an empty page says that there is more");
        for row in &chunk.rows {
            let key = key_text(&chunk.schema, row);
            let shown = chunk.schema.columns.iter().enumerate().map(|(at, c)| (c.name.to_string(), show(row.get(at))));
            ensure!(!row.is_partial(), "row {} of a snapshot leaves out a column", brief(&key));
            if let Some(row_key) = RowKey::of(row, &chunk.schema.key) {
                keys.push((key.clone(), row_key));
            }
            let words = brief(&key);
            ensure!(rows.insert(key, shown.collect()).is_none(), "row {words} was read twice in pages of {limit}");
        }
        let Some(cursor) = chunk.next else { return Ok(rows) };
        let stored = serde_json::to_string(&cursor).map_err(|e| Stop::Broken(e.to_string()))?;
        after = Some(serde_json::from_str(&stored).map_err(|e| Stop::Broken(e.to_string()))?);
        // One fresh connector is as good as hundreds for showing that a page needs no memory of the one before.
        if rows.len() <= 3 {
            connector = fixture.connector();
        }
    }
}

/// Reads all rows by key, in one call, with a key in the middle that is not there.
async fn by_key(fixture: &Arc<dyn Fixture>, corpus: &Corpus, keys: &[(String, RowKey)]) -> Result<Rows, Stop> {
    let connector = fixture.connector();
    let mut asked: Vec<RowKey> = keys.iter().map(|(_, key)| key.clone()).collect();
    asked.reverse();
    let fetched = within(fixture.patience(), "rows by key", connector.fetch_rows(&corpus.request, &asked)).await??;
    ensure!(
        fetched.rows.len() == asked.len(),
        "{} keys were asked for, {} answers came",
        asked.len(),
        fetched.rows.len()
    );
    let mut rows = Rows::new();
    for ((key, row), (wanted, _)) in asked.iter().zip(&fetched.rows).zip(keys.iter().rev()) {
        let Some(row) = row else {
            return Err(Stop::failed(format!("row {} is there, but is not found by its key", brief(wanted))));
        };
        ensure!(
            RowKey::of(row, &fetched.schema.key).as_ref() == Some(key),
            "another row than {} came for its key",
            brief(wanted)
        );
        let shown = fetched.schema.columns.iter().enumerate().map(|(at, c)| (c.name.to_string(), show(row.get(at))));
        rows.insert(key_text(&fetched.schema, row), shown.collect());
    }
    Ok(rows)
}

/// Finds all rows by the values of their key's columns, in small pages, each row asked for twice.
async fn found(fixture: &Arc<dyn Fixture>, corpus: &Corpus, keys: &[(String, RowKey)]) -> Result<Rows, Stop> {
    let connector = fixture.connector();
    let schema = connector.discover(std::slice::from_ref(&corpus.request)).await?;
    let Some(schema) = schema.first() else { return Err(Stop::failed("the table is not discovered")) };
    let columns: Vec<Box<str>> = schema.key.iter().map(|at| schema.columns[*at].name.clone()).collect();
    let asked: Vec<RowKey> = keys.iter().chain(keys).map(|(_, key)| key.clone()).collect();
    let mut rows = Rows::new();
    let mut after: Option<ScanCursor> = None;
    loop {
        let read = connector.find_rows(&corpus.request, &columns, &asked, after.as_ref(), 3);
        let page = within(fixture.patience(), "rows by values", read).await??;
        ensure!(page.rows.len() <= 3, "a page of 3 holds {} rows", page.rows.len());
        ensure!(!page.rows.is_empty() || page.next.is_none(), "an empty page says that there is more");
        for row in &page.rows {
            let key = key_text(&page.schema, row);
            let shown = page.schema.columns.iter().enumerate().map(|(at, c)| (c.name.to_string(), show(row.get(at))));
            let words = brief(&key);
            ensure!(rows.insert(key, shown.collect()).is_none(), "row {words} was found twice");
        }
        after = page.next;
        if after.is_none() {
            return Ok(rows);
        }
    }
}

fn same(tail: &Rows, read: &Rows, way: &str) -> Result<(), Stop> {
    for (key, row) in tail {
        let Some(other) = read.get(key) else {
            return Err(Stop::failed(format!("{way}: row {} is missing", brief(key))));
        };
        for (column, shown) in row {
            let got = other.iter().find(|(name, _)| name == column).map(|(_, shown)| shown);
            ensure!(
                got == Some(shown),
                "{way}: row {}, column {column}: the tail gives {:?}, here it is {:?}",
                brief(key),
                brief(shown),
                got.map(|g| brief(g))
            );
        }
        ensure!(row.len() == other.len(), "{way}: {} columns instead of {}", other.len(), row.len());
    }
    ensure!(read.len() == tail.len(), "{way}: {} rows, the tail delivered {}", read.len(), tail.len());
    Ok(())
}

/// An update must repeat what the snapshot now reads, cell by cell, except what it leaves out.
fn repeated(update: &Seen, read: &Rows, counter: &str) -> Result<(), Stop> {
    let Some(row) = read.get(&update.key) else {
        return Err(Stop::failed(format!("{} has no row in the table", update.words())));
    };
    for (column, shown) in &update.row {
        let now = row.iter().find(|(name, _)| name == column).map(|(_, shown)| shown);
        let left_out = shown == "unchanged" && column != counter;
        ensure!(
            left_out || now == Some(shown),
            "{} after an update, column {column}: the tail gives {:?}, the snapshot {:?}",
            update.words(),
            brief(shown),
            now.map(|n| brief(n))
        );
    }
    Ok(())
}
