//! The simulator through FreeTDS' `tsql`, a client that shares no line with the others: every kind of encryption, values,
//! errors.

use super::support::run;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use tidemark_sqlserver_sim::{Certificate, Encryption, Options, Sim};
use tidemark_throwaway::Certificates;

/// Whether `tsql` is there. Where everything is demanded, its absence fails the test.
fn available() -> bool {
    let there = Command::new("tsql").arg("-C").output().is_ok();
    if !there {
        assert!(
            std::env::var("TIDEMARK_REQUIRE_ALL").as_deref() != Ok("1"),
            "tsql is missing and TIDEMARK_REQUIRE_ALL=1: install it (`apt-get install freetds-bin`)"
        );
        eprintln!("skipped: tsql is not installed (`apt-get install freetds-bin`)");
    }
    there
}

fn server(dir: &Path, encryption: Encryption) -> Sim {
    let certs = Certificates::create(dir, "client").unwrap();
    let certificate = Some(Certificate { chain: certs.server_cert, key: certs.server_key });
    Sim::start(Options { encryption, certificate, ..Options::default() }).unwrap()
}

/// Runs a script through `tsql`: all it prints.
fn tsql(sim: &Sim, dir: &Path, encryption: &str, script: &str) -> String {
    let conf = dir.join("freetds.conf");
    let text = format!(
        "[sim]\nhost = 127.0.0.1\nport = {}\ntds version = 7.4\nencryption = {encryption}\nclient charset = UTF-8\n",
        sim.port()
    );
    std::fs::write(&conf, text).unwrap();
    let mut child = Command::new("tsql")
        .args(["-S", "sim", "-U", "sa", "-P", "Passw0rd!", "-D", "vendor", "-o", "fhq"])
        .env("FREETDSCONF", &conf)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn every_encryption_connects() {
    if !available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (offered, asked) in [
        (Encryption::Off, "off"),
        (Encryption::Optional, "off"),
        (Encryption::Optional, "request"),
        (Encryption::Optional, "require"),
        (Encryption::Required, "require"),
        (Encryption::Required, "request"),
    ] {
        let sim = server(dir.path(), offered);
        let shown = tsql(&sim, dir.path(), asked, "select N'h\u{e9}llo', 42\ngo\n");
        assert!(shown.contains("h\u{e9}llo\t42"), "{offered:?} {asked}: {shown}");
    }
    let sim = server(dir.path(), Encryption::Off);
    let refused = tsql(&sim, dir.path(), "require", "select 42\ngo\n");
    assert!(!refused.contains("42"), "{refused}");
}

#[test]
fn values_and_errors() {
    if !available() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let sim = server(dir.path(), Encryption::Off);
    run(
        &sim,
        "CREATE TABLE t (a tinyint, b smallint, c int, d bigint, e bit, f decimal(38,4), g money, h float, i nvarchar(max), j varbinary(max), k uniqueidentifier)",
    );
    run(
        &sim,
        "INSERT t VALUES (255, -1, 2, -3, 1, '-12345678901234567890123456789012.1234', '922337203685477.5807', 0.5, N'\u{20ac}', 0xABCD, '6F9619FF-8B86-D011-B42D-00C04FC964FF'), \
         (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    );
    let shown = tsql(&sim, dir.path(), "off", "select * from t\ngo\n");
    let expected = "255\t-1\t2\t-3\t1\t-12345678901234567890123456789012.1234\t922337203685477.5807\t0.5\t\u{20ac}\tabcd\t6F9619FF-8B86-D011-B42D-00C04FC964FF";
    assert!(shown.contains(expected), "{shown}");
    assert!(shown.contains(&["NULL"; 11].join("\t")), "{shown}");
    let times = "select cast('2024-02-29 23:59:59.997' as datetime) a, convert(varchar(40), cast('2024-02-29T10:00:00.123+05:30' as datetimeoffset(3))) b\ngo\n";
    let shown = tsql(&sim, dir.path(), "off", times);
    assert!(
        shown.contains("Feb 29 2024 11:59PM\t2024-02-29 10:00:00.123 +05:30")
            || shown.contains("2024-02-29 10:00:00.123 +05:30"),
        "{shown}"
    );
    let shown = tsql(&sim, dir.path(), "off", "select 1/0\ngo\nselect * from nope\ngo\nselect 7\ngo\n");
    assert!(shown.contains("Msg 8134") && shown.contains("Msg 208") && shown.contains('7'), "{shown}");
}
