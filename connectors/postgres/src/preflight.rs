//! Findings: every prerequisite, looked at in one go, each with the statement that mends it. Changes nothing.

use crate::PostgresConfig;
use crate::catalog::{self, Table, missing_table};
use crate::error::sqlstate;
use crate::slot::{self, PublicationState, SlotState};
use crate::sql::{Queries, Sql};
use crate::types::Types;
use crate::wire::{Connection, ident};
use serde::Deserialize;
use std::collections::HashSet;
use tidemark_contract::{Finding, Result, Severity, SourceError, TableId, TableRequest};
use tidemark_login::TlsMode;

/// What the server says about itself.
#[derive(Deserialize)]
struct Server {
    wal_level: Box<str>,
    encoding: Box<str>,
    max_slots: i64,
    slots: i64,
    max_senders: i64,
    senders: i64,
    /// In megabytes; -1 is no limit. Missing before version 13.
    keep_mb: Option<i64>,
    standby: bool,
    may_create: bool,
    /// Seconds since the oldest transaction that writes began.
    oldest: Option<f64>,
}

const SERVER: &str = "SELECT jsonb_build_object(
    'wal_level', current_setting('wal_level'),
    'encoding', current_setting('server_encoding'),
    'max_slots', current_setting('max_replication_slots')::int,
    'slots', (SELECT count(*) FROM pg_replication_slots),
    'max_senders', current_setting('max_wal_senders')::int,
    'senders', (SELECT count(*) FROM pg_stat_replication),
    'keep_mb', (SELECT setting::int8 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
    'standby', pg_is_in_recovery(),
    'may_create', has_database_privilege(current_database(), 'CREATE'),
    'oldest', (SELECT extract(epoch FROM max(now() - xact_start)) FROM pg_stat_activity WHERE backend_xid IS NOT NULL))";

/// Looks at everything that `tables` need.
pub(crate) async fn run(config: &PostgresConfig, tables: &[TableRequest]) -> Result<Vec<Finding>> {
    let mut connection = Sql::open(config).await?;
    let mut findings = vec![version(connection.major()), tls(config, connection.encrypted)];
    let server = connection.value("reading the server's settings", SERVER).await?.unwrap_or_default();
    let server: Server = serde_json::from_str(&server)
        .map_err(|e| crate::error::undecodable("the server's settings were not understood").caused_by(e))?;
    findings.push(replication_right(config).await?);
    findings.extend(settings(&server));

    let slot = slot::state(&mut connection, &config.slot).await?;
    findings.push(slot_finding(config, slot.as_ref()));
    if slot.is_none() {
        findings.extend(room_for_a_slot(&server));
    }
    findings.push(log_retention(&server, slot.as_ref()));

    let names: Vec<TableId> = tables.iter().map(|t| t.table.clone()).collect();
    let mut types = Types::default();
    let found = catalog::describe(&mut connection, &mut types, &names).await?;
    let mut present = Vec::new();
    for request in tables {
        let Some(table) = found.get(&request.table) else {
            let error = missing_table(&request.table);
            let wanted = "a table of exactly this name, letter case included";
            findings.push(Finding::error("source.table_exists", error.message, wanted, None).about(&request.table));
            continue;
        };
        findings.extend(table_findings(config, table, request, &types));
        if table.unsuitable().is_none() {
            present.push((table, request));
        }
    }
    findings.extend(overlapping_partitions(&mut connection, &present).await?);
    let publication = slot::publication(&mut connection, &config.publication).await?;
    findings.extend(publication_findings(config, connection.major(), publication.as_ref(), &present, &server));
    connection.terminate().await;
    Ok(findings)
}

fn version(major: u32) -> Finding {
    let observed = format!("PostgreSQL {major}");
    match major {
        15.. => Finding::ok("source.version", observed),
        13 | 14 => Finding::warning("source.version", observed, "PostgreSQL 15 or later, which is what we test", None),
        _ => Finding::error("source.version", observed, "PostgreSQL 13 or later", None),
    }
}

