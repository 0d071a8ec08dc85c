//! The log's events in their order → messages: transactions, places, tables, statements.
//!
//! Every event type is either handled or named here as harmless; any other is an error, never a skip (P5). An event that
//! the server itself marks as ignorable may be passed over only if it is not one that changes rows.
//!
//! # Places
//!
//! Between two transactions the place is the offset behind the last event. Inside one it is the offset where the
//! transaction begins, with the number of row events and rows behind that ([`Inside`]). Large events, and transactions
//! that come compressed in a single event, are worked off piece by piece, so that memory stays within a batch whatever
//! their size (R7).

mod group;

use crate::assemble::{Batch, Plan, RowReader};
use crate::capture::{Captures, Spot};
use crate::cursor::Cursor;
use crate::error::{lost, undecodable};
use crate::event::{self, Event, kind};
use crate::payload::{Payload, inflate};
use crate::position::{FilePlace, Flavor, Gtid, GtidSet, Inside, Log, Place, numbered};
use crate::types::Scratch;
use crate::visibility::Told;
use crate::xa::{Begins, Prepared, Unknown};
use bytes::{Bytes, BytesMut};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use tidemark_contract::{Position, Result, SourceMessage, TableId, TableSchema};

/// Size of a batch handed to the daemon, in bytes of rows.
pub(crate) const BATCH: usize = 256 << 10;
/// How many rows of one transaction lie between two places from which it can be resumed.
const RESUMABLE_EVERY: u64 = 1000;

/// Or after this many bytes of rows, if that is sooner.
const RESUMABLE_BYTES: usize = 1 << 20;

/// What a table id stands for.
struct Entry {
    /// The table map, as it came: a table map is repeated for each statement, and mostly the same.
    map: Box<[u8]>,
    /// How the table's rows are read, if somebody asked for them.
    plan: Option<Arc<Plan>>,
}

struct Group {
    gtid: Option<Gtid>,
    /// Where it begins.
    start: u64,
    at: i64,
    /// It is ended by COMMIT or XID, not by its only statement.
    begun: bool,
    /// An XA transaction, of which it is not known yet whether it commits here: its rows are held.
    xa: bool,
    /// Read once more, only for the rows of prepared transactions; all else in it is done.
    done: bool,
    /// Row events and rows of the present one that were passed.
    inside: Inside,
    /// Up to where it was delivered before the stream was resumed here.
    skip: Option<Inside>,
    delivered: bool,
    since_resumable: u64,
    bytes_since: usize,
    /// Rows of an XA transaction, and their size; `None` if they were too many.
    held: Option<Vec<PendingRows>>,
    held_bytes: usize,
    /// It ends once the rows that were held have been told.
    ending: bool,
}

/// The rest of a row event.
pub(crate) struct PendingRows {
    body: Bytes,
    of: u8,
    plan: Arc<Plan>,
    /// Bytes at the body's end that are not read yet.
    left: usize,
}

impl PendingRows {
    /// Bytes that it takes.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.body.len()
    }
}

/// The log is read once more from before the place that the stream goes on from, to find prepared transactions.
struct Again {
    /// GTIDs before the present transaction.
    gtids: Option<GtidSet>,
}

/// Turns events into messages.
pub(crate) struct LogReader {
    pub(crate) captures: Captures,
    log: Log,
    log_text: Arc<str>,
    checksum: bool,
    file: Box<str>,
    created: u32,
    /// The offset behind the last event.
    offset: u64,
    gtids: Option<GtidSet>,
    /// Where the stream was opened; places before it are not handed out.
    from: Place,
    resume: Option<Inside>,
    tables: HashMap<u64, Entry>,
    announced: HashMap<TableId, Arc<TableSchema>>,
    group: Option<Group>,
    rows: Option<PendingRows>,
    /// Rows that were held and are told now, behind `rows`.
    released: VecDeque<PendingRows>,
    payload: Option<Payload>,
    prepared: Prepared,
    again: Option<Again>,
    /// The last place handed out.
    emitted: Place,
    scratch: Scratch,
}

