//! Random changes, random kills, restarts of the server: the CRM ends equal, and no record ever goes back in time.

use crate::scene;
use crate::support::crm::Fault;
use crate::support::mysql::MysqlScene;
use crate::support::workload::Workload;
use crate::support::{seconds, seed, soak};
use std::net::SocketAddr;
use std::time::Duration;
use tidemark_conformance::{Proxy, Rng};
use tidemark_throwaway::MysqlFlavour;

mod tests {
    super::super::on_both! {
        snapshot_then_changes;
        random_changes_and_kills;
        the_server_is_restarted;
        cut_in_the_middle_of_a_transaction;
        a_second_run_sends_nothing;
    }
}

/// Changes while it runs, without a kill: the simplest case, to fail first. Then what an operator asks.
async fn snapshot_then_changes(flavour: MysqlFlavour) {
    let scene = scene!(MysqlScene::on(flavour));
    scene.tenant.done(&["check"]).await;
    let mut daemon = scene.start();
    scene.equal_and_in_order(&mut daemon, seconds(60)).await;
    let mut workload = Workload::new(seed("snapshot_then_changes"), scene.source.connect().await);
    for _ in 0..4 {
        workload.run(60).await;
        scene.equal_and_in_order(&mut daemon, seconds(60)).await;
    }
    println!("{} transactions, {} rolled back", workload.committed, workload.rolled_back);
    assert!(workload.rolled_back > 0 && workload.rolled_back < workload.committed);
    scene.until("readiness", seconds(20), async |s| s.tenant.get("/readyz").await.0 == 200).await;
    scene.tenant.done(&["verify"]).await;
    daemon.stop(seconds(10)).await;
}

/// Kills the daemon again and again while changes run, then lets it finish.
async fn random_changes_and_kills(flavour: MysqlFlavour) {
    let (changes, kills) = if soak() { (10_000, 50) } else { (1_500, 7) };
    let seed = seed("random_changes_and_kills");
    let scene = scene!(MysqlScene::on(flavour));
    let mut rng = Rng::new(seed);
    let mut workload = Workload::new(seed, scene.source.connect().await);
    let writing = tokio::spawn(async move {
        while workload.changes < changes {
            workload.transaction().await;
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
        println!("{} transactions, {} rolled back", workload.committed, workload.rolled_back);
    });
    let mut daemon = scene.start();
    for number in 0..kills {
        // Some kills come while it starts, most while it works.
        let alive = if rng.one_in(5) { rng.below(150) } else { 200 + rng.below(2_500) };
        tokio::time::sleep(Duration::from_millis(alive)).await;
        assert!(daemon.is_running(), "ended by itself before kill {number}\n{}", scene.tenant.last_words());
        daemon.kill();
        daemon = scene.start();
    }
    writing.await.expect("the workload ends");
    scene.equal_and_in_order(&mut daemon, seconds(180)).await;
    scene.quiet().await;
    assert!(scene.differences().await.is_empty(), "equal for a moment only");
    scene.in_order().await;
    daemon.stop(seconds(10)).await;
}

/// B01: the server is restarted, in order and by a kill, under load.
async fn the_server_is_restarted(flavour: MysqlFlavour) {
    let seed = seed("the_server_is_restarted");
    let mut scene = scene!(MysqlScene::on(flavour));
    let mut daemon = scene.start();
    scene.until("some records", seconds(60), async |s| s.crm.count("account") > 20).await;
    for round in 0..2 {
        Workload::new(seed + round, scene.source.connect().await).run(60).await;
        if round == 0 { scene.source.cluster.stop() } else { scene.source.cluster.kill() }.unwrap();
        tokio::time::sleep(seconds(2)).await;
        assert!(daemon.is_running(), "gave up\n{}", scene.tenant.last_words());
        scene.source.cluster.start_again().unwrap();
        scene.client = scene.source.pool();
    }
    scene.equal_and_in_order(&mut daemon, seconds(120)).await;
    daemon.stop(seconds(10)).await;
}

/// B02: the connection is cut in the middle of large transactions.
async fn cut_in_the_middle_of_a_transaction(flavour: MysqlFlavour) {
    let mut scene = scene!(MysqlScene::on(flavour));
    let server = SocketAddr::from(([127, 0, 0, 1], scene.source.cluster.port()));
    let proxy = Proxy::start(server).await.unwrap();
    scene.tenant.source_port = proxy.addr().port();
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    for round in 0..3 {
        let before = proxy.forwarded();
        let rows: Vec<String> = (0..4_000)
            .map(|n| format!("({}, 'bulk {n}', '{}')", round * 100_000 + 1_000 + n, "x".repeat(200)))
            .collect();
        scene.source.sql(&format!(
            "BEGIN; INSERT INTO Suppliers (SupplierID, CompanyName, HomePage) VALUES {};
             UPDATE Suppliers SET Phone = 'round {round}'; COMMIT",
            rows.join(", ")
        ));
        scene.until("the middle of it", seconds(60), async |_| proxy.forwarded() > before + (300 << 10)).await;
        proxy.cut();
        tokio::time::sleep(Duration::from_millis(300)).await;
        proxy.cut();
    }
    scene.equal_and_in_order(&mut daemon, seconds(120)).await;
    daemon.stop(seconds(10)).await;
}

/// Nothing changed: nothing is sent, after a restart and after the checkpoint was forgotten; and changes that change
/// nothing of a record cost nothing.
async fn a_second_run_sends_nothing(flavour: MysqlFlavour) {
    let scene = scene!(MysqlScene::on(flavour));
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    daemon.stop(seconds(10)).await;

    let before = scene.crm.writes();
    let daemon = scene.start();
    scene.until("readiness", seconds(60), async |s| s.tenant.get("/readyz").await.0 == 200).await;
    for n in 0..20 {
        scene
            .source
            .sql(&format!("UPDATE Customers SET Fax = '{n}'; UPDATE Employees SET Photo = Photo, Title = '{n}'"));
    }
    scene.quiet().await;
    assert_eq!(scene.crm.writes(), before, "write requests after a restart with nothing changed that is mapped");
    daemon.stop(seconds(10)).await;

    scene.tenant.done(&["checkpoint", "reset", "--all", "--yes"]).await;
    scene.crm.faults(|_| None::<Fault>);
    let mut daemon = scene.start();
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
