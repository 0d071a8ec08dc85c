//! What the mapping makes of the source, record by record, in the CRM's own order.

use super::sort::{Item, Sorted, Sorter};
use super::{Progress, Side, failed};
use crate::error::{DaemonKind, Error, Result};
use crate::gather::Gatherer;
use crate::mapping::{Applied, BoundRule, Mapping, Missing, Rule};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tidemark_contract::{Connector, ErrorKind, Row, RowKey, SnapshotChunk, TableRequest, TableSchema};

/// What one row makes of one record.
#[derive(Clone)]
pub struct Expected {
    /// Place of the rule in the mapping.
    pub rule: u16,
    /// The row's key.
    pub key: RowKey,
    /// What the record should be.
    pub what: What,
}

/// What a record should be.
#[derive(Clone)]
pub enum What {
    /// As this JSON object says. Fields that are references which the rule sets to null while the parent is missing are
    /// named.
    Document {
        /// The object's text.
        json: Box<[u8]>,
        /// Those references: field, and the parent's entity and external id.
        optional: Vec<(Box<str>, Box<str>, Box<str>)>,
    },
    /// The row cannot be mapped: the CRM may hold an older state, or nothing.
    Unmappable {
        /// Stable word for the reason.
        code: Box<str>,
        /// The field and the expression's place, in words without values.
        about: Box<str>,
    },
    /// The row is outside the rule's `where`: the record should not be there.
    Outside,
}

impl Expected {
    /// What a rule makes of rows that were read just now, one entry for each: `None` if the row is outside the rule
    /// and its external id cannot be computed. The external id is missing if it could not be computed.
    pub async fn of(
        side: &Side<'_>,
        rule: &Rule,
        bound: &BoundRule,
        schema: &Arc<TableSchema>,
        rows: &[Row],
    ) -> Result<Vec<Option<(Option<Box<str>>, Self)>>> {
        let records = if rule.relations.is_some() {
            Gatherer::new(side.connector, &side.mapping.requests()).records(rule, schema, rows).await?
        } else {
            rows.iter().map(|row| bound.apply(row)).collect()
        };
        rows.iter().zip(records).map(|(row, record)| Self::from(rule, schema, row, record)).collect()
    }

    fn from(rule: &Rule, schema: &TableSchema, row: &Row, record: Applied) -> Result<Option<(Option<Box<str>>, Self)>> {
        let bug = |what: &str| Error::new(DaemonKind::Bug, format!("rule {}: {what}", rule.name));
        let key = RowKey::of(row, &schema.key).ok_or_else(|| bug("a row was read without its key"))?;
        let expected = |what| Self { rule: rule.id.0, key, what };
        Ok(match record {
            Applied::Upsert { external_id, document, references } => {
                let optional = references
                    .into_iter()
                    .filter(|r| r.missing == Missing::Null)
                    .map(|r| (r.field, r.entity, r.external_id))
                    .collect();
                Some((Some(external_id), expected(What::Document { json: document.json().into(), optional })))
            }
            Applied::Outside { external_id } => external_id.map(|id| (Some(id), expected(What::Outside))),
            Applied::NeedsRow => return Err(bug("a whole row was not enough to apply it")),
            Applied::Rejected(why) => {
                let field = why.field.map(|field| format!("{field}: ")).unwrap_or_default();
                let about = format!("{field}{}", why.message).into();
                Some((why.external_id, expected(What::Unmappable { code: why.code.into(), about })))
            }
        })
    }

