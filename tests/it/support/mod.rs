//! What the scenarios need: a source, a CRM, the daemon, and a judge.
#![allow(dead_code)]

pub mod crm;
pub mod daemon;
pub mod door;
mod http;
pub mod judge;
pub mod mysql;
pub mod session;
pub mod source;
pub mod workload;

use crm::{Arrival, Content, Crm};
use daemon::{Daemon, Tenant};
use source::Source;
use std::time::{Duration, Instant};

/// A vendor's server with the database of a scene.
pub trait Vendor {
    /// The judge's connection.
    type Client;

    fn port(&self) -> u16;

    fn database(&self) -> &str;

    /// Its part of the tenant file: the rest of `[source]`, and the engine's own table.
    fn engine(&self) -> String;

    /// What the CRM must hold now, in the vendor's own SQL.
    async fn wanted(&self, client: &Self::Client, oracle: &str) -> Content;

    /// Every state that each record ever had.
    async fn states(&self, client: &Self::Client) -> judge::States;
}

/// Northwind, a CRM with its model, and a tenant between them.
pub struct Scene<V: Vendor = Source> {
    pub source: V,
    pub client: V::Client,
    pub crm: Crm,
    pub tenant: Tenant,
    pub oracle: String,
}

impl Scene {
    /// `None`, said aloud, where there is no PostgreSQL.
    pub async fn northwind() -> Option<Self> {
        let source = Source::northwind().await?;
        let model = std::fs::read(source::repository("tests/data/e2e/crm.json")).expect("crm.json");
        let crm = Crm::start(serde_json::from_slice(&model).expect("JSON")).await;
        let tenant = Tenant::new(&source, &crm, "tests/data/e2e/mapping.toml");
        Some(Self::of(source, crm, tenant, source::northwind_oracle()).await)
    }

    /// A scene of its own tables: `sql` makes them, `mapping` and `model` say what becomes of them, `oracle` what it must be.
    pub async fn of_tables(sql: &str, mapping: &str, model: serde_json::Value, oracle: &str) -> Option<Self> {
        let source = Source::empty().await?;
        source.psql(sql);
        source.own_everything();
        let crm = Crm::start(model).await;
        let mut tenant = Tenant::new(&source, &crm, "tests/data/e2e/mapping.toml");
        tenant.pack = tenant.path().join("mapping.toml");
        std::fs::write(&tenant.pack, mapping).expect("the pack");
        Some(Self::of(source, crm, tenant, oracle.to_owned()).await)
    }

    async fn of(source: Source, crm: Crm, tenant: Tenant, oracle: String) -> Self {
        let client = source.connect().await;
        Self { source, client, crm, tenant, oracle }
    }
}

impl<V: Vendor> Scene<V> {
    pub fn start(&self) -> Daemon {
        self.tenant.start(&self.crm)
    }

    pub async fn wanted(&self) -> Content {
        self.source.wanted(&self.client, &self.oracle).await
    }

    /// Differences between what should be and what is, now.
    pub async fn differences(&self) -> Vec<String> {
        judge::differences(&self.wanted().await, &self.crm.content(), 8)
    }

    /// Waits until the CRM equals the source; panics with the differences and the daemon's last words.
    pub async fn equal(&self, daemon: &mut Daemon, limit: Duration) {
        if let Err(why) = self.reaches(daemon, limit).await {
            panic!("{why}");
        }
    }

    async fn reaches(&self, daemon: &mut Daemon, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        loop {
            let alive = daemon.is_running();
            let differences = self.differences().await;
            if differences.is_empty() {
                return Ok(());
            }
            if !alive || Instant::now() > deadline {
                let state = if alive { "after the time given" } else { "and the daemon has ended" };
                let status = if alive { self.tenant.status().await.to_string() } else { String::new() };
                return Err(format!(
                    "the CRM is not equal to the source {state}:\n{}\n{}\n{status}\n{}",
                    differences.join("\n"),
                    self.arrivals(&differences[0]),
                    self.tenant.last_words()
                ));
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }

    /// What arrived of the record that a difference names.
    fn arrivals(&self, difference: &str) -> String {
        let history = self.crm.history();
        let is_named = |a: &&Arrival| difference.starts_with(&format!("{}/{} ", a.entity, a.external_id));
        let arrivals = history.iter().filter(is_named).map(|arrival| format!("{arrival:?}"));
        arrivals.collect::<Vec<_>>().join("\n")
    }

    /// As [`Scene::equal`], then judges everything that arrived on the way.
    pub async fn equal_and_in_order(&self, daemon: &mut Daemon, limit: Duration) {
        self.equal(daemon, limit).await;
        self.in_order().await;
    }

    /// Judges what arrived: no record went back in time, and the contract was kept.
    pub async fn in_order(&self) {
        let history = self.crm.history();
        let wrong = judge::judge_history(&self.source.states(&self.client).await, &history);
        let first = wrong.iter().take(8).cloned().collect::<Vec<_>>().join("\n");
        assert!(
            wrong.is_empty(),
            "{} of {} arrivals are wrong:\n{first}\n{}",
            wrong.len(),
            history.len(),
            self.tenant.last_words()
        );
        let violations = self.crm.violations();
        assert!(
            violations.is_empty(),
            "the contract was broken {} times: {:?}",
            violations.len(),
            &violations[..violations.len().min(5)]
        );
    }

    /// Waits for something to become true.
    pub async fn until(&self, what: &str, limit: Duration, mut is: impl AsyncFnMut(&Self) -> bool) {
        let deadline = Instant::now() + limit;
        while !is(self).await {
            assert!(Instant::now() < deadline, "waited {limit:?} for {what}, in vain\n{}", self.tenant.last_words());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until nothing more is sent.
    pub async fn quiet(&self) {
        let mut before = u64::MAX;
        let mut calm = 0;
        while calm < 4 {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let now = self.crm.writes();
            calm = if now == before { calm + 1 } else { 0 };
            before = now;
        }
    }
}

/// A scene, or the end of the test where there is no PostgreSQL.
#[macro_export]
macro_rules! scene {
    ($make:expr) => {
        match $make.await {
            Some(scene) => scene,
            None => return,
        }
    };
}

/// Whether the long versions were asked for (`TIDEMARK_SOAK=1`).
pub fn soak() -> bool {
    std::env::var("TIDEMARK_SOAK").is_ok_and(|v| v == "1")
}

/// A seed: the one in `TIDEMARK_SEED`, or one from the clock; printed, so that a failure can be repeated.
pub fn seed(test: &str) -> u64 {
    let clock =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |d| d.as_micros() as u64);
    let seed = std::env::var("TIDEMARK_SEED").ok().and_then(|v| v.parse().ok()).unwrap_or_else(clock);
    println!("{test}: TIDEMARK_SEED={seed}");
    seed
}

pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}
