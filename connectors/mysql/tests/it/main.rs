//! The connector against real servers, each test on MariaDB and on MySQL.

// Helpers of tests fail like tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

/// Makes a test of each function, on either server.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod mariadb {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(tidemark_throwaway::MysqlFlavour::MariaDb).await;
            })*
        }
        mod mysql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(tidemark_throwaway::MysqlFlavour::MySql).await;
            })*
        }
    };
}

mod access;
mod lab;
mod rates;
mod resume;
mod schema;
mod tail;
mod types;
