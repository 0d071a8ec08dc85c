//! What a log may hold beside the plain rows of plain transactions.

use super::schema::things;
use crate::scene;
use crate::support::mysql::MysqlScene;
use crate::support::workload::Workload;
use crate::support::{seconds, seed};
use std::fmt::Write as _;
use std::time::Duration;
use tidemark_throwaway::{MysqlFlavour, MysqlOptions};

mod tests {
    super::super::on_both! {
        rows_of_which_the_log_holds_a_part;
        prepared_transactions;
        rows_loaded_from_a_file;
        dates_that_no_calendar_has;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_domains() {
        super::two_domains().await;
    }
}

/// Row images without large values, and with changed values alone, exchanged while it runs.
async fn rows_of_which_the_log_holds_a_part(flavour: MysqlFlavour) {
    let seed = seed("rows_of_which_the_log_holds_a_part");
    let scene = scene!(MysqlScene::with(MysqlOptions::new(flavour).setting("binlog-row-image", "MINIMAL")));
    let mut daemon = scene.start();
    scene.equal_and_in_order(&mut daemon, seconds(60)).await;
    for (round, image) in (0..).zip(["MINIMAL", "NOBLOB", "FULL"]) {
        scene.source.sql(&format!("SET GLOBAL binlog_row_image = '{image}'"));
        let mut workload = Workload::new(seed + round, scene.source.connect().await);
        workload.skip(4_000 * round.cast_signed());
        workload.run(50).await;
        if round == 1 {
            daemon.kill();
            workload.run(50).await;
            daemon = scene.start();
        }
        scene.equal_and_in_order(&mut daemon, seconds(60)).await;
    }
    daemon.stop(seconds(10)).await;
}

/// Rows of a prepared XA transaction arrive when it commits, and block nothing until then: over restarts of the daemon and
/// of the server, and not at all if it is rolled back.
async fn prepared_transactions(flavour: MysqlFlavour) {
    let mut scene = scene!(things(MysqlOptions::new(flavour)));
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    for (name, change) in [
        (
            "kept",
            "UPDATE things SET first = 'first of xa' WHERE id = 1; INSERT INTO things VALUES (40, 'first 40', 'second 40', 'n')",
        ),
        ("given up", "DELETE FROM things WHERE id = 2"),
    ] {
        scene.source.sql(&format!("XA START '{name}'; {change}; XA END '{name}'; XA PREPARE '{name}'"));
    }
    scene
        .source
        .sql("UPDATE things SET second = 'second beside it' WHERE id = 3; UPDATE others SET name = 'beside it'");
    scene.equal(&mut daemon, seconds(30)).await;
    // Time for what was read to be saved.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    daemon.kill();
    scene.source.sql("FLUSH BINARY LOGS; INSERT INTO things VALUES (41, 'first 41', 'second 41', 'n')");
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(30)).await;
    scene.source.cluster.kill().unwrap();
    scene.source.cluster.start_again().unwrap();
    scene.client = scene.source.pool();
    scene.source.sql("UPDATE others SET name = 'after the restart'");
    scene.equal(&mut daemon, seconds(60)).await;
    daemon.stop(seconds(10)).await;
    scene.source.sql("XA COMMIT 'kept'; UPDATE things SET second = 'second last' WHERE id = 40");
    scene.source.sql("XA ROLLBACK 'given up'");
    scene.tenant.on_gap = "halt";
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(30)).await;
    assert_eq!(scene.crm.content()["thing"]["40"]["second"], "second last");
    scene.source.sql("XA START 'one'; DELETE FROM things WHERE id = 40; XA END 'one'; XA COMMIT 'one' ONE PHASE");
    scene.equal(&mut daemon, seconds(30)).await;
    let read = scene.tenant.metric("tidemark_snapshot_rows_total{").await.unwrap_or(0.0);
    assert!(read < 1.0, "{read} rows were read anew\n{}", scene.tenant.last_words());
    daemon.stop(seconds(10)).await;
}

async fn rows_loaded_from_a_file(flavour: MysqlFlavour) {
    let scene = scene!(things(MysqlOptions::new(flavour).setting("secure-file-priv", "/")));
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    let mut lines = String::new();
    for id in 2..8_000 {
        let _ = writeln!(lines, "{id}\tfirst loaded {id}\tsecond löaded {id}\tn");
    }
    let path = scene.tenant.path().join("things.tsv");
    std::fs::write(&path, lines).unwrap();
    scene.source.sql(&format!("LOAD DATA INFILE '{}' REPLACE INTO TABLE things CHARACTER SET utf8mb4", path.display()));
    scene.equal(&mut daemon, seconds(60)).await;
    assert_eq!(scene.crm.count("thing"), 7_999);
    daemon.stop(seconds(10)).await;
}

