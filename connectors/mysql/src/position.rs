//! What a position is here, and the identity of the log it belongs to.
//!
//! # Places
//!
//! `file:offset@created|gtids|event.row`, any part of which may be empty:
//!
//! * *file and offset* in the log of the server named by the position's `log`: everything before that byte has been
//!   delivered. `created` is the file's time of creation, which tells a file from another of the same name after
//!   `RESET MASTER` or a rebuild.
//! * *gtids*: every one of these transactions has been delivered, and no other.
//! * *event and row*: of the transaction that begins there, the first row events and rows that have been delivered too.
//!   They are counted over all tables, so that they do not depend on which ones are captured. On another server the
//!   same transaction may be cut into events differently, so there it is read again from its beginning (R3).
//!
//! Only if there are prepared XA transactions (`xa.rs`), three parts more: `file:offset@created|gtids`, where reading has to
//! begin so that their rows are found again, and the names of those whose rows are not known, behind a `!`; or behind a `?`
//! the names of those that are known to have none.
//!
//! # Comparing
//!
//! On one server, files are compared by number and offset: a total order, and the only one in which MySQL's log head is
//! ahead of what a reader can see (the set of executed GTIDs is brought up to date a moment later). Across servers, GTID
//! sets are compared by inclusion. File and offset are never compared across servers.
//!
//! # The log's identity
//!
//! `mysql:<server_uuid>:<shapes>` or `mariadb:<server_id>:<shapes>`. A position of another server is accepted only by its
//! GTIDs, if that server has executed all of them and purged none of the rest: a failover. The shapes are hashes of the
//! captured tables' columns; they matter only where the log does not name columns itself (`capture`).

pub(crate) use crate::gtid::{Gtid, GtidSet};

use crate::error::lost;
use crate::xa::{Begins, Unfinished, Unknown, Xid};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use tidemark_contract::{Position, Result, TableId};

/// Which of the two a server is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flavor {
    MySql,
    MariaDb,
}

/// What is known of a server; does not change while it runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Server {
    pub(crate) flavor: Flavor,
    /// `server_uuid`, or MariaDB's `server_id`.
    pub(crate) id: Box<str>,
    /// Major and minor version.
    pub(crate) version: (u32, u32),
    /// Whether all transactions have GTIDs.
    pub(crate) gtid_mode: bool,
}

/// The head of a server's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) file: Box<str>,
    pub(crate) offset: u64,
    pub(crate) gtids: Option<GtidSet>,
}

/// A byte in a file of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FilePlace {
    pub(crate) name: Box<str>,
    pub(crate) offset: u64,
    /// When the file was made, in seconds since 1970, by its first event; 0 if not known.
    pub(crate) created: u32,
}

/// A file's name without its number, and the number.
pub(crate) fn numbered(name: &str) -> Option<(&str, u64)> {
    let (base, number) = name.rsplit_once('.')?;
    Some((base, number.parse().ok()?))
}

impl FilePlace {
    /// Whether this byte lies at or behind `other`; `None` if the files are not of one sequence.
    pub(crate) fn reaches(&self, other: &Self) -> Option<bool> {
        let (base, number) = numbered(&self.name)?;
        let (other_base, other_number) = numbered(&other.name)?;
        (base == other_base).then_some((number, self.offset) >= (other_number, other.offset))
    }
}

/// How much of a transaction has been delivered: whole row events, and rows of the next one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Inside {
    pub(crate) event: u64,
    pub(crate) row: u64,
}

/// A place in the log: see the module's documentation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) file: Option<FilePlace>,
    pub(crate) gtids: Option<GtidSet>,
    pub(crate) inside: Option<Inside>,
    /// Prepared XA transactions, if there are any.
    pub(crate) unfinished: Option<Box<Unfinished>>,
}

fn write_spot(f: &mut fmt::Formatter<'_>, file: Option<&FilePlace>, gtids: Option<&GtidSet>) -> fmt::Result {
    if let Some(file) = file {
        write!(f, "{}:{}@{}", escape(&file.name), file.offset, file.created)?;
    }
    f.write_str("|")?;
    match gtids {
        Some(gtids) => write!(f, "{}{gtids}", if matches!(gtids, GtidSet::MySql(_)) { "M" } else { "D" }),
        None => Ok(()),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_spot(f, self.file.as_ref(), self.gtids.as_ref())?;
        f.write_str("|")?;
        if let Some(inside) = &self.inside {
            write!(f, "{}.{}", inside.event, inside.row)?;
        }
        let Some(unfinished) = &self.unfinished else { return Ok(()) };
        f.write_str("|")?;
        match &unfinished.begins {
            Some(begins) => write_spot(f, begins.file.as_ref(), begins.gtids.as_ref())?,
            None => f.write_str("|")?,
        }
        let (mark, xids) = match &unfinished.unknown {
            Unknown::These(xids) => ('!', xids),
            Unknown::AnyBut(xids) => ('?', xids),
        };
        write!(f, "|{mark}")?;
        for (at, xid) in xids.iter().enumerate() {
            write!(f, "{}{}", if at > 0 { "," } else { "" }, xid.as_str())?;
        }
        Ok(())
    }
}

