//! Parents and children, truncation, changes of shape.

use crate::scene;
use crate::support::{Scene, seconds};
use serde_json::{Value, json};

const FAMILY: &str = "CREATE TABLE a_child (id int PRIMARY KEY, parent int, name text);
    CREATE TABLE z_parent (id int PRIMARY KEY, name text, extra text, note text);
    INSERT INTO a_child SELECT n, n / 10, 'child ' || n FROM generate_series(10, 99) n;
    INSERT INTO z_parent SELECT n, 'parent ' || n, 'extra', 'note' FROM generate_series(1, 9) n";
const FAMILY_MAPPING: &str = "tidemark = 1
[pack]
name = \"family\"
version = \"1.0.0\"
[record.child]
from = \"a_child as c\"
external_id = \"c.id\"
[record.child.fields]
name = \"c.name\"
parent = { ref = \"parent\", external_id = \"c.parent\", missing = \"wait\" }
[record.parent]
from = \"z_parent as p\"
external_id = \"p.id\"
[record.parent.fields]
name = \"p.name\"
extra = \"p.extra\"
";
const FAMILY_ORACLE: &str = "SELECT 'child', c.id::text, jsonb_build_object('name', c.name,
      'parent', CASE WHEN parent IS NOT NULL THEN jsonb_build_object('external_id', parent::text) END)::text FROM a_child c
    UNION ALL SELECT 'parent', id::text, jsonb_build_object('name', name, 'extra', extra)::text FROM z_parent";

async fn family() -> Option<Scene> {
    let text = json!({"type": ["string", "null"]});
    let model = json!({
        "child": {"type": "object", "properties": {"name": text, "parent": {"type": ["object", "null"], "x-ref": "parent"}}},
        "parent": {"type": "object", "properties": {"name": text, "extra": text}},
    });
    Scene::of_tables(FAMILY, FAMILY_MAPPING, model, FAMILY_ORACLE).await
}

/// D05: children before their parents, in the snapshot, in one transaction, in two, and with a restart in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_wait_for_their_parents() {
    let scene = scene!(family());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.source.psql("BEGIN; INSERT INTO a_child VALUES (1000, 100, 'same transaction'); INSERT INTO z_parent VALUES (100, 'p'); COMMIT");
    scene.equal(&mut daemon, seconds(30)).await;
    scene.source.psql("INSERT INTO a_child VALUES (2000, 200, 'early'), (2001, 201, 'never')");
    scene
        .until("two parked records", seconds(30), async |s| {
            s.tenant.metric("tidemark_parked_records{entity=\"child\"}").await == Some(2.0)
        })
        .await;
    // Others go on, and a parked record can change while it waits.
    scene.source.psql("UPDATE a_child SET name = 'changed' WHERE id IN (10, 2000)");
    scene.until("the others", seconds(30), async |s| s.crm.content()["child"]["10"]["name"] == "changed").await;
    daemon.kill();
    daemon = scene.start();
    scene.source.psql("INSERT INTO z_parent VALUES (200, 'late')");
    scene.until("the released child", seconds(60), async |s| s.crm.content()["child"].contains_key("2000")).await;
    assert_eq!(scene.crm.content()["child"]["2000"]["name"], "changed");
    assert!(!scene.crm.content()["child"].contains_key("2001"), "sent although its parent is not there");
    scene.source.psql("DELETE FROM a_child WHERE id = 2001");
    scene.equal(&mut daemon, seconds(60)).await;
    scene
        .until("nothing parked", seconds(30), async |s| {
            s.tenant.metric("tidemark_parked_records{entity=\"child\"}").await == Some(0.0)
        })
        .await;
    assert!(scene.crm.violations().is_empty(), "{:?}", scene.crm.violations());
    daemon.stop(seconds(10)).await;
}

/// C09: TRUNCATE is a delete of everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncation_deletes_everything() {
    let scene = scene!(family());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.source.psql("TRUNCATE a_child");
    scene.equal(&mut daemon, seconds(60)).await;
    scene.source.psql("INSERT INTO a_child VALUES (1, 1, 'first'); BEGIN; TRUNCATE a_child; INSERT INTO a_child VALUES (2, 2, 'second'); COMMIT");
    scene.equal(&mut daemon, seconds(60)).await;
    assert_eq!(scene.crm.count("child"), 1);
    scene.source.psql("BEGIN; INSERT INTO a_child VALUES (3, 3, 'third'); TRUNCATE a_child, z_parent; COMMIT; INSERT INTO z_parent VALUES (7, 'again')");
    scene.equal(&mut daemon, seconds(60)).await;
    daemon.stop(seconds(10)).await;
}

