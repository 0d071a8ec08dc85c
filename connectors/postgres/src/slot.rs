//! The publication and the replication slot: made, checked against a stored position, removed.
//!
//! # How a slot behind our back is noticed
//!
//! PostgreSQL does not record when a slot was created. What it does record is enough, because of the order in which the
//! daemon works: it saves a position, flushes it, and only then acknowledges it. So as long as nobody else touches the
//! slot, its `confirmed_flush_lsn` is never greater than the position the daemon comes back with. A slot that was dropped
//! and made again confirms the place of its creation, which lies behind everything that was ever acknowledged (creating it
//! writes to the log); one that was advanced by hand confirms what was never delivered. Both are seen as
//! `confirmed_flush_lsn > position`, and answered with `PositionLost`. A position *ahead* of the server's log means that
//! the server was set back (restored, or promoted without having received everything) and is lost as well.

use crate::catalog::{Table, sql_name};
use crate::error::{sqlstate, undecodable};
use crate::position::{Lsn, Place, Tables, lost};
use crate::sql::Queries;
use crate::wire::{Connection, ident, literal};
use crate::{PostgresConfig, catalog};
use serde::Deserialize;
use std::collections::HashSet;
use std::time::Duration;
use tidemark_contract::{ErrorKind, Result, SourceError, TableId, TableRequest};

/// What the catalogue knows of a slot. Fields that a version lacks are `None`.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct SlotState {
    pub(crate) plugin: Option<String>,
    pub(crate) database: Option<String>,
    #[serde(default)]
    pub(crate) active: bool,
    pub(crate) active_pid: Option<i32>,
    pub(crate) restart_lsn: Option<String>,
    pub(crate) confirmed_flush_lsn: Option<String>,
    /// reserved, extended, unreserved or lost (13).
    pub(crate) wal_status: Option<String>,
    /// Bytes that may still be written before the slot is lost (13).
    pub(crate) safe_wal_size: Option<i64>,
    /// Whether recovery on a standby removed rows that the slot needs (16).
    pub(crate) conflicting: Option<bool>,
    /// Why it was invalidated (17).
    pub(crate) invalidation_reason: Option<String>,
}

impl SlotState {
    pub(crate) fn confirmed(&self) -> Option<Lsn> {
        self.confirmed_flush_lsn.as_deref()?.parse().ok()
    }

    pub(crate) fn restart(&self) -> Option<Lsn> {
        self.restart_lsn.as_deref()?.parse().ok()
    }

    /// Why the slot can never be used again, if that is so.
    pub(crate) fn invalid(&self) -> Option<String> {
        if let Some(reason) = self.invalidation_reason.as_deref().filter(|r| !r.is_empty()) {
            return Some(format!("the server invalidated it ({reason})"));
        }
        if self.wal_status.as_deref() == Some("lost") {
            return Some("the server removed log that it needs (wal_status = lost)".into());
        }
        if self.conflicting == Some(true) {
            return Some("recovery removed rows that it needs (conflicting)".into());
        }
        None
    }

    /// Whether the slot is of the kind we make, in our database. Others are never touched.
    pub(crate) fn foreign(&self, config: &PostgresConfig) -> Option<String> {
        if self.plugin.as_deref() != Some("pgoutput") {
            let plugin = self.plugin.as_deref().unwrap_or("none: it is physical");
            return Some(format!("slot {} exists, but its plugin is {plugin}, not pgoutput", config.slot));
        }
        match self.database.as_deref() {
            Some(database) if database != config.database => {
                Some(format!("slot {} exists, but in database {database}", config.slot))
            }
            _ => None,
        }
    }
}

/// Reads a slot's state; `None` if there is no such slot.
pub(crate) async fn state(connection: &mut impl Queries, slot: &str) -> Result<Option<SlotState>> {
    let sql = format!("SELECT to_jsonb(s) FROM pg_replication_slots s WHERE slot_name = {}", literal(slot));
    let Some(text) = connection.value("reading the state of the slot", &sql).await? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|e| undecodable("the slot's state was not understood").caused_by(e))
}

