//! The conformance battery against SQL Server: the simulator, or a real server where one is lent (see [`server`]).

mod corpus;
mod fixture;
mod mangle;
mod northwind;
mod scenarios;
mod scene;
mod server;

use fixture::{SqlServerFixture, Way};
use server::Server;
use std::time::Duration;
use tidemark_conformance::Report;

/// The checks whose servers lie and fall silent: they wait for time limits, while the others compute. Each test has a server,
/// or on one that was lent a database, of its own.
const DAMAGE: &[u8] = &[6, 9];

/// The checks that compare all that a stream delivers with all that was written.
const SEQUENCES: &[u8] = &[1, 4, 5, 8];

fn battery(name: &str, way: Way, checks: &[u8], pause: Option<Duration>) {
    if tidemark_conformance::in_own_process(name).unwrap_or_else(|failure| panic!("{failure}")) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let server = tokio::task::spawn_blocking(move || {
                pause.map_or_else(Server::start, |pause| Server::simulated(Some(pause)))
            });
            let fixture = match server.await.expect("no panic") {
                Ok(server) => SqlServerFixture::on(server, way).await,
                Err(reason) => Err(reason),
            };
            let report = match fixture {
                Ok(fixture) => {
                    let report = tidemark_conformance::run_some(fixture.clone(), checks).await;
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
    battery("sqlserver::sqlserver_conformance", Way::Capture, Way::Capture.checks(), None);
}

/// Change data capture, from servers that send damaged bytes, or nothing.
#[test]
fn sqlserver_conformance_under_damage() {
    battery("sqlserver::sqlserver_conformance_under_damage", Way::Capture, DAMAGE, None);
}

/// Change data capture, whose log reader comes a good while after the commits, as the product's does.
#[test]
fn sqlserver_conformance_behind_a_slow_log_reader() {
    let pause = Some(Duration::from_millis(250));
    battery("sqlserver::sqlserver_conformance_behind_a_slow_log_reader", Way::Capture, SEQUENCES, pause);
}

/// Change tracking.
#[test]
fn sqlserver_change_tracking_conformance() {
    battery("sqlserver::sqlserver_change_tracking_conformance", Way::Tracking, Way::Tracking.checks(), None);
}

/// Change tracking, from servers that send damaged bytes, or nothing.
#[test]
fn sqlserver_change_tracking_conformance_under_damage() {
    battery("sqlserver::sqlserver_change_tracking_conformance_under_damage", Way::Tracking, DAMAGE, None);
}
