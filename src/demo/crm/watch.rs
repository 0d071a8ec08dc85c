//! What there is to look at: counters, the last events, and each record's history. All of it bounded.

use super::record::{Status, push_text};
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Events kept for those who look.
const EVENTS: usize = 1_000;
/// Writes kept of one record.
const PER_RECORD: usize = 50;

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// One write of one record.
#[derive(Clone, Serialize)]
pub(super) struct Event {
    pub seq: u64,
    pub at: u64,
    pub entity: Arc<str>,
    pub external_id: Box<str>,
    pub version: Box<str>,
    pub status: Status,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Box<str>>,
}

/// An entry of a record's history.
#[derive(Clone, Serialize)]
pub(super) struct Past {
    pub at: u64,
    pub version: Box<str>,
    pub status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Box<str>>,
    /// `{"field":{"from":…,"to":…}}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<Box<RawValue>>,
}

/// Counters since the start.
#[derive(Default)]
pub(super) struct Counters {
    /// Requests of the contract, by HTTP status; 0 is a connection that was cut.
    pub requests: BTreeMap<u16, u64>,
    /// Records written, by what became of them.
    pub records: BTreeMap<Status, u64>,
    /// Writes whose version was lower than the stored one.
    pub stale_writes: u64,
    /// Writes with the version that was stored already.
    pub repeated_writes: u64,
    /// Records that went back to an older version, which only happens with the switch `no_fencing`.
    pub regressions: u64,
    /// Requests answered from what their `Idempotency-Key` was answered before.
    pub replays: u64,
    /// Switches that went off.
    pub faults: u64,
}

/// The last events, oldest first.
#[derive(Default)]
pub(super) struct Feed {
    events: VecDeque<Event>,
    pub seq: u64,
}

impl Feed {
    pub fn push(&mut self, mut event: Event) {
        self.seq += 1;
        event.seq = self.seq;
        if self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The last `limit` events after number `seq`.
    pub fn since(&self, seq: u64, limit: usize) -> Vec<Event> {
        let fresh = usize::try_from(self.seq.saturating_sub(seq)).unwrap_or(usize::MAX).min(self.events.len());
        let skip = self.events.len() - fresh.min(limit);
        self.events.iter().skip(skip).cloned().collect()
    }
}

/// Histories of records: the last writes of each, up to a number of writes and bytes in all.
pub(super) struct History {
    limit: usize,
    max_bytes: usize,
    bytes: usize,
    records: HashMap<Box<str>, Pasts>,
    /// Which record has the oldest entry, next oldest, …
    order: VecDeque<Box<str>>,
}

#[derive(Default)]
struct Pasts {
    entries: VecDeque<Past>,
    /// Entries that went because of the record's own limit: as many of its places in `order` mean nothing any more.
    passed: usize,
}

impl History {
    /// Keeps up to `limit` writes and about `max_bytes` bytes; 0 keeps nothing.
    pub fn new(limit: usize, max_bytes: usize) -> Self {
        Self { limit, max_bytes, bytes: 0, records: HashMap::new(), order: VecDeque::new() }
    }

    pub fn is_on(&self) -> bool {
        self.limit > 0
    }

    pub fn push(&mut self, entity: &str, external_id: &str, past: Past) {
        if !self.is_on() {
            return;
        }
        let key = key(entity, external_id);
        self.bytes += size(&key, &past);
        self.order.push_back(key.clone());
        let pasts = self.records.entry(key.clone()).or_default();
        pasts.entries.push_back(past);
        if pasts.entries.len() > PER_RECORD
            && let Some(dropped) = pasts.entries.pop_front()
        {
            pasts.passed += 1;
            self.bytes -= size(&key, &dropped);
        }
        while self.order.len() > self.limit || self.bytes > self.max_bytes {
            let Some(oldest) = self.order.pop_front() else { break };
            let Some(pasts) = self.records.get_mut(&oldest) else { continue };
            if pasts.passed > 0 {
                pasts.passed -= 1;
                continue;
            }
            if let Some(dropped) = pasts.entries.pop_front() {
                self.bytes -= size(&oldest, &dropped);
            }
            if pasts.entries.is_empty() {
                self.records.remove(&oldest);
            }
        }
    }

