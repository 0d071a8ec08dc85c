//! Every prerequisite looked at, and what fixes it.

use crate::catalog::{self, Table};
use crate::error::server_code;
use crate::position::Flavor;
use crate::resume;
use crate::session::Session;
use crate::sql::{Sql, ident};
use crate::{MysqlConfig, TlsMode, is_column, xa};
use std::collections::HashMap;
use std::time::Duration;
use tidemark_contract::{ErrorKind, Finding, Result, Severity, SourceError, TableId, TableRequest};
use tidemark_login::Session as _;

/// Bytes of a table that a snapshot reads in a second, roughly and on the safe side.
const SNAPSHOT_BYTES_PER_SECOND: u64 = 5 << 20;

/// The server's variables that matter, by name in lower case.
struct Variables(HashMap<String, String>);

impl Variables {
    async fn read(connection: &mut Sql) -> Result<Self> {
        let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format', 'binlog_row_image',
            'binlog_row_metadata', 'binlog_row_value_options', 'gtid_mode', 'server_id', 'binlog_expire_logs_seconds',
            'expire_logs_days', 'log_slave_updates', 'log_replica_updates')";
        let rows = connection.rows("asking for the server's settings", sql).await?;
        let pair = |row: Vec<Option<String>>| match <[Option<String>; 2]>::try_from(row) {
            Ok([Some(name), Some(value)]) => Some((name.to_ascii_lowercase(), value)),
            _ => None,
        };
        Ok(Self(rows.into_iter().filter_map(pair).collect()))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn is(&self, name: &str, wanted: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case(wanted))
    }

    /// How long the log is kept; `None` if for ever, or not said.
    fn retention(&self) -> Option<Duration> {
        let seconds =
            |name: &str, unit: f64| self.get(name)?.parse::<f64>().ok().map(|v| v * unit).filter(|s| *s > 0.0);
        let both = [seconds("binlog_expire_logs_seconds", 1.0), seconds("expire_logs_days", 86_400.0)];
        both.into_iter().flatten().reduce(f64::min).map(Duration::from_secs_f64)
    }
}

/// How long the server keeps its log; `None` if it keeps it for ever or does not say.
pub(crate) async fn retention(connection: &mut Sql) -> Result<Option<Duration>> {
    Ok(Variables::read(connection).await?.retention())
}

/// Looks at everything.
pub(crate) async fn run(config: &MysqlConfig, tables: &[TableRequest]) -> Result<Vec<Finding>> {
    let mut session = Session::open(config).await?;
    let variables = Variables::read(&mut session.connection).await?;
    let mut findings = vec![
        Finding::ok("source.server", format!("{} at {}", session.connection.version, config.address())),
        tls(config, session.connection.encrypted),
    ];
    findings.extend(log_settings(&variables, session.server.flavor));
    let is_logging = variables.is("log_bin", "ON");
    if is_logging {
        findings.extend(rights(config, &mut session, tables).await?);
    }
    findings.extend(server_id(config, &mut session, &variables).await?);
    findings.extend(replica(&mut session, &variables).await?);
    findings.extend(prepared(config, &mut session).await?);
    let settings = catalog::settings(&mut session.connection).await?;
    let names: Vec<TableId> = tables.iter().map(|t| t.table.clone()).collect();
    let found = catalog::describe(&mut session.connection, &names, settings.fold).await?;
    findings.extend(zero_dates(config, &found));
    findings.push(log_retention(&variables, found.values().filter_map(|t| t.bytes).sum()));
    for request in tables {
        let Some(table) = found.get(&request.table) else {
            let fix = format!("GRANT SELECT ON {}.* TO {}", ident(&request.table.schema), account(config));
            let observed = "the table does not exist, or we may not read it";
            let finding = Finding::error("source.table", observed, "a table that we may read", Some(fix));
            findings.push(finding.about(&request.table));
            continue;
        };
        findings.extend(table_findings(config, table, request, settings.image));
        findings.extend(cascades(&mut session.connection, table, request).await?);
    }
    session.connection.quit().await;
    Ok(findings)
}

fn account(config: &MysqlConfig) -> String {
    format!("'{}'@'%'", config.user.replace('\'', "''"))
}

fn tls(config: &MysqlConfig, encrypted: bool) -> Finding {
    const ID: &str = "source.tls";
    let local = matches!(config.host.as_str(), "localhost" | "127.0.0.1" | "::1");
    match config.tls.mode {
        _ if config.is_unix() => Finding::ok(ID, "a unix socket: nothing leaves this machine"),
        TlsMode::Disable if !local => Finding::warning(
            ID,
            "the connection is not encrypted",
            "TLS: rows travel readable for others",
            Some("set tls mode \"verify-full\"".into()),
        ),
        TlsMode::Require if config.tls.ca_file.is_none() => Finding::warning(
            ID,
            "encrypted, but the server's certificate is not verified",
            "mode verify-full: anybody could answer in the server's place",
            Some("set tls mode \"verify-full\", and ca_file if the authority is your own".into()),
        ),
        mode => Finding::ok(ID, format!("mode {mode:?}, encrypted: {encrypted}")),
    }
}