/// `|` and `:` divide the parts, so they are written as `%7C` and `%3A` inside one.
fn escape(name: &str) -> String {
    name.replace('%', "%25").replace('|', "%7C").replace(':', "%3A")
}

fn unescape(name: &str) -> Box<str> {
    name.replace("%3A", ":").replace("%7C", "|").replace("%25", "%").into()
}

fn parse_file(text: &str) -> std::result::Result<Option<FilePlace>, ()> {
    if text.is_empty() {
        return Ok(None);
    }
    let (name, rest) = text.split_once(':').ok_or(())?;
    let (offset, created) = rest.split_once('@').ok_or(())?;
    let (offset, created) = (offset.parse().map_err(drop)?, created.parse().map_err(drop)?);
    Ok(Some(FilePlace { name: unescape(name), offset, created }))
}

fn parse_gtids(text: &str) -> std::result::Result<Option<GtidSet>, ()> {
    match text.split_at_checked(1) {
        None => Ok(None),
        Some(("M", set)) => GtidSet::parse_mysql(set).map(Some).map_err(drop),
        Some(("D", set)) => GtidSet::parse_mariadb(set).map(Some).map_err(drop),
        Some(_) => Err(()),
    }
}

fn parse_unfinished(file: &str, gtids: &str, xids: &str) -> std::result::Result<Unfinished, ()> {
    let (file, gtids) = (parse_file(file)?, parse_gtids(gtids)?);
    let begins = (file.is_some() || gtids.is_some()).then_some(Begins { file, gtids });
    let (mark, names) = xids.split_at_checked(1).ok_or(())?;
    let names = names.split(',').filter(|name| !name.is_empty()).map(Xid::parse).collect::<Option<_>>().ok_or(())?;
    let unknown = match mark {
        "!" => Unknown::These(names),
        "?" => Unknown::AnyBut(names),
        _ => return Err(()),
    };
    Ok(Unfinished { begins, unknown })
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let parts: Vec<&str> = text.split('|').collect();
        let (file, gtids, inside, unfinished) = match parts[..] {
            [file, gtids, inside] => (file, gtids, inside, None),
            [file, gtids, inside, begin, set, xids] => (file, gtids, inside, Some(parse_unfinished(begin, set, xids)?)),
            _ => return Err(()),
        };
        let (file, gtids) = (parse_file(file)?, parse_gtids(gtids)?);
        let inside = if inside.is_empty() {
            None
        } else {
            let (event, row) = inside.split_once('.').ok_or(())?;
            Some(Inside { event: event.parse().map_err(drop)?, row: row.parse().map_err(drop)? })
        };
        if file.is_none() && gtids.is_none() {
            return Err(());
        }
        Ok(Self { file, gtids, inside, unfinished: unfinished.map(Box::new) })
    }
}

/// Hashes of names and of columns of the captured tables.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Shapes(pub(crate) BTreeMap<u32, u32>);

impl Shapes {
    pub(crate) fn get(&self, table: &TableId) -> Option<u32> {
        self.0.get(&table_hash(table)).copied()
    }

    pub(crate) fn set(&mut self, table: &TableId, shape: u32) {
        self.0.insert(table_hash(table), shape);
    }
}

fn table_hash(table: &TableId) -> u32 {
    hash(table.schema.bytes().chain([0]).chain(table.name.bytes()))
}

