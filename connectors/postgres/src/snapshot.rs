//! Reading tables: pages in key order, and rows by key.
//!
//! Each call is one short transaction of three round trips (the third announces the `COPY`, as tokio-postgres does it):
//!
//! 1. `LOCK TABLE … IN ACCESS SHARE MODE`, which is what any `SELECT` takes, **before** the transaction's snapshot exists.
//!    From here on the table cannot be altered, so the description read next is the one the rows are written with (R12);
//!    and a snapshot older than a `TRUNCATE` or a rewriting `ALTER TABLE` would see the table empty.
//! 2. The first `SELECT` fixes the snapshot (REPEATABLE READ), then evaluates the log's head. A commit record is in the log
//!    before its transaction is visible, so every transaction in the snapshot is at or before this head: it is the barrier.
//!    (The head after the read would do as well, but reading itself writes to the log, when it prunes pages or sets hint
//!    bits under checksums, and the tail would have to wait until somebody flushes that.)
//! 3. `COPY (SELECT …) TO STDOUT` under that snapshot, the cheapest way for the server to give rows.
//!
//! Pages are compared and sorted by the server, under each column's own collation; the cursor is the text of the last key,
//! given back as typed literals.

use crate::assemble::decode_error;
use crate::catalog::{self, Shape, Table, description_sql, refused, sql_name};
use crate::decode;
use crate::error::{bug, undecodable};
use crate::session::{Head, Lease, Pool};
use crate::sql::{Queries, Sql};
use crate::visible::Delivered;
use crate::visible::Snapshot;
use crate::wire::{ident, literal};
use memchr::memchr;
use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use tidemark_contract::{
    ErrorKind, Result, Row, RowBuilder, RowKey, ScanCursor, SourceError, TableId, TableRequest, Value,
};

/// A page ends at this many bytes of rows, whatever the limit in rows.
const PAGE_BYTES: usize = 8 << 20;

/// Rows as they were read, and what they were read with.
pub(crate) struct Read {
    pub(crate) shape: Shape,
    pub(crate) rows: Vec<Row>,
    pub(crate) head: Head,
    pub(crate) log: crate::position::Log,
    /// Where the next page begins, if this was one and the table may go on.
    pub(crate) next: Option<ScanCursor>,
    /// Bytes of the rows.
    pub(crate) bytes: usize,
}

/// A transaction in which the table is locked against changes of its shape.
struct Reading<'a> {
    lease: Lease<'a>,
    table: Table,
    shape: Shape,
    head: Head,
    snapshot: Snapshot,
}

/// The rows that have the values of one of `keys` in `columns`.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) columns: &'a [Box<str>],
    pub(crate) keys: &'a [RowKey],
}

/// What a read may not see yet is waited for this long. It is rarely more than a moment; only a synchronous standby that
/// does not answer makes it longer, and then the read fails for now.
const VISIBLE_WITHIN: Duration = Duration::from_secs(10);

