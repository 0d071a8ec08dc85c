//! Log messages → changes: the state of the stream between its frames.
//!
//! [`Assembler::feed`] takes one message after the other and appends what follows from it to a batch. It is synchronous;
//! the one thing that needs the server, a table's description when the log shows the table for the first time or anew, is
//! handed back to the caller, who answers with [`Assembler::define`].
//!
//! # Schemas belong to the log
//!
//! Column names and types come with the log itself: a Relation message precedes the first row of a table and the first row
//! after each change of it. Rows are cut and decoded by the latest Relation message only, never by the catalogue, which may
//! be ahead of the log (R12). The catalogue adds what decoding does not depend on: nullability, labels, the key's columns.
//!
//! # Old rows
//!
//! An update carries the old row's key only if the key changed, and the whole old row only under REPLICA IDENTITY FULL.
//! Under any other identity the columns outside it are sent as nulls that mean "not sent": they become
//! [`Value::Unchanged`] here. For a partitioned table the root's identity decides how an old row is *labelled* and the
//! leaf's what it *holds*; so there an old row counts as whole only if all leaves have FULL, else only its key is read.

use crate::decode::{self, DecodeError, Kind};
use crate::error::undecodable;
use crate::pgoutput::{Field, Message, Old, Relation, Tuple};
use crate::position::{Log, Lsn, Place, lost};
use crate::visible::Delivered;
use std::collections::HashMap;
use std::sync::Arc;
use tidemark_contract::{
    ChangeEvent, ChangeOp, ErrorKind, Result, Row, RowBuilder, SourceError, SourceMessage, TableId, TableSchema, Value,
};

/// How many row messages of one transaction lie between two places from which it can be resumed.
const RESUMABLE_EVERY: u64 = 1000;

/// Or after this many bytes of rows, if that is sooner.
const RESUMABLE_BYTES: usize = 1 << 20;

/// What to do with the next column of a tuple.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// It was not asked for.
    Skip,
    /// Decode it. `old` says whether an old row that is not whole holds it.
    Take { kind: Kind, old: bool },
    /// A column of the schema that the log never carries: not in the tuple at all.
    Absent,
}

/// How rows of a captured table are read from here on.
#[derive(Clone, Debug)]
pub(crate) struct Captured {
    pub(crate) schema: Arc<TableSchema>,
    pub(crate) steps: Vec<Step>,
    /// How many columns a tuple has.
    pub(crate) fields: usize,
    /// Whether old rows that say they are whole really are.
    pub(crate) whole_old_rows: bool,
    /// What is wrong with the replica identity, if it does not identify rows by their key.
    pub(crate) unidentified: Option<String>,
}

/// A captured relation, and whether its schema was sent.
struct Known {
    captured: Arc<Captured>,
    announced: bool,
}

struct Transaction {
    /// Where the commit record begins.
    commit: Lsn,
    at: i64,
    xid: u32,
    /// Row messages seen.
    index: u64,
    /// Whether something of it was handed out.
    delivered: bool,
    /// Whether something was handed out since the last place to resume from, and how many bytes.
    since_resumable: bool,
    bytes_since: usize,
}

/// Turns messages into changes.
pub(crate) struct Assembler {
    /// The log's identity as it is in positions, shared by all of them.
    log: Arc<str>,
    resume: Place,
    /// Whether the transaction inside which the stream was resumed has yet to come.
    awaits_resumed: bool,
    relations: HashMap<u32, Option<Known>>,
    announced: HashMap<TableId, Arc<TableSchema>>,
    transaction: Option<Transaction>,
    /// Everything up to here was delivered or held nothing for us.
    pub(crate) progress: Lsn,
    /// The last place handed out.
    pub(crate) emitted: Place,
    scratch: Vec<u8>,
    handed_over: Arc<Delivered>,
}

/// Changes to hand over, and roughly the memory they take.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<SourceMessage>,
    pub(crate) bytes: usize,
}

