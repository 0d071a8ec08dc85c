//! What all sessions share: databases, logins, the agent, and the faults a test has asked for.

use super::agent::Agent;
use super::database::{Database, locked, set_state};
use crate::error::{Result, SqlError};
use crate::options::Options;
use crate::types::collation::Collation;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

/// A SQL Server login.
#[derive(Clone, Debug)]
pub struct Login {
    /// Name.
    pub name: String,
    /// Password.
    pub password: String,
    /// Member of sysadmin.
    pub admin: bool,
    /// Permissions on the server, such as `view server state`.
    pub permissions: Vec<String>,
}

/// A token of Microsoft Entra ID that the server takes.
struct Token {
    text: String,
    login: String,
    until: std::time::Instant,
}

/// A connection, as the server sees it.
pub struct Entry {
    /// Login.
    pub login: String,
    /// Program name of LOGIN7.
    pub program: String,
    /// Everything is encrypted.
    pub encrypted: bool,
    /// Ends it.
    pub kill: Box<dyn Fn() + Send>,
}

/// An answer a test wants instead of the real one.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Part of the text of the statement, any case.
    pub matching: String,
    /// What the server says.
    pub error: SqlError,
    /// How many matches pass first.
    pub skip: u32,
    /// How often it happens.
    pub times: u32,
}

/// The server.
pub struct Server {
    /// How it was set up.
    pub options: Options,
    /// SQL Server Agent.
    pub agent: Agent,
    dir: tempfile::TempDir,
    databases: Mutex<Vec<Arc<Database>>>,
    logins: Mutex<Vec<Login>>,
    tokens: Mutex<Vec<Token>>,
    /// Where the server listens as a secondary replica.
    secondary: std::sync::OnceLock<u16>,
    entries: Mutex<BTreeMap<i64, Entry>>,
    next_session: AtomicI64,
    next_database: AtomicI64,
    statements: Mutex<Vec<String>>,
    faults: Mutex<Vec<Fault>>,
    /// Batches executed.
    pub batches: AtomicI64,
}

impl Server {
    /// A server with `master`, `tempdb`, `model`, `msdb` and the databases of the options.
    pub fn new(options: Options) -> Result<Arc<Self>> {
        let fault = |e: std::io::Error| SqlError::new(49_998, 16, 1, format!("Fault inside the simulator: {e}"));
        let dir = tempfile::Builder::new().prefix("sqlserver-sim").tempdir().map_err(fault)?;
        let sa =
            Login { name: "sa".into(), password: options.sa_password.clone(), admin: true, permissions: Vec::new() };
        let server = Arc::new(Self {
            agent: Agent::new(&options),
            options,
            dir,
            databases: Mutex::default(),
            logins: Mutex::new(vec![sa]),
            tokens: Mutex::default(),
            secondary: std::sync::OnceLock::new(),
            entries: Mutex::default(),
            next_session: AtomicI64::new(51),
            next_database: AtomicI64::new(1),
            statements: Mutex::default(),
            faults: Mutex::default(),
            batches: AtomicI64::new(0),
        });
        for name in ["master", "tempdb", "model", "msdb"] {
            server.create_database(name, None)?;
        }
        for name in server.options.databases.clone() {
            let db = server.create_database(&name, None)?;
            if server.options.snapshot_isolation {
                set_state(&*db.borrow()?, "snapshot_isolation", 1)?;
            }
        }
        Ok(server)
    }

    /// `CREATE DATABASE`
    pub fn create_database(&self, name: &str, collation: Option<&str>) -> Result<Arc<Database>> {
        let mut all = locked(&self.databases);
        if all.iter().any(|d| d.name.eq_ignore_ascii_case(name)) {
            return Err(SqlError::new(
                1801,
                16,
                3,
                format!("Database '{name}' already exists. Choose a different database name."),
            ));
        }
        let collation = match collation {
            None => Collation::DEFAULT,
            Some(c) => {
                Collation::named(c).ok_or_else(|| SqlError::new(448, 16, 3, format!("Invalid collation '{c}'.")))?
            }
        };
        let id = self.next_database.fetch_add(1, Ordering::SeqCst);
        let db = Database::create(id, name, collation, self.dir.path().join(format!("{id}.db")))?;
        all.push(db.clone());
        Ok(db)
    }

