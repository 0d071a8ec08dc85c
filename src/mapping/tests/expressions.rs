//! What expressions mean.

use super::*;
use crate::mapping::functions::FUNCTIONS;

/// The JSON that an expression makes of a row.
pub(super) fn value(expression: &str, values: &[(&str, Value<'_>)]) -> String {
    let lookup = "[lookup.country]\nvalues = { Germany = \"DE\" }\nunknown = \"null\"\n";
    let text = format!("{}\n{lookup}", pack_text("", &format!("x = '''{expression}'''")));
    let text = text.replace("version = \"1\"", "version = \"1\"\nvars = { key = { type = \"secret\" } }");
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
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/functions.md")).expect("docs/functions.md");
    let reference = crate::mapping::function_reference();
    assert!(page == reference, "docs/functions.md should be:\n{reference}");
}

#[test]
fn keyed_hashes_and_named_uuids_are_those_of_other_programs() {
    let hash = "9946dad4e00e913fc8be8e5d3f7e110a4a9e832f83fb09c345285d78638d8a0e";
    assert_eq!(value("hmac_sha256('abc', $key)", &[]), format!("\"{hash}\""));
    assert_eq!(value("hmac_sha256(c.country, $key)", &[]), "null");
    // RFC 9562, appendix A.4.
    let id = value("uuid_v5('6ba7b810-9dad-11d1-80b4-00c04fd430c8', 'www.example.com')", &[]);
    assert_eq!(id, "\"2ed6657d-e927-568b-95e1-2665a8aea6a2\"");
}

#[test]
fn what_is_no_number_address_or_country_is_null() {
    let text = |expression: &str, country: &str| value(expression, &[("country", Value::Text(country))]);
    assert_eq!(text("phone_e164(c.country, 'DE')", "030-0074321"), "\"+49300074321\"");
    assert_eq!(text("phone_e164(c.country, country_code('Germany'))", "030/007 43 21"), "\"+49300074321\"");
    assert_eq!(text("phone_e164(c.country)", "030-0074321"), "null");
    assert_eq!(text("coalesce(phone_e164(c.country, 'DE'), c.country)", "ask Anna"), "\"ask Anna\"");
    assert_eq!(text("email_address(c.country)", "mailto:A.B@Example.COM"), "\"a.b@example.com\"");
    for none in ["a@b", "a b@c.de", "a@@c.de", "", "A <a@b.de>", "a@[127.0.0.1]"] {
        assert_eq!(text("email_address(c.country)", none), "null", "{none}");
    }
    assert_eq!(text("country_code(c.country)", "Atlantis"), "null");
}