impl Batch {
    pub(crate) fn push(&mut self, message: SourceMessage) {
        self.bytes += size_of::<SourceMessage>();
        if let SourceMessage::Change(event) = &message {
            self.bytes += event.row.memory() + event.old.as_ref().map_or(0, Row::memory);
        }
        self.messages.push(message);
    }
}

/// What an old row was read as.
enum Mode {
    New,
    Old { whole: bool },
}

impl Assembler {
    /// Begins at `resume`, of which everything is already delivered.
    pub(crate) fn new(log: &Log, resume: Place, handed_over: Arc<Delivered>) -> Self {
        Self {
            log: Arc::from(log.to_string()),
            resume,
            awaits_resumed: resume.index > 0,
            relations: HashMap::new(),
            announced: HashMap::new(),
            transaction: None,
            progress: resume.lsn,
            emitted: resume,
            scratch: Vec::new(),
            handed_over,
        }
    }

    /// Whether the stream is between two transactions.
    pub(crate) fn is_between_transactions(&self) -> bool {
        self.transaction.is_none()
    }

    /// The server has read and sent everything up to `end`.
    pub(crate) fn keepalive(&mut self, end: Lsn) -> Result<()> {
        // Inside a transaction the figure is one from before it.
        if self.transaction.is_none() {
            if self.awaits_resumed && end > self.resume.lsn {
                return Err(self.resumed_is_gone());
            }
            self.progress = self.progress.max(end);
        }
        Ok(())
    }

    fn resumed_is_gone(&self) -> SourceError {
        lost(format!(
            "the transaction at {}, inside which the stream is to go on, is no longer in the log",
            self.resume.lsn
        ))
    }

    fn emit(&mut self, place: Place, batch: &mut Batch, message: fn(tidemark_contract::Position) -> SourceMessage) {
        self.emitted = self.emitted.max(place);
        let place = place.to_string().into();
        batch.push(message(tidemark_contract::Position { log: self.log.clone(), place }));
    }

    /// Hands out an Idle message for everything up to now, if that is new or `always`.
    pub(crate) fn idle(&mut self, batch: &mut Batch, always: bool) {
        let place = self.emitted.max(Place::from(self.progress));
        if always || place > self.emitted {
            self.emit(place, batch, SourceMessage::Idle);
        }
    }

    /// Takes one message. A relation that comes back must be answered with [`Assembler::define`] before the next message.
    pub(crate) fn feed(&mut self, message: Message<'_>, batch: &mut Batch) -> Result<Option<Relation>> {
        match message {
            Message::Begin { commit, at, xid } => {
                if self.awaits_resumed && commit > self.resume.lsn {
                    return Err(self.resumed_is_gone());
                }
                self.awaits_resumed &= commit != self.resume.lsn;
                self.transaction = Some(Transaction {
                    commit,
                    at,
                    xid,
                    index: 0,
                    delivered: false,
                    since_resumable: false,
                    bytes_since: 0,
                });
            }
            Message::Commit { end } => {
                let transaction = self.transaction.take();
                let delivered = transaction.is_some_and(|t| t.delivered);
                self.progress = self.progress.max(end);
                // A resumed transaction may have had nothing left: its end is worth telling all the same.
                if delivered || (self.emitted.index > 0 && Place::from(end) > self.emitted) {
                    self.emit(end.into(), batch, SourceMessage::Commit);
                }
            }
            Message::Relation(relation) => return Ok(Some(relation)),
            Message::Insert { relation, new } => self.change(relation, batch, |this, captured, batch, at| {
                let row = this.row(captured, new, Mode::New, None)?;
                batch.push(event(captured, ChangeOp::Insert, row, None, at));
                Ok(())
            })?,
            Message::Update { relation, old, new } => {
                self.change(relation, batch, |this, captured, batch, at| this.update(captured, old, new, batch, at))?
            }
            Message::Delete { relation, old } => self.change(relation, batch, |this, captured, batch, at| {
                require_identity(captured)?;
                let whole = old.whole && captured.whole_old_rows;
                let row = this.row(captured, old.tuple, Mode::Old { whole }, None)?;
                batch.push(event(captured, ChangeOp::Delete, row, None, at));
                Ok(())
            })?,
            Message::Truncate { relations } => self.truncate(&relations, batch)?,
            Message::Other => {}
        }
        Ok(None)
    }

