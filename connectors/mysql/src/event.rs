//! The log's events, parsed: headers, and the bodies that matter. Pure.

use crate::cursor::{Cursor, bit, cut_short};
use crate::error::undecodable;
use crate::gtid::{Gtid, Source};
use tidemark_contract::Result;

/// Event types, by their numbers in the log.
pub(crate) mod kind {
    pub(crate) const QUERY: u8 = 2;
    pub(crate) const STOP: u8 = 3;
    pub(crate) const ROTATE: u8 = 4;
    pub(crate) const INTVAR: u8 = 5;
    pub(crate) const RAND: u8 = 13;
    pub(crate) const USER_VAR: u8 = 14;
    pub(crate) const FORMAT_DESCRIPTION: u8 = 15;
    pub(crate) const XID: u8 = 16;
    pub(crate) const BEGIN_LOAD_QUERY: u8 = 17;
    pub(crate) const EXECUTE_LOAD_QUERY: u8 = 18;
    pub(crate) const APPEND_BLOCK: u8 = 9;
    pub(crate) const DELETE_FILE: u8 = 11;
    pub(crate) const TABLE_MAP: u8 = 19;
    pub(crate) const WRITE_V1: u8 = 23;
    pub(crate) const UPDATE_V1: u8 = 24;
    pub(crate) const DELETE_V1: u8 = 25;
    pub(crate) const INCIDENT: u8 = 26;
    pub(crate) const HEARTBEAT: u8 = 27;
    pub(crate) const IGNORABLE: u8 = 28;
    pub(crate) const ROWS_QUERY: u8 = 29;
    pub(crate) const WRITE: u8 = 30;
    pub(crate) const UPDATE: u8 = 31;
    pub(crate) const DELETE: u8 = 32;
    pub(crate) const GTID: u8 = 33;
    pub(crate) const ANONYMOUS_GTID: u8 = 34;
    pub(crate) const PREVIOUS_GTIDS: u8 = 35;
    pub(crate) const TRANSACTION_CONTEXT: u8 = 36;
    pub(crate) const VIEW_CHANGE: u8 = 37;
    pub(crate) const XA_PREPARE: u8 = 38;
    pub(crate) const PARTIAL_UPDATE: u8 = 39;
    pub(crate) const TRANSACTION_PAYLOAD: u8 = 40;
    pub(crate) const HEARTBEAT_V2: u8 = 41;
    pub(crate) const GTID_TAGGED: u8 = 42;
    pub(crate) const MARIA_ANNOTATE_ROWS: u8 = 160;
    pub(crate) const MARIA_BINLOG_CHECKPOINT: u8 = 161;
    pub(crate) const MARIA_GTID: u8 = 162;
    pub(crate) const MARIA_GTID_LIST: u8 = 163;
    pub(crate) const MARIA_START_ENCRYPTION: u8 = 164;
    pub(crate) const MARIA_QUERY_COMPRESSED: u8 = 165;
    pub(crate) const MARIA_WRITE_V1_COMPRESSED: u8 = 166;
    pub(crate) const MARIA_UPDATE_V1_COMPRESSED: u8 = 167;
    pub(crate) const MARIA_DELETE_V1_COMPRESSED: u8 = 168;
    pub(crate) const MARIA_WRITE_COMPRESSED: u8 = 169;
    pub(crate) const MARIA_UPDATE_COMPRESSED: u8 = 170;
    pub(crate) const MARIA_DELETE_COMPRESSED: u8 = 171;
}

/// Bytes of every event's header.
pub(crate) const HEADER: usize = 19;

/// One event, its checksum verified and removed.
#[derive(Clone, Copy)]
pub(crate) struct Event<'a> {
    /// Seconds since 1970 at which the statement began; 0 in events that are not in the log.
    pub(crate) timestamp: u32,
    pub(crate) kind: u8,
    pub(crate) server_id: u32,
    /// Length in the log.
    pub(crate) size: u32,
    /// The offset behind the event, its low 32 bits; 0 in events that are not in the log.
    pub(crate) next: u32,
    pub(crate) flags: u16,
    pub(crate) body: &'a [u8],
}

