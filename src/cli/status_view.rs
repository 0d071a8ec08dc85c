//! A [`StatusReport`] as text for people.

use super::terminal::{Look, Table, Tone, bytes, count, drawn, fit, left, rate, right, span};
use crate::logging::escape_control;
use crate::status::{Moment, State, StatusReport, TablePhase, TableStatus};

const BAR: usize = 20;

/// The whole report. Each line ends with a newline and fits the look's width.
pub fn render(report: &StatusReport, look: &Look) -> String {
    let now = report.reported_at.unwrap_or_else(Moment::now);
    let mut out = headline(report, now, look);
    out.push_str(&second_line(report, now, look));
    if !report.tables.is_empty() {
        out.push('\n');
        out.push_str(&tables(report, look));
    }
    if !report.entities.is_empty() {
        out.push('\n');
        out.push_str(&entities(report, look));
    }
    out.push_str(&troubles(report, now, look));
    out
}

fn headline(report: &StatusReport, now: Moment, look: &Look) -> String {
    let tone = match report.state {
        State::Live => Tone::Good,
        State::Starting | State::Snapshot | State::Stopping => Tone::Accent,
        State::Paused | State::WaitingForSource | State::WaitingForCrm => Tone::Warn,
        State::NeedsAttention | State::Failed | State::Stopped => Tone::Bad,
    };
    let mut parts = vec![look.paint(Tone::Strong, &report.tenant)];
    let state = report.state.to_string().to_uppercase();
    parts.push(match report.since {
        Some(since) => format!("{} {}", look.paint(tone, &state), span(ago(since, now))),
        None => look.paint(tone, &state),
    });
    if report.state == State::Stopped {
        return fit(&parts.join("   "), look) + "\n";
    }
    let lag = report.lag.seconds.map_or_else(|| "unknown".into(), span);
    parts.push(format!("lag {}", look.paint(Tone::Strong, &lag)));
    let incoming = report.source.changes_per_second + report.source.snapshot_rows_per_second;
    parts.push(format!("in {}/s", rate(incoming)));
    parts.push(format!("settled {}/s", rate(report.delivery.records_per_second)));
    fit(&parts.join("   "), look) + "\n"
}

fn second_line(report: &StatusReport, now: Moment, look: &Look) -> String {
    let mut parts = vec![format!("from {}", report.source.engine)];
    match report.checkpoint.saved_at {
        Some(saved) => parts.push(format!("checkpoint {} ago", span(ago(saved, now)))),
        None => parts.push("no checkpoint yet".into()),
    }
    if report.state == State::Stopped {
        if let Some(position) = &report.checkpoint.position {
            parts.push(format!("position {position}"));
        }
    } else {
        let pending = report.lag.pending_changes;
        if pending > 0 {
            parts.push(format!("{} changes pending", count(pending)));
        }
        if let Some(n) = report.lag.pending_bytes {
            parts.push(format!("source log {} behind", bytes(n)));
        }
        if let Some(seconds) = report.retention.seconds {
            parts.push(format!("kept for {}", span(seconds)));
        }
        if let Some(left) = report.retention.bytes_left {
            parts.push(format!("{} until the source drops it", bytes(left)));
        }
        parts.push(format!("window {:.0} %", report.delivery.backpressure * 100.0));
        parts.push(format!("up {}", span(report.uptime_seconds)));
    }
    let line = parts.join(if look.unicode { " · " } else { " | " });
    look.paint(Tone::Quiet, &fit(&line, look)) + "\n"
}

fn tables(report: &StatusReport, look: &Look) -> String {
    let mut out = Table::new(&["TABLE", "PHASE", "SNAPSHOT", ">ROWS", ">ROWS/S", ">LEFT", ">CHANGES"]);
    for table in &report.tables {
        let tone = match table.phase {
            TablePhase::Live => Tone::Good,
            TablePhase::NeedsAttention => Tone::Bad,
            TablePhase::Waiting => Tone::Quiet,
            TablePhase::Snapshot | TablePhase::CatchingUp => Tone::Accent,
        };
        let busy = table.phase == TablePhase::Snapshot;
        out.row([
            left(&table.name),
            left(table.phase.to_string()).tone(tone),
            progress(table, look),
            right(rows(table)),
            right(if busy { rate(table.rows_per_second) } else { String::new() }),
            right(table.eta_seconds.filter(|_| busy).map(span).unwrap_or_default()),
            right(count(table.changes)),
        ]);
    }
    out.render(look)
}

fn progress(table: &TableStatus, look: &Look) -> super::terminal::Cell {
    let Some(ratio) = table.ratio() else { return left("") };
    let label = if ratio >= 1.0 { "done".into() } else { format!("{:.0} %", (ratio * 100.0).floor()) };
    drawn(format!("{} {label:>4}", look.bar(ratio, BAR)), BAR + 5)
}

fn rows(table: &TableStatus) -> String {
    match table.rows_estimate {
        Some(estimate) if table.phase.is_snapshot() => {
            format!("{} / ~{}", count(table.rows_done), count(estimate))
        }
        _ => count(table.rows_done),
    }
}

