//! `tidemark verify`.

use super::output;
use super::progress::Bars;
use super::sides::Sides;
use super::tenant::{Access, TenantArgs, access, client, has_state, step_of, temp_dir};
use super::terminal::{Look, Table, Tone, count, left, right, span, things};
use crate::admin::Client;
use crate::command::{Repair, RepairReceipt};
use crate::config::Config;
use crate::error::{DaemonKind, Error, Result};
use crate::logging::escape_control;
use crate::status::Moment;
use crate::store::{Obligation, Reason, ResetScope, Store};
use crate::verify::{Daemon, EntityReport, Kind, Options, Report, Sample, Side, verify};
use clap::Args;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// Compare the source with the CRM: every mapped field of every record. Exits 0 only if they are equal.
///
/// Both sides are read whole, with memory bounded; nothing is written. While a daemon is at work, what differs is looked
/// at again until it has caught up. Repair hands the differences to the daemon.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemark verify acme
  tidemark verify acme --entity order --show-values
  tidemark verify acme --repair")]
pub struct VerifyArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// Only this entity; may be repeated.
    #[arg(long, value_name = "E")]
    entity: Vec<String>,
    /// Have what differs sent again, and records that no row makes deleted (if they are ours).
    #[arg(long)]
    repair: bool,
    /// Differences of each kind and entity to describe.
    #[arg(long, value_name = "N", default_value_t = 10)]
    samples: usize,
    /// Show both sides of the fields that differ. They are row values.
    #[arg(long)]
    show_values: bool,
    /// Directory for temporary files (without names, gone with the process); the state directory if it can be used.
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,
    /// As JSON (schema version 1).
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: VerifyArgs) -> Result<()> {
    let config = args.tenant.load()?;
    crate::logging::init("warn", crate::logging::LogFormat::Text, None)?;
    let sides = Sides::open(&config).await?;
    let daemon = client(&config);
    let running = daemon.status().await.is_ok();
    let dir = temp_dir(&config, args.temp_dir.as_deref());
    let options = Options {
        entities: args.entity.clone(),
        samples: args.samples,
        show_values: args.show_values,
        looks: if running { 6 } else { 1 },
        wait: Duration::from_secs(2),
        dir,
        memory: usize::try_from(config.limits.memory / 2).unwrap_or(usize::MAX),
    };
    let side = Side {
        connector: &*sides.connector,
        crm: &*sides.crm,
        mapping: &sides.mapping,
        chunk_rows: config.snapshot.chunk_rows,
        daemon: running.then_some(&daemon as &dyn Daemon),
    };
    let bars = Bars::new();
    let result = verify(&side, &options, &bars).await;
    bars.end();
    let report = result?;
    if args.json {
        output::json(&report)?;
    } else {
        output::data(&render(&report, &Look::stdout()))?;
    }
    if report.equal {
        return Ok(());
    }
    let different = Error::new(DaemonKind::Different, "the CRM differs from the source");
    if args.repair {
        repair(&config, &sides, &report).await?;
        return Err(different.hint("the differences are being repaired; verify again when the lag is 0"));
    }
    Err(match report.repairs.is_empty() {
        true => different.hint("see tidemark dead-letters list"),
        false => {
            different.hint(format!("tidemark verify {} --repair sends what differs again", args.tenant.as_given()))
        }
    })
}

#[async_trait::async_trait]
impl Daemon for Client {
    async fn has_caught_up(&self) -> bool {
        self.status().await.is_ok_and(|status| status.has_caught_up())
    }
}

async fn repair(config: &Config, sides: &Sides, report: &Report) -> Result<()> {
    // Nothing to hand over to: a tenant that never ran will send everything anyway.
    if report.repairs.is_empty() || (!has_state(config) && client(config).status().await.is_err()) {
        return Ok(());
    }
    let receipt = match access(config).await? {
        Access::Daemon(client) => {
            let mut sum = RepairReceipt::default();
            for part in report.repairs.chunks(1000) {
                let receipt = client.queue_repairs(part).await?;
                sum.queued += receipt.queued;
                sum.unknown += receipt.unknown;
            }
            output::talk(&format!("{} handed to the daemon", things(sum.queued, "repair")));
            sum
        }
        Access::Store(store) => {
            let receipt = owe(&store, sides, &report.repairs)?;
            let queued = things(receipt.queued, "record");
            output::talk(&format!("the daemon is not running; it repairs {queued} when it starts"));
            receipt
        }
    };
    if receipt.unknown > 0 {
        output::talk(&format!(
            "{} of the CRM left alone: not ours (the ledger does not know of them)",
            things(receipt.unknown, "record")
        ));
    }
    Ok(())
}