impl LogReader {
    /// Begins at `from`, of which everything is already delivered.
    pub(crate) fn new(captures: Captures, mut log: Log, from: Place) -> Self {
        log.shapes = captures.shapes();
        let (file, created, offset) = match &from.file {
            Some(file) => (file.name.clone(), file.created, 0),
            None => ("".into(), 0, 0),
        };
        let unfinished = from.unfinished.as_deref();
        let unknown = unfinished.map_or_else(Unknown::default, |unfinished| unfinished.unknown.clone());
        let begins = unfinished.and_then(|unfinished| unfinished.begins.as_ref());
        let again = begins.map(|begins| Again { gtids: begins.gtids.clone() });
        Self {
            captures,
            log_text: Arc::from(log.to_string()),
            log,
            checksum: false,
            file,
            created,
            offset,
            gtids: from.gtids.clone(),
            resume: from.inside,
            emitted: from.clone(),
            from,
            tables: HashMap::new(),
            announced: HashMap::new(),
            group: None,
            rows: None,
            released: VecDeque::new(),
            payload: None,
            prepared: Prepared::new(unknown),
            again,
            scratch: Scratch::default(),
        }
    }

    /// Whether the stream is between two transactions.
    pub(crate) fn is_between_transactions(&self) -> bool {
        self.group.is_none() && self.rows.is_none() && self.payload.is_none()
    }

    /// Whether a part of the last event is still to be worked off.
    pub(crate) fn has_pending(&self) -> bool {
        self.rows.is_some() || self.payload.is_some() || self.group.as_ref().is_some_and(|group| group.ending)
    }

    fn spot(&self) -> Spot {
        (numbered(&self.file).map_or(0, |(_, number)| number), self.offset)
    }

    /// Everything up to here is delivered; inside a transaction, everything before that.
    pub(crate) fn place(&self) -> Place {
        let start = self.group.as_ref().map_or(self.offset, |group| group.start);
        let here = FilePlace { name: self.file.clone(), offset: start, created: self.created };
        // While the server looks for the place to begin at, it may be in an older file.
        let file = match &self.from.file {
            Some(from) if start == 0 || !reaches(&here, from) => Some(from.clone()),
            _ if start == 0 => None,
            _ => Some(here),
        };
        // What is read once more may yet be needed.
        let unfinished = if self.again.is_some() { self.from.unfinished.clone() } else { self.prepared.unfinished() };
        Place { file, gtids: self.gtids.clone(), inside: None, unfinished }
    }

    /// Where the present transaction begins.
    fn begins(&self, group: &Group) -> Begins {
        let file = FilePlace { name: self.file.clone(), offset: group.start, created: self.created };
        let gtids = self.again.as_ref().map_or(&self.gtids, |again| &again.gtids);
        Begins { file: Some(file), gtids: gtids.clone() }
    }

    fn position(&self, place: &Place) -> Position {
        Position { log: self.log_text.clone(), place: place.to_string().into() }
    }

    fn emit(&mut self, place: Place, batch: &mut Batch, message: fn(Position) -> SourceMessage) {
        batch.push(message(self.position(&place)));
        self.emitted = place;
    }

    /// Whether an Idle message would tell something new.
    pub(crate) fn has_news(&self) -> bool {
        self.is_between_transactions() && self.resume.is_none() && self.place() != self.emitted
    }

    /// Hands out an Idle message for everything up to now, if that is new or `always`.
    pub(crate) fn idle(&mut self, batch: &mut Batch, always: bool) {
        if self.resume.is_some() {
            // Inside a transaction that is to be gone on with.
            let place = self.from.clone();
            if always {
                self.emit(place, batch, SourceMessage::Idle);
            }
            return;
        }
        let place = self.place();
        if always || place != self.emitted {
            self.emit(place, batch, SourceMessage::Idle);
        }
    }

    /// Takes one event as the server sent it.
    pub(crate) async fn feed(&mut self, bytes: BytesMut, batch: &mut Batch) -> Result<()> {
        let bytes = bytes.freeze();
        if bytes.get(4) == Some(&kind::FORMAT_DESCRIPTION) {
            self.checksum = event::checksum_of(&bytes)?;
        }
        // An artificial rotation comes before the description of the file that it names, and has a checksum or not as the
        // server's setting is, not as the file is.
        let checksum = match bytes.get(4) {
            Some(&kind::ROTATE) => event::has_checksum(&bytes),
            _ => self.checksum,
        };
        let event = Event::parse(&bytes, checksum)?;
        self.advance_offset(&event);
        let body = bytes.slice_ref(event.body);
        let event = Event { body: &[], ..event };
        self.handle(event, body, batch).await
    }

