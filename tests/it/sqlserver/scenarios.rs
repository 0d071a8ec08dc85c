//! End to end: the program on SQL Server (the simulator, or a server that is lent).

use super::scene::{CAPTURE_TIMEOUT, SqlServerScene, SqlServerSource, admit, create_shop};
use super::server::{Server, enable};
use crate::support::{seconds, seed, soak};
use serde_json::json;
use std::time::Duration;
use tidemark_conformance::Rng;
use tidemark_sqlserver_sim::{Options, Sim};

async fn server() -> Server {
    tokio::task::spawn_blocking(Server::start).await.expect("no panic").expect("a server")
}

/// First load, changes beside it, kills at any moment, keys that move: the CRM ends equal, and nothing went back in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_changes_and_kills() {
    changes_and_kills(true).await;
}

/// The same with change tracking, which the daemon chooses by itself where there is no change data capture.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_changes_and_kills_under_change_tracking() {
    changes_and_kills(false).await;
}

async fn changes_and_kills(captured: bool) {
    let (transactions, kills) = if soak() { (4_000, 30) } else { (400, 4) };
    let seed = seed("sqlserver random_changes_and_kills");
    let scene = SqlServerScene::shop_by(server().await, captured).await;
    let mut workload = scene.workload(seed);
    let mut session = scene.source.connect().await;
    workload.run(&mut session, 60).await;
    scene.tenant.done(&["check"]).await;
    let writing = tokio::spawn(async move {
        for _ in 0..transactions {
            workload.transaction(&mut session).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        (workload, session)
    });
    let mut rng = Rng::new(seed);
    let mut daemon = scene.start();
    for number in 0..kills {
        // Some kills come while it starts, most while it works.
        let alive = if rng.one_in(5) { rng.below(150) } else { 300 + rng.below(1_500) };
        tokio::time::sleep(Duration::from_millis(alive)).await;
        assert!(daemon.is_running(), "ended by itself before kill {number}\n{}", scene.tenant.last_words());
        daemon.kill();
        daemon = scene.start();
    }
    let (mut workload, mut session) = writing.await.expect("the workload ends");
    scene.equal_and_in_order(&mut daemon, seconds(90)).await;
    workload.run(&mut session, 40).await;
    scene.equal_and_in_order(&mut daemon, seconds(30)).await;
    println!("{} transactions, {} records", workload.committed, scene.crm.count("order"));
    assert!(scene.crm.count("order") > 20 && scene.crm.count("account") > 5);
    scene.tenant.done(&["verify"]).await;
    daemon.stop(seconds(10)).await;
    scene.finish().await;
}

/// One statement changes more rows than the daemon may hold, another moves all their keys; a kill in the middle of each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_larger_than_the_window() {
    larger_than_the_window(true).await;
}

/// The same with change tracking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_larger_than_the_window_under_change_tracking() {
    larger_than_the_window(false).await;
}

async fn larger_than_the_window(captured: bool) {
    const ROWS: usize = 10_000;
    let mut scene = SqlServerScene::shop_by(server().await, captured).await;
    scene.tenant.extra = "[limits]\nwindow_records = 1000\n".into();
    let mut session = scene.source.connect().await;
    let digit = "(SELECT 0 AS d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5 \
                 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)";
    let insert = format!(
        "INSERT INTO dbo.customers (id, name, rev) SELECT 1 + a.d + 10 * b.d + 100 * c.d + 1000 * e.d, N'new', 0 \
         FROM {digit} a CROSS JOIN {digit} b CROSS JOIN {digit} c CROSS JOIN {digit} e"
    );
    session.run(&insert).await.unwrap();
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    let name =
        |s: &SqlServerScene, word: &str| s.crm.content()["account"].values().filter(|r| r["name"] == word).count();
    session.run("UPDATE dbo.customers SET name = N'changed', rev = 1").await.unwrap();
    let within = async |s: &SqlServerScene, word: &str| {
        let pending = s.tenant.metric("tidemark_pending_changes").await.unwrap_or(0.0);
        assert!(pending < ROWS as f64 / 2.0, "{pending} changes are held at once");
        name(s, word) > ROWS / 3
    };
    scene.until("the middle of it", seconds(60), async |s| within(s, "changed").await).await;
    daemon.kill();
    assert!(name(&scene, "changed") < ROWS, "killed too late");
    daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    session.run("UPDATE dbo.customers SET id = id + 100000, name = N'moved', rev = 2").await.unwrap();
    scene.until("the middle of it", seconds(60), async |s| within(s, "moved").await).await;
    daemon.kill();
    assert!(name(&scene, "moved") < ROWS, "killed too late");
    daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    session.run("DELETE FROM dbo.customers WHERE id % 10 <> 0").await.unwrap();
    scene.equal(&mut daemon, seconds(60)).await;
    daemon.stop(seconds(10)).await;
    scene.finish().await;
}

