//! Going on from stored positions.

use super::lab::{BARRIER, Lab, events, last_position, positions, table, words};
use tidemark_contract::{Connector, ErrorKind};
use tidemark_throwaway::{MysqlFlavour, MysqlOptions};

const GOODS: &str =
    "CREATE TABLE goods (id INT PRIMARY KEY, name VARCHAR(400)); CREATE TABLE other (id INT PRIMARY KEY);";

fn numbers(from: u32, to: u32) -> String {
    let rows: Vec<String> = (from..to).map(|n| format!("({n}, REPEAT('x', 300))")).collect();
    format!("INSERT INTO goods VALUES {};", rows.join(", "))
}

/// Every place that a stream gave leads to exactly the rest of what it said, inside of events and transactions too.
async fn every_place_leads_on(flavour: MysqlFlavour) {
    for gtid in [true, false] {
        if !gtid && flavour == MysqlFlavour::MariaDb {
            continue;
        }
        let mut options = MysqlOptions::new(flavour);
        options.gtid = gtid;
        let lab = Lab::with(options, &format!("{BARRIER}{GOODS}"));
        let connector = lab.connector();
        let mut stream = connector.open_stream(&[table("goods")], None).await.unwrap();
        let first = last_position(&lab.drain(&connector, &mut stream).await);
        lab.sql(&format!(
            "INSERT INTO goods VALUES (1, 'a'); BEGIN; INSERT INTO other VALUES (1), (2); {} DELETE FROM goods WHERE id < 60;
             INSERT INTO other VALUES (3); COMMIT; FLUSH BINARY LOGS; INSERT INTO goods VALUES (9999, 'z')",
            numbers(10, 4500)
        ));
        let whole = lab.drain(&connector, &mut stream).await;
        stream.close().await.unwrap();
        let all = words(&whole);
        assert_eq!(all.len(), 1 + 4490 + 51 + 1);
        let mut places = positions(&whole);
        assert!(places.len() > 6, "{} places", places.len());
        places.push((0, first));
        for (delivered, place) in places {
            let mut stream = connector.open_stream(&[table("goods")], Some(&place)).await.unwrap();
            let rest = lab.drain(&connector, &mut stream).await;
            stream.close().await.unwrap();
            assert_eq!(words(&rest), all[delivered..], "{place}");
        }
    }
}

