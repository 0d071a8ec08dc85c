//! What a preflight found.

use crate::TableId;

/// How much a finding weighs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// As it should be; shown so that people see what was checked.
    Ok,
    /// Works, with a cost or a risk that is worth knowing.
    Warning,
    /// The daemon would not start.
    Error,
}

/// One prerequisite that was looked at.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Stable name of the check (`source.wal_level`), for scripts.
    pub id: &'static str,
    /// How much it weighs.
    pub severity: Severity,
    /// The table it is about, if it is about one.
    pub table: Option<TableId>,
    /// What was observed.
    pub observed: String,
    /// What is wanted.
    pub wanted: String,
    /// The exact statement or setting that fixes it, where there is one.
    pub fix: Option<String>,
    /// Whether a missing right is the cause (exit code 77 rather than 78).
    pub is_permission: bool,
}

impl Finding {
    /// A check that passed.
    pub fn ok(id: &'static str, observed: impl Into<String>) -> Self {
        Self {
            id,
            severity: Severity::Ok,
            table: None,
            observed: observed.into(),
            wanted: String::new(),
            fix: None,
            is_permission: false,
        }
    }

    /// A check that failed: what was seen, what is wanted, and what fixes it.
    pub fn error(
        id: &'static str,
        observed: impl Into<String>,
        wanted: impl Into<String>,
        fix: Option<String>,
    ) -> Self {
        Self { severity: Severity::Error, wanted: wanted.into(), fix, ..Self::ok(id, observed) }
    }

    /// Something that works, with a cost or a risk.
    pub fn warning(
        id: &'static str,
        observed: impl Into<String>,
        wanted: impl Into<String>,
        fix: Option<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(id, observed, wanted, fix) }
    }

    /// The same finding, about `table`.
    #[must_use]
    pub fn about(mut self, table: &TableId) -> Self {
        self.table = Some(table.clone());
        self
    }

    /// The same finding, caused by a missing right.
    #[must_use]
    pub fn permission(mut self) -> Self {
        self.is_permission = true;
        self
    }
}
