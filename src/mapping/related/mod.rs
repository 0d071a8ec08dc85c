//! Related rows: rows that a rule's own row points to (joins), and rows that point to it (children).
//!
//! A rule with relations is evaluated over a *composite row*: the columns of its own row, then those of each join, then
//! one column for each aggregate over a child list. To expressions it is one row; where a value comes from is decided
//! when the pack is compiled. A join that finds no row gives nulls.
//!
//! What decides whether there is a record, and which (`where`, `external_id`, `on_delete`, `archive`), reads the rule's
//! own row alone, so that deletes need no reads: [`crate::mapping::Rule::bind`] is enough for those, and its `apply` answers
//! [`crate::mapping::Applied::NeedsRow`] for a row that makes a record. [`Rule::bind_related`](crate::mapping::Rule::bind_related)
//! makes the record, once somebody has read the related rows ([`RelatedRows`]).

mod aggregate;
mod apply;
mod bind;
mod program;

pub(super) use apply::List;
pub use bind::BoundRelated;
pub(super) use bind::positions;
pub(super) use program::{Aggregate, AggregateKind, ChildProgram, Item, Order, Program as RelatedProgram, Source};

use std::fmt;
use tidemark_contract::{LogicalType, Row, TableId};

/// The related rows of a rule.
#[derive(Clone)]
pub struct Relations {
    /// Rows that this rule's row, or an earlier join's, points to: a join only builds on ones before it.
    pub joins: Vec<Join>,
    /// Rows that point to this rule's row, or to a join's.
    pub children: Vec<Child>,
    pub(super) program: std::sync::Arc<RelatedProgram>,
}

/// At most one row of another table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Join {
    /// Name in expressions.
    pub alias: Box<str>,
    /// The table, as the source calls it.
    pub table: TableId,
    /// The row that it is found from.
    pub from: Slot,
    /// Columns that are equal. If one on the left is null there is no row.
    pub on: Vec<OnPair>,
    /// Columns read, with the types the rule was compiled for: those of expressions, those on the right of `on`, those on
    /// the left of what builds on this row, and the table's key.
    pub columns: Vec<(Box<str>, LogicalType)>,
    /// Unique key that the pack declares for a table without a primary key.
    pub key: Option<Vec<Box<str>>>,
    /// Whether a change of such a row sends the record again.
    pub resend: bool,
    /// Whether the right side of `on` covers the table's key, so that rows can be fetched by it. If not, the pack has
    /// declared the columns to be unique, and there may still be an index or none.
    pub unique: bool,
}

/// A list of rows of another table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Child {
    /// Name of the list: the CRM's field, and the name in aggregates.
    pub name: Box<str>,
    /// The table, as the source calls it.
    pub table: TableId,
    /// The row that they point to.
    pub from: Slot,
    /// Columns that are equal: left of `from`, right of this table. If one on the left is null there are no rows.
    pub on: Vec<OnPair>,
    /// Columns read, as in [`Join::columns`].
    pub columns: Vec<(Box<str>, LogicalType)>,
    /// Unique key that the pack declares for a table without a primary key.
    pub key: Option<Vec<Box<str>>>,
    /// Rows that each of these rows points to. Their [`Slot::Root`] is the child's row.
    pub joins: Vec<Join>,
    /// Whether a new, changed or deleted row sends the record again.
    pub resend: bool,
}

/// Which row a join or a list begins at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Slot {
    /// The rule's own row; in a child's joins, the child's row.
    Root,
    /// The row found by the join of that number.
    Join(usize),
}

/// Two columns that are equal, each as the source calls it, and of the same [`LogicalType`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OnPair {
    /// Of the row that the join or list begins at.
    pub left: Box<str>,
    /// Of the joined table.
    pub right: Box<str>,
}

/// One use of a table by a rule's relations.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Related {
    /// `joins[.0]`
    Join(usize),
    /// `children[.0]`
    Child(usize),
    /// `children[.0].joins[.1]`
    ChildJoin(usize, usize),
}

