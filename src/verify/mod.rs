//! Is the CRM what the mapping makes of the source (P3)? Reads both sides whole and compares every mapped field.
//!
//! 1. Every table is read in pages by key, as a snapshot does, and mapped; the records are sorted by external id on disk,
//!    so that memory stays bounded (P7).
//! 2. Each entity is listed from the CRM in the order of external ids and merged with them.
//! 3. Things move while we look. What differs is looked at again by key, a few times if a daemon is at work: only what
//!    keeps differing is a difference.
//!
//! Nothing is written to either side. What is wrong can be handed to the daemon as [`Repair`]s.

pub(crate) mod compare;
pub(crate) mod expected;
mod recheck;
pub(crate) mod sort;
#[cfg(test)]
mod tests;

use crate::command::Repair;
use crate::crm::{Crm, CrmErrorKind, Page, StoredRecord};
use crate::error::{DaemonKind, Error, Result};
use crate::exact::{Fields, Json};
use crate::mapping::{Mapping, Removal};
use expected::{Expected, Source, What, WithoutId};
use serde::Serialize;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tidemark_contract::{Connector, RowKey};

/// So many differences are looked at again; more are taken as they are.
const MAX_CANDIDATES: usize = 50_000;
/// Records of one CRM page.
const PAGE: usize = 1000;

/// The two sides and what is between them.
pub struct Side<'a> {
    /// The source.
    pub connector: &'a dyn Connector,
    /// The CRM.
    pub crm: &'a dyn Crm,
    /// The mapping, compiled against both.
    pub mapping: &'a Mapping,
    /// Rows of one page of a table.
    pub chunk_rows: usize,
    /// The daemon between them, if it runs.
    pub daemon: Option<&'a dyn Daemon>,
}

/// The daemon, as far as comparing has to know of it.
#[async_trait::async_trait]
pub trait Daemon: Sync {
    /// Whether it says that it has nothing left to do: what differs then differs for good.
    async fn has_caught_up(&self) -> bool;
}

/// How to compare.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only these entities; empty is all.
    pub entities: Vec<String>,
    /// Differences of each kind and entity to describe.
    pub samples: usize,
    /// Whether samples show field values.
    pub show_values: bool,
    /// How often at most to look again at what differs, and how long to wait before each. What stays as it is while the
    /// daemon says that it has caught up is not looked at any more.
    pub looks: u32,
    /// See `looks`.
    pub wait: Duration,
    /// Where temporary files go. They have no names and are gone with the process.
    pub dir: PathBuf,
    /// About how many bytes to hold in memory.
    pub memory: usize,
}

/// Hears how far it is.
pub trait Progress: Sync {
    /// So many rows of `table` were read.
    fn reading(&self, table: &str, rows: u64, estimate: Option<u64>);
    /// So many records of `entity` were compared.
    fn comparing(&self, entity: &str, records: u64);
    /// So many differences are looked at again.
    fn looking_again(&self, entity: &str, left: usize);
}

/// What was found. Version 1 of the JSON form.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// Version of the JSON form.
    pub schema: u32,
    /// Whether the CRM is what it should be.
    pub equal: bool,
    /// How long it took.
    pub seconds: f64,
    /// By entity.
    pub entities: Vec<EntityReport>,
    /// What would bring it in order. Not part of the JSON form: it holds keys.
    #[serde(skip)]
    pub repairs: Vec<Repair>,
}

/// One entity.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct EntityReport {
    /// Its name.
    pub entity: String,
    /// Records that the source makes.
    pub expected: u64,
    /// Records that the CRM has.
    pub found: u64,
    /// Records that are as they should be.
    pub equal: u64,
    /// Records that the CRM lacks.
    pub missing: u64,
    /// Records with a field that is not as it should be.
    pub different: u64,
    /// Records of the CRM that no row makes.
    pub extra: u64,
    /// Records of the CRM that no row makes, of an entity where a rule leaves the records of deleted rows in place.
    pub left_behind: u64,
    /// Rows that cannot be mapped: their records are dead letters.
    pub unmappable: u64,
    /// Records that more than one row makes, with fields that contradict each other.
    pub contradictory: u64,
    /// Records that differed at first and were equal when looked at again.
    pub settled: u64,
    /// Some differences.
    pub samples: Vec<Sample>,
}

impl EntityReport {
    /// Whether the entity is as it should be.
    pub fn is_equal(&self) -> bool {
        self.missing + self.different + self.extra + self.unmappable + self.contradictory == 0
    }

    fn sample(&mut self, limit: usize, sample: Sample) {
        if self.samples.iter().filter(|s| s.kind == sample.kind).count() < limit {
            self.samples.push(sample);
        }
    }
}

