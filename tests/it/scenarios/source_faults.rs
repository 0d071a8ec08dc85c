//! A source that goes away: restarts, cut connections, silence.

use crate::scene;
use crate::support::workload::Workload;
use crate::support::{Scene, seconds, seed};
use std::net::SocketAddr;
use std::time::Duration;
use tidemark_conformance::Proxy;

/// B01: the server is restarted, in order and as a crash would, under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_restarted() {
    let seed = seed("the_server_is_restarted");
    let mut scene = scene!(Scene::northwind());
    let mut daemon = scene.start();
    scene.until("some records", seconds(60), async |s| s.crm.count("account") > 20).await;
    for round in 0..2 {
        Workload::new(seed + round, scene.source.connect().await).run(60).await;
        if round == 0 { scene.source.cluster.stop_fast() } else { scene.source.cluster.stop_immediate() }.unwrap();
        tokio::time::sleep(seconds(2)).await;
        assert!(daemon.is_running(), "gave up\n{}", scene.tenant.last_words());
        scene.source.cluster.start_again().unwrap();
        scene.client = scene.source.connect().await;
    }
    scene.equal_and_in_order(&mut daemon, seconds(120)).await;
    daemon.stop(seconds(10)).await;
}

/// B02: the connection is cut in the middle of a large transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_in_the_middle_of_a_transaction() {
    let mut scene = scene!(Scene::northwind());
    let server = SocketAddr::from(([127, 0, 0, 1], scene.source.cluster.port()));
    let proxy = Proxy::start(server).await.unwrap();
    scene.tenant.source_port = proxy.addr().port();
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    for round in 0..4 {
        let before = proxy.forwarded();
        scene.source.psql(&format!(
            "BEGIN; INSERT INTO northwind.\"Suppliers\" (\"SupplierID\", \"CompanyName\", \"HomePage\")
                SELECT {round} * 100000 + 1000 + n, 'bulk ' || n, repeat('x', 200) FROM generate_series(1, 5000) n;
             UPDATE northwind.\"Suppliers\" SET \"Phone\" = 'round {round}'; COMMIT"
        ));
        scene.until("the middle of it", seconds(60), async |_| proxy.forwarded() > before + (300 << 10)).await;
        proxy.cut();
        tokio::time::sleep(Duration::from_millis(300)).await;
        proxy.cut();
    }
    scene.equal_and_in_order(&mut daemon, seconds(120)).await;
    daemon.stop(seconds(10)).await;
}

/// B03: bytes stop coming while the connection stays: noticed, and connected anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_connection_is_noticed() {
    let mut scene = scene!(Scene::northwind());
    scene.source.psql("ALTER SYSTEM SET wal_sender_timeout = '4s'");
    scene.source.psql("SELECT pg_reload_conf()");
    let server = SocketAddr::from(([127, 0, 0, 1], scene.source.cluster.port()));
    let proxy = Proxy::start(server).await.unwrap();
    scene.tenant.source_port = proxy.addr().port();
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    proxy.swallow();
    scene.source.psql("UPDATE northwind.\"Suppliers\" SET \"Phone\" = 'unheard'");
    scene.equal_and_in_order(&mut daemon, seconds(90)).await;
    daemon.stop(seconds(10)).await;
}

/// B15: a busy neighbour database and quiet tables: the slot moves on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_table_does_not_hold_the_log() {
    let scene = scene!(Scene::northwind());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.source.cluster.psql("CREATE TABLE elsewhere (t text)").unwrap();
    let behind =
        "SELECT pg_current_wal_lsn() - confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = 'tidemark_e2e'";
    for _ in 0..10 {
        scene
            .source
            .cluster
            .psql("INSERT INTO elsewhere SELECT repeat('x', 500) FROM generate_series(1, 4000)")
            .unwrap();
    }
    scene
        .until("the slot to move", seconds(60), async |s| s.source.psql(behind).parse::<f64>().is_ok_and(|b| b < 1e6))
        .await;
    daemon.stop(seconds(10)).await;
}
