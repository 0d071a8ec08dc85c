//! Reading tables: pages, keys, and rows by key.

use crate::lab::{Lab, columns, show_row, snapshot, table};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tidemark_contract::{Connector as _, ErrorKind, RowKey, SourceMessage, TableId, TableRequest, Value};

#[tokio::test]
async fn any_key_is_paged_without_gap_or_repeat() {
    let lab = Lab::new(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE COLLATION de (provider = icu, locale = 'de');
         CREATE TYPE mood AS ENUM ('zzz', 'mmm', 'aaa');
         CREATE TABLE k_int (id int PRIMARY KEY); INSERT INTO k_int SELECT generate_series(-10, 12);
         CREATE TABLE k_text (id text COLLATE de PRIMARY KEY);
         INSERT INTO k_text SELECT x FROM unnest(ARRAY['a','B','ä','Z','z','''','\\','a b','tab'||chr(9),'nl'||chr(10),'','é','ß','ss','{','(\"x\")','10','9']) x;
         CREATE TABLE k_ci (id text COLLATE ci PRIMARY KEY); INSERT INTO k_ci SELECT x FROM unnest(ARRAY['b','A','c','D','é']) x;
         CREATE TABLE k_uuid (id uuid PRIMARY KEY); INSERT INTO k_uuid SELECT md5(i::text)::uuid FROM generate_series(1, 20) i;
         CREATE TABLE k_enum (id mood PRIMARY KEY); INSERT INTO k_enum VALUES ('aaa'), ('mmm'), ('zzz');
         CREATE TABLE k_num (id numeric PRIMARY KEY);
         INSERT INTO k_num SELECT x FROM unnest(ARRAY['NaN','Infinity','-Infinity',0,1.5,-1.50,1e50]::numeric[]) x;
         CREATE TABLE k_float (id float8 PRIMARY KEY); INSERT INTO k_float SELECT x FROM unnest(ARRAY['NaN','Infinity',0.1,-1e300,2]::float8[]) x;
         CREATE TABLE k_bytes (id bytea PRIMARY KEY); INSERT INTO k_bytes SELECT decode(md5(i::text), 'hex') FROM generate_series(1, 9) i;
         CREATE TABLE k_char (id char(4) PRIMARY KEY); INSERT INTO k_char VALUES ('a'), ('ab'), ('b'), ('a''');
         CREATE TABLE k_bool (id bool PRIMARY KEY); INSERT INTO k_bool VALUES (true), (false);
         CREATE TABLE k_at (id timestamptz PRIMARY KEY);
         INSERT INTO k_at SELECT x FROM unnest(ARRAY['infinity','-infinity','0044-03-15 BC','2024-01-01 00:00:00.123456+05','0001-01-01 BC']::timestamptz[]) x;
         CREATE TABLE k_date (id date PRIMARY KEY); INSERT INTO k_date SELECT x FROM unnest(ARRAY['infinity','0044-03-15 BC','2024-01-01']::date[]) x;
         CREATE TABLE k_time (id timetz PRIMARY KEY); INSERT INTO k_time VALUES ('10:00+02'), ('24:00+00'), ('09:00:00.5-08:30');
         CREATE TABLE k_interval (id interval PRIMARY KEY); INSERT INTO k_interval VALUES ('1 year'), ('-3 days'), ('25:00:00');
         CREATE TABLE k_inet (id inet PRIMARY KEY); INSERT INTO k_inet VALUES ('10.0.0.1'), ('::1'), ('10.0.0.0/8');
         CREATE DOMAIN code AS varchar(8);
         CREATE TABLE k_many (b code, a int, c timestamp, x text, PRIMARY KEY (c, b, a));
         INSERT INTO k_many SELECT 'k' || i % 3, i % 5, '2024-01-01'::timestamp + (i % 2) * interval '1 us', i::text FROM generate_series(0, 29) i",
    );
    let connector = lab.connector();
    let tables = connector.discover(&[]).await.unwrap();
    assert_eq!(tables.len(), 16);
    for schema in tables {
        let request = TableRequest { table: schema.table.clone(), columns: None, key: None };
        let name = &schema.table.name;
        let count: usize = lab.sql(&format!("SELECT count(*) FROM {name}")).parse().unwrap();
        let by_one = snapshot(&connector, &request, 1).await;
        assert_eq!(by_one.len(), count, "{name}");
        for limit in [2, 7, 1000] {
            assert!(snapshot(&connector, &request, limit).await == by_one, "{name} by {limit}");
        }
        let keys: Vec<RowKey> = by_one.iter().map(|row| RowKey::of(row, &schema.key).unwrap()).collect();
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), count, "{name}");
        // By key, backwards, one of them twice.
        let mut asked: Vec<RowKey> = keys.iter().rev().cloned().collect();
        asked.push(keys[0].clone());
        let fetched = connector.fetch_rows(&request, &asked).await.unwrap();
        let wanted: Vec<_> = by_one.iter().rev().chain(&by_one[..1]).cloned().map(Some).collect();
        assert!(fetched.rows == wanted, "{name} by key");
    }
}