/// How a record is not as it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The CRM lacks it.
    Missing,
    /// A field is not as it should be.
    Different,
    /// No row makes it.
    Extra,
    /// Its row cannot be mapped.
    Unmappable,
    /// Its rows contradict each other.
    Contradictory,
}

/// One difference.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Sample {
    /// How it is wrong.
    pub kind: Kind,
    /// The record's external id, if it could be computed.
    pub external_id: Option<String>,
    /// The rule that makes it.
    pub rule: Option<String>,
    /// The fields that differ; for a row that cannot be mapped, the reason's code.
    pub fields: Vec<String>,
    /// What the fields should be, if values were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<Fields>,
    /// What the CRM has, if values were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<Fields>,
}

/// A record that differed when it was first looked at.
struct Candidate {
    external_id: Box<str>,
    /// What made it; nothing made an extra one.
    origin: Option<(u16, RowKey)>,
}

/// Compares.
///
/// # Errors
/// If a side cannot be read, or the CRM does not list its records as the contract says.
pub async fn verify(side: &Side<'_>, options: &Options, progress: &dyn Progress) -> Result<Report> {
    let begun = Instant::now();
    let entities = entities(side.mapping, &options.entities)?;
    let mut sources = expected::read(side, &entities, &options.dir, options.memory, false, progress).await?;
    let mut reports = Vec::new();
    let mut repairs = Vec::new();
    for entity in &entities {
        let Some(source) = sources.remove(entity) else { continue };
        let (mut report, candidates) = merge(side, entity, source, options, progress).await?;
        recheck::settle(side, entity, candidates, &mut report, &mut repairs, options, progress).await?;
        reports.push(report);
    }
    Ok(Report {
        schema: 1,
        equal: reports.iter().all(EntityReport::is_equal),
        seconds: begun.elapsed().as_secs_f64(),
        entities: reports,
        repairs,
    })
}

/// The entities to compare, in the mapping's order.
pub(crate) fn entities(mapping: &Mapping, chosen: &[String]) -> Result<Vec<Box<str>>> {
    let mut all: Vec<Box<str>> = Vec::new();
    for rule in &mapping.rules {
        if !all.contains(&rule.entity) {
            all.push(rule.entity.clone());
        }
    }
    for name in chosen {
        if !all.iter().any(|entity| **entity == **name) {
            return Err(Error::new(DaemonKind::Usage, format!("the mapping feeds no entity {name}"))
                .hint(format!("it feeds: {}", all.join(", "))));
        }
    }
    all.retain(|entity| chosen.is_empty() || chosen.iter().any(|name| **name == **entity));
    Ok(all)
}

/// Goes through both sides of an entity side by side. What is equal is counted; the rest comes back to be looked at
/// again.
async fn merge(
    side: &Side<'_>,
    entity: &str,
    mut source: Source,
    options: &Options,
    progress: &dyn Progress,
) -> Result<(EntityReport, Vec<Candidate>)> {
    let mut report = EntityReport { entity: entity.into(), ..EntityReport::default() };
    if let Some(WithoutId { rows, rule, code, .. }) = source.without_id.take() {
        report.unmappable = rows;
        let fields = vec![code.into()];
        let sample = Sample {
            kind: Kind::Unmappable,
            external_id: None,
            rule: Some(rule.into()),
            fields,
            expected: None,
            found: None,
        };
        report.sample(options.samples, sample);
    }
    let mut candidates = Vec::new();
    let mut listing = Listing::new(side.crm, entity);
    let mut found = listing.next().await?;
    loop {
        let order = match (source.records.peek(), &found) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(id), Some(record)) => id.as_bytes().cmp(record.external_id.as_bytes()),
        };
        let record = if order.is_ge() { found.take() } else { None };
        if record.is_some() {
            report.found += 1;
            found = listing.next().await?;
        }
        let rows = if order.is_le() { source.records.pop()? } else { None };
        let differs = match (&rows, &record) {
            (Some((id, all)), record) => {
                report.expected += 1;
                let verdict = judge(all, record.as_ref())?;
                if let Verdict::Equal = verdict { None } else { Some((id.clone(), origin(all))) }
            }
            (None, Some(record)) => Some((record.external_id.clone(), None)),
            (None, None) => None,
        };
        match differs {
            None => report.equal += 1,
            Some((external_id, origin)) if candidates.len() < MAX_CANDIDATES => {
                candidates.push(Candidate { external_id, origin });
            }
            // Too many to be the work of moments.
            Some((_, None)) => report.extra += 1,
            Some((_, Some(_))) if record.is_none() => report.missing += 1,
            Some(_) => report.different += 1,
        }
        let seen = report.found.max(report.expected);
        if seen.is_multiple_of(500) {
            progress.comparing(entity, seen);
        }
    }
    progress.comparing(entity, report.found.max(report.expected));
    Ok((report, candidates))
}