/// As [`begin`], with a snapshot that holds every transaction the stream has handed over (see [`crate::visible`]).
async fn begin_up_to_date<'a>(
    pool: &'a Pool,
    handed_over: &Delivered,
    request: &TableRequest,
    compared: &[Box<str>],
) -> Result<Reading<'a>> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let mut reading = begin(pool, request, compared).await?;
        let missing = handed_over.missing_in(&reading.snapshot);
        if missing == 0 {
            return Ok(reading);
        }
        reading.lease.session.connection.query("ending a read that came too early", "ROLLBACK").await?;
        reading.lease.give_back();
        if begun.elapsed() > VISIBLE_WITHIN {
            let message = format!(
                "{missing} transactions are in the log, but other sessions do not see them after {} s",
                VISIBLE_WITHIN.as_secs()
            );
            return Err(SourceError::new(ErrorKind::Unreachable, message).hint(
                "they wait for a synchronous standby: look at pg_stat_replication and synchronous_standby_names",
            ));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// Begins to read; values of the columns `compared` will be compared with literals, beside those of the key.
async fn begin<'a>(pool: &'a Pool, request: &TableRequest, compared: &[Box<str>]) -> Result<Reading<'a>> {
    let mut lease = pool.lease().await?;
    let session = &mut lease.session;
    let name = sql_name(&request.table);
    let sql = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; LOCK TABLE {name} IN ACCESS SHARE MODE; \
         SELECT {}, pg_current_snapshot()::text; {}",
        crate::session::HEAD,
        description_sql(&format!("c.oid = {}::regclass", literal(&name)))
    );
    let results = session.connection.query(&format!("reading table {}", request.table), &sql).await?;
    let mut results = results.into_iter();
    let (Some(head), Some(description)) = (results.next(), results.next()) else {
        return Err(undecodable("the server did not describe the table"));
    };
    let head: &[Option<String>] = head.first().map_or(&[], |row| row);
    let snapshot = head.get(2).and_then(|text| Snapshot::parse(text.as_deref()?));
    let snapshot = snapshot.ok_or_else(|| undecodable("the server told no usable snapshot"))?;
    let head = session.parse_head(head)?;
    let description = description.into_iter().next().ok_or_else(|| catalog::missing_table(&request.table))?;
    let table = catalog::parse_description(description)?;
    let oids: Vec<u32> = table.columns().iter().map(|c| c.type_oid).collect();
    session.types.learn(&mut session.connection, &oids).await?;
    let shape = table.shape(request, &session.types).map_err(|reason| refused(&request.table, &reason))?;
    let foreign: Vec<&str> = (shape.schema.columns.iter().enumerate())
        .filter(|(at, column)| shape.index_key.contains(at) || compared.contains(&column.name))
        .map(|(_, column)| column)
        .filter(|column| column.native.contains('.'))
        .map(|column| &*column.name)
        .collect();
    let key_types: Vec<u32> =
        table.columns().iter().filter(|c| foreign.contains(&&*c.name)).map(|c| c.type_oid).collect();
    if !key_types.is_empty() {
        see_operators(&mut session.connection, &request.table, &key_types).await?;
    }
    Ok(Reading { lease, table, shape, head, snapshot })
}

/// Makes the operators of key types that extensions brought visible until the transaction's end. Without them the server
/// compares such a key as the type it converts to (citext as text), in another order than the one it sorts by, and rows
/// would be left out between two pages.
async fn see_operators(connection: &mut Sql, table: &TableId, types: &[u32]) -> Result<()> {
    let oids = types.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "WITH RECURSIVE bases AS (
            SELECT typtype, typbasetype, typnamespace FROM pg_type WHERE oid IN ({oids})
            UNION ALL SELECT t.typtype, t.typbasetype, t.typnamespace FROM bases b, pg_type t WHERE t.oid = b.typbasetype)
        SELECT string_agg(DISTINCT quote_ident(nspname), ', ') FROM bases, pg_namespace n
        WHERE n.oid = typnamespace AND typtype = 'b' AND nspname <> 'pg_catalog'"
    );
    let doing = format!("finding how the key of table {table} is compared");
    if let Some(schemas) = connection.value(&doing, &sql).await? {
        connection.query(&doing, &format!("SET LOCAL search_path = pg_catalog, {schemas}")).await?;
    }
    Ok(())
}