fn tls(config: &PostgresConfig, encrypted: bool) -> Finding {
    let local = matches!(config.host.as_str(), "localhost" | "127.0.0.1" | "::1");
    match config.tls.mode {
        _ if config.is_unix() => Finding::ok("source.tls", "a unix socket: nothing leaves this machine"),
        TlsMode::Disable if !local => Finding::warning(
            "source.tls",
            "the connection is not encrypted",
            "TLS: rows travel readable for others",
            Some("set tls mode \"verify-full\"".into()),
        ),
        TlsMode::Require if config.tls.ca_file.is_none() => Finding::warning(
            "source.tls",
            "encrypted, but the server's certificate is not verified",
            "mode verify-full: anybody could answer in the server's place",
            Some("set tls mode \"verify-full\", and ca_file if the authority is your own".into()),
        ),
        mode => Finding::ok("source.tls", format!("mode {mode:?}, encrypted: {encrypted}")),
    }
}

/// The proof of the pudding: a replication connection.
async fn replication_right(config: &PostgresConfig) -> Result<Finding> {
    const ID: &str = "source.replication_right";
    let wanted = "a role that may open replication connections";
    match Connection::open(config).await {
        Ok(connection) => {
            connection.terminate().await;
            Ok(Finding::ok(ID, format!("role {} may replicate", config.user)))
        }
        Err(error) => match sqlstate(&error) {
            Some("42501") => {
                let fix = format!("ALTER ROLE {} REPLICATION", ident(&config.user));
                let fix = format!("{fix}; -- Amazon RDS: GRANT rds_replication TO {}", ident(&config.user));
                Ok(Finding::error(ID, error.message, wanted, Some(fix)).permission())
            }
            Some("53300") => {
                let fix = "ALTER SYSTEM SET max_wal_senders = 10; -- then restart the server".to_owned();
                Ok(Finding::error("source.senders_free", error.message, "a free place for a sender", Some(fix)))
            }
            Some(code) if code.starts_with("28") => {
                let SourceError { message, hint, .. } = error;
                Ok(Finding::error(ID, message, wanted, hint).permission())
            }
            _ => Err(error),
        },
    }
}

fn settings(server: &Server) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(if &*server.wal_level == "logical" {
        Finding::ok("source.wal_level", "wal_level = logical")
    } else {
        let fix = "ALTER SYSTEM SET wal_level = logical; -- then restart the server";
        let observed = format!("wal_level = {}", server.wal_level);
        Finding::error("source.wal_level", observed, "wal_level = logical", Some(fix.into()))
    });
    if &*server.encoding == "SQL_ASCII" {
        findings.push(Finding::warning(
            "source.encoding",
            "the database's encoding is SQL_ASCII: the server does not know what its bytes mean",
            "an encoding; text that is not UTF-8 is passed on as bytes, and records with such text are set aside",
            None,
        ));
    }
    if server.standby {
        findings.push(Finding::warning(
            "source.standby",
            "the server is a standby",
            "version 16 or later there, a publication made on the primary, and a primary that is not idle",
            None,
        ));
    }
    findings
}

fn slot_finding(config: &PostgresConfig, slot: Option<&SlotState>) -> Finding {
    const ID: &str = "source.slot";
    let name = &config.slot;
    let drop = format!("SELECT pg_drop_replication_slot('{}')", name.replace('\'', "''"));
    let Some(state) = slot else {
        return Finding::ok(ID, format!("slot {name} does not exist yet and will be created"));
    };
    if let Some(foreign) = state.foreign(config) {
        return Finding::error(
            ID,
            foreign,
            "a slot of ours, or a name that is free",
            Some("choose another slot name".into()),
        );
    }
    if let Some(reason) = state.invalid() {
        let wanted = "a slot that still reaches back; the daemon starts anew as its gap policy says";
        return Finding::warning(ID, format!("slot {name} is lost: {reason}"), wanted, Some(drop));
    }
    if let Some(pid) = state.active_pid.filter(|_| state.active) {
        return Finding::warning(
            ID,
            format!("slot {name} is in use by the server process {pid}"),
            "a free slot, unless the daemon that uses it is this tenant's own",
            Some(format!("SELECT pg_terminate_backend({pid})")),
        );
    }
    let confirmed = state.confirmed_flush_lsn.as_deref().unwrap_or("nothing");
    Finding::ok(ID, format!("slot {name} exists and confirms {confirmed}"))
}