/// Leaves the daemon notes for its next start: rows to be read again by key, and, for extra records that are ours, whole
/// tables: only a pass that does not find their rows can tell that they are gone.
fn owe(store: &Store, sides: &Sides, repairs: &[Repair]) -> Result<RepairReceipt> {
    let now = Moment::now().0 / 1000;
    let mut step = step_of(store)?;
    let mut receipt = RepairReceipt::default();
    let mut tables = BTreeSet::new();
    for repair in repairs {
        match repair {
            Repair::Reread { rule: name, .. } => {
                let rule = sides.mapping.rules.iter().find(|rule| *rule.name == **name);
                let (Some(rule), Some(key)) = (rule, repair.row_key()) else { continue };
                step.put_obligations.push(Obligation {
                    rule: name.clone(),
                    table: rule.table.to_string(),
                    key,
                    external_id: None,
                    reason: Reason::Repair,
                    since: now,
                    attempts: 0,
                    due: now,
                    force: true,
                    stamp: 0,
                });
                receipt.queued += 1;
            }
            Repair::Extra { entity, external_id } => {
                let mut ours = false;
                for rule in sides.mapping.rules.iter().filter(|rule| *rule.entity == **entity) {
                    if store.ledger().get(store.ledger().rule(&rule.name)?, external_id)?.is_some() {
                        ours = true;
                        tables.insert(rule.table.to_string());
                    }
                }
                *(if ours { &mut receipt.queued } else { &mut receipt.unknown }) += 1;
            }
        }
    }
    store.commit(&step)?;
    for table in tables {
        store.reset(&ResetScope::Table(table))?;
    }
    Ok(receipt)
}

fn render(report: &Report, look: &Look) -> String {
    let headings = ["ENTITY", ">EXPECTED", ">IN CRM", ">EQUAL", ">MISSING", ">DIFFERENT", ">EXTRA", ">UNMAPPABLE"];
    let mut table = Table::new(&headings);
    for e in &report.entities {
        let bad = |n: u64| right(count(n)).tone(if n > 0 { Tone::Bad } else { Tone::Plain });
        table.row([
            left(&e.entity),
            right(count(e.expected)),
            right(count(e.found)),
            right(count(e.equal)).tone(if e.is_equal() { Tone::Good } else { Tone::Plain }),
            bad(e.missing),
            bad(e.different),
            bad(e.extra),
            bad(e.unmappable + e.contradictory),
        ]);
    }
    let mut out = table.render(look);
    for entity in &report.entities {
        out.push_str(&details(entity, look));
    }
    let equal: u64 = report.entities.iter().map(|e| e.equal).sum();
    let took = span(report.seconds);
    out.push_str(&match report.equal {
        true => format!(
            "{} the CRM equals the source: {} records, every mapped field, in {took}\n",
            look.paint(Tone::Good, "EQUAL"),
            count(equal)
        ),
        false => format!(
            "{} the CRM is not what the mapping makes of the source ({took})\n",
            look.paint(Tone::Bad, "DIFFERENT")
        ),
    });
    out
}

fn details(entity: &EntityReport, look: &Look) -> String {
    let mut out = String::new();
    for sample in &entity.samples {
        out.push_str(&describe(&entity.entity, sample, look));
    }
    let total = entity.missing + entity.different + entity.extra + entity.unmappable + entity.contradictory;
    let rest = total.saturating_sub(entity.samples.len() as u64);
    if rest > 0 {
        out.push_str(
            &look.paint(Tone::Quiet, &format!("  and {} more of {} (--samples)\n", count(rest), entity.entity)),
        );
    }
    if entity.left_behind > 0 {
        let text = format!(
            "  {} records of {} belong to no row any more; the mapping keeps such records (on_delete, on_leave)\n",
            count(entity.left_behind),
            entity.entity
        );
        out.push_str(&look.paint(Tone::Quiet, &text));
    }
    if out.is_empty() { out } else { format!("{out}\n") }
}

fn describe(entity: &str, sample: &Sample, look: &Look) -> String {
    let id = escape_control(sample.external_id.as_deref().unwrap_or("(no external id)"));
    let fields = escape_control(&sample.fields.join(", ")).into_owned();
    let what = match sample.kind {
        Kind::Missing => "is not in the CRM".to_owned(),
        Kind::Different => format!("differs in {fields}"),
        Kind::Extra => "is in the CRM, but no row makes it".to_owned(),
        Kind::Unmappable => format!("cannot be mapped ({fields})"),
        Kind::Contradictory => format!("is made by rows that contradict each other in {fields}"),
    };
    let mut out = format!("  {entity} {} {what}\n", look.paint(Tone::Strong, &id));
    for (name, side) in [("source", &sample.expected), ("crm", &sample.found)] {
        if let Some(values) = side {
            let json = serde_json::to_string(values).unwrap_or_default();
            out.push_str(&format!(
                "    {} {}\n",
                look.paint(Tone::Quiet, &format!("{name:<6}")),
                escape_control(&json)
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_read_well_and_show_values_only_on_request() {
        let sample = Sample {
            kind: Kind::Different,
            external_id: Some("cust-ALFKI".into()),
            rule: Some("customer_account".into()),
            fields: vec!["name".into(), "address.city".into()],
            expected: None,
            found: None,
        };
        let entity = EntityReport {
            entity: "account".into(),
            expected: 91,
            found: 91,
            equal: 89,
            different: 2,
            samples: vec![sample],
            ..EntityReport::default()
        };
        let report = Report { schema: 1, equal: false, seconds: 1.25, entities: vec![entity], repairs: Vec::new() };
        let expected = "\
ENTITY   EXPECTED  IN CRM  EQUAL  MISSING  DIFFERENT  EXTRA  UNMAPPABLE
account        91      91     89        0          2      0           0
  account cust-ALFKI differs in name, address.city
  and 1 more of account (--samples)

DIFFERENT the CRM is not what the mapping makes of the source (1.2 s)
";
        assert_eq!(render(&report, &Look::plain()), expected);
    }
}
