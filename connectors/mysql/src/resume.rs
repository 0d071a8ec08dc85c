//! Where a stream begins: whether a stored position can be gone on from, and how the server is asked for it.

use crate::MysqlConfig;
use crate::error::{lost, server_code, setting_wrong, undecodable};
use crate::event::kind;
use crate::position::{FilePlace, Flavor, GtidSet, Head, Log, Place, Server, numbered};
use crate::session::Session;
use crate::wire::Connection;
use std::time::Duration;
use tidemark_contract::{ErrorKind, Result, SourceError};

const COM_BINLOG_DUMP: u8 = 0x12;
const COM_REGISTER_REPLICA: u8 = 0x15;
const COM_BINLOG_DUMP_GTID: u8 = 0x1e;
const BINLOG_THROUGH_GTID: u16 = 4;
/// How often the server says that it is alive when it has nothing else to say.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);

/// Checks that `place`, stored under the identity `log`, can be gone on from on the server of `session`, and gives the
/// place as it is to be asked for there.
pub(crate) async fn accept(config: &MysqlConfig, session: &mut Session, log: &Log, mut place: Place) -> Result<Place> {
    let server = session.server.clone();
    let here = Log::of(&server);
    if log.flavor != server.flavor {
        return Err(lost("the position belongs to a server of another kind (MySQL, MariaDB)"));
    }
    if here.is_same_server(log) {
        if let Some(file) = &place.file {
            same_log(config, session, file, place.gtids.is_some()).await?;
        }
    } else {
        // Another server: file and offset mean nothing there, and rows are read anew from the transaction's beginning.
        place.file = None;
        place.inside = None;
        if let Some(begins) = place.unfinished.as_mut().and_then(|unfinished| unfinished.begins.as_mut()) {
            begins.file = None;
        }
        let Some(gtids) = place.gtids.as_ref().filter(|g| !g.is_empty()) else {
            return Err(lost(format!(
                "the position belongs to server {}, this is {}, and it has no GTIDs by which one could go on",
                log.server, here.server
            )));
        };
        tracing::warn!(from = &*log.server, to = &*here.server, %gtids, "going on at another server, by GTIDs");
    }
    let begins = place.unfinished.as_mut().and_then(|unfinished| unfinished.begins.as_mut());
    match (&place.gtids, server.flavor) {
        (Some(gtids), Flavor::MySql) if server.gtid_mode => {
            let from = begins.and_then(|begins| begins.gtids.as_ref()).unwrap_or(gtids);
            mysql_sets(session, gtids, from).await?;
        }
        (Some(_), Flavor::MySql) => {
            // GTIDs were switched off: the file still leads on, on the same server only.
            place.gtids = None;
            let file = match begins {
                Some(begins) => {
                    begins.gtids = None;
                    begins.file.is_some() && place.file.is_some()
                }
                None => place.file.is_some(),
            };
            if !file {
                return Err(lost("the position is known by GTIDs only, and the server no longer writes them"));
            }
        }
        (Some(gtids), Flavor::MariaDb) => mariadb_state(session, gtids).await?,
        (None, _) => {}
    }
    Ok(place)
}

/// Whether a file of the log is still the one it was. A file that is gone may have been purged, which the GTIDs tell more
/// exactly; one that comes back with another time of creation, or shorter, is another log.
async fn same_log(config: &MysqlConfig, session: &mut Session, file: &FilePlace, has_gtids: bool) -> Result<()> {
    let rows = session.connection.rows("listing the files of the log", "SHOW BINARY LOGS").await?;
    let files: Vec<(String, u64)> = rows
        .into_iter()
        .filter_map(|row| {
            let mut row = row.into_iter().flatten();
            Some((row.next()?, row.next()?.parse().ok()?))
        })
        .collect();
    let Some((_, size)) = files.iter().find(|(name, _)| **name == *file.name) else {
        let number = |name: &str| numbered(name).map(|(base, number)| (base.to_owned(), number));
        let ours = number(&file.name);
        let last = files.last().and_then(|(name, _)| number(name));
        if let (Some((base, ours)), Some((last_base, last))) = (&ours, &last)
            && (base != last_base || ours > last)
        {
            return Err(rewound(format!("file {} of its log is gone, and the newest is older", file.name)));
        }
        if has_gtids {
            return Ok(());
        }
        return Err(lost(format!("file {} of the log was purged", file.name))
            .hint("raise binlog_expire_logs_seconds (MariaDB: expire_logs_days); everything must be read again"));
    };
    if file.offset > *size {
        return Err(rewound(format!(
            "file {} of its log has {size} bytes, the position is at {}",
            file.name, file.offset
        )));
    }
    if file.created > 0 {
        let created = created(config, &file.name).await?;
        if created != file.created {
            return Err(rewound(format!("file {} of its log was made anew", file.name)));
        }
    }
    Ok(())
}

