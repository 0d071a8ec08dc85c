//! The mapping station: a vendor pack (TOML with SQL expressions) compiled against the source's catalogue and the CRM's
//! schema, then applied to rows. Pure: no I/O after loading, no clock, no randomness.

mod apply;
mod check;
mod compile;
pub(crate) mod expr;
pub(crate) mod functions;
mod json;
pub(crate) mod lookup;
pub mod names;
pub(crate) mod pack;
mod related;
mod rule;
pub(crate) mod toml_reader;

pub use apply::ExternalId;
pub use compile::{CompileOptions, compile};
pub use functions::reference as function_reference;
pub use pack::testing::{TestReport, run_pack_tests};
pub use pack::{Overlay, Pack, ReadBeside, Removal};
pub use related::{BoundRelated, Child, ChildRows, Hop, Join, OnPair, Related, RelatedRows, Relations, Slot};
pub use rule::{BindError, BoundRule, Mapping, Rule};

use crate::document::Document;
use tidemark_contract::RowKey;

/// Number of a rule within its mapping: dense, in the pack's order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RuleId(pub u16);

/// What to do with a child whose parent is not in the CRM yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// Park the child until the parent has landed (default).
    Wait,
    /// Send the child with the reference set to null.
    Null,
    /// Set the child aside as a dead letter.
    Reject,
    /// Send the child with the reference set to null, and again as soon as that is done: how a circle of records that
    /// wait for each other is opened. Never written in a pack.
    Later,
}

/// A reference from one record to another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reference {
    /// Field that holds the reference: a path such as `items[0].product` where it is nested.
    pub field: Box<str>,
    /// Entity of the parent.
    pub entity: Box<str>,
    /// The parent's external id.
    pub external_id: Box<str>,
    /// What to do while the parent is missing.
    pub missing: Missing,
}

/// What a rule makes of one row.
#[derive(Debug)]
pub enum Applied {
    /// The record as it should be.
    Upsert {
        /// CRM-side match key.
        external_id: Box<str>,
        /// The fields.
        document: Document,
        /// Records this one points to (only non-null ones).
        references: Vec<Reference>,
    },
    /// The row is outside the rule's `where`: the record should not be there.
    Outside {
        /// CRM-side match key, if it can be computed from this row.
        external_id: Option<Box<str>>,
    },
    /// The log left out a column that decides more than fields of its own (a key, a condition, a field computed from
    /// several columns), or the record shows related rows: the row has to be read again by key.
    NeedsRow,
    /// The row cannot be mapped.
    Rejected(Rejection),
}

/// Why a row could not be mapped. Holds no row values (P8).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// CRM-side match key, if it could be computed.
    pub external_id: Option<Box<str>>,
    /// Field whose expression failed.
    pub field: Option<Box<str>>,
    /// Stable word for the reason (`lookup_unknown`, `cast_failed`, …).
    pub code: &'static str,
    /// What happened, with the expression's place.
    pub message: String,
}

/// One change for the CRM, of one record.
#[derive(Debug)]
pub struct CrmChange {
    /// Which rule made it.
    pub rule: RuleId,
    /// The source row's key.
    pub key: RowKey,
    /// CRM-side match key.
    pub external_id: Box<str>,
    /// What to do.
    pub op: CrmOp,
}

/// What to do with a CRM record.
#[derive(Debug)]
pub enum CrmOp {
    /// Create or update.
    Upsert(Document, Vec<Reference>),
    /// Remove.
    Delete,
}

#[cfg(test)]
mod tests;
