//! What the server's errors mean for the daemon: error number → [`ErrorKind`].

use std::fmt;
pub(crate) use tidemark_contract::error::{bug, lost, setting_wrong, undecodable, unreachable};
use tidemark_contract::{ErrorKind, SourceError};

/// An error reported by the server. Messages of data errors quote values, so they are left out (R9).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ServerError {
    pub(crate) code: u16,
    message: String,
}

impl ServerError {
    /// Reads the body of an error packet behind its 0xff: number, optional `#` and SQLSTATE, text.
    pub(crate) fn parse(body: &[u8]) -> Self {
        let code = match body {
            [low, high, ..] => u16::from_le_bytes([*low, *high]),
            _ => 0,
        };
        let rest = body.get(2..).unwrap_or_default();
        let text = match rest.first() {
            Some(b'#') => rest.get(6..).unwrap_or_default(),
            _ => rest,
        };
        Self::new(code, &String::from_utf8_lossy(text))
    }

    /// An error by its number and text.
    pub(crate) fn new(code: u16, text: &str) -> Self {
        // Errors about values quote them.
        let quotes_values = matches!(
            code,
            1048 | 1062 | 1064 | 1103 | 1105 | 1264 | 1265 | 1292 | 1300 | 1366 | 1406 | 1411 | 1525 | 1690 | 3140
                ..=3160
        );
        let message = if quotes_values {
            "the server reported an error whose text may quote values and is not shown".to_owned()
        } else {
            text.chars().filter(|c| !c.is_control()).take(300).collect()
        };
        Self { code, message }
    }

    fn kind(&self) -> ErrorKind {
        match self.code {
            // Access denied (user, password), account locked, password expired.
            1045 | 1698 | 1820 | 1862 | 3118 | 4151 => ErrorKind::AuthRefused,
            // Host not allowed.
            1130 => ErrorKind::AuthRefused,
            // Rights on databases, tables, columns, routines; SUPER-like privileges; read-only.
            1044 | 1142 | 1143 | 1227 | 1370 => ErrorKind::PermissionMissing,
            1146 | 1054 | 1051 | 1356 => ErrorKind::SchemaChanged,
            1049 | 1251 | 1524 | 1193 | 3159 => ErrorKind::SettingWrong,
            // The log is gone, or was asked for at a place it does not have (see `stream::explain` for its finer cases).
            1236 | 1789 => ErrorKind::PositionLost,
            1373 => ErrorKind::PositionLost,
            // Binary logging is off.
            1381 | 1220 => ErrorKind::SettingWrong,
            // A statement of ours that the server does not understand.
            1064 => ErrorKind::Bug,
            1264..=1266 | 1292 | 1300 | 1366 | 1690 => ErrorKind::Undecodable,
            _ => ErrorKind::Unreachable,
        }
    }

    fn advice(&self) -> Option<&'static str> {
        Some(match self.code {
            1045 | 1698 => "check the user name and the password, and the host the account is made for",
            1130 => "the account must be allowed to connect from this address",
            1040 | 1203 | 1226 => {
                "the server is out of connections for this user: raise max_connections or the user's limit"
            }
            1049 => "check the name of the database",
            1142..=1143 => "GRANT SELECT on the tables that are read",
            1227 => "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* to the user",
            1251 | 1524 => "make the account use caching_sha2_password, mysql_native_password or ed25519",
            3159 => "the account requires TLS: set tls mode \"verify-full\"",
            1820 | 1862 => "the password has expired: ALTER USER … IDENTIFIED BY …",
            _ => return None,
        })
    }

    /// The error for somebody who was `doing` something.
    pub(crate) fn into_source_error(self, doing: &str) -> SourceError {
        let mut error = SourceError::new(self.kind(), format!("{doing}: {self}"));
        error.hint = self.advice().map(str::to_owned);
        error.caused_by(self)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (error {})", self.message, self.code)
    }
}

impl std::error::Error for ServerError {}

/// The server's number of an error, if the server reported it.
pub(crate) fn server_code(error: &SourceError) -> Option<u16> {
    Some(error.source.as_deref()?.downcast_ref::<ServerError>()?.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u16, text: &str) -> SourceError {
        let mut body = code.to_le_bytes().to_vec();
        body.extend_from_slice(b"#42000");
        body.extend_from_slice(text.as_bytes());
        ServerError::parse(&body).into_source_error("reading")
    }

    #[test]
    fn numbers_become_kinds() {
        for (code, kind) in [
            (1045, ErrorKind::AuthRefused),
            (1049, ErrorKind::SettingWrong),
            (1142, ErrorKind::PermissionMissing),
            (1146, ErrorKind::SchemaChanged),
            (1236, ErrorKind::PositionLost),
            (1040, ErrorKind::Unreachable),
            (1064, ErrorKind::Bug),
        ] {
            assert_eq!(error(code, "x").kind, kind, "{code}");
        }
        assert_eq!(server_code(&error(1045, "x")), Some(1045));
        assert_eq!(error(1040, "Too many connections").message, "reading: Too many connections (error 1040)");
    }

    #[test]
    fn values_are_not_shown_and_short_packets_do_no_harm() {
        let shown = error(1062, "Duplicate entry 'Alice'");
        assert!(!format!("{shown} {shown:?}").contains("Alice"));
        for body in [&b""[..], b"\x01", b"\x01\x02", b"\x01\x02#", b"\x01\x02#4200"] {
            ServerError::parse(body);
        }
    }
}
