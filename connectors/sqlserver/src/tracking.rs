//! The tail from change tracking, where change data capture cannot be had.
//!
//! Change tracking keeps, for each key, the version of the last transaction that changed it; the values are the table's
//! own, read when we come by. So what comes is the *net* change: states in between are not seen, and a row that came and
//! went shows as a delete or not at all. A position is a version.
//!
//! A round asks for the present version *first*, then reads what changed behind the position up to it, page by page, and
//! asks *behind* each page whether the clean-up has passed the position meanwhile (then the page may lack something, and
//! the position is lost). No transaction spans the pages, and none has to: a key that changes again before its page is read
//! gets a version above the round's end, so that it leaves this round and comes in the next. A page is one statement, under
//! snapshot isolation where the database allows it. The row it joins to a key is at least as new as the version it has,
//! since that was committed before the statement began; a row that has gone since is told as a delete, which comes again with
//! its own version.
//!
//! The first round behind a stored position has no upper end. Whoever stored it may have told somebody of changes behind it,
//! and goes by these being told again before the first new position (R2). A key that changed twice since would otherwise
//! leave the first round with its second change, and the first one is never seen again. What lies above the position that the
//! round ends with comes once more in the next.
//!
//! The daemon sends nothing of a change before there is a place behind it, and a round can be of any size, so there are places
//! inside of it. They lead back to its beginning ([`Version`]).
//!
//! Within a version deletes come first: a moved key is a delete and an insert of one version (R5).

use crate::SqlServerConfig;
use crate::catalog::{self, Shape, missing_table, refused};
use crate::error::{changed, lost, server_code, setting_wrong, undecodable};
use crate::position::{Used, Version, database_of, log_name, used_of};
use crate::session::Session;
use crate::sql::{Cells, ident, literal, table_name};
use crate::stream::{BATCH, Shared, Tail};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidemark_contract::{
    ChangeEvent, ChangeOp, ErrorKind, Position, Result, Row, RowBuilder, RowKey, SourceMessage, TableId, TableRequest,
    Value,
};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Bytes of rows that one page holds, about.
const PAGE: usize = 1 << 20;

/// The statement that makes a database keep changes.
pub(crate) const ENABLE: &str =
    "ALTER DATABASE CURRENT SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 3 DAYS, AUTO_CLEANUP = ON)";

/// The statement that makes a table be tracked.
pub(crate) fn enable(table: &TableId) -> String {
    format!("ALTER TABLE {} ENABLE CHANGE_TRACKING", table_name(table))
}

/// A table of the stream.
struct Plan {
    request: TableRequest,
    shape: Shape,
    /// The version from which on it is tracked.
    begin: i64,
    /// Average bytes of its rows.
    size: usize,
    announced: bool,
}

/// The last row of a page: version, kind of change, key.
struct After {
    version: i64,
    operation: String,
    key: RowKey,
}

/// One change of a page.
struct Found {
    version: i64,
    operation: String,
    key: Row,
    /// `None` if it has gone since.
    row: Option<Row>,
}

struct Task {
    session: Session,
    plans: Vec<Plan>,
    log: Arc<str>,
    /// Everything up to this version was delivered.
    version: i64,
    /// The highest version of a change that was told.
    told: i64,
    /// The first round behind a stored position is still to come.
    resumes: bool,
    shared: Arc<Shared>,
    sender: mpsc::Sender<Result<Vec<SourceMessage>>>,
    batch: Vec<SourceMessage>,
    bytes: usize,
    pause: Duration,
}

