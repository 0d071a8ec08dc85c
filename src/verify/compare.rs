//! When a record of the CRM is what the mapping makes of its row.
//!
//! Only mapped fields count: the CRM may hold more. Absent and null are the same. Numbers are compared by value, exactly
//! (1, 1.0 and 1e0 are equal; 0.1 and 0.1000000000000000055 are not), text by its characters. Where one side has a number
//! and the other the same decimal as text, they are equal: decimals and large integers are sent as text, and a CRM may
//! keep them as numbers. Of an object, the parts that the mapping writes count, so that a reference is its external id
//! whatever else the CRM tells about the parent; lists count element by element.

use crate::exact::{Decimal, Fields, Json};

/// Names of the fields (with dots, for parts of objects) in which `found` is not what `expected` says.
pub fn differences(expected: &Fields, found: &Fields) -> Vec<String> {
    changes(expected, found).into_iter().map(|change| change.field).collect()
}

/// A field that is not as it should be.
pub struct Change<'a> {
    /// Its name, with dots for parts of objects.
    pub field: String,
    /// What it should be.
    pub expected: &'a Json,
    /// What it is.
    pub found: &'a Json,
}

/// The fields in which `found` is not what `expected` says, with both values.
pub fn changes<'a>(expected: &'a Fields, found: &'a Fields) -> Vec<Change<'a>> {
    let mut out = Vec::new();
    compare_objects(expected, found, "", &mut out);
    out
}

fn compare_objects<'a>(expected: &'a Fields, found: &'a Fields, prefix: &str, out: &mut Vec<Change<'a>>) {
    for (name, wanted) in expected {
        let got = found.get(name).unwrap_or(&Json::Null);
        match (wanted, got) {
            (Json::Object(wanted), Json::Object(got)) => {
                compare_objects(wanted, got, &format!("{prefix}{name}."), out);
            }
            _ if equal(wanted, got) => {}
            _ => out.push(Change { field: format!("{prefix}{name}"), expected: wanted, found: got }),
        }
    }
}

fn equal(expected: &Json, found: &Json) -> bool {
    match (expected, found) {
        (Json::Number(a), Json::Number(b)) => a == b || same(Decimal::parse(a), Decimal::parse(b)),
        (Json::Text(text), Json::Number(number)) | (Json::Number(number), Json::Text(text)) => {
            same(Decimal::parse_text(text), Decimal::parse(number))
        }
        (Json::List(a), Json::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            let mut out = Vec::new();
            compare_objects(a, b, "", &mut out);
            out.is_empty()
        }
        // An object of which every part is null is what some CRMs make of no object at all.
        (Json::Object(a), Json::Null) => a.values().all(|part| equal(part, &Json::Null)),
        _ => expected == found,
    }
}

fn same(a: Option<Decimal>, b: Option<Decimal>) -> bool {
    a.is_some() && a == b
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn diff(expected: &Value, found: &Value) -> Vec<String> {
        texts(&expected.to_string(), &found.to_string())
    }

    fn texts(expected: &str, found: &str) -> Vec<String> {
        let fields = |text: &str| Json::fields(text.as_bytes()).expect("an object");
        differences(&fields(expected), &fields(found))
    }

    #[test]
    fn what_the_mapping_does_not_write_does_not_count() {
        let expected = json!({"name": "A", "account": {"external_id": "7"}, "fax": null, "n": 1, "tags": ["a", 2]});
        let found = json!({"name": "A", "account": {"external_id": "7", "id": "17"}, "n": 1.0, "tags": ["a", 2.0],
                           "owner": "somebody"});
        assert_eq!(diff(&expected, &found), Vec::<String>::new());
    }

    #[test]
    fn every_difference_is_named() {
        let expected = json!({"a": "x", "b": null, "c": {"d": 1, "e": "y"}, "f": [1], "g": 0.1, "h": 1, "i": true});
        let found = json!({"a": "X", "b": "", "c": {"d": 2, "e": "y"}, "f": [1, 2], "g": 0.1, "h": "2"});
        assert_eq!(diff(&expected, &found), ["a", "b", "c.d", "f", "h", "i"]);
    }

    #[test]
    fn large_integers_are_not_rounded() {
        let (a, b) = (json!({"n": 9007199254740993_i64}), json!({"n": 9007199254740992_i64}));
        assert_eq!(diff(&a, &b), ["n"]);
        assert!(diff(&json!({"n": -0.0}), &json!({"n": 0})).is_empty());
    }

    #[test]
    fn decimals_are_compared_digit_by_digit_as_number_or_text() {
        let long = "12345678901234567890.123456789";
        for (expected, found) in [
            (format!("{{\"n\":{long}}}"), format!("{{\"n\":{long}000}}")),
            (format!("{{\"n\":\"{long}\"}}"), format!("{{\"n\":{long}}}")),
            (format!("{{\"n\":{long}}}"), format!("{{\"n\":\"{long}\"}}")),
            (r#"{"n":"9007199254740993"}"#.into(), r#"{"n":9007199254740993}"#.into()),
            (r#"{"n":12.50}"#.into(), r#"{"n":1.25e1}"#.into()),
        ] {
            assert!(texts(&expected, &found).is_empty(), "{expected} {found}");
        }
        for (expected, found) in [
            (format!("{{\"n\":{long}}}"), "{\"n\":12345678901234567890.123456788}".to_owned()),
            (format!("{{\"n\":\"{long}\"}}"), "{\"n\":12345678901234567000}".to_owned()),
            // What looks like a number and has more characters than it needs is a text.
            (r#"{"n":"007"}"#.into(), r#"{"n":7}"#.into()),
            (r#"{"n":"12.50"}"#.into(), r#"{"n":"12.5"}"#.into()),
        ] {
            assert_eq!(texts(&expected, &found), ["n"], "{expected} {found}");
        }
    }

    #[test]
    fn no_object_and_an_object_of_nulls_are_the_same() {
        assert!(diff(&json!({"o": {"a": null}}), &json!({})).is_empty());
        assert_eq!(diff(&json!({"o": {"a": 1}}), &json!({})), ["o"]);
    }
}