/// One step from a related row towards the rule's own row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop<'r> {
    /// Table of the rows that are looked for; `None` is the rule's own.
    pub table: Option<&'r TableId>,
    /// They are those whose `left` columns equal the `right` columns of the row at hand.
    pub on: &'r [OnPair],
}

impl Relations {
    /// No joins and no children.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { joins: Vec::new(), children: Vec::new(), program: std::sync::Arc::default() }
    }

    /// Every place where rows of `table` take part.
    pub fn uses_of(&self, table: &TableId) -> Vec<Related> {
        let joins = self.joins.iter().enumerate().filter(|(_, j)| j.table == *table).map(|(n, _)| Related::Join(n));
        let mut all: Vec<Related> = joins.collect();
        for (n, child) in self.children.iter().enumerate() {
            if child.table == *table {
                all.push(Related::Child(n));
            }
            let inner = child.joins.iter().enumerate().filter(|(_, j)| j.table == *table);
            all.extend(inner.map(|(m, _)| Related::ChildJoin(n, m)));
        }
        all
    }

    /// Whether a change of such a row sends the record again: neither it nor a list it belongs to is ignored.
    pub fn resends(&self, related: Related) -> bool {
        match related {
            Related::Join(n) => self.joins.get(n).is_some_and(|j| j.resend),
            Related::Child(n) => self.children.get(n).is_some_and(|c| c.resend),
            Related::ChildJoin(n, m) => {
                self.children.get(n).and_then(|c| c.joins.get(m)).is_some_and(|join| join.resend)
            }
        }
    }

    /// The way from a related row to the rule's own rows that show it, nearest step first.
    pub fn way(&self, related: Related) -> Vec<Hop<'_>> {
        let mut hops = Vec::new();
        match related {
            Related::Join(n) => climb(&mut hops, &self.joins, Slot::Join(n), None),
            Related::Child(n) => self.out_of(&mut hops, n),
            Related::ChildJoin(n, m) => {
                if let Some(child) = self.children.get(n) {
                    climb(&mut hops, &child.joins, Slot::Join(m), Some(&child.table));
                }
                self.out_of(&mut hops, n);
            }
        }
        hops
    }

    fn out_of<'r>(&'r self, hops: &mut Vec<Hop<'r>>, child: usize) {
        let Some(child) = self.children.get(child) else { return };
        hops.push(Hop { table: table_at(&self.joins, child.from, None), on: &child.on });
        climb(hops, &self.joins, child.from, None);
    }
}

fn table_at<'r>(joins: &'r [Join], slot: Slot, root: Option<&'r TableId>) -> Option<&'r TableId> {
    match slot {
        Slot::Root => root,
        Slot::Join(n) => joins.get(n).map(|j| &j.table),
    }
}

fn climb<'r>(hops: &mut Vec<Hop<'r>>, joins: &'r [Join], mut slot: Slot, root: Option<&'r TableId>) {
    while let Slot::Join(n) = slot {
        let Some(join) = joins.get(n) else { return };
        hops.push(Hop { table: table_at(joins, join.from, root), on: &join.on });
        slot = join.from;
    }
}

/// Joins and children; programs have no readable form.
impl fmt::Debug for Relations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relations")
            .field("joins", &self.joins)
            .field("children", &self.children)
            .finish_non_exhaustive()
    }
}

/// The related rows of one row, as they were read. Columns are those of the schemas that
/// [`Rule::bind_related`](crate::mapping::Rule::bind_related) was given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RelatedRows {
    /// One for each of [`Relations::joins`]; `None` where there is no such row.
    pub joins: Vec<Option<Row>>,
    /// One list for each of [`Relations::children`]: all rows, in any order.
    pub children: Vec<Vec<ChildRows>>,
}

/// One row of a list, with the rows that it points to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChildRows {
    /// The row.
    pub row: Row,
    /// One for each of [`Child::joins`].
    pub joins: Vec<Option<Row>>,
}
