//! Where transactions begin and end, and the statements between their rows.

use super::{Group, LogReader, PendingRows};
use crate::assemble::Batch;
use crate::ddl;
use crate::error::{lost, undecodable};
use crate::event::{self, Event, kind};
use crate::position::{FilePlace, Flavor, Gtid, Inside};
use crate::xa::Xid;
use tidemark_contract::{ChangeEvent, ChangeOp, Result, RowBuilder, SourceMessage};

impl LogReader {
    fn open_group(&mut self, start: u64, gtid: Option<Gtid>) -> Result<&mut Group> {
        if self.group.is_some() {
            return Err(undecodable("a transaction in the log begins before the one before it has ended"));
        }
        let done = self.again.is_some() && self.is_done(start, gtid.as_ref());
        if !done {
            self.again = None;
        }
        let skip = if done { None } else { self.resume.take() };
        if skip.is_some()
            && let Some(from) = &self.from.file
            && (from.name != self.file || from.offset != start)
        {
            return Err(lost("the transaction inside which the stream is to go on is no longer in the log"));
        }
        Ok(self.group.insert(Group {
            gtid,
            start,
            at: 0,
            begun: false,
            xa: false,
            done,
            inside: Inside::default(),
            skip,
            delivered: false,
            since_resumable: 0,
            bytes_since: 0,
            held: Some(Vec::new()),
            held_bytes: 0,
            ending: false,
        }))
    }

    /// Whether a transaction lies before the place that the stream goes on from.
    fn is_done(&self, start: u64, gtid: Option<&Gtid>) -> bool {
        if let (Some(gtids), Some(gtid)) = (&self.from.gtids, gtid) {
            return gtids.has(gtid);
        }
        let here = FilePlace { name: self.file.clone(), offset: start, created: 0 };
        self.from.file.as_ref().is_some_and(|from| here.reaches(from) == Some(false))
    }

    pub(super) fn begin(&mut self, event: &Event<'_>) -> Result<()> {
        let begin = event::gtid(event)?;
        let is_mariadb = self.log.flavor == Flavor::MariaDb;
        let start = self.offset.saturating_sub(u64::from(event.size));
        let group = self.open_group(start, begin.gtid)?;
        group.at = begin.committed_at.unwrap_or(i64::from(event.timestamp) * 1_000_000);
        group.begun = is_mariadb && !begin.standalone;
        group.xa = begin.prepares;
        Ok(())
    }

    pub(super) fn end(&mut self, batch: &mut Batch) -> Result<()> {
        let Some(group) = self.group.take() else {
            return Err(undecodable("a transaction in the log ends that did not begin"));
        };
        if group.done {
            let gtids = self.again.as_mut().and_then(|again| again.gtids.as_mut());
            if let (Some(gtid), Some(gtids)) = (&group.gtid, gtids) {
                gtids.add(gtid);
            }
            return Ok(());
        }
        if let (Some(gtid), Some(gtids)) = (&group.gtid, &mut self.gtids) {
            gtids.add(gtid);
        }
        // A resumed transaction may have had nothing left: its end is worth telling all the same.
        if group.delivered || group.skip.is_some() {
            let place = self.place();
            self.emit(place, batch, SourceMessage::Commit);
        }
        Ok(())
    }

