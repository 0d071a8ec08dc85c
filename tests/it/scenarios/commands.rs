//! What the operator's commands promise: comparing and repairing, dead letters, checkpoints, reading again, leaving.

use crate::scene;
use crate::support::crm::{Arrival, Fault};
use crate::support::{Scene, seconds};
use serde_json::{Value, json};
use std::process::Output;

const SHOP: &str = "CREATE TABLE client (id int PRIMARY KEY, name text, amount numeric(30,10));
    INSERT INTO client SELECT n, 'client ' || n, n + 0.5 FROM generate_series(1, 40) n;
    CREATE TABLE bill (id int PRIMARY KEY, number text NOT NULL);
    INSERT INTO bill SELECT n, 'B-' || n FROM generate_series(1, 60) n";

const MAPPING: &str = r#"
tidemark = 1
[pack]
name = "shop"
version = "1.0.0"
[record.client]
from = "client as c"
external_id = "c.id"
[record.client.fields]
name = "c.name"
amount = "c.amount"
[record.bill]
from = "bill as b"
external_id = "b.number"
[record.bill.fields]
number = "b.number"
"#;

const ORACLE: &str =
    "SELECT 'client', id::text, jsonb_build_object('name', name, 'amount', amount::float8)::text FROM client
    UNION ALL SELECT 'bill', number, jsonb_build_object('number', number)::text FROM bill";

async fn shop() -> Option<Scene> {
    let text = json!({"type": ["string", "null"]});
    let model = json!({
        "client": {"type": "object", "properties": {"name": text, "amount": {"type": ["number", "null"]}}},
        "bill": {"type": "object", "properties": {"number": text}},
    });
    Scene::of_tables(SHOP, MAPPING, model, ORACLE).await
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("an exit code")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn read(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}\n{}", said(output)))
}

/// The numbers of an entity in a report of `verify --json`.
fn counts(report: &Value, entity: &str) -> [u64; 5] {
    let found = report["entities"].as_array().unwrap().iter().find(|e| e["entity"] == entity).unwrap().clone();
    ["equal", "missing", "different", "extra", "unmappable"].map(|name| found[name].as_u64().unwrap())
}

fn since(scene: &Scene, before: usize) -> Vec<Arrival> {
    scene.crm.history()[before..].to_vec()
}

/// `verify` names differences of every kind, `--repair` mends them, with the daemon and without it; what is somebody
/// else's is left alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_repairs_every_kind_of_difference() {
    let scene = scene!(shop());
    let mut daemon = Some(scene.start());
    scene.equal(daemon.as_mut().unwrap(), seconds(60)).await;
    scene.quiet().await;
    scene.tenant.done(&["verify"]).await;
    for (round, runs) in [true, false].into_iter().enumerate() {
        // A row that vanishes without a trace in the log: its record is extra, and ours.
        daemon.take().unwrap().stop(seconds(10)).await;
        let gone = 40 - round;
        scene.source.psql("ALTER PUBLICATION tidemark_e2e SET (publish = 'insert, update')");
        scene.source.psql(&format!("DELETE FROM client WHERE id = {gone}"));
        scene.source.psql("ALTER PUBLICATION tidemark_e2e SET (publish = 'insert, update, delete, truncate')");
        let running = runs.then(|| scene.start());
        if running.is_some() {
            scene.until("the daemon", seconds(30), async |s| s.tenant.status().await["state"] == "live").await;
            scene.quiet().await;
        }
        scene.crm.meddle("client", "1", |fields| {
            fields.as_mut().unwrap().insert("name".into(), "somebody's idea".into());
        });
        scene.crm.meddle("client", "2", |fields| *fields = None);
        scene.crm.meddle("bill", "B-3", |fields| *fields = None);
        scene.crm.meddle("client", "by hand", |fields| *fields = json!({"name": "theirs"}).as_object().cloned());
        let output = scene.tenant.run(&["verify", "--json"]).await;
        let report = read(&output);
        assert_eq!(code(&output), 1, "{report}");
        assert_eq!(counts(&report, "client"), [38 - round as u64 - 1, 1, 1, 2, 0], "{report}");
        assert_eq!(counts(&report, "bill"), [59, 1, 0, 0, 0], "{report}");
        let output = scene.tenant.run(&["verify", "--repair"]).await;
        assert_eq!(code(&output), 1, "it was not equal: {}", said(&output));
        assert!(said(&output).contains("1 record of the CRM left alone: not ours"), "{}", said(&output));
        let mut again = running.unwrap_or_else(|| scene.start());
        scene
            .until("the repairs", seconds(60), async |s| {
                let differences = s.differences().await;
                differences.len() <= 1 && differences.iter().all(|d| d.contains("by hand"))
            })
            .await;
        let output = scene.tenant.run(&["verify", "--json"]).await;
        assert_eq!(counts(&read(&output), "client"), [39 - round as u64, 0, 0, 1, 0], "{}", said(&output));
        scene.crm.meddle("client", "by hand", |fields| *fields = None);
        scene.equal(&mut again, seconds(10)).await;
        scene.tenant.done(&["verify"]).await;
        daemon = Some(again);
    }
    daemon.unwrap().stop(seconds(10)).await;
}

