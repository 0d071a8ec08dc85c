//! What the ledger says, record by record, in the CRM's own order, from files: the ledger belongs to the daemon, or to
//! nobody only while its directory is held, so it is read quickly and looked at afterwards.

use crate::error::{DaemonKind, Error, Result};
use crate::mapping::Mapping;
use crate::verify::sort::{Item, Sorted, Sorter};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// What the CRM last accepted of one record for one rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// Place of the rule in the mapping.
    pub rule: u16,
    /// Hash of the document; 0 if it is not known.
    pub hash: u64,
}

/// Takes the ledger's entries in any order.
pub struct Spool {
    sorters: BTreeMap<Box<str>, Sorter>,
    rules: HashMap<Box<str>, (u16, Box<str>)>,
    /// Entries of each rule of the mapping.
    totals: Vec<u64>,
    gone: BTreeMap<String, u64>,
}

impl Spool {
    /// A spool for the rules of this mapping, holding about `memory` bytes and the rest in files in `dir`.
    pub fn new(mapping: &Mapping, dir: &Path, memory: usize) -> Self {
        let entities: Vec<Box<str>> = mapping.rules.iter().map(|rule| rule.entity.clone()).collect();
        let budget = memory / entities.len().max(1);
        Self {
            sorters: entities.into_iter().map(|entity| (entity, Sorter::new(dir, budget))).collect(),
            rules: mapping.rules.iter().map(|r| (r.name.clone(), (r.id.0, r.entity.clone()))).collect(),
            totals: vec![0; mapping.rules.len()],
            gone: BTreeMap::new(),
        }
    }

    /// Takes one entry of the rule called `rule`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn add(&mut self, rule: &str, external_id: &str, hash: u64) -> Result<()> {
        let Some((number, entity)) = self.rules.get(rule) else {
            *self.gone.entry(rule.to_owned()).or_default() += 1;
            return Ok(());
        };
        if let Some(total) = self.totals.get_mut(usize::from(*number)) {
            *total += 1;
        }
        let mut body = number.to_le_bytes().to_vec();
        body.extend_from_slice(&hash.to_le_bytes());
        let item = Item { key: external_id.as_bytes().into(), body: body.into() };
        match self.sorters.get_mut(entity) {
            Some(sorter) => sorter.push(item).map_err(failed),
            None => Ok(()),
        }
    }

    /// Everything that was taken, in order.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn finish(self) -> Result<Known> {
        let mut entities = BTreeMap::new();
        for (entity, sorter) in self.sorters {
            let mut records = KnownRecords { sorted: sorter.finish().map_err(failed)?, next: None };
            records.next = records.read()?;
            entities.insert(entity, records);
        }
        Ok(Known { entities, totals: self.totals, gone: self.gone })
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::new(DaemonKind::Failed, "cannot use a temporary file").caused_by(error)
}

/// What the ledger says.
pub struct Known {
    /// By entity.
    pub entities: BTreeMap<Box<str>, KnownRecords>,
    /// Entries of each rule of the mapping.
    pub totals: Vec<u64>,
    /// Entries of rules that the mapping no longer has.
    pub gone: BTreeMap<String, u64>,
}

/// The ledger's records of one entity, in the byte order of their external ids.
pub struct KnownRecords {
    sorted: Sorted,
    next: Option<(Box<str>, Accepted)>,
}

impl KnownRecords {
    fn read(&mut self) -> Result<Option<(Box<str>, Accepted)>> {
        let Some(item) = self.sorted.next() else { return Ok(None) };
        let item = item.map_err(failed)?;
        let entry = || {
            let (rule, hash) = item.body.split_first_chunk::<2>()?;
            let hash = u64::from_le_bytes(hash.try_into().ok()?);
            let id = std::str::from_utf8(&item.key).ok()?;
            Some((id.into(), Accepted { rule: u16::from_le_bytes(*rule), hash }))
        };
        entry().map(Some).ok_or_else(|| Error::new(DaemonKind::Bug, "a temporary file was not read as it was written"))
    }

    /// The external id of the next record.
    pub fn peek(&self) -> Option<&str> {
        self.next.as_ref().map(|(id, _)| &**id)
    }

    /// What is known of the next record.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn pop(&mut self) -> Result<Vec<Accepted>> {
        let Some((id, first)) = self.next.take() else { return Ok(Vec::new()) };
        let mut all = vec![first];
        self.next = self.read()?;
        while let Some((_, more)) = self.next.take_if(|(next, _)| *next == id) {
            all.push(more);
            self.next = self.read()?;
        }
        Ok(all)
    }
}
