//! Every prerequisite looked at, and what fixes it.

use crate::MysqlConfig;
use crate::catalog::{self, Table};
use crate::session::Session;
use crate::sql::ident;
use crate::wire::Connection;
use std::time::Duration;
use tidemark_contract::{Finding, Result, Severity, TableId, TableRequest};

/// How long the server keeps its log; `None` if it keeps it for ever or does not say.
pub(crate) async fn retention(connection: &mut Connection) -> Result<Option<Duration>> {
    let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('binlog_expire_logs_seconds', 'expire_logs_days')";
    let rows = connection.rows("asking how long the log is kept", sql).await?;
    let seconds = |row: &Vec<Option<String>>| match &row[..] {
        [Some(name), Some(value)] => {
            let unit = if name.eq_ignore_ascii_case("expire_logs_days") { 86_400.0 } else { 1.0 };
            value.parse::<f64>().ok().map(|v| v * unit).filter(|s| *s > 0.0)
        }
        _ => None,
    };
    Ok(rows.iter().filter_map(seconds).reduce(f64::min).map(Duration::from_secs_f64))
}

/// Looks at everything.
pub(crate) async fn run(config: &MysqlConfig, tables: &[TableRequest]) -> Result<Vec<Finding>> {
    let mut session = Session::open(config).await?;
    let mut findings = Vec::new();
    findings.push(Finding::ok("source.server", format!("{} at {}", session.connection.version, config.address())));
    let settings = catalog::settings(&mut session.connection).await?;
    let names: Vec<TableId> = tables.iter().map(|t| t.table.clone()).collect();
    let found = catalog::describe(&mut session.connection, &names, settings.fold).await?;
    for request in tables {
        let Some(table) = found.get(&request.table) else {
            let fix = format!("GRANT SELECT ON {}.* TO '{}'@'%'", ident(&request.table.schema), config.user);
            let finding =
                Finding::error("source.table", "the table does not exist, or we may not read it", "a table", Some(fix));
            findings.push(finding.about(&request.table));
            continue;
        };
        findings.extend(table_findings(config, table, request, settings.image));
    }
    session.connection.quit().await;
    Ok(findings)
}

fn table_findings(config: &MysqlConfig, table: &Table, request: &TableRequest, image: catalog::Image) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(reason) = table.unsuitable() {
        findings.push(Finding::error("source.table_kind", reason, "an ordinary table", None));
    } else if let Err(reason) = table.shape(request, config, image) {
        findings.push(Finding::error("source.key", reason, "a key that identifies rows", None));
    }
    if table.partitioned {
        findings.push(Finding::warning(
            "source.partitions",
            "it is partitioned",
            "rows leave by DELETE or TRUNCATE of the whole: dropping, emptying or exchanging one partition does not show in \
             the log, and makes everything be read again",
            None,
        ));
    }
    if findings.iter().all(|f| f.severity != Severity::Error) {
        let (rows, bytes) = (table.rows.unwrap_or(0), table.bytes.unwrap_or(0));
        findings.push(Finding::ok("source.table", format!("readable, about {rows} rows ({} MB)", bytes >> 20)));
    }
    findings.into_iter().map(|f| f.about(&request.table)).collect()
}
