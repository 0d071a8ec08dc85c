//! What a run of the battery found.

use std::fmt;
use std::time::Duration;

/// How one check ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The promise was kept in every case tried. The text says what was tried.
    Passed(String),
    /// The promise was broken: what was seen, and what was wanted.
    Failed(String),
    /// The connector does not claim what the check is about.
    NotApplicable(String),
    /// The fixture or the environment could not do what the check needs.
    NotRun(String),
}

/// One check's result.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// Number of the promise.
    pub number: u8,
    /// The promise in few words.
    pub title: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
}

/// The results of one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was tested.
    pub subject: String,
    /// One entry per check, in order of their numbers.
    pub checks: Vec<CheckReport>,
    /// Why nothing ran at all, if so.
    pub did_not_run: Option<String>,
}

impl Report {
    pub(crate) fn new(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), checks: Vec::new(), did_not_run: None }
    }

    /// The report of a suite that could not run at all (no server of this vendor on this machine).
    pub fn not_run(subject: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { did_not_run: Some(reason.into()), ..Self::new(subject) }
    }

    /// Numbers of the checks that failed.
    pub fn failed(&self) -> Vec<u8> {
        let failed = |check: &&CheckReport| matches!(check.verdict, Verdict::Failed(_));
        self.checks.iter().filter(failed).map(|check| check.number).collect()
    }

    /// Numbers of the checks that passed.
    pub fn passed(&self) -> Vec<u8> {
        let passed = |check: &&CheckReport| matches!(check.verdict, Verdict::Passed(_));
        self.checks.iter().filter(passed).map(|check| check.number).collect()
    }

    /// `Err` with the whole report if a check failed, or, where the environment says `TIDEMARK_REQUIRE_ALL=1`, if one did
    /// not run.
    pub fn require(&self) -> Result<(), String> {
        let all = std::env::var("TIDEMARK_REQUIRE_ALL").is_ok_and(|v| v == "1");
        self.require_with(all)
    }

    /// As [`Report::require`], with the environment's word given.
    pub fn require_with(&self, all: bool) -> Result<(), String> {
        let skipped = self.did_not_run.is_some() || self.checks.iter().any(|c| matches!(c.verdict, Verdict::NotRun(_)));
        if !self.failed().is_empty() {
            return Err(self.to_string());
        }
        if all && (skipped || self.checks.is_empty()) {
            return Err(format!("{self}\nTIDEMARK_REQUIRE_ALL=1 does not accept a check that did not run"));
        }
        Ok(())
    }
}

/// A summary line, then one line per check.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reason) = &self.did_not_run {
            return write!(f, "conformance of {}: DID NOT RUN: {reason}", self.subject);
        }
        let count = |wanted: fn(&Verdict) -> bool| self.checks.iter().filter(|c| wanted(&c.verdict)).count();
        write!(
            f,
            "conformance of {}: {} passed, {} failed, {} not applicable, {} not run",
            self.subject,
            count(|v| matches!(v, Verdict::Passed(_))),
            count(|v| matches!(v, Verdict::Failed(_))),
            count(|v| matches!(v, Verdict::NotApplicable(_))),
            count(|v| matches!(v, Verdict::NotRun(_))),
        )?;
        for check in &self.checks {
            let (word, text) = match &check.verdict {
                Verdict::Passed(text) => ("passed", text),
                Verdict::Failed(text) => ("FAILED", text),
                Verdict::NotApplicable(text) => ("not applicable", text),
                Verdict::NotRun(text) => ("NOT RUN", text),
            };
            let seconds = check.took.as_secs_f64();
            write!(f, "\n  R{:<2} {}: {word} ({seconds:.1} s): {text}", check.number, check.title)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(verdict: Verdict) -> Report {
        let check = CheckReport { number: 3, title: "x", verdict, took: Duration::ZERO };
        Report { checks: vec![check], ..Report::new("test") }
    }

    #[test]
    fn what_did_not_run_is_a_failure_only_where_everything_is_required() {
        assert!(report(Verdict::NotRun("no server".into())).require_with(false).is_ok());
        assert!(report(Verdict::NotRun("no server".into())).require_with(true).is_err());
        assert!(Report::not_run("test", "no server").require_with(true).is_err());
        assert!(Report::not_run("test", "no server").to_string().contains("DID NOT RUN"));
        assert!(report(Verdict::NotApplicable("not claimed".into())).require_with(true).is_ok());
        assert!(report(Verdict::Failed("gap".into())).require_with(false).is_err());
    }
}
