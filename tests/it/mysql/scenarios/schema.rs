//! Tables that change their shape, and events that are no rows.

use crate::scene;
use crate::support::mysql::MysqlScene;
use crate::support::seconds;
use serde_json::json;
use tidemark_throwaway::{MysqlFlavour, MysqlOptions};

mod tests {
    super::super::on_both! {
        columns_come_and_go_while_it_runs;
        values_that_statements_change_without_rows;
        columns_are_exchanged_while_it_is_away;
        columns_are_exchanged_while_it_is_away_and_the_log_has_no_names;
        a_ghost_table_takes_the_tables_place;
        statements_in_the_log_are_said_aloud;
    }
}

const TABLE: &str = "CREATE TABLE things (id int PRIMARY KEY, first varchar(40), second varchar(40), note varchar(40));
    INSERT INTO things VALUES (1, 'first 1', 'second 1', 'n'), (2, 'first 2', 'second 2', 'n'), (3, 'first 3', 'second 3', 'n');
    CREATE TABLE others (id int PRIMARY KEY, name varchar(40)); INSERT INTO others VALUES (1, 'one');";
const MAPPING: &str = "tidemark = 1
[pack]
name = \"things\"
version = \"1.0.0\"
[record.thing]
from = \"things as t\"
external_id = \"t.id\"
[record.thing.fields]
first = \"t.first\"
second = \"t.second\"
[record.other]
from = \"others as o\"
external_id = \"o.id\"
[record.other.fields]
name = \"o.name\"
";
const ORACLE: &str = "SELECT 'thing', id, first, second FROM things;\nSELECT 'other', id, name FROM others;\n";

pub(super) async fn things(options: MysqlOptions) -> Option<MysqlScene> {
    let text = json!({"type": ["string", "null"]});
    let model = json!({
        "thing": {"type": "object", "properties": {"first": text, "second": text}},
        "other": {"type": "object", "properties": {"name": text}},
    });
    MysqlScene::tables(options, TABLE, MAPPING, model, ORACLE).await
}

/// Whatever arrived, a column's value never stood in another column's field.
fn never_exchanged(scene: &MysqlScene) {
    for arrival in scene.crm.history().iter().filter(|arrival| arrival.entity == "thing") {
        for (field, value) in arrival.fields.iter().flatten() {
            let fits = value.is_null() || value.as_str().is_some_and(|text| text.starts_with(field.as_str()));
            assert!(fits, "{}: {value} arrived as `{field}`", arrival.external_id);
        }
    }
}

async fn columns_come_and_go_while_it_runs(flavour: MysqlFlavour) {
    let scene = scene!(things(MysqlOptions::new(flavour)));
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    let steps = [
        "ALTER TABLE things ADD COLUMN more varchar(10) FIRST; INSERT INTO things VALUES ('m', 10, 'first 10', 'second 10', 'n')",
        "UPDATE things SET first = 'first a'; ALTER TABLE things DROP COLUMN note; UPDATE things SET second = 'second a'",
        "ALTER TABLE things MODIFY COLUMN second varchar(40) AFTER id; UPDATE things SET first = 'first b' WHERE id < 3",
        "ALTER TABLE things DROP COLUMN more, ADD COLUMN later int DEFAULT 7, ADD COLUMN other varchar(40) AFTER id",
        "INSERT INTO things (id, first, second, other) VALUES (11, 'first 11', 'second 11', 'other 11')",
        "ALTER TABLE things MODIFY COLUMN first varchar(300) CHARACTER SET latin1; UPDATE things SET first = 'first Ünï'",
        "ALTER TABLE things MODIFY COLUMN first text; UPDATE things SET first = concat(first, ' text') WHERE id > 2",
        "TRUNCATE things; INSERT INTO things (id, first, second) VALUES (1, 'first again', 'second again')",
    ];
    for (number, sql) in steps.iter().enumerate() {
        scene.source.sql(sql);
        if number % 2 == 1 {
            scene.equal(&mut daemon, seconds(60)).await;
        }
    }
    scene.equal(&mut daemon, seconds(60)).await;
    never_exchanged(&scene);
    daemon.stop(seconds(10)).await;
}

/// Statements that give stored values another shape write no rows to the log; what they did arrives all the same, told live
/// and met later, and columns that no mapping uses make nothing be read again.
async fn values_that_statements_change_without_rows(flavour: MysqlFlavour) {
    let scene = scene!(things(MysqlOptions::new(flavour)));
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    let passes = scene.tenant.log().matches("snapshot begins").count();
    scene.source.sql(
        "ALTER TABLE things ADD COLUMN unused int DEFAULT 4, DROP COLUMN note; ALTER TABLE things ADD INDEX (first);
         UPDATE things SET first = 'first x' WHERE id = 1",
    );
    scene.equal(&mut daemon, seconds(60)).await;
    assert_eq!(scene.tenant.log().matches("snapshot begins").count(), passes, "nothing of the mapping was altered");
    let steps = [
        "ALTER TABLE things DROP COLUMN second; ALTER TABLE things ADD COLUMN second varchar(40) DEFAULT 'second anew'",
        "SET sql_mode = ''; ALTER TABLE things MODIFY first varchar(6)",
        "ALTER TABLE things MODIFY second enum('second anew', 'second other') DEFAULT 'second other'",
        "ALTER TABLE things DROP COLUMN second, ADD COLUMN second varchar(40) DEFAULT 'second again'",
        "CREATE TABLE _things_gho LIKE things; ALTER TABLE _things_gho MODIFY second varchar(8);
         SET sql_mode = ''; INSERT INTO _things_gho SELECT * FROM things;
         RENAME TABLE things TO _things_del, _things_gho TO things; UPDATE things SET first = 'first!' WHERE id = 2",
    ];
    for sql in steps {
        scene.source.sql(sql);
        scene.equal(&mut daemon, seconds(60)).await;
    }
    daemon.stop(seconds(10)).await;
    scene.source.sql(
        "UPDATE things SET second = 'second z' WHERE id = 1; ALTER TABLE things DROP COLUMN second;
         ALTER TABLE things ADD COLUMN second varchar(40) DEFAULT 'second at last'",
    );
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    never_exchanged(&scene);
    daemon.stop(seconds(10)).await;
}

