//! The CRM's model changes while the daemon runs.

use crate::scene;
use crate::support::{Scene, seconds};
use serde_json::{Value, json};

const SHOP: &str = "CREATE TABLE client (id int PRIMARY KEY, name text, note text);
    INSERT INTO client SELECT n, 'client ' || n, 'note ' || n FROM generate_series(1, 40) n;
    CREATE TABLE bill (id int PRIMARY KEY, amount int);
    INSERT INTO bill SELECT n, n FROM generate_series(1, 20) n";
const MAPPING: &str = "tidemark = 1
[pack]
name = \"shop\"
version = \"1.0.0\"
[record.client]
from = \"client as c\"
external_id = \"c.id\"
[record.client.fields]
name = \"c.name\"
note = \"c.note\"
[record.bill]
from = \"bill as b\"
external_id = \"b.id\"
[record.bill.fields]
amount = \"b.amount\"
";
const ORACLE: &str = "SELECT 'client', id::text, jsonb_build_object('name', name, 'note', note)::text FROM client
    UNION ALL SELECT 'bill', id::text, jsonb_build_object('amount', amount)::text FROM bill";

/// The model, with these fields of a client.
fn model(fields: &[&str], required: &[&str]) -> Value {
    let properties: serde_json::Map<String, Value> =
        fields.iter().map(|name| ((*name).to_owned(), json!({"type": ["string", "null"]}))).collect();
    json!({
        "client": {"type": "object", "properties": properties, "required": required},
        "bill": {"type": "object", "properties": {"amount": {"type": ["integer", "null"]}}},
    })
}

async fn drift(scene: &Scene, entity: &str) -> Option<f64> {
    scene.tenant.metric(&format!("tidemark_schema_drift{{side=\"crm\",table=\"{entity}\"}}")).await
}

/// A field that goes, one that is suddenly required, and one that is merely new.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_model_stops_only_what_no_longer_fits() {
    let usual = model(&["name", "note"], &[]);
    let mut scene = scene!(Scene::of_tables(SHOP, MAPPING, usual.clone(), ORACLE));
    scene.tenant.crm = "schema_check = \"1s\"".into();
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    assert_eq!(drift(&scene, "client").await, Some(0.0));

    scene.crm.remodel(model(&["name", "note", "colour"], &[]));
    scene.until("drift without harm", seconds(20), async |s| drift(s, "client").await == Some(1.0)).await;
    scene.source.psql("UPDATE client SET name = 'renamed' WHERE id = 1");
    scene.equal(&mut daemon, seconds(20)).await;

    let is_live = async |s: &Scene| s.tenant.status().await["state"] == "live";
    scene.until("both tables", seconds(20), is_live).await;
    for (round, changed) in [model(&["name"], &[]), model(&["name", "note", "vat"], &["vat"])].into_iter().enumerate() {
        let new = 100 + round;
        scene.crm.remodel(changed);
        scene
            .until("the table that no longer fits", seconds(20), async |s| {
                s.tenant.status().await["state"] == "needs_attention"
            })
            .await;
        let status = scene.tenant.status().await;
        let tables = status["tables"].as_array().unwrap();
        let of = |name: &str| tables.iter().find(|t| t["name"] == name).unwrap();
        let reason = of("public.client")["attention"].as_str().unwrap();
        assert!(reason.contains("the CRM changed client") && reason.contains(["note", "vat"][round]), "{reason}");
        assert_eq!(of("public.bill")["phase"], "live");
        assert_eq!((drift(&scene, "client").await, drift(&scene, "bill").await), (Some(1.0), Some(0.0)));
        // The other table goes on; of this one nothing is sent.
        scene.source.psql(&format!(
            "INSERT INTO client VALUES ({new}, 'new', 'new'); UPDATE client SET note = 'now {new}' WHERE id = 2;
             DELETE FROM client WHERE id = {}; INSERT INTO bill VALUES ({new}, 7)",
            10 + round
        ));
        scene.until("the bill", seconds(20), async |s| s.crm.count("bill") == 21 + round).await;
        assert!(!scene.crm.content()["client"].contains_key(&new.to_string()));

        scene.crm.remodel(usual.clone());
        let before = scene.crm.history().len();
        scene.equal(&mut daemon, seconds(30)).await;
        let sent = scene.crm.history().len() - before;
        assert!(sent <= 3, "only differences are sent, not {sent}");
        scene.until("no drift", seconds(10), async |s| drift(s, "client").await == Some(0.0)).await;
        scene.until("both tables again", seconds(20), is_live).await;
    }
    daemon.stop(seconds(10)).await;
}

/// Without a look in time, refusals tell: the model is read at once, not after the usual while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_lead_to_a_look() {
    let usual = model(&["name", "note"], &[]);
    let scene = scene!(Scene::of_tables(SHOP, MAPPING, usual.clone(), ORACLE));
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.crm.remodel(model(&["name"], &[]));
    scene.source.psql("UPDATE client SET note = 'changed' WHERE id < 4");
    scene
        .until("the table that no longer fits", seconds(30), async |s| {
            s.tenant.status().await["state"] == "needs_attention"
        })
        .await;
    let words = scene.tenant.done(&["dead-letters", "list", "--json"]).await;
    assert!(words.contains("unknown_field"), "{words}");
    scene.crm.remodel(usual);
    scene.equal(&mut daemon, seconds(30)).await;
    scene
        .until("no dead letters", seconds(10), async |s| {
            s.tenant.status().await["entities"].as_array().unwrap().iter().all(|e| e["dead_letters"] == 0)
        })
        .await;
    daemon.stop(seconds(10)).await;
}
