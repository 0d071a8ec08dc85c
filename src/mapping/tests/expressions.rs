//! What expressions mean.

use super::*;
use crate::mapping::functions::FUNCTIONS;

/// The JSON that an expression makes of a row.
pub(super) fn value(expression: &str, values: &[(&str, Value<'_>)]) -> String {
    let lookup = "[lookup.country]\nvalues = { Germany = \"DE\" }\nunknown = \"null\"\n";
    let text = format!("{}\n{lookup}", pack_text("", &format!("x = '''{expression}'''")));
    let mut all = vec![("customer_id", Value::Text("A"))];
    all.extend_from_slice(values);
    match apply(&text, &all) {
        Applied::Upsert { document, .. } => {
            let json = String::from_utf8(document.json().to_vec()).expect("UTF-8");
            json[5..json.len() - 1].to_owned()
        }
        Applied::Rejected(rejection) => rejection.code.to_owned(),
        other => panic!("{expression}: {other:?}"),
    }
}

#[test]
fn the_examples_of_the_reference_are_true() {
    for f in FUNCTIONS {
        let (expression, expected) = f.example;
        let json = value(expression, &[]);
        let found = serde_json::from_str::<String>(&json).unwrap_or(json);
        assert_eq!(found, expected, "{expression}");
    }
}

#[test]
fn the_reference_page_is_up_to_date() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/mapping.md")).expect("docs/mapping.md");
    let reference = crate::mapping::function_reference();
    assert!(
        page.contains(reference.trim_end()),
        "replace the functions' chapter of docs/mapping.md by:\n\n{reference}"
    );
}