    /// The record's history, newest first.
    pub fn of(&self, entity: &str, external_id: &str) -> Vec<Past> {
        self.records
            .get(&key(entity, external_id))
            .into_iter()
            .flat_map(|pasts| pasts.entries.iter().rev())
            .cloned()
            .collect()
    }
}

fn key(entity: &str, external_id: &str) -> Box<str> {
    format!("{}/{entity}{external_id}", entity.len()).into()
}

fn size(key: &str, past: &Past) -> usize {
    key.len() * 2
        + past.version.len()
        + past.message.as_deref().map_or(0, str::len)
        + past.changes.as_deref().map_or(0, |raw| raw.get().len())
        + 120
}

/// `{"results":[…` one element at a time.
pub(super) struct Results(Vec<u8>);

impl Results {
    pub fn with_capacity(records: usize) -> Self {
        let mut out = Vec::with_capacity(records * 80 + 16);
        out.extend_from_slice(b"{\"results\":[");
        Self(out)
    }

    pub fn push(
        &mut self,
        external_id: &str,
        status: Status,
        id: Option<u64>,
        refusal: Option<(&str, Option<&str>, &str)>,
    ) {
        let out = &mut self.0;
        if out.last() == Some(&b'}') {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"external_id\":");
        push_text(out, external_id);
        out.extend_from_slice(b",\"status\":\"");
        out.extend_from_slice(status.name().as_bytes());
        out.push(b'"');
        if let Some(id) = id {
            out.extend_from_slice(b",\"id\":\"");
            out.extend_from_slice(itoa::Buffer::new().format(id).as_bytes());
            out.push(b'"');
        }
        if let Some((code, field, message)) = refusal {
            out.extend_from_slice(b",\"error\":{\"code\":");
            push_text(out, code);
            if let Some(field) = field {
                out.extend_from_slice(b",\"field\":");
                push_text(out, field);
            }
            out.extend_from_slice(b",\"message\":");
            push_text(out, message);
            out.push(b'}');
        }
        out.push(b'}');
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"]}");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(version: u64) -> Past {
        let changes = RawValue::from_string(r#"{"a":{"to":1}}"#.to_owned()).unwrap();
        Past {
            at: 0,
            version: version.to_string().into(),
            status: Status::Updated,
            message: None,
            changes: Some(changes),
        }
    }

    #[test]
    fn history_is_bounded_per_record_and_in_all() {
        let mut history = History::new(200, usize::MAX);
        for version in 0..100 {
            history.push("e", "busy", past(version));
        }
        let busy = history.of("e", "busy");
        assert_eq!(busy.len(), PER_RECORD);
        assert_eq!(&*busy[0].version, "99", "newest first");
        (0..100).for_each(|record| history.push("e", &record.to_string(), past(1)));
        assert_eq!(history.of("e", "busy").len(), PER_RECORD, "its oldest are gone already, and nothing else need go");
        (0..1_000).for_each(|record| history.push("e", &record.to_string(), past(1)));
        assert!(history.of("e", "busy").is_empty());
        assert!(history.of("e", "1").is_empty());
        assert_eq!(history.of("e", "999").len(), 1);
        assert!(history.records.len() <= 200 && history.order.len() <= 200);
        let mut small = History::new(usize::MAX, 10_000);
        (0..1_000).for_each(|record| small.push("e", &record.to_string(), past(1)));
        assert!(small.bytes <= 10_000 && small.of("e", "999").len() == 1);
        assert_eq!(
            small.bytes,
            small
                .records
                .iter()
                .flat_map(|(key, all)| all.entries.iter().map(move |past| size(key, past)))
                .sum::<usize>()
        );
        let mut off = History::new(0, 0);
        off.push("e", "a", past(1));
        assert!(off.of("e", "a").is_empty());
    }

    #[test]
    fn histories_of_two_records_never_mix() {
        let mut history = History::new(10, usize::MAX);
        history.push("a", "bc", past(1));
        assert!(history.of("ab", "c").is_empty());
        assert!(history.of("a/", "bc").is_empty());
    }

    #[test]
    fn the_feed_gives_what_is_new() {
        let event = |external_id: &str| Event {
            seq: 0,
            at: 0,
            entity: "e".into(),
            external_id: external_id.into(),
            version: "1".into(),
            status: Status::Created,
            message: None,
        };
        let mut feed = Feed::default();
        (0..EVENTS + 5).for_each(|n| feed.push(event(&n.to_string())));
        let ids = |events: Vec<Event>| events.into_iter().map(|e| e.external_id.to_string()).collect::<Vec<_>>();
        assert_eq!(ids(feed.since(feed.seq - 2, 10)), ["1003", "1004"]);
        assert_eq!(ids(feed.since(0, 1)), ["1004"]);
        assert_eq!(feed.since(0, usize::MAX).len(), EVENTS);
        assert!(feed.since(feed.seq, 10).is_empty());
    }
}
