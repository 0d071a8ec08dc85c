//! The simulator through tiberius, in clear: values, parameters, transactions, cancelling, ends of connections.

use super::support::{captured, run, sim};
use std::time::Duration;
use tiberius::{AuthMethod, Client, ColumnData, Config, EncryptionLevel, IsolationLevel};
use tidemark_sqlserver_sim::{Options, Sim};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

type Connection = Client<Compat<TcpStream>>;

async fn login(sim: &Sim, user: &str, password: &str, database: &str) -> tiberius::Result<Connection> {
    let mut config = Config::new();
    config.host("127.0.0.1");
    config.port(sim.port());
    config.database(database);
    config.authentication(AuthMethod::sql_server(user, password));
    config.encryption(EncryptionLevel::NotSupported);
    config.application_name("battery");
    let tcp = TcpStream::connect(sim.address()).await?;
    tcp.set_nodelay(true)?;
    Client::connect(config, tcp.compat_write()).await
}

async fn connect(sim: &Sim) -> Connection {
    login(sim, "sa", "Passw0rd!", "vendor").await.unwrap()
}

fn code(e: &tiberius::error::Error) -> u32 {
    e.code().unwrap_or(0)
}

/// All rows of a query as text of their column data.
async fn shown(c: &mut Connection, sql: &str) -> Vec<String> {
    let rows = c.simple_query(sql).await.unwrap().into_first_result().await.unwrap();
    rows.iter().map(|r| r.cells().map(|(_, d)| format!("{d:?}")).collect::<Vec<_>>().join(" ")).collect()
}

