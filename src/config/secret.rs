//! Secrets: the tenant file says where they are, never what they are.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// No secret is longer than this.
const MAX_BYTES: u64 = 64 * 1024;

/// A secret's text. Has neither `Debug` nor `Display` nor `Serialize`: there is no way to print it by accident (P8).
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret from its text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Where a secret is.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// A credential passed by systemd: `$CREDENTIALS_DIRECTORY/secret_<name>`, or `…/<name>`.
    Credential(String),
    /// A file that nobody but its owner can read.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

/// A secret that cannot be had. Says where it was looked for, never what was found.
#[derive(Debug)]
pub struct SecretError {
    message: String,
    /// What to do.
    pub hint: Option<String>,
    source: Option<io::Error>,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SecretError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}

fn refuse(message: String, hint: impl Into<String>) -> SecretError {
    SecretError { message, hint: Some(hint.into()), source: None }
}

impl SecretRef {
    /// Reads the secret. Line breaks at its end are not part of it.
    ///
    /// # Errors
    /// If it is not there, empty, not text, or in a file that others can read.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let text = match self {
            SecretRef::Env(name) => match std::env::var(name) {
                Ok(text) => text,
                Err(std::env::VarError::NotPresent) => {
                    return Err(refuse(format!("the environment variable {name} is not set"), "set it for the daemon"));
                }
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(refuse(format!("the environment variable {name} is not UTF-8"), "secrets are text"));
                }
            },
            SecretRef::File(path) => read_file(path, true)?,
            SecretRef::Credential(name) => {
                let Some(dir) = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from) else {
                    return Err(refuse(
                        format!("credential {name} is wanted, but $CREDENTIALS_DIRECTORY is not set"),
                        "credentials exist under systemd only (LoadCredential=); elsewhere use { file = \"PATH\" }",
                    ));
                };
                let candidates = [dir.join(format!("secret_{name}")), dir.join(name)];
                match candidates.iter().find(|path| path.exists()) {
                    Some(path) => read_file(path, false)?,
                    None => {
                        return Err(refuse(
                            format!("there is no credential {name}"),
                            format!(
                                "put the secret into a file called {name} in the directory that the unit's \
                                 LoadCredential=secret: names"
                            ),
                        ));
                    }
                }
            }
        };
        let text = text.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            return Err(refuse(format!("{self} is empty"), "write the secret into it"));
        }
        Ok(Secret(text.to_string()))
    }
}

/// `private`: refuse a file that others can read. (systemd guards its credentials itself; what their mode shows depends
/// on access lists.)
fn read_file(path: &Path, private: bool) -> Result<String, SecretError> {
    let failed = |source| SecretError {
        message: format!("the secret in {} cannot be read", path.display()),
        hint: None,
        source: Some(source),
    };
    let file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(refuse(format!("{} is not a regular file", path.display()), "name a file that holds the secret"));
    }
    let mode = meta.permissions().mode() & 0o777;
    if private && mode & 0o077 != 0 {
        return Err(refuse(
            format!("the secret in {} can be read by others (mode {mode:04o})", path.display()),
            format!("chmod 600 {}", path.display()),
        ));
    }
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_BYTES {
        return Err(refuse(format!("{} is larger than {MAX_BYTES} bytes", path.display()), "is it the right file?"));
    }
    Ok(text)
}

/// The place, never the secret.
impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::Credential(name) => write!(f, "credential {name}"),
            SecretRef::File(path) => write!(f, "file {}", path.display()),
            SecretRef::Env(name) => write!(f, "environment variable {name}"),
        }
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretRef({self})")
    }
}