    /// `DROP DATABASE`
    pub fn drop_database(&self, name: &str) -> Result<()> {
        let mut all = locked(&self.databases);
        let at = all.iter().position(|d| d.name.eq_ignore_ascii_case(name) && d.id > 4).ok_or_else(|| {
            let text =
                format!("Cannot drop the database '{name}', because it does not exist or you do not have permission.");
            SqlError::new(3701, 11, 1, text)
        })?;
        let db = all.remove(at);
        self.agent.remove_jobs(db.id);
        Ok(())
    }

    /// All databases, by id.
    pub fn databases(&self) -> Vec<Arc<Database>> {
        locked(&self.databases).clone()
    }

    /// A database by name.
    pub fn database(&self, name: &str) -> Option<Arc<Database>> {
        locked(&self.databases).iter().find(|d| d.name.eq_ignore_ascii_case(name)).cloned()
    }

    /// The login, if the password is right; 18456 otherwise.
    pub fn authenticate(&self, name: &str, password: &str) -> Result<Login> {
        let found =
            locked(&self.logins).iter().find(|l| l.name.eq_ignore_ascii_case(name) && l.password == password).cloned();
        found.ok_or_else(|| SqlError::new(18_456, 14, 1, format!("Login failed for user '{name}'.")))
    }

    /// Makes the server take a token for a login, for so long.
    pub fn issue_token(&self, text: &str, login: &str, valid: std::time::Duration) {
        let until = std::time::Instant::now() + valid;
        locked(&self.tokens).push(Token { text: text.into(), login: login.into(), until });
    }

    /// Whether a token was ever issued: a server without Entra does not speak of FEDAUTHREQUIRED.
    pub fn takes_tokens(&self) -> bool {
        !locked(&self.tokens).is_empty()
    }

    /// The login of a token; 18456 otherwise.
    pub fn recognise(&self, text: &str) -> Result<Login> {
        let refused = |more: &str| {
            SqlError::new(18_456, 14, 1, format!("Login failed for user '<token-identified principal>'.{more}"))
        };
        let tokens = locked(&self.tokens);
        let token = tokens.iter().find(|token| token.text == text).ok_or_else(|| refused(""))?;
        if token.until < std::time::Instant::now() {
            return Err(refused(" Token is expired."));
        }
        self.login(&token.login).ok_or_else(|| refused(""))
    }

    /// Notes where the server listens as a secondary.
    pub fn set_secondary(&self, port: u16) {
        let _ = self.secondary.set(port);
    }

    /// Where it does.
    pub fn secondary_port(&self) -> Option<u16> {
        self.secondary.get().copied()
    }

    /// A login by name.
    pub fn login(&self, name: &str) -> Option<Login> {
        locked(&self.logins).iter().find(|l| l.name.eq_ignore_ascii_case(name)).cloned()
    }

    /// Adds a login; 15025 if there is one of that name.
    pub fn add_login(&self, name: &str, password: &str) -> Result<()> {
        let mut logins = locked(&self.logins);
        if logins.iter().any(|l| l.name.eq_ignore_ascii_case(name)) {
            return Err(SqlError::new(15_025, 16, 1, format!("The server principal '{name}' already exists.")));
        }
        logins.push(Login { name: name.into(), password: password.into(), admin: false, permissions: Vec::new() });
        Ok(())
    }

