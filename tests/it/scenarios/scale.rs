//! Size: memory stays bounded, and the log is let go. Small by default; a million rows with `TIDEMARK_SOAK=1`.

use crate::scene;
use crate::support::{Scene, seconds, soak};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const LIMIT: u64 = 200 << 20;
const MAPPING: &str = "tidemark = 1
[pack]
name = \"big\"
version = \"1.0.0\"
[record.row]
from = \"big as b\"
external_id = \"b.id\"
[record.row.fields]
name = \"b.name\"
city = \"upper(b.city)\"
amount = \"b.amount\"
made = \"b.made\"
payload = \"b.payload\"
n = \"b.n\"
";

/// A table of rows of about 450 bytes. The oracle is a sample: the whole would be more work than the daemon's.
async fn big(rows: u32) -> Option<Scene> {
    let sql = format!(
        "CREATE TABLE big (id bigint PRIMARY KEY, name text, city text, amount numeric(12,2), made timestamptz, payload text, n int);
         INSERT INTO big SELECT n, 'name ' || n, 'city ' || n % 100, n / 100.0, '2024-01-01'::timestamptz + n * interval '1 s',
           repeat(md5(n::text), 11), 0 FROM generate_series(1, {rows}) n;
         ANALYZE big"
    );
    let text = json!({"type": ["string", "null"]});
    let model = json!({"row": {"type": "object", "properties": {"name": text, "city": text, "amount": text, "made": text,
        "payload": text, "n": {"type": ["integer", "null"]}}}});
    let oracle = "SELECT 'row', id::text, jsonb_build_object('name', name, 'city', upper(city), 'amount', amount::text,
        'made', to_char(made AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), 'payload', payload, 'n', n)::text FROM big";
    let mut scene = Scene::of_tables(&sql, MAPPING, model, oracle).await?;
    scene.crm.forget_history();
    scene.tenant.chunk_rows = 5_000;
    scene.tenant.log_level = "info";
    scene.tenant.batch_records = 200;
    Some(scene)
}

fn watch(pid: u32) -> (Arc<AtomicU64>, tokio::task::JoinHandle<()>) {
    let peak = Arc::new(AtomicU64::new(0));
    let task = tokio::spawn({
        let peak = peak.clone();
        async move {
            loop {
                let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
                let line = text.lines().find(|line| line.starts_with("VmHWM:"));
                let now = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) * 1024;
                peak.fetch_max(now, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    });
    (peak, task)
}

/// Snapshot with a restart in the middle, then a second run; memory under the limit throughout.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_table() {
    let rows = if soak() { 1_000_000 } else { 60_000 };
    let scene = scene!(big(rows));
    let mut daemon = scene.start();
    let (first_peak, task) = watch(daemon.pid());
    scene.until("half of the table", seconds(1800), async |s| s.crm.count("row") > rows as usize / 2).await;
    daemon.kill();
    task.abort();
    let shown = scene.tenant.done(&["checkpoint", "show", "--json"]).await;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let phase = &shown["checkpoint"]["tables"]["public.big"]["phase"];
    let saved = phase["rows_done"].as_f64().unwrap_or_else(|| panic!("killed inside the table: {shown}"));
    assert!(saved > 0.0, "half of the table is in the CRM, and nothing of it saved: {shown}");
    daemon = scene.start();
    let (peak, task) = watch(daemon.pid());
    scene.until("all of the table", seconds(1800), async |s| s.crm.count("row") == rows as usize).await;
    scene.equal(&mut daemon, seconds(300)).await;
    let read = scene.tenant.metric("tidemark_snapshot_rows_total{").await.unwrap_or(0.0);
    assert!(read <= f64::from(rows) - saved, "the second run read {read} of {rows} rows, {saved} were saved");
    scene.source.psql("UPDATE big SET n = n + 1 WHERE id % 3 = 0");
    scene.equal(&mut daemon, seconds(900)).await;
    for peak in [&first_peak, &peak] {
        let peak = peak.load(Ordering::Relaxed);
        println!("peak memory {} MB with {rows} rows", peak >> 20);
        assert!(peak < LIMIT, "{peak} bytes resident");
    }
    task.abort();
    daemon.stop(seconds(10)).await;
    let before = scene.crm.writes();
    let daemon = scene.start();
    scene.until("readiness", seconds(60), async |s| s.tenant.get("/readyz").await.0 == 200).await;
    scene.quiet().await;
    assert_eq!(scene.crm.writes(), before);
    daemon.stop(seconds(10)).await;
}

/// One transaction that changes every row: bounded memory, the slot moves on, a kill in the middle, equal at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_transaction() {
    let rows = if soak() { 1_000_000 } else { 60_000 };
    let scene = scene!(big(rows));
    let mut daemon = scene.start();
    scene.until("the snapshot", seconds(1800), async |s| s.crm.count("row") == rows as usize).await;
    scene.equal(&mut daemon, seconds(300)).await;
    let (peak, task) = watch(daemon.pid());
    let changed = |s: &Scene| s.crm.content()["row"].values().filter(|r| r["n"] == json!(1)).count();
    scene.source.psql("UPDATE big SET n = 1");
    let goal = rows as usize / 3;
    scene.until("a third of the transaction", seconds(900), async |s| changed(s) > goal).await;
    let first = peak.load(Ordering::Relaxed);
    task.abort();
    daemon.kill();
    daemon = scene.start();
    let (peak, task) = watch(daemon.pid());
    scene.equal(&mut daemon, seconds(900)).await;
    let end = scene.source.psql("SELECT pg_current_wal_lsn()");
    let moved =
        format!("SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE slot_name = 'tidemark_e2e'");
    scene.source.psql("SELECT pg_switch_wal()");
    scene.until("the slot to move on", seconds(60), async |s| s.source.psql(&moved) == "t").await;
    for peak in [first, peak.load(Ordering::Relaxed)] {
        println!("peak memory {} MB with a transaction of {rows} updates", peak >> 20);
        assert!(peak < LIMIT, "{peak} bytes resident");
    }
    task.abort();
    daemon.stop(seconds(10)).await;
}
