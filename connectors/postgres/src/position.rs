//! What a position is here, and the identity of the log it belongs to.
//!
//! # Places
//!
//! | text | meaning |
//! |---|---|
//! | `16/B374D848` | every transaction whose commit record ends at or before this LSN has been delivered whole |
//! | `16/B374D848+3000` | every transaction committed before the one whose commit record *begins* at this LSN, and the first 3000 row messages of that one |
//!
//! Logical decoding sends transactions in the order of their commit records, so an LSN within a transaction means
//! nothing, and the pair (LSN, index) ordered lexicographically is exactly the order of delivery: a commit record ends
//! after it begins, so a place `E` at or behind the end of transaction `F` is greater than any `F+i`, and any `F+i` is
//! greater than every place up to `F`. Reaching `F+i` therefore covers a barrier `g` exactly if `F ≥ g`.
//!
//! Telling the server that it may forget everything up to `F` keeps transaction `F` (it starts with the transactions whose
//! commit record lies at or after that LSN), so `F+i` is acknowledged as `F`.
//!
//! # The log's identity
//!
//! `postgres:<system identifier>:<timeline>:<database>:<slot>:<created at>:<tables>`. The system identifier tells clusters apart
//! that were initialised separately. The timeline counts promotions and restores to a point in time: LSNs of different
//! timelines are comparable only up to where they parted ([`History`]). The last part is the LSN at which the slot was
//! created; PostgreSQL keeps no such stamp itself, but positions written by us carry it, so that a position from before a
//! resync is not taken for one after it. It is `?` where it is unknown: in barriers of reads made without a stream.
//!
//! The tables that a stream captures belong to its identity too, as pairs of a name's hash and the table's OID. A table that
//! is missing in the publication is new if the stored position does not know it (its own snapshot brings its rows), and a
//! gap if it does: it was taken out meanwhile, and its changes are lost. A name that stands for another table than before
//! (dropped and created again, swapped by renaming) has changed its rows without a trace in the log: a gap as well.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use tidemark_contract::{ErrorKind, Position, Result, SourceError, TableId};

/// A byte position in the write-ahead log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Lsn(pub(crate) u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Lsn {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let (high, low) = text.split_once('/').ok_or(())?;
        let part = |hex: &str| {
            let fits = (1..=8).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit());
            if fits { u64::from_str_radix(hex, 16).map_err(drop) } else { Err(()) }
        };
        Ok(Lsn(part(high)? << 32 | part(low)?))
    }
}

impl Lsn {
    /// The place that an insert position stands for. The server reports the place of the *next* record: on a page's start
    /// that is behind the page's header (24 bytes, 40 on the first page of a segment), where no record can end, and a
    /// stream that has read everything reports the page's start. So such a place is rounded down.
    pub(crate) fn without_page_header(self, page: u64, segment: u64) -> Self {
        let header = if segment > 0 && self.0 % segment < page { 40 } else { 24 };
        if page > 0 && self.0 % page == header { Lsn(self.0 - header) } else { self }
    }
}

/// A place in the log: see the module's documentation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Place {
    pub(crate) lsn: Lsn,
    /// 0, or the number of row messages delivered of the transaction that commits at `lsn`.
    pub(crate) index: u64,
}

impl From<Lsn> for Place {
    fn from(lsn: Lsn) -> Self {
        Self { lsn, index: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            0 => write!(f, "{}", self.lsn),
            index => write!(f, "{}+{index}", self.lsn),
        }
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let Some((lsn, index)) = text.split_once('+') else { return Ok(Place::from(text.parse::<Lsn>()?)) };
        match index.parse() {
            Ok(index) if index > 0 => Ok(Place { lsn: lsn.parse()?, index }),
            _ => Err(()),
        }
    }
}

/// Where the timelines before the present one ended: `(timeline, the LSN at which its successor branched off)`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct History(Vec<(u32, Lsn)>);

