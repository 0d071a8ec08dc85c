//! XA transactions that are prepared first and committed, or rolled back, later.
//!
//! The log holds such a transaction in two places: its rows where it was prepared, and a statement without rows where it
//! ended. Until then nobody sees its rows, and nobody else can change them or alter their table, because the transaction
//! keeps its locks, across restarts of the server too. So the rows are held here and told where the transaction commits;
//! that is the place where they happened.
//!
//! # Places
//!
//! While rows are held, a place is not enough to go on from. So it also names where the oldest transaction that is still
//! held begins ([`Held::begins`]): a stream that goes on reads the log again from there, tells nothing of what the place
//! says is done, and only picks up the rows of what was prepared and not ended.
//!
//! # What was prepared before a stream began
//!
//! Its rows are unknown. A new stream begins where as little as possible is in that state ([`beginning`]), and remembers
//! what is left by name; if it commits one day, the position is lost, for everything must be read again. A server that does not
//! tell what is prepared (MySQL, without the right XA_RECOVER_ADMIN) leaves the stream to remember the opposite: whatever
//! it saw being prepared without a row for us. The same is done with a transaction whose rows take too much memory.

use crate::cursor::{Cursor, cut_short};
use crate::error::{lost, server_code};
use crate::position::{FilePlace, GtidSet, Head, Place};
use crate::reader::PendingRows;
use crate::session::Session;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;
use tidemark_contract::{Result, SourceError};

/// Bytes of row events of prepared transactions that are held at a time.
pub(crate) const LIMIT: usize = 64 << 20;
/// How long a new stream waits for transactions to end that are prepared when it begins.
const PATIENCE: Duration = Duration::from_secs(2);

/// An XA transaction's name: both parts in hexadecimal digits, and the number of their format.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Xid(Box<str>);

impl Xid {
    fn new(global: &[u8], branch: &[u8], format: u64) -> Self {
        let mut text = String::with_capacity(2 * (global.len() + branch.len()) + 12);
        for part in [global, branch] {
            for byte in part {
                let _ = write!(text, "{byte:02x}");
            }
            text.push('.');
        }
        let _ = write!(text, "{format}");
        Self(text.into())
    }

    /// From its stored form.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_fine = text.len() < 300 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'.');
        (is_fine && text.matches('.').count() == 2).then(|| Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// From the arguments of a statement as the server itself writes it: `X'61',X'',1`.
    pub(crate) fn of_statement(text: &str) -> Option<Self> {
        let mut parts = text.split_whitespace().next()?.split(',');
        let mut bytes = || {
            let digits = parts.next()?.strip_prefix(['X', 'x'])?.strip_prefix('\'')?.strip_suffix('\'')?;
            let pairs = digits.as_bytes().chunks(2);
            pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect::<Option<Vec<u8>>>()
        };
        let (global, branch) = (bytes()?, bytes()?);
        Some(Self::new(&global, &branch, parts.next()?.parse().ok()?))
    }

    /// From the event that ends the part of the log with its rows; and whether it commits at once.
    pub(crate) fn of_event(body: &[u8]) -> Result<(Self, bool)> {
        let mut body = Cursor(body);
        let one_phase = body.u8()? != 0;
        let format = body.u32()?;
        let (global, branch) = (body.u32()?, body.u32()?);
        let mut part = |length: u32| body.take(usize::try_from(length).map_err(|_| cut_short())?);
        let (global, branch) = (part(global)?, part(branch)?);
        Ok((Self::new(global, branch, u64::from(format)), one_phase))
    }
}

/// Where reading the log has to begin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Begins {
    pub(crate) file: Option<FilePlace>,
    pub(crate) gtids: Option<GtidSet>,
}

/// What a place has to say of prepared transactions.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Unfinished {
    /// Where the oldest one begins whose rows are held.
    pub(crate) begins: Option<Begins>,
    pub(crate) unknown: Unknown,
}

/// Prepared transactions whose rows are not known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unknown {
    /// These.
    These(BTreeSet<Xid>),
    /// Any, but for these, which were seen being prepared and have no rows for us.
    AnyBut(BTreeSet<Xid>),
}

impl Default for Unknown {
    fn default() -> Self {
        Unknown::These(BTreeSet::new())
    }
}

impl Unknown {
    /// The rows of a transaction are not known.
    fn add(&mut self, xid: Xid) {
        match self {
            Unknown::These(these) => drop(these.insert(xid)),
            Unknown::AnyBut(others) => drop(others.remove(&xid)),
        }
    }