fn origin(all: &[Expected]) -> Option<(u16, RowKey)> {
    all.first().map(|expected| (expected.rule, expected.key.clone()))
}

/// How a record compares with what its rows make of it.
enum Verdict {
    Equal,
    Missing,
    /// These fields differ.
    Different(Vec<String>),
    /// The row cannot be mapped.
    Unmappable(Box<str>),
    /// Rows contradict each other in these fields.
    Contradictory(Vec<String>),
}

/// Compares a record with what its rows make of it. Several rows of different rules add up to one record.
fn judge(all: &[Expected], record: Option<&StoredRecord>) -> Result<Verdict> {
    let mut whole = Fields::new();
    for expected in all {
        let json = match &expected.what {
            What::Unmappable { code, .. } => return Ok(Verdict::Unmappable(code.clone())),
            What::Outside => continue,
            What::Document { json, .. } => json,
        };
        let fields = fields_of(json)?;
        let contradictions = compare::differences(
            &fields.iter().filter(|(name, _)| whole.contains_key(*name)).map(|(n, v)| (n.clone(), v.clone())).collect(),
            &whole,
        );
        if !contradictions.is_empty() {
            return Ok(Verdict::Contradictory(contradictions));
        }
        whole.extend(fields);
    }
    let Some(record) = record else { return Ok(Verdict::Missing) };
    let different = compare::differences(&whole, &record.fields);
    Ok(if different.is_empty() { Verdict::Equal } else { Verdict::Different(different) })
}

pub(crate) fn fields_of(json: &[u8]) -> Result<Fields> {
    Json::fields(json).ok_or_else(|| Error::new(DaemonKind::Bug, "a document is no JSON object"))
}

/// Whether some rule leaves the record of a row that is gone in the CRM.
fn leaves_records_behind(mapping: &Mapping, entity: &str) -> bool {
    mapping
        .rules
        .iter()
        .any(|rule| *rule.entity == *entity && (rule.on_delete != Removal::Delete || rule.on_leave != Removal::Delete))
}

/// The CRM's records of one entity, page by page, in strict order.
pub(crate) struct Listing<'a> {
    crm: &'a dyn Crm,
    entity: &'a str,
    page: std::vec::IntoIter<StoredRecord>,
    after: Option<Box<str>>,
    last: Option<Box<str>>,
    ended: bool,
}

impl<'a> Listing<'a> {
    /// The listing of `entity`, from its beginning.
    pub(crate) fn new(crm: &'a dyn Crm, entity: &'a str) -> Self {
        Self { crm, entity, page: Vec::new().into_iter(), after: None, last: None, ended: false }
    }

    /// The next record.
    ///
    /// # Errors
    /// If the CRM cannot be read, or its order is not the contract's.
    pub(crate) async fn next(&mut self) -> Result<Option<StoredRecord>> {
        loop {
            if let Some(record) = self.page.next() {
                if self.last.as_ref().is_some_and(|last| last.as_bytes() >= record.external_id.as_bytes()) {
                    let message = format!("the CRM does not list {} in the byte order of external ids", self.entity);
                    return Err(Error::new(CrmErrorKind::Contract, message)
                        .hint("GET /v1/{entity} has to sort by bytes, not by the database's collation"));
                }
                self.last = Some(record.external_id.clone());
                return Ok(Some(record));
            }
            if self.ended {
                return Ok(None);
            }
            let page = list(self.crm, self.entity, self.after.as_deref(), PAGE).await?;
            self.ended = page.next.is_none();
            self.after = page.next;
            self.page = page.records.into_iter();
        }
    }
}

/// A page of the CRM; what another try may mend is tried again, at the CRM's own pace.
async fn list(crm: &dyn Crm, entity: &str, after: Option<&str>, limit: usize) -> Result<Page> {
    let mut attempt: u32 = 0;
    loop {
        match crm.list(entity, after, limit).await {
            Err(error)
                if attempt < 8
                    && matches!(
                        error.kind,
                        CrmErrorKind::Unavailable | CrmErrorKind::Unknown | CrmErrorKind::Throttled
                    ) =>
            {
                attempt += 1;
                let wait = error.retry_after.unwrap_or(Duration::from_millis(200 << attempt.min(6)));
                tracing::warn!(%error, attempt, "the CRM is asked again");
                tokio::time::sleep(wait).await;
            }
            other => return Ok(other?),
        }
    }
}

fn failed(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::new(DaemonKind::Failed, format!("cannot {what}")).caused_by(error)
}
