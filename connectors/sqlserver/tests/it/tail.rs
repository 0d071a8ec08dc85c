//! The tail: order, pairs, what is left out, resuming, and what makes a position lost.

use super::lab::{Lab, Reader, cell, line, request};
use std::time::Duration;
use tidemark_contract::{ChangeOp, Connector, ErrorKind, Position, SourceMessage};
use tidemark_sqlserver::{SqlServer, SqlServerConfig};

fn shop() -> Lab {
    let lab = Lab::new();
    lab.sql("CREATE TABLE a (id int NOT NULL PRIMARY KEY, t nvarchar(20)); CREATE TABLE b (id int NOT NULL PRIMARY KEY, t nvarchar(20))");
    lab.capture("a");
    lab.capture("b");
    lab
}

async fn refusal(lab: &Lab, tables: &[&str], from: &Position) -> tidemark_contract::SourceError {
    let requests: Vec<_> = tables.iter().map(|t| request(t)).collect();
    match lab.connector().open_stream(&requests, Some(from)).await {
        Ok(_) => panic!("the position is accepted"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_transactions_in_commit_order() {
    let lab = shop();
    let connector = lab.connector();
    let mut reader = Reader::open(&connector, &["a", "b"], None).await;
    lab.sql(
        "BEGIN TRAN; INSERT a VALUES (1, N'x'); INSERT b VALUES (1, N'y'); UPDATE a SET t = N'z' WHERE id = 1; COMMIT",
    );
    lab.sql("BEGIN TRAN; INSERT a VALUES (9, N'never'); ROLLBACK");
    lab.sql("UPDATE a SET id = 2 WHERE id = 1");
    lab.sql("DELETE b");
    let all = reader.settle(&lab).await;
    let mut lines = Vec::new();
    for message in &all {
        lines.push(match message {
            SourceMessage::Change(c) => format!("{} {}", c.schema.table.name, line(c)),
            SourceMessage::Commit(_) => "commit".into(),
            SourceMessage::Schema(s) => format!("schema {}", s.table.name),
            SourceMessage::Idle(_) | SourceMessage::Resumable(_) | SourceMessage::Rewritten(_) => continue,
        });
    }
    let wanted = [
        "schema a",
        "a insert 1 x",
        "schema b",
        "b insert 1 y",
        "a update 1 z",
        "commit",
        "a delete 1 z",
        "a insert 2 z",
        "commit",
        "b delete 1 y",
        "commit",
    ];
    assert_eq!(lines, wanted);
    let old = all.iter().find_map(|m| if let SourceMessage::Change(c) = m { c.old.as_ref() } else { None });
    assert_eq!(old.map(|row| super::lab::show(row.get(1))).as_deref(), Some("x"));
    let times = all.iter().filter_map(|m| if let SourceMessage::Change(c) = m { Some(c.committed_at) } else { None });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros() as i64;
    assert!(times.into_iter().all(|t| (now - t).abs() < 60_000_000));
}

/// Reading on from each commit gives exactly what came behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_from_every_commit() {
    let lab = shop();
    let connector = lab.connector();
    let mut reader = Reader::open(&connector, &["a", "b"], None).await;
    let begin = reader.at.clone();
    for n in 0..6 {
        lab.sql(&format!("BEGIN TRAN; INSERT a VALUES ({n}, N'a'); INSERT b VALUES ({n}, N'b'); COMMIT"));
    }
    let all = reader.settle(&lab).await;
    reader.stream.close().await.unwrap();
    let mut points = vec![(begin, 0)];
    let mut count = 0;
    for message in &all {
        match message {
            SourceMessage::Change(_) => count += 1,
            SourceMessage::Commit(p) => points.push((p.clone(), count)),
            _ => {}
        }
    }
    assert_eq!((count, points.len()), (12, 7));
    for (position, before) in points {
        let mut again = Reader::open(&connector, &["a", "b"], Some(&position)).await;
        assert_eq!(again.changes(&lab).await.len(), 12 - before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_leaves_out_is_unchanged_and_never_null() {
    let lab = Lab::new();
    lab.sql("CREATE TABLE w (id int NOT NULL PRIMARY KEY, n int, big nvarchar(max), old text, twice AS (n * 2), empty nvarchar(max))");
    lab.capture("w");
    let connector = lab.connector();
    let mut reader = Reader::open(&connector, &["w"], None).await;
    lab.sql("INSERT w (id, n, big, old) VALUES (1, 1, REPLICATE(CAST(N'x' AS nvarchar(max)), 20000), 'old')");
    lab.sql("UPDATE w SET n = 2; UPDATE w SET big = NULL; DELETE w");
    let changes = reader.changes(&lab).await;
    let at = |n: usize, column: &str| cell(&changes[n].schema, &changes[n].row, column);
    assert_eq!(
        (changes.len(), at(0, "big").len(), at(0, "old"), at(0, "twice")),
        (4, 20_000, "old".into(), "unchanged".into())
    );
    assert_eq!((at(0, "empty"), at(1, "n"), at(1, "empty")), ("null".into(), "2".into(), "unchanged".into()));
    assert_eq!((at(2, "big"), changes[3].op), ("null".into(), ChangeOp::Delete));
    assert_eq!(at(3, "old"), "unchanged");
    let schema = &changes[0].schema;
    let loose: Vec<&str> = schema.columns.iter().filter(|c| c.may_be_unchanged).map(|c| &*c.name).collect();
    assert_eq!((loose, schema.full_before_image), (vec!["big", "old", "twice", "empty"], false));
}

/// The barrier of a page is reached without any change to a captured table, and not while the log reader stands still.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_database_reaches_the_barrier_and_a_stopped_log_reader_does_not() {
    let lab = shop();
    let connector = lab.connector();
    let mut reader = Reader::open(&connector, &["a", "b"], None).await;
    lab.sql("CREATE TABLE other (id int NOT NULL PRIMARY KEY); INSERT other VALUES (1), (2)");
    let chunk = connector.snapshot_chunk(&request("a"), None, 10).await.unwrap();
    reader.settle(&lab).await;
    assert!(connector.covers(&reader.at, &chunk.barrier).unwrap());
    lab.sim.stop_capture("vendor").unwrap();
    lab.sql("INSERT a VALUES (1, N'late')");
    let chunk = connector.snapshot_chunk(&request("a"), None, 10).await.unwrap();
    assert_eq!(chunk.rows.len(), 1);
    assert!(!connector.covers(&reader.at, &chunk.barrier).unwrap());
    reader.stream.request_position().await.unwrap();
    let mut out = Vec::new();
    let silent = tokio::time::timeout(Duration::from_millis(700), reader.stream.next(&mut out)).await;
    assert!(silent.is_err(), "{out:?}");
    lab.sim.start_capture("vendor").unwrap();
    let changes = reader.changes(&lab).await;
    assert_eq!(changes.len(), 1);
    assert!(connector.covers(&reader.at, &chunk.barrier).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_table_does_not_outlive_retention_and_a_stopped_reader_does() {
    let lab = shop();
    let connector = lab.connector();
    let mut reader = Reader::open(&connector, &["a", "b"], None).await;
    let early = reader.at.clone();
    for n in 0..3 {
        lab.sql(&format!("INSERT a VALUES ({n}, N'x')"));
    }
    assert_eq!(reader.changes(&lab).await.len(), 3);
    lab.captured();
    lab.sim.run_cleanup("vendor", Duration::ZERO).unwrap();
    // b never moved, and its low end did: the stream knows how far the log was read.
    lab.sql("INSERT b VALUES (1, N'y')");
    assert_eq!(reader.changes(&lab).await.len(), 1);
    let error = refusal(&lab, &["a", "b"], &early).await;
    assert_eq!(error.kind, ErrorKind::PositionLost, "{error}");
    assert!(Reader::open(&connector, &["a", "b"], Some(&reader.at)).await.changes(&lab).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_instance_made_again_is_another_log() {
    let lab = shop();
    let connector = lab.connector();
    let mut reader = Reader::open(&connector, &["a"], None).await;
    lab.sql("INSERT a VALUES (1, N'x')");
    reader.settle(&lab).await;
    let at = reader.at.clone();
    lab.sql("EXEC sys.sp_cdc_disable_table N'dbo', N'a', @capture_instance = N'all'");
    let gone = refusal(&lab, &["a"], &at).await;
    assert_eq!(gone.kind, ErrorKind::PositionLost, "{gone}");
    lab.sql("INSERT a VALUES (2, N'missed')");
    lab.capture("a");
    let again = refusal(&lab, &["a"], &at).await;
    assert_eq!(again.kind, ErrorKind::PositionLost, "{again}");
    let mut out = Vec::new();
    let told = loop {
        match reader.stream.next(&mut out).await {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(told.kind, ErrorKind::PositionLost, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_is_another_log() {
    let lab = shop();
    let connector = lab.connector();
    let backup = lab.sim.backup("vendor").unwrap();
    let mut reader = Reader::open(&connector, &["a"], None).await;
    lab.sql("INSERT a VALUES (1, N'x')");
    reader.settle(&lab).await;
    lab.sim.restore(&backup).unwrap();
    let error = refusal(&lab, &["a"], &reader.at).await;
    assert_eq!(error.kind, ErrorKind::PositionLost, "{error}");
    let mut out = Vec::new();
    while reader.stream.next(&mut out).await.is_ok() {}
    let barrier = connector.snapshot_chunk(&request("a"), None, 1).await.unwrap().barrier;
    assert_eq!(connector.covers(&reader.at, &barrier).unwrap_err().kind, ErrorKind::PositionLost);
}

/// A table that is added to the tenant later begins with its own instance, and loses nothing of the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_be_added() {
    let lab = shop();
    let connector = lab.connector();
    let mut reader = Reader::open(&connector, &["a"], None).await;
    lab.sql("INSERT a VALUES (1, N'x')");
    reader.settle(&lab).await;
    let at = reader.at.clone();
    lab.sql("INSERT a VALUES (2, N'x'); CREATE TABLE c (id int NOT NULL PRIMARY KEY)");
    lab.capture("c");
    lab.sql("INSERT c VALUES (1)");
    let mut both = Reader::open(&connector, &["a", "c"], Some(&at)).await;
    let lines: Vec<String> = both.changes(&lab).await.iter().map(line).collect();
    assert_eq!(lines, ["insert 2 x", "insert 1"]);
}

/// The second instance takes over exactly where it begins.
#[tokio::test(flavor = "multi_thread")]
async fn a_younger_instance_takes_over() {
    let lab = shop();
    let connector = lab.connector();
    let mut reader = Reader::open(&connector, &["a"], None).await;
    lab.sql("INSERT a VALUES (1, N'x')");
    lab.sql("ALTER TABLE a ADD extra int NULL");
    lab.sql("INSERT a VALUES (2, N'x', 5)");
    lab.sql("EXEC sys.sp_cdc_enable_table N'dbo', N'a', @capture_instance = N'second', @role_name = NULL");
    lab.captured();
    lab.sql("INSERT a VALUES (3, N'x', 6)");
    let changes = reader.changes(&lab).await;
    let lines: Vec<String> = changes.iter().map(line).collect();
    let ids: Vec<String> = changes.iter().map(|c| cell(&c.schema, &c.row, "id")).collect();
    assert_eq!(ids, ["1", "2", "3"], "{lines:?}");
    assert_eq!(lines[2], "insert 3 x 6");
    // Before it, the new column is not known.
    assert!(changes[1].schema.position("extra").is_none_or(|at| changes[1].row.get(at).is_unchanged()));
    let at = reader.at.clone();
    lab.sql("EXEC sys.sp_cdc_disable_table N'dbo', N'a', @capture_instance = N'dbo_a'; INSERT a VALUES (4, N'x', 7)");
    let mut again = Reader::open(&connector, &["a"], Some(&at)).await;
    let lines: Vec<String> = again.changes(&lab).await.iter().map(line).collect();
    assert_eq!(lines, ["insert 4 x 7"]);
}

/// An instance that begins, and a change that it alone holds, both between two looks: the old instance is not read past the
/// beginning of the new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_younger_instance_is_noticed_before_anything_is_read_past_its_beginning() {
    let lab = shop();
    let slow = SqlServerConfig { poll_interval: Duration::from_secs(1), ..lab.config() };
    let connector = SqlServer::new(slow);
    lab.sql("INSERT a VALUES (1, N'x'); ALTER TABLE a ADD extra int NULL");
    lab.captured();
    let mut reader = Reader::open(&connector, &["a"], None).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    lab.sql("EXEC sys.sp_cdc_enable_table N'dbo', N'a', @capture_instance = N'second', @role_name = NULL");
    lab.sql("UPDATE a SET extra = 7");
    lab.captured();
    let lines: Vec<String> = reader.changes(&lab).await.iter().map(line).collect();
    assert_eq!(lines, ["update 1 x 7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_comes_in_parts_with_one_commit() {
    let lab = shop();
    let connector = lab.connector();
    let mut reader = Reader::open(&connector, &["a", "b"], None).await;
    lab.sql(
        "DECLARE @i int = 0; BEGIN TRAN; WHILE @i < 3000 BEGIN INSERT a VALUES (@i, REPLICATE(N'x', 20)); \
         INSERT b VALUES (@i, N'y'); SET @i += 1 END COMMIT",
    );
    let all = reader.settle(&lab).await;
    let commits = all.iter().filter(|m| matches!(m, SourceMessage::Commit(_))).count();
    let changes = all.iter().filter(|m| matches!(m, SourceMessage::Change(_))).count();
    assert_eq!((commits, changes), (1, 6000));
}

/// The clean-up empties an idle database: no maximum LSN, no rows to compare with. That is nothing new, not another log.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_mapping_is_an_idle_database() {
    let lab = shop();
    let connector = lab.connector();
    let mut reader = Reader::open(&connector, &["a", "b"], None).await;
    lab.sql("INSERT a VALUES (1, N'x')");
    assert_eq!(reader.changes(&lab).await.len(), 1);
    let at = reader.at.clone();
    lab.sim.run_cleanup("vendor", Duration::ZERO).unwrap();
    lab.sql("DELETE cdc.lsn_time_mapping");
    assert_eq!(lab.sql("SELECT sys.fn_cdc_get_max_lsn()")[0][0], None);
    // The open stream, and a new one.
    assert!(reader.changes(&lab).await.is_empty());
    let mut again = Reader::open(&connector, &["a", "b"], Some(&at)).await;
    assert!(again.changes(&lab).await.is_empty());
    lab.sql("INSERT b VALUES (2, N'y')");
    for reader in [&mut reader, &mut again] {
        let lines: Vec<String> = reader.changes(&lab).await.iter().map(line).collect();
        assert_eq!(lines, ["insert 2 y"]);
    }
}
