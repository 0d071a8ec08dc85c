//! One daemon per state directory (P9).

use super::error::{Result, StoreError};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

/// Holds the directory until it is dropped or the process ends, however it ends.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the directory, or says who has it. The kernel holds the lock, so a crashed daemon leaves none behind; the
    /// process number inside is for messages only.
    pub(super) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        // A child that this process is just starting shares its open files, locks included, until it runs its own
        // program: so a lock that seems to be ours may be gone in a moment.
        let mut left = 20;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
                    let pid = read.ok().and_then(|_| text.trim().parse().ok());
                    if pid != Some(std::process::id()) || left == 0 {
                        return Err(StoreError::Locked { dir: dir.to_path_buf(), pid });
                    }
                    left -= 1;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(TryLockError::Error(e)) => return Err(StoreError::io("lock", &path)(e)),
            }
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(StoreError::io("write", &path))?;
        Ok(Self { _file: file })
    }
}