fn log_settings(variables: &Variables, flavor: Flavor) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(if variables.is("log_bin", "ON") {
        Finding::ok("source.log_bin", "the server writes a binary log")
    } else {
        let fix = "[mysqld] log_bin = binlog, server_id = 1 -- in the server's configuration, then restart it";
        Finding::error("source.log_bin", "the server writes no binary log", "log_bin", Some(fix.into()))
    });
    let set =
        |name: &str, value: &str| Some(format!("SET GLOBAL {name} = '{value}' -- and in the server's configuration"));
    let shown = |name: &str| format!("{name} = {}", variables.get(name).unwrap_or("(not there)"));
    // A server that no longer has the setting knows rows only.
    findings.push(if variables.get("binlog_format").is_none() || variables.is("binlog_format", "ROW") {
        Finding::ok("source.binlog_format", "rows are logged")
    } else {
        let wanted = "binlog_format = ROW: statements do not tell which rows they changed";
        Finding::error("source.binlog_format", shown("binlog_format"), wanted, set("binlog_format", "ROW"))
    });
    findings.push(if variables.get("binlog_row_image").is_none() || variables.is("binlog_row_image", "FULL") {
        Finding::ok("source.binlog_row_image", "whole rows are logged")
    } else {
        let wanted = "binlog_row_image = FULL: what an update leaves out has to be read from the table again";
        Finding::warning("source.binlog_row_image", shown("binlog_row_image"), wanted, set("binlog_row_image", "FULL"))
    });
    findings.push(if variables.is("binlog_row_metadata", "FULL") {
        Finding::ok("source.binlog_row_metadata", "the log names its columns")
    } else {
        let wanted = "binlog_row_metadata = FULL (MySQL 8.0.1, MariaDB 10.5): without names in the log, a table that was \
                      altered while the daemon was away has to be read again";
        let fix = variables.get("binlog_row_metadata").and_then(|_| set("binlog_row_metadata", "FULL"));
        Finding::warning("source.binlog_row_metadata", shown("binlog_row_metadata"), wanted, fix)
    });
    if let Some(options) = variables.get("binlog_row_value_options").filter(|o| !o.is_empty()) {
        findings.push(Finding::ok(
            "source.binlog_row_value_options",
            format!("{options}: changes of documents are put together"),
        ));
    }
    findings.push(match flavor {
        Flavor::MariaDb => Finding::ok("source.gtid", "MariaDB: every transaction has a GTID"),
        Flavor::MySql if variables.is("gtid_mode", "ON") => Finding::ok("source.gtid", "gtid_mode = ON"),
        Flavor::MySql => Finding::warning(
            "source.gtid",
            shown("gtid_mode"),
            "gtid_mode = ON: file and offset mean nothing on another server, so after a failover everything is read again",
            Some(
                "SET GLOBAL enforce_gtid_consistency = ON; SET GLOBAL gtid_mode = OFF_PERMISSIVE; \
                 SET GLOBAL gtid_mode = ON_PERMISSIVE; SET GLOBAL gtid_mode = ON"
                    .into(),
            ),
        ),
    });
    findings
}

/// Whether an error says that a right is missing.
fn is_denied(error: &SourceError) -> bool {
    error.kind == ErrorKind::PermissionMissing || matches!(server_code(error), Some(1227 | 1142 | 1045))
}