fn room_for_a_slot(server: &Server) -> Vec<Finding> {
    let mut findings = Vec::new();
    let used = format!("{} of {} replication slots are in use", server.slots, server.max_slots);
    findings.push(if server.slots < server.max_slots {
        Finding::ok("source.slots_free", used)
    } else {
        let fix =
            format!("ALTER SYSTEM SET max_replication_slots = {}; -- then restart the server", server.max_slots + 5);
        Finding::error("source.slots_free", used, "a free replication slot", Some(fix))
    });
    let used = format!("{} of {} senders are in use", server.senders, server.max_senders);
    findings.push(if server.senders < server.max_senders {
        Finding::ok("source.senders_free", used)
    } else {
        let fix = format!("ALTER SYSTEM SET max_wal_senders = {}; -- then restart the server", server.max_senders + 5);
        Finding::error("source.senders_free", used, "a free place for a sender", Some(fix))
    });
    if let Some(seconds) = server.oldest.filter(|s| *s > 60.0) {
        findings.push(Finding::warning(
            "source.open_transactions",
            format!("a transaction has been writing for {seconds:.0} s"),
            "none: creating the slot waits until it ends",
            Some(
                "SELECT pid, usename, xact_start, state FROM pg_stat_activity WHERE backend_xid IS NOT NULL \
                 ORDER BY xact_start"
                    .into(),
            ),
        ));
    }
    findings
}

fn log_retention(server: &Server, slot: Option<&SlotState>) -> Finding {
    const ID: &str = "source.wal_keep";
    let left = slot.and_then(|s| s.safe_wal_size).map_or_else(String::new, |left| {
        format!("; {} MB may still be written before the slot is lost", left.max(0) >> 20)
    });
    match server.keep_mb {
        None | Some(-1) => Finding::warning(
            ID,
            "max_slot_wal_keep_size = -1: while the daemon is stopped the server keeps its log without limit",
            "a limit that the disk can hold and a long stop needs; beyond it the slot is lost and everything is read again",
            Some("ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf()".into()),
        ),
        Some(mb) => Finding::ok(ID, format!("max_slot_wal_keep_size = {mb} MB{left}")),
    }
}

fn table_findings(config: &PostgresConfig, table: &Table, request: &TableRequest, types: &Types) -> Vec<Finding> {
    let id = &request.table;
    let user = ident(&config.user);
    let mut findings = Vec::new();
    if let Some(reason) = table.unsuitable() {
        let fix = (table.persistence == 'u').then(|| format!("ALTER TABLE {} SET LOGGED", table.sql()));
        findings.push(Finding::error("source.table_kind", reason, "an ordinary or partitioned table", fix));
    }
    if !table.may_use_schema {
        let fix = format!("GRANT USAGE ON SCHEMA {} TO {user}", ident(&id.schema));
        let observed = format!("role {} may not use schema {}", config.user, id.schema);
        findings.push(Finding::error("source.select_right", observed, "USAGE on the schema", Some(fix)).permission());
    }
    if !table.may_select {
        let fix = format!("GRANT SELECT ON {} TO {user}", table.sql());
        let observed = format!("role {} may not select from the table", config.user);
        findings
            .push(Finding::error("source.select_right", observed, "SELECT on the whole table", Some(fix)).permission());
    }
    if table.is_secured {
        findings.push(
            Finding::error(
                "source.row_security",
                "row-level security hides rows from this role",
                "all rows: the log shows them all, and a snapshot that does not would differ",
                Some(format!("ALTER ROLE {user} BYPASSRLS")),
            )
            .permission(),
        );
    }
    match table.shape(request, types) {
        Err(reason) if table.unsuitable().is_none() => {
            let fix = match &request.key {
                Some(key) => {
                    let columns: Vec<String> = key.iter().map(|c| ident(c)).collect();
                    format!(
                        "CREATE UNIQUE INDEX ON {} ({}) -- of columns that are NOT NULL",
                        table.sql(),
                        columns.join(", ")
                    )
                }
                None => format!("ALTER TABLE {} ADD PRIMARY KEY (…), or declare a unique key", table.sql()),
            };
            findings.push(Finding::error("source.key", reason, "a key that identifies rows", Some(fix)));
        }
        Err(_) => {}
        Ok(_) => findings.extend(identity(table, request)),
    }
    for column in request.columns.iter().flatten().filter(|c| table.column(c).is_none()) {
        let observed = format!("column {column} does not exist");
        findings.push(Finding::error("source.column_exists", observed, "the column, exactly as it is written", None));
    }
    if table.has_children {
        findings.push(Finding::warning(
            "source.inheritance",
            "other tables inherit from it",
            "only rows of this table itself are read; name the others if they are wanted",
            None,
        ));
    }
    if table.kind == 'p' {
        findings.push(Finding::warning(
            "source.partitions",
            "it is partitioned",
            "rows leave by DELETE or TRUNCATE of the whole: detaching, dropping or truncating one partition is not in \
             the log, and needs a resync afterwards",
            None,
        ));
    }
    if findings.iter().all(|f| f.severity != Severity::Error) {
        let key = table.key(request.key.as_deref()).unwrap_or_default().join(", ");
        findings.push(Finding::ok("source.table", format!("readable, key ({key})")));
    }
    findings.into_iter().map(|f| f.about(id)).collect()
}

