//! Pages by key, and rows by key: each one short statement, outside of any transaction.
//!
//! The barrier is the end of the log, asked for in the same batch *after* the read: whatever the read saw was written to
//! the log before. Order is the server's: keys are compared by the server alone, in the columns' own types and collations.
//!
//! Pages are read under snapshot isolation where the database allows it, so that they wait for nobody. Rows by key are read
//! with locks instead (`READCOMMITTEDLOCK`): such a read waits for a transaction that is in the log but not yet visible, and
//! so sees everything the tail can have told.

use crate::catalog::{self, Shape, restless};
use crate::error::{changed, lost, server_code};
use crate::position::{Place, TRACKING, Version};
use crate::session::{LOG_END, Lease, Pool, log_end};
use crate::sql::{Cells, hex, ident, unhex};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tidemark_contract::{Position, Result, Row, RowBuilder, RowKey, ScanCursor, TableId, TableRequest};

/// About this many bytes of rows are asked for at once (R7).
const PAGE_BYTES: usize = 4 << 20;
/// How long a shape is trusted without a look into the catalogue.
const TRUST: Duration = Duration::from_secs(5);

/// The barrier under change tracking: a transaction that can be seen has drawn its version.
const VERSION: &str = "SELECT CAST(CHANGE_TRACKING_CURRENT_VERSION() AS bigint)";

/// What one read gave.
pub(crate) struct Read {
    pub(crate) shape: Arc<Shape>,
    pub(crate) rows: Vec<Row>,
    /// For each row the number that the statement gave it, if it did.
    numbers: Vec<usize>,
    pub(crate) barrier: Position,
    pub(crate) next: Option<ScanCursor>,
}

/// Sizes of rows, and shapes that were looked up shortly before.
#[derive(Default)]
pub(crate) struct Memory {
    bytes: Mutex<HashMap<TableId, usize>>,
    shapes: Mutex<HashMap<TableId, Remembered>>,
}

/// A shape, what was asked for, and when it was last confirmed.
type Remembered = (TableRequest, Arc<Shape>, Instant);

impl Memory {
    fn limit(&self, table: &TableId, limit: usize) -> usize {
        // A table that was never read begins with a page that is small whatever its rows are.
        match crate::locked(&self.bytes).get(table) {
            Some(bytes) => limit.min(PAGE_BYTES / (*bytes).max(1)).max(1),
            None => limit.clamp(1, 100),
        }
    }

    fn learn(&self, table: &TableId, rows: &[Row]) {
        let Some(average) = rows.iter().map(Row::memory).sum::<usize>().checked_div(rows.len()) else { return };
        crate::locked(&self.bytes).insert(table.clone(), average);
    }

    fn shape(&self, request: &TableRequest) -> Option<Arc<Shape>> {
        let shapes = crate::locked(&self.shapes);
        let (of, shape, since) = shapes.get(&request.table)?;
        (of == request && since.elapsed() < TRUST).then(|| shape.clone())
    }
}

