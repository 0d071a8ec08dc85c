//! Places in the log.
//!
//! The log sequence number of a commit orders all transactions of a database. A place holds two of them: `read`, from
//! behind which a stream goes on (every captured transaction up to it was delivered), and `seen`, which is at least as far:
//! the log itself was read up to there and held nothing else for us. They differ because the end of the log, unlike the
//! last captured transaction, moves by transactions of tables that nobody captures; a stream never resumes from it.
//!
//! A large transaction has places inside: `inside` is the last of its change rows that was delivered. All change rows of a
//! transaction are in the change tables before the log's end moves past it, and their order never changes, so such a place
//! means the same whenever it is come back to.
//!
//! `log` names the database and then the capture instances that the stream reads: `fork|object:table:name,…`.
//!
//! Under change tracking a place is a version, a decimal number; `log` is `ct/fork|begin:table:name,…` with the version from
//! which on each table is tracked. Inside a round it is `version+told` (see [`Version`]).

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

/// The log's order within a database: commit, statement, log record, and the two sides of an update.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Mark {
    pub(crate) commit: Lsn,
    /// [`NO_COMMAND`] for rows written before the server knew of statements.
    pub(crate) command: i64,
    pub(crate) record: Lsn,
    pub(crate) operation: i64,
}

/// Before every command, as null is in the server's order.
pub(crate) const NO_COMMAND: i64 = -1;

impl Mark {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let mark = Self {
            commit: Lsn::of(&unhex(parts.next()?)?)?,
            command: parts.next()?.parse().ok()?,
            record: Lsn::of(&unhex(parts.next()?)?)?,
            operation: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(mark)
    }
}

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) read: Lsn,
    pub(crate) seen: Lsn,
    /// The last row delivered of the first transaction behind `seen` that has rows for us.
    pub(crate) inside: Option<Mark>,
}

impl Place {
    pub(crate) fn at(lsn: Lsn) -> Self {
        Self { read: lsn, seen: lsn, inside: None }
    }

    pub(crate) fn position(self, log: &Arc<str>) -> Position {
        let mut place = hex(&self.read.0);
        if self.read != self.seen || self.inside.is_some() {
            place.push('/');
            place.push_str(&hex(&self.seen.0));
        }
        if let Some(mark) = self.inside {
            let (commit, record) = (hex(&mark.commit.0), hex(&mark.record.0));
            place.push_str(&format!("/{commit}:{}:{record}:{}", mark.command, mark.operation));
        }
        Position { log: log.clone(), place: place.into() }
    }

    pub(crate) fn parse(position: &Position) -> Result<Self> {
        let place = || {
            let mut parts = position.place.split('/');
            let mut lsn = || parts.next().map(|text| unhex(text).and_then(|b| Lsn::of(&b)));
            let read = lsn()??;
            let seen = lsn().unwrap_or(Some(read))?;
            let inside = parts.next().map(Mark::parse);
            (parts.next().is_none() && inside != Some(None)).then_some(Self { read, seen, inside: inside.flatten() })
        };
        place().ok_or_else(|| lost(format!("`{position}` is no place in a SQL Server log")))
    }