fn rewound(what: String) -> SourceError {
    lost(format!("the server's log is not the one that was read before: {what}"))
        .hint("the log was reset, or the server was built anew or restored; everything must be read again")
}

/// When a file of the log was made, by its first event.
pub(crate) async fn created(config: &MysqlConfig, file: &str) -> Result<u32> {
    let mut connection = Connection::open(config).await?;
    prepare(&mut connection).await?;
    // The server sends the file's head at once; another id keeps it from ending the stream of the real one.
    dump_file(&mut connection, config.server_id.wrapping_add(0x4000_0000), file, 4).await?;
    for _ in 0..8 {
        let packet = connection.packet_within(Duration::from_secs(30)).await?;
        if let Some(0xff) = packet.first() {
            return Err(failed(&packet[1..]));
        }
        if packet.get(5) == Some(&kind::FORMAT_DESCRIPTION)
            && let Some(time) = packet.get(1..5)
        {
            return Ok(u32::from_le_bytes([time[0], time[1], time[2], time[3]]));
        }
    }
    Err(undecodable(format!("file {file} of the log does not begin with its description")))
}

/// `gtids` have been read; reading begins behind `from`, which is less if there are prepared XA transactions.
async fn mysql_sets(session: &mut Session, gtids: &GtidSet, from: &GtidSet) -> Result<()> {
    // The set of executed GTIDs is brought up to date a moment after the log is written.
    for attempt in 0..5 {
        let sql = "SELECT @@global.gtid_executed, @@global.gtid_purged";
        let rows = session.connection.rows("asking for the executed GTIDs", sql).await?;
        let row = rows.into_iter().next().unwrap_or_default();
        let set = |at: usize| GtidSet::parse_mysql(row.get(at).cloned().flatten().unwrap_or_default().as_str());
        let (executed, purged) = (set(0)?, set(1)?);
        if executed.contains(gtids) {
            if from.contains(&purged) {
                return Ok(());
            }
            return Err(lost("transactions that were not read yet have been purged from the log")
                .hint("raise binlog_expire_logs_seconds; everything must be read again"));
        }
        if attempt < 4 {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
    Err(rewound("it has not executed all the transactions that were read".into()))
}

async fn mariadb_state(session: &mut Session, gtids: &GtidSet) -> Result<()> {
    let rows = session.connection.rows("asking for the log's GTIDs", "SELECT @@global.gtid_binlog_state").await?;
    let text = rows.into_iter().next().and_then(|r| r.into_iter().next().flatten()).unwrap_or_default();
    let GtidSet::MariaDb(wanted) = gtids else { return Err(lost("the position has no GTIDs of MariaDB")) };
    // One entry for each domain and server, unlike in a set.
    let entries = text.split(',').map(str::trim).filter_map(|part| {
        let mut numbers = part.split('-').map(|n| n.parse::<u64>().ok());
        Some((numbers.next()??, numbers.next()??, numbers.next()??))
    });
    let entries: Vec<(u64, u64, u64)> = entries.collect();
    for (domain, (server, sequence)) in wanted {
        let known =
            entries.iter().any(|(d, s, n)| *d == u64::from(*domain) && *s == u64::from(*server) && n >= sequence);
        if !known {
            return Err(rewound(format!("transaction {domain}-{server}-{sequence} is not in it")));
        }
    }
    Ok(())
}

/// The place at the head of the log.
pub(crate) fn at(head: Head) -> Place {
    let by_gtid = head.gtids.is_some();
    // By GTIDs the server decides where the first transaction lies; all that is certain is the head's file.
    let offset = if by_gtid { 4 } else { head.offset };
    let file = Some(FilePlace { name: head.file, offset, created: 0 });
    Place { file, gtids: head.gtids, inside: None, unfinished: None }
}

async fn prepare(connection: &mut Connection) -> Result<()> {
    let doing = "preparing to read the log";
    let period = HEARTBEAT.as_nanos();
    let mut settings = format!(
        "SET @master_binlog_checksum = 'CRC32', @source_binlog_checksum = 'CRC32',
         @master_heartbeat_period = {period}, @source_heartbeat_period = {period},
         net_write_timeout = 2592000, net_read_timeout = 2592000"
    );
    if connection.is_mariadb {
        settings.push_str(", @mariadb_slave_capability = 4");
    }
    connection.run(doing, &settings).await
}

async fn dump_file(connection: &mut Connection, server_id: u32, file: &str, offset: u64) -> Result<()> {
    // The command has 32 bits for the offset; one that is larger goes by way of GTIDs or from the file's beginning.
    let offset = u32::try_from(offset)
        .map_err(|_| setting_wrong("a place beyond 4 GB in a file of the log can be reached by GTIDs only"))?;
    let mut body = offset.to_le_bytes().to_vec();
    body.extend_from_slice(&0_u16.to_le_bytes());
    body.extend_from_slice(&server_id.to_le_bytes());
    body.extend_from_slice(file.as_bytes());
    connection.command(COM_BINLOG_DUMP, &body).await
}

/// Asks the server for its log from `place` on.
pub(crate) async fn start(
    connection: &mut Connection,
    config: &MysqlConfig,
    server: &Server,
    place: &Place,
) -> Result<()> {
    prepare(connection).await?;
    let doing = "asking for the log";
    let begins = place.unfinished.as_ref().and_then(|unfinished| unfinished.begins.as_ref());
    let (file, gtids) = begins.map_or((&place.file, &place.gtids), |begins| (&begins.file, &begins.gtids));
    if server.flavor == Flavor::MySql {
        // By this the server ends a dead connection of ours instead of keeping both. Derived from our server id.
        let uuid = format!("7469646d-6172-6b00-8000-0000{:08x}", config.server_id);
        let sql = format!("SET @slave_uuid = '{uuid}', @replica_uuid = '{uuid}'");
        connection.run(doing, &sql).await?;
    }
    if let (Flavor::MariaDb, Some(gtids)) = (server.flavor, gtids) {
        let sql = format!(
            "SET @slave_connect_state = '{gtids}', @slave_gtid_strict_mode = 1, @slave_gtid_ignore_duplicates = 0"
        );
        connection.run(doing, &sql).await?;
    }
    register(connection, config.server_id).await?;
    match (gtids, file) {
        (Some(gtids @ GtidSet::MySql(_)), _) => {
            let mut body = BINLOG_THROUGH_GTID.to_le_bytes().to_vec();
            body.extend_from_slice(&config.server_id.to_le_bytes());
            body.extend_from_slice(&0_u32.to_le_bytes());
            body.extend_from_slice(&4_u64.to_le_bytes());
            let set = gtids.encode();
            body.extend_from_slice(&u32::try_from(set.len()).unwrap_or(0).to_le_bytes());
            body.extend_from_slice(&set);
            connection.command(COM_BINLOG_DUMP_GTID, &body).await
        }
        (Some(GtidSet::MariaDb(_)), _) => dump_file(connection, config.server_id, "", 4).await,
        (None, Some(file)) => dump_file(connection, config.server_id, &file.name, file.offset).await,
        (None, None) => Err(lost("the position says nothing about where to begin")),
    }
}

/// Makes the stream show in `SHOW REPLICAS`, where administrators look for server ids.
async fn register(connection: &mut Connection, server_id: u32) -> Result<()> {
    let mut body = server_id.to_le_bytes().to_vec();
    // No host, user or password; port, rank and the source's id are not used.
    body.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    connection.command(COM_REGISTER_REPLICA, &body).await?;
    let packet = connection.packet_within(Duration::from_secs(30)).await?;
    match packet.first() {
        Some(0) => Ok(()),
        Some(0xff) => Err(failed(&packet[1..])),
        _ => Err(undecodable("the server answers a registration with something unknown")),
    }
}

/// An error packet within the stream.
pub(crate) fn failed(body: &[u8]) -> SourceError {
    explain(crate::error::ServerError::parse(body).into_source_error("reading the log"))
}

/// What the server's one error number for everything about the log means, by its words.
fn explain(error: SourceError) -> SourceError {
    if server_code(&error) != Some(1236) {
        return error;
    }
    let text = error.message.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| text.contains(w));
    if has(&["same server_uuid", "same server_id", "same server id"]) {
        return SourceError { kind: ErrorKind::SettingWrong, ..error }
            .hint("another client reads the log under this server id: choose another server_id in [source.mysql]");
    }
    if has(&["binary log is not open", "not configured"]) {
        return SourceError { kind: ErrorKind::SettingWrong, ..error }.hint("start the server with log_bin");
    }
    if has(&["max_allowed_packet"]) {
        return SourceError { kind: ErrorKind::SettingWrong, ..error }
            .hint("SET GLOBAL max_allowed_packet = 1073741824");
    }
    error.hint("the log no longer reaches back to the position, or is another one; everything must be read again")
}
