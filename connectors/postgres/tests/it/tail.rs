//! What the tail delivers.

use crate::lab::{Lab, changes, columns, events, position, show_row, snapshot, table};
use std::time::Duration;
use tidemark_contract::{ChangeOp, Connector, ErrorKind, SourceMessage, TableId, TableRequest};

const SHOP: &str = "CREATE TABLE t (id int PRIMARY KEY, name text, note text);
    INSERT INTO t VALUES (1, 'one', 'x'), (2, 'two', NULL), (3, 'three', '')";

/// Text that is stored out of line: longer than a page, and not to be compressed.
const BIG: &str = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300) i)";

#[tokio::test]
async fn a_table_is_read_and_then_followed() {
    let lab = Lab::new(SHOP);
    let connector = lab.connector();
    let tables = [columns("t", &["name"])];
    let mut stream = connector.open_stream(&tables, None).await.unwrap();
    let rows = snapshot(&connector, &tables[0], 2).await;
    assert_eq!(rows.iter().map(show_row).collect::<Vec<_>>(), ["1|one", "2|two", "3|three"]);
    lab.sql(
        "INSERT INTO t VALUES (4, 'four', 'y'); UPDATE t SET name = 'ONE' WHERE id = 1; DELETE FROM t WHERE id = 2;
         BEGIN; UPDATE t SET id = 30 WHERE id = 3; TRUNCATE t; COMMIT",
    );
    let messages = lab.drain(&connector, &mut stream).await;
    assert!(matches!(messages[0], SourceMessage::Idle(_)), "the first message tells where the stream begins");
    assert_eq!(
        changes(&messages),
        ["insert 4|four", "update 1|ONE", "delete 2|unchanged", "delete 3|unchanged", "insert 30|three", "truncate "]
    );
    assert!(events(&messages).iter().all(|e| e.committed_at > 1_700_000_000_000_000));
    let at = position(&messages);
    stream.acknowledge(&at).await.unwrap();
    stream.close().await.unwrap();
    assert_eq!(lab.sql("SELECT confirmed_flush_lsn FROM pg_replication_slots"), at.place.to_string());
    assert_eq!(lab.sql("SELECT active FROM pg_replication_slots"), "f");
}

#[tokio::test]
async fn keys_are_swapped_in_one_transaction() {
    let lab = Lab::new(SHOP);
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[columns("t", &["name"])], None).await.unwrap();
    lab.sql("BEGIN; UPDATE t SET id = 0 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET id = 2 WHERE id = 0; COMMIT");
    let messages = lab.drain(&connector, &mut stream).await;
    let wanted = [
        "delete 1|unchanged",
        "insert 0|one",
        "delete 2|unchanged",
        "insert 1|two",
        "delete 0|unchanged",
        "insert 2|one",
    ];
    assert_eq!(changes(&messages), wanted);
}

#[tokio::test]
async fn unchanged_large_values_are_not_null() {
    let lab = Lab::new(&format!(
        "CREATE TABLE t (id int PRIMARY KEY, big text, small int); ALTER TABLE t ALTER big SET STORAGE EXTERNAL;
         INSERT INTO t VALUES (1, {BIG}, 0)"
    ));
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("t")], None).await.unwrap();
    let big = lab.sql("SELECT big FROM t");
    lab.sql("UPDATE t SET small = 1; UPDATE t SET id = 2; UPDATE t SET big = NULL");
    lab.sql(&format!(
        "UPDATE t SET big = {BIG}; ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET small = 3; DELETE FROM t"
    ));
    let messages = lab.drain(&connector, &mut stream).await;
    let wanted = [
        "update 1|unchanged|1".to_owned(),
        "delete 1|unchanged|unchanged".to_owned(),
        "insert 2|unchanged|1".to_owned(),
        "update 2|null|1".to_owned(),
        format!("update 2|{big}|1"),
        // The whole old row is in the log now, and fills what the new one lacks.
        format!("update 2|{big}|3 <- 2|{big}|1"),
        format!("delete 2|{big}|3"),
    ];
    assert!(changes(&messages) == wanted, "changes differ");
    let schemas: Vec<(bool, bool)> = messages
        .iter()
        .filter_map(|m| if let SourceMessage::Schema(s) = m { Some(s) } else { None })
        .map(|s| (s.full_before_image, s.columns[1].may_be_unchanged))
        .collect();
    assert_eq!(schemas, [(false, true), (true, false)]);
}

