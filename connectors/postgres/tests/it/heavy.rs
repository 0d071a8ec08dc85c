//! Sizes that take a while: `cargo nextest run -p tidemark-postgres --run-ignored only heavy`.

use crate::lab::{Lab, table};
use tidemark_contract::{Connector, SourceMessage};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute"]
async fn heavy_a_transaction_of_a_million_rows_stays_small() {
    let lab = Lab::new("CREATE TABLE t (id int PRIMARY KEY, x text)");
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("t")], None).await.unwrap();
    lab.sql("INSERT INTO t SELECT i, repeat('x', 400) FROM generate_series(1, 1000000) i");
    let mut changes = 0;
    let mut largest = 0;
    let mut out = Vec::new();
    let last = loop {
        stream.next(&mut out).await.unwrap();
        let rows = out.iter().filter(|m| matches!(m, SourceMessage::Change(_))).count();
        changes += rows;
        largest = largest.max(rows);
        let commit =
            out.iter().rev().find_map(|m| if let SourceMessage::Commit(p) = m { Some(p.clone()) } else { None });
        out.clear();
        if let Some(commit) = commit {
            break commit;
        }
    };
    assert_eq!(changes, 1_000_000);
    stream.acknowledge(&last).await.unwrap();
    stream.close().await.unwrap();
    assert_eq!(lab.sql("SELECT confirmed_flush_lsn FROM pg_replication_slots"), last.place.to_string());
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|l| l.starts_with("VmHWM")).unwrap().split_whitespace().nth(1).unwrap();
    let peak: u32 = peak.parse().unwrap();
    println!("peak memory {} MiB, at most {largest} rows at once", peak / 1024);
    assert!(peak < 64 << 10, "{peak} KiB");
}
