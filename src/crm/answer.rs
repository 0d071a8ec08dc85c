//! Answer bytes to outcomes.
//!
//! The rule behind all of it: a record is *done* only if the answer says so, at the record's place, under the record's
//! external id, in a word of the contract. Whatever else comes back (too few results, results in another order, an
//! unknown word, half a document, a login page with status 200) leaves the record *unknown*: the same write is
//! repeated before anything newer goes out, which costs a request and never a record.

use super::{CrmErrorKind, CrmRejection, Done, Outcome, WriteRecord, write::Op};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::time::{Duration, SystemTime};

/// Longest text of a CRM that is kept, in characters.
pub(super) const WORDS: usize = 2_000;
/// Longest wait that a CRM can ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    results: Vec<Item<'a>>,
}

#[derive(Deserialize)]
struct RawAnswer<'a> {
    #[serde(borrow)]
    results: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    external_id: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// One outcome per record, or `None` if `body` is no answer of the contract at all.
pub(super) fn outcomes(op: Op, records: &[WriteRecord<'_>], body: &[u8]) -> Option<Vec<Outcome>> {
    let mut outcomes = Vec::with_capacity(records.len());
    if let Ok(answer) = serde_json::from_slice::<Answer<'_>>(body) {
        outcomes.extend(records.iter().zip(&answer.results).map(|(record, item)| outcome(op, record, item)));
    } else {
        // Some result is not as the contract has it. That is no reason to doubt the others.
        let answer = serde_json::from_slice::<RawAnswer<'_>>(body).ok()?;
        outcomes.extend(records.iter().zip(answer.results).map(|(record, item)| {
            serde_json::from_str::<Item<'_>>(item.get()).map_or(Outcome::Unknown, |item| outcome(op, record, &item))
        }));
    }
    outcomes.resize(records.len(), Outcome::Unknown);
    Some(outcomes)
}

fn outcome(op: Op, record: &WriteRecord<'_>, item: &Item<'_>) -> Outcome {
    if item.external_id != record.external_id {
        return Outcome::Unknown;
    }
    match (op, &*item.status) {
        (Op::Upsert, "created") => Outcome::Done(Done::Created),
        (Op::Upsert, "updated") => Outcome::Done(Done::Updated),
        (Op::Upsert, "unchanged") => Outcome::Done(Done::Unchanged),
        (Op::Delete, "deleted") => Outcome::Done(Done::Deleted),
        (Op::Delete, "not_found") => Outcome::Done(Done::NotFound),
        (_, "stale") => Outcome::Stale,
        (_, "rejected") => Outcome::Rejected(rejection(item.error)),
        _ => Outcome::Unknown,
    }
}

fn rejection(error: Option<&RawValue>) -> CrmRejection {
    let error = error.and_then(|raw| serde_json::from_str::<Value>(raw.get()).ok()).unwrap_or(Value::Null);
    let text = |name: &str, longest| match error.get(name) {
        Some(Value::String(text)) => Some(clean(text, longest).into_boxed_str()),
        Some(Value::Number(number)) => Some(number.to_string().into_boxed_str()),
        _ => None,
    };
    let message = text("message", WORDS)
        .or_else(|| error.as_str().map(|text| clean(text, WORDS).into()))
        .unwrap_or_else(|| "the CRM gave no reason".into());
    CrmRejection { code: text("code", 100).unwrap_or_else(|| "rejected".into()), field: text("field", 200), message }
}

/// What a status outside 2xx means for the request (401 is handled by whoever holds the credentials).
pub(super) fn kind_of_status(status: u16) -> CrmErrorKind {
    match status {
        401 => CrmErrorKind::Unauthorized,
        403 | 407 => CrmErrorKind::Forbidden,
        413 => CrmErrorKind::TooLarge,
        429 => CrmErrorKind::Throttled,
        // Nobody took the request in. (425: the server did not want to risk taking it.)
        425 | 502 | 503 | 511 => CrmErrorKind::Unavailable,
        // 408 is a server that gave up waiting: how much of the body it had seen is its secret.
        408 | 500 | 504.. => CrmErrorKind::Unknown,
        404 | 405 | 406 | 410 | 414 | 415 | 431 | 501 => CrmErrorKind::Contract,
        400..=499 => CrmErrorKind::Refused,
        // Redirects: our credentials go where the tenant file says, and nowhere else.
        300..=399 => CrmErrorKind::Contract,
        // 2xx that is none of the contract's: accepted for later, no content, …
        _ => CrmErrorKind::Unknown,
    }
}

