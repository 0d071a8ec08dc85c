//! The river: from the source's log and tables to the CRM, and the acknowledgements back.
//!
//! | module | what |
//! |---|---|
//! | [`mod@self`] | start: both sides checked, the mapping compiled, the stream opened; gaps and the tenant's policy |
//! | `engine` | the loop that owns all state |
//! | `tail` | the task that owns the change stream, and maps its rows |
//! | `capture` | source messages and snapshot pages become changes of records; why nothing goes back in time |
//! | `page` | pages of a table, mapped where they are read |
//! | `reread` | rows that are read again by key |
//! | `related` | changes of related rows, and the records that show them |
//! | `assembly` | records that show related rows are put together |
//! | `step` | what becomes durable together, and what may happen only afterwards |
//! | `tickets` | which changes are settled |
//! | `table` | a table's life |
//! | `control` | commands of operators |
//! | `report` | the status report |

mod assembly;
mod capture;
mod control;
mod drift;
mod engine;
mod ledger;
mod page;
mod related;
mod report;
mod reread;
mod start;
mod step;
mod table;
mod tail;
#[cfg(test)]
mod tests;
mod tickets;

use crate::command::AdminCommand;
use crate::config::{Config, OnGap, Retry};
use crate::crm::Crm;
use crate::error::{DaemonKind, Error};
use crate::mapping::Pack;
use crate::metrics::Metrics;
use crate::status::{Board, Heartbeat, State};
use crate::store::Store;
use engine::End;
pub(crate) use start::{default_schema, options};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tidemark_contract::{Connector, RowKey};
use tokio::sync::{mpsc, watch};

/// Where the pipeline shows how it is.
#[derive(Clone)]
pub struct Outlet {
    /// The report.
    pub board: Board,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Its pulse.
    pub heartbeat: Arc<Heartbeat>,
}

impl Outlet {
    fn stopping(&self) {
        self.board.update(|report| report.state = State::Stopping);
    }
}

/// What a pipeline is made of.
#[derive(Clone)]
pub struct Parts {
    /// The tenant's settings.
    pub config: Arc<Config>,
    /// The source.
    pub connector: Arc<dyn Connector>,
    /// The CRM.
    pub crm: Arc<dyn Crm>,
    /// The state directory, locked.
    pub store: Arc<Store>,
    /// The mapping, not yet checked against the two schemas.
    pub pack: Arc<Pack>,
    /// Where it shows how it is.
    pub outlet: Outlet,
}

/// Runs a tenant until `stop` becomes true (P12) or it cannot go on.
///
/// # Errors
/// What only a person can remove: settings, rights, a mapping that does not fit, a gap under the policy `halt`.
pub async fn run(
    parts: Parts,
    mut commands: mpsc::Receiver<AdminCommand>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Error> {
    let mut gap = false;
    loop {
        let Some(engine) = start::start(&parts, gap, &mut stop).await? else { return Ok(()) };
        match engine.run(&mut commands, &mut stop).await {
            End::Stopped => return Ok(()),
            End::Failed(error) => return Err(error),
            End::PositionLost(error) => {
                gap = true;
                on_gap(&parts, error)?;
            }
        }
    }
}

/// What the tenant's policy says about a gap in the log (P4): never silent, never "from now".
fn on_gap(parts: &Parts, error: tidemark_contract::SourceError) -> Result<(), Error> {
    match parts.config.state.on_gap {
        OnGap::Halt => {
            let hint = error.hint.clone();
            let gap = Error::new(DaemonKind::Gap, "P4: the source's log no longer reaches back to the checkpoint")
                .caused_by(error);
            Err(match hint {
                Some(hint) => gap.hint(hint),
                None => gap,
            })
        }
        OnGap::Resync => {
            tracing::error!(
                code = "P4",
                hint = error.hint,
                "the source's log no longer reaches back to the checkpoint: {error}; every table is read again, only \
                 differences are sent, and records whose rows vanished meanwhile are swept ([state] on_gap = \"resync\")"
            );
            Ok(())
        }
    }
}

/// What is on its way is finished and saved within this time (P12).
pub const STOP_TIMEOUT: Duration = Duration::from_secs(8);

/// The pause before try number `attempt` (from 1): doubling, capped, with jitter so that many do not come at once.
fn backoff(retry: &Retry, attempt: u32) -> Duration {
    let factor = 2f64.powi(i32::try_from(attempt.clamp(1, 30)).unwrap_or(30) - 1);
    retry.initial.mul_f64(factor).min(retry.max).mul_f64(rand::random_range(0.5..=1.0))
}

/// Milliseconds since 1970.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Microseconds since 1970.
fn unix_us() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The letter of a key that stands for a swept record: its row is gone, and with it the row's own key.
const SWEPT: u8 = b'x';

/// A key for the dead letter of a removal that a sweep found.
fn swept_key(external_id: &str) -> RowKey {
    let mut bytes = vec![SWEPT];
    bytes.extend_from_slice(&u32::try_from(external_id.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(external_id.as_bytes());
    RowKey::from_bytes(&bytes).unwrap_or_else(|| unreachable!("one part with its length is a key"))
}

/// Whether a key is one of [`swept_key`].
fn is_swept_key(key: &RowKey) -> bool {
    key.as_bytes().first() == Some(&SWEPT)
}
