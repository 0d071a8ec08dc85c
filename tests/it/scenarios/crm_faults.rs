//! A CRM on its bad days: nothing lost, nothing twice, and what it refuses is set aside with its words.

use crate::scene;
use crate::support::crm::Fault;
use crate::support::judge;
use crate::support::workload::Workload;
use crate::support::{Scene, seconds, seed, soak};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tidemark_conformance::Rng;

/// `dead-letters list --json` as a list.
async fn dead_letters(scene: &Scene) -> Vec<Value> {
    if !scene.tenant.state_dir().join("checkpoint").exists() {
        return Vec::new();
    }
    let text = scene.tenant.done(&["dead-letters", "list", "--json"]).await;
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("not JSON ({e}): {text}"));
    value.as_array().or_else(|| value["dead_letters"].as_array()).cloned().unwrap_or_default()
}

/// Everything that can go wrong with a request, at random, and one record in a hundred refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_at_random() {
    let name = "every_fault_at_random";
    let seed = seed(name);
    let scene = scene!(Scene::northwind());
    let mut rng = Rng::new(seed);
    scene.crm.faults(move |_| match rng.below(40) {
        0 => Some(Fault::Throttle(Some("1".into()))),
        1 => Some(Fault::Throttle(None)),
        2 => Some(Fault::Throttle(Some("not a time".into()))),
        3 | 4 => Some(Fault::Status([500, 502, 503, 504][rng.index(4)], "{\"error\":\"ill\"}".into())),
        5 => Some(Fault::CutBefore),
        6 => Some(Fault::CutAfter),
        7 => Some(Fault::CutAnswer),
        8 => Some(Fault::TooFew),
        9 => Some(Fault::Instead("text/html", "<html>please log in</html>".into())),
        10 => Some(Fault::Instead("application/json", "{\"results\":[{\"external".into())),
        11 => Some(Fault::Empty(204)),
        12 => Some(Fault::Empty(202)),
        13 => Some(Fault::Slow(Duration::from_millis(rng.below(400)))),
        _ => None,
    });
    let refused: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    scene.crm.rejects({
        let refused = refused.clone();
        move |entity, id, _| {
            let sum: u64 = id.bytes().fold(7, |sum, byte| sum * 31 + u64::from(byte));
            (entity == "order_line" && sum.is_multiple_of(100)).then(|| {
                refused.lock().unwrap().insert(id.to_owned());
                json!({"code": "invalid_value", "field": "quantity", "message": "we do not like this quantity"})
            })
        }
    });
    let mut daemon = scene.start();
    let mut workload = Workload::new(seed, scene.source.connect().await);
    for _ in 0..10 {
        workload.run(if soak() { 400 } else { 40 }).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Equal except for what was refused, and that is all in the dead letters, in the CRM's words.
    let without = async || {
        let refused = refused.lock().unwrap().clone();
        let (mut wanted, mut got) = (scene.wanted().await, scene.crm.content());
        for content in [&mut wanted, &mut got] {
            content.entry("order_line".into()).or_default().retain(|id, _| !refused.contains(id));
        }
        judge::differences(&wanted, &got, 8)
    };
    scene.until("equality but for the refused records", seconds(120), async |_| without().await.is_empty()).await;
    scene.in_order().await;
    assert!(!refused.lock().unwrap().is_empty(), "nothing was refused: the seed proves nothing");
    scene.crm.faults(|_| None);
    scene.quiet().await;
    let letters = dead_letters(&scene).await;
    let present: BTreeSet<String> = scene.wanted().await["order_line"].keys().cloned().collect();
    let wanted: BTreeSet<_> = refused.lock().unwrap().intersection(&present).cloned().collect();
    let listed: BTreeSet<String> =
        letters.iter().filter_map(|l| l["external_id"].as_str().map(str::to_owned)).collect();
    assert!(wanted.is_subset(&listed), "refused: {wanted:?}, dead letters: {listed:?}");
    assert!(letters.iter().all(|l| l.to_string().contains("we do not like this quantity")), "{letters:?}");

    scene.crm.heal();
    scene.tenant.done(&["dead-letters", "retry", "--all", "--yes"]).await;
    scene.equal_and_in_order(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    assert!(dead_letters(&scene).await.is_empty(), "a later success clears a dead letter");
    daemon.stop(seconds(10)).await;
}

/// F01: `Retry-After` in seconds and as a date is waited for; none and nonsense do no harm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_after_is_obeyed() {
    let scene = scene!(Scene::northwind());
    let told: Arc<Mutex<Vec<Instant>>> = Arc::default();
    scene.crm.faults({
        let told = told.clone();
        let mut left = 0;
        move |seen| {
            if seen.number % 12 != 5 || left == 4 {
                return None;
            }
            left += 1;
            let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(3));
            match left {
                1 | 2 => {
                    told.lock().unwrap().push(Instant::now());
                    Some(Fault::Throttle(Some(if left == 1 { "2".into() } else { date })))
                }
                3 => Some(Fault::Throttle(None)),
                _ => Some(Fault::Throttle(Some("soon".into()))),
            }
        }
    });
    let mut daemon = scene.start();
    scene.equal_and_in_order(&mut daemon, seconds(60)).await;
    let told = told.lock().unwrap().clone();
    assert_eq!(told.len(), 2, "the CRM did not get to throttle");
    for moment in told {
        // Requests that were on their way already are no disobedience; a date has no fractions of seconds.
        let (from, to) = (moment + Duration::from_millis(150), moment + Duration::from_millis(1_800));
        let early = scene.crm.log().iter().filter(|l| l.write && l.at > from && l.at < to).count();
        assert_eq!(early, 0, "{early} requests came while the CRM had asked to wait");
    }
    assert!(scene.tenant.metric("tidemark_crm_throttled_seconds_total").await.is_some_and(|s| s > 1.0));
    daemon.stop(seconds(10)).await;
}

