//! A source in memory, an honest connector over it, and its failing twins.
//!
//! The source keeps its log as bytes in a format of its own, so that decoding, malformed bytes, schema versions and
//! places inside transactions are real here too. A [`Flaw`] makes the connector break one promise, in a way that real
//! connectors have broken it.

mod codec;
mod connector;
mod fixture;
mod source;
mod stream;

pub use connector::Scripted;
pub use fixture::ScriptedFixture;
pub use source::Source;

/// A way to break one promise.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Flaw {
    /// R1: transactions come in the order they began, not in the order they committed.
    OrderOfBeginning,
    /// R1: truncation is claimed and not reported.
    DropsTruncation,
    /// R2: the first change after a resumed position is lost.
    LosesFirstAfterResume,
    /// R2: resuming inside a transaction goes on behind its end.
    SkipsRestOfTransaction,
    /// R2: acknowledging a place inside a transaction gives the whole transaction away.
    AcknowledgesTooMuch,
    /// R2: a dropped `next` loses what it had taken from the log.
    NotCancelSafe,
    /// R2: a chunk's barrier is taken before its read.
    EarlyBarrier,
    /// R3: a log that is gone is made anew, and the stream begins now.
    StartsFromNow,
    /// R3: any log will do, as long as it has a name.
    TakesAnyLog,
    /// R3: changes already acknowledged are skipped without a word.
    SkipsAcknowledged,
    /// R4: what an update left out comes as null.
    NullForUnchanged,
    /// R4: a delete shows null in every column but the key.
    NullInDeletes,
    /// R5: a key update comes as one update.
    KeyUpdateAsUpdate,
    /// R5: the upsert of a key update comes before its delete.
    UpsertBeforeDelete,
    /// R6: malformed bytes panic.
    PanicsOnMalformed,
    /// R6: malformed records are skipped.
    SkipsMalformed,
    /// R7: a transaction is collected before its first change is handed over.
    BuffersTransaction,
    /// R7: a transaction is handed over in one call.
    OneGiantBatch,
    /// R7: a chunk has as many rows as asked for, whatever their size.
    UnboundedChunk,
    /// R8: a watermark row is written for each chunk.
    WritesWatermarks,
    /// R9: an error quotes the key that was asked for.
    ValueInError,
    /// R9: changes are logged with their values.
    ValueInLog,
    /// R9: an error about the connection quotes the password.
    SecretInError,
    /// R10: a second slot stays, and `release` does not know it.
    LeavesSlot,
    /// R10: a dropped stream leaves its session open.
    LeavesSessionOnDrop,
    /// R11: the snapshot trims text, the tail does not.
    SnapshotTrims,
    /// R11: pages compare only the first column of a key.
    PagesByFirstKeyColumn,
    /// R11: rows fetched by key come in the table's order, not in that of the keys.
    FetchesInTableOrder,
    /// `find_rows` says after its first page that there is no more.
    FindsOnePage,
    /// R12: every event is decoded with the newest schema.
    NewestSchema,
    /// R12: a changed schema is not announced.
    UnannouncedSchema,
}

impl Flaw {
    /// Every flaw.
    pub const ALL: &'static [Flaw] = &[
        Flaw::OrderOfBeginning,
        Flaw::DropsTruncation,
        Flaw::LosesFirstAfterResume,
        Flaw::SkipsRestOfTransaction,
        Flaw::AcknowledgesTooMuch,
        Flaw::NotCancelSafe,
        Flaw::EarlyBarrier,
        Flaw::StartsFromNow,
        Flaw::TakesAnyLog,
        Flaw::SkipsAcknowledged,
        Flaw::NullForUnchanged,
        Flaw::NullInDeletes,
        Flaw::KeyUpdateAsUpdate,
        Flaw::UpsertBeforeDelete,
        Flaw::PanicsOnMalformed,
        Flaw::SkipsMalformed,
        Flaw::BuffersTransaction,
        Flaw::OneGiantBatch,
        Flaw::UnboundedChunk,
        Flaw::WritesWatermarks,
        Flaw::ValueInError,
        Flaw::ValueInLog,
        Flaw::SecretInError,
        Flaw::LeavesSlot,
        Flaw::LeavesSessionOnDrop,
        Flaw::SnapshotTrims,
        Flaw::PagesByFirstKeyColumn,
        Flaw::FetchesInTableOrder,
        Flaw::FindsOnePage,
        Flaw::NewestSchema,
        Flaw::UnannouncedSchema,
    ];

    /// Number of the promise it breaks.
    pub fn breaks(self) -> u8 {
        match self {
            Flaw::OrderOfBeginning | Flaw::DropsTruncation => 1,
            Flaw::LosesFirstAfterResume
            | Flaw::SkipsRestOfTransaction
            | Flaw::AcknowledgesTooMuch
            | Flaw::NotCancelSafe
            | Flaw::EarlyBarrier => 2,
            Flaw::StartsFromNow | Flaw::TakesAnyLog | Flaw::SkipsAcknowledged => 3,
            Flaw::NullForUnchanged | Flaw::NullInDeletes => 4,
            Flaw::KeyUpdateAsUpdate | Flaw::UpsertBeforeDelete => 5,
            Flaw::PanicsOnMalformed | Flaw::SkipsMalformed => 6,
            Flaw::BuffersTransaction | Flaw::OneGiantBatch | Flaw::UnboundedChunk => 7,
            Flaw::WritesWatermarks => 8,
            Flaw::ValueInError | Flaw::ValueInLog | Flaw::SecretInError => 9,
            Flaw::LeavesSlot | Flaw::LeavesSessionOnDrop => 10,
            Flaw::SnapshotTrims | Flaw::PagesByFirstKeyColumn | Flaw::FetchesInTableOrder | Flaw::FindsOnePage => 11,
            Flaw::NewestSchema | Flaw::UnannouncedSchema => 12,
        }
    }
}
