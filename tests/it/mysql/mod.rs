//! The conformance battery against real MariaDB and MySQL, each in two ways of being set up; and the scenarios on them.

pub mod corpus;
mod fixture;
mod harness;
mod mangle;
mod scenarios;

use fixture::{MysqlFixture, Setup};
use tidemark_conformance::Report;
use tidemark_throwaway::MysqlFlavour;

/// A test of a scenario on each of the two servers.
macro_rules! on_both {
    ($($(#[$doc:meta])* $scenario:ident;)+) => { $(
        $(#[$doc])*
        mod $scenario {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mariadb() {
                super::super::$scenario(tidemark_throwaway::MysqlFlavour::MariaDb).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn mysql() {
                super::super::$scenario(tidemark_throwaway::MysqlFlavour::MySql).await;
            }
        }
    )+ };
}
use on_both;

/// One process, one server, all checks but those that the setup cannot pass.
fn battery(name: &str, setup: Setup) {
    if tidemark_conformance::in_own_process(name).unwrap_or_else(|failure| panic!("{failure}")) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let report = match MysqlFixture::start(setup).await {
                Ok(fixture) => tidemark_conformance::run_some(fixture, setup.checks()).await,
                Err(reason) => Report::not_run(setup.label, reason),
            };
            println!("{report}");
            if let Err(failure) = report.require() {
                panic!("{failure}");
            }
        });
    }
}

/// Global ids, names in the log.
#[test]
fn mysql_conformance() {
    battery("mysql::mysql_conformance", Setup::new("MySQL", MysqlFlavour::MySql));
}

/// File and offset, no names in the log, compressed transactions.
#[test]
fn mysql_without_gtids_conformance() {
    let setup = Setup { gtid: false, metadata: false, compressed: true, ..Setup::new("MySQL", MysqlFlavour::MySql) };
    battery("mysql::mysql_without_gtids_conformance", setup);
}

/// Names in the log.
#[test]
fn mariadb_conformance() {
    battery("mysql::mariadb_conformance", Setup::new("MariaDB", MysqlFlavour::MariaDb));
}

/// No names in the log, compressed events.
#[test]
fn mariadb_compressed_conformance() {
    let setup = Setup { metadata: false, compressed: true, ..Setup::new("MariaDB", MysqlFlavour::MariaDb) };
    battery("mysql::mariadb_compressed_conformance", setup);
}
