//! Change tracking: net changes, resuming, what makes a position lost, rights, which of the two is chosen.

use super::lab::{Lab, line, request, show};
use std::collections::BTreeMap;
use std::time::Duration;
use tidemark_contract::{
    ChangeOp, ChangeStream, Connector, ErrorKind, Position, RowKey, Severity, SourceError, SourceMessage,
};
use tidemark_sqlserver::{Mode, Password, SqlServer, SqlServerConfig};
use tidemark_sqlserver_sim::Options;

const ENABLE: &str = "ALTER DATABASE CURRENT SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 3 DAYS, AUTO_CLEANUP = ON)";

fn shop(snapshot_isolation: bool) -> Lab {
    let lab = Lab::with(Options { snapshot_isolation, ..Options::default() });
    lab.sql(ENABLE);
    lab.sql("CREATE TABLE a (id int NOT NULL PRIMARY KEY, t nvarchar(20)); CREATE TABLE b (id int NOT NULL PRIMARY KEY, t nvarchar(20))");
    lab.sql("ALTER TABLE a ENABLE CHANGE_TRACKING; ALTER TABLE b ENABLE CHANGE_TRACKING");
    lab
}

fn connector(lab: &Lab) -> SqlServer {
    SqlServer::new(SqlServerConfig { mode: Mode::ChangeTracking, ..lab.config() })
}

async fn open(connector: &SqlServer, from: Option<&Position>) -> Result<Box<dyn ChangeStream>, SourceError> {
    connector.open_stream(&[request("a"), request("b")], from).await
}

/// Everything until what was committed before is delivered.
async fn settle(connector: &SqlServer, stream: &mut Box<dyn ChangeStream>) -> (Vec<SourceMessage>, Position) {
    let goal = connector.snapshot_chunk(&request("a"), None, 1).await.unwrap().barrier;
    let mut all = Vec::new();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let begin = all.len();
        stream.request_position().await.unwrap();
        tokio::time::timeout_at(deadline, stream.next(&mut all)).await.expect("in time").unwrap();
        for message in &all[begin..] {
            if let SourceMessage::Commit(p) | SourceMessage::Idle(p) = message
                && connector.covers(p, &goal).unwrap()
            {
                let p = p.clone();
                return (all, p);
            }
        }
    }
}

