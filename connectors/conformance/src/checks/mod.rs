//! The numbered checks.

mod r01_order;
mod r02_resume;
mod r03_gaps;
mod r04_unchanged;
mod r05_key_updates;
mod r06_malformed;
mod r07_memory;
mod r08_read_only;
mod r09_silence;
mod r10_leftovers;
mod r11_same_values;
mod r12_schema;

use crate::fixture::{Fixture, FixtureError};
use crate::guard::{Ended, guarded};
use crate::report::{CheckReport, Verdict};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_contract::SourceError;

/// Why a check ended before its end.
#[derive(Debug)]
pub enum Stop {
    /// The promise is broken.
    Failed(String),
    /// Not claimed by the connector.
    NotApplicable(String),
    /// The fixture has no means for this check.
    NotRun(String),
    /// The fixture itself failed.
    Broken(String),
}

impl Stop {
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Stop::Failed(text.into())
    }
}

impl From<SourceError> for Stop {
    fn from(error: SourceError) -> Self {
        let mut text = format!("unexpected error ({}): {error}", error.kind.as_str());
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        Stop::Failed(text)
    }
}

impl From<FixtureError> for Stop {
    fn from(error: FixtureError) -> Self {
        Stop::Broken(error.0)
    }
}

/// What a check returns: what it tried, in a few words.
pub(crate) type Outcome = Result<String, Stop>;

type Body = fn(Arc<dyn Fixture>) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// One numbered check.
pub struct Check {
    /// Number of the promise.
    pub number: u8,
    /// The promise in few words.
    pub title: &'static str,
    body: Body,
}

macro_rules! check {
    ($number:literal, $title:literal, $module:ident) => {
        Check { number: $number, title: $title, body: |fixture| Box::pin($module::check(fixture)) }
    };
}

/// All checks in order.
pub const ALL: &[Check] = &[
    check!(1, "order is commit order", r01_order),
    check!(2, "resuming misses nothing", r02_resume),
    check!(3, "no silent gap", r03_gaps),
    check!(4, "left out is unchanged, not null", r04_unchanged),
    check!(5, "a key update is delete + upsert", r05_key_updates),
    check!(6, "malformed bytes are an error", r06_malformed),
    check!(7, "memory is bounded", r07_memory),
    check!(8, "nothing is written", r08_read_only),
    check!(9, "no values or secrets in words", r09_silence),
    check!(10, "nothing is left behind", r10_leftovers),
    check!(11, "snapshot and tail agree", r11_same_values),
    check!(12, "each event has its own schema", r12_schema),
];

impl Check {
    /// Runs the check; a panic or a hang of the connector is a failure.
    pub async fn run(&self, fixture: Arc<dyn Fixture>) -> CheckReport {
        let begun = Instant::now();
        let verdict = match guarded(Duration::from_secs(600), (self.body)(fixture)).await {
            Ended::Returned(Ok(text)) => Verdict::Passed(text),
            Ended::Returned(Err(Stop::Failed(text))) => Verdict::Failed(text),
            Ended::Returned(Err(Stop::NotApplicable(text))) => Verdict::NotApplicable(text),
            Ended::Returned(Err(Stop::NotRun(text))) => Verdict::NotRun(text),
            // A battery that cannot drive its source proves nothing: that is a failure, not a skip.
            Ended::Returned(Err(Stop::Broken(text))) => Verdict::Failed(format!("the fixture failed: {text}")),
            Ended::Panicked(text) => Verdict::Failed(format!("panicked: {text}")),
            Ended::Hung => Verdict::Failed("still running after 600 s".into()),
        };
        CheckReport { number: self.number, title: self.title, verdict, took: begun.elapsed() }
    }
}

/// Says what was seen and what was wanted unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err($crate::checks::Stop::failed(format!($($words)+)));
        }
    };
}
pub(crate) use ensure;
