//! Schema changes, images that leave columns out, statements in the log.

use super::lab::{BARRIER, Lab, last_position, table, words};
use tidemark_contract::{Connector, ErrorKind, SourceMessage};
use tidemark_throwaway::{MysqlFlavour, MysqlOptions};

const GOODS: &str = "CREATE TABLE goods (id INT PRIMARY KEY, a VARCHAR(20), b VARCHAR(20));";

async fn rows_are_read_by_the_shape_they_were_written_in(flavour: MysqlFlavour) {
    let lab = Lab::new(flavour, &format!("{BARRIER}{GOODS}"));
    let connector = lab.connector();
    let tables = [table("goods")];
    let mut stream = connector.open_stream(&tables, None).await.unwrap();
    let place = last_position(&lab.drain(&connector, &mut stream).await);
    stream.close().await.unwrap();
    // While we are away: the same number of columns, other names.
    lab.sql(
        "INSERT INTO goods VALUES (1, 'a1', 'b1'); ALTER TABLE goods DROP COLUMN a, ADD COLUMN c VARCHAR(20);
         INSERT INTO goods VALUES (2, 'b2', 'c2'); ALTER TABLE goods ADD COLUMN first INT FIRST, MODIFY c BIGINT UNSIGNED;
         INSERT INTO goods VALUES (9, 3, 'b3', 18446744073709551615); ALTER TABLE goods RENAME COLUMN b TO d;
         INSERT INTO goods VALUES (9, 4, 'd4', 1)"
            .replace("RENAME COLUMN b TO d", if flavour == MysqlFlavour::MariaDb { "CHANGE b d VARCHAR(20)" } else { "RENAME COLUMN b TO d" })
            .replace("'c2'", "'22'")
            .as_str(),
    );
    let mut stream = connector.open_stream(&tables, Some(&place)).await.unwrap();
    let messages = lab.drain(&connector, &mut stream).await;
    let wanted = [
        "insert goods 1 a1 b1",
        "insert goods 2 b2 22",
        "insert goods 9 3 b3 18446744073709551615",
        "insert goods 9 4 d4 1",
    ];
    assert_eq!(words(&messages), wanted);
    let names: Vec<String> = messages
        .iter()
        .filter_map(|m| if let SourceMessage::Schema(s) = m { Some(s) } else { None })
        .map(|s| s.columns.iter().map(|c| &*c.name).collect::<Vec<_>>().join(","))
        .collect();
    assert_eq!(names, ["id,a,b", "id,b,c", "first,id,b,c", "first,id,d,c"]);
}

/// Without names in the log a table that was altered meanwhile must not be guessed at.
async fn without_names_nothing_is_swapped(flavour: MysqlFlavour) {
    let options = MysqlOptions::new(flavour)
        .setting("binlog-row-metadata", if flavour == MysqlFlavour::MariaDb { "NO_LOG" } else { "MINIMAL" });
    let lab = Lab::with(options, &format!("{BARRIER}{GOODS}"));
    let connector = lab.connector();
    let tables = [table("goods")];
    let mut stream = connector.open_stream(&tables, None).await.unwrap();
    lab.sql("INSERT INTO goods VALUES (1, 'a1', 'b1')");
    let told = lab.drain(&connector, &mut stream).await;
    assert_eq!(words(&told), ["insert goods 1 a1 b1"]);
    // Altered under the stream, read up to there: goes on.
    lab.sql("ALTER TABLE goods ADD COLUMN c INT");
    lab.sql("INSERT INTO goods VALUES (2, 'a2', 'b2', 2)");
    let told = lab.drain(&connector, &mut stream).await;
    assert_eq!(words(&told), ["insert goods 2 a2 b2 2"]);
    stream.close().await.unwrap();
    lab.sql(
        "INSERT INTO goods VALUES (3, 'a3', 'b3', 3); ALTER TABLE goods DROP COLUMN a, ADD COLUMN d VARCHAR(20) AFTER b;
         INSERT INTO goods VALUES (4, 'b4', 'd4', 4)",
    );
    let mut stream = connector.open_stream(&tables, Some(&last_position(&told))).await.unwrap();
    let mut out = Vec::new();
    let error = loop {
        match tokio::time::timeout(std::time::Duration::from_secs(10), stream.next(&mut out)).await.unwrap() {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, ErrorKind::PositionLost, "{error}");
    assert!(words(&out).is_empty());
}

async fn what_an_image_leaves_out_is_unchanged(flavour: MysqlFlavour) {
    let options = MysqlOptions::new(flavour).setting("binlog-row-image", "MINIMAL");
    let lab = Lab::with(options, &format!("{BARRIER}{GOODS}"));
    let told = lab
        .told(
            &[table("goods")],
            "INSERT INTO goods VALUES (1, 'a', 'b'); UPDATE goods SET b = NULL WHERE id = 1;
             UPDATE goods SET id = 2 WHERE id = 1; DELETE FROM goods",
        )
        .await;
    let wanted = [
        "insert goods 1 a b",
        "update goods 1 unchanged null",
        "delete goods 1 unchanged unchanged",
        "insert goods 2 unchanged unchanged",
        "delete goods 2 unchanged unchanged",
    ];
    assert_eq!(words(&told), wanted);
}

async fn online_schema_tools_are_followed_and_other_swaps_are_not(flavour: MysqlFlavour) {
    let lab = Lab::new(flavour, &format!("{BARRIER}{GOODS}"));
    let told = lab
        .told(
            &[table("goods")],
            "INSERT INTO goods VALUES (1, 'a', 'b'); CREATE TABLE _goods_gho LIKE goods; ALTER TABLE _goods_gho ADD COLUMN c INT;
             INSERT INTO _goods_gho SELECT *, NULL FROM goods; RENAME TABLE goods TO _goods_del, _goods_gho TO goods;
             INSERT INTO goods VALUES (2, 'a', 'b', 3); DROP TABLE _goods_del",
        )
        .await;
    assert_eq!(words(&told), ["insert goods 1 a b", "insert goods 2 a b 3"]);
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("goods")], None).await.unwrap();
    lab.sql("CREATE TABLE staging LIKE goods; RENAME TABLE goods TO old, staging TO goods");
    assert_eq!(failure(&mut stream).await.kind, ErrorKind::PositionLost);
}