#[tokio::test]
async fn a_large_key_is_never_unchanged() {
    let lab = Lab::new(
        "CREATE TABLE t (id text PRIMARY KEY, big text, small int);
         ALTER TABLE t ALTER id SET STORAGE EXTERNAL, ALTER big SET STORAGE EXTERNAL, ALTER id SET STORAGE EXTERNAL",
    );
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("t")], None).await.unwrap();
    lab.sql("INSERT INTO t VALUES (repeat('k', 2200), NULL, 0); UPDATE t SET small = 1; UPDATE t SET small = 2; DELETE FROM t");
    let key = "k".repeat(2200);
    let seen = changes(&lab.drain(&connector, &mut stream).await);
    let wanted = [
        format!("insert {key}|null|0"),
        format!("update {key}|null|1"),
        format!("update {key}|null|2"),
        format!("delete {key}|unchanged|unchanged"),
    ];
    assert!(seen == wanted, "changes differ");
}

#[tokio::test]
async fn replica_identities() {
    let lab = Lab::new(
        "CREATE TABLE by_index (id int PRIMARY KEY, code text NOT NULL UNIQUE, x int);
         ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code_key;
         CREATE TABLE no_primary (a int NOT NULL, b int NOT NULL, x int, UNIQUE (b, a));
         ALTER TABLE no_primary REPLICA IDENTITY USING INDEX no_primary_b_a_key;
         INSERT INTO by_index VALUES (1, 'one', 0); INSERT INTO no_primary VALUES (1, 2, 0)",
    );
    let connector = lab.connector();
    let declared = TableRequest { key: Some(vec!["a".into(), "b".into()]), ..table("no_primary") };
    let by_code = TableRequest { key: Some(vec!["code".into()]), ..table("by_index") };
    let mut stream = connector.open_stream(&[declared, by_code], None).await.unwrap();
    lab.sql(
        "UPDATE no_primary SET x = 1; UPDATE no_primary SET a = 5; DELETE FROM no_primary;
         UPDATE by_index SET id = 2; UPDATE by_index SET code = 'two'; DELETE FROM by_index",
    );
    let messages = lab.drain(&connector, &mut stream).await;
    assert_eq!(
        changes(&messages),
        [
            "update 1|2|1",
            "delete 1|2|unchanged",
            "insert 5|2|1",
            "delete 5|2|unchanged",
            "update 2|one|0",
            "delete unchanged|one|unchanged",
            "insert 2|two|0",
            "delete unchanged|two|unchanged",
        ]
    );
    stream.close().await.unwrap();

    // The same table by its primary key: the log tells only the code, so an update cannot be placed.
    let mut stream = connector.open_stream(&[table("by_index")], None).await.unwrap();
    lab.sql("INSERT INTO by_index VALUES (7, 'seven', 0); UPDATE by_index SET x = 1");
    let mut out = Vec::new();
    let error = loop {
        if let Err(error) = stream.next(&mut out).await {
            break error;
        }
    };
    assert_eq!(changes(&out), ["insert 7|seven|0"]);
    assert_eq!(error.kind, ErrorKind::SchemaChanged);
    assert_eq!(error.hint.as_deref(), Some("ALTER TABLE \"public\".\"by_index\" REPLICA IDENTITY FULL"));
}

#[tokio::test]
async fn truncates_of_several_tables() {
    let lab = Lab::new(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);
         CREATE TABLE c (id int PRIMARY KEY)",
    );
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("a"), table("b")], None).await.unwrap();
    lab.sql("BEGIN; INSERT INTO a VALUES (1); TRUNCATE a, c RESTART IDENTITY CASCADE; INSERT INTO b VALUES (2, NULL); COMMIT");
    let messages = lab.drain(&connector, &mut stream).await;
    let mut seen: Vec<String> =
        events(&messages).iter().map(|e| format!("{} {}", e.op.as_str(), e.schema.table.name)).collect();
    seen[1..3].sort();
    assert_eq!(seen, ["insert a", "truncate a", "truncate b", "insert b"]);
    assert!(events(&messages).iter().filter(|e| e.op == ChangeOp::Truncate).all(|e| e.row.is_empty()));
}