/// Numbers are compared digit by digit, whether the CRM tells them as numbers or as text.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_does_not_round() {
    let scene = scene!(shop());
    // This CRM keeps floats: it cannot hold the first of these, and that is a difference.
    scene.source.psql("UPDATE client SET amount = 12345678901234567.8900000000 WHERE id = 1");
    let daemon = scene.start();
    scene.until("everything", seconds(60), async |s| s.crm.count("client") == 40 && s.crm.count("bill") == 60).await;
    scene.quiet().await;
    scene.crm.meddle("client", "2", |fields| {
        fields.as_mut().unwrap().insert("amount".into(), "2.5".into());
    });
    let output = scene.tenant.run(&["verify", "--json"]).await;
    let report = read(&output);
    assert_eq!(counts(&report, "client"), [39, 0, 1, 0, 0], "{report}");
    let sample = &report["entities"][0]["samples"][0];
    assert_eq!((sample["external_id"].as_str(), &sample["fields"]), (Some("1"), &json!(["amount"])), "{report}");
    assert!(sample.get("expected").is_none(), "values only on request: {report}");
    let shown = scene.tenant.run(&["verify", "--show-values"]).await;
    assert!(said(&shown).contains("12345678901234567.8900000000"), "digit by digit: {}", said(&shown));
    daemon.stop(seconds(10)).await;
}

