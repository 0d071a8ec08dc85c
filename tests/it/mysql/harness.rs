//! The harness judged by itself: the data load, the workload runs, the oracles are sound.

use super::corpus;
use crate::scene;
use crate::support::mysql::{MysqlScene, MysqlSource};
use crate::support::workload::Workload;
use crate::support::{Vendor, judge};
use mysql_async::prelude::Queryable;
use tidemark_throwaway::{MysqlFlavour, MysqlOptions};

/// As on PostgreSQL: every kind of change happens, and every present record is the last state that the account holds of it.
async fn the_workload_and_the_oracle_fit(flavour: MysqlFlavour) {
    let scene = scene!(MysqlScene::on(flavour));
    let before = scene.wanted().await;
    assert_eq!((before["order"].len(), before["order_line"].len()), (830, 2155));
    let mut workload = Workload::new(7, scene.source.connect().await);
    workload.run(600).await;
    println!("{} transactions, {} rolled back", workload.committed, workload.rolled_back);
    assert!(workload.rolled_back > 10 && workload.rolled_back < workload.committed);
    let after = scene.wanted().await;
    assert!(judge::differences(&before, &after, 5).len() == 6, "hardly anything changed");
    let mut connection = scene.client.get_conn().await.unwrap();
    let sql = "SELECT count(*) FROM Customers c WHERE rev <> (SELECT max(rev) FROM judge.states
               WHERE source = 'Customers' AND name = concat('cust-', c.CustomerID))";
    assert_eq!(connection.query_first::<i64, _>(sql).await.unwrap(), Some(0));
    let states = scene.source.states(&scene.client).await;
    assert!(states.len() > before.values().map(|records| records.len()).sum::<usize>());
}

/// Sakila loads, and so does the corpus of types.
async fn the_samples_load(flavour: MysqlFlavour) {
    let sakila = scene!(MysqlSource::sakila(MysqlOptions::new(flavour)));
    let oracle = std::fs::read_to_string(crate::support::source::repository("tests/data/sakila/oracle.sql")).unwrap();
    let wanted = sakila.wanted(&sakila.pool(), &oracle).await;
    assert_eq!((wanted["film"].len(), wanted["actor"].len(), wanted["rental"].len()), (1000, 200, 16_044));
    sakila.admin("CREATE DATABASE shop CHARACTER SET utf8mb4");
    let load = corpus::corpora(flavour).into_iter().flat_map(|corpus| corpus::load(flavour, &corpus.label));
    let sql: Vec<String> = corpus::create(flavour).into_iter().chain(load).collect();
    sakila.cluster.sql_in(corpus::DATABASE, &format!("SET sql_mode = ''; {}", sql.join("; "))).unwrap();
}

mod tests {
    super::super::on_both! {
        the_workload_and_the_oracle_fit;
        the_samples_load;
    }
}
