//! `docs/crm-api.yaml` against the server that implements it.

use super::super::model::ROUTES;
use super::*;

const API: &str = include_str!("../../../../docs/crm-api.yaml");

/// Reads as much of YAML as the document uses: nested maps and lists by indentation, `|` blocks, and JSON for
/// everything on one line (a text without quotes is itself).
fn yaml(text: &str) -> Value {
    let lines: Vec<(usize, &str)> =
        text.lines().map(|line| (line.len() - line.trim_start().len(), line.trim_start())).collect();
    let mut at = 0;
    let value = block(&lines, &mut at, 0);
    assert_eq!(at, lines.len(), "line {}: {:?}", at + 1, lines[at].1);
    value
}

fn block(lines: &[(usize, &str)], at: &mut usize, indent: usize) -> Value {
    let mut map = serde_json::Map::new();
    let mut list = Vec::new();
    while let Some((depth, line)) = lines.get(*at).copied().filter(|(depth, line)| *depth == indent && !line.is_empty())
    {
        if let Some(item) = line.strip_prefix("- ") {
            // The rest of the line begins a map of its own, two columns further in.
            let mut inner = lines.to_vec();
            inner[*at] = (depth + 2, item);
            list.push(block(&inner, at, depth + 2));
            continue;
        }
        let (key, rest) = line.split_once(':').unwrap_or_else(|| panic!("line {}: {line:?}", *at + 1));
        *at += 1;
        let value = match rest.trim() {
            "" => {
                let deeper = lines.get(*at).map_or(0, |(depth, _)| *depth);
                assert!(deeper > indent, "line {at}: nothing under {key}");
                block(lines, at, deeper)
            }
            "|" => {
                let start = *at;
                while lines.get(*at).is_some_and(|(depth, line)| *depth > indent || line.is_empty()) {
                    *at += 1;
                }
                Value::String(lines[start..*at].iter().map(|(_, line)| *line).collect::<Vec<_>>().join("\n"))
            }
            scalar => serde_json::from_str(scalar).unwrap_or_else(|_| {
                assert!(!scalar.starts_with(['"', '{', '[', '&', '*', '!', '>', '%', '@', '`']), "line {at}: {scalar}");
                Value::String(scalar.to_owned())
            }),
        };
        let key: String = serde_json::from_str(key).unwrap_or_else(|_| key.to_owned());
        assert!(map.insert(key.clone(), value).is_none(), "line {at}: {key} twice");
    }
    if list.is_empty() { Value::Object(map) } else { Value::Array(list) }
}

fn operations(document: &Value) -> std::collections::BTreeMap<(String, String), Value> {
    let mut all = std::collections::BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if matches!(method.as_str(), "get" | "put" | "post" | "delete" | "patch") {
                all.insert((method.clone(), path.clone()), operation.clone());
            }
        }
    }
    all
}

/// The media of an operation's body (`requestBody`) or of its answer 200.
fn media<'a>(operation: &'a Value, what: &str) -> &'a Value {
    let body = if what == "requestBody" { &operation[what] } else { &operation["responses"]["200"] };
    &body["content"]["application/json"]
}

fn words(operation: &Value) -> &Value {
    &media(operation, "200")["schema"]["properties"]["results"]["items"]["properties"]["status"]["enum"]
}

#[test]
fn the_document_and_the_server_name_the_same_calls() {
    let api = yaml(API);
    assert_eq!(api["openapi"], "3.1.0");
    let written = operations(&api);
    let routes: Vec<_> = ROUTES.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(written.keys().cloned().collect::<std::collections::BTreeSet<_>>(), routes.into_iter().collect());
    let published: Value = serde_json::from_str(&Model::load(&SchemaSource::Northwind).unwrap().document).unwrap();
    let published = operations(&published);
    for (call, operation) in &written {
        let ours = &published[call];
        let codes = |operation: &Value| operation["responses"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(codes(operation), codes(ours), "{call:?}");
        assert_eq!(words(operation), words(ours), "{call:?}");
        for what in ["requestBody", "200"] {
            let required = |operation: &Value| media(operation, what)["schema"]["required"].clone();
            if call.1 != "/openapi.json" {
                assert_eq!(required(operation), required(ours), "{call:?} {what}");
            }
        }
    }
}

#[test]
fn references_inside_the_document_lead_somewhere() {
    fn follow(value: &Value, api: &Value, count: &mut usize) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    assert!(api.pointer(target.strip_prefix('#').unwrap()).is_some(), "{target}");
                    *count += 1;
                }
                map.values().for_each(|value| follow(value, api, count));
            }
            Value::Array(list) => list.iter().for_each(|value| follow(value, api, count)),
            _ => {}
        }
    }
    let api = yaml(API);
    let mut count = 0;
    follow(&api, &api, &mut count);
    assert!(count > 10, "{count}");
}

#[tokio::test]
async fn the_examples_are_what_happens() {
    let api = yaml(API);
    let written = operations(&api);
    let example = |method: &str, path: &str, what: &str| {
        media(&written[&(method.to_owned(), path.to_owned())], what)["example"].clone()
    };
    let model = example("get", "/openapi.json", "200").to_string();
    let scene = Scene::new(DevCrmOptions { schema: SchemaSource::Text(model), ..DevCrmOptions::default() }).await;
    let post = |path: &'static str, body: Value| {
        let request =
            scene.http.post(scene.url(&path.replace("{entity}", "account"))).header("Content-Type", "application/json");
        async move {
            let answer = request.body(body.to_string()).send().await.unwrap().bytes().await.unwrap();
            serde_json::from_slice::<Value>(&answer).unwrap()
        }
    };
    let mut results = post("/v1/{entity}/upsert", example("post", "/v1/{entity}/upsert", "requestBody")).await;
    // Its own ids are the CRM's business.
    results["results"][0]["id"] = json!("17");
    assert_eq!(results, example("post", "/v1/{entity}/upsert", "200"));
    let listed = scene.http.get(scene.url("/v1/account")).send().await.unwrap().bytes().await.unwrap();
    let mut listed: Value = serde_json::from_slice(&listed).unwrap();
    listed["records"][0]["id"] = json!("17");
    assert_eq!(listed, example("get", "/v1/{entity}", "200"));
    let mut results = post("/v1/{entity}/delete", example("post", "/v1/{entity}/delete", "requestBody")).await;
    results["results"][0].as_object_mut().unwrap().remove("id");
    assert_eq!(results, example("post", "/v1/{entity}/delete", "200"));
}

#[tokio::test]
async fn every_call_of_the_document_is_there() {
    let scene = Scene::open().await;
    for (method, path, _) in ROUTES {
        let method = method.to_uppercase().parse().unwrap();
        let request = scene.http.request(method, scene.url(&path.replace("{entity}", "x")));
        let status =
            request.header("Content-Type", "application/json").body(r#"{"records":[]}"#).send().await.unwrap().status();
        assert_eq!(status.as_u16(), 200, "{path}");
    }
    assert_eq!(scene.http.get(scene.url("/v1/x/upsert")).send().await.unwrap().status().as_u16(), 405);
    assert_eq!(scene.http.get(scene.url("/v2/x")).send().await.unwrap().status().as_u16(), 404);
}
