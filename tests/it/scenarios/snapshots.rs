//! Reading tables from their beginning, and not reading or sending twice.

use crate::scene;
use crate::support::crm::Fault;
use crate::support::workload::Workload;
use crate::support::{Scene, seconds, seed};
use serde_json::json;
use std::time::Duration;

const ITEMS: &str = "CREATE TABLE items (id int PRIMARY KEY, name text, big text);
    ALTER TABLE items ALTER big SET STORAGE EXTERNAL;";
const ITEM_MAPPING: &str = "tidemark = 1
[pack]
name = \"items\"
version = \"1.0.0\"
[record.item]
from = \"items as i\"
external_id = \"i.id\"
[record.item.fields]
name = \"i.name\"
big = \"i.big\"
both = \"concat(i.name, ' ', left(i.big, 20))\"
";
const ITEM_ORACLE: &str = "SELECT 'item', id::text, jsonb_build_object('name', name, 'big', big,
    'both', concat(name, ' ', left(big, 20)))::text FROM items";

fn item_model() -> serde_json::Value {
    let text = json!({"type": ["string", "null"]});
    json!({"item": {"type": "object", "properties": {"name": text, "big": text, "both": text}}})
}

/// `rows` rows with a small text and a large one kept out of line.
async fn items(rows: u32, large: u32) -> Option<Scene> {
    let fill = format!(
        "{ITEMS} INSERT INTO items SELECT n, 'item ' || n, repeat(md5(n::text), {}) FROM generate_series(1, {rows}) n;
         ANALYZE items",
        large / 32
    );
    Scene::of_tables(&fill, ITEM_MAPPING, item_model(), ITEM_ORACLE).await
}

/// A01: killed in the middle of a table, it goes on there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_goes_on_inside_the_table() {
    const ROWS: u32 = 6_000;
    let mut scene = scene!(items(ROWS, 64));
    scene.tenant.chunk_rows = 100;
    scene.crm.faults(|_| Some(Fault::Slow(Duration::from_millis(60))));
    let mut daemon = scene.start();
    for share in [20, 50, 80] {
        let goal = ROWS as usize * share / 100;
        scene.until("part of the snapshot", seconds(60), async |s| s.crm.count("item") >= goal).await;
        daemon.kill();
        daemon = scene.start();
    }
    scene.crm.heal();
    scene.equal(&mut daemon, seconds(60)).await;
    // The counter is the last process's own: it must not have read what was stored before.
    let read = scene.tenant.metric("tidemark_snapshot_rows_total{").await.expect("the metric is there");
    assert!(read < f64::from(ROWS) * 0.5, "the last run read {read} of {ROWS} rows: it began anew");
    let arrivals = scene.crm.history().len();
    // A kill costs what was sent since the last checkpoint, not what was sent since the table's first row.
    assert!(arrivals < ROWS as usize * 7 / 4, "{arrivals} records were sent for {ROWS} rows");
    daemon.stop(seconds(10)).await;
}

/// A pass that begins while another runs, or right behind it, sees the rows of which the tail spoke during that one: their
/// records are not swept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_that_begins_in_the_middle_of_another_sweeps_nothing() {
    let mut scene = scene!(items(2_000, 32));
    scene.tenant.chunk_rows = 50;
    scene.crm.faults(|_| Some(Fault::Slow(Duration::from_millis(20))));
    let mut daemon = scene.start();
    for round in 0..5 {
        let before = scene.crm.history().len();
        scene.source.psql(&format!("UPDATE items SET name = 'round {round} of ' || id WHERE id % 7 = {round}"));
        scene.until("some of it", seconds(60), async |s| s.crm.history().len() >= before + 150).await;
        scene.tenant.done(&["resync", "--all"]).await;
    }
    scene.crm.heal();
    scene.equal(&mut daemon, seconds(60)).await;
    for round in 5..10 {
        scene.source.psql(&format!("UPDATE items SET name = 'round {round} of ' || id WHERE id % 7 = {}", round - 5));
        scene.tenant.done(&["resync", "--all"]).await;
        scene.equal(&mut daemon, seconds(60)).await;
    }
    let deleted: Vec<String> =
        scene.crm.history().into_iter().filter(|a| a.fields.is_none()).map(|a| a.external_id).collect();
    assert!(deleted.is_empty(), "{} records were deleted whose rows exist: {deleted:?}", deleted.len());
    daemon.stop(seconds(10)).await;
}

/// Nothing changed: nothing is sent, after a restart and after the checkpoint was forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_sends_nothing() {
    let scene = scene!(Scene::northwind());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    Workload::new(seed("a_second_run_sends_nothing"), scene.source.connect().await).run(100).await;
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    daemon.stop(seconds(10)).await;

    let before = scene.crm.writes();
    let daemon = scene.start();
    scene.until("readiness", seconds(60), async |s| s.tenant.get("/readyz").await.0 == 200).await;
    scene.quiet().await;
    assert_eq!(scene.crm.writes(), before, "write requests after a restart with nothing changed");
    daemon.stop(seconds(10)).await;

    scene.tenant.done(&["checkpoint", "reset", "--all", "--yes"]).await;
    let mut daemon = scene.start();
    scene
        .until("a whole snapshot", seconds(60), async |s| {
            s.tenant.metric("tidemark_snapshot_rows_total{").await.is_some_and(|n| n > 0.0)
                && s.tenant.get("/readyz").await.0 == 200
        })
        .await;
    scene
        .until("all tables live", seconds(60), async |s| {
            let status = s.tenant.status().await;
            let tables = status["tables"].as_array().cloned().unwrap_or_default();
            !tables.is_empty() && tables.iter().all(|t| t["phase"] == "live")
        })
        .await;
    scene.quiet().await;
    assert_eq!(scene.crm.writes(), before, "write requests after a checkpoint reset with nothing changed");
    scene.equal(&mut daemon, seconds(10)).await;
    daemon.stop(seconds(10)).await;
}

