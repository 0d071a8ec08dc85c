//! What the server's errors mean for the daemon: SQLSTATE → [`ErrorKind`].

use std::fmt;
pub(crate) use tidemark_contract::error::{bug, undecodable, unreachable};
use tidemark_contract::{ErrorKind, SourceError};
use tokio_postgres::error::DbError;

/// An error reported by the server.
///
/// Only its code, its primary message and its hint are kept. The detail, the context and the quoted query are never
/// read: they may show row values (R9). For data errors (classes 22 and 23) the message itself quotes values, so it is
/// left out too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ServerError {
    pub(crate) code: String,
    message: String,
    hint: Option<String>,
}

impl ServerError {
    /// Reads the fields of an ErrorResponse: a letter and a NUL-terminated text each, ended by a NUL.
    pub(crate) fn parse(body: &[u8]) -> Self {
        let (mut code, mut message, mut hint) = (String::new(), String::new(), None);
        for field in body.split(|b| *b == 0) {
            let Some((letter, text)) = field.split_first() else { break };
            let text = String::from_utf8_lossy(text).into_owned();
            match letter {
                b'C' => code = text,
                b'M' => message = text,
                b'H' => hint = Some(text),
                _ => {}
            }
        }
        Self::new(code, message, hint)
    }

    fn new(code: String, mut message: String, mut hint: Option<String>) -> Self {
        if code.starts_with("22") || code.starts_with("23") {
            message = "the server reported a data error (its text may quote values and is not shown)".into();
            hint = None;
        }
        Self { code, message, hint }
    }

    fn kind(&self) -> ErrorKind {
        match self.code.as_str() {
            "42501" => ErrorKind::PermissionMissing,
            // Object in use: a slot held by a connection that the server has not yet found dead.
            "55006" => ErrorKind::Unreachable,
            // Lock not available, statement cancelled, deadlock, serialization: trying again helps.
            "55P03" | "57014" | "40P01" | "40001" => ErrorKind::Unreachable,
            // A segment of the log that we need is gone.
            "58P01" => ErrorKind::PositionLost,
            "42P01" | "42703" | "42704" | "3F000" => ErrorKind::SchemaChanged,
            "3D000" | "0A000" | "55000" => ErrorKind::SettingWrong,
            code => match code.get(..2) {
                Some("28") => ErrorKind::AuthRefused,
                Some("08" | "53" | "57" | "58" | "XX") => ErrorKind::Unreachable,
                Some("22" | "23") => ErrorKind::Undecodable,
                Some("42") => ErrorKind::Bug,
                _ => ErrorKind::SettingWrong,
            },
        }
    }

    fn advice(&self) -> Option<String> {
        Some(match self.code.as_str() {
            "53300" => "the server is out of connections: raise max_connections (or, for replication, \
                        max_wal_senders), or close idle clients"
                .into(),
            "28P01" => "check the user name and the password".into(),
            "28000" => "check pg_hba.conf on the server: this user, database and address must be let in".into(),
            "3D000" => "check the name of the database".into(),
            "22021" | "22P05" => "a text cannot be converted from the database's encoding to UTF-8".into(),
            "57014" => "the statement took longer than the server or this connector allows".into(),
            _ => return self.hint.clone(),
        })
    }

    /// The error for somebody who was `doing` something.
    pub(crate) fn into_source_error(self, doing: &str) -> SourceError {
        let mut error = SourceError::new(self.kind(), format!("{doing}: {self}"));
        error.hint = self.advice();
        error.caused_by(self)
    }
}

impl From<&DbError> for ServerError {
    fn from(error: &DbError) -> Self {
        Self::new(error.code().code().to_owned(), error.message().to_owned(), error.hint().map(str::to_owned))
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code)
    }
}

impl std::error::Error for ServerError {}

/// The SQLSTATE of an error, if the server reported it.
pub(crate) fn sqlstate(error: &SourceError) -> Option<&str> {
    Some(error.source.as_deref()?.downcast_ref::<ServerError>()?.code.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: &str) -> SourceError {
        let body = format!("SERROR\0C{code}\0Mwhat happened\0DKey (name)=(Alice)\0Wsecret context\0\0");
        ServerError::parse(body.as_bytes()).into_source_error("reading")
    }

    #[test]
    fn codes_become_kinds() {
        for (code, kind) in [
            ("28P01", ErrorKind::AuthRefused),
            ("28000", ErrorKind::AuthRefused),
            ("42501", ErrorKind::PermissionMissing),
            ("55006", ErrorKind::Unreachable),
            ("57P01", ErrorKind::Unreachable),
            ("53300", ErrorKind::Unreachable),
            ("58P01", ErrorKind::PositionLost),
            ("42P01", ErrorKind::SchemaChanged),
            ("42601", ErrorKind::Bug),
        ] {
            assert_eq!(error(code).kind, kind, "{code}");
        }
        assert_eq!(sqlstate(&error("42501")), Some("42501"));
    }

    #[test]
    fn details_and_data_errors_are_not_shown() {
        let text = |e: &SourceError| format!("{e} {e:?}");
        assert!(!text(&error("42501")).contains("Alice") && !text(&error("42501")).contains("secret"));
        assert!(!text(&error("22P02")).contains("what happened"));
    }
}
