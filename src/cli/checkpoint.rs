//! `tidemark checkpoint`.

use super::output;
use super::tenant::{Access, TenantArgs, access, refuse_foreign_directory};
use super::terminal::{Look, Table, Tone, bytes, count, left, right, span};
use crate::command::CheckpointView;
use crate::error::{DaemonKind, Error, Result};
use crate::logging::escape_control;
use crate::status::Moment;
use crate::store::{Checkpoint, Moved, ResetScope, Store, TablePhase, transfer_head};
use clap::{Args, Subcommand};
use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

/// Where the daemon stands: look at it, or make it begin again.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemark checkpoint show acme
  tidemark checkpoint reset acme --table public.orders   read one table again at the next start
  tidemark checkpoint reset acme --all                   a new tail, and every table again
  tidemark checkpoint undo acme 3                        take a reset back
  tidemark checkpoint export acme > acme.jsonl           everything, to move a tenant to another machine
  tidemark checkpoint import acme < acme.jsonl           into an empty state directory
  tidemark checkpoint recover acme                       after a damaged store: go on from the side copy")]
pub struct CheckpointArgs {
    #[command(subcommand)]
    command: CheckpointCommand,
}

#[derive(Subcommand, Debug)]
enum CheckpointCommand {
    /// The position, the tables, what is owed, and earlier checkpoints. Works beside a running daemon.
    Show(ShowArgs),
    /// Forget the position or a table's state; the last ten are kept for `undo`. Only while no daemon runs.
    Reset(ResetArgs),
    /// Take a reset back. Only while no daemon runs.
    Undo(UndoArgs),
    /// Write everything the tenant remembers (position, tables, what is owed, dead letters, ledger) as lines of JSON to
    /// stdout. It holds keys and external ids, no field values. Only while no daemon runs.
    Export(ExportArgs),
    /// Read what `export` wrote from stdin into an empty state directory: the tenant goes on from there, and nothing is
    /// sent again. Refused if it is another tenant's or another source's.
    Import(ImportArgs),
    /// Begin a new checkpoint database from the side copy when the database is damaged. Only while no daemon runs.
    Recover(RecoverArgs),
}

#[derive(Args, Debug)]
struct ShowArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("scope").required(true).args(["all", "table"]))]
struct ResetArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// The position and every table: the next start begins a new tail and reads everything again. Deletes between the
    /// old position and now are found by the sweep at the end.
    #[arg(long)]
    all: bool,
    /// One table (schema.name); the tail and the other tables keep their places.
    #[arg(long, value_name = "T")]
    table: Option<String>,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

#[derive(Args, Debug)]
struct UndoArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// The earlier checkpoint's number, as `show` lists it; the latest if none is given.
    #[arg(value_name = "NUMBER")]
    number: Option<String>,
}

#[derive(Args, Debug)]
struct ExportArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// Leave the ledger out: smaller, but the next pass over a table sends every record once.
    #[arg(long)]
    without_ledger: bool,
    /// Into this file (which must not exist) instead of stdout; only its owner may read it.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct ImportArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// From this file instead of stdin.
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct RecoverArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn run(args: CheckpointArgs) -> Result<()> {
    match args.command {
        CheckpointCommand::Show(args) => show(args).await,
        CheckpointCommand::Reset(args) => reset(args).await,
        CheckpointCommand::Undo(args) => undo(args).await,
        CheckpointCommand::Export(args) => export(args).await,
        CheckpointCommand::Import(args) => import(args).await,
        CheckpointCommand::Recover(args) => recover(args).await,
    }
}

async fn show(args: ShowArgs) -> Result<()> {
    let config = args.tenant.load()?;
    let view = match access(&config).await? {
        Access::Daemon(client) => client.checkpoint().await?,
        Access::Store(store) => CheckpointView::of(&store)?,
    };
    if args.json {
        return output::json(&view);
    }
    output::data(&render(&view, &Look::stdout()))
}

