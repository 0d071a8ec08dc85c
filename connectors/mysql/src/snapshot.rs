//! Pages by key, and rows by key: each one short statement, outside of any transaction.
//!
//! The barrier is the log's head, asked for on the same connection *after* the read. A transaction is written to the log
//! before anybody can see it, so every transaction that the read saw ends at or before that head.
//!
//! The table's shape is looked up before each read and once more after it: if it changed in between, the rows might have
//! been read in one shape and be taken for another (R12), and the read is done again.

use crate::MysqlConfig;
use crate::catalog::{self, Settings, Shape, Table, missing_table, refused};
use crate::charset::Charset;
use crate::error::{bug, server_code, setting_wrong, undecodable};
use crate::position::{FilePlace, Head, Log, Place};
use crate::session::{Lease, Pool, Session};
use crate::sql::{TextRow, hex, ident};
use crate::types::{Kind, Scratch, push_text};
use crate::visibility::{self, Told};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tidemark_contract::{ErrorKind, Position, Result, Row, RowKey, ScanCursor, SourceError, TableId, TableRequest};

/// A page ends when its rows take this many bytes, whatever its limit (R7).
const PAGE_BYTES: usize = 4 << 20;

/// Where to read from, and what the open stream has told: the read must see that.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) config: &'a MysqlConfig,
    pub(crate) told: Option<&'a Told>,
    pub(crate) shapes: &'a Shapes,
}

/// What one read gave.
pub(crate) struct Read {
    pub(crate) shape: Arc<Shape>,
    pub(crate) rows: Vec<Row>,
    pub(crate) barrier: Position,
    pub(crate) next: Option<ScanCursor>,
    pub(crate) bytes: usize,
}

/// A position at the head of a log.
pub(crate) fn head_position(log: &Log, head: Head) -> Position {
    let file = FilePlace { name: head.file, offset: head.offset, created: 0 };
    log.position(&Place { file: Some(file), gtids: head.gtids, inside: None, unfinished: None })
}

/// How the catalogue describes a table now.
async fn look_up(session: &mut Session, request: &TableRequest) -> Result<(Table, Settings)> {
    let settings = catalog::settings(&mut session.connection).await?;
    let found = catalog::describe(&mut session.connection, std::slice::from_ref(&request.table), settings.fold).await?;
    let table = found.into_values().next().ok_or_else(|| missing_table(&request.table))?;
    Ok((table, settings))
}

/// Reads with `select`, which is built from the table's shape, in a session of the pool.
async fn read(
    source: Source<'_>,
    request: &TableRequest,
    limit: Option<usize>,
    select: impl Fn(&Shape) -> Result<String>,
) -> Result<Read> {
    for _ in 0..3 {
        let mut lease: Lease<'_> = source.pool.lease().await?;
        let session = &mut lease.session;
        let lock = match source.told {
            Some(told) => visibility::wait(session, told).await?,
            None => "",
        };
        let known = source.shapes.get(request);
        let is_known = known.is_some();
        let (shape, hash) = match &known {
            Some((shape, _)) => (shape.clone(), 0),
            None => {
                let (table, settings) = look_up(session, request).await?;
                let shape = table.shape(request, source.config, settings.image);
                (Arc::new(shape.map_err(|reason| refused(&request.table, &reason))?), table.shape_hash())
            }
        };
        let sql = format!("{}{lock}", select(&shape)?);
        let page = match fetch(session, request, limit, &shape, &sql).await {
            Ok(page) => page,
            // The table changed since it was last looked at: a column or the table is gone.
            Err(error) if is_known && matches!(server_code(&error), Some(1054 | 1146)) => {
                source.shapes.forget(request);
                lease.give_back();
                continue;
            }
            Err(error) => return Err(error),
        };
        let log = Log::of(&session.server);
        let head = session.head().await?;
        let unchanged = match known {
            Some((_, described)) => described == page.described,
            None => look_up(session, request).await?.0.shape_hash() == hash,
        };
        lease.give_back();
        if !unchanged {
            source.shapes.forget(request);
            continue;
        }
        if !is_known {
            source.shapes.learn(request, shape.clone(), page.described);
        }
        let next = if page.last.is_empty() { None } else { Some(cursor(&shape, &page.last)?) };
        let Page { rows, bytes, .. } = page;
        return Ok(Read { barrier: head_position(&log, head), shape, rows, next, bytes });
    }
    Err(SourceError::new(
        ErrorKind::SchemaChanged,
        format!("table {} was altered again and again while it was being read", request.table),
    ))
}