/// The event was made up for this stream and is not in the log.
const ARTIFICIAL: u16 = 0x20;
/// Replicas may skip the event if they do not know its type.
const IGNORABLE: u16 = 0x80;

impl<'a> Event<'a> {
    /// Parses an event; `checksum` says whether four bytes of CRC-32 follow it.
    pub(crate) fn parse(bytes: &'a [u8], checksum: bool) -> Result<Self> {
        let mut head = Cursor(bytes);
        let (timestamp, kind, server_id, size) = (head.u32()?, head.u8()?, head.u32()?, head.u32()?);
        let (next, flags) = (head.u32()?, head.u16()?);
        if usize::try_from(size).ok() != Some(bytes.len()) {
            return Err(undecodable("an event of the log has another length than it says"));
        }
        let mut body = head.rest();
        if checksum {
            if !has_checksum(bytes) {
                return Err(undecodable("an event of the log is damaged: its checksum does not fit"));
            }
            body = body.get(..body.len().saturating_sub(4)).unwrap_or_default();
        }
        Ok(Self { timestamp, kind, server_id, size, next, flags, body })
    }

    pub(crate) fn is_artificial(&self) -> bool {
        self.flags & ARTIFICIAL != 0 || self.next == 0
    }

    pub(crate) fn is_ignorable(&self) -> bool {
        self.flags & IGNORABLE != 0
    }
}

/// Whether the events after a format description carry checksums. Knows the description's own, which always has one from
/// the servers that can have them at all.
pub(crate) fn checksum_of(bytes: &[u8]) -> Result<bool> {
    // Version, server version, time, header length, a length for each type; then the algorithm and the checksum.
    match bytes.len().checked_sub(5).filter(|at| *at >= HEADER + 57).and_then(|at| bytes.get(at)) {
        Some(0) => Ok(false),
        Some(1) => Ok(true),
        _ => Err(undecodable("the log is of a format that is not known here")),
    }
}

/// Whether the last four bytes are the checksum of those before.
pub(crate) fn has_checksum(bytes: &[u8]) -> bool {
    bytes.split_last_chunk::<4>().is_some_and(|(data, sum)| crc32fast::hash(data) == u32::from_le_bytes(*sum))
}

/// A rotation: the next file and the offset in it.
pub(crate) fn rotate(body: &[u8]) -> Result<(&str, u64)> {
    let mut body = Cursor(body);
    let offset = body.u64()?;
    let name = std::str::from_utf8(body.rest()).map_err(|_| undecodable("a file of the log has no readable name"))?;
    Ok((name.trim_end_matches('\0'), offset))
}

/// A statement in the log.
pub(crate) struct Query<'a> {
    pub(crate) database: &'a str,
    pub(crate) text: std::borrow::Cow<'a, str>,
    /// What of the session's settings decides how the text is read.
    pub(crate) ansi_quotes: bool,
}

pub(crate) fn query(body: &[u8]) -> Result<Query<'_>> {
    let mut body = Cursor(body);
    body.take(8)?;
    let database = usize::from(body.u8()?);
    body.take(2)?;
    let variables = usize::from(body.u16()?);
    let variables = body.take(variables)?;
    let database =
        std::str::from_utf8(body.take(database)?).map_err(|_| undecodable("a database has no readable name"))?;
    body.take(1)?;
    Ok(Query { database, text: String::from_utf8_lossy(body.rest()), ansi_quotes: ansi_quotes(variables) })
}

/// Looks for the SQL mode among a statement's variables, which is the second or third of them.
fn ansi_quotes(variables: &[u8]) -> bool {
    let mut rest = Cursor(variables);
    loop {
        match rest.u8() {
            Ok(0) if rest.take(4).is_ok() => {}
            Ok(1) => return rest.u64().is_ok_and(|mode| mode & 4 != 0),
            _ => return false,
        }
    }
}