    /// Answers [`Assembler::feed`]'s question: how rows of this relation are read from now on, or that they are not wanted.
    /// Tells whether the relation was another table until now, as after a rename.
    pub(crate) fn define(&mut self, oid: u32, mut captured: Option<Captured>) -> bool {
        if let Some(captured) = &mut captured
            && let Some(known) = self.announced.get(&captured.schema.table)
            && **known == *captured.schema
        {
            captured.schema = known.clone();
        }
        let name = |known: &Option<Known>| known.as_ref().map(|k| k.captured.schema.table.clone());
        let known = captured.map(|captured| Known { captured: Arc::new(captured), announced: false });
        let now = name(&known);
        self.relations.insert(oid, known).is_some_and(|before| name(&before) != now)
    }

    /// Whether an Idle message would tell something new.
    pub(crate) fn has_news(&self) -> bool {
        self.transaction.is_none() && Place::from(self.progress) > self.emitted
    }

    /// Counts a row message; `None` if it was delivered before the stream was resumed here. Gives the commit time.
    fn count(&mut self) -> Result<Option<i64>> {
        let Some(transaction) = &mut self.transaction else {
            return Err(undecodable("the replication stream holds a row outside of a transaction"));
        };
        transaction.index += 1;
        let place = Place { lsn: transaction.commit, index: transaction.index };
        Ok((place > self.resume).then_some(transaction.at))
    }

    fn change(
        &mut self,
        relation: u32,
        batch: &mut Batch,
        apply: impl FnOnce(&mut Self, &Captured, &mut Batch, i64) -> Result<()>,
    ) -> Result<()> {
        let Some(at) = self.count()? else { return Ok(()) };
        if let Some(captured) = self.announce(relation, batch)? {
            let before = batch.bytes;
            apply(self, &captured, batch, at)?;
            self.mark_delivered(batch.bytes - before);
        }
        self.resumable(batch);
        Ok(())
    }

    fn mark_delivered(&mut self, bytes: usize) {
        if let Some(transaction) = &mut self.transaction {
            if !std::mem::replace(&mut transaction.delivered, true) {
                self.handed_over.add(transaction.xid);
            }
            transaction.since_resumable = true;
            transaction.bytes_since += bytes;
        }
    }

    fn resumable(&mut self, batch: &mut Batch) {
        if let Some(transaction) = &mut self.transaction
            && (transaction.index.is_multiple_of(RESUMABLE_EVERY) || transaction.bytes_since >= RESUMABLE_BYTES)
            && std::mem::take(&mut transaction.since_resumable)
        {
            transaction.bytes_since = 0;
            let place = Place { lsn: transaction.commit, index: transaction.index };
            self.emit(place, batch, SourceMessage::Resumable);
        }
    }

    /// How rows of a relation are read; `None` if it is not wanted. Sends its schema before, unless the last one sent for
    /// that table is the same.
    fn announce(&mut self, relation: u32, batch: &mut Batch) -> Result<Option<Arc<Captured>>> {
        let Some(known) = self.relations.get_mut(&relation) else {
            return Err(undecodable("the replication stream holds a row of a table that it did not describe"));
        };
        let Some(known) = known else { return Ok(None) };
        if !std::mem::replace(&mut known.announced, true) {
            let schema = &known.captured.schema;
            let last = self.announced.insert(schema.table.clone(), schema.clone());
            if !last.is_some_and(|last| Arc::ptr_eq(&last, schema)) {
                batch.push(SourceMessage::Schema(schema.clone()));
            }
        }
        Ok(Some(known.captured.clone()))
    }