/// The proof of the pudding: the head of the log, and its beginning read as a replica does.
async fn rights(config: &MysqlConfig, session: &mut Session, tables: &[TableRequest]) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let grant = |right: &str| Some(format!("GRANT {right} ON *.* TO {}", account(config)));
    let is_mariadb = session.connection.is_mariadb;
    let head = match session.head().await {
        Ok(head) => head,
        Err(error) if is_denied(&error) => {
            let right = if is_mariadb { "BINLOG MONITOR" } else { "REPLICATION CLIENT" };
            let wanted = "the right to ask where the log's head is";
            findings
                .push(Finding::error("source.replication_client", error.message, wanted, grant(right)).permission());
            return Ok(findings);
        }
        Err(error) => return Err(error),
    };
    findings.push(Finding::ok("source.replication_client", format!("the log's head is {}:{}", head.file, head.offset)));
    match resume::created(config, &head.file).await {
        Ok(_) => findings.push(Finding::ok("source.replication_right", format!("{} may read the log", config.user))),
        Err(error) if is_denied(&error) => {
            let wanted = "the right to read the log";
            findings.push(
                Finding::error("source.replication_right", error.message, wanted, grant("REPLICATION SLAVE"))
                    .permission(),
            );
        }
        Err(error) => return Err(error),
    }
    // Databases can be kept out of the log.
    let sql =
        if !is_mariadb && session.server.version >= (8, 2) { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    let status =
        session.connection.rows("asking for the log's filters", sql).await?.into_iter().next().unwrap_or_default();
    let list = |at: usize| status.get(at).cloned().flatten().unwrap_or_default();
    let (only, never) = (list(2), list(3));
    let has = |list: &str, name: &str| list.split(',').any(|n| n.trim() == name);
    for request in tables {
        let database = &*request.table.schema;
        if (!only.is_empty() && !has(&only, database)) || has(&never, database) {
            let observed = format!("changes in database {database} are kept out of the log");
            let fix = "remove binlog_do_db and binlog_ignore_db from the server's configuration, then restart it";
            let finding = Finding::error("source.binlog_filter", observed, "all changes in the log", Some(fix.into()));
            findings.push(finding.about(&request.table));
        }
    }
    Ok(findings)
}

async fn server_id(config: &MysqlConfig, session: &mut Session, variables: &Variables) -> Result<Vec<Finding>> {
    const ID: &str = "source.server_id";
    let ours = config.server_id.to_string();
    let wanted = "an id that no server and no other reader of this log has";
    let fix = || Some("choose another server_id in [source.mysql]".to_owned());
    if variables.is("server_id", &ours) {
        return Ok(vec![Finding::error(ID, format!("server_id {ours} is the server's own"), wanted, fix())]);
    }
    let newer = !session.connection.is_mariadb && session.server.version >= (8, 0);
    let sql = if newer { "SHOW REPLICAS" } else { "SHOW SLAVE HOSTS" };
    let readers = match session.connection.rows("listing who reads the log", sql).await {
        Ok(rows) => rows,
        // MariaDB has a right of its own for this.
        Err(error) if is_denied(&error) => Vec::new(),
        Err(error) => return Err(error),
    };
    let taken = readers.iter().any(|row| row.first().is_some_and(|id| id.as_deref() == Some(&*ours)));
    Ok(vec![if taken {
        let observed = format!("somebody reads the log under server_id {ours}");
        Finding::warning(ID, observed, "nobody, unless it is this tenant's own daemon", fix())
    } else {
        Finding::ok(ID, format!("server_id {ours} is free"))
    }])
}

async fn replica(session: &mut Session, variables: &Variables) -> Result<Vec<Finding>> {
    let newer = !session.connection.is_mariadb && session.server.version >= (8, 0);
    let sql = if newer { "SHOW REPLICA STATUS" } else { "SHOW SLAVE STATUS" };
    let is_replica = match session.connection.rows("asking whether the server is a replica", sql).await {
        Ok(rows) => !rows.is_empty(),
        Err(error) if is_denied(&error) => false,
        Err(error) => return Err(error),
    };
    if !is_replica {
        return Ok(Vec::new());
    }
    let logs = variables.is("log_slave_updates", "ON") || variables.is("log_replica_updates", "ON");
    Ok(vec![if logs {
        Finding::ok("source.replica", "the server is a replica and logs what it replicates")
    } else {
        let fix = "[mysqld] log_slave_updates = ON -- in the server's configuration, then restart it";
        let observed = "the server is a replica that does not log what it replicates";
        Finding::error("source.replica", observed, "log_slave_updates (log_replica_updates)", Some(fix.into()))
    }])
}

/// Where XA transactions are in use, whether the server tells which are prepared.
async fn prepared(config: &MysqlConfig, session: &mut Session) -> Result<Option<Finding>> {
    const ID: &str = "source.xa";
    if !xa::in_use(session).await? {
        return Ok(None);
    }
    Ok(Some(match xa::prepared(session).await? {
        Some(xids) => Finding::ok(ID, format!("{} XA transactions are prepared", xids.len())),
        None => Finding::warning(
            ID,
            "XA transactions are used, and the account may not ask which are prepared",
            "XA_RECOVER_ADMIN: without it, one that was prepared before a stream began makes everything be read again when it \
             commits, even if it is about other tables",
            Some(format!("GRANT XA_RECOVER_ADMIN ON *.* TO {}", account(config))),
        ),
    }))
}