/// What begins a transaction.
pub(crate) struct Begin {
    pub(crate) gtid: Option<Gtid>,
    /// Commit time in microseconds since 1970, where the event has it.
    pub(crate) committed_at: Option<i64>,
    /// MariaDB: the transaction is a single statement, which nothing ends.
    pub(crate) standalone: bool,
    /// MariaDB: it prepares an XA transaction.
    pub(crate) prepares: bool,
}

/// A time in seven bytes, whose highest bit says that another one follows.
fn commit_time(body: &mut Cursor<'_>) -> Result<i64> {
    let first = body.uint(7)?;
    let original = if first >> 55 == 1 { body.uint(7)? } else { first };
    Ok(i64::try_from(original & ((1 << 55) - 1)).unwrap_or(0))
}

pub(crate) fn gtid(event: &Event<'_>) -> Result<Begin> {
    let mut body = Cursor(event.body);
    if event.kind == kind::MARIA_GTID {
        let (sequence, domain, flags) = (body.u64()?, body.u32()?, body.u8()?);
        return Ok(Begin {
            gtid: Some(Gtid::MariaDb { domain, server: event.server_id, sequence }),
            committed_at: None,
            standalone: flags & 1 != 0,
            prepares: flags & 64 != 0,
        });
    }
    if event.kind == kind::GTID_TAGGED {
        return tagged(body);
    }
    body.take(1)?;
    let uuid = body.array()?;
    let number = body.u64()?;
    // The logical clock came with 5.7, the times with 8.0.
    let has_clock = body.u8().is_ok_and(|mark| mark == 2) && body.take(16).is_ok();
    let committed_at = if has_clock { commit_time(&mut body).ok() } else { None };
    let gtid = (event.kind == kind::GTID).then(|| Gtid::MySql(Source { uuid, tag: "".into() }, number));
    Ok(Begin { gtid, committed_at, standalone: false, prepares: false })
}

/// A number whose first byte tells, by its trailing one bits, how many bytes follow.
fn varint(body: &mut Cursor<'_>) -> Result<u64> {
    let first = body.u8()?;
    let more = usize::try_from(first.trailing_ones()).unwrap_or(8);
    let rest = body.uint(more)?;
    Ok(match more {
        8 => rest,
        7 => rest,
        _ => u64::from(first) >> (more + 1) | rest << (7 - more),
    })
}

/// The same, for numbers with a sign (zigzag).
fn signed_varint(body: &mut Cursor<'_>) -> Result<i64> {
    let value = varint(body)?;
    let half = i64::try_from(value >> 1).unwrap_or(i64::MAX);
    Ok(if value & 1 == 1 { -1 - half } else { half })
}

/// MySQL 8.3's self-describing form: fields by number, in order.
fn tagged(mut body: Cursor<'_>) -> Result<Begin> {
    let (_version, _size, _last) = (varint(&mut body)?, varint(&mut body)?, varint(&mut body)?);
    let mut uuid = [0; 16];
    let mut tag = String::new();
    let (mut number, mut immediate, mut original) = (None, None, None);
    while !body.is_empty() {
        match varint(&mut body)? {
            0 => drop(varint(&mut body)?),
            1 => {
                for byte in &mut uuid {
                    *byte = u8::try_from(varint(&mut body)?).map_err(|_| undecodable("a GTID has no UUID"))?;
                }
            }
            2 => number = u64::try_from(signed_varint(&mut body)?).ok(),
            3 => {
                let length = usize::try_from(varint(&mut body)?).map_err(|_| cut_short())?;
                tag = String::from_utf8_lossy(body.take(length)?).into_owned();
            }
            4 | 5 => drop(signed_varint(&mut body)?),
            6 => immediate = i64::try_from(varint(&mut body)?).ok(),
            7 => original = i64::try_from(varint(&mut body)?).ok(),
            // What follows is not needed, and may be of any form.
            _ => break,
        }
    }
    let number = number.filter(|n| *n > 0).ok_or_else(|| undecodable("a GTID has no number"))?;
    let gtid = Gtid::MySql(Source { uuid, tag: tag.into() }, number);
    Ok(Begin { gtid: Some(gtid), committed_at: original.or(immediate), standalone: false, prepares: false })
}

