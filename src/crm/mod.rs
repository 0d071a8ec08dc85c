//! The CRM's side: its own schema, and writes with one outcome per record. The only module that speaks HTTP to the
//! outside.
//!
//! | file | what it knows |
//! |---|---|
//! | `profile` | where the contract's endpoints are at this CRM (paths, headers, limits) |
//! | `rest` | which call is which request; the calls of [`Crm`] over HTTP |
//! | `write` | records to request bytes and `Idempotency-Key`; pure |
//! | `answer` | answer bytes to one [`Outcome`] per record, status to [`CrmErrorKind`]; pure |
//! | `http` | one try of one request: TLS, timeouts, limits, and whether a failed one may have been applied |
//! | `auth` | credentials, their renewal (one at a time), and keeping them out of every message |
//! | `openapi` | an OpenAPI document to [`CrmSchema`]; pure |
//! | `null` | the CRM that takes everything and keeps nothing |

mod answer;
mod auth;
mod http;
mod null;
mod openapi;
mod profile;
mod rest;
mod write;

pub use auth::{Auth, ClientAuth, SecretSource};
pub use null::NullCrm;
pub use openapi::parse as parse_openapi;
pub use profile::{Profile, SetupError, connect};
#[cfg(test)]
pub(crate) use rest::percent_encode;
pub use rest::{RestConfig, RestCrm};

use crate::document::Document;
use crate::exact::Fields;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What the CRM says of its own model. Read from it, never kept as a copy in a pack.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct CrmSchema {
    /// By entity name.
    pub entities: BTreeMap<Box<str>, EntitySchema>,
    /// Whether the CRM takes entities that are not named here (`x-open-entities` of the OpenAPI document; the null CRM).
    #[serde(default)]
    pub open: bool,
}

impl CrmSchema {
    /// The schema of `entity`; that of an entity which takes anything if the CRM takes entities it does not name.
    pub fn entity(&self, entity: &str) -> Option<&EntitySchema> {
        static ANYTHING: EntitySchema = EntitySchema { fields: BTreeMap::new(), open: true };
        self.entities.get(entity).or_else(|| self.open.then_some(&ANYTHING))
    }
}

/// One entity's fields.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct EntitySchema {
    /// By field name.
    pub fields: BTreeMap<Box<str>, FieldSchema>,
    /// Whether the entity takes fields that its schema does not name.
    pub open: bool,
}

/// One field.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FieldSchema {
    /// What it holds.
    pub kind: FieldKind,
    /// Whether a new record must have it.
    pub required: bool,
    /// Whether null may be written.
    pub nullable: bool,
    /// Whether the CRM refuses writes to it.
    pub read_only: bool,
}

/// What a CRM field holds.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FieldKind {
    /// Text.
    Text {
        /// Longest text, in characters.
        max_length: Option<u32>,
        /// JSON Schema `format` (`date`, `date-time`, `email`, …).
        format: Option<Box<str>>,
        /// Allowed values; empty is any.
        options: Vec<Box<str>>,
    },
    /// Whole number.
    Integer,
    /// Any number.
    Number,
    /// Boolean.
    Boolean,
    /// Nested object.
    Object(EntitySchema),
    /// List of one kind.
    List(Box<FieldKind>),
    /// Reference to another entity (`x-ref`).
    Reference(Box<str>),
    /// Anything.
    Any,
}

/// One record of a write.
#[derive(Clone, Copy, Debug)]
pub struct WriteRecord<'a> {
    /// CRM-side match key.
    pub external_id: &'a str,
    /// Fencing number: never decreases for a record.
    pub version: u64,
    /// Fields of an upsert; `None` in a delete.
    pub document: Option<&'a Document>,
}

/// What the CRM said of one record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// In place (created, updated, unchanged), or gone (deleted, not found).
    Done(Done),
    /// The CRM holds a newer version: nothing was changed, and nothing needs to be.
    Stale,
    /// Refused, in the CRM's own words.
    Rejected(CrmRejection),
    /// The answer does not account for this record: it may or may not have been applied.
    Unknown,
}

