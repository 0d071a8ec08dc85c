//! Logins, rights, TLS, findings, lag.

use super::lab::{Lab, Reader, line, request};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidemark_contract::{Connector, ErrorKind, Finding, Severity};
use tidemark_sqlserver::{Encryption as Wanted, Password, SqlServer, SqlServerConfig, TlsConfig, TlsMode, Token};
use tidemark_sqlserver_sim::{Certificate, Encryption, Options, Sim};
use tidemark_throwaway::Certificates;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn finding<'a>(all: &'a [Finding], id: &str) -> &'a Finding {
    all.iter().find(|f| f.id == id).unwrap_or_else(|| panic!("no finding {id} in {all:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_kinds() {
    let lab = Lab::new();
    let failed = async |config: SqlServerConfig| SqlServer::new(config).discover(&[]).await.unwrap_err();
    let wrong = failed(SqlServerConfig { password: Some(Password::new("hunter2")), ..lab.config() }).await;
    assert_eq!(wrong.kind, ErrorKind::AuthRefused, "{wrong}");
    assert!(!format!("{wrong} {wrong:?}").contains("hunter2"));
    let nowhere = failed(SqlServerConfig { database: "nowhere".into(), ..lab.config() }).await;
    assert_eq!(nowhere.kind, ErrorKind::SettingWrong, "{nowhere}");
    let closed = failed(SqlServerConfig { port: 1, ..lab.config() }).await;
    assert_eq!(closed.kind, ErrorKind::Unreachable, "{closed}");
    let tls = failed(SqlServerConfig { tls: TlsConfig::new(TlsMode::Require), ..lab.config() }).await;
    assert_eq!(tls.kind, ErrorKind::SettingWrong, "{tls}");
    assert!(tls.to_string().contains("does not offer TLS"), "{tls}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_in_its_modes() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certificates::create(dir.path(), "client").unwrap();
    // What the server does, what is asked for, and whether rows are encrypted then.
    for (encryption, wanted, covered) in [
        (Encryption::Optional, Wanted::Standard, true),
        (Encryption::Required, Wanted::Standard, true),
        (Encryption::Strict, Wanted::Strict, true),
        (Encryption::Optional, Wanted::LoginOnly, false),
        (Encryption::Required, Wanted::LoginOnly, true),
    ] {
        let certificate = Some(Certificate { chain: certs.server_cert.clone(), key: certs.server_key.clone() });
        let sim = Sim::start(Options { encryption, certificate, ..Options::default() }).unwrap();
        let rows = "CREATE TABLE t (id int NOT NULL PRIMARY KEY, s nvarchar(max)); \
                    INSERT t VALUES (1, REPLICATE(CAST(N'x' AS nvarchar(max)), 100000))";
        sim.execute("vendor", rows).unwrap();
        let with = |tls: TlsConfig| {
            SqlServer::new(SqlServerConfig {
                password: Some(Password::new("Passw0rd!")),
                tls,
                encryption: wanted,
                ..SqlServerConfig::new("localhost", sim.port(), "vendor", "sa")
            })
        };
        let ca = |mode| TlsConfig { ca_file: Some(certs.ca.clone()), ..TlsConfig::new(mode) };
        for good in [ca(TlsMode::VerifyFull), ca(TlsMode::VerifyCa), TlsConfig::new(TlsMode::Require)] {
            let page = with(good).snapshot_chunk(&request("t"), None, 5).await.unwrap();
            assert_eq!(page.rows[0].get(1).len(), 100_000);
        }
        let connector = with(ca(TlsMode::VerifyFull));
        connector.discover(&[]).await.unwrap();
        assert_eq!(sim.encrypted(), [("sa".to_owned(), covered)], "{encryption:?}, {wanted:?}");
        if wanted == Wanted::LoginOnly {
            let all = connector.preflight(&[]).await.unwrap();
            let wanted = if covered { Severity::Ok } else { Severity::Warning };
            assert_eq!(finding(&all, "source.encryption").severity, wanted);
        }
        let others = tempfile::tempdir().unwrap();
        let others = Certificates::create(others.path(), "client").unwrap();
        let stranger = TlsConfig { ca_file: Some(others.ca), ..TlsConfig::new(TlsMode::VerifyFull) };
        let error = with(stranger).discover(&[]).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::SettingWrong, "{error}");
        assert!(error.hint.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_missing_prerequisite_has_its_statement() {
    let lab = Lab::with(Options::default());
    lab.sql("CREATE TABLE a (id int NOT NULL PRIMARY KEY, t int); CREATE TABLE bare (x int)");
    let connector = lab.connector();
    let tables = [request("a"), request("bare"), request("nope")];
    let all = connector.preflight(&tables).await.unwrap();
    assert_eq!(finding(&all, "source.cdc").fix.as_deref(), Some("EXEC sys.sp_cdc_enable_db"));
    assert_eq!(finding(&all, "source.snapshot_isolation").severity, Severity::Warning);
    assert!(finding(&all, "source.key").observed.contains("no primary key"));
    assert_eq!(finding(&all, "source.table").table.as_ref().map(|t| &*t.name), Some("nope"));
    // What each finding says mends it.
    for id in ["source.cdc", "source.snapshot_isolation"] {
        lab.sql(finding(&all, id).fix.as_ref().unwrap());
    }
    let all = connector.preflight(&[request("a")]).await.unwrap();
    let instance = finding(&all, "source.capture_instance");
    assert_eq!(instance.severity, Severity::Error);
    lab.sql(instance.fix.as_ref().unwrap());
    lab.captured();
    let all = connector.preflight(&[request("a")]).await.unwrap();
    let bad: Vec<_> = all.iter().filter(|f| f.severity > Severity::Ok).collect();
    assert!(bad.is_empty(), "{bad:?}");
    lab.sql("ALTER TABLE a ADD more int NULL");
    let all = connector.preflight(&[request("a")]).await.unwrap();
    let instance = finding(&all, "source.capture_instance");
    assert!(instance.observed.contains("more"), "{instance:?}");
    lab.sql(instance.fix.as_ref().unwrap());
    lab.sim.stop_agent();
    lab.sim.drop_jobs("vendor").unwrap();
    let all = connector.preflight(&[]).await.unwrap();
    assert_eq!(finding(&all, "source.agent").severity, Severity::Error);
    assert_eq!(finding(&all, "source.capture_job").severity, Severity::Error);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_rights_are_enough_and_each_is_missed() {
    let lab = Lab::new();
    lab.sql("CREATE TABLE a (id int NOT NULL PRIMARY KEY)");
    lab.capture("a");
    lab.sql("CREATE LOGIN r WITH PASSWORD = 'Secret1!'; CREATE USER r FOR LOGIN r; GRANT SELECT ON dbo.a TO r");
    let config = SqlServerConfig { user: "r".into(), password: Some(Password::new("Secret1!")), ..lab.config() };
    let connector = SqlServer::new(config);
    let all = connector.preflight(&[request("a")]).await.unwrap();
    for id in ["source.view_database_state", "source.cdc_schema"] {
        let missed = finding(&all, id);
        assert!(missed.is_permission && missed.severity == Severity::Error, "{missed:?}");
        lab.sql(missed.fix.as_ref().unwrap());
    }
    let all = connector.preflight(&[request("a")]).await.unwrap();
    assert!(all.iter().all(|f| f.severity < Severity::Error), "{all:?}");
    let mut reader = Reader::open(&connector, &["a"], None).await;
    lab.sql("INSERT a VALUES (1)");
    assert_eq!(reader.changes(&lab).await.len(), 1);
    assert_eq!(connector.snapshot_chunk(&request("a"), None, 5).await.unwrap().rows.len(), 1);
    lab.sql("DENY SELECT ON dbo.a TO r");
    let error = connector.snapshot_chunk(&request("a"), None, 5).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::PermissionMissing | ErrorKind::SettingWrong), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_tells_what_is_left_of_retention() {
    let lab = Lab::new();
    lab.sql("CREATE TABLE a (id int NOT NULL PRIMARY KEY)");
    lab.capture("a");
    let connector = lab.connector();
    let mut reader = Reader::open(&connector, &["a"], None).await;
    lab.sql("INSERT a VALUES (1)");
    reader.settle(&lab).await;
    let left = connector.lag(Some(&reader.at)).await.unwrap().retention.unwrap();
    let whole = Duration::from_secs(4320 * 60);
    assert!(left <= whole && left > whole - Duration::from_secs(600), "{left:?}");
    assert_eq!(connector.lag(None).await.unwrap().retention, None);
    assert!(connector.release().await.unwrap().is_empty());
}

/// A connection that ends in the middle is an error that says so, and the next one works.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_is_unreachable() {
    let lab = Lab::new();
    lab.sql("CREATE TABLE a (id int NOT NULL PRIMARY KEY)");
    lab.capture("a");
    let connector = lab.connector();
    let mut reader = Reader::open(&connector, &["a"], None).await;
    lab.sim.kill_connections();
    let mut out = Vec::new();
    let error = loop {
        match reader.stream.next(&mut out).await {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, ErrorKind::Unreachable, "{error}");
    let mut again = Reader::open(&connector, &["a"], Some(&reader.at)).await;
    lab.sql("INSERT a VALUES (1)");
    assert_eq!(again.changes(&lab).await.len(), 1);
}

/// Only the login is encrypted: the password is not seen on the way, and rows are.
#[tokio::test(flavor = "multi_thread")]
async fn login_only_hides_the_login_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certificates::create(dir.path(), "client").unwrap();
    let certificate = Some(Certificate { chain: certs.server_cert.clone(), key: certs.server_key.clone() });
    let options = Options { encryption: Encryption::Optional, certificate, ..Options::default() };
    let sim = Sim::start(options).unwrap();
    sim.execute(
        "vendor",
        "CREATE TABLE t (id int NOT NULL PRIMARY KEY, s nvarchar(40)); INSERT t VALUES (1, N'visible row')",
    )
    .unwrap();
    let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
    let port = listening(sim.port(), seen.clone()).await;
    for (encryption, rows) in [(Wanted::LoginOnly, true), (Wanted::Standard, false)] {
        seen.lock().unwrap().clear();
        let connector = SqlServer::new(SqlServerConfig {
            password: Some(Password::new("Passw0rd!")),
            tls: TlsConfig { ca_file: Some(certs.ca.clone()), ..TlsConfig::new(TlsMode::VerifyFull) },
            encryption,
            ..SqlServerConfig::new("localhost", port, "vendor", "sa")
        });
        assert_eq!(connector.snapshot_chunk(&request("t"), None, 5).await.unwrap().rows.len(), 1);
        let seen = seen.lock().unwrap().clone();
        let holds = |text: &str| {
            let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            seen.windows(bytes.len()).any(|window| window == bytes)
        };
        assert_eq!(holds("visible row"), rows, "{encryption:?}");
        // LOGIN7 holds it beside the password, which is only scrambled there.
        assert!(!holds("tidemark"), "{encryption:?}: the login was readable");
    }
    let off = SqlServerConfig { encryption: Wanted::LoginOnly, ..Lab::new().config() };
    assert_eq!(SqlServer::new(off).discover(&[]).await.unwrap_err().kind, ErrorKind::SettingWrong);
    let lab = Lab::new();
    let none = SqlServerConfig { encryption: Wanted::LoginOnly, tls: TlsConfig::new(TlsMode::Require), ..lab.config() };
    let error = SqlServer::new(none).discover(&[]).await.unwrap_err();
    assert!(error.to_string().contains("does not offer TLS"), "{error}");
}

/// A way to `port` on which everything that the server and its clients say is written down.
async fn listening(port: u16, seen: Arc<Mutex<Vec<u8>>>) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            let ((a, b), (c, d)) = (near.into_split(), far.into_split());
            for (mut from, mut to) in [(a, d), (c, b)] {
                let seen = seen.clone();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 16 << 10];
                    while let Ok(n @ 1..) = from.read(&mut buffer).await {
                        seen.lock().unwrap().extend_from_slice(&buffer[..n]);
                        if to.write_all(&buffer[..n]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        }
    });
    at
}

/// A token is read at each login, goes out under TLS alone, and is in no words.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_entra_logs_in() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certificates::create(dir.path(), "client").unwrap();
    for (encryption, wanted) in [(Encryption::Required, Wanted::Standard), (Encryption::Strict, Wanted::Strict)] {
        let certificate = Some(Certificate { chain: certs.server_cert.clone(), key: certs.server_key.clone() });
        let sim = Sim::start(Options { encryption, certificate, ..Options::default() }).unwrap();
        let sql = "CREATE TABLE t (id int NOT NULL PRIMARY KEY); CREATE LOGIN app WITH PASSWORD = 'not-used-1!'; \
                   CREATE USER app FOR LOGIN app; GRANT SELECT ON dbo.t TO app; GRANT VIEW DATABASE STATE TO app";
        sim.execute("vendor", sql).unwrap();
        // Longer than one packet, as tokens are.
        let (first, second) = (format!("first.{}", "a".repeat(3000)), format!("second.{}", "b".repeat(3000)));
        let file = dir.path().join("token");
        let config = |mode| SqlServerConfig {
            token: Some(Token::new({
                let file = file.clone();
                move || std::fs::read_to_string(&file).map(Password::new).map_err(|e| e.to_string())
            })),
            tls: TlsConfig { ca_file: Some(certs.ca.clone()), ..TlsConfig::new(mode) },
            encryption: wanted,
            ..SqlServerConfig::new("localhost", sim.port(), "vendor", "app")
        };
        let log_in = async || SqlServer::new(config(TlsMode::VerifyFull)).snapshot_chunk(&request("t"), None, 5).await;
        let _ = std::fs::remove_file(&file);
        let error = log_in().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::SettingWrong, "{error}");
        std::fs::write(&file, &first).unwrap();
        // A server that knows nothing of Entra does not speak of FEDAUTHREQUIRED, and LOGIN7 repeats that.
        let error = log_in().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::AuthRefused, "{error}");
        sim.issue_token(&first, "app", Duration::from_secs(3600));
        assert_eq!(log_in().await.unwrap().rows.len(), 0);
        // It expires; a new one is taken up by the next login.
        sim.issue_token(&second, "app", Duration::ZERO);
        std::fs::write(&file, &second).unwrap();
        let error = log_in().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::AuthRefused, "{error}");
        assert!(error.to_string().contains("expired") && error.hint.is_some(), "{error}");
        let words = format!("{error} {error:?} {:?}", config(TlsMode::VerifyFull));
        assert!(!words.contains(&second) && !words.contains("bbbb"), "{words}");
        std::fs::write(&file, &first).unwrap();
        log_in().await.unwrap();
        for bad in [
            config(TlsMode::Disable),
            SqlServerConfig { encryption: Wanted::LoginOnly, ..config(TlsMode::VerifyFull) },
            SqlServerConfig { password: Some(Password::new("both")), ..config(TlsMode::VerifyFull) },
        ] {
            let error = SqlServer::new(bad).discover(&[]).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::SettingWrong, "{error}");
        }
    }
}