    /// Changes a login; 15151 if there is none of that name.
    pub fn change_login(&self, name: &str, change: impl FnOnce(&mut Login)) -> Result<()> {
        let mut logins = locked(&self.logins);
        let login = logins.iter_mut().find(|l| l.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
            let text =
                format!("Cannot find the login '{name}', because it does not exist or you do not have permission.");
            SqlError::new(15_151, 16, 1, text)
        })?;
        change(login);
        Ok(())
    }

    /// Removes a login.
    pub fn drop_login(&self, name: &str) {
        locked(&self.logins).retain(|l| !l.name.eq_ignore_ascii_case(name));
    }

    /// Permissions of a login on the server.
    pub fn server_permissions(&self, name: &str) -> Vec<String> {
        self.login(name).map(|l| l.permissions).unwrap_or_default()
    }

    /// The user a login is in a database: `dbo` for sysadmin, a user made for it, nobody.
    pub fn user_of(&self, db: &Database, login: &str) -> Option<String> {
        if self.login(login).is_some_and(|l| l.admin) {
            return Some("dbo".into());
        }
        let c = db.borrow().ok()?;
        let user: Option<String> =
            c.query_row("SELECT name FROM core_principals WHERE login = ?1 AND type = 'S'", [login], |r| r.get(0)).ok();
        // Everybody may enter master, tempdb and msdb as guest.
        user.or_else(|| matches!(db.name.as_str(), "master" | "tempdb" | "msdb").then(|| "guest".into()))
    }

    /// Whether a login may use a database.
    pub fn may_enter(&self, db: &Database, login: &str) -> bool {
        self.user_of(db, login).is_some()
    }

    /// Number for a new session.
    pub fn new_session_id(&self) -> i64 {
        self.next_session.fetch_add(1, Ordering::SeqCst)
    }

    /// Notes a connection.
    pub fn enter(&self, id: i64, entry: Entry) {
        locked(&self.entries).insert(id, entry);
    }

    /// Forgets a connection.
    pub fn leave(&self, id: i64) {
        locked(&self.entries).remove(&id);
    }

    /// Ends the connections that `which` picks; answers how many.
    pub fn kill(&self, which: impl Fn(i64, &Entry) -> bool) -> usize {
        let entries = locked(&self.entries);
        let picked: Vec<_> = entries.iter().filter(|(id, e)| which(**id, e)).collect();
        picked.iter().for_each(|(_, e)| (e.kill)());
        picked.len()
    }

    /// (session id, login, program) of all connections.
    pub fn session_list(&self) -> Vec<(i64, String, String)> {
        locked(&self.entries).iter().map(|(id, e)| (*id, e.login.clone(), e.program.clone())).collect()
    }

    /// (login, whether everything is encrypted) of all connections.
    pub fn encryption_list(&self) -> Vec<(String, bool)> {
        locked(&self.entries).values().map(|e| (e.login.clone(), e.encrypted)).collect()
    }

    /// Notes the text of a batch, and gives the error a test has planned for it.
    pub fn note_batch(&self, text: &str) -> Result<()> {
        self.batches.fetch_add(1, Ordering::SeqCst);
        let mut statements = locked(&self.statements);
        if statements.len() < 100_000 {
            statements.push(text.into());
        }
        let lower = text.to_lowercase();
        let mut faults = locked(&self.faults);
        for fault in faults.iter_mut().filter(|f| lower.contains(&f.matching.to_lowercase())) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                return Err(fault.error.clone());
            }
        }
        Ok(())
    }

    /// Texts of the batches so far.
    pub fn statements(&self) -> Vec<String> {
        locked(&self.statements).clone()
    }

    /// Forgets the texts of the batches.
    pub fn clear_statements(&self) {
        locked(&self.statements).clear();
    }

    /// Plans a fault.
    pub fn plan(&self, fault: Fault) {
        locked(&self.faults).push(fault);
    }

    /// Drops all planned faults.
    pub fn clear_faults(&self) {
        locked(&self.faults).clear();
    }

    /// Where the files are.
    pub fn directory(&self) -> &std::path::Path {
        self.dir.path()
    }
}
