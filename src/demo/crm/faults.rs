//! Fault switches: what the CRM does wrong on purpose.
//!
//! They hold for the calls under `/v1/` only. One generator decides, in the order in which requests come in; with the
//! same seed and one request at a time, the same things go wrong.

use super::watch::now_ms;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often a switch goes off: a share of requests (`0.1`), or each of the next few (`{"next": 3}`).
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Dose {
    /// Share of requests, 0 to 1.
    #[serde(skip_serializing_if = "is_zero")]
    pub share: f64,
    /// Requests still to come for which it surely goes off.
    #[serde(skip_serializing_if = "is_none")]
    pub next: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(share: &f64) -> bool {
    *share == 0.0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_none(next: &u64) -> bool {
    *next == 0
}

impl Dose {
    /// A share of requests.
    pub fn share(share: f64) -> Self {
        Self { share, next: 0 }
    }

    /// The next few requests.
    pub fn next(next: u64) -> Self {
        Self { share: 0.0, next }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DoseParts {
    #[serde(default)]
    share: f64,
    #[serde(default)]
    next: u64,
}

impl<'de> Deserialize<'de> for Dose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wanted = || D::Error::custom("wanted a share between 0 and 1, or {\"share\": …, \"next\": …}");
        let dose = match Value::deserialize(deserializer)? {
            Value::Number(share) => Dose::share(share.as_f64().ok_or_else(wanted)?),
            value => {
                let DoseParts { share, next } = DoseParts::deserialize(value).map_err(|_| wanted())?;
                Dose { share, next }
            }
        };
        if (0.0..=1.0).contains(&dose.share) { Ok(dose) } else { Err(wanted()) }
    }
}

/// Slowing down.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Throttle {
    /// Share of requests.
    pub share: f64,
    /// Requests still to come.
    pub next: u64,
    /// `Retry-After` as it is sent (`"7"`, `"garbage"`, an HTTP date); `date:7` is the HTTP date in 7 s; none if absent
    /// or `none`.
    pub retry_after: Option<String>,
}

/// Upserts that are refused.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reject {
    /// Of this entity; of any if absent.
    pub entity: Option<String>,
    /// One in so many records, always the same ones (chosen by their external ids).
    pub every: Option<u64>,
    /// Those that have this field …
    pub field: Option<String>,
    /// … with this value; with any value but null if absent.
    pub equals: Option<Value>,
    /// The code they are refused with.
    pub code: Option<String>,
    /// The message they are refused with.
    pub message: Option<String>,
}

/// All switches. What is absent is off.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Seed of the generator that decides about shares.
    pub seed: u64,
    /// Every request takes this long …
    pub latency_ms: u64,
    /// … and up to this much longer.
    pub jitter_ms: u64,
    /// 429; nothing is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Throttle>,
    /// 401; nothing is done.
    pub unauthorized: Dose,
    /// 403; nothing is done.
    pub forbidden: Dose,
    /// 500; nothing is done.
    pub error_500: Dose,
    /// 503; nothing is done.
    pub error_503: Dose,
    /// The connection is cut; nothing is done.
    pub drop_before: Dose,
    /// The write is done, then the connection is cut without an answer.
    pub drop_after_apply: Dose,
    /// The write is done, and the connection is cut in the middle of the answer.
    pub cut_answer: Dose,
    /// 200 with a login page; nothing is done.
    pub html_login: Dose,
    /// The write is done; its answer is half a JSON document.
    pub truncated_json: Dose,
    /// The write is done; its answer lacks the last results.
    pub too_few_results: Dose,
    /// Share of records that are written and answered "stale".
    pub stale: f64,
    /// Upserts to refuse.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reject: Vec<Reject>,
    /// Lower versions are applied as well, and counted as regressions: shows whether the sender alone keeps order.
    pub no_fencing: bool,
}

impl Faults {
    /// Whether every switch is off.
    pub fn are_off(&self) -> bool {
        Faults { seed: self.seed, ..Faults::default() } == *self
    }
}

