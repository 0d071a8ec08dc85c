//! Crashes, full disks and damaged files: tests that run this test binary again as a child process.

use super::tests::{checkpoint, key, letter, loaded, obligation, step, temp};
use super::*;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

/// Names the job of a child, and its directory.
const JOB: &str = "TIDEMARK_STORE_TEST_JOB";
const DIR: &str = "TIDEMARK_STORE_TEST_DIR";

/// Starts `job` on `dir` in a child; `shell` is a command that is run first in the child's shell.
fn child(job: &str, dir: &Path, shell: Option<&str>) -> (Child, BufReader<ChildStdout>) {
    let exe = std::env::current_exe().expect("this binary");
    let args = ["--exact", "store::crash::the_child", "--nocapture", "--test-threads=1"];
    let mut command = match shell {
        None => Command::new(exe),
        Some(first) => {
            let mut command = Command::new("sh");
            command.args(["-c", &format!("{first}; exec \"$0\" \"$@\"")]).arg(exe);
            command
        }
    };
    command.args(args).env(JOB, job).env(DIR, dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("starts");
    let out = BufReader::new(child.stdout.take().expect("its output"));
    (child, out)
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "@{text}").and_then(|()| out.flush()).expect("the parent listens");
}

/// The next line said by the child; `None` when it has ended.
fn hear(out: &mut BufReader<ChildStdout>) -> Option<String> {
    let mut line = String::new();
    while out.read_line(&mut line).expect("reads") > 0 {
        // The test harness writes to the same place.
        if let Some((_, said)) = line.trim_end().split_once('@') {
            return Some(said.to_string());
        }
        line.clear();
    }
    None
}

/// Not a test of its own: what the children do.
#[test]
fn the_child() {
    let (Ok(job), Ok(dir)) = (std::env::var(JOB), std::env::var(DIR)) else { return };
    let dir = Path::new(&dir);
    match job.as_str() {
        "hold" => {
            let _store = Store::open(dir).expect("opens");
            say("open");
            std::thread::sleep(Duration::from_secs(60));
        }
        "steps" => steps_until_killed(dir),
        "full" => steps_until_full(dir),
        other => panic!("no such job: {other}"),
    }
}

/// Step `n`, so that what is saved must belong together: the checkpoint, a mark, an obligation that replaces the one of
/// the step before, and a dead letter that is cleared three steps later. The ledger gets 50 entries a step.
fn related_step(n: u64) -> Step {
    let i = i64::try_from(n).expect("small");
    let mut step = Step {
        add_marks: vec![("public.a".into(), key(i))],
        put_obligations: vec![obligation(1, i, Reason::Partial), obligation(100 + i % 50, i, Reason::RetryLater)],
        put_dead_letters: vec![letter(i, "contact")],
        ..step(n)
    };
    if n > 3 {
        step.remove_dead_letters = vec![RecordRef { rule: "contact".into(), key: key(i - 3) }];
    }
    step
}

fn number(store: &Store) -> u64 {
    store.load().map_or(0, |c| c.next_version - 1000)
}

/// Checks that what is in the store is what step `number(store)` left there.
fn check_related(store: &Store) -> u64 {
    let n = number(store);
    if n == 0 {
        return 0;
    }
    let i = i64::try_from(n).expect("small");
    assert_eq!(loaded(store), Some(checkpoint(n)));
    assert_eq!(store.mark_count("public.a"), usize::try_from(n).expect("small"));
    assert!(store.is_marked("public.a", &key(i)) && !store.is_marked("public.a", &key(i + 1)));
    let first = store.obligation("contact", &key(1)).expect("reads").expect("an obligation");
    assert_eq!(first.due, i);
    let obligations = 1 + n.min(50);
    assert_eq!(store.obligation_counts().values().sum::<u64>(), obligations);
    assert_eq!(store.due_obligations("public.a", i64::MAX, 1000).expect("reads").len() as u64, obligations);
    let letters: Vec<RowKey> = store.dead_letters(None, None, 10).expect("reads").into_iter().map(|l| l.key).collect();
    assert_eq!(letters, ((i - 2).max(1)..=i).map(key).collect::<Vec<_>>());
    // The ledger was flushed before each step: it is never behind.
    let rule = store.ledger().rule("contact").expect("a rule");
    assert!(store.ledger().count(rule) >= n * 50, "{} < {}", store.ledger().count(rule), n * 50);
    for id in [0, n * 50 - 1] {
        assert!(store.ledger().get(rule, &format!("id-{id}")).expect("reads").is_some());
    }
    n
}

fn do_step(store: &Store, n: u64) -> Result<()> {
    do_larger_step(store, n, 0)
}

