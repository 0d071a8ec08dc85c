//! P4: a log that no longer reaches back, or is another one, is said aloud, and nothing is skipped.

use crate::scene;
use crate::support::door::Door;
use crate::support::mysql::{MysqlScene, MysqlSource};
use crate::support::seconds;
use std::time::{Duration, Instant};
use tidemark_throwaway::{MysqlFlavour, MysqlOptions};

mod tests {
    super::super::on_both! {
        purged_logs;
        a_log_that_began_anew;
        another_server_behind_the_name;
        a_gap_without_global_ids;
    }
}

const BEFORE: &str = "UPDATE Customers SET City = 'before the gap' WHERE Country = 'UK'";
const AFTER: &str = "DELETE FROM `Order Details` WHERE OrderID < 10300; DELETE FROM Orders WHERE OrderID < 10300;
    INSERT INTO Suppliers (SupplierID, CompanyName) VALUES (900, 'after the gap')";

fn forget(flavour: MysqlFlavour) -> &'static str {
    match flavour {
        MysqlFlavour::MariaDb => "RESET MASTER",
        MysqlFlavour::MySql => "RESET BINARY LOGS AND GTIDS",
    }
}

fn purge(source: &MysqlSource) {
    source.sql("FLUSH BINARY LOGS");
    // A session that has just ended may hold a file for a while: the server notices at its next write.
    let deadline = Instant::now() + seconds(60);
    loop {
        let logs = source.sql("SHOW BINARY LOGS");
        if logs.lines().count() == 1 {
            break;
        }
        assert!(Instant::now() < deadline, "the logs are still there:\n{logs}");
        let last = logs.lines().last().and_then(|line| line.split('\t').next()).expect("a log");
        source.sql(&format!("UPDATE Employees SET Title = concat(Title, '.'); PURGE BINARY LOGS TO '{last}'"));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Runs until equal, stops, and changes rows while nobody watches, on both sides of what `breaks` the log.
async fn changed_while_down(options: MysqlOptions, breaks: impl FnOnce(&MysqlSource)) -> Option<(MysqlScene, Door)> {
    let mut scene = MysqlScene::with(options).await?;
    let door = Door::to(scene.source.cluster.port()).await;
    scene.tenant.source_port = door.port;
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    daemon.stop(seconds(10)).await;
    scene.source.sql(BEFORE);
    breaks(&scene.source);
    scene.source.sql(AFTER);
    Some((scene, door))
}

/// With `on_gap = "halt"` it says what happened, sends nothing, and says it again the next time.
async fn halts(scene: &mut MysqlScene) {
    scene.tenant.on_gap = "halt";
    let before = scene.crm.writes();
    for attempt in 1..=2 {
        let mut daemon = scene.start();
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
        let log = scene.tenant.log();
        assert!(
            log.contains("the source's log no longer reaches back"),
            "attempt {attempt}: no word of it\n{}",
            scene.tenant.last_words()
        );
        assert_eq!(scene.crm.writes(), before, "attempt {attempt}: something was sent");
    }
    println!("{}", scene.tenant.last_words());
}

/// With `on_gap = "resync"` it ends equal, what was deleted in the gap included.
async fn resyncs(scene: &mut MysqlScene) {
    scene.tenant.on_gap = "resync";
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(90)).await;
    scene.quiet().await;
    scene.source.sql("UPDATE Suppliers SET Phone = 'afterwards'");
    scene.equal(&mut daemon, seconds(60)).await;
    assert!(scene.crm.content()["order"].keys().all(|id| id.parse::<i64>().is_ok_and(|n| n >= 10_300)));
    daemon.stop(seconds(10)).await;
}

/// B04: purged.
async fn purged_logs(flavour: MysqlFlavour) {
    let (mut scene, _door) = scene!(changed_while_down(MysqlOptions::new(flavour), purge));
    halts(&mut scene).await;
    resyncs(&mut scene).await;
}

/// B06: begun anew, and grown past the place that is looked for.
async fn a_log_that_began_anew(flavour: MysqlFlavour) {
    let begin = |source: &MysqlSource| {
        source.sql(forget(flavour));
        for part in 0..3 {
            let filler = (0..100).map(|n| format!("UPDATE Employees SET Title = 'filler {part} {n}'"));
            source.sql(&filler.collect::<Vec<_>>().join("; "));
            source.sql("FLUSH BINARY LOGS");
        }
    };
    let (mut scene, _door) = scene!(changed_while_down(MysqlOptions::new(flavour), begin));
    halts(&mut scene).await;
    resyncs(&mut scene).await;
}

/// B05: a server that was built again from the same scripts: the same names of files, and on MariaDB the same server id.
async fn another_server_behind_the_name(flavour: MysqlFlavour) {
    let (mut scene, door) = scene!(changed_while_down(MysqlOptions::new(flavour), |_| ()));
    let other = scene!(MysqlSource::northwind(MysqlOptions::new(flavour)));
    other.sql(AFTER);
    // At an address of its own it is refused, whatever the policy.
    let before = scene.crm.writes();
    scene.tenant.source_port = other.cluster.port();
    let mut daemon = scene.start();
    let status = daemon.wait(seconds(20)).await.expect("it ends");
    assert_eq!(status.code(), Some(78), "{}", scene.tenant.last_words());
    assert!(scene.tenant.log().contains("belongs to the source"), "{}", scene.tenant.last_words());
    assert_eq!(scene.crm.writes(), before, "something was sent");
    scene.tenant.source_port = door.port;
    door.leads_to(other.cluster.port());
    scene.client = other.pool();
    scene.source = other;
    halts(&mut scene).await;
    resyncs(&mut scene).await;
}

/// B04 by file and offset.
async fn a_gap_without_global_ids(flavour: MysqlFlavour) {
    let options = MysqlOptions { gtid: false, ..MysqlOptions::new(flavour) };
    let (mut scene, _door) = scene!(changed_while_down(options, purge));
    halts(&mut scene).await;
    resyncs(&mut scene).await;
}
