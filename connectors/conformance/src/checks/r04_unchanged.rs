//! R4: a column that the log left out is `Unchanged`, never null.
//!
//! Why this proves it: rows hold a large value that the vendor may store out of line, beside one that really is null.
//! Updates of another column, and deletes, must show the large value or say `Unchanged`; the null one must be null in an
//! update (it did not become unknown), and null or `Unchanged` in a delete. A connector that claims partial updates must
//! be seen to make one, and one that does not claim them must make none: otherwise the claim is not truthful.

use super::{Outcome, Stop, ensure};
use crate::fixture::{Cell, ColumnKind, Fixture, Op, TableDef};
use crate::tail::{Seen, Tail, brief, changes, show};
use std::sync::Arc;
use tidemark_contract::{ChangeOp, Value};

const ROWS: i64 = 4;

pub(super) async fn check(fixture: Arc<dyn Fixture>) -> Outcome {
    let columns = [
        ("id", ColumnKind::Int),
        ("rev", ColumnKind::Int),
        ("large", ColumnKind::Big),
        ("nothing", ColumnKind::Text),
        ("short", ColumnKind::Text),
    ];
    let table = TableDef::new("unchanged", 1, &columns);
    fixture.reset(std::slice::from_ref(&table)).await?;
    let large = |id: i64| Cell::Filler { seed: id.unsigned_abs(), len: 40_000 };
    let row =
        |id| Op::insert("unchanged", &[Cell::Int(id), Cell::Int(0), large(id), Cell::Null, Cell::text("a short text")]);
    fixture.apply(&(0..ROWS).map(row).collect::<Vec<_>>()).await?;
    fixture.settle().await?;
    let request = fixture.request(&table);
    let mut messages = Vec::new();
    let mut tail = Tail::open(&*fixture, fixture.connector(), &[request], None, &mut messages).await?;
    for id in 0..ROWS {
        fixture.apply(&[Op::update("unchanged", &[Cell::Int(id)], &[("rev", Cell::Int(7))])]).await?;
    }
    // A large value that does change, and one that becomes null, must be told as such.
    fixture.apply(&[Op::update("unchanged", &[Cell::Int(0)], &[("large", Cell::Null)])]).await?;
    fixture.apply(&[Op::update("unchanged", &[Cell::Int(1)], &[("large", large(99))])]).await?;
    for id in 0..ROWS {
        fixture.apply(&[Op::delete("unchanged", &[Cell::Int(id)])]).await?;
    }
    tail.drain_into(&mut messages).await?;
    let claimed = tail.connector.capabilities().partial_updates;
    tail.close().await?;

    let seen = changes(&messages);
    let wanted = ROWS as usize * 2 + 2;
    ensure!(seen.len() == wanted, "{wanted} changes wanted, {} came", seen.len());
    let mut left_out = 0;
    for (number, change) in seen.iter().enumerate() {
        let update = number < ROWS as usize + 2;
        ensure!(
            change.op == if update { ChangeOp::Update } else { ChangeOp::Delete },
            "change {number} came as {}",
            change.words()
        );
        let id: i64 = change.key.trim_start_matches("integer ").parse().unwrap_or(-1);
        let present = match (number, id) {
            (4, _) => Cell::Null,
            (5, _) => large(99),
            (n, 0) if n > 4 => Cell::Null,
            (n, 1) if n > 5 => large(99),
            (_, id) => large(id),
        };
        // What was just written is always carried.
        let written = number == 4 || number == 5;
        left_out += usize::from(update && shown(change, "large")? == "unchanged");
        one_of(change, "large", &present, !written)?;
        one_of(change, "nothing", &Cell::Null, !update)?;
        one_of(change, "short", &Cell::text("a short text"), true)?;
    }
    ensure!(
        claimed == (left_out > 0) || (claimed && !fixture.leaves_out_large()),
        "partial_updates is {claimed}, but {left_out} of {ROWS} updates left out a large column"
    );
    Ok(format!("{wanted} updates and deletes beside a value of 40,000 characters; {left_out} left it out"))
}

fn shown<'a>(change: &'a Seen, column: &str) -> Result<&'a str, Stop> {
    change.get(column).ok_or_else(|| Stop::failed(format!("{}: no column {column}", change.words())))
}

fn one_of(change: &Seen, column: &str, cell: &Cell, may_be_unchanged: bool) -> Result<(), Stop> {
    let got = shown(change, column)?;
    let text = cell.as_text();
    let wanted = show(text.as_deref().map_or(Value::Null, Value::Text));
    ensure!(
        got == wanted || (may_be_unchanged && got == "unchanged"),
        "{}: column {column} holds {}, wanted {}{}",
        change.words(),
        brief(got),
        brief(&wanted),
        if may_be_unchanged { " or unchanged" } else { "" }
    );
    Ok(())
}