/// Reads with `select`, which is built from the table's shape.
async fn read(
    pool: &Pool,
    memory: &Memory,
    request: &TableRequest,
    under_snapshot: bool,
    select: impl Fn(&Shape) -> Result<String>,
) -> Result<Read> {
    let doing = format!("reading table {}", request.table);
    for _ in 0..3 {
        let mut lease: Lease<'_> = pool.lease().await?;
        let tracking = lease.session.database.tracking;
        let connection = &mut lease.session.connection;
        let shape = match memory.shape(request) {
            Some(shape) => shape,
            None => Arc::new(catalog::one(connection, request, tracking).await?),
        };
        let sql = select(&shape)?;
        let end = if tracking { VERSION } else { LOG_END };
        let sql = match under_snapshot && lease.session.database.has_snapshots {
            true => format!(
                "SET TRANSACTION ISOLATION LEVEL SNAPSHOT; {sql}; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; {end}"
            ),
            false => format!("{sql}; {end}"),
        };
        let results = match connection.results(&doing, &sql).await {
            Ok(results) => results,
            // The table changed since it was last looked at.
            Err(error) if matches!(server_code(&error), Some(207 | 208 | 3961)) => {
                crate::locked(&memory.shapes).remove(&request.table);
                continue;
            }
            Err(error) => return Err(error),
        };
        let end = results.last().map_or(&[][..], |rows| rows);
        let log = lease.session.database.log.as_str();
        let barrier = match tracking {
            true => {
                let version = end.first().and_then(|row| row.int(0));
                let version = version.ok_or_else(|| lost("change tracking is not enabled in the database"))?;
                Version::at(version).position(&format!("{TRACKING}{log}").into())
            }
            false => Place::at(log_end(end)?).position(&log.into()),
        };
        let described = catalog::one(connection, request, tracking).await?;
        lease.give_back();
        if described != *shape {
            crate::locked(&memory.shapes).remove(&request.table);
            continue;
        }
        let remembered = (request.clone(), shape.clone(), Instant::now());
        crate::locked(&memory.shapes).insert(request.table.clone(), remembered);
        let (mut rows, mut numbers) = (Vec::new(), Vec::new());
        let mut text = String::new();
        for row in results.first().into_iter().flatten() {
            let mut cells = row.cells().map(|(_, cell)| cell);
            if let Some(tiberius::ColumnData::I32(Some(number))) = cells.next() {
                numbers.push(usize::try_from(*number).unwrap_or(usize::MAX));
            }
            let mut out = RowBuilder::with_capacity(shape.kinds.len(), 64);
            for (kind, cell) in shape.kinds.iter().zip(cells) {
                kind.push(cell, &mut out, &mut text)?;
            }
            rows.push(out.finish());
        }
        memory.learn(&request.table, &rows);
        return Ok(Read { shape, rows, numbers, barrier, next: None });
    }
    Err(restless(&request.table))
}

impl Shape {
    /// The columns, with `alias` before each.
    fn columns(&self) -> String {
        let columns = self.schema.columns.iter().zip(&self.kinds);
        let columns: Vec<String> = columns.map(|(c, kind)| kind.select(&format!("t.{}", ident(&c.name)))).collect();
        columns.join(", ")
    }

    fn column(&self, at: usize) -> String {
        format!("t.{}", ident(&self.schema.columns[at].name))
    }

    fn order(&self) -> String {
        self.schema.key.iter().map(|at| self.column(*at)).collect::<Vec<_>>().join(", ")
    }

    /// Rows behind a key.
    fn behind(&self, cursor: &ScanCursor) -> Result<String> {
        let strange = || changed(format!("the scan of table {} cannot go on: its key has changed", self.schema.table));
        let key = unhex(&cursor.0).and_then(|bytes| RowKey::from_bytes(&bytes)).ok_or_else(strange)?;
        let values = key.values().filter(|v| v.len() == self.schema.key.len()).ok_or_else(strange)?;
        let mut literals = Vec::new();
        for (at, (letter, bytes)) in self.schema.key.iter().zip(values) {
            literals.push(self.kinds[*at].literal(letter, bytes).map_err(|_| strange())?.ok_or_else(strange)?);
        }
        let columns: Vec<String> = self.schema.key.iter().map(|at| self.column(*at)).collect();
        Ok(crate::sql::behind(&columns, &literals))
    }
}

/// The values that rows are looked for by.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) columns: &'a [Box<str>],
    pub(crate) keys: &'a [RowKey],
}

