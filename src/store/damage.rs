//! Damaged, cut, missing and newer files; samples of each format.

use super::crash::{check_related, do_step, number};
use super::tests::{checkpoint, key, step, temp};
use super::*;

/// Copies a directory with everything in it.
fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("creates");
    for entry in fs::read_dir(from).expect("lists") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copies");
        }
    }
}

/// A closed store with ten related steps in it.
fn ten_steps(dir: &Path) {
    let store = Store::open(dir).expect("opens");
    for n in 1..=10 {
        do_step(&store, n).expect("a step");
    }
}

/// Bytes of a file up to its last one that is not zero: the rest was prepared and not written yet.
fn used(path: &Path) -> u64 {
    let bytes = fs::read(path).expect("reads");
    bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at as u64 + 1)
}

fn change_file(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("reads");
    change(&mut bytes);
    fs::write(path, bytes).expect("writes");
}

#[test]
fn a_changed_byte_is_damage_or_harmless_and_never_an_older_checkpoint() {
    let dir = temp();
    let good = dir.path().join("good");
    ten_steps(&good);
    let len = used(&good.join("checkpoint/db"));
    let (mut damaged, mut harmless) = (0, 0);
    let tries = 150;
    for n in 0..tries {
        let bad = dir.path().join("bad");
        copy_dir(&good, &bad);
        let at = usize::try_from(len * n / tries + n * 7 % 64).expect("small");
        change_file(&bad.join("checkpoint/db"), |bytes| {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (n % 8);
            }
        });
        match Store::open(&bad) {
            Ok(store) => {
                assert_eq!(check_related(&store), 10, "byte {at}");
                harmless += 1;
            }
            Err(StoreError::Damaged { recoverable, .. }) => {
                assert!(recoverable, "there is a side copy");
                damaged += 1;
            }
            Err(other) => panic!("byte {at}: {other:?}"),
        }
        fs::remove_dir_all(&bad).expect("removes");
    }
    eprintln!("{len} bytes: {damaged} damaged, {harmless} harmless");
    assert!(damaged > 0);
}

#[test]
fn a_file_cut_short_or_missing_is_never_an_older_or_no_checkpoint() {
    let dir = temp();
    let good = dir.path().join("good");
    ten_steps(&good);
    let bad = dir.path().join("bad");
    let attempt = |what: &str, spoil: &dyn Fn()| {
        copy_dir(&good, &bad);
        spoil();
        let error = match Store::open(&bad) {
            Ok(store) => {
                assert_eq!(check_related(&store), 10, "{what}");
                None
            }
            Err(e @ StoreError::Damaged { .. }) => Some(e),
            Err(other) => panic!("{what}: {other:?}"),
        };
        fs::remove_dir_all(&bad).expect("removes");
        error
    };
    let db = bad.join("checkpoint/db");
    let len = used(&good.join("checkpoint/db"));
    for n in 0..40 {
        let to = len * n / 40;
        let cut = || fs::OpenOptions::new().write(true).open(&db).and_then(|f| f.set_len(to)).expect("cuts");
        let error = attempt(&format!("cut to {to}"), &cut);
        assert!(error.is_some(), "cut to {to} of {len}");
    }
    let remove = |name: &'static str| {
        let path = bad.join(name);
        move || if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) }.expect("removes")
    };
    for name in ["checkpoint", "checkpoint/db"] {
        let error = attempt(name, &remove(name)).unwrap_or_else(|| panic!("without {name}"));
        assert!(error.hint().is_some_and(|hint| hint.contains("checkpoint recover")), "{error:?}");
    }
    // Without its witnesses the database stands for itself.
    for name in ["witness", "checkpoint.json"] {
        assert!(attempt(name, &remove(name)).is_none());
    }
    let spoil_conf = || change_file(&bad.join("checkpoint/conf"), |bytes| bytes.reverse());
    assert!(attempt("conf", &spoil_conf).is_some());
    // A database of an earlier time under a newer witness: the disk or somebody took it back.
    let older = dir.path().join("older");
    copy_dir(&good, &older);
    do_step(&Store::open(&good).expect("opens"), 11).expect("a step");
    copy_dir(&good, &bad);
    fs::remove_dir_all(bad.join("checkpoint")).expect("removes");
    copy_dir(&older.join("checkpoint"), &bad.join("checkpoint"));
    let error = Store::open(&bad).err().expect("refused");
    assert!(error.to_string().contains("was saved"), "{error}");
}

