//! What the tail says, and that a snapshot says the same.

use super::lab::{BARRIER, Lab, events, key, last_position, positions, shown, table, words};
use tidemark_contract::{Connector, Severity, SourceMessage};
use tidemark_throwaway::{MysqlFlavour, MysqlOptions};

const GOODS: &str = "CREATE TABLE goods (id INT PRIMARY KEY, name VARCHAR(40), price DECIMAL(10,2));
    CREATE TABLE other (id INT PRIMARY KEY);";

async fn changes_come_in_order(flavour: MysqlFlavour) {
    let lab = Lab::new(flavour, &format!("{BARRIER}{GOODS}"));
    let messages = lab
        .told(
            &[table("goods")],
            "INSERT INTO goods VALUES (1, 'one', 1.50), (2, 'two', NULL); INSERT INTO other VALUES (1);
             UPDATE goods SET name = 'zwei' WHERE id = 2; UPDATE goods SET id = 3 WHERE id = 1;
             BEGIN; DELETE FROM goods WHERE id = 2; INSERT INTO goods VALUES (4, 'x', 0); ROLLBACK;
             BEGIN; SAVEPOINT s; INSERT INTO goods VALUES (5, 'x', 0); ROLLBACK TO s; DELETE FROM goods WHERE id = 2; COMMIT;
             TRUNCATE TABLE goods",
        )
        .await;
    let wanted = [
        "insert goods 1 one 1.50",
        "insert goods 2 two null",
        "update goods 2 zwei null",
        "delete goods 1 one 1.50",
        "insert goods 3 one 1.50",
        "delete goods 2 zwei null",
        "truncate goods ",
    ];
    assert_eq!(words(&messages), wanted);
    assert!(matches!(messages[0], SourceMessage::Idle(_)));
    let schemas = messages.iter().filter(|m| matches!(m, SourceMessage::Schema(_))).count();
    assert_eq!(schemas, 1);
    let commits = messages.iter().filter(|m| matches!(m, SourceMessage::Commit(_))).count();
    assert_eq!(commits, 5);
}

async fn rows_by_page_key_and_value_are_the_same(flavour: MysqlFlavour) {
    let lab = Lab::new(flavour, &format!("{BARRIER}{GOODS}"));
    lab.sql("INSERT INTO goods VALUES (1, 'a', 1), (2, 'b', 2), (3, 'a', 3), (4, NULL, NULL), (5, 'e', 5)");
    let all: Vec<String> = lab.snapshot(&table("goods"), 100).await.iter().map(shown).collect();
    assert_eq!(all, ["1 a 1.00", "2 b 2.00", "3 a 3.00", "4 null null", "5 e 5.00"]);
    let rows = lab.snapshot(&table("goods"), 2).await;
    assert_eq!(rows.iter().map(shown).collect::<Vec<_>>(), all);
    let connector = lab.connector();
    let keys = [key(&rows[4], &[0]), key(&rows[0], &[0]), key(&rows[4], &[0])];
    let fetched = connector.fetch_rows(&table("goods"), &keys).await.unwrap();
    let got: Vec<_> = fetched.rows.iter().map(|r| r.as_ref().map(shown)).collect();
    assert_eq!(got, [Some(all[4].clone()), Some(all[0].clone()), Some(all[4].clone())]);
    let by_name = [key(&rows[0], &[1]), key(&rows[3], &[1])];
    let found = connector.find_rows(&table("goods"), &["name".into()], &by_name, None, 1).await.unwrap();
    assert_eq!(found.rows.iter().map(shown).collect::<Vec<_>>(), [all[0].clone()]);
    let rest = connector.find_rows(&table("goods"), &["name".into()], &by_name, found.next.as_ref(), 5).await.unwrap();
    assert_eq!(rest.rows.iter().map(shown).collect::<Vec<_>>(), [all[2].clone()]);
    assert!(rest.next.is_none());
}

