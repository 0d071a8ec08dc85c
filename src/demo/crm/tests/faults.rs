//! Every fault switch, and what the client makes of it.

use super::*;

impl Scene {
    async fn switch(&self, faults: Value) {
        let request = self.http.post(self.url("/admin/faults")).header("Content-Type", "application/json");
        let answer = request.body(faults.to_string()).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200, "{}", answer.text().await.unwrap());
    }

    async fn one(&self, version: u64) -> Result<Outcome, crate::crm::CrmError> {
        let document = Document::new(format!("{{\"v\":{version}}}").into_bytes().into(), false);
        let record = WriteRecord { external_id: "a", version, document: Some(&document) };
        self.crm.upsert("x", &[record]).await.map(|mut outcomes| outcomes.remove(0))
    }

    async fn kind(&self, version: u64) -> CrmErrorKind {
        self.one(version).await.unwrap_err().kind
    }

    /// The version that the CRM holds.
    async fn held(&self) -> Option<Value> {
        self.all("x").await.first().map(|(_, _, fields)| fields["v"].clone())
    }
}

const CREATED: Outcome = Outcome::Done(Done::Created);

#[tokio::test]
async fn switches_that_do_nothing_to_the_record() {
    let scene = Scene::open().await;
    for (faults, kind) in [
        (json!({"drop_before": {"next": 1}}), CrmErrorKind::Unknown),
        (json!({"error_500": {"next": 1}}), CrmErrorKind::Unknown),
        (json!({"error_503": {"next": 1}}), CrmErrorKind::Unavailable),
        (json!({"html_login": {"next": 1}}), CrmErrorKind::Unknown),
        (json!({"forbidden": {"next": 1}}), CrmErrorKind::Forbidden),
        (json!({"unauthorized": {"next": 1}}), CrmErrorKind::Unauthorized),
        (json!({"throttle": {"next": 1}}), CrmErrorKind::Throttled),
    ] {
        scene.switch(faults.clone()).await;
        assert_eq!(scene.kind(1).await, kind, "{faults}");
        assert_eq!(scene.held().await, None, "{faults}");
    }
    assert_eq!(scene.one(1).await.unwrap(), CREATED);
}

#[tokio::test]
async fn switches_that_lose_the_answer_of_a_write_that_is_done() {
    let scene = Scene::open().await;
    for (version, fault) in (1..).zip(["drop_after_apply", "cut_answer", "truncated_json"]) {
        scene.switch(json!({fault: {"next": 1}})).await;
        assert_eq!(scene.kind(version).await, CrmErrorKind::Unknown, "{fault}");
        assert_eq!(scene.held().await, Some(version.into()), "{fault}: the write is done");
        // The repeated try is the same write, and is answered as the lost answer was.
        let first = if version == 1 { Done::Created } else { Done::Updated };
        assert_eq!(scene.one(version).await.unwrap(), Outcome::Done(first), "{fault}");
    }
}

#[tokio::test]
async fn throttling_says_how_long_in_every_form() {
    let scene = Scene::open().await;
    let wait = |setting: Value| {
        let scene = &scene;
        async move {
            scene.switch(json!({"throttle": {"next": 1, "retry_after": setting}})).await;
            let error = scene.one(1).await.unwrap_err();
            assert_eq!(error.kind, CrmErrorKind::Throttled);
            error.retry_after
        }
    };
    assert_eq!(wait(json!("7")).await, Some(Duration::from_secs(7)));
    let dated = wait(json!("date:30")).await.unwrap().as_secs();
    assert!((28..=31).contains(&dated), "{dated}");
    for none in [json!("none"), json!(null), json!("garbage")] {
        assert_eq!(wait(none).await, None);
    }
}

#[tokio::test]
async fn too_few_results_leave_some_unknown_and_all_of_them_done() {
    let scene = Scene::open().await;
    scene.switch(json!({"too_few_results": {"next": 1}})).await;
    let ids: Vec<_> = (0..9).map(|n| n.to_string()).collect();
    let batch: Vec<_> = ids.iter().map(|id| (id.as_str(), 1, json!({"v": 1}))).collect();
    let outcomes = scene.upsert("x", &batch).await.unwrap();
    assert_eq!(outcomes, [vec![CREATED; 6], vec![Outcome::Unknown; 3]].concat());
    assert_eq!(scene.all("x").await.len(), 9);
    assert_eq!(scene.upsert("x", &batch).await, done(&[Done::Unchanged; 9]));
}

