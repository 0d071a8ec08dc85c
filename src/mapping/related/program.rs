//! The compiled form of relations, beside what the outside may see of them.

use crate::mapping::expr::ir::Node;
use crate::mapping::rule::{FieldProgram, Part};

/// Where a column of a composite row comes from. Numbers are positions in the lists of columns that the rule, join or child
/// declares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Source {
    /// The rule's own row; in a child, the child's.
    Row(u16),
    /// A column of a join.
    Join { join: u16, column: u16 },
    /// An aggregate over a child list.
    Aggregate(u16),
}

/// What relations add to a rule's program.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// Columns of the composite row.
    pub sources: Box<[Source]>,
    /// Columns of the rule's own row (numbers among [`crate::mapping::Rule::columns`]) by which related rows are found.
    pub left: Box<[u16]>,
    /// One for each child.
    pub children: Box<[ChildProgram]>,
    pub aggregates: Box<[Aggregate]>,
}

/// How the rows of a list become JSON.
#[derive(Debug)]
pub(crate) struct ChildProgram {
    pub name: Box<str>,
    /// The list's name as a JSON string with its colon; `None` if the list is read by aggregates alone.
    pub json_key: Option<Box<[u8]>>,
    /// Columns of the composite row of a child and its joins.
    pub sources: Box<[Source]>,
    pub lets: Box<[Node]>,
    pub condition: Option<Part>,
    pub item: Item,
    pub order: Box<[Order]>,
    /// Columns of the child's key (numbers among its columns), which make the order total.
    pub key: Box<[u16]>,
    pub limit: Option<usize>,
}

/// What one row of a list becomes.
#[derive(Debug)]
pub(crate) enum Item {
    Object(Box<[FieldProgram]>),
    /// A bare value.
    Value(Box<FieldProgram>),
}

/// One expression that a list is ordered by.
#[derive(Debug)]
pub(crate) struct Order {
    pub part: Part,
    pub descending: bool,
    pub nulls_first: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum AggregateKind {
    Count,
    Sum,
    Avg,
    Min,
    Max,
}

/// One number about a list.
#[derive(Clone, Debug)]
pub(crate) struct Aggregate {
    pub child: u16,
    pub kind: AggregateKind,
    /// Over the child's composite row; `None` counts rows.
    pub arg: Option<Node>,
    pub distinct: bool,
    pub place: u32,
}