async fn only_the_wanted_columns_come(flavour: MysqlFlavour) {
    let lab = Lab::new(flavour, &format!("{BARRIER}{GOODS}"));
    let mut request = table("goods");
    request.columns = Some(vec!["Price".into(), "nothing".into()]);
    let messages = lab.told(&[request.clone()], "INSERT INTO goods VALUES (1, 'one', 1.50)").await;
    assert_eq!(words(&messages), ["insert goods 1 1.50"]);
    assert_eq!(lab.snapshot(&request, 9).await.iter().map(shown).collect::<Vec<_>>(), ["1 1.50"]);
}

async fn without_global_ids(flavour: MysqlFlavour) {
    let mut options = MysqlOptions::new(flavour);
    options.gtid = false;
    let lab = Lab::with(options, &format!("{BARRIER}{GOODS}"));
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("goods")], None).await.unwrap();
    lab.sql("INSERT INTO goods VALUES (1, 'one', 1.50)");
    let told = events(&lab.drain(&connector, &mut stream).await);
    assert_eq!(shown(&told[0].row), "1 one 1.50");
    // Read while the stream is open, and because of what it said.
    let fetched = connector.fetch_rows(&table("goods"), &[key(&told[0].row, &[0])]).await.unwrap();
    assert_eq!(fetched.rows[0].as_ref().map(shown).as_deref(), Some("1 one 1.50"));
    lab.sql("DELETE FROM goods");
    assert_eq!(words(&lab.drain(&connector, &mut stream).await), ["delete goods 1 one 1.50"]);
}

/// Rows of an XA transaction come where it commits, in one phase or in two, and not at all if it is rolled back. Every place,
/// also those between PREPARE and COMMIT, leads on to exactly the rest.
async fn xa_transactions(flavour: MysqlFlavour) {
    for gtid in [true, false] {
        if !gtid && flavour == MysqlFlavour::MariaDb {
            continue;
        }
        let mut options = MysqlOptions::new(flavour);
        options.gtid = gtid;
        let lab = Lab::with(options, &format!("{BARRIER}{GOODS}"));
        let connector = lab.connector();
        let tables = [table("goods")];
        let mut stream = connector.open_stream(&tables, None).await.unwrap();
        let mut whole = Vec::new();
        for sql in [
            "XA START 'a'; INSERT INTO goods VALUES (1, 'one', 1); XA END 'a'; XA COMMIT 'a' ONE PHASE;
             XA START 'o'; INSERT INTO other VALUES (1); XA END 'o'; XA PREPARE 'o'; XA COMMIT 'o'",
            "XA START 'b', 'x', 7; INSERT INTO goods VALUES (2, 'two', 2), (3, 'three', 3); UPDATE goods SET id = 4 WHERE id = 3;
             XA END 'b', 'x', 7; XA PREPARE 'b', 'x', 7",
            "INSERT INTO goods VALUES (5, 'five', 5); FLUSH BINARY LOGS;
             XA START 'c'; INSERT INTO goods VALUES (6, 'six', 6); XA END 'c'; XA PREPARE 'c'",
            "INSERT INTO goods VALUES (7, '7', 7)",
            "XA START 'r'; DELETE FROM goods WHERE id = 5; XA END 'r'; XA PREPARE 'r'; XA ROLLBACK 'r'; XA COMMIT 'b', 'x', 7",
            "INSERT INTO goods VALUES (8, 'eight', 8); XA COMMIT 'c'",
            "UPDATE goods SET name = 'zwei' WHERE id = 2",
        ] {
            lab.sql(sql);
            whole.extend(lab.drain(&connector, &mut stream).await);
        }
        stream.close().await.unwrap();
        let wanted = [
            "insert goods 1 one 1.00",
            "insert goods 5 five 5.00",
            "insert goods 7 7 7.00",
            "insert goods 2 two 2.00",
            "insert goods 3 three 3.00",
            "delete goods 3 three 3.00",
            "insert goods 4 three 3.00",
            "insert goods 8 eight 8.00",
            "insert goods 6 six 6.00",
            "update goods 2 zwei 2.00",
        ];
        assert_eq!(words(&whole), wanted);
        let mut places = positions(&whole);
        places.dedup();
        assert!(places.iter().filter(|(_, place)| place.place.matches('|').count() > 2).count() >= 3);
        for (delivered, place) in places {
            let mut stream = connector.open_stream(&tables, Some(&place)).await.unwrap();
            let rest = lab.drain(&connector, &mut stream).await;
            stream.close().await.unwrap();
            assert_eq!(words(&rest), wanted[delivered..], "{place}");
        }
    }
}

