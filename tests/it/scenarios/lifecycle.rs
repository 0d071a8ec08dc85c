//! Starting, stopping, and being one of a kind.

use crate::scene;
use crate::support::crm::Fault;
use crate::support::{Scene, seconds};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tidemark_conformance::Proxy;

/// A09: SIGTERM with a backlog: out in time with exit code 0, twice is no harm, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_with_a_backlog() {
    let scene = scene!(Scene::northwind());
    scene.crm.faults(|_| Some(Fault::Slow(Duration::from_millis(250))));
    let mut daemon = scene.start();
    scene.until("some records", seconds(60), async |s| s.crm.count("account") > 20).await;
    let asked = Instant::now();
    daemon.terminate();
    tokio::time::sleep(Duration::from_millis(50)).await;
    if daemon.is_running() {
        daemon.terminate();
    }
    let status = daemon.wait(seconds(15)).await.unwrap_or_else(|| panic!("still there\n{}", scene.tenant.last_words()));
    assert!(status.success(), "{status}\n{}", scene.tenant.last_words());
    assert!(asked.elapsed() < seconds(10), "stopping took {:?}", asked.elapsed());
    scene.crm.heal();
    let mut daemon = scene.start();
    scene.equal_and_in_order(&mut daemon, seconds(60)).await;
    daemon.stop(seconds(10)).await;
}

/// A10: SIGTERM while the CRM never answers: still out in time; nothing counts as done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_while_the_crm_hangs() {
    let scene = scene!(Scene::northwind());
    scene.crm.faults(|_| Some(Fault::Hang));
    let mut daemon = scene.start();
    scene.until("a request", seconds(60), async |s| s.crm.writes() > 0).await;
    let asked = Instant::now();
    daemon.terminate();
    let status = daemon.wait(seconds(30)).await.unwrap_or_else(|| panic!("still there\n{}", scene.tenant.last_words()));
    assert!(status.success(), "{status}\n{}", scene.tenant.last_words());
    assert!(asked.elapsed() < seconds(12), "stopping took {:?}", asked.elapsed());
    scene.crm.heal();
    let mut daemon = scene.start();
    scene.equal_and_in_order(&mut daemon, seconds(60)).await;
    daemon.stop(seconds(10)).await;
}

/// A11: the source is not there yet: no busy loop, not ready, and then it runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_comes_late() {
    let mut scene = scene!(Scene::northwind());
    let server = SocketAddr::from(([127, 0, 0, 1], scene.source.cluster.port()));
    let proxy = Proxy::start(server).await.unwrap();
    proxy.refuse(true);
    scene.tenant.source_port = proxy.addr().port();
    let mut daemon = scene.start();
    tokio::time::sleep(seconds(2)).await;
    let before = daemon.cpu_ticks();
    tokio::time::sleep(seconds(4)).await;
    assert!(daemon.is_running(), "gave up on a source that is not there yet\n{}", scene.tenant.last_words());
    let ticks = daemon.cpu_ticks() - before;
    assert!(ticks < 40, "{ticks} hundredths of a second of CPU in four seconds of waiting");
    let (ready, _) = scene.tenant.get("/readyz").await;
    assert_ne!(ready, 200, "ready without a source");
    proxy.refuse(false);
    scene.equal_and_in_order(&mut daemon, seconds(90)).await;
    daemon.stop(seconds(10)).await;
}

/// A12: a wrong password is not tried again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_fails_fast() {
    let mut scene = scene!(Scene::northwind());
    scene.tenant.source_password = "an-0ther password".into();
    let mut daemon = scene.start();
    let status =
        daemon.wait(seconds(30)).await.unwrap_or_else(|| panic!("still trying\n{}", scene.tenant.last_words()));
    assert!(matches!(status.code(), Some(1 | 77 | 78)), "{status}\n{}", scene.tenant.last_words());
    let log = scene.tenant.log();
    assert!(log.contains("password"), "{}", scene.tenant.last_words());
    assert!(!log.contains("an-0ther password"), "the password is in the log");
    let tried = std::fs::read_to_string(scene.source.cluster.log_file()).unwrap_or_default();
    let tries = tried.matches("password authentication failed").count();
    assert!(tries <= 3, "{tries} attempts with a wrong password");
}

/// G04: one tenant, one daemon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_daemon_is_refused() {
    let scene = scene!(Scene::northwind());
    let mut first = scene.start();
    scene.equal(&mut first, seconds(60)).await;
    let second = scene.tenant.run(&["run"]).await;
    assert_eq!(second.status.code(), Some(75), "{}", String::from_utf8_lossy(&second.stderr));
    assert!(first.is_running());
    scene.source.psql("UPDATE northwind.\"Suppliers\" SET \"Phone\" = 'after the second'");
    scene.equal_and_in_order(&mut first, seconds(30)).await;
    first.stop(seconds(10)).await;
}

/// What an operator asks of a running tenant.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_questions_are_answered() {
    let scene = scene!(Scene::northwind());
    scene.tenant.done(&["check"]).await;
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.until("the state live", seconds(30), async |s| s.tenant.status().await["state"] == "live").await;
    let status = scene.tenant.status().await;
    assert_eq!(status["pid"], daemon.pid(), "{status}");
    assert_eq!(scene.tenant.get("/livez").await.0, 200);
    scene.until("readiness", seconds(20), async |s| s.tenant.get("/readyz").await.0 == 200).await;
    assert!(scene.tenant.metric("tidemark_replication_lag_seconds").await.is_some_and(|lag| lag < 5.0));
    let shown = scene.tenant.done(&["checkpoint", "show", "--json"]).await;
    assert!(serde_json::from_str::<serde_json::Value>(&shown).is_ok(), "{shown}");

    scene.tenant.done(&["verify"]).await;
    scene.crm.meddle("account", "supp-1", |fields| {
        fields.as_mut().unwrap().insert("name".into(), "somebody's own idea".into());
    });
    scene.crm.meddle("product", "3", |fields| *fields = None);
    let verified = scene.tenant.run(&["verify"]).await;
    assert!(!verified.status.success(), "verify overlooked two differences");
    scene.tenant.run(&["verify", "--repair"]).await;
    scene.equal(&mut daemon, seconds(30)).await;
    scene.tenant.done(&["verify"]).await;
    daemon.stop(seconds(10)).await;
    let status = scene.tenant.status().await;
    assert_eq!(status["state"], "stopped", "{status}");
}
