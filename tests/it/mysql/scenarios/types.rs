//! The same value through snapshot and through tail gives the same JSON, for every type.

use crate::mysql::corpus;
use crate::scene;
use crate::support::crm::Content;
use crate::support::mysql::MysqlScene;
use crate::support::{judge, seconds};
use serde_json::{Value, json};
use tidemark_throwaway::{MysqlFlavour, MysqlOptions};

mod tests {
    super::super::on_both! {
        the_same_json_through_snapshot_and_tail;
    }
}

/// JSON that a row must give, where the rules name it.
const KNOWN: &[(&str, &str)] = &[
    ("c_ubig 0", "\"18446744073709551615\""),
    ("c_big 0", "\"-9223372036854775808\""),
    ("c_umedium 0", "16777215"),
    ("c_money 0", "\"1.50\""),
    ("c_float 0", "1.1"),
    ("c_double 0", "0.1"),
    ("c_varchar 1", "\" both ends \""),
    ("c_latin1 0", "\"ünïcödé\""),
    ("c_gbk 0", "\"汉字 abc\""),
    ("c_sjis 0", "\"日本語 ｶﾅ\""),
    ("c_binary 0", "\"AP8QAAAAAAA=\""),
    ("c_date 0", "\"2024-02-29\""),
    ("c_time 0", "\"12:34:56\""),
    ("c_datetime2 0", "\"2024-01-01T10:20:30.12\""),
    ("c_timestamp 0", "\"2024-06-01T12:00:00Z\""),
    ("c_enum 0", "\"small\""),
    ("c_set 0", "[\"a\", \"c d\"]"),
    ("c_json 0", "{\"a\": 1, \"b\": [1, 2, null, true], \"c\": {\"d\": \"x\"}}"),
];

async fn the_same_json_through_snapshot_and_tail(flavour: MysqlFlavour) {
    // Each row shows one value of one column, so that a value the mapping cannot send hides no other; tables come in
    // parts, because a row is limited to 64 KiB.
    let parts = corpus::parts(flavour);
    let mut tables = Vec::new();
    let mut rows = Vec::new();
    let mut mapping = String::from("tidemark = 1\n[pack]\nname = \"types\"\nversion = \"1.0.0\"\n");
    let mut properties = serde_json::Map::new();
    let mut ids = Vec::new();
    for (part, types) in parts.iter().enumerate() {
        let columns: Vec<String> = types.iter().map(|(name, kind, _)| format!("{name} {kind}")).collect();
        tables.push(format!("CREATE TABLE part_{part} (id varchar(60) PRIMARY KEY, {})", columns.join(", ")));
        mapping.push_str(&format!(
            "[record.part_{part}]\nentity = \"thing\"\nfrom = \"part_{part} as t\"\nexternal_id = \"t.id\"\n"
        ));
        mapping.push_str(&format!("[record.part_{part}.fields]\n"));
        for (name, _, literals) in types {
            mapping.push_str(&format!("{name} = \"t.{name}\"\n"));
            properties.insert((*name).into(), json!({}));
            for (number, (literal, _)) in literals.iter().enumerate() {
                rows.push(format!("INSERT INTO part_{part} (id, {name}) VALUES ('{name} {number}', {literal})"));
                ids.push(format!("{name} {number}"));
            }
        }
    }
    // Any date and any text, in a zone of its own; the literals of timestamps are in UTC.
    let session = "SET sql_mode = '', time_zone = '+00:00'";
    let sql = format!("{session}; {}; {}", tables.join("; "), rows.join("; "));
    let model = json!({"thing": {"type": "object", "properties": properties}});
    let options = MysqlOptions::new(flavour).setting("default-time-zone", "+10:30");
    let mut scene = scene!(MysqlScene::tables(options, &sql, &mapping, model, ""));
    // Wherever the daemon runs, it must not matter.
    scene.tenant.environment = vec![("TZ", "Asia/Kolkata"), ("LANG", "tr_TR.UTF-8")];
    let mut daemon = scene.start();
    let settled = async |scene: &MysqlScene| {
        scene
            .until("the snapshot or the tail to end", seconds(60), async |s| s.tenant.get("/readyz").await.0 == 200)
            .await;
        scene.quiet().await;
        scene.crm.content()
    };
    let snapshot = settled(&scene).await;
    let there = |content: &Content| content.get("thing").map_or(0, |t| t.len());
    println!("{} of {} rows by snapshot", there(&snapshot), rows.len());

    let clear: Vec<String> = (0..parts.len()).map(|part| format!("DELETE FROM part_{part}")).collect();
    scene.source.sql(&clear.join("; "));
    scene.until("nothing left", seconds(60), async |s| s.crm.count("thing") == 0).await;
    scene.source.sql(&format!("{session}; {}", rows.join("; ")));
    scene.until("all of it by the tail", seconds(60), async |s| s.crm.count("thing") >= there(&snapshot)).await;
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
    for id in ids {
        assert!(snapshot["thing"].contains_key(&id) || letters.contains(&id), "{id} is neither sent nor set aside");
    }
    assert!(daemon.is_running());
    daemon.stop(seconds(10)).await;
}
