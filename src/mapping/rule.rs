//! A compiled pack: its rules, what they read, and their binding to a table as it is at one place of the log.

use super::expr::ir::Node;
use super::json::Output;
use super::pack::Removal;
use super::{Missing, RuleId};
use jiff::tz::TimeZone;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tidemark_contract::{LogicalType, TableId, TableRequest, TableSchema};

/// A compiled pack.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// In the pack's order; a rule's [`RuleId`] is its place here.
    pub rules: Vec<Rule>,
}

/// One compiled rule: one source row → one CRM record.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its place in the mapping.
    pub id: RuleId,
    /// Its name in the pack.
    pub name: Box<str>,
    /// CRM entity it feeds. Several rules may feed one.
    pub entity: Box<str>,
    /// Table it reads, as the source calls it.
    pub table: TableId,
    /// What happens to the record when its row is deleted.
    pub on_delete: Removal,
    /// What happens to the record when its row leaves the rule's `where`.
    pub on_leave: Removal,
    /// Hash of everything that changes what the rule makes of a row.
    pub fingerprint: u64,
    /// Whether the external id can be computed from the row key alone. If not, deletes need the whole old row, or the
    /// ledger's memory of which key had which external id.
    pub external_id_from_key: bool,
    /// Entities this rule's records refer to, and what is done while a parent is missing.
    pub references: Vec<(Box<str>, Missing)>,
    /// Columns it reads, as the source calls them, with the types it was compiled for.
    pub columns: Vec<(Box<str>, LogicalType)>,
    /// Unique key that the pack declares for a table without a primary key, as the source calls its columns.
    pub key: Option<Vec<Box<str>>>,
    /// CRM fields it writes, in order.
    pub fields: Vec<Box<str>>,
    pub(super) program: Arc<Program>,
}

/// The compiled expressions of a rule.
#[derive(Debug)]
pub(super) struct Program {
    pub lets: Box<[Node]>,
    pub condition: Option<Part>,
    pub external_id: Part,
    pub fields: Box<[FieldProgram]>,
    pub archive: Box<[FieldProgram]>,
    /// Where failing nodes stand, for messages.
    pub places: Box<[Box<str>]>,
    /// Zone of timestamps without one.
    pub zone: Option<TimeZone>,
}

/// One compiled expression.
#[derive(Debug)]
pub(super) struct Part {
    pub node: Node,
    /// Columns it reads, by number.
    pub columns: Box<[u16]>,
    /// Its own place, for failures that know no better one.
    pub place: u32,
}

/// One compiled field.
#[derive(Debug)]
pub(super) struct FieldProgram {
    pub name: Box<str>,
    /// The name as a JSON string with its colon.
    pub json_key: Box<[u8]>,
    /// Columns it reads, by number; of an object, those of all its fields.
    pub columns: Box<[u16]>,
    pub body: FieldBody,
}

#[derive(Debug)]
pub(super) enum FieldBody {
    Value { part: Part, output: Output },
    Object(Box<[FieldProgram]>),
    Ref { part: Part, entity: Box<str>, missing: Missing },
}

impl Mapping {
    /// What has to be read from the source: each table once, with the columns that some rule uses.
    pub fn requests(&self) -> Vec<TableRequest> {
        let mut by_table: BTreeMap<&TableId, TableRequest> = BTreeMap::new();
        for rule in &self.rules {
            let request = by_table.entry(&rule.table).or_insert_with(|| TableRequest {
                table: rule.table.clone(),
                columns: Some(Vec::new()),
                key: None,
            });
            let columns = request.columns.get_or_insert_default();
            for (name, _) in &rule.columns {
                if !columns.contains(name) {
                    columns.push(name.clone());
                }
            }
            request.key = request.key.take().or_else(|| rule.key.clone());
        }
        by_table.into_values().collect()
    }

    /// The rules that read `table`.
    pub fn rules_of<'m>(&'m self, table: &'m TableId) -> impl Iterator<Item = &'m Rule> {
        self.rules.iter().filter(move |rule| rule.table == *table)
    }

    /// One rule.
    pub fn rule(&self, id: RuleId) -> Option<&Rule> {
        self.rules.get(usize::from(id.0))
    }
}

/// Why a rule cannot be applied to a table as it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BindError {
    /// The column that is missing or has changed.
    pub column: Box<str>,
    /// What was found instead of what the rule was compiled for.
    pub reason: String,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column `{}` {}", self.column, self.reason)
    }
}

impl std::error::Error for BindError {}

/// A rule bound to the columns of a table as they are at one place of the log. Cheap to make and to clone.
#[derive(Clone, Debug)]
pub struct BoundRule {
    pub(super) program: Arc<Program>,
    /// Position in the row of each column the rule uses.
    pub(super) positions: Arc<[u32]>,
}

impl Rule {
    /// Binds the rule to a table's columns, which are found by name. Called again whenever the table's schema changes.
    pub fn bind(&self, schema: &TableSchema) -> Result<BoundRule, BindError> {
        let mut positions = Vec::with_capacity(self.columns.len());
        for (name, logical) in &self.columns {
            let error = |reason: String| BindError { column: name.clone(), reason };
            let Some(index) = schema.position(name) else {
                return Err(error(format!("does not exist in {}", schema.table)));
            };
            let found = schema.columns[index].logical;
            if found != *logical {
                return Err(error(format!(
                    "is {found} ({}) now; the mapping was compiled for {logical}",
                    schema.columns[index].native
                )));
            }
            positions.push(u32::try_from(index).unwrap_or(u32::MAX));
        }
        Ok(BoundRule { program: Arc::clone(&self.program), positions: positions.into() })
    }
}
