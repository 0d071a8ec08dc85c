//! Going on from a position, and noticing when that is not possible (R2, R3).

use crate::lab::{Lab, Proxy, changes, columns, events, position, table};
use std::time::Duration;
use tidemark_contract::{ChangeStream, Connector, ErrorKind, Position, SourceMessage};
use tidemark_postgres::Postgres;
use tidemark_throwaway::PostgresOptions;

const SHOP: &str = "CREATE TABLE t (id int PRIMARY KEY, name text); CREATE TABLE u (id int PRIMARY KEY)";

/// Reads until `enough` says so.
async fn read_until(
    stream: &mut Box<dyn ChangeStream>,
    enough: impl Fn(&[SourceMessage]) -> bool,
) -> Vec<SourceMessage> {
    let mut out = Vec::new();
    while !enough(&out) {
        tokio::time::timeout(Duration::from_secs(30), stream.next(&mut out)).await.expect("messages").unwrap();
    }
    out
}

#[tokio::test]
async fn a_big_transaction_is_resumed_in_its_middle() {
    let lab = Lab::new(SHOP);
    let connector = lab.connector();
    let tables = [table("t")];
    let mut stream = connector.open_stream(&tables, None).await.unwrap();
    // Rows of tables that nobody asked for are counted too.
    lab.sql(
        "CREATE PUBLICATION other FOR ALL TABLES; INSERT INTO t VALUES (0, 'before');
         BEGIN; INSERT INTO t SELECT i, 'x' FROM generate_series(1, 20000) i; UPDATE t SET id = 30000 WHERE id = 1; COMMIT;
         INSERT INTO t VALUES (-1, 'after')",
    );
    let all = lab.drain(&connector, &mut stream).await;
    stream.close().await.unwrap();
    let places: Vec<usize> =
        (0..all.len()).filter(|i| matches!(all[*i], SourceMessage::Resumable(_) | SourceMessage::Commit(_))).collect();
    assert!(places.len() >= 22, "every 1000 rows and at each end: {}", places.len());
    for at in places.iter().step_by(5).chain(places.last()) {
        let from = position(&all[..=*at]);
        let mut stream = connector.open_stream(&tables, Some(&from)).await.unwrap();
        let rest = lab.drain(&connector, &mut stream).await;
        assert!(matches!(&rest[0], SourceMessage::Idle(p) if *p == from), "it begins where it was left");
        assert!(changes(&rest) == changes(&all[at + 1..]), "resumed at {from}");
        // Acknowledging the middle of a transaction keeps the transaction.
        stream.acknowledge(&from).await.unwrap();
        stream.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_breaks_mid_transaction_loses_nothing() {
    let lab = Lab::new(SHOP);
    let proxy = Proxy::start(lab.cluster.port()).await;
    let mut config = lab.config.clone();
    config.port = proxy.port;
    let connector = Postgres::new(config);
    let tables = [table("t")];
    let mut stream = connector.open_stream(&tables, None).await.unwrap();
    lab.sql("INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 20000) i; UPDATE t SET name = 'y' WHERE id <= 10");
    let mut all = read_until(&mut stream, |m| m.iter().any(|m| matches!(m, SourceMessage::Resumable(_)))).await;
    proxy.cut();
    let error = loop {
        if let Err(error) = stream.next(&mut all).await {
            break error;
        }
    };
    assert_eq!(error.kind, ErrorKind::Unreachable);
    drop(stream);
    // What was read behind the last place is read again.
    let from = position(&all);
    let kept = all.iter().rposition(|m| matches!(m, SourceMessage::Resumable(_) | SourceMessage::Commit(_))).unwrap();
    all.truncate(kept + 1);
    assert!(events(&all).len() < 20_000, "the cut came too late to mean anything");
    let mut stream = connector.open_stream(&tables, Some(&from)).await.unwrap();
    all.extend(lab.drain(&connector, &mut stream).await);
    let all = events(&all);
    assert_eq!(all.len(), 20_010);
    let ids: std::collections::HashSet<_> = all[..20_000]
        .iter()
        .map(|e| format!("{:?}", tidemark_contract::RowKey::of(&e.row, &[0]).map(|k| k.as_bytes().to_vec())))
        .collect();
    assert_eq!(ids.len(), 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_restarts_are_survived() {
    let mut lab = Lab::new(SHOP);
    let connector = lab.connector();
    let tables = [table("t")];
    let mut stream = connector.open_stream(&tables, None).await.unwrap();
    lab.sql("INSERT INTO t VALUES (1, 'a')");
    let messages = lab.drain(&connector, &mut stream).await;
    let mut from = position(&messages);
    stream.acknowledge(&from).await.unwrap();
    for (i, crash) in [(2, false), (3, true)] {
        lab.sql(&format!("INSERT INTO t VALUES ({i}, 'b')"));
        if crash {
            lab.cluster.stop_immediate().unwrap();
        } else {
            lab.cluster.stop_fast().unwrap();
        }
        let mut out = Vec::new();
        while stream.next(&mut out).await.is_ok() {}
        assert!(connector.snapshot_chunk(&tables[0], None, 10).await.is_err_and(|e| e.kind == ErrorKind::Unreachable));
        lab.cluster.start_again().unwrap();
        stream = connector.open_stream(&tables, Some(&from)).await.unwrap();
        let messages = lab.drain(&connector, &mut stream).await;
        assert_eq!(changes(&messages), [format!("insert {i}|b")]);
        assert_eq!(connector.snapshot_chunk(&tables[0], None, 10).await.unwrap().rows.len(), i);
        from = position(&messages);
        stream.acknowledge(&from).await.unwrap();
    }
}

#[tokio::test]
async fn slots_changed_behind_our_back_are_noticed() {
    let lab = Lab::new(SHOP);
    let connector = lab.connector();
    let tables = [table("t")];
    let mut stream = connector.open_stream(&tables, None).await.unwrap();
    lab.sql("INSERT INTO t VALUES (1, 'a')");
    let at = position(&lab.drain(&connector, &mut stream).await);
    stream.acknowledge(&at).await.unwrap();
    stream.close().await.unwrap();
    let verdict = |at: Position| {
        let (connector, tables) = (&connector, &tables);
        async move { connector.open_stream(tables, Some(&at)).await.err().map(|e| (e.kind, e.message)) }
    };
    assert_eq!(verdict(at.clone()).await, None);
    lab.slot_is_free().await;

    // Made anew: at a later place, and even right away.
    lab.sql("SELECT pg_drop_replication_slot('tidemark')");
    let (kind, message) = verdict(at.clone()).await.unwrap();
    assert!(kind == ErrorKind::PositionLost && message.contains("does not exist"), "{message}");
    lab.sql("SELECT pg_create_logical_replication_slot('tidemark', 'pgoutput')");
    let (kind, message) = verdict(at.clone()).await.unwrap();
    assert!(kind == ErrorKind::PositionLost && message.contains("made anew"), "{message}");

    // Another plugin, another database, another cluster, another slot name, nonsense.
    lab.sql("SELECT pg_drop_replication_slot('tidemark'); SELECT pg_create_logical_replication_slot('tidemark', 'test_decoding')");
    assert_eq!(verdict(at.clone()).await.unwrap().0, ErrorKind::PositionLost);
    assert_eq!(
        connector.open_stream(&tables, None).await.err().unwrap().kind,
        ErrorKind::SettingWrong,
        "a slot that is not ours is never dropped"
    );
    lab.sql("SELECT pg_drop_replication_slot('tidemark')");
    let mut stream = connector.open_stream(&tables, None).await.unwrap();
    let now = position(&lab.drain(&connector, &mut stream).await);
    stream.close().await.unwrap();
    for (part, replacement) in [(1, "123"), (3, "elsewhere"), (4, "another"), (5, "0/1"), (2, "7")] {
        let mut parts: Vec<&str> = now.log.split(':').collect();
        parts[part] = replacement;
        let foreign = Position { log: parts.join(":").into(), place: now.place.clone() };
        assert_eq!(
            verdict(foreign.clone()).await.map(|v| v.0),
            if part == 5 { None } else { Some(ErrorKind::PositionLost) }
        );
        assert_eq!(connector.covers(&now, &foreign).unwrap_err().kind, ErrorKind::PositionLost);
    }
    let ahead = Position { log: now.log.clone(), place: "FF/0".into() };
    let (kind, message) = verdict(ahead).await.unwrap();
    assert!(kind == ErrorKind::PositionLost && message.contains("ahead"), "{message}");

    // Moved on by hand.
    lab.slot_is_free().await;
    lab.sql("INSERT INTO t VALUES (2, 'b'); SELECT pg_replication_slot_advance('tidemark', pg_current_wal_lsn())");
    assert_eq!(verdict(now).await.unwrap().0, ErrorKind::PositionLost);
}

#[tokio::test]
async fn a_lost_slot_is_told_and_replaced_on_request() {
    let options = PostgresOptions::default()
        .setting("max_slot_wal_keep_size", "1MB")
        .setting("min_wal_size", "32MB")
        .setting("max_wal_size", "32MB");
    let lab = Lab::with(options, SHOP);
    let connector = lab.connector();
    let tables = [table("t")];
    let mut stream = connector.open_stream(&tables, None).await.unwrap();
    let at = position(&lab.drain(&connector, &mut stream).await);
    stream.close().await.unwrap();
    lab.sql("INSERT INTO u SELECT generate_series(1, 1000000); SELECT pg_switch_wal(); CHECKPOINT; INSERT INTO u VALUES (0); SELECT pg_switch_wal(); CHECKPOINT");
    assert_eq!(lab.sql("SELECT wal_status FROM pg_replication_slots"), "lost");
    let error = connector.open_stream(&tables, Some(&at)).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::PositionLost);
    assert!(error.hint.unwrap().contains("max_slot_wal_keep_size"));
    let findings = connector.preflight(&tables).await.unwrap();
    assert!(findings.iter().any(|f| f.id == "source.slot" && f.observed.contains("lost")));
    let mut stream = connector.open_stream(&tables, None).await.unwrap();
    lab.sql("INSERT INTO t VALUES (1, 'a')");
    assert_eq!(changes(&lab.drain(&connector, &mut stream).await), ["insert 1|a"]);
}

#[tokio::test]
async fn a_busy_slot_is_waited_for() {
    let lab = Lab::new(SHOP);
    let connector = lab.connector();
    let tables = [table("t")];
    let mut stream = connector.open_stream(&tables, None).await.unwrap();
    let at = position(&lab.drain(&connector, &mut stream).await);
    let mut config = lab.config.clone();
    config.slot_wait = Duration::from_millis(500);
    let error = Postgres::new(config).open_stream(&tables, Some(&at)).await.err().unwrap();
    let pid = lab.sql("SELECT active_pid FROM pg_replication_slots");
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.message.contains(&pid), "{error}");
    let second = lab.connector();
    let waiting = tokio::spawn(async move { second.open_stream(&[table("t")], Some(&at)).await.map(drop) });
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Dropping is enough to set the slot free.
    drop(stream);
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn tables_join_a_running_publication() {
    let lab = Lab::new(SHOP);
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("t")], None).await.unwrap();
    lab.sql("INSERT INTO t VALUES (1, 'a')");
    let at = position(&lab.drain(&connector, &mut stream).await);
    lab.sql("INSERT INTO t VALUES (2, 'b'); INSERT INTO u VALUES (1)");
    stream.close().await.unwrap();
    let mut stream = connector.open_stream(&[table("t"), table("u")], Some(&at)).await.unwrap();
    lab.sql("INSERT INTO u VALUES (2)");
    // Rows of `u` from before it was published are its snapshot's business.
    assert_eq!(changes(&lab.drain(&connector, &mut stream).await), ["insert 2|b", "insert 2"]);
}

#[tokio::test]
async fn a_table_that_leaves_the_publication_is_a_gap() {
    let lab = Lab::new(SHOP);
    let connector = lab.connector();
    let tables = [table("t"), table("u")];
    let mut stream = connector.open_stream(&tables, None).await.unwrap();
    let at = position(&lab.drain(&connector, &mut stream).await);
    stream.close().await.unwrap();
    lab.sql("ALTER PUBLICATION tidemark DROP TABLE t; INSERT INTO t VALUES (1, 'unseen')");
    let error =
        connector.open_stream(&tables, Some(&at)).await.err().expect("t was published when the position was made");
    assert_eq!(error.kind, ErrorKind::PositionLost);
    assert!(error.message.contains("public.t"), "{error}");
    // Taken out and put back between two looks: another table by number is seen, the same one cannot be.
    let mut stream = connector.open_stream(&tables, None).await.unwrap();
    let at = position(&lab.drain(&connector, &mut stream).await);
    stream.close().await.unwrap();
    lab.sql("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, name text)");
    let error = connector.open_stream(&tables, Some(&at)).await.err().expect("another table of that name");
    assert_eq!(error.kind, ErrorKind::PositionLost);
}

#[tokio::test]
async fn publications_that_leave_something_out_are_refused() {
    let lab = Lab::new(SHOP);
    let connector = lab.connector();
    for (sql, fix) in [
        (
            "CREATE PUBLICATION tidemark FOR TABLE t WITH (publish = 'insert', publish_via_partition_root)",
            "SET (publish =",
        ),
        ("CREATE PUBLICATION tidemark FOR TABLE t", "publish_via_partition_root"),
        ("CREATE PUBLICATION tidemark FOR TABLE t (id) WITH (publish_via_partition_root)", "ADD TABLE"),
        ("CREATE PUBLICATION tidemark FOR TABLE t WHERE (id > 5) WITH (publish_via_partition_root)", "ADD TABLE"),
    ] {
        lab.sql(sql);
        let error = connector.open_stream(&[table("t")], None).await.err().unwrap();
        assert_eq!(error.kind, ErrorKind::SettingWrong);
        let hint = error.hint.unwrap();
        assert!(hint.contains(fix), "{hint}");
        let findings = connector.preflight(&[table("t")]).await.unwrap();
        assert!(findings.iter().any(|f| f.id == "source.publication" && f.fix.as_deref() == Some(&*hint)));
        // The statement given really mends it.
        lab.sql(&hint);
        drop(connector.open_stream(&[table("t")], None).await.unwrap());
        lab.sql("DROP PUBLICATION tidemark");
    }
    // A list of columns that has all we want is fine.
    lab.sql("CREATE PUBLICATION tidemark FOR TABLE t (id) WITH (publish_via_partition_root)");
    let mut stream = connector.open_stream(&[columns("t", &["id"])], None).await.unwrap();
    lab.sql("INSERT INTO t VALUES (1, 'a')");
    assert_eq!(changes(&lab.drain(&connector, &mut stream).await), ["insert 1"]);
}

#[tokio::test]
async fn release_leaves_nothing_of_ours() {
    let lab = Lab::new(SHOP);
    let connector = lab.connector();
    drop(connector.open_stream(&[table("t")], None).await.unwrap());
    assert_eq!(connector.release().await.unwrap(), ["replication slot tidemark", "publication tidemark"]);
    assert_eq!(connector.release().await.unwrap(), [""; 0]);
    lab.sql("CREATE PUBLICATION tidemark FOR TABLE t WITH (publish_via_partition_root)");
    drop(connector.open_stream(&[table("t")], None).await.unwrap());
    assert_eq!(connector.release().await.unwrap(), ["replication slot tidemark"], "not our publication");
    assert_eq!(lab.sql("SELECT count(*) FROM pg_publication"), "1");
}

#[tokio::test]
async fn a_slow_reader_keeps_its_connection() {
    let options = PostgresOptions::default().setting("wal_sender_timeout", "1s");
    let lab = Lab::with(options, SHOP);
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("t")], None).await.unwrap();
    lab.sql("INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i");
    tokio::time::sleep(Duration::from_secs(4)).await;
    let messages = lab.drain(&connector, &mut stream).await;
    assert_eq!(events(&messages).len(), 20_000);
    // And a quiet one as well.
    tokio::time::sleep(Duration::from_secs(4)).await;
    lab.sql("DELETE FROM t WHERE id = 1");
    assert_eq!(changes(&lab.drain(&connector, &mut stream).await), ["delete 1|unchanged"]);
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let options = PostgresOptions::default().setting("wal_sender_timeout", "2s");
    let lab = Lab::with(options, SHOP);
    let proxy = Proxy::start(lab.cluster.port()).await;
    let mut config = lab.config.clone();
    config.port = proxy.port;
    let connector = Postgres::new(config);
    let mut stream = connector.open_stream(&[table("t")], None).await.unwrap();
    lab.drain(&connector, &mut stream).await;
    proxy.freeze();
    let mut out = Vec::new();
    let fails = async { while stream.next(&mut out).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(15), fails).await.expect("a silent server is noticed");
    assert_eq!(stream.next(&mut out).await.unwrap_err().kind, ErrorKind::Unreachable);
}

