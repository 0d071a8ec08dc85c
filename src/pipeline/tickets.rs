//! Tickets: which changes are settled, and how far the position may move.
//!
//! Every change taken from the tail gets a number, its ticket. Outcomes settle tickets in any order. A position that
//! the source reported after ticket `t` is safe to save once every ticket up to `t` is settled (P1): positions
//! themselves are never compared here.

use std::collections::VecDeque;
use tidemark_contract::Position;

/// A position the tail has reached, with the last ticket given out before it.
#[derive(Clone, Debug)]
struct Mark {
    ticket: u64,
    position: Position,
    committed_at: Option<i64>,
}

/// Hands out tickets and finds the low watermark.
#[derive(Debug, Default)]
pub struct Tickets {
    /// All tickets up to and including this one are settled.
    settled: u64,
    /// Settled flags of the tickets after `settled`, in order.
    window: VecDeque<bool>,
    /// Positions not yet below the watermark, oldest first.
    marks: VecDeque<Mark>,
    low: Option<Position>,
    head: Option<Position>,
    /// The last ticket that a position covers.
    covered: u64,
}

impl Tickets {
    /// A tracker that starts at `position`, where everything is settled.
    pub fn new(position: Option<Position>) -> Self {
        Self { low: position.clone(), head: position, ..Self::default() }
    }

    /// The ticket of a new change.
    pub fn issue(&mut self) -> u64 {
        self.window.push_back(false);
        self.last()
    }

    /// The last ticket given out.
    pub fn last(&self) -> u64 {
        self.settled + self.window.len() as u64
    }

    /// Settles one ticket; settling it again has no effect.
    pub fn settle(&mut self, ticket: u64) {
        let Some(index) = ticket.checked_sub(self.settled + 1) else { return };
        if let Some(flag) = self.window.get_mut(index as usize) {
            *flag = true;
        }
        while self.window.front() == Some(&true) {
            self.window.pop_front();
            self.settled += 1;
        }
        self.advance();
    }

    /// The tail has reached `position`: everything before it has been given a ticket. `committed_at` is the commit
    /// time of the transaction that ended there (µs since 1970), if one did.
    pub fn reached(&mut self, position: Position, committed_at: Option<i64>) {
        let ticket = self.last();
        self.covered = ticket;
        self.head = Some(position.clone());
        match self.marks.back_mut() {
            // Nothing was taken in between: the later place stands for both.
            Some(mark) if mark.ticket == ticket => {
                mark.position = position;
                mark.committed_at = mark.committed_at.or(committed_at);
            }
            _ => self.marks.push_back(Mark { ticket, position, committed_at }),
        }
        self.advance();
    }

    /// The position below which everything is settled.
    pub fn low(&self) -> Option<&Position> {
        self.low.as_ref()
    }

    /// The position the tail has reached.
    pub fn head(&self) -> Option<&Position> {
        self.head.as_ref()
    }

    /// The last ticket that [`Tickets::head`] covers: later ones belong to a transaction whose place is not known yet.
    pub fn covered(&self) -> u64 {
        self.covered
    }

    /// Tickets between the watermark and the newest one, settled or not: what a restart would replay.
    pub fn span(&self) -> usize {
        self.window.len()
    }

    /// All tickets up to and including this one are settled.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Commit time (µs since 1970) of the oldest transaction that is not settled yet.
    pub fn oldest_commit(&self) -> Option<i64> {
        self.marks.iter().find_map(|m| m.committed_at)
    }

    fn advance(&mut self) {
        while self.marks.front().is_some_and(|m| m.ticket <= self.settled) {
            self.low = self.marks.pop_front().map(|m| m.position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(place: &str) -> Position {
        Position { log: "log".into(), place: place.into() }
    }

    fn low(t: &Tickets) -> Option<&str> {
        t.low().map(|p| &*p.place)
    }

    #[test]
    fn the_watermark_moves_only_over_a_contiguous_settled_prefix() {
        let mut t = Tickets::new(Some(at("0")));
        let (a, b) = (t.issue(), t.issue());
        t.reached(at("1"), None);
        let c = t.issue();
        t.reached(at("2"), None);
        t.settle(c);
        t.settle(b);
        assert_eq!(low(&t), Some("0"));
        t.settle(a);
        assert_eq!(low(&t), Some("2"));
        assert_eq!(t.span(), 0);
    }

    #[test]
    fn a_transaction_without_its_end_does_not_count() {
        let mut t = Tickets::new(Some(at("0")));
        let a = t.issue();
        t.settle(a);
        assert_eq!(low(&t), Some("0"), "settled, but the place after it is not known");
        assert_eq!(t.covered(), 0);
        t.reached(at("1"), Some(5));
        assert_eq!((low(&t), t.covered()), (Some("1"), 1));
    }

    #[test]
    fn idle_positions_move_the_watermark_when_nothing_is_pending() {
        let mut t = Tickets::new(None);
        t.reached(at("7"), None);
        assert_eq!(low(&t), Some("7"));
        let a = t.issue();
        t.reached(at("8"), Some(80));
        t.reached(at("9"), None);
        assert_eq!((low(&t), t.oldest_commit()), (Some("7"), Some(80)));
        t.settle(a);
        t.settle(a);
        assert_eq!((low(&t), t.oldest_commit()), (Some("9"), None));
    }
}
