//! `tidemark test`.

use super::output;
use super::terminal::Look;
use crate::error::{DaemonKind, Error, Result};
use crate::mapping::{CompileOptions, Pack, run_pack_tests};
use clap::Args;

/// Run a pack's own tests: no database, no CRM.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemark test northwind                    a pack that is built in, or below /etc/tidemark/packs
  tidemark test ./packs/acme/mapping.toml
  tidemark test ./packs/acme --time-zone Europe/Berlin")]
pub struct TestArgs {
    /// Name of the pack, its directory, or its file.
    #[arg(value_name = "PACK")]
    pack: String,
    /// Zone of timestamps that have none of their own, as a tenant would set it.
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &TestArgs) -> Result<()> {
    let time_zone = match &args.time_zone {
        None => None,
        Some(name) => Some(jiff::tz::TimeZone::get(name).map_err(|e| {
            Error::new(DaemonKind::Usage, format!("--time-zone: {e}")).hint("a name such as Europe/Berlin, or UTC")
        })?),
    };
    let pack = Pack::load_from(&args.pack, &crate::config::directory().join("packs"), None)?;
    let report = run_pack_tests(&pack, &CompileOptions { time_zone })?;
    if args.json {
        output::json(&serde_json::json!({
            "schema": 1,
            "pack": pack.name(),
            "total": report.total,
            "failed": report.failed,
            "diagnostics": report.diagnostics.to_json(),
        }))?;
    } else if !report.diagnostics.is_empty() {
        output::data(&format!("{}\n", report.diagnostics.render(Look::stdout().colour).trim_end()))?;
    }
    let summary = format!("{} of {} tests of {} failed", report.failed, report.total, pack.name());
    match (report.total, report.failed) {
        (0, _) => Err(Error::new(DaemonKind::Failed, format!("{} has no tests", pack.name()))
            .hint("write some: [[test]] record = …, row = { … }, expect = { … }")),
        (total, 0) => {
            output::talk(&format!("{total} tests of {} passed", pack.name()));
            Ok(())
        }
        _ => Err(Error::new(DaemonKind::Configuration, summary)),
    }
}