/// Connects, checks the position, and starts to poll.
pub(crate) async fn start(
    config: &SqlServerConfig,
    mut session: Session,
    requests: &[TableRequest],
    from: Option<&Position>,
) -> Result<Tail> {
    if !session.database.has_tracking {
        let message = format!("change tracking is not enabled in database {}", config.database);
        return Err(match from {
            Some(_) => lost(format!("{message}, but was at the stored position")),
            None => setting_wrong(message),
        }
        .hint(format!("{ENABLE}, then ALTER TABLE … ENABLE CHANGE_TRACKING for each table")));
    }
    let database = format!("ct/{}", session.database.log);
    if let Some(from) = from
        && database_of(&from.log) != database
    {
        return Err(lost(format!(
            "the stored position is of another database or of change data capture (`{}` then, `{database}` now)",
            database_of(&from.log)
        )));
    }
    let version = from.map(Version::parse).transpose()?.map(|version| version.read);
    let plans = load(&mut session, requests).await?;
    let used: Vec<Used> = plans
        .iter()
        .map(|p| Used { instance: p.begin, source: p.shape.object, name: crate::plan::hash(&p.request.table) })
        .collect();
    for before in from.map(|from| used_of(&from.log)).unwrap_or_default() {
        let now = used.iter().zip(&plans).find(|(now, _)| now.name == before.name);
        if let Some((now, plan)) = now
            && *now != before
        {
            return Err(lost(format!(
                "table {} was made again, or its change tracking was switched off and on, since the stored position",
                plan.request.table
            )));
        }
    }
    let (sender, batches) = mpsc::channel(2);
    let shared = Arc::new(Shared::default());
    let mut task = Task {
        log: log_name(&database, &used),
        session,
        plans,
        version: 0,
        told: 0,
        resumes: from.is_some(),
        shared: shared.clone(),
        sender,
        batch: Vec::new(),
        bytes: 0,
        pause: config.poll_interval,
    };
    let now = task.present_version(version).await?;
    task.version = version.unwrap_or(now);
    task.told = task.version;
    task.batch.push(SourceMessage::Idle(task.position()));
    Ok(Tail::new(batches, shared, tokio::spawn(task.run()), true))
}

/// Plans for the tables.
async fn load(session: &mut Session, requests: &[TableRequest]) -> Result<Vec<Plan>> {
    let names: Vec<TableId> = requests.iter().map(|r| r.table.clone()).collect();
    let connection = &mut session.connection;
    let found = if names.is_empty() { Default::default() } else { catalog::describe(connection, &names).await? };
    let sql = "SELECT CAST(object_id AS bigint), CAST(begin_version AS bigint) FROM sys.change_tracking_tables";
    let tracked = connection.rows("looking up tracked tables", sql).await?;
    let mut plans = Vec::new();
    for request in requests {
        let table = found.get(&request.table).ok_or_else(|| missing_table(&request.table))?;
        let shape = table.tracked_shape(request).map_err(|reason| refused(&request.table, &reason))?;
        let begin = tracked.iter().find(|row| row.int(0) == Some(table.object)).and_then(|row| row.int(1));
        let begin = begin.ok_or_else(|| {
            setting_wrong(format!("table {} is not tracked, or the user may not see it", request.table))
                .hint(enable(&request.table))
        })?;
        plans.push(Plan { request: request.clone(), shape, begin, size: 0, announced: false });
    }
    Ok(plans)
}

impl Task {
    fn position(&self) -> Position {
        Version { read: self.version, told: self.told }.position(&self.log)
    }

    async fn run(mut self) {
        if let Err(error) = self.pump().await {
            // What was read before the failure is good.
            self.hand_over().await;
            let _ = self.sender.send(Err(error)).await;
        }
    }

    async fn pump(&mut self) -> Result<()> {
        while !self.shared.closing.load(Ordering::Acquire) {
            let asked = self.shared.asked.swap(false, Ordering::AcqRel);
            let now = self.present_version(Some(self.version)).await?;
            if now > self.version {
                self.read(now).await?;
            } else if asked {
                self.batch.push(SourceMessage::Idle(self.position()));
            }
            self.hand_over().await;
            let _ = timeout(self.pause, self.shared.wake.notified()).await;
        }
        Ok(())
    }

