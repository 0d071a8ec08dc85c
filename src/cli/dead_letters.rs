//! `tidemark dead-letters`.

use super::output;
use super::tenant::{Access, TenantArgs, access, step_of};
use super::terminal::{Look, Table, Tone, count, left, right, things};
use crate::command::DeadLetterSelection;
use crate::error::{DaemonKind, Error, Result};
use crate::logging::escape_control;
use crate::status::Moment;
use crate::store::{DeadLetter, Obligation, Reason, RecordRef, Store};
use clap::{Args, Subcommand};

/// Pages of this size are read.
const PAGE: usize = 1000;

/// Records that were set aside: what the CRM or the mapping refused, with its own words.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemark dead-letters list acme
  tidemark dead-letters show acme 17
  tidemark dead-letters retry acme --entity order      after the cause was mended
  tidemark dead-letters drop acme 17 18                the CRM stays without these changes")]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    command: DeadLettersCommand,
}

#[derive(Subcommand, Debug)]
enum DeadLettersCommand {
    /// List them, newest last. External ids are shown: the list is for people who may see the records.
    List(ListArgs),
    /// Everything that is known of some.
    Show(ChosenArgs),
    /// Read their rows again and send what they are now.
    Retry(SelectArgs),
    /// Forget them; the CRM stays without those changes.
    Drop(SelectArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// Only of this entity.
    #[arg(long, value_name = "E")]
    entity: Option<String>,
    /// Only with this reason's code.
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// Show at most so many.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct ChosenArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// Their numbers, as `list` shows them.
    #[arg(value_name = "NUMBER")]
    numbers: Vec<u64>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct SelectArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// Their numbers, as `list` shows them.
    #[arg(value_name = "NUMBER")]
    numbers: Vec<u64>,
    /// Those of this entity.
    #[arg(long, value_name = "E")]
    entity: Option<String>,
    /// Those with this reason's code.
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// All of them.
    #[arg(long, conflicts_with_all = ["numbers", "entity", "code"])]
    all: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

impl SelectArgs {
    /// With `--config` the first number stands where the tenant would.
    fn complete(mut self) -> Result<Self> {
        shift(&mut self.tenant, &mut self.numbers)?;
        if self.numbers.is_empty() && self.entity.is_none() && self.code.is_none() && !self.all {
            return Err(Error::new(DaemonKind::Usage, "which dead letters?")
                .hint("name them by NUMBER, --entity, --code, or --all"));
        }
        Ok(self)
    }

    fn selection(&self) -> DeadLetterSelection {
        DeadLetterSelection { entity: self.entity.clone(), code: self.code.clone(), ids: self.numbers.clone() }
    }
}

pub(super) async fn run(args: DeadLettersArgs) -> Result<()> {
    match args.command {
        DeadLettersCommand::List(args) => list(args).await,
        DeadLettersCommand::Show(args) => show(args).await,
        DeadLettersCommand::Retry(args) => retry(args.complete()?).await,
        DeadLettersCommand::Drop(args) => forget(args.complete()?).await,
    }
}

fn shift(tenant: &mut TenantArgs, numbers: &mut Vec<u64>) -> Result<()> {
    if let Some(word) = tenant.shift() {
        let number = word
            .parse()
            .map_err(|_| Error::new(DaemonKind::Usage, format!("`{word}` is not the number of a dead letter")))?;
        numbers.insert(0, number);
    }
    Ok(())
}

async fn list(args: ListArgs) -> Result<()> {
    let config = args.tenant.load()?;
    let way = access(&config).await?;
    let selection = DeadLetterSelection { entity: args.entity, code: args.code, ids: Vec::new() };
    let letters = select(&way, &selection).await?;
    let first = letters.len().saturating_sub(args.limit);
    let shown = &letters[first..];
    if args.json {
        return output::json(shown);
    }
    if letters.is_empty() {
        output::talk("no dead letters");
        return Ok(());
    }
    let look = Look::stdout();
    let mut table = Table::new(&[">NUMBER", "WHEN", "ENTITY", "EXTERNAL ID", "OP", "CODE", "FIELD", "MESSAGE"]);
    for letter in shown {
        table.row([
            right(letter.id.to_string()),
            left(when(letter)),
            left(&letter.entity),
            left(escape_control(letter.external_id.as_deref().unwrap_or("?"))),
            left(letter.op.to_string()),
            left(escape_control(&letter.code)).tone(Tone::Warn),
            left(escape_control(letter.field.as_deref().unwrap_or(""))),
            left(escape_control(&letter.message)),
        ]);
    }
    output::data(&table.render(&look))?;
    if first > 0 {
        output::hint(&format!("{} older ones are not shown (--limit)", count(first as u64)));
    }
    output::hint(&format!("tidemark dead-letters show {} NUMBER", args.tenant.as_given()));
    Ok(())
}

async fn show(mut args: ChosenArgs) -> Result<()> {
    shift(&mut args.tenant, &mut args.numbers)?;
    if args.numbers.is_empty() {
        return Err(Error::new(DaemonKind::Usage, "which dead letters?").hint("name them by NUMBER"));
    }
    let config = args.tenant.load()?;
    let way = access(&config).await?;
    let mut letters = Vec::new();
    for number in &args.numbers {
        let letter = match &way {
            Access::Daemon(client) => client.dead_letter(*number).await?,
            Access::Store(store) => store.dead_letter(*number)?,
        };
        letters.push(letter.ok_or_else(|| {
            Error::new(DaemonKind::Failed, format!("there is no dead letter {number}"))
                .hint("a later success of the same record clears its dead letter")
        })?);
    }
    if args.json {
        return output::json(&letters);
    }
    for letter in &letters {
        output::data(&describe(letter, &Look::stdout()))?;
    }
    Ok(())
}

fn describe(letter: &DeadLetter, look: &Look) -> String {
    let mut table = Table::bare();
    let mut row = |name: &str, value: &str| table.row([left(name).tone(Tone::Quiet), left(escape_control(value))]);
    row("number", &letter.id.to_string());
    row("when", &when(letter));
    row("entity", &letter.entity);
    row("rule", &letter.rule);
    row("table", &letter.table);
    row("external id", letter.external_id.as_deref().unwrap_or("could not be computed"));
    row("operation", &letter.op.to_string());
    row("attempts", &letter.attempts.to_string());
    row("code", &letter.code);
    if let Some(field) = &letter.field {
        row("field", field);
    }
    // The words are what this is for: they are not cut.
    let words = look.paint(Tone::Quiet, "message      ");
    format!("{}{words}{}\n\n", table.render(look), escape_control(&letter.message))
}

fn when(letter: &DeadLetter) -> String {
    Moment(letter.at.saturating_mul(1000)).to_string()
}

async fn retry(args: SelectArgs) -> Result<()> {
    let config = args.tenant.load()?;
    let (n, what) = match access(&config).await? {
        Access::Daemon(client) => {
            (client.retry_dead_letters(&args.selection()).await?, "read again now, and sent as their rows are")
        }
        Access::Store(store) => {
            (owe(&store, &args.selection())?, "read again when the daemon, which is not running, starts")
        }
    };
    if n == 0 {
        return Err(none());
    }
    output::talk(&format!("{} to be {what}", things(n, "record")));
    Ok(())
}

fn none() -> Error {
    Error::new(DaemonKind::Failed, "there are no such dead letters")
}

/// Leaves the daemon a note to read these rows again. The letters stay until a success clears them.
fn owe(store: &Store, selection: &DeadLetterSelection) -> Result<u64> {
    let letters = from_store(store, selection)?;
    let mut step = step_of(store)?;
    let now = Moment::now().0 / 1000;
    step.put_obligations = letters
        .iter()
        .map(|letter| Obligation {
            rule: letter.rule.clone(),
            table: letter.table.clone(),
            key: letter.key.clone(),
            external_id: letter.external_id.clone(),
            reason: Reason::DeadLetterRetry,
            since: now,
            attempts: 0,
            due: now,
            force: true,
            stamp: 0,
        })
        .collect();
    store.commit(&step)?;
    Ok(letters.len() as u64)
}

async fn forget(args: SelectArgs) -> Result<()> {
    let config = args.tenant.load()?;
    let way = access(&config).await?;
    let letters = select(&way, &args.selection()).await?;
    if letters.is_empty() {
        return Err(none());
    }
    let question = format!("Forget {} of {}?", things(letters.len() as u64, "dead letter"), config.tenant);
    output::confirm(&format!("{question} The CRM stays without these changes."), args.yes)?;
    let n = match way {
        Access::Daemon(client) => client.drop_dead_letters(&args.selection()).await?,
        Access::Store(store) => {
            let mut step = step_of(&store)?;
            step.remove_dead_letters =
                letters.iter().map(|l| RecordRef { rule: l.rule.clone(), key: l.key.clone() }).collect();
            store.commit(&step)?;
            letters.len() as u64
        }
    };
    output::talk(&format!(
        "{} forgotten; the CRM stays without what was to be done, until the row changes again",
        things(n, "dead letter")
    ));
    Ok(())
}

async fn select(way: &Access, selection: &DeadLetterSelection) -> Result<Vec<DeadLetter>> {
    let client = match way {
        Access::Store(store) => return from_store(store, selection),
        Access::Daemon(client) => client,
    };
    let (mut out, mut after) = (Vec::new(), None);
    loop {
        let page = client.dead_letters(selection.entity.as_deref(), after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(out) };
        after = Some(last.id);
        let full = page.len() == PAGE;
        out.extend(page.into_iter().filter(|letter| selection.contains(letter)));
        if !full {
            return Ok(out);
        }
    }
}

fn from_store(store: &Store, selection: &DeadLetterSelection) -> Result<Vec<DeadLetter>> {
    let (mut out, mut after) = (Vec::new(), None);
    loop {
        let page = store.dead_letters(selection.entity.as_deref(), after, PAGE)?;
        let Some(last) = page.last() else { return Ok(out) };
        after = Some(last.id);
        out.extend(page.into_iter().filter(|letter| selection.contains(letter)));
    }
}
