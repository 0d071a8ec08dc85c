//! Change tracking.

use super::support::{number, one, rows, run, sim};
use std::time::Duration;

#[test]
fn net_changes_by_key() {
    let sim = sim();
    run(&sim, "CREATE TABLE t (id int NOT NULL PRIMARY KEY, a int NULL, b int NULL)");
    run(&sim, "CREATE TABLE keyless (a int)");
    assert_eq!(number(&sim, "ALTER TABLE t ENABLE CHANGE_TRACKING"), 5088);
    run(&sim, "ALTER DATABASE CURRENT SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 2 DAYS, AUTO_CLEANUP = ON)");
    assert_eq!(
        rows(
            &sim,
            "SELECT retention_period, retention_period_units_desc FROM sys.change_tracking_databases WHERE database_id = DB_ID()"
        ),
        ["2 DAYS"]
    );
    run(&sim, "INSERT t VALUES (1, 1, 1), (2, 2, 2)");
    run(&sim, "ALTER TABLE t ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = ON)");
    assert_eq!(number(&sim, "ALTER TABLE keyless ENABLE CHANGE_TRACKING"), 4997);
    assert_eq!(one(&sim, "SELECT CHANGE_TRACKING_CURRENT_VERSION()"), "0");
    run(&sim, "UPDATE t SET a = 9 WHERE id = 1");
    run(&sim, "INSERT t VALUES (3, 3, 3)");
    run(&sim, "DELETE t WHERE id = 2");
    run(&sim, "UPDATE t SET id = 4 WHERE id = 3");
    run(&sim, "BEGIN TRAN; DELETE t; ROLLBACK");
    let changes = |since: i32| {
        rows(
            &sim,
            &format!(
                "SELECT c.SYS_CHANGE_VERSION, c.SYS_CHANGE_OPERATION, c.id, t.a FROM CHANGETABLE(CHANGES dbo.t, {since}) AS c LEFT JOIN t ON t.id = c.id ORDER BY c.SYS_CHANGE_VERSION, c.id"
            ),
        )
    };
    assert_eq!(changes(0), ["1 U 1 9", "3 D 2 -", "4 D 3 -", "4 I 4 3"]);
    assert_eq!(changes(3), ["4 D 3 -", "4 I 4 3"]);
    let mask = "SELECT CHANGE_TRACKING_IS_COLUMN_IN_MASK(COLUMNPROPERTY(OBJECT_ID('t'), 'a', 'ColumnId'), c.SYS_CHANGE_COLUMNS), \
         CHANGE_TRACKING_IS_COLUMN_IN_MASK(COLUMNPROPERTY(OBJECT_ID('t'), 'b', 'ColumnId'), c.SYS_CHANGE_COLUMNS) FROM CHANGETABLE(CHANGES t, 0) c WHERE id = 1";
    assert_eq!(rows(&sim, mask), ["1 0"]);
    assert_eq!(one(&sim, "SELECT CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID('t'))"), "0");
    std::thread::sleep(Duration::from_millis(5));
    sim.run_cleanup("vendor", Duration::ZERO).unwrap();
    assert_eq!(one(&sim, "SELECT CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID('t'))"), "4");
    assert!(changes(0).is_empty());
    assert_eq!(number(&sim, "SELECT * FROM CHANGETABLE(CHANGES keyless, 0) AS c"), 22_105);
}