/// Logs that are not the one of the position.
async fn another_log_is_a_lost_position(flavour: MysqlFlavour) {
    let lab = Lab::new(flavour, &format!("{BARRIER}{GOODS}"));
    let tables = [table("goods")];
    let told = lab
        .told(&tables, "INSERT INTO goods VALUES (1, 'a'); FLUSH BINARY LOGS; INSERT INTO goods VALUES (2, 'b')")
        .await;
    let places = positions(&told);
    let (_, early) = places.iter().find(|(changes, _)| *changes == 1).unwrap();
    let late = last_position(&told);
    let open = async |place| match lab.connector().open_stream(&tables, Some(place)).await {
        Ok(mut stream) => {
            let mut out = Vec::new();
            loop {
                match tokio::time::timeout(std::time::Duration::from_secs(3), stream.next(&mut out)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return Err(error),
                    Err(_) => return Ok(events(&out).len()),
                }
            }
        }
        Err(error) => Err(error),
    };
    let lost = |result: Result<usize, tidemark_contract::SourceError>, what: &str| {
        let error = result.expect_err(what);
        assert_eq!(error.kind, ErrorKind::PositionLost, "{what}: {error}");
        println!("{what}: {error} ({:?})", error.hint);
    };
    assert_eq!(open(early).await.unwrap(), 1);
    assert_eq!(open(&late).await.unwrap(), 0);
    // Purged.
    lab.sql("FLUSH BINARY LOGS; INSERT INTO goods VALUES (3, 'c'); FLUSH BINARY LOGS");
    let newest = lab.sql("SHOW BINARY LOGS").lines().last().unwrap().split('\t').next().unwrap().to_owned();
    // Files that a dying reader still has open are not purged.
    while lab.sql("SHOW BINARY LOGS").lines().count() > 1 {
        lab.sql(&format!("PURGE BINARY LOGS TO '{newest}'"));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    lost(open(&late).await, "purged");
    // Foreign.
    let foreign = Lab::new(flavour, &format!("{BARRIER}{GOODS}"));
    let there = foreign.told(&tables, &numbers(1, 5)).await;
    let theirs = last_position(&there);
    lost(open(&theirs).await, "foreign");
    // Reset, and grown again beyond the place.
    let told = lab.told(&tables, "INSERT INTO goods VALUES (4, 'd')").await;
    let place = last_position(&told);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    lab.sql(if flavour == MysqlFlavour::MariaDb { "RESET MASTER" } else { "RESET BINARY LOGS AND GTIDS" });
    lost(open(&place).await, "reset");
    for n in 0..40 {
        lab.sql(&format!("INSERT INTO goods VALUES ({}, 'e'); FLUSH BINARY LOGS", 100 + n));
    }
    lost(open(&place).await, "reset and grown");
}

/// A replica takes over; by GTIDs nothing is missing.
async fn a_replica_takes_over(flavour: MysqlFlavour) {
    let primary = Lab::new(flavour, &format!("{BARRIER}{GOODS}"));
    let mut options = MysqlOptions::new(flavour).setting("log-replica-updates", "ON");
    if flavour == MysqlFlavour::MariaDb {
        options = MysqlOptions::new(flavour).setting("log-slave-updates", "ON");
    }
    options.server_id = 2;
    let replica = tidemark_throwaway::MysqlCluster::start(options).unwrap();
    replica.replicate_from(&primary.cluster).unwrap();
    let tables = [table("goods")];
    let told = primary.told(&tables, "INSERT INTO goods VALUES (1, 'a'); INSERT INTO goods VALUES (2, 'b')").await;
    let (_, place) = positions(&told).into_iter().find(|(changes, _)| *changes == 1).unwrap();
    primary.sql("INSERT INTO goods VALUES (3, 'c')");
    let prepared =
        primary.told(&tables, "XA START 'x'; INSERT INTO goods VALUES (10, 'x'); XA END 'x'; XA PREPARE 'x'").await;
    assert!(words(&prepared).is_empty());
    replica.wait_for(&primary.cluster).unwrap();
    replica.promote().unwrap();
    let config = super::lab::config(&replica);
    let new = Lab { cluster: replica, config };
    new.sql("INSERT INTO goods VALUES (4, 'd')");
    let connector = new.connector();
    let mut stream = connector.open_stream(&tables, Some(&place)).await.unwrap();
    let rest = new.drain(&connector, &mut stream).await;
    stream.close().await.unwrap();
    assert_eq!(words(&rest), ["insert goods 2 b", "insert goods 3 c", "insert goods 4 d"]);
    // And from a place on the new server, as ever.
    let (_, place) = positions(&rest).into_iter().find(|(changes, _)| *changes == 2).unwrap();
    let mut stream = connector.open_stream(&tables, Some(&place)).await.unwrap();
    assert_eq!(words(&new.drain(&connector, &mut stream).await), ["insert goods 4 d"]);
    stream.close().await.unwrap();
    // What was prepared there is committed here.
    new.sql("XA COMMIT 'x'");
    let mut stream = connector.open_stream(&tables, Some(&last_position(&prepared))).await.unwrap();
    assert_eq!(words(&new.drain(&connector, &mut stream).await), ["insert goods 4 d", "insert goods 10 x"]);
}

/// GTIDs with tags (MySQL 8.3): read from the log, stored, and asked for again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tagged_transactions_are_gone_on_from() {
    let lab = Lab::new(MysqlFlavour::MySql, &format!("{BARRIER}{GOODS}"));
    let tables = [table("goods")];
    let told = lab
        .told(
            &tables,
            "SET SESSION gtid_next = 'AUTOMATIC:billing'; INSERT INTO goods VALUES (1, 'a'); INSERT INTO goods VALUES (2, 'b');
             SET SESSION gtid_next = 'AUTOMATIC'; INSERT INTO goods VALUES (3, 'c')",
        )
        .await;
    assert_eq!(words(&told).len(), 3);
    let places = positions(&told);
    assert!(last_position(&told).place.contains(":billing:1-2"), "{}", last_position(&told));
    let connector = lab.connector();
    for (delivered, place) in places {
        let mut stream = connector.open_stream(&tables, Some(&place)).await.unwrap();
        assert_eq!(words(&lab.drain(&connector, &mut stream).await), words(&told)[delivered..], "{place}");
        stream.close().await.unwrap();
    }
}

on_both! {
    every_place_leads_on,
    another_log_is_a_lost_position,
    a_replica_takes_over,
}
