//! Changes of related rows: which records show them, and the obligations to put those records together again.
//!
//! A changed row is a *trigger* of each rule that shows rows of its table. From the row a *way* leads to the rule's own
//! rows (`order_details.order_id` → `orders.order_id`), over as many hops as there are joins between them. If the last hop
//! names the own row's key, the record is known without asking; otherwise the source is asked which rows have these
//! values, page by page: a *fan-out*. One city may be shown by a hundred thousand contacts, so a fan-out is durable like
//! any other obligation, goes on only while few records wait to be put together, and costs one obligation per record
//! however many changes reach it meanwhile.
//!
//! The values by which a row is shown may themselves change (a line moves to another order): the former ones come from
//! the row before the change. Compiling a mapping makes sure that the log carries it, or that the values are part of the
//! key. If a change arrives without them all the same, all records of the rule are compared again.
//!
//! Only columns that the rule reads count: a change of others triggers nothing, where the log tells the row before.

use super::engine::{Engine, Event};
use crate::gather::key_without_null;
use crate::mapping::{Mapping, Related, Rule};
use crate::store::{Obligation, ObligationRef, Reason};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_contract::{
    ChangeEvent, ChangeOp, ErrorKind, Row, RowKey, ScanCursor, SnapshotChunk, TableId, TableSchema,
};

/// Values looked for in one fan-out.
const VALUES: usize = 200;
/// Rows found in one page of a fan-out.
const PAGE: usize = 2_000;
/// While so many obligations wait, fan-outs do not go on.
const WAITING: u64 = 10_000;
/// The store is asked for fan-outs this often when there were none.
const POLL: Duration = Duration::from_millis(250);

/// One step from a related row towards the rule's own row.
#[derive(Clone, Debug)]
struct Hop {
    /// Number of the table in which rows are looked for.
    table: usize,
    is_own: bool,
    /// They are those whose `left` columns equal the `right` columns of the row at hand.
    left: Vec<Box<str>>,
    right: Vec<Box<str>>,
}

/// A use of a table by a rule.
#[derive(Clone, Debug)]
pub(super) struct Trigger {
    rule: Arc<Rule>,
    /// The rule's name and that of the use, for obligations.
    name: String,
    /// Number of the related table, and of the rule's own.
    table: usize,
    own: usize,
    hops: Vec<Hop>,
    /// Columns that count.
    watched: Vec<Box<str>>,
}

/// All uses that send records again.
pub(super) fn triggers(mapping: &Mapping, rules: &[Arc<Rule>], tables: &HashMap<TableId, usize>) -> Vec<Trigger> {
    let mut out = Vec::new();
    for (id, &table) in tables {
        for (rule, uses) in mapping.related_to(id) {
            let Some(relations) = &rule.relations else { continue };
            let (Some(shared), Some(&own)) = (rules.get(usize::from(rule.id.0)), tables.get(&rule.table)) else {
                continue;
            };
            for related in uses.into_iter().filter(|related| relations.resends(*related)) {
                let (label, columns) = match related {
                    Related::Join(n) => (relations.joins[n].alias.to_string(), &relations.joins[n].columns),
                    Related::Child(n) => (relations.children[n].name.to_string(), &relations.children[n].columns),
                    Related::ChildJoin(n, m) => {
                        let (child, join) = (&relations.children[n], &relations.children[n].joins[m]);
                        (format!("{}.{}", child.name, join.alias), &join.columns)
                    }
                };
                let hops = relations.way(related).into_iter().filter_map(|hop| {
                    Some(Hop {
                        table: *tables.get(hop.table.unwrap_or(&rule.table))?,
                        is_own: hop.table.is_none(),
                        left: hop.on.iter().map(|pair| pair.left.clone()).collect(),
                        right: hop.on.iter().map(|pair| pair.right.clone()).collect(),
                    })
                });
                out.push(Trigger {
                    rule: shared.clone(),
                    name: format!("{}{MARK}{label}", rule.name),
                    table,
                    own,
                    hops: hops.collect(),
                    watched: columns.iter().map(|(name, _)| name.clone()).collect(),
                });
            }
        }
    }
    out
}

/// Stands between a rule's name and the rest in the name of a fan-out, and after the table's name.
const MARK: char = '>';

