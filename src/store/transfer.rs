//! Moving a state directory: everything as lines of JSON, and back.
//!
//! The first line names the format, the last one counts the others: a file that was cut off is refused, and nothing of
//! it is kept. Holds keys and external ids (not field values): whoever may read it learns who the customers are.

use super::changes;
use super::error::{Result, StoreError};
use super::keys;
use super::types::{Checkpoint, DeadLetter, Obligation, Step, row_key};
use super::{Entry, Store};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::Path;
use tidemark_contract::RowKey;

const FORMAT: u32 = 1;
const MARKS_PER_LINE: usize = 1000;
const RECORDS_AT_ONCE: usize = 2000;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    TidemarkStore(u32),
    Checkpoint(Checkpoint),
    /// Hashes of row keys, 16 bytes each.
    Marks {
        table: String,
        base64: String,
    },
    Obligation(Obligation),
    DeadLetter(DeadLetter),
    Ledger(LedgerLine),
    /// Number of lines before this one.
    End(u64),
}

#[derive(Serialize, Deserialize)]
struct LedgerLine {
    rule: String,
    external_id: String,
    hash: u64,
    generation: u32,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional_row_key")]
    owner: Option<RowKey>,
}

/// What was moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moved {
    /// Marks.
    pub marks: u64,
    /// Obligations.
    pub obligations: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Entries of the ledger.
    pub ledger_entries: u64,
}

/// Whose export `input` is: its checkpoint, and the bytes that were taken from the input to find out.
///
/// # Errors
/// [`StoreError::Refused`] if it is no export.
pub fn head(input: &mut dyn BufRead) -> Result<(std::io::Cursor<Vec<u8>>, Checkpoint)> {
    let mut bytes = Vec::new();
    let mut line = |number: u64| -> Result<Line> {
        let from = bytes.len();
        input.read_until(b'\n', &mut bytes).map_err(StoreError::io("read", Path::new("the import")))?;
        serde_json::from_slice(&bytes[from..]).map_err(|_| refuse(number, "this is not an export"))
    };
    match (line(1)?, line(2)?) {
        (Line::TidemarkStore(_), Line::Checkpoint(checkpoint)) => Ok((std::io::Cursor::new(bytes), checkpoint)),
        _ => Err(refuse(1, "this is not an export")),
    }
}

fn refuse(number: u64, what: &str) -> StoreError {
    StoreError::Refused {
        message: format!("line {number} of the import: {what}"),
        hint: Some("`tidemark checkpoint export` writes what can be read here".into()),
    }
}

impl Store {
    /// Writes everything but the earlier checkpoints as lines of JSON. `with_ledger`: the ledger too; without it, the next
    /// full pass sends every record once.
    pub fn export(&self, out: &mut dyn Write, with_ledger: bool) -> Result<Moved> {
        let mut moved = Moved::default();
        let lines = std::cell::Cell::new(0u64);
        let mut put = |line: &Line| -> Result<()> {
            lines.set(lines.get() + 1);
            let failed = StoreError::io("write", Path::new("the export"));
            serde_json::to_writer(&mut *out, line)
                .map_err(std::io::Error::from)
                .and_then(|()| out.write_all(b"\n"))
                .map_err(failed)
        };
        put(&Line::TidemarkStore(FORMAT))?;
        let Some(checkpoint) = self.load() else {
            return Err(StoreError::Refused { message: "there is no checkpoint yet".into(), hint: None });
        };
        put(&Line::Checkpoint(checkpoint))?;
        let marks = self.shared.memory().all_marks();
        for (table, marks) in marks {
            moved.marks += marks.len() as u64;
            for part in marks.chunks(MARKS_PER_LINE) {
                let bytes: Vec<u8> = part.iter().flat_map(|mark| mark.to_be_bytes()).collect();
                put(&Line::Marks { table: table.clone(), base64: STANDARD_NO_PAD.encode(bytes) })?;
            }
        }
        let writer = self.shared.writer()?;
        let db = &writer.checkpoint.db;
        db.for_each(&[keys::OBLIGATION], |key, stored| {
            moved.obligations += 1;
            put(&Line::Obligation(changes::decode(db.path(), key, stored)?))
        })?;
        db.for_each(&[keys::LETTER], |key, stored| {
            moved.dead_letters += 1;
            put(&Line::DeadLetter(changes::decode(db.path(), key, stored)?))
        })?;
        drop(writer);
        if with_ledger {
            for (name, rule) in self.ledger.rules() {
                let mut after: Option<Box<str>> = None;
                loop {
                    let page = self.ledger.records(rule, after.as_deref(), RECORDS_AT_ONCE)?;
                    let Some(last) = page.last() else { break };
                    after = Some(last.external_id.clone());
                    for record in page {
                        moved.ledger_entries += 1;
                        put(&Line::Ledger(LedgerLine {
                            rule: name.clone(),
                            external_id: record.external_id.into(),
                            hash: record.entry.hash,
                            generation: record.entry.generation,
                            owner: record.entry.owner,
                        }))?;
                    }
                }
            }
        }
        put(&Line::End(lines.get()))?;
        Ok(moved)
    }

