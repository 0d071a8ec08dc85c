//! When a record of the CRM is what the mapping makes of its row.
//!
//! Only mapped fields count: the CRM may hold more. Absent and null are the same. Numbers are compared by value (1, 1.0
//! and 1e0 are equal), text by its characters. Of an object, the parts that the mapping writes count, so that a
//! reference is its external id whatever else the CRM tells about the parent; lists count element by element.

use serde_json::{Map, Value};

/// Names of the fields (with dots, for parts of objects) in which `found` is not what `expected` says.
pub fn differences(expected: &Map<String, Value>, found: &Map<String, Value>) -> Vec<String> {
    let mut out = Vec::new();
    compare_objects(expected, found, "", &mut out);
    out
}

fn compare_objects(expected: &Map<String, Value>, found: &Map<String, Value>, prefix: &str, out: &mut Vec<String>) {
    for (name, wanted) in expected {
        let got = found.get(name).unwrap_or(&Value::Null);
        match (wanted, got) {
            (Value::Object(wanted), Value::Object(got)) => {
                compare_objects(wanted, got, &format!("{prefix}{name}."), out);
            }
            _ if equal(wanted, got) => {}
            _ => out.push(format!("{prefix}{name}")),
        }
    }
}

fn equal(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Number(a), Value::Number(b)) => equal_numbers(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            let mut out = Vec::new();
            compare_objects(a, b, "", &mut out);
            out.is_empty()
        }
        // An object of which every part is null is what some CRMs make of no object at all.
        (Value::Object(a), Value::Null) => a.values().all(|part| equal(part, &Value::Null)),
        _ => expected == found,
    }
}

fn equal_numbers(a: &serde_json::Number, b: &serde_json::Number) -> bool {
    match (a.as_i128(), b.as_i128()) {
        (Some(a), Some(b)) => a == b,
        // Both were read by the same parser, so that equal text is an equal float.
        _ => a.as_f64() == b.as_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn diff(expected: &Value, found: &Value) -> Vec<String> {
        differences(expected.as_object().expect("object"), found.as_object().expect("object"))
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
        let found = json!({"a": "X", "b": "", "c": {"d": 2, "e": "y"}, "f": [1, 2], "g": 0.1, "h": "1"});
        assert_eq!(diff(&expected, &found), ["a", "b", "c.d", "f", "h", "i"]);
    }

    #[test]
    fn large_integers_are_not_rounded() {
        let (a, b) = (json!({"n": 9007199254740993_i64}), json!({"n": 9007199254740992_i64}));
        assert_eq!(diff(&a, &b), ["n"]);
        assert!(diff(&json!({"n": -0.0}), &json!({"n": 0})).is_empty());
    }

    #[test]
    fn no_object_and_an_object_of_nulls_are_the_same() {
        assert!(diff(&json!({"o": {"a": null}}), &json!({})).is_empty());
        assert_eq!(diff(&json!({"o": {"a": 1}}), &json!({})), ["o"]);
    }
}
