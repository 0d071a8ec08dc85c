//! Sorting more records than memory holds: sorted runs in unnamed files, merged while they are read.
//!
//! The files have no names: they are gone when the process is, however it ends, and nobody else can open them (they hold
//! row values).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::vec::IntoIter;

/// So many runs are merged at once; more are first merged into longer ones. Each costs a read buffer and a file.
const FAN_IN: usize = 64;
const READ_BUFFER: usize = 64 * 1024;

/// A record to be sorted by its key's bytes, then by its body's.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Item {
    /// What is sorted by.
    pub key: Box<[u8]>,
    /// What comes along.
    pub body: Box<[u8]>,
}

impl Item {
    fn memory(&self) -> usize {
        self.key.len() + self.body.len() + size_of::<Item>() + 32
    }

    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        for part in [&self.key, &self.body] {
            let len = u32::try_from(part.len()).map_err(|_| io::Error::other("a record of more than 4 GiB"))?;
            to.write_all(&len.to_le_bytes())?;
            to.write_all(part)?;
        }
        Ok(())
    }

    /// `None` at the end of the run.
    fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut len = [0; 4];
        match from.read_exact(&mut len) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let key = read_bytes(from, len)?;
        from.read_exact(&mut len)?;
        Ok(Some(Self { key, body: read_bytes(from, len)? }))
    }
}

fn read_bytes(from: &mut impl Read, len: [u8; 4]) -> io::Result<Box<[u8]>> {
    let mut bytes = vec![0; u32::from_le_bytes(len) as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes.into())
}

/// Takes records in any order.
pub struct Sorter {
    dir: PathBuf,
    budget: usize,
    held: Vec<Item>,
    memory: usize,
    runs: Vec<File>,
}

impl Sorter {
    /// A sorter that holds about `budget` bytes in memory and the rest in files in `dir`.
    pub fn new(dir: &Path, budget: usize) -> Self {
        Self { dir: dir.into(), budget, held: Vec::new(), memory: 0, runs: Vec::new() }
    }

    /// Takes one record.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn push(&mut self, item: Item) -> io::Result<()> {
        self.memory += item.memory();
        self.held.push(item);
        if self.memory >= self.budget {
            self.spill()?;
        }
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        let mut held = std::mem::take(&mut self.held);
        self.memory = 0;
        held.sort_unstable();
        let run = write_run(&self.dir, held.into_iter().map(Ok))?;
        self.runs.push(run);
        if self.runs.len() >= FAN_IN {
            let merged = Sorted::over(std::mem::take(&mut self.runs), Vec::new())?;
            self.runs.push(write_run(&self.dir, merged)?);
        }
        Ok(())
    }

    /// All records in order.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn finish(mut self) -> io::Result<Sorted> {
        let mut held = std::mem::take(&mut self.held);
        held.sort_unstable();
        Sorted::over(self.runs, held)
    }
}

fn write_run(dir: &Path, items: impl Iterator<Item = io::Result<Item>>) -> io::Result<File> {
    let mut file = BufWriter::with_capacity(READ_BUFFER, tempfile::tempfile_in(dir)?);
    for item in items {
        item?.write(&mut file)?;
    }
    let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(file)
}

/// Records in order, read from runs as they are asked for.
pub struct Sorted {
    runs: Vec<BufReader<File>>,
    held: IntoIter<Item>,
    /// The next record of each run; the number past the runs is the one in memory.
    heap: BinaryHeap<Reverse<(Item, usize)>>,
}

impl Sorted {
    fn over(runs: Vec<File>, held: Vec<Item>) -> io::Result<Self> {
        let runs: Vec<_> = runs.into_iter().map(|f| BufReader::with_capacity(READ_BUFFER, f)).collect();
        let mut this = Self { runs, held: held.into_iter(), heap: BinaryHeap::new() };
        for source in 0..=this.runs.len() {
            this.refill(source)?;
        }
        Ok(this)
    }

    fn refill(&mut self, source: usize) -> io::Result<()> {
        let next = match self.runs.get_mut(source) {
            Some(run) => Item::read(run)?,
            None => self.held.next(),
        };
        if let Some(item) = next {
            self.heap.push(Reverse((item, source)));
        }
        Ok(())
    }
}

impl Iterator for Sorted {
    type Item = io::Result<Item>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((item, source)) = self.heap.pop()?;
        match self.refill(source) {
            Ok(()) => Some(Ok(item)),
            Err(e) => Some(Err(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    fn item(key: u32, body: usize) -> Item {
        Item { key: key.to_be_bytes().into(), body: vec![7; body].into() }
    }

    #[test]
    fn what_goes_in_comes_out_in_order_whatever_the_budget() {
        let mut dice = StdRng::seed_from_u64(1);
        let keys: Vec<u32> = (0..5000).map(|_| dice.random_range(0..2000)).collect();
        for budget in [1 << 30, 20_000, 2_000] {
            let mut sorter = Sorter::new(&std::env::temp_dir(), budget);
            for key in &keys {
                sorter.push(item(*key, *key as usize % 50)).expect("pushed");
            }
            assert!(sorter.runs.len() < FAN_IN, "{} files", sorter.runs.len());
            assert_eq!(sorter.runs.is_empty(), budget == 1 << 30);
            let out: Vec<Item> = sorter.finish().expect("sorted").map(|i| i.expect("read")).collect();
            let mut expected: Vec<Item> = keys.iter().map(|k| item(*k, *k as usize % 50)).collect();
            expected.sort();
            assert!(out == expected, "budget {budget}");
        }
    }

    #[test]
    fn empty_parts_survive_a_file() {
        let mut sorter = Sorter::new(&std::env::temp_dir(), 1);
        sorter.push(Item { key: Box::default(), body: Box::default() }).expect("pushed");
        sorter.push(item(1, 0)).expect("pushed");
        let out: Vec<Item> = sorter.finish().expect("sorted").map(|i| i.expect("read")).collect();
        assert_eq!(out.len(), 2);
        assert!(out[0].key.is_empty() && out[1].key.len() == 4);
    }
}
