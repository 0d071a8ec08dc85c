//! The battery every connector has to pass: one numbered check per promise of the contract.
//!
//! The checks know no vendor. A [`Fixture`] drives the source from the other side (creates tables, runs transactions,
//! breaks the log on purpose) and hands out fresh connectors; [`run`] takes the checks through it one after the other
//! and returns a [`Report`]. A check is left out only for a reason that stands in the report: because the connector
//! does not claim the capability, or because the fixture cannot do what the check needs. The latter is a failure when
//! the environment says `TIDEMARK_REQUIRE_ALL=1`, as CI does: a suite that did not run must not look like one that
//! passed.
//!
//! What proves the checks themselves: [`scripted`] holds a small honest connector over an in-memory source, and one or
//! more *failing twins* per promise. Each twin breaks one promise in a way real connectors have broken it, and must fail
//! exactly the check of that number (`tests/twins.rs`).

pub mod checks;
mod fixture;
mod guard;
mod logs;
mod memory;
mod model;
mod own_process;
mod proxy;
mod report;
mod rng;
pub mod scripted;
mod tail;

pub use fixture::{
    Cell, ColumnKind, Corpus, Disturbance, ExpectedCell, Fixture, FixtureError, FixtureResult, Hostile, Leftover, Op,
    Step, TableDef, filler,
};
pub use logs::LogWatch;
pub use memory::resident_bytes;
pub use model::{Model, ModelTable};
pub use own_process::in_own_process;
pub use proxy::{Mangler, Proxy};
pub use report::{CheckReport, Report, Verdict};
pub use rng::Rng;
pub use tail::show;

use std::sync::Arc;

/// Runs every check against `fixture`, in order of their numbers.
pub async fn run(fixture: Arc<dyn Fixture>) -> Report {
    run_some(fixture, &[]).await
}

/// Runs the checks with these numbers (all of them if `numbers` is empty).
pub async fn run_some(fixture: Arc<dyn Fixture>, numbers: &[u8]) -> Report {
    let mut report = Report::new(fixture.name());
    let mut chosen: Vec<_> =
        checks::ALL.iter().filter(|check| numbers.is_empty() || numbers.contains(&check.number)).collect();
    // Memory is measured before the other checks have grown the heap.
    chosen.sort_by_key(|check| check.number != 7);
    for check in chosen {
        report.checks.push(check.run(fixture.clone()).await);
    }
    report.checks.sort_by_key(|check| check.number);
    report
}