async fn phase(scene: &Scene, table: &str) -> String {
    let status = scene.tenant.status().await;
    let tables = status["tables"].as_array().cloned().unwrap_or_default();
    let found = tables.iter().find(|t| t["name"].as_str().is_some_and(|n| n.ends_with(table)));
    found.and_then(|t| t["phase"].as_str()).unwrap_or("?").to_owned()
}

/// C02, C03: a mapped column goes away: that table needs attention and nothing of it is half applied; the others go on;
/// with the mapping put right it catches up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mapped_column_is_dropped() {
    let mut scene = scene!(family());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    // What is not mapped may come and go.
    scene
        .source
        .psql("ALTER TABLE z_parent ADD COLUMN more int DEFAULT 7; UPDATE z_parent SET name = 'one' WHERE id = 1");
    scene.source.psql("ALTER TABLE z_parent DROP COLUMN note; UPDATE z_parent SET name = 'two' WHERE id = 2");
    scene.source.psql(
        "ALTER TABLE z_parent ALTER COLUMN name TYPE varchar(80); UPDATE z_parent SET name = 'three' WHERE id = 3",
    );
    scene.equal(&mut daemon, seconds(30)).await;
    let before = scene.crm.content()["parent"].clone();

    scene.source.psql("ALTER TABLE z_parent DROP COLUMN extra; UPDATE z_parent SET name = 'after the drop'; INSERT INTO z_parent (id, name) VALUES (50, 'new')");
    scene.source.psql("UPDATE a_child SET name = 'goes on'");
    scene.until("attention", seconds(30), async |s| phase(s, "z_parent").await == "needs_attention").await;
    let children = |s: &Scene| s.crm.content()["child"].values().all(|c| c["name"] == "goes on");
    scene.until("the other table", seconds(30), async |s| children(s)).await;
    assert_eq!(scene.crm.content()["parent"], before, "changes of the table were applied half-way");
    assert!(scene.tenant.status().await.to_string().contains("extra"), "the status does not name the column");
    // Over a restart nothing of it is applied either: it goes on without the table, or says which column it misses.
    daemon.kill();
    daemon = scene.start();
    scene.source.psql("UPDATE a_child SET name = 'goes on and on'");
    match daemon.wait(seconds(5)).await {
        Some(status) => {
            assert_eq!(status.code(), Some(78), "{}", scene.tenant.last_words());
            assert!(scene.tenant.log().contains("column `extra` does not exist"), "{}", scene.tenant.last_words());
        }
        None => {
            let children = |s: &Scene| s.crm.content()["child"].values().all(|c| c["name"] == "goes on and on");
            scene.until("the other table after a restart", seconds(60), async |s| children(s)).await;
            daemon.stop(seconds(10)).await;
        }
    }
    assert_eq!(scene.crm.content()["parent"], before, "changes of the table were applied half-way");

    let mapping = FAMILY_MAPPING.replace("extra = \"p.extra\"\n", "");
    std::fs::write(&scene.tenant.pack, mapping).unwrap();
    scene.oracle = FAMILY_ORACLE
        .replace("'extra', extra", "'extra', 'extra'")
        .replace("FROM z_parent", "FROM z_parent WHERE id <> 50")
        + " UNION ALL SELECT 'parent', id::text, jsonb_build_object('name', name)::text FROM z_parent WHERE id = 50";
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    daemon.stop(seconds(10)).await;
}

/// A row that leaves the rule's scope, and one that comes back; a key that is born again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_come_and_go() {
    let scene = scene!(Scene::northwind());
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    for sql in [
        "UPDATE northwind.\"Order Details\" SET \"Quantity\" = 5000 WHERE \"OrderID\" < 10260",
        "UPDATE northwind.\"Order Details\" SET \"UnitPrice\" = 1 WHERE \"OrderID\" < 10260",
        "UPDATE northwind.\"Order Details\" SET \"Quantity\" = 5 WHERE \"OrderID\" < 10255",
        "DELETE FROM northwind.\"Order Details\" WHERE \"OrderID\" < 10260",
        "BEGIN; INSERT INTO northwind.\"Order Details\" VALUES (10250, 11, 1, 1, 0); DELETE FROM northwind.\"Order Details\" WHERE \"OrderID\" = 10250; COMMIT",
        "INSERT INTO northwind.\"Order Details\" VALUES (10250, 11, 2, 2, 0)",
        // Places changed by way of a third key.
        "BEGIN; UPDATE northwind.\"Customers\" SET \"CustomerID\" = 'TEMPO' WHERE \"CustomerID\" = 'ALFKI';
         UPDATE northwind.\"Customers\" SET \"CustomerID\" = 'ALFKI' WHERE \"CustomerID\" = 'ANATR';
         UPDATE northwind.\"Customers\" SET \"CustomerID\" = 'ANATR' WHERE \"CustomerID\" = 'TEMPO'; COMMIT",
    ] {
        scene.source.psql(sql);
        scene.equal_and_in_order(&mut daemon, seconds(60)).await;
    }
    let value = |v: Option<&Value>| v.cloned().unwrap_or_default();
    let lines = &scene.crm.content()["order_line"];
    assert_eq!(value(lines.get("10250-11").and_then(|l| l.get("quantity"))), json!(2));
    daemon.stop(seconds(10)).await;
}

