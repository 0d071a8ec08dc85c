//! A compiled pack: its rules, what they read, and their binding to a table as it is at one place of the log.

use super::expr::ir::Node;
use super::json::Output;
use super::pack::Removal;
use super::related::{Related, Relations, Source, positions};
use super::{Missing, RuleId};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};
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
    /// Columns of its own table that it reads, as the source calls them, with the types it was compiled for; those by
    /// which related rows are found included.
    pub columns: Vec<(Box<str>, LogicalType)>,
    /// Unique key that the pack declares for a table without a primary key, as the source calls its columns.
    pub key: Option<Vec<Box<str>>>,
    /// CRM fields it writes, in order; lists of children come last.
    pub fields: Vec<Box<str>>,
    /// Rows of other tables that its records show; `None` if its own row is enough.
    pub relations: Option<Arc<Relations>>,
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
    /// Its name with those of the objects around it: `address.city`. Empty for the bare value of a list's item.
    pub path: Box<str>,
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
    /// What has to be read from the source: each table once, with the columns that some rule uses, be it as its own
    /// table or as a related one ([`Mapping::root_tables`] tells them apart).
    pub fn requests(&self) -> Vec<TableRequest> {
        let mut by_table: BTreeMap<&TableId, TableRequest> = BTreeMap::new();
        let mut add = |table, columns: &[(Box<str>, LogicalType)], key: &Option<Vec<Box<str>>>| {
            let request: &mut TableRequest = by_table.entry(table).or_insert_with(|| TableRequest {
                table: table.clone(),
                columns: Some(Vec::new()),
                key: None,
            });
            let wanted = request.columns.get_or_insert_default();
            for (name, _) in columns {
                if !wanted.contains(name) {
                    wanted.push(name.clone());
                }
            }
            request.key = request.key.take().or_else(|| key.clone());
        };
        for rule in &self.rules {
            add(&rule.table, &rule.columns, &rule.key);
            let Some(relations) = &rule.relations else { continue };
            for join in relations.joins.iter().chain(relations.children.iter().flat_map(|c| &c.joins)) {
                add(&join.table, &join.columns, &join.key);
            }
            for child in &relations.children {
                add(&child.table, &child.columns, &child.key);
            }
        }
        by_table.into_values().collect()
    }

    /// Tables whose rows become records, each once, in the order of [`Mapping::requests`]. The other requests are for
    /// related rows alone.
    pub fn root_tables(&self) -> Vec<&TableId> {
        let tables: BTreeSet<&TableId> = self.rules.iter().map(|r| &r.table).collect();
        tables.into_iter().collect()
    }

    /// The rules whose records are made of rows of `table`.
    pub fn rules_of<'m>(&'m self, table: &'m TableId) -> impl Iterator<Item = &'m Rule> {
        self.rules.iter().filter(move |rule| rule.table == *table)
    }

    /// The rules that show rows of `table` in records of other rows, with each place where they do.
    pub fn related_to<'m>(&'m self, table: &'m TableId) -> impl Iterator<Item = (&'m Rule, Vec<Related>)> {
        let uses = move |rule: &'m Rule| Some((rule, rule.relations.as_ref()?.uses_of(table)));
        self.rules.iter().filter_map(uses).filter(|(_, uses)| !uses.is_empty())
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
    /// Position in the row of each column the rule uses. Columns of related rows are beyond every row: such a value is
    /// not known here.
    pub(super) positions: Arc<[u32]>,
    /// Those of them that the log never carries.
    pub(super) unlogged: Arc<[u32]>,
    /// Whether a record needs related rows.
    pub(super) needs_related: bool,
}

impl Rule {
    /// Binds the rule to its own table's columns, which are found by name. Called again whenever the table's schema
    /// changes. Of a rule with relations, this answers everything that its own row decides; a row that makes a record
    /// is answered with [`super::Applied::NeedsRow`], and [`Rule::bind_related`] makes it.
    pub fn bind(&self, schema: &TableSchema) -> Result<BoundRule, BindError> {
        let found = positions(&self.columns, schema)?;
        let positions: Arc<[u32]> = match &self.relations {
            None => found.into(),
            Some(relations) => {
                let own = |source: &Source| match source {
                    Source::Row(n) => found.get(usize::from(*n)).copied().unwrap_or(u32::MAX),
                    Source::Join { .. } | Source::Aggregate(_) => u32::MAX,
                };
                relations.program.sources.iter().map(own).collect()
            }
        };
        let column = |p: &&u32| schema.columns.get(**p as usize).is_some_and(|c| c.unlogged);
        let unlogged = positions.iter().filter(column).copied().collect();
        let needs_related = self.relations.is_some();
        Ok(BoundRule { program: Arc::clone(&self.program), positions, unlogged, needs_related })
    }
}
