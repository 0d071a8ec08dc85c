//! Change data capture: what the log reader writes, its jobs, its end.

use super::support::{captured, number, one, rows, run, sim};
use std::time::Duration;
use tidemark_sqlserver_sim::{Options, Sim, SqlError};

fn tracked() -> Sim {
    let sim = sim();
    run(&sim, "EXEC sys.sp_cdc_enable_db");
    run(
        &sim,
        "CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, name nvarchar(20) NULL, note nvarchar(max) NULL, old text NULL, twice AS id * 2)",
    );
    run(&sim, "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N't', @role_name = NULL");
    captured(&sim);
    sim
}

#[test]
fn inserts_updates_deletes_and_key_changes() {
    let sim = tracked();
    run(&sim, "BEGIN TRAN; INSERT t VALUES (1, N'a', N'long', 'x'); UPDATE t SET name = N'b' WHERE id = 1; COMMIT");
    run(&sim, "UPDATE t SET id = 2 WHERE id = 1");
    run(&sim, "UPDATE t SET name = name; DELETE t");
    captured(&sim);
    let sql = "SELECT __$operation, id, name, note, old, twice, __$update_mask, __$command_id FROM cdc.dbo_t_CT \
         ORDER BY __$start_lsn, __$command_id, __$seqval, __$operation";
    assert_eq!(
        rows(&sim, sql),
        [
            "2 1 a long x - 0x1F 1",
            "3 1 a - - - 0x02 2",
            "4 1 b long x - 0x02 2",
            "1 1 b long - - 0x1F 1",
            "2 2 b long x - 0x1F 1",
            "1 2 b long - - 0x1F 1",
        ]
    );
    // One commit LSN for a transaction, one sequence value for an update.
    assert_eq!(one(&sim, "SELECT COUNT(DISTINCT __$start_lsn) FROM cdc.dbo_t_CT"), "3");
    assert_eq!(one(&sim, "SELECT COUNT(DISTINCT __$seqval) FROM cdc.dbo_t_CT WHERE __$operation IN (3, 4)"), "1");
    assert_eq!(
        one(&sim, "SELECT COUNT(*) FROM cdc.dbo_t_CT c JOIN cdc.lsn_time_mapping m ON m.start_lsn = c.__$start_lsn"),
        "6"
    );
    assert_eq!(
        one(
            &sim,
            "SELECT CASE WHEN sys.fn_cdc_get_max_lsn() = (SELECT MAX(__$start_lsn) FROM cdc.dbo_t_CT) THEN 1 ELSE 0 END"
        ),
        "1"
    );
    run(&sim, "BEGIN TRAN; INSERT t (id) VALUES (9); ROLLBACK");
    captured(&sim);
    assert_eq!(one(&sim, "SELECT COUNT(*) FROM cdc.dbo_t_CT"), "6");
}

#[test]
fn functions_refuse_bad_ranges() {
    let sim = tracked();
    run(&sim, "INSERT t (id) VALUES (1)");
    captured(&sim);
    let all = "SELECT __$operation, id FROM cdc.fn_cdc_get_all_changes_dbo_t(sys.fn_cdc_get_min_lsn(N'dbo_t'), sys.fn_cdc_get_max_lsn(), N'all')";
    assert_eq!(rows(&sim, all), ["2 1"]);
    assert_eq!(
        number(
            &sim,
            "SELECT * FROM cdc.fn_cdc_get_all_changes_dbo_t(0x00000000000000000001, sys.fn_cdc_get_max_lsn(), N'all')"
        ),
        313
    );
    assert_eq!(
        number(
            &sim,
            "SELECT * FROM cdc.fn_cdc_get_all_changes_dbo_t(sys.fn_cdc_get_min_lsn(N'dbo_t'), 0xFFFFFFFFFFFFFFFFFFFF, N'all')"
        ),
        313
    );
    assert_eq!(number(&sim, "SELECT * FROM cdc.fn_cdc_get_all_changes_dbo_nope(0x00, 0x00, N'all')"), 208);
    assert_eq!(one(&sim, "SELECT sys.fn_cdc_get_min_lsn(N'nope')"), "0x00000000000000000000");
    assert_eq!(one(&sim, "SELECT sys.fn_cdc_increment_lsn(0x0000002A000000FFFFFF)"), "0x0000002A000001000000");
}