/// Records that refer to each other in a circle, and to themselves: they are sent without the reference first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_in_a_circle_all_arrive() {
    let mapping = r#"tidemark = 1
[pack]
name = "people"
version = "1.0.0"
[record.person]
from = "people as p"
external_id = "p.id"
[record.person.fields]
name = "p.name"
boss = { ref = "person", external_id = "p.boss", missing = "wait" }
"#;
    let oracle = "SELECT 'person', id::text, jsonb_build_object('name', name,
        'boss', CASE WHEN boss IS NULL THEN NULL ELSE jsonb_build_object('external_id', boss::text) END)::text FROM people";
    let text = json!({"type": ["string", "null"]});
    let model = json!({"person": {"type": "object", "properties":
        {"name": text, "boss": {"type": ["object", "null"], "x-ref": "person"}}}});
    let tables = "CREATE TABLE people (id int PRIMARY KEY, boss int, name text);
        INSERT INTO people VALUES (1, 1, 'her own boss'), (2, 3, 'b'), (3, 2, 'c'), (4, 3, 'd'), (5, null, 'e')";
    let scene = scene!(Scene::of_tables(tables, mapping, model, oracle));
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.source.psql("INSERT INTO people VALUES (10, 12, 'x'), (11, 10, 'y'), (12, 11, 'z'), (13, 13, 'w')");
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    assert!(scene.crm.violations().is_empty(), "{:?}", scene.crm.violations());
    daemon.stop(seconds(10)).await;
}

/// `missing = "null"`: a record is sent without a parent that is not there, and again when the parent has come; until then
/// it costs nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_left_out_is_filled_in() {
    let mapping = FAMILY_MAPPING.replace("\"wait\"", "\"null\"");
    let oracle = FAMILY_ORACLE
        .replace("CASE WHEN parent IS NOT NULL", "CASE WHEN EXISTS (SELECT FROM z_parent p WHERE p.id = parent)");
    let text = json!({"type": ["string", "null"]});
    let model = json!({
        "child": {"type": "object", "properties": {"name": text, "parent": {"type": ["object", "null"], "x-ref": "parent"}}},
        "parent": {"type": "object", "properties": {"name": text, "extra": text}},
    });
    let tables = format!("{FAMILY}; INSERT INTO a_child SELECT n, 50, 'early ' || n FROM generate_series(200, 230) n");
    let scene = scene!(Scene::of_tables(&tables, &mapping, model, &oracle));
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.quiet().await;
    let before = scene.crm.writes();
    tokio::time::sleep(seconds(7)).await;
    assert_eq!(scene.crm.writes(), before, "waiting costs no request");

    scene.source.psql("INSERT INTO z_parent VALUES (50, 'late', 'extra', 'note')");
    scene.equal(&mut daemon, seconds(30)).await;
    // The parent comes while nobody is there, after others of the same child's changes.
    scene.source.psql("INSERT INTO a_child VALUES (300, 70, 'a'), (301, 71, 'b'), (302, 71, 'c')");
    scene.equal(&mut daemon, seconds(30)).await;
    scene.quiet().await;
    daemon.kill();
    scene.source.psql(
        "UPDATE a_child SET name = 'changed' WHERE id = 301; DELETE FROM a_child WHERE id = 302;
         INSERT INTO z_parent VALUES (70, 'x', '', ''), (71, 'y', '', '')",
    );
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(30)).await;
    // Both at once, the child first.
    scene.source.psql(
        "BEGIN; INSERT INTO a_child SELECT n, n, 'together' FROM generate_series(400, 450) n;
         INSERT INTO z_parent SELECT n, 'together', '', '' FROM generate_series(400, 450) n; COMMIT",
    );
    scene.equal(&mut daemon, seconds(30)).await;
    scene.quiet().await;
    scene.tenant.done(&["verify"]).await;
    daemon.stop(seconds(10)).await;
}
