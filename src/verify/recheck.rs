//! Looking again at what differed: both sides move, and the CRM follows with a lag.

use super::expected::{Bound, Expected, What, each_record, rules};
use super::{
    Candidate, EntityReport, Kind, Options, Progress, Sample, Side, Verdict, fields_of, judge, leaves_records_behind,
    list,
};
use crate::command::Repair;
use crate::crm::StoredRecord;
use crate::error::Result;
use crate::exact::{Fields, Json};
use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use tidemark_contract::{Row, RowKey};

/// Keys read from the source at once.
const KEYS: usize = 200;
/// Records asked for at once when single ones are looked for: neighbours often differ together.
const NEAR: usize = 50;

/// One candidate as it is now.
struct Look {
    candidate: Candidate,
    /// What its row makes of it now; empty if the row is gone or outside the rule.
    rows: Vec<Expected>,
    record: Option<StoredRecord>,
    verdict: Verdict,
}

impl Look {
    /// A hash of both sides, to see whether either has moved.
    fn state(&self) -> u64 {
        let mut hash = DefaultHasher::new();
        for row in &self.rows {
            (row.rule, &row.key).hash(&mut hash);
            match &row.what {
                What::Document { json, .. } => json.hash(&mut hash),
                What::Unmappable { code, about } => (code, about).hash(&mut hash),
                What::Outside => {}
            }
        }
        if let Some(record) = &self.record {
            format!("{:?}", record.fields).hash(&mut hash);
        }
        hash.finish()
    }
}

/// Looks at `candidates` until they are equal, the looks are used up, or nobody works on what differs any more: both sides
/// are as they were at the look before, and between the two the daemon had nothing left to do. What is left goes into the
/// report.
pub async fn settle(
    side: &Side<'_>,
    entity: &str,
    mut candidates: Vec<Candidate>,
    report: &mut EntityReport,
    repairs: &mut Vec<Repair>,
    options: &Options,
    progress: &dyn Progress,
) -> Result<()> {
    let mut looks: Vec<Look> = Vec::new();
    for round in 0..options.looks.max(1) {
        if candidates.is_empty() {
            break;
        }
        progress.looking_again(entity, candidates.len());
        if round > 0 || options.looks > 1 {
            tokio::time::sleep(options.wait).await;
        }
        // A row that came after we read its table made a record that looked extra: find out what makes it.
        if round == 1 && candidates.iter().any(|c| c.origin.is_none()) {
            find_origins(side, entity, &mut candidates, progress).await?;
        }
        let is_idle = match side.daemon {
            Some(daemon) => daemon.has_caught_up().await,
            None => false,
        };
        let before = candidates.len();
        let seen: HashMap<Box<str>, u64> =
            looks.iter().map(|look| (look.candidate.external_id.clone(), look.state())).collect();
        looks = look(side, entity, candidates).await?;
        looks.retain(|look| !matches!(look.verdict, Verdict::Equal));
        let settled = (before - looks.len()) as u64;
        report.settled += settled;
        report.equal += settled;
        let lasts = |look: &mut Look| is_idle && seen.get(&look.candidate.external_id) == Some(&look.state());
        for look in looks.extract_if(.., lasts) {
            conclude(side, entity, look, report, repairs, options)?;
        }
        candidates = looks
            .iter()
            .map(|l| Candidate { external_id: l.candidate.external_id.clone(), origin: l.candidate.origin.clone() })
            .collect();
    }
    for look in looks {
        conclude(side, entity, look, report, repairs, options)?;
    }
    Ok(())
}

/// Both sides of each candidate as they are now: the rows first, so that what the CRM has is not older than them.
async fn look(side: &Side<'_>, entity: &str, mut candidates: Vec<Candidate>) -> Result<Vec<Look>> {
    candidates.sort_by(|a, b| a.external_id.as_bytes().cmp(b.external_id.as_bytes()));
    let mut rows = rows_now(side, &candidates).await?;
    let mut near = Near::new(side, entity);
    let mut out = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        let record = near.find(&candidate.external_id).await?;
        let rows: Vec<Expected> = rows
            .remove(&candidate.external_id)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(id, expected)| {
                (id.as_deref().is_none_or(|id| *id == *candidate.external_id)).then_some(expected)
            })
            .collect();
        let mut verdict = match (&rows[..], &record) {
            ([], None) => Verdict::Equal,
            ([], Some(_)) => Verdict::Different(Vec::new()),
            (rows, record) => judge(rows, record.as_ref())?,
        };
        if let (Verdict::Different(fields), Some(record)) = (&mut verdict, &record)
            && !rows.is_empty()
        {
            forgive_missing_parents(side, &rows, record, fields).await?;
            if fields.is_empty() {
                verdict = Verdict::Equal;
            }
        }
        out.push(Look { candidate, rows, record, verdict });
    }
    Ok(out)
}