fn log_retention(variables: &Variables, bytes: u64) -> Finding {
    const ID: &str = "source.retention";
    let snapshot = Duration::from_secs(bytes / SNAPSHOT_BYTES_PER_SECOND + 60);
    let hours = |d: Duration| format!("{:.1} h", d.as_secs_f64() / 3600.0);
    match variables.retention() {
        None => Finding::ok(ID, "the log is kept until it is purged by hand"),
        Some(kept) if kept < snapshot * 4 || kept < Duration::from_secs(86_400) => {
            let name = if variables.get("binlog_expire_logs_seconds").is_some() {
                "binlog_expire_logs_seconds = 604800"
            } else {
                "expire_logs_days = 7"
            };
            Finding::warning(
                ID,
                format!("the log is kept for {}; a snapshot may take {}", hours(kept), hours(snapshot)),
                "at least a day, and four times the snapshot: a stop that lasts longer makes everything be read again",
                Some(format!("SET GLOBAL {name} -- and in the server's configuration")),
            )
        }
        Some(kept) => Finding::ok(ID, format!("the log is kept for {}", hours(kept))),
    }
}

/// A policy for a column that is not there, or has no dates, is a slip of the pen.
fn zero_dates(config: &MysqlConfig, found: &HashMap<TableId, Table>) -> Vec<Finding> {
    let is_meant = |name: &str| {
        let mut columns = found.iter().flat_map(|(id, table)| table.columns.iter().map(move |column| (id, column)));
        columns.any(|(id, column)| {
            column.kind(config, id).is_ok_and(|kind| kind.has_zero_dates()) && is_column(name, id, &column.name)
        })
    };
    let unknown = config.zero_dates_by_column.iter().filter(|(name, _)| !is_meant(name));
    let finding = |(name, _): &(Box<str>, _)| {
        Finding::error(
            "source.zero_dates",
            format!("[source.mysql.zero_dates] names {name}"),
            "a column of dates, as table.column, of a table that is mapped",
            None,
        )
    };
    unknown.map(finding).collect()
}

fn table_findings(config: &MysqlConfig, table: &Table, request: &TableRequest, image: catalog::Image) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = format!("{}.{}", ident(&table.schema), ident(&table.name));
    if let Some(reason) = table.unsuitable() {
        findings.push(Finding::error("source.table_kind", reason, "an ordinary table", None));
    } else if let Err(reason) = table.shape(request, config, image) {
        let fix = match &request.key {
            Some(key) => {
                let columns: Vec<String> = key.iter().map(|c| ident(c)).collect();
                format!("ALTER TABLE {name} ADD UNIQUE KEY ({}) -- of columns that are NOT NULL", columns.join(", "))
            }
            None => format!("ALTER TABLE {name} ADD PRIMARY KEY (…), or declare a unique key"),
        };
        findings.push(Finding::error("source.key", reason, "a key that identifies rows", Some(fix)));
    }
    for column in request.columns.iter().flatten().filter(|c| table.column(c).is_none()) {
        let observed = format!("column {column} does not exist");
        findings.push(Finding::error("source.column_exists", observed, "the column, as it is written", None));
    }
    if !table.engine.eq_ignore_ascii_case("InnoDB") && table.unsuitable().is_none() {
        findings.push(Finding::warning(
            "source.engine",
            format!("its engine is {}", table.engine),
            "InnoDB: without transactions a change may be visible before it is in the log, and stay if it fails half-way",
            Some(format!("ALTER TABLE {name} ENGINE = InnoDB")),
        ));
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

/// Rows that the engine itself changes along a foreign key are not in the log.
async fn cascades(connection: &mut Sql, table: &Table, request: &TableRequest) -> Result<Option<Finding>> {
    if table.unsuitable().is_some() {
        return Ok(None);
    }
    // The catalogue shows rules of foreign keys only to those who may do more than read.
    let sql = format!("SHOW CREATE TABLE {}.{}", ident(&table.schema), ident(&table.name));
    let rows = connection.rows("reading foreign keys", &sql).await?;
    let text = rows.into_iter().next().and_then(|row| row.into_iter().nth(1).flatten()).unwrap_or_default();
    let moves = |line: &&str| {
        let rules = ["DELETE CASCADE", "DELETE SET NULL", "UPDATE CASCADE", "UPDATE SET NULL"];
        line.trim_start().starts_with("CONSTRAINT")
            && line.contains(" FOREIGN KEY ")
            && rules.iter().any(|rule| line.contains(&format!(" ON {rule}")))
    };
    let names: Vec<&str> = text.lines().filter(moves).filter_map(|line| line.split('`').nth(1)).collect();
    if names.is_empty() {
        return Ok(None);
    }
    let finding = Finding::warning(
        "source.cascade",
        format!("the foreign key {} changes its rows along with another table's", names.join(", ")),
        "changes by statements: what the engine does along a foreign key is not in the log (before MySQL 9.6), and is found \
         by a resync or verify only",
        None,
    );
    Ok(Some(finding.about(&request.table)))
}