/// Dead letters: listed in the CRM's words, retried once the cause is mended (by the daemon, or left to its next start),
/// and dropped with their changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_listed_retried_and_dropped() {
    let scene = scene!(shop());
    let refuse = |scene: &Scene| {
        scene.crm.rejects(|entity, id, _| {
            (entity == "client" && (id == "3" || id == "5"))
                .then(|| json!({"code": "no_thanks", "field": "name", "message": "we do not like this one"}))
        });
    };
    refuse(&scene);
    let mut daemon = scene.start();
    let letters = async |s: &Scene| read(&s.tenant.run(&["dead-letters", "list", "--json"]).await);
    scene.until("all but two", seconds(60), async |s| s.crm.count("client") == 38 && s.crm.count("bill") == 60).await;
    scene.until("two letters", seconds(10), async |s| letters(s).await.as_array().unwrap().len() == 2).await;
    let listed = scene.tenant.done(&["dead-letters", "list"]).await;
    assert!(listed.contains("no_thanks") && listed.contains("we do not like this one"), "{listed}");
    let all = letters(&scene).await;
    let number = all[0]["id"].to_string();
    let shown = scene.tenant.done(&["dead-letters", "show", &number]).await;
    assert!(shown.contains("we do not like this one") && shown.contains("public.client"), "{shown}");
    assert_eq!(code(&scene.tenant.run(&["dead-letters", "show", "99999"]).await), 1);
    assert_eq!(code(&scene.tenant.run(&["dead-letters", "retry"]).await), 2, "which ones?");
    let shown = async |s: &Scene| -> u64 {
        let entities = s.tenant.status().await["entities"].as_array().cloned().unwrap_or_default();
        entities.iter().filter_map(|e| e["dead_letters"].as_u64()).sum()
    };
    scene.until("the status", seconds(5), async |s| shown(s).await == 2).await;
    // Not mended yet: the letters stay.
    let before = scene.crm.writes();
    scene.tenant.done(&["dead-letters", "retry", "--code", "no_thanks"]).await;
    scene.until("another try", seconds(20), async |s| s.crm.writes() > before).await;
    scene.quiet().await;
    assert_eq!(letters(&scene).await.as_array().unwrap().len(), 2);
    // Mended: retried by number, delivered, cleared.
    scene.crm.heal();
    scene.tenant.done(&["dead-letters", "retry", &number]).await;
    scene.until("one letter", seconds(20), async |s| letters(s).await.as_array().unwrap().len() == 1).await;
    assert_eq!(scene.crm.count("client"), 39);
    // Without the daemon: noted, and carried out by the next start.
    daemon.stop(seconds(10)).await;
    scene.tenant.done(&["dead-letters", "retry", "--all"]).await;
    let before = scene.crm.history().len();
    daemon = scene.start();
    scene.equal(&mut daemon, seconds(30)).await;
    scene.until("no letter", seconds(20), async |s| letters(s).await.as_array().unwrap().is_empty()).await;
    assert_eq!(since(&scene, before).len(), 1, "one record was sent");
    assert_eq!(code(&scene.tenant.run(&["dead-letters", "retry", "--all"]).await), 1, "there are none");
    // Dropped: the CRM stays without the change, and the question says so.
    refuse(&scene);
    scene.source.psql("UPDATE client SET name = 'refused' WHERE id IN (3, 5)");
    scene.until("two letters", seconds(20), async |s| letters(s).await.as_array().unwrap().len() == 2).await;
    let number = letters(&scene).await[0]["id"].to_string();
    let output = scene.tenant.run(&["dead-letters", "drop", &number]).await;
    assert_eq!(code(&output), 2, "nobody to ask: {}", said(&output));
    let output = scene.tenant.run(&["dead-letters", "drop", &number, "--yes"]).await;
    assert!(output.status.success() && said(&output).contains("stays without"), "{}", said(&output));
    scene.until("one letter", seconds(20), async |s| letters(s).await.as_array().unwrap().len() == 1).await;
    daemon.stop(seconds(10)).await;
    scene.tenant.done(&["dead-letters", "drop", "--all", "--yes"]).await;
    assert_eq!(letters(&scene).await, json!([]));
    scene.crm.heal();
    let daemon = scene.start();
    scene.until("live", seconds(30), async |s| s.tenant.status().await["state"] == "live").await;
    scene.quiet().await;
    assert_eq!(scene.crm.content()["client"]["3"]["name"], "client 3", "a dropped change is gone");
    assert_eq!(scene.differences().await.len(), 2);
    scene.tenant.run(&["verify", "--repair"]).await;
    scene.until("the repair", seconds(30), async |s| s.differences().await.is_empty()).await;
    daemon.stop(seconds(10)).await;
}

