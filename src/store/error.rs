//! What can go wrong with the store, and what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Result of store calls.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// An error of the store. Paths and counts only: never a key or a value (P8).
#[derive(Debug)]
pub enum StoreError {
    /// Another process holds the state directory (P9).
    Locked {
        /// The state directory.
        dir: PathBuf,
        /// The process that holds it, if it could be told.
        pid: Option<u32>,
    },
    /// What was read is not what was written.
    Damaged {
        /// The database or file.
        path: PathBuf,
        /// What was observed.
        detail: String,
        /// Whether `checkpoint recover` can help.
        recoverable: bool,
    },
    /// Written by a newer version of the program.
    TooNew {
        /// The database or file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this program reads.
        supported: u32,
    },
    /// The operating system refused.
    Io {
        /// What was being done ("write", "create").
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The request makes no sense in the store's present state.
    Refused {
        /// Why.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A broken assumption of this program.
    Bug(String),
}

/// What a [`StoreError::Io`] is about, as far as the operating system tells.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IoTrouble {
    /// No space, quota or file size left: waiting may help.
    Full,
    /// Missing rights.
    Denied,
    /// The file system is read-only.
    ReadOnly,
    /// The directory does not exist and cannot be made.
    Missing,
    /// Anything else.
    Other,
}

impl StoreError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| StoreError::Io { action, path, source }
    }

    pub(super) fn damaged(path: &Path, detail: impl Into<String>) -> Self {
        StoreError::Damaged { path: path.to_path_buf(), detail: detail.into(), recoverable: false }
    }

    /// What an input/output error is about; `None` for the other kinds.
    pub fn trouble(&self) -> Option<IoTrouble> {
        let StoreError::Io { source, .. } = self else { return None };
        Some(match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => IoTrouble::Full,
            io::ErrorKind::PermissionDenied => IoTrouble::Denied,
            io::ErrorKind::ReadOnlyFilesystem => IoTrouble::ReadOnly,
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => IoTrouble::Missing,
            _ => IoTrouble::Other,
        })
    }

    /// Whether the same call may succeed later without anybody changing the configuration.
    pub fn is_transient(&self) -> bool {
        matches!(self.trouble(), Some(IoTrouble::Full | IoTrouble::Other))
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            StoreError::Locked { pid: Some(pid), .. } => {
                Some(format!("process {pid} serves this tenant; stop it first, or talk to it through its admin socket"))
            }
            StoreError::Locked { pid: None, .. } => {
                Some("stop the daemon that serves this tenant, or give this one a state directory of its own".into())
            }
            StoreError::Damaged { recoverable: true, .. } => Some(
                "`tidemark checkpoint recover TENANT` starts a new database from the side copy: the position is kept, \
                 and every table is read again (only differences are sent)"
                    .into(),
            ),
            StoreError::Damaged { path, .. } if path.ends_with("ledger") => Some(
                "start again: the ledger is then set aside and filled by a full pass, which costs requests and nothing else"
                    .into(),
            ),
            StoreError::Damaged { recoverable: false, .. } => Some(
                "restore the state directory from a backup, or move it away to begin again with a full snapshot".into(),
            ),
            StoreError::TooNew { .. } => Some(
                "run the version that wrote it; going back to an older version needs the state directory of that time"
                    .into(),
            ),
            StoreError::Io { path, .. } => Some(match self.trouble()? {
                IoTrouble::Full => {
                    format!("free space for {}; nothing was acknowledged past what is saved", path.display())
                }
                IoTrouble::Denied => {
                    format!("the user that runs tidemark needs read and write access to {}", path.display())
                }
                IoTrouble::ReadOnly => {
                    "mount it read-write, or name another directory with [state] dir (under systemd: StateDirectory=)"
                        .into()
                }
                IoTrouble::Missing => "create it, or name another directory with [state] dir".into(),
                IoTrouble::Other => return None,
            }),
            StoreError::Refused { hint, .. } => hint.clone(),
            StoreError::Bug(_) => None,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Locked { dir, pid: Some(pid) } => {
                write!(f, "another process (pid {pid}) holds the state directory {}", dir.display())
            }
            StoreError::Locked { dir, pid: None } => {
                write!(f, "another process holds the state directory {}", dir.display())
            }
            StoreError::Damaged { path, detail, .. } => write!(f, "{} is damaged: {detail}", path.display()),
            StoreError::TooNew { path, found, supported } => {
                write!(f, "{} has format {found}, this version reads up to format {supported}", path.display())
            }
            StoreError::Io { action, path, .. } => write!(f, "cannot {action} {}", path.display()),
            StoreError::Refused { message, .. } => f.write_str(message),
            StoreError::Bug(message) => write!(f, "store: {message}"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StoreError::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