type Now = BTreeMap<Box<str>, Vec<(Option<Box<str>>, Expected)>>;

/// What the candidates' rows make of them now, by the candidate's external id.
async fn rows_now(side: &Side<'_>, candidates: &[Candidate]) -> Result<Now> {
    let mut out = Now::new();
    for request in side.mapping.requests() {
        let rules: Vec<_> = rules(side.mapping, &request, &entities_of(side));
        let mut bound = Bound::default();
        let wanted: Vec<(&Candidate, u16, &RowKey)> = candidates
            .iter()
            .filter_map(|c| c.origin.as_ref().map(|(rule, key)| (c, *rule, key)))
            .filter(|(_, rule, _)| rules.iter().any(|r| r.id.0 == *rule))
            .collect();
        for part in wanted.chunks(KEYS) {
            let keys: Vec<RowKey> = part.iter().map(|(_, _, key)| (*key).clone()).collect();
            let fetched = side.connector.fetch_rows(&request, &keys).await?;
            let bound = bound.to(&rules, &fetched.schema)?;
            for (rule, bound) in rules.iter().zip(bound) {
                let of_rule = part.iter().zip(&fetched.rows).filter(|((_, number, _), _)| *number == rule.id.0);
                let (candidates, rows): (Vec<&Candidate>, Vec<Row>) =
                    of_rule.filter_map(|((candidate, ..), row)| Some((*candidate, row.clone()?))).unzip();
                let made = Expected::of(side, rule, bound, &fetched.schema, &rows).await?;
                for (candidate, made) in candidates.into_iter().zip(made) {
                    if let Some(made) = made.filter(|(_, made)| !matches!(made.what, What::Outside)) {
                        out.entry(candidate.external_id.clone()).or_default().push(made);
                    }
                }
            }
        }
    }
    Ok(out)
}

fn entities_of(side: &Side<'_>) -> Vec<Box<str>> {
    side.mapping.rules.iter().map(|rule| rule.entity.clone()).collect()
}

/// Reads the entity's tables once more for the rows that make these records.
async fn find_origins(
    side: &Side<'_>,
    entity: &str,
    candidates: &mut [Candidate],
    progress: &dyn Progress,
) -> Result<()> {
    let mut unknown: BTreeMap<Box<str>, &mut Candidate> =
        candidates.iter_mut().filter(|c| c.origin.is_none()).map(|c| (c.external_id.clone(), c)).collect();
    each_record(side, &[entity.into()], progress, |_, id, expected| {
        let outside = matches!(expected.what, What::Outside);
        if let Some(candidate) = id.and_then(|id| unknown.get_mut(&id)).filter(|_| !outside) {
            candidate.origin = Some((expected.rule, expected.key));
        }
        Ok(())
    })
    .await
}

/// A reference that the rule sets to null while the parent is missing is right as null if the parent is missing.
async fn forgive_missing_parents(
    side: &Side<'_>,
    rows: &[Expected],
    record: &StoredRecord,
    fields: &mut Vec<String>,
) -> Result<()> {
    let optional = rows.iter().filter_map(|row| match &row.what {
        What::Document { optional, .. } => Some(optional),
        What::Unmappable { .. } | What::Outside => None,
    });
    for (field, parent, id) in optional.flatten() {
        let is_null = record.fields.get(&**field).unwrap_or(&Json::Null).is_null();
        if is_null && fields.iter().any(|f| **f == **field) && Near::new(side, parent).find(id).await?.is_none() {
            fields.retain(|f| **f != **field);
        }
    }
    Ok(())
}

/// Finds records by external id through the listing, going up.
struct Near<'a> {
    side: &'a Side<'a>,
    entity: &'a str,
    /// A stretch of the listing: everything after `.0` up to the last record, or to the end if `.2`.
    known: Option<(String, Vec<StoredRecord>, bool)>,
}

impl<'a> Near<'a> {
    fn new(side: &'a Side<'a>, entity: &'a str) -> Self {
        Self { side, entity, known: None }
    }

