//! Is the CRM what it should be, and did every record get there without going back in time?

use super::crm::{Arrival, Content};
use serde_json::Value;
use std::collections::BTreeMap;

/// The first differences between what should be and what is, one line each; empty if there are none.
pub fn differences(wanted: &Content, got: &Content, limit: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let none = BTreeMap::new();
    let entities: std::collections::BTreeSet<_> = wanted.keys().chain(got.keys()).collect();
    for entity in entities {
        let (wanted, got) = (wanted.get(entity).unwrap_or(&none), got.get(entity).unwrap_or(&none));
        for (id, fields) in wanted {
            match got.get(id) {
                None => lines.push(format!("{entity}/{id} is missing")),
                Some(other) => {
                    let names: std::collections::BTreeSet<_> = fields.keys().chain(other.keys()).collect();
                    for name in names {
                        let (a, b) = (fields.get(name), other.get(name));
                        if !a.zip(b).is_some_and(|(a, b)| same(a, b)) {
                            lines.push(format!("{entity}/{id}.{name}: wanted {}, is {}", brief(a), brief(b)));
                        }
                    }
                }
            }
        }
        let extra = got.keys().filter(|id| !wanted.contains_key(*id));
        lines.extend(extra.map(|id| format!("{entity}/{id} should not be there")));
    }
    let more = lines.len().saturating_sub(limit);
    lines.truncate(limit);
    if more > 0 {
        lines.push(format!("… and {more} more"));
    }
    lines
}

fn brief(value: Option<&Value>) -> String {
    let text = value.map_or("nothing".into(), Value::to_string);
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}… ({} B)", &text[..at], text.len()),
        None => text,
    }
}

/// Equal as JSON, numbers by value.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => x == y || x.as_f64() == y.as_f64(),
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(x, y)| same(x, y)),
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(k, v)| y.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

/// Every state a record ever had, in order: (rev, whether the record was to be there).
pub type States = BTreeMap<(String, String), Vec<(i64, bool)>>;

/// The account that the source's triggers kept, as `(table, external id, rev, present)` in the order of `rev`, by entity and
/// external id.
pub fn states(rows: impl IntoIterator<Item = (String, String, i64, bool)>) -> States {
    let mut all = States::new();
    for (source, key, rev, present) in rows {
        let entities: &[&str] = match source.as_str() {
            "Customers" => &["account", "contact"],
            "Suppliers" => &["account"],
            "Employees" => &["employee"],
            "Products" => &["product"],
            "Orders" => &["order"],
            _ => &["order_line"],
        };
        for entity in entities {
            all.entry(((*entity).into(), key.clone())).or_default().push((rev, present));
        }
    }
    all
}

/// What is wrong with the history: a record that received an older state after a newer one (whatever the CRM answered),
/// or a state that the source never had.
pub fn judge_history(states: &States, history: &[Arrival]) -> Vec<String> {
    let mut at: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut versions: BTreeMap<(String, String), u64> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (number, arrival) in history.iter().enumerate() {
        let record = (arrival.entity.clone(), arrival.external_id.clone());
        let name = format!("arrival {number} (request {}), {}/{}", arrival.request, record.0, record.1);
        let version = versions.entry(record.clone()).or_insert(0);
        if arrival.version < *version {
            wrong.push(format!("{name}: version {} after {version}", arrival.version));
        }
        *version = (*version).max(arrival.version);
        let Some(states) = states.get(&record) else {
            wrong.push(format!("{name}: the source never had this record"));
            continue;
        };
        let reached = at.get(&record).copied();
        let found = match arrival.fields.as_ref().map(|fields| fields.get("rev").and_then(Value::as_i64)) {
            // A partial document without the counter says nothing of its age.
            Some(None) => continue,
            Some(Some(rev)) => states.iter().position(|(r, present)| *r == rev && *present),
            // A delete means the first absence that is not older than what was received before.
            None => {
                let from = reached.unwrap_or(0);
                states[from..].iter().position(|(_, present)| !present).map(|at| at + from)
            }
        };
        let what = match &arrival.fields {
            Some(fields) => format!("an upsert of rev {}", fields["rev"]),
            None => "a delete".to_owned(),
        };
        match (found, reached) {
            (None, _) => wrong.push(format!("{name}: {what}, a state that the source had not (any more)")),
            (Some(now), Some(before)) if now < before => {
                wrong.push(format!("{name}: {what} after rev {} (answered {})", states[before].0, arrival.status));
            }
            (Some(now), _) => {
                at.insert(record, now);
            }
        }
    }
    wrong
}
