//! Tests on real MariaDB and MySQL.

pub mod corpus;
mod harness;

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