impl Reading<'_> {
    fn columns(&self) -> String {
        let names: Vec<String> = self.shape.schema.columns.iter().map(|c| ident(&c.name)).collect();
        names.join(", ")
    }

    /// The key's columns in index order, as SQL.
    fn key(&self) -> Vec<String> {
        self.shape.index_key.iter().map(|at| ident(&self.shape.schema.columns[*at].name)).collect()
    }

    /// `(a, b)` of texts, each a literal of the type of its column (by position).
    fn tuple(&self, texts: &[Cow<'_, str>], columns: &[usize]) -> String {
        let typed = texts.iter().zip(columns);
        let typed: Vec<String> =
            typed.map(|(text, at)| format!("{}::{}", literal(text), self.shape.schema.columns[*at].native)).collect();
        format!("({})", typed.join(", "))
    }

    /// The condition that a row has the values of one of `wanted.keys`.
    fn has_one_of(&self, wanted: Wanted<'_>) -> Result<String> {
        let schema = &self.shape.schema;
        let position = |name: &str| {
            schema.position(name).ok_or_else(|| {
                let message = format!("table {} has no column {name} any more", schema.table);
                SourceError::new(ErrorKind::SchemaChanged, message)
            })
        };
        let columns = wanted.columns.iter().map(|name| position(name)).collect::<Result<Vec<_>>>()?;
        self.is_one_of(&columns, wanted.keys)
    }

    /// The condition that the values of `columns` (by position) are those of one of `keys`.
    fn is_one_of(&self, columns: &[usize], keys: &[RowKey]) -> Result<String> {
        let schema = &self.shape.schema;
        let tuples = keys.iter().filter_map(|key| key_texts(&schema.table, columns.len(), key).transpose());
        let tuples = tuples.map(|texts| Ok(self.tuple(&texts?, columns))).collect::<Result<Vec<_>>>()?;
        if tuples.is_empty() {
            return Ok("false".to_owned());
        }
        let names: Vec<String> = columns.iter().map(|at| ident(&schema.columns[*at].name)).collect();
        Ok(format!("({}) IN (VALUES {})", names.join(", "), tuples.join(", ")))
    }

    /// Runs the read and ends the transaction.
    async fn copy(self, config: &crate::PostgresConfig, select: &str, limit: Option<usize>) -> Result<Read> {
        let Reading { mut lease, shape, head, .. } = self;
        let schema = shape.schema.clone();
        let mut rows = Vec::new();
        let mut bytes = 0;
        let mut last = Vec::new();
        let mut work = Workspace::default();
        let sql = format!("COPY ({select}) TO STDOUT");
        let doing = format!("reading table {}", schema.table);
        let whole = lease
            .session
            .connection
            .copy_and_commit(&doing, &sql, |line| {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                let row = decode_line(&shape, line, &mut work)?;
                bytes += row.memory();
                rows.push(row);
                if limit.is_none() {
                    return Ok(ControlFlow::Continue(()));
                }
                last.clear();
                last.extend_from_slice(line);
                Ok(if bytes >= PAGE_BYTES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })
            .await?;
        let log = lease.session.log(config, head.timeline);
        if whole {
            lease.give_back();
        }
        let goes_on = limit.is_some_and(|limit| !whole || rows.len() >= limit);
        let next = if goes_on { Some(cursor(&shape, &last)?) } else { None };
        Ok(Read { shape, rows, head, log, next, bytes })
    }
}

/// Reads the page after `after`, of all rows or of those that are `wanted`.
pub(crate) async fn page(
    pool: &Pool,
    handed_over: &Delivered,
    config: &crate::PostgresConfig,
    request: &TableRequest,
    wanted: Option<Wanted<'_>>,
    after: Option<&ScanCursor>,
    limit: usize,
) -> Result<Read> {
    let reading = match wanted {
        Some(wanted) => begin_up_to_date(pool, handed_over, request, wanted.columns).await?,
        None => begin(pool, request, &[]).await?,
    };
    let key = reading.key();
    let list = key.join(", ");
    let mut conditions = Vec::new();
    if let Some(wanted) = wanted {
        conditions.push(reading.has_one_of(wanted)?);
    }
    match after {
        None => {}
        Some(cursor) => {
            let texts: Vec<Cow<'_, str>> = serde_json::from_str(&cursor.0)
                .map_err(|_| bug(format!("the scan cursor of table {} cannot be read", request.table)))?;
            if texts.len() != key.len() {
                return Err(SourceError::new(
                    ErrorKind::SchemaChanged,
                    format!("the key of table {} has changed while the table was being read", request.table),
                ));
            }
            conditions.push(format!("({list}) > {}", reading.tuple(&texts, &reading.shape.index_key)));
        }
    }
    let filter = if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    let select = format!(
        "SELECT {} FROM {}{}{filter} ORDER BY {list} LIMIT {limit}",
        reading.columns(),
        reading.table.only(),
        reading.table.sql(),
    );
    reading.copy(config, &select, Some(limit)).await
}

/// Reads the rows with these keys; gives one entry for each.
pub(crate) async fn rows_by_key(
    pool: &Pool,
    handed_over: &Delivered,
    config: &crate::PostgresConfig,
    request: &TableRequest,
    keys: &[RowKey],
) -> Result<(Read, Vec<Option<Row>>)> {
    let reading = begin_up_to_date(pool, handed_over, request, &[]).await?;
    let condition = reading.is_one_of(&reading.shape.schema.key, keys)?;
    let select =
        format!("SELECT {} FROM {}{} WHERE {condition}", reading.columns(), reading.table.only(), reading.table.sql());
    let mut read = reading.copy(config, &select, None).await?;
    let key = &read.shape.schema.key;
    let mut found: HashMap<RowKey, Row> =
        std::mem::take(&mut read.rows).into_iter().filter_map(|row| Some((RowKey::of(&row, key)?, row))).collect();
    // A key may be asked for twice.
    let mut seen: HashMap<&RowKey, usize> = HashMap::new();
    let mut rows: Vec<Option<Row>> = Vec::with_capacity(keys.len());
    for (at, wanted) in keys.iter().enumerate() {
        let row = match seen.get(wanted) {
            Some(first) => rows[*first].clone(),
            None => found.remove(wanted),
        };
        seen.entry(wanted).or_insert(at);
        rows.push(row);
    }
    Ok((read, rows))
}

/// Room for taking lines apart, kept from line to line.
#[derive(Default)]
struct Workspace {
    /// Where the line's fields end.
    ends: Vec<usize>,
    unescaped: Vec<u8>,
    scratch: Vec<u8>,
}

/// One line of COPY's text format → a row.
fn decode_line(shape: &Shape, line: &[u8], work: &mut Workspace) -> Result<Row> {
    let schema = &shape.schema;
    work.ends.clear();
    work.ends.extend(memchr::memchr_iter(b'\t', line));
    work.ends.push(line.len());
    if work.ends.len() != shape.kinds.len() {
        return Err(undecodable(format!("a line of table {} has another number of columns", schema.table)));
    }
    let escapes = memchr(b'\\', line).is_some();
    let mut row = RowBuilder::with_capacity(shape.kinds.len(), payload(shape, line, &work.ends));
    let mut start = 0;
    for (at, (kind, &end)) in shape.kinds.iter().zip(&work.ends).enumerate() {
        let field = &line[start..end];
        start = end + 1;
        let text = if !escapes || memchr(b'\\', field).is_none() {
            field
        } else if field == b"\\N" {
            row.push(Value::Null);
            continue;
        } else {
            work.unescaped.clear();
            unescape(field, &mut work.unescaped);
            &work.unescaped
        };
        decode::push(kind, text, &mut row, &mut work.scratch).map_err(|error| decode_error(schema, at, error))?;
    }
    Ok(row.finish())
}

/// Bytes that the row's values will take, so that its buffer is allocated once.
fn payload(shape: &Shape, line: &[u8], ends: &[usize]) -> usize {
    let mut start = 0;
    let mut bytes = 0;
    for (kind, &end) in shape.kinds.iter().zip(ends) {
        if &line[start..end] != b"\\N" {
            bytes += kind.payload(end - start);
        }
        start = end + 1;
    }
    bytes
}

/// Undoes COPY's escapes. The server writes only single characters after a backslash, never digits.
fn unescape(field: &[u8], out: &mut Vec<u8>) {
    let mut rest = field;
    while let Some(at) = memchr(b'\\', rest) {
        out.extend_from_slice(&rest[..at]);
        let Some(&escaped) = rest.get(at + 1) else { break };
        out.push(match escaped {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            other => other,
        });
        rest = &rest[at + 2..];
    }
    out.extend_from_slice(rest);
}

/// The cursor behind a line: the native text of its key, as a JSON list.
fn cursor(shape: &Shape, line: &[u8]) -> Result<ScanCursor> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b'\t').collect();
    let text = |at: &usize| {
        let mut text = Vec::new();
        unescape(fields.get(*at)?, &mut text);
        String::from_utf8(text).ok()
    };
    let table = &shape.schema.table;
    let texts: Option<Vec<String>> = shape.index_key.iter().map(text).collect();
    let texts = texts.ok_or_else(|| undecodable(format!("a key of table {table} is not valid UTF-8")))?;
    let json = serde_json::to_string(&texts).map_err(|e| bug("a scan cursor cannot be written").caused_by(e))?;
    Ok(ScanCursor(json.into()))
}