/// Read-only intent, from the listener to the secondary: pages, the tail and the findings come from there.
#[tokio::test(flavor = "multi_thread")]
async fn read_only_intent_leads_to_the_secondary() {
    let options = Options { snapshot_isolation: true, heartbeat: Duration::from_millis(200), ..Options::default() };
    let lab = Lab::with(options);
    lab.sql("EXEC sys.sp_cdc_enable_db");
    lab.sql("CREATE TABLE a (id int NOT NULL PRIMARY KEY, t nvarchar(20))");
    lab.capture("a");
    lab.sql("INSERT a VALUES (1, N'before')");
    let secondary = lab.sim.secondary().unwrap();
    // The primary's listener sends who only reads on; the replica may also be named itself.
    for port in [lab.sim.port(), secondary] {
        let connector = SqlServer::new(SqlServerConfig { port, read_only: true, ..lab.config() });
        let all = connector.preflight(&[request("a")]).await.unwrap();
        let replica = finding(&all, "source.replica");
        assert_eq!(replica.severity, Severity::Ok, "{replica:?}");
        assert!(all.iter().all(|f| f.severity < Severity::Error), "{all:?}");
        assert_eq!(connector.snapshot_chunk(&request("a"), None, 5).await.unwrap().rows.len(), 1);
        // "Up to date" is claimed by what the log reader captured later, its idle row at the latest.
        let mut reader = Reader::open(&connector, &["a"], None).await;
        reader.settle(&lab).await;
        lab.sql(&format!("INSERT a VALUES ({port}, N'x'); UPDATE a SET t = N'y' WHERE id = {port}"));
        let lines: Vec<String> = reader.changes(&lab).await.iter().map(line).collect();
        assert_eq!(lines, [format!("insert {port} x"), format!("update {port} y")]);
        lab.sql(&format!("DELETE a WHERE id = {port}"));
        reader.settle(&lab).await;
    }
    // Without the intent the replica does not let us in, and says why.
    let error = SqlServer::new(SqlServerConfig { port: secondary, ..lab.config() }).discover(&[]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::SettingWrong, "{error}");
    assert!(error.hint.as_deref().is_some_and(|hint| hint.contains("read-only")), "{error:?}");
    // With it and no routing list, the primary answers.
    let alone = Lab::new();
    let connector = SqlServer::new(SqlServerConfig { read_only: true, ..alone.config() });
    let all = connector.preflight(&[]).await.unwrap();
    assert_eq!(finding(&all, "source.replica").severity, Severity::Warning);
}