/// The rows of one statement.
struct Page {
    rows: Vec<Row>,
    bytes: usize,
    /// The key of the last row, if there may be more.
    last: Vec<Option<Vec<u8>>>,
    /// A hash of the result's own description of its columns.
    described: u32,
}

async fn fetch(
    session: &mut Session,
    request: &TableRequest,
    limit: Option<usize>,
    shape: &Shape,
    sql: &str,
) -> Result<Page> {
    let mut page = Page { rows: Vec::new(), bytes: 0, last: Vec::new(), described: 0 };
    let mut scratch = Scratch::default();
    let mut full = false;
    let doing = format!("reading table {}", request.table);
    let described = session.connection.each(&doing, sql, |fields| {
        if full {
            return Ok(());
        }
        let row = decode(shape, &fields, &mut scratch)?;
        page.bytes += row.memory();
        full = limit.is_some() && page.bytes >= PAGE_BYTES;
        page.rows.push(row);
        if full || Some(page.rows.len()) == limit {
            page.last = shape.index_key.iter().map(|at| fields.get(*at).map(<[u8]>::to_vec)).collect();
        }
        Ok(())
    });
    page.described = described.await?;
    Ok(page)
}

/// Shapes of tables that were read before, so that the catalogue is not asked for each page. A shape is trusted for as
/// long as the results describe their columns in the same way (names, types, lengths, flags, membership in keys), and for
/// [`TRUST`] at most. Tables with labels (ENUM, SET) are looked up each time: results do not tell the labels.
#[derive(Default)]
pub(crate) struct Shapes(Mutex<HashMap<TableId, Remembered>>);

struct Remembered {
    request: TableRequest,
    shape: Arc<Shape>,
    described: u32,
    since: Instant,
}

/// How long a shape is trusted without a look into the catalogue.
const TRUST: Duration = Duration::from_secs(10);

impl Shapes {
    fn get(&self, request: &TableRequest) -> Option<(Arc<Shape>, u32)> {
        let shapes = crate::locked(&self.0);
        let known = shapes.get(&request.table)?;
        let good = known.request == *request && known.since.elapsed() < TRUST;
        good.then(|| (known.shape.clone(), known.described))
    }

    fn forget(&self, request: &TableRequest) {
        crate::locked(&self.0).remove(&request.table);
    }

    fn learn(&self, request: &TableRequest, shape: Arc<Shape>, described: u32) {
        if shape.kinds.iter().any(|kind| matches!(kind, Kind::Enum(..) | Kind::Set(..))) {
            return;
        }
        let remembered = Remembered { request: request.clone(), shape, described, since: Instant::now() };
        crate::locked(&self.0).insert(request.table.clone(), remembered);
    }
}

fn decode(shape: &Shape, fields: &TextRow<'_>, scratch: &mut Scratch) -> Result<Row> {
    let mut row = scratch.row(shape.kinds.len());
    for (at, kind) in shape.kinds.iter().enumerate() {
        push_text(kind, fields.get(at), &mut row, scratch).map_err(|error| {
            let column = &shape.schema.columns[at].name;
            SourceError::new(error.kind, format!("table {}, column {column}: {error}", shape.schema.table))
        })?;
    }
    let row = row.finish();
    scratch.learn(&row);
    Ok(row)
}

impl Shape {
    fn select(&self) -> String {
        let columns = self.schema.columns.iter().zip(&self.kinds);
        let columns: Vec<String> = columns.map(|(column, kind)| kind.select(&ident(&column.name))).collect();
        format!("SELECT {} FROM {}", columns.join(", "), self.sql_name)
    }

    fn column(&self, at: usize) -> String {
        ident(&self.schema.columns[at].name)
    }

    /// A key column as it is compared: labels by their number, as the index sorts them.
    fn compared(&self, at: usize) -> String {
        match self.kinds[at] {
            Kind::Enum(..) | Kind::Set(..) => format!("{} + 0", self.column(at)),
            _ => self.column(at),
        }
    }

