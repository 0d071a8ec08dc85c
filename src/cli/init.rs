//! `tidemark init`.

use super::output;
use super::sides;
use super::terminal::{Look, Table, Tone, count, left, right};
use crate::config::Config;
use crate::error::{DaemonKind, Error, Result};
use crate::init::{Findings, RecordProposal, TenantFile, confidence_word, look, pack_text, propose};
use crate::pipeline::{default_schema, options};
use crate::registry;
use clap::Args;
use std::path::{Path, PathBuf};

/// Propose a tenant file and a mapping pack from a source's catalogue and a CRM's own model.
///
/// Reads tables, columns, keys and some rows of the source (nothing is written there, and no values are kept), and the CRM's
/// OpenAPI document. Each field comes with how sure the match is and why; what cannot be known is marked TODO. The proposal
/// passes `tidemark check` as far as it goes; what is missing is said.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  export SOURCE_PASSWORD=… CRM_TOKEN=…
  tidemark init acme --source postgres://tidemark@db.example:5432/shop --crm https://crm.example
  tidemark init acme --source mysql://tidemark@db/shop --source-password-file /run/secrets/db --crm http://127.0.0.1:8080 --no-auth
  tidemark init acme --source … --crm … --table customers --table orders --dry-run

Then: look through acme/mapping.toml for TODO, tidemark check --config acme/acme.toml, tidemark plan --config acme/acme.toml")]
pub struct InitArgs {
    /// The tenant's name, and the pack's.
    #[arg(value_name = "TENANT")]
    tenant: String,
    /// The vendor's database: postgres:// | mysql:// | sqlserver://USER@HOST:PORT/DATABASE. No password here: arguments can
    /// be seen by anybody.
    #[arg(long, value_name = "URL")]
    source: String,
    /// The environment variable that holds the source's password.
    #[arg(long, value_name = "NAME", default_value = "SOURCE_PASSWORD", conflicts_with = "source_password_file")]
    source_password_env: String,
    /// A file that holds the source's password.
    #[arg(long, value_name = "PATH")]
    source_password_file: Option<PathBuf>,
    /// TLS to the source.
    #[arg(long, value_name = "MODE", default_value = "verify-full", value_parser = ["disable", "require", "verify-ca", "verify-full"])]
    tls: String,
    /// The CRM's base URL.
    #[arg(long, value_name = "URL")]
    crm: String,
    /// The environment variable that holds the CRM's bearer token.
    #[arg(long, value_name = "NAME", default_value = "CRM_TOKEN", conflicts_with = "no_auth")]
    crm_token_env: String,
    /// The CRM wants no credentials.
    #[arg(long)]
    no_auth: bool,
    /// Only this table, by name or as schema.name; may be repeated.
    #[arg(long, value_name = "T")]
    table: Vec<String>,
    /// Where to write TENANT.toml and mapping.toml; made if it is not there. By default a directory called like the tenant.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Write over files that are there.
    #[arg(long)]
    force: bool,
    /// Show the pack on stdout and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// What was found, as JSON (schema version 1).
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: InitArgs) -> Result<()> {
    crate::logging::init("warn", crate::logging::LogFormat::Text, None)?;
    let dir = args.dir.clone().unwrap_or_else(|| PathBuf::from(&args.tenant));
    let (tenant_path, pack_path) = (dir.join(format!("{}.toml", args.tenant)), dir.join("mapping.toml"));
    if !args.force && !args.dry_run {
        refuse_existing(&[&tenant_path, &pack_path])?;
    }
    let tenant_text = tenant_file(&args)?.text();
    let config =
        Config::parse(&std::path::absolute(&tenant_path).unwrap_or_else(|_| tenant_path.clone()), &tenant_text)
            .map_err(|wrong| Error::new(DaemonKind::Usage, format!("the arguments make no tenant file:\n{wrong}")))?;
    let crm = sides::crm(&config)?;
    let connector = registry::connector(&config.source)?;
    let model = crm.discover().await?;
    let sources = look(&*connector, &args.table).await?;
    if sources.is_empty() {
        return Err(Error::new(DaemonKind::Failed, "the source shows no tables to this user")
            .hint("grant SELECT on them, or look at --table and at the database's name"));
    }
    let findings = propose(sources, model, &default_schema(&config), &options(&config));
    let pack = pack_text(&args.tenant, &config.source.identity(), &config.crm.base_url.to_string(), &findings);
    if args.json {
        output::json(&json(&findings, &tenant_path, &pack_path, args.dry_run))?;
    } else if args.dry_run {
        output::data(&pack)?;
    } else {
        output::data(&render(&findings, &Look::stdout()))?;
    }
    if !args.dry_run {
        std::fs::create_dir_all(&dir).map_err(output::failed(&format!("make {}", dir.display())))?;
        write(&tenant_path, &tenant_text, args.force)?;
        write(&pack_path, &pack, args.force)?;
        output::talk(&format!("wrote {} and {}", tenant_path.display(), pack_path.display()));
    }
    conclude(&findings, &tenant_path)
}