    /// It has no rows for us.
    fn clear(&mut self, xid: Xid) {
        match self {
            Unknown::These(these) => drop(these.remove(&xid)),
            Unknown::AnyBut(others) => drop(others.insert(xid)),
        }
    }

    /// It has ended; whether it was one of these.
    fn end(&mut self, xid: &Xid) -> bool {
        match self {
            Unknown::These(these) => these.remove(xid),
            Unknown::AnyBut(others) => !others.remove(xid),
        }
    }
}

/// A prepared transaction with rows for us.
struct Held {
    xid: Xid,
    begins: Begins,
    rows: Vec<PendingRows>,
    bytes: usize,
}

/// Prepared transactions, in the order of the log.
#[derive(Default)]
pub(crate) struct Prepared {
    held: Vec<Held>,
    unknown: Unknown,
}

impl Prepared {
    pub(crate) fn new(unknown: Unknown) -> Self {
        Self { held: Vec::new(), unknown }
    }

    /// Bytes that may still be held.
    pub(crate) fn room(&self) -> usize {
        LIMIT.saturating_sub(self.held.iter().map(|held| held.bytes).sum())
    }

    /// A transaction was prepared. `rows` are `None` if they were too many.
    pub(crate) fn add(&mut self, xid: Xid, begins: Begins, rows: Option<Vec<PendingRows>>) {
        self.held.retain(|held| held.xid != xid);
        match rows {
            None => {
                tracing::warn!(
                    "a prepared XA transaction has more rows than can be held ({LIMIT} bytes): if it commits, everything \
                     must be read again"
                );
                self.unknown.add(xid);
            }
            Some(rows) if rows.is_empty() => self.unknown.clear(xid),
            Some(rows) => {
                let bytes = rows.iter().map(PendingRows::size).sum();
                self.held.push(Held { xid, begins, rows, bytes });
            }
        }
    }

    /// It was committed: its rows.
    pub(crate) fn commit(&mut self, xid: &Xid) -> Result<Vec<PendingRows>> {
        if let Some(at) = self.held.iter().position(|held| held.xid == *xid) {
            return Ok(self.held.remove(at).rows);
        }
        if self.unknown.end(xid) { Err(unknown_rows()) } else { Ok(Vec::new()) }
    }

    /// It was rolled back, or it ended where nothing is told any more.
    pub(crate) fn forget(&mut self, xid: &Xid) {
        self.held.retain(|held| held.xid != *xid);
        self.unknown.end(xid);
    }

    /// What a place has to say of all this.
    pub(crate) fn unfinished(&self) -> Option<Box<Unfinished>> {
        let begins = self.held.first().map(|held| held.begins.clone());
        let unfinished = Unfinished { begins, unknown: self.unknown.clone() };
        (unfinished != Unfinished::default()).then(|| Box::new(unfinished))
    }
}

fn unknown_rows() -> SourceError {
    lost("an XA transaction was committed whose rows were not read: it was prepared before the stream began, or was too large")
        .hint(
            "everything must be read again; on MySQL, GRANT XA_RECOVER_ADMIN ON *.* TO the account, so that a stream \
             knows what is prepared when it begins",
        )
}

