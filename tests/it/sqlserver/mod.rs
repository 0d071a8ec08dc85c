//! The conformance battery against SQL Server: the simulator, or a real server where one is lent (see [`server`]).

mod corpus;
mod fixture;
mod mangle;
mod northwind;
mod scenarios;
mod scene;
mod server;

use fixture::{SqlServerFixture, Way};
use tidemark_conformance::Report;

fn battery(name: &str, way: Way) {
    if tidemark_conformance::in_own_process(name).unwrap_or_else(|failure| panic!("{failure}")) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let report = match SqlServerFixture::start(way).await {
                Ok(fixture) => {
                    let report = tidemark_conformance::run_some(fixture.clone(), way.checks()).await;
                    fixture.finish().await.expect("the databases are dropped");
                    report
                }
                Err(reason) => Report::not_run("SQL Server", reason),
            };
            println!("{report}");
            if let Err(failure) = report.require() {
                panic!("{failure}");
            }
        });
    }
}

/// Change data capture.
#[test]
fn sqlserver_conformance() {
    battery("sqlserver::sqlserver_conformance", Way::Capture);
}

/// Change tracking.
#[test]
fn sqlserver_change_tracking_conformance() {
    battery("sqlserver::sqlserver_change_tracking_conformance", Way::Tracking);
}
