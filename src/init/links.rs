//! Which column points to which table. The catalogue that a connector gives knows no foreign keys, so that this is a guess:
//! from names, from the types of keys, and from whether the values seen are keys seen.

use super::Source;
use super::words::{alike, words};
use std::collections::HashMap;

/// A column that points to a table.
#[derive(Clone, PartialEq, Debug)]
pub struct Link {
    /// The column's place.
    pub column: usize,
    /// The table's place among the sources.
    pub to: usize,
    /// From 0 to 1.
    pub confidence: f64,
    /// Why it is taken for one.
    pub reason: String,
}

/// Words for a row of the same table that this one belongs to.
const UPWARDS: [&str; 6] = ["report", "manager", "parent", "boss", "supervisor", "superior"];

/// The links of every table.
pub fn guess(sources: &[Source]) -> HashMap<usize, Vec<Link>> {
    let mut out: HashMap<usize, Vec<Link>> = HashMap::new();
    for (from, source) in sources.iter().enumerate() {
        for column in 0..source.schema.columns.len() {
            let best = (0..sources.len())
                .filter_map(|to| link(sources, from, column, to))
                .max_by(|a, b| a.confidence.total_cmp(&b.confidence));
            if let Some(link) = best {
                out.entry(from).or_default().push(link);
            }
        }
    }
    out
}

fn link(sources: &[Source], from: usize, column: usize, to: usize) -> Option<Link> {
    let (source, target) = (&sources[from], &sources[to]);
    let [key] = target.schema.key[..] else { return None };
    let (own, key_column) = (&source.schema.columns[column], &target.schema.columns[key]);
    if own.logical != key_column.logical || (from == to && column == key) {
        return None;
    }
    let (said, table) = (words(&own.name), words(&target.schema.table.name));
    let bare: Vec<String> = said.iter().filter(|w| *w != "id" && *w != "code" && *w != "no").cloned().collect();
    let is_key_name = own.name.eq_ignore_ascii_case(&key_column.name);
    let (mut confidence, mut reason) = if from == to {
        let upwards = bare.iter().any(|w| UPWARDS.contains(&w.as_str()));
        if !upwards {
            return None;
        }
        (0.65, format!("its name points upwards in {} and its type is the key's", target.schema.table))
    } else if is_key_name && own.name.len() > 2 && !is_own_key_alone(source, column) {
        (0.9, format!("named like the key of {}", target.schema.table))
    } else if !bare.is_empty() && bare.len() < said.len() && alike(&bare, &table) > 0.95 {
        (0.85, format!("named after {}", target.schema.table))
    } else if !bare.is_empty() && bare.len() < said.len() && bare.ends_with(&table) {
        (0.7, format!("its name ends in that of {}", target.schema.table))
    } else if own.name.eq_ignore_ascii_case(&format!("{}via", table.join(""))) || is_via(&said, target) {
        (0.6, format!("its name resembles that of {}", target.schema.table))
    } else {
        return None;
    };
    if let (Some(values), Some(keys)) = (source.keys_seen.get(&column), target.keys_seen.get(&key))
        && target.is_whole
        && !values.is_empty()
    {
        let known = values.iter().filter(|v| keys.contains(*v)).count();
        if known == values.len() {
            confidence += 0.08;
            reason.push_str("; every value seen is a key there");
        } else {
            confidence -= 0.4;
            reason.push_str("; but some values seen are no key there");
        }
    }
    (confidence > 0.45).then_some(Link { column, to, confidence, reason })
}

/// A table's own key does not point elsewhere, unless the table only adds to another one.
fn is_own_key_alone(source: &Source, column: usize) -> bool {
    source.schema.key == [column]
}

/// `ShipVia` → shippers: the first word begins the table's name.
fn is_via(said: &[String], target: &Source) -> bool {
    said.len() == 2 && said[1] == "via" && target.schema.table.name.to_lowercase().starts_with(&said[0])
}
