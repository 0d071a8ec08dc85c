//! Reads the related rows of a batch of rows, and makes their records.
//!
//! Each table that takes part is asked once per batch and step of the way, by the values that its rows must have
//! ([`Connector::find_rows`]), however many records show one row. The reads are separate statements, so a record may be
//! put together from two moments; whoever asks must therefore ask again after each change that the tail tells of, in
//! order, and then the last record is whole (see `pipeline::assembly`).

use crate::mapping::{Applied, BindError, ChildRows, Join, OnPair, RelatedRows, Rule, Slot};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use tidemark_contract::{Connector, ErrorKind, Row, RowKey, SourceError, TableId, TableRequest, TableSchema};

/// Values asked for in one statement.
const KEYS: usize = 500;
/// Rows asked for in one statement.
const PAGE: usize = 5_000;
/// A batch whose related rows take more memory than this is made in two halves.
const BYTES: usize = 64 << 20;
/// A table may be altered between two reads of a batch; it is then read anew, so often.
const TRIES: u32 = 5;

/// Why records could not be made.
#[derive(Debug)]
pub enum GatherError {
    /// The source.
    Source(SourceError),
    /// A table no longer has what the rule reads.
    Bind(BindError),
}

impl fmt::Display for GatherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(error) => error.fmt(f),
            Self::Bind(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for GatherError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Source(error) => Some(error),
            Self::Bind(error) => Some(error),
        }
    }
}

impl From<SourceError> for GatherError {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

impl From<GatherError> for crate::error::Error {
    fn from(error: GatherError) -> Self {
        match error {
            GatherError::Source(error) => error.into(),
            GatherError::Bind(error) => crate::error::Error::new(ErrorKind::SchemaChanged, error.to_string()),
        }
    }
}

/// Reads related rows.
#[derive(Clone, Copy)]
pub struct Gatherer<'a> {
    connector: &'a dyn Connector,
    requests: &'a [TableRequest],
}

impl<'a> Gatherer<'a> {
    /// `requests` are those of the whole mapping ([`crate::mapping::Mapping::requests`]).
    pub fn new(connector: &'a dyn Connector, requests: &'a [TableRequest]) -> Self {
        Self { connector, requests }
    }

    /// The records that `rule` makes of `rows`, one for each, whose columns are those of `schema`. Rows outside the
    /// rule's `where` cost no read.
    ///
    /// # Errors
    /// What the source says, and tables that no longer fit the rule.
    pub async fn records(
        &self,
        rule: &Rule,
        schema: &Arc<TableSchema>,
        rows: &[Row],
    ) -> Result<Vec<Applied>, GatherError> {
        let own = rule.bind(schema).map_err(GatherError::Bind)?;
        let mut records: Vec<Applied> = rows.iter().map(|row| own.apply(row)).collect();
        let wanting: Vec<usize> = (0..rows.len()).filter(|n| matches!(records[*n], Applied::NeedsRow)).collect();
        let mut parts = vec![&wanting[..]];
        while let Some(part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let roots: Vec<&Row> = part.iter().map(|n| &rows[*n]).collect();
            match self.part(rule, schema, &roots).await? {
                Some(made) => part.iter().zip(made).for_each(|(n, record)| records[*n] = record),
                None => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            }
        }
        Ok(records)
    }

    /// `None` if the related rows are too large to be held together.
    async fn part(
        &self,
        rule: &Rule,
        schema: &Arc<TableSchema>,
        roots: &[&Row],
    ) -> Result<Option<Vec<Applied>>, GatherError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut reading = Reading {
                gatherer: *self,
                schemas: HashMap::from([(schema.table.clone(), schema.clone())]),
                budget: if roots.len() > 1 { BYTES } else { usize::MAX },
            };
            match reading.related(rule, roots).await {
                Ok(related) => {
                    let bound = rule.bind_related(&mut |table| reading.schemas.get(table).cloned());
                    let bound = match bound {
                        Ok(bound) => bound,
                        Err(error) => return Err(GatherError::Bind(error)),
                    };
                    return Ok(Some(
                        roots.iter().zip(&related).map(|(row, related)| bound.apply(row, related)).collect(),
                    ));
                }
                Err(Stop::TooLarge) => return Ok(None),
                Err(Stop::Altered(_)) if tries < TRIES => {}
                Err(Stop::Altered(table)) => {
                    let message = format!("table {table} was altered again and again while it was being read");
                    return Err(SourceError::new(ErrorKind::Unreachable, message).into());
                }
                Err(Stop::Failed(error)) => return Err(error),
            }
        }
    }
}

