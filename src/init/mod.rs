//! A first proposal: a source's catalogue and samples of its rows held against a CRM's own model, and a pack made of what
//! fits. Whatever is guessed is said to be a guess, with how sure it is and why; what cannot be known is a `TODO`.
//!
//! | file | what it knows |
//! |---|---|
//! | `words` | names as words, and which of them mean the same |
//! | `samples` | what the values of a column look like; keeps counts, no values |
//! | `links` | which column points to which table |
//! | `fields` | the best column for a field, with the expression that makes it fit |
//! | `records` | which table feeds which entity, and with which fields |
//! | `render` | the pack and the tenant file as text |
//!
//! Every record is compiled against both schemas before it is proposed: what does not compile is commented out with the
//! reason, so that the proposal passes `tidemark check` as it stands.

mod fields;
mod links;
mod records;
mod render;
mod samples;
mod words;

pub use fields::word as confidence_word;
pub use records::{FieldProposal, RecordProposal, propose};
pub use render::{TenantFile, pack_text};

use crate::crm::{CrmSchema, EntitySchema};
use crate::error::Result;
use samples::Look;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tidemark_contract::{Connector, TableRequest, TableSchema, Value};

/// Rows of a table that are looked at.
const SAMPLE: usize = 400;

/// A table of the source and what was seen of it.
pub struct Source {
    /// Its columns and key.
    pub schema: Arc<TableSchema>,
    /// Rows the source believes it has.
    pub rows: Option<u64>,
    /// What its columns' values look like.
    looks: Vec<Look>,
    /// Hashes of the values seen, of the columns that could be keys or point to one.
    keys_seen: HashMap<usize, HashSet<u64>>,
    /// Whether all of its rows were looked at.
    is_whole: bool,
    /// Why it cannot be read, if so.
    pub problem: Option<String>,
}

/// An entity of the CRM.
struct Entity<'a> {
    name: &'a str,
    words: Vec<String>,
    schema: &'a EntitySchema,
}

/// What a field could be filled from.
#[derive(Clone, PartialEq, Debug)]
struct Proposal {
    columns: Vec<usize>,
    expression: String,
    confidence: f64,
    reason: String,
    nullable: bool,
}

/// Everything that was found and proposed.
pub struct Findings {
    /// The tables.
    pub sources: Vec<Source>,
    /// The CRM's model.
    pub model: CrmSchema,
    /// The records proposed.
    pub records: Vec<RecordProposal>,
    /// Tables that feed no record, and why.
    pub unmapped: Vec<(String, String)>,
    /// Entities that no table was found for.
    pub unfed: Vec<String>,
}

/// Reads the catalogue, and a few rows of each table. `wanted`: only these tables, by name or `schema.name`; empty is all.
///
/// # Errors
/// If the source cannot be read.
pub async fn look(connector: &dyn Connector, wanted: &[String]) -> Result<Vec<Source>> {
    let mut out = Vec::new();
    for schema in connector.discover(&[]).await? {
        let name = schema.table.to_string();
        if !wanted.is_empty() && !wanted.iter().any(|w| *w == name || **w == *schema.table.name) {
            continue;
        }
        let rows = connector.estimate_rows(&schema.table).await.unwrap_or(None);
        let mut source = Source {
            rows,
            looks: vec![Look::default(); schema.columns.len()],
            keys_seen: HashMap::new(),
            is_whole: false,
            problem: None,
            schema,
        };
        if source.schema.key.is_empty() {
            source.problem = Some("it has no primary key; declare a unique one: key = [...]".into());
        } else {
            sample(connector, &mut source).await;
        }
        out.push(source);
    }
    Ok(out)
}

async fn sample(connector: &dyn Connector, source: &mut Source) {
    let request = TableRequest { table: source.schema.table.clone(), columns: None, key: None };
    let chunk = match connector.snapshot_chunk(&request, None, SAMPLE).await {
        Ok(chunk) => chunk,
        Err(error) => {
            source.problem = Some(error.to_string());
            return;
        }
    };
    source.is_whole = chunk.next.is_none();
    source.schema = chunk.schema;
    source.looks = vec![Look::default(); source.schema.columns.len()];
    for row in &chunk.rows {
        for (at, value) in row.iter().enumerate().take(source.looks.len()) {
            source.looks[at].add(value);
            if let Some(hash) = key_hash(value) {
                source.keys_seen.entry(at).or_default().insert(hash);
            }
        }
    }
}

fn key_hash(value: Value<'_>) -> Option<u64> {
    let text = match value {
        Value::Int(n) => n.to_string(),
        Value::Text(s) | Value::Uuid(s) | Value::Decimal(s) => s.trim().to_owned(),
        _ => return None,
    };
    Some(crate::document::hash(text.as_bytes()))
}
