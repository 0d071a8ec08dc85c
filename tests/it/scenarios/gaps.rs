//! P4: a log that no longer reaches back is said aloud, and nothing is skipped.

use crate::scene;
use crate::support::{Scene, seconds};

const SLOTS: &str = "SELECT count(*) FROM pg_replication_slots";
const DROP: &str = "SELECT pg_drop_replication_slot('tidemark_e2e')";
const RECREATE: &str = "SELECT pg_create_logical_replication_slot('tidemark_e2e', 'pgoutput')";

/// Runs until equal, stops, and changes rows while nobody watches: updates, deletes, a moved key, new rows.
async fn changed_while_down(breaking: &[&str]) -> Option<Scene> {
    let scene = Scene::northwind().await?;
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    daemon.stop(seconds(10)).await;
    scene.source.psql("UPDATE northwind.\"Customers\" SET \"City\" = 'before the gap' WHERE \"Country\" = 'UK'");
    for sql in breaking {
        scene.source.psql(sql);
    }
    scene.source.psql(
        "DELETE FROM northwind.\"Order Details\" WHERE \"OrderID\" < 10300;
         DELETE FROM northwind.\"Orders\" WHERE \"OrderID\" < 10300;
         UPDATE northwind.\"Customers\" SET \"CustomerID\" = 'MOVED' WHERE \"CustomerID\" = 'ALFKI';
         INSERT INTO northwind.\"Suppliers\" (\"SupplierID\", \"CompanyName\") VALUES (900, 'after the gap')",
    );
    Some(scene)
}

/// With `on_gap = "halt"` it says what happened, sends nothing, makes no new slot, and says it again the next time.
async fn halts(scene: &mut Scene) {
    scene.tenant.on_gap = "halt";
    let before = scene.crm.writes();
    let slots = scene.source.psql(SLOTS);
    for attempt in 1..=2 {
        let mut daemon = scene.start();
        let said = async |scene: &Scene| {
            let log = scene.tenant.log();
            log.contains("position_lost") || log.contains("tidemark_e2e") && log.to_lowercase().contains("slot")
        };
        match daemon.wait(seconds(20)).await {
            Some(status) => assert!(!status.success(), "attempt {attempt}: ended with {status} as if all were well"),
            // Staying up to say so is as good as ending, if it does say so.
            None => {
                let status = scene.tenant.status().await;
                let state = status["state"].as_str().unwrap_or("?");
                assert!(matches!(state, "needs_attention" | "failed"), "attempt {attempt}: {status}");
                assert_ne!(scene.tenant.get("/readyz").await.0, 200, "attempt {attempt}: ready");
            }
        }
        assert!(said(scene).await, "attempt {attempt}: no word of it\n{}", scene.tenant.last_words());
        assert_eq!(scene.crm.writes(), before, "attempt {attempt}: something was sent");
        assert_eq!(scene.source.psql(SLOTS), slots, "attempt {attempt}: slots were made or removed");
    }
    println!("{}", scene.tenant.last_words());
}

/// With `on_gap = "resync"` it ends equal, what was deleted in the gap included.
async fn resyncs(scene: &mut Scene) {
    scene.tenant.on_gap = "resync";
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(90)).await;
    scene.quiet().await;
    scene.source.psql("UPDATE northwind.\"Suppliers\" SET \"Phone\" = 'afterwards'");
    scene.equal(&mut daemon, seconds(60)).await;
    let (gone, kept) = ("order", "account");
    assert!(scene.crm.content()[gone].keys().all(|id| id.parse::<i64>().is_ok_and(|n| n >= 10_300)));
    assert!(
        scene.crm.content()[kept].contains_key("cust-MOVED") && !scene.crm.content()[kept].contains_key("cust-ALFKI")
    );
    daemon.stop(seconds(10)).await;
}

/// B10: the slot was dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_slot() {
    let mut scene = scene!(changed_while_down(&[DROP]));
    halts(&mut scene).await;
    resyncs(&mut scene).await;
}

/// B12: the slot was dropped and made again by hand, at a later place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recreated_slot() {
    let mut scene = scene!(changed_while_down(&[DROP, RECREATE]));
    halts(&mut scene).await;
    resyncs(&mut scene).await;
}

/// B11: the server gave the slot up because it held too much.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidated_slot() {
    let fill = "CREATE TABLE filler AS SELECT repeat('x', 1000) AS t FROM generate_series(1, 40000)";
    let mut scene = scene!(changed_while_down(&[
        "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'",
        "SELECT pg_reload_conf()",
        fill,
        "SELECT pg_switch_wal()",
        "CHECKPOINT",
    ]));
    assert_eq!(scene.source.psql("SELECT wal_status FROM pg_replication_slots"), "lost");
    halts(&mut scene).await;
    scene.source.psql("ALTER SYSTEM RESET max_slot_wal_keep_size");
    scene.source.psql("SELECT pg_reload_conf()");
    resyncs(&mut scene).await;
}

/// The slot was moved ahead by somebody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_advanced_slot() {
    let advance = "SELECT pg_replication_slot_advance('tidemark_e2e', pg_current_wal_lsn())";
    let mut scene = scene!(changed_while_down(&[advance]));
    halts(&mut scene).await;
    resyncs(&mut scene).await;
}

/// The slot goes while the daemon runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_dropped_while_running() {
    let scene = scene!(Scene::northwind());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    let drop = "DO $$ BEGIN FOR i IN 1..200 LOOP
          PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active;
          BEGIN PERFORM pg_drop_replication_slot('tidemark_e2e'); RETURN; EXCEPTION WHEN object_in_use THEN PERFORM pg_sleep(0.01); END;
        END LOOP; RAISE 'the slot stays in use'; END $$";
    scene.source.psql(drop);
    scene.source.psql("DELETE FROM northwind.\"Order Details\" WHERE \"OrderID\" = 10248");
    scene.equal(&mut daemon, seconds(90)).await;
    scene.source.psql("UPDATE northwind.\"Suppliers\" SET \"Phone\" = 'afterwards'");
    scene.equal(&mut daemon, seconds(60)).await;
    daemon.stop(seconds(10)).await;
}

/// The publication loses a table while nobody looks: noticed, named, and not skipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_taken_out_of_the_publication() {
    let scene = scene!(Scene::northwind());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    daemon.stop(seconds(10)).await;
    scene.source.psql("ALTER PUBLICATION tidemark_e2e DROP TABLE northwind.\"Suppliers\"");
    scene.source.psql("UPDATE northwind.\"Suppliers\" SET \"Phone\" = 'unpublished'");
    let mut daemon = scene.start();
    // Either it repairs the publication and reads the table again, or it stops and names it.
    match daemon.wait(seconds(5)).await {
        Some(status) => {
            assert!(!status.success());
            assert!(scene.tenant.log().contains("Suppliers"), "{}", scene.tenant.last_words());
        }
        None => {
            let equal = async |s: &Scene| s.differences().await.is_empty();
            let told = async |s: &Scene| {
                let status = s.tenant.status().await;
                let tables = status["tables"].as_array().cloned().unwrap_or_default();
                tables.iter().any(|t| {
                    t["phase"] == "needs_attention" && t["name"].as_str().is_some_and(|n| n.contains("Suppliers"))
                }) || status["state"] == "failed"
            };
            scene.until("equality or a word", seconds(60), async |s| equal(s).await || told(s).await).await;
        }
    }
}
