//! R1: the order of events of one table is the source's commit order.
//!
//! Why this proves it: three sessions keep transactions open beside each other and end them in another order than they
//! began, over two tables, some of them rolled back. Every write carries a number of its own, so the wanted sequence per
//! table is known exactly, and the delivered one must be that sequence: an order by transaction start, by statement time
//! or by arrival differs from it in nearly every round. Where the connector says that truncation is reported, one must
//! come at its place as well.

use super::{Outcome, ensure};
use crate::fixture::{Cell, ColumnKind, Fixture, Op, Step, TableDef};
use crate::rng::Rng;
use crate::tail::{Seen, Tail, changes, show};
use std::sync::Arc;
use tidemark_contract::{ChangeOp, Value};

const SESSIONS: u8 = 3;
const ROUNDS: u64 = 12;

pub(super) async fn check(fixture: Arc<dyn Fixture>) -> Outcome {
    let columns = [("id", ColumnKind::Int), ("rev", ColumnKind::Int)];
    let tables = [TableDef::new("order_a", 1, &columns), TableDef::new("order_b", 1, &columns)];
    fixture.reset(&tables).await?;
    let rows = |table: &str| (0..9).map(|id| Op::insert(table, &[Cell::Int(id), Cell::Int(0)])).collect::<Vec<_>>();
    fixture.apply(&[rows("order_a"), rows("order_b")].concat()).await?;
    fixture.settle().await?;

    let requests: Vec<_> = tables.iter().map(|t| fixture.request(t)).collect();
    let mut messages = Vec::new();
    let mut tail = Tail::open(&*fixture, fixture.connector(), &requests, None, &mut messages).await?;
    let mut rng = Rng::new(1);
    let mut rev = 0;
    let mut wanted: Vec<(String, String)> = Vec::new();
    for round in 0..ROUNDS {
        // Each session owns rows of its own, so that none waits for another's lock.
        let mut steps: Vec<Step> = (0..SESSIONS).map(Step::Begin).collect();
        let mut written: Vec<Vec<(String, String)>> = vec![Vec::new(); usize::from(SESSIONS)];
        for _ in 0..9 {
            let session = rng.index(usize::from(SESSIONS));
            let table = if rng.one_in(2) { "order_a" } else { "order_b" };
            let id = i64::from(session as u8) * 3 + i64::from(rng.index(3) as u8);
            rev += 1;
            steps.push(Step::Run(session as u8, Op::update(table, &[Cell::Int(id)], &[("rev", Cell::Int(rev))])));
            written[session].push((table.to_owned(), show(Value::Int(rev))));
        }
        // Ends in the reverse order of beginning in even rounds, in any order in odd ones.
        let mut order: Vec<u8> = (0..SESSIONS).rev().collect();
        if round % 2 == 1 {
            let other = rng.index(order.len());
            order.swap(0, other);
        }
        for session in order {
            if rng.one_in(5) {
                steps.push(Step::Rollback(session));
            } else {
                steps.push(Step::Commit(session));
                wanted.append(&mut written[usize::from(session)]);
            }
        }
        fixture.run(&steps).await?;
        tail.drain_into(&mut messages).await?;
    }
    if tail.connector.capabilities().truncate {
        fixture.apply(&[Op::Truncate { table: "order_b".into() }]).await?;
        fixture.apply(&[Op::insert("order_b", &[Cell::Int(1), Cell::Int(rev + 1)])]).await?;
        wanted.extend(["truncate".to_owned(), show(Value::Int(rev + 1))].map(|what| ("order_b".to_owned(), what)));
        tail.drain_into(&mut messages).await?;
    }
    tail.close().await?;

    let seen = changes(&messages);
    let what = |seen: &Seen| match seen.op {
        ChangeOp::Truncate => "truncate".to_owned(),
        _ => seen.get("rev").unwrap_or("no column rev").to_owned(),
    };
    for table in ["order_a", "order_b"] {
        let wanted: Vec<&String> = wanted.iter().filter(|(t, _)| t == table).map(|(_, what)| what).collect();
        let got: Vec<String> = seen.iter().filter(|s| s.table == table).map(what).collect();
        let differs = got.iter().zip(&wanted).position(|(g, w)| g != *w).unwrap_or(got.len().min(wanted.len()));
        ensure!(
            got.len() == wanted.len() && differs == got.len(),
            "{table}: {} changes wanted in commit order, {} came; the first difference is at number {differs}: wanted \
             {:?}, got {:?}",
            wanted.len(),
            got.len(),
            wanted.iter().skip(differs).take(4).collect::<Vec<_>>(),
            got.iter().skip(differs).take(4).collect::<Vec<_>>(),
        );
    }
    Ok(format!("{} changes of {ROUNDS} rounds of interleaved transactions", wanted.len()))
}
