//! A process of its own for a test that measures its process.

use std::process::Command;

const VARIABLE: &str = "TIDEMARK_OWN_PROCESS";

/// Whether the caller, the test with this full name (`module::name`), runs in a process of its own. If not, it is run
/// once more in one, and this returns `Ok(false)` when it passed there: the caller then has nothing left to do.
///
/// Test runners differ: one gives each test a process, another runs many tests as threads of one.
pub fn in_own_process(test: &str) -> Result<bool, String> {
    if std::env::var(VARIABLE).is_ok_and(|name| name == test) {
        return Ok(true);
    }
    let program = std::env::current_exe().map_err(|e| format!("this test's own program is not known: {e}"))?;
    let mut command = Command::new(program);
    command.args(["--exact", test, "--nocapture", "--include-ignored"]).env(VARIABLE, test);
    let child = command.output().map_err(|e| format!("cannot start {test} in its own process: {e}"))?;
    let output = String::from_utf8_lossy(&child.stdout);
    println!("{output}");
    if child.status.success() && output.contains("1 passed") {
        Ok(false)
    } else {
        let errors = String::from_utf8_lossy(&child.stderr);
        Err(format!("{test} in its own process: {}\n{output}\n{errors}", child.status))
    }
}