#[test]
fn a_new_instance_has_no_low_end_until_the_reader_passes() {
    let sim = sim();
    run(&sim, "EXEC sys.sp_cdc_enable_db");
    assert_eq!(one(&sim, "SELECT sys.fn_cdc_get_max_lsn()"), "-");
    run(&sim, "CREATE TABLE t (id int NOT NULL PRIMARY KEY)");
    sim.stop_agent();
    run(&sim, "EXEC sys.sp_cdc_enable_table 'dbo', 't', @role_name = NULL");
    assert_eq!(one(&sim, "SELECT start_lsn FROM cdc.change_tables"), "-");
    assert_eq!(one(&sim, "SELECT sys.fn_cdc_get_min_lsn('dbo_t')"), "0x00000000000000000000");
    sim.start_agent();
    captured(&sim);
    assert_eq!(one(&sim, "SELECT CASE WHEN sys.fn_cdc_get_min_lsn('dbo_t') > 0x00000000000000000000 THEN 1 END"), "1");
}

#[test]
fn jobs_stop_lag_and_break() {
    let sim = tracked();
    sim.stop_capture("vendor").unwrap();
    run(&sim, "INSERT t (id) VALUES (1)");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(one(&sim, "SELECT COUNT(*) FROM cdc.dbo_t_CT"), "0");
    assert_eq!(one(&sim, "SELECT log_reuse_wait_desc FROM sys.databases WHERE name = 'vendor'"), "REPLICATION");
    assert_eq!(sim.scan("vendor").unwrap(), 1);
    sim.set_lag("vendor", Duration::from_secs(3600)).unwrap();
    run(&sim, "INSERT t (id) VALUES (2)");
    assert_eq!(sim.scan("vendor").unwrap(), 0);
    sim.set_lag("vendor", Duration::ZERO).unwrap();
    sim.break_log_scan("vendor", Some((9003, "The log scan number passed is not valid."))).unwrap();
    sim.scan("vendor").unwrap();
    assert_eq!(one(&sim, "SELECT TOP 1 error_number FROM sys.dm_cdc_errors"), "9003");
    assert_eq!(one(&sim, "SELECT TOP 1 error_count FROM sys.dm_cdc_log_scan_sessions ORDER BY session_id DESC"), "1");
    sim.break_log_scan("vendor", None).unwrap();
    assert_eq!(sim.scan("vendor").unwrap(), 1);
    assert_eq!(one(&sim, "SELECT TOP 1 tran_count FROM sys.dm_cdc_log_scan_sessions ORDER BY session_id DESC"), "1");
    sim.drop_jobs("vendor").unwrap();
    assert_eq!(one(&sim, "SELECT COUNT(*) FROM msdb.dbo.cdc_jobs"), "0");
    run(&sim, "EXEC sys.sp_cdc_add_job @job_type = 'capture'");
    assert_eq!(
        rows(&sim, "SELECT job_type, maxtrans, pollinginterval, retention FROM msdb.dbo.cdc_jobs ORDER BY job_type"),
        ["capture 500 5 0", "cleanup 0 0 4320"]
    );
    sim.stop_agent();
    assert_eq!(
        one(&sim, "SELECT status_desc FROM sys.dm_server_services WHERE servicename LIKE 'SQL Server Agent%'"),
        "Stopped"
    );
}

#[test]
fn cleanup_raises_the_low_end() {
    let sim = tracked();
    for i in 0..3 {
        run(&sim, &format!("INSERT t (id) VALUES ({i})"));
    }
    captured(&sim);
    let max = one(&sim, "SELECT sys.fn_cdc_get_max_lsn()");
    run(&sim, &format!("EXEC sys.sp_cdc_cleanup_change_table @capture_instance = 'dbo_t', @low_water_mark = {max}"));
    assert_eq!(one(&sim, "SELECT COUNT(*) FROM cdc.dbo_t_CT"), "1");
    assert_eq!(one(&sim, "SELECT sys.fn_cdc_get_min_lsn('dbo_t')"), max);
    run(&sim, "INSERT t (id) VALUES (7)");
    captured(&sim);
    assert!(sim.run_cleanup("vendor", Duration::ZERO).unwrap() > 0);
    assert!(one(&sim, "SELECT sys.fn_cdc_get_min_lsn('dbo_t')") > max);
}