/// The head of an event that changes rows.
pub(crate) struct Rows<'a> {
    pub(crate) table: u64,
    pub(crate) columns: usize,
    /// The columns that the (old) row holds.
    pub(crate) present: &'a [u8],
    /// The columns that the new row of an update holds.
    pub(crate) present_after: Option<&'a [u8]>,
    pub(crate) rows: &'a [u8],
    pub(crate) is_last_of_statement: bool,
}

/// Parses the head of a rows event of type `of` (compressed ones as what they are after unpacking).
pub(crate) fn rows(body: &[u8], of: u8) -> Result<Rows<'_>> {
    use kind::{DELETE, DELETE_V1, PARTIAL_UPDATE, UPDATE, UPDATE_V1, WRITE, WRITE_V1};
    let mut body = Cursor(body);
    let table = body.uint(6)?;
    let flags = body.u16()?;
    match of {
        WRITE_V1 | UPDATE_V1 | DELETE_V1 => {}
        WRITE | UPDATE | DELETE | PARTIAL_UPDATE => {
            // Extra data, its length included in it.
            let extra = usize::from(body.u16()?).checked_sub(2).ok_or_else(cut_short)?;
            body.take(extra)?;
        }
        other => return Err(undecodable(format!("event type {other} holds no rows"))),
    }
    let columns = usize::try_from(body.lenenc()?).map_err(|_| cut_short())?;
    if columns > 4096 {
        return Err(undecodable("an event of the log has more columns than a table can have"));
    }
    let bitmap = columns.div_ceil(8);
    let present = body.take(bitmap)?;
    let is_update = matches!(of, UPDATE | UPDATE_V1 | PARTIAL_UPDATE);
    let present_after = if is_update { Some(body.take(bitmap)?) } else { None };
    Ok(Rows { table, columns, present, present_after, rows: body.rest(), is_last_of_statement: flags & 1 != 0 })
}

/// A column as a table map describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LogColumn {
    /// The type's number; for labels (ENUM, SET) the one hidden in the metadata.
    pub(crate) code: u8,
    /// The metadata: lengths, digits, scales, by type.
    pub(crate) meta: u16,
    pub(crate) nullable: bool,
    /// Only where the log carries it.
    pub(crate) unsigned: Option<bool>,
    pub(crate) name: Option<Box<str>>,
    pub(crate) collation: Option<u32>,
    /// The labels' bytes in the column's character set.
    pub(crate) labels: Option<Vec<Box<[u8]>>>,
}

/// What a table looks like to the row events that follow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TableMap {
    pub(crate) id: u64,
    pub(crate) schema: Box<str>,
    pub(crate) name: Box<str>,
    pub(crate) columns: Vec<LogColumn>,
    /// Positions of the primary key's columns, where the log carries them.
    pub(crate) key: Option<Vec<usize>>,
}

