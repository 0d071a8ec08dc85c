//! The other side of a connector: what a check needs from a source, in words that fit every vendor.

use async_trait::async_trait;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tidemark_contract::{Connector, TableRequest, Value};

use crate::rng::Rng;

/// Why a fixture could not do its part: a broken test environment, not a broken connector.
#[derive(Debug)]
pub struct FixtureError(pub String);

impl fmt::Display for FixtureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FixtureError {}

/// Result of a fixture's calls.
pub type FixtureResult<T> = Result<T, FixtureError>;

/// The three kinds of columns the checks use; each vendor has types for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColumnKind {
    /// 64-bit integer.
    Int,
    /// Text of up to some hundred characters.
    Text,
    /// Text of any size, kept where the vendor's log may leave it out of an update that did not touch it.
    Big,
}

/// A table of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableDef {
    /// Lower-case name, unique among the checks.
    pub name: String,
    /// Columns in order.
    pub columns: Vec<(String, ColumnKind)>,
    /// How many of the leading columns are the primary key.
    pub key: usize,
}

impl TableDef {
    /// A table from its parts.
    pub fn new(name: &str, key: usize, columns: &[(&str, ColumnKind)]) -> Self {
        Self { name: name.into(), key, columns: columns.iter().map(|(n, k)| ((*n).to_owned(), *k)).collect() }
    }
}

/// A value that a check writes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cell {
    /// SQL NULL.
    Null,
    /// An integer.
    Int(i64),
    /// Text.
    Text(String),
    /// The text [`filler`]`(seed, len)`: hard to compress, cheap to describe.
    Filler {
        /// Which text.
        seed: u64,
        /// Its length in characters.
        len: u32,
    },
}

impl Cell {
    /// Text cell.
    pub fn text(text: &str) -> Self {
        Cell::Text(text.into())
    }

    /// The text of a text cell.
    pub fn as_text(&self) -> Option<Cow<'_, str>> {
        match self {
            Cell::Text(text) => Some(Cow::Borrowed(text)),
            Cell::Filler { seed, len } => Some(Cow::Owned(filler(*seed, *len))),
            Cell::Null | Cell::Int(_) => None,
        }
    }

    /// Whether a connector's value is this one.
    pub fn is(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Cell::Null, Value::Null) => true,
            (Cell::Int(a), Value::Int(b)) => *a == b,
            (cell, Value::Text(b)) => cell.as_text().is_some_and(|a| a == b),
            _ => false,
        }
    }
}

/// Text of `len` characters that compresses badly and is the same for the same seed.
pub fn filler(seed: u64, len: u32) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";
    let mut rng = Rng::new(seed ^ 0x5eed_f111);
    let mut text = String::with_capacity(len as usize);
    while text.len() < len as usize {
        let mut bits = rng.next_u64();
        for _ in 0..10 {
            if text.len() < len as usize {
                text.push(char::from(ALPHABET[(bits & 63) as usize]));
                bits >>= 6;
            }
        }
    }
    text
}

/// One statement, vendor-neutral. Schema changes are always alone in their transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// A row with all columns in the table's present order.
    Insert {
        /// Table name.
        table: String,
        /// Values of all columns.
        row: Vec<Cell>,
    },
    /// Sets columns of one row; a key column among them makes it a key update.
    Update {
        /// Table name.
        table: String,
        /// Key of the row.
        key: Vec<Cell>,
        /// Columns to set.
        set: Vec<(String, Cell)>,
    },
    /// Removes one row.
    Delete {
        /// Table name.
        table: String,
        /// Key of the row.
        key: Vec<Cell>,
    },
    /// Empties the table by the vendor's TRUNCATE.
    Truncate {
        /// Table name.
        table: String,
    },
    /// Inserts `count` rows in one statement: integer columns hold the row's number (from `first` on), text columns any
    /// `width` characters.
    InsertMany {
        /// Table name.
        table: String,
        /// Number of the first row.
        first: i64,
        /// How many.
        count: u32,
        /// Characters of each text column.
        width: u32,
    },
    /// Adds a nullable column at the end.
    AddColumn {
        /// Table name.
        table: String,
        /// New column.
        column: String,
        /// Its kind.
        kind: ColumnKind,
    },
    /// Drops a column.
    DropColumn {
        /// Table name.
        table: String,
        /// The column.
        column: String,
    },
    /// Turns an integer column into a text column, values kept as decimal text.
    IntToText {
        /// Table name.
        table: String,
        /// The column.
        column: String,
    },
}

/// One step of several sessions working at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Session begins a transaction.
    Begin(u8),
    /// Session runs a statement inside its transaction.
    Run(u8, Op),
    /// Session commits.
    Commit(u8),
    /// Session rolls back.
    Rollback(u8),
}

/// What can happen to a log behind a connector's back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disturbance {
    /// The log no longer reaches back to any earlier position (slot dropped, files purged).
    Expire,
    /// The log was dropped and made again under the same name, beginning now.
    Recreate,
}

