//! Few kinds of errors, each with its own reaction (the reaction is the daemon's business, not a connector's).

use std::fmt;

/// What happened, told by what has to be done about it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ErrorKind {
    /// The server cannot be reached, or the connection broke: trying again may help.
    Unreachable,
    /// The server refused the credentials: trying again may lock the account.
    AuthRefused,
    /// A right is missing.
    PermissionMissing,
    /// A setting of the server or of the tenant is wrong.
    SettingWrong,
    /// The log no longer reaches back to the position, or is another log (P4).
    PositionLost,
    /// The table changed so that it cannot be read as requested.
    SchemaChanged,
    /// Bytes or a message that this connector cannot decode (P5).
    Undecodable,
    /// The operation was cancelled.
    Cancelled,
    /// A broken assumption inside the connector.
    Bug,
}

impl ErrorKind {
    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Unreachable => "unreachable",
            ErrorKind::AuthRefused => "auth_refused",
            ErrorKind::PermissionMissing => "permission_missing",
            ErrorKind::SettingWrong => "setting_wrong",
            ErrorKind::PositionLost => "position_lost",
            ErrorKind::SchemaChanged => "schema_changed",
            ErrorKind::Undecodable => "undecodable",
            ErrorKind::Cancelled => "cancelled",
            ErrorKind::Bug => "bug",
        }
    }
}

/// An error of a connector: what was observed, what was wanted, what to do. Holds no row values and no secrets (R9).
#[derive(Debug)]
pub struct SourceError {
    /// What happened, told by what has to be done about it.
    pub kind: ErrorKind,
    /// What was observed, and what was wanted instead.
    pub message: String,
    /// What to do, if there is something to do: a sentence or the exact statement.
    pub hint: Option<String>,
    /// The cause, if another error lies below.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl SourceError {
    /// An error with neither hint nor cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| &**e as &(dyn std::error::Error + 'static))
    }
}

/// Result of connector calls.
pub type Result<T, E = SourceError> = std::result::Result<T, E>;

/// The connection cannot be made, or broke.
pub fn unreachable(message: impl Into<String>) -> SourceError {
    SourceError::new(ErrorKind::Unreachable, message)
}

/// Bytes that are not what the protocol says.
pub fn undecodable(message: impl Into<String>) -> SourceError {
    SourceError::new(ErrorKind::Undecodable, message)
}

/// A setting of the server or of the tenant that does not fit.
pub fn setting_wrong(message: impl Into<String>) -> SourceError {
    SourceError::new(ErrorKind::SettingWrong, message)
}

/// A table that is not as it was.
pub fn changed(message: impl Into<String>) -> SourceError {
    SourceError::new(ErrorKind::SchemaChanged, message)
}

/// A broken assumption of a connector.
pub fn bug(message: impl Into<String>) -> SourceError {
    SourceError::new(ErrorKind::Bug, message)
}

/// The log no longer reaches back to a position, or is another one.
pub fn lost(message: impl Into<String>) -> SourceError {
    SourceError::new(ErrorKind::PositionLost, message)
}
