//! The statements that well-known readers of change data capture send, in their forms. Each must run; what they answer is
//! the matter of the other files.

use super::support::{captured, number, rows, run, sim};
use std::time::Instant;

#[test]
fn the_queries_of_known_readers_run() {
    let sim = sim();
    run(&sim, "EXEC sys.sp_cdc_enable_db; ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON");
    run(
        &sim,
        "CREATE TABLE dbo.[a b] (k1 int NOT NULL, k2 nvarchar(10) NOT NULL, v decimal(10,2) NULL, u uniqueidentifier NULL, CONSTRAINT pk PRIMARY KEY (k1, k2))",
    );
    run(
        &sim,
        "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'a b', @capture_instance = N'a_b', @role_name = NULL, @supports_net_changes = 0",
    );
    run(&sim, "INSERT dbo.[a b] VALUES (1, N'x', 1.5, NEWID()), (1, N'Y', 2, NULL), (2, N'a', NULL, NULL)");
    captured(&sim);
    for sql in [
        "SELECT MAX(start_lsn) FROM cdc.lsn_time_mapping WHERE tran_id <> 0x00",
        "DECLARE @n int = 10, @from binary(10) = 0x0; SELECT MAX(start_lsn) FROM (SELECT TOP (@n+1) start_lsn FROM cdc.lsn_time_mapping WHERE start_lsn >= @from AND tran_id <> 0x00 ORDER BY start_lsn) x",
        "SELECT ct.capture_instance, sch.name, tbl.name, ct.start_lsn, ct.end_lsn, ct.create_date, ct.role_name FROM cdc.change_tables AS ct JOIN sys.tables AS tbl ON ct.source_object_id = tbl.object_id JOIN sys.schemas AS sch ON tbl.schema_id = sch.schema_id",
        "SELECT object_id, column_name, column_type, column_ordinal, is_computed FROM cdc.captured_columns ORDER BY object_id, column_ordinal",
        "SELECT * FROM cdc.index_columns ORDER BY object_id, index_ordinal",
        "SELECT required_column_update, ddl_command, ddl_lsn, ddl_time FROM cdc.ddl_history WHERE object_id = OBJECT_ID('cdc.a_b_CT') ORDER BY ddl_lsn",
        "EXEC sys.sp_cdc_help_change_data_capture",
        "EXEC sys.sp_cdc_help_jobs",
        "SELECT maxtrans, maxscans, continuous, pollinginterval FROM msdb.dbo.cdc_jobs WHERE database_id = DB_ID() AND job_type = N'capture'",
        "SELECT TOP 1 session_id, start_time, end_time, scan_phase, tran_count, latency, error_count FROM sys.dm_cdc_log_scan_sessions WHERE scan_phase = 'Done' ORDER BY end_time DESC",
        "SELECT name, database_id, create_date, is_cdc_enabled, snapshot_isolation_state, is_read_committed_snapshot_on, log_reuse_wait_desc FROM sys.databases WHERE name = DB_NAME()",
        "SELECT log_end_lsn FROM sys.dm_db_log_stats(DB_ID())",
        "SELECT 0 AS idx, MAX(__$start_lsn) FROM cdc.[a_b_CT] UNION ALL SELECT 1, MAX([__$start_lsn]) FROM cdc.[a_b_CT]",
        "DECLARE @l binary(10) = 0x0, @s binary(10) = 0x0, @o int = 0, @to binary(10) = 0xFFFFFFFFFFFFFFFFFFFF; \
         SELECT TOP (100) c.[__$start_lsn], c.[__$command_id], c.[__$seqval], c.[__$operation], c.[__$update_mask], CAST(c.[v] AS nvarchar(50)) AS v, ltm.tran_begin_time, ltm.tran_end_time \
         FROM cdc.[a_b_CT] c LEFT JOIN cdc.lsn_time_mapping ltm ON ltm.start_lsn = c.[__$start_lsn] \
         WHERE ((c.[__$start_lsn] = @l AND c.[__$seqval] = @s AND c.[__$operation] > @o) OR (c.[__$start_lsn] = @l AND c.[__$seqval] > @s) OR c.[__$start_lsn] > @l) \
         AND c.[__$start_lsn] <= @to ORDER BY c.[__$start_lsn], c.[__$command_id], c.[__$seqval], c.[__$operation] OPTION (RECOMPILE)",
        "SET TRANSACTION ISOLATION LEVEL SNAPSHOT; BEGIN TRANSACTION; SELECT TOP (2) * FROM dbo.[a b] WITH (NOLOCK) WHERE (k1 > 1) OR (k1 = 1 AND k2 > N'x') ORDER BY k1, k2; COMMIT; SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SELECT c.name, t.name AS type_name, c.max_length, c.precision, c.scale, c.is_nullable, c.is_identity, c.is_computed, c.collation_name FROM sys.columns c \
         JOIN sys.types t ON t.user_type_id = c.user_type_id WHERE c.object_id = OBJECT_ID(N'[dbo].[a b]') ORDER BY c.column_id",
        "SELECT s.name, t.name, t.object_id, t.is_tracked_by_cdc, CASE WHEN ctt.object_id IS NULL THEN 0 ELSE 1 END AS ct FROM sys.tables t JOIN sys.schemas s ON s.schema_id = t.schema_id \
         LEFT JOIN sys.change_tracking_tables ctt ON ctt.object_id = t.object_id WHERE t.is_ms_shipped = 0 AND t.type = 'U'",
        "SELECT fk.name, OBJECT_NAME(fk.parent_object_id), OBJECT_SCHEMA_NAME(fk.referenced_object_id), COL_NAME(fkc.parent_object_id, fkc.parent_column_id) FROM sys.foreign_keys fk JOIN sys.foreign_key_columns fkc ON fkc.constraint_object_id = fk.object_id",
        "SELECT kc.name, kcu.k1 FROM sys.key_constraints kc JOIN dbo.[a b] kcu ON kc.parent_object_id = OBJECT_ID('dbo.[a b]') WHERE kc.type = 'PK'",
        "SELECT HAS_PERMS_BY_NAME('dbo.[a b]', 'OBJECT', 'SELECT'), HAS_PERMS_BY_NAME(NULL, NULL, 'VIEW SERVER STATE'), IS_SRVROLEMEMBER('sysadmin'), IS_ROLEMEMBER('db_owner'), HAS_DBACCESS('vendor')",
        "SELECT CAST(SERVERPROPERTY('EngineEdition') AS int), CAST(SERVERPROPERTY('Edition') AS nvarchar(128)), @@SERVERNAME, DATABASEPROPERTYEX(DB_NAME(), 'Updateability')",
        "SELECT COUNT_BIG(*) FROM dbo.[a b]",
        "SELECT sys.fn_cdc_map_lsn_to_time(sys.fn_cdc_get_max_lsn()), sys.fn_cdc_map_time_to_lsn('largest less than or equal', GETDATE()), GETDATE(), SYSUTCDATETIME()",
        "SELECT sys.fn_cdc_is_bit_set(sys.fn_cdc_get_column_ordinal('a_b', 'v'), __$update_mask) FROM cdc.a_b_CT",
        "SELECT k.n, t.v FROM (VALUES (0, 1, N'x'), (1, 2, N'A')) AS k(n, a, b) LEFT JOIN dbo.[a b] t ON t.k1 = k.a AND t.k2 = k.b ORDER BY k.n",
        "SELECT database_guid, recovery_fork_guid FROM sys.database_recovery_status WHERE database_id = DB_ID()",
        "SELECT CASE WHEN EXISTS (SELECT 1 FROM sys.schemas WHERE name = 'cdc') THEN 1 ELSE 0 END",
        "IF @@TRANCOUNT > 0 ROLLBACK",
    ] {
        rows(&sim, sql);
    }
    // Keys order by the collation: y comes behind x whatever its case.
    assert_eq!(
        rows(&sim, "SELECT k2 FROM dbo.[a b] WHERE (k1 > 1) OR (k1 = 1 AND k2 > N'x') ORDER BY k1, k2"),
        ["Y", "a"]
    );
    assert_eq!(number(&sim, "SELECT %%physloc%% FROM dbo.[a b]"), 49_999);
}