/// The rows that have these values are being looked for.
#[derive(Debug)]
struct Running {
    obligations: Vec<Obligation>,
    trigger: usize,
    hop: usize,
    keys: Vec<RowKey>,
    after: Option<ScanCursor>,
    is_reading: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct FanOut {
    running: Option<Running>,
    poll_at: Option<Instant>,
    retry_at: Option<Instant>,
}

impl FanOut {
    /// Look for due fan-outs at once.
    pub fn hurry(&mut self) {
        self.poll_at = None;
    }
}

impl Engine {
    /// A row that records of other rows may show was changed.
    pub(super) fn related_change(&mut self, table: usize, event: &ChangeEvent) {
        if self.triggers.is_empty() {
            return;
        }
        let mut reached = false;
        for number in 0..self.triggers.len() {
            if self.triggers[number].table == table {
                reached |= self.pull(number, event);
            }
        }
        if reached {
            // The change is settled once the obligations are durable.
            let ticket = self.ticket();
            self.steps.settle_after.push(ticket);
        }
    }

    /// All rows of a related table are gone.
    pub(super) fn related_truncated(&mut self, table: usize) {
        let owns: BTreeSet<usize> = self.triggers.iter().filter(|t| t.table == table).map(|t| t.own).collect();
        for own in owns {
            self.compare_again(own);
        }
    }

    /// All records of a table are compared with what the source has now; only differences are sent.
    fn compare_again(&mut self, own: usize) {
        if !matches!(self.tables[own].life, super::table::Life::Pending { .. }) {
            self.read_again(own, false);
        }
    }

    /// Returns whether something was put for the next step.
    fn pull(&mut self, number: usize, event: &ChangeEvent) -> bool {
        let trigger = &self.triggers[number];
        let schema = &event.schema;
        let Some(hop) = trigger.hops.first() else { return false };
        let (Some(right), Some(watched)) = (positions(schema, &hop.right), positions(schema, &trigger.watched)) else {
            // The table has lost a column: the schema's change has been answered already.
            return false;
        };
        let old = event.old.as_ref();
        if event.op == ChangeOp::Update
            && let Some(old) = old
            && watched.iter().all(|at| event.row.get(*at).is_unchanged() || event.row.get(*at) == old.get(*at))
        {
            return false;
        }
        let is_known = |row: &Row| right.iter().all(|at| !row.get(*at).is_unchanged());
        let key = &schema.key;
        // Without the row before, values in the key are as they were: another key is a delete and an insert (R5).
        let lacks = match event.op {
            ChangeOp::Insert => !is_known(&event.row),
            ChangeOp::Update => {
                !is_known(&event.row) || !old.map_or_else(|| right.iter().all(|at| key.contains(at)), is_known)
            }
            ChangeOp::Delete | ChangeOp::Truncate => !is_known(&event.row),
        };
        if lacks {
            let (own, related) = (trigger.own, self.tables[trigger.table].name.clone());
            tracing::warn!(
                table = related,
                rule = %trigger.rule.name,
                "the log does not tell which record showed this row; all records of the rule are compared again \
                 (PostgreSQL: set REPLICA IDENTITY FULL on the table)"
            );
            self.compare_again(own);
            return false;
        }
        let values: BTreeSet<RowKey> =
            [Some(&event.row), old].into_iter().flatten().filter_map(|row| key_without_null(row, &right)).collect();
        let any = !values.is_empty();
        for value in values {
            self.reach(number, 0, value);
        }
        any
    }

    /// Rows with these values are on the way: the record is known, or the source will be asked.
    fn reach(&mut self, number: usize, hop: usize, value: RowKey) {
        let trigger = &self.triggers[number];
        let Some(step) = trigger.hops.get(hop) else { return };
        let own = step.is_own.then(|| own_key(&self.tables[trigger.own].schema, &step.left, &value)).flatten();
        let rule = trigger.rule.clone();
        if let Some(key) = own {
            self.put_related(&rule, key);
            return;
        }
        let name = format!("{}{MARK}{hop}", trigger.name);
        if !self.steps.is_new_related(&name, &value) {
            return;
        }
        let now = i64::try_from(super::unix_ms()).unwrap_or(i64::MAX);
        self.steps.put_obligations.push(Obligation {
            rule: name,
            table: format!("{}{MARK}", self.tables[trigger.table].name),
            key: value,
            external_id: None,
            reason: Reason::Related,
            since: now,
            attempts: 0,
            due: now,
            force: false,
            stamp: 0,
        });
    }

