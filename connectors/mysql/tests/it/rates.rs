//! How fast pages and the tail are read; run by hand (`cargo nextest run --release --run-ignored only`).

use super::lab::{BARRIER, Lab, table};
use std::time::Instant;
use tidemark_contract::{Connector, SourceMessage};
use tidemark_throwaway::MysqlFlavour;

async fn rates(flavour: MysqlFlavour) {
    let create = "CREATE TABLE wide (id INT PRIMARY KEY AUTO_INCREMENT, a INT, b VARCHAR(40), c DECIMAL(12,2), d DATETIME, \
                  e VARCHAR(100), f BIGINT, g DATE);";
    let lab = Lab::new(flavour, &format!("{BARRIER}{create}"));
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("wide")], None).await.unwrap();
    lab.sql(
        "INSERT INTO wide (a, b, c, d, e, f, g) VALUES (1, 'some name', 12.50, '2024-01-02 03:04:05', REPEAT('x', 60), 5, '2024-01-02');",
    );
    for _ in 0..17 {
        lab.sql("INSERT INTO wide (a, b, c, d, e, f, g) SELECT a, b, c, d, e, f, g FROM wide");
    }
    let begin = Instant::now();
    let mut out = Vec::new();
    let mut changes = 0_usize;
    while changes < 1 << 17 {
        stream.next(&mut out).await.unwrap();
        changes += out.drain(..).filter(|m| matches!(m, SourceMessage::Change(_))).count();
    }
    let tail = begin.elapsed();
    let begin = Instant::now();
    let rows = lab.snapshot(&table("wide"), 5000).await.len();
    println!(
        "{flavour:?}: tail {:.0}/s (after the fact), snapshot {:.0}/s",
        changes as f64 / tail.as_secs_f64(),
        rows as f64 / begin.elapsed().as_secs_f64()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn of_both() {
    for flavour in MysqlFlavour::BOTH {
        rates(flavour).await;
    }
}