/// What is prepared on the server; `None` if it does not tell.
pub(crate) async fn prepared(session: &mut Session) -> Result<Option<BTreeSet<Xid>>> {
    let mut xids = BTreeSet::new();
    let read = session.connection.each("asking for prepared XA transactions", "XA RECOVER", |row| {
        let number = |at| row.get(at).and_then(|b: &[u8]| std::str::from_utf8(b).ok()?.parse::<u64>().ok());
        if let (Some(format), Some(global), Some(branch), Some(data)) = (number(0), number(1), number(2), row.get(3)) {
            let (global, branch) = (usize::try_from(global).unwrap_or(0), usize::try_from(branch).unwrap_or(0));
            if let (Some(first), Some(second)) = (data.get(..global), data.get(global..global + branch)) {
                xids.insert(Xid::new(first, second, format));
            }
        }
        Ok(())
    });
    match read.await {
        Ok(_) => Ok(Some(xids)),
        Err(error) if server_code(&error).is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether XA transactions have been prepared on the server since its start.
pub(crate) async fn in_use(session: &mut Session) -> Result<bool> {
    let sql = "SHOW GLOBAL STATUS LIKE 'Com_xa_prepare'";
    let rows = session.connection.rows("asking whether XA transactions are used", sql).await?;
    let count = rows.into_iter().next().and_then(|row| row.into_iter().nth(1).flatten());
    Ok(count.is_some_and(|count| count != "0"))
}

/// Where a new stream begins: now. Transactions that are being prepared and committed meanwhile are told from one head of
/// the log to the next: nothing that is prepared at the second one and was not yet at the first can be missed, since the
/// log is read from there.
pub(crate) async fn beginning(session: &mut Session) -> Result<Place> {
    let first = session.head().await?;
    let unknown = match prepared(session).await? {
        Some(mut left) => {
            let deadline = tokio::time::Instant::now() + PATIENCE;
            while !left.is_empty() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let now = prepared(session).await?.unwrap_or_default();
                left.retain(|xid| now.contains(xid));
            }
            if !left.is_empty() {
                tracing::warn!(count = left.len(), "XA transactions are prepared whose rows cannot be read any more");
            }
            Unknown::These(left)
        }
        None => {
            if in_use(session).await? {
                tokio::time::sleep(PATIENCE).await;
            }
            Unknown::AnyBut(BTreeSet::new())
        }
    };
    let head = session.head().await?;
    let begins = (first != head).then(|| {
        let Head { file, offset, gtids } = first;
        Begins { file: Some(FilePlace { name: file, offset, created: 0 }), gtids }
    });
    let mut place = crate::resume::at(head);
    let unfinished = Unfinished { begins, unknown };
    place.unfinished = (unfinished != Unfinished::default()).then(|| Box::new(unfinished));
    Ok(place)
}

/// A stream that goes on with more tables than before: what was prepared without rows for us may have some now.
pub(crate) async fn with_new_tables(session: &mut Session, place: &mut Place) -> Result<()> {
    let prepared = prepared(session).await?;
    let mut unfinished = place.unfinished.take().unwrap_or_default();
    match (prepared, &mut unfinished.unknown) {
        (Some(now), Unknown::These(these)) => these.extend(now),
        (Some(now), unknown @ Unknown::AnyBut(_)) => *unknown = Unknown::These(now),
        (None, unknown) => *unknown = Unknown::AnyBut(BTreeSet::new()),
    }
    place.unfinished = (*unfinished != Unfinished::default()).then_some(unfinished);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_same_from_statements_and_events() {
        let event = [&[0, 7, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0][..], b"ab"].concat();
        let (xid, one_phase) = Xid::of_event(&event).unwrap();
        assert!(!one_phase && Xid::of_event(&event[..14]).is_err());
        assert_eq!(xid.as_str(), "61.62.7");
        assert_eq!(Xid::of_statement("X'61',X'62',7"), Some(xid.clone()));
        assert_eq!(Xid::parse("61.62.7"), Some(xid));
        assert_eq!(Xid::of_statement("X'6a',X'',1 ONE PHASE").unwrap().as_str(), "6a..1");
        for text in ["", "'a'", "X'6',X'',x", "X'zz',X'',1", "X'61'"] {
            assert_eq!(Xid::of_statement(text), None, "{text}");
        }
        for text in ["", "61.62", "x.1.1", "61|..1"] {
            assert_eq!(Xid::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_unknown_is_kept_in_mind() {
        let xid = |text| Xid::parse(text).unwrap();
        let begins = || Begins { file: None, gtids: None };
        let mut these = Prepared::new(Unknown::These([xid("61..1")].into()));
        these.add(xid("62..1"), begins(), Some(Vec::new()));
        assert!(these.commit(&xid("62..1")).unwrap().is_empty() && these.commit(&xid("63..1")).unwrap().is_empty());
        assert!(these.commit(&xid("61..1")).is_err());
        assert_eq!(these.unfinished(), None);
        these.add(xid("64..1"), begins(), None);
        assert!(these.unfinished().is_some() && these.commit(&xid("64..1")).is_err());

        let mut any = Prepared::new(Unknown::AnyBut(BTreeSet::new()));
        any.add(xid("62..1"), begins(), Some(Vec::new()));
        assert!(any.commit(&xid("62..1")).is_ok() && any.commit(&xid("61..1")).is_err());
        any.add(xid("62..1"), begins(), Some(Vec::new()));
        any.add(xid("62..1"), begins(), None);
        assert!(any.commit(&xid("62..1")).is_err());
        any.forget(&xid("63..1"));
    }
}
