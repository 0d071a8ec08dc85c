//! One sled database, with its panics caught and its writes made durable.
//!
//! Two things about sled 0.34.7 shape this file. It panics on some kinds of damage, so every call runs inside
//! `catch_unwind` and a panic is [`StoreError::Damaged`]. And its `flush` ends in `sync_file_range` on Linux, which
//! writes neither the file's length nor the disk's cache: [`Database::flush_durable`] therefore calls `fdatasync` on
//! the log file afterwards (the same inode, so it covers sled's writes).

use super::error::{Result, StoreError};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, PermissionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Values above this would leave sled's log for a file of their own (it allows a quarter of a 512 KiB segment).
pub(super) const MAX_VALUE: usize = 96 * 1024;

/// sled's segments: its log file grows by these.
const SEGMENT: u64 = 512 * 1024;

/// A list of writes that happen together.
pub(super) type Writes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A key and its stored value.
pub(super) type Pair = (sled::IVec, sled::IVec);

/// One tree in one sled database.
pub(super) struct Database {
    path: PathBuf,
    cache: u64,
    handles: std::result::Result<Handles, Closed>,
    /// The log file is written up to here at least.
    prepared: u64,
}

/// Why a database is closed: opening it again failed for this reason.
#[derive(Clone, Copy)]
struct Closed(io::ErrorKind);

struct Handles {
    db: sled::Db,
    tree: sled::Tree,
    log: File,
}

impl Database {
    /// Opens the database in `path`, creating it if the directory is not there. `cache` is sled's cache in bytes.
    pub(super) fn open(path: &Path, cache: u64) -> Result<Self> {
        let handles = Err(Closed(io::ErrorKind::NotConnected));
        let mut this = Self { path: path.to_path_buf(), cache, handles, prepared: 0 };
        this.handles = Ok(this.connect()?);
        this.flush_durable()?;
        sync_dir(path)?;
        if let Some(parent) = path.parent() {
            sync_dir(parent)?;
        }
        Ok(this)
    }

    /// Opens the database again: after an input/output error sled answers nothing but that error. What was not durable
    /// may be gone.
    pub(super) fn reopen(&mut self) -> Result<()> {
        // Closed first: sled's lock allows no second one.
        self.handles = Err(Closed(io::ErrorKind::NotConnected));
        match self.connect() {
            Ok(handles) => self.handles = Ok(handles),
            Err(e) => {
                if let StoreError::Io { source, .. } = &e {
                    self.handles = Err(Closed(source.kind()));
                }
                return Err(e);
            }
        }
        self.flush_durable()
    }

