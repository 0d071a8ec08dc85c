//! What operators do: changed mappings, resyncs, pauses, missing rights, leaving.

use crate::scene;
use crate::support::{Scene, seconds};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const SHOP: &str = "CREATE TABLE client (id int PRIMARY KEY, name text, note text, size int);
    INSERT INTO client SELECT n, 'client ' || n, 'note ' || n, n FROM generate_series(1, 40) n;
    CREATE TABLE bill (id int PRIMARY KEY, client int, amount numeric(10,2));
    INSERT INTO bill SELECT n, n % 40 + 1, n FROM generate_series(1, 100) n";

/// A mapping of the shop: the fields and the condition of clients, and the shape of their external ids.
fn mapping(fields: &str, condition: &str, id: &str) -> String {
    format!(
        "tidemark = 1\n[pack]\nname = \"shop\"\nversion = \"1.0.0\"\n[record.client]\nfrom = \"client as c\"\n{condition}external_id = \"{id}\"\n[record.client.fields]\n{fields}
         [record.bill]\nfrom = \"bill as b\"\nexternal_id = \"b.id\"\n[record.bill.fields]\namount = \"b.amount\"\n"
    )
}

fn oracle(fields: &str, condition: &str, id: &str) -> String {
    format!(
        "SELECT 'client', {id}, jsonb_build_object({fields})::text FROM client WHERE {condition}
         UNION ALL SELECT 'bill', id::text, jsonb_build_object('amount', amount::text)::text FROM bill"
    )
}

async fn shop() -> Option<Scene> {
    let text = json!({"type": ["string", "null"]});
    let model = json!({
        "client": {"type": "object", "properties": {"name": text, "note": text, "remark": text}},
        "bill": {"type": "object", "properties": {"amount": text}},
    });
    let first = mapping("name = \"c.name\"\n", "", "c.id");
    Scene::of_tables(SHOP, &first, model, &oracle("'name', name", "true", "id::text")).await
}

/// G08: the mapping is changed between two runs: never half old, half new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_mapping_is_applied_to_everything() {
    let mut scene = scene!(shop());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    let both = "name = \"c.name\"\nnote = \"c.note\"\n";
    let steps = [
        (mapping(both, "", "c.id"), oracle("'name', name, 'note', note", "true", "id::text"), 40),
        (
            mapping(both, "where = \"c.size > 10\"\n", "c.id"),
            oracle("'name', name, 'note', note", "size > 10", "id::text"),
            10,
        ),
        (mapping(both, "", "concat('c-', c.id)"), oracle("'name', name, 'note', note", "true", "'c-' || id"), 70),
    ];
    for (number, (pack, oracle, changed)) in steps.into_iter().enumerate() {
        daemon.stop(seconds(10)).await;
        scene.source.psql("UPDATE client SET size = size WHERE id = 1");
        std::fs::write(&scene.tenant.pack, pack).unwrap();
        scene.oracle = oracle;
        let before = scene.crm.history().len();
        daemon = scene.start();
        scene.equal(&mut daemon, seconds(60)).await;
        scene.quiet().await;
        assert!(scene.differences().await.is_empty());
        let sent = &scene.crm.history()[before..];
        assert!(sent.len() <= changed, "step {number}: {} records were sent for {changed} differences", sent.len());
        assert!(
            sent.iter().all(|a| a.entity == "client"),
            "step {number}: bills were sent although nothing of them changed"
        );
    }
    daemon.stop(seconds(10)).await;
}

/// Resyncs find what is wrong in the CRM's favour only when forced, sweep nothing that is not ours, and cost nothing
/// when nothing differs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resyncs_send_only_differences() {
    let scene = scene!(shop());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    // Somebody's own record, and somebody's own field.
    scene.crm.meddle("client", "made by hand", |fields| {
        *fields = json!({"name": "by hand"}).as_object().cloned();
    });
    scene.crm.meddle("client", "7", |fields| {
        fields.as_mut().unwrap().insert("remark".into(), "our own".into());
    });
    let before = scene.crm.writes();
    let reread = async |words: &[&str]| {
        let rows = scene.tenant.metric("tidemark_snapshot_rows_total{").await.unwrap_or(0.0);
        scene.tenant.done(words).await;
        scene
            .until("the rows to be read again", seconds(60), async |s| {
                s.tenant.metric("tidemark_snapshot_rows_total{").await.is_some_and(|now| now > rows)
                    && s.tenant.status().await["state"] == "live"
            })
            .await;
        scene.quiet().await;
    };
    reread(&["resync", "--all"]).await;
    assert_eq!(scene.crm.writes(), before, "a resync of unchanged data costs nothing");
    reread(&["resync", "--table", "client", "--force"]).await;
    assert!(scene.crm.writes() > before, "a forced resync sends everything");
    scene.source.psql("UPDATE client SET name = 'changed' WHERE id = 7");
    let seventh = |s: &Scene| s.crm.content()["client"]["7"].clone();
    scene.until("the change", seconds(30), async |s| seventh(s)["name"] == "changed").await;
    let wanted: BTreeMap<String, Value> =
        [("name".into(), json!("changed")), ("remark".into(), json!("our own"))].into();
    assert_eq!(seventh(&scene), wanted, "a field that is not mapped is left alone");
    assert!(scene.crm.content()["client"].contains_key("made by hand"), "a record that is not ours was swept");
    assert!(daemon.is_running());
    daemon.stop(seconds(10)).await;
}

