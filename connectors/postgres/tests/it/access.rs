//! TLS, authentication and rights: what is let in, and what is said when it is not.

use crate::lab::{Lab, changes, table};
use tidemark_contract::{Connector, ErrorKind, Finding, Severity};
use tidemark_postgres::{Password, Postgres, PostgresConfig, TlsConfig, TlsMode};
use tidemark_throwaway::{Auth, PostgresOptions};

const SECRET: &str = "s3cret 'w0rd\\";

fn options(auth: Auth, ssl: bool) -> PostgresOptions {
    PostgresOptions { auth, ssl, password: Some(SECRET.into()), ..PostgresOptions::default() }
        .setting("listen_addresses", "127.0.0.1,127.0.0.2")
}

fn with_password(lab: &Lab) -> PostgresConfig {
    PostgresConfig { password: Some(Password::new(SECRET)), ..lab.config.clone() }
}

async fn works(config: PostgresConfig) -> Result<(), (ErrorKind, String)> {
    let connector = Postgres::new(config);
    assert!(!format!("{connector:?}").contains("s3cret"));
    let told = |e: tidemark_contract::SourceError| {
        assert!(!format!("{e:?}").contains("s3cret"));
        (e.kind, format!("{e} / {}", e.hint.as_deref().unwrap_or_default()))
    };
    connector.discover(&[]).await.map_err(told)?;
    // The replication connection is made by the same code, but let it prove that.
    drop(connector.open_stream(&[table("t")], None).await.map_err(told)?);
    Ok(())
}

fn refused(result: Result<(), (ErrorKind, String)>, kind: ErrorKind, words: &str) {
    let (seen, message) = result.expect_err("must be refused");
    assert_eq!(seen, kind, "{message}");
    assert!(message.contains(words), "{message}");
}

const T: &str = "CREATE TABLE t (id int PRIMARY KEY)";

#[tokio::test]
async fn tls_modes_and_scram() {
    let lab = Lab::with(options(Auth::Scram, true), T);
    let certificates = lab.cluster.certificates().unwrap().clone();
    let with = |mode, host: &str, ca: bool| PostgresConfig {
        host: host.into(),
        tls: TlsConfig { ca_file: ca.then(|| certificates.ca.clone()), ..TlsConfig::new(mode) },
        ..with_password(&lab)
    };
    // The certificate is for localhost and 127.0.0.1, not for 127.0.0.2.
    for (mode, host, ca) in [
        (TlsMode::VerifyFull, "localhost", true),
        (TlsMode::VerifyFull, "127.0.0.1", true),
        (TlsMode::VerifyCa, "127.0.0.2", true),
        (TlsMode::Require, "127.0.0.2", true),
        (TlsMode::Require, "127.0.0.2", false),
    ] {
        works(with(mode, host, ca)).await.unwrap();
    }
    refused(works(with(TlsMode::VerifyFull, "127.0.0.2", true)).await, ErrorKind::SettingWrong, "another host name");
    for mode in [TlsMode::VerifyFull, TlsMode::VerifyCa] {
        let mut config = with(mode, "localhost", true);
        // Another authority: the server's own certificate signs nothing.
        config.tls.ca_file = Some(certificates.client_cert.clone());
        refused(works(config).await, ErrorKind::SettingWrong, "ca_file");
    }
    refused(works(with(TlsMode::Disable, "127.0.0.1", false)).await, ErrorKind::AuthRefused, "pg_hba.conf");
    let wrong =
        PostgresConfig { password: Some(Password::new("s3cret no")), ..with(TlsMode::VerifyFull, "localhost", true) };
    refused(works(wrong).await, ErrorKind::AuthRefused, "password");
    let none = PostgresConfig { password: None, ..with(TlsMode::VerifyFull, "localhost", true) };
    refused(works(none).await, ErrorKind::AuthRefused, "none is configured");
    // The password exchange was bound to the certificate.
    let config = with(TlsMode::VerifyFull, "localhost", true);
    let findings = Postgres::new(config).preflight(&[table("t")]).await.unwrap();
    assert!(findings.iter().any(|f| f.id == "source.tls" && f.severity == Severity::Ok));
}

#[tokio::test]
async fn client_certificates() {
    let lab = Lab::with(options(Auth::Certificate, true), T);
    let certificates = lab.cluster.certificates().unwrap().clone();
    let mut config = PostgresConfig { host: "localhost".into(), ..lab.config.clone() };
    config.tls = TlsConfig { ca_file: Some(certificates.ca), ..TlsConfig::new(TlsMode::VerifyFull) };
    refused(works(config.clone()).await, ErrorKind::AuthRefused, "certificate");
    config.tls.client_cert = Some(certificates.client_cert);
    config.tls.client_key = Some(certificates.client_key);
    works(config).await.unwrap();
}

