//! Reads by key see what the stream has told.
//!
//! A commit is in the log, and may be on its way to us, a moment before other sessions see it: the server writes the
//! commit record first and takes the transaction off its list of running ones afterwards. With a synchronous standby
//! that is slow or gone, the moment lasts as long as the standby takes. A row that is read again *because* the stream
//! spoke of it would then be read as it was before. So the numbers of the transactions that were handed over are kept
//! until a snapshot has been seen to hold them, and a read by key whose snapshot lacks one of them is made again.
//! Pages of a snapshot do not need this: see "tail beats snapshot".

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// So many transactions are remembered. Older ones are taken for visible: thousands have committed since.
const REMEMBERED: usize = 10_000;

/// Transactions handed over that no snapshot was seen to hold yet.
#[derive(Debug, Default)]
pub(crate) struct Delivered(Mutex<VecDeque<u32>>);

impl Delivered {
    /// A transaction's changes are about to be handed over.
    pub(crate) fn add(&self, xid: u32) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() == REMEMBERED {
            known.pop_front();
        }
        known.push_back(xid);
    }

    /// How many of them `snapshot` does not hold; those that it holds are forgotten, since every later one does too.
    pub(crate) fn missing_in(&self, snapshot: &Snapshot) -> usize {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|xid| !snapshot.holds(*xid));
        known.len()
    }
}

/// A snapshot in the form of `pg_snapshot`: `xmin:xmax:running,…`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Snapshot {
    next: u64,
    running: Vec<u64>,
}

impl Snapshot {
    /// From its text; `None` if it is not one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let _oldest: u64 = parts.next()?.parse().ok()?;
        let next = parts.next()?.parse().ok()?;
        let list = parts.next()?.split(',').filter(|xid| !xid.is_empty());
        Some(Self { next, running: list.map(str::parse).collect::<Result<_, _>>().ok()? })
    }

    /// Whether a transaction that has committed is visible. The log carries the low half of its number only; the high
    /// half is that of the nearest number below or above `next`.
    fn holds(&self, xid: u32) -> bool {
        let distance = xid.wrapping_sub(self.next as u32).cast_signed();
        let whole = self.next.wrapping_add_signed(i64::from(distance));
        whole < self.next && !self.running.contains(&whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_or_later_transaction_is_not_visible() {
        let snapshot = Snapshot::parse("10:20:10,14").expect("a snapshot");
        assert!(snapshot.holds(9) && snapshot.holds(13));
        assert!(!snapshot.holds(10) && !snapshot.holds(14) && !snapshot.holds(20) && !snapshot.holds(21));
        assert!(Snapshot::parse("20:20:").expect("none runs").holds(19));
        assert_eq!(Snapshot::parse("1:x:"), None);
    }

    #[test]
    fn numbers_that_wrapped_are_compared_as_they_are() {
        let snapshot = Snapshot::parse("8589934590:8589934596:8589934593").expect("a snapshot");
        assert!(snapshot.holds(u32::MAX), "before the wrap");
        assert!(snapshot.holds(2), "after it");
        assert!(!snapshot.holds(1) && !snapshot.holds(5));
    }

    #[test]
    fn what_was_seen_once_is_forgotten() {
        let delivered = Delivered::default();
        [5, 6, 7].iter().for_each(|xid| delivered.add(*xid));
        assert_eq!(delivered.missing_in(&Snapshot::parse("6:7:6").expect("a snapshot")), 2);
        assert_eq!(delivered.missing_in(&Snapshot::parse("8:8:").expect("a snapshot")), 0);
    }
}