    async fn find(&mut self, id: &str) -> Result<Option<StoredRecord>> {
        let covered = self.known.as_ref().is_some_and(|(after, records, to_end)| {
            after.as_bytes() < id.as_bytes()
                && (*to_end || records.last().is_some_and(|last| id.as_bytes() <= last.external_id.as_bytes()))
        });
        if !covered {
            let after = just_before(id);
            let page =
                list(self.side.crm, self.entity, Some(&after).filter(|a| !a.is_empty()).map(String::as_str), NEAR)
                    .await?;
            self.known = Some((after, page.records, page.next.is_none()));
        }
        Ok(self.known.as_ref().and_then(|(_, records, _)| records.iter().find(|r| *r.external_id == *id).cloned()))
    }
}

/// A text that sorts before `id` with next to nothing between them.
fn just_before(id: &str) -> String {
    let mut out: Vec<char> = id.chars().collect();
    let Some(last) = out.pop() else { return String::new() };
    // The character before it, over the gap where none are.
    let before = (0..u32::from(last)).rev().take(0x0900).find_map(char::from_u32);
    if let Some(before) = before {
        out.push(before);
        out.push(char::MAX);
    }
    out.into_iter().collect()
}

/// Puts what keeps differing into the report.
fn conclude(
    side: &Side<'_>,
    entity: &str,
    look: Look,
    report: &mut EntityReport,
    repairs: &mut Vec<Repair>,
    options: &Options,
) -> Result<()> {
    let Look { candidate, rows, record, verdict } = look;
    let mut fields = Vec::new();
    let kind = match verdict {
        Verdict::Equal => return Ok(()),
        _ if rows.is_empty() => {
            if leaves_records_behind(side.mapping, entity) {
                report.left_behind += 1;
                return Ok(());
            }
            report.extra += 1;
            Kind::Extra
        }
        Verdict::Missing => {
            report.missing += 1;
            Kind::Missing
        }
        Verdict::Different(names) => {
            report.different += 1;
            fields = names;
            Kind::Different
        }
        Verdict::Unmappable(code) => {
            report.unmappable += 1;
            fields.push(code.into());
            Kind::Unmappable
        }
        Verdict::Contradictory(names) => {
            report.contradictory += 1;
            fields = names;
            Kind::Contradictory
        }
    };
    let rule = candidate.origin.as_ref().and_then(|(rule, _)| side.mapping.rules.get(usize::from(*rule)));
    match (kind, rule, &candidate.origin) {
        (Kind::Extra, _, _) => {
            repairs.push(Repair::Extra { entity: entity.into(), external_id: candidate.external_id.to_string() });
        }
        (_, Some(rule), Some((_, key))) => repairs.push(Repair::reread(&rule.name, key)),
        _ => {}
    }
    let (expected, found) = if options.show_values { values(&rows, record.as_ref(), &fields)? } else { (None, None) };
    let sample = Sample {
        kind,
        external_id: Some(candidate.external_id.into()),
        rule: rule.map(|rule| rule.name.to_string()),
        fields,
        expected,
        found,
    };
    report.sample(options.samples, sample);
    Ok(())
}

type Values = Option<Fields>;

/// Both sides of the fields that differ.
fn values(rows: &[Expected], record: Option<&StoredRecord>, fields: &[String]) -> Result<(Values, Values)> {
    let tops: Vec<&str> = fields.iter().map(|f| f.split('.').next().unwrap_or(f)).collect();
    let chosen = |all: &Fields| -> Fields {
        all.iter()
            .filter(|(name, _)| tops.is_empty() || tops.contains(&&***name))
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect()
    };
    let mut expected = Fields::new();
    for row in rows {
        if let What::Document { json, .. } = &row.what {
            expected.extend(chosen(&fields_of(json)?));
        }
    }
    Ok((Some(expected), record.map(|record| chosen(&record.fields))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_occurs_lies_between() {
        for (id, near) in [("cust-ALFKI", "cust-ALFKH"), ("17", "16"), ("a", "`"), ("é", "è"), ("\u{e000}", "\u{d7ff}")]
        {
            let before = just_before(id);
            assert!(before.as_bytes() < id.as_bytes(), "{id}");
            assert!(before.as_bytes() > near.as_bytes() && before.starts_with(near), "{id}: {before}");
        }
        assert_eq!(just_before(""), "");
        assert_eq!(just_before("\0"), "");
    }
}