#[tokio::test]
async fn rows_that_are_not_there() {
    let lab = Lab::new(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE t (id text COLLATE ci PRIMARY KEY, x int); INSERT INTO t VALUES ('A', 1)",
    );
    let connector = lab.connector();
    let page = connector.snapshot_chunk(&table("t"), None, 10).await.unwrap();
    let key = RowKey::of(&page.rows[0], &page.schema.key).unwrap();
    lab.sql("UPDATE t SET id = 'a'");
    let fetched = connector.fetch_rows(&table("t"), &[key]).await.unwrap();
    assert_eq!(fetched.rows.len(), 1);
    assert!(fetched.rows[0].is_none(), "another key, though the database finds it equal");
    assert!(connector.fetch_rows(&table("t"), &[]).await.unwrap().rows.is_empty());
    lab.sql("DELETE FROM t");
    let page = connector.snapshot_chunk(&table("t"), None, 10).await.unwrap();
    assert!(page.rows.is_empty() && page.next.is_none());
}

#[tokio::test]
async fn wide_rows_end_a_page_early() {
    let lab = Lab::new(
        "CREATE TABLE t (id int PRIMARY KEY, x text);
         INSERT INTO t SELECT i, repeat('x', 1000000) FROM generate_series(1, 30) i",
    );
    let connector = lab.connector();
    let first = connector.snapshot_chunk(&table("t"), None, 5000).await.unwrap();
    assert_eq!(first.rows.len(), 9, "8 MiB");
    let rows = snapshot(&connector, &table("t"), 5000).await;
    assert_eq!(rows.len(), 30);
}