/// Checks that everything after `place` is still to be had from the slot; `head` is the log's present end.
pub(crate) fn check(state: Option<&SlotState>, config: &PostgresConfig, place: Place, head: Lsn) -> Result<()> {
    let slot = &config.slot;
    let Some(state) = state else {
        return Err(lost(format!("slot {slot} does not exist any more: changes since {place} may be gone"))
            .hint("somebody dropped it, or this server was promoted without it"));
    };
    if let Some(foreign) = state.foreign(config) {
        return Err(lost(foreign));
    }
    if let Some(reason) = state.invalid() {
        return Err(lost(format!("slot {slot} is lost: {reason}; changes since {place} may be gone"))
            .hint("raise max_slot_wal_keep_size (or idle_replication_slot_timeout), or keep the daemon running"));
    }
    match state.confirmed() {
        Some(confirmed) if confirmed > place.lsn => Err(lost(format!(
            "slot {slot} confirms {confirmed}, but nothing after {place} was acknowledged from here: the slot was made \
             anew, moved on by hand, or used by somebody else"
        ))),
        None => Err(lost(format!("slot {slot} confirms no place"))),
        _ if place.lsn > head => Err(lost(format!(
            "the position {place} is ahead of the server's log, which ends at {head}: the server was restored or \
             replaced by one that had received less"
        ))),
        _ => Ok(()),
    }
}