impl History {
    /// Reads a timeline history file: a number, an LSN and a reason on each line, `#` before comments.
    pub(crate) fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
        };
        Self(text.lines().filter_map(line).collect())
    }

    /// Whether `place` on `timeline` lies in the past of the present timeline too.
    fn contains(&self, timeline: u32, place: Place) -> bool {
        self.0.iter().any(|(t, end)| *t == timeline && place <= Place::from(*end))
    }
}

/// Identity of one log, at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Log {
    pub(crate) system: Box<str>,
    pub(crate) timeline: u32,
    pub(crate) database: Box<str>,
    pub(crate) slot: Box<str>,
    pub(crate) created: Option<Lsn>,
    pub(crate) tables: Tables,
}

/// The captured tables: hashes of names and OIDs, ordered by hash.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tables(Arc<[(u32, u32)]>);

impl Tables {
    pub(crate) fn new<'a>(tables: impl Iterator<Item = (&'a TableId, u32)>) -> Self {
        let mut pairs: Vec<(u32, u32)> = tables.map(|(name, oid)| (hash(name), oid)).collect();
        pairs.sort_unstable();
        Self(pairs.into())
    }

    /// The OID of the table that `name` stood for.
    pub(crate) fn oid(&self, name: &TableId) -> Option<u32> {
        self.by_hash(hash(name))
    }

    fn by_hash(&self, hash: u32) -> Option<u32> {
        let at = self.0.binary_search_by_key(&hash, |(h, _)| *h).ok()?;
        self.0.get(at).map(|(_, oid)| *oid)
    }
}

/// FNV-1a; stored, so it must never change.
fn hash(table: &TableId) -> u32 {
    let bytes = table.schema.bytes().chain([0]).chain(table.name.bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (hash, oid)) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{hash:x}={oid}")?;
        }
        Ok(())
    }
}

impl FromStr for Tables {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let pair = |text: &str| {
            let (hash, oid) = text.split_once('=')?;
            Some((u32::from_str_radix(hash, 16).ok()?, oid.parse().ok()?))
        };
        let mut pairs = text.split(',').filter(|t| !t.is_empty()).map(pair).collect::<Option<Vec<_>>>().ok_or(())?;
        pairs.sort_unstable();
        Ok(Self(pairs.into()))
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres:{}:{}:{}:{}:", self.system, self.timeline, escape(&self.database), escape(&self.slot))?;
        match self.created {
            Some(lsn) => write!(f, "{lsn}:{}", self.tables),
            None => write!(f, "?:{}", self.tables),
        }
    }
}

/// Colons divide the parts, so they are written as `%3A` inside one.
fn escape(name: &str) -> String {
    name.replace('%', "%25").replace(':', "%3A")
}

impl FromStr for Log {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let unescape = |name: &str| name.replace("%3A", ":").replace("%25", "%").into_boxed_str();
        let parts: Vec<&str> = text.split(':').collect();
        let ["postgres", system, timeline, database, slot, created, tables] = parts[..] else { return Err(()) };
        Ok(Self {
            system: system.into(),
            timeline: timeline.parse().map_err(drop)?,
            database: unescape(database),
            slot: unescape(slot),
            created: if created == "?" { None } else { Some(created.parse()?) },
            tables: tables.parse()?,
        })
    }
}

impl Log {
    /// `place` in this log.
    pub(crate) fn position(&self, place: Place) -> Position {
        Position { log: Arc::from(self.to_string()), place: place.to_string().into() }
    }