/// The checkpoint: shown beside the daemon, reset and taken back without it, moved to another directory without sending
/// anything again, and refused where it does not belong.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_are_shown_reset_exported_and_imported() {
    let mut scene = scene!(shop());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    let shown = read(&scene.tenant.run(&["checkpoint", "show", "--json"]).await);
    assert_eq!(shown["checkpoint"]["tables"]["public.client"]["phase"]["phase"], "live", "{shown}");
    for words in [&["checkpoint", "reset", "--all", "--yes"][..], &["checkpoint", "undo"], &["checkpoint", "export"]] {
        let output = scene.tenant.run(words).await;
        assert!(code(&output) == 1 && said(&output).contains("holds the checkpoint"), "{words:?}: {}", said(&output));
    }
    daemon.stop(seconds(10)).await;

    // Reset and undo: as if nothing had been.
    assert_eq!(code(&scene.tenant.run(&["checkpoint", "reset", "--all"]).await), 2, "nobody to ask");
    scene.tenant.done(&["checkpoint", "reset", "--table", "public.client", "--yes"]).await;
    scene.tenant.done(&["checkpoint", "reset", "--all", "--yes"]).await;
    let shown = read(&scene.tenant.run(&["checkpoint", "show", "--json"]).await);
    assert_eq!(shown["history"].as_array().unwrap().len(), 2, "{shown}");
    assert!(shown["checkpoint"]["position"].is_null(), "{shown}");
    scene.tenant.done(&["checkpoint", "undo"]).await;
    scene.tenant.done(&["checkpoint", "undo"]).await;
    let shown = read(&scene.tenant.run(&["checkpoint", "show", "--json"]).await);
    assert_eq!(shown["history"], json!([]), "{shown}");
    assert_eq!(shown["checkpoint"]["tables"]["public.client"]["phase"]["phase"], "live", "{shown}");
    let before = scene.crm.history().len();
    scene.source.psql("UPDATE client SET name = 'after the undo' WHERE id = 7");
    daemon = scene.start();
    scene.equal(&mut daemon, seconds(30)).await;
    scene.quiet().await;
    assert_eq!(since(&scene, before).len(), 1, "only the change is sent");
    daemon.stop(seconds(10)).await;

    // A reset that is not taken back reads everything again and sends nothing.
    scene.tenant.done(&["checkpoint", "reset", "--all", "--yes"]).await;
    let before = scene.crm.writes();
    daemon = scene.start();
    scene.until("live", seconds(30), async |s| s.tenant.status().await["state"] == "live").await;
    scene.quiet().await;
    assert_eq!(scene.crm.writes(), before);
    daemon.stop(seconds(10)).await;

    // Moved: exported, wiped, imported; a change made meanwhile is all that is sent.
    let file = scene.tenant.path().join("export.jsonl");
    let file = file.to_str().unwrap();
    scene.tenant.done(&["checkpoint", "export", "--file", file]).await;
    let exported = std::fs::read_to_string(file).unwrap();
    assert!(exported.lines().count() > 100 && !exported.contains("client 7"), "keys, and no field values");
    assert_eq!(code(&scene.tenant.run(&["checkpoint", "export", "--file", file]).await), 1, "nothing is overwritten");
    let piped = scene.tenant.run(&["checkpoint", "export"]).await;
    assert_eq!(String::from_utf8_lossy(&piped.stdout).lines().count(), exported.lines().count());
    let output = scene.tenant.run(&["checkpoint", "import", "--file", file]).await;
    assert!(code(&output) != 0 && said(&output).contains("already holds a checkpoint"), "{}", said(&output));
    std::fs::remove_dir_all(scene.tenant.state_dir()).unwrap();
    let foreign = scene.tenant.path().join("foreign.jsonl");
    for (of, to) in [("\"tenant\":\"e2e\"", "\"tenant\":\"other\""), ("/vendor\"", "/elsewhere\"")] {
        assert!(exported.contains(of), "no {of} in {}", exported.lines().nth(1).unwrap());
        std::fs::write(&foreign, exported.replacen(of, to, 1)).unwrap();
        let output = scene.tenant.run(&["checkpoint", "import", "--file", foreign.to_str().unwrap()]).await;
        assert_eq!(code(&output), 78, "{to}: {}", said(&output));
        assert!(!scene.tenant.state_dir().exists(), "a refused import leaves nothing");
    }
    let half: String = exported.lines().take(50).map(|line| format!("{line}\n")).collect();
    std::fs::write(&foreign, half).unwrap();
    let output = scene.tenant.run(&["checkpoint", "import", "--file", foreign.to_str().unwrap()]).await;
    assert!(code(&output) != 0 && said(&output).contains("the end is missing"), "{}", said(&output));
    std::fs::remove_dir_all(scene.tenant.state_dir()).unwrap();
    scene.source.psql("UPDATE client SET name = 'while it moved' WHERE id = 8; DELETE FROM bill WHERE id = 9");
    scene.tenant.done(&["checkpoint", "import", "--file", file]).await;
    let before = scene.crm.history().len();
    daemon = scene.start();
    scene.equal(&mut daemon, seconds(30)).await;
    scene.quiet().await;
    let mut sent: Vec<(String, bool)> =
        since(&scene, before).into_iter().map(|a| (a.external_id, a.fields.is_some())).collect();
    sent.sort();
    assert_eq!(sent, [("8".to_owned(), true), ("B-9".to_owned(), false)]);
    daemon.stop(seconds(10)).await;

    // The same state under a tenant file that names another source is refused by the daemon too.
    scene.tenant.done(&["drop-slot", "--yes"]).await;
    scene.source.cluster.psql("CREATE DATABASE elsewhere OWNER vendor").unwrap();
    scene
        .source
        .cluster
        .psql_in("elsewhere", &format!("GRANT ALL ON SCHEMA public TO vendor; SET ROLE vendor; {SHOP}"))
        .unwrap();
    scene.tenant.database = "elsewhere".into();
    let output = scene.tenant.run(&["run"]).await;
    assert!(code(&output) == 78 && said(&output).contains("belongs to the source"), "{}", said(&output));
}