/// A secondary replica is read, and only with the intent; the primary sends those who have it there.
#[tokio::test(flavor = "multi_thread")]
async fn a_secondary_is_only_read() {
    let sim = sim();
    run(&sim, "CREATE TABLE t (id int NOT NULL PRIMARY KEY); INSERT t VALUES (1)");
    let secondary = sim.secondary().unwrap();
    let at = async |port: u16, read_only: bool| {
        let mut config = Config::new();
        config.database("vendor");
        config.authentication(AuthMethod::sql_server("sa", "Passw0rd!"));
        config.encryption(EncryptionLevel::NotSupported);
        config.readonly(read_only);
        let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
        Client::connect(config, tcp.compat_write()).await
    };
    assert_eq!(code(&at(secondary, false).await.err().unwrap()), 978);
    match at(sim.port(), true).await.err().unwrap() {
        tiberius::error::Error::Routing { host, port } => assert_eq!((&*host, port), ("127.0.0.1", secondary)),
        other => panic!("not led on: {other}"),
    }
    at(sim.port(), false).await.unwrap();
    let mut c = at(secondary, true).await.unwrap();
    assert_eq!(shown(&mut c, "SELECT id FROM t").await.len(), 1);
    for sql in [
        "INSERT t VALUES (2)",
        "CREATE TABLE u (id int)",
        "EXEC sys.sp_cdc_enable_db",
        "ALTER TABLE t ADD x int NULL",
        "UPDATE t SET id = 5",
    ] {
        let result = async { c.simple_query(sql).await?.into_results().await };
        let error = result.await.err().unwrap_or_else(|| panic!("{sql}"));
        assert_eq!(code(&error), 3906, "{sql}");
    }
    let sql = "SELECT CAST(DATABASEPROPERTYEX(N'vendor', 'Updateability') AS nvarchar(20)), \
               (SELECT COUNT(*) FROM sys.dm_cdc_log_scan_sessions)";
    assert_eq!(shown(&mut c, sql).await, ["String(Some(\"READ_ONLY\")) I32(Some(0))"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn logins() {
    let sim = sim();
    assert_eq!(code(&login(&sim, "sa", "wrong", "vendor").await.err().unwrap()), 18_456);
    assert_eq!(code(&login(&sim, "sa", "Passw0rd!", "nowhere").await.err().unwrap()), 4060);
    sim.execute("vendor", "CREATE LOGIN reader WITH PASSWORD = 'Secret1!'").unwrap();
    assert_eq!(code(&login(&sim, "reader", "Secret1!", "vendor").await.err().unwrap()), 4060);
    sim.execute("vendor", "CREATE USER reader FOR LOGIN reader").unwrap();
    let mut c = login(&sim, "reader", "Secret1!", "vendor").await.unwrap();
    assert_eq!(shown(&mut c, "SELECT USER_NAME()").await, ["String(Some(\"reader\"))"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn least_privileges() {
    let sim = sim();
    run(
        &sim,
        "EXEC sys.sp_cdc_enable_db; CREATE TABLE a (id int NOT NULL PRIMARY KEY); CREATE TABLE b (id int NOT NULL PRIMARY KEY)",
    );
    run(&sim, "EXEC sys.sp_cdc_enable_table 'dbo', 'a', @role_name = N'gate'");
    run(&sim, "CREATE LOGIN r WITH PASSWORD = 'Secret1!'; CREATE USER r FOR LOGIN r");
    captured(&sim);
    let mut c = login(&sim, "r", "Secret1!", "vendor").await.unwrap();
    let refused = async |c: &mut Connection, sql: &str| match c.simple_query(sql).await {
        Err(e) => code(&e),
        Ok(s) => s.into_results().await.err().map_or(0, |e| code(&e)),
    };
    assert_eq!(refused(&mut c, "SELECT * FROM dbo.a").await, 229);
    assert_eq!(refused(&mut c, "SELECT * FROM cdc.change_tables").await, 229);
    assert_eq!(refused(&mut c, "SELECT * FROM sys.dm_cdc_log_scan_sessions").await, 262);
    assert_eq!(refused(&mut c, "SELECT * FROM msdb.dbo.cdc_jobs").await, 229);
    assert_eq!(refused(&mut c, "EXEC sys.sp_cdc_enable_db").await, 22_902);
    // Nothing is visible, and nothing says why.
    assert!(shown(&mut c, "SELECT name FROM sys.tables").await.is_empty());
    assert_eq!(
        shown(&mut c, "SELECT sys.fn_cdc_get_min_lsn('dbo_a')").await,
        [format!("Binary(Some({:?}))", [0u8; 10])]
    );
    run(
        &sim,
        "GRANT SELECT ON dbo.a TO r; GRANT SELECT ON SCHEMA::cdc TO r; ALTER ROLE gate ADD MEMBER r; GRANT VIEW DATABASE STATE TO r",
    );
    assert_eq!(
        refused(&mut c, "SELECT * FROM dbo.a; SELECT * FROM cdc.change_tables; SELECT * FROM cdc.dbo_a_CT").await,
        0
    );
    assert_eq!(refused(&mut c, "SELECT * FROM sys.dm_cdc_log_scan_sessions").await, 0);
    assert_eq!(refused(&mut c, "SELECT * FROM dbo.b").await, 229);
    assert_eq!(refused(&mut c, "INSERT dbo.a VALUES (1)").await, 229);
    assert_eq!(shown(&mut c, "SELECT name FROM sys.tables WHERE is_ms_shipped = 0").await, ["String(Some(\"a\"))"]);
    assert_ne!(
        shown(&mut c, "SELECT sys.fn_cdc_get_min_lsn('dbo_a')").await,
        [format!("Binary(Some({:?}))", [0u8; 10])]
    );
    run(&sim, "DENY SELECT ON dbo.a TO r");
    assert_eq!(refused(&mut c, "SELECT * FROM dbo.a").await, 229);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives() {
    let sim = sim();
    run(
        &sim,
        "CREATE TABLE v (id int NOT NULL PRIMARY KEY, a bit, b tinyint, c smallint, d int, e bigint, f real, g float, h decimal(38,10), i money, j smallmoney, \
         k date, l time(3), m datetime2, n datetimeoffset(0), o datetime, p smalldatetime, q char(3), r varchar(20), s varchar(max), t text, u nchar(3), \
         v nvarchar(20), w nvarchar(max), x ntext, y binary(3), z varbinary(5), aa varbinary(max), ab image, ac uniqueidentifier, ad xml, ae sql_variant, \
         af rowversion, ag hierarchyid, ah geography)",
    );
    run(
        &sim,
        "INSERT v (id, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z, aa, ab, ac, ad, ae, ag, ah) VALUES (1, 1, 255, -2, 3, -4, 1.5, 2.25, \
         '-1234567890123456789012345678.0123456789', 12.3456, -1.5, '2024-02-29', '23:59:59.123', '9999-12-31 23:59:59.9999999', \
         '2024-02-29 10:00:00 +05:30', '2024-01-01 00:00:00.003', '2024-01-01 10:01', 'ab', 'h\u{e9}', 's', 't', N'u', N'\u{1F600}', REPLICATE(CAST(N'ab' AS nvarchar(max)), 30000), \
         N'x', 0x01, 0x0102, 0x00, 0xFF, '6F9619FF-8B86-D011-B42D-00C04FC964FF', N'<a/>', CAST(42 AS int), '/1/', geography::Point(1, 2, 4326)), \
         (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
         NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    );
    let mut c = connect(&sim).await;
    let rows = c.simple_query("SELECT * FROM v ORDER BY id").await.unwrap().into_first_result().await.unwrap();
    let cell = |name: &str| {
        let at = rows[0].columns().iter().position(|c| c.name() == name).unwrap();
        format!("{:?}", rows[0].cells().nth(at).unwrap().1)
    };
    for (column, expected) in [
        ("id", "I32(Some(1))"),
        ("a", "Bit(Some(true))"),
        ("b", "U8(Some(255))"),
        ("c", "I16(Some(-2))"),
        ("e", "I64(Some(-4))"),
        ("f", "F32(Some(1.5))"),
        ("g", "F64(Some(2.25))"),
        ("h", "Numeric(Some(-1234567890123456789012345678.0123456789))"),
        ("i", "F64(Some(12.3456))"),
        ("q", "String(Some(\"ab \"))"),
        ("r", "String(Some(\"h\u{e9}\"))"),
        ("t", "String(Some(\"t\"))"),
        ("u", "String(Some(\"u  \"))"),
        ("v", "String(Some(\"\u{1F600}\"))"),
        ("x", "String(Some(\"x\"))"),
        ("y", "Binary(Some([1, 0, 0]))"),
        ("z", "Binary(Some([1, 2]))"),
        ("ab", "Binary(Some([255]))"),
        ("ac", "Guid(Some(6f9619ff-8b86-d011-b42d-00c04fc964ff))"),
        ("ae", "I32(Some(42))"),
    ] {
        assert_eq!(cell(column), expected, "{column}");
    }
    assert!(matches!(rows[0].get::<&str, _>("w"), Some(t) if t.len() == 60_000));
    // The second row goes over the wire as NBCROW.
    let nulls = rows[1].cells().filter(|(_, d)| format!("{d:?}").contains("None")).count();
    assert_eq!(nulls, 33, "{:?}", rows[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_and_pages() {
    let sim = sim();
    run(&sim, "CREATE TABLE t (id int NOT NULL PRIMARY KEY, name nvarchar(20), lsn binary(10))");
    let mut c = connect(&sim).await;
    for i in 0..25i32 {
        let lsn: &[u8] = &[0, 0, 0, 42, 0, 0, 0, 0, 0, i as u8];
        let n = c.execute("INSERT t VALUES (@P1, @P2, @P3)", &[&i, &format!("n{i}"), &lsn]).await.unwrap();
        assert_eq!(n.rows_affected(), [1]);
    }
    let mut last = -1i32;
    let mut seen = 0;
    loop {
        let rows =
            c.query("SELECT TOP (@P1) id, name FROM t WHERE id > @P2 ORDER BY id", &[&10i64, &last]).await.unwrap();
        let rows = rows.into_first_result().await.unwrap();
        let Some(row) = rows.last() else { break };
        last = row.get::<i32, _>(0).unwrap();
        seen += rows.len();
    }
    assert_eq!(seen, 25);
    let bound: &[u8] = &[0, 0, 0, 42, 0, 0, 0, 0, 0, 20];
    let rows =
        c.query("SELECT id FROM t WHERE lsn > @P1 AND name <> @P2", &[&bound, &Option::<&str>::None]).await.unwrap();
    assert!(rows.into_first_result().await.unwrap().is_empty());
    let row =
        c.query("SELECT @P1, @P2", &[&"h\u{e9}\u{1F600}", &1.5f64]).await.unwrap().into_row().await.unwrap().unwrap();
    assert_eq!((row.get::<&str, _>(0), row.get::<f64, _>(1)), (Some("h\u{e9}\u{1F600}"), Some(1.5)));
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_do_not_move() {
    let sim = Sim::start(Options { snapshot_isolation: true, ..Options::default() }).unwrap();
    run(&sim, "CREATE TABLE t (id int NOT NULL PRIMARY KEY); INSERT t VALUES (1)");
    let (mut a, mut b) = (connect(&sim).await, connect(&sim).await);
    a.begin_transaction_with_isolation(IsolationLevel::Snapshot).await.unwrap();
    assert_eq!(shown(&mut a, "SELECT COUNT(*) FROM t").await, ["I32(Some(1))"]);
    b.execute("INSERT t VALUES (2)", &[]).await.unwrap();
    assert_eq!(shown(&mut a, "SELECT COUNT(*) FROM t").await, ["I32(Some(1))"]);
    assert_eq!(code(&a.execute("INSERT t VALUES (3)", &[]).await.err().unwrap()), 3960);
    assert_eq!(shown(&mut a, "SELECT @@TRANCOUNT, COUNT(*) FROM t").await, ["I32(Some(0)) I32(Some(2))"]);
    // Read committed sees each commit; uncommitted rows are nobody else's.
    b.simple_query("BEGIN TRAN; INSERT t VALUES (4)").await.unwrap().into_results().await.unwrap();
    a.simple_query("SET TRANSACTION ISOLATION LEVEL READ COMMITTED").await.unwrap().into_results().await.unwrap();
    assert_eq!(shown(&mut a, "SELECT COUNT(*) FROM t").await, ["I32(Some(2))"]);
    a.simple_query("SET LOCK_TIMEOUT 50").await.unwrap().into_results().await.unwrap();
    assert_eq!(code(&a.execute("INSERT t VALUES (5)", &[]).await.err().unwrap()), 1222);
    b.simple_query("COMMIT").await.unwrap().into_results().await.unwrap();
    assert_eq!(shown(&mut a, "SELECT COUNT(*) FROM t").await, ["I32(Some(3))"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn long_answers_cancelling_and_killing() {
    let sim = sim();
    run(&sim, "CREATE TABLE n (i int NOT NULL PRIMARY KEY)");
    run(&sim, "DECLARE @i int = 0 BEGIN TRAN WHILE @i < 300 BEGIN INSERT n VALUES (@i) SET @i += 1 END COMMIT");
    let mut c = connect(&sim).await;
    let rows = c.simple_query("SELECT a.i, b.i, N'some text' FROM n a CROSS JOIN n b").await.unwrap();
    assert_eq!(rows.into_first_result().await.unwrap().len(), 90_000);
    // A client that goes away in the middle stops the statement: its session ends long before the statement could.
    let endless = "SELECT COUNT(*) FROM n a CROSS JOIN n b CROSS JOIN n c CROSS JOIN n d CROSS JOIN n e";
    assert!(tokio::time::timeout(Duration::from_millis(200), c.simple_query(endless)).await.is_err());
    drop(c);
    wait_for_connections(&sim, 0).await;
    let mut d = connect(&sim).await;
    assert_eq!(shown(&mut d, "SELECT 1").await, ["I32(Some(1))"]);
    assert_eq!(sim.kill_program("battery"), 1);
    let broken = async { d.simple_query("SELECT 1").await?.into_results().await };
    assert!(tokio::time::timeout(Duration::from_secs(10), broken).await.unwrap().is_err());
    wait_for_connections(&sim, 0).await;
}

async fn wait_for_connections(sim: &Sim, n: usize) {
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while sim.connections() > n {
        assert!(std::time::Instant::now() < until, "{} connections are left", sim.connections());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_in_the_middle_leave_the_connection_usable() {
    let sim = sim();
    let mut c = connect(&sim).await;
    for (sql, number) in [("SELECT 1/0", 8134), ("SELECT * FROM nope", 208), ("MERGE x", 49_999), ("SELECT 'a", 105)] {
        let e = match c.simple_query(sql).await {
            Err(e) => e,
            Ok(s) => s.into_results().await.err().unwrap(),
        };
        assert_eq!(code(&e), number, "{sql}");
        assert_eq!(shown(&mut c, "SELECT 1").await, ["I32(Some(1))"], "{sql}");
    }
    let sets = c.simple_query("SELECT 1; SELECT N'x', 2; PRINT 'hello'").await.unwrap().into_results().await.unwrap();
    assert_eq!(sets.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    assert!(matches!(sets[1][0].cells().nth(1).unwrap().1, ColumnData::I32(Some(2))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attention_is_acknowledged() {
    use futures_util::StreamExt;
    let sim = sim();
    run(&sim, "CREATE TABLE n (i int NOT NULL PRIMARY KEY)");
    run(&sim, "DECLARE @i int = 0 BEGIN TRAN WHILE @i < 300 BEGIN INSERT n VALUES (@i) SET @i += 1 END COMMIT");
    let mut c = connect(&sim).await;
    // One row of 27 million, then no more.
    {
        let mut s =
            c.simple_query("SELECT a.i FROM n a CROSS JOIN n b CROSS JOIN n c").await.unwrap().into_row_stream();
        assert!(s.next().await.is_some());
    }
    tokio::time::timeout(Duration::from_secs(20), c.cancel_query()).await.unwrap().unwrap();
    assert_eq!(shown(&mut c, "SELECT 5").await, ["I32(Some(5))"]);
    let mut d = connect(&sim).await;
    assert_eq!(shown(&mut d, "SELECT 5").await, ["I32(Some(5))"]);
}
