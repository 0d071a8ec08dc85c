//! Few kinds of errors, and one table that says what each of them means for the daemon and for the person who runs it.
//!
//! Parts of the program say what happened, in their own error types and kinds. What is done about it is said here and
//! only here, in [`Kind::policy`]: reaction, advice, exit code. (Within a batch, the loader applies the same reactions to
//! single records.)

use crate::config::{ConfigError, SecretError};
use crate::crm::{CrmError, CrmErrorKind, SetupError};
use crate::diagnostics::Diagnostics;
use crate::store::{IoTrouble, StoreError};
use std::error::Error as StdError;
use std::fmt;
use tidemark_contract::{ErrorKind, Finding, Severity, SourceError};

/// Result of what a command does.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// At the vendor's database.
    Source(ErrorKind),
    /// At the CRM.
    Crm(CrmErrorKind),
    /// In the state directory.
    Store(StoreKind),
    /// In the daemon itself, or in what it was told.
    Daemon(DaemonKind),
}

/// What happened in the state directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum StoreKind {
    Locked,
    Damaged,
    TooNew,
    Full,
    Denied,
    ReadOnly,
    Missing,
    Io,
    Refused,
    Bug,
}

/// What happened in the daemon itself, or in what it was told.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DaemonKind {
    /// The tenant file, a pack or a profile says something wrong.
    Configuration,
    /// A secret cannot be read.
    Secret,
    /// The arguments make no sense.
    Usage,
    /// A prerequisite is not met.
    Prerequisite,
    /// A right is missing.
    Permission,
    /// The state directory belongs to another tenant or another source.
    WrongState,
    /// More dead letters than allowed.
    TooManyDeadLetters,
    /// The log has a gap, and the tenant's policy is to stop (P4).
    Gap,
    /// A listener cannot be opened.
    Listener,
    /// The daemon is there but does not do what it was asked.
    Admin,
    /// A comparison found differences.
    Different,
    /// A command did not succeed, for the reason it gives.
    Failed,
    /// A broken assumption of the program.
    Bug,
}

/// What the daemon does about an error.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reaction {
    /// The same again, later and later.
    RetryWithBackoff,
    /// The tenant stops: only a person can help.
    StopTenant,
    /// The table concerned (for a lost position: every table) is read again; only differences are sent.
    ResyncTable,
    /// The record becomes a dead letter; the others go on.
    SetAside,
    /// The process ends; systemd starts it again.
    Crash,
}

/// The program's exit codes; unit files rely on them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum ExitCode {
    /// Done.
    Done = 0,
    /// Failed.
    Failed = 1,
    /// Wrong arguments.
    Usage = 2,
    /// Another instance holds the tenant.
    Held = 75,
    /// A right is missing.
    Permission = 77,
    /// Configuration or mapping.
    Configuration = 78,
    /// A bug.
    Bug = 255,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        std::process::ExitCode::from(code as u8)
    }
}

/// One line of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Stable word for logs, metrics and `--json`.
    pub word: &'static str,
    /// What the daemon does.
    pub reaction: Reaction,
    /// What a person does; printed as a hint where the error has none of its own. Empty if there is nothing to do.
    pub advice: &'static str,
    /// With what the program ends, if it ends.
    pub exit: ExitCode,
}

const fn line(word: &'static str, reaction: Reaction, exit: ExitCode, advice: &'static str) -> Policy {
    Policy { word, reaction, advice, exit }
}

