//! Global transaction identifiers: MySQL's sets of intervals, MariaDB's one per domain.

use crate::error::undecodable;
use std::collections::BTreeMap;
use std::fmt;
use tidemark_contract::{Result, SourceError};

/// Who began a transaction: a server's UUID and, from MySQL 8.3 on, a tag (empty if there is none).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Source {
    pub(crate) uuid: [u8; 16],
    pub(crate) tag: Box<str>,
}

/// One transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Gtid {
    MySql(Source, u64),
    MariaDb { domain: u32, server: u32, sequence: u64 },
}

/// A set of transactions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum GtidSet {
    /// Intervals, both ends included, sorted, neither overlapping nor touching.
    MySql(BTreeMap<Source, Vec<(u64, u64)>>),
    /// The last transaction of each domain: server and sequence number.
    MariaDb(BTreeMap<u32, (u32, u64)>),
}

fn malformed() -> SourceError {
    undecodable("a set of GTIDs cannot be read")
}

impl GtidSet {
    /// Reads `uuid[:tag]:1-5:7[:tag:1-3], …`.
    pub(crate) fn parse_mysql(text: &str) -> Result<Self> {
        let mut set = Self::MySql(BTreeMap::new());
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let mut words = part.split(':').map(str::trim);
            let uuid = words.next().and_then(parse_uuid).ok_or_else(malformed)?;
            let mut source = Source { uuid, tag: "".into() };
            for word in words {
                if !word.starts_with(|c: char| c.is_ascii_digit()) {
                    source.tag = word.to_ascii_lowercase().into();
                    continue;
                }
                let (first, last) = word.split_once('-').unwrap_or((word, word));
                let (first, last) = (first.trim().parse::<u64>(), last.trim().parse::<u64>());
                let (Ok(first), Ok(last)) = (first, last) else { return Err(malformed()) };
                if first == 0 || first > last || last >= u64::MAX / 2 {
                    return Err(malformed());
                }
                set.add_interval(&source, first, last);
            }
        }
        Ok(set)
    }

    /// Reads `0-1-100,1-2-7`.
    pub(crate) fn parse_mariadb(text: &str) -> Result<Self> {
        let mut domains = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let mut numbers = part.split('-').map(|n| n.parse::<u64>().ok());
            let (Some(Some(domain)), Some(Some(server)), Some(Some(sequence)), None) =
                (numbers.next(), numbers.next(), numbers.next(), numbers.next())
            else {
                return Err(malformed());
            };
            let (Ok(domain), Ok(server)) = (u32::try_from(domain), u32::try_from(server)) else {
                return Err(malformed());
            };
            // A domain may be named twice after a promotion: the later one counts.
            let known = domains.entry(domain).or_insert((server, sequence));
            if sequence > known.1 {
                *known = (server, sequence);
            }
        }
        Ok(Self::MariaDb(domains))
    }

    fn add_interval(&mut self, source: &Source, first: u64, last: u64) {
        let Self::MySql(sources) = self else { return };
        if !sources.contains_key(source) {
            sources.insert(source.clone(), Vec::new());
        }
        let Some(intervals) = sources.get_mut(source) else { return };
        // The usual case: the next one of the last interval.
        if let Some(end) = intervals.last_mut()
            && first >= end.0
        {
            if first <= end.1 + 1 {
                end.1 = end.1.max(last);
            } else {
                intervals.push((first, last));
            }
            return;
        }
        let at = intervals.partition_point(|(_, end)| end + 1 < first);
        let mut merged = (first, last);
        let mut until = at;
        while let Some(next) = intervals.get(until).filter(|(begin, _)| *begin <= merged.1 + 1) {
            merged = (merged.0.min(next.0), merged.1.max(next.1));
            until += 1;
        }
        intervals.splice(at..until, [merged]);
    }

    /// Adds one transaction.
    pub(crate) fn add(&mut self, gtid: &Gtid) {
        match (gtid, &mut *self) {
            (Gtid::MySql(source, number), Self::MySql(_)) => self.add_interval(source, *number, *number),
            (Gtid::MariaDb { domain, server, sequence }, Self::MariaDb(domains)) => {
                domains.insert(*domain, (*server, *sequence));
            }
            _ => {}
        }
    }

    /// Whether a transaction is in here.
    pub(crate) fn has(&self, gtid: &Gtid) -> bool {
        match (self, gtid) {
            (Self::MySql(mine), Gtid::MySql(source, number)) => mine.get(source).is_some_and(|intervals| {
                let at = intervals.partition_point(|(_, end)| end < number);
                intervals.get(at).is_some_and(|(begin, _)| begin <= number)
            }),
            (Self::MariaDb(mine), Gtid::MariaDb { domain, sequence, .. }) => {
                mine.get(domain).is_some_and(|(_, reached)| reached >= sequence)
            }
            _ => false,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::MySql(sources) => sources.is_empty(),
            Self::MariaDb(domains) => domains.is_empty(),
        }
    }

    /// Whether every transaction of `other` is in here.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::MySql(mine), Self::MySql(theirs)) => theirs.iter().all(|(source, intervals)| {
                let mine = mine.get(source).map_or(&[][..], |m| m);
                intervals.iter().all(|(first, last)| {
                    let at = mine.partition_point(|(_, end)| end < first);
                    mine.get(at).is_some_and(|(begin, end)| begin <= first && last <= end)
                })
            }),
            (Self::MariaDb(mine), Self::MariaDb(theirs)) => theirs
                .iter()
                .all(|(domain, (_, sequence))| mine.get(domain).is_some_and(|(_, reached)| reached >= sequence)),
            _ => false,
        }
    }

    /// The form in which a replica tells a MySQL server what it has.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Self::MySql(sources) = self else { return Vec::new() };
        let tagged = sources.keys().any(|s| !s.tag.is_empty());
        let count = sources.len() as u64;
        // With tags, the count lies between two format marks.
        let head = if tagged { 1 << 56 | count << 8 | 1 } else { count };
        let mut out = head.to_le_bytes().to_vec();
        for (source, intervals) in sources {
            out.extend_from_slice(&source.uuid);
            if tagged {
                out.push(u8::try_from(source.tag.len() << 1).unwrap_or(0));
                out.extend_from_slice(source.tag.as_bytes());
            }
            out.extend_from_slice(&(intervals.len() as u64).to_le_bytes());
            for (first, last) in intervals {
                out.extend_from_slice(&first.to_le_bytes());
                out.extend_from_slice(&(last + 1).to_le_bytes());
            }
        }
        out
    }
}