fn entities(report: &StatusReport, look: &Look) -> String {
    let headings = ["ENTITY", ">IN CRM", ">DELIVERED", ">SUPPRESSED", ">COALESCED", ">REJECTED", ">PARKED", ">DEAD"];
    let mut out = Table::new(&headings);
    for entity in &report.entities {
        let noticed = |n: u64, tone| right(count(n)).tone(if n > 0 { tone } else { Tone::Plain });
        out.row([
            left(&entity.name),
            right(count(entity.ledger)),
            right(count(entity.delivered)),
            right(count(entity.suppressed)),
            right(count(entity.coalesced)),
            right(count(entity.rejected)),
            noticed(entity.parked, Tone::Warn),
            noticed(entity.dead_letters, Tone::Bad),
        ]);
    }
    out.render(look)
}

fn troubles(report: &StatusReport, now: Moment, look: &Look) -> String {
    let mut lines = Vec::new();
    for table in &report.tables {
        if let Some(why) = &table.attention {
            lines.push(format!("{} {}: {}", look.paint(Tone::Bad, "attention:"), table.name, escape_control(why)));
        }
        if table.schema_drift {
            lines.push(format!(
                "{} the schema of {} differs from the one that was mapped",
                look.paint(Tone::Warn, "schema:"),
                table.name
            ));
        }
    }
    if let Some(until) = report.delivery.throttled_until.filter(|until| *until > now) {
        let wait = span((until.0 - now.0) as f64 / 1e6);
        lines.push(format!("{} the CRM asked us to wait for {wait}", look.paint(Tone::Warn, "throttled:")));
    }
    if let Some(error) = report.last_error.as_ref().filter(|e| !e.recovered) {
        lines.push(format!("{} {}", look.paint(Tone::Bad, "error:"), escape_control(&error.message)));
        if let Some(hint) = &error.hint {
            lines.push(format!("{} {}", look.paint(Tone::Accent, "hint:"), escape_control(hint)));
        }
    }
    if report.dead_letters() > 0 {
        let hint = format!("tidemark dead-letters list {}", report.tenant);
        lines.push(format!("{} see: {hint}", look.paint(Tone::Warn, "dead letters:")));
    }
    // These are read, not glanced at: they wrap instead of being cut.
    if lines.is_empty() { String::new() } else { format!("\n{}\n", lines.join("\n")) }
}

fn ago(then: Moment, now: Moment) -> f64 {
    (now.0.saturating_sub(then.0)).max(0) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{EntityStatus, ErrorStatus};

    fn report() -> StatusReport {
        let mut report = StatusReport::starting("acme", "postgres");
        let now = Moment(1_764_000_000_000_000);
        report.reported_at = Some(now);
        report.since = Some(Moment(now.0 - 75_000_000));
        report.state = State::Snapshot;
        report.uptime_seconds = 80.0;
        report.checkpoint.saved_at = Some(Moment(now.0 - 400_000));
        report.lag.seconds = Some(0.81);
        report.lag.pending_changes = 1200;
        report.lag.pending_bytes = Some(12 << 20);
        report.source.snapshot_rows_per_second = 2100.0;
        report.tables = vec![
            TableStatus {
                name: "public.customers".into(),
                phase: TablePhase::Live,
                rows_done: 91,
                rows_estimate: Some(90),
                changes: 12,
                ..TableStatus::default()
            },
            TableStatus {
                name: "public.orders".into(),
                phase: TablePhase::Snapshot,
                rows_done: 12_000,
                rows_estimate: Some(26_000),
                rows_per_second: 2100.0,
                eta_seconds: Some(6.7),
                ..TableStatus::default()
            },
        ];
        report.entities =
            vec![EntityStatus { name: "order".into(), delivered: 12_000, dead_letters: 1, ..EntityStatus::default() }];
        report.last_error = Some(ErrorStatus {
            message: "the CRM answered\nbadly".into(),
            hint: Some("look".into()),
            ..ErrorStatus::default()
        });
        report
    }

    #[test]
    fn a_snapshot_reads_well_without_colour() {
        let text = render(&report(), &Look::plain());
        let expected = "\
acme   SNAPSHOT 1 min 15 s   lag 0.8 s   in 2,100/s   settled 0/s
from postgres · checkpoint 0.4 s ago · 1,200 changes pending · source log 12.0 MiB behind · window 0 % · up 1 min 20 s

TABLE             PHASE     SNAPSHOT                               ROWS  ROWS/S   LEFT  CHANGES
public.customers  live      ████████████████████ done                91                      12
public.orders     snapshot  █████████░░░░░░░░░░░ 46 %  12,000 / ~26,000   2,100  6.7 s        0

ENTITY  IN CRM  DELIVERED  SUPPRESSED  COALESCED  REJECTED  PARKED  DEAD
order        0     12,000           0          0         0       0     1

error: the CRM answered\\nbadly
hint: look
dead letters: see: tidemark dead-letters list acme
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_stopped_tenant_shows_what_was_saved() {
        let mut report = report();
        report.state = State::Stopped;
        report.since = None;
        report.checkpoint.position = Some("0/16B3748".into());
        report.tables.clear();
        report.entities.clear();
        report.last_error = None;
        let text = render(&report, &Look::plain());
        assert_eq!(text, "acme   STOPPED\nfrom postgres · checkpoint 0.4 s ago · position 0/16B3748\n");
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let (plain, coloured) = (Look::plain(), Look { colour: true, ..Look::plain() });
        let text = render(&report(), &coloured);
        assert_eq!(console::strip_ansi_codes(&text), render(&report(), &plain));
    }
}