#[test]
fn a_damaged_checkpoint_is_recovered_from_its_side_copy() {
    let dir = temp();
    ten_steps(dir.path());
    let before = Store::open(dir.path()).expect("opens").load().expect("a checkpoint");
    change_file(&dir.path().join("checkpoint/db"), |bytes| bytes.fill(7));
    // The newest copy may be torn as well: then the older one serves.
    for torn in [false, true] {
        let error = Store::open(dir.path()).err().expect("damaged");
        assert!(matches!(error, StoreError::Damaged { recoverable: true, .. }), "{error:?}");
        if torn {
            change_file(&dir.path().join("checkpoint.json"), |bytes| bytes.truncate(bytes.len() / 2));
        }
        let recovered = Store::recover_from_copy(dir.path()).expect("recovers");
        assert_eq!(recovered.position, before.position);
        assert!(recovered.dispatched_unknown && recovered.next_version > before.next_version);
        let store = Store::open(dir.path()).expect("opens");
        assert_eq!(store.load().map(|c| c.position), Some(before.position.clone()));
        assert!(store.load().expect("a checkpoint").tables.values().all(|t| t.phase == TablePhase::PENDING));
        // The ledger is kept, so that reading everything again costs only the differences.
        let rule = store.ledger().rule("contact").expect("a rule");
        assert_eq!(store.ledger().count(rule), 500);
        drop(store);
        change_file(&dir.path().join("checkpoint/db"), |bytes| bytes.fill(7));
    }
    let kept = fs::read_dir(dir.path()).expect("lists").flatten();
    assert!(kept.into_iter().any(|e| e.file_name().to_string_lossy().starts_with("checkpoint.damaged-")));
    fs::remove_file(dir.path().join("checkpoint.json")).expect("removes");
    fs::remove_file(dir.path().join("checkpoint.json.1")).expect("removes");
    let error = Store::recover_from_copy(dir.path()).expect_err("nothing to recover from");
    assert!(matches!(error, StoreError::Refused { .. }), "{error:?}");
}

#[test]
fn a_damaged_ledger_costs_requests_and_nothing_else() {
    let dir = temp();
    let good = dir.path().join("good");
    ten_steps(&good);
    let len = used(&good.join("ledger/db"));
    let older = dir.path().join("older");
    copy_dir(&good, &older);
    do_step(&Store::open(&good).expect("opens"), 11).expect("a step");
    let mut lost = 0;
    for n in 0..60 {
        let bad = dir.path().join("bad");
        copy_dir(&good, &bad);
        match n {
            0 => fs::remove_dir_all(bad.join("ledger")).expect("removes"),
            1 => change_file(&bad.join("ledger/db"), |bytes| bytes.truncate(bytes.len() / 2)),
            2 => {
                // A ledger that went back in time would make the sweep take living rows for gone ones.
                fs::remove_dir_all(bad.join("ledger")).expect("removes");
                copy_dir(&older.join("ledger"), &bad.join("ledger"));
            }
            n => {
                let at = usize::try_from(len * n / 60).expect("small");
                change_file(&bad.join("ledger/db"), |bytes| bytes[at] ^= 0x10);
            }
        }
        let store = Store::open(&bad).expect("opens all the same");
        assert_eq!(number(&store), 11);
        let rule = store.ledger().rule("contact").expect("a rule");
        if store.ledger_lost() {
            lost += 1;
            assert_eq!(store.ledger().count(rule), 0);
            drop(store);
            let store = Store::open(&bad).expect("opens");
            assert!(store.ledger_lost(), "remembered until a full pass has ended");
            store.set_ledger_whole().expect("notes it");
            drop(store);
            assert!(!Store::open(&bad).expect("opens").ledger_lost());
        } else {
            assert_eq!(store.ledger().records(rule, None, 1000).expect("reads").len(), 550, "variant {n}");
        }
        fs::remove_dir_all(&bad).expect("removes");
    }
    assert!(lost >= 3, "{lost}");
}