    /// Whether everything before `goal` was delivered here.
    fn covers(self, goal: Self) -> bool {
        let behind = |lsn: Lsn| self.seen >= lsn || self.inside.is_some_and(|mark| mark.commit > lsn);
        match goal.inside {
            None => behind(goal.seen),
            Some(mark) => behind(mark.commit) || self.inside >= Some(mark),
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

/// A place of change tracking.
///
/// Within a round only a row's key would tell how far it has come, and a key has no business in a position, which is shown
/// and logged. So all places inside of a round lead back to its beginning. They say how far was told nevertheless: whoever
/// goes on from one has reached it only with the round's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Version {
    /// Everything up to this version was told.
    pub(crate) read: i64,
    /// The highest version of a change that was told.
    pub(crate) told: i64,
}

impl Version {
    pub(crate) fn at(version: i64) -> Self {
        Self { read: version, told: version }
    }

    pub(crate) fn position(self, log: &Arc<str>) -> Position {
        let place = match self.read == self.told {
            true => self.read.to_string(),
            false => format!("{}+{}", self.read, self.told),
        };
        Position { log: log.clone(), place: place.into() }
    }

    pub(crate) fn parse(position: &Position) -> Result<Self> {
        let (read, told) = position.place.split_once('+').unwrap_or((&position.place, &position.place));
        match (read.parse(), told.parse()) {
            (Ok(read), Ok(told)) if told >= read => Ok(Self { read, told }),
            _ => Err(lost(format!("`{position}` is no version of change tracking"))),
        }
    }
}

/// Whether `goal` was handed out by a stream that has handed out `received` last.
pub(crate) fn was_received(received: &Position, goal: &Position) -> Result<bool> {
    Ok(received == goal || covers(received, goal)? || {
        received.log.starts_with(TRACKING) && Version::parse(received)?.told >= Version::parse(goal)?.told
    })
}

/// Whether a tail at `reached` has delivered everything up to `goal`.
pub(crate) fn covers(reached: &Position, goal: &Position) -> Result<bool> {
    if database_of(&reached.log) != database_of(&goal.log) {
        return Err(lost("the two positions are of different databases, or of one before and after it was restored"));
    }
    if reached.log.starts_with(TRACKING) {
        return Ok(Version::parse(reached)?.read >= Version::parse(goal)?.told);
    }
    let (reached, goal) = (Place::parse(reached)?, Place::parse(goal)?);
    if reached.seen < reached.read {
        return Err(bug("a position claims to have read more than it has seen"));
    }
    Ok(reached.covers(goal))
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
        let mark = Mark { commit: lsn(9), command: NO_COMMAND, record: lsn(8), operation: 4 };
        let places = [(1, None), (5, None), (1, Some(mark)), (5, Some(mark))].map(|(seen, inside)| Place {
            read: lsn(1),
            seen: lsn(seen),
            inside,
        });
        for place in places {
            let position = place.position(&log);
            assert_eq!(Place::parse(&position).unwrap(), place);
        }
        assert_eq!(used_of(&log).len(), 2);
        assert_eq!(used_of(&log)[1], Used { instance: 6, source: 8, name: 0xff });
        assert_eq!(database_of(&log), "db");
        let good = places[3].position(&log).place;
        for strange in
            ["12".into(), format!("{good}:1"), format!("{good}/1"), good.replace(":4", ":x"), good.replace('/', "")]
        {
            assert!(Place::parse(&Position { log: log.clone(), place: strange.as_str().into() }).is_err(), "{strange}");
        }
    }

    #[test]
    fn what_was_seen_covers() {
        let log: Arc<str> = "db|1:2".into();
        let here = |read, seen| Place { read: lsn(read), seen: lsn(seen), inside: None }.position(&log);
        assert!(covers(&here(1, 5), &here(5, 5)).unwrap());
        assert!(!covers(&here(1, 5), &here(6, 6)).unwrap());
        let other = Place::at(lsn(1)).position(&"other".into());
        assert!(covers(&here(1, 1), &other).is_err());
        let bare = Place::at(lsn(1)).position(&"db".into());
        assert!(covers(&here(1, 1), &bare).unwrap());
    }

    #[test]
    fn places_inside_a_transaction_are_in_its_order() {
        let log: Arc<str> = "db|1:2".into();
        let whole = |at| Place::at(lsn(at)).position(&log);
        let inside = |commit, command| {
            let mark = Mark { commit: lsn(commit), command, record: lsn(1), operation: 2 };
            Place { read: lsn(1), seen: lsn(3), inside: Some(mark) }.position(&log)
        };
        let order = [whole(3), inside(9, 1), inside(9, 2), whole(9), inside(11, 0), whole(11)];
        for (at, reached) in order.iter().enumerate() {
            for (before, goal) in order.iter().enumerate() {
                assert_eq!(covers(reached, goal).unwrap(), at >= before, "{reached} {goal}");
            }
        }
    }

    #[test]
    fn a_round_is_reached_at_its_end() {
        let log: Arc<str> = "ct/db|1:2:3".into();
        let place = |read, told| Version { read, told }.position(&log);
        for (read, told) in [(3, 3), (3, 9)] {
            assert_eq!(Version::parse(&place(read, told)).unwrap(), Version { read, told });
        }
        for strange in ["x", "", "3+", "3+2", "3+4+5"] {
            assert!(Version::parse(&Position { log: log.clone(), place: strange.into() }).is_err(), "{strange}");
        }
        assert!(covers(&place(9, 9), &place(3, 9)).unwrap());
        assert!(covers(&place(3, 9), &place(3, 3)).unwrap());
        assert!(!covers(&place(3, 9), &place(3, 9)).unwrap());
        assert!(!covers(&place(8, 8), &place(3, 9)).unwrap());
        assert!(was_received(&place(3, 9), &place(3, 9)).unwrap());
        assert!(was_received(&place(3, 9), &place(3, 5)).unwrap());
        assert!(!was_received(&place(3, 5), &place(3, 9)).unwrap());
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
