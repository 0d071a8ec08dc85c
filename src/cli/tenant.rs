//! What commands about a tenant have in common: its file, and the way to its state, through the daemon if one runs and
//! from the store otherwise.

use crate::admin::{Client, ClientError};
use crate::config::Config;
use crate::error::{DaemonKind, Error, Kind, Result, StoreKind};
use crate::store::{Step, Store, StoreError};
use clap::Args;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Which tenant.
#[derive(Args, Clone, Debug)]
pub struct TenantArgs {
    /// The tenant: /etc/tidemark/tenants/TENANT.toml ($TIDEMARK_CONFIG_DIR names another directory).
    #[arg(value_name = "TENANT", required_unless_present = "config")]
    tenant: Option<String>,
    /// A tenant file instead; relative paths in it are relative to it.
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
}

impl TenantArgs {
    /// Reads the tenant's file.
    ///
    /// # Errors
    /// Everything that is wrong with it (78).
    pub fn load(&self) -> Result<Config> {
        let name = self.tenant.as_deref().unwrap_or_default();
        if self.config.is_none() && !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            return Err(Error::new(DaemonKind::Configuration, format!("`{name}` is no tenant's name"))
                .hint("to name a file, use --config PATH"));
        }
        Ok(Config::load(name, self.config.as_deref())?)
    }

    /// As it was given, for hints: `acme` or `--config PATH`.
    pub fn as_given(&self) -> String {
        match (&self.config, &self.tenant) {
            (Some(path), _) => format!("--config {}", path.display()),
            (None, name) => name.clone().unwrap_or_default(),
        }
    }

    /// With `--config`, the first word is not the tenant but belongs to the words after it.
    pub fn shift(&mut self) -> Option<String> {
        self.config.as_ref().and(self.tenant.take())
    }
}

/// The way to a tenant's state.
pub enum Access {
    /// Its daemon runs and answers.
    Daemon(Client),
    /// No daemon runs: the store is ours.
    Store(Box<Store>),
}

/// A client of the tenant's daemon.
pub fn client(config: &Config) -> Client {
    Client::new(&config.observe.socket)
}

/// A daemon that is starting or stopping holds the state for a moment without listening.
const PATIENCE: Duration = Duration::from_secs(10);

/// The daemon if it runs, the store otherwise.
///
/// # Errors
/// 75 if a daemon holds the tenant and does not answer; as the store otherwise.
pub async fn access(config: &Config) -> Result<Access> {
    let client = client(config);
    let begun = Instant::now();
    loop {
        match client.status().await {
            Ok(_) => return Ok(Access::Daemon(client)),
            Err(ClientError::NotRunning) => {}
            Err(error) => return Err(error.into()),
        }
        match open_store(config) {
            Err(error) if error.kind() == Kind::Store(StoreKind::Locked) && begun.elapsed() < PATIENCE => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            store => return store.map(|store| Access::Store(Box::new(store))),
        }
    }
}

/// Whether the tenant has ever run here.
pub fn has_state(config: &Config) -> bool {
    config.state.dir.join("checkpoint").exists()
}

/// Opens the store of a tenant whose daemon does not run. Never creates one: a state directory that is not there has
/// nothing to tell.
///
/// # Errors
/// As the store; 77 if root would leave files that the daemon's account cannot open.
pub fn open_store(config: &Config) -> Result<Store> {
    let dir = &config.state.dir;
    if !has_state(config) {
        return Err(Error::new(DaemonKind::Failed, format!("there is no state in {}", dir.display()))
            .hint(format!("tenant {} has never run here; start it with: tidemark run", config.tenant)));
    }
    refuse_foreign_directory(dir)?;
    Store::open_briefly(dir).map_err(|error| match error {
        StoreError::Locked { .. } => Error::from(error)
            .context("the daemon runs, but it does not answer on its admin socket")
            .hint("is it starting, stopping or stuck? Its log says more"),
        error => error.into(),
    })
}

/// A store that root has written to holds files of root's: the daemon, which has an account of its own, could no longer
/// open it.
/// A directory that is not there yet is nobody's.
///
/// # Errors
/// 77, with the command line that works.
pub fn refuse_foreign_directory(dir: &Path) -> Result<()> {
    let (Ok(meta), Ok(own)) = (std::fs::metadata(dir), std::fs::metadata("/proc/self")) else { return Ok(()) };
    if own.uid() != 0 || meta.uid() == 0 {
        return Ok(());
    }
    let (uid, gid) = (meta.uid(), meta.gid());
    let message =
        format!("{} belongs to user {uid}; root would leave files there that the daemon cannot open", dir.display());
    Err(Error::new(DaemonKind::Permission, message)
        .hint(format!("run the command as that user: setpriv --reuid={uid} --regid={gid} --clear-groups tidemark …")))
}

/// Where a command puts temporary files: where it was told to, else the state directory if it can be used.
pub fn temp_dir(config: &Config, chosen: Option<&Path>) -> PathBuf {
    match chosen {
        Some(dir) => dir.into(),
        None if tempfile::tempfile_in(&config.state.dir).is_ok() => config.state.dir.clone(),
        None => std::env::temp_dir(),
    }
}

/// A step on top of what the store holds, which changes nothing yet.
///
/// # Errors
/// If there is no checkpoint to build on.
pub fn step_of(store: &Store) -> Result<Step> {
    match store.load() {
        Some(checkpoint) => Ok(Step { checkpoint, ..Step::default() }),
        None => Err(Error::new(DaemonKind::Failed, "there is no checkpoint yet")),
    }
}
