//! P8: neither secrets nor row values in logs, metrics, status, errors or on the command line, at debug level.

use crate::scene;
use crate::support::crm::{Fault, TOKEN};
use crate::support::source::PASSWORD;
use crate::support::{Scene, seconds};
use base64::Engine;
use serde_json::{Value, json};

const MARKS: [&str; 5] = ["mark-plum-kettle", "ZQMRK", "7731446655", "mark-cut-answer", "mark-crm-words"];

fn needles() -> Vec<String> {
    let mut all: Vec<String> = MARKS.iter().map(|m| (*m).to_owned()).collect();
    for secret in [PASSWORD, TOKEN] {
        let percent = |keep: fn(u8) -> bool| -> String {
            secret.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
        };
        all.push(base64::engine::general_purpose::STANDARD.encode(secret));
        all.push(percent(|_| false));
        all.push(percent(|b| b.is_ascii_alphanumeric()));
        all.push(percent(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b)));
        all.push(secret.to_owned());
    }
    all
}

fn check(what: &str, text: &str) {
    for needle in needles() {
        if let Some(line) = text.lines().find(|line| line.contains(&needle)) {
            panic!("{what} holds {needle:?}: {}", line.chars().take(600).collect::<String>());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_and_row_values_stay_out() {
    let mut scene = scene!(Scene::northwind());
    scene.tenant.log_level = "debug";
    scene.source.psql(
        "INSERT INTO northwind.\"Customers\" (\"CustomerID\", \"CompanyName\", \"Phone\") VALUES ('ZQMRK', 'mark-plum-kettle', '7731446655');
         UPDATE northwind.\"Suppliers\" SET \"CompanyName\" = 'mark-plum-kettle' WHERE \"SupplierID\" < 5",
    );
    let mut number = 0;
    scene.crm.faults(move |_| {
        number += 1;
        match number % 9 {
            1 => Some(Fault::Status(500, "{\"error\":\"cannot store mark-cut-answer\"}".into())),
            3 => Some(Fault::CutAfter),
            5 => Some(Fault::Instead("text/html", "<p>mark-cut-answer</p>".into())),
            7 => Some(Fault::TooFew),
            _ => None,
        }
    });
    // The CRM's own words may hold values: dead letters keep them, logs do not.
    scene.crm.rejects(|entity, _, fields| {
        let marked = entity == "account" && fields.get("name").and_then(Value::as_str) == Some("mark-plum-kettle");
        (marked && fields.contains_key("homepage"))
            .then(|| json!({"code": "bad_name", "field": "name", "message": "mark-crm-words mark-plum-kettle"}))
    });
    let mut daemon = scene.start();
    scene
        .until("the marked customer", seconds(60), async |s| {
            s.crm.content().get("account").is_some_and(|a| a.contains_key("cust-ZQMRK"))
        })
        .await;
    for sql in [
        "UPDATE northwind.\"Customers\" SET \"Phone\" = '7731446655', \"Address\" = 'mark-plum-kettle' WHERE \"CustomerID\" = 'ZQMRK'",
        "INSERT INTO northwind.\"Orders\" (\"OrderID\", \"CustomerID\", \"ShipName\") VALUES (773144, 'ZQMRK', 'mark-plum-kettle')",
        "UPDATE northwind.\"Orders\" SET \"ShipName\" = NULL WHERE \"OrderID\" = 773144",
        "DELETE FROM northwind.\"Orders\" WHERE \"OrderID\" = 773144; DELETE FROM northwind.\"Customers\" WHERE \"CustomerID\" = 'ZQMRK'",
        "ALTER TABLE northwind.\"Products\" DROP COLUMN \"UnitsInStock\"; UPDATE northwind.\"Products\" SET \"ProductName\" = 'mark-plum-kettle'",
    ] {
        scene.source.psql(sql);
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    }
    tokio::time::sleep(seconds(2)).await;
    assert!(daemon.is_running(), "{}", scene.tenant.last_words());
    let command_line = std::fs::read(format!("/proc/{}/cmdline", daemon.pid())).unwrap();
    check("the command line", &String::from_utf8_lossy(&command_line).replace('\0', " "));
    for page in ["/metrics", "/readyz", "/livez", "/"] {
        check(page, &scene.tenant.get(page).await.1);
    }
    check("the status", &scene.tenant.status().await.to_string());
    for words in [&["check"][..], &["status", "--once"], &["checkpoint", "show"], &["--help"], &["no-such-command"]] {
        let output = scene.tenant.run(words).await;
        check(&format!("{words:?}"), &String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
    }
    daemon.kill();
    // Errors of the source, with its password on the way.
    let port = scene.tenant.source_port;
    scene.tenant.database = "no_such_database".into();
    let mut daemon = scene.start();
    daemon.wait(seconds(5)).await;
    drop(daemon);
    scene.tenant.database = scene.source.database.into();
    scene.tenant.source_port = 1;
    let mut daemon = scene.start();
    daemon.wait(seconds(3)).await;
    drop(daemon);
    scene.tenant.source_port = port;
    let log = scene.tenant.log();
    assert!(log.lines().count() > 30, "the log at debug level has only {} lines", log.lines().count());
    check("the log", &log);
}