#[tokio::test]
async fn records_are_refused_by_rule_and_the_others_are_not() {
    let scene = Scene::open().await;
    scene
        .switch(json!({"reject": [
            {"entity": "x", "field": "colour", "equals": "red", "code": "bad_colour", "message": "no red"},
            {"entity": "y", "every": 10}]}))
        .await;
    let outcomes = scene
        .upsert("x", &[("a", 1, json!({"colour": "red"})), ("b", 1, json!({"colour": "blue"})), ("c", 1, json!({}))])
        .await
        .unwrap();
    assert_eq!(outcomes[1..], [CREATED, CREATED]);
    let refused = rejection(&outcomes[0]);
    assert_eq!((&*refused.code, refused.field.as_deref(), &*refused.message), ("bad_colour", Some("colour"), "no red"));
    let ids: Vec<_> = (0..1_000).map(|n| n.to_string()).collect();
    let batch: Vec<_> = ids.iter().map(|id| (id.as_str(), 1, json!({}))).collect();
    let rejected = |outcomes: &[Outcome]| outcomes.iter().filter(|o| matches!(o, Outcome::Rejected(_))).count();
    let first = scene.upsert("y", &batch).await.unwrap();
    assert!((50..200).contains(&rejected(&first)), "{}", rejected(&first));
    // The same ones again, whatever they come with.
    let batch: Vec<_> = ids.iter().map(|id| (id.as_str(), 2, json!({"n": 1}))).collect();
    let second = scene.upsert("y", &batch).await.unwrap();
    assert!(
        first.iter().zip(&second).all(|(a, b)| matches!(a, Outcome::Rejected(_)) == matches!(b, Outcome::Rejected(_)))
    );
    assert_eq!(scene.all("y").await.len(), 1_000 - rejected(&first));
}

#[tokio::test]
async fn stale_is_said_of_records_that_are_written_all_the_same() {
    let scene = Scene::open().await;
    scene.switch(json!({"stale": 1.0})).await;
    assert_eq!(scene.one(1).await.unwrap(), Outcome::Stale);
    assert_eq!(scene.held().await, Some(1.into()));
}

#[tokio::test]
async fn a_late_answer_is_unknown_and_its_write_is_done() {
    let options = DevCrmOptions { schema: SchemaSource::Open, ..DevCrmOptions::default() };
    let scene = Scene::with(options, |config| config.timeout = Duration::from_millis(300)).await;
    scene.switch(json!({"latency_ms": 600})).await;
    assert_eq!(scene.kind(1).await, CrmErrorKind::Unknown);
    tokio::time::sleep(Duration::from_millis(600)).await;
    scene.switch(json!({})).await;
    assert_eq!(scene.held().await, Some(1.into()));
    assert_eq!(scene.one(1).await.unwrap(), CREATED, "answered as the first time");
}

#[tokio::test]
async fn without_fencing_going_back_is_seen() {
    let scene = Scene::open().await;
    scene.switch(json!({"no_fencing": true})).await;
    for version in [5, 6, 3] {
        scene.one(version).await.unwrap();
    }
    assert_eq!(scene.held().await, Some(3.into()));
    let stats = scene.stats().await;
    assert_eq!((&stats["regressions"], &stats["stale_writes"]), (&json!(1), &json!(1)));
    scene.switch(json!({})).await;
    assert_eq!(scene.one(2).await.unwrap(), Outcome::Stale);
    let stats = scene.stats().await;
    assert_eq!((&stats["regressions"], &stats["stale_writes"]), (&json!(1), &json!(2)));
}

/// The sender's rules, in small: repeat what is unknown or not done, never send newer before older is known.
#[tokio::test]
async fn with_every_switch_on_repeating_is_enough() {
    let scene = Scene::open().await;
    scene
        .switch(json!({"seed": 3, "throttle": {"share": 0.1}, "error_500": 0.1, "error_503": 0.05, "drop_before": 0.1,
            "drop_after_apply": 0.1, "cut_answer": 0.1, "truncated_json": 0.1, "html_login": 0.05, "too_few_results": 0.2, "stale": 0.05}))
        .await;
    let ids: Vec<_> = (0..20).map(|n| format!("r{n}")).collect();
    for version in 1..=10 {
        let mut open: Vec<&str> = ids.iter().map(String::as_str).collect();
        for _ in 0..100 {
            let batch: Vec<_> = open.iter().map(|id| (*id, version, json!({"v": version, "id": id}))).collect();
            if let Ok(outcomes) = scene.upsert("x", &batch).await {
                open = open
                    .iter()
                    .zip(outcomes)
                    .filter(|(_, outcome)| *outcome == Outcome::Unknown)
                    .map(|(id, _)| *id)
                    .collect();
            }
            if open.is_empty() {
                break;
            }
        }
        assert!(open.is_empty(), "never done: {open:?}");
    }
    scene.switch(json!({})).await;
    let held = scene.all("x").await;
    assert_eq!(held.len(), 20);
    assert!(held.iter().all(|(id, version, fields)| version == "10" && *fields == json!({"v": 10, "id": id})));
    let stats = scene.stats().await;
    assert_eq!((&stats["regressions"], &stats["stale_writes"]), (&json!(0), &json!(0)));
    assert!(stats["faults"].as_u64().unwrap() > 10, "{stats}");
}

#[test]
fn every_switch_is_explained() {
    let guide = include_str!("../../../../docs/dev-crm.md");
    let on = Faults { throttle: Some(Throttle::default()), reject: vec![Reject::default()], ..Faults::default() };
    for name in serde_json::to_value(on).unwrap().as_object().unwrap().keys() {
        assert!(guide.contains(&format!("`{name}`")), "{name} is missing in docs/dev-crm.md");
    }
    let example = guide.split("-d '").nth(1).unwrap().split('\'').next().unwrap();
    assert!(!serde_json::from_str::<Faults>(example).unwrap().are_off());
}