impl Wanted<'_> {
    fn condition(&self, shape: &Shape) -> Result<String> {
        let position = |name: &str| shape.schema.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name));
        let columns: Option<Vec<usize>> = self.columns.iter().map(|name| position(name)).collect();
        let columns = columns.ok_or_else(|| {
            changed(format!("table {} no longer has a column that rows are looked for by", shape.schema.table))
        })?;
        let mut any = Vec::new();
        'keys: for key in self.keys {
            let values = key
                .values()
                .filter(|v| v.len() == columns.len())
                .ok_or_else(|| changed("rows are looked for by another number of values than columns"))?;
            let mut all = Vec::new();
            for (at, (letter, bytes)) in columns.iter().zip(values) {
                match shape.kinds[*at].related_literal(letter, bytes)? {
                    Some(literal) => all.push(format!("{} = {literal}", shape.column(*at))),
                    // Null equals nothing.
                    None => continue 'keys,
                }
            }
            any.push(format!("({})", all.join(" AND ")));
        }
        Ok(if any.is_empty() { "1 = 0".into() } else { format!("({})", any.join(" OR ")) })
    }
}

/// One page in key order, of all rows or of those that are looked for.
pub(crate) async fn page(
    pool: &Pool,
    memory: &Memory,
    request: &TableRequest,
    wanted: Option<Wanted<'_>>,
    after: Option<&ScanCursor>,
    limit: usize,
) -> Result<Read> {
    let limit = memory.limit(&request.table, limit);
    let mut page = read(pool, memory, request, wanted.is_none(), |shape| {
        let mut conditions = Vec::new();
        conditions.extend(wanted.map(|w| w.condition(shape)).transpose()?);
        conditions.extend(after.map(|cursor| shape.behind(cursor)).transpose()?);
        let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        let locks = if wanted.is_some() { " WITH (READCOMMITTEDLOCK)" } else { "" };
        Ok(format!(
            "SELECT TOP ({limit}) 0, {} FROM {} t{locks}{filter} ORDER BY {}",
            shape.columns(),
            shape.sql_name,
            shape.order()
        ))
    })
    .await?;
    if page.rows.len() == limit
        && let Some(key) = page.rows.last().and_then(|row| RowKey::of(row, &page.shape.schema.key))
    {
        page.next = Some(ScanCursor(hex(key.as_bytes()).into()));
    }
    Ok(page)
}

/// The rows with these keys, in their order.
pub(crate) async fn rows_by_key(
    pool: &Pool,
    memory: &Memory,
    request: &TableRequest,
    keys: &[RowKey],
) -> Result<(Read, Vec<Option<Row>>)> {
    let mut read = read(pool, memory, request, false, |shape| {
        let key = &shape.schema.key;
        let mut rows = Vec::new();
        for (number, one) in keys.iter().enumerate() {
            let values = one.values().filter(|v| v.len() == key.len()).ok_or_else(|| {
                changed(format!("a key of table {} was asked for that has other columns", shape.schema.table))
            })?;
            let mut literals = vec![number.to_string()];
            for (at, (letter, bytes)) in key.iter().zip(values) {
                literals.push(shape.kinds[*at].literal(letter, bytes)?.unwrap_or_else(|| "NULL".into()));
            }
            rows.push(format!("({})", literals.join(", ")));
        }
        let names: Vec<String> = (0..key.len()).map(|at| format!("k{at}")).collect();
        let on = key
            .iter()
            .enumerate()
            .map(|(n, at)| format!("{} = k.k{n}{}", shape.column(*at), shape.kinds[*at].collate()));
        let (columns, on) = (shape.columns(), on.collect::<Vec<_>>().join(" AND "));
        if rows.is_empty() {
            return Ok(format!("SELECT TOP (0) 0, {columns} FROM {} t", shape.sql_name));
        }
        Ok(format!(
            "SELECT k.n, {columns} FROM (VALUES {}) AS k(n, {}) JOIN {} t WITH (READCOMMITTEDLOCK) ON {on}",
            rows.join(", "),
            names.join(", "),
            shape.sql_name
        ))
    })
    .await?;
    let mut found: Vec<Option<Row>> = vec![None; keys.len()];
    for (number, row) in std::mem::take(&mut read.numbers).into_iter().zip(std::mem::take(&mut read.rows)) {
        if let Some(slot) = found.get_mut(number) {
            *slot = Some(row);
        }
    }
    Ok((read, found))
}