/// Waits until no other connection holds the slot, for the configured time.
pub(crate) async fn wait_until_free(connection: &mut Connection, config: &PostgresConfig) -> Result<Option<SlotState>> {
    let deadline = tokio::time::Instant::now() + config.slot_wait;
    let mut told = false;
    loop {
        let state = state(connection, &config.slot).await?;
        let Some(busy) = state.as_ref().filter(|s| s.active) else { return Ok(state) };
        let pid = busy.active_pid.map_or_else(|| "unknown".into(), |pid| pid.to_string());
        if tokio::time::Instant::now() >= deadline {
            return Err(SourceError::new(
                ErrorKind::Unreachable,
                format!(
                    "slot {} is still in use by the server process {pid} after {:?}",
                    config.slot, config.slot_wait
                ),
            )
            .hint(format!(
                "another daemon reads from this slot, or the server has not noticed that a connection is dead: \
                 SELECT pg_terminate_backend({pid})"
            )));
        }
        if !told {
            tracing::warn!(slot = %config.slot, pid, "the slot is in use; waiting for it to become free");
            told = true;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Creates the slot anew, after dropping an old one of that name; gives the place from which it delivers.
pub(crate) async fn create(connection: &mut Connection, config: &PostgresConfig) -> Result<Lsn> {
    let slot = &config.slot;
    if let Some(old) = wait_until_free(connection, config).await? {
        if let Some(foreign) = old.foreign(config) {
            return Err(SourceError::new(ErrorKind::SettingWrong, foreign).hint("choose another name for the slot"));
        }
        tracing::warn!(%slot, confirmed = ?old.confirmed(), "dropping an old slot of this name: the stream begins anew");
        drop_slot(connection, slot).await?;
    }
    let standby = connection.value("asking for the server's role", "SELECT pg_is_in_recovery()").await?;
    let options = match connection.major() {
        // A slot that is carried over to a promoted standby; it can only be made on the primary.
        17.. if standby.as_deref() == Some("f") => "(SNAPSHOT 'nothing', FAILOVER true)",
        15.. => "(SNAPSHOT 'nothing')",
        _ => "NOEXPORT_SNAPSHOT",
    };
    let command = format!("CREATE_REPLICATION_SLOT {} LOGICAL pgoutput {options}", ident(slot));
    let limit = config.slot_creation_timeout;
    connection.patience = connection.patience.max(limit);
    let created = tokio::time::timeout(limit, connection.rows("creating the replication slot", &command)).await;
    let rows = created.map_err(|_| {
        SourceError::new(ErrorKind::Unreachable, format!("slot {slot} could not be created within {limit:?}")).hint(
            "the server first waits for all transactions that are running: look for old ones with SELECT pid, xact_start \
             FROM pg_stat_activity WHERE backend_xid IS NOT NULL ORDER BY xact_start",
        )
    })?;
    let rows = rows.map_err(|error| explain_creation(error, slot))?;
    let place = rows.first().and_then(|row| row.get(1)?.as_deref()?.parse().ok());
    place.ok_or_else(|| undecodable("the server did not tell from where the new slot delivers"))
}

fn explain_creation(error: SourceError, slot: &str) -> SourceError {
    match sqlstate(&error) {
        Some("42501") => error.hint("ALTER ROLE … REPLICATION, or the service's own replication role"),
        Some("53400") => SourceError::new(
            ErrorKind::SettingWrong,
            format!("slot {slot} cannot be created: all replication slots are in use"),
        )
        .hint("raise max_replication_slots (needs a restart), or drop a slot that nobody uses"),
        Some("55000") => error.hint("set wal_level = logical in postgresql.conf (needs a restart)"),
        _ => error,
    }
}

async fn drop_slot(connection: &mut Connection, slot: &str) -> Result<()> {
    let sql = format!("SELECT pg_drop_replication_slot({})", literal(slot));
    connection.query("dropping the replication slot", &sql).await.map(drop)
}

/// What the comment of a publication made by us says; [`release`] removes only such ones.
const MADE_BY_US: &str = "made by tidemark";

#[derive(Debug, Deserialize)]
pub(crate) struct PublicationState {
    pubinsert: bool,
    pubupdate: bool,
    pubdelete: bool,
    pubtruncate: bool,
    pubviaroot: bool,
    /// Whether we own it, which changing it needs.
    pub(crate) is_ours: bool,
    comment: Option<String>,
    tables: Option<Vec<PublishedTable>>,
}

#[derive(Debug, Deserialize)]
struct PublishedTable {
    schemaname: Box<str>,
    tablename: Box<str>,
    attnames: Option<Vec<Box<str>>>,
    rowfilter: Option<String>,
}

/// What is wrong with a publication, and the statement that mends it.
#[derive(Debug)]
pub(crate) struct Drift {
    pub(crate) table: Option<TableId>,
    pub(crate) observed: String,
    pub(crate) fix: String,
}

/// Reads a publication's state; `None` if there is no such publication.
pub(crate) async fn publication(connection: &mut impl Queries, name: &str) -> Result<Option<PublicationState>> {
    let sql = format!(
        "SELECT to_jsonb(p) || jsonb_build_object('comment', obj_description(p.oid, 'pg_publication'),
            'is_ours', pg_has_role(p.pubowner, 'USAGE'),
            'tables', (SELECT jsonb_agg(to_jsonb(t)) FROM pg_publication_tables t WHERE t.pubname = p.pubname))
         FROM pg_publication p WHERE p.pubname = {}",
        literal(name)
    );
    let Some(text) = connection.value("reading the state of the publication", &sql).await? else { return Ok(None) };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|e| undecodable("the publication's state was not understood").caused_by(e))
}

/// A table as one reads it in `FOR TABLE` and `ADD TABLE`.
fn published_name(table: &Table) -> String {
    format!("{}{}", table.only(), table.sql())
}

/// The statement that creates the publication for `tables`.
pub(crate) fn creation_sql(config: &PostgresConfig, tables: &[&Table], major: u32) -> String {
    let list: Vec<String> = tables.iter().map(|t| published_name(t)).collect();
    let list = if list.is_empty() { String::new() } else { format!(" FOR TABLE {}", list.join(", ")) };
    let generated = if major >= 18 { ", publish_generated_columns = stored" } else { "" };
    format!(
        "CREATE PUBLICATION {}{list} WITH (publish = 'insert, update, delete, truncate', \
         publish_via_partition_root = true{generated})",
        ident(&config.publication)
    )
}

impl PublicationState {
    /// Tables that are not published.
    pub(crate) fn missing<'a>(&self, tables: &[&'a Table]) -> Vec<&'a Table> {
        let published: HashSet<(&str, &str)> =
            self.tables.iter().flatten().map(|t| (&*t.schemaname, &*t.tablename)).collect();
        tables.iter().copied().filter(|t| !published.contains(&(&*t.schema, &*t.name))).collect()
    }

    /// The statement that adds `tables`.
    pub(crate) fn addition_sql(config: &PostgresConfig, tables: &[&Table]) -> String {
        let list: Vec<String> = tables.iter().map(|t| published_name(t)).collect();
        format!("ALTER PUBLICATION {} ADD TABLE {}", ident(&config.publication), list.join(", "))
    }

    /// What else keeps changes of `tables` from being published as they must be.
    pub(crate) fn drift(&self, config: &PostgresConfig, tables: &[(&Table, &TableRequest)]) -> Vec<Drift> {
        let name = ident(&config.publication);
        let mut drift = Vec::new();
        let kinds = [
            (self.pubinsert, "insert"),
            (self.pubupdate, "update"),
            (self.pubdelete, "delete"),
            (self.pubtruncate, "truncate"),
        ];
        let left_out: Vec<&str> = kinds.iter().filter(|(on, _)| !on).map(|(_, kind)| *kind).collect();
        if !left_out.is_empty() {
            drift.push(Drift {
                table: None,
                observed: format!("publication {} leaves out: {}", config.publication, left_out.join(", ")),
                fix: format!("ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')"),
            });
        }
        if !self.pubviaroot {
            drift.push(Drift {
                table: None,
                observed: format!("publication {} publishes partitions under their own names", config.publication),
                fix: format!("ALTER PUBLICATION {name} SET (publish_via_partition_root = true)"),
            });
        }
        for published in self.tables.iter().flatten() {
            let id = TableId::new(published.schemaname.clone(), published.tablename.clone());
            let Some((table, request)) = tables.iter().find(|(t, _)| t.id() == id) else { continue };
            let key = table.key(request.key.as_deref()).unwrap_or_default();
            let fix = format!(
                "ALTER PUBLICATION {name} DROP TABLE {0}; ALTER PUBLICATION {name} ADD TABLE {0}",
                sql_name(&id)
            );
            if published.rowfilter.is_some() {
                let observed = format!("publication {} hides some rows of it (WHERE)", config.publication);
                drift.push(Drift { table: Some(id.clone()), observed, fix: fix.clone() });
            }
            let Some(names) = &published.attnames else { continue };
            let wanted = table.columns().iter().filter(|c| !c.generated && catalog::is_wanted(request, &key, &c.name));
            let left_out: Vec<&str> = wanted.filter(|c| !names.contains(&c.name)).map(|c| &*c.name).collect();
            if !left_out.is_empty() {
                let observed =
                    format!("publication {} leaves out its columns {}", config.publication, left_out.join(", "));
                drift.push(Drift { table: Some(id), observed, fix });
            }
        }
        drift
    }
}

