//! The throwaway MariaDB and MySQL servers against the real programs.

// Helpers of tests fail like tests do.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{Duration, Instant};
use tidemark_throwaway::{Error, MysqlCluster, MysqlFlavour, MysqlOptions};

fn exists(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
}

fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A server, or the end of the test where there is none and nobody insists.
fn start(options: MysqlOptions) -> Option<MysqlCluster> {
    match MysqlCluster::start(options) {
        Ok(cluster) => Some(cluster),
        Err(error @ Error::Missing { .. }) if std::env::var("TIDEMARK_REQUIRE_ALL").as_deref() != Ok("1") => {
            println!("DID NOT RUN: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn answers_survives_crashes_and_leaves_nothing(flavour: MysqlFlavour) {
    let options = MysqlOptions { server_id: 77, ..MysqlOptions::new(flavour) }.setting("max-connections", "33");
    let Some(mut cluster) = start(options) else { return };
    assert_eq!(cluster.version().unwrap().contains("MariaDB"), flavour == MysqlFlavour::MariaDb);
    let asked = "SELECT @@server_id, @@max_connections, @@log_bin, @@binlog_format, @@binlog_row_metadata, @@time_zone";
    assert_eq!(cluster.sql(asked).unwrap(), "77\t33\t1\tROW\tFULL\t+00:00");
    cluster.create_database("shop").unwrap();
    cluster.sql_in("shop", "CREATE TABLE t (a int PRIMARY KEY); INSERT INTO t VALUES (1), (2)").unwrap();
    let port = cluster.port();
    let identity = match flavour {
        MysqlFlavour::MariaDb => "SELECT @@server_id",
        MysqlFlavour::MySql => "SELECT @@server_uuid",
    };
    let before = cluster.sql(identity).unwrap();
    cluster.stop().unwrap();
    assert!(cluster.sql("SELECT 1").is_err());
    cluster.start_again().unwrap();
    assert_eq!((cluster.port(), cluster.sql(identity).unwrap()), (port, before.clone()));
    cluster.kill().unwrap();
    cluster.start_again().unwrap();
    assert_eq!(cluster.sql_in("shop", "SELECT sum(a) FROM t").unwrap(), "3");
    let error = cluster.sql("SELECT 1; SELECT * FROM nowhere.nothing").unwrap_err().to_string();
    assert!(error.contains("nothing") || error.contains("nowhere"), "{error}");

    let Some(other) = start(MysqlOptions::new(flavour)) else { return };
    assert_ne!(other.sql(identity).unwrap(), before, "two servers must not have one identity");
    let (pid, socket) = (cluster.pid().unwrap(), cluster.socket());
    drop(cluster);
    assert!(!exists(pid) && !socket.parent().unwrap().exists());
    assert_eq!(other.sql("SELECT 1").unwrap(), "1");
}

fn replicates(flavour: MysqlFlavour) {
    let Some(primary) = start(MysqlOptions::new(flavour)) else { return };
    let Some(replica) = start(MysqlOptions { server_id: 2, ..MysqlOptions::new(flavour) }) else {
        return;
    };
    replica.replicate_from(&primary).unwrap();
    primary
        .sql("CREATE DATABASE shop; CREATE TABLE shop.t (a int PRIMARY KEY); INSERT INTO shop.t VALUES (1), (2)")
        .unwrap();
    replica.wait_for(&primary).unwrap();
    assert_eq!(replica.sql("SELECT sum(a) FROM shop.t").unwrap(), "3");
    replica.promote().unwrap();
    replica.sql("INSERT INTO shop.t VALUES (3)").unwrap();
    assert_eq!(primary.sql("SELECT sum(a) FROM shop.t").unwrap(), "3");
}

fn serves_tls(flavour: MysqlFlavour) {
    for tls in [true, false] {
        let Some(cluster) = start(MysqlOptions { tls, ..MysqlOptions::new(flavour) }) else { return };
        assert_eq!(cluster.certificates().is_some(), tls);
        cluster.sql("CREATE USER someone@'%' IDENTIFIED BY 'secret'").unwrap();
        let mut client = cluster.tool("client");
        client.args(["-h", "127.0.0.1", "--protocol=tcp", "-usomeone", "-psecret", "-N", "-B"]);
        client.arg(format!("-P{}", cluster.port())).args(["-e", "SHOW STATUS LIKE 'Ssl_cipher'"]);
        match (flavour, tls) {
            (MysqlFlavour::MariaDb, true) => client.args(["--ssl", "--ssl-verify-server-cert"]),
            (MysqlFlavour::MySql, true) => client.arg("--ssl-mode=VERIFY_IDENTITY"),
            (MysqlFlavour::MySql, false) => client.arg("--get-server-public-key"),
            (MysqlFlavour::MariaDb, false) => &mut client,
        };
        if let Some(certificates) = cluster.certificates() {
            client.arg(format!("--ssl-ca={}", certificates.ca.display()));
        }
        let output = client.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let cipher = String::from_utf8_lossy(&output.stdout).trim().replace("Ssl_cipher", "");
        assert_eq!(!cipher.trim().is_empty(), tls, "{cipher}");
    }
}

#[test]
fn mariadb_answers_survives_crashes_and_leaves_nothing() {
    answers_survives_crashes_and_leaves_nothing(MysqlFlavour::MariaDb);
}

#[test]
fn mysql_answers_survives_crashes_and_leaves_nothing() {
    answers_survives_crashes_and_leaves_nothing(MysqlFlavour::MySql);
}

#[test]
fn mariadb_replicates() {
    replicates(MysqlFlavour::MariaDb);
}

#[test]
fn mysql_replicates() {
    replicates(MysqlFlavour::MySql);
}

#[test]
fn mariadb_serves_tls() {
    serves_tls(MysqlFlavour::MariaDb);
}

#[test]
fn mysql_serves_tls() {
    serves_tls(MysqlFlavour::MySql);
}

/// The child of the next test: starts a server, tells where, and waits to be killed.
#[test]
#[ignore = "run by the_death_of_the_owner_takes_the_server_along"]
fn owner() {
    let flavour = if std::env::var_os("OWN_MYSQL").is_some() { MysqlFlavour::MySql } else { MysqlFlavour::MariaDb };
    let cluster = MysqlCluster::start(MysqlOptions::new(flavour)).unwrap();
    println!("AT {} {}", cluster.pid().unwrap(), cluster.socket().parent().unwrap().display());
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn the_death_of_the_owner_takes_the_server_along() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    for flavour in MysqlFlavour::BOTH {
        if start(MysqlOptions::new(flavour)).is_none() {
            continue;
        }
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "owner", "--ignored", "--nocapture"]).stdout(Stdio::piped());
        if flavour == MysqlFlavour::MySql {
            child.env("OWN_MYSQL", "1");
        }
        let mut child = child.spawn().unwrap();
        let line = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok)
            .find_map(|l| l.split_once("AT ").map(|(_, rest)| rest.to_owned()))
            .expect("the child tells where its server is");
        let (pid, dir) = line.split_once(' ').unwrap();
        let (pid, dir) = (pid.parse().unwrap(), std::path::Path::new(dir));
        assert!(exists(pid) && dir.exists());
        child.kill().unwrap();
        child.wait().unwrap();
        eventually("the server should be gone", || !exists(pid));
        eventually("its directory should be gone", || !dir.exists());
    }
}