/// A UUID's 16 bytes.
pub(crate) fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    if digits.len() != 32 {
        return None;
    }
    let mut out = [0; 16];
    for (byte, pair) in out.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

/// A UUID in lower case, with hyphens.
pub(crate) fn show_uuid(uuid: &[u8; 16]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(36);
    for (at, byte) in uuid.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    out
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gtid::MySql(source, number) if source.tag.is_empty() => write!(f, "{}:{number}", show_uuid(&source.uuid)),
            Gtid::MySql(source, number) => write!(f, "{}:{}:{number}", show_uuid(&source.uuid), source.tag),
            Gtid::MariaDb { domain, server, sequence } => write!(f, "{domain}-{server}-{sequence}"),
        }
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql(sources) => {
                for (at, (source, intervals)) in sources.iter().enumerate() {
                    write!(f, "{}{}", if at > 0 { "," } else { "" }, show_uuid(&source.uuid))?;
                    if !source.tag.is_empty() {
                        write!(f, ":{}", source.tag)?;
                    }
                    for (first, last) in intervals {
                        if first == last { write!(f, ":{first}") } else { write!(f, ":{first}-{last}") }?;
                    }
                }
                Ok(())
            }
            Self::MariaDb(domains) => {
                for (at, (domain, (server, sequence))) in domains.iter().enumerate() {
                    write!(f, "{}{domain}-{server}-{sequence}", if at > 0 { "," } else { "" })?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn my(text: &str) -> GtidSet {
        GtidSet::parse_mysql(text).unwrap()
    }

    #[test]
    fn sets_are_read_merged_and_written() {
        for (text, wanted) in [
            (format!("{A}:1-3:5"), format!("{A}:1-3:5")),
            (format!("{A}:5:1-3:4"), format!("{A}:1-5")),
            (format!("{B}:7,\n{A}:1-2"), format!("{A}:1-2,{B}:7")),
            (format!("{A}:1-2:tag:4-5"), format!("{A}:1-2,{A}:tag:4-5")),
            (String::new(), String::new()),
        ] {
            assert_eq!(my(&text).to_string(), wanted);
        }
        for text in ["x:1", &format!("{A}:0"), &format!("{A}:3-2"), &format!("{A}:1-99999999999999999999")] {
            assert!(GtidSet::parse_mysql(text).is_err(), "{text}");
        }
        let maria = GtidSet::parse_mariadb("1-2-7,0-1-100,0-2-99").unwrap();
        assert_eq!(maria.to_string(), "0-1-100,1-2-7");
        assert!(GtidSet::parse_mariadb("0-1").is_err());
    }

    #[test]
    fn what_contains_what() {
        for (a, b, wanted) in [
            (format!("{A}:1-10"), format!("{A}:1-10"), true),
            (format!("{A}:1-10"), format!("{A}:1-11"), false),
            (format!("{A}:1-3:5-9"), format!("{A}:6-8"), true),
            (format!("{A}:1-3:5-9"), format!("{A}:3-5"), false),
            (format!("{A}:1-3"), format!("{A}:1,{B}:1"), false),
            (format!("{A}:1-3"), String::new(), true),
        ] {
            assert_eq!(my(&a).contains(&my(&b)), wanted, "{a} {b}");
        }
        let maria = |t: &str| GtidSet::parse_mariadb(t).unwrap();
        assert!(maria("0-2-101,1-1-5").contains(&maria("0-1-100")));
        assert!(!maria("0-2-101").contains(&maria("0-1-100,1-1-5")));
        assert!(!maria("0-2-101").contains(&my(&format!("{A}:1"))));
    }

    #[test]
    fn sets_are_encoded_for_the_server() {
        let plain = my(&format!("{A}:1-3:5")).encode();
        assert_eq!(plain.len(), 8 + 16 + 8 + 32);
        assert_eq!(plain[..8], 1_u64.to_le_bytes());
        let tagged = my(&format!("{A}:1,{A}:ab:2")).encode();
        assert_eq!(tagged[..8], [1, 2, 0, 0, 0, 0, 0, 1]);
        assert_eq!(tagged[24], 0);
        assert_eq!(tagged.len(), 8 + 2 * (16 + 1 + 8 + 16) + 2);
    }

    proptest! {
        #[test]
        fn adding_one_by_one_is_like_a_plain_set(numbers in prop::collection::vec(1_u64..40, 0..60)) {
            let source = Source { uuid: [7; 16], tag: "".into() };
            let mut set = GtidSet::MySql(BTreeMap::new());
            let mut plain = std::collections::BTreeSet::new();
            for number in numbers {
                set.add(&Gtid::MySql(source.clone(), number));
                plain.insert(number);
            }
            let GtidSet::MySql(sources) = &set else { unreachable!() };
            let intervals = sources.get(&source).cloned().unwrap_or_default();
            let all: Vec<u64> = intervals.iter().flat_map(|(a, b)| *a..=*b).collect();
            prop_assert_eq!(&all, &plain.into_iter().collect::<Vec<_>>());
            for number in 1..=45 {
                prop_assert_eq!(set.has(&Gtid::MySql(source.clone(), number)), all.contains(&number));
            }
            prop_assert!(intervals.windows(2).all(|w| w[0].1 + 1 < w[1].0));
            prop_assert_eq!(GtidSet::parse_mysql(&set.to_string()).unwrap(), set);
        }
    }
}