/// How long `Retry-After` asks to wait, if it can be read: seconds, or a date (compared with the server's own `Date`
/// if it sent one, so that a wrong clock on either side does not matter). At most an hour.
pub(super) fn retry_after(value: Option<&str>, date: Option<&str>, now: SystemTime) -> Option<Duration> {
    let value = value?.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        if !seconds.is_finite() || seconds < 0.0 {
            return None;
        }
        return Some(Duration::from_secs_f64(seconds.min(LONGEST_WAIT.as_secs_f64())));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    let now = date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    Some(until.duration_since(now).unwrap_or(Duration::ZERO).min(LONGEST_WAIT))
}

/// The CRM's own words in the body of a failed request; empty if there are none worth keeping.
pub(super) fn words(content_type: &str, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    if let Ok(value) = serde_json::from_str::<Value>(&text) {
        return clean(&words_of_json(&value, 0).unwrap_or_default(), WORDS);
    }
    // A page is made for people with a browser; its text says nothing about the request.
    if content_type.starts_with("text/plain") { clean(&text, WORDS) } else { String::new() }
}

/// The CRM's error code in the body of a failed request: a short word that can hold no record's values.
pub(super) fn code(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let place = |value: &Value| {
        ["code", "error_code", "errorCode", "error"]
            .iter()
            .find_map(|name| value.get(*name)?.as_str().map(str::to_owned))
    };
    let found = place(&value)
        .or_else(|| value.get("error").and_then(place))
        .or_else(|| value.get("errors").and_then(|errors| place(errors.get(0)?)))?;
    let is_word = !found.is_empty()
        && found.len() <= 64
        && found.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        && found.bytes().any(|b| b.is_ascii_alphabetic());
    is_word.then_some(found)
}

fn words_of_json(value: &Value, depth: u8) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Array(list) if depth < 4 => list.iter().find_map(|value| words_of_json(value, depth + 1)),
        Value::Object(object) if depth < 4 => {
            let code = ["code", "error_code", "errorCode"].iter().find_map(|name| object.get(*name)?.as_str());
            let words = ["message", "detail", "error_description", "error", "errors", "title", "msg"]
                .iter()
                .find_map(|name| words_of_json(object.get(*name)?, depth + 1));
            match (code, words) {
                (Some(code), Some(words)) if code != words => Some(format!("{code}: {words}")),
                (code, words) => words.or(code.map(str::to_owned)),
            }
        }
        _ => None,
    }
}

/// `text` without what could forge a log line or turn a terminal (control and direction-changing characters), cut to
/// `longest` characters.
pub(super) fn clean(text: &str, longest: usize) -> String {
    let spoofing = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len().min(longest * 4));
    let mut count = 0;
    for c in text.trim().chars() {
        let c = match c {
            '\n' | '\r' | '\t' => ' ',
            c if spoofing(c) => continue,
            c => c,
        };
        if count == longest {
            out.push('…');
            break;
        }
        out.push(c);
        count += 1;
    }
    out
}

