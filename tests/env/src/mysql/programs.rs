//! Where the servers' programs are, and how they are started.

use super::MysqlFlavour;
use crate::home::Account;
use crate::{Error, Result, on_path};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs of one server.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) flavour: MysqlFlavour,
    /// Where to look, in this order.
    directories: Vec<PathBuf>,
    /// A tree with a C library of its own (`scripts/mysql-server`).
    tree: Option<Tree>,
}

#[derive(Clone, Debug)]
struct Tree {
    root: PathBuf,
    loader: PathBuf,
    libraries: OsString,
}

/// The names a program has had, the newest first.
fn names(flavour: MysqlFlavour, program: &str) -> &'static [&'static str] {
    match (flavour, program) {
        (MysqlFlavour::MariaDb, "server") => &["mariadbd", "mysqld"],
        (MysqlFlavour::MariaDb, "install") => &["mariadb-install-db", "mysql_install_db"],
        (MysqlFlavour::MariaDb, "client") => &["mariadb", "mysql"],
        (MysqlFlavour::MariaDb, "dump") => &["mariadb-dump", "mysqldump"],
        (MysqlFlavour::MariaDb, "binlog") => &["mariadb-binlog", "mysqlbinlog"],
        (MysqlFlavour::MySql, "server") => &["mysqld"],
        (MysqlFlavour::MySql, "client") => &["mysql"],
        (MysqlFlavour::MySql, "dump") => &["mysqldump"],
        (MysqlFlavour::MySql, "binlog") => &["mysqlbinlog"],
        _ => &[],
    }
}

impl Programs {
    pub(super) fn find(flavour: MysqlFlavour) -> Result<Self> {
        let variable = match flavour {
            MysqlFlavour::MariaDb => "TIDEMARK_MARIADB_BIN",
            MysqlFlavour::MySql => "TIDEMARK_MYSQL_BIN",
        };
        if let Some(dir) = std::env::var_os(variable).map(PathBuf::from) {
            // A server lies in `sbin` beside the `bin` of its clients as a rule.
            let beside = ["sbin", "bin", "scripts"].map(|name| dir.join("..").join(name));
            let found = Self { flavour, directories: std::iter::once(dir).chain(beside).collect(), tree: None };
            return if found.complete() { Ok(found) } else { Err(missing(flavour, variable)) };
        }
        if flavour == MysqlFlavour::MySql
            && let Some(tree) = mysql_root().and_then(Tree::at)
        {
            let directories = ["usr/sbin", "usr/bin"].map(|name| tree.root.join(name)).to_vec();
            let found = Self { flavour, directories, tree: Some(tree) };
            if found.complete() {
                return Ok(found);
            }
        }
        let mut directories: Vec<PathBuf> = ["/usr/sbin", "/usr/bin"].map(PathBuf::from).to_vec();
        directories.extend(names(flavour, "server").iter().filter_map(|name| on_path(name)));
        directories.extend(names(flavour, "client").iter().filter_map(|name| on_path(name)));
        let found = Self { flavour, directories, tree: None };
        if found.complete() {
            return Ok(found);
        }
        Err(missing(
            flavour,
            match flavour {
                MysqlFlavour::MariaDb => "TIDEMARK_MARIADB_BIN, /usr/sbin, PATH",
                MysqlFlavour::MySql => "TIDEMARK_MYSQL_BIN, the tree of scripts/mysql-server, /usr/sbin, PATH",
            },
        ))
    }

    fn complete(&self) -> bool {
        let needed: &[&str] = match self.flavour {
            MysqlFlavour::MariaDb => &["server", "install", "client"],
            MysqlFlavour::MySql => &["server", "client"],
        };
        needed.iter().all(|program| self.path(program).is_some()) && self.is_what_it_says()
    }

    /// MariaDB's packages call their programs by MySQL's names too, so a name proves nothing.
    fn is_what_it_says(&self) -> bool {
        let output = self.command(&Account::Own, "server").args(["--no-defaults", "--version"]).output();
        let Ok(output) = output else { return false };
        let is_mariadb = String::from_utf8_lossy(&output.stdout).to_ascii_lowercase().contains("mariadb");
        output.status.success() && is_mariadb == (self.flavour == MysqlFlavour::MariaDb)
    }

