//! `tidemark check`: everything before the first byte.

use super::output;
use super::sides;
use super::tenant::{TenantArgs, client, has_state};
use super::terminal::{Look, Tone};
use crate::admin::ClientError;
use crate::config::Config;
use crate::diagnostics::Diagnostics;
use crate::error::{DaemonKind, Error, ExitCode, Result};
use crate::logging::escape_control;
use crate::mapping::{self, Pack};
use crate::registry;
use clap::Args;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tidemark_contract::{Finding, Severity, TableId, TableSchema};

/// Look at everything before the first byte: file, mapping against both schemas, source settings and rights, log, slot,
/// CRM.
///
/// Reports all findings at once, each with the statement or setting that fixes it. Changes nothing on either side.
/// Exits 0, 77 if nothing but rights is missing, 78 if a setting or the mapping is wrong, 1 if a side cannot be reached.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemark check acme
  tidemark check acme --offline         the file and the mapping alone: no secret, no network
  tidemark check acme --json | jq '.findings[] | select(.severity == \"error\")'")]
pub struct CheckArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// The file and the mapping alone.
    #[arg(long)]
    offline: bool,
    /// As JSON (schema version 1).
    #[arg(long)]
    json: bool,
}

/// One line of the result.
#[derive(Debug, Serialize)]
struct Line {
    group: &'static str,
    id: String,
    severity: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<String>,
    observed: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    wanted: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
    /// With what the program ends if this is all that is wrong.
    #[serde(skip)]
    exit: ExitCode,
}

#[derive(Default)]
struct Checked {
    lines: Vec<Line>,
    /// What is wrong in files, with places.
    diagnostics: Diagnostics,
}

impl Checked {
    fn ok(&mut self, group: &'static str, id: &str, observed: impl Into<String>) {
        self.lines.push(Line {
            group,
            id: id.into(),
            severity: word(Severity::Ok),
            table: None,
            observed: observed.into(),
            wanted: String::new(),
            fix: None,
            exit: ExitCode::Done,
        });
    }

    fn warn(&mut self, group: &'static str, id: &str, observed: impl Into<String>, fix: impl Into<String>) {
        self.ok(group, id, observed);
        if let Some(line) = self.lines.last_mut() {
            line.severity = word(Severity::Warning);
            line.fix = Some(fix.into());
        }
    }

    fn fail(&mut self, group: &'static str, id: &str, error: &Error) {
        if let Some(found) = error.diagnostics() {
            self.diagnostics.append(found.clone());
        }
        let mut observed = error.to_string();
        for cause in error.causes() {
            observed.push_str(": ");
            observed.push_str(&cause);
        }
        self.ok(group, id, observed);
        if let Some(line) = self.lines.last_mut() {
            line.severity = word(Severity::Error);
            line.fix = Some(error.hints().join("; ")).filter(|fix| !fix.is_empty());
            line.exit = error.exit_code();
        }
    }

    fn finding(&mut self, group: &'static str, finding: Finding) {
        let exit = match finding.severity {
            Severity::Error if finding.is_permission => ExitCode::Permission,
            Severity::Error => ExitCode::Configuration,
            _ => ExitCode::Done,
        };
        self.lines.push(Line {
            group,
            id: finding.id.into(),
            severity: word(finding.severity),
            table: finding.table.map(|t| t.to_string()),
            observed: finding.observed,
            wanted: finding.wanted,
            fix: finding.fix,
            exit,
        });
    }