#[test]
fn two_instances_after_a_definition() {
    let sim = tracked();
    run(&sim, "ALTER TABLE t ADD extra int NULL");
    assert_eq!(one(&sim, "SELECT required_column_update FROM cdc.ddl_history"), "0");
    run(&sim, "INSERT t (id, extra) VALUES (1, 5)");
    run(&sim, "EXEC sys.sp_cdc_enable_table 'dbo', 't', 'second', @role_name = NULL");
    run(&sim, "INSERT t (id, extra) VALUES (2, 6)");
    captured(&sim);
    assert_eq!(rows(&sim, "SELECT id, extra FROM cdc.second_CT"), ["2 6"]);
    assert_eq!(rows(&sim, "SELECT id FROM cdc.dbo_t_CT ORDER BY id"), ["1", "2"]);
    assert_eq!(number(&sim, "SELECT extra FROM cdc.dbo_t_CT"), 207);
    assert_eq!(number(&sim, "EXEC sys.sp_cdc_enable_table 'dbo', 't', 'third', @role_name = NULL"), 22_962);
    assert_eq!(number(&sim, "TRUNCATE TABLE t"), 4711);
    assert_eq!(number(&sim, "EXEC sp_rename 't.name', 'title', 'COLUMN'"), 4928);
    run(&sim, "ALTER TABLE t ALTER COLUMN name nvarchar(40) NULL");
    assert_eq!(
        rows(
            &sim,
            "SELECT DISTINCT required_column_update FROM cdc.ddl_history WHERE ddl_command LIKE '%ALTER COLUMN%'"
        ),
        ["1"]
    );
    run(&sim, "EXEC sys.sp_cdc_disable_table 'dbo', 't', 'dbo_t'");
    assert_eq!(number(&sim, "SELECT * FROM cdc.dbo_t_CT"), 208);
    assert_eq!(rows(&sim, "SELECT capture_instance FROM cdc.change_tables"), ["second"]);
    run(&sim, "EXEC sys.sp_cdc_disable_db");
    assert_eq!(number(&sim, "SELECT * FROM cdc.change_tables"), 208);
    assert_eq!(one(&sim, "SELECT is_cdc_enabled FROM sys.databases WHERE name = 'vendor'"), "0");
}

#[test]
fn a_restored_database_has_an_older_log_and_a_new_identity() {
    let sim = tracked();
    run(&sim, "INSERT t (id) VALUES (1)");
    captured(&sim);
    let backup = sim.backup("vendor").unwrap();
    let identity =
        "SELECT CONVERT(varchar(36), recovery_fork_guid) FROM sys.database_recovery_status WHERE database_id = DB_ID()";
    let (fork, max) = (one(&sim, identity), one(&sim, "SELECT sys.fn_cdc_get_max_lsn()"));
    run(&sim, "INSERT t (id) VALUES (2)");
    captured(&sim);
    assert!(one(&sim, "SELECT sys.fn_cdc_get_max_lsn()") > max);
    sim.restore(&backup).unwrap();
    assert_eq!(one(&sim, "SELECT sys.fn_cdc_get_max_lsn()"), max);
    assert_ne!(one(&sim, identity), fork);
    assert_eq!(rows(&sim, "SELECT id FROM t"), ["1"]);
    run(&sim, "INSERT t (id) VALUES (3)");
    captured(&sim);
    assert_eq!(rows(&sim, "SELECT id FROM cdc.dbo_t_CT ORDER BY __$start_lsn"), ["1", "3"]);
}

#[test]
fn an_idle_reader_moves_the_maximum() {
    let sim = Sim::start(Options { heartbeat: Duration::from_millis(50), ..Options::default() }).unwrap();
    run(&sim, "EXEC sys.sp_cdc_enable_db; CREATE TABLE t (id int NOT NULL PRIMARY KEY)");
    run(&sim, "EXEC sys.sp_cdc_enable_table 'dbo', 't', @role_name = NULL");
    captured(&sim);
    let before = one(&sim, "SELECT sys.fn_cdc_get_max_lsn()");
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while one(&sim, "SELECT sys.fn_cdc_get_max_lsn()") == before {
        assert!(std::time::Instant::now() < until, "no idle row");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(one(&sim, "SELECT TOP 1 tran_id FROM cdc.lsn_time_mapping ORDER BY start_lsn DESC"), "0x00");
}

#[test]
fn planned_errors_come_once() {
    let sim = tracked();
    sim.fail("FROM t", SqlError::new(1205, 13, 51, "Transaction was deadlocked."), 1, 1);
    run(&sim, "SELECT * FROM t");
    assert_eq!(number(&sim, "SELECT * FROM t"), 1205);
    run(&sim, "SELECT * FROM t");
    assert_eq!(sim.count_statements("select * from T"), 3);
}