    pub(super) fn statement(
        &mut self,
        database: &str,
        text: &str,
        ansi_quotes: bool,
        event: &Event<'_>,
        batch: &mut Batch,
    ) -> Result<()> {
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == ';' || c == '\0');
        let upper: String = text.chars().take(24).collect::<String>().to_ascii_uppercase();
        let delivered = self.group.as_ref().is_some_and(|group| group.delivered);
        match upper.as_str() {
            "BEGIN" => {
                let start = self.offset.saturating_sub(u64::from(event.size));
                let group = match &mut self.group {
                    Some(group) => group,
                    // Servers without GTIDs.
                    None => self.open_group(start, None)?,
                };
                group.begun = true;
                if group.at == 0 {
                    group.at = i64::from(event.timestamp) * 1_000_000;
                }
                return Ok(());
            }
            "COMMIT" => return self.end(batch),
            _ if upper.starts_with("ROLLBACK") && delivered => {
                return Err(lost(
                    "a transaction in the log was rolled back after some of its rows were written to the log: \
                                 it mixes tables with and without transactions",
                ));
            }
            "ROLLBACK" => return self.end(batch),
            _ if upper.starts_with("SAVEPOINT") || upper.starts_with("ROLLBACK") || upper.starts_with("RELEASE") => {
                return Ok(());
            }
            _ if upper.starts_with("XA ") => return self.xa_statement(text, batch),
            _ => {}
        }
        let start = self.offset.saturating_sub(u64::from(event.size));
        match &self.group {
            Some(group) if group.done => return if group.begun { Ok(()) } else { self.end(batch) },
            None if self.again.is_some() && self.is_done(start, None) => return Ok(()),
            _ => {}
        }
        let effects = ddl::effects(text, database, ansi_quotes);
        let at = self.group.as_ref().map_or(i64::from(event.timestamp) * 1_000_000, |group| group.at);
        let skipped = self.group.as_ref().is_some_and(|group| group.skip.is_some());
        let outcome = self.captures.statement(&effects, self.spot())?;
        for table in outcome.rewritten {
            if !skipped {
                batch.push(SourceMessage::Rewritten(table));
                if let Some(group) = &mut self.group {
                    group.delivered = true;
                }
            }
        }
        for schema in outcome.emptied {
            if !skipped {
                self.announce(&schema, batch);
                let row = RowBuilder::default().finish();
                batch.push(SourceMessage::Change(ChangeEvent {
                    schema,
                    op: ChangeOp::Truncate,
                    row,
                    old: None,
                    committed_at: at,
                }));
                if let Some(group) = &mut self.group {
                    group.delivered = true;
                }
            }
        }
        match &self.group {
            Some(group) if !group.begun => self.end(batch),
            Some(_) => Ok(()),
            // Servers without GTIDs: the statement is a transaction of its own.
            None => {
                let place = self.place();
                self.emit(place, batch, SourceMessage::Commit);
                Ok(())
            }
        }
    }

    fn xa_statement(&mut self, text: &str, batch: &mut Batch) -> Result<()> {
        let mut words = text.splitn(3, char::is_whitespace).skip(1);
        let verb = words.next().unwrap_or_default().to_ascii_uppercase();
        let arguments = words.next().unwrap_or_default();
        match verb.as_str() {
            "COMMIT" | "ROLLBACK" => {}
            _ => {
                if let Some(group) = &mut self.group {
                    group.xa = true;
                    group.begun = true;
                }
                return Ok(());
            }
        }
        let xid = Xid::of_statement(arguments).ok_or_else(|| undecodable("an XA statement in the log has no name"))?;
        let done = self.group.as_ref().is_some_and(|group| group.done);
        if done || verb == "ROLLBACK" {
            self.prepared.forget(&xid);
            return self.end(batch);
        }
        let rows = self.prepared.commit(&xid)?;
        self.release(rows, batch)
    }

    /// Tells rows that were held, and then ends the transaction.
    fn release(&mut self, rows: Vec<PendingRows>, batch: &mut Batch) -> Result<()> {
        if rows.is_empty() {
            return self.end(batch);
        }
        let Some(group) = &mut self.group else {
            return Err(undecodable("a transaction in the log ends that did not begin"));
        };
        group.ending = true;
        self.released = rows.into();
        Ok(())
    }

    /// LOAD DATA as a statement, without its rows.
    pub(super) fn load_statement(&mut self, event: &Event<'_>) -> Result<()> {
        if event.kind != kind::EXECUTE_LOAD_QUERY {
            return Ok(());
        }
        // As a statement, with 13 more bytes behind the fixed part of its head.
        let plain = match (event.body.get(..13), event.body.get(26..)) {
            (Some(head), Some(rest)) => [head, rest].concat(),
            _ => return Err(crate::cursor::cut_short()),
        };
        let query = event::query(&plain)?;
        let effects = ddl::effects(&query.text, query.database, query.ansi_quotes);
        self.captures.statement(&effects, self.spot()).map(drop)
    }

    /// The end of the part of an XA transaction that holds its rows.
    pub(super) fn prepared(&mut self, body: &[u8], batch: &mut Batch) -> Result<()> {
        let (xid, one_phase) = Xid::of_event(body)?;
        let Some(group) = &mut self.group else {
            return Err(undecodable("an XA transaction in the log is prepared that did not begin"));
        };
        let rows = group.held.take();
        match (one_phase, group.done, rows) {
            (true, true, _) => {}
            // Committed at once, like any other.
            (true, false, Some(rows)) => return self.release(rows, batch),
            (true, false, None) => {
                return Err(lost(format!(
                    "an XA transaction has more rows than can be held until it is known whether it commits ({} bytes)",
                    crate::xa::LIMIT
                ))
                .hint("everything must be read again"));
            }
            (false, _, rows) => {
                if let Some(group) = &self.group {
                    self.prepared.add(xid, self.begins(group), rows);
                }
            }
        }
        self.end(batch)
    }
}
