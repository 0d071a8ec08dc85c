//! R12: a schema change between two events never decodes one of them with the other's schema.
//!
//! Why this proves it: a table is written to between an added column, a dropped one in the middle (so that everything
//! after it moves), one added again under the old name with another type, and one whose type changes. The stream is read
//! once while this happens and, where the log keeps what that takes, once only afterwards, when the catalogue already
//! shows the last shape. Every event must hold exactly the values that were written, under the names and types of its
//! time; and the `Schema` message of an event's shape must have come before it.

use super::{Outcome, Stop, ensure};
use crate::fixture::{Cell, ColumnKind, Fixture, Op, TableDef};
use crate::model::Model;
use crate::tail::{Tail, brief, show};
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_contract::{SourceMessage, TableId, TableSchema, Value};

fn script() -> Vec<Op> {
    let insert = |row: &[Cell]| Op::insert("shapes", row);
    let (int, text) = (Cell::Int, Cell::text);
    let column = |name: &str| name.to_owned();
    let table = || "shapes".to_owned();
    vec![
        insert(&[int(1), int(10), text("b one"), int(100)]),
        Op::AddColumn { table: table(), column: column("c"), kind: ColumnKind::Text },
        insert(&[int(2), int(20), text("b two"), int(200), text("c two")]),
        Op::DropColumn { table: table(), column: column("a") },
        insert(&[int(3), text("b three"), int(300), text("c three")]),
        Op::AddColumn { table: table(), column: column("a"), kind: ColumnKind::Text },
        insert(&[int(4), text("b four"), int(400), text("c four"), text("a is text now")]),
        Op::IntToText { table: table(), column: column("n") },
        insert(&[int(5), text("b five"), text("n is text now"), text("c five"), text("a five")]),
    ]
}

pub(super) async fn check(fixture: Arc<dyn Fixture>) -> Outcome {
    let live = one(&*fixture, true).await?;
    if !fixture.earlier_shapes_remain() {
        return Ok(format!("{live} events read live; the log does not keep earlier shapes for good"));
    }
    let later = one(&*fixture, false).await?;
    Ok(format!("{live} events read live, {later} read after the last change of shape"))
}

async fn one(fixture: &dyn Fixture, live: bool) -> Result<usize, Stop> {
    let mode = if live { "read live" } else { "read afterwards" };
    let columns = [("id", ColumnKind::Int), ("a", ColumnKind::Int), ("b", ColumnKind::Text), ("n", ColumnKind::Int)];
    let table = TableDef::new("shapes", 1, &columns);
    fixture.reset(std::slice::from_ref(&table)).await?;
    let mut model = Model::new(std::slice::from_ref(&table));
    let mut messages = Vec::new();
    let requests = [fixture.request(&table)];
    let mut tail = Tail::open(fixture, fixture.connector(), &requests, None, &mut messages).await?;
    let mut wanted: Vec<Vec<(String, Cell)>> = Vec::new();
    for op in script() {
        if let Op::Insert { row, .. } = &op {
            let names = model.tables["shapes"].columns.iter().map(|(name, _)| name.clone());
            wanted.push(names.zip(row.clone()).collect());
        }
        fixture.apply(std::slice::from_ref(&op)).await?;
        model.apply(&op).map_err(Stop::Broken)?;
        if live {
            tail.drain_into(&mut messages).await?;
        }
    }
    tail.drain_into(&mut messages).await?;
    tail.close().await?;

    let mut schemas: HashMap<TableId, Arc<TableSchema>> = HashMap::new();
    let mut number = 0;
    for message in &messages {
        match message {
            SourceMessage::Schema(schema) => {
                schemas.insert(schema.table.clone(), schema.clone());
            }
            SourceMessage::Change(event) => {
                let Some(row) = wanted.get(number) else {
                    return Err(Stop::failed(format!("{mode}: more events than the {} rows written", wanted.len())));
                };
                number += 1;
                ensure!(
                    schemas.get(&event.schema.table).is_some_and(|announced| **announced == *event.schema),
                    "{mode}: the schema of event {number} was not announced before it"
                );
                for (column, cell) in row {
                    let got = event.schema.position(column).map(|at| event.row.get(at));
                    ensure!(
                        got.is_some_and(|value| cell.is(value)),
                        "{mode}: event {number}, column {column}: {} was written, {} came",
                        brief(&format!("{cell:?}")),
                        brief(&got.map_or("no such column".into(), show))
                    );
                }
                for (at, column) in event.schema.columns.iter().enumerate() {
                    let known = row.iter().any(|(name, _)| **name == *column.name);
                    let value = event.row.get(at);
                    ensure!(
                        known || value == Value::Unchanged,
                        "{mode}: event {number} has a value in column {}, which the table did not have then",
                        column.name
                    );
                }
            }
            _ => {}
        }
    }
    ensure!(number == wanted.len(), "{mode}: {} rows were written, {number} events came", wanted.len());
    Ok(number)
}