    /// Works off more of a large event, as far as the batch has room.
    pub(crate) async fn advance(&mut self, batch: &mut Batch) -> Result<()> {
        if self.rows.is_some() {
            return self.read_rows(batch);
        }
        if self.group.as_ref().is_some_and(|group| group.ending) {
            self.rows = self.released.pop_front();
            return if self.rows.is_some() { self.read_rows(batch) } else { self.end(batch) };
        }
        let Some(payload) = &mut self.payload else { return Ok(()) };
        match payload.next()? {
            Some(bytes) => {
                let event = Event::parse(&bytes, false)?;
                if matches!(event.kind, kind::TRANSACTION_PAYLOAD | kind::FORMAT_DESCRIPTION | kind::ROTATE) {
                    return Err(undecodable("a compressed transaction holds an event that cannot be in one"));
                }
                let body = bytes.slice_ref(event.body);
                let event = Event { body: &[], ..event };
                Box::pin(self.handle(event, body, batch)).await
            }
            None => {
                self.payload = None;
                Ok(())
            }
        }
    }

    /// Follows the offset. Offsets are written with 32 bits only, but files can be larger.
    fn advance_offset(&mut self, event: &Event<'_>) {
        if event.is_artificial() || matches!(event.kind, kind::HEARTBEAT | kind::HEARTBEAT_V2 | kind::ROTATE) {
            return;
        }
        let next = u64::from(event.next);
        let counted = self.offset + u64::from(event.size);
        if self.offset > 0 && counted & 0xffff_ffff == next {
            self.offset = counted;
            return;
        }
        let base = self.offset & !0xffff_ffff;
        self.offset = if base + next >= self.offset { base + next } else { base + next + (1 << 32) };
    }

    async fn handle(&mut self, event: Event<'_>, body: Bytes, batch: &mut Batch) -> Result<()> {
        let full = Event { body: &body, ..event };
        match event.kind {
            kind::ROTATE => self.rotate(&full)?,
            kind::FORMAT_DESCRIPTION => {
                self.created = event.timestamp;
                self.tables.clear();
            }
            kind::HEARTBEAT | kind::HEARTBEAT_V2 => self.heartbeat(&full)?,
            kind::GTID | kind::ANONYMOUS_GTID | kind::GTID_TAGGED | kind::MARIA_GTID => self.begin(&full)?,
            kind::QUERY => {
                let query = event::query(&body)?;
                self.statement(query.database, &query.text, query.ansi_quotes, &full, batch)?;
            }
            kind::MARIA_QUERY_COMPRESSED => {
                let whole = crate::payload::inflate_query(&body)?;
                let query = event::query(&whole)?;
                self.statement(query.database, &query.text, query.ansi_quotes, &full, batch)?;
            }
            kind::XID => self.end(batch)?,
            kind::XA_PREPARE => self.prepared(&body, batch)?,
            kind::TABLE_MAP => self.table(body).await?,
            kind::WRITE
            | kind::UPDATE
            | kind::DELETE
            | kind::WRITE_V1
            | kind::UPDATE_V1
            | kind::DELETE_V1
            | kind::PARTIAL_UPDATE => self.row_event(event.kind, body, batch)?,
            kind::MARIA_WRITE_V1_COMPRESSED => {
                self.row_event(kind::WRITE_V1, inflate(&body, kind::WRITE_V1)?, batch)?
            }
            kind::MARIA_UPDATE_V1_COMPRESSED => {
                self.row_event(kind::UPDATE_V1, inflate(&body, kind::UPDATE_V1)?, batch)?
            }
            kind::MARIA_DELETE_V1_COMPRESSED => {
                self.row_event(kind::DELETE_V1, inflate(&body, kind::DELETE_V1)?, batch)?
            }
            kind::MARIA_WRITE_COMPRESSED => self.row_event(kind::WRITE, inflate(&body, kind::WRITE)?, batch)?,
            kind::MARIA_UPDATE_COMPRESSED => self.row_event(kind::UPDATE, inflate(&body, kind::UPDATE)?, batch)?,
            kind::MARIA_DELETE_COMPRESSED => self.row_event(kind::DELETE, inflate(&body, kind::DELETE)?, batch)?,
            kind::TRANSACTION_PAYLOAD => self.payload = Some(Payload::open(&body)?),
            kind::BEGIN_LOAD_QUERY | kind::APPEND_BLOCK | kind::EXECUTE_LOAD_QUERY | kind::DELETE_FILE => {
                self.load_statement(&full)?;
            }
            kind::INCIDENT => {
                return Err(lost("the server reports that changes are missing in its own log (an incident event)")
                    .hint("everything must be read again"));
            }
            // Nothing in them for us: ends of files, values for statements, texts of statements whose rows follow, what
            // the log held before, group replication's and the encryption's notes.
            kind::STOP
            | kind::INTVAR
            | kind::RAND
            | kind::USER_VAR
            | kind::ROWS_QUERY
            | kind::IGNORABLE
            | kind::PREVIOUS_GTIDS
            | kind::TRANSACTION_CONTEXT
            | kind::VIEW_CHANGE
            | kind::MARIA_ANNOTATE_ROWS
            | kind::MARIA_BINLOG_CHECKPOINT
            | kind::MARIA_GTID_LIST
            | kind::MARIA_START_ENCRYPTION => {}
            other if event.is_ignorable() => {
                tracing::warn!(kind = other, "an event of an unknown type, marked as one that may be ignored");
            }
            other => {
                return Err(undecodable(format!("the log holds an event of the unknown type {other}"))
                    .hint("this version of the server is newer than this program; nothing was skipped"));
            }
        }
        Ok(())
    }