/// The native texts of a key of `width` columns; `None` if no row can have that key (it holds a null).
fn key_texts<'a>(table: &TableId, width: usize, key: &'a RowKey) -> Result<Option<Vec<Cow<'a, str>>>> {
    let changed = || {
        let message = format!("a key of table {table} was asked for that has other columns than the table's key");
        SourceError::new(ErrorKind::SchemaChanged, message)
    };
    let values = key.values().filter(|v| v.len() == width).ok_or_else(changed)?;
    let mut texts = Vec::with_capacity(values.len());
    for (letter, bytes) in values {
        match letter {
            b'0' => return Ok(None),
            b'b' => texts.push(Cow::Owned(hex(bytes))),
            b'd' | b's' | b'z' => texts.push(native_time(str::from_utf8(bytes).map_err(|_| changed())?)),
            _ => texts.push(Cow::Borrowed(str::from_utf8(bytes).map_err(|_| changed())?)),
        }
    }
    Ok(Some(texts))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::from("\\x"), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// A canonical date or timestamp as PostgreSQL reads it: years up to 0 as years BC.
fn native_time(text: &str) -> Cow<'_, str> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let year_end = digits.find('-').unwrap_or(0);
    match digits[..year_end].parse::<u32>() {
        Ok(year) if negative || year == 0 => {
            let rest = &digits[year_end..];
            Cow::Owned(format!("{:04}{rest} BC", year + 1))
        }
        _ => Cow::Borrowed(text),
    }
}