    fn connect(&self) -> Result<Handles> {
        // Threads of sled's own may hold the file, and with it the lock, a moment after the database was closed.
        let mut left = 50;
        loop {
            match self.try_connect() {
                Err(StoreError::Io { source, .. }) if left > 0 && source.to_string().contains("acquire lock") => {
                    left -= 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
                result => return result,
            }
        }
    }

    fn try_connect(&self) -> Result<Handles> {
        let path = &self.path;
        create_dir(path)?;
        let config = sled::Config::new().path(path).cache_capacity(self.cache).flush_every_ms(None);
        let (db, tree) = guarded(path, || {
            let db = config.open()?;
            let tree = db.open_tree("tidemark")?;
            Ok((db, tree))
        })?;
        let log_path = path.join("db");
        let log = File::options().read(true).write(true).open(&log_path).map_err(StoreError::io("open", &log_path))?;
        for name in ["db", "conf"] {
            let file = path.join(name);
            fs::set_permissions(&file, Permissions::from_mode(0o600)).map_err(StoreError::io("protect", &file))?;
        }
        Ok(Handles { db, tree, log })
    }

    fn handles(&self) -> Result<&Handles> {
        self.handles.as_ref().map_err(|Closed(kind)| {
            StoreError::io("use", &self.path)(io::Error::new(*kind, "it could not be opened again after an error"))
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>> {
        self.guard(|h| h.tree.get(key))
    }

    /// The entry with the largest key at or below `key`, if that key begins with `prefix`.
    pub(super) fn floor(&self, prefix: &[u8], key: &[u8]) -> Result<Option<Pair>> {
        self.guard(|h| match h.tree.range::<&[u8], _>(prefix..=key).next_back() {
            Some(pair) => pair.map(Some),
            None => Ok(None),
        })
    }

    /// Up to `limit` entries whose keys begin with `prefix`, from `from` on (inclusive), in key order.
    pub(super) fn scan(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Vec<Pair>> {
        self.guard(|h| {
            h.tree
                .range::<&[u8], _>(from..)
                .take_while(|pair| pair.as_ref().map_or(true, |(key, _)| key.starts_with(prefix)))
                .take(limit)
                .collect()
        })
    }

    /// Calls `f` with every entry whose key begins with `prefix`, in key order, a thousand at a time.
    pub(super) fn for_each(&self, prefix: &[u8], mut f: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        let mut from = prefix.to_vec();
        loop {
            let page = self.scan(prefix, &from, 1000)?;
            for (key, value) in &page {
                f(key, value)?;
            }
            match page.last() {
                Some((key, _)) if page.len() == 1000 => {
                    from = key.to_vec();
                    from.push(0);
                }
                _ => return Ok(()),
            }
        }
    }

    /// Whether the tree holds nothing at all.
    pub(super) fn is_empty(&self) -> Result<bool> {
        Ok(self.scan(b"", b"", 1)?.is_empty())
    }

    /// Applies `writes` atomically; durable only after [`Database::flush_durable`].
    pub(super) fn apply(&self, writes: Writes) -> Result<()> {
        let mut batch = sled::Batch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.guard(|h| h.tree.apply_batch(batch))
    }

    /// Returns when sled has written everything applied so far, which need not be on the disk.
    pub(super) fn flush(&self) -> Result<()> {
        self.guard(|h| h.db.flush()).map(drop)
    }

    /// Returns when everything applied so far is on the disk.
    pub(super) fn flush_durable(&self) -> Result<()> {
        self.guard(|h| h.db.flush())?;
        self.handles()?.log.sync_data().map_err(StoreError::io("sync", &self.path.join("db")))
    }

    /// Makes the log file `ahead` bytes longer if it has come to its end. As long as sled writes into blocks that the
    /// file system has given out already, syncing has no metadata to write and takes a tenth of the time. To sled, zeros
    /// are free segments. Only to be called when nothing is being written.
    pub(super) fn prepare(&mut self, ahead: u64) -> Result<()> {
        let path = self.path.join("db");
        let prepared = self.prepared;
        let failed = StoreError::io("write", &path);
        let log = &self.handles()?.log;
        let len = log.metadata().map_err(StoreError::io("look at", &path))?.len();
        if len > prepared {
            let end = (len + ahead).next_multiple_of(SEGMENT);
            let zeros = vec![0; 64 * 1024];
            let mut at = len;
            let mut extend = || {
                while at < end {
                    let part = zeros.get(..usize::try_from(end - at).unwrap_or(usize::MAX)).unwrap_or(&zeros);
                    log.write_all_at(part, at)?;
                    at += part.len() as u64;
                }
                log.sync_all()
            };
            extend().map_err(failed)?;
            self.prepared = end;
        }
        Ok(())
    }

    /// Bytes on disk.
    pub(super) fn size_on_disk(&self) -> Result<u64> {
        self.guard(|h| h.db.size_on_disk())
    }

    fn guard<T>(&self, f: impl FnOnce(&Handles) -> sled::Result<T>) -> Result<T> {
        let handles = self.handles()?;
        guarded(&self.path, || f(handles))
    }
}

fn guarded<T>(path: &Path, f: impl FnOnce() -> sled::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(translate(path, e)),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(StoreError::damaged(path, format!("the database gave up: {}", first_line(text))))
        }
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

fn translate(path: &Path, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(e) => StoreError::io("read or write", path)(restore_kind(e)),
        sled::Error::Corruption { .. } => StoreError::damaged(path, "a page does not match its checksum"),
        sled::Error::Unsupported(what) => StoreError::damaged(path, first_line(&what)),
        sled::Error::ReportableBug(what) => StoreError::damaged(path, first_line(&what)),
        sled::Error::CollectionNotFound(_) => StoreError::Bug("a tree is missing".into()),
    }
}

/// sled copies input/output errors by kind and text; where the kind got lost, the text still has the number.
fn restore_kind(error: io::Error) -> io::Error {
    let text = error.to_string();
    let number = text.rsplit_once("(os error ").and_then(|(_, rest)| rest.split(')').next()?.parse().ok());
    match (error.raw_os_error(), number) {
        (None, Some(number)) => io::Error::from_raw_os_error(number),
        _ => error,
    }
}

/// Creates `path` for the owner alone, parents included, if it is not there.
pub(super) fn create_dir(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StoreError::io("create", path))
}

/// Makes the directory's entries durable.
pub(super) fn sync_dir(path: &Path) -> Result<()> {
    let shown = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(shown).and_then(|dir| dir.sync_all()).map_err(StoreError::io("sync", shown))
}