#[tokio::test]
async fn what_a_chunk_saw_is_at_or_before_its_barrier() {
    let lab = Lab::new("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("t")], None).await.unwrap();
    for i in 2..30 {
        lab.sql(&format!("INSERT INTO t VALUES ({i})"));
        let page = connector.snapshot_chunk(&table("t"), None, 1000).await.unwrap();
        assert_eq!(page.rows.len(), i);
        // Follow the tail until it covers the barrier: the change must be among what was delivered.
        let mut out = Vec::new();
        let covered = |out: &[tidemark_contract::SourceMessage]| {
            crate::lab::last_position(out).is_some_and(|p| connector.covers(&p, &page.barrier).unwrap())
        };
        while !covered(&out) {
            stream.request_position().await.unwrap();
            stream.next(&mut out).await.unwrap();
        }
        assert_eq!(crate::lab::changes(&out), [format!("insert {i}")]);
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_the_reason() {
    let lab = Lab::new(
        "CREATE TABLE no_key (id int); CREATE TABLE nullable (id int UNIQUE); CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
         CREATE VIEW v AS SELECT 1 AS id; CREATE TABLE js (id jsonb PRIMARY KEY); CREATE TABLE ok (id int PRIMARY KEY, x int);
         CREATE TABLE part (id int, x int NOT NULL) ; CREATE UNIQUE INDEX ON part (x) WHERE id > 0",
    );
    let connector = lab.connector();
    let keyed = |name: &str, key: &str| TableRequest { key: Some(vec![key.into()]), ..table(name) };
    for (request, reason) in [
        (table("no_key"), "no primary key"),
        (keyed("nullable", "id"), "may be null"),
        (keyed("part", "x"), "no unique index"),
        (table("unlogged"), "unlogged"),
        (table("v"), "view"),
        (table("js"), "not supported as a key"),
        (table("missing"), "does not exist"),
        (table("OK"), "does not exist"),
    ] {
        let error = connector.discover(std::slice::from_ref(&request)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::SettingWrong);
        assert!(error.message.contains(reason), "{error}");
        assert!(connector.open_stream(std::slice::from_ref(&request), None).await.is_err());
        assert!(connector.snapshot_chunk(&request, None, 10).await.is_err());
    }
    assert_eq!(lab.sql("SELECT count(*) FROM pg_replication_slots"), "0", "nothing is created half-way");
    let schema = connector.discover(&[columns("ok", &["x", "nope"])]).await.unwrap().remove(0);
    assert_eq!(schema.columns.len(), 2);
    let all = connector.discover(&[]).await.unwrap();
    assert_eq!(all.iter().map(|s| &*s.table.name).collect::<Vec<_>>(), ["ok"]);
}

#[tokio::test]
async fn inheritance_is_not_followed_and_names_may_be_odd() {
    let lab = Lab::new(
        "CREATE SCHEMA \"My \"\"Schema\"; CREATE TABLE \"My \"\"Schema\".\"Tab'le\" (\"I d\" int PRIMARY KEY, \"select\" text);
         INSERT INTO \"My \"\"Schema\".\"Tab'le\" VALUES (1, 'x'), (2, 'y');
         CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
         INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2)",
    );
    let connector = lab.connector();
    let odd = TableRequest { table: TableId::new("My \"Schema", "Tab'le"), columns: None, key: None };
    let mut stream = connector.open_stream(&[odd.clone(), table("parent")], None).await.unwrap();
    assert_eq!(snapshot(&connector, &odd, 1).await.len(), 2);
    assert_eq!(snapshot(&connector, &table("parent"), 10).await.len(), 1);
    lab.sql("UPDATE \"My \"\"Schema\".\"Tab'le\" SET \"select\" = 'z' WHERE \"I d\" = 1; INSERT INTO child VALUES (3); INSERT INTO parent VALUES (4)");
    let messages = lab.drain(&connector, &mut stream).await;
    assert_eq!(crate::lab::changes(&messages), ["update 1|z", "insert 4"]);
    assert_eq!(show_row(&snapshot(&connector, &odd, 10).await[0]), "1|z");
}

#[tokio::test]
async fn estimates() {
    let lab = Lab::new(
        "CREATE TABLE empty (id int PRIMARY KEY); CREATE TABLE t (id int PRIMARY KEY, x text);
         CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (5001);
         CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (5001) TO (100000);
         INSERT INTO t SELECT i, 'some text' FROM generate_series(1, 20000) i; INSERT INTO p SELECT generate_series(1, 10000)",
    );
    let connector = lab.connector();
    let estimate = |name: &'static str| {
        let id = TableId::new("public", name);
        let connector = &connector;
        async move { connector.estimate_rows(&id).await.unwrap().unwrap() }
    };
    assert_eq!(estimate("empty").await, 0);
    assert!((10_000..40_000).contains(&estimate("t").await), "never analysed: the planner's guess");
    lab.sql("ANALYZE t; ANALYZE p");
    assert_eq!(estimate("t").await, 20_000);
    assert_eq!(estimate("p").await, 10_000);
}

#[tokio::test]
async fn an_abandoned_read_leaves_nothing_and_spoils_nothing() {
    let lab = Lab::new(
        "CREATE TABLE t (id int PRIMARY KEY, x text);
         INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 20000) i; ANALYZE t",
    );
    let connector = lab.connector();
    let mut abandoned = 0;
    for wait in (0..40).map(|n| Duration::from_millis(n * 2)) {
        let request = table("t");
        let read = connector.snapshot_chunk(&request, None, 20_000);
        abandoned += u32::from(tokio::time::timeout(wait, read).await.is_err());
    }
    assert!(abandoned > 0);
    assert_eq!(snapshot(&connector, &table("t"), 7_000).await.len(), 20_000);
    drop(connector);
    let sessions = async {
        while lab.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tidemark'") != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), sessions).await.expect("no session is left");
}

#[tokio::test]
async fn a_session_that_the_server_ends_is_replaced() {
    let lab = Lab::new("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let connector = lab.connector();
    for _ in 0..3 {
        assert_eq!(snapshot(&connector, &table("t"), 10).await.len(), 1);
        lab.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tidemark'");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// The server sends a transaction to us before other sessions see it; a synchronous standby that is away makes the moment
/// last. A row that is read again because of it must not be read as it was before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_by_key_sees_what_the_stream_has_told() {
    let lab = Arc::new(Lab::new("CREATE TABLE t (id int PRIMARY KEY, x int); INSERT INTO t VALUES (1, 1)"));
    let connector = Arc::new(lab.connector());
    let mut stream = connector.open_stream(&[table("t")], None).await.unwrap();
    lab.sql("ALTER SYSTEM SET synchronous_standby_names = 'away'");
    lab.sql("SELECT pg_reload_conf()");
    let writer = tokio::task::spawn_blocking({
        let lab = lab.clone();
        move || {
            // The reload reaches sessions a moment later: sooner or later an update has to wait.
            while lab.sql("SHOW synchronous_standby_names") != "away" {}
            lab.sql("UPDATE t SET x = 2")
        }
    });
    let mut told = Vec::new();
    while !told.iter().any(|m| matches!(m, SourceMessage::Commit(_))) {
        stream.next(&mut told).await.unwrap();
    }
    let event = told.iter().find_map(|m| if let SourceMessage::Change(e) = m { Some(e) } else { None }).unwrap();
    let key = RowKey::of(&event.row, &event.schema.key).unwrap();
    assert_eq!(lab.sql("SELECT x FROM t"), "1", "others do not see it yet");
    let mut read = tokio::spawn({
        let connector = connector.clone();
        async move {
            let fetched = connector.fetch_rows(&table("t"), std::slice::from_ref(&key)).await.unwrap();
            let found = connector.find_rows(&table("t"), &["id".into()], &[key], None, 10).await.unwrap();
            (fetched.rows[0].clone().unwrap(), found.rows[0].clone())
        }
    });
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut read).await.is_err(), "it must wait");
    lab.sql("ALTER SYSTEM RESET synchronous_standby_names");
    lab.sql("SELECT pg_reload_conf()");
    writer.await.unwrap();
    let (fetched, found) = read.await.unwrap();
    assert_eq!((fetched.get(1), found.get(1)), (Value::Int(2), Value::Int(2)));
    stream.close().await.unwrap();
}