/// Type numbers.
pub(crate) mod code {
    pub(crate) const TINY: u8 = 1;
    pub(crate) const SHORT: u8 = 2;
    pub(crate) const LONG: u8 = 3;
    pub(crate) const FLOAT: u8 = 4;
    pub(crate) const DOUBLE: u8 = 5;
    pub(crate) const TIMESTAMP: u8 = 7;
    pub(crate) const LONGLONG: u8 = 8;
    pub(crate) const INT24: u8 = 9;
    pub(crate) const DATE: u8 = 10;
    pub(crate) const TIME: u8 = 11;
    pub(crate) const DATETIME: u8 = 12;
    pub(crate) const YEAR: u8 = 13;
    pub(crate) const NEWDATE: u8 = 14;
    pub(crate) const VARCHAR: u8 = 15;
    pub(crate) const BIT: u8 = 16;
    pub(crate) const TIMESTAMP2: u8 = 17;
    pub(crate) const DATETIME2: u8 = 18;
    pub(crate) const TIME2: u8 = 19;
    pub(crate) const BLOB_COMPRESSED: u8 = 140;
    pub(crate) const VARCHAR_COMPRESSED: u8 = 141;
    pub(crate) const VECTOR: u8 = 242;
    pub(crate) const JSON: u8 = 245;
    pub(crate) const NEWDECIMAL: u8 = 246;
    pub(crate) const ENUM: u8 = 247;
    pub(crate) const SET: u8 = 248;
    pub(crate) const TINY_BLOB: u8 = 249;
    pub(crate) const MEDIUM_BLOB: u8 = 250;
    pub(crate) const LONG_BLOB: u8 = 251;
    pub(crate) const BLOB: u8 = 252;
    pub(crate) const VAR_STRING: u8 = 253;
    pub(crate) const STRING: u8 = 254;
    pub(crate) const GEOMETRY: u8 = 255;
}

/// The table's id and names, read first: most tables are not wanted.
pub(crate) fn table_name(body: &[u8]) -> Result<(u64, &str, &str, Cursor<'_>)> {
    let mut body = Cursor(body);
    let id = body.uint(6)?;
    body.take(2)?;
    let mut name = || -> Result<&str> {
        let length = usize::from(body.u8()?);
        let name = std::str::from_utf8(body.take(length)?);
        body.take(1)?;
        name.map_err(|_| undecodable("a table in the log has no readable name"))
    };
    let (schema, table) = (name()?, name()?);
    Ok((id, schema, table, body))
}

pub(crate) fn table_map(body: &[u8], is_mariadb: bool) -> Result<TableMap> {
    let (id, schema, name, mut body) = table_name(body)?;
    let count = usize::try_from(body.lenenc()?).map_err(|_| cut_short())?;
    let codes = body.take(count)?;
    let mut meta = Cursor(body.lenenc_bytes()?);
    let mut columns = Vec::with_capacity(count.min(4096));
    for &code in codes {
        columns.push(log_column(code, &mut meta)?);
    }
    let nullable = body.take(count.div_ceil(8))?;
    columns.iter_mut().enumerate().for_each(|(at, column)| column.nullable = bit(nullable, at));
    let mut map = TableMap { id, schema: schema.into(), name: name.into(), columns, key: None };
    while !body.is_empty() {
        let field = body.u8()?;
        let value = Cursor(body.lenenc_bytes()?);
        crate::metadata::apply(&mut map, field, value, is_mariadb)?;
    }
    Ok(map)
}

