//! `tidemark plan`.

use super::output;
use super::progress::Bars;
use super::sides::Sides;
use super::tenant::{Access, TenantArgs, access, client, has_state, temp_dir};
use super::terminal::{Look, Table, Tone, count, fit, left, right, span, things};
use crate::admin::Client;
use crate::command::LedgerPage;
use crate::config::Config;
use crate::error::Result;
use crate::exact::Json;
use crate::logging::escape_control;
use crate::mapping::Mapping;
use crate::plan::{
    Changed, EntityPlan, FieldChange, Kind, Known, Memory, Options, Report, RuleChange, Sample, Spool, plan,
};
use crate::store::{DeadLetter, Store};
use crate::verify::Side;
use clap::Args;
use std::path::{Path, PathBuf};

/// Dead letters are read in pages of this size.
const PAGE: usize = 1000;

/// What would be sent now, and nothing of it sent: records that would be made, changed, deleted or refused, the requests
/// they take, and the fields that would change.
///
/// Reads the source and the CRM whole, with memory bounded, and holds them against what the CRM last accepted. Works
/// beside a running daemon and without one. After an edit of the mapping it shows what the edit does: the next start reads
/// the tables concerned again and sends what the plan says.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemark plan acme                              before the first start, or after an edit of the mapping
  tidemark plan acme --entity account --samples 50
  tidemark plan acme --without-crm                spares the CRM: only the ledger is asked
  tidemark plan acme --json | jq '.entities[] | {entity, create, update, delete, reject}'")]
pub struct PlanArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// Only this entity; may be repeated.
    #[arg(long, value_name = "E")]
    entity: Vec<String>,
    /// Records of each kind and entity to describe.
    #[arg(long, value_name = "N", default_value_t = 5)]
    samples: usize,
    /// Name the fields that would change without their values.
    #[arg(long)]
    hide_values: bool,
    /// Do not read the CRM's records (a request per thousand): what the ledger knows counts as changed, the rest as new.
    #[arg(long)]
    without_crm: bool,
    /// Directory for temporary files (without names, gone with the process); the state directory if it can be used.
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,
    /// As JSON (schema version 1).
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: PlanArgs) -> Result<()> {
    let config = args.tenant.load()?;
    crate::logging::init("warn", crate::logging::LogFormat::Text, None)?;
    let sides = Sides::open(&config).await?;
    let dir = temp_dir(&config, args.temp_dir.as_deref());
    let memory = usize::try_from(config.limits.memory / 4).unwrap_or(usize::MAX);
    let (known, remembered, is_running) = remember(&config, &sides.mapping, &dir, memory).await?;
    let limits = sides.crm.limits();
    let own = config.delivery.batch_records;
    let options = Options {
        entities: args.entity.clone(),
        samples: args.samples,
        show_values: !args.hide_values,
        ask_crm: !args.without_crm,
        batch_records: limits.records.map_or(own, |most| most.min(own)),
        batch_bytes: limits.bytes.map_or(crate::loader::BATCH_BYTES, |most| most.min(crate::loader::BATCH_BYTES)),
        guard: config.state.sweep_guard,
        dir,
        memory,
    };
    let side = Side {
        connector: &*sides.connector,
        crm: &*sides.crm,
        mapping: &sides.mapping,
        chunk_rows: config.snapshot.chunk_rows,
        daemon: None,
    };
    let bars = Bars::new();
    let result = plan(&side, known, &remembered, &options, &bars).await;
    bars.end();
    let report = result?;
    if args.json {
        return output::json(&report);
    }
    let look = Look::stdout();
    output::data(&render(&report, &look))?;
    hints(&report, &config, is_running, &args.tenant.as_given());
    Ok(())
}

/// What the tenant remembers, from its daemon, from its state directory, or nothing if it never ran. The directory is held
/// only while it is read.
async fn remember(config: &Config, mapping: &Mapping, dir: &Path, memory: usize) -> Result<(Known, Memory, bool)> {
    let mut spool = Spool::new(mapping, dir, memory);
    let mut remembered = Memory::default();
    if !has_state(config) && client(config).status().await.is_err() {
        return Ok((spool.finish()?, remembered, false));
    }
    let is_running = match access(config).await? {
        Access::Daemon(client) => {
            from_daemon(&client, &mut spool, &mut remembered).await?;
            true
        }
        Access::Store(store) => {
            from_store(&store, &mut spool, &mut remembered)?;
            false
        }
    };
    Ok((spool.finish()?, remembered, is_running))
}