#[tokio::test]
async fn acknowledgements_are_checked() {
    let lab = Lab::new(SHOP);
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("t")], None).await.unwrap();
    let at = position(&lab.drain(&connector, &mut stream).await);
    let ahead = Position { log: at.log.clone(), place: "FF/0".into() };
    assert_eq!(stream.acknowledge(&ahead).await.unwrap_err().kind, ErrorKind::Bug);
    let foreign = Position { log: "postgres:1:1:shop:tidemark:?:".into(), place: at.place.clone() };
    assert_eq!(stream.acknowledge(&foreign).await.unwrap_err().kind, ErrorKind::PositionLost);
    stream.acknowledge(&at).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_timeline_is_followed_where_it_has_our_past() {
    let mut lab = Lab::new(SHOP);
    let connector = lab.connector();
    let tables = [table("t")];
    let mut stream = connector.open_stream(&tables, None).await.unwrap();
    lab.sql("INSERT INTO t VALUES (1, 'a')");
    let before = position(&lab.drain(&connector, &mut stream).await);
    stream.acknowledge(&before).await.unwrap();
    stream.close().await.unwrap();
    // As a promoted standby that had received everything, slots included.
    lab.sql("INSERT INTO t VALUES (2, 'b'); ALTER SYSTEM SET restore_command = 'false'");
    lab.cluster.stop_fast().unwrap();
    std::fs::write(lab.cluster.data_dir().join("recovery.signal"), "").unwrap();
    lab.cluster.start_again().unwrap();
    while lab.sql("SELECT pg_is_in_recovery()") == "t" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(lab.sql("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"), "00000002");
    let mut stream = connector.open_stream(&tables, Some(&before)).await.unwrap();
    let messages = lab.drain(&connector, &mut stream).await;
    assert_eq!(changes(&messages), ["insert 2|b"]);
    let after = position(&messages);
    assert_ne!(after.log, before.log);
    assert!(connector.covers(&after, &before).unwrap());
    let barrier = connector.snapshot_chunk(&tables[0], None, 10).await.unwrap().barrier;
    assert!(!connector.covers(&before, &barrier).unwrap());
    stream.close().await.unwrap();
    // A place that the old timeline reached only after they parted.
    let parted = Position { log: before.log.clone(), place: after.place.clone() };
    let error = connector.open_stream(&tables, Some(&parted)).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::PositionLost);
    assert!(error.message.contains("timeline 1"), "{error}");
}

