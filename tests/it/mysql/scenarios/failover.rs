//! B07, B08: failover to a replica goes on by global ids, without a gap and without reading anything anew.

use crate::scene;
use crate::support::mysql::{MysqlScene, MysqlSource};
use crate::support::workload::Workload;
use crate::support::{seconds, seed};
use std::time::Duration;
use tidemark_throwaway::{MysqlFlavour, MysqlOptions};

mod tests {
    super::super::on_both! {
        failover_to_a_replica;
    }
}

async fn failover_to_a_replica(flavour: MysqlFlavour) {
    let seed = seed("failover_to_a_replica");
    let mut scene = scene!(MysqlScene::on(flavour));
    let options = MysqlOptions { server_id: 2, ..MysqlOptions::new(flavour) };
    let replica = scene!(MysqlSource::bare(options, "northwind"));
    replica.cluster.replicate_from(&scene.source.cluster).unwrap();

    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    // The CRM may be equal, and the status say so, before the end of the snapshot is written down.
    scene
        .until("the end of the snapshot in the checkpoint", seconds(30), async |s| {
            let shown = s.tenant.done(&["checkpoint", "show", "--json"]).await;
            let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
            let tables = shown["checkpoint"]["tables"].as_object().cloned().unwrap_or_default();
            !tables.is_empty() && tables.values().all(|table| table["phase"]["phase"] == "live")
        })
        .await;
    Workload::new(seed, scene.source.connect().await).run(150).await;
    // Killed with some of it on the way; the rest it can only have from the replica.
    tokio::time::sleep(Duration::from_millis(150)).await;
    daemon.kill();
    Workload::new(seed + 1, scene.source.connect().await).run(150).await;
    replica.cluster.wait_for(&scene.source.cluster).unwrap();
    replica.cluster.promote().unwrap();
    scene.source.cluster.stop().unwrap();

    // The operator names the new server in the tenant file, and that is all.
    scene.tenant.source_port = replica.cluster.port();
    scene.client = replica.pool();
    scene.source = replica;
    let mut workload = Workload::new(seed + 2, scene.source.connect().await);
    // Keys of its own: the other workloads have used the first ones.
    workload.skip(5_000);
    workload.run(150).await;
    scene.tenant.on_gap = "halt";
    let mut daemon = scene.start();
    scene.equal_and_in_order(&mut daemon, seconds(90)).await;
    workload.run(100).await;
    scene.equal_and_in_order(&mut daemon, seconds(60)).await;
    let read = scene.tenant.metric("tidemark_snapshot_rows_total{").await.unwrap_or(0.0);
    assert!(read < 1.0, "{read} rows were read anew\n{}", scene.tenant.last_words());
    // And once more, from a checkpoint of the new server.
    daemon.kill();
    workload.run(50).await;
    let mut daemon = scene.start();
    scene.equal_and_in_order(&mut daemon, seconds(60)).await;
    daemon.stop(seconds(10)).await;
}
