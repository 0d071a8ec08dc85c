//! Positions: opaque places in a vendor's log.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// A place in one particular log.
///
/// Only the connector that made it can read `place` or compare two of them ([`crate::Connector::covers`]): GTID sets are
/// only partially ordered, and a file offset means nothing on another server. `log` names the log the place belongs to
/// (server identity plus the slot's or the capture instance's point of creation); a connector that is asked to go on
/// from another log's position answers [`crate::ErrorKind::PositionLost`] (P4).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Position {
    /// Identity of the log.
    pub log: Arc<str>,
    /// Place within it.
    pub place: Box<str>,
}

/// The place alone: short, for people.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}