fn render(view: &CheckpointView, look: &Look) -> String {
    let Some(checkpoint) = &view.checkpoint else { return "no checkpoint yet\n".into() };
    let mut facts = Table::bare();
    let mut fact = |name: &str, value: String| facts.row([left(name).tone(Tone::Quiet), left(value)]);
    let place = |p: &Option<tidemark_contract::Position>| p.as_ref().map_or("none".into(), ToString::to_string);
    fact("tenant", checkpoint.tenant.clone());
    fact("source", checkpoint.source.clone());
    let saved = Moment(checkpoint.saved_at);
    fact("saved", format!("{saved} ({} ago)", span(saved.elapsed().as_secs_f64())));
    fact("position", place(&checkpoint.position));
    if let Some(position) = &checkpoint.position {
        fact("log", position.log.to_string());
    }
    fact("dispatched", place(&checkpoint.dispatched));
    fact("generation", checkpoint.generation.to_string());
    fact("size", format!("{} and {} of ledger", bytes(view.checkpoint_bytes), bytes(view.ledger_bytes)));
    for (reason, n) in &view.obligations {
        fact("to be read again", format!("{} ({})", count(*n), reason.replace('_', " ")));
    }
    for (entity, n) in &view.dead_letters {
        fact("dead letters", format!("{} of {entity}", count(*n)));
    }
    if view.ledger_lost {
        fact("ledger", "lost entries; a full pass over every table makes it whole again".into());
    }
    let mut out = facts.render(look);
    out.push('\n');
    out.push_str(&tables(checkpoint, look));
    if !view.history.is_empty() {
        let mut history = Table::new(&[">NUMBER", "RESET AT", "WHAT", "POSITION"]);
        for entry in &view.history {
            let what = match &entry.scope {
                ResetScope::All => "everything".to_owned(),
                ResetScope::Table(name) => name.clone(),
            };
            history.row([
                right(entry.id.to_string()),
                left(Moment(entry.at.saturating_mul(1000)).to_string()),
                left(what),
                left(place(&entry.checkpoint.position)),
            ]);
        }
        out.push('\n');
        out.push_str(&history.render(look));
    }
    out
}

fn tables(checkpoint: &Checkpoint, look: &Look) -> String {
    let mut out = Table::new(&["TABLE", "STATE", ">ROWS", ">GENERATION", "RULES"]);
    for (name, table) in &checkpoint.tables {
        let (state, rows, tone) = match &table.phase {
            TablePhase::Pending { .. } => ("waits for its snapshot".to_owned(), table.rows, Tone::Quiet),
            TablePhase::Snapshot { rows_done, .. } => ("snapshot".into(), *rows_done, Tone::Accent),
            TablePhase::Live => ("live".into(), table.rows, Tone::Good),
            TablePhase::NeedsAttention { reason } => {
                (format!("needs attention: {}", escape_control(reason)), table.rows, Tone::Bad)
            }
        };
        let rules: Vec<&str> = table.rules.iter().map(|(rule, _)| rule.as_str()).collect();
        let generation = right(table.generation.to_string());
        out.row([left(name), left(state).tone(tone), right(count(rows)), generation, left(rules.join(", "))]);
    }
    out.render(look)
}

/// The store, refused while a daemon runs: it would not notice.
async fn store_alone(tenant: &TenantArgs) -> Result<Store> {
    match access(&tenant.load()?).await? {
        Access::Store(store) => Ok(*store),
        Access::Daemon(client) => Err(running(client.status().await?.pid)),
    }
}

fn running(pid: u32) -> Error {
    Error::new(DaemonKind::Failed, format!("the daemon (pid {pid}) holds the checkpoint"))
        .hint("stop it first; to read tables again beside it, use: tidemark resync")
}

async fn reset(args: ResetArgs) -> Result<()> {
    let store = store_alone(&args.tenant).await?;
    let (scope, question) = match args.table {
        Some(table) => {
            let question = format!("Read {table} again at the next start?");
            (ResetScope::Table(table), question)
        }
        None => {
            let question = "Forget the position, begin a new tail and read every table again at the next start?";
            (ResetScope::All, question.to_owned())
        }
    };
    output::confirm(&question, args.yes)?;
    store.reset(&scope)?;
    if let Some(entry) = store.history()?.last() {
        output::talk("done");
        output::hint(&format!("to take it back: tidemark checkpoint undo {} {}", args.tenant.as_given(), entry.id));
    }
    Ok(())
}

async fn undo(mut args: UndoArgs) -> Result<()> {
    let number = args.tenant.shift().or(args.number);
    let store = store_alone(&args.tenant).await?;
    let number = match number {
        Some(word) => word
            .parse()
            .map_err(|_| Error::new(DaemonKind::Usage, format!("`{word}` is not the number of a checkpoint")))?,
        None => store.history()?.last().map(|entry| entry.id).ok_or_else(|| {
            Error::new(DaemonKind::Failed, "nothing was reset").hint("`checkpoint show` lists what can be taken back")
        })?,
    };
    store.undo_reset(number)?;
    output::talk(&format!("the checkpoint is again as it was before reset {number}"));
    Ok(())
}