#[tokio::test]
async fn partitions_appear_as_their_root() {
    let lab = Lab::new(
        "CREATE TABLE p (id int, region text, extra text, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
         CREATE TABLE p_eu PARTITION OF p FOR VALUES IN ('eu') PARTITION BY RANGE (id);
         CREATE TABLE p_eu1 PARTITION OF p_eu FOR VALUES FROM (0) TO (100);
         CREATE TABLE p_us (extra text, region text NOT NULL, dropped int, id int NOT NULL, PRIMARY KEY (id, region));
         ALTER TABLE p_us DROP dropped; ALTER TABLE p ATTACH PARTITION p_us FOR VALUES IN ('us');
         INSERT INTO p VALUES (1, 'eu', 'a'), (2, 'us', 'b')",
    );
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("p")], None).await.unwrap();
    let rows = snapshot(&connector, &table("p"), 1).await;
    assert_eq!(rows.iter().map(show_row).collect::<Vec<_>>(), ["1|eu|a", "2|us|b"]);
    lab.sql(
        "UPDATE p SET extra = 'c' WHERE id = 2; UPDATE p SET region = 'us' WHERE id = 1; DELETE FROM p WHERE id = 2;
         CREATE TABLE p_asia PARTITION OF p FOR VALUES IN ('asia'); INSERT INTO p VALUES (3, 'asia', NULL); TRUNCATE p",
    );
    let messages = lab.drain(&connector, &mut stream).await;
    assert_eq!(
        changes(&messages),
        [
            "update 2|us|c",
            "delete 1|eu|unchanged",
            "insert 1|us|a",
            "delete 2|us|unchanged",
            "insert 3|asia|null",
            "truncate "
        ]
    );
    assert!(events(&messages).iter().all(|e| e.schema.table == TableId::new("public", "p")));
}

#[tokio::test]
async fn a_mixed_identity_of_partitions_invents_no_nulls() {
    let lab = Lab::new(&format!(
        "CREATE TABLE p (id int PRIMARY KEY, big text, x int) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);
         CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
         ALTER TABLE p REPLICA IDENTITY FULL; ALTER TABLE p2 REPLICA IDENTITY FULL;
         ALTER TABLE p1 ALTER big SET STORAGE EXTERNAL; ALTER TABLE p2 ALTER big SET STORAGE EXTERNAL;
         INSERT INTO p VALUES (1, {BIG}, 0), (11, {BIG}, 0)"
    ));
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("p")], None).await.unwrap();
    lab.sql("UPDATE p SET x = 1 WHERE id = 1; UPDATE p SET x = 1 WHERE id = 11; UPDATE p SET id = 2 WHERE id = 1; DELETE FROM p");
    let messages = lab.drain(&connector, &mut stream).await;
    assert_eq!(
        changes(&messages),
        [
            "update 1|unchanged|1",
            "update 11|unchanged|1",
            "delete 1|unchanged|unchanged",
            "insert 2|unchanged|1",
            "delete 2|unchanged|unchanged",
            "delete 11|unchanged|unchanged"
        ]
    );
}

#[tokio::test]
async fn generated_columns_are_never_null() {
    let lab = Lab::new("CREATE TABLE g (twice int GENERATED ALWAYS AS (id * 2) STORED, id int PRIMARY KEY, x int)");
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("g")], None).await.unwrap();
    lab.sql("INSERT INTO g (id, x) VALUES (1, 5); UPDATE g SET x = 6");
    let messages = lab.drain(&connector, &mut stream).await;
    // The log carries them from version 18 on.
    let logged = lab.cluster.major_version().unwrap() >= 18;
    let value = if logged { "2" } else { "unchanged" };
    assert_eq!(changes(&messages), [format!("insert {value}|1|5"), format!("update {value}|1|6")]);
    let schema = &events(&messages)[0].schema;
    assert!(schema.columns[0].may_be_unchanged != logged && !schema.columns[2].may_be_unchanged);
    let page = connector.snapshot_chunk(&table("g"), None, 10).await.unwrap();
    assert_eq!(show_row(&page.rows[0]), "2|1|6");
    assert!(page.schema.columns[0].may_be_unchanged, "nobody knows from which publication the log will come");
}