/// A log reader in trouble, and changes that are not kept: each has its own finding, with the statement that mends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_reader_in_trouble_has_its_findings() {
    let lab = Lab::new();
    lab.sql("CREATE TABLE a (id int NOT NULL PRIMARY KEY)");
    lab.capture("a");
    let connector = lab.connector();
    let look = async || connector.preflight(&[request("a")]).await.unwrap();
    assert!(look().await.iter().all(|f| f.severity == Severity::Ok), "{:?}", look().await);
    // Scan errors.
    lab.sim.break_log_scan("vendor", Some((9002, "The transaction log for database 'vendor' is full."))).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while finding(&look().await, "source.log_reader_errors").severity == Severity::Ok {
        assert!(std::time::Instant::now() < deadline, "the error is not told: {:?}", look().await);
    }
    let all = look().await;
    let errors = finding(&all, "source.log_reader_errors");
    assert!(errors.observed.contains("9002"), "{errors:?}");
    lab.sim.break_log_scan("vendor", None).unwrap();
    // Too short a retention.
    lab.sql("EXEC sys.sp_cdc_change_job @job_type = N'cleanup', @retention = 60");
    let all = look().await;
    let retention = finding(&all, "source.retention");
    assert_eq!(retention.severity, Severity::Warning, "{retention:?}");
    lab.sql(retention.fix.as_ref().unwrap());
    assert_eq!(finding(&look().await, "source.retention").severity, Severity::Ok);
    // Jobs that are not there, one after the other.
    lab.sql("EXEC sys.sp_cdc_drop_job @job_type = N'cleanup'");
    let all = look().await;
    let cleanup = finding(&all, "source.retention");
    assert_eq!(cleanup.severity, Severity::Warning, "{cleanup:?}");
    lab.sql(cleanup.fix.as_ref().unwrap());
    lab.sql("EXEC sys.sp_cdc_drop_job @job_type = N'capture'");
    let all = look().await;
    let capture = finding(&all, "source.capture_job");
    assert_eq!(capture.severity, Severity::Error, "{capture:?}");
    lab.sql(capture.fix.as_ref().unwrap());
    assert!(look().await.iter().all(|f| f.id == "source.log_reader_errors" || f.severity == Severity::Ok));
    // A job that is there and does not run is seen by the age of its last scan.
    lab.sim.stop_capture("vendor").unwrap();
    lab.sim.age_scans("vendor", Duration::from_secs(600)).unwrap();
    let all = look().await;
    let stopped = finding(&all, "source.log_reader");
    assert_eq!(stopped.severity, Severity::Error, "{stopped:?}");
    lab.sql(stopped.fix.as_ref().unwrap());
    lab.sql("INSERT a VALUES (1)");
    lab.captured();
    assert_eq!(finding(&look().await, "source.log_reader").severity, Severity::Ok);
}
