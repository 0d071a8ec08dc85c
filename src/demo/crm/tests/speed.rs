//! How fast it is. Not run by itself: `cargo test --release --lib demo::crm::tests::speed -- --ignored --nocapture`.

use super::*;
use futures_util::StreamExt;
use std::time::Instant;

const RECORDS: u64 = 200_000;
const BATCH: u64 = 200;

fn document(n: u64, round: u64) -> Document {
    let fields = json!({
        "name": format!("Company number {n}"), "street": "Hauptstraße 17 in the middle of everything", "city": "Ulm",
        "country": "DE", "phone": "+49 731 123456", "fax": "+49 731 123457", "contact": "Ann Example-Person",
        "title": "Sales Representative", "notes": "x".repeat(128), "created_at": "2024-01-01T10:00:00.123456Z",
        "tier": "gold", "credit_limit": 12345.67, "orders": n, "active": true, "round": round,
    });
    Document::new(fields.to_string().into_bytes().into(), false)
}

/// CPU seconds of this process so far.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

async fn measure(name: &str, options: DevCrmOptions, gzip: bool) {
    let scene = Scene::with(DevCrmOptions { schema: SchemaSource::Open, ..options }, |config| config.gzip = gzip).await;
    for (version, round, what) in [(1, 1, "create"), (2, 2, "update"), (3, 2, "unchanged")] {
        let documents: Vec<_> = (0..RECORDS).map(|n| (format!("cust-{n:08}"), document(n, round))).collect();
        let (started, cpu_before) = (Instant::now(), cpu());
        let batches = documents.chunks(BATCH as usize).map(|batch| {
            let crm = &scene.crm;
            async move {
                let records: Vec<_> = batch
                    .iter()
                    .map(|(id, document)| WriteRecord { external_id: id, version, document: Some(document) })
                    .collect();
                crm.upsert("account", &records).await.unwrap()
            }
        });
        let outcomes: usize = futures_util::stream::iter(batches)
            .buffer_unordered(4)
            .map(|outcomes| outcomes.len())
            .fold(0, async |all, n| all + n)
            .await;
        let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu() - cpu_before);
        assert_eq!(outcomes as u64, RECORDS);
        println!(
            "{name:<28} {what:<9} {:>8.0} records/s, {:>5.2} CPU s per million (client and server)",
            RECORDS as f64 / seconds,
            cpu / RECORDS as f64 * 1e6
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn speed() {
    measure("memory, no history", DevCrmOptions { history: 0, ..DevCrmOptions::default() }, false).await;
    measure("memory, with history", DevCrmOptions::default(), false).await;
    measure("memory, gzip", DevCrmOptions::default(), true).await;
    let dir = tempfile::tempdir().unwrap();
    let db = Some(dir.path().join("crm.db"));
    measure("SQLite", DevCrmOptions { db, ..DevCrmOptions::default() }, false).await;
}