/// Something on the server that was not there before the connector came.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Leftover {
    /// What it is (`slot`, `publication`, `session`).
    pub kind: String,
    /// Its name on the server; for a session its id.
    pub name: String,
}

/// A connector whose server sends malformed bytes.
pub struct Hostile {
    /// The connector.
    pub connector: Arc<dyn Connector>,
    /// Whether the bytes are wrong in a way that cannot be overlooked, so that going on without an error is a failure too.
    pub must_fail: bool,
}

/// A table for R11 whose rows show every type (or every kind of key) of the vendor.
#[derive(Clone, Debug)]
pub struct Corpus {
    /// What it is for, for messages.
    pub label: String,
    /// How to ask for it.
    pub request: TableRequest,
    /// An integer column that [`Fixture::touch_corpus`] increments in all rows; `None` if rows cannot be updated.
    pub counter: Option<String>,
    /// Cells whose canonical form is known.
    pub expected: Vec<ExpectedCell>,
}

/// The canonical form a cell of a [`Corpus`] must have.
#[derive(Clone, Debug)]
pub struct ExpectedCell {
    /// Text of the row's key as [`crate::show`] prints it; composite keys joined by `,`.
    pub key: String,
    /// Column.
    pub column: String,
    /// The value as [`crate::show`] prints it.
    pub shown: String,
}

/// Drives a source from the other side.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Name of the vendor and version, for the report.
    fn name(&self) -> String;

    /// A fresh connector with the same configuration each time.
    fn connector(&self) -> Arc<dyn Connector>;

    /// How to ask a connector for `table`.
    fn request(&self, table: &TableDef) -> TableRequest;

    /// Removes what earlier checks left on the server (tables, slots, sessions of dropped streams) and creates `tables`,
    /// empty.
    async fn reset(&self, tables: &[TableDef]) -> FixtureResult<()>;

    /// Runs the steps in this order. Transactions left open are rolled back. May be called from several tasks at once.
    async fn run(&self, steps: &[Step]) -> FixtureResult<()>;

    /// Waits until everything committed so far lies behind a stream that begins now. Where a log is filled behind the
    /// commits, a stream may begin with transactions that were committed a moment before it was opened; a check that
    /// compares whole sequences settles what it prepared first.
    async fn settle(&self) -> FixtureResult<()> {
        Ok(())
    }

    /// Disturbs the log of the connector's stream, which is closed at the time. `false` if this vendor has no such case.
    async fn disturb(&self, how: Disturbance) -> FixtureResult<bool>;

    /// A connector with the same configuration to *another* server that has `tables` too; `None` if there is no other.
    async fn foreign(&self, tables: &[TableDef]) -> FixtureResult<Option<Arc<dyn Connector>>>;

    /// Everything on the server that connectors may have made: slots, publications, sessions, temporary objects.
    async fn leftovers(&self) -> FixtureResult<BTreeSet<Leftover>>;

    /// A checksum or counter for everything a write would change: tables by name, and the list of them.
    async fn contents(&self) -> FixtureResult<BTreeMap<String, String>>;

    /// Passwords and the like that the connectors of this fixture were configured with.
    fn secrets(&self) -> Vec<String>;

    /// Connectors that must fail: a wrong password, a port where nobody listens, a database that is not there.
    async fn broken(&self) -> FixtureResult<Vec<(String, Arc<dyn Connector>)>>;

    /// A connector whose server sends malformed bytes, differently for each seed; `None` if this fixture has none.
    async fn hostile(&self, seed: u64) -> FixtureResult<Option<Hostile>>;

    /// How many seeds R6 tries.
    fn hostile_seeds(&self) -> u64 {
        24
    }

    /// Whether the server is known to leave a large column out of an update that did not touch it, so that R4 must see it
    /// happen. `false` where that is the server's secret.
    fn leaves_out_large(&self) -> bool {
        true
    }

    /// Whether changes that were written before a change of shape can be read after a later one (R12). Where the log keeps
    /// few shapes of a table, and not for good, they are read as they come and no other way.
    fn earlier_shapes_remain(&self) -> bool {
        true
    }

    /// Creates the tables of the type corpus, empty.
    async fn create_corpora(&self) -> FixtureResult<Vec<Corpus>>;

    /// Inserts the rows of one corpus table, the same ones each time.
    async fn load_corpus(&self, corpus: &Corpus) -> FixtureResult<()>;

    /// Increments the counter column of every row.
    async fn touch_corpus(&self, corpus: &Corpus) -> FixtureResult<()>;

    /// Longest wait for something that must come.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Runs `ops` as one transaction.
    async fn apply(&self, ops: &[Op]) -> FixtureResult<()> {
        let mut steps = vec![Step::Begin(0)];
        steps.extend(ops.iter().cloned().map(|op| Step::Run(0, op)));
        steps.push(Step::Commit(0));
        self.run(&steps).await
    }
}