    fn path(&self, program: &str) -> Option<PathBuf> {
        let in_order = names(self.flavour, program).iter();
        in_order.flat_map(|name| self.directories.iter().map(move |dir| dir.join(name))).find(|path| path.is_file())
    }

    /// A command that runs `program` (see [`names`]) as `account`. A program that is not there fails when it is started.
    pub(super) fn command(&self, account: &Account, program: &str) -> Command {
        let path =
            self.path(program).unwrap_or_else(|| names(self.flavour, program).first().unwrap_or(&program).into());
        match &self.tree {
            Some(tree) => {
                let mut command = account.command(&tree.loader);
                command.arg("--library-path").arg(&tree.libraries).arg(path);
                command
            }
            None => account.command(&path),
        }
    }

    /// What tells one build from another: data directories of different builds are kept apart.
    pub(super) fn build(&self) -> String {
        let meta = self.path("server").and_then(|path| fs::metadata(path).ok());
        let (size, time) = meta.map_or((0, 0), |m| (m.len(), m.mtime()));
        format!("{}-{size}-{time}", self.flavour.name())
    }

    /// Whether accounts other than ours can get at the programs.
    pub(super) fn reachable_by_others(&self) -> bool {
        let passable = |dir: &Path| fs::metadata(dir).is_ok_and(|meta| meta.mode() & 0o001 != 0);
        self.path("server").is_some_and(|path| path.ancestors().skip(1).all(passable))
    }

    /// Arguments of the server that depend on where it lies and on who runs it.
    pub(super) fn server_arguments(&self, account: &Account) -> Vec<OsString> {
        let mut all = Vec::new();
        if let Some(tree) = &self.tree {
            for (name, place) in [("basedir", "usr"), ("plugin-dir", "usr/lib/mysql/plugin")] {
                let mut argument = OsString::from(format!("--{name}="));
                argument.push(tree.root.join(place));
                all.push(argument);
            }
        }
        // Servers refuse to run as root unless they are told that it is meant; ours serve loopback only, for a test.
        if matches!(account, Account::Own) && fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0) {
            all.push("--user=root".into());
        }
        all
    }
}

impl Tree {
    fn at(root: PathBuf) -> Option<Self> {
        let lib = root.join("usr/lib");
        let loaders = ["usr/lib64/ld-linux-x86-64.so.2", "usr/lib/ld-linux-aarch64.so.1"];
        let loader = loaders.iter().map(|path| root.join(path)).find(|path| path.is_file())?;
        // Debian's directory for libraries of this architecture, e.g. `x86_64-linux-gnu`.
        let mut places = fs::read_dir(&lib).ok()?.flatten().map(|entry| entry.path());
        let own = places.find(|path| path.to_string_lossy().ends_with("-linux-gnu"))?;
        let libraries = std::env::join_paths([own.join("mysql/private"), lib.join("mysql/private"), own]).ok()?;
        root.join("unpacked").is_file().then_some(Self { root, loader, libraries })
    }
}

/// Where `scripts/mysql-server` puts MySQL.
fn mysql_root() -> Option<PathBuf> {
    let given = std::env::var_os("TIDEMARK_MYSQL_ROOT").map(PathBuf::from);
    given.or_else(|| Some(cache_dir()?.join("mysql")))
}

/// What outlives a run: `${XDG_CACHE_HOME:-~/.cache}/tidemark`.
pub(super) fn cache_dir() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(base.join("tidemark"))
}

fn missing(flavour: MysqlFlavour, looked_in: &str) -> Error {
    let (program, advice) = match flavour {
        MysqlFlavour::MariaDb => (
            "mariadbd, mariadb-install-db, mariadb",
            "install MariaDB (Debian, Ubuntu: `apt-get install mariadb-server mariadb-client`) or set TIDEMARK_MARIADB_BIN",
        ),
        MysqlFlavour::MySql => (
            "Oracle's mysqld and mysql",
            "run scripts/mysql-server (Debian), or install MySQL and set TIDEMARK_MYSQL_BIN to the directory of its programs",
        ),
    };
    Error::Missing { program: program.into(), looked_in: format!("looked in {looked_in}"), advice: advice.into() }
}