/// What changes while nobody watches, so that names are the only way to tell: as many columns as before, of the same types.
const EXCHANGE: &str = "UPDATE things SET first = 'first before', second = 'second before' WHERE id = 1;
    ALTER TABLE things DROP COLUMN note, ADD COLUMN fresh varchar(40) AFTER id;
    UPDATE things SET first = 'first after', second = 'second after' WHERE id = 2;
    ALTER TABLE things MODIFY COLUMN second varchar(40) AFTER id;
    INSERT INTO things (id, first, second, fresh) VALUES (20, 'first 20', 'second 20', 'fresh 20');
    UPDATE others SET name = 'meanwhile'";

async fn columns_are_exchanged_while_it_is_away(flavour: MysqlFlavour) {
    let scene = scene!(things(MysqlOptions::new(flavour)));
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    daemon.stop(seconds(10)).await;
    scene.source.sql(EXCHANGE);
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    never_exchanged(&scene);
    daemon.stop(seconds(10)).await;
}

/// Without names, nobody can read those events; the table is read anew or asks for attention, and the other goes on.
async fn columns_are_exchanged_while_it_is_away_and_the_log_has_no_names(flavour: MysqlFlavour) {
    let none = if flavour == MysqlFlavour::MariaDb { "NO_LOG" } else { "MINIMAL" };
    let scene = scene!(things(MysqlOptions::new(flavour).setting("binlog-row-metadata", none)));
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    daemon.stop(seconds(10)).await;
    scene.source.sql(EXCHANGE);
    let mut daemon = scene.start();
    scene
        .until("equality, or a table that asks for attention", seconds(60), async |s| {
            let asks = s.tenant.status().await.to_string().contains("needs_attention");
            asks || s.differences().await.is_empty()
        })
        .await;
    never_exchanged(&scene);
    scene.tenant.run(&["resync", "--all"]).await;
    scene.equal(&mut daemon, seconds(60)).await;
    never_exchanged(&scene);
    daemon.stop(seconds(10)).await;
}

/// As online schema changes do it: a copy of another shape, filled beside the table, then exchanged by their names.
async fn a_ghost_table_takes_the_tables_place(flavour: MysqlFlavour) {
    let scene = scene!(things(MysqlOptions::new(flavour)));
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene.source.sql(
        "CREATE TABLE _things_gho LIKE things; ALTER TABLE _things_gho DROP COLUMN note, ADD COLUMN fresh int AFTER id;
         INSERT INTO _things_gho (id, first, second) SELECT id, first, second FROM things;
         UPDATE things SET first = 'first during'; REPLACE INTO _things_gho (id, first, second) SELECT id, first, second FROM things;
         RENAME TABLE things TO _things_del, _things_gho TO things;
         UPDATE things SET second = 'second afterwards' WHERE id = 2; INSERT INTO things VALUES (30, 5, 'first 30', 'second 30');
         UPDATE _things_del SET first = 'not any more'; DROP TABLE _things_del; DELETE FROM things WHERE id = 3",
    );
    scene.equal(&mut daemon, seconds(60)).await;
    never_exchanged(&scene);
    // While nobody watches, too.
    daemon.stop(seconds(10)).await;
    scene.source.sql(
        "CREATE TABLE _things_gho LIKE things; ALTER TABLE _things_gho MODIFY COLUMN second varchar(40) AFTER id;
         UPDATE things SET first = 'first still'; INSERT INTO _things_gho (id, first, second) SELECT id, first, second FROM things;
         RENAME TABLE things TO _things_del, _things_gho TO things; DROP TABLE _things_del;
         UPDATE things SET second = 'second last' WHERE id = 1",
    );
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    never_exchanged(&scene);
    daemon.stop(seconds(10)).await;
}

/// P5: a change that came as a statement cannot be applied, and must not be passed over in silence.
async fn statements_in_the_log_are_said_aloud(flavour: MysqlFlavour) {
    let scene = scene!(things(MysqlOptions::new(flavour)));
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    scene
        .source
        .sql("SET SESSION binlog_format = 'STATEMENT'; UPDATE things SET first = 'first by statement' WHERE id = 1");
    scene
        .until("a word about the statement", seconds(30), async |s| {
            let log = s.tenant.log();
            log.to_lowercase().contains("statement") && log.contains("binlog_format")
        })
        .await;
    if daemon.is_running() {
        assert_ne!(scene.tenant.get("/readyz").await.0, 200, "ready although a change was not applied");
    }
}
