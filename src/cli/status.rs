//! `tidemark status`: state, lag, snapshot bars, rates, dead letters.

use super::output;
use super::status_view::render;
use super::tenant::{Access, TenantArgs, access, client, has_state};
use super::terminal::{Look, Redraw};
use crate::admin::ClientError;
use crate::config::Config;
use crate::error::{DaemonKind, Error, Result};
use crate::status::{CheckpointStatus, EntityStatus, Moment, State, StatusReport, TablePhase as Shown, TableStatus};
use crate::store::{Store, TablePhase};
use clap::Args;
use std::io::IsTerminal;
use std::time::Duration;

/// How a tenant is: state, lag, snapshot progress with an estimate, rates, parked records, dead letters.
///
/// On a terminal the picture is live until Ctrl-C. Exits 1 if no daemon runs (what was last saved is shown).
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemark status acme                          live on a terminal
  tidemark status acme --once                   one picture
  tidemark status acme --json | jq .lag.seconds for scripts; the same numbers as /metrics")]
pub struct StatusArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// Show it once, also on a terminal.
    #[arg(long)]
    once: bool,
    /// The report as JSON (schema version 1), once.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: StatusArgs) -> Result<()> {
    let config = args.tenant.load()?;
    let live = !args.once && !args.json && std::io::stdout().is_terminal();
    let report = report(&config).await?;
    let stopped = report.state == State::Stopped;
    if args.json {
        output::json(&report)?;
    } else if live && !stopped {
        return follow(&config, report).await;
    } else {
        output::data(&render(&report, &Look::stdout()))?;
    }
    if stopped { Err(Error::new(DaemonKind::Failed, "the daemon is not running")) } else { Ok(()) }
}

async fn report(config: &Config) -> Result<StatusReport> {
    match client(config).status().await {
        Ok(report) => Ok(report),
        Err(ClientError::NotRunning) if !has_state(config) => Ok(StatusReport {
            state: State::Stopped,
            since: None,
            pid: 0,
            ..StatusReport::starting(&config.tenant, config.source.engine.name())
        }),
        Err(ClientError::NotRunning) => match access(config).await? {
            Access::Daemon(client) => Ok(client.status().await?),
            Access::Store(store) => Ok(saved(config, &store)),
        },
        Err(error) => Err(error.into()),
    }
}

/// What the store of a stopped tenant tells.
fn saved(config: &Config, store: &Store) -> StatusReport {
    let mut report = StatusReport {
        state: State::Stopped,
        since: None,
        pid: 0,
        ..StatusReport::starting(&config.tenant, config.source.engine.name())
    };
    let letters = store.dead_letter_counts();
    report.entities = letters
        .into_iter()
        .map(|(name, dead_letters)| EntityStatus { name, dead_letters, ..EntityStatus::default() })
        .collect();
    let Some(checkpoint) = store.load() else { return report };
    report.checkpoint = CheckpointStatus {
        saved_at: Some(Moment(checkpoint.saved_at)),
        moved_at: None,
        position: checkpoint.position.map(|p| p.to_string()),
        dispatched: checkpoint.dispatched.map(|p| p.to_string()),
    };
    report.tables = checkpoint
        .tables
        .into_iter()
        .map(|(name, table)| {
            let (phase, rows_done, attention) = match table.phase {
                TablePhase::Pending { .. } => (Shown::Waiting, 0, None),
                TablePhase::Snapshot { rows_done, .. } => (Shown::Snapshot, rows_done, None),
                TablePhase::Live => (Shown::Live, table.rows, None),
                TablePhase::NeedsAttention { reason } => (Shown::NeedsAttention, table.rows, Some(reason)),
            };
            TableStatus { name, phase, rows_done, attention, ..TableStatus::default() }
        })
        .collect();
    report
}

async fn follow(config: &Config, first: StatusReport) -> Result<()> {
    let mut screen = Redraw::new(console::Term::stdout());
    let mut report = first;
    loop {
        screen.draw(&render(&report, &Look::stdout())).map_err(output::failed("draw"))?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        match client(config).status().await {
            Ok(next) => report = next,
            // A daemon that is restarted (systemd, a deployment) comes back: the picture waits for it.
            Err(ClientError::NotRunning) => report = StatusReport { state: State::Stopped, since: None, ..report },
            Err(error) => return Err(error.into()),
        }
    }
}