/// Whether updates and deletes can be told apart by the key.
fn identity(table: &Table, request: &TableRequest) -> Option<Finding> {
    let key = table.key(request.key.as_deref()).ok()?;
    let bad = table.identities.iter().flatten().find(|identity| !identity.covers(&key))?;
    let kind = match bad.kind {
        'n' => "NOTHING",
        'i' => "an index without the key's columns",
        'd' => "DEFAULT, but the primary key does not hold the key's columns",
        _ => "unknown",
    };
    // Identities of partitions are set on each of them.
    let of = if table.kind == 'p' { " of a partition" } else { "" };
    let by_default = request.key.is_none();
    let fix = format!("ALTER TABLE {} REPLICA IDENTITY {}", table.sql(), if by_default { "DEFAULT" } else { "FULL" });
    let fix = if table.kind == 'p' { format!("for each partition: {fix}") } else { fix };
    Some(Finding::error(
        "source.replica_identity",
        format!("the replica identity{of} is {kind}: the log does not tell which row was updated or deleted"),
        format!("an identity that holds the key ({})", key.join(", ")),
        Some(fix),
    ))
}

/// A partition cannot be read beside the table it belongs to: its changes are published under the root's name.
async fn overlapping_partitions(connection: &mut Sql, present: &[(&Table, &TableRequest)]) -> Result<Vec<Finding>> {
    let oids: HashSet<u32> = present.iter().map(|(table, _)| table.oid).collect();
    let mut findings = Vec::new();
    for (table, request) in present.iter().filter(|(table, _)| table.is_partition) {
        let sql = format!("SELECT relid::oid FROM pg_partition_ancestors({}) WHERE relid <> {0}", table.oid);
        for row in connection.rows("reading partitions", &sql).await? {
            let ancestor = row.first().and_then(|oid| oid.as_deref()?.parse::<u32>().ok());
            if ancestor.is_some_and(|oid| oids.contains(&oid)) {
                let observed = "it is a partition of a table that is read as well";
                let wanted = "one of the two: changes come under the root's name";
                findings.push(Finding::error("source.partition", observed, wanted, None).about(&request.table));
            }
        }
    }
    Ok(findings)
}

fn publication_findings(
    config: &PostgresConfig,
    major: u32,
    publication: Option<&PublicationState>,
    present: &[(&Table, &TableRequest)],
    server: &Server,
) -> Vec<Finding> {
    const ID: &str = "source.publication";
    let name = &config.publication;
    let tables: Vec<&Table> = present.iter().map(|(table, _)| *table).collect();
    let not_owned: Vec<String> = tables.iter().filter(|t| !t.is_owned).map(|t| t.id().to_string()).collect();
    let Some(state) = publication else {
        let sql = slot::creation_sql(config, &tables, major);
        if server.may_create && not_owned.is_empty() && !server.standby {
            return vec![Finding::ok(ID, format!("publication {name} does not exist yet and will be created"))];
        }
        let observed = format!("publication {name} does not exist, and role {} may not create it", config.user);
        return vec![
            Finding::error(ID, observed, "the publication, made by the tables' owner", Some(sql)).permission(),
        ];
    };
    let mut findings = Vec::new();
    for drift in state.drift(config, present) {
        let finding = Finding::error(ID, drift.observed, "all changes of all rows and columns read", Some(drift.fix));
        findings.push(match &drift.table {
            Some(table) => finding.about(table),
            None => finding,
        });
    }
    for table in state.missing(&tables) {
        let sql = PublicationState::addition_sql(config, &[table]);
        let observed = format!("publication {name} does not publish it");
        findings.push(if table.is_owned && state.is_ours && !server.standby {
            Finding::ok(ID, format!("{observed} yet; it will be added")).about(&table.id())
        } else {
            Finding::error(ID, observed, "the table in the publication", Some(sql)).permission().about(&table.id())
        });
    }
    if findings.is_empty() {
        findings.push(Finding::ok(ID, format!("publication {name} publishes all {} tables", tables.len())));
    }
    findings
}
