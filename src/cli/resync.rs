//! `tidemark resync`.

use super::output;
use super::tenant::{Access, TenantArgs, access, step_of};
use super::terminal::{Look, Table, count, left, right};
use crate::command::{ResyncPlan, ResyncRequest, ResyncScope, ResyncTable};
use crate::config::Config;
use crate::error::{DaemonKind, Error, Result};
use crate::status::Moment;
use crate::store::{Checkpoint, Entry, Obligation, Reason, ResetScope, Store, TableState};
use clap::Args;

/// Read tables or one record again while changes keep flowing.
///
/// Only differences are sent: a record whose document is the one that the CRM accepted last costs no request. Records
/// whose rows are gone are deleted at the end of a full pass, under the sweep guard.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemark resync acme --all --dry-run               what would be read
  tidemark resync acme --table orders
  tidemark resync acme --entity account --force      send every record, even if nothing changed
  tidemark resync acme --entity account --key cust-ALFKI")]
#[command(group = clap::ArgGroup::new("scope").required(true).multiple(true).args(["all", "table", "entity"]))]
pub struct ResyncArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// Every mapped table.
    #[arg(long, conflicts_with_all = ["table", "entity"])]
    all: bool,
    /// One table, by name or as schema.name.
    #[arg(long, value_name = "T", conflicts_with = "entity")]
    table: Option<String>,
    /// Every table that feeds this entity.
    #[arg(long, value_name = "E")]
    entity: Option<String>,
    /// One record of the entity, by its external id.
    #[arg(long, value_name = "EXTERNAL_ID", requires = "entity")]
    key: Option<String>,
    /// Send unchanged records too, and sweep beyond the guard.
    #[arg(long)]
    force: bool,
    /// Only show what would be read.
    #[arg(long)]
    dry_run: bool,
    /// The answer as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: ResyncArgs) -> Result<()> {
    let scope = match (&args.table, &args.entity, &args.key) {
        (Some(table), ..) => ResyncScope::Table(table.clone()),
        (_, Some(entity), Some(key)) => ResyncScope::Record { entity: entity.clone(), external_id: key.clone() },
        (_, Some(entity), None) => ResyncScope::Entity(entity.clone()),
        _ => ResyncScope::All,
    };
    let config = args.tenant.load()?;
    let request = ResyncRequest { scope, force: args.force, dry_run: args.dry_run };
    let plan = match access(&config).await? {
        Access::Daemon(client) => client.resync(&request).await?,
        Access::Store(store) => without_daemon(&config, &store, &request)?,
    };
    if args.json {
        return output::json(&plan);
    }
    show(&plan)
}

fn show(plan: &ResyncPlan) -> Result<()> {
    let mut table = Table::new(&["TABLE", ">ROWS"]);
    for t in &plan.tables {
        table.row([left(&t.name), right(t.rows_estimate.map_or_else(|| "?".into(), |n| format!("~{}", count(n))))]);
    }
    if !table.is_empty() {
        output::data(&table.render(&Look::stdout()))?;
    }
    if plan.records > 0 {
        output::data(&format!("{} record read by key\n", count(plan.records)))?;
    }
    output::talk(if plan.started { "begun; follow it with tidemark status" } else { "dry run: nothing was begun" });
    Ok(())
}

