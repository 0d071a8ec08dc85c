//! Where transactions begin and end, and the statements between their rows.

use super::{Group, LogReader};
use crate::assemble::Batch;
use crate::ddl;
use crate::error::{lost, setting_wrong, undecodable};
use crate::event::{self, Event, kind};
use crate::position::{Flavor, Inside};
use tidemark_contract::{ChangeEvent, ChangeOp, Result, RowBuilder, SourceError, SourceMessage};

impl LogReader {
    fn open_group(&mut self, start: u64) -> Result<&mut Group> {
        if self.group.is_some() {
            return Err(undecodable("a transaction in the log begins before the one before it has ended"));
        }
        let skip = self.resume.take();
        if skip.is_some()
            && let Some(from) = &self.from.file
            && (from.name != self.file || from.offset != start)
        {
            return Err(lost("the transaction inside which the stream is to go on is no longer in the log"));
        }
        Ok(self.group.insert(Group {
            gtid: None,
            start,
            at: 0,
            begun: false,
            xa: false,
            inside: Inside::default(),
            skip,
            delivered: false,
            since_resumable: 0,
            held: Batch::default(),
        }))
    }

    pub(super) fn begin(&mut self, event: &Event<'_>) -> Result<()> {
        let begin = event::gtid(event)?;
        let is_mariadb = self.log.flavor == Flavor::MariaDb;
        let start = self.offset.saturating_sub(u64::from(event.size));
        let group = self.open_group(start)?;
        group.at = begin.committed_at.unwrap_or(i64::from(event.timestamp) * 1_000_000);
        group.gtid = begin.gtid;
        group.begun = is_mariadb && !begin.standalone;
        group.xa = begin.xa;
        Ok(())
    }

    pub(super) fn end(&mut self, batch: &mut Batch) -> Result<()> {
        let Some(group) = self.group.take() else {
            return Err(undecodable("a transaction in the log ends that did not begin"));
        };
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
                    None => self.open_group(start)?,
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
            _ if upper.starts_with("XA ") => {
                let ends = upper.starts_with("XA COMMIT") || upper.starts_with("XA ROLLBACK");
                if let Some(group) = &mut self.group {
                    group.xa = true;
                    group.begun |= !ends;
                }
                return if ends { self.end(batch) } else { Ok(()) };
            }
            _ => {}
        }
        let effects = ddl::effects(text, database, ansi_quotes);
        let at = self.group.as_ref().map_or(i64::from(event.timestamp) * 1_000_000, |group| group.at);
        let skipped = self.group.as_ref().is_some_and(|group| group.skip.is_some());
        for schema in self.captures.statement(&effects, self.spot())? {
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

    pub(super) fn prepared(&mut self, body: &[u8], batch: &mut Batch) -> Result<()> {
        // One phase: it is committed at once, like any other.
        let one_phase = body.first() == Some(&1);
        let held = self.group.as_mut().map(|group| std::mem::take(&mut group.held)).unwrap_or_default();
        if !held.messages.is_empty() && !one_phase {
            return Err(xa_refused());
        }
        batch.bytes += held.bytes;
        batch.messages.extend(held.messages);
        self.end(batch)
    }
}

pub(super) fn xa_refused() -> SourceError {
    setting_wrong("rows were written in an XA transaction that is prepared first and committed later").hint(
        "such transactions are not supported on tables that are read: use ordinary ones, or XA COMMIT … ONE PHASE",
    )
}