    fn encode(&self) -> Box<[u8]> {
        let mut out = Vec::with_capacity(64);
        out.extend_from_slice(&self.rule.to_le_bytes());
        put(&mut out, self.key.as_bytes());
        match &self.what {
            What::Unmappable { code, about } => {
                out.push(1);
                put(&mut out, code.as_bytes());
                put(&mut out, about.as_bytes());
            }
            What::Outside => out.push(2),
            What::Document { json, optional } => {
                out.push(0);
                put(&mut out, json);
                for (field, entity, id) in optional {
                    for part in [field, entity, id] {
                        put(&mut out, part.as_bytes());
                    }
                }
            }
        }
        out.into()
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let (rule, rest) = bytes.split_first_chunk::<2>()?;
        bytes = rest;
        let key = RowKey::from_bytes(take(&mut bytes)?)?;
        let (kind, rest) = bytes.split_first()?;
        bytes = rest;
        let text = |bytes: &[u8]| -> Option<Box<str>> { Some(std::str::from_utf8(bytes).ok()?.into()) };
        let what = match kind {
            2 => What::Outside,
            1 => What::Unmappable { code: text(take(&mut bytes)?)?, about: text(take(&mut bytes)?)? },
            _ => {
                let json = take(&mut bytes)?.into();
                let mut optional = Vec::new();
                while !bytes.is_empty() {
                    optional.push((text(take(&mut bytes)?)?, text(take(&mut bytes)?)?, text(take(&mut bytes)?)?));
                }
                What::Document { json, optional }
            }
        };
        Some(Self { rule: u16::from_le_bytes(*rule), key, what })
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    // Longer than 4 GiB is no row; the sorter refuses it.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    *bytes = rest;
    Some(part)
}

/// All records that the source makes of one entity, in the byte order of their external ids.
pub struct Records {
    sorted: Sorted,
    next: Option<(Box<str>, Expected)>,
}

impl Records {
    fn over(sorted: Sorted) -> Result<Self> {
        let mut this = Self { sorted, next: None };
        this.next = this.read()?;
        Ok(this)
    }

    fn read(&mut self) -> Result<Option<(Box<str>, Expected)>> {
        let Some(item) = self.sorted.next() else { return Ok(None) };
        let item = item.map_err(failed("read a temporary file"))?;
        let id = std::str::from_utf8(&item.key).ok().map(Into::into);
        match (id, Expected::decode(&item.body)) {
            (Some(id), Some(expected)) => Ok(Some((id, expected))),
            _ => Err(Error::new(DaemonKind::Bug, "a temporary file was not read as it was written")),
        }
    }

    /// The external id of the next record.
    pub fn peek(&self) -> Option<&str> {
        self.next.as_ref().map(|(id, _)| &**id)
    }

    /// The next record with everything that rows make of it: usually one row.
    pub fn pop(&mut self) -> Result<Option<(Box<str>, Vec<Expected>)>> {
        let Some((id, first)) = self.next.take() else { return Ok(None) };
        let mut all = vec![first];
        self.next = self.read()?;
        while let Some((_, more)) = self.next.take_if(|(next, _)| *next == id) {
            all.push(more);
            self.next = self.read()?;
        }
        Ok(Some((id, all)))
    }
}

/// What reading the source gave for one entity.
pub struct Source {
    /// Its records.
    pub records: Records,
    /// Rows of which not even the external id can be computed, if there are any.
    pub without_id: Option<WithoutId>,
}

/// Rows of which not even the external id can be computed.
pub struct WithoutId {
    /// How many.
    pub rows: u64,
    /// The rule of the first of them.
    pub rule: Box<str>,
    /// The reason's code.
    pub code: Box<str>,
    /// The reason in words.
    pub about: Box<str>,
}

/// Reads every table that feeds one of `entities`, holding about `memory` bytes. Rows outside their rule are left out
/// unless they are asked for.
pub async fn read(
    side: &Side<'_>,
    entities: &[Box<str>],
    dir: &Path,
    memory: usize,
    with_outside: bool,
    progress: &dyn Progress,
) -> Result<BTreeMap<Box<str>, Source>> {
    let budget = memory / entities.len().max(1);
    let mut sorters: BTreeMap<Box<str>, Sorter> =
        entities.iter().map(|entity| (entity.clone(), Sorter::new(dir, budget))).collect();
    let mut without_id: BTreeMap<Box<str>, WithoutId> = BTreeMap::new();
    each_record(side, entities, progress, |rule, id, expected| {
        let Some(sorter) = sorters.get_mut(&rule.entity) else { return Ok(()) };
        match (id, &expected.what) {
            (_, What::Outside) if !with_outside => Ok(()),
            (Some(id), _) => sorter
                .push(Item { key: id.as_bytes().into(), body: expected.encode() })
                .map_err(failed("write a temporary file")),
            (None, What::Unmappable { code, about }) => {
                let (code, about) = (code.clone(), about.clone());
                let first = || WithoutId { rows: 0, rule: rule.name.clone(), code, about };
                without_id.entry(rule.entity.clone()).or_insert_with(first).rows += 1;
                Ok(())
            }
            (None, What::Document { .. } | What::Outside) => {
                Err(Error::new(DaemonKind::Bug, "a record without an external id"))
            }
        }
    })
    .await?;
    let mut out = BTreeMap::new();
    for (entity, sorter) in sorters {
        let records = Records::over(sorter.finish().map_err(failed("read a temporary file"))?)?;
        let without_id = without_id.remove(&entity);
        out.insert(entity, Source { records, without_id });
    }
    Ok(out)
}

/// Hands over what each row of the tables that feed `entities` makes of each of their records.
pub async fn each_record(
    side: &Side<'_>,
    entities: &[Box<str>],
    progress: &dyn Progress,
    mut f: impl FnMut(&Rule, Option<Box<str>>, Expected) -> Result<()>,
) -> Result<()> {
    for request in side.mapping.requests() {
        let rules = rules(side.mapping, &request, entities);
        if rules.is_empty() {
            continue;
        }
        let estimate = side.connector.estimate_rows(&request.table).await.unwrap_or(None);
        let mut bound = Bound::default();
        let (mut after, mut rows) = (None, 0);
        loop {
            let chunk = chunk(side.connector, &request, after.as_ref(), side.chunk_rows).await?;
            for (rule, bound) in rules.iter().zip(bound.to(&rules, &chunk.schema)?) {
                let records = Expected::of(side, rule, bound, &chunk.schema, &chunk.rows).await?;
                for (id, expected) in records.into_iter().flatten() {
                    f(rule, id, expected)?;
                }
            }
            rows += chunk.rows.len() as u64;
            progress.reading(&request.table.to_string(), rows, estimate);
            match chunk.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
    }
    Ok(())
}

/// The rules that read this table for one of `entities`.
pub fn rules<'m>(mapping: &'m Mapping, request: &TableRequest, entities: &[Box<str>]) -> Vec<&'m Rule> {
    mapping.rules.iter().filter(|rule| rule.table == request.table && entities.contains(&rule.entity)).collect()
}