fn log_column(code: u8, meta: &mut Cursor<'_>) -> Result<LogColumn> {
    use code::{
        BIT, BLOB, BLOB_COMPRESSED, DATETIME2, DOUBLE, ENUM, FLOAT, GEOMETRY, JSON, LONG_BLOB, MEDIUM_BLOB, NEWDECIMAL,
        SET, STRING, TIME2, TIMESTAMP2, TINY_BLOB, VAR_STRING, VARCHAR, VARCHAR_COMPRESSED, VECTOR,
    };
    let (code, meta) = match code {
        FLOAT | DOUBLE | BLOB | TINY_BLOB | MEDIUM_BLOB | LONG_BLOB | JSON | GEOMETRY | VECTOR | TIMESTAMP2
        | DATETIME2 | TIME2 | BLOB_COMPRESSED => (code, u16::from(meta.u8()?)),
        VARCHAR | VAR_STRING | BIT | VARCHAR_COMPRESSED => (code, meta.u16()?),
        // Digits before, digits behind the point.
        NEWDECIMAL | ENUM | SET => (code, u16::from_be_bytes(meta.array()?)),
        STRING => {
            let (first, second) = (meta.u8()?, meta.u8()?);
            // The real type is in the first byte, which also lends two bits, inverted, to the length.
            if first & 0x30 == 0x30 {
                (first, u16::from(second))
            } else {
                (first | 0x30, u16::from(second) | (u16::from((first & 0x30) ^ 0x30) << 4))
            }
        }
        _ => (code, 0),
    };
    Ok(LogColumn { code, meta, nullable: true, unsigned: None, name: None, collation: None, labels: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(kind: u8, body: &[u8], checksum: bool) -> Vec<u8> {
        let size = u32::try_from(HEADER + body.len() + if checksum { 4 } else { 0 }).unwrap();
        let mut bytes = 7_u32.to_le_bytes().to_vec();
        bytes.push(kind);
        bytes.extend_from_slice(&1_u32.to_le_bytes());
        bytes.extend_from_slice(&size.to_le_bytes());
        bytes.extend_from_slice(&[9, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(body);
        if checksum {
            bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        }
        bytes
    }

    #[test]
    fn headers_lengths_and_checksums_are_verified() {
        let good = event(kind::XID, &[1; 8], true);
        let parsed = Event::parse(&good, true).unwrap();
        assert_eq!((parsed.kind, parsed.next, parsed.body), (kind::XID, 9, &[1; 8][..]));
        let mut bad = good.clone();
        bad[20] ^= 1;
        assert!(Event::parse(&bad, true).is_err());
        assert!(Event::parse(&good[..good.len() - 1], true).is_err());
    }

    #[test]
    fn rotations_and_queries_are_read() {
        let body = [&4_u64.to_le_bytes()[..], b"bin.000002"].concat();
        assert_eq!(rotate(&body).unwrap(), ("bin.000002", 4));
        let mut body = vec![0; 8];
        body.extend_from_slice(&[2, 0, 0, 14, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0, 0, 0, 0]);
        body.extend_from_slice(b"db\0ALTER TABLE \"t\"");
        let read = query(&body).unwrap();
        assert_eq!((read.database, &*read.text, read.ansi_quotes), ("db", "ALTER TABLE \"t\"", true));
    }

    #[test]
    fn lengths_of_strings_lend_bits_to_the_type() {
        // CHAR(255) of four bytes each: 1020 bytes.
        let wide = log_column(code::STRING, &mut Cursor(&[0xce, 0xfc])).unwrap();
        assert_eq!((wide.code, wide.meta), (code::STRING, 1020));
        let label = log_column(code::STRING, &mut Cursor(&[code::ENUM, 1])).unwrap();
        assert_eq!((label.code, label.meta), (code::ENUM, 1));
    }

    #[test]
    fn numbers_of_any_length_are_read() {
        for (bytes, wanted) in [
            (&[0x02][..], 1),
            (&[0xfe][..], 127),
            (&[0x01, 0x02][..], 128),
            (&[0xff, 1, 0, 0, 0, 0, 0, 0, 0x80][..], 1 << 63 | 1),
        ] {
            assert_eq!(varint(&mut Cursor(bytes)).unwrap(), wanted, "{bytes:?}");
        }
        assert_eq!(signed_varint(&mut Cursor(&[0x06])).unwrap(), -2);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_an_error(body in prop::collection::vec(any::<u8>(), 0..120), of in 0_u8..45) {
            let bytes = event(of, &body, false);
            let parsed = Event::parse(&bytes, false).unwrap();
            let _ = (rotate(parsed.body), query(parsed.body).map(|_| ()), gtid(&parsed).map(|_| ()));
            let _ = (rows(parsed.body, of).map(|_| ()), table_map(parsed.body, true).map(|_| ()));
        }
    }
}