impl Kind {
    /// The table.
    #[rustfmt::skip]
    pub fn policy(self) -> Policy {
        use ExitCode::{Bug as Panic, Configuration, Failed, Held, Permission, Usage};
        use Reaction::{Crash, ResyncTable, RetryWithBackoff as Retry, SetAside, StopTenant as Stop};
        const REPORT: &str = "please report this with the log around it";
        match self {
            Kind::Source(kind) => match kind {
                ErrorKind::Unreachable => line("source_unreachable", Retry, Failed,
                    "check [source] host and port, the network, and whether the server runs"),
                ErrorKind::AuthRefused => line("source_auth_refused", Stop, Configuration,
                    "check [source] user and password; it is not tried again, because that may lock the account"),
                ErrorKind::PermissionMissing => line("source_permission_missing", Stop, Permission,
                    "`tidemark check TENANT` prints the statements that grant what is missing"),
                ErrorKind::SettingWrong => line("source_setting_wrong", Stop, Configuration,
                    "`tidemark check TENANT` prints every setting that has to change"),
                ErrorKind::PositionLost => line("source_position_lost", ResyncTable, Failed,
                    "[state] on_gap = \"resync\" reads every table again; only differences are sent"),
                ErrorKind::SchemaChanged => line("source_schema_changed", ResyncTable, Configuration,
                    "adapt the mapping to the table's new columns; the table then catches up by a resync"),
                ErrorKind::Undecodable => line("source_undecodable", Stop, Failed,
                    "nothing was skipped; please report the message, and keep the vendor's log until it is understood"),
                ErrorKind::Cancelled => line("source_cancelled", Retry, Failed, ""),
                ErrorKind::Bug => line("source_bug", Crash, Panic, REPORT),
            },
            Kind::Crm(kind) => match kind {
                CrmErrorKind::Unavailable => line("crm_unavailable", Retry, Failed,
                    "check [crm] base_url, the network, and whether the CRM runs"),
                CrmErrorKind::Unknown => line("crm_unknown", Retry, Failed,
                    "the same write is repeated until the CRM answers it; see the CRM's own log"),
                CrmErrorKind::Throttled => line("crm_throttled", Retry, Failed,
                    "it slows down by itself; [delivery] requests_per_second sets a lower pace"),
                CrmErrorKind::Unauthorized => line("crm_unauthorized", Stop, Configuration,
                    "check [crm] auth: the CRM refuses the credentials"),
                CrmErrorKind::Forbidden => line("crm_forbidden", Stop, Permission,
                    "give the CRM user the right to write the entities that the mapping names"),
                CrmErrorKind::TooLarge => line("crm_too_large", Retry, Failed,
                    "batches shrink by themselves; a single record cannot"),
                CrmErrorKind::Refused => line("crm_refused", SetAside, Failed,
                    "`tidemark dead-letters list TENANT` shows what was refused, in the CRM's words"),
                CrmErrorKind::Contract => line("crm_contract", Stop, Configuration,
                    "check [crm] base_url and profile: the CRM does not offer what the profile says"),
            },
            Kind::Store(kind) => match kind {
                StoreKind::Locked => line("store_locked", Stop, Held, "stop the other process, or talk to it"),
                StoreKind::Damaged => line("store_damaged", Stop, Failed, "restore the state directory from a backup"),
                StoreKind::TooNew => line("store_too_new", Stop, Configuration,
                    "run the version that wrote the state directory"),
                StoreKind::Full => line("store_full", Retry, Failed, "free space; nothing is acknowledged meanwhile"),
                StoreKind::Denied => line("store_denied", Stop, Permission,
                    "give the user that runs tidemark the state directory"),
                StoreKind::ReadOnly => line("store_read_only", Stop, Configuration,
                    "name a writable directory with [state] dir"),
                StoreKind::Missing => line("store_missing", Stop, Configuration,
                    "create the directory that [state] dir names"),
                StoreKind::Io => line("store_io", Retry, Failed, "look into the system's log for disk errors"),
                StoreKind::Refused => line("store_refused", Stop, Failed, ""),
                StoreKind::Bug => line("store_bug", Crash, Panic, REPORT),
            },
            Kind::Daemon(kind) => match kind {
                DaemonKind::Configuration => line("configuration", Stop, Configuration, ""),
                DaemonKind::Secret => line("secret", Stop, Configuration, ""),
                DaemonKind::Usage => line("usage", Stop, Usage, "see --help"),
                DaemonKind::Prerequisite => line("prerequisite", Stop, Configuration, ""),
                DaemonKind::Permission => line("permission", Stop, Permission, ""),
                DaemonKind::WrongState => line("wrong_state", Stop, Configuration,
                    "give this tenant a state directory of its own, or `tidemark checkpoint reset` it if the source was \
                     moved on purpose"),
                DaemonKind::TooManyDeadLetters => line("too_many_dead_letters", Stop, Failed,
                    "look at `tidemark dead-letters list TENANT`, fix the cause, retry them; the limit is \
                     [delivery.dead_letters] max_records"),
                DaemonKind::Gap => line("gap", Stop, Failed,
                    "`tidemark resync TENANT --all` reads every table again; only differences are sent"),
                DaemonKind::Listener => line("listener", Stop, Failed, ""),
                DaemonKind::Admin => line("admin", Stop, Failed, ""),
                DaemonKind::Different => line("different", Stop, Failed, ""),
                DaemonKind::Failed => line("failed", Stop, Failed, ""),
                DaemonKind::Bug => line("bug", Crash, Panic, REPORT),
            },
        }
    }