#[test]
fn what_a_newer_version_wrote_is_refused() {
    for (database, tag) in [("checkpoint", "a"), ("ledger", "b")] {
        let dir = temp();
        ten_steps(dir.path());
        let db = db::Database::open(&dir.path().join(database), 1 << 20).expect("opens");
        let newer: &[u8] = if tag == "a" { br#"{"format":2,"written_by":"9.0.0","new":true}"# } else { b"2" };
        db.apply(vec![(keys::FORMAT.to_vec(), Some(frame::seal(keys::FORMAT, newer)))]).expect("writes");
        db.flush_durable().expect("flushes");
        drop(db);
        let error = Store::open(dir.path()).err().expect("refused");
        assert!(matches!(error, StoreError::TooNew { found: 2, supported: 1, .. }), "{error:?}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_directory_that_cannot_be_used_says_why() {
    let dir = temp();
    let file = dir.path().join("file");
    fs::write(&file, "").expect("writes");
    let error = Store::open(&file.join("state")).err().expect("refused");
    assert_eq!(error.trouble(), Some(IoTrouble::Missing), "{error:?}");
    assert!(error.to_string().contains("file/state") && error.hint().is_some());
    let store = Store::open(&dir.path().join("a/b")).expect("parents are made");
    use std::os::unix::fs::PermissionsExt as _;
    let mode = |path: &str| fs::metadata(dir.path().join(path)).expect("is there").permissions().mode() & 0o777;
    assert_eq!((mode("a/b"), mode("a/b/checkpoint"), mode("a/b/ledger")), (0o700, 0o700, 0o700));
    store.commit(&step(1)).expect("commits");
    drop(store);
    for file in ["lock", "witness", "checkpoint.json", "checkpoint/db", "ledger/db"] {
        assert_eq!(mode(&format!("a/b/{file}")), 0o600, "{file}");
    }
}

/// Where the samples of each format are kept.
fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/store")
}

#[test]
fn what_earlier_versions_wrote_is_still_read() {
    let dir = temp();
    let copy = dir.path().join("format-1");
    copy_dir(&samples().join("format-1"), &copy);
    let store = Store::open(&copy).expect("opens");
    assert_eq!(check_related(&store), 10);
    assert_eq!(store.history().expect("reads").len(), 1);
    let rule = store.ledger().rule("contact").expect("a rule");
    assert_eq!(store.ledger().records(rule, None, 1000).expect("reads").len(), 500);
    let owned = store.ledger().rule("owned").expect("a rule");
    assert_eq!(store.ledger().external_id_of(owned, &key(1)).expect("reads").as_deref(), Some("by-mail"));
    // It can be written on.
    do_step(&store, 11).expect("a step");
}

#[test]
#[ignore = "writes the sample of the present format into tests/data/store; only for a new format"]
fn write_the_sample() {
    let path = samples().join("format-1");
    ten_steps(&path);
    let store = Store::open(&path).expect("opens");
    store.reset(&ResetScope::Table("public.b".into())).expect("resets");
    let owned = store.ledger().rule("owned").expect("a rule");
    let entry = Entry { hash: 5, generation: 2, owner: Some(key(1)) };
    store.ledger().put_batch(owned, &[("by-mail", entry)]).expect("puts");
    store.ledger().settle_for_tests();
    store.ledger().put_batch(owned, &[("in-the-log", Entry { hash: 6, generation: 2, owner: None })]).expect("puts");
    store.commit(&Step { checkpoint: checkpoint(10), ..Step::default() }).expect("commits");
}