/// How a record came to be as it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Done {
    Created,
    Updated,
    Unchanged,
    Deleted,
    NotFound,
}

/// The CRM's words about a refused record. They may quote what it was sent: they belong in dead letters, not in logs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CrmRejection {
    /// The CRM's code (`missing_reference` is the one with a meaning of its own).
    pub code: Box<str>,
    /// The field it is about.
    pub field: Option<Box<str>>,
    /// The CRM's message, cut to 2,000 characters.
    pub message: Box<str>,
}

/// Why a whole request failed, told by what has to be done about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CrmErrorKind {
    /// Not sent, or the CRM said it did nothing (connection refused, 502, 503): repeat.
    Unavailable,
    /// Sent, and the answer was lost or made no sense (timeout, cut connection, 500, 504, not JSON): repeat the same
    /// write before anything newer.
    Unknown,
    /// 429: repeat after `retry_after`.
    Throttled,
    /// 401 after the token was renewed: stop the tenant.
    Unauthorized,
    /// 403: stop the tenant.
    Forbidden,
    /// 413: smaller batches.
    TooLarge,
    /// The batch as a whole was refused (400, 422 …): halve it; a single record is a rejection.
    Refused,
    /// The CRM does not have the entity or endpoint (404, 405), or its schema cannot be read.
    Contract,
}

/// A request that failed as a whole. Holds no secrets. Record values can only be in the message of a `Refused`, which is
/// the CRM's own and may quote what it was sent: it belongs in dead letters, not in logs.
#[derive(Debug)]
pub struct CrmError {
    /// What to do about it.
    pub kind: CrmErrorKind,
    /// HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// What was observed; for `Refused` the CRM's own words, cut to 2,000 characters.
    pub message: String,
    /// As told by `Retry-After`.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for CrmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for CrmError {}

impl CrmError {
    /// An error of `kind` that was found without an answer of the CRM.
    pub fn new(kind: CrmErrorKind, message: impl Into<String>) -> Self {
        Self { kind, status: None, message: message.into(), retry_after: None }
    }
}

/// One record as the CRM holds it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct StoredRecord {
    /// CRM-side match key.
    pub external_id: Box<str>,
    /// Version of the last write, as the CRM spells it.
    #[serde(default, deserialize_with = "answer::version")]
    pub version: Option<Box<str>>,
    /// All fields, their numbers digit by digit.
    #[serde(default)]
    pub fields: Fields,
}

/// A page of records in external-id order (bytes).
#[derive(Clone, PartialEq, Debug)]
pub struct Page {
    /// The records.
    pub records: Vec<StoredRecord>,
    /// Pass as `after` for the next page; `None` at the end.
    pub next: Option<Box<str>>,
}

/// Result of CRM calls.
pub type Result<T, E = CrmError> = std::result::Result<T, E>;

/// The largest write request that a CRM takes, where its profile says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteLimits {
    /// Records in one request.
    pub records: Option<usize>,
    /// Bytes of one request's body, before compression.
    pub bytes: Option<usize>,
}

/// A CRM account. Calls do not retry by themselves (except once after renewing a token): pacing and retries belong to
/// the loader, which alone knows the order of a record's writes.
#[async_trait]
pub trait Crm: Send + Sync {
    /// Whether the CRM answers and accepts our credentials.
    async fn check(&self) -> Result<()>;

    /// The CRM's own model.
    async fn discover(&self) -> Result<CrmSchema>;

    /// Creates or updates records; one outcome per record, in order.
    async fn upsert(&self, entity: &str, records: &[WriteRecord<'_>]) -> Result<Vec<Outcome>>;

    /// Deletes records; one outcome per record, in order.
    async fn delete(&self, entity: &str, records: &[WriteRecord<'_>]) -> Result<Vec<Outcome>>;

    /// Reads records after `after` in external-id order.
    async fn list(&self, entity: &str, after: Option<&str>, limit: usize) -> Result<Page>;

    /// How large a write may be; a larger one is answered [`CrmErrorKind::TooLarge`] without being sent.
    fn limits(&self) -> WriteLimits {
        WriteLimits::default()
    }
}

#[cfg(test)]
mod tests;