    /// Settings come before rights, rights before what may pass by itself: in this order a person has to act.
    fn exit(&self) -> ExitCode {
        let any = |exit: ExitCode| self.lines.iter().any(|line| line.exit == exit);
        let order = [ExitCode::Bug, ExitCode::Configuration, ExitCode::Permission, ExitCode::Held, ExitCode::Failed];
        order.into_iter().find(|exit| any(*exit)).unwrap_or(ExitCode::Done)
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

pub(super) async fn run(args: CheckArgs) -> Result<()> {
    let mut checked = Checked::default();
    let tenant = match args.tenant.load() {
        Ok(config) => {
            checked.ok("tenant file", "file", config.path.display().to_string());
            checked.diagnostics.append(config.warnings.clone());
            let pack = look_at_pack(&config, &mut checked);
            if !args.offline {
                online(&config, pack, &mut checked).await;
            }
            config.tenant
        }
        Err(error) => {
            checked.fail("tenant file", "file", &error);
            args.tenant.as_given()
        }
    };
    let exit = checked.exit();
    if args.json {
        output::json(&serde_json::json!({
            "schema": 1,
            "tenant": tenant,
            "ok": exit == ExitCode::Done,
            "findings": checked.lines,
            "diagnostics": checked.diagnostics.to_json(),
        }))?;
    } else {
        output::data(&render(&checked, &Look::stdout()))?;
    }
    conclude(&checked, exit)
}

fn conclude(checked: &Checked, exit: ExitCode) -> Result<()> {
    let count = |word: &str| checked.lines.iter().filter(|l| l.severity == word).count();
    let (errors, warnings) = (count("error"), count("warning") + checked.diagnostics.counts().1);
    let kind = match exit {
        ExitCode::Done => {
            let warned = if warnings == 0 { String::new() } else { format!(", {warnings} with a warning") };
            output::talk(&format!("{} checks passed{warned}; nothing was changed", checked.lines.len()));
            return Ok(());
        }
        ExitCode::Permission => DaemonKind::Permission,
        ExitCode::Configuration | ExitCode::Usage => DaemonKind::Configuration,
        ExitCode::Bug => DaemonKind::Bug,
        ExitCode::Held | ExitCode::Failed => DaemonKind::Failed,
    };
    let plural = if errors == 1 { "check" } else { "checks" };
    Err(Error::new(kind, format!("{errors} {plural} failed; nothing was changed")))
}

fn look_at_pack(config: &Config, checked: &mut Checked) -> Option<Pack> {
    match crate::daemon::pack(config) {
        Ok(pack) => {
            let rules = pack.entity_names().len();
            let observed = format!("{} {}, feeding {rules} entities", pack.name(), pack.version());
            checked.ok("mapping", "mapping.pack", observed);
            Some(pack)
        }
        Err(error) => {
            checked.fail("mapping", "mapping.pack", &error);
            None
        }
    }
}

async fn online(config: &Config, pack: Option<Pack>, checked: &mut Checked) {
    let running = state(config, checked).await;
    let (source, model) = (source(config, checked).await, crm(config, checked).await);
    let Some(pack) = pack else { return };
    let Some((connector, catalogue)) = source else { return };
    // Without the CRM's model the mapping is still held against the source.
    let schema = crate::pipeline::default_schema(config);
    match mapping::compile(&pack, &catalogue, &schema, model.as_ref(), &crate::pipeline::options(config)) {
        Err(wrong) => checked.fail("mapping", "mapping.types", &wrong.into()),
        Ok((mapping, warnings)) => {
            let against = if model.is_some() { "both schemas" } else { "the source's schema alone" };
            checked.ok("mapping", "mapping.types", format!("{} rules fit {against}", mapping.rules.len()));
            checked.diagnostics.append(warnings);
            match connector.preflight(&mapping.requests()).await {
                Ok(findings) => {
                    for mut finding in findings {
                        // The slot's user is the daemon that was just asked how it is.
                        if running && finding.id == "source.slot" && finding.severity == Severity::Warning {
                            finding = Finding { severity: Severity::Ok, ..finding };
                        }
                        checked.finding("source", finding);
                    }
                }
                Err(error) => checked.fail("source", "source.preflight", &error.into()),
            }
            fan_out(&*connector, &mapping, checked).await;
        }
    }
}

/// A row that so many records show, on the average, is worth a warning: a change of it sends all of them.
const MANY_RECORDS: u64 = 10_000;

/// How many records one changed related row sends again, by the source's own estimates.
async fn fan_out(connector: &dyn tidemark_contract::Connector, mapping: &mapping::Mapping, checked: &mut Checked) {
    let mut rows: BTreeMap<TableId, Option<u64>> = BTreeMap::new();
    for rule in &mapping.rules {
        let Some(relations) = &rule.relations else { continue };
        let own = relations.joins.iter().map(|join| (join, &rule.table));
        let inner =
            relations.children.iter().flat_map(|child| child.joins.iter().map(move |join| (join, &child.table)));
        for (join, shown_by) in own.chain(inner).filter(|(join, _)| join.resend) {
            for table in [&join.table, shown_by] {
                if !rows.contains_key(table) {
                    rows.insert(table.clone(), connector.estimate_rows(table).await.ok().flatten());
                }
            }
            let known = |table: &TableId| rows.get(table).copied().flatten();
            let (Some(shown), Some(showing)) = (known(&join.table), known(shown_by)) else { continue };
            let each = showing.div_ceil(shown.max(1));
            let observed = format!(
                "a change of one row of {} sends about {each} records of rule {} again ({showing} rows of {shown_by}, \
                 {shown} of {})",
                join.table, rule.name, join.table
            );
            if each < MANY_RECORDS {
                checked.ok("mapping", "mapping.fan_out", observed);
            } else {
                checked.finding(
                    "mapping",
                    Finding {
                        id: "mapping.fan_out",
                        severity: Severity::Warning,
                        observed,
                        table: Some(join.table.clone()),
                        is_permission: false,
                        wanted: format!("fewer than {MANY_RECORDS}, or the time and the quota for as many"),
                        fix: Some(format!(
                            "if such changes need not be followed: on_change = \"ignore\" in join.{}",
                            join.alias
                        )),
                    },
                );
            }
        }
    }
}

type SourceSide = (Arc<dyn tidemark_contract::Connector>, Vec<Arc<TableSchema>>);

async fn source(config: &Config, checked: &mut Checked) -> Option<SourceSide> {
    let connector = match registry::connector(&config.source) {
        Ok(connector) => connector,
        Err(error) => {
            checked.fail("source", "source.settings", &error);
            return None;
        }
    };
    match connector.discover(&[]).await {
        Ok(catalogue) => {
            let observed =
                format!("{} as {}, {} tables", config.source.identity(), config.source.user, catalogue.len());
            checked.ok("source", "source.reachable", observed);
            Some((connector, catalogue))
        }
        Err(error) => {
            checked.fail("source", "source.reachable", &error.into());
            None
        }
    }
}

async fn crm(config: &Config, checked: &mut Checked) -> Option<crate::crm::CrmSchema> {
    let crm = match sides::crm(config) {
        Ok(crm) => crm,
        Err(error) => {
            checked.fail("crm", "crm.settings", &error);
            return None;
        }
    };
    match crm.check().await {
        Ok(()) => checked.ok("crm", "crm.reachable", format!("{} answers and accepts us", config.crm.base_url)),
        Err(error) => checked.fail("crm", "crm.reachable", &error.into()),
    }
    match crm.discover().await {
        Ok(model) => {
            checked.ok("crm", "crm.model", format!("{} entities", model.entities.len()));
            Some(model)
        }
        Err(error) => {
            checked.fail("crm", "crm.model", &error.into());
            None
        }
    }
}

/// Whether a daemon runs is the answer.
async fn state(config: &Config, checked: &mut Checked) -> bool {
    let running = match client(config).status().await {
        Ok(report) => {
            checked.ok("state", "state.daemon", format!("the daemon runs (pid {}, {})", report.pid, report.state));
            true
        }
        Err(ClientError::NotRunning) => false,
        Err(error) => {
            checked.fail("state", "state.daemon", &error.into());
            true
        }
    };
    match writable(&config.state.dir) {
        Ok(()) if has_state(config) => checked.ok("state", "state.dir", config.state.dir.display().to_string()),
        Ok(()) => {
            checked.ok(
                "state",
                "state.dir",
                format!("{} (a first start: every table is read)", config.state.dir.display()),
            );
        }
        // The daemon's account is not ours under systemd; a running daemon has proved that it can write.
        Err(_) if running => checked.ok("state", "state.dir", config.state.dir.display().to_string()),
        Err(error) => checked.warn(
            "state",
            "state.dir",
            format!("{} is not writable for this user: {error}", config.state.dir.display()),
            "check as the daemon's user; under systemd StateDirectory= makes it",
        ),
    }
    if let (false, Some(listen)) = (running, config.observe.listen) {
        match tokio::net::TcpListener::bind(listen).await {
            Ok(_) => checked.ok("state", "observe.listen", format!("{listen} is free")),
            Err(error) => {
                let error = Error::new(DaemonKind::Configuration, format!("{listen} cannot be listened on"))
                    .caused_by(error)
                    .hint("set [observe] listen to a free address; each tenant needs its own");
                checked.fail("state", "observe.listen", &error);
            }
        }
    }
    running
}

/// Whether files can be made in `dir`, or it could be made itself. Leaves nothing behind.
fn writable(dir: &Path) -> std::io::Result<()> {
    let existing = dir.ancestors().find(|d| d.exists()).unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    tempfile::tempfile_in(existing).map(drop)
}

fn render(checked: &Checked, look: &Look) -> String {
    let mut out = String::new();
    if !checked.diagnostics.is_empty() {
        out.push_str(checked.diagnostics.render(look.colour).trim_end());
        out.push_str("\n\n");
    }
    for group in ["tenant file", "mapping", "source", "crm", "state"] {
        let mut lines = checked.lines.iter().filter(|line| line.group == group).peekable();
        if lines.peek().is_none() {
            continue;
        }
        out.push_str(&format!("{}\n", look.paint(Tone::Strong, group)));
        for line in lines {
            out.push_str(&render_line(line, look));
        }
    }
    out
}

fn render_line(line: &Line, look: &Look) -> String {
    let (mark, tone) = match line.severity {
        "ok" => ("ok  ", Tone::Good),
        "warning" => ("WARN", Tone::Warn),
        _ => ("FAIL", Tone::Bad),
    };
    let table = line.table.as_ref().map(|t| format!("{t}: ")).unwrap_or_default();
    let mut out = format!("  {}  {:<28}{table}{}\n", look.paint(tone, mark), line.id, indent(&line.observed, 36));
    if line.severity != "ok" && !line.wanted.is_empty() {
        out.push_str(&format!("{:36}{} {}\n", "", look.paint(Tone::Quiet, "wanted:"), indent(&line.wanted, 44)));
    }
    if let Some(fix) = line.fix.as_ref().filter(|_| line.severity != "ok") {
        out.push_str(&format!("{:36}{} {}\n", "", look.paint(Tone::Accent, "fix:"), indent(fix, 41)));
    }
    out
}

/// Further lines of a text start where its first one does.
fn indent(text: &str, columns: usize) -> String {
    let lines: Vec<_> = text.lines().map(escape_control).collect();
    lines.join(&format!("\n{:columns$}", ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemark_contract::TableId;

    fn checked() -> Checked {
        let mut checked = Checked::default();
        checked.ok("tenant file", "file", "acme.toml");
        let finding = Finding::error("source.wal_level", "replica", "logical", Some("ALTER SYSTEM …;\nrestart".into()));
        checked.finding("source", finding);
        let right = Finding::error("source.select", "no", "SELECT", Some("GRANT …".into())).permission();
        checked.finding("source", right.about(&TableId::new("public", "orders")));
        checked
    }

    #[test]
    fn every_finding_has_its_fix_below_it() {
        let expected = "\
tenant file
  ok    file                        acme.toml
source
  FAIL  source.wal_level            replica
                                    wanted: logical
                                    fix: ALTER SYSTEM …;
                                         restart
  FAIL  source.select               public.orders: no
                                    wanted: SELECT
                                    fix: GRANT …
";
        assert_eq!(render(&checked(), &Look::plain()), expected);
    }

    #[test]
    fn the_exit_code_says_who_has_to_act() {
        let mut checked = checked();
        assert_eq!(checked.exit(), ExitCode::Configuration);
        checked.lines.remove(1);
        assert_eq!(checked.exit(), ExitCode::Permission);
        checked.lines.remove(1);
        assert_eq!(checked.exit(), ExitCode::Done);
        checked.fail("crm", "crm.reachable", &Error::new(crate::crm::CrmErrorKind::Unavailable, "refused"));
        assert_eq!(checked.exit(), ExitCode::Failed);
    }
}