    /// Checks that a place of `other` can be found in this log, whose past timelines are `history`.
    pub(crate) fn accept(&self, other: &Log, place: Place, history: &History) -> Result<()> {
        let different = |what: &str, seen: &str, wanted: &str| {
            Err(lost(format!("the position belongs to another {what}: it is of {wanted}, this is {seen}")))
        };
        if self.system != other.system {
            return different("PostgreSQL cluster (system identifier)", &self.system, &other.system);
        }
        if self.database != other.database {
            return different("database", &self.database, &other.database);
        }
        if self.slot != other.slot {
            return different("replication slot", &self.slot, &other.slot);
        }
        if let (Some(mine), Some(theirs)) = (self.created, other.created)
            && mine != theirs
        {
            return different(
                "slot of the same name",
                &format!("one created at {mine}"),
                &format!("one created at {theirs}"),
            );
        }
        for (hash, oid) in self.tables.0.iter() {
            if other.tables.by_hash(*hash).is_some_and(|theirs| theirs != *oid) {
                return Err(lost(
                    "a table was dropped and made again, or replaced by renaming, since the position was saved",
                )
                .hint("the log does not tell which rows that removed or brought: everything must be read again"));
            }
        }
        if self.timeline != other.timeline && !history.contains(other.timeline, place) {
            return Err(lost(format!(
                "the position {place} on timeline {} is not in the history of this server, which is on timeline {}: it \
                 was promoted or restored from before that place",
                other.timeline, self.timeline
            )));
        }
        Ok(())
    }
}

/// Reads a position's two parts.
pub(crate) fn parse(position: &Position) -> Result<(Log, Place)> {
    let log = position.log.parse();
    let place = position.place.parse();
    match (log, place) {
        (Ok(log), Ok(place)) => Ok((log, place)),
        _ => Err(lost("the position is not one of a PostgreSQL log")),
    }
}

/// The log no longer reaches back to a position, or is another one.
pub(crate) fn lost(message: impl Into<String>) -> SourceError {
    SourceError::new(ErrorKind::PositionLost, message)
}

