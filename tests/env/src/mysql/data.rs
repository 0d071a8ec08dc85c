//! Data directories: made once for each build of a server, then copied.
//!
//! Making one takes MySQL five seconds and MariaDB one or two; a copy takes a tenth of a second. The template lies in the
//! cache, appears there by a rename, and is only made by one process at a time.

use super::programs::{Programs, cache_dir};
use super::{MysqlFlavour, remove_if_there};
use crate::home::Account;
use crate::{Result, doing, run};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

/// Makes `data` a fresh data directory that belongs to `account`. `scratch` is the server's private directory.
pub(super) fn prepare(programs: &Programs, account: &Account, data: &Path, scratch: &Path) -> Result<()> {
    let Some(cache) = cache_dir().filter(|dir| fs::create_dir_all(dir).is_ok()) else {
        // No home to keep anything in.
        return initialise(programs, account, data, scratch);
    };
    let template = cache.join(format!("data-{}", programs.build()));
    if !template.is_dir() {
        let lock = cache.join(format!("data-{}.lock", programs.flavour.name()));
        let lock = doing(format!("opening {}", lock.display()), File::create(&lock))?;
        doing("waiting for the data directory of another process", lock.lock())?;
        if !template.is_dir() {
            sweep(&cache, programs);
            initialise(programs, account, data, scratch)?;
            let unfinished = cache.join(format!("unfinished-{}-{}", programs.build(), std::process::id()));
            copy(data, &unfinished)?;
            doing(format!("renaming {}", unfinished.display()), fs::rename(&unfinished, &template))?;
            return own(account, data);
        }
    }
    copy(&template, data)?;
    own(account, data)
}

fn initialise(programs: &Programs, account: &Account, data: &Path, scratch: &Path) -> Result<()> {
    let mut command;
    match programs.flavour {
        MysqlFlavour::MariaDb => {
            command = programs.command(account, "install");
            command.arg("--no-defaults").arg(format!("--datadir={}", data.display()));
            command.args(["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]);
            command.arg("--innodb-log-file-size=4M").env("TMPDIR", scratch);
        }
        MysqlFlavour::MySql => {
            command = programs.command(account, "server");
            command.arg("--no-defaults").args(programs.server_arguments(account)).arg("--initialize-insecure");
            command.arg(format!("--datadir={}", data.display())).arg("--secure-file-priv=NULL").arg("--mysqlx=OFF");
            command.args(["--skip-log-bin", "--innodb-redo-log-capacity=64M"]);
        }
    }
    run(&format!("making a data directory of {}", programs.flavour.name()), &mut command)?;
    // A server's identity must be its own, and its certificates ours or none.
    for name in ["auto.cnf", "ca.pem", "ca-key.pem", "server-cert.pem", "server-key.pem"] {
        remove_if_there(&data.join(name))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    command.args(["-R", "--preserve=mode", "--reflink=auto", "--sparse=always", "--"]).arg(from).arg(to);
    run(&format!("copying a data directory to {}", to.display()), &mut command).map(drop)
}

fn own(account: &Account, data: &Path) -> Result<()> {
    account.own(data)?;
    for entry in doing("reading the data directory", fs::read_dir(data))?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            own(account, &entry.path())?;
        } else {
            account.own(&entry.path())?;
        }
    }
    Ok(())
}

/// Templates of other builds of the same server, and copies that were never finished.
fn sweep(cache: &Path, programs: &Programs) {
    let kinds = [format!("data-{}-", programs.flavour.name()), format!("unfinished-{}-", programs.flavour.name())];
    for entry in fs::read_dir(cache).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if kinds.iter().any(|kind| name.to_string_lossy().starts_with(kind.as_str())) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
