//! Joins and lists of a record, put together: which columns are read of which table, and where the columns of a composite
//! row come from.

use super::joins::Linked;
use crate::mapping::expr::convert::Origin;
use crate::mapping::related::{Join, Slot, Source};
use tidemark_contract::{LogicalType, TableSchema};

/// Columns of one table that are read, in the order of their first use.
#[derive(Clone)]
pub(super) struct Columns<'c> {
    schema: &'c TableSchema,
    /// Positions in the schema.
    used: Vec<usize>,
}

impl<'c> Columns<'c> {
    pub(super) fn new(schema: &'c TableSchema) -> Self {
        Self { schema, used: Vec::new() }
    }

    /// The number of a column, given when it is first used.
    pub(super) fn add(&mut self, index: usize) -> u16 {
        let position = self.used.iter().position(|c| *c == index).unwrap_or_else(|| {
            self.used.push(index);
            self.used.len() - 1
        });
        u16::try_from(position).unwrap_or(u16::MAX)
    }

    /// Names and types.
    pub(super) fn named(&self) -> Vec<(Box<str>, LogicalType)> {
        self.used.iter().map(|n| &self.schema.columns[*n]).map(|c| (c.name.clone(), c.logical)).collect()
    }
}

/// Where the columns of the composite row come from; they are added to what is read of their tables.
pub(super) fn sources(origins: &[Origin], own: &mut Columns<'_>, joins: &mut [Columns<'_>]) -> Box<[Source]> {
    let narrow = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    origins
        .iter()
        .map(|origin| match *origin {
            Origin::Column { table: 0, index } => Source::Row(own.add(index)),
            Origin::Column { table, index } => {
                let column = joins.get_mut(table - 1).map_or(u16::MAX, |j| j.add(index));
                Source::Join { join: narrow(table - 1), column }
            }
            Origin::Aggregate(n) => Source::Aggregate(narrow(n)),
        })
        .collect()
}

/// Adds the columns by which joined rows are found, and their keys, to what is read. Returns the columns of the own row
/// among them.
pub(super) fn add_links(links: &[Linked<'_>], own: &mut Columns<'_>, joins: &mut [Columns<'_>]) -> Vec<u16> {
    let mut left = Vec::new();
    for (n, link) in links.iter().enumerate() {
        left.extend(add_left(link, own, joins));
        if let Some(columns) = joins.get_mut(n) {
            link.on.iter().for_each(|(_, right)| _ = columns.add(*right));
            link.key.columns.iter().for_each(|k| _ = columns.add(*k));
        }
    }
    left
}

/// Adds the left side of one link.
pub(super) fn add_left(link: &Linked<'_>, own: &mut Columns<'_>, joins: &mut [Columns<'_>]) -> Vec<u16> {
    let mut left = Vec::new();
    for (column, _) in &link.on {
        match link.from {
            Slot::Root => left.push(own.add(*column)),
            Slot::Join(n) => _ = joins.get_mut(n).map(|j| j.add(*column)),
        }
    }
    left
}

/// What the outside sees of joins; `root` is the table that they begin at.
pub(super) fn public(links: &[Linked<'_>], columns: Vec<Columns<'_>>, root: &TableSchema) -> Vec<Join> {
    let schema_of = |slot: Slot| slot.join().and_then(|n| links.get(n)).map_or(root, |l| l.schema);
    links
        .iter()
        .zip(columns)
        .map(|(link, columns)| Join {
            alias: link.alias.text.as_str().into(),
            table: link.schema.table.clone(),
            from: link.from,
            on: link.pairs(schema_of(link.from)),
            columns: columns.named(),
            key: link.key.declared.clone(),
            resend: link.resend,
            unique: link.by_key,
        })
        .collect()
}