    /// Every kind there is.
    pub fn all() -> Vec<Kind> {
        let source = [
            ErrorKind::Unreachable,
            ErrorKind::AuthRefused,
            ErrorKind::PermissionMissing,
            ErrorKind::SettingWrong,
            ErrorKind::PositionLost,
            ErrorKind::SchemaChanged,
            ErrorKind::Undecodable,
            ErrorKind::Cancelled,
            ErrorKind::Bug,
        ];
        let crm = [
            CrmErrorKind::Unavailable,
            CrmErrorKind::Unknown,
            CrmErrorKind::Throttled,
            CrmErrorKind::Unauthorized,
            CrmErrorKind::Forbidden,
            CrmErrorKind::TooLarge,
            CrmErrorKind::Refused,
            CrmErrorKind::Contract,
        ];
        let store = [
            StoreKind::Locked,
            StoreKind::Damaged,
            StoreKind::TooNew,
            StoreKind::Full,
            StoreKind::Denied,
            StoreKind::ReadOnly,
            StoreKind::Missing,
            StoreKind::Io,
            StoreKind::Refused,
            StoreKind::Bug,
        ];
        let daemon = [
            DaemonKind::Configuration,
            DaemonKind::Secret,
            DaemonKind::Usage,
            DaemonKind::Prerequisite,
            DaemonKind::Permission,
            DaemonKind::WrongState,
            DaemonKind::TooManyDeadLetters,
            DaemonKind::Gap,
            DaemonKind::Listener,
            DaemonKind::Admin,
            DaemonKind::Different,
            DaemonKind::Failed,
            DaemonKind::Bug,
        ];
        let source = source.into_iter().map(Kind::Source);
        let crm = crm.into_iter().map(Kind::Crm);
        let store = store.into_iter().map(Kind::Store);
        source.chain(crm).chain(store).chain(daemon.into_iter().map(Kind::Daemon)).collect()
    }
}

/// The kind of a store's error.
pub fn store_kind(error: &StoreError) -> StoreKind {
    match error {
        StoreError::Locked { .. } => StoreKind::Locked,
        StoreError::Damaged { .. } => StoreKind::Damaged,
        StoreError::TooNew { .. } => StoreKind::TooNew,
        StoreError::Io { .. } => match error.trouble() {
            Some(IoTrouble::Full) => StoreKind::Full,
            Some(IoTrouble::Denied) => StoreKind::Denied,
            Some(IoTrouble::ReadOnly) => StoreKind::ReadOnly,
            Some(IoTrouble::Missing) => StoreKind::Missing,
            Some(IoTrouble::Other) | None => StoreKind::Io,
        },
        StoreError::Refused { .. } => StoreKind::Refused,
        StoreError::Bug(_) => StoreKind::Bug,
    }
}

/// An error of the program, as it reaches the person who ran it.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hints: Vec<String>,
    diagnostics: Option<Box<Diagnostics>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error with neither hint nor cause.
    pub fn new(kind: impl Into<Kind>, message: impl Into<String>) -> Self {
        Self { kind: kind.into(), message: message.into(), hints: Vec::new(), diagnostics: None, source: None }
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error, seen from further out: `message` says what was being done. Kind and hints stay.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        let Self { kind, message: inner, hints, diagnostics, source } = self;
        let cause = Cause { message: inner, source };
        Self { kind, message: message.into(), hints, diagnostics, source: Some(Box::new(cause)) }
    }

    /// Prerequisites that are not met; `None` if all are.
    pub fn from_findings(findings: &[Finding]) -> Option<Self> {
        let failed: Vec<&Finding> = findings.iter().filter(|f| f.severity == Severity::Error).collect();
        // Only rights are missing: whoever gives rights can help. Otherwise somebody has to change settings first.
        let kind =
            if failed.iter().all(|f| f.is_permission) { DaemonKind::Permission } else { DaemonKind::Prerequisite };
        let mut message = match failed.len() {
            0 => return None,
            1 => "a prerequisite is not met".to_string(),
            n => format!("{n} prerequisites are not met"),
        };
        for f in failed {
            let table = f.table.as_ref().map(|t| format!(" ({t})")).unwrap_or_default();
            message.push_str(&format!("\n  {}{table}: {}; wanted: {}", f.id, f.observed, f.wanted));
            if let Some(fix) = &f.fix {
                message.push_str(&format!("\n    fix: {}", fix.replace('\n', "\n         ")));
            }
        }
        Some(Self::new(kind, message))
    }

    /// What happened.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// With what the program ends.
    pub fn exit_code(&self) -> ExitCode {
        self.kind.policy().exit
    }

    /// What to do: the error's own hints, or the table's advice.
    pub fn hints(&self) -> Vec<&str> {
        let advice = self.kind.policy().advice;
        if self.hints.is_empty() && !advice.is_empty() && self.diagnostics.is_none() {
            return vec![advice];
        }
        self.hints.iter().map(String::as_str).collect()
    }

    /// What was found in files, if that is what this error is about.
    pub fn diagnostics(&self) -> Option<&Diagnostics> {
        self.diagnostics.as_deref()
    }

    /// Everything for a person, in lines: diagnostics, the message, each cause once, hints.
    pub fn report(&self, color: bool) -> String {
        let (red, blue, bold, plain) =
            if color { ("\u{1b}[1;31m", "\u{1b}[1;34m", "\u{1b}[1m", "\u{1b}[0m") } else { ("", "", "", "") };
        let mut out = String::new();
        if let Some(found) = &self.diagnostics {
            out.push_str(&found.render(color));
            out.push_str("\n\n");
        }
        out.push_str(&format!("{red}error{plain}{bold}:{plain} {}\n", self.message));
        for cause in self.causes() {
            out.push_str(&format!("  caused by: {cause}\n"));
        }
        for hint in self.hints() {
            out.push_str(&format!("{blue}hint{plain}{bold}:{plain} {hint}\n"));
        }
        out
    }

    /// The causes, outermost first. A cause whose text the one before already contains is left out.
    pub fn causes(&self) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        let mut last = self.message.clone();
        let mut next = self.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            if !text.is_empty() && !last.contains(&text) {
                out.push(text.clone());
                last = text;
            }
            next = cause.source();
        }
        out
    }
}