/// The error that ends the stream after `sql`.
async fn ends_with(sql: &str) -> (ErrorKind, String) {
    let mut lab = Lab::new(SHOP);
    lab.config.publication_check = Duration::from_millis(300);
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("t"), table("u")], None).await.unwrap();
    lab.drain(&connector, &mut stream).await;
    lab.sql(sql);
    let mut out = Vec::new();
    let wait = async {
        loop {
            if let Err(error) = stream.next(&mut out).await {
                return (error.kind, error.message);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the gap is noticed")
}

#[tokio::test]
async fn tables_that_are_replaced_while_streaming_are_gaps() {
    for (sql, words) in [
        ("ALTER PUBLICATION tidemark DROP TABLE t", "no longer publishes public.t"),
        // Up to version 17 the server ends the stream by itself; 18 goes on in silence.
        ("DROP PUBLICATION tidemark; INSERT INTO t VALUES (1)", "publication"),
        ("DROP TABLE t", "no longer publishes public.t"),
        ("ALTER TABLE t RENAME TO elsewhere; INSERT INTO elsewhere VALUES (1)", "no longer publishes public.t"),
        (
            "BEGIN; ALTER TABLE t RENAME TO old; CREATE TABLE t (id int PRIMARY KEY, name text);
             ALTER PUBLICATION tidemark ADD TABLE t; INSERT INTO t VALUES (1); COMMIT",
            "public.t is another table now",
        ),
    ] {
        let (kind, message) = ends_with(sql).await;
        assert!(kind == ErrorKind::PositionLost && message.contains(words), "{sql}: {message}");
    }
}

#[tokio::test]
async fn a_partition_beside_its_root_is_refused() {
    let lab = Lab::new(
        "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100)",
    );
    let connector = lab.connector();
    drop(connector.open_stream(&[table("p")], None).await.unwrap());
    lab.slot_is_free().await;
    let error = connector.open_stream(&[table("p"), table("p1")], None).await.err().unwrap();
    assert!(error.kind == ErrorKind::SettingWrong && error.message.contains("partition"), "{error}");
    let findings = connector.preflight(&[table("p"), table("p1")]).await.unwrap();
    assert!(findings.iter().any(|f| f.id == "source.partition"));
    // A partition alone is a table like any other.
    lab.sql("DROP PUBLICATION tidemark");
    let mut stream = connector.open_stream(&[table("p1")], None).await.unwrap();
    lab.sql("INSERT INTO p VALUES (1)");
    assert_eq!(changes(&lab.drain(&connector, &mut stream).await), ["insert 1"]);
}