/// The capture job stops: the daemon says so in its state, with the statement that starts it, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_capture_job_stops() {
    let seed = seed("sqlserver the_capture_job_stops");
    let mut scene = SqlServerScene::shop(server().await).await;
    scene.source.settings += &format!("capture_timeout = \"{}s\"\n", CAPTURE_TIMEOUT.as_secs());
    scene.tenant.engine = crate::support::Vendor::engine(&scene.source);
    let mut session = scene.source.connect().await;
    let mut workload = scene.workload(seed);
    workload.run(&mut session, 40).await;
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    session.run("EXEC sys.sp_cdc_stop_job @job_type = N'capture'").await.unwrap();
    workload.run(&mut session, 20).await;
    let told = async |scene: &SqlServerScene| {
        let status = scene.tenant.status().await.to_string();
        status.contains("the capture job does not run") && status.contains("sp_cdc_start_job")
    };
    scene.until("the state that tells it", seconds(30), told).await;
    scene.until("unreadiness", seconds(10), async |s| s.tenant.get("/readyz").await.0 != 200).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_ne!(scene.tenant.get("/readyz").await.0, 200, "ready, though changes do not come");
    }
    session.run("EXEC sys.sp_cdc_start_job @job_type = N'capture'").await.unwrap();
    scene.equal_and_in_order(&mut daemon, seconds(60)).await;
    scene.until("readiness", seconds(30), async |s| s.tenant.get("/readyz").await.0 == 200).await;
    daemon.stop(seconds(10)).await;
    scene.finish().await;
}

/// Says what happened, twice, and sends nothing; then is allowed to read anew, and ends equal.
async fn halts_and_resyncs(scene: &mut SqlServerScene) {
    scene.tenant.on_gap = "halt";
    let before = scene.crm.writes();
    for attempt in 1..=2 {
        let mut daemon = scene.start();
        if let Some(status) = daemon.wait(seconds(10)).await {
            assert!(!status.success(), "attempt {attempt}: ended with {status} as if all were well");
        } else {
            assert_ne!(scene.tenant.get("/readyz").await.0, 200, "attempt {attempt}: ready");
        }
        let words = scene.tenant.last_words();
        assert!(scene.tenant.log().contains("no longer reaches back"), "attempt {attempt}: no word of it\n{words}");
        assert_eq!(scene.crm.writes(), before, "attempt {attempt}: something was sent");
    }
    scene.tenant.on_gap = "resync";
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.source.sql("UPDATE dbo.customers SET name = N'afterwards'").await;
    scene.equal(&mut daemon, seconds(30)).await;
    daemon.stop(seconds(10)).await;
}

/// Runs until equal, stops, and changes rows, deletes among them, while nobody watches.
async fn changed_while_down(scene: &SqlServerScene) {
    let mut session = scene.source.connect().await;
    scene.workload(5).run(&mut session, 40).await;
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    daemon.stop(seconds(10)).await;
    session
        .run("DELETE FROM dbo.order_lines WHERE order_id % 2 = 0; UPDATE dbo.customers SET name = N'while down'")
        .await
        .unwrap();
    session.captured().await.unwrap();
}

/// The clean-up removes what was not read yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_cleaned_up_unread() {
    let mut scene = SqlServerScene::shop(server().await).await;
    changed_while_down(&scene).await;
    let mut session = scene.source.connect().await;
    let low = session.rows("SELECT MAX(start_lsn) FROM cdc.lsn_time_mapping WHERE tran_id <> 0x00").await.unwrap();
    let low = low[0][0].clone().expect("a transaction");
    for table in ["customers", "orders", "order_lines"] {
        let sql = format!(
            "EXEC sys.sp_cdc_cleanup_change_table @capture_instance = N'dbo_{table}', @low_water_mark = 0x{low}, @threshold = 4000"
        );
        session.run(&sql).await.unwrap();
    }
    halts_and_resyncs(&mut scene).await;
    scene.finish().await;
}

/// Another database behind the same name, made by the same scripts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_is_made_again() {
    let mut scene = SqlServerScene::shop(server().await).await;
    changed_while_down(&scene).await;
    let (server, database) = (scene.source.server.clone(), scene.source.database.clone());
    if server.is_simulated() {
        server.connect("master").await.unwrap().run(&format!("DROP DATABASE [{database}]")).await.unwrap();
    } else {
        server.drop_database(&database).await.unwrap();
    }
    server.create_database(&database, true).await.unwrap();
    let mut session = scene.source.connect().await;
    admit(&mut session, &scene.source.user, true).await;
    create_shop(&mut session, true).await;
    session.run("INSERT dbo.customers VALUES (1, N'one', NULL, 1), (900, N'nine hundred', N'x', 2)").await.unwrap();
    halts_and_resyncs(&mut scene).await;
    scene.finish().await;
}

