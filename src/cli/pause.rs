//! `tidemark pause` and `tidemark resume`.

use super::output;
use super::tenant::{Access, TenantArgs, access};
use crate::command::PauseMark;
use crate::error::Result;
use clap::Args;

/// Stop sending to the CRM until `resume`; the pause outlasts restarts.
///
/// What is in flight is finished. The source's log is read on until the window in memory is full; from then on the
/// source keeps it, so watch the log's retention during a long pause.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemark pause acme        before maintenance of the CRM
  tidemark resume acme")]
pub struct PauseArgs {
    #[command(flatten)]
    tenant: TenantArgs,
}

/// Go on after a pause.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemark resume acme")]
pub struct ResumeArgs {
    #[command(flatten)]
    tenant: TenantArgs,
}

pub(super) async fn pause(args: PauseArgs) -> Result<()> {
    let config = args.tenant.load()?;
    match access(&config).await? {
        Access::Daemon(client) => {
            client.pause().await?;
            output::talk("paused");
        }
        Access::Store(_held) => {
            PauseMark::of(&config.state.dir).set().map_err(output::failed("write the pause mark"))?;
            output::talk("the daemon is not running; it will start paused");
        }
    }
    Ok(())
}

pub(super) async fn resume(args: ResumeArgs) -> Result<()> {
    let config = args.tenant.load()?;
    match access(&config).await? {
        Access::Daemon(client) => {
            client.resume().await?;
            output::talk("resumed");
        }
        Access::Store(_held) => {
            PauseMark::of(&config.state.dir).clear().map_err(output::failed("remove the pause mark"))?;
            output::talk("the daemon is not running; it will not start paused");
        }
    }
    Ok(())
}