async fn failure(stream: &mut Box<dyn tidemark_contract::ChangeStream>) -> tidemark_contract::ErrorKind {
    let mut out = Vec::new();
    loop {
        match tokio::time::timeout(std::time::Duration::from_secs(20), stream.next(&mut out)).await.unwrap() {
            Ok(()) => assert!(words(&out).is_empty()),
            Err(error) => break error.kind,
        }
    }
}

/// Prepared before the stream began, or when nobody asked for its table: its rows are not known, and that is said.
async fn xa_transactions_from_before(flavour: MysqlFlavour) {
    use tidemark_contract::ErrorKind::PositionLost;
    let lab = Lab::new(flavour, &format!("{BARRIER}{GOODS}"));
    let prepare = |name: &str, table: &str, id: u32| {
        let values = if table == "goods" { format!("({id}, 'x', 1)") } else { format!("({id})") };
        lab.sql(&format!(
            "XA START '{name}'; INSERT INTO {table} VALUES {values}; XA END '{name}'; XA PREPARE '{name}'"
        ));
    };
    for may_ask in [false, true] {
        if !may_ask && flavour == MysqlFlavour::MariaDb {
            continue;
        }
        if flavour == MysqlFlavour::MySql && may_ask {
            lab.cluster.sql("GRANT XA_RECOVER_ADMIN ON *.* TO tidemark@'%'").unwrap();
        }
        let id = if may_ask { 10 } else { 20 };
        prepare("a", "goods", id);
        prepare("b", "goods", id + 1);
        let connector = lab.connector();
        let mut stream = connector.open_stream(&[table("goods")], None).await.unwrap();
        prepare("o", "other", id);
        lab.sql("XA ROLLBACK 'a'");
        let told = lab.drain(&connector, &mut stream).await;
        assert!(words(&told).is_empty());
        stream.close().await.unwrap();
        // Nothing for us was in it, and that is still known after a restart; but not for more tables.
        let place = last_position(&told);
        let more = [table("goods"), table("other")];
        let mut stream = connector.open_stream(&more, Some(&place)).await.unwrap();
        lab.sql("XA COMMIT 'o'");
        assert_eq!(failure(&mut stream).await, PositionLost);
        let mut same = connector.open_stream(&more[..1], Some(&place)).await.unwrap();
        assert!(words(&lab.drain(&connector, &mut same).await).is_empty());
        lab.sql("XA COMMIT 'b'");
        assert_eq!(failure(&mut same).await, PositionLost);
        let findings = lab.connector().preflight(&more[..1]).await.unwrap();
        let finding = findings.iter().find(|finding| finding.id == "source.xa").unwrap();
        assert_eq!(finding.severity == Severity::Ok, may_ask, "{finding:?}");
        // After that, what was prepared is in the table.
        let told = lab.told(&[table("goods")], &format!("DELETE FROM goods WHERE id = {}", id + 1)).await;
        assert_eq!(words(&told), [format!("delete goods {} x 1.00", id + 1)]);
    }
}

on_both! {
    xa_transactions,
    xa_transactions_from_before,
    changes_come_in_order,
    rows_by_page_key_and_value_are_the_same,
    only_the_wanted_columns_come,
    without_global_ids,
}