/// Makes sure that the publication exists and publishes `tables`; creates it or adds to it where the rights allow. A table
/// that is not published although it belongs to the stream that is to go on (`known`) has left a gap.
pub(crate) async fn ensure_publication(
    connection: &mut Connection,
    config: &PostgresConfig,
    tables: &[(&Table, &TableRequest)],
    known: &Tables,
) -> Result<()> {
    let only_tables: Vec<&Table> = tables.iter().map(|(table, _)| *table).collect();
    let name = &config.publication;
    let state = publication(connection, name).await?;
    let missing = state.as_ref().map_or(only_tables.clone(), |state| state.missing(&only_tables));
    let gone: Vec<String> =
        missing.iter().map(|t| t.id()).filter(|id| known.oid(id).is_some()).map(|id| id.to_string()).collect();
    if !gone.is_empty() {
        return Err(lost(format!(
            "publication {name} no longer publishes {}, which it did when the position was saved: changes since then \
             are not in the log",
            gone.join(", ")
        )));
    }
    let Some(state) = state else {
        let sql = creation_sql(config, &only_tables, connection.major());
        let commented = format!("{sql}; COMMENT ON PUBLICATION {} IS {}", ident(name), literal(MADE_BY_US));
        tracing::info!(publication = %name, tables = tables.len(), "creating the publication");
        return execute(
            connection,
            &format!("publication {name} does not exist and cannot be created"),
            &commented,
            &sql,
        )
        .await;
    };
    if let Some(drift) = state.drift(config, tables).into_iter().next() {
        let table = drift.table.map_or_else(String::new, |t| format!("table {t}: "));
        return Err(SourceError::new(ErrorKind::SettingWrong, format!("{table}{}", drift.observed)).hint(drift.fix));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let sql = PublicationState::addition_sql(config, &missing);
    let names: Vec<String> = missing.iter().map(|t| t.id().to_string()).collect();
    let names = names.join(", ");
    tracing::info!(publication = %name, tables = %names, "adding tables to the publication");
    execute(connection, &format!("publication {name} lacks {names}, and they cannot be added"), &sql, &sql).await?;
    let still_missing = publication(connection, name).await?.map_or_else(Vec::new, |state| state.missing(&only_tables));
    match still_missing.first() {
        None => settle(connection, config).await,
        Some(table) => Err(catalog::refused(
            &table.id(),
            "it is a partition of a table that is published too, so its changes come under that table's name",
        )),
    }
}

/// Runs DDL; a missing right becomes an error with `hint`, the statement for somebody who has it.
/// Waits until every transaction that was running when tables were added to the publication has ended. What such a
/// transaction wrote before the addition is left out of the log even if it commits after it, and a snapshot that does not
/// wait would not see it either: the change would be lost.
async fn settle(connection: &mut Connection, config: &PostgresConfig) -> Result<()> {
    let doing = "waiting for the transactions that began before a table was published";
    let newest = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";
    let Some(newest) = connection.value(doing, newest).await? else { return Ok(()) };
    let sql = format!("SELECT pg_snapshot_xmin(pg_current_snapshot()) >= {}::xid8", literal(&newest));
    let deadline = tokio::time::Instant::now() + config.slot_creation_timeout;
    while connection.value(doing, &sql).await?.as_deref() != Some("t") {
        if tokio::time::Instant::now() > deadline {
            let message = "transactions that began before a table was published are still open";
            return Err(SourceError::new(ErrorKind::Unreachable, message).hint(
                "end the oldest transactions shown by: SELECT pid, xact_start FROM pg_stat_activity ORDER BY 2",
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn execute(connection: &mut Connection, trouble: &str, sql: &str, hint: &str) -> Result<()> {
    connection.query(trouble, sql).await.map(drop).map_err(|error| match sqlstate(&error) {
        Some("42501") => error.hint(format!("let the owner of the tables run: {hint}")),
        _ => error,
    })
}

/// Removes the slot, and the publication if we made it; names what it removed.
pub(crate) async fn release(connection: &mut Connection, config: &PostgresConfig) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    if let Some(state) = wait_until_free(connection, config).await? {
        match state.foreign(config) {
            Some(foreign) => tracing::warn!("{foreign}; it is left alone"),
            None => {
                drop_slot(connection, &config.slot).await?;
                removed.push(format!("replication slot {}", config.slot));
            }
        }
    }
    if let Some(state) = publication(connection, &config.publication).await? {
        if state.comment.as_deref() == Some(MADE_BY_US) {
            let sql = format!("DROP PUBLICATION {}", ident(&config.publication));
            execute(connection, &format!("publication {} cannot be dropped", config.publication), &sql, &sql).await?;
            removed.push(format!("publication {}", config.publication));
        } else {
            tracing::info!(publication = %config.publication, "the publication was not made by us and is left alone");
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(confirmed: &str) -> SlotState {
        SlotState {
            plugin: Some("pgoutput".into()),
            database: Some("shop".into()),
            confirmed_flush_lsn: Some(confirmed.into()),
            wal_status: Some("reserved".into()),
            ..SlotState::default()
        }
    }

    fn verdict(state: Option<&SlotState>, place: &str) -> Result<()> {
        let config = PostgresConfig::new("h", 1, "shop", "u");
        check(state, &config, place.parse().unwrap(), Lsn(0x1000))
    }

    #[test]
    fn a_slot_is_good_only_if_it_confirms_no_more_than_we_have() {
        assert!(verdict(Some(&state("0/100")), "0/100").is_ok());
        assert!(verdict(Some(&state("0/100")), "0/200").is_ok());
        assert!(verdict(Some(&state("0/100")), "0/100+1000").is_ok());
        let lost = [
            (Some(state("0/101")), "0/100"),
            (Some(state("0/100")), "0/1001"),
            (None, "0/100"),
            (Some(SlotState { wal_status: Some("lost".into()), ..state("0/1") }), "0/100"),
            (Some(SlotState { invalidation_reason: Some("idle_timeout".into()), ..state("0/1") }), "0/100"),
            (Some(SlotState { conflicting: Some(true), ..state("0/1") }), "0/100"),
            (Some(SlotState { database: Some("other".into()), ..state("0/1") }), "0/100"),
            (Some(SlotState { plugin: Some("test_decoding".into()), ..state("0/1") }), "0/100"),
        ];
        for (state, place) in lost {
            assert_eq!(verdict(state.as_ref(), place).unwrap_err().kind, ErrorKind::PositionLost, "{state:?}");
        }
    }
}