/// `resync` by table, entity and record, beside the daemon and without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resync_reads_what_it_is_asked_for() {
    let scene = scene!(shop());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    let before = scene.crm.writes();
    let rows = async |s: &Scene| s.tenant.metric("tidemark_snapshot_rows_total{").await.unwrap_or(0.0);
    let read_before = rows(&scene).await;
    for words in [&["--all"][..], &["--table", "bill"], &["--entity", "client"], &["--entity", "bill", "--key", "B-1"]]
    {
        let output = scene.tenant.run(&[&["resync", "--dry-run", "--json"], words].concat()).await;
        let plan = read(&output);
        assert!(output.status.success() && plan["started"] == false, "{words:?}: {plan}");
    }
    let plan = read(&scene.tenant.run(&["resync", "--all", "--dry-run", "--json"]).await);
    assert_eq!(plan["tables"].as_array().unwrap().len(), 2, "{plan}");
    scene.quiet().await;
    assert_eq!((scene.crm.writes(), rows(&scene).await), (before, read_before), "a dry run reads and sends nothing");
    for words in [&["resync", "--table", "nonsense"][..], &["resync", "--entity", "nonsense"]] {
        let output = scene.tenant.run(words).await;
        assert!(code(&output) == 1 && said(&output).contains("hint:"), "{words:?}: {}", said(&output));
    }
    // The ledger believes that all is well; only what is asked for is sent all the same.
    let spoil = |entity: &str, id: &str| {
        scene.crm.meddle(entity, id, |fields| {
            fields.as_mut().unwrap().insert(if entity == "bill" { "number" } else { "name" }.into(), "spoilt".into());
        });
    };
    let mended = async |entity: &'static str, id: &'static str| {
        scene
            .until("the record", seconds(30), async |s| {
                !s.crm.content()[entity][id].values().any(|value| value == "spoilt")
            })
            .await;
        scene.quiet().await;
    };
    // One whose row the ledger knows (its external id is not the key), one whose table is read.
    for (entity, id) in [("bill", "B-7"), ("client", "7")] {
        spoil(entity, id);
        let before = scene.crm.history().len();
        scene.tenant.done(&["resync", "--entity", entity, "--key", id]).await;
        mended(entity, id).await;
        let sent: Vec<String> = since(&scene, before).into_iter().map(|a| a.external_id).collect();
        assert_eq!(sent, [id], "{entity}");
    }
    spoil("bill", "B-8");
    scene.tenant.done(&["resync", "--entity", "bill", "--force"]).await;
    mended("bill", "B-8").await;
    daemon.stop(seconds(10)).await;

    let output = scene.tenant.run(&["resync", "--all", "--force"]).await;
    assert!(code(&output) == 1 && said(&output).contains("needs the running daemon"), "{}", said(&output));
    for (entity, id) in [("bill", "B-9"), ("client", "9")] {
        spoil(entity, id);
        scene.tenant.done(&["resync", "--entity", entity, "--key", id, "--dry-run"]).await;
        scene.tenant.done(&["resync", "--entity", entity, "--key", id]).await;
    }
    scene.tenant.done(&["resync", "--entity", "bill"]).await;
    let before = scene.crm.history().len();
    daemon = scene.start();
    mended("bill", "B-9").await;
    mended("client", "9").await;
    scene.equal(&mut daemon, seconds(30)).await;
    let mut sent: Vec<String> = since(&scene, before).into_iter().map(|a| a.external_id).collect();
    sent.sort();
    sent.dedup();
    assert_eq!(sent, ["9", "B-9"], "nothing but these two");
    daemon.stop(seconds(10)).await;
}