/// Step `n`, with so many marks in another table.
fn do_larger_step(store: &Store, n: u64, marks: u64) -> Result<()> {
    let ledger = store.ledger();
    let rule = ledger.rule("contact")?;
    let ids: Vec<String> = ((n - 1) * 50..n * 50).map(|id| format!("id-{id}")).collect();
    let entry = Entry { hash: n, generation: 1, owner: None };
    ledger.put_batch(rule, &ids.iter().map(|id| (id.as_str(), entry.clone())).collect::<Vec<_>>())?;
    ledger.flush_durable()?;
    let mut step = related_step(n);
    let more = (n * marks..(n + 1) * marks).filter_map(|n| i64::try_from(n).ok());
    step.add_marks.extend(more.map(|n| ("public.b".to_string(), key(n))));
    store.commit(&step)
}

fn steps_until_killed(dir: &Path) {
    let store = Store::open(dir).expect("opens");
    let mut n = check_related(&store);
    loop {
        n += 1;
        do_step(&store, n).expect("a step");
        say(&n.to_string());
    }
}

fn steps_until_full(dir: &Path) {
    let store = Store::open(dir).expect("opens");
    let (mut n, mut is_full) = (number(&store), false);
    let mut after = 0;
    while after < 20 {
        match do_larger_step(&store, n + 1, 4000) {
            Ok(()) => {
                n += 1;
                if is_full {
                    after += 1;
                }
                say(&n.to_string());
            }
            Err(e) if e.trouble() == Some(IoTrouble::Full) => {
                if !is_full {
                    is_full = true;
                    say("full");
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(e) => {
                say(&format!("error {e:?}"));
                return;
            }
        }
    }
    say("done");
}

#[test]
fn another_process_is_refused_and_told_who_holds_the_directory() {
    let dir = temp();
    let (mut holder, mut out) = child("hold", dir.path(), None);
    assert_eq!(hear(&mut out).as_deref(), Some("open"));
    let refused = Store::open(dir.path()).err().expect("refused");
    assert!(matches!(refused, StoreError::Locked { pid: Some(pid), .. } if pid == holder.id()), "{refused:?}");
    holder.kill().expect("kills");
    holder.wait().expect("ends");
    Store::open(dir.path()).expect("a lock does not outlive its process");
}

#[test]
fn kill_minus_nine_loses_nothing_and_tears_nothing() {
    let dir = temp();
    let (mut random, mut said) = (0x2545_f491_4f6c_dd1du64, 0);
    let begun = Instant::now();
    let mut rounds = 0;
    // Thirty rounds, or as many as fit into a while on a busy machine; never fewer than ten.
    while rounds < 30 && (rounds < 10 || begun.elapsed() < Duration::from_secs(60)) {
        rounds += 1;
        let (mut worker, mut out) = child("steps", dir.path(), None);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        for _ in 0..1 + (random >> 60) {
            said = hear(&mut out).expect("a step").parse().expect("a number");
        }
        std::thread::sleep(Duration::from_micros((random >> 33) % 15_000));
        worker.kill().expect("kills");
        while let Some(more) = hear(&mut out) {
            said = more.parse().expect("a number");
        }
        worker.wait().expect("ends");
        let store = Store::open(dir.path()).expect("opens after the kill");
        let n = check_related(&store);
        assert!(n >= said && n <= said + 1, "step {said} was durable, step {n} was found");
        assert!(!store.ledger_lost());
        said = n;
    }
    eprintln!("{rounds} kills, {said} steps, {:?}", begun.elapsed());
}

#[test]
fn a_full_disk_stops_progress_and_nothing_else() {
    let tools = Command::new("prlimit").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !tools.is_ok_and(|s| s.success()) {
        eprintln!("SKIPPED: prlimit(1) is not installed");
        return;
    }
    let dir = temp();
    drop(Store::open(dir.path()).expect("a new store"));
    // A file size limit is the full disk that every machine has; the signal that comes with it is ignored.
    let (mut worker, mut out) = child("full", dir.path(), Some("trap '' XFSZ; ulimit -S -f 16384"));
    let mut last = 0;
    loop {
        match hear(&mut out).expect("more").as_str() {
            "full" => break,
            n => last = n.parse().unwrap_or_else(|_| panic!("{n}")),
        }
    }
    assert!(last > 10, "it worked before: {last}");
    std::thread::sleep(Duration::from_millis(300));
    let raised = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &worker.id().to_string()]).status();
    assert!(raised.expect("runs").success());
    let mut after = 0;
    loop {
        match hear(&mut out).expect("it goes on").as_str() {
            "done" => break,
            n => after = n.parse().unwrap_or_else(|_| panic!("{n}")),
        }
    }
    worker.wait().expect("ends");
    assert!(after >= last + 20);
    let store = Store::open(dir.path()).expect("opens");
    assert_eq!(check_related(&store), after);
    assert!(!store.ledger_lost());
}

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
        assert!(store.load().expect("a checkpoint").tables.values().all(|t| t.phase == TablePhase::Pending));
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
