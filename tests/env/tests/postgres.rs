//! The throwaway cluster against the real programs.

use std::time::{Duration, Instant};
use tidemark_throwaway::{Auth, PostgresCluster, PostgresOptions};

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

#[test]
fn a_cluster_answers_survives_crashes_and_leaves_nothing() {
    let mut cluster = PostgresCluster::start(PostgresOptions::default().setting("work_mem", "5MB")).unwrap();
    assert_eq!(cluster.psql("SHOW wal_level; SHOW work_mem").unwrap(), "logical\n5MB");
    cluster.createdb("shop").unwrap();
    cluster.psql_in("shop", "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)").unwrap();
    let port = cluster.port();
    cluster.psql("CHECKPOINT").unwrap();
    cluster.stop_immediate().unwrap();
    assert!(cluster.psql("SELECT 1").is_err());
    cluster.start_again().unwrap();
    assert_eq!(cluster.port(), port);
    cluster.kill().unwrap();
    cluster.start_again().unwrap();
    assert_eq!(cluster.psql_in("shop", "SELECT sum(a) FROM t").unwrap(), "3");
    let (pid, dir) = (cluster.pid().unwrap(), cluster.socket_dir().to_owned());
    drop(cluster);
    assert!(!exists(pid) && !dir.exists());
}

#[test]
fn an_sql_error_is_told() {
    let cluster = PostgresCluster::start(PostgresOptions::default()).unwrap();
    let error = cluster.psql("SELECT 1; SELECT * FROM nowhere").unwrap_err().to_string();
    assert!(error.contains("nowhere"), "{error}");
}

#[test]
fn tls_and_passwords() {
    let options = PostgresOptions {
        ssl: true,
        auth: Auth::Scram,
        password: Some("it's secret".into()),
        ..PostgresOptions::default()
    };
    let cluster = PostgresCluster::start(options).unwrap();
    assert!(cluster.certificates().unwrap().ca.is_file());
    assert_eq!(cluster.psql("SHOW ssl").unwrap(), "on");
    let hash = cluster.psql("SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'").unwrap();
    assert!(hash.starts_with("SCRAM-SHA-256"));
}

/// The child of the next test: starts a cluster, tells where, and waits to be killed.
#[test]
#[ignore = "run by the_death_of_the_owner_takes_the_server_along"]
fn owner() {
    let cluster = PostgresCluster::start(PostgresOptions::default()).unwrap();
    println!("AT {} {}", cluster.pid().unwrap(), cluster.socket_dir().display());
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn the_death_of_the_owner_takes_the_server_along() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "owner", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
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