    /// A key value as SQL, from the bytes that a result gave.
    fn native_literal(&self, at: usize, bytes: &[u8]) -> Result<String> {
        let text = || std::str::from_utf8(bytes).map_err(|_| undecodable("a key cannot be read"));
        Ok(match &self.kinds[at] {
            Kind::Text(Charset::Binary, _) => binary(bytes),
            Kind::Text(..) | Kind::JsonText(_) => format!("_{} X'{}'", self.charsets[at], hex(bytes)),
            Kind::Bit(_) => {
                let value = bytes.iter().take(8).fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
                value.to_string()
            }
            Kind::Enum(labels, charset) | Kind::Set(labels, charset) => {
                label_number(&charset.text(bytes), labels, matches!(self.kinds[at], Kind::Set(..)))
            }
            Kind::Int { .. } | Kind::Year | Kind::Decimal | Kind::Float | Kind::Double => number(text()?)?,
            _ => format!("'{}'", plain(text()?)?),
        })
    }

    /// A key value as SQL, from its canonical form; `None` if no row can have it.
    fn canonical_literal(&self, at: usize, letter: u8, bytes: &[u8]) -> Result<Option<String>> {
        let table = &self.schema.table;
        let changed = || {
            let message = format!("a key of table {table} was asked for that has other columns than the table's key");
            SourceError::new(ErrorKind::SchemaChanged, message)
        };
        let text = || std::str::from_utf8(bytes).map_err(|_| changed());
        Ok(Some(match (&self.kinds[at], letter) {
            (_, b'0') => return Ok(None),
            // Bytes that were no text of their character set.
            (Kind::Text(Charset::Binary, _), b'b') => binary(bytes),
            (Kind::Text(..), b'b') => format!("_{} X'{}'", self.charsets[at], hex(bytes)),
            (Kind::Text(..) | Kind::JsonText(_), _) => crate::sql::literal(text()?),
            (Kind::Enum(labels, _), b't') => label_number(text()?, labels, false),
            (Kind::Set(labels, _), b'l') => {
                let set: Vec<String> = serde_json::from_str(text()?).map_err(|_| changed())?;
                label_number(&set.join(","), labels, true)
            }
            (Kind::Bit(_), b'?') => if bytes == b"true" { "1" } else { "0" }.to_owned(),
            (Kind::Bit(_) | Kind::Int { .. } | Kind::Year, b'i') => number(text()?)?,
            (Kind::Decimal, b'n') => number(text()?)?,
            // A column in single precision is compared as the double that it widens to.
            (Kind::Float, b'f') => {
                let value: f32 = text()?.parse().map_err(|_| changed())?;
                number(&format!("{:e}", f64::from(value)))?
            }
            (Kind::Double, b'f') => {
                let value: f64 = text()?.parse().map_err(|_| changed())?;
                number(&format!("{value:e}"))?
            }
            (Kind::DateTime(_), b's') | (Kind::Timestamp(_), b'z') => {
                format!("'{}'", plain(text()?)?.replace('T', " ").trim_end_matches('Z'))
            }
            (Kind::Date(_), b'd') | (Kind::Time, b'h') | (Kind::Uuid, b'u') => format!("'{}'", plain(text()?)?),
            // What no calendar has is a text.
            (Kind::Date(_) | Kind::DateTime(_) | Kind::Timestamp(_) | Kind::Inet4 | Kind::Inet6, b't') => {
                format!("'{}'", plain(text()?)?)
            }
            _ => return Err(changed()),
        }))
    }
}

/// A value of another table's column, for a column of this one: by its own type if it is of that, else as the server
/// converts it.
impl Shape {
    fn related_literal(&self, at: usize, letter: u8, bytes: &[u8]) -> Result<Option<String>> {
        if let Ok(literal) = self.canonical_literal(at, letter, bytes) {
            return Ok(literal);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| undecodable("a key that should be text is none"))?;
        Ok(Some(match letter {
            b'i' | b'n' | b'f' => number(text)?,
            b'?' => if bytes == b"true" { "1" } else { "0" }.to_owned(),
            b's' | b'z' => format!("'{}'", plain(text)?.replace('T', " ").trim_end_matches('Z')),
            b'b' => binary(bytes),
            _ => crate::sql::literal(text),
        }))
    }
}