/// Rules bound to a schema, bound again when it changes.
#[derive(Default)]
pub struct Bound {
    schema: Option<Arc<TableSchema>>,
    rules: Vec<BoundRule>,
}

impl Bound {
    /// `rules`, bound to `schema`. Always called with the same rules.
    pub fn to(&mut self, rules: &[&Rule], schema: &Arc<TableSchema>) -> Result<&[BoundRule]> {
        if !self.schema.as_ref().is_some_and(|old| Arc::ptr_eq(old, schema)) {
            self.rules = rules
                .iter()
                .map(|rule| {
                    rule.bind(schema).map_err(|why| {
                        let message = format!("rule {} does not fit {}: {why}", rule.name, schema.table);
                        Error::new(ErrorKind::SchemaChanged, message)
                    })
                })
                .collect::<Result<_>>()?;
            self.schema = Some(schema.clone());
        }
        Ok(&self.rules)
    }
}

/// A page, asked for again when the server could not be reached.
async fn chunk(
    connector: &dyn Connector,
    request: &TableRequest,
    after: Option<&tidemark_contract::ScanCursor>,
    limit: usize,
) -> Result<SnapshotChunk> {
    let mut attempt = 0;
    loop {
        match connector.snapshot_chunk(request, after, limit).await {
            Err(error) if error.kind == ErrorKind::Unreachable && attempt < 5 => {
                attempt += 1;
                tracing::warn!(%error, attempt, "the source could not be reached; it is asked again");
                tokio::time::sleep(std::time::Duration::from_secs(attempt)).await;
            }
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_contract::{RowBuilder, Value};

    #[test]
    fn what_is_expected_survives_a_file() {
        let mut row = RowBuilder::default();
        row.push(Value::Int(7));
        let key = RowKey::of(&row.finish(), &[0]).expect("complete");
        let optional = vec![("a".into(), "account".into(), "x".into()), ("b".into(), "".into(), "ü".into())];
        let document = What::Document { json: br#"{"a":1}"#[..].into(), optional };
        let unmappable = What::Unmappable { code: "cast_failed".into(), about: "name: no number".into() };
        for what in [document, unmappable, What::Outside] {
            let expected = Expected { rule: 300, key: key.clone(), what };
            let back = Expected::decode(&expected.encode()).expect("our own");
            assert_eq!((back.rule, &back.key), (300, &key));
            assert_eq!(back.encode(), expected.encode());
        }
        assert!(Expected::decode(&[1, 0, 9, 9]).is_none());
    }
}
