//! The reference CRM, seen through [`RestCrm`] and through bare HTTP.

mod admin;
mod api;
mod faults;
mod speed;

use super::*;
use crate::crm::{
    Auth, Crm, CrmErrorKind, CrmRejection, Done, FieldKind, Outcome, RestConfig, RestCrm, SecretSource, WriteRecord,
};
use crate::document::Document;
use serde_json::{Value, json};

/// A running server, its client, and the means to stop it.
struct Scene {
    handle: Handle,
    crm: RestCrm,
    http: reqwest::Client,
    /// Whether the page's calls carry the token.
    token: bool,
    _stop: tokio::sync::oneshot::Sender<()>,
}

const TOKEN: &str = "t0ken+/=";

impl Scene {
    async fn new(options: DevCrmOptions) -> Self {
        Self::with(options, |_| ()).await
    }

    async fn with(options: DevCrmOptions, change: impl FnOnce(&mut RestConfig)) -> Self {
        let auth = match &options.token {
            Some(token) => Auth::Bearer { token: SecretSource::fixed(token.clone()) },
            None => Auth::None,
        };
        let (_stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let options = DevCrmOptions { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..options };
        let handle = serve(options, async move { drop(stopped.await) }).await.unwrap();
        let mut config = RestConfig::new(handle.url(), auth);
        config.timeout = Duration::from_secs(5);
        change(&mut config);
        // reqwest asks for a provider even if nothing will be encrypted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { crm: RestCrm::new(config).unwrap(), handle, http, token: false, _stop }
    }

    async fn open() -> Self {
        Self::new(DevCrmOptions { schema: SchemaSource::Open, ..DevCrmOptions::default() }).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.handle.url())
    }

    async fn upsert(&self, entity: &str, records: &[(&str, u64, Value)]) -> Result<Vec<Outcome>, CrmErrorKind> {
        let documents: Vec<_> =
            records.iter().map(|(_, _, fields)| Document::new(fields.to_string().into_bytes().into(), false)).collect();
        let records: Vec<_> = records
            .iter()
            .zip(&documents)
            .map(|((external_id, version, _), document)| WriteRecord {
                external_id,
                version: *version,
                document: Some(document),
            })
            .collect();
        self.crm.upsert(entity, &records).await.map_err(|error| error.kind)
    }

    async fn delete(&self, entity: &str, records: &[(&str, u64)]) -> Result<Vec<Outcome>, CrmErrorKind> {
        let records: Vec<_> = records
            .iter()
            .map(|(external_id, version)| WriteRecord { external_id, version: *version, document: None })
            .collect();
        self.crm.delete(entity, &records).await.map_err(|error| error.kind)
    }

    /// Everything the CRM holds of an entity, in pages of two.
    async fn all(&self, entity: &str) -> Vec<(String, String, Value)> {
        let mut all = Vec::new();
        let mut after: Option<Box<str>> = None;
        loop {
            let page = self.crm.list(entity, after.as_deref(), 2).await.unwrap();
            for record in page.records {
                all.push((
                    record.external_id.into(),
                    record.version.unwrap().into(),
                    serde_json::to_value(&record.fields).unwrap(),
                ));
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return all,
            }
        }
    }
}

fn done(outcomes: &[Done]) -> Result<Vec<Outcome>, CrmErrorKind> {
    Ok(outcomes.iter().map(|done| Outcome::Done(*done)).collect())
}