#[tokio::test]
async fn passwords_are_not_told_to_everybody() {
    let lab = Lab::with(options(Auth::Scram, false), T);
    works(with_password(&lab)).await.unwrap();
    let tls = PostgresConfig { tls: TlsConfig::new(TlsMode::Require), ..with_password(&lab) };
    refused(works(tls).await, ErrorKind::SettingWrong, "does not offer TLS");
    let hba = |method: &str| {
        let file = lab.cluster.data_dir().join("pg_hba.conf");
        std::fs::write(file, format!("local all all trust\nhost all all 127.0.0.1/32 {method}\n")).unwrap();
        lab.sql("SELECT pg_reload_conf(), pg_sleep(0.2)");
    };
    hba("password");
    refused(works(with_password(&lab)).await, ErrorKind::AuthRefused, "in the clear");
    lab.sql("SET password_encryption = 'md5'; ALTER ROLE postgres PASSWORD 's3cret'");
    hba("md5");
    let md5 = PostgresConfig { password: Some(Password::new("s3cret")), ..lab.config.clone() };
    works(md5).await.unwrap();
    // A unix socket needs neither TLS nor a password here.
    let unix = PostgresConfig { host: lab.cluster.socket_dir().display().to_string(), ..lab.config.clone() };
    let unix = PostgresConfig { tls: TlsConfig::default(), ..unix };
    works(unix).await.unwrap();
    let nobody = PostgresConfig { user: "nobody".into(), ..with_password(&lab) };
    refused(works(nobody).await, ErrorKind::AuthRefused, "nobody");
    let nowhere =
        PostgresConfig { database: "nowhere".into(), password: Some(Password::new("s3cret")), ..lab.config.clone() };
    refused(works(nowhere).await, ErrorKind::SettingWrong, "nowhere");
    let closed = PostgresConfig { port: 1, ..lab.config.clone() };
    refused(works(closed).await, ErrorKind::Unreachable, "127.0.0.1:1");
}

fn errors(findings: &[Finding]) -> Vec<&Finding> {
    findings.iter().filter(|f| f.severity == Severity::Error).collect()
}

#[tokio::test]
async fn every_missing_prerequisite_is_found_with_its_remedy() {
    let lab = Lab::new(
        "CREATE ROLE reader LOGIN; REVOKE ALL ON SCHEMA public FROM PUBLIC;
         CREATE TABLE a (id int PRIMARY KEY, x int); ALTER TABLE a REPLICA IDENTITY NOTHING;
         CREATE UNLOGGED TABLE b (id int PRIMARY KEY);
         CREATE TABLE c (id int PRIMARY KEY); ALTER TABLE c ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON c USING (id > 5);
         INSERT INTO a VALUES (1, 1)",
    );
    let config = PostgresConfig { user: "reader".into(), ..lab.config.clone() };
    let connector = Postgres::new(config);
    let tables = [table("a"), table("b"), table("c")];
    // Mended step by step with the statements of the findings alone, run by an administrator.
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..4 {
        let findings = connector.preflight(&tables).await.unwrap();
        let errors = errors(&findings);
        if errors.is_empty() {
            break;
        }
        for finding in errors {
            seen.insert(finding.id);
            lab.sql(finding.fix.as_ref().expect("a statement"));
        }
    }
    let wanted = [
        "source.publication",
        "source.replica_identity",
        "source.replication_right",
        "source.row_security",
        "source.select_right",
        "source.table_kind",
    ];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), wanted);
    let findings = connector.preflight(&tables).await.unwrap();
    assert!(errors(&findings).is_empty());
    let mut stream = connector.open_stream(&tables, None).await.unwrap();
    lab.sql("UPDATE a SET x = 2");
    assert_eq!(changes(&lab.drain(&connector, &mut stream).await), ["update 1|2"]);
    assert_eq!(connector.snapshot_chunk(&tables[0], None, 10).await.unwrap().rows.len(), 1);
}

#[tokio::test]
async fn missing_rights_stop_a_stream_with_the_statement() {
    let lab = Lab::new(
        "CREATE ROLE reader LOGIN REPLICATION; CREATE TABLE t (id int PRIMARY KEY); GRANT SELECT ON t TO reader;
         CREATE TABLE hidden (id int PRIMARY KEY, x int)",
    );
    let connector = Postgres::new(PostgresConfig { user: "reader".into(), ..lab.config.clone() });
    let error = connector.open_stream(&[table("t")], None).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::PermissionMissing);
    let hint = error.hint.unwrap();
    let sql = hint.split_once(": ").unwrap().1;
    assert_eq!(lab.sql("SELECT count(*) FROM pg_replication_slots"), "0");
    lab.sql(sql);
    drop(connector.open_stream(&[table("t")], None).await.unwrap());
    lab.slot_is_free().await;
    let error = connector.open_stream(&[table("t"), table("hidden")], None).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::PermissionMissing);
    assert!(error.hint.unwrap().ends_with("ALTER PUBLICATION \"tidemark\" ADD TABLE ONLY \"public\".\"hidden\""));
    let error = connector.snapshot_chunk(&table("hidden"), None, 1).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionMissing);
}

#[tokio::test]
async fn servers_that_are_not_set_up_for_it() {
    let options = PostgresOptions::default().setting("wal_level", "replica").setting("max_replication_slots", "1");
    let lab = Lab::with(options, T);
    let connector = lab.connector();
    lab.sql("SELECT pg_create_physical_replication_slot('x')");
    let findings = connector.preflight(&[table("t"), table("nowhere")]).await.unwrap();
    let ids: Vec<&str> = errors(&findings).iter().map(|f| f.id).collect();
    assert_eq!(ids, ["source.wal_level", "source.slots_free", "source.table_exists"]);
    let error = connector.open_stream(&[table("t")], None).await.err().unwrap();
    assert_eq!(error.kind, ErrorKind::SettingWrong);
    assert!(error.hint.unwrap().contains("wal_level"));
    lab.sql("ALTER SYSTEM SET wal_level = 'logical'");
}