enum Stop {
    /// The related rows do not fit into memory.
    TooLarge,
    /// A table has other columns than a moment ago.
    Altered(TableId),
    Failed(GatherError),
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Self {
        Self::Failed(error.into())
    }
}

/// Rows of one table by the values of some of their columns.
type Found = HashMap<RowKey, Vec<Row>>;

struct Reading<'g> {
    gatherer: Gatherer<'g>,
    /// The tables as they were when they were first read in this batch.
    schemas: HashMap<TableId, Arc<TableSchema>>,
    budget: usize,
}

impl Reading<'_> {
    async fn related(&mut self, rule: &Rule, roots: &[&Row]) -> Result<Vec<RelatedRows>, Stop> {
        let Some(relations) = &rule.relations else { return Ok(vec![RelatedRows::default(); roots.len()]) };
        let mut joined: Vec<Vec<Option<Row>>> = vec![Vec::with_capacity(relations.joins.len()); roots.len()];
        for join in &relations.joins {
            let own = roots.iter().map(|row| Some(*row));
            let found = self.joins(join, &rule.table, own, &joined, &relations.joins).await?;
            joined.iter_mut().zip(found).for_each(|(rows, row)| rows.push(row));
        }
        let mut out: Vec<RelatedRows> =
            joined.into_iter().map(|joins| RelatedRows { joins, children: Vec::new() }).collect();
        for child in &relations.children {
            let keys: Vec<Option<RowKey>> = {
                let parents = roots.iter().zip(&out).map(|(root, related)| at(child.from, Some(*root), &related.joins));
                self.keys(child.from, &rule.table, &relations.joins, &child.on, parents)?
            };
            let found = self.find(&child.table, &child.on, &keys).await?;
            // A parent's rows, in the order of the parents; a row has one parent, unless two records share it.
            let lists: Vec<Vec<Row>> = keys
                .iter()
                .map(|key| key.as_ref().and_then(|key| found.get(key)).cloned().unwrap_or_default())
                .collect();
            drop(found);
            let rows: Vec<&Row> = lists.iter().flatten().collect();
            let mut joined: Vec<Vec<Option<Row>>> = vec![Vec::with_capacity(child.joins.len()); rows.len()];
            for join in &child.joins {
                let own = rows.iter().map(|row| Some(*row));
                let found = self.joins(join, &child.table, own, &joined, &child.joins).await?;
                joined.iter_mut().zip(found).for_each(|(rows, row)| rows.push(row));
            }
            let mut joined = joined.into_iter();
            for (related, list) in out.iter_mut().zip(lists) {
                let with_joins = |row| ChildRows { row, joins: joined.next().unwrap_or_default() };
                related.children.push(list.into_iter().map(with_joins).collect());
            }
        }
        Ok(out)
    }

    /// The row that a join finds for each row.
    async fn joins<'r>(
        &mut self,
        join: &Join,
        root: &TableId,
        own: impl Iterator<Item = Option<&'r Row>>,
        before: &[Vec<Option<Row>>],
        joins: &[Join],
    ) -> Result<Vec<Option<Row>>, Stop> {
        let keys = {
            let from = own.zip(before).map(|(own, joined)| at(join.from, own, joined));
            self.keys(join.from, root, joins, &join.on, from)?
        };
        let found = self.find(&join.table, &join.on, &keys).await?;
        let first = |key: &Option<RowKey>| found.get(key.as_ref()?)?.first().cloned();
        Ok(keys.iter().map(first).collect())
    }

    /// The values of the left columns of `on` in each row; `None` where one is null or there is no row.
    fn keys<'r>(
        &self,
        from: Slot,
        root: &TableId,
        joins: &[Join],
        on: &[OnPair],
        rows: impl Iterator<Item = Option<&'r Row>>,
    ) -> Result<Vec<Option<RowKey>>, Stop> {
        let table = from.join().and_then(|n| joins.get(n)).map_or(root, |join| &join.table);
        // A table of which no row was looked for has no schema here, and no rows.
        let Some(schema) = self.schemas.get(table) else { return Ok(rows.map(|_| None).collect()) };
        let columns = columns(schema, on.iter().map(|pair| &*pair.left))?;
        Ok(rows.map(|row| key_without_null(row?, &columns)).collect())
    }

    /// The rows of `table` whose right columns have one of these values.
    async fn find(&mut self, table: &TableId, on: &[OnPair], keys: &[Option<RowKey>]) -> Result<Found, Stop> {
        let mut found = Found::new();
        let wanted: Vec<RowKey> = keys.iter().flatten().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        let Some(request) = self.gatherer.requests.iter().find(|r| r.table == *table) else {
            let message = format!("table {table} is not among the tables that the mapping reads");
            return Err(SourceError::new(ErrorKind::Bug, message).into());
        };
        let names: Vec<Box<str>> = on.iter().map(|pair| pair.right.clone()).collect();
        // Even without values the table is asked, if nothing is known of it: binding needs its columns.
        let nothing = [Vec::new()];
        let parts: Vec<&[RowKey]> = match wanted.is_empty() {
            true if self.schemas.contains_key(table) => return Ok(found),
            true => nothing.iter().map(Vec::as_slice).collect(),
            false => wanted.chunks(KEYS).collect(),
        };
        for part in parts {
            let mut after = None;
            loop {
                let page = self.gatherer.connector.find_rows(request, &names, part, after.as_ref(), PAGE).await?;
                match self.schemas.get(table) {
                    Some(known) if **known != *page.schema => return Err(Stop::Altered(table.clone())),
                    Some(_) => {}
                    None => {
                        self.schemas.insert(table.clone(), page.schema.clone());
                    }
                }
                let columns = columns(&page.schema, names.iter().map(|name| &**name))?;
                for row in page.rows {
                    self.budget = self.budget.checked_sub(row.memory()).ok_or(Stop::TooLarge)?;
                    if let Some(key) = key_without_null(&row, &columns) {
                        found.entry(key).or_default().push(row);
                    }
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(found)
    }
}

fn at<'r>(slot: Slot, own: Option<&'r Row>, joined: &'r [Option<Row>]) -> Option<&'r Row> {
    match slot.join() {
        None => own,
        Some(n) => joined.get(n)?.as_ref(),
    }
}

fn columns<'n>(schema: &TableSchema, names: impl Iterator<Item = &'n str>) -> Result<Vec<usize>, Stop> {
    names.map(|name| schema.position(name).ok_or_else(|| Stop::Altered(schema.table.clone()))).collect()
}

/// The values of `columns`, as [`RowKey::of`]; `None` also where one is null, which equals nothing.
pub fn key_without_null(row: &Row, columns: &[usize]) -> Option<RowKey> {
    if columns.iter().any(|at| row.get(*at).is_null()) {
        return None;
    }
    RowKey::of(row, columns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::{CompileOptions, Pack, compile};
    use async_trait::async_trait;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tidemark_conformance::scripted::ScriptedFixture;
    use tidemark_conformance::{Cell, ColumnKind, Fixture, Op, TableDef};
    use tidemark_contract::{
        Capabilities, ChangeStream, FetchedRows, Finding, Lag, Position, Result, ScanCursor, SnapshotChunk,
    };

    /// Counts the questions for rows by value.
    struct Counting(Arc<dyn Connector>, AtomicUsize);

    #[async_trait]
    impl Connector for Counting {
        fn name(&self) -> &'static str {
            self.0.name()
        }
        fn capabilities(&self) -> Capabilities {
            self.0.capabilities()
        }
        async fn preflight(&self, tables: &[TableRequest]) -> Result<Vec<Finding>> {
            self.0.preflight(tables).await
        }
        async fn discover(&self, tables: &[TableRequest]) -> Result<Vec<Arc<TableSchema>>> {
            self.0.discover(tables).await
        }
        async fn estimate_rows(&self, table: &TableId) -> Result<Option<u64>> {
            self.0.estimate_rows(table).await
        }
        async fn open_stream(&self, tables: &[TableRequest], from: Option<&Position>) -> Result<Box<dyn ChangeStream>> {
            self.0.open_stream(tables, from).await
        }
        fn covers(&self, reached: &Position, goal: &Position) -> Result<bool> {
            self.0.covers(reached, goal)
        }
        async fn snapshot_chunk(
            &self,
            table: &TableRequest,
            after: Option<&ScanCursor>,
            limit: usize,
        ) -> Result<SnapshotChunk> {
            self.0.snapshot_chunk(table, after, limit).await
        }
        async fn fetch_rows(&self, table: &TableRequest, keys: &[RowKey]) -> Result<FetchedRows> {
            self.0.fetch_rows(table, keys).await
        }
        async fn find_rows(
            &self,
            table: &TableRequest,
            columns: &[Box<str>],
            values: &[RowKey],
            after: Option<&ScanCursor>,
            limit: usize,
        ) -> Result<SnapshotChunk> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.find_rows(table, columns, values, after, limit).await
        }
        async fn lag(&self, from: Option<&Position>) -> Result<Lag> {
            self.0.lag(from).await
        }
        async fn release(&self) -> Result<Vec<String>> {
            self.0.release().await
        }
    }

    const PACK: &str = r#"
        tidemark = 1
        [pack]
        name = "orders"
        version = "1"
        [record.order]
        from = "orders as o"
        external_id = "o.id"
        [record.order.children.lines]
        from = "lines as l"
        on = "l.order_id = o.id"
        order_by = "l.id"
        [record.order.children.lines.join.product]
        from = "products as p"
        on = "p.id = l.product"
        [record.order.children.lines.fields]
        name = "p.name"
        [record.order.fields]
        count = "count(lines)"
    "#;

    /// Five hundred parents with their lines and the lines' products cost one question for each related table.
    #[tokio::test]
    async fn five_hundred_parents_cost_one_question_for_each_related_table() {
        let fixture = ScriptedFixture::new(None);
        let orders = TableDef::new("orders", 1, &[("id", ColumnKind::Int), ("note", ColumnKind::Text)]);
        let lines = [("order_id", ColumnKind::Int), ("id", ColumnKind::Int), ("product", ColumnKind::Int)];
        let lines = TableDef::new("lines", 2, &lines);
        let products = TableDef::new("products", 1, &[("id", ColumnKind::Int), ("name", ColumnKind::Text)]);
        fixture.reset(&[orders, lines, products]).await.unwrap();
        let mut ops: Vec<Op> =
            (0..20).map(|n| Op::insert("products", &[Cell::Int(n), Cell::text(&format!("product {n}"))])).collect();
        for order in 0..500 {
            ops.push(Op::insert("orders", &[Cell::Int(order), Cell::text("-")]));
            for line in 0..3 {
                let id = order * 3 + line;
                ops.push(Op::insert("lines", &[Cell::Int(order), Cell::Int(id), Cell::Int(id % 20)]));
            }
        }
        fixture.apply(&ops).await.unwrap();
        let connector = Counting(fixture.connector(), AtomicUsize::new(0));
        let catalogue = connector.discover(&[]).await.unwrap();
        let pack = Pack::parse("orders.toml", PACK, None, None).unwrap();
        let schema = &catalogue[0].table.schema;
        let (mapping, _) =
            compile(&pack, &catalogue, schema, None, &CompileOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        let requests = mapping.requests();
        let rule = &mapping.rules[0];
        let own = requests.iter().find(|request| request.table == rule.table).unwrap();
        let page = connector.snapshot_chunk(own, None, 1000).await.unwrap();
        assert_eq!(page.rows.len(), 500);
        let made = Gatherer::new(&connector, &requests).records(rule, &page.schema, &page.rows).await.unwrap();
        assert_eq!(made.len(), 500);
        for record in made {
            let Applied::Upsert { document, .. } = record else { panic!("{record:?}") };
            let json: serde_json::Value = serde_json::from_slice(document.json()).unwrap();
            assert_eq!((json["count"].as_i64(), json["lines"].as_array().map(Vec::len)), (Some(3), Some(3)));
        }
        assert_eq!(connector.1.load(Ordering::Relaxed), 2);
    }
}
