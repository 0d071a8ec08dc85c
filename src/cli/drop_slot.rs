//! `tidemark drop-slot`.

use super::output;
use super::tenant::{TenantArgs, client};
use crate::admin::ClientError;
use crate::error::{DaemonKind, Error, Result};
use crate::registry;
use clap::Args;

/// Leave the vendor's database as it was found: remove the replication slot and the publication that the daemon made.
///
/// Only while no daemon runs. A later start begins a new log: every table is read again, only differences are sent.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemark drop-slot acme          before giving up a tenant, so that the source stops keeping its log for us
  tidemark drop-slot acme --yes")]
pub struct DropSlotArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// What was removed, as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: DropSlotArgs) -> Result<()> {
    let config = args.tenant.load()?;
    match client(&config).status().await {
        Err(ClientError::NotRunning) => {}
        Err(error) => return Err(error.into()),
        Ok(report) => {
            let message = format!("the daemon (pid {}) is using it", report.pid);
            return Err(Error::new(DaemonKind::Failed, message).hint("stop the daemon first"));
        }
    }
    let question = format!(
        "Remove what the daemon made on {}? Changes from now on are not kept for it; it would have to read every table again.",
        config.source.identity()
    );
    output::confirm(&question, args.yes)?;
    let removed = registry::connector(&config.source)?.release().await?;
    if args.json {
        return output::json(&removed);
    }
    for name in &removed {
        output::data(&format!("removed {name}\n"))?;
    }
    if removed.is_empty() {
        output::talk("there was nothing to remove");
    }
    Ok(())
}
