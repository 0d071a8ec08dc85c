//! The conformance battery against real PostgreSQL.

pub mod corpus;
mod fixture;
mod mangle;

use fixture::PostgresFixture;
use tidemark_conformance::Report;

/// One process, one cluster, all checks.
#[test]
fn conformance() {
    const NAME: &str = "postgres::conformance";
    if tidemark_conformance::in_own_process(NAME).unwrap_or_else(|failure| panic!("{failure}")) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let report = match PostgresFixture::start().await {
                Ok(fixture) => tidemark_conformance::run(fixture).await,
                Err(reason) => Report::not_run("PostgreSQL", reason),
            };
            println!("{report}");
            if let Err(failure) = report.require() {
                panic!("{failure}");
            }
        });
    }
}
