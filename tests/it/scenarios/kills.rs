//! Random changes, random kills: the CRM ends equal, and no record ever goes back in time.

use crate::scene;
use crate::support::crm::Fault;
use crate::support::workload::Workload;
use crate::support::{Scene, seconds, seed, soak};
use std::time::Duration;
use tidemark_conformance::Rng;

/// Kills the daemon `kills` times while `changes` statements run, then lets it finish.
async fn changes_under_kills(name: &str, seed: u64, changes: u64, kills: u32, faults: bool) {
    let scene = scene!(Scene::northwind());
    let mut rng = Rng::new(seed);
    if faults {
        let mut rng = Rng::new(seed ^ 0xfa11);
        scene.crm.faults(move |_| match rng.below(30) {
            0 => Some(Fault::CutAfter),
            1 => Some(Fault::CutBefore),
            2 => Some(Fault::Status(500, "{}".into())),
            3 => Some(Fault::Throttle(None)),
            4 => Some(Fault::TooFew),
            5..=9 => Some(Fault::Slow(Duration::from_millis(rng.below(200)))),
            _ => None,
        });
    }
    let mut workload = Workload::new(seed, scene.source.connect().await);
    let writing = tokio::spawn(async move {
        while workload.changes < changes {
            workload.transaction().await;
            tokio::time::sleep(Duration::from_millis(4)).await;
        }
        println!(
            "{} transactions, {} rolled back, {} statements",
            workload.committed, workload.rolled_back, workload.changes
        );
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
    scene.crm.heal();
    scene.equal_and_in_order(&mut daemon, seconds(180)).await;
    scene.quiet().await;
    assert!(scene.differences().await.is_empty(), "equal for a moment only");
    scene.in_order().await;
    daemon.stop(seconds(10)).await;
    let mut answers = std::collections::BTreeMap::new();
    scene.crm.history().iter().for_each(|a| *answers.entry(a.status).or_insert(0) += 1);
    println!("{name}: arrivals by answer {answers:?} in {} requests", scene.crm.writes());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_changes_and_kills() {
    let (changes, kills) = if soak() { (10_000, 50) } else { (2_000, 8) };
    changes_under_kills("random_changes_and_kills", seed("random_changes_and_kills"), changes, kills, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_changes_and_kills_with_a_bad_crm() {
    let (changes, kills) = if soak() { (10_000, 50) } else { (1_000, 6) };
    let name = "random_changes_and_kills_with_a_bad_crm";
    changes_under_kills(name, seed(name), changes, kills, true).await;
}

/// Changes while it runs, without a kill: the simplest case, to fail first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_then_changes() {
    let scene = scene!(Scene::northwind());
    let mut daemon = scene.start();
    scene.equal_and_in_order(&mut daemon, seconds(60)).await;
    let mut workload = Workload::new(seed("snapshot_then_changes"), scene.source.connect().await);
    for _ in 0..5 {
        workload.run(60).await;
        scene.equal_and_in_order(&mut daemon, seconds(60)).await;
    }
    assert!(scene.tenant.get("/readyz").await.0 == 200, "not ready although equal");
    daemon.stop(seconds(10)).await;
}