/// A pause is seen at once, by whoever asks next, and after a restart; what happens meanwhile is counted by kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_is_seen_at_once() {
    let scene = scene!(shop());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    for _ in 0..3 {
        scene.tenant.done(&["pause"]).await;
        assert_eq!(scene.tenant.status().await["state"], "paused");
        scene.tenant.done(&["resume"]).await;
        assert_ne!(scene.tenant.status().await["state"], "paused");
    }
    scene.tenant.done(&["pause"]).await;
    // A delete whose place an insert takes, and an insert whose place a delete takes: neither is a delete delivered.
    scene.source.psql("DELETE FROM client WHERE id = 1");
    scene.source.psql("INSERT INTO client VALUES (1, 'again', 1)");
    scene.source.psql("INSERT INTO client VALUES (99, 'not for long', 1)");
    scene.source.psql("DELETE FROM client WHERE id = 99");
    scene
        .until("both to arrive", seconds(20), async |s| {
            s.tenant.metric("tidemark_changes_total{op=\"delete\"").await.is_some_and(|n| n >= 2.0)
                || s.tenant.metric("tidemark_changes_total{").await.is_some_and(|n| n >= 4.0)
        })
        .await;
    scene.tenant.done(&["resume"]).await;
    scene.equal(&mut daemon, seconds(20)).await;
    scene.quiet().await;
    tokio::time::sleep(seconds(1)).await;
    let (_, metrics) = scene.tenant.get("/metrics").await;
    let counted = |op: &str, outcome: &str| -> f64 {
        let lines = metrics.lines().filter(|l| l.starts_with("tidemark_records_total{entity=\"client\""));
        let line =
            lines.filter(|l| l.contains(&format!("op=\"{op}\"")) && l.contains(&format!("outcome=\"{outcome}\"")));
        line.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    };
    assert_eq!(counted("delete", "coalesced"), 1.0, "{metrics}");
    assert_eq!(counted("upsert", "coalesced"), 1.0, "{metrics}");
    assert_eq!(counted("delete", "suppressed"), 1.0, "{metrics}");
    assert_eq!(counted("delete", "delivered"), 0.0, "{metrics}");
    // Said while it does not run, too.
    daemon.stop(seconds(10)).await;
    scene.tenant.done(&["pause"]).await;
    let daemon = scene.start();
    scene.until("the daemon", seconds(30), async |s| s.tenant.status().await["state"] == "paused").await;
    daemon.stop(seconds(10)).await;
    scene.tenant.done(&["resume"]).await;
    let daemon = scene.start();
    scene.until("the daemon", seconds(30), async |s| s.tenant.status().await["state"] == "live").await;
    daemon.stop(seconds(10)).await;
}

/// The day's requests are counted over restarts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daily_quota_outlasts_a_restart() {
    let mut scene = scene!(shop());
    scene.tenant.delivery = "daily_quota = 1".into();
    scene.crm.faults(|_| Some(Fault::Slow(std::time::Duration::from_millis(20))));
    for _ in 0..3 {
        let daemon = scene.start();
        scene.until("the quota", seconds(30), async |s| s.tenant.status().await["state"] == "waiting_for_crm").await;
        scene.quiet().await;
        assert_eq!(scene.crm.writes(), 1, "more requests than a day may have");
        daemon.stop(seconds(10)).await;
    }
}

/// `drop-slot` leaves the vendor's database as it was found, and a later start reads again without sending.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drop_slot_leaves_the_database_as_it_was() {
    let scene = scene!(shop());
    let everything = "SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
        SELECT 'slot ' || slot_name FROM pg_replication_slots
        UNION ALL SELECT 'publication ' || pubname FROM pg_publication
        UNION ALL SELECT 'class ' || oid::regclass || ' ' || relreplident::text || ' ' || coalesce(reloptions::text, '')
            FROM pg_class WHERE oid >= 16384
        UNION ALL SELECT 'function ' || oid::regprocedure FROM pg_proc WHERE oid >= 16384
        UNION ALL SELECT 'trigger ' || tgname FROM pg_trigger
        UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
        UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE oid >= 16384
        UNION ALL SELECT 'setting ' || setconfig::text FROM pg_db_role_setting
        UNION ALL SELECT 'rows ' || id || name || xmin::text FROM client) AS lines(line)";
    let before = scene.source.psql(everything);
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    let during = scene.source.psql(everything);
    assert!(during.contains("slot tidemark_e2e") && during.contains("publication tidemark_e2e"), "{during}");
    let output = scene.tenant.run(&["drop-slot", "--yes"]).await;
    assert!(code(&output) == 1 && said(&output).contains("is using it"), "{}", said(&output));
    daemon.stop(seconds(10)).await;
    assert_eq!(code(&scene.tenant.run(&["drop-slot"]).await), 2, "nobody to ask");
    let removed = read(&scene.tenant.run(&["drop-slot", "--yes", "--json"]).await);
    assert_eq!(removed.as_array().unwrap().len(), 2, "{removed}");
    assert_eq!(scene.source.psql(everything), before);
    let output = scene.tenant.run(&["drop-slot", "--yes"]).await;
    assert!(output.status.success() && said(&output).contains("nothing to remove"), "{}", said(&output));
    scene.source.psql("DELETE FROM client WHERE id = 1");
    let sent = scene.crm.history().len();
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    let sent: Vec<bool> = since(&scene, sent).iter().map(|a| a.fields.is_some()).collect();
    assert_eq!(sent, [false], "the delete that nobody saw is found, and nothing else is sent");
    daemon.stop(seconds(10)).await;
}