    fn rotate(&mut self, event: &Event<'_>) -> Result<()> {
        let (name, offset) = event::rotate(event.body)?;
        if !event.is_artificial() {
            // The one at a file's end; an artificial one names the new file once more.
            self.tables.clear();
        }
        if *name != *self.file || self.offset == 0 {
            self.file = name.into();
            self.offset = offset;
        }
        Ok(())
    }

    /// The server is alive, and has read so far without finding anything for us.
    fn heartbeat(&mut self, event: &Event<'_>) -> Result<()> {
        if self.group.is_some() {
            return Ok(());
        }
        let mut body = Cursor(event.body);
        if event.kind == kind::HEARTBEAT {
            let name = std::str::from_utf8(body.rest()).unwrap_or_default().trim_end_matches('\0');
            if *name == *self.file {
                let base = self.offset & !0xffff_ffff;
                self.offset = self.offset.max(base + u64::from(event.next));
            }
            return Ok(());
        }
        let (mut same_file, mut offset) = (false, 0);
        while !body.is_empty() {
            let field = body.u8()?;
            if field == 0 {
                break;
            }
            let value = body.lenenc_bytes()?;
            match field {
                1 => same_file = value == self.file.as_bytes(),
                2 => offset = Cursor(value).lenenc()?,
                _ => {}
            }
        }
        if same_file {
            self.offset = self.offset.max(offset);
        }
        Ok(())
    }

    async fn table(&mut self, body: Bytes) -> Result<()> {
        if self.group.as_ref().is_some_and(|group| group.done && !group.xa) {
            return Ok(());
        }
        let (id, schema, name, _) = event::table_name(&body)?;
        if let Some(entry) = self.tables.get(&id)
            && *entry.map == *body
            && (entry.plan.is_none() || self.captures.is_settled(schema, name))
        {
            return Ok(());
        }
        let mut plan = None;
        if self.captures.is_wanted(schema, name) {
            let map = event::table_map(&body, self.log.flavor == Flavor::MariaDb)?;
            plan = self.captures.resolve(&map, self.spot()).await?.map(Arc::new);
        }
        let is_wanted = plan.is_some();
        self.tables.insert(id, Entry { map: body.as_ref().into(), plan });
        if !is_wanted {
            return Ok(());
        }
        let shapes = self.captures.shapes();
        if shapes != self.log.shapes {
            self.log.shapes = shapes;
            self.log_text = Arc::from(self.log.to_string());
        }
        Ok(())
    }

    fn announce(&mut self, schema: &Arc<TableSchema>, batch: &mut Batch) {
        for table in self.captures.take_rewritten() {
            batch.push(SourceMessage::Rewritten(table));
        }
        let last = self.announced.get(&schema.table);
        if !last.is_some_and(|last| Arc::ptr_eq(last, schema) || **last == **schema) {
            batch.push(SourceMessage::Schema(schema.clone()));
            self.announced.insert(schema.table.clone(), schema.clone());
        }
    }