    async fn hand_over(&mut self) {
        self.bytes = 0;
        if !self.batch.is_empty() && self.sender.send(Ok(std::mem::take(&mut self.batch))).await.is_err() {
            self.shared.closing.store(true, Ordering::Release);
        }
    }

    /// The version of the last committed transaction. With a version to go on from, everything behind it must still be
    /// there, of every table.
    async fn present_version(&mut self, from: Option<i64>) -> Result<i64> {
        let doing = "asking for the present version";
        let tables: Vec<String> = self
            .plans
            .iter()
            .enumerate()
            .map(|(at, p)| {
                format!(
                    "SELECT {at}, CAST(CHANGE_TRACKING_MIN_VALID_VERSION({}) AS bigint), \
                     (SELECT CAST(begin_version AS bigint) FROM sys.change_tracking_tables WHERE object_id = {})",
                    p.shape.object, p.shape.object
                )
            })
            .collect();
        let sql = format!("SELECT CAST(CHANGE_TRACKING_CURRENT_VERSION() AS bigint); {}", tables.join(" UNION ALL "));
        let results = self.session.connection.results(doing, &sql).await?;
        let now = results.first().and_then(|rows| rows.first()).and_then(|row| row.int(0));
        let now = now.ok_or_else(|| lost("change tracking was switched off in the database").hint(ENABLE))?;
        if from.is_some_and(|from| now < from) {
            return Err(lost("the version is behind the stored one: the database was restored"));
        }
        for (row, plan) in results.get(1).into_iter().flatten().zip(&self.plans) {
            let table = &plan.request.table;
            if row.int(2) != Some(plan.begin) {
                let message = format!("change tracking of table {table} was switched off, or off and on again");
                return Err(lost(message).hint(enable(table)));
            }
            let oldest = row.int(1).ok_or_else(|| lost(format!("the changes of table {table} cannot be seen")))?;
            if from.is_some_and(|from| from < oldest) {
                return Err(removed(table));
            }
        }
        Ok(now)
    }

    /// Delivers everything behind the position up to `to`.
    async fn read(&mut self, to: i64) -> Result<()> {
        let bound = if self.resumes { i64::MAX } else { to };
        for at in 0..self.plans.len() {
            let mut after: Option<After> = None;
            loop {
                let (found, limit) = self.page(at, bound, after.as_ref()).await?;
                let full = found.len() >= limit;
                if let Some(last) = found.last() {
                    let key: Vec<usize> = (0..self.plans[at].shape.schema.key.len()).collect();
                    let key = RowKey::of(&last.key, &key).ok_or_else(|| undecodable("a change without its key"))?;
                    after = Some(After { version: last.version, operation: last.operation.clone(), key });
                }
                for change in found {
                    self.deliver(at, change);
                    if self.bytes >= BATCH {
                        self.batch.push(SourceMessage::Resumable(self.position()));
                        self.hand_over().await;
                        if self.shared.closing.load(Ordering::Acquire) {
                            return Ok(());
                        }
                    }
                }
                if !full {
                    break;
                }
            }
        }
        self.version = to;
        self.told = to;
        self.resumes = false;
        self.batch.push(SourceMessage::Commit(self.position()));
        Ok(())
    }

    fn deliver(&mut self, at: usize, change: Found) {
        self.told = self.told.max(change.version);
        let plan = &mut self.plans[at];
        let schema = plan.shape.schema.clone();
        if !plan.announced {
            plan.announced = true;
            self.batch.push(SourceMessage::Schema(schema.clone()));
        }
        let (op, row) = match (change.operation.as_str(), change.row) {
            ("D", _) | (_, None) => {
                let mut row = RowBuilder::with_capacity(schema.columns.len(), 64);
                for column in 0..schema.columns.len() {
                    let in_key = schema.key.iter().position(|k| *k == column);
                    row.push(in_key.map_or(Value::Unchanged, |n| change.key.get(n)));
                }
                (ChangeOp::Delete, row.finish())
            }
            ("I", Some(row)) => (ChangeOp::Insert, row),
            (_, Some(row)) => (ChangeOp::Update, row),
        };
        self.bytes += row.memory() + 64;
        // Change tracking keeps no times; this one is when we saw it.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros());
        let committed_at = i64::try_from(now).unwrap_or(i64::MAX);
        self.batch.push(SourceMessage::Change(ChangeEvent { schema, op, row, old: None, committed_at }));
    }