/// By column: null, set aside, or a fixed date; and counted.
async fn dates_that_no_calendar_has(flavour: MysqlFlavour) {
    let insert = |id: u32, word: &str| {
        format!("SET sql_mode = ''; INSERT INTO days VALUES ({id}, '0000-00-00', '0000-00-00', '2024-01-01', '{word}')")
    };
    let sql = format!(
        "CREATE TABLE days (id int PRIMARY KEY, plain date NOT NULL, fixed datetime NOT NULL, strict date NOT NULL, word varchar(9));
         {}",
        insert(1, "chunk")
    );
    let mapping = "tidemark = 1\n[pack]\nname = \"days\"\nversion = \"1.0.0\"\n[record.day]\nfrom = \"days as d\"\nexternal_id = \"d.id\"
[record.day.fields]\nplain = \"d.plain\"\nfixed = \"cast(d.fixed as date)\"\nstrict = \"d.strict\"\nword = \"d.word\"\n";
    let text = serde_json::json!({"type": ["string", "null"]});
    let model = serde_json::json!({"day": {"type": "object", "properties": {
        "plain": text, "fixed": text, "strict": text, "word": text,
    }}});
    let oracle =
        "SELECT 'day', id, NULL AS plain, '1970-01-01' AS fixed, strict, word FROM days WHERE strict > '2000-01-01';\n";
    let mut scene = scene!(MysqlScene::tables(MysqlOptions::new(flavour), &sql, mapping, model, oracle));
    scene
        .tenant
        .engine
        .push_str("\n[source.mysql.zero_dates]\n\"days.fixed\" = \"1970-01-01\"\n\"vendor.days.strict\" = \"reject\"");
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(30)).await;
    scene.source.sql(&insert(2, "tail"));
    scene
        .source
        .sql("SET sql_mode = ''; INSERT INTO days VALUES (3, '0000-00-00', '2024-01-01', '0000-00-00', 'wrong')");
    scene.equal(&mut daemon, seconds(30)).await;
    scene
        .until("a dead letter", seconds(20), async |s| {
            s.tenant.metric("tidemark_dead_letters{").await.is_some_and(|letters| letters > 0.0)
        })
        .await;
    let met = scene.tenant.metric("tidemark_source_zero_dates_total{").await.unwrap_or(0.0);
    assert!(met > 5.5, "{met} were counted");
    daemon.stop(seconds(10)).await;
}

/// MariaDB: each domain has a sequence of its own, and one that begins while nobody watches is not missed.
async fn two_domains() {
    let mut scene = scene!(things(MysqlOptions::new(MysqlFlavour::MariaDb)));
    let mut daemon = scene.start();
    scene.equal(&mut daemon, seconds(60)).await;
    let change = |domain: u32, id: u32, word: &str| {
        format!(
            "SET SESSION gtid_domain_id = {domain}; INSERT INTO things VALUES ({id}, 'first {word}', 'second {id}', 'n');
             UPDATE things SET first = 'first {word} by {domain}' WHERE id = {id}"
        )
    };
    for id in 50..60 {
        scene.source.sql(&change(id % 2, id, "both"));
    }
    scene.equal(&mut daemon, seconds(30)).await;
    daemon.kill();
    scene.source.sql("FLUSH BINARY LOGS");
    for id in 60..80 {
        scene.source.sql(&change(id % 4, id, "away"));
    }
    scene.tenant.on_gap = "halt";
    let mut daemon = scene.start();
    for id in 80..90 {
        scene.source.sql(&change(id % 3, id, "again"));
    }
    scene.equal(&mut daemon, seconds(30)).await;
    daemon.stop(seconds(10)).await;
    let mut daemon = scene.start();
    scene.source.sql(&change(7, 90, "at last"));
    scene.equal(&mut daemon, seconds(30)).await;
    let read = scene.tenant.metric("tidemark_snapshot_rows_total{").await.unwrap_or(0.0);
    assert!(read < 1.0, "{read} rows were read anew\n{}", scene.tenant.last_words());
    daemon.stop(seconds(10)).await;
}
