use super::*;
use std::collections::BTreeSet;
use std::path::PathBuf;

#[test]
fn the_table_is_whole_and_consistent() {
    let all = Kind::all();
    let words: BTreeSet<&str> = all.iter().map(|kind| kind.policy().word).collect();
    assert_eq!(words.len(), all.len(), "each kind has its own word, and none is listed twice");
    // 9 + 8 + 10 + 13: a kind that is added to an enum makes `policy` fail to compile; this makes it listed, too.
    assert_eq!(all.len(), 40);
    for kind in all {
        let policy = kind.policy();
        assert_ne!(policy.exit, ExitCode::Done, "{kind:?}");
        assert_eq!(policy.reaction == Reaction::Crash, policy.exit == ExitCode::Bug, "{kind:?}");
        // The unit does not restart after 77 and 78, so nothing that heals by itself may end with them.
        if matches!(policy.exit, ExitCode::Permission | ExitCode::Configuration) {
            assert!(matches!(policy.reaction, Reaction::StopTenant | Reaction::ResyncTable), "{kind:?}");
        }
        // A stop that no error explains by itself has to come with advice.
        if policy.reaction == Reaction::StopTenant && !matches!(kind, Kind::Daemon(_) | Kind::Store(_)) {
            assert!(!policy.advice.is_empty(), "{kind:?}");
        }
    }
}

#[test]
fn exit_codes_are_those_of_the_interface() {
    let codes = |kind: Kind| kind.policy().exit as u8;
    assert_eq!(codes(StoreKind::Locked.into()), 75);
    assert_eq!(codes(ErrorKind::PermissionMissing.into()), 77);
    assert_eq!(codes(DaemonKind::Configuration.into()), 78);
    assert_eq!(codes(DaemonKind::Usage.into()), 2);
    assert_eq!(codes(DaemonKind::Failed.into()), 1);
    assert_eq!(codes(ErrorKind::Bug.into()), 255);
}

#[test]
fn causes_are_printed_once_and_hints_beside_them() {
    let inner = std::io::Error::other("connection refused");
    let error: Error = SourceError::new(ErrorKind::Unreachable, "cannot connect to db.example:5432")
        .hint("start the server")
        .caused_by(inner)
        .into();
    let error = error.context("the tail could not be opened");
    let expected = "\
error: the tail could not be opened
  caused by: cannot connect to db.example:5432
  caused by: connection refused
hint: start the server
";
    assert_eq!(error.report(false), expected);
    let again = Error::new(DaemonKind::Failed, "failed: connection refused")
        .caused_by(std::io::Error::other("connection refused"));
    assert_eq!(again.report(false), "error: failed: connection refused\n");
}

#[test]
fn an_error_without_a_hint_has_the_tables_advice() {
    let error: Error = CrmError::new(CrmErrorKind::Unauthorized, "POST /v1/account/upsert: 401").into();
    assert_eq!(error.hints(), ["check [crm] auth: the CRM refuses the credentials"]);
    assert!(error.report(true).contains("\u{1b}[1;34mhint"));
}

#[test]
fn a_full_disk_is_told_from_missing_rights() {
    let io = |kind: std::io::ErrorKind| StoreError::Io {
        action: "write",
        path: PathBuf::from("/state"),
        source: kind.into(),
    };
    let full: Error = io(std::io::ErrorKind::StorageFull).into();
    assert_eq!(full.kind().policy().reaction, Reaction::RetryWithBackoff);
    let denied: Error = io(std::io::ErrorKind::PermissionDenied).into();
    assert_eq!(denied.exit_code(), ExitCode::Permission);
    assert_eq!(denied.report(false).lines().next(), Some("error: cannot write /state"));
    let held: Error = StoreError::Locked { dir: "/state".into(), pid: Some(7) }.into();
    assert_eq!(held.exit_code() as u8, 75);
    assert_eq!(held.causes(), Vec::<String>::new(), "the cause is the message itself");
}

#[test]
fn findings_become_one_error_with_every_fix() {
    let ok = Finding::ok("source.reachable", "yes");
    assert!(Error::from_findings(std::slice::from_ref(&ok)).is_none());
    let wal = Finding::error("source.wal_level", "replica", "logical", Some("alter system …".into()));
    let right = Finding::error("source.replication", "no", "yes", Some("alter role …".into())).permission();
    let error = Error::from_findings(&[ok, wal, right.clone()]).expect("an error");
    assert_eq!(error.exit_code(), ExitCode::Configuration);
    assert!(error.to_string().contains("2 prerequisites") && error.to_string().contains("alter role …"));
    assert_eq!(Error::from_findings(&[right]).expect("an error").exit_code(), ExitCode::Permission);
}

#[test]
fn a_wrong_file_is_shown_with_its_places() {
    let wrong = crate::config::Config::parse("acme.toml".as_ref(), "tidemark = 2").expect_err("is wrong");
    let error: Error = ConfigError::Wrong(wrong).into();
    let report = error.report(false);
    assert!(report.contains("acme.toml:1:12") && report.ends_with("error: 4 errors in acme.toml\n"), "{report}");
    assert_eq!(error.exit_code(), ExitCode::Configuration);
}
