//! How fast the connector reads: rows by pages and changes by the tail, from a throwaway server, into nothing.
//!
//! `cargo run --release -p tidemark-postgres --example drain -- [rows]`

#![allow(clippy::unwrap_used, missing_docs)]

use std::time::Instant;
use tidemark_contract::{Connector, SourceMessage, TableId, TableRequest};
use tidemark_postgres::{Postgres, PostgresConfig, TlsConfig, TlsMode};
use tidemark_throwaway::{PostgresCluster, PostgresOptions};

/// CPU seconds of this process, and its greatest memory in MiB.
fn used() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    (ticks / 100.0, peak.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0)
}

fn report(what: &str, rows: usize, since: Instant, cpu: f64) {
    let (now, peak) = used();
    let seconds = since.elapsed().as_secs_f64();
    let per_million = (now - cpu) / (rows as f64 / 1e6);
    println!(
        "{what:10} {rows:9} rows {seconds:7.2} s {:9.0} rows/s {per_million:6.2} cpu s/M  peak {peak:5.1} MiB",
        rows as f64 / seconds
    );
}

#[tokio::main]
async fn main() {
    let rows: usize = std::env::args().nth(1).map_or(1_000_000, |n| n.parse().unwrap());
    let cluster = PostgresCluster::start(PostgresOptions::default().setting("max_wal_size", "8GB")).unwrap();
    let create = |name: &str| {
        cluster
            .psql(&format!(
                "CREATE TABLE {name} (id bigint PRIMARY KEY, company text, contact text, street text, city text, region text,
                    phone text, email text, note text, country char(2), credit numeric(12,2), active bool,
                    created timestamp, changed timestamptz, extra jsonb)"
            ))
            .unwrap();
    };
    let fill = |name: &str| {
        format!(
            "INSERT INTO {name} SELECT i, 'Company number ' || i, 'Contact ' || i, 'Street ' || i % 1000, 'City ' || i % 100,
                'Region', '+49 30 ' || i, 'mail' || i || '@example.org', repeat(md5(i::text), 4), 'DE', i * 1.01, i % 2 = 0,
                '2024-01-01'::timestamp + i * interval '1 s', '2024-01-01'::timestamptz + i * interval '1 ms',
                jsonb_build_object('tier', i % 5, 'tags', ARRAY['a', 'b']) FROM generate_series(1, {rows}) i"
        )
    };
    create("t");
    create("u");
    cluster.psql(&format!("{}; VACUUM ANALYZE t", fill("t"))).unwrap();
    let mut config = PostgresConfig::new("127.0.0.1", cluster.port(), "postgres", cluster.user());
    config.tls = TlsConfig::new(TlsMode::Disable);
    let connector = Postgres::new(config);
    let request = |name: &str| TableRequest { table: TableId::new("public", name), columns: None, key: None };

    let (since, (cpu, _)) = (Instant::now(), used());
    let mut read = 0;
    let mut after = None;
    loop {
        let page = connector.snapshot_chunk(&request("t"), after.as_ref(), 5000).await.unwrap();
        read += page.rows.len();
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    report("snapshot", read, since, cpu);

    let mut stream = connector.open_stream(&[request("u")], None).await.unwrap();
    for (what, sql) in [("insert", fill("u")), ("update", "UPDATE u SET credit = credit + 1".to_owned())] {
        cluster.psql(&sql).unwrap();
        let (since, (cpu, _)) = (Instant::now(), used());
        let mut changes = 0;
        let mut out = Vec::new();
        while changes < rows {
            stream.next(&mut out).await.unwrap();
            changes += out.drain(..).filter(|m| matches!(m, SourceMessage::Change(_))).count();
        }
        report(what, changes, since, cpu);
    }
}
