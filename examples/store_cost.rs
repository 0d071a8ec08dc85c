//! What the store costs: `cargo run --release --example store_cost -- ledger 1000000 random 200 [DIR]`, or
//! `… -- commit 500 [DIR]`.
//!
//! `ledger COUNT ORDER BATCH`: a first pass that asks for and writes COUNT entries, BATCH at a time (ORDER: `random` UUIDs,
//! `ordered` ids as a snapshot yields them, `owners` random ids with an index by row), flushed every 25,000 as a running
//! pipeline does about twice a second; a second pass that finds everything unchanged; a search for what it did not see;
//! then opening again. `commit COUNT`: durable steps with marks and obligations, one by one.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tidemark::store::{Checkpoint, Entry, Obligation, Reason, Step, Store};
use tidemark_contract::{Position, RowBuilder, RowKey, Value};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let word = |n: usize, usual: &str| args.get(n).cloned().unwrap_or_else(|| usual.to_string());
    let (what, count) = (word(0, "ledger"), word(1, "1000000").parse()?);
    let place = |n: usize| args.get(n).map_or_else(|| std::env::temp_dir().join("tidemark-store-cost"), PathBuf::from);
    match what.as_str() {
        "ledger" => ledger(count, &word(2, "random"), word(3, "200").parse()?, &place(4)),
        "commit" => commit(count, &place(2)),
        other => Err(format!("`{other}`: ledger or commit?").into()),
    }
}

/// A well mixed number.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn key(n: u64) -> Result<RowKey, Failure> {
    let mut row = RowBuilder::default();
    row.push(Value::Int(i64::try_from(n)?));
    RowKey::of(&row.finish(), &[0]).ok_or_else(|| "no key".into())
}

fn id_of(order: &str, n: u64) -> String {
    let (a, b) = (mix(n), mix(n + 1));
    match order {
        "ordered" => format!("cust-{n}"),
        "owners" => format!("mail-{}@example.com", a % 100_000_000),
        _ => format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xffff,
            b >> 48,
            b & 0xffff_ffff_ffff
        ),
    }
}

/// Seconds of CPU and MiB of memory (now, and at most) of this process.
fn used() -> (f64, f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |n: usize| fields.get(n).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mib = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    };
    ((ticks(11) + ticks(12)) / 100.0, mib("VmRSS:"), mib("VmHWM:"))
}

struct Meter {
    wall: Instant,
    cpu: f64,
}

impl Meter {
    fn start() -> Self {
        Self { wall: Instant::now(), cpu: used().0 }
    }

    fn report(&self, what: &str, count: u64, more: &str) {
        let (cpu, now, peak) = used();
        let (wall, cpu) = (self.wall.elapsed().as_secs_f64(), cpu - self.cpu);
        let each = |seconds: f64| seconds * 1e6 / count.max(1) as f64;
        println!(
            "{what:<28} {wall:>7.2} s {:>7.2} us/entry (cpu {:.2}) | RSS {now:.0} MiB, peak {peak:.0} MiB {more}",
            each(wall),
            each(cpu)
        );
    }
}

fn disk(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|e| if e.path().is_dir() { disk(&e.path()) } else { e.metadata().map_or(0, |m| m.len()) })
        .sum()
}