async fn from_daemon(client: &Client, spool: &mut Spool, remembered: &mut Memory) -> Result<()> {
    remembered.checkpoint = client.checkpoint().await?.checkpoint;
    let mut page = client.ledger(None, None).await?;
    loop {
        take(spool, &page)?;
        match &page.next {
            Some(rule) => page = client.ledger(Some(rule), page.after.as_deref()).await?,
            None => break,
        }
    }
    let mut after = None;
    loop {
        let letters = client.dead_letters(None, after, PAGE).await?;
        let Some(last) = letters.last() else { return Ok(()) };
        after = Some(last.id);
        remembered.set_aside.extend(letters.into_iter().filter_map(name_of));
    }
}

fn from_store(store: &Store, spool: &mut Spool, remembered: &mut Memory) -> Result<()> {
    remembered.checkpoint = store.load();
    let mut page = LedgerPage::of(store, None, None, 10_000)?;
    loop {
        take(spool, &page)?;
        match &page.next {
            Some(rule) => page = LedgerPage::of(store, Some(rule), page.after.as_deref(), 10_000)?,
            None => break,
        }
    }
    let mut after = None;
    loop {
        let letters = store.dead_letters(None, after, PAGE)?;
        let Some(last) = letters.last() else { return Ok(()) };
        after = Some(last.id);
        remembered.set_aside.extend(letters.into_iter().filter_map(name_of));
    }
}

fn take(spool: &mut Spool, page: &LedgerPage) -> Result<()> {
    let Some(rule) = &page.rule else { return Ok(()) };
    page.records.iter().try_for_each(|(external_id, hash)| spool.add(rule, external_id, *hash))
}

fn name_of(letter: DeadLetter) -> Option<(String, String)> {
    Some((letter.rule, letter.external_id?))
}

fn render(report: &Report, look: &Look) -> String {
    let mut out = mapping_changes(report, look);
    let headings =
        ["ENTITY", ">RECORDS", ">CREATE", ">UPDATE", ">DELETE", ">ARCHIVE", ">REJECT", ">IN PLACE", ">REQUESTS"];
    let mut table = Table::new(&headings);
    for e in &report.entities {
        let number = |n: u64, tone| right(count(n)).tone(if n > 0 { tone } else { Tone::Quiet });
        table.row([
            left(&e.entity),
            right(count(e.records)),
            number(e.create, Tone::Good),
            number(e.update, Tone::Warn),
            number(e.delete, Tone::Bad),
            number(e.archive, Tone::Warn),
            number(e.reject, Tone::Bad),
            right(count(e.in_place)),
            number(e.upsert_requests + e.delete_requests, Tone::Plain),
        ]);
    }
    out.push_str(&table.render(look));
    out.push('\n');
    for entity in &report.entities {
        out.push_str(&details(entity, look));
    }
    out.push_str(&summary(report, look));
    out
}

fn mapping_changes(report: &Report, look: &Look) -> String {
    let mut out = String::new();
    if report.first_start {
        return "A first start: every table is read, and every record is sent.\n\n".into();
    }
    if report.rules.is_empty() && report.orphaned.is_empty() {
        return out;
    }
    if !report.rules.is_empty() {
        out.push_str(&format!(
            "{}\n",
            look.paint(Tone::Strong, "The mapping has changed since the daemon's last start")
        ));
        let mut table = Table::bare();
        for RuleChange { rule, table: name, change } in &report.rules {
            let (word, tone) = match change {
                Changed::New => ("new", Tone::Good),
                Changed::Edited => ("edited", Tone::Warn),
                Changed::Gone => ("gone", Tone::Bad),
            };
            let again = match report.tables_read_again.contains(name) {
                true => format!("{name} is read again at the next start"),
                false => format!("{name} is no longer read"),
            };
            table.row([left("  rule"), left(rule).tone(Tone::Strong), left(word).tone(tone), left(again)]);
        }
        out.push_str(&table.render(look));
    }
    for (rule, n) in &report.orphaned {
        let text = format!(
            "  {} of rule {rule}, which the mapping no longer has, stay in the CRM as they are\n",
            things(*n, "record")
        );
        out.push_str(&look.paint(Tone::Quiet, &text));
    }
    out.push('\n');
    out
}

fn details(entity: &EntityPlan, look: &Look) -> String {
    let mut out = String::new();
    for sample in &entity.samples {
        out.push_str(&describe(&entity.entity, sample, look));
    }
    let all = entity.create + entity.update + entity.delete + entity.archive + entity.reject + entity.drifted;
    let rest = all.saturating_sub(entity.samples.len() as u64);
    let mut note = |n: u64, what: &str| {
        if n > 0 {
            out.push_str(&look.paint(Tone::Quiet, &format!("  {} of {} {what}\n", count(n), entity.entity)));
        }
    };
    note(rest, "more are not described (--samples)");
    note(entity.unchanged, "are sent although the CRM holds them so: the ledger does not know that it does");
    note(entity.set_aside, "are dead letters: not sent until they are retried or their rows change");
    note(entity.left_in_place, "belong to no row any more; the mapping keeps such records (on_delete, on_leave)");
    note(entity.foreign, "are in the CRM and not ours: left alone");
    if out.is_empty() { out } else { format!("{out}\n") }
}

