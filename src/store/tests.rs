use super::*;
use tidemark_contract::{Position, Row, RowBuilder, ScanCursor, Value};

pub(super) fn row(values: &[Value<'_>]) -> Row {
    let mut b = RowBuilder::default();
    for v in values {
        b.push(*v);
    }
    b.finish()
}

pub(super) fn key(n: i64) -> RowKey {
    RowKey::of(&row(&[Value::Int(n)]), &[0]).expect("complete")
}

pub(super) fn position(n: u64) -> Option<Position> {
    Some(Position { log: "sys/slot".into(), place: format!("0/{n:X}").into() })
}

pub(super) fn checkpoint(n: u64) -> Checkpoint {
    let phase = TablePhase::Snapshot {
        cursor: Some(ScanCursor(format!("c{n}").into())),
        rows_done: n,
        started_at: 5,
        force: false,
    };
    Checkpoint {
        tenant: "acme".into(),
        source: "postgres://db.example:5432/northwind".into(),
        position: position(n),
        dispatched: position(n + 10),
        next_version: 1000 + n,
        generation: 1,
        tables: [
            ("public.a".to_string(), TableState { phase, ..TableState::pending(vec![("account".into(), u64::MAX)]) }),
            ("public.b".to_string(), TableState { phase: TablePhase::Live, ..TableState::pending(vec![]) }),
        ]
        .into(),
        ..Checkpoint::default()
    }
}

pub(super) fn step(n: u64) -> Step {
    Step { checkpoint: checkpoint(n), ..Step::default() }
}

pub(super) fn obligation(n: i64, due: i64, reason: Reason) -> Obligation {
    Obligation {
        rule: "contact".into(),
        table: "public.a".into(),
        key: key(n),
        external_id: Some(format!("cust-{n}")),
        reason,
        since: 1,
        attempts: 0,
        due,
        force: false,
        stamp: 0,
    }
}

pub(super) fn letter(n: i64, entity: &str) -> DeadLetter {
    DeadLetter {
        id: 0,
        at: 3,
        rule: "contact".into(),
        entity: entity.into(),
        table: "public.a".into(),
        external_id: None,
        key: key(n),
        op: WriteOp::Upsert,
        code: "invalid_value".into(),
        field: Some("country".into()),
        message: "no such country".into(),
        attempts: 1,
    }
}

pub(super) fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// What was loaded, with the time of saving (which the store sets) taken out.
pub(super) fn loaded(store: &Store) -> Option<Checkpoint> {
    store.load().map(|c| Checkpoint { saved_at: 0, ..c })
}

#[test]
fn a_checkpoint_comes_back_after_reopening() {
    let dir = temp();
    let store = Store::open(dir.path()).expect("opens");
    assert_eq!(store.load(), None);
    store.commit(&step(1)).expect("commits");
    store.commit(&step(2)).expect("commits");
    drop(store);
    let store = Store::open(dir.path()).expect("opens again");
    assert_eq!(loaded(&store), Some(checkpoint(2)));
    assert!(store.load().expect("a checkpoint").saved_at > 0);
    // A table that is no longer there is forgotten.
    let mut without = step(3);
    without.checkpoint.tables.remove("public.b");
    store.commit(&without).expect("commits");
    drop(store);
    assert_eq!(loaded(&Store::open(dir.path()).expect("opens")), Some(without.checkpoint));
}

#[test]
fn a_second_opening_is_refused_with_the_holder() {
    let dir = temp();
    let store = Store::open(dir.path()).expect("opens");
    let refused = Store::open(dir.path()).err().expect("refused");
    assert!(matches!(refused, StoreError::Locked { pid: Some(pid), .. } if pid == std::process::id()), "{refused}");
    drop(store);
    Store::open(dir.path()).expect("free again");
}

#[test]
fn marks_are_known_at_once_and_durable_with_their_commit() {
    let dir = temp();
    let store = Store::open(dir.path()).expect("opens");
    assert!(store.mark("public.a", &key(1)));
    assert!(!store.mark("public.a", &key(1)));
    assert_eq!(store.marked("public.a", &[key(1), key(3)]), [true, false]);
    assert!(!store.is_marked("public.b", &key(1)));
    let add_marks = vec![("public.a".to_string(), key(1)), ("public.b".to_string(), key(7))];
    store.commit(&Step { add_marks, ..step(1) }).expect("commits");
    store.mark("public.a", &key(9));
    drop(store);
    let store = Store::open(dir.path()).expect("opens");
    assert_eq!(store.marked("public.a", &[key(1), key(9)]), [true, false]);
    assert!(store.is_marked("public.b", &key(7)));
    store.commit(&Step { clear_marks: vec!["public.a".into()], ..step(2) }).expect("commits");
    assert_eq!((store.mark_count("public.a"), store.mark_count("public.b")), (0, 1));
    drop(store);
    let store = Store::open(dir.path()).expect("opens");
    assert_eq!((store.mark_count("public.a"), store.mark_count("public.b")), (0, 1));
}

#[test]
fn obligations_are_found_by_time_by_parent_and_by_record() {
    let dir = temp();
    let store = Store::open(dir.path()).expect("opens");
    let parent = Reason::WaitingForParent { entity: "account".into(), external_id: "cust-9".into() };
    let put = vec![obligation(1, 300, Reason::Partial), obligation(2, 100, parent), obligation(3, 200, Reason::Repair)];
    store.commit(&Step { put_obligations: put, ..step(1) }).expect("commits");
    let due = store.due_obligations("public.a", 200, 10).expect("reads");
    assert_eq!(due.iter().map(|o| o.due).collect::<Vec<_>>(), [100, 200]);
    assert_eq!(store.next_due("public.a").expect("reads"), Some(100));
    assert_eq!(store.due_obligations("public.b", 999, 10).expect("reads"), []);
    assert!(store.may_await("account", "cust-9"));
    assert!(!store.may_await("account", "cust-8"));
    let waiting = store.waiting_for("account", "cust-9", 10).expect("reads");
    assert_eq!(waiting.len(), 1);
    let seen = waiting[0].clone();
    assert_eq!(seen.key, key(2));
    // The tail asks again while the first one is being served: the newer one stays.
    let again = vec![obligation(2, 150, Reason::Partial)];
    store.commit(&Step { put_obligations: again, ..step(2) }).expect("commits");
    let served = ObligationRef { rule: seen.rule.clone(), key: seen.key.clone(), stamp: Some(seen.stamp) };
    store.commit(&Step { remove_obligations: vec![served], ..step(3) }).expect("commits");
    let kept = store.obligation("contact", &key(2)).expect("reads").expect("still there");
    assert_eq!((kept.due, kept.reason.clone()), (150, Reason::Partial));
    assert!(!store.may_await("account", "cust-9"));
    let served = ObligationRef { rule: kept.rule, key: kept.key, stamp: Some(kept.stamp) };
    store.commit(&Step { remove_obligations: vec![served], ..step(4) }).expect("commits");
    assert_eq!(store.obligation("contact", &key(2)).expect("reads"), None);
    drop(store);
    let store = Store::open(dir.path()).expect("opens");
    let counts = store.obligation_counts();
    assert_eq!(counts.get(&("contact".to_string(), "partial")), Some(&1));
    assert_eq!(counts.get(&("contact".to_string(), "repair")), Some(&1));
    assert_eq!(counts.len(), 2);
    assert_eq!(store.due_obligations("public.a", i64::MAX, 10).expect("reads").len(), 2);
}

#[test]
fn there_is_one_dead_letter_per_record_and_success_clears_it() {
    let dir = temp();
    let store = Store::open(dir.path()).expect("opens");
    let put = vec![letter(1, "contact"), letter(2, "account"), letter(3, "contact")];
    store.commit(&Step { put_dead_letters: put, ..step(1) }).expect("commits");
    let first = store.dead_letters(None, None, 10).expect("reads").remove(0);
    // Set aside again: same number, new words.
    let again = DeadLetter { attempts: 2, message: "still no such country".into(), ..first.clone() };
    store.commit(&Step { put_dead_letters: vec![again.clone()], ..step(2) }).expect("commits");
    assert_eq!(store.dead_letter(first.id).expect("reads"), Some(again));
    assert!(store.may_have_dead_letter("contact", &key(3)));
    let cleared = vec![RecordRef { rule: "contact".into(), key: key(3) }];
    store.commit(&Step { remove_dead_letters: cleared, ..step(3) }).expect("commits");
    assert!(!store.may_have_dead_letter("contact", &key(3)));
    drop(store);
    let store = Store::open(dir.path()).expect("opens");
    assert_eq!(store.dead_letter_counts(), [("account".to_string(), 1), ("contact".to_string(), 1)].into());
    let page = store.dead_letters(Some("account"), None, 10).expect("reads");
    assert_eq!(page.iter().map(|l| l.key.clone()).collect::<Vec<_>>(), [key(2)]);
    let rest = store.dead_letters(None, Some(first.id), 10).expect("reads");
    assert_eq!(rest.len(), 1);
}

#[test]
fn a_reset_can_be_undone_and_the_last_ten_are_kept() {
    let dir = temp();
    let store = Store::open(dir.path()).expect("opens");
    assert!(matches!(store.reset(&ResetScope::All), Err(StoreError::Refused { .. })));
    store.commit(&step(1)).expect("commits");
    store.mark("public.b", &key(1));
    store.reset(&ResetScope::Table("public.b".into())).expect("resets");
    assert_eq!(store.mark_count("public.b"), 0);
    let now = store.load().expect("a checkpoint");
    assert_eq!((&now.position, &now.tables["public.b"].phase), (&position(1), &TablePhase::PENDING));
    assert!(matches!(now.tables["public.a"].phase, TablePhase::Snapshot { .. }), "the other table keeps its place");
    assert!(matches!(store.reset(&ResetScope::Table("public.x".into())), Err(StoreError::Refused { .. })));
    for _ in 0..12 {
        store.reset(&ResetScope::All).expect("resets");
    }
    assert_eq!(store.load().expect("a checkpoint").position, None);
    drop(store);
    let store = Store::open(dir.path()).expect("opens");
    let history = store.history().expect("reads");
    assert_eq!(history.len(), 10);
    let mut later = store.load().expect("a checkpoint");
    later.next_version = 9999;
    store.commit(&Step { checkpoint: later, ..Step::default() }).expect("commits");
    store.undo_reset(history[0].id).expect("undoes");
    let back = store.load().expect("a checkpoint");
    assert_eq!(back.next_version, 9999, "versions never fall");
    assert_eq!(store.history().expect("reads").len(), 9);
    assert!(store.undo_reset(history[0].id).is_err());
}

#[test]
fn an_export_can_be_imported_elsewhere_and_a_torn_one_is_refused() {
    let (from, to) = (temp(), temp());
    let store = Store::open(from.path()).expect("opens");
    let parent = Reason::WaitingForParent { entity: "account".into(), external_id: "cust-9".into() };
    let full = Step {
        add_marks: (0..3000).map(|n| ("public.a".to_string(), key(n))).collect(),
        put_obligations: vec![obligation(1, 10, Reason::Repair), obligation(2, 20, parent)],
        put_dead_letters: vec![letter(3, "contact")],
        ..step(5)
    };
    let mut lines = Vec::new();
    assert!(store.export(&mut lines, true).is_err(), "there is nothing to export");
    store.commit(&full).expect("commits");
    let rules = ["account", "contact"].map(|name| store.ledger().rule(name).expect("a rule"));
    let entry = |n: i64| Entry { hash: u64::MAX - 1, generation: 3, owner: (n % 2 == 0).then(|| key(n)) };
    for rule in rules {
        let ids: Vec<String> = (0..2500).map(|n| format!("id-{n}")).collect();
        let entries: Vec<(&str, Entry)> = ids.iter().map(String::as_str).zip((0..).map(entry)).collect();
        store.ledger().put_batch(rule, &entries).expect("puts");
    }
    lines.clear();
    let moved = store.export(&mut lines, true).expect("exports");
    assert_eq!(moved, Moved { marks: 3000, obligations: 2, dead_letters: 1, ledger_entries: 5000 });

    let new = Store::open(to.path()).expect("opens");
    // Cut off anywhere, or changed in a line, it is refused and leaves no checkpoint.
    for len in [0, 1, 100, lines.len() / 2, lines.len() - 2] {
        assert!(matches!(new.import(&mut &lines[..len]), Err(StoreError::Refused { .. })), "cut to {len}");
    }
    let without_one: Vec<u8> = lines
        .split_inclusive(|b| *b == b'\n')
        .enumerate()
        .filter(|(n, _)| *n != 4)
        .flat_map(|(_, l)| l.to_vec())
        .collect();
    assert!(new.import(&mut without_one.as_slice()).is_err());
    assert_eq!(new.load(), None);

    assert_eq!(new.import(&mut lines.as_slice()).expect("imports"), moved);
    assert!(new.import(&mut lines.as_slice()).is_err(), "only into an empty one");
    drop(new);
    let new = Store::open(to.path()).expect("opens again");
    assert_eq!(loaded(&new), Some(checkpoint(5)));
    assert_eq!(new.mark_count("public.a"), 3000);
    assert!(new.is_marked("public.a", &key(2999)) && new.may_await("account", "cust-9"));
    assert_eq!(new.due_obligations("public.a", 15, 9).expect("reads")[0].reason, Reason::Repair);
    assert_eq!(new.dead_letter_counts(), store.dead_letter_counts());
    let rule = new.ledger().rule("contact").expect("a rule");
    assert_eq!(new.ledger().count(rule), 2500);
    assert_eq!(new.ledger().get(rule, "id-8").expect("reads"), Some(entry(8)));
    assert_eq!(new.ledger().external_id_of(rule, &key(8)).expect("reads").as_deref(), Some("id-8"));
    assert!(!new.ledger_lost());
}

#[test]
fn small_records_of_marks_are_put_together() {
    let dir = temp();
    let store = Store::open(dir.path()).expect("opens");
    for n in 0..600 {
        let add_marks = vec![("public.a".to_string(), key(2 * n)), ("public.a".to_string(), key(2 * n + 1))];
        store.commit(&Step { add_marks, ..step(1) }).expect("commits");
    }
    let records = |store: &Store| {
        let writer = store.shared.writer().expect("works");
        writer.checkpoint.db.scan(&[keys::MARK], &[keys::MARK], 10_000).expect("reads").len()
    };
    assert!(records(&store) <= 130, "{}", records(&store));
    drop(store);
    let store = Store::open(dir.path()).expect("opens");
    assert_eq!(store.mark_count("public.a"), 1200);
    assert!((0..1200).all(|n| store.is_marked("public.a", &key(n))));
    store.commit(&Step { clear_marks: vec!["public.a".into()], ..step(2) }).expect("commits");
    assert_eq!((records(&store), store.mark_count("public.a")), (0, 0));
}
