//! Listening to everything the connector logs, for R9.

use std::fmt::{self, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Watches the process's `tracing` output, at every level, for strings that must not appear.
///
/// The listener is installed once per process as the global default: connectors log from tasks on any thread. One watch
/// is active at a time.
pub struct LogWatch(());

#[derive(Default)]
struct Watched {
    needles: Vec<String>,
    hits: Vec<String>,
    events: u64,
}

fn watched() -> MutexGuard<'static, Watched> {
    static WATCHED: OnceLock<Mutex<Watched>> = OnceLock::new();
    WATCHED.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogWatch {
    /// Begins to watch for `needles`. Fails if the process has another listener, which would make the check blind.
    pub fn begin(needles: &[String]) -> Result<Self, String> {
        static INSTALLED: OnceLock<bool> = OnceLock::new();
        if !INSTALLED.get_or_init(|| tracing::subscriber::set_global_default(Listener).is_ok()) {
            return Err("another tracing subscriber is installed in this process".into());
        }
        *watched() = Watched { needles: needles.to_vec(), ..Watched::default() };
        Ok(Self(()))
    }

    /// Ends the watch: the lines that held one of the strings, and how many events were seen.
    pub fn end(self) -> (Vec<String>, u64) {
        let watched = std::mem::take(&mut *watched());
        (watched.hits, watched.events)
    }
}

struct Listener;

/// Writes all fields of an event or a span into one line.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.0, " {field}={value}");
    }
}

fn look(metadata: &Metadata<'_>, record: impl FnOnce(&mut Line)) {
    if watched().needles.is_empty() {
        return;
    }
    // Formatted without holding the lock: a field's Debug may log itself.
    let mut line = Line(format!("{} {}:", metadata.level(), metadata.target()));
    record(&mut line);
    let mut watched = watched();
    watched.events += 1;
    if watched.hits.len() < 100 && watched.needles.iter().any(|needle| line.0.contains(needle)) {
        watched.hits.push(line.0.chars().take(300).collect());
    }
}

impl Subscriber for Listener {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        look(span.metadata(), |line| span.record(line));
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut line = Line("span:".into());
        values.record(&mut line);
        let mut watched = watched();
        if watched.needles.iter().any(|needle| line.0.contains(needle)) {
            watched.hits.push(line.0);
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        look(event.metadata(), |line| event.record(line));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