/// How many rows a page of a table may have, learnt from the width of its rows so far: asking for much more than fits
/// would make the server read rows that are thrown away.
#[derive(Default)]
pub(crate) struct PageSizes(std::sync::Mutex<HashMap<TableId, usize>>);

impl PageSizes {
    pub(crate) fn limit(&self, table: &TableId, wanted: usize) -> usize {
        let sizes = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        wanted.max(1).min(sizes.get(table).copied().unwrap_or(usize::MAX))
    }

    pub(crate) fn learn(&self, table: &TableId, rows: usize, bytes: usize) {
        if rows > 0 {
            let fit = rows.saturating_mul(PAGE_BYTES) / bytes.max(1);
            let mut sizes = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            sizes.insert(table.clone(), fit + fit / 4 + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        let mut out = Vec::new();
        unescape(br"a\tb\\c\nd\\x00\b\f\v\r", &mut out);
        assert_eq!(out, b"a\tb\\c\nd\\x00\x08\x0c\x0b\r");
    }

    #[test]
    fn years_before_christ_go_back() {
        for (canonical, native) in [
            ("2024-01-02", "2024-01-02"),
            ("-0043-03-15", "0044-03-15 BC"),
            ("0000-12-31T00:00:00Z", "0001-12-31T00:00:00Z BC"),
            ("infinity", "infinity"),
            ("-infinity", "-infinity"),
            ("5874897-12-31", "5874897-12-31"),
        ] {
            assert_eq!(native_time(canonical), native);
        }
    }

    #[test]
    fn page_sizes_follow_the_width_of_rows() {
        let sizes = PageSizes::default();
        let table = TableId::new("s", "t");
        assert_eq!(sizes.limit(&table, 5000), 5000);
        sizes.learn(&table, 10, PAGE_BYTES);
        assert_eq!(sizes.limit(&table, 5000), 13);
        assert_eq!(sizes.limit(&table, 0), 1);
        sizes.learn(&table, 13, 1300);
        assert_eq!(sizes.limit(&table, 5000), 5000);
    }
}