fn rejection(outcome: &Outcome) -> &CrmRejection {
    match outcome {
        Outcome::Rejected(rejection) => rejection,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_model_is_published_and_the_credentials_are_proved() {
    let scene = Scene::new(DevCrmOptions { token: Some(TOKEN.to_owned()), ..DevCrmOptions::default() }).await;
    scene.crm.check().await.unwrap();
    let schema = scene.crm.discover().await.unwrap();
    let account = schema.entity("account").unwrap();
    assert!(account.fields["name"].required && !account.open);
    assert!(matches!(&account.fields["owner"].kind, FieldKind::Reference(entity) if &**entity == "employee"));
    assert!(schema.entity("nothing").is_none());

    let wrong = Scene::with(DevCrmOptions { token: Some(TOKEN.to_owned()), ..DevCrmOptions::default() }, |config| {
        config.auth = Auth::Bearer { token: SecretSource::fixed("wr0ng-t0ken") };
    })
    .await;
    let error = wrong.crm.check().await.unwrap_err();
    assert_eq!((error.kind, error.status), (CrmErrorKind::Unauthorized, Some(401)));
    assert!(!error.message.contains("wr0ng"), "{error}");
}

#[tokio::test]
async fn a_record_lives_by_the_contract() {
    let scene = Scene::open().await;
    let a = |version: u64, fields: Value| [("a", version, fields)];
    assert_eq!(scene.upsert("x", &a(5, json!({"n": 1, "t": "x"}))).await, done(&[Done::Created]));
    assert_eq!(scene.upsert("x", &a(6, json!({"n": 1}))).await, done(&[Done::Unchanged]));
    assert_eq!(scene.upsert("x", &a(7, json!({"t": null, "u": [1, {"k": null}]}))).await, done(&[Done::Updated]));
    assert_eq!(scene.upsert("x", &a(6, json!({"n": 99}))).await, Ok(vec![Outcome::Stale]));
    let now = vec![("a".to_owned(), "7".to_owned(), json!({"n": 1, "u": [1, {"k": null}]}))];
    assert_eq!(scene.all("x").await, now);
    assert_eq!(scene.delete("x", &[("a", 6)]).await, Ok(vec![Outcome::Stale]));
    assert_eq!(scene.all("x").await, now);
    assert_eq!(scene.delete("x", &[("a", 8), ("b", 8)]).await, done(&[Done::Deleted, Done::NotFound]));
    // What comes late is fenced off by the tombstone, also of a record that never was.
    assert_eq!(scene.upsert("x", &[("a", 7, json!({})), ("b", 7, json!({}))]).await, Ok(vec![Outcome::Stale; 2]));
    assert!(scene.all("x").await.is_empty());
    // What is created again has none of its former fields.
    assert_eq!(scene.upsert("x", &a(9, json!({"z": true}))).await, done(&[Done::Created]));
    assert_eq!(scene.all("x").await, [("a".to_owned(), "9".to_owned(), json!({"z": true}))]);
}

#[tokio::test]
async fn listings_are_in_the_order_of_bytes_for_every_kind_of_id() {
    let scene = Scene::open().await;
    let mut ids = vec![
        "10",
        "9",
        "a",
        "B",
        "é",
        "z/y?x=1&b#c",
        "..",
        ".",
        "100%",
        "a b+c",
        "\"q\"\\",
        "line\nbreak",
        "\u{ffff}",
        "\u{10000}",
        "{{x}}",
        "<script>alert(1)</script>",
        "日本",
    ];
    let records: Vec<_> = ids.iter().map(|id| (*id, 1, json!({"id": id}))).collect();
    assert_eq!(scene.upsert("thing", &records).await.unwrap().len(), ids.len());
    ids.sort_by_key(|id| id.as_bytes());
    let listed = scene.all("thing").await;
    assert_eq!(listed.iter().map(|(id, ..)| id.as_str()).collect::<Vec<_>>(), ids);
    assert!(listed.iter().all(|(id, _, fields)| fields["id"] == *id));
    // An entity's name is one segment, whatever is in it.
    assert_eq!(scene.upsert("odd/name?x", &[("a", 1, json!({}))]).await, done(&[Done::Created]));
    assert_eq!(scene.all("odd/name?x").await.len(), 1);
}

#[tokio::test]
async fn records_are_checked_and_the_rest_of_the_batch_goes_on() {
    let scene = Scene::new(DevCrmOptions::default()).await;
    let outcomes = scene
        .upsert(
            "account",
            &[
                ("ok", 1, json!({"name": "Ok", "country": "DE", "address": {"city": "Ulm"}, "credit_limit": 100.5})),
                ("no-name", 1, json!({"country": "DE"})),
                ("bad-tier", 1, json!({"name": "x", "tier": "platinum"})),
                ("unknown", 1, json!({"name": "x", "colour": "red"})),
                ("long", 1, json!({"name": "x".repeat(121)})),
                ("also-ok", 1, json!({"name": "Also"})),
            ],
        )
        .await
        .unwrap();
    assert_eq!(outcomes[0], Outcome::Done(Done::Created));
    assert_eq!(outcomes[5], Outcome::Done(Done::Created));
    let seen: Vec<_> = outcomes[1..5].iter().map(|o| (&*rejection(o).code, rejection(o).field.as_deref())).collect();
    assert_eq!(
        seen,
        [
            ("required", Some("name")),
            ("invalid_value", Some("tier")),
            ("unknown_field", Some("colour")),
            ("too_long", Some("name"))
        ]
    );
    // A refused record has not moved its version: the same one with better fields goes in.
    assert_eq!(scene.upsert("account", &[("no-name", 1, json!({"name": "n"}))]).await, done(&[Done::Created]));
    assert_eq!(scene.upsert("nothing", &[("a", 1, json!({}))]).await, Err(CrmErrorKind::Contract));
}

#[tokio::test]
async fn a_child_goes_in_once_its_parent_is_there_though_nothing_about_it_has_changed() {
    let scene = Scene::new(DevCrmOptions::default()).await;
    let child = [("c", 1, json!({"full_name": "Ann", "account": {"external_id": "p"}}))];
    for _ in 0..2 {
        let outcomes = scene.upsert("contact", &child).await.unwrap();
        assert_eq!(
            (&*rejection(&outcomes[0]).code, rejection(&outcomes[0]).field.as_deref()),
            ("missing_reference", Some("account"))
        );
    }
    scene.upsert("account", &[("p", 1, json!({"name": "P"}))]).await.unwrap();
    assert_eq!(scene.upsert("contact", &child).await, done(&[Done::Created]));
    scene.delete("account", &[("p", 2)]).await.unwrap();
    let orphan = [("d", 1, json!({"full_name": "Bob", "account": {"external_id": "p"}}))];
    assert_eq!(&*rejection(&scene.upsert("contact", &orphan).await.unwrap()[0]).code, "missing_reference");
    // Parent and child in one batch: order decides.
    let pair =
        [("m", 1, json!({"last_name": "M"})), ("e", 1, json!({"last_name": "E", "manager": {"external_id": "m"}}))];
    assert_eq!(scene.upsert("employee", &pair).await, done(&[Done::Created, Done::Created]));
}

#[tokio::test]
async fn a_file_keeps_everything_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options = || DevCrmOptions {
        db: Some(dir.path().join("crm.db")),
        schema: SchemaSource::Open,
        ..DevCrmOptions::default()
    };
    let scene = Scene::new(options()).await;
    let records: Vec<_> = (0..50).map(|n| (format!("r{n:02}"), n)).collect();
    let batch: Vec<_> = records.iter().map(|(id, n)| (id.as_str(), 10, json!({"n": n}))).collect();
    assert_eq!(scene.upsert("x", &batch).await, done(&[Done::Created; 50]));
    scene.delete("x", &[("r00", 11)]).await.unwrap();
    let before = scene.all("x").await;
    let Scene { handle, _stop, .. } = scene;
    drop(_stop);
    handle.stopped().await;
    let scene = Scene::new(options()).await;
    assert_eq!(scene.all("x").await, before);
    assert_eq!(before.len(), 49);
    assert_eq!(scene.upsert("x", &[("r00", 10, json!({})), ("r01", 9, json!({}))]).await, Ok(vec![Outcome::Stale; 2]));
    assert_eq!(scene.upsert("x", &[("r01", 10, json!({"n": 1}))]).await, done(&[Done::Unchanged]));
}

#[tokio::test]
async fn compressed_bodies_are_taken_and_bombs_are_not() {
    let options = DevCrmOptions { schema: SchemaSource::Open, max_body_bytes: 100_000, ..DevCrmOptions::default() };
    let scene = Scene::with(options, |config| config.gzip = true).await;
    let text = "x".repeat(50_000);
    assert_eq!(scene.upsert("x", &[("a", 1, json!({"text": text}))]).await, done(&[Done::Created]));
    assert_eq!(scene.all("x").await[0].2["text"], text);
    let text = "x".repeat(5_000_000);
    assert_eq!(scene.upsert("x", &[("b", 1, json!({"text": text}))]).await, Err(CrmErrorKind::TooLarge));
}

#[tokio::test]
async fn too_much_at_once_is_413_also_while_it_is_still_being_sent() {
    let options = DevCrmOptions {
        schema: SchemaSource::Open,
        max_records: 10,
        max_body_bytes: 100_000,
        ..DevCrmOptions::default()
    };
    let scene = Scene::new(options).await;
    let ids: Vec<_> = (0..11).map(|n| n.to_string()).collect();
    let eleven: Vec<_> = ids.iter().map(|id| (id.as_str(), 1, json!({}))).collect();
    assert_eq!(scene.upsert("x", &eleven).await, Err(CrmErrorKind::TooLarge));
    assert_eq!(scene.upsert("x", &eleven[..10]).await, done(&[Done::Created; 10]));
    let large = [("a", 1, json!({"text": "x".repeat(30_000_000)}))];
    assert_eq!(scene.upsert("x", &large).await, Err(CrmErrorKind::TooLarge));
}

#[tokio::test]
async fn bodies_that_are_not_the_contracts_are_refused_with_the_reason() {
    let scene = Scene::open().await;
    for (kind, body, status) in [
        ("application/json", "{", 400),
        ("application/json", "[]", 400),
        ("application/json", r#"{"records":[{"fields":{}}]}"#, 400),
        ("text/plain", r#"{"records":[]}"#, 415),
        ("", r#"{"records":[]}"#, 415),
        ("application/json; charset=utf-8", r#"{"records":[]}"#, 200),
    ] {
        let request = scene.http.post(scene.url("/v1/x/upsert")).header("Content-Type", kind).body(body);
        assert_eq!(request.send().await.unwrap().status().as_u16(), status, "{kind} {body}");
    }
    for encoding in ["br", "gzip"] {
        let request = scene.http.post(scene.url("/v1/x/upsert")).header("Content-Type", "application/json");
        let status = request.header("Content-Encoding", encoding).body("{}").send().await.unwrap().status().as_u16();
        assert_eq!(status, if encoding == "br" { 415 } else { 400 });
    }
    assert_eq!(scene.http.put(scene.url("/v1/x/upsert")).send().await.unwrap().status().as_u16(), 405);
    let odd = json!({"records": [
        {"external_id": "", "version": "1", "fields": {}}, {"external_id": "b", "version": 1, "fields": {}},
        {"external_id": "c", "version": "1.5", "fields": {}}, {"external_id": "d", "version": "1"},
        {"external_id": "e", "version": "123456789012345678901234567890", "fields": {}},
        {"external_id": "f", "version": "1", "fields": []}, {"external_id": "g", "fields": {}}]});
    let request = scene.http.post(scene.url("/v1/x/upsert")).header("Content-Type", "application/json");
    let answer = request.body(odd.to_string()).send().await.unwrap().bytes().await.unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let codes: Vec<_> =
        answer["results"].as_array().unwrap().iter().map(|r| r["error"]["code"].as_str().unwrap_or("ok")).collect();
    assert_eq!(
        codes,
        [
            "invalid_external_id",
            "invalid_version",
            "invalid_version",
            "invalid_fields",
            "ok",
            "invalid_fields",
            "invalid_version"
        ]
    );
}

#[tokio::test]
async fn a_repeated_key_is_answered_as_the_first_time_and_never_for_another_content() {
    let scene = Scene::open().await;
    let send = |body: &'static str| {
        let request = scene.http.post(scene.url("/v1/x/upsert")).header("Content-Type", "application/json");
        let request = request.header("Idempotency-Key", "k1").body(body);
        async move {
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        }
    };
    let first = send(r#"{"records":[{"external_id":"a","version":"1","fields":{"n":1}}]}"#).await;
    assert!(first.1.contains("created"));
    assert_eq!(send(r#"{"records":[{"external_id":"a","version":"1","fields":{"n":1}}]}"#).await, first);
    let other = send(r#"{"records":[{"external_id":"a","version":"2","fields":{"n":2}}]}"#).await;
    assert_eq!(other.0, 422);
    assert_eq!(scene.all("x").await[0].2, json!({"n": 1}));
}

#[tokio::test]
async fn it_stops_when_told_though_a_call_hangs() {
    let faults = Faults { latency_ms: 60_000, ..Faults::default() };
    let options = DevCrmOptions { schema: SchemaSource::Open, faults, ..DevCrmOptions::default() };
    let scene = Scene::new(options).await;
    let hanging = scene.http.get(scene.url("/v1/x")).send();
    tokio::select! {
        _ = hanging => panic!("it should hang"),
        () = tokio::time::sleep(Duration::from_millis(200)) => {}
    }
    let Scene { handle, _stop, .. } = scene;
    drop(_stop);
    tokio::time::timeout(GRACE * 2, handle.stopped()).await.unwrap();
}