/// F02: a CRM that refuses everything for a while: bounded memory, the source is not told to forget, it goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crm_that_refuses_everything_for_a_while() {
    let scene = scene!(Scene::northwind());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.crm.faults(|_| Some(Fault::Throttle(None)));
    let slot = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'tidemark_e2e'";
    scene.source.psql("UPDATE northwind.\"Customers\" SET \"City\" = 'waits'");
    tokio::time::sleep(seconds(2)).await;
    let before = scene.source.psql(slot);
    let begun = Instant::now();
    let mut workload = Workload::new(seed("a_crm_that_refuses_everything"), scene.source.connect().await);
    while begun.elapsed() < seconds(if soak() { 600 } else { 8 }) {
        workload.run(20).await;
        assert!(daemon.is_running(), "{}", scene.tenant.last_words());
    }
    assert_eq!(scene.source.psql(slot), before, "the source was told to forget what the CRM does not have");
    assert!(daemon.memory().0 < 200 << 20, "{} bytes resident", daemon.memory().0);
    assert!(dead_letters(&scene).await.is_empty(), "a CRM that asks to wait makes no dead letters");
    scene.crm.heal();
    scene.equal_and_in_order(&mut daemon, seconds(90)).await;
    daemon.stop(seconds(10)).await;
}

/// F13: one field refused: a dead letter with the CRM's words; a later good state of the row clears it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_update_clears_a_dead_letter() {
    let scene = scene!(Scene::northwind());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.crm.rejects(|entity, _, fields| {
        let bad = entity == "account" && fields.get("phone").and_then(Value::as_str) == Some("not a phone");
        bad.then(|| json!({"code": "invalid_phone", "field": "phone", "message": "this is no phone number"}))
    });
    scene.source.psql("UPDATE northwind.\"Suppliers\" SET \"Phone\" = 'not a phone' WHERE \"SupplierID\" = 3");
    scene.until("the dead letter", seconds(30), async |s| !dead_letters(s).await.is_empty()).await;
    let letters = dead_letters(&scene).await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    let text = letters[0].to_string();
    assert!(
        text.contains("invalid_phone") && text.contains("this is no phone number") && text.contains("supp-3"),
        "{text}"
    );
    assert!(!text.contains("not a phone"), "a dead letter holds no field values: {text}");
    scene
        .until("the gauge", seconds(10), async |s| {
            s.tenant.metric("tidemark_dead_letters{entity=\"account\"}").await == Some(1.0)
        })
        .await;
    // It outlasts a restart.
    daemon.stop(seconds(10)).await;
    assert_eq!(dead_letters(&scene).await.len(), 1, "read without a daemon");
    let mut daemon = scene.start();
    scene.source.psql("UPDATE northwind.\"Suppliers\" SET \"Phone\" = '123' WHERE \"SupplierID\" = 3");
    scene.equal(&mut daemon, seconds(30)).await;
    scene.until("no dead letter", seconds(30), async |s| dead_letters(s).await.is_empty()).await;
    // Deleting the row clears one as well.
    scene.source.psql("UPDATE northwind.\"Customers\" SET \"Phone\" = 'not a phone' WHERE \"CustomerID\" = 'FISSA'");
    scene.until("the second dead letter", seconds(30), async |s| dead_letters(s).await.len() == 1).await;
    scene.source.psql("DELETE FROM northwind.\"Customers\" WHERE \"CustomerID\" = 'FISSA'");
    scene.until("no dead letter again", seconds(30), async |s| dead_letters(s).await.is_empty()).await;
    scene.equal_and_in_order(&mut daemon, seconds(30)).await;
    daemon.stop(seconds(10)).await;
}