/// A message with its cause, below another message.
#[derive(Debug)]
struct Cause {
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|e| &**e as _)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|e| &**e as _)
    }
}

impl From<DaemonKind> for Kind {
    fn from(kind: DaemonKind) -> Self {
        Kind::Daemon(kind)
    }
}

impl From<ErrorKind> for Kind {
    fn from(kind: ErrorKind) -> Self {
        Kind::Source(kind)
    }
}

impl From<CrmErrorKind> for Kind {
    fn from(kind: CrmErrorKind) -> Self {
        Kind::Crm(kind)
    }
}

impl From<StoreKind> for Kind {
    fn from(kind: StoreKind) -> Self {
        Kind::Store(kind)
    }
}

impl From<SourceError> for Error {
    fn from(error: SourceError) -> Self {
        let hints = error.hint.into_iter().collect();
        Self { kind: error.kind.into(), message: error.message, hints, diagnostics: None, source: error.source }
    }
}

impl From<CrmError> for Error {
    fn from(error: CrmError) -> Self {
        Self::new(error.kind, error.message)
    }
}

impl From<SetupError> for Error {
    fn from(error: SetupError) -> Self {
        Self::new(DaemonKind::Configuration, error.0)
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let hints = error.hint().into_iter().collect();
        let (kind, message) = (store_kind(&error).into(), error.to_string());
        Self { kind, message, hints, diagnostics: None, source: Some(Box::new(error)) }
    }
}

impl From<SecretError> for Error {
    fn from(error: SecretError) -> Self {
        let hints = error.hint.clone().into_iter().collect();
        let message = error.to_string();
        Self { kind: DaemonKind::Secret.into(), message, hints, diagnostics: None, source: Some(Box::new(error)) }
    }
}

impl From<Diagnostics> for Error {
    fn from(found: Diagnostics) -> Self {
        let count = |n: usize, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
        let (errors, warnings) = found.counts();
        let mut message = count(errors, "error");
        if warnings > 0 {
            message.push_str(&format!(" and {}", count(warnings, "warning")));
        }
        let files: Vec<&str> = found.files().iter().map(|f| f.path.as_str()).collect();
        if !files.is_empty() {
            message.push_str(&format!(" in {}", files.join(", ")));
        }
        Self { diagnostics: Some(Box::new(found)), ..Self::new(DaemonKind::Configuration, message) }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        let (hint, message) = (error.hint(), error.to_string());
        match error {
            ConfigError::Wrong(found) => found.into(),
            unreadable => {
                let hints = hint.into_iter().collect();
                let source: Option<Box<dyn StdError + Send + Sync>> = Some(Box::new(unreadable));
                Self { kind: DaemonKind::Configuration.into(), message, hints, diagnostics: None, source }
            }
        }
    }
}

#[cfg(test)]
mod tests;