/// A pause holds everything, over a restart too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_outlasts_a_restart() {
    let scene = scene!(shop());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    scene.tenant.done(&["pause"]).await;
    let before = scene.crm.writes();
    scene.source.psql("UPDATE client SET name = 'while paused'; DELETE FROM bill WHERE id < 50");
    tokio::time::sleep(seconds(2)).await;
    assert_eq!(scene.tenant.status().await["state"], "paused");
    daemon.kill();
    daemon = scene.start();
    tokio::time::sleep(seconds(3)).await;
    assert!(daemon.is_running(), "{}", scene.tenant.last_words());
    assert_eq!(scene.crm.writes(), before, "something was sent while paused");
    scene.tenant.done(&["resume"]).await;
    scene.equal(&mut daemon, seconds(60)).await;
    daemon.stop(seconds(10)).await;
}

/// B18: what the server lacks is said with the statement that mends it, by `check` and by `run`, and nothing is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_rights_and_settings_are_named() {
    let mut scene = scene!(shop());
    let made = "SELECT (SELECT count(*) FROM pg_replication_slots) + (SELECT count(*) FROM pg_publication)";
    let cases = [
        ("ALTER ROLE tidemark NOREPLICATION", "ALTER ROLE tidemark REPLICATION", 77, "REPLICATION"),
        ("ALTER TABLE bill OWNER TO CURRENT_USER", "ALTER TABLE bill OWNER TO vendor", 77, "bill"),
    ];
    for (breaks, mends, code, word) in cases {
        scene.source.psql(breaks);
        for words in [&["check"][..], &["run"]] {
            let output = scene.tenant.run(words).await;
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert_eq!(output.status.code(), Some(code), "{breaks}: {words:?}\n{said}");
            assert!(said.contains(word), "{breaks}: {words:?} does not name {word:?}\n{said}");
        }
        assert_eq!(scene.source.psql(made), "0", "{breaks}: something was made all the same");
        scene.source.psql(mends);
    }
    scene.source.psql("ALTER SYSTEM SET wal_level = 'replica'");
    scene.source.cluster.stop_fast().unwrap();
    scene.source.cluster.start_again().unwrap();
    for words in [&["check"][..], &["run"]] {
        let output = scene.tenant.run(words).await;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_eq!(output.status.code(), Some(78), "{words:?}\n{said}");
        assert!(said.contains("wal_level"), "{words:?}\n{said}");
    }
    scene.source.psql("ALTER SYSTEM RESET wal_level; ALTER SYSTEM SET wal_level = 'logical'");
    scene.source.cluster.stop_fast().unwrap();
    scene.source.cluster.start_again().unwrap();
    scene.client = scene.source.connect().await;
    scene.tenant.done(&["check"]).await;
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    daemon.stop(seconds(10)).await;
    // Leaving: the database is as it was found.
    scene.tenant.done(&["drop-slot", "--yes"]).await;
    assert_eq!(scene.source.psql(made), "0");
}

/// Keys that look like paths, queries, markup and escapes: each is one record, through writes, deletes and `verify`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evil_keys() {
    const KEYS: [&str; 18] = [
        ".", "..", "/", "a/b", "a?b=c&d", "%2e%2e", "%", "a b", " a", "a ", "+", "#", "\"", "\\", "<b>", "ü/漢",
        "a\nb", "{{x}}",
    ];
    let text = json!({"type": ["string", "null"]});
    let model = json!({"thing": {"type": "object", "properties": {"name": text}}});
    let mapping = "tidemark = 1\n[pack]\nname = \"keys\"\nversion = \"1.0.0\"\n[record.thing]\nfrom = \"thing as t\"\nexternal_id = \"t.id\"\n[record.thing.fields]\nname = \"t.name\"\n";
    let oracle = "SELECT 'thing', id, jsonb_build_object('name', name)::text FROM thing";
    let scene = scene!(Scene::of_tables("CREATE TABLE thing (id text PRIMARY KEY, name text)", mapping, model, oracle));
    let insert = "INSERT INTO thing SELECT k, 'key ' || k FROM unnest($1::text[]) k";
    let keys: Vec<String> = KEYS.iter().map(|k| (*k).to_owned()).collect();
    scene.client.execute(insert, &[&keys]).await.unwrap();
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.tenant.done(&["verify"]).await;
    scene.client.execute("DELETE FROM thing", &[]).await.unwrap();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.client.execute(insert, &[&keys]).await.unwrap();
    scene.client.execute("UPDATE thing SET id = id || '!', name = NULL", &[]).await.unwrap();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.tenant.done(&["verify"]).await;
    daemon.stop(seconds(10)).await;
}

/// J03: a value of ten megabytes goes through, by snapshot and by tail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn very_large_values() {
    let scene = scene!(shop());
    scene.source.psql("UPDATE client SET name = repeat('0123456789', 1000000) WHERE id = 3");
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.source.psql("UPDATE client SET name = repeat('9876543210', 1000000) WHERE id IN (4, 5, 6); UPDATE client SET note = 'x' WHERE id = 3");
    scene.equal(&mut daemon, seconds(60)).await;
    daemon.stop(seconds(10)).await;
}