async fn failure(stream: &mut Box<dyn tidemark_contract::ChangeStream>) -> tidemark_contract::SourceError {
    let mut out = Vec::new();
    loop {
        match tokio::time::timeout(std::time::Duration::from_secs(20), stream.next(&mut out)).await.unwrap() {
            Ok(()) => {}
            Err(error) => return error,
        }
    }
}

async fn statements_instead_of_rows_are_refused(flavour: MysqlFlavour) {
    let lab = Lab::new(flavour, &format!("{BARRIER}{GOODS}CREATE TABLE other (id INT PRIMARY KEY);"));
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("goods")], None).await.unwrap();
    lab.sql("SET SESSION binlog_format = 'STATEMENT'; INSERT INTO other VALUES (1)");
    lab.sql("INSERT INTO goods VALUES (1, 'a', 'b')");
    lab.drain(&connector, &mut stream).await;
    lab.sql("SET SESSION binlog_format = 'STATEMENT'; INSERT INTO goods VALUES (2, 'secret', 'b')");
    let error = failure(&mut stream).await;
    assert_eq!(error.kind, ErrorKind::SettingWrong);
    assert!(!format!("{error:?}").contains("secret") && error.hint.unwrap().contains("ROW"));
}

const CHANGES: [&str; 4] = [
    "INSERT INTO words VALUES (1, 'b', 'a,b', 'é', 200, 'pad')",
    "ALTER TABLE words MODIFY e ENUM('new','b','a'), MODIFY s SET('c','b','a')",
    "INSERT INTO words VALUES (2, 'b', 'a,b', 'é', 200, 'pad'), (3, 'new', 'c', '§', 100, 'x'); UPDATE words SET e = 'a' WHERE id = 1",
    "ALTER TABLE words MODIFY t VARCHAR(20) CHARACTER SET gbk, MODIFY n SMALLINT, MODIFY p BINARY(6);
     INSERT INTO words VALUES (4, 'b', 'b', '你', -5, 'pad')",
];

/// Labels, character sets, signs and widths are those that a row was written with, whether they come from the log or, read at
/// once, from the catalogue.
async fn labels_are_those_of_the_moment(flavour: MysqlFlavour) {
    let create =
        "CREATE TABLE words (id INT PRIMARY KEY, e ENUM('a','b'), s SET('a','b'), t VARCHAR(20) CHARACTER SET latin1,
         n TINYINT UNSIGNED, p BINARY(4));";
    let wanted = [
        "insert words 1 b [\"a\",\"b\"] é 200 x70616400",
        "insert words 2 b [\"b\",\"a\"] é 200 x70616400",
        "insert words 3 new [\"c\"] § 100 x78000000",
        "update words 1 a [\"b\",\"a\"] é 200 x70616400",
        "insert words 4 b [\"b\"] 你 -5 x706164000000",
    ];
    let named = Lab::new(flavour, &format!("{BARRIER}{create}"));
    let connector = named.connector();
    let mut stream = connector.open_stream(&[table("words")], None).await.unwrap();
    let place = last_position(&named.drain(&connector, &mut stream).await);
    stream.close().await.unwrap();
    for sql in CHANGES {
        named.sql(&format!("SET NAMES utf8mb4; {sql}"));
    }
    let mut stream = connector.open_stream(&[table("words")], Some(&place)).await.unwrap();
    assert_eq!(words(&named.drain(&connector, &mut stream).await), wanted, "from the log alone");
    let rows = named.snapshot(&table("words"), 9).await;
    let shown: Vec<String> = rows.iter().map(super::lab::shown).collect();
    assert_eq!(shown[0], "1 a [\"b\",\"a\"] é 200 x706164000000");

    let options = MysqlOptions::new(flavour)
        .setting("binlog-row-metadata", if flavour == MysqlFlavour::MariaDb { "NO_LOG" } else { "MINIMAL" });
    let nameless = Lab::with(options, &format!("{BARRIER}{create}"));
    let connector = nameless.connector();
    let mut stream = connector.open_stream(&[table("words")], None).await.unwrap();
    let mut told = Vec::new();
    for sql in CHANGES {
        nameless.sql(&format!("SET NAMES utf8mb4; {sql}"));
        told.extend(words(&nameless.drain(&connector, &mut stream).await));
    }
    assert_eq!(told, wanted, "read at once, from the catalogue");
}

