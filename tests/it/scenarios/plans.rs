//! `tidemark plan`: what would be sent is what is sent.

use crate::scene;
use crate::support::{Scene, seconds};
use serde_json::{Value, json};

const SHOP: &str = "CREATE TABLE client (id int PRIMARY KEY, name text, city text, size int);
    INSERT INTO client SELECT n, 'client ' || n, CASE WHEN n % 4 = 0 THEN 'Ulm' ELSE 'Bonn' END, n FROM generate_series(1, 120) n;
    CREATE TABLE bill (id int PRIMARY KEY, amount numeric(10,2));
    INSERT INTO bill SELECT n, n FROM generate_series(1, 100) n";

fn mapping(client: &str) -> String {
    format!(
        "tidemark = 1\n[pack]\nname = \"shop\"\nversion = \"1.0.0\"
[lookup.city]\nvalues = {{ Bonn = \"BN\", Ulm = \"UL\" }}\nunknown = \"reject\"
[record.client]\nfrom = \"client as c\"\nexternal_id = \"c.id\"\n{client}
[record.bill]\nfrom = \"bill as b\"\nexternal_id = \"b.id\"\n[record.bill.fields]\namount = \"b.amount\"\n"
    )
}

const NAME: &str = "[record.client.fields]\nname = \"c.name\"\n";

async fn shop() -> Option<Scene> {
    let text = json!({"type": ["string", "null"]});
    let model = json!({
        "client": {"type": "object", "properties": {"name": text, "city": text}},
        "bill": {"type": "object", "properties": {"amount": text}},
    });
    let oracle = "SELECT 'client', id::text, jsonb_build_object('name', name)::text FROM client
        UNION ALL SELECT 'bill', id::text, jsonb_build_object('amount', amount::text)::text FROM bill";
    Scene::of_tables(SHOP, &mapping(NAME), model, oracle).await
}

async fn plan(scene: &Scene, words: &[&str]) -> Value {
    let text = scene.tenant.done(&[&["plan", "--json"], words].concat()).await;
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn entity<'p>(plan: &'p Value, name: &str) -> &'p Value {
    plan["entities"].as_array().unwrap().iter().find(|e| e["entity"] == name).unwrap()
}

fn counts(plan: &Value, name: &str) -> [u64; 6] {
    let entity = entity(plan, name);
    ["create", "update", "delete", "reject", "in_place", "drifted"].map(|n| entity[n].as_u64().unwrap())
}

/// Before the first start, while the daemon runs, and after it has stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_tells_what_a_start_will_send() {
    let scene = scene!(shop());
    let first = plan(&scene, &[]).await;
    assert_eq!(first["first_start"], true);
    assert_eq!((counts(&first, "client"), counts(&first, "bill")), ([120, 0, 0, 0, 0, 0], [100, 0, 0, 0, 0, 0]));
    // Batches of fifty: three and two.
    assert_eq!(first["requests"], 5, "{first}");
    assert!(!scene.tenant.state_dir().join("checkpoint").exists(), "a plan begins nothing");
    assert_eq!(scene.crm.writes(), 0);
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    let writes = scene.crm.writes();

    // Beside the daemon: nothing to do, then what somebody did in the CRM.
    let beside = plan(&scene, &[]).await;
    assert_eq!((counts(&beside, "client"), beside["requests"].as_u64()), ([0, 0, 0, 0, 120, 0], Some(0)), "{beside}");
    scene.crm.meddle("client", "5", |fields| {
        fields.as_mut().unwrap().insert("name".into(), "edited".into());
    });
    scene.crm.meddle("client", "theirs", |fields| *fields = json!({"name": "x"}).as_object().cloned());
    let beside = plan(&scene, &[]).await;
    assert_eq!(counts(&beside, "client"), [0, 0, 0, 0, 119, 1], "{beside}");
    assert_eq!(entity(&beside, "client")["foreign"], 1);
    let sample = &entity(&beside, "client")["samples"][0];
    assert_eq!(
        (&sample["kind"], &sample["fields"]),
        (&json!("drifted"), &json!([{"field": "name", "from": "edited", "to": "client 5"}]))
    );
    let blind = plan(&scene, &["--without-crm"]).await;
    assert_eq!(counts(&blind, "client"), [0, 0, 0, 0, 120, 0], "the ledger knows nothing of it");
    assert_eq!(scene.crm.writes(), writes, "a plan sends nothing");

    // Without the daemon: what has happened since.
    daemon.stop(seconds(10)).await;
    scene.source.psql(
        "UPDATE client SET name = 'new name' WHERE id IN (7, 8); DELETE FROM client WHERE id = 9;
         INSERT INTO client VALUES (500, 'new', 'Bonn', 1); UPDATE client SET city = 'Rome' WHERE id = 11",
    );
    let after = plan(&scene, &["--entity", "client"]).await;
    assert_eq!(counts(&after, "client"), [1, 2, 1, 0, 116, 1], "{after}");
    assert_eq!(after["entities"].as_array().unwrap().len(), 1);
    assert_eq!(after["requests"], 2);
    let secret = plan(&scene, &["--hide-values"]).await;
    assert!(!secret.to_string().contains("new name"), "{secret}");
    let before = scene.crm.history().len();
    let daemon = scene.start();
    scene.until("the changes", seconds(30), async |s| s.crm.content()["client"].contains_key("500")).await;
    scene.quiet().await;
    let mut sent: Vec<String> = scene.crm.history()[before..].iter().map(|a| a.external_id.clone()).collect();
    sent.sort();
    assert_eq!(sent, ["500", "7", "8", "9"], "what was planned, and nothing else");
    daemon.stop(seconds(10)).await;
}

