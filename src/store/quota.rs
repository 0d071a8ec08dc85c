//! Requests made on the present day (UTC), beside the databases: a restart does not begin the day's quota anew.
//!
//! Not part of a step: it is counted, not owed. The file is replaced whole; what it lacks after kill -9 is the requests of
//! the last fraction of a second.

use std::fs;
use std::path::{Path, PathBuf};

/// The count of a tenant's state directory.
#[derive(Debug)]
pub struct DailyUse {
    path: PathBuf,
    written: (u64, u64),
}

impl DailyUse {
    /// The count kept in this state directory.
    pub fn of(state_dir: &Path) -> Self {
        Self { path: state_dir.join("requests-today"), written: (0, 0) }
    }

    /// Day (since 1970) and requests made on it, as last written; zeros if there is nothing that can be read.
    pub fn read(&self) -> (u64, u64) {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let mut numbers = text.split_whitespace().map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(day)), Some(Ok(used))) => (day, used),
            _ => (0, 0),
        }
    }

    /// Writes the count if it has changed.
    ///
    /// # Errors
    /// If the file cannot be written; the count goes on in memory.
    pub fn write(&mut self, day: u64, used: u64) -> std::io::Result<()> {
        if self.written == (day, used) {
            return Ok(());
        }
        let new = self.path.with_extension("new");
        fs::write(&new, format!("{day} {used}\n"))?;
        fs::rename(&new, &self.path)?;
        self.written = (day, used);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_outlasts_its_process_and_damage_is_no_count() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut today = DailyUse::of(dir.path());
        assert_eq!(today.read(), (0, 0));
        today.write(20_000, 17).expect("written");
        today.write(20_000, 17).expect("nothing to do");
        assert_eq!(DailyUse::of(dir.path()).read(), (20_000, 17));
        fs::write(dir.path().join("requests-today"), "20000 x").expect("written");
        assert_eq!(today.read(), (0, 0));
    }
}
