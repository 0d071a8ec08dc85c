//! What the tail says, and that a snapshot says the same.

use super::lab::{BARRIER, Lab, events, key, shown, table, words};
use tidemark_contract::{Connector, SourceMessage};
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

/// XA transactions: committed in one phase they are like any other; prepared ones are refused before a row of theirs is told.
async fn xa_transactions(flavour: MysqlFlavour) {
    let lab = Lab::new(flavour, &format!("{BARRIER}{GOODS}"));
    let connector = lab.connector();
    let mut stream = connector.open_stream(&[table("goods")], None).await.unwrap();
    lab.sql(
        "XA START 'a'; INSERT INTO goods VALUES (1, 'one', 1); XA END 'a'; XA COMMIT 'a' ONE PHASE;
         XA START 'o'; INSERT INTO other VALUES (1); XA END 'o'; XA PREPARE 'o'; XA COMMIT 'o'",
    );
    assert_eq!(words(&lab.drain(&connector, &mut stream).await), ["insert goods 1 one 1.00"]);
    lab.sql("XA START 'b'; INSERT INTO goods VALUES (2, 'two', 2); XA END 'b'; XA PREPARE 'b'; XA ROLLBACK 'b'");
    let mut out = Vec::new();
    let error = loop {
        let next = stream.next(&mut out);
        match tokio::time::timeout(std::time::Duration::from_secs(20), next).await.unwrap() {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, tidemark_contract::ErrorKind::SettingWrong);
    assert!(words(&out).is_empty());
}

on_both! {
    xa_transactions,
    changes_come_in_order,
    rows_by_page_key_and_value_are_the_same,
    only_the_wanted_columns_come,
    without_global_ids,
}