/// Text that is not UTF-8 (a database without an encoding): a dead letter with that reason, by snapshot and by tail, as
/// a field, inside an expression and as a key; never a crash, and never base64 in a text field.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_that_cannot_be_read_is_set_aside() {
    let mut scene = scene!(shop());
    let psql = |sql: &str| scene.source.cluster.psql_in("raw", sql).unwrap_or_else(|e| panic!("{e}\nin: {sql}"));
    scene
        .source
        .cluster
        .psql("CREATE DATABASE raw OWNER vendor ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        .unwrap();
    psql(
        "GRANT ALL ON SCHEMA public TO vendor; GRANT ALL ON DATABASE raw TO vendor; SET ROLE vendor;
        CREATE TABLE client (id int PRIMARY KEY, name text, amount numeric(30,10), data bytea);
        CREATE TABLE bill (id int PRIMARY KEY, number text NOT NULL);
        INSERT INTO client SELECT n, 'client ' || n, n, decode('00ff', 'hex') FROM generate_series(1, 10) n;
        INSERT INTO bill SELECT n, 'B-' || n FROM generate_series(1, 10) n;
        UPDATE client SET name = E'caf\\xe9' WHERE id = 3;
        UPDATE bill SET number = E'B-\\xe9' WHERE id = 4",
    );
    scene.tenant.database = "raw".into();
    let mapping =
        MAPPING.replace("amount = \"c.amount\"", "amount = \"c.amount\"\nloud = \"upper(c.name)\"\ndata = \"c.data\"");
    std::fs::write(&scene.tenant.pack, mapping).unwrap();
    let text = json!({"type": ["string", "null"]});
    scene.crm = crate::support::crm::Crm::start(json!({
        "client": {"type": "object", "properties": {"name": text, "loud": text, "data": text, "amount": {"type": ["number", "null"]}}},
        "bill": {"type": "object", "properties": {"number": text}},
    }))
    .await;
    scene.tenant.crm_url = scene.crm.base_url();
    let mut daemon = scene.start();
    let letters = async |s: &Scene| read(&s.tenant.run(&["dead-letters", "list", "--json"]).await);
    scene
        .until("what can be read", seconds(60), async |s| s.crm.count("client") == 9 && s.crm.count("bill") == 9)
        .await;
    scene.until("two letters", seconds(20), async |s| letters(s).await.as_array().unwrap().len() == 2).await;
    psql("UPDATE client SET name = E'\\xff' WHERE id = 5; INSERT INTO bill VALUES (11, E'\\xfe')");
    scene.until("four letters", seconds(20), async |s| letters(s).await.as_array().unwrap().len() == 4).await;
    for letter in letters(&scene).await.as_array().unwrap() {
        assert_eq!(letter["code"], "not_utf8", "{letter}");
        assert!(letter["message"].as_str().unwrap().contains("not valid UTF-8"), "{letter}");
    }
    assert_eq!(scene.crm.content()["client"]["5"]["name"], "client 5", "the last good state stays");
    assert_eq!(scene.crm.content()["client"]["5"]["data"], "AP8=", "bytes are bytes");
    psql(
        "UPDATE client SET name = 'cafe' WHERE id = 3; UPDATE client SET name = 'plain' WHERE id = 5;
        UPDATE bill SET number = 'B-' || id WHERE id IN (4, 11)",
    );
    scene.until("no letters", seconds(20), async |s| letters(s).await == json!([])).await;
    assert!(daemon.is_running(), "{}", scene.tenant.last_words());
    scene.tenant.done(&["verify"]).await;
    daemon.stop(seconds(10)).await;
}
