//! Logging in, TLS, and what `check` finds.

use super::lab::{BARRIER, Lab, PASSWORD, last_position, shown, table, words};
use tidemark_contract::{Connector, ErrorKind, Finding, Severity};
use tidemark_mysql::{Mysql, MysqlConfig, Password, TlsConfig, TlsMode};
use tidemark_throwaway::{MysqlFlavour, MysqlOptions};

const GOODS: &str = "CREATE TABLE goods (id INT PRIMARY KEY, a VARCHAR(20));";

async fn login(config: &MysqlConfig) -> Result<(), tidemark_contract::SourceError> {
    Mysql::new(config.clone()).discover(&[table("goods")]).await.map(drop)
}

async fn every_plugin_lets_us_in(flavour: MysqlFlavour) {
    let mut options = MysqlOptions::new(flavour);
    options.tls = true;
    if flavour == MysqlFlavour::MariaDb {
        options = options.setting("plugin-load-add", "auth_ed25519");
    }
    let lab = Lab::with(options, &format!("{BARRIER}{GOODS}"));
    let plugins = match flavour {
        MysqlFlavour::MariaDb => ["mysql_native_password", "ed25519"].as_slice(),
        MysqlFlavour::MySql => &["caching_sha2_password", "sha256_password"],
    };
    for plugin in plugins {
        let how = match flavour {
            MysqlFlavour::MariaDb => format!("VIA {plugin} USING PASSWORD('p\u{e4}ss word')"),
            MysqlFlavour::MySql => format!("WITH {plugin} BY 'p\u{e4}ss word'"),
        };
        lab.sql(&format!(
            "SET NAMES utf8mb4; CREATE USER u_{plugin}@'%' IDENTIFIED {how}; GRANT SELECT ON shop.* TO u_{plugin}@'%'"
        ));
        let mut config = lab.config.clone();
        config.user = format!("u_{plugin}");
        config.password = Some(Password::new("p\u{e4}ss word"));
        let authority = lab.cluster.certificates().unwrap().ca.clone();
        // Twice without TLS: by the RSA key first, from the server's cache then.
        for mode in [TlsMode::Disable, TlsMode::Disable, TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
            config.tls = TlsConfig { ca_file: Some(authority.clone()), ..TlsConfig::new(mode) };
            let result = login(&config).await;
            assert!(result.is_ok(), "{plugin} {mode:?}: {result:?}");
        }
        config.password = Some(Password::new("wrong"));
        let error = login(&config).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::AuthRefused, "{plugin}: {error}");
    }
    // An authority that did not sign the server's certificate.
    let mut config = lab.config.clone();
    config.tls = TlsConfig::new(TlsMode::VerifyFull);
    assert_eq!(login(&config).await.unwrap_err().kind, ErrorKind::SettingWrong);
    config.tls = TlsConfig::new(TlsMode::Require);
    login(&config).await.unwrap();
    config.database = "nowhere".into();
    let error = login(&config).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::SettingWrong | ErrorKind::PermissionMissing), "{error}");
    let shown = format!("{config:?} {error:?}");
    assert!(!shown.contains(PASSWORD));
}

/// A path as the host: pages, the log and its head go through the server's socket, whatever the TLS mode and the port.
async fn a_unix_socket_is_a_way_in(flavour: MysqlFlavour) {
    let lab = Lab::new(flavour, &format!("{BARRIER}{GOODS} INSERT INTO goods VALUES (1, 'a');"));
    let mut config = MysqlConfig::new(lab.cluster.socket().to_str().unwrap(), 1, "shop", "tidemark");
    config.password = Some(Password::new(PASSWORD));
    config.tls = TlsConfig::new(TlsMode::VerifyFull);
    let goods = [table("goods")];
    let connector = Mysql::new(config.clone());
    let findings = connector.preflight(&goods).await.unwrap();
    assert!(findings.iter().all(|f| f.severity == Severity::Ok), "{findings:#?}");
    let page = connector.snapshot_chunk(&goods[0], None, 10).await.unwrap();
    assert_eq!(page.rows.iter().map(shown).collect::<Vec<_>>(), ["1 a"]);
    let mut stream = connector.open_stream(&goods, None).await.unwrap();
    lab.sql("INSERT INTO goods VALUES (2, 'b')");
    let told = lab.drain(&connector, &mut stream).await;
    assert_eq!(words(&told), ["insert goods 2 b"]);
    let from = last_position(&told);
    stream.close().await.unwrap();
    // It is the same server, whichever way: a position of the one is good for the other.
    let other = lab.connector();
    let mut stream = other.open_stream(&goods, Some(&from)).await.unwrap();
    lab.sql("DELETE FROM goods WHERE id = 1");
    assert_eq!(words(&lab.drain(&other, &mut stream).await), ["delete goods 1 a"]);
    stream.close().await.unwrap();
    config.host = "/nowhere/at/all".into();
    let error = login(&config).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}

