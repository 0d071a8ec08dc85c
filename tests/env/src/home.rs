//! Private directories of servers, their owners, and the account the servers run as.

use crate::{Error, Result, doing, on_path, run};
use std::fs;
use std::io::PipeWriter;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "tidemark-throwaway-";

/// The account a server runs as: database servers refuse to run as root, so root steps down to another one.
#[derive(Clone, Debug)]
pub(crate) enum Account {
    /// The account of this process.
    Own,
    /// Another one, because this process is root.
    Other { uid: u32, gid: u32 },
}

impl Account {
    /// This process's account, or for root the first of `names` that exists.
    pub(crate) fn choose(names: &[&str]) -> Result<Self> {
        if doing("reading /proc/self", fs::metadata("/proc/self"))?.uid() != 0 {
            return Ok(Account::Own);
        }
        let passwd = doing("reading /etc/passwd", fs::read_to_string("/etc/passwd"))?;
        names.iter().find_map(|name| account_in(&passwd, name)).ok_or_else(|| Error::Missing {
            program: "an account to run the server as".into(),
            looked_in: format!("/etc/passwd has none of {}", names.join(", ")),
            advice: "install the server's package, which creates it, or run as a normal user".into(),
        })
    }

    /// A command that will run as this account, in its own process group so that Ctrl-C in the terminal reaches only us.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Account::Other { uid, gid } = self {
            command.uid(*uid).gid(*gid);
        }
        command.process_group(0).stdin(Stdio::null()).current_dir("/");
        command
    }

    /// Gives a file or directory to the account.
    pub(crate) fn own(&self, path: &Path) -> Result<()> {
        match self {
            Account::Own => Ok(()),
            Account::Other { uid, gid } => {
                doing(format!("chown {}", path.display()), std::os::unix::fs::chown(path, Some(*uid), Some(*gid)))
            }
        }
    }
}

fn account_in(passwd: &str, name: &str) -> Option<Account> {
    let line = passwd.lines().find(|l| l.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some(Account::Other { uid: fields.next()?.parse().ok()?, gid: fields.next()?.parse().ok()? })
}

/// A private directory whose name tells its owner.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
}

impl Home {
    /// Makes an empty directory for one server, after sweeping those of dead owners. `stop` stops a server that still
    /// runs in a swept directory.
    pub(crate) fn create(kind: &str, account: &Account, stop: impl Fn(&Path)) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let base = base_directory();
        sweep(&base, kind, &stop);
        let owner = std::process::id();
        let started = start_time(owner).unwrap_or(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("{PREFIX}{kind}-{owner}-{started}-{number}"));
        doing(format!("creating {}", path.display()), fs::create_dir(&path))?;
        let home = Self { path };
        doing("setting permissions", fs::set_permissions(&home.path, fs::Permissions::from_mode(0o700)))?;
        account.own(&home.path)?;
        Ok(home)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Where the directories go: `TIDEMARK_THROWAWAY_DIR`, else the system's temporary directory if every account may pass
/// through it and a unix socket's path (at most 107 bytes) fits below it, else `/tmp`.
fn base_directory() -> PathBuf {
    if let Some(dir) = std::env::var_os("TIDEMARK_THROWAWAY_DIR") {
        return dir.into();
    }
    let dir = std::env::temp_dir();
    let passable = dir.ancestors().all(|d| fs::metadata(d).is_ok_and(|m| m.mode() & 0o001 != 0));
    if passable && dir.is_absolute() && dir.as_os_str().len() < 40 { dir } else { "/tmp".into() }
}

/// When a process started, in clock ticks since boot: tells a process from a later one with the same number.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the fields after it are numbers (the 20th of them is the start time).
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn sweep(base: &Path, kind: &str, stop: &impl Fn(&Path)) {
    let wanted = format!("{PREFIX}{kind}-");
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|n| n.strip_prefix(&wanted)) else { continue };
        let mut parts = rest.split('-').map(str::parse::<u64>);
        let (Some(Ok(owner)), Some(Ok(started)), Some(Ok(_)), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let alive = u32::try_from(owner).ok().and_then(start_time).is_some_and(|s| s == started);
        if !alive {
            stop(&entry.path());
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A process that cleans up when this one dies: it waits for the end of a pipe that only we hold open.
#[derive(Debug)]
pub(crate) struct Watcher {
    child: Child,
    pipe: Option<PipeWriter>,
}

impl Watcher {
    /// Runs `cleanup` (a shell command, in which `$1` is `home`) once this process is gone.
    pub(crate) fn start(home: &Home, cleanup: &str) -> Result<Self> {
        let shell = on_path("sh").map_or_else(|| "/bin/sh".into(), |dir| dir.join("sh"));
        let (reader, writer) = doing("making a pipe", std::io::pipe())?;
        // `read` fails at the end of the pipe (we died) and succeeds on a line (we stop in order: nothing to do).
        let script = format!("read _ || {{ {cleanup}; rm -rf -- \"$1\"; }}");
        let mut command = Account::Own.command(&shell);
        command.arg("-c").arg(script).arg("tidemark-throwaway").arg(home.path());
        command.stdin(reader).stdout(Stdio::null()).stderr(Stdio::null());
        let child = doing("starting the watcher", command.spawn())?;
        Ok(Self { child, pipe: Some(writer) })
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            let _ = std::io::Write::write_all(&mut pipe, b"\n");
        }
        let _ = self.child.wait();
    }
}

/// Sends a signal by name to a process we started.
pub(crate) fn signal(pid: u32, name: &str) -> Result<()> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("kill -{name} {pid}"));
    run(&format!("sending {name} to process {pid}"), &mut command).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_start_time_is_known() {
        assert!(start_time(std::process::id()).is_some_and(|t| t > 0));
        assert_eq!(start_time(u32::MAX), None);
    }

    #[test]
    fn directories_of_dead_owners_are_swept_and_those_of_living_ones_kept() {
        let base = std::env::temp_dir().join(format!("tidemark-sweep-test-{}", std::process::id()));
        fs::create_dir_all(&base).unwrap();
        let me = std::process::id();
        let mine = base.join(format!("{PREFIX}x-{me}-{}-0", start_time(me).unwrap()));
        let dead = base.join(format!("{PREFIX}x-{me}-1-0"));
        let other = base.join(format!("{PREFIX}x-notes"));
        for dir in [&mine, &dead, &other] {
            fs::create_dir(dir).unwrap();
        }
        sweep(&base, "x", &|_| ());
        assert!(mine.exists() && other.exists() && !dead.exists());
        fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn accounts_are_read_from_passwd() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgres:x:105:112::/var/lib/postgresql:/bin/bash\n";
        assert!(matches!(account_in(passwd, "postgres"), Some(Account::Other { uid: 105, gid: 112 })));
        assert!(account_in(passwd, "nobody").is_none());
    }
}
