//! Real database servers for tests and for `tidemark demo`: started in a private directory on a free loopback port, and
//! gone without a trace when the value is dropped.
//!
//! Three things see to the cleaning up, because the owner may die in any way:
//! 1. `Drop` stops the server and removes its directory;
//! 2. a watcher process holds the read end of a pipe whose write end only the owner has: when the owner is killed, even
//!    with SIGKILL, the pipe closes and the watcher stops the server and removes the directory;
//! 3. each start looks for directories whose owner no longer lives (the watcher may have been killed too) and sweeps them.
//!
//! Everything here blocks; async callers start servers through `spawn_blocking` or before their runtime matters. Nothing
//! listens anywhere but on 127.0.0.1 and on a unix socket inside the private directory.

mod certs;
mod home;
mod mysql;
mod postgres;

pub use certs::Certificates;
pub use mysql::{MysqlCluster, MysqlFlavour, MysqlOptions};
pub use postgres::{Auth, PostgresCluster, PostgresOptions};

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Why a throwaway server could not be started or asked. The text says what to install or look at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is not installed.
    #[error("`{program}` was not found ({looked_in}); {advice}")]
    Missing {
        /// The program.
        program: String,
        /// Where it was looked for.
        looked_in: String,
        /// How to get it.
        advice: String,
    },
    /// A program ended with an error.
    #[error("{what} failed: {details}")]
    Failed {
        /// What was being done.
        what: String,
        /// What the program printed.
        details: String,
    },
    /// The server did not become ready in time.
    #[error("{what} was not ready after {seconds} s; its log ends with:\n{log}")]
    NotReady {
        /// The server.
        what: String,
        /// How long we waited.
        seconds: u64,
        /// The end of its log.
        log: String,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The refusal.
        source: std::io::Error,
    },
}

/// Result of this crate's calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Turns an I/O error into one that says what was being done.
fn doing<T>(what: impl Into<String>, result: std::io::Result<T>) -> Result<T> {
    result.map_err(|source| Error::Io { what: what.into(), source })
}

/// Runs a program to its end; its output on standard error becomes the error's text.
fn run(what: &str, command: &mut Command) -> Result<Output> {
    let output = doing(format!("starting {}", command.get_program().display()), command.output())?;
    if output.status.success() {
        return Ok(output);
    }
    let mut details = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if details.is_empty() {
        details = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    }
    Err(Error::Failed { what: what.to_owned(), details: format!("{details} ({})", output.status) })
}

/// The first directory of `PATH` that holds `program`.
fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|dir| dir.join(program).is_file())
}

/// The last `lines` lines of a file; empty if it cannot be read.
fn tail_of(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// A port on 127.0.0.1 that nobody listens on just now.
fn free_port() -> Result<u16> {
    let listener = doing("looking for a free port", std::net::TcpListener::bind(("127.0.0.1", 0)))?;
    Ok(doing("looking for a free port", listener.local_addr())?.port())
}
