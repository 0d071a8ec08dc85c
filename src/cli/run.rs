//! `tidemark run`: the daemon.

use super::tenant::TenantArgs;
use crate::error::Result;
use clap::Args;

/// Run a tenant's daemon in the foreground (systemd starts this).
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemark run acme
  tidemark run --config ./acme.toml

SIGTERM or Ctrl-C finishes what is on its way, saves the checkpoint and exits 0.")]
pub struct RunArgs {
    #[command(flatten)]
    tenant: TenantArgs,
}

/// Runs the command.
///
/// # Errors
/// As [`crate::daemon::run`].
pub async fn run(args: RunArgs) -> Result<()> {
    let config = args.tenant.load()?;
    crate::logging::init(&config.observe.log_level, config.observe.log_format, Some(&config.tenant))?;
    crate::daemon::run(config).await
}
