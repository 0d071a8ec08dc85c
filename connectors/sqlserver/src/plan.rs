//! Which change tables are read for which tables, and how.

use crate::catalog::{self, Captured, Instance, Shape, Table, missing_table, refused};
use crate::error::{lost, setting_wrong, unreachable};
use crate::position::{Lsn, Place, Used};
use crate::sql::{Cells, ident, literal};
use crate::wire::Connection;
use std::time::Duration;
use tidemark_contract::{Lag, Position, Result, TableId, TableRequest};

/// How the changes of one table are read.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    pub(crate) instance: Instance,
    /// For each column of the schema what holds it in the change table.
    pub(crate) held: Vec<Option<Captured>>,
    /// From where on a younger instance is to be read instead.
    pub(crate) switch_at: Option<Lsn>,
    /// Nothing before this place is asked of the instance: it was new when the stream began.
    pub(crate) floor: Lsn,
    /// The schema was sent.
    pub(crate) announced: bool,
}

/// A short hash of a table's name, to tell a table that was made again from one that is new.
pub(crate) fn hash(table: &TableId) -> u32 {
    let bytes = table.schema.bytes().chain([0]).chain(table.name.bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl Plan {
    pub(crate) fn used(&self) -> Used {
        Used { instance: self.instance.object, source: self.shape.object, name: hash(&self.shape.schema.table) }
    }

    /// The change table's quoted name.
    pub(crate) fn change_table(&self) -> String {
        format!("[cdc].{}", ident(&format!("{}_CT", self.instance.name)))
    }

    /// The expression of the instance's low end.
    pub(crate) fn low_end(&self) -> String {
        format!("sys.fn_cdc_get_min_lsn({})", literal(&self.instance.name))
    }

    fn new(table: &Table, request: &TableRequest, instance: &Instance) -> Result<Self> {
        let shape = table.shape(request, Some(instance)).map_err(|reason| refused(&request.table, &reason))?;
        let held = shape.ids.iter().zip(&shape.kinds).map(|(id, kind)| {
            let captured = instance.holds(*id)?;
            let same = captured.kind.as_ref().is_some_and(|k| k.logical() == kind.logical());
            same.then(|| captured.clone())
        });
        let held: Vec<Option<Captured>> = held.collect();
        if let Some(at) = shape.schema.key.iter().find(|at| held[**at].is_none()) {
            let column = &shape.schema.columns[*at].name;
            return Err(setting_wrong(format!(
                "capture instance {} of table {} does not hold the key column {column}",
                instance.name, request.table
            ))
            .hint(enable(&request.table)));
        }
        Ok(Self { shape, instance: instance.clone(), held, switch_at: None, floor: Lsn::default(), announced: false })
    }
}

/// The statement that makes a capture instance.
pub(crate) fn enable(table: &TableId) -> String {
    format!(
        "EXEC sys.sp_cdc_enable_table @source_schema = {}, @source_name = {}, @role_name = NULL",
        literal(&table.schema),
        literal(&table.name)
    )
}

/// Plans for `requests`. `stored` are the instances that were read up to `read`; tables that are not among them are new.
pub(crate) async fn load(
    connection: &mut Connection,
    requests: &[TableRequest],
    stored: &[Used],
    read: Option<Lsn>,
) -> Result<Vec<Plan>> {
    let names: Vec<TableId> = requests.iter().map(|r| r.table.clone()).collect();
    let mut patience = 20;
    loop {
        let found = if names.is_empty() { Default::default() } else { catalog::describe(connection, &names).await? };
        let mut plans = Vec::new();
        let mut waiting = None;
        for request in requests {
            let table = found.get(&request.table).ok_or_else(|| missing_table(&request.table))?;
            match choose(table, request, stored, read)? {
                Some(plan) => plans.push(plan),
                None => waiting = Some(&request.table),
            }
        }
        let Some(table) = waiting else { return Ok(plans) };
        if patience == 0 {
            return Err(unreachable(format!(
                "the log reader has not yet reached the statement that enabled change data capture for table {table}"
            ))
            .hint("start SQL Server Agent and the capture job: EXEC sys.sp_cdc_start_job @job_type = N'capture'"));
        }
        patience -= 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The plan for a table; `None` if its instance has not begun yet.
fn choose(table: &Table, request: &TableRequest, stored: &[Used], read: Option<Lsn>) -> Result<Option<Plan>> {
    if table.instances.is_empty() {
        let message = format!("table {} has no capture instance, or the user may not see it", table.id);
        return Err(match stored.iter().any(|u| u.name == hash(&table.id)) {
            true => lost(format!("{message}, but had one at the stored position")),
            false => setting_wrong(message),
        }
        .hint(enable(&table.id)));
    }
    let before = stored.iter().find(|u| u.name == hash(&table.id));
    let Some((before, read)) = before.zip(read) else {
        let Some(instance) = table.newest() else { return Ok(None) };
        let Some(start) = instance.start else { return Ok(None) };
        let mut plan = Plan::new(table, request, instance)?;
        plan.floor = start;
        return Ok(Some(plan));
    };
    if before.source != table.object {
        return Err(lost(format!("table {} was dropped and made again since the stored position", table.id)));
    }
    let same = table.instances.iter().position(|i| i.object == before.instance);
    if let Some(at) = same {
        let mut plan = Plan::new(table, request, &table.instances[at])?;
        let younger = table.instances.get(at + 1..).unwrap_or_default().iter().rev().find(|i| i.start.is_some());
        if let Some(younger) = younger {
            let start = younger.start.unwrap_or_default();
            if start <= read {
                return Plan::new(table, request, younger).map(Some);
            }
            plan.switch_at = Some(start);
        }
        return Ok(Some(plan));
    }
    // The instance is gone. Another one will do if it reaches back to the position.
    let other = table.instances.iter().find(|i| i.start.is_some_and(|start| start <= read.next()));
    match other {
        Some(instance) => Plan::new(table, request, instance).map(Some),
        None => Err(lost(format!(
            "the capture instance of table {} that was read is gone, and no other reaches back to the stored position",
            table.id
        ))),
    }
}

/// Notes for each plan where a younger instance of its table begins, if that is behind `read`.
pub(crate) async fn find_switches(connection: &mut Connection, plans: &mut [Plan], read: Lsn) -> Result<()> {
    let sql = "SELECT source_object_id, object_id, start_lsn FROM cdc.change_tables ORDER BY create_date, object_id";
    let rows = connection.rows("looking for younger capture instances", sql).await?;
    for plan in plans {
        let of_table = rows.iter().filter(|row| row.int(0) == Some(plan.shape.object));
        let younger = of_table.skip_while(|row| row.int(1) != Some(plan.instance.object)).skip(1);
        let start = younger.filter_map(|row| row.bytes(2).and_then(Lsn::of)).filter(|start| *start > read).last();
        plan.switch_at = start.or(plan.switch_at);
    }
    Ok(())
}

/// Something that changes whenever an instance is made or dropped, or a captured table is altered; and the last alteration.
pub(crate) const FINGERPRINT: &str = "SELECT (SELECT CONVERT(nvarchar(20), COUNT(*)) FROM cdc.change_tables), \
     (SELECT CONVERT(nvarchar(40), MAX(create_date), 126) FROM cdc.change_tables), \
     (SELECT CONVERT(nvarchar(20), COUNT(start_lsn)) FROM cdc.change_tables), \
     (SELECT CONVERT(nvarchar(20), COUNT(*)) FROM cdc.ddl_history), (SELECT MAX(ddl_lsn) FROM cdc.ddl_history)";

/// What [`FINGERPRINT`] gave.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Fingerprint {
    words: Vec<String>,
    pub(crate) altered: Option<Lsn>,
}

impl Fingerprint {
    pub(crate) fn of(rows: &[tiberius::Row]) -> Self {
        let Some(row) = rows.first() else { return Self::default() };
        let words = (0..4).map(|at| row.text(at).unwrap_or_default().to_owned()).collect();
        Self { words, altered: row.bytes(4).and_then(Lsn::of) }
    }
}

/// How far `from` is behind, and how long changes are kept.
pub(crate) async fn lag(connection: &mut Connection, from: Option<&Position>) -> Result<Lag> {
    let Some(from) = from else { return Ok(Lag::default()) };
    let read = Place::parse(from)?.read;
    let doing = "asking how long changes are kept";
    let sql = "SELECT CAST(retention AS bigint) FROM msdb.dbo.cdc_jobs \
               WHERE database_id = DB_ID() AND job_type = N'cleanup'";
    let minutes = match connection.rows(doing, sql).await {
        Ok(rows) => rows.first().and_then(|row| row.int(0)),
        // The job's table is for those who may see it; without it there is no promise to report.
        Err(error) if crate::error::server_code(&error).is_some() => None,
        Err(error) => return Err(error),
    };
    let sql =
        format!("SELECT CAST(DATEDIFF(second, sys.fn_cdc_map_lsn_to_time({}), GETDATE()) AS bigint)", read.literal());
    let rows = connection.rows(doing, &sql).await?;
    // A place that is no transaction's has no time: it is as new as the log reader's last word.
    let behind = rows.first().and_then(|row| row.int(0)).unwrap_or(0).max(0);
    let left = minutes.map(|m| Duration::from_secs(u64::try_from(m * 60 - behind).unwrap_or(0)));
    Ok(Lag { retention: left, ..Lag::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_not_run_into_each_other() {
        assert_ne!(hash(&TableId::new("ab", "c")), hash(&TableId::new("a", "bc")));
    }

    #[test]
    fn the_statement_quotes_names() {
        assert!(enable(&TableId::new("dbo", "it's")).contains("N'it''s'"));
    }
}