    /// The record of this row has to be put together again.
    fn put_related(&mut self, rule: &Rule, key: RowKey) {
        if self.steps.is_new_related(&rule.name, &key) {
            self.put_obligation(rule, &key, None, Reason::Related, 0, super::unix_ms());
        }
    }

    /// Goes on with the running fan-out, or begins one that is due.
    pub(super) fn fan_out(&mut self, now: Instant) {
        if self.triggers.is_empty()
            || self.folding.is_some()
            || self.stopping
            || self.tail.is_none()
            || self.fan_out.retry_at.is_some_and(|at| now < at)
        {
            return;
        }
        if self.fan_out.running.is_none() {
            if self.fan_out.poll_at.is_some_and(|at| now < at) {
                return;
            }
            self.fan_out.poll_at = Some(now + POLL);
            match self.due_fan_out() {
                Ok(running) => self.fan_out.running = running,
                Err(error) => return self.store_trouble(error),
            }
        }
        let waiting: u64 = match &self.fan_out.running {
            Some(running) if !running.is_reading => self.store.owed(),
            _ => return,
        };
        // What it has put itself must not hold it up for ever: records that wait for their parents stay.
        if waiting > WAITING && self.reread.has_due() {
            self.fan_out.retry_at = Some(now + POLL);
            return;
        }
        let Some(running) = &mut self.fan_out.running else { return };
        running.is_reading = true;
        let step = &self.triggers[running.trigger].hops[running.hop];
        let (request, columns) = (self.tables[step.table].request.clone(), step.left.clone());
        let (keys, after) = (running.keys.clone(), running.after.clone());
        let (connector, events) = (self.connector.clone(), self.events.clone());
        tokio::spawn(async move {
            let found = connector.find_rows(&request, &columns, &keys, after.as_ref(), PAGE).await;
            let _ = events.send(Event::FannedOut(found));
        });
    }

    /// Due fan-outs of one kind.
    fn due_fan_out(&mut self) -> Result<Option<Running>, crate::store::StoreError> {
        let now = i64::try_from(super::unix_ms()).unwrap_or(i64::MAX);
        let tables: BTreeSet<usize> = self.triggers.iter().map(|t| t.table).collect();
        for table in tables {
            let name = format!("{}{MARK}", self.tables[table].name);
            let mut due = self.store.due_obligations(&name, now, VALUES)?;
            due.retain(|o| !self.steps.is_met(o));
            let Some(kind) = due.first().map(|o| o.rule.clone()) else { continue };
            due.retain(|o| o.rule == kind);
            let found = kind.rsplit_once(MARK).and_then(|(name, hop)| {
                let trigger = self.triggers.iter().position(|t| t.name == name && t.table == table)?;
                let hop: usize = hop.parse().ok()?;
                (hop < self.triggers[trigger].hops.len()).then_some((trigger, hop))
            });
            match found {
                Some((trigger, hop)) => {
                    let keys = due.iter().map(|o| o.key.clone()).collect();
                    return Ok(Some(Running { obligations: due, trigger, hop, keys, after: None, is_reading: false }));
                }
                // The mapping has changed since: its records are read again anyway.
                None => due.iter().for_each(|o| self.steps.meet(reference(o))),
            }
        }
        Ok(None)
    }

