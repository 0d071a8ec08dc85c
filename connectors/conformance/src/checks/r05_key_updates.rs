//! R5: an update of a key arrives as a delete of the old key followed by an upsert of the new one.
//!
//! Why this proves it: keys of one and of two columns are moved, alone, together with other columns, in a circle inside
//! one transaction, and beside a large value that the log may leave out. Each move must show exactly the two events in
//! that order and before the transaction's commit; folding all events must give the source's rows. An update of other
//! columns must stay one update.

use super::{Outcome, Stop, ensure};
use crate::fixture::{Cell, ColumnKind, Fixture, Op, TableDef};
use crate::model::Model;
use crate::tail::{Seen, Tail, changes, show};
use std::collections::BTreeMap;
use std::sync::Arc;
use tidemark_contract::{ChangeOp, SourceMessage, Value};

fn int(n: i64) -> Cell {
    Cell::Int(n)
}

pub(super) async fn check(fixture: Arc<dyn Fixture>) -> Outcome {
    let one =
        TableDef::new("moved", 1, &[("id", ColumnKind::Int), ("note", ColumnKind::Text), ("large", ColumnKind::Big)]);
    let two = TableDef::new(
        "moved_pair",
        2,
        &[("left_id", ColumnKind::Int), ("right_id", ColumnKind::Text), ("note", ColumnKind::Text)],
    );
    let tables = [one, two];
    fixture.reset(&tables).await?;
    let mut model = Model::new(&tables);
    let mut before = Vec::new();
    for id in 1..=4_i64 {
        let large = Cell::Filler { seed: id.unsigned_abs(), len: 30_000 };
        before.push(Op::insert("moved", &[int(id), Cell::text(&format!("note {id}")), large]));
        before.push(Op::insert("moved_pair", &[int(1), Cell::text(&format!("r{id}")), Cell::text("pair")]));
    }
    fixture.apply(&before).await?;
    before.iter().try_for_each(|op| model.apply(op)).map_err(Stop::Broken)?;
    let start = model.clone();

    let key = |from: i64, to: i64| Op::update("moved", &[int(from)], &[("id", int(to))]);
    let transactions = vec![
        vec![key(1, 10)],
        vec![Op::update("moved", &[int(2)], &[("id", int(20)), ("note", Cell::text("moved and changed"))])],
        // Two rows change places by way of a third key.
        vec![key(3, 0), key(4, 3), key(0, 4)],
        vec![Op::update("moved_pair", &[int(1), Cell::text("r1")], &[("right_id", Cell::text("r9"))])],
        vec![Op::update(
            "moved_pair",
            &[int(1), Cell::text("r2")],
            &[("left_id", int(2)), ("right_id", Cell::text("r8"))],
        )],
        vec![Op::update("moved", &[int(10)], &[("note", Cell::text("the key stays"))])],
    ];
    fixture.settle().await?;
    let requests: Vec<_> = tables.iter().map(|t| fixture.request(t)).collect();
    let mut messages = Vec::new();
    let mut tail = Tail::open(&*fixture, fixture.connector(), &requests, None, &mut messages).await?;
    let mut wanted = Vec::new();
    for ops in &transactions {
        fixture.apply(ops).await?;
        for op in ops {
            model.apply(op).map_err(Stop::Broken)?;
            wanted.extend(expected(op, &tables));
        }
    }
    tail.drain_into(&mut messages).await?;
    tail.close().await?;

    let seen = changes(&messages);
    let got: Vec<_> = seen.iter().map(|s| (word(s.op), s.table.clone(), s.key.clone())).collect();
    ensure!(got == wanted, "wanted {wanted:?}, got {got:?}");
    let mut open = 0;
    for message in &messages {
        match message {
            SourceMessage::Change(_) => open += 1,
            SourceMessage::Commit(_) => open = 0,
            _ => {}
        }
    }
    ensure!(open == 0, "{open} events came after the last commit");
    same_state(&start, &model, &seen)?;
    Ok(format!("{} events of {} transactions", got.len(), transactions.len()))
}

fn word(op: ChangeOp) -> &'static str {
    match op {
        ChangeOp::Insert | ChangeOp::Update => "upsert",
        ChangeOp::Delete => "delete",
        ChangeOp::Truncate => "truncate",
    }
}

fn shown_key(key: &[Cell]) -> String {
    let shown = |cell: &Cell| match cell {
        Cell::Int(n) => show(Value::Int(*n)),
        cell => show(cell.as_text().as_deref().map_or(Value::Null, Value::Text)),
    };
    key.iter().map(shown).collect::<Vec<_>>().join(",")
}

/// The events that an update must make.
fn expected(op: &Op, tables: &[TableDef]) -> Vec<(&'static str, String, String)> {
    let Op::Update { table, key, set } = op else { return Vec::new() };
    let Some(def) = tables.iter().find(|t| t.name == *table) else { return Vec::new() };
    let mut new_key = key.clone();
    for (column, cell) in set {
        if let Some(at) = def.columns[..def.key].iter().position(|(name, _)| name == column) {
            new_key[at] = cell.clone();
        }
    }
    let upsert = ("upsert", table.clone(), shown_key(&new_key));
    if new_key == *key { vec![upsert] } else { vec![("delete", table.clone(), shown_key(key)), upsert] }
}

/// Folds the events over what was there before and compares keys and notes (large values may have been left out).
fn same_state(start: &Model, end: &Model, seen: &[Seen]) -> Result<(), Stop> {
    let notes = |model: &Model| {
        let mut all = BTreeMap::new();
        for (name, table) in &model.tables {
            let at = table.position("note").unwrap_or(0);
            for (key, row) in &table.rows {
                let note = row[at].as_text().map_or("null".into(), |t| show(Value::Text(&t)));
                all.insert((name.clone(), shown_key(key)), note);
            }
        }
        all
    };
    let mut rows = notes(start);
    for change in seen {
        let at = (change.table.clone(), change.key.clone());
        match change.op {
            ChangeOp::Delete => drop(rows.remove(&at)),
            _ => drop(rows.insert(at, change.get("note").unwrap_or("missing").to_owned())),
        }
    }
    let wanted = notes(end);
    ensure!(rows == wanted, "folded events give {rows:?}, the source holds {wanted:?}");
    Ok(())
}