/// FNV-1a; stored, so it must never change.
pub(crate) fn hash(bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Identity of one log, at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Log {
    pub(crate) flavor: Flavor,
    /// `server_uuid`, or MariaDB's `server_id`.
    pub(crate) server: Box<str>,
    pub(crate) shapes: Shapes,
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flavor = if self.flavor == Flavor::MySql { "mysql" } else { "mariadb" };
        write!(f, "{flavor}:{}:", escape(&self.server))?;
        for (at, (table, shape)) in self.shapes.0.iter().enumerate() {
            write!(f, "{}{table:x}={shape:x}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl FromStr for Log {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let parts: Vec<&str> = text.split(':').collect();
        let [flavor, server, shapes] = parts[..] else { return Err(()) };
        let flavor = match flavor {
            "mysql" => Flavor::MySql,
            "mariadb" => Flavor::MariaDb,
            _ => return Err(()),
        };
        let pair = |text: &str| {
            let (table, shape) = text.split_once('=')?;
            Some((u32::from_str_radix(table, 16).ok()?, u32::from_str_radix(shape, 16).ok()?))
        };
        let shapes = shapes.split(',').filter(|t| !t.is_empty()).map(pair).collect::<Option<_>>().ok_or(())?;
        Ok(Self { flavor, server: unescape(server), shapes: Shapes(shapes) })
    }
}

impl Log {
    pub(crate) fn of(server: &Server) -> Self {
        Self { flavor: server.flavor, server: server.id.clone(), shapes: Shapes::default() }
    }

    /// `place` in this log.
    pub(crate) fn position(&self, place: &Place) -> Position {
        Position { log: Arc::from(self.to_string()), place: place.to_string().into() }
    }

    pub(crate) fn is_same_server(&self, other: &Self) -> bool {
        self.flavor == other.flavor && self.server == other.server
    }
}

/// Reads a position's two parts.
pub(crate) fn parse(position: &Position) -> Result<(Log, Place)> {
    match (position.log.parse(), position.place.parse()) {
        (Ok(log), Ok(place)) => Ok((log, place)),
        _ => Err(lost("the position is not one of a MySQL or MariaDB log")),
    }
}

/// Whether a tail at `reached` has delivered everything up to `goal`.
pub(crate) fn covers(reached: &Position, goal: &Position) -> Result<bool> {
    if reached == goal {
        parse(reached)?;
        return Ok(true);
    }
    let (log, reached) = parse(reached)?;
    let (goal_log, goal) = parse(goal)?;
    if log.flavor != goal_log.flavor {
        return Err(lost("one position is of MySQL and the other of MariaDB"));
    }
    let same_server = log.is_same_server(&goal_log);
    if same_server
        && let (Some(reached_file), Some(goal_file)) = (&reached.file, &goal.file)
        && let Some(order) = reached_file.reaches(goal_file)
    {
        // A place inside a transaction is behind the place where that begins, of which both may speak.
        let at_goal = reached_file.name == goal_file.name && reached_file.offset == goal_file.offset;
        return Ok(order && (!at_goal || goal.inside <= reached.inside));
    }
    match (&reached.gtids, &goal.gtids) {
        (Some(reached_set), Some(goal_set)) => {
            Ok(reached_set.contains(goal_set) && (goal.inside.is_none() || reached_set != goal_set))
        }
        _ => Err(lost("the positions belong to two servers, and have no GTIDs by which they could be compared")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn log(server: &str) -> Log {
        let mut shapes = Shapes::default();
        shapes.set(&TableId::new("s", "t"), 9);
        Log { flavor: Flavor::MySql, server: server.into(), shapes }
    }

    fn at(server: &str, place: &str) -> Position {
        log(server).position(&place.parse().unwrap())
    }

    #[test]
    fn places_are_written_and_read() {
        for text in [
            "bin.000001:4@1700000000|M|",
            &format!("bin.000001:4@0|M{A}:1-5|3.17"),
            "|D0-1-7|",
            "a%7Cb%3A.000001:99999999999@7||",
            &format!("bin.000002:4@0|M{A}:1-5||bin.000001:4@9|M{A}:1-3|!61.62.1,63..2"),
            "bin.000001:4@0||3.1|||?",
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "||",
            "bin.1||",
            "bin.1:x@1||",
            "|X|",
            "|D0-1|",
            "|D|1",
            "|D|1.x",
            "|D||",
            "|D0-1-7||||",
            "|D0-1-7||||!x",
        ] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
        assert_eq!(log("x:y").to_string().parse(), Ok(log("x:y")));
        for text in ["", "mysql", "mysql:a", "pg:a:", "mysql:a:zz", "mysql:a:1=2:3"] {
            assert!(text.parse::<Log>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_covers_what() {
        for (reached, goal, wanted) in [
            ("b.000002:4@0||", "b.000001:999@0||", true),
            ("b.000009:4@0||", "b.000010:4@0||", false),
            ("b.999999:4@0||", "b.1000000:4@0||", false),
            ("b.000001:500@0||", "b.000001:500@1||", true),
            ("b.000001:500@0||", "b.000001:501@0||", false),
            ("b.000001:500@0||3.0", "b.000001:500@0||", true),
            ("b.000001:500@0||", "b.000001:500@0||3.0", false),
            ("b.000001:500@0||2.9", "b.000001:500@0||3.0", false),
            ("b.000001:500@0||3.0", "b.000001:501@0||", false),
        ] {
            assert_eq!(covers(&at("s", reached), &at("s", goal)).unwrap(), wanted, "{reached} {goal}");
        }
    }

    #[test]
    fn across_servers_only_gtids_count() {
        let place = |set: &str, offset: u32| format!("b.000001:{offset}@0|M{A}:{set}|");
        let cov = |a: &str, b: &str| covers(&at("one", a), &at("two", b));
        assert!(cov(&place("1-10", 1), &place("1-9", 999)).unwrap());
        assert!(!cov(&place("1-8", 999), &place("1-9", 1)).unwrap());
        let error = cov("b.000001:500@0||", "b.000001:400@0||").unwrap_err();
        assert_eq!(error.kind, tidemark_contract::ErrorKind::PositionLost);
        // Another sequence of files on the same server.
        assert!(covers(&at("s", "a.000001:5@0|D0-1-7|"), &at("s", "b.000009:5@0|D0-1-7|")).unwrap());
    }

    proptest! {
        #[test]
        fn any_text_is_a_place_or_an_error(text in "[a-z0-9:@|.MD,-]{0,40}") {
            if let Ok(place) = text.parse::<Place>() {
                prop_assert_eq!(place.to_string().parse::<Place>(), Ok(place));
            }
        }
    }
}