    /// A page of a fan-out was read.
    pub(super) fn fanned_out(&mut self, result: tidemark_contract::Result<SnapshotChunk>, now: Instant) {
        let Some(running) = &mut self.fan_out.running else { return };
        running.is_reading = false;
        let (number, hop) = (running.trigger, running.hop);
        let page = match result {
            Ok(page) => page,
            Err(error) => {
                let own = self.triggers[number].own;
                match error.kind {
                    ErrorKind::Unreachable | ErrorKind::Cancelled => {
                        self.fan_out.retry_at = Some(now + Duration::from_secs(1));
                        self.source_trouble("source_read", error);
                    }
                    ErrorKind::PositionLost => self.position_lost = Some(error),
                    ErrorKind::AuthRefused | ErrorKind::Bug => self.fail(error.into()),
                    _ => {
                        self.fan_out.running = None;
                        self.fan_out.retry_at = Some(now + Duration::from_secs(5));
                        self.needs_attention(own, format!("records that show a changed row cannot be found: {error}"));
                    }
                }
                return;
            }
        };
        running.after = page.next;
        let is_done = running.after.is_none();
        let done = if is_done { self.fan_out.running.take() } else { None };
        let next = self.triggers[number].hops.get(hop + 1).map(|step| step.right.clone());
        let rule = self.triggers[number].rule.clone();
        match next {
            None => {
                for key in page.rows.iter().filter_map(|row| RowKey::of(row, &page.schema.key)) {
                    self.put_related(&rule, key);
                }
            }
            Some(right) => {
                let Some(right) = positions(&page.schema, &right) else { return };
                let values: BTreeSet<RowKey> =
                    page.rows.iter().filter_map(|row| key_without_null(row, &right)).collect();
                for value in values {
                    self.reach(number, hop + 1, value);
                }
            }
        }
        if let Some(done) = done {
            done.obligations.iter().for_each(|o| self.steps.meet(reference(o)));
            self.fan_out.hurry();
        }
    }

    /// Tables whose records show rows of a table that has just changed its columns, and no longer fit.
    pub(super) fn check_related(&mut self, table: usize) {
        let mut failed = Vec::new();
        for trigger in self.triggers.iter().filter(|t| t.table == table) {
            let mut schema_of = |id: &TableId| Some(self.tables[*self.table_of.get(id)?].schema.clone());
            if let Err(error) = trigger.rule.bind_related(&mut schema_of) {
                failed.push((trigger.own, error));
            }
        }
        for (own, error) in failed {
            let name = self.tables[table].name.clone();
            self.needs_attention(own, format!("in the related table {name} {error}; adapt the mapping and restart"));
        }
    }
}

fn reference(obligation: &Obligation) -> ObligationRef {
    ObligationRef { rule: obligation.rule.clone(), key: obligation.key.clone(), stamp: Some(obligation.stamp) }
}

fn positions(schema: &TableSchema, names: &[Box<str>]) -> Option<Vec<usize>> {
    names.iter().map(|name| schema.position(name)).collect()
}

/// The key of the own row, if `columns` are those of its key: `value` in the key's order.
fn own_key(schema: &TableSchema, columns: &[Box<str>], value: &RowKey) -> Option<RowKey> {
    if schema.key.len() != columns.len() {
        return None;
    }
    let parts = value.values()?;
    let mut bytes = Vec::with_capacity(value.as_bytes().len());
    for at in &schema.key {
        let name = &schema.columns.get(*at)?.name;
        let (letter, part) = parts.get(columns.iter().position(|column| column == name)?)?;
        bytes.push(*letter);
        bytes.extend_from_slice(&u32::try_from(part.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(part);
    }
    RowKey::from_bytes(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_contract::{Column, LogicalType, RowBuilder, Value};

    #[test]
    fn a_key_is_put_into_its_own_order() {
        let column = |name: &str| Column {
            name: name.into(),
            logical: LogicalType::Int,
            native: "int".into(),
            nullable: false,
            max_length: None,
            may_be_unchanged: false,
            unlogged: false,
            labels: Vec::new(),
        };
        let schema = TableSchema {
            table: TableId::new("s", "t"),
            columns: vec![column("a"), column("b"), column("c")],
            key: vec![0, 2],
            full_before_image: true,
        };
        let key = |values: &[i64]| {
            let mut row = RowBuilder::default();
            values.iter().for_each(|n| row.push(Value::Int(*n)));
            RowKey::of(&row.finish(), &(0..values.len()).collect::<Vec<_>>()).expect("complete")
        };
        assert_eq!(own_key(&schema, &["c".into(), "a".into()], &key(&[7, 8])), Some(key(&[8, 7])));
        assert_eq!(own_key(&schema, &["a".into(), "b".into()], &key(&[7, 8])), None, "not the key");
        assert_eq!(own_key(&schema, &["a".into()], &key(&[7])), None, "a part of the key");
    }
}
