//! The tenant file: read once into types that cannot be wrong.
//!
//! [`Config::load`] reads the file and reports everything that is wrong with it at once, each with its place, and never
//! with a secret's text: a secret that stands in the file is hidden before anything is shown. Secrets themselves are read
//! only when they are used ([`SecretRef::read`]), so that `check --offline` needs none and a rotated one is picked up.
//!
//! Every key is described in `docs/configuration.md`; a test compares the two.

mod parse;
mod read;
mod secret;
#[cfg(test)]
mod tests;
mod types;
mod values;

pub use secret::{Secret, SecretError, SecretRef};
pub use types::*;

use crate::crm;
use crate::diagnostics::{Diagnostics, SourceFile};
use crate::logging::LogFormat;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Directory of tenant files and packs, unless this environment variable names another one.
pub const DIRECTORY_VARIABLE: &str = "TIDEMARK_CONFIG_DIR";

/// Directory of tenant files and packs.
pub fn directory() -> PathBuf {
    std::env::var_os(DIRECTORY_VARIABLE).filter(|dir| !dir.is_empty()).map_or("/etc/tidemark".into(), PathBuf::from)
}

/// One tenant's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The tenant file.
    pub path: PathBuf,
    /// Its directory: what relative paths in it are relative to.
    pub dir: PathBuf,
    /// The tenant: 1–40 of `a-z 0-9 _`.
    pub tenant: String,
    /// The vendor's database.
    pub source: Source,
    /// Which pack, and what the tenant changes in it.
    pub mapping: Mapping,
    /// The CRM.
    pub crm: CrmConfig,
    /// How changes are sent.
    pub delivery: Delivery,
    /// How tables are read.
    pub snapshot: Snapshot,
    /// What is remembered, and what happens when it no longer fits.
    pub state: State,
    /// What can be seen from outside.
    pub observe: Observe,
    /// What the process may use.
    pub limits: Limits,
    /// Warnings about the file.
    pub warnings: Diagnostics,
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
        /// Tenants whose files are in the same directory.
        known: Vec<String>,
    },
    /// The file was read, and this is wrong with it.
    Wrong(Diagnostics),
}

impl ConfigError {
    /// What to do about it; what is wrong inside a file carries its own help.
    pub fn hint(&self) -> Option<String> {
        match self {
            ConfigError::Unreadable { source, known, path } => Some(match source.kind() {
                std::io::ErrorKind::NotFound if known.is_empty() => {
                    "name a file with --config PATH, or write one: see docs/configuration.md".into()
                }
                std::io::ErrorKind::NotFound => format!("tenants there: {}", known.join(", ")),
                std::io::ErrorKind::PermissionDenied => {
                    format!("the user that runs tidemark needs to read {}", path.display())
                }
                _ => return None,
            }),
            ConfigError::Wrong(_) => None,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unreadable { path, .. } => write!(f, "the tenant file {} cannot be read", path.display()),
            ConfigError::Wrong(found) => write!(f, "{found}"),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConfigError::Unreadable { source, .. } => Some(source),
            ConfigError::Wrong(_) => None,
        }
    }
}

impl Config {
    /// Reads the file of the tenant called `tenant`, or `file` if one is named.
    ///
    /// # Errors
    /// If it cannot be read, or says something wrong: everything that is wrong, at once.
    pub fn load(tenant: &str, file: Option<&Path>) -> Result<Self, ConfigError> {
        match file {
            Some(path) => Self::load_file(path),
            None => Self::load_file(&directory().join("tenants").join(format!("{tenant}.toml"))),
        }
    }

    /// Reads a tenant file.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_file(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text).map_err(ConfigError::Wrong),
            Err(source) => {
                let known = match source.kind() {
                    std::io::ErrorKind::NotFound => neighbours(path),
                    _ => Vec::new(),
                };
                Err(ConfigError::Unreadable { path: path.to_path_buf(), source, known })
            }
        }
    }

    /// Reads a tenant file's text. `path` is for messages, the tenant's default name, and relative paths.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Diagnostics> {
        parse::parse(path, text)
    }

    /// The settings in one line for the log: what is used, from where, to where. No secrets.
    pub fn summary(&self) -> String {
        format!(
            "tenant {}: {} as {} (tls {}) -> {} {}; mapping {}; state in {}",
            self.tenant,
            self.source.identity(),
            self.source.user,
            match self.source.tls.mode {
                TlsMode::Disable => "disable",
                TlsMode::Require => "require",
                TlsMode::VerifyCa => "verify-ca",
                TlsMode::VerifyFull => "verify-full",
            },
            self.crm.profile,
            self.crm.base_url,
            self.mapping.pack,
            self.state.dir.display(),
        )
    }
}

fn neighbours(path: &Path) -> Vec<String> {
    let Some(entries) = path.parent().and_then(|dir| std::fs::read_dir(dir).ok()) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_string()))
        .collect();
    names.sort();
    names.truncate(20);
    names
}