/// A column that was a text before it became one of MariaDB's own types.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_that_become_uuids() {
    let create = "CREATE TABLE ids (id INT PRIMARY KEY, u CHAR(36), i CHAR(16), b BINARY(4));";
    let lab = Lab::new(MysqlFlavour::MariaDb, &format!("{BARRIER}{create}"));
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("ids")], None).await.unwrap();
    let place = last_position(&lab.drain(&connector, &mut stream).await);
    stream.close().await.unwrap();
    lab.sql(
        "INSERT INTO ids VALUES (1, '018f0000-0000-7000-8000-000000000001', '2001:db8::1', X'01');
         ALTER TABLE ids MODIFY u UUID, MODIFY i INET6, MODIFY b CHAR(9);
         INSERT INTO ids VALUES (2, '018f0000-0000-7000-8000-000000000002', '2001:db8::2', 'text')",
    );
    let mut stream = connector.open_stream(&[table("ids")], Some(&place)).await.unwrap();
    let wanted = [
        "insert ids 1 018f0000-0000-7000-8000-000000000001 2001:db8::1 x01000000",
        "insert ids 2 018f0000-0000-7000-8000-000000000002 2001:db8::2 text",
    ];
    assert_eq!(words(&lab.drain(&connector, &mut stream).await), wanted);
}

async fn dropped_and_made_anew(flavour: MysqlFlavour) {
    let lab = Lab::new(flavour, &format!("{BARRIER}{GOODS}"));
    let told = lab
        .told(
            &[table("goods")],
            "INSERT INTO goods VALUES (1, 'a', 'b'); DROP TABLE goods; CREATE TABLE goods (id INT PRIMARY KEY, z INT);
             INSERT INTO goods VALUES (1, 7)",
        )
        .await;
    assert_eq!(words(&told), ["insert goods 1 a b", "truncate goods ", "insert goods 1 7"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partial_documents_are_put_together() {
    let options = MysqlOptions::new(MysqlFlavour::MySql).setting("binlog-row-value-options", "PARTIAL_JSON");
    let lab = Lab::with(options, &format!("{BARRIER} CREATE TABLE docs (id INT PRIMARY KEY, n INT, j JSON, k JSON);"));
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("docs")], None).await.unwrap();
    let long = "y".repeat(300);
    lab.sql(&format!(
        r#"INSERT INTO docs VALUES (1, 0, '{{"a": 1, "long": "{long}", "list": [1, 2, 3], "o": {{"x": 1}}}}', '[1]');
           UPDATE docs SET j = JSON_SET(j, '$.a', 2.5) WHERE id = 1; UPDATE docs SET j = JSON_REMOVE(j, '$.list[1]');
           UPDATE docs SET j = JSON_SET(j, '$."new key"', CAST('[true]' AS JSON)), n = 5; UPDATE docs SET j = JSON_REPLACE(j, '$.o.x', 'é');
           UPDATE docs SET n = 6, k = '[2]'"#
    ));
    let told = lab.drain(&connector, &mut stream).await;
    let last = words(&told).pop().unwrap();
    let now = lab.snapshot(&table("docs"), 9).await;
    assert_eq!(last, format!("update docs {}", super::lab::shown(&now[0])));
    assert_eq!(words(&told).len(), 6);
}

on_both! {
    rows_are_read_by_the_shape_they_were_written_in,
    without_names_nothing_is_swapped,
    what_an_image_leaves_out_is_unchanged,
    online_schema_tools_are_followed_and_other_swaps_are_not,
    statements_instead_of_rows_are_refused,
    dropped_and_made_anew,
    labels_are_those_of_the_moment,
}
