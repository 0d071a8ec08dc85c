//! R10: `close` and drop leave nothing behind on the server unless it is named.
//!
//! Why this proves it: the fixture lists slots, publications, sessions and the like before the connector comes, after a
//! stream was closed, after one was dropped in the middle of reading, and after `release`. Dropping must leave no more
//! than closing; every object left after closing must be named by `release`; and after `release` the list is what it was
//! before. A session or a second slot that nobody names stays in the list.

use super::{Outcome, Stop, ensure};
use crate::fixture::{Cell, ColumnKind, Fixture, Leftover, Op, TableDef};
use crate::tail::Tail;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub(super) async fn check(fixture: Arc<dyn Fixture>) -> Outcome {
    let table = TableDef::new("left_behind", 1, &[("id", ColumnKind::Int), ("note", ColumnKind::Text)]);
    fixture.reset(std::slice::from_ref(&table)).await?;
    let before = fixture.leftovers().await?;
    let request = fixture.request(&table);

    let position = {
        let connector = fixture.connector();
        let mut messages = Vec::new();
        let mut tail =
            Tail::open(&*fixture, connector.clone(), std::slice::from_ref(&request), None, &mut messages).await?;
        fixture.apply(&[Op::insert("left_behind", &[Cell::Int(1), Cell::text("x")])]).await?;
        connector.snapshot_chunk(&request, None, 10).await?;
        tail.drain_into(&mut messages).await?;
        let start = tail.start.clone();
        tail.close().await?;
        start
    };
    // What a stream needs to go on later may stay (a slot), but only that; sessions may take a moment to end.
    let closed =
        settle(&*fixture, |now| now.iter().all(|left| left.kind != "session" || before.contains(left))).await?;
    let kept: Vec<&Leftover> = closed.difference(&before).collect();
    ensure!(kept.iter().all(|left| left.kind != "session"), "sessions stay open after close: {kept:?}");

    {
        let connector = fixture.connector();
        let requests = std::slice::from_ref(&request);
        let mut messages = Vec::new();
        let mut tail = Tail::open(&*fixture, connector.clone(), requests, Some(&position), &mut messages).await?;
        fixture.apply(&[Op::insert("left_behind", &[Cell::Int(2), Cell::text("x")])]).await?;
        // Dropped while it waits for something that does not come.
        let _ = tokio::time::timeout(Duration::from_millis(50), async {
            while tail.stream.next(&mut messages).await.is_ok() {}
        })
        .await;
        drop(tail);
    }
    let dropped = settle(&*fixture, |now| now.is_subset(&closed)).await?;
    let more: Vec<_> = dropped.difference(&closed).collect();
    ensure!(more.is_empty(), "a dropped stream leaves behind what a closed one does not: {more:?}");

    let released = {
        let connector = fixture.connector();
        let released = connector.release().await?;
        let again = connector.release().await?;
        ensure!(again.is_empty(), "release() names {again:?} a second time");
        released
    };
    for left in &kept {
        ensure!(
            released.iter().any(|name| name.contains(&left.name)),
            "{} {:?} was left behind, and release() names only {released:?}",
            left.kind,
            left.name
        );
    }
    let end = settle(&*fixture, |now| now.is_subset(&before)).await?;
    let still: Vec<_> = end.difference(&before).collect();
    ensure!(still.is_empty(), "still there after release(): {still:?}");
    Ok(format!("kept between streams: {:?}; after release nothing", kept.iter().map(|l| &l.name).collect::<Vec<_>>()))
}

/// Lists what is there, waiting a while for it to become as it should.
async fn settle(fixture: &dyn Fixture, good: impl Fn(&BTreeSet<Leftover>) -> bool) -> Result<BTreeSet<Leftover>, Stop> {
    let mut now = fixture.leftovers().await?;
    for _ in 0..100 {
        if good(&now) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        now = fixture.leftovers().await?;
    }
    Ok(now)
}