/// A backup is put back: the log goes on from where it was, and its numbers are given out a second time. Only the simulator
/// can be told to do this.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_database_is_restored() {
    let sim = tokio::task::spawn_blocking(|| Sim::start(Options { databases: Vec::new(), ..Options::default() }));
    let sim = sim.await.expect("no panic").expect("the simulator");
    let mut scene = SqlServerScene::shop(Server::of(&sim)).await;
    let backup = sim.backup(&scene.source.database).unwrap();
    changed_while_down(&scene).await;
    sim.restore(&backup).unwrap();
    let filler = "INSERT dbo.customers VALUES (1, N'one', NULL, 1); UPDATE dbo.customers SET rev = rev + 1";
    for _ in 0..60 {
        scene.source.sql(&filler.replace("INSERT dbo.customers VALUES (1, N'one', NULL, 1);", "")).await;
    }
    scene.source.sql(filler).await;
    halts_and_resyncs(&mut scene).await;
    drop(scene);
    drop(sim);
}

/// A mapped column that the capture instance does not hold is read from the table; a second instance takes over where it
/// begins; the first is then disabled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_instance_takes_over() {
    let source = SqlServerSource::start(server().await, true).await;
    let mut session = source.connect().await;
    let run = async |session: &mut super::server::Session, sql: &str| {
        session.run(sql).await.unwrap_or_else(|e| panic!("{e}"))
    };
    run(&mut session, "CREATE TABLE dbo.things (id int NOT NULL PRIMARY KEY, name nvarchar(40))").await;
    run(&mut session, &enable("things", "dbo_things")).await;
    run(&mut session, "ALTER TABLE dbo.things ADD size int NULL").await;
    run(&mut session, "INSERT dbo.things VALUES (1, N'a', 10), (2, N'b', 20)").await;
    session.captured().await.unwrap();
    let mapping = "tidemark = 1\n[pack]\nname = \"t\"\nversion = \"1.0.0\"\n[record.thing]\nfrom = \"things as t\"\n\
         external_id = \"t.id\"\n[record.thing.fields]\nname = \"t.name\"\nsize = \"t.size\"\n";
    let model = json!({"thing": {"type": "object", "properties":
        {"name": {"type": ["string", "null"]}, "size": {"type": ["integer", "null"]}}}});
    let oracle = "SELECT N'thing', CAST(id AS nvarchar(20)), name AS [name], size AS [size:number] FROM dbo.things";
    let scene = SqlServerScene::of_source(source, mapping, model, oracle).await;
    let findings = scene.tenant.done(&["check"]).await;
    assert!(findings.contains("does not hold size"), "{findings}");
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(30)).await;
    // The old instance knows nothing of the column: it is read by key.
    run(
        &mut session,
        "UPDATE dbo.things SET name = N'a2', size = 11 WHERE id = 1; INSERT dbo.things VALUES (3, N'c', 30)",
    )
    .await;
    scene.equal(&mut daemon, seconds(30)).await;
    run(&mut session, &enable("things", "second")).await;
    run(&mut session, "UPDATE dbo.things SET size = size + 1").await;
    scene.equal(&mut daemon, seconds(30)).await;
    let disable = "EXEC sys.sp_cdc_disable_table @source_schema = N'dbo', @source_name = N'things', @capture_instance = N'dbo_things'";
    run(&mut session, disable).await;
    run(&mut session, "UPDATE dbo.things SET size = NULL WHERE id = 2; DELETE FROM dbo.things WHERE id = 3; UPDATE dbo.things SET id = 7 WHERE id = 1").await;
    scene.equal(&mut daemon, seconds(30)).await;
    daemon.kill();
    run(&mut session, "UPDATE dbo.things SET size = 99").await;
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(30)).await;
    daemon.stop(seconds(10)).await;
    scene.finish().await;
}

/// With read-only intent the daemon is led from the primary to the secondary, and lives there: the first load, changes,
/// a kill. Only the simulator has an availability group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secondary_is_read() {
    let options = Options { databases: Vec::new(), heartbeat: Duration::from_millis(300), ..Options::default() };
    let sim = tokio::task::spawn_blocking(|| Sim::start(options)).await.expect("no panic").expect("the simulator");
    let mut scene = SqlServerScene::shop(Server::of(&sim)).await;
    sim.secondary().unwrap();
    scene.source.settings += "application_intent = \"read-only\"\n";
    scene.tenant.engine = crate::support::Vendor::engine(&scene.source);
    let seed = seed("sqlserver a_secondary_is_read");
    let mut session = scene.source.connect().await;
    let mut workload = scene.workload(seed);
    workload.run(&mut session, 60).await;
    let findings = scene.tenant.done(&["check"]).await;
    assert!(findings.contains("a read-only secondary"), "{findings}");
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    workload.run(&mut session, 60).await;
    daemon.kill();
    workload.run(&mut session, 20).await;
    let mut daemon = scene.start();
    scene.equal_and_in_order(&mut daemon, seconds(60)).await;
    scene.tenant.done(&["verify"]).await;
    daemon.stop(seconds(10)).await;
    scene.finish().await;
    drop(sim);
}