fn describe(entity: &str, sample: &Sample, look: &Look) -> String {
    let id = escape_control(sample.external_id.as_deref().unwrap_or("(no external id)"));
    let (mark, tone, word) = match sample.kind {
        Kind::Create => ("+", Tone::Good, "new"),
        Kind::Update => ("~", Tone::Warn, "changed"),
        Kind::Delete => ("-", Tone::Bad, "deleted"),
        Kind::Archive => ("-", Tone::Warn, "archived"),
        Kind::Reject => ("!", Tone::Bad, "cannot be mapped"),
        Kind::Drifted => ("?", Tone::Accent, "changed in the CRM; not sent"),
    };
    let reason = sample.reason.as_ref().map(|reason| format!(": {}", escape_control(reason))).unwrap_or_default();
    let line = format!("  {} {entity} {}  {word}{reason}", look.paint(tone, mark), look.paint(Tone::Strong, &id));
    let mut out = format!("{}\n", fit(&line, look));
    let width = sample.fields.iter().map(|f| f.field.chars().count()).max().unwrap_or(0).min(32);
    for FieldChange { field, from, to } in &sample.fields {
        let field = escape_control(field);
        let arrow = look.paint(Tone::Quiet, if look.unicode { "→" } else { "->" });
        let values = match (sample.kind, from, to) {
            // What a new record had before says nothing.
            (Kind::Create, _, Some(to)) => value(to),
            (Kind::Drifted, Some(from), Some(to)) => {
                format!("{} {}", value(from), look.paint(Tone::Quiet, &format!("should be {}", value(to))))
            }
            (_, Some(from), Some(to)) => format!("{} {arrow} {}", value(from), value(to)),
            (_, None, Some(to)) => format!("{arrow} {}", value(to)),
            _ => String::new(),
        };
        out.push_str(fit(&format!("      {field:<width$}  {values}"), look).trim_end());
        out.push('\n');
    }
    out
}

/// A value on one line, cut where it is long.
fn value(value: &Json) -> String {
    let json = serde_json::to_string(value).unwrap_or_default();
    let json = escape_control(&json);
    match json.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &json[..at]),
        None => json.into_owned(),
    }
}

fn summary(report: &Report, look: &Look) -> String {
    let sum = |of: fn(&EntityPlan) -> u64| report.entities.iter().map(of).sum::<u64>();
    let sent = sum(EntityPlan::sent);
    let took = span(report.seconds);
    if sent == 0 {
        let refused = sum(|e| e.reject);
        let but = if refused > 0 { format!("; {} cannot be mapped", things(refused, "row")) } else { String::new() };
        return format!("{} nothing would be sent{but} ({took})\n", look.paint(Tone::Good, "PLAN"));
    }
    let parts = [
        (sum(|e| e.create), "new"),
        (sum(|e| e.update), "changed"),
        (sum(|e| e.unchanged), "as they are"),
        (sum(|e| e.archive), "archived"),
        (sum(|e| e.delete), "deleted"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{} {word}", count(*n))).collect();
    format!(
        "{} {} in {}: {}; {} in place ({took}; nothing was sent)\n",
        look.paint(Tone::Accent, "PLAN"),
        things(sent, "record"),
        things(report.requests, "request"),
        parts.join(", "),
        count(sum(|e| e.in_place)),
    )
}

fn hints(report: &Report, config: &Config, is_running: bool, tenant: &str) {
    for held in &report.held_back {
        output::hint(&format!(
            "{} of {} records of {} would be deleted, more than [state] sweep_guard lets go at once: the sweep would stop and \
             ask",
            count(held.deletes),
            count(held.of),
            held.table
        ));
    }
    let sent: u64 = report.entities.iter().map(EntityPlan::sent).sum();
    if is_running && !report.rules.is_empty() {
        output::hint("the daemon runs with the mapping it was started with: restart it to apply this one");
    } else if is_running && sent > 0 && report.rules.is_empty() {
        output::hint("the daemon runs: some of this is on its way already; what stays is sent by tidemark resync");
    } else if !is_running && !report.first_start && sent > 0 && report.rules.is_empty() {
        output::hint(
            "changes since the daemon stopped are sent when it starts; what was missed otherwise, by tidemark resync",
        );
    }
    if report.entities.iter().any(|e| e.drifted > 0) {
        output::hint(&format!("what was changed in the CRM is mended by tidemark verify {tenant} --repair"));
    }
    let quota = config.delivery.daily_quota;
    if quota > 0 && report.requests > quota {
        output::hint(&format!("[delivery] daily_quota lets {} a day", things(quota, "request")));
    }
}
