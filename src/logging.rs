//! Where log lines go, and what can never be in one.
//!
//! Row values and secrets stay out (P8) by two means: our own code does not log them (their `Debug` shows lengths), and
//! of dependencies, who know nothing of that promise, only warnings are heard, whatever level is asked for. Control
//! characters in a message (a server's answer may hold anything) are escaped, so that no line can pretend to be two.

use crate::error::{DaemonKind, Error};
use std::fmt;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{EnvFilter, FilterExt, FilterFn, filter_fn};
use tracing_subscriber::fmt::format::{FormatFields, Writer, debug_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Environment variable with a level (`debug`) or directives (`info,tidemark::loader=debug`); overrides the tenant file.
pub const ENVIRONMENT: &str = "TIDEMARK_LOG";

/// The form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// The journal under systemd, text on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// systemd's journal, with fields.
    Journald,
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What `auto` means here and now.
fn resolve(format: LogFormat) -> LogFormat {
    match format {
        LogFormat::Auto if stderr_is_the_journal() => LogFormat::Journald,
        LogFormat::Auto if std::io::stderr().is_terminal() => LogFormat::Text,
        LogFormat::Auto => LogFormat::Json,
        chosen => chosen,
    }
}

/// Logging that could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level or the directives make no sense.
    #[error(
        "`{0}` is not a log level ({ENVIRONMENT} and [observe] log.level take error, warn, info, debug, trace, or directives such as info,tidemark::loader=debug)"
    )]
    Level(String),
    /// Logging was set up before.
    #[error("logging is already set up")]
    Twice,
}

impl From<LogError> for Error {
    fn from(error: LogError) -> Self {
        Error::new(DaemonKind::Configuration, error.to_string())
    }
}

/// Sends log lines to stderr or the journal from now on; stdout is for data. `level` is what the tenant file says,
/// [`ENVIRONMENT`] comes first.
///
/// # Errors
/// If the level is no level, or logging is set up already.
pub fn init(level: &str, format: LogFormat, tenant: Option<&str>) -> Result<(), LogError> {
    let wanted = std::env::var(ENVIRONMENT).ok().filter(|v| !v.is_empty()).unwrap_or_else(|| level.to_owned());
    let chosen: EnvFilter = EnvFilter::builder().parse(&wanted).map_err(|_| LogError::Level(wanted.clone()))?;
    let filter = chosen.and(capped());
    let stderr = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = match resolve(format) {
        LogFormat::Journald => match tracing_journald::layer() {
            Ok(journal) => journal
                .with_field_prefix(None)
                .with_syslog_identifier("tidemark".into())
                .with_custom_fields(tenant.map(|t| ("TENANT", t)))
                .boxed(),
            // No journal socket in this sandbox: stderr is still read by it.
            Err(_) => stderr.fmt_fields(escaped()).with_ansi(false).without_time().boxed(),
        },
        LogFormat::Json => stderr.json().flatten_event(true).with_current_span(false).boxed(),
        LogFormat::Text | LogFormat::Auto => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
            stderr.fmt_fields(escaped()).with_ansi(colour).boxed()
        }
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().map_err(|_| LogError::Twice)
}

/// Our own crates at any level; everybody else's warnings and errors.
fn capped() -> FilterFn {
    filter_fn(|metadata: &Metadata<'_>| {
        let ours = metadata.target() == "tidemark"
            || metadata.target().starts_with("tidemark::")
            || metadata.target().starts_with("tidemark_");
        ours || *metadata.level() <= LevelFilter::WARN
    })
}

/// Fields as `name=value`, the message bare, control characters escaped.
fn escaped() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    debug_fn(|writer: &mut Writer<'_>, field: &tracing::field::Field, value: &dyn fmt::Debug| {
        let text = format!("{value:?}");
        let text = escape_control(&text);
        if field.name() == "message" { write!(writer, "{text}") } else { write!(writer, "{}={text}", field.name()) }
    })
    .delimited(" ")
}

/// `text` with every control character (also the C1 range and the line separators) written as `\u{…}` or `\n`.
pub fn escape_control(text: &str) -> std::borrow::Cow<'_, str> {
    let is_control = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}');
    if !text.contains(is_control) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_control(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out.into()
}

/// systemd names the stream it reads as `device:inode`; a child whose stderr was redirected has another one.
fn stderr_is_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|fd| stream == format!("{}:{}", fd.dev(), fd.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(act: impl FnOnce()) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let layer = tracing_subscriber::fmt::layer()
            .fmt_fields(escaped())
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .with_filter(EnvFilter::new("trace").and(capped()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), act);
        let bytes = sink.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn dependencies_are_heard_from_warnings_up() {
        let text = logged(|| {
            tracing::trace!(target: "tidemark::loader", "ours");
            tracing::trace!(target: "tidemark_postgres::stream", "connector");
            tracing::info!(target: "tokio_postgres::query", "a value");
            tracing::debug!(target: "hyper::proto", "a header");
            tracing::info!(target: "tidemarkish", "somebody else's");
            tracing::warn!(target: "sled", "a warning");
        });
        assert!(text.contains("ours") && text.contains("connector") && text.contains("a warning"), "{text}");
        assert!(!text.contains("a value") && !text.contains("a header") && !text.contains("somebody"), "{text}");
    }

    #[test]
    fn no_message_can_pretend_to_be_two_lines() {
        let text = logged(|| {
            let answer = "no\n2026-01-01T00:00:00Z ERROR forged \u{1b}[2J\u{9b}\u{2028}\u{202e}";
            tracing::info!(target: "tidemark", reason = %answer, "the CRM said {answer}");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.chars().any(|c| c.is_control() && c != '\n') && !text.contains('\u{202e}'), "{text:?}");
        assert!(text.contains(r"no\n2026") && text.contains(r"\u{1b}[2J"), "{text}");
    }

    #[test]
    fn plain_text_is_not_copied() {
        assert!(matches!(escape_control("grün & gut"), std::borrow::Cow::Borrowed("grün & gut")));
    }
}