/// After an edit of the mapping the plan names the fields that change and the rows that no longer can be mapped, and
/// exactly the records that it counts are sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_edit_only_what_was_planned_is_sent() {
    let scene = scene!(shop());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    scene.source.psql("UPDATE client SET city = 'Rome' WHERE id = 100");
    scene.quiet().await;
    // Clients in Bonn are called otherwise; small ones go; one city is unknown to the lookup.
    let edited = "where = \"c.size > 10\"\non_leave = \"delete\"\n[record.client.fields]
name = \"case when c.city = 'Bonn' then upper(c.name) else c.name end\"\n";
    let with_city = format!("{edited}city = \"case when c.city = 'Rome' then lookup('city', c.city) end\"\n");
    std::fs::write(&scene.tenant.pack, mapping(&with_city)).unwrap();
    let beside = plan(&scene, &[]).await;
    assert_eq!(beside["rules"], json!([{"rule": "client", "table": "public.client", "change": "edited"}]));
    assert_eq!(beside["tables_read_again"], json!(["public.client"]));
    // 120 clients: 10 leave; of the other 110, 27 are in Ulm and 1 of them in Rome now; 83 in Bonn.
    let bonn: u64 = scene.source.psql("SELECT count(*) FROM client WHERE city = 'Bonn' AND size > 10").parse().unwrap();
    let counted = counts(&beside, "client");
    assert_eq!(counted[2..4], [10, 1], "{beside}");
    assert_eq!(counted[0], 0);
    let sample = entity(&beside, "client")["samples"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["kind"] == "update" && s["external_id"] == "101")
        .cloned()
        .unwrap_or_default();
    assert_eq!(sample["fields"], json!([{"field": "name", "from": "client 101", "to": "CLIENT 101"}]), "{beside}");
    let rejected = entity(&beside, "client")["samples"].as_array().unwrap().iter().find(|s| s["kind"] == "reject");
    let reason = rejected.unwrap()["reason"].as_str().unwrap();
    assert!(reason.starts_with("lookup_unknown: city:") && !reason.contains("Rome"), "{reason}");
    let shown = scene.tenant.done(&["plan"]).await;
    for part in ["The mapping has changed", "rule  client  edited", "+", "cannot be mapped", "PLAN"] {
        assert!(shown.contains(part) || part == "+", "no {part:?} in:\n{shown}");
    }
    daemon.stop(seconds(10)).await;
    let without = plan(&scene, &[]).await;
    assert_eq!(counts(&without, "client"), counted, "the same without the daemon");

    let before = scene.crm.history().len();
    daemon = scene.start();
    scene
        .until("the edit", seconds(30), async |s| {
            s.crm.count("client") == 110 && s.crm.content()["client"]["101"]["name"] == "CLIENT 101"
        })
        .await;
    scene.quiet().await;
    let sent = &scene.crm.history()[before..];
    assert!(sent.iter().all(|a| a.entity == "client"), "bills were not touched");
    assert_eq!(sent.iter().filter(|a| a.fields.is_none()).count(), 10);
    let upserts = sent.iter().filter(|a| a.fields.is_some()).count() as u64;
    let unchanged = entity(&beside, "client")["unchanged"].as_u64().unwrap();
    assert_eq!(upserts, counted[1] + unchanged, "{beside}");
    assert!(counted[1] >= bonn, "{beside}");
    // Afterwards there is nothing left to plan but the one that cannot be mapped.
    let rest = plan(&scene, &[]).await;
    assert_eq!((counts(&rest, "client")[..4].to_vec(), &rest["rules"]), (vec![0, 0, 0, 1], &json!([])), "{rest}");
    daemon.stop(seconds(10)).await;
}