#[test]
fn a_thousand_tables_in_one_question() {
    let sim = sim();
    run(&sim, "CREATE TABLE t (id int NOT NULL PRIMARY KEY); INSERT t VALUES (1)");
    let parts: Vec<String> = (0..1000).map(|i| format!("SELECT {i} AS idx, MAX(id) AS m FROM t")).collect();
    let started = Instant::now();
    assert_eq!(rows(&sim, &parts.join(" UNION ALL ")).len(), 1000);
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn a_hundred_columns_and_many_rows() {
    let sim = sim();
    run(&sim, "EXEC sys.sp_cdc_enable_db");
    let columns: Vec<String> = (0..1000).map(|i| format!("c{i} int NULL")).collect();
    run(&sim, &format!("CREATE TABLE wide (id int NOT NULL PRIMARY KEY, {})", columns.join(", ")));
    run(&sim, "EXEC sys.sp_cdc_enable_table 'dbo', 'wide', @role_name = NULL");
    run(&sim, "INSERT wide (id, c999) VALUES (1, 7); UPDATE wide SET c0 = 1");
    captured(&sim);
    assert_eq!(
        rows(
            &sim,
            "SELECT __$operation, c0, c999, DATALENGTH(__$update_mask) FROM cdc.dbo_wide_CT ORDER BY __$start_lsn, __$operation"
        ),
        ["2 - 7 126", "3 - 7 126", "4 1 7 126"]
    );
}
