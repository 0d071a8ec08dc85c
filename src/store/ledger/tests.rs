use super::arena::Arena;
use super::*;
use std::collections::BTreeMap;
use tidemark_contract::{RowBuilder, Value};

fn owner(n: u32) -> RowKey {
    let mut row = RowBuilder::default();
    row.push(Value::Int(i64::from(n)));
    RowKey::of(&row.finish(), &[0]).expect("complete")
}

fn entry(hash: u64, generation: u32) -> Entry {
    Entry { hash, generation, owner: None }
}

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 >> 33).expect("31 bits") % n
    }
}

/// What the ledger should say, kept in the plainest way.
#[derive(Default, Clone)]
struct Model {
    entries: BTreeMap<(u16, String), Entry>,
}

impl Model {
    fn check(&self, ledger: &Ledger, rules: &[LedgerRule], random: &mut Random) {
        for rule in rules {
            let want: Vec<Record> = self
                .entries
                .iter()
                .filter(|((r, _), _)| *r == rule.0)
                .map(|((_, id), entry)| Record { external_id: id.as_str().into(), entry: entry.clone() })
                .collect();
            assert_eq!(ledger.count(*rule), want.len() as u64);
            // All of them, in pages of uneven size.
            let mut got: Vec<Record> = Vec::new();
            loop {
                let after = got.last().map(|r| r.external_id.clone());
                let page = ledger.records(*rule, after.as_deref(), 7 + random.below(500) as usize).expect("reads");
                if page.is_empty() {
                    break;
                }
                got.extend(page);
            }
            assert_eq!(got, want);
            let generation = random.below(5);
            let old: Vec<Record> = want.into_iter().filter(|r| r.entry.generation < generation).collect();
            assert_eq!(ledger.older_than(*rule, generation, None, usize::MAX).expect("reads"), old);
        }
    }
}

fn random_work(ledger: &Ledger, rules: &[LedgerRule], model: &mut Model, random: &mut Random, rounds: u32) {
    for _ in 0..rounds {
        let rule = rules[random.below(2) as usize];
        let keeps_owner = rule == rules[1];
        let ids: Vec<String> = (0..1 + random.below(30)).map(|_| format!("id-{}", random.below(3000))).collect();
        let refs: Vec<&str> = ids.iter().map(String::as_str).collect();
        match random.below(10) {
            0..=4 => {
                let puts: Vec<(&str, Entry)> = refs
                    .iter()
                    .map(|id| {
                        let owner = keeps_owner.then(|| owner(random.below(2000)));
                        (*id, Entry { owner, ..entry(u64::from(random.below(u32::MAX >> 2)), random.below(5)) })
                    })
                    .collect();
                ledger.put_batch(rule, &puts).expect("puts");
                for (id, entry) in puts {
                    model.entries.insert((rule.0, id.to_string()), entry);
                }
            }
            5..=6 => {
                let generation = random.below(5);
                ledger.touch(rule, &refs, generation).expect("touches");
                for id in &ids {
                    if let Some(entry) = model.entries.get_mut(&(rule.0, id.clone())) {
                        entry.generation = generation;
                    }
                }
            }
            7 => {
                ledger.remove(rule, &refs).expect("removes");
                for id in &ids {
                    model.entries.remove(&(rule.0, id.clone()));
                }
            }
            8 => {
                let want: Vec<Option<Entry>> =
                    ids.iter().map(|id| model.entries.get(&(rule.0, id.clone())).cloned()).collect();
                assert_eq!(ledger.get_batch(rule, &refs).expect("reads"), want);
            }
            _ => {
                let row = owner(random.below(2000));
                if let Some(id) = ledger.external_id_of(rules[1], &row).expect("reads") {
                    let entry = model.entries.get(&(rules[1].0, id.to_string())).expect("an entry");
                    assert_eq!(entry.owner.as_ref(), Some(&row));
                }
            }
        }
    }
}

#[test]
fn the_ledger_says_what_a_map_would_say() {
    // Tiny logs, so that merging goes on all the time, beside reading and writing.
    for log_bytes in [600, 20_000] {
        let dir = temp();
        let mut random = Random(log_bytes as u64 + 1);
        let mut model = Model::default();
        for round in 0..6 {
            let ledger = Ledger::open_with(&dir.path().join("ledger"), log_bytes).expect("opens");
            let rules = [ledger.rule("a").expect("a rule"), ledger.rule("b").expect("a rule")];
            assert_eq!(rules, [LedgerRule(0), LedgerRule(1)]);
            random_work(&ledger, &rules, &mut model, &mut random, 150);
            if round % 2 == 0 {
                model.check(&ledger, &rules, &mut random);
            }
            ledger.flush_durable().expect("flushes");
        }
    }
}

#[test]
fn a_row_is_known_under_its_last_id_only() {
    let dir = temp();
    let ledger = Ledger::open(&dir.path().join("ledger")).expect("opens");
    let rule = ledger.rule("contact").expect("a rule");
    let owned = |n| Entry { owner: Some(owner(n)), ..entry(1, 1) };
    ledger.put_batch(rule, &[("x", owned(1))]).expect("puts");
    for settled in [false, true] {
        if settled {
            ledger.inner.settle().expect("settles");
        }
        assert_eq!(ledger.external_id_of(rule, &owner(1)).expect("reads").as_deref(), Some("x"));
        assert_eq!(ledger.external_id_of(rule, &owner(2)).expect("reads"), None);
    }
    // The id moves to another row: the first row has none then.
    ledger.put_batch(rule, &[("x", owned(2))]).expect("puts");
    assert_eq!(ledger.external_id_of(rule, &owner(1)).expect("reads"), None);
    assert_eq!(ledger.external_id_of(rule, &owner(2)).expect("reads").as_deref(), Some("x"));
    // The row moves to another id, then the record under the former id is removed.
    ledger.put_batch(rule, &[("y", owned(2))]).expect("puts");
    ledger.remove(rule, &["x"]).expect("removes");
    assert_eq!(ledger.external_id_of(rule, &owner(2)).expect("reads").as_deref(), Some("y"));
    ledger.remove(rule, &["y"]).expect("removes");
    assert_eq!(ledger.external_id_of(rule, &owner(2)).expect("reads"), None);
    assert_eq!(ledger.count(rule), 0);
}

#[test]
fn a_crash_while_the_log_goes_into_the_pages_loses_nothing() {
    let dir = temp();
    let path = dir.path().join("ledger");
    let (mut random, mut model) = (Random(77), Model::default());
    for round in 0..8 {
        // Nothing is merged by itself.
        let ledger = Ledger::open_with(&path, 1 << 30).expect("opens");
        let rules = [ledger.rule("a").expect("a rule"), ledger.rule("b").expect("a rule")];
        model.check(&ledger, &rules, &mut random);
        random_work(&ledger, &rules, &mut model, &mut random, 60);
        ledger.flush_durable().expect("flushes");
        if round % 3 == 2 {
            continue;
        }
        // The pages get some of the changes, and the process is gone.
        let inner = &ledger.inner;
        let log = lock(&inner.front).active.log().to_vec();
        let some = (1..=log.len()).rev().filter(|n| *n <= log.len() * (round + 1) / 8);
        let some = some.filter_map(|n| Arena::replay(log[..n].to_vec())).next().expect("a beginning of the log");
        let mut summary = lock(&inner.summary);
        pages::merge(&inner.db(), &some, &mut summary).expect("merges");
        inner.db().flush_durable().expect("flushes");
    }
}