    /// One page of a table, and how many rows it could have had. The table is described before and behind it: rows are
    /// used only if it was the same.
    async fn page(&mut self, at: usize, to: i64, after: Option<&After>) -> Result<(Vec<Found>, usize)> {
        let doing = format!("reading changes of table {}", self.plans[at].request.table);
        for _ in 0..3 {
            let plan = &self.plans[at];
            let limit = PAGE.checked_div(plan.size).map_or(50, |rows| rows.clamp(1, 5_000));
            let select = plan.select(self.version, to, after, limit)?;
            let oldest = format!("SELECT CAST(CHANGE_TRACKING_MIN_VALID_VERSION({}) AS bigint)", plan.shape.object);
            let sql = match self.session.database.has_snapshots {
                true => format!(
                    "SET TRANSACTION ISOLATION LEVEL SNAPSHOT; {select}; \
                     SET TRANSACTION ISOLATION LEVEL READ COMMITTED; {oldest}"
                ),
                false => format!("{select}; {oldest}"),
            };
            let results = match self.session.connection.results(&doing, &sql).await {
                Ok(results) => Some(results),
                Err(error) if matches!(server_code(&error), Some(207 | 208 | 3961)) => None,
                Err(error) => return Err(error),
            };
            let described =
                catalog::describe(&mut self.session.connection, std::slice::from_ref(&plan.request.table)).await?;
            let plan = &mut self.plans[at];
            let table = described.get(&plan.request.table).ok_or_else(|| missing_table(&plan.request.table))?;
            let shape = table.tracked_shape(&plan.request).map_err(|reason| refused(&plan.request.table, &reason))?;
            if shape.object != plan.shape.object {
                return Err(lost(format!("table {} was dropped and made again", plan.request.table)));
            }
            let Some(results) = results.filter(|_| shape == plan.shape) else {
                // Of another shape now: what is read from here on has it.
                plan.announced = plan.announced && shape.schema == plan.shape.schema;
                plan.shape = shape;
                continue;
            };
            let oldest = results.get(1).and_then(|rows| rows.first()).and_then(|row| row.int(0));
            if oldest.is_none_or(|oldest| self.version < oldest) {
                return Err(removed(&plan.request.table));
            }
            let mut found = Vec::new();
            for row in results.first().into_iter().flatten() {
                found.push(plan.decode(row)?);
            }
            let bytes: usize = found.iter().map(|f| f.row.as_ref().map_or(0, Row::memory) + f.key.memory()).sum();
            if let Some(average) = bytes.checked_div(found.len()) {
                plan.size = average.max(64);
            }
            return Ok((found, limit));
        }
        Err(catalog::restless(&self.plans[at].request.table))
    }
}

fn removed(table: &TableId) -> tidemark_contract::SourceError {
    lost(format!("changes of table {table} were removed before they were read, or it was truncated"))
        .hint("keep them longer: ALTER DATABASE CURRENT SET CHANGE_TRACKING (CHANGE_RETENTION = 3 DAYS)")
}