fn find<'a>(findings: &'a [Finding], id: &str) -> &'a Finding {
    findings.iter().find(|f| f.id == id).unwrap_or_else(|| panic!("no finding {id} in {findings:#?}"))
}

async fn check_is_content(flavour: MysqlFlavour) {
    let lab = Lab::new(flavour, &format!("{BARRIER}{GOODS}"));
    let findings = lab.connector().preflight(&[table("goods")]).await.unwrap();
    let bad: Vec<_> = findings.iter().filter(|f| f.severity != Severity::Ok).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert!(findings.len() >= 10);
}

async fn check_finds_what_is_wrong(flavour: MysqlFlavour) {
    let mut options = MysqlOptions::new(flavour)
        .setting("binlog-format", "STATEMENT")
        .setting("binlog-row-image", "MINIMAL")
        .setting("binlog-row-metadata", "MINIMAL");
    options.gtid = false;
    let sql = "CREATE TABLE keyless (a INT); CREATE TABLE child (id INT PRIMARY KEY, p INT,
               FOREIGN KEY (p) REFERENCES goods (id) ON DELETE CASCADE); CREATE VIEW seen AS SELECT * FROM goods;";
    let lab = Lab::with(options, &format!("{BARRIER}{GOODS}{sql}"));
    lab.cluster.sql("CREATE USER poor@'%' IDENTIFIED BY 'x'; GRANT SELECT ON shop.goods TO poor@'%'").unwrap();
    let tables = ["goods", "keyless", "child", "seen", "nothing"].map(table);
    let mut config = lab.config.clone();
    config.server_id = 1;
    let findings = Mysql::new(config.clone()).preflight(&tables).await.unwrap();
    for (id, severity) in [
        ("source.binlog_format", Severity::Error),
        ("source.binlog_row_image", Severity::Warning),
        ("source.binlog_row_metadata", Severity::Warning),
        ("source.server_id", Severity::Error),
        ("source.key", Severity::Error),
        ("source.cascade", Severity::Warning),
        ("source.table_kind", Severity::Error),
    ] {
        assert_eq!(find(&findings, id).severity, severity, "{id}");
    }
    let missing = findings.iter().find(|f| f.table.as_ref().is_some_and(|t| &*t.name == "nothing")).unwrap();
    assert_eq!(missing.severity, Severity::Error);
    for finding in findings.iter().filter(|f| f.id.starts_with("source.binlog") && f.severity != Severity::Ok) {
        lab.cluster.sql(finding.fix.as_deref().unwrap()).unwrap();
    }
    config.server_id = 7001;
    let findings = Mysql::new(config.clone()).preflight(&tables[..1]).await.unwrap();
    assert!(findings.iter().all(|f| f.severity != Severity::Error), "{findings:#?}");
    config.user = "poor".into();
    config.password = Some(Password::new("x"));
    let findings = Mysql::new(config).preflight(&tables[..1]).await.unwrap();
    let denied = find(&findings, "source.replication_client");
    assert!(
        denied.is_permission && denied.severity == Severity::Error && denied.fix.as_deref().unwrap().contains("GRANT")
    );
}

on_both! {
    every_plugin_lets_us_in,
    a_unix_socket_is_a_way_in,
    check_is_content,
    check_finds_what_is_wrong,
}