fn binary(bytes: &[u8]) -> String {
    format!("X'{}'", hex(bytes))
}

/// A number's text, if it is one.
fn number(text: &str) -> Result<String> {
    let fine = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'+' | b'.' | b'e'));
    if fine { Ok(text.to_owned()) } else { Err(undecodable("a key that should be a number is none")) }
}

/// A text that needs no quoting.
fn plain(text: &str) -> Result<&str> {
    let fine = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b':' | b'.' | b' '));
    if fine { Ok(text) } else { Err(undecodable("a key that should be a date, time or address is none")) }
}

/// The number by which the server keeps a label, or a list of them.
fn label_number(text: &str, labels: &[Box<str>], is_set: bool) -> String {
    let position = |label: &str| labels.iter().position(|l| **l == *label);
    if is_set {
        let bits = text.split(',').filter_map(position).fold(0_u64, |bits, at| bits | 1_u64.unbounded_shl(at as u32));
        bits.to_string()
    } else {
        position(text).map_or(0, |at| at + 1).to_string()
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
            let message = format!("table {} no longer has a column that rows are looked for by", shape.schema.table);
            SourceError::new(ErrorKind::SchemaChanged, message)
        })?;
        let mut conditions = Vec::new();
        for key in self.keys {
            let values = key.values().filter(|v| v.len() == columns.len());
            let values = values.ok_or_else(|| bug("a key has other columns than those that rows are looked for by"))?;
            let mut parts = Vec::new();
            for (at, (letter, bytes)) in columns.iter().zip(values) {
                let literal = shape.related_literal(*at, letter, bytes)?;
                parts.push(literal.map(|literal| format!("{} = {literal}", shape.compared(*at))));
            }
            let parts: Option<Vec<String>> = parts.into_iter().collect();
            conditions.extend(parts.map(|parts| format!("({})", parts.join(" AND "))));
        }
        Ok(if conditions.is_empty() { "0".into() } else { format!("({})", conditions.join(" OR ")) })
    }
}

/// Reads the page after `after`, of all rows or of the wanted ones.
pub(crate) async fn page(
    source: Source<'_>,
    request: &TableRequest,
    wanted: Option<Wanted<'_>>,
    after: Option<&ScanCursor>,
    limit: usize,
) -> Result<Read> {
    read(source, request, Some(limit), |shape| {
        let key = &shape.index_key;
        let mut conditions = Vec::new();
        if let Some(wanted) = &wanted {
            conditions.push(wanted.condition(shape)?);
        }
        match after {
            None => {}
            Some(cursor) => {
                let texts: Vec<String> = serde_json::from_str(&cursor.0)
                    .map_err(|_| bug(format!("the scan cursor of table {} cannot be read", request.table)))?;
                if texts.len() != key.len() {
                    return Err(SourceError::new(
                        ErrorKind::SchemaChanged,
                        format!("the key of table {} has changed while the table was being read", request.table),
                    ));
                }
                let values = key.iter().zip(&texts).map(|(at, text)| shape.native_literal(*at, &unhex(text)?));
                conditions.push(behind(shape, &values.collect::<Result<Vec<_>>>()?));
            }
        }
        let condition =
            if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        let order: Vec<String> = key.iter().map(|at| shape.column(*at)).collect();
        Ok(format!("{}{condition} ORDER BY {} LIMIT {limit}", shape.select(), order.join(", ")))
    })
    .await
}

/// `(a, b) > (x, y)`, spelled so that the index is used: `a >= x AND (a > x OR (a = x AND b > y))`.
fn behind(shape: &Shape, values: &[String]) -> String {
    let columns: Vec<String> = shape.index_key.iter().map(|at| shape.compared(*at)).collect();
    let mut condition = String::new();
    for (column, value) in columns.iter().zip(values).rev() {
        condition = if condition.is_empty() {
            format!("{column} > {value}")
        } else {
            format!("({column} > {value} OR ({column} = {value} AND {condition}))")
        };
    }
    match (columns.first(), values.first()) {
        (Some(column), Some(value)) if columns.len() > 1 => format!("{column} >= {value} AND {condition}"),
        _ => condition,
    }
}

