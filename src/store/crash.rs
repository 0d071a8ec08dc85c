//! Crashes and full disks: tests that run this test binary again as a child process.

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

pub(super) fn number(store: &Store) -> u64 {
    store.load().map_or(0, |c| c.next_version - 1000)
}

/// Checks that what is in the store is what step `number(store)` left there.
pub(super) fn check_related(store: &Store) -> u64 {
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

pub(super) fn do_step(store: &Store, n: u64) -> Result<()> {
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
