//! Places in the log.
//!
//! The log sequence number of a commit orders all transactions of a database. A place holds two of them: `read`, from
//! behind which a stream goes on (every captured transaction up to it was delivered), and `seen`, which is at least as far:
//! the log itself was read up to there and held nothing else for us. They differ because the end of the log, unlike the
//! last captured transaction, moves by transactions of tables that nobody captures; a stream never resumes from it.
//!
//! `log` names the database and then the capture instances that the stream reads: `fork|object:table:name,…`.
//!
//! Under change tracking a place is a version, a decimal number; `log` is `ct/fork|begin:table:name,…` with the version from
//! which on each table is tracked.

use crate::error::{bug, lost};
use crate::sql::{hex, unhex};
use std::sync::Arc;
use tidemark_contract::{Position, Result};

/// How the names of logs of change tracking begin.
pub(crate) const TRACKING: &str = "ct/";

/// A log sequence number: ten bytes whose order is the log's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Lsn(pub(crate) [u8; 10]);

impl Lsn {
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The text form of the management views: `00000027:00000758:0005`.
    pub(crate) fn of_text(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        Self::of(&unhex(&digits)?)
    }

    pub(crate) fn is_zero(self) -> bool {
        self == Self::default()
    }

    /// The next number.
    pub(crate) fn next(mut self) -> Self {
        for byte in self.0.iter_mut().rev() {
            let (sum, over) = byte.overflowing_add(1);
            *byte = sum;
            if !over {
                break;
            }
        }
        self
    }

    pub(crate) fn literal(self) -> String {
        crate::sql::binary(&self.0)
    }
}

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) read: Lsn,
    pub(crate) seen: Lsn,
}

impl Place {
    pub(crate) fn at(lsn: Lsn) -> Self {
        Self { read: lsn, seen: lsn }
    }

    pub(crate) fn position(self, log: &Arc<str>) -> Position {
        let place = match self.read == self.seen {
            true => hex(&self.read.0),
            false => format!("{}/{}", hex(&self.read.0), hex(&self.seen.0)),
        };
        Position { log: log.clone(), place: place.into() }
    }

    pub(crate) fn parse(position: &Position) -> Result<Self> {
        let (read, seen) = position.place.split_once('/').unwrap_or((&position.place, &position.place));
        let lsn = |text: &str| unhex(text).and_then(|b| Lsn::of(&b));
        match (lsn(read), lsn(seen)) {
            (Some(read), Some(seen)) => Ok(Self { read, seen }),
            _ => Err(lost(format!("`{position}` is no place in a SQL Server log"))),
        }
    }
}

/// The part of a log's name that names the database.
pub(crate) fn database_of(log: &str) -> &str {
    log.split('|').next().unwrap_or(log)
}

/// A capture instance that a stream read: the change table's object and the table's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Used {
    pub(crate) instance: i64,
    pub(crate) source: i64,
    /// A hash of the table's name.
    pub(crate) name: u32,
}

/// A log's name.
pub(crate) fn log_name(database: &str, used: &[Used]) -> Arc<str> {
    let list: Vec<String> = used.iter().map(|u| format!("{}:{}:{:x}", u.instance, u.source, u.name)).collect();
    format!("{database}|{}", list.join(",")).into()
}

/// The capture instances of a log's name.
pub(crate) fn used_of(log: &str) -> Vec<Used> {
    let list = log.split_once('|').map_or("", |(_, list)| list).split(',');
    list.filter_map(|one| {
        let mut parts = one.split(':');
        let (instance, source) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        Some(Used { instance, source, name: u32::from_str_radix(parts.next()?, 16).ok()? })
    })
    .collect()
}

/// A place of change tracking: a version.
pub(crate) fn version_position(log: &Arc<str>, version: i64) -> Position {
    Position { log: log.clone(), place: version.to_string().into() }
}

/// The version of a place of change tracking.
pub(crate) fn version_of(position: &Position) -> Result<i64> {
    position.place.parse().map_err(|_| lost(format!("`{position}` is no version of change tracking")))
}

/// Whether a tail at `reached` has delivered everything up to `goal`.
pub(crate) fn covers(reached: &Position, goal: &Position) -> Result<bool> {
    if database_of(&reached.log) != database_of(&goal.log) {
        return Err(lost("the two positions are of different databases, or of one before and after it was restored"));
    }
    if reached.log.starts_with(TRACKING) {
        return Ok(version_of(reached)? >= version_of(goal)?);
    }
    let (reached, goal) = (Place::parse(reached)?, Place::parse(goal)?);
    if reached.seen < reached.read {
        return Err(bug("a position claims to have read more than it has seen"));
    }
    Ok(reached.seen >= goal.seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(n: u8) -> Lsn {
        let mut bytes = [0; 10];
        bytes[9] = n;
        Lsn(bytes)
    }

    #[test]
    fn places_come_back_as_they_went_in() {
        let log =
            log_name("db", &[Used { instance: 5, source: 7, name: 1 }, Used { instance: 6, source: 8, name: 0xff }]);
        for place in [Place::at(lsn(1)), Place { read: lsn(1), seen: lsn(9) }] {
            let position = place.position(&log);
            assert_eq!(Place::parse(&position).unwrap(), place);
        }
        assert_eq!(used_of(&log).len(), 2);
        assert_eq!(used_of(&log)[1], Used { instance: 6, source: 8, name: 0xff });
        assert_eq!(database_of(&log), "db");
        let strange = Position { log, place: "12".into() };
        assert!(Place::parse(&strange).is_err());
    }

    #[test]
    fn what_was_seen_covers() {
        let here = |read, seen| Place { read: lsn(read), seen: lsn(seen) }.position(&"db|1:2".into());
        assert!(covers(&here(1, 5), &here(5, 5)).unwrap());
        assert!(!covers(&here(1, 5), &here(6, 6)).unwrap());
        let other = Place::at(lsn(1)).position(&"other".into());
        assert!(covers(&here(1, 1), &other).is_err());
        let bare = Place::at(lsn(1)).position(&"db".into());
        assert!(covers(&here(1, 1), &bare).unwrap());
    }

    #[test]
    fn numbers_carry_and_read_both_text_forms() {
        assert_eq!(Lsn([0, 0, 0, 0, 0, 0, 0, 0, 0, 255]).next(), Lsn([0, 0, 0, 0, 0, 0, 0, 0, 1, 0]));
        let wanted = Lsn([0, 0, 0, 0x27, 0, 0, 7, 0x5a, 0, 5]);
        assert_eq!(Lsn::of_text("00000027:0000075A:0005"), Some(wanted));
        assert_eq!(Lsn::of_text("00000027:0000075a:0005"), Some(wanted));
        assert_eq!(Lsn::of_text("x"), None);
    }
}
