//! The ledger's pages in sled, and how changes get into them.

use super::arena::{Arena, Change, Space};
use super::page::{Entries, Page};
use super::{Damage, value};
use crate::store::db::{Database, Writes};
use crate::store::error::{Result, StoreError};
use crate::store::frame;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub(super) const PAGE: u8 = b'p';
pub(super) const SUMMARY: &[u8] = b"g";

/// sled lets nobody else in (the checkpoint's database included) while it applies a batch: so batches are small.
const STEP_BYTES: usize = 128 * 1024;
/// Most changes to one page at a time.
const CHANGES: usize = 4096;
/// sled writes in the background and would keep any number of buffers waiting: it is made to catch up every so many
/// bytes.
const UNWRITTEN_BYTES: usize = 1 << 20;

/// What is known of all pages together; written with every change of any of them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Summary {
    /// Sum of the pages' checksums: a page that vanished or went back to an older content is noticed on opening.
    pub(super) digest: u64,
    /// Entries by rule.
    pub(super) counts: BTreeMap<u16, u64>,
    /// Number of the first part of the log that is not in the pages.
    pub(super) first_part: u64,
}

impl Summary {
    pub(super) fn write(&self) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
        let json = serde_json::to_vec(self).map_err(|e| StoreError::Bug(e.to_string()))?;
        Ok((SUMMARY.to_vec(), Some(frame::seal(SUMMARY, &json))))
    }
}

/// A page as it was read: its checksum is right.
#[derive(Clone)]
pub(super) struct Loaded {
    space: Space,
    lower: Vec<u8>,
    upper: Option<Vec<u8>>,
    stored: Option<sled::IVec>,
}

impl Loaded {
    pub(super) fn covers(&self, space: Space, key: &[u8]) -> bool {
        self.space == space && *self.lower <= *key && self.upper.as_deref().is_none_or(|upper| key < upper)
    }

    pub(super) fn page(&self) -> Result<Page<'_>, Damage> {
        match &self.stored {
            Some(stored) => Ok(Page::read(frame::payload(stored))?),
            None => Ok(Page::EMPTY),
        }
    }

    pub(super) fn upper(&self) -> Option<&[u8]> {
        self.upper.as_deref()
    }
}

fn key_of(space: Space, lower: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + lower.len());
    key.push(PAGE);
    key.extend_from_slice(&space.to_bytes());
    key.extend_from_slice(lower);
    key
}

/// The page that `key` belongs to; an empty one without bounds if the space has none yet.
pub(super) fn load(db: &Database, space: Space, key: &[u8]) -> Result<Loaded> {
    let damaged = |what: &str| StoreError::damaged(db.path(), what);
    let prefix = key_of(space, b"");
    let Some((found, stored)) = db.floor(&prefix, &key_of(space, key))? else {
        return Ok(Loaded { space, lower: Vec::new(), upper: None, stored: None });
    };
    let payload = frame::unseal(&found, &stored).map_err(damaged)?;
    let upper = Page::read(payload).map_err(|_| damaged("a page cannot be read"))?.upper().map(<[u8]>::to_vec);
    let lower = found.get(prefix.len()..).unwrap_or_default().to_vec();
    let loaded = Loaded { space, lower, upper, stored: Some(stored) };
    if loaded.covers(space, key) { Ok(loaded) } else { Err(damaged("a page is missing")) }
}

/// Brings the changes of `arena` into the pages, a few at a time: each step is atomic, and doing it again from the
/// beginning has the same result.
pub(super) fn merge(db: &Database, arena: &Arena, summary: &mut Summary) -> Result<()> {
    let places = arena.sorted();
    let mut changes = places.iter().filter_map(|place| arena.at(*place)).peekable();
    let (mut these, mut entries) = (Vec::new(), Entries::default());
    let mut step = Step::default();
    while let Some((space, key, _)) = changes.peek() {
        let page = load(db, *space, key)?;
        these.clear();
        while these.len() < CHANGES
            && let Some(change) = changes.next_if(|(space, key, _)| page.covers(*space, key))
        {
            these.push(change);
        }
        let is_split = changes.peek().is_some_and(|(space, key, _)| page.covers(*space, key));
        let damaged = |_: Damage| StoreError::damaged(db.path(), "a page cannot be read");
        merge_page(&page, &these, &mut entries, &mut step, summary).map_err(damaged)?;
        // A page that gets more changes is read again, as the pages it has become.
        if is_split || step.bytes > STEP_BYTES {
            step.apply(db, summary)?;
        }
    }
    step.apply(db, summary)
}

#[derive(Default)]
struct Step {
    writes: Writes,
    bytes: usize,
    unwritten: usize,
}

impl Step {
    fn apply(&mut self, db: &Database, summary: &Summary) -> Result<()> {
        let mut writes = std::mem::take(&mut self.writes);
        self.unwritten += std::mem::take(&mut self.bytes);
        if writes.is_empty() {
            return Ok(());
        }
        writes.push(summary.write()?);
        db.apply(writes)?;
        if self.unwritten > UNWRITTEN_BYTES {
            self.unwritten = 0;
            db.flush()?;
        }
        Ok(())
    }
}

fn merge_page(
    page: &Loaded,
    changes: &[(Space, &[u8], Change<'_>)],
    entries: &mut Entries,
    step: &mut Step,
    summary: &mut Summary,
) -> Result<(), Damage> {
    entries.clear();
    let mut changes = changes.iter().peekable();
    let first = changes.peek().map(|(_, key, _)| key.to_vec()).unwrap_or_default();
    let (mut before, mut appended, mut broken) = (0u64, true, false);
    let put_new = |entries: &mut Entries, key: &[u8], change: &Change<'_>| {
        if let Change::Put(value) = change {
            entries.push(key, value);
        }
    };
    page.page()?.for_each(|key, old| {
        before += 1;
        appended &= key < first.as_slice();
        while let Some((_, changed, change)) = changes.next_if(|(_, changed, _)| *changed < key) {
            put_new(entries, changed, change);
        }
        match changes.next_if(|(_, changed, _)| *changed == key) {
            None => entries.push(key, old),
            Some((_, _, Change::Put(new))) => entries.push(key, new),
            Some((_, _, Change::Touch(generation))) => match value::touched(old, *generation) {
                Some(new) => entries.push(key, &new),
                None => broken = true,
            },
            Some((_, _, Change::Remove)) => {}
        }
    })?;
    for (_, key, change) in changes {
        put_new(entries, key, change);
    }
    if broken {
        return Err(Damage);
    }
    if !page.space.is_owner {
        let count = summary.counts.entry(page.space.rule).or_default();
        *count = (*count + entries.len() as u64).saturating_sub(before);
    }
    if let Some(old) = &page.stored {
        summary.digest = summary.digest.wrapping_sub(frame::digest(old));
    }
    for (lower, bytes) in entries.to_pages(&page.lower, page.upper.as_deref(), appended && page.upper.is_none()) {
        let key = key_of(page.space, &lower);
        let stored = frame::seal(&key, &bytes);
        summary.digest = summary.digest.wrapping_add(frame::digest(&stored));
        step.bytes += key.len() + stored.len();
        step.writes.push((key, Some(stored)));
    }
    Ok(())
}