    fn update(
        &mut self,
        captured: &Captured,
        old: Option<Old<'_>>,
        new: Tuple<'_>,
        batch: &mut Batch,
        at: i64,
    ) -> Result<()> {
        require_identity(captured)?;
        let mut whole = false;
        let old = match old {
            None => None,
            Some(old) => {
                whole = old.whole && captured.whole_old_rows;
                Some(self.row(captured, old.tuple, Mode::Old { whole }, None)?)
            }
        };
        let row = self.row(captured, new, Mode::New, old.as_ref())?;
        let key = &captured.schema.key;
        if key.iter().any(|&at| row.get(at).is_unchanged()) {
            return Err(undecodable(format!("an update of table {} does not carry its key", captured.schema.table)));
        }
        if let Some(old) = old {
            if key.iter().any(|&at| old.get(at) != row.get(at)) {
                batch.push(event(captured, ChangeOp::Delete, old, None, at));
                batch.push(event(captured, ChangeOp::Insert, row, None, at));
            } else {
                batch.push(event(captured, ChangeOp::Update, row, whole.then_some(old), at));
            }
        } else {
            batch.push(event(captured, ChangeOp::Update, row, None, at));
        }
        Ok(())
    }

    fn truncate(&mut self, relations: &[u32], batch: &mut Batch) -> Result<()> {
        let Some(at) = self.count()? else { return Ok(()) };
        for oid in relations {
            if let Some(captured) = self.announce(*oid, batch)? {
                batch.push(event(&captured, ChangeOp::Truncate, RowBuilder::default().finish(), None, at));
                self.mark_delivered(0);
            }
        }
        self.resumable(batch);
        Ok(())
    }

    /// Decodes one row. Where the log left a column out, `base` (the old version of the row) is asked.
    fn row(&mut self, captured: &Captured, mut tuple: Tuple<'_>, mode: Mode, base: Option<&Row>) -> Result<Row> {
        let width = captured.schema.columns.len();
        let malformed =
            || undecodable(format!("a row of table {} does not fit its description", captured.schema.table));
        if tuple.columns != captured.fields {
            return Err(malformed());
        }
        let mut row = RowBuilder::with_capacity(width, self.payload(captured, tuple));
        for step in &captured.steps {
            if matches!(step, Step::Absent) {
                row.push(Value::Unchanged);
                continue;
            }
            let field = tuple.next().ok_or_else(malformed)?;
            let Step::Take { kind, old } = step else { continue };
            match field {
                _ if matches!(mode, Mode::Old { whole: false }) && !old => row.push(Value::Unchanged),
                Field::Null => row.push(Value::Null),
                Field::Unchanged => row.push(base.map_or(Value::Unchanged, |base| base.get(row.len()))),
                Field::Text(text) => {
                    decode::push(kind, text, &mut row, &mut self.scratch)
                        .map_err(|error| cannot_decode(captured, row.len(), error))?;
                }
            }
        }
        Ok(row.finish())
    }

    /// Bytes that the wanted columns will take.
    fn payload(&self, captured: &Captured, mut tuple: Tuple<'_>) -> usize {
        let mut bytes = 0;
        for step in &captured.steps {
            match step {
                Step::Absent => {}
                Step::Skip => drop(tuple.next()),
                Step::Take { kind, .. } => {
                    if let Some(Field::Text(text)) = tuple.next() {
                        bytes += kind.payload(text.len());
                    }
                }
            }
        }
        bytes
    }
}

fn event(captured: &Captured, op: ChangeOp, row: Row, old: Option<Row>, committed_at: i64) -> SourceMessage {
    SourceMessage::Change(ChangeEvent { schema: captured.schema.clone(), op, row, old, committed_at })
}

fn require_identity(captured: &Captured) -> Result<()> {
    match &captured.unidentified {
        None => Ok(()),
        Some(reason) => {
            let table = &captured.schema.table;
            Err(SourceError::new(
                ErrorKind::SchemaChanged,
                format!("a change of table {table} cannot be read: {reason}"),
            )
            .hint(format!("ALTER TABLE {} REPLICA IDENTITY FULL", crate::catalog::sql_name(table))))
        }
    }
}