fn refuse_existing(paths: &[&Path]) -> Result<()> {
    match paths.iter().find(|path| path.exists()) {
        None => Ok(()),
        Some(path) => {
            Err(Error::new(DaemonKind::Failed, format!("{} is there already; nothing was written", path.display()))
                .hint("name another --dir, look at the proposal with --dry-run, or write over it with --force"))
        }
    }
}

fn write(path: &Path, text: &str, force: bool) -> Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).create_new(!force);
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(output::failed(&format!("write {}", path.display())))
}

fn tenant_file(args: &InitArgs) -> Result<TenantFile> {
    let wrong =
        |message: String| Error::new(DaemonKind::Usage, message).hint("write it as postgres://USER@HOST:PORT/DATABASE");
    if args.tenant.is_empty() || !args.tenant.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        return Err(Error::new(DaemonKind::Usage, format!("`{}` is no tenant's name", args.tenant))
            .hint("letters, digits, `-` and `_`"));
    }
    let (scheme, rest) =
        args.source.split_once("://").ok_or_else(|| wrong("--source is no URL of a database".into()))?;
    let (engine, usual) = match scheme {
        "postgres" | "postgresql" => ("postgres", 5432),
        "mysql" | "mariadb" => ("mysql", 3306),
        "sqlserver" | "mssql" => ("sqlserver", 1433),
        other => return Err(wrong(format!("`{other}` is no engine known here"))),
    };
    let (user, place) = rest.rsplit_once('@').ok_or_else(|| wrong("--source names no user".into()))?;
    if user.contains(':') {
        return Err(Error::new(DaemonKind::Usage, "a password in an argument can be seen by anybody")
            .hint("leave it out of --source; use --source-password-env or --source-password-file"));
    }
    let (address, database) = place
        .split_once('/')
        .filter(|(_, d)| !d.is_empty())
        .ok_or_else(|| wrong("--source names no database".into()))?;
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => {
            (host, port.parse().map_err(|_| wrong(format!("`{port}` is no port")))?)
        }
        _ => (address, usual),
    };
    let quote = |text: &str| serde_json::to_string(text).unwrap_or_default();
    let password = match &args.source_password_file {
        Some(path) => {
            let path = std::path::absolute(path).map_err(output::failed("find the password's file"))?;
            format!("{{ file = {} }}", quote(&path.display().to_string()))
        }
        None => format!("{{ env = {} }}", quote(&args.source_password_env)),
    };
    let auth = match args.no_auth {
        true => "{ type = \"none\" }".to_owned(),
        false => format!("{{ type = \"bearer\", token = {{ env = {} }} }}", quote(&args.crm_token_env)),
    };
    Ok(TenantFile {
        tenant: args.tenant.clone(),
        engine: engine.into(),
        host: host.trim_start_matches('[').trim_end_matches(']').into(),
        port,
        database: database.into(),
        user: user.into(),
        password: Some(password),
        tls: args.tls.clone(),
        pack: "./mapping.toml".into(),
        base_url: args.crm.clone(),
        auth,
    })
}

