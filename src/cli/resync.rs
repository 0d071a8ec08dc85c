//! `tidemark resync`.

use super::output;
use super::tenant::{Access, TenantArgs, access};
use super::terminal::{Look, Table, count, left, right};
use crate::command::{ResyncPlan, ResyncRequest, ResyncScope, ResyncTable};
use crate::error::{DaemonKind, Error, Result};
use crate::store::{ResetScope, Store};
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
        Access::Store(store) => without_daemon(&store, &request)?,
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

/// Whole tables can be marked for the next start; what needs the mapping or the ledger's owner needs the daemon.
fn without_daemon(store: &Store, request: &ResyncRequest) -> Result<ResyncPlan> {
    let needs_daemon = |what: &str| {
        Error::new(DaemonKind::Failed, format!("{what} needs the running daemon"))
            .hint("start it, or mark whole tables for the next start with --all or --table")
    };
    if request.force {
        return Err(needs_daemon("--force"));
    }
    let checkpoint = store.load().ok_or_else(|| Error::new(DaemonKind::Failed, "there is no checkpoint yet"))?;
    let names: Vec<String> = match &request.scope {
        ResyncScope::All => checkpoint.tables.keys().cloned().collect(),
        ResyncScope::Table(wanted) => {
            let found: Vec<String> = checkpoint
                .tables
                .keys()
                .filter(|name| *name == wanted || name.rsplit_once('.').is_some_and(|(_, bare)| bare == wanted))
                .cloned()
                .collect();
            if found.is_empty() {
                let known: Vec<&str> = checkpoint.tables.keys().map(String::as_str).collect();
                return Err(Error::new(DaemonKind::Failed, format!("the checkpoint knows no table {wanted}"))
                    .hint(format!("it knows: {}", known.join(", "))));
            }
            found
        }
        ResyncScope::Entity(_) => return Err(needs_daemon("--entity")),
        ResyncScope::Record { .. } => return Err(needs_daemon("--key")),
    };
    if !request.dry_run {
        for name in &names {
            store.reset(&ResetScope::Table(name.clone()))?;
        }
        output::talk("the daemon is not running; it reads these tables when it starts");
    }
    let tables = names.into_iter().map(|name| ResyncTable { name, rows_estimate: None }).collect();
    Ok(ResyncPlan { tables, records: 0, started: !request.dry_run })
}