/// What goes wrong before a request is looked at.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Before {
    Drop,
    Status { status: u16, retry_after: Option<String> },
    Login,
}

/// What goes wrong with an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum After {
    Drop,
    Cut,
    Truncate,
    TooFew,
}

/// What is going to happen to one request.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Plan {
    pub latency: Duration,
    pub before: Option<Before>,
    pub after: Option<After>,
}

/// The switches and their generator.
#[derive(Default)]
pub(super) struct Switches {
    pub faults: Faults,
    random: u64,
}

impl Switches {
    pub fn set(&mut self, faults: Faults) {
        self.random = faults.seed;
        self.faults = faults;
    }

    /// Decides about the next request.
    pub fn plan(&mut self) -> Plan {
        if self.faults.are_off() {
            return Plan::default();
        }
        let mut faults = std::mem::take(&mut self.faults);
        let jitter = if faults.jitter_ms > 0 { self.next() % (faults.jitter_ms + 1) } else { 0 };
        let latency = Duration::from_millis(faults.latency_ms.saturating_add(jitter).min(3_600_000));
        let mut before = None;
        let mut after = None;
        // Every share draws, whatever the others came to: turning one switch does not move the others' places. "next"
        // counts only requests that it can do something to.
        if self.draw(&mut faults.drop_before, true) {
            before = Some(Before::Drop);
        }
        for (dose, status) in [
            (&mut faults.unauthorized, 401),
            (&mut faults.forbidden, 403),
            (&mut faults.error_500, 500),
            (&mut faults.error_503, 503),
        ] {
            if self.draw(dose, before.is_none()) {
                before = Some(Before::Status { status, retry_after: None });
            }
        }
        if let Some(throttle) = &mut faults.throttle {
            let mut dose = Dose { share: throttle.share, next: throttle.next };
            if self.draw(&mut dose, before.is_none()) {
                let retry_after = retry_after(throttle.retry_after.as_deref());
                before = Some(Before::Status { status: 429, retry_after });
            }
            throttle.next = dose.next;
        }
        if self.draw(&mut faults.html_login, before.is_none()) {
            before = Some(Before::Login);
        }
        for (dose, what) in [
            (&mut faults.drop_after_apply, After::Drop),
            (&mut faults.cut_answer, After::Cut),
            (&mut faults.truncated_json, After::Truncate),
            (&mut faults.too_few_results, After::TooFew),
        ] {
            if self.draw(dose, before.is_none() && after.is_none()) {
                after = Some(what);
            }
        }
        self.faults = faults;
        Plan { latency, before, after }
    }

    /// Whether a record that was written is to be answered "stale".
    pub fn stale(&mut self) -> bool {
        self.faults.stale > 0.0 && self.chance(self.faults.stale)
    }

    fn draw(&mut self, dose: &mut Dose, possible: bool) -> bool {
        let hit = dose.share > 0.0 && self.chance(dose.share);
        if possible && dose.next > 0 {
            dose.next -= 1;
            return true;
        }
        hit && possible
    }