/// A record's version: the contract's decimal string, or a whole number from a CRM that sends one.
pub(super) fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<str>>, D::Error> {
    match Option::<Value>::deserialize(deserializer)? {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.into())),
        Some(Value::Number(number)) => Ok(Some(number.to_string().into())),
        Some(_) => Err(D::Error::custom("version is neither text nor a number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records<'a>(ids: &[&'a str]) -> Vec<WriteRecord<'a>> {
        ids.iter().map(|id| WriteRecord { external_id: id, version: 1, document: None }).collect()
    }

    fn upsert(ids: &[&str], body: &str) -> Option<Vec<Outcome>> {
        outcomes(Op::Upsert, &records(ids), body.as_bytes())
    }

    #[test]
    fn every_word_of_the_contract_is_understood() {
        let body = r#"{"results":[
            {"external_id":"a","status":"created","id":"17"},{"external_id":"b","status":"updated","id":18},
            {"external_id":"c","status":"unchanged"},{"external_id":"d","status":"stale"},
            {"external_id":"é\"","status":"rejected","error":{"code":"invalid_value","field":"country","message":"no such country"}}],
            "more":{"x":1}}"#;
        assert_eq!(
            upsert(&["a", "b", "c", "d", "é\""], body).unwrap(),
            [
                Outcome::Done(Done::Created),
                Outcome::Done(Done::Updated),
                Outcome::Done(Done::Unchanged),
                Outcome::Stale,
                Outcome::Rejected(CrmRejection {
                    code: "invalid_value".into(),
                    field: Some("country".into()),
                    message: "no such country".into()
                }),
            ]
        );
        let body = r#"{"results":[{"external_id":"a","status":"deleted"},{"external_id":"b","status":"not_found"},{"external_id":"c","status":"stale","error":null}]}"#;
        assert_eq!(
            outcomes(Op::Delete, &records(&["a", "b", "c"]), body.as_bytes()).unwrap(),
            [Outcome::Done(Done::Deleted), Outcome::Done(Done::NotFound), Outcome::Stale]
        );
    }

    #[test]
    fn too_few_results_leave_the_rest_unknown_and_extra_ones_are_ignored() {
        let two = r#"{"results":[{"external_id":"a","status":"created"},{"external_id":"b","status":"created"}]}"#;
        assert_eq!(
            upsert(&["a", "b", "c"], two).unwrap(),
            [Outcome::Done(Done::Created), Outcome::Done(Done::Created), Outcome::Unknown]
        );
        assert_eq!(upsert(&["a"], two).unwrap(), [Outcome::Done(Done::Created)]);
        assert_eq!(upsert(&["a", "b"], r#"{"results":[]}"#).unwrap(), [Outcome::Unknown, Outcome::Unknown]);
    }

    #[test]
    fn a_result_at_the_wrong_place_or_in_other_words_is_unknown() {
        let swapped = r#"{"results":[{"external_id":"b","status":"created"},{"external_id":"a","status":"created"}]}"#;
        assert_eq!(upsert(&["a", "b"], swapped).unwrap(), [Outcome::Unknown, Outcome::Unknown]);
        for status in ["\"ok\"", "\"CREATED\"", "\"deleted\"", "null", "1", "true"] {
            let body = format!(
                r#"{{"results":[{{"external_id":"a","status":{status}}},{{"external_id":"b","status":"updated"}}]}}"#
            );
            assert_eq!(
                upsert(&["a", "b"], &body).unwrap(),
                [Outcome::Unknown, Outcome::Done(Done::Updated)],
                "{status}"
            );
        }
        for item in
            ["null", "[]", "\"created\"", "{}", r#"{"status":"created"}"#, r#"{"external_id":1,"status":"created"}"#]
        {
            let body = format!(r#"{{"results":[{item},{{"external_id":"b","status":"updated"}}]}}"#);
            assert_eq!(upsert(&["a", "b"], &body).unwrap(), [Outcome::Unknown, Outcome::Done(Done::Updated)], "{item}");
        }
    }

    #[test]
    fn what_is_no_answer_at_all_is_told_apart() {
        for body in [
            "",
            "null",
            "{}",
            "[]",
            "<html>",
            r#"{"results":null}"#,
            r#"{"results":{}}"#,
            r#"{"error":"maintenance"}"#,
            r#"{"results":[{"external_id":"a","status":"created"}"#,
            r#"{"results":[{"external_id":"a","status":"created"}]} trailing"#,
            r#"{"results":[],"results":[{"external_id":"a","status":"created"}]}"#,
        ] {
            assert_eq!(upsert(&["a"], body), None, "{body}");
        }
        assert_eq!(outcomes(Op::Upsert, &records(&["a"]), b"\xff\xfe{}"), None);
    }

    #[test]
    fn no_prefix_of_an_answer_is_taken_for_an_answer() {
        let body = r#"{"results":[{"external_id":"a","status":"created"},{"external_id":"b","status":"rejected","error":{"code":"x"}}]}"#;
        for end in 0..body.len() {
            assert_eq!(upsert(&["a", "b"], &body[..end]), None, "{end}");
        }
    }

    #[test]
    fn a_rejection_keeps_the_crms_words_however_they_are_shaped() {
        let of = |error: &str| {
            let body = format!(r#"{{"results":[{{"external_id":"a","status":"rejected"{error}}}]}}"#);
            match upsert(&["a"], &body).unwrap().remove(0) {
                Outcome::Rejected(rejection) => rejection,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(&*of("").message, "the CRM gave no reason");
        assert_eq!(&*of(r#","error":"too long""#).message, "too long");
        assert_eq!(&*of(r#","error":{"code":42,"message":"m"}"#).code, "42");
        assert_eq!(&*of(r#","error":{"message":"line\nbreak\u001b[31m red"}"#).message, "line break[31m red");
        let long = of(&format!(r#","error":{{"message":"{}"}}"#, "ä".repeat(5_000))).message;
        assert_eq!(long.chars().count(), WORDS + 1, "cut, with a mark");
    }

    #[test]
    fn statuses_have_the_kinds_of_the_contract() {
        use CrmErrorKind as K;
        for (status, kind) in [
            (202, K::Unknown),
            (204, K::Unknown),
            (301, K::Contract),
            (307, K::Contract),
            (400, K::Refused),
            (401, K::Unauthorized),
            (403, K::Forbidden),
            (404, K::Contract),
            (405, K::Contract),
            (408, K::Unknown),
            (409, K::Refused),
            (413, K::TooLarge),
            (415, K::Contract),
            (418, K::Refused),
            (422, K::Refused),
            (429, K::Throttled),
            (500, K::Unknown),
            (502, K::Unavailable),
            (503, K::Unavailable),
            (504, K::Unknown),
            (520, K::Unknown),
            (599, K::Unknown),
        ] {
            assert_eq!(kind_of_status(status), kind, "{status}");
        }
    }

    #[test]
    fn retry_after_is_read_in_every_form() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let date = |seconds: u64| httpdate::fmt_http_date(now + Duration::from_secs(seconds));
        let read = |value: &str| retry_after(Some(value), None, now);
        assert_eq!(read("7"), Some(Duration::from_secs(7)));
        assert_eq!(read(" 0 "), Some(Duration::ZERO));
        assert_eq!(read("1.5"), Some(Duration::from_millis(1_500)));
        assert_eq!(read("999999999999"), Some(LONGEST_WAIT));
        assert_eq!(read(&date(90)), Some(Duration::from_secs(90)));
        assert_eq!(read(&date(90_000)), Some(LONGEST_WAIT));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO), "past");
        for garbage in ["soon", "", "-5", "NaN", "inf", "7 seconds", "0x10"] {
            assert_eq!(read(garbage), None, "{garbage}");
        }
        assert_eq!(retry_after(None, None, now), None);
        // The server's clock is two hours ahead: its own Date tells how long it means.
        assert_eq!(retry_after(Some(&date(7_230)), Some(&date(7_200)), now), Some(Duration::from_secs(30)));
    }

    #[test]
    fn words_are_found_and_cleaned() {
        assert_eq!(
            words("application/json", br#"{"error":{"code":"E1","message":"no\r\nFAKE LOG"}}"#),
            "E1: no  FAKE LOG"
        );
        assert_eq!(words("application/problem+json", br#"{"title":"Bad","detail":"field x"}"#), "field x");
        assert_eq!(words("application/json", br#"{"errors":[{"message":"first"},{"message":"second"}]}"#), "first");
        assert_eq!(words("application/json", br#"{"error":"invalid"}"#), "invalid");
        assert_eq!(words("text/plain; charset=utf-8", b"plain \x1b]0;title\x07words"), "plain ]0;titlewords");
        assert_eq!(words("text/html", b"<html>secret</html>"), "");
        assert_eq!(words("application/json", b"{\"a\":1}"), "");
        assert_eq!(clean("a\u{202e}b\u{2028}c", 10), "abc");
    }

    #[test]
    fn codes_are_words_and_nothing_else() {
        assert_eq!(
            code(br#"{"error":{"code":"insufficient_scope","message":"ACME Ltd"}}"#).unwrap(),
            "insufficient_scope"
        );
        assert_eq!(code(br#"{"error":"invalid_token"}"#).unwrap(), "invalid_token");
        assert_eq!(code(br#"{"errors":[{"code":"E.1"}]}"#).unwrap(), "E.1");
        for none in
            [r#"{"error":"no right to edit ACME Ltd"}"#, r#"{"code":"12345"}"#, r#"{"code":5}"#, "<html>", "", "{}"]
        {
            assert_eq!(code(none.as_bytes()), None, "{none}");
        }
    }

    #[test]
    fn versions_may_be_text_or_numbers() {
        let read = |text: &str| serde_json::from_str::<super::super::StoredRecord>(text);
        assert_eq!(
            read(r#"{"external_id":"a","version":"007","fields":{}}"#).unwrap().version.unwrap().as_ref(),
            "007"
        );
        assert_eq!(
            read(r#"{"external_id":"a","version":18446744073709551615}"#).unwrap().version.unwrap().as_ref(),
            "18446744073709551615"
        );
        assert!(read(r#"{"external_id":"a","version":null}"#).unwrap().version.is_none());
        assert!(read(r#"{"external_id":"a","version":{}}"#).is_err());
    }
}
