//! A page of a table, and what the rules make of its rows.
//!
//! Mapping is pure, so it is done where the page was read, beside the engine: the same rules bound to the same schema give
//! the same records whenever they are asked. The engine decides only which rows may still speak.

use crate::mapping::{Applied, BoundRule, Rule};
use smallvec::SmallVec;
use std::sync::Arc;
use tidemark_contract::{Position, Row, RowKey, ScanCursor, SnapshotChunk, TableSchema};

/// Rows mapped in one go; then other tasks get their turn.
const STRETCH: usize = 256;

/// A table's rules, bound to a schema.
pub(super) type Bound = [(Arc<Rule>, BoundRule)];

/// A row and what each of the table's rules makes of it, in their order.
#[derive(Debug)]
pub(super) struct PageRow {
    pub key: RowKey,
    pub applied: SmallVec<[Applied; 1]>,
    /// Kept where it may still be needed: what leaves the rule's scope may have to be archived, and a record that shows
    /// related rows is put together later.
    pub row: Option<Row>,
}

/// Rows as they were read, or mapped already.
#[derive(Debug)]
enum Rows {
    Read(Vec<Row>),
    Mapped(Vec<PageRow>),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Page {
    /// The schema of the rows.
    pub(super) schema: Arc<TableSchema>,
    /// Where the next page begins.
    pub(super) next: Option<ScanCursor>,
    /// Every transaction that the read saw is at or before this place.
    pub(super) barrier: Position,
    /// Number of rows.
    pub(super) count: u64,
    rows: Rows,
}

impl Page {
    /// Maps a page that was just read, unless its schema is not the one that the rules are bound to: then the engine
    /// binds them first ([`Page::into_rows`]).
    pub(super) async fn of(chunk: SnapshotChunk, schema: &TableSchema, bound: &Bound) -> Self {
        let SnapshotChunk { schema: own, rows, next, barrier } = chunk;
        let count = rows.len() as u64;
        let rows = match *own == *schema {
            true => {
                let mut mapped = Vec::with_capacity(rows.len());
                for (n, row) in rows.into_iter().enumerate() {
                    mapped.extend(map(row, &own, bound));
                    if n % STRETCH == STRETCH - 1 {
                        tokio::task::yield_now().await;
                    }
                }
                Rows::Mapped(mapped)
            }
            false => Rows::Read(rows),
        };
        Self { schema: own, next, barrier, count, rows }
    }

    /// The rows with what `bound`, the rules bound to the page's schema, makes of them.
    pub(super) fn into_rows(self, bound: &Bound) -> Vec<PageRow> {
        match self.rows {
            Rows::Mapped(rows) => rows,
            Rows::Read(rows) => rows.into_iter().filter_map(|row| map(row, &self.schema, bound)).collect(),
        }
    }
}

/// `None` for a row without a key, which no connector delivers.
fn map(row: Row, schema: &TableSchema, bound: &Bound) -> Option<PageRow> {
    let key = RowKey::of(&row, &schema.key)?;
    let applied: SmallVec<[Applied; 1]> = bound.iter().map(|(_, program)| program.apply(&row)).collect();
    let is_needed = applied.iter().any(|applied| matches!(applied, Applied::Outside { .. } | Applied::NeedsRow));
    Some(PageRow { key, applied, row: is_needed.then_some(row) })
}