/// Whether a tail at `reached` has delivered everything up to `goal`.
pub(crate) fn covers(reached: &Position, goal: &Position, history: &History) -> Result<bool> {
    // The usual case: the same text, shared.
    let (reached_place, goal_place) = if reached.log == goal.log {
        match (reached.place.parse::<Place>(), goal.place.parse::<Place>()) {
            (Ok(reached), Ok(goal)) => (reached, goal),
            _ => return Err(lost("the position is not one of a PostgreSQL log")),
        }
    } else {
        let (log, reached) = parse(reached)?;
        let (other, goal) = parse(goal)?;
        // One of them may be older than a promotion; either way round they must lie in one history.
        if log.timeline >= other.timeline {
            log.accept(&other, goal, history)?;
        } else {
            other.accept(&log, reached, history)?;
        }
        (reached, goal)
    };
    Ok(reached_place >= goal_place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log(timeline: u32, created: Option<u64>) -> Log {
        let tables = Tables::new([(&TableId::new("public", "t"), 16_385)].into_iter());
        let created = created.map(Lsn);
        Log { system: "7".into(), timeline, database: "my:db".into(), slot: "s".into(), created, tables }
    }

    fn at(place: &str) -> Position {
        log(1, Some(5)).position(place.parse().unwrap())
    }

    #[test]
    fn places_are_written_and_read() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF", "0/1+1000"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for text in ["", "0", "0/", "/0", "0/0+", "0/0+0", "0/0+-1", "x/y", "0/123456789", "+1/0"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
        assert_eq!(log(3, Some(9)).to_string().parse(), Ok(log(3, Some(9))));
        assert_eq!(log(3, None).to_string().parse(), Ok(log(3, None)));
        assert!("postgres:7:1:db:s".parse::<Log>().is_err());
    }

    #[test]
    fn what_covers_what() {
        let none = History::default();
        for (reached, goal, wanted) in [
            ("0/100", "0/100", true),
            ("0/100", "0/FF", true),
            ("0/100", "0/101", false),
            // Inside the transaction that commits at 100: all before it is done, and nothing behind.
            ("0/100+1000", "0/100", true),
            ("0/100+1000", "0/101", false),
            ("0/100+1000", "0/100+1000", true),
            ("0/100+1000", "0/100+2000", false),
            // A commit that ends exactly where the next one begins has delivered nothing of that one.
            ("0/100", "0/100+1000", false),
            ("0/130", "0/100+1000", true),
        ] {
            assert_eq!(covers(&at(reached), &at(goal), &none).unwrap(), wanted, "{reached} {goal}");
        }
    }

    #[test]
    fn another_log_is_refused() {
        let none = History::default();
        let place = Place::from(Lsn(10));
        let here = log(1, Some(5)).position(place);
        let mut others = vec![log(1, Some(6)), log(2, Some(5))];
        others.push(Log { system: "8".into(), ..log(1, Some(5)) });
        others.push(Log { database: "x".into(), ..log(1, Some(5)) });
        others.push(Log { slot: "x".into(), ..log(1, Some(5)) });
        let again = Tables::new([(&TableId::new("public", "t"), 16_386)].into_iter());
        others.push(Log { tables: again, ..log(1, Some(5)) });
        for other in others {
            let error = covers(&here, &other.position(place), &none).unwrap_err();
            assert_eq!(error.kind, ErrorKind::PositionLost, "{other}");
        }
        let nonsense = Position { log: "x".into(), place: "0/0".into() };
        assert_eq!(covers(&here, &nonsense, &none).unwrap_err().kind, ErrorKind::PositionLost);
        // A table more or less makes no other log.
        let more = Tables::new([(&TableId::new("public", "t"), 16_385), (&TableId::new("public", "u"), 7)].into_iter());
        assert_eq!(more.to_string().parse(), Ok(more.clone()));
        assert!(covers(&here, &Log { tables: more, ..log(1, Some(5)) }.position(place), &none).unwrap());
        assert_eq!(log(1, None).tables.oid(&TableId::new("public", "t")), Some(16_385));
        // A barrier read without a stream does not know when the slot was made.
        assert!(covers(&here, &log(1, None).position(place), &none).unwrap());
    }

    #[test]
    fn a_promotion_keeps_what_lies_before_it() {
        let history = History::parse("1\t0/64\tno recovery target specified\n\n# comment\n2\t0/C8\tbefore x\n");
        assert_eq!(history, History(vec![(1, Lsn(100)), (2, Lsn(200))]));
        let now = log(3, Some(5)).position(Place::from(Lsn(300)));
        let before = |timeline, lsn| log(timeline, Some(5)).position(Place::from(Lsn(lsn)));
        assert!(covers(&now, &before(1, 100), &history).unwrap());
        assert!(covers(&now, &before(1, 101), &history).is_err());
        assert!(covers(&now, &before(2, 200), &history).unwrap());
        assert!(!covers(&before(2, 200), &now, &history).unwrap());
        assert!(covers(&now, &before(4, 1), &history).is_err());
    }

    #[test]
    fn page_headers_are_not_places() {
        let round = |lsn: u64| Lsn(lsn).without_page_header(8192, 16 << 20).0;
        assert_eq!(round(8192 * 5 + 24), 8192 * 5);
        assert_eq!(round((16 << 20) * 3 + 40), (16 << 20) * 3);
        assert_eq!(round((16 << 20) * 3 + 24), (16 << 20) * 3 + 24);
        assert_eq!(round(8192 * 5 + 40), 8192 * 5 + 40);
        assert_eq!(round(8192 * 5 + 32), 8192 * 5 + 32);
    }

    proptest! {
        #[test]
        fn any_place_survives(lsn in any::<u64>(), index in any::<u64>()) {
            let place = Place { lsn: Lsn(lsn), index };
            prop_assert_eq!(place.to_string().parse(), Ok(place));
        }

        #[test]
        fn hostile_positions_do_not_panic(log in ".{0,40}", place in ".{0,20}") {
            let _ = parse(&Position { log: log.as_str().into(), place: place.as_str().into() });
        }
    }
}
