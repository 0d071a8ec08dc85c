//! The same value through snapshot and through tail gives the same JSON, for every type.

use crate::postgres::corpus::TYPES;
use crate::scene;
use crate::support::crm::Content;
use crate::support::{Scene, judge, seconds};
use serde_json::{Value, json};

/// Each row shows one value of one column, so that a value the mapping cannot send hides no other.
fn rows() -> Vec<String> {
    let mut all = Vec::new();
    for (column, _, literals) in TYPES {
        for (number, (literal, _)) in literals.iter().enumerate() {
            all.push(format!("INSERT INTO every_type (id, {column}) VALUES ('{column} {number}', {literal})"));
        }
    }
    all
}

/// JSON that a row must give, where the rules name it.
const KNOWN: &[(&str, &str)] = &[
    ("c_bool 0", "true"),
    ("c_int8 0", "\"9223372036854775807\""),
    ("c_int4 0", "-2147483648"),
    ("c_real 0", "1.1"),
    ("c_double 0", "0.1"),
    ("c_numeric 4", "\"-12.50\""),
    ("c_numeric_scaled 0", "\"1.50\""),
    ("c_text 1", "\" both ends \""),
    ("c_bytea 1", "\"AP8Q\""),
    ("c_date 0", "\"2024-02-29\""),
    ("c_time 1", "\"12:34:56.5\""),
    ("c_timestamp 1", "\"2024-01-01T00:00:00.12\""),
    ("c_timestamptz 0", "\"2024-06-01T10:00:00Z\""),
    ("c_uuid 0", "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\""),
    ("c_json 0", "{\"a\": 1, \"b\": [1, 2]}"),
    ("c_int_array 0", "[1, 2, 3]"),
    ("c_text_array 0", "[\"a\", null, \"null\", \"\"]"),
    ("c_enum 0", "\"sad\""),
    ("c_domain_int 0", "7"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_json_through_snapshot_and_tail() {
    let columns: Vec<String> = TYPES.iter().map(|(name, kind, _)| format!("{name} {kind}")).collect();
    let mut sql = String::from("CREATE EXTENSION hstore; CREATE EXTENSION citext;");
    sql.push_str(crate::postgres::corpus::MAKE_TYPES);
    sql.push_str(&format!(";CREATE TABLE every_type (id text PRIMARY KEY, {});", columns.join(", ")));
    let rows = rows();
    sql.push_str(&rows.join(";"));
    let mut mapping = String::from(
        "tidemark = 1\n[pack]\nname = \"types\"\nversion = \"1.0.0\"\n[record.thing]\nfrom = \"every_type as t\"\nexternal_id = \"t.id\"\n[record.thing.fields]\n",
    );
    let mut properties = serde_json::Map::new();
    for (name, ..) in TYPES {
        mapping.push_str(&format!("{name} = \"t.{name}\"\n"));
        properties.insert((*name).into(), json!({}));
    }
    let model = json!({"thing": {"type": "object", "properties": properties}});
    let oracle = "SELECT 'thing', id, '{}' FROM every_type";
    let mut scene = scene!(Scene::of_tables(&sql, &mapping, model, oracle));
    // Wherever the daemon runs, it must not matter.
    scene.tenant.environment = vec![("TZ", "Asia/Kolkata"), ("LANG", "tr_TR.UTF-8"), ("PGTZ", "America/New_York")];
    scene.source.psql("ALTER DATABASE vendor SET timezone = 'Australia/Lord_Howe'");
    scene.source.psql("ALTER DATABASE vendor SET datestyle = 'German'");
    scene.source.psql("ALTER DATABASE vendor SET intervalstyle = 'postgres_verbose'");
    scene.source.psql("ALTER DATABASE vendor SET bytea_output = 'escape'");
    let mut daemon = scene.start();
    let settled = async |scene: &Scene| {
        scene
            .until("the snapshot or the tail to end", seconds(60), async |s| s.tenant.get("/readyz").await.0 == 200)
            .await;
        scene.quiet().await;
        scene.crm.content()
    };
    let snapshot = settled(&scene).await;
    let ids = |content: &Content| content.get("thing").map_or(0, |t| t.len());
    println!("{} of {} rows by snapshot", ids(&snapshot), rows.len());

    scene.source.psql("DELETE FROM every_type");
    scene.until("nothing left", seconds(60), async |s| s.crm.count("thing") == 0).await;
    scene.source.psql(&rows.join(";"));
    scene.until("something by the tail", seconds(60), async |s| s.crm.count("thing") >= ids(&snapshot)).await;
    let tail = settled(&scene).await;
    let differences = judge::differences(&snapshot, &tail, 20);
    assert!(differences.is_empty(), "snapshot wanted, tail got:\n{}", differences.join("\n"));

    for (id, wanted) in KNOWN {
        let column = id.split(' ').next().unwrap();
        let wanted: Value = serde_json::from_str(wanted).unwrap();
        let got = snapshot["thing"].get(*id).and_then(|fields| fields.get(column));
        assert!(got.is_some_and(|got| judge::same(got, &wanted)), "{id}: wanted {wanted}, got {got:?}");
    }
    // What has no form in JSON may be set aside, visibly; nothing may vanish.
    let letters = scene.tenant.done(&["dead-letters", "list", "--json"]).await;
    for (number, (column, _, literals)) in TYPES.iter().enumerate() {
        for at in 0..literals.len() {
            let id = format!("{column} {at}");
            assert!(
                snapshot["thing"].contains_key(&id) || letters.contains(&id),
                "{number}: {id} is neither sent nor set aside"
            );
        }
    }
    daemon.is_running();
    daemon.stop(seconds(10)).await;
}