    fn chance(&mut self, share: f64) -> bool {
        // 53 bits: exactly what a float between 0 and 1 can tell apart.
        #[allow(clippy::cast_precision_loss)]
        let drawn = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        drawn < share
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

fn retry_after(setting: Option<&str>) -> Option<String> {
    match setting {
        None | Some("none" | "") => None,
        Some(text) => match text.strip_prefix("date:").and_then(|seconds| seconds.trim().parse::<u64>().ok()) {
            Some(seconds) => {
                let at = UNIX_EPOCH + Duration::from_millis(now_ms()) + Duration::from_secs(seconds.min(86_400 * 365));
                Some(httpdate::fmt_http_date(at.max(SystemTime::UNIX_EPOCH)))
            }
            None => Some(text.to_owned()),
        },
    }
}

impl Reject {
    /// Whether it means the record; `field` gives a field's value.
    pub fn means(&self, entity: &str, external_id: &str, field: impl Fn(&str) -> Option<Value>) -> bool {
        if self.entity.as_deref().is_some_and(|wanted| wanted != entity) {
            return false;
        }
        if let Some(every) = self.every
            && !xxhash_rust::xxh3::xxh3_64(external_id.as_bytes()).is_multiple_of(every)
        {
            return false;
        }
        match (&self.field, &self.equals) {
            (None, _) => true,
            (Some(name), None) => field(name).is_some_and(|value| !value.is_null()),
            (Some(name), Some(wanted)) => field(name).as_ref() == Some(wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Faults, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn switches_are_read_and_shown_again() {
        let text = r#"{"seed":7,"latency_ms":20,"throttle":{"share":0.1,"retry_after":"7"},"error_500":0.5,
            "unauthorized":{"next":2},"reject":[{"entity":"account","every":100,"code":"bad","message":"no"}]}"#;
        let faults = read(text).unwrap();
        assert_eq!((faults.error_500, faults.unauthorized), (Dose::share(0.5), Dose::next(2)));
        assert_eq!(read(&serde_json::to_string(&faults).unwrap()).unwrap(), faults);
        assert!(read("{}").unwrap().are_off());
        for bad in [
            r#"{"error_500":2}"#,
            r#"{"error_500":-0.1}"#,
            r#"{"error_500":"often"}"#,
            r#"{"latencyms":1}"#,
            r#"{"stale":{"next":1}}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_seed_decides_and_a_share_is_a_share() {
        let run = |seed: u64| {
            let mut switches = Switches::default();
            switches.set(Faults {
                seed,
                error_500: Dose::share(0.3),
                drop_after_apply: Dose::share(0.1),
                ..Faults::default()
            });
            (0..10_000).map(|_| switches.plan()).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let failed = run(3).iter().filter(|plan| plan.before.is_some()).count();
        assert!((2_800..3_200).contains(&failed), "{failed}");
        let dropped = run(3).iter().filter(|plan| plan.after.is_some()).count();
        assert!((600..800).contains(&dropped), "{dropped}");
    }

    #[test]
    fn the_next_few_are_counted_down() {
        let mut switches = Switches::default();
        switches.set(Faults {
            throttle: Some(Throttle { next: 2, retry_after: Some("garbage".to_owned()), ..Throttle::default() }),
            ..Faults::default()
        });
        let hit = Some(Before::Status { status: 429, retry_after: Some("garbage".to_owned()) });
        let seen: Vec<_> = (0..3).map(|_| switches.plan().before).collect();
        assert_eq!(seen, [hit.clone(), hit, None]);
        assert_eq!(switches.faults.throttle.as_ref().unwrap().next, 0);
    }

    #[test]
    fn retry_after_takes_every_form() {
        assert_eq!(retry_after(Some("7")).as_deref(), Some("7"));
        assert_eq!(retry_after(Some("none")), None);
        assert_eq!(retry_after(None), None);
        assert!(httpdate::parse_http_date(&retry_after(Some("date:30")).unwrap()).unwrap() > SystemTime::now());
    }

    #[test]
    fn rejections_mean_always_the_same_records() {
        let rule = Reject { every: Some(100), ..Reject::default() };
        let meant = |rule: &Reject| (0..10_000).filter(|n| rule.means("e", &n.to_string(), |_| None)).count();
        assert!((60..140).contains(&meant(&rule)), "{}", meant(&rule));
        assert_eq!(meant(&rule), meant(&rule));
        let rule = Reject {
            entity: Some("a".to_owned()),
            field: Some("x".to_owned()),
            equals: Some(5.into()),
            ..Reject::default()
        };
        assert!(rule.means("a", "1", |_| Some(5.into())));
        assert!(!rule.means("b", "1", |_| Some(5.into())));
        assert!(!rule.means("a", "1", |_| Some(6.into())));
        assert!(!rule.means("a", "1", |_| None));
    }
}