    fn row_event(&mut self, of: u8, body: Bytes, batch: &mut Batch) -> Result<()> {
        let rows = event::rows(&body, of)?;
        let Some(group) = &mut self.group else {
            return Err(undecodable("the log holds a row outside of a transaction"));
        };
        if group.done && !group.xa {
            return Ok(());
        }
        // The number that stands for "no table" at a statement's end.
        if rows.table == 0xff_ffff && rows.is_last_of_statement && rows.rows.is_empty() {
            return Ok(());
        }
        let plan = match self.tables.get(&rows.table) {
            None => return Err(undecodable("the log holds a row of a table that it did not describe")),
            Some(entry) => entry.plan.clone(),
        };
        let begun = Inside { event: group.inside.event, row: u64::MAX };
        if plan.is_none() || group.skip.is_some_and(|skip| skip > begun) {
            group.inside = Inside { event: group.inside.event + 1, row: 0 };
            return Ok(());
        }
        let Some(plan) = plan else { return Ok(()) };
        let left = rows.rows.len();
        if group.xa {
            group.inside = Inside { event: group.inside.event + 1, row: 0 };
            // A copy: the event is a part of a larger buffer.
            let pending = PendingRows { body: Bytes::copy_from_slice(&body), of, plan, left };
            group.held_bytes += pending.size();
            if group.held_bytes > self.prepared.room() {
                group.held = None;
            }
            if let Some(held) = &mut group.held {
                held.push(pending);
            }
            return Ok(());
        }
        self.rows = Some(PendingRows { body, of, plan, left });
        self.read_rows(batch)
    }

    fn read_rows(&mut self, batch: &mut Batch) -> Result<()> {
        let Some(pending) = self.rows.take() else { return Ok(()) };
        let schema = pending.plan.schema.clone();
        self.announce(&schema, batch);
        let rows = event::rows(&pending.body, pending.of)?;
        let Some(group) = &mut self.group else {
            return Err(undecodable("the log holds a row outside of a transaction"));
        };
        let reader = RowReader::new(&pending.plan, pending.of, &rows, group.at)?;
        let from = rows.rows.len().saturating_sub(pending.left);
        let mut rest = Cursor(rows.rows.get(from..).unwrap_or_default());
        let mut resumable = None;
        while !rest.is_empty() && batch.bytes < BATCH {
            let before = rest.0.len();
            group.inside.row += 1;
            if group.skip.is_some_and(|skip| skip >= group.inside) {
                let mut aside = Batch::default();
                reader.next(&mut rest, &mut self.scratch, &mut aside)?;
            } else {
                let bytes = batch.bytes;
                reader.next(&mut rest, &mut self.scratch, batch)?;
                group.delivered = true;
                group.bytes_since += batch.bytes - bytes;
                // Rows that were held have no place of their own in the log.
                group.since_resumable += u64::from(!group.ending);
            }
            if rest.0.len() == before {
                return Err(undecodable(format!("a row of table {} takes no bytes", schema.table)));
            }
            let is_due = group.since_resumable >= RESUMABLE_EVERY || group.bytes_since >= RESUMABLE_BYTES;
            if is_due && group.since_resumable > 0 {
                group.since_resumable = 0;
                group.bytes_since = 0;
                resumable = Some(group.inside);
                break;
            }
        }
        let left = rest.0.len();
        if left == 0 {
            group.inside = Inside { event: group.inside.event + 1, row: 0 };
        } else {
            self.rows = Some(PendingRows { left, ..pending });
        }
        if let Some(inside) = resumable {
            let inside = if left == 0 { Inside { event: inside.event + 1, row: 0 } } else { inside };
            let place = Place { inside: Some(inside), ..self.place() };
            self.emit(place, batch, SourceMessage::Resumable);
        }
        Ok(())
    }

    /// What has been read so far, the present transaction included.
    pub(crate) fn told(&self) -> Told {
        let mut gtids = self.gtids.clone();
        let group = self.group.as_ref().filter(|group| !group.done);
        if let (Some(gtids), Some(gtid)) = (&mut gtids, group.and_then(|group| group.gtid.as_ref())) {
            gtids.add(gtid);
        }
        let file = FilePlace { name: self.file.clone(), offset: self.offset, created: 0 };
        Told { file: (self.offset > 0).then_some(file), gtids }
    }

    /// Whether everything up to a head of the log has been read.
    pub(crate) fn has_reached(&self, head: &crate::position::Head) -> bool {
        let goal = FilePlace { name: head.file.clone(), offset: head.offset, created: 0 };
        let here = FilePlace { name: self.file.clone(), offset: self.offset, created: 0 };
        if !self.is_between_transactions() {
            return false;
        }
        if self.offset > 0 && reaches(&here, &goal) {
            return true;
        }
        // MariaDB says nothing while it looks for the place to begin at; its GTIDs are never behind its log.
        match (&self.gtids, &head.gtids) {
            (Some(reached @ GtidSet::MariaDb(_)), Some(goal)) => reached.contains(goal),
            _ => false,
        }
    }
}

fn reaches(here: &FilePlace, goal: &FilePlace) -> bool {
    here.reaches(goal) == Some(true)
}
