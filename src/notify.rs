//! The service manager's side: readiness, a line of status, and a watchdog fed by real progress.
//!
//! Everything here does nothing without `$NOTIFY_SOCKET`, that is, when nobody listens.

use crate::status::{Board, Heartbeat, LIVE_WINDOW, StatusReport, TablePhase};
use sd_notify::NotifyState;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// The tenant is set up: configuration read, store open and locked, listeners bound. Says nothing about the source or
/// the CRM: a CRM that is down must not make systemd restart us.
pub fn ready() {
    send(&[NotifyState::Ready]);
}

/// The drain has begun and may take `up_to`.
pub fn stopping(up_to: Duration) {
    let micros = u32::try_from(up_to.as_micros()).unwrap_or(u32::MAX);
    send(&[NotifyState::Stopping, NotifyState::Status("draining"), NotifyState::ExtendTimeoutUsec(micros)]);
}

/// The start takes longer than usual (a large store is being recovered): `more` from now on is still normal.
pub fn still_starting(more: Duration) {
    let micros = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
    send(&[NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Until `stop` ends: shows the report's line in `systemctl status`, and feeds the watchdog for as long as the
/// pipeline's own loop turns. When it does not, systemd kills and restarts us, which is safe at any instruction (P1).
pub async fn supervise(board: Board, heartbeat: Arc<Heartbeat>, stop: impl Future<Output = ()>) {
    let watchdog = sd_notify::watchdog_enabled();
    let pause = watchdog.map_or(Duration::from_secs(5), |w| (w / 4).min(Duration::from_secs(5)));
    let mut shown = String::new();
    tokio::pin!(stop);
    loop {
        if watchdog.is_some() && heartbeat.age() < LIVE_WINDOW {
            send(&[NotifyState::Watchdog]);
        }
        let line = status_line(&board.latest());
        if line != shown {
            send(&[NotifyState::Status(&line)]);
            shown = line;
        }
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// One line: the state, and the numbers that matter in it.
pub fn status_line(report: &StatusReport) -> String {
    let mut line = report.state.to_string();
    if let Some(seconds) = report.lag.seconds {
        line.push_str(&format!(", lag {seconds:.1} s"));
    }
    if report.snapshot_active() {
        let done = report.tables.iter().filter(|t| !t.phase.is_snapshot()).count();
        line.push_str(&format!(", {done} of {} tables read", report.tables.len()));
    }
    let stopped = report.tables.iter().filter(|t| t.phase == TablePhase::NeedsAttention).count();
    if stopped > 0 {
        line.push_str(&format!(", {stopped} tables need attention"));
    }
    match report.dead_letters() {
        0 => {}
        n => line.push_str(&format!(", {n} dead letters")),
    }
    line
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager could not be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{EntityStatus, State, TableStatus};

    #[test]
    fn the_line_names_what_matters() {
        let mut report = StatusReport::starting("acme", "postgres");
        assert_eq!(status_line(&report), "starting");
        report.state = State::Snapshot;
        report.lag.seconds = Some(0.25);
        report.tables = vec![
            TableStatus { phase: TablePhase::Live, ..TableStatus::default() },
            TableStatus { phase: TablePhase::Snapshot, ..TableStatus::default() },
            TableStatus { phase: TablePhase::NeedsAttention, ..TableStatus::default() },
        ];
        report.entities = vec![EntityStatus { dead_letters: 2, ..EntityStatus::default() }];
        assert_eq!(
            status_line(&report),
            "snapshot, lag 0.2 s, 2 of 3 tables read, 1 tables need attention, 2 dead letters"
        );
    }
}
