//! `tidemark dev-crm`.

use super::output;
use crate::demo::crm::{DevCrmOptions, SchemaSource, serve};
use crate::error::{DaemonKind, Error, Result};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;

/// The reference CRM: the contract of profile `rest`, a page that shows records arriving, and fault switches.
///
/// For trying things out and for testing a mapping; it is no CRM.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tidemark dev-crm                                       http://127.0.0.1:8080, in memory, the built-in model
  tidemark dev-crm --db crm.sqlite --schema model.json
  tidemark dev-crm --faults '{\"error_500\": 0.1, \"throttle\": {\"share\": 0.05, \"retry_after\": \"2\"}}'")]
pub struct DevCrmArgs {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Keep the records in this SQLite file; without it they are kept in memory.
    #[arg(long, value_name = "FILE")]
    db: Option<PathBuf>,
    /// The model: `northwind` (built in), `open` (any entity, any field), or a JSON file (OpenAPI, or JSON Schemas by
    /// entity).
    #[arg(long, value_name = "MODEL", default_value = "northwind")]
    schema: String,
    /// Bearer token that calls must carry.
    #[arg(long, env = "DEV_CRM_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Fault switches that are on from the start, as the JSON that POST /admin/faults takes.
    #[arg(long, value_name = "JSON")]
    faults: Option<String>,
    /// Writes kept for looking at, over all records.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    history: usize,
}

pub(super) async fn run(args: DevCrmArgs) -> Result<()> {
    let faults = match &args.faults {
        Some(json) => serde_json::from_str(json)
            .map_err(|e| Error::new(DaemonKind::Usage, format!("--faults cannot be read: {e}")))?,
        None => Default::default(),
    };
    let schema = match args.schema.as_str() {
        "northwind" => SchemaSource::Northwind,
        "open" => SchemaSource::Open,
        path => SchemaSource::File(path.into()),
    };
    let options = DevCrmOptions {
        listen: args.listen,
        db: args.db,
        schema,
        token: args.token,
        history: args.history,
        faults,
        ..DevCrmOptions::default()
    };
    let crm = serve(options, super::interrupted()).await.map_err(|e| Error::new(DaemonKind::Failed, e.to_string()))?;
    // The address is data: a script that asked for port 0 reads it.
    output::data(&format!("{}\n", crm.url()))?;
    output::talk("open it in a browser to see records arrive; Ctrl-C stops it");
    crm.stopped().await;
    Ok(())
}
