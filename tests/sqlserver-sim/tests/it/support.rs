//! What the tests share.

use std::time::Duration;
use tidemark_sqlserver_sim::{Options, Sim};

/// A server with a database called `vendor`.
pub fn sim() -> Sim {
    Sim::start(Options::default()).unwrap()
}

/// Rows of a query in `vendor`, NULL as `-`, columns joined by blanks.
pub fn rows(sim: &Sim, sql: &str) -> Vec<String> {
    let rows = sim.execute("vendor", sql).unwrap_or_else(|e| panic!("{sql}\n{e}"));
    rows.into_iter()
        .map(|r| r.into_iter().map(|v| v.unwrap_or_else(|| "-".into())).collect::<Vec<_>>().join(" "))
        .collect()
}

/// The one value of a query.
pub fn one(sim: &Sim, sql: &str) -> String {
    let mut rows = rows(sim, sql);
    assert_eq!(rows.len(), 1, "{sql}");
    rows.remove(0)
}

/// Runs something that must work.
pub fn run(sim: &Sim, sql: &str) {
    rows(sim, sql);
}

/// Number of the error that a statement must give.
pub fn number(sim: &Sim, sql: &str) -> i32 {
    match sim.execute("vendor", sql) {
        Err(e) => e.number,
        Ok(rows) => panic!("{sql} gave {rows:?}"),
    }
}

/// Waits for the change tables.
pub fn captured(sim: &Sim) {
    sim.wait_captured("vendor", Duration::from_secs(10)).unwrap();
}
