//! The calls of the page: what they show, and to whom.

use super::*;
use futures_util::StreamExt;

impl Scene {
    pub(super) async fn stats(&self) -> Value {
        self.get("/admin/stats").await.1
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let mut request = self.http.get(self.url(path));
        if self.token {
            request = request.bearer_auth(TOKEN);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
    }

    async fn post(&self, body: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = self.http.post(self.url("/admin/faults"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(body.to_owned()).send().await.unwrap().status().as_u16()
    }
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[tokio::test]
async fn counters_tell_what_was_done() {
    let scene = Scene::open().await;
    scene.upsert("x", &[("a", 2, json!({})), ("b", 2, json!({}))]).await.unwrap();
    scene.upsert("x", &[("a", 1, json!({})), ("b", 2, json!({"n": 1}))]).await.unwrap();
    scene.delete("x", &[("a", 3), ("c", 3)]).await.unwrap();
    let stats = scene.stats().await;
    assert_eq!(stats["entities"], json!({"x": 1}));
    assert_eq!(
        stats["records"],
        json!({"created": 2, "updated": 1, "unchanged": 0, "deleted": 1, "not_found": 1, "stale": 1, "rejected": 0})
    );
    assert_eq!(stats["requests"], json!({"200": 3}));
    for (name, count) in
        [("stale_writes", 1), ("repeated_writes", 1), ("regressions", 0), ("replays", 0), ("max_in_flight", 1)]
    {
        assert_eq!(stats[name], json!(count), "{name}");
    }
    assert_eq!(stats["in_flight"], json!(0));
}

#[tokio::test]
async fn a_record_shows_its_history_with_what_changed() {
    let scene = Scene::open().await;
    let id = "ä/ö&?#\"";
    scene.upsert("x", &[(id, 1, json!({"a": 1, "b": "x"}))]).await.unwrap();
    scene.upsert("x", &[(id, 2, json!({"b": null, "a": 2}))]).await.unwrap();
    scene.upsert("x", &[(id, 1, json!({"a": 0}))]).await.unwrap();
    let path = format!("/admin/record?entity=x&id={}", crate::crm::percent_encode(id));
    let (status, shown) = scene.get(&path).await;
    assert_eq!(status, 200);
    assert_eq!(shown["record"]["fields"], json!({"a": 2}));
    let past: Vec<_> =
        shown["history"].as_array().unwrap().iter().map(|p| (&p["status"], &p["version"], &p["changes"])).collect();
    assert_eq!(
        past,
        [
            (&json!("stale"), &json!("1"), &Value::Null),
            (&json!("updated"), &json!("2"), &json!({"b": {"from": "x"}, "a": {"from": 1, "to": 2}})),
            (&json!("created"), &json!("1"), &json!({"a": {"to": 1}, "b": {"to": "x"}})),
        ]
    );
    scene.delete("x", &[(id, 5)]).await.unwrap();
    let (_, shown) = scene.get(&path).await;
    assert_eq!((&shown["record"], &shown["history"][0]["status"]), (&Value::Null, &json!("deleted")));
    assert_eq!(scene.get("/admin/record?entity=x&id=never").await.0, 404);
}

#[tokio::test]
async fn records_are_found_by_text() {
    let scene = Scene::open().await;
    let ids: Vec<_> = (0..120).map(|n| format!("r{n:03}")).collect();
    let batch: Vec<_> = ids
        .iter()
        .map(|id| (id.as_str(), 1, json!({"city": if id.ends_with('7') { "MÜNCHEN" } else { "Ulm" }})))
        .collect();
    scene.upsert("x", &batch).await.unwrap();
    let (_, found) = scene.get("/admin/records?entity=x&q=m%C3%BCnch&limit=5").await;
    let ids = |found: &Value| {
        found["records"]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| r["external_id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&found), ["r007", "r017", "r027", "r037", "r047"]);
    let next = found["next"].as_str().unwrap();
    let (_, found) = scene.get(&format!("/admin/records?entity=x&q=m%C3%BCnch&after={next}")).await;
    assert_eq!((ids(&found).len(), &found["next"]), (7, &Value::Null));
    let (_, found) = scene.get("/admin/records?entity=x&q=R01").await;
    assert_eq!(ids(&found).len(), 10);
    assert_eq!(scene.get("/admin/records?entity=x").await.1["records"].as_array().unwrap().len(), 50);
}

#[tokio::test]
async fn switches_are_set_shown_and_cleared() {
    let scene = Scene::open().await;
    assert_eq!(scene.post(r#"{"latency_ms":5,"error_500":0.5}"#, &[JSON]).await, 200);
    let (_, shown) = scene.get("/admin/faults").await;
    assert_eq!((&shown["latency_ms"], &shown["error_500"]["share"]), (&json!(5), &json!(0.5)));
    assert_eq!(scene.stats().await["faults_on"], json!(true));
    assert_eq!(scene.post(r#"{"nonsense":1}"#, &[JSON]).await, 400);
    assert_eq!(scene.get("/admin/faults").await.1["latency_ms"], json!(5), "a bad call changes nothing");
    scene.http.delete(scene.url("/admin/faults")).send().await.unwrap();
    assert_eq!(scene.stats().await["faults_on"], json!(false));
}

#[tokio::test]
async fn other_pages_and_other_names_change_and_see_nothing() {
    let scene = Scene::open().await;
    let faults = r#"{"latency_ms":1}"#;
    let host = scene.handle.addr.to_string();
    let own = format!("http://{host}");
    assert_eq!(scene.post(faults, &[JSON, ("Origin", &own)]).await, 200);
    // Another page (CSRF); a form; a name that points here (DNS rebinding), which is its own origin.
    assert_eq!(scene.post(faults, &[JSON, ("Origin", "http://evil.example")]).await, 403);
    assert_eq!(scene.post(faults, &[JSON, ("Origin", "null")]).await, 403);
    assert_eq!(scene.post(faults, &[("Content-Type", "text/plain")]).await, 415);
    assert_eq!(scene.post(faults, &[JSON, ("Host", "evil.example"), ("Origin", "http://evil.example")]).await, 403);
    let rebound = scene.http.get(scene.url("/admin/stats")).header("Host", "evil.example").send().await.unwrap();
    assert_eq!(rebound.status().as_u16(), 403);
    let named = scene.http.get(scene.url("/admin/stats")).header("Host", "localhost").send().await.unwrap();
    assert_eq!(named.status().as_u16(), 200);
}

#[tokio::test]
async fn with_a_token_every_call_needs_it() {
    let mut scene = Scene::new(DevCrmOptions { token: Some(TOKEN.to_owned()), ..DevCrmOptions::default() }).await;
    let paths = [
        "/admin/stats",
        "/admin/faults",
        "/admin/records?entity=account",
        "/admin/record?entity=account&id=a",
        "/v1/account",
        "/openapi.json",
    ];
    for path in paths {
        for token in ["", TOKEN, "t0ken+/", "t0ken+/=x"] {
            let mut request = scene.http.get(scene.url(path));
            if !token.is_empty() {
                request = request.bearer_auth(token);
            }
            let status = request.send().await.unwrap().status().as_u16();
            assert_eq!(status == 401, token != TOKEN, "{path} {token:?}: {status}");
        }
    }
    assert_eq!(scene.http.get(scene.url("/admin/events")).send().await.unwrap().status().as_u16(), 401);
    assert_eq!(scene.post("{}", &[JSON]).await, 401);
    assert_eq!(scene.http.get(scene.url("/health")).send().await.unwrap().status().as_u16(), 200);
    scene.token = true;
    assert_eq!(scene.get("/admin/stats").await.0, 200);
}

#[tokio::test]
async fn what_happens_is_told_as_it_happens() {
    let scene = Scene::open().await;
    let mut stream = scene.http.get(scene.url("/admin/events")).send().await.unwrap().bytes_stream();
    let mut next = async || {
        let chunk = tokio::time::timeout(Duration::from_secs(5), stream.next()).await.unwrap().unwrap().unwrap();
        let text = std::str::from_utf8(&chunk).unwrap().strip_prefix("data: ").unwrap().to_owned();
        serde_json::from_str::<Value>(text.trim()).unwrap()
    };
    assert_eq!(next().await["stats"]["entities"], json!({}));
    let ids: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    let batch: Vec<_> = ids.iter().map(|id| (id.as_str(), 1, json!({}))).collect();
    scene.upsert("x", &batch).await.unwrap();
    let news = loop {
        let news = next().await;
        if news["events"].as_array().is_some_and(|events| !events.is_empty()) {
            break news;
        }
    };
    assert_eq!(news["stats"]["entities"], json!({"x": 100}));
    let events = news["events"].as_array().unwrap();
    assert_eq!((events.len(), &news["skipped"]), (40, &json!(60)));
    assert_eq!((&events[39]["external_id"], &events[39]["status"]), (&json!("99"), &json!("created")));
}

#[tokio::test]
async fn without_history_there_is_none_and_the_record_is_still_there() {
    let options = DevCrmOptions { schema: SchemaSource::Open, history: 0, ..DevCrmOptions::default() };
    let scene = Scene::new(options).await;
    scene.upsert("x", &[("a", 1, json!({"n": 1}))]).await.unwrap();
    let (_, shown) = scene.get("/admin/record?entity=x&id=a").await;
    assert_eq!(
        (&shown["record"]["fields"]["n"], &shown["recorded"], &shown["history"]),
        (&json!(1), &json!(false), &json!([]))
    );
}

#[tokio::test]
async fn the_page_is_served_under_a_strict_policy() {
    let scene = Scene::new(DevCrmOptions { token: Some(TOKEN.to_owned()), ..DevCrmOptions::default() }).await;
    for (path, kind) in
        [("/", "text/html"), ("/app.js", "text/javascript"), ("/style.css", "text/css"), ("/icon.svg", "image/svg+xml")]
    {
        let answer = scene.http.get(scene.url(path)).send().await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(answer.status().as_u16(), 200, "the page itself holds no data and needs no token");
        assert!(header("content-type").starts_with(kind), "{path}");
        assert!(header("content-security-policy").starts_with("default-src 'self';"));
        assert_eq!(
            (header("x-content-type-options"), header("referrer-policy")),
            ("nosniff".into(), "no-referrer".into())
        );
    }
}

/// What the policy forbids does not work, and what makes text into markup is not there to be misused.
#[test]
fn the_page_makes_no_markup_out_of_text() {
    let (html, script, style) =
        (include_str!("../page/index.html"), include_str!("../page/app.js"), include_str!("../page/style.css"));
    for word in [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "srcdoc",
        "DOMParser",
        "createContextualFragment",
    ] {
        assert!(!script.contains(word), "{word}");
    }
    for text in [html, script, style] {
        let away = text
            .match_indices("//")
            .filter(|(at, _)| text[..*at].ends_with("http:") || text[..*at].ends_with("https:"));
        let away: Vec<_> = away
            .map(|(at, _)| text[at..].lines().next().unwrap())
            .filter(|url| !url.starts_with("//www.w3.org/"))
            .collect();
        assert!(away.is_empty(), "nothing comes from elsewhere: {away:?}");
    }
    assert!(
        !html.contains("style=")
            && !html.contains("<style")
            && !html.contains(" onclick")
            && !html.contains("javascript:")
    );
    assert_eq!(html.matches("<script").count(), html.matches("<script src=").count());
    // Every element that the script asks for is in the page.
    let ids = script.split("byId(\"").skip(1).map(|rest| rest.split('"').next().unwrap());
    for id in ids {
        assert!(html.contains(&format!("id=\"{id}\"")), "{id}");
    }
}
