//! What the server says when it refuses: number, class, state and words.
//!
//! Numbers, classes and texts are those of "Database Engine events and errors" (Microsoft Learn). Whatever the simulator
//! does not model is refused by [`SqlError::unmodelled`], which names the construct: an unknown statement must never
//! look like one that worked.

use std::fmt;

/// One error message of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// Error number, as in `sys.messages`.
    pub number: i32,
    /// Severity; 20 and above end the connection.
    pub class: u8,
    /// State: where in the server it was raised.
    pub state: u8,
    /// The words.
    pub message: String,
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Msg {}, Level {}, State {}: {}", self.number, self.class, self.state, self.message)
    }
}

impl std::error::Error for SqlError {}

/// Result of everything that can be refused with a server message.
pub type Result<T, E = SqlError> = std::result::Result<T, E>;

/// Separates the fields of an error that travels through SQLite as text (see [`SqlError::packed`]).
const FIELD: char = '\u{1}';

impl SqlError {
    /// An error of the given number, class and state.
    pub fn new(number: i32, class: u8, state: u8, message: impl Into<String>) -> Self {
        Self { number, class, state, message: message.into() }
    }

    /// The real product can do this and the simulator cannot. The number is outside the product's range, so that no test
    /// mistakes it for a real refusal.
    pub fn unmodelled(what: impl fmt::Display) -> Self {
        Self::new(49_999, 16, 1, format!("The simulator does not model {what}."))
    }

    /// 102: a token where none was expected.
    pub fn syntax(near: &str) -> Self {
        Self::new(102, 15, 1, format!("Incorrect syntax near '{near}'."))
    }

    /// 208: no such table, view or function, or not visible to the caller.
    pub fn object(name: &str) -> Self {
        Self::new(208, 16, 1, format!("Invalid object name '{name}'."))
    }

    /// 207: no such column.
    pub fn column(name: &str) -> Self {
        Self::new(207, 16, 1, format!("Invalid column name '{name}'."))
    }

    /// 229: a permission on an object is missing.
    pub fn denied(permission: &str, object: &str, database: &str, schema: &str) -> Self {
        let text = format!(
            "The {permission} permission was denied on the object '{object}', database '{database}', schema '{schema}'."
        );
        Self::new(229, 14, 5, text)
    }

    /// 8115: the value does not fit the type.
    pub fn overflow(to: &str) -> Self {
        Self::new(8115, 16, 2, format!("Arithmetic overflow error converting expression to data type {to}."))
    }

    /// 402: operator between types that do not go together.
    pub fn incompatible(left: &str, right: &str, operator: &str) -> Self {
        let text = format!("The data types {left} and {right} are incompatible in the {operator} operator.");
        Self::new(402, 16, 1, text)
    }

    /// Text form that survives the way through SQLite, for user functions that refuse a value.
    pub fn packed(&self) -> String {
        format!("{FIELD}{}{FIELD}{}{FIELD}{}{FIELD}{}{FIELD}", self.number, self.class, self.state, self.message)
    }

    /// Finds a [`packed`](Self::packed) error in a message of SQLite.
    pub fn unpack(text: &str) -> Option<Self> {
        let mut fields = text.split(FIELD).skip(1);
        let number = fields.next()?.parse().ok()?;
        let class = fields.next()?.parse().ok()?;
        let state = fields.next()?.parse().ok()?;
        Some(Self::new(number, class, state, fields.next()?))
    }
}

impl From<rusqlite::Error> for SqlError {
    /// Errors of the storage: a packed error is the server's own; a conflict of snapshots is 3960; a changed schema under
    /// a snapshot is 3961; everything else is a fault of the simulator and says so.
    fn from(e: rusqlite::Error) -> Self {
        let text = e.to_string();
        if let Some(packed) = Self::unpack(&text) {
            return packed;
        }
        match e.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => Self::new(
                3960,
                16,
                2,
                "Snapshot isolation transaction aborted due to update conflict. You cannot use snapshot isolation to \
                 access the table directly or indirectly in the database to update, delete, or insert the row that has \
                 been modified or deleted by another transaction. Retry the transaction or change the isolation level \
                 for the update/delete statement.",
            ),
            Some(rusqlite::ErrorCode::OperationInterrupted) => {
                Self::new(0, 11, 0, "The operation was cancelled by the client.")
            }
            _ => Self::new(49_998, 16, 1, format!("Fault inside the simulator: {text}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_way_through_sqlite() {
        let e = SqlError::overflow("tinyint");
        assert_eq!(SqlError::unpack(&format!("user function error: {}", e.packed())), Some(e));
        assert_eq!(SqlError::unpack("no such table"), None);
    }
}
