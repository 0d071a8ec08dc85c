//! What the tail delivers.

use crate::lab::{Lab, changes, columns, events, position, show_row, snapshot};
use tidemark_contract::{Connector, SourceMessage};

const SHOP: &str = "CREATE TABLE t (id int PRIMARY KEY, name text, note text);
    INSERT INTO t VALUES (1, 'one', 'x'), (2, 'two', NULL), (3, 'three', '')";

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
}
