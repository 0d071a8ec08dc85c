//! The harness judged by itself: it must see what it is there to see.

use crate::scene;
use crate::support::crm::{Arrival, Crm, Fault};
use crate::support::source::Source;
use crate::support::workload::Workload;
use crate::support::{Vendor, judge, source};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A little HTTP client, so that the CRM's own behaviour is checked without the program.
async fn post(crm: &Crm, path: &str, body: Value) -> (u16, Value) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let addr = crm.base_url().trim_start_matches("http://").to_owned();
    let mut socket = tokio::net::TcpStream::connect(addr).await.unwrap();
    let body = body.to_string();
    let token = crate::support::crm::TOKEN;
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        crm.writes(),
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut text = String::new();
    socket.read_to_string(&mut text).await.unwrap();
    let status = text.split_whitespace().nth(1).and_then(|w| w.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or_default())
}

fn model() -> Value {
    json!({"thing": {"properties": {"name": {"type": "string", "maxLength": 5}, "of": {"x-ref": "thing"}, "rev": {"type": "integer"}}}})
}

fn record(id: &str, version: u64, fields: Value) -> Value {
    json!({"external_id": id, "version": version.to_string(), "fields": fields})
}

#[tokio::test]
async fn the_tests_crm_keeps_the_contract() {
    let crm = Crm::start(model()).await;
    let upsert = async |records: Vec<Value>| {
        let (status, body) = post(&crm, "/v1/thing/upsert", json!({ "records": records })).await;
        assert_eq!(status, 200);
        let word = |r: &Value| {
            r["status"].as_str().map_or("?".into(), str::to_owned) + r["error"]["code"].as_str().unwrap_or("")
        };
        body["results"].as_array().unwrap().iter().map(word).collect::<Vec<_>>()
    };
    assert_eq!(upsert(vec![record("a", 5, json!({"name": "x"}))]).await, ["created"]);
    assert_eq!(upsert(vec![record("a", 5, json!({"name": "x"}))]).await, ["unchanged"]);
    assert_eq!(upsert(vec![record("a", 4, json!({"name": "y"}))]).await, ["stale"]);
    assert_eq!(upsert(vec![record("a", 6, json!({"rev": 1}))]).await, ["updated"]);
    assert_eq!(
        upsert(vec![record("a", 7, json!({"name": "too long"})), record("b", 7, json!({"of": {"external_id": "a"}}))])
            .await,
        ["rejectedtoo_long", "created"]
    );
    assert_eq!(
        upsert(vec![record("c", 7, json!({"of": {"external_id": "nobody"}}))]).await,
        ["rejectedmissing_reference"]
    );
    assert_eq!(crm.content()["thing"]["a"], BTreeMap::from([("name".into(), json!("x")), ("rev".into(), json!(1))]));
    let (_, body) = post(&crm, "/v1/thing/delete", json!({"records": [record("a", 9, json!({}))]})).await;
    assert_eq!(body["results"][0]["status"], "deleted");
    assert_eq!(
        upsert(vec![record("a", 8, json!({"name": "x"}))]).await,
        ["stale"],
        "a deleted record keeps its version"
    );
    assert_eq!(crm.count("thing"), 1);
    assert!(crm.violations().is_empty(), "{:?}", crm.violations());
    crm.faults(|_| Some(Fault::CutAfter));
    assert_eq!(post(&crm, "/v1/thing/upsert", json!({"records": [record("d", 1, json!({"name": "d"}))]})).await.0, 0);
    assert_eq!(crm.count("thing"), 2, "applied, though nobody was told");
    crm.heal();
    let twice = json!({"records": [record("e", 1, json!({})), record("e", 2, json!({}))]});
    post(&crm, "/v1/thing/upsert", twice).await;
    assert!(crm.violations()[0].contains("twice in one request"), "{:?}", crm.violations());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_judge_sees_time_go_backwards() {
    let source = scene!(Source::northwind());
    let client = source.connect().await;
    let rev = async || -> i64 {
        let sql = "SELECT rev FROM northwind.\"Customers\" WHERE \"CustomerID\" = 'ALFKI'";
        client.query_one(sql, &[]).await.unwrap().get(0)
    };
    let set = async |sql: &str| client.batch_execute(sql).await.unwrap();
    let first = rev().await;
    set("UPDATE northwind.\"Customers\" SET \"Fax\" = 'unmapped' WHERE \"CustomerID\" = 'ALFKI'").await;
    assert_eq!(rev().await, first, "an unmapped column does not count");
    set("UPDATE northwind.\"Customers\" SET \"City\" = 'elsewhere' WHERE \"CustomerID\" = 'ALFKI'").await;
    let second = rev().await;
    set("UPDATE northwind.\"Customers\" SET \"CustomerID\" = 'MOVED' WHERE \"CustomerID\" = 'ALFKI'").await;
    let arrival = |rev: Option<i64>, version| Arrival {
        request: 0,
        entity: "account".into(),
        external_id: "cust-ALFKI".into(),
        fields: rev.map(|rev| json!({ "rev": rev }).as_object().cloned().unwrap()),
        version,
        status: "updated",
    };
    let states = source.states(&client).await;
    let judged = async |history: &[Arrival]| judge::judge_history(&states, history).len();
    assert_eq!(judged(&[arrival(Some(first), 1), arrival(Some(second), 2), arrival(None, 3)]).await, 0);
    assert_eq!(
        judged(&[arrival(Some(second), 1), arrival(Some(second), 1), arrival(None, 2), arrival(None, 2)]).await,
        0
    );
    assert_eq!(judged(&[arrival(Some(second), 1), arrival(Some(first), 2)]).await, 1, "older after newer");
    assert_eq!(judged(&[arrival(None, 1), arrival(Some(second), 2)]).await, 1, "risen from the dead");
    assert_eq!(judged(&[arrival(Some(99_999_999), 1)]).await, 1, "a state that never was");
    assert_eq!(judged(&[arrival(Some(first), 2), arrival(Some(second), 1)]).await, 1, "a version that falls");
}

/// The workload runs on the source as prepared, makes every kind of change, and the oracle's query is sound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_workload_and_the_oracle_fit_the_source() {
    let source = scene!(Source::northwind());
    let client = source.connect().await;
    let oracle = source::northwind_oracle();
    let before = source.wanted(&client, &oracle).await;
    assert_eq!(before["order"].len(), 830);
    assert_eq!(before["order_line"].len(), 2155);
    let mut workload = Workload::new(7, source.connect().await);
    workload.run(600).await;
    println!(
        "{} transactions, {} rolled back, {} statements",
        workload.committed, workload.rolled_back, workload.changes
    );
    assert!(workload.rolled_back > 10 && workload.rolled_back < workload.committed);
    let after = source.wanted(&client, &oracle).await;
    assert!(judge::differences(&before, &after, 5).len() == 6, "hardly anything changed");
    // Every present record is the last state that the account holds of it.
    let sql = "SELECT count(*) FROM northwind.\"Customers\" c WHERE rev <> (SELECT max(rev) FROM judge.states
               WHERE source = 'Customers' AND key = 'cust-' || c.\"CustomerID\")";
    assert_eq!(client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
}