fn lines(messages: &[SourceMessage]) -> Vec<String> {
    let change = |m: &SourceMessage| match m {
        SourceMessage::Change(c) => Some(format!("{} {}", c.schema.table.name, line(c))),
        _ => None,
    };
    messages.iter().filter_map(change).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_comes_with_its_present_state() {
    for snapshot_isolation in [true, false] {
        let lab = shop(snapshot_isolation);
        lab.sql("INSERT a VALUES (1, N'before'), (2, N'before')");
        let connector = connector(&lab);
        let mut stream = open(&connector, None).await.unwrap();
        let (first, _) = settle(&connector, &mut stream).await;
        assert!(lines(&first).is_empty(), "{first:?}");
        lab.sql("BEGIN TRAN; INSERT a VALUES (3, N'x'); INSERT b VALUES (3, N'y'); COMMIT");
        assert_eq!(lines(&settle(&connector, &mut stream).await.0), ["a insert 3 x", "b insert 3 y"]);
        lab.sql("UPDATE a SET t = N'z' WHERE id = 1; BEGIN TRAN; DELETE a; ROLLBACK");
        assert_eq!(lines(&settle(&connector, &mut stream).await.0), ["a update 1 z"]);
        // A moved key: the old one goes first.
        lab.sql("UPDATE a SET id = 0 WHERE id = 3");
        assert_eq!(lines(&settle(&connector, &mut stream).await.0), ["a delete 3 unchanged", "a insert 0 x"]);
        lab.sql("DELETE a WHERE id = 2");
        assert_eq!(lines(&settle(&connector, &mut stream).await.0), ["a delete 2 unchanged"]);
        // While nobody looked: only what became of it.
        stream.close().await.unwrap();
    }
}

/// From every position on, what comes makes of the state at that position the state of the table: nothing is missed,
/// whatever was folded together.
#[tokio::test(flavor = "multi_thread")]
async fn every_position_leads_to_the_present_state() {
    let lab = shop(true);
    let connector = connector(&lab);
    let mut stream = open(&connector, None).await.unwrap();
    let mut state: BTreeMap<RowKey, String> = BTreeMap::new();
    let apply = |state: &mut BTreeMap<RowKey, String>, messages: &[SourceMessage]| {
        for message in messages {
            let SourceMessage::Change(c) = message else { continue };
            if &*c.schema.table.name != "a" {
                continue;
            }
            let key = RowKey::of(&c.row, &c.schema.key).unwrap();
            match c.op {
                ChangeOp::Delete => drop(state.remove(&key)),
                _ => drop(state.insert(key, show(c.row.get(1)))),
            }
        }
    };
    let mut points = Vec::new();
    for round in 0..8 {
        for n in 0..20 {
            let (id, moved) = ((n * 7 + round * 3) % 25, 1000 + round * 100 + n);
            lab.sql(&format!(
                "UPDATE a SET t = N'{round}.{n}' WHERE id = {id}; \
                 IF @@ROWCOUNT = 0 INSERT a VALUES ({id}, N'new {round}'); DELETE a WHERE id = {}; \
                 UPDATE a SET id = {moved} WHERE id = {}; \
                 DELETE a WHERE id = {moved} - 3",
                (id + 5) % 25,
                (id + 11) % 25
            ));
        }
        let (messages, at) = settle(&connector, &mut stream).await;
        apply(&mut state, &messages);
        points.push((at, state.clone()));
    }
    stream.close().await.unwrap();
    let rows = lab.sql("SELECT COUNT(*) FROM a");
    assert_eq!(rows[0][0].as_deref(), Some(state.len().to_string().as_str()));
    for (position, mut before) in points {
        let mut again = open(&connector, Some(&position)).await.unwrap();
        apply(&mut before, &settle(&connector, &mut again).await.0);
        assert_eq!(before, state);
        again.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_comes_in_pages() {
    let lab = shop(true);
    let connector = connector(&lab);
    let mut stream = open(&connector, None).await.unwrap();
    lab.sql("DECLARE @i int = 0; BEGIN TRAN; WHILE @i < 3000 BEGIN INSERT a VALUES (@i, REPLICATE(N'x', 20)); SET @i += 1 END COMMIT");
    let (all, _) = settle(&connector, &mut stream).await;
    let mut seen = lines(&all);
    assert_eq!(seen.len(), 3000);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3000, "a row came twice");
    assert_eq!(all.iter().filter(|m| matches!(m, SourceMessage::Commit(_))).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_a_position_lost() {
    type Break = (&'static str, fn(&Lab));
    let breaks: [Break; 5] = [
        ("the clean-up", |lab| {
            std::thread::sleep(Duration::from_millis(5));
            lab.sim.run_cleanup("vendor", Duration::ZERO).unwrap();
        }),
        ("a truncation", |lab| drop(lab.sql("TRUNCATE TABLE a"))),
        ("tracking switched off", |lab| drop(lab.sql("ALTER TABLE a DISABLE CHANGE_TRACKING"))),
        ("tracking off and on", |lab| {
            lab.sql("ALTER TABLE a DISABLE CHANGE_TRACKING; INSERT a VALUES (9, N'missed'); ALTER TABLE a ENABLE CHANGE_TRACKING");
        }),
        ("a table made again", |lab| {
            lab.sql("DROP TABLE a; CREATE TABLE a (id int NOT NULL PRIMARY KEY, t nvarchar(20)); ALTER TABLE a ENABLE CHANGE_TRACKING");
        }),
    ];
    for (what, go) in breaks {
        let lab = shop(true);
        let connector = connector(&lab);
        let mut stream = open(&connector, None).await.unwrap();
        lab.sql("INSERT a VALUES (1, N'x')");
        let (_, at) = settle(&connector, &mut stream).await;
        stream.close().await.unwrap();
        lab.sql("INSERT a VALUES (2, N'y')");
        go(&lab);
        for _ in 0..2 {
            let error = open(&connector, Some(&at)).await.err().unwrap_or_else(|| panic!("{what}: it goes on"));
            let wanted = matches!(error.kind, ErrorKind::PositionLost)
                || (what == "tracking switched off" && error.kind == ErrorKind::SettingWrong);
            assert!(wanted, "{what}: {error}");
        }
    }
    let lab = shop(true);
    let connector = connector(&lab);
    let backup = lab.sim.backup("vendor").unwrap();
    let mut stream = open(&connector, None).await.unwrap();
    lab.sql("INSERT a VALUES (1, N'x')");
    let (_, at) = settle(&connector, &mut stream).await;
    drop(stream);
    lab.sim.restore(&backup).unwrap();
    assert_eq!(open(&connector, Some(&at)).await.err().map(|e| e.kind), Some(ErrorKind::PositionLost));
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_say_what_is_missing_and_their_statements_mend_it() {
    let lab = Lab::with(Options { snapshot_isolation: true, ..Options::default() });
    lab.sql("CREATE TABLE a (id int NOT NULL PRIMARY KEY, t nvarchar(20)); CREATE TABLE b (id int NOT NULL PRIMARY KEY, t nvarchar(20))");
    lab.sql("CREATE LOGIN r WITH PASSWORD = 'Secret1!'; CREATE USER r FOR LOGIN r; GRANT SELECT ON SCHEMA::dbo TO r");
    let config = SqlServerConfig {
        user: "r".into(),
        password: Some(Password::new("Secret1!")),
        mode: Mode::ChangeTracking,
        ..lab.config()
    };
    let connector = SqlServer::new(config.clone());
    let tables = [request("a"), request("b")];
    for _ in 0..6 {
        let findings = connector.preflight(&tables).await.unwrap();
        let Some(bad) = findings.iter().find(|f| f.severity > Severity::Ok) else { break };
        lab.sql(bad.fix.as_ref().unwrap_or_else(|| panic!("no fix in {bad:?}")));
    }
    let findings = connector.preflight(&tables).await.unwrap();
    assert!(findings.iter().all(|f| f.severity == Severity::Ok), "{findings:?}");
    assert!(findings.iter().filter(|f| f.id == "source.tracked_table").count() == 2, "{findings:?}");
    let mut stream = open(&connector, None).await.unwrap();
    lab.sql("INSERT a VALUES (1, N'x')");
    let (messages, at) = settle(&connector, &mut stream).await;
    assert_eq!(lines(&messages), ["a insert 1 x"]);
    assert_eq!(connector.lag(Some(&at)).await.unwrap().retention, Some(Duration::from_secs(3 * 86_400)));
    stream.close().await.unwrap();
    // By itself it takes change tracking, until there is something better; the position does not go over.
    let auto = SqlServer::new(SqlServerConfig { mode: Mode::Auto, ..config });
    open(&auto, Some(&at)).await.unwrap().close().await.unwrap();
    lab.sql("EXEC sys.sp_cdc_enable_db");
    let error = open(&auto, Some(&at)).await.err().expect("refused");
    assert_eq!(error.kind, ErrorKind::PositionLost, "{error}");
}