/// A batch refused as a whole because of one record: only that one is set aside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_refused_as_a_whole_is_halved() {
    let scene = scene!(Scene::northwind());
    scene.crm.faults(|seen| {
        let poisoned = seen.entity == "order_line" && seen.ids.iter().any(|id| id == "10250-41");
        poisoned.then(|| Fault::Status(422, "{\"error\":\"something in there is bad\"}".into()))
    });
    let mut daemon = scene.start();
    scene.until("one dead letter", seconds(60), async |s| dead_letters(s).await.len() == 1).await;
    scene.until("all other lines", seconds(60), async |s| s.crm.count("order_line") == 2_154).await;
    let letters = dead_letters(&scene).await;
    assert!(letters.len() == 1 && letters[0].to_string().contains("10250-41"), "{letters:?}");
    assert!(letters[0].to_string().contains("something in there is bad"), "{letters:?}");
    scene.crm.heal();
    scene.tenant.done(&["dead-letters", "retry", "--all", "--yes"]).await;
    scene.equal_and_in_order(&mut daemon, seconds(30)).await;
    daemon.stop(seconds(10)).await;
}

/// 413 makes smaller batches.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_large_makes_smaller_batches() {
    let scene = scene!(Scene::northwind());
    scene.crm.faults(|seen| (seen.records > 9).then(|| Fault::Status(413, "too large".into())));
    let mut daemon = scene.start();
    scene.equal_and_in_order(&mut daemon, seconds(90)).await;
    assert!(dead_letters(&scene).await.is_empty());
    daemon.stop(seconds(10)).await;
}

/// A wrong token: it stops and says so, and does not knock for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_token_stops_the_tenant() {
    let scene = scene!(Scene::northwind());
    let log = std::fs::File::create(scene.tenant.log_file()).unwrap();
    let mut command = scene.tenant.command(&["run"]);
    command.env("CRM_TOKEN", "a-wr0ng-token").stdout(log.try_clone().unwrap()).stderr(log);
    let status = tokio::task::spawn_blocking(move || command.status()).await.unwrap().unwrap();
    assert!(matches!(status.code(), Some(1 | 77 | 78)), "{status}\n{}", scene.tenant.last_words());
    let said = scene.tenant.log();
    assert!(said.contains("401"), "{}", scene.tenant.last_words());
    assert!(!said.contains("a-wr0ng-token"), "the token is in the log");
    assert_eq!(scene.crm.writes(), 0);
}