    /// Reads what [`Store::export`] wrote into a store that has no checkpoint yet.
    ///
    /// # Errors
    /// [`StoreError::Refused`] if there is a checkpoint, or if the lines are not a whole export. The checkpoint is saved
    /// last, all at once: after an error the store still has none.
    pub fn import(&self, input: &mut dyn BufRead) -> Result<Moved> {
        if self.load().is_some() {
            return Err(StoreError::Refused {
                message: format!("{} already holds a checkpoint", self.dir().display()),
                hint: Some("import into an empty state directory".into()),
            });
        }
        let (mut moved, mut lines, mut is_whole) = (Moved::default(), 0u64, false);
        let mut checkpoint = None;
        let mut step = Step::default();
        let mut marks: BTreeMap<String, Vec<u128>> = BTreeMap::new();
        let mut entries: Vec<LedgerLine> = Vec::new();
        let mut text = String::new();
        loop {
            text.clear();
            if input.read_line(&mut text).map_err(StoreError::io("read", Path::new("the import")))? == 0 {
                break;
            }
            let number = lines + 1;
            if is_whole {
                return Err(refuse(number, "there is more after the end"));
            }
            let line: Line = serde_json::from_str(&text).map_err(|_| refuse(number, "it cannot be understood"))?;
            match line {
                Line::TidemarkStore(FORMAT) if lines == 0 => {}
                Line::TidemarkStore(found) => return Err(refuse(number, &format!("format {found} is not known here"))),
                _ if lines == 0 => return Err(refuse(number, "this is not an export")),
                Line::Checkpoint(it) => checkpoint = Some(it),
                Line::Marks { table, base64 } => {
                    let bytes = STANDARD_NO_PAD.decode(base64).unwrap_or_default();
                    let (these, rest) = bytes.as_chunks::<16>();
                    if these.is_empty() || !rest.is_empty() {
                        return Err(refuse(number, "the marks are malformed"));
                    }
                    moved.marks += these.len() as u64;
                    marks.entry(table).or_default().extend(these.iter().map(|mark| u128::from_be_bytes(*mark)));
                }
                Line::Obligation(it) => step.put_obligations.push(it),
                Line::DeadLetter(it) => step.put_dead_letters.push(it),
                Line::Ledger(it) => {
                    moved.ledger_entries += 1;
                    entries.push(it);
                    if entries.len() == RECORDS_AT_ONCE {
                        self.put_entries(&std::mem::take(&mut entries))?;
                    }
                }
                Line::End(count) if count == lines => is_whole = true,
                Line::End(_) => return Err(refuse(number, "lines are missing before the end")),
            }
            lines += 1;
        }
        let Some(checkpoint) = checkpoint.filter(|_| is_whole) else {
            return Err(refuse(lines + 1, "the end is missing"));
        };
        self.put_entries(&entries)?;
        self.ledger.flush_durable()?;
        step.checkpoint = checkpoint;
        moved.obligations = step.put_obligations.len() as u64;
        moved.dead_letters = step.put_dead_letters.len() as u64;
        let mut writer = self.shared.writer()?;
        let events = writer.checkpoint.commit(&step, marks, self.ledger.sequence())?;
        if moved.ledger_entries == 0 {
            writer.checkpoint.set_ledger_lost(true, self.ledger.sequence())?;
        }
        self.shared.memory_mut().apply(events);
        self.shared.committed(&writer);
        Ok(moved)
    }

    fn put_entries(&self, lines: &[LedgerLine]) -> Result<()> {
        for of_rule in lines.chunk_by(|a, b| a.rule == b.rule) {
            let Some(first) = of_rule.first() else { continue };
            let rule = self.ledger.rule(&first.rule)?;
            let entry = |l: &LedgerLine| Entry { hash: l.hash, generation: l.generation, owner: l.owner.clone() };
            let entries: Vec<(&str, Entry)> = of_rule.iter().map(|l| (l.external_id.as_str(), entry(l))).collect();
            self.ledger.put_batch(rule, &entries)?;
        }
        Ok(())
    }
}

mod optional_row_key {
    use super::{RowKey, row_key};
    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(key: &Option<RowKey>, s: S) -> Result<S::Ok, S::Error> {
        match key {
            Some(key) => row_key::serialize(key, s),
            None => s.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<RowKey>, D::Error> {
        row_key::deserialize(d).map(Some)
    }
}
