//! Logins, rights, TLS, findings, lag.

use super::lab::{Lab, Reader, request};
use std::time::Duration;
use tidemark_contract::{Connector, ErrorKind, Finding, Severity};
use tidemark_sqlserver::{Password, SqlServer, SqlServerConfig, TlsConfig, TlsMode};
use tidemark_sqlserver_sim::{Certificate, Encryption, Options, Sim};
use tidemark_throwaway::Certificates;

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
    for (encryption, strict) in
        [(Encryption::Optional, false), (Encryption::Required, false), (Encryption::Strict, true)]
    {
        let certificate = Some(Certificate { chain: certs.server_cert.clone(), key: certs.server_key.clone() });
        let sim = Sim::start(Options { encryption, certificate, ..Options::default() }).unwrap();
        let rows = "CREATE TABLE t (id int NOT NULL PRIMARY KEY, s nvarchar(max)); \
                    INSERT t VALUES (1, REPLICATE(CAST(N'x' AS nvarchar(max)), 100000))";
        sim.execute("vendor", rows).unwrap();
        let with = |tls: TlsConfig| {
            SqlServer::new(SqlServerConfig {
                password: Some(Password::new("Passw0rd!")),
                tls,
                strict,
                ..SqlServerConfig::new("localhost", sim.port(), "vendor", "sa")
            })
        };
        let ca = |mode| TlsConfig { ca_file: Some(certs.ca.clone()), ..TlsConfig::new(mode) };
        for good in [ca(TlsMode::VerifyFull), ca(TlsMode::VerifyCa), TlsConfig::new(TlsMode::Require)] {
            let page = with(good).snapshot_chunk(&request("t"), None, 5).await.unwrap();
            assert_eq!(page.rows[0].get(1).len(), 100_000);
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