/// Reads the rows with these keys; gives one entry for each.
pub(crate) async fn rows_by_key(
    source: Source<'_>,
    request: &TableRequest,
    keys: &[RowKey],
) -> Result<(Read, Vec<Option<Row>>)> {
    let mut read = read(source, request, None, |shape| {
        let mut conditions = Vec::new();
        for key in keys {
            let values = key.values().filter(|v| v.len() == shape.schema.key.len());
            let values = values.ok_or_else(|| setting_wrong("a key has other columns than the table's key"))?;
            let mut parts = Vec::new();
            for (at, (letter, bytes)) in shape.schema.key.iter().zip(values) {
                let literal = shape.canonical_literal(*at, letter, bytes)?;
                parts.push(literal.map(|literal| format!("{} = {literal}", shape.compared(*at))));
            }
            let parts: Option<Vec<String>> = parts.into_iter().collect();
            conditions.extend(parts.map(|parts| format!("({})", parts.join(" AND "))));
        }
        let condition = if conditions.is_empty() { "0".into() } else { conditions.join(" OR ") };
        Ok(format!("{} WHERE {condition}", shape.select()))
    })
    .await?;
    let key = &read.shape.schema.key;
    let rows = std::mem::take(&mut read.rows).into_iter();
    let mut found: HashMap<RowKey, Row> = rows.filter_map(|row| Some((RowKey::of(&row, key)?, row))).collect();
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

/// The cursor behind a row: the bytes of its key as results give them, in hexadecimal, as a JSON list.
fn cursor(shape: &Shape, key: &[Option<Vec<u8>>]) -> Result<ScanCursor> {
    let texts: Option<Vec<String>> = key.iter().map(|part| part.as_deref().map(hex)).collect();
    let texts = texts.ok_or_else(|| undecodable(format!("a key of table {} is null", shape.schema.table)))?;
    let json = serde_json::to_string(&texts).map_err(|e| bug("a scan cursor cannot be written").caused_by(e))?;
    Ok(ScanCursor(json.into()))
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let broken = || bug("a scan cursor cannot be read");
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap_or(""), 16).map_err(|_| broken())).collect()
}

/// How many rows a page of a table may have, learnt from the width of its rows so far: asking for much more than fits
/// would make the server read rows that are thrown away.
#[derive(Default)]
pub(crate) struct PageSizes(Mutex<HashMap<TableId, usize>>);

impl PageSizes {
    pub(crate) fn limit(&self, table: &TableId, wanted: usize) -> usize {
        let sizes = crate::locked(&self.0);
        // Nothing is known of the first page's rows: a few of them tell.
        wanted.max(1).min(sizes.get(table).copied().unwrap_or(256))
    }

    pub(crate) fn learn(&self, table: &TableId, rows: usize, bytes: usize) {
        if rows > 0 {
            let fit = rows.saturating_mul(PAGE_BYTES) / bytes.max(1);
            crate::locked(&self.0).insert(table.clone(), fit + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_numbers() {
        let labels: Vec<Box<str>> = ["a".into(), "b".into(), "c".into()].into();
        assert_eq!(label_number("b", &labels, false), "2");
        assert_eq!(label_number("", &labels, false), "0");
        assert_eq!(label_number("a,c", &labels, true), "5");
        assert_eq!(label_number("", &labels, true), "0");
    }

    #[test]
    fn key_texts_that_could_be_sql_are_refused() {
        assert!(number("1 OR 1").is_err() && number("").is_err() && number("-1.5e3").is_ok());
        assert!(plain("2024-01-01 00:00:00").is_ok() && plain("x' OR '1").is_err());
        assert_eq!(unhex("0AFF").unwrap(), [10, 255]);
        assert!(unhex("zz").is_err());
    }

    #[test]
    fn page_sizes_follow_the_width_of_rows() {
        let sizes = PageSizes::default();
        let table = TableId::new("s", "t");
        assert_eq!(sizes.limit(&table, 5000), 256);
        sizes.learn(&table, 10, PAGE_BYTES);
        assert_eq!(sizes.limit(&table, 5000), 11);
        sizes.learn(&table, 13, 1300);
        assert_eq!(sizes.limit(&table, 5000), 5000);
    }
}