fn ledger(count: u64, order: &str, batch: u64, dir: &Path) -> Result<(), Failure> {
    let _ = std::fs::remove_dir_all(dir);
    println!("{count} entries, {order}, {batch} at a time, in {}", dir.display());
    let store = Store::open(dir)?;
    let ledger = store.ledger();
    let rule = ledger.rule("account")?;
    let mut longest = Duration::ZERO;
    let mut flushes = 0;
    let owner = |n: u64| if order == "owners" { key(n).map(Some) } else { Ok(None) };

    let meter = Meter::start();
    let mut next_flush = 25_000;
    for from in (0..count).step_by(usize::try_from(batch)?) {
        let ids: Vec<String> = (from..(from + batch).min(count)).map(|n| id_of(order, n)).collect();
        let begun = Instant::now();
        for id in &ids {
            ledger.get(rule, id)?;
        }
        let entries: Result<Vec<(&str, Entry)>, Failure> = (from..)
            .zip(&ids)
            .map(|(n, id)| Ok((id.as_str(), Entry { hash: mix(n), generation: 1, owner: owner(n)? })))
            .collect();
        ledger.put_batch(rule, &entries?)?;
        longest = longest.max(begun.elapsed());
        if from + batch >= next_flush {
            ledger.flush_durable()?;
            flushes += 1;
            next_flush += 25_000;
        }
    }
    ledger.flush_durable()?;
    let known = ledger.count(rule);
    let more = format!("| longest batch {longest:?}, {flushes} flushes, {known} known, disk {} MiB", disk(dir) >> 20);
    meter.report("first pass (get + put)", count, &more);

    let meter = Meter::start();
    longest = Duration::ZERO;
    for from in (0..count).step_by(usize::try_from(batch)?) {
        let begun = Instant::now();
        for n in from..(from + batch).min(count) {
            let id = id_of(order, n);
            let entry = ledger.get(rule, &id)?.ok_or("an entry is missing")?;
            if entry.hash != mix(n) && order != "owners" {
                return Err("an entry is wrong".into());
            }
            // One in a thousand has vanished.
            if n % 1000 != 0 {
                ledger.touch(rule, &[&id], 2)?;
            }
        }
        longest = longest.max(begun.elapsed());
    }
    ledger.flush_durable()?;
    meter.report(
        "second pass (get + touch)",
        count,
        &format!("| longest batch {longest:?}, disk {} MiB", disk(dir) >> 20),
    );

    let meter = Meter::start();
    let gone = ledger.older_than(rule, 2, None, usize::MAX)?.len();
    meter.report("search for the vanished", count, &format!("| {gone} found"));

    let meter = Meter::start();
    for n in 0..100_000 {
        ledger.get(rule, &id_of(order, mix(n) % count))?;
    }
    meter.report("random lookups", 100_000, "");

    let meter = Meter::start();
    drop(store);
    meter.report("close", 1, &format!("| disk {} MiB", disk(dir) >> 20));
    let meter = Meter::start();
    let store = Store::open(dir)?;
    meter.report("open again", 1, &format!("| {} known", store.ledger().count(rule)));
    Ok(())
}

fn commit(count: u64, dir: &Path) -> Result<(), Failure> {
    let _ = std::fs::remove_dir_all(dir);
    println!("{count} steps in {}", dir.display());
    let store = Store::open(dir)?;
    let obligation = |n: u64| -> Result<Obligation, Failure> {
        Ok(Obligation {
            rule: "account".into(),
            table: "public.customers".into(),
            key: key(n)?,
            external_id: None,
            reason: Reason::Partial,
            since: 0,
            attempts: 0,
            due: i64::try_from(n)?,
            force: false,
            stamp: 0,
        })
    };
    for (what, marks, obligations) in
        [("empty", 0, 0), ("20 marks", 20, 0), ("2,000 marks", 2000, 0), ("20 obligations", 0, 20)]
    {
        let mut took = Vec::new();
        let meter = Meter::start();
        for n in 0..count {
            let of = |each: u64| (n * each..(n + 1) * each).map(move |n| n + (each << 40));
            let step = Step {
                checkpoint: Checkpoint {
                    tenant: "acme".into(),
                    position: Some(Position { log: "7/slot".into(), place: format!("0/{n:X}").into() }),
                    next_version: n,
                    ..Checkpoint::default()
                },
                add_marks: of(marks)
                    .map(|n| Ok(("public.customers".into(), key(n)?)))
                    .collect::<Result<_, Failure>>()?,
                put_obligations: of(obligations).map(&obligation).collect::<Result<_, Failure>>()?,
                ..Step::default()
            };
            let begun = Instant::now();
            store.commit(&step)?;
            took.push(begun.elapsed());
        }
        took.sort();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
        let more = format!("| median {:?}, 95 % {:?}, longest {:?}", at(0.5), at(0.95), at(1.0));
        meter.report(&format!("step with {what}"), count, &more);
    }
    let meter = Meter::start();
    drop(store);
    let store = Store::open(dir)?;
    meter.report(
        "close and open",
        1,
        &format!("| {} marks, disk {} KiB", store.mark_count("public.customers"), disk(dir) >> 10),
    );
    Ok(())
}
