//! One daemon per state directory (P9).

use super::error::{Result, StoreError};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Who takes the directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// For as long as it runs.
    Daemon,
    /// For moments; others wait for the end of it.
    Command,
}

/// How long a command's hold is waited for.
const BRIEFLY: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(10);

/// Holds the directory until it is dropped or the process ends, however it ends.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the directory, or says who has it. The kernel holds the lock, so a crashed daemon leaves none behind; the
    /// process number inside is for messages only.
    pub(super) fn take(dir: &Path, holder: Holder) -> Result<Self> {
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let begun = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    let mut text = String::new();
                    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
                    let mut words = text.split_whitespace();
                    let pid = read.ok().and_then(|_| words.next()?.parse().ok());
                    let patience = match words.next() {
                        Some(COMMAND) => BRIEFLY,
                        // A child that this process is just starting shares its open files, locks included, until it
                        // runs its own program: so a lock that seems to be ours may be gone in a moment.
                        _ if pid == Some(std::process::id()) => LOOK * 20,
                        // Whoever took it is just about to say who it is.
                        _ if pid.is_none() => LOOK * 20,
                        _ => Duration::ZERO,
                    };
                    if begun.elapsed() >= patience {
                        return Err(StoreError::Locked { dir: dir.to_path_buf(), pid });
                    }
                    std::thread::sleep(LOOK);
                }
                Err(TryLockError::Error(e)) => return Err(StoreError::io("lock", &path)(e)),
            }
        }
        let word = if holder == Holder::Command { COMMAND } else { "" };
        let text = format!("{} {word}", std::process::id());
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", text.trim_end()))
            .map_err(StoreError::io("write", &path))?;
        Ok(Self { _file: file })
    }
}

/// The word that stands beside a command's process number.
const COMMAND: &str = "command";