#[tokio::test]
async fn schema_changes_between_rows_of_one_stream() {
    let lab = Lab::new("CREATE TABLE t (id int PRIMARY KEY, a int, b text); CREATE TYPE mood AS ENUM ('ok')");
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("t")], None).await.unwrap();
    lab.sql(
        "INSERT INTO t VALUES (1, 10, 'x');
         ALTER TABLE t ADD c date; INSERT INTO t VALUES (2, 20, 'y', '2024-01-01');
         ALTER TABLE t DROP a; INSERT INTO t VALUES (3, 'z', NULL);
         ALTER TABLE t RENAME b TO renamed; INSERT INTO t VALUES (4, 'w', NULL);
         BEGIN; INSERT INTO t VALUES (5, '5', NULL); ALTER TABLE t ALTER renamed TYPE int USING id; INSERT INTO t VALUES (6, 6, NULL); COMMIT;
         ALTER TABLE t ADD m mood; INSERT INTO t VALUES (7, 7, NULL, 'ok');
         ALTER TYPE mood ADD VALUE 'new'; INSERT INTO t VALUES (8, 8, NULL, 'new');
         ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'; UPDATE t SET c = NULL WHERE id = 7;
         ALTER TABLE t DROP m; DROP TYPE mood; ALTER TABLE t RENAME id TO key; DELETE FROM t WHERE key = 8",
    );
    let messages = lab.drain(&connector, &mut stream).await;
    let seen: Vec<String> = messages
        .iter()
        .filter_map(|m| match m {
            SourceMessage::Change(e) => Some(format!("{} {}", e.op.as_str(), show_row(&e.row))),
            SourceMessage::Schema(s) => {
                let names: Vec<String> = s.columns.iter().map(|c| format!("{}:{}", c.name, c.logical)).collect();
                Some(names.join(" "))
            }
            _ => None,
        })
        .collect();
    let wanted = [
        "id:integer a:integer b:text",
        "insert 1|10|x",
        "id:integer a:integer b:text c:date",
        "insert 2|20|y|2024-01-01",
        "id:integer b:text c:date",
        "insert 3|z|null",
        "id:integer renamed:text c:date",
        "insert 4|w|null",
        "insert 5|5|null",
        "id:integer renamed:integer c:date",
        "insert 6|6|null",
        "id:integer renamed:integer c:date m:text",
        "insert 7|7|null|ok",
        "insert 8|8|null|new",
        "update 7|7|null|fine",
        "key:integer renamed:integer c:date",
        "delete 8|unchanged|unchanged",
    ];
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn labels_that_are_added_are_announced() {
    let lab = Lab::new("CREATE TYPE mood AS ENUM ('ok'); CREATE TABLE t (id int PRIMARY KEY, m mood)");
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("t")], None).await.unwrap();
    lab.sql("INSERT INTO t VALUES (1, 'ok')");
    lab.drain(&connector, &mut stream).await;
    lab.sql("ALTER TYPE mood ADD VALUE 'new'; ALTER TABLE t ADD x int; INSERT INTO t VALUES (2, 'new')");
    let messages = lab.drain(&connector, &mut stream).await;
    let labels = events(&messages)[0].schema.columns[1].labels.clone();
    assert_eq!(labels, ["ok".into(), "new".into()]);
}

#[tokio::test]
async fn only_what_was_committed_and_only_rows() {
    let lab = Lab::new(SHOP);
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[columns("t", &["name"])], None).await.unwrap();
    lab.sql(
        "BEGIN; INSERT INTO t VALUES (10, 'a'); SAVEPOINT s; INSERT INTO t VALUES (11, 'b'); ROLLBACK TO s;
         INSERT INTO t VALUES (12, 'c'); COMMIT;
         BEGIN; INSERT INTO t VALUES (13, 'd'); ROLLBACK;
         SELECT pg_logical_emit_message(true, 'x', 'y'); SELECT pg_logical_emit_message(false, 'x', 'y');
         CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1)",
    );
    let messages = lab.drain(&connector, &mut stream).await;
    assert_eq!(changes(&messages), ["insert 10|a", "insert 12|c"]);
}

#[tokio::test]
async fn two_connections_interleave_and_commits_give_the_order() {
    let lab = Lab::new(SHOP);
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[columns("t", &["name"])], None).await.unwrap();
    // The inner statement runs on its own connection and commits while the outer transaction is open.
    lab.sql("CREATE EXTENSION dblink");
    let port = lab.cluster.port();
    let dblink = format!(
        "dblink_exec('host=127.0.0.1 port={port} dbname=shop user=postgres', 'INSERT INTO t VALUES (20, ''inner'')')"
    );
    lab.sql(&format!("BEGIN; INSERT INTO t VALUES (21, 'outer'); SELECT {dblink}; COMMIT"));
    let messages = lab.drain(&connector, &mut stream).await;
    assert_eq!(changes(&messages), ["insert 20|inner", "insert 21|outer"]);
}

#[tokio::test]
async fn a_quiet_table_lets_the_slot_move_on() {
    let lab = Lab::new(SHOP);
    lab.cluster.createdb("busy").unwrap();
    lab.cluster.psql_in("busy", "CREATE TABLE noise (id int)").unwrap();
    lab.sql("CREATE TABLE unwatched (id int)");
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("t")], None).await.unwrap();
    lab.drain(&connector, &mut stream).await;
    let lag = || async { connector.lag(None).await.unwrap().pending_bytes.unwrap() };
    lab.cluster.psql_in("busy", "INSERT INTO noise SELECT generate_series(1, 50000)").unwrap();
    lab.sql("INSERT INTO unwatched SELECT generate_series(1, 50000)");
    assert!(lag().await > 4 << 20);
    // Nobody asks for a position: the keepalives tell it by themselves.
    let wait = async {
        let mut out = Vec::new();
        while lag().await > 100_000 {
            if tokio::time::timeout(Duration::from_millis(200), stream.next(&mut out)).await.is_ok() {
                stream.acknowledge(&position(&out)).await.unwrap();
            }
        }
        assert_eq!(changes(&out), [""; 0]);
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("the slot moves on");
}