/// Killed while it had nothing to do: nothing is sent again. Killed while it was busy: what is sent again is bounded by
/// what was under way, not by what there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_costs_little() {
    let scene = scene!(Scene::northwind());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    Workload::new(seed("a_kill_costs_little"), scene.source.connect().await).run(100).await;
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    // Saved at the latest some seconds after the last change.
    tokio::time::sleep(seconds(5)).await;
    let before = scene.crm.writes();
    daemon.kill();
    let mut daemon = scene.start();
    scene.until("readiness", seconds(60), async |s| s.tenant.get("/readyz").await.0 == 200).await;
    scene.quiet().await;
    assert_eq!(scene.crm.writes(), before, "write requests after a kill with nothing under way");
    scene.source.psql("UPDATE northwind.\"Suppliers\" SET \"Phone\" = 'under way'");
    scene.until("the first of them", seconds(30), async |s| s.crm.writes() > before).await;
    daemon.kill();
    daemon = scene.start();
    let arrivals = scene.crm.history().len();
    scene.equal_and_in_order(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    let again = scene.crm.history().len() - arrivals;
    let suppliers = 29 + 100;
    assert!(again <= suppliers, "{again} records were sent after a kill with a few dozen under way");
    daemon.stop(seconds(10)).await;
}

/// Changes that change nothing of a record cost nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unmapped_and_empty_changes_cost_nothing() {
    let scene = scene!(Scene::northwind());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    let before = scene.crm.writes();
    for n in 0..20 {
        scene.source.psql(&format!("UPDATE northwind.\"Customers\" SET \"Fax\" = '{n}'; UPDATE northwind.\"Employees\" SET \"Photo\" = \"Photo\""));
    }
    // Something that does cost a request tells when the others were through.
    scene.source.psql("UPDATE northwind.\"Shippers\" SET \"Phone\" = '1'; UPDATE northwind.\"Suppliers\" SET \"Phone\" = 'last' WHERE \"SupplierID\" = 1");
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    assert_eq!(scene.crm.writes() - before, 1, "1,820 updates of unmapped or unchanged columns, and one that counts");
    daemon.stop(seconds(10)).await;
}

/// A partial update of rows that the snapshot has not reached: nothing is lost of either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partial_updates_before_the_snapshot_reaches_the_row() {
    let mut scene = scene!(items(3_000, 8_000));
    scene.tenant.chunk_rows = 100;
    scene.crm.faults(|_| Some(Fault::Slow(Duration::from_millis(40))));
    let mut daemon = scene.start();
    scene.until("the snapshot's begin", seconds(60), async |s| s.crm.count("item") > 50).await;
    // The large column is not in the log; the derived field needs both.
    scene.source.psql("UPDATE items SET name = 'changed ' || id WHERE id % 10 = 0");
    scene.source.psql(
        "DELETE FROM items WHERE id % 33 = 0; INSERT INTO items VALUES (33, 'again', 'small'), (5000, 'new', NULL)",
    );
    scene
        .source
        .psql("UPDATE items SET id = id + 10000 WHERE id % 41 = 0; UPDATE items SET name = 'moved' WHERE id > 10000");
    scene.until("half of the snapshot", seconds(60), async |s| s.crm.count("item") > 1_500).await;
    scene.source.psql("UPDATE items SET name = name || '!' WHERE id % 7 = 0");
    daemon.kill();
    daemon = scene.start();
    scene.source.psql(
        "UPDATE items SET big = 'now small' WHERE id % 11 = 0; UPDATE items SET name = name || '?' WHERE id % 22 = 0",
    );
    scene.crm.heal();
    scene.equal(&mut daemon, seconds(90)).await;
    scene.quiet().await;
    assert!(scene.differences().await.is_empty());
    daemon.stop(seconds(10)).await;
}

/// Rows written, deleted and moved all over a table while it is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_all_over_a_table_being_read() {
    let mut scene = scene!(Scene::northwind());
    scene.tenant.chunk_rows = 7;
    scene.crm.faults(|_| Some(Fault::Slow(Duration::from_millis(5))));
    let mut workload = Workload::new(seed("writes_all_over_a_table_being_read"), scene.source.connect().await);
    let mut daemon = scene.start();
    while scene.crm.count("order_line") < 1_000 {
        workload.run(10).await;
        assert!(daemon.is_running(), "{}", scene.tenant.last_words());
    }
    scene.crm.heal();
    scene.equal_and_in_order(&mut daemon, seconds(120)).await;
    daemon.stop(seconds(10)).await;
}