fn json(findings: &Findings, tenant: &Path, pack: &Path, dry_run: bool) -> serde_json::Value {
    let tables: Vec<_> = findings
        .sources
        .iter()
        .map(|s| {
            let key: Vec<&str> = s.schema.key.iter().map(|at| &*s.schema.columns[*at].name).collect();
            serde_json::json!({
                "table": s.schema.table.to_string(), "rows": s.rows, "columns": s.schema.columns.len(), "key": key,
                "problem": s.problem,
            })
        })
        .collect();
    let unmapped: Vec<_> =
        findings.unmapped.iter().map(|(table, why)| serde_json::json!({"table": table, "reason": why})).collect();
    serde_json::json!({
        "schema": 1,
        "written": if dry_run { Vec::new() } else { vec![tenant.display().to_string(), pack.display().to_string()] },
        "tables": tables,
        "records": findings.records,
        "tables_not_mapped": unmapped,
        "entities_not_fed": findings.unfed,
        "fits": findings.records.iter().any(|record| record.problem.is_none()),
    })
}

fn render(findings: &Findings, look: &Look) -> String {
    let headings = ["TABLE", ">ROWS", "ENTITY", ">SURE", ">FIELDS", ">HIGH", ">MEDIUM", ">LOW", ">TODO"];
    let mut table = Table::new(&headings);
    for record in &findings.records {
        let of = |word: &str| record.fields.iter().filter(|f| !f.todo && confidence_word(f.confidence) == word).count();
        let todo = record.fields.iter().filter(|f| f.todo).count() + record.not_found.len();
        let mapped = record.fields.iter().filter(|f| !f.todo).count();
        let number = |n: usize, tone| right(n.to_string()).tone(if n > 0 { tone } else { Tone::Quiet });
        let entity =
            if record.problem.is_some() { format!("{} (not used)", record.entity) } else { record.entity.clone() };
        table.row([
            left(&record.table),
            right(record.rows.map_or_else(|| "?".into(), count)),
            left(entity).tone(if record.problem.is_some() { Tone::Bad } else { Tone::Strong }),
            right(format!("{:.0} %", record.confidence * 100.0)),
            number(mapped, Tone::Plain),
            number(of("high"), Tone::Good),
            number(of("medium"), Tone::Warn),
            number(of("low"), Tone::Bad),
            number(todo, Tone::Accent),
        ]);
    }
    let mut out = table.render(look);
    for RecordProposal { table, problem, .. } in &findings.records {
        if let Some(problem) = problem {
            out.push_str(&format!("  {} {table}: {problem}\n", look.paint(Tone::Bad, "!")));
        }
    }
    if !findings.unmapped.is_empty() {
        out.push_str(&look.paint(Tone::Quiet, &format!("\nno record for {} tables:", findings.unmapped.len())));
        out.push('\n');
        for (table, why) in &findings.unmapped {
            out.push_str(&look.paint(Tone::Quiet, &format!("  {table}: {why}")));
            out.push('\n');
        }
    }
    if !findings.unfed.is_empty() {
        out.push_str(&look.paint(Tone::Quiet, &format!("no table for: {}", findings.unfed.join(", "))));
        out.push('\n');
    }
    out
}

fn conclude(findings: &Findings, tenant: &Path) -> Result<()> {
    let fits = findings.records.iter().filter(|r| r.problem.is_none()).count();
    if fits == 0 {
        return Err(Error::new(DaemonKind::Failed, "no table could be matched with an entity of the CRM")
            .hint("write the pack by hand: docs/mapping.md, and the built-in pack `northwind` as an example"));
    }
    let broken = findings.records.len() - fits;
    let but = if broken > 0 {
        format!("; {broken} more need something that was not found (commented out)")
    } else {
        String::new()
    };
    output::talk(&format!("{fits} records fit both schemas as they are{but}"));
    output::hint(&format!(
        "look for TODO in the mapping, then: tidemark check --config {0}; tidemark plan --config {0}",
        tenant.display()
    ));
    Ok(())
}