impl Plan {
    /// The statement for one page: changes with versions behind `from` up to `to`, behind the last row of the page before.
    fn select(&self, from: i64, to: i64, after: Option<&After>, limit: usize) -> Result<String> {
        let (schema, kinds) = (&self.shape.schema, &self.shape.kinds);
        let key: Vec<String> = schema.key.iter().map(|at| ident(&schema.columns[*at].name)).collect();
        let mut columns: Vec<String> =
            schema.key.iter().zip(&key).map(|(at, name)| kinds[*at].select(&format!("c.{name}"))).collect();
        columns.extend(schema.columns.iter().zip(kinds).map(|(c, kind)| kind.select(&format!("t.{}", ident(&c.name)))));
        let on: Vec<String> = key.iter().map(|name| format!("t.{name} = c.{name}")).collect();
        let order: Vec<String> = ["c.SYS_CHANGE_VERSION".to_owned(), "c.SYS_CHANGE_OPERATION".to_owned()]
            .into_iter()
            .chain(key.iter().map(|name| format!("c.{name}")))
            .collect();
        let behind = match after {
            None => String::new(),
            Some(after) => {
                let strange = || changed(format!("the key of table {} has changed", schema.table));
                let values = after.key.values().filter(|v| v.len() == key.len()).ok_or_else(strange)?;
                let mut literals = vec![after.version.to_string(), literal(&after.operation)];
                for (at, (letter, bytes)) in schema.key.iter().zip(values) {
                    literals.push(kinds[*at].literal(letter, bytes)?.ok_or_else(strange)?);
                }
                format!(" AND {}", crate::sql::behind(&order, &literals))
            }
        };
        Ok(format!(
            "SELECT TOP ({limit}) CAST(c.SYS_CHANGE_VERSION AS bigint), CAST(c.SYS_CHANGE_OPERATION AS nvarchar(1)), \
             CASE WHEN t.{} IS NULL THEN 0 ELSE 1 END, {} FROM CHANGETABLE(CHANGES {}, {from}) AS c \
             LEFT JOIN {} AS t ON {} WHERE c.SYS_CHANGE_VERSION <= {to}{behind} ORDER BY {}",
            key[0],
            columns.join(", "),
            self.shape.sql_name,
            self.shape.sql_name,
            on.join(" AND "),
            order.join(", ")
        ))
    }

    fn decode(&self, row: &tiberius::Row) -> Result<Found> {
        let strange = || undecodable(format!("a change of table {} without its version", self.request.table));
        let (version, operation) = (row.int(0).ok_or_else(strange)?, row.text(1).ok_or_else(strange)?.to_owned());
        let there = row.int(2) == Some(1);
        let mut cells = row.cells().map(|(_, cell)| cell).skip(3);
        let mut text = String::new();
        let mut take = |kind: &crate::types::Kind, out: &mut RowBuilder| {
            let cell = cells.next().ok_or_else(strange)?;
            kind.push(cell, out, &mut text)
        };
        let mut key = RowBuilder::with_capacity(self.shape.schema.key.len(), 32);
        for at in &self.shape.schema.key {
            take(&self.shape.kinds[*at], &mut key)?;
        }
        let mut whole = RowBuilder::with_capacity(self.shape.kinds.len(), 64);
        if there {
            for kind in &self.shape.kinds {
                take(kind, &mut whole)?;
            }
        }
        Ok(Found { version, operation, key: key.finish(), row: there.then(|| whole.finish()) })
    }
}

/// How long changes are kept, if `from` is up to date; otherwise nobody tells how old it is.
pub(crate) async fn retention(session: &mut Session, from: &Position) -> Result<Option<Duration>> {
    let sql = "SELECT CAST(CHANGE_TRACKING_CURRENT_VERSION() AS bigint), CAST(retention_period AS bigint), \
               retention_period_units_desc FROM sys.change_tracking_databases WHERE database_id = DB_ID()";
    let rows = match session.connection.rows("asking how long changes are kept", sql).await {
        Ok(rows) => rows,
        Err(error) if error.kind == ErrorKind::PermissionMissing => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(row) = rows.first().filter(|row| row.int(0) == Version::parse(from).ok().map(|version| version.read))
    else {
        return Ok(None);
    };
    let unit = match row.text(2) {
        Some("MINUTES") => 60,
        Some("HOURS") => 3_600,
        _ => 86_400,
    };
    Ok(row.int(1).and_then(|n| u64::try_from(n * unit).ok()).map(Duration::from_secs))
}
