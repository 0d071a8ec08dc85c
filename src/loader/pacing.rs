//! When the next request may leave: the tenant's own limits, and what the CRM asks for.

use crate::config::Delivery;
use std::time::{Duration, Instant};

/// Paces requests: a token bucket for `requests_per_second`, a counter for `daily_quota`, a pause that the CRM asked
/// for (`Retry-After`) or that repeated failures call for, and fewer parallel requests after each 429.
#[derive(Debug)]
pub struct Pacing {
    per_second: f64,
    tokens: f64,
    refilled: Instant,
    daily_quota: u64,
    day: u64,
    used_today: u64,
    paused_until: Option<Instant>,
    failures: u32,
    limit: usize,
    max_limit: usize,
    successes: u32,
    initial: Duration,
    max: Duration,
}

/// Why no request may leave now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Until this instant.
    Until(Instant),
    /// Until the next day (UTC): the daily quota is used up.
    Quota,
    /// Until a request under way comes back.
    InFlight,
}

impl Pacing {
    /// Pacing by the tenant's settings.
    pub fn new(delivery: &Delivery, now: Instant) -> Self {
        let per_second = f64::from(delivery.requests_per_second);
        let limit = delivery.max_in_flight.max(1);
        Self {
            per_second,
            tokens: per_second.max(1.0),
            refilled: now,
            daily_quota: delivery.daily_quota,
            day: 0,
            used_today: 0,
            paused_until: None,
            failures: 0,
            limit,
            max_limit: limit,
            successes: 0,
            initial: delivery.retry.initial,
            max: delivery.retry.max,
        }
    }

    /// The day (since 1970, UTC) and the requests made on it.
    pub fn used_today(&self) -> (u64, u64) {
        (self.day, self.used_today)
    }

    /// Goes on with a count from before.
    pub fn set_used(&mut self, (day, used): (u64, u64)) {
        (self.day, self.used_today) = (day, used);
    }

    /// Takes the right to send one request now, with `in_flight` already under way.
    pub fn acquire(&mut self, now: Instant, unix_ms: u64, in_flight: usize) -> Result<(), Wait> {
        // During an outage one request at a time finds out whether it is over.
        let limit = if self.failures > 0 { 1 } else { self.limit };
        if in_flight >= limit {
            return Err(Wait::InFlight);
        }
        if let Some(until) = self.paused_until {
            if now < until {
                return Err(Wait::Until(until));
            }
            self.paused_until = None;
        }
        let day = unix_ms / 86_400_000;
        if day != self.day {
            self.day = day;
            self.used_today = 0;
        }
        if self.daily_quota > 0 && self.used_today >= self.daily_quota {
            return Err(Wait::Quota);
        }
        if self.per_second > 0.0 {
            let passed = now.saturating_duration_since(self.refilled).as_secs_f64();
            self.tokens = (self.tokens + passed * self.per_second).min(self.per_second.max(1.0));
            self.refilled = now;
            if self.tokens < 1.0 {
                return Err(Wait::Until(now + Duration::from_secs_f64((1.0 - self.tokens) / self.per_second)));
            }
            self.tokens -= 1.0;
        }
        self.used_today += 1;
        Ok(())
    }

    /// A request was answered as it should be.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.successes += 1;
        if self.successes >= 32 && self.limit < self.max_limit {
            self.limit += 1;
            self.successes = 0;
        }
    }

    /// The CRM could not be reached or did not answer clearly: a pause that doubles with each failure in a row.
    pub fn failed(&mut self, now: Instant) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let pause = self.backoff(self.failures);
        self.pause(now, pause);
        pause
    }

    /// The CRM asked for a pause (429); without a stated time it is chosen like after a failure. Fewer requests run in
    /// parallel from here on, and slowly more again.
    pub fn throttled(&mut self, now: Instant, retry_after: Option<Duration>) -> Duration {
        self.successes = 0;
        self.limit = (self.limit / 2).max(1);
        self.failures = self.failures.saturating_add(1);
        // A little more than was asked for, so that rounding on either side does not earn the next 429.
        let pause = match retry_after {
            Some(asked) => asked + self.initial.mul_f64(rand::random_range(0.0..0.5)),
            None => self.backoff(self.failures),
        };
        self.pause(now, pause);
        pause
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The pause before try number `attempt` (from 1), with jitter: between half and all of
    /// `initial * 2^(attempt - 1)`, at most `max`.
    pub fn backoff(&self, attempt: u32) -> Duration {
        let factor = 2f64.powi(i32::try_from(attempt.clamp(1, 30)).unwrap_or(30) - 1);
        let full = self.initial.mul_f64(factor).min(self.max);
        full.mul_f64(rand::random_range(0.5..=1.0))
    }

    fn pause(&mut self, now: Instant, pause: Duration) {
        let until = now + pause;
        self.paused_until = Some(self.paused_until.map_or(until, |old| old.max(until)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pacing(change: impl FnOnce(&mut Delivery)) -> (Pacing, Instant) {
        let mut delivery = Delivery::default();
        change(&mut delivery);
        let now = Instant::now();
        (Pacing::new(&delivery, now), now)
    }

    #[test]
    fn the_rate_is_kept() {
        let (mut p, now) = pacing(|d| d.requests_per_second = 10);
        let mut sent = 0;
        for ms in 0..2_000 {
            if p.acquire(now + Duration::from_millis(ms), 0, 0).is_ok() {
                sent += 1;
            }
        }
        assert!((28..=31).contains(&sent), "10 at once and 10 a second for 2 s, sent {sent}");
    }

    #[test]
    fn retry_after_pauses_everything_and_halves_the_lanes() {
        let (mut p, now) = pacing(|d| d.max_in_flight = 4);
        assert_eq!(p.acquire(now, 0, 3), Ok(()));
        p.throttled(now, Some(Duration::from_secs(7)));
        assert!(matches!(p.acquire(now + Duration::from_secs(6), 0, 0), Err(Wait::Until(_))));
        let later = now + Duration::from_secs(8);
        assert_eq!(p.acquire(later, 0, 0), Ok(()));
        assert_eq!(p.acquire(later, 0, 1), Err(Wait::InFlight), "one at a time until it is over");
        p.succeeded();
        assert_eq!(p.acquire(later, 0, 1), Ok(()));
        assert_eq!(p.acquire(later, 0, 2), Err(Wait::InFlight));
    }

    #[test]
    fn failures_back_off_up_to_the_maximum() {
        let (mut p, now) = pacing(|d| {
            d.retry.initial = Duration::from_millis(100);
            d.retry.max = Duration::from_secs(1);
        });
        assert!(p.failed(now) <= Duration::from_millis(100));
        for _ in 0..20 {
            let pause = p.failed(now);
            assert!(pause <= Duration::from_secs(1));
        }
        assert!(p.backoff(20) >= Duration::from_millis(500));
    }

    #[test]
    fn the_daily_quota_ends_with_the_day() {
        let (mut p, now) = pacing(|d| d.daily_quota = 2);
        assert!(p.acquire(now, 1, 0).is_ok() && p.acquire(now, 2, 0).is_ok());
        assert_eq!(p.acquire(now, 3, 0), Err(Wait::Quota));
        let before = p.used_today();
        assert!(p.acquire(now, 86_400_001, 0).is_ok());
        // A restart on the same day goes on counting; one on the next day begins anew.
        p.set_used(before);
        assert_eq!(p.acquire(now, 86_399_999, 0), Err(Wait::Quota));
        assert!(p.acquire(now, 86_400_001, 0).is_ok());
        assert_eq!(p.used_today(), (1, 1));
    }
}