/// The error for a value that cannot be decoded: names table, column and type, never the value.
fn cannot_decode(captured: &Captured, column: usize, error: DecodeError) -> SourceError {
    decode_error(&captured.schema, column, error)
}

pub(crate) fn decode_error(schema: &TableSchema, column: usize, error: DecodeError) -> SourceError {
    let (name, native) = schema.columns.get(column).map_or(("?", "?"), |c| (&*c.name, &*c.native));
    let place = format!("column {name} ({native}) of table {}", schema.table);
    match error {
        DecodeError::Malformed(what) => undecodable(format!("{place}: the server sent no valid {what}")),
        DecodeError::CompositeChanged(composite) => SourceError::new(
            ErrorKind::SchemaChanged,
            format!("{place}: a value has another number of attributes than type {composite} has now"),
        )
        .hint("the type was altered; if this persists, read the table again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pgoutput::tests::samples;
    use proptest::prelude::*;
    use tidemark_contract::{Column, LogicalType};

    fn log() -> Log {
        "postgres:7:1:d:s:?:".parse().unwrap()
    }

    fn captured() -> Captured {
        let column = |name: &str, logical| Column {
            name: name.into(),
            logical,
            native: "x".into(),
            nullable: true,
            max_length: None,
            may_be_unchanged: true,
            unlogged: false,
            labels: Vec::new(),
        };
        let schema = TableSchema {
            table: TableId::new("public", "t"),
            columns: vec![column("id", LogicalType::Int), column("name", LogicalType::Text)],
            key: vec![0],
            full_before_image: true,
        };
        Captured {
            schema: Arc::new(schema),
            steps: vec![Step::Take { kind: Kind::Int, old: true }, Step::Take { kind: Kind::Text, old: false }],
            fields: 2,
            whole_old_rows: true,
            unidentified: None,
        }
    }

    fn run(resume: &str, captured: &Captured, frames: &[Vec<u8>]) -> Result<Vec<String>> {
        let mut assembler = Assembler::new(&log(), resume.parse().unwrap(), Arc::default());
        let mut batch = Batch::default();
        for frame in frames {
            if let Some(relation) = assembler.feed(Message::parse(frame)?, &mut batch)? {
                assembler.define(relation.oid, Some(captured.clone()));
            }
        }
        Ok(batch.messages.iter().map(show).collect())
    }

    fn show(message: &SourceMessage) -> String {
        let row = |row: &Row| {
            let value = |v: Value<'_>| match v {
                Value::Int(i) => i.to_string(),
                Value::Text(t) => t.to_owned(),
                other => other.kind().to_owned(),
            };
            row.iter().map(value).collect::<Vec<_>>().join(",")
        };
        match message {
            SourceMessage::Change(e) => {
                let old = e.old.as_ref().map_or(String::new(), |old| format!(" was {}", row(old)));
                format!("{} {}{old}", e.op.as_str(), row(&e.row))
            }
            SourceMessage::Schema(s) => format!("schema {}", s.table),
            SourceMessage::Rewritten(table) => format!("rewritten {table}"),
            SourceMessage::Commit(p) => format!("commit {p}"),
            SourceMessage::Resumable(p) => format!("resumable {p}"),
            SourceMessage::Idle(p) => format!("idle {p}"),
        }
    }

    #[test]
    fn a_transaction_becomes_changes() {
        let wanted = [
            "schema public.t",
            "insert 1,a",
            "update 1,unchanged",
            "delete 1,unchanged",
            "insert 2,b",
            "update 2,null was 2,b",
            "delete 2,unchanged",
            "truncate ",
            "commit 0/82",
        ];
        assert_eq!(run("0/0", &captured(), &samples()).unwrap(), wanted);
    }

    #[test]
    fn a_resumed_transaction_skips_exactly_what_was_delivered() {
        let all = run("0/0", &captured(), &samples()).unwrap();
        // Commit record at 100 = 0x64. The key update is one message and two changes.
        for (index, delivered) in [(1, 2), (2, 3), (3, 5), (4, 6), (5, 7), (6, 8)] {
            let rest = run(&format!("0/64+{index}"), &captured(), &samples()).unwrap();
            let rest: Vec<_> = rest.into_iter().filter(|m| m != "schema public.t").collect();
            assert_eq!(rest, all[delivered..], "resumed at {index}");
        }
        assert_eq!(run("0/82", &captured(), &samples()).unwrap(), [""; 0], "delivered whole");
        let error = run("0/50+3", &captured(), &samples()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::PositionLost, "the transaction at 0/50 never comes");
    }

    #[test]
    fn old_rows_are_whole_only_if_all_of_the_table_says_so() {
        let captured = Captured { whole_old_rows: false, ..captured() };
        let messages = run("0/0", &captured, &samples()).unwrap();
        assert!(messages.contains(&"update 2,null".to_owned()), "{messages:?}");
    }

    #[test]
    fn changes_without_identity_are_refused_and_inserts_are_not() {
        let captured = Captured { unidentified: Some("no identity".into()), ..captured() };
        let samples = samples();
        assert!(run("0/0", &captured, &samples[..3]).is_ok());
        assert_eq!(run("0/0", &captured, &samples[..4]).unwrap_err().kind, ErrorKind::SchemaChanged);
    }

    #[test]
    fn big_transactions_offer_places_to_resume_from() {
        let samples = samples();
        let mut frames = samples[..2].to_vec();
        frames.extend(std::iter::repeat_n(samples[2].clone(), 2500));
        frames.push(samples[8].clone());
        let messages = run("0/0", &captured(), &frames).unwrap();
        let places: Vec<_> = messages.iter().filter(|m| !m.starts_with("insert")).collect();
        assert_eq!(places, ["schema public.t", "resumable 0/64+1000", "resumable 0/64+2000", "commit 0/82"]);
        let rest = run("0/64+2000", &captured(), &frames).unwrap();
        assert_eq!(rest.iter().filter(|m| m.starts_with("insert")).count(), 500);
    }

    #[test]
    fn large_rows_offer_places_sooner() {
        let samples = samples();
        let mut frames = samples[..2].to_vec();
        let text = "x".repeat(RESUMABLE_BYTES / 4);
        // The sample's last value is one letter.
        let mut insert = samples[2][..samples[2].len() - 5].to_vec();
        insert.extend((text.len() as u32).to_be_bytes());
        insert.extend(text.as_bytes());
        frames.extend(std::iter::repeat_n(insert, 10));
        frames.push(samples[8].clone());
        let messages = run("0/0", &captured(), &frames).unwrap();
        let places: Vec<_> = messages.iter().filter(|m| !m.starts_with("insert")).collect();
        assert_eq!(places, ["schema public.t", "resumable 0/64+4", "resumable 0/64+8", "commit 0/82"]);
    }

    #[test]
    fn rows_of_unwanted_tables_move_the_position_only() {
        let mut assembler = Assembler::new(&log(), Place::from(Lsn(0)), Arc::default());
        let mut batch = Batch::default();
        for frame in samples() {
            if let Some(relation) = assembler.feed(Message::parse(&frame).unwrap(), &mut batch).unwrap() {
                assembler.define(relation.oid, None);
            }
        }
        assert!(batch.messages.is_empty());
        assembler.idle(&mut batch, false);
        assert_eq!(batch.messages.iter().map(show).collect::<Vec<_>>(), ["idle 0/82"]);
    }

    proptest! {
        #[test]
        fn mutated_streams_do_not_panic(
            flips in proptest::collection::vec((0..10_usize, any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut frames = samples();
            for (frame, at, byte) in flips {
                let frame = &mut frames[frame];
                let at = at.index(frame.len());
                frame[at] = byte;
            }
            let _ = run("0/64+2", &captured(), &frames);
        }
    }
}
