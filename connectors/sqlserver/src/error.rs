//! What the server's errors mean for the daemon: error number → [`ErrorKind`].

use tiberius::error::Error;
pub(crate) use tidemark_contract::error::{bug, changed, lost, setting_wrong, undecodable, unreachable};
use tidemark_contract::{ErrorKind, SourceError};

/// An error number of the server, kept as the cause. Texts of errors about values quote them and are left out (R9).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ServerError {
    pub(crate) code: u32,
    text: String,
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (error {})", self.text, self.code)
    }
}

impl std::error::Error for ServerError {}

fn kind(code: u32) -> ErrorKind {
    match code {
        // Login failed, password expired or to be changed, account locked or disabled.
        18_452 | 18_456 | 18_470 | 18_486 | 18_487 | 18_488 => ErrorKind::AuthRefused,
        // Rights on objects, columns, statements, the database, the state of database and server.
        229 | 230 | 262 | 297 | 300 | 371 | 916 | 22_902 | 22_904 => ErrorKind::PermissionMissing,
        // Database that cannot be opened.
        4060 | 911 | 3952 | 978 => ErrorKind::SettingWrong,
        // Object or column gone; snapshot transaction that met a definition.
        207 | 208 | 3961 => ErrorKind::SchemaChanged,
        // A statement of ours that the server does not understand.
        102 | 105 | 137 | 156 | 170 | 195 | 402 | 468 | 8116 => ErrorKind::Bug,
        // Values that do not convert.
        220 | 232 | 241 | 242 | 245 | 8114 | 8115 | 8152 | 8169 | 9803 => ErrorKind::Undecodable,
        _ => ErrorKind::Unreachable,
    }
}

fn advice(code: u32) -> Option<&'static str> {
    Some(match code {
        18_456 | 18_452 => "check the user name and the password, and that SQL Server authentication is allowed",
        18_486 => "the account is locked: ALTER LOGIN … WITH PASSWORD = … UNLOCK",
        18_487 | 18_488 => "the password has expired: ALTER LOGIN … WITH PASSWORD = …",
        978 => "set application_intent = \"read-only\" in [source.sqlserver]",
        4060 => "check the name of the database, and CREATE USER … FOR LOGIN … in it",
        229 | 230 => "GRANT SELECT on the tables that are read, and on SCHEMA::cdc, to the user",
        262 | 297 => "GRANT VIEW DATABASE STATE to the user",
        300 => "GRANT VIEW SERVER STATE to the login",
        _ => return None,
    })
}

/// The text of a server's error, unless it may quote values.
fn shown(code: u32, text: &str) -> String {
    if matches!(code, 220 | 232 | 241..=245 | 2601 | 2627 | 2628 | 8114 | 8115 | 8152 | 8169 | 102 | 105 | 547) {
        return "the server reported an error whose text may quote values and is not shown".into();
    }
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// The error for somebody who was `doing` something.
pub(crate) fn of(doing: &str, error: Error) -> SourceError {
    match error {
        Error::Server(token) => {
            let server = ServerError { code: token.code(), text: shown(token.code(), token.message()) };
            let mut error = SourceError::new(kind(server.code), format!("{doing}: {server}"));
            error.hint = advice(server.code).map(str::to_owned);
            error.caused_by(server)
        }
        Error::Io { kind, message } => unreachable(format!("{doing}: the connection broke ({kind:?}): {message}")),
        Error::Tls(message) => setting_wrong(format!("{doing}: TLS failed: {message}")),
        Error::Routing { host, port } => {
            let message = format!("{doing}: the server sends its clients on to {host}:{port}");
            setting_wrong(message).hint("name that host and port in the tenant file")
        }
        // What the driver says about values may quote them.
        Error::Protocol(what) => undecodable(format!("{doing}: the server's answer breaks the protocol: {what}")),
        Error::Encoding(_) | Error::Utf8 | Error::Utf16 => {
            undecodable(format!("{doing}: the server sent text in an encoding that cannot be read"))
        }
        _ => undecodable(format!("{doing}: the server's answer cannot be read")),
    }
}

/// The server's number of an error, if the server reported it.
pub(crate) fn server_code(error: &SourceError) -> Option<u32> {
    Some(error.source.as_deref()?.downcast_ref::<ServerError>()?.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_kinds() {
        for (code, wanted) in [
            (18_456, ErrorKind::AuthRefused),
            (4060, ErrorKind::SettingWrong),
            (229, ErrorKind::PermissionMissing),
            (262, ErrorKind::PermissionMissing),
            (208, ErrorKind::SchemaChanged),
            (1205, ErrorKind::Unreachable),
            (40_613, ErrorKind::Unreachable),
            (102, ErrorKind::Bug),
        ] {
            assert_eq!(kind(code), wanted, "{code}");
        }
    }

    #[test]
    fn texts_that_quote_values_are_not_shown() {
        for code in [245, 2627, 8115, 102] {
            assert!(!shown(code, "… the value 'Alice' …").contains("Alice"), "{code}");
        }
        assert_eq!(shown(1205, "deadlock\n"), "deadlock");
    }

    #[test]
    fn a_broken_connection_is_unreachable() {
        let io = Error::Io { kind: std::io::ErrorKind::BrokenPipe, message: "gone".into() };
        assert_eq!(of("reading", io).kind, ErrorKind::Unreachable);
        assert_eq!(server_code(&unreachable("x")), None);
    }
}