async fn export(args: ExportArgs) -> Result<()> {
    let store = store_alone(&args.tenant).await?;
    let mut out: Box<dyn Write> = match &args.file {
        None => Box::new(std::io::stdout().lock()),
        Some(path) => {
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            Box::new(file.map_err(output::failed(&format!("create {}", path.display())))?)
        }
    };
    let mut buffered = BufWriter::new(&mut out);
    let moved = store.export(&mut buffered, !args.without_ledger)?;
    buffered.flush().map_err(output::failed("write the export"))?;
    tell(&moved, "exported");
    Ok(())
}

async fn import(args: ImportArgs) -> Result<()> {
    let config = args.tenant.load()?;
    if let Ok(report) = super::tenant::client(&config).status().await {
        return Err(running(report.pid));
    }
    let input: Box<dyn Read> = match &args.file {
        None => Box::new(std::io::stdin().lock()),
        Some(path) => Box::new(File::open(path).map_err(output::failed(&format!("open {}", path.display())))?),
    };
    // What it is, is known before anything is made.
    let mut input = BufReader::new(input);
    let (head, checkpoint) = transfer_head(&mut input)?;
    let identity = config.source.identity();
    for (what, found, wanted) in
        [("tenant", &checkpoint.tenant, &config.tenant.to_string()), ("source", &checkpoint.source, &identity)]
    {
        if found != wanted && !(what == "source" && config.source.may_have_moved_from(found)) {
            let message =
                format!("this is the checkpoint of the {what} {found}, not of {wanted}; nothing was imported");
            return Err(Error::new(DaemonKind::WrongState, message)
                .hint("a place in one server's log means nothing in another's: such a tenant begins with a snapshot"));
        }
    }
    refuse_foreign_directory(&config.state.dir)?;
    let store = Store::open_briefly(&config.state.dir)?;
    let moved = store.import(&mut head.chain(input))?;
    tell(&moved, "imported");
    output::talk("the next start goes on from there");
    Ok(())
}

fn tell(moved: &Moved, done: &str) {
    let Moved { marks, obligations, dead_letters, ledger_entries } = moved;
    let parts = [
        (*ledger_entries, "entries of the ledger"),
        (*obligations, "records to be read again"),
        (*dead_letters, "dead letters"),
        (*marks, "marks of a running snapshot"),
    ];
    let parts: Vec<String> =
        parts.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", count(n))).collect();
    let also = if parts.is_empty() { String::new() } else { format!(", with {}", parts.join(", ")) };
    output::talk(&format!("the checkpoint was {done}{also}"));
}

async fn recover(args: RecoverArgs) -> Result<()> {
    let config = args.tenant.load()?;
    if let Ok(report) = super::tenant::client(&config).status().await {
        return Err(running(report.pid));
    }
    let question = "Set the damaged database aside and begin a new one from the side copy? The position is kept, every \
                    table is read again (only differences are sent), dead letters are forgotten.";
    output::confirm(question, args.yes)?;
    let checkpoint = Store::recover_from_copy(&config.state.dir)?;
    let saved = Moment(checkpoint.saved_at);
    output::talk(&format!("recovered from the copy of {saved}; the damaged database was kept beside it"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Step, TableState};

    #[test]
    fn a_checkpoint_reads_well() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("a new store");
        let mut checkpoint =
            Checkpoint { tenant: "acme".into(), source: "postgres://h:5432/d".into(), ..Default::default() };
        checkpoint.position =
            Some(tidemark_contract::Position { log: "system 7 slot a".into(), place: "0/16B3748.3".into() });
        let live = TableState { phase: TablePhase::Live, rows: 830, ..TableState::pending(vec![("order".into(), 1)]) };
        checkpoint.tables.insert("public.orders".into(), live);
        store.commit(&Step { checkpoint, ..Step::default() }).expect("saved");
        store.reset(&ResetScope::Table("public.orders".into())).expect("reset");
        let text = render(&CheckpointView::of(&store).expect("read"), &Look::plain());
        for part in
            ["position", "0/16B3748.3", "system 7 slot a", "waits for its snapshot", "RESET AT", "public.orders"]
        {
            assert!(text.contains(part), "no {part} in:\n{text}");
        }
    }
}