/// Tables can be marked for the next start, and single records noted; only `--force` needs the daemon.
fn without_daemon(config: &Config, store: &Store, request: &ResyncRequest) -> Result<ResyncPlan> {
    if request.force {
        return Err(Error::new(DaemonKind::Failed, "--force needs the running daemon")
            .hint("start it; what is begun without it sends only differences, and sweeps under the guard"));
    }
    let checkpoint = store.load().ok_or_else(|| Error::new(DaemonKind::Failed, "there is no checkpoint yet"))?;
    let names = match &request.scope {
        ResyncScope::All => checkpoint.tables.keys().cloned().collect(),
        ResyncScope::Table(wanted) => tables_called(&checkpoint, wanted)?,
        ResyncScope::Entity(entity) => tables_of(&checkpoint, &rules_of(config, entity)?),
        ResyncScope::Record { entity, external_id } => {
            let rules = rules_of(config, entity)?;
            if note_record(store, &checkpoint, &rules, external_id, request.dry_run)? {
                if !request.dry_run {
                    output::talk("the daemon is not running; it reads this record's row when it starts");
                }
                return Ok(ResyncPlan { records: 1, started: !request.dry_run, ..ResyncPlan::default() });
            }
            tables_of(&checkpoint, &rules)
        }
    };
    if !request.dry_run {
        for name in &names {
            store.reset(&ResetScope::Table(name.clone()))?;
        }
        output::talk("the daemon is not running; it reads these tables when it starts");
    }
    let tables = names.into_iter().map(|name| ResyncTable { name, rows_estimate: None }).collect();
    let records = u64::from(matches!(request.scope, ResyncScope::Record { .. }));
    Ok(ResyncPlan { tables, records, started: !request.dry_run })
}

fn tables_called(checkpoint: &Checkpoint, wanted: &str) -> Result<Vec<String>> {
    let known = || checkpoint.tables.keys();
    let is_it = |name: &&String| *name == wanted || name.rsplit_once('.').is_some_and(|(_, bare)| bare == wanted);
    let found: Vec<String> = known().filter(is_it).cloned().collect();
    if found.is_empty() {
        let known: Vec<&str> = known().map(String::as_str).collect();
        return Err(Error::new(DaemonKind::Failed, format!("the checkpoint knows no table {wanted}"))
            .hint(format!("it knows: {}", known.join(", "))));
    }
    Ok(found)
}

/// The pack's rules that feed an entity.
fn rules_of(config: &Config, entity: &str) -> Result<Vec<String>> {
    let pack = crate::daemon::pack(config)?;
    let rules = pack.rules_of(entity);
    if rules.is_empty() {
        let known = pack.entity_names().join(", ");
        return Err(Error::new(DaemonKind::Failed, format!("the mapping feeds no entity {entity}"))
            .hint(format!("it feeds: {known}")));
    }
    Ok(rules)
}

/// The tables from which one of these rules was fed when the checkpoint was saved.
fn tables_of(checkpoint: &Checkpoint, rules: &[String]) -> Vec<String> {
    let feeds = |state: &TableState| state.rules.iter().any(|(rule, _)| rules.contains(rule));
    checkpoint.tables.iter().filter(|(_, state)| feeds(state)).map(|(name, _)| name.clone()).collect()
}

/// Notes that a record's row is to be read again, if the ledger knows which row it is. If not, its tables have to be read;
/// then what the ledger says of the record is made void, so that it is sent whatever its document is.
fn note_record(
    store: &Store,
    checkpoint: &Checkpoint,
    rules: &[String],
    external_id: &str,
    dry_run: bool,
) -> Result<bool> {
    let ledger = store.ledger();
    let now = Moment::now().0 / 1000;
    for name in rules {
        let rule = ledger.rule(name)?;
        let Some(entry) = ledger.get(rule, external_id)? else { continue };
        let table = checkpoint.tables.iter().find(|(_, t)| t.rules.iter().any(|(rule, _)| rule == name));
        match (&entry.owner, table) {
            (Some(_), _) if dry_run => return Ok(true),
            (Some(key), Some((table, _))) => {
                let mut step = step_of(store)?;
                step.put_obligations.push(Obligation {
                    rule: name.clone(),
                    table: table.clone(),
                    key: key.clone(),
                    external_id: Some(external_id.into()),
                    reason: Reason::Repair,
                    since: now,
                    attempts: 0,
                    due: now,
                    force: true,
                    stamp: 0,
                });
                store.commit(&step)?;
                return Ok(true);
            }
            _ if dry_run => {}
            _ => {
                ledger.put_batch(rule, &[(external_id, Entry { hash: 0, ..entry })])?;
                ledger.flush_durable()?;
            }
        }
    }
    Ok(false)
}
