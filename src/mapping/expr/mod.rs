//! SQL expressions: text → tree ([`parse`]) → typed, checked, compiled form ([`lower`], [`ir`]) → value ([`eval`]).
//!
//! PostgreSQL's meaning is the reference for everything an expression can say; `docs/mapping.md` lists what differs.

mod aggregates;
pub(crate) mod call;
pub(crate) mod cast;
pub(crate) mod civil;
pub(crate) mod convert;
pub(crate) mod decimal;
pub(crate) mod eval;
pub(crate) mod ir;
mod leaf;
pub(crate) mod lower;
pub(crate) mod narrow;
pub(crate) mod parse;
pub(crate) mod parts;
mod prepare;
pub(crate) mod prepared;
pub(crate) mod regexp;
pub(crate) mod template;
pub(crate) mod text;
mod types;
pub(crate) mod value;
